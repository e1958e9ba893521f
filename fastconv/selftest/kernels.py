"""Kernels against the reference: convolutions, pools, normalisation, activations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

import fastconv.functional as F
from fastconv import reference as R
from fastconv.functional._checks import Array

# input shape, weight shape, arguments: every driver, sizes around the widths of vectors and tiles.
# 3 axes are 1-D; "transposed" names are those of conv_transpose.
_CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3x3": ((2, 17, 9, 11), (33, 17, 3, 3), {"padding": 1}),
    "3x3, one image": ((1, 8, 16, 7), (9, 8, 3, 3), {}),
    "1x1": ((2, 33, 6, 7), (17, 33, 1, 1), {}),
    "1x1, stride 2": ((2, 9, 7, 8), (5, 9, 1, 1), {"stride": 2}),
    "7x7, stride 2": ((1, 3, 21, 23), (19, 3, 7, 7), {"stride": 2, "padding": 3}),
    "strides 2, 3": ((2, 3, 9, 11), (4, 3, 3, 3), {"stride": (2, 3), "padding": 1}),
    "asymmetric": ((2, 3, 6, 7), (5, 3, 3, 4), {"padding": ((0, 2), (3, 1))}),
    "dilated": ((2, 3, 11, 12), (4, 3, 3, 3), {"dilation": (3, 2), "padding": 3}),
    "groups": ((2, 6, 7, 8), (8, 3, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 35, 7, 9), (35, 1, 3, 3), {"groups": 35, "padding": 1}),
    "depthwise 5x5": ((1, 8, 9, 8), (8, 1, 5, 5), {"groups": 8, "stride": 2, "padding": 2}),
    "one input channel": ((3, 1, 12, 13), (6, 1, 5, 5), {}),
    "one output channel": ((2, 5, 12, 33), (1, 5, 3, 3), {"padding": 1}),
    "one pixel": ((5, 40, 1, 1), (9, 40, 1, 1), {}),
    "long row": ((1, 3, 2, 97), (5, 3, 2, 5), {"padding": (0, 2)}),
    "same": ((1, 3, 8, 11), (4, 3, 4, 3), {"padding": "same", "stride": 2}),
    "reflect": ((2, 4, 6, 7), (4, 4, 3, 3), {"padding": 1, "padding_mode": "reflect"}),
    "circular": ((2, 4, 6, 7), (4, 4, 3, 3), {"padding": 2, "padding_mode": "circular"}),
    "1-D": ((2, 5, 37), (17, 5, 3), {"padding": 1}),
    "1-D, causal": ((2, 5, 37), (6, 5, 3), {"padding": "causal", "dilation": 4}),
    "1-D, depthwise": ((2, 16, 50), (16, 1, 31), {"groups": 16, "padding": 15}),
    "transposed": ((2, 9, 5, 6), (9, 17, 4, 4), {"stride": 2, "padding": 1}),
    "transposed, groups": ((1, 6, 5, 4), (6, 2, 3, 3), {"stride": 3, "groups": 2}),
    "transposed, 1-D": ((2, 5, 11), (5, 4, 3), {"stride": 2, "output_padding": 1}),
}
_POOLS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "2x2": ((2, 17, 8, 9), {"kernel_size": 2}),
    "3x3, stride 2": ((2, 33, 9, 11), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "ceil": ((2, 7, 8, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    "wide": ((1, 3, 5, 40), {"kernel_size": (2, 5), "stride": (1, 3), "padding": (1, 2)}),
    "1-D": ((2, 9, 31), {"kernel_size": 3, "stride": 2, "padding": 1}),
}
_ACTIVATIONS = ("relu", "leaky_relu", "relu6", "sigmoid", "tanh", "gelu", "silu")
_DTYPES = (np.float32, np.float64)
_RESULTS = ("output", "gradient of input", "gradient of weight", "gradient of bias")

for _size in (1, 2, 7, 8, 9, 15, 16, 17, 31, 33):  # around the widths of vectors
    _CONVOLUTIONS[f"{_size} channels in"] = ((2, _size, 5, 6), (9, _size, 3, 3), {"padding": 1})
    _CONVOLUTIONS[f"{_size} channels out"] = ((2, 5, 5, 6), (_size, 5, 3, 3), {"padding": 1})
    _CONVOLUTIONS[f"{_size} wide"] = ((2, 5, 3, _size), (9, 5, 3, 3), {"padding": 1})
    _CONVOLUTIONS[f"depthwise, {_size} channels"] = (
        (2, _size, 6, 5), (_size, 1, 3, 3), {"padding": 1, "groups": _size},
    )  # fmt: skip


def functions(module: Any, name: str, rank: int) -> tuple[Any, Any]:
    """Forward and backward of a row of _CONVOLUTIONS."""
    kind = "conv_transpose" if name.startswith("transposed") else "conv"
    return getattr(module, f"{kind}{rank - 2}d"), getattr(module, f"{kind}{rank - 2}d_backward")


def both(module: Any, name: str, arrays: list[Array], arguments: dict[str, Any]) -> list[Array]:
    """Result and three gradients."""
    x, w, b, g = arrays
    forward, backward = functions(module, name, x.ndim)
    return [forward(x, w, b, **arguments), *backward(g, x, w, **arguments)]


@cache
def _problem(name: str, whole: bool, dtype: Any) -> tuple[list[Array], list[Array], list[Array]]:
    """Arrays, what the reference makes of them in float64, and of their magnitudes."""
    x_shape, w_shape, arguments = _CONVOLUTIONS[name]
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> Array:
        if whole:  # sums of at most 2**24 in magnitude are exact in float32
            return rng.integers(-4, 5, shape).astype(np.float64)
        return rng.standard_normal(shape).astype(dtype).astype(np.float64)

    x, w = draw(x_shape), draw(w_shape)
    y = functions(R, name, x.ndim)[0](x, w, **arguments)
    arrays = [x, w, draw((y.shape[1],)), draw(y.shape)]
    sizes = [] if whole else both(R, name, [abs(a) for a in arrays], arguments)
    return arrays, both(R, name, arrays, arguments), sizes


def in_format(array: Array, channels_last: bool) -> Array:
    if not channels_last:
        return array
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def _variants() -> Iterator[tuple[Any, bool, str]]:
    """(dtype, channels-last, the words for them)"""
    for dtype in _DTYPES:
        for last in (False, True):
            yield dtype, last, f"{np.dtype(dtype)}, channels-{'last' if last else 'first'}"


def _convolutions() -> Iterator[tuple[str, bool]]:
    for name, (_, _, arguments) in _CONVOLUTIONS.items():
        choice = {} if name.startswith("transposed") else {"algorithm": "direct"}
        (x, w, b, g), want, _ = _problem(name, True, None)
        for dtype, last, words in _variants():
            arrays = [in_format(x.astype(dtype), last), w.astype(dtype), b.astype(dtype)]
            arrays.append(in_format(g.astype(dtype), last))
            got = both(F, name, arrays, {**arguments, **choice})
            for what, result, expected in zip(_RESULTS, got, want, strict=True):
                yield f"{name}, {words}: {what}", np.array_equal(result, expected)


def _rounding() -> Iterator[tuple[str, bool]]:
    """Any algorithm, Winograd's included, whose bound is 8 times that of a sum (docs/accuracy.md).

    eps * sqrt(terms) times the sum of magnitudes is twice what Higham and Mary (2019) expect.
    """
    for name, (_, _, arguments) in _CONVOLUTIONS.items():
        for dtype, last, words in _variants():
            (x, w, b, g), want, sizes = _problem(name, False, dtype)
            arrays = [in_format(x.astype(dtype), last), w.astype(dtype), b.astype(dtype)]
            arrays.append(in_format(g.astype(dtype), last))
            positions = g.size // g.shape[1]
            terms = [w[0].size + 1, w.size // w.shape[1] + 1, positions, positions]
            if name.startswith("transposed"):
                terms[:2] = terms[1], terms[0]
            got = both(F, name, arrays, arguments)
            for i, what in enumerate(_RESULTS):
                bound = 8 * np.finfo(dtype).eps * np.sqrt(terms[i]) * sizes[i].max()
                yield f"{name}, {words}: {what}", bool(np.abs(got[i] - want[i]).max() <= bound)


def _pools() -> Iterator[tuple[str, bool]]:
    rng = np.random.default_rng(0)
    for name, (shape, arguments) in _POOLS.items():
        kind = f"_pool{len(shape) - 2}d"
        x = rng.integers(-9, 10, shape).astype(np.float64)  # with many ties
        x[rng.random(shape) < 0.02] = np.nan
        largest = getattr(R, f"max{kind}")(x, return_indices=True, **arguments)
        g = rng.integers(-4, 5, largest[0].shape).astype(np.float64)
        largest = *largest, getattr(R, f"max{kind}_backward")(g, largest[1], shape)
        means = [getattr(R, f"avg{kind}")(g_in := np.nan_to_num(x), **arguments)]
        means.append(getattr(R, f"avg{kind}_backward")(g, shape, **arguments))
        for dtype, last, words in _variants():
            xs, gs = in_format(x.astype(dtype), last), in_format(g.astype(dtype), last)
            y, indices = getattr(F, f"max{kind}")(xs, return_indices=True, **arguments)
            back = getattr(F, f"max{kind}_backward")(gs, indices, shape)
            for what, got, want in zip(
                ("output", "indices", "gradient"), (y, indices, back), largest, strict=True
            ):
                yield f"max, {name}, {words}: {what}", np.array_equal(got, want, equal_nan=True)
            xs = in_format(g_in.astype(dtype), last)
            averages = [getattr(F, f"avg{kind}")(xs, **arguments)]
            averages.append(getattr(F, f"avg{kind}_backward")(gs, shape, **arguments))
            # one division of an exact sum; the gradient adds at most 16 quotients
            bound = 16 * np.finfo(dtype).eps * 9
            for what, got, want in zip(("output", "gradient"), averages, means, strict=True):
                yield f"average, {name}, {words}: {what}", bool(np.abs(got - want).max() <= bound)


def _norms() -> Iterator[tuple[str, bool]]:
    """Within 8 eps sqrt(values per channel) of the largest value of each result."""
    rng = np.random.default_rng(0)
    names = ("output", "gradient of input", "of weight", "of bias", "running mean", "variance")
    for shape in ((4, 3), (3, 17, 5, 4), (2, 35, 40), (2, 5, 33, 31)):
        x, g = rng.standard_normal((2, *shape))
        vectors = [*rng.standard_normal((3, shape[1])), rng.random(shape[1]) + 0.5]
        for training in (True, False):
            for dtype, last, words in _variants():
                arrays = [in_format(a.astype(dtype), last) for a in (x, g)]
                rounded = [a.astype(dtype) for a in vectors]
                got = _normalised(F, arrays, rounded, training)
                arrays, exact = ([a.astype(np.float64) for a in s] for s in (arrays, rounded))
                want = _normalised(R, arrays, exact, training)
                bound = 8 * np.finfo(dtype).eps * np.sqrt(x.size // shape[1])
                for what, result, expected in zip(names, got, want, strict=True):
                    error, size = np.abs(result - expected).max(), np.abs(expected).max()
                    kind = "training" if training else "eval"
                    yield f"{shape}, {kind}, {words}: {what}", bool(error <= bound * (1 + size))


def _normalised(module: Any, images: list[Array], vectors: list[Array], training: bool) -> Any:
    (x, g), (weight, bias, mean, var) = images, vectors
    running = mean.copy(), var.copy()
    y = module.batch_norm(x, *running, weight, bias, training)
    return y, *module.batch_norm_backward(g, x, mean, var, weight, bias, training), *running


def _activations() -> Iterator[tuple[str, bool]]:
    """Within 8 eps of the larger of 1 and the result; gradients are up to 16 times a derivative."""
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 3, 7, 9, 11)) * 4
    for name in _ACTIVATIONS:
        for dtype, last, words in _variants():
            xs, gs = (in_format(a.astype(dtype), last) for a in (x, g))
            wide = xs.astype(np.float64), gs.astype(np.float64)
            pairs = {
                "output": (getattr(F, name)(xs), getattr(R, name)(wide[0])),
                "gradient": (
                    getattr(F, f"{name}_backward")(gs, xs),
                    getattr(R, f"{name}_backward")(wide[1], wide[0]),
                ),
            }
            for what, (got, want) in pairs.items():
                scale = np.maximum(1 if what == "output" else 16, np.abs(want))
                bound = 8 * np.finfo(dtype).eps * scale
                yield f"{name}, {words}: {what}", bool((np.abs(got - want) <= bound).all())


CHECKS = {
    "convolution, exact": _convolutions,
    "convolution, rounding": _rounding,
    "max and average pools": _pools,
    "batch normalisation": _norms,
    "activations": _activations,
}
