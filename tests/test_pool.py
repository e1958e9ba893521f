"""Pooling and unpooling against the reference, for every instruction set."""

import numpy as np
import pytest
from array_variants import is_channels_last, variants

import fastconv
import fastconv.functional as F
from fastconv import reference as R
from fastconv.functional import pool as layers

DTYPES = (np.float32, np.float64)
LANES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65)  # channels around the widths of vectors

# shape, kernel, stride, padding, dilation, ceil_mode
WINDOWS = {
    "resnet stem": ((2, 5, 12, 11), 3, 2, 1, 1, False),
    "lenet": ((3, 6, 8, 10), 2, None, 0, 1, False),
    "overlapping": ((2, 3, 7, 9), 3, 1, 1, 1, False),
    "gaps between windows": ((1, 4, 11, 13), 2, 3, 1, 1, False),
    "dilated": ((2, 3, 9, 10), 3, (2, 1), (2, 1), (2, 3), False),
    "dilated past the image": ((1, 2, 3, 4), (3, 1), 1, (2, 0), (2, 1), False),
    "asymmetric": ((1, 17, 6, 9), (3, 4), (2, 1), ((1, 0), (0, 2)), 1, False),
    "same": ((1, 3, 7, 8), (3, 2), (2, 3), "same", 1, False),
    "same_lower": ((1, 3, 7, 8), (3, 2), (2, 3), "same_lower", 1, False),
    "ceil": ((2, 3, 8, 9), 3, 2, 1, 1, True),
    "ceil, last window would start in the padding": ((1, 2, 4, 5), 2, 2, 1, 1, True),
    "ceil, window larger than the input": ((1, 2, 2, 3), 4, 4, 1, 1, True),
    "whole plane": ((2, 9, 5, 6), (5, 6), 1, 0, 1, False),
    "one element": ((2, 3, 4, 4), 1, 1, 0, 1, False),
    "one row": ((2, 3, 1, 40), (1, 5), (1, 2), (0, 2), 1, False),
    "wide row": ((1, 2, 2, 700), (2, 3), (1, 1), 0, 1, False),
}
AVERAGED = {name: w for name, w in WINDOWS.items() if w[4] == 1}


@pytest.fixture(params=fastconv.isas())
def isa(request):
    with fastconv.use_isa(request.param):
        yield request.param


def channels_last(x):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


FORMATS = (np.ascontiguousarray, channels_last)


def whole(rng, shape, dtype, nan=0.0):
    """Small whole numbers (ties, exact sums), and some NaN."""
    x = rng.integers(-4, 5, shape).astype(dtype)
    x[rng.random(shape) < nan] = np.nan
    return x


def same_bits(a, b):
    """Also the sign of zeros; of NaN only the place."""
    where = np.isnan(a)
    return (
        np.array_equal(where, np.isnan(b))
        and np.array_equal(a[~where], b[~where])
        and np.array_equal(np.signbit(a[~where]), np.signbit(b[~where]))
    )


def eps(dtype):
    return float(np.finfo(dtype).eps)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", WINDOWS)
def test_max_pool2d_ties_and_nan(case, dtype):
    shape, *arguments = WINDOWS[case]
    x = whole(np.random.default_rng(1), shape, dtype, nan=0.08)
    expected, where = R.max_pool2d(x, *arguments, return_indices=True)
    rng = np.random.default_rng(2)
    g = whole(rng, expected.shape, dtype)
    expected_grad = R.max_pool2d_backward(g, where, shape)
    for form in FORMATS:
        a = form(x)
        out = form(np.full_like(expected, 77))
        assert F.max_pool2d(a, *arguments, out=out) is out
        np.testing.assert_array_equal(out, expected)
        y, indices = F.max_pool2d(a, *arguments, return_indices=True)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(indices, where)
        assert indices.dtype == np.int64
        y, argmax = layers._max_pool2d_argmax(a, *arguments)
        np.testing.assert_array_equal(y, expected)
        for grad_form in FORMATS:
            grad = F.max_pool2d_backward(grad_form(g), indices, shape)
            np.testing.assert_array_equal(grad, expected_grad)
            grad = layers._max_pool2d_argmax_backward(grad_form(g), argmax, shape, *arguments)
            np.testing.assert_array_equal(grad, expected_grad)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(1, 2), (7, 7), (8, 8), (5, 4), (3, 17), (16, 16), (20, 33)])
def test_averages_of_whole_planes(sizes, dtype):
    """Every number of planes, rows with gaps and from below; the same bits in both formats."""
    rng = np.random.default_rng(sizes[1])
    for channels in (1, 2, 3, 5, 16, 67, 130, 530):
        wide = rng.standard_normal((2, channels, sizes[0] + 1, sizes[1] + 3)).astype(dtype)
        crop = wide[:, :, 1:, 2:-1]
        for x in (np.ascontiguousarray(crop), crop, crop[:, :, ::-1], crop[:, :, :1].repeat(1, 2)):
            expected = x.astype(np.float64).mean((2, 3), keepdims=True)
            y = F.avg_pool2d(x, x.shape[2:])
            terms = x.shape[2] + x.shape[3]
            atol = terms * eps(dtype) * np.abs(x).mean((2, 3)).max()
            np.testing.assert_allclose(y, expected, rtol=0, atol=atol)
            np.testing.assert_array_equal(F.avg_pool2d(channels_last(x), x.shape[2:]), y)
            np.testing.assert_array_equal(F.avg_pool2d(x[1:], x.shape[2:]), y[1:])


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize(
    "window",
    [(3, 2, 1), (3, 2, 0), (2, 2, 0), (2, 2, 1), (3, 1, 1), (5, 1, 2), (4, 4, 0), (4, 4, 1)],
)
def test_rows_of_planes_with_and_without_nan(window):
    """A NaN anywhere in a row of windows, in the padding's neighbours too, is found."""
    rng = np.random.default_rng(5)
    for width in (36, 37, 70):
        clean = whole(rng, (1, 2, 5, width), np.float32)
        for column in range(width):
            x = clean.copy()
            x[0, 1, 2, column] = np.nan
            expected, where = R.max_pool2d(x, *window, return_indices=True)
            y, indices = F.max_pool2d(x, *window, return_indices=True)
            assert same_bits(y, expected)
            assert same_bits(F.max_pool2d(x, *window), expected)
            np.testing.assert_array_equal(indices, where)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", LANES)
def test_channels_around_the_vector_width(channels, dtype):
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((2, channels, 6, 7)).astype(dtype)
    expected, where = R.max_pool2d(x, 3, 2, 1, return_indices=True)
    mean = R.avg_pool2d(x.astype(np.float64), 3, 2, 1)
    g = rng.standard_normal(expected.shape).astype(dtype)
    mean_grad = R.avg_pool2d_backward(g.astype(np.float64), x.shape, 3, 2, 1)
    for form in FORMATS:
        out = form(np.full_like(expected, np.nan))
        np.testing.assert_array_equal(F.max_pool2d(form(x), 3, 2, 1, out=out), expected)
        indices = F.max_pool2d(form(x), 3, 2, 1, return_indices=True)[1]
        np.testing.assert_array_equal(indices, where)
        taps = layers._max_pool2d_argmax(form(x), 3, 2, 1)[1]
        grad = layers._max_pool2d_argmax_backward(form(g), taps, x.shape, 3, 2, 1)
        np.testing.assert_array_equal(grad, F.max_pool2d_backward(form(g), indices, x.shape))
        out = form(np.full_like(expected, np.nan))
        F.avg_pool2d(form(x), 3, 2, 1, out=out)
        np.testing.assert_allclose(out, mean, rtol=0, atol=4 * eps(dtype))
        grad = F.avg_pool2d_backward(form(g), x.shape, 3, 2, 1)
        np.testing.assert_allclose(grad, mean_grad, rtol=0, atol=4 * eps(dtype))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33, 64])
@pytest.mark.parametrize(
    "window",
    [  # kernel, stride, padding, dilation, ceil_mode, sizes
        (2, 2, 0, 1, False, (8, 12)),
        (2, 2, 0, 1, False, (7, 9)),
        (2, 2, 1, 1, True, (7, 10)),
        ((3, 2), (3, 2), (1, 0), 1, False, (9, 26)),
        (2, (3, 4), 0, (2, 3), False, (11, 19)),
        ((1, 5), (2, 5), 0, 1, False, (3, 25)),
        (7, 7, 3, 1, False, (4, 4)),
        (7, 1, 3, 1, False, (4, 4)),
    ],
)
def test_windows_apart(window, channels, dtype):
    """Of few channels several columns are written at once; windows at the edges are parts."""
    *arguments, sizes = window
    rng = np.random.default_rng(channels)
    x = whole(rng, (3, channels, *sizes), dtype, nan=0.05)
    expected, where = R.max_pool2d(x, *arguments, return_indices=True)
    g = whole(rng, expected.shape, dtype)
    g[rng.random(g.shape) < 0.2] = -0.0
    g[rng.random(g.shape) < 0.1] = np.nan
    expected_grad = F.max_pool2d_backward(g, where, x.shape)
    np.testing.assert_array_equal(expected_grad, R.max_pool2d_backward(g, where, x.shape))
    for form in FORMATS:
        y, taps = layers._max_pool2d_argmax(form(x), *arguments)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(F.max_pool2d(form(x), *arguments), expected)
        grad = layers._max_pool2d_argmax_backward(form(g), taps, x.shape, *arguments)
        assert same_bits(grad, expected_grad)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [2, 3, 5, 6, 8, 15, 16, 17, 37, 64, 70])
@pytest.mark.parametrize(
    "window", [(2, 20, 18), (2, 21, 19), ((1, 3), 4, 60), ((3, 2), 15, 20), (2, 4, 307)]
)
def test_indices_of_windows_that_tile(window, channels, dtype):
    """Enough of them that the windows are guessed, and some indices then lie elsewhere."""
    kernel, *sizes = window
    rng = np.random.default_rng(channels)
    x = whole(rng, (2 + 12 // channels, channels, *sizes), dtype)
    y, where = F.max_pool2d(x, kernel, return_indices=True)
    g = whole(rng, y.shape, dtype)
    g[rng.random(g.shape) < 0.2] = -0.0
    moved = [where.copy() for _ in range(4)]
    moved[1][-1, -1, -1, -1] = 0
    moved[2][0, channels // 2, 1, :] = where[0, channels // 2, 0, :]
    moved[3][:] = rng.integers(0, sizes[0] * sizes[1], where.shape)
    for index in moved:
        expected = R.max_pool2d_backward(g, index, x.shape)
        for form in FORMATS:
            assert same_bits(F.max_pool2d_backward(form(g), form(index), x.shape), expected + 0)
    for outside in (-1, sizes[0] * sizes[1], 2**32, 2**32 + 1, -(2**32)):
        index = where.copy()
        index[1, channels - 1, 1, 1] = outside
        for form in FORMATS:
            with pytest.raises(ValueError, match=str(outside)):
                F.max_pool2d_backward(form(g), form(index), x.shape)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("channels", [*range(1, 18), 32, 37, 70])
@pytest.mark.parametrize(
    "window",
    [  # kernel, stride, padding, sizes
        (2, 2, 0, (8, 13)),
        (3, 2, 1, (9, 12)),
        (5, 2, 2, (11, 31)),
        (3, 1, 1, (5, 40)),
        (7, 1, 3, (4, 6)),
        ((2, 3), (3, 5), 0, (11, 43)),
        ((1, 9), (1, 4), (0, 4), (2, 9000)),
        ((4, 1), 1, (2, 0), (700, 5)),
    ],
)
def test_average_gradients_in_both_formats(window, channels):
    """Rows of few channels are streams of lanes, windows apart are placed; planes add in the same
    order."""
    *arguments, sizes = window
    rng = np.random.default_rng(channels)
    shape = (2, channels, *sizes)
    for options in ({}, {"count_include_pad": False}, {"ceil_mode": True}, {"divisor_override": 3}):
        y = F.avg_pool2d(np.zeros(shape, np.float32), *arguments, **options)
        g = rng.standard_normal(y.shape).astype(np.float32)
        planes = F.avg_pool2d_backward(g, shape, *arguments, **options)
        pixels = F.avg_pool2d_backward(channels_last(g), shape, *arguments, **options)
        assert same_bits(pixels, planes)
        wanted = F.avg_pool2d_backward(g.astype(np.float64), shape, *arguments, **options)
        terms = np.prod(arguments[0]) if np.ndim(arguments[0]) else arguments[0] ** 2
        bound = 2 * eps(np.float32) * np.abs(g).max() * terms
        np.testing.assert_allclose(pixels, wanted, rtol=0, atol=bound)
    for output in ((3, 5), (2, sizes[1]), (1, 2 * sizes[1] + 1)):
        g = rng.standard_normal((2, channels, *output)).astype(np.float32)
        planes = F.adaptive_avg_pool2d_backward(g, shape)
        assert same_bits(F.adaptive_avg_pool2d_backward(channels_last(g), shape), planes)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 97])
def test_max_pool1d_lengths_and_nan_in_every_lane(width, dtype):
    """One NaN at every position: it must come out of exactly the windows that hold it."""
    x = np.arange(width * width, dtype=dtype).reshape(1, width, width) % 7
    x[0, np.arange(width), np.arange(width)] = np.nan
    for form in FORMATS:
        for arguments in ((1,), (3, 1, 1), (2, 2, 1)):
            expected, where = R.max_pool1d(x, *arguments, return_indices=True)
            y, indices = F.max_pool1d(form(x), *arguments, return_indices=True)
            np.testing.assert_array_equal(y, expected)
            np.testing.assert_array_equal(indices, where)
            np.testing.assert_array_equal(F.max_pool1d(form(x), *arguments), expected)
            y, taps = layers._max_pool1d_argmax(form(x), *arguments)
            grad = layers._max_pool1d_argmax_backward(y * 0 + 1, taps, x.shape, *arguments)
            ones = np.ones_like(expected)
            np.testing.assert_array_equal(
                layers._max_pool1d_argmax_backward(ones, taps, x.shape, *arguments),
                R.max_pool1d_backward(ones, where, x.shape),
            )
            assert grad.shape == x.shape


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_windows_of_one_value(dtype):
    """All -inf: -inf and the first valid index; all NaN: the last one (torch)."""
    for value, index in ((-np.inf, 0), (np.nan, 4), (np.inf, 0), (0.0, 0)):
        x = np.full((1, 3, 3, 3), value, dtype)
        for form in FORMATS:
            y, where = F.max_pool2d(form(x), 3, 2, 1, return_indices=True)
            np.testing.assert_array_equal(y, np.full((1, 3, 2, 2), value, dtype))
            assert where[0, 0, 0, 0] == index
    zeros = np.array([[[-0.0, 0.0, -0.0]]], dtype)
    y, where = F.max_pool1d(zeros, 3, return_indices=True)
    assert where.item() == 0
    assert np.signbit(y).all()


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", AVERAGED)
def test_avg_pool2d(case, dtype):
    shape, kernel, stride, padding, _, ceil_mode = AVERAGED[case]
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape).astype(dtype)
    for include in (True, False):
        for divisor in (None, 5):
            arguments = kernel, stride, padding, ceil_mode, include, divisor
            expected = R.avg_pool2d(x.astype(np.float64), *arguments)
            g = rng.standard_normal(expected.shape).astype(dtype)
            grad = R.avg_pool2d_backward(g.astype(np.float64), shape, *arguments)
            terms = np.prod(np.broadcast_to(kernel, 2))
            for form in FORMATS:
                out = form(np.full(expected.shape, np.nan, dtype))
                F.avg_pool2d(form(x), *arguments, out=out)
                np.testing.assert_allclose(out, expected, rtol=0, atol=4 * eps(dtype) * terms**0.5)
                for grad_form in FORMATS:
                    gx = F.avg_pool2d_backward(grad_form(g), shape, *arguments)
                    tolerance = 8 * eps(dtype) * terms**0.5
                    np.testing.assert_allclose(gx, grad, rtol=0, atol=tolerance)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("sizes", "output"),
    [((7, 9), 1), ((7, 9), (3, 4)), ((5, 6), (5, None)), ((3, 4), (7, 9)), ((1, 1), 2)],
)
def test_adaptive_pools2d(sizes, output, dtype):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 17, *sizes)).astype(dtype)
    mean = R.adaptive_avg_pool2d(x.astype(np.float64), output)
    expected, where = R.adaptive_max_pool2d(x, output, return_indices=True)
    g = rng.standard_normal(mean.shape).astype(dtype)
    mean_grad = R.adaptive_avg_pool2d_backward(g.astype(np.float64), x.shape)
    tolerance = 8 * eps(dtype) * np.prod(sizes) ** 0.5
    for form in FORMATS:
        out = form(np.full(mean.shape, np.nan, dtype))
        F.adaptive_avg_pool2d(form(x), output, out=out)
        np.testing.assert_allclose(out, mean, rtol=0, atol=tolerance)
        gx = F.adaptive_avg_pool2d_backward(form(g), x.shape)
        np.testing.assert_allclose(gx, mean_grad, rtol=0, atol=tolerance)
        y, indices = F.adaptive_max_pool2d(form(x), output, return_indices=True)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(indices, where)
        np.testing.assert_array_equal(F.adaptive_max_pool2d(form(x), output), expected)
        gx = F.adaptive_max_pool2d_backward(form(g), indices, x.shape)
        expected_grad = R.adaptive_max_pool2d_backward(g, where, x.shape)
        np.testing.assert_array_equal(gx, expected_grad)


def test_one_dimension_is_an_image_of_height_1():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 5, 23))
    image = x[:, :, None]
    for arguments in ((3,), (3, 2, 1), (4, 3, ((1, 2),), 1, True)):
        kernel, *others = arguments
        flat = [(1, kernel)]
        if others:
            pad = others[1][0] if isinstance(others[1], tuple) else (others[1], others[1])
            flat += [(1, others[0]), ((0, 0), pad), *others[2:]]
        y, where = F.max_pool1d(x, *arguments, return_indices=True)
        y2, where2 = F.max_pool2d(image, *flat, return_indices=True)
        np.testing.assert_array_equal(y, y2[:, :, 0])
        np.testing.assert_array_equal(where, where2[:, :, 0])
        gx = F.max_pool1d_backward(y, where, x.shape)
        gx2 = F.max_pool2d_backward(y2, where2, image.shape)
        np.testing.assert_array_equal(gx, gx2[:, :, 0])
        arguments, flat = (*arguments[:3], *arguments[4:]), (*flat[:3], *flat[4:])
        np.testing.assert_array_equal(
            F.avg_pool1d(x, *arguments), F.avg_pool2d(image, *flat)[:, :, 0]
        )
        np.testing.assert_array_equal(
            F.avg_pool1d_backward(y, x.shape, *arguments),
            F.avg_pool2d_backward(y2, image.shape, *flat)[:, :, 0],
        )
    a, b = F.adaptive_avg_pool1d(x, 4), F.adaptive_avg_pool2d(image, (1, 4))
    np.testing.assert_array_equal(a, b[:, :, 0])
    np.testing.assert_array_equal(
        F.adaptive_avg_pool1d_backward(a, x.shape),
        F.adaptive_avg_pool2d_backward(b, image.shape)[:, :, 0],
    )
    a, where = F.adaptive_max_pool1d(x, 4, return_indices=True)
    expected, expected_where = R.adaptive_max_pool1d(x, 4, return_indices=True)
    np.testing.assert_array_equal(a, expected)
    np.testing.assert_array_equal(where, expected_where)
    gx = F.adaptive_max_pool1d_backward(a, where, x.shape)
    np.testing.assert_array_equal(gx, R.adaptive_max_pool1d_backward(a, where, x.shape))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_of_the_input_does_not_matter(dtype):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 5, 6, 9)).astype(dtype)
    y, where = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    mean = F.avg_pool2d(x, 3, 2, 1)
    for name, a in variants(x):
        result, indices = F.max_pool2d(a, 3, 2, 1, return_indices=True)
        np.testing.assert_array_equal(result, y, err_msg=name)
        np.testing.assert_array_equal(indices, where, err_msg=name)
        np.testing.assert_array_equal(F.avg_pool2d(a, 3, 2, 1), mean, err_msg=name)
        if name == "channels-last":
            assert is_channels_last(result)
            assert is_channels_last(indices)
    gx = F.max_pool2d_backward(y, where, x.shape)
    mean_gx = F.avg_pool2d_backward(y, x.shape, 3, 2, 1)
    for name, g in variants(y):
        np.testing.assert_array_equal(F.max_pool2d_backward(g, where, x.shape), gx, err_msg=name)
        grad = F.avg_pool2d_backward(g, x.shape, 3, 2, 1)
        np.testing.assert_array_equal(grad, mean_gx, err_msg=name)
    for name, indices in variants(where):
        grad = F.max_pool2d_backward(y, indices, x.shape)
        np.testing.assert_array_equal(grad, gx, err_msg=name)
    out = np.full((4, 10, 6, 5), np.nan, dtype)
    F.max_pool2d(x, 3, 2, 1, out=out[::2, 1::2, ::2])
    np.testing.assert_array_equal(out[::2, 1::2, ::2], y)
    assert np.isnan(out[1::2]).all()
    assert np.isnan(out[:, ::2]).all()
    np.testing.assert_array_equal(
        F.max_pool2d(np.broadcast_to(x[:1], x.shape), 2)[1], F.max_pool2d(x[0], 2)
    )


def test_unbatched_and_empty():
    x = np.random.default_rng(7).standard_normal((3, 6, 5))
    y, where = F.max_pool2d(x, 2, return_indices=True)
    assert y.shape == where.shape == (3, 3, 2)
    assert F.max_pool2d_backward(y, where, x.shape).shape == x.shape
    assert F.avg_pool2d(x, 2).shape == (3, 3, 2)
    assert F.avg_pool2d_backward(y, x.shape, 2).shape == x.shape
    assert F.adaptive_avg_pool2d(x, 2).shape == (3, 2, 2)
    assert F.max_unpool2d(y, where, 2, output_size=(6, 5)).shape == x.shape
    for n, c in ((0, 3), (2, 0)):
        z = np.empty((n, c, 6, 5), np.float32)
        y, where = F.max_pool2d(z, 2, return_indices=True)
        assert y.shape == where.shape == (n, c, 3, 2)
        assert F.max_pool2d_backward(y, where, z.shape).shape == z.shape
        assert F.avg_pool2d(z, 2).shape == (n, c, 3, 2)
        assert F.avg_pool2d_backward(y, z.shape, 2).shape == z.shape
        assert F.adaptive_max_pool2d(z, 1).shape == (n, c, 1, 1)
        assert F.max_unpool2d(y, where, 2).shape == (n, c, 6, 4)


@pytest.mark.parametrize("form", FORMATS)
def test_threads_and_batch_splits_do_not_change_bits(form):
    rng = np.random.default_rng(8)
    x = form(rng.standard_normal((5, 33, 41, 43)).astype(np.float32))
    results = []
    for threads in (1, 2, 3):
        with fastconv.num_threads(threads):
            y, where = F.max_pool2d(x, 3, 2, 1, return_indices=True)
            y2, taps = layers._max_pool2d_argmax(x, 3, 2, 1)
            results.append(
                (
                    *(y, where, y2, taps),
                    F.max_pool2d_backward(y, where, x.shape),
                    layers._max_pool2d_argmax_backward(y, taps, x.shape, 3, 2, 1),
                    F.avg_pool2d(x, 3, 2, 1),
                    F.avg_pool2d_backward(y, x.shape, 3, 2, 1),
                    F.adaptive_avg_pool2d(x, 1),
                )
            )
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    y = results[0][0]
    mean, mean_gx, total = results[0][-3:]
    for n in range(x.shape[0]):
        one = x[n : n + 1]
        np.testing.assert_array_equal(F.max_pool2d(one, 3, 2, 1), y[n : n + 1])
        np.testing.assert_array_equal(F.avg_pool2d(one, 3, 2, 1), mean[n : n + 1])
        np.testing.assert_array_equal(F.adaptive_avg_pool2d(one, 1), total[n : n + 1])
        grad = F.avg_pool2d_backward(y[n : n + 1], one.shape, 3, 2, 1)
        np.testing.assert_array_equal(grad, mean_gx[n : n + 1])
    other = np.ascontiguousarray(x) if form is channels_last else channels_last(x)
    np.testing.assert_array_equal(F.avg_pool2d(other, 3, 2, 1), mean)
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(other, 1), total)


def test_gradient_sums_to_grad_output():
    rng = np.random.default_rng(9)
    x = rng.standard_normal((2, 3, 9, 9))
    y, where = F.max_pool2d(x, 3, 1, 1, return_indices=True)
    g = rng.integers(-9, 10, y.shape).astype(np.float64)
    assert F.max_pool2d_backward(g, where, x.shape).sum() == g.sum()


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_indices_of_any_order(dtype):
    """Duplicates add up (backward) or the last one stays (unpool)."""
    rng = np.random.default_rng(10)
    for c in (1, 3, 17, 70):
        shape = (2, c, 5, 7)
        g = whole(rng, (2, c, 3, 4), dtype)
        where = rng.integers(0, 35, g.shape)
        for form in FORMATS:
            for index_form in FORMATS:
                i = index_form(where)
                np.testing.assert_array_equal(
                    F.max_pool2d_backward(form(g), i, shape), R.max_pool2d_backward(g, where, shape)
                )
                y = F.max_unpool2d(form(g), i, 2, output_size=(5, 7))
                np.testing.assert_array_equal(y, R.max_unpool2d(g, where, 2, output_size=(5, 7)))
                back = F.max_unpool2d_backward(form(y), i)
                np.testing.assert_array_equal(
                    back, R.max_unpool2d_backward(np.ascontiguousarray(y), where)
                )


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 47, 64, 66, 97])
def test_windows_of_two_columns(width, dtype):
    """Channels-first they are read as pairs of neighbours: the same bits, also of sums."""
    rng = np.random.default_rng(15)
    x = rng.standard_normal((3, 5, 7, width)).astype(dtype)
    x[rng.random(x.shape) < 0.05] = np.nan
    x[rng.random(x.shape) < 0.05] = -0.0
    for height, stride, pad in ((2, 2, 0), (3, 2, 1), (1, 1, 0)):
        arguments = (height, 2), (stride, 2), (pad, 0)
        np.testing.assert_array_equal(F.max_pool2d(x, *arguments), R.max_pool2d(x, *arguments))
        exact = R.avg_pool2d(x.astype(np.float64), *arguments)
        mean = F.avg_pool2d(x, *arguments)
        np.testing.assert_allclose(mean, exact, rtol=0, atol=8 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(mean, F.avg_pool2d(channels_last(x), *arguments))
        part = F.avg_pool2d(x[:, :, :, : width - 1], *arguments) if width > 2 else None
        if part is not None:
            np.testing.assert_array_equal(part, mean[..., : (width - 1) // 2])


# kernel, stride, padding, dilation, ceil_mode; lanes are neighbouring outputs except at edges
IN_ROWS = (
    (3, 1, 1, 1, False),
    (3, 2, 1, 1, False),
    (2, 2, 0, 1, False),
    (2, 1, ((0, 1), (1, 0)), 1, False),
    ((5, 4), (3, 2), (2, 1), 1, True),
    (4, 4, 2, 1, True),
    ((3, 4), (2, 4), (1, 0), 1, False),
    (3, 1, 1, (2, 3), False),
    (3, 4, 0, 1, False),
    (1, 2, 0, 1, False),
)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", IN_ROWS)
@pytest.mark.parametrize("width", [9, 14, 17, 31, 34, 57, 72, 131])
def test_planes_and_channels_give_the_same_bits(width, case, dtype):
    rng = np.random.default_rng(width)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0], dtype)
    for choice in (special, special[2:]):
        x = rng.standard_normal((2, 3, 11, width)).astype(dtype)
        x[rng.random(x.shape) < 0.7] = choice[0]
        x = np.where(rng.random(x.shape) < 0.8, rng.choice(choice, x.shape), x)
        results = [F.max_pool2d(f(x), *case, return_indices=True) for f in FORMATS]
        values = [F.max_pool2d(f(x), *case) for f in FORMATS]
        assert all(same_bits(y, values[0]) for y in (values[1], results[0][0], results[1][0]))
        np.testing.assert_array_equal(results[0][1], results[1][1])
        if case[3] != 1:
            continue
        kernel, stride, padding, _, ceil = case
        x = rng.standard_normal(x.shape).astype(dtype)
        for count, divisor in ((True, None), (False, None), (True, 5)):
            means = [
                F.avg_pool2d(f(x), kernel, stride, padding, ceil, count, divisor) for f in FORMATS
            ]
            assert same_bits(*means)
            g = rng.standard_normal(means[0].shape).astype(dtype)
            assert same_bits(
                *(
                    F.avg_pool2d_backward(
                        f(g), x.shape, kernel, stride, padding, ceil, count, divisor
                    )
                    for f in FORMATS
                )
            )


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("channels", [1, 3, 66])
def test_indices_all_over_large_planes(channels):
    """Planes are cleared piece by piece ahead of the greatest index seen."""
    rng = np.random.default_rng(14)
    shape = (2, channels, 61, 53)
    g = whole(rng, (2, channels, 9, 7), np.float32)
    ascending = np.sort(rng.integers(0, 61 * 53, (2, channels, 63)), axis=2)
    far = np.full(ascending.shape, 61 * 53 - 1)
    for where in (ascending, ascending[..., ::-1], far, far * 0):
        where = where.reshape(g.shape)
        expected = R.max_pool2d_backward(g, where, shape)
        for form in FORMATS:
            result = F.max_pool2d_backward(form(g), form(where), shape)
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    "shape", [(1, 16, 4, 1), (2, 16, 1, 4), (1, 1, 4, 1), (3, 5, 1, 1)], ids=str
)
def test_axes_of_one_element(shape):
    """NumPy hands out arbitrary strides for them."""
    x = np.random.default_rng(13).standard_normal(shape)
    kernel = tuple(min(2, size) for size in shape[2:])
    expected, where = R.max_pool2d(x, kernel, 1, return_indices=True)
    grad = R.max_pool2d_backward(expected, where, shape)
    up = R.max_unpool2d(expected, where, kernel, 1)
    for form in FORMATS:
        y, indices = F.max_pool2d(form(x), kernel, 1, return_indices=True)
        np.testing.assert_array_equal(indices, where)
        np.testing.assert_array_equal(F.max_pool2d_backward(y, indices, shape), grad)
        np.testing.assert_array_equal(F.max_unpool2d(y, indices, kernel, 1), up)
        np.testing.assert_array_equal(F.max_unpool2d_backward(form(x), indices), expected)
        record = layers._max_pool2d_argmax(form(x), kernel, 1)[1]
        again = layers._max_pool2d_argmax_backward(y, record, shape, kernel, 1)
        np.testing.assert_array_equal(again, grad)
        mean = F.avg_pool2d(form(x), kernel, 1)
        np.testing.assert_allclose(mean, R.avg_pool2d(x, kernel, 1), atol=1e-15)


def test_unpool_out_and_strided_gradient():
    rng = np.random.default_rng(11)
    x = rng.standard_normal((2, 3, 8, 6))
    y, where = F.max_pool2d(x, 2, return_indices=True)
    out = np.full(x.shape, np.nan)
    assert F.max_unpool2d(y, where, 2, out=out) is out
    np.testing.assert_array_equal(out, np.where(F.max_unpool2d(y, where, 2) != 0, x, 0))
    expected = F.max_unpool2d_backward(x, where)
    np.testing.assert_array_equal(expected, y)
    for name, g in variants(x):
        np.testing.assert_array_equal(F.max_unpool2d_backward(g, where), expected, err_msg=name)
    signal, where = F.max_pool1d(x[:, :, 0], 2, return_indices=True)
    up = F.max_unpool1d(signal, where, 2)
    np.testing.assert_array_equal(F.max_unpool1d_backward(up, where), signal)


@pytest.mark.parametrize("index", [-1, 30, 2**31, 2**32 + 1, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("form", FORMATS)
def test_index_outside_its_plane(index, form):
    g = form(np.ones((2, 17, 3, 3), np.float32))
    where = form(np.zeros(g.shape, np.int64))
    where[1, 16, 2, 1] = index
    for call in (
        lambda: F.max_pool2d_backward(g, where, (2, 17, 5, 6)),
        lambda: F.adaptive_max_pool2d_backward(g, where, (2, 17, 5, 6)),
        lambda: F.max_unpool2d(g, where, 2, output_size=(5, 6)),
        lambda: F.max_unpool2d_backward(form(np.ones((2, 17, 5, 6), np.float32)), where),
    ):
        with pytest.raises(ValueError, match=r"indices must lie in 0\.\.29"):
            call()


def test_taps_are_not_trusted():
    """A record of other windows may give a wrong gradient, but touches nothing else."""
    g = np.ones((1, 4, 3, 3), np.float32)
    taps = np.full((1, 3, 3, 4), 255, np.uint8)
    grad = layers._max_pool2d_argmax_backward(g, taps, (1, 4, 6, 6), 2)
    np.testing.assert_array_equal(grad, np.zeros((1, 4, 6, 6)))
    with pytest.raises(ValueError, match="argmax must be"):
        layers._max_pool2d_argmax_backward(g, taps[:, :2], (1, 4, 6, 6), 2)


def test_windows_of_more_than_255_elements_keep_indices():
    x = np.random.default_rng(12).standard_normal((1, 2, 20, 20)).astype(np.float32)
    y, record = layers._max_pool2d_argmax(x, 16)
    assert record.dtype == np.int64
    grad = layers._max_pool2d_argmax_backward(y, record, x.shape, 16)
    np.testing.assert_array_equal(grad, F.max_pool2d_backward(y, record, x.shape))
    assert layers._max_pool2d_argmax(x, (15, 17))[1].dtype == np.uint8


MESSAGES = {
    "padding": (lambda x: F.max_pool2d(x, 3, 2, 2), ValueError, "half of the window"),
    "padding word": (lambda x: F.max_pool2d(x, 3, 2, "full"), ValueError, "'same_lower'"),
    "negative": (lambda x: F.max_pool2d(x, 2, padding=-1), ValueError, "at least 0"),
    "kernel 0": (lambda x: F.avg_pool2d(x, 0), ValueError, "at least 1"),
    "stride 0": (lambda x: F.avg_pool2d(x, 2, 0), ValueError, "at least 1"),
    "float kernel": (lambda x: F.avg_pool2d(x, 2.0), TypeError, "float"),
    "bool kernel": (lambda x: F.max_pool2d(x, True), TypeError, "bool"),
    "too large": (lambda x: F.max_pool2d(x, 9), ValueError, "does not fit"),
    "huge": (lambda x: F.max_pool2d(x, 2**63), ValueError, "at most"),
    "huge dilation": (lambda x: F.max_pool2d(x, 2, 1, 0, 2**31 - 1), ValueError, "does not fit"),
    "misses": (
        lambda x: F.max_pool2d(x[:, :, :1], (2, 1), 1, (3, 0), (5, 1)),
        ValueError,
        "holds no input",
    ),
    "divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=0), ValueError, "at least 1"),
    "rank": (lambda x: F.max_pool2d(x[0, 0], 2), ValueError, "must have shape"),
    "rank 1d": (lambda x: F.max_pool1d(x, 2), ValueError, "must have shape"),
    "integers": (lambda x: F.max_pool2d(x.astype(np.int32), 2), TypeError, "float32 or float64"),
    "list": (lambda x: F.max_pool2d(x.tolist(), 2), TypeError, "numpy.ndarray"),
    "out shape": (lambda x: F.max_pool2d(x, 2, out=np.empty((1, 2, 3, 2))), ValueError, "out must"),
    "out dtype": (
        lambda x: F.max_pool2d(x, 2, out=np.empty((1, 2, 2, 2), np.float32)),
        TypeError,
        "out must",
    ),
    "out overlaps": (lambda x: F.max_pool2d(x, 1, out=x), ValueError, "shares memory"),
    "empty plane": (lambda x: F.max_pool2d(x[:, :, :0], 2), ValueError, "at least 1"),
    "indices dtype": (
        lambda x: F.max_pool2d_backward(x, np.zeros(x.shape, np.int32), x.shape),
        TypeError,
        "int64",
    ),
    "indices shape": (
        lambda x: F.max_pool2d_backward(x, np.zeros(3, np.int64), x.shape),
        ValueError,
        "indices must have shape",
    ),
    "input_shape": (
        lambda x: F.avg_pool2d_backward(x, (1, 3, 8, 8), 2),
        ValueError,
        "batch and channels",
    ),
    "spatial sizes": (
        lambda x: F.avg_pool2d_backward(x, (1, 2, 11, 8), 2),
        ValueError,
        r"spatial sizes \(5, 4\)",
    ),
    "output size": (lambda x: F.adaptive_avg_pool2d(x, 0), ValueError, "at least 1"),
    "output sizes": (lambda x: F.adaptive_avg_pool2d(x, (1, 2, 3)), ValueError, "2 ints"),
    "unpool size": (
        lambda x: F.max_unpool2d(x, np.zeros(x.shape, np.int64), 2, output_size=(20, 8)),
        ValueError,
        "between 6 and 10",
    ),
    "absurd": (lambda x: F.adaptive_avg_pool2d(x, 2**31 - 1), MemoryError, "bytes|allocate"),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages(case):
    call, error, text = MESSAGES[case]
    x = np.arange(32.0).reshape(1, 2, 4, 4)
    with pytest.raises(error, match=text):
        call(x)
