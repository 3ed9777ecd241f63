"""How sure a ROC curve, an AUC or an average precision is: the post's way, and by levels.

`step_bootstrap` is the post's figure: ten samples of the steps, mean and one standard deviation.
Steps of one episode are alike, so it makes everything look surer than it is. `auc_samples` and
`precision_samples` resample levels, whole; `interval` gives their percentile interval. Samples with
the same number of levels, number of samples and seed drew the same levels, so `difference` of two
is paired: of two scores in one rollout, of two policies' rollouts on the same levels, or of two
differences. numpy in, numpy out.

Axes: L levels (one episode each), T steps, N steps of all episodes, S samples.
"""

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from hotoven.evaluation.prediction import UndefinedROC, area, checked_steps, rates, require_both

NUM_STEP_SAMPLES: Final = 10  # the post's
NUM_LEVEL_SAMPLES: Final = 2000
CONFIDENCE: Final = 0.95
GRID: Final = np.linspace(0.0, 1.0, 201)  # false-positive rates at which curves are averaged
GRID.setflags(write=False)

_BLOCK: Final = 500_000  # cells of a matrix [positive steps, samples] worked on at a time
_EXACT: Final = 2**24  # up to here every whole number is a float32


class StepBootstrap(NamedTuple):
    """Mean and standard deviation (divided by S - 1) over samples of steps."""

    false_positive_rate: np.ndarray  # float64[G], GRID
    mean: np.ndarray  # float64[G], true-positive rate
    std: np.ndarray  # float64[G]
    auc_mean: float
    auc_std: float
    num_samples: int  # samples that these are of
    num_undefined: int  # samples left out: no positive step was drawn, or no negative one


class Samples(NamedTuple):
    """A statistic of the levels that there are, and of samples of them."""

    estimate: float
    values: np.ndarray  # float64[S]; NaN: the sample has no positive step, or no negative one
    num_levels: int
    num_positive_levels: int  # those with a positive step; of a difference, the smaller number
    seed: int


class LevelInterval(NamedTuple):
    """An estimate between two bounds that come from resampling levels."""

    estimate: float
    low: float
    high: float
    num_levels: int
    num_positive_levels: int  # with few of them the interval is too narrow
    num_samples: int  # samples that the bounds are of
    num_undefined: int  # samples left out: no positive step was drawn, or no negative one


def step_bootstrap(
    score: np.ndarray, positive: np.ndarray, num_samples: int = NUM_STEP_SAMPLES, seed: int = 0
) -> StepBootstrap:
    """ROC curve and AUC of scores [N] over samples of steps, drawn with replacement.

    The post says "ten bootstrap samples from the data collected from one rollout", and not what
    was drawn; we take it to be steps. For its figure only: levels are what an interval should be
    of. At a rate of the grid a curve has its value there; between its points it is straight, and
    where it is upright it has its upper end.

    Args:
      score, positive: as in `roc`, the valid steps of all episodes.

    Raises:
      UndefinedROC: no positive or no negative step, or fewer than two samples with both.
    """
    score, positive = checked_steps(score, positive)
    require_both(positive.sum(), (~positive).sum())
    distinct = np.unique(score[positive])
    # A curve bends at scores of positive steps alone, so steps that score between two of them need
    # not be told apart. One count of the codes serves both classes.
    codes, size = 2 * _places(distinct, score) + positive, 2 * len(distinct) + 1
    generator = np.random.Generator(np.random.PCG64(seed))
    curves, areas = [], []
    for _ in range(num_samples):
        drawn = codes[generator.integers(0, len(codes), len(codes))]
        negatives, positives = np.bincount(drawn, minlength=2 * size).reshape(size, 2)[::-1].T
        if not positives.any() or not negatives.any():
            continue
        false, true = rates(positives, negatives)
        curves.append(_heights(false, true))
        areas.append(area(false, true))
    if len(areas) < 2:
        raise UndefinedROC(f"a deviation needs two samples with a ROC, got {len(areas)}")
    return StepBootstrap(
        false_positive_rate=GRID,
        mean=np.mean(curves, axis=0),
        std=np.std(curves, axis=0, ddof=1),
        auc_mean=float(np.mean(areas)),
        auc_std=float(np.std(areas, ddof=1)),
        num_samples=len(areas),
        num_undefined=num_samples - len(areas),
    )


def auc_samples(
    score: np.ndarray,
    positive: np.ndarray,
    valid: np.ndarray,
    num_samples: int = NUM_LEVEL_SAMPLES,
    seed: int = 0,
) -> Samples:
    """AUC of samples of L levels, drawn with replacement, whole.

    Exact, and without a ROC per sample. Let K[i, j] count the pairs of a positive step in level i
    and a negative one in level j of which the positive scores higher, ties half. Where a sample
    has level i w[i] times, its AUC is w K w over (w p) (w n), with p and n the numbers of positive
    and negative steps in each level: a matrix product for all samples.

    Args:
      score: float[L, T], finite where valid.
      positive: bool[L, T], as from `labels`.
      valid: bool[L, T], which steps were played.

    Raises:
      UndefinedROC: no positive or no negative step.
      ValueError: shapes differ, or a valid score is not finite.
    """
    score, positive, negative = _checked(score, positive, valid, num_samples)
    rows, pairs = ordered_pairs(score, positive, negative)
    drawn = _draws(len(score), num_samples, seed)
    above = np.einsum("sl,sl->s", drawn[:, rows] @ pairs, drawn)
    of = (drawn @ positive.sum(axis=1)) * (drawn @ negative.sum(axis=1))
    values = np.divide(above, of, out=np.full(len(of), np.nan), where=of > 0.0)
    return Samples(float(values[0]), values[1:], len(score), len(rows), seed)


def precision_samples(
    score: np.ndarray,
    positive: np.ndarray,
    valid: np.ndarray,
    num_samples: int = NUM_LEVEL_SAMPLES,
    seed: int = 0,
) -> Samples:
    """Average precision of the samples that `auc_samples` draws; arguments and errors alike.

    Exact. Average precision asks, at each positive step, how many positive and how many negative
    steps score as high. The negatives are a matrix product of the draws with each level's number
    of them; the positives a running sum in order of score.
    """
    score, positive, negative = _checked(score, positive, valid, num_samples)
    level, _ = np.nonzero(positive)
    order = np.argsort(-score[positive], kind="stable")
    level, descending = level[order], score[positive][order]
    last = np.flatnonzero(np.diff(descending, append=-np.inf))  # of those with an equal score
    distinct = descending[last][::-1]

    # [K, L]: negatives of a level that score at least as high as each distinct positive, descending
    lower = len(distinct) - (_places(distinct, score[negative]) + 1) // 2
    cells = lower * len(score) + np.nonzero(negative)[0]
    found = np.bincount(cells, minlength=(len(distinct) + 1) * len(score))
    drawn = _draws(len(score), num_samples, seed)
    # a sum of whole numbers that stays below 2**24 is exact in float32, at half the work
    kind = np.float32 if score.size < _EXACT else np.float64
    higher = found.reshape(-1, len(score))[:-1].cumsum(axis=0, dtype=kind)

    values = np.full(len(drawn), np.nan)
    of = (drawn @ positive.sum(axis=1)) * (drawn @ negative.sum(axis=1))
    size = max(16, _BLOCK // len(level))
    for start in range(0, len(drawn), size):
        block = np.ascontiguousarray(drawn[start : start + size].T, kind)  # [L, s]
        hits = block[level].cumsum(axis=0)[last].astype(np.float64)  # [K, s]
        alarms = hits + higher @ block
        gained = np.diff(hits, axis=0, prepend=0.0)
        sums = np.einsum("ks,ks->s", gained, hits / np.maximum(alarms, 1.0))
        defined = of[start : start + size] > 0.0
        np.divide(sums, hits[-1], out=values[start : start + size], where=defined)
    return Samples(float(values[0]), values[1:], len(score), len(np.unique(level)), seed)


def difference(first: Samples, second: Samples) -> Samples:
    """The first minus the second, sample by sample; the caller sees to it that levels are the same.

    Raises:
      ValueError: they drew different levels, so they are not paired.
    """
    draws = [(one.num_levels, len(one.values), one.seed) for one in (first, second)]
    if draws[0] != draws[1]:
        raise ValueError(
            f"paired samples must be of as many levels and samples and of one seed, got {draws[0]} "
            f"and {draws[1]}"
        )
    return Samples(
        first.estimate - second.estimate,
        first.values - second.values,
        first.num_levels,
        min(first.num_positive_levels, second.num_positive_levels),
        first.seed,
    )


def interval(samples: Samples, confidence: float = CONFIDENCE) -> LevelInterval:
    """Percentile interval, widened where needed to contain its estimate.

    Undefined samples are left out and counted, so the interval is of levels in which there is
    something to tell apart. Where a score orders every pair right it is a point: resampling cannot
    show what has not been seen.

    Raises:
      UndefinedROC: every sample is undefined.
      ValueError: confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    defined = samples.values[~np.isnan(samples.values)]
    if not defined.size:
        raise UndefinedROC(f"none of {len(samples.values)} samples has a ROC")
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, (tail, 1 - tail)).tolist()
    return LevelInterval(
        estimate=samples.estimate,
        low=min(low, samples.estimate),
        high=max(high, samples.estimate),
        num_levels=samples.num_levels,
        num_positive_levels=samples.num_positive_levels,
        num_samples=len(defined),
        num_undefined=len(samples.values) - len(defined),
    )


def ordered_pairs(
    score: np.ndarray, positive: np.ndarray, negative: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which levels have a positive step (int64[P]), and K of `auc_samples` for them: float64[P, L].

    Args:
      score: float64[L, T].
      positive, negative: bool[L, T], never both.
    """
    num_levels = len(score)
    distinct, place = np.unique(score[positive], return_inverse=True)
    # A negative counts half from the first positive on that scores as high, and half from the
    # first that scores higher: [K, L], in halves.
    place_negative, level = _places(distinct, score[negative]), np.nonzero(negative)[0]
    as_high, higher = place_negative // 2, (place_negative + 1) // 2
    cells = np.concatenate((as_high, higher)) * num_levels + np.tile(level, 2)
    halves = np.bincount(cells, minlength=(len(distinct) + 1) * num_levels)
    halves = halves.reshape(-1, num_levels)[:-1].cumsum(axis=0)
    # steps come in order of level, so those of one level are neighbours
    rows, first = np.unique(np.nonzero(positive)[0], return_index=True)
    return rows, np.add.reduceat(halves[place], first, axis=0) / 2.0


def _heights(false: np.ndarray, true: np.ndarray) -> np.ndarray:
    """float64[G]: a curve's true-positive rates at GRID, the upper end where it is upright.

    `np.interp` leaves open which of several points at one rate it takes.
    """
    last = np.searchsorted(false, GRID, "right") - 1
    after = np.minimum(last + 1, len(false) - 1)
    width = false[after] - false[last]
    way = np.divide(GRID - false[last], width, out=np.zeros(len(GRID)), where=width > 0.0)
    return true[last] + way * (true[after] - true[last])


def _places(distinct: np.ndarray, score: np.ndarray) -> np.ndarray:
    """int64[N]: 2k for scores between distinct[k - 1] and distinct[k], 2k + 1 for distinct[k].

    `distinct` [K] ascends; below all of it is 0, above 2K.
    """
    at = np.searchsorted(distinct, score)
    return 2 * at + (distinct[np.minimum(at, len(distinct) - 1)] == score)


@lru_cache(maxsize=4)
def _draws(num_levels: int, num_samples: int, seed: int) -> np.ndarray:
    """float64[1 + S, L], read-only: how often each level was drawn; rows sum to L.

    The first row is the levels as they are, once each. Cached because a figure asks for the same
    draws for every line.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = generator.integers(0, num_levels, (num_samples, num_levels))
    cells = drawn + num_levels * np.arange(num_samples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=num_samples * num_levels)
    rows = np.vstack((np.ones(num_levels), counts.reshape(num_samples, num_levels)))
    rows.setflags(write=False)
    return rows


def _checked(
    score: np.ndarray, positive: np.ndarray, valid: np.ndarray, num_samples: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The score, and which steps are positive and which negative: [L, T] each."""
    score = np.asarray(score, np.float64)
    positive, valid = np.asarray(positive, bool), np.asarray(valid, bool)
    if score.ndim != 2 or not score.shape == positive.shape == valid.shape:
        raise ValueError(
            f"score, positive and valid must be [L, T], got shapes {score.shape}, "
            f"{positive.shape} and {valid.shape}"
        )
    if not np.isfinite(score[valid]).all():
        raise ValueError("valid scores must be finite, got NaN or infinity")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    positive, negative = positive & valid, ~positive & valid
    require_both(positive.sum(), negative.sum())
    return score, positive, negative
