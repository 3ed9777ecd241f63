"""Figures of what CoinRun's agents do: how episodes end, by what cause, how coherent they act.

Every number comes from a table, but for shares of causes, which are counted from the episodes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from hotoven.evaluation.coinrun_rows import Missing, Tables, all_sizes, rows_of
from hotoven.report.animate import method_name
from hotoven.report.coinrun_looks import (
    ACTING_LOOKS,
    CAUSE_LOOKS,
    OTHER_CAUSE,
    SIZE_MARKERS,
    acting_look,
    known_first,
    legend,
)
from hotoven.report.figures import rests_on
from hotoven.report.style import (
    BLACK,
    GREY,
    STYLE,
    dodge,
    draw_rates,
    empty,
    finish_rates,
    lines_behind,
    numbers,
    say,
)

MAX_COLUMNS: Final = 4  # of measures of coherence, side by side


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
                    draw_rates(axes, own, outcome, method, acting_look(method), shift)
                if not of_set:
                    say(axes, "no episode was played")
                which = "tries at training" if set_name == "train" else "unseen"
                finish_rates(axes, sizes, f"% of {which} levels {words}")
        panels[0, 0].set_ylim(0, None)
        panels[1, 0].set_ylim(0, 1.03)
        for axes in panels[0]:
            axes.set_xlabel("")
        legend(figure, [_method_handle(method) for method in methods], columns=4)
        tested = [row for row in rows if row["set"] == "test"]
        if tested:
            figure.suptitle(
                f"{rests_on(tested)}; training levels are no sample and have none",
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
    causes = sorted(
        set(causes) | set(CAUSE_LOOKS), key=lambda cause: known_first(cause, CAUSE_LOOKS)
    )
    with matplotlib.rc_context(STYLE):
        figure = empty(2.2 + 4.6 * len(sizes), 2.6 + 0.9 * len(methods))
        panels = figure.subplots(2, len(sizes), sharex=True, sharey=True, squeeze=False)
        for line, (name, shares) in zip(panels, by_set.items(), strict=True):
            words = "tries at training" if name == "train" else "unseen"
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
        legend(figure, handles, columns=len(handles))
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
            else:  # steps: of who keeps to an action, some hundred times another's
                _scale_by_factors(axes)
            axes.set_title(measure.replace(" in ", "\nin ").replace("_", " "), fontsize=11)
        _draw_forest(panels[-1], differences, methods, sizes)
        panels[-1].axvline(0, color=GREY, linewidth=1)
        panels[-1].xaxis.set_major_formatter(
            lambda value, _: f"{100 * value:+.3g} pp" if abs(value) > 1e-9 else "0"
        )
        panels[-1].set_title("catastrophes minus\na single agent's", fontsize=11)
        panels[0].set_yticks(range(len(methods)), [method_name(method) for method in methods])
        panels[0].set_ylim(len(methods) - 0.4, -0.6)
        handles = [
            Line2D([], [], color=GREY, marker=marker, linestyle="", label=f"{size:,} levels")
            for size, marker in zip(sizes, _size_markers(sizes), strict=True)
        ]
        legend(figure, handles, columns=len(handles))
        figure.suptitle("unseen levels; bars are 95% intervals", fontsize=10, color="#555555")
    return figure


def _scale_by_factors(axes: Axes) -> None:
    """A logarithmic axis with two to four labels, so that none touch."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high < 5 * low:  # labels of such an axis would be one or none
        axes.set_xscale("linear")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3))
        return
    tens = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        marks = np.outer(tens, steps).ravel()
        marks = marks[(low <= marks) & (marks <= high)]
        if len(marks) <= 4:
            break
    axes.xaxis.set_major_locator(FixedLocator(marks.tolist()))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def _bounds(outcome: str) -> tuple[str, str]:
    return f"{outcome}_low", f"{outcome}_high"


def _methods(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({row["method"] for row in rows}, key=lambda name: known_first(name, ACTING_LOOKS))


def _method_handle(method: str) -> Line2D:
    return Line2D([], [], label=method_name(method), **acting_look(method))


def _size_markers(sizes: Sequence[int]) -> list[str]:
    return [SIZE_MARKERS[place % len(SIZE_MARKERS)] for place in range(len(sizes))]


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
        colour = acting_look(row["method"])["color"]
        if row["low"] is not None and row["high"] is not None:
            axes.hlines(at, row["low"], row["high"], color=colour, linewidth=1.4)
        hollow = acting_look(row["method"])["markerfacecolor"]
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
