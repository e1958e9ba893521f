"""Argument checks: the one place where a user's values become what the kernels accept.

Every message names the function, the argument, the value and the rule.
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Sequence
from math import prod
from numbers import Number, Real
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv._messages import shown, typed
from fastconv.functional._memory import KERNEL_DTYPES, LEAST, new_array

Array = npt.NDArray[Any]
Pads = tuple[tuple[int, int], ...]

F32, F64 = KERNEL_DTYPES
LIMIT = 2**31 - 1  # of strides, paddings, dilations and kernel sizes: their products fit in 64 bits
AXES = {1: ("L",), 2: ("H", "W")}


def float_array(function: str, name: str, value: Any) -> Array:
    """Return `value` as a native, aligned float32 or float64 array (a copy only when it is not)."""
    if not isinstance(value, np.ndarray):
        raise not_an_array(function, name, value)
    # a subclass may index, or tell its shape, as it likes
    array: Array = value if type(value) is np.ndarray else np.asarray(value)
    dtype = array.dtype
    if (dtype is F32 or dtype is F64) and array.flags.aligned:
        return array
    if dtype.newbyteorder("=") not in (F32, F64):
        raise TypeError(
            f"{function}: {name} must be float32 or float64, got {dtype}; "
            f"use {name}.astype(numpy.float32)"
        )
    return np.require(array, dtype=dtype.newbyteorder("="), requirements="A")


def not_an_array(function: str, name: str, value: Any) -> TypeError:
    """The error for what is no array: with the way to make one, where that is likely meant."""
    if name == "bias" and isinstance(value, (bool, np.bool_)):  # as for a layer
        return TypeError(f"{function}: bias must be a numpy.ndarray or None, got bool {value}")
    numbers = isinstance(value, (list, tuple, Number)) or hasattr(value, "__array__")
    numbers = numbers and not isinstance(value, (bool, np.bool_))
    advice = f"; use numpy.asarray({name})" if numbers else ""
    given = type(value).__name__
    return TypeError(f"{function}: {name} must be a numpy.ndarray, got {given}{advice}")


def float_dtype(function: str, value: Any) -> np.dtype[Any]:
    """Return what stands for float32 or float64 as a dtype; TypeError for anything else."""
    given = shown(value)
    with contextlib.suppress(TypeError, ValueError):
        dtype: np.dtype[Any] = np.dtype(value)
        if dtype in (F32, F64):
            return dtype
        given = shown(str(dtype)).strip("'")
    raise TypeError(f"{function}: dtype must be float32 or float64, got {given}")


def same_dtype(function: str, name: str, value: Array, other_name: str, other: Array) -> None:
    if value.dtype != other.dtype:
        # the double one is the likely mistake: NumPy makes float64 unless told otherwise
        wide, narrow = (name, other_name) if value.dtype == F64 else (other_name, name)
        raise TypeError(
            f"{function}: {name} is {value.dtype} but {other_name} is {other.dtype}; "
            f"use {wide}.astype({narrow}.dtype)"
        )


def batched(function: str, name: str, value: Array, axes: int) -> tuple[Array, bool]:
    """Return `value` with a batch axis, and whether it had one. axes: how many spatial axes."""
    if value.ndim == axes + 2:
        return value, True
    if value.ndim == axes + 1:
        return value[None], False
    letters = ", ".join(AXES[axes])
    raise ValueError(
        f"{function}: {name} must have shape (N, C, {letters}) or (C, {letters}), got {value.shape}"
    )


def wrong_channels(
    function: str,
    shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    groups: int,
    expected: int,
    layout: str,
) -> ValueError:
    """The error for an input, of `shape` as the user gave it, whose channels do not fit."""
    sizes = ("height", "width") if len(weight_shape) == 4 else ("length",)
    axes = len(sizes)
    front = ("batch",) * (len(shape) - axes - 1)
    if shape[-1] == expected:
        order = (*range(len(front)), len(shape) - 1, *range(len(front), len(shape) - 1))
        names = ", ".join((*front, "channels", *sizes))
        hint = f"input must be ({names}): use input.transpose{order} if its channels are last"
    else:
        hint = f"weight is {layout}"
    return ValueError(
        f"{function}: weight {weight_shape} with groups {groups} takes {expected} input channels, "
        f"input {shape} has {shape[-axes - 1]}; {hint}"
    )


def integer(
    function: str,
    name: str,
    value: Any,
    minimum: int = 0,
    maximum: int = LIMIT,
    kind: str = "an int",
) -> int:
    """Return an int in [minimum, maximum]; bool and float are TypeErrors."""
    if type(value) is not int:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{function}: {name} must be {kind}, got bool {value}")
        try:
            value = operator.index(value)
        except TypeError:
            raise TypeError(f"{function}: {name} must be {kind}, got {typed(value)}") from None
    if not minimum <= value <= maximum:
        bound = f"at least {minimum}" if value < minimum else f"at most {maximum}"
        raise ValueError(f"{function}: {name} must be {bound}, got {shown(value)}")
    return int(value)


def number(
    function: str, name: str, value: Any, least: float | None = None, most: float | None = None
) -> float:
    """Return a real number as a float in [least, most]; a NaN only where there are no bounds."""
    if type(value) is float and least is most is None:
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{function}: {name} must be a number, got {typed(value)}")
    try:
        result = float(value)
    except OverflowError:  # an int that no float can hold
        result = math.copysign(math.inf, operator.gt(value, 0) - 0.5)
    if (least is not None and not result >= least) or (most is not None and not result <= most):
        rule = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(f"{function}: {name} must be {rule}, got {shown(value)}")
    return result


def flag(function: str, name: str, value: Any) -> bool:
    """Return a bool; anything else is a TypeError."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{function}: {name} must be a bool, got {typed(value)}")
    return bool(value)


def per_axis(function: str, name: str, value: Any, axes: int, minimum: int = 1) -> tuple[int, ...]:
    """An int for all axes, or a tuple or list with one int per axis."""
    if type(value) is int and minimum <= value <= LIMIT:
        return (value,) * axes
    if isinstance(value, (tuple, list)):
        if len(value) != axes:
            if len(value) == 1:
                value = tuple(value) * axes
            else:
                raise ValueError(
                    f"{function}: {name} must be an int or {axes} ints, "
                    f"got {len(value)} values {shown(tuple(value))}"
                )
        return tuple(integer(function, name, v, minimum) for v in value)
    kind = "an int" if axes == 1 else f"an int or a tuple of {axes} ints"
    return (integer(function, name, value, minimum, kind=kind),) * axes


def explicit_padding(function: str, value: Any, axes: int) -> Pads:
    """int | per-axis ints | per-axis (before, after) pairs -> per-axis pairs."""
    if type(value) is int and 0 <= value <= LIMIT:
        return ((value, value),) * axes
    if isinstance(value, (tuple, list)) and any(isinstance(v, (tuple, list)) for v in value):
        if len(value) != axes or any(
            not isinstance(v, (tuple, list)) or len(v) != 2 for v in value
        ):
            raise ValueError(
                f"{function}: padding must be an int, {axes} ints or {axes} (before, after) pairs, "
                f"got {shown(value)}"
            )
        before_after = [per_axis(function, "padding", tuple(v), 2, 0) for v in value]
        return tuple((b, a) for b, a in before_after)
    return tuple((p, p) for p in per_axis(function, "padding", value, axes, 0))


_NAMED = ("valid", "same", "same_lower", "full", "causal")


def conv_padding(
    function: str,
    value: Any,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Pads:
    """Resolve `padding` of a convolution into per-axis (before, after).

    "same": output = ceil(size / stride), the odd pixel at the end (ONNX SAME_UPPER, TensorFlow);
    "same_lower": the odd pixel at the start; "full": dilated kernel - 1 on both sides; "causal"
    (1-D): dilated kernel - 1 before.
    """
    axes = len(sizes)
    if not isinstance(value, str):
        return explicit_padding(function, value, axes)
    if value not in _NAMED or (value == "causal" and axes != 1):
        names = ", ".join(repr(n) for n in _NAMED if n != "causal" or axes == 1)
        raise ValueError(
            f"{function}: padding must be an int, a tuple or one of {names}, got {shown(value)}"
        )
    pads = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        reach = (k - 1) * d
        if value == "valid":
            pads.append((0, 0))
        elif value == "full":
            pads.append((reach, reach))
        elif value == "causal":
            pads.append((reach, 0))
        else:
            total = max((-(-size // s) - 1) * s + reach + 1 - size, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if value == "same" else (large, small))
    return tuple(pads)


def output_size(
    function: str,
    axis: str,
    size: int,
    kernel: int,
    stride: int,
    pads: tuple[int, int],
    dilation: int,
) -> int:
    """floor((size + before + after - dilation * (kernel - 1) - 1) / stride) + 1, at least 1."""
    room = size + pads[0] + pads[1] - dilation * (kernel - 1) - 1
    if room < 0:
        raise ValueError(
            f"{function}: the kernel does not fit: axis {axis} has {size} elements "
            f"+ padding {pads}, the dilated kernel has {dilation * (kernel - 1) + 1} "
            f"(kernel {kernel}, dilation {dilation})"
        )
    return room // stride + 1


def addressable(
    function: str,
    sizes: Sequence[int],
    pads: Pads,
    channels: int,
    weight_shape: tuple[int, ...],
    itemsize: int,
) -> None:
    """The padded image and the weight stay below 64 TiB: every size a driver makes of them fits."""
    count = channels
    for size, (before, after) in zip(sizes, pads, strict=True):
        count *= size + before + after
    weight = prod(weight_shape)
    if max(count, weight) * itemsize >= 2**46:
        raise MemoryError(
            f"{function}: the padded image of {channels} channels would need "
            f"{count * itemsize} bytes, the weight {weight * itemsize} "
            f"(shape {tuple(sizes)}, padding {pads}, weight {weight_shape})"
        )


def is_channels_last(array: Array) -> bool:
    """Whether the channels of an (N, C, ...) array lie next to each other."""
    return array.strides[1] == array.itemsize and array.shape[1:].count(1) < array.ndim - 1


def empty(
    function: str, shape: tuple[int, ...], dtype: np.dtype[Any], channels_last: bool
) -> Array:
    """An uninitialised (N, C, ...) array in that memory format; MemoryError if it cannot be."""
    count = prod(shape) * dtype.itemsize
    if count == 0:  # as NumPy counts: an empty array must be addressable too
        count = prod(size or 1 for size in shape) * dtype.itemsize
    new = np.empty if count < LEAST else new_array
    try:
        if count >= 2**62:
            raise MemoryError
        if not channels_last:
            return new(shape, dtype)
        if len(shape) == 4:
            n, c, h, w = shape
            return new((n, h, w, c), dtype).transpose(0, 3, 1, 2)
        n, c, length = shape
        return new((n, length, c), dtype).transpose(0, 2, 1)
    except MemoryError:
        message = f"{function}: an output of shape {shape} would need {count} bytes"
        raise MemoryError(message) from None


def check_out(function: str, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An `out=` argument: of this shape and dtype, writable, no two elements in one place."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{function}: out must be a numpy.ndarray, got {type(out).__name__}")
    array: Array = out if type(out) is np.ndarray else np.asarray(out)
    if array.shape != shape:
        raise ValueError(f"{function}: out must have shape {shape}, got {array.shape}")
    if array.dtype != dtype or not array.dtype.isnative:
        raise TypeError(f"{function}: out must be {dtype}, got {array.dtype}")
    if not array.flags.writeable:
        raise ValueError(f"{function}: out is read-only")
    if not array.flags.aligned:
        raise ValueError(f"{function}: out is not aligned to its dtype")
    if not array.flags.c_contiguous and _folded(array):
        raise ValueError(f"{function}: out overlaps itself (strides {array.strides})")
    return array


def _folded(array: Array) -> bool:
    """Whether elements may share memory; False for every slice of an array whose elements do not.

    From the shortest stride on, each must pass over all that the axes before it reach.
    """
    reach = array.itemsize
    axes = zip(map(abs, array.strides), array.shape, strict=True)
    for stride, size in sorted(axes):
        if size > 1:
            if stride < reach:
                return True
            reach += stride * (size - 1)
    return False


def no_overlap(function: str, out: Array, **inputs: Array | None) -> None:
    """`out=` must not share memory with an input."""
    for name, value in inputs.items():
        if value is not None and np.may_share_memory(out, value) and _overlap(out, value):
            raise ValueError(f"{function}: out shares memory with {name}")


def _overlap(a: Array, b: Array) -> bool:
    """Exact for slices of one array (other channels, other images); True where that is too hard."""
    try:
        return bool(np.shares_memory(a, b, max_work=1000))  # type: ignore[arg-type]  # any int >= -1
    except np.exceptions.TooHardError:
        return True
