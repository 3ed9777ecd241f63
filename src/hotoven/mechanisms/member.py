"""One network acting on its own: the baseline that every other mechanism is compared with."""

from dataclasses import dataclass
from typing import ClassVar, final

import jax
import jax.numpy as jnp

from hotoven.trees import register_dataclass
from hotoven.types import Decision, Net, PyTree


def decide(preferences: jax.Array, risk: jax.Array) -> Decision:
    """The decision to take the most preferred action, blocking none."""
    action = preferences.argmax().astype(jnp.int32)
    none = jnp.zeros(preferences.shape, bool)
    return Decision(action, action, preferences, risk, none, jnp.bool_(False))


@final
@register_dataclass(data_fields=["params"], meta_fields=["net"])
@dataclass(frozen=True)
class Member:
    """Takes the action with the highest Q-value of one network; its risk is minus that value."""

    params: PyTree
    net: Net

    deterministic: ClassVar[bool] = True

    def init(self, key: jax.Array) -> PyTree:
        """Nothing is remembered."""
        return ()

    def act(self, memory: PyTree, obs: jax.Array, key: jax.Array) -> tuple[PyTree, Decision]:
        """The greedy action."""
        q = self.net.apply(self.params, obs)
        return memory, decide(q, -q.max())
