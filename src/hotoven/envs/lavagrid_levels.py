"""LavaGrid's levels: generated from an id, proved solvable, read from and written as ASCII.

Host side, numpy only. A level's random numbers are the words of SplitMix64 (Steele, Lea & Flood
2014), reduced by our own lines, so that an id means the same level for ever; a change of what an
id means needs a new VERSION.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

VERSION: Final = 1
MAX_ATTEMPTS: Final = 2000  # maps drawn for one id before the settings are called impossible

FLOOR, WALL, LAVA, GOAL = 0, 1, 2, 3
MOVES: Final = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]], np.int32)  # up, right, down, left
SYMBOLS: Final = {".": FLOOR, "#": WALL, "L": LAVA, "G": GOAL, "S": FLOOR}


class Level(NamedTuple):
    """One map. Stacked levels have a leading axis [L]."""

    cells: Any  # int8[H, W]  FLOOR, WALL, LAVA or GOAL
    start: Any  # int32[2]  (row, col)
    goal: Any  # int32[2]  (row, col); (-1, -1) where a hand-written level has none


@dataclass(frozen=True)
class Generator:
    """Maps with a fixed number of walls and lava cells, placed uniformly; every one solvable."""

    height: int
    width: int
    wall_density: float
    lava_density: float
    min_distance: int

    def __post_init__(self) -> None:
        for field in ("height", "width"):
            if not 1 <= getattr(self, field) <= 64:
                raise ValueError(f"{field} must be from 1 to 64, got {getattr(self, field)}")
        for field in ("wall_density", "lava_density"):
            value = getattr(self, field)
            if not isinstance(value, (int, float, np.number)) or not 0.0 <= value < 1.0:
                raise ValueError(f"{field} must be at least 0 and below 1, got {value!r}")
        cells = self.height * self.width
        if self.num_walls + self.num_lava > cells - 2:
            raise ValueError(
                f"wall_density and lava_density must leave 2 of the {cells} cells for start and "
                f"goal, got {self.num_walls} walls and {self.num_lava} lava cells"
            )
        if not 1 <= self.min_distance <= cells - 1:
            raise ValueError(
                f"min_distance must be from 1 to {cells - 1} on a {self.height}x{self.width} grid, "
                f"got {self.min_distance}"
            )

    @property
    def num_walls(self) -> int:
        """Walls on every map."""
        return round(self.wall_density * self.height * self.width)

    @property
    def num_lava(self) -> int:
        """Lava cells on every map."""
        return round(self.lava_density * self.height * self.width)

    def generate(self, ids: np.ndarray) -> tuple[Level, Mapping[str, np.ndarray]]:
        """The levels of `ids` (int64[L], not negative) and the fact `shortest` int32[L].

        Raises:
          ValueError: an id is negative, or some id has no solvable map in MAX_ATTEMPTS draws.
        """
        ids = np.asarray(ids, np.int64)
        if ids.size and ids.min() < 0:
            raise ValueError(f"level ids must not be negative, got {ids.min()}")
        levels = Level(
            np.zeros((len(ids), self.height, self.width), np.int8),
            np.zeros((len(ids), 2), np.int32),
            np.zeros((len(ids), 2), np.int32),
        )
        shortest = np.full(len(ids), -1, np.int32)
        todo = np.arange(len(ids))
        for attempt in range(MAX_ATTEMPTS):
            if not len(todo):
                return levels, {"shortest": shortest}
            drawn = self._draw(ids[todo], attempt)
            length = shortest_paths(drawn)
            good = length >= self.min_distance
            for leaf, new in zip(levels, drawn, strict=True):
                leaf[todo[good]] = new[good]
            shortest[todo[good]] = length[good]
            todo = todo[~good]
        raise ValueError(
            f"no solvable map with a path of at least min_distance={self.min_distance} steps was "
            f"found in {MAX_ATTEMPTS} draws for level id {ids[todo[0]]}: lower min_distance, "
            f"wall_density ({self.wall_density}) or lava_density ({self.lava_density})"
        )

    def _draw(self, ids: np.ndarray, attempt: int) -> Level:
        """One map per id, not yet proved: the cells' random ranks decide what each one is."""
        num_cells = self.height * self.width
        words = splitmix64(ids.astype(np.uint64), attempt * num_cells, num_cells)
        order = np.argsort(words, axis=1, kind="stable")  # [L, cells] a uniform permutation
        kinds = np.full(num_cells, FLOOR, np.int8)
        kinds[1] = GOAL  # rank 0 is the start, 1 the goal, then walls, then lava, then floor
        kinds[2 : 2 + self.num_walls] = WALL
        kinds[2 + self.num_walls : 2 + self.num_walls + self.num_lava] = LAVA
        cells = np.empty((len(ids), num_cells), np.int8)
        np.put_along_axis(cells, order, np.broadcast_to(kinds, cells.shape), axis=1)
        places = np.stack(np.divmod(order[:, :2], self.width), axis=-1).astype(np.int32)
        return Level(cells.reshape(-1, self.height, self.width), places[:, 0], places[:, 1])


def splitmix64(seeds: np.ndarray, first: int, count: int) -> np.ndarray:
    """uint64[L, count]: words first .. first + count - 1 of SplitMix64 started at each seed.

    Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", figure 16.
    """
    step = np.arange(first + 1, first + count + 1, dtype=np.uint64)
    z = seeds.astype(np.uint64)[:, None] + step[None] * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def shortest_paths(levels: Level) -> np.ndarray:
    """int32[L]: steps of the shortest path from start to goal without lava; -1 where there is none.

    Breadth-first search over all levels [L] at once: each round grows the reached cells by one
    step. `levels` are stacked.
    """
    passable = (levels.cells == FLOOR) | (levels.cells == GOAL)  # [L, H, W]
    num_levels, height, width = passable.shape
    each = np.arange(num_levels)
    reached = np.zeros((num_levels, height, width), bool)
    reached[each, levels.start[:, 0], levels.start[:, 1]] = True
    has_goal = levels.goal[:, 0] >= 0
    length = np.full(num_levels, -1, np.int32)
    for distance in range(1, height * width):
        grown = reached.copy()
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown[:, :, 1:] |= reached[:, :, :-1]
        grown[:, :, :-1] |= reached[:, :, 1:]
        grown &= passable
        if (grown == reached).all():
            break
        reached = grown
        arrived = has_goal & (length < 0) & reached[each, levels.goal[:, 0], levels.goal[:, 1]]
        length[arrived] = distance
    return length


def from_ascii(text: str) -> Level:
    """The level drawn by `text`: '.' floor, '#' wall, 'L' lava, 'S' start, 'G' goal.

    One line per row; blank lines and outer spaces are ignored. One S is needed, at most one G is
    allowed; a level without G can be walked but not solved.

    Raises:
      ValueError: an unknown symbol, rows of unequal length, or the wrong number of S or G.
    """
    rows = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not rows:
        raise ValueError("a level needs at least one row, got none")
    if len({len(row) for row in rows}) != 1:
        raise ValueError(
            f"rows must have one length, got lengths {', '.join(str(len(row)) for row in rows)}"
        )
    grid = np.array([list(row) for row in rows])
    unknown = sorted(set(grid.ravel()) - set(SYMBOLS))
    if unknown:
        raise ValueError(
            f"level symbols must be among {' '.join(SYMBOLS)}, got {' '.join(unknown)}"
        )
    starts, goals = np.argwhere(grid == "S"), np.argwhere(grid == "G")
    if len(starts) != 1 or len(goals) > 1:
        raise ValueError(
            f"a level needs one S and at most one G, got {len(starts)} S and {len(goals)} G"
        )
    goal = goals[0] if len(goals) else np.array([-1, -1])
    cells = np.vectorize(SYMBOLS.__getitem__, otypes=[np.int8])(grid)
    return Level(cells, starts[0].astype(np.int32), goal.astype(np.int32))


def to_ascii(level: Level) -> str:
    """The text that `from_ascii` reads back as `level` (one level, not stacked)."""
    grid = np.array([".", "#", "L", "G"])[np.asarray(level.cells)]
    grid[tuple(level.start)] = "S"
    return "\n".join("".join(row) for row in grid)
