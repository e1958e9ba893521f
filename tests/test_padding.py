"""pad and its gradient: against the reference, numpy.pad and torch, every mode, any memory."""

import numpy as np
import pytest
from array_variants import is_channels_last, variants

import fastconv.functional as F
import fastconv.reference as R

MODES = ("constant", "reflect", "replicate", "circular", "symmetric")
NUMPY_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
NUMPY_MODES |= {"circular": "wrap", "symmetric": "symmetric"}


def most(mode, size):
    """The largest pad of an axis of `size`."""
    return {"reflect": size - 1, "symmetric": size, "circular": size}.get(mode, size + 3)


def cases(seed=0):
    rng = np.random.default_rng(seed)
    for mode in MODES:
        for shape in [(7,), (3, 4), (2, 3, 5), (2, 3, 4, 5), (1, 2, 1, 3, 4)]:
            for axes in range(len(shape) + 1):
                pad = []
                for k in range(axes):
                    pad += rng.integers(0, most(mode, shape[-1 - k]) + 1, 2).tolist()
                yield mode, shape, tuple(pad)


@pytest.mark.parametrize(("mode", "shape", "pad"), list(cases()))
def test_against_reference_and_numpy(mode, shape, pad):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape)
    y = F.pad(x, pad, mode, 0.5)
    np.testing.assert_array_equal(y, R.pad(x, pad, mode, 0.5))
    pairs = [(0, 0)] * len(shape)
    for k in range(len(pad) // 2):
        pairs[-1 - k] = pad[2 * k : 2 * k + 2]
    fill = {"constant_values": 0.5} if mode == "constant" else {}
    np.testing.assert_array_equal(y, np.pad(x, pairs, NUMPY_MODES[mode], **fill))
    g = rng.integers(-4, 5, y.shape).astype(np.float64)  # small integers: sums are exact
    grad = F.pad_backward(g, shape, pad, mode)
    np.testing.assert_array_equal(grad, R.pad_backward(g, shape, pad, mode))


@pytest.mark.parametrize(("mode", "shape", "pad"), list(cases(2)))
def test_backward_is_the_adjoint(mode, shape, pad):
    rng = np.random.default_rng(3)
    x = rng.integers(-4, 5, shape).astype(np.float32)
    y = F.pad(x, pad, mode)
    g = rng.integers(-4, 5, y.shape).astype(np.float32)
    grad = F.pad_backward(g, shape, pad, mode)
    assert grad.dtype == np.float32
    assert np.vdot(g, y) == np.vdot(grad, x)


@pytest.mark.parametrize(
    "pad", [(-1, 2), (-2, -3), (3, -5), (-5, 0), (1, -1, -2, 2), (-1, 0, 0, -4)]
)
def test_negative_entries_crop(pad):
    x = np.arange(20.0).reshape(4, 5)
    grown = F.pad(x, tuple(max(p, 0) for p in pad), value=7.0)
    cropped = list(pad) + [0] * (4 - len(pad))
    low = [max(-p, 0) for p in cropped]
    expected = grown[low[2] : grown.shape[0] - low[3], low[0] : grown.shape[1] - low[1]]
    y = F.pad(x, pad, value=7.0)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(R.pad(x, pad, value=7.0), expected)
    g = np.arange(1.0, y.size + 1).reshape(y.shape)
    grad = F.pad_backward(g, x.shape, pad)
    np.testing.assert_array_equal(R.pad_backward(g, x.shape, pad), grad)
    with pytest.raises(ValueError, match="crops more"):
        R.pad(x, (-6, 1))
    assert np.vdot(F.pad(x, pad), g) == np.vdot(x, grad)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_memory(mode, dtype):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 3, 4, 5)).astype(dtype)
    pad = (2, 1, 3, 2)
    y = F.pad(x, pad, mode)
    g = rng.standard_normal(y.shape).astype(dtype)
    grad = F.pad_backward(g, x.shape, pad, mode)
    for name, other in variants(x):
        before = other.copy()
        np.testing.assert_array_equal(F.pad(other, pad, mode), y, err_msg=name)
        np.testing.assert_array_equal(other, before)
    for name, other in variants(g):
        result = F.pad_backward(other, x.shape, pad, mode)
        np.testing.assert_array_equal(result, grad, err_msg=name)
    ones = np.broadcast_to(dtype(1), y.shape)
    np.testing.assert_array_equal(
        F.pad_backward(ones, x.shape, pad, mode), F.pad_backward(ones.copy(), x.shape, pad, mode)
    )


@pytest.mark.parametrize("mode", MODES)
def test_memory_format_follows_the_input(mode):
    x = np.zeros((2, 5, 6, 3), np.float32).transpose(0, 3, 1, 2)
    y = F.pad(x, (1, 2, 2, 1), mode)
    assert is_channels_last(y)
    assert is_channels_last(F.pad_backward(y, x.shape, (1, 2, 2, 1), mode))
    assert is_channels_last(F.pad(x[:, :, 1:4, 1:], (1, 1), mode))  # also of a part
    assert F.pad(np.ascontiguousarray(x), (1, 1), mode).flags.c_contiguous
    signal = np.zeros((2, 9, 3)).transpose(0, 2, 1)
    assert is_channels_last(F.pad(signal, (1, 2), mode))


def test_out():
    x = np.arange(6.0).reshape(2, 3)
    out = np.full((9, 4), np.nan).T
    assert F.pad(x, (3, 3, 1, 1), value=2.0, out=out) is out
    np.testing.assert_array_equal(out, F.pad(x, (3, 3, 1, 1), value=2.0))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16])
def test_other_dtypes(dtype):
    x = np.array([[1, 0], [0, 1]], dtype)
    for mode in MODES:
        y = F.pad(x, (1, 1), mode, 1)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, R.pad(x, (1, 1), mode, 1))


def test_empty():
    assert F.pad(np.zeros((0, 2, 3)), (1, 1)).shape == (0, 2, 5)
    assert F.pad_backward(np.zeros((0, 2, 5)), (0, 2, 3), (1, 1)).shape == (0, 2, 3)
    np.testing.assert_array_equal(F.pad(np.zeros((1, 0)), (1, 2), value=3.0), [[3.0, 3.0, 3.0]])
    assert F.pad_backward(np.zeros((1, 3)), (1, 0), (1, 2)).shape == (1, 0)


def test_nan_and_infinity_stay_where_they_are():
    x = np.array([1.0, np.nan, np.inf, 2.0])
    np.testing.assert_array_equal(F.pad(x, (1, 1)), [0, 1, np.nan, np.inf, 2, 0])
    np.testing.assert_array_equal(F.pad(x, (1, 1), value=np.nan)[[0, -1]], [np.nan, np.nan])


TORCH = [
    ("constant", (2, 3, 4, 5), (1, 2, 3, 0)),
    ("constant", (4, 5), (-1, 2, 1, -2)),
    ("reflect", (2, 3, 4, 5), (4, 2, 1, 3)),
    ("replicate", (2, 3, 4, 5), (6, 2, 1, 7)),
    ("circular", (2, 3, 4, 5), (5, 2, 4, 1)),
    ("reflect", (2, 3, 5), (4, 1)),
    ("replicate", (2, 3, 2, 3, 4), (1, 2, 3, 1, 2, 2)),
]


@pytest.mark.parametrize(("mode", "shape", "pad"), TORCH)
def test_against_torch(mode, shape, pad):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    x = rng.integers(-9, 10, shape).astype(np.float64)
    t = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.pad(t, pad, mode)
    np.testing.assert_array_equal(F.pad(x, pad, mode), expected.detach().numpy())
    g = rng.integers(-9, 10, expected.shape).astype(np.float64)
    expected.backward(torch.tensor(g))
    np.testing.assert_array_equal(F.pad_backward(g, shape, pad, mode), t.grad.numpy())
