"""What experience is drawn by is what JAX draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotoven.learners.experience import _words, reset_all
from probes import Probe, right_and_wrong, stack, two_steps


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**63 - 1), st.sampled_from([1, 2, 5, 4096]))
def test_words_are_those_of_jax(seed: int, count: int):
    key = jax.random.key(seed)
    assert _words(key, count).dtype == jnp.uint32
    assert np.array_equal(_words(key, count), jax.random.bits(key, (count,), jnp.uint32))


def test_words_of_many_keys_are_those_of_each():
    keys = jax.random.split(jax.random.key(0), 3)
    found = jax.jit(jax.vmap(lambda key: _words(key, 7)))(keys)
    assert np.array_equal(found, jax.vmap(lambda key: jax.random.bits(key, (7,)))(keys))


def test_words_that_are_counted_otherwise_are_left_to_jax():
    with jax.threefry_partitionable(False):
        found, key = _words(jax.random.key(5), 9), jax.random.key(5)
        assert np.array_equal(found, jax.random.bits(key, (9,), jnp.uint32))
    assert not np.array_equal(found, _words(key, 9))


@pytest.mark.parametrize("cipher", ["rbg", "unsafe_rbg"])
def test_words_of_another_cipher_are_left_to_jax(cipher: str):
    key = jax.random.key(5, impl=cipher)
    assert np.array_equal(_words(key, 9), jax.random.bits(key, (9,), jnp.uint32))


@pytest.mark.parametrize(("num_levels", "share"), [(1, 0.0), (2, 0.5)])
def test_only_the_first_levels_are_drawn_one_as_often_as_another(num_levels: int, share: float):
    levels = stack(right_and_wrong(0.5)[0], two_steps(0.5)[0])
    assert levels.rewards[0, 0, 0] != levels.rewards[1, 0, 0]
    state, _ = reset_all(Probe(), levels, jnp.int32(num_levels), 10_000, jax.random.key(1))
    second = np.asarray(state.table.rewards[:, 0, 0]) == levels.rewards[1, 0, 0]
    assert second.mean() == pytest.approx(share, abs=0.02)  # four standard deviations
