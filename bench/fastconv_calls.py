"""The layers of `cases.py` in fastconv: one call per operation, each returning one array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cases import Array, ConvArrays, Norm, Pool

import fastconv.functional as F

Calls = dict[str, Callable[[], Any]]


def conv_calls(arrays: ConvArrays, functions: Any = F) -> Calls:
    """`functions` is `fastconv.functional` or `fastconv.reference`."""
    case, x, w, g = arrays.case, arrays.input, arrays.weight, arrays.grad_output
    name = f"{'conv_transpose' if case.transposed else 'conv'}{case.axes}d"
    forward, backward = getattr(functions, name), getattr(functions, f"{name}_backward")
    options = {
        "stride": case.stride,
        "padding": case.padding,
        "dilation": case.dilation,
        "groups": case.groups,
    }
    return {
        "forward": lambda: forward(x, w, **options),
        "grad_input": lambda: backward(g, x, w, **options, output_mask=(True, False, False))[0],
        "grad_weight": lambda: backward(g, x, w, **options, output_mask=(False, True, False))[1],
    }


def pool_calls(case: Pool, x: Array, g: Array, functions: Any = F) -> Calls:
    name = f"{case.kind}_pool{case.axes}d"
    forward, backward = getattr(functions, name), getattr(functions, f"{name}_backward")
    shape = (case.kernel, case.stride, case.padding)
    if case.kind == "avg":
        return {
            "forward": lambda: forward(x, *shape),
            "grad_input": lambda: backward(g, x.shape, *shape),
        }
    _, indices = forward(x, *shape, return_indices=True)

    def run() -> Array:
        result = forward(x, *shape, return_indices=case.return_indices)
        return result[0] if case.return_indices else result

    return {"forward": run, "grad_input": lambda: backward(g, indices, x.shape)}


def norm_parameters(case: Norm) -> dict[str, Array]:
    """Weight, bias and running statistics of a batch norm over the channels of `case`."""
    rng = np.random.default_rng(4)
    channels = case.shape[1]
    return {
        "weight": rng.uniform(0.5, 1.5, channels).astype(np.float32),
        "bias": rng.standard_normal(channels).astype(np.float32),
        "running_mean": rng.standard_normal(channels).astype(np.float32),
        "running_var": rng.uniform(0.5, 1.5, channels).astype(np.float32),
    }


def norm_calls(
    case: Norm, x: Array, g: Array, parameters: dict[str, Array], functions: Any = F
) -> Calls:
    if case.kind == "relu":
        return {
            "forward": lambda: functions.relu(x),
            "grad_input": lambda: functions.relu_backward(g, x),
        }
    training = case.kind == "batch_norm_training"
    p = {name: value.copy() for name, value in parameters.items()}
    order = (p["running_mean"], p["running_var"], p["weight"], p["bias"])
    return {
        "forward": lambda: functions.batch_norm(x, *order, training),
        "grad_input": lambda: functions.batch_norm_backward(g, x, *order, training)[0],
    }
