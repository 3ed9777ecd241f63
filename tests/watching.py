"""Made-up agents to watch, whose steps and scores are known, and what viewers and clocks do."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.coinrun.planner import NUM_MOVES
from hotoven.envs.lavagrid import LavaGrid
from hotoven.evaluation import scores
from hotoven.evaluation.live import Said
from hotoven.levels import make_levels
from hotoven.trees import register_dataclass
from hotoven.types import Decision
from hotoven.watch import Watch, Watched
from hotoven.web import Session

SOMEBODY, ANOTHER = 0, 1
KEY = jax.random.key(5)

# LavaGrid's level 0, from above, where the agent starts at S:
#   .#...
#   .LLLL
#   ...#.
#   #...S
#   G...L
UP, RIGHT, DOWN, LEFT = range(4)
TO_THE_GOAL = ("left", "left", "left", "down", "left")
TO_THE_LAVA = [LEFT, RIGHT, RIGHT, DOWN]  # one of them against the edge of the grid


@register_dataclass(data_fields=["actions"])
@dataclass(frozen=True)
class Scripted:
    """Takes these actions one after another, whatever it sees; it remembers how many it took."""

    actions: jax.Array  # int32[T]
    deterministic: ClassVar[bool] = True

    def init(self, key: jax.Array) -> jax.Array:
        return jnp.int32(0)

    def act(self, memory: Any, obs: jax.Array, key: jax.Array) -> tuple[Any, Decision]:
        action = self.actions[jnp.minimum(memory, len(self.actions) - 1)]
        none = jnp.zeros(4, bool)
        told = Decision(action, action, jnp.zeros(4), jnp.float32(0), none, jnp.bool_(False))
        return memory + 1, told


def said(us: jax.Array, dangers: jax.Array, state: Any, obs: jax.Array) -> Said:
    """Two members that agree, and whose U at each step is known."""
    u = us[jnp.minimum(state.num_steps, len(us) - 1)]
    return Said(jnp.stack([-u, -u]), jnp.zeros((2, len(dangers))), dangers)


def probe(us: list[float], num_actions: int) -> Partial:
    dangers = jnp.resize(jnp.array([0.0, 0.1, 0.9, 0.2]), num_actions)
    return Partial(said, jnp.array([*us, *us[-1:] * (40 - len(us))], jnp.float32), dangers)


def watched(actions: list[int], us: list[float], threshold: float = 0.5, count: int = 2) -> Watched:
    return Watched(
        env=LavaGrid(),
        painter=LavaGrid(),
        levels=make_levels(LavaGrid(), np.zeros(count, np.int64)),
        policy=Scripted(jnp.array([*actions, *[RIGHT] * (40 - len(actions))], jnp.int32)),
        probe=probe(us, 4),
        key=KEY,
        coefficients=scores.WITH_STD,
        threshold=threshold,
        promise="It promises nothing.",
        num_train_levels=10,
        first_level=0,
        help_steps=3,
        preferences="Q-values",
        actions=LavaGrid.action_names,
    )


def coinrun(us: list[float]) -> Watched:
    env = CoinRun(mode="hard", obs="symbolic")
    actions = jnp.full(40, 4, jnp.int32)
    return watched([4], us)._replace(
        env=env,
        painter=replace(env, paint_velocity=False),
        levels=make_levels(env, np.array([7, 8])),
        policy=Scripted(actions),
        probe=probe(us, NUM_MOVES),
        actions=CoinRun.action_names[:NUM_MOVES],
    )


def do(watch: Watch, *commands: str) -> None:
    for command in commands:
        watch.hear(SOMEBODY, {"do": command})


def press(session: Session, *keys: str, viewer: int = SOMEBODY) -> None:
    """Presses and lets go, one key after another."""
    for key in keys:
        session.hear(viewer, {"keys": [key]})
        session.hear(viewer, {"keys": []})


def steps(session: Session, count: int) -> None:
    """What the clock would do in so many steps."""
    for _ in range(count):
        if session.runs:
            session.step()
