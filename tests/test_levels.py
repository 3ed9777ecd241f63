"""Level sets keep their promises: solvable, disjoint, nested, the same for ever, whole on disk."""

import math
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotoven import levels
from hotoven.envs import lavagrid_levels
from hotoven.envs.lavagrid import LavaGrid
from hotoven.envs.lavagrid_levels import FLOOR, GOAL, LAVA, WALL, Level, from_ascii, splitmix64
from hotoven.types import LevelSet

BARE = {"wall_density": 0.0, "lava_density": 0.0, "min_distance": 1}
TINY = LavaGrid(height=2, width=2, **BARE)  # 4 starts x 3 goals: 12 different levels


def nth(level_set: LevelSet, index: int) -> Level:
    return jax.tree.map(lambda leaf: leaf[index], level_set.levels)


def digests(level_set: LevelSet) -> list[bytes]:
    return [row.tobytes() for row in level_set.digests]


def assert_same(left: LevelSet, right: LevelSet) -> None:
    assert (left.family, left.version, left.num_duplicates) == (
        right.family,
        right.version,
        right.num_duplicates,
    )
    assert left.facts.keys() == right.facts.keys()
    jax.tree.map(
        np.testing.assert_array_equal,
        (left.levels, left.ids, left.digests, dict(left.facts)),
        (right.levels, right.ids, right.digests, dict(right.facts)),
    )


def steps_to_goal(level: Level) -> int:
    """Steps of the shortest path without lava, by the plainest search; -1 where there is none."""
    height, width = level.cells.shape
    start, goal = tuple(map(int, level.start)), tuple(map(int, level.goal))
    distance = {start: 0}
    queue = deque([start])
    while queue:
        row, col = queue.popleft()
        if (row, col) == goal:
            return distance[goal]
        for place in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
            inside = 0 <= place[0] < height and 0 <= place[1] < width
            if inside and place not in distance and level.cells[place] not in (WALL, LAVA):
                distance[place] = distance[row, col] + 1
                queue.append(place)
    return -1


# What a generated level is


@settings(max_examples=60)
@given(
    height=st.integers(2, 8),
    width=st.integers(2, 8),
    wall_density=st.floats(0.0, 0.25),
    lava_density=st.floats(0.0, 0.25),
    min_distance=st.integers(1, 3),
    first=st.integers(0, 2**62),
)
def test_every_level_is_solvable_as_its_facts_say(
    height: int,
    width: int,
    wall_density: float,
    lava_density: float,
    min_distance: int,
    first: int,
):
    if height * width < 9:
        wall_density, min_distance = 0.0, 1  # few maps: room for the path that is asked for
    env = LavaGrid(height, width, wall_density, lava_density, min_distance)
    made = levels.make_levels(env, np.arange(first, first + 5))
    for index in range(5):
        level = nth(made, index)
        shortest = steps_to_goal(level)
        assert shortest >= min_distance
        assert made.facts["shortest"][index] == shortest
        assert (level.cells == WALL).sum() == round(wall_density * height * width)
        assert (level.cells == LAVA).sum() == round(lava_density * height * width)
        assert (level.cells == GOAL).sum() == 1
        assert level.cells[tuple(level.goal)] == GOAL
        assert level.cells[tuple(level.start)] == FLOOR


def test_a_level_without_a_safe_path_has_no_shortest_path():
    blocked = jax.tree.map(lambda leaf: leaf[None], from_ascii("SLG"))
    assert lavagrid_levels.shortest_paths(blocked).tolist() == [-1]
    around = jax.tree.map(lambda leaf: leaf[None], from_ascii("SLG\n...\n#.."))
    assert lavagrid_levels.shortest_paths(around).tolist() == [4]


def test_every_free_cell_is_a_start_and_a_goal_about_equally_often():
    made = levels.make_levels(replace(TINY, height=3, width=3), np.arange(9000))
    for places in (made.levels.start, made.levels.goal):
        counts = np.bincount(places[:, 0] * 3 + places[:, 1], minlength=9)
        assert counts.min() > 850  # 1000 expected, standard deviation 30
        assert counts.max() < 1150


def test_settings_that_leave_no_solvable_map_are_refused():
    env = replace(TINY, min_distance=3)  # a corner of a 2x2 grid is 2 steps away at most
    with pytest.raises(ValueError, match=r"at least min_distance=3 steps .* lower min_distance"):
        levels.make_levels(env, np.arange(2))


def test_a_negative_id_is_refused():
    with pytest.raises(ValueError, match="level ids must not be negative, got -1"):
        levels.make_levels(TINY, np.array([3, -1]))


# The same for ever


def test_splitmix64_gives_the_words_of_its_reference():
    words = splitmix64(np.array([1234567]), 0, 3)
    assert words.tolist() == [[6457827717110365317, 3203168211198807973, 9817491932198370423]]
    assert splitmix64(np.array([1234567]), 1, 2).tolist() == [words[0, 1:].tolist()]


def test_the_first_levels_of_the_default_lavagrid_never_change():
    # A failure here means: restore what an id meant, or bump lavagrid_levels.VERSION.
    assert LavaGrid().version == 1
    made = levels.make_levels(LavaGrid(), np.arange(3))
    assert [digest.hex() for digest in digests(made)] == [
        "baa325b3039b543bb596a1bfe814ff45",
        "70997e716788028f3dd193823a0eba70",
        "ea5a58371f2ece3152bfe6d36c227e7b",
    ]
    drawn = lavagrid_levels.to_ascii(nth(made, 0)).splitlines()
    assert drawn == [".#...", ".LLLL", "...#.", "#...S", "G...L"]


def test_the_default_split_never_changes():
    split = levels.split(LavaGrid(), 1000, 200, 1000)
    assert [levels.set_hash(part) for part in split] == [
        "3128d7674390533aefee2d806dcf563d",
        "fab5ff60cffb32d5a609e57e7c79121a",
        "f2c9afbb16952b958cdb7aa706ca8670",
    ]


# Unseen means unseen


@pytest.mark.parametrize("env", [LavaGrid(), LavaGrid(2, 3, **BARE)], ids=["default", "2x3"])
def test_no_level_is_in_two_sets_or_twice_in_one(env: LavaGrid):
    split = levels.split(env, 10, 5, 10)
    everything = [digest for part in split for digest in digests(part)]
    assert len(everything) == 25
    assert len(set(everything)) == 25
    content = {(level.cells.tobytes(), tuple(level.start)) for level in map_levels(split)}
    assert len(content) == 25  # by the levels themselves, not by their digests


def map_levels(split: levels.Split) -> list[Level]:
    return [nth(part, index) for part in split for index in range(len(part))]


def test_each_role_and_seed_has_ids_of_its_own():
    ids = np.concatenate(
        [part.ids for seed in (0, 1) for part in levels.split(LavaGrid(), 20, 20, 20, seed)]
    )
    assert len(set(ids.tolist())) == 120


def test_a_training_set_begins_with_every_smaller_one():
    large = levels.split(LavaGrid(2, 3, **BARE), 12, 4, 5)
    for size in (0, 1, 7):
        small = levels.split(LavaGrid(2, 3, **BARE), size, 4, 5)
        assert digests(small.train) == digests(large.train)[:size]
        np.testing.assert_array_equal(small.train.ids, large.train.ids[:size])


def test_the_test_set_does_not_depend_on_the_other_sizes():
    env = LavaGrid(2, 3, **BARE)
    alone = levels.split(env, 0, 0, 9)
    assert_same(alone.test, levels.split(env, 15, 6, 9).test)


def test_dropped_duplicates_are_counted():
    # Every one of the 12 levels is taken, so what was drawn before the last was found is known.
    split = levels.split(TINY, 3, 2, 7)
    taken: set[bytes] = set()
    for role, part in (
        ("test", split.test),
        ("validation", split.validation),
        ("train", split.train),
    ):
        first = levels.ROLES.index(role) * levels.IDS_PER_ROLE
        drawn = digests(levels.make_levels(TINY, np.arange(first, first + 500)))
        kept, dropped = [], 0
        for digest in drawn:
            if len(kept) == len(part):
                break
            if digest in taken:
                dropped += 1
            else:
                taken.add(digest)
                kept.append(digest)
        assert digests(part) == kept
        assert part.num_duplicates == dropped
    assert split.train.num_duplicates > 0


@pytest.mark.parametrize("sizes", [(1, 0, 12), (0, 0, 13), (5, 5, 5)])
def test_a_family_with_too_few_levels_is_refused(sizes: tuple[int, int, int]):
    with pytest.raises(ValueError, match="the settings leave too few different levels"):
        levels.split(TINY, *sizes)


@pytest.mark.parametrize(
    ("sizes", "seed", "message"),
    [
        ((-1, 0, 0), 0, "number of train levels must not be negative, got -1"),
        ((2.5, 0, 0), 0, "number of train levels must be a whole number, got 2.5"),
        ((0, 0, math.nan), 0, "number of test levels must be a whole number, got nan"),
        ((0, 2**32 + 1, 0), 0, "number of validation levels must be at most 4294967296"),
        ((0, 0, 0), -1, "level seed must be from 0 to 65535, got -1"),
        ((0, 0, 0), 65536, "level seed must be from 0 to 65535, got 65536"),
    ],
)
def test_a_size_or_seed_out_of_range_is_refused(
    sizes: tuple[int, int, int], seed: int, message: str
):
    with pytest.raises(ValueError, match=message):
        levels.split(TINY, *sizes, seed)


def test_sets_of_no_levels_are_sets():
    split = levels.split(LavaGrid(), 0, 0, 0)
    for part in split:
        assert len(part) == 0
        assert part.levels.cells.shape == (0, 5, 5)
        assert part.digests.shape == (0, 16)
        assert part.facts["shortest"].shape == (0,)
    assert len(levels.set_hash(split.test)) == 32


def test_take_keeps_what_belongs_together():
    made = levels.make_levels(LavaGrid(), np.arange(6))
    some = levels.take(made, np.array([4, 1]))
    assert some.ids.tolist() == [4, 1]
    again = levels.make_levels(LavaGrid(), np.array([4, 1]))
    assert_same(some, again)
    assert_same(levels.take(made, slice(2)), levels.make_levels(LavaGrid(), np.arange(2)))


def test_the_hash_of_a_set_names_its_content_and_order():
    made = levels.make_levels(LavaGrid(), np.arange(6))
    orders = [np.arange(6), np.arange(6)[::-1], np.arange(5)]
    assert len({levels.set_hash(levels.take(made, order)) for order in orders}) == 3


# On disk


@pytest.mark.parametrize("size", [0, 7])
def test_a_saved_set_is_read_back_whole(tmp_path: Path, size: int):
    env = LavaGrid(2, 3, **BARE)
    train = levels.split(env, size, 3, 10).train
    levels.save(tmp_path / "train.safetensors", train)
    assert_same(levels.load(tmp_path / "train.safetensors", env), train)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "levels.safetensors"
    levels.save(path, levels.make_levels(TINY, np.arange(2)))
    return path


def test_a_changed_byte_anywhere_is_refused(saved: Path):
    whole = saved.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x01
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"levels\.safetensors"):
            levels.load(saved, TINY)


def test_a_file_cut_short_anywhere_is_refused(saved: Path):
    whole = saved.read_bytes()
    for size in range(len(whole)):
        saved.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"levels\.safetensors is not a whole safetensors"):
            levels.load(saved, TINY)


def test_a_missing_file_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no file .*absent\.safetensors"):
        levels.load(tmp_path / "absent.safetensors", TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"version": 2},
            "holds lavagrid levels of generator version 2, this is .* version 1",
        ),
        ({"family": "coinrun"}, "holds coinrun levels of generator version 1, this is lavagrid"),
    ],
)
def test_levels_of_another_family_or_version_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
):
    path = tmp_path / "levels.safetensors"
    levels.save(path, replace(levels.make_levels(TINY, np.arange(2)), **change))
    with pytest.raises(ValueError, match=message):
        levels.load(path, TINY)


def test_levels_of_another_size_are_refused(saved: Path):
    with pytest.raises(ValueError, match=r"the cells .* must be int8\[5, 5\], got int8\[2, 2\]"):
        levels.load(saved, LavaGrid())


def test_digests_of_other_levels_are_refused(tmp_path: Path):
    made = levels.make_levels(TINY, np.arange(2))
    path = tmp_path / "levels.safetensors"
    levels.save(path, replace(made, digests=made.digests[::-1].copy()))
    with pytest.raises(ValueError, match="its levels are not those its digests name"):
        levels.load(path, TINY)
