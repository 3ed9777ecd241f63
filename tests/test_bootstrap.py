"""Intervals, judged by scipy and by samples small enough to count by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from hotoven.evaluation.bootstrap import student, two_level, wilson

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
    hnp.arrays(np.float64, st.integers(2, 12), elements=finite),
    st.sampled_from((0.01, 0.5, 0.95)),
)
def test_an_interval_over_studies_agrees_with_scipy(values, confidence):
    found = student(values, confidence)
    half = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * stats.sem(values)
    assert found[:3] == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))
    assert found.num_replications == len(values)


def test_an_interval_over_two_studies_agrees_with_a_number_worked_out_by_hand():
    # mean 1, standard error 1; the quantile of one degree of freedom is tan(0.475 pi)
    half = math.tan(0.475 * math.pi)
    assert student([0.0, 2.0]) == pytest.approx((1.0, 1 - half, 1 + half, 2))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_one_study_has_no_interval(values):
    with pytest.raises(ValueError, match="at least 2 finite values are needed"):
        student(values)


def test_an_interval_over_studies_asks_for_a_confidence():
    with pytest.raises(ValueError, match="confidence"):
        student([1.0, 2.0], 1.0)


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=finite),
    st.sampled_from((0.01, 0.5, 0.95)),
    st.sampled_from((1, 7, 100)),
)
def test_a_resampled_interval_contains_its_estimate(values, confidence, num_samples):
    estimate, low, high, _ = two_level(values, num_samples, confidence)
    assert low <= estimate <= high
    assert estimate == pytest.approx(values.mean())


def test_replications_are_drawn_one_fewer_than_there_are():
    # Levels do not matter. Of two one is drawn: 0 or 4. Of three two are: 0 (1/9), 1.5 (2/9),
    # 3 (3/9), 4.5 (2/9), 6 (1/9), of variance 3, that of a mean of three such numbers.
    two, three = (np.array([[value, value] for value in own]) for own in ((0, 4), (0, 3, 6)))
    assert two_level(two)[:3] == pytest.approx((2.0, 0.0, 4.0))
    assert two_level(two, confidence=0.4)[:3] == pytest.approx((2.0, 0.0, 4.0))
    assert two_level(three, confidence=0.5)[:3] == pytest.approx((3.0, 1.5, 4.5))
    assert two_level(three, confidence=0.2)[:3] == pytest.approx((3.0, 3.0, 3.0))


def test_levels_are_weighed_once_for_all_replications():
    # The weight of one of two levels is uniform from 0 to 1. Were it drawn anew in each
    # replication, the mean of two would lie within 0.63 and 1.37 of its middle 60%.
    values = np.array([[0.0, 4.0], [0.0, 4.0]])
    assert two_level(values, 20_000, 0.6)[:3] == pytest.approx((2.0, 0.8, 3.2), abs=0.05)


def test_one_replication_says_that_only_levels_were_resampled():
    assert two_level(np.ones((1, 3))).resampled == "levels"
    assert two_level(np.ones((2, 3))).resampled == "replications and levels"


def test_one_replication_agrees_with_the_bootstrap_of_scipy():
    values = generator(1).normal(size=200)
    oracle = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=generator(2)
    ).confidence_interval
    ours = two_level(values[None], num_samples=20_000)
    assert (ours.low, ours.high) == pytest.approx((oracle.low, oracle.high), abs=0.01)


def crossed(rng: np.random.Generator, num_replications: int) -> np.ndarray:
    """float64[R, 60] with mean 0, effects of replications, of levels, and noise."""
    replication = rng.normal(0, 0.3 * num_replications**0.5, (num_replications, 1))
    level, noise = rng.normal(0, 1.0, (1, 60)), rng.normal(0, 0.5, (num_replications, 60))
    return replication + level + noise


# Resampling levels alone covers about 55%; drawing as many replications as there are, 76%, 89%
# and 92.6%.
@pytest.mark.parametrize(
    ("num_replications", "least", "most"), [(2, 0.785, 0.85), (5, 0.90, 0.95), (12, 0.93, 0.97)]
)
def test_an_interval_covers_the_truth_about_as_often_as_it_says(num_replications, least, most):
    rng, hits = generator(3), 0
    for run in range(1000):
        interval = two_level(crossed(rng, num_replications), num_samples=500, seed=run)
        hits += interval.low <= 0 <= interval.high
    assert least <= hits / 1000 <= most


def test_the_same_seed_gives_the_same_interval():
    values = generator(4).random((3, 20))
    assert two_level(values, seed=5) == two_level(values.copy(), seed=5)
    assert two_level(values, seed=5) != two_level(values, seed=6)


def indicators(successes: int, num_levels: int) -> np.ndarray:
    """float64[1, L]: 1 on the first levels, else 0."""
    return (np.arange(num_levels) < successes)[None].astype(np.float64)


def bounded(successes: int, num_levels: int, **settings) -> tuple[float, float]:
    return two_level(indicators(successes, num_levels), bounds=(0, 1), **settings)[1:3]


@pytest.mark.parametrize("num_levels", [1, 10, 200])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_indicators_agree_with_the_exact_interval_of_scipy(num_levels, confidence):
    for successes in {0, 1, num_levels // 3, num_levels - 1, num_levels}:
        oracle = stats.binomtest(successes, num_levels).proportion_ci(confidence, method="exact")
        ours = bounded(successes, num_levels, num_samples=20_000, confidence=confidence)
        assert ours == pytest.approx((oracle.low, oracle.high), abs=0.12 / num_levels**0.75)


def test_no_catastrophe_in_a_few_levels_does_not_prove_that_there_is_none():
    assert two_level(np.zeros((1, 1000)))[:3] == (0.0, 0.0, 0.0)
    # one of 1001 levels weighs more than w with probability (1 - w)^1000
    unseen = 1 - 0.025 ** (1 / 1000)
    assert two_level(np.zeros((1, 1000)), bounds=(0, 1))[:2] == (0.0, 0.0)
    assert bounded(0, 1000)[1] == pytest.approx(unseen, rel=0.1) == pytest.approx(0.0037, abs=5e-4)
    assert bounded(1000, 1000) == (pytest.approx(1 - unseen, abs=4e-4), 1.0)
    # in each of four replications it is the same level that was not seen
    four = two_level(np.ones((4, 1000)), bounds=(0, 1))
    assert four[1:3] == pytest.approx(bounded(1000, 1000))


def test_one_catastrophe_in_a_thousand_levels_is_more_than_none():
    (_, none), (low, one) = bounded(0, 1000), bounded(1, 1000)
    assert one == pytest.approx(0.0056, abs=4e-4)  # that of two levels in 1001
    assert one > none > 0.003
    assert 0 < low == pytest.approx(0.000025, abs=2e-5)


def test_a_difference_may_yet_come_out_either_way():
    unseen = 1 - 0.025 ** (1 / 1000)
    none = two_level(np.zeros((2, 1000)), bounds=(-1, 1))
    assert none[:3] == pytest.approx((0.0, -unseen, unseen), abs=4e-4)
    one_way = two_level(-np.ones((1, 10)), bounds=(-1, 1))
    assert one_way[:3] == pytest.approx((-1.0, -1.0, 2 * (1 - 0.025**0.1) - 1), abs=0.03)


def test_bounds_mirror():
    values = generator(8).uniform(-1, 0.4, (3, 40))
    estimate, low, high, _ = two_level(values, bounds=(-1, 1))
    mirrored = two_level(-values, bounds=(-1, 1))
    assert (-mirrored.estimate, -mirrored.high, -mirrored.low) == pytest.approx(
        (estimate, low, high)
    )


@pytest.mark.parametrize(
    ("num_levels", "successes"), [(50, range(51)), (1000, (*range(12), 100, 101, 500, 998, 1000))]
)
def test_one_more_catastrophe_lowers_no_bound(num_levels, successes):
    found = np.array([bounded(count, num_levels) for count in successes])
    assert (np.diff(found, axis=0) >= 0).all()
    assert (found[-1] > found[0]).all()


@given(
    hnp.arrays(np.float64, (2, 9), elements=st.floats(-1, 1)),
    st.integers(0, 1),
    st.integers(0, 8),
    st.floats(0, 1),
)
def test_a_value_that_rises_lowers_no_bound(values, replication, level, share):
    risen = values.copy()
    risen[replication, level] += share * (1 - risen[replication, level])
    before, after = (two_level(each, 200, bounds=(-1, 1)) for each in (values, risen))
    assert after.low >= before.low - 1e-12 and after.high >= before.high - 1e-12


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(0, 1, allow_subnormal=False),
    ),
    st.sampled_from((0.5, 0.95, 0.99)),
)
def test_an_interval_contains_its_estimate_and_leaves_no_bounds(values, confidence):
    estimate, low, high, _ = two_level(values, 50, confidence, bounds=(0, 1))
    assert 0 <= low <= estimate <= high <= 1
    assert estimate == pytest.approx(values.mean())


@pytest.mark.parametrize("num_levels", [1, 10, 1000])
def test_a_rate_above_0_is_never_said_to_be_0(num_levels):
    for share in (1.0, 1 / 9):
        values = share * indicators(1, num_levels)
        estimate, _, high, _ = two_level(values, bounds=(0, 1))
        assert 0 < estimate <= high


def coverage(num_levels: int, rates: np.ndarray) -> np.ndarray:
    """How often the interval of a number of successes contains each rate, summed and not drawn."""
    counts = np.arange(num_levels + 1)
    chances = stats.binom.pmf(counts[:, None], num_levels, rates)
    comes = chances.max(axis=1) > 1e-9
    low, high = np.array([bounded(count, num_levels) for count in counts[comes]]).T[..., None]
    return (chances[comes] * ((low <= rates) & (rates <= high))).sum(axis=0)


@pytest.mark.parametrize("num_levels", [10, 200, 1000])
def test_an_interval_covers_rare_and_common_rates_as_often_as_it_says(num_levels):
    named = coverage(num_levels, np.array([0.0005, 0.002, 0.01, 0.1, 0.3, 0.9]))
    assert (named >= 0.945).all()  # 0.95 but for the noise of 2000 samples
    assert coverage(num_levels, np.linspace(0.0003, 0.02, 400)).min() >= 0.945


def test_allowing_for_the_unseen_costs_little_width():
    low, high = bounded(300, 1000)
    assert high - low == pytest.approx(2 * 1.96 * (0.3 * 0.7 / 1000) ** 0.5, rel=0.06)


def test_an_interval_of_shares_covers_a_rare_rate():
    # nine members meet the same levels: on 4 in 1000 each of them dies half of the time
    rng = generator(9)
    shares = (rng.random((300, 9, 1000)) < 0.5 * (rng.random((300, 1, 1000)) < 0.004)).mean(axis=1)
    intervals = [two_level(each[None], 500, bounds=(0, 1)) for each in shares]
    assert np.mean([interval.low <= 0.002 <= interval.high for interval in intervals]) >= 0.95


def test_an_interval_of_a_difference_covers_it():
    # the second dies on 1 in 100 levels; the first on half of those
    rng = generator(10)
    second = rng.random((300, 1, 200)) < 0.01
    first = second & (rng.random((300, 1, 200)) < 0.5)
    intervals = [two_level(one, 500, bounds=(-1, 1)) for one in first.astype(int) - second]
    assert np.mean([interval.low <= -0.005 <= interval.high for interval in intervals]) >= 0.95


def test_two_calls_of_one_shape_are_paired():
    values = generator(11).random((3, 98))
    whole, half = two_level(values, bounds=(0, 1)), two_level(values / 2, bounds=(0, 0.5))
    assert half[:3] == pytest.approx(tuple(bound / 2 for bound in whole[:3]))
    plain, moved = two_level(values), two_level(values + 0.25)
    assert moved[:3] == pytest.approx(tuple(bound + 0.25 for bound in plain[:3]))


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
