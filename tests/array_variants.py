"""The same values in other memory: every function must give the same result for all of them."""

import numpy as np


def variants(x):
    """(name, array) pairs, each equal to the C-contiguous `x`."""
    doubled = np.full([2 * n for n in x.shape], 99).astype(x.dtype)
    doubled[tuple(slice(None, None, 2) for _ in x.shape)] = x
    yield "strided", doubled[tuple(slice(None, None, 2) for _ in x.shape)]
    backward = x[tuple(slice(None, None, -1) for _ in x.shape)].copy()
    yield "negative strides", backward[tuple(slice(None, None, -1) for _ in x.shape)]
    yield "Fortran", np.asfortranarray(x)
    yield "byte-swapped", x.astype(x.dtype.newbyteorder())
    frozen = x.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    raw[...] = x
    yield "unaligned", raw
    if x.ndim > 2:
        yield "channels-last", np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def is_channels_last(x):
    return np.moveaxis(x, 1, -1).flags.c_contiguous
