"""Playing levels with a policy: every level exactly once, on the device, in one program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hotoven.trees import where
from hotoven.types import CATASTROPHE, RUNNING, Env, PyTree, TimeStep, Trace


class Episodes(NamedTuple):
    """How each level ended; leaves [L] (one level: [])."""

    outcome: jax.Array  # int8  SOLVED, CATASTROPHE, TIMEOUT or FAILED
    cause: jax.Array  # int8  index into env.causes
    length: jax.Array  # int32  steps
    episode_return: jax.Array  # float32  sum of rewards
    num_blocked: jax.Array  # int32  steps at which the wanted action was blocked
    num_false_blocks: jax.Array  # int32  those at which the wanted action was not catastrophic
    num_all_blocked: jax.Array  # int32  steps at which every action was blocked


def dangerous_actions(env: Env, state: PyTree) -> jax.Array:
    """bool[A]: which actions would end the episode as a catastrophe in this very step."""
    actions = jnp.arange(env.num_actions, dtype=jnp.int32)
    return jax.vmap(lambda action: env.step(state, action)[1].outcome)(actions) == CATASTROPHE


def play(env: Env, policy: Any, levels: PyTree, key: jax.Array, num_slots: int = 128) -> Episodes:
    """Each of `levels` (leaves [L, ...]) played once by `policy`; Episodes with leaves [L].

    Pure: jit it, and vmap it over policies. Level i is played with `key` folded with i, so that
    the result does not depend on `num_slots`, the number of levels played side by side: a slot
    whose episode has ended takes the next level. An episode of a deterministic policy that comes
    back to a situation it has been in can only repeat itself until the time limit; whole rounds of
    it are counted, not played.
    """
    num_levels = jax.tree.leaves(levels)[0].shape[0]
    num_slots = min(num_slots, num_levels)
    keys = _level_keys(key, num_levels)

    def start(index: jax.Array) -> _Slot:
        """A slot at the start of level `index`; an index beyond the last is an idle slot."""
        at = jnp.minimum(index, num_levels - 1)
        state, shown = env.reset(jax.tree.map(lambda leaf: leaf[at], levels))
        memory = policy.init(jax.random.fold_in(keys[at], 0))
        tally = _no_steps(shown)
        anchor = _Anchor(_situation(env, policy, state, memory), tally)
        return _Slot(index, state, shown.obs, memory, tally, anchor)

    def step(slot: _Slot) -> _Slot:
        k_act = jax.random.fold_in(
            keys[jnp.minimum(slot.level, num_levels - 1)], slot.tally.length + 1
        )
        slot = _step(env, policy, slot, k_act)
        return _skip_repeats(env, policy, slot)

    def body(carry: tuple) -> tuple:
        slots, queued, results = carry
        slots = jax.vmap(step)(slots)
        ended = slots.tally.outcome != RUNNING
        # an environment that breaks its promise to end is left, its outcome RUNNING
        ended |= slots.tally.length >= env.max_steps
        ended &= slots.level < num_levels
        row = jnp.where(ended, slots.level, num_levels)  # the last row of results is scrap
        results = jax.tree.map(lambda kept, new: kept.at[row].set(new), results, slots.tally)
        following = jnp.minimum(queued + jnp.cumsum(ended) - 1, num_levels)
        fresh = jax.vmap(start)(jnp.where(ended, following, slots.level).astype(jnp.int32))
        slots = where(ended, fresh, slots)
        return slots, jnp.minimum(queued + ended.sum(), num_levels), results

    def goes_on(carry: tuple) -> jax.Array:
        return (carry[0].level < num_levels).any()

    slots = jax.vmap(start)(jnp.arange(num_slots, dtype=jnp.int32))
    results = jax.tree.map(lambda leaf: jnp.zeros(num_levels + 1, leaf.dtype), slots.tally)
    _, _, results = jax.lax.while_loop(goes_on, body, (slots, jnp.int32(num_slots), results))
    return jax.tree.map(lambda leaf: leaf[:num_levels], results)


def record(
    env: Env,
    policy: Any,
    levels: PyTree,
    key: jax.Array,
    probe: Callable[[jax.Array], PyTree] = lambda obs: (),
) -> Trace:
    """As `play`, step by step: a Trace with leaves [L, max_steps, ...].

    `probe(obs)` is called on every observation before the action, e.g. for all members' Q-values.
    The same key gives the same episodes as `play`.
    """
    num_levels = jax.tree.leaves(levels)[0].shape[0]

    def episode(level: PyTree, key: jax.Array) -> Trace:
        state, shown = env.reset(level)
        memory = policy.init(jax.random.fold_in(key, 0))

        def body(carry: tuple, t: jax.Array) -> tuple[tuple, Trace]:
            state, shown, memory = carry
            valid = shown.outcome == RUNNING
            memory, decision = policy.act(memory, shown.obs, jax.random.fold_in(key, t + 1))
            dangerous = dangerous_actions(env, state)
            probes = probe(shown.obs)
            state, shown = env.step(state, decision.action)
            row = Trace(
                decision, shown.outcome, shown.cause, shown.reward, dangerous, probes, valid
            )
            return (state, shown, memory), row

        steps = jnp.arange(env.max_steps)
        return jax.lax.scan(body, (state, shown, memory), steps)[1]

    return jax.vmap(episode)(levels, _level_keys(key, num_levels))


class _Anchor(NamedTuple):
    """A situation an episode was in, and its tally then."""

    situation: PyTree
    tally: Episodes


class _Slot(NamedTuple):
    """One episode being played."""

    level: jax.Array  # int32[]  its index; the number of levels where the slot is idle
    state: PyTree
    obs: jax.Array
    memory: PyTree
    tally: Episodes
    anchor: _Anchor


def _level_keys(key: jax.Array, num_levels: int) -> jax.Array:
    """One key per level, which does not depend on how many levels there are."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_levels))


def _no_steps(shown: TimeStep) -> Episodes:
    zero = jnp.int32(0)
    return Episodes(shown.outcome, shown.cause, zero, jnp.float32(0.0), zero, zero, zero)


def _step(env: Env, policy: Any, slot: _Slot, key: jax.Array) -> _Slot:
    memory, decision = policy.act(slot.memory, slot.obs, key)
    blocked = decision.blocked[decision.wanted]
    false_block = blocked & ~dangerous_actions(env, slot.state)[decision.wanted]
    state, shown = env.step(slot.state, decision.action)
    tally = Episodes(
        outcome=shown.outcome,
        cause=shown.cause,
        length=slot.tally.length + 1,
        episode_return=slot.tally.episode_return + shown.reward,
        num_blocked=slot.tally.num_blocked + blocked,
        num_false_blocks=slot.tally.num_false_blocks + false_block,
        num_all_blocked=slot.tally.num_all_blocked + decision.blocked.all(),
    )
    return slot._replace(state=state, obs=shown.obs, memory=memory, tally=tally)


def _situation(env: Env, policy: Any, state: PyTree, memory: PyTree) -> PyTree:
    """What decides the rest of the episode besides the time left; () where that is not known."""
    if not getattr(policy, "deterministic", False):
        return ()
    return jax.tree.map(_words, (env.situation(state), memory))


def _skip_repeats(env: Env, policy: Any, slot: _Slot) -> _Slot:
    """Counts the whole rounds of a repeating episode that fit into its time; else changes nothing.

    The anchor moves to the present at steps 1, 2, 4, 8, ..., so that every round is noticed.
    Source: Brent 1980, "An improved Monte Carlo factorization algorithm", section 2.
    """
    situation = _situation(env, policy, slot.state, slot.memory)
    if not jax.tree.leaves(situation):
        return slot
    before, now = slot.anchor.tally, slot.tally
    same = [
        (a == b).all()
        for a, b in zip(*map(jax.tree.leaves, (situation, slot.anchor.situation)), strict=True)
    ]
    repeats = jnp.stack(same).all() & (now.outcome == RUNNING)
    period = jnp.maximum(now.length - before.length, 1)
    rounds = jnp.where(repeats, (env.max_steps - 1 - now.length) // period, 0)
    outcome, cause, *_ = now
    counted = [
        count + (rounds * (count - was)).astype(count.dtype)
        for count, was in zip(now[2:], before[2:], strict=True)
    ]
    tally = Episodes(outcome, cause, *counted)
    moves = (now.length & (now.length - 1)) == 0  # a power of two
    anchor = jax.tree.map(
        lambda new, old: jnp.where(moves, new, old), _Anchor(situation, tally), slot.anchor
    )
    state = env.skip(slot.state, rounds * period)
    return slot._replace(state=state, tally=tally, anchor=anchor)


def _words(leaf: jax.Array) -> jax.Array:
    """Random keys as their raw words, which can be compared; other arrays as they are."""
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf
