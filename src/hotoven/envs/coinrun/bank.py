"""CoinRun's levels on disk: whole blocks of ids are made once and kept.

A block is 1024 ids from a multiple of 1024 on. Files lie in the user's cache (the environment
variable HOTOVEN_CACHE, else XDG_CACHE_HOME/hotoven, else ~/.cache/hotoven), named by mode, version
of the generator and first id. A file is read only if its checksum holds and it is what its name
says. Where the cache cannot be written levels are made and not kept.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import jax
import numpy as np

from hotoven.envs.coinrun import level
from hotoven.envs.coinrun.level import Level
from hotoven.storage import read_arrays, write_arrays

BLOCK: Final = 1024  # ids in one file


def generate(ids: np.ndarray, mode: str) -> tuple[Level, Mapping[str, np.ndarray]]:
    """As `level.generate`; whole blocks come from the cache, or go there.

    Raises:
      ValueError: as `level.generate`, or a file of the cache is damaged or not what its name says.
    """
    ids = np.asarray(ids, np.int64)
    if not _is_blocks(ids) or mode not in level.MODES:
        return level.generate(ids, mode)
    parts = [_block(int(first), mode) for first in ids[::BLOCK]]
    levels = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[one for one, _ in parts])
    names = parts[0][1]
    return levels, {name: np.concatenate([facts[name] for _, facts in parts]) for name in names}


def folder() -> Path:
    """Where the cache lies."""
    named = os.environ.get("HOTOVEN_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hotoven"


def path_of(first: int, mode: str) -> Path:
    """The file of the block that starts at id `first`."""
    return folder() / f"coinrun-{mode}-v{level.VERSION}-{first}.safetensors"


def _is_blocks(ids: np.ndarray) -> bool:
    """Whether the ids are whole blocks, each in order."""
    if ids.ndim != 1 or len(ids) == 0 or len(ids) % BLOCK or ids.min() < 0:
        return False
    firsts = ids[::BLOCK]
    whole = (firsts[:, None] + np.arange(BLOCK)).reshape(-1)
    return bool((firsts % BLOCK == 0).all() and np.array_equal(ids, whole))


def _block(first: int, mode: str) -> tuple[Level, Mapping[str, np.ndarray]]:
    path = path_of(first, mode)
    if path.exists():
        return _read(path, first, mode)
    levels, facts = level.generate(np.arange(first, first + BLOCK), mode)
    arrays = {f"level.{index}": leaf for index, leaf in enumerate(jax.tree.leaves(levels))}
    arrays |= {f"fact.{name}": fact for name, fact in facts.items()}
    with contextlib.suppress(OSError):  # a cache that cannot be written is none
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_arrays(path, arrays, {"block": json.dumps(_about(first, mode))})
    return levels, facts


def _read(path: Path, first: int, mode: str) -> tuple[Level, Mapping[str, np.ndarray]]:
    advice = "remove it, and its levels are made again"
    try:
        arrays, metadata = read_arrays(path)
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from None
    about, needed = json.loads(metadata.get("block", "{}")), _about(first, mode)
    if about != needed:
        raise ValueError(f"{path} must hold {needed}, it holds {about or 'no levels'}; {advice}")
    pattern, facts = _pattern(mode)
    needed_arrays = {f"level.{index}" for index in range(len(jax.tree.leaves(pattern)))}
    needed_arrays |= {f"fact.{name}" for name in facts}
    if arrays.keys() != needed_arrays:
        raise ValueError(f"{path} does not hold the arrays of a block of levels; {advice}")
    leaves = [arrays[f"level.{index}"] for index in range(len(jax.tree.leaves(pattern)))]
    levels = jax.tree.unflatten(jax.tree.structure(pattern), leaves)
    return levels, {name: arrays[f"fact.{name}"] for name in facts}


@cache
def _pattern(mode: str) -> tuple[Level, Mapping[str, np.ndarray]]:
    """No levels, with the shapes of any."""
    return level.generate(np.zeros(0, np.int64), mode)


def _about(first: int, mode: str) -> dict[str, object]:
    return {"mode": mode, "version": level.VERSION, "first": first, "count": BLOCK}
