"""The rows of a run's tables that claims and figures of CoinRun rest on, and what is not there.

Nothing is computed here but which numbers of training levels are compared.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from hotoven.evaluation.bootstrap import Interval

COMPARED: Final = 200  # number of training levels that the smallest is compared with
SCORE: Final = "mean and std"

Tables = Mapping[str, pa.Table]


class Missing(LookupError):
    """The tables lack what a claim is about; the message says what."""


def lacking(tables: Tables, names: Sequence[str]) -> list[str]:
    """Which of these tables are not there."""
    return [name for name in names if name not in tables]


def rows_of(tables: Tables, name: str, **where: Any) -> list[dict[str, Any]]:
    """The rows of a table whose columns have these values."""
    if name not in tables:
        raise Missing(f"there is no table of {name}")
    table = tables[name]
    for column, value in where.items():
        table = table.filter(pc.field(column) == value)
    return table.to_pylist()


def row_of(tables: Tables, name: str, **where: Any) -> dict[str, Any]:
    """The first row of a table whose columns have these values.

    Raises:
      Missing: there is none.
    """
    rows = rows_of(tables, name, **where)
    if not rows:
        words = ", ".join(f"{column} {value}" for column, value in where.items())
        raise Missing(f"the table of {name} has no row of {words}")
    return rows[0]


def interval_of(row: Mapping[str, Any], columns: Sequence[str]) -> Interval:
    """The interval in a row's three columns: estimate, low, high.

    Raises:
      Missing: one of them is null or NaN.
    """
    values = [row[column] for column in columns]
    if any(value is None or math.isnan(value) for value in values):
        raise Missing(f"there is no {columns[0]} where {_described(row)}")
    estimate, low, high = values
    return Interval(estimate, low, high, num_replications=1)


def _described(row: Mapping[str, Any]) -> str:
    named = {key: value for key, value in row.items() if isinstance(value, str)}
    return ", ".join(f"{key} is {value}" for key, value in named.items())


def rate_of(row: Mapping[str, Any], outcome: str) -> Interval:
    """The rate of an outcome in a row of rates or of help_rates."""
    return interval_of(row, [f"{outcome}_{part}" for part in ("rate", "low", "high")])


def all_sizes(tables: Tables) -> list[int]:
    """The numbers of training levels of a run, ascending.

    Raises:
      Missing: the table of rates has no row.
    """
    sizes = sorted({row["num_train_levels"] for row in rows_of(tables, "rates")})
    if not sizes:
        raise Missing("there are no rates")
    return sizes


def compared_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The smallest and 200, the post's two; the largest in place of 200; or one where there is one.

    `sizes` ascend.
    """
    other = COMPARED if COMPARED in sizes else sizes[-1]
    return tuple(dict.fromkeys((sizes[0], other)))
