"""Padding: each position of the padded axis shows one position of the input, or the fill value.

For an axis `a b c d` padded by 3 before and after (`-` is the fill value):

    constant   - - - a b c d - - -
    reflect    d c b a b c d c b a      the edge is not repeated
    symmetric  c b a a b c d d c b      the edge is repeated
    replicate  a a a a b c d d d d
    circular   b c d a b c d a b c
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv.reference._shapes import Array, Pair, deliver, expect_shape, expect_word, integer

MODES = ("constant", "reflect", "replicate", "circular", "symmetric")


def source_position(position: int, size: int, mode: str) -> int | None:
    """The input position shown at `position` (which is < 0 or >= size in the border), or None."""
    if 0 <= position < size:
        return position
    if mode == "constant":
        return None
    if mode == "replicate":
        return 0 if position < 0 else size - 1
    if mode == "circular":
        return position % size
    if mode == "reflect":
        return -position if position < 0 else 2 * (size - 1) - position
    return -position - 1 if position < 0 else 2 * size - 1 - position  # symmetric


def _check(
    function: str, shape: Sequence[int], pad: Sequence[int], mode: str
) -> list[tuple[int, Pair]]:
    """`(axis, (before, after))` for each padded axis, the last axis first."""
    expect_word(function, "mode", mode, MODES)
    if len(pad) % 2 or len(pad) > 2 * len(shape):
        raise ValueError(
            f"{function}: pad needs a pair for each of the last axes of {tuple(shape)}, got {pad!r}"
        )
    least = -(2**31) if mode == "constant" else 0
    numbers = [integer(function, "pad", entry, least) for entry in pad]
    axes = []
    for k in range(len(numbers) // 2):
        axis = len(shape) - 1 - k
        pair = numbers[2 * k], numbers[2 * k + 1]
        size = shape[axis]
        most = {"reflect": size - 1, "symmetric": size, "circular": size}.get(mode, max(pair))
        if max(pair) > 0 and (max(pair) > most or (mode == "replicate" and size < 1)):
            raise ValueError(
                f"{function}: pad {pair} is too large for {mode!r} on axis {axis} of size {size}"
            )
        if size + min(pair[0], 0) + min(pair[1], 0) < 0:
            raise ValueError(f"{function}: pad {pair} crops more than axis {axis} of size {size}")
        axes.append((axis, pair))
    return axes


def pad(
    input: Array,
    pad: Sequence[int],
    mode: str = "constant",
    value: float = 0.0,
    *,
    out: Array | None = None,
) -> Array:
    """Pad the last axes of `input`; `pad` is (left, right, top, bottom, ...), the last axis first.

    Reflect needs pad < size, symmetric and circular pad <= size; `value` is used by constant only,
    whose negative entries crop.
    """
    result = input.astype(input.dtype.newbyteorder("="))
    for axis, (before, after) in _check("pad", input.shape, pad, mode):
        inner = np.moveaxis(result, axis, 0)
        outer = np.empty((before + len(inner) + after, *inner.shape[1:]), result.dtype)
        for position in range(len(outer)):
            source = source_position(position - before, len(inner), mode)
            outer[position] = value if source is None else inner[source]
        result = np.moveaxis(outer, 0, axis)
    return deliver("pad", np.ascontiguousarray(result), out)


def pad_backward(
    grad_output: Array, input_shape: Sequence[int], pad: Sequence[int], mode: str = "constant"
) -> Array:
    """Gradient of `pad`: each input element gathers the gradients of the positions that show it."""
    axes = _check("pad_backward", input_shape, pad, mode)
    padded = list(input_shape)
    for axis, pair in axes:
        padded[axis] += sum(pair)
    expect_shape("pad_backward", "grad_output", grad_output, padded)
    result = grad_output.astype(grad_output.dtype.newbyteorder("="))
    for axis, (before, _) in axes:
        outer = np.moveaxis(result, axis, 0)
        inner = np.zeros((input_shape[axis], *outer.shape[1:]), result.dtype)
        for position in range(len(outer)):
            source = source_position(position - before, len(inner), mode)
            if source is not None:
                inner[source] += outer[position]
        result = np.moveaxis(inner, 0, axis)
    return np.ascontiguousarray(result)
