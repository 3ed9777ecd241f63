"""The claims of the post about CoinRun, and some beyond it, computed from a run's tables.

Source: Kenton, Filos, Evans & Gal 2019, "Poor generalization can be dangerous in RL!", from its
second half on. Every claim has a rule that turns an interval into a verdict; where the tables
cannot say, it is undecided and says what they lack. The rules are in `coinrun_behaviour_claims`,
`coinrun_knowing_claims` and `coinrun_help_claims`; here the claims are put in order. What findings
are and how they are written down is in `findings`.

Rates and AUC inside are from 0 to 1; a finding states them in % or percentage points (an AUC is the
% of pairs, of a step before a catastrophe and another, that are in order). Intervals are of 95%
each and not adjusted for the number of claims; within a claim about many promises they are.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from hotoven.evaluation.coinrun_behaviour_claims import (
    judge_averaging,
    judge_dangerous,
    judge_incoherence,
)
from hotoven.evaluation.coinrun_help_claims import REQUESTS, judge_alarms, judge_help
from hotoven.evaluation.coinrun_knowing_claims import (
    FIRST,
    LATER,
    judge_best,
    judge_gain,
    judge_gain_by_size,
    judge_gain_by_window,
    judge_promise_breaks,
    judge_promise_holds,
    judge_sure_promise_holds,
    judge_window,
)
from hotoven.evaluation.coinrun_rows import Missing, Tables, all_sizes, lacking
from hotoven.evaluation.coinrun_verdicts import Judged
from hotoven.evaluation.findings import Finding


class _Claim(NamedTuple):
    """A claim before it meets any table."""

    claim: str
    statement: str
    measure: str
    judge: Callable[[Tables], Judged]
    reads: tuple[str, ...]  # the tables


def coinrun_findings(tables: Tables, before: Sequence[Finding] = ()) -> list[Finding]:
    """What a run's tables say about each claim, in the order of the post.

    See `outcomes` and `knowing` for the tables' columns. A claim is undecided, with no estimate,
    where a table, or the row it needs, is not there; but of a run that no longer has a table,
    what was found `before`, when it was there, still holds.
    """
    then = {key_of(one): one for one in before}
    return [
        then[key_of(claim)]
        if key_of(claim) in then and lacking(tables, claim.reads)
        else _finding(claim, tables)
        for claim in _claims(_sizes(tables))
    ]


def without_tables(tables: Tables) -> dict[tuple[str, str, str], str]:
    """The claims, statements and measures that rest on a table that is not there, and on which."""
    absent = {key_of(claim): lacking(tables, claim.reads) for claim in _claims(_sizes(tables))}
    return {key: names[0] for key, names in absent.items() if names}


def key_of(one: _Claim | Finding) -> tuple[str, str, str]:
    """What makes two findings ones of the same claim: its name, its words and its measure."""
    return one.claim, one.statement, one.measure


def _sizes(tables: Tables) -> list[int]:
    try:
        return all_sizes(tables)
    except Missing:
        return []


def _claims(sizes: Sequence[int]) -> Iterator[_Claim]:
    yield _Claim(
        "perfect yet dangerous",
        "Agents perfect on few training levels are dangerous on unseen ones.",
        "levels that ended in catastrophe, unseen minus training levels, single, smallest number "
        "of training levels, percentage points",
        judge_dangerous,
        ("rates", "episodes"),
    )
    for size in sizes:
        yield _Claim(
            f"averaging is no safer with {size} training levels",
            "Acting by the mean of an ensemble does not significantly reduce catastrophes, "
            f"{size} training levels.",
            f"catastrophes on unseen levels, mean minus single, {size} training levels, "
            "percentage points",
            lambda tables, size=size: judge_averaging(tables, size),  # type: ignore[misc]
            ("differences", "episodes"),
        )
    yield _Claim(
        "sigma helps",
        f"At the smallest number of training levels and a window of {FIRST}, adding the standard "
        "deviation tells danger better than the mean value alone.",
        f"AUC, mean and std minus mean, window {FIRST}, acting by the mean, smallest number of "
        "training levels, percentage points",
        judge_gain,
        ("rates", "comparisons"),
    )
    yield _Claim(
        "sigma helps less further ahead",
        f"The standard deviation helps less at a window of {LATER} than at {FIRST}.",
        f"gain of AUC by the standard deviation, window {FIRST} minus {LATER}, acting by the mean, "
        "smallest number of training levels, percentage points",
        judge_gain_by_window,
        ("rates", "comparisons"),
    )
    yield _Claim(
        "sigma helps less with more levels",
        "The standard deviation helps less with more training levels.",
        "gain of AUC by the standard deviation, smallest minus larger number of training levels, "
        f"window {FIRST}, acting by the mean, percentage points",
        judge_gain_by_size,
        ("rates", "comparisons"),
    )
    yield _Claim(
        "near is easier",
        f"A catastrophe is easier to predict {FIRST} step ahead than within {LATER} steps.",
        f"AUC, window {FIRST} minus {LATER}, mean and std, acting by the mean, smallest number of "
        "training levels, percentage points",
        judge_window,
        ("rates", "comparisons"),
    )
    yield _Claim(
        "values tell most",
        "The mean and the standard deviation of the values tell danger better than what else the "
        "members and a classifier say.",
        f"AUC, mean and std minus the best other score, window {FIRST}, acting by the mean, "
        "smallest number of training levels, percentage points",
        judge_best,
        ("rates", "predictions"),
    )
    yield _Claim(
        "incoherence explains it",
        "Averaging fails to reduce catastrophes because it makes behaviour incoherent over time.",
        "catastrophes on unseen levels, mean_hysteresis minus mean, smallest number of training "
        "levels, percentage points",
        judge_incoherence,
        ("rates", "episodes", "coherence", "differences"),
    )
    yield _Claim(
        "the promise holds",
        "On unseen levels of the same kind no more catastrophes come unannounced than the "
        "conformal threshold promises.",
        "catastrophes left unannounced, measured minus promised, where it is worst, test levels, "
        "percentage points",
        judge_promise_holds,
        ("promises",),
    )
    yield _Claim(
        "the sure promise holds",
        "On unseen levels of the same kind no more catastrophes come unannounced than the tested "
        "threshold (learn then test) promises.",
        "catastrophes left unannounced, measured minus promised, where it is worst, test levels, "
        "percentage points",
        judge_sure_promise_holds,
        ("promises",),
    )
    yield _Claim(
        "the promise breaks elsewhere",
        "On levels of the other mode, of which nothing is promised, more catastrophes come "
        "unannounced than the same threshold promises.",
        "catastrophes left unannounced, measured minus promised, where it is surest, levels of the "
        "other mode, percentage points",
        judge_promise_breaks,
        ("promises",),
    )
    yield _Claim(
        "help helps",
        "A planner that takes over at an alarm avoids catastrophes.",
        "unseen levels on which a catastrophe was avoided by the planner, about "
        f"{REQUESTS:g} request per episode, smallest number of training levels, percentage points",
        judge_help,
        ("rates", "help_rates"),
    )
    yield _Claim(
        "alarms beat chance",
        "A planner that takes over at alarms avoids more catastrophes than one that takes over as "
        "often at random.",
        "unseen levels on which a catastrophe was avoided, planner at alarms minus planner at "
        f"random, about {REQUESTS:g} request per episode, smallest number of training levels, "
        "percentage points",
        judge_alarms,
        ("rates", "help_rates", "help"),
    )


def _finding(claim: _Claim, tables: Tables) -> Finding:
    """The finding, its interval turned from shares into percentage points."""
    try:
        judged = claim.judge(tables)
    except Missing as absence:
        rule = f"Undecided: {absence}."
        return Finding(*claim[:3], None, None, None, "undecided", rule)
    interval, verdict, rule, details, note = judged
    points = (100 * interval.estimate, 100 * interval.low, 100 * interval.high)
    basis = interval.num_replications
    return Finding(*claim[:3], *points, verdict, rule, details, note, basis)
