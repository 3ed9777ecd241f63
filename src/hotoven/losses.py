"""The small mathematics of learning: one transition or one example each, no batch axis."""

import jax
import jax.numpy as jnp


def td_error(
    q: jax.Array,
    action: jax.Array,
    reward: jax.Array,
    terminated: jax.Array,
    next_q: jax.Array,
    gamma: float | jax.Array,
) -> jax.Array:
    """One-step Q-learning error of a single transition, target minus estimate.

    A time-out is not a termination: pass terminated=False and the next Q-values.
    Source: Watkins 1989; target network as in Mnih et al. 2015, section Methods.

    Args:
      q: float32[A], Q-values of the state left.
      action: int[], the action taken.
      reward: float32[].
      terminated: bool[], True where the future is worth 0.
      next_q: float32[A], target network's Q-values of the state reached.
      gamma: discount per step, in [0, 1].

    Returns:
      float32[], no gradient through the target.
    """
    target = reward + gamma * jnp.where(terminated, 0.0, next_q.max())
    return jax.lax.stop_gradient(target) - q[action]


def double_td_error(
    q: jax.Array,
    action: jax.Array,
    reward: jax.Array,
    terminated: jax.Array,
    next_q: jax.Array,
    next_q_online: jax.Array,
    gamma: float | jax.Array,
) -> jax.Array:
    """As `td_error`, with the next action chosen by the online network.

    Source: van Hasselt, Guez & Silver 2016, equation 4.

    Args:
      next_q_online: float32[A], online network's Q-values of the state reached.

    Returns:
      float32[], no gradient through the target.
    """
    future = next_q[next_q_online.argmax()]
    target = reward + gamma * jnp.where(terminated, 0.0, future)
    return jax.lax.stop_gradient(target) - q[action]


def huber(error: jax.Array, delta: float = 1.0) -> jax.Array:
    """Quadratic up to `delta`, linear beyond: 0.5 e^2, else delta (|e| - 0.5 delta).

    Source: Huber 1964.
    """
    size = jnp.abs(error)
    inside = jnp.minimum(size, delta)
    return 0.5 * inside**2 + delta * (size - inside)


def binary_cross_entropy(
    logit: jax.Array, label: jax.Array, positive_weight: jax.Array
) -> jax.Array:
    """Negative log-likelihood of `label` (0 or 1) under sigmoid(logit), in nats.

    A positive example counts `positive_weight` times.
    """
    label = label.astype(logit.dtype)
    return positive_weight * label * jax.nn.softplus(-logit) + (1.0 - label) * jax.nn.softplus(
        logit
    )
