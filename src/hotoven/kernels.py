"""IMPALA's convolutions as kernels for CUDA GPUs, written in Pallas on Triton.

With 16 and 32 filters it is moving numbers that takes the time, not multiplying them. A kernel
reads its input once and does all that it can before it writes: ReLU, products, bias, what is added,
the largest of each 3x3 (docs/decisions/0014-kernels.md). Products are of bfloat16 numbers where
weights are, sums always of float32 numbers.

Axes: N pictures, H lines, W columns, C channels, F filters. A convolution is 3x3 with zeros
outside; its weights are [9, C, F], tap after tap, line by line. A place is a cell of a picture, and
a program of a kernel computes a block of places that follow each other.

What they do not do: on a card ReLU makes zero of NaN (training looks at the params, too). And JAX
counts in 32 bits what takes up to 4 GiB, so that offsets in bytes wrap from 131,072 pictures of
64x64 on that are computed at once; as many of one network are refused, of several side by side not.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

Layer = dict[str, jax.Array]  # weights "w" and biases "b" of a convolution


class Launch(NamedTuple):
    """How much one program of a kernel does, and with how many threads."""

    block: int  # places at a time, at most
    num_warps: int  # of 32 threads each


# The first three were tuned on an H200: docs/decisions/0014-kernels.md.
WEIGHTS: Final = Launch(32, 1)  # gradients by weights
POOL: Final = Launch(64, 4)
CONVOLVE: Final = Launch(128, 4)
UNPOOL: Final = Launch(128, 4)
BYTES: Final = Launch(64, 4)  # gradients by weights where pictures come in
NUM_STEPS: Final = 32  # blocks over which a program adds up a gradient, at most

NUM_TAPS: Final = 9
NUM_BYTES: Final = 32  # of a window of pixels: 27, and zeros up to a power of two
LEAST: Final = 16  # rows or columns of a matrix that Triton multiplies


class Grid(NamedTuple):
    """The places of some pictures."""

    num: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """Places of all pictures."""
        return self.num * self.height * self.width

    def places(self, start: jax.Array, block: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """int32[block] each: picture, line and column of the places from `start` on."""
        place = start + jax.lax.broadcasted_iota(jnp.int32, (block,), 0)
        each = self.height * self.width
        picture, rest = jax.lax.div(place, each), jax.lax.rem(place, each)
        return picture, jax.lax.div(rest, self.width), jax.lax.rem(rest, self.width)

    def number(self, picture: jax.Array, line: jax.Array, col: jax.Array) -> jax.Array:
        """The numbers of places."""
        return (picture * self.height + line) * self.width + col

    def holds(self, line: jax.Array, col: jax.Array) -> jax.Array:
        """Whether lines and columns are inside of a picture."""
        return (line >= 0) & (line < self.height) & (col >= 0) & (col < self.width)

    def load(self, ref: Any, picture: jax.Array, line: jax.Array, col: jax.Array) -> jax.Array:
        """[block, C]: what `ref` [size, C] holds at these places, zeros outside."""
        channel = jax.lax.broadcasted_iota(jnp.int32, (1, ref.shape[1]), 1)
        rows = self.number(picture, line, col)
        index = jnp.broadcast_arrays(rows[:, None], channel)
        mask = jnp.broadcast_to(self.holds(line, col)[:, None], index[0].shape)
        return triton.load(ref.at[tuple(index)], mask=mask, other=0)


def runs_on(device: jax.Device) -> bool:
    """Whether a device is a GPU by NVIDIA that multiplies bfloat16 numbers: Ampere or later."""
    if not device.device_kind.startswith("NVIDIA"):
        return False
    try:
        return float(device.compute_capability) >= 8.0
    except (AttributeError, ValueError):
        return False


def supports(obs_shape: tuple[int, ...]) -> bool:
    """Whether `impala` can see such pictures, with three sequences of 16, 32, 64, ... filters."""
    height, width, channels = obs_shape
    smallest = (height // 8) * (width // 8)
    return channels == 3 and height % 8 == width % 8 == 0 and smallest % LEAST == 0


def impala(sequences: Sequence[dict[str, Any]], pictures: jax.Array) -> jax.Array:
    """uint8 [N, H, W, 3] -> [N, H / 2^S, W / 2^S, F]: all S sequences, with no ReLU after the last.

    The same numbers as those of `nets.impala_cnn` but for rounding; differentiable by the params.

    Raises:
      ValueError: there are too many pictures.
    """
    each = pictures.shape[1] // 2 * (pictures.shape[2] // 2) * LEAST  # bytes of which are largest
    most = 2**31 // each
    if len(pictures) >= most:
        raise ValueError(f"pictures must be fewer than {most} at once, got {len(pictures)}")
    x = pictures
    for index, sequence in enumerate(sequences):
        first = sequence["first"]
        if index == 0:  # bytes go in as they are
            scaled = first["w"].astype(jnp.float32) / 255
            first = first | {"w": scaled.astype(first["w"].dtype)}
        x = pooled(x, first)
        for inner, outer in zip(sequence["blocks"][::2], sequence["blocks"][1::2], strict=True):
            x = residual(x, inner, outer)
    return x


@jax.custom_vjp
def pooled(x: jax.Array, layer: Layer) -> jax.Array:
    """A convolution, then the largest of each 3x3 with stride 2: -> [N, H / 2, W / 2, F].

    Of pictures, uint8 [N, H, W, 3], or of numbers, [N, H, W, C]. Where some of nine are the
    largest, the gradient goes to the first.
    """
    return _pooled_forward(x, layer)[0]


def _pooled_forward(x: jax.Array, layer: Layer) -> tuple[jax.Array, Any]:
    pool = _pool_bytes if x.dtype == jnp.uint8 else _pool
    out, which = pool(x, layer["w"], layer["b"])
    return out, (x, layer, which)


def _pooled_backward(kept: Any, change: jax.Array) -> tuple[jax.Array | None, Layer]:
    x, layer, which = kept
    if x.dtype == jnp.uint8:
        return None, _as(layer, *_bytes_gradient(x, change, which))
    whole = _unpool(change, which)
    return _convolve(whole, _turned(layer["w"])), _as(layer, *_weights_gradient(x, whole, False))


pooled.defvjp(_pooled_forward, _pooled_backward)


@jax.custom_vjp
def residual(x: jax.Array, inner: Layer, outer: Layer) -> jax.Array:
    """Two convolutions, ReLU before each, added to `x`: [N, H, W, C] -> the same."""
    return _residual_forward(x, inner, outer)[0]


def _residual_forward(x: jax.Array, inner: Layer, outer: Layer) -> tuple[jax.Array, Any]:
    middle = _convolve(x, inner["w"], inner["b"], active=True)
    out = _convolve(middle, outer["w"], outer["b"], added=x, active=True)
    return out, (x, middle, inner, outer)


def _residual_backward(kept: Any, change: jax.Array) -> tuple[jax.Array, Layer, Layer]:
    x, middle, inner, outer = kept
    between = _convolve(change, _turned(outer["w"]), gate=middle)
    before = _convolve(between, _turned(inner["w"]), gate=x, added=change)
    of_inner = _as(inner, *_weights_gradient(x, between, True))
    return before, of_inner, _as(outer, *_weights_gradient(middle, change, True))


residual.defvjp(_residual_forward, _residual_backward)


def _turned(w: jax.Array) -> jax.Array:
    """[9, F, C]: the weights by which a change of the output changes the input."""
    return w[::-1].swapaxes(1, 2)


def _as(layer: Layer, w: jax.Array, b: jax.Array) -> Layer:
    return {"w": w.astype(layer["w"].dtype), "b": b.astype(layer["b"].dtype)}


# The kernels


def _call(
    kernel: Callable[..., None],
    grid: tuple[int, ...],
    num_warps: int,
    outputs: Sequence[tuple[tuple[int, ...], Any]],
    *inputs: jax.Array,
) -> list[jax.Array]:
    """What the kernel writes; it sees all inputs, then all outputs, whole."""
    return pl.pallas_call(
        kernel,
        grid=grid,
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in outputs],
        compiler_params=triton.CompilerParams(num_warps=num_warps, num_stages=2),
        interpret=jax.default_backend() == "cpu",  # to test it; far too slow to learn
    )(*inputs)


def _shifts(line: jax.Array, col: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """The lines and columns that the nine taps see."""
    return [(line + tap // 3 - 1, col + tap % 3 - 1) for tap in range(NUM_TAPS)]


def _active(x: jax.Array, active: bool) -> jax.Array:
    return jnp.maximum(x, jnp.zeros_like(x)) if active else x


def _convolve(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array | None = None,
    gate: jax.Array | None = None,
    added: jax.Array | None = None,
    active: bool = False,
) -> jax.Array:
    """[N, H, W, C] -> [N, H, W, F], with ReLU before it if `active`.

    Where `gate` [N, H, W, F] is not positive the sum is zero; then `added` [N, H, W, F] comes to
    it.
    """
    cells = Grid(*x.shape[:3])
    block = math.gcd(cells.size, CONVOLVE.block)
    filters = w.shape[-1]
    flat = lambda array: array.reshape(cells.size, -1)  # noqa: E731
    given = {
        "b": None if b is None else b.astype(jnp.float32),
        "gate": None if gate is None else flat(gate),
        "added": None if added is None else flat(added),
    }
    more = {name: array for name, array in given.items() if array is not None}

    def convolve(x_ref: Any, w_ref: Any, *refs: Any) -> None:
        out_ref, others = refs[-1], dict(zip(more, refs[:-1], strict=True))
        start = pl.program_id(0) * block
        rows = pl.ds(start, block)
        picture, *here = cells.places(start, block)
        total = jnp.zeros((block, filters), jnp.float32)
        for tap, (line, col) in enumerate(_shifts(*here)):
            seen = cells.load(x_ref, picture, line, col)
            total += triton.dot(_active(seen, active), w_ref[tap])
        if "b" in others:
            total += others["b"][...][None, :]
        if "gate" in others:
            total = jnp.where(others["gate"][rows, :] > 0, total, 0.0)
        if "added" in others:
            total += others["added"][rows, :].astype(jnp.float32)
        out_ref[rows, :] = total.astype(out_ref.dtype)

    shape = (cells.size, filters)
    grid = (cells.size // block,)
    (out,) = _call(
        convolve, grid, CONVOLVE.num_warps, [(shape, x.dtype)], flat(x), w, *more.values()
    )
    return out.reshape(*x.shape[:3], filters)


def _pool(x: jax.Array, w: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A convolution and the largest of each 3x3, and int8 which of the nine that is.

    [N, H, W, C] -> [N, H / 2, W / 2, F], twice.
    """
    cells = Grid(*x.shape[:3])

    def sums(refs: Sequence[Any], picture: jax.Array, line: jax.Array, col: jax.Array) -> jax.Array:
        x_ref, w_ref = refs
        total = jnp.zeros((len(picture), w.shape[-1]), jnp.float32)
        for tap, (line_seen, col_seen) in enumerate(_shifts(line, col)):
            total += triton.dot(cells.load(x_ref, picture, line_seen, col_seen), w_ref[tap])
        return total

    return _largest(sums, cells, b, w.dtype, x.reshape(cells.size, -1), w)


def _pool_bytes(x: jax.Array, w: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same of pictures, uint8 [N, H, W, 3]."""
    cells = Grid(*x.shape[:3])
    weights = w.reshape(-1, w.shape[-1])
    weights = jnp.pad(weights, ((0, NUM_BYTES - len(weights)), (0, 0)))

    def sums(refs: Sequence[Any], picture: jax.Array, line: jax.Array, col: jax.Array) -> jax.Array:
        x_ref, w_ref = refs
        return triton.dot(_window(cells, x_ref, picture, line, col, w.dtype), w_ref[...])

    return _largest(sums, cells, b, w.dtype, x.reshape(-1), weights)


def _largest(
    sums: Callable[..., jax.Array], cells: Grid, b: jax.Array, dtype: Any, *inputs: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The largest of what `sums` finds at each 3x3 places, and int8 which of the nine it is."""
    pools = Grid(cells.num, cells.height // 2, cells.width // 2)
    block = math.gcd(pools.size, POOL.block)
    filters = b.shape[0]

    def largest(*refs: Any) -> None:
        *inputs_refs, b_ref, out_ref, which_ref = refs
        start = pl.program_id(0) * block
        rows = pl.ds(start, block)
        picture, row, col = pools.places(start, block)

        def compare(which: jax.Array, best: tuple[jax.Array, jax.Array]) -> tuple:
            place = 2 * row + jax.lax.div(which, 3), 2 * col + jax.lax.rem(which, 3)
            found = sums(inputs_refs, picture, *place)
            larger = (found > best[0]) | jnp.isnan(found)
            better = cells.holds(*place)[:, None] & larger
            return jnp.where(better, found, best[0]), jnp.where(better, which, best[1])

        least = jnp.full((block, filters), -jnp.inf, jnp.float32)
        nothing = (least, jnp.zeros((block, filters), jnp.int32))
        best, which = jax.lax.fori_loop(0, NUM_TAPS, compare, nothing)
        out_ref[rows, :] = (best + b_ref[...][None, :]).astype(out_ref.dtype)
        which_ref[rows, :] = which.astype(jnp.int8)

    shape = (pools.size, filters)
    outputs = [(shape, dtype), (shape, jnp.int8)]
    grid = (pools.size // block,)
    found = _call(largest, grid, POOL.num_warps, outputs, *inputs, b.astype(jnp.float32))
    out, which = (one.reshape(*pools, filters) for one in found)
    return out, which


def _window(
    cells: Grid, ref: Any, picture: jax.Array, line: jax.Array, col: jax.Array, dtype: Any
) -> jax.Array:
    """[block, 32]: the bytes, of `ref` [N * H * W * 3], that nine taps see at these places."""
    byte = jax.lax.broadcasted_iota(jnp.int32, (1, NUM_BYTES), 1)
    tap, colour = jax.lax.div(byte, 3), jax.lax.rem(byte, 3)
    line = line[:, None] + (jax.lax.div(tap, 3) - 1)
    col = col[:, None] + (jax.lax.rem(tap, 3) - 1)
    inside = cells.holds(line, col) & (tap < NUM_TAPS)  # the weights of the others are zero
    index = cells.number(picture[:, None], line, col) * 3 + colour
    return triton.load(ref.at[index], mask=inside, other=0).astype(jnp.float32).astype(dtype)


def _unpool(change: jax.Array, which: jax.Array) -> jax.Array:
    """[N, H / 2, W / 2, F] -> [N, H, W, F]: to each place the changes of what it is largest of."""
    num, rows, cols, filters = change.shape
    cells, pools = Grid(num, 2 * rows, 2 * cols), Grid(num, rows, cols)
    block = math.gcd(cells.size, UNPOOL.block)

    def unpool(change_ref: Any, which_ref: Any, out_ref: Any) -> None:
        start = pl.program_id(0) * block
        picture, line, col = cells.places(start, block)
        total = jnp.zeros((block, filters), jnp.float32)
        for up in range(2):
            for left in range(2):
                row, column = jax.lax.div(line, 2) - up, jax.lax.div(col, 2) - left
                down, right = line - 2 * row, col - 2 * column  # of the 3x3 there
                here = jnp.where((down < 3) & (right < 3), 3 * down + right, -1)
                changes = pools.load(change_ref, picture, row, column).astype(jnp.float32)
                mine = pools.load(which_ref, picture, row, column).astype(jnp.int32)
                total += jnp.where(mine == here[:, None], changes, 0.0)
        out_ref[pl.ds(start, block), :] = total.astype(out_ref.dtype)

    flat = [array.reshape(pools.size, filters) for array in (change, which)]
    outputs = [((cells.size, filters), change.dtype)]
    (out,) = _call(unpool, (cells.size // block,), UNPOOL.num_warps, outputs, *flat)
    return out.reshape(*cells, filters)


def _weights_gradient(x: jax.Array, change: jax.Array, active: bool) -> tuple[jax.Array, jax.Array]:
    """float32 [9, C, F] and [F]: gradients of a convolution of `x`, ReLU before it if `active`."""
    cells = Grid(*x.shape[:3])
    depth, filters = x.shape[-1], change.shape[-1]

    def add(
        refs: Sequence[Any], start: jax.Array, down: jax.Array, block: int, totals: tuple
    ) -> tuple:
        x_ref, change_ref = refs
        picture, line, col = cells.places(start, block)
        changes = change_ref[pl.ds(start, block), :]
        found = []
        for right, total in enumerate(totals[:-1]):
            seen = cells.load(x_ref, picture, line + down - 1, col + right - 1)
            found.append(total + triton.dot(_active(seen, active), changes, trans_a=True))
        return (*found, totals[-1] + changes.astype(jnp.float32).sum(axis=0))

    flat = [array.reshape(cells.size, -1) for array in (x, change)]
    w, b = _summed(add, cells, WEIGHTS, 3, 3, (depth, filters), *flat)
    return w.reshape(NUM_TAPS, depth, filters), b


def _bytes_gradient(
    x: jax.Array, change: jax.Array, which: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """float32 [9, 3, F] and [F]: gradients of `_pool_bytes`."""
    cells, pools = Grid(*x.shape[:3]), Grid(*change.shape[:3])
    filters = change.shape[-1]

    def add(
        refs: Sequence[Any], start: jax.Array, part: jax.Array, block: int, totals: tuple
    ) -> tuple:
        x_ref, change_ref, which_ref = refs
        rows = pl.ds(start, block)
        picture, row, col = pools.places(start, block)
        changes, places = change_ref[rows, :], which_ref[rows, :].astype(jnp.int32)

        def add_place(place: jax.Array, total: jax.Array) -> jax.Array:
            line, column = 2 * row + jax.lax.div(place, 3), 2 * col + jax.lax.rem(place, 3)
            seen = _window(cells, x_ref, picture, line, column, changes.dtype)
            mine = jnp.where(places == place, changes, jnp.zeros_like(changes))
            return total + triton.dot(seen, mine, trans_a=True)

        total = jax.lax.fori_loop(0, NUM_TAPS, add_place, totals[0])
        return total, totals[-1] + changes.astype(jnp.float32).sum(axis=0)

    flat = [array.reshape(pools.size, filters) for array in (change, which)]
    w, b = _summed(add, pools, BYTES, 1, 1, (NUM_BYTES, filters), x.reshape(-1), *flat)
    taps = w[0, 0, : 3 * NUM_TAPS]
    return taps.reshape(NUM_TAPS, 3, filters), b


def _summed(
    add: Callable[..., tuple],
    cells: Grid,
    launch: Launch,
    num_parts: int,
    num_totals: int,
    shape: tuple[int, int],
    *inputs: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """float32 [parts, totals, *shape] and [shape[-1]]: what `add` sums over all places.

    `add(refs, start, part, block, totals)` adds the block of places from `start` on to `num_totals`
    sums of `shape` and one more of [shape[-1]], the biases', which is the same for every part.
    """
    block = math.gcd(cells.size, launch.block)
    steps = math.gcd(cells.size // block, NUM_STEPS)
    programs = cells.size // (block * steps)

    def summed(*refs: Any) -> None:
        *inputs_refs, w_ref, b_ref = refs
        program, part = pl.program_id(0), pl.program_id(1)

        def step(index: jax.Array, totals: tuple) -> tuple:
            return add(inputs_refs, (program * steps + index) * block, part, block, totals)

        nothing = (jnp.zeros(shape, jnp.float32),) * num_totals
        totals = jax.lax.fori_loop(0, steps, step, (*nothing, jnp.zeros(shape[1:], jnp.float32)))
        for index in range(num_totals):
            w_ref[program, part, index] = totals[index]
        b_ref[program, part] = totals[-1]

    outputs = [
        ((programs, num_parts, num_totals, *shape), jnp.float32),
        ((programs, num_parts, shape[-1]), jnp.float32),
    ]
    w, b = _call(summed, (programs, num_parts), launch.num_warps, outputs, *inputs)
    return w.sum(axis=0), b[:, 0].sum(axis=0)
