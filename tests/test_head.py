"""The learned score, with scikit-learn as the judge."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hotoven.evaluation.head import FEATURES, Head, fit, member_features
from hotoven.evaluation.prediction import auc


def sample(seed: int, size: int = 2000, rate: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, 4] of very different scales, two of them almost the same, and rare labels."""
    rng = np.random.default_rng(seed)
    label = rng.random(size) < rate
    features = rng.normal(size=(size, 4)) * (1.0, 100.0, 0.01, 1.0) + (0.0, 500.0, 0.0, -3.0)
    features[:, 0] += label
    features[:, 3] = features[:, 0] + 0.01 * features[:, 3]
    return features, label


@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_scikit_learn(seed, l2):
    features, label = sample(seed)
    head = fit(features, label, l2)
    scaler = StandardScaler().fit(features)
    oracle = LogisticRegression(
        C=1 / l2, class_weight="balanced", solver="newton-cholesky", tol=1e-10
    ).fit(scaler.transform(features), label)
    assert head.weight == pytest.approx(oracle.coef_[0], rel=1e-6, abs=1e-8)
    assert head.intercept == pytest.approx(oracle.intercept_[0], rel=1e-6, abs=1e-8)
    unseen, _ = sample(seed + 100)
    expected = oracle.decision_function(scaler.transform(unseen))
    np.testing.assert_allclose(head.score(unseen), expected, rtol=1e-6, atol=1e-8)


def test_a_rare_class_weighs_as_much_as_the_rest():
    # one feature that tells nothing: the log-odds of a balanced sample are 0, not log(0.01)
    head = fit(np.tile([[-1.0], [1.0]], (100, 1)), np.arange(200) < 2)
    assert head.weight == pytest.approx((0.0,), abs=1e-9)
    assert head.intercept == pytest.approx(0.0, abs=1e-9)


def test_perfect_separation_has_a_minimum_too():
    features = np.linspace(-1, 1, 40)[:, None]
    head = fit(features, features[:, 0] > 0.5)
    assert np.isfinite(head.weight).all()
    assert auc(head.score(features), features[:, 0] > 0.5) == 1.0


@pytest.mark.parametrize("constant", [0.1, 2.0, 0.0])
def test_a_constant_feature_tells_nothing(constant):
    """The mean of 0.1s is not 0.1 to the last bit: what is left must not count as a deviation."""
    features, label = sample(7)
    padded = np.column_stack((features, np.full(len(label), constant)))
    head = fit(padded, label)
    assert head.weight[-1] == pytest.approx(0.0, abs=1e-9)
    assert head.weight[:-1] == pytest.approx(fit(features, label).weight, rel=1e-6)
    assert head.scale[-1] == 1.0


def test_a_minimum_that_was_not_found_is_said(monkeypatch):
    monkeypatch.setattr("hotoven.evaluation.head._MAX_ITERATIONS", 2)
    with pytest.raises(ArithmeticError, match="within 2 steps"):
        fit(*sample(8))


def test_a_head_survives_json_to_the_last_bit():
    features, label = sample(5)
    head = fit(features, label)
    again = Head.from_json(json.loads(json.dumps(head.to_json())))
    assert again == head
    np.testing.assert_array_equal(again.score(features), head.score(features))


def test_a_step_is_scored_alone_as_among_others():
    features, label = sample(6, size=60, rate=0.3)
    head = fit(features, label)
    stacked = head.score(features.reshape(6, 10, 4))
    assert stacked.shape == (6, 10)
    assert head.score(features[7]) == pytest.approx(stacked[0, 7], rel=1e-12)


def test_features_are_those_named():
    values = np.array([1.0, 3.0])
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5]])  # mean 3/4, 1/4; agree with 1/2
    found = dict(zip(FEATURES, member_features(values, probabilities), strict=True))
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert found == pytest.approx(
        {
            **{"mean": 2.0, "std": 1.0, "lowest": 1.0, "highest": 3.0},
            **{"entropy": entropy, "margin": -0.5, "disagreement": 0.5},
        }
    )


def test_features_do_not_see_what_comes_after_their_step():
    def steps(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        return rng.normal(size=(3, 8, 5)), rng.dirichlet(np.ones(4), (3, 8, 5))

    one, other = steps(0), steps(1)
    for ours, theirs in zip(one, other, strict=True):
        theirs[:, :4] = ours[:, :4]
    found, changed = member_features(*one), member_features(*other)
    np.testing.assert_array_equal(found[:, :4], changed[:, :4])
    assert (found[:, 4:] != changed[:, 4:]).all()


@pytest.mark.parametrize(
    ("features", "label", "l2", "message"),
    [
        (np.ones(3), np.array([0, 1, 1]), 1.0, r"\[N, F\]"),
        (np.ones((3, 1)), np.array([0, 1]), 1.0, r"shapes \(3, 1\) and \(2,\)"),
        (np.full((2, 1), np.nan), np.array([0, 1]), 1.0, "finite"),
        (np.ones((2, 1)), np.array([1, 1]), 1.0, "both classes"),
        (np.ones((2, 1)), np.array([0, 0]), 1.0, "got 0 positive of 2"),
        (np.ones((2, 1)), np.array([0, 1]), 0.0, "l2 must be above 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features, label, l2, message):
    with pytest.raises(ValueError, match=message):
        fit(features, label, l2)


def test_a_stored_head_that_is_not_one_is_refused():
    stored = {"mean": [0.0], "scale": [1.0], "weight": [1.0], "intercept": 0.0}
    with pytest.raises(ValueError, match="must have the fields"):
        Head.from_json({"weight": [1.0]})
    with pytest.raises(ValueError, match="equally many, got 1, 1 and 2"):
        Head.from_json(stored | {"weight": [1.0, 2.0]})
