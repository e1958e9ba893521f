"""Padding: every position of the result shows one position of the input, or the fill value.

An axis `a b c d` padded by 3 before and after (`-` is the fill value):

    constant   - - - a b c d - - -
    reflect    d c b a b c d c b a      the edge is not repeated
    symmetric  c b a a b c d d c b      the edge is repeated
    replicate  a a a a b c d d d d
    circular   b c d a b c d a b c

The axes are extended one after the other, so that the corners come out by themselves; the backward
folds the borders back in the opposite order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastconv._messages import shown, typed
from fastconv.functional._arrays import (
    choice,
    empty_ordered,
    memory_order,
    real_array,
    shape,
)
from fastconv.functional._checks import (
    LIMIT,
    Array,
    check_out,
    float_array,
    integer,
    no_overlap,
    number,
)

Pair = tuple[int, int]
Index = tuple[slice, ...]

MODES = ("constant", "reflect", "replicate", "circular", "symmetric")


def pad(
    input: Array,
    pad: Sequence[int],
    mode: str = "constant",
    value: float = 0.0,
    *,
    out: Array | None = None,
) -> Array:
    """Extend the last axes of an array.

    Parameters
    ----------
    input : ndarray
        Any shape, any real dtype.
    pad : sequence of int
        `(left, right, top, bottom, ...)`: one pair for each padded axis, from the last axis
        backward, as in `torch.nn.functional.pad`. Negative entries crop (mode "constant" only).
    mode : {"constant", "reflect", "replicate", "circular", "symmetric"}
        What the border shows. Reflect leaves the edge out, symmetric repeats it, replicate repeats
        the edge alone, circular continues at the opposite side. Unlike in torch, every mode pads
        any number of axes. "reflect" needs each entry < size, "symmetric" and "circular" <= size.
    value : float
        What the border of mode "constant" holds. For integer dtypes it must be an integer.
    out : ndarray, optional
        Array of the result's shape and dtype to write; must not share memory with `input`.

    Returns
    -------
    ndarray
        Axis by axis `before + size + after` long, in the memory format of `input`.

    Raises
    ------
    ValueError
        An odd number of entries, more pairs than axes, an entry too large for the mode, a negative
        entry in another mode than "constant", or a crop larger than the axis.
    TypeError
        An entry that is not an int, or an input that is not a real array.
    MemoryError
        The result is too large to exist.
    """
    x = real_array("pad", "input", input)
    pairs = _pairs("pad", x.shape, pad, mode)
    fill = _fill_value(x.dtype, value) if mode == "constant" else None
    padded = _padded_shape(x.shape, pairs)
    if out is None:
        y = empty_ordered("pad", padded, x.dtype, memory_order(x))
    else:
        y = check_out("pad", out, padded, x.dtype)
        no_overlap("pad", y, input=input)
    if y.size == 0:
        return y
    source, inner = _interior(x.shape, pairs)
    y[inner] = x[source]
    for border, source, _ in _borders(x.shape, pairs, mode):
        y[border] = fill if mode == "constant" else y[source]
    return y


def pad_backward(
    grad_output: Array, input_shape: Sequence[int], pad: Sequence[int], mode: str = "constant"
) -> Array:
    """Gradient of `pad` with respect to its input.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the padded array, float32 or float64.
    input_shape : tuple of int
        Shape of the input of `pad`.
    pad, mode
        As given to `pad`.

    Returns
    -------
    ndarray
        `input_shape`, in the memory format of `grad_output`: each entry is the sum of the
        gradients of the positions that show it; 0 where it was cropped away.

    Raises
    ------
    ValueError, TypeError
        As `pad`; also when `grad_output` does not have the shape of the padded array.
    """
    name = "pad_backward"
    g = float_array(name, "grad_output", grad_output)
    size = shape(name, "input_shape", input_shape)
    pairs = _pairs(name, size, pad, mode)
    padded = _padded_shape(size, pairs)
    if g.shape != padded:
        raise ValueError(
            f"{name}: grad_output must have shape {shown(padded)} (input {shown(size)} padded by "
            f"{shown(tuple(pad))}), "
            f"got {g.shape}"
        )
    order = memory_order(g)
    source, inner = _interior(size, pairs)
    if mode != "constant" and g.size:
        g = g.copy(order="K")
        with np.errstate(all="ignore"):
            for border, origin, axis in reversed(list(_borders(size, pairs, mode))):
                _add_border(g, border, origin, axis)
    grad_input = empty_ordered(name, size, g.dtype, order)
    if any(min(pair) < 0 for pair in pairs):
        grad_input.fill(0)
    grad_input[source] = g[inner]
    return grad_input


def _pairs(function: str, size: tuple[int, ...], pad: Any, mode: str) -> list[Pair]:
    """The checked `(before, after)` of every axis, the first axis first."""
    choice(function, "mode", mode, MODES)
    kind = "a tuple of ints (left, right, top, bottom, ...)"
    if not isinstance(pad, (tuple, list)):
        raise TypeError(f"{function}: pad must be {kind}, got {typed(pad)}")
    if any(isinstance(entry, (tuple, list)) for entry in pad):  # as numpy.pad has it
        raise TypeError(f"{function}: pad must be {kind}, the last axis first, got {shown(pad)}")
    if len(pad) % 2 or len(pad) > 2 * len(size):
        raise ValueError(
            f"{function}: pad must have two entries for each padded axis and at most "
            f"{2 * len(size)} for an input of shape {size}, got {len(pad)} {shown(tuple(pad))}"
        )
    least = -LIMIT if mode == "constant" else 0
    entries = [integer(function, "pad", entry, least) for entry in pad]
    pairs = [(0, 0)] * len(size)
    for k in range(len(entries) // 2):
        axis = len(size) - 1 - k
        pairs[axis] = entries[2 * k], entries[2 * k + 1]
        check_pair(function, "pad", axis, size[axis], pairs[axis], mode)
    return pairs


def check_pair(function: str, name: str, axis: int, size: int, pair: Pair, mode: str) -> None:
    """Reflect shows size - 1 more entries at each end, symmetric and circular `size`."""
    if mode == "constant":
        if size + min(pair[0], 0) + min(pair[1], 0) < 0:
            raise ValueError(
                f"{function}: {name} {pair} crops more than the {size} entries of axis {axis}"
            )
        return
    most = {"reflect": size - 1, "replicate": LIMIT if size else 0}.get(mode, size)
    if max(pair) > max(most, 0):
        raise ValueError(
            f"{function}: {name} {pair} is too large for mode {mode!r} on axis {axis} of size "
            f"{size}, at most {max(most, 0)}"
        )


def _fill_value(dtype: np.dtype[Any], value: Any) -> Any:
    """`value` as a number of `dtype`; integer dtypes refuse what they cannot hold."""
    if not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"pad: value must be a real number, got {typed(value)}")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # what the dtype cannot hold is infinite
            return dtype.type(number("pad", "value", +value))
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not least <= value <= most or value != int(value):
        raise ValueError(
            f"pad: value must be an integer from {least} to {most} for an input of dtype {dtype}, "
            f"got {shown(value)}"
        )
    return dtype.type(int(value))


def _padded_shape(size: tuple[int, ...], pairs: list[Pair]) -> tuple[int, ...]:
    return tuple(n + before + after for n, (before, after) in zip(size, pairs, strict=True))


def _interior(size: tuple[int, ...], pairs: list[Pair]) -> tuple[Index, Index]:
    """Where the input's entries lie: in the input (all but the cropped ones), in the result."""
    source, inner = [], []
    for n, (before, after) in zip(size, pairs, strict=True):
        kept = n + min(before, 0) + min(after, 0)
        source.append(slice(max(-before, 0), max(-before, 0) + kept))
        inner.append(slice(max(before, 0), max(before, 0) + kept))
    return tuple(source), tuple(inner)


def _borders(
    size: tuple[int, ...], pairs: list[Pair], mode: str
) -> Iterator[tuple[Index, Index, int]]:
    """`(border, shown, axis)`: the parts of the result to fill, and the part each one shows.

    Axis by axis; an axis is extended over the whole width of the axes before it and over the
    interior of the axes after it.
    """
    _, inner = _interior(size, pairs)
    everything = slice(None)
    for axis, (before, after) in enumerate(pairs):
        first, end = inner[axis].start, inner[axis].stop
        head, tail = (everything,) * axis, inner[axis + 1 :]
        if before > 0:
            shown = _shown_before(mode, first, end, before)
            yield (*head, slice(0, before), *tail), (*head, shown, *tail), axis
        if after > 0:
            shown = _shown_after(mode, first, end, after)
            yield (*head, slice(end, end + after), *tail), (*head, shown, *tail), axis


def _shown_before(mode: str, first: int, end: int, count: int) -> slice:
    """What the `count` entries before the interior `first..end` show, in their order."""
    if mode == "reflect":
        return _downward(first + count, count)
    if mode == "symmetric":
        return _downward(first + count - 1, count)
    if mode == "circular":
        return slice(end - count, end)
    return slice(first, first + 1)


def _shown_after(mode: str, first: int, end: int, count: int) -> slice:
    """What the `count` entries after the interior `first..end` show, in their order."""
    if mode == "reflect":
        return _downward(end - 2, count)
    if mode == "symmetric":
        return _downward(end - 1, count)
    if mode == "circular":
        return slice(first, first + count)
    return slice(end - 1, end)


def _downward(start: int, count: int) -> slice:
    """The positions start, start - 1, ..., `count` of them."""
    return slice(start, start - count if start >= count else None, -1)


def _add_border(g: Array, border: Index, shown: Index, axis: int) -> None:
    """Add the gradient of a border to what it shows. Replicate shows one entry many times: these
    are added one by one, so that the bits do not depend on the memory format."""
    if g[shown].shape == g[border].shape:
        g[shown] += g[border]
        return
    for position in range(border[axis].start, border[axis].stop):
        g[shown] += g[(*border[:axis], slice(position, position + 1), *border[axis + 1 :])]
