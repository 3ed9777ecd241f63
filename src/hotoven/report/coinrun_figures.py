"""The CoinRun study's figures, drawn from the tables of a run.

Figures of what agents do are in `coinrun_behaviour_figures`, of knowing in time in
`coinrun_knowing_figures`, of help in `coinrun_help_figures`, and how all of them look in
`coinrun_looks`; here they are written. A panel without anything to draw says so; a figure whose
table is missing is left out, with a note. One agent's timeline and film are in `coinrun_watch`; the
grid's figures are in `figures`, what they share in `style`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from hotoven.envs.coinrun.env import CoinRun
from hotoven.evaluation.coinrun_rows import Missing, Tables
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
from hotoven.report.coinrun_watch import timeline_figure
from hotoven.report.style import Written, write_all
from hotoven.types import LevelSet

FIGURES: Final[Mapping[str, Callable[[Tables], Figure]]] = {
    "roc": roc_figure,
    "auc": auc_figure,
    "precision": precision_figure,
    "outcomes": outcomes_figure,
    "causes": causes_figure,
    "coherence": coherence_figure,
    "risk_coverage": risk_coverage_figure,
    "promises": promises_figure,
    "alarms": alarms_figure,
}
TIMELINE: Final = "timeline"


def write_figures(folder: Path, tables: Tables, level_set_test: LevelSet, env: CoinRun) -> Written:
    """Writes every figure as SVG and PNG. What cannot be drawn is left out, removed and noted."""
    drawn: dict[str, Figure] = {}
    notes = []
    for name, draw in FIGURES.items():
        try:
            drawn[name] = draw(tables)
        except Missing as absence:
            notes.append(f"no figure {name}: {absence}")
    try:
        drawn[TIMELINE] = timeline_figure(tables, level_set_test, env)
    except Missing as absence:
        notes.append(f"no figure {TIMELINE}: {absence}")
    return Written(write_all(folder, drawn, [*FIGURES, TIMELINE]), notes)
