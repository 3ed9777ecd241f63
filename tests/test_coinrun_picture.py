"""CoinRun's picture: what stands where, in the same colours, at any scale."""

from functools import cache, partial

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


def test_an_observation_is_64_by_64_bytes_and_the_same_in_a_batch():
    observe = partial(picture.observe, velocity=True)
    batch = jax.jit(jax.vmap(observe))(starts())
    assert (batch.shape, batch.dtype) == ((NUM_LEVELS, 64, 64, 3), jnp.uint8)
    for index in (0, 7):
        np.testing.assert_array_equal(jax.jit(observe)(one(index)), batch[index])


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
    pixels = np.asarray(jax.jit(partial(picture.observe, velocity=True))(state))
    assert (pixels[:12, :12] == 0).all()
    assert (pixels[:12, 14:25] == 127).all()
    fast = state._replace(vx=jnp.float32(0.5), vy=jnp.float32(1.5))
    assert (np.asarray(picture.observe(fast, velocity=True))[:12, :25] == 255).all()
    plain = np.asarray(picture.observe(state, velocity=False))
    np.testing.assert_array_equal(plain[13:], pixels[13:])


def test_only_an_agent_that_died_is_crossed_out():
    state = one(0, x=2.5, y=9.0)
    for ends, crossed in ((0, False), (physics.END_COIN, False), (physics.END_SAW, True)):
        pixels = np.asarray(drawn(state._replace(ends=jnp.uint8(ends)), 32))
        assert (share(pixels[190:226, 190:226], picture.FATAL) > 0.1) == crossed


def test_levels_differ_in_their_colours():
    skies = {tuple(np.asarray(drawn(one(index, x=3.5, y=50.0), 8))[0, 52]) for index in range(12)}
    assert len(skies) > 6
