"""What the agents of the gridworld study play, as rows of the run's tables.

Axes: L levels, M ensemble members.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotoven import levels
from hotoven.evaluation.rollout import Episodes, play, record
from hotoven.mechanisms.blocker import Blocker
from hotoven.mechanisms.dropout import MCDropout
from hotoven.mechanisms.mean import Mean
from hotoven.mechanisms.member import Member
from hotoven.mechanisms.vote import Vote
from hotoven.progress import stage
from hotoven.storage import write_table
from hotoven.studies.lavagrid_agents import (
    PLAY,
    Ensemble,
    Nets,
    load_ensemble,
    make_nets,
    part_path,
)
from hotoven.studies.lavagrid_settings import LavaGridStudy
from hotoven.studies.parts import agent_key, repeat, stack
from hotoven.types import OUTCOMES, LevelSet, PyTree

METHODS = ("single", "mean", "vote", "mc_dropout")


BLOCKED = "+blocker"
TRACED = ("single", "mean", "mean+blocker")  # methods whose episodes are recorded step by step


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


def play_all(study: LavaGridStudy, split: levels.Split, path: Path, replication: int) -> None:
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
    folder = part_path(path, replication)
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
