"""Peers are played at the other end of a pipe. No peer is needed: a made-up game stands in."""

import sys
from pathlib import Path

import numpy as np
import pytest

from hotoven import peers

# What `hotoven.peers` uses of PyPI's procgen2. It prints and complains as libraries do.
GAME = """
import sys
import numpy as np

print("welcome")
print("a library is old", file=sys.stderr)

class ProcgenGym3Env:
    def __init__(self, num, env_name, distribution_mode, num_levels, num_threads):
        assert (env_name, distribution_mode) == ("coinrun", "hard")
        assert (num_levels, num_threads) == (1000, 2)
        self.num = num

    def act(self, actions):
        assert actions.dtype == np.int32 and actions.shape == (self.num,)

    def observe(self):
        obs = {"rgb": np.zeros((self.num, 2, 2, 3), np.uint8)}
        return np.zeros(self.num, np.float32), obs, np.zeros(self.num, bool)
"""


def make_peer(folder: Path, modules: dict[str, str]) -> None:
    """An interpreter for the peer procgen2: this one, with those modules to import."""
    bin_folder = folder / "procgen2" / "bin"
    bin_folder.mkdir(parents=True)
    for name, source in modules.items():
        (bin_folder / f"{name}.py").write_text(source)
    python = bin_folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{bin_folder}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)


def test_a_peer_plays_in_its_own_interpreter_and_tells_its_speed(tmp_path: Path):
    make_peer(tmp_path, {"procgen": GAME})
    peer = peers.Peer("procgen2", tmp_path)
    assert peer.num_envs in peers.SIZES
    assert [peer.play(10) > 0, peer.play(5000) > 0] == [True, True]
    peer.close()


def test_a_peer_that_is_not_there_is_missed_with_the_way_to_get_it(tmp_path: Path):
    with pytest.raises(peers.MissingPeer) as error:
        peers.Peer("envpool", tmp_path)
    python = tmp_path / "envpool" / "bin" / "python"
    assert str(error.value) == f"there is no {python}; make bench-peers makes it"


def test_a_peer_that_cannot_start_says_why(tmp_path: Path):
    make_peer(tmp_path, {"procgen": "raise OSError('libGL.so.1: cannot open')"})
    with pytest.raises(peers.MissingPeer) as error:
        peers.Peer("procgen2", tmp_path)
    assert str(error.value) == "procgen2 does not play: OSError: libGL.so.1: cannot open"


def test_random_play_looks_at_every_observation_of_whole_batches():
    taken: list[np.ndarray] = []
    first = np.zeros((4, 3), np.uint8)
    shown = np.full((4, 3), 100, np.uint8)

    def step(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        taken.append(actions)
        return shown, np.ones(4, np.float32)

    play = peers.RandomPlay(step, first)
    assert play(9) == 12
    assert play(4) == 4
    assert [(actions.dtype, actions.shape) for actions in taken] == [(np.int32, (4,))] * 4
    assert 0 <= np.min(taken) <= np.max(taken) < 15
    assert (play.seen == 4 * 100 % 256).all()
    assert (play.rewards == 4).all()


def test_speed_is_steps_over_seconds(monkeypatch: pytest.MonkeyPatch):
    clock = iter([10.0, 12.5])
    monkeypatch.setattr(peers.time, "perf_counter", lambda: next(clock))
    assert peers.speed(lambda num_steps: num_steps + 5, 20) == 10.0
