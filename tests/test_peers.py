"""Peers are played at the other end of a pipe. No peer is needed: a made-up game stands in."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from hotoven import peers
from hotoven.learners.ppo import PPOConfig
from hotoven.losses import gae

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


# What is used of EnvPool: episodes of three steps, the second action pays.
POOL = """
import numpy as np

class Env:
    def __init__(self, num):
        self.num, self.t = num, 0
        self.obs = np.zeros((num, 64, 64, 3), np.uint8)

    def reset(self):
        return self.obs, {}

    def step(self, actions):
        assert actions.dtype == np.int32 and actions.shape == (self.num,)
        self.t += 1
        ended = np.full(self.num, self.t % 3 == 0)
        return self.obs, (actions == 1).astype(np.float32), ended, ended & False, {}

def make(name, env_type, num_envs, batch_size, num_threads, num_levels, channel_first):
    assert (name, num_levels, channel_first) == ("CoinrunEasy-v0", 7, False)
    return Env(num_envs)
"""

LEARNING = PPOConfig(
    net="nature", value_clip=0.2, gamma=0.9, num_envs=4, num_steps=6, num_minibatches=2
)
SETTINGS = asdict(LEARNING) | {"mode": "easy", "num_levels": 7}


def make_peer(folder: Path, modules: dict[str, str], name: str = "procgen2") -> None:
    """An interpreter for a peer: this one, with those modules to import."""
    bin_folder = folder / name / "bin"
    bin_folder.mkdir(parents=True)
    for module, source in modules.items():
        (bin_folder / f"{module}.py").write_text(source)
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


def test_a_peer_that_cannot_learn_says_what_it_lacks(tmp_path: Path):
    absent = "raise ModuleNotFoundError(\"No module named 'torch'\")"
    make_peer(tmp_path, {"envpool": POOL, "torch": absent}, "envpool")
    with pytest.raises(peers.MissingPeer, match="No module named 'torch'"):
        peers.Peer("envpool", tmp_path, SETTINGS)


def test_a_peer_learns_whole_iterations_in_its_own_interpreter(tmp_path: Path):
    pytest.importorskip("torch")
    make_peer(tmp_path, {"envpool": POOL}, "envpool")
    peer = peers.Peer("envpool", tmp_path, SETTINGS)
    assert peer.num_envs == 4
    assert peer.play(1) > 0
    peer.close()


def pool(num_envs: int) -> Any:
    scope: dict[str, Any] = {}
    exec(POOL, scope)
    return scope["Env"](num_envs)


@pytest.mark.slow
def test_the_learning_peer_makes_the_action_that_pays_likelier():
    torch = pytest.importorskip("torch")
    ppo = peers.TorchPPO(SETTINGS | {"entropy_weight": 0.0, "num_envs": 32}, pool(32))
    pictures = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)
    before = ppo.heads(pictures)[0][0, 1].exp().item()
    assert ppo(5 * 32 * 6 - 1) == 5 * 32 * 6
    assert ppo.heads(pictures)[0][0, 1].exp().item() > 1.5 * before


def test_advantages_of_the_peer_are_ours_where_every_end_is_one():
    generator = np.random.default_rng(0)
    rewards, values = generator.normal(size=(2, 9, 3)).astype(np.float32)
    after = generator.normal(size=3).astype(np.float32)
    ended = generator.random((9, 3)) < 0.3
    following = np.concatenate([values[1:], after[None]])
    ours = jax.vmap(lambda *row: gae(*row, 0.9, 0.8), in_axes=1, out_axes=1)(
        rewards, values, following, ended, ended
    )
    found = peers.advantages(rewards, values, after, ended, 0.9, 0.8)
    np.testing.assert_allclose(found, ours, rtol=1e-5, atol=1e-6)
