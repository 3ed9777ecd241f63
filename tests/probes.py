"""Tiny environments with known answers: if a learner fails on one, the probe says what is broken.

The rules of a probe are its level, as a table of places and actions, so that one compiled learner
can be asked all probes side by side. The observation says where the agent is and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.types import CATASTROPHE, RUNNING, SOLVED, TIMEOUT, PyTree, TimeStep


class Table(NamedTuple):
    """The rules of one level: S places, A actions."""

    start: np.ndarray  # int32[]
    moves: np.ndarray  # int32[S, A]  the place each action leads to
    rewards: np.ndarray  # float32[S, A]
    endings: np.ndarray  # int8[S, A]  RUNNING, SOLVED or CATASTROPHE


class State(NamedTuple):
    table: Table
    place: jax.Array  # int32[]
    num_steps: jax.Array  # int32[]
    outcome: jax.Array  # int8[]


@dataclass(frozen=True)
class Probe:
    """Walks a table; times out after `max_steps`."""

    num_places: int = 2
    num_actions: int = 2
    max_steps: int = 2

    name: ClassVar[str] = "probe"
    family: ClassVar[str] = "probe"
    version: ClassVar[int] = 1
    causes: ClassVar[tuple[str, ...]] = ("", "solved", "catastrophe", "timeout", "failed")
    obs_high: ClassVar[int] = 1
    num_wholes: ClassVar[int] = 0

    @property
    def action_names(self) -> tuple[str, ...]:
        return tuple("abcdefgh"[: self.num_actions])

    @property
    def obs_shape(self) -> tuple[int, ...]:
        return (self.num_places,)

    def reset(self, level: Table) -> tuple[State, TimeStep]:
        state = State(level, level.start, jnp.int32(0), jnp.int8(RUNNING))
        return state, self._show(state, jnp.float32(0.0))

    def step(self, state: State, action: jax.Array) -> tuple[State, TimeStep]:
        table, running = state.table, state.outcome == RUNNING
        num_steps = state.num_steps + running.astype(jnp.int32)
        ending = table.endings[state.place, action].astype(jnp.int8)
        late = (ending == RUNNING) & (num_steps >= self.max_steps)
        ending = jnp.where(late, jnp.int8(TIMEOUT), ending)
        outcome = jnp.where(running, ending, state.outcome)
        place = jnp.where(running, table.moves[state.place, action], state.place)
        reward = jnp.where(running, table.rewards[state.place, action], jnp.float32(0.0))
        state = State(table, place, num_steps, outcome)
        return state, self._show(state, reward)

    def observe(self, state: State) -> jax.Array:
        return (jnp.arange(self.num_places) == state.place).astype(jnp.float32)

    def _show(self, state: State, reward: jax.Array) -> TimeStep:
        return TimeStep(self.observe(state), reward, state.outcome, state.outcome)

    def render(self, state: State, scale: int) -> jax.Array:
        raise NotImplementedError

    def generate(self, ids: np.ndarray) -> tuple[PyTree, Mapping[str, np.ndarray]]:
        raise NotImplementedError


def table(moves: object, rewards: object, endings: object, start: int = 0) -> Table:
    """Rules from lists [S][A]."""
    return Table(
        np.int32(start),
        np.array(moves, np.int32),
        np.array(rewards, np.float32),
        np.array(endings, np.int8),
    )


def stack(*tables: Table) -> Table:
    """Tables as the levels of one probe, leaves [L, ...]."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *tables)


# What each probe asks, and the Q-values [S, A] of the places that can be reached, for any gamma.

STAY = [[0, 0], [1, 1]]


def one_reward(gamma: float) -> tuple[Table, dict[tuple[int, int], float]]:
    """Does the loss work at all? One place, reward 1, the end."""
    rules = table(STAY, [[1, 1], [0, 0]], [[SOLVED] * 2, [SOLVED] * 2])
    return rules, {(0, 0): 1.0, (0, 1): 1.0}


def right_and_wrong(gamma: float) -> tuple[Table, dict[tuple[int, int], float]]:
    """Does a value belong to its action? The first is a catastrophe, the second solves."""
    rules = table(STAY, [[-1, 1], [0, 0]], [[CATASTROPHE, SOLVED], [SOLVED] * 2])
    return rules, {(0, 0): -1.0, (0, 1): 1.0}


def two_steps(gamma: float) -> tuple[Table, dict[tuple[int, int], float]]:
    """Is the future discounted? Nothing, then 1."""
    rules = table([[1, 1], [1, 1]], [[0, 0], [1, 1]], [[RUNNING] * 2, [SOLVED] * 2])
    return rules, {(0, 0): gamma, (0, 1): gamma, (1, 0): 1.0, (1, 1): 1.0}


def better_next_action(gamma: float) -> tuple[Table, dict[tuple[int, int], float]]:
    """Is the next state worth its best action? Nothing, then 1 or 0 by the action."""
    rules = table([[1, 1], [1, 1]], [[0, 0], [0, 1]], [[RUNNING] * 2, [SOLVED] * 2])
    return rules, {(0, 0): gamma, (0, 1): gamma, (1, 0): 0.0, (1, 1): 1.0}


def cut_by_the_clock(gamma: float) -> tuple[Table, dict[tuple[int, int], float]]:
    """Do time-outs bootstrap? Reward 1 for ever, but for the clock."""
    rules = table(STAY, [[1, 1], [0, 0]], [[RUNNING] * 2, [SOLVED] * 2])
    return rules, {(0, 0): 1.0 / (1.0 - gamma), (0, 1): 1.0 / (1.0 - gamma)}


def cut_by_death(gamma: float) -> tuple[Table, dict[tuple[int, int], float]]:
    """Is nothing worth anything after death? As above, but the step is fatal."""
    rules = table(STAY, [[1, 1], [0, 0]], [[CATASTROPHE] * 2, [SOLVED] * 2])
    return rules, {(0, 0): 1.0, (0, 1): 1.0}


PROBES = (
    one_reward,
    right_and_wrong,
    two_steps,
    better_next_action,
    cut_by_the_clock,
    cut_by_death,
)
