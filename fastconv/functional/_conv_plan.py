"""What the arguments of a convolution come to: checked, and as numbers for the extension."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np

from . import _checks as check
from ._arrays import choice
from ._checks import Array, Pads

Algorithm = Literal["auto", "direct", "winograd"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular", "symmetric"]
Geometry = tuple[int, int, int, int, int, int, int, int]

ALGORITHMS = {"auto": 0, "direct": 1, "winograd": 2}
_PADDING_MODES = ("zeros", "reflect", "replicate", "circular", "symmetric")
NO_PADS: dict[int, Pads] = {1: ((0, 0),), 2: ((0, 0), (0, 0))}


class Plan(NamedTuple):
    """What the shapes and the other arguments of a call come to."""

    output_shape: tuple[int, ...]
    geometry: Geometry
    extra_pads: Pads  # of a padding_mode other than "zeros": applied to input beforehand


# A checked call: input and weight with a batch axis, whether input had one, and the plan.
Call = tuple[Array, Array, bool, Plan]


def core_geometry(
    stride: tuple[int, ...], dilation: tuple[int, ...], pads: Pads, groups: int, algorithm: str
) -> Geometry:
    """What the extension takes: a 1-D problem is a 2-D one with height 1."""
    if len(stride) == 2:
        (sh, sw), (dh, dw), (top, left) = stride, dilation, (pads[0][0], pads[1][0])
    else:
        (sh, sw), (dh, dw), (top, left) = (1, stride[0]), (1, dilation[0]), (0, pads[0][0])
    return (sh, sw, dh, dw, top, left, groups, ALGORITHMS[algorithm])


def check_weight(function: str, shape: tuple[int, ...], axes: int, layout: str) -> None:
    if len(shape) != axes + 2:
        raise ValueError(f"{function}: weight must have shape {layout}, got {shape}")
    if 0 in shape:
        raise ValueError(f"{function}: weight must not have an axis of size 0, got {shape}")


def _winograd_serves(
    kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> bool:
    if len(kernel) == 1 or min(kernel) == 1:
        axis = kernel.index(max(kernel))
        taps, step = kernel[axis], stride[axis]
        if step == 1:
            return 2 <= taps <= 64
        return step < taps <= min(64, 16 // step * step * 5) and dilation[axis] == 1
    step = stride[0]
    if stride in ((2, 2), (3, 3), (4, 4)):
        return kernel[0] == kernel[1] and step < kernel[0] <= 5 * step and max(dilation) == 1
    return max(stride) == 1 and max(kernel) <= 16


def weight_layout(axes: int, transposed: bool = False) -> str:
    names = "in_channels, out_channels/groups" if transposed else "out_channels, in_channels/groups"
    return f"({names}, {'kH, kW' if axes == 2 else 'k'})"


def checked_bias(function: str, bias: Any, weight: Array, channels: int) -> Array | None:
    if bias is None:
        return None
    bias = check.float_array(function, "bias", bias)
    check.same_dtype(function, "bias", bias, "weight", weight)
    if bias.shape != (channels,):
        raise ValueError(
            f"{function}: bias must have shape ({channels},), one per output channel, "
            f"got {bias.shape}"
        )
    return bias if bias.flags.c_contiguous else np.ascontiguousarray(bias)


def resolve(
    function: str,
    axes: int,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    itemsize: int,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: Any,
    algorithm: Any,
) -> Plan:
    """The checks that look at no array. input_shape may have a batch axis, the plan has one."""
    layout = weight_layout(axes)
    check_weight(function, weight_shape, axes, layout)
    groups = check.integer(function, "groups", groups, 1)
    choice(function, "algorithm", algorithm, ALGORITHMS)
    given, expected = input_shape, weight_shape[1] * groups
    if len(given) == axes + 1:
        input_shape = (1, *given)
    if input_shape[1] != expected:
        raise check.wrong_channels(function, given, weight_shape, groups, expected, layout)
    if weight_shape[0] % groups:
        raise ValueError(
            f"{function}: groups must divide out_channels, "
            f"got groups {groups}, weight {weight_shape}"
        )
    stride = check.per_axis(function, "stride", stride, axes)
    dilation = check.per_axis(function, "dilation", dilation, axes)
    sizes, kernel = input_shape[2:], weight_shape[2:]
    pads = check.conv_padding(function, padding, sizes, kernel, stride, dilation)
    if 0 in sizes:
        raise ValueError(f"{function}: input must not have an empty spatial axis, got {given}")
    out_sizes = [
        check.output_size(function, name, *args)
        for name, *args in zip(check.AXES[axes], sizes, kernel, stride, pads, dilation, strict=True)
    ]
    channels = max(input_shape[1], weight_shape[0])
    check.addressable(function, sizes, pads, channels, weight_shape, itemsize)
    if algorithm == "winograd" and not _winograd_serves(kernel, stride, dilation):
        raise ValueError(
            f"{function}: algorithm 'winograd' serves 2 to 64 taps along one axis and up to 16x16 "
            "with stride 1; with dilation 1 strides below the kernel's size, up to 4 for squares "
            "and 16 for lines, of up to 5 taps a step, "
            f"got kernel {kernel}, stride {stride}, dilation {dilation}; use 'auto' or 'direct'"
        )
    extra_pads = NO_PADS[axes]
    if choice(function, "padding_mode", padding_mode, _PADDING_MODES) != "zeros":
        from .padding import check_pair

        for axis, (size, pair) in enumerate(zip(sizes, pads, strict=True), 2):
            check_pair(function, "padding", axis, size, pair, padding_mode)
        pads, extra_pads = extra_pads, pads
    return Plan(
        (input_shape[0], weight_shape[0], *out_sizes),
        core_geometry(stride, dilation, pads, groups, algorithm),
        extra_pads,
    )


# An entry has about 700 bytes; a network asks for 10 to 100 different ones.
_resolve_again = lru_cache(maxsize=256)(resolve)
_INTS = frozenset([int])


def _is_plain(value: Any) -> bool:
    """An int, a str or a tuple of ints: nothing that equals one of those without being one."""
    kind = type(value)
    return kind is int or kind is str or (kind is tuple and set(map(type, value)) <= _INTS)


def prepare(
    function: str,
    axes: int,
    input: Any,
    weight: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: Any,
    algorithm: Any,
) -> Call:
    x = check.float_array(function, "input", input)
    w = check.float_array(function, "weight", weight)
    if w.dtype is not x.dtype:
        check.same_dtype(function, "weight", w, "input", x)
    shape, had_batch = x.shape, x.ndim == axes + 2
    if not had_batch:
        x, had_batch = check.batched(function, "input", x, axes)
    plain = type(padding_mode) is type(algorithm) is str and (
        type(stride) is type(padding) is type(dilation) is type(groups) is int
        or (
            type(groups) is int and _is_plain(stride) and _is_plain(padding) and _is_plain(dilation)
        )
    )
    plan = (_resolve_again if plain else resolve)(
        function,
        axes,
        shape,
        w.shape,
        x.itemsize,
        stride,
        padding,
        dilation,
        groups,
        padding_mode,
        algorithm,
    )
    return x, w, had_batch, plan
