"""Shares of levels solved by PPO on pixels, by steps, to hold beside published ones.

Agents learn CoinRun in pixels as in Cobbe et al. 2020, on the levels that theirs learned: the first
seeds. After every million steps each plays the 1000 seeds that follow and its training levels once,
actions drawn. Levels are taken by seed, as there, and not by layout, as in our studies: of seeds
more share a layout, and fewer can kill. Their network, IMPALA's, is for a GPU; with `--net nature`
two cores took twenty minutes for a million steps of two agents, before they learned in parts. See
docs/coinrun-study.md, "Against published curves".
"""

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from hotoven import agents
from hotoven.devices import use_every_core
from hotoven.evaluation.bootstrap import wilson
from hotoven.evaluation.rollout import play
from hotoven.learners.ppo import make_ppo
from hotoven.levels import make_levels
from hotoven.mechanisms.acting import policies
from hotoven.studies.coinrun_agents import make_players
from hotoven.studies.coinrun_settings import PRESETS, CoinRunStudy
from hotoven.types import CATASTROPHE, SOLVED, LevelSet, PyTree

NUM_UNSEEN = 1000


def study_of(chosen: argparse.Namespace) -> CoinRunStudy:
    """Published settings: the full preset's, a clip of values, and no velocity in the pixels."""
    full = PRESETS["full"]
    on_gpu = jax.default_backend() == "gpu"  # products of bfloat16 numbers are slow elsewhere
    ppo = replace(full.ppo, net=chosen.net, value_clip=0.2, bfloat16=on_gpu)
    each = ppo.num_envs * ppo.num_steps
    return replace(
        full,
        env=replace(full.env, mode=chosen.mode, paint_velocity=False),
        ppo=replace(ppo, num_iterations=round(chosen.millions * 1e6 / each)),
        num_members=chosen.members,
        seed=chosen.seed,
    )


def told(name: str, ends: np.ndarray) -> str:
    """How int8[M, L] ends are shared out: solved with an interval over episodes, by agent; died."""
    low, high = wilson(int((ends == SOLVED).sum()), ends.size)
    each = ", ".join(f"{share:.1%}" for share in (ends == SOLVED).mean(axis=1))
    died = (ends == CATASTROPHE).mean()
    solved = (ends == SOLVED).mean()
    return f"  {name}: {solved:.1%} [{low:.1%}, {high:.1%}] solved ({each}), {died:.1%} died"


def main() -> None:
    """Trains, plays and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=("easy", "hard"), default="easy", help="of the levels")
    parser.add_argument("--levels", type=int, default=200, help="to train on")
    parser.add_argument("--net", choices=("impala", "nature"), default="impala", help="network")
    parser.add_argument("--members", type=int, default=3, help="agents, each on its own")
    parser.add_argument("--millions", type=float, default=5.0, help="of steps of each agent")
    parser.add_argument("--seed", type=int, default=0, help="which agents")
    chosen = parser.parse_args()
    use_every_core()
    study = study_of(chosen)
    players = make_players(study)
    learner = make_ppo(study.ppo, study.env)
    steps_each = study.ppo.num_envs * study.ppo.num_steps
    keys = jax.random.split(jax.random.key(study.seed), study.num_members)
    sizes = np.full(study.num_members, chosen.levels)
    ids = np.arange(chosen.levels + NUM_UNSEEN)
    trained, unseen = (
        make_levels(study.env, ids[part])
        for part in (slice(chosen.levels), slice(chosen.levels, None))
    )
    known = {digest.tobytes() for digest in trained.digests}
    is_new = np.array([digest.tobytes() not in known for digest in unseen.digests])
    can_kill = unseen.facts["can_kill"]
    slots = 32 if jax.default_backend() == "cpu" else 1024  # as in rollout.record_all
    for name, share in (("have a layout not trained on", is_new), ("can kill", can_kill)):
        print(f"{share.mean():.1%} of the unseen levels {name}")

    @jax.jit
    def outcomes(members: PyTree, levels: PyTree, key: jax.Array) -> jax.Array:
        """int8[M, L]: how each member alone ends each level."""
        alone = policies(members, players.apply, study.hold, study.margin)["single"]
        playing = lambda policy: play(study.env, policy, levels, key, num_slots=slots)  # noqa: E731
        return jax.vmap(playing)(alone).outcome

    def show(params: PyTree, done: int) -> None:
        def ends(played: LevelSet) -> np.ndarray:
            return np.asarray(outcomes(params, played.levels, jax.random.key(done)))

        print(f"{done * steps_each / 1e6:.2f} million steps")
        new = ends(unseen)
        print(told("unseen", new))
        print(told("unseen, layouts not trained on", new[:, is_new]))
        print(told("unseen, those that can kill", new[:, can_kill]))
        print(told("training", ends(trained)), flush=True)

    per_point = round(1e6 / steps_each)
    points = [*range(per_point, study.ppo.num_iterations, per_point), study.ppo.num_iterations]
    train = partial(agents.train, study.ppo, learner, trained.levels, sizes, keys)
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)  # each point compiles the same again
        for point in points:
            chunks = agents.Chunks(point, per_point)
            show(train(chunks, Path(folder) / "training.safetensors"), point)


if __name__ == "__main__":
    main()
