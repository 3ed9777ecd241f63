"""The ensemble's mean Q-values: a spuriously high value of one member is averaged away."""

from dataclasses import dataclass
from typing import ClassVar, final

import jax

from hotoven.mechanisms.member import decide
from hotoven.trees import register_dataclass
from hotoven.types import Decision, Net, PyTree


@final
@register_dataclass(data_fields=["params"], meta_fields=["net"])
@dataclass(frozen=True)
class Mean:
    """Takes the action with the highest Q-value averaged over members (params leaves [M, ...])."""

    params: PyTree
    net: Net

    deterministic: ClassVar[bool] = True

    def init(self, key: jax.Array) -> PyTree:
        """Nothing is remembered."""
        return ()

    def act(self, memory: PyTree, obs: jax.Array, key: jax.Array) -> tuple[PyTree, Decision]:
        """The greedy action of the mean."""
        q = jax.vmap(self.net.apply, (0, None))(self.params, obs).mean(axis=0)  # [M, A] -> [A]
        return memory, decide(q, -q.max())
