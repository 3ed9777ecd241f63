"""Tables that note which of them were read."""

from collections.abc import Iterator, Mapping

import pyarrow as pa


class Noted(Mapping[str, pa.Table]):
    """The same tables; `names` are of those that were asked for or looked for."""

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        self.names: set[str] = set()
        self._tables = tables

    def __getitem__(self, name: str) -> pa.Table:
        self.names.add(name)
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)
