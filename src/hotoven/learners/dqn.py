"""Deep Q-learning of one agent, as pure functions of which `agents.train` makes a whole study.

`make_dqn(config, env)` gives `init` and `iterate` for one agent; agents differ by key and by the
number of training levels they may see, both of which are arrays, so that every member of every
ensemble of every training-set size trains in one compiled program on each device.
Differences from the paper are numbered in docs/differences.md.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

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
from hotoven.learners.learner import Learner, Progress
from hotoven.losses import double_td_error, huber, td_error
from hotoven.types import LARGEST, OUTCOMES, Env, Net, PyTree


@dataclass(frozen=True)
class DQNConfig:
    """Settings of one agent's training."""

    net: Literal["cnn", "mlp"] = "cnn"  # network family
    filters: tuple[int, ...] = (32, 32)  # 3x3 filters per convolution (cnn)
    hidden: tuple[int, ...] = (128,)  # units per dense layer
    dropout: float = 0.0  # share of hidden units dropped in training
    optimizer: Literal["adam", "rmsprop"] = "adam"  # gradient method
    learning_rate: float = 5e-4  # step size of the gradient method
    learning_rate_end: float = 1.0  # share of it left after the last update; falls linearly
    gamma: float = 0.95  # discount per step
    batch_size: int = 64  # transitions per update
    replay_capacity: int = 10_240  # transitions kept; a multiple of num_envs
    num_updates: int = 10_000  # gradient steps in all
    num_envs: int = 32  # episodes played side by side by one agent
    steps_per_update: int = 4  # env steps per gradient step; divides num_envs
    target_period: int = 512  # gradient steps between copies into the target network
    epsilon_start: float = 1.0  # share of random actions at the start
    epsilon_end: float = 0.05  # smallest share of random actions
    epsilon_decay: float = 0.999  # factor on the share of random actions per gradient step
    double_q: bool = True  # the online network chooses the next action, the target values it
    huber_delta: float = 1.0  # errors beyond this count linearly

    def __post_init__(self) -> None:
        _check(self, "net", self.net in ("cnn", "mlp"), "cnn or mlp")
        _check(self, "optimizer", self.optimizer in ("adam", "rmsprop"), "adam or rmsprop")
        _check(self, "dropout", 0.0 <= self.dropout < 1.0, "at least 0 and below 1")
        _check(self, "learning_rate", 0.0 < self.learning_rate < math.inf, "above 0 and finite")
        _check(self, "gamma", 0.0 <= self.gamma <= 1.0, "from 0 to 1")
        for name in ("batch_size", "num_updates", "num_envs", "steps_per_update", "target_period"):
            _check(self, name, 1 <= getattr(self, name) <= LARGEST, f"from 1 to {LARGEST}")
        for name in ("filters", "hidden"):
            fits = all(1 <= width <= LARGEST for width in getattr(self, name))
            _check(self, name, fits, f"from 1 to {LARGEST} each")
        _check(self, "hidden", len(self.hidden) >= 1 or self.dropout == 0.0, "a layer for dropout")
        for name in ("learning_rate_end", "epsilon_start", "epsilon_end", "epsilon_decay"):
            _check(self, name, 0.0 <= getattr(self, name) <= 1.0, "from 0 to 1")
        _check(
            self,
            "steps_per_update",
            self.num_envs % self.steps_per_update == 0,
            f"a divisor of num_envs ({self.num_envs})",
        )
        _check(
            self,
            "replay_capacity",
            self.replay_capacity >= self.num_envs and self.replay_capacity % self.num_envs == 0,
            f"a positive multiple of num_envs ({self.num_envs})",
        )
        _check(self, "huber_delta", 0.0 < self.huber_delta < math.inf, "above 0 and finite")
        _check(
            self,
            "num_updates",
            self.num_updates % self.updates_per_iteration == 0,
            f"a multiple of num_envs / steps_per_update ({self.updates_per_iteration})",
        )
        _check(
            self,
            "target_period",
            self.target_period % self.updates_per_iteration == 0,
            f"a multiple of num_envs / steps_per_update ({self.updates_per_iteration})",
        )

    @property
    def updates_per_iteration(self) -> int:
        """Gradient steps after each step of all environments."""
        return self.num_envs // self.steps_per_update

    @property
    def num_iterations(self) -> int:
        """Steps of all environments in one training."""
        return self.num_updates // self.updates_per_iteration


class AgentState(NamedTuple):
    """All that training one agent needs to go on."""

    params: PyTree
    target: PyTree  # the target network's params
    optimizer: PyTree
    replay: Transition  # leaves [replay_capacity, ...]
    env_state: PyTree  # leaves [E, ...]
    obs: jax.Array  # [E, *obs_shape]
    key: jax.Array


def make_net(config: DQNConfig, env: Env) -> Net:
    """The Q-network: observation -> float32[A]."""
    if config.net == "mlp":
        return nets.mlp(env.obs_shape, config.hidden, env.num_actions, config.dropout)
    return nets.cnn(env.obs_shape, config.filters, config.hidden, env.num_actions, config.dropout)


def make_dqn(config: DQNConfig, env: Env) -> Learner:
    """The learner of one agent on `env`: act, remember, then `updates_per_iteration` updates."""
    net = make_net(config, env)
    optimizer = make_optimizer(config)

    def init(levels: PyTree, num_levels: jax.Array, key: jax.Array) -> AgentState:
        k_net, k_reset, k_train = jax.random.split(key, 3)
        params = net.init(k_net)
        env_state, start = reset_all(env, levels, num_levels, config.num_envs, k_reset)
        return AgentState(
            params=params,
            target=params,
            optimizer=optimizer.init(params),
            replay=empty_ring(env, config.replay_capacity, start.obs.dtype),
            env_state=env_state,
            obs=start.obs,
            key=k_train,
        )

    def act(state: AgentState, epsilon: jax.Array, key: jax.Array) -> jax.Array:
        """int32[E]: epsilon-greedy actions."""
        k_explore, k_action = jax.random.split(key)
        greedy = net.apply(state.params, state.obs).argmax(axis=-1)
        random = jax.random.randint(k_action, greedy.shape, 0, env.num_actions)
        explores = jax.random.uniform(k_explore, greedy.shape) < epsilon
        return jnp.where(explores, random, greedy).astype(jnp.int32)

    def loss(params: PyTree, batch: Transition, next_q: jax.Array, key: jax.Array) -> jax.Array:
        k_online, k_next = jax.random.split(key)
        q = net.apply(params, batch.obs, k_online)
        known = (q, batch.action, batch.reward, batch.terminated, next_q)
        if config.double_q:
            online = net.apply(jax.lax.stop_gradient(params), batch.next_obs, k_next)
            errors = jax.vmap(partial(double_td_error, gamma=config.gamma))(
                *known, next_q_online=online
            )
        else:
            errors = jax.vmap(partial(td_error, gamma=config.gamma))(*known)
        return huber(errors, config.huber_delta).mean()

    def iterate(
        state: AgentState, t: jax.Array, levels: PyTree, num_levels: jax.Array
    ) -> tuple[AgentState, Progress]:
        key, k_act, k_step, k_sample, k_drop = jax.random.split(state.key, 5)
        num_updates = t * config.updates_per_iteration
        epsilon = jnp.maximum(
            config.epsilon_end,
            config.epsilon_start * config.epsilon_decay ** num_updates.astype(jnp.float32),
        )
        action = act(state, epsilon, k_act)
        env_state, obs, new, outcome = step_all(
            env, levels, num_levels, state.env_state, state.obs, action, k_step
        )
        replay = write_ring(state.replay, new, (t * config.num_envs) % config.replay_capacity)
        num_filled = jnp.minimum((t + 1) * config.num_envs, config.replay_capacity)

        # The replay and the target network stand still during the updates of an iteration, so that
        # all their batches are drawn, and valued by the target network, at once.
        copies = num_updates % config.target_period == 0
        target = jax.lax.cond(copies, lambda: state.params, lambda: state.target)
        count = config.updates_per_iteration * config.batch_size
        rows = sample_ring(replay, num_filled, count, k_sample)
        next_q = net.apply(target, rows.next_obs)
        in_batches = lambda leaf: leaf.reshape(-1, config.batch_size, *leaf.shape[1:])  # noqa: E731

        def update(carry: tuple, drawn: tuple) -> tuple[tuple, jax.Array]:
            params, opt = carry
            value, grads = jax.value_and_grad(loss)(params, *drawn)
            changes, opt = optimizer.update(grads, opt, params)
            return (optax.apply_updates(params, changes), opt), value

        (params, opt), losses = jax.lax.scan(
            update,
            (state.params, state.optimizer),
            (
                *jax.tree.map(in_batches, (rows, next_q)),
                jax.random.split(k_drop, config.updates_per_iteration),
            ),
        )
        ended = (outcome[:, None] == jnp.arange(len(OUTCOMES))).sum(axis=0).astype(jnp.int32)
        state = AgentState(params, target, opt, replay, env_state, obs, key)
        return state, Progress(losses.mean(), ended)

    return Learner(init, iterate, net)


def make_optimizer(config: DQNConfig) -> optax.GradientTransformation:
    """Adam, or RMSProp with the decay and epsilon of Mnih et al. 2015 (0.95, 0.01), centred."""
    rate = optax.linear_schedule(
        config.learning_rate, config.learning_rate * config.learning_rate_end, config.num_updates
    )
    if config.optimizer == "adam":
        return optax.adam(rate)
    return optax.rmsprop(rate, decay=0.95, eps=0.01, centered=True)


def _check(config: DQNConfig, name: str, holds: bool, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {allowed}, got {getattr(config, name)!r}")
