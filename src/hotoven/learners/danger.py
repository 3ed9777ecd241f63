"""The blocker's classifier: does this action, here, end in a catastrophe?

Learned from experience on the training levels only: transitions collected by epsilon-greedy play,
labelled by what happened. One set of levels is given as a range of indices, an array, so that the
classifiers of every training-set size, and those fitted for calibration, train in one program.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hotoven import nets
from hotoven.learners.experience import (
    Transition,
    empty_ring,
    reset_all,
    sample_ring,
    step_all,
    write_ring,
)
from hotoven.losses import binary_cross_entropy
from hotoven.types import LARGEST, Env, Net, PyTree


@dataclass(frozen=True)
class DangerConfig:
    """Settings of the blocker's classifier."""

    filters: tuple[int, ...] = (16, 32)  # 3x3 filters per convolution
    hidden: tuple[int, ...] = (64,)  # units per dense layer
    pool: bool = True  # judge by the largest value of each filter, wherever on the grid it is
    learning_rate: float = 1e-3  # step size of Adam
    batch_size: int = 64  # transitions per gradient step
    num_updates: int = 4000  # gradient steps
    num_envs: int = 64  # episodes played side by side while collecting
    num_steps: int = 500  # steps of each while collecting
    calibration_share: float = 0.2  # share of training levels held out to report calibration

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_updates", "num_envs", "num_steps"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ValueError(f"{name} must be from 1 to {LARGEST}, got {getattr(self, name)}")
        if not 0.0 < self.calibration_share < 1.0:
            raise ValueError(
                f"calibration_share must be between 0 and 1, got {self.calibration_share}"
            )
        for name in ("filters", "hidden"):
            if not all(1 <= width <= LARGEST for width in getattr(self, name)):
                raise ValueError(
                    f"{name} must be from 1 to {LARGEST} each, got {getattr(self, name)}"
                )
        if not 0.0 < self.learning_rate < math.inf:  # NaN is refused too
            raise ValueError(f"learning_rate must be above 0 and finite, got {self.learning_rate}")


class Danger(NamedTuple):
    """Collecting and fitting, as pure functions of one classifier; vmap adds more."""

    # (act, levels, num_levels, key) -> Transition with leaves [num_envs * num_steps, ...];
    # act(obs) -> int32[] is the policy that explores with.
    collect: Callable[[Callable, PyTree, jax.Array, jax.Array], Transition]
    fit: Callable[[Transition, jax.Array], PyTree]  # (experience, key) -> params
    net: Net  # observation -> float32[A], log-odds of a catastrophe


def make_danger(config: DangerConfig, env: Env) -> Danger:
    """The learner of one classifier on `env`."""
    net = nets.cnn(
        env.obs_shape,
        config.filters,
        config.hidden,
        env.num_actions,
        pool=config.pool,
        high=env.obs_high,
    )
    optimizer = optax.adam(config.learning_rate)

    def collect(
        act: Callable[[jax.Array], jax.Array], levels: PyTree, num_levels: jax.Array, key: jax.Array
    ) -> Transition:
        """Play with a share of random actions that differs from env to env, from 0.1 to 1."""
        k_reset, k_play = jax.random.split(key)
        epsilon = jnp.linspace(0.1, 1.0, config.num_envs)
        state, start = reset_all(env, levels, num_levels, config.num_envs, k_reset)
        ring = empty_ring(env, config.num_envs * config.num_steps, start.obs.dtype)

        def body(carry: tuple, t: jax.Array) -> tuple[tuple, None]:
            state, obs, ring = carry
            k_explore, k_random, k_step = jax.random.split(jax.random.fold_in(k_play, t), 3)
            explores = jax.random.uniform(k_explore, (config.num_envs,)) < epsilon
            random = jax.random.randint(k_random, (config.num_envs,), 0, env.num_actions)
            action = jnp.where(explores, random, jax.vmap(act)(obs)).astype(jnp.int32)
            state, obs, new, _ = step_all(env, levels, num_levels, state, obs, action, k_step)
            return (state, obs, write_ring(ring, new, t * config.num_envs)), None

        return jax.lax.scan(body, (state, start.obs, ring), jnp.arange(config.num_steps))[0][2]

    def fit(experience: Transition, key: jax.Array) -> PyTree:
        """Balanced in training, then shifted back: the log-odds are those of the experience."""
        k_init, k_train = jax.random.split(key)
        num_rows = experience.action.shape[0]
        positives = jnp.maximum(experience.catastrophe.sum().astype(jnp.float32), 1.0)
        weight = jnp.maximum((num_rows - positives) / positives, 1.0)

        def loss(params: PyTree, batch: Transition) -> jax.Array:
            logits = net.apply(params, batch.obs)
            chosen = jnp.take_along_axis(logits, batch.action[:, None], axis=1)[:, 0]
            return binary_cross_entropy(chosen, batch.catastrophe, weight).mean()

        def update(carry: tuple, t: jax.Array) -> tuple[tuple, None]:
            params, opt = carry
            batch = sample_ring(
                experience, jnp.int32(num_rows), config.batch_size, jax.random.fold_in(k_train, t)
            )
            changes, opt = optimizer.update(jax.grad(loss)(params, batch), opt, params)
            return (optax.apply_updates(params, changes), opt), None

        params = net.init(k_init)
        start = (params, optimizer.init(params))
        (params, _), _ = jax.lax.scan(update, start, jnp.arange(config.num_updates))
        last = params["head"][-1]
        # a positive counted `weight` times raises the log-odds by log(weight)
        shifted = {"w": last["w"], "b": last["b"] - jnp.log(weight)}
        return {**params, "head": [*params["head"][:-1], shifted]}

    return Danger(collect, fit, net)
