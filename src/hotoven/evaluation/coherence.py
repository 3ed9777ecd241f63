"""How coherent a policy's actions are over time: changes of mind, and those in a fatal jump.

The post suspects that ensembles fail in CoinRun because they decorrelate actions from step to step,
and that a jump which is begun one way and ended another lands in the lava. These are the numbers
that can tell. numpy in, numpy out; the unit is the episode, so that levels can be resampled.

Axes: L levels, T steps, M members, A actions.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from hotoven.evaluation import scores
from hotoven.evaluation.bootstrap import two_level
from hotoven.evaluation.prediction import valid_steps

# Measures in the order of reports: of all episodes, and of those that died in a jump.
MEASURES: Final = ("switch rate", "disagreement", "run length")
FATAL_MEASURES: Final = ("changed mind in fatal jump", "changed direction in fatal jump")


class Coherence(NamedTuple):
    """Of each episode; leaves [L]."""

    num_steps: np.ndarray  # int64
    num_switches: (
        np.ndarray
    )  # int64, steps whose action is another one than that of the step before
    disagreement: np.ndarray  # float64, 0 to 1: that two members' draws differ; mean over the steps
    # bool: died in a jump, that is, after at least one step without support
    died_in_jump: np.ndarray
    # bool: died in a jump in which the action changed after the take-off
    changed_mind: np.ndarray
    # bool: the same of the action's direction alone
    changed_direction: np.ndarray


def coherence(
    action: np.ndarray,
    direction: np.ndarray,
    probabilities: np.ndarray,
    supported: np.ndarray,
    num_steps: np.ndarray,
    died: np.ndarray,
) -> Coherence:
    """How coherent the actions of each episode were, and those of the jump that it died in.

    The fatal jump begins with the action taken in the last supported state, the take-off, and ends
    with the fatal action. Whoever died on the ground made no fatal jump.

    Args:
      action: int[L, T]; actions that do the same have to be one number.
      direction: int[L, T], the part of an action that is a direction.
      probabilities: float[L, T, M, A], the members' policies.
      supported: bool[L, T], whether the agent stood on something before the action.
      num_steps: int[L], 1 to T.
      died: bool[L], whether the last action was a catastrophe.
    """
    action, direction, supported = map(np.asarray, (action, direction, supported))
    valid = valid_steps(num_steps, action.shape[1])
    num_steps, died = np.asarray(num_steps, np.int64), np.asarray(died, bool)
    told_apart = np.where(valid, scores.disagreement(probabilities), 0.0).sum(axis=1)

    # the steps after the take-off: those from which on there is no support any more
    grounded_later = np.maximum.accumulate((supported & valid)[:, ::-1], axis=1)[:, ::-1]
    in_jump = valid & ~grounded_later
    return Coherence(
        num_steps=num_steps,
        num_switches=(_changes(action) & valid).sum(axis=1),
        disagreement=told_apart / num_steps,
        died_in_jump=died & in_jump.any(axis=1),
        changed_mind=died & (_changes(action) & in_jump).any(axis=1),
        changed_direction=died & (_changes(direction) & in_jump).any(axis=1),
    )


def table(episodes: pa.Table) -> pa.Table:
    """Every measure by number of training levels and method, from a row per episode.

    An episode is the unit: its switch rate is the share of its steps (but the first) that are
    switches, its run length the mean number of steps in a row with one action. Members are
    averaged in a level first, then levels are resampled. The fatal measures are shares of the
    levels in which somebody died in a jump; where nobody did, there is no row.
    """
    rows = []
    keys = [episodes[name].to_numpy() for name in ("num_train_levels", "method")]
    for size in np.unique(keys[0]):
        # in order of appearance, which is that of the reports
        for method in dict.fromkeys(keys[1][keys[0] == size].tolist()):
            own = episodes.filter(pa.array((keys[0] == size) & (keys[1] == method)))
            for measure, values in _by_level(own):
                interval = two_level(values[None], bounds=_BOUNDS.get(measure, (0.0, 1.0)))
                rows.append(
                    {
                        "num_train_levels": int(size),
                        "method": method,
                        "measure": measure,
                        "estimate": interval.estimate,
                        "low": interval.low,
                        "high": interval.high,
                        "num_levels": len(values),
                    }
                )
    return pa.Table.from_pylist(rows, _SCHEMA)


def _by_level(episodes: pa.Table) -> Iterator[tuple[str, np.ndarray]]:
    """(measure, float64[levels]) of one method; levels without what is measured are left out."""
    level = episodes["level_index"].to_numpy()
    column = {name: episodes[name].to_numpy() for name in Coherence._fields}
    steps, switches = column["num_steps"], column["num_switches"]
    several = steps > 1
    jumped = column["died_in_jump"].astype(bool)
    for measure, value, counts in (
        (MEASURES[0], switches / np.maximum(steps - 1, 1), several),
        (MEASURES[1], column["disagreement"], np.ones(len(steps), bool)),
        (MEASURES[2], steps / (switches + 1), np.ones(len(steps), bool)),
        (FATAL_MEASURES[0], column["changed_mind"].astype(float), jumped),
        (FATAL_MEASURES[1], column["changed_direction"].astype(float), jumped),
    ):
        if counts.any():
            _, place, times = np.unique(level[counts], return_inverse=True, return_counts=True)
            yield measure, np.bincount(place, value[counts]) / times


# No bounds are known for the length of a run: nothing is added for levels not seen.
_BOUNDS: Final[dict[str, tuple[float, float] | None]] = {"run length": None}
_SCHEMA: Final = pa.schema(
    [
        ("num_train_levels", pa.int32()),
        ("method", pa.string()),
        ("measure", pa.string()),
        *((name, pa.float64()) for name in ("estimate", "low", "high")),
        ("num_levels", pa.int32()),  # those that have what is measured
    ]
)


def _changes(chosen: np.ndarray) -> np.ndarray:
    """bool[L, T]: where another one is chosen than in the step before; False at the first."""
    return np.diff(chosen, axis=1, prepend=chosen[:, :1]) != 0
