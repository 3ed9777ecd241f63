"""Writes tests/data/coinrun/witnesses_{mode}.npz: for each level seed a way to its coin.

Run with `python tests/make_witnesses.py`. `seed` [N]; `action` flat, item i at
`offset[i]:offset[i + 1]`, empty where the planner found no way.
"""

import time
from pathlib import Path

import jax
import numpy as np

from hotoven.envs.coinrun.level import MODES, generate
from hotoven.envs.coinrun.physics import reset
from hotoven.envs.coinrun.planner import plan

NUM_LEVELS = 1000
DATA = Path(__file__).parent / "data" / "coinrun"


def main() -> None:
    for mode in MODES:
        seeds = np.arange(NUM_LEVELS)
        start = time.perf_counter()
        plans = plan(jax.vmap(reset)(generate(seeds, mode)[0]))
        seconds = time.perf_counter() - start
        lengths = plans.num_steps
        np.savez_compressed(
            DATA / f"witnesses_{mode}.npz",
            seed=seeds.astype(np.int32),
            offset=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
            action=plans.actions[np.arange(plans.actions.shape[1]) < lengths[:, None]],
        )
        found = lengths[plans.found]
        print(
            f"{mode}: {plans.found.mean():.1%} of {NUM_LEVELS} levels solved, "
            f"{1000 * seconds / NUM_LEVELS:.1f} ms a level; "
            f"steps: mean {found.mean():.1f}, most {found.max()}; "
            f"no way found: {seeds[~plans.found].tolist()}"
        )


if __name__ == "__main__":
    main()
