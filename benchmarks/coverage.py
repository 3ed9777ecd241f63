"""How often the 95% intervals of a rate contain it, by the number of replications; no speed.

Agents of a replication share a strength, levels share a difficulty; an agent dies in a level where
the sum of both and of chance is above a threshold. The true rate is known, so the share of
intervals that contain it can be counted.
"""

import argparse
from statistics import NormalDist

import numpy as np

from hotoven.evaluation.bootstrap import two_level

NORMAL = NormalDist()


def coverage(
    num_replications: int, runs: int, rate: float, spread: float, share: float, num_levels: int
) -> tuple[float, float]:
    """The share of intervals that contain the true rate, and their mean width.

    Args:
      num_replications: independent ensembles that are rated on the same levels.
      runs: studies that are simulated.
      rate: the share of levels in which an agent of average strength dies.
      spread: standard deviation of that share from one replication to another.
      share: of the variance within a replication, that of the levels; the rest is chance.
      num_levels: levels in a study.
    """
    threshold = NORMAL.inv_cdf(1 - rate)
    strength = spread / NORMAL.pdf(threshold)
    truth = 1 - NORMAL.cdf(threshold / (1 + strength**2) ** 0.5)
    generator = np.random.default_rng(0)
    hits, width = 0, 0.0
    for run in range(runs):
        level = share**0.5 * generator.normal(size=(1, num_levels))
        agent = strength * generator.normal(size=(num_replications, 1))
        chance = (1 - share) ** 0.5 * generator.normal(size=(num_replications, num_levels))
        died = (level + agent + chance > threshold).astype(float)
        interval = two_level(died, 1000, seed=run, bounds=(0, 1))
        hits += interval.low <= truth <= interval.high
        width += interval.high - interval.low
    return hits / runs, width / runs


def main() -> None:
    """Simulates and prints, one number of replications after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, nargs="+", default=[1, 2, 3, 5, 12])
    parser.add_argument("--runs", type=int, default=600, help="studies that are simulated")
    parser.add_argument("--rate", type=float, default=0.15, help="share of levels that are lost")
    parser.add_argument("--spread", type=float, default=0.0275, help="between replications")
    parser.add_argument("--share", type=float, default=0.5, help="of the variance, that of levels")
    parser.add_argument("--levels", type=int, default=1000, help="levels in a study")
    chosen = parser.parse_args()
    print("replications  intervals that contain the truth  mean width")
    for number in chosen.replications:
        found, width = coverage(
            number, chosen.runs, chosen.rate, chosen.spread, chosen.share, chosen.levels
        )
        print(f"{number:12}  {found:32.1%}  {100 * width:7.1f} pp")


if __name__ == "__main__":
    main()
