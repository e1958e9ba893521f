"""What the losses share: the reductions, and the gradient that comes back through them."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from fastconv.functional._checks import Array, float_array, same_dtype

REDUCTIONS = ("mean", "sum", "none")


def mean(total: Any, count: Any) -> Any:
    """total / count; the mean over nothing is NaN, without a warning."""
    return total / count if count else type(total)(math.nan)


def grad_of_losses(
    function: str, grad_output: Any, loss_shape: tuple[int, ...], input: Array, reduction: str
) -> Array:
    """`grad_output` checked: of the losses' shape for "none", else one number."""
    expected = loss_shape if reduction == "none" else ()
    if isinstance(grad_output, np.ndarray) and grad_output.ndim:
        g = float_array(function, "grad_output", grad_output)
        same_dtype(function, "grad_output", g, "input", input)
    elif isinstance(grad_output, (Real, np.ndarray)) and not isinstance(grad_output, bool):
        g = np.asarray(grad_output, input.dtype)
    else:
        raise TypeError(
            f"{function}: grad_output must be a number or an array, got "
            f"{type(grad_output).__name__} {grad_output!r}"
        )
    if g.shape != expected:
        rule = f"have the losses' shape {expected}" if reduction == "none" else "be one number"
        raise ValueError(
            f"{function}: grad_output must {rule} for reduction {reduction!r}, got shape {g.shape}"
        )
    return g
