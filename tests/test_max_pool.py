"""Max pooling against the reference, for every instruction set: ties, NaN, gradients."""

import numpy as np
import pytest
from helpers import DTYPES
from pool_windows import FORMATS, WINDOWS, same_bits, whole

import fastconv.functional as F
from fastconv import reference as R
from fastconv.functional import pool as layers


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


def test_gradient_sums_to_grad_output():
    rng = np.random.default_rng(9)
    x = rng.standard_normal((2, 3, 9, 9))
    y, where = F.max_pool2d(x, 3, 1, 1, return_indices=True)
    g = rng.integers(-9, 10, y.shape).astype(np.float64)
    assert F.max_pool2d_backward(g, where, x.shape).sum() == g.sum()


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
