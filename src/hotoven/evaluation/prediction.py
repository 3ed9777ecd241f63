"""How good predicted probabilities of danger are. numpy in, numpy out."""

from typing import NamedTuple

import numpy as np


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
