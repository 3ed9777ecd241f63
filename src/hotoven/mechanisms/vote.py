"""Majority vote: every member has one voice, however sure it is."""

from dataclasses import dataclass
from typing import ClassVar, final

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.mechanisms.member import decide
from hotoven.trees import register_dataclass
from hotoven.types import Decision, Net, PyTree


def share_of_votes(chosen: jax.Array, mean: jax.Array) -> jax.Array:
    """float32[A]: each action's share of the members' choices int[M]; ties are `mean`'s to decide.

    A vote is worth 1/M; the ranks of `mean` (float32[A]) share out less than half of that.
    """
    num_members, num_actions = len(chosen), len(mean)
    votes = jax.nn.one_hot(chosen, num_actions).mean(axis=0)
    rank = (mean[:, None] > mean[None, :]).sum(axis=1).astype(jnp.float32)
    return votes + rank / np.float32(2 * num_members * num_actions)


@final
@register_dataclass(data_fields=["params"], meta_fields=["net"])
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
        preferences = share_of_votes(q.argmax(axis=1), q.mean(axis=0))
        return memory, decide(preferences, -q.max(axis=1).mean())
