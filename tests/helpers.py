"""Data, memory formats and bounds shared by the tests of convolution."""

import numpy as np

from fastconv import nn

DTYPES = (np.float32, np.float64)
FORMATS = ("channels_first", "channels_last")
ALL_FORMATS = (*FORMATS, "strided", "fortran")
SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 97)  # around the widths of vectors and tiles


def integers(rng, shape, dtype=np.float64, reach=4):
    """Whole numbers in [-reach, reach]: float32 sums of them are exact below 2**24."""
    return rng.integers(-reach, reach + 1, shape).astype(dtype)


def to_format(x, layout):
    """The values of `x` (N, C, ...) in other memory.

    "strided" is every second element of an array of NaN, shifted by one: what lies between and
    around the values must not be read.
    """
    if layout == "channels_first":
        return np.ascontiguousarray(x)
    if layout == "channels_last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    if layout == "fortran":
        return np.asfortranarray(x)
    if layout == "strided":
        base = np.full([2 * size + 1 for size in x.shape], np.nan, x.dtype)
        spaced = base[(slice(1, None, 2),) * x.ndim]
        spaced[...] = x
        return spaced
    raise ValueError(f"unknown layout {layout!r}")


def poisoned(*shape, dtype=np.float32, layout="channels_first"):
    """An array of NaN in a memory format."""
    return to_format(np.full(shape, np.nan, dtype), layout)


def is_channels_last(x):
    return np.moveaxis(x, 1, -1).flags.c_contiguous


def eps(dtype):
    return float(np.finfo(dtype).eps)


def tolerance(terms, dtype):
    """A bound of the error of a sum of `terms` products, relative to the sum of their magnitudes.

    lambda * sqrt(terms) * u with the unit roundoff u = eps / 2 and lambda = 2 (Higham and Mary
    2019, "A new approach to probabilistic rounding error analysis"). For terms of random sign the
    sums on the way are about sqrt(terms) times smaller than the sum of magnitudes, and so is the
    error: no output comes near the bound by chance.
    """
    return eps(dtype) * np.sqrt(terms)


def same_bits(a, b):
    """Equal bit for bit, signs of zero and payloads of NaN included."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def randomized(model):
    """Statistics of the norms as training leaves them: from data, the affine parts random."""
    rng = np.random.default_rng(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean[...] = rng.normal(0.0, 0.3, module.num_features)
            module.running_var[...] = rng.uniform(0.5, 2.0, module.num_features)
            if module.weight is not None:
                module.weight.data[...] = rng.uniform(0.5, 1.5, module.num_features)
                module.bias.data[...] = rng.normal(0.0, 0.3, module.num_features)
    return model
