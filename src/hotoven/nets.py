"""Networks as (init, apply) pairs of pure functions.

`apply` takes one observation or many, with any axes in front; a batch in one call is faster than
`vmap` over its rows (docs/decisions/0007-batches-and-devices.md). Members are added by `vmap`.
Convolutions are written as shifted copies of the picture and one matrix product for all taps: under
`vmap` over ensemble members that becomes a batched matrix product, where a convolution would become
a grouped one, which is several times slower on a CPU.
"""

import math

import jax
import jax.numpy as jnp
from jax.nn.initializers import variance_scaling

from hotoven.types import Net, PyTree


def mlp(
    obs_shape: tuple[int, ...],
    hidden: tuple[int, ...],
    num_outputs: int,
    dropout: float = 0.0,
    high: int = 1,
) -> Net:
    """Dense layers with ReLU on the flattened observation: [..., *obs_shape] -> [..., num_outputs].

    The observation is divided by `high`, the largest value in it.
    `apply(params, obs, key)` drops hidden units with probability `dropout`; without a key it drops
    none. Hidden weights are He-initialised, the last layer's LeCun.
    """
    sizes = (math.prod(obs_shape), *hidden, num_outputs)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key, len(sizes) - 1)
        gains = [2.0] * (len(sizes) - 2) + [1.0]
        return [
            _dense(k, fan_in, fan_out, gain)
            for k, fan_in, fan_out, gain in zip(keys, sizes[:-1], sizes[1:], gains, strict=True)
        ]

    def apply(params: PyTree, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        x = _scaled(obs, high).reshape(*_front(obs, obs_shape), -1)
        for index, layer in enumerate(params[:-1]):
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
            if dropout > 0.0 and key is not None:
                x = _drop(x, dropout, jax.random.fold_in(key, index))
        return x @ params[-1]["w"] + params[-1]["b"]

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
        x = _scaled(obs, high).reshape(-1, *obs_shape)
        for layer in params["convs"]:
            x = jax.nn.relu(_patches(x) @ layer["w"] + layer["b"])
        if pool:
            x = x.max(axis=(1, 2))
        x = x.reshape(*_front(obs, obs_shape), *seen)
        return head.apply(params["head"], x, key)

    return Net(init, apply)


def _scaled(obs: jax.Array, high: int) -> jax.Array:
    """float32: from 0 to 1; a division by 1 would still be a division."""
    x = obs.astype(jnp.float32)
    return x if high == 1 else x * jnp.float32(1 / high)


def _dense(key: jax.Array, fan_in: int, fan_out: int, gain: float) -> dict[str, jax.Array]:
    weights = variance_scaling(gain, "fan_in", "truncated_normal")
    return {"w": weights(key, (fan_in, fan_out), jnp.float32), "b": jnp.zeros(fan_out, jnp.float32)}


def _drop(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0)


def _patches(x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, H, W, 9C]: each cell beside its eight neighbours, zeros outside."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1)


def _front(obs: jax.Array, obs_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes in front of an observation's own."""
    return obs.shape[: obs.ndim - len(obs_shape)]
