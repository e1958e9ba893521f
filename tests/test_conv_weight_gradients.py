"""The gradient of the weight: 1x1 kernels read in place, rows of few channels by shifted rows."""

import numpy as np
import pytest
from helpers import DTYPES, integers, same_bits, to_format

import fastconv
import fastconv.functional as F
from fastconv import reference

FORMATS = ("channels_first", "channels_last")
MASK = (False, True, False)


def gradients(g, x, w, options):
    """In all pairs of formats, with channels-last pixels that have gaps, and with two threads."""
    found = []
    for x_format, g_format in zip(FORMATS + FORMATS, FORMATS + FORMATS[::-1], strict=True):
        arrays = to_format(g, g_format), to_format(x, x_format), w
        found.append(F.conv2d_backward(*arrays, **options, output_mask=MASK)[1])
    with fastconv.num_threads(2):
        found.append(F.conv2d_backward(*arrays, **options, output_mask=MASK)[1])
    wide = np.concatenate([x, np.full_like(x, np.nan)], axis=1)
    gaps = to_format(wide, "channels_last")[:, : x.shape[1]]
    found.append(F.conv2d_backward(g, gaps, w, **options, output_mask=MASK)[1])
    return found


def check(rng, x_shape, w_shape, dtype, **options):
    """Integers, whose sums are exact, by the reference; normal numbers, the bits of all ways."""
    x, w = integers(rng, x_shape).astype(dtype), np.zeros(w_shape, dtype)
    g = integers(rng, F.conv2d(x, w, **options).shape).astype(dtype)
    wanted = reference.conv2d_backward(g, x, w, **options, output_mask=MASK)[1]
    for found in gradients(g, x, w, options):
        np.testing.assert_array_equal(found, wanted)
    x, g = (rng.standard_normal(a.shape).astype(dtype) for a in (x, g))
    first, *others = gradients(g, x, w, options)
    for found in others:
        assert same_bits(found, first)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
@pytest.mark.parametrize(("channels", "outputs"), [(33, 36), (64, 32), (32, 130)])
def test_pointwise(isa, rng, dtype, stride, channels, outputs):
    """Images of one block, of several, of rows longer than a block, and small ones joined."""
    for shape in ((1, channels, 3, 5), (3, channels, 19, 23), (1, channels, 2, 700)):
        check(rng, shape, (outputs, channels, 1, 1), dtype, stride=stride)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pointwise_of_rows_apart(isa, rng, dtype):
    """One row of outputs per image, whose pixels do not follow those of the image before."""
    check(rng, (4, 64, 2, 6), (32, 64, 1, 1), dtype, stride=2)
    check(rng, (3, 64, 1, 9), (32, 64, 1, 1), dtype, stride=2)
    x, w = rng.standard_normal((4, 64, 1, 7)).astype(dtype), np.zeros((32, 64, 1, 1), dtype)
    whole = rng.standard_normal((4, 1, 20, 32)).astype(dtype).transpose(0, 3, 1, 2)
    for g in (whole[..., 3:10], whole[..., 3:17:2]):
        pixels = g[:, :, 0].astype(float), x[:, :, 0].astype(float)
        wanted = np.einsum("nkw,ncw->kc", *pixels)
        sizes = np.einsum("nkw,ncw->kc", *map(abs, pixels))  # a sum of 28 products
        for layout in FORMATS:
            found = F.conv2d_backward(g, to_format(x, layout), w, output_mask=MASK)[1]
            assert (abs(found[..., 0, 0] - wanted) <= 28 * np.finfo(dtype).eps * sizes).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_pieces_of_few_pixels(isa, rng, dtype):
    """Threads share out taps, and pieces of rows of taps, where there are few panels of outputs."""
    for x_shape, w_shape, options in (
        ((1, 21, 40, 41), (21, 21, 16, 16), {"stride": 8, "padding": 4}),
        ((2, 16, 1, 700), (16, 16, 1, 301), {"stride": (1, 100)}),
        ((1, 3, 1, 900), (40, 3, 1, 301), {"stride": (1, 20), "padding": (0, 7)}),
        ((1, 200, 3, 4), (24, 200, 1, 1), {}),
        ((1, 90, 15, 15), (20, 90, 3, 3), {"stride": 2, "dilation": 3, "padding": 3}),
        ((1, 66, 9, 11), (39, 22, 4, 2), {"stride": 2, "padding": (2, 0), "groups": 3}),
    ):
        check(rng, x_shape, w_shape, dtype, **options)
        x, w = rng.standard_normal(x_shape).astype(dtype), np.zeros(w_shape, dtype)
        g = rng.standard_normal(F.conv2d(x, w, **options).shape).astype(dtype)
        with fastconv.num_threads(1):
            wanted = F.conv2d_backward(g, x, w, **options, output_mask=MASK)[1]
        for threads in (2, 3, 5, 8):
            with fastconv.num_threads(threads):
                found = F.conv2d_backward(g, x, w, **options, output_mask=MASK)[1]
            assert same_bits(found, wanted), (x_shape, threads)


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_of_pixels_a_page_apart(isa, rng, stride):
    for channels, outputs in ((1024, 40), (40, 1024), (512, 32)):
        check(rng, (2, channels, 18, 17), (outputs, channels, 1, 1), np.float32, stride=stride)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_few_of_both(isa, rng, dtype, channels, outputs):
    """All cuts of a row of taps; rows shorter than a vector, no multiple of one, of pieces."""
    for size, kernel, options in (
        ((7, 40), (3, 3), {"padding": 1}),
        ((11, 33), (5, 5), {"padding": ((2, 0), (1, 3)), "dilation": (1, 2)}),
        ((9, 65), (2, 4), {"stride": (2, 1)}),
        ((12, 50), (7, 1), {"padding": (3, 0), "dilation": (2, 1)}),
        ((2, 2100), (1, 9), {"padding": (0, 4)}),
        ((30, 300), (4, 11), {"stride": (3, 1)}),
        ((20, 15), (3, 3), {}),
    ):
        check(rng, (2, channels, *size), (outputs, channels, *kernel), dtype, **options)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_few_of_both_keep_special_values_apart(isa, rng, layout, value):
    """A number that a tap does not see leaves its gradient finite."""
    x = integers(rng, (1, 1, 20, 37)).astype(np.float32)
    w = np.zeros((2, 1, 3, 3), np.float32)
    x[x == 0] = 1
    x[0, 0, 0, 36] = value  # seen by the taps of the first row and the last column only
    g = np.ones((1, 2, 18, 35), np.float32)
    arrays = to_format(g, layout), to_format(x, layout), w
    grad = F.conv2d_backward(*arrays, output_mask=MASK)[1]
    wanted = np.zeros((2, 1, 3, 3), bool)
    wanted[:, :, 0, 2] = True
    np.testing.assert_array_equal(~np.isfinite(grad), wanted)


@pytest.mark.parametrize("channels", [2, 3, 4, 6])
@pytest.mark.parametrize("width", [16, 17, 31, 48])
def test_pixels_of_few_channels_become_planes(isa, rng, channels, width):
    """Where forward reads rows, channels-last gives the bits of channels-first."""
    x = rng.standard_normal((2, channels, 9, width)).astype(np.float32)
    w = rng.standard_normal((2, channels, 5, 5)).astype(np.float32)
    assert same_bits(
        F.conv2d(x, w, padding=2), F.conv2d(to_format(x, "channels_last"), w, padding=2)
    )


def test_groups_of_eight_channels(isa, rng):
    for stride in (1, 2):
        x = integers(rng, (2, 64, 13, 17)).astype(np.float32)
        w = np.zeros((64, 8, 3, 3), np.float32)
        options = {"stride": stride, "padding": 1, "groups": 8, "algorithm": "direct"}
        g = integers(rng, F.conv2d(x, w, **options).shape).astype(np.float32)
        exact = reference.conv2d_backward(g, x, w, stride, 1, 1, 8, output_mask=MASK)[1]
        for found in gradients(g, x, w, options):
            np.testing.assert_array_equal(found, exact)
