"""Majority vote: every member has one voice, however sure it is."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import jax
import jax.numpy as jnp

from hotoven.mechanisms.member import decide
from hotoven.types import Decision, Net, PyTree


@final
@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["net"])
@dataclass(frozen=True)
class Vote:
    """Takes the action that most members (params leaves [M, ...]) prefer.

    Its preferences are the shares of votes. Among actions with equally many votes the mean
    Q-values decide: they are added as a fraction too small to outweigh a vote.
    """

    params: PyTree
    net: Net

    deterministic: ClassVar[bool] = True

    def init(self, key: jax.Array) -> PyTree:
        """Nothing is remembered."""
        return ()

    def act(self, memory: PyTree, obs: jax.Array, key: jax.Array) -> tuple[PyTree, Decision]:
        """The action with the most votes."""
        q = jax.vmap(self.net.apply, (0, None))(self.params, obs)  # [M, A]
        num_members, num_actions = q.shape
        votes = jax.nn.one_hot(q.argmax(axis=1), num_actions).mean(axis=0)
        # a vote is worth 1/M; the ranks of the mean Q-values share out less than half of that
        rank = (q.mean(axis=0)[:, None] > q.mean(axis=0)[None, :]).sum(axis=1)
        preferences = votes + rank.astype(jnp.float32) / (2.0 * num_members * num_actions)
        return memory, decide(preferences, -q.max(axis=1).mean())
