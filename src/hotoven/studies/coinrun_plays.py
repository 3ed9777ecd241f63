"""What the agents of the CoinRun study play alone, as rows of the run's tables.

Axes: L levels, T steps, M ensemble members, A actions.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
from jax.tree_util import Partial

from hotoven import levels
from hotoven.envs.coinrun.planner import NUM_MOVES
from hotoven.evaluation import coherence, head, knowing, scores
from hotoven.evaluation.prediction import labels
from hotoven.evaluation.rollout import record_all
from hotoven.mechanisms.acting import policies
from hotoven.progress import stage
from hotoven.storage import write_json, write_table
from hotoven.studies.coinrun_agents import PLAY, Ensemble, Players
from hotoven.studies.coinrun_parts import all_played, help_path, is_played, way_path, ways_of_help
from hotoven.studies.coinrun_settings import PREDICTED, WATCHED, CoinRunStudy, Sets
from hotoven.studies.parts import agent_key, repeat, stack
from hotoven.types import CATASTROPHE, OUTCOMES, LevelSet, Trace

MOVES: Final = np.arange(NUM_MOVES)  # the actions that differ: from 9 on all do nothing
RECORDED: Final = ("test", "calibration", "shifted")  # sets whose steps are kept for it


def play_alone(
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
    if all_played(part):
        return
    acting = policies(ensemble.members, players.apply, study.hold, study.margin)
    record = _make_recorder(study, players, ensemble, size)
    if not is_played(part, WATCHED):
        for name in ways_of_help(study):  # what is there is of episodes that are no more
            help_path(part, name).unlink(missing_ok=True)
    with stage(f"play with the agents of {size} levels", len(acting)) as shown:
        for done, (method, policy) in enumerate(acting.items(), start=1):
            if not is_played(part, method):
                _play_way(study, sets, record, method, policy, way_path(part, method), size)
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
    write_table(folder / "episodes.parquet", stack(episodes))  # last: see is_played


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
