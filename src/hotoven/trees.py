"""Choosing among pytrees of arrays, row by row; knows nothing of what they mean."""

import jax
import jax.numpy as jnp

from hotoven.types import PyTree


def where(chosen: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """Rows of `yes` where `chosen` (bool[E]), else of `no`; leaves [E, ...]."""

    def pick(yes: jax.Array, no: jax.Array) -> jax.Array:
        return jnp.where(chosen.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)

    return jax.tree.map(pick, yes, no)
