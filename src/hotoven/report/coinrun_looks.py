"""What colour, marker and line stand for what in CoinRun's figures, and where a legend is.

Ways of acting, scores, causes, helpers and rules look the same in every figure. What the grid's
figures share with these is in `style`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hotoven.evaluation.knowing import SCORES
from hotoven.report.style import BLACK, BLUE, DASHES, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION

# Ways of acting in the order of reports; what keeps to a choice is as what does not, but dashed.
ACTING_LOOKS: Final = {  # -> colour, marker, whether a choice is kept
    "single": (VERMILLION, "o", False),
    "random_step": (GREEN, "^", False),
    "random_hold": (GREEN, "v", True),
    "random_episode": (ORANGE, "o", True),
    "mean": (BLUE, "s", False),
    "mean_logits": (SKY, "P", False),
    "vote": (PURPLE, "D", False),
    "mean_hysteresis": (BLUE, "s", True),
}
# Scores that are told apart by colour; the others are thin and grey.
SCORE_LOOKS: Final = {
    "mean": (BLUE, "s"),
    "mean and std": (PURPLE, "o"),
    "best pair": (VERMILLION, "^"),
    "head": (GREEN, "D"),
    "blocker": (ORANGE, "v"),
}
THIN_LINES: Final = ("-", "--", "-.", ":")
BOUNDS: Final = ("random", "oracle")  # scores that no score should miss, or can pass
CURVES: Final = {  # acting, score -> colour, line: the post's four
    ("random_step", "mean"): (SKY, DASHES),
    ("random_step", "mean and std"): (ORANGE, DASHES),
    ("mean", "mean"): (BLUE, "-"),
    ("mean", "mean and std"): (PURPLE, "-"),
}
CAUSE_LOOKS: Final = {  # -> colour, hatch
    "lava": (VERMILLION, ""),
    "saw": (SKY, "///"),
    "monster": (PURPLE, "..."),
}
OTHER_CAUSE: Final = (GREY, "xx")
HELPER_LOOKS: Final = {
    "planner": (GREEN, "o"),
    "stand_still": (ORANGE, "s"),
    "retreat": (PURPLE, "^"),
    "stumble": (BLUE, "D"),
    "planner_at_random": (GREY, "v"),
}
RULE_LOOKS: Final = {"conformal": (BLUE, "o"), "tested": (ORANGE, "s")}
SIZE_MARKERS: Final = ("o", "s", "D", "^", "v", "P")
LEAST_WIDTH: Final = 9.6  # inches in which legends and titles fit, where there is one panel


def acting_look(method: str) -> dict[str, Any]:
    """A way of acting's line and marker; hollow and dashed where a choice is kept."""
    colour, marker, kept = ACTING_LOOKS.get(method, (BLACK, "*", False))
    return {
        "color": colour,
        "marker": marker,
        "linestyle": DASHES if kept else "-",
        "markerfacecolor": "white" if kept else colour,
        "markersize": 5.5,
        "linewidth": 1.5,
    }


def helper_look(helper: str) -> dict[str, Any]:
    """A helper's line and marker."""
    colour, marker = HELPER_LOOKS.get(helper, (BLACK, "v"))
    return {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.6}


def score_look(score: str, markersize: float) -> dict[str, Any]:
    """A score in colour is thick and has a marker; the others are thin, the bounds black."""
    if score in SCORE_LOOKS:
        colour, marker = SCORE_LOOKS[score]
        return {
            "color": colour, "marker": marker, "markersize": markersize, "linewidth": 1.8,
            "zorder": 3, "label": score,
        }  # fmt: skip
    if score in BOUNDS:
        dashes = ":" if score == "random" else "-."
        return {"color": BLACK, "linewidth": 1, "linestyle": dashes, "zorder": 1, "label": score}
    thin = [name for name in SCORES if name not in SCORE_LOOKS and name not in BOUNDS]
    dashes = THIN_LINES[thin.index(score) % len(THIN_LINES)]
    return {"color": GREY, "linewidth": 1, "linestyle": dashes, "zorder": 2, "label": score}


def score_legend(figure: Figure, scores: Sequence[str] = SCORES) -> None:
    """The scores, below the panels."""
    legend(figure, [Line2D([], [], **score_look(score, 5)) for score in scores], columns=6)


def legend(figure: Figure, handles: Sequence[Any], columns: int) -> None:
    """A legend below the panels, in so many columns."""
    figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=10,
        handlelength=2.8,
    )


def known_first(name: str, known: Mapping[str, Any]) -> tuple[int, str]:
    """A key that puts known names first, in their order, and others behind, by name."""
    order = list(known)
    return (order.index(name) if name in known else len(order)), name
