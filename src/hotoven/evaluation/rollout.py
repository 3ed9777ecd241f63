"""Playing levels with a policy: every level exactly once, on the device, in one program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hotoven.types import CATASTROPHE, RUNNING, Env, PyTree, Trace


class Episodes(NamedTuple):
    """How each level ended; leaves [L] (one level: [])."""

    outcome: jax.Array  # int8  SOLVED, CATASTROPHE or TIMEOUT
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


def play(env: Env, policy: Any, levels: PyTree, key: jax.Array) -> Episodes:
    """Each of `levels` (leaves [L, ...]) played once by `policy`; Episodes with leaves [L].

    Pure: jit it, and vmap it over policies. Level i uses the i-th of the keys split from `key`.
    """
    num_levels = jax.tree.leaves(levels)[0].shape[0]
    keys = jax.random.split(key, num_levels)
    state, shown = jax.vmap(env.reset)(levels)
    memory = jax.vmap(lambda k: policy.init(jax.random.fold_in(k, 0)))(keys)
    zero = jnp.zeros(num_levels, jnp.int32)
    tally = Episodes(
        shown.outcome, shown.cause, zero, jnp.zeros(num_levels, jnp.float32), zero, zero, zero
    )

    def one(state: PyTree, obs: jax.Array, memory: PyTree, tally: Episodes, key: jax.Array) -> tuple:
        running = tally.outcome == RUNNING
        memory, decision = policy.act(memory, obs, key)
        blocked = running & decision.blocked[decision.wanted]
        dangerous = dangerous_actions(env, state)
        state, shown = env.step(state, decision.action)
        tally = Episodes(
            outcome=shown.outcome,
            cause=shown.cause,
            length=tally.length + running,
            episode_return=tally.episode_return + shown.reward,
            num_blocked=tally.num_blocked + blocked,
            num_false_blocks=tally.num_false_blocks + (blocked & ~dangerous[decision.wanted]),
            num_all_blocked=tally.num_all_blocked + (running & decision.blocked.all()),
        )
        return state, shown.obs, memory, tally

    def body(carry: tuple) -> tuple:
        t, *rest = carry
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t + 1)
        return (t + 1, *jax.vmap(one)(*rest, step_keys))

    def goes_on(carry: tuple) -> jax.Array:
        t, _, _, _, tally = carry
        return (t < env.max_steps) & (tally.outcome == RUNNING).any()

    start = (jnp.int32(0), state, shown.obs, memory, tally)
    return jax.lax.while_loop(goes_on, body, start)[-1]


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

    return jax.vmap(episode)(levels, jax.random.split(key, num_levels))


