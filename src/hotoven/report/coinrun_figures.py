"""The CoinRun study's figures, drawn from the tables of a run.

Every number comes from a table, but for shares of causes, which are counted from the episodes. A
panel without anything to draw says so; a figure whose table is missing is left out, with a note.
One agent's timeline and film are in
`coinrun_watch`; the grid's figures are in `figures`, what they share in `style`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hotoven.envs.coinrun.env import CoinRun
from hotoven.evaluation.coinrun_rows import (
    SCORE,
    Missing,
    Tables,
    all_sizes,
    compared_sizes,
    rows_of,
)
from hotoven.evaluation.knowing import PANELS, SCORES
from hotoven.report.animate import method_name
from hotoven.report.coinrun_watch import WATCHED, timeline_figure
from hotoven.report.figures import basis
from hotoven.report.style import (
    BLACK,
    BLUE,
    DASHES,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    STYLE,
    VERMILLION,
    Written,
    dodge,
    draw_rates,
    empty,
    finish_rates,
    lines_behind,
    logarithmic,
    numbers,
    say,
    write_all,
)
from hotoven.types import LevelSet

# Ways of acting in the order of reports; what keeps to a choice is as what does not, but dashed.
ACTING_LOOKS: Final = {  # -> colour, marker, whether a choice is kept
    "single": (VERMILLION, "o", False),
    "random_step": (GREEN, "^", False),
    "random_hold": (GREEN, "v", True),
    "random_episode": (ORANGE, "o", True),
    "mean": (BLUE, "s", False),
    "mean_logits": (SKY, "P", False),
    "vote": (PURPLE, "D", False),
    "mean_hysteresis": (BLUE, "s", True),
}
# Scores that are told apart by colour; the others are thin and grey.
SCORE_LOOKS: Final = {
    "mean": (BLUE, "s"),
    "mean and std": (PURPLE, "o"),
    "best pair": (VERMILLION, "^"),
    "head": (GREEN, "D"),
    "blocker": (ORANGE, "v"),
}
THIN_LINES: Final = ("-", "--", "-.", ":")
BOUNDS: Final = ("random", "oracle")  # scores that no score should miss, or can pass
CURVES: Final = {  # acting, score -> colour, line: the post's four
    ("random_step", "mean"): (SKY, DASHES),
    ("random_step", "mean and std"): (ORANGE, DASHES),
    ("mean", "mean"): (BLUE, "-"),
    ("mean", "mean and std"): (PURPLE, "-"),
}
CAUSE_LOOKS: Final = {  # -> colour, hatch
    "lava": (VERMILLION, ""),
    "saw": (SKY, "///"),
    "monster": (PURPLE, "..."),
}
OTHER_CAUSE: Final = (GREY, "xx")
HELPER_LOOKS: Final = {
    "planner": (GREEN, "o"),
    "stand_still": (ORANGE, "s"),
    "retreat": (PURPLE, "^"),
    "stumble": (BLUE, "D"),
    "planner_at_random": (GREY, "v"),
}
RULE_LOOKS: Final = {"conformal": (BLUE, "o"), "tested": (ORANGE, "s")}
RULE_NAMES: Final = {"conformal": "on average (conformal)", "tested": "surely (learn then test)"}
SET_NAMES: Final = {"test": "unseen levels", "shifted": "levels of the other mode"}
MAX_COLUMNS: Final = 4  # of measures of coherence, side by side
SIZE_MARKERS: Final = ("o", "s", "D", "^", "v", "P")


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
        figure = empty(12, 8.4)
        above, below = figure.subplots(2, 2, sharey=True)
        for axes, size in zip(above, (*compared_sizes(sizes), None), strict=False):
            if size is None:
                axes.set_axis_off()
                continue
            chosen = [row for row in rows if row["num_train_levels"] == size]
            _draw_scores(axes, chosen, "window", windows, measure)
            logarithmic(axes, windows, "window, steps")
            axes.set_title(f"{size:,} training levels", fontsize=12)
        for axes, window in zip(below, PANELS, strict=True):
            chosen = [row for row in rows if row["window"] == window]
            _draw_scores(axes, chosen, "num_train_levels", sizes, measure)
            logarithmic(axes, sizes, "number of training levels")
            axes.set_title(_window_name(window), fontsize=12)
        for axes in (above[0], below[0]):
            axes.set_ylabel(words)
        if not rows:
            above[0].set_ylim(0, 1.02)
        _score_legend(figure)
        figure.suptitle(
            f"acting: {method_name(WATCHED)}; bars are 95% intervals, levels resampled",
            fontsize=10,
            color="#555555",
        )
    return figure


def outcomes_figure(tables: Tables) -> Figure:
    """Catastrophes and solved levels over the number of training levels, training beside unseen.

    Training levels are all that there are, not a sample of others, so they have no intervals.
    """
    rows = rows_of(tables, "rates")
    sizes, methods = all_sizes(tables), _methods(rows)
    with matplotlib.rc_context(STYLE):
        figure = empty(12, 9)
        panels = figure.subplots(2, 2, sharex=True, sharey="row")
        for line, outcome in zip(panels, ("catastrophe", "solved"), strict=True):
            words = "that ended in catastrophe" if outcome == "catastrophe" else "solved"
            for axes, set_name in zip(line, ("train", "test"), strict=True):
                of_set = [row for row in rows if row["set"] == set_name]
                if set_name == "train":
                    of_set = [row | dict.fromkeys(_bounds(outcome)) for row in of_set]
                for place, method in enumerate(methods):
                    own = [row for row in of_set if row["method"] == method]
                    shift = dodge(sizes, place, len(methods))
                    draw_rates(axes, own, outcome, method, _acting_look(method), shift)
                if not of_set:
                    say(axes, "no episode was played")
                which = "training" if set_name == "train" else "unseen"
                finish_rates(axes, sizes, f"% of {which} levels {words}")
        panels[0, 0].set_ylim(0, None)
        panels[1, 0].set_ylim(0, 1.03)
        for axes in panels[0]:
            axes.set_xlabel("")
        _legend(figure, [_method_handle(method) for method in methods], columns=4)
        tested = [row for row in rows if row["set"] == "test"]
        if tested:
            figure.suptitle(
                f"{basis(tested)}; training levels are no sample and have none",
                fontsize=10,
                color="#555555",
            )
    return figure


def cause_shares(episodes: pa.Table, set: str = "test") -> list[dict[str, Any]]:
    """What share of a way of acting's episodes on the levels of a set ended by each cause.

    One row per num_train_levels, method, outcome ("catastrophe" or "timeout") and cause that
    occurred, with its share of all episodes of that size and method; and one with the outcome
    "solved" and the cause "" in which the rest is, so that no way of acting is without a row.
    """
    tested = episodes.filter(pc.field("set") == set)
    where = ["num_train_levels", "method"]
    counted = tested.group_by([*where, "outcome", "cause"]).aggregate([([], "count_all")])
    counts = counted.to_pylist()
    totals: dict[tuple[int, str], int] = {}
    for row in counts:
        key = (row["num_train_levels"], row["method"])
        totals[key] = totals.get(key, 0) + row["count_all"]
    shares = []
    for (size, method), total in totals.items():
        own = [row for row in counts if (row["num_train_levels"], row["method"]) == (size, method)]
        named = [row for row in own if row["outcome"] in ("catastrophe", "timeout")]
        named = sorted(named, key=lambda row: (row["outcome"], row["cause"]))
        rest = total - sum(row["count_all"] for row in named)
        for outcome, cause, count in (
            *((row["outcome"], row["cause"], row["count_all"]) for row in named),
            ("solved", "", rest),
        ):
            shares.append(
                {
                    "num_train_levels": size,
                    "method": method,
                    "outcome": outcome,
                    "cause": cause,
                    "share": count / total,
                }
            )
    return shares


def causes_figure(tables: Tables) -> Figure:
    """What levels ended by where they were not solved: stacked, per way of acting.

    Training levels above, unseen ones below.
    """
    sizes = all_sizes(tables)
    if "episodes" not in tables:
        raise Missing("there is no table of episodes")
    by_set = {name: cause_shares(tables["episodes"], name) for name in ("train", "test")}
    every = [row for shares in by_set.values() for row in shares]
    methods = _methods(every)
    causes = [row["cause"] for row in every if row["outcome"] == "catastrophe"]
    causes = sorted(set(causes) | set(CAUSE_LOOKS), key=lambda cause: _place(cause, CAUSE_LOOKS))
    with matplotlib.rc_context(STYLE):
        figure = empty(2.2 + 4.6 * len(sizes), 2.6 + 0.9 * len(methods))
        panels = figure.subplots(2, len(sizes), sharex=True, sharey=True, squeeze=False)
        for line, (name, shares) in zip(panels, by_set.items(), strict=True):
            words = "training" if name == "train" else "unseen"
            for axes, size in zip(line, sizes, strict=True):
                own = [row for row in shares if row["num_train_levels"] == size]
                for place, method in enumerate(methods):
                    chosen = [row for row in own if row["method"] == method]
                    _draw_causes(axes, chosen, place, causes)
                if not own:
                    say(axes, "no episode was played")
                axes.set_title(f"{size:,} training levels", fontsize=12)
                axes.xaxis.set_major_formatter(PercentFormatter(1))
                axes.set_xlabel(f"% of {words} levels")
                lines_behind(axes, "x")
        first = panels[0, 0]
        first.set_yticks(range(len(methods)), [method_name(method) for method in methods])
        first.set_ylim(len(methods) - 0.4, -0.6)
        first.set_xlim(0, first.get_xlim()[1] * 1.18)  # room for the numbers
        handles = [
            Patch(facecolor=colour, hatch=hatch, edgecolor=BLACK, linewidth=0.6, label=cause)
            for cause in causes
            for colour, hatch in [CAUSE_LOOKS.get(cause, OTHER_CAUSE)]
        ]
        handles.append(Patch(facecolor="white", edgecolor=GREY, label="time-out"))
        _legend(figure, handles, columns=len(handles))
        figure.suptitle(
            "how episodes ended that were not solved; the number is % catastrophe",
            fontsize=10,
            color="#555555",
        )
    return figure


def coherence_figure(tables: Tables) -> Figure:
    """Measures of coherence of each way of acting, beside its catastrophes less a single agent's.

    Bars are 95% intervals; the differences are paired by level.
    """
    sizes = all_sizes(tables)
    rows = rows_of(tables, "coherence")
    differences = [
        row | {"estimate": row["catastrophe_difference"]}
        | {"low": row["catastrophe_low"], "high": row["catastrophe_high"]}
        for row in rows_of(tables, "differences", baseline="single")
    ]  # fmt: skip
    methods = _methods([*rows, *differences])
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    count = len(measures) + 1
    columns = min(count, MAX_COLUMNS)
    lines = -(-count // columns)
    with matplotlib.rc_context(STYLE):
        figure = empty(2.4 + 2.7 * columns, 1.2 + lines * (1.1 + 0.45 * len(methods)))
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
        panels, spare = grid.flat[:count], grid.flat[count:]
        for axes in spare:
            axes.set_axis_off()
        for axes, measure in zip(panels, measures, strict=False):
            own = [row for row in rows if row["measure"] == measure]
            _draw_forest(axes, own, methods, sizes)
            values = numbers(own, "high")
            if (values[np.isfinite(values)] <= 1).all():
                axes.xaxis.set_major_formatter(PercentFormatter(1))
            axes.set_title(measure.replace(" in ", "\nin ").replace("_", " "), fontsize=11)
        _draw_forest(panels[-1], differences, methods, sizes)
        panels[-1].axvline(0, color=GREY, linewidth=1)
        panels[-1].xaxis.set_major_formatter(
            lambda value, _: f"{100 * value:+.3g}" if abs(value) > 1e-9 else "0"
        )
        panels[-1].set_title("% catastrophes minus\na single agent's", fontsize=11)
        panels[0].set_yticks(range(len(methods)), [method_name(method) for method in methods])
        panels[0].set_ylim(len(methods) - 0.4, -0.6)
        handles = [
            Line2D([], [], color=GREY, marker=marker, linestyle="", label=f"{size:,} levels")
            for size, marker in zip(sizes, _size_markers(sizes), strict=True)
        ]
        _legend(figure, handles, columns=len(handles))
        figure.suptitle("unseen levels; bars are 95% intervals", fontsize=10, color="#555555")
    return figure


def risk_coverage_figure(tables: Tables) -> Figure:
    """Catastrophes and solved levels against requests for help, one line per helper."""
    sizes = all_sizes(tables)
    rows = rows_of(tables, "help_rates")
    helpers = sorted({row["helper"] for row in rows}, key=lambda name: _place(name, HELPER_LOOKS))
    with matplotlib.rc_context(STYLE):
        figure = empty(1.5 + 4.8 * len(sizes), 7.6)
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
            Line2D([], [], label=f"helped by: {helper.replace('_', ' ')}", **_helper_look(helper))
            for helper in helpers
        ]
        handles.append(Line2D([], [], color=GREY, linestyle="--", label="without help"))
        _legend(figure, handles, columns=3)
        counts = sorted({row["num_levels"] for row in rows})
        counted = " to ".join(f"{count:,}" for count in dict.fromkeys(counts[:1] + counts[-1:]))
        figure.suptitle(
            f"{counted} unseen levels; one point per threshold; bars are 95% intervals",
            fontsize=10,
            color="#555555",
        )
    return figure


def promises_figure(tables: Tables) -> Figure:
    """The share of catastrophes left unannounced, promised against measured.

    Where only an alarm in every step keeps a promise it is vacuous, and its point hollow.
    """
    sizes = compared_sizes(all_sizes(tables))
    rows = rows_of(tables, "promises", score=SCORE)
    shares = sorted({row["promised"] for row in rows}) or [0.5]
    gap = min(np.diff(shares), default=0.1)
    with matplotlib.rc_context(STYLE):
        figure = empty(10.5, 4.4 * len(sizes) + 0.9)
        panels = figure.subplots(len(sizes), 2, sharex=True, sharey=True, squeeze=False)
        for line, size in zip(panels, sizes, strict=True):
            for axes, set_name in zip(line, SET_NAMES, strict=True):
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
        handles += [
            Line2D(
                [], [], color=BLACK, marker="o", markerfacecolor="white", linestyle="",
                label="hollow: vacuous, alarm in every step",
            ),
            Patch(facecolor="#E8F3EE", label="promise kept"),
        ]  # fmt: skip
        _legend(figure, handles, columns=4)
        figure.suptitle(
            f"score: {SCORE}; acting: {method_name(WATCHED)}; bars are 95% intervals of the "
            "measured share,\nnot of the levels that thresholds were chosen on",
            fontsize=10,
            color="#555555",
        )
    return figure


def alarms_figure(tables: Tables) -> Figure:
    """What it costs to announce a share of the catastrophes: how late, with how many alarms.

    To alarm always is no threshold of anybody's and left out. A random score is the floor.
    """
    sizes = compared_sizes(all_sizes(tables))
    rows = rows_of(tables, "alarms", acting=WATCHED)
    with matplotlib.rc_context(STYLE):
        figure = empty(1.2 + 5.4 * len(sizes), 11.4)
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
                for score in SCORES:
                    of_score = [
                        row
                        for row in own
                        if row["score"] == score
                        and row["announced_share"] is not None
                        and row[measure] is not None
                    ]
                    of_score.sort(key=lambda row: row["thresholds"])
                    share = numbers(of_score, "announced_share")
                    axes.plot(share, numbers(of_score, measure), **_score_look(score, 3))
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
        _score_legend(figure)
        leads = sorted({row["min_lead"] for row in rows})
        named = " or ".join(map(str, leads)) or "some"
        figure.suptitle(
            f"a catastrophe is announced by any alarm at least {named} steps before it, even one "
            f"for another danger;\nacting: {method_name(WATCHED)}; one point per threshold",
            fontsize=10,
            color="#555555",
        )
    return figure


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


def _bounds(outcome: str) -> tuple[str, str]:
    return f"{outcome}_low", f"{outcome}_high"


def _legend(figure: Figure, handles: Sequence[Any], columns: int) -> None:
    figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=10,
        handlelength=2.8,
    )


def _place(name: str, known: Mapping[str, Any]) -> tuple[int, str]:
    """A key that puts known names first, in their order, and others behind, by name."""
    order = list(known)
    return (order.index(name) if name in known else len(order)), name


def _methods(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({row["method"] for row in rows}, key=lambda name: _place(name, ACTING_LOOKS))


def _acting_look(method: str) -> dict[str, Any]:
    colour, marker, kept = ACTING_LOOKS.get(method, (BLACK, "*", False))
    return {
        "color": colour,
        "marker": marker,
        "linestyle": DASHES if kept else "-",
        "markerfacecolor": "white" if kept else colour,
        "markersize": 5.5,
        "linewidth": 1.5,
    }


def _method_handle(method: str) -> Line2D:
    return Line2D([], [], label=method_name(method), **_acting_look(method))


def _helper_look(helper: str) -> dict[str, Any]:
    colour, marker = HELPER_LOOKS.get(helper, (BLACK, "v"))
    return {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.6}


def _score_look(score: str, markersize: float) -> dict[str, Any]:
    """A score in colour is thick and has a marker; the others are thin, the bounds black."""
    if score in SCORE_LOOKS:
        colour, marker = SCORE_LOOKS[score]
        return {
            "color": colour, "marker": marker, "markersize": markersize, "linewidth": 1.8,
            "zorder": 3, "label": score,
        }  # fmt: skip
    if score in BOUNDS:
        dashes = ":" if score == "random" else "-."
        return {"color": BLACK, "linewidth": 1, "linestyle": dashes, "zorder": 1, "label": score}
    thin = [name for name in SCORES if name not in SCORE_LOOKS and name not in BOUNDS]
    dashes = THIN_LINES[thin.index(score) % len(THIN_LINES)]
    return {"color": GREY, "linewidth": 1, "linestyle": dashes, "zorder": 2, "label": score}


def _score_legend(figure: Figure) -> None:
    _legend(figure, [Line2D([], [], **_score_look(score, 5)) for score in SCORES], columns=6)


def _size_markers(sizes: Sequence[int]) -> list[str]:
    return [SIZE_MARKERS[place % len(SIZE_MARKERS)] for place in range(len(sizes))]


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
        axes.plot(at, numbers(own, measure), **_score_look(score, 5))
        if score in SCORE_LOOKS:
            low, high = numbers(own, f"{measure}_low"), numbers(own, f"{measure}_high")
            axes.vlines(at, low, high, color=SCORE_LOOKS[score][0], linewidth=1.2, alpha=0.75)
    if not rows:
        say(axes, "no catastrophe: there is nothing to predict")
    axes.set_xlim(places[0] / 1.4, places[-1] * 1.4)
    lines_behind(axes)


def _draw_causes(
    axes: Axes, rows: Sequence[Mapping[str, Any]], place: int, causes: Sequence[str]
) -> None:
    """One way of acting's bar: catastrophes by cause, then time-outs, and the % of catastrophes."""
    if not rows:
        return
    end = 0.0
    for cause in causes:
        colour, hatch = CAUSE_LOOKS.get(cause, OTHER_CAUSE)
        share = sum(
            row["share"] for row in rows if (row["outcome"], row["cause"]) == ("catastrophe", cause)
        )
        axes.barh(
            place, share, 0.66, end, color=colour, hatch=hatch, edgecolor=BLACK, linewidth=0.6
        )
        end += share
    died = end
    late = sum(row["share"] for row in rows if row["outcome"] == "timeout")
    axes.barh(place, late, 0.66, end, color="white", edgecolor=GREY, linewidth=0.8)
    axes.annotate(
        f"{100 * died:.1f}%",
        (end + late, place),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )


def _draw_forest(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    sizes: Sequence[int],
) -> None:
    """Estimates with intervals, a line for each way of acting and in it one below the other."""
    markers = _size_markers(sizes)
    found = False
    for row in rows:
        if row["estimate"] is None or row["num_train_levels"] not in sizes:
            continue
        found = True
        number = sizes.index(row["num_train_levels"])
        away = 0.6 * (number - (len(sizes) - 1) / 2) / max(len(sizes), 2)
        at = methods.index(row["method"]) + away
        colour = _acting_look(row["method"])["color"]
        if row["low"] is not None and row["high"] is not None:
            axes.hlines(at, row["low"], row["high"], color=colour, linewidth=1.4)
        hollow = _acting_look(row["method"])["markerfacecolor"]
        axes.plot(
            row["estimate"], at, marker=markers[number], color=colour, markerfacecolor=hollow,
            markersize=5.5,
        )  # fmt: skip
    if not found:
        say(axes, "none")
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3))  # so that no two labels touch
    lines_behind(axes, "x")


def _draw_help(
    axes: Axes, rows: Sequence[Mapping[str, Any]], helpers: Sequence[str], outcome: str
) -> None:
    for helper in helpers:
        own = [row for row in rows if row["helper"] == helper]
        own.sort(key=lambda row: row["requests_per_episode"])
        at, rate = numbers(own, "requests_per_episode"), numbers(own, f"{outcome}_rate")
        look = _helper_look(helper)
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
