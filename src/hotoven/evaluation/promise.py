"""A threshold with a promise: at most a named share of catastrophes comes unannounced.

The threshold is chosen on episodes of held-out levels that ended in a catastrophe. Each is one
number, its peak: the highest score up to `min_lead` steps before the death. It is announced where
the peak is above the threshold, so a threshold leaves unannounced the peaks at or below it.

What the promises rest on: the catastrophes to come are exchangeable with those that the threshold
was chosen on. The same distribution of levels, the same agent, the same way of acting up to the
alarm, the same score and min_lead, all settled before these episodes were seen. Under a shift, to
other levels, another agent or another mode, nothing is promised. What a helper makes of an alarm
is no part of it, nor is how many alarms there are where nothing dies. numpy in, numbers out.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hotoven.evaluation.alarms import checked_episodes
from hotoven.evaluation.bootstrap import CONFIDENCE, wilson


class Promise(NamedTuple):
    """A threshold, and what it was chosen on."""

    threshold: float  # alarm where the score is above it
    vacuous: bool  # the threshold is minus infinity: alarm always, since no other can be promised
    num_catastrophes: int  # that it was chosen on
    num_unannounced: int  # of those, at this threshold
    num_too_early: int  # of those, dead before min_lead steps: no threshold announces them


class Measured(NamedTuple):
    """The share of catastrophes unannounced at a threshold, with Wilson's interval."""

    share: float
    low: float
    high: float
    num_unannounced: int
    num_catastrophes: int


def catastrophe_peaks(
    score: np.ndarray, num_steps: np.ndarray, died: np.ndarray, min_lead: int = 0
) -> np.ndarray:
    """float[n]: the peaks of the n episodes that died, in order of level and the score's precision.

    Minus infinity where the death came before min_lead steps: no alarm could announce it.

    Args:
      score: float[L, T], finite up to an episode's last step.
      num_steps: int[L], 1 to T.
      died: bool[L], whether the last step's action was a catastrophe.
      min_lead: steps from the alarm to the death, at least 0; 0: the fatal step's observation.
    """
    score, valid, died = checked_episodes(score, num_steps, died, min_lead)
    in_time = np.pad(valid, ((0, 0), (0, min_lead)))[:, min_lead:]
    return np.where(in_time, score, -np.inf).max(axis=1)[died]


def conformal_threshold(peaks: np.ndarray, alpha: float) -> Promise:
    """The largest threshold that leaves at most `alpha` of catastrophes unannounced, on average.

    Conformal risk control: the largest threshold with n / (n + 1) * share + 1 / (n + 1) <= alpha,
    share being that of the n peaks left unannounced. Then a further catastrophe comes unannounced
    with probability at most alpha. It is an average over the calibration too: the threshold of one
    calibration may be worse, the next one's better. `tested_threshold` is for one.

    With fewer than 1 / alpha - 1 catastrophes the promise is vacuous. The proof takes it that to
    alarm always announces every catastrophe: where some die before min_lead steps, a promise is
    as good as proved only while their share is well below alpha, and a vacuous one may be broken.

    Source: Angelopoulos, Bates, Fisch, Lei & Schuster 2022, "Conformal risk control".

    Args:
      peaks: float[n], as from `catastrophe_peaks`. The threshold is exact in their precision: give
        float32 where alarms will be compared in float32.
      alpha: above 0 and below 1.
    """
    _check_share("alpha", alpha)
    num = len(peaks)
    # (k + 1) / (n + 1): division is rounded to the nearest, so that 29 / 100 <= 0.29
    return _largest(peaks, lambda unannounced: (unannounced + 1) / (num + 1) <= alpha)


def tested_threshold(peaks: np.ndarray, alpha: float, delta: float) -> Promise:
    """The largest threshold that leaves at most `alpha` unannounced, with confidence 1 - delta.

    Learn then test: with probability at least 1 - delta over the calibration, the true share at
    this threshold is at most alpha. Every threshold, from the safest on, is tested against "the
    true share is above alpha"; its p-value is the exact binomial tail, the probability of so few
    unannounced or fewer, were it alpha. The first that is not rejected at delta ends the sequence
    and the one before it is taken. Shares rise with the threshold and so do p-values, hence the
    sequence may be all numbers, with no grid chosen beforehand.

    It takes log(delta) / log(1 - alpha) catastrophes, with fewer the promise is vacuous. Deaths
    before min_lead steps need no assumption here: they count as unannounced, and where there are
    too many of them nothing is promised.

    Source: Angelopoulos, Bates, Candes, Jordan & Lei 2021, "Learn then test".

    Args:
      peaks: as for `conformal_threshold`.
      alpha, delta: above 0 and below 1.
    """
    _check_share("alpha", alpha)
    _check_share("delta", delta)
    rejected = binomial_tail(len(peaks), alpha) <= delta
    return _largest(peaks, lambda unannounced: bool(rejected[unannounced]))


def measured(peaks: np.ndarray, threshold: float, confidence: float = CONFIDENCE) -> Measured:
    """The share of peaks [n], of other episodes, that come unannounced at a threshold.

    Raises:
      ValueError: there is no catastrophe, so there is no share.
    """
    peaks = _checked(peaks)
    if not peaks.size:
        raise ValueError("a share of catastrophes needs at least 1, got 0")
    missed = int((peaks <= np.float64(threshold)).sum())
    low, high = wilson(missed, peaks.size, confidence)
    return Measured(missed / peaks.size, low, high, missed, peaks.size)


def binomial_tail(num: int, share: float) -> np.ndarray:
    """float64[num + 1]: the probability of at most k successes in `num` trials, for every k."""
    logs = [
        math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1)
        + k * math.log(share) + (num - k) * math.log1p(-share)
        for k in range(num + 1)
    ]  # fmt: skip
    return np.minimum(np.exp(logs).cumsum(), 1.0)


def _largest(peaks: np.ndarray, allowed: Callable[[int], bool]) -> Promise:
    """The largest threshold that leaves an allowed number of the peaks unannounced.

    Args:
      allowed: whether so many may be; tried from 0 on up to the first that may not.
    """
    peaks = np.sort(_checked(peaks))
    budget = -1
    while budget + 1 < len(peaks) and allowed(budget + 1):
        budget += 1
    # Up to `budget` peaks may be at or below the threshold, so the next one must be above it. That
    # counts a tie as one would: all peaks that equal it are announced.
    threshold = -math.inf if budget < 0 else _just_below(peaks[budget])
    return Promise(
        threshold=threshold,
        vacuous=threshold == -math.inf,
        num_catastrophes=len(peaks),
        num_unannounced=int((peaks <= np.float64(threshold)).sum()),
        num_too_early=int((peaks == -math.inf).sum()),
    )


def _just_below(peak: np.floating) -> float:
    """The largest number below a peak, in its precision.

    An accelerator takes a number too small for an exponent as 0, which is not below 0.
    """
    below = np.nextafter(peak, peak.dtype.type(-np.inf))
    tiny = np.finfo(peak.dtype).tiny
    return float(-tiny if -tiny < below < 0 else below)


def _checked(peaks: np.ndarray) -> np.ndarray:
    """The peaks as floats of the precision they came in."""
    peaks = np.asarray(peaks)
    if not np.issubdtype(peaks.dtype, np.floating):
        peaks = peaks.astype(np.float64)
    if peaks.ndim != 1 or np.isnan(peaks).any() or (peaks == np.inf).any():
        raise ValueError("peaks must be [n], each finite or minus infinity")
    return peaks


def _check_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {share}")
