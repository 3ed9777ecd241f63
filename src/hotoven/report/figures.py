"""The study's figures, drawn from its tables: rates over training levels, and one dangerous state.

Nothing is computed here that a reader could take for a result: rates and intervals come from the
tables. Figures are made without pyplot, so drawing one leaves no state behind. Moving pictures are
in `animate.py`.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator, PercentFormatter

from hotoven.report.animate import level_of, method_name, play
from hotoven.report.style import (
    BLACK,
    BLUE,
    DASHES,
    GREEN,
    GREY,
    ORANGE,
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
    numbers,
    show,
    write_all,
)
from hotoven.types import Env, LevelSet, PyTree

LOOKS: Final = {  # method -> colour, marker
    "single": (VERMILLION, "o"),
    "mean": (BLUE, "s"),
    "vote": (GREEN, "^"),
    "mc_dropout": (PURPLE, "D"),
}
SPARE_LOOKS: Final = ((ORANGE, "v"), (SKY, "P"), (BLACK, "X"))  # for methods not named above
LINEAR: Final = 0.01  # the share up to which the axis of catastrophes is linear
THRESHOLD: Final = 0.5  # the probability above which the blocker blocks, as in the blog
EPISODE: Final = ("set", "num_train_levels", "replication", "method", "level_index")


class NoSuchState(LookupError):
    """The recorded steps hold no state of the kind asked for."""


class StateRow(NamedTuple):
    """One recorded state and what every part of the ensemble said of it."""

    set: str
    num_train_levels: int
    replication: int
    method: str
    level_index: int
    level_id: int
    step: int  # actions taken before it
    actions: np.ndarray  # int64[step], those actions
    members: np.ndarray  # float64[M, A], each member's Q-values
    blocker: np.ndarray | None  # float64[A], probability that the action is catastrophic
    dangerous: np.ndarray  # bool[A], the truth


def generalization_figure(rates: pa.Table) -> Figure:
    """Catastrophes and solved levels over the number of training levels, every method in both.

    `rates` has one row per set, num_train_levels and method, with the columns `<outcome>_rate`,
    `<outcome>_low` and `<outcome>_high` (0 to 1) for catastrophe and solved, and with num_levels,
    num_replications and resampled, which the heading names. An interval that does
    not exist (null) is not drawn. Points of one size stand side by side, so that their intervals
    can be told apart. The thin grey line is one agent on its own training levels. Catastrophes are
    on an axis that is linear up to `LINEAR` and logarithmic above, so that rare ones can be told
    from none.

    Raises:
      ValueError: `rates` holds no test set.
    """
    rows = rates.to_pylist()
    tested = [row for row in rows if row["set"] == "test"]
    if not tested:
        raise ValueError("rates must hold rows of the test set, got none")
    methods = sorted({row["method"] for row in tested}, key=_method_order)
    sizes = sorted({row["num_train_levels"] for row in rows})
    trained = [row for row in rows if row["set"] == "train" and row["method"] == "single"]
    with matplotlib.rc_context(STYLE):
        figure = empty(11, 6.2)
        panels = figure.subplots(1, 2)
        titles = ("% of test levels that ended in catastrophe", "% of test levels solved")
        for axes, outcome, title in zip(panels, ("catastrophe", "solved"), titles, strict=True):
            if trained:
                _draw_trained(axes, trained, outcome)
            for place, method in enumerate(methods):
                of_method = [row for row in tested if row["method"] == method]
                shift = dodge(sizes, place, len(methods))
                draw_rates(axes, of_method, outcome, method, _look(method, methods), shift)
            finish_rates(axes, sizes, title)
        panels[1].set_ylim(0, 1.03)
        _show_rare(panels[0])
        _add_legend(figure, methods, bool(trained))
        heading = f"{rests_on(tested)}\npoints of one number of training levels stand side by side"
        figure.suptitle(heading, fontsize=10, color="#555555")
    return figure


def _show_rare(axes: Axes) -> None:
    """Makes an axis of shares, drawn already, tell rare from never."""
    top = axes.dataLim.y1
    axes.set_yscale("symlog", linthresh=LINEAR, linscale=0.8)
    axes.set_ylim(0, max(1.1 * top, 1.1 * LINEAR))
    shares = (0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1)
    ticks = [share for share in shares if share <= axes.get_ylim()[1]]
    axes.set_yticks(ticks, [f"{100 * share:g}%" for share in ticks])
    axes.yaxis.set_minor_locator(NullLocator())


def dangerous_state(steps: pa.Table, threshold: float = THRESHOLD) -> StateRow:
    """The recorded test state that shows best how an ensemble helps.

    In it some member's greedy action would be catastrophic and the mean's is safe. States in which
    the blocker is above `threshold` for that member's action come first, then those of the smallest
    number of training levels, then the one whose wrong member is most sure: its best Q-value is
    furthest above that of its best safe action.

    Raises:
      NoSuchState: no recorded state is like that.
    """
    rows = steps.filter((pc.field("method") == "mean") & (pc.field("set") == "test"))
    danger = _lists(rows["dangerous"])
    if danger is None:
        raise NoSuchState("the steps hold no test state of the method 'mean'")
    dangerous = danger > 0  # [N, A]
    num_rows, num_actions = dangerous.shape
    flat = _lists(rows["members"])
    if flat is None:
        raise NoSuchState("the steps hold no Q-values of members")
    members = flat.reshape(num_rows, -1, num_actions)  # [N, M, A]
    margin, fatal = _margins(members, dangerous, rows["action"].to_numpy())
    if not np.isfinite(margin).any():
        raise NoSuchState(
            "in no recorded test state would a member alone step into a catastrophe and the mean "
            "of the members not"
        )
    blocker = _lists(rows["blocker"])
    seen = np.zeros(num_rows, bool)
    if blocker is not None:
        seen = blocker[np.arange(num_rows), fatal] > threshold  # False where it is NaN: no blocker
    sizes = rows["num_train_levels"].to_numpy()
    # The last key is the first to count; lexsort is stable, so ties go to the first row.
    chosen = int(np.lexsort((-margin, sizes, ~seen, ~np.isfinite(margin)))[0])
    odds = None if blocker is None or np.isnan(blocker[chosen]).any() else blocker[chosen]
    return _state_row(steps, rows.slice(chosen, 1), members[chosen], odds, dangerous[chosen])


def state_before(env: Env, level: PyTree, actions: Sequence[int] | np.ndarray) -> PyTree:
    """The state of `level` after those actions, by the environment's own rules."""
    *_, (state, _) = play(env, level, actions)
    return state


def blocker_figure(
    picture: np.ndarray,
    row: StateRow,
    action_names: Sequence[str],
    threshold: float = THRESHOLD,
) -> Figure:
    """A state, and for each action the blocker's probability that it is catastrophic.

    Actions above the dashed line are blocked; those that are catastrophic in truth are named so.

    Raises:
      ValueError: the row holds no probabilities.
    """
    if row.blocker is None:
        raise ValueError(f"{_where(row)} has no probabilities of a blocker")
    with matplotlib.rc_context(STYLE):
        figure = empty(9.8, 4.8)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
        show(left, picture, "the state, as the agent knows it")
        places = np.arange(len(action_names))
        turned = _rotation(action_names)
        for place, probability in enumerate(row.blocker):
            blocked = probability > threshold
            colour, hatch = (VERMILLION, "//") if blocked else (SKY, "")
            right.bar(
                place, probability, 0.62, color=colour, hatch=hatch, edgecolor=BLACK, linewidth=0.8
            )
            right.annotate(
                _percent(probability),
                (place, probability),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8 if turned else 11,
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            )
        right.axhline(threshold, color=BLACK, linestyle="--", linewidth=1.2)
        right.set_ylim(0, 1.12)
        right.set_yticks(np.linspace(0, 1, 5))
        right.yaxis.set_major_formatter(PercentFormatter(1))
        right.set_xticks(
            places, _truth_names(action_names, row.dangerous), fontsize=10, rotation=turned
        )
        right.set_xlim(-0.6, len(action_names) - 0.4)
        _colour_dangerous(right, row.dangerous)
        right.set_title("blocker: probability that the action is catastrophic", fontsize=11)
        handles = [
            Patch(facecolor=VERMILLION, hatch="//", edgecolor=BLACK, label="blocked"),
            Patch(facecolor=SKY, edgecolor=BLACK, label="allowed"),
            Line2D([], [], color=BLACK, linestyle="--", label=f"threshold of {threshold:.0%}"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(_where(row), fontsize=12)
    return figure


def ensemble_figure(picture: np.ndarray, row: StateRow, action_names: Sequence[str]) -> Figure:
    """A state, the Q-values of every member in it, and their mean, from which the agent acts."""
    num_members = len(row.members)
    columns = math.ceil(math.sqrt(num_members))
    lines = math.ceil(num_members / columns)
    mean = row.members.mean(axis=0)
    with matplotlib.rc_context(STYLE):
        figure = empty(4.2 + 2.3 * columns, max(1.8 * lines, 5.0) + 1.0)
        halves: Any = figure.subfigures(1, 2, width_ratios=(4.2, 2.3 * columns))
        left, right = halves
        above, below = left.subplots(2, 1, height_ratios=(1.5, 1))
        show(above, picture, "the state, as the agent knows it")
        low, high = _q_limits(row.members)
        _draw_q(below, mean, row.dangerous, action_names, f"mean of the {num_members} members")
        below.set_ylim(low, high)
        below.set_ylabel("Q-value")
        panels = right.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(panels.flat):
            if place >= num_members:
                axes.set_axis_off()
                continue
            title = f"member {place + 1}"
            _draw_q(axes, row.members[place], row.dangerous, action_names, title)
            if place % columns == 0:
                axes.set_ylabel("Q-value")
            # A panel with an empty place below it shows its own action names.
            axes.tick_params(labelbottom=place + columns >= num_members)
        panels[0, 0].set_ylim(low, high)
        handles = [
            Patch(facecolor=SKY, edgecolor=GREY, label="safe action"),
            Patch(
                facecolor="white", edgecolor=VERMILLION, hatch="////", label="catastrophic action"
            ),
            Patch(facecolor="white", edgecolor=BLACK, linewidth=2.4, label="largest Q-value"),
            Patch(facecolor="#FBE3D6", edgecolor="none", label="choice is catastrophic"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(_where(row), fontsize=12)
    return figure


def calibration_figure(rows: Sequence[Mapping[str, Any]], threshold: float = THRESHOLD) -> Figure:
    """How often actions were catastrophic against how likely the blocker called it.

    `rows` are those of calibration.json, one per replication and number of training levels; bins
    of replications are put together. A perfect classifier is on the diagonal. The legend says what
    share of catastrophic actions is above the threshold.
    """
    sizes = sorted({row["num_train_levels"] for row in rows})
    with matplotlib.rc_context(STYLE):
        figure = empty(9.2, 4.8)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, zorder=1)
        for size, (colour, marker) in zip(sizes, cycle((*LOOKS.values(), *SPARE_LOOKS))):
            of_size = [row for row in rows if row["num_train_levels"] == size]
            counts = np.array([row["counts"] for row in of_size], float)
            said, happened = (
                _bins(np.array([row[name] for row in of_size], float), counts)
                for name in ("mean_probability", "event_rate")
            )
            label = _caught(size, of_size)
            axes.plot(said, happened, color=colour, marker=marker, label=label, clip_on=False)
        axes.axvline(threshold, color=BLACK, linewidth=1, linestyle=":")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("probability that the blocker gives")
        axes.set_ylabel("share that was catastrophic")
        lines_behind(axes)
        axes.set_title(
            "the blocker on training levels that it was not fitted on;\n"
            f"it blocks above {threshold:.0%} (dotted)",
            fontsize=11,
        )
        figure.legend(loc="outside right center", frameon=False, fontsize=10)
    return figure


def _bins(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """float64[bins]: means of [R, bins] over replications, weighted by counts; NaN without any."""
    total = counts.sum(axis=0)
    sums = np.where(counts > 0, values * counts, 0.0).sum(axis=0)
    return np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)


def _caught(size: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the blocker catches after `size` training levels, and what it takes for more."""
    events = np.array([row["num_events"] for row in rows], float)
    others = np.array([row["num_predictions"] for row in rows], float) - events
    shares = []
    for name, counts in (("sensitivity", events), ("false_alarms", others)):
        known = counts > 0
        share = np.array([row[name] or 0.0 for row in rows])[known]
        shares.append(
            _share(float(share @ counts[known] / counts.sum())) if known.any() else "none"
        )
    return (
        f"{size:,} training levels\nblocks {shares[0]} of {int(events.sum()):,} fatal actions,\n"
        f"{shares[1]} of the others"
    )


def _share(share: float) -> str:
    """In %, with as many decimals as tell it from none and from all."""
    decimals = 0
    while 0 < share < 1 and round(100 * share, decimals) in (0, 100):
        decimals += 1
    return f"{100 * share:.{decimals}f}%"


def write_figures(
    folder: Path,
    rates: pa.Table,
    steps: pa.Table,
    level_set_test: LevelSet,
    env: Env,
    calibrations: Sequence[Mapping[str, Any]],
    threshold: float = THRESHOLD,
) -> Written:
    """Writes every figure as SVG and PNG. What cannot be drawn is left out, removed and noted.

    The blocker blocks above the probability `threshold`, and is calibrated as `calibrations`, the
    rows of calibration.json, say.
    """
    figures = {
        "generalization": generalization_figure(rates),
        "calibration": calibration_figure(calibrations, threshold),
    }
    notes = []
    try:
        row = dangerous_state(steps, threshold)
    except NoSuchState as absence:
        notes.append(f"no figures of the ensemble and the blocker: {absence}")
    else:
        level = level_of(level_set_test, row.level_index, row.level_id)
        picture = np.asarray(env.render(state_before(env, level, row.actions), 48))
        figures["ensemble"] = ensemble_figure(picture, row, env.action_names)
        if row.blocker is None:
            notes.append(f"no figure of the blocker: no probabilities for {_where(row)}")
        else:
            figures["blocker"] = blocker_figure(picture, row, env.action_names, threshold)
    return Written(write_all(folder, figures, ("ensemble", "blocker")), notes)


def rests_on(rows: Sequence[dict[str, Any]]) -> str:
    """What the points and bars rest on, e.g. "1,000 test levels, 5 replications; ..."."""
    levels = sorted({row["num_levels"] for row in rows})
    replications = sorted({row["num_replications"] for row in rows})
    resampled = " or ".join(sorted({row["resampled"] for row in rows}))
    counted = " to ".join(f"{number:,}" for number in dict.fromkeys((levels[0], levels[-1])))
    repeated = " to ".join(map(str, dict.fromkeys((replications[0], replications[-1]))))
    plural = "" if replications == [1] else "s"
    return (
        f"{counted} test levels, {repeated} replication{plural}; "
        f"bars are 95% intervals, resampled over {resampled}"
    )


def _method_order(method: str) -> tuple[int, str, str]:
    """Named methods first and in their order, each followed by itself with a blocker."""
    base, _, wrapper = method.partition("+")
    known = list(LOOKS)
    return (known.index(base) if base in LOOKS else len(known), base, wrapper)


def _look(method: str, methods: Sequence[str]) -> dict[str, Any]:
    """Colour, marker and line of a method; a wrapped one is its inner one, dashed and hollow."""
    base, _, wrapper = method.partition("+")
    others = sorted({name.partition("+")[0] for name in methods} - set(LOOKS))
    if base in LOOKS:
        colour, marker = LOOKS[base]
    else:
        colour, marker = SPARE_LOOKS[others.index(base) % len(SPARE_LOOKS)]
    return {
        "color": colour,
        "marker": marker,
        "linestyle": DASHES if wrapper else "-",
        "markerfacecolor": "white" if wrapper else colour,
        "markersize": 5,
        "linewidth": 1.6,
    }


def _add_legend(figure: Figure, methods: Sequence[str], with_trained: bool) -> None:
    """A column for each method and what wraps it, below the panels."""
    columns: dict[str, list[Line2D]] = {}
    for method in methods:
        line = Line2D([], [], label=method_name(method), **_look(method, methods))
        columns.setdefault(method.partition("+")[0], []).append(line)
    if with_trained:
        label = "one agent, training levels"
        line = Line2D([], [], color=GREY, linewidth=1, marker=".", label=label)
        columns.setdefault("single", []).append(line)
    height = max(len(lines) for lines in columns.values())
    # A legend fills its columns one after another, so short ones are filled up with nothing.
    blank = Line2D([], [], linestyle="", label=" ")
    handles = [
        line for lines in columns.values() for line in (*lines, *[blank] * (height - len(lines)))
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(columns),
        frameon=False,
        fontsize=10,
        handlelength=3.2,
        columnspacing=1.6,
    )


def _draw_trained(axes: Axes, rows: Sequence[dict[str, Any]], outcome: str) -> None:
    rows = sorted(rows, key=lambda row: row["num_train_levels"])
    at = numbers(rows, "num_train_levels")
    rate = numbers(rows, f"{outcome}_rate")
    axes.plot(at, rate, color=GREY, linewidth=1, marker=".", label="train", zorder=4, clip_on=False)


def _margins(
    members: np.ndarray, dangerous: np.ndarray, taken: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How sure the surest wrong member is, float64[N], and the action it wants, int64[N].

    The margin is its largest Q-value above that of its best safe action; -inf where no member is
    wrong, or where the mean's action or the one taken is itself catastrophic.
    """
    each = np.arange(len(members))
    wishes = members.argmax(axis=2)  # [N, M]
    wrong = np.take_along_axis(dangerous, wishes, axis=1)
    mean_action = members.mean(axis=1).argmax(axis=1)  # [N]
    safe = ~dangerous[each, mean_action] & ~dangerous[each, taken]
    best_safe = np.where(dangerous[:, None, :], -np.inf, members).max(axis=2)  # [N, M]
    margin = np.where(wrong & safe[:, None], members.max(axis=2) - best_safe, -np.inf)
    margin = np.where(np.isfinite(margin), margin, -np.inf)  # NaN where no Q-values were kept
    worst = margin.argmax(axis=1)
    return margin[each, worst], wishes[each, worst]


def _lists(column: pa.ChunkedArray) -> np.ndarray | None:
    """float64[N, width] of a column of lists of one length; NaN where a row has none.

    None when no row has a list.
    """
    if column.null_count == len(column):
        return None
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    width = int(lengths.max(initial=0))
    if not width:
        return None
    if not np.isin(lengths, (0, width)).all():
        raise ValueError(f"lists must be of one length, got {sorted(set(lengths.tolist()))}")
    values = np.full((len(lengths), width), np.nan)
    flat = pc.list_flatten(column).cast(pa.float64()).to_numpy()
    values[lengths > 0] = flat.reshape(-1, width)
    return values


def _state_row(
    steps: pa.Table,
    row: pa.Table,
    members: np.ndarray,
    blocker: np.ndarray | None,
    dangerous: np.ndarray,
) -> StateRow:
    """The chosen row with the actions of its episode that lead to it."""
    one = row.select([*EPISODE, "level_id", "step", "member"]).to_pylist()[0]
    before = pc.field("step") < one["step"]
    for name in EPISODE:
        before = before & (pc.field(name) == one[name])
    if one["member"] is not None:
        before = before & (pc.field("member") == one["member"])
    path = steps.filter(before).select(["step", "action"]).sort_by("step")
    if path["step"].to_pylist() != list(range(one["step"])):
        raise ValueError(
            f"the steps before step {one['step']} in test level {one['level_index']} must be "
            f"whole, got {path['step'].to_pylist()}"
        )
    return StateRow(
        **{name: one[name] for name in (*EPISODE, "level_id", "step")},
        actions=path["action"].to_numpy().astype(np.int64),
        members=members,
        blocker=blocker,
        dangerous=dangerous,
    )


def _where(row: StateRow) -> str:
    levels = "level" if row.num_train_levels == 1 else "levels"
    return (
        f"{row.set} level {row.level_index}, step {row.step}, "
        f"agents trained on {row.num_train_levels} {levels}"
    )


def _percent(probability: float) -> str:
    """A whole number of percent; what is not quite 0 or 1 is not shown as if it were."""
    if 0 < probability < 0.01:
        return "<1%"
    if 0.99 < probability < 1:
        return ">99%"
    return f"{100 * probability:.0f}%"


def _rotation(action_names: Sequence[str]) -> int:
    """Degrees by which names are turned: many do not fit side by side."""
    return 90 if len(action_names) > 6 else 0


def _truth_names(action_names: Sequence[str], dangerous: np.ndarray) -> list[str]:
    return [
        f"{name}\n(catastrophic)" if fatal else name
        for name, fatal in zip(action_names, dangerous, strict=True)
    ]


def _colour_dangerous(axes: Axes, dangerous: np.ndarray) -> None:
    """Names of catastrophic actions in vermillion and bold."""
    for label, fatal in zip(axes.get_xticklabels(), dangerous, strict=True):
        if fatal:
            label.set_color(VERMILLION)
            label.set_fontweight("bold")


def _q_limits(members: np.ndarray) -> tuple[float, float]:
    """The range all panels share: every bar, the zero line and a little air."""
    low, high = min(members.min(), 0.0), max(members.max(), 0.0)
    air = 0.08 * max(high - low, 1e-6)
    return low - air * (low < 0), high + air * (high > 0)


def _draw_q(
    axes: Axes, values: np.ndarray, dangerous: np.ndarray, action_names: Sequence[str], title: str
) -> None:
    """One set of Q-values as bars; the panel is tinted where the largest is a catastrophe."""
    greedy = int(values.argmax())
    for place, (value, fatal) in enumerate(zip(values, dangerous, strict=True)):
        look: dict[str, Any] = {"color": SKY, "edgecolor": GREY}
        if fatal:
            look = {"color": "white", "edgecolor": VERMILLION, "hatch": "////"}
        axes.bar(place, value, 0.72, linewidth=0.8, **look)
    # An outline of its own, so that the hatch keeps its colour.
    axes.bar(greedy, values[greedy], 0.72, facecolor="none", edgecolor=BLACK, linewidth=2.4)
    axes.axhline(0, color=BLACK, linewidth=0.8)
    axes.set_xticks(
        np.arange(len(action_names)), action_names, fontsize=9, rotation=_rotation(action_names)
    )
    axes.tick_params(axis="y", labelsize=9)
    if dangerous[greedy]:
        axes.set_facecolor("#FBE3D6")
        axes.set_title(
            f"{title}: {action_names[greedy]}", color=VERMILLION, fontweight="bold", fontsize=11
        )
    else:
        axes.set_title(f"{title}: {action_names[greedy]}", fontsize=11)
