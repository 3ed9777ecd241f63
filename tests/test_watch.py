"""Watching an agent: it asks at an alarm, a person answers, and all of it is written down.

On LavaGrid's level 0, with made-up agents whose steps and scores are known.
"""

import json
import re
import shutil
import signal
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from hotoven import cli, runs
from hotoven.account import INTERVENTIONS, PLAYS
from hotoven.envs.lavagrid import LavaGrid
from hotoven.evaluation import live, scores
from hotoven.evaluation.help import play_with_help
from hotoven.evaluation.live import Said
from hotoven.evaluation.plays import recorded_helper
from hotoven.evaluation.rollout import Episodes, play
from hotoven.levels import make_levels, take
from hotoven.mechanisms.acting import Combined, mean_probabilities
from hotoven.storage import read_json, read_table, write_json, write_table
from hotoven.types import AgentOutput
from hotoven.watch import Settings, Watch, Watched
from tinystudy import TIMEOUT, shared_folder, start, uninterrupted
from watching import (
    ANOTHER,
    DOWN,
    KEY,
    LEFT,
    RIGHT,
    SOMEBODY,
    TO_THE_GOAL,
    TO_THE_LAVA,
    UP,
    Scripted,
    coinrun,
    do,
    press,
    probe,
    steps,
    watched,
)

INF = float("inf")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def begin(tmp_path: Path) -> Any:
    """A watch of that agent, going, which writes into the test's folder."""

    def make(what: Watched, **settings: Any) -> Watch:
        watch = Watch(what, Settings(**settings), tmp_path, 8)
        watch.get_ready()
        if watch.phase == "playing":
            do(watch, "pause")
        return watch

    return make


def rows(folder: Path, name: str = INTERVENTIONS) -> list[dict[str, Any]]:
    return read_table(folder / name).to_pylist()


def events(folder: Path) -> list[tuple[Any, ...]]:
    return [(row["event"], row["step"], row["actor"]) for row in rows(folder)]


# An alarm, and the answers to it


def test_time_stands_where_the_score_is_above_the_threshold_and_the_page_says_why(begin):
    watch = begin(watched(TO_THE_LAVA, [0.5, 0.25, 0.75]))
    steps(watch, 10)
    assert (watch.phase, watch.actions, watch.runs) == ("asking", [LEFT, RIGHT], False)
    status, _ = watch.show()
    assert status["message"].startswith("Alarm: the agent asks for help.")
    heard = status["heard"]
    assert (heard["mu"], heard["sigma"], heard["score"], heard["threshold"]) == (
        -0.75,
        0,
        0.75,
        0.5,
    )
    assert heard["values"] == [-0.75, -0.75] and heard["alarm"]
    assert heard["dangers"] == pytest.approx([0.0, 0.1, 0.9, 0.2])
    assert heard["next"] == "right: kills at once with probability 10%"
    assert {"help", "go"} <= set(status["can"]) and "pause" not in status["can"]


def test_a_score_at_the_threshold_or_none_is_no_alarm(begin):
    watch = begin(watched(TO_THE_LAVA, [0.5, np.nan, 0.5]))
    steps(watch, 4)
    assert watch.phase == "ended" and watch.num_requests == 0


def test_help_is_for_some_steps_and_then_the_agent_acts_again(begin, tmp_path):
    watch = begin(watched([DOWN], [0.75, 0.0, 0.0, 0.0]))
    assert watch.phase == "asking"  # before the first step already
    do(watch, "help")
    assert watch.show()[0]["countdown"] == "3 steps of help left"
    press(watch, "left", "left", "left")
    assert (watch.phase, watch.runs) == ("playing", True)
    press(watch, "down")  # too late
    assert watch.actions == [LEFT] * 3
    steps(watch, 1)
    assert watch.actions == [LEFT] * 3 + [RIGHT]


def test_a_policy_goes_on_deciding_while_a_person_acts(begin):
    watch = begin(watched([DOWN, LEFT, LEFT, RIGHT], [0.75, 0.0]))
    do(watch, "help")
    press(watch, "left", "left", "left")
    steps(watch, 1)
    assert watch.actions[3] == RIGHT  # the fourth of its actions, not the second


def test_after_help_it_asks_again_at_once_where_the_score_is_still_high(begin):
    watch = begin(watched([DOWN], [0.75]))
    for asked in (1, 2):
        assert (watch.phase, watch.num_requests) == ("asking", asked)
        do(watch, "help")
        press(watch, "left" if asked == 1 else "right", "left", "right")
    assert watch.num_helped == 6


def test_help_can_be_handed_back_and_then_the_agent_takes_a_step_before_it_asks(begin, tmp_path):
    watch = begin(watched([DOWN, UP, UP, UP], [0.75]))
    do(watch, "help")
    press(watch, "left")
    do(watch, "back")
    assert (watch.phase, watch.num_requests) == ("playing", 1)
    steps(watch, 5)
    assert (watch.phase, watch.num_requests, watch.actions) == ("asking", 2, [LEFT, UP])
    do(watch, "next")
    found = [row for row in rows(tmp_path) if row["event"] == "hand back"]
    assert [(row["step"], row["num_steps"]) for row in found] == [(1, 1)]


def test_go_on_holds_for_as_many_steps_as_help(begin, tmp_path):
    what = watched([RIGHT] * 40, [0.75, 0.0, 0.75])  # against the edge
    watch = begin(what, num_levels=1)
    do(watch, "go")
    steps(watch, 20)
    assert (watch.phase, len(watch.actions), watch.num_requests) == ("asking", 3, 2)
    do(watch, "next")
    alarms = [(row["step"], row["note"]) for row in rows(tmp_path) if row["event"] == "alarm"]
    assert alarms == [(0, ""), (2, "answer holds")]


def test_beyond_the_budget_nobody_is_asked(begin, tmp_path):
    watch = begin(watched(TO_THE_LAVA, [0.75, 0.0, 0.75, 0.0]), budget=1, help_steps=1)
    assert watch.show()[0]["requests"] == "1 of 1"
    do(watch, "go")
    steps(watch, 10)
    assert watch.phase == "ended"
    assert watch.num_requests == 1
    assert [event for event, *_ in events(tmp_path)] == [
        "alarm",
        "request",
        "go on",
        "alarm",
        "end",
    ]
    assert rows(tmp_path)[3]["note"] == "budget spent"
    none = begin(watched(TO_THE_LAVA, [0.75]), budget=0)
    steps(none, 10)
    assert none.phase == "ended" and none.num_requests == 0


def test_a_threshold_of_infinity_never_asks_and_minus_infinity_always(begin):
    never = begin(watched(TO_THE_LAVA, [0.75], INF))
    steps(never, 4)
    assert never.phase == "ended" and never.num_requests == 0
    always = begin(watched(TO_THE_LAVA, [-1e9], -INF))
    assert always.phase == "asking"
    json.dumps(always.show()[0], allow_nan=False)  # a page could not read infinity


# With the person and without


def test_the_same_level_is_told_with_help_and_without(begin):
    watch = begin(watched([DOWN], [0.75, 0.0]), help_steps=5, num_levels=1)
    do(watch, "help")
    press(watch, *TO_THE_GOAL)
    status, _ = watch.show()
    assert status["message"] == "Solved: goal, after 5 steps. The agent alone: died: lava."
    do(watch, "next")
    assert watch.phase == "summary" and not watch.runs
    summary = watch.show()[0]["summary"]
    assert summary["lines"] == [
        "With your help: 0 catastrophes on 1 level.",
        "Without it: 1 catastrophe on the same 1 level.",
        "Requests for help: 1.",
        "You took 5 of 5 steps.",
        "For other levels end the command and begin it with --first-level 1.",
    ]
    (row,) = summary["rows"]
    assert row["ends"] == ["solved: goal", "died: lava"]
    assert (row["num_requests"], row["num_helped"]) == (1, 5)


def one_policy(params: Any, obs: jax.Array) -> AgentOutput:
    """Draws among four actions; the key decides."""
    return AgentOutput(jnp.array([0.2, 0.2, 0.2, 0.4]), jnp.float32(0))


def drawing(threshold: float, count: int = 12) -> Watched:
    agent = Combined(jnp.zeros((2, 1)), one_policy, mean_probabilities)
    env = LavaGrid()
    return watched([DOWN], [0.75], threshold)._replace(
        policy=agent, levels=make_levels(env, np.arange(count))
    )


def evaluated(what: Watched) -> Episodes:
    """The same levels played by `play`."""
    levels = jax.tree.map(jnp.asarray, what.levels.levels)
    return jax.jit(partial(play, what.env))(what.policy, levels, KEY)


@pytest.mark.parametrize("first", [0, 4])
def test_without_a_person_the_episodes_are_those_of_evaluation(begin, first):
    what = drawing(INF)
    watch = begin(what, num_levels=8, first_level=first)
    for _ in range(10_000):
        steps(watch, 1)
    assert watch.phase == "summary"
    expected = evaluated(what)
    for result in watch.results:
        at = result.level_index
        assert (result.outcome, result.cause, result.length) == (
            int(expected.outcome[at]),
            int(expected.cause[at]),
            int(expected.length[at]),
        )
        assert result.alone == (result.outcome, result.cause)


def test_without_means_the_episodes_of_evaluation_whatever_the_person_does(begin):
    what = drawing(-INF)
    watch = begin(what, num_levels=8)
    while watch.phase != "summary":
        do(watch, "help")
        press(watch, "up")
        steps(watch, 1)
        if watch.phase == "ended":
            do(watch, "next")
    expected = evaluated(what)
    ends = [(int(outcome), int(cause)) for outcome, cause in zip(*expected[:2], strict=True)][:8]
    assert [result.alone for result in watch.results] == ends
    assert [(result.outcome, result.cause) for result in watch.results] != ends


@pytest.mark.parametrize("budget", [None, 2])
def test_a_person_who_answers_as_a_helper_gets_what_the_helper_gets(begin, budget):
    what = drawing(0.5)
    what = what._replace(probe=probe([0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0], 4))
    what = what._replace(levels=take(what.levels, slice(0, 6)))
    watch = begin(what, num_levels=6, help_steps=2, budget=budget)
    while watch.phase != "summary":
        before = watch.place
        if watch.phase == "asking":
            do(watch, "help")
            press(watch, "up", "left")
        steps(watch, 1)
        if budget is not None and watch.place != before:
            watch.num_requests = 0  # theirs is the budget of an episode, ours of them all

    def helper(states: Any, num_steps: int, seeds: np.ndarray) -> np.ndarray:
        return np.tile([UP, LEFT], (len(seeds), 1))

    helped = play_with_help(
        what.env, what.policy, what.levels.levels, KEY, what.probe, value, np.array([0.5]), helper,
        2, budget,
    )  # fmt: skip
    for name in ("outcome", "cause", "length", "num_helped"):
        assert [getattr(one, name) for one in watch.results] == getattr(helped, name)[0].tolist()
    if budget is None:
        assert [one.num_requests for one in watch.results] == helped.num_requests[0].tolist()


def value(told: Said) -> jax.Array:
    return -told.values.mean()


# What is written


def test_everything_is_written_with_who_acted_and_what_came_of_it(begin, tmp_path):
    watch = begin(watched([LEFT, DOWN], [0.0, 0.75, 0.75, 0.0]), num_levels=1)
    steps(watch, 1)
    do(watch, "help")
    press(watch, "right")
    do(watch, "back")
    while watch.phase != "ended":
        do(watch, "go")
        steps(watch, 1)
    found = rows(tmp_path)
    assert [(row["event"], row["step"], row["actor"]) for row in found[:4]] == [
        ("alarm", 1, "agent"),
        ("request", 1, "agent"),
        ("help", 1, "person"),
        ("hand back", 2, "person"),
    ]
    end = found[-1]
    assert (end["event"], end["outcome"], end["cause"]) == ("end", "timeout", "timeout")
    assert (end["outcome_alone"], end["length_alone"]) == ("catastrophe", 3)
    assert {row["session"] for row in found} == {watch.session}
    assert {(row["mode"], row["level_index"], row["level_id"]) for row in found} == {
        ("watch", 0, 0)
    }
    assert {row["threshold"] for row in found} == {0.5} and found[0]["u"] == 0.75
    assert [row["num_helped"] for row in found[:4]] == [0, 0, 0, 1]


def test_an_answer_is_in_the_table_before_the_episode_is_over(begin, tmp_path):
    watch = begin(watched([DOWN, UP, UP, UP], [0.75, 0.0, 0.75]))
    assert [event for event, *_ in events(tmp_path)] == ["alarm", "request"]
    do(watch, "help")
    assert [event for event, *_ in events(tmp_path)][2:] == ["help"]
    press(watch, "left")
    do(watch, "back")
    assert [event for event, *_ in events(tmp_path)][3:] == ["hand back"]
    steps(watch, 1)
    do(watch, "go")
    assert [event for event, *_ in events(tmp_path)][4:] == ["alarm", "request", "go on"]
    assert watch.phase == "playing"


def test_an_end_has_no_score_since_nobody_looks_at_the_last_state(begin, tmp_path):
    steps(begin(watched(TO_THE_LAVA, [0.25])), 4)
    (end,) = rows(tmp_path)
    assert end["event"] == "end" and end["threshold"] == 0.5
    assert [end[name] for name in ("mu", "sigma", "u")] == [None] * 3


def test_a_hand_back_says_whether_the_steps_ran_out(begin, tmp_path):
    watch = begin(watched([DOWN], [0.75]))
    do(watch, "help")
    press(watch, "left", "right", "left")
    do(watch, "help")
    press(watch, "right")
    do(watch, "back")
    found = [row for row in rows(tmp_path) if row["event"] == "hand back"]
    assert [(row["note"], row["actor"], row["num_steps"]) for row in found] == [
        ("steps over", "person", 3),
        ("", "person", 1),
    ]


def test_there_is_a_speed_wherever_time_makes_steps(begin):
    assert begin(watched([DOWN], [0.0])).greeting()["timed"]
    assert not begin(watched([DOWN], [0.0]), mode="alone").greeting()["timed"]
    assert begin(coinrun([0.0]), mode="record").greeting()["timed"]


def test_a_later_session_adds_to_the_table_and_the_first_stays_as_it_was(begin, tmp_path):
    begin(watched(TO_THE_LAVA, [0.0])).hear(SOMEBODY, {"do": "next"})
    before = rows(tmp_path)
    second = begin(watched(TO_THE_LAVA, [0.0]))
    steps(second, 10)
    assert rows(tmp_path)[: len(before)] == before
    assert [row["event"] for row in rows(tmp_path)] == ["left", "end"]
    assert len({row["session"] for row in rows(tmp_path)}) == 2


def test_a_damaged_table_is_refused_and_left_as_it_is(begin, tmp_path):
    path = tmp_path / INTERVENTIONS
    path.write_bytes(b"PAR1 no table")
    with pytest.raises(ValueError, match=r"interventions\.parquet is not a whole Parquet file"):
        begin(watched(TO_THE_LAVA, [0.0]))
    assert path.read_bytes() == b"PAR1 no table"
    write_table(path, {"colour": ["red"]})
    with pytest.raises(ValueError, match=r"has other columns .* move it elsewhere"):
        begin(watched(TO_THE_LAVA, [0.0]))


def test_what_cannot_be_written_is_told_and_written_later(begin, tmp_path, monkeypatch, caplog):
    def full(path: Path, columns: Any) -> None:
        raise OSError("No space left on device")

    watch = begin(watched(TO_THE_LAVA, [0.0]))
    with monkeypatch.context() as patch:
        patch.setattr("hotoven.journal.write_table", full)
        steps(watch, 4)
    assert watch.show()[0]["trouble"].endswith("No space left on device")
    assert len(caplog.records) == 1 and not (tmp_path / INTERVENTIONS).exists()
    do(watch, "next", "next")
    assert watch.show()[0]["trouble"] == ""
    assert [row["event"] for row in rows(tmp_path)] == ["end", "left"]


# Levels


def test_after_an_end_the_next_level_begins_by_itself_or_at_once(begin):
    watch = begin(watched(TO_THE_LAVA, [0.0]), steps_per_second=5)
    steps(watch, 4)
    assert watch.phase == "ended"
    steps(watch, 9)  # of two seconds
    assert (watch.phase, watch.place) == ("ended", 0)
    steps(watch, 1)
    assert (watch.phase, watch.place, watch.actions) == ("playing", 1, [])
    steps(watch, 4)
    do(watch, "next")
    assert watch.phase == "summary"


def test_a_level_that_is_left_is_not_counted(begin, tmp_path):
    watch = begin(watched([DOWN], [0.0]), num_levels=2)
    do(watch, "next")
    steps(watch, 1)
    do(watch, "next")
    summary = watch.show()[0]["summary"]
    assert summary["lines"][:2] == [
        "With your help: 1 catastrophe on 1 level.",
        "Without it: 1 catastrophe on the same 1 level.",
    ]
    assert summary["lines"][-1] == "Not counted: 1 level left before the end."
    assert summary["rows"][0]["ends"] == ["left", ""]
    assert [event for event, *_ in events(tmp_path)] == ["left", "end"]


def test_help_on_a_level_that_is_left_is_told_too(begin):
    watch = begin(watched([DOWN], [0.75, 0.0]), num_levels=2)
    do(watch, "help")
    press(watch, "left", "left")
    do(watch, "next", "go")
    steps(watch, 1)
    do(watch, "next")
    summary = watch.show()[0]["summary"]
    assert "You took 2 of 3 steps." in summary["lines"]
    assert [row["num_helped"] for row in summary["rows"]] == [2, 0]


def test_the_agent_begins_no_level_again(begin):
    watch = begin(watched(TO_THE_LAVA, [0.0]))
    steps(watch, 2)
    assert "restart" not in watch.show()[0]["can"]
    do(watch, "restart")
    assert watch.actions == [LEFT, RIGHT]


# Alone, and recorded


def test_alone_you_are_compared_with_the_agent(begin, tmp_path):
    watch = begin(watched([DOWN], [0.75]), mode="alone", num_levels=2)
    assert watch.phase == "helping" and watch.show()[0]["heard"] is None
    press(watch, *TO_THE_GOAL)
    assert watch.show()[0]["message"] == (
        "Solved: goal, after 5 steps. The agent alone: died: lava. Press N for the next level."
    )
    do(watch, "next")
    press(watch, "down")
    do(watch, "next")
    assert watch.show()[0]["summary"]["lines"] == [
        "You: 1 catastrophe on 2 levels.",
        "The agent alone: 2 catastrophes on the same 2 levels.",
    ]
    assert events(tmp_path) == [("end", 5, "person"), ("end", 1, "person")]
    assert rows(tmp_path)[0]["threshold"] is None


def test_only_the_first_attempt_at_a_level_counts(begin, tmp_path):
    watch = begin(watched([DOWN], [0.0]), mode="alone", num_levels=1)
    press(watch, "down")
    do(watch, "restart")
    press(watch, *TO_THE_GOAL)
    do(watch, "next")
    assert watch.show()[0]["summary"]["lines"][0] == "You: 1 catastrophe on 1 level."
    found = [(row["attempt"], row["outcome"]) for row in rows(tmp_path)]
    assert found == [(1, "catastrophe"), (2, "solved")]


def record(begin: Any, *plays: tuple[str, ...]) -> None:
    watch = begin(watched([DOWN], [0.0]), mode="record", num_levels=1)
    for number, keys in enumerate(plays):
        if number:
            do(watch, "restart")
        press(watch, *keys)


def test_a_recorded_play_takes_an_agent_that_would_die_to_the_goal(begin, tmp_path):
    record(begin, ("down",), TO_THE_GOAL)
    plays = read_table(tmp_path / PLAYS)
    assert plays["action"].to_pylist() == [DOWN, LEFT, LEFT, LEFT, DOWN, LEFT]
    assert plays["outcome"].to_pylist() == ["catastrophe"] + ["solved"] * 5
    env, agent = LavaGrid(), Scripted(jnp.array([LEFT, RIGHT, DOWN], jnp.int32))
    levels = make_levels(env, np.array([0, 1]))
    helped = partial(
        play_with_help, env, agent, levels.levels, KEY, probe([1.0], 4), value,
        np.array([0.5, INF]), recorded_helper(env, plays),
    )  # fmt: skip
    outcome = helped(3).outcome
    assert outcome[:, 0].tolist() == [1, 2]  # the goal with the helper, the lava without
    assert helped(1).length[0, 0] == 5  # asked step by step it knows where on the way it is


def test_the_example_of_a_recorded_helper_in_the_docs_works(begin, tmp_path):
    record(begin, TO_THE_GOAL)
    page = (ROOT / "docs" / "watch.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names = {
        "env": LavaGrid(),
        "run": tmp_path,
        "policy": Scripted(jnp.array([LEFT, RIGHT, DOWN], jnp.int32)),
        "levels": make_levels(LavaGrid(), np.array([0, 1])).levels,
        "key": KEY,
        "probe": probe([1.0], 4),
        "score": value,
        "thresholds": np.array([0.5, INF]),
    }
    exec(example, names)
    assert names["helped"].outcome[:, 0].tolist() == [1, 2]


def test_a_recorded_helper_follows_the_nearest_recorded_state_and_stands_still_elsewhere(
    begin, tmp_path
):
    record(begin, TO_THE_GOAL)
    env = LavaGrid()
    helper = recorded_helper(env, read_table(tmp_path / PLAYS))
    levels = make_levels(env, np.array([0, 1])).levels
    states = jax.device_get(jax.vmap(env.reset)(levels)[0])
    states = states._replace(position=np.array([[3, 2], states.position[1]], np.int32))
    found = helper(states, 4, np.zeros(2, np.uint32))
    assert found[0, :3].tolist() == [LEFT, DOWN, LEFT]
    last = jax.tree.map(lambda leaf: leaf[1], states)
    for action in found[1]:
        last, shown = env.step(last, action)
        assert int(shown.outcome) == 0
    assert np.abs(np.asarray(last.position) - states.position[1]).sum() <= 1


def test_plays_of_another_environment_or_cut_short_are_refused(begin, tmp_path):
    record(begin, TO_THE_GOAL)
    plays = read_table(tmp_path / PLAYS)
    with pytest.raises(ValueError, match="were not recorded on lavagrid levels"):
        recorded_helper(LavaGrid(height=6), plays)
    with pytest.raises(ValueError, match="step by step from 0"):
        recorded_helper(LavaGrid(), plays.slice(1))
    with pytest.raises(ValueError, match="plays lack the columns outcome"):
        recorded_helper(LavaGrid(), plays.drop_columns("outcome"))


# CoinRun: time passes


def test_in_coinrun_help_begins_with_the_first_key_and_runs_in_time(begin):
    watch = begin(coinrun([0.0, 0.0, 0.75, 0.0]), help_steps=4)
    steps(watch, 5)
    assert (watch.phase, watch.num_steps) == ("asking", 2)
    do(watch, "help")
    steps(watch, 5)
    assert watch.num_steps == 2  # time waits for the first key
    assert watch.show()[0]["countdown"] == "4 steps of help left, which begin with your first key"
    watch.hear(SOMEBODY, {"keys": ["right"]})
    steps(watch, 2)
    watch.hear(ANOTHER, {"keys": ["up"]})  # keys of either count
    steps(watch, 1)
    watch.let_go(SOMEBODY)
    watch.let_go(ANOTHER)
    steps(watch, 1)
    assert watch.phase == "playing"
    assert watch.actions == [4, 4, 7, 7, 8, 4]


def test_where_nobody_looks_time_stands_until_somebody_goes_on(begin):
    watch = begin(coinrun([0.0, 0.0, 0.75, 0.0]))
    steps(watch, 1)
    watch.pause()
    steps(watch, 3)
    assert watch.num_steps == 1 and watch.show()[0]["message"] == "Paused. Press P to go on."
    do(watch, "pause")
    steps(watch, 1)
    do(watch, "help")
    press(watch, "right")
    steps(watch, 1)
    watch.pause()
    steps(watch, 3)
    assert (watch.num_steps, watch.actions[-1]) == (3, 7)
    press(watch, "left")
    steps(watch, 1)
    assert watch.actions[-1] == 1


def test_nothing_is_compiled_twice(begin):
    what = coinrun([0.0])
    watch = begin(what)
    before = live._begin._cache_size(), live._advance._cache_size()
    for commands in (("next",), ("next",)):
        steps(watch, 30)
        watch.show()
        do(watch, *commands)
    again = begin(what)
    steps(again, 10)
    assert (live._begin._cache_size(), live._advance._cache_size()) == before


# What is refused


@pytest.mark.parametrize(
    "nonsense",
    [
        {},
        {"jump": 1},
        {"do": "win"},
        {"do": ["help"]},
        {"do": None},
        {"keys": "left"},
        {"keys": ["fly"]},
        {"speed": 0},
        {"speed": 61},
        {"speed": 1.5},
        {"speed": True},
        {"speed": "fast"},
        {"speed": 5, "do": "go"},
    ],
)
def test_a_message_that_makes_no_sense_is_an_error(begin, nonsense):
    watch = begin(watched(TO_THE_LAVA, [0.0]))
    with pytest.raises(ValueError, match="must"):
        watch.hear(SOMEBODY, nonsense)
    assert watch.actions == [] and watch.speed == 4


def test_a_command_that_comes_too_late_does_nothing(begin):
    watch = begin(watched(TO_THE_LAVA, [0.0, 0.75]))
    do(watch, "help", "go", "back")
    assert watch.phase == "playing"
    steps(watch, 5)
    do(watch, "go", "help")  # the second viewer's answer
    assert watch.phase == "playing"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"num_levels": 0}, "num-levels must be from 1 to 2147483647, got 0"),
        ({"first_level": -1}, "first-level must be from 0 to 2147483647, got -1"),
        ({"help_steps": 0}, "help-steps must be from 1 to 2147483647, got 0"),
        ({"budget": -1}, "budget must be from 0 to 2147483647, got -1"),
        ({"budget": 3_000_000_000}, "budget must be from 0 to 2147483647, got 3000000000"),
        ({"steps_per_second": 61}, "steps-per-second must be from 1 to 60, got 61"),
        ({"num_levels": 3}, "there are 2 unseen levels, 0 to 1: first-level 0 and num-levels 3"),
        ({"first_level": 2}, "there are 2 unseen levels, 0 to 1: first-level 2"),
    ],
)
def test_settings_out_of_range_are_errors(begin, setting, said):
    with pytest.raises(ValueError, match=said):
        begin(watched(TO_THE_LAVA, [0.0]), **setting)


# The agents of a run


@pytest.fixture
def copied(tmp_path_factory, tmp_path: Path) -> Any:
    """Copies of runs that may be locked and written into: a tiny one, and CoinRun's stored one."""

    def copy(kind: str) -> Path:
        source = ROOT / "results" / "coinrun-quick"
        if kind == "lavagrid":
            source, _ = uninterrupted(shared_folder(tmp_path_factory))
        return Path(shutil.copytree(source, tmp_path / kind))

    return copy


@pytest.mark.long
@pytest.mark.parametrize(("kind", "size"), [("lavagrid", 8), ("coinrun", 10)])
@pytest.mark.parametrize("helps", [False, True])
def test_without_help_the_levels_end_as_in_the_runs_table(copied, tmp_path, kind, size, helps):
    path = copied(kind)
    study, settings, _ = cli._study_of(path)
    what = study.watched(settings, path, size, threshold=-INF if helps else INF)
    watch = Watch(what, Settings(num_levels=12, help_steps=2), tmp_path, 8)
    watch.get_ready()
    while watch.phase != "summary":
        if watch.phase == "asking":
            do(watch, "help")
            press(watch, "up", "up")
        if watch.show()[0]["paused"]:
            do(watch, "pause")
        watch.step()
    table = read_table(path / "episodes.parquet")
    chosen = (pc.field("set") == "test") & (pc.field("method") == "mean")
    table = table.filter(chosen & (pc.field("num_train_levels") == size)).to_pylist()
    expected = [(row["outcome"], row["cause"], row["length"]) for row in table[:12]]
    ends = [row for row in rows(tmp_path) if row["event"] == "end"]
    names = ("outcome_alone", "cause_alone", "length_alone")
    assert [tuple(row[name] for name in names) for row in ends] == expected
    if not helps:
        assert [(row["outcome"], row["cause"], row["step"]) for row in ends] == expected


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--size 5", r"size must be one of 4, 8, whose agents are in .*, got 5"),
        ("--threshold 1 --promise 0.2", "threshold and promise both say where the alarm is"),
        ("--threshold nan", "threshold must be a number, got nan"),
        ("--threshold 1 --num-levels 99", "there are .* unseen levels, 0 to .*num-levels 99"),
        ("--budget -1", "budget must be from 0 to 2147483647, got -1"),
        ("--mode sleep", "sleep.*'watch', 'alone', 'record'"),
        ("--port 70000", "port must be from 0 to 65535, got 70000"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(copied, capsys, words, said):
    path = copied("lavagrid")
    assert cli.main(["watch", str(path), "--no-browser", *words.split()]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert re.search(said, err), err


@pytest.mark.long
def test_a_promise_must_be_one_that_the_run_has_made(copied, capsys):
    path = copied("coinrun")
    assert cli.main(["watch", str(path), "--no-browser", "--promise", "0.25"]) == 2
    assert "promise must be one of 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, which" in capsys.readouterr().err
    grid = copied("lavagrid")
    assert cli.main(["watch", str(grid), "--no-browser", "--promise", "1.5"]) == 2
    assert "promise must be between 0 and 1, got 1.5" in capsys.readouterr().err
    assert cli.main(["watch", str(grid), "--no-browser", "--promise", "0.01"]) == 2
    assert "too few to promise 1%: give a threshold" in capsys.readouterr().err


@pytest.mark.long
def test_a_folder_that_is_no_run_being_written_or_without_agents_is_one_line(
    copied, tmp_path, capsys
):
    assert cli.main(["watch", str(tmp_path), "--no-browser"]) == 2
    assert "no file" in capsys.readouterr().err
    path = copied("lavagrid")
    with runs.locked(path):
        assert cli.main(["watch", str(path), "--no-browser"]) == 2
    err = capsys.readouterr().err
    assert err == f"hotoven: {path} is being written by another process\n"
    about = read_json(path / "run.json")
    write_json(path / "run.json", about | {"status": "running"})
    assert cli.main(["watch", str(path), "--no-browser"]) == 2
    assert "its tables may be old" in capsys.readouterr().err
    write_json(path / "run.json", about)
    for file in (path / "agents").iterdir():
        file.unlink()
    assert cli.main(["watch", str(path), "--no-browser"]) == 2
    assert "has no agents: hotoven train makes them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("run", "name", "column", "value"),
    [
        ("coinrun-quick", "promises.parquet", "threshold", "high"),
        ("coinrun-quick", "promises.parquet", "threshold", None),
        ("coinrun-quick", "promises.parquet", "threshold", np.nan),
        ("coinrun-quick", "promises.parquet", "promised", None),
        ("coinrun-quick", "promises.parquet", "num_calibration", None),
        ("quick", "steps.parquet", "members", None),
        ("quick", "steps.parquet", "members", [0.5]),
        ("quick", "steps.parquet", "members", [np.nan] * 4),
        ("quick", "steps.parquet", "step", None),
        ("quick", "steps.parquet", "num_train_levels", "ten"),
    ],
)
def test_a_damaged_table_that_a_threshold_is_from_is_named(tmp_path, run, name, column, value):
    path = Path(shutil.copytree(ROOT / "results" / run, tmp_path / run))
    table = read_table(path / name)
    columns = dict(zip(table.column_names, table.columns, strict=True))
    write_table(path / name, columns | {column: pa.array([value] * table.num_rows)})
    study, settings, _ = cli._study_of(path)
    with pytest.raises(ValueError, match=rf"{name} is not as hotoven writes it") as told:
        study.watched(settings, path)
    assert str(path / name) in str(told.value)


@pytest.mark.long
def test_lavagrids_threshold_comes_from_levels_that_are_not_watched(copied):
    path = copied("lavagrid")
    steps = read_table(path / "steps.parquet")
    died = pc.equal(steps["outcome"], "running")
    ends = pa.array(np.where(died.to_numpy(), "running", "catastrophe"))
    place = steps.column_names.index("outcome")
    steps = steps.set_column(place, "outcome", ends)
    write_table(path / "steps.parquet", dict(zip(steps.column_names, steps.columns, strict=True)))
    study, settings, _ = cli._study_of(path)
    what = study.watched(settings, path, promise=0.5)
    assert what.first_level == settings.num_traced_levels == 5
    assert "from 5 deaths on unseen levels 0 to 4" in what.promise
    mean = steps.filter((pc.field("method") == "mean") & (pc.field("num_train_levels") == 4))
    q = np.stack(mean["members"].to_numpy()).reshape(-1, 2, 4).max(axis=2)
    score = scores.score(q.mean(axis=1), q.std(axis=1), *scores.WITH_STD)
    index = mean["level_index"].to_numpy()
    peaks = sorted(score[index == level].max() for level in range(5))
    assert peaks[1] < what.threshold < peaks[2] or what.threshold == pytest.approx(peaks[2])


@pytest.mark.long
@pytest.mark.usefixtures("interruptible")
def test_the_command_serves_the_page_and_keeps_others_from_writing_into_the_run(
    copied, tmp_path_factory
):
    base, path = shared_folder(tmp_path_factory), copied("lavagrid")
    words = ["watch", str(path), "--no-browser", "--threshold", "0.1"]
    process = start(base, *words)
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"watch at (http://127\.0\.0\.1:\d+/[\w-]{32}/) .*Ctrl-C.*\n", line)
        assert found, line
        with urllib.request.urlopen(found[1], timeout=TIMEOUT) as answer:
            assert b"<title>hotoven: watch</title>" in answer.read()
        second = start(base, *words)
        _, err = second.communicate(timeout=TIMEOUT)
        assert second.returncode == 2
        assert err == f"hotoven: {path} is being written by another process\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines() == ["getting ready ...", "hotoven: stopped"]
    with runs.locked(path):  # and then they may
        pass
