"""Memory that has broken convolution libraries: offsets beyond 32 bits, the pages around an array.

The large arrays of the default run are almost all holes; `-m long` fills them.
"""

import mmap
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from helpers import FORMATS, to_format

import fastconv.functional as F

pytestmark = pytest.mark.usefixtures("corner_case")


def needs_gib(count):
    """Skips the test where the machine has less free memory."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if free < count:
        pytest.skip(f"needs {count} GiB of free memory, {free:.1f} there")


ROWS, STEP = 2**25 + 2**22 + 1, 2**22  # rows of 64: 2.4e9 elements, one row in 2**22 is looked at


@pytest.fixture
def sparse():
    """9.7 GB of address space that has memory only where something is written: rows 0, STEP, ..."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs memory that is not reserved")
    no_reserve = 0x4000  # MAP_NORESERVE, which Python 3.11 does not name
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
    block = np.frombuffer(mmap.mmap(-1, ROWS * 64 * 4, flags=flags), np.float32)
    rows = block.reshape(ROWS, 64)
    for row in range(0, ROWS, STEP):
        rows[row] = np.arange(64) % 7 - row // STEP
    return rows


@pytest.mark.parametrize("channels", [1, 3], ids=["rows", "channels"])
def test_benchdnn_13_offsets_beyond_32_bits(isa, sparse, channels):
    """Rows, or channels, that are more than 2**32 bytes apart; also pytorch/pytorch#84488."""
    rows = ROWS // channels
    x = sparse[: rows * channels].reshape(1, channels, rows, 64)
    seen = x[:, :, ::STEP].copy()
    w = np.arange(4 * channels * 3, dtype=np.float32).reshape(4, channels, 1, 3) % 5 - 2
    arguments = {"padding": (0, 1), "algorithm": "direct"}
    y = F.conv2d(x, w, stride=(STEP, 1), **arguments)
    np.testing.assert_array_equal(y, F.conv2d(seen, w, **arguments))
    _, grad, _ = F.conv2d_backward(
        y, x, w, stride=(STEP, 1), output_mask=(False, True, False), **arguments
    )
    np.testing.assert_array_equal(grad, F.conv2d_backward(y, seen, w, **arguments)[1])


def test_tracker_pool_indices_larger_than_int32(isa, sparse):
    """Also pytorch/pytorch#197409: narrowed to 32 bits before the check of bounds."""
    y, indices = F.max_pool2d(sparse[np.newaxis], (1, 2), (STEP, 2), return_indices=True)
    want, where = F.max_pool2d(sparse[np.newaxis, ::STEP], (1, 2), (1, 2), return_indices=True)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(indices, where + where // 64 * 64 * (STEP - 1))
    assert indices.max() > 2**31


@pytest.mark.long
@pytest.mark.parametrize("layout", FORMATS)
def test_benchdnn_13_64_channels_of_4480_by_2976(layout):
    """853,278,720 elements, 3.4 GB: every gradient at the corners and in the middle."""
    needs_gib(12)
    shape = (1, 64, 4480, 2976)
    x = to_format(np.empty(shape, np.float32), layout)
    for c in range(shape[1]):
        plane = np.arange(shape[2] * shape[3], dtype=np.int32) * (2 * c + 1) % 7 - 3
        x[0, c] = plane.reshape(shape[2:])
    w = np.random.default_rng(13).integers(-2, 3, (2, 64, 3, 3)).astype(np.float32)
    y = F.conv2d(x, w, algorithm="direct")
    assert y.shape == (1, 2, 4478, 2974)
    spots = [(0, 0), (0, 2973), (2239, 1487), (4477, 0), (4477, 2973)]
    for i, j in spots:
        window = x[0, :, i : i + 3, j : j + 3]
        np.testing.assert_array_equal(y[0, :, i, j], (w * window).sum(axis=(1, 2, 3)))
    g = np.zeros_like(y)
    for i, j in spots:
        g[0, :, i, j] = 1, -1
    grad_x, grad_w, grad_b = F.conv2d_backward(g, x, w, algorithm="direct")
    want = sum(x[0, :, i : i + 3, j : j + 3] for i, j in spots)
    np.testing.assert_array_equal(grad_w, np.stack([want, -want]))
    np.testing.assert_array_equal(grad_b, [5, -5])
    for i, j in spots:
        np.testing.assert_array_equal(grad_x[0, :, i : i + 3, j : j + 3], w[0] - w[1])
        grad_x[0, :, i : i + 3, j : j + 3] = 0
    assert not grad_x.any()


@pytest.mark.long
def test_tracker_pool_of_a_plane_of_more_than_2_to_31_elements():
    needs_gib(18)
    shape = (1, 1, 2**16, 2**15 + 1)
    x = np.zeros(shape, np.float32)
    x[0, 0, -1, -1], x[0, 0, 0, 1], x[0, 0, -2, 5] = 3, 2, 1
    y, indices = F.max_pool2d(x, 2**15, return_indices=True)
    np.testing.assert_array_equal(y, [[[[2], [1]]]])
    np.testing.assert_array_equal(indices, [[[[1], [(2**16 - 2) * (2**15 + 1) + 5]]]])
    del x
    grad = F.max_pool2d_backward(y, indices, shape)
    assert grad[0, 0, -2, 5] == 1
    assert grad[0, 0, 0, 1] == 2
    assert np.count_nonzero(grad) == 2


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
def test_benchdnn_14_nothing_outside_the_arrays_is_touched():
    """Every array between two unreadable pages; a read or write past it ends the child process."""
    run = subprocess.run(
        [sys.executable, "-c", GUARDED], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "done\n"
