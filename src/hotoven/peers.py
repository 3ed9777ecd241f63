"""Plays CoinRun in another engine, or learns it, in an interpreter of its own, for `hotoven.bench`.

Both ends of a pipe. `Peer` starts this very file as a script in an interpreter that has the peer,
whose requirements and ours cannot be met together; that end builds the peer and plays on demand.
So nothing but the standard library is imported up here, and nothing of this package anywhere.
`make bench-peers` makes the interpreters.
"""

import ctypes
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
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
    """One other engine, ready to play or to learn; close it after use."""

    def __init__(self, name: str, folder: Path = FOLDER, learning: Mapping[str, Any] | None = None):
        """Starts the peer `name`, a key of ENGINES, which then finds its best batch, uncounted.

        With `learning`, the settings of `hotoven.learners.ppo.PPOConfig` by name and those of
        `coinrun`, its steps are those of a PPO that learns from them.

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
            [str(python), "-P", __file__, name, *([json.dumps(learning)] if learning else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        self.num_envs = int(self._answer())

    def play(self, num_steps: int) -> float:
        """Plays at least `num_steps` steps over all environments; how many per second."""
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
    """EnvPool's CoinrunHard-v0, random actions."""
    env = coinrun(num_envs)

    def step(actions: Any) -> tuple[Any, Any]:
        obs, reward, *_ = env.step(actions)
        return obs, reward

    return RandomPlay(step, env.reset()[0])


def coinrun(num_envs: int, mode: str = "hard", num_levels: int = NUM_LEVELS) -> Any:
    """EnvPool's CoinRun. It starts the next episode in a step of its own."""
    # Its wheel wants the libraries of Qt 5 and does not bring them; those of PyQt5-Qt5 will do.
    qt = importlib.util.find_spec("PyQt5")
    if qt is not None and qt.submodule_search_locations:
        for library in ("libQt5Core.so.5", "libQt5Gui.so.5"):
            path = Path(qt.submodule_search_locations[0], "Qt5", "lib", library)
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    return importlib.import_module("envpool").make(
        f"Coinrun{mode.capitalize()}-v0",
        env_type="gymnasium",
        num_envs=num_envs,
        batch_size=num_envs,
        num_threads=NUM_THREADS,
        num_levels=num_levels,
        channel_first=False,  # as the game draws, without a transposition
    )


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


class TorchPPO:
    """PPO of one agent with Nature-CNN, in plain PyTorch on the CPU.

    In the order and with the settings of CleanRL's for procgen: rewards divided by the deviation of
    discounted returns, GAE, advantages normalised by minibatch, values clipped as the policy is,
    Adam with its epsilon of 1e-5, and gradients of limited length.
    """

    def __init__(self, settings: Mapping[str, Any], env: Any):
        """`settings` has the names of `PPOConfig`; `env` steps as EnvPool's do."""
        self._np = importlib.import_module("numpy")
        self._torch = importlib.import_module("torch")
        self._torch.set_num_threads(NUM_THREADS)
        self._torch.manual_seed(0)
        self._settings, self._env = settings, env
        self.net = self._make_net()
        rate = settings["learning_rate"]
        self._optimizer = self._torch.optim.Adam(self.net.parameters(), lr=rate, eps=1e-5)
        self._obs = env.reset()[0]
        num_envs = settings["num_envs"]
        self._discounted = self._np.zeros(num_envs)
        self._count, self._mean, self._squares = 0.0, 0.0, 0.0
        shape = (settings["num_steps"], num_envs)
        self._seen = self._np.zeros((*shape, *self._obs.shape[1:]), self._np.uint8)

    def __call__(self, num_steps: int) -> int:
        """Whole iterations until there are `num_steps` steps or more; how many there are."""
        each = self._settings["num_envs"] * self._settings["num_steps"]
        times = -(-num_steps // each)
        for _ in range(times):
            self.learn(*self.rollout())
        return times * each

    def rollout(self) -> tuple[Any, ...]:
        """Flat tensors [T * E]: actions, log-probabilities, values, advantages and targets."""
        np, torch, settings = self._np, self._torch, self._settings
        shape = (settings["num_steps"], settings["num_envs"])
        actions, log_probabilities, values = (torch.zeros(shape) for _ in range(3))
        rewards, ended = np.zeros(shape, np.float32), np.zeros(shape, bool)
        with torch.inference_mode():
            for t in range(settings["num_steps"]):
                self._seen[t] = self._obs
                logits, values[t] = self.heads(torch.from_numpy(self._obs))
                drawn = torch.multinomial(logits.exp(), 1)
                log_probabilities[t] = logits.gather(1, drawn)[:, 0]
                actions[t] = drawn[:, 0]
                self._obs, reward, terminated, truncated, _ = self._env.step(
                    drawn[:, 0].numpy().astype(np.int32)
                )
                ended[t] = terminated | truncated
                rewards[t] = self.normalised(reward, ended[t])
            after = self.heads(torch.from_numpy(self._obs))[1].numpy()
        advantage = advantages(
            rewards, values.numpy(), after, ended, settings["gamma"], settings["gae_lambda"]
        )
        targets = torch.from_numpy(advantage) + values
        kept = (actions.long(), log_probabilities, values, torch.from_numpy(advantage), targets)
        return tuple(leaf.clone().flatten() for leaf in kept)

    def learn(
        self, actions: Any, log_probabilities: Any, values: Any, advantage: Any, targets: Any
    ) -> None:
        """Every epoch and minibatch of what `rollout` gave."""
        torch, settings = self._torch, self._settings
        seen = torch.from_numpy(self._seen).flatten(0, 1)
        for _ in range(settings["num_epochs"]):
            mixed = torch.randperm(len(actions)).chunk(settings["num_minibatches"])
            for index in mixed:
                logits, value = self.heads(seen[index])
                now = logits.gather(1, actions[index][:, None])[:, 0]
                ratio = (now - log_probabilities[index]).exp()
                own = advantage[index]
                own = (own - own.mean()) / (own.std() + 1e-8)
                limited = ratio.clamp(1 - settings["clip"], 1 + settings["clip"])
                policy_loss = -torch.minimum(own * ratio, own * limited).mean()
                loss = policy_loss + settings["value_weight"] * self._value_loss(
                    value, values[index], targets[index]
                )
                spread = -(logits.exp() * logits).sum(dim=1).mean()
                loss = loss - settings["entropy_weight"] * spread
                self._optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.net.parameters(), settings["max_grad_norm"])
                self._optimizer.step()

    def heads(self, obs: Any) -> tuple[Any, Any]:
        """Log-probabilities [B, A] and values [B] of pictures uint8 [B, H, W, 3]."""
        # the memory of [B, H, W, C] is what channels_last means: nothing is copied
        both = self.net(obs.permute(0, 3, 1, 2).float() / 255)
        return self._torch.log_softmax(both[:, :-1], dim=1), both[:, -1]

    def normalised(self, reward: Any, ended: Any) -> Any:
        """Rewards over the deviation of the discounted returns so far, from -10 to 10."""
        np = self._np
        self._discounted = self._discounted * self._settings["gamma"] + reward
        num, away = len(reward), self._discounted.mean() - self._mean
        total = self._count + num
        self._squares += self._discounted.var() * num + away**2 * self._count * num / total
        self._mean, self._count = self._mean + away * num / total, total
        self._discounted[ended] = 0.0
        return np.clip(reward / np.sqrt(self._squares / total + 1e-8), -10.0, 10.0)

    def _value_loss(self, value: Any, before: Any, target: Any) -> Any:
        wrong = (value - target) ** 2
        clip = self._settings["value_clip"]
        if clip is not None:
            limited = before + (value - before).clamp(-clip, clip)
            wrong = self._torch.maximum(wrong, (limited - target) ** 2)
        return 0.5 * wrong.mean()

    def _make_net(self) -> Any:
        """Mnih et al. 2015 on 64x64 pixels: the actions' logits and the value are one layer."""
        nn = self._torch.nn
        net = nn.Sequential(
            *(nn.Conv2d(3, 32, 8, 4), nn.ReLU()),
            *(nn.Conv2d(32, 64, 4, 2), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, 1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(1024, 512), nn.ReLU()),
            nn.Linear(512, NUM_ACTIONS + 1),
        )
        return net.to(memory_format=self._torch.channels_last)


def advantages(
    rewards: Any, values: Any, after: Any, ended: Any, gamma: float, gae_lambda: float
) -> Any:
    """Generalised advantage estimates, arrays [T, E]; `after` [E] are the values of what follows.

    An end by the clock is taken for an end, as CleanRL does: EnvPool's next observation is another
    episode's.
    """
    found, later, following = 0.0 * rewards, 0.0 * after, after
    for t in reversed(range(len(rewards))):
        goes_on = 1.0 - ended[t]
        error = rewards[t] + gamma * goes_on * following - values[t]
        later = error + gamma * gae_lambda * goes_on * later
        found[t], following = later, values[t]
    return found


def speed(play: Play, num_steps: int) -> float:
    """Steps per second of one turn."""
    began = time.perf_counter()
    return play(num_steps) / (time.perf_counter() - began)


def main() -> None:
    """Prints the number of environments, then plays N steps per line "go N"."""
    # Libraries print what they like; our answers keep a line of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    size, play = learner(json.loads(sys.argv[2])) if len(sys.argv) > 2 else quickest(sys.argv[1])
    print(size, file=answers)
    for line in sys.stdin:
        print(speed(play, int(line.removeprefix("go "))), file=answers)


def quickest(name: str) -> tuple[int, Play]:
    """The number of environments that is fastest, and the engine with it."""
    players = {size: ENGINES[name](size) for size in SIZES}
    for play in players.values():  # a first turn loads what is needed
        play(TRIAL // 10)
    size = max(players, key=lambda size: speed(players[size], TRIAL))
    return size, players[size]


def learner(settings: Mapping[str, Any]) -> tuple[int, Play]:
    """The number of environments that was asked for, and a PPO that learns from them."""
    env = coinrun(settings["num_envs"], settings["mode"], settings["num_levels"])
    return settings["num_envs"], TorchPPO(settings, env)


if __name__ == "__main__":
    main()
