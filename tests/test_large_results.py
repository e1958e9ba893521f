"""Large results are written past the caches: to the bits of the smaller parts."""

import numpy as np
import pytest

import fastconv
import fastconv.functional as F
from fastconv.functional import norm, pool
from fastconv.functional._memory import new_array, new_like

# A call that touches more than 28 MiB writes past a cache of 32. Four arrays of one image (5.8 MiB
# of float32 each) do not; all images (23 MiB) and a quarter of them do. Planes end within a line.
N, C, SIDE = 4, 48, 178
RELU = (0.0, np.inf)


def channels_last(x):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


@pytest.fixture(params=fastconv.isas())
def isa(request):
    with fastconv.use_isa(request.param):
        yield request.param


@pytest.fixture(params=[np.ascontiguousarray, channels_last], ids=["first", "last"])
def arrays(request):
    rng = np.random.default_rng(0)
    return [request.param(rng.standard_normal((N, C, SIDE, SIDE), dtype=np.float32)) for _ in "xgr"]


def by_image(function, *arrays):
    """Rows of results, computed image by image."""
    return np.concatenate([function(*(a[n : n + 1] for a in arrays)) for n in range(N)])


@pytest.mark.usefixtures("isa")
def test_activations(arrays):
    x, g, _ = arrays
    assert x.nbytes * 5 // 4 > 28 << 20 > x[:1].nbytes * 4
    np.testing.assert_array_equal(F.relu(x), by_image(F.relu, x))
    np.testing.assert_array_equal(F.relu_backward(g, x), by_image(F.relu_backward, g, x))
    out = np.empty(x.size + 16, np.float32)[1 : x.size + 1].reshape(x.shape)  # not aligned
    np.testing.assert_array_equal(F.relu(x, out=out), F.relu(x))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("added", [False, True])
def test_norms(arrays, added):
    x, g, r = arrays
    rng = np.random.default_rng(1)
    statistics = [rng.random(C).astype(np.float32) + 0.5 for _ in range(2)]
    weight, bias = rng.standard_normal((2, C)).astype(np.float32)

    def forward(x, r):
        options = weight, bias, False, 0.1, 1e-5, RELU, r if added else None
        return norm._batch_norm_saved(x, *statistics, *options)

    y, saved = forward(x, r)
    np.testing.assert_array_equal(y, by_image(lambda x, r: forward(x, r)[0], x, r))

    def backward(which):
        def function(g, x, y):
            options = saved, weight, bias, False, RELU, y if added else None
            return norm._batch_norm_saved_backward(g, x, *options)[which]

        return function

    for which in (0, 3):
        results = backward(which)(g, x, y)
        np.testing.assert_array_equal(results, by_image(backward(which), g, x, y))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 1), (3, 1, 1)], ids=str)
def test_pools(arrays, window):
    x, _, _ = arrays
    kernel, stride, padding = window
    y, taps = pool._max_pool2d_argmax(x, *window)
    np.testing.assert_array_equal(y, by_image(lambda x: F.max_pool2d(x, *window), x))
    g = np.random.default_rng(2).standard_normal(y.shape, dtype=np.float32)
    g = channels_last(g) if x.strides[1] == 4 else g
    grad = pool._max_pool2d_argmax_backward(g, taps, x.shape, *window)

    def separately(x, g):
        taps = pool._max_pool2d_argmax(x, *window)[1]
        return pool._max_pool2d_argmax_backward(g, taps, x.shape, *window)

    np.testing.assert_array_equal(grad, by_image(separately, x, g))
    mean = F.avg_pool2d(x, kernel, stride, padding)
    np.testing.assert_array_equal(mean, by_image(lambda x: F.avg_pool2d(x, *window), x))
    grad = F.avg_pool2d_backward(g, x.shape, *window)
    one = (1, *x.shape[1:])
    np.testing.assert_array_equal(
        grad, by_image(lambda g: F.avg_pool2d_backward(g, one, *window), g)
    )


def test_large_arrays_are_aligned():
    for shape in ((1 << 20,), (3, 7, 333, 101)):
        array = new_array(shape, np.dtype(np.float32))
        assert array.shape == shape
        assert array.ctypes.data % 64 == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable
    x = np.empty((5, 300, 200, 2), np.float32).transpose(0, 3, 1, 2)
    assert new_like(x).strides == x.strides
    assert new_like(x[::-1]).strides == x.strides
    with pytest.raises(MemoryError):
        new_array((1 << 45,), np.dtype(np.float64))
