"""The reference: the lecture's examples, the corner cases of the semantics, gradient checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv.reference as R
from fastconv.reference import lecture

EPS = np.finfo(np.float64).eps
WAYS = [
    lecture.flip_and_filter,
    lecture.translate_and_scale,
    lambda x, w: (lecture.toeplitz_matrix(w, np.shape(x)) @ np.ravel(x)).reshape(
        [n + k - 1 for n, k in zip(np.shape(x), np.shape(w), strict=True)]
    ),
]
WAY_NAMES = ["flip_and_filter", "translate_and_scale", "toeplitz_matrix"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- the lecture -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
def test_worked_example_1d(way: Callable[..., Any]) -> None:
    np.testing.assert_array_equal(way([2, -1, 1], [1, 1, 2]), [2, 1, 4, -1, 2])


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
def test_worked_example_2d(way: Callable[..., Any]) -> None:
    image = [[1, 3, 1], [0, -1, 1], [2, 2, -1]]
    want = [[1, 5, 7, 2], [0, -2, -4, 1], [2, 6, 4, -3], [0, -2, -2, 1]]
    np.testing.assert_array_equal(way(image, [[1, 2], [0, -1]]), want)
    np.testing.assert_array_equal(R.convolve2d(image, [[1, 2], [0, -1]]), want)


def test_toeplitz_matrix_has_15_entries_and_3_parameters() -> None:
    matrix = R.toeplitz_matrix([1, 1, 2], 3)
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [1, 1, 0], [2, 1, 1], [0, 2, 1], [0, 0, 2]])
    assert matrix.size == 15
    for shift in range(-2, 5):  # one value on each diagonal: that is what Toeplitz means
        assert len(set(np.diagonal(matrix, -shift))) == 1
    named = R.toeplitz_matrix([10, 20, 30], 3)
    assert set(named.ravel()) - {0} == {10, 20, 30}


def test_toeplitz_matrix_of_an_image() -> None:
    matrix = R.toeplitz_matrix(np.array([[1, 2], [0, -1]]), (3, 3))
    assert matrix.shape == (16, 9)
    assert set(matrix.ravel()) == {0, 1, 2, -1}


@pytest.mark.parametrize("shapes", [[(5,), (3,), (4,)], [(4, 3), (2, 5), (3, 2)]])
@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
def test_commutative_and_associative(way: Callable[..., Any], shapes: list[Any]) -> None:
    a, b, c = (rng(k).integers(-9, 10, shape) for k, shape in enumerate(shapes))
    np.testing.assert_array_equal(way(a, b), way(b, a))
    np.testing.assert_array_equal(way(way(a, b), c), way(a, way(b, c)))


def test_a_layer_is_the_flipped_kernel() -> None:
    x, w = rng(1).integers(-9, 10, (6, 5)), rng(2).integers(-9, 10, (3, 2))
    y = R.conv2d(x[np.newaxis], w[np.newaxis, np.newaxis, ::-1, ::-1], padding="full")
    np.testing.assert_array_equal(y[0], lecture.flip_and_filter(x, w))


def test_output_sizes() -> None:
    assert lecture.conv_output_size(7, 3, 0, 2) == 3
    for size, kernel in [(5, 3), (32, 5), (4, 4)]:
        assert lecture.conv_output_size(size, kernel) == size - kernel + 1
    for size, kernel, pad, stride, dilation in [(7, 3, 1, 2, 1), (9, 3, 2, 3, 2), (8, 2, 0, 1, 3)]:
        x, w = np.ones((1, size)), np.ones((1, 1, kernel))
        got = R.conv1d(x, w, None, stride, pad, dilation).shape[1]
        assert got == lecture.conv_output_size(size, kernel, pad, stride, dilation)
    with pytest.raises(ValueError, match=r"conv_output_size: kernel_size 4 does not fit"):
        lecture.conv_output_size(3, 4)


def test_receptive_fields() -> None:
    for layers in range(5):
        assert lecture.receptive_field([3] * layers) == 1 + 2 * layers
        assert lecture.receptive_field([5] * layers) == 1 + 4 * layers
    assert lecture.receptive_field([(7, 2), (3, 2)]) == 11
    assert lecture.receptive_field([(3, 1, 1), (3, 1, 2), (3, 1, 4)]) == 15
    # what the formula says is what the gradient reaches
    x = rng(3).normal(size=(1, 1, 30))
    g, inputs, specs = np.ones((1, 1, 1)), [x], [(3, 2, 1), (3, 1, 2), (2, 2, 1)]
    for k, s, d in specs:
        inputs.append(R.conv1d(inputs[-1], np.ones((1, 1, k)), None, s, 0, d))
    g = np.zeros_like(inputs[-1])
    g[0, 0, 1] = 1
    for (k, s, d), x in zip(specs[::-1], inputs[-2::-1], strict=True):
        g = R.conv1d_backward(g, x, np.ones((1, 1, k)), s, 0, d)[0]
    reached = np.flatnonzero(g[0, 0])
    assert reached[-1] - reached[0] + 1 == lecture.receptive_field(specs)


def test_parameter_counts() -> None:
    pixels = units = 200 * 200
    assert units == 40_000
    assert lecture.dense_parameters(pixels, units) == 1_600_000_000
    assert lecture.locally_connected_parameters(units, (10, 10)) == 4_000_000
    assert lecture.conv_parameters((10, 10)) == 100
    assert lecture.conv_parameters((10, 10), out_channels=100) == 10_000
    assert lecture.conv_parameters((5, 5), 6, 16, bias=True) == 2416


def test_filters() -> None:
    flat = np.full((1, 6, 7), 3.0)
    for name in ("EDGE", "SOBEL_X", "SOBEL_Y"):
        kernel = getattr(lecture, name)[np.newaxis, np.newaxis]
        assert not R.conv2d(flat, kernel).any(), name
    for name in ("BLUR", "SHARPEN"):
        kernel = getattr(lecture, name)[np.newaxis, np.newaxis]
        np.testing.assert_array_equal(R.conv2d(flat, kernel), np.full((1, 4, 5), 3.0), name)
    with pytest.raises(ValueError, match="read-only"):
        lecture.EDGE[0, 0] = 1


def test_convolution_is_equivariant_and_global_pooling_invariant() -> None:
    x = np.zeros((1, 2, 12, 12))
    x[:, :, 2:6, 3:7] = rng(4).integers(-5, 6, (2, 4, 4))
    moved = np.roll(x, (3, 2), axis=(2, 3))
    w = rng(5).integers(-3, 4, (3, 2, 3, 3)).astype(float)
    y, y_moved = (R.conv2d(image, w, padding="same") for image in (x, moved))
    np.testing.assert_array_equal(y_moved, np.roll(y, (3, 2), axis=(2, 3)))
    for pool in (R.adaptive_avg_pool2d, R.adaptive_max_pool2d):
        np.testing.assert_array_equal(pool(y, 1), pool(y_moved, 1))


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
    assert R.max_pool2d(x[:0], 2).shape == (0, 3, 3, 3)
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


# --- gradients -------------------------------------------------------------------------------


def spread(shape: tuple[int, ...], seed: int) -> Any:
    """Distinct values 0.1 apart, none within 0.02 of 0 or 6: away from every kink."""
    values = 0.1 * (np.arange(np.prod(shape)) - np.prod(shape) // 2) + 0.03
    return rng(seed).permutation(values).reshape(shape)


def max_pool_case(pool: str, shape: tuple[int, ...], *args: Any) -> tuple[Any, ...]:
    function, backward = getattr(R, pool), getattr(R, pool + "_backward")
    x = spread(shape, 20)
    _, indices = function(x, *args, return_indices=True)
    return lambda x: function(x, *args), lambda g, x: backward(g, indices, x.shape), x


def sum_case(name: str, arrays: tuple[tuple[int, ...], ...], **kwargs: Any) -> tuple[Any, ...]:
    """A function whose backward takes the same arguments."""
    function, backward = getattr(R, name), getattr(R, name + "_backward")
    values = [rng(30 + k).normal(size=shape) for k, shape in enumerate(arrays)]
    if len(values) == 3:
        return (
            lambda x, w, b: function(x, w, b, **kwargs),
            lambda g, x, w, b: backward(g, x, w, **kwargs),
            *values,
        )
    return lambda x: function(x, **kwargs), lambda g, x: backward(g, x, **kwargs), *values


def batch_norm_case(training: bool) -> tuple[Any, ...]:
    mean, var = np.array([0.1, -0.2, 0.3]), np.array([0.5, 1.5, 2.0])

    def forward(x: Any, w: Any, b: Any) -> Any:
        return R.batch_norm(x, mean.copy(), var.copy(), w, b, training)

    def backward(g: Any, x: Any, w: Any, b: Any) -> Any:
        return R.batch_norm_backward(g, x, mean, var, w, b, training)

    x = rng(40).normal(size=(4, 3, 2, 3))
    return forward, backward, x, rng(41).normal(size=3), rng(42).normal(size=3)


def loss_case(name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    function, backward = getattr(R, name), getattr(R, name + "_backward")
    x = rng(50).normal(size=(3, 4, 2))
    return lambda x: function(x, *args, **kwargs), lambda g, x: backward(g, x, *args, **kwargs), x


def cases() -> dict[str, tuple[Any, ...]]:
    c: dict[str, tuple[Any, ...]] = {}
    for mode in ("zeros", "reflect", "replicate", "circular", "symmetric"):
        kwargs = {"stride": (2, 1), "padding": ((1, 2), (2, 0)), "padding_mode": mode}
        c[f"conv2d-{mode}"] = sum_case(
            "conv2d", ((2, 4, 5, 6), (6, 2, 2, 3), (6,)), groups=2, **kwargs
        )
    for word in ("valid", "same", "same_lower", "full", "causal"):
        shapes = ((2, 3, 9), (4, 3, 3), (4,))
        c[f"conv1d-{word}"] = sum_case("conv1d", shapes, stride=2, padding=word, dilation=2)
    c["conv2d-unbatched"] = sum_case("conv2d", ((3, 5, 6), (2, 3, 2, 3), (2,)), dilation=(1, 2))
    kwargs = {"stride": 3, "padding": 1, "output_padding": 2}
    c["conv_transpose1d"] = sum_case("conv_transpose1d", ((2, 4, 5), (4, 3, 4), (3,)), **kwargs)
    shapes = ((2, 4, 3, 4), (4, 3, 2, 3), (6,))
    kwargs = {"stride": (2, 1), "padding": ((0, 1), (1, 1)), "groups": 2, "dilation": (1, 2)}
    c["conv_transpose2d"] = sum_case("conv_transpose2d", shapes, **kwargs)
    c["linear"] = sum_case("linear", ((2, 3, 4), (5, 4), (5,)))
    c["max_pool1d"] = max_pool_case("max_pool1d", (2, 3, 9), 3, 2, 1)
    c["max_pool2d"] = max_pool_case("max_pool2d", (2, 2, 6, 7), (3, 2), (2, 1), 1, (2, 1), True)
    c["adaptive_max_pool1d"] = max_pool_case("adaptive_max_pool1d", (2, 3, 9), 4)
    c["adaptive_max_pool2d"] = max_pool_case("adaptive_max_pool2d", (2, 3, 5, 4), (3, None))
    args = (3, 2, 1, True, False)
    for name, shape in (("avg_pool1d", (2, 2, 7)), ("avg_pool2d", (2, 5, 8))):
        f, b = getattr(R, name), getattr(R, name + "_backward")
        x = rng(60).normal(size=shape)
        c[name] = (lambda x, f=f: f(x, *args), lambda g, x, b=b: b(g, x.shape, *args), x)
        f, b = getattr(R, "adaptive_" + name), getattr(R, f"adaptive_{name}_backward")
        c["adaptive_" + name] = (lambda x, f=f: f(x, 3), lambda g, x, b=b: b(g, x.shape), x)
    for name, shape in (("max_unpool1d", (2, 3)), ("max_unpool2d", (2, 3, 2))):
        f, b = getattr(R, name), getattr(R, name + "_backward")
        where = np.stack([rng(k).permutation(np.prod(shape[1:])) for k in (1, 2)])
        i = where.reshape(shape)
        c[name] = (
            lambda x, f=f, i=i: f(x, i, 2),
            lambda g, x, b=b, i=i: b(g, i),
            rng(61).normal(size=shape),
        )
    for mode in ("constant", "reflect", "replicate", "circular", "symmetric"):
        x = rng(62).normal(size=(2, 4, 5))
        c[f"pad-{mode}"] = (
            lambda x, m=mode: R.pad(x, (1, 3, 2, 0), m),
            lambda g, x, m=mode: R.pad_backward(g, x.shape, (1, 3, 2, 0), m),
            x,
        )
    rest = ((2, 3), (1, 2), ((1, 0), (2, 1)), (2, 1))
    x = rng(63).normal(size=(2, 3, 5, 6))
    c["unfold"] = (
        lambda x: R.unfold(x, *rest),
        lambda g, x: R.unfold_backward(g, x.shape, *rest),
        x,
    )
    c["fold"] = (
        lambda x: R.fold(x, (5, 6), *rest),
        lambda g, x: R.fold_backward(g, (5, 6), *rest),
        rng(64).normal(size=R.unfold(x, *rest).shape),
    )
    c["batch_norm-training"], c["batch_norm-eval"] = batch_norm_case(True), batch_norm_case(False)
    for name in ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "gelu"):
        f, b = getattr(R, name), getattr(R, name + "_backward")
        c[name] = (f, b, spread((5, 31), 65))
    c["gelu-tanh"] = sum_case("gelu", ((40,),), approximate="tanh")
    c["softmax"] = sum_case("softmax", ((3, 4, 2),), dim=1)
    c["log_softmax"] = sum_case("log_softmax", ((3, 4, 2),))
    target, weight = np.array([[0, 3], [-100, 2], [1, 1]]), np.array([1.0, 0.5, 2.0, 3.0])
    soft = rng(66).random((3, 4, 2))
    for how in ("mean", "sum", "none"):
        c[f"nll_loss-{how}"] = loss_case("nll_loss", target, weight, reduction=how)
        kwargs = {"reduction": how, "label_smoothing": 0.1}
        c[f"cross_entropy-{how}"] = loss_case("cross_entropy", target, weight, **kwargs)
        c[f"cross_entropy-soft-{how}"] = loss_case("cross_entropy", soft, weight, **kwargs)
        c[f"mse_loss-{how}"] = loss_case("mse_loss", soft, how)
        bce = "binary_cross_entropy_with_logits"
        c[f"{bce}-{how}"] = loss_case(bce, soft, soft[0], how, pos_weight=weight[:, np.newaxis])
    return c


CASES = cases()


def test_every_backward_is_checked() -> None:
    checked = {case.split("-")[0] for case in CASES}
    assert {n.removesuffix("_backward") for n in R.__all__ if n.endswith("_backward")} <= checked


@pytest.mark.parametrize("case", CASES)
def test_gradient_by_projection(case: str) -> None:
    """<u, f(x + h v) - f(x - h v)> / 2h == <gradient of u, v> for random u and v."""
    forward, backward, *values = CASES[case]
    y = np.asarray(forward(*values))
    u = rng(70).normal(size=y.shape)
    grads = backward(u, *values)
    grads = grads if isinstance(grads, tuple) else (grads,)
    assert [g.shape for g in grads] == [x.shape for x in values]
    directions = [rng(71 + k).normal(size=x.shape) for k, x in enumerate(values)]
    h = EPS ** (1 / 3)  # makes the truncation and the rounding of a central difference equal
    ahead = forward(*(x + h * v for x, v in zip(values, directions, strict=True)))
    behind = forward(*(x - h * v for x, v in zip(values, directions, strict=True)))
    numeric = np.vdot(u, ahead - behind) / (2 * h)
    exact = sum(np.vdot(g, v) for g, v in zip(grads, directions, strict=True))
    size = np.linalg.norm(u) * np.linalg.norm(y) + sum(
        np.linalg.norm(g) * np.linalg.norm(v) for g, v in zip(grads, directions, strict=True)
    )
    assert abs(numeric - exact) <= 20 * EPS ** (2 / 3) * size


def test_adjoints_are_exact_on_integers() -> None:
    def integers(seed: int, shape: tuple[int, ...]) -> Any:
        return rng(seed).integers(-5, 6, shape).astype(float)

    x, w = integers(80, (2, 4, 6, 7)), integers(81, (6, 2, 3, 2))
    args = ((2, 3), ((2, 1), (0, 3)), (1, 2), 2)
    y = R.conv2d(x, w, None, *args)
    g = integers(82, y.shape)
    gx, gw, gb = R.conv2d_backward(g, x, w, *args)
    assert np.vdot(y, g) == np.vdot(x, gx) == np.vdot(w, gw)
    np.testing.assert_array_equal(gb, g.sum((0, 2, 3)))
    transposed = R.conv_transpose2d(g, w, None, (2, 3), ((2, 1), (0, 3)), 0, 2, (1, 2))
    rows, columns = transposed.shape[2:]  # positions that no window reached are left out
    np.testing.assert_array_equal(transposed, gx[:, :, :rows, :columns])
