"""How coherent sequences of actions are, and whether the jumps that killed changed their mind.

The blog suspects that ensembles die in CoinRun because averaging makes actions of one jump differ:
here are the numbers. The unit is the episode: a share is one of an episode's steps or jumps, and
intervals resample levels. Numpy in, numpy out; knows no environment.
"""

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hotoven.evaluation.bootstrap import two_level


class Coherence(NamedTuple):
    """Per episode; masked float64[L], masked where there is no such number.

    A jump is what happens from the last step taken with support until there is support again, be
    it a leap or a fall. It changes its mind where an action differs from the one before it in the
    same jump; the action that leaves the ground is the jump's first. Where jumps are long, hardly
    one is without a change: then how often it changes tells more than whether it does.
    """

    switch_rate: np.ma.MaskedArray  # share of steps, but for the first, with a new action
    run_length: np.ma.MaskedArray  # mean number of steps in a row with one action
    disagreement: np.ma.MaskedArray  # mean chance that two members' draws differ
    fatal_in_air: np.ma.MaskedArray  # of deaths: 1 where the last step had no support
    fatal_change: np.ma.MaskedArray  # of deaths: 1 where the jump up to it changed its mind
    fatal_turn: np.ma.MaskedArray  # the same, of the push to a side alone
    landed_change: np.ma.MaskedArray  # share of jumps that landed and had changed their mind
    landed_turn: np.ma.MaskedArray
    fatal_rate: np.ma.MaskedArray  # of deaths in a jump: its share of actions unlike the one before
    landed_rate: np.ma.MaskedArray  # the same of jumps that landed, their mean


SHARES: Final = tuple(name for name in Coherence._fields if name != "run_length")
# What they are called in tables, in the order of reports.
MEASURES: Final = {
    "switch_rate": "switch rate",
    "run_length": "run length",
    "disagreement": "disagreement",
    "fatal_in_air": "died in a jump",
    "fatal_change": "changed mind in fatal jump",
    "fatal_turn": "changed direction in fatal jump",
    "landed_change": "changed mind in landed jump",
    "landed_turn": "changed direction in landed jump",
    "fatal_rate": "switch rate in fatal jump",
    "landed_rate": "switch rate in landed jump",
}
_SCHEMA: Final = pa.schema(
    [
        ("num_train_levels", pa.int32()),
        ("method", pa.string()),
        ("measure", pa.string()),
        *((name, pa.float64()) for name in ("estimate", "low", "high")),
        ("num_levels", pa.int32()),  # those that have what is measured
    ]
)


def coherence(
    actions: np.ndarray,
    lengths: np.ndarray,
    died: np.ndarray,
    supported: np.ndarray,
    effective: np.ndarray,
    sideways: np.ndarray,
    probabilities: np.ndarray | None = None,
) -> Coherence:
    """Per episode, how coherent it was; steps beyond an episode's length are not looked at.

    Args:
      actions: int[L, T], taken.
      lengths: int[L], steps of each episode, at least 1.
      died: bool[L].
      supported: bool[L, T], whether the agent stood on something before the action.
      effective: int[A], for each action the one that it is the same as. In CoinRun 9 to 14 are 4.
      sideways: int[A], equal for actions that push to the same side.
      probabilities: float[L, T, M, A], of the members' policies. Without them, or with one member
        alone, there is no disagreement.

    Raises:
      ValueError: an episode has no step, or more than were recorded.
    """
    actions, lengths = np.asarray(actions), np.asarray(lengths)
    supported = np.asarray(supported, bool)
    num_levels, num_steps = actions.shape
    if lengths.min() < 1 or lengths.max() > num_steps:
        raise ValueError(
            f"lengths must be from 1 to {num_steps} (the steps recorded), "
            f"got {lengths.min()} to {lengths.max()}"
        )
    step = np.arange(num_steps)
    valid = step < lengths[:, None]
    switches = _changes(effective[actions], valid)
    num_switches = switches.sum(axis=1)
    rows = np.arange(num_levels)
    last = lengths - 1
    # The step that each step's jump began with: the last one with support, or the very first.
    began = np.maximum.accumulate(np.where(supported & valid, step, 0), axis=1)
    landed = np.zeros_like(valid)  # in the state after this step
    landed[:, :-1] = ~supported[:, :-1] & supported[:, 1:] & valid[:, 1:]

    def of_jumps(changes: np.ndarray) -> tuple[np.ma.MaskedArray, np.ma.MaskedArray]:
        """For deaths and for landings, whether the jump had such a change since it began."""
        so_far = changes.cumsum(axis=1)
        changed = so_far > np.take_along_axis(so_far, began, axis=1)
        return (
            _masked(changed[rows, last], died),
            _share((changed & landed).sum(axis=1), landed.sum(axis=1)),
        )

    def rates_of_jumps(changes: np.ndarray) -> tuple[np.ma.MaskedArray, np.ma.MaskedArray]:
        """For deaths in the air and for landings, changes per step since the jump began."""
        so_far = changes.cumsum(axis=1)
        length = step - began
        rate = (so_far - np.take_along_axis(so_far, began, axis=1)) / np.maximum(length, 1)
        leaps = landed & (length > 0)
        fatal = died & ~supported[rows, last] & (length[rows, last] > 0)
        return (
            _masked(rate[rows, last], fatal),
            _share((rate * leaps).sum(axis=1), leaps.sum(axis=1)),
        )

    fatal_change, landed_change = of_jumps(switches)
    fatal_rate, landed_rate = rates_of_jumps(switches)
    fatal_turn, landed_turn = of_jumps(_changes(sideways[effective[actions]], valid))
    return Coherence(
        switch_rate=_share(num_switches, last),
        run_length=_share(lengths, num_switches + 1),
        disagreement=_disagreement(probabilities, valid, effective),
        fatal_in_air=_masked(~supported[rows, last], died),
        fatal_change=fatal_change,
        fatal_turn=fatal_turn,
        landed_change=landed_change,
        landed_turn=landed_turn,
        fatal_rate=fatal_rate,
        landed_rate=landed_rate,
    )


def table(episodes: pa.Table) -> pa.Table:
    """Every measure by number of training levels and method, from a row per episode.

    The columns are `Coherence`'s, null where there is no such number. Members are averaged in a
    level, then levels are resampled; only the levels that have the number count: of an agent that
    never died no fatal jump says anything, and there is no row of it.
    """
    rows = []
    sizes, methods = (episodes[name].to_numpy() for name in ("num_train_levels", "method"))
    for size in np.unique(sizes).tolist():
        for method in dict.fromkeys(methods[sizes == size].tolist()):  # in the order of the rows
            own = episodes.filter(pa.array((sizes == size) & (methods == method)))
            for name, measure in MEASURES.items():
                known = own.filter(pc.is_valid(own[name]))
                if not known.num_rows:
                    continue
                values = _level_means(known, name)
                interval = two_level(values[None], bounds=(0.0, 1.0) if name in SHARES else None)
                rows.append(
                    {"num_train_levels": size, "method": method, "measure": measure}
                    | {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
                    | {"num_levels": len(values)}
                )
    return pa.Table.from_pylist(rows, _SCHEMA)


def _level_means(episodes: pa.Table, name: str) -> np.ndarray:
    """float64[levels]: the mean of a column over the episodes of each level."""
    _, place, times = np.unique(
        episodes["level_index"].to_numpy(), return_inverse=True, return_counts=True
    )
    return np.bincount(place, episodes[name].to_numpy()) / times


def _changes(what: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """bool[L, T]: steps at which `what` [L, T] differs from the step before."""
    changes = np.zeros_like(valid)
    changes[:, 1:] = (what[:, 1:] != what[:, :-1]) & valid[:, 1:]
    return changes


def _disagreement(
    probabilities: np.ndarray | None, valid: np.ndarray, effective: np.ndarray
) -> np.ma.MaskedArray:
    """Per episode the mean over steps of the chance that two of the members' draws differ."""
    num_levels = len(valid)
    if probabilities is None or probabilities.shape[2] < 2:
        return _masked(np.zeros(num_levels), np.zeros(num_levels, bool))
    num_members = probabilities.shape[2]
    alike = np.zeros((len(effective), len(effective)), np.float32)
    alike[np.arange(len(effective)), effective] = 1
    each = probabilities[valid] @ alike  # [steps, M, A]
    # Pairs of different members: all pairs but those of a member with itself.
    agree = (each.sum(axis=1) ** 2).sum(axis=1) - (each**2).sum(axis=(1, 2))
    differ = np.zeros(valid.shape)
    differ[valid] = np.clip(1 - agree / (num_members * (num_members - 1)), 0, 1)
    return _share(differ.sum(axis=1), valid.sum(axis=1))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ma.MaskedArray:
    return _masked(part / np.maximum(whole, 1), whole > 0)


def _masked(values: np.ndarray, known: np.ndarray) -> np.ma.MaskedArray:
    return np.ma.MaskedArray(np.asarray(values, np.float64), ~np.asarray(known, bool))
