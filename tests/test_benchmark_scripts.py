"""What the scripts in benchmarks train is what they say; how well it learns is nobody's test."""

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from hotoven import agents, levels
from hotoven.evaluation.bootstrap import wilson
from hotoven.learners.ppo import PPOConfig
from hotoven.studies import coinrun_agents
from hotoven.studies.coinrun_settings import PRESETS, make_sets

FOLDER = Path(__file__).parents[1] / "benchmarks"
FEW = PPOConfig(
    net="mlp", hidden=(4,), num_envs=2, num_steps=6, num_minibatches=2, num_iterations=20
)


def script(name: str) -> ModuleType:
    """A script of the benchmarks as a module, not run."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Trained(Exception):
    """Training was to begin, with these arguments."""


def test_ten_levels_trains_the_agents_that_the_study_would(monkeypatch, tmp_path):
    quick = replace(PRESETS["quick"], num_members=3, seed=2, level_seed=2)

    def trains(config, learner, seen, num_levels, keys, *others, **more):
        raise Trained(config, seen, num_levels, jax.random.key_data(keys))

    monkeypatch.setattr(agents, "train", trains)
    with pytest.raises(Trained) as ours:
        script("ten_levels").learned(replace(quick, sizes=(10,)))
    with pytest.raises(Trained) as theirs:
        coinrun_agents._train_members(quick, make_sets(quick).train, tmp_path)
    config, seen, num_levels, keys = ours.value.args
    study_config, study_seen, study_num_levels, study_keys = theirs.value.args
    assert config == study_config
    own = study_num_levels == 10
    np.testing.assert_array_equal(num_levels, study_num_levels[own])
    np.testing.assert_array_equal(keys, study_keys[own])
    first = jax.tree.map(lambda leaf: leaf[:10], study_seen)
    jax.tree.map(np.testing.assert_array_equal, seen, first)


@pytest.mark.slow
def test_ten_levels_tells_how_episodes_ended_agent_by_agent(monkeypatch, capsys):
    quick = replace(PRESETS["quick"], ppo=FEW)
    monkeypatch.setitem(PRESETS, "quick", quick)
    words = ["ten_levels", "--seeds", "1", "--limits", "6", "--members", "2"]
    monkeypatch.setattr("sys.argv", words)
    script("ten_levels").main()
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "seed 1, at most 6 steps an episode"
    # no level can be solved or lost so soon: every episode ends by the clock
    none = "solved 0%, 0%; died 0%, 0%"
    assert rest == [f"  twentieth {index}: {none}" for index in (1, 5, 10, 20)]


@pytest.fixture
def own_cache() -> Iterator[None]:
    """Compiled programs are kept where they were before: the script has a folder of its own."""
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


@pytest.mark.long
@pytest.mark.usefixtures("own_cache")
def test_the_published_curve_is_of_the_first_seeds_and_those_that_follow(monkeypatch, capsys):
    module = script("published_curve")
    full = PRESETS["full"]
    few = replace(FEW, num_iterations=full.ppo.num_iterations)
    short = replace(full, env=replace(full.env, max_steps=30), ppo=few)
    monkeypatch.setitem(PRESETS, "full", short)
    monkeypatch.setattr(module, "NUM_UNSEEN", 30)
    made: list[Any] = []

    def makes(env, ids):
        made.append((env, ids.tolist()))
        return levels.make_levels(env, ids)

    monkeypatch.setattr(module, "make_levels", makes)
    words = "published_curve --mode hard --levels 20 --net nature --members 2 --millions 0.00012"
    monkeypatch.setattr("sys.argv", words.split())
    module.main()
    assert [ids for _, ids in made] == [list(range(20)), list(range(20, 50))]
    assert {(env.mode, env.obs, env.paint_velocity) for env, _ in made} == {
        ("hard", "pixels", False)
    }
    said = capsys.readouterr().out
    unseen = levels.make_levels(made[0][0], np.arange(20, 50))
    assert f"{unseen.facts['can_kill'].mean():.1%} of the unseen levels can kill" in said
    shares = re.findall(
        r"  (.*): ([\d.]+)% \[([\d.]+)%, ([\d.]+)%\] solved \(([\d.]+)%, ([\d.]+)%\), ([\d.]+)% d",
        said,
    )
    names = [name for name, *_ in shares]
    assert names[0] == "unseen"
    assert names[-1] == "training"
    assert len(names) == 4  # at one point: ten iterations are less than a million steps
    numbers_of = {"unseen": 30, "training": 20}  # levels, each played by two agents
    numbers_of["unseen, those that can kill"] = int(unseen.facts["can_kill"].sum())
    for name, *numbers in shares:
        solved, low, high, first, second, died = map(float, numbers)
        assert low <= solved <= high
        if name in numbers_of:
            episodes = 2 * numbers_of[name]
            expected = wilson(round(solved / 100 * episodes), episodes)
            assert (low, high) == pytest.approx([100 * end for end in expected], abs=0.051)
        assert solved == pytest.approx((first + second) / 2, abs=0.11)
        assert solved + died <= 100.1
