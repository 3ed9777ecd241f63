"""The CoinRun study's one way through: train, play, predict, help, tell.

Every stage writes its result into the run's folder and is skipped where the result is there, so
that a killed run goes on where it stopped and ends with the same bytes. Settings and levels are in
`coinrun_settings`, agents in `coinrun_agents`, what is played in `coinrun_plays` and
`coinrun_help`, and where it lies in `coinrun_parts`. What is computed from tables alone stands in
`evaluation.knowing`.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from jax.tree_util import Partial

from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.coinrun.planner import NUM_MOVES
from hotoven.evaluation import coherence, findings, knowing, outcomes, scores
from hotoven.evaluation.coinrun_findings import coinrun_findings, key_of, without_tables
from hotoven.evaluation.coinrun_rows import lacking
from hotoven.evaluation.live import Said
from hotoven.mechanisms.acting import ACTING, policies
from hotoven.report import coinrun_figures, coinrun_watch
from hotoven.runs import Run
from hotoven.storage import as_written, read_table, write_bytes, write_json, write_table
from hotoven.studies.coinrun_agents import (
    PLAY,
    Players,
    agents_path,
    check_source,
    check_trainable,
    checkpoint_path,
    load_ensemble,
    make_players,
    take_over,
    train_agents,
    untrained,
)
from hotoven.studies.coinrun_help import play_with_helpers
from hotoven.studies.coinrun_parts import (
    is_whole,
    part_path,
    read_chosen,
    read_help,
    read_part,
    ways_of_help,
)
from hotoven.studies.coinrun_plays import play_alone
from hotoven.studies.coinrun_settings import (
    PREDICTED,
    PRESETS,
    WATCHED,
    CoinRunStudy,
    make_sets,
)
from hotoven.studies.parts import (
    BY_HAND,
    agent_key,
    check_recorded,
    level_path,
    stored_test_levels,
    watched_size,
    write_levels,
)
from hotoven.types import LevelSet, PyTree
from hotoven.watch import Watched

__all__ = [  # what is asked of a study by its name
    "PRESETS",
    "CoinRunStudy",
    "check_agents",
    "check_levels",
    "check_source",
    "check_trainable",
    "evaluate",
    "merge",
    "report",
    "run",
    "take_over",
    "train",
    "untrained",
    "watched",
]
# What a run holds, in the order in which it is made.
TABLES: Final = (
    *("episodes", "steps", "rates", "agent_rates", "differences", "coherence", "help"),
    *("help_rates", "predictions", "roc", "comparisons", "alarms", "promises", "members"),
)


def run(study: CoinRunStudy, folder: Run) -> list[findings.Finding]:
    """Runs the study in that folder and returns its findings; skips what is already there."""
    train(study, folder)
    evaluate(study, folder)
    merge(study, folder.path)
    return report(study, folder.path)


def train(study: CoinRunStudy, folder: Run) -> None:
    """Trains and saves the agents, unless all are there."""
    sets = make_sets(study)
    write_levels(folder, sets._asdict())
    if untrained(study, folder.path):
        train_agents(study, sets.train, folder.path)
    checkpoint_path(folder.path).unlink(missing_ok=True)


def evaluate(study: CoinRunStudy, folder: Run) -> None:
    """Plays every level in every way, alone and with every helper, where there is no table yet.

    Raises:
      ValueError: agents are missing or damaged.
    """
    if all(is_whole(study, part_path(folder.path, size)) for size in study.sizes):
        return
    sets, players = make_sets(study), make_players(study)
    for step in (play_alone, play_with_helpers):
        for size in study.sizes:
            part = part_path(folder.path, size)
            if not is_whole(study, part):
                ensemble = load_ensemble(study, players, folder.path, size)
                step(study, sets, players, ensemble, part, size)


def check_levels(study: CoinRunStudy) -> None:
    """Raises ValueError if there are too few different levels for the study."""
    make_sets(study)


def check_agents(study: CoinRunStudy, path: Path, again: bool) -> None:
    """Raises ValueError if an agent that is to play, or play `again`, is missing or damaged."""
    players = make_players(study)
    for size in study.sizes:
        if is_whole(study, part_path(path, size)) and not again:
            continue
        if not agents_path(path, size).exists():
            check_trainable(study, path)
            raise ValueError(
                f"{path} has no agents of {size} levels: hotoven train with --resume trains them"
            )
        load_ensemble(study, players, path, size)


def test_levels(study: CoinRunStudy, path: Path) -> LevelSet:
    """The test levels of the run at `path`."""
    return stored_test_levels(path, study.env, lambda: make_sets(study).test)


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
    there = [one for one in study.sizes if agents_path(path, one).exists()]
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


def merge(study: CoinRunStudy, path: Path) -> None:
    """Writes the tables of the run at `path` from those of its parts."""
    parts = [part_path(path, size) for size in study.sizes]
    episodes, coherences = (
        pa.concat_tables([read_part(part, name, ACTING) for part in parts])
        for name in ("episodes", "coherence")
    )
    steps, said = (
        pa.concat_tables([read_part(part, name, PREDICTED) for part in parts])
        for name in ("steps", "members")
    )
    ways = ways_of_help(study)
    helped = pa.concat_tables([read_help(part, name) for part in parts for name in ways])
    chosen = [row for part in parts for row in read_chosen(part)]
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


def report(study: CoinRunStudy, path: Path) -> list[findings.Finding]:
    """Writes findings and figures of the run at `path` from its tables.

    Of a run that no longer has all of them, what rests on those is left as it is.

    Raises:
      ValueError: a table is damaged, the rates are gone, or so is what was found when a table that
        is gone was there.
    """
    sources = {name: path / f"{name}.parquet" for name in TABLES}
    kept = [name for name in TABLES if name == "rates" or sources[name].exists()]
    tables = {name: read_table(sources[name]) for name in kept}
    if not tables["rates"].num_rows:
        raise ValueError(f"{sources['rates']} holds no rates")
    figures = path / "figures"
    told = figures / "notes.txt"
    with as_written(told):
        before = told.read_text().splitlines() if told.exists() else []
    with as_written(path):  # which of its tables is not is not known
        gone = without_tables(tables)
        found = coinrun_findings(tables, _found_before(path, gone))
        test = None
        if not lacking(tables, coinrun_watch.FILMED):
            test = test_levels(study, path)
            own = _of_test(tables["steps"])
            check_recorded(sources["steps"], own, level_path(path, "test"), test)
        written = coinrun_figures.write_figures(figures, tables, test, study.env, before)
        film = coinrun_watch.write_film(figures, tables, test, study.env, before)
    write_json(path / "findings.json", findings.to_json(found))
    write_bytes(path / "findings.md", findings.to_markdown(found).encode())
    left = [
        f"finding {claim!r} is left as it is: there is no table of {name}"
        for (claim, *_), name in gone.items()
    ]
    notes = (*left, *written.notes, *film)
    write_bytes(told, "".join(f"{note}\n" for note in notes).encode())
    return found


def _found_before(path: Path, gone: Mapping[tuple[str, str, str], str]) -> list[findings.Finding]:
    """What was found when tables that are `gone` were there; see `without_tables`."""
    if not gone:
        return []
    source = path / "findings.json"
    before = findings.read_findings(source) if source.exists() else []
    stored = set(map(key_of, before))
    for claim, name in gone.items():
        if claim not in stored:
            raise ValueError(
                f"{path} has no table of {name}, and {source} does not say what was found of "
                f"{claim[0]!r} when it had one"
            )
    return before


def _of_test(steps: pa.Table) -> pa.Table:
    return steps.filter(pc.field("set") == "test")
