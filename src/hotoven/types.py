"""Every record and protocol of the package, with shapes. Imports nothing of ours.

Axes, everywhere: L levels, T steps, M ensemble members, A actions, R independent replications.
Records are written for one level, one agent and one step; `jax.vmap` adds the other axes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import jax
import numpy as np

LARGEST: Final = 2**31 - 1  # of any count: they are int32, on the device and in tables

# How an episode stands. Mutually exclusive: an episode ends in exactly one of the last four.
RUNNING: Final = 0
SOLVED: Final = 1  # terminates: the future is worth 0
CATASTROPHE: Final = 2  # terminates: the future is worth 0
TIMEOUT: Final = 3  # truncates: the learner bootstraps from the last observation
FAILED: Final = 4  # terminates: the future is worth 0; lost, but by none of the dangers that count
OUTCOMES: Final = ("running", "solved", "catastrophe", "timeout", "failed")

# One environment's level, state or a policy's memory: a pytree of arrays that only its owner reads.
PyTree = Any


class TimeStep(NamedTuple):
    """What one step of an environment shows. No batch axis: vmap adds it."""

    obs: jax.Array  # [*obs_shape], after the step and before any reset: the fatal frame included
    reward: jax.Array  # float32[]
    outcome: jax.Array  # int8[]  RUNNING, SOLVED, CATASTROPHE, TIMEOUT or FAILED
    cause: jax.Array  # int8[]  what ended the episode, an index into env.causes; 0 while running


class AgentOutput(NamedTuple):
    """What one network says of one observation."""

    preferences: jax.Array  # float32[A]  DQN: Q-values; PPO: action probabilities
    value: jax.Array  # float32[]  worth of the state; DQN: the largest Q-value


class Decision(NamedTuple):
    """What a policy does in one state, and why."""

    action: jax.Array  # int32[]
    wanted: jax.Array  # int32[]  what the policy inside chose; other than `action` where intervened
    preferences: jax.Array  # float32[A]  the ranking behind `wanted`, larger is better
    risk: jax.Array  # float32[]  larger is more dangerous; the scale is the policy's own
    blocked: jax.Array  # bool[A]  actions that the policy refused to take
    intervened: jax.Array  # bool[]  True where a wrapper changed the action of the policy inside


@dataclass(frozen=True)
class LevelSet:
    """Levels of one family, stacked, with what identifies them. Host arrays."""

    levels: PyTree  # leaves [L, ...]
    ids: np.ndarray  # int64[L]  the seed of each level
    digests: np.ndarray  # uint8[L, 16]  BLAKE2b of each level's content
    facts: Mapping[str, np.ndarray]  # name -> [L], e.g. the length of the shortest safe path
    family: str  # the environment's, e.g. "lavagrid" or "coinrun-hard"
    version: int  # of the generator: within one version an id means the same level for ever
    num_duplicates: int = 0  # levels dropped because their content was already taken
    num_unfit: int = 0  # levels passed over because no fact that was asked for held

    def __len__(self) -> int:
        return len(self.ids)


class Env(Protocol):
    """One level, one agent; pure. Implementations are frozen dataclasses of plain Python values.

    There is no auto-reset inside: training wraps an env, adapters offer Gymnasium's three modes.
    """

    @property
    def name(self) -> str: ...
    @property
    def family(self) -> str:
        """Whose levels these are: within one family and version an id means one level."""
        ...

    @property
    def version(self) -> int:
        """Version of the level generator: within one, an id means the same level for ever."""
        ...

    @property
    def num_actions(self) -> int: ...
    @property
    def action_names(self) -> tuple[str, ...]: ...
    @property
    def obs_shape(self) -> tuple[int, ...]: ...
    @property
    def obs_high(self) -> int:
        """The largest value in an observation; the smallest is 0."""
        ...

    @property
    def num_wholes(self) -> int:
        """How many of an observation's last channels hold one value in all cells."""
        ...

    @property
    def max_steps(self) -> int: ...
    @property
    def causes(self) -> tuple[str, ...]:
        """Names of what can end an episode; causes[0] is "" (still running)."""
        ...

    def reset(self, level: PyTree) -> tuple[PyTree, TimeStep]: ...
    def step(self, state: PyTree, action: jax.Array) -> tuple[PyTree, TimeStep]: ...
    def observe(self, state: PyTree) -> jax.Array:
        """What the agent sees in `state`: the obs of the TimeStep that came with it."""
        ...

    def situation(self, state: PyTree) -> PyTree:
        """All of the state that decides what follows on this level, but for the time left."""
        ...

    def skip(self, state: PyTree, num_steps: jax.Array) -> PyTree:
        """The state with its clock moved on by `num_steps`, and nothing else changed."""
        ...

    def render(self, state: PyTree, scale: int) -> jax.Array:
        """uint8[height, width, 3], a picture for people; scale is pixels per cell."""
        ...

    def generate(self, ids: np.ndarray) -> tuple[PyTree, Mapping[str, np.ndarray]]:
        """Levels (leaves [L, ...]) and facts ([L]) of the given ids; host side, numpy only."""
        ...

    def content(self, levels: PyTree) -> PyTree:
        """The part of levels that decides how they play: where it is equal, levels are one."""
        ...


class Policy(Protocol):
    """Chooses actions. Implementations: frozen dataclasses whose thresholds are leaves.

    They are registered by `hotoven.trees.register_dataclass`, not by JAX's.
    """

    @property
    def deterministic(self) -> bool:
        """True where `act` does not read its key: memory and observation decide everything."""
        ...

    def init(self, key: jax.Array) -> PyTree:
        """The memory at the start of an episode."""
        ...

    def act(self, memory: PyTree, obs: jax.Array, key: jax.Array) -> tuple[PyTree, Decision]: ...


class Trace(NamedTuple):
    """What recorded episodes hold, step by step: leaves [L, T, ...]."""

    decision: Decision
    outcome: jax.Array  # int8[L, T]  after the action
    cause: jax.Array  # int8[L, T]
    reward: jax.Array  # float32[L, T]
    # bool[L, T, A]  the truth: actions that would be a catastrophe at once; () where not asked for
    dangerous: PyTree
    probes: PyTree  # leaves [L, T, ...]: the networks' outputs in the state before the action
    valid: jax.Array  # bool[L, T]  True up to and including the last step


class Net(NamedTuple):
    """A network as a pair of pure functions; `apply` takes observations with any axes in front."""

    init: Callable[[jax.Array], PyTree]  # key -> params
    apply: Callable[..., jax.Array]  # (params, obs, key=None) -> float32[..., num_outputs]
