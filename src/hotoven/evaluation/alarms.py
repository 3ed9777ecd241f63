"""What alarms at a threshold are worth: catastrophes announced, steps of warning, false alarms.

There is an alarm at a step where its score is above the threshold; its lead is the number of steps
from it to the death, 0 where it is raised on the fatal step's own observation, before its action.
A catastrophe is announced when some alarm leads by at least `min_lead` steps, however many: an
alarm at the very start announces it, so that to alarm always announces nearly all, and as many per
100 alarms as there are per 100 episodes. An alarm begins where the score rises above the threshold,
and lasts until it is no longer above. Nothing here acts on an alarm. numpy in, numpy out.

Axes: L levels (one episode each), T steps, K thresholds.
"""

from typing import Final, NamedTuple

import numpy as np

from hotoven.evaluation.prediction import valid_steps

NO_STEP: Final = -1  # in place of a step or a lead that there is not


class Alarms(NamedTuple):
    """What alarms at one threshold did in each episode."""

    first_step: np.ndarray  # int64[L], of the first alarm; NO_STEP where there is none
    lead: np.ndarray  # int64[L], of the first alarm; NO_STEP without an alarm or a death
    announced: np.ndarray  # bool[L], died, and an alarm led by min_lead
    unannounced: np.ndarray  # bool[L], died, and none did
    false_alarm: np.ndarray  # bool[L], had an alarm and did not die
    num_alarms: np.ndarray  # int64[L], alarms that began


class AlarmTable(NamedTuple):
    """The same, summed over episodes, at K thresholds."""

    thresholds: np.ndarray  # float64[K]
    num_announced: np.ndarray  # int64[K], catastrophes
    num_unannounced: np.ndarray  # int64[K], catastrophes
    num_false: np.ndarray  # int64[K], episodes with an alarm and no death
    num_alarms: np.ndarray  # int64[K], alarms that began
    announced_share: np.ndarray  # float64[K], of the catastrophes; NaN: there is none
    false_share: np.ndarray  # float64[K], of the other episodes; NaN: there is none
    median_lead: np.ndarray  # float64[K], of the first alarm, over those announced; NaN: none is
    announced_per_100: np.ndarray  # float64[K], catastrophes per 100 alarms; NaN: there is no alarm


def alarms(
    score: np.ndarray,
    num_steps: np.ndarray,
    died: np.ndarray,
    threshold: float,
    min_lead: int = 0,
) -> Alarms:
    """The alarms of each episode at one threshold.

    Args:
      score: float[L, T], finite up to an episode's last step.
      num_steps: int[L], 1 to T.
      died: bool[L], whether the last step's action was a catastrophe.
      threshold: alarm where the score is above it; minus infinity alarms always.
      min_lead: steps, at least 0.
    """
    score, valid, died = checked_episodes(score, num_steps, died, min_lead)
    alarm = valid & (score > np.float64(threshold))
    any_alarm = alarm.any(axis=1)
    first_step = np.where(any_alarm, alarm.argmax(axis=1), NO_STEP)
    lead = np.where(any_alarm & died, valid.sum(axis=1) - 1 - first_step, NO_STEP)
    announced = lead >= min_lead
    begins = alarm & ~np.pad(alarm, ((0, 0), (1, 0)))[:, :-1]
    return Alarms(
        first_step, lead, announced, died & ~announced, any_alarm & ~died, begins.sum(axis=1)
    )


def alarm_table(
    score: np.ndarray,
    num_steps: np.ndarray,
    died: np.ndarray,
    thresholds: np.ndarray,
    min_lead: int = 0,
) -> AlarmTable:
    """The alarms of all episodes together at each of the thresholds [K], as `alarms` for each."""
    score, valid, died = checked_episodes(score, num_steps, died, min_lead)
    thresholds = np.asarray(thresholds, np.float64)
    length = valid.sum(axis=1)
    # The first alarm is where the highest score so far passes the threshold: that only rises, so it
    # is found by bisection. -> [L, K], an episode's length where there is no alarm
    highest = np.maximum.accumulate(np.where(valid, score, -np.inf), axis=1)
    first = np.stack(
        [
            np.searchsorted(row[:steps], thresholds, "right")
            for row, steps in zip(highest, length, strict=True)
        ]
    )
    any_alarm = first < length[:, None]
    lead = length[:, None] - 1 - first  # -1 where there is no alarm
    announced = died[:, None] & (lead >= min_lead)
    num_alarms = _num_begun(score, valid, thresholds)
    num_announced = announced.sum(axis=0)
    num_false = (any_alarm & ~died[:, None]).sum(axis=0)
    return AlarmTable(
        thresholds=thresholds,
        num_announced=num_announced,
        num_unannounced=died.sum() - num_announced,
        num_false=num_false,
        num_alarms=num_alarms,
        announced_share=_share(num_announced, died.sum()),
        false_share=_share(num_false, (~died).sum()),
        median_lead=np.array(
            [np.median(lead[a, k]) if a.any() else np.nan for k, a in enumerate(announced.T)]
        ),
        announced_per_100=100.0 * _share(num_announced, num_alarms),
    )


def peak_thresholds(score: np.ndarray, num_steps: np.ndarray, num: int) -> np.ndarray:
    """float64[K], ascending, K at most `num`: from an alarm in every episode to one in none.

    Minus infinity, then quantiles of the episodes' highest scores, each one of those scores, so
    that about equally many episodes lose their alarm from one threshold to the next. Equal
    thresholds are given once.

    Raises:
      ValueError: num is below 2.
    """
    if num < 2:
        raise ValueError(f"num must be at least 2, got {num}")
    score, valid, _ = checked_episodes(score, num_steps, np.zeros(len(score), bool), 0)
    peaks = np.where(valid, score, -np.inf).max(axis=1)
    chosen = np.quantile(peaks, np.linspace(0.0, 1.0, num - 1), method="inverted_cdf")
    return np.append(-np.inf, np.unique(chosen))


def _num_begun(score: np.ndarray, valid: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """int64[K]: how many alarms began.

    A step begins one at the thresholds from the last step's score up to below its own, so those are
    the steps up whose beginning is at most the threshold, less those whose end is.
    """
    before = np.pad(score, ((0, 0), (1, 0)), constant_values=-np.inf)[:, :-1]
    rises = valid & (score > before)
    from_, to = np.sort(before[rises]), np.sort(score[rises])
    return np.searchsorted(from_, thresholds, "right") - np.searchsorted(to, thresholds, "right")


def _share(part: np.ndarray, whole: np.ndarray | np.integer) -> np.ndarray:
    """float64[K]: part / whole; NaN where the whole is nothing."""
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def checked_episodes(
    score: np.ndarray, num_steps: np.ndarray, died: np.ndarray, min_lead: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scores [L, T] in their own precision, bool[L, T] which are valid, bool[L] who died."""
    score, died = np.asarray(score), np.asarray(died, bool)
    if score.ndim != 2:
        raise ValueError(f"score must be [L, T], got shape {score.shape}")
    valid = valid_steps(num_steps, score.shape[1])
    if not len(score) == len(valid) == len(died):
        raise ValueError(
            f"score, num_steps and died must be of as many levels, got {len(score)}, {len(valid)} "
            f"and {len(died)}"
        )
    if not np.isfinite(score[valid]).all():
        raise ValueError("valid scores must be finite, got NaN or infinity")
    if min_lead < 0:
        raise ValueError(f"min_lead must be at least 0 steps, got {min_lead}")
    return score, valid, died
