"""Small runs as studies leave them in their folders, made up, but for episodes that were played."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from hotoven import levels
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.coinrun.planner import NUM_MOVES
from hotoven.envs.lavagrid import LavaGrid
from hotoven.evaluation import outcomes
from hotoven.evaluation.knowing import alarm_rows, predictions, promise_rows
from hotoven.storage import read_table, write_json, write_table
from hotoven.studies.parts import repeat, stack
from hotoven.types import OUTCOMES, RUNNING, Env, LevelSet

GRID = LavaGrid(max_steps=12)
COINRUN = CoinRun(mode="easy", obs="symbolic", max_steps=60)
SIZES = (10, 200)
MEMBERS = 3
IDS = {
    "lavagrid": np.arange(20),
    "coinrun": np.append(np.arange(56), [63, 107, 114, 124]),  # the last ones have monsters
}
INSPECTED = 4  # levels of which it is kept what members said
MIN_LEAD = 3
WINDOWS = (1, 10)
# Text that would run, were it ever read as anything but text.
HOSTILE = '</script><img src=x onerror="window.hacked=1"><!-- & "quoted" {{data}}'


def make_run(path: Path, study: str, text: str = "") -> Path:
    """Writes a run of that study; `text` stands wherever a run may say what it likes."""
    env, methods = (
        (GRID, ("single", "mean", "mean+blocker"))
        if study == "lavagrid"
        else (COINRUN, ("random_step", "mean"))
    )
    chosen = levels.make_levels(env, IDS[study])
    levels.save(path / "levels" / "test.safetensors", chosen)
    episodes, steps, said = [], [], []
    for size in SIZES:
        for place, method in enumerate(methods):
            where = {"set": "test", "num_train_levels": size, "replication": 0, "method": method}
            where |= {"member": 0 if method == "single" else -1}
            rng = np.random.default_rng([size, place])
            played = _play(env, chosen, _actions(study, len(chosen), env.max_steps, rng))
            episodes.append(_episode_rows(env, where, chosen, played))
            rows = _step_rows(env, where, chosen, played)
            told = _grid_columns if study == "lavagrid" else _score_columns
            steps.append(rows | told(rows, rng))
            said.append(_member_rows(rows, rng))
    whole = stack(episodes)
    write_table(path / "episodes.parquet", whole)
    write_table(path / "steps.parquet", stack(steps))
    _write_rest(path, study, env, text)
    if study == "coinrun":
        write_table(path / "members.parquet", stack(said))
        _write_knowing(path)
    return path


def _actions(study: str, num: int, max_steps: int, rng: np.random.Generator) -> np.ndarray:
    if study == "lavagrid":
        return rng.integers(0, 4, (num, max_steps)).astype(np.int32)
    return np.where(rng.random((num, max_steps)) < 0.25, 8, 7).astype(np.int32)  # runs and jumps


def _play(env: Env, chosen: LevelSet, actions: np.ndarray) -> dict[str, np.ndarray]:
    """Actions, outcomes and causes [L, T], and the number of steps [L]."""

    def one(level: Any, actions: jax.Array) -> Any:
        def step(state: Any, action: jax.Array) -> Any:
            state, shown = env.step(state, action)
            return state, (shown.outcome, shown.cause)

        return jax.lax.scan(step, env.reset(level)[0], actions)[1]

    tree = jax.tree.map(jnp.asarray, chosen.levels)
    outcome, cause = map(np.asarray, jax.jit(jax.vmap(one))(tree, actions))
    num_steps = (outcome != RUNNING).argmax(axis=1) + 1
    return {"action": actions, "outcome": outcome, "cause": cause, "num_steps": num_steps}


def _episode_rows(
    env: Env, where: Mapping[str, Any], chosen: LevelSet, played: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    count = len(chosen)
    last = np.arange(count), played["num_steps"] - 1
    counts = ("episode_return", "num_blocked", "num_false_blocks", "num_all_blocked")
    return {
        **repeat(where, count),
        "level_index": np.arange(count, dtype=np.int32),
        "level_id": chosen.ids,
        "outcome": np.array(OUTCOMES)[played["outcome"][last]],
        "cause": np.array(env.causes)[played["cause"][last]],
        "length": played["num_steps"].astype(np.int32),
        **repeat(dict.fromkeys(counts, 0), count),
    }


def _step_rows(
    env: Env, where: Mapping[str, Any], chosen: LevelSet, played: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    level, step = np.nonzero(np.arange(env.max_steps) < played["num_steps"][:, None])
    return {
        **repeat(where, len(level)),
        "level_index": level.astype(np.int32),
        "level_id": chosen.ids[level],
        "step": step.astype(np.int32),
        "action": played["action"][level, step],
        "outcome": np.array(OUTCOMES)[played["outcome"][level, step]],
    }


def _grid_columns(rows: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    num = len(rows["step"])
    refused = np.asarray(rows["step"]) % 4 == 1
    return {
        "wanted": np.where(refused, (rows["action"] + 1) % 4, rows["action"]),
        "intervened": refused,
        "members": rng.normal(0, 0.5, (num, MEMBERS * 4)).astype(np.float32),
        "blocker": rng.random((num, 4)).astype(np.float32),
        "dangerous": rng.random((num, 4)) < 0.2,
    }


def _score_columns(rows: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Values fall and spread before a death, so that there is something to predict."""
    ends = np.flatnonzero(rows["outcome"] != "running")
    own = ends[np.searchsorted(ends, np.arange(len(rows["step"])))]  # the last row of each episode
    to_death = own - np.arange(len(own))
    danger = np.exp(-to_death / 5) * (rows["outcome"][own] == "catastrophe")
    num = len(danger)
    found = {
        "mu": 7 + rng.normal(0, 0.7, num) - 5 * danger,
        "sigma": 0.6 + rng.gamma(2, 0.15, num) + danger,
        "entropy": rng.random(num) + danger,
        "margin": -rng.random(num),
        "disagreement": rng.random(num),
        "blocker": 0.3 * rng.random(num) + 0.3 * danger,
        "head": 0.2 * rng.random(num) + 0.6 * danger,
    }
    return {name: values.astype(np.float32) for name, values in found.items()}


def _member_rows(rows: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    kept = rows["level_index"] < INSPECTED
    num = int(kept.sum())
    shares = rng.dirichlet(np.ones(NUM_MOVES), (num, MEMBERS)).reshape(num, -1)
    names = ("num_train_levels", "replication", "method", "member")
    return {
        **{name: rows[name][kept] for name in (*names, "level_index", "level_id", "step")},
        "values": rng.normal(7, 1, (num, MEMBERS)).astype(np.float32),
        "probabilities": shares.astype(np.float16),
        "dangers": rng.random((num, NUM_MOVES)).astype(np.float16),
    }


def _write_rest(path: Path, study: str, env: Env, text: str) -> None:
    rates = outcomes.rates(read_table(path / "episodes.parquet"))
    write_table(path / "rates.parquet", dict(zip(rates.column_names, rates, strict=True)))
    detail = {"num_train_levels": 10, "measure": f"share {text}", "estimate": 3.0}
    finding = {
        "claim": f"a claim {text}",
        "statement": f"Something is claimed {text}.",
        "measure": f"levels, % {text}",
        "estimate": 38.4,
        "low": 30.0,
        "high": 47.0,
        "verdict": "supported",
        "rule": f"By rule {text}.",
        "details": [detail | {"low": 2.0, "high": 4.0}],
        "note": text,
    }
    doubtful = finding | {"verdict": "undecided", "estimate": None, "low": None, "high": None}
    write_json(path / "findings.json", [finding, doubtful, finding | {"verdict": "not supported"}])
    plain = asdict(env)  # type: ignore[call-overload]
    settings = {"env": plain, "sizes": list(SIZES), "words": text}
    settings |= (
        {"block_threshold": 0.5}
        if study == "lavagrid"
        else {"windows": list(WINDOWS), "alarm_window": 10, "min_lead": MIN_LEAD}
    )
    about = {
        "status": "finished",
        "started": "2026-01-01T00:00:00Z",
        "finished": f"2026-01-01T01:00:00Z {text}",
        "config": {"study": study, "settings": settings},
        "versions": {"python": "3.11", "jax": text or "0.10"},
        "hardware": {"processor": f"a processor {text}", "cores": 2, "devices": ["cpu", "cpu"]},
        "levels": {"test": {"count": len(IDS[study]), "hash": "0123456789abcdef"}},
    }
    write_json(path / "run.json", about)


def _write_knowing(path: Path) -> None:
    """What is told of the steps in tables of their own."""
    methods = ("random_step", "mean")
    chosen = [
        {"num_train_levels": size, "acting": method, "window": 10, "alpha": -1.0, "beta": 0.37}
        for size in SIZES
        for method in methods
    ]
    write_json(path / "chosen.json", chosen)
    steps = read_table(path / "steps.parquet")
    where = (SIZES, COINRUN.max_steps)
    tables = predictions(steps, chosen, *where, methods, WINDOWS)
    tables["alarms"] = alarm_rows(steps, chosen, *where, methods, 10, MIN_LEAD)
    for name in ("predictions", "alarms"):
        table = tables[name]
        write_table(path / f"{name}.parquet", dict(zip(table.column_names, table, strict=True)))
    promises = promise_rows(
        _with_sets(steps), chosen, *where, "mean", 10, MIN_LEAD, (0.2, 0.5), 0.1
    )
    columns = dict(zip(promises.column_names, promises, strict=True))
    write_table(path / "promises.parquet", columns)


def _with_sets(steps: Any) -> Any:
    """The same steps as if they had been taken on the other sets too."""
    place = steps.schema.get_field_index("set")
    others = [
        steps.set_column(place, "set", pa.array([name] * steps.num_rows))
        for name in ("calibration", "shifted")
    ]
    return pa.concat_tables([steps, *others])
