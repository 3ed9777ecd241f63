"""Agents that learn in turn beside agents that learn side by side; see benchmarks/README.md."""

import argparse

import jax
import numpy as np

from hotoven import bench
from hotoven.devices import use_every_core
from hotoven.envs.lavagrid import LavaGrid
from hotoven.learners.dqn import DQNConfig, make_dqn
from hotoven.learners.learner import Learner
from hotoven.learners.ppo import PPOConfig, make_ppo
from hotoven.studies import coinrun, lavagrid
from hotoven.types import Env


def trainings() -> dict[str, tuple[Learner, DQNConfig | PPOConfig, Env, int, int]]:
    """By name: the learner, its settings, the environment, members, and iterations of a turn."""
    grid, run = lavagrid.PRESETS["quick"], coinrun.PRESETS["quick"]
    bare = LavaGrid()
    return {
        "DQN of bench learn": (make_dqn(bench.LEARNING, bare), bench.LEARNING, bare, 9, 25),
        "DQN of quick": (make_dqn(grid.dqn, grid.env), grid.dqn, grid.env, 27, 15),
        "PPO of quick": (make_ppo(run.ppo, run.env), run.ppo, run.env, 10, 3),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="turns of each side")
    chosen = parser.parse_args()
    use_every_core()
    contestants, derived = {}, {}
    given = trainings()
    for name, (learner, config, env, num_members, count) in given.items():
        updates = num_members * count * config.updates_per_iteration
        for how, in_turn in (("in turn", True), ("side by side", False)):
            train = bench._training(learner, env, 200, num_members, jax.local_devices(), in_turn)
            contestants[f"{name}, {num_members} {how}"] = bench.Contestant(
                "updates/s", lambda train=train, count=count, n=updates: n / train(count)
            )
    figures, units = bench.take_turns(contestants, chosen.repeats)
    values = list(figures.values())
    for name, turned, beside in zip(given, values[::2], values[1::2], strict=True):
        derived[f"{name}: in turn / side by side"] = np.divide(turned, beside)
    title = f"members in turn or side by side, on {len(jax.local_devices())} devices"
    bench.show(bench.Result(title, figures, units, derived, ()))


if __name__ == "__main__":
    main()
