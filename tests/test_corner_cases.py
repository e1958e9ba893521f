"""Shapes that have broken convolution libraries: forward and all gradients, exact on whole numbers.

A test id names where its case comes from: a number in the regression list of oneDNN's benchdnn,
where each shape stands for a bug, a test of XNNPACK, or a thread of a tracker
(`pytorch-19912` is pytorch/pytorch#19912). Values are in test_corner_cases_values.py, arguments in
test_corner_cases_arguments.py, memory formats in test_corner_cases_arrays.py, large and guarded
memory in test_corner_cases_memory.py, pools in test_corner_cases_pool.py; threads, forks and quotas
in test_config.py.
"""

import numpy as np
import pytest
from helpers import DTYPES, FORMATS, integers, same_bits, to_format

import fastconv.functional as F
from fastconv import reference as R

pytestmark = pytest.mark.usefixtures("corner_case")

# input shape, weight shape, arguments
CORNERS = {
    "benchdnn-01-stride-h-larger-than-w": (
        (1, 5, 17, 11),
        (6, 5, 3, 2),
        {"stride": (4, 1), "padding": (1, 0)},
    ),
    "benchdnn-01-the-same-with-axes-swapped": (
        (1, 5, 11, 17),
        (6, 5, 2, 3),
        {"stride": (1, 4), "padding": (0, 1)},
    ),
    "benchdnn-02-right-padding-larger-than-kernel": (
        (2, 3, 5, 6),
        (4, 3, 3, 3),
        {"padding": ((0, 5), (1, 7))},
    ),
    "benchdnn-03-padding-larger-than-image": ((1, 3, 3, 3), (5, 3, 2, 2), {"padding": 4}),
    "benchdnn-04-image-smaller-than-stride": ((1, 3, 2, 3), (4, 3, 2, 2), {"stride": 5}),
    "benchdnn-05-image-inside-the-gap-of-the-kernel": (
        (1, 3, 1, 1),
        (4, 3, 2, 2),
        {"padding": 1, "dilation": 2},
    ),
    "benchdnn-06-dilated-kernel-smaller-than-padding": (
        (2, 3, 5, 4),
        (4, 3, 2, 2),
        {"padding": 6, "dilation": 3},
    ),
    "benchdnn-07-negative-implied-right-padding": ((2, 5, 9, 8), (6, 5, 1, 1), {"stride": 3}),
    "benchdnn-08-1x1-with-padding": ((2, 9, 4, 5), (17, 9, 1, 1), {"padding": 2}),
    "benchdnn-08-1x1-with-padding-and-stride": (
        (2, 9, 4, 5),
        (17, 9, 1, 1),
        {"padding": ((1, 2), (0, 3)), "stride": 2},
    ),
    "benchdnn-08-1x1-with-padding-below": (
        (3, 9, 4, 5),
        (17, 9, 1, 1),
        {"padding": ((0, 2), (0, 0))},
    ),
    "benchdnn-08-1x1-with-padding-at-the-right": (
        (3, 9, 4, 5),
        (17, 9, 1, 1),
        {"padding": ((0, 0), (0, 2))},
    ),
    "benchdnn-09-kernel-over-both-paddings": ((1, 3, 3, 3), (4, 3, 7, 7), {"padding": 3}),
    "benchdnn-09-kernel-over-both-paddings-depthwise": (
        (1, 9, 3, 3),
        (9, 1, 7, 7),
        {"padding": 3, "groups": 9},
    ),
    "benchdnn-10-row-of-3-outputs-184-channels": ((1, 184, 4, 3), (33, 184, 3, 3), {"padding": 1}),
    "benchdnn-10-row-of-5-outputs-113-channels": ((1, 17, 2, 5), (113, 17, 1, 1), {}),
    "benchdnn-10-1387-channels": ((1, 1387, 1, 2), (3, 1387, 1, 1), {}),
    "benchdnn-10-1387-outputs": ((1, 3, 2, 2), (1387, 3, 2, 2), {"padding": (0, 1)}),
    "benchdnn-11-1-channel-in-2-groups": ((2, 2, 6, 7), (2, 1, 3, 3), {"groups": 2, "padding": 1}),
    "benchdnn-11-2-channels-in-2-groups": ((2, 4, 6, 7), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "benchdnn-11-3-channels-in-2-groups": ((2, 6, 6, 7), (2, 3, 3, 3), {"groups": 2, "padding": 1}),
    "benchdnn-11-4-channels-in-2-groups": (
        (2, 8, 6, 7),
        (4, 4, 3, 3),
        {"groups": 2, "padding": 1},
    ),
    "benchdnn-12-row-of-1048576": ((1, 1, 1, 1048576), (1, 1, 1, 500), {"stride": (1, 500)}),
    "benchdnn-12-row-of-84350-with-33-channels": (
        (1, 33, 1, 84350),
        (2, 33, 1, 500),
        {"stride": (1, 500)},
    ),
    "benchdnn-14-row-of-123": ((1, 1, 3, 123), (16, 1, 3, 10), {}),
    "benchdnn-14-row-of-124": (
        (1, 1, 3, 124),
        (16, 1, 3, 10),
        {"padding": (1, 0), "stride": (1, 2)},
    ),
    "benchdnn-15-kernel-of-100": ((1, 2, 101, 103), (3, 2, 100, 100), {}),
    "benchdnn-16-gaps-between-windows": (
        (2, 3, 11, 13),
        (4, 3, 2, 2),
        {"stride": (3, 4), "padding": 1},
    ),
    "benchdnn-16-gaps-of-dilation-and-stride": (
        (2, 3, 13, 12),
        (4, 3, 2, 3),
        {"stride": 4, "dilation": 2},
    ),
    "benchdnn-17-kernel-of-31": ((1, 3, 9, 35), (4, 3, 31, 31), {"padding": 15}),
    "benchdnn-17-kernel-of-31-depthwise": (
        (1, 9, 9, 35),
        (9, 1, 31, 31),
        {"padding": 15, "groups": 9},
    ),
    "benchdnn-18-5x5-on-7x7": ((2, 17, 7, 7), (9, 17, 5, 5), {"padding": 2}),
    "benchdnn-19-top-padding-meets-bottom-padding": ((1, 3, 2, 9), (4, 3, 3, 3), {"padding": 1}),
    "benchdnn-19-one-row-between-paddings": ((1, 3, 1, 9), (4, 3, 5, 3), {"padding": 2}),
    "benchdnn-21-dilation-29-on-4-rows": (
        (1, 3, 4, 33),
        (4, 3, 3, 3),
        {"padding": 29, "dilation": 29},
    ),
    "benchdnn-21-dilation-29-depthwise": (
        (1, 17, 4, 33),
        (17, 1, 3, 3),
        {"padding": 29, "dilation": 29, "groups": 17},
    ),
    "pytorch-19912-4-channels-to-16-in-2-groups": (
        (2, 4, 6, 7),
        (16, 2, 3, 3),
        {"groups": 2, "padding": 1},
    ),
    "pytorch-21597-6-input-channels": ((2, 6, 7, 9), (5, 6, 3, 3), {"padding": 1}),
    "pytorch-68868-weight-gradient-in-groups": (
        (3, 12, 5, 6),
        (8, 3, 3, 3),
        {"groups": 4, "stride": 2},
    ),
    "modular-6129-kernel-of-128-in-groups": (
        (1, 4, 1, 140),
        (6, 2, 1, 128),
        {"groups": 2, "padding": (0, 64)},
    ),
    "modular-6712-width-padding-larger-than-a-tile": (
        (1, 3, 4, 5),
        (9, 3, 3, 3),
        {"padding": (1, 70)},
    ),
    "openxla-48713-17-channels": ((1, 17, 3, 4), (2, 17, 2, 2), {"padding": ((0, 1), (3, 0))}),
    "33-outputs-of-2-channels": ((1, 2, 3, 3), (33, 2, 3, 3), {"padding": 1}),
    "windows-that-see-only-padding": (
        (1, 3, 2, 2),
        (4, 3, 2, 2),
        {"padding": ((7, 0), (0, 9)), "stride": 3},
    ),
    "negative-padding-of-a-gradient": ((2, 3, 9, 9), (4, 3, 1, 3), {"stride": (2, 4)}),
}

CORNERS |= {
    f"benchdnn-10-{channels}-channels-on-rows-of-{width}": (
        (1, channels, 2, width),
        (channels, 1, 2, 3),
        {"groups": channels, "padding": (0, 1)},
    )
    for channels, width in ((9, 1), (17, 2), (33, 5), (51, 6), (113, 7), (184, 3), (1387, 1))
}


def cast(arrays, dtype):
    return tuple(a.astype(dtype) for a in arrays)


@pytest.fixture(scope="module")
def solved():
    """The reference's answers by name, each computed once."""
    answers = {}

    def answer(name):
        if name not in answers:
            x_shape, w_shape, arguments = CORNERS[name]
            rng = np.random.default_rng(list(name.encode()))
            x, w, b = (integers(rng, s, reach=2) for s in (x_shape, w_shape, w_shape[:1]))
            y = R.conv2d(x, w, b, **arguments)
            g = integers(rng, y.shape, reach=2)
            grads = R.conv2d_backward(g, x, w, **arguments)
            answers[name] = (x, w, b, g), (y, *grads), arguments
        return answers[name]

    return answer


@pytest.mark.parametrize("formats", [("channels_first",) * 2, ("channels_last",) * 2, FORMATS],
                         ids=["first", "last", "benchdnn-20-mixed"])  # fmt: skip
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CORNERS)
def test_corner(isa, solved, name, dtype, formats):
    inputs, expected, arguments = solved(name)
    x, w, b, g = cast(inputs, dtype)
    x, g = to_format(x, formats[0]), to_format(g, formats[1])
    y = F.conv2d(x, w, b, algorithm="direct", **arguments)
    grads = F.conv2d_backward(g, x, w, algorithm="direct", **arguments)
    for result, want in zip((y, *grads), expected, strict=True):
        np.testing.assert_array_equal(result, want)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize(
    "name",
    [
        "benchdnn-07-negative-implied-right-padding",
        "benchdnn-16-gaps-between-windows",
        "benchdnn-16-gaps-of-dilation-and-stride",
    ],
)
def test_unseen_inputs_have_gradient_zero(isa, rng, name, layout):
    """Plus zero, exactly, where no window looks; pytorch/pytorch and oneDNN had garbage there."""
    x_shape, w_shape, arguments = CORNERS[name]
    x, w = to_format(rng.random(x_shape), layout), rng.random(w_shape) + 1
    y = F.conv2d(x, w, **arguments)
    grad = F.conv2d_backward(rng.random(y.shape) + 1, x, w, **arguments)[0]
    seen = R.conv2d_backward(np.ones(y.shape), x, np.ones(w_shape), **arguments)[0] != 0
    assert not seen.all()
    assert (grad[seen] > 0).all()
    assert same_bits(grad[~seen], np.zeros((~seen).sum()))


SHAPES = {
    "batch": (5, 9, 7, 10),
    "height": (2, 9, 12, 10),
    "width": (2, 9, 7, 33),
    "swapped": (2, 9, 10, 7),
    "channels": (2, 17, 7, 10),
    "back": (2, 9, 7, 10),
}


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("change", SHAPES, ids=lambda change: f"xnnpack-pytorch-133304-{change}")
def test_new_shape_after_another(isa, rng, change, layout):
    """One layer, changing shapes: nothing of an earlier call remains."""
    for shape in ((2, 9, 7, 10), SHAPES[change], (2, 9, 7, 10)):
        x, w = to_format(integers(rng, shape), layout), integers(rng, (8, shape[1], 3, 3))
        y = F.conv2d(x, w, padding=1, algorithm="direct")
        np.testing.assert_array_equal(y, R.conv2d(x, w, padding=1))
        grads = F.conv2d_backward(y, x, w, padding=1, algorithm="direct")
        for grad, want in zip(grads, R.conv2d_backward(y, x, w, padding=1), strict=True):
            np.testing.assert_array_equal(grad, want)


@pytest.mark.parametrize("axis", [0, 1, 2, 3], ids=lambda axis: f"xnnpack-axis-{axis}")
def test_pixel_stride_larger_than_channels(isa, rng, axis):
    """Slices of a larger array along every axis, in both formats."""
    w = integers(rng, (6, 5, 3, 3))
    for layout in FORMATS:
        larger = [2, 5, 8, 9]
        larger[axis] += 7
        x = to_format(np.full(larger, np.nan), layout)
        x = x[
            tuple(slice(3, 3 + n) if i == axis else slice(None) for i, n in enumerate((2, 5, 8, 9)))
        ]
        x[...] = integers(rng, x.shape)
        y = F.conv2d(x, w, padding=1, algorithm="direct")
        np.testing.assert_array_equal(y, R.conv2d(x, w, padding=1))
        grads = F.conv2d_backward(y, x, w, padding=1, algorithm="direct")
        for grad, want in zip(grads, R.conv2d_backward(y, x, w, padding=1), strict=True):
            np.testing.assert_array_equal(grad, want)


@pytest.mark.parametrize("layout", FORMATS, ids=lambda layout: f"xnnpack-{layout}")
def test_zero_weights(isa, rng, layout):
    x, w = to_format(rng.standard_normal((2, 5, 8, 9)), layout), np.zeros((6, 5, 3, 3))
    y = F.conv2d(x, w, padding=1)
    np.testing.assert_array_equal(y, np.zeros((2, 6, 8, 9)))
    np.testing.assert_array_equal(F.conv2d_backward(y + 1, x, w, padding=1)[0], np.zeros(x.shape))


@pytest.mark.parametrize("layout", FORMATS, ids=lambda layout: f"modular-6712-{layout}")
def test_the_same_call_twice_gives_the_same_bits(isa, rng, layout):
    """Scratch memory is that of a call on other data in between."""
    x = to_format(rng.standard_normal((1, 5, 4, 33)), layout)
    for width in (1, 6, 13, 14, 15, 31, 64):
        w = rng.standard_normal((7, 5, 3, 3))
        arguments = {"padding": (1, width)}
        y = F.conv2d(x, w, **arguments)
        grads = F.conv2d_backward(y, x, w, **arguments)
        F.conv2d_backward(y * np.nan, x * np.nan, w, **arguments)
        for result, again in zip(
            (y, *grads),
            (F.conv2d(x, w, **arguments), *F.conv2d_backward(y, x, w, **arguments)),
            strict=True,
        ):
            assert same_bits(result, again)
