"""Proximal policy optimisation of one agent, as pure functions; `agents.train` makes ensembles.

`make_ppo(config, env)` gives `init` and `iterate`: an iteration plays `num_steps` steps of all
environments and learns from them, in one program. Source: Schulman et al. 2017, with the reward
normalisation and the settings of Cobbe et al. 2020 (procgen).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hotoven import nets
from hotoven.devices import cache_mib
from hotoven.learners.experience import advance_all, reset_all, terminates, where
from hotoven.learners.learner import Learner, Progress
from hotoven.losses import clipped_policy_loss, entropy, gae, value_loss
from hotoven.types import LARGEST, OUTCOMES, RUNNING, TIMEOUT, AgentOutput, Env, Net, PyTree

REWARD_LIMIT: Final = 10.0  # a normalised reward is clipped to this

# Pictures that a core learns from at once where a minibatch can be cut so (see `rows_at_once`).
NATURE_PER_MIB: Final = 32  # for each MiB of its second-level cache
NATURE_LEAST, NATURE_MOST = 4, 64
IMPALA_ROWS: Final = 4


@dataclass(frozen=True)
class PPOConfig:
    """Settings of one agent's training."""

    net: Literal["mlp", "small", "nature", "impala"] = "small"  # network: small for symbols
    hidden: tuple[int, ...] = (128,)  # units per dense layer (mlp)
    learning_rate: float = 5e-4  # step size of Adam
    learning_rate_end: float = 1.0  # share of it left after the last update; falls linearly
    gamma: float = 0.999  # discount per step
    gae_lambda: float = 0.95  # 0 trusts the next value, 1 the rewards alone
    clip: float = 0.2  # an action may become this much likelier or unlikelier in one iteration
    value_clip: float | None = None  # the same for values; none: they are not clipped
    entropy_weight: float = 0.01  # worth of one nat of entropy in the loss
    entropy_weight_end: float = 1.0  # share of it left in the last iteration; falls linearly
    value_weight: float = 0.5  # worth of the value loss
    max_grad_norm: float = 0.5  # a longer gradient is cut to this length
    normalise_rewards: bool = True  # divide by the standard deviation of discounted returns
    num_envs: int = 64  # episodes played side by side
    num_steps: int = 256  # steps of each in one iteration; at most the time limit
    num_minibatches: int = 8  # parts of an iteration's steps, one gradient step each
    num_epochs: int = 3  # times that an iteration's steps are learned from
    num_iterations: int = 100  # in all
    rows_at_once: int | None = None  # of a minibatch; none: by a CPU's cache for pictures, else all
    bfloat16: bool = False  # products of bfloat16 numbers, for accelerators

    def __post_init__(self) -> None:
        known = ("mlp", "small", "nature", "impala")
        _check(self, "net", self.net in known, f"one of {', '.join(known)}")
        fits = all(1 <= width <= LARGEST for width in self.hidden)
        _check(self, "hidden", fits, f"from 1 to {LARGEST} each")
        for name in ("learning_rate", "max_grad_norm", "clip"):
            _check(self, name, 0.0 < getattr(self, name) < math.inf, "above 0 and finite")
        _check(
            self,
            "value_clip",
            self.value_clip is None or 0.0 < self.value_clip < math.inf,
            "none, or above 0 and finite",
        )
        for name in ("gamma", "gae_lambda", "learning_rate_end", "entropy_weight_end"):
            _check(self, name, 0.0 <= getattr(self, name) <= 1.0, "from 0 to 1")
        for name in ("entropy_weight", "value_weight"):
            _check(self, name, 0.0 <= getattr(self, name) < math.inf, "at least 0 and finite")
        for name in ("num_envs", "num_steps", "num_minibatches", "num_epochs", "num_iterations"):
            _check(self, name, 1 <= getattr(self, name) <= LARGEST, f"from 1 to {LARGEST}")
        _check(
            self,
            "num_minibatches",
            self.num_envs * self.num_steps % self.num_minibatches == 0,
            f"a divisor of num_envs * num_steps ({self.num_envs * self.num_steps})",
        )
        rows = self.minibatch_size
        _check(
            self,
            "rows_at_once",
            self.rows_at_once is None or (self.rows_at_once > 0 and rows % self.rows_at_once == 0),
            f"none, or a divisor of the steps in a minibatch ({rows})",
        )

    @property
    def minibatch_size(self) -> int:
        """Steps that one gradient step learns from."""
        return self.num_envs * self.num_steps // self.num_minibatches

    @property
    def updates_per_iteration(self) -> int:
        """Gradient steps in one iteration."""
        return self.num_epochs * self.num_minibatches


class RewardScale(NamedTuple):
    """Running moments of the discounted returns by which rewards are divided."""

    discounted: jax.Array  # float32[E]  of the episode so far
    num_steps: jax.Array  # float32[]  seen
    mean: jax.Array  # float32[]
    squares: jax.Array  # float32[]  sum of squared deviations from the mean


class AgentState(NamedTuple):
    """All that training one agent needs to go on."""

    params: PyTree
    optimizer: PyTree
    env_state: PyTree  # leaves [E, ...]
    scale: RewardScale
    key: jax.Array


class Steps(NamedTuple):
    """What was played; leaves [T, E, ...] or, mixed, [rows, ...]."""

    obs: jax.Array
    action: jax.Array  # int32
    log_probability: jax.Array  # float32, of the action when it was taken
    value: jax.Array  # float32, of the state left


class Batch(NamedTuple):
    """What one gradient step learns from; leaves [rows, ...]."""

    steps: Steps
    advantage: jax.Array  # float32
    target: jax.Array  # float32, of the value


def make_net(config: PPOConfig, env: Env, with_kernels: bool = True) -> Net:
    """The network: observation -> float32[A + 1], the actions' logits and the value.

    IMPALA's on a GPU is computed by `hotoven.kernels`, unless told not to be: the same numbers but
    for rounding.

    The last layer starts at zero: a new agent acts uniformly and expects nothing. With random
    values their noise would be all the advantage there is until the first reward, and advantages
    are normalised: the agent would learn to chase it, and many never met a coin.
    """
    shape, num_outputs, high = env.obs_shape, env.num_actions + 1, env.obs_high
    if config.net == "mlp":
        wholes = env.num_wholes
        net = nets.mlp(
            shape, config.hidden, num_outputs, high=high, last_gain=0.0, num_wholes=wholes
        )
    elif config.net == "impala":
        found = _kernels(env) if with_kernels else None
        net = nets.impala_cnn(shape, num_outputs, high=high, last_gain=0.0, convolutions=found)
    else:
        layers, hidden = nets.NATURE if config.net == "nature" else nets.SMALL
        net = nets.strided_cnn(shape, layers, hidden, num_outputs, high, last_gain=0.0)
    return nets.in_bfloat16(net) if config.bfloat16 else net


def kept(config: PPOConfig, params: PyTree) -> PyTree:
    """What an agent needs of its params once it has learned: as precise as its network uses them.

    In bfloat16 they take half the room. On a CPU no number that the network gives changes by a bit;
    a GPU's compiler may keep more bits of a float32 than were asked for.
    """
    return nets.halved(params) if config.bfloat16 else params


def _kernels(env: Env) -> Callable[[PyTree, jax.Array], jax.Array] | None:
    """What computes IMPALA's convolutions of `env` on a GPU; None where nothing does."""
    device = jax.local_devices()[0]
    if device.platform != "gpu" or env.obs_high != 255:
        return None
    try:
        # not above: JAX is to drop what they are written in (docs/decisions/0014-kernels.md)
        from hotoven import kernels
    except ImportError:
        return None
    usable = kernels.runs_on(device) and kernels.supports(env.obs_shape)
    return kernels.impala if usable else None


def rows_at_once(config: PPOConfig) -> int:
    """Rows of a minibatch that are learned from at once: as asked for, or all of them.

    But on a CPU convolutions of pictures learn in parts unless told otherwise: of the largest
    divisor of the minibatch up to what measured well for the size of the cache
    (docs/decisions/0010-convolutions.md). If it has no such divisor but 1, all of it is one part.
    """
    rows = config.minibatch_size
    if config.rows_at_once is not None:
        return config.rows_at_once
    if jax.local_devices()[0].platform != "cpu" or config.net not in ("nature", "impala"):
        return rows
    by_cache = max(NATURE_LEAST, min(int(NATURE_PER_MIB * cache_mib()), NATURE_MOST))
    most = by_cache if config.net == "nature" else IMPALA_ROWS
    return max((count for count in range(2, most + 1) if rows % count == 0), default=rows)


def output(net: Net, params: PyTree, obs: jax.Array) -> AgentOutput:
    """Action probabilities and value of one observation or many."""
    logits, value = _heads(net, params, obs)
    return AgentOutput(jax.nn.softmax(logits), value)


def _heads(net: Net, params: PyTree, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    both = net.apply(params, obs)
    return both[..., :-1], both[..., -1]


def make_ppo(config: PPOConfig, env: Env) -> Learner:
    """The learner of one agent on `env`.

    Raises:
      ValueError: an episode could end by the clock twice in one iteration.
    """
    if config.num_steps > env.max_steps:
        raise ValueError(
            f"num_steps must be at most the time limit of {env.name} ({env.max_steps}), "
            f"got {config.num_steps}"
        )
    net = make_net(config, env)
    optimizer = make_optimizer(config)

    def init(levels: PyTree, num_levels: jax.Array, key: jax.Array) -> AgentState:
        k_net, k_reset, k_train = jax.random.split(key, 3)
        params = net.init(k_net)
        env_state, _ = reset_all(env, levels, num_levels, config.num_envs, k_reset)
        zero = jnp.float32(0.0)
        scale = RewardScale(jnp.zeros(config.num_envs), zero, zero, zero)
        return AgentState(params, optimizer.init(params), env_state, scale, k_train)

    def rollout(
        state: AgentState, levels: PyTree, num_levels: jax.Array, key: jax.Array
    ) -> tuple[AgentState, Batch, jax.Array]:
        """The state after `num_steps` steps, what was played, and int8[T, E] its outcomes."""

        def step(carry: tuple, key: jax.Array) -> tuple[tuple, tuple]:
            env_state, last, scale = carry
            k_act, k_step = jax.random.split(key)
            obs = jax.vmap(env.observe)(env_state)
            logits, value = _heads(net, state.params, obs)
            action = jax.random.categorical(k_act, logits).astype(jnp.int32)
            log_probability = _log_probability(logits, action)
            stepped, shown, env_state = advance_all(
                env, levels, num_levels, env_state, action, k_step
            )
            # an episode is cut off by the clock once at most: see the check above
            last = where(shown.outcome == TIMEOUT, stepped, last)
            scale = _observe_rewards(scale, shown.reward, shown.outcome != RUNNING, config.gamma)
            steps = Steps(obs, action, log_probability, value)
            return (env_state, last, scale), (steps, shown.reward, shown.outcome)

        start = (state.env_state, state.env_state, state.scale)
        keys = jax.random.split(key, config.num_steps)
        (env_state, last, scale), (steps, reward, outcome) = jax.lax.scan(step, start, keys)
        if config.normalise_rewards:
            reward = jnp.clip(reward / _deviation(scale), -REWARD_LIMIT, REWARD_LIMIT)
        values_of = lambda states: _heads(net, state.params, jax.vmap(env.observe)(states))[1]  # noqa: E731
        following = jnp.concatenate([steps.value[1:], values_of(env_state)[None]])
        next_value = jnp.where(outcome == TIMEOUT, values_of(last), following)
        advantage = jax.vmap(
            partial(gae, gamma=config.gamma, gae_lambda=config.gae_lambda), in_axes=1, out_axes=1
        )(reward, steps.value, next_value, terminates(outcome), outcome != RUNNING)
        batch = Batch(steps, advantage, advantage + steps.value)
        return state._replace(env_state=env_state, scale=scale), batch, outcome

    def iterate(
        state: AgentState, t: jax.Array, levels: PyTree, num_levels: jax.Array
    ) -> tuple[AgentState, Progress]:
        key, k_play, k_mix = jax.random.split(state.key, 3)
        state, batch, outcome = rollout(state, levels, num_levels, k_play)
        num_rows = config.num_envs * config.num_steps
        rows = jax.tree.map(lambda leaf: leaf.reshape(num_rows, *leaf.shape[2:]), batch)

        entropy_weight = config.entropy_weight * _fall(config, t)

        def update(carry: tuple, index: jax.Array) -> tuple[tuple, jax.Array]:
            params, opt = carry
            minibatch = jax.tree.map(lambda leaf: leaf[index], rows)
            value, grads = _loss_and_grads(config, net, params, minibatch, entropy_weight)
            changes, opt = optimizer.update(grads, opt, params)
            return (optax.apply_updates(params, changes), opt), value

        mixed = jax.vmap(jax.random.permutation, (0, None))(
            jax.random.split(k_mix, config.num_epochs), num_rows
        )
        (params, opt), losses = jax.lax.scan(
            update,
            (state.params, state.optimizer),
            mixed.reshape(config.updates_per_iteration, -1),
        )
        ended = (outcome[..., None] == jnp.arange(len(OUTCOMES))).sum(axis=(0, 1))
        state = state._replace(params=params, optimizer=opt, key=key)
        return state, Progress(losses.mean(), ended.astype(jnp.int32))

    return Learner(init, iterate, net)


def make_optimizer(config: PPOConfig) -> optax.GradientTransformation:
    """Adam with PPO's usual epsilon of 1e-5, on gradients of limited length."""
    num_updates = config.num_iterations * config.updates_per_iteration
    rate = optax.linear_schedule(
        config.learning_rate, config.learning_rate * config.learning_rate_end, num_updates
    )
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(rate, eps=1e-5))


def _fall(config: PPOConfig, t: jax.Array) -> jax.Array:
    """float32[]: the share of the entropy's worth that is left in iteration t."""
    done = t.astype(jnp.float32) / max(config.num_iterations - 1, 1)
    return 1.0 - (1.0 - config.entropy_weight_end) * done


def _loss(
    config: PPOConfig, net: Net, params: PyTree, batch: Batch, entropy_weight: jax.Array
) -> jax.Array:
    """The clipped objective, the value's loss and the entropy of some steps, as one number."""
    logits, value = _heads(net, params, batch.steps.obs)
    policy = clipped_policy_loss(
        _log_probability(logits, batch.steps.action),
        batch.steps.log_probability,
        batch.advantage,
        config.clip,
    )
    values = value_loss(value, batch.steps.value, batch.target, config.value_clip)
    spread = jax.vmap(entropy)(logits)
    each = policy + config.value_weight * values - entropy_weight * spread
    return each.mean()


def _loss_and_grads(
    config: PPOConfig, net: Net, params: PyTree, batch: Batch, entropy_weight: jax.Array
) -> tuple[jax.Array, PyTree]:
    """The loss of a minibatch, its advantages normalised, and the gradient; in parts or at once.

    Parts are of one size, so the mean over them is the mean over all steps.
    """
    advantage = batch.advantage - batch.advantage.mean()
    batch = batch._replace(advantage=advantage / (batch.advantage.std() + 1e-8))
    of_part = jax.value_and_grad(partial(_loss, config, net))
    rows = rows_at_once(config)
    if rows == batch.advantage.shape[0]:
        return of_part(params, batch, entropy_weight)
    parts = jax.tree.map(lambda leaf: leaf.reshape(-1, rows, *leaf.shape[1:]), batch)

    def add(total: PyTree, part: Batch) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, of_part(params, part, entropy_weight)), None

    nothing = (jnp.float32(0.0), jax.tree.map(jnp.zeros_like, params))
    total, _ = jax.lax.scan(add, nothing, parts)
    num_parts = jnp.float32(batch.advantage.shape[0] // rows)
    return jax.tree.map(lambda leaf: leaf / num_parts, total)


def _log_probability(logits: jax.Array, action: jax.Array) -> jax.Array:
    """float32[...]: that of each action under its row of logits [..., A]."""
    each = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(each, action[..., None], axis=-1)[..., 0]


def _observe_rewards(
    scale: RewardScale, reward: jax.Array, ended: jax.Array, gamma: float
) -> RewardScale:
    """The moments with one step of every environment added. Source: Chan et al. 1983."""
    discounted = scale.discounted * gamma + reward
    num = jnp.float32(reward.shape[0])
    count = scale.num_steps + num
    away = discounted.mean() - scale.mean
    mean = scale.mean + away * num / count
    squares = scale.squares + discounted.var() * num + away**2 * scale.num_steps * num / count
    return RewardScale(jnp.where(ended, 0.0, discounted), count, mean, squares)


def _deviation(scale: RewardScale) -> jax.Array:
    return jnp.sqrt(scale.squares / scale.num_steps + 1e-8)


def _check(config: PPOConfig, name: str, holds: bool, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {allowed}, got {getattr(config, name)!r}")
