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


def gae(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    ended: jax.Array,
    gamma: float | jax.Array,
    gae_lambda: float | jax.Array,
) -> jax.Array:
    """Generalised advantage estimates of one stream of steps, in which episodes follow each other.

    A time-out is an end that is not terminated: its future is worth `next_value`, and nothing of
    the episode after it is counted.
    Source: Schulman et al. 2016, equations 11 and 16, cut off at the end of the stream.

    Args:
      reward: float32[T].
      value: float32[T], the estimate of the state left.
      next_value: float32[T], that of the state reached, before any reset.
      terminated: bool[T], True where the future is worth 0.
      ended: bool[T], True where an episode ended, in whatever way.
      gamma: discount per step, in [0, 1].
      gae_lambda: 0 trusts the next value, 1 the rewards alone.

    Returns:
      float32[T]; added to `value` they are the targets of the value function.
    """
    error = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    decay = gamma * gae_lambda * jnp.where(ended, 0.0, 1.0)

    def before(later: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        own, kept = step
        advantage = own + kept * later
        return advantage, advantage

    start = jnp.zeros((), error.dtype)
    return jax.lax.scan(before, start, (error, decay), reverse=True)[1]


def clipped_policy_loss(
    log_probability: jax.Array, old_log_probability: jax.Array, advantage: jax.Array, clip: float
) -> jax.Array:
    """PPO's loss of one action: minus the advantage times how much likelier the action has become.

    Beyond a factor of 1 - clip to 1 + clip a change for the better counts no further.
    Source: Schulman et al. 2017, equation 7.
    """
    ratio = jnp.exp(log_probability - old_log_probability)
    clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    return -jnp.minimum(ratio * advantage, clipped * advantage)


def value_loss(
    value: jax.Array, old_value: jax.Array, target: jax.Array, clip: float | None = None
) -> jax.Array:
    """Half the squared error of one value; with `clip` the larger of that and of the clipped one.

    The clipped value is at most `clip` away from `old_value`, the estimate when the data were made.
    Source: the published code beside Schulman et al. 2017; see Engstrom et al. 2020, section 3.
    """
    error = (value - target) ** 2
    if clip is not None:
        clipped = old_value + jnp.clip(value - old_value, -clip, clip)
        error = jnp.maximum(error, (clipped - target) ** 2)
    return 0.5 * error


def entropy(logits: jax.Array) -> jax.Array:
    """Entropy in nats of the actions' distribution, softmax of `logits` float32[A]."""
    log_probabilities = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_probabilities) * log_probabilities).sum()
