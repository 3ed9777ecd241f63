"""CoinRun beside the live game, on levels and actions drawn anew each time. `make test-live`.

The game's package, procgen2, needs numpy 1 and ours numpy 2, so another interpreter plays and
records, and this one compares. The seed of the choice is printed; `make test-live SEED=7` repeats.
"""

import os
import secrets
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hotoven.envs.coinrun.level import MODES
from hotoven.envs.coinrun.verify import Comparison, compare_levels, compare_runs, read

RECORDER = Path(__file__).parent / "record_coinrun.py"
PYTHON = os.environ.get("HOTOVEN_PROCGEN_PYTHON")  # an interpreter that has procgen2
NUM_LEVELS = 200  # per mode; then as many trajectories, and short runs on as many levels

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not PYTHON,
        reason="HOTOVEN_PROCGEN_PYTHON names no interpreter with procgen2: run make test-live",
    ),
]
both_modes = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get("HOTOVEN_LIVE_SEED") or secrets.randbelow(2**31))


@pytest.fixture(scope="module")
def recordings(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what the game has just played."""
    folder = tmp_path_factory.mktemp("recordings")
    command = [str(PYTHON), str(RECORDER), str(folder)]
    command += ["--levels", str(NUM_LEVELS), "--seed", str(seed)]
    recorder = subprocess.run(command, capture_output=True, text=True)
    assert recorder.returncode == 0, recorder.stderr
    print(f"\nprocgen2, seed {seed}\n{recorder.stdout}", end="")
    return folder


def assert_identical(result: Comparison, total: int, seed: int) -> None:
    steps = f", {result.num_steps} steps" if result.num_steps else ""
    print(f"\n{result.what}: {result.identical} of {result.total} identical{steps}")
    again = f"make test-live SEED={seed}"
    assert not result.first_difference, f"{result.first_difference}; the same again: {again}"
    assert result.identical == result.total == total


@both_modes
def test_fresh_levels_of_the_live_game_are_generated_exactly(
    recordings: Path, seed: int, mode: str
):
    assert_identical(
        compare_levels(read(recordings / f"levels_{mode}.npz"), mode), NUM_LEVELS, seed
    )


@both_modes
def test_fresh_play_of_the_live_game_is_repeated_to_the_bit(recordings: Path, seed: int, mode: str):
    recording = read(recordings / f"traj_{mode}.npz")
    for name in ("done", "complete", "on_crate", "support", "mon_vx"):
        assert recording[name].any(), f"{name} was never met: nothing was compared"
    assert_identical(compare_runs(recording, mode), NUM_LEVELS, seed)


@both_modes
def test_play_from_rare_states_of_the_live_game_is_repeated_to_the_bit(
    recordings: Path, seed: int, mode: str
):
    recording = read(recordings / f"short_{mode}.npz")
    # The starts are what was asked for, and not where play stood.
    assert len(np.unique(recording["start_x"])) > 2 * NUM_LEVELS
    total = len(recording["warm"])
    assert total >= NUM_LEVELS
    assert_identical(compare_runs(recording, mode), total, seed)
