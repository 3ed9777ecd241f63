"""An agent plays unseen levels, asks a person for help at an alarm, and everything is written down.

A `Watch` is a `Session` of `web`, as a `Game` of `play` is. It knows no learner and no web server:
levels, policy, probe and threshold come from outside, in a `Watched`. What happened goes into the
run's `interventions.parquet`, what a person played into `plays.parquet`; docs/watch.md names their
columns. An episode without help is the one that evaluation has played.
"""

import logging
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import jax
import numpy as np

from hotoven.account import (
    INTERVENTIONS,
    PLAY_SCHEMA,
    PLAYS,
    SCHEMA,
    Result,
    counted,
    ending,
    summary,
)
from hotoven.devices import at_once
from hotoven.evaluation import scores
from hotoven.evaluation.live import Live, Now, Said
from hotoven.evaluation.rollout import Probe
from hotoven.journal import Journal
from hotoven.play import CONTROLS, Hands, good_scale, picture
from hotoven.types import LARGEST, OUTCOMES, RUNNING, Env, LevelSet

# How things stand. PLAYING: the agent acts. ASKING: time stands, a person is asked. HELPING: a
# person acts. ENDED: the episode is over. SUMMARY: all levels are.
PLAYING, ASKING, HELPING, ENDED, SUMMARY = "playing", "asking", "helping", "ended", "summary"

NUM_LEVELS: Final = 10  # by default
MAX_SPEED: Final = 60  # steps per second
LAVAGRID_SPEED: Final = 4  # steps per second where keys make steps, by default
LINGER: Final = 2.0  # seconds for which an end is shown before the agent begins the next level
SIDE: Final = 416  # pixels of a picture's longer side, at most: enough, and quickly drawn
STEPS_OVER: Final = "steps over"  # the note of a hand back that nobody asked for
BLOCKED: Final = 0.5  # the dashed line: a blocker blocks above this probability

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How a person watches."""

    mode: Literal["watch", "alone", "record"] = "watch"  # help, play alone, or record your play
    num_levels: int | None = None  # unseen levels to play; None: 10, or as many as there are
    first_level: int | None = None  # the first of them; None: the first that no threshold is from
    help_steps: int | None = None  # steps that an answer holds for; None: as in the study
    budget: int | None = None  # requests for help in all; None: any number
    steps_per_second: int | None = None  # speed to begin with; None: CoinRun 15, LavaGrid 4

    def __post_init__(self) -> None:
        for name, least, most in (
            ("num_levels", 1, LARGEST),
            ("first_level", 0, LARGEST),
            ("help_steps", 1, LARGEST),
            ("budget", 0, LARGEST),
            ("steps_per_second", 1, MAX_SPEED),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ValueError(
                    f"{name.replace('_', '-')} must be from {least} to {most}, got {value}"
                )


class Watched(NamedTuple):
    """What is watched. G: the actions that are told apart."""

    env: Env
    painter: Env  # the same rules, drawn for people
    levels: LevelSet  # the unseen ones
    policy: Any
    probe: Probe  # -> Said
    key: jax.Array  # with which evaluation has played the unseen levels
    coefficients: scores.Coefficients
    threshold: float  # of U = alpha * mean + beta * standard deviation of the members' values
    promise: str  # what the threshold promises
    num_train_levels: int
    first_level: int  # the first unseen level that the threshold does not come from
    help_steps: int
    preferences: str  # what a member says of its actions
    actions: tuple[str, ...]  # names, [G]


class Score(NamedTuple):
    """What the members' values come to."""

    mu: float
    sigma: float
    u: float


class Watch:
    """One sitting: some unseen levels, played by the agent with a person's help, or by the person.

    An answer holds for `help_steps` steps: help for as many steps, or until it is handed back; and
    after "go on" no new question for as many. After a hand back the agent takes one step at least.

    Args:
      folder: the run's, into which is written.
      scale: pixels per cell; None for what fills a page well.

    Raises:
      ValueError: there are not as many levels, or a table in the folder is damaged.
    """

    def __init__(
        self, watched: Watched, settings: Settings, folder: Path, scale: int | None = None
    ):
        self.watched, self.settings = watched, settings
        self.env = watched.env
        self.controls = CONTROLS[self.env.name]
        self.levels = _chosen(watched, settings)
        self.help_steps = settings.help_steps or watched.help_steps
        self.speed = settings.steps_per_second or self.controls.steps_per_second or LAVAGRID_SPEED
        self.started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.session = f"{self.started}-{secrets.token_hex(4)}"
        self.results: list[Result] = []
        self.num_requests = 0
        self.trouble = ""  # why something could not be written
        self._journal = Journal(folder / INTERVENTIONS, SCHEMA)
        self._plays = Journal(folder / PLAYS, PLAY_SCHEMA)
        self._live = Live(self.env, watched.policy, watched.probe, watched.key)
        state, _ = jax.eval_shape(self.env.reset, self._level(0))
        self.scale = good_scale(watched.painter, state, scale, SIDE)
        self._hands = Hands()
        self._paused = self._agent_plays
        self._going = False  # where a person acts: whether time passes
        self.place = 0  # of the level among those chosen
        self.attempt = 0

    def get_ready(self) -> None:
        """Compiles a step and a picture, so that the first of each is no slower, and begins."""
        now = self._live.begin(self._level(0), self.levels[0])
        at_once(
            lambda work: work(),
            [
                lambda: self._live.advance(now, now.action),
                lambda: picture(self.watched.painter, self.scale, now.state),
            ],
        )
        self._begin(0)

    # What `web` asks for

    @property
    def seconds_per_step(self) -> float:
        """Time between two steps."""
        return 1 / self.speed

    @property
    def runs(self) -> bool:
        """Whether time passes."""
        if self._paused:
            return False
        if self.phase == HELPING:
            return self._going and self.controls.steps_per_second > 0
        return self.phase == PLAYING or (self.phase == ENDED and self._agent_plays)

    def greeting(self) -> Mapping[str, Any]:
        """What a page needs to know once."""
        keys = [("N", "next level")]
        if self._agent_plays:
            steps = counted(self.help_steps, "step")
            keys = [
                ("H", f"help: you act for {steps}"),
                ("G", f"go on: no question for {steps}"),
                ("B", "hand back before they are over"),
                ("P", "pause, and go on"),
                *keys,
            ]
        else:
            keys = [*keys, ("R", "begin the level again")]
        trained = counted(self.watched.num_train_levels, "level")
        return {
            "title": f"{type(self.env).__name__}",
            "about": f"{self.controls.about(self.env)}, agents trained on {trained}",
            "promise": self.watched.promise if self._agent_plays else "",
            "mode": self.settings.mode,
            "formula": _formula(self.watched.coefficients),
            "preferences": self.watched.preferences,
            "actions": self.watched.actions,
            "blocked": BLOCKED,
            "max_speed": MAX_SPEED,
            "timed": self._agent_plays or self.controls.steps_per_second > 0,
            "keys": [*keys, *self.controls.moves],
        }

    def step(self) -> None:
        """Time has passed: somebody acts, or the next level begins."""
        if self.phase == PLAYING:
            self._move(int(self.now.action))
        elif self.phase == HELPING:
            action = self.controls.action(self._hands.take())
            if action is not None:
                self._move(action)
        elif self.phase == ENDED:
            self._linger -= 1
            if self._linger <= 0:
                self._next()

    def hear(self, viewer: int, message: Mapping[str, Any]) -> None:
        """Takes a viewer's keys ({"keys": [...]}), speed ({"speed": ...}) or command ({"do": ...}).

        A command that makes no sense as things stand does nothing: another viewer was quicker.
        Keys that it held before it came, as after a lost connection, are {"held": [...]}.

        Raises:
          ValueError: it is none of them.
        """
        if set(message) == {"keys"}:
            self._press(viewer, message["keys"])
        elif set(message) == {"held"}:
            self._hold(viewer, message["held"])
        elif set(message) == {"speed"}:
            self._set_speed(message["speed"])
        elif set(message) == {"do"}:
            self._command(message["do"])
        else:
            told = ", ".join(map(ascii, message))[:80]
            raise ValueError(f"it must hold keys, held, speed or do, got {told}")

    def let_go(self, viewer: int) -> None:
        """The keys of that viewer are up."""
        self._hands.let_go(viewer)

    def pause(self) -> None:
        """Time stands still until somebody goes on."""
        self._paused, self._going = self._agent_plays, False
        self._hands.forget()

    def show(self) -> tuple[Mapping[str, Any], np.ndarray]:
        """How things stand, and the picture."""
        index = self.levels[self.place]
        of_all = f"{self.place + 1} of {len(self.levels)}"
        status = {
            "phase": self.phase,
            "paused": self._paused,
            "speed": self.speed,
            "level": f"unseen level {index} ({of_all})",
            "steps": f"step {self.num_steps} of {self.env.max_steps}",
            "outcome": OUTCOMES[self.outcome],
            "message": self._message(),
            "countdown": self._countdown(),
            "requests": self._requests(),
            "can": self._can(),
            "trouble": self.trouble,
            "heard": self._heard(),
            "summary": self._summary() if self.phase == SUMMARY else None,
        }
        return status, np.asarray(picture(self.watched.painter, self.scale, self.now.state))

    # What happens

    @property
    def _agent_plays(self) -> bool:
        return self.settings.mode == "watch"

    @property
    def num_steps(self) -> int:
        """Steps of this episode so far."""
        return len(self.actions)

    @property
    def outcome(self) -> int:
        """Of this episode, so far."""
        return int(self.now.outcome)

    def _level(self, place: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[self.levels[place]], self.watched.levels.levels)

    def _begin(self, place: int) -> None:
        """Begins an episode on that level; the same again is another attempt."""
        self.attempt = self.attempt + 1 if place == self.place else 1
        self.place = place
        self.now: Now = self._live.begin(self._level(place), self.levels[place])
        self.actions: list[int] = []
        self.num_helped = 0  # steps of this episode that the person took
        self._asked_before = self.num_requests
        self._apart: Now | None = None  # where the person first acted
        self._above = False  # the score, before
        self._quiet = 0  # steps of the agent before it may ask
        self._left: int | None = None  # steps of help still to come
        self._helped = 0  # steps of this help
        self._linger = 0
        self._hands.forget()
        self.phase = PLAYING if self._agent_plays else HELPING
        self._going = bool(self._hands.down) and not self._agent_plays
        self._arrive()

    def _move(self, action: int) -> None:
        """One step of whoever acts."""
        if self.phase == HELPING:
            self._apart = self.now if self._apart is None else self._apart
            self.num_helped += 1
            self._helped += 1
            if self._left is not None:
                self._left -= 1
        else:
            self._quiet = max(self._quiet - 1, 0)
        self.now = self._live.advance(self.now, action)
        self.actions.append(action)
        if self.outcome == RUNNING and self.num_steps < self.env.max_steps:
            self._arrive()
        else:
            self._end()

    def _arrive(self) -> None:
        """Looks at where the episode stands: help may be over, an alarm begin, a question come."""
        self.score = self._score()
        if not self._agent_plays:
            return
        if self._left == 0:
            self._give_back(over=True)
        before, self._above = self._above, self.score.u > self.watched.threshold
        spent = self.settings.budget is not None and self.num_requests >= self.settings.budget
        asks = self.phase == PLAYING and self._above and not self._quiet and not spent
        if self._above and not before:
            reasons = {"person acts": self.phase == HELPING, "budget spent": spent}
            why = next((reason for reason, holds in reasons.items() if holds), "answer holds")
            self._note("alarm", note="" if asks else why)
        if asks:
            self.num_requests += 1
            self.phase = ASKING
            self._note("request")
            self._write()

    def _score(self) -> Score:
        """As evaluation computes it, in float32."""
        values = np.asarray(self.now.said.values)
        mu, sigma = (
            np.asarray(part(values), np.float32) for part in (scores.mean_value, scores.std_value)
        )
        u = scores.score(mu, sigma, *self.watched.coefficients)
        return Score(float(mu), float(sigma), float(u))

    def _give_back(self, over: bool = False) -> None:
        """The agent acts again, by the person's word or because the steps are over."""
        self._note("hand back", num_steps=self._helped, note=STEPS_OVER if over else "")
        self._write()
        self._left, self._going, self.phase = None, False, PLAYING

    def _end(self) -> None:
        """The episode is over: replays it without the person, and writes down what there is."""
        self._linger = math.ceil(LINGER * self.speed)
        alone = self.now if self._apart is None else self._live.finish(self._apart)
        self._note(
            "end",
            num_steps=self._of_this_help(),
            outcome_alone=OUTCOMES[int(alone.outcome)],
            cause_alone=self.env.causes[int(alone.cause)],
            length_alone=int(alone.num_steps),
        )
        self.phase = ENDED
        self._keep_result((int(alone.outcome), int(alone.cause)))

    def _of_this_help(self) -> int | None:
        """How long the help has been that goes on; None where there is none."""
        return self._helped if self._left is not None else None

    def _leave(self) -> None:
        """The person has enough of this episode, which counts for nothing."""
        self._note("left", actor="person", num_steps=self._of_this_help())
        self._keep_result(None)

    def _keep_result(self, alone: tuple[int, int] | None) -> None:
        if self.attempt == 1:  # later ones are practice: the level is known by then
            self.results.append(
                Result(
                    self.levels[self.place],
                    self.outcome if alone else RUNNING,
                    int(self.now.cause),
                    self.num_steps,
                    self.num_requests - self._asked_before,
                    self.num_helped,
                    alone,
                )
            )
        if self.settings.mode == "record":
            self._record()
        self._write()

    def _write(self) -> None:
        """Writes down what there is: a kill at any moment loses only what comes later."""
        troubles = []
        for journal in (self._journal, self._plays):
            try:
                journal.write()
            except (OSError, ValueError) as error:  # rows are kept for the next try
                troubles.append(f"What happened could not be written: {error}")
                _log.warning("hotoven: %s", " ".join(troubles[-1].split()))
        self.trouble = " ".join(troubles)

    def _record(self) -> None:
        index, levels = self.levels[self.place], self.watched.levels
        for step, action in enumerate(self.actions):
            self._plays.add(
                session=self.session,
                started=self.started,
                level_index=index,
                level_id=int(levels.ids[index]),
                level_digest=levels.digests[index].tobytes().hex(),
                attempt=self.attempt,
                step=step,
                action=action,
                outcome=OUTCOMES[self.outcome],
            )

    def _next(self) -> None:
        if self.place + 1 < len(self.levels):
            self._begin(self.place + 1)
        else:
            self.phase = SUMMARY

    def _note(self, event: str, actor: str | None = None, **more: Any) -> None:
        """A row of the run's table; `actor` is whoever acts where it is not named."""
        index = self.levels[self.place]
        # after the last step nobody looks at the state: there is no score of it
        known = self.score._asdict() if self._agent_plays and event != "end" else {}
        self._journal.add(
            session=self.session,
            started=self.started,
            mode=self.settings.mode,
            num_train_levels=self.watched.num_train_levels,
            help_steps=self.help_steps,
            budget=self.settings.budget,
            level_index=index,
            level_id=int(self.watched.levels.ids[index]),
            attempt=self.attempt,
            step=self.num_steps,
            event=event,
            actor=actor or ("person" if self.phase == HELPING else "agent"),
            **known,
            threshold=self.watched.threshold if self._agent_plays else None,
            num_requests=self.num_requests,
            num_helped=self.num_helped,
            outcome=OUTCOMES[self.outcome],
            cause=self.env.causes[int(self.now.cause)],
            **more,
        )

    # What a person says

    def _press(self, viewer: int, keys: Any) -> None:
        fresh = self._hands.press(viewer, keys)
        if not fresh or self.phase != HELPING:
            return
        self._paused, self._going = False, True
        if self.controls.steps_per_second:
            self._hands.tap(fresh)
            return
        for key in fresh:
            action = self.controls.action({key})
            if action is not None and self.phase == HELPING:
                self._move(action)

    def _hold(self, viewer: int, keys: Any) -> None:
        """These keys were down before: where each press is a step, theirs has been made."""
        if self.controls.steps_per_second:
            self._press(viewer, keys)
        else:
            self._hands.press(viewer, keys)

    def _set_speed(self, speed: Any) -> None:
        if not isinstance(speed, int) or isinstance(speed, bool) or not 1 <= speed <= MAX_SPEED:
            raise ValueError(
                f"speed must be from 1 to {MAX_SPEED} steps per second, got {ascii(speed)[:80]}"
            )
        self.speed = speed

    def _command(self, command: Any) -> None:
        does = {
            "help": self._help,
            "go": self._go_on,
            "back": self._hand_back,
            "pause": self._toggle,
            "next": self._skip,
            "restart": self._restart,
        }
        if not isinstance(command, str) or command not in does:
            raise ValueError(f"do must be one of {', '.join(does)}, got {ascii(command)[:80]}")
        if command in self._can():
            does[command]()

    def _can(self) -> list[str]:
        """The commands that make sense as things stand."""
        agent = self._agent_plays
        fits = {
            "help": self.phase == ASKING,
            "go": self.phase == ASKING,
            "back": agent and self.phase == HELPING,
            "pause": agent and self.phase in (PLAYING, HELPING, ENDED),
            "next": self.phase != SUMMARY,
            "restart": not agent and self.phase in (HELPING, ENDED),
        }
        return [command for command, holds in fits.items() if holds]

    def _help(self) -> None:
        self.phase, self._left, self._helped = HELPING, self.help_steps, 0
        self._hands.forget()
        self._paused, self._going = False, bool(self._hands.down)
        self._note("help")
        self._write()

    def _go_on(self) -> None:
        self._note("go on", actor="person")
        self._write()
        self.phase, self._quiet, self._paused = PLAYING, self.help_steps, False

    def _hand_back(self) -> None:
        self._give_back()
        self._quiet, self._paused = 1, False

    def _toggle(self) -> None:
        self._paused = not self._paused

    def _skip(self) -> None:
        if self.phase != ENDED:
            self._leave()
        self._next()

    def _restart(self) -> None:
        if self.phase != ENDED:
            self._leave()
        self._begin(self.place)

    # What is told

    def _message(self) -> str:
        steps = counted(self.help_steps, "step")
        if self.phase == SUMMARY:
            return "All levels are over."
        if self.phase == ENDED:
            return self._told_end()
        if self.phase == ASKING:
            return "Alarm: the agent asks for help. Do you help (H), or does it go on (G)?"
        if self.phase == HELPING and not self._agent_plays:
            if self._going or (self.actions and not self.controls.steps_per_second):
                return ""
            return "Paused. Press a key to go on." if self.actions else self.controls.start
        if self.phase == HELPING:
            return f"You have the keys for {steps}, or until you hand back (B)."
        if self._paused:
            begun = self.actions or self.results
            return "Paused. Press P to go on." if begun else "Press P to let the agent play."
        return "The agent plays."

    def _told_end(self) -> str:
        ends = ending(self.env, self.outcome, int(self.now.cause))
        told = f"{ends.capitalize()}, after {counted(self.num_steps, 'step')}."
        if self.results and self.attempt == 1 and self.results[-1].alone and self._apart:
            alone = ending(self.env, *self.results[-1].alone)
            told += f" The agent alone: {alone}."
        return told if self._agent_plays else f"{told} Press N for the next level."

    def _countdown(self) -> str:
        if self.phase != HELPING or self._left is None:
            return ""
        in_time = self.controls.steps_per_second > 0
        waits = ", which begin with your first key" if in_time and not self._going else ""
        return f"{counted(self._left, 'step')} of help left{waits}"

    def _requests(self) -> str:
        if not self._agent_plays:
            return ""
        of_all = "" if self.settings.budget is None else f" of {self.settings.budget}"
        return f"{self.num_requests}{of_all}"

    def _heard(self) -> Mapping[str, Any] | None:
        """What the members and the blocker say of this state; None where nobody listens."""
        if not self._agent_plays or self.phase in (ENDED, SUMMARY):
            return None
        said: Said = self.now.said
        chosen = int(self.now.action)
        dangers = np.asarray(said.dangers)
        name = self.watched.actions[chosen]
        return {
            "values": _plain(said.values),
            "preferences": _plain(said.preferences),
            "dangers": _plain(said.dangers),
            "chosen": chosen,
            "mu": _plain(self.score.mu),
            "sigma": _plain(self.score.sigma),
            "score": _plain(self.score.u),
            "threshold": _plain(self.watched.threshold),
            "alarm": self._above,
            "next": f"{name}: kills at once with probability {dangers[chosen]:.0%}",
        }

    def _summary(self) -> Mapping[str, Any]:
        requests = self._requests() if self._agent_plays else None
        told = summary(self.env, self.results, requests)
        following = self.levels[-1] + 1
        if following == len(self.watched.levels):
            return told
        again = f"For other levels end the command and begin it with --first-level {following}."
        return {**told, "lines": [*told["lines"], again]}


def _chosen(watched: Watched, settings: Settings) -> list[int]:
    """The levels that are played, by their place among the unseen ones."""
    count = len(watched.levels)
    first = watched.first_level if settings.first_level is None else settings.first_level
    num = settings.num_levels or min(NUM_LEVELS, max(count - first, 1))
    if first + num > count:
        raise ValueError(
            f"there are {count} unseen levels, 0 to {count - 1}: first-level {first} and "
            f"num-levels {num} go beyond them"
        )
    return list(range(first, first + num))


def _formula(pair: scores.Coefficients) -> str:
    """U in words that a person reads."""
    text = ""
    greek = "\N{GREEK SMALL LETTER MU}", "\N{GREEK SMALL LETTER SIGMA}"
    for factor, name in zip(pair, greek, strict=True):
        if factor:
            size = "" if abs(factor) == 1 else f"{abs(factor):.3g} "
            minus, plus = (" \N{MINUS SIGN} ", " + ") if text else ("\N{MINUS SIGN}", "")
            text += f"{minus if factor < 0 else plus}{size}{name}"
    return text


def _plain(numbers: Any) -> Any:
    """Arrays as lists of rounded numbers; None for what is no finite number."""
    array = np.asarray(numbers, np.float64)
    if array.ndim:
        return [_plain(part) for part in array]
    return round(float(array), 5) if np.isfinite(array) else None
