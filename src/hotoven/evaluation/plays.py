"""A person's recorded play as a helper: what they did on a level, where the agent needs it.

The table is a run's `plays.parquet`, which `hotoven watch --mode record` writes. Only plays that
were solved are followed; where a level has none, and on levels that were never played, the helper
stands still.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from hotoven.evaluation.help import Helper
from hotoven.levels import digests, make_levels
from hotoven.types import OUTCOMES, RUNNING, SOLVED, Env, PyTree

COLUMNS: Final = ("session", "level_id", "level_digest", "attempt", "step", "action", "outcome")
STAY: Final = "stay"  # the name of an action that does nothing

# Where the agent is, float32[2]: what "nearest" is measured by.
POSITIONS: Final[dict[str, Callable[[Any], jax.Array]]] = {
    "coinrun": lambda state: jnp.stack([state.x, state.y]),
    "lavagrid": lambda state: state.position.astype(jnp.float32),
}


class _Play(NamedTuple):
    """One level, solved by a person in T steps."""

    actions: np.ndarray  # int32[T]
    positions: np.ndarray  # float32[T, 2]  before each of the actions


def recorded_helper(env: Env, plays: pa.Table) -> Helper:
    """The helper who does what a person did on the same level.

    From a state it follows the recorded actions from the recorded state nearest to it: of all plays
    of a level of the same content the smallest distance of positions, of equal ones the earliest.
    Monsters may be elsewhere by then, and the agent quicker: it is the person's way, not their
    judgement. Behind the end of a play it stands still.

    Raises:
      ValueError: the table lacks columns or was not recorded on levels of `env`, or it is not known
        where the agent of `env` is.
    """
    if env.name not in POSITIONS:
        raise ValueError(f"no positions are known for {env.name}, only for {', '.join(POSITIONS)}")
    known: dict[bytes, list[_Play]] = {}
    for digest, play in _read(env, plays):
        known.setdefault(digest, []).append(play)

    def helper(states: PyTree, num_steps: int, seeds: np.ndarray) -> np.ndarray:
        found = _stand_still(env, states, num_steps)
        at = np.asarray(jax.vmap(POSITIONS[env.name])(states))
        for row, digest in enumerate(_contents(env, states)):
            if digest in known:
                actions = _nearest(known[digest], at[row])[:num_steps]
                found[row, : len(actions)] = actions
        return found

    return helper


def _nearest(plays: list[_Play], at: np.ndarray) -> np.ndarray:
    """The actions that were taken from the recorded position nearest to `at` on."""
    distances = [np.square(play.positions - at).sum(axis=1) for play in plays]
    best = int(np.argmin([distance.min() for distance in distances]))
    return plays[best].actions[int(distances[best].argmin()) :]


def _read(env: Env, plays: pa.Table) -> list[tuple[bytes, _Play]]:
    """The solved plays in the order of the table, each with the content of its level."""
    lacking = [name for name in COLUMNS if name not in plays.column_names]
    if lacking:
        raise ValueError(f"plays lack the columns {', '.join(lacking)}")
    columns = {name: plays[name].to_pylist() for name in COLUMNS}
    solved: dict[tuple[Any, ...], list[int]] = {}
    for row, outcome in enumerate(columns["outcome"]):
        if outcome == OUTCOMES[SOLVED]:
            who = tuple(columns[name][row] for name in ("session", "level_id", "attempt"))
            solved.setdefault(who, []).append(row)
    if not solved:
        return []
    ids = np.array([who[1] for who in solved], np.int64)
    levels = make_levels(env, ids)
    longest = max(map(len, solved.values()))
    actions = np.zeros((len(solved), longest), np.int32)
    for number, rows in enumerate(solved.values()):
        _check(columns, rows, ids[number], levels.digests[number].tobytes().hex(), env)
        actions[number, : len(rows)] = [columns["action"][row] for row in rows]
    starts, positions = jax.device_get(_replay(env, levels.levels, actions))
    lengths = [len(rows) for rows in solved.values()]
    return [
        (digest, _Play(actions[number, :length], positions[number, :length]))
        for number, (digest, length) in enumerate(zip(_contents(env, starts), lengths, strict=True))
    ]


def _check(
    columns: dict[str, list[Any]], rows: list[int], level_id: int, digest: str, env: Env
) -> None:
    """Raises ValueError unless the rows are a whole play on that level."""
    if [columns["step"][row] for row in rows] != list(range(len(rows))):
        raise ValueError(f"a play of level {level_id} must be in order, step by step from 0")
    if {columns["level_digest"][row] for row in rows} != {digest}:
        raise ValueError(f"plays of level {level_id} were not recorded on {env.family} levels")
    actions = [columns["action"][row] for row in rows]
    if not 0 <= min(actions) <= max(actions) < env.num_actions:
        raise ValueError(f"actions must be from 0 to {env.num_actions - 1} in plays")


@partial(jax.jit, static_argnums=0)
def _replay(env: Env, levels: PyTree, actions: jax.Array) -> tuple[PyTree, jax.Array]:
    """The states at the start [P], and the positions before each action of int32[P, T]."""

    def one(level: PyTree, actions: jax.Array) -> tuple[PyTree, jax.Array]:
        def step(state: PyTree, action: jax.Array) -> tuple[PyTree, jax.Array]:
            return env.step(state, action)[0], POSITIONS[env.name](state)

        start, _ = env.reset(level)
        return start, jax.lax.scan(step, start, actions)[1]

    return jax.vmap(one)(levels, actions)


def _contents(env: Env, states: PyTree) -> list[bytes]:
    """What the levels of states [N] are known by."""
    return [digest.tobytes() for digest in digests(env.content(states.level))]


def _stand_still(env: Env, states: PyTree, num_steps: int) -> np.ndarray:
    """int32[N, num_steps]: what moves the agent least.

    Doing nothing, where there is such an action. Else, step by step, the first action that leaves
    the agent where it is, as a wall does; or if none does, the first that ends nothing.
    """
    count = len(jax.tree.leaves(states)[0])
    if STAY in env.action_names:
        return np.full((count, num_steps), env.action_names.index(STAY), np.int32)
    found = np.zeros((count, num_steps), np.int32)
    for step in range(num_steps):
        states, action = _rest(env, states)
        found[:, step] = action
    return found


@partial(jax.jit, static_argnums=0)
def _rest(env: Env, states: PyTree) -> tuple[PyTree, jax.Array]:
    """The states [N] after that action, and which it was, int32[N]."""

    def one(state: PyTree) -> tuple[PyTree, jax.Array]:
        where = POSITIONS[env.name]
        actions = jnp.arange(env.num_actions, dtype=jnp.int32)
        after, shown = jax.vmap(env.step, (None, 0))(state, actions)
        stays = (jax.vmap(where)(after) == where(state)).all(axis=1)
        runs = shown.outcome == RUNNING
        action = (2 * (stays & runs) + 1 * (runs & ~stays)).argmax().astype(jnp.int32)
        return jax.tree.map(lambda leaf: leaf[action], after), action

    return jax.vmap(one)(states)
