"""A person plays a level: keys become actions, time makes steps of them, the page is told the rest.

A `Game` is a `Session` of `web`, which shows it and hands it the keys; nothing here knows of a web
server, and the environment draws itself. `Controls` and `Hands` are for every page with keys.
"""

from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import numpy as np

from hotoven.devices import at_once
from hotoven.envs.lavagrid import LavaGrid
from hotoven.types import OUTCOMES, RUNNING, SOLVED, TIMEOUT, Env, PyTree

KEYS: Final = ("left", "right", "up", "down", "jump")
MAX_ID: Final = 2**63 - 1
MIN_SCALE: Final = 4  # pixels per cell
MAX_SIDE: Final = 4096  # pixels of a picture's longer side
GOOD_SIDE: Final = 832  # what that is by default, or less
GOOD_SCALE: Final = 144  # pixels per cell that are enough


class Controls(NamedTuple):
    """How an environment is played by keys."""

    steps_per_second: int  # 0: a key that is pressed makes one step, and nothing else does
    action: Callable[[Set[str]], int | None]  # of the keys that are down; None: they mean nothing
    moves: tuple[tuple[str, str], ...]  # what a person presses, and what it does
    about: Callable[[Any], str]  # an environment's settings in a few words
    start: str  # what to do first


def coinrun_action(keys: Set[str]) -> int:
    """The action that pushes and lifts as those keys say; two that contradict each other are none.

    As in the game: sideways and up or down at once.
    """
    push = ("right" in keys) - ("left" in keys)
    lift = bool({"up", "jump"} & keys) - ("down" in keys)
    return (push + 1) * 3 + lift + 1


def lavagrid_action(keys: Set[str]) -> int | None:
    """The action of the first of those keys that moves."""
    return next((number for number, name in enumerate(LavaGrid.action_names) if name in keys), None)


_LEVEL_KEYS = (("R", "restart the level"), ("N", "next level"), ("P", "previous level"))

CONTROLS: Final[dict[str, Controls]] = {
    "coinrun": Controls(
        15,  # as the game's own interactive mode
        coinrun_action,
        (
            ("← → or A D", "run"),
            ("↑ or W or space", "jump"),
            ("↓ or S", "drop through crates"),
        ),
        lambda env: f"{env.mode}",
        "Press a key to start.",
    ),
    "lavagrid": Controls(
        0,
        lavagrid_action,
        (("arrows or W A S D", "move one cell"),),
        lambda env: f"{env.height} by {env.width} cells",
        "Press an arrow key to move.",
    ),
}


class Hands:
    """The keys that viewers hold. One that is let go before the next step still counts for it."""

    def __init__(self) -> None:
        self._held: dict[int, frozenset[str]] = {}  # by viewer
        self._tapped: frozenset[str] = frozenset()  # pressed since the last step

    @property
    def down(self) -> frozenset[str]:
        """Keys that any viewer holds."""
        return frozenset().union(*self._held.values())

    def press(self, viewer: int, keys: Any) -> list[str]:
        """That viewer holds these keys from now on; returns those that it did not hold before.

        Raises:
          ValueError: these are no keys.
        """
        if not isinstance(keys, list) or not all(key in KEYS for key in keys):
            raise ValueError(f"keys must be among {', '.join(KEYS)}, got {ascii(keys)[:80]}")
        fresh = [key for key in dict.fromkeys(keys) if key not in self._held.get(viewer, ())]
        self._held[viewer] = frozenset(keys)
        return fresh

    def tap(self, keys: list[str]) -> None:
        """These keys count for the next step, though they may be up by then."""
        self._tapped |= frozenset(keys)

    def let_go(self, viewer: int) -> None:
        """The keys of that viewer are up."""
        self._held.pop(viewer, None)

    def take(self) -> frozenset[str]:
        """The keys of a step: those that are down, or were since the last one."""
        keys = self.down | self._tapped
        self.forget()
        return keys

    def forget(self) -> None:
        """Keys that are up again count for nothing."""
        self._tapped = frozenset()


class Game:
    """One person's game: a level, where its episode stands, and the keys that are down.

    Time begins with the first key, and anew after a pause. A key that is pressed and let go between
    two steps counts for the next one.

    Args:
      level_id: the level to begin with.
      scale: pixels per cell; None for what fills a page well.
    """

    def __init__(self, env: Env, level_id: int = 0, scale: int | None = None):
        if env.name not in CONTROLS:
            raise ValueError(f"no keys are known for {env.name}, only for {', '.join(CONTROLS)}")
        if not 0 <= level_id <= MAX_ID:
            raise ValueError(f"level seed must be from 0 to {MAX_ID}, got {level_id}")
        self.env = env
        self.controls = CONTROLS[env.name]
        self.level_id = level_id
        self.actions: list[int] = []  # of this episode
        self._hands = Hands()
        self._notice = ""
        self._make(level_id)
        self.scale = good_scale(env, self.state, scale)

    @property
    def seconds_per_step(self) -> float:
        """Time between two steps."""
        return 1 / (self.controls.steps_per_second or 15)

    @property
    def runs(self) -> bool:
        """Whether time passes."""
        return self._going and self.outcome == RUNNING and self.controls.steps_per_second > 0

    def get_ready(self) -> None:
        """Compiles a step and a picture, both at once, so that the first of each is no slower."""
        works = (partial(_step, self.env), self.state, np.int32(0)), (self._draw,)
        at_once(lambda work: work[0](*work[1:]), works)

    def greeting(self) -> Mapping[str, Any]:
        """What a page needs to know once."""
        return {
            "title": type(self.env).__name__,
            "about": self.controls.about(self.env),
            "keys": (*self.controls.moves, *_LEVEL_KEYS),
        }

    def step(self) -> None:
        """One step with the keys that are down, or were since the last one."""
        action = self.controls.action(self._hands.take())
        if action is not None:
            self._act(action)

    def hear(self, viewer: int, message: Mapping[str, Any]) -> None:
        """Takes a viewer's keys ({"keys": [...]}, all that are down) or command ({"do": ...}).

        Keys that it held before it came, as after a lost connection, are {"held": [...]}.

        Raises:
          ValueError: it is none of them.
        """
        if set(message) == {"do"}:
            self._command(message["do"])
        elif set(message) == {"keys"}:
            self._press(viewer, message["keys"])
        elif set(message) == {"held"}:
            self._hold(viewer, message["held"])
        else:
            told = ", ".join(map(ascii, message))[:80]
            raise ValueError(f"it must hold keys, held or do, got {told}")

    def let_go(self, viewer: int) -> None:
        """The keys of that viewer are up."""
        self._hands.let_go(viewer)

    def pause(self) -> None:
        """Time stands still until the next key."""
        self._going = False
        self._hands.forget()

    def show(self) -> tuple[Mapping[str, Any], np.ndarray]:
        """Where the episode stands, in words, and its picture."""
        status = {
            "level": f"level {self.level_id}{self._seed}",
            "steps": f"step {len(self.actions)} of {self.env.max_steps}",
            "outcome": OUTCOMES[self.outcome],
            "message": self._message(),
        }
        return status, np.asarray(self._draw())

    def _draw(self) -> jax.Array:
        return picture(self.env, self.scale, self.state)

    def _message(self) -> str:
        if self._notice:
            return self._notice
        if self.outcome != RUNNING:
            steps = "1 step" if len(self.actions) == 1 else f"{len(self.actions)} steps"
            again = "Press R to play it again, N for the next level."
            return f"{self._ending()}, after {steps}. {again}"
        if self._going or (self.actions and not self.controls.steps_per_second):
            return ""
        return "Paused. Press a key to go on." if self.actions else self.controls.start

    def _ending(self) -> str:
        if self.outcome == TIMEOUT:
            return "Out of time"
        return f"{'Solved' if self.outcome == SOLVED else 'Died'}: {self.env.causes[self.cause]}"

    def _press(self, viewer: int, keys: Any) -> None:
        fresh = self._hands.press(viewer, keys)
        if not fresh or self.outcome != RUNNING:
            return
        self._going, self._notice = True, ""
        if self.controls.steps_per_second:
            self._hands.tap(fresh)
            return
        for key in fresh:
            action = self.controls.action({key})
            if action is not None:
                self._act(action)

    def _hold(self, viewer: int, keys: Any) -> None:
        """These keys were down before: where each press is a step, theirs has been made."""
        if self.controls.steps_per_second:
            self._press(viewer, keys)
        else:
            self._hands.press(viewer, keys)

    def _command(self, command: Any) -> None:
        moves = {"restart": 0, "next": 1, "previous": -1}
        if not isinstance(command, str) or command not in moves:
            raise ValueError(f"do must be one of {', '.join(moves)}, got {ascii(command)[:80]}")
        level_id = min(max(self.level_id + moves[command], 0), MAX_ID)
        try:
            self._make(level_id)
        except ValueError as error:  # these settings have no such level: this one goes on
            self._notice = f"There is no level {level_id}: {error}"

    def _make(self, level_id: int) -> None:
        """Begins an episode on that level. Where a key is down time goes on."""
        levels, facts = self.env.generate(np.array([level_id], np.int64))
        self.state = _start(self.env, jax.tree.map(lambda leaf: leaf[0], levels))
        self.level_id, self.actions = level_id, []
        seed = int(facts["seed"][0]) if "seed" in facts else level_id
        self._seed = "" if seed == level_id else f" (seed {seed})"
        self.outcome, self.cause = RUNNING, 0
        self._hands.forget()
        self._going, self._notice = bool(self._hands.down), ""

    def _act(self, action: int) -> None:
        if self.outcome == RUNNING:
            self.state, outcome, cause = _step(self.env, self.state, np.int32(action))
            self.outcome, self.cause = int(outcome), int(cause)
            self.actions.append(action)


# Compiled for an environment and a scale once, whatever the number of games. Observations are left
# out: nobody looks at them.


@partial(jax.jit, static_argnums=0)
def _start(env: Env, level: PyTree) -> PyTree:
    return env.reset(level)[0]


@partial(jax.jit, static_argnums=0)
def _step(env: Env, state: PyTree, action: jax.Array) -> tuple[PyTree, jax.Array, jax.Array]:
    state, shown = env.step(state, action)
    return state, shown.outcome, shown.cause


@partial(jax.jit, static_argnums=(0, 1))
def picture(env: Env, scale: int, state: PyTree) -> jax.Array:
    """uint8[height, width, 3]: `env.render`, compiled."""
    return env.render(state, scale)


def good_scale(env: Env, state: PyTree, scale: int | None, side: int = GOOD_SIDE) -> int:
    """Pixels per cell: those asked for, or what makes a picture of a good size.

    Args:
      state: any of the environment's; shapes are enough.
      side: pixels of a good picture's longer side, at most.

    Raises:
      ValueError: they are too few or make too large a picture.
    """
    shape = jax.eval_shape(lambda state: env.render(state, MIN_SCALE), state).shape
    cells = max(shape[0], shape[1]) // MIN_SCALE
    if scale is None:
        return max(min(side // cells, GOOD_SCALE), MIN_SCALE)
    if not MIN_SCALE <= scale <= MAX_SIDE // cells:
        raise ValueError(
            f"scale must be from {MIN_SCALE} to {MAX_SIDE // cells} pixels per cell, got {scale}"
        )
    return scale
