"""The reference is the specification: the corner cases of its semantics, each written out."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np
import pytest

import fastconv.reference as R

EPS = np.finfo(np.float64).eps


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- padding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4, 5, 7, 8])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_gives_ceil(size: int, kernel: int, stride: int, dilation: int) -> None:
    x, w = rng().normal(size=(1, size)), rng().normal(size=(1, 1, kernel))
    for mode in ("same", "same_lower"):
        assert R.conv1d(x, w, None, stride, mode, dilation).shape[1] == -(-size // stride)
    if dilation == 1:
        assert R.max_pool1d(x, kernel, stride, "same").shape[1] == -(-size // stride)
        assert R.avg_pool1d(x, kernel, stride, "same", True).shape[1] == -(-size // stride)


def test_odd_pixel_goes_to_the_end() -> None:
    x, w = np.array([[1.0, 2.0, 3.0]]), np.array([[[1.0, 10.0]]])
    np.testing.assert_array_equal(R.conv1d(x, w, padding="same"), [[21, 32, 3]])
    np.testing.assert_array_equal(R.conv1d(x, w, padding="same_lower"), [[10, 21, 32]])
    np.testing.assert_array_equal(R.conv1d(x, w, padding="full"), [[10, 21, 32, 3]])
    np.testing.assert_array_equal(R.conv1d(x, w, padding="valid"), [[21, 32]])
    np.testing.assert_array_equal(R.conv1d(x, w, padding=((2, 0),)), [[0, 10, 21, 32]])


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_causal_sees_no_future(stride: int, dilation: int) -> None:
    x, w = rng(6).normal(size=(1, 11)), rng(7).normal(size=(1, 1, 3))
    y = R.conv1d(x, w, None, stride, "causal", dilation)
    assert y.shape[1] == -(-11 // stride)
    for t in range(y.shape[1]):
        future = x.copy()
        future[:, t * stride + 1 :] += 1
        np.testing.assert_array_equal(
            R.conv1d(future, w, None, stride, "causal", dilation)[:, : t + 1], y[:, : t + 1]
        )
    with pytest.raises(ValueError, match="conv2d: padding must be numbers or one of"):
        R.conv2d(x[np.newaxis], w[np.newaxis], padding="causal")


def test_zero_padding_is_skipped() -> None:
    w = np.array([[[np.inf, 1.0, np.inf]]])
    np.testing.assert_array_equal(R.conv1d(np.array([[2.0]]), w, padding=1), [[2.0]])


@pytest.mark.parametrize(
    ("mode", "numpy_mode"),
    [
        ("constant", "constant"),
        ("reflect", "reflect"),
        ("symmetric", "symmetric"),
        ("replicate", "edge"),
        ("circular", "wrap"),
    ],
)
def test_pad_modes(mode: str, numpy_mode: str) -> None:
    x = rng(8).normal(size=(2, 4, 5))
    want = np.pad(x, [(0, 0), (3, 2), (1, 4)], numpy_mode)
    np.testing.assert_array_equal(R.pad(x, (1, 4, 3, 2), mode), want)
    w = rng(9).normal(size=(3, 2, 2, 3))
    padding = ((3, 2), (1, 4))
    got = R.conv2d(x, w, padding=padding, padding_mode="zeros" if mode == "constant" else mode)
    np.testing.assert_allclose(got, R.conv2d(want, w), rtol=0, atol=50 * EPS)


def test_pad_limits() -> None:
    x = np.arange(3.0)
    for mode, most in (("reflect", 2), ("symmetric", 3), ("circular", 3), ("replicate", 9)):
        assert R.pad(x, (most, most), mode).shape == (3 + 2 * most,)
        if mode != "replicate":
            with pytest.raises(ValueError, match=rf"pad: pad \({most + 1}, 0\) is too large"):
                R.pad(x, (most + 1, 0), mode)


# --- pooling ---------------------------------------------------------------------------------


def test_max_pool_ties_go_to_the_first() -> None:
    y, i = R.max_pool2d(np.zeros((1, 1, 3, 3)), 2, 1, return_indices=True)
    np.testing.assert_array_equal(i[0, 0], [[0, 1], [3, 4]])
    g = R.max_pool2d_backward(np.ones_like(y), i, (1, 1, 3, 3))
    np.testing.assert_array_equal(g[0, 0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_max_pool_nan_and_infinity() -> None:
    x = np.array([[1.0, np.nan, 5.0, np.nan, 2.0, 3.0]])
    y, i = R.max_pool1d(x, 3, 1, return_indices=True)
    np.testing.assert_array_equal(y, [[np.nan, np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(i, [[1, 3, 3, 3]])
    y, i = R.max_pool2d(np.full((1, 2, 2), -np.inf), 2, 1, 1, return_indices=True)
    assert (y == -np.inf).all()
    np.testing.assert_array_equal(i[0], [[0, 0, 1], [0, 0, 1], [2, 2, 3]])
    y, i = R.max_pool1d(np.full((1, 3), -5.0), 2, 2, 1, return_indices=True)
    np.testing.assert_array_equal(y, [[-5, -5]])  # padding never wins


def test_ceil_mode_never_starts_in_the_right_padding() -> None:
    x = np.arange(1.0, 4.0)[np.newaxis]
    assert R.max_pool1d(x, 2, 2, 1, ceil_mode=True).shape == (1, 2)
    assert R.max_pool1d(x, 1, 3, 0, ceil_mode=True).shape == (1, 1)
    x = np.arange(1.0, 5.0)[np.newaxis]
    np.testing.assert_array_equal(R.max_pool1d(x, 3, 2, ceil_mode=True), [[3, 4]])


def test_average_divisors() -> None:
    x = np.ones((1, 4))
    np.testing.assert_array_equal(R.avg_pool1d(x, 3, 2, 1, True), [[2 / 3, 1, 0.5]])
    np.testing.assert_array_equal(R.avg_pool1d(x, 3, 2, 1, True, False), [[1, 1, 1]])
    np.testing.assert_array_equal(R.avg_pool1d(x, 3, 2, 1, True, True, 2), [[1, 1.5, 0.5]])


def test_window_without_elements_raises() -> None:
    with pytest.raises(ValueError, match="holds no input element"):
        R.max_pool1d(np.ones((1, 1)), 2, 1, 1, 2)


def test_bad_indices_raise() -> None:
    g, i = np.ones((1, 1, 2)), np.array([[[0, 4]]])
    for wrong in (i, -i):
        with pytest.raises(ValueError, match=r"indices must lie in 0..3"):
            R.max_pool1d_backward(g, wrong, (1, 1, 4))
        with pytest.raises(ValueError, match=r"indices must lie in 0..3"):
            R.max_unpool1d(g, wrong, 2)


# --- arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"stride": 0}, ValueError, "conv2d: stride must be at least 1, got 0"),
        ({"stride": 1.0}, TypeError, "conv2d: stride must be an int, got 1.0"),
        ({"dilation": True}, TypeError, "conv2d: dilation must be an int, got True"),
        ({"padding": -1}, ValueError, "conv2d: padding must be at least 0, got -1"),
        ({"padding": "some"}, ValueError, "got 'some'"),
        ({"padding": (1, 2, 3)}, ValueError, "conv2d: padding needs 2 entries"),
        ({"groups": 3}, ValueError, "conv2d: weight expects 9 input channels, input has 3"),
        ({"padding_mode": "edge"}, ValueError, "conv2d: padding_mode must be one of"),
        ({"dilation": 4}, ValueError, r"conv2d: kernel spans \[9, 9\]"),
        ({"bias": np.ones(3)}, ValueError, r"conv2d: bias must have shape \(4,\), got \(3,\)"),
        ({"bias": np.ones(4, "f4")}, TypeError, "conv2d: bias is float32, input is float64"),
    ],
)
def test_conv_errors(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        R.conv2d(np.ones((1, 3, 8, 8)), np.ones((4, 3, 3, 3)), **change)


def test_out_unbatched_and_empty() -> None:
    x = rng(10).integers(-4, 5, (2, 3, 6, 6)).astype(float)
    w = rng(11).integers(-4, 5, (4, 3, 3, 3)).astype(float)
    y = R.conv2d(x, w)
    out = np.empty_like(y)
    assert R.conv2d(x, w, out=out) is out
    np.testing.assert_array_equal(out, y)
    np.testing.assert_array_equal(R.conv2d(x[0], w), y[0])
    with pytest.raises(TypeError, match="out must be float64"):
        R.conv2d(x, w, out=out.astype("f4"))
    gx, gw, gb = R.conv2d_backward(y[:0], x[:0], w)
    assert gx is not None
    assert gx.shape == (0, 3, 6, 6)
    assert not np.any(gw)
    assert not np.any(gb)
    assert R.conv2d_backward(y, x, w, output_mask=(False, False, False)) == (None, None, None)
    pooled, indices = R.max_pool2d(x[:0], 2, return_indices=True)
    assert pooled.shape == (0, 3, 3, 3)
    assert R.max_pool2d_backward(pooled, indices, (0, 3, 6, 6)).shape == (0, 3, 6, 6)
    assert R.max_unpool2d(pooled, indices, 2).shape == (0, 3, 6, 6)
    assert R.max_unpool2d_backward(x[:0], indices).shape == (0, 3, 3, 3)
    assert R.batch_norm(x[:0], None, None, training=True).shape == (0, 3, 6, 6)


def test_float32_and_layouts() -> None:
    x, w = rng(12).integers(-4, 5, (2, 3, 5, 6)), rng(13).integers(-4, 5, (4, 3, 2, 2))
    want = R.conv2d(x, w)
    for dtype in ("f4", "f8", ">f4"):
        y = R.conv2d(np.asfortranarray(x.astype(dtype)), w.astype(dtype))
        assert y.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(y, want)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(R.conv2d(last, w), want)


def test_names_pair_up() -> None:
    assert sorted(R.__all__) == sorted(set(R.__all__))
    for name in R.__all__:
        parameters = list(inspect.signature(getattr(R, name)).parameters)
        if name.endswith("_backward"):
            assert parameters[0] == "grad_output"
            assert hasattr(R, name.removesuffix("_backward"))


# --- losses ----------------------------------------------------------------------------------


def test_cross_entropy_ignores_and_masks() -> None:
    x = np.array([[0.0, -np.inf], [1.0, 1.0]])
    losses = R.cross_entropy(x, np.array([0, 1]), reduction="none")
    np.testing.assert_allclose(losses, [0, np.log(2)], rtol=4 * EPS)
    target = np.array([-100, -100])
    assert np.isnan(R.cross_entropy(x, target))
    assert R.cross_entropy(x, target, reduction="sum") == 0
    with pytest.raises(ValueError, match=r"target must lie in 0..1 or be ignore_index -100, got 2"):
        R.cross_entropy(x, np.array([0, 2]))


# --- the same functions as fastconv.functional -----------------------------------------------

LECTURE = {"flip_and_filter", "toeplitz_matrix", "translate_and_scale"}


@pytest.mark.parametrize("name", sorted(set(R.__all__) - LECTURE))
def test_signature_equals_that_of_functional(name: str) -> None:
    def arguments(function: Any) -> list[tuple[str, Any, Any]]:
        parameters = inspect.signature(function).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters]

    functional = importlib.import_module("fastconv.functional")
    assert arguments(getattr(functional, name)) == arguments(getattr(R, name))
