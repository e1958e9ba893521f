"""unfold and fold: against the reference and torch, adjoint to each other, in any memory layout."""

import numpy as np
import pytest
from array_variants import variants

import fastconv.functional as F
import fastconv.reference as R

# (H, W), kernel_size, dilation, padding, stride
CASES = [
    ((5, 6), 3, 1, 0, 1),
    ((5, 6), (2, 3), (2, 1), (1, 2), (1, 3)),
    ((7, 4), 2, 1, ((0, 3), (2, 0)), 2),
    ((7, 5), 3, 1, "same", 2),
    ((6, 5), 4, 1, "same_lower", 3),
    ((3, 4), 3, 2, "full", 1),
    ((4, 4), 2, 1, "valid", 3),  # gaps: rows and columns that no window touches
    ((1, 1), 1, 1, 3, 2),  # taps that always lie in the padding
    ((2, 2), 3, 1, 5, 4),
    ((1, 9), (1, 3), 1, 0, (1, 2)),
]


def images(shape, seed=0, dtype=np.float64):
    """Small integers: all sums are exact."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


@pytest.mark.parametrize(("size", "kernel", "dilation", "padding", "stride"), CASES)
@pytest.mark.parametrize("lead", [(2, 3), (3,)])
def test_against_reference(lead, size, kernel, dilation, padding, stride):
    window = kernel, dilation, padding, stride
    x = images((*lead, *size))
    columns = F.unfold(x, *window)
    np.testing.assert_array_equal(columns, R.unfold(x, *window))
    c = images(columns.shape, 1)
    image = F.fold(c, size, *window)
    np.testing.assert_array_equal(image, R.fold(c, size, *window))
    np.testing.assert_array_equal(F.unfold_backward(c, x.shape, *window), image)
    np.testing.assert_array_equal(F.fold_backward(x, size, *window), columns)
    assert np.vdot(columns, c) == np.vdot(x, image)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_memory(dtype):
    window = (3, 2), 1, ((1, 0), (0, 2)), 2
    x = images((2, 3, 6, 5), dtype=dtype)
    columns = F.unfold(x, *window)
    assert columns.dtype == dtype
    for name, other in variants(x):
        before = other.copy()
        np.testing.assert_array_equal(F.unfold(other, *window), columns, err_msg=name)
        np.testing.assert_array_equal(other, before)
    image = F.fold(columns, (6, 5), *window)
    for name, other in variants(columns):
        result = F.fold(other, (6, 5), *window)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, image, err_msg=name)


def test_out():
    x = images((2, 3, 5, 5))
    columns, strided = np.full((2, 12, 9), np.nan), np.full((9, 12, 2), np.nan).T
    window = 2, 1, 1, 2
    assert F.unfold(x, *window, out=columns) is columns
    assert F.unfold(x, *window, out=strided) is strided
    np.testing.assert_array_equal(columns, F.unfold(x, *window))
    np.testing.assert_array_equal(strided, columns)
    image = np.full((2, 5, 5, 3), np.nan).transpose(0, 3, 1, 2)
    assert F.fold(columns, 5, *window, out=image) is image
    np.testing.assert_array_equal(image, F.fold(columns, 5, *window))


def test_unfold_of_integers():
    x = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    np.testing.assert_array_equal(F.unfold(x, 2)[:, 0], [0, 1, 3, 4])
    assert F.unfold(x, 2, padding=1).dtype == np.uint8


def test_empty():
    assert F.unfold(np.zeros((0, 3, 4, 4)), 2).shape == (0, 12, 9)
    assert F.unfold(np.zeros((2, 0, 4, 4)), 2).shape == (2, 0, 9)
    assert F.fold(np.zeros((0, 12, 9)), 4, 2).shape == (0, 3, 4, 4)
    assert F.fold(np.zeros((2, 0, 9)), 4, 2).shape == (2, 0, 4, 4)


def test_columns_times_weight_is_convolution():
    x, w = images((2, 3, 6, 7), 2), images((4, 3, 3, 2), 3)
    y = w.reshape(4, -1) @ F.unfold(x, (3, 2), padding=1, stride=2)
    expected = R.conv2d(x, w, stride=2, padding=1)
    np.testing.assert_array_equal(y.reshape(expected.shape), expected)


def test_nan_in_the_image_stays_in_its_windows():
    x = np.zeros((1, 3, 3))
    x[0, 0, 0] = np.nan
    columns = F.unfold(x, 2, padding=1)
    assert np.isnan(columns).sum() == 4
    assert np.isnan(columns[:, [0, 1, 4, 5]]).any(axis=0).all()


@pytest.mark.parametrize(
    ("size", "kernel", "dilation", "padding", "stride"),
    [c for c in CASES if isinstance(c[3], int) or isinstance(c[3][0], int)],
)
def test_against_torch(size, kernel, dilation, padding, stride):
    torch = pytest.importorskip("torch")
    window = kernel, dilation, padding, stride
    x = images((2, 3, *size))
    t = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.unfold(t, *window)
    np.testing.assert_array_equal(F.unfold(x, *window), expected.detach().numpy())
    c = images(expected.shape, 4)
    expected.backward(torch.tensor(c))
    np.testing.assert_array_equal(F.unfold_backward(c, x.shape, *window), t.grad.numpy())
    image = torch.nn.functional.fold(torch.tensor(c), size, *window)
    np.testing.assert_array_equal(F.fold(c, size, *window), image.numpy())
