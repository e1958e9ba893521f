"""What the comparison with PyTorch is made of: random arguments, gradients, equality."""

import numpy as np
import pytest
from helpers import DTYPES, integers, to_format

import fastconv.functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional

NAN = np.nan
LAYOUTS = ("channels_first", "channels_last", "strided")


class Draw:
    """Random arguments, and the comparison of the results of both libraries."""

    def __init__(self, name):
        self.rng = np.random.default_rng(list(name.encode()))
        self.dtype = self.pick(*DTYPES)
        self.layout = self.pick(*LAYOUTS)
        self.axes = self.pick(1, 2, 2)

    def pick(self, *values):
        return values[self.rng.integers(len(values))]

    def chance(self, probability):
        return bool(self.rng.random() < probability)

    def ints(self, low, high, count=None):
        """A tuple with one int for each axis, both ends included."""
        drawn = self.rng.integers(low, high, self.axes if count is None else count, endpoint=True)
        return tuple(int(n) for n in drawn)

    def one(self, low, high):
        return int(self.rng.integers(low, high, endpoint=True))

    def normal(self, shape):
        return self.formatted(self.rng.standard_normal(shape).astype(self.dtype))

    def whole(self, shape, nan=0.0):
        x = integers(self.rng, shape, self.dtype)
        x[self.rng.random(shape) < nan] = NAN
        return self.formatted(x)

    def formatted(self, x):
        return to_format(x, self.layout) if x.ndim > 2 else x

    def call(self, name, *arguments, **keywords):
        """The 1-D or 2-D function of fastconv."""
        return getattr(F, name.replace("#", f"{self.axes}d"))(*arguments, **keywords)

    def torch(self, name):
        return getattr(TF, name.replace("#", f"{self.axes}d"))


def tensor(array, grad=False):
    return torch.tensor(np.array(array, order="C"), requires_grad=grad)


def differentiate(function, arrays, g):
    """The result of a torch function of `arrays`, and its gradients, as NumPy arrays."""
    leaves = [tensor(a, True) for a in arrays]
    y = function(*leaves)
    grads = torch.autograd.grad(y, leaves, tensor(np.asarray(g, dtype=arrays[0].dtype)))
    return [t.detach().numpy() for t in (y, *grads)]


def same(ours, theirs, bounds=0.0):
    """Shapes, dtypes, NaN, and values within `bounds` (one for all, or one for each)."""
    bounds = np.broadcast_to(bounds, len(ours)) if np.ndim(bounds) == 0 else bounds
    for mine, other, bound in zip(ours, theirs, bounds, strict=True):
        mine, other = np.asarray(mine), np.asarray(other)
        assert mine.shape == other.shape
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=0, atol=bound)
