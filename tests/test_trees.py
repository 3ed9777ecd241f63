"""Pytrees: what belongs to a structure, and rows of one tree or the other."""

from collections.abc import Hashable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotoven.trees import register_dataclass, where


def made() -> type:
    """A class of its own at every call, with the same fields."""

    @register_dataclass(data_fields=["params", "scale"], meta_fields=["name"])
    @dataclass(frozen=True)
    class Made:
        params: dict[str, jax.Array]
        name: Hashable
        scale: jax.Array

    return Made


Sum, Product = made(), made()
FIELDS = {"params": {"w": jnp.arange(3.0)}, "name": "x", "scale": jnp.float32(2.0)}


def test_two_classes_with_equal_fields_have_different_structures():
    structures = [jax.tree.structure(kind(**FIELDS)) for kind in (Sum, Product)]
    assert structures[0] != structures[1]
    assert structures[0] == jax.tree.structure(Sum(**FIELDS))
    assert hash(structures[0]) == hash(jax.tree.structure(Sum(**FIELDS)))


def test_what_is_no_data_belongs_to_the_structure():
    other = jax.tree.structure(Sum(**FIELDS | {"name": "y"}))
    assert jax.tree.structure(Sum(**FIELDS)) != other


def test_a_registered_dataclass_goes_through_a_compiled_function_with_its_fields_in_place():
    found = jax.jit(lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree))(Sum(**FIELDS))
    assert isinstance(found, Sum)
    assert found.name == "x"
    assert found.params["w"].tolist() == [0, 2, 4]
    assert float(found.scale) == 4.0


def test_paths_to_leaves_are_the_names_of_fields():
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(Sum(**FIELDS))]
    assert paths == [".params['w']", ".scale"]


def test_a_field_that_is_forgotten_is_named():
    with pytest.raises(ValueError, match=r"Half must be left, right, got left"):

        @register_dataclass(data_fields=["left"])
        @dataclass(frozen=True)
        class Half:
            left: jax.Array
            right: float = 1.0


def test_what_is_no_dataclass_of_its_own_is_refused():
    class Child(Sum):  # its fields would be its parent's alone
        more: float = 1.0

    for kind in (Child, int, Sum(**FIELDS)):
        with pytest.raises(ValueError, match="must be given a class that @dataclass has made"):
            register_dataclass(data_fields=["params", "scale"], meta_fields=["name"])(kind)


def test_rows_are_chosen_in_every_leaf_whatever_its_axes():
    chosen = jnp.array([True, False, True])
    yes = {"a": jnp.array([1, 2, 3]), "b": jnp.ones((3, 2, 2))}
    no = {"a": jnp.array([7, 8, 9]), "b": jnp.zeros((3, 2, 2))}
    for found in (where(chosen, yes, no), jax.jit(where)(chosen, yes, no)):
        assert found["a"].tolist() == [1, 8, 3]
        np.testing.assert_array_equal(found["b"].sum(axis=(1, 2)), [4, 0, 4])
