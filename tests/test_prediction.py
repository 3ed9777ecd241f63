"""Labels that cannot look too far ahead; ROC and calibration, with scikit-learn as the judge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    roc_auc_score,
    roc_curve,
)

from hotoven.evaluation.prediction import (
    UndefinedROC,
    auc,
    average_precision,
    calibration,
    labels,
    roc,
    valid_steps,
)
from hotoven.evaluation.scores import oracle


def shown(flags: np.ndarray) -> list[str]:
    return ["".join(".x"[flag] for flag in row.astype(int)) for row in flags]


def test_a_window_of_one_is_the_fatal_action_alone():
    found = labels(np.array([4, 4, 1]), np.array([True, False, True]), max_steps=5, window=1)
    assert shown(found) == ["...x.", ".....", "x...."]


def test_a_wider_window_reaches_back_and_stops_at_the_start():
    found = labels(np.array([4, 4, 1]), np.array([True, False, True]), max_steps=5, window=3)
    assert shown(found) == [".xxx.", ".....", "x...."]


def test_the_last_step_is_valid_and_none_after_it():
    assert shown(valid_steps(np.array([1, 3]), max_steps=3)) == ["x..", "xxx"]


@given(st.data())
def test_a_label_does_not_see_past_its_window(data):
    """What comes after the next `window` actions is exchanged; the label stays."""
    max_steps, window = data.draw(st.integers(2, 12)), data.draw(st.integers(1, 6))
    step = data.draw(st.integers(0, max_steps - 1))
    beyond = st.tuples(st.integers(step + window + 1, max_steps), st.booleans())
    # an episode that ends within the window is the same in both; one that does not ends anyhow
    within = st.tuples(st.integers(1, min(step + window, max_steps)), st.booleans())
    futures = [(end, end) for end in data.draw(st.lists(within, min_size=1, max_size=4))]
    if step + window + 1 <= max_steps:
        futures += data.draw(st.lists(st.tuples(beyond, beyond), max_size=4))
    one, other = (
        labels(np.array(steps), np.array(died), max_steps, window)[:, step]
        for steps, died in (zip(*side, strict=True) for side in zip(*futures, strict=True))
    )
    np.testing.assert_array_equal(one, other)
    ends = np.array([first for first, _ in futures])
    in_window = (ends[:, 0] > step) & (ends[:, 0] <= step + window)
    np.testing.assert_array_equal(one, in_window & (ends[:, 1] == 1))


@pytest.mark.parametrize(
    ("num_steps", "died", "window", "message"),
    [
        ([0], [True], 1, "from 1 to 3, got 0 to 0"),
        ([4, 1], [True, True], 1, "from 1 to 3, got 1 to 4"),
        ([], [], 1, "L at least 1"),
        ([2], [True], 0, "window must be at least 1"),
        ([2], [True, False], 1, r"died must be \[1\]"),
    ],
)
def test_what_is_no_episode_is_refused(num_steps, died, window, message):
    with pytest.raises(ValueError, match=message):
        labels(np.array(num_steps), np.array(died), 3, window)


def scored(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [N] that know something of rare labels, with weights of which some are 0."""
    rng = np.random.default_rng(seed)
    positive = rng.random(400) < 0.1
    score = rng.normal(size=400) + positive
    weight = rng.gamma(1.0, size=400) * (rng.random(400) < 0.9)
    return (np.round(score) if ties else score), positive, weight


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_curve_and_its_sums_agree_with_scikit_learn(seed, ties, weighted):
    score, positive, weight = scored(seed, ties)
    used = weight if weighted else None
    false, true, thresholds = roc_curve(
        positive, score, sample_weight=used, drop_intermediate=False
    )
    found = roc(score, positive, used)
    np.testing.assert_allclose(found.false_positive_rate, false, atol=1e-12)
    np.testing.assert_allclose(found.true_positive_rate, true, atol=1e-12)
    np.testing.assert_array_equal(found.thresholds, thresholds)
    expected = roc_auc_score(positive, score, sample_weight=used)
    assert auc(score, positive, used) == pytest.approx(expected, rel=1e-12)
    expected = average_precision_score(positive, score, sample_weight=used)
    assert average_precision(score, positive, used) == pytest.approx(expected, rel=1e-12)


def test_a_curve_worked_out_by_hand():
    # 3 is positive; at 2 one of each class; 1 is negative
    found = roc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([0, 1, 0, 1]))
    assert found.false_positive_rate.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert found.true_positive_rate.tolist() == [0.0, 0.5, 1.0, 1.0]
    assert found.thresholds.tolist() == [np.inf, 3.0, 2.0, 1.0]
    assert auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([0, 1, 0, 1])) == 3.5 / 4
    precision = average_precision(np.array([1.0, 2.0, 2.0, 3.0]), np.array([0, 1, 0, 1]))
    assert precision == pytest.approx((1 + 2 / 3) / 2)


def test_a_score_of_one_value_is_a_coin():
    positive = np.arange(10) < 2
    assert auc(np.zeros(10), positive) == 0.5
    assert average_precision(np.zeros(10), positive) == 0.2
    assert len(roc(np.zeros(10), positive).thresholds) == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=1, max_size=12
    )
)
def test_a_weight_is_the_same_as_a_step_repeated(steps):
    score, positive, weight = (np.array(column) for column in zip(*steps, strict=True))
    positive = positive.astype(bool)
    rows = np.repeat(np.arange(len(steps)), weight)
    try:
        repeated = roc(score[rows], positive[rows])
    except UndefinedROC:
        with pytest.raises(UndefinedROC):
            roc(score, positive, weight)
        return
    for found, expected in zip(roc(score, positive, weight), repeated, strict=True):
        np.testing.assert_allclose(found, expected)
    for measure in (auc, average_precision):
        expected = measure(score[rows], positive[rows])
        assert measure(score, positive, weight) == pytest.approx(expected)


@pytest.mark.parametrize("window", [1, 3, 10])
def test_the_oracle_orders_every_pair_right(window):
    rng = np.random.default_rng(window)
    num_steps, died = rng.integers(1, 31, 50), rng.random(50) < 0.4
    valid = valid_steps(num_steps, 30)
    positive = labels(num_steps, died, 30, window)[valid]
    score = oracle(num_steps, died, 30)[valid]
    assert auc(score, positive) == 1.0
    assert average_precision(score, positive) == 1.0


@pytest.mark.parametrize("measure", [roc, auc, average_precision])
@pytest.mark.parametrize("positive", [[0, 0], [1, 1]])
def test_one_class_alone_has_no_roc(measure, positive):
    with pytest.raises(UndefinedROC, match="positive and negative steps"):
        measure(np.array([0.1, 0.2]), np.array(positive))
    with pytest.raises(UndefinedROC):  # there is another, which weighs nothing
        measure(np.arange(3.0), np.array([*positive, 1 - positive[0]]), np.array([1, 1, 0]))


@pytest.mark.parametrize(
    ("score", "positive", "weight", "message"),
    [
        ([1.0], [0, 1], None, "one label per score"),
        ([[1.0, 2.0]], [[0, 1]], None, r"\[N\]"),
        ([np.nan, 1.0], [0, 1], None, "finite"),
        ([-np.inf, 1.0], [0, 1], None, "finite"),
        ([0.0, 1.0], [0, 1], [1.0, -1.0], "at least 0"),
        ([0.0, 1.0], [0, 1], [1.0], "one per score"),
    ],
)
def test_what_is_not_a_score_is_refused(score, positive, weight, message):
    weight = None if weight is None else np.array(weight)
    with pytest.raises(ValueError, match=message):
        roc(np.array(score), np.array(positive), weight)


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
