"""What the losses share: the reductions, and the gradient that comes back through them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.functional._checks import Array, float_array, number, same_dtype

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
    else:
        with np.errstate(over="ignore"):
            g = np.asarray(number(function, "grad_output", grad_output), input.dtype)
    if g.shape != expected:
        rule = f"have the losses' shape {expected}" if reduction == "none" else "be one number"
        raise ValueError(
            f"{function}: grad_output must {rule} for reduction {reduction!r}, got shape {g.shape}"
        )
    return g
