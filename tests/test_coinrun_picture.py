"""CoinRun's picture: what stands where, in the same colours, at any scale."""

from functools import cache, partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotoven.envs.coinrun import level, physics, picture

MODE = "hard"
NUM_LEVELS = 40


@cache
def starts() -> physics.State:
    levels, _ = level.generate(np.arange(NUM_LEVELS), MODE)
    return jax.jit(jax.vmap(physics.reset))(levels)


def one(index: int, **changes: float) -> physics.State:
    state = jax.tree.map(lambda leaf: leaf[index], starts())
    return state._replace(**{name: jnp.float32(value) for name, value in changes.items()})


@partial(jax.jit, static_argnames="scale")
def drawn(state: physics.State, scale: int) -> jax.Array:
    return picture.render(state, scale, velocity=False)


def cell(state: physics.State, x: float, y: float, scale: int = 20) -> np.ndarray:
    """uint8[n, 3]: the colours of the pixels of the cell (x, y), sides left out."""
    pixels = np.asarray(drawn(state, scale))
    centre = (np.arange(13 * scale) + 0.5) / scale - 6.5
    columns = np.floor(float(state.x) + centre - 0.05) == x
    columns &= np.floor(float(state.x) + centre + 0.05) == x
    rows = np.floor(float(state.y) - centre - 0.05) == y
    rows &= np.floor(float(state.y) - centre + 0.05) == y
    return pixels[np.ix_(rows, columns)].reshape(-1, 3)


def share(pixels: np.ndarray, colour: tuple[int, ...]) -> float:
    return float((pixels == np.array(colour, np.uint8)).all(axis=-1).mean())


def where(code: int) -> list[tuple[int, int, int]]:
    """(level, x, y) of every cell of that code; one for each level that has one."""
    layout = starts().level.layout
    grid = level.cells(np.asarray(layout.columns), np.asarray(layout.coin))
    found: dict[int, tuple[int, int, int]] = {}
    for index, y, x in np.argwhere(grid == code):
        found.setdefault(int(index), (int(index), int(x), int(y)))
    return list(found.values())


@partial(jax.jit, static_argnames="velocity")
def observed(states: physics.State, velocity: bool = True) -> jax.Array:
    return jax.vmap(partial(picture.observe, velocity=velocity))(states)


@pytest.mark.optimised
def test_an_observation_is_64_by_64_bytes_and_the_same_alone_and_in_batches_of_any_size():
    observe = partial(picture.observe, velocity=True)
    batch = np.asarray(observed(starts()))
    assert (batch.shape, batch.dtype) == ((NUM_LEVELS, 64, 64, 3), np.uint8)
    assert NUM_LEVELS > picture._BLOCK
    few = jax.tree.map(lambda leaf: leaf[:3], starts())  # two blocks of two, so they overlap
    np.testing.assert_array_equal(observed(few), batch[:3])
    pairs = jax.tree.map(lambda leaf: leaf[:4].reshape(2, 2, *leaf.shape[1:]), starts())
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.vmap(observe)))(pairs)[1, 1], batch[3])
    with jax.numpy_dtype_promotion("strict"):
        np.testing.assert_array_equal(observe(one(7)), batch[7])


def test_an_observation_depends_on_the_time_only_through_its_last_digit():
    words = np.asarray(starts().level.layout.columns)
    index, x = np.argwhere(words >> level.SAW_BITS[0] & 1)[0]
    state = one(int(index), x=x + 2.5, y=(words[index, x] & 127) + 1.5, vx=0.3)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 20), state)
    states = states._replace(num_steps=jnp.arange(20) + 730, support=jnp.ones(20, bool))
    pictures = np.asarray(observed(states))
    np.testing.assert_array_equal(pictures[:10], pictures[10:])
    assert (pictures[0] != pictures[1]).any()  # the teeth of a saw
    assert (pictures[1] != pictures[7]).any()  # a stride


def colours_of(state: physics.State) -> dict[str, set[tuple[int, ...]]]:
    """What each kind of cell may show."""
    looks = state.level.looks
    ground = picture.GROUNDS[int(looks.ground)]
    sky = np.array(picture.SKIES[int(looks.background)])
    behind = {tuple((sky + fade).tolist()) for fade in range(41)} | {
        picture.HILLS[int(looks.background)]
    }
    crates = {tuple(ink) for ink in picture.CRATES}
    crates |= {tuple(part // 2 for part in ink) for ink in picture.CRATES}
    monsters = {*picture.MONSTERS, picture.EYE}
    return {
        "empty": behind | monsters,
        "rock": set(ground[:2]),
        "surface": set(ground),
        "lava": {picture.LAVA},
        "lava's surface": {picture.LAVA, picture.GLOW} | behind,
        "saw": {picture.SAW, picture.HUB} | behind | monsters,
        "crate": crates | monsters,
        "coin": {picture.COIN, picture.SHINE} | behind,
    }


def kind_of(state: physics.State, x: int, y: int) -> str:
    """What the level has in a cell, of its column's word."""
    if not (0 <= x < level.SIZE and y < level.SIZE - 1):
        return "rock"
    word = int(np.asarray(state.level.layout.columns)[x])

    def number(bits: tuple[int, int]) -> int:
        return word >> bits[0] & (1 << bits[1]) - 1

    top, stone = number(level.TOP_BITS), number(level.STONE_BITS)
    crates = max(number(level.FIRST_BITS), number(level.SECOND_BITS))
    if y < top:
        return "surface" if y == top - 1 and top < level.SIZE else "rock"
    if stone and y == stone:
        return "surface"
    if 1 <= y <= number(level.LAVA_BITS):
        return "lava" if y < number(level.LAVA_BITS) else "lava's surface"
    if number(level.SAW_BITS) and y == top:
        return "saw"
    if top <= y < top + crates:
        return "crate"
    return "coin" if (x, y) == tuple(int(part) for part in state.level.layout.coin) else "empty"


def test_every_pixel_of_an_observation_shows_its_cell():
    rng = np.random.default_rng(0)
    ends = np.asarray(starts().level.layout.coin)[:, 0]
    x = rng.uniform(0.5, ends + 2.0).astype(np.float32)
    tops = np.asarray(starts().level.layout.columns)[np.arange(NUM_LEVELS), x.astype(int)] & 127
    y = rng.uniform(0.6, np.minimum(tops + 4, 62)).astype(np.float32)
    pictures = np.asarray(observed(starts()._replace(x=x, y=y), velocity=False))
    offsets = ((np.arange(64) + 0.5) / 64 - 0.5) * 13
    agent = np.zeros((64, 64), bool)
    agent[28:36, 28:36] = True
    seen = set()
    for index in range(NUM_LEVELS):
        state = one(index)
        colours = colours_of(state)
        across, up = x[index] + offsets, y[index] - offsets
        for row, column in product(np.unique(np.floor(up)), np.unique(np.floor(across))):
            # Positions are rounded to a 256th of a cell.
            own = np.abs(up - row - 0.5)[:, None] < 0.5 - 1 / 256
            own = own & (np.abs(across - column - 0.5) < 0.5 - 1 / 256) & ~agent
            kind = kind_of(state, int(column), int(row))
            shown = {tuple(pixel) for pixel in pictures[index][own].tolist()}
            assert shown <= colours[kind], (index, column, row, kind)
            seen |= {kind} if shown else set()
    assert seen == set(colours)


def test_a_monster_stands_where_it_is_and_looks_ahead():
    monsters = starts().level.layout.monsters
    index, number = np.argwhere(np.asarray(monsters.column) != level.AWAY)[0]
    row = int(monsters.row[index, number])
    state = one(int(index))
    alone = jnp.where(jnp.arange(level.MAX_MONSTERS) == number, state.monster_x, 500.0)
    x = float(alone[number]) + 0.3
    for speed in (-0.15, 0.15):
        moved = state._replace(
            x=jnp.float32(x),
            y=jnp.float32(row + 3.5),
            monster_x=alone.at[number].set(x),
            monster_vx=jnp.full(level.MAX_MONSTERS, speed, jnp.float32),
        )
        pixels = np.asarray(drawn(moved, 20))[180:200]  # its row of cells
        ink = np.array(picture.MONSTERS[int(state.level.looks.monsters[number])])
        body, eye = (pixels == ink).all(axis=-1), (pixels == np.array(picture.EYE)).all(axis=-1)
        both = np.nonzero((body | eye).any(axis=0))[0]
        assert (both.min(), both.max()) == (120, 139)  # a cell's width round the middle
        assert (body | eye)[-1, 121:139].all()
        assert np.sign(np.nonzero(eye)[1].mean() - 129.5) == np.sign(speed)


def test_coins_and_lava_look_the_same_in_every_level():
    coins, lava = where(level.COIN), where(level.LAVA_TOP)
    assert len(coins) == NUM_LEVELS and len(lava) >= 2
    for index, x, y in coins:
        pixels = cell(one(index, x=x + 0.5, y=y + 3.0), x, y)
        # a ring between two discs; a cell's outermost pixels, a tenth each way, are left out
        ring = np.pi / 4 * (0.8**2 - 0.35**2)
        assert share(pixels, picture.COIN) == pytest.approx(ring / 0.9**2, abs=0.05)
        assert share(pixels, picture.SHINE) == pytest.approx(np.pi / 4 * 0.35**2 / 0.9**2, abs=0.03)
    for index, x, y in lava:
        pixels = cell(one(index, x=x + 0.5, y=y + 3.0), x, y)
        assert share(pixels, picture.LAVA) > 0.4
        assert share(pixels, picture.GLOW) > 0.05


def test_a_saw_stands_on_its_column_and_nowhere_else():
    words = np.asarray(starts().level.layout.columns)
    low, _ = level.SAW_BITS
    top = words & 127
    index, x = np.argwhere((words >> low) & 1)[0]
    y = int(top[index, x])
    state = one(int(index), x=x + 0.5, y=y + 3.0)
    assert share(cell(state, x, y), picture.HUB) > 0.08
    assert share(cell(state, x, y + 1), picture.HUB) == 0.0


def test_the_agent_stands_in_the_middle_and_looks_where_it_last_pushed():
    state = one(3, x=2.5, y=8.0)
    for facing_left, side in ((False, 1), (True, -1)):
        pixels = np.asarray(drawn(state._replace(facing_left=jnp.bool_(facing_left)), 32))
        white = (pixels == np.array(picture.EYE, np.uint8)).all(axis=-1)
        _, columns = np.nonzero(white[168:248, 176:240])
        assert np.sign(columns.mean() - 32) == side
    colour = picture.AGENTS[int(state.level.looks.agent)]
    assert share(pixels[210:220, 200:216], colour) == 1.0


def test_outside_the_world_there_is_rock():
    state = one(5, x=1.5, y=1.5787)
    stone, seam, _ = picture.GROUNDS[int(state.level.looks.ground)]
    for x, y in ((-3, 4), (-1, 0), (1, -2), (4, -5)):
        pixels = cell(state, x, y)
        assert share(pixels, stone) + share(pixels, seam) == 1.0


def test_the_squares_show_the_velocity():
    state = one(0, x=2.5, y=9.0, vx=-0.5, vy=0.0)
    pixels = np.asarray(observed(jax.tree.map(lambda leaf: leaf[None], state))[0])
    assert (pixels[:12, :12] == 0).all()
    assert (pixels[:12, 14:25] == 127).all()
    fast = state._replace(vx=jnp.float32(0.5), vy=jnp.float32(1.5))
    assert (np.asarray(picture.observe(fast, velocity=True))[:12, :25] == 255).all()
    # In a jump a step takes a fifth of a cell per step away: 17 greys.
    jump = np.float32(1.5) - np.float32(0.2) * np.arange(12, dtype=np.float32)
    jumps = jax.tree.map(lambda leaf: jnp.stack([leaf] * 12), state)._replace(vy=jnp.asarray(jump))
    np.testing.assert_array_equal(
        np.asarray(observed(jumps))[:, 5, 20, 0], 255 - 17 * np.arange(12)
    )
    plain = np.asarray(picture.observe(state, velocity=False))
    np.testing.assert_array_equal(plain[13:], pixels[13:])


def test_only_an_agent_that_died_is_crossed_out():
    state = one(0, x=2.5, y=9.0)
    for ends, crossed in (
        (0, False),
        (physics.END_COIN, False),
        (physics.END_TIME, False),
        (physics.END_LAVA, True),
        (physics.END_SAW, True),
        (physics.END_MONSTER, True),
    ):
        pixels = np.asarray(drawn(state._replace(ends=jnp.uint8(ends)), 32))
        assert (share(pixels[190:226, 190:226], picture.FATAL) > 0.1) == crossed


def test_levels_differ_in_their_colours():
    skies = {tuple(np.asarray(drawn(one(index, x=3.5, y=50.0), 8))[0, 52]) for index in range(12)}
    assert len(skies) > 6
