"""Episodes one step at a time: what `play` and `record` do in one program, for somebody to watch.

The same key gives the same episodes as there, as long as nobody takes another action than the
policy's. All the while the policy goes on deciding, though nobody listens, as in `help`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.evaluation.rollout import (
    Form,
    Probe,
    as_pytree,
    check_policy,
    distinct,
    rebuilt,
)
from hotoven.types import RUNNING, Env, PyTree


class Said(NamedTuple):
    """What an ensemble says of a state. G: the actions that are told apart, at most A."""

    values: jax.Array  # float32[M]  worth of the state
    preferences: jax.Array  # float32[M, G]
    dangers: jax.Array  # float32[G]  probability that an action kills at once


class Now(NamedTuple):
    """Where an episode stands, what is said of it, and what the agent is about to do."""

    key: jax.Array  # of the episode
    state: PyTree
    num_steps: jax.Array  # int32[]
    outcome: jax.Array  # int8[]
    cause: jax.Array  # int8[]
    said: PyTree  # the probe's output
    action: jax.Array  # int32[]  the policy's
    memory: PyTree  # the policy's, after it has decided on that action


class Live:
    """Plays levels step by step; a step of all instances of equal settings is compiled once.

    Args:
      key: as for `play`: level i is played with `key` folded with i.
      probe: called with every state and observation before the action. Let those of networks be
        `jax.tree_util.Partial`; what it shares with the policy is computed once.
    """

    def __init__(self, env: Env, policy: Any, probe: Probe, key: jax.Array):
        self.env = env
        self._key = key
        self._arrays, self._form = distinct((policy, as_pytree(probe)))

    def begin(self, level: PyTree, index: int) -> Now:
        """The start of that level, the `index`th of its set."""
        return _begin(self._arrays, level, self._key, np.int32(index), self.env, self._form)

    def advance(self, now: Now, action: int | jax.Array) -> Now:
        """A step later."""
        return _advance(self._arrays, now, np.int32(action), self.env, self._form)

    def finish(self, now: Now) -> Now:
        """The end, where the agent goes on alone."""
        # an environment that breaks its promise to end is left
        while now.outcome == RUNNING and now.num_steps < self.env.max_steps:
            now = self.advance(now, now.action)
        return now


@partial(jax.jit, static_argnames=("env", "form"))
def _begin(
    arrays: list[jax.Array], level: PyTree, key: jax.Array, index: jax.Array, env: Env, form: Form
) -> Now:
    policy, probe = rebuilt(arrays, form)
    check_policy(policy)
    key = jax.random.fold_in(key, index)
    state, shown = env.reset(level)
    memory = policy.init(jax.random.fold_in(key, 0))
    return _arrive(policy, probe, key, state, jnp.int32(0), shown, memory)


@partial(jax.jit, static_argnames=("env", "form"))
def _advance(arrays: list[jax.Array], now: Now, action: jax.Array, env: Env, form: Form) -> Now:
    policy, probe = rebuilt(arrays, form)
    state, shown = env.step(now.state, action)
    return _arrive(policy, probe, now.key, state, now.num_steps + 1, shown, now.memory)


def _arrive(
    policy: Any,
    probe: Probe,
    key: jax.Array,
    state: PyTree,
    num_steps: jax.Array,
    shown: Any,
    memory: PyTree,
) -> Now:
    memory, decision = policy.act(memory, shown.obs, jax.random.fold_in(key, num_steps + 1))
    return Now(
        key,
        state,
        num_steps,
        shown.outcome.astype(jnp.int8),
        shown.cause.astype(jnp.int8),
        probe(state, shown.obs),
        decision.action,
        memory,
    )
