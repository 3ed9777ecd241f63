"""Agents as files: training in chunks with checkpoints, ensembles saved and loaded.

Many agents are trained by one learner on as many devices as there are: in turn on a core, side by
side on a GPU. This module adds what needs a host: progress, checkpoints that survive a kill, and
the stop on a loss that is not a number.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.devices import at_once, join, learns_in_turn, spread
from hotoven.learners.learner import Learner, Settings
from hotoven.storage import read_arrays, write_arrays
from hotoven.types import CATASTROPHE, SOLVED, PyTree


class TrainingDiverged(RuntimeError):
    """A loss, or a network's params, became NaN or infinite."""


class ChunkReport(NamedTuple):
    """What one chunk of training shows; arrays have one entry per agent."""

    num_updates: int  # gradient steps done so far
    loss: np.ndarray  # float32  mean loss in the chunk
    num_episodes: np.ndarray  # int64  training episodes ended in the chunk, exploration included
    solved: np.ndarray  # float64  share of them solved; NaN where none ended
    catastrophe: np.ndarray  # float64  share of them ended in a catastrophe


@dataclass(frozen=True)
class Chunks:
    """How a training is cut: fixed points, so that a resumed run repeats an uninterrupted one."""

    num_iterations: int  # in all
    size: int  # iterations per chunk; the last may be shorter

    def after(self, done: int) -> int:
        """Iterations done at the end of the chunk that starts after `done` iterations."""
        return min(done + self.size, self.num_iterations)


class Writing:
    """When to write a checkpoint: after every chunk, unless that would take up much of the time.

    On a GPU all replay buffers of an ensemble are written in seconds, learned from in less. A kill,
    or a loss that is not a number, then costs at most ten times what writing takes, and a chunk.
    """

    FREE: Final = 1.0  # seconds that it may always take
    SHARE: Final = 0.1  # of the time

    def __init__(self) -> None:
        self._began = self._ended = time.perf_counter()

    def is_due(self) -> bool:
        """Whether it would take at most its share, as far as the last time tells."""
        took, since = self._ended - self._began, time.perf_counter() - self._ended
        return took <= max(self.FREE, self.SHARE * since)

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._ended = time.perf_counter()


def train(
    config: Settings,
    learner: Learner,
    levels: PyTree,
    num_levels: np.ndarray,
    keys: jax.Array,
    chunks: Chunks,
    checkpoint: Path | None = None,
    on_chunk: Callable[[ChunkReport], None] = lambda report: None,
    devices: Sequence[jax.Device] | None = None,
) -> PyTree:
    """Params of all agents (leaves [agents, ...], on the host).

    Agent i plays the first `num_levels[i]` of `levels` (leaves [L, ...]) and starts from `keys[i]`.
    The agents are spread over `devices` (all local ones by default), one compiled program on each.
    With a `checkpoint` path the state is written there after a chunk (see `Writing`), and training
    goes on from what it holds.

    Raises:
      TrainingDiverged: a loss or a param is NaN or infinite; the checkpoint holds a good state.
      ValueError: the checkpoint is damaged or belongs to other settings, or there is no agent, or
        not one number of levels for each.
    """
    sizes = np.asarray(num_levels, np.int32)
    if len(keys) < 1 or sizes.shape != (len(keys),):
        raise ValueError(
            f"there must be a number of levels for each of at least one agent's keys, got "
            f"num_levels of shape {list(sizes.shape)} and {len(keys)} keys"
        )
    groups = spread(len(keys), devices or jax.local_devices())
    init = jax.jit(jax.vmap(learner.init, (None, 0, 0)))
    on_each = [jax.device_put((levels, sizes[rows]), device) for device, rows in groups]
    done = 0
    if checkpoint is not None and checkpoint.exists():
        pattern = jax.eval_shape(init, levels, sizes, keys)
        state, done = load_state(checkpoint, pattern, config)
        states = [
            jax.device_put(jax.tree.map(lambda leaf, rows=rows: leaf[rows], state), device)
            for device, rows in groups
        ]
    else:
        starts = [jax.device_put(keys[rows], device) for device, rows in groups]
        states = at_once(lambda seen, key: init(*seen, key), on_each, starts)

    chunk = make_chunk(learner, learns_in_turn(groups[0][0]))
    writing = Writing()
    while done < chunks.num_iterations:
        upto = chunks.after(done)
        results = at_once(partial(chunk, done, upto - done), states, on_each)
        states = [state for state, _ in results]
        progress = jax.tree.map(
            lambda *leaves: np.concatenate(leaves), *[progress for _, progress in results]
        )
        loss = progress.loss  # [agents, iterations]
        # the params too: those of a chunk's last update are in no loss of that chunk
        finite = np.isfinite(loss).all(axis=1) & _all_finite(join([s.params for s in states]))
        if not finite.all():
            agents = np.flatnonzero(~finite)
            kept = "nothing was kept"
            if checkpoint is not None and checkpoint.exists():
                kept = f"the last good state that was written is in {checkpoint}"
            raise TrainingDiverged(
                f"the loss or params of agents {agents.tolist()} became NaN or infinite between "
                f"updates {done * config.updates_per_iteration} and "
                f"{upto * config.updates_per_iteration} "
                f"(learning_rate {config.learning_rate}); {kept}"
            )
        done = upto
        if checkpoint is not None and (done == chunks.num_iterations or writing.is_due()):
            with writing:
                save_state(checkpoint, join(states), done, config)
        on_chunk(_report(done * config.updates_per_iteration, loss, progress.ended))
    return join([state.params for state in states])


def make_chunk(learner: Learner, in_turn: bool) -> Callable[..., tuple[Any, PyTree]]:
    """A group's training for some iterations, compiled once for each count and group size.

    The function takes `first`, the iterations done, `count`, those to do, the agents' states
    (leaves [agents, ...], given up) and (levels, number of levels of each agent), and returns the
    states and the progress (leaves [agents, count, ...]). With `in_turn` an agent learns when the
    one before it is done, else all learn side by side: docs/decisions/0013-members-in-turn.md.
    """

    @partial(jax.jit, static_argnums=1, donate_argnums=2)
    def chunk(
        first: int | jax.Array, count: int, states: Any, seen: tuple[PyTree, jax.Array]
    ) -> tuple[Any, PyTree]:
        levels, sizes = seen
        times = first + jnp.arange(count, dtype=jnp.int32)

        def learn(one: tuple[Any, jax.Array]) -> tuple[Any, PyTree]:
            state, size = one
            return jax.lax.scan(lambda now, t: learner.iterate(now, t, levels, size), state, times)

        every = (states, sizes)
        return jax.lax.map(learn, every) if in_turn else jax.vmap(learn)(every)

    return chunk


def _all_finite(params: PyTree) -> np.ndarray:
    """bool[agents]: whose params (host arrays [agents, ...]) are all finite."""
    leaves = jax.tree.leaves(params)
    flags = [np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in leaves]
    return np.logical_and.reduce(flags)


def _report(num_updates: int, loss: np.ndarray, ended: np.ndarray) -> ChunkReport:
    counts = ended.astype(np.int64).sum(axis=1)  # [agents, outcomes]
    episodes = counts[:, 1:].sum(axis=1)
    with np.errstate(invalid="ignore"):
        solved, catastrophe = counts[:, SOLVED] / episodes, counts[:, CATASTROPHE] / episodes
    return ChunkReport(num_updates, loss.mean(axis=1), episodes, solved, catastrophe)


def save_state(path: Path, state: Any, done: int, config: Settings) -> None:
    """Writes a training state after `done` iterations."""
    about = {"iterations": done, "config": repr(config)}
    write_arrays(path, to_arrays(state), {"training": json.dumps(about)})


def load_state(path: Path, pattern: PyTree, config: Settings) -> tuple[Any, int]:
    """The training state in `path` and the iterations done; `pattern` gives shapes and dtypes.

    Raises:
      ValueError: the file is damaged or belongs to other settings.
    """
    arrays, metadata = read_arrays(path)
    about = json.loads(metadata.get("training", "{}"))
    if about.get("config") != repr(config):
        raise ValueError(f"{path} belongs to a training with other settings: {about.get('config')}")
    return from_arrays(arrays, pattern, path), about["iterations"]


def save_params(path: Path, params: PyTree, about: dict[str, object]) -> None:
    """Writes an ensemble's params (leaves [M, ...]) with what is known of it as JSON."""
    write_arrays(path, to_arrays(params), {"agent": json.dumps(about)})


def read_params(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """The arrays in `path`, for `from_arrays`, and what was saved with them.

    Raises:
      ValueError: there is no such file, or it is damaged.
    """
    arrays, metadata = read_arrays(path)
    return arrays, json.loads(metadata.get("agent", "{}"))


def to_arrays(tree: PyTree) -> dict[str, np.ndarray]:
    """The leaves of a pytree by name; random keys as their raw words."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): np.asarray(_raw(leaf)) for path, leaf in leaves}


def from_arrays(arrays: dict[str, np.ndarray], pattern: PyTree, source: Path) -> PyTree:
    """The pytree shaped as `pattern` whose leaves are `arrays`.

    Raises:
      ValueError: a leaf is missing or has another shape or dtype; the message names it.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(pattern)
    values = []
    for path, leaf in leaves:
        name, is_key = _name(path), jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        raw = jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf
        got = arrays.get(name)
        if got is None or got.shape != raw.shape or got.dtype != raw.dtype:
            came = "nothing" if got is None else f"{got.dtype}{list(got.shape)}"
            raise ValueError(f"{source}: {name} must be {raw.dtype}{list(raw.shape)}, got {came}")
        value = jnp.asarray(got)
        values.append(jax.random.wrap_key_data(value) if is_key else value)
    return jax.tree.unflatten(structure, values)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".") or "value"


def _raw(leaf: jax.Array) -> jax.Array:
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf
