"""Where a CoinRun run keeps what has been played, and what of it is there.

A part is all that the agents of one number of training levels play; in it each way of acting has a
folder of its own, and each helper a table.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hotoven.evaluation.coinrun_help_claims import AT_RANDOM
from hotoven.mechanisms.acting import ACTING
from hotoven.storage import read_json, read_table
from hotoven.studies.coinrun_settings import PREDICTED, CoinRunStudy
from hotoven.studies.parts import made_again_without


def part_path(path: Path, size: int) -> Path:
    """The folder of what the agents of `size` training levels have played, in the run at `path`."""
    return path / "parts" / f"levels{size}"


def way_path(part: Path, method: str) -> Path:
    """The folder of what one way of acting has played, in a part of a run."""
    return part / method


def is_played(part: Path, method: str) -> bool:
    """Whether a way of acting has been played: the table of episodes is written last."""
    return (way_path(part, method) / "episodes.parquet").exists()


def all_played(part: Path) -> bool:
    """Whether every way of acting has been played."""
    return all(is_played(part, method) for method in ACTING)


def help_path(part: Path, helper: str) -> Path:
    """The table of what was played with a helper, in a part of a run."""
    return part / f"help-{helper}.parquet"


def ways_of_help(study: CoinRunStudy) -> tuple[str, ...]:
    """The helpers of a study, and the planner asked at random."""
    return *study.helpers, AT_RANDOM


def is_whole(study: CoinRunStudy, part: Path) -> bool:
    """Whether all is played that belongs to that part of a run."""
    helped = (help_path(part, name) for name in ways_of_help(study))
    return all_played(part) and all(path.exists() for path in helped)


def read_part(part: Path, name: str, methods: Sequence[str]) -> pa.Table:
    """A table of a part, those of the ways of acting one after the other."""
    tables = []
    for method in methods:
        folder = way_path(part, method)
        with made_again_without(folder / "episodes.parquet"):  # written last
            tables.append(read_table(folder / f"{name}.parquet"))
    return pa.concat_tables(tables)


def read_help(part: Path, helper: str) -> pa.Table:
    """The table of what was played with a helper."""
    path = help_path(part, helper)
    with made_again_without(path):
        return read_table(path)


def read_chosen(part: Path) -> list[dict[str, Any]]:
    """The pairs of alpha and beta that were chosen on validation levels."""
    chosen: list[dict[str, Any]] = []
    for method in PREDICTED:
        folder = way_path(part, method)
        with made_again_without(folder / "episodes.parquet"):
            chosen += read_json(folder / "chosen.json")
    return chosen
