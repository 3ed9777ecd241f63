"""What is done with pytrees of arrays, whatever they mean."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey, register_pytree_with_keys

from hotoven.types import PyTree

Kind = TypeVar("Kind", bound=type)


def register_dataclass(
    *, data_fields: Sequence[str], meta_fields: Sequence[str] = ()
) -> Callable[[Kind], Kind]:
    """Registers a dataclass as a pytree, as JAX's own does, with the class in its structure.

    By JAX's own the structures of two classes with equal fields are equal in versions 0.10.0 to
    0.12.0.1 (their hashes differ), and a compiled function may run for one the program that it has
    of the other: docs/decisions/0012-structures-name-their-class.md.

    Args:
      data_fields: fields that are pytrees.
      meta_fields: fields that belong to the structure; hashable.

    Raises:
      ValueError: it is no dataclass, or those are not the fields that it is made of.
    """

    def registered(kind: Kind) -> Kind:
        if not isinstance(kind, type) or "__dataclass_fields__" not in vars(kind):
            raise ValueError(
                "register_dataclass must be given a class that @dataclass has made, so it stands "
                f"above @dataclass: got {kind!r}"
            )
        made_of = sorted(field.name for field in fields(kind) if field.init)
        if made_of != sorted([*data_fields, *meta_fields]):
            raise ValueError(
                f"data_fields and meta_fields of {kind.__name__} must be {', '.join(made_of)}, "
                f"got {', '.join([*data_fields, *meta_fields])}"
            )

        def structure(one: PyTree) -> tuple:
            return (kind, *(getattr(one, name) for name in meta_fields))

        def children(one: PyTree) -> tuple[list, tuple]:
            return [getattr(one, name) for name in data_fields], structure(one)

        def named_children(one: PyTree) -> tuple[list, tuple]:
            return [(GetAttrKey(name), getattr(one, name)) for name in data_fields], structure(one)

        def build(about: tuple, data: Iterable[PyTree]) -> PyTree:
            given = zip((*data_fields, *meta_fields), (*data, *about[1:]), strict=True)
            return kind(**dict(given))

        register_pytree_with_keys(kind, named_children, build, children)
        return kind

    return registered


def where(chosen: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """Rows of `yes` where `chosen` (bool[E]), else of `no`; leaves [E, ...]."""

    def pick(yes: jax.Array, no: jax.Array) -> jax.Array:
        return jnp.where(chosen.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)

    return jax.tree.map(pick, yes, no)
