"""MC-dropout: one network trained with dropout, read as an ensemble of its thinned copies.

Source: Gal & Ghahramani 2016. The thinned copies are drawn once per episode and kept, so that an
episode is played by one ensemble, as with trained members.
"""

from dataclasses import dataclass
from typing import ClassVar, final

import jax

from hotoven.mechanisms.member import decide
from hotoven.trees import register_dataclass
from hotoven.types import Decision, Net, PyTree


@final
@register_dataclass(data_fields=["params"], meta_fields=["net", "num_samples"])
@dataclass(frozen=True)
class MCDropout:
    """Takes the action with the highest Q-value averaged over `num_samples` dropout masks."""

    params: PyTree
    net: Net  # with dropout above 0
    num_samples: int

    deterministic: ClassVar[bool] = True

    def init(self, key: jax.Array) -> PyTree:
        """The keys of this episode's masks, [num_samples]."""
        return jax.random.split(key, self.num_samples)

    def act(self, memory: PyTree, obs: jax.Array, key: jax.Array) -> tuple[PyTree, Decision]:
        """The greedy action of the mean over masks."""
        q = jax.vmap(self.net.apply, (None, None, 0))(self.params, obs, memory).mean(axis=0)
        return memory, decide(q, -q.max())
