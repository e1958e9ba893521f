"""`explain_conv2d`: what `conv2d` would do for some shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .. import _core
from .._messages import shown
from . import _checks as check
from ._arrays import shape as shape_argument
from ._checks import Array
from ._conv_plan import Algorithm, prepare


@dataclass(frozen=True)
class Explanation:
    """What `conv2d` does for some shapes."""

    algorithm: str
    reason: str
    isa: str
    macs: int
    flops: int
    input_bytes: int
    weight_bytes: int
    output_bytes: int
    scratch_bytes: int
    output_shape: tuple[int, ...]

    def __str__(self) -> str:
        return "\n".join(f"{name:14} {value}" for name, value in self.__dict__.items())


def _stand_in(function: str, name: str, shape: Any, dtype: np.dtype[Any]) -> Array:
    """An array of this shape in the memory of one element."""
    sizes = shape_argument(function, name, shape)
    if len(sizes) != 4:
        raise ValueError(f"{function}: {name} must have four entries, got {shown(sizes)}")
    if prod(sizes) >= 2**59:
        raise ValueError(f"{function}: {name} must have less than 2**59 elements, got {sizes}")
    return np.broadcast_to(np.zeros(1, dtype), sizes)


def explain_conv2d(
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    dtype: Any = np.float32,
    algorithm: Algorithm = "auto",
) -> Explanation:
    """Tell what `conv2d` would do for channels-last arrays of these shapes, without doing it.

    Parameters
    ----------
    input_shape : (N, C, H, W)
    weight_shape : (K, C / groups, kH, kW)
    stride, padding, dilation, groups, algorithm
        As for `conv2d`.
    dtype : float32 or float64

    Returns
    -------
    Explanation
        algorithm and reason, instruction set, multiply-adds, bytes of the arrays, scratch bytes of
        one thread.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.
    """
    function = "explain_conv2d"
    dtype = check.float_dtype(function, dtype)
    x = _stand_in(function, "input_shape", input_shape, dtype)
    w = _stand_in(function, "weight_shape", weight_shape, dtype)
    x, w, _, plan = prepare(
        function, 2, x, w, stride, padding, dilation, groups, "zeros", algorithm
    )
    shapes = x.shape, w.shape, plan.output_shape
    images = shapes if shapes[0][0] else ((1, *shapes[0][1:]), shapes[1], (1, *shapes[2][1:]))
    found, reason, scratch = _core.conv2d_explain(x.itemsize, *images, plan.geometry)
    macs = int(np.prod((*plan.output_shape, *w.shape[1:]), dtype=object))
    in_bytes, weight_bytes, out_bytes = (int(np.prod(s, dtype=object)) * x.itemsize for s in shapes)
    return Explanation(
        found,
        reason,
        _core.isa(),
        macs,
        2 * macs,
        in_bytes,
        weight_bytes,
        out_bytes,
        scratch if shapes[0][0] else 0,
        plan.output_shape,
    )
