"""CoinRun's picture: the window round the agent, drawn by arithmetic at any scale.

Nothing is stored: a level is columns of cells, so every pixel follows from the word of its column,
its height, and where in its cell it lies. A picture is some twenty layers, each a comparison of a
row of bytes with a column of bytes; colour channels lie side by side in a row, so that a layer is
one pass over bytes. See docs/decisions/0008-coinrun-pictures.md.

All shapes and colours are this project's own. What kills and what pays looks the same in every
level; ground, background, agent, monsters and crates differ from level to level.
"""

import colorsys
from functools import reduce
from operator import and_
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.envs.coinrun.level import (
    FIRST_BITS,
    LAVA_BITS,
    MAX_MONSTERS,
    SAW_BITS,
    SECOND_BITS,
    SIZE,
    STONE_BITS,
    TOP_BITS,
)
from hotoven.envs.coinrun.physics import (
    END_LAVA,
    END_MONSTER,
    END_SAW,
    HALF,
    JUMP,
    MAX_SPEED,
    TALL,
    State,
)

SPAN: Final = 13  # cells that a picture is wide and high
OBS_SIZE: Final = 64  # pixels that an observation is wide and high
PERIOD: Final = 10  # steps after which what moves by the clock has come round
SQUARE: Final = 0.2  # side of a velocity square, as a share of the picture's

# The same in every level.
LAVA, GLOW = (214, 52, 32), (255, 176, 46)
COIN, SHINE = (250, 206, 36), (255, 244, 178)
SAW, HUB = (150, 156, 168), (58, 62, 72)
EYE, PUPIL, FATAL = (255, 255, 255), (24, 24, 30), (16, 16, 18)

# By theme.
AGENTS: Final = ((38, 98, 206), (40, 150, 120), (196, 86, 150), (222, 150, 40), (120, 88, 190))
GROUNDS: Final = (  # stone, seam, turf
    ((132, 98, 70), (104, 76, 54), (96, 168, 72)),
    ((150, 150, 158), (118, 118, 128), (206, 212, 222)),
    ((196, 160, 104), (164, 130, 80), (232, 202, 132)),
    ((106, 84, 122), (82, 64, 98), (164, 120, 190)),
    ((112, 122, 96), (86, 96, 72), (70, 134, 110)),
    ((168, 108, 88), (136, 84, 68), (226, 226, 230)),
)
CRATES: Final = ((176, 124, 66), (190, 142, 92), (152, 104, 70), (168, 132, 58))
NUM_BACKGROUNDS: Final = 62
NUM_MONSTERS: Final = 9

_ROWS_BELOW: Final = 64  # added to a row's number, so that rows below the world are bytes too
_NONE: Final = 255  # a row that no pixel has
_BLOCKS: Final = 4  # of rows that are painted one after another


def _shade(hue: float, saturation: float, value: float) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


# Hues apart from red and gold, which belong to lava and coins; steps of the golden section.
MONSTERS: Final = tuple(_shade(0.25 + 0.6 * (k * 0.618 % 1.0), 0.7, 0.72) for k in range(9))
SKIES: Final = tuple(
    _shade(0.30 + 0.45 * (k * 0.618 % 1.0), 0.10 + 0.05 * (k % 4), 0.80 - 0.05 * (k % 3))
    for k in range(NUM_BACKGROUNDS)
)
HILLS: Final = tuple(
    _shade(0.30 + 0.45 * (k * 0.618 % 1.0), 0.22 + 0.05 * (k % 4), 0.68 - 0.05 * (k % 3))
    for k in range(NUM_BACKGROUNDS)
)


class _Grid(NamedTuple):
    """Where the pixels of a picture lie. X is 3 * width: the channels of a pixel side by side."""

    x: jax.Array  # float32[X]  world coordinate of a pixel's centre
    y: jax.Array  # float32[H]
    u: jax.Array  # float32[X]  in its cell, from -1 at the left side to 1
    v: jax.Array  # float32[H]  from -1 at the foot to 1


class _Layer(NamedTuple):
    """Paint for the pixels that meet all conditions that are there; columns are uint8[X].

    A pixel's row of cells is compared with `at`, `low` and `high`; the byte of its column `across`
    must be below the byte of its row `half`.
    """

    ink: Any  # the colour
    half: Any = None  # uint8[H]
    across: Any = None
    at: Any = None  # in this row of cells
    low: Any = None  # in this one or above it
    high: Any = None  # below this one


def observe(state: State, velocity: bool) -> jax.Array:
    """uint8[64, 64, 3]: what the agent sees, with its velocity as two grey squares if asked."""
    return _draw(state, OBS_SIZE, velocity, fatal=False)


def render(state: State, scale: int, velocity: bool) -> jax.Array:
    """uint8[13 * scale, 13 * scale, 3]: the same for people; an agent that died is crossed out."""
    return _draw(state, SPAN * scale, velocity, fatal=True)


def _draw(state: State, size: int, velocity: bool, fatal: bool) -> jax.Array:
    grid = _grid(state.x, state.y, size)
    layers = [_hills(state, grid), *_cells(state, grid), *_agent(state, grid)]
    layers += _monsters(state, grid)
    if velocity:
        layers += _velocity(state, size)
    row = jnp.floor(grid.y)
    # Rows above and at the world's rim count as the lowest, where all is rock.
    row = jnp.where(row >= SIZE - 1, np.float32(-_ROWS_BELOW), row) + np.float32(_ROWS_BELOW)
    sky = _pick(SKIES, state.level.looks.background, grid)
    fade = jnp.clip(np.float32(40) - grid.y, np.float32(0), np.float32(40)).astype(jnp.uint8)
    # All bytes of columns in one array and all of rows in another: with an array for each of them
    # the loop over a row's bytes is not compiled to vector instructions.
    columns, rows = [sky], [row.astype(jnp.uint8), fade]
    places = []  # of the layers' bytes
    for layer in layers:
        place = {}
        for name, values in layer._asdict().items():
            stack = rows if name == "half" else columns
            place[name] = None if values is None else len(stack)
            if values is not None:
                stack.append(values)
        places.append(_Layer(**place))
    bytes_of_columns, bytes_of_rows = jnp.stack(columns), jnp.stack(rows, axis=1)  # [K, X], [H, K]
    num_blocks = next(count for count in (_BLOCKS, 2, 1) if size % count == 0)

    # A loop over blocks of rows, so that XLA works out all columns and rows once, before it: in one
    # expression with the pixels it would do so anew for every pixel.
    def block(_: None, rows: jax.Array) -> tuple[None, jax.Array]:
        row = rows[:, 0, None]
        picture = bytes_of_columns[0][None, :] + rows[:, 1, None]
        for place in places:
            conditions = []
            if place.at is not None:
                conditions.append(row == bytes_of_columns[place.at])
            if place.low is not None:
                conditions.append(row >= bytes_of_columns[place.low])
            if place.high is not None:
                conditions.append(row < bytes_of_columns[place.high])
            if place.across is not None:
                conditions.append(bytes_of_columns[place.across] < rows[:, place.half, None])
            picture = jnp.where(reduce(and_, conditions), bytes_of_columns[place.ink], picture)
        return None, picture

    in_blocks = bytes_of_rows.reshape(num_blocks, -1, bytes_of_rows.shape[1])
    picture = jax.lax.scan(block, None, in_blocks)[1].reshape(size, size, 3)
    return _cross(state, picture) if fatal else picture


def _grid(x: jax.Array, y: jax.Array, size: int) -> _Grid:
    offset = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(SPAN / size)
    offset -= np.float32(SPAN / 2)
    across, up = x + np.repeat(offset, 3), y - offset
    return _Grid(
        x=across,
        y=up,
        u=(across - jnp.floor(across)) * np.float32(2) - np.float32(1),
        v=(up - jnp.floor(up)) * np.float32(2) - np.float32(1),
    )


def _byte(share: jax.Array) -> jax.Array:
    """uint8: 0 to 1 as 0 to 255."""
    return jnp.clip(share * np.float32(255), np.float32(0), np.float32(255)).astype(jnp.uint8)


def _ink(colour: jax.Array | tuple[int, ...], grid: _Grid) -> jax.Array:
    """uint8[X]: one colour all along a row."""
    return jnp.tile(jnp.asarray(colour, jnp.uint8), grid.x.shape[0] // 3)


def _pick(table: tuple, theme: jax.Array, grid: _Grid) -> jax.Array:
    """uint8[X]: the colour of a theme."""
    return _ink(jnp.asarray(np.array(table, np.uint8))[theme.astype(jnp.int32)], grid)


def _disc(across: jax.Array, up: jax.Array, radius: float) -> dict[str, jax.Array]:
    """Columns and rows of a disc, of their distances from its centre."""
    half = jnp.sqrt(jnp.maximum(np.float32(radius**2) - up * up, np.float32(0)))
    return {"across": _byte(jnp.abs(across)), "half": _byte(half)}


def _both(columns: jax.Array, rows: jax.Array) -> dict[str, jax.Array]:
    """Columns and rows of what is in those columns (bool[X]) and in those rows (bool[H])."""
    return {
        "across": jnp.where(columns, np.uint8(0), np.uint8(255)),
        "half": rows.astype(jnp.uint8),
    }


def _either(columns: jax.Array, rows: jax.Array) -> dict[str, jax.Array]:
    """Columns and rows of what is in those columns, in those rows, or in both."""
    return {
        "across": jnp.where(columns, np.uint8(0), np.uint8(128)),
        "half": jnp.where(rows, np.uint8(255), np.uint8(1)),
    }


def _hills(state: State, grid: _Grid) -> _Layer:
    """Hills that do not move with the agent; their place and colours are the level's."""
    looks = state.level.looks
    far = grid.x * np.float32(0.23) + looks.shift * np.float32(40)
    near = grid.x * np.float32(0.61) + looks.shift * np.float32(90)
    crest = np.float32(9) + np.float32(5) * jnp.sin(far) + np.float32(1.5) * jnp.sin(near)
    # Heights as shares of the window, upside down: a pixel is in a hill if the crest is above it.
    ceiling = state.y + np.float32(SPAN / 2)
    across = _byte((ceiling - crest) * np.float32(1 / SPAN))
    half = jnp.maximum(_byte((ceiling - grid.y) * np.float32(1 / SPAN)), np.uint8(1))
    return _Layer(_pick(HILLS, looks.background, grid), half, across)


def _cells(state: State, grid: _Grid) -> list[_Layer]:
    """Rock, lava, saws, crates and the coin: all that stands still."""
    looks, layout = state.level.looks, state.level.layout
    column = jnp.floor(grid.x)
    inside = (column >= 0) & (column < SIZE)
    index = jnp.clip(column, np.float32(0), np.float32(SIZE - 1)).astype(jnp.int32)
    words = layout.columns[index]

    def number(bits: tuple[int, int]) -> jax.Array:
        low, width = bits
        return ((words >> np.uint32(low)) & np.uint32((1 << width) - 1)).astype(jnp.uint8)

    def at(row: jax.Array, there: jax.Array) -> jax.Array:
        """uint8[X]: that row's byte, or one that no pixel has."""
        return jnp.where(there & inside, row + np.uint8(_ROWS_BELOW), np.uint8(_NONE))

    top, stone, lava = number(TOP_BITS), number(STONE_BITS), number(LAVA_BITS)
    saw, crates = number(SAW_BITS), jnp.maximum(number(FIRST_BITS), number(SECOND_BITS))

    # Rock; what lies outside the world is rock too. Stepping stones and the surface have turf.
    height = jnp.where(inside, top + np.uint8(_ROWS_BELOW), np.uint8(255))
    lone, surface = at(stone, stone > 0), at(top - np.uint8(1), top < SIZE)
    stone_ink, seam_ink, turf_ink = (
        _pick(tuple(ground[k] for ground in GROUNDS), looks.ground, grid) for k in range(3)
    )
    seam = _either(grid.u < np.float32(-0.7), grid.v < np.float32(-0.7))
    turf = _both(inside, grid.v > np.float32(0.2))
    layers = [
        _Layer(stone_ink, high=height),
        _Layer(seam_ink, high=height, **seam),
        _Layer(stone_ink, at=lone),
        _Layer(turf_ink, at=surface, **turf),
        _Layer(turf_ink, at=lone, **turf),
    ]

    # Lava: a body, and a surface with a wave and a glowing edge. Bytes grow downwards here.
    wave = np.float32(0.3) - np.float32(0.1) * jnp.sin(grid.u * np.float32(np.pi))
    down = _byte((np.float32(1) - grid.v) * np.float32(0.5))
    floor = jnp.full_like(lava, _ROWS_BELOW + 1)
    wet = at(lava, lava > 0)
    none = jnp.where(lava > 0, wet, np.uint8(0))
    red = _ink(LAVA, grid)
    layers += [
        _Layer(red, low=floor, high=none),
        _Layer(_ink(GLOW, grid), at=wet, across=_byte(wave), half=down),
        _Layer(red, at=wet, across=_byte(wave + np.float32(0.22)), half=down),
    ]

    # Saws: a disc whose rim is toothed, and a hub; the teeth move from step to step.
    here = at(top, saw > 0)
    turned = (state.num_steps & 1).astype(jnp.float32) * np.float32(0.5)
    tooth = jnp.abs(((grid.u + np.float32(2) + turned) * np.float32(2)) % np.float32(1) - HALF)
    disc = _disc(jnp.abs(grid.u) + np.float32(0.3) * tooth, grid.v, 0.98)
    layers += [
        _Layer(_ink(SAW, grid), at=here, **disc),
        _Layer(_ink(HUB, grid), at=here, **_disc(grid.u, grid.v, 0.4)),
    ]

    # Crates, up to three on top of each other, framed.
    lowest = at(top, crates > 0)
    beyond = jnp.where(crates > 0, lowest + crates, np.uint8(0))
    wood = jnp.asarray(np.array(CRATES, np.uint8))[
        (looks.crates[index] & 3).astype(jnp.int32), np.arange(grid.x.shape[0]) % 3
    ]
    frame = _either(jnp.abs(grid.u) > np.float32(0.8), jnp.abs(grid.v) > np.float32(0.8))
    layers += [
        _Layer(wood, low=lowest, high=beyond),
        _Layer(wood >> np.uint8(1), low=lowest, high=beyond, **frame),
    ]

    # The coin.
    coin_x, coin_y = (layout.coin[k].astype(jnp.int32).astype(jnp.float32) for k in range(2))
    for radius, colour in ((0.8, COIN), (0.35, SHINE)):
        x, y = (grid.x - coin_x) - HALF, (grid.y - coin_y) - HALF
        layers.append(_Layer(_ink(colour, grid), **_disc(x * 2, y * 2, radius)))
    return layers


def _agent(state: State, grid: _Grid) -> list[_Layer]:
    """A round head on a body, feet that walk, an eye on the side to which it last pushed."""
    side = jnp.where(state.facing_left, np.float32(-1), np.float32(1))
    x = grid.x - state.x
    y = grid.y - (state.y - TALL)  # above its feet, 0 to 1.1574

    def box(low: float, high: float, columns: jax.Array) -> dict[str, jax.Array]:
        return _both(columns, (y >= np.float32(low)) & (y < np.float32(high)))

    ink = _pick(AGENTS, state.level.looks.agent, grid)
    strides = (jnp.abs(state.vx) >= np.float32(0.01)) & ((state.num_steps // 5) % 2 == 0)
    apart = jnp.where(strides & state.support, np.float32(0.32), np.float32(0.2))
    feet = jnp.abs(jnp.abs(x) - apart) < np.float32(0.14)
    eye = jnp.abs(x - side * np.float32(0.16)) < np.float32(0.17)
    pupil = jnp.abs(x - side * np.float32(0.23)) < np.float32(0.09)
    return [
        _Layer(ink, **_disc(x, y - np.float32(0.73), 0.42)),
        _Layer(ink, **box(0.16, 0.73, jnp.abs(x) < np.float32(0.36))),
        _Layer(ink >> np.uint8(1), **box(0.0, 0.2, feet)),
        _Layer(_ink(EYE, grid), **box(0.64, 0.94, eye)),
        _Layer(_ink(PUPIL, grid), **box(0.7, 0.88, pupil)),
    ]


def _monsters(state: State, grid: _Grid) -> list[_Layer]:
    """Domes with an eye on the side to which they walk. Where two overlap the last one shows."""
    monsters = state.level.layout.monsters
    covers = jnp.abs(grid.x[::3, None] - state.monster_x[None, :]) < HALF  # [W, monsters]
    rank = np.arange(1, MAX_MONSTERS + 1, dtype=np.int32)
    last = jnp.where(covers, rank, np.int32(0)).max(axis=1)
    which = jnp.maximum(last - 1, 0)

    def wide(values: jax.Array) -> jax.Array:
        return jnp.repeat(values, 3, total_repeat_length=grid.x.shape[0])

    row = jnp.where(last > 0, monsters.row[which] + np.uint8(_ROWS_BELOW), np.uint8(_NONE))
    here = wide(row)
    u = (grid.x - wide(state.monster_x[which])) * np.float32(2)
    table = jnp.asarray(np.array(MONSTERS, np.uint8))
    ink = table[state.level.looks.monsters[which].astype(jnp.int32)].reshape(-1)
    ahead = wide(jnp.sign(state.monster_vx[which])) * np.float32(0.4)
    dome = _disc(u, (grid.v + np.float32(1)) * np.float32(0.58), 0.97)
    eye = _disc(u - ahead, grid.v + np.float32(0.1), 0.34)
    return [_Layer(ink, at=here, **dome), _Layer(_ink(EYE, grid), at=here, **eye)]


def _velocity(state: State, size: int) -> list[_Layer]:
    """Two grey squares in the upper left corner: black, grey and white are backwards, rest, on."""
    side = SQUARE * size
    pixel = np.repeat(np.arange(size), 3) + 0.5
    rows = jnp.asarray(np.arange(size) + 0.5 < side)
    layers = []
    for place, (speed, largest) in enumerate(((state.vx, MAX_SPEED), (state.vy, JUMP))):
        own = (pixel >= place * side) & (pixel < (place + 1) * side)
        grey = _byte(speed / (np.float32(2) * largest) + HALF)
        ink = jnp.broadcast_to(grey, pixel.shape)
        layers.append(_Layer(ink, **_both(jnp.asarray(own), rows)))
    return layers


def _cross(state: State, picture: jax.Array) -> jax.Array:
    """The picture with a cross over the agent in its middle, if it died."""
    died = (state.ends & np.uint8(END_LAVA | END_SAW | END_MONSTER)) > 0
    size = len(picture)
    away = np.abs(np.arange(size) + 0.5 - size / 2) * SPAN / size
    near = np.maximum(away[:, None], away) < 0.6
    cross = near & (np.abs(away[:, None] - away) < 0.14)
    return jnp.where(cross[:, :, None] & died, np.array(FATAL, np.uint8), picture)
