"""PPO's steps per second on CoinRun, learning included, beside PyTorch on EnvPool.

On a GPU its networks stand beside the card's matrix products. See benchmarks/README.md.
"""

import argparse
from dataclasses import replace

import jax

from hotoven import bench
from hotoven.devices import use_every_core


def main() -> None:
    """Measures and prints."""
    use_every_core()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    on_gpu = jax.default_backend() != "cpu"
    kinds = tuple(bench.ON_GPU) if on_gpu else ("symbols", "pixels")
    parser.add_argument("--only", choices=kinds, help="one of the two that are measured")
    parser.add_argument("--members", type=int, help="agents trained side by side")
    parser.add_argument("--iterations", type=int, default=1, help="iterations in a turn")
    parser.add_argument("--envs", type=int, help="environments of each member")
    parser.add_argument("--steps", type=int, help="steps of each in an iteration")
    parser.add_argument("--minibatches", type=int, help="gradient steps of each epoch")
    parser.add_argument("--epochs", type=int, help="times that steps are learned from")
    parser.add_argument("--rows", type=int, help="pictures at once; 0: a whole minibatch")
    chosen = parser.parse_args()

    def changed(training: bench.Training) -> bench.Training:
        settings = {
            "num_envs": chosen.envs,
            "num_steps": chosen.steps,
            "num_minibatches": chosen.minibatches,
            "num_epochs": chosen.epochs,
        }
        config = replace(
            training.config, **{name: value for name, value in settings.items() if value}
        )
        if chosen.rows is not None and config.net in ("nature", "impala"):
            config = replace(config, rows_at_once=chosen.rows or config.minibatch_size)
        members = chosen.members or training.num_members
        return training._replace(
            config=config, num_members=members, num_iterations=chosen.iterations
        )

    if on_gpu:
        trainings = {
            net: changed(training)
            for net, training in bench.ON_GPU.items()
            if chosen.only in (None, net)
        }
        bench.show(bench.ppo_share(chosen.repeats, trainings))
        return
    both = {"symbols": changed(bench.SYMBOLS), "pixels": changed(bench.PIXELS)}
    wanted = {kind: one if chosen.only in (None, kind) else None for kind, one in both.items()}
    bench.show(bench.ppo_speed(chosen.repeats, **wanted))


if __name__ == "__main__":
    main()
