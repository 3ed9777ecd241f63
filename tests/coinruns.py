"""CoinRun levels made by hand: a floor one cell high from column 1 to 4, and what is put on it."""

import jax
import numpy as np

from hotoven.envs.coinrun.level import Blueprint, Level, Pile, Thing, blueprint, pack
from hotoven.envs.coinrun.physics import State, step

LEFT, NOTHING, UP, RIGHT = 1, 4, 5, 7
DOWN = 3


def hand_made(things: list[Thing] | None = None, piles: list[Pile] | None = None) -> Blueprint:
    """Easy level 0 with other things."""
    return blueprint(0, "easy")._replace(things=things or [], piles=piles or [])


def one_level(plan: Blueprint) -> Level:
    return jax.tree.map(lambda leaf: leaf[0], pack([plan]))


def walk(state: State, *actions: int) -> State:
    for action in actions:
        state = step(state, np.int32(action))
    return state
