"""The study's figures: which state is shown, what must be in them, and the same bytes twice."""

import io
import subprocess
import sys
from typing import Any

import jax
import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from hotoven.envs.lavagrid import LavaGrid
from hotoven.envs.lavagrid_levels import from_ascii
from hotoven.report.figures import (
    NoSuchState,
    StateRow,
    blocker_figure,
    calibration_figure,
    dangerous_state,
    ensemble_figure,
    generalization_figure,
    state_before,
    write_figures,
)
from hotoven.report.style import DOTS_PER_INCH, STYLE, dodge, figure_bytes
from hotoven.types import LevelSet

UP, RIGHT, DOWN, LEFT = range(4)
ENV = LavaGrid(height=2, width=3, min_distance=1, wall_density=0, lava_density=0)
MAP = "S.L\n..G"
METHODS = tuple(
    base + wrapper
    for base in ("single", "mean", "vote", "mc_dropout")
    for wrapper in ("", "+blocker")
)
# Q-values of up, right, down, left: one wants right, the other down, and so does their mean.
WRONG, CAREFUL = [0.0, 0.9, 0.4, 0.0], [0.0, -1.0, 0.8, 0.0]
RIGHT_IS_FATAL = [False, True, False, False]


def one_step(**changes: object) -> dict[str, object]:
    """A row of steps.parquet: the mean goes down where one of two members would go right."""
    return {
        "set": "test",
        "num_train_levels": 10,
        "replication": 0,
        "method": "mean",
        "member": -1,
        "level_index": 0,
        "level_id": 100,
        "step": 0,
        "action": DOWN,
        "members": WRONG + CAREFUL,
        "blocker": [0.1, 0.9, 0.2, 0.0],
        "dangerous": RIGHT_IS_FATAL,
    } | changes


def table(*rows: dict[str, object], sized: bool = False) -> pa.Table:
    steps = pa.Table.from_pylist(list(rows))
    if sized:  # as evaluation writes them: lists of a fixed size
        for name in ("members", "blocker", "dangerous"):
            place, column = steps.schema.get_field_index(name), steps[name]
            width = len(column[0])
            sized_type = pa.list_(column.type.value_type, width)
            steps = steps.set_column(place, name, column.cast(sized_type))
    return steps


def state_row(num_members: int = 9) -> StateRow:
    members = np.random.default_rng(0).normal(size=(num_members, 4))
    blocker = np.array([0.001, 0.97, 0.5, 0.0])
    return StateRow(
        "test", 10, 0, "mean", 0, 100, 0, np.zeros(0, int), members, blocker,
        np.array(RIGHT_IS_FATAL),
    )  # fmt: skip


def rates(methods: tuple[str, ...] = METHODS, sizes: tuple[int, ...] = (10, 100)) -> pa.Table:
    rows = []
    for place, method in enumerate(methods):
        for size in sizes:
            for set_name, rate in (("train", 0.0), ("test", 0.05 * (place + 1))):
                row: dict[str, object] = {
                    "set": set_name,
                    "num_train_levels": size,
                    "method": method,
                    "num_replications": 2,
                    "num_levels": 50,
                    "resampled": "levels",
                }
                for outcome, value in (("solved", 1 - rate), ("catastrophe", rate)):
                    row[f"{outcome}_rate"] = value
                    row[f"{outcome}_low"] = value / 2
                    row[f"{outcome}_high"] = min(1.2 * value, 1.0)
                rows.append(row)
    return pa.Table.from_pylist(rows)


def calibrated(size: int = 10, **changed: Any) -> dict[str, Any]:
    """A row of calibration.json with two bins."""
    row = {"num_train_levels": size, "num_events": 40, "num_predictions": 200, "sensitivity": 0.5}
    row |= {"false_alarms": 0.0, "counts": [180, 20], "mean_probability": [0.1, 0.9]}
    return row | {"event_rate": [20 / 180, 1.0]} | changed


def level_set() -> LevelSet:
    levels = jax.tree.map(lambda leaf: np.asarray(leaf)[None], from_ascii(MAP))
    return LevelSet(levels, np.array([100]), np.zeros((1, 16), np.uint8), {}, "lavagrid", 1)


def picture() -> np.ndarray:
    return np.asarray(ENV.render(state_before(ENV, from_ascii(MAP), []), 16))


@pytest.mark.parametrize("sized", [False, True])
def test_the_chosen_state_is_one_where_a_member_would_die_and_the_mean_would_not(sized):
    all_careful = one_step(step=0, action=RIGHT, members=CAREFUL * 2, dangerous=[False] * 4)
    torn = one_step(step=1)
    row = dangerous_state(table(all_careful, torn, sized=sized))
    assert row.step == 1
    assert row.actions.tolist() == [RIGHT]
    assert row.dangerous[row.members.argmax(axis=1)].tolist() == [True, False]
    assert not row.dangerous[row.members.mean(axis=0).argmax()]


@pytest.mark.parametrize(
    "harmless",
    [
        one_step(members=CAREFUL * 2),  # nobody is wrong
        one_step(members=WRONG * 2, action=RIGHT),  # everybody is, and the mean with them
        one_step(dangerous=[False] * 4),  # nothing is dangerous
        one_step(set="train"),
        one_step(method="vote"),
    ],
)
def test_without_such_a_state_there_is_none(harmless):
    with pytest.raises(NoSuchState):
        dangerous_state(table(harmless))


def test_a_state_that_the_blocker_sees_comes_before_smaller_training_sets_and_margins():
    unseen = one_step(num_train_levels=10, blocker=[0.0, 0.4, 0.0, 0.0])
    seen = one_step(num_train_levels=100)
    assert dangerous_state(table(unseen, seen)).num_train_levels == 100
    assert dangerous_state(table(unseen)).num_train_levels == 10


def test_among_seen_states_the_smallest_training_set_comes_first():
    sure = [0.0, 0.95, -0.5, 0.0]
    rows = one_step(num_train_levels=100, members=sure + CAREFUL), one_step(num_train_levels=25)
    assert dangerous_state(table(*rows)).num_train_levels == 25


def test_among_equals_the_member_most_sure_of_its_mistake_is_shown():
    surer = one_step(level_index=1, members=[0.0, 0.9, 0.3, 0.0, *CAREFUL])
    assert dangerous_state(table(one_step(), surer)).level_index == 1


def test_a_table_without_a_blocker_still_has_a_dangerous_state():
    assert dangerous_state(table(one_step(blocker=None))).blocker is None


def test_the_state_before_a_step_is_where_the_actions_lead():
    state = state_before(ENV, from_ascii(MAP), [RIGHT, DOWN])
    assert state.position.tolist() == [1, 1]
    assert state_before(ENV, from_ascii(MAP), []).position.tolist() == [0, 0]


def test_an_episode_with_a_missing_step_is_refused():
    with pytest.raises(ValueError, match="must be whole"):
        dangerous_state(table(one_step(step=2)))


@pytest.mark.parametrize("methods", [METHODS, ("single", "mean", "alarm", "alarm+blocker")])
def test_no_method_is_lost_from_the_lines_or_the_legend(methods):
    figure = generalization_figure(rates(methods))
    for axes in figure.axes:
        drawn = {line.get_label(): line for line in axes.lines}
        assert set(drawn) == {*methods, "train"}
        assert len({(line.get_color(), line.get_linestyle()) for line in drawn.values()}) == len(
            drawn
        )
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len([text for text in texts if text.strip()]) == len(methods) + 1


def test_a_methods_points_are_its_rates():
    figure = generalization_figure(rates())
    line = next(line for line in figure.axes[0].lines if line.get_label() == "mean")
    np.testing.assert_allclose(line.get_ydata(), [0.15, 0.15])


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((10, 100, 1000), 10**0.2),  # a fifth of a gap
        ((5, 20, 100), 4**0.2),  # of the smallest
        ((10, 200), 20**0.1),  # a tenth of the axis
        ((10,), 2**0.2),
    ],
)
def test_methods_stand_side_by_side_near_their_number_of_levels(sizes, expected):
    first, middle, last = (dodge(sizes, place, 3) for place in range(3))
    assert last / first == pytest.approx(expected)
    assert middle == 1


def test_rare_catastrophes_are_told_from_none():
    table = rates()
    place = table.schema.get_field_index("catastrophe_rate")
    rare = table.set_column(place, "catastrophe_rate", pa.array([0.003] * len(table)))
    axes = generalization_figure(rare).axes[0]
    heights = axes.transAxes.inverted().transform(
        axes.transData.transform([(10, share) for share in (0.0, 0.003, 0.01, 0.2)])
    )[:, 1]
    assert (np.diff(heights) > 0.04).all()
    assert axes.get_ylim()[0] == 0


def test_bins_of_replications_are_put_together():
    first, second = calibrated(), calibrated(counts=[60, 0], mean_probability=[0.3, None])
    second |= {"event_rate": [0.5, None], "num_events": 30, "num_predictions": 60}
    second |= {"sensitivity": 0.0, "false_alarms": 0.1}
    figure = calibration_figure([first, calibrated(20), second])
    line = figure.axes[0].lines[1]
    np.testing.assert_allclose(line.get_xdata(), [(180 * 0.1 + 60 * 0.3) / 240, 0.9])
    np.testing.assert_allclose(line.get_ydata(), [(20 + 30) / 240, 1.0])
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[0] == "10 training levels\nblocks 29% of 70 fatal actions,\n2% of the others"
    assert words[1].startswith("20 training levels\nblocks 50% of 40 fatal")


def test_nearly_all_is_not_called_all():
    row = calibrated(sensitivity=0.9996, false_alarms=0.0004)
    words = calibration_figure([row]).legends[0].get_texts()[0].get_text()
    assert "blocks 99.96% of 40 fatal actions,\n0.04% of the others" in words
    none = calibrated(num_events=0, sensitivity=None)
    words = calibration_figure([none]).legends[0].get_texts()[0].get_text()
    assert "blocks none of 0 fatal actions" in words


def test_an_interval_that_does_not_exist_is_not_drawn():
    whole = rates(("single",), (10,))
    place = whole.schema.get_field_index("catastrophe_low")
    holed = whole.set_column(place, "catastrophe_low", pa.nulls(2, pa.float64()))
    ends = [
        np.concatenate(axes.collections[0].get_segments())
        for axes in generalization_figure(holed).axes
    ]
    assert ends[0].size == 0 and ends[1].shape == (2, 2)


def test_rates_without_a_test_set_are_refused():
    with pytest.raises(ValueError, match="test set"):
        generalization_figure(rates().filter(pc.field("set") == "train"))


def test_actions_above_the_threshold_are_drawn_as_blocked():
    bars = blocker_figure(picture(), state_row(), ENV.action_names).axes[1].patches
    assert [bool(bar.get_hatch()) for bar in bars] == [False, True, False, False]


@pytest.mark.parametrize(("threshold", "blocked"), [(0.0, 3), (1.0, 0)])
def test_the_threshold_of_the_run_decides_what_is_drawn_as_blocked(threshold, blocked):
    figure = blocker_figure(picture(), state_row(), ENV.action_names, threshold)
    assert sum(bool(bar.get_hatch()) for bar in figure.axes[1].patches) == blocked
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"threshold of {threshold:.0%}" in words


@pytest.mark.parametrize("num_members", [1, 2, 5, 9])
def test_the_ensemble_figure_has_a_panel_for_every_member_and_the_mean(num_members):
    row = state_row(num_members)
    figure = ensemble_figure(picture(), row, ENV.action_names)
    titles = [axes.get_title() for axes in figure.axes]
    best = [ENV.action_names[action] for action in row.members.argmax(axis=1)]
    for number, name in enumerate(best, start=1):
        assert f"member {number}: {name}" in titles
    assert sum(title.startswith("mean of") for title in titles) == 1


def test_the_same_figure_is_the_same_svg():
    def drawn() -> list[bytes]:
        return [
            figure_bytes(figure, "svg")
            for figure in (
                generalization_figure(rates()),
                blocker_figure(picture(), state_row(), ENV.action_names),
                ensemble_figure(picture(), state_row(), ENV.action_names),
                calibration_figure([calibrated()]),
            )
        ]

    assert drawn() == drawn()


def test_all_figures_are_written_as_svg_and_png(tmp_path):
    written = write_figures(tmp_path, rates(), table(one_step()), level_set(), ENV, [calibrated()])
    assert sorted(path.name for path in written.paths) == [
        f"{name}.{suffix}"
        for name in ("blocker", "calibration", "ensemble", "generalization")
        for suffix in ("png", "svg")
    ]
    assert sorted(tmp_path.iterdir()) == sorted(written.paths)
    assert written.notes == []


def test_without_a_dangerous_state_its_figures_are_left_out_and_it_is_said(tmp_path):
    harmless = table(one_step(members=CAREFUL * 2))
    write_figures(
        tmp_path, rates(), table(one_step()), level_set(), ENV, [calibrated()]
    )  # of another time
    written = write_figures(tmp_path, rates(), harmless, level_set(), ENV, [calibrated()])
    assert {path.stem for path in written.paths} == {"calibration", "generalization"}
    assert sorted(tmp_path.iterdir()) == sorted(written.paths)
    assert len(written.notes) == 1 and "no figures of the ensemble" in written.notes[0]


def test_a_png_has_few_colours_none_of_them_far_from_what_was_drawn():
    figure = generalization_figure(rates())
    file = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    whole = Image.open(file).convert("RGB")
    kept = Image.open(io.BytesIO(figure_bytes(figure, "png")))
    assert kept.mode == "P" and kept.size == whole.size
    assert np.abs(np.asarray(whole, int) - np.asarray(kept.convert("RGB"), int)).max() <= 20


def test_drawing_leaves_no_style_behind():
    before = {name: matplotlib.rcParams[name] for name in STYLE}
    figure_bytes(generalization_figure(rates()), "svg")
    assert {name: matplotlib.rcParams[name] for name in STYLE} == before != STYLE


def test_a_report_needs_no_learner_and_no_pyplot():
    program = (
        "import sys; from hotoven.report import figures, animate;"
        "bad = ('hotoven.learners', 'hotoven.agents', 'hotoven.mechanisms', 'matplotlib.pyplot');"
        "assert not [name for name in sys.modules if name.startswith(bad)]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
