"""Gradients of max pools by index, and unpooling, for every instruction set."""

import numpy as np
import pytest
from array_variants import variants
from helpers import DTYPES
from pool_windows import FORMATS, same_bits, whole

import fastconv.functional as F
from fastconv import reference as R


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
