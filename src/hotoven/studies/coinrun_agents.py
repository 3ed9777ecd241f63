"""The agents of the CoinRun study: their networks, their training, and their files.

Agents are known by what they were trained with; how they are played may differ, so that those of
one run can play in another. Axes: M ensemble members, A actions.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven import agents, levels
from hotoven.envs.coinrun import physics
from hotoven.envs.coinrun.planner import NOTHING, NUM_MOVES
from hotoven.learners.danger import make_danger
from hotoven.learners.ppo import kept, make_net, make_ppo, output
from hotoven.mechanisms.acting import outputs
from hotoven.progress import stage
from hotoven.runs import Run, changes, filled, read_about
from hotoven.storage import as_written, write_bytes
from hotoven.studies.coinrun_settings import CoinRunStudy, make_sets, num_dealt
from hotoven.studies.parts import agent_key, made_again_without, named, settings, training_note
from hotoven.types import AgentOutput, LevelSet, Net, PyTree

MEMBERS, DANGER, PLAY = range(3)  # roles of random keys


class Ensemble(NamedTuple):
    """Everything trained for one number of levels."""

    members: PyTree  # leaves [M, ...]
    danger: PyTree  # the classifier's params


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


def untrained(study: CoinRunStudy, path: Path) -> list[int]:
    """The numbers of training levels whose agents are not in the run at `path`."""
    return [size for size in study.sizes if not agents_path(path, size).exists()]


def train_agents(study: CoinRunStudy, seen: LevelSet, path: Path) -> None:
    """Trains the agents of every size, on levels of `seen`, and saves them in the run at `path`."""
    members = _train_members(study, seen, path)
    danger = _train_danger(study, members, seen)
    for index, size in enumerate(study.sizes):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], Ensemble(members, danger))
        agents.save_params(agents_path(path, size), one._asdict(), _about(study, size))


def _train_members(study: CoinRunStudy, seen: LevelSet, path: Path) -> PyTree:
    """Params of every size's members, leaves [sizes, M, ...]."""
    config, each = study.ppo, study.num_members
    who = [(size, member) for size in study.sizes for member in range(each)]
    keys = jnp.stack([agent_key(study.seed, MEMBERS, *agent) for agent in who])
    chunks = agents.Chunks(config.num_iterations, -(-config.num_iterations // study.num_chunks))
    checkpoint = checkpoint_path(path)
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


def load_ensemble(study: CoinRunStudy, players: Players, path: Path, size: int) -> Ensemble:
    """The agents trained on `size` levels of the run at `path`.

    Raises:
      ValueError: there are none, or they are damaged or of other settings.
    """
    source = agents_path(path, size)
    with made_again_without(source):
        arrays, about = agents.read_params(source)
    _check_known(study, source, size, about)  # first: it says why shapes differ
    with made_again_without(source):
        return _ensemble(study, players, source, arrays)


def _check_known(study: CoinRunStudy, source: Path, size: int, about: dict[str, Any]) -> None:
    """Raises ValueError unless the study would train what `source` holds, told by `about`."""
    young = _about(CoinRunStudy(), size)  # a setting that is not there is its default
    with as_written(source):
        stored = _known_by(filled(about, young))
    different = changes(stored, _known_by(_about(study, size)))
    if different:
        raise ValueError(f"{source} holds other agents: {', '.join(different)}")


def _ensemble(
    study: CoinRunStudy, players: Players, source: Path, arrays: dict[str, np.ndarray]
) -> Ensemble:
    """The agents that `source` holds as arrays."""
    key = jax.random.key(0)
    new = jax.vmap(lambda own: kept(study.ppo, players.member.init(own)))
    pattern = Ensemble(
        jax.eval_shape(new, jax.random.split(key, study.num_members)),
        jax.eval_shape(players.danger.init, key),
    )
    return Ensemble(**agents.from_arrays(arrays, pattern._asdict(), source))


def check_source(study: CoinRunStudy, source: Path, path: Path) -> None:
    """Raises ValueError unless the run at `source` has agents that a run at `path` can take over.

    They must have been trained as the study trains, and on the same levels. How they are played
    may differ.
    """
    about = read_about(source)
    if about["config"].get("study") != "coinrun":
        raise ValueError(f"{source} is no run of the CoinRun study, whose agents can be taken over")
    players = make_players(study)
    for size in study.sizes:
        theirs = agents_path(source, size)
        if not theirs.exists():
            there = sorted(one.name for one in theirs.parent.glob("levels*.safetensors"))
            raise ValueError(
                f"{source} has no agents of {size} levels; its agents are: "
                f"{', '.join(there) or 'none'}"
            )
        if theirs.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"{theirs} lies in {path} itself: --out names another folder")
        arrays, told = agents.read_params(theirs)
        _check_known(study, theirs, size, told)
        _ensemble(study, players, theirs, arrays)
    with as_written(source / "run.json"):
        sizes = tuple(about["config"]["settings"]["sizes"])
        recorded = about["levels"]["train"]["hash"]
    if levels.set_hash(make_sets(replace(study, sizes=sizes)).train) != recorded:
        raise ValueError(
            f"the agents of {source} were trained on other levels than these settings name today: "
            f"its {source / 'run.json'} records {recorded}"
        )


def take_over(study: CoinRunStudy, folder: Run, source: Path) -> None:
    """Copies the agents of the run at `source`, so that none are trained; `check_source` first.

    The run's record says whose they are before the first is there, so that none is trained beside
    them when it goes on after a kill.

    Raises:
      ValueError: the run has, or had, other agents.
    """
    content = {size: agents_path(source, size).read_bytes() for size in study.sizes}
    missing = []
    for size, theirs in content.items():
        own = agents_path(folder.path, size)
        if not own.exists():
            missing.append(size)
        elif own.read_bytes() != theirs:
            raise ValueError(
                f"{own} holds other agents than {agents_path(source, size)}: --out names another "
                "folder"
            )
    if not missing:
        return
    files = {agents_path(source, size).name: _digest(one) for size, one in content.items()}
    if "agents_of" in folder.about:
        with as_written(folder.path / "run.json"):
            different = folder.about["agents_of"]["files"] != files
    else:
        different = folder.finished or any((folder.path / "parts").rglob("*.parquet"))
    if different:
        raise ValueError(
            f"{folder.path} has been played by other agents, which are gone: --out names another "
            "folder"
        )
    about = read_about(source)
    told = ("started", "versions", "hardware", "continued_with", "agents_of")
    origin = {"run": str(source), "files": files}
    folder.note(agents_of=origin | {name: about[name] for name in told if name in about})
    for size in missing:
        write_bytes(agents_path(folder.path, size), content[size])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def check_trainable(study: CoinRunStudy, path: Path) -> None:
    """Raises ValueError if agents are missing from a run that has taken over another's."""
    missing, about = untrained(study, path), read_about(path)
    if missing and "agents_of" in about:
        with as_written(path / "run.json"):
            source = about["agents_of"]["run"]
        raise ValueError(
            f"{path} lacks the agents of {', '.join(map(str, missing))} levels, which it "
            f"had from {source}: --agents takes them over again, and none are trained in their "
            "place"
        )


def _about(study: CoinRunStudy, size: int) -> dict[str, Any]:
    """What agents are stored with."""
    return {"settings": settings(study), "num_train_levels": size}


def _known_by(about: dict[str, Any]) -> dict[str, Any]:
    """What of it makes agents what they are; the other settings say how they are played."""
    given = about["settings"]
    numbers = ("num_validation_levels", "num_calibration_levels", "num_test_levels")
    names = ("env", "ppo", "danger", "num_members", "level_seed", "seed")
    return {
        "settings": {name: given[name] for name in names},
        "num_train_levels": about["num_train_levels"],
        # a larger set makes all of them other ones
        "levels dealt to each set": num_dealt(
            [given["sizes"][-1], *(given[name] for name in numbers)]
        ),
    }


def agents_path(path: Path, size: int) -> Path:
    """The file of the agents of `size` training levels in the run at `path`."""
    return path / "agents" / f"levels{size}.safetensors"


def checkpoint_path(path: Path) -> Path:
    """The file in which a training of the run at `path` goes on after a kill."""
    return path / "checkpoints" / "members.safetensors"
