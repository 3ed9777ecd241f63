"""Figures of knowing in time that a catastrophe on CoinRun comes.

ROC curves, AUC and average precision of the scores; what thresholds promise, and what alarms cost.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from hotoven.evaluation.coinrun_rows import SCORE, Tables, all_sizes, compared_sizes, rows_of
from hotoven.evaluation.knowing import PANELS, SCORES
from hotoven.report.animate import method_name
from hotoven.report.coinrun_looks import (
    CURVES,
    LEAST_WIDTH,
    RULE_LOOKS,
    SCORE_LOOKS,
    legend,
    score_legend,
    score_look,
)
from hotoven.report.coinrun_watch import WATCHED
from hotoven.report.style import (
    BLACK,
    GREY,
    PALE,
    STYLE,
    dodge,
    empty,
    lines_behind,
    logarithmic,
    numbers,
    say,
)

RULE_NAMES: Final = {"conformal": "on average (conformal)", "tested": "surely (learn then test)"}
SET_NAMES: Final = {"test": "unseen levels", "shifted": "levels of the other mode"}


def roc_figure(tables: Tables) -> Figure:
    """The post's four panels: ROC curves, two numbers of training levels by two windows.

    A curve is the mean of the post's ten samples of steps, its band one standard deviation. The
    legend has the AUC twice: as the post has it, and with the interval from resampled levels.
    """
    sizes = compared_sizes(all_sizes(tables))
    with matplotlib.rc_context(STYLE):
        figure = empty(12, 5.2 * len(sizes) + 0.7)
        panels = figure.subplots(len(sizes), len(PANELS), sharex=True, sharey=True, squeeze=False)
        for line, size in zip(panels, sizes, strict=True):
            for axes, window in zip(line, PANELS, strict=True):
                _draw_roc(axes, tables, size, window)
        for axes in panels[-1]:
            axes.set_xlabel("false-positive rate")
        for axes in panels[:, 0]:
            axes.set_ylabel("true-positive rate")
        figure.suptitle(
            "A catastrophe within the window, told from U = \N{GREEK SMALL LETTER ALPHA}"
            "\N{GREEK SMALL LETTER MU} + \N{GREEK SMALL LETTER BETA}\N{GREEK SMALL LETTER SIGMA}; "
            "AUC: mean \N{PLUS-MINUS SIGN} std of ten samples of steps, "
            "[95% interval, levels resampled]",
            fontsize=11,
        )
    return figure


def auc_figure(tables: Tables) -> Figure:
    """AUC of every score over the window, and over the number of training levels.

    Bars are 95% intervals, levels resampled; only the scores in colour have them.
    """
    return _scores_figure(tables, "auc", "AUC")


def precision_figure(tables: Tables) -> Figure:
    """Average precision of every score, as `auc_figure`.

    A random score has the share of steps before a catastrophe, which grows with the window.
    """
    return _scores_figure(tables, "average_precision", "average precision")


def _scores_figure(tables: Tables, measure: str, words: str) -> Figure:
    """A column of predictions.parquet over the window, and over the number of training levels."""
    sizes = all_sizes(tables)
    rows = rows_of(tables, "predictions", acting=WATCHED)
    windows = sorted({row["window"] for row in rows}) or list(PANELS)
    with matplotlib.rc_context(STYLE):
        columns = max(len(sizes), len(PANELS))
        figure = empty(6 * columns, 8.4)
        above, below = figure.subplots(2, columns, sharey=True)
        for axes in (*above[len(sizes) :], *below[len(PANELS) :]):
            axes.set_axis_off()
        for axes, size in zip(above, sizes, strict=False):
            chosen = [row for row in rows if row["num_train_levels"] == size]
            _draw_scores(axes, chosen, "window", windows, measure)
            logarithmic(axes, windows, "window, steps")
            axes.set_title(f"{size:,} training levels", fontsize=12)
        for axes, window in zip(below, PANELS, strict=False):
            chosen = [row for row in rows if row["window"] == window]
            _draw_scores(axes, chosen, "num_train_levels", sizes, measure)
            logarithmic(axes, sizes, "number of training levels")
            axes.set_title(_window_name(window), fontsize=12)
        for axes in (above[0], below[0]):
            axes.set_ylabel(words)
        if not rows:
            above[0].set_ylim(0, 1.02)
        score_legend(figure)
        figure.suptitle(
            f"acting: {method_name(WATCHED)}; bars are 95% intervals, levels resampled",
            fontsize=10,
            color="#555555",
        )
    return figure


def promises_figure(tables: Tables) -> Figure:
    """The share of catastrophes left unannounced, promised against measured.

    Where only an alarm in every step keeps a promise it is vacuous, and its point hollow.
    """
    sizes = all_sizes(tables)
    rows = rows_of(tables, "promises", score=SCORE)
    shares = sorted({row["promised"] for row in rows}) or [0.5]
    gap = min(np.diff(shares), default=0.1)
    with matplotlib.rc_context(STYLE):
        figure = empty(max(LEAST_WIDTH, 0.9 + 4.8 * len(sizes)), 9.7)
        panels = figure.subplots(
            len(SET_NAMES), len(sizes), sharex=True, sharey=True, squeeze=False
        )
        for line, set_name in zip(panels, SET_NAMES, strict=True):
            for axes, size in zip(line, sizes, strict=True):
                own = [
                    row for row in rows if (row["num_train_levels"], row["set"]) == (size, set_name)
                ]
                _draw_promises(axes, own, gap)
                title = f"{size:,} training levels, {SET_NAMES[set_name]}"
                if own:
                    title += f"\n{own[0]['num_catastrophes']} catastrophes"
                axes.set_title(title, fontsize=11)
        for axes in panels.flat:
            axes.xaxis.set_major_formatter(PercentFormatter(1))
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        panels[0, 0].set_xlim(0, shares[-1] + gap)
        panels[0, 0].set_ylim(0, 1.0)
        for axes in panels[-1]:
            axes.set_xlabel("promised: unannounced at most")
        for axes in panels[:, 0]:
            axes.set_ylabel("measured: unannounced")
        handles: list[Any] = [
            Line2D([], [], color=colour, marker=marker, linestyle="", label=RULE_NAMES[rule])
            for rule, (colour, marker) in RULE_LOOKS.items()
        ]
        if any(row["vacuous"] for row in rows):
            look = {"color": BLACK, "marker": "o", "markerfacecolor": "white", "linestyle": ""}
            label = "hollow: vacuous, alarm in every step"
            handles.append(Line2D([], [], **look, label=label))
        handles.append(Patch(facecolor="#E8F3EE", label="promise kept"))
        legend(figure, handles, columns=4)
        figure.suptitle(
            f"score: {SCORE}; acting: {method_name(WATCHED)}; bars are 95% intervals of the "
            "measured share,\nnot of the levels that thresholds were chosen on",
            fontsize=10,
            color="#555555",
        )
    return figure


def alarms_figure(tables: Tables) -> Figure:
    """What it costs to announce a share of the catastrophes: how late, with how many alarms.

    To alarm always is no threshold of anybody's and left out. A random score is the floor; the
    oracle, who announces all with one threshold, is no line.
    """
    drawn = [score for score in SCORES if score != "oracle"]
    sizes = all_sizes(tables)
    rows = rows_of(tables, "alarms", acting=WATCHED)
    with matplotlib.rc_context(STYLE):
        figure = empty(max(LEAST_WIDTH, 1.2 + 5.4 * len(sizes)), 11.4)
        panels = figure.subplots(3, len(sizes), sharex=True, sharey="row", squeeze=False)
        for column, size in enumerate(sizes):
            own = [
                row
                for row in rows
                if row["num_train_levels"] == size and np.isfinite(row["thresholds"])
            ]
            for axes, measure in zip(
                panels[:, column],
                ("median_lead", "announced_per_100", "false_share"),
                strict=True,
            ):
                for score in drawn:
                    of_score = [
                        row
                        for row in own
                        if row["score"] == score
                        and row["announced_share"] is not None
                        and row[measure] is not None
                    ]
                    of_score.sort(key=lambda row: row["thresholds"])
                    share = numbers(of_score, "announced_share")
                    axes.plot(share, numbers(of_score, measure), **score_look(score, 3))
                if not any(row["announced_share"] for row in own):
                    say(axes, "no catastrophe was announced")
                axes.xaxis.set_major_formatter(PercentFormatter(1))
                lines_behind(axes)
            panels[0, column].set_title(f"{size:,} training levels", fontsize=12)
            panels[2, column].set_xlabel("% of catastrophes announced")
        panels[0, 0].set_xlim(0, 1.02)
        panels[0, 0].set_ylabel("median lead of the first alarm, steps")
        panels[1, 0].set_ylabel("catastrophes announced per 100 alarms")
        panels[2, 0].set_ylabel("% of other episodes with an alarm")
        panels[2, 0].yaxis.set_major_formatter(PercentFormatter(1))
        for axes in panels[:, 0]:
            axes.set_ylim(0, None)
        score_legend(figure, drawn)
        leads = sorted({row["min_lead"] for row in rows})
        named = " or ".join(map(str, leads)) or "some"
        figure.suptitle(
            f"a catastrophe is announced by any alarm at least {named} steps before it, even one "
            f"for another danger;\nacting: {method_name(WATCHED)}; one point per threshold",
            fontsize=10,
            color="#555555",
        )
    return figure


def _window_name(window: int) -> str:
    return f"window of {window} step{'' if window == 1 else 's'}"


def _draw_roc(axes: Axes, tables: Tables, size: int, window: int) -> None:
    where = {"num_train_levels": size, "window": window}
    axes.plot([0, 1], [0, 1], color=PALE, linewidth=1, zorder=0)
    title = f"{size:,} training levels, {_window_name(window)}"
    counts = {}
    for (acting, score), (colour, dashes) in CURVES.items():
        line = {"acting": acting, "score": score, **where}
        points = sorted(rows_of(tables, "roc", **line), key=lambda row: row["false_positive_rate"])
        told = rows_of(tables, "predictions", **line)
        if not points or not told:
            continue
        at, mean, std = (
            numbers(points, name) for name in ("false_positive_rate", "true_positive_rate", "std")
        )
        one = told[0]
        label = (
            f"{method_name(acting)} | {score}: {one['post_auc']:.3f} \N{PLUS-MINUS SIGN} "
            f"{one['post_std']:.3f}  [{one['auc_low']:.3f}, {one['auc_high']:.3f}]"
        )
        axes.plot(at, mean, color=colour, linestyle=dashes, linewidth=1.8, label=label)
        axes.fill_between(
            at, (mean - std).clip(0, 1), (mean + std).clip(0, 1), color=colour, alpha=0.2, lw=0
        )
        counts[acting] = one["num_positive_levels"]
    if counts:
        died = ", ".join(f"{method_name(acting)} {count}" for acting, count in counts.items())
        title += f"\ncatastrophes: {died}"
        axes.legend(loc="lower right", fontsize=8, frameon=False)
    else:
        say(axes, "no catastrophe: there is nothing to predict")
    axes.set_title(title, fontsize=11)
    axes.set_xlim(-0.01, 1.0)
    axes.set_ylim(0.0, 1.01)


def _draw_scores(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    column: str,
    places: Sequence[int],
    measure: str,
) -> None:
    """A measure of every score over a column; the coloured ones side by side, with intervals."""
    coloured = list(SCORE_LOOKS)
    for score in SCORES:
        own = sorted((row for row in rows if row["score"] == score), key=lambda row: row[column])
        shift = 1.0
        if score in SCORE_LOOKS:
            shift = dodge(places, coloured.index(score), len(coloured))
        at = numbers(own, column) * shift
        axes.plot(at, numbers(own, measure), **score_look(score, 5))
        if score in SCORE_LOOKS:
            low, high = numbers(own, f"{measure}_low"), numbers(own, f"{measure}_high")
            axes.vlines(at, low, high, color=SCORE_LOOKS[score][0], linewidth=1.2, alpha=0.75)
    if not rows:
        say(axes, "no catastrophe: there is nothing to predict")
    axes.set_xlim(places[0] / 1.4, places[-1] * 1.4)
    lines_behind(axes)


def _draw_promises(axes: Axes, rows: Sequence[Mapping[str, Any]], gap: float) -> None:
    axes.fill_between([0, 1], [0, 0], [0, 1], color="#E8F3EE", linewidth=0, zorder=0)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, zorder=1)
    for place, (rule, (colour, marker)) in enumerate(RULE_LOOKS.items()):
        for row in rows:
            if row["rule"] != rule:
                continue
            at = row["promised"] + gap * (0.2 * place - 0.1)
            axes.vlines(at, row["low"], row["high"], color=colour, linewidth=1.4, zorder=2)
            axes.plot(
                at, row["share"], marker=marker, color=colour, markersize=6, zorder=3,
                markerfacecolor="white" if row["vacuous"] else colour, clip_on=False,
            )  # fmt: skip
    if not rows:
        say(axes, "no catastrophe: there is nothing to announce")
