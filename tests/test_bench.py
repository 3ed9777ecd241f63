"""The benchmarks do what they say, on a small scale. Never how long it took."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotoven import bench
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.lavagrid import LavaGrid
from hotoven.learners import ppo
from hotoven.learners.dqn import DQNConfig
from hotoven.learners.ppo import PPOConfig
from hotoven.studies import lavagrid_plays
from hotoven.studies.lavagrid_settings import PRESETS

SMALL = DQNConfig(
    net="mlp",
    hidden=(4,),
    optimizer="rmsprop",
    batch_size=2,
    num_envs=4,
    steps_per_update=1,
    replay_capacity=8,
    num_updates=4,
    double_q=False,
)

FEW = PPOConfig(net="mlp", hidden=(4,), num_envs=2, num_steps=4, num_minibatches=2, num_epochs=2)


@pytest.fixture
def no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(bench.importlib, "import_module", missing)


def test_turns_go_round_all_contestants_and_the_first_two_are_not_counted():
    order: list[str] = []

    def turn(name: str) -> float:
        order.append(name)
        return float(len(order))

    contestants = {
        name: bench.Contestant("units", lambda name=name: turn(name)) for name in ("ours", "peer")
    }
    figures, units = bench.take_turns(contestants, repeats=2)
    assert order == ["ours", "peer"] * 4
    np.testing.assert_array_equal(figures["ours"], [5.0, 7.0])
    np.testing.assert_array_equal(figures["peer"], [6.0, 8.0])
    assert units == {"ours": "units", "peer": "units"}


def test_no_turns_are_refused():
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        bench.take_turns({}, repeats=0)


def test_an_unknown_measurement_is_refused_by_name():
    with pytest.raises(ValueError, match=r"one of env, coinrun, levels, .*predict, got 'speed'"):
        bench.run("speed", 1)


def test_flops_of_an_update_are_those_counted_by_hand():
    # 3-4-2: 12 + 8 = 20 weights; a row forward is 2 * 20 = 40, by weights 40, by inputs 2 * 8 = 16.
    # Two rows, two networks: 2 * (2 * 40 + 40 + 16) = 272, and one row to act on: 40.
    assert bench.update_flops(SMALL, obs_size=3, num_actions=2) == 312
    # Double Q asks the online network about the next states too: 2 * 40 more.
    assert bench.update_flops(replace(SMALL, double_q=True), obs_size=3, num_actions=2) == 392


def test_flops_of_the_benchmark_network_are_those_counted_by_hand():
    # 125-256-256-512-4: 32000 + 65536 + 131072 + 2048 = 230656 weights, 461312 a row forward.
    # By inputs 2 * 198656 = 397312. 32 * (3 * 461312 + 397312) + 4 * 461312.
    assert bench.update_flops(bench.LEARNING, obs_size=125, num_actions=4) == 58_845_184


def test_flops_of_matrix_products_are_those_counted_by_hand():
    left, right = jnp.ones((2, 3)), jnp.ones((3, 5))
    assert bench.product_flops(jnp.matmul, left, right) == 2 * 2 * 3 * 5
    assert bench.product_flops(lambda a, b: (a + a @ b @ b.T, a @ b)[0], left, right) == 2 * 60
    repeated = lambda a, b: jax.lax.scan(lambda a, _: (a @ b @ b.T, None), a, length=7)[0]  # noqa: E731
    assert bench.product_flops(repeated, left, right) == 7 * 2 * 60


def test_flops_of_a_step_of_ppo_with_nature_cnn_are_those_counted_by_hand():
    # Multiplications of a row forward: 225 * 192 * 32 + 36 * 512 * 64 + 16 * 576 * 64
    # + 1024 * 512 + 512 * 16 = 3684352; by weights as many, by inputs all but the first layer's
    # 1382400. Three epochs: 2 * (3684352 + 3 * (2 * 3684352 + 2301952)).
    env = CoinRun(obs="pixels")
    assert bench.step_flops(PPOConfig(net="nature"), env) == 65_392_640


def test_pictures_are_measured_in_the_parts_that_a_user_gets_and_named_so(monkeypatch):
    assert bench.PIXELS.config.rows_at_once is None
    monkeypatch.setattr(ppo, "cache_mib", lambda: 1.0)
    assert "8 minibatches in parts of 32, 3 epochs" in bench._described("pixels", bench.PIXELS)
    whole = bench.PIXELS._replace(config=replace(bench.PIXELS.config, rows_at_once=2048))
    assert "8 minibatches, 3 epochs" in bench._described("pixels", whole)


@pytest.mark.long
def test_ppo_is_measured_without_its_peer_on_one_device_and_on_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    symbols = bench.Training(FEW, CoinRun(mode="easy", obs="symbolic"), 3, num_levels=2)
    pixels = bench.Training(replace(FEW, rows_at_once=2), CoinRun(mode="easy"), 2, num_levels=2)
    assert symbols.num_steps == 3 * 2 * 4
    trained: list[tuple[int, int]] = []

    def training(learner: Any, env: Any, levels: int, members: int, devices: Any) -> Any:
        trained.append((members, len(devices)))
        return real(learner, env, levels, members, devices)

    real = bench._training
    monkeypatch.setattr(bench, "_training", training)
    result = bench.ppo_speed(repeats=1, symbols=symbols, pixels=pixels)
    assert list(result.figures) == ["symbols, 3 members", "pixels, 1 agent", "pixels, 2 members"]
    assert trained == [(3, 2), (1, 1), (2, 2)]  # members, devices
    assert set(result.units.values()) == {"steps/s"}
    (aim,) = result.derived.values()
    np.testing.assert_allclose(aim, result.figures["symbols, 3 members"] / 15e3)
    assert result.notes[0].startswith("PyTorch on EnvPool is not measured: there is no .venv-peers")
    assert result.notes[2] == (
        "pixels: mlp 4, 2 x 4 steps an iteration, 2 minibatches in parts of 2, 2 epochs, 2 levels"
    )


def test_ppo_is_compared_with_its_peer_turn_by_turn(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    class Peer:
        def __init__(self, name: str, learning: dict[str, Any]):
            asked.append((name, learning["net"], learning["mode"], learning["num_levels"]))

        def play(self, num_steps: int) -> float:
            asked.append(num_steps)
            return 2.0

        def close(self) -> None:
            asked.append("closed")

    monkeypatch.setattr(bench.peers, "Peer", Peer)
    steps = lambda training, devices: bench.Contestant("", lambda: 3.0 * training.num_members)  # noqa: E731
    monkeypatch.setattr(bench, "_our_ppo", steps)
    result = bench.ppo_speed(repeats=1, symbols=None)
    assert {name: float(value[0]) for name, value in result.derived.items()} == {
        "pixels, 2 members / peer (aim: above 1)": 3.0,
        "pixels, 1 agent / peer": 1.5,
    }
    # an iteration of one agent in each of three turns
    assert asked == [("envpool", "nature", "easy", 200), *[64 * 256] * 3, "closed"]


@pytest.mark.long
def test_what_is_measured_of_ppo_on_a_gpu_runs_at_a_tiny_size():
    few = replace(FEW, bfloat16=True, num_envs=1)
    trainings = {
        "nature": bench.Training(replace(few, net="nature"), CoinRun(obs="pixels"), 2, 2),
        "impala": bench.Training(replace(few, net="mlp"), CoinRun(obs="symbolic"), 2, 2),
    }
    result = bench.ppo_share(repeats=1, trainings=trainings, product_sizes=(8, 16))
    ours, _, small, large = result.figures
    assert ours == "nature, 2 members"
    peak = np.maximum(result.figures[small], result.figures[large]) * 2  # devices
    flops = bench.step_flops(trainings["nature"].config, trainings["nature"].env)
    (name,) = (name for name in result.derived if name.startswith("nature, share"))
    np.testing.assert_allclose(result.derived[name], result.figures[ours] * flops / 1e9 / peak)
    assert set(bench.GPU_AIMS) == set(bench.ON_GPU)
    for training in bench.ON_GPU.values():
        assert training.config.bfloat16
        assert training.config.rows_at_once is None


def test_random_steps_add_up_every_observation_and_go_on_from_turn_to_turn():
    batch, num_steps = 2, 3
    states: list[int] = []

    def step(count: jax.Array, action: jax.Array, key: jax.Array) -> tuple:
        jax.debug.callback(lambda n: states.append(int(n)), count, ordered=True)
        return count + 1, jnp.ones((batch, 5), jnp.uint8), jnp.zeros(batch)

    start = jnp.zeros((batch, 5), jnp.uint8)
    contestant = bench._random_steps(step, jnp.int32(0), start, 4, num_steps)
    assert contestant.turn() > 0
    assert contestant.turn() > 0
    jax.effects_barrier()
    assert states == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("no_peers")
def test_the_env_benchmark_without_its_peer_says_how_to_get_it(capsys: pytest.CaptureFixture[str]):
    result = bench.env_speed(repeats=2, env=LavaGrid(), batch=8, num_steps=3)
    assert list(result.figures) == ["hotoven lavagrid 5x5x5"]
    assert {name: len(values) for name, values in result.figures.items()} == dict.fromkeys(
        result.figures, 2
    )
    assert not result.derived
    bench.show(result)
    printed = capsys.readouterr().out
    assert "navix is not measured" in printed
    assert "pip install 'hotoven[bench]'" in printed
    assert "batch 8, 3 steps a turn: median of 2 turns" in printed
    assert "million steps/s" in printed


@pytest.mark.long
@pytest.mark.usefixtures("no_peers")
def test_the_learning_benchmark_gives_the_share_of_the_peak_without_its_peer():
    result = bench.learning_speed(
        repeats=2, config=SMALL, num_members=2, num_iterations=2, product_sizes=(8, 16)
    )
    ours, small, large = result.figures
    assert ours == "hotoven, 2 members"
    assert result.units[ours] == "updates/s"
    peak = np.maximum(result.figures[small], result.figures[large])
    flops = bench.update_flops(SMALL, obs_size=125, num_actions=4)
    (share,) = result.derived.values()
    np.testing.assert_allclose(share, result.figures[ours] * flops / 1e9 / peak)
    assert "stable_baselines3 is not measured" in result.notes[0]


def test_a_ratio_is_taken_turn_by_turn(monkeypatch: pytest.MonkeyPatch):
    turns = {"ours": iter([0.0, 0.0, 6.0, 2.0]), "peer": iter([0.0, 0.0, 3.0, 4.0])}
    monkeypatch.setattr(
        bench, "_our_steps", lambda *_: bench.Contestant("", lambda: next(turns["ours"]))
    )
    monkeypatch.setattr(
        bench, "_navix_steps", lambda *_: bench.Contestant("", lambda: next(turns["peer"]))
    )
    monkeypatch.setattr(bench, "_peer", lambda name: (name, ()))
    (ratio,) = bench.env_speed(repeats=2).derived.values()
    np.testing.assert_array_equal(ratio, [2.0, 0.5])


@pytest.mark.long
def test_the_evaluation_benchmark_times_every_method_and_adds_them_up(
    monkeypatch: pytest.MonkeyPatch,
):
    every_policy = lavagrid_plays.policies

    def two_policies(*arguments: Any) -> dict[str, Any]:  # each method takes seconds to compile
        policies = every_policy(*arguments)
        return {method: policies[method] for method in ("mean", "single+blocker")}

    monkeypatch.setattr(lavagrid_plays, "policies", two_policies)
    study = replace(PRESETS["quick"], dqn=SMALL, num_test_levels=4, num_members=2)
    result = bench.evaluation_speed(repeats=2, study=study)
    assert set(result.figures) == {"mean", "single+blocker"}
    assert set(result.units.values()) == {"s"}
    (total,) = result.derived.values()
    np.testing.assert_array_equal(total, sum(result.figures.values()))
    assert result.title == "evaluation of 4 test levels, 2 members"


def test_coinrun_is_measured_alone_where_no_peer_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    played: list[str] = []

    def still(env: CoinRun, batch: int, num_steps: int) -> bench.Contestant:
        played.append(f"{env.mode} {env.obs} {batch}")
        return bench.Contestant("steps", lambda: 1.0)

    monkeypatch.setattr(bench, "_our_steps", still)
    result = bench.coinrun_speed(repeats=1, batch=4, num_steps=2)
    assert sorted(played) == ["hard pixels 2"] * 2 + ["hard symbolic 2"] * 2
    assert list(result.figures) == ["hotoven, pixels", "hotoven, symbols"]
    assert result.derived == {}
    assert [note.split(":")[0] for note in result.notes[:2]] == [
        "envpool is not measured",
        "procgen2 is not measured",
    ]
    bench.show(result)
    assert "make bench-peers makes it" in capsys.readouterr().out


@pytest.mark.parametrize(("backend", "batch"), [("cpu", 1024), ("gpu", 16_384)])
def test_a_gpu_plays_more_coinrun_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, batch: int
):
    monkeypatch.chdir(tmp_path)
    batches: list[int] = []

    def still(step: Any, batch: int, num_steps: int) -> bench.Contestant:
        batches.append(batch)
        return bench.Contestant("steps", lambda: 1.0)

    monkeypatch.setattr(bench, "_on_every_device", still)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    result = bench.coinrun_speed(repeats=1, num_steps=2)
    assert batches == [batch, batch]
    assert f"batch {batch}," in result.title


def test_a_batch_is_spread_over_every_device():
    shares: list[int] = []

    def make(batch: int, num_steps: int) -> bench.Contestant:
        shares.append(batch)
        return bench.Contestant("steps", lambda: float(num_steps))

    turn = bench._on_every_device(make, 5, 3).turn
    assert shares == [2, 3]  # two devices in these tests
    assert turn() > 0


def test_levels_are_measured_with_what_they_take():
    result = bench.levels_speed(repeats=1, count=8)
    assert set(result.figures) == {"made, easy", "made, hard", "test set loaded, hard"}
    assert result.notes[0].startswith("8 levels in memory: 0.0")


def test_the_prediction_benchmark_computes_every_line_of_the_figure(
    monkeypatch: pytest.MonkeyPatch,
):
    called: list[tuple[str, int]] = []

    def counting(name: str) -> Any:
        real = getattr(bench.roc_bootstrap, name)

        def wrapped(score: np.ndarray, positive: np.ndarray, *rest: Any) -> Any:
            called.append((name, int(positive.sum())))
            return real(score, positive, *rest)

        return wrapped

    names = ("step_bootstrap", "auc_samples", "precision_samples")
    for name in names:
        monkeypatch.setattr(bench.roc_bootstrap, name, counting(name))
    result = bench.predict_speed(repeats=1, num_levels=40, num_steps=15)
    turns = 3  # two of them warm up
    for name in names:
        lines = [positive for called_name, positive in called if called_name == name]
        assert len(lines) == turns * 16
        deaths = lines[:16:4]
        # windows 1 and 10 of each rollout, two scores each
        assert lines[:16] == [n for few in deaths for n in (few, few, 10 * few, 10 * few)]
    (total,) = result.derived.values()
    np.testing.assert_array_equal(total, sum(result.figures.values()))
    assert result.title == "4 panels of 4 lines, 40 levels, 15 steps each"
