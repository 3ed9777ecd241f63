"""CoinRun's levels: procgen's own, cell for cell, from procgen's level seeds.

Host side, numpy only. A level is drawn twice over: as a `Blueprint`, which holds every cell and
every thing in the order in which procgen creates them, and packed as a `Level`, the few hundred
bytes that play and drawing need. Packing is checked: what does not fit is an error, never a cut.

World: 64 x 64 cells, x to the right, y up; cell (x, y) covers [x, x + 1) x [y, y + 1). Unlike the
gridworlds of this package, positions here are (x, y), as in the game.

Source: procgen 0.10.7 (Cobbe et al. 2020, "Leveraging procedural generation to benchmark
reinforcement learning"), game "coinrun". Levels of the two modes differ for the same seed.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

VERSION: Final = 1
MODES: Final = ("easy", "hard")

SIZE: Final = 64  # cells per side of the world
# Cell codes, procgen's numbers.
COIN, MID, TOP, LAVA, LAVA_TOP, BARRIER, EMPTY = 1, 15, 16, 17, 18, 19, 100
# Kinds of things, procgen's numbers.
SAW, MONSTER, CRATE = 2, 5, 20
DANGERS: Final = ("lava", "saw", "monster")  # what the pits of a level hold

NUM_SEEDS: Final = 2**31 - 1  # procgen's level seeds are 0 .. NUM_SEEDS - 1
ID_STRIDE: Final = 1_327_217_885  # the golden section of NUM_SEEDS: blocks of ids lie far apart

# By construction: at most 5 sections, each with one pit of at most 7 monsters or one monster.
MAX_MONSTERS: Final = 35
MAX_DRAWS: Final = 130  # raw numbers that a level takes, at most
NUM_TIES: Final = 1000  # and one more for every step of an episode

# What one word of `Layout.columns` holds, as (lowest bit, number of bits).
TOP_BITS: Final = (0, 7)  # rows 0 .. top - 1 are rock; 64 where all of the column is
STONE_BITS: Final = (7, 6)  # the row of a lone cell of rock above a pit; 0 where there is none
LAVA_BITS: Final = (13, 6)  # rows 1 .. lava hold lava; 0 where none does
SAW_BITS: Final = (19, 1)  # 1 where a saw stands on the ground, in row `top`
FIRST_BITS: Final = (20, 2)  # crates of the section's first pile, from row `top` up
SECOND_BITS: Final = (22, 2)  # crates of the section's second pile, from row `top` up

NOWHERE: Final = 255  # the column of a crate that is not there
AWAY: Final = 128  # the column of a monster that is not there: no agent comes near it


class Monsters(NamedTuple):
    """The monsters of a level in the order of their creation. All uint8[MAX_MONSTERS].

    A monster keeps to its row and turns at the nearest cells that block it, so these say all about
    the cells that it ever meets.
    """

    column: Any  # where it starts; AWAY where there is no monster
    row: Any
    direction: Any  # at the start: 1 to the left, 2 to the right, 0 where there is no monster
    left: Any  # column of the cell that turns it round on the left
    right: Any  # and on the right
    walls: Any  # bit 0: the left one is MID, which costs speed; bit 1: the right one is
    first_crate: Any  # columns of the crates in its row; NOWHERE where there is none
    second_crate: Any


class Layout(NamedTuple):
    """All of a level that play depends on, but for ties. Equal layouts play alike."""

    columns: Any  # uint32[64]  see the *_BITS above
    coin: Any  # uint8[2]  (x, y) of its cell
    monsters: Monsters


class Looks(NamedTuple):
    """All of a level that only a picture shows. Numbers count procgen's themes."""

    agent: Any  # uint8[]  0..4
    ground: Any  # uint8[]  0..5
    background: Any  # uint8[]  0..61
    shift: Any  # float32[]  0 to 1: how far the background is moved to the left
    crates: Any  # uint8[64]  0..3 in bits 0-1, 2-3, 4-5: the crates of a column, from below
    monsters: Any  # uint8[MAX_MONSTERS]  0..8


class Level(NamedTuple):
    """One level, packed. Stacked levels have a leading axis [L]."""

    layout: Layout
    ties: Any  # uint32[32]  bit t (of word t // 32) is the lowest bit of step t's raw number
    looks: Looks


class Thing(NamedTuple):
    """A saw, monster or crate as procgen creates it."""

    kind: int
    column: int  # its centre is half a cell further
    row: int
    vx: float  # cells per step
    theme: int


class Pile(NamedTuple):
    """Crates on top of each other."""

    second: bool  # whether it is the second one of its section
    column: int
    row: int  # of the lowest crate
    height: int


class Blueprint(NamedTuple):
    """One level in full, as procgen makes it."""

    grid: np.ndarray  # uint8[64, 64]  cell codes, index [y, x]
    things: list[Thing]  # in the order of creation
    piles: list[Pile]  # the crates once more
    coin: tuple[int, int]  # (x, y)
    agent_theme: int
    ground_theme: int
    background: int
    shift: np.float32
    difficulty: int  # 1..3
    num_sections: int
    num_pits: int
    raw: np.ndarray  # uint32[NUM_TIES]  the raw numbers that follow the level's own


def generate(ids: np.ndarray, mode: str) -> tuple[Level, Mapping[str, np.ndarray]]:
    """The levels of `ids` (int64[L]; leaves [L, ...]) and facts about them ([L]).

    Facts: `seed` is procgen's (see `level_seeds`); `difficulty` 1..3; `num_sections`, `num_pits`,
    `num_saws`, `num_monsters`, `num_crates`; `can_kill`, and by what: `has_lava`, `has_saw`,
    `has_monster`; `coin_x`, `coin_y`, the coin's cell.

    Raises:
      ValueError: an id is negative, the mode is unknown, or a level does not fit its arrays.
    """
    seeds = level_seeds(ids)
    blueprints = [blueprint(int(seed), mode) for seed in seeds]
    if not blueprints:
        # An empty set has the shapes and types of any other.
        levels, facts = generate(np.zeros(1, np.int64), mode)
        return _first_none(levels), {name: fact[:0] for name, fact in facts.items()}
    counts = {
        name: np.array([sum(thing.kind == kind for thing in plan.things) for plan in blueprints])
        for name, kind in (("saws", SAW), ("monsters", MONSTER), ("crates", CRATE))
    }
    levels = pack(blueprints)
    lava = np.asarray((_field(levels.layout.columns, LAVA_BITS) > 0).any(axis=1))
    saw, monster = counts["saws"] > 0, counts["monsters"] > 0
    facts = {
        "seed": seeds,
        "difficulty": np.array([plan.difficulty for plan in blueprints], np.int32),
        "num_sections": np.array([plan.num_sections for plan in blueprints], np.int32),
        "num_pits": np.array([plan.num_pits for plan in blueprints], np.int32),
        **{f"num_{name}": count.astype(np.int32) for name, count in counts.items()},
        "can_kill": lava | saw | monster,
        "has_lava": lava,
        "has_saw": saw,
        "has_monster": monster,
        "coin_x": np.array([plan.coin[0] for plan in blueprints], np.int32),
        "coin_y": np.array([plan.coin[1] for plan in blueprints], np.int32),
    }
    return levels, facts


def level_seeds(ids: np.ndarray) -> np.ndarray:
    """int64[L]: procgen's level seed of each id.

    An id below NUM_SEEDS is the seed itself. Larger ids, which level sets use to keep training and
    test apart, come in blocks of 2**32; each block counts up from a seed of its own and wraps, so
    that two blocks share seeds only where they are long.

    Raises:
      ValueError: an id is negative.
    """
    ids = np.asarray(ids, np.int64)
    if ids.size and ids.min() < 0:
        raise ValueError(f"level ids must not be negative, got {ids.min()}")
    block, offset = ids >> 32, ids & (2**32 - 1)
    return (offset + block % NUM_SEEDS * ID_STRIDE) % NUM_SEEDS


class _Draws:
    """The raw 32-bit numbers of one level, taken one by one. Every draw takes exactly one."""

    def __init__(self, words: np.ndarray):
        self.words: list[int] = words.tolist()
        self.taken = 0

    def raw(self) -> int:
        self.taken += 1
        return self.words[self.taken - 1]

    def below(self, bound: int) -> int:
        return self.raw() % bound


# The bit generator behind `RandomState`, whose seeding from one integer numpy keeps for ever. Only
# raw words are taken from it, never numpy's distributions.
_TWISTER = np.random.MT19937(0)
_SEEDER = np.random.RandomState(_TWISTER)


def raw_numbers(seed: int, count: int) -> np.ndarray:
    """uint32[count]: the first outputs of the 32-bit Mersenne Twister started at `seed`."""
    _SEEDER.seed(seed)
    return _TWISTER.random_raw(count).astype(np.uint32)


def blueprint(seed: int, mode: str) -> Blueprint:
    """The level that procgen makes of a level seed (0 to 2**32 - 1).

    Raises:
      ValueError: the seed is out of range or the mode unknown.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"level seed must be from 0 to {2**32 - 1}, got {seed}")
    easy = mode == "easy"
    words = raw_numbers(seed, MAX_DRAWS + NUM_TIES)
    draws = _Draws(words[:MAX_DRAWS])
    shift = np.float32(draws.raw() / 2**32)
    background = draws.below(62)
    draws.raw()  # a place for the agent, which procgen then throws away
    draws.raw()
    # Easy levels all look alike; procgen does not even draw the two themes.
    background, agent_theme, ground_theme = (
        (0, 0, 0) if easy else (background, draws.below(5), draws.below(6))
    )
    course = _Course(draws, easy)
    course.build()
    return Blueprint(
        course.grid,
        course.things,
        course.piles,
        course.coin,
        agent_theme,
        ground_theme,
        background,
        shift,
        course.difficulty,
        course.num_sections,
        course.num_pits,
        words[draws.taken : draws.taken + NUM_TIES],
    )


class _Course:
    """A level in the making: sections from left to right, each a platform or a pit."""

    def __init__(self, draws: _Draws, easy: bool):
        self.draws = draws
        self.easy = easy
        self.grid = np.full((SIZE, SIZE), EMPTY, np.uint8)
        self.things: list[Thing] = []
        self.piles: list[Pile] = []
        self.coin = (0, 0)
        self.num_pits = 0
        self.difficulty = draws.below(3) + 1
        self.num_sections = draws.below(self.difficulty) + self.difficulty
        self.danger = DANGERS[draws.below(3)]  # of all pits of the level
        self.steeper = 1 if self.difficulty == 3 else 0

    def build(self) -> None:
        self.grid[0, :] = TOP
        self.grid[:, 0] = self.grid[:, -1] = self.grid[-1, :] = MID
        x, height = 5, 1  # the left edge of the next section and the height of its ground
        for _ in range(self.num_sections):
            x, height = self._section(x, height)
        self.coin = (x, height)
        self.grid[height, x] = COIN
        self._ground(x, 1, height)
        self.grid[:, x + 1 :] = MID

    def _section(self, x: int, height: int) -> tuple[int, int]:
        """Builds one section from column `x`; where the next one starts, and this one's height."""
        below = self.draws.below
        rise = min(below(4) + 1 + self.steeper, 5)
        # The coin is tossed only where the ground is neither low nor high.
        if height >= 20 or (height >= 5 and below(2) == 1):
            rise = -rise
        width = below(2 * self.difficulty) + 3 + self.steeper
        height = max(height + rise, 1)
        if width > 7 and height > 3 and below(20) >= self.difficulty:
            self.num_pits += 1
            self._pit(x, width, height)
        else:
            self._platform(x, width, height)
        # Invisible cells at both ends, which only monsters notice.
        if self.grid[height, x - 1] not in (TOP, MID):
            self.grid[height, x - 1] = BARRIER
        self.grid[height, x + width] = BARRIER
        return x + width, height

    def _pit(self, x: int, width: int, height: int) -> None:
        below, grid = self.draws.below, self.grid
        before = below(3) + 1
        after = below(3) + 1
        start, gap = x + before, width - before - after  # gap is 2..7
        self._ground(x, before, height)
        self._ground(x + width - after, after, height)
        depth = below(height - 3) + 1  # drawn whatever the pit holds
        if self.danger == "lava":
            grid[1:depth, start : start + gap] = LAVA
            grid[depth, start : start + gap] = LAVA_TOP
        else:
            for column in range(start, start + gap):
                self._put(SAW if self.danger == "saw" else MONSTER, column, 1)
        if gap > 4:  # a stepping stone, one cell thick
            offset = (1 if gap == 5 else 2) + below(2)
            length = gap - offset - (2 + below(2)) if gap == 7 else 1 + below(2)
            grid[height - 1, start + offset : start + offset + length] = TOP

    def _platform(self, x: int, width: int, height: int) -> None:
        below = self.draws.below
        self._ground(x, width, height)
        taken = []
        if below(10) < 2 * self.difficulty and width > 3:
            taken.append(x + 1 + below(width - 2))
            self._put(SAW, taken[-1], height)
        # The number is drawn in easy levels too; only what would follow is left out.
        if below(10) < self.difficulty and width > 3 and not self.easy:
            taken.append(x + 1 + below(width - 2))
            self._put(MONSTER, taken[-1], height)
        for second in (False, True):
            column = x + 1 + below(width - 2)
            if below(2) == 1 and column not in taken:
                pile = Pile(second, column, height, below(3) + 1)
                self.piles.append(pile)
                for row in range(height, height + pile.height):
                    self._put(CRATE, column, row)

    def _put(self, kind: int, column: int, row: int) -> None:
        vx, theme = 0.0, 0
        if kind == MONSTER:
            vx = 0.15 if self.draws.below(2) else -0.15
            theme = self.draws.below(9)
        elif kind == CRATE:
            theme = self.draws.below(4)
        self.things.append(Thing(kind, column, row, vx, theme))

    def _ground(self, x: int, width: int, height: int) -> None:
        self.grid[: height - 1, x : x + width] = MID
        self.grid[height - 1, x : x + width] = TOP


def pack(blueprints: list[Blueprint]) -> Level:
    """The blueprints as stacked levels, leaves [L, ...].

    Raises:
      ValueError: a blueprint holds what a `Level` cannot say; none of procgen's does.
    """
    grids = np.stack([plan.grid for plan in blueprints])  # [L, y, x]
    columns = _pack_columns(grids, blueprints)
    shown = cells(columns, np.array([plan.coin for plan in blueprints], np.uint8))
    wrong = (shown != np.where(grids == BARRIER, EMPTY, grids)).any(axis=(1, 2))
    if wrong.any():
        raise ValueError(f"the cells of level {wrong.argmax()} cannot be packed into columns")
    monsters = np.stack([_pack_monsters(plan) for plan in blueprints])  # [L, fields, monsters]
    themes = [_pack_themes(plan) for plan in blueprints]
    bits = np.stack([plan.raw for plan in blueprints]) & np.uint32(1)  # [L, NUM_TIES]
    bits = np.pad(bits, ((0, 0), (0, -NUM_TIES % 32))).reshape(len(bits), -1, 32)
    ties = (bits << np.arange(32, dtype=np.uint32)).sum(axis=2, dtype=np.uint32)

    def each(field: str, dtype: Any) -> np.ndarray:
        return np.array([getattr(plan, field) for plan in blueprints], dtype)

    layout = Layout(
        columns,
        each("coin", np.uint8),
        Monsters(*np.ascontiguousarray(monsters.transpose(1, 0, 2))),
    )
    looks = Looks(
        each("agent_theme", np.uint8),
        each("ground_theme", np.uint8),
        each("background", np.uint8),
        each("shift", np.float32),
        np.stack([crates for crates, _ in themes]),
        np.stack([own for _, own in themes]),
    )
    return Level(layout, ties, looks)


def cells(columns: np.ndarray, coin: np.ndarray) -> np.ndarray:
    """uint8[..., 64, 64]: the cell codes of a layout, index [..., y, x].

    BARRIER is the one code that is not there: nothing shows it and only monsters notice it, which
    carry the columns where they turn.

    Args:
      columns: uint32[..., 64].
      coin: uint8[..., 2], (x, y) of its cell.
    """
    columns = np.asarray(columns)[..., None, :]
    x = np.arange(SIZE, dtype=np.uint8)
    y = x[:, None]
    top, stone = _field(columns, TOP_BITS), _field(columns, STONE_BITS)
    lava = _field(columns, LAVA_BITS)
    coin = np.asarray(coin)[..., None, None]
    shape = np.broadcast_shapes(top.shape, y.shape)
    grid = np.full(shape, EMPTY, np.uint8)
    grid[np.broadcast_to((y == top - 1) | ((y == stone) & (stone > 0)), shape)] = TOP
    grid[np.broadcast_to((y < top - 1) | (top == SIZE) | (y == SIZE - 1), shape)] = MID
    grid[np.broadcast_to((y >= 1) & (y < lava), shape)] = LAVA
    grid[np.broadcast_to((y >= 1) & (y == lava), shape)] = LAVA_TOP
    grid[np.broadcast_to((x == coin[..., 0, :, :]) & (y == coin[..., 1, :, :]), shape)] = COIN
    return grid


def to_ascii(level: Level) -> str:
    """One level as text, from above; the rows over its highest thing and the rock behind its coin
    are left out.

    `#` rock, `L` lava, `o` saw, `X` crate, `<` and `>` monsters by their first direction, `C` coin,
    `A` agent at the start.
    """
    layout = level.layout
    grid = cells(np.asarray(layout.columns), np.asarray(layout.coin))  # [y, x]
    text = np.full(grid.shape, ".")
    for code, mark in ((TOP, "#"), (MID, "#"), (LAVA, "L"), (LAVA_TOP, "L"), (COIN, "C")):
        text[grid == code] = mark
    columns = np.asarray(layout.columns)
    top = _field(columns, TOP_BITS)
    for x in range(SIZE):
        if _field(columns[x], SAW_BITS):
            text[top[x], x] = "o"
        pile = max(_field(columns[x], FIRST_BITS), _field(columns[x], SECOND_BITS))
        text[top[x] : top[x] + pile, x] = "X"
    monsters = Monsters(*(np.asarray(leaf) for leaf in layout.monsters))
    for x, y, direction in zip(monsters.column, monsters.row, monsters.direction, strict=True):
        if direction:
            text[y, x] = "<>"[direction - 1]
    text[1, 1] = "A"
    end = int(layout.coin[0]) + 2
    highest = int(np.flatnonzero((text[:-1, 1 : end - 1] != ".").any(axis=1)).max())
    return "\n".join("".join(row[:end]) for row in text[highest + 1 :: -1])


def _pack_columns(grids: np.ndarray, blueprints: list[Blueprint]) -> np.ndarray:
    """uint32[L, 64] of cell codes [L, y, x] and of the saws and crates of the same levels."""
    rock = (grids == MID) | (grids == TOP)
    top = np.where(rock.all(axis=1), SIZE, rock.argmin(axis=1))  # [L, x]
    y = np.arange(SIZE, dtype=np.uint8)[:, None]
    lone = rock & (y > top[:, None]) & (y < SIZE - 1)
    stone = (lone * y).max(axis=1)
    lava = ((grids == LAVA) | (grids == LAVA_TOP)).sum(axis=1)
    saw, first, second = np.zeros((3, len(grids), SIZE), np.int64)
    for level, plan in enumerate(blueprints):
        for thing in plan.things:
            if thing.kind == SAW:
                _check(thing.row == top[level, thing.column], level, "a saw above the ground")
                _check(not saw[level, thing.column], level, "two saws in one column")
                saw[level, thing.column] = 1
        for pile in plan.piles:
            _check(pile.row == top[level, pile.column], level, "a crate above the ground")
            own = second if pile.second else first
            # Whoever plays looks at three columns at a time and finds one pile of each sort.
            near = own[level, pile.column - 2 : pile.column + 3]
            _check(not near.any(), level, "piles of two sections side by side")
            own[level, pile.column] = pile.height
    mixed = (stone[:, 1:] != stone[:, :-1]) & (stone[:, 1:] > 0) & (stone[:, :-1] > 0)
    _check(not mixed.any(), int(mixed.any(axis=1).argmax()), "stepping stones of two heights")
    columns = np.zeros(top.shape, np.uint32)
    for value, (low, width) in (
        (top, TOP_BITS),
        (stone, STONE_BITS),
        (lava, LAVA_BITS),
        (saw, SAW_BITS),
        (first, FIRST_BITS),
        (second, SECOND_BITS),
    ):
        _check(bool((value < 1 << width).all()), 0, "a height that is too large")
        columns |= value.astype(np.uint32) << np.uint32(low)
    return columns


def _pack_monsters(plan: Blueprint) -> np.ndarray:
    """uint8[fields, MAX_MONSTERS], the fields in the order of `Monsters`."""
    monsters = [thing for thing in plan.things if thing.kind == MONSTER]
    if len(monsters) > MAX_MONSTERS:
        raise ValueError(f"a level holds at most {MAX_MONSTERS} monsters, got {len(monsters)}")
    packed = np.zeros((len(Monsters._fields), MAX_MONSTERS), np.uint8)
    packed[:] = np.array([AWAY, 0, 0, 0, NOWHERE, 0, NOWHERE, NOWHERE], np.uint8)[:, None]
    for index, monster in enumerate(monsters):
        row = plan.grid[monster.row].tolist()
        left = right = monster.column
        while row[left] not in (MID, TOP, BARRIER):
            left -= 1
        while row[right] not in (MID, TOP, BARRIER):
            right += 1
        walls = (row[left] == MID) + 2 * (row[right] == MID)
        crates = {
            pile.column
            for pile in plan.piles
            if pile.row <= monster.row < pile.row + pile.height and left <= pile.column <= right
        }
        _check(len(crates) <= 2, 0, "crates in three columns of a monster's row")
        near = [*sorted(crates), NOWHERE, NOWHERE][:2]
        direction = 2 if monster.vx > 0 else 1
        packed[:, index] = [monster.column, monster.row, direction, left, right, walls, *near]
    return packed


def _pack_themes(plan: Blueprint) -> tuple[np.ndarray, np.ndarray]:
    """`Looks.crates` and `Looks.monsters`. Of two crates in one place the later one shows."""
    ground = {pile.column: pile.row for pile in plan.piles}
    crates = [0] * SIZE
    monsters = []
    for thing in plan.things:
        if thing.kind == CRATE:
            low = 2 * (thing.row - ground[thing.column])
            crates[thing.column] = crates[thing.column] & ~(3 << low) | thing.theme << low
        elif thing.kind == MONSTER:
            monsters.append(thing.theme)
    padded = monsters + [0] * (MAX_MONSTERS - len(monsters))
    return np.array(crates, np.uint8), np.array(padded, np.uint8)


def _check(fits: bool, level: int, what: str) -> None:
    if not fits:
        raise ValueError(f"level {level} of the batch does not fit: it has {what}")


def _field(columns: np.ndarray, bits: tuple[int, int]) -> np.ndarray:
    """uint8: the number that those bits of each word hold."""
    low, width = bits
    return ((columns >> np.uint32(low)) & np.uint32((1 << width) - 1)).astype(np.uint8)


def _first_none(level: Level) -> Level:
    """A stack of no levels with the shapes of `level`'s."""
    layout, ties, looks = level
    return Level(
        Layout(
            layout.columns[:0],
            layout.coin[:0],
            Monsters(*(leaf[:0] for leaf in layout.monsters)),
        ),
        ties[:0],
        Looks(*(leaf[:0] for leaf in looks)),
    )
