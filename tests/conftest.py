"""Settings that hold for every test."""

import os
import signal
import tempfile
from collections.abc import Iterator

import jax
import pytest
from hypothesis import settings

# A GPU rounds products to fewer bits, and its sums come in any order: tests are for a CPU.
if "JAX_PLATFORMS" not in os.environ:
    os.environ["JAX_PLATFORMS"] = "cpu"  # for processes that tests start
    jax.config.update("jax_platforms", "cpu")

# Two devices, as on a machine with two cores: agents are spread over them.
jax.config.update("jax_num_cpu_devices", 2)

# Levels are kept for this run of the tests alone; processes that tests start share them.
_LEVELS = tempfile.TemporaryDirectory(prefix="hotoven-levels-")
os.environ["HOTOVEN_CACHE"] = _LEVELS.name

# No deadline: a first call compiles. Derandomised: a failure on one machine is one on another.
settings.register_profile("hotoven", deadline=None, derandomize=True)
settings.load_profile("hotoven")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT is not ignored by the processes started, though it may be by the one that tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
