"""Batch normalisation against the reference, for every instruction set."""

import numpy as np
import pytest
from array_variants import is_channels_last, variants

import fastconv
import fastconv.functional as F
from fastconv import reference as R
from fastconv.functional import norm as layers

DTYPES = (np.float32, np.float64)
SHAPES = [
    *[(3, c, 5, 4) for c in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65)],
    (4, 3),
    (300, 17),
    (2, 5, 7),
    (1, 3, 600),  # more than a chunk of one image
    (2, 33, 40, 41),  # more than a task
    (3, 9, 7, 7),  # planes end within four vectors
    (9, 17, 33, 35),  # parts of a plane, and of the chunks
    (1100, 9, 1, 1),  # images of one pixel are pixels of one image
    (70, 5, 3, 3),  # chunks that hold several images
    (2, 4, 3, 4, 5),
    (2, 3, 5, 1),
]


@pytest.fixture(params=fastconv.isas())
def isa(request):
    with fastconv.use_isa(request.param):
        yield request.param


def channels_last(x):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


FORMATS = (np.ascontiguousarray, channels_last)


def eps(dtype):
    return float(np.finfo(dtype).eps)


def data(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    c = shape[1]
    x = rng.standard_normal(shape) * 2 + rng.standard_normal((c,) + (1,) * (len(shape) - 2))
    arrays = [x, rng.standard_normal(shape), *rng.standard_normal((3, c)), rng.random(c) + 0.5]
    return [a.astype(dtype) for a in arrays]  # x, g, weight, bias, mean, var


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_backward(shape, dtype, training):
    x, g, weight, bias, mean, var = data(shape, dtype)
    exact = [a.astype(np.float64) for a in (mean, var, weight, bias)]
    expected = R.batch_norm(x.astype(np.float64), *exact, training)
    exact_running = exact[:2]
    exact = [a.astype(np.float64) for a in (mean, var, weight, bias)]
    exact_grads = R.batch_norm_backward(
        g.astype(np.float64), x.astype(np.float64), *exact, training
    )
    values = x.size // shape[1]
    tolerance = 32 * eps(dtype)
    first = None
    for form in FORMATS:
        running = mean.copy(), var.copy()
        out = form(np.full(shape, np.nan, dtype))
        assert F.batch_norm(form(x), *running, weight, bias, training, out=out) is out
        np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)
        for a, b in zip(running, exact_running, strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
        grads = F.batch_norm_backward(form(g), form(x), mean, var, weight, bias, training)
        np.testing.assert_allclose(grads[0], exact_grads[0], rtol=tolerance, atol=2 * tolerance)
        for a, b in zip(grads[1:], exact_grads[1:], strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * values**0.5)
        y, saved = layers._batch_norm_saved(
            form(x), mean.copy(), var.copy(), weight, bias, training, 0.1, 1e-5
        )
        again = layers._batch_norm_saved_backward(form(g), form(x), saved, weight, bias, training)
        np.testing.assert_array_equal(y, out)
        for a, b in zip(again[:3], grads, strict=True):
            np.testing.assert_array_equal(a, b)
        mixed = F.batch_norm_backward(g, form(x), mean, var, weight, bias, training)
        results = [out, *running, *grads]
        if first is None:
            first = results
        for a, b in zip([*results, *mixed], [*first, *first[3:]], strict=True):
            np.testing.assert_array_equal(a, b)  # the same bits in both formats


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("clamp", [layers.NO_CLAMP, (0.0, np.inf)], ids=["none", "relu"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_with_constant_statistics_is_one_pass(shape, dtype, clamp):
    """Without the gradients of weight and bias there are no sums: the same bits of grad_input."""
    x, g, _, _, mean, var = data(shape, dtype)
    saved = np.stack([mean, 1 / np.sqrt(var)]).astype(np.float64)
    one, zero = np.ones_like(mean), np.zeros_like(mean)
    for form in (*FORMATS, lambda a: np.repeat(a, 2, axis=-1)[..., ::2]):
        a, b = form(g), form(x)
        alone = layers._batch_norm_saved_backward(a, b, saved, None, None, False, clamp)[0]
        for weight, bias in ((one, zero), (None, zero), (one, None)):
            grads = layers._batch_norm_saved_backward(a, b, saved, weight, bias, False, clamp)
            np.testing.assert_array_equal(grads[0], alone)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_mean_small_variance(dtype):
    """As accurate as the input lets it be, also when the first value is an outlier."""
    rng = np.random.default_rng(1)
    x = (1e4 + rng.standard_normal((4, 5, 30, 31))).astype(dtype)
    x[0, 1, 0, 0] += 300
    mean, var = np.zeros(5, dtype), np.ones(5, dtype)
    y = F.batch_norm(x, mean, var, training=True, momentum=1.0)
    exact = x.astype(np.longdouble)
    expected = (exact - exact.mean((0, 2, 3), keepdims=True)) / np.sqrt(
        exact.var((0, 2, 3), keepdims=True) + 1e-5
    )
    held = 1e4 * np.finfo(np.float64).eps  # the mean is kept in float64
    np.testing.assert_allclose(y, expected, rtol=16 * eps(dtype), atol=16 * eps(dtype) + held)
    np.testing.assert_allclose(var, exact.var((0, 2, 3), ddof=1), rtol=64 * eps(dtype) + held)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=2 * eps(dtype))
    constant = np.full((2, 3, 40, 40), dtype(0.1))
    np.testing.assert_array_equal(F.batch_norm(constant, None, None, training=True), 0 * constant)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_and_batch_splits(form, dtype):
    x, g, weight, bias, mean, var = data((5, 33, 40, 41), dtype)
    x, g = form(x), form(g)
    results = []
    for threads in (1, 2, 3):
        with fastconv.num_threads(threads):
            running = mean.copy(), var.copy()
            y = F.batch_norm(x, *running, weight, bias, True)
            grads = F.batch_norm_backward(g, x, None, None, weight, bias, True)
            results.append((y, *running, *grads))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    y = F.batch_norm(x, mean, var, weight, bias)
    gx = F.batch_norm_backward(g, x, mean, var, weight, bias)[0]
    for n in range(len(x)):
        one = slice(n, n + 1)
        np.testing.assert_array_equal(F.batch_norm(x[one], mean, var, weight, bias), y[one])
        grads = F.batch_norm_backward(g[one], x[one], mean, var, weight, bias)
        np.testing.assert_array_equal(grads[0], gx[one])


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("shape", [(3, 5, 6, 7), (4, 9, 11), (12, 5)], ids=str)
def test_memory_of_the_input_does_not_matter(shape):
    x, g, weight, bias, mean, var = data(shape, np.float32)
    expected = {}
    for training in (True, False):
        y = F.batch_norm(x, mean.copy(), var.copy(), weight, bias, training)
        grads = F.batch_norm_backward(g, x, mean, var, weight, bias, training)
        expected[training] = y, grads
        for name, a in variants(x):
            result = F.batch_norm(a, mean.copy(), var.copy(), weight, bias, training)
            np.testing.assert_array_equal(result, y, err_msg=name)
            if name == "channels-last":
                assert is_channels_last(result)
            again = F.batch_norm_backward(g, a, mean, var, weight, bias, training)
            for p, q in zip(again, grads, strict=True):
                np.testing.assert_array_equal(p, q, err_msg=name)
        for name, a in variants(g):
            again = F.batch_norm_backward(a, x, mean, var, weight, bias, training)
            for p, q in zip(again, grads, strict=True):
                np.testing.assert_array_equal(p, q, err_msg=name)
        strided = np.zeros((2 * shape[1], 4), np.float32)[::2]
        strided[:] = np.stack([mean, var, weight, bias], 1)
        result = F.batch_norm(x, *strided.T, training)
        np.testing.assert_array_equal(result, y)
        out = np.full([2 * n for n in shape], np.nan, np.float32)
        view = out[tuple(slice(None, None, 2) for _ in shape)]
        F.batch_norm(x, mean.copy(), var.copy(), weight, bias, training, out=view)
        np.testing.assert_array_equal(view, y)
        assert np.isnan(out[1::2]).all()
        inplace = x.copy()
        F.batch_norm(inplace, mean.copy(), var.copy(), weight, bias, training, out=inplace)
        np.testing.assert_array_equal(inplace, y)
    frozen = mean.copy()
    frozen.flags.writeable = False
    F.batch_norm(x, frozen, var, weight, bias)
    with pytest.raises(ValueError, match="running_mean is read-only"):
        F.batch_norm(x, frozen, var, weight, bias, True)


def test_running_statistics_in_other_memory_are_updated():
    x, _, _, _, mean, var = data((3, 5, 6, 7), np.float64)
    exact = mean.copy(), var.copy()
    R.batch_norm(x, *exact, training=True, momentum=0.3)
    rows = np.stack([mean, var, mean], 1)
    F.batch_norm(x, rows[:, 0], rows[:, 1], training=True, momentum=0.3)
    np.testing.assert_allclose(rows[:, 0], exact[0], rtol=1e-14)
    np.testing.assert_allclose(rows[:, 1], exact[1], rtol=1e-14)
    np.testing.assert_array_equal(rows[:, 2], mean)
    swapped = mean.astype(mean.dtype.newbyteorder()), var.astype(var.dtype.newbyteorder())
    F.batch_norm(x, *swapped, training=True, momentum=0.3)
    np.testing.assert_allclose(swapped[0], exact[0], rtol=1e-14)


def test_optional_arguments_and_empty_batch():
    x, g, weight, bias, mean, var = data((3, 5, 6, 7), np.float64)
    for w, b in ((None, None), (weight, None), (None, bias)):
        y = F.batch_norm(x, None, None, w, b, True)
        np.testing.assert_allclose(y, R.batch_norm(x, None, None, w, b, True), atol=1e-13)
        for training in (True, False):
            grads = F.batch_norm_backward(g, x, mean, var, w, b, training)
            exact = R.batch_norm_backward(g, x, mean, var, w, b, training)
            for p, q in zip(grads, exact, strict=True):
                assert (p is None) == (q is None)
                if p is not None:
                    np.testing.assert_allclose(p, q, atol=1e-12)
    for shape in ((0, 5, 6, 7), (0, 5), (2, 0, 3, 3), (2, 5, 0, 3)):
        z = np.empty(shape)
        c = shape[1]
        before = mean[:c].copy()
        assert F.batch_norm(z, mean[:c], var[:c], training=True).shape == shape
        np.testing.assert_array_equal(mean[:c], before)
        gx, gw, gb = F.batch_norm_backward(z, z, mean[:c], var[:c], weight[:c], bias[:c], True)
        assert gx.shape == shape
        np.testing.assert_array_equal(gw, np.zeros(c))
        np.testing.assert_array_equal(gb, np.zeros(c))


def test_nan_stays_in_its_channel():
    x, g, weight, bias, mean, var = data((3, 20, 6, 7), np.float32)
    clean = F.batch_norm(x, None, None, training=True)
    clean_grad = F.batch_norm_backward(g, x, None, None, weight, bias, True)[0]
    x[1, 3, 2, 2] = np.nan
    others = np.arange(20) != 3
    y = F.batch_norm(x, None, None, training=True)
    assert np.isnan(y[:, 3]).all()
    np.testing.assert_array_equal(y[:, others], clean[:, others])
    grad = F.batch_norm_backward(g, x, None, None, weight, bias, True)[0]
    assert np.isnan(grad[:, 3]).all()
    np.testing.assert_array_equal(grad[:, others], clean_grad[:, others])
    eval_grad = F.batch_norm_backward(g, x, mean, var, weight, bias)[0]
    assert not np.isnan(eval_grad).any()


MESSAGES = {
    "rank": (lambda x, c: F.batch_norm(x[0, :, 0, 0], c, c), ValueError, "must be"),
    "no statistics": (lambda x, c: F.batch_norm(x, None, c), ValueError, "training is False"),
    "one value": (
        lambda x, c: F.batch_norm(x[:1, :, :1, :1], c, c, training=True),
        ValueError,
        "more than 1 value",
    ),
    "channels": (lambda x, c: F.batch_norm(x, c[:2], c), ValueError, "must have shape"),
    "dtype": (lambda x, c: F.batch_norm(x, c.astype(np.float32), c), TypeError, "float32"),
    "input dtype": (lambda x, c: F.batch_norm(x.astype(np.int64), c, c), TypeError, "int64"),
    "momentum": (
        lambda x, c: F.batch_norm(x, c, c, training=True, momentum=None),
        TypeError,
        "momentum must be a number",
    ),
    "out overlaps": (lambda x, c: F.batch_norm(x[1:], c, c, out=x[:-1]), ValueError, "shares"),
    "gradient": (lambda x, c: F.batch_norm_backward(x[1:], x, c, c), ValueError, "grad_output"),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages(case):
    call, error, text = MESSAGES[case]
    with pytest.raises(error, match=text):
        call(np.ones((3, 4, 2, 2)), np.ones(4))
