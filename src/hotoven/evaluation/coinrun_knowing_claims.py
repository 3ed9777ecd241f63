"""The claims about knowing in time that a catastrophe on CoinRun comes.

What the standard deviation adds to AUC, near and further ahead, with few levels and with more;
whether what is near is easier to predict; whether another score is better; whether promises hold on
levels of the same kind, and break on others. Source of all but the last four: Kenton, Filos, Evans
& Gal 2019, "Poor generalization can be dangerous in RL!", its second half. AUC are compared, and
promises measured, in `knowing`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from hotoven.evaluation.bootstrap import CONFIDENCE, Interval, wilson
from hotoven.evaluation.coinrun_rows import (
    SCORE,
    Missing,
    Tables,
    all_sizes,
    compared_sizes,
    interval_of,
    rate_of,
    row_of,
    rows_of,
)
from hotoven.evaluation.coinrun_verdicts import ABOVE, SOLVED, Judged, detail, unpaired_difference
from hotoven.evaluation.findings import Detail, Verdict, above

FIRST, LATER = 1, 10  # windows that are compared, steps
RIVALS: Final = ("std", "entropy", "margin", "disagreement", "blocker", "head")
ROOM: Final = 0.10  # more than promised by so much: surely less has to be shown
_LEFT_OUT: Final = "Promises that can only be kept by an alarm in every step are left out."
_EXCESS: Final = (
    "The intervals allow for the levels that thresholds were chosen on and for those that they "
    f"were measured on, and hold together with 95%. {_LEFT_OUT}"
)
_SURELY: Final = (
    "Such a threshold promises of itself, not on average: the intervals are of what was measured "
    "alone, and hold together with 95%. With the probability delta a calibration breaks its "
    f"promise. {_LEFT_OUT}"
)
_PROMISE: Final = ("promised", "num_calibration", "share", "num_catastrophes")
_SET_WORDS: Final = {"test": "test levels", "shifted": "levels of the other mode"}


def judge_gain(tables: Tables) -> Judged:
    """Whether the standard deviation adds to the AUC of the mean value."""
    size = all_sizes(tables)[0]
    where = {"comparison": "gain", "num_train_levels": size, "acting": "mean", "window": FIRST}
    interval = _compared(row_of(tables, "comparisons", **where, score=SCORE))
    details = _auc_details(tables, "AUC: {score} minus mean, window {window}", **where)
    precision = {**where, "comparison": "gain of precision"}
    details += _auc_details(
        tables, "average precision: {score} minus mean, window {window}", **precision
    )
    return Judged(interval, above(interval, 0.0), ABOVE, details, _of_precision(tables, precision))


def _of_precision(tables: Tables, where: Mapping[str, Any]) -> str:
    """What the standard deviation does to average precision, in a sentence; empty: not known."""
    rows = rows_of(tables, "comparisons", **where, score=SCORE)
    if not rows:
        return ""
    gain = _compared(rows[0])
    does = "may rise or fall"
    if gain.low > 0 or gain.high < 0:
        does = "rises" if gain.low > 0 else "falls"
    return (
        "This is of AUC, in which every pair of steps counts the same. Average precision, in which "
        f"only those count that an alarm would be raised for, {does}."
    )


def judge_gain_by_window(tables: Tables) -> Judged:
    """Whether the standard deviation adds less at the later window than at the first."""
    size = all_sizes(tables)[0]
    where = {"num_train_levels": size, "acting": "mean"}
    by_window = {"comparison": "gain by window", "window": FIRST, "other_window": LATER, **where}
    interval = _compared(row_of(tables, "comparisons", **by_window, score=SCORE))
    gains = _auc_details(
        tables, "AUC: {score} minus mean, window {window}", comparison="gain", **where
    )
    details = _auc_details(
        tables, "gain by {score}, window {window} minus {other_window}", **by_window
    )
    precision, note = _precision_gains(tables, [(size, FIRST), (size, LATER)])
    return Judged(interval, above(interval, 0.0), ABOVE, details + gains + precision, note)


def _precision_gains(
    tables: Tables, places: Sequence[tuple[int, int]]
) -> tuple[tuple[Detail, ...], str]:
    """What the standard deviation adds to average precision at a size and window, and at another.

    A claim about AUC need not hold of it: the sentence says what both gains are.
    """
    details = []
    for size, window in places:
        where = {"num_train_levels": size, "acting": "mean", "window": window, "score": SCORE}
        rows = rows_of(tables, "comparisons", comparison="gain of precision", **where)
        if not rows:
            return (), ""
        measure = f"average precision: {SCORE} minus mean, window {window}, percentage points"
        details.append(detail(size, measure, _compared(rows[0])))
    first, other = details
    note = (
        f"This is of AUC. Average precision gains {first.estimate:+.1f} points in the first case "
        f"and {other.estimate:+.1f} in the second."
    )
    return tuple(details), note


def judge_gain_by_size(tables: Tables) -> Judged:
    """Whether the standard deviation adds less with more training levels."""
    size, other = _two_sizes(tables)
    by_size = {"comparison": "gain by size", "num_train_levels": size, "acting": "mean"}
    decisive = {"other_num_train_levels": other, "window": FIRST, "score": SCORE}
    interval = _compared(row_of(tables, "comparisons", **by_size, **decisive))
    details = _auc_details(
        tables,
        "gain by {score}, minus that with {other_num_train_levels} training levels, "
        "window {window}",
        **by_size,
    )
    precision, note = _precision_gains(tables, [(size, FIRST), (other, FIRST)])
    rule = (
        f"{ABOVE} Undecided, too, where single agents of either number solve less than "
        f"{SOLVED:.0%} of their training levels: then they differ in more than that number."
    )
    caveat = _trained_less(tables, size, other)
    verdict = "undecided" if caveat else above(interval, 0.0)
    note = " ".join(said for said in (note, caveat) if said)
    return Judged(interval, verdict, rule, details + precision, note)


def _trained_less(tables: Tables, size: int, other: int) -> str:
    """A caveat where the agents of the two sizes are not trained alike; empty where they are."""
    try:
        solved = [
            rate_of(
                row_of(tables, "rates", set="train", num_train_levels=one, method="single"),
                "solved",
            )
            for one in (size, other)
        ]
    except Missing:
        return ""
    if all(rate.estimate >= SOLVED for rate in solved):
        return ""
    return (
        f"Single agents solve {solved[0].estimate:.1%} of their {size} training levels and "
        f"{solved[1].estimate:.1%} of {other}: what differs may be how far they were trained, and "
        "not the number of levels."
    )


def judge_window(tables: Tables) -> Judged:
    """Whether AUC is higher at the first window than at the later one."""
    size = all_sizes(tables)[0]
    where = {"comparison": "window", "window": FIRST, "other_window": LATER}
    interval = _compared(
        row_of(tables, "comparisons", **where, num_train_levels=size, acting="mean", score=SCORE)
    )
    details = _auc_details(
        tables, "AUC of {score}, acting by {acting}, window {window} minus {other_window}", **where
    )
    return Judged(interval, above(interval, 0.0), ABOVE, details)


def judge_best(tables: Tables) -> Judged:
    """Whether U is better than every score that is not made of mean and standard deviation."""
    size = all_sizes(tables)[0]
    known = {window: _areas(tables, size, window) for window in (FIRST, LATER)}
    best, others = {}, []
    for window, areas in known.items():
        for name, area in areas.items():
            others.append(detail(size, f"AUC of {name}, window {window}, %", area))
        rivals = [(areas[name].estimate, name) for name in RIVALS if name in areas]
        if SCORE not in areas or not rivals:
            raise Missing(f"there is no AUC of {SCORE} and of another score, window {window}")
        best[window] = max(rivals)[1]
    ahead = unpaired_difference(known[FIRST][SCORE], known[FIRST][best[FIRST]])
    rule = (
        f"{ABOVE} The best of the others is the one with the highest AUC here. Made of two "
        "intervals, so wider than a paired one."
    )
    note = (
        f"The best of {', '.join(RIVALS)} is {best[FIRST]} at a window of {FIRST} and "
        f"{best[LATER]} at {LATER}."
    )
    turned = [
        f"{name} with {one} training levels"
        for one in all_sizes(tables)
        for name, area in _areas(tables, one, FIRST).items()
        if area.high < 0.5 and name in RIVALS
    ]
    if turned:
        note += (
            f" Lower in danger than elsewhere, window {FIRST}: {', '.join(turned)}; there agents "
            "are surer just before they die."
        )
    return Judged(ahead, above(ahead, 0.0), rule, tuple(others), note)


def _areas(tables: Tables, size: int, window: int) -> dict[str, Interval]:
    """The AUC of every score at a window, acting by the mean."""
    rows = rows_of(tables, "predictions", num_train_levels=size, acting="mean", window=window)
    return {row["score"]: interval_of(row, ("auc", "auc_low", "auc_high")) for row in rows}


def _two_sizes(tables: Tables) -> tuple[int, int]:
    compared = compared_sizes(all_sizes(tables))
    if len(compared) < 2:
        raise Missing("at least 2 numbers of training levels are needed, there is 1")
    return compared[0], compared[1]


def _auc_details(tables: Tables, measure: str, **where: Any) -> tuple[Detail, ...]:
    """Every comparison of that kind, at every number of training levels where none is named."""
    return tuple(
        detail(
            row["num_train_levels"], f"{measure.format(**row)}, percentage points", _compared(row)
        )
        for row in rows_of(tables, "comparisons", **where)
    )


def _compared(row: Mapping[str, Any]) -> Interval:
    return interval_of(row, ("difference", "low", "high"))


class _Excesses(NamedTuple):
    """Measured minus promised for each promise; what was measured; and what it rests on.

    The intervals hold together with 95%, those of what was measured each.
    """

    intervals: list[Interval]
    details: tuple[Detail, ...]
    note: str


def judge_promise_holds(tables: Tables) -> Judged:
    """Whether every conformal promise is kept on unseen levels of the same kind."""
    return _judge_kept(_excesses(tables, "test"), _EXCESS)


def judge_sure_promise_holds(tables: Tables) -> Judged:
    """The same of thresholds that were tested, learn then test."""
    return _judge_kept(_excesses(tables, "test", "tested"), _SURELY)


def _judge_kept(told: _Excesses, words: str) -> Judged:
    worst = max(told.intervals, key=lambda interval: interval.estimate)
    rule = (
        "Not supported if at some number of training levels and promised share the interval is "
        f"wholly above 0; else supported if every one excludes an excess of {100 * ROOM:g} "
        f"percentage points, otherwise undecided. {words}"
    )
    verdict: Verdict = "undecided"
    if any(interval.low > 0 for interval in told.intervals):
        verdict = "not supported"
    elif all(interval.high < ROOM for interval in told.intervals):
        verdict = "supported"
    return Judged(worst, verdict, rule, told.details, told.note)


def judge_promise_breaks(tables: Tables) -> Judged:
    """Whether some promise is broken on levels of the other mode."""
    told = _excesses(tables, "shifted")
    worst = max(told.intervals, key=lambda interval: interval.low)
    rule = (
        "Supported if at some number of training levels and promised share the interval is wholly "
        f"above 0, not supported if none reaches above it, otherwise undecided. {_EXCESS}"
    )
    verdict: Verdict = "undecided"
    if worst.low > 0:
        verdict = "supported"
    elif all(interval.high <= 0 for interval in told.intervals):
        verdict = "not supported"
    return Judged(worst, verdict, rule, told.details, told.note)


def _excesses(tables: Tables, set: str, rule: str = "conformal") -> _Excesses:
    """Of the thresholds that were chosen by that rule, on one set of levels."""
    rows = rows_of(tables, "promises", set=set, rule=rule, score=SCORE)
    if not rows:
        raise Missing(f"no catastrophe on {_SET_WORDS[set]} had a {rule} threshold")
    kept = [row for row in rows if not row["vacuous"]]
    if not kept:
        raise Missing("every promise can only be kept by an alarm in every step")
    excess = [
        promise_excess(**{n: row[n] for n in _PROMISE}, looks=len(kept), sure=rule == "tested")
        for row in kept
    ]
    details = tuple(
        detail(
            row["num_train_levels"],
            f"{_SET_WORDS[set]}: unannounced where at most {row['promised']:.0%} is promised, %",
            interval_of(row, ("share", "low", "high")),
        )
        for row in kept
    )
    note = (
        f"{len(kept)} of {len(rows)} promises can be kept without an alarm in every step; measured "
        f"on {_range(row['num_catastrophes'] for row in kept)} catastrophes each, with thresholds "
        f"chosen on {_range(row['num_calibration'] for row in kept)}."
    )
    return _Excesses(excess, details, note)


def promise_excess(
    promised: float,
    num_calibration: int,
    share: float,
    num_catastrophes: int,
    looks: int = 1,
    sure: bool = False,
) -> Interval:
    """The share measured minus the share promised.

    A conformal promise is kept on average over calibrations: the threshold of one leaves more or
    less than promised unannounced. So what is promised has an interval too, that of the share in
    the calibration.

    Args:
      promised: at most this share is to come unannounced.
      num_calibration: catastrophes that the threshold was chosen on.
      share: unannounced of the num_catastrophes that it was measured on.
      looks: intervals that are to hold together with 95%.
      sure: the threshold promises of itself, so that what is promised has no interval.
    """
    confidence = 1 - (1 - CONFIDENCE) / looks
    # as `promise.conformal_threshold` allows; a hair more than it may have rounded off
    allowed = max(0, math.floor(promised * (num_calibration + 1) + 1e-9) - 1)
    low, high = wilson(allowed, num_calibration, confidence)
    low, high = (promised, promised) if sure else (min(low, promised), max(high, promised))
    expected = Interval(promised, low, high, num_replications=1)
    seen = wilson(round(share * num_catastrophes), num_catastrophes, confidence)
    return unpaired_difference(Interval(share, *seen, num_replications=1), expected)


def _range(numbers: Iterable[int]) -> str:
    """The smallest and the largest of some numbers: "10 to 14", or "10"."""
    ordered = sorted(numbers)
    return " to ".join(map(str, dict.fromkeys((ordered[0], ordered[-1]))))
