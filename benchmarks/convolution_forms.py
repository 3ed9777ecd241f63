"""Forward and backward passes of Nature-CNN in the forms that were tried, and PyTorch's.

What is not used of them is kept here, so that the table in docs/decisions/0010-convolutions.md can
be made again. Every form is checked against XLA's convolutions before it is timed.
"""

import argparse
import importlib
import math
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotoven import bench, nets
from hotoven.types import PyTree

SHAPE = (64, 64, 3)
NUM_OUTPUTS = 16
LAYERS, HIDDEN = nets.NATURE
NET = nets.strided_cnn(SHAPE, LAYERS, HIDDEN, NUM_OUTPUTS, high=255)
HEAD = nets.mlp((1024,), HIDDEN, NUM_OUTPUTS)

Apply = Callable[[PyTree, jax.Array], jax.Array]
Layer = Callable[[jax.Array, dict[str, jax.Array], int, int], jax.Array]
Gradient = Callable[[PyTree, jax.Array], tuple[jax.Array, PyTree]]


def network(layer: Layer) -> Apply:
    """Nature-CNN whose convolutions are `layer(x, its params, size, stride)`."""

    def apply(params: PyTree, obs: jax.Array) -> jax.Array:
        x = obs.astype(jnp.float32) * jnp.float32(1 / 255)
        for own, (_, size, stride) in zip(params["convs"], LAYERS, strict=True):
            x = jax.nn.relu(layer(x, own, size, stride))
        return HEAD.apply(params["head"], x.reshape(len(obs), -1))

    return apply


# Forms of a convolution


def xla(x: jax.Array, layer: dict[str, jax.Array], size: int, stride: int) -> jax.Array:
    """XLA's own."""
    taps, depth, filters = layer["w"].shape
    side, channels = math.isqrt(taps), depth // stride**2
    kernel = layer["w"].reshape(side, side, stride, stride, channels, filters)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(size, size, channels, filters)
    names = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return layer["b"] + jax.lax.conv_general_dilated(
        x, kernel, strides, "VALID", dimension_numbers=names
    )


def taps(x: jax.Array, layer: dict[str, jax.Array], size: int, stride: int) -> jax.Array:
    """A product for each tap of the kernel, added up."""
    x, side = nets._depth_from_space(x, size, stride), size // stride
    height, width = x.shape[1] - side + 1, x.shape[2] - side + 1
    places = [x[:, i : i + height, j : j + width] for i in range(side) for j in range(side)]
    return layer["b"] + sum(
        place @ weights for place, weights in zip(places, layer["w"], strict=True)
    )


def windows(x: jax.Array, layer: dict[str, jax.Array], size: int, stride: int) -> jax.Array:
    """What every window holds, then one product of arrays with four axes."""
    held = nets._windows(nets._depth_from_space(x, size, stride), size // stride)
    return held @ _matrix(layer) + layer["b"]


def flat(
    x: jax.Array,
    layer: dict[str, jax.Array],
    size: int,
    stride: int,
    product: Callable[[jax.Array, jax.Array], jax.Array] = jnp.matmul,
    hold: Callable[[jax.Array, int, int], jax.Array] | None = None,
) -> jax.Array:
    """The same with one axis of rows, by `product`."""
    held = (hold or _held)(x, size, stride)
    *places, size_in = held.shape
    rows = product(held.reshape(-1, size_in), _matrix(layer))
    return rows.reshape(*places, -1) + layer["b"]


@jax.custom_vjp
def turned(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """As `nets._product`, but nothing keeps XLA from turning the gradient's product round again."""
    return rows @ weights


turned.defvjp(
    lambda rows, weights: (rows @ weights, (rows, weights)),
    lambda kept, change: (change @ kept[1].T, (change.T @ kept[0]).T),
)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def sliced(x: jax.Array, size: int, stride: int) -> jax.Array:
    """Windows cut from the picture with strides; the way back is that of depth from space."""
    side, (height, width) = size // stride, ((s - size) // stride + 1 for s in x.shape[1:3])
    offsets = [
        (stride * a + i, stride * b + j)
        for a in range(side)
        for b in range(side)
        for i in range(stride)
        for j in range(stride)
    ]
    ends = (stride * (height - 1) + 1, stride * (width - 1) + 1)
    return jnp.concatenate(
        [x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i, j in offsets], axis=-1
    )


sliced.defvjp(
    lambda x, size, stride: (sliced(x, size, stride), x),
    lambda size, stride, x, change: jax.vjp(lambda x: _held(x, size, stride), x)[1](change),
)


def convolutions_apart(rows: int) -> Apply:
    """Convolutions in parts of `rows` whose outputs are kept, the dense layers on all at once."""

    def split(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(-1, rows, *leaf.shape[1:])

    def held(index: int, x: jax.Array) -> jax.Array:
        if index == 0:
            x = x.astype(jnp.float32) * jnp.float32(1 / 255)
        return _held(x, *LAYERS[index][1:])

    def outputs(layers: list, x: jax.Array) -> list[jax.Array]:
        found = []
        for index, layer in enumerate(layers):
            rows_of = held(index, x)
            flat_rows = rows_of.reshape(-1, rows_of.shape[-1])
            x = jax.nn.relu(flat_rows @ _matrix(layer) + layer["b"])
            x = x.reshape(*rows_of.shape[:3], -1)
            found.append(x)
        return found

    @jax.custom_vjp
    def stack(layers: list, obs: jax.Array) -> jax.Array:
        return jax.lax.map(lambda x: outputs(layers, x)[-1], split(obs)).reshape(len(obs), -1)

    def forward(layers: list, obs: jax.Array) -> tuple[jax.Array, tuple]:
        kept = jax.lax.map(partial(outputs, layers), split(obs))
        return kept[-1].reshape(len(obs), -1), (layers, obs, kept)

    def backward(all_kept: tuple, change: jax.Array) -> tuple[list, None]:
        layers, obs, kept = all_kept

        def add(total: list, part: tuple) -> tuple[list, None]:
            x, outs, change = part
            changes: list[Any] = [None] * len(layers)
            for index in reversed(range(len(layers))):
                change = jnp.where(outs[index] > 0, change.reshape(outs[index].shape), 0.0)
                flat_change = change.reshape(-1, change.shape[-1])
                before = x if index == 0 else outs[index - 1]
                if index:
                    rows_of, back = jax.vjp(partial(held, index), before)
                    by_rows = flat_change @ _matrix(layers[index]).T
                    (before_change,) = back(by_rows.reshape(rows_of.shape))
                else:
                    rows_of, before_change = held(index, before), change
                by_weights = flat_change.T @ rows_of.reshape(-1, rows_of.shape[-1])
                changes[index] = {"w": by_weights, "b": flat_change.sum(axis=0)}
                change = before_change
            return jax.tree.map(jnp.add, total, changes), None

        zero = [
            {"w": jnp.zeros(_matrix(layer).shape[::-1]), "b": jnp.zeros_like(layer["b"])}
            for layer in layers
        ]
        total, _ = jax.lax.scan(add, zero, (split(obs), kept, split(change)))
        return [
            {"w": own["w"].T.reshape(layer["w"].shape), "b": own["b"]}
            for own, layer in zip(total, layers, strict=True)
        ], None

    stack.defvjp(forward, backward)
    return lambda params, obs: HEAD.apply(params["head"], stack(params["convs"], obs))


def _held(x: jax.Array, size: int, stride: int) -> jax.Array:
    return nets._windows(nets._depth_from_space(x, size, stride), size // stride)


def _matrix(layer: dict[str, jax.Array]) -> jax.Array:
    return layer["w"].reshape(-1, layer["w"].shape[-1])


# Gradients


def whole(apply: Apply) -> Gradient:
    """The gradient of the mean square of all outputs."""
    return jax.value_and_grad(lambda params, obs: (apply(params, obs) ** 2).mean())


def in_parts(apply: Apply, rows: int) -> Gradient:
    """The same, `rows` pictures at a time, as `PPOConfig.rows_at_once` has it."""
    of_part = whole(apply)

    def gradient(params: PyTree, obs: jax.Array) -> tuple[jax.Array, PyTree]:
        def add(total: PyTree, part: jax.Array) -> tuple[PyTree, None]:
            return jax.tree.map(jnp.add, total, of_part(params, part)), None

        nothing = (jnp.float32(0.0), jax.tree.map(jnp.zeros_like, params))
        total, _ = jax.lax.scan(add, nothing, obs.reshape(-1, rows, *obs.shape[1:]))
        return jax.tree.map(lambda leaf: leaf * (rows / len(obs)), total)

    return gradient


def gradients(rows: tuple[int, ...]) -> dict[str, Gradient]:
    """Every form by name, in parts of `rows` pictures where that is of use."""
    forms = {
        "XLA's convolution": network(xla),
        "taps": network(taps),
        "windows": network(windows),
        "windows, flat": network(flat),
        "windows, flat, turned": network(partial(flat, product=turned)),
        "windows, flat, turned for good": NET.apply,
        "the same, sliced": network(partial(flat, product=nets._product, hold=sliced)),
    }
    found = {f"{name}, whole": whole(apply) for name, apply in forms.items()}
    for count in rows:
        found |= {
            f"{name}, parts of {count}": in_parts(apply, count) for name, apply in forms.items()
        }
        found[f"convolutions in parts of {count}"] = whole(convolutions_apart(count))
    return found


# Measurement


def timed(
    gradient: Gradient, params: PyTree, obs: jax.Array, clock: Callable[[], float]
) -> bench.Contestant:
    """Pictures per second, forward and backward."""
    compiled = jax.jit(gradient)
    count = math.prod(obs.shape[: -len(SHAPE)])

    def turn() -> float:
        began = clock()
        jax.block_until_ready(compiled(params, obs))
        return count / (clock() - began)

    return bench.Contestant("pictures/s", turn)


def torch_timed(
    torch: Any, obs: np.ndarray, last: bool, clock: Callable[[], float]
) -> bench.Contestant:
    """The same network in PyTorch; channels last, or first."""
    nn = torch.nn
    modules: list[Any] = []
    channels = SHAPE[-1]
    for filters, size, stride in LAYERS:
        modules += [nn.Conv2d(channels, filters, size, stride), nn.ReLU()]
        channels = filters
    modules += [nn.Flatten(), nn.Linear(1024, HIDDEN[0]), nn.ReLU()]
    modules += [nn.Linear(HIDDEN[0], NUM_OUTPUTS)]
    layout = torch.channels_last if last else torch.contiguous_format
    net = nn.Sequential(*modules).to(memory_format=layout)
    pictures = torch.from_numpy(obs.copy()).permute(0, 3, 1, 2)

    def turn() -> float:
        began = clock()
        net.zero_grad()
        x = (pictures.float() / 255).contiguous(memory_format=layout)
        (net(x) ** 2).mean().backward()
        return len(obs) / (clock() - began)

    return bench.Contestant("pictures/s", turn)


def check(found: dict[str, Gradient], params: PyTree, obs: jax.Array) -> None:
    """Every form gives the gradient of XLA's convolutions."""
    judge = jax.jit(whole(network(xla)))(params, obs)
    for name, gradient in found.items():
        for mine, theirs in zip(
            jax.tree.leaves(jax.jit(gradient)(params, obs)), jax.tree.leaves(judge), strict=True
        ):
            apart = float(jnp.abs(mine - theirs).max() / jnp.abs(theirs).max())
            if apart > 1e-4:
                raise SystemExit(f"{name} is not XLA's gradient: {apart:.1e} apart")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each form")
    parser.add_argument("--batch", type=int, default=512, help="pictures in a minibatch")
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 32], help="sizes of parts")
    parser.add_argument("--members", type=int, default=5, help="members of the ensemble")
    parser.add_argument("--cores", type=int, default=1, help="cores that are used")
    parser.add_argument("--only", default="", help="forms with this in their names")
    parser.add_argument(
        "--processor-time", action="store_true", help="per second of processor time, if others work"
    )
    chosen = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-chosen.cores :])
    clock = time.process_time if chosen.processor_time else time.perf_counter

    k_params, k_obs = jax.random.split(jax.random.key(0))
    members = jax.vmap(NET.init)(jax.random.split(k_params, chosen.members))
    params = jax.tree.map(lambda leaf: leaf[0], members)
    obs = jax.random.bits(k_obs, (chosen.batch, *SHAPE), jnp.uint8)
    found = {k: v for k, v in gradients(tuple(chosen.rows)).items() if chosen.only in k}
    check(found, params, obs[: math.lcm(*chosen.rows)])
    contestants = {name: timed(form, params, obs, clock) for name, form in found.items()}
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        print(f"PyTorch is not measured: {error}")
    else:
        torch.set_num_threads(chosen.cores)
        for name, last in (("channels last", True), ("channels first", False)):
            contestants[f"PyTorch, {name}"] = torch_timed(torch, np.asarray(obs), last, clock)

    each = jnp.stack([obs] * chosen.members)
    for rows in chosen.rows:
        ours = in_parts(NET.apply, rows)
        for name, form in (
            ("side by side", jax.vmap(ours)),
            ("in turn", jax.vmap(jax.custom_batching.sequential_vmap(ours))),
        ):
            name = f"{chosen.members} members {name}, parts of {rows}"
            contestants[name] = timed(form, members, each, clock)
    figures, units = bench.take_turns(contestants, chosen.repeats)
    kind = "processor second" if chosen.processor_time else "second"
    title = f"Nature-CNN, pictures forward and backward per {kind}, batch {chosen.batch}"
    bench.show(bench.Result(title, figures, units, {}, ()))


if __name__ == "__main__":
    main()
