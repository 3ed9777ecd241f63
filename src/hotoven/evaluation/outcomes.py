"""From the table of episodes to rates: how often levels were solved, or ended in catastrophe.

Reads `episodes.parquet` as a table (one row per policy, level and attempt) and returns tables. Runs
no episode and judges no claim: see `rollout` and `findings`. Rates are shares from 0 to 1.

Axes: R replications, M members (1 for a method that acts as one), L levels, A attempts at each
level (1 where no policy draws its actions).
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hotoven.evaluation.bootstrap import Interval, two_level, wilson

# How an episode can end, in the table's words; `types.OUTCOMES` without "running".
OUTCOMES: Final = ("solved", "catastrophe", "timeout", "failed")
SETS: Final = ("train", "test")
# The order of methods in tables; others follow, by name.
METHODS: Final = (
    "single",
    "random_step",
    "random_hold",
    "random_episode",
    "mean",
    "mean_logits",
    "vote",
    "mean_hysteresis",
    "mc_dropout",
    "single+blocker",
    "mean+blocker",
    "vote+blocker",
    "mc_dropout+blocker",
)

_TEXT: Final = pa.string()
_COUNT: Final = pa.int32()
_NUMBER: Final = pa.float64()

_RATES: Final = pa.schema(
    [
        ("set", _TEXT),
        ("num_train_levels", _COUNT),
        ("method", _TEXT),
        ("num_replications", _COUNT),
        ("num_members", _COUNT),  # policies rated per replication; null: the method acts as one
        ("num_levels", _COUNT),
        ("num_episodes", pa.int64()),
        *((f"{name}_{part}", _NUMBER) for name in OUTCOMES for part in ("rate", "low", "high")),
        ("resampled", _TEXT),  # "levels" or "replications and levels"
        ("mean_length", _NUMBER),  # steps
        ("mean_return", _NUMBER),
        ("blocked_per_episode", _NUMBER),  # steps in which the chosen action was blocked
        ("all_blocked_per_episode", _NUMBER),  # steps in which every action was blocked
        ("false_block_share", _NUMBER),  # of the blocked actions; null: nothing was blocked
    ]
)

_AGENT_RATES: Final = pa.schema(
    [
        ("set", _TEXT),
        ("num_train_levels", _COUNT),
        ("replication", _COUNT),
        ("method", _TEXT),
        ("member", _COUNT),
        ("num_episodes", _COUNT),
        ("num_solved", _COUNT),
        ("num_catastrophes", _COUNT),
        ("num_timeouts", _COUNT),
        ("num_failed", _COUNT),
        *((f"{name}_{part}", _NUMBER) for name in OUTCOMES[:2] for part in ("rate", "low", "high")),
        ("timeout_rate", _NUMBER),
        ("failed_rate", _NUMBER),
    ]
)

_DIFFERENCES: Final = pa.schema(
    [
        ("num_train_levels", _COUNT),
        ("method", _TEXT),
        ("baseline", _TEXT),
        ("num_replications", _COUNT),
        ("num_levels", _COUNT),
        *(
            (f"{name}_{part}", _NUMBER)
            for name in ("catastrophe", "solved")
            for part in ("difference", "low", "high")
        ),
        ("resampled", _TEXT),
    ]
)


class CellKey(NamedTuple):
    """What one rate is a rate of."""

    set: str  # "train" or "test"
    num_train_levels: int
    method: str


class Cell(NamedTuple):
    """The episodes of one method at one number of training levels on one set of levels."""

    replications: np.ndarray  # int64[R], ascending
    members: np.ndarray  # int64[R, M], ascending in a replication; -1: the method acts as one
    level_ids: np.ndarray  # int64[R, L], in order of level_index
    outcome: np.ndarray  # int8[R, M, L, A], an index into OUTCOMES
    length: np.ndarray  # int32[R, M, L, A], steps
    episode_return: np.ndarray  # float32[R, M, L, A]
    num_blocked: np.ndarray  # int32[R, M, L, A], steps in which the chosen action was blocked
    num_false_blocks: np.ndarray  # int32[R, M, L, A], those in which it was in truth safe
    num_all_blocked: np.ndarray  # int32[R, M, L, A], steps in which every action was blocked

    def indicators(self, outcome: str) -> np.ndarray:
        """float64[R, L]: the share of a replication's episodes that ended in `outcome`."""
        if outcome not in OUTCOMES:
            raise ValueError(f"outcome must be one of {OUTCOMES}, got {outcome!r}")
        return (self.outcome == OUTCOMES.index(outcome)).mean(axis=(1, 3))

    def rate(self, outcome: str) -> Interval:
        """Share of episodes that ended in `outcome`, with its two-level interval."""
        return two_level(self.indicators(outcome), bounds=(0, 1))


_NUMBERS = (
    *("num_train_levels", "replication", "member", "level_index", "level_id", "length"),
    *("episode_return", "num_blocked", "num_false_blocks", "num_all_blocked"),
)
EPISODE_COLUMNS = (*_NUMBERS, "set", "method", "outcome")  # what `read_cells` reads


def read_cells(episodes: pa.Table) -> dict[CellKey, Cell]:
    """The episodes as arrays, by what is rated; ordered by set, size and method.

    In the test set a level_index means the same level_id in every replication. Training levels may
    differ from one replication to the next. Without a column `attempt` every level was played once.

    Raises:
      ValueError: an unknown word or an absent value in a column that is read; a level, or an
        attempt at one, missing or duplicated for some (replication, member); replications of
        unequal numbers of members.
    """
    if episodes.num_rows == 0:
        return {}
    methods = _method_order(pc.unique(episodes["method"]).cast(_TEXT).to_pylist())
    columns = {name: _numbers(episodes, name) for name in _NUMBERS}
    played_once = "attempt" not in episodes.column_names
    columns["attempt"] = (
        np.zeros(episodes.num_rows, int) if played_once else _numbers(episodes, "attempt")
    )
    columns["outcome"] = _codes(episodes, "outcome", OUTCOMES)
    sets, method = _codes(episodes, "set", SETS), _codes(episodes, "method", methods)
    sizes, size = np.unique(columns["num_train_levels"], return_inverse=True)

    shape = (len(SETS), len(sizes), len(methods))
    group = np.ravel_multi_index((sets, size, method), shape)
    within = (columns[name] for name in ("replication", "member", "level_index", "attempt"))
    order = _row_order(group, *within)
    group = group[order]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    cells = {}
    for rows in np.split(order, starts[1:]):
        first = rows[0]
        key = CellKey(SETS[sets[first]], int(sizes[size[first]]), methods[method[first]])
        cells[key] = _cell(key, {name: values[rows] for name, values in columns.items()})
    return cells


def matrix(
    episodes: pa.Table, set: str, num_train_levels: int, method: str, outcome: str
) -> np.ndarray:
    """Whether each level ended in `outcome`: float64[R, L], a mean over members and attempts.

    Replications ascend, levels are in order of level_index.

    Raises:
      ValueError: there is no such episode, or the episodes are not whole (see `read_cells`).
    """
    chosen = (
        (pc.field("set") == set)
        & (pc.field("num_train_levels") == num_train_levels)
        & (pc.field("method") == method)
    )
    key = CellKey(set, num_train_levels, method)
    cells = read_cells(episodes.filter(chosen))
    if key not in cells:
        raise ValueError(f"no episode of {_name(key)}")
    return cells[key].indicators(outcome)


def rates(episodes: pa.Table) -> pa.Table:
    """How each method did: one row per set, number of training levels and method.

    Rates come with two-level intervals (replications and levels) of 95%. False block share is the
    share of blocked actions that were not catastrophic; null where nothing was blocked.
    """
    rows = [_rates_row(key, cell) for key, cell in read_cells(episodes).items()]
    return pa.Table.from_pylist(rows, _RATES)


def agent_rates(episodes: pa.Table) -> pa.Table:
    """How each policy did: one row per set, number of training levels, replication, method, member.

    Intervals are Wilson's, 95%: they speak of new levels for this agent, not of new agents; where a
    level was played more than once, of new episodes on the same levels.
    """
    rows = [
        _agent_row(key, cell, replication, member)
        for key, cell in read_cells(episodes).items()
        for replication in range(cell.outcome.shape[0])
        for member in range(cell.outcome.shape[1])
    ]
    return pa.Table.from_pylist(rows, _AGENT_RATES)


def paired_differences(episodes: pa.Table, baseline: str = "single") -> pa.Table:
    """Each method's test rates minus the baseline's, paired by replication and level.

    One row per number of training levels and method other than the baseline; below 0 is less often.

    Raises:
      ValueError: the baseline is absent at some number of training levels, or it was run in other
        replications or levels.
    """
    tests = read_cells(episodes.filter(pc.field("set") == "test"))
    rows = []
    for key, cell in tests.items():
        baseline_key = key._replace(method=baseline)
        if baseline_key not in tests:
            raise ValueError(f"no episode of {_name(baseline_key)}, the baseline")
        if key != baseline_key:
            rows.append(_difference_row(key, cell, baseline, tests[baseline_key]))
    return pa.Table.from_pylist(rows, _DIFFERENCES)


def paired_difference(cell: Cell, baseline: Cell, outcome: str) -> np.ndarray:
    """float64[R, L], from -1 to 1: how much more often each level ended so than for the baseline.

    Raises:
      ValueError: the two were not run in the same replications and levels.
    """
    check_paired(cell, baseline)
    return cell.indicators(outcome) - baseline.indicators(outcome)


def check_paired(cell: Cell, other: Cell) -> None:
    """Raises ValueError unless both were run in the same replications and levels."""
    if not np.array_equal(cell.replications, other.replications):
        raise ValueError(
            "a pair needs the same replications, got "
            f"{cell.replications.tolist()} and {other.replications.tolist()}"
        )
    if not np.array_equal(cell.level_ids, other.level_ids):
        raise ValueError(
            "a pair needs the same levels in each replication, got other level ids "
            f"(shapes {cell.level_ids.shape} and {other.level_ids.shape})"
        )


def _rates_row(key: CellKey, cell: Cell) -> dict[str, Any]:
    num_replications, num_members, num_levels, _ = cell.outcome.shape
    row: dict[str, Any] = key._asdict() | {
        "num_replications": num_replications,
        "num_members": None if (cell.members == -1).all() else num_members,
        "num_levels": num_levels,
        "num_episodes": cell.outcome.size,
        "mean_length": float(cell.length.mean()),
        "mean_return": float(cell.episode_return.mean(dtype=np.float64)),
        "blocked_per_episode": float(cell.num_blocked.mean()),
        "all_blocked_per_episode": float(cell.num_all_blocked.mean()),
    }
    for outcome in OUTCOMES:
        interval = cell.rate(outcome)
        row |= _spread(outcome, "rate", interval)
        row["resampled"] = interval.resampled
    blocked = int(cell.num_blocked.sum(dtype=np.int64))
    false = int(cell.num_false_blocks.sum(dtype=np.int64))
    row["false_block_share"] = false / blocked if blocked else None
    return row


def _agent_row(key: CellKey, cell: Cell, replication: int, member: int) -> dict[str, Any]:
    ends = np.bincount(cell.outcome[replication, member].ravel(), minlength=len(OUTCOMES))
    solved, catastrophes, timeouts, failed = ends.tolist()
    num_episodes = cell.outcome[replication, member].size
    row: dict[str, Any] = key._asdict() | {
        "replication": int(cell.replications[replication]),
        "member": int(cell.members[replication, member]),
        "num_episodes": num_episodes,
        "num_solved": solved,
        "num_catastrophes": catastrophes,
        "num_timeouts": timeouts,
        "num_failed": failed,
        "timeout_rate": timeouts / num_episodes,
        "failed_rate": failed / num_episodes,
    }
    for outcome, count in (("solved", solved), ("catastrophe", catastrophes)):
        low, high = wilson(count, num_episodes)
        row |= {f"{outcome}_rate": count / num_episodes}
        row |= {f"{outcome}_low": low, f"{outcome}_high": high}
    return row


def _difference_row(key: CellKey, cell: Cell, baseline: str, against: Cell) -> dict[str, Any]:
    row: dict[str, Any] = {
        "num_train_levels": key.num_train_levels,
        "method": key.method,
        "baseline": baseline,
        "num_replications": len(cell.replications),
        "num_levels": cell.level_ids.shape[1],
    }
    for outcome in ("catastrophe", "solved"):
        interval = two_level(paired_difference(cell, against, outcome), bounds=(-1, 1))
        row |= _spread(outcome, "difference", interval)
        row["resampled"] = interval.resampled
    return row


def _spread(name: str, estimate: str, interval: Interval) -> dict[str, float]:
    return {
        f"{name}_{estimate}": interval.estimate,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
    }


def _cell(key: CellKey, columns: Mapping[str, np.ndarray]) -> Cell:
    """One cell from its columns, in order of replication, member, level_index and attempt."""
    replication, member = columns["replication"], columns["member"]
    changed = (np.diff(replication) != 0) | (np.diff(member) != 0)
    starts = np.concatenate(([0], np.flatnonzero(changed) + 1))  # of each policy's rows
    num_attempts = int(columns["attempt"].max()) + 1
    num_levels = _check_levels(key, columns, starts, num_attempts)
    replications, num_members = np.unique(replication[starts], return_counts=True)
    if len(np.unique(num_members)) > 1:
        raise ValueError(
            f"replications of {_name(key)} must have equally many members, got "
            f"{dict(zip(replications.tolist(), num_members.tolist(), strict=True))}"
        )
    shape = (len(replications), int(num_members[0]), num_levels, num_attempts)
    return Cell(
        replications=replications.astype(np.int64),
        members=member[starts].reshape(shape[:2]).astype(np.int64),
        level_ids=_level_ids(key, columns["level_id"].reshape(shape)),
        outcome=columns["outcome"].reshape(shape),
        length=columns["length"].reshape(shape),
        episode_return=columns["episode_return"].reshape(shape),
        num_blocked=columns["num_blocked"].reshape(shape),
        num_false_blocks=columns["num_false_blocks"].reshape(shape),
        num_all_blocked=columns["num_all_blocked"].reshape(shape),
    )


def _check_levels(
    key: CellKey, columns: Mapping[str, np.ndarray], starts: np.ndarray, num_attempts: int
) -> int:
    """The number of levels, the same for every policy; raises where one is missing or repeated."""
    index, attempt = columns["level_index"].astype(np.int64), columns["attempt"]
    levels = np.unique(index)
    places = (levels[:, None] * num_attempts + np.arange(num_attempts)).ravel()
    own_places = index * num_attempts + attempt
    whole = index.size == len(starts) * len(places)
    if whole and (own_places.reshape(len(starts), len(places)) == places).all():
        return len(levels)
    for start, own in zip(starts, np.split(own_places, starts[1:]), strict=True):
        found, times = np.unique(own, return_counts=True)
        missing = (np.setdiff1d(places, found) // num_attempts).tolist()
        repeated = (found[times > 1] // num_attempts).tolist()
        if missing or repeated:
            often = "once" if num_attempts == 1 else f"{num_attempts} times, each attempt once"
            raise ValueError(
                f"{_name(key)}, replication {columns['replication'][start]}, "
                f"member {columns['member'][start]}: every level_index must come {often}, "
                f"missing {missing[:5]} ({len(missing)}), duplicated {repeated[:5]} "
                f"({len(repeated)})"
            )
    raise AssertionError("rows are not in order of replication, member, level_index and attempt")


def _level_ids(key: CellKey, ids: np.ndarray) -> np.ndarray:
    """[R, M, L, A] -> [R, L]; members share levels, and so do replications of the test set."""
    if not (ids == ids[:, :1, :, :1]).all():
        raise ValueError(f"members of {_name(key)} were run on different levels: level_id differs")
    if key.set == "test" and not (ids == ids[:1]).all():
        raise ValueError(
            f"replications of {_name(key)} were run on different levels: level_id differs"
        )
    return ids[:, 0, :, 0]


def _row_order(*keys: np.ndarray) -> np.ndarray:
    """int64[rows]: the stable order by the first key, then the second, and so on.

    As `np.lexsort`, but of one combined integer, so that rows already in runs sort fast.
    """
    offsets = [key.astype(np.int64) - int(key.min()) for key in keys]
    combined = np.ravel_multi_index(offsets, [int(offset.max()) + 1 for offset in offsets])
    return np.argsort(combined, kind="stable")


def _numbers(episodes: pa.Table, name: str) -> np.ndarray:
    column = episodes[name]
    if column.null_count:
        raise ValueError(f"column {name} must have no absent values, got {column.null_count}")
    return column.to_numpy()


def _codes(episodes: pa.Table, name: str, words: tuple[str, ...]) -> np.ndarray:
    """int8[rows]: where each of the column's words stands in `words`."""
    column = episodes[name].cast(_TEXT)
    codes = pc.index_in(column, value_set=pa.array(words, _TEXT))
    if codes.null_count:
        strange = pc.unique(column.filter(pc.is_null(codes))).to_pylist()
        raise ValueError(f"column {name} must be one of {words}, got {strange[:5]}")
    return codes.to_numpy().astype(np.int8)


def _method_order(methods: list[str | None]) -> tuple[str, ...]:
    known = [method for method in METHODS if method in methods]
    return (*known, *sorted(method for method in methods if method and method not in METHODS))


def _name(key: CellKey) -> str:
    return f"{key.method!r} trained on {key.num_train_levels} levels, {key.set} set"
