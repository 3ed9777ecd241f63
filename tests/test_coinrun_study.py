"""The CoinRun study: its levels are apart, and its tables tell of the same episodes."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pyarrow.compute as pc
import pytest

from hotoven import agents, cli, storage
from hotoven.envs.coinrun import helpers
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.coinrun.planner import NOTHING, NUM_MOVES
from hotoven.evaluation import knowing
from hotoven.learners.ppo import output
from hotoven.mechanisms.acting import ACTING
from hotoven.runs import ENTRIES, Run
from hotoven.storage import read_json, read_table, write_json
from hotoven.studies import (
    coinrun,
    coinrun_agents,
    coinrun_help,
    coinrun_parts,
    coinrun_plays,
    parts,
)
from hotoven.studies.coinrun import TABLES
from hotoven.studies.coinrun_agents import (
    Ensemble,
    Probes,
    agents_path,
    load_ensemble,
    make_players,
)
from hotoven.studies.coinrun_help import play_with_helpers
from hotoven.studies.coinrun_parts import is_whole, read_chosen
from hotoven.studies.coinrun_plays import (
    _episode_rows,
    _num_played,
    _training_levels,
    play_alone,
)
from hotoven.studies.coinrun_settings import (
    PREDICTED,
    PRESETS,
    WATCHED,
    CoinRunStudy,
    make_sets,
)
from hotoven.types import CATASTROPHE, RUNNING, SOLVED, Decision, Net, Trace
from tinystudy import (
    COINRUN_SETTINGS,
    assert_same,
    finish,
    results,
    shared_folder,
    start,
    uninterrupted,
)

SMALL = replace(
    PRESETS["quick"],
    sizes=(5, 20),
    num_test_levels=30,
    num_calibration_levels=20,
    num_validation_levels=10,
    num_shifted_levels=10,
)
TINY = replace(
    SMALL,
    env=replace(SMALL.env, max_steps=12),
    ppo=replace(SMALL.ppo, num_steps=12),
    sizes=(5,),
    num_members=2,
    windows=(1, 3),
    alarm_window=3,
)


def contents(level_set: Any) -> set[bytes]:
    return {digest.tobytes() for digest in level_set.digests}


def test_no_level_is_in_two_sets_and_shifted_ones_are_of_the_other_mode():
    sets = make_sets(SMALL)
    apart = [sets.train, sets.validation, sets.calibration, sets.test]
    assert [len(one) for one in apart] == [20, 10, 20, 30]
    assert len(set.union(*map(contents, apart))) == 80
    assert {one.family for one in apart} == {"coinrun-easy"}
    assert sets.shifted.family == "coinrun-hard"


def test_a_set_does_not_depend_on_how_large_another_is():
    other = replace(SMALL, sizes=(3,), num_validation_levels=4, num_test_levels=40)
    for name in ("calibration", "shifted"):
        one, same = (getattr(make_sets(study), name) for study in (SMALL, other))
        np.testing.assert_array_equal(one.ids, same.ids)
    for name, count in (("train", 3), ("validation", 4), ("test", 30)):  # it begins with the others
        one, same = (getattr(make_sets(study), name) for study in (SMALL, other))
        np.testing.assert_array_equal(one.ids[:count], same.ids[:count])


def test_all_sets_and_their_first_levels_are_alike():
    many = dict.fromkeys(
        ("num_test_levels", "num_calibration_levels", "num_validation_levels"), 1000
    )
    sets = make_sets(replace(SMALL, sizes=(1000,), **many))
    parts = [sets.train, sets.validation, sets.calibration, sets.test]
    for fact in ("can_kill", "has_lava", "difficulty"):
        of_all = np.concatenate([part.facts[fact] for part in parts]).astype(float)
        error = of_all.std() / np.sqrt(1000)
        for part in parts:
            mean = part.facts[fact].astype(float).mean()
            assert abs(mean - of_all.mean()) < 4 * error, fact
            first = part.facts[fact][:250].astype(float).mean()
            assert abs(first - of_all.mean()) < 4 * 2 * error, fact
            # levels in the order in which they were drawn begin with the common, harmless ones
            rank = np.argsort(np.argsort(part.ids))
            assert abs(np.corrcoef(rank, np.arange(len(rank)))[0, 1]) < 0.15


def test_tuning_plays_validation_levels_in_place_of_the_test_levels():
    sets = make_sets(replace(SMALL, tune=True))
    np.testing.assert_array_equal(sets.test.ids, sets.validation.ids)
    assert not contents(sets.test) & contents(make_sets(SMALL).test)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": (10, 5)}, "sizes must be different, growing and from 1 to "),
        ({"sizes": (0, 5)}, "sizes must be different, growing and from 1 to "),
        ({"windows": (0, 1)}, "windows must be at least 1 each"),
        ({"alarm_window": 7}, r"alarm_window must be one of windows \[1, 3, 5, 10, 25\], got 7"),
        ({"hold": 2**31}, "hold must be at most 2147483647, got 2147483648"),
        ({"windows": (1, 10, 2**31)}, "windows must be at most 2147483647 each"),
        ({"num_members": 1}, "num_members must be at least 2, got 1"),
        ({"promises": (0.0,)}, "promises must be between 0 and 1"),
        ({"delta": 1.0}, "delta must be between 0 and 1"),
        ({"margin": -0.1}, "margin must be from 0 to 1"),
        ({"helpers": ("retreat",)}, r"the planner among them, got \['retreat'\]"),
        ({"helpers": ("planner", "jump")}, r"helpers must be some of \['planner', "),
        ({"helpers": ("planner", "planner")}, r"each once, .*, got \['planner', 'planner'\]"),
        ({"seed": -1}, "seed must be from 0"),
        ({"promises": (0.2, 0.2)}, "promises must be different and growing"),
        ({"min_lead": 1000}, r"min_lead must be below env.max_steps \(1000\), got 1000"),
        ({"env": CoinRun(max_steps=100)}, "num_steps must be at most the time limit"),
    ],
)
def test_an_impossible_setting_names_what_is_allowed(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        replace(CoinRunStudy(), **settings)


def test_no_two_members_have_one_key(tmp_path, monkeypatch):
    study = replace(SMALL, num_members=3)
    given = []

    def trains(config, learner, seen, num_levels, keys, *rest):
        words = np.asarray(jax.random.key_data(keys)).tolist()
        given.extend(zip(num_levels.tolist(), map(tuple, words), strict=True))
        return jax.vmap(learner.net.init)(keys)

    monkeypatch.setattr(agents, "train", trains)
    coinrun_agents._train_members(study, make_sets(study).train, tmp_path)
    assert [num_levels for num_levels, _ in given] == [5] * 3 + [20] * 3
    assert len({words for _, words in given}) == 6


@pytest.mark.optimised
@pytest.mark.parametrize(("bfloat16", "first"), [(True, "bfloat16"), (False, "float32")])
def test_agents_are_stored_as_precise_as_their_network_uses_them(
    bfloat16: bool, first: str, tmp_path, monkeypatch
):
    study = replace(TINY, ppo=replace(TINY.ppo, bfloat16=bfloat16))
    players = make_players(study)
    # other than new ones: the last layer of those says nothing, and no bias does
    trained = jax.tree.map(
        lambda leaf: leaf + jax.random.normal(jax.random.key(2), leaf.shape),
        jax.vmap(players.member.init)(jax.random.split(jax.random.key(0), 2)),
    )
    danger = players.danger.init(jax.random.key(1))
    trains = lambda *arguments: jax.tree.map(np.asarray, trained)  # noqa: E731
    monkeypatch.setattr(agents, "train", trains)
    monkeypatch.setattr(
        coinrun_agents, "_train_danger", lambda *arguments: jax.tree.map(batched, danger)
    )
    with Run.open(tmp_path, {}) as folder:
        coinrun.train(study, folder)
    loaded = load_ensemble(study, players, tmp_path, 5)
    hidden, last = loaded.members
    assert (hidden["w"].dtype.name, last["w"].dtype.name) == (first, "float32")
    obs = np.random.default_rng(0).integers(0, 2, study.env.obs_shape).astype(np.float32)
    said = jax.jit(jax.vmap(players.apply, (0, None)))
    first_said, then_said = said(trained, obs), said(loaded.members, obs)
    assert len(set(np.ravel(first_said.value).tolist())) == 2  # they do say something
    jax.tree.map(np.testing.assert_array_equal, first_said, then_said)


def batched(leaf: jax.Array) -> np.ndarray:
    return np.asarray(leaf)[None]


class Told:
    """In the place of what makes classifiers: its params tell what a classifier is fitted on."""

    def __init__(self) -> None:
        self.net = Net(lambda key: {}, lambda params, obs, key=None: obs)

    def collect(self, policy: Any, window: Any, count: jax.Array, key: jax.Array) -> Any:
        return {"seed": jax.tree.leaves(window)[0][0], "count": count}

    def fit(self, seen: Any, key: jax.Array) -> Any:
        return seen | {"key": jax.random.key_data(key)}


def test_a_classifier_of_danger_learns_from_its_own_training_levels(monkeypatch):
    seen, players = make_sets(TINY).train, make_players(SMALL)
    keys = jax.random.split(jax.random.key(0), (2, 2))
    members = jax.vmap(jax.vmap(players.member.init))(keys)
    monkeypatch.setattr(coinrun_agents, "make_danger", lambda config, env: Told())
    told = coinrun_agents._train_danger(replace(SMALL, num_members=2), members, seen)
    assert told["count"].tolist() == [5, 20]  # the first ones, of the set that is given
    first = jax.tree.leaves(seen.levels)[0][0]
    np.testing.assert_array_equal(told["seed"], np.stack([first, first]))
    assert told["key"][0].tolist() != told["key"][1].tolist()


def test_full_trains_twenty_five_million_steps_on_pixels_of_hard_levels():
    full = PRESETS["full"]
    assert full.ppo.num_iterations * full.ppo.num_envs * full.ppo.num_steps >= 25e6
    assert {10, 50, 200, 1000} <= set(full.sizes)
    assert (full.env.mode, full.env.obs) == ("hard", "pixels")
    assert full.ppo.num_iterations % full.num_chunks == 0  # another length is another program


def made_up(seed: int, set: str, count: int) -> Trace:
    """What might have been recorded on `count` levels; every second episode ends in a death."""
    generator = np.random.default_rng([seed, *set.encode()])
    grid, num_members = (count, TINY.env.max_steps), TINY.num_members
    last = generator.integers(3, grid[1], count)
    outcome = np.full(grid, RUNNING, np.int8)
    outcome[np.arange(count), last] = np.where(np.arange(count) % 2, CATASTROPHE, SOLVED)
    policies = generator.random((*grid, num_members, NUM_MOVES), np.float32)
    return Trace(
        decision=Decision(generator.integers(0, NUM_MOVES, grid), *[()] * 5),
        outcome=outcome,
        cause=np.zeros(grid, np.int8),
        reward=np.zeros(grid, np.float32),
        dangerous=(),
        probes=Probes(
            values=generator.normal(size=(*grid, num_members)).astype(np.float32),
            probabilities=policies / policies.sum(axis=-1, keepdims=True),
            dangers=generator.random((*grid, NUM_MOVES), np.float32),
            blocker=generator.random(grid, np.float32),
            supported=generator.random(grid) < 0.5,
        ),
        valid=np.arange(grid[1]) <= last[:, None],
    )


def test_what_does_nothing_is_one_action():
    players, env = make_players(TINY), TINY.env
    params = players.member.init(jax.random.key(0))
    # the last layer of a new network says nothing
    params[-1] = jax.tree.map(lambda leaf: leaf + np.arange(16) / 8, params[-1])
    tree, _ = env.generate(np.arange(3))
    obs = jax.vmap(env.observe)(jax.vmap(env.reset)(tree)[0])
    each = output(players.member, params, obs)
    said = players.apply(params, obs)
    same = np.array([*range(NUM_MOVES), *[NOTHING] * (env.num_actions - NUM_MOVES)])
    expected = [each.preferences[:, same == move].sum(axis=1) for move in range(NUM_MOVES)]
    np.testing.assert_allclose(said.preferences, np.stack(expected, axis=1), rtol=1e-5)
    np.testing.assert_allclose(said.preferences.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(said.value, each.value)


def test_training_levels_are_tried_as_often_as_there_is_room():
    sets, study = make_sets(SMALL), replace(SMALL, sizes=(6,), num_train_levels_played=20)
    played = _training_levels(study, sets.train, 6)
    np.testing.assert_array_equal(played.ids, sets.train.ids[np.arange(20) % 6])
    trace = made_up(0, "train", 20)
    rows = _episode_rows(study, {}, played, trace, _num_played(study, 6))
    # the third round and two more levels: what is not whole is left out
    assert rows["level_index"].tolist() == [*range(6)] * 3
    assert rows["attempt"].tolist() == [0] * 6 + [1] * 6 + [2] * 6
    np.testing.assert_array_equal(rows["level_id"], sets.train.ids[rows["level_index"]])
    assert rows["outcome"].tolist() == ["solved", "catastrophe"] * 9


def trained(study: CoinRunStudy, path: Path) -> Path:
    """A run with agents, new ones in the place of trained ones."""
    players = make_players(study)
    with Run.open(path, {"study": "coinrun", "settings": parts.settings(study)}) as folder:
        parts.write_levels(folder, make_sets(study)._asdict())
        for size in study.sizes:
            keys = jax.random.split(jax.random.key(size), study.num_members)
            members = coinrun_agents.kept(study.ppo, jax.vmap(players.member.init)(keys))
            ensemble = Ensemble(members, players.danger.init(keys[0]))
            about = coinrun_agents._about(study, size)
            agents.save_params(agents_path(path, size), ensemble._asdict(), about)
        folder.finish()
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of TINY with agents, for those who only read it."""
    return trained(TINY, tmp_path_factory.mktemp("trained") / "source")


def test_the_command_takes_over_agents_and_trains_none(tmp_path, monkeypatch, capsys):
    words = ["train", "coinrun", *COINRUN_SETTINGS]
    source = trained(cli._parse(words).settings, tmp_path / "source")
    monkeypatch.setattr(coinrun_agents, "_train_members", None)
    words += ["--out", str(tmp_path / "new")]
    assert cli.main([*words, "--agents", str(source)]) == 0
    assert f"hotoven evaluate {tmp_path / 'new'}" in capsys.readouterr().out
    own, theirs = ((tmp_path / name / "agents") for name in ("new", "source"))
    assert {one.name: one.read_bytes() for one in own.iterdir()} == {
        one.name: one.read_bytes() for one in theirs.iterdir()
    }
    with Run.open(tmp_path / "new", read_json(tmp_path / "new/run.json")["config"], True) as folder:
        folder.finish()
    (own / "levels8.safetensors").unlink()
    assert cli.main([*words, "--resume"]) == 2
    assert f"which it had from {source}: --agents takes them over again" in capsys.readouterr().err
    assert read_json(tmp_path / "new" / "run.json")["status"] == "finished"
    assert cli.main([*words, "--resume", "--agents", str(source)]) == 0
    assert (own / "levels8.safetensors").exists()


def test_agents_of_another_run_play_what_they_were_not_trained_for(tmp_path, monkeypatch):
    source = trained(replace(SMALL, num_members=2), tmp_path / "source")
    study = replace(
        SMALL,
        num_members=2,
        sizes=(20,),
        num_test_levels=7,
        helpers=("planner",),
        windows=(1, 10),
        num_chunks=2,
    )
    monkeypatch.setattr(coinrun_agents, "_train_members", None)  # nothing is trained
    coinrun.check_source(study, source, tmp_path / "new")
    with Run.open(tmp_path / "new", {}) as folder:
        for _ in range(2):  # as a run that goes on asks for it again
            coinrun.take_over(study, folder, source)
            coinrun.check_trainable(study, folder.path)
            coinrun.train(study, folder)
        origin = read_json(tmp_path / "new" / "run.json")["agents_of"]
    there = [path.name for path in (tmp_path / "new" / "agents").iterdir()]
    assert there == ["levels20.safetensors"]
    own, theirs = (agents_path(tmp_path / name, 20) for name in ("new", "source"))
    assert own.read_bytes() == theirs.read_bytes()
    about = read_json(source / "run.json")
    files = {"levels20.safetensors": hashlib.sha256(theirs.read_bytes()).hexdigest()[:32]}
    expected = {name: about[name] for name in ("started", "versions", "hardware")}
    assert origin == {"run": str(source), "files": files} | expected
    coinrun.check_agents(study, tmp_path / "new", again=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 1}, "settings.seed was 0, is 1"),
        ({"level_seed": 1}, "settings.level_seed was 0, is 1"),
        ({"env": replace(TINY.env, max_steps=13)}, "settings.env.max_steps was 12, is 13"),
        ({"ppo": replace(TINY.ppo, gamma=0.5)}, "settings.ppo.gamma was 0.99, is 0.5"),
        # these have params of other shapes, too
        ({"ppo": replace(TINY.ppo, hidden=(3,))}, "settings.ppo.hidden was .128., is .3."),
        ({"num_members": 3}, "settings.num_members was 2, is 3"),
        ({"danger": replace(TINY.danger, batch_size=7)}, "settings.danger.batch_size was 64, is 7"),
        ({"num_test_levels": 3000}, "levels dealt to each set was 2048, is 4096"),
        ({"sizes": (5, 6)}, "has no agents of 6 levels; its agents are: levels5.safetensors"),
    ],
)
def test_agents_that_were_trained_otherwise_are_not_taken_over(
    settings: dict, message: str, source: Path, tmp_path
):
    coinrun.check_source(TINY, source, tmp_path / "new")
    with pytest.raises(ValueError, match=message) as error:
        coinrun.check_source(replace(TINY, **settings), source, tmp_path / "new")
    assert "remove" not in str(error.value)


def test_agents_of_other_levels_are_not_taken_over(tmp_path):
    source = trained(TINY, tmp_path / "source")
    agents_path(source, 6).write_bytes(agents_path(source, 5).read_bytes())
    with pytest.raises(ValueError, match="num_train_levels was 5, is 6"):
        coinrun.check_source(replace(TINY, sizes=(6,)), source, tmp_path / "new")
    about = read_json(source / "run.json")
    recorded = about["levels"]["train"]["hash"]
    about["levels"]["train"]["hash"] = "of another generator"
    write_json(source / "run.json", about)
    with pytest.raises(ValueError, match="records of another generator"):
        coinrun.check_source(TINY, source, tmp_path / "new")
    about["levels"]["train"]["hash"] = recorded
    write_json(source / "run.json", about | {"config": {"study": "lavagrid"}})
    with pytest.raises(ValueError, match="is no run of the CoinRun study"):
        coinrun.check_source(TINY, source, tmp_path / "new")
    del about["levels"]
    write_json(source / "run.json", about)
    with pytest.raises(ValueError, match=r"run.json is not as hotoven writes it: .*'levels'"):
        coinrun.check_source(TINY, source, tmp_path / "new")


def test_a_run_does_not_take_over_what_it_would_remove(tmp_path):
    source = trained(TINY, tmp_path / "run" / "parts" / "source")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "agents").symlink_to(source / "agents")
    (elsewhere / "run.json").write_bytes((source / "run.json").read_bytes())
    for path in (source, source / ".." / "source", tmp_path / "run"):
        for one in (source, elsewhere):
            with pytest.raises(ValueError, match=r"levels5.safetensors lies in .* itself"):
                coinrun.check_source(TINY, one, path)
    coinrun.check_source(TINY, source, source / "new")
    with pytest.raises(ValueError, match="is not a run's folder"):
        coinrun.check_source(TINY, tmp_path / "nowhere", tmp_path / "new")


def test_no_agents_are_taken_over_where_there_are_others(source: Path, tmp_path):
    with Run.open(tmp_path / "new", {}) as folder:
        own = agents_path(tmp_path / "new", 5)
        agents.save_params(own, {"other": np.zeros(1)}, {})
        before = own.read_bytes()
        with pytest.raises(ValueError, match="holds other agents than"):
            coinrun.take_over(TINY, folder, source)
        assert own.read_bytes() == before
        own.unlink()  # but what they have played is there
        part = coinrun_parts.help_path(coinrun_parts.part_path(tmp_path / "new", 5), "planner")
        part.parent.mkdir(parents=True)
        part.touch()
        with pytest.raises(ValueError, match="has been played by other agents, which are gone"):
            coinrun.take_over(TINY, folder, source)
        part.unlink()
        folder.finish()
        with pytest.raises(ValueError, match="has been played by other agents, which are gone"):
            coinrun.take_over(TINY, folder, source)
    assert not own.exists()
    assert "agents_of" not in read_json(tmp_path / "new" / "run.json")


def test_agents_that_were_taken_over_are_not_replaced_by_own_ones(tmp_path, monkeypatch):
    study = replace(TINY, sizes=(5, 20))
    source, other = (trained(study, tmp_path / name) for name in ("source", "other"))
    agents.save_params(agents_path(other, 5), {"other": np.zeros(1)}, {})
    copies = []

    def stops(path: Path, content: bytes) -> None:
        if copies:
            raise KeyboardInterrupt
        copies.append(path)
        storage.write_bytes(path, content)

    with (
        Run.open(tmp_path / "new", {}) as folder,
        monkeypatch.context() as patch,
        pytest.raises(KeyboardInterrupt),
    ):
        patch.setattr(coinrun_agents, "write_bytes", stops)
        coinrun.take_over(study, folder, source)
    with Run.open(tmp_path / "new", {}, resume=True) as folder:
        lacks = "lacks the agents of 20 levels, which it had from"
        with pytest.raises(ValueError, match=lacks):
            coinrun.check_trainable(study, folder.path)
        with pytest.raises(ValueError, match=lacks):
            coinrun.check_agents(study, folder.path, again=False)
        agents_path(tmp_path / "new", 5).unlink()
        with pytest.raises(ValueError, match="has been played by other agents"):
            coinrun.take_over(study, folder, other)
        coinrun.take_over(study, folder, source)
        coinrun.check_trainable(study, folder.path)
        folder.finish()
    # and whose they are is told by those who have them from there
    with Run.open(tmp_path / "third", {}) as folder:
        coinrun.take_over(study, folder, tmp_path / "new")
    first = read_json(tmp_path / "third" / "run.json")["agents_of"]
    assert (first["run"], first["agents_of"]["run"]) == (str(tmp_path / "new"), str(source))


class Seen(Exception):
    """What was to be seen has been."""


def test_nothing_is_chosen_on_test_levels(tmp_path, monkeypatch):
    sets, players = make_sets(TINY), make_players(TINY)
    keys = jax.random.split(jax.random.key(0), TINY.num_members)
    untrained = Ensemble(jax.vmap(players.member.init)(keys), players.danger.init(keys[0]))

    def see_thresholds(*arguments: Any) -> None:
        raise Seen(arguments[6].tolist())

    monkeypatch.setattr(coinrun_help, "play_with_help", see_thresholds)

    def chosen(name: str, **seeds: int) -> tuple[dict, list, list]:
        """Heads, coefficients and thresholds of help; a set with a seed is made up anew."""

        def record(policy: Any, played: dict) -> dict[str, Trace]:
            return {set: made_up(seeds.get(set, 0), set, len(one)) for set, one in played.items()}

        monkeypatch.setattr(coinrun_plays, "_make_recorder", lambda *_: record)
        everything = TINY, sets, players, untrained, tmp_path / name, TINY.sizes[-1]
        play_alone(*everything)
        with pytest.raises(Seen) as seen:
            play_with_helpers(*everything)
        told = tmp_path / name
        heads = {method: read_json(told / method / "head.json") for method in PREDICTED}
        return heads, read_chosen(told), seen.value.args[0]

    heads, coefficients, thresholds = chosen("first")
    assert {row["acting"] for row in coefficients} == set(PREDICTED)
    assert all(heads.values())
    # equal but for what was played on levels that nothing may be chosen on
    assert chosen("other", train=1, test=1, shifted=1) == (heads, coefficients, thresholds)
    other_heads, other_coefficients, _ = chosen("validation", validation=1)
    assert other_heads != heads and other_coefficients != coefficients
    *same, other_thresholds = chosen("calibration", calibration=1)
    assert same == [heads, coefficients] and other_thresholds != thresholds


def test_what_is_played_is_not_played_again(tmp_path, monkeypatch):
    sets, players = make_sets(TINY), make_players(TINY)
    keys = jax.random.split(jax.random.key(0), TINY.num_members)
    untrained = Ensemble(jax.vmap(players.member.init)(keys), players.danger.init(keys[0]))
    count = 0

    def record(policy: Any, played: dict) -> dict[str, Trace]:
        nonlocal count
        count += 1
        return {set: made_up(0, set, len(one)) for set, one in played.items()}

    def play() -> int:
        """How often something was played."""
        before = count
        play_alone(TINY, sets, players, untrained, tmp_path, TINY.sizes[-1])
        return count - before

    monkeypatch.setattr(coinrun_plays, "_make_recorder", lambda *_: record)
    asked = tmp_path / "help-planner.parquet"
    assert play() == len(ACTING) - 1 + TINY.num_members
    asked.touch()
    assert play() == 0
    (tmp_path / "vote" / "episodes.parquet").unlink()
    (tmp_path / "single" / "episodes.parquet").unlink()
    assert play() == 1 + TINY.num_members
    assert asked.exists()
    (tmp_path / WATCHED / "episodes.parquet").unlink()  # of whose episodes help was asked
    assert play() == 1
    assert not asked.exists()


def test_only_the_helpers_of_a_study_are_asked(tmp_path, monkeypatch):
    study = replace(TINY, helpers=("planner", "retreat"))
    known = np.zeros((2, 3))
    recorded = SimpleNamespace(columns={"mu": known, "sigma": known}, num_steps=np.array([3, 3]))
    asked = []
    for module, name, result in (
        (coinrun_help, "read_chosen", []),
        (coinrun_help, "read_part", None),
        (knowing, "read_recorded", recorded),
        (coinrun_parts, "all_played", True),
    ):
        monkeypatch.setattr(module, name, lambda *arguments, result=result: result)
    rows = lambda study, where, *_: {"helper": np.array([where["helper"]])}  # noqa: E731
    monkeypatch.setattr(coinrun_help, "_helped_rows", rows)
    monkeypatch.setattr(
        coinrun_help, "play_with_help", lambda *arguments: asked.append(arguments[7])
    )
    players = make_players(study)
    members = jax.vmap(players.member.init)(jax.random.split(jax.random.key(0), 2))
    ensemble = Ensemble(members, players.danger.init(jax.random.key(1)))
    assert not is_whole(study, tmp_path)
    play_with_helpers(study, make_sets(study), players, ensemble, tmp_path, 5)
    assert asked == [helpers.planner, helpers.retreat, helpers.planner]
    assert {path.name for path in tmp_path.iterdir()} == {
        "help-planner.parquet",
        "help-retreat.parquet",
        "help-planner_at_random.parquet",
    }
    assert is_whole(study, tmp_path)
    assert not is_whole(TINY, tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uninterrupted(shared_folder(tmp_path_factory), "coinrun")[0]


def table(run: Path, name: str, **values: Any) -> dict[str, np.ndarray]:
    """The columns of a table's rows with those values."""
    rows = read_table(run / f"{name}.parquet")
    for column, value in values.items():
        rows = rows.filter(pc.field(column) == value)
    return {column: rows[column].to_numpy() for column in rows.column_names}


@pytest.mark.long
def test_every_unseen_level_is_played_once_in_every_way(run: Path):
    for size in (4, 8):
        for method in ACTING:
            rows = table(run, "episodes", set="test", num_train_levels=size, method=method)
            members = [0, 1] if method == "single" else [-1]
            assert sorted(set(rows["member"])) == members
            for member in members:
                played = rows["level_index"][rows["member"] == member]
                assert sorted(played) == list(range(24))
            assert "running" not in rows["outcome"]
    for size, times in ((4, 2), (8, 1)):  # in one program, so as often as the larger set has room
        trained = table(run, "episodes", set="train", num_train_levels=size, method="mean")
        assert sorted(trained["level_index"]) == sorted([*range(size)] * times)
        assert sorted(trained["attempt"]) == sorted([*range(times)] * size)
        assert len(set(trained["level_id"])) == size
    single = table(run, "rates", set="train", num_train_levels=4, method="single")
    assert (single["num_levels"].item(), single["num_episodes"].item()) == (4, 4 * 2 * 2)


@pytest.mark.long
def test_agents_of_another_run_play_as_they_did_there(run: Path, tmp_path):
    words = ("reproduce", "coinrun", "--agents", str(run), "--out", str(tmp_path / "new"))
    finish(start(run.parent, *words, *COINRUN_SETTINGS))
    assert_same(results(tmp_path / "new"), results(run))
    assert read_json(tmp_path / "new" / "run.json")["agents_of"]["run"] == str(run)


@pytest.mark.long
def test_recorded_steps_end_as_the_episodes_did(run: Path):
    for method in PREDICTED:
        steps = table(run, "steps", set="test", num_train_levels=8, method=method)
        episodes = table(run, "episodes", set="test", num_train_levels=8, method=method)
        last = np.flatnonzero(np.diff(steps["level_index"], append=-1))
        np.testing.assert_array_equal(steps["outcome"][last], episodes["outcome"])
        np.testing.assert_array_equal(steps["step"][last] + 1, episodes["length"])
        np.testing.assert_array_equal(steps["level_id"][last], episodes["level_id"])


@pytest.mark.long
def test_who_never_asks_plays_the_very_episodes_that_were_played_alone(run: Path):
    alone = table(run, "episodes", set="test", num_train_levels=4, method="mean")
    helped = table(run, "help", num_train_levels=4, threshold=np.inf)
    for helper in set(helped["helper"]):
        own = helped["helper"] == helper
        for column in ("outcome", "cause", "length", "level_id"):
            np.testing.assert_array_equal(helped[column][own], alone[column][:6])
        assert not helped["num_requests"][own].any()
    always = table(run, "help", num_train_levels=4, threshold=-np.inf)
    assert (always["num_requests"] > 0).all()


@pytest.mark.long
def test_what_each_member_said_is_what_the_scores_were_made_of(run: Path):
    for method in PREDICTED:
        said = table(run, "members", num_train_levels=8, method=method)
        steps = table(run, "steps", set="test", num_train_levels=8, method=method)
        early = steps["level_index"] < 5  # of as many levels it is kept
        assert 0 < early.sum() == len(said["step"]) < len(early)
        for column in ("level_id", "step"):
            np.testing.assert_array_equal(said[column], steps[column][early])
        values = np.stack(said["values"])
        np.testing.assert_allclose(values.mean(axis=1), steps["mu"][early], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(values.std(axis=1), steps["sigma"][early], rtol=1e-4, atol=1e-6)
        policies = np.stack(said["probabilities"]).reshape(len(values), 2, -1).astype(np.float32)
        np.testing.assert_allclose(policies.sum(axis=2), 1.0, atol=2e-3)
        dangers = np.stack(said["dangers"]).astype(np.float32)
        expected = (policies.mean(axis=1) * dangers).sum(axis=1)
        np.testing.assert_allclose(expected, steps["blocker"][early], atol=5e-3)


@pytest.mark.long
def test_a_run_holds_all_its_tables_findings_and_agents(run: Path):
    for name in TABLES:
        assert read_table(run / f"{name}.parquet").num_columns
    for name in ("findings.json", "findings.md", "figures/notes.txt", "chosen.json"):
        assert (run / name).exists()
    assert {path.name for path in (run / "agents").iterdir()} == {
        "levels4.safetensors",
        "levels8.safetensors",
    }
    assert not list((run / "checkpoints").iterdir())
    assert {path.name for path in run.iterdir() if not path.name.startswith(".")} <= ENTRIES


@pytest.mark.long
def test_figures_of_a_run_that_has_lost_tables_leave_what_rested_on_them(run: Path, tmp_path):
    path = tmp_path / "thin"
    shutil.copytree(run, path)
    gone = [path / f"{name}.parquet" for name in ("steps", "help", "roc")]
    for table in gone:
        table.unlink()
    before = results(path)
    told = (path / "figures" / "notes.txt").read_text().splitlines()
    left = [path / "figures" / name for name in ("roc.svg", "timeline.svg", "unseen.gif")]
    for figure in left:
        figure.write_bytes(b"of then")
    (path / "figures" / "outcomes.svg").unlink()
    assert cli.main(["figures", str(path)]) == 0
    drawn = {name: content for name, content in results(path).items() if content != b"of then"}
    assert_same(drawn, {name: before[name] for name in before if name != "figures/roc.svg"})
    assert [figure.read_bytes() for figure in left] == [b"of then"] * 3
    notes = [
        "finding 'alarms beat chance' is left as it is: there is no table of help",
        "figure roc is left as it is: there is no table of roc",
        "figure timeline is left as it is: there is no table of steps",
    ]
    film = [note for note in told if not note.startswith("no figure")]
    assert (path / "figures" / "notes.txt").read_text().splitlines() == notes + film
