"""CoinRun's physics: one level, one agent, pure; procgen's float32 to the bit on a CPU.

What is here: how the agent, the monsters and the crates move, what ends an episode and why. What
is not: observations, pictures, rewards and outcomes, which the environment makes of a `State`.

Units: cells, and cells per step. Positions are centres of boxes, x to the right and y up. Names of
constants say what they are; their bits are the game's, since a last bit decides whether a corner
still stands in a wall.

Three things make it exact and quick at once:

- The game rounds every single operation; XLA makes one of two where it can. `_rounded` closes a
  value off, so that nothing is left to merge.
- In one step the agent reaches three columns at most, whatever it does: they are looked up once
  and every corner is then a comparison.
- Boxes are clear of rock when a step begins, as `reset` and `step` leave them. In that case a
  sideways displacement of zero, which the game treats as a vertical one, changes nothing.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.envs.coinrun.level import (
    FIRST_BITS,
    LAVA_BITS,
    SAW_BITS,
    SECOND_BITS,
    SIZE,
    STONE_BITS,
    TOP_BITS,
    Layout,
    Level,
    Monsters,
)

NUM_ACTIONS: Final = 15  # 0..8: push (left, none, right) x lift (down, none, up); the rest: none
MAX_STEPS: Final = 1000

# What ends an episode, as bits: several may hold in one step. The cause is the first of them.
END_COIN, END_LAVA, END_SAW, END_MONSTER, END_TIME = 1, 2, 4, 8, 16
CAUSES: Final = ("", "coin", "lava", "saw", "monster", "timeout")


def _bits(pattern: int) -> np.float32:
    return np.uint32(pattern).view(np.float32)


HALF: Final = np.float32(0.5)  # half the width of everything, half the height of all but the agent
TALL: Final = np.float32(0.5787)  # half the agent's height
GRAVITY: Final = np.float32(0.2)
JUMP: Final = np.float32(1.5)  # also the largest vertical speed
MAX_SPEED: Final = np.float32(0.5)  # sideways
AIR_MIX: Final = np.float32(0.2) * np.float32(0.15)  # a product: one bit above the literal 0.03
KEEP_GROUND, KEEP_AIR = np.float32(1) - np.float32(0.2), np.float32(1) - AIR_MIX
PUSH_GROUND, PUSH_AIR = np.float32(0.2) * HALF, AIR_MIX * HALF
# Corners are probed at 0.98 of the half sizes.
CORNER_X: Final = HALF * np.float32(0.98)
CORNER_Y: Final = TALL * np.float32(0.98)
# Feet: 0.01 inside on the sides and below. The game adds in float64 and rounds: these give the
# same cell for every float32 from 0.5 to 128.
FOOT_LEFT, FOOT_RIGHT, FOOT_DOWN = _bits(0x3EFAE148), _bits(0x3EFAE147), _bits(0x3F16B50C)
REACH: Final = HALF + TALL  # from the centre of a crate, saw or monster to that of the agent
# A crate holds a body whose box it overlaps by more than a thousandth.
HOLD_X: Final = np.float32(1) + np.float32(-0.001)
HOLD_Y: Final = REACH + np.float32(-0.001)
# Cells are touched by the agent's box less a thousandth on every side.
TOUCH_X: Final = HALF + np.float32(-0.001)
TOUCH_Y: Final = TALL + np.float32(-0.001)
# Squared speeds from which a step takes 5 and 6 sub-steps instead of 4.
FASTER, FASTEST = np.float32(1.5625), np.float32(2.25)
MAX_PARTS: Final = 6
MAX_FLUSH: Final = 5  # times that one displacement may be put flush with a crate

# SHARES[n - 4, k]: k / n, rounded once.
SHARES: Final = np.array(
    [[np.float32(k) / np.float32(n) for k in range(MAX_PARTS + 1)] for n in (4, 5, 6)], np.float32
)


class State(NamedTuple):
    """Where an episode stands, and the level it is played on. Scalars but for the monsters."""

    level: Level
    x: jax.Array  # float32[]  the agent's centre
    y: jax.Array
    vx: jax.Array  # float32[]  cells per step
    vy: jax.Array
    on_crate: jax.Array  # bool[]  a crate held the agent (or a monster) up in the last step
    support: jax.Array  # bool[]  whether the agent could push and jump in the last step
    push: jax.Array  # int8[]  -1 left, 0, 1 right: the last action
    facing_left: jax.Array  # bool[]  the last push that was not 0 was to the left
    monster_x: jax.Array  # float32[MAX_MONSTERS]
    monster_vx: jax.Array  # float32[MAX_MONSTERS]
    num_steps: jax.Array  # int32[]
    num_ties: jax.Array  # int32[]  steps in which a random bit of the level decided
    ends: jax.Array  # uint8[]  END_* bits of the last step; 0 while the episode goes on


class _Near(NamedTuple):
    """Columns next to each other from which a step cannot lead away; leaves float32[]."""

    first: jax.Array  # x of the leftmost column
    top: tuple[jax.Array, ...]  # of each column
    stone: tuple[jax.Array, ...]
    lava: tuple[jax.Array, ...]
    saw: tuple[jax.Array, ...]


class _Crates(NamedTuple):
    """The crates of those columns: the two piles of one section, from below, on the same ground."""

    x: tuple[jax.Array, ...]  # float32[] of each pile, its centre
    holds: tuple[tuple[jax.Array, ...], ...]  # bool[]: that crate of the pile may act as a floor
    y: tuple[jax.Array, ...]  # float32[] of each crate of a pile


def reset(level: Level) -> State:
    """The state at the start of `level`."""
    level = jax.tree.map(jnp.asarray, level)
    monsters = level.layout.monsters
    direction = monsters.direction.astype(jnp.float32)  # 1 left, 2 right, 0 none
    speed = jnp.where(direction > 1, np.float32(0.15), np.float32(-0.15))
    no = jnp.bool_(False)
    return State(
        level=level,
        x=jnp.float32(1.5),
        y=jnp.float32(np.float32(1) + TALL),
        vx=jnp.float32(0),
        vy=jnp.float32(0),
        on_crate=no,
        support=no,
        push=jnp.int8(0),
        facing_left=no,
        monster_x=monsters.column.astype(jnp.float32) + HALF,
        monster_vx=jnp.where(direction > 0, speed, np.float32(0)),
        num_steps=jnp.int32(0),
        num_ties=jnp.int32(0),
        ends=jnp.uint8(0),
    )


@jax.jit  # its loops are compiled once then, also for who calls it step by step
def step(state: State, action: jax.Array) -> State:
    """The state after `action` (int32[], 0 to 14). After the end a step changes nothing."""
    layout = state.level.layout
    running = state.ends == 0
    num_steps = state.num_steps + 1
    move = jnp.where(action >= 9, 4, action)
    push = move // 3 - 1
    lift = move % 3 - 1

    words, first = _columns(layout, state.x)
    support = _support(state, words, first)
    jumps = (lift == 1) & support
    drops = lift == -1
    vx, vy = _accelerate(state, support, push.astype(jnp.float32), jumps, drops)

    # A crate is a floor for whoever was above it when the step began, while the agent falls.
    falls = (vy < 0) & ~drops
    monster_x, monster_vx, on_crate = once(
        lambda: _move_monsters(layout.monsters, state.monster_x, state.monster_vx, falls, state.y),
        (state.monster_x, state.monster_vx, jnp.bool_(False)),
    )
    near, crates = _near(words, first, vx, falls, state.y)
    side_first, tied = _side_first(state, vx, vy, push, jumps | drops)
    x, y, vx, vy, landed = _move_agent(near, crates, state.x, state.y, vx, vy, side_first)
    ends = _ends(layout, near, x, y, monster_x, num_steps)

    def keep(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(running, new, old)

    return State(
        level=state.level,
        x=keep(x, state.x),
        y=keep(y, state.y),
        vx=keep(vx, state.vx),
        vy=keep(vy, state.vy),
        on_crate=keep(on_crate | landed, state.on_crate),
        support=keep(support, state.support),
        push=keep(push.astype(jnp.int8), state.push),
        facing_left=keep((push < 0) | ((push == 0) & state.facing_left), state.facing_left),
        monster_x=keep(monster_x, state.monster_x),
        monster_vx=keep(monster_vx, state.monster_vx),
        num_steps=keep(num_steps, state.num_steps),
        num_ties=keep(state.num_ties + tied.astype(jnp.int32), state.num_ties),
        ends=keep(ends, state.ends),
    )


def supported(state: State) -> jax.Array:
    """bool[]: whether the agent can push off and jump in the step that comes."""
    return _support(state, *_columns(state.level.layout, state.x))


def cause(ends: jax.Array) -> jax.Array:
    """int8[]: the one cause of an end, an index into CAUSES; 0 while nothing has ended.

    The coin counts first, as it pays whatever else happens; then lava, saw, monster, the clock.
    """
    lowest = ends & (~ends + jnp.uint8(1))
    return jnp.where(ends == 0, 0, 8 - jax.lax.clz(lowest).astype(jnp.int8)).astype(jnp.int8)


def _rounded(value: jax.Array) -> jax.Array:
    """The same value, rounded to float32 before anything else is done with it; below a million.

    XLA turns a * b + c into one instruction with one rounding, and (a + 1) + 0.5787 into
    a + 1.5787; the game does neither. Barriers and casts don't stop it. An operation in between
    does, and a minimum is the cheapest.
    """
    return jnp.minimum(value, np.float32(2**20))


def once(
    compute: Callable[[], tuple[jax.Array, ...]], like: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    """What `compute` returns, computed once; `like` has the same shapes and types.

    XLA compiles every use of a value together with all that it depends on, over and over: here that
    makes a step three times slower. It does not look into a branch, nor does it know in which turn
    of a loop it is taken.
    """

    def turn(index: jax.Array, values: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return jax.lax.cond(index == 0, lambda _: compute(), lambda values: values, values)

    return jax.lax.fori_loop(0, 2, turn, like)


def _number(word: jax.Array, bits: tuple[int, int]) -> jax.Array:
    """float32[]: the number that those bits of a column's word hold."""
    low, width = bits
    value = (word >> np.uint32(low)) & np.uint32((1 << width) - 1)
    # By way of int32: a cast from unsigned takes several instructions.
    return value.astype(jnp.int32).astype(jnp.float32)


def _columns(layout: Layout, x: jax.Array) -> tuple[list[jax.Array], jax.Array]:
    """Words of the four columns that a step from `x` may touch, and float32[] x of the first.

    Two columns to the left and one to the right of the cell border nearest to x: half a cell of
    travel either way, and half a cell and what a box reaches on either side of that.
    """
    column = jnp.floor(x)
    first = column - jnp.where(x - column < HALF, np.float32(2), np.float32(1))
    first = jnp.clip(first, np.float32(0), np.float32(SIZE - 4))
    words = jax.lax.dynamic_slice(layout.columns, (first.astype(jnp.int32),), (4,))
    return [words[k] for k in range(4)], first


def _support(state: State, words: list[jax.Array], first: jax.Array) -> jax.Array:
    """bool[]: whether rock or a crate bears the agent at the start of a step."""
    foot = state.y - FOOT_DOWN
    border = first + np.float32(2)
    # Both feet stand in the second or the third of the four columns.
    second, third = (
        _is_rock(foot, _number(word, TOP_BITS), _number(word, STONE_BITS)) for word in words[1:3]
    )
    left = jnp.where(state.x - FOOT_LEFT < border, second, third)
    right = jnp.where(state.x + FOOT_RIGHT < border, second, third)
    return (state.on_crate | left | right) & (state.vy == 0)


def _is_rock(y: jax.Array, top: jax.Array, stone: jax.Array) -> jax.Array:
    """bool[]: whether the cell at height `y` of a column is rock. Row 63 is, as the world's rim."""
    return (y < top) | ((y >= stone) & (y < stone + 1)) | (y >= SIZE - 1)


def _accelerate(
    state: State, support: jax.Array, push: jax.Array, jumps: jax.Array, drops: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """float32[] x 2: the agent's velocity before anything stops it."""
    unit = jnp.where(support, PUSH_GROUND, PUSH_AIR)
    vx = _rounded(state.vx * jnp.where(support, KEEP_GROUND, KEEP_AIR)) + unit * push
    vx = jnp.where(jnp.abs(vx) < unit, np.float32(0), vx)
    vy = jnp.where(support & drops, -GRAVITY, state.vy) - GRAVITY
    vy = jnp.where(jumps, JUMP, jnp.clip(vy, -JUMP, JUMP))
    return vx, vy


def _move_monsters(
    monsters: Monsters, x: jax.Array, vx: jax.Array, falls: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The monsters' positions and velocities, and whether a crate counted as a floor for one.

    A step is four sub-steps. In it a monster turns at most once, at the cell ahead of it: its row
    is free over two cells at least, and it covers a seventh of one.

    Args:
      x, vx: float32[MAX_MONSTERS].
      falls, y: of the agent at the start of the step: it decides for monsters too which crates are
        floors.
    """
    leftwards = vx < 0
    edge = jnp.where(leftwards, _wide(monsters.left) + 1, _wide(monsters.right))
    corner = jnp.where(leftwards, -CORNER_X, CORNER_X)
    side = jnp.where(leftwards, -HALF, HALF)
    wall = jnp.where(leftwards, monsters.walls & 1, monsters.walls & 2) > 0
    dx = vx * np.float32(0.25)  # a power of two: exact, nothing to guard

    def beyond(x: jax.Array) -> jax.Array:
        """bool: whether that probe is in the cell at the edge."""
        return (x + corner < edge) == leftwards

    def held(x: jax.Array) -> jax.Array:
        """bool: whether a crate of its row holds a monster there."""
        first, second = _wide(monsters.first_crate) + HALF, _wide(monsters.second_crate) + HALF
        return (jnp.abs(x - first) < HOLD_X) | (jnp.abs(x - second) < HOLD_X)

    x1 = x + dx
    x2 = x1 + dx
    x3 = x2 + dx
    x4 = x3 + dx
    turns1, turns2, turns3, turns = beyond(x1), beyond(x2), beyond(x3), beyond(x4)

    def by_turn(*values: jax.Array | np.float32) -> jax.Array:
        """The first value where it turns in the first sub-step, the second in the second ..."""
        last = jnp.where(turns3, values[2], values[3])
        return jnp.where(turns1, values[0], jnp.where(turns2, values[1], last))

    ahead = by_turn(x1, x2, x3, x4) + side
    mirrored = by_turn(x1, x2, x3, x4) + 2 * (
        jnp.where(leftwards, jnp.ceil(ahead), jnp.floor(ahead)) - ahead
    )
    back1 = mirrored - dx
    back2 = back1 - dx
    back3 = back2 - dx
    new_x = jnp.where(turns, by_turn(back3, back2, back1, mirrored), x4)
    holds = falls & (y >= _rounded(_wide(monsters.row) + 1) + TALL)
    hit = turns & wall
    # A wall met on a crate ends the step there, with the sub-steps before it as the free ones.
    stays = hit & holds & held(mirrored)
    before = by_turn(*(np.float32(k / 4) for k in range(4)))
    share = jnp.where(stays, before, jnp.where(hit, np.float32(0.75), np.float32(1)))
    new_x = jnp.where(stays, mirrored, new_x)
    # The places in between need no look. Where it does not turn they lie between these two. Where
    # it does, crates lie on the far side of it from the edge (or so near that they hold it all the
    # while), and of these two one is the farthest that it gets from the edge.
    on_crate = (holds & (held(x1) | held(new_x))).any()
    return new_x, jnp.where(turns, -vx, vx) * share, on_crate


def _wide(field: jax.Array) -> jax.Array:
    """float32: small whole numbers, ready to be reckoned with."""
    return field.astype(jnp.int32).astype(jnp.float32)


def _near(
    words: list[jax.Array], first: jax.Array, vx: jax.Array, falls: jax.Array, y: jax.Array
) -> tuple[_Near, _Crates]:
    """The three of the four columns that lie in the agent's way, and the crates on them."""
    leftwards = vx < 0
    words = [jnp.where(leftwards, words[k], words[k + 1]) for k in range(3)]
    first = jnp.where(leftwards, first, first + 1)

    def each(bits: tuple[int, int]) -> tuple[jax.Array, ...]:
        return tuple(_number(word, bits) for word in words)

    near = _Near(first, each(TOP_BITS), each(STONE_BITS), each(LAVA_BITS), each(SAW_BITS))
    xs, heights = [], []
    foot = jnp.float32(0)
    for bits in (FIRST_BITS, SECOND_BITS):
        x, height = first, jnp.float32(0)
        # One column at most holds such a pile, and two piles stand on the same ground.
        for k, own in enumerate(each(bits)):
            x = jnp.where(own > 0, first + (k + HALF), x)
            foot = jnp.where(own > 0, near.top[k], foot)
            height = height + own
        xs.append(x)
        heights.append(height)
    above = [falls & (y >= _rounded(foot + (k + 1)) + TALL) for k in range(3)]
    holds = [tuple(above[k] & (height > k) for k in range(3)) for height in heights]
    return near, _Crates(tuple(xs), tuple(holds), tuple(foot + (k + HALF) for k in range(3)))


def _side_first(
    state: State, vx: jax.Array, vy: jax.Array, push: jax.Array, lifts: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Whether the agent moves sideways before it moves up or down, and whether a bit decided that.

    Both bool[]; the order is that of every sub-step.
    """
    word = state.level.ties[jnp.minimum(state.num_steps, MAX_STEPS - 1) >> 5]
    odd = (word >> (state.num_steps & 31).astype(jnp.uint32)) & 1
    across, along = jnp.abs(vx), jnp.abs(vy)
    ties = across == along
    faster = jnp.where(ties, odd == 0, across > along)
    # at rest there is nothing to put in order
    tied = ties & (along > 0) & (push == 0) & ~lifts
    return (faster | (push != 0)) & ~lifts, tied


def _move_agent(
    near: _Near,
    crates: _Crates,
    x: jax.Array,
    y: jax.Array,
    vx: jax.Array,
    vy: jax.Array,
    side_first: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """The agent's position and velocity after all sub-steps, and whether it landed on a crate.

    A sub-step is a displacement sideways and one up or down, in either order. Here they alternate,
    beginning and ending sideways; of those two, one is left out.
    """
    squared = _rounded(vx * vx) + _rounded(vy * vy)
    parts = 4 + (squared >= FASTER).astype(jnp.int32) + (squared >= FASTEST).astype(jnp.int32)
    share = jnp.where(parts == 4, SHARES[0, 1], jnp.where(parts == 5, SHARES[1, 1], SHARES[2, 1]))
    dx, dy = _rounded(vx * share), _rounded(vy * share)

    def part(number: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """Sub-step `number`: the last one's sideways displacement if that is due, then this one."""
        x, y, word = carry
        going, stopped_x, stopped_y, landed, free_x, free_y = _unpack(word)
        due = number <= parts
        # Sideways first: this sub-step takes place unless the last one was stopped both ways.
        goes = going & due & ~(stopped_x & stopped_y)
        moves = jnp.where(side_first, goes, going & (number > 1))
        x, stopped_x = _move_aside(near, x, y, dx, moves)
        free_x = free_x + (moves & ~stopped_x).astype(jnp.int32)
        going = jnp.where(side_first, goes, going & due & ~(stopped_x & stopped_y))
        y, stopped_y, lands = _move_up(near, crates, x, y, dy, going & ~landed)
        free_y = free_y + (going & ~stopped_y).astype(jnp.int32)
        return x, y, _pack(going, stopped_x, stopped_y, landed | lands, free_x, free_y)

    start = jnp.int32(1)  # going, and nothing else
    x, y, word = jax.lax.fori_loop(1, MAX_PARTS + 2, part, (x, y, start))
    _, _, _, landed, free_x, free_y = _unpack(word)
    shares = jnp.asarray(SHARES)
    vx = _rounded(vx * shares[parts - 4, free_x])
    vy = _rounded(jnp.where(landed, np.float32(0), vy) * shares[parts - 4, free_y])
    return x, y, vx, vy, landed


def _pack(*values: jax.Array) -> jax.Array:
    """int32[]: four bools and two counts below 8 as one number.

    XLA compiles the values that a loop carries one by one, each with all that it depends on. The
    fewer there are, the less is computed twice.
    """
    bools, counts = values[:4], values[4:]
    word = counts[0] << 4 | counts[1] << 8
    for place, value in enumerate(bools):
        word = word | value.astype(jnp.int32) << place
    return word


def _unpack(word: jax.Array) -> tuple[jax.Array, ...]:
    """What `_pack` was given."""
    return (*((word >> place) & 1 > 0 for place in range(4)), (word >> 4) & 7, (word >> 8) & 7)


def _ground(near: _Near, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32[] x 2: height of the rock and row of the lone stone under the corners of the box."""
    second, third = near.first + 1, near.first + 2
    left, right = x - CORNER_X, x + CORNER_X

    def under(corner: jax.Array, heights: tuple[jax.Array, ...]) -> jax.Array:
        last = jnp.where(corner < third, heights[1], heights[2])
        return jnp.where(corner < second, heights[0], last)

    # Stones side by side are of one height, and 0, none, is below any other.
    return (
        jnp.maximum(under(left, near.top), under(right, near.top)),
        jnp.maximum(under(left, near.stone), under(right, near.stone)),
    )


def _in_rock(y: jax.Array, top: jax.Array, stone: jax.Array) -> jax.Array:
    """bool[]: whether a corner of the agent's box, its centre at height `y`, is in rock."""
    low, high = y - CORNER_Y, y + CORNER_Y
    in_stone = ((low >= stone) & (low < stone + 1)) | ((high >= stone) & (high < stone + 1))
    return (low < top) | in_stone | (high >= SIZE - 1)


def _move_aside(
    near: _Near, x: jax.Array, y: jax.Array, dx: jax.Array, moves: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The agent's x after one sideways displacement, and whether rock stopped it."""
    new_x = x + dx
    stopped = _in_rock(y, *_ground(near, new_x)) & (dx != 0)
    at_wall = jnp.where(dx > 0, jnp.floor(new_x + HALF) - HALF, jnp.ceil(new_x - HALF) + HALF)
    return jnp.where(moves, jnp.where(stopped, at_wall, new_x), x), stopped


def _move_up(
    near: _Near, crates: _Crates, x: jax.Array, y: jax.Array, dy: jax.Array, moves: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The agent's y after one displacement up or down; whether that stopped it; whether on a crate.

    A crate that holds the agent puts it flush with itself, which may bring it to another one.
    """
    top, stone = _ground(near, x)
    over = [jnp.abs(x - own) < HOLD_X for own in crates.x]
    holds = [[over[pile] & hold for hold in crates.holds[pile]] for pile in range(2)]

    def clear(new_y: jax.Array, up: jax.Array) -> tuple[jax.Array, jax.Array]:
        stopped = _in_rock(new_y, top, stone)
        at_rock = jnp.where(up, jnp.floor(new_y + TALL) - TALL, jnp.ceil(new_y - TALL) + TALL)
        return jnp.where(stopped, at_rock, new_y), stopped

    def flush(y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where the crate that holds the agent puts it, and whether there is one."""
        inside = [jnp.abs(y - own) < HOLD_Y for own in crates.y]
        found, crate = jnp.bool_(False), jnp.float32(0)
        # In the order of their creation: the last one counts.
        for pile in range(2):
            for k in range(3):
                held = holds[pile][k] & inside[k]
                crate = jnp.where(held, crates.y[k], crate)
                found = found | held
        target = jnp.where(y > crate, crate + REACH, jnp.where(y < crate, crate - REACH, crate))
        return jnp.where(found, target, y), found

    new_y, stopped = clear(y + dy, dy > 0)
    landed = held = jnp.bool_(True)
    for repeat in range(MAX_FLUSH):
        target, found = flush(new_y)
        held = held & found
        if repeat == 0:
            landed = held
        new_y = jnp.where(held, clear(target, target > new_y)[0], new_y)
    return jnp.where(moves, new_y, y), moves & (stopped | landed), moves & landed


def _ends(
    layout: Layout,
    near: _Near,
    x: jax.Array,
    y: jax.Array,
    monster_x: jax.Array,
    num_steps: jax.Array,
) -> jax.Array:
    """uint8[]: END_* bits of what the agent touches where it has come to rest, and of the clock."""
    left, right = jnp.trunc(x - TOUCH_X), jnp.trunc(x + TOUCH_X)
    low, high = jnp.trunc(y - TOUCH_Y), jnp.trunc(y + TOUCH_Y)
    coin_x, coin_y = (layout.coin[k].astype(jnp.int32).astype(jnp.float32) for k in range(2))
    coin = (left <= coin_x) & (coin_x <= right) & (low <= coin_y) & (coin_y <= high)
    lava, saw = jnp.bool_(False), jnp.bool_(False)
    for k in range(3):
        column = near.first + k
        wet = (near.lava[k] > 0) & (low <= near.lava[k]) & (high >= 1)
        lava = lava | (wet & (left <= column) & (column <= right))
        close = _touches(column + HALF - x, near.top[k] + HALF - y)
        saw = saw | (close & (near.saw[k] > 0))
    late = num_steps >= MAX_STEPS
    others = jnp.uint8(0)
    for happened, bit in ((coin, END_COIN), (lava, END_LAVA), (saw, END_SAW), (late, END_TIME)):
        others = others | jnp.where(happened, jnp.uint8(bit), jnp.uint8(0))
    monster = _touches(monster_x - x, _wide(layout.monsters.row) + HALF - y)
    ends = others | jnp.where(monster, jnp.uint8(END_MONSTER), jnp.uint8(0))
    return jax.lax.reduce_or(ends, (0,))


def _touches(dx: jax.Array, dy: jax.Array) -> jax.Array:
    """bool: whether a saw or monster that far from the agent kills it."""
    return (jnp.abs(dx) < 1) & (jnp.abs(dy) < REACH)
