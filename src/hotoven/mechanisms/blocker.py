"""The blocker: a classifier's veto over the actions of any policy."""

from dataclasses import dataclass
from typing import Any, final

import jax
import jax.numpy as jnp

from hotoven.trees import register_dataclass
from hotoven.types import Decision, Net, PyTree


@final
@register_dataclass(data_fields=["inner", "params", "threshold"], meta_fields=["net"])
@dataclass(frozen=True)
class Blocker:
    """Wraps a policy; blocks actions whose predicted danger is above a threshold.

    Where the inner policy's choice is blocked, the best action (by its preferences) that is not
    blocked is taken; where all are blocked, the least dangerous one, and `blocked` is all True.
    `risk` is the probability predicted for the inner policy's choice. A threshold of infinity
    changes nothing.
    """

    inner: Any  # a Policy
    params: PyTree
    threshold: jax.Array  # float32[]
    net: Net  # observation -> float32[A], log-odds of a catastrophe

    @property
    def deterministic(self) -> bool:
        """As the inner policy."""
        return bool(self.inner.deterministic)

    def init(self, key: jax.Array) -> PyTree:
        """The inner policy's memory."""
        return self.inner.init(key)

    def act(self, memory: PyTree, obs: jax.Array, key: jax.Array) -> tuple[PyTree, Decision]:
        """The inner policy's action, or the one taken in its place."""
        memory, wish = self.inner.act(memory, obs, key)
        probability = jax.nn.sigmoid(self.net.apply(self.params, obs))
        vetoed = probability > self.threshold
        blocked = vetoed | wish.blocked  # an inner blocker's veto holds too
        allowed = jnp.where(blocked, -jnp.inf, wish.preferences).argmax()
        instead = jnp.where(blocked.all(), probability.argmin(), allowed).astype(jnp.int32)
        action = jnp.where(vetoed[wish.action], instead, wish.action)
        return memory, Decision(
            action=action,
            wanted=wish.wanted,
            preferences=wish.preferences,
            risk=probability[wish.action],
            blocked=blocked,
            intervened=wish.intervened | (action != wish.action),
        )
