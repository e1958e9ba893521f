"""Runs the functions on arrays that end, or begin, at a page that may not be touched.

    python tests/guard_pages.py --isa avx2 --calls 1000 --seed 0

A read or write one byte outside of an array is then a segmentation fault; AddressSanitizer sees
none of those that vector code makes inside of one allocation of NumPy's. Inputs, outputs and the
temporary arrays of the functions (NumPy's `empty` and `empty_like`) are placed so, once against the
page behind them and once against the one before; both must give the bits of ordinary memory.
"""

import argparse
import ctypes
import faulthandler
import mmap
import warnings
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from fuzz_arguments import LAYERS, layer, plan, right_arguments
from fuzz_calls import Source, _arrays, _same, use_layer, use_plan
from guarded_arrays import layout

import fastconv
import fastconv.functional as F

PAGE = mmap.PAGESIZE
KINDS = ("plain", "plain", "last", "last", "permuted", "gaps", "backwards")
EMPTY, EMPTY_LIKE = np.empty, np.empty_like
libc = ctypes.CDLL(None, use_errno=True)


def region(count, at_end):
    """`count` bytes of a memory map of their own, against the closed page behind or before them."""
    pages = -(-max(count, 1) // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for closed in (start, start + (pages + 1) * PAGE):
        if libc.mprotect(ctypes.c_void_p(closed), ctypes.c_size_t(PAGE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    return memory, PAGE + (pages * PAGE - count if at_end else 0)


def placed(rng, values, at_end, kind):
    """The values in a layout whose last byte (or first) is the last (first) of its page."""
    strides, before, after = layout(rng, values.shape, values.itemsize, kind)
    memory, offset = region(before + after, at_end)
    array = np.ndarray(values.shape, values.dtype, memory, offset + before, strides)
    array[...] = values
    return array


def guarded_empty(at_end):
    """What stands for `numpy.empty` and `numpy.empty_like`."""

    def empty(shape, dtype=float):
        dtype, shape = np.dtype(dtype), (shape,) if isinstance(shape, (int, np.integer)) else shape
        memory, offset = region(prod(shape) * dtype.itemsize, at_end)
        return np.ndarray(tuple(shape), dtype, memory, offset)

    def empty_like(array, subok=True):
        order = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
        made = empty([array.shape[axis] for axis in order], array.dtype)
        return made.transpose(np.argsort(order))

    return empty, empty_like


def check(rng, name, isa):
    """One call in ordinary memory, and twice between closed pages."""
    if name == "compile":
        given, function = plan(rng), use_plan
    elif name in LAYERS:
        given, function = layer(rng, name), partial(_layer, name)
    else:
        given, function = right_arguments(rng, name), getattr(F, name)
    with fastconv.use_isa(isa), np.errstate(all="ignore"):
        try:
            wanted = function(**{k: _copy(v) for k, v in given.items()})
        except (ValueError, TypeError):
            return False
        for at_end in (True, False):
            kind = KINDS[rng.integers(len(KINDS))]
            arguments = {
                k: placed(rng, v, at_end, kind) if isinstance(v, np.ndarray) and v.size else v
                for k, v in given.items()
            }
            np.empty, np.empty_like = guarded_empty(at_end)
            try:
                found = function(**arguments)
            finally:
                np.empty, np.empty_like = EMPTY, EMPTY_LIKE
            for a, b in zip(_arrays(found), _arrays(wanted), strict=True):
                assert _same(a, b), f"{name}: {kind} against the {'end' if at_end else 'start'}"
    return True


def _layer(name, **given):
    return use_layer(name, given)


def _copy(value):
    return value.copy() if isinstance(value, np.ndarray) else value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", default=fastconv.isas()[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--progress", type=Path, help="file for the call under way")
    parser.add_argument("--only", default="", help="part of the functions' names")
    options = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("ignore")
    fastconv.set_num_threads(2)
    names = [
        n for n in (*F.__all__, *LAYERS, "compile") if n != "explain_conv2d" and options.only in n
    ]
    done = 0
    for number in range(options.calls):
        rng = Source(np.random.PCG64([options.seed, number]))
        rng.dtype = (np.float32, np.float64)[number % 2]
        name = names[rng.integers(len(names))]
        if options.progress:
            options.progress.write_text(f"{name}, call {number} of seed {options.seed}")
        done += check(rng, name, options.isa)
    print(done)


if __name__ == "__main__":
    main()
