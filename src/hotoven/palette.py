"""The colours of everything that is drawn, from `palette.json`, which the pages read too.

Levels are drawn in the blog's colours; charts in those of Okabe and Ito (2008), which colour-blind
people can tell apart. Imports nothing of ours.
"""

import json
from importlib.resources import files
from typing import Any, Final

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255

COLOURS: Final[dict[str, dict[str, Any]]] = json.loads(
    (files("hotoven") / "palette.json").read_bytes()
)


def rgb(colour: str) -> Colour:
    """The parts of a colour that is written "#rrggbb"."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def rgbs(colours: list[str]) -> tuple[Colour, ...]:
    """The parts of several colours."""
    return tuple(map(rgb, colours))
