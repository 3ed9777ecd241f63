"""Compares the engine with recordings of the real game: levels, trajectories and short runs.

A folder of recordings holds, for a mode, any of `levels_{mode}.npz` (states right after a reset),
`traj_{mode}.npz` (played from the start, the same level again after every end) and
`short_{mode}.npz` (a few steps from chosen states). Ragged arrays are flat, with offsets. Every bit
counts, the sign of zero included.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.envs.coinrun import physics
from hotoven.envs.coinrun.level import MODES, Blueprint, blueprint, generate
from hotoven.envs.coinrun.physics import END_COIN, State

Recording = Mapping[str, np.ndarray]
NOTHING: Final = 4  # the action that pads short trajectories

# What play yields and recordings hold, one value per step.
FIELDS: Final = (
    *("x", "y", "vx", "vy", "reward", "done", "complete", "elapsed", "support", "on_crate"),
    *("mon_x", "mon_vx"),
)


# Columns without which a file is no recording of its kind.
_RUN: Final = ("seed", "offset", "action", "mon_count", "mon_offset")
_THINGS: Final = ("type", "theme", "x", "y", "vx", "vy", "rx", "ry")
NEEDED: Final = {
    "levels": (
        *("seed", "grid", "goal", "agent_theme", "wall_theme", "bg_index", "bg_pct_x", "rng_next"),
        *("ent_offset", *(f"ent_{name}" for name in _THINGS)),
    ),
    "traj": (*_RUN, *FIELDS),
    "short": (
        *(*_RUN, "warm", "start_x", "start_y", "start_vx", "start_vy", "start_on_crate"),
        *(name for name in FIELDS if name != "elapsed"),
    ),
}


def file_names() -> list[str]:
    """The files that a full set of recordings holds."""
    return [f"{name}_{mode}.npz" for mode in MODES for name in NEEDED]


class Comparison(NamedTuple):
    """How much of one file the engine repeats."""

    what: str  # e.g. "easy levels"
    identical: int  # levels or runs without any difference
    total: int
    num_steps: int  # steps compared; 0 for levels
    first_difference: str  # "" where there is none
    drift: float = (
        0.0  # cells that the agent is away from where it was, at most; see `compare_runs`
    )
    num_other_ends: int = 0  # runs in which a step ended an episode on one side only


def verify(folder: Path) -> Iterator[Comparison]:
    """Compares each recording in `folder` with the engine, easy before hard.

    Raises:
      ValueError: there is no such folder, it holds no recording, or one that cannot be read or
        lacks something.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}")
    found = False
    for mode in MODES:
        for name, compare in (
            ("levels", compare_levels),
            ("traj", compare_runs),
            ("short", compare_runs),
        ):
            path = folder / f"{name}_{mode}.npz"
            if path.exists():
                found = True
                recording = read(path)
                lacking = [column for column in NEEDED[name] if column not in recording]
                if lacking or 0 in (len(recording["seed"]), len(recording[NEEDED[name][2]])):
                    what = f"lacks {', '.join(lacking)}" if lacking else "is empty"
                    raise ValueError(f"{path} is no recording of {name}: it {what}")
                try:
                    yield compare(recording, mode)
                except (KeyError, IndexError, ValueError) as error:
                    raise ValueError(f"{path} is no recording of {name}: {error}") from error
    if not found:
        raise ValueError(
            f"{folder} holds no recording: levels, traj or short, _ and {' or '.join(MODES)}, .npz"
        )


def read(path: Path) -> Recording:
    """The arrays of one recording.

    Raises:
      ValueError: the file is damaged or not a set of arrays.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise ValueError(f"{path} cannot be read as arrays: {type(error).__name__}") from error


def compare_levels(recording: Recording, mode: str) -> Comparison:
    """Generates each recorded level and compares its cells, things, themes and the next numbers."""
    identical, first_difference = 0, ""
    if recording["rng_next"].shape[1:] == (0,):
        raise ValueError("rng_next holds no numbers")
    for index, seed in enumerate(recording["seed"].tolist()):
        wrong = _level_differences(recording, index, blueprint(seed, mode))
        identical += not wrong
        if wrong and not first_difference:
            first_difference = f"seed {seed}: {', '.join(wrong)}"
    return Comparison(f"{mode} levels", identical, len(recording["seed"]), 0, first_difference)


def _level_differences(recording: Recording, index: int, plan: Blueprint) -> list[str]:
    """Names of what differs between a blueprint and the recorded level of that index."""
    start, end = recording["ent_offset"][index : index + 2]
    things = {name: recording[f"ent_{name}"][start:end] for name in ("type", "theme", "x", "y")}
    things |= {name: recording[f"ent_{name}"][start:end] for name in ("vx", "vy", "rx", "ry")}
    # The agent comes first; its place at the start is the same in every level.
    tall = float(physics.TALL)
    floor = float(np.float32(1) + physics.TALL)
    own = [(0, plan.agent_theme, 1.5, floor, 0.0, 0.0, 0.5, tall)]
    own += [
        (thing.kind, thing.theme, thing.column + 0.5, thing.row + 0.5, thing.vx, 0.0, 0.5, 0.5)
        for thing in plan.things
    ]
    names = ("type", "theme", "x", "y", "vx", "vy", "rx", "ry")
    pairs: dict[str, tuple[Any, Any]] = {
        f"ent_{name}": (things[name], np.array(column, things[name].dtype))
        for name, column in zip(names, zip(*own, strict=True), strict=True)
    }
    for name, value in (
        ("grid", plan.grid),
        ("goal", plan.coin),
        ("agent_theme", plan.agent_theme),
        ("wall_theme", plan.ground_theme),
        ("bg_index", plan.background),
        ("bg_pct_x", plan.shift),
        ("rng_next", plan.raw[: recording["rng_next"].shape[1]]),
    ):
        pairs[name] = (recording[name][index], np.asarray(value, recording[name].dtype))
    return [name for name, (theirs, ours) in pairs.items() if not _same(theirs, ours)]


def _same(theirs: np.ndarray, ours: np.ndarray) -> bool:
    return theirs.shape == ours.shape and bool((_as_bits(theirs) == _as_bits(ours)).all())


def _as_bits(values: np.ndarray) -> np.ndarray:
    """Floats as integers, so that 0.0 and -0.0 differ; other numbers as they are."""
    return values.view(np.int32) if values.dtype == np.float32 else values


def play(state: State, actions: jax.Array) -> dict[str, jax.Array]:
    """What the game would have recorded of those actions (int32[T]) from `state`; values [T, ...].

    As in the game, an end is followed by a reset within the step: positions are the fresh level's.
    """
    fresh = physics.reset(state.level)

    def step(state: State, action: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        state = physics.step(state, action)
        done, complete = state.ends != 0, (state.ends & END_COIN) > 0
        ends = state.ends
        state = jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, state)
        return state, {
            "x": state.x,
            "y": state.y,
            "vx": state.vx,
            "vy": state.vy,
            "reward": jnp.where(complete, np.float32(10), np.float32(0)),
            "done": done,
            "complete": complete,
            "elapsed": state.num_steps,
            "support": state.support,
            "on_crate": state.on_crate,
            "mon_x": state.monster_x,
            "mon_vx": state.monster_vx,
            "ends": ends,
        }

    return jax.lax.scan(step, state, actions)[1]


# All runs of a recording at once: states and actions have a leading axis.
play_all = jax.jit(jax.vmap(play))


def compare_runs(
    recording: Recording, mode: str, play_all: Callable[..., Any] = play_all
) -> Comparison:
    """Plays each recorded trajectory or short run and compares every value after every step.

    Where play differs, the drift is measured up to the first end that is not the same on both
    sides: what comes after it are other episodes.

    Args:
      play_all: (states, actions int32[N, T]) -> what `play` gives, with leaves [N, T, ...].
    """
    lengths = np.diff(recording["offset"])
    run = np.repeat(np.arange(len(lengths)), lengths)  # [S] the run of each recorded step
    at = np.arange(len(run)) - recording["offset"][run]  # [S] its place there
    actions = np.full((len(lengths), lengths.max()), NOTHING, np.int32)
    actions[run, at] = recording["action"]
    states = starts(recording, mode)
    shown = jax.device_get(play_all(states, actions))

    counts = recording["mon_count"].astype(np.int64)
    ours_counts = (np.asarray(states.level.layout.monsters.direction) > 0).sum(axis=1)
    each = np.repeat(np.arange(len(run)), counts[run])  # [E] the step of each recorded monster
    which = np.arange(len(each)) - np.searchsorted(each, each)  # [E] and its number there
    monster_at = _monster_rows(recording)
    wrong = np.zeros(len(run), bool)
    details: dict[str, tuple[int, Any, Any]] = {}
    miscounted = np.flatnonzero(counts != ours_counts)
    for index in miscounted[:1]:
        first = int(recording["offset"][index])
        details["number of monsters"] = (first, counts[index], ours_counts[index])
    wrong[np.isin(run, miscounted)] = True
    for name in FIELDS:
        if name not in recording:
            continue
        if name.startswith("mon_"):
            theirs = recording[name][monster_at]
            ours = shown[name][run[each], at[each], which]
            steps = each
        else:
            theirs, steps = recording[name], np.arange(len(run))
            ours = shown[name][run, at]
        differs = _as_bits(theirs) != _as_bits(ours.astype(theirs.dtype))
        wrong[steps[differs]] = True
        for entry in np.flatnonzero(differs)[:1]:
            details[name] = (steps[entry], theirs[entry], ours[entry])
    what = f"{mode} {'short runs' if 'warm' in recording else 'trajectories'}"
    bad = np.bincount(run, wrong, len(lengths)) > 0
    first_difference = ""
    if details:
        name, (step, theirs, ours) = min(details.items(), key=lambda item: item[1][0])
        first_difference = (
            f"run {run[step]} (seed {recording['seed'][run[step]]}), step {at[step] + 1}: "
            f"{name} is {ours!s}, recorded {theirs!s}"
        )
    drift, num_other_ends = _drift(recording, shown, run, at)
    return Comparison(
        what, int((~bad).sum()), len(lengths), len(run), first_difference, drift, num_other_ends
    )


def _drift(
    recording: Recording, shown: Mapping[str, np.ndarray], run: np.ndarray, at: np.ndarray
) -> tuple[float, int]:
    """`Comparison.drift` and `Comparison.num_other_ends`; run and at say where each step is."""
    other = np.zeros(len(run), bool)
    for name in ("done", "complete"):
        other |= (recording[name] > 0) != (shown[name][run, at] > 0)
    runs_with_other = np.unique(run[other])
    first_other = np.full(int(run[-1]) + 1, len(run))
    np.minimum.at(first_other, run[other], at[other])
    alike = at < first_other[run]
    away = [np.abs(recording[name] - shown[name][run, at])[alike] for name in ("x", "y")]
    return float(max(values.max(initial=0.0) for values in away)), len(runs_with_other)


def _monster_rows(recording: Recording) -> np.ndarray:
    """int64[E]: places in mon_x of the monsters after each step, in order of run, step, monster."""
    counts = recording["mon_count"].astype(np.int64)
    # Short runs hold one row more, the start.
    first = recording["mon_offset"][:-1] + (counts if "warm" in recording else 0)
    sizes = np.diff(recording["offset"]) * counts
    run = np.repeat(np.arange(len(counts)), sizes)
    return first[run] + np.arange(len(run)) - (np.cumsum(sizes) - sizes)[run]


def starts(recording: Recording, mode: str) -> State:
    """Where the runs start, leaves [N, ...]: at a reset, or in the states of a short recording."""
    states = jax.device_get(jax.vmap(physics.reset)(generate(recording["seed"], mode)[0]))
    if "warm" not in recording:
        return states
    monster_x, monster_vx = states.monster_x.copy(), states.monster_vx.copy()
    for index, count in enumerate(recording["mon_count"].tolist()):
        start = recording["mon_offset"][index]
        monster_x[index, :count] = recording["mon_x"][start : start + count]
        monster_vx[index, :count] = recording["mon_vx"][start : start + count]
    return states._replace(
        x=recording["start_x"],
        y=recording["start_y"],
        vx=recording["start_vx"],
        vy=recording["start_vy"],
        on_crate=recording["start_on_crate"] > 0,
        num_steps=recording["warm"].astype(np.int32),
        monster_x=monster_x,
        monster_vx=monster_vx,
    )
