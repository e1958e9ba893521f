"""Windows, data and memory formats shared by the tests of pools."""

import numpy as np

# shape, kernel, stride, padding, dilation, ceil_mode
WINDOWS = {
    "resnet stem": ((2, 5, 12, 11), 3, 2, 1, 1, False),
    "lenet": ((3, 6, 8, 10), 2, None, 0, 1, False),
    "overlapping": ((2, 3, 7, 9), 3, 1, 1, 1, False),
    "gaps between windows": ((1, 4, 11, 13), 2, 3, 1, 1, False),
    "dilated": ((2, 3, 9, 10), 3, (2, 1), (2, 1), (2, 3), False),
    "dilated past the image": ((1, 2, 3, 4), (3, 1), 1, (2, 0), (2, 1), False),
    "asymmetric": ((1, 17, 6, 9), (3, 4), (2, 1), ((1, 0), (0, 2)), 1, False),
    "same": ((1, 3, 7, 8), (3, 2), (2, 3), "same", 1, False),
    "same_lower": ((1, 3, 7, 8), (3, 2), (2, 3), "same_lower", 1, False),
    "ceil": ((2, 3, 8, 9), 3, 2, 1, 1, True),
    "ceil, last window would start in the padding": ((1, 2, 4, 5), 2, 2, 1, 1, True),
    "ceil, window larger than the input": ((1, 2, 2, 3), 4, 4, 1, 1, True),
    "whole plane": ((2, 9, 5, 6), (5, 6), 1, 0, 1, False),
    "one element": ((2, 3, 4, 4), 1, 1, 0, 1, False),
    "one row": ((2, 3, 1, 40), (1, 5), (1, 2), (0, 2), 1, False),
    "wide row": ((1, 2, 2, 700), (2, 3), (1, 1), 0, 1, False),
}
AVERAGED = {name: w for name, w in WINDOWS.items() if w[4] == 1}


def channels_last(x):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


FORMATS = (np.ascontiguousarray, channels_last)


def whole(rng, shape, dtype, nan=0.0):
    """Small whole numbers (ties, exact sums), and some NaN."""
    x = rng.integers(-4, 5, shape).astype(dtype)
    x[rng.random(shape) < nan] = np.nan
    return x


def same_bits(a, b):
    """Also the sign of zeros; of NaN only the place."""
    where = np.isnan(a)
    return (
        np.array_equal(where, np.isnan(b))
        and np.array_equal(a[~where], b[~where])
        and np.array_equal(np.signbit(a[~where]), np.signbit(b[~where]))
    )
