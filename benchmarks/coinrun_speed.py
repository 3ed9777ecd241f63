"""Random steps per second of CoinRun beside EnvPool and procgen2; see benchmarks/README.md."""

import argparse

from hotoven import bench
from hotoven.devices import use_every_core


def main() -> None:
    """Measures and prints, one batch after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[None], help="side by side; 1024, on a GPU 16384"
    )
    parser.add_argument("--steps", type=int, default=100, help="steps of the batch in a turn")
    chosen = parser.parse_args()
    use_every_core()
    for batch in chosen.batch:
        bench.show(bench.coinrun_speed(chosen.repeats, batch, chosen.steps))


if __name__ == "__main__":
    main()
