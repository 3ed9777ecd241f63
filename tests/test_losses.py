"""Losses give the numbers worked out by hand, plain, compiled and batched."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hotoven import losses

Q = jnp.array([1.0, 2.0, 3.0])
NEXT_Q = jnp.array([4.0, 0.0, 2.0])
ONLINE = jnp.array([0.0, 1.0, 5.0])  # chooses action 2, which NEXT_Q values at 2
HALF = jnp.float32(0.5)
YES, NO = jnp.array(True), jnp.array(False)
ACTION = jnp.int32(1)


def check(function: Callable[..., jax.Array], args: tuple, expected: float) -> None:
    """The value plain, under jit and under vmap; dtype float32, also under strict promotion."""
    with jax.numpy_dtype_promotion("strict"):
        plain = function(*args)
        compiled = jax.jit(function)(*args)
        batched = jax.vmap(function)(*jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), args))
    assert plain.dtype == jnp.float32
    assert plain.shape == ()
    np.testing.assert_allclose(plain, expected, rtol=1e-6)
    np.testing.assert_allclose(compiled, expected, rtol=1e-6)
    np.testing.assert_allclose(batched, [expected] * 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("terminated", "expected"),
    [
        (NO, 2.1),  # 0.5 + 0.9 * 4 - 2
        (YES, -1.5),  # 0.5 - 2
    ],
)
def test_td_error_is_target_minus_estimate(terminated: jax.Array, expected: float):
    args = (Q, ACTION, HALF, terminated, NEXT_Q, jnp.float32(0.9))
    check(losses.td_error, args, expected)


@pytest.mark.parametrize(
    ("terminated", "expected"),
    [
        (NO, 0.3),  # 0.5 + 0.9 * 2 - 2: the online network's choice, the target network's value
        (YES, -1.5),
    ],
)
def test_double_td_error_values_the_online_choice(terminated: jax.Array, expected: float):
    args = (Q, ACTION, HALF, terminated, NEXT_Q, ONLINE, jnp.float32(0.9))
    check(losses.double_td_error, args, expected)


def test_no_gradient_passes_through_the_target():
    def single(q: jax.Array, next_q: jax.Array) -> jax.Array:
        return losses.td_error(q, ACTION, HALF, NO, next_q, 0.9)

    def double(q: jax.Array, next_q: jax.Array) -> jax.Array:
        return losses.double_td_error(q, ACTION, HALF, NO, next_q, q, 0.9)

    for loss in (single, double):
        to_q, to_next_q = jax.grad(loss, argnums=(0, 1))(Q, NEXT_Q)
        np.testing.assert_array_equal(to_q, [0.0, -1.0, 0.0])
        np.testing.assert_array_equal(to_next_q, [0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("error", "delta", "expected"),
    [(0.5, 1.0, 0.125), (-2.0, 1.0, 1.5), (-3.0, 2.0, 4.0), (1.0, 1.0, 0.5), (0.0, 1.0, 0.0)],
)
def test_huber_is_quadratic_then_linear(error: float, delta: float, expected: float):
    check(losses.huber, (jnp.float32(error), jnp.float32(delta)), expected)


@pytest.mark.parametrize("delta", [0.5, 1.0, 3.0])
def test_huber_agrees_with_optax_in_value_and_gradient(delta: float):
    errors = jnp.linspace(-5.0, 5.0, 41)

    def judge(error: jax.Array) -> jax.Array:
        return optax.huber_loss(error, delta=delta)

    ours = jax.vmap(jax.value_and_grad(lambda error: losses.huber(error, delta)))(errors)
    theirs = jax.vmap(jax.value_and_grad(judge))(errors)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("logit", "label", "weight", "expected"),
    [
        (0.0, True, 1.0, math.log(2)),
        (0.0, True, 3.0, 3 * math.log(2)),
        (0.0, False, 3.0, math.log(2)),  # the weight is for positives alone
        (2.0, False, 1.0, math.log(1 + math.exp(2))),
        (-100.0, True, 1.0, 100.0),  # no overflow
        (100.0, True, 1.0, 0.0),
    ],
)
def test_binary_cross_entropy_is_in_nats(logit: float, label: bool, weight: float, expected: float):
    args = (jnp.float32(logit), jnp.array(label), jnp.float32(weight))
    check(losses.binary_cross_entropy, args, expected)


def test_binary_cross_entropy_agrees_with_optax():
    logits = jnp.linspace(-8.0, 8.0, 33)
    for label in (0.0, 1.0):
        ours = jax.vmap(lambda x, y=label: losses.binary_cross_entropy(x, jnp.float32(y), 1.0))(
            logits
        )
        theirs = optax.sigmoid_binary_cross_entropy(logits, jnp.full(33, label))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


# PPO


def test_advantages_are_discounted_sums_of_errors_within_an_episode():
    # Steps 0 and 1 are one episode, which terminates; 2 times out; 3 goes on.
    reward = jnp.array([1.0, 2.0, 0.0, 1.0])
    value = jnp.array([0.5, 1.0, 2.0, 3.0])
    next_value = jnp.array([1.0, 9.0, 4.0, 5.0])  # 9 is the value of nothing: step 1 terminated
    terminated = jnp.array([False, True, False, False])
    ended = jnp.array([False, True, True, False])
    args = (reward, value, next_value, terminated, ended, jnp.float32(0.5), jnp.float32(0.8))
    # errors: 1 + .5 - .5 = 1; 2 - 1 = 1; 0 + 2 - 2 = 0; 1 + 2.5 - 3 = 0.5
    expected = [1 + 0.4 * 1, 1, 0, 0.5]
    with jax.numpy_dtype_promotion("strict"):
        plain = losses.gae(*args)
    np.testing.assert_allclose(plain, expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(losses.gae)(*args), expected, rtol=1e-6)
    many = jax.vmap(losses.gae)(*jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), args))
    np.testing.assert_allclose(many, [expected] * 3, rtol=1e-6)


def test_with_lambda_1_the_target_is_the_return_and_with_0_one_step():
    generator = np.random.default_rng(0)
    reward, value, last = generator.normal(size=(3, 6)).astype(np.float32)
    next_value = np.append(value[1:], last[0])
    no = np.zeros(6, bool)
    target = value + losses.gae(reward, value, next_value, no, no, 0.9, 1.0)
    returns = [sum(0.9**k * reward[t + k] for k in range(6 - t)) for t in range(6)]
    returns = [one + 0.9 ** (6 - t) * last[0] for t, one in enumerate(returns)]
    np.testing.assert_allclose(target, returns, rtol=1e-5, atol=1e-6)
    short = value + losses.gae(reward, value, next_value, no, no, 0.9, 0.0)
    np.testing.assert_allclose(short, reward + 0.9 * next_value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 2.0, -2.0),
        (1.5, 2.0, -2.4),  # better by half, counted up to a fifth
        (0.5, 2.0, -1.0),  # worse is counted in full
        (0.5, -2.0, 1.6),  # less of what is bad, counted up to a fifth
        (1.5, -2.0, 3.0),
    ],
)
def test_the_policy_loss_stops_counting_beyond_the_clip(ratio, advantage, expected):
    args = (jnp.float32(math.log(ratio) - 1.0), jnp.float32(-1.0), jnp.float32(advantage))
    check(lambda *some: losses.clipped_policy_loss(*some, clip=0.2), args, expected)


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (None, 0.5),  # half of (3 - 4)^2
        (0.5, 1.125),  # from 2 the value may go to 2.5 only: half of 1.5^2
        (2.0, 0.5),
    ],
)
def test_the_value_loss_is_the_larger_of_plain_and_clipped(clip, expected):
    args = (jnp.float32(3.0), jnp.float32(2.0), jnp.float32(4.0))
    check(lambda *some: losses.value_loss(*some, clip=clip), args, expected)


def test_entropy_is_that_of_the_softmax():
    check(losses.entropy, (jnp.zeros(4),), math.log(4))
    check(losses.entropy, (jnp.log(jnp.array([0.5, 0.25, 0.25])) + 7.0,), 1.5 * math.log(2))
