"""The promises, judged by simulations in which the true share is known, and by scipy.

Where peaks are uniform on 0 to 1, the true share unannounced at a threshold is the threshold.
"""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hotoven.evaluation import promise  # not by name: pytest would take tested_threshold for a test
from hotoven.evaluation.alarms import alarms
from hotoven.evaluation.bootstrap import wilson
from hotoven.evaluation.promise import (
    binomial_tail,
    catastrophe_peaks,
    conformal_threshold,
    measured,
)

TRIALS = 3000


def thresholds_of(choose, num: int, draw, seed: int) -> np.ndarray:
    """float64[TRIALS]: the threshold chosen on each of so many calibrations of `num` peaks."""
    rng = np.random.default_rng(seed)
    return np.array([choose(draw(rng, num)).threshold for _ in range(TRIALS)])


def uniform(rng: np.random.Generator, num: int) -> np.ndarray:
    return rng.random(num)


@pytest.mark.parametrize(("num", "alpha"), [(49, 0.1), (60, 0.1), (200, 0.05), (30, 0.4)])
def test_the_conformal_promise_holds_on_average_and_is_not_idle(num, alpha):
    shares = thresholds_of(lambda p: conformal_threshold(p, alpha), num, uniform, seed=num)
    error = 3 * shares.std() / np.sqrt(TRIALS)
    assert shares.mean() <= alpha + error
    assert shares.mean() >= alpha - 1 / (num + 1) - error


def test_the_conformal_promise_is_none_for_a_single_calibration():
    shares = thresholds_of(lambda p: conformal_threshold(p, 0.1), 200, uniform, seed=1)
    assert np.mean(shares > 0.1) > 0.3


@pytest.mark.parametrize(("num", "alpha", "delta"), [(200, 0.1, 0.1), (100, 0.2, 0.05)])
def test_the_tested_promise_holds_as_often_as_it_says_and_is_not_idle(num, alpha, delta):
    shares = thresholds_of(
        lambda p: promise.tested_threshold(p, alpha, delta), num, uniform, seed=num
    )
    broken = np.mean(shares > alpha)
    error = 3 * np.sqrt(delta * (1 - delta) / TRIALS)
    assert delta / 2 - error <= broken <= delta + error
    assert shares.mean() > alpha / 3


def steps_of_five(rng: np.random.Generator, num: int) -> np.ndarray:
    """Peaks of which many are equal: 0 to 4, a fifth each."""
    return rng.integers(0, 5, num).astype(np.float32)


def share_of_five(thresholds: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(thresholds) + 1, 0, 5) / 5


def test_promises_hold_with_ties():
    chosen = thresholds_of(lambda p: conformal_threshold(p, 0.3), 50, steps_of_five, seed=2)
    assert 0.15 < share_of_five(chosen).mean() <= 0.3
    chosen = thresholds_of(
        lambda p: promise.tested_threshold(p, 0.3, 0.1), 80, steps_of_five, seed=3
    )
    assert np.mean(share_of_five(chosen) > 0.3) <= 0.1
    assert share_of_five(chosen).mean() > 0.1


@pytest.mark.parametrize(
    "choose",
    [lambda p: conformal_threshold(p, 0.1), lambda p: promise.tested_threshold(p, 0.1, 0.1)],
    ids=["conformal", "tested"],
)
def test_a_promise_breaks_under_a_shift(choose):
    """Elsewhere the score warns less: a peak there is the square of one here."""
    shares = thresholds_of(choose, 300, uniform, seed=4)
    assert shares.mean() <= 0.1
    assert np.mean(np.sqrt(shares) > 0.1) > 0.99  # P(u^2 <= t) is the root of t
    rng = np.random.default_rng(5)
    assert measured(rng.random(2000) ** 2, shares[0]).low > 0.1


def test_a_conformal_threshold_worked_out_by_hand():
    # n = 9: (k + 1) / 10 <= 0.3 allows k = 2 of 9, so the third lowest peak is just announced
    peaks = np.array([9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0])
    found = conformal_threshold(peaks, 0.3)
    assert found.threshold == np.nextafter(3.0, 0.0)
    assert found._replace(threshold=0.0) == (0.0, False, 9, 2, 0)
    # k = 0: every peak is above it
    assert conformal_threshold(peaks, 0.1).threshold == np.nextafter(1.0, 0.0)
    assert conformal_threshold(peaks, 0.1).num_unannounced == 0


def test_a_tie_is_announced_whole():
    # k = 2 are allowed, but the second lowest value occurs twice: no threshold leaves just 2
    peaks = np.array([1.0, 3.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    found = conformal_threshold(peaks, 0.3)
    assert found.threshold == np.nextafter(3.0, 0.0)
    assert found.num_unannounced == 1


@given(st.lists(st.integers(1, 7), max_size=40), st.floats(0.02, 0.98), st.floats(0.02, 0.98))
def test_a_threshold_is_the_largest_that_is_allowed(values, alpha, delta):
    peaks = np.array(values, float)
    num = len(peaks)

    def conformal(unannounced: int) -> bool:
        return (unannounced + 1) / (num + 1) <= alpha

    def tested(unannounced: int) -> bool:
        return stats.binom.cdf(unannounced, num, alpha) <= delta

    for found, allowed in (
        (conformal_threshold(peaks, alpha), conformal),
        (promise.tested_threshold(peaks, alpha, delta), tested),
    ):
        assert found.num_unannounced == (peaks <= found.threshold).sum()
        if found.vacuous:
            assert found.threshold == -math.inf
            assert not num or not allowed(0)
            continue
        assert allowed(found.num_unannounced)
        above = np.nextafter(found.threshold, np.inf)
        assert not allowed(int((peaks <= above).sum()))


def test_a_share_that_is_met_exactly_is_met():
    # 0.29 * 100 is 28.999999999999996: 28 of 99 may come unannounced all the same
    assert conformal_threshold(np.arange(99.0), 0.29).num_unannounced == 28


@pytest.mark.parametrize("num", [1, 7, 60, 1500])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.97])
def test_the_tail_agrees_with_scipy(num, share):
    found = binomial_tail(num, share)
    assert found.shape == (num + 1,)
    oracle = stats.binom.cdf(np.arange(num + 1), num, share)
    np.testing.assert_allclose(found, oracle, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(("num", "vacuous"), [(0, True), (8, True), (9, False)])
def test_too_few_catastrophes_make_the_conformal_promise_vacuous(num, vacuous):
    found = conformal_threshold(np.arange(float(num)), 0.1)
    assert (found.vacuous, found.threshold == -math.inf) == (vacuous, vacuous)
    assert found.num_catastrophes == num


@pytest.mark.parametrize(("num", "vacuous"), [(0, True), (28, True), (29, False)])
def test_too_few_catastrophes_make_the_tested_promise_vacuous(num, vacuous):
    # 0.9 ** 28 is 0.0523, 0.9 ** 29 is 0.0471
    found = promise.tested_threshold(np.arange(float(num)), 0.1, 0.05)
    assert (found.vacuous, found.threshold == -math.inf) == (vacuous, vacuous)


def test_a_death_before_the_lead_counts_as_unannounced():
    # k = 2 of 9 may be: with two too early, the lowest other peak must be announced
    peaks = np.array([-np.inf, -np.inf, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    found = conformal_threshold(peaks, 0.3)
    assert found == (np.nextafter(3.0, 0.0), False, 9, 2, 2)
    found = conformal_threshold(np.where(peaks == 3.0, -np.inf, peaks), 0.3)
    assert found == (-np.inf, True, 9, 3, 3)
    assert measured(peaks, -np.inf).num_unannounced == 2


@pytest.mark.parametrize("lowest", [0.1, 3.0, -2.5, 0.0, -0.0])
def test_a_float32_peak_is_above_its_threshold_on_the_device_too(lowest):
    peaks = np.array([lowest, *range(4, 12)], np.float32)
    found = conformal_threshold(peaks, 0.1)
    assert peaks[0] > found.threshold
    assert jnp.asarray(peaks)[0] > jnp.float32(found.threshold)
    assert found.threshold == pytest.approx(lowest, abs=1e-6)


def test_peaks_are_the_highest_scores_in_time():
    score = np.array([[1.0, 5.0, 2.0, 9.0], [1.0, 2.0, 9.0, 9.0], [7.0, 8.0, 9.0, 9.0]])
    num_steps, died = np.array([4, 2, 4]), np.array([True, True, False])
    assert catastrophe_peaks(score, num_steps, died).tolist() == [9.0, 2.0]
    assert catastrophe_peaks(score, num_steps, died, min_lead=1).tolist() == [5.0, 1.0]
    assert catastrophe_peaks(score, num_steps, died, min_lead=2).tolist() == [5.0, -np.inf]
    assert catastrophe_peaks(score, num_steps, died, min_lead=9).tolist() == [-np.inf, -np.inf]
    assert catastrophe_peaks(score.astype(np.float32), num_steps, died).dtype == np.float32


@pytest.mark.parametrize("min_lead", [0, 2, 5])
def test_a_catastrophe_is_announced_just_where_the_alarms_announce_it(min_lead):
    rng = np.random.default_rng(5)
    score, num_steps = rng.normal(size=(300, 12)), rng.integers(1, 13, 300)
    died = rng.random(300) < 0.4
    peaks = catastrophe_peaks(score, num_steps, died, min_lead)
    for threshold in (-np.inf, 0.5, conformal_threshold(peaks, 0.6).threshold):
        found = alarms(score, num_steps, died, threshold, min_lead)
        assert measured(peaks, threshold).num_unannounced == found.unannounced.sum()
        np.testing.assert_array_equal(peaks > threshold, found.announced[died])


def test_a_measured_share_has_the_interval_of_wilson():
    found = measured(np.arange(10.0), 2.0)
    assert found == (0.3, *wilson(3, 10), 3, 10)
    # 0.1 as float32 is above 0.1: the threshold is not rounded
    assert measured(np.array([0.1], np.float32), 0.1).num_unannounced == 0
    with pytest.raises(ValueError, match="at least 1, got 0"):
        measured(np.array([]), 2.0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share):
    for choose in (
        lambda: conformal_threshold(np.ones(3), share),
        lambda: promise.tested_threshold(np.ones(3), share, 0.1),
        lambda: promise.tested_threshold(np.ones(3), 0.1, share),
    ):
        with pytest.raises(ValueError, match="must be between 0 and 1"):
            choose()


@pytest.mark.parametrize("peaks", [[[1.0]], [np.nan], [np.inf]])
def test_what_is_no_peak_is_refused(peaks):
    with pytest.raises(ValueError, match="peaks must be"):
        conformal_threshold(np.array(peaks), 0.1)
