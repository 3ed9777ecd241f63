"""Networks as (init, apply) pairs of pure functions.

`apply` takes one observation or many, with any axes in front; a batch in one call is faster than
`vmap` over its rows (docs/decisions/0007-batches-and-devices.md). `vmap` adds members.
Convolutions are written as shifted copies of the picture and one matrix product for all taps: under
`vmap` over ensemble members that becomes a batched matrix product, where a convolution would become
a grouped one, which is several times slower on a CPU (docs/decisions/0010-convolutions.md).
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import Final

import jax
import jax.numpy as jnp
from jax.nn.initializers import variance_scaling

from hotoven.types import Net, PyTree

FEW_ROWS: Final = 256  # of a batch: up to here the last layer's gradient is turned round


def mlp(
    obs_shape: tuple[int, ...],
    hidden: tuple[int, ...],
    num_outputs: int,
    dropout: float = 0.0,
    high: int = 1,
    last_gain: float = 1.0,
    num_wholes: int = 0,
) -> Net:
    """Dense layers with ReLU on the flattened observation: [..., *obs_shape] -> [..., num_outputs].

    The observation is divided by `high`, the largest value in it. Its last `num_wholes` channels
    hold one value in all cells: they are read once, times the root of the number of cells, so that
    they weigh at first what reading them in every cell would make them weigh.
    `apply(params, obs, key)` drops hidden units with probability `dropout`; without a key it drops
    none. Hidden weights are He-initialised, the last layer's variance is `last_gain` times LeCun's.
    """
    num_cells, num_own = math.prod(obs_shape[:-1]), obs_shape[-1] - num_wholes
    sizes = (num_cells * num_own + num_wholes, *hidden, num_outputs)

    def flat(x: jax.Array) -> jax.Array:
        """[..., *obs_shape] -> [..., features]."""
        front = _front(x, obs_shape)
        if num_wholes == 0:
            return x.reshape(*front, -1)
        cells = x.reshape(*front, num_cells, obs_shape[-1])
        wholes = cells[..., 0, num_own:] * math.sqrt(num_cells)
        return jnp.concatenate([cells[..., :num_own].reshape(*front, -1), wholes], axis=-1)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key, len(sizes) - 1)
        gains = [2.0] * (len(sizes) - 2) + [last_gain]
        return [
            _dense(k, fan_in, fan_out, gain)
            for k, fan_in, fan_out, gain in zip(keys, sizes[:-1], sizes[1:], gains, strict=True)
        ]

    def apply(params: PyTree, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        x = flat(_scaled(obs, high, params))
        for index, layer in enumerate(params[:-1]):
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
            if dropout > 0.0 and key is not None:
                x = _drop(x, dropout, jax.random.fold_in(key, index))
        last = params[-1]
        x = x.astype(last["w"].dtype)
        # 32 rows gain by the turned gradient, 1024 do not (docs/decisions/0013-members-in-turn.md)
        product = _product if x.ndim == 2 and len(x) <= FEW_ROWS else jnp.matmul
        return product(x, last["w"]) + last["b"]

    return Net(init, apply)


def cnn(
    obs_shape: tuple[int, ...],
    filters: tuple[int, ...],
    hidden: tuple[int, ...],
    num_outputs: int,
    dropout: float = 0.0,
    pool: bool = False,
    high: int = 1,
) -> Net:
    """3x3 convolutions (stride 1, zero padding, ReLU), then the dense layers of `mlp`.

    With `pool` the dense layers see the largest value of each filter over the grid, so that what
    is found does not depend on where it is found; else they see every value.
    """
    height, width, channels = obs_shape
    depths = (channels, *filters)
    seen = (depths[-1],) if pool else (height, width, depths[-1])
    head = mlp(seen, hidden, num_outputs, dropout)

    def init(key: jax.Array) -> PyTree:
        k_head, *k_convs = jax.random.split(key, len(depths))
        convs = [
            _dense(k, 9 * depth_in, depth_out, 2.0)
            for k, depth_in, depth_out in zip(k_convs, depths[:-1], depths[1:], strict=True)
        ]
        return {"convs": convs, "head": head.init(k_head)}

    def apply(params: PyTree, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        # a flat batch: products with one axis of rows are faster than with several
        x = _scaled(obs, high, params).reshape(-1, *obs_shape)
        for layer in params["convs"]:
            x = jax.nn.relu(_windows(_framed(x), 3) @ layer["w"] + layer["b"])
        if pool:
            x = x.max(axis=(1, 2))
        x = x.reshape(*_front(obs, obs_shape), *seen)
        return head.apply(params["head"], x, key)

    return Net(init, apply)


# Filters, size and stride of each convolution, and units of the dense layers after them.
NATURE: Final = (((32, 8, 4), (64, 4, 2), (64, 3, 1)), (512,))  # Mnih et al. 2015, for pictures
SMALL: Final = (((32, 4, 2), (32, 3, 1)), (128,))  # for some dozen cells on a side


def strided_cnn(
    obs_shape: tuple[int, ...],
    layers: tuple[tuple[int, int, int], ...],
    hidden: tuple[int, ...],
    num_outputs: int,
    high: int = 1,
    last_gain: float = 1.0,
) -> Net:
    """Convolutions (filters, size, stride), nothing outside, ReLU; then the dense layers of `mlp`.

    Strides become depth first: a convolution with stride s on [H, W, C] is one with stride 1 on
    [H / s, W / s, s * s * C]. A stride must divide its size.

    Raises:
      ValueError: an observation is too small for the convolutions.
    """
    height, width, channels = obs_shape
    shapes = []  # of a layer's weights: taps, depth in, filters
    for filters, size, stride in layers:
        taps = size // stride
        shapes.append((taps * taps, stride * stride * channels, filters))
        height, width = (height - size) // stride + 1, (width - size) // stride + 1
        channels = filters
    if min(height, width) < 1:
        raise ValueError(f"obs_shape is too small for convolutions {layers}, got {obs_shape}")
    head = mlp((height * width * channels,), hidden, num_outputs, last_gain=last_gain)

    def init(key: jax.Array) -> PyTree:
        k_head, *keys = jax.random.split(key, len(layers) + 1)
        convs = [_conv(k, *shape) for k, shape in zip(keys, shapes, strict=True)]
        return {"convs": convs, "head": head.init(k_head)}

    def apply(params: PyTree, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        x = _scaled(obs, high, params).reshape(-1, *obs_shape)
        for layer, (_, size, stride) in zip(params["convs"], layers, strict=True):
            x = jax.nn.relu(_by_windows(_depth_from_space(x, size, stride), layer))
        return head.apply(params["head"], x.reshape(*_front(obs, obs_shape), -1))

    return Net(init, apply)


def impala_cnn(
    obs_shape: tuple[int, ...],
    num_outputs: int,
    depths: tuple[int, ...] = (16, 32, 32),
    high: int = 255,
    last_gain: float = 1.0,
    convolutions: Callable[[PyTree, jax.Array], jax.Array] | None = None,
) -> Net:
    """The residual network of Espeholt et al. 2018 for pictures, then 256 units.

    A sequence per depth: a 3x3 convolution, the largest of each 3x3 with stride 2, and two residual
    blocks of two 3x3 convolutions. Zeros outside. `convolutions` is what computes the sequences in
    place of windows, e.g. `kernels.impala`, from their params and uint8 [N, *obs_shape] of which
    255 is the highest.
    """
    height, width, channels = obs_shape
    for _ in depths:
        height, width = -(-height // 2), -(-width // 2)
    head = mlp((height * width * depths[-1],), (256,), num_outputs, last_gain=last_gain)

    def init(key: jax.Array) -> PyTree:
        k_head, *keys = jax.random.split(key, len(depths) + 1)
        sequences = []
        for k, depth_in, depth in zip(keys, (channels, *depths[:-1]), depths, strict=True):
            k_first, *k_blocks = jax.random.split(k, 5)
            first = _conv(k_first, 9, depth_in, depth)
            # the second of a block adds nothing at first: deep sums stay small
            blocks = [
                _conv(own, 9, depth, depth, gain=2.0 if index % 2 == 0 else 0.0)
                for index, own in enumerate(k_blocks)
            ]
            sequences.append({"first": first, "blocks": blocks})
        return {"sequences": sequences, "head": head.init(k_head)}

    def by_windows(sequences: PyTree, pictures: jax.Array) -> jax.Array:
        x = _scaled(pictures, high, sequences)
        for sequence in sequences:
            x = _largest(_by_windows(_framed(x), sequence["first"]))
            for inner, outer in zip(sequence["blocks"][::2], sequence["blocks"][1::2], strict=True):
                y = _by_windows(_framed(jax.nn.relu(x)), inner)
                x = x + _by_windows(_framed(jax.nn.relu(y)), outer)
        return x

    convolve = convolutions or by_windows

    def apply(params: PyTree, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        x = convolve(params["sequences"], obs.reshape(-1, *obs_shape))
        x = jax.nn.relu(x).reshape(*_front(obs, obs_shape), -1)
        return head.apply(params["head"], x)

    return Net(init, apply)


def _conv(
    key: jax.Array, taps: int, depth: int, filters: int, gain: float = 2.0
) -> dict[str, jax.Array]:
    """Weights [taps, depth, filters] and biases of a convolution."""
    layer = _dense(key, taps * depth, filters, gain)
    return {"w": layer["w"].reshape(taps, depth, filters), "b": layer["b"]}


def _by_windows(x: jax.Array, layer: dict[str, jax.Array]) -> jax.Array:
    """A convolution with stride 1 and nothing outside: [N, H, W, C] -> [N, H', W', F].

    Every place with what its window holds, in one product of two matrices; for what else was tried
    see docs/decisions/0010-convolutions.md.
    """
    taps, depth, filters = layer["w"].shape
    windows = _windows(x, math.isqrt(taps))
    places = windows.shape[:3]
    weights = layer["w"].reshape(taps * depth, filters)
    product = _product(windows.reshape(math.prod(places), taps * depth), weights)
    return product.reshape(*places, filters) + layer["b"]


@jax.custom_vjp
def _product(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """[R, K] @ [K, F], for few columns F.

    The weights' gradient is taken as [F, R] @ [R, K] and turned round: on a CPU [K, R] @ [R, F]
    takes up to twice as long. The barrier keeps XLA from turning the product round instead.
    """
    return rows @ weights


def _product_forward(
    rows: jax.Array, weights: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return rows @ weights, (rows, weights)


def _product_backward(
    kept: tuple[jax.Array, jax.Array], change: jax.Array
) -> tuple[jax.Array, jax.Array]:
    rows, weights = kept
    return change @ weights.T, jax.lax.optimization_barrier(change.T @ rows).T


_product.defvjp(_product_forward, _product_backward)


def _windows(x: jax.Array, side: int) -> jax.Array:
    """[N, H, W, C] -> [N, H - side + 1, W - side + 1, side * side * C]: each place's window."""
    height, width = x.shape[1] - side + 1, x.shape[2] - side + 1
    shifted = [x[:, i : i + height, j : j + width] for i in range(side) for j in range(side)]
    return jnp.concatenate(shifted, axis=-1)


def _depth_from_space(x: jax.Array, size: int, stride: int) -> jax.Array:
    """[N, H, W, C] -> [N, H / stride, W / stride, stride * stride * C], what a window reaches."""
    if stride == 1:
        return x
    num, height, width, depth = x.shape
    rows, cols = (((side - size) // stride + size // stride) for side in (height, width))
    x = x[:, : rows * stride, : cols * stride].reshape(num, rows, stride, cols, stride, depth)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(num, rows, cols, stride * stride * depth)


def _framed(x: jax.Array) -> jax.Array:
    """With a row and a column of zeros on every side."""
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _largest(x: jax.Array) -> jax.Array:
    """The largest of each 3x3 at every second place, as a convolution with stride 2 would go."""
    height, width = x.shape[1:3]
    rows, cols = -(-height // 2), -(-width // 2)
    # as XLA and TensorFlow frame it: the odd one of an even side's frame is at its end
    before_row, before_col = height % 2, width % 2
    after_row, after_col = 2 * rows + 1 - height - before_row, 2 * cols + 1 - width - before_col
    padded = jnp.pad(
        x,
        ((0, 0), (before_row, after_row), (before_col, after_col), (0, 0)),
        constant_values=-jnp.inf,
    )
    shifted = [
        padded[:, row : row + 2 * rows - 1 : 2, col : col + 2 * cols - 1 : 2]
        for row in range(3)
        for col in range(3)
    ]
    return reduce(jnp.maximum, shifted)


def in_bfloat16(net: Net) -> Net:
    """The same network, whose products are of bfloat16 numbers; outputs are float32, params may be.

    But for the last layer: a value near 5 would move in steps of 0.03, and ensembles are judged by
    how much less than that their members differ. For accelerators, where such products are faster;
    a CPU has to emulate them.
    """

    def apply(params: PyTree, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        params = halved(params)
        return net.apply(params, obs) if key is None else net.apply(params, obs, key)

    return Net(net.init, apply)


def halved(params: PyTree) -> PyTree:
    """A network's params in bfloat16, but for the last layer's: what `in_bfloat16` multiplies."""
    fewer = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    if isinstance(params, dict):
        fewer["head"][-1] = params["head"][-1]
    else:
        fewer[-1] = params[-1]
    return fewer


def _scaled(obs: jax.Array, high: int, params: PyTree) -> jax.Array:
    """From 0 to 1, in the precision of the params; a division by 1 would still be a division."""
    x = obs.astype(jax.tree.leaves(params)[0].dtype)
    return x if high == 1 else x * jnp.asarray(1 / high, x.dtype)


def _dense(key: jax.Array, fan_in: int, fan_out: int, gain: float) -> dict[str, jax.Array]:
    shape = (fan_in, fan_out)
    scaled = variance_scaling(gain, "fan_in", "truncated_normal") if gain else None
    weights = scaled(key, shape, jnp.float32) if scaled else jnp.zeros(shape, jnp.float32)
    return {"w": weights, "b": jnp.zeros(fan_out, jnp.float32)}


def _drop(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0)


def _front(obs: jax.Array, obs_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes in front of an observation's own."""
    return obs.shape[: obs.ndim - len(obs_shape)]
