"""Recorded episodes played again: what a page needs to draw every frame of them, as small arrays.

The rules are deterministic, so a level and the actions taken on it are the whole episode: no agent
is needed. Many episodes are played side by side by one program, compiled once. Pictures are not
made here: who shows the frames draws them.

Axes: E episodes, T steps, F frames of all episodes one after another. An episode of n steps has
n + 1 frames: before each action, and after the last one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.envs.coinrun import physics
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.lavagrid import LavaGrid, State
from hotoven.types import OUTCOMES, Env, PyTree

BLOCK: Final = 256  # episodes that are played side by side
FACES_LEFT, STRIDES, CROSSED = 1, 2, 4  # bits of CoinRunFrames.pose
SIGN_BIT: Final = 14  # a monster's place has 14 bits: 64 cells of 256 parts


class LavaGridFrames(NamedTuple):
    """What changes on a LavaGrid level from frame to frame."""

    position: np.ndarray  # int8[F, 2]  (row, col)
    known: np.ndarray  # uint8[F, ceil(H * W / 8)]  uncovered cells, row by row, first bit lowest


class CoinRunFrames(NamedTuple):
    """What changes on a CoinRun level from frame to frame. Places are in 256ths of a cell."""

    x: np.ndarray  # int16[F]  of the agent's middle, rounded down as pictures do
    y: np.ndarray  # int16[F]
    pose: np.ndarray  # uint8[F]  FACES_LEFT, STRIDES, CROSSED (it has just died)
    # uint16[F of all, one monster after another in an episode's frame]: x, and above SIGN_BIT which
    # way it walks: 0 left, 1 stands, 2 right
    monsters: np.ndarray


def replay_lavagrid(
    env: LavaGrid, levels: PyTree, actions: np.ndarray, num_steps: np.ndarray, outcome: np.ndarray
) -> LavaGridFrames:
    """The frames of episodes on LavaGrid; `levels` has a leading axis [E].

    Args:
      actions: int[N], of all episodes one after another.
      num_steps: int[E], which sum to N.
      outcome: int[E], indices into OUTCOMES, as recorded.

    Raises:
      ValueError: an episode ends otherwise than recorded.
    """
    position, known = _replay(env, _look_lavagrid, levels, actions, num_steps, outcome)
    bits = np.packbits(known.reshape(len(known), -1), axis=1, bitorder="little")
    return LavaGridFrames(position, bits)


def replay_coinrun(
    env: CoinRun, levels: PyTree, actions: np.ndarray, num_steps: np.ndarray, outcome: np.ndarray
) -> CoinRunFrames:
    """The frames of episodes on CoinRun; arguments and errors as of `replay_lavagrid`."""
    x, y, pose, monsters = _replay(env, _look_coinrun, levels, actions, num_steps, outcome)
    there = np.asarray(levels.layout.monsters.direction) > 0  # [E, MAX_MONSTERS]
    return CoinRunFrames(x, y, pose, monsters[np.repeat(there, num_steps + 1, axis=0)])


def _look_lavagrid(state: State) -> tuple[jax.Array, jax.Array]:
    return state.position.astype(jnp.int8), state.known


def _look_coinrun(state: physics.State) -> tuple[jax.Array, ...]:
    """As `picture` reads a state: see there for what a pose is."""
    strides = (jnp.abs(state.vx) >= np.float32(0.01)) & (state.num_steps % 10 < 5) & state.support
    deadly = np.uint8(physics.END_LAVA | physics.END_SAW | physics.END_MONSTER)
    pose = FACES_LEFT * state.facing_left + STRIDES * strides + CROSSED * (state.ends & deadly > 0)
    way = (jnp.sign(state.monster_vx) + 1).astype(jnp.uint16)
    monsters = _parts(state.monster_x).astype(jnp.uint16) & np.uint16((1 << SIGN_BIT) - 1)
    return (
        _parts(state.x).astype(jnp.int16),
        _parts(state.y).astype(jnp.int16),
        pose.astype(jnp.uint8),
        monsters | way << np.uint16(SIGN_BIT),
    )


def _parts(place: jax.Array) -> jax.Array:
    """int32: cells as 256ths of a cell."""
    return jnp.floor(place * np.float32(256)).astype(jnp.int32)


@partial(jax.jit, static_argnums=(0, 1))
def _play(
    env: Env, look: Callable[[Any], PyTree], levels: PyTree, actions: jax.Array
) -> tuple[PyTree, jax.Array]:
    """What `look` finds in every frame, leaves [E, T + 1, ...], and the last outcomes int8[E]."""

    def one(level: PyTree, actions: jax.Array) -> tuple[PyTree, jax.Array]:
        state, shown = env.reset(level)

        def step(carry: Any, action: jax.Array) -> Any:
            state, shown = env.step(carry[0], action)
            return (state, shown.outcome), look(state)

        (_, outcome), later = jax.lax.scan(step, (state, shown.outcome), actions)
        first = look(state)
        frames = jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), first, later)
        return frames, outcome

    return jax.vmap(one)(levels, actions)


def _replay(
    env: Env,
    look: Callable[[Any], PyTree],
    levels: PyTree,
    actions: np.ndarray,
    num_steps: np.ndarray,
    outcome: np.ndarray,
) -> list[np.ndarray]:
    """The leaves of what `look` finds in every frame of every episode, [F, ...]."""
    num_steps = np.asarray(num_steps, np.int64)
    longest = int(num_steps.max())
    table = np.zeros((len(num_steps), longest), np.int32)  # after the end no action changes much
    table[np.arange(longest) < num_steps[:, None]] = actions
    shown = np.arange(longest + 1) <= num_steps[:, None]
    blocks: list[list[np.ndarray]] = []
    for start in range(0, len(num_steps), BLOCK):
        # the last block is filled up with its own episodes, so that one program plays all
        rows = np.resize(np.arange(start, min(start + BLOCK, len(num_steps))), BLOCK)
        part = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], levels)
        frames, ended = jax.tree.map(np.asarray, _play(env, look, part, table[rows]))
        own = slice(start, start + BLOCK)
        count = len(outcome[own])
        _check_ends(ended[:count], np.asarray(outcome)[own], start)
        blocks.append([leaf[:count][shown[own]] for leaf in jax.tree.leaves(frames)])
    return [np.concatenate(leaves) for leaves in zip(*blocks, strict=True)]


def _check_ends(ended: np.ndarray, recorded: np.ndarray, start: int) -> None:
    wrong = np.flatnonzero(ended != recorded)
    if wrong.size:
        first = wrong[0]
        raise ValueError(
            f"episode {start + first} is recorded as {OUTCOMES[recorded[first]]}, played again it "
            f"is {OUTCOMES[ended[first]]}: the recording is of other rules or levels"
        )
