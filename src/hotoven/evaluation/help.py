"""Asking for help: a policy that hands over to a helper for some steps whenever an alarm is raised.

All thresholds are played in one batch on the device. An episode that asks waits there until enough
of them do, while the others go on; then the helper, who works on the host, answers them together.
Who waits loses no time: episodes know nothing of each other.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.devices import at_once, spread
from hotoven.evaluation.rollout import (
    Form,
    Probe,
    as_pytree,
    check_policy,
    distinct,
    level_keys,
    rebuilt,
)
from hotoven.trees import where
from hotoven.types import LARGEST, RUNNING, Env, PyTree

# (states, num_steps, seeds) -> int[N, num_steps], what to do from each of the states. States are
# host arrays, leaves [N, ...]. Whoever draws takes seeds, uint32[N]: then an answer does not depend
# on who else has asked.
Helper = Callable[[PyTree, int, np.ndarray], np.ndarray]
Score = Callable[[PyTree], jax.Array]  # of a probe's output, float32[]; larger is more dangerous

# Episodes that wait for a helper before it is asked: a planner takes as long for one. At most a
# quarter of those played side by side, since who waits takes up a slot.
TOGETHER: Final = 32
NEVER: Final = -1  # the first request of an episode without any, on the device


class Helped(NamedTuple):
    """How each level ended at each threshold. Host arrays [B, L] for B thresholds."""

    outcome: np.ndarray  # int8  SOLVED, CATASTROPHE, TIMEOUT or FAILED
    cause: np.ndarray  # int8  index into env.causes
    length: np.ndarray  # int32  steps
    episode_return: np.ndarray  # float32
    num_requests: np.ndarray  # int32
    num_helped: np.ndarray  # int32  steps that the helper took
    first_request: np.ma.MaskedArray  # int32  steps before it; masked where none was made


def discrimination(values: jax.Array, alpha: jax.Array, beta: jax.Array) -> jax.Array:
    """float32[]: alpha * mean + beta * standard deviation of the members' values [M].

    The blog's U. States worth little are dangerous: alpha is below 0 where a larger score is to
    mean more danger.
    """
    return alpha * values.mean() + beta * values.std()


def play_with_help(
    env: Env,
    policy: Any,
    levels: PyTree,
    key: jax.Array,
    probe: Probe,
    score: Score,
    thresholds: np.ndarray,
    helper: Helper,
    num_steps: int,
    budget: int | None = None,
    num_slots: int = 128,
    devices: Sequence[jax.Device] | None = None,
) -> Helped:
    """Each of `levels` (leaves [L, ...]) played once per threshold, with a helper to ask.

    Where the score of a state is above the threshold and nobody is helping, the helper takes the
    next `num_steps` steps; then the policy acts again, and may ask again at once. All the while the
    policy goes on deciding, though nobody listens: what it remembers is of the whole episode.

    The same key gives the same episodes as `play` and `record` up to the first request: a threshold
    of infinity changes nothing. The result depends neither on `num_slots` nor on `devices`, over
    which levels are spread (all there are). Compiled once per device and kind of policy, probe and
    score; let those of networks be `jax.tree_util.Partial`, as for `record_all`.

    Args:
      thresholds: float32[B], of the score. Infinity never asks, minus infinity always.
      budget: requests that an episode may make; any number if None.
      num_slots: episodes played side by side on each device.

    Raises:
      ValueError: a setting is out of range, or the helper answers with another shape.
    """
    limits = np.asarray(thresholds, np.float32)
    if limits.ndim != 1 or limits.size == 0 or np.isnan(limits).any():
        raise ValueError(f"thresholds must be one or more numbers, got {thresholds}")
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    if budget is not None and budget < 0:
        raise ValueError(f"budget must be none or at least 0, got {budget}")
    num_levels = jax.tree.leaves(levels)[0].shape[0]
    keys = level_keys(key, num_levels)
    arrays, form = distinct((policy, as_pytree(probe), as_pytree(score)))
    most = jnp.int32(LARGEST if budget is None else budget)

    def work(device: jax.Device, part: slice) -> list[np.ndarray]:
        some = jax.tree.map(lambda leaf: leaf[part], levels)
        # of this thread alone: the helper's own programs run there too
        with jax.default_device(device):
            setting = _Setting(arrays, some, keys[part], jnp.asarray(limits), most)
            setting = jax.device_put(setting, device)
            return _play_all(env, form, setting, helper, num_steps, num_slots)

    parts = at_once(work, *zip(*spread(num_levels, devices or jax.devices()), strict=True))
    *others, first = (np.concatenate(leaves, axis=1) for leaves in zip(*parts, strict=True))
    return Helped._make([*others, np.ma.MaskedArray(first, first == NEVER)])


class _Setting(NamedTuple):
    """What does not change while a device plays."""

    arrays: list[jax.Array]  # of the policy, the probe and the score
    levels: PyTree  # leaves [L, ...]
    keys: jax.Array  # [L]
    thresholds: jax.Array  # float32[B]
    budget: jax.Array  # int32[]


class _Tally(NamedTuple):
    """The fields of Helped, of one episode so far; NEVER for a first request that was not made."""

    outcome: jax.Array
    cause: jax.Array
    length: jax.Array
    episode_return: jax.Array
    num_requests: jax.Array
    num_helped: jax.Array
    first_request: jax.Array


class _Slot(NamedTuple):
    """One episode being played."""

    episode: jax.Array  # int32[]  level * B + threshold; L * B where the slot is idle
    state: PyTree
    obs: jax.Array
    memory: PyTree
    waiting: jax.Array  # bool[]  it has asked and goes on when it is answered
    plan: jax.Array  # int32[num_steps]  the helper's last answer
    left: jax.Array  # int32[]  steps of it still to take
    tally: _Tally


class _Game(NamedTuple):
    """All episodes that a device plays."""

    slots: _Slot  # leaves [W, ...]
    queued: jax.Array  # int32[]  the next episode that no slot has begun
    results: _Tally  # leaves [L * B]


def _play_all(
    env: Env, form: Form, setting: _Setting, helper: Helper, num_steps: int, num_slots: int
) -> list[np.ndarray]:
    """All episodes of one device: the fields of a tally, [B, L]."""
    num_levels, num_thresholds = len(setting.keys), len(setting.thresholds)
    num_slots = min(num_slots, num_levels * num_thresholds)
    game = _begin(setting, env, form, num_steps, num_slots)
    plans = np.zeros((num_slots, num_steps), np.int32)
    answered = np.zeros(num_slots, bool)
    while True:
        game, asking, seeds = _go_on(game, plans, answered, setting, env, form)
        answered = np.asarray(asking)
        if not answered.any():
            break  # or somebody would still be going on
        states = jax.tree.map(lambda leaf: np.asarray(leaf)[answered], game.slots.state)  # noqa: B023
        actions = np.asarray(helper(states, num_steps, np.asarray(seeds)[answered]))
        if actions.shape != (answered.sum(), num_steps):
            raise ValueError(
                f"a helper must answer {answered.sum()} states with as many rows of {num_steps} "
                f"actions, got shape {actions.shape}"
            )
        plans = np.zeros_like(plans)
        plans[answered] = actions
    by_level = [np.asarray(leaf).reshape(num_levels, num_thresholds) for leaf in game.results]
    return [leaf.T for leaf in by_level]


@partial(jax.jit, static_argnames=("env", "form", "num_steps", "num_slots"))
def _begin(setting: _Setting, env: Env, form: Form, num_steps: int, num_slots: int) -> _Game:
    """The first episodes at their start."""
    policy, _, _ = rebuilt(setting.arrays, form)
    check_policy(policy)
    num_episodes = len(setting.keys) * len(setting.thresholds)
    start = partial(_start, setting, env, policy, num_steps)
    slots = jax.vmap(start)(jnp.arange(num_slots, dtype=jnp.int32))
    results = jax.tree.map(lambda leaf: jnp.zeros(num_episodes, leaf.dtype), slots.tally)
    return _Game(slots, jnp.int32(num_slots), results)


def _start(setting: _Setting, env: Env, policy: Any, num_steps: int, episode: jax.Array) -> _Slot:
    """A slot at the start of `episode`; one beyond the last is an idle slot."""
    at = jnp.minimum(episode // len(setting.thresholds), len(setting.keys) - 1)
    state, shown = env.reset(jax.tree.map(lambda leaf: leaf[at], setting.levels))
    memory = policy.init(jax.random.fold_in(setting.keys[at], 0))
    zero = jnp.int32(0)
    tally = _Tally(shown.outcome, shown.cause, zero, jnp.float32(0.0), zero, zero, jnp.int32(NEVER))
    plan = jnp.zeros(num_steps, jnp.int32)
    return _Slot(episode, state, shown.obs, memory, jnp.bool_(False), plan, zero, tally)


@partial(jax.jit, static_argnames=("env", "form"))
def _go_on(
    game: _Game, plans: jax.Array, answered: jax.Array, setting: _Setting, env: Env, form: Form
) -> tuple[_Game, jax.Array, jax.Array]:
    """Plays until TOGETHER episodes wait for help, or all that are not over do.

    Args:
      plans: int32[W, num_steps], actions for the slots that are `answered`, bool[W].

    Returns:
      The game; bool[W], which slots are waiting; uint32[W], a seed for the helper of each.
    """
    policy, probe, score = rebuilt(setting.arrays, form)
    num_thresholds = len(setting.thresholds)
    num_episodes = len(setting.keys) * num_thresholds
    num_slots, num_steps = plans.shape
    together = min(TOGETHER, max(1, num_slots // 4))

    def own_key(slot: _Slot) -> jax.Array:
        return setting.keys[jnp.minimum(slot.episode, num_episodes - 1) // num_thresholds]

    def step(slot: _Slot) -> _Slot:
        threshold = setting.thresholds[slot.episode % num_thresholds]
        alarm = score(probe(slot.state, slot.obs)) > threshold
        may_ask = (slot.left == 0) & (slot.tally.num_requests < setting.budget)
        waiting = slot.waiting | (alarm & may_ask)
        k_act = jax.random.fold_in(own_key(slot), slot.tally.length + 1)
        after = _step(env, policy, slot, k_act)
        stays = waiting | (slot.episode >= num_episodes)
        slot = jax.tree.map(lambda old, new: jnp.where(stays, old, new), slot, after)
        return slot._replace(waiting=waiting & (slot.episode < num_episodes))

    def body(game: _Game) -> _Game:
        slots = jax.vmap(step)(game.slots)
        ended = slots.tally.outcome != RUNNING
        # an environment that breaks its promise to end is left, its outcome RUNNING
        ended |= slots.tally.length >= env.max_steps
        ended &= slots.episode < num_episodes
        row = jnp.where(ended, slots.episode, num_episodes)
        results = jax.tree.map(
            lambda kept, new: kept.at[row].set(new, mode="drop"), game.results, slots.tally
        )
        following = jnp.minimum(game.queued + jnp.cumsum(ended) - 1, num_episodes)
        start = partial(_start, setting, env, policy, num_steps)
        fresh = jax.vmap(start)(jnp.where(ended, following, slots.episode).astype(jnp.int32))
        slots = where(ended, fresh, slots)
        queued = jnp.minimum(game.queued + ended.sum(), num_episodes)
        return _Game(slots, queued.astype(jnp.int32), results)

    def goes_on(game: _Game) -> jax.Array:
        waiting = game.slots.waiting
        moving = (game.slots.episode < num_episodes) & ~waiting
        return moving.any() & (waiting.sum() < together)

    slots = jax.vmap(_answer)(game.slots, plans, answered)
    game = jax.lax.while_loop(goes_on, body, game._replace(slots=slots))

    def seed(slot: _Slot) -> jax.Array:
        # beyond the numbers that a policy's keys are folded with
        return jax.random.bits(
            jax.random.fold_in(own_key(slot), env.max_steps + 1 + slot.tally.length)
        )

    return game, game.slots.waiting, jax.vmap(seed)(game.slots)


def _answer(slot: _Slot, plan: jax.Array, answered: jax.Array) -> _Slot:
    """The slot with a helper's answer to its request, if it was answered."""
    tally = slot.tally
    first = answered & (tally.first_request == NEVER)
    return slot._replace(
        waiting=slot.waiting & ~answered,
        plan=jnp.where(answered, plan, slot.plan),
        left=jnp.where(answered, len(plan), slot.left),
        tally=tally._replace(
            num_requests=tally.num_requests + answered,
            first_request=jnp.where(first, tally.length, tally.first_request),
        ),
    )


def _step(env: Env, policy: Any, slot: _Slot, key: jax.Array) -> _Slot:
    """The slot after a step of the helper, if there is one, else of the policy."""
    memory, decision = policy.act(slot.memory, slot.obs, key)
    helped = slot.left > 0
    action = jnp.where(helped, slot.plan[len(slot.plan) - slot.left], decision.action)
    state, shown = env.step(slot.state, action)
    tally = slot.tally._replace(
        outcome=shown.outcome,
        cause=shown.cause,
        length=slot.tally.length + 1,
        episode_return=slot.tally.episode_return + shown.reward,
        num_helped=slot.tally.num_helped + helped,
    )
    left = jnp.maximum(slot.left - 1, 0)
    return slot._replace(state=state, obs=shown.obs, memory=memory, left=left, tally=tally)
