"""conv_transpose1d and conv_transpose2d with gradients, for every instruction set."""

from functools import cache

import numpy as np
import pytest
from array_variants import variants
from helpers import (
    ALL_FORMATS,
    DTYPES,
    FORMATS,
    SIZES,
    integers,
    is_channels_last,
    poisoned,
    same_bits,
    to_format,
    tolerance,
)

import fastconv
import fastconv.functional as F
from fastconv import reference as R

# input shape, weight shape (in, out / groups, ...), arguments
CASES = {
    "3x3": ((2, 5, 6, 7), (5, 4, 3, 3), {}),
    "cropped": ((2, 5, 6, 7), (5, 4, 3, 3), {"padding": 1}),
    "1x1": ((2, 9, 4, 5), (9, 17, 1, 1), {}),
    "1x1 stride 2": ((2, 9, 4, 5), (9, 5, 1, 1), {"stride": 2, "output_padding": 1}),
    "dcgan first": ((2, 33, 1, 1), (33, 9, 4, 4), {}),
    "dcgan 4x4 stride 2": ((2, 9, 4, 4), (9, 5, 4, 4), {"stride": 2, "padding": 1}),
    "unet 2x2 stride 2": ((1, 17, 5, 6), (17, 8, 2, 2), {"stride": 2}),
    "3x3 stride 2": ((2, 5, 4, 5), (5, 3, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "strides 3, 2": (
        (2, 3, 4, 5),
        (3, 2, 3, 4),
        {"stride": (3, 2), "padding": (1, 2), "output_padding": (2, 1)},
    ),
    "stride larger than kernel": ((2, 3, 4, 3), (3, 5, 2, 2), {"stride": 5, "output_padding": 3}),
    "patches to few channels": ((2, 9, 3, 4), (9, 3, 8, 8), {"stride": 8}),
    "patches, cropped": ((2, 9, 3, 4), (9, 4, 5, 4), {"stride": (6, 4), "padding": (2, 3)}),
    "patches of groups": ((2, 6, 3, 4), (6, 2, 2, 3), {"groups": 2, "stride": 3}),
    "patches from many channels": ((1, 200, 20, 20), (200, 1, 16, 16), {"stride": 16}),
    "one pixel to many": ((3, 17, 1, 1), (17, 33, 5, 3), {"dilation": (1, 2)}),
    "asymmetric": ((2, 3, 5, 6), (3, 4, 3, 4), {"padding": ((0, 2), (3, 1)), "stride": (1, 2)}),
    "dilated": ((2, 3, 5, 6), (3, 4, 3, 2), {"dilation": (2, 3), "output_padding": (1, 2)}),
    "dilation 3 stride 2": ((1, 3, 5, 6), (3, 4, 3, 3), {"dilation": 3, "stride": 2, "padding": 2}),
    "dilation 2 stride 4": ((1, 3, 4, 3), (3, 4, 3, 3), {"dilation": 2, "stride": 4}),
    "groups": ((2, 6, 4, 5), (6, 5, 3, 3), {"groups": 3, "stride": 2, "padding": 1}),
    "groups of 4": ((2, 20, 5, 6), (20, 4, 4, 4), {"groups": 5, "padding": 1, "stride": 2}),
    "groups of 4 to 2": ((2, 20, 5, 6), (20, 2, 3, 3), {"groups": 5, "dilation": 2, "stride": 3}),
    "depthwise": ((2, 17, 5, 6), (17, 1, 3, 3), {"groups": 17, "padding": 1}),
    "depthwise stride 2": ((2, 9, 5, 6), (9, 1, 4, 4), {"groups": 9, "padding": 1, "stride": 2}),
    "many to one": ((2, 31, 4, 5), (31, 1, 3, 3), {"stride": 2}),
    "whole output cropped to one": ((1, 3, 3, 3), (3, 2, 3, 3), {"padding": 2}),
}
CASES_1D = {
    "k3": ((2, 5, 9), (5, 4, 3), {"padding": 1}),
    "stride 2": ((2, 5, 9), (5, 4, 4), {"stride": 2, "padding": 1, "output_padding": 1}),
    "vocoder 16 stride 8": ((1, 8, 11), (8, 4, 16), {"stride": 8, "padding": 4}),
    "dilated": ((2, 5, 9), (5, 4, 3), {"dilation": 4}),
    "asymmetric": ((2, 5, 9), (5, 4, 4), {"padding": ((0, 3),), "stride": 3}),
    "groups": ((2, 6, 9), (6, 2, 3), {"groups": 2, "stride": 2}),
}
for size in SIZES:
    CASES[f"{size} in"] = ((2, size, 2, 3), (size, 3, 3, 2), {"stride": (1, 2)})
    CASES[f"{size} out"] = ((2, 3, 2, 3), (3, size, 3, 2), {"stride": (1, 2)})
    CASES[f"{size} wide"] = ((2, 3, 2, size), (3, 4, 2, 3), {"stride": 2, "padding": (0, 1)})
    CASES_1D[f"length {size}"] = ((2, 3, size), (3, 4, 4), {"stride": 2, "padding": 1})
ALL = {**{f"2d {k}": v for k, v in CASES.items()}, **{f"1d {k}": v for k, v in CASES_1D.items()}}
SOME = ("2d cropped", "2d strides 3, 2", "2d groups", "2d depthwise stride 2", "1d asymmetric")


def functions(module, x_shape):
    name = f"conv_transpose{len(x_shape) - 2}d"
    return getattr(module, name), getattr(module, f"{name}_backward")


@cache
def problem(name):
    """(x, weight, bias, grad_output), (y, grad_x, grad_weight, grad_bias), arguments."""
    x_shape, w_shape, arguments = ALL[name]
    rng = np.random.default_rng(list(name.encode()))
    forward, backward = functions(R, x_shape)
    x, w = integers(rng, x_shape), integers(rng, w_shape)
    b = integers(rng, w_shape[1] * arguments.get("groups", 1))
    y = forward(x, w, b, **arguments)
    g = integers(rng, y.shape)
    return (x, w, b, g), (y, *backward(g, x, w, **arguments)), arguments


def cast(arrays, dtype):
    return tuple(a.astype(dtype) for a in arrays)


BY_WINOGRAD = {"2d dcgan first"}  # a 4x4 kernel with stride 1


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL)
def test_exact(isa, name, dtype, layout):
    inputs, expected, arguments = problem(name)
    x, w, b, g = cast(inputs, dtype)
    x, g = to_format(x, layout), to_format(g, layout)
    forward, backward = functions(F, x.shape)
    y = forward(x, w, b, **arguments)
    grads = backward(g, x, w, **arguments)
    for result, want in zip((y, *grads), expected, strict=True):
        assert result.dtype == dtype
        if name in BY_WINOGRAD:
            # transforms round: a few units of the largest sum; integers(...) are at most 9
            bound = 64 * np.finfo(dtype).eps * 81 * w[0].size
            np.testing.assert_allclose(result, want, rtol=0, atol=bound)
        else:
            np.testing.assert_array_equal(result, want)
    if x[0, 0].size > 1 < x.shape[1]:
        for result in (y, grads[0]):
            both = result.shape[1] == 1 or result[0, 0].size == 1
            assert both or is_channels_last(result) == (layout == "channels_last")


@pytest.mark.parametrize("layout_g", ALL_FORMATS)
@pytest.mark.parametrize("layout", ALL_FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_mixed_layouts(isa, name, dtype, layout, layout_g):
    """Same bits for every pair of formats of input and grad_output, weights in Fortran order."""
    inputs, _, arguments = problem(name)
    rng = np.random.default_rng(1)
    x, w, b, g = (rng.standard_normal(a.shape).astype(dtype) for a in inputs)
    forward, backward = functions(F, x.shape)
    want = forward(x, w, b, **arguments), *backward(g, x, w, **arguments)
    x, g, w = to_format(x, layout), to_format(g, layout_g), np.asfortranarray(w)
    got = forward(x, w, b, **arguments), *backward(g, x, w, **arguments)
    for result, expected in zip(got, want, strict=True):
        assert same_bits(result, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_is_the_gradient_of_conv(isa, rng, name, dtype):
    """conv_transpose(x, w) is the input gradient of the convolution with the same weight."""
    x_shape, w_shape, arguments = ALL[name]
    x, w = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape))
    y = functions(F, x_shape)[0](x, w, **arguments)
    arguments = {k: v for k, v in arguments.items() if k != "output_padding"}
    backward = getattr(F, f"conv{x.ndim - 2}d_backward")
    image = np.zeros_like(y)
    grad, _, _ = backward(x, image, w, **arguments, output_mask=(True, False, False))
    bound = 8 * tolerance(w[:, 0].size, dtype) * abs(x).max() * abs(w).max() * w[:, 0].size
    assert abs(y - grad).max() <= bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_rounding_error(isa, rng, name, dtype):
    x_shape, w_shape, arguments = ALL[name]
    forward, backward = functions(R, x_shape)
    x, w = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape))
    y = functions(F, x_shape)[0](x, w, **arguments)
    g = rng.standard_normal(y.shape).astype(dtype)
    grads = functions(F, x_shape)[1](g, x, w, **arguments)
    wide = np.float64 if dtype == np.float32 else np.longdouble

    def reference(x, w, g):
        return forward(x, w, **arguments), *backward(g, x, w, **arguments)

    want = reference(*cast((x, w, g), wide))
    sizes = reference(*map(abs, cast((x, w, g), wide)))
    positions = x.shape[0] * x[0, 0].size
    terms = w[:, 0].size, w[0].size, positions, g.size // g.shape[1]
    for result, expected, size, count in zip((y, *grads), want, sizes, terms, strict=True):
        error, bound = abs(result - expected), tolerance(count, dtype) * size
        assert error.max() <= 8 * bound.max()


@pytest.mark.parametrize("name", ["2d stride larger than kernel", "2d dilation 2 stride 4"])
def test_gaps_are_zero(isa, rng, name):
    """Outputs that no input reaches are exactly zero, or the bias."""
    x_shape, w_shape, arguments = ALL[name]
    x, w = abs(rng.standard_normal(x_shape)) + 1, abs(rng.standard_normal(w_shape)) + 1
    y = F.conv_transpose2d(x, w, **arguments)
    reached = F.conv_transpose2d(np.ones_like(x), np.ones_like(w), **arguments) != 0
    assert not reached.all()
    assert (y[reached] != 0).all()
    assert same_bits(y[~reached], np.zeros((~reached).sum()))
    b = rng.standard_normal(w.shape[1])
    with_bias = F.conv_transpose2d(x, w, b, **arguments)
    expected = np.broadcast_to(b[:, None, None], y.shape)
    assert same_bits(with_bias[~reached], expected[~reached])


@pytest.mark.parametrize("layout", ALL_FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_out(isa, name, dtype, layout):
    inputs, expected, arguments = problem(name)
    x, w, b, _ = cast(inputs, dtype)
    forward, _ = functions(F, x.shape)
    for x_layout in FORMATS:
        out = poisoned(*expected[0].shape, dtype=dtype, layout=layout)
        assert forward(to_format(x, x_layout), w, b, out=out, **arguments) is out
        np.testing.assert_array_equal(out, expected[0])
        if layout == "strided":
            around = out.base.copy()
            around[(slice(1, None, 2),) * out.ndim] = np.nan
            assert np.isnan(around).all()


@pytest.mark.parametrize("argument", ["input", "weight", "bias", "grad_output"])
@pytest.mark.parametrize("name", SOME)
def test_any_memory(isa, name, argument):
    """Strided, reversed, Fortran, byte-swapped, read-only and unaligned arrays; none is written."""
    inputs, expected, arguments = problem(name)
    arrays = dict(zip(("input", "weight", "bias", "grad_output"), inputs, strict=True))
    forward, backward = functions(F, inputs[0].shape)
    for kind, array in variants(arrays[argument]):
        before = array.copy()
        x, w, b, g = ({**arrays, argument: array}).values()
        y = forward(x, w, b, **arguments)
        for result, want in zip((y, *backward(g, x, w, **arguments)), expected, strict=True):
            np.testing.assert_array_equal(result, want, err_msg=kind)
        assert same_bits(array, before), kind


@pytest.mark.parametrize("name", SOME)
def test_unbatched_and_empty(isa, name):
    (x, w, b, g), expected, arguments = problem(name)
    forward, backward = functions(F, x.shape)
    np.testing.assert_array_equal(forward(x[0], w, b, **arguments), expected[0][0])
    one = backward(g[:1], x[:1], w, **arguments)
    unbatched = backward(g[0], x[0], w, **arguments)
    assert same_bits(unbatched[0], one[0][0])
    assert same_bits(unbatched[1], one[1])
    assert same_bits(unbatched[2], one[2])
    assert forward(x[:0], w, b, **arguments).shape == g[:0].shape
    grad_x, grad_w, grad_b = backward(g[:0], x[:0], w, **arguments)
    assert grad_x.shape == x[:0].shape
    np.testing.assert_array_equal(grad_w, np.zeros_like(w))
    np.testing.assert_array_equal(grad_b, np.zeros_like(b))


@pytest.mark.parametrize("mask", list(np.ndindex(2, 2, 2)), ids=str)
def test_output_mask(mask):
    (x, w, _, g), expected, arguments = problem("2d groups")
    grads = F.conv_transpose2d_backward(g, x, w, output_mask=mask, **arguments)
    for grad, want, wanted in zip(grads, expected[1:], mask, strict=True):
        assert (grad is not None) == bool(wanted)
        if wanted:
            np.testing.assert_array_equal(grad, want)


@pytest.mark.parametrize("kernel", [2, 4, 5, 6, 7])
@pytest.mark.parametrize("channels", [16, 32, 96])
@pytest.mark.parametrize("size", [8, 9, 13, 17])
def test_what_no_input_reaches_is_the_bias(isa, channels, kernel, size):
    """By Winograd's method too, which leaves the error of the neighbours there."""
    rng = np.random.default_rng(size)
    x = rng.standard_normal((1, channels, size, size)).astype(np.float32)
    w = rng.standard_normal((channels, channels, kernel, kernel)).astype(np.float32)
    b = rng.standard_normal(channels).astype(np.float32)
    y = F.conv_transpose2d(x, w, b, stride=2, output_padding=1)
    assert (y[:, :, -1] == b[:, None]).all()
    assert (y[..., -1] == b[:, None]).all()
    last = np.einsum("ni,io->no", x[..., -1, -1], w[..., -1, -1]) + b  # one tap of one input
    np.testing.assert_allclose(y[:, :, -2, -2], last, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("channels", [17, 33, 40, 48, 65, 80, 81, 112])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (2, 1), (1, 2)])
def test_windows_that_touch_of_odd_vectors_of_channels(isa, threads, channels, kernel):
    """Phases of one tap, whose weights are packed for all phases at once."""
    rng = np.random.default_rng(channels)
    x = rng.integers(-3, 4, (1, 4, 6, 7)).astype(np.float32)
    w = rng.integers(-3, 4, (4, channels, *kernel)).astype(np.float32)
    for dilation in (1, 3):
        options = {"stride": kernel, "dilation": dilation}
        with fastconv.num_threads(threads):
            y = F.conv_transpose2d(x, w, **options)
        # with a dilation perhaps by Winograd's method along the row: sums of up to 36 in eps
        atol = 0 if dilation == 1 else 64 * 36 * np.finfo(np.float32).eps
        np.testing.assert_allclose(y, R.conv_transpose2d(x, w, **options), rtol=0, atol=atol)
