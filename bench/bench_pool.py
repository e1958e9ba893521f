"""Max and average pooling, forward and backward: fastconv, vectorised NumPy, loops and torch.

    pytest bench/bench_pool.py --benchmark-enable

Rows of a group: `fastconv` (per instruction set and memory format), `numpy` (windows as a view,
reduced in one call; backward one scatter per tap), `reference` (fastconv.reference), `torch` (both
memory formats, where installed).
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import fastconv_calls
import numpy as np
import pytest
from cases import POOLS, Array, Layout, Pool, formatted, identifier, normal, pool_output_shape
from harness import relative_error, run, tolerance
from numpy.lib.stride_tricks import sliding_window_view

import fastconv.reference

LAYERS = {  # two images instead of 16, four instead of 64
    case.name.split(" b")[0]: replace(case, shape=(4 if case.shape[1] == 6 else 2, *case.shape[1:]))
    for case in POOLS
    if not case.return_indices
}
LAYOUTS: tuple[Layout, ...] = ("channels_last", "channels_first")
_MOST_WINDOWS = 20_000  # of the reference's loops
_LOOPS_AS_TEST = 1_000  # where nothing is timed


@lru_cache(maxsize=4)
def arrays_of(layer: str, layout: Layout) -> tuple[Array, Array]:
    """Input and the gradient that arrives at the output."""
    case = LAYERS[layer]
    x, g = (normal(shape, "float32", 1) for shape in (case.shape, pool_output_shape(case)))
    return formatted(x, layout), formatted(g, layout)


class NumpyPool:
    """Pooling by a view of the windows; one-dimensional data are images of height 1."""

    def __init__(self, case: Pool, x: Array, g: Array) -> None:
        flat = case.axes == 1
        self.kernel, self.stride, self.padding = (
            (filler, *sizes) if flat else sizes
            for sizes, filler in ((case.kernel, 1), (case.stride, 1), (case.padding, 0))
        )
        self.case, self.x, self.g = case, x[:, :, None] if flat else x, g[:, :, None] if flat else g

    def _padded(self) -> Array:
        value = 0.0 if self.case.kind == "avg" else -np.inf
        widths = ((0, 0), (0, 0), *((p, p) for p in self.padding))
        return np.pad(self.x, widths, constant_values=value)

    def _windows(self) -> Array:
        view = sliding_window_view(self._padded(), self.kernel, axis=(2, 3))
        return view[:, :, :: self.stride[0], :: self.stride[1]]

    def forward(self) -> Array:
        view = self._windows()
        result = view.mean(axis=(4, 5)) if self.case.kind == "avg" else view.max(axis=(4, 5))
        return result.reshape(pool_output_shape(self.case))

    def grad_input(self) -> Array:
        view = self._windows()
        taps = math.prod(self.kernel)
        if self.case.kind == "avg":
            share = np.broadcast_to(self.g[..., None] / taps, (*self.g.shape, taps))
        else:
            winner = view.reshape(*view.shape[:4], taps).argmax(axis=4)
            share = np.where(winner[..., None] == np.arange(taps), self.g[..., None], 0)
        image = np.zeros(self._padded().shape, self.x.dtype)
        height, width = self.g.shape[2:]
        for tap in range(taps):
            u, v = divmod(tap, self.kernel[1])
            rows = slice(u, u + (height - 1) * self.stride[0] + 1, self.stride[0])
            cols = slice(v, v + (width - 1) * self.stride[1] + 1, self.stride[1])
            image[:, :, rows, cols] += share[..., tap]
        top, left = self.padding
        image = image[:, :, top : top + self.x.shape[2], left : left + self.x.shape[3]]
        return image.reshape(self.case.shape)


@lru_cache(maxsize=4)
def expected_of(layer: str, operation: str) -> Array:
    arrays = (array.astype(np.float64) for array in arrays_of(layer, "channels_first"))
    result: Array = getattr(NumpyPool(LAYERS[layer], *arrays), operation)()
    return result


def _run(benchmark: Any, layer: str, operation: str, call: Any, **options: Any) -> None:
    terms, expected = math.prod(LAYERS[layer].kernel), expected_of(layer, operation)
    run(benchmark, call, expected, group=f"{layer} {operation}", terms=terms, **options)


every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_operation = pytest.mark.parametrize("operation", ["forward", "grad_input"])
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=identifier)


@every_layout
@every_operation
@every_layer
def test_fastconv(benchmark: Any, layer: str, operation: str, layout: Layout, isa: str) -> None:
    call = fastconv_calls.pool_calls(LAYERS[layer], *arrays_of(layer, layout))[operation]
    _run(benchmark, layer, operation, call, isa=isa)


@every_operation
@every_layer
def test_numpy(benchmark: Any, layer: str, operation: str) -> None:
    call = getattr(NumpyPool(LAYERS[layer], *arrays_of(layer, "channels_first")), operation)
    _run(benchmark, layer, operation, call)


@every_operation
@every_layer
def test_reference(benchmark: Any, layer: str, operation: str) -> None:
    case = LAYERS[layer]
    windows = math.prod(pool_output_shape(case)[2:])
    if windows > (_LOOPS_AS_TEST if benchmark.disabled else _MOST_WINDOWS):
        pytest.skip(f"{windows} windows: too long")
    arrays = arrays_of(layer, "channels_first")
    call = fastconv_calls.pool_calls(case, *arrays, fastconv.reference)[operation]
    _run(benchmark, layer, operation, call, once=True)


@every_layout
@every_operation
@every_layer
def test_torch(benchmark: Any, layer: str, operation: str, layout: Layout) -> None:
    torch = pytest.importorskip("torch")
    import torch_calls

    with torch.inference_mode():
        call = torch_calls.pool_calls(LAYERS[layer], *arrays_of(layer, layout), layout)[operation]
        expected = expected_of(layer, operation)
        result = torch_calls.to_numpy(call(), expected.shape)
        assert relative_error(result, expected) <= tolerance(64, result.dtype)
        benchmark.group = f"{layer} {operation}"
        benchmark.extra_info.update(correct=True, threads=torch.get_num_threads())
        benchmark(call)
