"""convolve, correlate, convolve2d, correlate2d: against NumPy, SciPy and the reference."""

import itertools

import numpy as np
import pytest
from array_variants import variants

import fastconv
import fastconv.functional as F
import fastconv.reference as R

MODES = ("full", "same", "valid")
METHODS = ("auto", "direct", "fft")
ONE = [(1, 1), (5, 1), (1, 5), (7, 3), (3, 7), (8, 4), (4, 8), (6, 6), (5, 5), (40, 9)]
ONE += [(20_000, 7), (3000, 40), (700, 2000), (1500, 1499)]  # as matrix products, and transforms
TWO = [
    ((5, 6), (3, 3)),
    ((5, 6), (2, 4)),
    ((2, 4), (5, 6)),
    ((1, 7), (1, 3)),
    ((4, 4), (4, 4)),
    ((6, 2), (3, 5)),
    ((1, 1), (3, 2)),
    ((30, 25), (8, 9)),
    ((60, 71), (9, 4)),  # matrix products along either axis
    ((70, 30), (3, 17)),
    ((40, 40), (1, 50)),
    ((90, 5), (91, 3)),
    ((3, 3), (80, 90)),
]


def integers(shape, dtype=np.float64, seed=0):
    """Small integers: direct sums are exact."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


def bound(a, v, dtype, method):
    """Exact for direct sums of integers; eps * log2(length) * |a| * |v| for transforms."""
    if method == "direct":
        return 0
    steps = np.log2(a.size + v.size) + 1
    return 4 * np.finfo(dtype).eps * steps * np.linalg.norm(a) * np.linalg.norm(v)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_axis(method, dtype):
    for (m, n), mode in itertools.product(ONE, MODES):
        a, v = integers(m, dtype), integers(n, dtype, 1)
        for name in ("convolve", "correlate"):
            y = getattr(F, name)(a, v, mode, method=method)
            expected = getattr(np, name)(a.astype(np.float64), v.astype(np.float64), mode)
            assert y.dtype == dtype
            np.testing.assert_allclose(
                y, expected, rtol=0, atol=bound(a, v, dtype, method), err_msg=f"{name} {m, n, mode}"
            )
            np.testing.assert_array_equal(getattr(R, name)(a, v, mode), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_axes(method, dtype):
    for (m, n), mode in itertools.product(TWO, MODES):
        a, v = integers(m, dtype), integers(n, dtype, 1)
        covered = np.subtract(m, n)
        if mode == "valid" and covered.min() < 0 < covered.max():
            continue
        for name in ("convolve2d", "correlate2d"):
            y = getattr(F, name)(a, v, mode, method=method)
            expected = getattr(R, name)(a.astype(np.float64), v.astype(np.float64), mode)
            assert y.dtype == dtype
            np.testing.assert_allclose(
                y, expected, rtol=0, atol=bound(a, v, dtype, method), err_msg=f"{name} {m, n, mode}"
            )


def test_against_scipy():
    signal = pytest.importorskip("scipy.signal")
    for (m, n), mode in itertools.product(TWO, MODES):
        a, v = integers(m), integers(n, seed=1)
        covered = np.subtract(m, n)
        if mode == "valid" and covered.min() < 0 < covered.max():
            continue
        for name in ("convolve2d", "correlate2d"):
            expected = getattr(signal, name)(a, v, mode)
            y = getattr(F, name)(a, v, mode, method="direct")
            np.testing.assert_array_equal(y, expected, err_msg=f"{name} {m, n, mode}")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("batch_a", "batch_v"),
    [((3,), ()), ((), (3,)), ((3,), (3,)), ((2, 1), (1, 3)), ((2, 3), (3,)), ((1,), (1, 1))],
)
def test_batch_axes_broadcast(method, batch_a, batch_v):
    for name, sizes in itertools.product(("convolve", "correlate"), ((20, 5), (5, 20))):
        check_batch(name, (*batch_a, sizes[0]), (*batch_v, sizes[1]), 1, method)
    for name, sizes in itertools.product(("convolve2d", "correlate2d"), (((6, 5), (2, 3)),)):
        check_batch(name, (*batch_a, *sizes[0]), (*batch_v, *sizes[1]), 2, method)
        check_batch(name, (*batch_a, *sizes[1]), (*batch_v, *sizes[0]), 2, method)


@pytest.mark.parametrize("method", ["direct", "fft"])
def test_batches_of_large_items(method):
    for batch_a, batch_v in [((3,), ()), ((), (2,)), ((2, 1), (1, 2))]:
        check_batch("convolve", (*batch_a, 900), (*batch_v, 80), 1, method)
        check_batch("correlate2d", (*batch_a, 40, 30), (*batch_v, 9, 8), 2, method)


def check_batch(name, shape_a, shape_v, axes, method):
    a, v = integers(shape_a), integers(shape_v, seed=1)
    batch = np.broadcast_shapes(shape_a[:-axes], shape_v[:-axes])
    all_a = np.broadcast_to(a, (*batch, *shape_a[-axes:]))
    all_v = np.broadcast_to(v, (*batch, *shape_v[-axes:]))
    for mode in MODES:
        y = getattr(F, name)(a, v, mode, method=method)
        for item in np.ndindex(batch):
            expected = getattr(R, name)(all_a[item], all_v[item], mode)
            atol = bound(all_a[item], all_v[item], float, method)
            np.testing.assert_allclose(y[item], expected, rtol=0, atol=atol)


def test_long_signal_by_blocks():
    """Overlap-save over several blocks and several chunks of blocks."""
    a, v = integers(700_001, np.float64), integers(301, np.float64, 1)
    for mode in MODES:
        y = F.convolve(a, v, mode, method="fft")
        expected = np.convolve(a, v, mode)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-15 * np.sqrt(301) * 9**2 * 301)


def test_the_choice_of_method_is_symmetric():
    for m, n in [(50, 7), (4000, 900), (100_000, 40)]:
        a, v = np.random.default_rng(0).standard_normal(m), integers(n, seed=1)
        np.testing.assert_array_equal(F.convolve(a, v), F.convolve(v, a))


@pytest.mark.parametrize(("m", "n"), [(50, 7), (4000, 60), (4000, 3000)])
def test_bits_do_not_depend_on_batch_or_threads(m, n):
    rng = np.random.default_rng(0)
    a, v = rng.standard_normal((5, m)).astype(np.float32), rng.standard_normal(n).astype(np.float32)
    y = F.convolve(a, v)
    with fastconv.num_threads(1):
        np.testing.assert_array_equal(F.convolve(a, v), y)
    np.testing.assert_array_equal(F.convolve(a[2:3], v)[0], y[2])
    np.testing.assert_array_equal(F.convolve(a[2], v), y[2])
    a[1, 3] = np.nan  # neither on the values of another item
    np.testing.assert_array_equal(F.convolve(a, v)[[0, 2, 3, 4]], y[[0, 2, 3, 4]])


def test_dtypes():
    f32, f64 = np.ones(3, np.float32), np.ones(3)
    assert F.convolve(f32, f32).dtype == np.float32
    assert F.convolve(f32, f64).dtype == np.float64
    for other in (np.int8, np.uint64, np.bool_):
        y = F.convolve(np.ones(3, other), np.ones(2, other))
        assert y.dtype == np.float64
        np.testing.assert_array_equal(y, [1, 2, 2, 1])
    np.testing.assert_array_equal(F.convolve([1, 2, 3], [0, 1, 0.5]), [0, 1, 2.5, 4, 1.5])
    np.testing.assert_array_equal(F.convolve2d([[1, 2]], [[1], [1]]), [[1, 2], [1, 2]])


def test_nan_and_infinity_stay_where_they_belong():
    a, v = np.zeros(4000), np.ones(700)
    a[1000], a[3500] = np.nan, np.inf
    y = F.convolve(a, v)
    np.testing.assert_array_equal(np.isnan(y), [1000 <= t < 1700 for t in range(4699)])
    np.testing.assert_array_equal(np.isposinf(y), [3500 <= t < 4200 for t in range(4699)])


def test_nan_and_infinity_in_an_image():
    a, v = np.zeros((2, 60, 50)), np.ones((12, 20))
    a[1, 30, 25], a[1, 5, 5] = np.nan, -np.inf
    y = F.convolve2d(a, v)
    expected = np.zeros(y.shape)
    expected[1, 5:17, 5:25] = -np.inf
    expected[1, 30:42, 25:45] = np.nan
    np.testing.assert_array_equal(y, expected)
    w = v.copy()
    w[0, 0] = np.inf
    for a in (np.zeros((60, 50)), np.zeros((3, 2))):
        assert np.isnan(F.convolve2d(a, w)).sum() == a.size
        assert np.isnan(F.convolve2d(w, a)).sum() == a.size


@pytest.mark.parametrize("method", METHODS)
def test_any_memory(method):
    a, v = integers((2, 30, 20), np.float32), integers((2, 5, 4), np.float32, 1)
    y1, y2 = F.convolve(a, v[:, :1], method=method), F.correlate2d(a, v, method=method)
    for (name, a2), (_, v2) in zip(variants(a), variants(v), strict=True):
        before = a2.copy(), v2.copy()
        np.testing.assert_array_equal(F.convolve(a2, v2[:, :1], method=method), y1, err_msg=name)
        np.testing.assert_array_equal(F.correlate2d(a2, v2, method=method), y2, err_msg=name)
        np.testing.assert_array_equal(a2, before[0])
        np.testing.assert_array_equal(v2, before[1])


@pytest.mark.parametrize("method", METHODS)
def test_empty_batch(method):
    assert F.convolve(np.zeros((0, 5)), np.zeros(3), method=method).shape == (0, 7)
    assert F.convolve2d(np.zeros((0, 5, 4)), np.zeros((2, 2)), "same", method=method).shape == (
        (0, 5, 4)
    )
