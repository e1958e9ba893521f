"""Convolutions of known networks: fastconv, vectorised NumPy, loops, scipy.signal and torch.

    pytest bench/bench_conv.py                                  # every benchmark once, as a test
    pytest bench/bench_conv.py --benchmark-enable -k "64_56"    # timed; one group per layer
    pytest bench/bench_conv.py --benchmark-enable --isa all     # every instruction set

Rows of a group: `fastconv` (per instruction set), `numpy` (im2col and a batched matrix product),
`naive` (one Python loop per output axis, NumPy inside), `reference` (fastconv.reference), `scipy`
(correlate2d, layers of one channel), `torch` (both memory formats, where installed). Loops run
once, and only where that takes seconds rather than minutes. The seven nested loops of
`test_python_loops` compute one output channel of 64; its `extra_info` has 64 times that.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import fastconv_calls
import numpy_calls
import pytest
from cases import CONVS, Array, Conv, ConvArrays, Layout, identifier
from harness import relative_error, run, tolerance

import fastconv.reference

_BATCHES = {  # the big batches of training shrink, so that every row of a group is the same problem
    "5x5 1->6@28 p2 b64 (LeNet)": 8,
    "3x3 16@32 b128 (CIFAR)": 8,
    "3x3 32@16 b128 (CIFAR)": 8,
    "3x3 64@8 b128 (CIFAR)": 8,
    "3x3 64@56 b1": 1,
    "3x3 128@28 b1": 1,
    "3x3 256@14 b1": 1,
    "3x3 512@7 b1": 1,
    "7x7 s2 3->64@224 b1 (stem)": 1,
    "3x3 s2 64->128@56": 1,
    "1x1 256->64@56": 1,
    "3x3 1->1@512": 1,
    "depthwise 3x3 144@56": 1,
    "conv1d k3 64@1000 b16": 1,
    "conv1d k80 s4 1->128@16000 b16": 1,
    "conv1d k2 d64 64@4000 b4": 1,
    "transposed 4x4 s2 128->64@16 b8": 1,
    "float64 3x3 64@56": 1,
}
LAYERS = {
    case.name.split(" b")[0]: replace(case, batch=_BATCHES[case.name])
    for case in CONVS
    if case.name in _BATCHES
}
OPERATIONS = ("forward", "grad_input", "grad_weight")
_MOST_OUTPUTS = 250_000  # of the naive loops: 1 to 3 s
_MOST_WINDOWS = 20_000  # of the reference's loops
_LOOPS_AS_TEST = 5_000  # where nothing is timed


def _outputs(layer: str) -> int:
    """Loops of the naive functions; 0 for transposed layers, which they do not know."""
    case = LAYERS[layer]
    return 0 if case.transposed else math.prod(case.output_shape)


def _windows(layer: str) -> int:
    """Loops of the reference: windows, for each group."""
    case = LAYERS[layer]
    return case.groups * math.prod(case.sizes if case.transposed else case.output_shape[2:])


@lru_cache(maxsize=4)
def arrays_of(layer: str, layout: Layout = "channels_last") -> ConvArrays:
    return ConvArrays(LAYERS[layer], layout)


@lru_cache(maxsize=8)
def expected_of(layer: str, operation: str) -> Array:
    """The float64 oracle: vectorised NumPy on the same numbers."""
    arrays = ConvArrays(LAYERS[layer], "channels_first")
    for name in ("input", "weight", "grad_output"):
        setattr(arrays, name, getattr(arrays, name).astype("float64"))
    return numpy_calls.vectorised_calls(arrays)[operation]()


def _run(benchmark: Any, layer: str, operation: str, call: Any, **options: Any) -> None:
    case: Conv = LAYERS[layer]
    run(
        benchmark,
        call,
        expected_of(layer, operation),
        group=f"{layer} {operation}",
        terms=case.terms(operation),
        flops=case.flops,
        **options,
    )


every_operation = pytest.mark.parametrize("operation", OPERATIONS)
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=identifier)


@every_operation
@every_layer
def test_fastconv(benchmark: Any, layer: str, operation: str, isa: str) -> None:
    call = fastconv_calls.conv_calls(arrays_of(layer))[operation]
    _run(benchmark, layer, operation, call, isa=isa)


@every_operation
@every_layer
def test_numpy(benchmark: Any, layer: str, operation: str) -> None:
    call = numpy_calls.vectorised_calls(arrays_of(layer, "channels_first"))[operation]
    _run(benchmark, layer, operation, call)


def _skip_if_long(benchmark: Any, loops: int) -> None:
    if benchmark.disabled and loops > _LOOPS_AS_TEST:
        pytest.skip(f"{loops} loops: only with --benchmark-enable")


@every_operation
@pytest.mark.parametrize(
    "layer", [name for name in LAYERS if 0 < _outputs(name) <= _MOST_OUTPUTS], ids=identifier
)
def test_naive(benchmark: Any, layer: str, operation: str) -> None:
    _skip_if_long(benchmark, _outputs(layer))
    call = numpy_calls.naive_calls(arrays_of(layer, "channels_first"))[operation]
    _run(benchmark, layer, operation, call, once=True)


@every_operation
@pytest.mark.parametrize(
    "layer", [name for name in LAYERS if _windows(name) <= _MOST_WINDOWS], ids=identifier
)
def test_reference(benchmark: Any, layer: str, operation: str) -> None:
    _skip_if_long(benchmark, _windows(layer))
    arrays = arrays_of(layer, "channels_first")
    call = fastconv_calls.conv_calls(arrays, fastconv.reference)[operation]
    _run(benchmark, layer, operation, call, once=True)


@pytest.mark.parametrize(
    "layer", [n for n, c in LAYERS.items() if numpy_calls.scipy_applies(c)], ids=identifier
)
def test_scipy(benchmark: Any, layer: str) -> None:
    pytest.importorskip("scipy.signal")
    arrays = arrays_of(layer, "channels_first")
    _run(benchmark, layer, "forward", lambda: numpy_calls.scipy_forward(arrays))


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@every_operation
@every_layer
def test_torch(benchmark: Any, layer: str, operation: str, layout: Layout) -> None:
    torch = pytest.importorskip("torch")
    import torch_calls

    with torch.inference_mode():
        call = torch_calls.conv_calls(arrays_of(layer), layout)[operation]
        expected = expected_of(layer, operation)
        result = torch_calls.to_numpy(call(), expected.shape)
        terms = LAYERS[layer].terms(operation)
        assert relative_error(result, expected) <= tolerance(terms, result.dtype)
        benchmark.group = f"{layer} {operation}"
        benchmark.extra_info.update(correct=True, threads=torch.get_num_threads())
        benchmark(call)


def test_python_loops(benchmark: Any) -> None:
    """Seven nested loops over numbers: one output channel of 64; a small layer where not timed."""
    layer = "3x3 64@56"
    case = LAYERS[layer]
    if benchmark.disabled:
        case = replace(case, sizes=(6, 6), channels=4, outputs=2)
    arrays = ConvArrays(case, "channels_first")
    benchmark.group = f"{layer} forward"
    loops = numpy_calls.seven_loops
    result = benchmark.pedantic(loops, (arrays, range(1)), rounds=1, iterations=1)
    if benchmark.stats is not None:
        benchmark.extra_info["seconds_of_the_layer"] = benchmark.stats.stats.min * case.outputs
    expected = numpy_calls.vectorised_calls(arrays)["forward"]()[:, :1]
    assert relative_error(result, expected) <= tolerance(case.terms("forward"), result.dtype)
    benchmark.extra_info["correct"] = True
