"""CoinRun's figures: what is drawn is what the tables hold, and what is absent is said."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from coinrun_tables import ENV, all_tables, level_set
from hotoven.evaluation.coherence import MEASURES
from hotoven.evaluation.coinrun_rows import Missing
from hotoven.mechanisms.acting import ACTING
from hotoven.report import coinrun_figures
from hotoven.report.coinrun_behaviour_figures import (
    cause_shares,
    causes_figure,
    coherence_figure,
    outcomes_figure,
)
from hotoven.report.coinrun_figures import FIGURES, TIMELINE, write_figures
from hotoven.report.coinrun_help_figures import risk_coverage_figure
from hotoven.report.coinrun_knowing_figures import (
    alarms_figure,
    auc_figure,
    precision_figure,
    promises_figure,
    roc_figure,
)
from hotoven.report.coinrun_looks import ACTING_LOOKS
from hotoven.report.coinrun_watch import FILMED
from hotoven.report.style import figure_bytes
from noted import Noted


@pytest.fixture(scope="module")
def levels():
    return level_set()


@pytest.fixture(scope="module")
def tables(levels):
    return all_tables(levels)


@pytest.fixture(scope="module")
def harmless(levels):
    """Tables of a run in which nothing dies."""
    return all_tables(levels, dying=False)


def row_of(table, **where):
    for name, value in where.items():
        table = table.filter(pc.field(name) == value)
    (row,) = table.to_pylist()
    return row


def words(axes):
    return [text.get_text() for text in axes.texts]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def line(axes, label):
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return found


def test_the_post_s_four_panels_have_its_four_lines_and_their_areas(tables):
    figure = roc_figure(tables)
    titles = [axes.get_title().partition("\n")[0] for axes in figure.axes]
    assert titles == [
        f"{size} training levels, window of {window}"
        for size in (10, 200)
        for window in ("1 step", "10 steps")
    ]
    for axes, (size, window) in zip(
        figure.axes, [(10, 1), (10, 10), (200, 1), (200, 10)], strict=True
    ):
        labels = legend(axes)
        assert [label.partition(":")[0] for label in labels] == [
            "random member each step | mean",
            "random member each step | mean and std",
            "ensemble mean | mean",
            "ensemble mean | mean and std",
        ]
        told = row_of(
            tables["predictions"],
            num_train_levels=size,
            window=window,
            acting="mean",
            score="mean and std",
        )
        assert labels[3].endswith(
            f"{told['post_auc']:.3f} \N{PLUS-MINUS SIGN} {told['post_std']:.3f}  "
            f"[{told['auc_low']:.3f}, {told['auc_high']:.3f}]"
        )
        drawn = line(axes, labels[3])
        points = tables["roc"].filter(
            (pc.field("num_train_levels") == size)
            & (pc.field("window") == window)
            & (pc.field("acting") == "mean")
            & (pc.field("score") == "mean and std")
        )
        np.testing.assert_array_equal(drawn.get_ydata(), points["true_positive_rate"].to_numpy())
        std = points["std"].to_numpy()
        edge = axes.collections[3].get_paths()[0].vertices[:, 1]  # the band of the last line
        mean = drawn.get_ydata()
        np.testing.assert_allclose(
            [edge.min(), edge.max()], [(mean - std).clip(0, 1).min(), (mean + std).clip(0, 1).max()]
        )
        assert len(axes.collections) == 4


def test_average_precision_is_drawn_as_the_auc_is(tables):
    own = tables["predictions"].filter(
        (pc.field("acting") == "mean")
        & (pc.field("num_train_levels") == 200)
        & (pc.field("score") == "head")
    )
    drawn = line(precision_figure(tables).axes[1], "head").get_ydata()
    expected = own.sort_by("window")["average_precision"].to_numpy()
    np.testing.assert_array_equal(drawn, expected)


def test_every_score_s_auc_is_drawn_over_windows_and_over_sizes(tables):
    figure = auc_figure(tables)
    expected = tables["predictions"].filter(
        (pc.field("acting") == "mean") & (pc.field("num_train_levels") == 200)
    )
    for score in ("head", "disagreement", "oracle"):
        own = expected.filter(pc.field("score") == score).sort_by("window")
        drawn = line(figure.axes[1], score).get_ydata()
        np.testing.assert_array_equal(drawn, own["auc"].to_numpy())
    at_ten = line(figure.axes[3], "blocker").get_ydata()
    assert at_ten.tolist() == [
        row_of(
            tables["predictions"],
            acting="mean",
            score="blocker",
            window=10,
            num_train_levels=size,
        )["auc"]
        for size in (10, 200)
    ]
    (below,) = figure.legends
    assert len(below.get_texts()) == 11


def test_one_number_of_training_levels_still_has_its_figures(tables):
    one = {name: table.filter(pc.field("num_train_levels") == 10) for name, table in tables.items()}
    for draw, _ in FIGURES.values():
        figure_bytes(draw(one), "svg")


def test_rates_stand_train_beside_test_and_training_levels_have_no_interval(tables):
    figure = outcomes_figure(tables)
    trained, tested = figure.axes[:2]
    for axes, name in ((trained, "train"), (tested, "test")):
        for method in ACTING:
            expected = [
                row_of(tables["rates"], set=name, method=method, num_train_levels=size)[
                    "catastrophe_rate"
                ]
                for size in (10, 200)
            ]
            assert line(axes, method).get_ydata().tolist() == expected
    ends = [len(np.concatenate(one.get_segments())) for one in trained.collections]
    assert ends == [0] * 8
    assert [len(one.get_segments()) for one in tested.collections] == [2] * 8
    looks = {(one.get_color(), one.get_linestyle(), one.get_marker()) for one in tested.lines}
    assert len(looks) == 8


def few_episodes():
    ends = ["lava", "lava", "saw", "timeout", "coin", "coin", "coin", "coin"]
    outcome = {"coin": "solved", "timeout": "timeout"}
    rows = [
        {
            "set": name,
            "num_train_levels": 10,
            "method": "mean",
            "outcome": outcome.get(cause, "catastrophe"),
            "cause": cause,
        }
        for name, causes in (("test", ends), ("train", ["monster"] * 8))
        for cause in causes
    ]
    return pa.Table.from_pylist(rows)


def test_causes_are_shares_of_all_unseen_levels():
    shares = cause_shares(few_episodes())
    assert [(row["outcome"], row["cause"], row["share"]) for row in shares] == [
        ("catastrophe", "lava", 0.25),
        ("catastrophe", "saw", 0.125),
        ("timeout", "timeout", 0.125),
        ("solved", "", 0.5),
    ]


def test_bars_of_causes_lie_end_to_end_and_are_named_by_their_sum():
    rates = pa.table({"num_train_levels": [10]})
    above, axes = causes_figure({"episodes": few_episodes(), "rates": rates}).axes
    assert words(above) == ["100.0%"]  # of training levels
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [
        (0.0, 0.25),  # lava
        (0.25, 0.125),  # saw
        (0.375, 0.0),  # monster
        (0.375, 0.125),  # time-out
    ]
    assert words(axes) == ["37.5%"]


def test_coherence_stands_beside_what_it_is_to_explain(tables):
    figure = coherence_figure(tables)
    titles = [axes.get_title().replace("\n", " ") for axes in figure.axes]
    assert titles == [*MEASURES.values(), "catastrophes minus a single agent's", ""]
    points = figure.axes[0].lines
    rows = tables["coherence"].filter(pc.field("measure") == "switch rate").to_pylist()
    assert [one.get_xdata()[0] for one in points] == [row["estimate"] for row in rows]
    assert [one.get_marker() for one in points] == ["o"] * 8 + ["s"] * 8  # 10 levels, 200 levels
    heights = [one.get_ydata()[0] for one in points]
    np.testing.assert_allclose(heights[:8], np.arange(8) - 0.15)
    np.testing.assert_allclose(heights[8:], np.arange(8) + 0.15)
    # the differences have no row of a single agent; one line is the zero
    assert len(figure.axes[10].lines) == 1 + 14


def test_a_measure_without_a_number_says_so(tables):
    rows = [
        row | dict.fromkeys(("estimate", "low", "high")) for row in tables["coherence"].to_pylist()
    ]
    empty = pa.Table.from_pylist(rows, tables["coherence"].schema)
    assert words(coherence_figure(tables | {"coherence": empty}).axes[2]) == ["none"]


@pytest.mark.parametrize(
    ("longest", "scale", "labels"),
    [(100.0, "log", [1, 10, 100]), (12.0, "log", [1, 2, 5, 10]), (1.5, "linear", [1, 1.2, 1.4])],
)
def test_lengths_are_told_apart_where_one_is_many_times_another(tables, longest, scale, labels):
    table = tables["coherence"]
    is_length = pc.equal(table["measure"], "run length")
    lengths = pc.if_else(pc.equal(table["method"], "mean_hysteresis"), longest, 1.0)
    for name in ("estimate", "low", "high"):
        column = pc.if_else(is_length, lengths, table[name])
        table = table.set_column(table.column_names.index(name), name, column)
    figure = coherence_figure(tables | {"coherence": table})
    by_title = {axes.get_title(): axes for axes in figure.axes}
    axes = by_title["run length"]
    assert axes.get_xscale() == scale
    low, high = axes.get_xlim()
    shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert shown == pytest.approx(labels)
    assert by_title["switch rate"].get_xscale() == "linear"


def test_every_number_of_training_levels_is_shown(tables):
    more = dict(tables)
    for name in ("rates", "predictions", "promises", "alarms"):
        again = tables[name].filter(pc.field("num_train_levels") == 200)
        place = again.column_names.index("num_train_levels")
        sizes = pa.array([1000] * len(again), again.schema.field(place).type)
        own = again.set_column(place, again.schema.field(place), sizes)
        more[name] = pa.concat_tables([tables[name], own])
    shown = ["10 training levels", "200 training levels", "1,000 training levels"]
    for draw, num_lines in ((promises_figure, 2), (alarms_figure, 3), (auc_figure, 2)):
        axes = np.reshape(draw(more).axes, (num_lines, 3))
        assert [one.get_title().partition(", unseen")[0] for one in axes[0]] == shown
        for left, right in zip(axes[:, 1], axes[:, 2], strict=True):
            if draw is not auc_figure:  # whose second line has a window in each column
                assert len(left.lines) == len(right.lines) > 1


def test_looks_are_in_the_order_of_ways_of_acting():
    assert tuple(ACTING_LOOKS) == ACTING


def test_help_is_drawn_over_requests_with_a_dashed_line_without_help(tables):
    figure = risk_coverage_figure(tables)
    axes = figure.axes[0]
    planner = axes.lines[0]
    own = tables["help_rates"].filter(
        (pc.field("num_train_levels") == 10) & (pc.field("helper") == "planner")
    )
    assert planner.get_xdata().tolist() == own["requests_per_episode"].to_pylist()
    assert planner.get_ydata().tolist() == own["catastrophe_rate"].to_pylist()
    assert axes.lines[-1].get_linestyle() == "--"
    assert axes.lines[-1].get_ydata() == [0.25, 0.25]


def test_a_vacuous_promise_is_hollow(tables):
    figure = promises_figure(tables)
    rows = [
        row
        for row in tables["promises"].to_pylist()
        if (row["num_train_levels"], row["set"], row["score"]) == (10, "test", "mean and std")
    ]
    points = [one for one in figure.axes[0].lines if one.get_marker() in ("o", "s")]
    hollow = [one.get_markerfacecolor() == "white" for one in points]
    assert len(points) == 10
    assert sum(hollow) == sum(row["vacuous"] for row in rows) > 0
    assert sorted(one.get_ydata()[0] for one in points) == sorted(row["share"] for row in rows)
    kept = tables["promises"].filter(~pc.field("vacuous"))
    keys = [
        [text.get_text() for text in promises_figure(one).legends[0].get_texts()]
        for one in (tables, tables | {"promises": kept})
    ]
    assert [any("hollow" in key for key in own) for own in keys] == [True, False]


def test_alarms_are_drawn_over_the_share_that_they_announce(tables):
    lead, per_hundred, false = (alarms_figure(tables).axes[place] for place in (0, 2, 4))
    own = tables["alarms"].filter(
        (pc.field("num_train_levels") == 10) & (pc.field("score") == "blocker")
    )
    finite = pc.is_finite(own["thresholds"])
    known = own.filter(pc.and_(pc.is_valid(own["median_lead"]), finite))
    drawn = line(lead, "blocker")
    assert drawn.get_xdata().tolist() == known["announced_share"].to_pylist()
    assert drawn.get_ydata().tolist() == known["median_lead"].to_pylist()
    assert len(lead.lines) == len(per_hundred.lines) == len(false.lines) == 10  # no oracle
    some = own.filter(pc.and_(pc.is_valid(own["false_share"]), finite))
    assert line(false, "blocker").get_ydata().tolist() == some["false_share"].to_pylist()


def test_without_a_catastrophe_every_panel_says_so(harmless):
    nothing = "no catastrophe: there is nothing to predict"
    for draw in (roc_figure, auc_figure, precision_figure):
        assert [words(axes) for axes in draw(harmless).axes] == [[nothing]] * 4
    assert [words(axes) for axes in promises_figure(harmless).axes] == [
        ["no catastrophe: there is nothing to announce"]
    ] * 4
    assert [words(axes) for axes in alarms_figure(harmless).axes] == [
        ["no catastrophe was announced"]
    ] * 6
    titles = {axes.get_title().replace("\n", " ") for axes in coherence_figure(harmless).axes}
    assert not {title for title in titles if "fatal" in title}  # there is no such measure
    assert set(words(causes_figure(harmless).axes[0])) == {"0.0%"}


def test_all_figures_are_written_and_the_same_figure_is_the_same_bytes(tmp_path, tables, levels):
    written = write_figures(tmp_path, tables, levels, ENV)
    names = [*FIGURES, TIMELINE]
    assert written.notes == []
    assert [path.name for path in written.paths] == [
        f"{name}.{suffix}" for name in names for suffix in ("svg", "png")
    ]
    assert sorted(tmp_path.iterdir()) == sorted(written.paths)
    again = figure_bytes(coherence_figure(tables), "svg")
    assert (tmp_path / "coherence.svg").read_bytes() == again


def test_what_cannot_be_drawn_is_removed_and_what_has_lost_its_table_stays(
    tmp_path, harmless, levels, monkeypatch
):
    monkeypatch.setattr(
        coinrun_figures,
        "FIGURES",
        {name: FIGURES[name] for name in ("causes", "risk_coverage", "alarms")},
    )
    kept, gone = (tmp_path / f"{name}.svg" for name in ("risk_coverage", TIMELINE))
    for path in (kept, gone):
        path.write_text("of another time")
    del harmless["help_rates"], harmless["alarms"]
    written = write_figures(tmp_path, harmless, levels, ENV)
    assert [path.name for path in written.paths] == ["causes.svg", "causes.png"]
    assert sorted(tmp_path.iterdir()) == sorted([*written.paths, kept])
    assert kept.read_text() == "of another time"
    left = "figure risk_coverage is left as it is: there is no table of help_rates"
    assert written.notes[0] == left
    assert written.notes[1] == "no figure alarms: there is no table of alarms"
    assert written.notes[2].startswith("no figure timeline: no threshold of mean and std")


@pytest.mark.parametrize("name", FILMED)
def test_a_timeline_that_has_lost_a_table_stays_and_so_does_why_there_is_none(
    name, tmp_path, tables, levels, monkeypatch
):
    monkeypatch.setattr(coinrun_figures, "FIGURES", {})
    gone = {other: table for other, table in tables.items() if other != name}
    earlier = "no figure timeline: no recorded episode ended in a catastrophe"
    for before, note in (
        ((), f"no figure timeline: there is no table of {name}"),
        (("no figure alarms: none", earlier), earlier),
    ):
        assert write_figures(tmp_path, gone, levels, ENV, before) == ([], [note])
    (tmp_path / "timeline.svg").write_text("of then")
    note = f"figure timeline is left as it is: there is no table of {name}"
    assert write_figures(tmp_path, gone, None, ENV, [earlier]) == ([], [note])
    assert (tmp_path / "timeline.svg").read_text() == "of then"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_reads_the_tables_that_it_says(name, tables):
    read = Noted(tables)
    FIGURES[name].draw(read)
    assert read.names == set(FIGURES[name].reads)


@pytest.mark.parametrize("name", FIGURES)
def test_without_its_tables_a_figure_is_missing(name):
    with pytest.raises(Missing, match="no table of"):
        FIGURES[name].draw({})
