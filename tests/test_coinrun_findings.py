"""Verdicts on the post's CoinRun claims, from tables small enough to read."""

import json
import math
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotoven.evaluation.bootstrap import Interval, two_level, wilson
from hotoven.evaluation.coinrun_findings import _claims, coinrun_findings, without_tables
from hotoven.evaluation.coinrun_help_claims import AT_RANDOM
from hotoven.evaluation.coinrun_knowing_claims import promise_excess
from hotoven.evaluation.coinrun_rows import compared_sizes
from hotoven.evaluation.coinrun_verdicts import no_reduction, reduction, unpaired_difference
from hotoven.evaluation.findings import to_json, to_markdown
from hotoven.evaluation.promise import conformal_threshold, measured
from noted import Noted

SMALL, LARGE = 10, 200
LETTERS = {"s": "solved", "c": "catastrophe", "t": "timeout"}
COUNTS = ("length", "episode_return", "num_blocked", "num_false_blocks", "num_all_blocked")


def interval(low, high):
    return Interval((low + high) / 2, low, high, "levels")


def rate(set, solved, catastrophe, size=SMALL):
    row = {"set": set, "num_train_levels": size, "method": "single"}
    row |= {"num_members": 5, "num_levels": size, "num_episodes": 20 * 5 * size}
    for outcome, value in (("solved", solved), ("catastrophe", catastrophe)):
        row |= {f"{outcome}_rate": value}
        row |= {f"{outcome}_low": value - 0.03, f"{outcome}_high": value + 0.03}
    return row


def difference(low, high, method="mean", size=SMALL):
    row = {"num_train_levels": size, "method": method, "baseline": "single"}
    for outcome in ("catastrophe", "solved"):
        row |= {f"{outcome}_difference": (low + high) / 2}
        row |= {f"{outcome}_low": low, f"{outcome}_high": high}
    return row


def episodes_of(method, ends, causes=None, member=-1):
    fixed = {"set": "test", "num_train_levels": SMALL, "replication": 0, "method": method}
    fixed |= {"member": member, **dict.fromkeys(COUNTS, 0)}
    return [
        fixed
        | {"level_index": index, "level_id": 100 + index, "outcome": LETTERS[end]}
        | {"cause": causes[index] if causes else "lava"}
        for index, end in enumerate(ends)
    ]


def comparison(kind, low, high, score="mean and std", window=1, **other):
    return {
        "comparison": kind,
        "num_train_levels": SMALL,
        "acting": "mean",
        "score": score,
        "window": window,
        "other_num_train_levels": SMALL,
        "other_window": window,
        "difference": (low + high) / 2,
        "low": low,
        "high": high,
    } | other


def coherence(method, measure, estimate):
    row = {"num_train_levels": SMALL, "method": method, "measure": measure, "estimate": estimate}
    return row | {"low": estimate - 0.03, "high": estimate + 0.03}


def promise(set, promised, unannounced, vacuous=False, rule="conformal", of=200):
    """A promise of a threshold chosen on 199 catastrophes, measured on `of`."""
    low, high = wilson(unannounced, of)
    row = {"num_train_levels": SMALL, "score": "mean and std", "rule": rule, "vacuous": vacuous}
    row |= {"set": set, "promised": promised, "share": unannounced / of, "low": low, "high": high}
    return row | {"num_catastrophes": of, "num_calibration": 199}


def helped(requests, low, high, helper="planner", threshold=-3.5):
    return {
        "num_train_levels": SMALL,
        "helper": helper,
        "threshold": threshold,
        "requests_per_episode": requests,
        "helped_share": 0.2,
        "catastrophe_rate": 0.1,
        "catastrophe_low": 0.05,
        "catastrophe_high": 0.15,
        "avoided": (low + high) / 2,
        "avoided_low": low,
        "avoided_high": high,
    }


def helped_episodes(outcomes, helper="planner", threshold=-3.5):
    """Rows of the help table, one letter per level: c died, s solved."""
    words = {"c": "catastrophe", "s": "solved"}
    return [
        {"num_train_levels": SMALL, "helper": helper, "threshold": threshold}
        | {"level_index": index, "outcome": words[letter]}
        for index, letter in enumerate(outcomes)
    ][::-1]  # the order of rows is nobody's business


def area(score, auc, window=1, size=SMALL):
    where = {"num_train_levels": size, "acting": "mean", "score": score, "window": window}
    return where | {"auc": auc, "auc_low": auc - 0.01, "auc_high": auc + 0.01}


def study():
    """Rows of a run in which every claim holds, with its one finding per number of levels."""
    dying, better = "c" * 200 + "s" * 200, "c" * 100 + "s" * 300
    switching = {
        "single": 0.2,
        "mean": 0.5,
        "mean_hysteresis": 0.3,
        "random_step": 0.6,
        "random_hold": 0.3,
        "random_episode": 0.2,
    }
    mind = "switch rate in fatal jump"
    return {
        "rates": [rate("train", 1.0, 0.0), rate("test", 0.6, 0.3), rate("test", 0.8, 0.2, LARGE)],
        "differences": [difference(-0.04, 0.06), difference(-0.02, 0.02, size=LARGE)],
        "episodes": [
            *episodes_of("mean", dying),
            *episodes_of("random_step", dying),
            *episodes_of("mean_hysteresis", better),
            *episodes_of("random_hold", better),
            *episodes_of("random_episode", better),
        ],
        "comparisons": [
            comparison("gain", 0.01, 0.05),
            comparison("gain", 0.02, 0.06, score="best pair"),
            comparison("gain", 0.001, 0.005, window=10),
            comparison("gain by window", 0.01, 0.04, other_window=10),
            comparison("gain by window", -0.01, 0.04, other_window=3),
            comparison("gain by size", 0.01, 0.03, other_num_train_levels=LARGE),
            comparison("window", 0.1, 0.2, other_window=10),
        ],
        "predictions": [
            area("mean and std", 0.9),
            area("blocker", 0.8),
            area("head", 0.7),
            area("oracle", 1.0),
            area("mean and std", 0.7, 10),
            area("head", 0.75, 10),
            area("margin", 0.4, size=LARGE),
        ],
        "coherence": [
            *(coherence(method, "switch rate", value) for method, value in switching.items()),
            coherence("single", mind, 0.3),
            coherence("mean", mind, 0.6),
            coherence("mean", "switch rate in landed jump", 0.5),
        ],
        "promises": [
            promise("test", 0.2, 30),
            promise("test", 0.1, 24),
            promise("test", 0.05, 100, vacuous=True),
            promise("test", 0.2, 36, rule="tested"),
            promise("shifted", 0.2, 100),
            promise("shifted", 0.1, 20),
        ],
        "help_rates": [
            helped(0.0, 0.0, 0.0),
            helped(0.9, 0.1, 0.2),
            helped(4.0, -0.1, 0.1),
            helped(1.0, -0.2, -0.1, helper="stand_still"),
            helped(0.8, 0.05, 0.15, helper="planner_at_random", threshold=0.97),
            helped(1.2, 0.05, 0.15, helper="planner_at_random", threshold=0.96),
        ],
        "help": [
            *helped_episodes("c" * 10 + "s" * 90),
            *helped_episodes("c" * 30 + "s" * 70, "planner_at_random", 0.97),
            *helped_episodes("s" * 100, "planner_at_random", 0.96),
        ],
    }


def found(rows):
    tables = {name: pa.Table.from_pylist(some) for name, some in rows.items() if some}
    return {finding.claim: finding for finding in coinrun_findings(tables)}


def test_a_study_in_which_every_claim_holds_supports_every_claim():
    findings = found(study())
    assert {claim: finding.estimate for claim, finding in findings.items()} == pytest.approx(
        {
            "perfect yet dangerous": 30,
            "averaging is no safer with 10 training levels": 1,
            "averaging is no safer with 200 training levels": 0,
            "sigma helps": 3,
            "sigma helps less further ahead": 2.5,
            "sigma helps less with more levels": 2,
            "near is easier": 15,
            "values tell most": 10,  # 90% against the blocker's 80%
            "incoherence explains it": -25,  # from 200 of 400 levels to 100
            "the promise holds": 2,  # 12% where 10% is promised, and not -5
            "the sure promise holds": -2,
            "the promise breaks elsewhere": 30,
            "help helps": 15,
            "alarms beat chance": 20,  # 30 of 100 levels against 10, at 0.8 and 0.9 requests
        }
    )
    assert {finding.verdict for finding in findings.values()} == {"supported"}
    for finding in findings.values():
        assert finding.low <= finding.estimate <= finding.high
        for one in (finding, *finding.details):
            assert one.measure.endswith(("%", "percentage points"))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.04, 0.06, "supported"),
        (-0.05, 0.0, "supported"),
        (0.1, 0.2, "supported"),  # more catastrophes are no reduction either
        (-0.06, 0.06, "undecided"),  # a reduction by 6 points is not excluded
        (-0.03, -0.01, "not supported"),  # a reduction, however small
        (-0.3, -0.1, "not supported"),
    ],
)
def test_no_reduction_is_one_that_is_excluded_and_not_merely_unseen(low, high, verdict):
    assert no_reduction(interval(low, high), 0.05) == verdict


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_reduction_and_none_never_agree(first, second):
    spread = interval(min(first, second), max(first, second))
    verdicts = {no_reduction(spread), reduction(spread)}
    assert verdicts in ({"undecided"}, {"supported", "not supported"})


def test_a_difference_of_two_intervals_adds_their_squares():
    # 0.5 [0.4, 0.6] minus 0.2 [0.2 - 0.05, 0.2 + 0.075]: down by hypot(0.1, 0.075) = 0.125
    first, second = Interval(0.5, 0.4, 0.6, "levels"), Interval(0.2, 0.15, 0.275, "levels")
    assert unpaired_difference(first, second)[:3] == pytest.approx(
        (0.3, 0.3 - 0.125, 0.3 + (0.01 + 0.0025) ** 0.5)
    )


@pytest.mark.parametrize(
    ("sizes", "compared"),
    [((10, 50, 200, 1000), (10, 200)), ((10, 50), (10, 50)), ((10,), (10,)), ((200,), (200,))],
)
def test_the_smallest_is_compared_with_200_or_the_largest(sizes, compared):
    assert compared_sizes(sizes) == compared


@pytest.mark.parametrize(
    ("solved", "died", "danger", "verdict"),
    [
        (0.90, 0.02, 0.3, "supported"),
        (0.89, 0.00, 0.3, "undecided"),  # not perfect: the claim is not about them
        (0.95, 0.03, 0.3, "undecided"),
        (1.0, 0.0, 0.04, "undecided"),  # 1% to 7%, around the 2% that count as nothing
        (1.0, 0.0, -0.01, "not supported"),
    ],
)
def test_danger_is_what_unseen_levels_add(solved, died, danger, verdict):
    rows = study()
    rows["rates"] = [rate("train", solved, died), rate("test", 0.6, danger)]
    finding = found(rows)["perfect yet dangerous"]
    assert finding.verdict == verdict
    # the interval is that of unseen levels, moved
    bounds = (finding.estimate, finding.low, finding.high)
    assert bounds == pytest.approx(
        tuple(100 * (danger - died + by) for by in (0, -0.03, 0.03)), abs=1e-9
    )
    assert [detail.estimate for detail in finding.details] == pytest.approx(
        [100 * solved, 100 * died, 100 * danger]
    )
    assert finding.note == "Each agent tried each of its training levels 20 times."


def test_each_danger_says_how_many_unseen_levels_it_ended():
    rows = study()
    # 4 levels, two members: lava killed in 3 of 8 episodes, the saw in 2
    first, second = ["lava", "lava", "saw", "clock"], ["lava", "coin", "saw", "lava"]
    alone = [
        *episodes_of("single", "ccct", first, member=0),
        *episodes_of("single", "cscs", second, member=1),
    ]
    elsewhere = [row | {"set": "train", "outcome": "solved"} for row in alone]
    larger = [row | {"num_train_levels": LARGE, "outcome": "solved"} for row in alone]
    rows["episodes"] += alone + elsewhere + larger
    details = found(rows)["perfect yet dangerous"].details
    told = {one.measure: one for one in details[3:]}
    assert list(told) == [
        "unseen levels that ended by lava, single, %",
        "unseen levels that ended by saw, single, %",
    ]
    assert [one.estimate for one in told.values()] == pytest.approx([37.5, 25])
    for one, shares in zip(told.values(), ([1, 0.5, 0, 0], [0, 0, 1, 0]), strict=True):
        over_levels = two_level(np.array([shares]), bounds=(0, 1))
        assert (one.low, one.high) == pytest.approx((100 * over_levels.low, 100 * over_levels.high))


def test_other_ways_of_acting_are_details_of_averaging():
    rows = study()
    rows["differences"].append(difference(-0.2, -0.1, method="vote"))
    findings = found(rows)
    small = findings["averaging is no safer with 10 training levels"]
    assert small.verdict == "supported"
    assert [(one.measure[:26], one.estimate) for one in small.details] == [
        ("catastrophe: vote minus si", pytest.approx(-15)),
        ("solved: mean minus single,", pytest.approx(1)),
        ("catastrophe: mean minus ra", pytest.approx(0)),
    ]
    large = findings["averaging is no safer with 200 training levels"]
    assert [one.measure[:12] for one in large.details] == ["solved: mean"]


@pytest.mark.parametrize(
    ("claim", "kind"),
    [
        ("sigma helps", "gain"),
        ("sigma helps less further ahead", "gain by window"),
        ("sigma helps less with more levels", "gain by size"),
        ("near is easier", "window"),
    ],
)
@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.01, 0.05, "undecided"), (-0.05, -0.01, "not supported"), (0.0, 0.1, "undecided")],
)
def test_claims_of_auc_follow_from_the_one_comparison(claim, kind, low, high, verdict):
    rows = study()
    for row in rows["comparisons"]:
        mine = row["comparison"] == kind and row["score"] == "mean and std" and row["window"] == 1
        if mine and row["other_window"] in (1, 10):
            row |= {"low": low, "high": high}
    findings = found(rows)
    assert findings[claim].verdict == verdict
    others = [finding.verdict for name, finding in findings.items() if name != claim]
    assert set(others) == {"supported"}


def test_the_best_pair_is_a_detail_of_what_sigma_adds():
    details = found(study())["sigma helps"].details
    assert [(one.measure.partition(" minus")[0], one.estimate) for one in details] == [
        ("AUC: mean and std", pytest.approx(3)),
        ("AUC: best pair", pytest.approx(4)),
    ]


def incoherence(rows):
    return found(rows)["incoherence explains it"]


def test_a_mean_as_coherent_as_a_single_agent_is_no_explanation():
    rows = study()
    for row in rows["coherence"]:
        if row["method"] == "mean" and row["measure"] == "switch rate":
            row |= coherence("mean", "switch rate", 0.1)
    finding = incoherence(rows)
    assert finding.verdict == "not supported"
    assert "switch rate, mean above single: not supported" in finding.note
    assert finding.estimate == -25


def test_jumps_without_an_answer_leave_the_explanation_undecided():
    rows = study()
    rows["coherence"] = [row for row in rows["coherence"] if row["measure"] == "switch rate"]
    finding = incoherence(rows)
    assert finding.verdict == "undecided"
    assert "has no row of" in finding.note
    rows["coherence"].append(coherence("mean", "switch rate in fatal jump", 0.5))
    rows["coherence"].append(
        coherence("single", "switch rate in fatal jump", 0.5)
        | {"estimate": None, "low": None, "high": None}
    )
    finding = incoherence(rows)
    assert finding.verdict == "undecided"
    assert "there is no estimate where method is single" in finding.note


def test_fatal_jumps_are_compared_with_landed_ones():
    (detail,) = [one for one in incoherence(study()).details if "landed" in one.measure]
    assert detail.estimate == pytest.approx(10)
    assert detail.high == pytest.approx(10 + 100 * 0.03 * 2**0.5)


def test_deaths_on_the_training_levels_are_told_for_every_way_of_acting():
    rows = study()
    rows["rates"].append(rate("train", 0.93, 0.07) | {"method": "mean"})
    told = {
        one.measure: one.estimate
        for one in incoherence(rows).details
        if one.num_train_levels == SMALL and "tries" in one.measure
    }
    single = next(r for r in rows["rates"] if (r["set"], r["method"]) == ("train", "single"))
    assert told == {
        "tries at the training levels that ended in catastrophe, single, %": pytest.approx(
            100 * single["catastrophe_rate"]
        ),
        "tries at the training levels that ended in catastrophe, mean, %": pytest.approx(7),
    }


def test_coherence_that_saves_nobody_is_no_explanation():
    rows = study()
    rows["episodes"] = [
        row
        for method in ("mean", "random_step", "mean_hysteresis", "random_hold", "random_episode")
        for row in episodes_of(method, "c" * 100 + "s" * 300)
    ]
    finding = incoherence(rows)
    assert (finding.verdict, finding.estimate) == ("not supported", 0)
    tested = "mean_hysteresis, random_hold, random_episode"
    said = f"fewer catastrophes where a choice is kept ({tested}): not supported."
    assert finding.note == (
        "Parts: switch rate, mean above single: supported; switch rate in fatal jump, mean above "
        f"single: supported; {said}"
    )


def test_ways_of_keeping_to_a_choice_that_differ_leave_it_undecided():
    rows = study()
    rows["episodes"] = [row for row in rows["episodes"] if row["method"] != "random_hold"]
    rows["episodes"] += episodes_of("random_hold", "c" * 200 + "s" * 200)
    assert incoherence(rows).verdict == "undecided"


def test_what_did_not_become_coherent_tests_nothing():
    rows = study()
    rows["episodes"] = [row for row in rows["episodes"] if row["method"] != "random_hold"]
    rows["episodes"] += episodes_of("random_hold", "c" * 200 + "s" * 200)
    for row in rows["coherence"]:
        if row["method"] == "random_hold":
            row |= coherence("random_hold", "switch rate", 0.6)
    finding = incoherence(rows)
    assert finding.verdict == "supported"
    assert "(mean_hysteresis, random_episode): supported" in finding.note


def test_where_averaging_does_help_there_is_nothing_to_explain():
    rows = study()
    rows["differences"][0] = difference(-0.2, -0.1)
    finding = incoherence(rows)
    assert finding.verdict == "undecided"
    assert finding.note.endswith("there is nothing to explain.")


def test_what_a_promise_leaves_has_the_interval_of_its_calibration():
    # 40 of 200 measured; a fifth of 199 + 1 promised, so that 39 of 199 were left unannounced
    low, high = wilson(39, 199)
    below, over = wilson(40, 200)
    excess = promise_excess(0.2, 199, 0.2, 200)
    assert excess[:3] == pytest.approx(
        (0, -math.hypot(0.2 - below, high - 0.2), math.hypot(over - 0.2, 0.2 - low))
    )
    many = promise_excess(0.2, 199, 0.2, 200, looks=10)
    assert many.high == pytest.approx(
        math.hypot(wilson(40, 200, 0.995)[1] - 0.2, 0.2 - wilson(39, 199, 0.995)[0])
    )


def test_exchangeable_catastrophes_seldom_break_a_promise():
    rng = np.random.default_rng(0)
    broken = []
    for _ in range(300):
        peaks = rng.normal(size=(2, 150))
        threshold = conformal_threshold(peaks[0], 0.2).threshold
        seen = measured(peaks[1], threshold)
        excess = promise_excess(0.2, 150, seen.share, 150)
        broken.append((excess.low > 0, seen.low > 0.2))
    both, measured_alone = np.mean(broken, axis=0)
    assert both < 0.05 < measured_alone  # of 2.5% each, if the threshold's own share were known


def test_a_promise_is_broken_where_its_whole_interval_is_above_it():
    rows = study()
    rows["promises"][1] = promise("test", 0.1, 50)  # 25% where 10% is promised
    finding = found(rows)["the promise holds"]
    assert (finding.verdict, finding.estimate) == ("not supported", 15)
    joint = promise_excess(0.1, 199, 0.25, 200, looks=2)  # two that are not vacuous
    assert finding.low == pytest.approx(100 * joint.low) and joint.low > 0
    assert finding.note == (
        "2 of 3 promises can be kept without an alarm in every step; measured on 200 catastrophes "
        "each, with thresholds chosen on 199."
    )


def test_a_sure_promise_has_no_interval_of_its_own():
    rows = study()
    # 27.5% where 20% is promised: too many of what is sure, not of what is so on average
    rows["promises"][0] = promise("test", 0.2, 55)
    rows["promises"][3] = promise("test", 0.2, 55, rule="tested")
    findings = found(rows)
    assert findings["the promise holds"].verdict == "undecided"
    sure = findings["the sure promise holds"]
    assert sure.verdict == "not supported"
    low, high = wilson(55, 200)
    assert sure[3:6] == pytest.approx((7.5, 100 * low - 20, 100 * high - 20))
    rows["promises"][3] = promise("test", 0.2, 40, rule="tested")
    assert found(rows)["the sure promise holds"].verdict == "supported"
    rows["promises"][3] = promise("test", 0.2, 48, rule="tested")  # up to 30.3%
    assert found(rows)["the sure promise holds"].verdict == "undecided"


def test_promises_that_only_constant_alarm_keeps_decide_nothing():
    rows = study()
    rows["promises"] = [promise("test", 0.05, 0, vacuous=True)]
    findings = found(rows)
    assert findings["the promise holds"][3:7] == (None, None, None, "undecided")
    assert "alarm in every step" in findings["the promise holds"].rule
    assert "other mode" in findings["the promise breaks elsewhere"].rule


@pytest.mark.parametrize(
    ("unannounced", "verdict"), [(120, "supported"), (50, "undecided"), (4, "not supported")]
)
def test_a_promise_breaks_where_some_interval_is_above_it(unannounced, verdict):
    rows = study()
    rows["promises"][4:] = [promise("shifted", 0.2, unannounced), promise("shifted", 0.5, 40)]
    assert found(rows)["the promise breaks elsewhere"].verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.0, 0.1, "undecided"), (-0.1, 0.0, "not supported"), (0.001, 0.1, "supported")],
)
def test_help_is_judged_at_about_one_request_per_episode(low, high, verdict):
    rows = study()
    rows["help_rates"] = [
        helped(0.0, 0.5, 0.6),
        helped(1.2, low, high),
        helped(0.5, 0.5, 0.6),
        helped(7.0, 0.5, 0.6),
    ]
    finding = found(rows)["help helps"]
    assert (finding.verdict, finding.low) == (verdict, pytest.approx(100 * low))
    assert "1.20 requests per episode" in finding.note


def test_help_that_was_never_asked_for_decides_nothing():
    rows = study()
    rows["help_rates"] = [helped(0.0, 0.0, 0.0), helped(1.0, 0.1, 0.2, helper="retreat")]
    assert "the planner was never asked" in found(rows)["help helps"].rule


@pytest.mark.parametrize("name", sorted(study()))
def test_what_an_absent_table_would_say_is_undecided(name):
    rows = study()
    del rows[name]
    undecided = {claim: one for claim, one in found(rows).items() if one.verdict == "undecided"}
    assert undecided
    assert all("there is no table" in one.rule + one.note for one in undecided.values())


def test_the_best_other_score_is_the_one_to_beat_and_who_is_surer_in_danger_is_named():
    rows = study()
    finding = found(rows)["values tell most"]
    assert "is blocker at a window of 1 and head at 10" in finding.note
    assert (
        "Lower in danger than elsewhere, window 1: margin with 200 training levels" in finding.note
    )
    assert (finding.low, finding.high) == pytest.approx((10 - 2**0.5, 10 + 2**0.5))
    rows["predictions"].append(area("entropy", 0.905))
    finding = found(rows)["values tell most"]
    assert (finding.estimate, finding.verdict) == (pytest.approx(-0.5), "undecided")
    rows["predictions"].append(area("std", 0.96))
    assert found(rows)["values tell most"].verdict == "not supported"


@pytest.mark.parametrize(("small", "large"), [(0.89, 0.95), (0.95, 0.89)])
def test_agents_that_are_trained_less_decide_nothing_about_the_number_of_levels(small, large):
    rows = study()
    rows["rates"] += [rate("train", 0.95, 0.0, LARGE)]
    assert found(rows)["sigma helps less with more levels"].verdict == "supported"
    rows["rates"][0], rows["rates"][-1] = (
        rate("train", small, 0.0), rate("train", large, 0.0, LARGE)
    )  # fmt: skip
    finding = found(rows)["sigma helps less with more levels"]
    assert (finding.verdict, finding.estimate) == ("undecided", pytest.approx(2))
    assert f"Single agents solve {small:.1%} of their 10 training levels" in finding.note


def test_gains_of_average_precision_stand_beside_those_of_auc():
    rows = study()
    for window, size, gain in ((1, SMALL, 0.02), (10, SMALL, 0.03), (1, LARGE, 0.04)):
        rows["comparisons"].append(
            comparison("gain of precision", gain, gain, window=window) | {"num_train_levels": size}
        )
    said = {claim: finding.note for claim, finding in found(rows).items()}
    assert "gains +2.0 points in the first case and +3.0" in said["sigma helps less further ahead"]
    assert "+2.0 points in the first case and +4.0" in said["sigma helps less with more levels"]


def test_ways_of_acting_that_are_safer_than_one_agent_are_named():
    rows = study()
    assert found(rows)["averaging is no safer with 10 training levels"].note == ""
    rows["differences"] += [
        difference(-0.04, -0.01, method="random_step"), difference(-0.04, 0.01, method="vote")
    ]  # fmt: skip
    finding = found(rows)["averaging is no safer with 10 training levels"]
    assert finding.note == "Fewer catastrophes than a single agent have: random_step."
    assert (finding.details[-1].measure, finding.details[-1].estimate) == (
        "catastrophe: mean minus random_step, percentage points", 0
    )  # fmt: skip


def test_every_number_of_training_levels_is_told():
    rows, more = study(), 1000
    at = {"num_train_levels": more}
    rows["rates"].append(rate("test", 0.9, 0.1, more))
    rows["comparisons"].append(
        comparison("gain by size", -0.05, -0.03, other_num_train_levels=more)
    )
    rows["predictions"].append(area("entropy", 0.3, size=more))
    rows["help_rates"] += [
        helped(1.0, 0.3, 0.5) | at,
        helped(1.0, 0.1, 0.3, helper=AT_RANDOM, threshold=0.97) | at,
    ]
    rows["help"] += [
        row | at
        for row in (
            *helped_episodes("c" * 20 + "s" * 80),
            *helped_episodes("c" * 25 + "s" * 75, AT_RANDOM, 0.97),
        )
    ]
    said = found(rows)
    verdicts = {claim: one.verdict for claim, one in found(study()).items()}
    assert verdicts.items() <= {claim: one.verdict for claim, one in said.items()}.items()
    told = {
        (claim, one.num_train_levels, one.measure.partition(",")[0]): one.estimate
        for claim, finding in said.items()
        for one in finding.details
    }
    assert told["help helps", more, "levels on which planner avoided a catastrophe"] == 40
    beyond = "levels: planner at alarms minus planner at random"
    assert told["alarms beat chance", more, beyond] == pytest.approx(5)
    assert "entropy with 1000 training levels" in said["values tell most"].note
    measures = [one.measure for one in said["sigma helps less with more levels"].details]
    assert sum("minus that with 1000 training levels" in measure for measure in measures) == 1


def test_one_number_of_training_levels_leaves_out_what_compares_two():
    rows = study()
    rows["rates"] = rows["rates"][:2]
    rows["differences"] = rows["differences"][:1]
    undecided = {claim for claim, one in found(rows).items() if one.verdict == "undecided"}
    assert undecided == {"sigma helps less with more levels"}


def test_nothing_at_all_is_undecided():
    findings = coinrun_findings({})
    assert {finding.verdict for finding in findings} == {"undecided"}
    assert len(findings) == 12


def test_a_claim_reads_the_tables_that_it_says():
    tables = {name: pa.Table.from_pylist(rows) for name, rows in study().items()}
    for claim in _claims([10, 200]):
        read = Noted(tables)
        claim.judge(read)
        assert read.names == set(claim.reads), claim.claim


def test_what_was_found_holds_where_its_table_is_gone():
    rows = study()
    before = found(rows)
    rows["rates"][1] |= {"catastrophe_rate": 0.4, "catastrophe_low": 0.3, "catastrophe_high": 0.5}
    del rows["help"], rows["comparisons"]
    tables = {name: pa.Table.from_pylist(some) for name, some in rows.items()}
    now = {one.claim: one for one in coinrun_findings(tables, list(before.values()))}
    assert list(now) == list(before)
    assert {claim for claim in now if now[claim] != before[claim]} == {"perfect yet dangerous"}
    alone = {one.claim: one for one in coinrun_findings(tables)}
    lost = {claim for claim in alone if alone[claim] != now[claim]}
    assert lost == {
        "sigma helps",
        "sigma helps less further ahead",
        "sigma helps less with more levels",
        "near is easier",
        "alarms beat chance",
    }
    assert {alone[claim].verdict for claim in lost} == {"undecided"}
    for name in ("measure", "statement", "claim"):  # what is said of something else does not hold
        other = [one._replace(**{name: "another"}) for one in before.values()]
        assert coinrun_findings(tables, other) == list(alone.values())
    gone = without_tables(tables)
    assert {claim for claim, *_ in gone} == lost
    assert set(gone.values()) == {"help", "comparisons"}


def test_findings_are_written_as_those_of_the_grid():
    rows = study()
    del rows["help_rates"]
    findings = list(found(rows).values())
    plain = to_json(findings)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    text = to_markdown(findings)
    assert "| +30.0 pp [+27.0, +33.0] | supported |" in text
    assert "| none | undecided |" in text
    assert not re.search(r"\b(nan|None)\b", text)
