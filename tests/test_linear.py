"""linear and its gradients: against the reference and torch, in any memory layout."""

import numpy as np
import pytest
from array_variants import variants

import fastconv
import fastconv.functional as F
import fastconv.reference as R

SHAPES = [(5,), (4, 5), (1, 5), (2, 3, 5), (2, 1, 3, 5), (0, 5), (2, 0, 5)]


def bound(dtype, terms):
    """Rounding of a sum of `terms` products of standard normal numbers."""
    return 8 * np.finfo(dtype).eps * max(terms, 1) ** 0.5


def arrays(shape, features=7, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    sizes = shape, (features, shape[-1]), (features,), (*shape[:-1], features)
    return [rng.standard_normal(size).astype(dtype) for size in sizes]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_reference(shape, dtype):
    x, w, b, g = arrays(shape, dtype=dtype)
    exact = [a.astype(np.float64) for a in (x, w, b, g)]
    for bias, exact_bias in ((b, exact[2]), (None, None)):
        y = F.linear(x, w, bias)
        assert y.dtype == dtype
        expected = R.linear(*exact[:2], exact_bias)
        np.testing.assert_allclose(y, expected, rtol=0, atol=8 * bound(dtype, 6))
    gradients = F.linear_backward(g, x, w)
    for grad, expected in zip(gradients, R.linear_backward(exact[3], *exact[:2]), strict=True):
        assert grad.dtype == dtype
        np.testing.assert_allclose(grad, expected, rtol=0, atol=8 * bound(dtype, 7))


def test_gradients_are_adjoint():
    rng = np.random.default_rng(1)
    x, w, g = (rng.integers(-5, 6, s).astype(np.float32) for s in ((3, 4, 5), (7, 5), (3, 4, 7)))
    gx, gw, gb = F.linear_backward(g, x, w)
    y = F.linear(x, w)
    assert np.vdot(y, g) == np.vdot(gx, x) == np.vdot(gw, w)
    np.testing.assert_array_equal(gb, g.sum(axis=(0, 1)))


def test_any_memory():
    x, w, b, g = arrays((4, 3, 5), dtype=np.float32)
    y, gradients = F.linear(x, w, b), F.linear_backward(g, x, w)
    for (name, x2), (_, w2), (_, b2), (_, g2) in zip(*map(variants, (x, w, b, g)), strict=False):
        np.testing.assert_array_equal(F.linear(x2, w2, b2), y, err_msg=name)
        for grad, expected in zip(F.linear_backward(g2, x2, w2), gradients, strict=True):
            np.testing.assert_array_equal(grad, expected, err_msg=name)


# (in_features, out_features): around vectors, panels of two vectors, chunks of 256; one output
MATRICES = [(1, 1), (5, 7), (33, 17), (100, 32), (257, 33), (513, 65), (700, 130), (1000, 1)]
ROWS = [
    1,
    2,
    3,
    7,
    8,
    9,
    13,
    14,
    15,
    29,
    57,
    255,
    256,
    257,
]  # few, tiles of 6 and 14, blocks of 256


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", MATRICES, ids=str)
def test_bits_do_not_depend_on_rows_and_threads(isa, sizes, dtype, rng):
    """Outputs and input gradients of any run of rows; all gradients for 1 to 8 threads."""
    inputs, outputs = sizes
    rows = ROWS[-1]
    shapes = (rows, inputs), (outputs, inputs), outputs, (rows, outputs)
    x, w, b, g = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    y, (gx, gw, gb) = F.linear(x, w, b), F.linear_backward(g, x, w)
    exact = R.linear(*(a.astype(np.float64) for a in (x, w, b)))
    tolerance = 8 * bound(dtype, inputs)
    np.testing.assert_allclose(y, exact, rtol=0, atol=tolerance * max(1, abs(exact).max()))
    for count in ROWS:
        first = int(rng.integers(rows - count + 1))
        part = slice(first, first + count)
        assert F.linear(x[part], w, b).tobytes() == y[part].tobytes(), count
        part_gx = F.linear_backward(g[part], x[part], w)[0]
        assert part_gx.tobytes() == gx[part].tobytes(), count
    for threads in range(1, 9):
        with fastconv.num_threads(threads):
            for count in (1, 8, rows):
                assert F.linear(x[:count], w, b).tobytes() == y[:count].tobytes(), threads
            gradients = F.linear_backward(g, x, w)
        for part, whole in zip(gradients, (gx, gw, gb), strict=True):
            assert part.tobytes() == whole.tobytes(), threads


@pytest.mark.parametrize("offset", range(0, 17, 3))
def test_rows_that_share_cache_sets(isa, offset):
    """Rows 4 KiB apart that start anywhere in a cache line: columns before the line come first."""
    rng = np.random.default_rng(offset)
    memory = rng.standard_normal(37 * 1024 + offset, dtype=np.float32)[offset:]
    w, x = memory.reshape(37, 1024), rng.standard_normal((9, 1024), dtype=np.float32)
    y = F.linear(x, w)
    np.testing.assert_allclose(y, R.linear(x.astype(float), w.astype(float)), atol=1e-3)
    for count in (1, 5, 8):
        assert F.linear(x[:count], w).tobytes() == y[:count].tobytes()


def test_no_blas(monkeypatch, rng):
    """Neither NumPy's matrix product nor its sum, whose bits depend on other libraries' threads."""

    def refuse(*args, **kwargs):
        raise AssertionError("a product of NumPy")

    x, w, b, g = arrays((3, 40), 30)
    for name in ("matmul", "dot", "einsum", "inner", "tensordot"):
        monkeypatch.setattr(np, name, refuse)
    F.linear(x, w, b)
    F.linear_backward(g, x, w)


def test_special_values(isa):
    """NaN and infinity reach the outputs of their row or column, and no others."""
    for rows in (3, 20):
        x, w = np.ones((rows, 300), np.float32), np.ones((40, 300), np.float32)
        x[1, 7], w[5, 299] = np.nan, np.inf
        y = F.linear(x, w)
        expected = np.full((rows, 40), 300, np.float32)
        expected[:, 5], expected[1] = np.inf, np.nan
        np.testing.assert_array_equal(y, expected)


def test_inputs_are_not_written_to():
    originals = arrays((4, 5))
    copies = [a.copy() for a in originals]
    x, w, b, g = originals
    F.linear(x, w, b)
    F.linear_backward(g, x, w)
    for original, copy in zip(originals, copies, strict=True):
        np.testing.assert_array_equal(original, copy)


def test_out():
    x, w, b, _ = arrays((2, 3, 5))
    for out in (np.full((2, 3, 7), np.nan), np.full((7, 3, 2), np.nan).T):
        assert F.linear(x, w, b, out=out) is out
        np.testing.assert_array_equal(out, F.linear(x, w, b))


def test_no_features():
    w, b = np.zeros((2, 0)), np.array([1.0, 2.0])
    np.testing.assert_array_equal(F.linear(np.zeros((3, 0)), w, b), [b] * 3)
    assert F.linear(np.zeros((3, 4)), np.zeros((0, 4))).shape == (3, 0)


@pytest.mark.parametrize("shape", SHAPES[:5])
def test_against_torch(shape):
    torch = pytest.importorskip("torch")
    x, w, b, g = arrays(shape)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    y = torch.nn.functional.linear(*tensors)
    y.backward(torch.tensor(g))
    np.testing.assert_allclose(F.linear(x, w, b), y.detach().numpy(), atol=8 * bound(float, 6))
    for grad, tensor in zip(F.linear_backward(g, x, w), tensors, strict=True):
        np.testing.assert_allclose(grad, tensor.grad.numpy(), atol=8 * bound(float, 7))
