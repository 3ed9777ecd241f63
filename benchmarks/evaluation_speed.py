"""Seconds to play all test levels with all methods, once compiled; see benchmarks/README.md."""

import argparse
from dataclasses import replace

from hotoven import bench
from hotoven.studies import lavagrid


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each method")
    parser.add_argument("--levels", type=int, default=1000, help="test levels")
    parser.add_argument("--members", type=int, default=9, help="agents in the ensemble")
    chosen = parser.parse_args()
    study = replace(
        lavagrid.PRESETS["quick"], num_test_levels=chosen.levels, num_members=chosen.members
    )
    bench.show(bench.evaluation_speed(chosen.repeats, study))


if __name__ == "__main__":
    main()
