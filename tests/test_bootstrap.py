"""Intervals, judged by scipy and by samples small enough to count by hand."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from hotoven.evaluation.bootstrap import two_level, wilson

finite = st.floats(-100, 100)


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@given(st.integers(1, 2000), st.floats(0, 1), st.sampled_from((0.5, 0.9, 0.95, 0.99)))
def test_wilson_agrees_with_scipy(trials, share, confidence):
    successes = round(share * trials)
    oracle = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert wilson(successes, trials, confidence) == pytest.approx((oracle.low, oracle.high))


def test_wilson_agrees_with_a_number_worked_out_by_hand():
    # z = 1.96, z^2 = 3.8416: 0 of 10 ends at z^2 / (10 + z^2)
    assert wilson(0, 10) == pytest.approx((0.0, 3.8416 / 13.8416), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((10 / 13.8416, 1.0), abs=1e-4)


@pytest.mark.parametrize(
    ("successes", "trials", "confidence", "message"),
    [
        (0, 0, 0.95, "at least 1 trial"),
        (3, 2, 0.95, "from 0 to 2"),
        (-1, 2, 0.95, "from 0 to 2"),
        (1, 2, 1.0, "confidence"),
    ],
)
def test_wilson_refuses_what_is_not_a_proportion(successes, trials, confidence, message):
    with pytest.raises(ValueError, match=message):
        wilson(successes, trials, confidence)


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=finite),
    st.sampled_from((0.01, 0.5, 0.95)),
    st.sampled_from((1, 7, 100)),
)
def test_a_resampled_interval_contains_its_estimate(values, confidence, num_samples):
    estimate, low, high, _ = two_level(values, num_samples, confidence)
    assert low <= estimate <= high
    assert estimate == pytest.approx(values.mean())


def test_replications_are_resampled():
    # Means of the draws: 0 (1/4), 2 (1/2), 4 (1/4). Levels do not matter.
    values = np.array([[0.0, 0.0], [4.0, 4.0]])
    assert two_level(values)[:3] == (2.0, 0.0, 4.0)
    assert two_level(values, confidence=0.4)[:3] == (2.0, 2.0, 2.0)


def test_levels_are_drawn_once_for_all_replications():
    # Crossed: 0 (1/4), 2 (1/2), 4 (1/4), so 20% lies within the first quarter. Were levels drawn
    # anew in each replication, 0 would come up once in 16 and the bounds would be 1 and 3.
    values = np.array([[0.0, 4.0], [0.0, 4.0]])
    assert two_level(values, confidence=0.6)[:3] == (2.0, 0.0, 4.0)


def test_one_replication_says_that_only_levels_were_resampled():
    assert two_level(np.ones((1, 3))).levels == "levels"
    assert two_level(np.ones((2, 3))).levels == "replications and levels"


def test_one_replication_agrees_with_the_bootstrap_of_scipy():
    values = generator(1).exponential(size=80)
    oracle = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=generator(2)
    ).confidence_interval
    ours = two_level(values[None], num_samples=20_000)
    assert (ours.low, ours.high) == pytest.approx((oracle.low, oracle.high), abs=0.01)


def crossed(rng: np.random.Generator) -> np.ndarray:
    """float64[12, 60] with mean 0, effects of replications, of levels, and noise."""
    replication, level = rng.normal(0, 0.6, (12, 1)), rng.normal(0, 1.0, (1, 60))
    return replication + level + rng.normal(0, 0.5, (12, 60))


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = generator(3)
    intervals = [two_level(crossed(rng), num_samples=500, seed=run) for run in range(300)]
    coverage = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    # Resampling levels alone covers about 76%.
    assert 0.88 <= coverage <= 0.98


def test_the_same_seed_gives_the_same_interval():
    values = generator(4).random((3, 20))
    assert two_level(values, seed=5) == two_level(values.copy(), seed=5)
    assert two_level(values, seed=5) != two_level(values, seed=6)


def test_no_catastrophe_in_a_few_levels_does_not_prove_that_there_is_none():
    assert two_level(np.zeros((1, 10)))[:3] == (0.0, 0.0, 0.0)
    bounded = two_level(np.zeros((1, 10)), bounds=(0, 1))
    assert (bounded.low, bounded.high) == pytest.approx(wilson(0, 10))
    bounded = two_level(np.ones((4, 10)), bounds=(0, 1))
    assert (bounded.low, bounded.high) == pytest.approx(wilson(10, 10))
    bounded = two_level(np.zeros((4, 10)), bounds=(-1, 1))
    assert -bounded.low == pytest.approx(wilson(0, 10)[1]) == bounded.high


def test_bounds_change_nothing_where_levels_differ():
    values = generator(5).integers(0, 2, (3, 20))
    assert two_level(values, bounds=(0, 1)) == two_level(values)


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        (np.ones(3), {}, "shape"),
        (np.ones((0, 3)), {}, "non-empty"),
        (np.array([[np.nan]]), {}, "finite"),
        (np.array([[2.0]]), {"bounds": (0, 1)}, "within the bounds"),
        (np.ones((1, 1)), {"num_samples": 0}, "num_samples"),
        (np.ones((1, 1)), {"confidence": 0.0}, "confidence"),
    ],
)
def test_two_level_refuses_values_without_a_mean(values, settings, message):
    with pytest.raises(ValueError, match=message):
        two_level(values, **settings)


def test_two_thousand_samples_of_a_full_test_set_take_well_under_a_second():
    start = time.process_time()
    two_level(generator(6).random((5, 1000)), num_samples=2000, seed=123)
    assert time.process_time() - start < 1.0
