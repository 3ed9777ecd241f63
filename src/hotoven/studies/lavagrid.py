"""The gridworld study's one way through: train, block, play, tell.

Every stage writes its result into the run's folder and is skipped where the result is there, so
that a killed run goes on where it stopped and ends with the same bytes. Settings and levels are in
`lavagrid_settings`, agents in `lavagrid_agents`, and what they play in `lavagrid_plays`.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jax.tree_util import Partial

from hotoven.evaluation import findings, outcomes, scores
from hotoven.evaluation.knowing import read_recorded
from hotoven.evaluation.live import Said
from hotoven.evaluation.promise import Promise, catastrophe_peaks, conformal_threshold
from hotoven.progress import tell
from hotoven.report import animate, figures
from hotoven.runs import Run
from hotoven.storage import as_written, read_json, read_table, write_bytes, write_json, write_table
from hotoven.studies.lavagrid_agents import (
    PLAY,
    Nets,
    agents_path,
    checkpoint_path,
    is_trained,
    load_ensemble,
    make_nets,
    part_path,
    train_agents,
)
from hotoven.studies.lavagrid_plays import play_all, policies
from hotoven.studies.lavagrid_settings import PRESETS, LavaGridStudy, make_split
from hotoven.studies.parts import (
    BY_HAND,
    agent_key,
    check_recorded,
    level_path,
    made_again_without,
    stored_test_levels,
    watched_size,
    write_levels,
)
from hotoven.types import LevelSet, PyTree
from hotoven.watch import Watched

__all__ = [  # what is asked of a study by its name
    "PRESETS",
    "LavaGridStudy",
    "check_agents",
    "check_levels",
    "evaluate",
    "merge",
    "report",
    "run",
    "train",
    "unmerge",
    "untrained",
    "watched",
]
# Columns without which a stored table is none of a study's.
STEP_COLUMNS = (
    *("set", "method", "num_train_levels", "replication", "level_index", "level_id", "step"),
    *("action", "outcome", "members", "blocker", "dangerous"),
)
RATE_COLUMNS = (
    *("set", "method", "num_train_levels", "num_levels", "num_replications", "resampled"),
    *("catastrophe_rate", "solved_rate"),
)
WATCHED = "mean"  # the method that asks a person for help
PROMISED = 0.2  # share of catastrophes that its alarms may leave unannounced, by default
HELP_STEPS = 5  # for which a person takes over, by default
_TRAINS_THEM = "hotoven train with --resume trains them"


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
    return [one for one in asked if not is_trained(study, path, one)]


def _unplayed(study: LavaGridStudy, path: Path) -> list[int]:
    return [one for one in range(study.num_replications) if not _is_played(path, one)]


def _train(study: LavaGridStudy, folder: Run, replications: Iterable[int]) -> None:
    split = make_split(study)
    write_levels(folder, split._asdict())
    for role, chosen in split._asdict().items():
        tell(f"{role} levels: {len(chosen)}, {chosen.num_duplicates} duplicates dropped")
    for replication in replications:
        if not is_trained(study, folder.path, replication):
            train_agents(study, split.train, folder.path, replication)
        for role in ("members", "dropout"):
            checkpoint_path(folder.path, role, replication).unlink(missing_ok=True)


def evaluate(study: LavaGridStudy, folder: Run) -> None:
    """Plays every level with every method, for every replication that has no table yet.

    Raises:
      ValueError: agents are missing or damaged.
    """
    split = make_split(study)
    for replication in _unplayed(study, folder.path):
        play_all(study, split, folder.path, replication)


def _is_played(path: Path, replication: int) -> bool:
    return (part_path(path, replication) / "episodes.parquet").exists()


def check_agents(study: LavaGridStudy, path: Path, again: bool) -> None:
    """Raises ValueError if an agent that is to play, or play `again`, is missing or damaged."""
    for replication in range(study.num_replications):
        if _is_played(path, replication) and not again:
            continue  # in a run that has got more replications those agents may be gone
        for size in study.sizes:
            if not agents_path(path, size, replication).exists():
                raise ValueError(
                    f"{path} has no agents of {size} levels, replication {replication + 1}: "
                    f"{_TRAINS_THEM}"
                )
            load_ensemble(study, path, size, replication)
        if not is_trained(study, path, replication):
            raise ValueError(
                f"{path} does not say how replication {replication + 1}'s blockers are calibrated: "
                f"{_TRAINS_THEM}"
            )


def check_levels(study: LavaGridStudy) -> None:
    """Raises ValueError if there are too few different levels for the study."""
    make_split(study)


def test_levels(study: LavaGridStudy, path: Path) -> LevelSet:
    """The test levels of the run at `path`."""
    return stored_test_levels(path, study.env, lambda: make_split(study).test)


def merge(study: LavaGridStudy, path: Path) -> None:
    """Writes the tables of the run at `path` from those of its replications."""
    parts = [part_path(path, replication) for replication in range(study.num_replications)]
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
        folder = part_path(path, replication)
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
    there = [one for one in study.sizes if agents_path(path, one, 0).exists()]
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
