"""PPO finds what the probes ask for, and keeps its promises about experience."""

import sys
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hotoven
from hotoven import nets
from hotoven.envs.coinrun.env import CoinRun
from hotoven.learners import ppo
from hotoven.learners.ppo import (
    Batch,
    PPOConfig,
    RewardScale,
    Steps,
    _fall,
    _kernels,
    _loss_and_grads,
    _observe_rewards,
    make_net,
    make_optimizer,
    make_ppo,
    output,
    rows_at_once,
)
from hotoven.types import RUNNING, SOLVED, TIMEOUT
from probes import (
    PROBES,
    Probe,
    better_next_action,
    cut_by_the_clock,
    right_and_wrong,
    stack,
    table,
)

GAMMA = 0.5
CONFIG = PPOConfig(
    net="mlp",
    hidden=(16,),
    learning_rate=1e-2,
    gamma=GAMMA,
    entropy_weight=0.0,
    normalise_rewards=False,
    num_envs=32,
    num_steps=2,
    num_minibatches=2,
    num_epochs=4,
    num_iterations=150,
)
ONE = jnp.int32(1)


@cache
def learned(value_clip: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [P, S, A] and values [P, S] on each probe, all learned in one program."""
    env = Probe()
    config = replace(CONFIG, value_clip=value_clip)
    learner = make_ppo(config, env)
    levels = stack(*(stack(probe(GAMMA)[0]) for probe in PROBES))  # [P, 1, ...]
    keys = jax.random.split(jax.random.key(0), len(PROBES))

    @jax.jit
    @jax.vmap
    def outputs(levels: Any, key: jax.Array) -> Any:
        def body(state: Any, t: jax.Array) -> tuple[Any, Any]:
            return learner.iterate(state, t, levels, ONE)

        steps = jnp.arange(config.num_iterations)
        state, _ = jax.lax.scan(body, learner.init(levels, ONE, key), steps)
        return output(learner.net, state.params, jnp.eye(env.num_places))

    return tuple(map(np.asarray, outputs(levels, keys)))


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
@pytest.mark.parametrize("value_clip", [None, 0.5])
def test_the_value_of_the_start_is_that_of_the_best_way(value_clip, probe):
    _, value = learned(value_clip)
    expected = max(worth for (place, _), worth in probe(GAMMA)[1].items() if place == 0)
    assert value[PROBES.index(probe), 0] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(("probe", "place"), [(right_and_wrong, 0), (better_next_action, 1)])
def test_the_better_action_becomes_likely(probe, place):
    probability, _ = learned(None)
    assert probability[PROBES.index(probe), place, 1] > 0.95


def test_a_time_out_is_worth_what_would_have_followed_it_not_the_next_start():
    # Place 0 leads to place 1 for nothing, place 1 pays 1 and stays; the clock cuts after 2 steps.
    # So 1 is worth 1 / (1 - 1/2) = 2 and 0 half of that. With the next start's worth, v(1) would
    # be 1 + v(0) / 2 and v(0) = v(1) / 2: 4/3 and 2/3.
    learner = make_ppo(replace(CONFIG, num_iterations=200), Probe())
    rules = table([[1, 1], [1, 1]], [[0, 0], [1, 1]], [[RUNNING] * 2] * 2)
    state = jax.jit(learner.init)(stack(rules), ONE, jax.random.key(3))
    state, _ = jax.jit(
        lambda state: jax.lax.scan(
            lambda state, t: learner.iterate(state, t, stack(rules), ONE), state, jnp.arange(200)
        )
    )(state)
    value = output(learner.net, state.params, jnp.eye(2)).value
    np.testing.assert_allclose(value, [1.0, 2.0], atol=0.15)


def loss_of_one_update(value: float, **settings: Any) -> float:
    """The loss of one update on a rollout of one episode in each environment.

    It leads from place 0 to place 1 for a reward of 6 and ends there with 4. The network says
    `value` of both. As nothing has been learned yet and entropy is worth nothing, the loss is half
    the mean square of the two advantages.
    """
    once = {"num_minibatches": 1, "num_epochs": 1, "value_weight": 1.0}
    learner = make_ppo(replace(CONFIG, **once, **settings), Probe())
    levels = stack(table([[1, 1], [1, 1]], [[6, 6], [4, 4]], [[RUNNING] * 2, [SOLVED] * 2]))
    state = learner.init(levels, ONE, jax.random.key(0))
    state.params[-1]["b"] = jnp.array([0.0, 0.0, value])
    _, progress = jax.jit(learner.iterate)(state, jnp.int32(0), levels, ONE)
    return float(progress.loss)


def test_advantages_reach_back_by_lambda():
    # One step ahead they are 4 - 2 = 2 and 6 + 2 / 2 - 2 = 5; the first one also gets
    # gamma * lambda = 0.4 of the second.
    found = loss_of_one_update(2.0, gae_lambda=0.8)
    assert found == pytest.approx((5.8**2 + 2.0**2) / 4, rel=1e-5)


def test_normalised_rewards_are_divided_by_the_deviation_of_returns_and_clipped():
    # Discounted returns are 6 and 6 / 2 + 4 = 7, their deviation is 0.5. So the rewards become 12,
    # clipped to 10, and 8; the first step also gets gamma * lambda = 1/4 of 8.
    found = loss_of_one_update(0.0, gae_lambda=0.5, normalise_rewards=True)
    assert found == pytest.approx((12.0**2 + 8.0**2) / 4, rel=1e-4)


def test_the_learning_rate_falls_in_a_line_to_the_share_that_is_left():
    falling = replace(CONFIG, learning_rate=0.01, learning_rate_end=0.2, num_iterations=5)
    num_updates = 5 * 4 * 2  # iterations, epochs, minibatches
    optimizer = make_optimizer(falling)
    same = {"w": jnp.array(0.25)}  # of a gradient that stays the same Adam makes the sign

    def change(state: Any, _: None) -> tuple[Any, jax.Array]:
        changes, state = optimizer.update(same, state)
        return state, -changes["w"]

    _, sizes = jax.lax.scan(change, optimizer.init(same), length=num_updates + 1)
    expected = 0.01 * np.linspace(1.0, 0.2, num_updates + 1)
    np.testing.assert_allclose(sizes, expected, rtol=1e-3)


def test_gradients_are_cut_to_the_length_allowed():
    optimizer = make_optimizer(replace(CONFIG, max_grad_norm=0.5))
    long, short = ({"w": scale * jnp.array([3.0, 4.0])} for scale in (1.0, 0.1))

    def second_change(first: dict, second: dict) -> jax.Array:
        _, state = optimizer.update(first, optimizer.init(first))
        return optimizer.update(second, state)[0]["w"]

    # 0.5 long, both; Adam would remember a longer one
    np.testing.assert_allclose(second_change(long, short), second_change(short, short), rtol=1e-5)


def test_an_entropy_bonus_keeps_equal_actions_equally_likely():
    learner = make_ppo(replace(CONFIG, entropy_weight=0.1, num_iterations=60), Probe())
    levels = stack(table([[0, 0], [1, 1]], [[1, 1], [0, 0]], [[SOLVED] * 2, [SOLVED] * 2]))
    state = jax.jit(learner.init)(levels, ONE, jax.random.key(1))
    iterate = jax.jit(learner.iterate)
    for t in range(60):
        state, _ = iterate(state, jnp.int32(t), levels, ONE)
    probability = output(learner.net, state.params, jnp.eye(2)[0]).preferences
    np.testing.assert_allclose(probability, [0.5, 0.5], atol=0.05)


def test_the_worth_of_entropy_falls_from_the_first_iteration_to_the_last():
    falling = replace(CONFIG, entropy_weight_end=0.2, num_iterations=5)
    assert [float(_fall(falling, jnp.int32(t))) for t in (0, 2, 4)] == pytest.approx([1, 0.6, 0.2])
    # one iteration of two actions that pay alike: only the entropy has a gradient
    levels = stack(table([[0, 0], [1, 1]], [[0, 0], [0, 0]], [[SOLVED] * 2, [SOLVED] * 2]))

    def spread_after(t: int) -> float:
        learner = make_ppo(replace(falling, entropy_weight=10.0, entropy_weight_end=0.0), Probe())
        state = learner.init(levels, ONE, jax.random.key(1))
        biased = jax.tree.map(lambda leaf: leaf, state.params)
        biased[-1]["b"] = jnp.array([1.0, 0.0, 0.0])
        state, _ = jax.jit(learner.iterate)(
            state._replace(params=biased), jnp.int32(t), levels, ONE
        )
        return float(output(learner.net, state.params, jnp.eye(2)[0]).preferences[0])

    assert spread_after(0) < 0.72  # from 0.73 towards 0.5
    assert spread_after(4) == pytest.approx(float(jax.nn.sigmoid(1.0)), abs=1e-6)


def test_a_minibatch_in_parts_has_the_same_loss_and_gradient():
    config = replace(CONFIG, num_envs=24)  # two minibatches of 24 rows
    net = make_net(CONFIG, Probe())
    generator = np.random.default_rng(0)
    rows = [generator.normal(size=24).astype(np.float32) for _ in range(4)]
    actions = generator.integers(0, 2, 24, np.int32)
    obs = generator.normal(size=(24, 2)).astype(np.float32)
    batch = Batch(Steps(obs, actions, -jnp.abs(rows[0]), rows[1]), rows[2], rows[3])
    params = nets.mlp((2,), (16,), 3).init(jax.random.key(0))
    whole, parts = (
        _loss_and_grads(replace(config, rows_at_once=count), net, params, batch, jnp.float32(0.1))
        for count in (None, 8)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), whole, parts)


@pytest.mark.parametrize(
    ("net", "platform", "mib", "minibatch", "asked", "rows"),
    [
        ("nature", "cpu", 2.0, 256, None, 64),
        ("nature", "cpu", 1.0, 256, None, 32),
        ("nature", "cpu", 16.0, 288, None, 48),  # not 72 or 96: at most 64
        ("nature", "cpu", 1.0, 60, None, 30),  # the largest divisor, a power of two or not
        ("nature", "cpu", 1.0, 30, None, 30),
        ("nature", "cpu", 1.0, 37, None, 37),  # which nothing divides
        ("nature", "cpu", 0.0625, 60, None, 4),  # not 2
        ("impala", "cpu", 2.0, 60, None, 4),
        ("small", "cpu", 2.0, 256, None, 256),
        ("mlp", "cpu", 2.0, 256, None, 256),
        ("nature", "gpu", 2.0, 256, None, 256),
        ("nature", "cpu", 2.0, 256, 16, 16),
        ("nature", "cpu", 2.0, 256, 256, 256),
        ("nature", "gpu", 2.0, 256, 16, 16),
        ("mlp", "cpu", 2.0, 256, 16, 16),
    ],
)
def test_pictures_are_learned_from_in_parts_on_a_core(
    net, platform, mib, minibatch, asked, rows, monkeypatch
):
    config = replace(
        CONFIG, net=net, num_envs=minibatch, num_steps=2, num_minibatches=2, rows_at_once=asked
    )
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(platform=platform)])
    monkeypatch.setattr(ppo, "cache_mib", lambda: mib)
    assert rows_at_once(config) == rows


def test_parts_are_learned_from_where_none_are_asked_for(monkeypatch):
    monkeypatch.setattr(ppo, "cache_mib", lambda: 0.25)
    config = replace(CONFIG, net="nature", num_envs=4, num_steps=6, num_minibatches=1)
    parts = _gradient_of_pictures(config)
    assert "length=3" in parts and "u8[8,64,64,3]" in parts
    whole = _gradient_of_pictures(replace(config, rows_at_once=24))
    assert "scan" not in whole and "u8[24,64,64,3]" in whole


def _gradient_of_pictures(config: PPOConfig) -> str:
    """What is computed for a minibatch of 24 pictures, as text."""
    net, zeros = make_net(config, PIXELS), jnp.zeros(24)
    steps = Steps(jnp.zeros((24, *PIXELS.obs_shape), jnp.uint8), jnp.zeros(24, int), zeros, zeros)
    params = jax.eval_shape(net.init, jax.random.key(0))
    gradient = jax.make_jaxpr(partial(_loss_and_grads, config, net))
    return str(gradient(params, Batch(steps, zeros, zeros), jnp.float32(0.0)))


def test_members_in_turn_learn_what_members_side_by_side_learn():
    levels = stack(right_and_wrong(GAMMA)[0])

    def params(rows: int | None) -> Any:
        learner = make_ppo(replace(CONFIG, rows_at_once=rows), Probe())

        @jax.jit
        @jax.vmap
        def train(key: jax.Array) -> Any:
            state = learner.init(levels, ONE, key)
            return learner.iterate(state, jnp.int32(0), levels, ONE)[0].params

        return train(jax.random.split(jax.random.key(0), 3))

    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), params(8), params(None))


H200 = SimpleNamespace(platform="gpu", device_kind="NVIDIA H200", compute_capability="9.0")
CPU = SimpleNamespace(platform="cpu", device_kind="cpu")
PIXELS = CoinRun(obs="pixels")


@pytest.mark.parametrize(
    ("net", "env", "device", "used"),
    [
        ("impala", PIXELS, H200, True),
        ("impala", PIXELS, CPU, False),
        ("nature", PIXELS, H200, False),
        ("impala", CoinRun(obs="symbolic"), H200, False),
    ],
)
def test_only_on_a_gpu_and_for_pixels_and_impala_are_there_kernels(
    net: str, env: CoinRun, device: Any, used: bool, monkeypatch
):
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert ("pallas_call" in _written(net, env)) == used


def test_kernels_can_be_left_out(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [H200])
    assert "pallas_call" not in _written("impala", PIXELS, with_kernels=False)


def test_kernels_are_for_bytes(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [H200])
    assert _kernels(SimpleNamespace(obs_high=255, obs_shape=(64, 64, 3))) is not None
    assert _kernels(SimpleNamespace(obs_high=1, obs_shape=(64, 64, 3))) is None


def test_a_jax_without_what_kernels_are_written_in_does_without_them(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [H200])
    monkeypatch.setitem(sys.modules, "hotoven.kernels", None)
    monkeypatch.delattr(hotoven, "kernels", raising=False)
    assert "pallas_call" not in _written("impala", PIXELS)


def _written(net: str, env: CoinRun, **settings: bool) -> str:
    """What is computed for an observation, as text."""
    found = make_net(replace(CONFIG, net=net), env, **settings)
    seen = jax.ShapeDtypeStruct(env.obs_shape, jnp.uint8)
    return str(jax.make_jaxpr(found.apply)(jax.eval_shape(found.init, jax.random.key(0)), seen))


def test_without_a_reward_a_new_agent_stays_undecided():
    # its own random values would be the only advantages there are, and normalised ones at that
    learner = make_ppo(replace(CONFIG, entropy_weight=0.01, num_iterations=20), Probe())
    nothing = stack(table([[0, 1], [0, 1]], [[0, 0], [0, 0]], [[RUNNING] * 2] * 2))
    state = jax.jit(learner.init)(nothing, ONE, jax.random.key(1))
    iterate = jax.jit(learner.iterate)
    for t in range(20):
        state, _ = iterate(state, jnp.int32(t), nothing, ONE)
    told = output(learner.net, state.params, jnp.eye(2))
    np.testing.assert_allclose(told.preferences, 0.5, atol=1e-6)
    np.testing.assert_allclose(told.value, 0.0, atol=1e-6)


def test_ends_are_counted_by_outcome():
    learner = make_ppo(CONFIG, Probe())
    levels = stack(cut_by_the_clock(GAMMA)[0])
    state = jax.jit(learner.init)(levels, ONE, jax.random.key(0))
    _, progress = jax.jit(learner.iterate)(state, jnp.int32(0), levels, ONE)
    expected = np.zeros(5, int)
    expected[TIMEOUT] = expected[RUNNING] = 32  # two steps each: one goes on, one times out
    assert progress.ended.tolist() == expected.tolist()


def test_two_ends_by_the_clock_in_one_iteration_are_refused():
    with pytest.raises(ValueError, match=r"num_steps must be at most .* probe \(2\), got 3"):
        make_ppo(replace(CONFIG, num_steps=3, num_envs=2), Probe())


def test_members_with_other_keys_differ_and_the_same_keys_give_the_same_bytes():
    learner = make_ppo(CONFIG, Probe())
    levels = stack(right_and_wrong(GAMMA)[0])

    @jax.jit
    @jax.vmap
    def train(key: jax.Array) -> Any:
        state = learner.init(levels, ONE, key)
        return learner.iterate(state, jnp.int32(0), levels, ONE)[0].params

    keys = jax.random.split(jax.random.key(0), 2)[jnp.array([0, 0, 1])]
    first, again = (jax.tree.leaves(train(keys)) for _ in range(2))
    for leaf, other in zip(first, again, strict=True):
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()
        # A place in the batch may move a last bit: on some CPUs a sum's order depends on it.
        np.testing.assert_allclose(leaf[0], leaf[1], rtol=0, atol=1e-5)
        assert np.abs(leaf[0] - leaf[2]).max() > 1e-3


def test_running_moments_are_those_of_all_discounted_returns():
    generator = np.random.default_rng(0)
    reward = generator.normal(size=(50, 4)).astype(np.float32)
    ended = generator.random((50, 4)) < 0.2
    zero = jnp.float32(0.0)
    scale = RewardScale(jnp.zeros(4), zero, zero, zero)
    discounted, seen = np.zeros(4), []
    for own, over in zip(reward, ended, strict=True):
        scale = _observe_rewards(scale, jnp.asarray(own), jnp.asarray(over), 0.9)
        discounted = discounted * 0.9 + own
        seen.append(discounted.copy())
        discounted[over] = 0.0
    assert float(scale.num_steps) == 200
    np.testing.assert_allclose(scale.mean, np.mean(seen), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scale.squares / scale.num_steps, np.var(seen), rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"net": "tree"}, "net must be one of mlp, small, nature, impala, got 'tree'"),
        ({"clip": 0.0}, "clip must be above 0 and finite, got 0.0"),
        ({"value_clip": -1.0}, "value_clip must be none, or above 0 and finite, got -1.0"),
        ({"gamma": 1.5}, "gamma must be from 0 to 1, got 1.5"),
        ({"entropy_weight": -0.1}, "entropy_weight must be at least 0 and finite, got -0.1"),
        ({"num_epochs": 0}, "num_epochs must be from 1 to 2147483647, got 0"),
        (
            {"rows_at_once": 3},
            r"rows_at_once must be none, or a divisor of the steps in a minibatch \(32\), got 3",
        ),
        (
            {"num_minibatches": 3},
            r"num_minibatches must be a divisor of num_envs \* num_steps \(64\), got 3",
        ),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 and finite, got nan"),
    ],
)
def test_an_impossible_setting_names_what_is_allowed(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **settings)
