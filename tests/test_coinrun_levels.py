"""CoinRun's levels: procgen's own, cell for cell, as recorded from the real game."""

from pathlib import Path

import numpy as np
import pytest

from hotoven.envs.coinrun.level import (
    AWAY,
    BARRIER,
    CRATE,
    EMPTY,
    FIRST_BITS,
    LAVA,
    LAVA_TOP,
    MAX_MONSTERS,
    MODES,
    MONSTER,
    NOWHERE,
    NUM_SEEDS,
    NUM_TIES,
    SAW,
    SAW_BITS,
    SECOND_BITS,
    SIZE,
    TOP_BITS,
    Blueprint,
    Pile,
    Thing,
    blueprint,
    cells,
    generate,
    level_seeds,
    pack,
    raw_numbers,
)
from hotoven.envs.coinrun.verify import Recording, compare_levels, read

DATA = Path(__file__).parent / "data" / "coinrun"

both_modes = pytest.mark.parametrize("mode", MODES)


def recorded(mode: str) -> Recording:
    return read(DATA / f"levels_{mode}.npz")


def field(words: np.ndarray, bits: tuple[int, int]) -> np.ndarray:
    return (np.asarray(words, np.int64) >> bits[0]) & ((1 << bits[1]) - 1)


# Against the real game


@both_modes
def test_every_recorded_level_is_generated_exactly(mode: str):
    result = compare_levels(recorded(mode), mode)
    assert result.first_difference == ""
    assert (result.identical, result.total) == (400, 400)


@both_modes
def test_a_packed_level_shows_every_recorded_cell(mode: str):
    recording = recorded(mode)
    levels, _ = generate(recording["seed"], mode)
    visible = np.where(recording["grid"] == BARRIER, EMPTY, recording["grid"])
    np.testing.assert_array_equal(cells(levels.layout.columns, levels.layout.coin), visible)
    np.testing.assert_array_equal(levels.layout.coin, recording["goal"])


@both_modes
def test_a_packed_level_holds_every_recorded_thing(mode: str):
    recording = recorded(mode)
    levels, _ = generate(recording["seed"], mode)
    columns = levels.layout.columns
    top = field(columns, TOP_BITS)
    monsters = levels.layout.monsters
    for index in range(len(recording["seed"])):
        things = slice(recording["ent_offset"][index] + 1, recording["ent_offset"][index + 1])
        kind = recording["ent_type"][things]
        place = np.stack([recording["ent_x"][things], recording["ent_y"][things]], axis=1) - 0.5
        saws = np.flatnonzero(field(columns[index], SAW_BITS))
        assert sorted(zip(saws, top[index, saws], strict=True)) == sorted(
            map(tuple, place[kind == SAW])
        )
        crates = [
            (column, top[index, column] + level)
            for bits in (FIRST_BITS, SECOND_BITS)
            for column, height in enumerate(field(columns[index], bits))
            for level in range(height)
        ]
        assert sorted(crates) == sorted(map(tuple, place[kind == CRATE]))
        count = (kind == MONSTER).sum()
        assert (monsters.column[index, count:] == AWAY).all()
        packed = np.stack([monsters.column[index], monsters.row[index]], axis=1)[:count]
        np.testing.assert_array_equal(packed, place[kind == MONSTER])
        np.testing.assert_array_equal(
            monsters.direction[index, :count] == 2, recording["ent_vx"][things][kind == MONSTER] > 0
        )
        themes = recording["ent_theme"][things][kind == MONSTER]
        np.testing.assert_array_equal(levels.looks.monsters[index, :count], themes)


@both_modes
def test_the_bits_that_break_ties_follow_the_levels_own_numbers(mode: str):
    recording = recorded(mode)
    levels, _ = generate(recording["seed"][:20], mode)
    np.testing.assert_array_equal(
        levels.ties[:, 0] & 15, (recording["rng_next"][:20] & 1) @ [1, 2, 4, 8]
    )
    plan = blueprint(int(recording["seed"][0]), mode)
    bits = levels.ties[0][np.arange(NUM_TIES) // 32] >> (np.arange(NUM_TIES) % 32) & 1
    np.testing.assert_array_equal(bits, plan.raw & 1)


# The generator


def test_raw_numbers_are_the_published_ones_of_the_mersenne_twister():
    # Matsumoto & Nishimura's own output for their default seed, 5489; the 10000th is C++11's check.
    numbers = raw_numbers(5489, 10_000)
    assert numbers[:3].tolist() == [3499211612, 581869302, 3890346734]
    assert numbers[-1] == 4123659995


@both_modes
def test_an_id_means_the_same_level_in_any_company(mode: str):
    alone, _ = generate(np.array([5]), mode)
    company, _ = generate(np.array([9, 5, 2**31 - 2, 5]), mode)
    for one, many in zip(leaves(alone), leaves(company), strict=True):
        np.testing.assert_array_equal(one[0], many[1])
        np.testing.assert_array_equal(one[0], many[3])


@both_modes
def test_no_ids_give_no_levels_of_the_same_shapes(mode: str):
    none, facts = generate(np.zeros(0, np.int64), mode)
    some, more = generate(np.arange(2), mode)
    for empty, full in zip(
        (*leaves(none), *facts.values()), (*leaves(some), *more.values()), strict=True
    ):
        assert (empty.dtype, empty.shape) == (full.dtype, (0, *full.shape[1:]))


def test_an_id_below_the_number_of_seeds_is_procgens_seed():
    ids = np.array([0, 7, NUM_SEEDS - 1])
    np.testing.assert_array_equal(level_seeds(ids), ids)


def test_ids_of_different_blocks_have_seeds_far_apart():
    # The first ids of training, validation and test sets, as level sets draw them.
    seeds = np.sort(level_seeds(np.arange(3) * 2**48))
    assert np.diff(seeds).min() > 10**8
    assert level_seeds(np.array([2**48, 2**48 + 1, 2**49])).tolist() == [
        1021156919,
        1021156920,
        2042313838,
    ]


@both_modes
def test_facts_say_what_a_level_holds(mode: str):
    levels, facts = generate(np.arange(200), mode)
    grids = cells(levels.layout.columns, levels.layout.coin)
    wet = (grids == LAVA) | (grids == LAVA_TOP)
    np.testing.assert_array_equal(facts["has_lava"], wet.any(axis=(1, 2)))
    np.testing.assert_array_equal(
        facts["num_saws"], field(levels.layout.columns, SAW_BITS).sum(axis=1)
    )
    np.testing.assert_array_equal(
        facts["num_monsters"], (levels.layout.monsters.column != AWAY).sum(axis=1)
    )
    crates = sum(field(levels.layout.columns, bits) for bits in (FIRST_BITS, SECOND_BITS))
    np.testing.assert_array_equal(facts["num_crates"], crates.sum(axis=1))
    kinds = [facts[name] for name in ("has_lava", "has_saw", "has_monster")]
    np.testing.assert_array_equal(facts["can_kill"], np.logical_or.reduce(kinds))
    np.testing.assert_array_equal(facts["has_saw"], facts["num_saws"] > 0)
    np.testing.assert_array_equal(facts["has_monster"], facts["num_monsters"] > 0)
    np.testing.assert_array_equal(facts["coin_x"], levels.layout.coin[:, 0])
    np.testing.assert_array_equal(facts["coin_y"], levels.layout.coin[:, 1])
    assert set(facts["difficulty"]) == {1, 2, 3}
    assert (facts["num_pits"] <= facts["num_sections"]).all()
    assert (facts["num_pits"][facts["difficulty"] < 3] == 0).all()


def test_easy_levels_have_monsters_in_pits_only():
    _, facts = generate(np.arange(1000), "easy")
    assert facts["has_monster"].any()
    assert (facts["num_pits"][facts["has_monster"]] > 0).all()


@both_modes
def test_ten_thousand_levels_keep_within_the_bounds_of_their_construction(mode: str):
    # A level that could not be packed would have been an error.
    levels, facts = generate(np.arange(10_000, 20_000), mode)
    columns, monsters = levels.layout.columns, levels.layout.monsters
    assert (facts["num_sections"].min(), facts["num_sections"].max()) == (1, 5)
    # Five pits of seven columns; two piles of three crates in each of five sections.
    assert facts["num_saws"].max() <= 35
    assert facts["num_monsters"].max() <= MAX_MONSTERS == 35
    assert facts["num_crates"].max() <= 30
    # The first section starts at column 5 and is at least three wide; five are at most 45.
    assert 8 <= facts["coin_x"].min() <= facts["coin_x"].max() <= 50
    # The ground rises from below 20 by 5 at most, and crates are piled three high on it.
    top = field(columns, TOP_BITS)
    ground = np.where(top == SIZE, 0, top)
    assert 20 <= ground.max() <= 24
    for bits in (FIRST_BITS, SECOND_BITS):
        height = field(columns, bits)
        assert (ground + height).max() <= 27
        assert (top[height > 0] < SIZE).all()
    # The coin lies on the ground, and all is rock beyond it.
    coin_x, coin_y = levels.layout.coin.T
    np.testing.assert_array_equal(top[np.arange(len(top)), coin_x], coin_y)
    beyond = np.arange(SIZE) > coin_x[:, None]
    np.testing.assert_array_equal(top == SIZE, beyond | (np.arange(SIZE) == 0))
    # The agent starts in a shaft four cells wide without any danger.
    assert (columns[:, 1:5] == 1).all()
    here = monsters.column != AWAY
    assert (monsters.column[here] >= 6).all()
    assert (monsters.row[here] <= 24).all()
    assert ((monsters.left < monsters.column) & (monsters.column < monsters.right))[here].all()
    crates = [monsters.first_crate, monsters.second_crate]
    assert any((crate != NOWHERE).any() for crate in crates) == (mode == "hard")


def test_many_easy_seeds_share_a_layout_and_differ_in_looks_only():
    levels, _ = generate(np.arange(2000), "easy")
    rows = [
        b"".join(leaf[index].tobytes() for leaf in leaves(levels.layout)) for index in range(2000)
    ]
    assert 0.1 < 1 - len(set(rows)) / len(rows) < 0.4
    assert len(np.unique(levels.looks.shift)) == 2000


# Errors


def test_a_negative_id_is_refused():
    with pytest.raises(ValueError) as error:
        generate(np.array([3, -1]), "easy")
    assert str(error.value) == "level ids must not be negative, got -1"


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError) as error:
        generate(np.array([3]), "extreme")
    assert str(error.value) == "mode must be one of easy, hard, got 'extreme'"


def test_a_seed_that_is_not_a_32_bit_number_is_refused():
    with pytest.raises(ValueError) as error:
        blueprint(2**32, "easy")
    assert str(error.value) == "level seed must be from 0 to 4294967295, got 4294967296"


def with_things(things: list[Thing], piles: list[Pile]) -> Blueprint:
    """Easy level 0, whose ground at columns 1 to 4 is one cell high, holding other things."""
    return blueprint(0, "easy")._replace(things=things, piles=piles)


def test_a_level_with_too_many_monsters_is_an_error_and_never_cut():
    monsters = [Thing(MONSTER, 2, 1, 0.15, 0)] * (MAX_MONSTERS + 1)
    with pytest.raises(ValueError, match="a level holds at most 35 monsters, got 36"):
        pack([with_things(monsters, [])])


def test_a_level_that_columns_cannot_say_is_an_error():
    with pytest.raises(ValueError, match="two saws in one column"):
        pack([with_things([Thing(SAW, 2, 1, 0.0, 0)] * 2, [])])
    with pytest.raises(ValueError, match="a saw above the ground"):
        pack([with_things([Thing(SAW, 2, 2, 0.0, 0)], [])])
    with pytest.raises(ValueError, match="piles of two sections side by side"):
        pack([with_things([], [Pile(False, 2, 1, 1), Pile(False, 4, 1, 1)])])
    hovering = blueprint(0, "easy")
    hovering.grid[9, 3] = LAVA
    with pytest.raises(ValueError, match="the cells of level 0 cannot be packed"):
        pack([hovering])


def leaves(tree: tuple) -> list[np.ndarray]:
    """The arrays of nested named tuples."""
    found: list[np.ndarray] = []
    for leaf in tree:
        found += leaves(leaf) if isinstance(leaf, tuple) else [leaf]
    return found
