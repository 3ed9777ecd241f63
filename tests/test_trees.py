"""Rows of one pytree or the other."""

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.trees import where


def test_rows_are_chosen_in_every_leaf_whatever_its_axes():
    chosen = jnp.array([True, False, True])
    yes = {"a": jnp.array([1, 2, 3]), "b": jnp.ones((3, 2, 2))}
    no = {"a": jnp.array([7, 8, 9]), "b": jnp.zeros((3, 2, 2))}
    for found in (where(chosen, yes, no), jax.jit(where)(chosen, yes, no)):
        assert found["a"].tolist() == [1, 8, 3]
        np.testing.assert_array_equal(found["b"].sum(axis=(1, 2)), [4, 0, 4])
