"""Pooling cases that have broken libraries: ids as in test_corner_cases.py.

Forward, indices and gradient against the reference, exact, for every instruction set, both dtypes
and both memory formats. The semantics they fix are in docs/semantics.md.
"""

import numpy as np
import pytest
from helpers import DTYPES, FORMATS, integers, same_bits, to_format

import fastconv.functional as F
from fastconv import reference as R

pytestmark = pytest.mark.usefixtures("corner_case")

NAN, INF = np.nan, np.inf
dtypes = pytest.mark.parametrize("dtype", DTYPES)
layouts = pytest.mark.parametrize("layout", FORMATS)

# shape, kernel_size, stride, padding, dilation, ceil_mode; the input has ties and NaN
MAX = {
    "onnx-ceil-output-size-reduce-by-one": ((1, 5, 2, 2), 1, 2, 0, 1, True),
    "onnx-ceil": ((1, 3, 4, 4), 3, 2, 0, 1, True),
    "onnx-last-window-starts-on-pad": ((2, 9, 3, 3), 2, 2, 1, 1, True),
    "onnx-same-upper": ((1, 3, 32, 32), 2, 1, "same"),
    "onnx-same-lower": ((1, 3, 32, 32), 2, 1, "same_lower"),
    "onnx-precomputed-same-upper": ((1, 1, 5, 5), 3, 2, "same"),
    "onnx-argmax-with-pads": ((1, 1, 5, 5), 5, 1, 2),
    "onnx-argmax-with-strides": ((1, 1, 5, 5), 2, 2),
    "onnx-dilations": ((1, 1, 4, 4), 2, 1, 0, 2),
    "pytorch-38986-indices-in-every-plane": ((3, 4, 5, 6), 2, 1),
    "ahrefs-ocannl-512-overlapping-windows": ((2, 3, 9, 9), 3, 1, 1),
    "pytorch-28733-global-window": ((2, 17, 7, 8), (7, 8)),
    "xnnpack-1xM-window": ((2, 9, 3, 40), (1, 33), (1, 3)),
    "xnnpack-Mx1-window": ((2, 9, 40, 3), (33, 1), (3, 1)),
    "xnnpack-asymmetric-padding": ((1, 33, 6, 7), 4, 3, ((2, 0), (0, 1))),
}


@layouts
@dtypes
@pytest.mark.parametrize("case", MAX)
def test_max_pool(isa, rng, case, dtype, layout):
    shape, *arguments = MAX[case]
    x = integers(rng, shape, dtype, reach=3)
    x[rng.random(shape) < 0.05] = NAN
    want, where = R.max_pool2d(x, *arguments, return_indices=True)
    g = integers(rng, want.shape, dtype)
    y, indices = F.max_pool2d(to_format(x, layout), *arguments, return_indices=True)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(indices, where)
    np.testing.assert_array_equal(F.max_pool2d(to_format(x, layout), *arguments), want)
    grad = F.max_pool2d_backward(to_format(g, layout), indices, shape)
    np.testing.assert_array_equal(grad, R.max_pool2d_backward(g, where, shape))
    assert grad.sum() == g.sum()


# shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
AVERAGE = {
    "onnx-count-include-pad": ((1, 3, 5, 6), 2, 2, 1),
    "onnx-count-exclude-pad": ((1, 3, 5, 6), 2, 2, 1, False, False),
    "onnx-ceil-last-window-starts-on-pad": ((1, 3, 3, 3), 2, 2, 1, True),
    "pytorch-183528-divisor-of-a-partial-window": ((1, 2, 5, 7), 4, 4, 0, True),
    "pytorch-99424-ceil-and-include-pad": ((1, 2, 6, 8), 4, 4, 2, True),
    "onnxruntime-16203-ceil-and-exclude-pad": ((1, 2, 6, 8), 4, 4, 2, True, False),
    "pytorch-13934-divisor-override": ((1, 2, 6, 7), 3, 3, 0, False, True, 1),
    "onnx-same-upper": ((1, 3, 31, 32), 2, 1, "same"),
    "onnx-same-lower": ((1, 3, 31, 32), 2, 1, "same_lower"),
}


@layouts
@dtypes
@pytest.mark.parametrize("case", AVERAGE)
def test_avg_pool(isa, rng, case, dtype, layout):
    shape, *arguments = AVERAGE[case]
    x = integers(rng, shape, dtype) * 12
    y = F.avg_pool2d(to_format(x, layout), *arguments)
    want = R.avg_pool2d(x.astype(np.float64), *arguments)
    bound = 2 * np.finfo(dtype).eps * abs(x).max()  # one product with a rounded reciprocal
    np.testing.assert_allclose(y, want, rtol=0, atol=bound)
    g = integers(rng, y.shape, dtype) * 12
    grad = F.avg_pool2d_backward(to_format(g, layout), shape, *arguments)
    want = R.avg_pool2d_backward(g.astype(np.float64), shape, *arguments)
    np.testing.assert_allclose(grad, want, rtol=0, atol=4 * bound)


@layouts
@dtypes
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33])
def test_tensorflow_125965_nan_in_tail(isa, dtype, layout, channels):
    """Channels with equal values give equal results, in a vector and in its tail."""
    one = np.array([[1, NAN, 2, 5], [3, 0, NAN, 4], [9, 8, 7, 6], [0, 0, 0, NAN]], dtype)
    x = to_format(np.repeat(one[np.newaxis, np.newaxis], channels, axis=1), layout)
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    np.testing.assert_array_equal(y, np.repeat([[[[NAN, NAN], [9, NAN]]]], channels, axis=1))
    np.testing.assert_array_equal(indices, np.repeat([[[[1, 6], [8, 15]]]], channels, axis=1))
    np.testing.assert_array_equal(F.max_pool2d(x, 2), y)
    values = F.adaptive_max_pool2d(x, 2)
    np.testing.assert_array_equal(values, y)


@layouts
@dtypes
@pytest.mark.parametrize("channels", [1, 17])
@pytest.mark.parametrize(
    ("value", "last"), [(NAN, True), (-INF, False), (INF, False), (-0.0, False)],
    ids=["pytorch-40131-all-nan-window", "pytorch-7645-all-minus-inf-window",
         "tracker-all-inf-window", "tracker-all-minus-zero-window"],
)  # fmt: skip
def test_windows_of_one_value(isa, dtype, layout, channels, value, last):
    """The index is that of an element, never -1; the gradient goes there."""
    x = to_format(np.full((2, channels, 4, 6), value, dtype), layout)
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    assert same_bits(y, np.full((2, channels, 2, 3), value, dtype))
    first = np.array([[0, 2, 4], [12, 14, 16]]) + 7 * last
    np.testing.assert_array_equal(indices, np.broadcast_to(first, y.shape))
    grad = F.max_pool2d_backward(np.ones_like(y), indices, x.shape)
    np.testing.assert_array_equal(np.flatnonzero(grad[0, 0]), np.sort(first.ravel()))


TIED = {
    "tensorflow-4886-ties-go-to-the-first": ([3, 3, 3, 3], 2, 2, [1, 0, 1, 0]),
    "tinygrad-9500-repeated-elements": ([1, 2, 2, 1], 4, 4, [0, 1, 0, 0]),
    "ahrefs-ocannl-512-ties-of-overlapping-windows": ([5, 5, 5, 1], 2, 1, [1, 1, 1, 0]),
    "ahrefs-ocannl-512-one-winner-of-three-windows": ([1, 9, 9, 1], 3, 1, [0, 2, 0, 0]),
    "tracker-zero-and-minus-zero-are-equal": ([-0.0, 0.0, -0.0, 0.0], 2, 2, [1, 0, 1, 0]),
}


@dtypes
@pytest.mark.parametrize("case", TIED)
def test_ties(isa, case, dtype):
    values, kernel, stride, want = TIED[case]
    for channels in (1, 3, 17):
        x = np.broadcast_to(np.array(values, dtype), (1, channels, 4))
        for layout in FORMATS:
            y, indices = F.max_pool1d(to_format(x, layout), kernel, stride, return_indices=True)
            grad = F.max_pool1d_backward(np.ones_like(y), indices, x.shape)
            np.testing.assert_array_equal(grad, np.broadcast_to(want, x.shape))


@layouts
@dtypes
def test_pytorch_78249_unpool_of_duplicates(isa, dtype, layout):
    """Of equal indices the last in row-major order wins, whatever the number of threads."""
    x = to_format(np.arange(1, 2 * 5 * 64 + 1, dtype=dtype).reshape(2, 5, 8, 8), layout)
    indices = to_format(np.zeros(x.shape, np.int64), layout)
    indices[:, :, 4:] = 7
    y = F.max_unpool2d(x, indices, 2)
    want = np.zeros((2, 5, 16, 16), dtype)
    want[:, :, 0, 0], want[:, :, 0, 7] = x[:, :, 3, 7], x[:, :, 7, 7]
    np.testing.assert_array_equal(y, want)
    back = F.max_unpool2d_backward(y, indices)
    np.testing.assert_array_equal(back[:, :, 0, 0], x[:, :, 3, 7])


GRAD, INDICES = np.ones((1, 2, 2, 2), np.float32), np.zeros((1, 2, 2, 2), np.int64)
V, T = ValueError, TypeError
REFUSED = {
    "pytorch-140923-mismatched-shapes": (
        lambda: F.max_pool2d_backward(GRAD, INDICES[:, :1], (1, 2, 4, 4)),
        V,
        "indices must have shape",
    ),
    "pytorch-140923-mismatched-input-shape": (
        lambda: F.max_pool2d_backward(GRAD, INDICES, (1, 3, 4, 4)),
        V,
        "batch and channels",
    ),
    "pytorch-1465-index-minus-1": (
        lambda: F.max_pool2d_backward(GRAD, INDICES - 1, (1, 2, 4, 4)),
        V,
        "indices must lie in",
    ),
    "pytorch-197409-index-2-to-32": (
        lambda: F.max_pool2d_backward(GRAD, INDICES + 2**32, (1, 2, 4, 4)),
        V,
        "indices must lie in",
    ),
    "pytorch-91555-unpool-index-outside": (
        lambda: F.max_unpool2d(GRAD, INDICES + 16, 2),
        V,
        r"indices must lie in 0\.\.15",
    ),
    "pytorch-91555-unpool-index-negative": (
        lambda: F.max_unpool2d(GRAD, INDICES + np.iinfo(np.int64).min, 2),
        V,
        "indices must lie in",
    ),
    "tensorflow-57500-kernel-of-0": (
        lambda: F.avg_pool2d(GRAD, 0),
        V,
        "kernel_size must be at least 1",
    ),
    "tensorflow-57500-empty-plane": (lambda: F.avg_pool2d(GRAD[:, :, :0], 1), V, "at least 1"),
    "onnx-4958-window-wholly-in-padding": (
        lambda: F.max_pool2d(GRAD, 2, 1, 1, dilation=3),
        V,
        "does not fit|holds no input",
    ),
    "pytorch-padding-more-than-half-of-the-window": (
        lambda: F.max_pool2d(GRAD, 2, padding=2),
        V,
        "padding must be at most half",
    ),
    "onnx-uint8": (
        lambda: F.max_pool2d(GRAD.astype(np.uint8), 2),
        T,
        "float32 or float64, got uint8",
    ),
    "pytorch-33086-bool": (lambda: F.max_pool2d(GRAD > 0, 2), T, "float32 or float64, got bool"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        call()
