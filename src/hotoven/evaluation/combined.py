"""What several studies found together that differ by their seeds alone.

The interval of one study's finding is over its levels, and over as many ensembles as it trained: of
one it does not tell how far another may be off. Where the whole study was made again, with other
agents, each claim has an estimate from each, and these tell. The unit is the study, so nothing is
assumed of what happens inside one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, get_args

from hotoven.evaluation.bootstrap import Interval, student
from hotoven.evaluation.findings import Finding, Verdict, number_text, spread_text, unit_and_sign

SEEDS: Final = ("seed", "level_seed")  # settings of a study: its agents' and its levels'


class Combined(NamedTuple):
    """One claim, and what each study found of it."""

    found: tuple[Finding, ...]  # one per study, all of the same claim
    mean: Interval | None  # over studies, in the findings' unit; None where fewer than two have one

    @property
    def claim(self) -> str:
        """Its short name."""
        return self.found[0].claim

    @property
    def numbers(self) -> list[float]:
        """The estimates, of those studies that have one."""
        return [one.estimate for one in self.found if one.estimate is not None]


def combine(studies: Sequence[Sequence[Finding]]) -> list[Combined]:
    """Each claim with the mean of its estimates, every study weighing the same.

    The interval is Student's, of 95%, cut to what is possible: it allows for what so few studies do
    not show, and is very wide for two.

    Raises:
      ValueError: there are fewer than two studies, or they judge no claims, or other claims or
        measures.
    """
    if len(studies) < 2:
        raise ValueError(f"at least 2 studies are needed, got {len(studies)}")
    if not studies[0]:
        raise ValueError("studies must judge at least one claim")
    if any(_judged(found) != _judged(studies[0]) for found in studies):
        raise ValueError("studies must judge the same claims by the same measures")
    return [_combined(found) for found in zip(*studies, strict=True)]


def without_seeds(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A study's settings but for the seeds of its agents and its levels."""
    return {name: settings[name] for name in settings.keys() - set(SEEDS)}


def basis(settings: Sequence[Mapping[str, Any]]) -> str:
    """What intervals tell that are over studies with these settings, in a sentence.

    Raises:
      ValueError: two studies have the same seed of agents, or some have the same levels and some
        others.
    """
    agents, levels = ([one[name] for one in settings] for name in SEEDS)
    if len(set(agents)) < len(agents):
        raise ValueError(f"seeds of studies must all be different, got {agents}")
    if len(set(levels)) not in (1, len(levels)):
        raise ValueError(f"level seeds must all be different or all be the same, got {levels}")
    begin = f"Intervals are over {len(settings)} studies, each with agents"
    if len(set(levels)) > 1:
        return f"{begin} and levels of its own."
    return f"{begin} of its own, all on the same levels: they tell nothing of other levels."


def to_markdown(combined: Sequence[Combined], names: Sequence[str], told: str) -> str:
    """The claims as a table of means and verdicts, then one of what each study found.

    Args:
      combined: from `combine`.
      names: of the studies, in their order.
      told: what the intervals are over, from `basis`.
    """
    lines = [f"| claim | measure | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for one in combined:
        each = " | ".join(f"{spread_text(found)}, {found.verdict}" for found in one.found)
        lines.append(f"| {one.claim} | {one.found[0].measure} | {each} |")
    return "\n".join([summary(combined, told), "", *lines])


def summary(combined: Sequence[Combined], told: str) -> str:
    """The claims as a table: the mean over studies, the furthest apart, and the verdicts."""
    lines = ["| claim | mean [95% interval] | from, to | verdicts |", "|---|---|---|---|"]
    for one in combined:
        cells = (one.found[0].statement, _mean_text(one), _range_text(one), _verdicts(one))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", told])


def _judged(found: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(one.claim, one.measure) for one in found]


def _combined(found: tuple[Finding, ...]) -> Combined:
    numbers = Combined(found, None).numbers
    if len(numbers) < 2:
        return Combined(found, None)
    mean = student(numbers)
    _, sign = unit_and_sign(found[0])
    low = max(mean.low, -100.0 if sign else 0.0)
    return Combined(found, mean._replace(low=low, high=min(mean.high, 100.0)))


def _mean_text(one: Combined) -> str:
    if one.mean is None:
        return "none"
    estimate, low, high, number = one.mean
    text = spread_text(one.found[0]._replace(estimate=estimate, low=low, high=high))
    return text if number == len(one.found) else f"{text}, of {number} studies"


def _range_text(one: Combined) -> str:
    if not one.numbers:
        return "none"
    _, sign = unit_and_sign(one.found[0])
    return ", ".join(number_text(end, sign) for end in (min(one.numbers), max(one.numbers)))


def _verdicts(one: Combined) -> str:
    counts = {name: sum(each.verdict == name for each in one.found) for name in get_args(Verdict)}
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number)
