"""CoinRun as symbols: the cells round the agent as channels, for learning without a picture.

A channel of a column of cells is a word with one bit per row, so that all cells of a channel are
made at once and are unpacked in one pass over bytes.
"""

from typing import Final

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.envs.coinrun.level import (
    FIRST_BITS,
    LAVA_BITS,
    SAW_BITS,
    SECOND_BITS,
    SIZE,
    STONE_BITS,
    TOP_BITS,
)
from hotoven.envs.coinrun.physics import JUMP, MAX_SPEED, State, once, supported

SPAN: Final = 13  # cells that an observation is wide and high
REACH: Final = SPAN // 2  # cells to each side of the agent's own
HIGH: Final = 255

# In each cell, HIGH where it holds such a thing, else 0.
CELLS: Final = (
    *("wall", "crate", "lava", "saw", "monster_left", "monster_right", "coin", "outside"),
)
# The same in every cell: what the agent does and where in its cell it is.
WHOLES: Final = ("vx", "vy", "support", "x_in_cell", "y_in_cell")
CHANNELS: Final = (*CELLS, *WHOLES)

_ROWS: Final = (1 << SPAN) - 1  # a word with every row


def observe(state: State) -> jax.Array:
    """uint8[13, 13, 13]: rows from above, columns from the left, CHANNELS; the agent in the middle.

    Velocities are 0 at the largest speed down or to the left, 127 at rest and 255 at the largest up
    or to the right. Support is HIGH where the agent can push off and jump in the step that comes.
    Places in a cell are shares of HIGH from its left side and its foot.
    """
    like = (jnp.zeros((SPAN, len(CHANNELS)), jnp.uint32), jnp.zeros(len(WHOLES), jnp.uint8))
    words, wholes = once(lambda: _words(state), like)
    value = jnp.concatenate([jnp.full(len(CELLS), HIGH, jnp.uint8), wholes])
    # the highest row first
    rows = np.arange(SPAN - 1, -1, -1, dtype=np.uint32)[:, None, None]
    return jnp.where((words[None] >> rows) & 1 > 0, value, np.uint8(0))


def _words(state: State) -> tuple[jax.Array, jax.Array]:
    """uint32[column, channel], bit r for the r-th row from below, and uint8[WHOLES]."""
    layout, monsters = state.level.layout, state.level.layout.monsters
    left = jnp.floor(state.x).astype(jnp.int32) - REACH
    foot = jnp.floor(state.y).astype(jnp.int32) - REACH
    column = left + np.arange(SPAN, dtype=np.int32)
    inside = (column >= 0) & (column < SIZE)
    words = layout.columns[jnp.clip(column, 0, SIZE - 1)]

    def number(bits: tuple[int, int]) -> jax.Array:
        low, width = bits
        return ((words >> np.uint32(low)) & np.uint32((1 << width) - 1)).astype(jnp.int32)

    def below(row: jax.Array) -> jax.Array:
        """uint32: bits of the window's rows that lie below that row of the world."""
        count = jnp.clip(row - foot, 0, SPAN).astype(jnp.uint32)
        return (np.uint32(1) << count) - np.uint32(1)

    def span(low: jax.Array, high: jax.Array) -> jax.Array:
        """uint32: bits of rows low .. high - 1."""
        return below(high) & ~below(low)

    top, stone, lava = number(TOP_BITS), number(STONE_BITS), number(LAVA_BITS)
    crates = jnp.maximum(number(FIRST_BITS), number(SECOND_BITS))
    zero = jnp.int32(0)
    world = jnp.where(inside, span(zero, jnp.int32(SIZE)), np.uint32(0))
    rock = below(top) | jnp.where(stone > 0, span(stone, stone + 1), np.uint32(0))
    rock = rock | span(jnp.int32(SIZE - 1), jnp.int32(SIZE))  # the world's rim
    coin_x, coin_y = (layout.coin[k].astype(jnp.int32) for k in range(2))

    # monsters [column, monster]: one bit where it is
    at = jnp.floor(state.monster_x).astype(jnp.int32)
    row = monsters.row.astype(jnp.int32) - foot
    seen = (row >= 0) & (row < SPAN) & (monsters.direction > 0)
    bit = jnp.where(seen, np.uint32(1) << jnp.clip(row, 0, SPAN - 1).astype(jnp.uint32), 0)
    leftwards = state.monster_vx < 0

    def crowd(chosen: jax.Array) -> jax.Array:
        here = (at[None, :] == column[:, None]) & chosen[None, :]
        return jax.lax.reduce_or(jnp.where(here, bit[None, :], np.uint32(0)), (1,))

    cells = (
        rock & world,
        span(top, top + crates) & world,
        jnp.where(lava > 0, span(jnp.int32(1), lava + 1), np.uint32(0)) & world,
        jnp.where(number(SAW_BITS) > 0, span(top, top + 1), np.uint32(0)) & world,
        crowd(leftwards),
        crowd(~leftwards),
        jnp.where(column == coin_x, span(coin_y, coin_y + 1), np.uint32(0)),
        np.uint32(_ROWS) & ~world,
    )
    whole = jnp.full((SPAN, len(WHOLES)), _ROWS, jnp.uint32)
    wholes = jnp.stack(
        [
            _byte(state.vx / (np.float32(2) * MAX_SPEED) + np.float32(0.5)),
            _byte(state.vy / (np.float32(2) * JUMP) + np.float32(0.5)),
            jnp.where(supported(state), np.uint8(HIGH), np.uint8(0)),
            _byte(state.x - jnp.floor(state.x)),
            _byte(state.y - jnp.floor(state.y)),
        ]
    )
    return jnp.concatenate([jnp.stack(cells, axis=1), whole], axis=1), wholes


def _byte(share: jax.Array) -> jax.Array:
    """uint8[]: 0 to 1 as 0 to 255."""
    scaled = jnp.clip(share, np.float32(0), np.float32(1)) * np.float32(HIGH)
    return scaled.astype(jnp.uint8)
