"""Networks compute what their names say, for one observation, a batch and an ensemble."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotoven import nets
from hotoven.types import Net, PyTree

OBS_SHAPE = (4, 3, 2)  # unequal, so that no two axes can be mistaken for each other
OBS = jax.random.bernoulli(jax.random.key(7), 0.5, OBS_SHAPE).astype(jnp.uint8)

NETS = {
    "mlp": nets.mlp(OBS_SHAPE, (8, 6), 5),
    "cnn": nets.cnn(OBS_SHAPE, (7, 6), (8,), 5),
    "pooled": nets.cnn(OBS_SHAPE, (7,), (8,), 5, pool=True),
    "linear": nets.mlp(OBS_SHAPE, (), 5),
}


def layer(weights: list[list[float]], biases: list[float]) -> dict[str, jax.Array]:
    return {"w": jnp.array(weights), "b": jnp.array(biases)}


def test_an_mlp_is_dense_layers_with_relu_between_them():
    net = nets.mlp((2,), (2,), 1)
    params = [layer([[1.0, -1.0], [2.0, 0.0]], [0.5, 0.0]), layer([[10.0], [1.0]], [3.0])]
    # hidden: relu(1 + 6 + 0.5, -1) = (7.5, 0); output: 75 + 0 + 3
    np.testing.assert_allclose(net.apply(params, jnp.array([1.0, 3.0])), [78.0])
    # hidden: relu(-1 + 0.5, 1) = (0, 1); output: 0 + 1 + 3
    np.testing.assert_allclose(net.apply(params, jnp.array([-1.0, 0.0])), [4.0])


def test_a_convolution_sums_the_neighbourhood_and_sees_zeros_outside():
    net = nets.cnn((3, 3, 1), (1,), (), 9)
    sums = {
        "convs": [layer([[1.0]] * 9, [0.0])],
        "head": [{"w": jnp.eye(9), "b": jnp.zeros(9)}],
    }
    ones = net.apply(sums, jnp.ones((3, 3, 1))).reshape(3, 3)
    np.testing.assert_allclose(ones, [[4, 6, 4], [6, 9, 6], [4, 6, 4]])


def test_pooling_says_what_is_there_and_not_where():
    net = nets.cnn((5, 5, 1), (2,), (), 2, pool=True)
    params = {
        "convs": [layer([[1.0, float(tap == 4)] for tap in range(9)], [0.0, 0.5])],
        "head": [layer([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])],
    }
    pair = jnp.zeros((5, 5, 1)).at[1, 1].set(2.0).at[1, 2].set(1.0)
    for shift in ((0, 0), (2, 1)):
        moved = jnp.roll(pair, shift, axis=(0, 1))
        # the largest sum of nine cells, and the largest single cell plus its bias
        np.testing.assert_allclose(net.apply(params, moved), [3.0, 2.5])


@pytest.mark.parametrize("filters", [(5,), (5, 6)])
def test_the_taps_agree_with_a_convolution_of_jax(filters: tuple[int, ...]):
    net = nets.cnn(OBS_SHAPE, filters, (8,), 5)
    params = jax.jit(net.init)(jax.random.key(0))
    x = OBS.astype(jnp.float32)[None]
    for conv in params["convs"]:
        kernel = conv["w"].reshape(3, 3, x.shape[-1], -1)
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + conv["b"])
    head = nets.mlp(x.shape[1:], (8,), 5)
    judged = head.apply(params["head"], x[0])
    np.testing.assert_allclose(net.apply(params, OBS), judged, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module", params=NETS)
def ensemble(request: pytest.FixtureRequest) -> tuple[Net, PyTree]:
    """A net and the params of three members, of keys 0, 1 and 2; leaves [M, ...]."""
    net = NETS[request.param]
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    return net, jax.jit(jax.vmap(net.init))(keys)


def member(params: PyTree, index: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], params)


def test_a_batch_and_an_ensemble_are_what_each_alone_is(ensemble: tuple[Net, PyTree]):
    net, members = ensemble
    batch = jnp.stack([OBS, 1 - OBS])
    every = jax.jit(jax.vmap(jax.vmap(net.apply, (None, 0)), (0, None)))(members, batch)
    assert every.shape == (3, 2, 5)
    assert every.dtype == jnp.float32
    for m in range(3):
        alone = net.apply(member(members, m), batch[1])
        np.testing.assert_allclose(every[m, 1], alone, rtol=1e-5, atol=1e-6)


def test_axes_in_front_are_a_batch(ensemble: tuple[Net, PyTree]):
    net, members = ensemble
    params = member(members, 0)
    grid = jnp.stack([OBS, 1 - OBS, OBS]).reshape(3, 1, *OBS_SHAPE).repeat(2, axis=1)
    outputs = net.apply(params, grid)
    assert outputs.shape == (3, 2, 5)
    for i, obs in enumerate((OBS, 1 - OBS, OBS)):
        np.testing.assert_allclose(outputs[i, 1], net.apply(params, obs), rtol=1e-5, atol=1e-6)


def test_hidden_weights_have_the_variance_of_he_and_the_last_of_lecun():
    params = nets.mlp((400,), (300,), 500).init(jax.random.key(0))
    assert params[0]["w"].std() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert params[1]["w"].std() == pytest.approx((1 / 300) ** 0.5, rel=0.02)
    convs = nets.cnn((5, 5, 40), (300,), (8,), 4).init(jax.random.key(0))["convs"]
    assert convs[0]["w"].std() == pytest.approx((2 / 360) ** 0.5, rel=0.02)


def test_members_of_different_keys_differ_and_of_one_key_agree(ensemble: tuple[Net, PyTree]):
    net, members = ensemble
    again = jax.jit(net.init)(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, again, member(members, 0))
    outputs = [net.apply(member(members, m), OBS) for m in range(3)]
    assert not np.allclose(outputs[0], outputs[1])
    assert not np.allclose(outputs[0], outputs[2])


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_dtypes_are_promoted_nowhere_by_accident(net: Net):
    with jax.numpy_dtype_promotion("strict"):
        output = jax.eval_shape(lambda key: net.apply(net.init(key), OBS, key), jax.random.key(0))
    assert (output.shape, output.dtype) == ((5,), jnp.float32)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_dropout_without_a_key_drops_nothing(kind: str):
    if kind == "mlp":
        sure, unsure = (nets.mlp(OBS_SHAPE, (64,), 5, rate) for rate in (0.0, 0.5))
    else:
        sure, unsure = (nets.cnn(OBS_SHAPE, (4,), (64,), 5, rate) for rate in (0.0, 0.5))
    params = jax.jit(sure.init)(jax.random.key(0))
    np.testing.assert_array_equal(sure.apply(params, OBS), unsure.apply(params, OBS))
    np.testing.assert_array_equal(
        sure.apply(params, OBS, jax.random.key(1)), sure.apply(params, OBS)
    )
    dropped = [unsure.apply(params, OBS, jax.random.key(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert not np.allclose(dropped[0], dropped[2])
    assert not np.allclose(dropped[0], sure.apply(params, OBS))


def test_dropout_keeps_the_expected_output():
    rate, units = 0.25, 1000
    net = nets.mlp((1,), (units,), 1, rate)
    params = [
        layer([[1.0] * units], [0.0] * units),
        layer([[1.0 / units]] * units, [0.0]),
    ]
    keys = jax.random.split(jax.random.key(0), 400)
    outputs = jax.vmap(lambda key: net.apply(params, jnp.ones(1), key))(keys)
    # Each unit is 1 / 0.75 with probability 0.75: mean 1, standard deviation 0.58 / sqrt(units).
    assert outputs.mean() == pytest.approx(1.0, abs=0.004)
    assert outputs.std() == pytest.approx(0.0183, rel=0.15)


# Networks for pictures, against XLA's own convolutions and pooling


def convolved(x: jax.Array, layer: dict, size: int, stride: int, padding: str) -> jax.Array:
    """The same layer by `lax.conv_general_dilated`: weights back from depth to space."""
    _, depth, filters = layer["w"].shape
    side, channels = size // stride, depth // stride**2
    kernel = layer["w"].reshape(side, side, stride, stride, channels, filters)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(size, size, channels, filters)
    names = ("NHWC", "HWIO", "NHWC")
    out = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=names
    )
    return out + layer["b"]


def pictures(*shape: int) -> jax.Array:
    return jax.random.bits(jax.random.key(1), shape, jnp.uint8)


def nonzero(params: Any) -> Any:
    """Random numbers in the shapes of `params`: biases, too, and what starts at zero."""
    generator = np.random.default_rng(2)
    return jax.tree.map(
        lambda leaf: 0.1 * generator.normal(size=leaf.shape).astype(np.float32), params
    )


@pytest.mark.parametrize("size", [37, 64])
def test_the_nature_network_is_its_convolutions(size: int):
    net = nets.strided_cnn((size, size, 3), *nets.NATURE, 7, high=255)
    params = nonzero(jax.eval_shape(net.init, jax.random.key(0)))
    obs = pictures(2, size, size, 3)
    x = obs / 255.0
    for layer, (kernel, stride) in zip(params["convs"], ((8, 4), (4, 2), (3, 1)), strict=True):
        x = jax.nn.relu(convolved(x, layer, kernel, stride, "VALID"))
    first, last = params["head"]
    hidden = jax.nn.relu(x.reshape(2, -1) @ first["w"] + first["b"])
    np.testing.assert_allclose(
        jax.jit(net.apply)(params, obs), hidden @ last["w"] + last["b"], rtol=1e-4, atol=1e-4
    )


def test_the_gradient_of_a_product_is_that_of_any_product():
    generator = np.random.default_rng(0)
    rows, weights = (generator.normal(size=s).astype(np.float32) for s in ((3, 6, 4), (3, 4, 2)))

    def gradients(product: Any) -> Any:
        each = jax.grad(lambda *args: (product(*args) ** 3).sum(), argnums=(0, 1))
        return jax.jit(jax.vmap(each))(rows, weights)  # as under an ensemble

    jax.tree.map(
        lambda ours, judged: np.testing.assert_allclose(ours, judged, rtol=1e-4, atol=1e-4),
        gradients(nets._product),
        gradients(jnp.matmul),
    )


@pytest.mark.parametrize("size", [12, 13])
def test_the_impala_network_is_its_convolutions_and_largest_values(size: int):
    net = nets.impala_cnn((size, size, 3), 4, depths=(4, 6))
    params = nonzero(jax.eval_shape(net.init, jax.random.key(0)))
    obs = pictures(2, size, size, 3)

    def expected(params: PyTree, obs: jax.Array) -> jax.Array:
        x = obs / 255.0
        for sequence in params["sequences"]:
            x = convolved(x, sequence["first"], 3, 1, "SAME")
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
            for k in (0, 2):
                inner, outer = sequence["blocks"][k : k + 2]
                y = jax.nn.relu(convolved(jax.nn.relu(x), inner, 3, 1, "SAME"))
                x = x + convolved(y, outer, 3, 1, "SAME")
        first, last = params["head"]
        hidden = jax.nn.relu(jax.nn.relu(x).reshape(2, -1) @ first["w"] + first["b"])
        return hidden @ last["w"] + last["b"]

    np.testing.assert_allclose(
        jax.jit(net.apply)(params, obs), jax.jit(expected)(params, obs), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["small", "impala"])
def test_pictures_with_any_axes_in_front_are_answered_alike(name: str):
    shape = (13, 13, 3)
    impala, small = nets.impala_cnn(shape, 5, (4, 6)), nets.strided_cnn(shape, *nets.SMALL, 5)
    net = impala if name == "impala" else small
    params = jax.jit(net.init)(jax.random.key(0))
    obs = pictures(2, 3, 13, 13, 3)
    apply = jax.jit(net.apply)
    many = apply(params, obs)
    assert many.shape == (2, 3, 5)
    np.testing.assert_allclose(many[1, 2], apply(params, obs[1, 2]), rtol=1e-4, atol=1e-5)


def test_an_observation_too_small_for_its_convolutions_is_refused():
    with pytest.raises(ValueError, match=r"too small for convolutions .*, got \(32, 64, 3\)"):
        nets.strided_cnn((32, 64, 3), *nets.NATURE, 5)


SIDES = (36, 36, 3)


def of_pictures(name: str) -> Net:
    """A network of pictures, its last layer as random as the others."""
    return {
        "mlp": nets.mlp(SIDES, (16,), 4, high=255),
        "nature": nets.strided_cnn(SIDES, *nets.NATURE, 4, 255),
        "impala": nets.impala_cnn(SIDES, 4, (4, 6)),
    }[name]


@pytest.mark.parametrize("name", ["mlp", "nature", "impala"])
def test_in_bfloat16_products_are_rounded_and_params_and_gradients_are_not(name: str):
    net = of_pictures(name)
    halved = nets.in_bfloat16(net)
    params = jax.jit(halved.init)(jax.random.key(0))
    obs = np.random.default_rng(0).integers(0, 256, (3, *SIDES), np.uint8)
    exact, rounded = jax.jit(net.apply)(params, obs), jax.jit(halved.apply)(params, obs)
    assert rounded.dtype == jnp.float32
    assert 0.0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()
    grads = jax.jit(jax.grad(lambda params: halved.apply(params, obs).sum()))(params)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, grads))} == {jnp.dtype("float32")}


@pytest.mark.optimised
@pytest.mark.parametrize("name", ["mlp", "nature", "impala"])
def test_params_that_are_kept_in_bfloat16_say_the_same_to_the_bit(name: str):
    net = nets.in_bfloat16(of_pictures(name))
    noise = lambda leaf: 0.1 * jax.random.normal(jax.random.key(1), leaf.shape)  # noqa: E731
    params = jax.tree.map(lambda leaf: leaf + noise(leaf), jax.jit(net.init)(jax.random.key(0)))
    fewer = nets.halved(params)
    whole = params[-1:] if name == "mlp" else params["head"][-1:]
    kept = fewer[-1:] if name == "mlp" else fewer["head"][-1:]
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, whole, kept))
    rest = len(jax.tree.leaves(params)) - len(jax.tree.leaves(whole))
    dtypes = [leaf.dtype.name for leaf in jax.tree.leaves(fewer)]
    assert (dtypes.count("bfloat16"), dtypes.count("float32")) == (rest, len(dtypes) - rest)
    obs = np.random.default_rng(0).integers(0, 256, (3, *SIDES), np.uint8)
    apply = jax.jit(net.apply)
    np.testing.assert_array_equal(apply(params, obs), apply(fewer, obs))


@pytest.mark.parametrize("name", ["mlp", "small"])
def test_in_bfloat16_a_large_value_is_told_from_one_a_little_larger(name: str):
    shape = (12, 12, 3)
    net = nets.mlp(shape, (16,), 2) if name == "mlp" else nets.strided_cnn(shape, *nets.SMALL, 2)
    halved = nets.in_bfloat16(net)
    params = net.init(jax.random.key(0))
    last = params[-1] if name == "mlp" else params["head"][-1]
    last["w"], last["b"] = last["w"] * 0, last["b"] + jnp.array([5.0, 5.002])
    said = halved.apply(params, jnp.ones((1, *shape), jnp.uint8))[0]
    assert said.tolist() == pytest.approx([5.0, 5.002], abs=1e-5)


def test_channels_that_hold_one_value_in_all_cells_are_read_once():
    shape, num_wholes = (2, 3, 4), 2
    net = nets.mlp(shape, (), 3, high=10, num_wholes=num_wholes)
    params = net.init(jax.random.key(0))
    assert params[0]["w"].shape == (2 * 3 * 2 + num_wholes, 3)
    obs = np.random.default_rng(0).integers(0, 11, (5, *shape))
    obs[..., 2:] = obs[:, :1, :1, 2:]
    # the same as reading them everywhere, each with an equal part of the weight
    spread = params[0]["w"][-num_wholes:] * np.sqrt(6) / 6
    own = params[0]["w"][:-num_wholes].reshape(2, 3, 2, 3)
    each = jnp.concatenate([own, jnp.broadcast_to(spread, (2, 3, 2, 3))], axis=2)
    expected = nets.mlp(shape, (), 3, high=10).apply(
        [{"w": each.reshape(-1, 3), "b": params[0]["b"]}], obs
    )
    np.testing.assert_allclose(net.apply(params, obs), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(net.apply(params, obs[0]), expected[0], rtol=1e-4, atol=1e-6)
