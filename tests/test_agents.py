"""Training in chunks, checkpoints, and agents as files."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotoven import agents, nets
from hotoven.agents import Chunks, TrainingDiverged
from hotoven.learners.dqn import DQNConfig, make_dqn
from hotoven.learners.ppo import PPOConfig, make_ppo
from hotoven.storage import read_arrays, write_arrays
from hotoven.studies.lavagrid_settings import PRESETS
from hotoven.types import CATASTROPHE, OUTCOMES, RUNNING, SOLVED, TIMEOUT
from probes import Probe, right_and_wrong, stack, two_steps

ENV = Probe()
CONFIG = DQNConfig(
    net="mlp",
    hidden=(4,),
    learning_rate=1e-2,
    batch_size=4,
    replay_capacity=16,
    num_updates=24,
    num_envs=4,
    target_period=4,
)
QUICK = PRESETS["quick"]
LEVELS = stack(right_and_wrong(0.5)[0], two_steps(0.5)[0])
KEYS = jax.random.split(jax.random.key(0), 2)
FEW_STEPS = PPOConfig(net="mlp", hidden=(4,), num_envs=2, num_steps=2, num_minibatches=2)


def train(
    checkpoint: Path | None = None,
    size: int = 8,
    on_chunk: Any = None,
    devices: Any = None,
    **settings: Any,
):
    config = replace(CONFIG, **settings)
    chunks = Chunks(config.num_iterations, size)
    return agents.train(
        config,
        make_dqn(config, ENV),
        LEVELS,
        np.array([1, 2]),
        KEYS,
        chunks,
        checkpoint,
        on_chunk or (lambda report: None),
        devices,
    )


def content(params: Any) -> dict[str, bytes]:
    return {name: leaf.tobytes() for name, leaf in agents.to_arrays(params).items()}


@pytest.fixture(scope="module")
def at_once() -> dict[str, bytes]:
    return content(train(size=CONFIG.num_iterations))


class Stopped(Exception):
    pass


@pytest.mark.long
def test_in_chunks_is_at_once(at_once):
    reports = []
    assert content(train(size=10, on_chunk=reports.append)) == at_once
    assert [report.num_updates for report in reports] == [10, 20, 24]
    for report in reports:
        assert report.loss.shape == report.num_episodes.shape == (2,)
        assert ((report.solved + report.catastrophe)[report.num_episodes > 0] == 1.0).all()
    assert reports[0].num_episodes[0] == 40  # agent 0: one step an episode, 4 envs, 10 iterations


def test_a_run_stopped_after_a_chunk_goes_on_from_its_checkpoint(at_once, tmp_path):
    path = tmp_path / "state.safetensors"

    def stop(report: Any) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        train(path, on_chunk=stop)
    assert path.exists()
    reports = []
    assert content(train(path, on_chunk=reports.append)) == at_once
    assert [report.num_updates for report in reports] == [16, 24]
    assert content(train(path, on_chunk=stop)) == at_once  # all is done: nothing is trained


def test_agents_learn_on_one_device_what_they_learn_on_two_to_the_byte(at_once, tmp_path):
    assert len(jax.local_devices()) >= 2  # tests/conftest.py: `at_once` was trained on both
    path, one = tmp_path / "state.safetensors", jax.local_devices()[:1]
    assert content(train(path, devices=one)) == at_once
    # all is trained: what the checkpoint of one device holds comes back on two
    assert content(train(path)) == at_once


@pytest.mark.optimised
def test_an_agent_alone_learns_what_it_learns_among_others_to_the_byte():
    # small networks do so side by side, too: this one does not
    env, config = QUICK.env, replace(QUICK.dqn, replay_capacity=256)
    levels = env.generate(np.arange(20))[0]
    sizes, keys = np.array([10, 20, 20, 10, 20]), jax.random.split(jax.random.key(3), 5)
    one = jax.local_devices()[:1]

    def trained(rows: slice) -> Any:
        learner, chunks = make_dqn(config, env), Chunks(2, 2)
        return agents.train(config, learner, levels, sizes[rows], keys[rows], chunks, devices=one)

    together = trained(slice(None))
    for rows in (slice(0, 1), slice(3, 5)):
        part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], together)
        assert content(trained(rows)) == content(part)


@pytest.mark.parametrize("kind", ["dqn", "ppo"])
def test_side_by_side_agents_learn_what_they_learn_in_turn(kind: str):
    config, make = (CONFIG, make_dqn) if kind == "dqn" else (FEW_STEPS, make_ppo)
    learner, seen = make(config, ENV), (LEVELS, np.array([1, 2], np.int32))

    def trained(in_turn: bool) -> tuple[Any, Any]:
        states = jax.jit(jax.vmap(learner.init, (None, 0, 0)))(*seen, KEYS)
        return agents.make_chunk(learner, in_turn)(0, 4, states, seen)

    (turned, progress), (beside, same_progress) = trained(True), trained(False)
    assert progress.loss.shape == same_progress.loss.shape == (2, 4)
    assert (progress.ended == same_progress.ended).all()
    for found, expected in zip(
        jax.tree.leaves(beside.params), jax.tree.leaves(turned.params), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["dqn", "ppo"])
def test_training_is_one_program_for_each_length_of_a_chunk(monkeypatch, kind: str):
    made = []

    def make_chunk(learner: Any, in_turn: bool) -> Any:
        assert in_turn == (jax.default_backend() == "cpu")
        made.append(real(learner, in_turn))
        return made[-1]

    real = agents.make_chunk
    monkeypatch.setattr(agents, "make_chunk", make_chunk)
    config, make = (CONFIG, make_dqn) if kind == "dqn" else (FEW_STEPS, make_ppo)
    chunks, one = Chunks(10, 4), jax.local_devices()[:1]  # 4, 4 and 2 iterations
    agents.train(config, make(config, ENV), LEVELS, np.array([1, 2]), KEYS, chunks, devices=one)
    assert [chunk._cache_size() for chunk in made] == [2]


def test_a_report_says_of_each_agent_how_its_episodes_of_the_chunk_ended():
    loss = np.array([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]], np.float32)  # [agents, iterations]
    ended = np.zeros((2, 3, len(OUTCOMES)), np.int32)
    ended[0, 0, SOLVED], ended[0, 2, CATASTROPHE] = 3, 1
    ended[1, 1, SOLVED], ended[1, :, TIMEOUT], ended[1, :, RUNNING] = 1, 1, 7
    report = agents._report(24, loss, ended)
    assert report.num_updates == 24
    assert report.loss.tolist() == [3.0, 3.0]
    assert report.num_episodes.tolist() == [4, 4]
    assert report.solved.tolist() == [0.75, 0.25]
    assert report.catastrophe.tolist() == [0.25, 0.0]


# Divergence


def test_a_learning_rate_that_explodes_stops_with_the_last_good_state(tmp_path):
    path = tmp_path / "state.safetensors"
    reports = []
    with pytest.raises(TrainingDiverged, match=r"learning_rate 1e\+38.*last good state") as error:
        train(path, size=1, on_chunk=reports.append, learning_rate=1e38)
    assert re.search(r"agents \[.*\] became NaN or infinite between updates", str(error.value))
    assert len(reports) < CONFIG.num_iterations
    if path.exists():
        arrays, _ = read_arrays(path)
        for name, array in arrays.items():
            assert array.dtype.kind != "f" or np.isfinite(array).all(), name
    assert path.exists() == bool(reports)


@pytest.mark.parametrize("reward", [np.nan, 3e38])  # params go with it; an infinite loss alone
def test_the_agents_that_diverged_are_named_and_no_others(reward: float):
    rewards = np.array(LEVELS.rewards)
    rewards[1] = reward  # of the level that agent 0 does not play
    levels, chunks = LEVELS._replace(rewards=rewards), Chunks(CONFIG.num_iterations, 8)
    with pytest.raises(TrainingDiverged, match=r"of agents \[1\] became NaN"):
        agents.train(CONFIG, make_dqn(CONFIG, ENV), levels, np.array([1, 2]), KEYS, chunks)


def test_params_that_are_not_numbers_stop_the_training_though_the_loss_was_one(tmp_path):
    path = tmp_path / "state.safetensors"
    # one update: its loss is that of the initial params, and what it makes of them is infinite
    with pytest.raises(TrainingDiverged, match=r"updates 0 and 1 .*nothing was kept"):
        train(path, size=1, optimizer="rmsprop", learning_rate=3e38)
    assert not path.exists()


# Checkpoints that cannot be trusted


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / "state.safetensors"
    sizes = jnp.array([1, 2], jnp.int32)
    state = jax.jit(jax.vmap(make_dqn(CONFIG, ENV).init, (None, 0, 0)))(LEVELS, sizes, KEYS)
    agents.save_state(path, state, 8, CONFIG)
    return path


@pytest.mark.parametrize(
    ("num_levels", "num_keys"), [((), 0), ((1, 2), 1), ((1,), 2), (2, 2), ((1, 2), 0)]
)
def test_each_agent_has_a_number_of_levels_and_there_is_one(num_levels: Any, num_keys: int):
    learner, keys = make_dqn(CONFIG, ENV), jax.random.split(jax.random.key(0), num_keys)
    with pytest.raises(ValueError, match=rf"shape .* and {num_keys} keys"):
        agents.train(CONFIG, learner, LEVELS, np.array(num_levels), keys, Chunks(1, 1))


@pytest.mark.parametrize(
    ("seconds", "learned", "written"),
    [
        (0.9, 5.0, [1, 2, 3, 4, 5, 6]),
        (5.0, 20.0, [1, 4, 6]),  # 5 s of 60, and the last
        (1.1, 5.0, [1, 4, 6]),
        (1.9, 20.0, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_checkpoints_that_take_long_are_left_out_but_for_the_last(
    seconds: float, learned: float, written: list[int], tmp_path, monkeypatch
):
    now, found = [0.0], []

    def save(path: Path, state: Any, done: int, config: Any) -> None:
        now[0] += seconds
        found.append(done // 4)

    def learn(_: Any) -> None:
        now[0] += learned

    monkeypatch.setattr(agents.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(agents, "save_state", save)
    train(tmp_path / "checkpoint", size=4, on_chunk=learn)
    assert found == written


def test_a_damaged_checkpoint_is_refused(checkpoint):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"state\.safetensors is not a whole"):
        train(checkpoint)


def test_a_checkpoint_of_other_settings_is_refused_and_left_alone(checkpoint):
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"other settings: .*gamma=0\.95"):
        train(checkpoint, gamma=0.5)
    assert checkpoint.read_bytes() == before


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    write_arrays(path, {"a": np.zeros(2)}, {})
    with pytest.raises(ValueError, match="other settings"):
        train(path)


def test_a_checkpoint_without_a_leaf_is_refused_by_name(checkpoint):
    arrays, metadata = read_arrays(checkpoint)
    del arrays["replay.reward"]
    write_arrays(checkpoint, arrays, metadata)
    with pytest.raises(ValueError, match=r"replay\.reward must be float32\[2, 16\], got nothing"):
        train(checkpoint)


def test_a_write_that_fails_leaves_the_old_checkpoint_whole(checkpoint, monkeypatch):
    before = checkpoint.read_bytes()

    def fail(*arguments: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr("hotoven.storage.os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        train(checkpoint)
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


# Params


def test_params_come_back_as_they_were(tmp_path):
    path = tmp_path / "agent.safetensors"
    net = nets.mlp((3,), (4,), 2)
    params = jax.vmap(net.init)(KEYS)
    agents.save_params(path, params, {"seed": 3})
    arrays, about = agents.read_params(path)
    loaded = agents.from_arrays(arrays, jax.eval_shape(jax.vmap(net.init), KEYS), path)
    assert about == {"seed": 3}
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    assert content(loaded) == content(params)


def test_params_of_another_network_are_refused(tmp_path):
    path = tmp_path / "agent.safetensors"
    agents.save_params(path, nets.mlp((3,), (4,), 2).init(KEYS[0]), {})
    pattern = jax.eval_shape(nets.mlp((3,), (5,), 2).init, KEYS[0])
    with pytest.raises(ValueError, match=r"0\.b must be float32\[5\], got float32\[4\]"):
        agents.from_arrays(agents.read_params(path)[0], pattern, path)


def test_random_keys_are_saved_too():
    tree = {"key": KEYS, "count": jnp.int32(3)}
    arrays = agents.to_arrays(tree)
    assert sorted(arrays) == ["count", "key"]
    back = agents.from_arrays(arrays, jax.eval_shape(lambda: tree), Path("here"))
    assert jax.random.uniform(back["key"][0]) == jax.random.uniform(KEYS[0])
