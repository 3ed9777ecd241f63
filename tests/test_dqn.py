"""The learner finds the known answers of the probes, and keeps its promises about experience."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotoven import agents
from hotoven.learners import dqn
from hotoven.learners.dqn import DQNConfig, Learner, make_dqn, make_optimizer
from hotoven.learners.experience import Transition, empty_ring, sample_ring, write_ring
from hotoven.types import CATASTROPHE, RUNNING, SOLVED
from probes import PROBES, Probe, stack, table

GAMMA = 0.5
CONFIG = DQNConfig(
    net="mlp",
    hidden=(16,),
    learning_rate=1e-2,
    gamma=GAMMA,
    batch_size=16,
    replay_capacity=256,
    num_updates=600,
    num_envs=8,
    target_period=10,
    epsilon_end=0.5,
)


@cache
def learned(optimizer: str, double_q: bool) -> np.ndarray:
    """float32[P, S, A]: the Q-values learned on each probe, all of them in one program."""
    env = Probe()
    config = replace(
        CONFIG,
        optimizer=optimizer,
        double_q=double_q,
        learning_rate=1e-2 if optimizer == "adam" else 3e-3,
    )
    learner = make_dqn(config, env)
    levels = stack(*(stack(probe(GAMMA)[0]) for probe in PROBES))  # [P, 1, ...]
    keys = jax.random.split(jax.random.key(0), len(PROBES))

    @jax.jit
    @jax.vmap
    def values(levels: Any, key: jax.Array) -> jax.Array:
        one = jnp.int32(1)

        def body(state: Any, t: jax.Array) -> tuple[Any, Any]:
            return learner.iterate(state, t, levels, one)

        steps = jnp.arange(config.num_iterations)
        state, _ = jax.lax.scan(body, learner.init(levels, one, key), steps)
        return jax.vmap(learner.net.apply, (None, 0))(state.params, jnp.eye(env.num_places))

    return np.asarray(values(levels, keys))


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
@pytest.mark.parametrize(("optimizer", "double_q"), [("adam", True), ("rmsprop", False)])
def test_q_values_reach_the_known_answer(optimizer, double_q, probe):
    q = learned(optimizer, double_q)[PROBES.index(probe)]
    for (place, action), expected in probe(GAMMA)[1].items():
        assert q[place, action] == pytest.approx(expected, abs=0.05), (place, action)


# Experience

CORRIDOR = Probe(num_places=8, max_steps=100)  # the place is the number of steps walked


def corridor_levels() -> Any:
    ahead = [[min(place + 1, 7)] * 2 for place in range(8)]
    return stack(table(ahead, np.zeros((8, 2)), np.full((8, 2), RUNNING)))


def test_the_replay_ring_overwrites_the_oldest_transitions():
    config = replace(CONFIG, num_envs=2, steps_per_update=2, replay_capacity=6, num_updates=5)
    learner, levels, one = make_dqn(config, CORRIDOR), corridor_levels(), jnp.int32(1)
    state = jax.jit(learner.init)(levels, one, jax.random.key(0))
    iterate = jax.jit(learner.iterate)
    held = []
    for t in range(5):
        state, _ = iterate(state, jnp.int32(t), levels, one)
        held.append((state.replay.obs.argmax(-1).tolist(), state.replay.next_obs.argmax(-1)))
    assert held[2][0] == [0, 0, 1, 1, 2, 2]
    assert held[3][0] == [3, 3, 1, 1, 2, 2]
    assert held[4][0] == [3, 3, 4, 4, 2, 2]
    assert held[4][1].tolist() == [4, 4, 5, 5, 3, 3]


def test_only_filled_slots_are_sampled():
    ring = empty_ring(CORRIDOR, 6, jnp.float32)
    rows = jax.tree.map(lambda leaf: jnp.ones((2, *leaf.shape[1:]), leaf.dtype), ring)
    ring = write_ring(ring, rows, jnp.int32(0))
    assert ring.action.tolist() == [1, 1, 0, 0, 0, 0]
    sampled = sample_ring(ring, jnp.int32(2), 200, jax.random.key(0))
    assert (sampled.action == 1).all()
    wider = sample_ring(ring, jnp.int32(6), 200, jax.random.key(0))
    assert 0 < int(wider.action.sum()) < 200


def test_an_update_draws_from_all_that_has_been_seen_and_from_no_more(monkeypatch):
    config = replace(CONFIG, num_envs=2, steps_per_update=2, replay_capacity=6, num_updates=5)
    learner, levels, one = make_dqn(config, CORRIDOR), corridor_levels(), jnp.int32(1)
    filled = []

    def watched(ring: Transition, num_filled: jax.Array, *rest: Any) -> Transition:
        filled.append(int(num_filled))
        return sample_ring(ring, num_filled, *rest)

    monkeypatch.setattr(dqn, "sample_ring", watched)
    state = learner.init(levels, one, jax.random.key(0))
    for t in range(5):
        state, _ = learner.iterate(state, jnp.int32(t), levels, one)
    assert filled == [2, 4, 6, 6, 6]


def test_an_episodes_last_observation_is_kept_and_the_next_one_starts_anew():
    # place 0 leads to place 1, which ends it: next_obs shows place 1, obs is again place 0
    env = Probe(max_steps=9)
    levels = stack(table([[1, 1], [1, 1]], np.zeros((2, 2)), [[SOLVED] * 2] * 2))
    config = replace(CONFIG, num_envs=2, steps_per_update=2, replay_capacity=4, num_updates=1)
    learner, one = make_dqn(config, env), jnp.int32(1)
    state = jax.jit(learner.init)(levels, one, jax.random.key(0))
    state, progress = jax.jit(learner.iterate)(state, jnp.int32(0), levels, one)
    kept: Transition = jax.tree.map(lambda leaf: leaf[:2], state.replay)
    assert kept.next_obs.tolist() == [[0, 1], [0, 1]]
    assert kept.terminated.tolist() == [True, True]
    assert kept.catastrophe.tolist() == [False, False]
    assert state.obs.tolist() == [[1, 0], [1, 0]]
    assert progress.ended.tolist() == [0, 2, 0, 0, 0]


def test_exploration_starts_at_epsilon_start_and_decays_per_update_to_epsilon_end():
    num_envs = 4096
    config = replace(
        CONFIG,
        num_envs=num_envs,
        steps_per_update=num_envs // 2,  # two updates per iteration
        replay_capacity=num_envs,
        num_updates=2000,
        epsilon_start=0.8,
        epsilon_decay=0.99,
        epsilon_end=0.1,
    )
    learner, levels, one = make_dqn(config, CORRIDOR), corridor_levels(), jnp.int32(1)
    start = jax.jit(learner.init)(levels, one, jax.random.key(0))
    greedy = jax.vmap(learner.net.apply, (None, 0))(start.params, start.obs).argmax(-1)
    iterate = jax.jit(learner.iterate)

    def share_of_other_actions(t: int) -> float:
        state, _ = iterate(start, jnp.int32(t), levels, one)
        return float((state.replay.action != greedy).mean())

    # half of the random actions are the greedy one by chance
    assert share_of_other_actions(0) == pytest.approx(0.8 / 2, abs=0.03)
    assert share_of_other_actions(50) == pytest.approx(0.8 * 0.99**100 / 2, abs=0.03)
    assert share_of_other_actions(900) == pytest.approx(0.1 / 2, abs=0.02)


@cache
def copying() -> tuple[Any, Callable[[Any, int], Any]]:
    """A start, and an iteration (state, t) of two updates that copies at every second t."""
    config = replace(CONFIG, target_period=4)
    learner, levels, one = make_dqn(config, CORRIDOR), corridor_levels(), jnp.int32(1)
    iterate = jax.jit(learner.iterate)
    start = jax.jit(learner.init)(levels, one, jax.random.key(0))
    return start, lambda state, t: iterate(state, jnp.int32(t), levels, one)


def test_the_target_network_is_copied_every_target_period_updates():
    state, iterate = copying()
    kernel = lambda params: np.asarray(params[0]["w"])  # noqa: E731
    online, targets = [kernel(state.params)], []
    for t in range(5):
        state, _ = iterate(state, t)
        online.append(kernel(state.params))
        targets.append(kernel(state.target))
    assert not np.array_equal(online[0], online[2])
    for t, copied in enumerate([0, 0, 2, 2, 4]):
        np.testing.assert_array_equal(targets[t], online[copied])


def test_the_target_network_values_in_the_very_iteration_it_is_copied_in():
    state, iterate = copying()
    other = state._replace(target=jax.tree.map(lambda leaf: leaf + 1.0, state.target))
    for t in range(4):
        losses = [float(iterate(one, t)[1].loss) for one in (state, other)]
        copies = t % 2 == 0  # then it does not matter what the target was before
        assert (losses[0] == losses[1]) == copies, t


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_the_learning_rate_falls_linearly_to_its_end(optimizer):
    config = replace(CONFIG, optimizer=optimizer, num_updates=10, learning_rate_end=0.2)
    falling, constant = map(make_optimizer, (config, replace(config, learning_rate_end=1.0)))
    one = jnp.ones(1)
    states, ratios = [falling.init(one), constant.init(one)], []
    for _ in range(12):
        steps = []
        for index, method in enumerate((falling, constant)):
            change, states[index] = method.update(one, states[index], one)
            steps.append(float(change[0]))
        ratios.append(steps[0] / steps[1])
    np.testing.assert_allclose(ratios[:3], [1.0, 0.92, 0.84], rtol=1e-5)
    np.testing.assert_allclose(ratios[10:], [0.2, 0.2], rtol=1e-5)


def test_an_agent_in_a_batch_sees_only_its_own_first_levels():
    env = Probe(num_places=4)
    ends = ([[place] * 2 for place in range(4)], np.zeros((4, 2)), np.full((4, 2), CATASTROPHE))
    levels = stack(*(table(*ends, start=start) for start in range(4)))
    config = replace(CONFIG, num_updates=64)
    learner = make_dqn(config, env)
    sizes = jnp.array([1, 3, 4], jnp.int32)
    keys = jax.random.split(jax.random.key(0), 3)
    state = jax.jit(jax.vmap(learner.init, (None, 0, 0)))(levels, sizes, keys)
    at_start = state.obs.argmax(-1)
    iterate = jax.jit(jax.vmap(learner.iterate, (0, None, None, 0)))
    for t in range(config.num_iterations):
        state, _ = iterate(state, jnp.int32(t), levels, sizes)
    for agent, size in enumerate(sizes.tolist()):
        assert set(state.replay.obs[agent].argmax(-1).tolist()) == set(range(size))
        assert set(at_start[agent].tolist()) <= set(range(size))


# Keys and compilations


def trained(learner: Learner, config: DQNConfig, keys: jax.Array, size: int) -> Any:
    levels = stack(PROBES[1](GAMMA)[0])
    chunks = agents.Chunks(config.num_iterations, size)
    return agents.train(config, learner, levels, np.ones(len(keys), np.int32), keys, chunks)


@pytest.mark.long
def test_same_keys_give_the_same_bytes_and_another_key_another_agent():
    config = replace(CONFIG, num_updates=16)
    k_one, k_two = jax.random.split(jax.random.key(3))
    keys = jnp.stack([k_one, k_two, k_one])
    first, again = (trained(make_dqn(config, Probe()), config, keys, 8) for _ in range(2))
    for leaf, other in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()
        # A place in the batch may move a last bit: on some CPUs a sum's order depends on it.
        np.testing.assert_allclose(leaf[0], leaf[2], rtol=0, atol=1e-4)
        assert np.abs(leaf[0] - leaf[1]).max() > 1e-2


@pytest.mark.long
def test_training_compiles_once_per_distinct_chunk_length():
    config = replace(CONFIG, num_updates=40)  # 20 iterations
    plain = make_dqn(config, Probe())
    traced = []

    def iterate(*arguments: Any) -> Any:
        traced.append(1)
        return plain.iterate(*arguments)

    learner = Learner(plain.init, iterate, plain.net)
    keys = jax.random.split(jax.random.key(0), 3)

    def num_traces(size: int) -> int:
        traced.clear()
        trained(learner, config, keys, size)
        return len(traced)

    once = num_traces(20)
    assert once >= 1
    assert num_traces(8) == 2 * once  # 8 8 4: not once per chunk


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"net": "rnn"}, "net must be cnn or mlp, got 'rnn'"),
        ({"optimizer": "sgd"}, "optimizer must be adam or rmsprop, got 'sgd'"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and finite, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 and finite, got nan"),
        ({"learning_rate_end": -0.5}, "learning_rate_end must be from 0 to 1, got -0.5"),
        ({"learning_rate": float("inf")}, "learning_rate must be above 0 and finite, got inf"),
        ({"huber_delta": float("inf")}, "huber_delta must be above 0 and finite, got inf"),
        ({"num_updates": 2**31}, "num_updates must be from 1 to 2147483647, got 2147483648"),
        ({"hidden": (), "dropout": 0.1}, "hidden must be a layer for dropout, got ()"),
        ({"gamma": 1.1}, "gamma must be from 0 to 1, got 1.1"),
        ({"batch_size": 0}, "batch_size must be from 1 to 2147483647, got 0"),
        ({"hidden": (16, 0)}, "hidden must be from 1 to 2147483647 each, got (16, 0)"),
        ({"filters": (-1,)}, "filters must be from 1 to 2147483647 each, got (-1,)"),
        ({"target_period": 0}, "target_period must be from 1 to 2147483647, got 0"),
        ({"epsilon_end": -0.1}, "epsilon_end must be from 0 to 1, got -0.1"),
        (
            {"num_envs": 8, "steps_per_update": 3},
            "steps_per_update must be a divisor of num_envs (8), got 3",
        ),
        (
            {"num_envs": 8, "replay_capacity": 20},
            "replay_capacity must be a positive multiple of num_envs (8), got 20",
        ),
        (
            {"num_envs": 8, "steps_per_update": 4, "num_updates": 7},
            "num_updates must be a multiple of num_envs / steps_per_update (2), got 7",
        ),
        (
            {"num_envs": 8, "steps_per_update": 4, "target_period": 5},
            "target_period must be a multiple of num_envs / steps_per_update (2), got 5",
        ),
    ],
)
def test_an_impossible_setting_names_what_is_allowed(settings, message):
    with pytest.raises(ValueError) as error:
        replace(CONFIG, **settings)
    assert str(error.value) == message


LATE = {"target_period": 200, "num_updates": 200}


@pytest.mark.parametrize("change", [{"double_q": True}, {"huber_delta": 0.01}, {"dropout": 0.5}])
def test_a_setting_of_the_loss_changes_what_is_learned(change: dict[str, Any]):
    levels = stack(*(probe(GAMMA)[0] for probe in PROBES))

    def learned_with(**settings: Any) -> np.ndarray:
        # the target is copied late, so that it and the online network disagree on the best action
        config = replace(CONFIG, **{"double_q": False, **LATE, **settings})
        learner, count = make_dqn(config, Probe()), jnp.int32(len(PROBES))
        state = jax.jit(learner.init)(levels, count, jax.random.key(0))
        steps = jnp.arange(config.num_iterations)
        run = jax.jit(
            lambda state: jax.lax.scan(
                lambda state, t: learner.iterate(state, t, levels, count), state, steps
            )[0]
        )
        return np.asarray(learner.net.apply(run(state).params, jnp.eye(2)))

    assert not np.allclose(learned_with(), learned_with(**change), atol=1e-4)
