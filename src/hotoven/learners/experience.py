"""Where experience comes from: the auto-reset of training, and a replay ring on the device.

This is the only auto-reset of the package besides the Gymnasium adapter's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hotoven.types import CATASTROPHE, RUNNING, SOLVED, Env, PyTree, TimeStep


class Transition(NamedTuple):
    """One step of experience. A time-out is not terminated: its future is worth something."""

    obs: jax.Array  # [*obs_shape], the observation left
    action: jax.Array  # int32[]
    reward: jax.Array  # float32[]
    next_obs: jax.Array  # [*obs_shape], the observation reached, before any reset
    terminated: jax.Array  # bool[]
    catastrophe: jax.Array  # bool[]


def reset_on_random_level(
    env: Env, levels: PyTree, num_levels: jax.Array, key: jax.Array
) -> tuple[PyTree, TimeStep]:
    """The start of one of the first `num_levels` of `levels` (leaves [L, ...]), drawn uniformly."""
    index = jax.random.randint(key, (), 0, num_levels)
    return env.reset(jax.tree.map(lambda leaf: leaf[index], levels))


def step_and_reset(
    env: Env,
    levels: PyTree,
    num_levels: jax.Array,
    state: PyTree,
    obs: jax.Array,
    action: jax.Array,
    key: jax.Array,
) -> tuple[PyTree, jax.Array, Transition, jax.Array]:
    """One step; an ended episode is followed by the start of a random level.

    Returns:
      the next state and observation (after the reset), the transition (before it), and the step's
      outcome int8[].
    """
    stepped, shown = env.step(state, action)
    fresh, start = reset_on_random_level(env, levels, num_levels, key)
    ended = shown.outcome != RUNNING
    next_state = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, stepped)
    next_obs = jnp.where(ended, start.obs, shown.obs)
    catastrophe = shown.outcome == CATASTROPHE
    terminated = catastrophe | (shown.outcome == SOLVED)
    # shown.obs, not next_obs: the learner bootstraps from the true last observation.
    transition = Transition(obs, action, shown.reward, shown.obs, terminated, catastrophe)
    return next_state, next_obs, transition, shown.outcome


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
