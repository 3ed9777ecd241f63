"""Coherence: switches, disagreement and changes of mind in a fatal jump, by hand."""

import numpy as np
import pyarrow as pa
import pytest

from hotoven.evaluation.coherence import coherence, table


def told(actions: str, ground: str, died: bool = True, spare: int = 2):
    """Of one episode: actions and directions as letters (capitals push the same way, but jump)."""
    num_steps = len(actions)
    action = np.array([[ord(letter) for letter in actions] + [0] * spare])
    direction = np.array([[ord(letter) for letter in actions.lower()] + [0] * spare])
    supported = np.array([[letter == "_" for letter in ground] + [True] * spare])
    policies = np.full((1, num_steps + spare, 2, 2), 0.5)
    found = coherence(
        action, direction, policies, supported, np.array([num_steps]), np.array([died])
    )
    return {name: getattr(found, name)[0] for name in found._fields}


def test_a_switch_is_a_step_with_another_action_than_the_step_before():
    assert told("aabbba", "______")["num_switches"] == 2
    assert told("a", "_")["num_switches"] == 0


def test_what_comes_after_the_end_is_no_switch():
    assert told("aaa", "___", spare=5)["num_switches"] == 0


@pytest.mark.parametrize(
    ("actions", "ground", "jumped", "mind", "direction"),
    [
        ("aAAA", "__..", True, False, False),  # take-off and flight alike
        ("aAaa", "__..", True, True, False),  # stops jumping in the air: the direction stays
        ("aAAb", "__..", True, True, True),
        ("abaa", "__..", True, True, True),  # changed right after the take-off
        ("baaa", "__..", True, False, False),  # changed at the take-off itself: that is its choice
        ("abab", "____", False, False, False),  # died on the ground
        ("aaba", "_.__", False, False, False),  # landed, and died then
        ("aab", "...", True, True, True),  # in the air from the start
    ],
)
def test_a_fatal_jump_runs_from_the_last_ground_to_the_death(
    actions, ground, jumped, mind, direction
):
    found = told(actions, ground)
    assert found["died_in_jump"] == jumped
    assert found["changed_mind"] == mind
    assert found["changed_direction"] == direction


def test_without_a_death_no_jump_is_fatal():
    found = told("aAAb", "__..", died=False)
    assert not found["died_in_jump"]
    assert not found["changed_mind"]
    assert not found["changed_direction"]


def test_disagreement_is_the_mean_over_the_steps_played():
    sure, torn = [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    policies = np.array([[sure, torn, torn, sure], [sure, sure, torn, torn]])
    nothing = np.zeros((2, 4), int)
    found = coherence(
        nothing, nothing, policies, nothing == 0, np.array([3, 2]), np.array([True, False])
    )
    np.testing.assert_allclose(found.disagreement, [2 / 3, 0.0])


def test_the_table_averages_members_in_a_level_and_counts_only_fatal_jumps():
    rows = {
        "num_train_levels": np.full(4, 10, np.int32),
        "method": ["single"] * 4,
        "level_index": [0, 0, 1, 1],
        "num_steps": [5, 3, 2, 1],
        "num_switches": [2, 1, 1, 0],  # rates 1/2, 1/2, 1 and none
        "disagreement": [0.2, 0.4, 0.1, 0.1],
        "died_in_jump": [True, True, False, False],
        "changed_mind": [True, False, False, False],
        "changed_direction": [False, False, False, False],
    }
    found = {row["measure"]: row for row in table(pa.table(rows)).to_pylist()}
    assert found["switch rate"]["estimate"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["disagreement"]["estimate"] == pytest.approx((0.3 + 0.1) / 2)
    assert found["run length"]["estimate"] == pytest.approx(((5 / 3 + 3 / 2) / 2 + (1 + 1) / 2) / 2)
    assert found["changed mind in fatal jump"]["estimate"] == pytest.approx(0.5)
    assert found["changed mind in fatal jump"]["num_levels"] == 1
    assert found["changed direction in fatal jump"]["estimate"] == 0.0


def test_without_a_fatal_jump_there_is_no_row_for_it():
    rows = {
        "num_train_levels": np.full(1, 10, np.int32),
        "method": ["mean"],
        "level_index": [0],
        "num_steps": [5],
        "num_switches": [2],
        "disagreement": [0.2],
        "died_in_jump": [False],
        "changed_mind": [False],
        "changed_direction": [False],
    }
    measures = table(pa.table(rows))["measure"].to_pylist()
    assert measures == ["switch rate", "disagreement", "run length"]
