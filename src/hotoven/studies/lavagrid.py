"""The gridworld study as plain data, and its one way through: train, block, play, tell.

Every stage writes its result into the run's folder and is skipped where the result is there, so
that a killed run goes on where it stopped and ends with the same bytes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jax.tree_util import Partial

from hotoven import agents, levels
from hotoven.envs.lavagrid import LavaGrid
from hotoven.evaluation import findings, outcomes, scores
from hotoven.evaluation.knowing import read_recorded
from hotoven.evaluation.live import Said
from hotoven.evaluation.prediction import Calibration, calibration
from hotoven.evaluation.promise import Promise, catastrophe_peaks, conformal_threshold
from hotoven.evaluation.rollout import Episodes, play, record
from hotoven.learners.danger import DangerConfig, make_danger
from hotoven.learners.dqn import DQNConfig, make_dqn, make_net
from hotoven.mechanisms.blocker import Blocker
from hotoven.mechanisms.dropout import MCDropout
from hotoven.mechanisms.mean import Mean
from hotoven.mechanisms.member import Member
from hotoven.mechanisms.vote import Vote
from hotoven.progress import stage, tell
from hotoven.report import animate, figures
from hotoven.runs import GROWS, Run, changes, filled
from hotoven.storage import (
    as_written,
    read_json,
    read_table,
    write_bytes,
    write_json,
    write_table,
)
from hotoven.studies.parts import (
    BY_HAND,
    agent_key,
    check_recorded,
    check_seeds,
    check_sizes,
    level_path,
    made_again_without,
    named,
    repeat,
    settings,
    stack,
    stored_test_levels,
    training_note,
    watched_size,
    write_levels,
)
from hotoven.types import OUTCOMES, LevelSet, Net, PyTree
from hotoven.watch import Watched

# Columns without which a stored table is none of a study's.
STEP_COLUMNS = (
    *("set", "method", "num_train_levels", "replication", "level_index", "level_id", "step"),
    *("action", "outcome", "members", "blocker", "dangerous"),
)
RATE_COLUMNS = (
    *("set", "method", "num_train_levels", "num_levels", "num_replications", "resampled"),
    *("catastrophe_rate", "solved_rate"),
)
METHODS = ("single", "mean", "vote", "mc_dropout")
BLOCKED = "+blocker"
TRACED = ("single", "mean", "mean+blocker")  # methods whose episodes are recorded step by step
WATCHED = "mean"  # the method that asks a person for help
PROMISED = 0.2  # share of catastrophes that its alarms may leave unannounced, by default
HELP_STEPS = 5  # for which a person takes over, by default


@dataclass(frozen=True)
class LavaGridStudy:
    """The gridworld study's settings."""

    env: LavaGrid = LavaGrid()  # the environment
    dqn: DQNConfig = DQNConfig()  # training of one agent
    danger: DangerConfig = DangerConfig()  # the blocker's classifier
    sizes: tuple[int, ...] = (10, 100, 1000)  # numbers of training levels, growing
    num_members: int = 9  # agents in an ensemble
    num_replications: int = 1  # independent ensembles for each number of training levels
    mc_dropout: float = 0.1  # share of units dropped by the MC-dropout agent
    block_threshold: float = 0.5  # the blocker blocks above this probability
    num_test_levels: int = 1000  # unseen levels, never used for tuning
    num_validation_levels: int = 1000  # unseen levels for tuning
    tune: bool = False  # play the validation levels in place of the test levels
    num_train_levels_played: int = 1000  # training levels played in evaluation, at most
    num_traced_levels: int = 100  # test levels recorded step by step
    num_chunks: int = 20  # pieces of one training; checkpoints are written between them
    level_seed: int = 0  # which levels
    seed: int = 0  # which agents

    def __post_init__(self) -> None:
        check_sizes(self.sizes, least=2)
        check_seeds(self.seed, self.level_seed)
        for name in (
            "num_members",
            "num_replications",
            "num_test_levels",
            "num_train_levels_played",
            "num_traced_levels",
            "num_chunks",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_validation_levels < 0:
            raise ValueError(
                f"num_validation_levels must be at least 0, got {self.num_validation_levels}"
            )
        for name in ("num_members", "num_replications"):
            if getattr(self, name) > 10_000:
                raise ValueError(f"{name} must be at most 10000, got {getattr(self, name)}")
        if not self.dqn.hidden:
            raise ValueError("dqn.hidden must be a layer for MC-dropout, or several, got ()")
        if self.tune and self.num_validation_levels < 1:
            raise ValueError("tune needs num_validation_levels of at least 1, got 0")
        if not 0.0 < self.mc_dropout < 1.0:
            raise ValueError(f"mc_dropout must be between 0 and 1, got {self.mc_dropout}")
        if not 0.0 <= self.block_threshold <= 1.0:
            raise ValueError(f"block_threshold must be from 0 to 1, got {self.block_threshold}")


# Found on training and validation levels: docs/differences.md, "How the presets were chosen".
_QUICK = LavaGridStudy(
    dqn=DQNConfig(
        filters=(16, 32),
        hidden=(128,),
        learning_rate=1e-3,
        learning_rate_end=0.1,
        gamma=0.8,
        batch_size=32,
        replay_capacity=20_480,
        num_updates=8000,
        num_envs=128,
        steps_per_update=16,
        target_period=128,
        epsilon_decay=0.9995,
        double_q=False,
    )
)
PRESETS = {
    "quick": _QUICK,
    "full": replace(
        _QUICK,
        dqn=replace(
            _QUICK.dqn,
            learning_rate=1.5e-3,
            learning_rate_end=0.0,
            batch_size=64,
            replay_capacity=51_200,
            num_updates=24_000,
            epsilon_decay=0.9997,
        ),
        sizes=(5, 20, 100, 1000, 10_000),
        num_replications=5,
    ),
}


class Ensemble(NamedTuple):
    """Everything trained for one number of levels in one replication."""

    members: PyTree  # leaves [M, ...]
    dropout: PyTree  # one network's params
    blocker: PyTree  # the classifier's params


class Nets(NamedTuple):
    """The networks that an Ensemble's params belong to."""

    member: Net
    dropout: Net
    blocker: Net


def run(study: LavaGridStudy, folder: Run) -> list[findings.Finding]:
    """Runs the study in that folder and returns its findings; skips what is already there."""
    _train(study, folder, _unplayed(study, folder.path))
    evaluate(study, folder)
    merge(study, folder.path)
    return report(study, folder.path)


def train(study: LavaGridStudy, folder: Run) -> None:
    """Trains and saves the agents that `untrained` names."""
    _train(study, folder, untrained(study, folder.path))


def untrained(study: LavaGridStudy, path: Path) -> list[int]:
    """The replications without agents: of those that are to play or, where all have played, of all.

    In a run that has got more replications, agents that have played may be gone for good.
    """
    asked = _unplayed(study, path) or range(study.num_replications)
    return [one for one in asked if not _is_trained(study, path, one)]


def _unplayed(study: LavaGridStudy, path: Path) -> list[int]:
    return [one for one in range(study.num_replications) if not _is_played(path, one)]


def _is_trained(study: LavaGridStudy, path: Path, replication: int) -> bool:
    told = _part_path(path, replication) / "calibration.json"
    paths = [_agents_path(path, size, replication) for size in study.sizes]
    return all(one.exists() for one in [*paths, told])


def _train(study: LavaGridStudy, folder: Run, replications: Iterable[int]) -> None:
    split = make_split(study)
    write_levels(folder, split._asdict())
    for role, chosen in split._asdict().items():
        tell(f"{role} levels: {len(chosen)}, {chosen.num_duplicates} duplicates dropped")
    for replication in replications:
        if not _is_trained(study, folder.path, replication):
            ensembles = _train_all(study, split.train, folder.path, replication)
            for size, ensemble in zip(study.sizes, ensembles, strict=True):
                path = _agents_path(folder.path, size, replication)
                agents.save_params(path, ensemble._asdict(), _about(study, size, replication))
        for role in ("members", "dropout"):
            _checkpoint_path(folder.path, role, replication).unlink(missing_ok=True)


def evaluate(study: LavaGridStudy, folder: Run) -> None:
    """Plays every level with every method, for every replication that has no table yet.

    Raises:
      ValueError: agents are missing or damaged.
    """
    split = make_split(study)
    for replication in _unplayed(study, folder.path):
        _evaluate_all(study, split, folder.path, replication)


def _is_played(path: Path, replication: int) -> bool:
    return (_part_path(path, replication) / "episodes.parquet").exists()


def check_agents(study: LavaGridStudy, path: Path, again: bool) -> None:
    """Raises ValueError if an agent that is to play, or play `again`, is missing or damaged."""
    for replication in range(study.num_replications):
        if _is_played(path, replication) and not again:
            continue  # in a run that has got more replications those agents may be gone
        for size in study.sizes:
            if not _agents_path(path, size, replication).exists():
                raise ValueError(
                    f"{path} has no agents of {size} levels, replication {replication + 1}: "
                    f"{_TRAINS_THEM}"
                )
            load_ensemble(study, path, size, replication)
        if not _is_trained(study, path, replication):
            raise ValueError(
                f"{path} does not say how replication {replication + 1}'s blockers are calibrated: "
                f"{_TRAINS_THEM}"
            )


_TRAINS_THEM = "hotoven train with --resume trains them"


def make_split(study: LavaGridStudy) -> levels.Split:
    """The study's training, validation and test levels; the last are the validation's in tuning."""
    split = levels.split(
        study.env,
        study.sizes[-1],
        study.num_validation_levels,
        study.num_test_levels,
        study.level_seed,
    )
    return split._replace(test=split.validation) if study.tune else split


def test_levels(study: LavaGridStudy, path: Path) -> LevelSet:
    """The test levels of the run at `path`."""
    return stored_test_levels(path, study.env, lambda: make_split(study).test)


def check_levels(study: LavaGridStudy) -> None:
    """Raises ValueError if there are too few different levels for the study."""
    make_split(study)


def merge(study: LavaGridStudy, path: Path) -> None:
    """Writes the tables of the run at `path` from those of its replications."""
    parts = [_part_path(path, replication) for replication in range(study.num_replications)]
    episodes = pa.concat_tables([_read_part(part, "episodes") for part in parts])
    for name, table in (
        ("episodes", episodes),
        ("steps", _read_part(parts[0], "steps")),
        ("rates", outcomes.rates(episodes)),
        ("agent_rates", outcomes.agent_rates(episodes)),
        ("differences", outcomes.paired_differences(episodes)),
    ):
        write_table(path / f"{name}.parquet", dict(zip(table.column_names, table, strict=True)))
    told = []
    for replication, part in enumerate(parts):
        with made_again_without(part / "calibration.json", "train"):
            told += [
                {"replication": replication, **row} for row in read_json(part / "calibration.json")
            ]
    write_json(path / "calibration.json", told)


def unmerge(study: LavaGridStudy, path: Path) -> None:
    """Writes the tables of the replications of the run at `path` again from its merged ones.

    For a finished run, of `study` as it was then, that is to have more replications and was stored
    without its parts.

    Raises:
      ValueError: a table is missing, damaged or not that of such a run.
    """
    source = path / "episodes.parquet"
    episodes = read_table(source, outcomes.EPISODE_COLUMNS)
    steps = read_table(path / "steps.parquet", STEP_COLUMNS)
    replications = range(study.num_replications)
    found = sorted(episodes["replication"].unique().to_pylist())
    if found != list(replications):
        raise ValueError(
            f"{source} must hold the episodes of {study.num_replications} replications, holds "
            f"those of {', '.join(map(str, found)) or 'none'}"
        )
    told = _calibrations(study, path / "calibration.json")
    for replication in replications:
        if _is_played(path, replication):
            continue
        tables = {"episodes": episodes.filter(pc.field("replication") == replication)}
        if replication == 0:  # those of the others are not kept
            tables = {"steps": steps, **tables}
        folder = _part_path(path, replication)
        write_json(folder / "calibration.json", told[replication])
        for name, table in tables.items():  # the episodes last: they say that all is there
            columns = dict(zip(table.column_names, table.itercolumns(), strict=True))
            write_table(folder / f"{name}.parquet", columns)


def _calibrations(study: LavaGridStudy, path: Path) -> list[list[dict[str, Any]]]:
    """How the blockers of every replication and size are calibrated, from a run's table of it."""
    rows = read_json(path)
    who = [(one, size) for one in range(study.num_replications) for size in study.sizes]
    each = len(study.sizes)
    with as_written(path):
        for place, row in enumerate(rows):
            row.setdefault("replication", place // each)  # older files tell it by order alone
        if [(row.pop("replication"), row["num_train_levels"]) for row in rows] != who:
            raise ValueError(
                f"must tell of {study.num_replications} replications and of {study.sizes} levels"
            )
    return [rows[start : start + each] for start in range(0, len(rows), each)]


def _read_part(part: Path, name: str) -> pa.Table:
    with made_again_without(part / "episodes.parquet"):  # written last, after the steps
        return read_table(part / f"{name}.parquet")


def report(study: LavaGridStudy, path: Path) -> list[findings.Finding]:
    """Writes findings and figures of the run at `path` from its tables."""
    episodes = read_table(path / "episodes.parquet", outcomes.EPISODE_COLUMNS)
    found = findings.lavagrid_findings(episodes)
    write_json(path / "findings.json", findings.to_json(found))
    write_bytes(path / "findings.md", findings.to_markdown(found).encode())
    rates, steps = (
        read_table(path / f"{name}.parquet", needed)
        for name, needed in (("rates", RATE_COLUMNS), ("steps", STEP_COLUMNS))
    )
    test = test_levels(study, path)
    check_recorded(path / "steps.parquet", steps, level_path(path, "test"), test)
    told = [row for rows in _calibrations(study, path / "calibration.json") for row in rows]
    written = figures.write_figures(
        path / "figures", rates, steps, test, study.env, told, study.block_threshold
    )
    notes = [*written.notes, *_write_film(study, path / "figures", steps, test)]
    write_bytes(path / "figures" / "notes.txt", "".join(f"{note}\n" for note in notes).encode())
    return found


def _write_film(study: LavaGridStudy, folder: Path, steps: pa.Table, test: LevelSet) -> list[str]:
    """A single agent of the smallest training set on a sample of unseen levels, as GIF and MP4."""
    sample = animate.pick_episodes(animate.episodes_of(steps, "single", study.sizes[0]))
    frames = animate.film(study.env, test, sample)
    animate.write_gif(folder / "unseen.gif", frames)
    animate.write_mp4(folder / "unseen.mp4", frames)
    return [f"unseen.gif, unseen.mp4: {sample.caption}"]


MEMBERS, DROPOUT, BLOCKER, PLAY = range(4)  # roles of random keys


def _agents_path(path: Path, size: int, replication: int) -> Path:
    return path / "agents" / f"levels{size}-r{replication}.safetensors"


def _part_path(path: Path, replication: int) -> Path:
    return path / "parts" / f"r{replication}"


def _checkpoint_path(path: Path, role: str, replication: int) -> Path:
    return path / "checkpoints" / f"{role}-r{replication}.safetensors"


def _train_all(
    study: LavaGridStudy, seen: LevelSet, path: Path, replication: int
) -> list[Ensemble]:
    """The ensembles of one replication, one per number of training levels."""
    members = _train_agents(study, study.dqn, seen, path, replication, MEMBERS)
    dropout = _train_agents(study, _dropout_config(study), seen, path, replication, DROPOUT)
    blockers = _train_blockers(study, members, seen, path, replication)
    return [
        jax.tree.map(lambda leaf, index=index: leaf[index], Ensemble(members, dropout, blockers))
        for index in range(len(study.sizes))
    ]


def load_ensemble(study: LavaGridStudy, path: Path, size: int, replication: int) -> Ensemble:
    """The agents trained on `size` levels in one replication of the run at `path`.

    Raises:
      ValueError: there are none, or they are damaged or of other settings.
    """
    nets = make_nets(study)
    key = jax.random.key(0)
    keys = jax.random.split(key, study.num_members)
    pattern = Ensemble(
        jax.eval_shape(jax.vmap(nets.member.init), keys),
        jax.eval_shape(nets.dropout.init, key),
        jax.eval_shape(nets.blocker.init, key),
    )
    source = _agents_path(path, size, replication)
    with made_again_without(source, "train"):
        params, about = agents.load_params(source, pattern._asdict())
    young = _about(LavaGridStudy(), size, replication)  # a setting that is not there is its default
    stored = filled(about, young)
    stored["settings"].pop(GROWS, None)  # was kept once
    different = changes(stored, _about(study, size, replication))
    if different:
        raise ValueError(f"{source} holds other agents: {', '.join(different)}")
    return Ensemble(**params)


def watched(
    study: LavaGridStudy,
    path: Path,
    size: int | None = None,
    promise: float | None = None,
    threshold: float | None = None,
) -> Watched:
    """The first replication's agents of the run at `path`, and what it takes to watch them.

    They act by the mean. The score is "mean and std" of the members' largest Q-values, the
    threshold the one given, or conformal for `promise`, chosen on the recorded test levels; the
    others are there to be watched.

    Raises:
      ValueError: there are no such agents, too few deaths for that promise, or damaged files.
    """
    there = [one for one in study.sizes if _agents_path(path, one, 0).exists()]
    size = watched_size(path, study.sizes, there, size)
    promised, first = BY_HAND, 0
    if threshold is None:
        share = PROMISED if promise is None else promise
        chosen = _promise(study, path, size, share)
        threshold, first = chosen.threshold, study.num_traced_levels
        promised = (
            f"On average at most {share:.0%} of catastrophes come without an alarm, where nobody "
            f"helps (conformal, from {chosen.num_catastrophes} deaths on unseen levels 0 to "
            f"{first - 1})."
        )
    nets = make_nets(study)
    ensemble = load_ensemble(study, path, size, 0)
    return Watched(
        env=study.env,
        painter=study.env,
        levels=test_levels(study, path),
        policy=policies(study, nets, ensemble)[WATCHED],
        probe=Partial(partial(_said, nets), ensemble.members, ensemble.blocker),
        key=agent_key(study.seed, PLAY, 0, size, 0),
        coefficients=scores.WITH_STD,
        threshold=threshold,
        promise=promised,
        num_train_levels=size,
        first_level=first,
        help_steps=HELP_STEPS,
        preferences="Q-values of actions",
        actions=study.env.action_names,
    )


def _promise(study: LavaGridStudy, path: Path, size: int, share: float) -> Promise:
    """The threshold of that share, chosen on the recorded test levels."""
    if not 0.0 < share < 1.0:
        raise ValueError(f"promise must be between 0 and 1, got {share:g}")
    source = path / "steps.parquet"
    steps = read_table(source, STEP_COLUMNS)
    with as_written(source):
        peaks = _peaks(study, steps, size)
        if np.isnan(peaks).any():
            raise ValueError("members must hold numbers")
    chosen = conformal_threshold(peaks, share)
    if chosen.vacuous:
        raise ValueError(
            f"{source} holds {len(peaks)} deaths of {WATCHED!r} trained on {size} levels, too few "
            f"to promise {share:.0%}: give a threshold, or a larger promise"
        )
    return chosen


def _peaks(study: LavaGridStudy, steps: pa.Table, size: int) -> np.ndarray:
    """The largest score before each recorded catastrophe of the agents that are watched."""
    steps = steps.filter((pc.field("method") == WATCHED) & (pc.field("num_train_levels") == size))
    q = np.stack(steps["members"].to_numpy()) if steps.num_rows else np.zeros((0, 0))
    values = q.reshape(len(q), study.num_members, study.env.num_actions).max(axis=2)
    for name, column in (("mu", scores.mean_value(values)), ("sigma", scores.std_value(values))):
        steps = steps.append_column(name, pa.array(column.astype(np.float32)))
    recorded = read_recorded(steps, "test", size, WATCHED, study.env.max_steps, ("mu", "sigma"))
    score = scores.score(recorded.columns["mu"], recorded.columns["sigma"], *scores.WITH_STD)
    # an alarm on the fatal step's own observation is in time: it comes before the action
    return catastrophe_peaks(score, recorded.num_steps, recorded.died, min_lead=0)


def _said(nets: Nets, members: PyTree, blocker: PyTree, state: PyTree, obs: PyTree) -> Said:
    """What is shown of a state; a member's value is its largest Q-value."""
    q = jax.vmap(nets.member.apply, (0, None))(members, obs)
    return Said(q.max(axis=1), q, jax.nn.sigmoid(nets.blocker.apply(blocker, obs)))


def _about(study: LavaGridStudy, size: int, replication: int) -> dict[str, Any]:
    """What agents are stored with, and known by; not by how many other replications there are."""
    decisive = {name: value for name, value in settings(study).items() if name != GROWS}
    return {"settings": decisive, "num_train_levels": size, "replication": replication}


def make_nets(study: LavaGridStudy) -> Nets:
    """The networks of the study."""
    return Nets(
        make_net(study.dqn, study.env),
        make_net(_dropout_config(study), study.env),
        make_danger(study.danger, study.env).net,
    )


def _dropout_config(study: LavaGridStudy) -> DQNConfig:
    return replace(study.dqn, dropout=study.mc_dropout)


def _train_agents(
    study: LavaGridStudy,
    config: DQNConfig,
    seen: LevelSet,
    path: Path,
    replication: int,
    role: int,
) -> PyTree:
    """Params of every size's agents: members [sizes, M, ...], or one with dropout [sizes, ...]."""
    each = study.num_members if role == MEMBERS else 1
    who = [(size, member) for size in study.sizes for member in range(each)]
    keys = jnp.stack([agent_key(study.seed, role, replication, *agent) for agent in who])
    chunks = agents.Chunks(config.num_iterations, -(-config.num_iterations // study.num_chunks))
    words = "agents" if role == MEMBERS else "MC-dropout agents"
    checkpoint = _checkpoint_path(path, "members" if role == MEMBERS else "dropout", replication)
    title = f"train {len(who)} {words}, replication {replication + 1}"
    with stage(title, config.num_updates) as shown, named(who, checkpoint):
        params = agents.train(
            config,
            make_dqn(config, study.env),
            seen.levels,
            np.array([size for size, _ in who]),
            keys,
            chunks,
            checkpoint,
            lambda chunk: shown.show(
                chunk.num_updates, training_note(study.sizes, each, chunk, "lava")
            ),
        )
    if role == DROPOUT:
        return params
    return jax.tree.map(lambda leaf: leaf.reshape(len(study.sizes), each, *leaf.shape[1:]), params)


def _train_blockers(
    study: LavaGridStudy, members: PyTree, seen: LevelSet, path: Path, replication: int
) -> PyTree:
    """The classifiers' params, leaves [sizes, ...], and their calibration, written to the folder.

    Two classifiers are fitted per size: one on all training levels, which is used, and one on a
    part of them, whose calibration is measured on the rest. Both explore with the ensemble's mean.
    """
    nets, danger = make_nets(study), make_danger(study.danger, study.env)
    sizes = np.array(study.sizes)
    fitted = np.maximum(1, np.floor(sizes * (1.0 - study.danger.calibration_share)).astype(int))
    fitted = np.minimum(fitted, sizes - 1)
    level_tree = jax.tree.map(jnp.asarray, seen.levels)

    def experience(params: PyTree, first: jax.Array, count: jax.Array, key: jax.Array) -> PyTree:
        window = jax.tree.map(lambda leaf: jnp.roll(leaf, -first, axis=0), level_tree)
        q = lambda obs: jax.vmap(nets.member.apply, (0, None))(params, obs).mean(axis=0)  # noqa: E731
        return danger.collect(lambda obs: q(obs).argmax(), window, count, key)

    @jax.jit
    def all_sizes(params: PyTree, fit_sizes: jax.Array, sizes: jax.Array, keys: jax.Array) -> Any:
        def one(params: PyTree, num_fit: jax.Array, size: jax.Array, key: jax.Array) -> Any:
            k_all, k_part, k_rest, k_fit = jax.random.split(key, 4)
            nothing = jnp.int32(0)
            whole = danger.fit(experience(params, nothing, size, k_all), k_fit)
            part = danger.fit(experience(params, nothing, num_fit, k_part), k_fit)
            rest = experience(params, num_fit, size - num_fit, k_rest)
            # in blocks: the taps of all rows at once would take gigabytes
            logits = jax.lax.map(partial(danger.net.apply, part), rest.obs, batch_size=1024)
            chosen = jnp.take_along_axis(logits, rest.action[:, None], axis=1)[:, 0]
            return whole, jax.nn.sigmoid(chosen), rest.catastrophe

        return jax.vmap(one)(params, fit_sizes, sizes, keys)

    keys = jnp.stack([agent_key(study.seed, BLOCKER, replication, size, 0) for size in study.sizes])
    with stage(f"train {len(sizes)} blockers, replication {replication + 1}", 1) as shown:
        params, probability, happened = all_sizes(
            members, jnp.asarray(fitted, jnp.int32), jnp.asarray(sizes, jnp.int32), keys
        )
        finite = [
            np.isfinite(leaf).reshape(len(sizes), -1).all(axis=1)
            for leaf in [*jax.tree.leaves(params), probability]
        ]
        diverged = sizes[~np.logical_and.reduce(finite)]
        if diverged.size:
            raise agents.TrainingDiverged(
                f"a blocker's params became NaN or infinite, after training on {diverged.tolist()} "
                f"levels (danger.learning_rate {study.danger.learning_rate})"
            )
        told = [
            calibration(p, h, study.block_threshold)
            for p, h in zip(np.asarray(probability), np.asarray(happened), strict=True)
        ]
        shown.show(1, _calibration_note(study, told))
    write_json(
        _part_path(path, replication) / "calibration.json",
        [
            {"num_train_levels": size, "num_fit_levels": int(num_fit), **told_one._asdict()}
            for size, num_fit, told_one in zip(study.sizes, fitted, told, strict=True)
        ],
    )
    return params


def _calibration_note(study: LavaGridStudy, told: list[Calibration]) -> str:
    return "; ".join(
        f"{size} levels: calibration error {findings.number_text(100 * one.expected_error)}% "
        "on held-out training levels"
        for size, one in zip(study.sizes, told, strict=True)
    )


def policies(study: LavaGridStudy, nets: Nets, ensemble: Ensemble) -> dict[str, Any]:
    """Every method's policy; `single` and `single+blocker` have leaves [M, ...], one per member."""
    found = {
        "single": Member(ensemble.members, nets.member),
        "mean": Mean(ensemble.members, nets.member),
        "vote": Vote(ensemble.members, nets.member),
        "mc_dropout": MCDropout(ensemble.dropout, nets.dropout, study.num_members),
    }
    threshold = jnp.float32(study.block_threshold)
    guard = lambda inner: Blocker(inner, ensemble.blocker, threshold, nets.blocker)  # noqa: E731
    blocked = {f"{name}{BLOCKED}": guard(policy) for name, policy in found.items()}
    # the classifier is shared by the members, so its leaves get the members' axis too
    many = lambda leaf: jnp.broadcast_to(leaf, (study.num_members, *leaf.shape))  # noqa: E731
    blocked["single+blocker"] = Blocker(
        found["single"],
        jax.tree.map(many, ensemble.blocker),
        jnp.full(study.num_members, threshold),
        nets.blocker,
    )
    return found | blocked


def make_players(study: LavaGridStudy) -> dict[str, Callable[..., Episodes]]:
    """One compiled player per method: (policy, levels, key) -> Episodes, [M, L] for single ones."""
    one = partial(play, study.env)
    many = jax.vmap(one, (0, None, None))
    names = [*METHODS, *(f"{name}{BLOCKED}" for name in METHODS)]
    return {name: jax.jit(many if name.startswith("single") else one) for name in names}


def _evaluate_all(study: LavaGridStudy, split: levels.Split, path: Path, replication: int) -> None:
    """Every method on every test level, and on the training levels: the replication's tables."""
    nets, players = make_nets(study), make_players(study)
    recorder = _make_recorder(study, nets)
    rows: list[dict[str, Any]] = []
    traces: list[dict[str, Any]] = []
    with stage(f"play, replication {replication + 1}", len(study.sizes)) as shown:
        for done, size in enumerate(study.sizes, start=1):
            ensemble = load_ensemble(study, path, size, replication)
            acting = policies(study, nets, ensemble)
            key = agent_key(study.seed, PLAY, replication, size, 0)
            chosen, parts = _levels_to_play(study, split, size)
            where = {"num_train_levels": size, "replication": replication}
            for method, policy in acting.items():
                episodes = players[method](policy, chosen.levels, key)
                for name, part in parts.items():
                    label = {"set": name, **where, "method": method}
                    rows += _episode_rows(study, label, levels.take(chosen, part), episodes, part)
            traced = levels.take(split.test, slice(0, study.num_traced_levels))
            for method in TRACED:
                label = {"set": "test", **where, "method": method}
                trace = recorder(acting[method], ensemble, traced.levels, key, method=method)
                traces.append(_step_rows(study, label, traced, trace))
            shown.show(done, f"{size} training levels")
    folder = _part_path(path, replication)
    write_table(folder / "steps.parquet", stack(traces))
    write_table(folder / "episodes.parquet", stack(rows))


def _levels_to_play(
    study: LavaGridStudy, split: levels.Split, size: int
) -> tuple[LevelSet, dict[str, slice]]:
    """Test levels, then training levels, and which are which.

    The training levels are repeated up to a number that is the same for every size, so that one
    compiled program plays them all; the repeats belong to no part.
    """
    num_seen = min(size, study.num_train_levels_played)
    num_test, num_room = len(split.test), min(study.sizes[-1], study.num_train_levels_played)
    seen = levels.take(split.train, np.resize(np.arange(num_seen), num_room))
    parts = {"test": slice(0, num_test), "train": slice(num_test, num_test + num_seen)}
    return levels.concatenate(split.test, seen), parts


def _make_recorder(study: LavaGridStudy, nets: Nets) -> Callable[..., Any]:
    """(policy, ensemble, levels, key, method) -> Trace with all networks' outputs as probes."""

    @partial(jax.jit, static_argnames="method")
    def recorder(
        policy: Any, ensemble: Ensemble, chosen: PyTree, key: jax.Array, method: str
    ) -> Any:
        if method.startswith("single"):
            policy = jax.tree.map(lambda leaf: leaf[0], policy)

        def probe(state: PyTree, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
            q = jax.vmap(nets.member.apply, (0, None))(ensemble.members, obs)
            return q, jax.nn.sigmoid(nets.blocker.apply(ensemble.blocker, obs))

        return record(study.env, policy, chosen, key, probe)

    return recorder


def _episode_rows(
    study: LavaGridStudy, where: dict[str, Any], chosen: LevelSet, episodes: Episodes, part: slice
) -> Iterator[dict[str, Any]]:
    """One block of rows of episodes.parquet per agent, from a part of the episodes."""
    arrays = jax.tree.map(lambda leaf: np.atleast_2d(np.asarray(leaf))[:, part], episodes)
    is_single = where["method"].startswith("single")
    for member in range(arrays.outcome.shape[0]):
        yield {
            **repeat(where | {"member": member if is_single else -1}, len(chosen)),
            "level_index": np.arange(len(chosen), dtype=np.int32),
            "level_id": chosen.ids,
            "outcome": np.array(OUTCOMES)[arrays.outcome[member]],
            "cause": np.array(study.env.causes)[arrays.cause[member]],
            **{
                name: getattr(arrays, name)[member]
                for name in Episodes._fields
                if name not in ("outcome", "cause")
            },
        }


def _step_rows(
    study: LavaGridStudy, where: dict[str, Any], chosen: LevelSet, trace: Any
) -> dict[str, Any]:
    """The valid steps of recorded episodes as rows of steps.parquet."""
    trace = jax.tree.map(np.asarray, trace)
    level, step = np.nonzero(trace.valid)
    at = lambda leaf: leaf[level, step]  # noqa: E731
    q, probability = trace.probes
    return {
        **repeat(where | {"member": 0 if where["method"].startswith("single") else -1}, len(level)),
        "level_index": level.astype(np.int32),
        "level_id": chosen.ids[level],
        "step": step.astype(np.int32),
        "action": at(trace.decision.action),
        "wanted": at(trace.decision.wanted),
        "outcome": np.array(OUTCOMES)[at(trace.outcome)],
        "cause": np.array(study.env.causes)[at(trace.cause)],
        "risk": at(trace.decision.risk),
        "intervened": at(trace.decision.intervened),
        "blocked": at(trace.decision.blocked),
        "preferences": at(trace.decision.preferences),
        "members": at(q).reshape(len(level), -1),
        "blocker": at(probability),
        "dangerous": at(trace.dangerous),
    }
