"""What a report says of one run, as plain data: read from the run's tables, nothing judged anew.

A run's folder is data: tables, JSON and arrays are read, nothing in them is run. What is not there
is named with the reason. How it becomes a page is in `page`; what is drawn of an episode, `replay`.

Axes: E recorded episodes of one policy, N their steps one after another.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hotoven import envs, levels, runs
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.coinrun.planner import NUM_MOVES
from hotoven.envs.lavagrid import LavaGrid
from hotoven.evaluation import scores
from hotoven.evaluation.findings import basis, read_findings, to_json
from hotoven.evaluation.knowing import STEP_SCORES
from hotoven.report.animate import method_name
from hotoven.report.packing import Packed
from hotoven.report.replay import replay_coinrun, replay_lavagrid
from hotoven.storage import as_written, read_json, read_table
from hotoven.types import OUTCOMES, Env, LevelSet

SET: Final = "test"  # the levels whose episodes are shown
WINDOWS: Final = (1, 3, 5, 10)  # steps ahead, where a run's settings name none
THOUSANDTH: Final = 1000.0  # what is only looked at is rounded to so much

RATES: Final = (
    *("set", "num_train_levels", "method", "num_levels", "num_replications", "resampled"),
    *("catastrophe_rate", "catastrophe_low", "catastrophe_high"),
    *("solved_rate", "solved_low", "solved_high"),
)
EPISODES: Final = (
    *("set", "num_train_levels", "replication", "method", "member", "level_index", "level_id"),
    *("outcome", "cause", "length"),
)
STEPS: Final = (
    *("set", "num_train_levels", "replication", "method", "member", "level_index", "level_id"),
    *("step", "action", "outcome"),
)
WHO: Final = ("num_train_levels", "replication", "method", "member")  # names a policy

# The scores of danger that a threshold can be set on: the name in tables, for people, and either
# the weights of mu and sigma or a column.
_PAIRS: Final = {"mean": scores.MEAN_ONLY, "mean and std": scores.WITH_STD}
_WORDS: Final = {
    "mean": "mean of values",
    "mean and std": "mean and std of values",
    "best pair": "best pair: mean and std, weighed on validation levels",
    "std": "std of values",
    "entropy": "entropy of the mean policy",
    "margin": "margin of the mean policy",
    "disagreement": "disagreement of members",
    "blocker": "blocker: probability that the action kills",
    "head": "head: learned on validation levels",
}


class Detail(NamedTuple):
    """How much of the recorded steps a page holds; the fuller, the larger the file."""

    scores: bool = True  # every score, not only those of mean and std
    members: bool = True  # what each member said
    num_levels: int | None = None  # at most so many levels


class Recorded(NamedTuple):
    """The recorded episodes of one policy, in order of level_index."""

    who: dict[str, Any]  # WHO -> value
    num_steps: np.ndarray  # int64[E]
    outcome: np.ndarray  # uint8[E], an index into OUTCOMES
    cause: np.ndarray  # uint8[E], an index into the environment's causes
    level_index: np.ndarray  # int64[E]
    level_id: np.ndarray  # int64[E]
    rows: pa.Table  # [N], of steps.parquet
    source: Path  # that table's file


def contents(path: Path, packed: Packed, detail: Detail) -> dict[str, Any]:
    """All that the page says of the run at `path`; its arrays go into `packed`.

    Raises:
      ValueError: there is no run, it has no tables yet, they may be old, or one is damaged; the
        message names it.
    """
    about = runs.read_about(path)
    if not (path / "episodes.parquet").exists():
        raise ValueError(f"{path} has no tables yet: hotoven evaluate {path} makes them")
    if about["status"] == "running":  # its tables may be of another time
        raise ValueError(
            f"{path} is being evaluated or was stopped in the middle of it, so its tables may be "
            f"old: hotoven evaluate {path} --resume makes them new"
        )
    study, settings, env = _env_of(path, about["config"])
    episodes = read_table(path / "episodes.parquet", EPISODES)
    absent: dict[str, str] = {}
    with as_written(path / "episodes.parquet"):
        _check_filled(episodes, EPISODES)
        ended = _ends(episodes, absent)
    rates = _rates(path, absent)
    methods = {row["method"] for row in [*ended, *rates]}
    with as_written(path / "run.json"):
        lines = _about(about)
    found = _findings(path, absent)
    told = {
        "name": path.resolve().name,
        "study": study,
        "absent": absent,
        "outcomes": list(OUTCOMES),
        "causes": list(env.causes),
        "findings": found,
        "basis": basis(one.get("num_replications") for one in found),
        "rates": rates,
        "ends": ended,
        "methods": {name: method_name(name) for name in sorted(methods)},
        "about": lines,
        "recorded": _recorded(path, study, settings, env, episodes, packed, detail, absent),
    }
    clean: dict[str, Any] = finite(told)
    return clean


def finite(value: Any) -> Any:
    """Plain data with None in place of numbers that JSON does not know."""
    if isinstance(value, dict):
        return {str(name): finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _env_of(path: Path, config: Mapping[str, Any]) -> tuple[str, dict[str, Any], Env]:
    """The study's name, its settings, and its environment."""
    study, settings = config.get("study"), config.get("settings")
    if study not in envs.ENVS:
        raise ValueError(
            f"{path / 'run.json'}: study must be one of {', '.join(envs.ENVS)}, got {study!r}"
        )
    if not isinstance(settings, dict) or not isinstance(settings.get("env"), dict):
        raise ValueError(f"{path / 'run.json'}: the settings of the environment are missing")
    plain = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in settings["env"].items()
    }
    try:
        return study, settings, envs.make(study, **plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path / 'run.json'}: {error}") from None


def _check_filled(table: pa.Table, names: Sequence[str]) -> None:
    """Raises ValueError if one of these columns lacks a value somewhere."""
    lacking = [name for name in names if table[name].null_count]
    if lacking:
        raise ValueError(f"values of {', '.join(lacking)} are missing")


def _findings(path: Path, absent: dict[str, str]) -> list[dict[str, Any]]:
    source = path / "findings.json"
    if not source.exists():
        absent["findings"] = f"the run has no findings.json: hotoven figures {path.name} makes it"
        return []
    with as_written(source):  # it may be nested too deeply
        plain: list[dict[str, Any]] = finite(to_json(read_findings(source)))
    return plain


def _rates(path: Path, absent: dict[str, str]) -> list[dict[str, Any]]:
    source = path / "rates.parquet"
    if not source.exists():
        absent["rates"] = "the run has no rates.parquet"
        return []
    table = read_table(source, RATES).select(list(RATES))
    with as_written(source):
        _check_filled(table, ("set", "num_train_levels", "method"))
        rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _ends(episodes: pa.Table, absent: dict[str, str]) -> list[dict[str, Any]]:
    """How many episodes of each method ended how, and of what."""
    if not episodes.num_rows:
        absent["ends"] = "episodes.parquet holds no episode"
        return []
    by = ("set", "num_train_levels", "method", "outcome", "cause")
    counted = episodes.group_by(list(by)).aggregate([("level_index", "count")])
    rows = counted.sort_by([(name, "ascending") for name in by]).to_pylist()
    return [{name: row[name] for name in by} | {"count": row["level_index_count"]} for row in rows]


def _about(about: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """What run.json says, as lines of a name and a value, under headings."""
    times = {name: about.get(name) for name in ("started", "finished")}
    headings = {
        "Run": {"study": about["config"].get("study")} | times,
        "Settings": about["config"].get("settings"),
        "Levels": about.get("levels"),
        "Versions": about.get("versions"),
        "Hardware": about.get("hardware"),
        "Went on with": about.get("continued_with"),
        "Agents of another run": about.get("agents_of"),
    }
    return {name: list(_lines(value)) for name, value in headings.items() if value}


def _lines(value: Any, name: str = "") -> Iterator[list[str]]:
    """Nested data as lines; a dot stands between the names of what holds what."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        inner = list(enumerate(value, start=1))
    else:
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield [name, shown if value is not None else "none"]
    for key, one in inner:
        yield from _lines(one, f"{name}.{key}" if name else str(key))


def _recorded(
    path: Path,
    study: str,
    settings: Mapping[str, Any],
    env: Env,
    episodes: pa.Table,
    packed: Packed,
    detail: Detail,
    absent: dict[str, str],
) -> dict[str, Any] | None:
    """The recorded episodes, what was known at every step, and the levels; None where none is."""
    source = path / "steps.parquet"
    if not source.exists():
        absent["recorded"] = "the run has no steps.parquet: no episode was recorded step by step"
        return None
    columns = _COLUMNS[study]
    asked = _asked(path, settings)
    steps = read_table(source, (*STEPS, *columns))
    with as_written(source):
        _check_filled(steps, (*STEPS, *(_COLUMNS[study] if study == "lavagrid" else ())))
    chosen = pc.field("set") == SET
    if detail.num_levels is not None:
        chosen = chosen & (pc.field("level_index") < detail.num_levels)
    with as_written(source):
        steps = steps.filter(chosen).select([*STEPS, *columns])
        policies = list(_policies(steps, episodes, source, env))
    if not policies:
        absent["recorded"] = "steps.parquet holds no episode on test levels"
        return None
    level_set = _test_levels(path, env, policies, absent)
    said = _members_of(path, study, detail, absent)
    with as_written(path / "chosen.json"):
        pairs = [_pairs(path, settings, one) for one in policies]
    with as_written(source):
        told = [
            _policy(one, study, env, level_set, said, packed, detail, pair)
            for one, pair in zip(policies, pairs, strict=True)
        ]
    names = list(_WORDS) if detail.scores else ["mean", "mean and std", "best pair", "std"]
    return {
        "actions": list(env.action_names),
        "max_steps": env.max_steps,
        **asked,
        "scores": {name: _WORDS[name] for name in names},
        "policies": told,
        "levels": None if level_set is None else _LEVELS[study](env, level_set, packed),
        "promises": _promises(path),
        "predictions": _predictions(path),
    }


def _asked(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's settings say of alarms and of the blocker.

    Raises:
      ValueError: one of them is of another type; the message names it.
    """
    windows = settings.get("windows", list(WINDOWS))
    told = {
        "min_lead": settings.get("min_lead", 0),
        "windows": windows,
        "window": settings.get("alarm_window", WINDOWS[0]),
        "block_threshold": settings.get("block_threshold"),
    }
    right = {
        "windows": isinstance(windows, list) and bool(windows) and all(map(_is_whole, windows)),
        "alarm_window": _is_whole(told["window"]),
        "min_lead": _is_whole(told["min_lead"]),
        "block_threshold": isinstance(told["block_threshold"], (int, float, type(None))),
    }
    for name, is_right in right.items():
        if not is_right:
            raise ValueError(f"{path / 'run.json'}: {name} is not understood: {settings[name]!r}")
    return told


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _policies(steps: pa.Table, episodes: pa.Table, source: Path, env: Env) -> Iterator[Recorded]:
    """The policies whose episodes were recorded, by number of training levels, then as in the file.

    Raises:
      ValueError: the steps of an episode do not run from 0 to its end, or episodes.parquet says
        otherwise.
    """
    names = steps.select(list(WHO)).group_by(list(WHO), use_threads=False).aggregate([])
    ended = episodes.filter(pc.field("set") == SET)
    for who in sorted(names.to_pylist(), key=lambda who: who["num_train_levels"]):
        mine = pc.scalar(True)
        for name, value in who.items():
            mine = mine & (pc.field(name) == value)
        rows = steps.filter(mine).sort_by([("level_index", "ascending"), ("step", "ascending")])
        _check_actions(rows, env)
        yield _episodes_of(who, rows, ended.filter(mine), source, env)


def _check_actions(rows: pa.Table, env: Env) -> None:
    """Raises ValueError if something that was done, or wanted, is no action."""
    for name in {"action", "wanted"} & set(rows.column_names):
        taken = rows[name].to_numpy()
        wrong = taken[(taken < 0) | (taken >= env.num_actions)]
        if len(wrong):
            raise ValueError(f"{name} must be from 0 to {env.num_actions - 1}, got {wrong[0]}")


def _episodes_of(
    who: dict[str, Any], rows: pa.Table, ended: pa.Table, source: Path, env: Env
) -> Recorded:
    index, first, num_steps = np.unique(
        rows["level_index"].to_numpy(), return_index=True, return_counts=True
    )
    step = rows["step"].to_numpy()
    whole = (step == np.arange(len(step)) - np.repeat(first, num_steps)).all()
    ended = ended.sort_by("level_index")
    ended = ended.filter(pc.is_in(ended["level_index"], pa.array(index)))
    told = rows["outcome"].to_numpy(zero_copy_only=False)[first + num_steps - 1]
    same = (
        ended.num_rows == len(index)
        and (ended["length"].to_numpy() == num_steps).all()
        and (ended["outcome"].to_numpy(zero_copy_only=False) == told).all()
    )
    if not whole or not same:
        raise ValueError(
            f"{source}: the steps of {who['method']!r} trained on {who['num_train_levels']} levels "
            "must run from 0 to the end of each episode, as episodes.parquet says it ended"
        )
    return Recorded(
        who,
        num_steps,
        _codes(told, OUTCOMES, source),
        _codes(ended["cause"].to_numpy(zero_copy_only=False), env.causes, source),
        index,
        rows["level_id"].to_numpy()[first],
        rows,
        source,
    )


def _codes(words: np.ndarray, known: Sequence[str], source: Path) -> np.ndarray:
    """uint8: where each word stands among those that are known."""
    strange = set(words.tolist()) - set(known)
    if strange:
        raise ValueError(f"{source}: unknown {', '.join(map(repr, sorted(map(str, strange))))}")
    return np.array([known.index(word) for word in words.tolist()], np.uint8)


def _test_levels(
    path: Path, env: Env, policies: Sequence[Recorded], absent: dict[str, str]
) -> LevelSet | None:
    """The test levels, proved to be those that were played; None where they were not kept."""
    source = path / "levels" / "test.safetensors"
    if not source.exists():
        absent["levels"] = "the run has no levels/test.safetensors: nothing can be drawn"
        return None
    level_set = levels.load(source, env)
    for one in policies:
        there = one.level_index < len(level_set)
        if not there.all() or (level_set.ids[one.level_index] != one.level_id).any():
            raise ValueError(
                f"{path / 'steps.parquet'} was not recorded on the levels of {source}: hotoven "
                "evaluate with --force records it again"
            )
    num = max(int(one.level_index.max()) for one in policies) + 1
    return levels.take(level_set, slice(0, num))


def _pairs(
    path: Path, settings: Mapping[str, Any], one: Recorded
) -> dict[str, scores.Coefficients]:
    """The weights of mu and sigma of the scores that are made of them; "best pair" if chosen."""
    if not (path / "chosen.json").exists():
        return dict(_PAIRS)
    for row in read_json(path / "chosen.json"):
        mine = (row["num_train_levels"], row["acting"]) == (
            one.who["num_train_levels"],
            one.who["method"],
        )
        if mine and row["window"] == settings.get("alarm_window"):
            pair = scores.Coefficients(float(row["alpha"]), float(row["beta"]))
            if not all(map(math.isfinite, pair)):
                raise ValueError("alpha and beta must be numbers")
            return _PAIRS | {"best pair": pair}
    return dict(_PAIRS)


def _policy(
    one: Recorded,
    study: str,
    env: Env,
    level_set: LevelSet | None,
    said: pa.Table | None,
    packed: Packed,
    detail: Detail,
    pairs: Mapping[str, scores.Coefficients],
) -> dict[str, Any]:
    """One policy's episodes, steps, scores and frames."""
    known, extra = _KNOWN[study](one, packed, said)
    if not detail.scores:
        known = {name: known[name] for name in ("mu", "sigma")}
    if not detail.members:
        extra.pop("said", None)
    frames = None
    if level_set is not None:
        tree = jax.tree.map(lambda leaf: np.asarray(leaf)[one.level_index], level_set.levels)
        frames = _FRAMES[study](env, tree, one, packed)
    size, method = one.who["num_train_levels"], one.who["method"]
    return {
        "key": f"{size}/{method}",
        **one.who,
        "name": method_name(method),
        "num_steps": packed.put(one.num_steps.astype(np.uint16)),
        "outcome": packed.put(one.outcome),
        "cause": packed.put(one.cause),
        "level_index": packed.put(one.level_index.astype(np.int32), delta=True),
        "level_id": one.level_id.tolist(),
        "action": packed.put(one.rows["action"].to_numpy().astype(np.uint8)),
        "known": {name: packed.put(column) for name, column in known.items()},
        "scores": {name: list(pair) for name, pair in pairs.items()}
        | {name: "sigma" if name == "std" else name for name in ("std", *known) if name in _WORDS},
        "frames": frames,
        **extra,
    }


_LAVAGRID: Final = ("wanted", "intervened", "members", "blocker", "dangerous")


def _know_lavagrid(
    one: Recorded, packed: Packed, said: pa.Table | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """mu, sigma [N] of the members' largest Q-values and the blocker's word on what was wanted."""
    num = one.rows.num_rows
    blocker = _flat(one.rows, "blocker").reshape(num, -1)
    q = _flat(one.rows, "members").reshape(num, -1, blocker.shape[1])  # [N, M, A]
    values = q.max(axis=2)
    wanted = one.rows["wanted"].to_numpy().astype(np.int64)
    deadly = _flat(one.rows, "dangerous").reshape(num, -1) @ (1 << np.arange(blocker.shape[1]))
    known = {
        "mu": scores.mean_value(values).astype(np.float32),
        "sigma": scores.std_value(values).astype(np.float32),
        "blocker": blocker[np.arange(num), wanted].astype(np.float32),
    }
    return known, {
        "wanted": packed.put(wanted.astype(np.uint8)),
        "intervened": packed.put(
            one.rows["intervened"].to_numpy(zero_copy_only=False).astype(np.uint8)
        ),
        "dangerous": packed.put(deadly.astype(np.uint8)),
        "said": {
            "num_steps": num,
            "num_members": q.shape[1],
            "preferences": packed.put(_thousandths(q)),
            "blocker": packed.put(_thousandths(blocker)),
        },
    }


def _know_coinrun(
    one: Recorded, packed: Packed, said: pa.Table | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All scores [N] of steps.parquet, and what members said at the first levels."""
    known = {name: one.rows[name].to_numpy().astype(np.float32) for name in STEP_SCORES}
    if said is None:
        return known, {}
    with as_written(one.source.with_name("members.parquet")):
        return known, _said_in_coinrun(one, packed, said)


def _said_in_coinrun(one: Recorded, packed: Packed, said: pa.Table) -> dict[str, Any]:
    """What members said at the first levels."""
    mine = pc.scalar(True)
    for name, value in one.who.items():
        mine = mine & (pc.field(name) == value)
    rows = said.filter(mine).sort_by([("level_index", "ascending"), ("step", "ascending")])
    num = min(rows.num_rows, one.rows.num_rows)
    rows = rows.slice(0, num)
    if not num:
        return {}
    # those of the first levels, so that they are the first steps
    for name in ("level_index", "step", "level_id"):
        if (rows[name].to_numpy() != one.rows[name].to_numpy()[:num]).any():
            raise ValueError("it is not of the episodes of steps.parquet")
    values = _flat(rows, "values").reshape(num, -1)
    shares = _flat(rows, "probabilities").reshape(num, values.shape[1], NUM_MOVES)
    return {
        "said": {
            "num_steps": num,
            "num_members": values.shape[1],
            "values": packed.put(_thousandths(values)),
            "preferences": packed.put(_thousandths(shares)),
            "blocker": packed.put(_thousandths(_flat(rows, "dangers").reshape(num, NUM_MOVES))),
        }
    }


def _flat(rows: pa.Table, name: str) -> np.ndarray:
    """A column of lists as one array.

    Raises:
      ValueError: one is missing, or they differ in length.
    """
    column = rows[name].combine_chunks()
    if column.null_count or len(pc.unique(pc.list_value_length(column))) > 1:
        raise ValueError(f"{name} must hold a list in every row, all of one length")
    return column.flatten().to_numpy(zero_copy_only=False)


def _thousandths(values: np.ndarray) -> np.ndarray:
    """int16: what bars show, to a thousandth, up to 32."""
    limit = np.iinfo(np.int16).max
    return np.clip(np.round(THOUSANDTH * values.astype(np.float64)), -limit, limit).astype(np.int16)


def _members_of(path: Path, study: str, detail: Detail, absent: dict[str, str]) -> pa.Table | None:
    """What each member said, where it is in a table of its own."""
    if study != "coinrun":
        return None
    source = path / "members.parquet"
    if not source.exists():
        absent["members"] = (
            "the run has no members.parquet, which is younger than it: what each member said was "
            "not kept"
        )
        return None
    if not detail.members:
        return None
    needed = ("level_index", "level_id", "step", "values", "probabilities", "dangers")
    return read_table(source, (*WHO, *needed))


def _frames_lavagrid(env: LavaGrid, tree: Any, one: Recorded, packed: Packed) -> dict[str, Any]:
    actions = one.rows["action"].to_numpy()
    found = replay_lavagrid(env, tree, actions, one.num_steps, one.outcome)
    return {"position": packed.put(found.position), "known": packed.put(found.known)}


def _frames_coinrun(env: CoinRun, tree: Any, one: Recorded, packed: Packed) -> dict[str, Any]:
    actions = one.rows["action"].to_numpy()
    found = replay_coinrun(env, tree, actions, one.num_steps, one.outcome)
    return {
        "x": packed.put(found.x, delta=True),
        "y": packed.put(found.y, delta=True),
        "pose": packed.put(found.pose),
        "monsters": packed.put(found.monsters),
    }


def _levels_lavagrid(env: LavaGrid, level_set: LevelSet, packed: Packed) -> dict[str, Any]:
    return {
        "height": env.height,
        "width": env.width,
        "cells": packed.put(np.asarray(level_set.levels.cells).astype(np.int8)),
    }


def _levels_coinrun(env: CoinRun, level_set: LevelSet, packed: Packed) -> dict[str, Any]:
    layout, _, looks = level_set.levels
    there = layout.monsters.direction > 0
    shift = np.floor(looks.shift * np.float32(65536)).astype(np.int32)
    return {
        "columns": packed.put(layout.columns),
        "coin": packed.put(layout.coin),
        "crates": packed.put(looks.crates),
        "themes": packed.put(np.stack([looks.agent, looks.ground, looks.background], axis=1)),
        "shift": packed.put(shift),
        "num_monsters": packed.put(there.sum(axis=1).astype(np.uint8)),
        "monster_rows": packed.put(layout.monsters.row[there]),
        "monster_themes": packed.put(looks.monsters[there]),
    }


_COLUMNS: Final[Mapping[str, Sequence[str]]] = {"lavagrid": _LAVAGRID, "coinrun": STEP_SCORES}
_KNOWN: Final[Mapping[str, Callable[..., Any]]] = {
    "lavagrid": _know_lavagrid,
    "coinrun": _know_coinrun,
}
_FRAMES: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {
    "lavagrid": _frames_lavagrid,
    "coinrun": _frames_coinrun,
}
_LEVELS: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {
    "lavagrid": _levels_lavagrid,
    "coinrun": _levels_coinrun,
}


def _promises(path: Path) -> list[dict[str, Any]]:
    """Thresholds that come with a promise, but for those that alarm in every step."""
    source = path / "promises.parquet"
    if not source.exists():
        return []
    kept = ("num_train_levels", "acting", "score", "rule", "promised", "threshold")
    rows = read_table(source, (*kept, "set", "vacuous")).to_pylist()
    with as_written(source):
        if any(math.isnan(row["threshold"]) for row in rows):
            raise ValueError("threshold must be a number in every row")
        return [
            {name: row[name] for name in kept}
            for row in rows
            if row["set"] == SET and not row["vacuous"] and math.isfinite(row["threshold"])
        ]


def _predictions(path: Path) -> list[dict[str, Any]]:
    """AUC with its interval, by score and window."""
    source = path / "predictions.parquet"
    if not source.exists():
        return []
    kept = ("num_train_levels", "acting", "score", "window", "auc", "auc_low", "auc_high")
    rows: list[dict[str, Any]] = read_table(source, kept).select(list(kept)).to_pylist()
    return rows
