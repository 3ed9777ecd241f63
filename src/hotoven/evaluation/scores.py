"""Scores of danger: one number per step from what the members of an ensemble say there.

A larger score is more dangerous. Every score of a step comes from the observation before its action
and from nothing later, except `oracle`, which is the bound that no score can pass. What a score is
worth is told by `prediction`; a score that is learned is in `head`. numpy in, numpy out.

Axes: L levels, T steps, M members, A actions. Functions take any axes in front of the last one or
two; what stands after an episode's last step is computed like the rest and means nothing.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np


class Coefficients(NamedTuple):
    """Those of the mean and of the standard deviation of the members' values in U."""

    alpha: float
    beta: float


# The post compares U with and without the standard deviation and gives no numbers: it names alpha
# and beta hyperparameters. A low value is a danger, hence the minus; the one standard deviation is
# our choice.
MEAN_ONLY: Final = Coefficients(-1.0, 0.0)
WITH_STD: Final = Coefficients(-1.0, 1.0)

NEVER: Final = -1e9  # the oracle's score of an episode that ends in no catastrophe


def mean_value(values: np.ndarray) -> np.ndarray:
    """float64[...]: mu, the mean of the members' values [..., M]."""
    return np.asarray(values).mean(axis=-1, dtype=np.float64)


def std_value(values: np.ndarray) -> np.ndarray:
    """float64[...]: sigma, the standard deviation (divided by M) of the members' values."""
    return np.asarray(values).std(axis=-1, dtype=np.float64)


def score(mu: np.ndarray, sigma: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """U = alpha * mu + beta * sigma, the post's discrimination function."""
    return alpha * np.asarray(mu) + beta * np.asarray(sigma)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """float64[...]: entropy, in nats, of the mean of the members' policies [..., M, A]."""
    mean = _mean_policy(probabilities)
    # 0 log 0 is 0
    return -(mean * np.log(np.where(mean > 0.0, mean, 1.0))).sum(axis=-1)


def margin(probabilities: np.ndarray) -> np.ndarray:
    """float64[...], -1 to 0: minus the gap between the mean policy's two likeliest actions.

    Raises:
      ValueError: there is one action only.
    """
    mean = _mean_policy(probabilities)
    if mean.shape[-1] < 2:
        raise ValueError(f"a margin needs at least 2 actions, got {mean.shape[-1]}")
    second, first = np.moveaxis(np.partition(mean, -2, axis=-1)[..., -2:], -1, 0)
    return second - first


def disagreement(probabilities: np.ndarray) -> np.ndarray:
    """float64[...], 0 to 1: how likely draws of two different members are different actions.

    The mean over all pairs of members of [..., M, A].

    Raises:
      ValueError: there is one member only.
    """
    each = np.asarray(probabilities, np.float64)
    num_members = each.shape[-2]
    if num_members < 2:
        raise ValueError(f"a disagreement needs at least 2 members, got {num_members}")
    # the square of a sum holds every ordered pair, and every member with itself
    same = (each.sum(axis=-2) ** 2 - (each**2).sum(axis=-2)).sum(axis=-1)
    return np.clip(1.0 - same / (num_members * (num_members - 1)), 0.0, 1.0)


def random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """float64[*shape]: scores that know nothing; an AUC of 0.5 but for chance."""
    return np.random.Generator(np.random.PCG64(seed)).random(shape)


def oracle(num_steps: np.ndarray, died: np.ndarray, max_steps: int) -> np.ndarray:
    """float64[L, max_steps]: minus the steps to the death, 0 at the fatal one; else NEVER.

    Args:
      num_steps: int[L], steps of each episode.
      died: bool[L], whether its last step was a catastrophe.
      max_steps: T.
    """
    to_death = np.asarray(num_steps)[:, None] - 1.0 - np.arange(max_steps)
    return np.where(np.asarray(died, bool)[:, None] & (to_death >= 0), -to_death, NEVER)


def _mean_policy(probabilities: np.ndarray) -> np.ndarray:
    """float64[..., A] of [..., M, A]."""
    return np.asarray(probabilities).mean(axis=-2, dtype=np.float64)


Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # values, probabilities -> score

# What a score is called in tables -> the score [L, T] of members' values [L, T, M] and action
# probabilities [L, T, M, A]. Random and oracle see neither; they are functions of their own.
SCORES: Final[Mapping[str, Score]] = {
    "mean": lambda values, _: score(mean_value(values), std_value(values), *MEAN_ONLY),
    "mean and std": lambda values, _: score(mean_value(values), std_value(values), *WITH_STD),
    "std": lambda values, _: std_value(values),
    "entropy": lambda _, probabilities: entropy(probabilities),
    "margin": lambda _, probabilities: margin(probabilities),
    "disagreement": lambda _, probabilities: disagreement(probabilities),
}
