"""The CoinRun study as plain data, and its one way through: train, play, predict, help, tell.

Every stage writes its result into the run's folder and is skipped where the result is there, so
that a killed run goes on where it stopped and ends with the same bytes. What is computed from
tables alone stands in `evaluation.knowing`.

Axes: L levels, T steps, M ensemble members, A actions.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jax.tree_util import Partial

from hotoven import agents, levels
from hotoven.envs.coinrun import physics
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.coinrun.helpers import HELPERS
from hotoven.envs.coinrun.planner import NOTHING, NUM_MOVES
from hotoven.evaluation import coherence, findings, head, knowing, outcomes, scores
from hotoven.evaluation.alarms import peak_thresholds
from hotoven.evaluation.coinrun_findings import coinrun_findings
from hotoven.evaluation.coinrun_help_claims import AT_RANDOM
from hotoven.evaluation.help import Helped, Helper, Score, discrimination, play_with_help
from hotoven.evaluation.live import Said
from hotoven.evaluation.prediction import labels
from hotoven.evaluation.rollout import Probe, record_all
from hotoven.learners.danger import DangerConfig, make_danger
from hotoven.learners.ppo import PPOConfig, kept, make_net, make_ppo, output
from hotoven.mechanisms.acting import ACTING, outputs, policies
from hotoven.progress import stage
from hotoven.report import coinrun_figures, coinrun_watch
from hotoven.runs import Run, changes, filled, read_about
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
from hotoven.types import CATASTROPHE, LARGEST, OUTCOMES, AgentOutput, LevelSet, Net, PyTree, Trace
from hotoven.watch import Watched

DEALT: Final = 2048  # levels dealt to each set, of which it keeps as many as it needs
CHANCES: Final = (0.01, 0.03, 0.1)  # of a request in a step, where the planner is asked at random
PLANNER: Final = "planner"  # the helper who is asked at random, too
PREDICTED: Final = ("random_step", "mean")  # ways of acting whose danger is predicted, as the post
WATCHED: Final = "mean"  # the way of acting that asks for help
MOVES: Final = np.arange(NUM_MOVES)  # the actions that differ: from 9 on all do nothing
# What a run holds, in the order in which it is made.
TABLES: Final = (
    *("episodes", "steps", "rates", "agent_rates", "differences", "coherence", "help"),
    *("help_rates", "predictions", "roc", "comparisons", "alarms", "promises", "members"),
)
RECORDED: Final = ("test", "calibration", "shifted")  # sets whose steps are kept for it


@dataclass(frozen=True)
class CoinRunStudy:
    """The CoinRun study's settings."""

    env: CoinRun = CoinRun()  # the environment
    ppo: PPOConfig = PPOConfig()  # training of one agent
    danger: DangerConfig = DangerConfig()  # the classifier whose probability is one of the scores
    sizes: tuple[int, ...] = (10, 200)  # numbers of training levels, growing
    num_members: int = 5  # agents in an ensemble
    hold: int = 10  # steps for which random_hold keeps a member
    margin: float = 0.5  # mean_hysteresis keeps an action this much less likely than the best
    windows: tuple[int, ...] = (1, 3, 5, 10, 25)  # steps ahead in which a catastrophe counts
    alarm_window: int = 10  # the one of them that alarms and the learned score are made for
    num_test_levels: int = 1000  # unseen levels, never used for tuning
    num_calibration_levels: int = 1000  # unseen levels on which thresholds are chosen
    num_validation_levels: int = 500  # unseen levels for tuning, coefficients and the learned head
    num_shifted_levels: int = 500  # levels of the other mode, where a promise need not hold
    num_train_levels_played: int = 200  # episodes on training levels, each as often as that allows
    promises: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # shares left unannounced
    delta: float = 0.1  # learn-then-test may fail with this probability
    min_lead: int = 5  # steps before a death by which an alarm has to come to announce it
    helpers: tuple[str, ...] = tuple(HELPERS)  # asked for help; the planner always, at random, too
    help_steps: int = 10  # steps for which a helper takes over
    num_help_levels: int = 250  # test levels played with a helper, at most
    num_help_thresholds: int = 8  # from always asking to never asking
    num_inspected_levels: int = 100  # test levels of which each member's word is kept, at most
    tune: bool = False  # play the validation levels in place of the test levels
    num_chunks: int = 20  # pieces of one training; checkpoints are written between them
    level_seed: int = 0  # which levels
    seed: int = 0  # which agents

    def __post_init__(self) -> None:
        check_sizes(self.sizes, least=1)
        check_seeds(self.seed, self.level_seed)
        if not self.windows or list(self.windows) != sorted(set(self.windows)):
            raise ValueError(f"windows must be different and growing, got {list(self.windows)}")
        for name, least in (
            ("num_members", 2),  # a standard deviation and a disagreement need two
            ("hold", 1),
            ("num_test_levels", 2),
            ("num_calibration_levels", 2),
            ("num_validation_levels", 2),
            ("num_shifted_levels", 2),
            ("num_train_levels_played", 1),
            ("help_steps", 1),
            ("num_help_levels", 1),
            ("num_help_thresholds", 2),
            ("num_inspected_levels", 0),
            ("num_chunks", 1),
            ("min_lead", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("hold", "help_steps"):
            if getattr(self, name) > LARGEST:
                raise ValueError(f"{name} must be at most {LARGEST}, got {getattr(self, name)}")
        if self.windows[-1] > LARGEST:
            raise ValueError(f"windows must be at most {LARGEST} each, got {list(self.windows)}")
        if self.windows[0] < 1:
            raise ValueError(f"windows must be at least 1 each, got {list(self.windows)}")
        if self.alarm_window not in self.windows:
            raise ValueError(
                f"alarm_window must be one of windows {list(self.windows)}, got {self.alarm_window}"
            )
        given = set(self.helpers)
        if PLANNER not in given or not given <= set(HELPERS) or len(given) < len(self.helpers):
            raise ValueError(
                f"helpers must be some of {list(HELPERS)}, each once, the planner among them, "
                f"got {list(self.helpers)}"
            )
        if not all(0.0 < share < 1.0 for share in self.promises) or not self.promises:
            raise ValueError(f"promises must be between 0 and 1, got {list(self.promises)}")
        if list(self.promises) != sorted(set(self.promises)):
            raise ValueError(f"promises must be different and growing, got {list(self.promises)}")
        if self.min_lead >= self.env.max_steps:
            raise ValueError(
                f"min_lead must be below env.max_steps ({self.env.max_steps}), got {self.min_lead}"
            )
        if not 0.0 < self.delta < 1.0:
            raise ValueError(f"delta must be between 0 and 1, got {self.delta}")
        if not 0.0 <= self.margin <= 1.0:
            raise ValueError(f"margin must be from 0 to 1, got {self.margin}")
        make_ppo(self.ppo, self.env)  # raises where the two do not go together


# See docs/coinrun-study.md, "How the presets were chosen".
_QUICK = CoinRunStudy(
    env=CoinRun(mode="easy", obs="symbolic"),
    ppo=PPOConfig(
        net="mlp",
        hidden=(128,),
        learning_rate=2e-3,
        learning_rate_end=0.1,
        gamma=0.99,
        entropy_weight_end=0.0,
        num_envs=64,
        num_steps=128,
        num_minibatches=8,
        num_epochs=1,
        num_iterations=500,
    ),
    danger=DangerConfig(filters=(), hidden=(64,), pool=False),
)
PRESETS = {
    "quick": _QUICK,
    "full": CoinRunStudy(
        env=CoinRun(mode="hard", obs="pixels"),
        ppo=PPOConfig(
            net="nature",
            num_iterations=1530,  # 25 million steps of each agent
            bfloat16=True,
        ),
        danger=DangerConfig(filters=(), hidden=(64,), pool=False),
        sizes=(10, 50, 200, 1000),
        num_train_levels_played=1000,
        num_chunks=30,
    ),
}


class Ensemble(NamedTuple):
    """Everything trained for one number of levels."""

    members: PyTree  # leaves [M, ...]
    danger: PyTree  # the classifier's params


class Sets(NamedTuple):
    """The levels of a study, no two alike but for `shifted`, which are of the other mode."""

    train: LevelSet
    validation: LevelSet
    calibration: LevelSet  # exchangeable with the test levels
    test: LevelSet
    shifted: LevelSet


class Players(NamedTuple):
    """The networks of a study and what is made of them once, so that nothing compiles twice."""

    member: Net
    danger: Net
    apply: Callable[[PyTree, jax.Array], Any]  # (a member's params, obs) -> AgentOutput, of MOVES
    probe: Callable[..., Any]  # (members, danger, state, obs) -> Probes


class Probes(NamedTuple):
    """What is recorded of every step besides the decision, from before its action; A are MOVES."""

    values: jax.Array  # float32[M]
    probabilities: jax.Array  # float32[M, A]
    dangers: jax.Array  # float32[A], the classifier's probability that an action kills at once
    blocker: jax.Array  # float32[], the same of the action that the mean policy will draw
    supported: jax.Array  # bool[], whether the agent stands on something


def make_sets(study: CoinRunStudy) -> Sets:
    """The study's levels: one draw of distinct layouts, put in random order and dealt out.

    A set that is filled first takes the layouts that are common and harmless; one filled after it
    is left with rarer ones. Danger on unseen levels is compared with that on training levels, and
    thresholds are promised for levels like those that they were chosen on, so all sets, and the
    first levels of each, have to be alike. A larger training set begins with the smaller one, and
    no set depends on the size of another, as long as none is larger than `DEALT`.
    """
    sizes = {
        "train": study.sizes[-1],
        "validation": study.num_validation_levels,
        "calibration": study.num_calibration_levels,
        "test": study.num_test_levels,
    }
    each = _num_dealt(sizes.values())
    drawn = levels.split(study.env, 0, 0, each * len(sizes), study.level_seed).test
    # raw words, so that numpy's own ways of shuffling may change
    words = np.random.PCG64(study.level_seed).random_raw(len(drawn))
    hands = np.argsort(words, kind="stable").reshape(len(sizes), each)
    dealt = {
        name: levels.take(drawn, hand[:size])
        for hand, (name, size) in zip(hands, sizes.items(), strict=True)
    }
    other = replace(study.env, mode="hard" if study.env.mode == "easy" else "easy")
    shifted = levels.split(other, 0, 0, study.num_shifted_levels, study.level_seed).test
    if study.tune:
        dealt["test"] = dealt["validation"]
    return Sets(**dealt, shifted=shifted)


def _num_dealt(sizes: Iterable[int]) -> int:
    """How many levels are dealt to each set, for the largest of them to have enough."""
    return DEALT * -(-max(sizes) // DEALT)


def test_levels(study: CoinRunStudy, path: Path) -> LevelSet:
    """The test levels of the run at `path`."""
    return stored_test_levels(path, study.env, lambda: make_sets(study).test)


def check_levels(study: CoinRunStudy) -> None:
    """Raises ValueError if there are too few different levels for the study."""
    make_sets(study)


MEMBERS, DANGER, PLAY = range(3)  # roles of random keys


def train(study: CoinRunStudy, folder: Run) -> None:
    """Trains and saves the agents, unless all are there."""
    sets = make_sets(study)
    write_levels(folder, sets._asdict())
    if untrained(study, folder.path):
        members = _train_members(study, sets.train, folder.path)
        danger = _train_danger(study, members, sets.train)
        for index, size in enumerate(study.sizes):
            one = jax.tree.map(lambda leaf, index=index: leaf[index], Ensemble(members, danger))
            path = _agents_path(folder.path, size)
            agents.save_params(path, one._asdict(), _about(study, size))
    _checkpoint_path(folder.path).unlink(missing_ok=True)


def untrained(study: CoinRunStudy, path: Path) -> list[int]:
    """The numbers of training levels whose agents are not in the run at `path`."""
    return [size for size in study.sizes if not _agents_path(path, size).exists()]


def evaluate(study: CoinRunStudy, folder: Run) -> None:
    """Plays every level in every way, alone and with every helper, where there is no table yet.

    Raises:
      ValueError: agents are missing or damaged.
    """
    if all(_whole(study, _part(folder.path, size)) for size in study.sizes):
        return
    sets, players = make_sets(study), make_players(study)
    for step in (_play_one, _help_one):
        for size in study.sizes:
            part = _part(folder.path, size)
            if not _whole(study, part):
                ensemble = load_ensemble(study, players, folder.path, size)
                step(study, sets, players, ensemble, part, size)


def check_agents(study: CoinRunStudy, path: Path, again: bool) -> None:
    """Raises ValueError if an agent that is to play, or play `again`, is missing or damaged."""
    players = make_players(study)
    for size in study.sizes:
        if _whole(study, _part(path, size)) and not again:
            continue
        if not _agents_path(path, size).exists():
            raise ValueError(
                f"{path} has no agents of {size} levels: hotoven train with --resume trains them"
            )
        load_ensemble(study, players, path, size)


def check_source(study: CoinRunStudy, source: Path, path: Path) -> None:
    """Raises ValueError unless the run at `source` has agents that a run at `path` can take over.

    They must have been trained as the study trains, and on the same levels. How they are played
    may differ.
    """
    read_about(source)
    if source.resolve() == path.resolve():
        raise ValueError(f"{path} cannot take over its own agents: --out names another folder")
    players = make_players(study)
    for size in study.sizes:
        theirs = _agents_path(source, size)
        if not theirs.exists():
            there = sorted(one.name for one in theirs.parent.glob("levels*.safetensors"))
            raise ValueError(
                f"{source} has no agents of {size} levels; its agents are: "
                f"{', '.join(there) or 'none'}"
            )
        load_ensemble(study, players, source, size)


def take_over(study: CoinRunStudy, folder: Run, source: Path) -> None:
    """Copies the agents of the run at `source`, so that none are trained; `check_source` first.

    Raises:
      ValueError: the folder has agents of its own, and they are others.
    """
    pairs = [(_agents_path(source, size), _agents_path(folder.path, size)) for size in study.sizes]
    for theirs, own in pairs:
        if own.exists() and own.read_bytes() != theirs.read_bytes():
            raise ValueError(f"{own} holds other agents than {theirs}: --out names another folder")
    for theirs, own in pairs:
        if not own.exists():
            write_bytes(own, theirs.read_bytes())
    about = read_about(source)
    told = ("started", "versions", "hardware", "continued_with")
    origin = {"run": str(source)} | {name: about[name] for name in told if name in about}
    folder.note(agents_of=origin)


def load_ensemble(study: CoinRunStudy, players: Players, path: Path, size: int) -> Ensemble:
    """The agents trained on `size` levels of the run at `path`.

    Raises:
      ValueError: there are none, or they are damaged or of other settings.
    """
    key = jax.random.key(0)
    new = jax.vmap(lambda own: kept(study.ppo, players.member.init(own)))
    pattern = Ensemble(
        jax.eval_shape(new, jax.random.split(key, study.num_members)),
        jax.eval_shape(players.danger.init, key),
    )
    source = _agents_path(path, size)
    with made_again_without(source):
        params, about = agents.load_params(source, pattern._asdict())
    young = _about(CoinRunStudy(), size)  # a setting that is not there is its default
    with as_written(source):
        stored = _known_by(filled(about, young))
    different = changes(stored, _known_by(_about(study, size)))
    if different:
        raise ValueError(f"{source} holds other agents: {', '.join(different)}")
    return Ensemble(**params)


def make_players(study: CoinRunStudy) -> Players:
    """The networks of the study and what is made of them.

    An agent's seven ways to do nothing are one action: counted apart, they would make it look
    undecided, split its votes, and change its mind without a change.
    """
    member = make_net(study.ppo, study.env)
    danger = make_danger(study.danger, study.env).net

    def apply(params: PyTree, obs: jax.Array) -> AgentOutput:
        said = output(member, params, obs)
        moves, others = said.preferences[..., :NUM_MOVES], said.preferences[..., NUM_MOVES:]
        return AgentOutput(moves.at[..., NOTHING].add(others.sum(axis=-1)), said.value)

    def probe(members: PyTree, classifier: PyTree, state: PyTree, obs: jax.Array) -> Probes:
        said = outputs(apply, members, obs)
        catastrophe = jax.nn.sigmoid(danger.apply(classifier, obs))[:NUM_MOVES]
        return Probes(
            said.value,
            said.preferences,
            catastrophe,
            # as far as it is known before an action is drawn
            said.preferences.mean(axis=0) @ catastrophe,
            physics.supported(state),
        )

    return Players(member, danger, apply, probe)


def watched(
    study: CoinRunStudy,
    path: Path,
    size: int | None = None,
    promise: float | None = None,
    threshold: float | None = None,
) -> Watched:
    """The agents of the run at `path` with what it takes to watch them on its test levels.

    They act by the mean. The score is "mean and std", the threshold the one given, or the conformal
    one of `promise`, or that of the alarms that the report shows.

    Raises:
      ValueError: there are no such agents or promises, or files are damaged.
    """
    there = [one for one in study.sizes if _agents_path(path, one).exists()]
    size = watched_size(path, study.sizes, there, size)
    promised = BY_HAND
    if threshold is None:
        source = path / "promises.parquet"
        with as_written(source):
            row = _promise_row(source, size, promise)
            threshold = row["threshold"]
            if not isinstance(threshold, float) or math.isnan(threshold):
                raise ValueError(f"threshold must be a number, got {threshold!r}")
            promised = (
                f"On average at most {row['promised']:.0%} of catastrophes come without "
                f"{row['min_lead']:d} steps of warning, where nobody helps (conformal, from "
                f"{row['num_calibration']:d} deaths; measured: {row['share']:.0%} of "
                f"{row['num_catastrophes']:d})."
            )
    players = make_players(study)
    ensemble = load_ensemble(study, players, path, size)
    acting = policies(ensemble.members, players.apply, study.hold, study.margin)
    return Watched(
        env=study.env,
        painter=replace(study.env, paint_velocity=False),
        levels=test_levels(study, path),
        policy=acting[WATCHED],
        probe=Partial(partial(_said, players), ensemble.members, ensemble.danger),
        key=agent_key(study.seed, PLAY, size),
        coefficients=scores.WITH_STD,
        threshold=threshold,
        promise=promised,
        num_train_levels=size,
        first_level=0,
        help_steps=study.help_steps,
        preferences="probabilities of actions",
        actions=CoinRun.action_names[:NUM_MOVES],
    )


def _promise_row(source: Path, size: int, promise: float | None) -> dict[str, Any]:
    """The row of the table of promises that the threshold is from."""
    needed = ("num_train_levels", "acting", "score", "rule", "promised", "threshold", "vacuous")
    told = ("set", "min_lead", "num_calibration", "share", "num_catastrophes")
    tables = {"promises": read_table(source, (*needed, *told))}
    try:
        if promise is None:
            return coinrun_watch.kept_promise(tables, size)
    except LookupError as absence:
        raise ValueError(f"{source}: {absence}; give a threshold") from None
    rows = {row["promised"]: row for row in coinrun_watch.conformal_rows(tables, size)}
    if promise not in rows:
        allowed = ", ".join(f"{one:g}" for one in sorted(rows)) or "none"
        raise ValueError(f"promise must be one of {allowed}, which {source} holds, got {promise:g}")
    return rows[promise]


def _said(players: Players, members: PyTree, danger: PyTree, state: PyTree, obs: PyTree) -> Said:
    told = players.probe(members, danger, state, obs)
    return Said(told.values, told.probabilities, told.dangers)


def _about(study: CoinRunStudy, size: int) -> dict[str, Any]:
    """What agents are stored with."""
    return {"settings": settings(study), "num_train_levels": size}


def _known_by(about: dict[str, Any]) -> dict[str, Any]:
    """What of it makes agents what they are; the other settings say how they are played."""
    given = about["settings"]
    numbers = ("num_validation_levels", "num_calibration_levels", "num_test_levels")
    num_dealt = _num_dealt([given["sizes"][-1], *(given[name] for name in numbers)])
    names = ("env", "ppo", "danger", "num_members", "level_seed", "seed")
    decisive = {name: given[name] for name in names} | {"levels_dealt": num_dealt}
    return {"settings": decisive, "num_train_levels": about["num_train_levels"]}


def _agents_path(path: Path, size: int) -> Path:
    return path / "agents" / f"levels{size}.safetensors"


def _checkpoint_path(path: Path) -> Path:
    return path / "checkpoints" / "members.safetensors"


def _part(path: Path, size: int) -> Path:
    return path / "parts" / f"levels{size}"


def _way(part: Path, method: str) -> Path:
    """The folder of what one way of acting has played, in a part of a run."""
    return part / method


def _is_played(part: Path, method: str) -> bool:
    return (_way(part, method) / "episodes.parquet").exists()  # it says that the others are there


def _all_played(part: Path) -> bool:
    return all(_is_played(part, method) for method in ACTING)


def _help_path(part: Path, helper: str) -> Path:
    return part / f"help-{helper}.parquet"


def _ways_of_help(study: CoinRunStudy) -> tuple[str, ...]:
    return *study.helpers, AT_RANDOM


def _whole(study: CoinRunStudy, part: Path) -> bool:
    """Whether all is played that belongs to that part of a run."""
    helped = (_help_path(part, name) for name in _ways_of_help(study))
    return _all_played(part) and all(path.exists() for path in helped)


def _train_members(study: CoinRunStudy, seen: LevelSet, path: Path) -> PyTree:
    """Params of every size's members, leaves [sizes, M, ...]."""
    config, each = study.ppo, study.num_members
    who = [(size, member) for size in study.sizes for member in range(each)]
    keys = jnp.stack([agent_key(study.seed, MEMBERS, *agent) for agent in who])
    chunks = agents.Chunks(config.num_iterations, -(-config.num_iterations // study.num_chunks))
    checkpoint = _checkpoint_path(path)
    total = config.num_iterations * config.updates_per_iteration
    with stage(f"train {len(who)} agents", total) as shown, named(who, checkpoint):
        params = agents.train(
            config,
            make_ppo(config, study.env),
            seen.levels,
            np.array([size for size, _ in who]),
            keys,
            chunks,
            checkpoint,
            lambda chunk: shown.show(chunk.num_updates, training_note(study.sizes, each, chunk)),
        )
    shape = (len(study.sizes), each)
    by_size = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), params)
    return kept(config, by_size)


def _train_danger(study: CoinRunStudy, members: PyTree, seen: LevelSet) -> PyTree:
    """The classifiers' params, leaves [sizes, ...], each of its own training levels."""
    players, danger = make_players(study), make_danger(study.danger, study.env)
    tree = jax.tree.map(jnp.asarray, seen.levels)

    @jax.jit
    def one(params: PyTree, size: jax.Array, key: jax.Array) -> PyTree:
        k_play, k_fit = jax.random.split(key)
        greedy = lambda obs: outputs(players.apply, params, obs).preferences.mean(axis=0).argmax()  # noqa: E731
        return danger.fit(danger.collect(greedy, tree, size, k_play), k_fit)

    found = []
    with stage("train the classifiers of danger", len(study.sizes)) as shown:
        for index, size in enumerate(study.sizes):
            own = jax.tree.map(lambda leaf, index=index: leaf[index], members)
            params = one(own, jnp.int32(size), agent_key(study.seed, DANGER, size))
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
                raise agents.TrainingDiverged(
                    f"the params of the classifier of danger of {size} levels became NaN or "
                    f"infinite (danger.learning_rate {study.danger.learning_rate})"
                )
            found.append(params)
            shown.show(index + 1, f"{size} levels")
    return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


def run(study: CoinRunStudy, folder: Run) -> list[findings.Finding]:
    """Runs the study in that folder and returns its findings; skips what is already there."""
    train(study, folder)
    evaluate(study, folder)
    merge(study, folder.path)
    return report(study, folder.path)


def _play_one(
    study: CoinRunStudy,
    sets: Sets,
    players: Players,
    ensemble: Ensemble,
    part: Path,
    size: int,
) -> None:
    """Everything that the agents of one size play alone, each way of acting in a folder of its own.

    A way that has been played is not played again.
    """
    if _all_played(part):
        return
    acting = policies(ensemble.members, players.apply, study.hold, study.margin)
    record = _make_recorder(study, players, ensemble, size)
    if not _is_played(part, WATCHED):
        for name in _ways_of_help(study):  # what is there is of episodes that are no more
            _help_path(part, name).unlink(missing_ok=True)
    with stage(f"play with the agents of {size} levels", len(acting)) as shown:
        for done, (method, policy) in enumerate(acting.items(), start=1):
            if not _is_played(part, method):
                _play_way(study, sets, record, method, policy, _way(part, method), size)
            shown.show(done, method)


def _play_way(
    study: CoinRunStudy,
    sets: Sets,
    record: Callable[[Any, Mapping[str, LevelSet]], dict[str, Trace]],
    method: str,
    policy: Any,
    folder: Path,
    size: int,
) -> None:
    """One way of acting on all sets that it plays: the tables in its folder."""
    num_seen = _num_played(study, size)
    played = {"test": sets.test, "train": _training_levels(study, sets.train, size)}
    if method in PREDICTED:
        names = ("validation", "calibration", "shifted")
        played |= {name: getattr(sets, name) for name in names}
    episodes: list[dict[str, Any]] = []
    coherences: list[dict[str, Any]] = []
    for member, one in _players_of(study, method, policy):
        where = {"num_train_levels": size, "replication": 0, "method": method, "member": member}
        traces = record(one, played)
        for name, count in (("test", len(sets.test)), ("train", num_seen)):
            label = {"set": name, **where}
            episodes.append(_episode_rows(study, label, played[name], traces[name], count))
        coherences.append(_coherence_rows(where, sets.test, traces["test"]))
    if method in PREDICTED:  # by one player
        learned = _fit_head(study, traces["validation"])
        chosen = _choose_coefficients(study, size, method, traces["validation"])
        steps = [
            _step_rows({"set": name, **where}, played[name], traces[name], learned)
            for name in (RECORDED if method == WATCHED else ("test",))
        ]
        said = _member_rows(study, where, sets.test, traces["test"])
        write_json(folder / "head.json", learned and learned.to_json())
        write_json(folder / "chosen.json", chosen)
        write_table(folder / "steps.parquet", stack(steps))
        write_table(folder / "members.parquet", stack([said]))
    write_table(folder / "coherence.parquet", stack(coherences))
    write_table(folder / "episodes.parquet", stack(episodes))  # last: see _is_played


def _players_of(study: CoinRunStudy, method: str, policy: Any) -> Iterator[tuple[int, Any]]:
    """(member, policy): every member of "single" on its own; -1 where all act as one."""
    if method != "single":
        yield -1, policy
        return
    for member in range(study.num_members):
        yield member, jax.tree.map(lambda leaf, member=member: leaf[member], policy)


def _make_recorder(
    study: CoinRunStudy, players: Players, ensemble: Ensemble, size: int
) -> Callable[[Any, Mapping[str, LevelSet]], dict[str, Trace]]:
    """(policy, sets) -> what was recorded on each of the sets, played as one batch."""
    key = agent_key(study.seed, PLAY, size)
    probe = Partial(players.probe, ensemble.members, ensemble.danger)

    def record(policy: Any, sets: Mapping[str, LevelSet]) -> dict[str, Trace]:
        together = jax.tree.map(
            lambda *leaves: np.concatenate(leaves), *[one.levels for one in sets.values()]
        )
        trace = record_all(study.env, policy, together, key, probe, truth=False)
        found, end = {}, 0
        for name, one in sets.items():
            part = slice(end, end + len(one))
            found[name] = jax.tree.map(lambda leaf, part=part: np.asarray(leaf[part]), trace)
            end += len(one)
        return found

    return record


def _training_levels(study: CoinRunStudy, seen: LevelSet, size: int) -> LevelSet:
    """Training levels, repeated up to a number that is the same for every size.

    One compiled program plays them all. Policies draw their actions, so no two attempts at a level
    are alike; what is left over of a last round that is not whole is not counted.
    """
    num_room = study.num_train_levels_played
    return levels.take(seen, np.resize(np.arange(_num_played(study, size)), num_room))


def _num_played(study: CoinRunStudy, size: int) -> int:
    """How many training levels are played, of the agents of `size`."""
    return min(size, study.num_train_levels_played)


def _ends(trace: Trace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int[L] steps, int8[L] outcomes and int8[L] causes of recorded episodes."""
    outcome, cause = np.asarray(trace.outcome), np.asarray(trace.cause)
    num_steps = _num_steps(trace)
    last = np.arange(len(num_steps)), num_steps - 1
    return num_steps, outcome[last], cause[last]


def _num_steps(trace: Trace) -> np.ndarray:
    """int[L]: how many steps were recorded of each level."""
    return np.asarray(trace.valid).sum(axis=1)


def _died(trace: Trace) -> np.ndarray:
    return _ends(trace)[1] == CATASTROPHE


def _episode_rows(
    study: CoinRunStudy, where: dict[str, Any], played: LevelSet, trace: Trace, num_levels: int
) -> dict[str, Any]:
    """The rows of episodes.parquet of that many levels, one after the other, and then again."""
    count = len(played) // num_levels * num_levels
    attempt, level = np.divmod(np.arange(count, dtype=np.int32), np.int32(num_levels))
    num_steps, outcome, cause = (leaf[:count] for leaf in _ends(trace))
    return {
        **repeat(where, count),
        "level_index": level,
        "level_id": played.ids[:count],
        "attempt": attempt.astype(np.int16),
        "outcome": np.array(OUTCOMES)[outcome],
        "cause": np.array(study.env.causes)[cause],
        "length": num_steps.astype(np.int32),
        "episode_return": (trace.reward * trace.valid)[:count].sum(axis=1),
        # no blocker is in the way of any of them
        **repeat({"num_blocked": 0, "num_false_blocks": 0, "num_all_blocked": 0}, count),
    }


def _coherence_rows(where: dict[str, Any], played: LevelSet, trace: Trace) -> dict[str, Any]:
    """How coherent each episode was, by what the actions do."""
    told = coherence.coherence(
        np.asarray(trace.decision.action),
        _num_steps(trace),
        _died(trace),
        trace.probes.supported,
        MOVES,
        MOVES // 3,  # left, neither, right
        trace.probes.probabilities,
    )
    count = len(played)
    index = {"level_index": np.arange(count, dtype=np.int32), "level_id": played.ids}
    absent = {name: values.filled(np.nan) for name, values in told._asdict().items()}
    return {**repeat(where, count), **index, **absent}


def _fit_head(study: CoinRunStudy, trace: Trace) -> head.Head | None:
    """The learned score, from validation levels; None where nothing can be told apart there."""
    num_steps, died = _num_steps(trace), _died(trace)
    positive = labels(num_steps, died, study.env.max_steps, study.alarm_window)
    features = head.member_features(trace.probes.values, trace.probes.probabilities)
    found = positive[trace.valid]
    if found.all() or not found.any():
        return None
    return head.fit(features[trace.valid], found)


def _choose_coefficients(
    study: CoinRunStudy, size: int, method: str, trace: Trace
) -> list[dict[str, Any]]:
    """The best alpha and beta on validation levels, for every window."""
    mu = scores.mean_value(trace.probes.values)[trace.valid]
    sigma = scores.std_value(trace.probes.values)[trace.valid]
    rows = []
    for window in study.windows:
        num_steps, died = _num_steps(trace), _died(trace)
        positive = labels(num_steps, died, study.env.max_steps, window)[trace.valid]
        best = knowing.best_coefficients(mu, sigma, positive)
        if best is not None:
            pair, area = best
            where = {"num_train_levels": size, "acting": method, "window": window}
            rows.append(where | pair._asdict() | {"validation_auc": area})
    return rows


def _step_rows(
    where: dict[str, Any], played: LevelSet, trace: Trace, learned: head.Head | None
) -> dict[str, Any]:
    """The steps of recorded episodes as rows of steps.parquet, in float32."""
    values, probabilities, _, blocker, supported = trace.probes
    level, step = np.nonzero(trace.valid)
    at = lambda leaf: np.asarray(leaf)[level, step]  # noqa: E731
    found = {
        "mu": scores.mean_value(values),
        "sigma": scores.std_value(values),
        "entropy": scores.entropy(probabilities),
        "margin": scores.margin(probabilities),
        "disagreement": scores.disagreement(probabilities),
        "blocker": blocker,
    }
    if learned is None:  # there was nothing to learn from: it is no score
        found["head"] = np.full_like(found["mu"], np.nan)
    else:
        found["head"] = learned.score(head.member_features(values, probabilities))
    return {
        **repeat(where, len(level)),
        "level_index": level.astype(np.int32),
        "level_id": played.ids[level],
        "step": step.astype(np.int16),
        "action": at(trace.decision.action).astype(np.int8),
        "outcome": np.array(OUTCOMES)[at(trace.outcome)],
        "supported": at(supported),
        **{name: at(score).astype(np.float32) for name, score in found.items()},
    }


def _member_rows(
    study: CoinRunStudy, where: dict[str, Any], played: LevelSet, trace: Trace
) -> dict[str, Any]:
    """What each member said at the steps of the first levels, as rows of members.parquet.

    `probabilities` holds the members' one after another. What is only looked at is float16.
    """
    values, probabilities, dangers, *_ = trace.probes
    level, step = np.nonzero(np.asarray(trace.valid)[: study.num_inspected_levels])
    shares = np.asarray(probabilities)[level, step]  # [steps, M, A]
    return {
        **repeat(where, len(level)),
        "level_index": level.astype(np.int32),
        "level_id": played.ids[level],
        "step": step.astype(np.int16),
        "values": np.asarray(values)[level, step],
        "probabilities": shares.reshape(len(level), -1).astype(np.float16),
        "dangers": np.asarray(dangers)[level, step].astype(np.float16),
    }


def _help_one(
    study: CoinRunStudy,
    sets: Sets,
    players: Players,
    ensemble: Ensemble,
    part: Path,
    size: int,
) -> None:
    """Episodes on unseen levels with a helper to ask, for every helper that has no table yet.

    The score is U with the pair chosen on validation levels; thresholds go from always asking to
    never asking by the peaks of the calibration levels. The planner is asked at random, too: what
    it is worth without an alarm that knows anything.
    """
    chosen = _read_chosen(part)
    pair = knowing.coefficients_of(chosen, size, WATCHED, study.alarm_window) or scores.WITH_STD
    calibration = knowing.read_recorded(
        _read_part(part, "steps", (WATCHED,)),
        "calibration",
        size,
        WATCHED,
        study.env.max_steps,
        ("mu", "sigma"),
    )
    known = scores.score(calibration.columns["mu"], calibration.columns["sigma"], *pair)
    peaks = peak_thresholds(known, calibration.num_steps, study.num_help_thresholds)
    thresholds = np.append(peaks, np.inf)
    asked = levels.take(sets.test, slice(0, study.num_help_levels))
    policy = policies(ensemble.members, players.apply, study.hold, study.margin)[WATCHED]
    key = agent_key(study.seed, PLAY, size)
    probe = Partial(players.probe, ensemble.members, ensemble.danger)
    score = Partial(_help_score, *map(jnp.float32, pair))
    ways: dict[str, tuple[Helper, Probe, Score, np.ndarray]]
    ways = {name: (HELPERS[name], probe, score, thresholds) for name in study.helpers}
    by_chance = np.array([1 - chance for chance in reversed(CHANCES)] + [np.inf])
    ways[AT_RANDOM] = (HELPERS[PLANNER], _chance, _as_it_is, by_chance)
    with stage(f"ask for help with the agents of {size} levels", len(ways)) as shown:
        for done, (name, (helper, seen, danger, limits)) in enumerate(ways.items(), start=1):
            if not _help_path(part, name).exists():
                played = play_with_help(
                    study.env,
                    policy,
                    asked.levels,
                    key,
                    seen,
                    danger,
                    limits,
                    helper,
                    study.help_steps,
                )
                where = {"num_train_levels": size, "helper": name}
                blocks = [
                    _helped_rows(study, where | {"threshold": threshold}, asked, played, row)
                    for row, threshold in enumerate(limits.tolist())
                ]
                write_table(_help_path(part, name), stack(blocks))
            shown.show(done, name)


def _chance(state: physics.State, obs: jax.Array) -> jax.Array:
    """float32[], from 0 to 1: a number that knows nothing of danger, anew in every state."""
    key = jax.random.key(0)
    for part in (state.x, state.y):
        key = jax.random.fold_in(key, jax.lax.bitcast_convert_type(part, jnp.uint32))
    return jax.random.uniform(jax.random.fold_in(key, state.num_steps))


def _as_it_is(score: jax.Array) -> jax.Array:
    return score


def _help_score(alpha: jax.Array, beta: jax.Array, probes: Probes) -> jax.Array:
    return discrimination(probes.values, alpha, beta)


def _helped_rows(
    study: CoinRunStudy, where: dict[str, Any], asked: LevelSet, played: Helped, row: int
) -> dict[str, Any]:
    """The rows of help.parquet at one threshold, the `row`th."""
    one = {name: values[row] for name, values in played._asdict().items()}
    count = len(asked)
    return {
        **repeat(where, count),
        "level_index": np.arange(count, dtype=np.int32),
        "level_id": asked.ids,
        "outcome": np.array(OUTCOMES)[one["outcome"]],
        "cause": np.array(study.env.causes)[one["cause"]],
        **{name: one[name] for name in ("length", "episode_return", "num_requests", "num_helped")},
        "first_request": one["first_request"].astype(np.float32).filled(np.nan),  # of none: absent
    }


def merge(study: CoinRunStudy, path: Path) -> None:
    """Writes the tables of the run at `path` from those of its parts."""
    parts = [_part(path, size) for size in study.sizes]
    episodes, coherences = (
        pa.concat_tables([_read_part(part, name, ACTING) for part in parts])
        for name in ("episodes", "coherence")
    )
    steps, said = (
        pa.concat_tables([_read_part(part, name, PREDICTED) for part in parts])
        for name in ("steps", "members")
    )
    ways = _ways_of_help(study)
    helped = pa.concat_tables([_read_help(part, name) for part in parts for name in ways])
    chosen = [row for part in parts for row in _read_chosen(part)]
    write_json(path / "chosen.json", chosen)
    where = (study.sizes, study.env.max_steps)
    tables = {
        "episodes": episodes,
        "steps": _read_later(steps),
        "rates": outcomes.rates(episodes),
        "agent_rates": outcomes.agent_rates(episodes),
        "differences": outcomes.paired_differences(episodes),
        "coherence": coherence.table(coherences),
        "help": helped,
        "help_rates": knowing.help_rates(helped),
        **knowing.predictions(steps, chosen, *where, PREDICTED, study.windows),
        "alarms": knowing.alarm_rows(
            steps, chosen, *where, PREDICTED, study.alarm_window, study.min_lead
        ),
        "promises": knowing.promise_rows(
            steps, chosen, *where, WATCHED, study.alarm_window, study.min_lead,
            study.promises, study.delta,
        ),
        "members": said,
    }  # fmt: skip
    assert tuple(tables) == TABLES
    for name, table in tables.items():
        columns = dict(zip(table.column_names, table, strict=True))
        split = knowing.STEP_SCORES if name == "steps" else ()
        write_table(path / f"{name}.parquet", columns, split)


def _read_later(steps: pa.Table) -> pa.Table:
    """The steps without the scores of calibration and shifted levels that nobody reads."""
    is_test = pc.equal(steps["set"], "test")
    for name in knowing.STEP_SCORES:
        if name not in ("mu", "sigma"):
            kept = pc.if_else(is_test, steps[name], None)
            steps = steps.set_column(steps.column_names.index(name), name, kept)
    return steps


def _read_part(part: Path, name: str, methods: Sequence[str]) -> pa.Table:
    """A table of a part, those of the ways of acting one after the other."""
    tables = []
    for method in methods:
        folder = _way(part, method)
        with made_again_without(folder / "episodes.parquet"):  # written last
            tables.append(read_table(folder / f"{name}.parquet"))
    return pa.concat_tables(tables)


def _read_help(part: Path, helper: str) -> pa.Table:
    path = _help_path(part, helper)
    with made_again_without(path):
        return read_table(path)


def _read_chosen(part: Path) -> list[dict[str, Any]]:
    chosen: list[dict[str, Any]] = []
    for method in PREDICTED:
        folder = _way(part, method)
        with made_again_without(folder / "episodes.parquet"):
            chosen += read_json(folder / "chosen.json")
    return chosen


def report(study: CoinRunStudy, path: Path) -> list[findings.Finding]:
    """Writes findings and figures of the run at `path` from its tables."""
    tables = {name: read_table(path / f"{name}.parquet") for name in TABLES}
    found = coinrun_findings(tables)
    write_json(path / "findings.json", findings.to_json(found))
    write_bytes(path / "findings.md", findings.to_markdown(found).encode())
    test = test_levels(study, path)
    source = level_path(path, "test")
    check_recorded(path / "steps.parquet", _of_test(tables["steps"]), source, test)
    figures = path / "figures"
    written = coinrun_figures.write_figures(figures, tables, test, study.env)
    notes = [*written.notes, *coinrun_watch.write_film(figures, tables, test, study.env)]
    write_bytes(figures / "notes.txt", "".join(f"{note}\n" for note in notes).encode())
    return found


def _of_test(steps: pa.Table) -> pa.Table:
    return steps.filter(pc.field("set") == "test")
