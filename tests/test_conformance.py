"""What every environment must keep to, whatever its rules. A new one in ENVS is tested unasked."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotoven.envs import ENVS, make
from hotoven.types import CATASTROPHE, OUTCOMES, RUNNING, SOLVED, TIMEOUT, Env, PyTree, TimeStep

NUM_LEVELS = 64
AFTER_THE_END = 3  # steps played beyond max_steps

# Settings worth testing apart; short episodes, so that some time out and some do not.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "lavagrid": [
        {"max_steps": 12},
        {"max_steps": 12, "height": 3, "width": 7, "view": "egocentric", "radius": 2},
        {"max_steps": 1, "visibility": "full", "min_distance": 1},
        {"max_steps": 12, "visibility": "full", "view": "egocentric", "height": 6},
    ],
    "coinrun": [
        {"max_steps": 100},
        {"max_steps": 300, "obs": "symbolic"},
        {"max_steps": 200, "obs": "symbolic", "mode": "easy", "dangers": ("lava",)},
    ],
}
CASES = [(name, own) for name in ENVS for own in SETTINGS.get(name, [{"max_steps": 12}])]


class Played(NamedTuple):
    """Random actions on the first levels, to beyond every episode's end."""

    env: Env
    levels: PyTree  # [L, ...]
    actions: np.ndarray  # int32[L, T]
    start: TimeStep  # [L, ...]
    start_state: PyTree  # [L, ...]
    shown: TimeStep  # [L, T, ...]
    states: PyTree  # [L, T, ...]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def played(request: pytest.FixtureRequest) -> Played:
    name, own = request.param
    env = make(name, **own)
    levels, _ = env.generate(np.arange(NUM_LEVELS))
    num_steps = env.max_steps + AFTER_THE_END
    generator = np.random.default_rng(0)
    actions = generator.integers(env.num_actions, size=(NUM_LEVELS, num_steps), dtype=np.int32)

    @jax.jit
    @jax.vmap
    def play(level: PyTree, path: jax.Array) -> Any:
        state, start = env.reset(level)

        def step(state: PyTree, action: jax.Array) -> tuple[PyTree, Any]:
            state, shown = env.step(state, action)
            return state, (state, shown)

        _, (states, shown) = jax.lax.scan(step, state, path)
        return start, state, shown, states

    start, start_state, shown, states = jax.device_get(play(levels, actions))
    return Played(env, levels, actions, start, start_state, shown, states)


def one(tree: PyTree, *index: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def assert_same(left: PyTree, right: PyTree) -> None:
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_a_step_shows_what_the_environment_says_it_shows(played: Played):
    env = played.env
    state, start = jax.eval_shape(env.reset, one(played.levels, 0))
    _, after = jax.eval_shape(env.step, state, np.int32(0))
    for shown in (start, after):
        assert shown.obs.shape == env.obs_shape
        assert shown.obs.dtype in (jnp.uint8, jnp.float32)
        assert (shown.reward.shape, shown.reward.dtype) == ((), jnp.float32)
        assert (shown.outcome.shape, shown.outcome.dtype) == ((), jnp.int8)
        assert (shown.cause.shape, shown.cause.dtype) == ((), jnp.int8)


def test_shapes_of_the_state_never_change(played: Played):
    before, _ = jax.eval_shape(played.env.reset, one(played.levels, 0))
    after, _ = jax.eval_shape(played.env.step, before, np.int32(0))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert jax.tree.leaves(before), "a state holds arrays"
    for left, right in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (left.shape, left.dtype) == (right.shape, right.dtype)


@pytest.mark.optimised
def test_one_level_alone_is_played_as_in_a_compiled_batch(played: Played):
    for i in range(2):
        state, shown = played.env.reset(one(played.levels, i))
        assert_same((state, shown), one((played.start_state, played.start), i))
        for t in range(min(6, played.actions.shape[1])):
            state, shown = played.env.step(state, played.actions[i, t])
            assert_same((state, shown), one((played.states, played.shown), i, t))


def test_an_observation_is_that_of_the_state_it_comes_with(played: Played):
    states, shown = one(played.states, 0), one(played.shown, 0)
    assert_same(jax.jit(jax.vmap(played.env.observe))(states), shown.obs)
    assert shown.obs.min() >= 0 and shown.obs.max() <= played.env.obs_high
    wholes = shown.obs[..., shown.obs.shape[-1] - played.env.num_wholes :]
    cells = tuple(range(1, wholes.ndim - 1))
    assert (wholes == wholes.max(axis=cells, keepdims=True)).all()


def test_an_episode_starts_running(played: Played):
    assert (played.start.outcome == RUNNING).all()
    assert (played.start.cause == 0).all()
    assert (played.start.reward == 0.0).all()


def test_every_outcome_is_a_known_one_and_is_kept_after_the_end(played: Played):
    outcome = played.shown.outcome
    assert set(np.unique(outcome)) <= set(range(len(OUTCOMES)))
    ended = outcome[:, :-1] != RUNNING
    assert ended.any()
    assert (outcome[:, 1:] == outcome[:, :-1])[ended].all()
    assert (played.shown.cause[:, 1:] == played.shown.cause[:, :-1])[ended].all()


def test_nothing_changes_after_the_end(played: Played):
    # A reset inside the environment would put another state here.
    ended = played.shown.outcome[:, :-1] != RUNNING
    for leaf in jax.tree.leaves((played.states, played.shown.obs)):
        np.testing.assert_array_equal(leaf[:, 1:][ended], leaf[:, :-1][ended])
    assert (played.shown.reward[:, 1:][ended] == 0.0).all()


def test_a_timeout_comes_at_exactly_max_steps(played: Played):
    outcome = played.shown.outcome
    assert (outcome[:, played.env.max_steps - 1 :] != RUNNING).all()
    assert (outcome[:, played.env.max_steps - 1] == TIMEOUT).any()
    assert not (outcome[:, : played.env.max_steps - 1] == TIMEOUT).any()


def test_a_cause_belongs_to_one_outcome(played: Played):
    outcome, cause = played.shown.outcome, played.shown.cause
    assert played.env.causes[0] == ""
    assert len(set(played.env.causes)) == len(played.env.causes)
    assert cause.min() >= 0
    assert cause.max() < len(played.env.causes)
    np.testing.assert_array_equal(cause == 0, outcome == RUNNING)
    for index in np.unique(cause):
        assert len(np.unique(outcome[cause == index])) == 1


def test_the_random_play_of_these_tests_meets_more_than_timeouts(played: Played):
    assert {SOLVED, CATASTROPHE} & set(np.unique(played.shown.outcome))


def test_dtypes_are_promoted_nowhere_by_accident(played: Played):
    env, level = played.env, one(played.levels, 0)
    with jax.numpy_dtype_promotion("strict"):
        state, _ = jax.eval_shape(env.reset, level)
        jax.eval_shape(env.step, state, jax.ShapeDtypeStruct((), jnp.int32))
        jax.eval_shape(partial(env.render, scale=8), state)


def test_a_picture_is_rgb_bytes_and_the_same_compiled(played: Played):
    state = one(played.states, 0, 0)
    picture = played.env.render(state, 8)
    assert picture.dtype == jnp.uint8
    assert picture.ndim == 3
    assert picture.shape[-1] == 3
    assert len(np.unique(np.asarray(picture))) > 1
    assert_same(picture, jax.jit(partial(played.env.render, scale=8))(state))


def test_an_id_means_the_same_level_in_any_company(played: Played):
    alone, facts = played.env.generate(np.array([5]))
    company, more = played.env.generate(np.array([9, 5, 0, 5]))
    for index in (1, 3):
        assert_same(one(alone, 0), one(company, index))
        assert_same(one(facts, 0), one(more, index))


def test_facts_and_levels_have_one_row_per_id(played: Played):
    for ids in (np.arange(3), np.zeros(0, np.int64)):
        levels, facts = played.env.generate(ids)
        for leaf in (*jax.tree.leaves(levels), *facts.values()):
            assert isinstance(leaf, np.ndarray)
            assert len(leaf) == len(ids)


def test_equal_settings_are_one_key_of_a_cache(played: Played):
    again = type(played.env)(**vars(played.env))
    assert again == played.env
    assert hash(again) == hash(played.env)


def test_every_action_has_a_name(played: Played):
    assert len(played.env.action_names) == played.env.num_actions
    assert len(set(played.env.action_names)) == played.env.num_actions


@pytest.mark.parametrize("name", ENVS)
def test_an_unknown_setting_is_refused_by_name(name: str):
    with pytest.raises(ValueError, match=rf"settings of {name} must be among .*, got hight"):
        make(name, hight=3)


def test_an_unknown_environment_is_refused_by_name():
    with pytest.raises(ValueError, match=r"env must be one of .*lavagrid.*, got 'ovengrid'"):
        make("ovengrid")
