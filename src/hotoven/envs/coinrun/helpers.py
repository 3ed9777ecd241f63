"""Who can be asked for help in CoinRun: a planner who knows the level, and poor helpers.

A helper is a function (states, num_steps, seeds) -> int32[N, num_steps] of host arrays: from N
states, what to do in the next steps. `seeds`, uint32[N], is for those who draw.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from hotoven.envs.coinrun.physics import State
from hotoven.envs.coinrun.planner import EFFORTS, NOTHING, NUM_MOVES, Effort, plan

LEFT: Final = 1


def planner(
    states: State, num_steps: int, seeds: np.ndarray, efforts: tuple[Effort, ...] = EFFORTS[:1]
) -> np.ndarray:
    """The first steps of a way to the coin; nothing where none was found, and after the coin.

    Searches with the first effort alone: most states from which that finds no way are lost, and
    more thorough searches would take most of the time.
    """
    found = plan(states, efforts).actions[:, :num_steps].astype(np.int32)
    return np.pad(found, ((0, 0), (0, num_steps - found.shape[1])), constant_values=NOTHING)


def stand_still(states: State, num_steps: int, seeds: np.ndarray) -> np.ndarray:
    """Does nothing, whatever comes."""
    return np.full((len(seeds), num_steps), NOTHING, np.int32)


def retreat(states: State, num_steps: int, seeds: np.ndarray) -> np.ndarray:
    """Pushes to the left, whence the agent came."""
    return np.full((len(seeds), num_steps), LEFT, np.int32)


def stumble(states: State, num_steps: int, seeds: np.ndarray) -> np.ndarray:
    """Draws each action at random: what a helper is worth who knows nothing."""
    draws = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds.tolist()]
    rows = [own.integers(0, NUM_MOVES, num_steps, np.int32) for own in draws]
    return np.array(rows, np.int32).reshape(len(seeds), num_steps)


HELPERS: Final[dict[str, Callable[[Any, int, np.ndarray], np.ndarray]]] = {
    "planner": planner,
    "stand_still": stand_still,
    "retreat": retreat,
    "stumble": stumble,
}
