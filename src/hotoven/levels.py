"""Level sets: made from ids, kept disjoint by content, taken apart, saved and loaded.

A level is data. What a level holds is known only to its environment; here it is a pytree of arrays
with a leading axis [L], an id and a digest of its content. Unseen means unseen: sets are disjoint
by digest, not by id, and what was dropped for that is counted.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import jax
import numpy as np

from hotoven.storage import read_arrays, write_arrays
from hotoven.types import Env, LevelSet, PyTree

# Each role draws its ids from a range of its own; within it, a seed picks 2**32 consecutive ids.
ROLES: Final = ("train", "validation", "test")
IDS_PER_SEED: Final = 2**32
IDS_PER_ROLE: Final = 2**48
MAX_SEED: Final = IDS_PER_ROLE // IDS_PER_SEED - 1
MAX_ID: Final = 2**63 - 1
DRAW: Final = 1024  # levels generated at a time while a set is filled
DIGEST_BYTES: Final = 16


class Split(NamedTuple):
    """Three level sets with no level in common. A study's training sets are prefixes of `train`."""

    train: LevelSet
    validation: LevelSet  # for tuning and thresholds
    test: LevelSet  # looked at once, at the end


def make_levels(env: Env, ids: np.ndarray) -> LevelSet:
    """The levels of those ids (int[L]), duplicates included.

    Raises:
      ValueError: the ids are not whole numbers in a list, or the environment refuses one.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or not (ids.size == 0 or np.issubdtype(ids.dtype, np.integer)):
        raise ValueError(f"level ids must be a list of whole numbers, got {ids.dtype}{ids.shape}")
    if ids.size and ids.max() > MAX_ID:
        raise ValueError(f"level ids must be at most {MAX_ID}, got {ids.max()}")
    ids = ids.astype(np.int64)
    levels, facts = env.generate(ids)
    return LevelSet(levels, ids, digests(env.content(levels)), facts, env.family, env.version)


def split(
    env: Env,
    num_train: int,
    num_validation: int,
    num_test: int,
    seed: int = 0,
    only: Sequence[str] = (),
) -> Split:
    """Training, validation and test levels, disjoint by content.

    The test set is filled first and does not depend on the other sizes; a larger training set
    begins with the smaller one. `num_duplicates` of each set counts the levels that were drawn for
    it and dropped because the set itself or an earlier one already held their content.

    Args:
      only: names of yes-or-no facts, e.g. ("has_lava", "has_saw"): levels for which none of them
        holds are passed over, and counted in `num_unfit`. Empty: all levels are taken.

    Raises:
      ValueError: a size is no whole number, negative or above 2**32, the seed is out of range,
        `only` names what is no such fact, or the family of levels is so small that a set cannot be
        filled.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"level seed must be from 0 to {MAX_SEED}, got {seed}")
    _check_facts(env, only)
    taken: set[bytes] = set()
    test = _fill(env, "test", num_test, seed, only, taken)
    validation = _fill(env, "validation", num_validation, seed, only, taken)
    train = _fill(env, "train", num_train, seed, only, taken)
    return Split(train, validation, test)


def _check_facts(env: Env, only: Sequence[str]) -> None:
    """Raises ValueError unless all names are those of yes-or-no facts of `env`'s levels."""
    if isinstance(only, str):
        raise ValueError(f"only must be a list of names of facts, got {only!r}")
    _, facts = env.generate(np.zeros(0, np.int64))
    allowed = [name for name, fact in facts.items() if fact.dtype == bool]
    unknown = [name for name in only if name not in allowed]
    if unknown:
        raise ValueError(
            f"only must name facts among {', '.join(allowed) or 'none'} of {env.name}, "
            f"got {', '.join(unknown)}"
        )


def take(level_set: LevelSet, index: np.ndarray | slice) -> LevelSet:
    """Those levels of a set, in that order."""
    return replace(
        level_set,
        levels=jax.tree.map(lambda leaf: leaf[index], level_set.levels),
        ids=level_set.ids[index],
        digests=level_set.digests[index],
        facts={name: fact[index] for name, fact in level_set.facts.items()},
    )


def concatenate(first: LevelSet, *others: LevelSet) -> LevelSet:
    """The levels of several sets of one family, in that order, repeats included."""
    sets = (first, *others)
    return LevelSet(
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *[part.levels for part in sets]),
        np.concatenate([part.ids for part in sets]),
        np.concatenate([part.digests for part in sets]),
        {name: np.concatenate([part.facts[name] for part in sets]) for name in first.facts},
        first.family,
        first.version,
        sum(part.num_duplicates for part in sets),
        sum(part.num_unfit for part in sets),
    )


def set_hash(level_set: LevelSet) -> str:
    """32 hex digits that name the content and the order of a set."""
    head = f"{level_set.family}/{level_set.version}/{len(level_set)}".encode()
    digest = hashlib.blake2b(head + level_set.digests.tobytes(), digest_size=DIGEST_BYTES)
    return digest.hexdigest()


def save(path: Path, level_set: LevelSet) -> None:
    """Writes a set as one safetensors file."""
    arrays = {f"levels.{name}": leaf for name, leaf in _named(level_set.levels).items()}
    arrays |= {f"facts.{name}": fact for name, fact in level_set.facts.items()}
    arrays |= {"ids": level_set.ids, "digests": level_set.digests}
    about = {
        "family": level_set.family,
        "version": level_set.version,
        "num_duplicates": level_set.num_duplicates,
        "num_unfit": level_set.num_unfit,
        "hash": set_hash(level_set),
    }
    write_arrays(path, arrays, {"level_set": json.dumps(about)})


def load(path: Path, env: Env) -> LevelSet:
    """Reads a set of `env`'s levels and checks all that it says.

    Raises:
      ValueError: the file is missing, damaged, of another environment or generator version, or of
        levels that do not fit `env`'s settings.
    """
    arrays, metadata = read_arrays(path)
    if "level_set" not in metadata:
        raise ValueError(f"{path} holds no level set")
    about = json.loads(metadata["level_set"])
    if (about["family"], about["version"]) != (env.family, env.version):
        raise ValueError(
            f"{path} holds {about['family']} levels of generator version {about['version']}, "
            f"this is {env.family} version {env.version}"
        )
    pattern, _ = env.generate(np.zeros(0, np.int64))
    leaves = []
    for name, leaf in _named(pattern).items():
        stored = arrays.get(f"levels.{name}", np.zeros(0))
        if (stored.dtype, stored.shape[1:]) != (leaf.dtype, leaf.shape[1:]):
            raise ValueError(
                f"{path} does not fit these settings of {env.name}: the {name} of a level must be "
                f"{leaf.dtype}{list(leaf.shape[1:])}, got {stored.dtype}{list(stored.shape[1:])}"
            )
        leaves.append(stored)
    levels = jax.tree.unflatten(jax.tree.structure(pattern), leaves)
    if not np.array_equal(digests(env.content(levels)), arrays["digests"]):
        raise ValueError(f"{path} is damaged: its levels are not those its digests name")
    return LevelSet(
        levels,
        arrays["ids"],
        arrays["digests"],
        {
            name.removeprefix("facts."): array
            for name, array in arrays.items()
            if name.startswith("facts.")
        },
        about["family"],
        about["version"],
        about["num_duplicates"],
        about.get("num_unfit", 0),  # files from before there was a choice do not say
    )


def _fill(
    env: Env, role: str, count: int, seed: int, only: Sequence[str], taken: set[bytes]
) -> LevelSet:
    """`count` levels of a role that fit `only` and are not in `taken`, which they join."""
    if not isinstance(count, int | np.integer):
        raise ValueError(f"number of {role} levels must be a whole number, got {count}")
    if count < 0:
        raise ValueError(f"number of {role} levels must not be negative, got {count}")
    if count > IDS_PER_SEED:
        raise ValueError(f"number of {role} levels must be at most {IDS_PER_SEED}, got {count}")
    first = ROLES.index(role) * IDS_PER_ROLE + seed * IDS_PER_SEED
    parts: list[LevelSet] = []
    found = drawn = num_unfit = 0
    while found < count:
        if drawn > 100 * (count + DRAW):
            raise ValueError(
                f"only {found} different {role} levels in {drawn} draws, {count} are needed: "
                "the settings leave too few different levels"
            )
        num_ids = DRAW if drawn else 1  # one first: settings that leave no level are refused soon
        batch = make_levels(env, np.arange(first + drawn, first + drawn + num_ids))
        fits = np.logical_or.reduce([batch.facts[name] for name in only]) if only else None
        fresh = []
        for index, digest in enumerate(batch.digests):
            drawn += 1
            if fits is not None and not fits[index]:
                num_unfit += 1
                continue
            if digest.tobytes() in taken:
                continue
            taken.add(digest.tobytes())
            fresh.append(index)
            found += 1
            if found == count:
                break
        parts.append(take(batch, np.array(fresh, np.int64)))
    if not parts:
        return make_levels(env, np.zeros(0, np.int64))
    return replace(
        concatenate(*parts), num_duplicates=drawn - found - num_unfit, num_unfit=num_unfit
    )


def digests(levels: PyTree) -> np.ndarray:
    """uint8[L, 16]: BLAKE2b of each level's arrays, names and shapes included."""
    named = _named(levels)
    head = repr([(name, leaf.dtype.str, leaf.shape[1:]) for name, leaf in named.items()]).encode()
    # The width is spelled out: reshape cannot work out a -1 for an empty set.
    rows = [
        np.ascontiguousarray(leaf).reshape(len(leaf), math.prod(leaf.shape[1:])).view(np.uint8)
        for leaf in named.values()
    ]
    content = np.concatenate(rows, axis=1)
    found = [
        hashlib.blake2b(head + row.tobytes(), digest_size=DIGEST_BYTES).digest() for row in content
    ]
    return np.frombuffer(b"".join(found), np.uint8).reshape(len(content), DIGEST_BYTES)


def _named(levels: object) -> dict[str, np.ndarray]:
    """The leaves of stacked levels by name, e.g. "cells"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(levels)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in leaves
    }
