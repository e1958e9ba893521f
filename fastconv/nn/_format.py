"""Memory formats at the boundary of a container.

Every kernel knows channels-last images best. A container that starts with a convolution copies a
channels-first input once, works on channels-last arrays, and gives images back in the format it was
given.
"""

from __future__ import annotations

import numpy as np

from ..functional._checks import empty, is_channels_last
from ..functional._memory import copy_into
from .module import Array


def is_channels_first(x: Array) -> bool:
    """Whether x is (N, C, H, W) or (N, C, L) in memory as indexed."""
    if not isinstance(x, np.ndarray):
        return False  # the first layer says so
    return x.ndim in (3, 4) and x.dtype.kind == "f" and not is_channels_last(x) and x.size > 0


def to_channels_last(x: Array) -> Array:
    """A channels-last copy; of one channel a view."""
    if x.shape[1] == 1:  # reshape, since a new axis would have stride 0
        return x.reshape(len(x), *x.shape[2:], 1).transpose(0, x.ndim - 1, *range(1, x.ndim - 1))
    return _copy(x, True)


def to_channels_first(x: Array) -> Array:
    """A channels-first copy of a channels-last array; anything else as it is."""
    return _copy(x, False) if x.ndim in (3, 4) and is_channels_last(x) else x


def _copy(x: Array, channels_last: bool) -> Array:
    y = empty("Sequential", x.shape, x.dtype, channels_last)
    copy_into(y, x)
    return y
