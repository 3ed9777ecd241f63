"""A planner over the true physics: from any state, actions that reach CoinRun's coin alive.

Two uses: a witness that a level can be solved, and a helper who takes over from an agent in
whatever state it has brought itself to. What is found can be replayed with `physics.step`, to the
bit on the machine that found it. What is not found is no proof that there is no way: `Plans` says
how the search ended. Not for learners: a plan knows the whole level and all its monsters.

The search goes through time and keeps the `width` most promising states of each layer. All of them
have the same clock, so their monsters stand in the same places and where the agent is and how fast
it moves tells them apart. They share one level, which is kept outside of them.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.envs.coinrun.level import SIZE, TOP_BITS, Layout, Level
from hotoven.envs.coinrun.physics import END_COIN, END_TIME, JUMP, TALL, State, step

NUM_MOVES: Final = 9  # the actions that differ; the others are again 4, doing nothing
NOTHING: Final = 4
MAX_AHEAD: Final = 400  # steps that a plan may take; of 2000 levels none took half of that
# What a cell that has to be climbed counts, in cells to the right.
CLIMB: Final = np.float32(0.5)


class Effort(NamedTuple):
    """How thoroughly to search."""

    width: int  # states kept of each layer
    hold: int  # steps between two layers, all with one action
    # States in one box of half a cell, and of 1/4 and 1/2 in vx and vy, are taken for one; a
    # fineness of 2 halves each side.
    fineness: int


# Tried one after the other until a way is found. The first suffices for 99% of levels.
EFFORTS: Final = (Effort(32, 3, 1), Effort(256, 2, 2), Effort(4096, 1, 4))
BATCH: Final = 1024  # states kept at once by all searches together, unless one needs more
NO_BOX: Final = 2**31 - 1


class Plans(NamedTuple):
    """The ways found from N states. Arrays of numpy."""

    found: np.ndarray  # bool[N]  the actions end with the coin and with nothing else
    num_steps: np.ndarray  # int32[N]  actions of the way; 0 where none was found
    actions: np.ndarray  # int8[N, T]  the ways, with doing nothing after each
    # bool[N]  none was found, and the search did not have to leave anything out but states that
    # were taken for one: the agent dies or runs out of time whatever it does, or the episode has
    # ended already, as far as that search could tell apart
    died_out: np.ndarray


class _Beam(NamedTuple):
    """One search under way. Its states have no level: `level` is ()."""

    num_layers: jax.Array  # int32[]
    states: Any  # a State; leaves [width, ...], the most promising first
    alive: jax.Array  # bool[width]
    # int32[layers, width]: of each state kept, its number among the children of the layer before;
    # children of state i are 9 * i + action
    origins: jax.Array
    solved: jax.Array  # int32[]  the number of a child that has the coin; -1 while there is none
    num_steps: jax.Array  # int32[]  the clock of that child
    cut: jax.Array  # bool[]  states were left out for want of width


def plan(states: State, efforts: tuple[Effort, ...] = EFFORTS) -> Plans:
    """Searches from each state for a way to the coin, one effort after the other.

    Where the search has died out with two efforts, no third is made.

    Args:
      states: leaves [N, ...], as `physics.step` leaves them, in mid-air too. From a state that has
        ended there is no way.

    Raises:
      ValueError: the states have no axis of their own.
    """
    states = jax.tree.map(np.asarray, states)
    if states.x.ndim != 1:
        raise ValueError(f"states must be many, with x of shape [N], got shape {states.x.shape}")
    count = len(states.x)
    ways = [np.zeros(0, np.int8)] * count
    found, died_out = np.zeros((2, count), bool)
    times_died = np.zeros(count, int)
    for effort in efforts:
        for chosen in _batches(states, np.flatnonzero(~found & (times_died < 2)), effort):
            beams = jax.device_get(_search_all(_filled(states, chosen), effort))
            for place, index in enumerate(chosen[chosen >= 0]):
                beam = jax.tree.map(lambda leaf, place=place: leaf[place], beams)
                found[index] = beam.solved >= 0
                died_out[index] = not (found[index] or beam.alive.any() or beam.cut)
                if found[index]:
                    num_steps = int(beam.num_steps - states.num_steps[index])
                    ways[index] = _read_back(beam, effort)[:num_steps]
        times_died += died_out
    lengths = np.array([len(way) for way in ways], np.int32)
    actions = np.full((count, lengths.max(initial=0)), NOTHING, np.int8)
    for index, way in enumerate(ways):
        actions[index, : len(way)] = way
    return Plans(found, lengths, actions, died_out)


def _batches(states: State, indices: np.ndarray, effort: Effort) -> Iterator[np.ndarray]:
    """The indices in batches of one size, so that a program is compiled once; -1 fills the last up.

    A batch takes as long as its longest search, so searches that may take equally long go together.
    """
    size = max(1, BATCH // effort.width)
    to_go = states.level.layout.coin[indices, 0] - states.x[indices]
    ordered = indices[np.argsort(to_go, kind="stable")]
    for start in range(0, len(ordered), size):
        batch = ordered[start : start + size]
        yield np.pad(batch, (0, size - len(batch)), constant_values=-1)


def _filled(states: State, chosen: np.ndarray) -> State:
    """The states chosen, and one that has ended for each -1."""
    taken = jax.tree.map(lambda leaf: leaf[np.maximum(chosen, 0)], states)
    return taken._replace(ends=np.where(chosen < 0, np.uint8(END_TIME), taken.ends))


def _read_back(beam: _Beam, effort: Effort) -> np.ndarray:
    """int8[layers * hold]: the actions that led to the child that has the coin."""
    actions, child = [], int(beam.solved)
    for layer in range(int(beam.num_layers) - 1, -1, -1):
        parent, action = divmod(child, NUM_MOVES)
        actions.append(action)
        child = int(beam.origins[layer - 1, parent])  # of the first layer: not used
    return np.repeat(np.array(actions[::-1], np.int8), effort.hold)


@partial(jax.jit, static_argnames="effort")
def _search_all(states: State, effort: Effort) -> _Beam:
    return jax.vmap(partial(_search, effort=effort))(states)


def _search(state: State, effort: Effort) -> _Beam:
    """The beam from `state` when it has found the coin, has died out, or has come to its limit."""
    width, hold, _ = effort
    max_layers = MAX_AHEAD // hold

    def layer(beam: _Beam) -> _Beam:
        children = _children(beam.states, state.level, hold)
        alive = jnp.repeat(beam.alive, NUM_MOVES)
        solved = alive & (children.ends == END_COIN)
        kept, num_kept = _choose(children, alive & (children.ends == 0), state.level.layout, effort)
        child = jnp.where(solved.any(), solved.argmax(), -1).astype(jnp.int32)
        return _Beam(
            beam.num_layers + 1,
            jax.tree.map(lambda leaf: leaf[kept], children),
            jnp.arange(width) < num_kept,
            beam.origins.at[beam.num_layers].set(kept),
            child,
            children.num_steps[child],
            beam.cut | (num_kept > width),
        )

    def goes_on(beam: _Beam) -> jax.Array:
        return (beam.solved < 0) & beam.alive.any() & (beam.num_layers < max_layers)

    start = _Beam(
        jnp.int32(0),
        jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (width, *leaf.shape)), _bare(state)),
        (jnp.arange(width) == 0) & (state.ends == 0),
        jnp.zeros((max_layers, width), jnp.int32),
        jnp.int32(-1),
        state.num_steps,
        jnp.bool_(False),
    )
    return jax.lax.while_loop(goes_on, layer, start)


def _bare(state: State) -> State:
    """The state without its level."""
    nothing: Any = ()
    return state._replace(level=nothing)


def _children(states: State, level: Level, hold: int) -> State:
    """Each state (leaves [width, ...]) after each of the moves; leaves [width * NUM_MOVES, ...]."""

    def child(state: State, action: jax.Array) -> State:
        def once(_: int, state: State) -> State:
            return _bare(step(state._replace(level=level), action))

        return jax.lax.fori_loop(0, hold, once, state)

    moves = jnp.arange(NUM_MOVES, dtype=jnp.int32)
    children = jax.vmap(jax.vmap(child, in_axes=(None, 0)), in_axes=(0, None))(states, moves)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), children)


def _choose(
    children: State, alive: jax.Array, layout: Layout, effort: Effort
) -> tuple[jax.Array, jax.Array]:
    """int32[width]: which children to keep, the most promising first; and how many there were.

    Of those taken for one only the most promising counts, and of the dead none.
    """
    to_go = _to_go(children.x, children.y, layout)
    box = jnp.where(alive, _box(children, effort.fineness), np.int32(NO_BOX))
    number = jnp.arange(len(box), dtype=jnp.int32)
    box, to_go, number = jax.lax.sort((box, to_go, number), num_keys=3)
    counts = jnp.concatenate([jnp.ones(1, bool), box[1:] != box[:-1]]) & (box != NO_BOX)
    _, kept = jax.lax.sort((jnp.where(counts, to_go, np.float32(np.inf)), number), num_keys=2)
    return kept[: effort.width], counts.sum(dtype=jnp.int32)


def _box(states: State, fineness: int) -> jax.Array:
    """int32: equal for states that are taken for one; below NO_BOX."""
    key = states.on_crate.astype(jnp.int32)
    for value, lowest, highest, per_unit in (
        (states.x, 0, SIZE, 2),
        (states.y, 0, SIZE, 2),
        (states.vx, -0.5, 0.5, 4),
        (states.vy, -JUMP, JUMP, 2),
    ):
        number = jnp.floor((value - np.float32(lowest)) * np.float32(per_unit * fineness))
        most = int((highest - lowest) * per_unit * fineness)  # the highest value has its own
        key = key * (most + 1) + jnp.clip(number.astype(jnp.int32), 0, most)
    return key


def _to_go(x: jax.Array, y: jax.Array, layout: Layout) -> jax.Array:
    """float32: about how far the coin is: cells to the right, and what remains to be climbed."""
    low, width = TOP_BITS
    tops = (layout.columns >> np.uint32(low)) & np.uint32((1 << width) - 1)
    coin_x, coin_y = (layout.coin[k].astype(jnp.int32) for k in range(2))
    # Beyond the coin all is rock, which nobody has to climb.
    tops = jnp.where(jnp.arange(SIZE) > coin_x, coin_y, tops.astype(jnp.int32))
    ahead = jax.lax.cummax(tops, reverse=True)[x.astype(jnp.int32)].astype(jnp.float32)
    return coin_x.astype(jnp.float32) - x + CLIMB * jnp.maximum(ahead + TALL - y, np.float32(0))
