"""Values and memory that have broken convolution libraries; ids as in test_corner_cases.py."""

import numpy as np
import pytest
from helpers import DTYPES, FORMATS, integers, same_bits, to_format

import fastconv.functional as F
from fastconv import reference as R

pytestmark = pytest.mark.usefixtures("corner_case")

# input shape, weight shape, arguments
PADDED = {
    "direct": ((2, 5, 6, 7), (9, 5, 3, 3), {"padding": 1}),
    "few-outputs": ((2, 3, 6, 7), (2, 3, 3, 3), {"padding": 1}),
    "depthwise": ((2, 9, 6, 7), (9, 1, 3, 3), {"padding": 1, "groups": 9}),
    "strided": ((2, 5, 7, 8), (9, 5, 3, 3), {"padding": 1, "stride": 2}),
    "dilated": ((2, 5, 12, 12), (9, 5, 3, 3), {"padding": 4, "dilation": 4}),
    "grouped": ((2, 6, 6, 7), (8, 3, 3, 3), {"padding": 1, "groups": 2}),
    "asymmetric": ((1, 3, 5, 6), (17, 3, 2, 4), {"padding": ((1, 0), (0, 3))}),
    "5x5": ((2, 1, 9, 9), (6, 1, 5, 5), {"padding": 2}),
    "64-channels": ((1, 64, 6, 9), (64, 64, 3, 3), {"padding": 1}),
}
SPECIAL = {"inf": np.inf, "nan": np.nan}

special = pytest.mark.parametrize("value", SPECIAL.values(), ids=SPECIAL)
layouts = pytest.mark.parametrize("layout", FORMATS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


padded = pytest.mark.parametrize(
    "case", PADDED, ids=lambda case: f"tracker-inf-times-padding-{case}"
)
both = pytest.mark.parametrize("algorithm", ["direct", "auto"])


@pytest.fixture(autouse=True)
def _no_warnings_of_the_reference():
    """NumPy warns of inf - inf and 0 * inf; fastconv does not."""
    with np.errstate(invalid="ignore"):
        yield


def positive(rng, shape, dtype):
    return rng.integers(1, 4, shape).astype(dtype)


def with_corners(array, value):
    """A copy whose first and last element is `value`."""
    array = array.copy()
    array.flat[[0, -1]] = value
    return array


def agree(result, want, algorithm):
    """Equal; of "auto", which may round, what is not finite."""
    if algorithm == "auto":
        finite = np.isfinite(want)
        assert np.isfinite(result[finite]).all()
        result, want = result[~finite], want[~finite]
    np.testing.assert_array_equal(result, want)


def problem(rng, case, dtype):
    x_shape, w_shape, arguments = PADDED[case]
    x, w = positive(rng, x_shape, dtype), positive(rng, w_shape, dtype)
    g = positive(rng, R.conv2d(x, w, **arguments).shape, dtype)
    return x, w, g, arguments


@special
@both
@layouts
@dtypes
@padded
def test_special_weight_on_zero_padding(isa, rng, case, dtype, layout, algorithm, value):
    x, w, _, arguments = problem(rng, case, dtype)
    w = with_corners(w, value)
    y = F.conv2d(to_format(x, layout), w, algorithm=algorithm, **arguments)
    agree(y, R.conv2d(x, w, **arguments), algorithm)


@special
@both
@layouts
@dtypes
@padded
def test_input_gradient_of_a_special_weight(isa, rng, case, dtype, layout, algorithm, value):
    """Positions outside grad_output are not multiplied either."""
    x, w, g, arguments = problem(rng, case, dtype)
    w, mask = with_corners(w, value), (True, False, False)
    grad, _, _ = F.conv2d_backward(
        to_format(g, layout), x, w, algorithm=algorithm, output_mask=mask, **arguments
    )
    agree(grad, R.conv2d_backward(g, x, w, **arguments)[0], algorithm)


@special
@both
@layouts
@dtypes
@padded
def test_weight_gradient_of_a_special_grad_output(isa, rng, case, dtype, layout, algorithm, value):
    x, w, g, arguments = problem(rng, case, dtype)
    g, mask = with_corners(g, value), (False, True, False)
    _, grad, _ = F.conv2d_backward(
        to_format(g, layout), x, w, algorithm=algorithm, output_mask=mask, **arguments
    )
    agree(grad, R.conv2d_backward(g, x, w, **arguments)[1], algorithm)


@special
@layouts
@dtypes
@padded
def test_special_input_and_grad_output_reach_their_windows_only(
    isa, rng, case, dtype, layout, value
):
    """The image itself, and grad_output in the other two gradients."""
    x, w, g, arguments = problem(rng, case, dtype)
    x, spoilt = with_corners(x, value), with_corners(g, value)
    formatted = to_format(x, layout)
    y = F.conv2d(formatted, w, algorithm="direct", **arguments)
    np.testing.assert_array_equal(y, R.conv2d(x, w, **arguments))
    for result, want in zip(
        F.conv2d_backward(g, formatted, w, algorithm="direct", **arguments),
        R.conv2d_backward(g, x, w, **arguments),
        strict=True,
    ):
        np.testing.assert_array_equal(result, want)
    grad_x, _, grad_b = F.conv2d_backward(
        to_format(spoilt, layout), x, w, algorithm="direct", **arguments
    )
    want = R.conv2d_backward(spoilt, x, w, **arguments)
    np.testing.assert_array_equal(grad_x, want[0])
    np.testing.assert_array_equal(grad_b, want[2])


@pytest.mark.parametrize("role", ["input", "weight", "grad_output"])
@layouts
@dtypes
def test_tracker_denormal(isa, dtype, layout, role):
    """Subnormal numbers are numbers: n times the smallest has n as its bits.

    Compared as integers: to a thread that takes subnormals for zeros they would all be equal.
    """
    ones = [np.ones(shape, dtype) for shape in ((2, 4, 5, 6), (3, 4, 2, 2), (2, 3, 4, 5))]
    counts = R.conv2d(*ones[:2]), *R.conv2d_backward(ones[2], *ones[:2])
    given = dict(zip(("input", "weight", "grad_output"), ones, strict=True))
    x, w, g = (
        {**given, role: np.full_like(given[role], np.finfo(dtype).smallest_subnormal)}
    ).values()
    x, g = to_format(x, layout), to_format(g, layout)
    of = {"input": (0, 2), "weight": (0, 1), "grad_output": (1, 2, 3)}[role]
    for algorithm in ("direct", "auto"):
        y = F.conv2d(x, w, algorithm=algorithm)
        results = y, *F.conv2d_backward(g, x, w, algorithm=algorithm)
        for number, (result, count) in enumerate(zip(results, counts, strict=True)):
            bits = np.ascontiguousarray(result).view(f"u{result.itemsize}")
            want = count.astype(bits.dtype) if number in of else count.view(bits.dtype)
            np.testing.assert_array_equal(bits, want)


def transposed_weight(w):
    return np.ascontiguousarray(w.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)


def flipped_weight(w):
    return np.ascontiguousarray(w[:, :, ::-1, ::-1])[:, :, ::-1, ::-1]


def sliced_weight(w):
    wide = np.full((w.shape[0], 3 * w.shape[1], *w.shape[2:]), np.nan, w.dtype)
    wide[:, 1::3] = w
    return wide[:, 1::3]


@pytest.mark.parametrize("memory", [transposed_weight, flipped_weight, sliced_weight])
@pytest.mark.parametrize("case", PADDED, ids=lambda case: f"pytorch-55781-{case}")
def test_weights_that_are_not_contiguous(isa, rng, case, memory):
    x, w, g, arguments = problem(rng, case, np.float32)
    strided = memory(w)
    assert same_bits(strided, w)
    y = F.conv2d(x, strided, **arguments)
    assert same_bits(y, F.conv2d(x, w, **arguments))
    for result, want in zip(
        F.conv2d_backward(g, x, strided, **arguments),
        F.conv2d_backward(g, x, w, **arguments),
        strict=True,
    ):
        assert same_bits(result, want)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 9, 1, 1), (2, 1, 6, 1)], ids=str)
@dtypes
def test_tracker_expanded_grad_output(isa, rng, dtype, shape):
    """Stride 0, what the gradient of a sum or a mean is, through every kind of layer."""
    x, w = integers(rng, (2, 5, 6, 7), dtype), integers(rng, (9, 5, 3, 3), dtype)
    g = np.broadcast_to(integers(rng, shape, dtype), (2, 9, 6, 7))
    grads = F.conv2d_backward(g, x, w, padding=1, algorithm="direct")
    for result, want in zip(grads, R.conv2d_backward(g.copy(), x, w, padding=1), strict=True):
        np.testing.assert_array_equal(result, want)
    big = (2, 9, 12, 14)
    _, indices = F.max_pool2d(integers(rng, big, dtype), 2, return_indices=True)
    np.testing.assert_array_equal(
        F.max_pool2d_backward(g, indices, big), R.max_pool2d_backward(g.copy(), indices, big)
    )
    np.testing.assert_array_equal(
        F.avg_pool2d_backward(g, big, 2), R.avg_pool2d_backward(g.copy(), big, 2)
    )


def test_tracker_read_only_memmap(isa, rng, tmp_path):
    """The file is read, never written: a write to it would end the process."""
    x, w = integers(rng, (2, 5, 6, 7), np.float32), integers(rng, (9, 5, 3, 3), np.float32)
    for name, array in (("x", x), ("w", w)):
        np.save(tmp_path / f"{name}.npy", array)
    x_map, w_map = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xw")
    assert isinstance(x_map, np.memmap)
    y = F.conv2d(x_map, w_map, padding=1, algorithm="direct")
    np.testing.assert_array_equal(y, R.conv2d(x, w, padding=1))
    grads = F.conv2d_backward(y, x_map, w_map, padding=1, algorithm="direct")
    for result, want in zip(grads, R.conv2d_backward(y, x, w, padding=1), strict=True):
        np.testing.assert_array_equal(result, want)
    pooled, indices = F.max_pool2d(x_map, 2, return_indices=True)
    np.testing.assert_array_equal(F.max_unpool2d(pooled, indices, 2, output_size=(6, 7)).max(), 4)
    assert same_bits(np.load(tmp_path / "x.npy"), x)


@dtypes
def test_tracker_big_endian(isa, rng, dtype):
    x, w, g = (integers(rng, s, dtype) for s in ((2, 5, 6, 7), (9, 5, 3, 3), (2, 9, 6, 7)))
    swapped = [a.astype(a.dtype.newbyteorder(">")) for a in (x, w, g)]
    y = F.conv2d(*swapped[:2], padding=1)
    assert same_bits(y, F.conv2d(x, w, padding=1))
    for result, want in zip(
        F.conv2d_backward(swapped[2], *swapped[:2], padding=1),
        F.conv2d_backward(g, x, w, padding=1),
        strict=True,
    ):
        assert same_bits(result, want)
    assert same_bits(F.max_pool2d(swapped[0], 2), F.max_pool2d(x, 2))
    assert same_bits(F.relu(swapped[0]), F.relu(x))


@pytest.mark.parametrize(
    ("x_shape", "w_shape"),
    [((0, 3, 5, 6), (4, 3, 3, 3)), ((0, 8, 5, 6), (8, 1, 3, 3)), ((0, 64, 9, 9), (64, 64, 3, 3))],
    ids=lambda shape: f"tracker-empty-batch-{shape}",
)
@layouts
def test_empty_batch(isa, x_shape, w_shape, layout):
    x, w = to_format(np.empty(x_shape, np.float32), layout), np.ones(w_shape, np.float32)
    groups = x_shape[1] // w_shape[1]
    y = F.conv2d(x, w, groups=groups)
    assert y.shape == (0, w_shape[0], x_shape[2] - 2, x_shape[3] - 2)
    grad_x, grad_w, grad_b = F.conv2d_backward(y, x, w, groups=groups)
    assert grad_x.shape == x_shape
    assert same_bits(grad_w, np.zeros_like(w))
    assert same_bits(grad_b, np.zeros(w_shape[0], np.float32))
