"""How well agents of CoinRun's quick preset learn their own ten levels, by seed and time limit.

For each seed N the agents of 10 levels that `hotoven reproduce coinrun --preset quick --seed N
--level-seed N` would train; no other level is played. A line says how training episodes ended in a
twentieth of the training, agent by agent: the first, the fifth, the tenth and the last. Actions are
drawn. Two cores take three minutes for four agents. What came out: docs/coinrun-study.md, "How the
presets were chosen".
"""

import argparse
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from hotoven import agents
from hotoven.devices import use_every_core
from hotoven.learners.ppo import make_ppo
from hotoven.studies.coinrun_agents import MEMBERS
from hotoven.studies.coinrun_settings import PRESETS, CoinRunStudy, make_sets
from hotoven.studies.parts import agent_key

SIZE = 10
NUM_CHUNKS = 20
SHOWN = (0, 4, 9, NUM_CHUNKS - 1)  # chunks of the training


def learned(study: CoinRunStudy) -> list[agents.ChunkReport]:
    """How the study's agents of ten levels fared in each twentieth of their training."""
    seen = make_sets(study).train.levels
    members = range(study.num_members)
    keys = jnp.stack([agent_key(study.seed, MEMBERS, SIZE, each) for each in members])
    size = -(-study.ppo.num_iterations // NUM_CHUNKS)
    reports: list[agents.ChunkReport] = []
    agents.train(
        study.ppo,
        make_ppo(study.ppo, study.env),
        seen,
        np.full(study.num_members, SIZE),
        keys,
        agents.Chunks(study.ppo.num_iterations, size),
        on_chunk=reports.append,
    )
    return reports


def told(name: str, shares: np.ndarray) -> str:
    """Shares by agent in percent."""
    return f"{name} {', '.join(f'{share:.0%}' for share in shares)}"


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    quick = PRESETS["quick"]
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of agents and levels")
    parser.add_argument(
        "--limits", type=int, nargs="+", default=[quick.env.max_steps], help="steps of an episode"
    )
    parser.add_argument("--members", type=int, default=quick.num_members, help="agents")
    chosen = parser.parse_args()
    use_every_core()
    for seed in chosen.seeds:
        for limit in chosen.limits:
            study = replace(
                quick,
                env=replace(quick.env, max_steps=limit),
                sizes=(SIZE,),
                num_members=chosen.members,
                seed=seed,
                level_seed=seed,
            )
            reports = learned(study)
            print(f"seed {seed}, at most {limit} steps an episode")
            for index in SHOWN:
                one = reports[index]
                ends = "; ".join((told("solved", one.solved), told("died", one.catastrophe)))
                print(f"  twentieth {index + 1}: {ends}", flush=True)


if __name__ == "__main__":
    main()
