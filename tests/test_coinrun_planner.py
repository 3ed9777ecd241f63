"""The planner over CoinRun's physics: what it finds is replayed step by step."""

from pathlib import Path

import jax
import numpy as np
import pytest

from hotoven.envs.coinrun import verify
from hotoven.envs.coinrun.level import MODES, SAW, Blueprint, Thing, blueprint, generate, pack
from hotoven.envs.coinrun.physics import END_COIN, MAX_STEPS, State, reset, step
from hotoven.envs.coinrun.planner import EFFORTS, NOTHING, Effort, plan

pytestmark = pytest.mark.optimised

DATA = Path(__file__).parent / "data" / "coinrun"

both_modes = pytest.mark.parametrize("mode", MODES)


@jax.jit
@jax.vmap
def replay(state: State, actions: jax.Array) -> jax.Array:
    """uint8[T]: what ended the episode, after each of the actions."""

    def one(state: State, action: jax.Array) -> tuple[State, jax.Array]:
        state = step(state, action)
        return state, state.ends

    return jax.lax.scan(one, state, actions.astype(np.int32))[1]


def assert_each_way_ends_with_the_coin(
    states: State, actions: np.ndarray, num_steps: np.ndarray
) -> None:
    """At its last action and not before, and with nothing else at the same time."""
    assert (num_steps > 0).all()
    ends = np.asarray(replay(states, actions))
    steps = np.arange(ends.shape[1])
    assert (ends[steps < num_steps[:, None] - 1] == 0).all()
    assert (ends[np.arange(len(ends)), num_steps - 1] == END_COIN).all()


def starts(seeds: np.ndarray, mode: str) -> State:
    return jax.device_get(jax.vmap(reset)(generate(seeds, mode)[0]))


def some(states: State, chosen: np.ndarray | list[int]) -> State:
    return jax.tree.map(lambda leaf: leaf[chosen], states)


def start_of(*plans: Blueprint) -> State:
    return jax.device_get(jax.vmap(reset)(pack(list(plans))))


# Every coin can be reached


@both_modes
def test_the_coins_of_a_thousand_levels_are_reached_by_stored_ways(mode: str):
    # Levels without a way known would be listed here. There are none.
    without = {"easy": [], "hard": []}
    stored = verify.read(DATA / f"witnesses_{mode}.npz")
    num_steps = np.diff(stored["offset"])
    np.testing.assert_array_equal(stored["seed"], np.arange(1000))
    assert stored["seed"][num_steps == 0].tolist() == without[mode]
    actions = np.full((len(num_steps), num_steps.max()), NOTHING, np.int8)
    actions[np.arange(actions.shape[1]) < num_steps[:, None]] = stored["action"]
    known = num_steps > 0
    states = starts(stored["seed"][known], mode)
    assert_each_way_ends_with_the_coin(states, actions[known], num_steps[known])


@both_modes
def test_the_planner_finds_a_way_in_levels_it_was_not_tuned_on(mode: str):
    states = starts(np.arange(50_000, 50_032), mode)
    plans = plan(states, EFFORTS[:1])
    # One in a hundred hard levels takes more effort.
    assert plans.found.sum() >= 30
    found = np.flatnonzero(plans.found)
    assert_each_way_ends_with_the_coin(
        some(states, found), plans.actions[found], plans.num_steps[found]
    )


def test_a_coin_touched_together_with_a_monster_is_no_way():
    # Levels with a monster beside the coin: what comes first to it dies there.
    states = starts(np.array([152, 499, 599, 792, 898, 904]), "hard")
    plans = plan(states, EFFORTS[:1])
    assert not plans.found.all()
    for index in np.flatnonzero(plans.found):
        way = (plans.actions[[index]], plans.num_steps[[index]])
        assert_each_way_ends_with_the_coin(some(states, [index]), *way)


# From any state


def test_a_way_is_found_from_mid_air_and_from_the_middle_of_a_level():
    recording = verify.read(DATA / "short_hard.npz")
    states = some(verify.starts(recording, "hard"), np.arange(0, 4800, 50))
    assert (states.vy != 0).sum() > 40
    plans = plan(states, EFFORTS[:1])
    assert plans.found.mean() > 0.85
    found = np.flatnonzero(plans.found)
    assert_each_way_ends_with_the_coin(
        some(states, found), plans.actions[found], plans.num_steps[found]
    )


def test_a_way_does_not_depend_on_the_states_that_are_planned_with_it():
    states = starts(np.arange(40), "hard")
    together = plan(states, EFFORTS[:1])
    for index in (0, 17, 39):
        alone = plan(some(states, [index]), EFFORTS[:1])
        num_steps = alone.num_steps[0]
        assert num_steps == together.num_steps[index]
        np.testing.assert_array_equal(alone.actions[0], together.actions[index, :num_steps])


def test_no_states_give_no_plans():
    plans = plan(some(starts(np.arange(2), "easy"), []))
    assert (plans.found.shape, plans.num_steps.shape, plans.actions.shape) == ((0,), (0,), (0, 0))


def test_what_one_effort_does_not_find_is_left_to_the_next():
    states = starts(np.arange(32), "hard")
    narrow = Effort(1, 3, 1)
    first = plan(states, (narrow,))
    both = plan(states, (narrow, EFFORTS[0]))
    assert 0 < first.found.sum() < 32
    assert both.found.all()
    # And what was found is not looked for again.
    np.testing.assert_array_equal(both.num_steps[first.found], first.num_steps[first.found])


# Where there is no way


def test_a_coin_behind_a_wall_is_not_found():
    walled = blueprint(0, "easy")
    walled.grid[1:63, walled.coin[0] - 2] = 15
    plans = plan(start_of(walled, blueprint(0, "easy")), EFFORTS[:1])
    assert plans.found.tolist() == [False, True]
    assert plans.num_steps[0] == 0
    assert (plans.actions[0] == NOTHING).all()
    # The agent lives on: that no way was found is no proof.
    assert not plans.died_out[0]


def test_an_agent_that_dies_whatever_it_does_has_no_way_and_the_search_says_so():
    saws = [Thing(SAW, column, 1, 0.0, 0) for column in range(1, 5)]
    state = start_of(blueprint(0, "easy")._replace(things=saws, piles=[]))
    state = state._replace(y=np.float32([5]), vy=np.float32([-1]))
    plans = plan(state, EFFORTS[:1])
    assert (plans.found.tolist(), plans.died_out.tolist()) == ([False], [True])


def test_there_is_no_way_after_the_end():
    states = starts(np.arange(2), "easy")
    plans = plan(states._replace(ends=np.uint8([0, END_COIN])), EFFORTS[:1])
    assert plans.found.tolist() == [True, False]


def test_a_coin_too_far_for_the_time_left_is_not_found():
    states = starts(np.zeros(3, np.int64), "easy")
    needed = plan(states, EFFORTS[:1]).num_steps[0]
    late = states._replace(num_steps=np.int32([MAX_STEPS - needed - 1, MAX_STEPS - 5, 0]))
    assert plan(late, EFFORTS[:1]).found.tolist() == [True, False, True]
