"""Where experience comes from: the auto-reset of training, and a replay ring on the device.

This is the only auto-reset of the package besides the Gymnasium adapter's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hotoven.trees import where
from hotoven.types import CATASTROPHE, RUNNING, TIMEOUT, Env, PyTree, TimeStep


class Transition(NamedTuple):
    """One step of experience. A time-out is not terminated: its future is worth something."""

    obs: jax.Array  # [*obs_shape], the observation left
    action: jax.Array  # int32[]
    reward: jax.Array  # float32[]
    next_obs: jax.Array  # [*obs_shape], the observation reached, before any reset
    terminated: jax.Array  # bool[]
    catastrophe: jax.Array  # bool[]


def reset_all(
    env: Env, levels: PyTree, num_levels: jax.Array, num_envs: int, key: jax.Array
) -> tuple[PyTree, TimeStep]:
    """Starts of E = `num_envs` episodes on random ones of the first `num_levels` of `levels`.

    Levels have leaves [L, ...], the states and time steps that come back [E, ...].
    """
    index = _draw_levels(num_levels, num_envs, key)
    return jax.vmap(env.reset)(jax.tree.map(lambda leaf: leaf[index], levels))


def step_all(
    env: Env,
    levels: PyTree,
    num_levels: jax.Array,
    state: PyTree,
    obs: jax.Array,
    action: jax.Array,
    key: jax.Array,
) -> tuple[PyTree, jax.Array, Transition, jax.Array]:
    """One step of E episodes with what is seen; one that ends is followed by a random level.

    Args:
      levels: leaves [L, ...], of which the first `num_levels` (int32[]) may be drawn.
      state, obs: leaves [E, ...], where the episodes stand.
      action: int32[E].

    Returns:
      the next states and observations (after the reset), the transitions (before it), leaves
      [E, ...], and the steps' outcomes int8[E].
    """
    _, shown, next_state = advance_all(env, levels, num_levels, state, action, key)
    next_obs = jax.vmap(env.observe)(next_state)
    catastrophe = shown.outcome == CATASTROPHE
    terminated = terminates(shown.outcome)
    # shown.obs, not next_obs: the learner bootstraps from the true last observation.
    transition = Transition(obs, action, shown.reward, shown.obs, terminated, catastrophe)
    return next_state, next_obs, transition, shown.outcome


def advance_all(
    env: Env,
    levels: PyTree,
    num_levels: jax.Array,
    state: PyTree,
    action: jax.Array,
    key: jax.Array,
) -> tuple[PyTree, TimeStep, PyTree]:
    """One step of E episodes: the states reached, what they show, and the states to go on from.

    Those differ where an episode ended: there a random level starts. Whoever does not read the
    observations that are shown pays nothing for them.
    """
    stepped, shown = jax.vmap(env.step)(state, action)
    fresh, _ = reset_all(env, levels, num_levels, action.shape[0], key)
    next_state = where(shown.outcome != RUNNING, fresh, stepped)
    return stepped, shown, next_state


def terminates(outcome: jax.Array) -> jax.Array:
    """bool: whether the future is worth 0; a time-out only cuts an episode off."""
    return (outcome != RUNNING) & (outcome != TIMEOUT)


def _draw_levels(num_levels: jax.Array, count: int, key: jax.Array) -> jax.Array:
    """int32[count]: indices below `num_levels`, uniform but for num_levels / 2^32.

    One draw for the whole batch: a key for each environment would cost half of a step.
    """
    return (_words(key, count) % num_levels.astype(jnp.uint32)).astype(jnp.int32)


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))  # of odd and of even rounds of four


def _words(key: jax.Array, count: int) -> jax.Array:
    """uint32[count]: the words of `jax.random.bits(key, (count,))`, sooner on a CPU.

    JAX writes its cipher, threefry-2x32 with 20 rounds (Salmon et al. 2011), as a loop for a CPU,
    which goes through memory with every round and takes a seventh of a step of LavaGrid. Here it is
    written out and becomes one pass. Keys of another cipher, or counted otherwise, are left to JAX.
    """
    by_row = jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
    if not by_row or jax.random.key_impl(key) != "threefry2x32":
        return jax.random.bits(key, (count,), jnp.uint32)
    first, second = jax.random.key_data(key)
    schedule = (first, second, first ^ second ^ jnp.uint32(0x1BD11BDA))
    left = jnp.broadcast_to(first, count)  # the counter's high word is 0
    right = jnp.arange(count, dtype=jnp.uint32) + second
    for group in range(1, 6):
        for turn in _ROTATIONS[(group - 1) % 2]:
            left = left + right
            right = left ^ ((right << turn) | (right >> (32 - turn)))
        left = left + schedule[group % 3]
        right = right + schedule[(group + 1) % 3] + jnp.uint32(group)
    return left ^ right


def empty_ring(env: Env, capacity: int, obs_dtype: jnp.dtype) -> Transition:
    """Room for `capacity` transitions; leaves [capacity, ...]."""
    obs = jnp.zeros((capacity, *env.obs_shape), obs_dtype)
    return Transition(
        obs=obs,
        action=jnp.zeros(capacity, jnp.int32),
        reward=jnp.zeros(capacity, jnp.float32),
        next_obs=obs,
        terminated=jnp.zeros(capacity, bool),
        catastrophe=jnp.zeros(capacity, bool),
    )


def write_ring(ring: Transition, new: Transition, start: jax.Array) -> Transition:
    """The ring with `new` (leaves [E, ...]) written from slot `start` on; must not wrap inside."""
    return jax.tree.map(
        lambda room, rows: jax.lax.dynamic_update_slice_in_dim(room, rows, start, axis=0), ring, new
    )


def sample_ring(ring: Transition, num_filled: jax.Array, count: int, key: jax.Array) -> Transition:
    """`count` transitions drawn uniformly, with replacement, from the first `num_filled` slots."""
    index = jax.random.randint(key, (count,), 0, num_filled)
    return jax.tree.map(lambda room: room[index], ring)
