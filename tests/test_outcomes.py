"""Rates from a table of episodes, with tables small enough to count by hand."""

import time
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotoven.evaluation.bootstrap import two_level, wilson
from hotoven.evaluation.outcomes import (
    METHODS,
    OUTCOMES,
    agent_rates,
    matrix,
    paired_difference,
    paired_differences,
    rates,
    read_cells,
)
from hotoven.mechanisms.acting import ACTING

LETTERS = {"s": "solved", "c": "catastrophe", "t": "timeout"}
CAUSES = {"s": "goal", "c": "lava", "t": "timeout"}
SCHEMA = pa.schema(
    [
        *(("set", pa.string()), ("num_train_levels", pa.int32()), ("replication", pa.int32())),
        *(("method", pa.string()), ("member", pa.int32()), ("level_index", pa.int32())),
        *(("level_id", pa.int64()), ("outcome", pa.string()), ("cause", pa.string())),
        *(("length", pa.int32()), ("episode_return", pa.float32())),
        *(("num_blocked", pa.int32()), ("num_false_blocks", pa.int32())),
        ("num_all_blocked", pa.int32()),
    ]
)


def run(method, ends, set="test", size=10, replication=0, member=-1, **changes):
    """Rows of one policy; one letter of `ends` a level: s solved, c catastrophe, t timeout."""
    fixed = {"set": set, "num_train_levels": size, "replication": replication, "method": method}
    counts = {"num_blocked": 0, "num_false_blocks": 0, "num_all_blocked": 0}
    return [
        fixed
        | {"member": member, "level_index": index, "level_id": 100 + index}
        | {"outcome": LETTERS[end], "cause": CAUSES[end]}
        | {"length": index + 1, "episode_return": float(end == "s")}
        | counts
        | changes
        for index, end in enumerate(ends)
    ]


def table(*runs):
    return pa.Table.from_pylist([row for rows in runs for row in rows], SCHEMA)


def singles(*ends, **settings):
    return [row for member, end in enumerate(ends) for row in run("single", end, member=member)]


def test_a_method_that_acts_as_one_has_zeros_and_ones():
    episodes = table(run("mean", "scts"), run("mean", "cccs", replication=1))
    expected = [[0, 1, 0, 0], [1, 1, 1, 0]]
    assert matrix(episodes, "test", 10, "mean", "catastrophe").tolist() == expected
    assert matrix(episodes, "test", 10, "mean", "timeout").tolist() == [[0, 0, 1, 0], [0] * 4]


def test_members_are_averaged_inside_their_replication_only():
    episodes = table(
        run("single", "ss", member=0, replication=0),
        run("single", "sc", member=1, replication=0),
        run("single", "cc", member=0, replication=1),
        run("single", "cc", member=1, replication=1),
    )
    assert matrix(episodes, "test", 10, "single", "catastrophe").tolist() == [[0, 0.5], [1, 1]]


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(random):
    rows = [
        row
        for replication, member, set in product((0, 1), (0, 1, 2), ("train", "test"))
        for row in run("single", "sctsc"[member:], set, 10, replication, member)[:3]
    ] + run("mean", "stc", replication=4)
    shuffled = random.sample(rows, len(rows))
    assert rates(table(shuffled)) == rates(table(rows))
    assert agent_rates(table(shuffled)) == agent_rates(table(rows))


def test_dictionary_encoded_words_read_the_same():
    plain = table(run("mean", "sct"), run("single", "scc", member=0))
    encoded = plain
    for position, name in enumerate(plain.column_names):
        if plain.schema.field(name).type == pa.string():
            encoded = encoded.set_column(position, name, plain[name].dictionary_encode())
    assert rates(encoded) == rates(plain)
    assert paired_differences(encoded) == paired_differences(plain)
    assert matrix(encoded, "test", 10, "mean", "solved").tolist() == [[1, 0, 0]]


def test_a_missing_level_is_named():
    whole, part = run("single", "sss", member=0), run("single", "sss", member=1)
    with pytest.raises(ValueError, match=r"member 1: .* missing \[1\] \(1\), duplicated \[\]"):
        matrix(table(whole, part[:1], part[2:]), "test", 10, "single", "solved")


def test_a_duplicated_level_is_named():
    twice = run("single", "sss", member=1)
    episodes = table(run("single", "sss", member=0), twice, twice[2:])
    with pytest.raises(ValueError, match=r"member 1: .* missing \[\] \(0\), duplicated \[2\]"):
        rates(episodes)


def test_a_level_that_replaces_another_is_named():
    episodes = table(run("mean", "ss"), run("mean", "ss", replication=1, level_index=1))
    with pytest.raises(ValueError, match=r"replication 1.* missing \[0\] .* duplicated \[1\]"):
        rates(episodes)


def test_replications_need_equally_many_members():
    episodes = table(
        run("single", "s", member=0),
        run("single", "s", member=1),
        run("single", "s", member=0, replication=1),
    )
    with pytest.raises(ValueError, match=r"equally many members, got {0: 2, 1: 1}"):
        rates(episodes)


def test_unseen_levels_are_the_same_in_every_replication_but_training_levels_need_not_be():
    first, second = run("mean", "ss"), run("mean", "ss", replication=1, level_id=7)
    with pytest.raises(ValueError, match="replications of 'mean'"):
        rates(table(first, second))
    train = [row | {"set": "train"} for row in first + second]
    assert rates(table(train))["num_replications"].to_pylist() == [2]


def test_members_of_a_replication_share_their_training_levels():
    episodes = table(
        run("single", "s", "train", member=0), run("single", "s", "train", member=1, level_id=7)
    )
    with pytest.raises(ValueError, match="members of 'single'"):
        rates(episodes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outcome": "running"}, r"column outcome .*\['running'\]"),
        ({"set": "validation"}, r"column set .*\['validation'\]"),
        ({"method": None}, r"column method .*\[None\]"),
        ({"length": None}, "column length must have no absent values, got 1"),
    ],
)
def test_a_strange_or_absent_value_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        rates(table([row | changes for row in run("mean", "s")]))


def test_asking_for_episodes_that_are_not_there_is_refused():
    episodes = table(run("mean", "s"))
    with pytest.raises(ValueError, match="no episode of 'vote' trained on 10 levels, test set"):
        matrix(episodes, "test", 10, "vote", "solved")
    with pytest.raises(ValueError, match="outcome must be one of"):
        matrix(episodes, "test", 10, "mean", "lava")


def test_rates_are_counted_per_set_size_and_method():
    episodes = table(
        run("single", "scts", member=0),
        run("single", "sccs", member=1),
        run("mean", "ssss", size=25),
        run("single", "s", "train", member=0),
    )
    rows = rates(episodes).to_pylist()
    keys = [(row["set"], row["num_train_levels"], row["method"]) for row in rows]
    assert keys == [("train", 10, "single"), ("test", 10, "single"), ("test", 25, "mean")]
    single = rows[1]
    shares = [single[f"{outcome}_rate"] for outcome in OUTCOMES]
    assert shares == [4 / 8, 3 / 8, 1 / 8, 0]
    assert (single["num_members"], single["num_levels"], single["num_episodes"]) == (2, 4, 8)
    assert single["mean_length"] == 2.5
    assert single["mean_return"] == 0.5
    assert rows[2]["num_members"] is None
    # All of 4 levels were solved: were 40% of all levels, that would happen once in 40 times.
    assert rows[2]["solved_low"] == pytest.approx(0.025**0.25, abs=0.01)


def test_rates_carry_the_two_level_interval_of_their_matrix():
    episodes = table(
        *(run("mean", ends, replication=r) for r, ends in enumerate(("scts", "scss", "ccts")))
    )
    row = rates(episodes).to_pylist()[0]
    expected = two_level(matrix(episodes, "test", 10, "mean", "catastrophe"), bounds=(0, 1))
    names = ("catastrophe_rate", "catastrophe_low", "catastrophe_high", "num_replications")
    assert tuple(row[name] for name in names) == expected
    assert row["resampled"] == expected.resampled == "replications and levels"
    assert expected.low < expected.estimate == 4 / 12 < expected.high


def test_methods_come_in_the_order_of_the_study_and_others_after():
    methods = ("zeal", "single+blocker", "mean", "awe", "single")
    found = rates(table(*(run(method, "s") for method in methods)))["method"].to_pylist()
    assert found == ["single", "mean", "single+blocker", "awe", "zeal"]


def test_the_share_of_false_blocks_is_absent_where_nothing_was_blocked():
    blocked = run("mean+blocker", "ssss", num_blocked=2, num_false_blocks=1, num_all_blocked=1)
    blocked[0] |= {"num_blocked": 4, "num_false_blocks": 0, "num_all_blocked": 0}
    rows = rates(table(blocked, run("mean", "ssss"))).to_pylist()
    names = ("blocked_per_episode", "false_block_share", "all_blocked_per_episode")
    assert [rows[0][name] for name in names] == [0, None, 0]
    assert [rows[1][name] for name in names] == [2.5, 0.3, 0.75]


def test_each_agent_has_its_own_counts_and_wilson_intervals():
    episodes = table(
        run("single", "sccts", member=0, replication=3),
        run("single", "sssss", member=1, replication=3),
    )
    first, second = agent_rates(episodes).to_pylist()
    counts = ("replication", "member", "num_episodes", "num_solved", "num_catastrophes")
    assert [first[name] for name in counts] == [3, 0, 5, 2, 2]
    assert [second[name] for name in counts] == [3, 1, 5, 5, 0]
    assert (first["num_timeouts"], first["timeout_rate"]) == (1, 0.2)
    assert (first["catastrophe_low"], first["catastrophe_high"]) == wilson(2, 5)
    assert (second["solved_low"], second["solved_high"]) == wilson(5, 5)
    assert second["catastrophe_rate"] == 0


def attempted(*rounds, **changes):
    """Rows of one policy that tried its levels in so many rounds, a column `attempt` added."""
    tried = [
        row | {"attempt": attempt}
        for attempt, ends in enumerate(rounds)
        for row in run("single", ends, set="train", **changes)
    ]
    return pa.Table.from_pylist(tried, SCHEMA.append(pa.field("attempt", pa.int16())))


def test_attempts_at_a_level_are_averaged_and_the_levels_stay_the_unit():
    episodes = pa.concat_tables(
        [attempted("sc", "cc", "sc", "sc", member=0), attempted("ss", "ss", "st", "sc", member=1)]
    )
    found = matrix(episodes, "train", 10, "single", "catastrophe")
    np.testing.assert_allclose(found, [[1 / 8, 5 / 8]])
    row = rates(episodes).to_pylist()[0]
    assert (row["num_levels"], row["num_members"], row["num_episodes"]) == (2, 2, 16)
    assert row["catastrophe_rate"] == pytest.approx(6 / 16)
    expected = two_level(found, bounds=(0, 1))
    assert (row["catastrophe_low"], row["catastrophe_high"]) == expected[1:3]
    first, second = agent_rates(episodes).to_pylist()
    assert (first["num_episodes"], first["num_solved"], first["num_catastrophes"]) == (8, 3, 5)
    assert (second["num_timeouts"], second["num_catastrophes"]) == (1, 1)


def test_an_attempt_that_is_missing_or_comes_twice_is_refused():
    whole = attempted("sc", "cc")
    assert len(read_cells(whole)) == 1
    with pytest.raises(ValueError, match=r"must come 2 times.*missing \[1\] \(1\)"):
        read_cells(whole.slice(0, 3))
    with pytest.raises(ValueError, match=r"missing \[\] \(0\), duplicated \[0\] \(1\)"):
        read_cells(pa.concat_tables([whole, whole.slice(2, 1)]))


def test_attempts_at_one_level_are_attempts_at_the_same_level():
    moved = attempted("sc").to_pylist() + attempted("cc", level_id=7).to_pylist()
    for row in moved[2:]:
        row["attempt"] = 1
    with pytest.raises(ValueError, match="different levels: level_id differs"):
        read_cells(pa.Table.from_pylist(moved, attempted("s").schema))


def test_a_difference_to_the_baseline_is_paired_by_level_and_replication():
    episodes = table(
        run("single", "scccs", member=0),
        run("single", "scsss", member=1),
        run("mean", "scsst"),
    )
    [row] = paired_differences(episodes).to_pylist()
    # single: 0, 1, 1/2, 1/2, 0 catastrophes; mean: 0, 1, 0, 0, 0
    differences = np.array([[0, 0, -0.5, -0.5, 0]])
    names = ("catastrophe_difference", "catastrophe_low", "catastrophe_high", "num_replications")
    assert tuple(row[name] for name in names) == two_level(differences, bounds=(-1, 1))
    assert row["catastrophe_difference"] == pytest.approx(-0.2)
    assert row["solved_difference"] == pytest.approx(0.0)
    assert (row["method"], row["baseline"], row["num_levels"]) == ("mean", "single", 5)


def test_training_episodes_do_not_enter_the_differences():
    episodes = table(run("single", "s", member=0), run("mean", "s"), run("vote", "s", "train"))
    assert paired_differences(episodes)["method"].to_pylist() == ["mean"]


def test_a_difference_needs_its_baseline_and_the_same_levels():
    with pytest.raises(ValueError, match=r"no episode of 'single' .* the baseline"):
        paired_differences(table(run("mean", "s")))
    with pytest.raises(ValueError, match=r"same replications, got \[1\] and \[0\]"):
        paired_differences(table(run("single", "s"), run("mean", "s", replication=1)))
    with pytest.raises(ValueError, match="same levels"):
        paired_differences(table(run("single", "s"), run("mean", "s", level_id=3)))


def test_a_policy_does_not_differ_from_itself():
    [cell] = read_cells(table(run("mean", "scts"))).values()
    assert not paired_difference(cell, cell, "solved").any()


def test_no_episode_gives_empty_tables_with_their_columns():
    empty = SCHEMA.empty_table()
    for made in (rates(empty), agent_rates(empty), paired_differences(empty)):
        assert made.num_rows == 0
        assert "num_train_levels" in made.column_names


def test_half_a_million_episodes_take_seconds():
    num = 500_000
    rng = np.random.Generator(np.random.PCG64(0))
    level, member = np.arange(num) % 1000, np.arange(num) // 1000 % 10
    columns = {
        "set": np.full(num, "test"),
        "num_train_levels": np.array([10, 25, 50, 100, 1000])[np.arange(num) // 10_000 % 5],
        "replication": np.arange(num) // 50_000,
        "method": np.full(num, "single"),
        "member": member,
        "level_index": level,
        "level_id": level,
        "outcome": np.array(OUTCOMES)[rng.integers(0, 3, num)],
        "cause": np.full(num, "timeout"),
    }
    zeros = dict.fromkeys(SCHEMA.names[len(columns) :], np.zeros(num, np.int32))
    start = time.process_time()
    made = rates(pa.table(columns | zeros).cast(SCHEMA))
    assert time.process_time() - start < 10
    assert made["num_episodes"].to_pylist() == [100_000] * 5


def test_ways_of_acting_stand_in_tables_in_the_order_of_their_own_list():
    assert [method for method in METHODS if method in ACTING] == list(ACTING)
