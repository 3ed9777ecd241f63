"""A person's game: keys become actions, and what comes of them is told in words."""

import jax
import numpy as np
import pytest

from coinruns import walk
from hotoven.envs.coinrun import physics
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.lavagrid import PALETTE, LavaGrid
from hotoven.play import MAX_ID, Game, coinrun_action, lavagrid_action
from hotoven.types import OUTCOMES
from watching import ANOTHER, SOMEBODY, TO_THE_GOAL, press, steps


def message(game: Game) -> str:
    return game.show()[0]["message"]


def same(first: object, second: object) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


@pytest.fixture
def lavagrid() -> Game:
    return Game(LavaGrid(), 0, 8)


@pytest.fixture
def coinrun() -> Game:
    return Game(CoinRun(mode="hard"), 7, 8)


# Keys


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ("", "stay"),
        ("left", "left"),
        ("right", "right"),
        ("up", "up"),
        ("jump", "up"),
        ("down", "down"),
        ("left up", "left up"),
        ("right jump", "right up"),
        ("left down", "left down"),
        ("right down", "right down"),
        ("up jump", "up"),
        ("left right", "stay"),
        ("up down", "stay"),
        ("left right up", "up"),
    ],
)
def test_keys_of_coinrun_combine_to_its_nine_actions(keys, name):
    assert CoinRun.action_names[coinrun_action(set(keys.split()))] == name


def test_keys_of_lavagrid_are_its_four_actions_and_jump_is_none():
    for number, name in enumerate(LavaGrid.action_names):
        assert lavagrid_action({name}) == number
    assert lavagrid_action({"jump"}) is None
    assert lavagrid_action(set()) is None


def test_keys_that_were_held_before_go_on_in_time_and_make_no_other_step(lavagrid, coinrun):
    for game in (lavagrid, coinrun):
        game.hear(ANOTHER, {"held": ["right"]})
        steps(game, 2)
    assert lavagrid.actions == [] and coinrun.actions == [7, 7]
    lavagrid.hear(ANOTHER, {"keys": ["right", "left"]})  # of which one is new
    assert lavagrid.actions == [3]
    with pytest.raises(ValueError, match="keys must be among left, right"):
        lavagrid.hear(ANOTHER, {"held": ["x"]})


# CoinRun: time passes


def test_right_held_for_some_steps_is_right_played_directly(coinrun):
    coinrun.hear(SOMEBODY, {"keys": ["right"]})
    steps(coinrun, 9)
    coinrun.hear(SOMEBODY, {"keys": ["right", "jump"]})
    steps(coinrun, 2)
    coinrun.hear(SOMEBODY, {"keys": []})
    steps(coinrun, 3)
    levels, _ = coinrun.env.generate(np.array([7]))
    level = jax.tree.map(lambda leaf: leaf[0], levels)
    expected = [7] * 9 + [8] * 2 + [4] * 3
    assert coinrun.actions == expected
    assert same(coinrun.state, walk(physics.reset(level), *expected))
    assert float(coinrun.state.x) > 2  # it did run


def test_time_begins_with_the_first_key_and_anew_after_a_pause(coinrun):
    steps(coinrun, 3)
    assert coinrun.actions == []
    coinrun.hear(SOMEBODY, {"keys": ["left"]})
    steps(coinrun, 3)
    assert coinrun.actions == [1] * 3
    coinrun.let_go(SOMEBODY)
    coinrun.pause()
    steps(coinrun, 3)
    assert coinrun.actions == [1] * 3
    press(coinrun, "up")
    steps(coinrun, 2)
    assert coinrun.actions == [1, 1, 1, 5, 4]


def test_a_key_that_is_let_go_before_the_next_step_counts_for_one(coinrun):
    press(coinrun, "right", "jump")
    steps(coinrun, 3)
    assert coinrun.actions == [8, 4, 4]


def test_a_key_is_down_while_any_viewer_holds_it(coinrun):
    coinrun.hear(SOMEBODY, {"keys": ["right"]})
    coinrun.hear(ANOTHER, {"keys": ["right", "up"]})
    steps(coinrun, 1)
    coinrun.let_go(ANOTHER)
    steps(coinrun, 1)
    coinrun.let_go(SOMEBODY)
    steps(coinrun, 1)
    assert coinrun.actions == [8, 7, 4]


def test_a_key_held_over_a_restart_goes_on(coinrun):
    coinrun.hear(SOMEBODY, {"keys": ["right"]})
    steps(coinrun, 3)
    coinrun.hear(SOMEBODY, {"do": "restart"})
    steps(coinrun, 2)
    assert coinrun.actions == [7, 7]


def test_a_time_out_is_told_and_ends_the_game():
    game = Game(CoinRun(mode="hard", max_steps=2), 7, 8)
    game.hear(SOMEBODY, {"keys": ["left"]})
    steps(game, 5)
    assert len(game.actions) == 2
    assert game._message().startswith("Out of time, after 2 steps.")


# LavaGrid: nothing moves unless a key is pressed


def test_lavagrid_moves_one_cell_for_each_key_pressed(lavagrid):
    lavagrid.hear(SOMEBODY, {"keys": ["left"]})
    for _ in range(3):  # a key that stays down, and a clock that goes on
        lavagrid.hear(SOMEBODY, {"keys": ["left"]})
        steps(lavagrid, 1)
    assert lavagrid.state.position.tolist() == [3, 3]
    lavagrid.hear(SOMEBODY, {"keys": ["left", "up"]})  # against a wall
    assert lavagrid.state.position.tolist() == [3, 3]
    assert lavagrid.actions == [3, 0]


def test_a_viewer_moves_though_another_holds_the_same_key(lavagrid):
    lavagrid.hear(SOMEBODY, {"keys": ["left"]})
    press(lavagrid, "left", viewer=ANOTHER)
    assert lavagrid.actions == [3, 3]


def test_the_goal_and_lava_end_the_game_in_plain_words(lavagrid):
    assert message(lavagrid) == "Press an arrow key to move."
    press(lavagrid, *TO_THE_GOAL)
    again = "Press R to play it again, N for the next level."
    assert message(lavagrid) == f"Solved: goal, after 5 steps. {again}"
    lavagrid.hear(SOMEBODY, {"do": "restart"})
    press(lavagrid, "down")
    assert message(lavagrid) == f"Died: lava, after 1 step. {again}"
    assert lavagrid.show()[0]["outcome"] == OUTCOMES[2]


def test_the_fatal_frame_stays_until_the_level_begins_again(lavagrid):
    press(lavagrid, "down")
    status, fatal = lavagrid.show()
    assert (fatal[-8:, -8:] == PALETTE["fatal"]).all(axis=2).any()
    press(lavagrid, "left", "up")
    lavagrid.pause()
    assert lavagrid.show()[0] == status
    np.testing.assert_array_equal(lavagrid.show()[1], fatal)
    lavagrid.hear(SOMEBODY, {"do": "restart"})
    assert not (lavagrid.show()[1] == PALETTE["fatal"]).all(axis=2).any()


# Levels


def test_restart_next_and_previous_begin_the_level_they_say(lavagrid):
    first = lavagrid.state
    press(lavagrid, "left")
    lavagrid.hear(SOMEBODY, {"do": "restart"})
    assert same(lavagrid.state, first)
    assert lavagrid.actions == []
    lavagrid.hear(SOMEBODY, {"do": "next"})
    assert same(lavagrid.state, Game(LavaGrid(), 1, 8).state)
    assert lavagrid.show()[0]["level"] == "level 1"
    lavagrid.hear(SOMEBODY, {"do": "previous"})
    assert same(lavagrid.state, first)


def test_before_the_first_level_and_after_the_last_there_is_none(lavagrid):
    lavagrid.hear(SOMEBODY, {"do": "previous"})
    assert lavagrid.level_id == 0
    last = Game(LavaGrid(), MAX_ID, 8)
    last.hear(SOMEBODY, {"do": "next"})
    assert last.level_id == MAX_ID


def test_a_level_that_cannot_be_made_is_told_and_the_game_goes_on(lavagrid, monkeypatch):
    def generate(self: LavaGrid, ids: np.ndarray) -> None:
        raise ValueError("no solvable map was found")

    monkeypatch.setattr(LavaGrid, "generate", generate)
    lavagrid.hear(SOMEBODY, {"do": "next"})
    assert message(lavagrid) == "There is no level 1: no solvable map was found"
    press(lavagrid, "left")
    assert (lavagrid.level_id, lavagrid.actions, message(lavagrid)) == (0, [3], "")


def test_a_level_that_procgen_knows_by_another_seed_says_so():
    game = Game(CoinRun(), 2**48, 8)
    seed = int(game.env.generate(np.array([2**48]))[1]["seed"][0])
    assert f"level {2**48}{game._seed}" == f"level {2**48} (seed {seed})"
    assert same(game.state, Game(CoinRun(), seed, 8).state)


# What is refused


@pytest.mark.parametrize(
    "nonsense",
    [
        {},
        {"jump": True},
        {"do": "win"},
        {"do": ["next"]},
        {"do": None},
        {"keys": "left"},
        {"keys": ["left", "fly"]},
        {"keys": [["left"]]},
        {"keys": {"left": 1}},
        {"keys": [], "do": "next"},
    ],
)
def test_a_message_that_makes_no_sense_is_an_error_and_changes_nothing(lavagrid, nonsense):
    before = lavagrid.state
    with pytest.raises(ValueError, match="must"):
        lavagrid.hear(SOMEBODY, nonsense)
    assert lavagrid.state is before


@pytest.mark.parametrize(
    ("level_id", "scale", "said"),
    [
        (-1, None, f"level seed must be from 0 to {MAX_ID}, got -1"),
        (MAX_ID + 1, None, "level seed must be from 0"),
        (0, 3, "scale must be from 4 to 819 pixels per cell, got 3"),
        (0, 820, "scale must be from 4 to 819 pixels per cell, got 820"),
    ],
)
def test_a_level_or_scale_out_of_range_is_an_error(level_id, scale, said):
    with pytest.raises(ValueError, match=said):
        Game(LavaGrid(), level_id, scale)


@pytest.mark.parametrize(
    ("env", "scale"),
    [(LavaGrid(), 144), (LavaGrid(height=2, width=64), 13), (CoinRun(), 64)],
    ids=["small", "wide", "coinrun"],
)
def test_without_a_scale_the_picture_fills_a_page_and_no_more(env, scale):
    assert Game(env).scale == scale
