"""Random steps per second of LavaGrid beside NAVIX's Empty-8x8; see benchmarks/README.md."""

import argparse

from hotoven import bench
from hotoven.envs.lavagrid import LavaGrid


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--batch", type=int, default=4096, help="environments side by side")
    parser.add_argument("--steps", type=int, default=100, help="steps of the batch in a turn")
    parser.add_argument("--size", type=int, default=8, help="rows and columns of our grid")
    chosen = parser.parse_args()
    env = LavaGrid(height=chosen.size, width=chosen.size, max_steps=bench.ENV.max_steps)
    bench.show(bench.env_speed(chosen.repeats, env, chosen.batch, chosen.steps))


if __name__ == "__main__":
    main()
