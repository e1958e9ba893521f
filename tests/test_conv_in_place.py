"""Padded channels-last images that direct convolutions and gradients of weights read in place.

The outputs beside those that see no padding are a matter of their own; a channels-first image,
which is copied, or whose outputs are planes too, gives the same bits.
"""

import numpy as np
import pytest
from helpers import DTYPES, integers, same_bits, to_format

import fastconv
import fastconv.functional as F
from fastconv import reference

# batch, channels, height, width; outputs, channels of a group, taps
SHAPES = (
    ((2, 5, 9, 30), (33, 5, 3, 3), {"stride": 2, "padding": 1}),
    ((1, 24, 16, 57), (40, 24, 3, 3), {"stride": 4, "padding": 1}),
    ((3, 12, 11, 19), (20, 12, 3, 3), {"stride": (1, 3), "padding": (2, 1)}),
    ((1, 9, 30, 41), (17, 9, 3, 3), {"padding": 4, "dilation": 4}),
    ((1, 8, 28, 40), (24, 8, 3, 3), {"padding": 12, "dilation": 12}),
    ((2, 10, 8, 21), (35, 10, 1, 1), {"padding": (5, 3)}),
    ((2, 10, 7, 30), (18, 10, 5, 1), {"padding": (2, 0), "stride": (2, 1)}),
    ((2, 10, 7, 30), (18, 10, 1, 6), {"padding": ((0, 0), (2, 3))}),
    ((2, 3, 1, 70), (20, 3, 1, 15), {"padding": (0, 7)}),
    ((1, 6, 40, 44), (16, 6, 7, 7), {"padding": 3, "stride": 2}),
    ((2, 64, 13, 26), (64, 16, 3, 3), {"padding": 1, "stride": 2, "groups": 4}),
    ((1, 33, 10, 33), (66, 11, 3, 3), {"padding": 1, "stride": 2, "groups": 3}),
    ((26, 20, 11, 11), (70, 20, 3, 3), {"padding": 1, "stride": 2}),
    ((19, 20, 5, 5), (40, 20, 3, 3), {"padding": 1}),
    ((1, 40, 4, 100), (4, 40, 3, 3), {"padding": 1, "stride": 2}),
    ((1, 500, 5, 9), (17, 500, 3, 3), {"padding": 1, "stride": 2}),
    # of planes: rows of whole vectors and not, cut with little left over, few steps and many
    ((2, 1, 9, 64), (33, 1, 3, 3), {"stride": 2, "padding": 1}),
    ((3, 1, 20, 37), (9, 1, 3, 3), {"padding": 1}),
    ((2, 1, 9, 50), (24, 1, 5, 5), {}),
    ((2, 2, 1, 2050), (19, 2, 1, 1), {}),
    ((2, 6, 7, 50), (40, 3, 1, 1), {"groups": 2, "padding": (0, 1)}),
    ((2, 1, 12, 130), (17, 1, 3, 3), {"stride": (1, 3), "padding": 1, "dilation": (2, 1)}),
    ((1, 48, 4, 48), (48, 48, 1, 1), {}),
)


def with_gaps(x):
    """Channels-last pixels that NaN surround."""
    wide = np.full((x.shape[0], x.shape[1] + 3, x.shape[2] + 2, x.shape[3] + 2), np.nan, x.dtype)
    wide[:, 1:-2, 1:-1, 1:-1] = x
    return to_format(wide, "channels_last")[:, 1:-2, 1:-1, 1:-1]


def layouts(x):
    yield to_format(x, "channels_first")
    yield to_format(x, "channels_last")
    yield with_gaps(x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "w_shape", "options"), SHAPES)
def test_in_place(isa, rng, dtype, shape, w_shape, options):
    """Integers, whose sums are exact."""
    x, w, b = (integers(rng, s).astype(dtype) for s in (shape, w_shape, w_shape[:1]))
    y = reference.conv2d(x, w, b, **options)
    g = integers(rng, y.shape).astype(dtype)
    grads = reference.conv2d_backward(g, x, w, **options)[:2]
    for given in layouts(x):
        for grad in layouts(g):
            results = F.conv2d_backward(grad, given, w, **options, algorithm="direct")
            for result, wanted in zip(results, grads, strict=False):
                np.testing.assert_array_equal(result, wanted)
        np.testing.assert_array_equal(F.conv2d(given, w, b, **options, algorithm="direct"), y)


@pytest.mark.parametrize("scale", [1, 1e-30])
@pytest.mark.parametrize(("shape", "w_shape", "options"), SHAPES)
def test_bits(isa, rng, shape, w_shape, options, scale):
    """Of formats, threads, and images by themselves; of zeros that are left of sums like -1e-60."""
    x, w = ((scale * rng.standard_normal(s)).astype(np.float32) for s in (shape, w_shape))
    options = {**options, "algorithm": "direct"}
    y = F.conv2d(x, w, **options)
    g = (scale * rng.standard_normal(y.shape)).astype(np.float32)
    gradients = F.conv2d_backward(g, x, w, **options)[:2]
    threads = fastconv.get_num_threads()
    try:
        for count in (1, 2, 5):
            fastconv.set_num_threads(count)
            for given in layouts(x):
                assert same_bits(F.conv2d(given, w, **options), y)
                results = F.conv2d_backward(to_format(g, "channels_last"), given, w, **options)
                assert all(map(same_bits, results, gradients))
    finally:
        fastconv.set_num_threads(threads)
    for i in range(shape[0]):
        image = to_format(x[i : i + 1], "channels_last")
        assert same_bits(F.conv2d(image, w, **options), y[i : i + 1])


@pytest.mark.parametrize(
    ("w_shape", "options"),
    [
        ((24, 16, 3, 3), {"padding": (1, 4)}),
        ((24, 16, 1, 1), {"padding": (1, 3)}),
        ((24, 16, 3, 3), {"padding": (1, 24), "dilation": (1, 24)}),
    ],
)
def test_infinite_gradients_that_see_padding_only(isa, rng, w_shape, options):
    """They meet zeros in a copied image, and nothing in one that is read in place."""
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((2, 16, 13, 20), w_shape))
    g = rng.standard_normal(F.conv2d(x, w, **options).shape).astype(np.float32)
    g[0, 0, 6, 0] = np.inf
    results = [
        F.conv2d_backward(
            to_format(g, layout), to_format(x, layout), w, **options, algorithm="direct"
        )[1]
        for layout in ("channels_first", "channels_last")
    ]
    assert same_bits(*results)
