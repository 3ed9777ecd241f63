"""What studies share: where things lie in a run's folder, random keys, and rows of tables."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from hotoven import agents, levels
from hotoven.progress import tell
from hotoven.runs import Run, read_about
from hotoven.types import LARGEST, Env, LevelSet


def settings(study: Any) -> dict[str, Any]:
    """A study's dataclass as plain JSON data."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(study)))
    return plain


def check_sizes(sizes: tuple[int, ...], least: int) -> None:
    """Raises ValueError unless numbers of training levels differ, grow and are large enough."""
    growing = bool(sizes) and list(sizes) == sorted(set(sizes))
    if not growing or sizes[0] < least or sizes[-1] > LARGEST:
        raise ValueError(
            f"sizes must be different, growing and from {least} to {LARGEST}, got {list(sizes)}"
        )


def check_seeds(seed: int, level_seed: int) -> None:
    """Raises ValueError unless both seeds, that of agents and that of levels, are in range."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to {2**32 - 1}, got {seed}")
    if not 0 <= level_seed <= levels.MAX_SEED:
        raise ValueError(f"level_seed must be from 0 to {levels.MAX_SEED}, got {level_seed}")


def agent_key(seed: int, *numbers: int) -> jax.Array:
    """The random key of one agent, or of one use; it does not depend on what else there is."""
    key = jax.random.key(seed)
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


@contextmanager
def made_again_without(path: Path, command: str = "reproduce") -> Iterator[None]:
    """Adds to a complaint what can be done: without that file a resumed run makes all anew."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{error}; remove {path}, and hotoven {command} with --resume makes it and what "
            "belongs to it again"
        ) from None


@contextmanager
def named(who: list[tuple[int, int]], checkpoint: Path) -> Iterator[None]:
    """Says of a training that failed who agents are, and of a checkpoint how it is made again.

    Args:
      who: (number of training levels, member) of every agent, in order.
    """
    try:
        yield
    except agents.TrainingDiverged as error:
        each = len({member for _, member in who})
        sizes = list(dict.fromkeys(size for size, _ in who))
        groups = [f"{n * each} to {n * each + each - 1} of {size}" for n, size in enumerate(sizes)]
        raise agents.TrainingDiverged(
            f"{error}; agents {', '.join(groups)} training levels"
        ) from None
    except ValueError as error:
        if not checkpoint.exists():
            raise
        raise ValueError(
            f"{error}; remove {checkpoint}, and hotoven reproduce with --resume trains from the "
            "start"
        ) from None


def training_note(
    sizes: tuple[int, ...], each: int, chunk: agents.ChunkReport, danger: str = "died"
) -> str:
    """Solved and catastrophe rates of the training episodes (exploration included) by size."""
    words = []
    for index, size in enumerate(sizes):
        rows = slice(index * each, (index + 1) * each)
        if not chunk.num_episodes[rows].any():
            words.append(f"{size} levels: no episode ended")
            continue
        solved, died = np.nanmean(chunk.solved[rows]), np.nanmean(chunk.catastrophe[rows])
        words.append(f"{size} levels: {solved:.0%} solved, {died:.0%} {danger}")
    return "; ".join(words)


def level_path(path: Path, name: str) -> Path:
    """The file of a level set of the run at `path`."""
    return path / "levels" / f"{name}.safetensors"


def write_levels(folder: Run, sets: Mapping[str, LevelSet]) -> None:
    """Writes the level sets into the run, and what identifies them into its record."""
    for name, level_set in sets.items():
        source = level_path(folder.path, name)
        if not source.exists():
            levels.save(source, level_set)
    folder.note(
        levels={
            name: {
                "count": len(level_set),
                "hash": levels.set_hash(level_set),
                "dropped_duplicates": level_set.num_duplicates,
                "generator_version": level_set.version,
            }
            for name, level_set in sets.items()
        }
    )


def stored_test_levels(path: Path, env: Env, make: Callable[[], LevelSet]) -> LevelSet:
    """The test levels of the run at `path`; a file that is gone or damaged is made again by `make`.

    Raises:
      ValueError: what is made is not the set that the run's record names.
    """
    source = level_path(path, "test")
    try:
        return levels.load(source, env)
    except ValueError:
        again, recorded = make(), read_about(path).get("levels", {}).get("test", {})
        if levels.set_hash(again) != recorded.get("hash"):
            raise
        levels.save(source, again)
        tell(f"{source} was missing or damaged and has been made again")
        return again


def check_recorded(path: Path, steps: pa.Table, source: Path, test: LevelSet) -> None:
    """Raises ValueError unless the steps were recorded on the levels of the set."""
    index, ids = (steps[name].to_numpy() for name in ("level_index", "level_id"))
    there = (index >= 0) & (index < len(test))
    wrong = np.flatnonzero(~there | (test.ids[np.where(there, index, 0)] != ids))
    if wrong.size:
        raise ValueError(
            f"{path} was not recorded on the levels of {source}: its level {index[wrong[0]]} has "
            f"id {ids[wrong[0]]}; hotoven evaluate with --force records it again"
        )


def watched_size(path: Path, sizes: tuple[int, ...], there: list[int], size: int | None) -> int:
    """The number of training levels whose agents are watched: `size`, or the smallest there is.

    Args:
      sizes: those of the study.
      there: those of them whose agents are in the run's folder at `path`.

    Raises:
      ValueError: there are no agents, or none of that size.
    """
    if not there:
        raise ValueError(f"{path} has no agents: {_MAKE_AGENTS}")
    if size is None:
        return there[0]
    if size not in there:
        allowed = ", ".join(map(str, there))
        missing = f", {_MAKE_AGENTS}" if size in sizes else ""
        raise ValueError(
            f"size must be one of {allowed}, whose agents are in {path}, got {size}{missing}"
        )
    return size


_MAKE_AGENTS = "hotoven train makes them, where it is given the same settings"
BY_HAND = "Its threshold was given by hand: it promises nothing."


def repeat(values: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
    """One value per column, `count` times; whole numbers as int32."""
    return {
        name: np.full(count, value, np.int32 if isinstance(value, int) else None)
        for name, value in values.items()
    }


def stack(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """Blocks of rows under one another; a column [rows, k] becomes a list column, NaN a null."""
    columns: dict[str, Any] = {}
    for name in blocks[0]:
        whole = np.concatenate([block[name] for block in blocks])
        if whole.ndim == 1:
            columns[name] = pa.array(whole, from_pandas=True)
            continue
        flat = pa.array(whole.reshape(-1))
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, whole.shape[1])
    return columns
