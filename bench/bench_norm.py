"""Batch normalisation and ReLU, forward and backward: fastconv, vectorised NumPy, loops and torch.

    pytest bench/bench_norm.py --benchmark-enable

Rows of a group: `fastconv` (per instruction set and memory format), `numpy` (whole-array
expressions), `reference` (fastconv.reference, a loop over channels), `torch` (both memory formats,
where installed).
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import fastconv_calls
import numpy as np
import pytest
from cases import NORMS, Array, Layout, Norm, formatted, identifier, normal
from fastconv_calls import norm_parameters
from harness import relative_error, run, tolerance

import fastconv.reference

LAYERS = {  # two images instead of 16
    case.name.split(" b16")[0]: replace(case, shape=(2, *case.shape[1:])) for case in NORMS
}
LAYOUTS: tuple[Layout, ...] = ("channels_last", "channels_first")
_EPS = 1e-5


@lru_cache(maxsize=4)
def arrays_of(layer: str, layout: Layout) -> tuple[Array, Array]:
    """Input and the gradient that arrives at the output."""
    shape = LAYERS[layer].shape
    x, g = (formatted(normal(shape, "float32", seed), layout) for seed in (1, 2))
    return x, g


class NumpyNorm:
    """The layers as whole-array expressions."""

    def __init__(self, case: Norm, x: Array, g: Array, parameters: dict[str, Array]) -> None:
        self.case, self.x, self.g = case, x, g
        column = {name: value[:, None, None] for name, value in parameters.items()}
        self.weight, self.bias = column["weight"], column["bias"]
        self.mean, self.var = column["running_mean"], column["running_var"]

    def _normalised(self) -> tuple[Array, Array]:
        mean, var = self.mean, self.var
        if self.case.kind == "batch_norm_training":
            mean = self.x.mean(axis=(0, 2, 3), keepdims=True)
            var = self.x.var(axis=(0, 2, 3), keepdims=True)
        scale = 1 / np.sqrt(var + self.x.dtype.type(_EPS))
        return (self.x - mean) * scale, scale

    def forward(self) -> Array:
        if self.case.kind == "relu":
            return np.maximum(self.x, 0)
        return self._normalised()[0] * self.weight + self.bias

    def grad_input(self) -> Array:
        if self.case.kind == "relu":
            return np.where(self.x > 0, self.g, 0)
        z, scale = self._normalised()
        g = self.g * self.weight
        if self.case.kind == "batch_norm_training":
            every = {"axis": (0, 2, 3), "keepdims": True}
            g = g - g.mean(**every) - z * (g * z).mean(**every)
        return g * scale


@lru_cache(maxsize=4)
def expected_of(layer: str, operation: str) -> Array:
    case = LAYERS[layer]
    arrays = (array.astype(np.float64) for array in arrays_of(layer, "channels_first"))
    parameters = {k: v.astype(np.float64) for k, v in norm_parameters(case).items()}
    result: Array = getattr(NumpyNorm(case, *arrays, parameters), operation)()
    return result


def _terms(layer: str) -> int:
    """Numbers in one mean."""
    shape = LAYERS[layer].shape
    return math.prod(shape) // shape[1]


def _run(benchmark: Any, layer: str, operation: str, call: Any, **options: Any) -> None:
    expected, terms = expected_of(layer, operation), _terms(layer)
    run(benchmark, call, expected, group=f"{layer} {operation}", terms=terms, **options)


every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_operation = pytest.mark.parametrize("operation", ["forward", "grad_input"])
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=identifier)


@every_layout
@every_operation
@every_layer
def test_fastconv(benchmark: Any, layer: str, operation: str, layout: Layout, isa: str) -> None:
    case = LAYERS[layer]
    calls = fastconv_calls.norm_calls(case, *arrays_of(layer, layout), norm_parameters(case))
    _run(benchmark, layer, operation, calls[operation], isa=isa)


@every_operation
@every_layer
def test_numpy(benchmark: Any, layer: str, operation: str) -> None:
    case = LAYERS[layer]
    ours = NumpyNorm(case, *arrays_of(layer, "channels_first"), norm_parameters(case))
    _run(benchmark, layer, operation, getattr(ours, operation))


@every_operation
@every_layer
def test_reference(benchmark: Any, layer: str, operation: str) -> None:
    case = LAYERS[layer]
    arrays = arrays_of(layer, "channels_first")
    calls = fastconv_calls.norm_calls(case, *arrays, norm_parameters(case), fastconv.reference)
    _run(benchmark, layer, operation, calls[operation], once=True)


@every_layout
@every_operation
@every_layer
def test_torch(benchmark: Any, layer: str, operation: str, layout: Layout) -> None:
    torch = pytest.importorskip("torch")
    import torch_calls

    case = LAYERS[layer]
    with torch.inference_mode():
        calls = torch_calls.norm_calls(
            case, *arrays_of(layer, layout), norm_parameters(case), layout
        )
        expected = expected_of(layer, operation)
        result = torch_calls.to_numpy(calls[operation](), expected.shape)
        assert relative_error(result, expected) <= tolerance(_terms(layer), result.dtype)
        benchmark.group = f"{layer} {operation}"
        benchmark.extra_info.update(correct=True, threads=torch.get_num_threads())
        benchmark(calls[operation])
