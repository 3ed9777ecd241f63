"""How coherent actions are: episodes written as strings, numbers worked out by hand."""

import numpy as np
import pyarrow as pa
import pytest

from hotoven.envs.coinrun.env import CoinRun
from hotoven.evaluation.coherence import Coherence, coherence, table

# Actions as digits, CoinRun's: 4 and x do nothing, 7 and 8 push right, 1 left, 5 jumps.
EFFECTIVE = np.array([*range(9), *[4] * 6])
SIDEWAYS = np.arange(15) // 3


def of(*episodes: str, died: str = "", probabilities: np.ndarray | None = None) -> Coherence:
    """Episodes as "actions/supports": "78/^." pushes right on the ground, then jumps in the air."""
    lengths = np.array([text.index("/") for text in episodes])
    num_steps = lengths.max() + 2
    actions = np.full((len(episodes), num_steps), 3)  # beyond the end, where nobody may look
    supported = np.ones((len(episodes), num_steps), bool)
    for row, text in enumerate(episodes):
        taken, stands = text.split("/")
        actions[row, : len(taken)] = [9 if letter == "x" else int(letter) for letter in taken]
        supported[row, : len(taken)] = [letter == "^" for letter in stands]
    deaths = np.array([letter == "d" for letter in died or "-" * len(episodes)])
    return coherence(actions, lengths, deaths, supported, EFFECTIVE, SIDEWAYS, probabilities)


def test_what_coinrun_calls_its_actions_is_what_is_taken_for_one_here():
    names = CoinRun.action_names
    assert [names[same] for same in EFFECTIVE[9:]] == ["stay"] * 6
    for side, number in (("left", 0), ("right", 2)):
        assert [SIDEWAYS[i] == number for i in range(9)] == [side in name for name in names[:9]]


def test_switches_are_counted_among_the_steps_after_the_first():
    found = of("77778/^^^^^", "7878/^^^^", "4x4x/^^^^", "7/^")
    assert found.switch_rate.tolist() == [1 / 4, 1.0, 0.0, None]
    assert found.run_length.tolist() == [5 / 2, 1.0, 4.0, 1.0]


def test_a_fatal_jump_begins_with_the_step_that_leaves_the_ground():
    found = of(
        "77888/^^^..",  # takes off with the third step, then keeps at it
        "77887/^^^..",  # the last action is another one, but pushes to the same side
        "77881/^^^..",  # and here to the other side
        "11118/^^^^.",  # changes its mind in the air at once, to the other side
        "17777/^^^^^",  # ends on the ground: what was done before was no jump
        "81888/.....",  # never stood anywhere: a jump since the beginning
        "8777x/^....",
        died="ddddddd",
    )
    assert found.fatal_in_air.tolist() == [1, 1, 1, 1, 0, 1, 1]
    assert found.fatal_change.tolist() == [0, 1, 1, 1, 0, 1, 1]
    assert found.fatal_turn.tolist() == [0, 0, 1, 1, 0, 1, 1]


def test_only_the_dead_have_a_fatal_jump():
    found = of("88/^.", "81/^.", died="-d")
    assert found.fatal_change.tolist() == found.fatal_in_air.tolist() == [None, 1.0]


def test_jumps_that_land_are_counted_beside_those_that_kill():
    # lands after 88 and after 871, and dies in a third jump that does not count here
    found = of("8888711178/^.^^..^^^.", died="d")
    assert found.landed_change.tolist() == [0.5]
    assert found.landed_turn.tolist() == [0.5]
    assert found.fatal_change.tolist() == [1.0]
    assert of("777/^^^").landed_change.tolist() == [None]
    # another action than that of the jump, taken on the ground after it, is none of its own
    assert of("8811/^.^^").landed_change.tolist() == [0.0]


def test_how_often_a_jump_changes_is_told_of_the_steps_in_the_air():
    found = of(
        "77878/^^...",  # three steps after the one that takes off, each unlike the one before
        "77777/^^...",
        "17777/^^^^^",  # died on the ground: no jump
        "7/.",  # no step in the air before
        died="dddd",
    )
    assert found.fatal_rate.tolist() == [1.0, 0.0, None, None]
    assert of("77788/^^...", died="d").fatal_rate.tolist() == [pytest.approx(1 / 3)]
    # two jumps that land: 88 and 8711
    landed = of("88887117/^.^^...^")
    assert landed.landed_rate.tolist() == [pytest.approx((0 + 2 / 3) / 2)]
    assert landed.fatal_rate.tolist() == [None]


def test_members_disagree_as_often_as_the_draws_of_two_of_them_differ():
    sure, other = np.eye(15)[7], np.eye(15)[8]
    even = (sure + other) / 2
    still = np.eye(15)[[4, 9]]  # both do nothing
    steps = np.array([[sure, sure], [sure, other], [even, even], still])[None]
    padded = np.concatenate([steps, np.ones((1, 2, 2, 15))], axis=1).astype(np.float32)
    found = of("7777/^^^^", probabilities=padded)
    assert found.disagreement.tolist() == [pytest.approx((0 + 1 + 0.5 + 0) / 4)]
    # of three members, two alike: two of the three pairs differ
    three = np.tile(np.array([sure, sure, other]), (1, 3, 1, 1))
    assert of("7/^", probabilities=three).disagreement.tolist() == [pytest.approx(2 / 3)]
    assert of("7/^", probabilities=three[:, :, :1]).disagreement.tolist() == [None]
    assert of("7/^").disagreement.tolist() == [None]


def test_disagreement_is_what_drawing_gives():
    generator = np.random.default_rng(0)
    policies = generator.dirichlet(np.ones(15), size=3)
    drawn = EFFECTIVE[[generator.choice(15, 40_000, p=policy) for policy in policies]]
    differ = np.mean([(drawn[i] != drawn[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))])
    found = of("7/^", probabilities=np.tile(policies, (1, 3, 1, 1)))
    assert found.disagreement[0] == pytest.approx(differ, abs=0.01)


def measured(found: Coherence, level: list[int] | None = None) -> dict[str, dict]:
    """The rows of the table, by measure."""
    count = len(found.switch_rate)
    columns = {name: pa.array(values.tolist()) for name, values in found._asdict().items()}
    where = {
        "num_train_levels": np.full(count, 10),
        "method": ["mean"] * count,
        "level_index": np.arange(count) if level is None else np.array(level),
    }
    return {row["measure"]: row for row in table(pa.table(where | columns)).to_pylist()}


def test_where_nobody_died_there_is_no_row_rather_than_a_zero():
    rows = measured(of("7878/^^^^", "7778/^^^^"))
    assert set(rows) == {"switch rate", "run length"}
    assert rows["switch rate"]["estimate"] == pytest.approx((1 + 1 / 3) / 2)
    assert rows["switch rate"]["num_levels"] == 2


def test_the_share_of_deaths_is_of_the_dead_alone():
    episodes = ["81/^."] * 3 + ["88/^."] * 3 + ["77/^^"] * 94
    row = measured(of(*episodes, died="d" * 6 + "-" * 94))["changed mind in fatal jump"]
    assert row["estimate"] == 0.5
    assert row["num_levels"] == 6
    assert row["low"] < 0.2 and row["high"] > 0.8  # six deaths say little


def test_members_are_averaged_in_a_level_before_levels_are():
    rows = measured(of("7878/^^^^", "7778/^^^^", "7777/^^^^"), level=[0, 0, 1])
    assert rows["switch rate"]["estimate"] == pytest.approx(((1 + 1 / 3) / 2 + 0) / 2)
    assert rows["switch rate"]["num_levels"] == 2


def test_an_episode_without_steps_is_refused():
    one = np.zeros((1, 3), int)
    for length in (0, 4):
        with pytest.raises(ValueError, match="lengths must be from 1 to 3"):
            coherence(one, np.array([length]), one[:, 0] > 0, one > 0, EFFECTIVE, SIDEWAYS)
