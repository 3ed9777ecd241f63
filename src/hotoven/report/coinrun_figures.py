"""The CoinRun study's figures, drawn from the tables of a run.

Figures of what agents do are in `coinrun_behaviour_figures`, of knowing in time in
`coinrun_knowing_figures`, of help in `coinrun_help_figures`, and how all of them look in
`coinrun_looks`; here they are written. A panel without anything to draw says so. A figure that
cannot be drawn is left out, with a note, and one whose table is no longer there is left as it is.
One agent's timeline and film are in `coinrun_watch`; the grid's figures are in `figures`, what they
share in `style`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from matplotlib.figure import Figure

from hotoven.envs.coinrun.env import CoinRun
from hotoven.evaluation.coinrun_rows import Missing, Tables, lacking
from hotoven.report.coinrun_behaviour_figures import (
    causes_figure,
    coherence_figure,
    outcomes_figure,
)
from hotoven.report.coinrun_help_figures import risk_coverage_figure
from hotoven.report.coinrun_knowing_figures import (
    alarms_figure,
    auc_figure,
    precision_figure,
    promises_figure,
    roc_figure,
)
from hotoven.report.coinrun_watch import FILMED, timeline_figure
from hotoven.report.style import SUFFIXES, Written, write_all
from hotoven.types import LevelSet


class Drawing(NamedTuple):
    """How a figure is drawn, and from which tables."""

    draw: Callable[[Tables], Figure]
    reads: tuple[str, ...]


FIGURES: Final[Mapping[str, Drawing]] = {
    "roc": Drawing(roc_figure, ("rates", "roc", "predictions")),
    "auc": Drawing(auc_figure, ("rates", "predictions")),
    "precision": Drawing(precision_figure, ("rates", "predictions")),
    "outcomes": Drawing(outcomes_figure, ("rates",)),
    "causes": Drawing(causes_figure, ("rates", "episodes")),
    "coherence": Drawing(coherence_figure, ("rates", "coherence", "differences")),
    "risk_coverage": Drawing(risk_coverage_figure, ("rates", "help_rates")),
    "promises": Drawing(promises_figure, ("rates", "promises")),
    "alarms": Drawing(alarms_figure, ("rates", "alarms")),
}
TIMELINE: Final = "timeline"


def write_figures(
    folder: Path,
    tables: Tables,
    level_set_test: LevelSet | None,
    env: CoinRun,
    before: Sequence[str] = (),
) -> Written:
    """Writes every figure as SVG and PNG. What cannot be drawn is left out, removed and noted.

    A figure of tables that are not there is left as it is, and noted: it is of when they were. If
    none was drawn then, `before`, what was noted, still holds. Levels are needed with steps only.
    """

    def draw_timeline(given: Tables) -> Figure:
        assert level_set_test is not None, "there are steps, and no levels"
        return timeline_figure(given, level_set_test, env)

    figures = {**FIGURES, TIMELINE: Drawing(draw_timeline, FILMED)}
    drawn: dict[str, Figure] = {}
    undrawn, notes = [], []
    for name, (draw, reads) in figures.items():
        absent = lacking(tables, reads)
        if absent:
            notes.append(_of_then(folder, name, absent[0], before))
            continue
        try:
            drawn[name] = draw(tables)
        except Missing as absence:
            undrawn.append(name)
            notes.append(f"no figure {name}: {absence}")
    return Written(write_all(folder, drawn, undrawn), notes)


def _of_then(folder: Path, name: str, absent: str, before: Sequence[str]) -> str:
    """What is to be said of a figure whose table is no longer there."""
    if any((folder / f"{name}.{suffix}").exists() for suffix in SUFFIXES):
        return f"figure {name} is left as it is: there is no table of {absent}"
    none = f"no figure {name}: "
    return next(
        (note for note in before if note.startswith(none)), f"{none}there is no table of {absent}"
    )
