"""Where agents are trained: spread over all devices there are, one group of agents on each.

On a CPU every core is made a device of its own (`use_every_core`): a core that trains its own
agents waits for nobody, where two cores that share every matrix product wait for each other
(docs/decisions/0007-batches-and-devices.md).
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np

from hotoven.types import PyTree

CACHE_SIZE: Final = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")


def use_every_core() -> None:
    """Makes every core that this process may use a CPU device; to be called before any other use.

    Does nothing where JAX already runs, or where JAX_NUM_CPU_DEVICES says how many.
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    try:
        jax.config.update("jax_num_cpu_devices", num_cores())
    except RuntimeError:  # JAX already runs, with the devices it has
        return


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_mib() -> float:
    """MiB of the first core's second-level cache, as Linux tells; 1 where nothing does."""
    try:
        return int(CACHE_SIZE.read_text().strip().removesuffix("K")) / 1024  # e.g. 2048K
    except (OSError, ValueError):
        return 1.0


def spread(count: int, devices: Sequence[jax.Device]) -> list[tuple[jax.Device, slice]]:
    """Which of `count` agents goes where: groups in order, no two differing by more than one."""
    groups = min(count, len(devices))
    ends = [count * (index + 1) // groups for index in range(groups)]
    return [
        (device, slice(begin, end))
        for device, begin, end in zip(devices, [0, *ends], ends, strict=False)
    ]


def learns_in_turn(device: jax.Device) -> bool:
    """Whether a group of agents learns faster one after the other there than side by side.

    On a core it does, likely since a cache holds one agent's networks and not five's; a GPU wants
    many products at a time (docs/decisions/0013-members-in-turn.md).
    """
    return device.platform == "cpu"


def at_once(work: Callable[..., Any], *groups: Sequence[Any]) -> list[Any]:
    """`work` of every group's arguments, each in a thread, so that they compile and run together.

    Returns when all are done.
    """
    with ThreadPoolExecutor(len(groups[0])) as threads:
        return list(threads.map(lambda *one: jax.block_until_ready(work(*one)), *groups))


def join(parts: Sequence[PyTree]) -> PyTree:
    """Host arrays (random keys as keys) of all agents, from those of the groups."""
    return jax.tree.map(lambda *leaves: _join_leaves(leaves), *parts)


def _join_leaves(leaves: Sequence[jax.Array]) -> Any:
    if jax.dtypes.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        words = np.concatenate([np.asarray(jax.random.key_data(leaf)) for leaf in leaves])
        return jax.random.wrap_key_data(jax.device_put(words))
    return np.concatenate([np.asarray(leaf) for leaf in leaves])
