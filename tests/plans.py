"""Models and layers for the tests of inference plans, and the bound of their errors."""

import math

import numpy as np
from helpers import randomized, tolerance

from fastconv import models, nn

MODELS = {
    "logistic_regression": (3, 1, 28, 28),
    "softmax_regression": (1, 3, 28, 28),
    "mlp": (3, 1, 28, 28),
    "lenet5": (2, 1, 28, 28),
    "resnet8": (2, 3, 9, 9),
    "resnet20": (2, 3, 32, 32),
    "resnet18": (1, 3, 64, 64),
    "resnet50": (1, 3, 64, 64),
    "mobilenet_v2": (2, 3, 64, 64),
    "resnet1d": (2, 2, 50),
}
WINOGRAD = 4  # its errors over those of a direct sum of the same products


def build(name, shape, dtype=np.float32):
    """A model for that shape whose norms have statistics, weights and biases of their own."""
    options = {"in_channels": shape[1], "rng": 0, "dtype": dtype}
    model = models.create(name, **options)
    return randomized(model)


def statistics_from_data(model, shape, dtype):
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    model.train()
    model(np.random.default_rng(5).standard_normal((4, *shape[1:])).astype(dtype))
    model.release()
    return model.eval()


def bound(plan, y):
    """Each layer adds errors of a sum of its terms; two computations of it are compared."""
    terms = [node.macs // math.prod(node.y.shape) for node in plan.nodes if node.macs]
    layers = sum(tolerance(count, y.dtype) for count in terms) + 4 * tolerance(1, y.dtype)
    return 2 * WINOGRAD * layers * max(1.0, np.abs(y).max())


def normal(shape, dtype=np.float64, seed=2):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(plan, x, expected):
    y = plan(x)
    assert y.shape == expected.shape == plan.output_shape
    assert y.dtype == expected.dtype
    assert np.abs(y - expected).max() <= bound(plan, expected)
    return y


class Double(nn.Module):
    """A layer without a rule."""

    def forward(self, x):
        return np.concatenate([x, x], axis=1)


class Shifted(nn.ReLU):
    """Replaces the forward of a layer that has a rule."""

    def forward(self, x):
        return super().forward(x) + 1


class Doubled(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


class Scale(nn.Module):
    """A layer without a rule that has parameters and a float buffer."""

    def __init__(self, channels):
        self.weight = nn.Parameter(np.linspace(1, 2, channels))
        self.register_buffer("shift", np.linspace(-1, 1, channels))

    def forward(self, x):
        extra = (1,) * (x.ndim - 2)
        return x * self.weight.data.reshape(-1, *extra) + self.shift.reshape(-1, *extra)


def conv(inputs, outputs, kernel=3, padding=1, **options):
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, rng=0, dtype=np.float64, **options)


def conv1(inputs, outputs, kernel=3, **options):
    return nn.Conv1d(inputs, outputs, kernel, rng=0, dtype=np.float64, **options)


def norm(channels, **options):
    return nn.BatchNorm2d(channels, dtype=np.float64, **options)


def linear(inputs, outputs, **options):
    return nn.Linear(inputs, outputs, rng=0, dtype=np.float64, **options)


IMAGE, SIGNAL, ROWS = (6, 9, 8), (5, 20), (12,)
