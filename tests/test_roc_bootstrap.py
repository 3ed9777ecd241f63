"""ROC curves under resampling, judged by recomputing every sample and by simulated truth."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from hotoven.evaluation import roc_bootstrap, scores
from hotoven.evaluation.prediction import (
    UndefinedROC,
    auc,
    average_precision,
    labels,
    valid_steps,
)
from hotoven.evaluation.roc_bootstrap import (
    GRID,
    Samples,
    auc_samples,
    difference,
    interval,
    precision_samples,
    step_bootstrap,
)


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def rollout(seed: int, num_levels: int = 30, max_steps: int = 12, rate: float = 0.3, window=4):
    """Labels and valid steps [L, T] of episodes of which some die."""
    rng = generator(seed)
    num_steps, died = rng.integers(1, max_steps + 1, num_levels), rng.random(num_levels) < rate
    return labels(num_steps, died, max_steps, window), valid_steps(num_steps, max_steps)


def noisy(seed: int, positive: np.ndarray, shift: float = 1.0, ties: bool = False) -> np.ndarray:
    score = generator(seed).normal(size=positive.shape) + shift * positive
    return np.round(score) if ties else score


def recomputed(measure, score, positive, valid, num_samples, seed) -> list[float]:
    """The measure of every sample, of its levels' steps repeated one by one."""
    found = []
    for counts in roc_bootstrap._draws(len(score), num_samples, seed)[1:].astype(int):
        levels = np.repeat(np.arange(len(score)), counts)
        here, labelled = valid[levels], positive[levels]
        try:
            found.append(measure(score[levels][here], labelled[here]))
        except UndefinedROC:
            found.append(np.nan)
    return found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_every_sample_is_what_recomputing_it_gives(seed, ties):
    positive, valid = rollout(seed)
    score = noisy(seed, positive, ties=ties)
    for samples, measure in ((auc_samples, auc), (precision_samples, average_precision)):
        found = samples(score, positive, valid, 40, seed)
        expected = recomputed(measure, score, positive, valid, 40, seed)
        np.testing.assert_allclose(found.values, expected, rtol=1e-12)
        assert found.estimate == pytest.approx(measure(score[valid], positive[valid]), rel=1e-12)
        assert found.num_levels == 30
        assert found.num_positive_levels == positive.any(axis=1).sum()


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3))
def test_small_and_odd_samples_are_what_recomputing_them_gives(seed, num_levels, max_steps, window):
    positive, valid = rollout(seed, num_levels, max_steps, rate=0.6, window=window)
    score = generator(seed + 1).integers(0, 3, positive.shape).astype(float)
    for samples, measure in ((auc_samples, auc), (precision_samples, average_precision)):
        try:
            expected = measure(score[valid], positive[valid])
        except UndefinedROC:
            with pytest.raises(UndefinedROC):
                samples(score, positive, valid, 10, seed)
            continue
        found = samples(score, positive, valid, 10, seed)
        assert found.estimate == pytest.approx(expected)
        expected = recomputed(measure, score, positive, valid, 10, seed)
        np.testing.assert_allclose(found.values, expected, rtol=1e-12)


def test_a_rollout_of_thousands_of_steps_is_counted_to_the_last_one():
    positive, valid = rollout(14, num_levels=300, max_steps=60)
    score = noisy(14, positive)
    found = precision_samples(score, positive, valid, 5)
    expected = recomputed(average_precision, score, positive, valid, 5, 0)
    np.testing.assert_allclose(found.values, expected, rtol=1e-12)


def test_sums_too_large_for_float32_are_exact_too(monkeypatch):
    positive, valid = rollout(1)
    score = noisy(1, positive)
    small = precision_samples(score, positive, valid, 20)
    monkeypatch.setattr(roc_bootstrap, "_EXACT", 0)
    monkeypatch.setattr(roc_bootstrap, "_BLOCK", 1)  # and the blocks of samples do not matter
    np.testing.assert_array_equal(
        small.values, precision_samples(score, positive, valid, 20).values
    )


def test_what_stands_after_the_last_step_means_nothing():
    positive, valid = rollout(2)
    score = noisy(2, positive)
    for samples in (auc_samples, precision_samples):
        clean = samples(score, positive, valid, 20)
        other = samples(np.where(valid, score, np.nan), positive | ~valid, valid, 20)
        np.testing.assert_array_equal(clean.values, other.values)


def test_a_random_score_has_an_auc_of_a_half_within_its_interval():
    covered, precise = [], []
    for seed in range(200):
        positive, valid = rollout(seed, num_levels=100)
        random = scores.random(positive.shape, seed=seed)
        found = interval(auc_samples(random, positive, valid, 400, seed))
        covered.append(found.low <= 0.5 <= found.high)
        precise.append(found.high - found.low < 0.25)
    assert 0.9 <= np.mean(covered) <= 0.99
    assert np.mean(precise) > 0.95


def test_the_oracle_has_an_auc_of_one_in_every_sample():
    rng = generator(3)
    num_steps, died = rng.integers(1, 13, 40), rng.random(40) < 0.3
    positive, valid = labels(num_steps, died, 12, 4), valid_steps(num_steps, 12)
    oracle = scores.oracle(num_steps, died, 12)
    for samples in (auc_samples, precision_samples):
        found = interval(samples(oracle, positive, valid))
        assert (found.estimate, found.low, found.high) == (1.0, 1.0, 1.0)


def alike(seed: int, num_levels: int = 120, max_steps: int = 10) -> tuple[np.ndarray, ...]:
    """Score, labels and valid steps [L, T]; a level's steps share most of their score.

    A third of the levels die at the last step. A positive step scores 1 higher; a level adds
    N(0, 1) to all of its steps, and each step N(0, 0.2).
    """
    rng = generator(seed)
    num_steps = np.full(num_levels, max_steps)
    positive = labels(num_steps, rng.random(num_levels) < 1 / 3, max_steps, window=5)
    score = positive + rng.normal(size=(num_levels, 1)) + rng.normal(0, 0.2, positive.shape)
    return score, positive, np.ones_like(positive)


# steps of different levels differ by N(1, 2 * (1 + 0.04)); pairs within a level are one in 100
TRUE_AUC = stats.norm.cdf(1 / np.sqrt(2 * 1.04))


def test_an_interval_over_levels_covers_the_truth_and_one_over_steps_does_not():
    by_level, by_step = [], []
    for seed in range(200):
        score, positive, valid = alike(seed)
        found = interval(auc_samples(score, positive, valid, 400, seed))
        by_level.append(found.low <= TRUE_AUC <= found.high)
        steps = step_bootstrap(score[valid], positive[valid], 40, seed)
        by_step.append(abs(steps.auc_mean - TRUE_AUC) <= 1.96 * steps.auc_std)
    assert 0.90 <= np.mean(by_level) <= 0.99
    assert np.mean(by_step) < 0.75


def test_a_difference_of_a_score_to_itself_is_nothing():
    positive, valid = rollout(4)
    samples = auc_samples(noisy(4, positive), positive, valid)
    assert interval(difference(samples, samples))[:3] == (0.0, 0.0, 0.0)


def test_a_paired_difference_is_surer_than_two_intervals():
    """Two scores with the same luck: a level that is hard for one is hard for the other."""
    score, positive, valid = alike(5)
    better = score + 0.3 * positive
    first, second = (auc_samples(s, positive, valid) for s in (better, score))
    paired = interval(difference(first, second))
    assert paired.low > 0.0
    assert interval(second).high > first.estimate
    assert paired.estimate == pytest.approx(first.estimate - second.estimate)
    unpaired = first.values - auc_samples(score, positive, valid, seed=1).values
    assert np.std(first.values - second.values) < 0.3 * np.std(unpaired)


def test_two_rollouts_on_the_same_levels_are_paired():
    """The difference of every sample is that of the same levels of both rollouts."""
    (one, valid_one), (other, valid_other) = rollout(6), rollout(7)
    score_one, score_other = noisy(6, one), noisy(7, other)
    found = difference(
        auc_samples(score_one, one, valid_one, 30), auc_samples(score_other, other, valid_other, 30)
    )
    expected = np.subtract(
        recomputed(auc, score_one, one, valid_one, 30, 0),
        recomputed(auc, score_other, other, valid_other, 30, 0),
    )
    np.testing.assert_allclose(found.values, expected, atol=1e-12)
    assert found.num_positive_levels == min(one.any(axis=1).sum(), other.any(axis=1).sum())


def test_a_difference_of_differences_is_paired_as_well():
    positive, valid = rollout(8)
    a, b, c, d = (auc_samples(noisy(seed, positive), positive, valid, 50) for seed in range(4))
    found = difference(difference(a, b), difference(c, d))
    np.testing.assert_allclose(found.values, a.values - b.values - c.values + d.values)


@pytest.mark.parametrize(
    ("num_levels", "num_samples", "seed"), [(29, 20, 0), (30, 21, 0), (30, 20, 1)]
)
def test_samples_of_different_draws_are_not_paired(num_levels, num_samples, seed):
    positive, valid = rollout(9)
    score = noisy(9, positive)
    first = auc_samples(score, positive, valid, 20)
    other = [part[:num_levels] for part in (score, positive, valid)]
    with pytest.raises(ValueError, match="one seed"):
        difference(first, auc_samples(*other, num_samples, seed))


def test_samples_without_a_positive_step_are_left_out_and_counted():
    # one of three levels has the positive step: it is not drawn 8 times in 27
    positive = np.array([[False, True], [False, False], [False, False]])
    score = np.array([[0.0, 2.0], [1.0, 3.0], [1.0, 1.0]])
    for samples in (auc_samples, precision_samples):
        drawn = samples(score, positive, np.ones_like(positive))
        found = interval(drawn)
        assert found.num_undefined + found.num_samples == 2000
        assert found.num_undefined / 2000 == pytest.approx(8 / 27, abs=0.04)
        assert np.isnan(drawn.values).sum() == found.num_undefined
        assert found.num_positive_levels == 1
        json.dumps(found._asdict(), allow_nan=False)


def test_no_sample_with_a_roc_is_said():
    with pytest.raises(UndefinedROC, match="none of 2 samples"):
        interval(Samples(0.7, np.array([np.nan, np.nan]), 3, 1, 0))


def test_an_interval_contains_its_estimate():
    found = interval(Samples(0.9, np.array([0.2, 0.3]), 3, 1, 0))
    assert (found.low, found.high) == (pytest.approx(0.2, abs=0.01), 0.9)
    assert interval(Samples(0.1, np.array([0.2, 0.3]), 3, 1, 0)).low == 0.1


def test_the_interval_is_of_the_confidence_asked_for():
    samples = Samples(0.5, np.linspace(0.0, 1.0, 1001), 10, 5, 0)
    assert interval(samples)[:3] == pytest.approx((0.5, 0.025, 0.975))
    assert interval(samples, confidence=0.5)[:3] == pytest.approx((0.5, 0.25, 0.75))
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        interval(samples, confidence=1.0)


def height(score: np.ndarray, positive: np.ndarray, rate: float) -> float:
    """Of scikit-learn's curve at one false-positive rate: its upper end there."""
    false, true, _ = roc_curve(positive, score)
    at = np.flatnonzero(false <= rate)[-1]
    if at == len(false) - 1:
        return float(true[at])
    share = (rate - false[at]) / (false[at + 1] - false[at])
    return float(true[at] + share * (true[at + 1] - true[at]))


@pytest.mark.parametrize("ties", [False, True])
def test_the_figure_of_the_post_is_what_scikit_learn_gives_for_the_same_draws(ties):
    positive = generator(10).random(150) < 0.1
    score = noisy(10, positive, ties=ties)
    found = step_bootstrap(score, positive, num_samples=10, seed=3)
    rng = generator(3)
    draws = [rng.integers(0, 150, 150) for _ in range(10)]
    areas = [roc_auc_score(positive[rows], score[rows]) for rows in draws]
    assert found.auc_mean == pytest.approx(np.mean(areas), rel=1e-12)
    assert found.auc_std == pytest.approx(np.std(areas, ddof=1), rel=1e-9)
    curves = [[height(score[rows], positive[rows], rate) for rate in GRID] for rows in draws]
    np.testing.assert_allclose(found.mean, np.mean(curves, axis=0), atol=1e-9)
    np.testing.assert_allclose(found.std, np.std(curves, axis=0, ddof=1), atol=1e-9)
    np.testing.assert_array_equal(found.false_positive_rate, GRID)
    assert (found.num_samples, found.num_undefined) == (10, 0)


def test_a_sample_of_steps_without_a_positive_one_is_left_out_and_counted():
    found = step_bootstrap(np.arange(10.0), np.arange(10) == 9, num_samples=1000)
    assert found.num_samples + found.num_undefined == 1000
    assert found.num_undefined / 1000 == pytest.approx(0.9**10, abs=0.05)
    assert (found.auc_mean, found.auc_std) == (1.0, 0.0)


def test_what_has_no_roc_is_refused():
    positive, valid = rollout(11)
    score = noisy(11, positive)
    for nothing in (np.zeros_like(positive), np.ones_like(positive)):
        for samples in (auc_samples, precision_samples):
            with pytest.raises(UndefinedROC, match="positive and negative"):
                samples(score, nothing, valid)
        with pytest.raises(UndefinedROC, match="positive and negative"):
            step_bootstrap(score[valid], nothing[valid])
    with pytest.raises(UndefinedROC, match="two samples with a ROC, got 1"):
        step_bootstrap(score[valid], positive[valid], num_samples=1)


@pytest.mark.parametrize("samples", [auc_samples, precision_samples])
def test_what_is_not_a_rollout_is_refused(samples):
    positive, valid = rollout(12)
    score = noisy(12, positive)
    with pytest.raises(ValueError, match=r"must be \[L, T\]"):
        samples(score, positive[1:], valid)
    with pytest.raises(ValueError, match="valid scores must be finite"):
        samples(np.where(positive, np.nan, score), positive, valid)
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        samples(score, positive, valid, 0)


def test_average_precision_of_the_levels_agrees_with_scikit_learn():
    positive, valid = rollout(13)
    score = noisy(13, positive, ties=True)
    expected = average_precision_score(positive[valid], score[valid])
    assert precision_samples(score, positive, valid, 2).estimate == pytest.approx(expected)
