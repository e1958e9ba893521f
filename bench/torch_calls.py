"""The same layers in torch: for a case and a memory format, one zero-argument call per operation.

Tensors share the memory of the NumPy arrays. One-dimensional channels-last data run as images of
height 1, since torch has no channels-last format of rank 3. Gradients call the operators that
autograd would call, so that only the wanted one is computed. A call returns one tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from cases import Array, Conv, ConvArrays, Layout, Norm, Pool, formatted

aten = torch.ops.aten
Calls = dict[str, Callable[[], Any]]


def tensor(array: Array, layout: Layout, axes: int) -> torch.Tensor:
    """`array` (N, C, ...) as a tensor in `layout`; rank 3 and channels-last becomes rank 4."""
    ours = formatted(array, layout)
    if axes == 1 and layout == "channels_last":
        ours = ours[:, :, None, :]
    result = torch.from_numpy(ours)
    if layout == "channels_last":
        result = result.contiguous(memory_format=torch.channels_last)
    return result


def to_numpy(result: Any, shape: tuple[int, ...]) -> Array:
    return np.asarray(result.numpy()).reshape(shape)


def conv_calls(arrays: ConvArrays, layout: Layout) -> Calls:
    case: Conv = arrays.case
    x = tensor(arrays.input, layout, case.axes)
    g = tensor(arrays.grad_output, layout, case.axes)
    w = tensor(arrays.weight, layout, case.axes)
    raised = case.axes == 1 and layout == "channels_last"

    def per_axis(sizes: tuple[int, ...], filler: int) -> list[int]:
        return [filler, *sizes] if raised else list(sizes)

    stride, padding, dilation = (
        per_axis(case.stride, 1),
        per_axis(case.padding, 0),
        per_axis(case.dilation, 1),
    )
    rest = (case.transposed, [0] * len(stride), case.groups)

    def gradient(which: int) -> Callable[[], torch.Tensor]:
        mask = [which == 0, which == 1, False]
        return lambda: aten.convolution_backward(
            g, x, w, None, stride, padding, dilation, *rest, mask
        )[which]

    return {
        "forward": lambda: torch.convolution(x, w, None, stride, padding, dilation, *rest),
        "grad_input": gradient(0),
        "grad_weight": gradient(1),
    }


def pool_calls(case: Pool, x_array: Array, g_array: Array, layout: Layout) -> Calls:
    x, g = tensor(x_array, layout, case.axes), tensor(g_array, layout, case.axes)
    if x.ndim == 3:
        return _pool_calls_3d(case, x, g)
    raised = case.axes == 1
    kernel, stride, padding = (
        [filler, *sizes] if raised else list(sizes)
        for sizes, filler in ((case.kernel, 1), (case.stride, 1), (case.padding, 0))
    )
    if case.kind == "avg":
        return {
            "forward": lambda: aten.avg_pool2d(x, kernel, stride, padding),
            "grad_input": lambda: aten.avg_pool2d_backward(
                g, x, kernel, stride, padding, False, True, None
            ),
        }
    indices = aten.max_pool2d_with_indices(x, kernel, stride, padding)[1]

    def forward() -> torch.Tensor:
        if case.return_indices:
            return aten.max_pool2d_with_indices(x, kernel, stride, padding)[0]
        return torch.max_pool2d(x, kernel, stride, padding)

    return {
        "forward": forward,
        "grad_input": lambda: aten.max_pool2d_with_indices_backward(
            g, x, kernel, stride, padding, [1, 1], False, indices
        ),
    }


def _pool_calls_3d(case: Pool, x: torch.Tensor, g: torch.Tensor) -> Calls:
    """Rank 3; torch itself runs these gradients as images of height 1."""
    (kernel,), (stride,), (padding,) = case.kernel, case.stride, case.padding
    x4, g4, shape = x.unsqueeze(2), g.unsqueeze(2), ([1, kernel], [1, stride], [0, padding])
    if case.kind == "avg":
        return {
            "forward": lambda: torch.avg_pool1d(x, kernel, stride, padding),
            "grad_input": lambda: aten.avg_pool2d_backward(g4, x4, *shape, False, True, None),
        }
    indices = aten.max_pool2d_with_indices(x4, *shape)[1]
    return {
        "forward": lambda: torch.max_pool1d(x, kernel, stride, padding),
        "grad_input": lambda: aten.max_pool2d_with_indices_backward(
            g4, x4, *shape, [1, 1], False, indices
        ),
    }


def norm_calls(
    case: Norm, x_array: Array, g_array: Array, parameters: dict[str, Array], layout: Layout
) -> Calls:
    x, g = tensor(x_array, layout, 2), tensor(g_array, layout, 2)
    if case.kind == "relu":
        return {
            "forward": lambda: torch.relu(x),
            "grad_input": lambda: aten.threshold_backward(g, x, 0),
        }
    training = case.kind == "batch_norm_training"
    p = {name: torch.from_numpy(value.copy()) for name, value in parameters.items()}
    order = (p["weight"], p["bias"], p["running_mean"], p["running_var"])
    _, mean, inverse = aten.native_batch_norm(x, *order, training, 0.1, 1e-5)
    return {
        "forward": lambda: aten.native_batch_norm(x, *order, training, 0.1, 1e-5)[0],
        "grad_input": lambda: aten.native_batch_norm_backward(
            g, x, order[0], order[2], order[3], mean, inverse, training, 1e-5, [True, True, True]
        )[0],
    }
