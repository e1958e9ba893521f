"""What holds for max and average pools alike: formats, memory, threads, messages."""

import numpy as np
import pytest
from array_variants import is_channels_last, variants
from helpers import DTYPES, eps
from pool_windows import FORMATS, channels_last, same_bits

import fastconv
import fastconv.functional as F
from fastconv import reference as R
from fastconv.functional import pool as layers

LANES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65)  # channels around the widths of vectors


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
