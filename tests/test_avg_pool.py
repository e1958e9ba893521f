"""Average pooling against the reference, for every instruction set."""

import numpy as np
import pytest
from helpers import DTYPES, eps
from pool_windows import AVERAGED, FORMATS, channels_last, same_bits

import fastconv.functional as F
from fastconv import reference as R


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
