"""How good predictions of danger are: which steps come before a catastrophe, ROC, calibration.

A score of danger per step, larger for more dangerous, is judged by how well it tells the steps
shortly before a catastrophe from all others: `labels`, then `roc`, `auc`, `average_precision`.
Probabilities of danger are judged by `calibration`. Intervals are in `roc_bootstrap`; where scores
come from is in `scores`. numpy in, numpy out.

Axes: L levels (one episode each), T steps, N steps of all episodes.
"""

from typing import NamedTuple

import numpy as np


class UndefinedROC(ValueError):
    """There is no positive step, or no negative one: nothing to tell apart."""


class Roc(NamedTuple):
    """What share of either class has a score of at least each threshold; K + 1 points."""

    false_positive_rate: np.ndarray  # float64[K + 1], ascending from 0 to 1
    true_positive_rate: np.ndarray  # float64[K + 1], ascending from 0 to 1
    thresholds: np.ndarray  # float64[K + 1], infinity and then the K distinct scores, descending


class Tally(NamedTuple):
    """The weight of the positive and of the negative steps at each distinct score, descending."""

    scores: np.ndarray  # float64[K]
    positive: np.ndarray  # float64[K]
    negative: np.ndarray  # float64[K]


def valid_steps(num_steps: np.ndarray, max_steps: int) -> np.ndarray:
    """bool[L, max_steps]: which steps were played, up to and including the last one.

    Raises:
      ValueError: there is no episode, or one has no step or more than there is room for.
    """
    num_steps = np.asarray(num_steps)
    if num_steps.ndim != 1 or not num_steps.size:
        raise ValueError(f"num_steps must be [L], L at least 1, got shape {num_steps.shape}")
    if not ((num_steps >= 1) & (num_steps <= max_steps)).all():
        raise ValueError(
            f"num_steps must be from 1 to {max_steps}, got {num_steps.min()} to {num_steps.max()}"
        )
    return np.arange(max_steps) < num_steps[:, None]


def labels(num_steps: np.ndarray, died: np.ndarray, max_steps: int, window: int) -> np.ndarray:
    """bool[L, max_steps]: where the episode ends in a catastrophe within `window` more actions.

    With a window of 1, by this very action: the score of a step is of the observation before its
    action. False after the last step.

    Args:
      num_steps: int[L], 1 to max_steps; the last step's action was the fatal one.
      died: bool[L], whether the episode ended in a catastrophe.
      max_steps: T.
      window: at least 1.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1 step, got {window}")
    valid = valid_steps(num_steps, max_steps)
    died = np.asarray(died, bool)
    if died.shape != (len(valid),):
        raise ValueError(f"died must be [{len(valid)}] as num_steps, got shape {died.shape}")
    within = np.asarray(num_steps)[:, None] - np.arange(max_steps) <= window
    return valid & died[:, None] & within


def roc(score: np.ndarray, positive: np.ndarray, weight: np.ndarray | None = None) -> Roc:
    """The ROC curve of scores [N] for the class `positive` (bool[N]); a point per distinct score.

    Args:
      score: finite.
      weight: float[N], how often each step counts; a weight of 2 is the same as a step repeated.

    Raises:
      UndefinedROC: no positive or no negative step of any weight.
      ValueError: shapes differ, a score is not finite, or a weight is negative or not finite.
    """
    distinct, positives, negatives = tally(score, positive, weight)
    return Roc(*rates(positives, negatives), np.append(np.inf, distinct))


def auc(score: np.ndarray, positive: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The area under `roc`: how likely a positive step scores above a negative one, ties half."""
    _, positives, negatives = tally(score, positive, weight)
    return area(*rates(positives, negatives))


def average_precision(
    score: np.ndarray, positive: np.ndarray, weight: np.ndarray | None = None
) -> float:
    """The mean, over positive steps, of the share of positives among steps scored as high.

    Without interpolation. A random score has the share of positive steps, so it is to be read
    beside that share.
    """
    _, positives, negatives = tally(score, positive, weight)
    hits, misses = positives.cumsum(), negatives.cumsum()
    here = positives > 0.0
    precision = hits[here] / (hits[here] + misses[here])
    return float(positives[here] @ precision / hits[-1])


def tally(score: np.ndarray, positive: np.ndarray, weight: np.ndarray | None = None) -> Tally:
    """All that ROC and average precision depend on, for arguments as of `roc`."""
    score, positive = checked_steps(score, positive)
    weight = np.ones(score.shape) if weight is None else np.asarray(weight, np.float64)
    if weight.shape != score.shape or not (np.isfinite(weight) & (weight >= 0.0)).all():
        raise ValueError("weights must be finite, at least 0, and one per score")
    counted = weight > 0.0
    distinct, place = np.unique(-score[counted], return_inverse=True)
    weight, positive = weight[counted], positive[counted]
    positives = np.bincount(place, weight * positive, len(distinct))
    negatives = np.bincount(place, weight * ~positive, len(distinct))
    require_both(positives.sum(), negatives.sum())
    return Tally(-distinct, positives, negatives)


def checked_steps(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores float64[N] and labels bool[N], once they are known to be that."""
    score, positive = np.asarray(score, np.float64), np.asarray(positive, bool)
    if score.ndim != 1 or score.shape != positive.shape:
        raise ValueError(
            f"scores and labels must be [N], one label per score, got shapes {score.shape} and "
            f"{positive.shape}"
        )
    if not np.isfinite(score).all():
        raise ValueError("scores must be finite, got NaN or infinity")
    return score, positive


def require_both(positives: float, negatives: float) -> None:
    """Raises UndefinedROC unless there are steps (their number, or weight) of both classes."""
    if not positives > 0 or not negatives > 0:
        raise UndefinedROC(
            f"a ROC needs positive and negative steps, got {positives:g} and {negatives:g}"
        )


def rates(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true-positive rate, float64[K + 1], of the weights at K descending scores."""
    alarms, hits = (np.append(0.0, part.cumsum()) for part in (negative, positive))
    return alarms / alarms[-1], hits / hits[-1]


def area(false_positive_rate: np.ndarray, true_positive_rate: np.ndarray) -> float:
    """The area under a curve that is straight between its points."""
    heights = (true_positive_rate[1:] + true_positive_rate[:-1]) / 2.0
    return float(np.diff(false_positive_rate) @ heights)


class Calibration(NamedTuple):
    """Predicted probabilities against what happened, over equal-width bins of probability."""

    num_events: int  # catastrophes among the predictions
    num_predictions: int
    brier: float  # mean squared error, 0 is best (Brier 1950)
    expected_error: float  # expected calibration error (Naeini et al. 2015), 0 is best
    sensitivity: float | None  # share of events with a probability above the threshold
    false_alarms: float | None  # share of other predictions above the threshold
    counts: tuple[int, ...]  # predictions per bin
    mean_probability: tuple[float | None, ...]  # per bin; None where the bin is empty
    event_rate: tuple[float | None, ...]  # per bin; None where the bin is empty


def calibration(
    probability: np.ndarray, happened: np.ndarray, threshold: float = 0.5, num_bins: int = 10
) -> Calibration:
    """The calibration of probabilities [N] of events (bool[N]).

    Raises:
      ValueError: there is no prediction, the shapes differ, or a probability is outside 0 to 1.
    """
    probability, happened = np.asarray(probability, float), np.asarray(happened, bool)
    if probability.shape != happened.shape or probability.size == 0:
        raise ValueError(
            f"probabilities and events must be equally many and at least one, got shapes "
            f"{probability.shape} and {happened.shape}"
        )
    if not ((probability >= 0.0) & (probability <= 1.0)).all():
        raise ValueError("probabilities must be from 0 to 1")
    bins = np.minimum((probability * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    sums = np.bincount(bins, probability, num_bins)
    events = np.bincount(bins, happened, num_bins)
    alarm = probability > threshold
    return Calibration(
        num_events=int(happened.sum()),
        num_predictions=int(happened.size),
        brier=float(((probability - happened) ** 2).mean()),
        expected_error=float(np.abs(sums - events).sum() / happened.size),
        sensitivity=_mean(alarm[happened]),
        false_alarms=_mean(alarm[~happened]),
        counts=tuple(int(count) for count in counts),
        mean_probability=tuple(
            float(total / count) if count else None
            for total, count in zip(sums, counts, strict=True)
        ),
        event_rate=tuple(
            float(total / count) if count else None
            for total, count in zip(events, counts, strict=True)
        ),
    )


def _mean(flags: np.ndarray) -> float | None:
    return float(flags.mean()) if flags.size else None
