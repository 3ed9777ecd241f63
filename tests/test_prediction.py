"""Calibration, with scikit-learn as the judge."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from hotoven.evaluation.prediction import calibration


@pytest.mark.parametrize("num_bins", [5, 10])
@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_scikit_learn(seed, num_bins):
    generator = np.random.default_rng(seed)
    probability = generator.beta(0.5, 2.0, 300)
    happened = generator.random(300) < probability**1.5
    found = calibration(probability, happened, num_bins=num_bins)
    assert found.brier == pytest.approx(brier_score_loss(happened, probability), rel=1e-12)
    rates, means = calibration_curve(happened, probability, n_bins=num_bins, strategy="uniform")
    assert [rate for rate in found.event_rate if rate is not None] == pytest.approx(rates)
    assert [mean for mean in found.mean_probability if mean is not None] == pytest.approx(means)
    filled = np.array([count for count in found.counts if count])
    error = (filled / 300 * abs(rates - means)).sum()
    assert found.expected_error == pytest.approx(error)
    assert sum(found.counts) == found.num_predictions == 300
    assert found.num_events == happened.sum()


def test_numbers_worked_out_by_hand():
    found = calibration(np.array([0.0, 0.2, 0.9, 1.0]), np.array([0, 1, 1, 1]), num_bins=2)
    assert found.brier == pytest.approx((0.64 + 0.01) / 4)
    assert found.counts == (2, 2)
    assert found.mean_probability == pytest.approx((0.1, 0.95))
    assert found.event_rate == (0.5, 1.0)
    assert found.expected_error == pytest.approx((2 * 0.4 + 2 * 0.05) / 4)
    assert found.sensitivity == pytest.approx(2 / 3)
    assert found.false_alarms == 0.0


def test_the_threshold_itself_raises_no_alarm():
    assert calibration(np.array([0.5, 0.6]), np.array([1, 1]), threshold=0.5).sensitivity == 0.5


def test_a_number_that_does_not_exist_is_none():
    none_happened = calibration(np.array([0.1, 0.9]), np.array([0, 0]))
    assert none_happened.sensitivity is None
    assert none_happened.false_alarms == 0.5
    all_happened = calibration(np.array([0.1, 0.9]), np.array([1, 1]))
    assert all_happened.false_alarms is None
    assert all_happened.event_rate == (None, 1.0, *[None] * 7, 1.0)


@pytest.mark.parametrize(
    ("probability", "happened", "message"),
    [
        ([], [], "at least one"),
        ([0.1, 0.2], [True], "equally many"),
        ([1.1], [True], "from 0 to 1"),
        ([float("nan")], [True], "from 0 to 1"),
    ],
)
def test_what_is_not_a_prediction_is_refused(probability, happened, message):
    with pytest.raises(ValueError, match=message):
        calibration(np.array(probability), np.array(happened, bool))
