"""Shapes and arguments that have broken convolution libraries.

The numbered shapes follow the regression list of oneDNN's benchdnn, where each of them stands for a
bug; the others come from the trackers named beside them.
"""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from helpers import DTYPES, FORMATS, integers, same_bits, to_format

import fastconv.functional as F
from fastconv import reference as R

# input shape, weight shape, arguments
CORNERS = {
    "01 stride h > w": ((1, 5, 17, 11), (6, 5, 3, 2), {"stride": (4, 1), "padding": (1, 0)}),
    "01 the same, axes swapped": (
        (1, 5, 11, 17),
        (6, 5, 2, 3),
        {"stride": (1, 4), "padding": (0, 1)},
    ),
    "02 right padding larger than kernel": (
        (2, 3, 5, 6),
        (4, 3, 3, 3),
        {"padding": ((0, 5), (1, 7))},
    ),
    "03 padding larger than the image": ((1, 3, 3, 3), (5, 3, 2, 2), {"padding": 4}),
    "04 image smaller than stride": ((1, 3, 2, 3), (4, 3, 2, 2), {"stride": 5}),
    "05 image inside the gap of the kernel": (
        (1, 3, 1, 1),
        (4, 3, 2, 2),
        {"padding": 1, "dilation": 2},
    ),
    "06 dilated kernel smaller than padding": (
        (2, 3, 5, 4),
        (4, 3, 2, 2),
        {"padding": 6, "dilation": 3},
    ),
    "07 unused rows": ((2, 5, 9, 8), (6, 5, 1, 1), {"stride": 3}),
    "08 1x1 with padding": ((2, 9, 4, 5), (17, 9, 1, 1), {"padding": 2}),
    "08 1x1 with padding and stride": (
        (2, 9, 4, 5),
        (17, 9, 1, 1),
        {"padding": ((1, 2), (0, 3)), "stride": 2},
    ),
    "09 kernel over both paddings": ((1, 3, 3, 3), (4, 3, 7, 7), {"padding": 3}),
    "09 kernel over both paddings, depthwise": (
        (1, 9, 3, 3),
        (9, 1, 7, 7),
        {"padding": 3, "groups": 9},
    ),
    "10 row of 3 outputs, 184 channels": ((1, 184, 4, 3), (33, 184, 3, 3), {"padding": 1}),
    "10 row of 5 outputs, 113 channels": ((1, 17, 2, 5), (113, 17, 1, 1), {}),
    "10 1387 channels": ((1, 1387, 1, 2), (3, 1387, 1, 1), {}),
    "10 1387 outputs": ((1, 3, 2, 2), (1387, 3, 2, 2), {"padding": (0, 1)}),
    "11 one channel per group": ((2, 2, 6, 7), (2, 1, 3, 3), {"groups": 2, "padding": 1}),
    "11 two channels per group": ((2, 4, 6, 7), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "11 three channels per group": ((2, 6, 6, 7), (2, 3, 3, 3), {"groups": 2, "padding": 1}),
    "12 row of 1048576": ((1, 1, 1, 1048576), (1, 1, 1, 500), {"stride": (1, 500)}),
    "12 row of 84350 with 33 channels": (
        (1, 33, 1, 84350),
        (2, 33, 1, 500),
        {"stride": (1, 500)},
    ),
    "14 row of 123": ((1, 1, 3, 123), (16, 1, 3, 10), {}),
    "14 row of 124": ((1, 1, 3, 124), (16, 1, 3, 10), {"padding": (1, 0), "stride": (1, 2)}),
    "15 kernel of 100": ((1, 2, 101, 103), (3, 2, 100, 100), {}),
    "16 gaps between windows": ((2, 3, 11, 13), (4, 3, 2, 2), {"stride": (3, 4), "padding": 1}),
    "16 gaps of dilation and stride": ((2, 3, 13, 12), (4, 3, 2, 3), {"stride": 4, "dilation": 2}),
    "17 kernel of 31": ((1, 3, 9, 35), (4, 3, 31, 31), {"padding": 15}),
    "17 kernel of 31, depthwise": ((1, 9, 9, 35), (9, 1, 31, 31), {"padding": 15, "groups": 9}),
    "18 5x5 on 7x7": ((2, 17, 7, 7), (9, 17, 5, 5), {"padding": 2}),
    "19 top padding meets bottom padding": ((1, 3, 2, 9), (4, 3, 3, 3), {"padding": 1}),
    "19 one row between paddings": ((1, 3, 1, 9), (4, 3, 5, 3), {"padding": 2}),
    "21 dilation 29 on few rows": ((1, 3, 4, 33), (4, 3, 3, 3), {"padding": 29, "dilation": 29}),
    "21 dilation 29, depthwise": (
        (1, 17, 4, 33),
        (17, 1, 3, 3),
        {"padding": 29, "dilation": 29, "groups": 17},
    ),
    "zero channels of a batch in two panels": ((1, 2, 3, 3), (33, 2, 3, 3), {"padding": 1}),
    "windows that see only padding": (
        (1, 3, 2, 2),
        (4, 3, 2, 2),
        {"padding": ((7, 0), (0, 9)), "stride": 3},
    ),
    "negative padding of a gradient": ((2, 3, 9, 9), (4, 3, 1, 3), {"stride": (2, 4)}),
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
                         ids=["first", "last", "20 mixed"])  # fmt: skip
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
    "name", ["07 unused rows", "16 gaps between windows", "16 gaps of dilation and stride"]
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


@pytest.mark.parametrize("change", ["batch", "height", "width", "swapped", "channels", "back"])
def test_new_shape_after_another(isa, rng, change):
    """One layer, changing shapes: nothing of an earlier call remains (pytorch/pytorch#133304)."""
    shapes = {
        "batch": (5, 9, 7, 10),
        "height": (2, 9, 12, 10),
        "width": (2, 9, 7, 33),
        "swapped": (2, 9, 10, 7),
        "channels": (2, 17, 7, 10),
        "back": (2, 9, 7, 10),
    }
    for shape in ((2, 9, 7, 10), shapes[change], (2, 9, 7, 10)):
        x, w = integers(rng, shape), integers(rng, (8, shape[1], 3, 3))
        y = F.conv2d(x, w, padding=1, algorithm="direct")
        np.testing.assert_array_equal(y, R.conv2d(x, w, padding=1))


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
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


def test_zero_weights(isa, rng):
    x, w = rng.standard_normal((2, 5, 8, 9)), np.zeros((6, 5, 3, 3))
    np.testing.assert_array_equal(F.conv2d(x, w, padding=1), np.zeros((2, 6, 8, 9)))


def test_input_with_more_than_2_to_31_elements(isa):
    """13: offsets beyond 32 bits. One row repeated: the memory is that of a row."""
    row = np.arange(64, dtype=np.float32)
    x = np.broadcast_to(row, (1, 1, 2**26, 64))
    y = F.conv2d(x, np.ones((1, 1, 1, 1), np.float32), stride=(2**22, 1))
    np.testing.assert_array_equal(y, np.broadcast_to(row, (1, 1, 16, 64)))
    x = np.broadcast_to(np.float32(1), (2**16, 2**8, 2**4, 2**4))[:: 2**15]
    y = F.conv2d(x, np.ones((2, 2**8, 16, 16), np.float32))
    np.testing.assert_array_equal(y, np.full((2, 2, 1, 1), np.float32(2**16)))


GUARDED = textwrap.dedent("""
    import ctypes, itertools, mmap
    import numpy as np
    import fastconv, fastconv.functional as F

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    PAGE, pages = mmap.PAGESIZE, []

    def guarded(shape, dtype, at_end):
        # An array that touches the unreadable page after it, or the one before it.
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        middle = -(-nbytes // PAGE) * PAGE
        block = mmap.mmap(-1, middle + 2 * PAGE)
        pages.append(block)
        start = ctypes.addressof(ctypes.c_char.from_buffer(block))
        for address in (start, start + PAGE + middle):
            assert libc.mprotect(address, PAGE, 0) == 0
        offset = PAGE + (middle - nbytes if at_end else 0)
        array = np.frombuffer(block, np.uint8, nbytes, offset).view(dtype).reshape(shape)
        array[...] = 1
        return array

    def image(shape, dtype, at_end, last):
        n, c, h, w = shape
        if last:
            return guarded((n, h, w, c), dtype, at_end).transpose(0, 3, 1, 2)
        return guarded(shape, dtype, at_end)

    SHAPES = [
        ((1, 1, 3, 123), (16, 1, 3, 10), {}),
        ((1, 1, 2, 124), (1, 1, 1, 10), {"stride": (1, 2)}),
        ((1, 3, 5, 16), (7, 3, 3, 3), {"padding": 1}),
        ((2, 3, 5, 9), (5, 3, 3, 3), {"stride": 2}),
        ((1, 9, 4, 10), (9, 1, 3, 3), {"padding": 1, "groups": 9}),
        ((1, 17, 4, 5), (33, 17, 1, 1), {}),
        ((1, 17, 5, 5), (3, 17, 1, 1), {"stride": 2}),
        ((1, 6, 4, 7), (4, 3, 2, 2), {"groups": 2, "dilation": 2}),
        ((1, 2, 1, 31), (2, 1, 1, 5), {"groups": 2}),
    ]
    for isa, dtype, at_end, last, (x_shape, w_shape, arguments) in itertools.product(
        fastconv.isas(), (np.float32, np.float64), (0, 1), (0, 1), SHAPES
    ):
        with fastconv.use_isa(isa):
            x = image(x_shape, dtype, at_end, last)
            w, b = guarded(w_shape, dtype, at_end), guarded(w_shape[:1], dtype, at_end)
            want = F.conv2d(x.copy(), w.copy(), b.copy(), algorithm="direct", **arguments)
            y = image(want.shape, dtype, at_end, last)
            assert F.conv2d(x, w, b, algorithm="direct", out=y, **arguments) is y
            assert np.array_equal(y, want)
            F.conv2d(x, w, b, out=y, **arguments)
            F.conv2d_backward(y, x, w, **arguments)
            up = {k: v for k, v in arguments.items() if k != "padding"}
            F.conv_transpose2d(y, w, None, **up)
        pages.clear()
    print("done")
""")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect of an mmap")
def test_14_nothing_outside_the_arrays_is_touched():
    """Every array between two unreadable pages; a read or write past it ends the child process."""
    run = subprocess.run(
        [sys.executable, "-c", GUARDED], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "done\n"
