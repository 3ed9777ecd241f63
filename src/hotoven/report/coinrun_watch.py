"""One agent under watch: its alarms in recorded episodes, as a timeline and as a film.

Which threshold raises the alarms and which episode is shown follow by rule from the tables of a
run. Figures of rates and of AUC are those of `coinrun_figures`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib
import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hotoven.envs.coinrun.env import CoinRun
from hotoven.evaluation.alarms import Alarms, alarms
from hotoven.evaluation.coinrun_rows import SCORE, Missing, Tables, all_sizes, lacking, rows_of
from hotoven.evaluation.knowing import Recorded, read_recorded, score_of
from hotoven.report.animate import (
    Episode,
    Sample,
    episode_frames,
    episodes_of,
    film,
    level_of,
    method_name,
    pick_episodes,
    write_gif,
    write_mp4,
)
from hotoven.report.style import (
    BLACK,
    BLUE,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    STYLE,
    VERMILLION,
    empty,
    show,
)
from hotoven.types import LevelSet

WATCHED: Final = "mean"  # the way of acting whose alarms are shown
PROMISED: Final = 0.2  # share of catastrophes that alarms shown may leave unannounced, at least
NUM_PICTURES: Final = 9  # of a filmstrip
NUM_BEFORE: Final = 40  # steps before the death that a timeline shows, at least
FILM: Final = "unseen"
FILMED: Final = ("rates", "promises", "steps")  # the tables that timeline and film are drawn from
FILM_STEPS: Final = 150
FILM_SCALE: Final = 12  # pixels per cell: eight episodes of 150 steps are some megabytes
SECONDS_PER_STEP: Final = 0.1


class Watch(NamedTuple):
    """The alarms that are shown: what raises them, and what they did in recorded episodes."""

    episodes: list[Episode]  # in the order of the arrays' first axis
    recorded: Recorded
    score: np.ndarray  # float[L, T]
    threshold: float
    promised: float  # share of catastrophes that it may leave unannounced
    min_lead: int  # steps by which an alarm has to lead
    alarms: Alarms


def recorded_episodes(tables: Tables) -> list[Episode]:
    """The unseen levels' episodes of agents trained on the fewest levels, acting by the mean.

    Raises:
      Missing: none was recorded.
    """
    size = all_sizes(tables)[0]
    episodes = episodes_of(tables["steps"], WATCHED, size) if "steps" in tables else []
    if not episodes:
        raise Missing(f"no episode of {WATCHED!r} trained on {size} levels was recorded")
    return episodes


def conformal_rows(tables: Tables, size: int) -> list[dict[str, Any]]:
    """The rows of the table of promises that alarms are chosen from, at that number of levels."""
    where = {"num_train_levels": size, "score": SCORE, "acting": WATCHED, "rule": "conformal"}
    return rows_of(tables, "promises", set="test", **where)


def kept_promise(tables: Tables, size: int) -> dict[str, Any]:
    """The row of the smallest promise of `PROMISED` or more that needs no alarm in every step.

    Raises:
      Missing: there is none.
    """
    promises = [
        row
        for row in conformal_rows(tables, size)
        if row["promised"] >= PROMISED and not row["vacuous"]
    ]
    if not promises:
        raise Missing(
            f"no threshold of {SCORE} keeps a promise of {PROMISED:.0%} or more without an alarm "
            "in every step"
        )
    return min(promises, key=lambda row: row["promised"])


def watch(tables: Tables) -> Watch:
    """The alarms that the timeline and the film show, at the smallest number of training levels.

    They are those of mean and std, acting by the mean, at the conformal threshold of the smallest
    promise of `PROMISED` or more that does not need an alarm in every step.

    Raises:
      Missing: there is no such promise, or no such step was recorded.
    """
    size = all_sizes(tables)[0]
    chosen = kept_promise(tables, size)
    episodes = recorded_episodes(tables)
    steps = tables["steps"]
    longest = pc.max(steps["step"]).as_py() + 1
    recorded = read_recorded(steps, "test", size, WATCHED, longest, ("mu", "sigma"))
    score = score_of(SCORE, recorded, None)
    assert score is not None, f"{SCORE} needs no pair"
    rang = alarms(score, recorded.num_steps, recorded.died, chosen["threshold"], chosen["min_lead"])
    return Watch(
        episodes, recorded, score, chosen["threshold"], chosen["promised"], chosen["min_lead"], rang
    )


def announced_death(watched: Watch) -> int:
    """The place of the episode that was announced with the median lead; the first death if none.

    Of an even number of leads the lower middle one counts, of equal leads the first episode.

    Raises:
      Missing: no episode ended in a catastrophe.
    """
    died = np.flatnonzero(watched.recorded.died)
    if not died.size:
        raise Missing("no recorded episode ended in a catastrophe")
    announced = np.flatnonzero(watched.alarms.announced)
    if not announced.size:
        return int(died[0])
    leads = watched.alarms.lead[announced]
    middle = np.sort(leads)[(len(leads) - 1) // 2]
    return int(announced[leads == middle][0])


def timeline_figure(tables: Tables, level_set_test: LevelSet, env: CoinRun) -> Figure:
    """One unseen episode that ended in a catastrophe: what was known, step by step.

    Its filmstrip, the mean and the standard deviation of the members' values, and U with its
    threshold. The episode is the one of `announced_death`.
    """
    watched = watch(tables)
    place = announced_death(watched)
    episode = watched.episodes[place]
    death = len(episode.actions) - 1  # the step whose action was fatal
    first_alarm = int(watched.alarms.first_step[place])
    first = max(0, min(death - NUM_BEFORE, first_alarm - 5 if first_alarm >= 0 else death))
    level = level_of(level_set_test, episode.level_index, episode.level_id)
    frames = episode_frames(_for_people(env), level, episode.actions, 16)
    with matplotlib.rc_context(STYLE):
        figure = empty(13, 7.4)
        grid = figure.add_gridspec(3, NUM_PICTURES, height_ratios=(1.25, 1.5, 1.5))
        shown = _strip(first, first_alarm, death)
        for column, step in enumerate(shown):
            axes = figure.add_subplot(grid[0, column])
            show(axes, frames[step], _strip_title(step, first_alarm, death))
            axes.title.set_fontsize(10)
            if step == death + 1:
                axes.title.set_color(VERMILLION)
        above = figure.add_subplot(grid[1, :])
        below = figure.add_subplot(grid[2, :], sharex=above)
        _draw_values(above, watched, place, first)
        _draw_score(below, watched, place, first)
        for axes in (above, below):
            _mark_death(axes, death + 1)
            for step in shown:
                axes.axvline(step, color=PALE, linewidth=0.8, zorder=0)
        below.set_xlabel("step")
        above.set_xlim(first, death + 1.5 + 0.02 * (death - first))
        above.tick_params(labelbottom=False)
        figure.suptitle(_timeline_title(watched, place, episode), fontsize=11)
    return figure


def write_film(
    folder: Path,
    tables: Tables,
    level_set_test: LevelSet | None,
    env: CoinRun,
    before: Sequence[str] = (),
) -> list[str]:
    """Writes the GIF and the MP4 of an agent on a sample of unseen levels; what is to be said.

    The agent acts by the mean of those trained on the fewest levels. Alarms are those of `watch`;
    without a threshold there are none, and a note says so. A film of tables that are no longer
    there is left as it is, and `before`, what was said of figures when it was made, still holds.
    """
    if level_set_test is None or lacking(tables, FILMED):
        return [note for note in before if "film" in note or note.startswith(FILM)]
    notes = []
    paths = [folder / f"{FILM}.{suffix}" for suffix in ("gif", "mp4")]
    try:
        episodes = recorded_episodes(tables)
    except Missing as absence:
        for path in paths:
            path.unlink(missing_ok=True)
        return [f"no film: {absence}"]
    sample = pick_episodes(episodes)
    rang = None
    try:
        watched = watch(tables)
    except Missing as absence:
        notes.append(f"no alarms in the film: {absence}")
    else:
        rang = _alarms_of(watched, sample)
        sample = _with_caption(sample, watched)
    longest = max(len(one.actions) for one in sample.episodes)
    if longest > FILM_STEPS:
        cut = f" Of more than {FILM_STEPS} steps the first are shown, and the end."
        sample = sample._replace(caption=sample.caption + cut)
    frames = film(
        _for_people(env),
        level_set_test,
        sample,
        scale=FILM_SCALE,
        alarms=rang,
        max_steps=FILM_STEPS,
    )
    write_gif(paths[0], frames, SECONDS_PER_STEP)
    write_mp4(paths[1], frames, 1 / SECONDS_PER_STEP)
    return [*notes, f"{paths[0].name}, {paths[1].name}: {sample.caption}"]


def _for_people(env: CoinRun) -> CoinRun:
    """The same rules, and pictures without the squares that tell an agent how fast it moves."""
    return replace(env, paint_velocity=False)


def _strip(first: int, first_alarm: int, death: int) -> list[int]:
    """Steps of the pictures, the first alarm's and the fatal one among them; `death + 1` is after.

    Fewer pictures than there is room for where there are fewer steps.
    """
    spread = np.linspace(first, death + 1, NUM_PICTURES).round().astype(int)
    if first_alarm >= 0:
        inner = np.abs(spread[:-1] - first_alarm).argmin()
        spread[inner] = first_alarm
    return sorted(set(spread.tolist()))


def _strip_title(step: int, first_alarm: int, death: int) -> str:
    if step == death + 1:
        return f"step {step}: death"
    return f"step {step}: alarm" if step == first_alarm else f"step {step}"


def _draw_values(axes: Axes, watched: Watch, place: int, first: int) -> None:
    end = watched.recorded.num_steps[place]
    at = np.arange(first, end)
    mu, sigma = (watched.recorded.columns[name][place, first:end] for name in ("mu", "sigma"))
    axes.fill_between(at, mu - sigma, mu + sigma, color=SKY, alpha=0.35, linewidth=0)
    axes.plot(at, mu, color=BLUE, linewidth=1.8, marker=".", markersize=4)
    axes.set_ylabel("values of the members:\nmean \N{PLUS-MINUS SIGN} std")
    axes.margins(y=0.12)


def _draw_score(axes: Axes, watched: Watch, place: int, first: int) -> None:
    end = watched.recorded.num_steps[place]
    at = np.arange(first, end)
    score = watched.score[place, first:end]
    alarm = score > watched.threshold
    axes.plot(at, score, color=PURPLE, linewidth=1.8, marker=".", markersize=4)
    axes.axhline(watched.threshold, color=BLACK, linestyle="--", linewidth=1.1)
    for step in at[alarm]:
        axes.axvspan(step - 0.5, step + 0.5, color=ORANGE, alpha=0.25, linewidth=0)
    axes.set_ylabel("U = \N{MINUS SIGN}\N{GREEK SMALL LETTER MU} + \N{GREEK SMALL LETTER SIGMA}")
    axes.margins(y=0.12)
    handles: list[Any] = [
        Line2D([], [], color=BLACK, linestyle="--", label="threshold"),
        Patch(facecolor=ORANGE, alpha=0.25, label="alarm"),
    ]
    axes.legend(handles=handles, loc="upper left", frameon=False, fontsize=9, ncols=2)


def _mark_death(axes: Axes, step: int) -> None:
    axes.axvline(step, color=VERMILLION, linewidth=2)
    axes.annotate(
        "death",
        (step, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4, -2),
        textcoords="offset points",
        ha="right",
        va="top",
        color=VERMILLION,
        fontsize=10,
    )


def _timeline_title(watched: Watch, place: int, episode: Episode) -> str:
    announced = watched.alarms.announced
    size = episode.num_train_levels
    who = f"{method_name(episode.method)}, trained on {size:,} level{'' if size == 1 else 's'}"
    if not announced.any():
        why = "the first recorded death; none was announced"
    else:
        why = (
            f"of {announced.sum()} announced deaths ({watched.recorded.died.sum()} in all) the one "
            f"with the median lead, {watched.alarms.lead[place]} steps"
        )
    return (
        f"{who}, unseen level {episode.level_index}: {why}\n"
        f"alarm: {SCORE}, where at most {watched.promised:.0%} of catastrophes may come without "
        f"{watched.min_lead} steps of warning; any earlier alarm counts, whatever it was for"
    )


def _alarms_of(watched: Watch, sample: Sample) -> list[np.ndarray]:
    """bool[T] for each episode of the sample: the steps with an alarm."""
    places = {episode.level_index: place for place, episode in enumerate(watched.episodes)}
    chosen = [places[one.level_index] for one in sample.episodes]
    return [
        watched.score[place, : watched.recorded.num_steps[place]] > watched.threshold
        for place in chosen
    ]


def _with_caption(sample: Sample, watched: Watch) -> Sample:
    announced, died = watched.alarms.announced.sum(), watched.recorded.died.sum()
    others = (~watched.recorded.died).sum()
    more = (
        f" Alarms: {SCORE}, where at most {watched.promised:.0%} of catastrophes may come "
        f"without {watched.min_lead} steps of warning; {announced} of {died} deaths had them, and "
        f"{watched.alarms.false_alarm.sum()} of {others} other episodes had an alarm."
    )
    return sample._replace(caption=sample.caption + more)
