"""Elementwise functions and softmax against the reference, for every instruction set."""

import numpy as np
import pytest
from array_variants import variants

import fastconv
import fastconv.functional as F
from fastconv import reference as R

DTYPES = (np.float32, np.float64)
EXACT = {"relu": {}, "relu6": {}, "leaky_relu": {"negative_slope": 0.1}}
SMOOTH = {"sigmoid": {}, "tanh": {}, "silu": {}, "gelu": {}, "gelu tanh": {"approximate": "tanh"}}
ALL = EXACT | SMOOTH


@pytest.fixture(params=fastconv.isas())
def isa(request):
    with fastconv.use_isa(request.param):
        yield request.param


def pair(module, case):
    name = case.split()[0]
    return getattr(module, name), getattr(module, name + "_backward")


def eps(dtype):
    return float(np.finfo(dtype).eps)


def values(dtype):
    tiny = np.finfo(dtype).tiny
    special = [0.0, -0.0, 6.0, tiny, -tiny, tiny / 8, 1e-3, -1e-3, 50, -50, 90, -90, 1e30, -1e30]
    rng = np.random.default_rng(0)
    parts = [np.linspace(-12, 12, 1001), rng.standard_normal(500) * 1e-3, special]
    return np.concatenate(parts).astype(dtype)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ALL)
def test_values_and_slopes(case, dtype):
    x = values(dtype)
    g = np.random.default_rng(1).standard_normal(x.shape).astype(dtype)
    options = ALL[case]
    (f, df), (rf, rdf) = pair(F, case), pair(R, case)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        exact = rf(x.astype(np.float64), **options)
        exact_grad = rdf(g.astype(np.float64), x.astype(np.float64), **options)
    y = np.full_like(x, np.nan)
    assert f(x, **options, out=y) is y
    factor = 0.5 if case in EXACT else 2
    np.testing.assert_allclose(y, exact, rtol=factor * eps(dtype), atol=factor * eps(dtype))
    grad = df(g, x, **options)
    factor = 1 if case in EXACT else 16  # products that cancel where a slope crosses 0
    scale = np.maximum(1, np.abs(exact_grad))
    assert np.max(np.abs(grad - exact_grad) / scale) <= factor * eps(dtype) * np.abs(g).max()


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", SMOOTH)
def test_small_values_keep_their_relative_accuracy(case, dtype):
    x = np.geomspace(1e-20, 1, 200).astype(dtype)
    x = np.concatenate([x, -x])
    exact = pair(R, case)[0](x.astype(np.float64), **ALL[case])
    np.testing.assert_allclose(pair(F, case)[0](x, **ALL[case]), exact, rtol=8 * eps(dtype), atol=0)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ALL)
def test_every_length_and_lane(case, dtype):
    """A value gives the same bits in every lane and tail; nothing around the output is written."""
    f, df = pair(F, case)
    rng = np.random.default_rng(2)
    x, g = rng.standard_normal((2, 97)).astype(dtype)
    y, grad = f(x, **ALL[case]), df(g, x, **ALL[case])
    for n in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 97):
        for start in (0, 1, 97 - n):
            part = slice(start, start + n)
            if start + n > 97:
                continue
            frame = np.full(97 + 2, np.nan, dtype)
            f(x[part], **ALL[case], out=frame[1 : n + 1])
            np.testing.assert_array_equal(frame[1 : n + 1], y[part])
            assert np.isnan(frame[0])
            assert np.isnan(frame[n + 1 :]).all()
            np.testing.assert_array_equal(df(g[part], x[part], **ALL[case]), grad[part])


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ALL)
def test_nan_and_infinity(case, dtype):
    f, df = pair(F, case)
    x = np.zeros(37, dtype)
    x[::5] = np.nan
    y, grad = f(x, **ALL[case]), df(np.ones_like(x), x, **ALL[case])
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    if case in SMOOTH:
        np.testing.assert_array_equal(np.isnan(grad), np.isnan(x))
    ends = np.array([np.inf, -np.inf], dtype)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(
            f(ends, **ALL[case]), pair(R, case)[0](ends.astype(np.float64), **ALL[case])
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_kinks(dtype):
    x = np.array([-1, -0.0, 0, 1, 6, 7], dtype)
    g = np.full(6, 3, dtype)
    np.testing.assert_array_equal(F.relu_backward(g, x), [0, 0, 0, 3, 3, 3])
    np.testing.assert_array_equal(F.relu6_backward(g, x), [0, 0, 0, 3, 0, 0])
    np.testing.assert_array_equal(F.leaky_relu_backward(g, x, 2.0), [6, 6, 6, 3, 3, 3])
    np.testing.assert_array_equal(F.relu_backward(g, F.relu(x)), F.relu_backward(g, x))
    nan = np.full(6, np.nan, dtype)
    np.testing.assert_array_equal(F.relu_backward(nan, x), [0, 0, 0, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("case", ["relu", "gelu"])
def test_memory_of_the_input_does_not_matter(case):
    f, df = pair(F, case)
    rng = np.random.default_rng(3)
    x, g = rng.standard_normal((2, 3, 5, 4, 7)).astype(np.float32)
    y, grad = f(x), df(g, x)
    for name, a in variants(x):
        np.testing.assert_array_equal(f(a), y, err_msg=name)
        np.testing.assert_array_equal(df(g, a), grad, err_msg=name)
        for out in (
            np.empty_like(x),
            np.asfortranarray(x),
            np.empty((3, 5, 4, 14), "f4")[..., ::2],
        ):
            assert f(a, out=out) is out
            np.testing.assert_array_equal(out, y, err_msg=name)
    for name, a in variants(g):
        np.testing.assert_array_equal(df(a, x), grad, err_msg=name)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    assert f(last).strides == df(g, last).strides == last.strides
    for a in (x.copy(), np.asfortranarray(x), x.copy()[:, ::2], last.copy(order="K")):
        expected = f(a.copy())
        assert f(a, out=a) is a
        np.testing.assert_array_equal(a, expected)
    shifted = x.ravel().copy()
    expected = f(shifted[:-1].copy())
    f(shifted[:-1], out=shifted[1:])
    np.testing.assert_array_equal(shifted[1:], expected)
    for shape in ((), (0,), (3, 0, 2)):
        z = np.zeros(shape)
        assert f(z).shape == df(z, z).shape == shape


def test_threads_do_not_change_bits():
    x = np.random.default_rng(4).standard_normal(300_001).astype(np.float32)
    for case in ALL:
        f, df = pair(F, case)
        with fastconv.num_threads(1):
            y, grad = f(x, **ALL[case]), df(x, x, **ALL[case])
        with fastconv.num_threads(3):
            np.testing.assert_array_equal(f(x, **ALL[case]), y)
            np.testing.assert_array_equal(df(x, x, **ALL[case]), grad)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name, dtype):
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((3, 5, 4)) * 5).astype(dtype)
    x[0, 0] = 1000  # no overflow
    x[0, 1, 1] = -np.inf
    g = rng.standard_normal(x.shape).astype(dtype)
    f, df = pair(F, name)
    rf, rdf = pair(R, name)
    exact_x, exact_g = x.astype(np.float64), g.astype(np.float64)
    for dim in (-1, 0, 1, 2, -3):
        with np.errstate(invalid="ignore"):
            exact, exact_grad = rf(exact_x, dim), rdf(exact_g, exact_x, dim)
        for _, a in (("plain", x), *variants(x)):
            y = np.full_like(x, np.nan)
            assert f(a, dim, out=y) is y
            np.testing.assert_allclose(y, exact, rtol=64 * eps(dtype), atol=8 * eps(dtype))
            grad = df(g, a, dim)
            np.testing.assert_allclose(grad, exact_grad, rtol=64 * eps(dtype), atol=64 * eps(dtype))
            assert grad.dtype == f(a, dim).dtype == dtype
    own = x.copy()
    np.testing.assert_array_equal(f(own, 1, out=own), f(x, 1))
    np.testing.assert_array_equal(f(x[0]), f(x[0], 1))
    np.testing.assert_array_equal(f(x[1, 0]), f(x[1, 0], 0))
    assert f(np.empty((0, 3), dtype), 1).shape == (0, 3)
    assert f(np.empty((3, 0), dtype), 1).shape == (3, 0)
    assert np.isnan(f(np.full((1, 3), -np.inf, dtype), 1)).all()


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_of_softmax_do_not_depend_on_the_layout(dtype, axis, rng):
    """Sums of up to 1000 terms, which NumPy adds in the order of the memory."""
    x, g = (rng.standard_normal((7, 300, 1000)[1 - (axis == 0) :]).astype(dtype) for _ in "xg")

    def results(x, g):
        calls = F.softmax(x, axis), F.log_softmax(x, axis)
        return *calls, F.softmax_backward(g, x, axis), F.log_softmax_backward(g, x, axis)

    expected = [y.tobytes() for y in results(x, g)]
    for (name, x2), (_, g2) in zip(variants(x), variants(g), strict=True):
        assert [y.tobytes() for y in results(x2, g2)] == expected, name
