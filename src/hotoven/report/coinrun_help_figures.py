"""The figure of help on CoinRun: what remains of the catastrophes, and how often help is asked."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from hotoven.evaluation.coinrun_rows import Tables, all_sizes, rows_of
from hotoven.report.coinrun_looks import (
    HELPER_LOOKS,
    LEAST_WIDTH,
    helper_look,
    known_first,
    legend,
)
from hotoven.report.style import GREY, STYLE, empty, lines_behind, numbers, say


def risk_coverage_figure(tables: Tables) -> Figure:
    """Catastrophes and solved levels against requests for help, one line per helper."""
    sizes = all_sizes(tables)
    rows = rows_of(tables, "help_rates")
    helpers = sorted(
        {row["helper"] for row in rows}, key=lambda name: known_first(name, HELPER_LOOKS)
    )
    with matplotlib.rc_context(STYLE):
        figure = empty(max(LEAST_WIDTH, 1.5 + 4.8 * len(sizes)), 7.6)
        panels = figure.subplots(2, len(sizes), sharex=True, sharey="row", squeeze=False)
        for column, size in enumerate(sizes):
            own = [row for row in rows if row["num_train_levels"] == size]
            for axes, outcome in zip(panels[:, column], ("catastrophe", "solved"), strict=True):
                _draw_help(axes, own, helpers, outcome)
            panels[0, column].set_title(f"{size:,} training levels", fontsize=12)
            panels[1, column].set_xlabel("requests for help per episode")
        panels[0, 0].set_ylabel("% of unseen levels that\nended in catastrophe")
        panels[1, 0].set_ylabel("% of unseen levels solved")
        panels[0, 0].set_ylim(0, None)
        panels[1, 0].set_ylim(0, 1.03)
        handles = [
            Line2D([], [], label=f"helped by: {helper.replace('_', ' ')}", **helper_look(helper))
            for helper in helpers
        ]
        handles.append(Line2D([], [], color=GREY, linestyle="--", label="without help"))
        legend(figure, handles, columns=3)
        counts = sorted({row["num_levels"] for row in rows})
        counted = " to ".join(f"{count:,}" for count in dict.fromkeys(counts[:1] + counts[-1:]))
        figure.suptitle(
            f"{counted} unseen levels; one point per threshold; bars are 95% intervals",
            fontsize=10,
            color="#555555",
        )
    return figure


def _draw_help(
    axes: Axes, rows: Sequence[Mapping[str, Any]], helpers: Sequence[str], outcome: str
) -> None:
    for helper in helpers:
        own = [row for row in rows if row["helper"] == helper]
        own.sort(key=lambda row: row["requests_per_episode"])
        at, rate = numbers(own, "requests_per_episode"), numbers(own, f"{outcome}_rate")
        look = helper_look(helper)
        axes.plot(at, rate, **look, clip_on=False, zorder=3)
        if outcome == "catastrophe":
            low, high = (numbers(own, f"catastrophe_{end}") for end in ("low", "high"))
            axes.vlines(at, low, high, color=look["color"], linewidth=1.2, alpha=0.7)
    alone = [row for row in rows if row["requests_per_episode"] == 0]
    if alone:
        axes.axhline(alone[0][f"{outcome}_rate"], color=GREY, linestyle="--", linewidth=1.2)
    if not rows:
        say(axes, "no help was asked for")
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.04, None)
    top = max((row["requests_per_episode"] for row in rows), default=1)
    ticks = [tick for tick in (0, 0.5, 1, 2, 5, 10, 20, 50, 100) if tick <= max(top * 1.2, 1)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    lines_behind(axes)
