"""Alarms on scores written as digits: `walk("0291", died=True)` scores 0, 2, 9, 1 and dies."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotoven.evaluation import scores
from hotoven.evaluation.alarms import NO_STEP, alarm_table, alarms, peak_thresholds


def walk(*digits: str, died: bool | list[bool]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [L, T], numbers of steps and deaths; there is no number after a last step."""
    longest = max(map(len, digits))
    rows = [[*map(float, row), *[np.nan] * (longest - len(row))] for row in digits]
    return np.array(rows), np.array([*map(len, digits)]), np.broadcast_to(died, len(digits))


def one(digits: str, died: bool, threshold: float = 5, min_lead: int = 0) -> dict[str, Any]:
    found = alarms(*walk(digits, died=died), threshold, min_lead)
    return {name: value.item() for name, value in found._asdict().items()}


def test_an_alarm_at_the_fatal_observation_leads_by_nothing():
    found = one("0019", died=True)
    assert (found["first_step"], found["lead"], found["announced"]) == (3, 0, True)
    assert not found["unannounced"]
    assert not found["false_alarm"]


def test_the_lead_is_of_the_first_alarm():
    found = one("0919", died=True, min_lead=2)
    assert (found["first_step"], found["lead"], found["announced"]) == (1, 2, True)
    assert one("0919", died=True, min_lead=3)["unannounced"]


def test_an_alarm_that_is_too_late_does_not_announce():
    found = one("0019", died=True, min_lead=1)
    assert (found["announced"], found["unannounced"]) == (False, True)
    assert (found["lead"], found["num_alarms"]) == (0, 1)


def test_the_threshold_itself_raises_no_alarm():
    found = one("5555", died=True)
    assert (found["first_step"], found["lead"], found["num_alarms"]) == (NO_STEP, NO_STEP, 0)
    assert found["unannounced"]


def test_an_alarm_where_nothing_dies_is_false_and_leads_to_nothing():
    found = one("0900", died=False)
    assert (found["first_step"], found["lead"], found["false_alarm"]) == (1, NO_STEP, True)
    assert not found["announced"]
    assert not found["unannounced"]


@pytest.mark.parametrize(
    ("digits", "num"),
    [("0000", 0), ("9999", 1), ("0909", 2), ("9099", 2), ("9595", 2), ("0678", 1)],
)
def test_an_alarm_begins_where_the_score_rises_above_the_threshold(digits, num):
    assert one(digits, died=False)["num_alarms"] == num


def test_to_alarm_always_announces_whoever_lives_long_enough():
    score, num_steps, died = walk("000", "00", "000", died=[True, True, False])
    found = alarms(score, num_steps, died, -np.inf, min_lead=2)
    assert found.announced.tolist() == [True, False, False]
    assert found.num_alarms.tolist() == [1, 1, 1]


def test_a_table_worked_out_by_hand():
    episodes = walk("0808", "0090", "60", "1", died=[True, False, True, False])
    found = alarm_table(*episodes, np.array([-np.inf, 5, 8, 9]), min_lead=1)
    assert found.num_announced.tolist() == [2, 2, 0, 0]
    assert found.num_unannounced.tolist() == [0, 0, 2, 2]
    assert found.num_false.tolist() == [2, 1, 1, 0]
    assert found.num_alarms.tolist() == [4, 4, 1, 0]
    assert found.announced_share.tolist() == [1, 1, 0, 0]
    assert found.false_share.tolist() == [1, 0.5, 0.5, 0]
    # leads 3 and 1, then 2 and 1, then nothing is announced
    np.testing.assert_array_equal(found.median_lead, [2, 1.5, np.nan, np.nan])
    np.testing.assert_array_equal(found.announced_per_100, [50, 50, 0, np.nan])


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 7), st.integers(0, 4))
def test_a_table_is_the_alarms_of_each_threshold_added_up(seed, num_levels, max_steps, min_lead):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 5, (num_levels, max_steps)).astype(np.float32)
    num_steps, died = rng.integers(1, max_steps + 1, num_levels), rng.random(num_levels) < 0.5
    thresholds = np.array([-np.inf, -1.0, 0.0, 1.0, 1.5, 3.0, 4.0, np.inf])
    table = alarm_table(score, num_steps, died, thresholds, min_lead)
    for k, threshold in enumerate(thresholds):
        found = alarms(score, num_steps, died, threshold, min_lead)
        assert table.num_announced[k] == found.announced.sum()
        assert table.num_unannounced[k] == found.unannounced.sum()
        assert table.num_false[k] == found.false_alarm.sum()
        assert table.num_alarms[k] == found.num_alarms.sum()
        assert (found.announced | found.unannounced == died).all()
        if found.announced.any():
            assert table.median_lead[k] == np.median(found.lead[found.announced])
        else:
            assert np.isnan(table.median_lead[k])


def test_both_compare_in_full_precision():
    """0.1 as float32 is above 0.1: the threshold is not rounded to the precision of the scores."""
    score = np.array([[0.1]], np.float32)
    assert alarms(score, np.array([1]), np.array([True]), 0.1).announced.all()
    table = alarm_table(score, np.array([1]), np.array([True]), np.array([0.1]))
    assert table.num_announced.tolist() == [1]


def test_where_nothing_dies_there_is_no_share_of_catastrophes():
    found = alarm_table(*walk("09", died=False), np.array([5.0]))
    assert np.isnan(found.announced_share).all()
    assert found.false_share.tolist() == [1.0]
    assert np.isnan(alarm_table(*walk("09", died=True), np.array([5.0])).false_share).all()


def test_thresholds_go_from_an_alarm_everywhere_to_none():
    score = np.random.default_rng(1).normal(size=(200, 30))
    num_steps, nobody = np.full(200, 30), np.zeros(200, bool)
    thresholds = peak_thresholds(score, num_steps, 21)
    assert len(thresholds) == 21
    assert (np.diff(thresholds) > 0).all()
    assert np.isin(thresholds[1:], score.max(axis=1)).all()
    share = alarm_table(score, num_steps, nobody, thresholds).false_share
    assert (share[0], share[-1]) == (1.0, 0.0)
    assert np.diff(share) == pytest.approx(-1 / 19, abs=0.06)


def test_equal_thresholds_are_given_once():
    score, num_steps, _ = walk("01", "11", "02", died=False)
    assert peak_thresholds(score, num_steps, 50).tolist() == [-np.inf, 1.0, 2.0]


def test_the_oracle_announces_all_with_no_false_alarm():
    rng = np.random.default_rng(2)
    num_steps, died = rng.integers(5, 20, 60), rng.random(60) < 0.3
    oracle = scores.oracle(num_steps, died, 20)
    found = alarm_table(oracle, num_steps, died, np.array([-4.5]), min_lead=4)
    assert (found.announced_share, found.false_share, found.median_lead) == (1.0, 0.0, 4.0)
    assert found.announced_per_100 == 100.0


@pytest.mark.parametrize(
    ("score", "num_steps", "died", "min_lead", "message"),
    [
        (np.zeros(3), [3], [True], 0, r"score must be \[L, T\]"),
        (np.zeros((1, 3)), [4], [True], 0, "from 1 to 3"),
        (np.zeros((2, 3)), [3], [True], 0, "got 2, 1 and 1"),
        (np.full((1, 3), np.nan), [3], [True], 0, "finite"),
        (np.zeros((1, 3)), [3], [True], -1, "min_lead must be at least 0"),
    ],
)
def test_what_is_no_rollout_is_refused(score, num_steps, died, min_lead, message):
    episodes = score, np.array(num_steps), np.array(died)
    with pytest.raises(ValueError, match=message):
        alarms(*episodes, 0.0, min_lead)
    with pytest.raises(ValueError, match=message):
        alarm_table(*episodes, np.zeros(1), min_lead)


def test_one_threshold_is_no_sweep():
    with pytest.raises(ValueError, match="num must be at least 2, got 1"):
        peak_thresholds(np.zeros((1, 1)), np.array([1]), 1)
