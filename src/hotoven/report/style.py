"""How every figure looks, and what several of them draw: colours, axes of sizes, files.

Knows no table and no study; what is drawn is in `figures`, and in the modules that
`coinrun_figures` names.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter
from PIL import Image

from hotoven.palette import COLOURS
from hotoven.storage import write_bytes

BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, BLACK, GREY, PALE = (
    COLOURS["charts"][name]
    for name in (
        *("blue", "orange", "green", "purple", "sky", "vermillion", "black", "grey"),
        "pale",  # lines that only guide the eye
    )
)
DASHES: Final = (0, (4, 2))
STYLE: Final[dict[Any, Any]] = {
    "font.size": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 1.2,
    "svg.hashsalt": "hotoven",  # the same figure is the same bytes
}
DOTS_PER_INCH: Final = 150
SUFFIXES: Final = ("svg", "png")


class Written(NamedTuple):
    """What was left in a folder of figures, and why something is missing."""

    paths: list[Path]
    notes: list[str]


def empty(width: float, height: float) -> Figure:
    """A figure of that size in inches that makes room for its own text."""
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.09, h_pad=0.09)
    return figure


def figure_bytes(figure: Figure, suffix: str) -> bytes:
    """The figure as an "svg" or "png" file; the same figure gives the same bytes."""
    file = io.BytesIO()
    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, format=suffix, dpi=DOTS_PER_INCH, metadata=metadata)
    return file.getvalue() if suffix == "svg" else in_few_colours(file.getvalue())


def in_few_colours(png: bytes) -> bytes:
    """The picture in 256 colours of its own, each near what it was: a third as large.

    Its alpha channel goes, too, which nothing uses.
    """
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    kept = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    file = io.BytesIO()
    kept.save(file, "png", optimize=True)
    return file.getvalue()


def write_all(folder: Path, figures: Mapping[str, Figure], names: Sequence[str]) -> list[Path]:
    """Writes the figures as SVG and PNG, by name; of `names`, removes those that are not there.

    A figure of another time would look current.
    """
    for name in names:
        if name not in figures:
            for suffix in SUFFIXES:
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    paths = []
    for name, figure in figures.items():
        for suffix in SUFFIXES:
            path = folder / f"{name}.{suffix}"
            write_bytes(path, figure_bytes(figure, suffix))
            paths.append(path)
    return paths


def numbers(rows: Sequence[Mapping[str, Any]], column: str) -> np.ndarray:
    """float64[rows]; NaN where the table has no number."""
    values = [row[column] for row in rows]
    return np.array([np.nan if value is None else value for value in values], float)


def dodge(sizes: Sequence[int], place: int, count: int) -> float:
    """The factor by which a method's points are moved along the logarithmic axis.

    From the first to the last it is a fifth of the smallest gap, and a tenth of the axis at most.
    """
    logs = np.log(sizes)
    gap = min(np.diff(logs), default=math.log(2))
    width = min(0.2 * gap, 0.1 * float(np.ptp(logs))) if len(sizes) > 1 else 0.2 * gap
    return math.exp(width * (place - (count - 1) / 2) / max(count - 1, 1))


def logarithmic(axes: Axes, values: Sequence[int], label: str) -> None:
    """A logarithmic axis that names exactly these values: numbers of training levels, or steps."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(values)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{value:,}" for value in values])
    axes.set_xlabel(label)


def finish_rates(axes: Axes, sizes: Sequence[int], title: str) -> None:
    """Axes of shares, in %, over numbers of training levels."""
    logarithmic(axes, sizes, "number of training levels")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title(title, fontsize=12)
    lines_behind(axes)


def draw_rates(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    outcome: str,
    method: str,
    look: Mapping[str, Any],
    shift: float,
) -> None:
    """One method's rates with their intervals over numbers of training levels, moved by `shift`."""
    rows = sorted(rows, key=lambda row: row["num_train_levels"])
    at = numbers(rows, "num_train_levels") * shift
    rate = numbers(rows, f"{outcome}_rate")
    axes.plot(at, rate, label=method, zorder=3, clip_on=False, **look)  # a rate may be 0
    low, high = numbers(rows, f"{outcome}_low"), numbers(rows, f"{outcome}_high")
    axes.vlines(at, low, high, color=look["color"], linewidth=1.3, alpha=0.75, zorder=2)


def say(axes: Axes, words: str) -> None:
    """Words in place of what there is nothing of."""
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color="#555555")


def lines_behind(axes: Axes, axis: Any = "y") -> None:
    """Pale lines to read numbers by, behind what is drawn."""
    axes.grid(axis=axis, color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)


def show(axes: Axes, picture: np.ndarray, title: str) -> None:
    """A picture uint8[h, w, 3] without axes."""
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=11)
