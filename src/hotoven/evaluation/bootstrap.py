"""Intervals of a proportion, of a mean over studies, and over replications and levels.

The unit of resampling is the level (and the replication), never the step. Numpy in, plain numbers
out; knows nothing of episodes or methods. A paired comparison is `two_level` of the differences.
Where the possible values are bounded, levels that were not seen are allowed for: what happened on
none of the levels is not shown to happen on no level. Intervals are for one number each: nothing
here adjusts for looking at many.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

NUM_SAMPLES = 2000
CONFIDENCE = 0.95

# Which axis a stream of resampling draws belongs to; separate, so that the draws of levels do not
# depend on the number of replications.
_REPLICATION_STREAM = 0
_LEVEL_STREAM = 1


class Interval(NamedTuple):
    """An estimate between two bounds, in the unit of the values it was made from."""

    estimate: float
    low: float
    high: float
    num_replications: int  # that it is over, besides levels; of 1 it says nothing but its levels

    @property
    def resampled(self) -> str:
        """What was resampled: "levels" or "replications and levels"."""
        return "levels" if self.num_replications == 1 else "replications and levels"


def wilson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a proportion, within [0, 1].

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Raises:
      ValueError: without trials there is no proportion; or successes are not within the trials.
    """
    _check_confidence(confidence)
    if trials < 1:
        raise ValueError(f"a proportion needs at least 1 trial, got {trials}")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must be from 0 to {trials} (the trials), got {successes}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    scale = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # At the edges the formula gives 0 and 1 but for rounding.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high


def student(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's interval of the mean of values, each of a study of its own.

    Exact where studies vary normally. It allows for the variance being known from few values only.
    Source: Student 1908, "The probable error of a mean".

    Raises:
      ValueError: there are fewer than two values, or they are not finite.
    """
    _check_confidence(confidence)
    numbers = np.asarray(values, np.float64)
    if numbers.size < 2 or not np.isfinite(numbers).all():
        raise ValueError(f"at least 2 finite values are needed, got {list(values)}")
    mean = float(numbers.mean())
    error = float(numbers.std(ddof=1)) / math.sqrt(numbers.size)
    half = float(stdtrit(numbers.size - 1, 0.5 + confidence / 2)) * error
    return Interval(mean, mean - half, mean + half, numbers.size)


def two_level(
    values: np.ndarray,
    num_samples: int = NUM_SAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """Percentile interval of the mean of values, over replications and levels.

    Replications and levels are crossed: every sample draws R - 1 replications with replacement
    and, independently, weights that sum to 1 for the L levels, uniform among all such weights (the
    Bayesian bootstrap). R - 1 and not R: so the mean over replications varies as much as it should,
    where R draws would show (R - 1) / R of that variance. With one replication only the weights are
    drawn. The interval is widened where needed to contain its estimate, which is the plain mean.
    Sources: Rubin 1981, "The Bayesian bootstrap"; Owen & Eckles 2012, "Bootstrapping data arrays
    of arbitrary order"; Rao & Wu 1988, "Resampling inference with complex survey data".

    Resampling knows no level but those it has: of 0 deaths in 1000 levels it would say [0, 0]. So
    with `bounds` one more level gets a weight. It has the smallest value that there can be, in
    every replication, for the lower bound of the interval, and the largest for the upper bound.
    For indicators in one replication this is Clopper & Pearson's exact interval, but for the noise
    of sampling, and contains the truth at least as often as it says; for other values in bounds
    that is conjectured. A value that rises lowers neither bound of the interval.
    Sources: Gaffke 2005, "Three test statistics for a nonparametric one-sided hypothesis on the
    mean of a nonnegative variable"; Learned-Miller & Thomas 2019, "A new confidence interval for
    the mean of a bounded random variable".

    Of one replication the interval speaks of other levels, not of other agents; of two or three it
    is too narrow, for two numbers do not tell how far a third may be off. So the number of
    replications belongs beside it; `python benchmarks/coverage.py` shows how much it matters.

    Args:
      values: float[R, L], the same L levels in each of the R replications; finite.
      num_samples: bootstrap samples.
      confidence: between 0 and 1, exclusive.
      seed: the same seed and shape mean the same draws, so two calls are paired.
      bounds: the smallest and largest value that a level can have; None: nothing is said of
        levels unlike those that were seen.

    Raises:
      ValueError: values are not a finite, non-empty [R, L], or leave the bounds; or a setting is
        out of range.
    """
    values = _checked(values, bounds)
    _check_confidence(confidence)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    num_replications, num_levels = values.shape
    num_unseen = 0 if bounds is None else 1
    weights = _weights(num_levels + num_unseen, num_samples, seed)
    # [S, R], then weighted by how often each replication was drawn -> [S]. Not `@`, whose last bits
    # depend on the number of cores.
    by_replication = np.einsum("sl,rl->sr", weights[:, :num_levels], values)
    counts = _counts(num_replications, num_samples, seed)
    means = (by_replication * counts).sum(axis=1) / counts.sum(axis=1)
    unseen = weights[:, num_levels:].sum(axis=1)
    smallest, largest = (0.0, 0.0) if bounds is None else bounds
    tail = (1 - confidence) / 2
    low = float(np.quantile(means + unseen * smallest, tail))
    high = float(np.quantile(means + unseen * largest, 1 - tail))
    if bounds is not None:  # but for rounding they are within
        low, high = max(low, smallest), min(high, largest)
    estimate = float(values.mean())
    return Interval(estimate, min(low, estimate), max(high, estimate), num_replications)


# Cached because a report asks for the same draws again for every method and outcome.
@lru_cache(maxsize=16)
def _weights(size: int, num_samples: int, seed: int) -> np.ndarray:
    """float64[num_samples, size], read-only: weights of size levels; rows sum to 1."""
    weights = _generator(seed, _LEVEL_STREAM).standard_exponential((num_samples, size))
    weights /= weights.sum(axis=1, keepdims=True)
    weights.setflags(write=False)
    return weights


@lru_cache(maxsize=16)
def _counts(size: int, num_samples: int, seed: int) -> np.ndarray:
    """float64[num_samples, size], read-only: how often each of size replications was drawn in
    size - 1 draws, or in one if there is one."""
    num_draws = max(size - 1, 1)
    draws = _generator(seed, _REPLICATION_STREAM).integers(0, size, (num_samples, num_draws))
    # One bincount for all samples: sample s counts in the cells from s * size on.
    cells = draws + size * np.arange(num_samples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=num_samples * size).astype(np.float64)
    counts.setflags(write=False)
    return counts.reshape(num_samples, size)


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, stream]))


def _checked(values: np.ndarray, bounds: tuple[float, float] | None) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"values must be a non-empty [R, L], got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite, got NaN or infinity")
    if bounds is not None and (values.min() < bounds[0] or values.max() > bounds[1]):
        raise ValueError(
            f"values must be within the bounds {bounds}, got {values.min()} to {values.max()}"
        )
    return values


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
