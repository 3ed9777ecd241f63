"""DQN updates per second beside Stable-Baselines3, and the share of the machine's peak.

See benchmarks/README.md.
"""

import argparse

from hotoven import bench


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--members", type=int, default=9, help="agents trained side by side")
    parser.add_argument("--iterations", type=int, default=25, help="iterations of ours in a turn")
    parser.add_argument("--peer-updates", type=int, default=300, help="peer's updates in a turn")
    chosen = parser.parse_args()
    bench.show(
        bench.learning_speed(
            chosen.repeats,
            num_members=chosen.members,
            num_iterations=chosen.iterations,
            peer_updates=chosen.peer_updates,
        )
    )


if __name__ == "__main__":
    main()
