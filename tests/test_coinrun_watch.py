"""One agent under watch: which alarms and which death are shown, and what is marked."""

import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image

from coinrun_tables import ENV, all_tables, level_set
from hotoven.evaluation.alarms import alarms
from hotoven.evaluation.coinrun_rows import Missing
from hotoven.evaluation.knowing import Recorded
from hotoven.report import coinrun_watch
from hotoven.report.animate import ALARM, MARKS
from hotoven.report.coinrun_watch import (
    FILMED,
    Watch,
    announced_death,
    timeline_figure,
    watch,
    write_film,
)
from noted import Noted


@pytest.fixture(scope="module")
def levels():
    return level_set()


@pytest.fixture(scope="module")
def tables(levels):
    return all_tables(levels)


def watched(scores, died, threshold=0.5, min_lead=1):
    """Alarms of episodes whose scores are given as digits, one a step: "0011"."""
    num_steps = np.array([len(text) for text in scores])
    score = np.zeros((len(scores), num_steps.max()))
    for row, text in enumerate(scores):
        score[row, : len(text)] = [int(digit) for digit in text]
    died = np.array([letter == "c" for letter in died])
    rang = alarms(score, num_steps, died, threshold, min_lead)
    return Watch([], Recorded(num_steps, died, {"mu": score}), score, threshold, 0.2, 1, rang)


def test_the_death_that_is_shown_was_announced_with_the_median_lead():
    # leads 3, 1 and 2; the fourth is too late, the fifth did not die
    assert announced_death(watched(["1000", "0010", "0100", "0001", "0100"], "ccccs")) == 2


def test_of_two_leads_the_shorter_counts_and_of_equal_ones_the_first_episode():
    assert announced_death(watched(["1000", "0010", "0010"], "ccc")) == 1
    assert announced_death(watched(["1000", "0010"], "cc")) == 1


def test_without_an_announced_death_the_first_is_shown_and_without_any_none():
    assert announced_death(watched(["0000", "0001", "0000"], "scc")) == 1
    with pytest.raises(Missing, match="no recorded episode ended in a catastrophe"):
        announced_death(watched(["0100"], "s"))


def test_alarms_keep_the_smallest_promise_from_a_fifth_on(tables):
    found = watch(tables)
    assert found.promised == 0.2
    chosen = tables["promises"].filter(
        (pc.field("promised") == 0.2)
        & (pc.field("num_train_levels") == 10)
        & (pc.field("score") == "mean and std")
        & (pc.field("rule") == "conformal")
    )
    assert found.threshold == chosen["threshold"][0].as_py()
    assert found.min_lead == 3
    assert len(found.episodes) == len(found.score) == 60
    np.testing.assert_allclose(
        found.score, found.recorded.columns["sigma"] - found.recorded.columns["mu"], rtol=1e-6
    )


def test_a_vacuous_promise_raises_no_alarm(tables):
    rows = tables["promises"].to_pylist()
    later = [row | {"vacuous": row["promised"] <= 0.2} for row in rows]
    table = tables["promises"].from_pylist(later, tables["promises"].schema)
    assert watch(tables | {"promises": table}).promised == 0.3
    none = table.filter(pc.field("promised") < 0.2)
    with pytest.raises(Missing, match="keeps a promise of 20% or more"):
        watch(tables | {"promises": none})


def test_without_recorded_episodes_there_is_nothing_to_watch(tables):
    other = tables["steps"].filter(pc.field("num_train_levels") == 200)
    with pytest.raises(Missing, match="no episode of 'mean' trained on 10 levels"):
        watch(tables | {"steps": other})


def test_the_timeline_shows_the_alarm_and_the_death_of_its_episode(tables, levels):
    found = watch(tables)
    place = announced_death(found)
    lead, num_steps = found.alarms.lead[place], found.recorded.num_steps[place]
    figure = timeline_figure(tables, levels, ENV)
    *strip, values, score = figure.axes
    titles = [axes.get_title() for axes in strip]
    assert titles[-1] == f"step {num_steps}: death"
    assert f"step {num_steps - 1 - lead}: alarm" in titles
    title = figure.get_suptitle()
    assert f"the one with the median lead, {lead} steps" in title
    assert f"of {found.alarms.announced.sum()} announced deaths" in title
    drawn = score.lines[0]
    steps = drawn.get_xdata()
    np.testing.assert_array_equal(drawn.get_ydata(), found.score[place, steps])
    assert steps[-1] == num_steps - 1
    above = int((found.score[place, steps] > found.threshold).sum())
    assert len(score.patches) == above >= 1
    assert values.get_xlim() == score.get_xlim()


def has(frame, colour):
    return (np.asarray(frame.convert("RGB")) == colour).all(axis=-1).sum() > 100


def test_the_film_marks_alarms_and_deaths_and_says_what_it_left_out(
    tmp_path, tables, levels, monkeypatch
):
    monkeypatch.setattr(coinrun_watch, "FILM_STEPS", 35)
    monkeypatch.setattr(coinrun_watch, "FILM_SCALE", 6)
    (note,) = write_film(tmp_path, tables, levels, ENV)
    assert "Of more than 35 steps the first are shown, and the end." in note
    found = watch(tables)
    died, announced = found.recorded.died.sum(), found.alarms.announced.sum()
    assert f"{announced} of {died} deaths had them" in note
    assert sorted(path.name for path in tmp_path.iterdir()) == ["unseen.gif", "unseen.mp4"]
    with Image.open(tmp_path / "unseen.gif") as gif:
        assert gif.n_frames == 36
        alarm, death = [], []
        for number in range(gif.n_frames):
            gif.seek(number)
            alarm.append(has(gif, ALARM[1]))
            death.append(has(gif, MARKS["catastrophe"][1]))
    assert any(alarm) and death[-1] and not death[0]
    assert death.index(True) > alarm.index(True)
    assert (tmp_path / "unseen.gif").stat().st_size < 6e6


def test_timeline_and_film_read_the_tables_that_they_say(tables, levels):
    read = Noted(tables)
    timeline_figure(read, levels, ENV)
    assert read.names == set(FILMED)


@pytest.mark.parametrize("name", FILMED)
def test_a_film_whose_tables_are_gone_stays_with_what_was_said_of_it(
    name, tmp_path, tables, levels
):
    kept = [tmp_path / f"unseen.{suffix}" for suffix in ("gif", "mp4")]
    for path in kept:
        path.write_text("of then")
    before = [
        "no figure timeline: none",
        "no alarms in the film: none",
        "unseen.gif, unseen.mp4: 8 of 9 recorded episodes",
    ]
    gone = {other: table for other, table in tables.items() if other != name}
    assert write_film(tmp_path, gone, levels, ENV, before) == before[1:]
    assert [path.read_text() for path in kept] == ["of then"] * 2


def test_without_a_threshold_the_film_has_no_alarms_and_without_episodes_there_is_none(
    tmp_path, tables, levels, monkeypatch
):
    monkeypatch.setattr(coinrun_watch, "FILM_STEPS", 4)
    monkeypatch.setattr(coinrun_watch, "FILM_SCALE", 6)
    none = tables["promises"].slice(0, 0)
    notes = write_film(tmp_path, tables | {"promises": none}, levels, ENV)
    assert notes[0].startswith("no alarms in the film: no threshold")
    assert notes[1].startswith("unseen.gif, unseen.mp4: 8 of 60") and "Alarms" not in notes[1]
    assert len(list(tmp_path.iterdir())) == 2
    (note,) = write_film(tmp_path, tables | {"steps": tables["steps"].slice(0, 0)}, levels, ENV)
    assert note == "no film: no episode of 'mean' trained on 10 levels was recorded"
    assert not list(tmp_path.iterdir())
