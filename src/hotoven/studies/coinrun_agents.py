"""The agents of the CoinRun study: their networks, their training, and their files.

Agents are known by what they were trained with; how they are played may differ, so that those of
one run can play in another. Axes: M ensemble members, A actions.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven import agents
from hotoven.envs.coinrun import physics
from hotoven.envs.coinrun.planner import NOTHING, NUM_MOVES
from hotoven.learners.danger import make_danger
from hotoven.learners.ppo import kept, make_net, make_ppo, output
from hotoven.mechanisms.acting import outputs
from hotoven.progress import stage
from hotoven.runs import Run, changes, filled, read_about
from hotoven.storage import as_written, write_bytes
from hotoven.studies.coinrun_settings import CoinRunStudy, num_dealt
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
    key = jax.random.key(0)
    new = jax.vmap(lambda own: kept(study.ppo, players.member.init(own)))
    pattern = Ensemble(
        jax.eval_shape(new, jax.random.split(key, study.num_members)),
        jax.eval_shape(players.danger.init, key),
    )
    source = agents_path(path, size)
    with made_again_without(source):
        params, about = agents.load_params(source, pattern._asdict())
    young = _about(CoinRunStudy(), size)  # a setting that is not there is its default
    with as_written(source):
        stored = _known_by(filled(about, young))
    different = changes(stored, _known_by(_about(study, size)))
    if different:
        raise ValueError(f"{source} holds other agents: {', '.join(different)}")
    return Ensemble(**params)


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
        theirs = agents_path(source, size)
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
    pairs = [(agents_path(source, size), agents_path(folder.path, size)) for size in study.sizes]
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


def _about(study: CoinRunStudy, size: int) -> dict[str, Any]:
    """What agents are stored with."""
    return {"settings": settings(study), "num_train_levels": size}


def _known_by(about: dict[str, Any]) -> dict[str, Any]:
    """What of it makes agents what they are; the other settings say how they are played."""
    given = about["settings"]
    numbers = ("num_validation_levels", "num_calibration_levels", "num_test_levels")
    dealt = num_dealt([given["sizes"][-1], *(given[name] for name in numbers)])
    names = ("env", "ppo", "danger", "num_members", "level_seed", "seed")
    decisive = {name: given[name] for name in names} | {"levels_dealt": dealt}
    return {"settings": decisive, "num_train_levels": about["num_train_levels"]}


def agents_path(path: Path, size: int) -> Path:
    """The file of the agents of `size` training levels in the run at `path`."""
    return path / "agents" / f"levels{size}.safetensors"


def checkpoint_path(path: Path) -> Path:
    """The file in which a training of the run at `path` goes on after a kill."""
    return path / "checkpoints" / "members.safetensors"
