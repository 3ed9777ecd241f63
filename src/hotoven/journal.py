"""Tables that grow: rows are added to a Parquet file of a run, which is whole or not there.

A file that is damaged or of other columns is refused before anything is done, and left as it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from hotoven.storage import read_table, write_table


class Journal:
    """A table of a run and the rows that will be added to it.

    Raises:
      ValueError: what is there is damaged, or has other columns.
    """

    def __init__(self, path: Path, schema: pa.Schema):
        self.path = path
        self._schema = schema
        self._rows: list[Mapping[str, Any]] = []
        self._written()

    def add(self, **row: Any) -> None:
        """A row, which is kept until `write`; a column that is not named is null."""
        unknown = row.keys() - set(self._schema.names)
        assert not unknown, f"there are no columns {', '.join(unknown)}"
        self._rows.append(row)

    def write(self) -> None:
        """Writes the file anew with what was added."""
        if not self._rows:
            return
        table = pa.concat_tables([self._written(), pa.Table.from_pylist(self._rows, self._schema)])
        write_table(self.path, dict(zip(table.column_names, table.columns, strict=True)))
        self._rows = []

    def _written(self) -> pa.Table:
        """The rows of the file."""
        if not self.path.exists():
            return self._schema.empty_table()
        table = read_table(self.path)
        if table.schema.remove_metadata() != self._schema:
            raise ValueError(
                f"{self.path} has other columns than those that are added to it: move it elsewhere"
            )
        return table
