"""What the gridworld study's settings promise before anything is trained."""

import itertools
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest

from hotoven import agents, levels
from hotoven.envs.lavagrid import LavaGrid
from hotoven.envs.lavagrid_levels import from_ascii
from hotoven.learners.danger import DangerConfig
from hotoven.learners.dqn import DQNConfig
from hotoven.runs import Run
from hotoven.storage import read_json
from hotoven.studies import lavagrid, lavagrid_agents, lavagrid_plays, parts
from hotoven.studies.lavagrid_agents import make_nets
from hotoven.studies.lavagrid_settings import PRESETS, LavaGridStudy, make_split
from hotoven.studies.parts import agent_key
from hotoven.types import Net

SAFE, LAVA = from_ascii("S..G"), from_ascii("SL.G")
SMALL = LavaGridStudy(sizes=(2, 4), num_test_levels=6, num_validation_levels=5)


def test_the_presets_are_of_the_sizes_that_the_study_asks_for():
    quick, full = PRESETS["quick"], PRESETS["full"]
    assert quick.sizes == (10, 100, 1000)
    assert len(full.sizes) >= 5
    assert (full.sizes[0], full.sizes[-1]) == (5, 10_000)
    assert full.num_replications >= 5
    for study in (quick, full):
        assert (study.num_members, study.num_test_levels, study.tune) == (9, 1000, False)


def test_no_two_uses_have_one_key():
    who = itertools.product(range(4), range(2), (5, 10), range(3))
    words = {
        np.asarray(jax.random.key_data(agent_key(SMALL.seed, *agent))).tobytes() for agent in who
    }
    assert len(words) == 4 * 2 * 2 * 3


def test_no_two_agents_have_one_key(tmp_path, monkeypatch):
    study = replace(SMALL, num_members=3, dqn=DQNConfig(filters=(2,), hidden=(8,)))
    given = []

    def trains(config, learner, seen, num_levels, keys, chunks, checkpoint, on_chunk):
        given.extend(np.asarray(jax.random.key_data(keys)).tolist())
        return jax.vmap(learner.net.init)(keys)

    monkeypatch.setattr(agents, "train", trains)
    monkeypatch.setattr(lavagrid_agents, "_train_blockers", lambda study, members, *rest: members)
    seen = make_split(study).train
    for replication in (0, 1):
        lavagrid_agents.train_agents(study, seen, tmp_path, replication)
    assert len(given) == 2 * (2 * 3 + 2)  # of each ensemble the members, and one with dropout
    assert len({tuple(words) for words in given}) == len(given)


def test_tuning_plays_the_validation_levels_and_never_sees_a_test_level():
    split, tuning = make_split(SMALL), make_split(replace(SMALL, tune=True))
    assert levels.set_hash(tuning.test) == levels.set_hash(split.validation)
    assert levels.set_hash(tuning.train) == levels.set_hash(split.train)
    assert not set(tuning.test.ids) & set(split.test.ids)
    np.testing.assert_array_equal(tuning.test.digests, split.validation.digests)


def test_evaluation_plays_the_test_levels_and_each_sizes_own_training_levels():
    split = make_split(SMALL)
    for size in SMALL.sizes:
        chosen, parts = lavagrid_plays._levels_to_play(SMALL, split, size)
        test, train = (levels.take(chosen, parts[name]) for name in ("test", "train"))
        assert levels.set_hash(test) == levels.set_hash(split.test)
        assert train.ids.tolist() == split.train.ids[:size].tolist()
        assert len(chosen) == 6 + 4  # one compiled program for every size


def half_with_lava(num_updates: int) -> tuple[LavaGridStudy, levels.LevelSet, Any]:
    """A study of corridors, its training levels, and members that know nothing.

    Of 4 training levels the last 2 are held out, which have lava; of 8 the last 4, which have none.
    """
    corridor = {"height": 1, "width": 4, "wall_density": 0.0, "lava_density": 0.0}
    study = replace(
        SMALL,
        env=LavaGrid(**corridor, min_distance=1, max_steps=4),
        dqn=DQNConfig(filters=(2,), hidden=(2,)),
        danger=DangerConfig(
            filters=(2,),
            hidden=(2,),
            num_updates=num_updates,
            num_envs=8,
            num_steps=16,
            calibration_share=0.5,
        ),
        sizes=(4, 8),
        num_members=1,
    )
    drawn = [SAFE] * 2 + [LAVA] * 2 + [SAFE] * 4
    seen = replace(
        levels.make_levels(study.env, np.arange(8)),
        levels=jax.tree.map(lambda *leaves: np.stack(leaves), *drawn),
    )
    keys = jax.random.split(jax.random.key(0), (2, 1))
    members = jax.vmap(jax.vmap(make_nets(study).member.init))(keys)
    return study, seen, members


def test_a_blockers_calibration_is_measured_on_the_levels_it_was_not_fitted_on(tmp_path):
    study, seen, members = half_with_lava(num_updates=2)
    lavagrid_agents._train_blockers(study, members, seen, tmp_path, replication=0)
    told = read_json(tmp_path / "parts" / "r0" / "calibration.json")
    assert [row["num_fit_levels"] for row in told] == [2, 4]
    assert [row["num_predictions"] for row in told] == [8 * 16] * 2
    assert told[0]["num_events"] > 0
    assert told[1]["num_events"] == 0


class Experience(NamedTuple):
    """What a classifier is fitted or measured on: from which level on, and from how many."""

    obs: jax.Array  # float32[8, 1]  the first level
    action: jax.Array  # int32[8]
    catastrophe: jax.Array  # bool[8]  as many as there are levels


class Told:
    """In the classifier's place: it keeps on what it was fitted, and its answer tells it."""

    def __init__(self) -> None:
        self.net = Net(lambda key: None, self.log_odds)

    def collect(self, policy: Any, window: Any, count: jax.Array, key: jax.Array) -> Experience:
        first = jnp.full((8, 1), window.start[0, 1], jnp.float32)
        return Experience(first, jnp.zeros(8, jnp.int32), jnp.arange(8) < count)

    def fit(self, seen: Experience, key: jax.Array) -> dict[str, jax.Array]:
        words = jax.random.key_data(key)
        return {"first": seen.obs[0, 0], "count": seen.catastrophe.sum(), "key": words}

    def log_odds(self, params: Any, obs: jax.Array, key: Any = None) -> jax.Array:
        told = params["first"] / 10 + params["count"] / 100 + obs[..., :1]
        return jnp.broadcast_to(told, (*told.shape[:-1], 4))


def test_a_blocker_is_measured_on_the_rest_by_the_one_that_is_fitted_on_a_part(
    tmp_path, monkeypatch
):
    study, seen, members = half_with_lava(num_updates=2)
    places = np.stack([np.zeros(8, np.int32), np.arange(8, dtype=np.int32)], axis=1)
    seen = replace(seen, levels=seen.levels._replace(start=places))
    monkeypatch.setattr(lavagrid_agents, "make_danger", lambda config, env: Told())
    measured, keys = [], []
    judged = lavagrid_agents.calibration

    def judge(probability: np.ndarray, happened: np.ndarray, threshold: float) -> Any:
        measured.append((np.log(probability / (1 - probability)), int(happened.sum())))
        return judged(probability, happened, threshold)

    monkeypatch.setattr(lavagrid_agents, "calibration", judge)
    for replication in (0, 1):
        used = lavagrid_agents._train_blockers(study, members, seen, tmp_path, replication)
        assert used["first"].tolist() == [0, 0]
        assert used["count"].tolist() == [4, 8]  # all training levels
        keys += used["key"].tolist()
    assert len({tuple(words) for words in keys}) == 2 * 2
    # fitted on the first 2 of 4 levels or 4 of 8; measured on those after them
    for (log_odds, num_events), half in zip(measured, (2, 4, 2, 4), strict=True):
        np.testing.assert_allclose(log_odds, 0 / 10 + half / 100 + half, atol=1e-3)
        assert num_events == half


def test_the_blocker_that_is_used_is_fitted_on_all_training_levels(tmp_path):
    study, seen, members = half_with_lava(num_updates=400)
    params = lavagrid_agents._train_blockers(study, members, seen, tmp_path, replication=0)
    _, shown = study.env.reset(jax.tree.map(jnp.asarray, LAVA))
    few = jax.tree.map(lambda leaf: leaf[0], params)
    log_odds = make_nets(study).blocker.apply(few, shown.obs)
    # the lava is beside the start, in the levels on which the other classifier is not fitted
    assert log_odds[study.env.action_names.index("right")] > 0


def test_the_agents_of_mc_dropout_are_trained_with_dropout(tmp_path, monkeypatch):
    study = replace(SMALL, num_members=1, mc_dropout=0.5, dqn=DQNConfig(filters=(2,), hidden=(8,)))
    trained = {}

    def trains(config, learner, seen, num_levels, keys, chunks, checkpoint, on_chunk):
        params = jax.vmap(learner.net.init)(keys)
        first = jax.tree.map(lambda leaf: leaf[0], params)
        obs = jnp.ones(study.env.obs_shape)
        seeds = jax.random.split(jax.random.key(0), 8)
        outputs = jax.vmap(lambda key: learner.net.apply(first, obs, key))(seeds)
        trained[checkpoint.name] = (config.dropout, bool((outputs == outputs[0]).all()))
        return params

    monkeypatch.setattr(agents, "train", trains)
    monkeypatch.setattr(lavagrid_agents, "_train_blockers", lambda study, members, *rest: members)
    lavagrid_agents.train_agents(study, make_split(study).train, tmp_path, replication=0)
    assert trained == {
        "members-r0.safetensors": (0.0, True),
        "dropout-r0.safetensors": (0.5, False),
    }


def test_a_damaged_part_of_a_run_says_what_to_remove(tmp_path):
    part = tmp_path / "parts" / "r0"
    part.mkdir(parents=True)
    (part / "episodes.parquet").write_bytes(b"half")
    with pytest.raises(ValueError, match="not a whole Parquet file") as error:
        lavagrid.merge(SMALL, tmp_path)
    assert f"; remove {part / 'episodes.parquet'}, and hotoven reproduce" in str(error.value)
    source = tmp_path / "agents" / "levels2-r0.safetensors"
    source.parent.mkdir()
    source.write_bytes(b"half")
    with pytest.raises(ValueError, match="not a whole safetensors") as error:
        lavagrid_agents.load_ensemble(SMALL, tmp_path, 2, 0)
    assert f"; remove {source}, and hotoven train with --resume" in str(error.value)
    checkpoint = tmp_path / "checkpoints" / "members-r0.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"half")
    seen = make_split(SMALL).train
    with pytest.raises(ValueError, match="not a whole safetensors") as error:
        lavagrid_agents._train_role(SMALL, SMALL.dqn, seen, tmp_path, 0, lavagrid_agents.MEMBERS)
    assert f"; remove {checkpoint}, and hotoven reproduce" in str(error.value)


def test_agents_that_have_played_are_needed_only_to_play_again(tmp_path):
    study = replace(SMALL, num_replications=1)
    with pytest.raises(ValueError, match="has no agents of 2 levels, replication 1"):
        lavagrid.check_agents(study, tmp_path, again=False)
    (tmp_path / "parts" / "r0").mkdir(parents=True)
    (tmp_path / "parts" / "r0" / "episodes.parquet").touch()
    lavagrid.check_agents(study, tmp_path, again=False)
    with pytest.raises(ValueError, match="has no agents of 2 levels, replication 1"):
        lavagrid.check_agents(study, tmp_path, again=True)


def test_agents_are_trained_that_are_to_play_or_else_all_that_are_gone(tmp_path):
    study = replace(SMALL, num_replications=3)

    def touch(*names: str) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    assert lavagrid.untrained(study, tmp_path) == [0, 1, 2]
    touch("parts/r0/episodes.parquet")  # a run that grew: its first agents are gone
    assert lavagrid.untrained(study, tmp_path) == [1, 2]
    for size in study.sizes:
        touch(f"agents/levels{size}-r1.safetensors")
    assert lavagrid.untrained(study, tmp_path) == [1, 2]  # their blockers' calibration is not told
    touch("parts/r1/calibration.json", "parts/r1/episodes.parquet")
    assert lavagrid.untrained(study, tmp_path) == [2]
    touch("parts/r2/episodes.parquet")
    assert lavagrid.untrained(study, tmp_path) == [0, 2]


def test_agents_whose_calibration_is_gone_are_trained_again(tmp_path, monkeypatch):
    again = []
    monkeypatch.setattr(lavagrid, "train_agents", lambda *rest: again.append(rest[-1]))
    study = replace(SMALL, sizes=(2,))
    with Run.open(tmp_path / "run", {}) as folder:
        for name in ("agents/levels2-r0.safetensors", "parts/r0/calibration.json"):
            (folder.path / name).parent.mkdir(parents=True)
            (folder.path / name).touch()
        lavagrid.train(study, folder)
        assert not again
        (folder.path / "parts" / "r0" / "calibration.json").unlink()
        lavagrid.train(study, folder)
        assert again == [0]


def test_agents_that_diverge_are_named_by_their_levels(tmp_path, monkeypatch):
    def diverges(*rest: Any) -> None:
        raise agents.TrainingDiverged("the loss or params of agents [4] became NaN")

    monkeypatch.setattr(agents, "train", diverges)
    study = replace(SMALL, num_members=3)
    seen = make_split(study).train
    with pytest.raises(agents.TrainingDiverged) as error:
        lavagrid_agents._train_role(study, study.dqn, seen, tmp_path, 0, lavagrid_agents.MEMBERS)
    assert str(error.value) == (
        "the loss or params of agents [4] became NaN; "
        "agents 0 to 2 of 2, 3 to 5 of 4 training levels"
    )


def test_steps_of_other_levels_name_both_files(tmp_path):
    test = make_split(SMALL).test
    steps = pa.table({"level_index": [0, 5, 5], "level_id": [test.ids[0], test.ids[5], 7]})
    files = (tmp_path / "steps.parquet", steps, tmp_path / "test.safetensors", test)
    with pytest.raises(ValueError) as error:
        parts.check_recorded(*files)
    assert str(error.value).startswith(
        f"{tmp_path}/steps.parquet was not recorded on the levels of {tmp_path}/test.safetensors: "
        "its level 5 has id 7;"
    )
    parts.check_recorded(files[0], steps.slice(0, 2), *files[2:])
    for index in (-1, 6):
        wrong = pa.table({"level_index": [index], "level_id": [test.ids[0]]})
        with pytest.raises(ValueError, match=f"its level {index} has id"):
            parts.check_recorded(files[0], wrong, *files[2:])


def test_every_blocker_has_the_threshold_of_the_study():
    study = replace(SMALL, num_members=2, block_threshold=0.25)
    nets = make_nets(study)
    keys = jax.random.split(jax.random.key(0), 2)
    ensemble = lavagrid_agents.Ensemble(
        jax.vmap(nets.member.init)(keys), nets.dropout.init(keys[0]), nets.blocker.init(keys[0])
    )
    found = lavagrid_plays.policies(study, nets, ensemble)
    blocked = {name: policy for name, policy in found.items() if name.endswith("+blocker")}
    assert len(blocked) == 4
    for policy in blocked.values():
        np.testing.assert_array_equal(policy.threshold, 0.25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": ()}, "sizes must be different, growing and from 2 to 2147483647, got []"),
        (
            {"sizes": (4, 2)},
            "sizes must be different, growing and from 2 to 2147483647, got [4, 2]",
        ),
        (
            {"sizes": (1, 4)},
            "sizes must be different, growing and from 2 to 2147483647, got [1, 4]",
        ),
        ({"num_members": 0}, "num_members must be at least 1, got 0"),
        (
            {"tune": True, "num_validation_levels": 0},
            "tune needs num_validation_levels of at least 1, got 0",
        ),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295, got 4294967296"),
        ({"seed": -1}, "seed must be from 0 to 4294967295, got -1"),
        ({"num_members": 10**11}, "num_members must be at most 10000, got 100000000000"),
        ({"num_replications": 10**9}, "num_replications must be at most 10000, got 1000000000"),
        (
            {"dqn": DQNConfig(hidden=())},
            "dqn.hidden must be a layer for MC-dropout, or several, got ()",
        ),
        ({"block_threshold": 1.5}, "block_threshold must be from 0 to 1, got 1.5"),
    ],
)
def test_an_impossible_setting_names_what_is_allowed(settings, message):
    with pytest.raises(ValueError) as error:
        replace(SMALL, **settings)
    assert str(error.value) == message
