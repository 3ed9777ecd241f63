"""CoinRun's picture: the window round the agent, drawn by arithmetic at any scale.

Nothing is stored: a level is columns of cells, so every pixel follows from the word of its column,
its height, and where in its cell it lies. A cell shows a ground colour and at most two shapes, each
of which covers one stretch of every column of pixels: so 14 rows of cells are worked out first, as
stretches, and a row of pixels is then three comparisons. All is done in whole numbers, and the
colour channels lie side by side in a row. See docs/decisions/0008-coinrun-pictures.md.

All shapes and colours are this project's own. What kills and what pays looks the same in every
level; ground, background, agent, monsters and crates differ from level to level.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
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
    JUMP,
    MAX_SPEED,
    TALL,
    State,
)
from hotoven.palette import COLOURS, rgb, rgbs

SPAN: Final = 13  # cells that a picture is wide and high
OBS_SIZE: Final = 64  # pixels that an observation is wide and high
PERIOD: Final = 10  # steps after which what moves by the clock has come round
SQUARE: Final = 0.2  # side of a velocity square, as a share of the picture's

_INKS: Final = COLOURS["coinrun"]

# The same in every level.
LAVA, GLOW, COIN, SHINE, SAW, HUB, EYE, PUPIL, FATAL = (
    rgb(_INKS[name])
    for name in ("lava", "glow", "coin", "shine", "saw", "hub", "eye", "pupil", "fatal")
)

# By theme. The hues of monsters, skies and hills are apart from red and gold, which belong to lava
# and coins.
AGENTS, CRATES, MONSTERS, SKIES, HILLS = (
    rgbs(_INKS[name]) for name in ("agents", "crates", "monsters", "skies", "hills")
)
GROUNDS: Final = tuple(
    zip(*(rgbs(_INKS[name]) for name in ("stones", "seams", "turfs")), strict=True)
)
NUM_BACKGROUNDS: Final = len(SKIES)
NUM_MONSTERS: Final = len(MONSTERS)

# Lengths are whole numbers: sideways 256ths of a cell, upwards within a cell 128ths, so that a
# whole cell is a byte too.
_BITS: Final = 8  # shifts and masks, as a division that rounds down takes several instructions
_CELL: Final = 1 << _BITS
_FULL: Final = 128
_ROWS: Final = 14  # of cells that a picture may show
_ROWS_BELOW: Final = 64  # added to a row's number, so that rows below the world are bytes too
_NONE: Final = 255  # a row that no pixel has
_WAVE_BITS: Final = 16  # the height of `_wave` is a power of two
_BLOCK: Final = 32  # pictures that are drawn together on a CPU


# What a pixel of the agent shows, as in `_sprites`.
_NOTHING, _BODY, _FOOT, _WHITE, _DARK = range(5)
# What stands in a column besides rock.
_IS_LAVA, _IS_SAW, _IS_CRATE, _IS_COIN = range(4)


class _Seen(NamedTuple):
    """What is where in a column of pixels, each below 256; int32[W].

    Rows are numbers of cells plus _ROWS_BELOW. Sizes are in 128ths of a cell; those of discs and
    boxes are whole heights round the middle of their cell, others begin at its foot.
    """

    top: Any  # rows below are rock
    stone: Any  # the row of a lone cell of rock
    low: Any  # the lowest row of what stands there: lava's surface, saw, crates or coin
    rows: Any  # how many it has; bit 7: the side of a stone, dark all the way up
    looks: Any  # bits 0-1: what stands there; 2-3: a crate's theme; 4-7: a monster's
    first: Any  # size of its first shape
    second: Any  # size of its second shape, over the first one
    crest: Any  # the row in which the hills end
    crest_size: Any  # and how far up in it
    monster: Any  # the row of a monster
    dome: Any  # the size of its body
    eye: Any  # and of its eye


class _Shapes(NamedTuple):
    """The same ready to be compared with rows; uint8[3 * W]. Sizes are counted from `*_low` on."""

    top: Any
    stone: Any
    turf: Any  # the row of the surface
    body: Any  # rows of lava below its surface, from row 1 up
    low: Any
    rows: Any
    crate: Any  # `low` if it is a crate
    first_low: Any
    first_size: Any
    second_low: Any
    second_size: Any
    seam: Any  # size of a stone's dark part
    crest: Any
    edge: Any  # `crest` if nothing hides the hills there
    crest_size: Any
    monster: Any
    dome: Any
    eye_low: Any
    eye_size: Any


class _Inks(NamedTuple):
    """The colours of a row of pixels, channels side by side; uint8[3 * W]."""

    sky: Any
    hills: Any
    stone: Any
    seam: Any
    turf: Any
    frame: Any  # of a crate
    first: Any
    second: Any
    monster: Any


class _Cells(NamedTuple):
    """What is painted in rows of cells; uint8[_ROWS, 3 * W].

    A pixel has the ground's ink; over it the edge of the hills, then the first shape, then the
    second.
    """

    ground: Any
    first_low: Any
    first_size: Any
    first_ink: Any
    second_low: Any
    second_size: Any
    second_ink: Any


class _Rows(NamedTuple):
    """The rows of a picture from above: of its cells, and of its H rows of pixels."""

    number: Any  # uint8[_ROWS]  numbers of the rows of cells
    own: Any  # uint8[H]  the number of the one in which a row of pixels lies
    index: Any  # int32[H]  its place among them
    height: Any  # uint8[H]  how high in it


class _Stages(NamedTuple):
    """What is worked out one after another, for one picture; None before it is."""

    columns: Any = None  # as `_columns` returns them
    words: Any = None  # a packed _Seen
    wide: Any = None  # the same for every channel
    bytes: Any = None  # _Shapes and _Inks
    rows: Any = None  # _Rows
    cells: Any = None  # _Cells


def observe(state: State, velocity: bool) -> jax.Array:
    """uint8[64, 64, 3]: what the agent sees, with its velocity as two grey squares if asked."""
    return _draw(state, OBS_SIZE, velocity, fatal=False)


def render(state: State, scale: int, velocity: bool) -> jax.Array:
    """uint8[13 * scale, 13 * scale, 3]: the same for people; an agent that died is crossed out."""
    return _draw(state, SPAN * scale, velocity, fatal=True)


@partial(jax.jit, static_argnames=("size", "velocity", "fatal"))
def _draw(state: State, size: int, velocity: bool, fatal: bool) -> jax.Array:
    """One picture; under vmap a batch of them, which a CPU draws block by block."""
    at_once = partial(_at_once, size=size, velocity=velocity, fatal=fatal)
    by_blocks = partial(_by_blocks, size=size, velocity=velocity, fatal=fatal)

    @jax.custom_batching.custom_vmap
    def draw(state: State) -> jax.Array:
        return at_once(jax.tree.map(lambda leaf: leaf[None], state))[0]

    @draw.def_vmap
    def _(batch: int, in_batch: list[State], states: State) -> tuple[jax.Array, bool]:
        def spread(leaf: jax.Array, has_axis: bool) -> jax.Array:
            return leaf if has_axis else jnp.broadcast_to(leaf, (batch, *leaf.shape))

        states = jax.tree.map(spread, states, in_batch[0])
        return jax.lax.platform_dependent(states, cpu=by_blocks, default=at_once), True

    return draw(state).reshape(size, size, 3)


def _at_once(states: State, size: int, velocity: bool, fatal: bool) -> jax.Array:
    """uint8[B, size, 3 * size]: the pictures of a batch of states."""
    pictures = jnp.zeros((len(states.x), size, 3 * size), jnp.uint8)
    stages = jax.vmap(partial(_stages, once=_straight, size=size))(states, _Stages())
    pictures = _paint_into(pictures, 0, stages)
    return _overlay(pictures, 0, states, velocity, fatal)


def _by_blocks(states: State, size: int, velocity: bool, fatal: bool) -> jax.Array:
    """The same in an order that suits a CPU.

    A block of pictures fits its caches, every stage is computed once (see `_once`), and what is
    worked out in between is written to the same few arrays for every block.
    """
    batch = len(states.x)
    num_blocks = max(2, -(-batch // _BLOCK))  # a single turn XLA would not keep as a loop
    block = -(-batch // num_blocks)

    def draw(turn: jax.Array, carry: tuple[jax.Array, _Stages]) -> tuple[jax.Array, _Stages]:
        pictures, scratch = carry
        turns = jnp.minimum(turn + 1, 1)  # one, but XLA does not know it
        start = turn * block  # slices that would reach beyond the batch begin earlier
        part = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, block), states)
        stages = jax.vmap(partial(_stages, once=partial(_once, turns), size=size))(part, scratch)

        def paint(index: jax.Array, pictures: jax.Array) -> jax.Array:
            return _paint_into(pictures, start, stages._replace(rows=_tie(stages.rows, index)))

        pictures = jax.lax.fori_loop(0, turns, paint, pictures)
        return _overlay(pictures, start, part, velocity, fatal), stages

    one = jax.tree.map(lambda leaf: leaf[0], states)
    shapes = jax.eval_shape(partial(_stages, once=_straight, size=size), one, _Stages())
    scratch = jax.tree.map(lambda leaf: jnp.zeros((block, *leaf.shape), leaf.dtype), shapes)
    pictures = jnp.zeros((batch, size, 3 * size), jnp.uint8)
    return jax.lax.fori_loop(0, num_blocks, draw, (pictures, scratch))[0]


def _straight(compute: Callable, tied: Any, _: Any) -> Any:
    """What `compute` makes of `tied`; a GPU's compiler keeps it apart from what follows."""
    return jax.lax.optimization_barrier(compute(tied))


def _once(turns: jax.Array, compute: Callable, tied: Any, scratch: Any) -> Any:
    """What `compute` makes of `tied`, computed once and written into `scratch`.

    XLA compiles every use of a value together with all that it depends on, over and over. It does
    not look into a loop; but it must neither know that the loop has one turn only, nor find
    anything in it that does not depend on the turn: `compute` must use `tied` in all that it does.
    """

    def turn(index: jax.Array, _: Any) -> Any:
        return compute(_tie(tied, index))

    return jax.lax.fori_loop(0, turns, turn, scratch)


def _tie(values: Any, index: jax.Array) -> Any:
    """The same values in turn 0, which XLA cannot work out before the loop."""
    return jax.tree.map(lambda leaf: leaf + index.astype(leaf.dtype), values)


def _stages(state: State, scratch: _Stages, once: Callable, size: int) -> _Stages:
    """All that is worked out before pixels are painted."""
    looks = state.level.looks
    columns = once(lambda x: _columns(x, state, size), state.x, scratch.columns)
    words = once(lambda x: _pack(_seen(x, state, columns, size)), state.x, scratch.words)
    wide = once(lambda words: [_thrice(word) for word in words], words, scratch.wide)
    themes = (looks.background, looks.ground)
    shapes, inks = once(lambda tied: _unpack(*tied), (wide, themes), scratch.bytes)
    rows = once(lambda y: _rows(y, size), state.y, scratch.rows)
    cells = once(lambda numbers: _cells(numbers, shapes, inks), rows.number, scratch.cells)
    return _Stages(columns, words, wide, (shapes, inks), rows, cells)


def _columns(x: jax.Array, state: State, size: int) -> tuple[jax.Array, jax.Array]:
    """int32[W] x 2: for every column of pixels the word of its cells, and the monster in it.

    The word has the themes of crates in its uppermost byte. A monster is its row and theme, the
    sign of its speed, and the pixel's place in it, as one number; 0 where there is none. Of several
    monsters in a column the one with the largest number shows.
    """
    layout, looks = state.level.layout, state.level.looks
    pixel = _fixed(x) + _offsets(size)
    index = jnp.clip(pixel >> _BITS, 0, SIZE - 1)  # the outermost columns are rock to the top
    words = _int(_at(layout.columns, index)) | _int(_at(looks.crates, index)) << 24
    which = _int(layout.monsters.row) << 16 | _int(looks.monsters) << 12 | 1 << 30
    which = which | (_int(jnp.sign(state.monster_vx)) + 1) << 8
    left = _fixed(state.monster_x) - _CELL // 2
    monster = jnp.zeros(size, jnp.int32)
    # One after another: in one array of all of them XLA would write it out before the maximum.
    for k in range(MAX_MONSTERS):
        within = pixel - left[k]
        there = (within >= 0) & (within < _CELL)
        monster = jnp.maximum(monster, jnp.where(there, which[k] | within, 0))
    return words, monster


def _seen(x: jax.Array, state: State, columns: Sequence[jax.Array], size: int) -> _Seen:
    """What is where in every column of pixels; `columns` as `_columns` returns them."""
    words, monster = columns
    layout, looks = state.level.layout, state.level.looks
    pixel = _fixed(x) + _offsets(size)
    u = pixel & _CELL - 1
    away = jnp.abs(u - _CELL // 2)  # from the middle of the cell

    def number(bits: tuple[int, int]) -> jax.Array:
        low, width = bits
        return words >> low & (1 << width) - 1

    def at(row: jax.Array, there: jax.Array) -> jax.Array:
        return jnp.where(there, row + _ROWS_BELOW, _NONE)

    top, stone, lava = number(TOP_BITS), number(STONE_BITS), number(LAVA_BITS)
    crates = jnp.maximum(number(FIRST_BITS), number(SECOND_BITS))
    is_saw, is_crate = number(SAW_BITS) > 0, crates > 0
    coin_x, coin_y = (_int(layout.coin[k]) for k in range(2))

    def pick(lava_is: Any, saw_is: Any, crate_is: Any, coin_is: Any) -> jax.Array:
        # A column holds one kind of them at most. Without any it counts as a coin's, of no row.
        dry = jnp.where(is_saw, saw_is, jnp.where(is_crate, crate_is, coin_is))
        return jnp.where(lava > 0, lava_is, dry)

    coin_row = jnp.where(pixel >> _BITS == coin_x, coin_y, _NONE - _ROWS_BELOW)
    # Lava has a wave and a glowing edge.
    wave = 62 + (_wave(u << 2) * 13 >> _WAVE_BITS)
    # A saw's teeth move from step to step.
    tooth = jnp.abs((u + 32 * (state.num_steps & 1) & 63) - 32)
    blade, hub = _disc(away + (tooth >> 1), 126), _disc(away, 51)
    coin, shine = _disc(away, 102), _disc(away, 45)
    # Hills do not move with the agent; where they are is the level's own.
    shift = _int(looks.shift * np.float32(65536))
    far, near = 9 * pixel + 7 * shift >> 6, 25 * pixel + 13 * shift >> 6
    crest = 9 * _CELL + (10 * _wave(far) + 3 * _wave(near) >> _WAVE_BITS - _BITS + 1)

    is_monster, ahead = monster > 0, (monster >> 8 & 3) - 1
    body = jnp.abs((monster & 255) - 128)
    face = jnp.abs((monster & 255) - 128 - 51 * ahead)
    side = jnp.where(u < 38, 128, 0)
    theme = words >> 24 & 3
    return _Seen(
        top=top + _ROWS_BELOW,
        stone=at(stone, stone > 0),
        low=pick(lava, top, top, coin_row) + _ROWS_BELOW,
        rows=jnp.maximum(crates, 1) | side,
        looks=pick(_IS_LAVA, _IS_SAW, _IS_CRATE, _IS_COIN) | theme << 2 | (monster >> 12 & 15) << 4,
        first=pick(wave + 28, 2 * blade, jnp.where(away <= 102, 102, 0), 2 * coin),
        second=pick(wave, 2 * hub, 0, 2 * shine),
        crest=(crest >> _BITS) + _ROWS_BELOW,
        crest_size=(crest & _CELL - 1) >> 1,
        monster=at(monster >> 16 & 63, is_monster),
        dome=_disc(body, 124) * 7 >> 2,
        eye=2 * _disc(face, 44),
    )


def _pack(seen: _Seen) -> list[jax.Array]:
    """int32[W] x 3: four bytes in each, so that what is spread out is three arrays, not twelve."""
    return [a | b << 8 | c << 16 | d << 24 for a, b, c, d in zip(*[iter(seen)] * 4, strict=True)]


def _thrice(word: jax.Array) -> jax.Array:
    """int32[3 * W]: the same for each of the three channels."""
    return jnp.broadcast_to(word[:, None], (len(word), 3)).reshape(-1)


def _unpack(words: Sequence[jax.Array], themes: tuple[jax.Array, jax.Array]) -> tuple:
    """The _Shapes that were packed, now uint8[3 * W], and the _Inks of all that stands there."""
    seen = _Seen(*((word >> k).astype(jnp.uint8) for word in words for k in (0, 8, 16, 24)))
    background, ground = themes
    width = len(words[0])
    kind, wood = seen.looks & np.uint8(3), seen.looks >> np.uint8(2) & np.uint8(3)
    is_lava, none = kind == np.uint8(_IS_LAVA), np.uint8(_NONE)

    def middle(size: jax.Array, centre: int) -> jax.Array:
        return np.uint8(centre) - (size >> np.uint8(1))

    low, crest = np.uint8(_ROWS_BELOW + 1), seen.crest
    body = jnp.where(is_lava & (seen.low != none), seen.low - low, np.uint8(0))
    crate = jnp.where(kind == np.uint8(_IS_CRATE), seen.low, none)
    crates = seen.rows & np.uint8(127)
    hides = (crest < seen.top) | (crest == seen.stone) | (crest - low < body)
    hides = hides | (crest - crate < crates)
    shapes = _Shapes(
        top=seen.top,
        stone=seen.stone,
        turf=jnp.where(seen.top < np.uint8(_ROWS_BELOW + SIZE), seen.top - np.uint8(1), none),
        body=body,
        low=seen.low,
        rows=crates,
        crate=crate,
        first_low=jnp.where(is_lava, np.uint8(0), middle(seen.first, 64)),
        first_size=seen.first,
        second_low=jnp.where(is_lava, np.uint8(0), middle(seen.second, 64)),
        second_size=seen.second,
        seam=jnp.where(seen.rows > np.uint8(127), np.uint8(_FULL), np.uint8(19)),
        crest=crest,
        edge=jnp.where(hides, none, crest),
        crest_size=seen.crest_size,
        monster=seen.monster,
        dome=seen.dome,
        eye_low=middle(seen.eye, 58),
        eye_size=seen.eye,
    )

    def theme(table: Sequence, number: jax.Array) -> jax.Array:
        return _at(jnp.asarray(_tiled(table, width)), _int(number))

    def select(number: jax.Array, colours: Sequence) -> jax.Array:
        inks = _tiled(colours, width)
        chosen = jnp.asarray(inks[0])
        for k in range(1, len(inks)):
            chosen = jnp.where(number == np.uint8(k), inks[k], chosen)
        return chosen

    planks = select(wood, CRATES)
    first = select(kind, (GLOW, SAW, LAVA, COIN))
    return shapes, _Inks(
        sky=theme(SKIES, background),
        hills=theme(HILLS, background),
        stone=theme([colours[0] for colours in GROUNDS], ground),
        seam=theme([colours[1] for colours in GROUNDS], ground),
        turf=theme([colours[2] for colours in GROUNDS], ground),
        frame=planks >> np.uint8(1),
        first=jnp.where(kind == np.uint8(_IS_CRATE), planks, first),
        second=select(kind, (LAVA, HUB, LAVA, SHINE)),
        monster=select(seen.looks >> np.uint8(4), MONSTERS),
    )


def _rows(y: jax.Array, size: int) -> _Rows:
    """Which rows of cells there are, and where in them the rows of pixels lie."""
    pixel = _fixed(y) - _offsets(size)
    row = pixel >> _BITS

    def number(row: jax.Array) -> jax.Array:
        # Rows above and at the world's rim count as the lowest, where all is rock.
        return jnp.where(row >= SIZE - 1, 0, row + _ROWS_BELOW).astype(jnp.uint8)

    return _Rows(
        number=number(row[0] - np.arange(_ROWS, dtype=np.int32)),
        own=number(row),
        index=row[0] - row,
        height=((pixel & _CELL - 1) >> 1).astype(jnp.uint8),
    )


def _cells(number: jax.Array, shapes: _Shapes, inks: _Inks) -> _Cells:
    """What is painted in each row of cells; `number` is uint8[_ROWS]."""
    row = number[:, None]
    none = np.uint8(0)
    is_stone = row == shapes.stone
    is_rock = (row < shapes.top) | is_stone
    is_turf = (row == shapes.turf) | is_stone
    is_body = row - np.uint8(_ROWS_BELOW + 1) < shapes.body  # below row 1 a large number
    is_thing = row - shapes.low < shapes.rows
    is_crate = row - shapes.crate < shapes.rows
    is_monster = row == shapes.monster

    sky = inks.sky + np.uint8(_ROWS_BELOW + 39) - jnp.clip(row, np.uint8(64), np.uint8(103))
    ground = jnp.where(row < shapes.crest, inks.hills, sky)
    ground = jnp.where(is_rock, inks.stone, ground)
    ground = jnp.where(is_body, _tiled([LAVA], len(inks.sky))[0], ground)
    ground = jnp.where(is_crate, inks.frame, ground)

    def shape(monster: Any, thing: Any, rock: Any) -> jax.Array:
        return jnp.where(is_monster, monster, jnp.where(is_thing, thing, rock))

    return _Cells(
        ground=ground,
        first_low=shape(none, shapes.first_low, none),
        first_size=shape(shapes.dome, shapes.first_size, jnp.where(is_rock, shapes.seam, none)),
        first_ink=shape(inks.monster, inks.first, inks.seam),
        second_low=shape(shapes.eye_low, shapes.second_low, np.uint8(77)),
        second_size=shape(
            shapes.eye_size, shapes.second_size, jnp.where(is_turf, np.uint8(51), none)
        ),
        second_ink=shape(np.uint8(255), inks.second, inks.turf),
    )


def _paint_into(pictures: jax.Array, start: jax.Array | int, stages: _Stages) -> jax.Array:
    """The pictures with those from `start` on painted."""
    shapes, inks = stages.bytes
    painted = jax.vmap(_paint)(stages.rows, shapes, inks, stages.cells)
    return jax.lax.dynamic_update_slice(pictures, painted, (start, 0, 0))


def _paint(rows: _Rows, shapes: _Shapes, inks: _Inks, cells: _Cells) -> jax.Array:
    """uint8[H, 3 * W]: every row of pixels from its row of cells, all but the agent."""
    cell = _Cells(*(_at(values, rows.index) for values in cells))
    up = rows.height[:, None]
    is_hill = (rows.own[:, None] == shapes.edge) & (up < shapes.crest_size)
    picture = jnp.where(is_hill, inks.hills, cell.ground)
    # Bytes wrap: below the shape's foot the difference is large.
    picture = jnp.where(up - cell.first_low < cell.first_size, cell.first_ink, picture)
    return jnp.where(up - cell.second_low < cell.second_size, cell.second_ink, picture)


def _overlay(
    pictures: jax.Array, start: jax.Array | int, states: State, velocity: bool, fatal: bool
) -> jax.Array:
    """The pictures with what has a fixed place in them: the agent, its velocity, the cross."""
    size = pictures.shape[1]
    patches = [(*_middle(size), partial(_agent, size=size, fatal=fatal))]
    if velocity:
        patches.append((*_corner(size), partial(_squares, size=size)))
    for place, shape, draw in patches:
        at = (start, place[0], 3 * place[1])
        under = jax.lax.dynamic_slice(pictures, at, (len(states.x), shape[0], 3 * shape[1]))
        pictures = jax.lax.dynamic_update_slice(pictures, jax.vmap(draw)(under, states), at)
    return pictures


def _middle(size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The pixels that the agent or the cross may cover: the first row and column, and how many."""
    half = math.ceil(0.62 * size / SPAN)
    return ((size - 1) // 2 + 1 - half,) * 2, (2 * half - size % 2,) * 2


def _corner(size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The same of the velocity squares."""
    side = SQUARE * size
    return (0, 0), (math.ceil(side - 0.5), math.ceil(2 * side - 0.5))


def _agent(under: jax.Array, state: State, size: int, fatal: bool) -> jax.Array:
    """The agent over what is under it, crossed out if that is asked for and it died."""
    ink = _at(jnp.asarray(np.array(AGENTS, np.uint8)), _int(state.level.looks.agent))
    inks = jnp.stack([ink, ink >> np.uint8(1), np.array(EYE, np.uint8), np.array(PUPIL, np.uint8)])
    strides = (jnp.abs(state.vx) >= np.float32(0.01)) & (state.num_steps % 10 < 5) & state.support
    pose = jnp.where(state.facing_left, 2, 0) + jnp.where(strides, 1, 0)
    part = _at(jnp.asarray(np.repeat(_sprites(size), 3, axis=2)), pose)
    for k in range(4):
        own = jnp.tile(inks[k], part.shape[1] // 3)
        under = jnp.where(part == np.uint8(k + _BODY), own, under)
    if not fatal:
        return under
    died = (state.ends & np.uint8(END_LAVA | END_SAW | END_MONSTER)) > 0
    away = np.abs(_distances(size))
    cross = (np.maximum(*away) < 0.6) & (np.abs(away[0] - away[1]) < 0.14)
    return jnp.where(np.repeat(cross, 3, axis=1) & died, _tiled([FATAL], under.shape[1]), under)


def _distances(size: int) -> np.ndarray:
    """float64[2, h, w]: how far pixels of the middle lie to the right of and above its centre."""
    place, shape = _middle(size)
    along = (np.arange(shape[0]) + place[0] + 0.5 - size / 2) * SPAN / size
    return np.stack(np.meshgrid(along, -along))


def _sprites(size: int) -> np.ndarray:
    """uint8[4, h, w]: what pixels of the middle show of the agent.

    A round head on a body, feet that walk, an eye on the side to which it last pushed. Poses: at
    rest and striding to the right, then to the left.
    """
    x, y = _distances(size)
    y = y + float(TALL)  # above its feet, 0 to 1.1574
    sprites = np.full((4, *x.shape), _NOTHING, np.uint8)
    for sprite, (side, apart) in zip(sprites, product((1, -1), (0.2, 0.32)), strict=True):
        sprite[x**2 + (y - 0.73) ** 2 < 0.42**2] = _BODY
        sprite[(np.abs(x) < 0.36) & (y >= 0.16) & (y < 0.73)] = _BODY
        sprite[(np.abs(np.abs(x) - apart) < 0.14) & (y >= 0.0) & (y < 0.2)] = _FOOT
        sprite[(np.abs(x - side * 0.16) < 0.17) & (y >= 0.64) & (y < 0.94)] = _WHITE
        sprite[(np.abs(x - side * 0.23) < 0.09) & (y >= 0.7) & (y < 0.88)] = _DARK
    return sprites


def _squares(under: jax.Array, state: State, size: int) -> jax.Array:
    """Two grey squares: black, grey and white are backwards, rest, on. Sideways, then upwards."""
    first = np.repeat(np.arange(under.shape[1] // 3) + 0.5 < SQUARE * size, 3)
    sideways, upwards = _grey(state.vx, MAX_SPEED), _grey(state.vy, JUMP)
    return jnp.broadcast_to(jnp.where(first, sideways, upwards), under.shape)


def _grey(speed: jax.Array, largest: np.float32) -> jax.Array:
    """uint8[]: 0 to 255 for speeds from -largest to largest.

    The speeds of a jump fall on whole greys: the 64th keeps roundings from showing.
    """
    grey = speed * (np.float32(255) / (np.float32(2) * largest)) + np.float32(127.5 + 1 / 64)
    return _int(jnp.clip(grey, np.float32(0), np.float32(255))).astype(jnp.uint8)


def _at(values: jax.Array, index: jax.Array) -> jax.Array:
    """values[index], for an index that is in bounds: without the checks of one that may not be."""
    return values.at[index].get(mode="promise_in_bounds")


def _int(values: jax.Array) -> jax.Array:
    return values.astype(jnp.int32)


def _fixed(position: jax.Array) -> jax.Array:
    """int32: cells as 256ths of a cell."""
    return _int(jnp.floor(position * np.float32(_CELL)))


def _offsets(size: int) -> np.ndarray:
    """int32[size]: how far the centres of pixels lie to the right of the picture's middle."""
    return np.round(((np.arange(size) + 0.5) / size - 0.5) * SPAN * _CELL).astype(np.int32)


def _disc(away: jax.Array, radius: int) -> jax.Array:
    """int32: half the height, in 128ths, of a disc that far from its centre, in 256ths.

    The half under the root keeps it off whole numbers: no rounding of it shows.
    """
    square = jnp.maximum(radius**2 - away * away, 0).astype(jnp.float32)
    return _int(jnp.sqrt(square + np.float32(0.5))) >> 1


def _wave(turn: jax.Array) -> jax.Array:
    """int32 from -2**16 to 2**16: a wave of parabolas, 1024 to a turn."""
    part = turn & 511
    return jnp.where(turn & 512 > 0, -1, 1) * part * (512 - part)


def _tiled(colours: Sequence, width: int) -> np.ndarray:
    """uint8[colours, width]: each colour all along a row."""
    return np.tile(np.array(colours, np.uint8), (1, width // 3))
