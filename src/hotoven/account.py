"""An account of what a person did: the tables it is kept in, and what it comes to, in words.

What the columns and events mean is in docs/watch.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from hotoven.types import CATASTROPHE, FAILED, OUTCOMES, SOLVED, TIMEOUT, Env

INTERVENTIONS: Final = "interventions.parquet"
PLAYS: Final = "plays.parquet"


SCHEMA: Final = pa.schema(
    [
        ("session", pa.string()),
        ("started", pa.string()),  # UTC
        ("mode", pa.string()),
        ("num_train_levels", pa.int32()),
        ("help_steps", pa.int32()),
        ("budget", pa.int32()),  # null: any number
        ("level_index", pa.int32()),
        ("level_id", pa.int64()),
        ("attempt", pa.int32()),  # from 1 on; only the first counts
        ("step", pa.int32()),
        ("event", pa.string()),
        ("actor", pa.string()),  # agent or person
        *((name, pa.float64()) for name in ("mu", "sigma", "u", "threshold")),
        ("num_requests", pa.int32()),  # of the session, so far
        ("num_helped", pa.int32()),  # steps of this episode that the person took, so far
        ("num_steps", pa.int32()),  # of a hand back: that this help lasted
        ("note", pa.string()),  # of an alarm: why nobody was asked; of a hand back: "steps over"
        ("outcome", pa.string()),
        ("cause", pa.string()),
        ("outcome_alone", pa.string()),  # of an end: that of the agent alone
        ("cause_alone", pa.string()),
        ("length_alone", pa.int32()),
    ]
)
PLAY_SCHEMA: Final = pa.schema(
    [
        ("session", pa.string()),
        ("started", pa.string()),
        ("level_index", pa.int32()),
        ("level_id", pa.int64()),
        ("level_digest", pa.string()),
        ("attempt", pa.int32()),
        ("step", pa.int32()),
        ("action", pa.int32()),
        ("outcome", pa.string()),  # of the whole play
    ]
)


@dataclass
class Result:
    """How a level ended, with the person and without; both of the same level and key."""

    level_index: int
    outcome: int  # RUNNING where the level was left before its end
    cause: int
    length: int
    num_requests: int
    num_helped: int  # steps that the person took
    alone: tuple[int, int] | None = None  # (outcome, cause) of the agent alone; None: was left


def summary(env: Env, results: Sequence[Result], requests: str | None) -> Mapping[str, Any]:
    """What came of it, with the person and without, on the same levels: lines, and a table.

    Args:
      requests: how many there were, in words; None where the person played alone.
    """
    whole = [result for result in results if result.alone]
    count = counted(len(whole), "level")
    died = counted(sum(result.outcome == CATASTROPHE for result in whole), "catastrophe")
    alone = sum(result.alone is not None and result.alone[0] == CATASTROPHE for result in whole)
    alone_died = counted(alone, "catastrophe")
    if requests is None:
        lines = [f"You: {died} on {count}.", f"The agent alone: {alone_died} on the same {count}."]
    else:
        helped = sum(result.num_helped for result in results)
        length = sum(result.length for result in results)
        lines = [
            f"With your help: {died} on {count}.",
            f"Without it: {alone_died} on the same {count}.",
            f"Requests for help: {requests}.",
            f"You took {helped} of {counted(length, 'step')}.",
        ]
    if len(whole) < len(results):
        left = counted(len(results) - len(whole), "level")
        lines.append(f"Not counted: {left} left before the end.")
    return {
        "lines": lines,
        "heads": ["Level", "You" if requests is None else "With you", "Agent alone"],
        "rows": [_row(env, result) for result in results],
    }


def _row(env: Env, result: Result) -> Mapping[str, Any]:
    """A line of the table, as plain values."""
    alone = result.alone
    return {
        "level": result.level_index,
        "outcomes": [OUTCOMES[result.outcome], OUTCOMES[alone[0]] if alone else ""],
        "ends": [
            ending(env, result.outcome, result.cause) if alone else "left",
            ending(env, *alone) if alone else "",
        ],
        "num_requests": result.num_requests,
        "num_helped": result.num_helped,
    }


def ending(env: Env, outcome: int, cause: int) -> str:
    """An end in words."""
    named = {SOLVED: "solved", CATASTROPHE: "died", FAILED: "lost"}
    if outcome == TIMEOUT:
        return "out of time"
    return f"{named[outcome]}: {env.causes[cause]}" if outcome in named else "no end"


def counted(count: int, noun: str) -> str:
    """So many of them, in words."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
