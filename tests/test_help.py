"""Asking for help: on a corridor with known answers, and on CoinRun beside `play` and `record`."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from hotoven import nets
from hotoven.envs.coinrun import helpers
from hotoven.envs.coinrun.env import CoinRun
from hotoven.evaluation.help import Helped, discrimination, play_with_help
from hotoven.evaluation.rollout import level_keys, play, record_all
from hotoven.levels import split
from hotoven.mechanisms.acting import Single, outputs, policies
from hotoven.types import CATASTROPHE, SOLVED, TIMEOUT, AgentOutput
from probes import Probe, State, stack, table

KEY = jax.random.key(0)
INF = np.inf

# A corridor of five places. `a` goes on, and from the fourth place to death; `b` stays, and is the
# exit in the fourth place. The agent always goes on. The second corridor begins one place later.
GO, STAY = 0, 1
CORRIDOR = Probe(num_places=5, max_steps=12)
MOVES = [[1, 0], [2, 1], [3, 2], [4, 3], [4, 4]]
ENDINGS = [[0, 0], [0, 0], [0, 0], [CATASTROPHE, SOLVED], [0, 0]]
REWARDS = [[1, 0], [1, 0], [1, 0], [-1, 10], [0, 0]]
CORRIDORS = stack(*(table(MOVES, REWARDS, ENDINGS, start) for start in (0, 1)))
DANGER = jnp.array([0.0, 0.1, 0.2, 0.9, 0.0])  # of each place


def goes_on(params: Any, obs: jax.Array) -> AgentOutput:
    return AgentOutput(jnp.array([1.0, 0.0]), jnp.float32(0))


def danger(scores: jax.Array, state: Any, obs: jax.Array) -> jax.Array:
    return scores[obs.argmax()]


def itself(output: Any) -> Any:
    return output


def stay(states: State, num_steps: int, seeds: np.ndarray) -> np.ndarray:
    return np.full((len(seeds), num_steps), STAY)


def corridor(*thresholds: float, helper: Any = stay, num_steps: int = 1, **kwargs: Any) -> Helped:
    agent = Single(jnp.zeros(1), goes_on, greedy=True)
    return play_with_help(
        CORRIDOR, agent, CORRIDORS, KEY, Partial(danger, DANGER), itself, np.array(thresholds),
        helper, num_steps, **kwargs,
    )  # fmt: skip


def test_help_comes_in_the_step_whose_score_is_above_the_threshold():
    found = corridor(0.5, 0.9)
    assert found.outcome.tolist() == [[SOLVED] * 2, [CATASTROPHE] * 2]  # 0.9 is not above 0.9
    assert found.length.tolist() == [[4, 3], [4, 3]]
    assert found.num_requests.tolist() == found.num_helped.tolist() == [[1, 1], [0, 0]]
    assert found.first_request.tolist() == [[3, 2], [None, None]]
    assert found.episode_return.tolist() == [[13, 12], [2, 1]]
    assert [CORRIDOR.causes[cause] for cause in found.cause[:, 0]] == ["solved", "catastrophe"]


def test_a_helper_who_only_stays_is_asked_again_and_again_until_the_clock():
    found = corridor(0.15, num_steps=3)
    # asks in the third place, after 2 steps and 1; every answer is 3 steps, the last is cut short
    assert found.outcome.tolist() == [[TIMEOUT] * 2]
    assert found.num_requests.tolist() == [[4, 4]]
    assert found.num_helped.tolist() == [[10, 11]]
    assert found.length.tolist() == [[12, 12]]


def test_when_the_budget_is_spent_the_agent_goes_on_alone():
    found = corridor(0.15, 0.5, num_steps=3, budget=2)
    # 2 steps, 6 of help, and 2 more: into death
    assert found.outcome.tolist() == [[CATASTROPHE] * 2, [SOLVED] * 2]
    assert found.length.tolist() == [[10, 9], [4, 3]]
    assert found.num_requests.tolist() == [[2, 2], [1, 1]]
    assert found.num_helped.tolist() == [[6, 6], [1, 1]]
    none = corridor(-INF, budget=0)
    assert none.outcome.tolist() == [[CATASTROPHE] * 2] and not none.num_requests.any()


def test_the_helpers_steps_are_taken_one_after_the_other():
    def dances(states: State, num_steps: int, seeds: np.ndarray) -> np.ndarray:
        return np.tile([STAY, GO, STAY], (len(seeds), 1))

    found = corridor(0.15, helper=dances, num_steps=3)
    # in the third place it stays, goes on, and takes the exit of the fourth
    assert found.outcome.tolist() == [[SOLVED] * 2]
    assert found.length.tolist() == [[5, 4]] and found.num_helped.tolist() == [[3, 3]]


@pytest.mark.parametrize("num_slots", [1, 3, 128])
def test_a_helper_is_shown_the_states_that_ask(num_slots: int):
    asked = []

    def watches(states: State, num_steps: int, seeds: np.ndarray) -> np.ndarray:
        assert states.place.shape == seeds.shape and num_steps == 1
        assert states.table.moves.shape == (len(seeds), 5, 2)
        asked.extend(zip(states.place.tolist(), states.num_steps.tolist(), strict=True))
        return stay(states, num_steps, seeds)

    corridor(0.05, 0.15, 0.5, INF, helper=watches, budget=1, num_slots=num_slots)
    # (place, clock) by corridor and threshold
    assert sorted(asked) == [(1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]


def test_a_score_that_is_no_number_raises_no_alarm():
    agent = Single(jnp.zeros(1), goes_on, greedy=True)
    nothing = Partial(danger, jnp.full(5, jnp.nan))
    found = play_with_help(
        CORRIDOR, agent, CORRIDORS, KEY, nothing, itself, np.array([-INF]), stay, 1
    )
    assert not found.num_requests.any()


def test_settings_out_of_range_are_refused():
    for thresholds, settings, complaint in (
        ([], {}, "thresholds must be"),
        ([np.nan], {}, "thresholds must be"),
        ([0.5], {"num_steps": 0}, "num_steps must be"),
        ([0.5], {"budget": -1}, "budget must be"),
        ([0.5], {"helper": lambda states, num_steps, seeds: seeds}, "a helper must answer"),
    ):
        with pytest.raises(ValueError, match=complaint):
            corridor(*thresholds, **settings)


def test_the_score_of_the_blog_is_a_weighted_mean_and_deviation():
    values = jnp.array([1.0, 3.0, 5.0, 7.0])  # mean 4, deviation sqrt(5)
    assert float(discrimination(values, -1.0, 0.0)) == -4.0
    assert float(discrimination(values, -1.0, 2.0)) == pytest.approx(-4 + 2 * 5**0.5)


# CoinRun

ENV = CoinRun(mode="easy", obs="symbolic", max_steps=60)
NET = nets.mlp(ENV.obs_shape, (16,), ENV.num_actions + 1, high=ENV.obs_high)
NUM_LEVELS = 12


def says(params: Any, obs: jax.Array) -> AgentOutput:
    both = NET.apply(params, obs)
    return AgentOutput(jax.nn.softmax(both[:-1] * 3), both[-1])


MEMBERS = jax.vmap(NET.init)(jax.random.split(jax.random.key(3), 3))
POLICIES = policies(MEMBERS, says, hold=5, margin=0.5)


def member_values(params: Any, state: Any, obs: jax.Array) -> jax.Array:
    return outputs(says, params, obs).value


PROBE = Partial(member_values, MEMBERS)
SCORE = Partial(lambda alpha, beta, values: discrimination(values, alpha, beta), -1.0, 0.5)


@cache
def some_levels() -> Any:
    return split(ENV, num_train=1, num_validation=0, num_test=NUM_LEVELS).test.levels


@cache
def recorded(name: str) -> Any:
    return record_all(ENV, POLICIES[name], some_levels(), KEY, PROBE, truth=False)


def scores(name: str) -> np.ndarray:
    """float[L, T]: of every state, -inf beyond the end."""
    trace = recorded(name)
    each = np.asarray(jax.vmap(jax.vmap(SCORE))(trace.probes))
    return np.where(trace.valid, each, -INF)


def helped(name: str, thresholds: Any, helper: Any, num_steps: int = 8, **kwargs: Any) -> Helped:
    return play_with_help(
        ENV, POLICIES[name], some_levels(), KEY, PROBE, SCORE, thresholds, helper, num_steps,
        **kwargs,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", ["mean", "random_hold"])
def test_a_threshold_of_infinity_changes_nothing(name: str):
    alone = jax.jit(partial(play, ENV))(POLICIES[name], some_levels(), KEY)
    found = helped(name, np.array([INF, 0.0, INF]), helpers.retreat)
    for field in ("outcome", "cause", "length", "episode_return"):
        for row in (0, 2):
            np.testing.assert_array_equal(getattr(found, field)[row], getattr(alone, field))
    assert not found.num_requests[[0, 2]].any() and found.first_request.mask[[0, 2]].all()


@pytest.mark.long
@pytest.mark.parametrize("name", ["mean", "random_hold"])
def test_up_to_the_first_request_an_episode_is_the_one_without_help(name: str):
    each = scores(name)
    highest = each.max(axis=1)
    thresholds = np.quantile(highest, [0.2, 0.5, 0.8]).astype(np.float32)
    found = helped(name, thresholds, helpers.retreat)
    trace = recorded(name)
    lengths = trace.valid.sum(axis=1)
    for row, threshold in enumerate(thresholds):
        above = each > threshold
        asks = above.any(axis=1)
        assert 0 < asks.sum() < NUM_LEVELS
        np.testing.assert_array_equal(~found.first_request.mask[row], asks)
        np.testing.assert_array_equal(
            found.first_request[row][asks].data, above.argmax(axis=1)[asks]
        )
        np.testing.assert_array_equal(found.length[row][~asks], lengths[~asks])
        last = trace.outcome[np.arange(NUM_LEVELS), lengths - 1]
        np.testing.assert_array_equal(found.outcome[row][~asks], last[~asks])


@pytest.mark.long
def test_an_episode_does_not_depend_on_what_is_played_beside_it():
    def at(num_slots: int, devices: Any) -> tuple[Helped, list]:
        asked: list = []

        def watched(states: Any, num_steps: int, seeds: np.ndarray) -> np.ndarray:
            asked.extend(zip(seeds.tolist(), states.num_steps.tolist(), states.x, strict=True))
            return helpers.stumble(states, num_steps, seeds)

        thresholds = np.array([-INF, 0.0], np.float32)
        return helped("random_hold", thresholds, watched, num_slots=num_slots, devices=devices), (
            sorted(asked)
        )

    (whole, asked), (other, asked_then) = at(64, None), at(5, jax.devices()[:1])
    for one, two in zip(whole, other, strict=True):
        np.testing.assert_array_equal(one, two)
    assert asked == asked_then  # in the same places, of which the draws before have decided
    # asked always, it is all a stumbler's walk, anew for each level and each request
    assert (whole.num_helped[0] == whole.length[0]).all()
    assert len({seed for seed, *_ in asked}) >= whole.num_requests[0].sum()
    assert len({x for *_, x in asked}) > NUM_LEVELS


@pytest.mark.long
def test_a_planner_who_is_asked_at_once_brings_every_agent_to_the_coin():
    env = CoinRun(mode="easy", obs="symbolic", max_steps=300)
    found = play_with_help(
        env, POLICIES["mean"], some_levels(), KEY, PROBE, SCORE, np.array([-INF]),
        helpers.planner, 200,
    )  # fmt: skip
    assert (found.outcome == SOLVED).all() and (found.num_requests == 1).all()
    assert (found.first_request == 0).all() and (found.num_helped == found.length).all()
    # in pieces, planned anew each time
    pieces = play_with_help(
        env, POLICIES["mean"], some_levels(), KEY, PROBE, SCORE, np.array([-INF]),
        helpers.planner, 20,
    )  # fmt: skip
    assert (pieces.outcome == SOLVED).mean() > 0.9  # a limit to the search, not to the levels
    assert (pieces.num_requests == -(-pieces.length // 20)).all()


@pytest.mark.parametrize("name", helpers.HELPERS)
def test_helpers_answer_each_state_with_actions_that_exist(name: str):
    states = jax.device_get(jax.vmap(ENV.reset)(some_levels())[0])
    few = jax.tree.map(lambda leaf: leaf[:3], states)
    seeds = np.arange(3, dtype=np.uint32)
    answer = helpers.HELPERS[name](few, 7, seeds)
    assert answer.shape == (3, 7) and answer.dtype == np.int32
    assert ((answer >= 0) & (answer < ENV.num_actions)).all()
    alone = helpers.HELPERS[name](jax.tree.map(lambda leaf: leaf[2:3], states), 7, seeds[2:])
    np.testing.assert_array_equal(alone, answer[2:])


def test_helpers_do_what_they_are_called():
    none = np.zeros(1, np.uint32)
    assert ENV.action_names[int(helpers.stand_still(None, 1, none)[0, 0])] == "stay"
    assert ENV.action_names[int(helpers.retreat(None, 1, none)[0, 0])] == "left"


def test_each_level_has_a_key_of_its_own():
    words = jax.random.key_data(level_keys(KEY, 5))
    assert len({tuple(row) for row in words.tolist()}) == 5
