"""A learned score of danger: logistic regression on what the members of an ensemble say.

Fitted on levels that are neither the agents' training levels nor the test levels. Its score is the
log-odds of a sample in which catastrophes are as frequent as the rest: it orders steps, and is no
probability of a catastrophe. numpy in, numpy out.

Axes: N steps, F features, M members, A actions.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, final

import numpy as np

from hotoven.evaluation import scores

FEATURES: Final = ("mean", "std", "lowest", "highest", "entropy", "margin", "disagreement")

_MAX_ITERATIONS: Final = 100
_TOLERANCE: Final = 1e-10  # of the gradient, per unit of weight


def member_features(values: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """float64[..., F]: FEATURES of members' values [..., M] and action probabilities [..., M, A].

    An episode's steps [L, T] become rows by a mask: `member_features(...)[valid]`.
    """
    values = np.asarray(values, np.float64)
    columns = (
        scores.mean_value(values),
        scores.std_value(values),
        values.min(axis=-1),
        values.max(axis=-1),
        scores.entropy(probabilities),
        scores.margin(probabilities),
        scores.disagreement(probabilities),
    )
    return np.stack(columns, axis=-1)


@final
@dataclass(frozen=True)
class Head:
    """A fitted head: one number for each feature in every tuple."""

    mean: tuple[float, ...]  # of the features it was fitted on
    scale: tuple[float, ...]  # their standard deviations; 1 where a feature was constant
    weight: tuple[float, ...]  # of the standardised features
    intercept: float

    def score(self, features: np.ndarray) -> np.ndarray:
        """float64[...]: the score of features [..., F]; larger is more dangerous."""
        standardised = (np.asarray(features, np.float64) - self.mean) / self.scale
        return standardised @ np.array(self.weight) + self.intercept

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`; `from_json` gives the same head to the last bit."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Head":
        """The head that `to_json` gave.

        Raises:
          ValueError: a field is missing or unknown, or the fields are not of one length.
        """
        fields = ("mean", "scale", "weight", "intercept")
        if set(stored) != set(fields):
            raise ValueError(f"a head must have the fields {fields}, got {tuple(stored)}")
        mean, scale, weight = (tuple(float(x) for x in stored[name]) for name in fields[:3])
        if not len(mean) == len(scale) == len(weight):
            raise ValueError(
                f"a head's mean, scale and weight must be equally many, got {len(mean)}, "
                f"{len(scale)} and {len(weight)}"
            )
        return cls(mean, scale, weight, float(stored["intercept"]))


def fit(features: np.ndarray, label: np.ndarray, l2: float = 1.0) -> Head:
    """The head that tells the positive steps of `label` (bool[N]) from the others.

    Features [N, F] are standardised. Both classes weigh N / 2 in the sum of logistic losses, to
    which l2 / 2 times the squared weights are added; the intercept is free. Newton's method
    from zero. The same problem as scikit-learn's `LogisticRegression(C=1 / l2,
    class_weight="balanced")`.

    Raises:
      ArithmeticError: no minimum was found; not seen so far.
      ValueError: features are not finite or not [N, F], labels are not [N] of both classes, or l2
        is not above 0.
    """
    features, label = np.asarray(features, np.float64), np.asarray(label, bool)
    if features.ndim != 2 or label.shape != features.shape[:1]:
        raise ValueError(
            f"features must be [N, F] and labels [N], got shapes {features.shape} and {label.shape}"
        )
    if not np.isfinite(features).all():
        raise ValueError("features must be finite, got NaN or infinity")
    if label.all() or not label.any():
        raise ValueError(f"both classes must occur, got {label.sum()} positive of {label.size}")
    if not l2 > 0.0:
        raise ValueError(f"l2 must be above 0, got {l2}")

    mean, scale = features.mean(axis=0), features.std(axis=0)
    # a constant has a standard deviation of 0 but for rounding
    scale = np.where(scale > 1e-12 * np.abs(mean).clip(1e-300), scale, 1.0)
    design = np.column_stack(((features - mean) / scale, np.ones(len(label))))
    share = np.where(label, label.mean(), 1.0 - label.mean())
    weights = _newton(design, np.where(label, 1.0, -1.0), 0.5 / share, l2)
    *slopes, intercept = weights.tolist()
    return Head(tuple(mean.tolist()), tuple(scale.tolist()), tuple(slopes), intercept)


def _newton(design: np.ndarray, sign: np.ndarray, importance: np.ndarray, l2: float) -> np.ndarray:
    """float64[F + 1], the minimum: weights of the columns of `design`, the last one the intercept.

    Args:
      sign: [N], 1 for positive, -1 for negative.
      importance: [N], how much each row counts.
    """
    penalty = np.full(design.shape[1], l2)
    penalty[-1] = 0.0
    weights = np.zeros(design.shape[1])

    for _ in range(_MAX_ITERATIONS):
        wrong = _sigmoid(-sign * (design @ weights))  # probability given to the other class
        gradient = penalty * weights - design.T @ (importance * sign * wrong)
        if np.abs(gradient).max() <= _TOLERANCE * len(sign):
            return weights
        curvature = importance * wrong * (1.0 - wrong)
        hessian = (design.T * curvature) @ design + np.diag(penalty)
        weights = weights - np.linalg.solve(hessian, gradient)
    raise ArithmeticError(f"no minimum within {_MAX_ITERATIONS} steps of Newton's method")


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -x))
