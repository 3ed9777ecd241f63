"""Records the real CoinRun in the layout that `hotoven.envs.coinrun.verify` reads.

Run by an interpreter that has PyPI's procgen2, which needs CPython 3.11 and numpy 1.x and so cannot
live beside this package:

    python tests/record_coinrun.py FOLDER --levels 200 --seed 7

writes levels_{mode}.npz, traj_{mode}.npz (played from the start) and short_{mode}.npz (a few steps
each from states that play hardly meets), of levels and actions drawn from the seed; then
`hotoven.envs.coinrun.verify` tells whether the engine repeats them. Values are read from the
game's own serialised state: numbers of four bytes, least byte first, and texts, each after its
length. What is not where it is expected is an error. Nothing of this package is imported.
"""

import argparse
import math
import struct
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from procgen import ProcgenGym3Env

MODES: Final = ("easy", "hard")
NUM_SEEDS: Final = 2**31 - 1
NUM_NEXT: Final = 4  # raw numbers recorded of what follows a level's own

SIZE: Final = 64
TALL: Final = np.float32(0.5787)  # half the agent's height
GRAVITY: Final = np.float32(0.2)
AIR_KEEPS: Final = np.float32(1) - np.float32(0.2) * np.float32(0.15)  # of a sideways speed
COIN, MID, TOP = 1, 15, 16  # cells
AGENT, MONSTER = 0, 5  # things

# The state: a version, the game's name, options, a random generator, whether there is another,
# that one; numbers up to the things, the things; numbers, a generator, numbers up to the cells,
# the cells, the rest.
NUM_OPTIONS: Final = 18
BEFORE_THINGS: Final = 17
CLOCK, NUM_CELLS, NUM_THINGS = 13, 15, 16  # places among these
THING: Final = 31  # numbers that make up a thing; the first ones are known
X, Y, VX, VY, RX, RY, KIND, THEME = 0, 1, 2, 3, 4, 5, 6, 8
AFTER_THINGS: Final = 20
BACKGROUND, SHIFT = 1, 3
BEFORE_CELLS: Final = 12
AFTER_CELLS: Final = 8
LAST_Y, GROUND_THEME, SUPPORT, ON_CRATE, END = 0, 1, 2, 4, 7
END_MARK: Final = 0xCAFECAFE

NOTHING: Final = 4
RUN: Final = 300  # steps of a trajectory
LONG_RUN: Final = 1010  # of one that meets the time limit, 1000
NUM_LONG: Final = 8
NUM_STARTS: Final = 6  # short runs per level


class Shown(NamedTuple):
    """What one serialised state holds. Numbers that are floats there are still their bits here."""

    generator: str  # of the level, as text: the Mersenne Twister's 624 words and a position
    clock: int
    things: np.ndarray  # int32[things, THING], in the order of creation
    background: int
    shift: np.ndarray  # float32[]
    cells: np.ndarray  # int32[64, 64], index [y, x]
    ground_theme: int
    support: int
    on_crate: int
    things_at: int  # where in the bytes the things begin
    rest_at: int  # and what comes after the cells

    def monsters(self) -> np.ndarray:
        """float32[monsters, THING]: the monsters in the order of creation."""
        return self.things[self.things[:, KIND] == MONSTER].view(np.float32)


class Reader:
    """The bytes of a state, taken from first to last."""

    def __init__(self, state: bytes):
        self.state = state
        self.at = 0

    def numbers(self, count: int) -> np.ndarray:
        found = np.frombuffer(self.state, "<i4", count, self.at)
        self.at += 4 * count
        return found

    def text(self) -> str:
        size = int(self.numbers(1)[0])
        if not 0 <= size <= len(self.state) - self.at:
            raise ValueError(f"a text of {size} bytes where {len(self.state) - self.at} are left")
        self.at += size
        return self.state[self.at - size : self.at].decode("ascii")


def decode(state: bytes) -> Shown:
    """What a serialised state shows.

    Raises:
      ValueError: the state is not laid out as that of procgen2 0.10.7.
    """
    reader = Reader(state)
    reader.numbers(1)
    name = reader.text()
    reader.numbers(NUM_OPTIONS)
    reader.text()  # the generator of level seeds
    reader.numbers(1)
    generator = reader.text()
    before = reader.numbers(BEFORE_THINGS)
    things_at = reader.at
    things = reader.numbers(THING * int(before[NUM_THINGS])).reshape(-1, THING)
    after = reader.numbers(AFTER_THINGS)
    reader.text()  # a generator that only pictures use
    *_, width, height, area = reader.numbers(BEFORE_CELLS).tolist()
    if (name, width, height, area, before[NUM_CELLS]) != ("coinrun", SIZE, SIZE, SIZE**2, SIZE**2):
        raise ValueError(f"not a state of CoinRun: {name!r}, {width} x {height}, {area} cells")
    cells = reader.numbers(area).reshape(SIZE, SIZE)
    rest_at = reader.at
    rest = reader.numbers(AFTER_CELLS)
    if int(rest[END]) % 2**32 != END_MARK or reader.at != len(state):
        raise ValueError("not a state of CoinRun: it does not end where it should")
    if things[0, KIND] != AGENT:
        raise ValueError(f"the first thing should be the agent, it is of kind {things[0, KIND]}")
    return Shown(
        generator,
        int(before[CLOCK]),
        things,
        int(after[BACKGROUND]),
        after.view(np.float32)[SHIFT],
        cells,
        int(rest[GROUND_THEME]),
        int(rest[SUPPORT]),
        int(rest[ON_CRATE]),
        things_at,
        rest_at,
    )


def next_numbers(generator: str) -> np.ndarray:
    """uint32[NUM_NEXT]: the next raw numbers of a Mersenne Twister that is written out as text."""
    *key, position = (int(word) for word in generator.split())
    twister = np.random.MT19937()
    twister.state = {
        "bit_generator": "MT19937",
        "state": {"key": np.array(key, np.uint32), "pos": position},
    }
    return twister.random_raw(NUM_NEXT).astype(np.uint32)


class Game:
    """The real game, on one level for ever."""

    def __init__(self, seed: int, mode: str):
        self.env = ProcgenGym3Env(
            num=1,
            env_name="coinrun",
            num_levels=1,
            start_level=seed,
            distribution_mode=mode,
            num_threads=0,
            rand_seed=0,
            center_agent=True,
            use_backgrounds=True,
        )

    def show(self) -> Shown:
        return decode(self.env.callmethod("get_state")[0])

    def step(self, action: int) -> tuple[float, bool, bool]:
        """Plays one step: its reward, whether it was an episode's last, whether by the coin."""
        self.env.act(np.array([action], np.int32))
        reward, _, first = self.env.observe()
        return reward[0], bool(first[0]), bool(self.env.get_info()[0]["prev_level_complete"])

    def put(self, start: "Start") -> None:
        """Puts the agent elsewhere, into a step that begins there."""
        state = bytearray(self.env.callmethod("get_state")[0])
        shown = decode(bytes(state))
        for place, value in ((X, start.x), (Y, start.y), (VX, start.vx), (VY, start.vy)):
            struct.pack_into("<f", state, shown.things_at + 4 * place, value)
        struct.pack_into("<f", state, shown.rest_at + 4 * LAST_Y, start.y)
        struct.pack_into("<i", state, shown.rest_at + 4 * ON_CRATE, start.on_crate)
        self.env.callmethod("set_state", [bytes(state)])


class Start(NamedTuple):
    """Where a short run begins."""

    x: np.float32
    y: np.float32
    vx: np.float32
    vy: np.float32
    on_crate: bool


def draw_start(shown: Shown, generator: np.random.Generator) -> Start:
    """A place for the agent near the things of a level, clear of rock; any speed that it may have.

    Speeds are often 0 or the largest, or such that a step of doing nothing moves as fast up or down
    as sideways, where a draw of the level decides which comes first.
    """
    things = shown.things.view(np.float32)
    while True:
        near = things[generator.integers(len(things)), [X, Y]] if generator.random() < 0.8 else None
        middle = generator.uniform(1, 50, size=2) if near is None else near
        x, y = (middle + generator.uniform(-2, 2, size=2)).astype(np.float32)
        if generator.random() < 0.3:  # flush with the ground
            y = np.float32(math.floor(y)) + TALL
        if generator.random() < 0.3:  # so close to a cell that the last bits decide
            x = np.float32(math.floor(x) + 0.5 + generator.normal(0, 0.002))
        if is_clear(shown.cells, float(x), float(y)):
            break
    vx = np.float32(generator.choice([0, 0.5, -0.5, *generator.uniform(-0.5, 0.5, size=3)]))
    vy = np.float32(generator.choice([0, 1.5, -1.5, *generator.uniform(-1.5, 1.5, size=5)]))
    if generator.random() < 0.3:
        vy = np.float32(generator.uniform(-0.28, 0.68))
        vx = tied(vy) * generator.choice(np.array([-1, 1], np.float32))
    return Start(x, y, vx, vy, bool(generator.random() < 0.3))


def tied(vy: np.float32) -> np.float32:
    """The sideways speed that is as fast as `vy` in mid-air, after a step's gravity and drag."""
    speed = np.abs(vy - GRAVITY)
    vx = speed / AIR_KEEPS
    near = [vx, np.nextafter(vx, np.float32(0)), np.nextafter(vx, np.float32(1))]
    return next((one for one in near if AIR_KEEPS * one == speed), vx)


def is_clear(cells: np.ndarray, x: float, y: float) -> bool:
    """Whether an agent with its centre at (x, y) is in the world and touches no rock."""
    left, right = math.floor(x - 0.5), math.floor(x + 0.5)
    low, high = math.floor(y - float(TALL)), math.floor(y + float(TALL))
    if min(left, low) < 0 or max(right, high) >= SIZE:
        return False
    return not np.isin(cells[low : high + 1, left : right + 1], (MID, TOP)).any()


def record_levels(seeds: np.ndarray, mode: str) -> dict[str, np.ndarray]:
    """The levels of `seeds` (int[L]) right after a reset."""
    shown = [Game(int(seed), mode).show() for seed in seeds]
    things = np.concatenate([one.things for one in shown])
    floats = things.view(np.float32)
    grids = np.stack([one.cells for one in shown])
    level, y, x = np.nonzero(grids == COIN)
    if not np.array_equal(level, np.arange(len(seeds))):
        raise ValueError("a level without a coin, or with several")
    return {
        "seed": seeds.astype(np.int32),
        "grid": grids.astype(np.uint8),
        "goal": np.stack([x, y], axis=1).astype(np.int16),
        "agent_theme": np.array([one.things[0, THEME] for one in shown], np.uint8),
        "wall_theme": np.array([one.ground_theme for one in shown], np.uint8),
        "bg_index": np.array([one.background for one in shown], np.uint8),
        "bg_pct_x": np.array([one.shift for one in shown], np.float32),
        "rng_next": np.stack([next_numbers(one.generator) for one in shown]),
        "ent_offset": offsets([len(one.things) for one in shown]),
        "ent_type": things[:, KIND].astype(np.uint8),
        "ent_theme": things[:, THEME].astype(np.uint8),
        **{
            f"ent_{name}": floats[:, place]
            for name, place in (("x", X), ("y", Y), ("vx", VX), ("vy", VY), ("rx", RX), ("ry", RY))
        },
    }


def record_runs(
    seeds: np.ndarray, mode: str, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """One trajectory on each level of `seeds` (int[N]), every action rule in turn.

    After an end the same level starts again within the step, so that such a row holds the fresh
    level's agent.
    """
    steps, monsters = Steps(), []
    counts, lengths = [], []
    for run, seed in enumerate(seeds):
        actions = RULES[run % len(RULES)](LONG_RUN if run < NUM_LONG else RUN, generator)
        game = Game(int(seed), mode)
        for action in actions.tolist():
            monsters.append(steps.take(game, action).monsters())
        counts.append(len(monsters[-1]))
        lengths.append(len(actions))
    rows = np.concatenate(monsters)
    return {
        "seed": seeds.astype(np.int32),
        "offset": offsets(lengths),
        **steps.arrays(),
        "mon_count": np.array(counts, np.int16),
        "mon_offset": offsets(np.multiply(counts, lengths)),
        "mon_x": rows[:, X],
        "mon_vx": rows[:, VX],
    }


def record_short_runs(
    seeds: np.ndarray, mode: str, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """NUM_STARTS runs of 2 to 12 steps on each level of `seeds` (int[N]), up to an end.

    Between them play goes on, so that the clock and the monsters stand anywhere.
    """
    steps, monsters = Steps(), []
    starts: list[Start] = []
    warm, counts, lengths = [], [], []
    for seed in seeds:
        game = Game(int(seed), mode)
        for _ in range(NUM_STARTS):
            for action in held(int(generator.integers(40)), generator).tolist():
                game.step(action)
            shown = game.show()
            starts.append(draw_start(shown, generator))
            game.put(starts[-1])
            warm.append(shown.clock)
            monsters.append(shown.monsters())
            counts.append(len(monsters[-1]))
            actions = held(int(generator.integers(2, 13)), generator).tolist()
            if generator.random() < 0.4:
                actions[0] = NOTHING
            before = len(steps.values["done"])
            for action in actions:
                monsters.append(steps.take(game, action).monsters())
                if steps.values["done"][-1]:
                    break
            lengths.append(len(steps.values["done"]) - before)
    rows = np.concatenate(monsters)
    return {
        "seed": np.repeat(seeds, NUM_STARTS).astype(np.int32),
        "warm": np.array(warm, np.int16),
        **{
            f"start_{name}": np.array([getattr(start, name) for start in starts], np.float32)
            for name in ("x", "y", "vx", "vy")
        },
        "start_on_crate": np.array([start.on_crate for start in starts], np.uint8),
        "offset": offsets(lengths),
        **steps.arrays(),
        "mon_count": np.array(counts, np.int16),
        "mon_offset": offsets(np.multiply(counts, np.add(lengths, 1))),
        "mon_x": rows[:, X],
        "mon_vx": rows[:, VX],
    }


STEP_TYPES: Final[dict[str, type]] = {
    "action": np.uint8,
    **dict.fromkeys(("x", "y", "vx", "vy", "reward"), np.float32),
    **dict.fromkeys(("done", "complete"), np.uint8),
    "elapsed": np.int16,
    **dict.fromkeys(("support", "on_crate"), np.uint8),
}


class Steps:
    """What each step showed, of all runs one after another."""

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {name: [] for name in STEP_TYPES}

    def take(self, game: Game, action: int) -> Shown:
        """Plays one step and keeps what it showed; the state after it."""
        reward, done, complete = game.step(action)
        shown = game.show()
        x, y, vx, vy = shown.things[0].view(np.float32)[[X, Y, VX, VY]]
        row = (action, x, y, vx, vy, reward, done, complete)
        row += (shown.clock, shown.support, shown.on_crate)
        for name, value in zip(STEP_TYPES, row, strict=True):
            self.values[name].append(value)
        return shown

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.array(self.values[name], kind) for name, kind in STEP_TYPES.items()}


def uniform(num_steps: int, generator: np.random.Generator) -> np.ndarray:
    """All 15 actions alike."""
    return generator.integers(15, size=num_steps)


def to_the_right(num_steps: int, generator: np.random.Generator) -> np.ndarray:
    """To the right or up to the right, more often than not."""
    chance = np.full(15, 0.3 / 13)
    chance[[7, 8]] = 0.28, 0.42
    return generator.choice(15, size=num_steps, p=chance)


def held(num_steps: int, generator: np.random.Generator) -> np.ndarray:
    """Actions that are each held for up to 12 steps, more of them to the right than to the left."""
    chance = np.array([1, 2, 2, 1, 1, 2, 3, 6, 8]) / 26
    actions = generator.choice(9, size=num_steps, p=chance)
    return np.repeat(actions, generator.integers(1, 13, size=num_steps))[:num_steps]


def still(num_steps: int, generator: np.random.Generator) -> np.ndarray:
    """Nothing at all until the clock runs out, then `held`."""
    return np.concatenate([np.full(min(num_steps, 1000), NOTHING), held(10, generator)])[:num_steps]


RULES: Final = (uniform, to_the_right, held, held, to_the_right, held, still, held)


def offsets(sizes: Any) -> np.ndarray:
    """int32[N + 1]: where each of N pieces of those sizes starts, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)


def main() -> None:
    """Records both modes and prints what was recorded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write; made if it is not there")
    parser.add_argument("--levels", type=int, default=200, help="levels and trajectories per mode")
    parser.add_argument("--seed", type=int, required=True, help="of the levels and actions chosen")
    chosen = parser.parse_args()
    if chosen.levels < NUM_LONG:
        parser.error(f"--levels must be at least {NUM_LONG}, got {chosen.levels}")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(chosen.seed)
    for mode in MODES:
        first, second, third = generator.integers(NUM_SEEDS, size=(3, chosen.levels))
        for name, recording in (
            ("levels", record_levels(first, mode)),
            ("traj", record_runs(second, mode, generator)),
            ("short", record_short_runs(third, mode, generator)),
        ):
            np.savez_compressed(chosen.folder / f"{name}_{mode}.npz", **recording)
            print(f"{name}_{mode}: {len(recording['seed'])}", end="")
            if "done" in recording:
                print(
                    f", {len(recording['action'])} steps, {recording['done'].sum()} ends, "
                    f"{recording['complete'].sum()} of them by the coin",
                    end="",
                )
            print()


if __name__ == "__main__":
    main()
