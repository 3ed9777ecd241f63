"""How often a compiled function runs for one class the program of another; no speed.

Two classes have equal fields and different methods. One function, compiled by `jax.jit`, is called
with the first and then with the second; a wrong answer is the first one's.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from hotoven.trees import register_dataclass

WAYS: dict[str, Callable[[Any], Any]] = {
    "jax.tree_util.register_dataclass": partial(
        jax.tree_util.register_dataclass, data_fields=["x"], meta_fields=[]
    ),
    "hotoven.trees.register_dataclass": register_dataclass(data_fields=["x"]),
}


def adds(number: float, registered: Callable[[Any], Any]) -> Any:
    """A class of its own at every call, whose `answer` is `number` more than its field."""

    @registered
    @dataclass(frozen=True)
    class Adds:
        x: float

        def answer(self) -> float:
            return self.x + number

    return Adds


def mistaken(registered: Callable[[Any], Any], num_pairs: int) -> int:
    """Of so many pairs of classes, those whose second one got the answer of the first."""
    wrong = 0
    for _ in range(num_pairs):
        ask = jax.jit(lambda one: one.answer())
        first, second = adds(1.0, registered), adds(2.0, registered)
        ask(first(0.0))
        wrong += float(ask(second(0.0))) != 2.0
    return wrong


def are_equal(registered: Callable[[Any], Any]) -> bool:
    """Whether the structures of two classes are equal."""
    one, other = (jax.tree.structure(adds(number, registered)(0.0)) for number in (1.0, 2.0))
    return bool(one == other)


def main() -> None:
    """Prints, for each way of registering, whether structures are equal, and wrong answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-pairs", type=int, default=2000, help="pairs of classes")
    num_pairs = parser.parse_args().num_pairs
    print(f"JAX {jax.__version__}, {num_pairs} pairs of classes")
    for name, registered in WAYS.items():
        found = "equal" if are_equal(registered) else "different"
        print(f"{name}: structures {found}, {mistaken(registered, num_pairs)} mistaken")


if __name__ == "__main__":
    main()
