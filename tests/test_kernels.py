"""The kernels for GPUs, interpreted on a CPU and held beside the same network in windows."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotoven import kernels, nets
from hotoven.types import PyTree

close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


def numbers(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def pictures(*front: int, size: int = 16) -> jax.Array:
    return jax.random.bits(jax.random.key(9), (*front, size, size, 3), jnp.uint8)


def layer(depth: int, filters: int, seed: int = 1) -> kernels.Layer:
    return {"w": 0.3 * numbers(9, depth, filters, seed=seed), "b": numbers(filters, seed=seed + 1)}


def windows(x: jax.Array, of: kernels.Layer) -> jax.Array:
    return nets._by_windows(nets._framed(x), of)


def pooled_windows(x: jax.Array, of: kernels.Layer) -> jax.Array:
    return nets._largest(windows(x.astype(jnp.float32), of))


def residual_windows(x: jax.Array, inner: kernels.Layer, outer: kernels.Layer) -> jax.Array:
    return x + windows(jax.nn.relu(windows(jax.nn.relu(x), inner)), outer)


def told(function: Callable[..., jax.Array], by: tuple[int, ...], *arguments: Any) -> PyTree:
    """What a function gives, and the gradients of some sum of it by some arguments."""

    def given(*some: Any) -> jax.Array:
        put = dict(zip(by, some, strict=True))
        return function(*[put.get(index, value) for index, value in enumerate(arguments)])

    value, back = jax.vjp(given, *[arguments[index] for index in by])
    return value, back(numbers(*value.shape, seed=5))


def alike(ours: PyTree, judged: PyTree) -> None:
    jax.tree.map(close, ours, judged)


def test_a_pooled_convolution_of_numbers_is_that_of_windows_with_its_gradients():
    x, of = numbers(2, 8, 8, 16), layer(16, 32)
    alike(told(kernels.pooled, (0, 1), x, of), told(pooled_windows, (0, 1), x, of))


def test_a_pooled_convolution_of_bytes_is_that_of_windows_with_its_gradients():
    x, of = pictures(2), layer(3, 16)
    alike(told(kernels.pooled, (1,), x, of), told(pooled_windows, (1,), x, of))


def test_a_residual_block_is_that_of_windows_with_its_gradients():
    x, both = numbers(2, 8, 8, 16), (layer(16, 16), layer(16, 16, seed=3))
    alike(told(kernels.residual, (0, 1, 2), x, *both), told(residual_windows, (0, 1, 2), x, *both))


def test_where_nothing_is_positive_no_gradient_comes_through():
    dead = {"w": jnp.ones((9, 16, 16)), "b": jnp.zeros(16)}  # ReLU stands at zero everywhere
    x = jnp.zeros((1, 8, 4, 16))
    _, (change, inner, _) = told(kernels.residual, (0, 1, 2), x, dead, dead)
    np.testing.assert_array_equal(change, numbers(1, 8, 4, 16, seed=5))  # what was added, alone
    np.testing.assert_array_equal(inner["b"], 0.0)


@pytest.mark.parametrize("num", [1, 3, 48, 64])
def test_sums_over_programs_are_whole(num: int):
    """Blocks of 32 places, up to 32 of them for a program: one program and two, whole and odd."""
    x, change = numbers(num, 8, 4, 16), numbers(num, 8, 4, 16, seed=2)
    _, back = jax.vjp(lambda of: windows(x, of), layer(16, 16))
    w, b = kernels._weights_gradient(x, change, active=False)
    alike({"w": w, "b": b}, back(change)[0])


def test_a_number_that_is_none_is_not_lost_among_others():
    x = numbers(1, 8, 8, 16).at[0, 3, 3, 0].set(jnp.nan)
    lost = jnp.isnan(pooled_windows(x, layer(16, 16)))
    assert lost.any() and not lost.all()
    np.testing.assert_array_equal(jnp.isnan(kernels.pooled(x, layer(16, 16))), lost)


def test_where_some_are_the_largest_the_gradient_goes_to_the_first():
    flat = jnp.ones((1, 8, 8, 16))
    of = {"w": jnp.zeros((9, 16, 16)).at[4].set(jnp.eye(16)), "b": jnp.zeros(16)}  # as it is
    _, back = jax.vjp(lambda x: kernels.pooled(x, of), flat)
    (change,) = back(jnp.ones((1, 4, 4, 16)))
    np.testing.assert_array_equal(change[0, ::2, ::2], 1.0)
    assert float(change.sum()) == 16 * 16


@pytest.mark.slow
def test_the_whole_network_is_that_of_windows_whoever_is_asked_side_by_side():
    ours, judged = (
        nets.impala_cnn((32, 32, 3), 4, (16, 16, 32), convolutions=convolutions)
        for convolutions in (kernels.impala, None)
    )
    members = jax.vmap(ours.init)(jax.random.split(jax.random.key(0), 2))
    members = jax.tree.map(lambda leaf: leaf + 0.1 * numbers(*leaf.shape), members)
    obs = pictures(2, 3, size=32)
    alike(
        jax.jit(jax.vmap(ours.apply))(members, obs), jax.jit(jax.vmap(judged.apply))(members, obs)
    )
    one = jax.tree.map(lambda leaf: leaf[0], members)
    gradients = [
        jax.jit(jax.grad(lambda params, net=net: (net.apply(params, obs[0]) ** 2).mean()))(one)
        for net in (ours, judged)
    ]
    for found, expected in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * abs(expected).max())


def test_members_learn_side_by_side_what_each_learns_alone():
    x = numbers(2, 2, 4, 8, 16)
    each = jax.tree.map(lambda *leaves: jnp.stack(leaves), layer(16, 16), layer(16, 16, seed=7))
    gradient = jax.grad(lambda of, x: (kernels.residual(x, of, of) ** 2).sum())
    both = jax.vmap(gradient)(each, x)
    for member in range(2):
        alone = gradient(jax.tree.map(lambda leaf, m=member: leaf[m], each), x[member])
        alike(jax.tree.map(lambda leaf, m=member: leaf[m], both), alone)


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")
def test_they_are_written_as_kernels_for_a_gpu_that_is_not_there(monkeypatch):
    """All of them, forward and backward, in bfloat16, of members side by side."""
    net = nets.in_bfloat16(nets.impala_cnn((64, 64, 3), 4, convolutions=kernels.impala))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 5))
    params = jax.eval_shape(jax.vmap(net.init), keys)
    obs = jax.ShapeDtypeStruct((5, 4, 64, 64, 3), jnp.uint8)
    gradient = jax.vmap(jax.grad(lambda params, obs: net.apply(params, obs).sum()))
    card = jax.sharding.AbstractDevice(device_kind="NVIDIA H200", num_cores=None, platform="gpu")
    mesh = jax.sharding.AbstractMesh((1,), ("one",), abstract_device=card)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with jax.sharding.use_abstract_mesh(mesh):
        lowered = jax.jit(gradient).trace(params, obs).lower(lowering_platforms=("cuda",))
    # forward: 3 pooled and 12 others; backward: as many by weights, 14 by inputs, 2 spread out
    assert lowered.as_text().count("__gpu$xla.gpu.triton") == 15 + 15 + 14 + 2


@pytest.mark.parametrize(
    ("shape", "can"),
    [
        ((64, 64, 3), True),
        ((32, 32, 3), True),
        ((64, 60, 3), False),  # no half of a half of a half
        ((16, 16, 3), False),  # four places at last, too few for a product
        ((40, 40, 3), False),  # 25 places, of which nothing takes sixteen at a time
        ((64, 64, 4), False),
    ],
)
def test_which_pictures_they_can_see(shape: tuple[int, int, int], can: bool):
    assert kernels.supports(shape) == can


@pytest.mark.parametrize(
    ("kind", "capability", "does"),
    [
        ("NVIDIA H200", "9.0", True),
        ("NVIDIA A100-SXM4-40GB", "8.0", True),
        ("NVIDIA B200", "10.0", True),
        ("Tesla T4", "7.5", False),
        ("NVIDIA T4", "7.5", False),
        ("AMD Instinct MI300X", "gfx942", False),
        ("NVIDIA of another kind", "unknown", False),
        ("cpu", None, False),
    ],
)
def test_on_which_devices_they_run(kind: str, capability: str | None, does: bool):
    given = {} if capability is None else {"compute_capability": capability}
    assert kernels.runs_on(SimpleNamespace(device_kind=kind, **given)) == does


def test_more_pictures_than_offsets_can_count_are_refused():
    params = jax.eval_shape(nets.impala_cnn((64, 64, 3), 4).init, jax.random.key(0))
    of = partial(jax.eval_shape, kernels.impala, params["sequences"])
    assert of(jax.ShapeDtypeStruct((131_071, 64, 64, 3), jnp.uint8)).shape == (131_071, 8, 8, 32)
    with pytest.raises(ValueError, match="fewer than 131072 at once, got 131072"):
        of(jax.ShapeDtypeStruct((131_072, 64, 64, 3), jnp.uint8))
