"""Plays CoinRun in another engine, in an interpreter of its own, for `hotoven.bench`.

Both ends of a pipe. `Peer` starts this very file as a script in an interpreter that has the peer,
whose requirements and ours cannot be met together; that end builds the peer and plays on demand.
So nothing but the standard library is imported up here, and nothing of this package anywhere.
`make bench-peers` makes the interpreters.
"""

import ctypes
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

NUM_THREADS: Final = 2
NUM_LEVELS: Final = 1000
NUM_ACTIONS: Final = 15
SIZES: Final = (64, 256, 1024)  # environments side by side; the fastest is kept
TRIAL: Final = 10_000  # steps with each
FOLDER: Final = Path(".venv-peers")  # of one environment each

# Plays at least that many steps, over all environments of a batch; how many it were.
Play = Callable[[int], int]


class MissingPeer(Exception):
    """A peer that is not installed, or does not start."""


class Peer:
    """One other engine, ready to play; close it after use."""

    def __init__(self, name: str, folder: Path = FOLDER):
        """Starts the peer `name`, a key of ENGINES, which then finds its best batch, uncounted.

        Raises:
          MissingPeer: there is no interpreter for it in `folder`, or it cannot play.
        """
        python = folder / name / "bin" / "python"
        if not python.exists():
            raise MissingPeer(f"there is no {python}; make bench-peers makes it")
        self.name = name
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by close()
        # -P: or its neighbours here would be taken for modules of the standard library.
        self._process = subprocess.Popen(
            [str(python), "-P", __file__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        self.num_envs = int(self._answer())

    def play(self, num_steps: int) -> float:
        """Plays at least `num_steps` random steps over all environments; how many per second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"go {num_steps}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """Ends the peer."""
        self._process.communicate()
        self._complaints.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            self._process.communicate()
            self._complaints.seek(0)
            last = (self._complaints.read().strip() or "it says nothing").splitlines()[-1]
            self._complaints.close()
            raise MissingPeer(f"{self.name} does not play: {last}")
        return answer


# The other end


def envpool(num_envs: int) -> Play:
    """EnvPool's CoinrunHard-v0. It starts the next episode in a step of its own."""
    # Its wheel wants the libraries of Qt 5 and does not bring them; those of PyQt5-Qt5 will do.
    qt = importlib.util.find_spec("PyQt5")
    if qt is not None and qt.submodule_search_locations:
        for library in ("libQt5Core.so.5", "libQt5Gui.so.5"):
            path = Path(qt.submodule_search_locations[0], "Qt5", "lib", library)
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    env = importlib.import_module("envpool").make(
        "CoinrunHard-v0",
        env_type="gymnasium",
        num_envs=num_envs,
        batch_size=num_envs,
        num_threads=NUM_THREADS,
        num_levels=NUM_LEVELS,
        channel_first=False,  # as the game draws, without a transposition
    )

    def step(actions: Any) -> tuple[Any, Any]:
        obs, reward, *_ = env.step(actions)
        return obs, reward

    return RandomPlay(step, env.reset()[0])


def procgen2(num_envs: int) -> Play:
    """The game itself, from PyPI's procgen2."""
    env = importlib.import_module("procgen").ProcgenGym3Env(
        num=num_envs,
        env_name="coinrun",
        distribution_mode="hard",
        num_levels=NUM_LEVELS,
        num_threads=NUM_THREADS,
    )

    def step(actions: Any) -> tuple[Any, Any]:
        env.act(actions)
        reward, obs, _ = env.observe()
        return obs["rgb"], reward

    return RandomPlay(step, env.observe()[1]["rgb"])


ENGINES: Final[dict[str, Callable[[int], Play]]] = {"envpool": envpool, "procgen2": procgen2}


class RandomPlay:
    """Random actions; every observation is added byte by byte to a total, rewards to another."""

    def __init__(self, step: Callable[[Any], tuple[Any, Any]], first: Any):
        """Goes on from `first`, uint8[B, ...], the observations of a reset.

        `step` takes int32[B] actions and gives uint8[B, ...] observations and float32[B] rewards.
        """
        self._np = importlib.import_module("numpy")
        self._generator = self._np.random.default_rng(0)
        self._step = step
        self.seen = self._np.zeros_like(first)
        self.rewards = self._np.zeros(len(first), self._np.float32)

    def __call__(self, num_steps: int) -> int:
        """Plays whole batches until there are `num_steps` steps or more; how many there are."""
        batch = len(self.seen)
        times = -(-num_steps // batch)
        for _ in range(times):
            actions = self._generator.integers(NUM_ACTIONS, size=batch, dtype=self._np.int32)
            obs, reward = self._step(actions)
            self.seen += obs
            self.rewards += reward
        return times * batch


def speed(play: Play, num_steps: int) -> float:
    """Steps per second of one turn."""
    began = time.perf_counter()
    return play(num_steps) / (time.perf_counter() - began)


def main() -> None:
    """Prints the number of environments that is fastest, then plays N steps per line "go N"."""
    # Libraries print what they like; our answers keep a line of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    players = {size: ENGINES[sys.argv[1]](size) for size in SIZES}
    for play in players.values():  # a first turn loads what is needed
        play(TRIAL // 10)
    size = max(players, key=lambda size: speed(players[size], TRIAL))
    print(size, file=answers)
    for line in sys.stdin:
        print(speed(players[size], int(line.removeprefix("go "))), file=answers)


if __name__ == "__main__":
    main()
