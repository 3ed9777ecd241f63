"""What every learner gives: one agent's training as pure functions, and how far it has got.

`agents.train` makes many agents of it: it knows these types and no learner.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from hotoven.types import Net, PyTree


class Settings(Protocol):
    """What training in chunks has to know of a learner's settings; repr names all of them."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def num_iterations(self) -> int: ...
    @property
    def updates_per_iteration(self) -> int:
        """Gradient steps in one iteration."""
        ...


class Progress(NamedTuple):
    """What one iteration of one agent shows."""

    loss: jax.Array  # float32[]  mean loss of its updates
    ended: jax.Array  # int32[outcomes]  training episodes ended, by outcome


class Learner(NamedTuple):
    """One agent's training as pure functions; mapped over `num_levels` and keys or states.

    A state is a NamedTuple whose `params` are the network's. `t` counts iterations from 0 and is
    shared by all agents, so that what hangs on it alone stays a scalar under vmap.
    """

    init: Callable[[PyTree, jax.Array, jax.Array], Any]  # (levels, num_levels, key) -> state
    iterate: Callable[[Any, jax.Array, PyTree, jax.Array], tuple[Any, Progress]]
    net: Net
