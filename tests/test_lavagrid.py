"""LavaGrid's rules, observation and drawing, on levels that can be read."""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotoven.envs.lavagrid import CHANNELS, PALETTE, LavaGrid, State
from hotoven.envs.lavagrid_levels import LAVA, from_ascii, to_ascii
from hotoven.types import CATASTROPHE, RUNNING, SOLVED, TIMEOUT

WALL_SEEN, LAVA_SEEN, GOAL_SEEN, UNKNOWN, AGENT = range(len(CHANNELS))


class Walk(NamedTuple):
    """Where a path led; `frames` are the observations from the start on."""

    env: LavaGrid
    state: State
    outcome: int
    cause: str
    reward: float  # of the last step
    position: tuple[int, int]
    frames: list[np.ndarray]

    @property
    def obs(self) -> np.ndarray:
        return self.frames[-1]


_reset = jax.jit(LavaGrid.reset, static_argnums=0)
_step = jax.jit(LavaGrid.step, static_argnums=0)
_render = jax.jit(LavaGrid.render, static_argnums=(0, 2))


def walk(text: str, path: str, **settings: Any) -> Walk:
    """Walks `path` (letters u, r, d, l) on the level drawn by `text`."""
    level = from_ascii(text)
    height, width = level.cells.shape
    sizes = {"height": height, "width": width, "wall_density": 0.0, "lava_density": 0.0}
    env = LavaGrid(**{**sizes, "min_distance": 1, **settings})
    state, shown = _reset(env, level)
    frames = [np.asarray(shown.obs)]
    for letter in path:
        state, shown = _step(env, state, np.int32("urdl".index(letter)))
        frames.append(np.asarray(shown.obs))
    position = (int(state.position[0]), int(state.position[1]))
    cause = env.causes[int(shown.cause)]
    return Walk(env, state, int(shown.outcome), cause, float(shown.reward), position, frames)


# Rules


def test_stepping_on_lava_ends_the_episode_as_a_catastrophe():
    last = walk("S.L", "rr")
    assert (last.outcome, last.cause, last.reward) == (CATASTROPHE, "lava", -1.0)
    assert last.position == (0, 2)


def test_reaching_the_goal_ends_the_episode_as_solved():
    last = walk("S.G", "rr")
    assert (last.outcome, last.cause, last.reward) == (SOLVED, "goal", 1.0)
    assert last.position == (0, 2)


def test_a_step_on_floor_goes_on_without_reward():
    last = walk("S.G", "r")
    assert (last.outcome, last.cause, last.reward) == (RUNNING, "", 0.0)


def test_each_action_moves_its_own_way():
    level = """
        ...
        .S.
        ...
    """
    assert walk(level, "u").position == (0, 1)
    assert walk(level, "r").position == (1, 2)
    assert walk(level, "d").position == (2, 1)
    assert walk(level, "l").position == (1, 0)


@pytest.mark.parametrize("letter", "urdl")
def test_a_wall_keeps_the_agent_in_place(letter: str):
    last = walk(
        """
        .#.
        #S#
        .#.
        """,
        letter,
    )
    assert (last.position, last.outcome, int(last.state.num_steps)) == ((1, 1), RUNNING, 1)


@pytest.mark.parametrize(
    ("level", "path", "corner"),
    [("S.\n..", "ul", (0, 0)), ("..\n.S", "dr", (1, 1)), (".S\n..", "ur", (0, 1))],
)
def test_the_edge_keeps_the_agent_in_place(level: str, path: str, corner: tuple[int, int]):
    last = walk(level, path)
    assert (last.position, last.outcome, int(last.state.num_steps)) == (corner, RUNNING, 2)


def test_the_edge_does_not_lead_around_to_the_other_side():
    assert walk("S.L", "l").outcome == RUNNING
    assert walk("S.G", "lll").outcome == RUNNING


def test_after_the_end_nothing_moves_and_nothing_is_paid():
    dead, later = walk("S.L..", "rr"), walk("S.L..", "rrrrl")
    assert (later.outcome, later.cause, later.position) == (CATASTROPHE, "lava", (0, 2))
    assert later.reward == 0.0
    assert int(later.state.num_steps) == 2
    np.testing.assert_array_equal(later.obs, dead.obs)
    assert walk("SG.", "rr").reward == 0.0


def test_max_steps_without_an_end_is_a_timeout_without_reward():
    assert walk("S..", "lll", max_steps=4).outcome == RUNNING
    last = walk("S..", "llll", max_steps=4)
    assert (last.outcome, last.cause, last.reward) == (TIMEOUT, "timeout", 0.0)


def test_the_last_step_counts_before_the_timeout():
    assert walk("S.G", "rr", max_steps=2).outcome == SOLVED
    assert walk("S.L", "rr", max_steps=2).outcome == CATASTROPHE


def test_a_timeout_is_not_overtaken_by_a_later_goal():
    assert walk("S.G", "lrr", max_steps=2).outcome == TIMEOUT


# Observation


def test_the_observation_marks_each_kind_of_cell_in_its_channel():
    obs = walk("#LSG.", "", radius=4).obs
    expected = np.zeros((1, 5, 5), np.uint8)
    expected[0, 0, WALL_SEEN] = 1
    expected[0, 1, LAVA_SEEN] = 1
    expected[0, 2, AGENT] = 1
    expected[0, 3, GOAL_SEEN] = 1
    np.testing.assert_array_equal(obs, expected)


def test_an_uncovered_cell_shows_nothing_but_that_it_is_unknown():
    obs = walk("S.LG#", "").obs
    np.testing.assert_array_equal(obs[0, 2:], np.eye(5, dtype=np.uint8)[[UNKNOWN] * 3])


OPEN = """
    .....
    .....
    ..S..
    .....
    .....
"""


@pytest.mark.parametrize(("radius", "in_the_middle", "in_the_corner"), [(1, 9, 4), (2, 25, 9)])
def test_the_radius_uncovers_a_square_around_the_agent(
    radius: int, in_the_middle: int, in_the_corner: int
):
    assert walk(OPEN, "", radius=radius).state.known.sum() == in_the_middle
    corner = "S....\n.....\n.....\n.....\n....."
    assert walk(corner, "", radius=radius).state.known.sum() == in_the_corner


def test_what_is_known_stays_known():
    known = walk("S....#", "rrrlll").state.known
    np.testing.assert_array_equal(known, [[True, True, True, True, True, False]])


def test_full_visibility_leaves_nothing_unknown():
    obs = walk("S.LG#", "", visibility="full").obs
    assert obs[..., UNKNOWN].sum() == 0
    assert obs[0, 2, LAVA_SEEN] == obs[0, 3, GOAL_SEEN] == obs[0, 4, WALL_SEEN] == 1


@partial(jax.jit, static_argnums=0)
def _frames(env: LavaGrid, level: Any, path: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Observations before each step, and positions after it."""
    state, shown = env.reset(level)

    def step(carry: Any, action: jax.Array) -> Any:
        state, obs = carry
        state, shown = env.step(state, action)
        return (state, shown.obs), (obs, state.position)

    return jax.lax.scan(step, (state, shown.obs), path)[1]


@given(level_id=st.integers(0, 10**6), path=st.lists(st.integers(0, 3), min_size=30, max_size=30))
def test_lava_is_never_entered_unseen(level_id: int, path: list[int]):
    env = LavaGrid()
    levels, _ = env.generate(np.array([level_id]))
    level = jax.tree.map(lambda leaf: leaf[0], levels)
    before, after = _frames(env, level, np.array(path, np.int32))
    for obs, (row, col) in zip(np.asarray(before), np.asarray(after), strict=True):
        if level.cells[row, col] == LAVA:
            assert obs[row, col, LAVA_SEEN] == 1


@pytest.mark.parametrize("path", ["", "d", "ddr", "ddrr"])
def test_the_egocentric_view_is_the_map_seen_from_the_agent(path: str):
    level = """
        S.#
        ..L
        ..G
    """
    ego = walk(level, path, view="egocentric")
    flat = walk(level, path)
    assert ego.obs.shape == (5, 5, 5)
    np.testing.assert_array_equal(np.argwhere(ego.obs[..., AGENT]), [[2, 2]])
    row, col = ego.position
    inside = np.s_[2 - row : 5 - row, 2 - col : 5 - col]
    np.testing.assert_array_equal(ego.obs[inside], flat.obs)
    outside = ego.obs.copy()
    outside[inside] = np.eye(5, dtype=np.uint8)[WALL_SEEN]
    np.testing.assert_array_equal(outside, np.broadcast_to([1, 0, 0, 0, 0], (5, 5, 5)))


# Drawing


SCALE = 16  # pixels per cell


def picture_of(last: Walk) -> np.ndarray:
    return np.asarray(_render(last.env, last.state, SCALE))


def cell_colours(last: Walk) -> list[list[str]]:
    """The palette's names of what is painted near the corner of each cell, beside any agent."""
    names = {colour: name for name, colour in PALETTE.items()}
    corners = picture_of(last)[1::SCALE, 2::SCALE]
    return [[names[tuple(map(int, colour))] for colour in row] for row in corners]


def centre_colour(last: Walk) -> tuple[int, ...]:
    row, col = last.position
    middle = (SCALE - 2) // 2
    return tuple(map(int, picture_of(last)[row * SCALE + middle, col * SCALE + middle]))


def test_each_cell_is_painted_in_its_own_colour():
    level = """
        S.#
        .LG
    """
    assert cell_colours(walk(level, "", visibility="full")) == [
        ["floor", "floor", "wall"],
        ["floor", "lava", "goal"],
    ]


def test_a_hidden_cell_is_hatched_whatever_it_is():
    last = walk("S.L#G", "")
    assert cell_colours(last) == [["floor", "floor", "hidden", "hidden", "hidden"]]
    hidden = picture_of(last)[:, 2 * SCALE :]
    painted = {tuple(map(int, colour)) for colour in hidden.reshape(-1, 3)}
    assert painted == {PALETTE["hidden"], PALETTE["hatch"], PALETTE["line"]}
    np.testing.assert_array_equal(hidden[:, :SCALE], hidden[:, SCALE : 2 * SCALE])


def test_the_agent_is_a_disc_on_the_ground_it_stands_on():
    assert centre_colour(walk("S.", "")) == PALETTE["agent"]
    solved = walk("SG", "r")
    assert centre_colour(solved) == PALETTE["agent"]
    assert cell_colours(solved) == [["floor", "goal"]]


def test_the_fatal_frame_has_a_cross_on_the_lava():
    dead = walk("SL", "r")
    assert centre_colour(dead) == PALETTE["fatal"]
    assert cell_colours(dead) == [["floor", "lava"]]
    fatal = (picture_of(dead) == PALETTE["fatal"]).all(axis=-1)
    assert not fatal[:, :SCALE].any()
    for alive in (walk("SL", ""), walk("SG", "r"), walk("S.", "l", max_steps=1)):
        drawn = picture_of(alive)
        assert not (drawn == PALETTE["fatal"]).all(axis=-1).any()


def test_a_picture_has_scale_pixels_per_cell():
    last = walk("S..\n...", "")
    assert last.env.render(last.state, 4).shape == (8, 12, 3)
    with pytest.raises(ValueError, match="scale must be at least 4 pixels per cell, got 3"):
        last.env.render(last.state, 3)


# Settings and hand-written levels


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"visibility": "fog"}, "visibility must be one of reveal, full, got 'fog'"),
        ({"view": "top"}, "view must be one of allocentric, egocentric, got 'top'"),
        ({"radius": 0}, "radius must be at least 1, got 0"),
        ({"radius": 10**12}, "radius must be at most 1000000, got 1000000000000"),
        ({"radius": True}, "radius must be a whole number, got True"),
        ({"height": "5"}, "height must be a whole number, got '5'"),
        ({"max_steps": 2.5}, "max_steps must be a whole number, got 2.5"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"height": 0}, "height must be from 1 to 64, got 0"),
        ({"width": 65}, "width must be from 1 to 64, got 65"),
        ({"wall_density": -0.1}, "wall_density must be at least 0 and below 1, got -0.1"),
        ({"lava_density": 1.0}, "lava_density must be at least 0 and below 1, got 1.0"),
        (
            {"lava_density": 0.9},
            "wall_density and lava_density must leave 2 of the 25 cells for start and goal, "
            "got 3 walls and 22 lava cells",
        ),
        ({"max_steps": 2}, "max_steps must be at least min_distance (3), got 2"),
        ({"wall_density": "x"}, "wall_density must be at least 0 and below 1, got 'x'"),
        ({"min_distance": 25}, "min_distance must be from 1 to 24 on a 5x5 grid, got 25"),
    ],
)
def test_an_impossible_setting_is_one_line_that_says_what_is_allowed(
    settings: dict[str, Any], message: str
):
    with pytest.raises(ValueError) as error:
        LavaGrid(**settings)
    assert str(error.value) == message


def test_ascii_levels_are_read_back_as_they_were_written():
    text = "S.#\nL.G"
    assert to_ascii(from_ascii(text)) == text
    level = from_ascii(text)
    np.testing.assert_array_equal(level.cells, [[0, 0, 1], [2, 0, 3]])
    assert (tuple(level.start), tuple(level.goal)) == ((0, 0), (1, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a level needs at least one row, got none"),
        ("S.\n...", "rows must have one length, got lengths 2, 3"),
        ("S.x", "level symbols must be among . # L G S, got x"),
        ("...", "a level needs one S and at most one G, got 0 S and 0 G"),
        ("SGG", "a level needs one S and at most one G, got 1 S and 2 G"),
    ],
)
def test_a_wrong_drawing_of_a_level_is_refused(text: str, message: str):
    with pytest.raises(ValueError) as error:
        from_ascii(text)
    assert str(error.value) == message
