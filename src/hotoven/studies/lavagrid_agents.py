"""The agents of the gridworld study: their networks, their training, and their files.

Axes: M ensemble members.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven import agents
from hotoven.evaluation import findings
from hotoven.evaluation.prediction import Calibration, calibration
from hotoven.learners.danger import make_danger
from hotoven.learners.dqn import DQNConfig, make_dqn, make_net
from hotoven.progress import stage
from hotoven.runs import GROWS, changes, filled
from hotoven.storage import write_json
from hotoven.studies.lavagrid_settings import LavaGridStudy
from hotoven.studies.parts import agent_key, made_again_without, named, settings, training_note
from hotoven.types import LevelSet, Net, PyTree

MEMBERS, DROPOUT, BLOCKER, PLAY = range(4)  # roles of random keys


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


def make_nets(study: LavaGridStudy) -> Nets:
    """The networks of the study."""
    return Nets(
        make_net(study.dqn, study.env),
        make_net(_dropout_config(study), study.env),
        make_danger(study.danger, study.env).net,
    )


def is_trained(study: LavaGridStudy, path: Path, replication: int) -> bool:
    """Whether all agents of a replication are in the run at `path`."""
    told = part_path(path, replication) / "calibration.json"
    paths = [agents_path(path, size, replication) for size in study.sizes]
    return all(one.exists() for one in [*paths, told])


def train_agents(study: LavaGridStudy, seen: LevelSet, path: Path, replication: int) -> None:
    """Trains the agents of one replication, on levels of `seen`, and saves them at `path`."""
    members = _train_role(study, study.dqn, seen, path, replication, MEMBERS)
    dropout = _train_role(study, _dropout_config(study), seen, path, replication, DROPOUT)
    blockers = _train_blockers(study, members, seen, path, replication)
    every = Ensemble(members, dropout, blockers)
    for index, size in enumerate(study.sizes):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], every)
        about = _about(study, size, replication)
        agents.save_params(agents_path(path, size, replication), one._asdict(), about)


def _dropout_config(study: LavaGridStudy) -> DQNConfig:
    return replace(study.dqn, dropout=study.mc_dropout)


def _train_role(
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
    checkpoint = checkpoint_path(path, "members" if role == MEMBERS else "dropout", replication)
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
        part_path(path, replication) / "calibration.json",
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


def load_ensemble(study: LavaGridStudy, path: Path, size: int, replication: int) -> Ensemble:
    """The agents trained on `size` levels in one replication of the run at `path`.

    Raises:
      ValueError: there are none, or they are damaged or of other settings.
    """
    source = agents_path(path, size, replication)
    with made_again_without(source, "train"):
        arrays, about = agents.read_params(source)
    young = _about(LavaGridStudy(), size, replication)  # a setting that is not there is its default
    stored = filled(about, young)
    stored["settings"].pop(GROWS, None)  # was kept once
    different = changes(stored, _about(study, size, replication))
    if different:  # first: it says why shapes differ
        raise ValueError(f"{source} holds other agents: {', '.join(different)}")
    nets = make_nets(study)
    key = jax.random.key(0)
    keys = jax.random.split(key, study.num_members)
    pattern = Ensemble(
        jax.eval_shape(jax.vmap(nets.member.init), keys),
        jax.eval_shape(nets.dropout.init, key),
        jax.eval_shape(nets.blocker.init, key),
    )
    with made_again_without(source, "train"):
        return Ensemble(**agents.from_arrays(arrays, pattern._asdict(), source))


def _about(study: LavaGridStudy, size: int, replication: int) -> dict[str, Any]:
    """What agents are stored with, and known by; not by how many other replications there are."""
    decisive = {name: value for name, value in settings(study).items() if name != GROWS}
    return {"settings": decisive, "num_train_levels": size, "replication": replication}


def agents_path(path: Path, size: int, replication: int) -> Path:
    """The file of the agents of `size` training levels in the run at `path`."""
    return path / "agents" / f"levels{size}-r{replication}.safetensors"


def part_path(path: Path, replication: int) -> Path:
    """The folder of what is there of one replication in the run at `path`."""
    return path / "parts" / f"r{replication}"


def checkpoint_path(path: Path, role: str, replication: int) -> Path:
    """The file in which a training of the run at `path` goes on after a kill."""
    return path / "checkpoints" / f"{role}-r{replication}.safetensors"
