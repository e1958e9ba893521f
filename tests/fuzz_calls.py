"""Calls every public function with random arguments, right and hostile ones.

    python tests/fuzz_calls.py --calls 100000 --seed 1     run, print the counts as JSON
    python tests/fuzz_calls.py --call 1:4711               make one call again, and say what it did

A call may return a result or raise ValueError, TypeError or MemoryError with a message of one line
that begins with a function's name. It may not crash, hang, warn, write to an input or outside of an
output, or allocate what does not fit. A result must be that of contiguous copies of the arguments,
bit for bit, and the reference must not refuse what the function takes. Every call is seeded by
itself.
"""

import argparse
import collections
import contextlib
import faulthandler
import inspect
import json
import mmap
import os
import re
import resource
import signal
import sys
import warnings
from math import prod
from pathlib import Path

import numpy as np
from fuzz_arguments import (
    ELEMENTWISE,
    LAYERS,
    OPTIMIZERS,
    SCHEDULES,
    SETTINGS,
    Liar,
    layer,
    mutate,
    pick,
    plan,
    right_arguments,
)
from guarded_arrays import guard

import fastconv
import fastconv.functional as F
from fastconv import nn, optim, reference

SECONDS = 20  # for one call
MEMORY = 2 << 30  # bytes of address space that the calls may add
LONGEST = 600  # characters of a message
NAMES = {
    **{name: getattr(F, name) for name in F.__all__},
    **{f"nn.{name}": None for name in LAYERS},
    **{f"optim.{name}": None for name in (*OPTIMIZERS, *SCHEDULES)},
    **{name: getattr(fastconv, name) for name in SETTINGS},
    "compile": None,
}
WHO = "|".join(
    sorted({name.split(".")[-1] for name in NAMES} | {"Parameter", "plan"}, key=len, reverse=True)
)
PREFIX = re.compile(rf"({WHO})(\.\w+)?(\(.*\))?: ", re.DOTALL)
# arguments that the reference has not, or that no loop needs
NOT_OF_THE_REFERENCE = re.compile("algorithm|method|read-only|hostile|at most [0-9]{6}")
DTYPES = (np.float32, np.float64, np.int64)
WRITES = {"out", "running_mean", "running_var"}


class Source(np.random.Generator):
    """A generator, and the dtype of the call."""

    dtype = np.float32
    may_be_huge = True  # arrays of 2**40 elements in the memory of one


class Failure(Exception):
    """What a call did and must not do."""


class Call:
    """One call: the name of the function, and its arguments."""

    def __init__(self, seed, number):
        self.rng = rng = Source(np.random.PCG64([seed, number]))
        rng.dtype = pick(rng, (np.float32, np.float64))
        self.name = pick(rng, list(NAMES))
        # an adaptive pool of 2**40 elements is no mistake: it reads them all, which takes hours
        rng.may_be_huge = "adaptive" not in self.name.lower()
        self.isa = pick(rng, fastconv.isas())
        if self.name in SETTINGS:
            given = dict(SETTINGS[self.name])
        elif self.name.startswith("optim."):
            given = dict({**OPTIMIZERS, **SCHEDULES}[self.name[6:]])
        elif self.name == "compile":
            given = plan(rng)
        elif self.name.startswith("nn."):
            given = layer(rng, self.name[3:])
        else:
            given = right_arguments(rng, self.name)
        self.plain = dict(given)
        self.hostile = pick(rng, (0, 0, 1, 1, 1, 2, 3))
        names = sorted(given)
        for _ in range(min(self.hostile, len(names))):
            mutate(rng, given, names)
        self.given = given
        self.guards = {}
        self._lay_out()
        if self.function is not None and "out" in inspect.signature(self.function).parameters:
            self._choose_out()

    @property
    def function(self):
        return NAMES[self.name]

    def _lay_out(self):
        """Put small plain arrays between canaries."""
        for key, value in self.given.items():
            if type(value) is np.ndarray and value.dtype.kind in "fiu" and value.nbytes < 1 << 20:
                if 0 in value.strides or self.rng.random() < 0.3:
                    continue
                self.guards[key] = guarded = guard(self.rng, value)
                self.given[key] = guarded.array

    def _choose_out(self):
        rng, kind = self.rng, pick(self.rng, ("none", "none", "good", "good", "bad"))
        if kind == "none":
            return
        try:
            with warnings.catch_warnings(action="ignore"):
                like = self.function(**self.plain)
        except (ValueError, TypeError, MemoryError):
            return
        like = like[0] if isinstance(like, tuple) else like
        if kind == "bad":
            mutated = {"out": like}
            mutate(rng, mutated, ["out"])
            inputs = [v for v in self.given.values() if isinstance(v, np.ndarray)]
            self.given["out"] = pick(rng, [mutated["out"], *inputs])
            if rng.random() < 0.2:  # shifted by one element against an input
                base = np.zeros(like.size + 1, like.dtype)
                self.given["out"] = base[1:].reshape(like.shape)
                key = next(key for key in ("input", "a", "in1", "grad_output") if key in self.given)
                self.given[key] = base[:-1].reshape(like.shape)
                self.guards.pop(key, None)
            return
        self.guards["out"] = guarded = guard(rng, like, writable=True)
        self.given["out"] = guarded.array

    def run(self):
        """Returns the kind of the outcome; raises Failure."""
        training = self.name == "batch_norm"
        try:
            with warnings.catch_warnings(action="error"), fastconv.use_isa(self.isa):
                result = self._apply(self.given)
        except (ValueError, TypeError, MemoryError) as error:
            self._check_memory(training, raised=True)
            return self._check_message(error)
        except Exception as error:
            raise Failure(f"{type(error).__name__}: {error}") from error
        self._check_memory(training, raised=False)
        if self.function is not None and self.name not in SETTINGS and self.name in F.__all__:
            self._check_result(result)
        return "result"

    def _is_out(self, array):
        out = self.given.get("out")
        return isinstance(out, np.ndarray) and np.shares_memory(out, array)

    def _apply(self, given):
        if self.name.startswith("optim."):
            return use_optimizer(self.name[6:], given)
        if self.name == "compile":
            return use_plan(**given)
        if not self.name.startswith("nn."):
            result = self.function(**given)
            if self.name in SETTINGS:
                fastconv.set_num_threads(2)
                fastconv.use_isa(self.isa)
            return result
        return use_layer(self.name[3:], given)

    def _check_memory(self, training, raised):
        for key, guarded in self.guards.items():
            may_write = key == "out" or (training and key in WRITES)
            if key != "out" and self._is_out(guarded.array):
                continue  # what it asked for
            if raised and not training:
                may_write = False  # nothing is half done
            if guarded.touched(may_write):
                raise Failure(f"memory of {key} was written")

    def _check_message(self, error):
        text = str(error)
        kind = next(k for k in (MemoryError, TypeError, ValueError) if isinstance(error, k))
        by_numpy = isinstance(error, MemoryError) and text.startswith("Unable to allocate")
        if text != "hostile" and not by_numpy:
            if not PREFIX.match(text):
                raise Failure(f"message names no function: {type(error).__name__}: {text[:300]}")
            if "\n" in text or len(text) > LONGEST:
                raise Failure(f"message of {len(text)} characters: {text[:100]!r}")
        if kind is ValueError and not NOT_OF_THE_REFERENCE.search(text):
            self._check_reference(self.given, raises=True)
        return kind.__name__

    def _check_result(self, result):
        out = self.given.get("out")
        if out is not None:
            first = result[0] if isinstance(result, tuple) else result
            if first is not out and not (type(out) is not np.ndarray and first.base is not None):
                raise Failure("out was not returned")
        if self.name == "explain_conv2d":
            return
        arrays = [v for k, v in self.given.items() if k != "out" and isinstance(v, np.ndarray)]
        if any(map(self._is_out, arrays)):
            if not self.name.startswith((*ELEMENTWISE, "batch_norm")):
                raise Failure("out shares memory with an input, and was written")
            return
        if any(isinstance(v, Liar) or v.size > 1 << 20 for v in arrays):
            return
        copies = {k: _copied(v) for k, v in self.given.items() if k != "out"}
        if self.name.startswith("batch_norm") and copies.get("training"):
            copies |= dict.fromkeys(("running_mean", "running_var"))
        with warnings.catch_warnings(action="ignore"), fastconv.use_isa(self.isa):
            try:
                again = self.function(**copies)
            except Exception as error:
                raise Failure(f"contiguous copies are refused: {error}") from error
        for a, b in zip(_arrays(result), _arrays(again), strict=True):
            if not _same(a, b):
                raise Failure("contiguous copies of the arguments give another result")
        self._check_reference(copies)

    def _check_reference(self, copies, raises=False):
        """It takes what the function took; and refuses the sizes and shapes that it refused."""
        twin = getattr(reference, self.name, None)
        arrays = [v for v in copies.values() if isinstance(v, np.ndarray)]
        work = sum(prod(n or 1 for n in array.shape) for array in arrays)
        if "convol" in self.name or "correl" in self.name:
            twin = None  # has no batch axes
        if twin is None or work > 1000 or self.rng.random() > 0.3:
            return
        known = inspect.signature(twin).parameters
        if not all(map(_moderate, copies.values())):
            return
        if raises:
            plain = all(type(a) is np.ndarray and a.dtype in DTYPES for a in arrays)
            if "out" in copies or not plain:
                return
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
                twin(**{k: v for k, v in copies.items() if k in known})
            if raises:
                raise Failure("the reference takes it")
        except Failure:
            raise
        except OverflowError:  # it takes numbers as they are; the functions, as floats
            return
        except Exception as error:
            if raises:
                return
            raise Failure(f"the reference refuses it: {type(error).__name__}: {error}") from error


def _moderate(value):
    """Whether the reference's loops end: no absurd numbers."""
    if isinstance(value, (tuple, list)):
        return all(map(_moderate, value))
    return not isinstance(value, (int, np.integer)) or abs(int(value)) < 200


def use_layer(name, given):
    """Make a layer, and go forward and back."""
    options = {k: v for k, v in given.items() if k not in ("x", "target")}
    if {"in_channels", "in_features"} & set(options):
        options["rng"] = 0
    made = getattr(nn, name)(**options)
    if "target" in given:
        return made(given["x"], given["target"]), made.backward()
    y = made(given["x"])
    made.output_shape(np.shape(given["x"]))
    return y, made.backward(y)


def use_plan(x, input_shape, dtype, half_linear):
    """Compile a small network for a shape, and run the plan."""
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, rng=0),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 17, 3, padding=1, rng=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(17, 4, rng=2),
    )
    return fastconv.compile(model, input_shape, dtype=dtype, half_linear=half_linear)(x)


def use_optimizer(name, given):
    """Make an optimizer, or a schedule of one, and take some steps."""
    parameter = nn.Parameter(np.ones(3))
    parameter.grad = np.ones(3)
    if name in OPTIMIZERS:
        made = [getattr(optim, name)([parameter], **given)]
    else:
        made = [optim.SGD([parameter], 0.1, 0.9)]
        made.append(getattr(optim, name)(made[0], **given))
    with np.errstate(all="ignore"):
        for part in made * 3:
            part.step()
    for part in made:
        part.load_state_dict(part.state_dict())
    return parameter.data


def _copied(value):
    if not isinstance(value, np.ndarray):
        return value
    value = np.asarray(value)
    return np.ascontiguousarray(value.astype(value.dtype.newbyteorder("="))).reshape(value.shape)


def _arrays(result):
    parts = result if isinstance(result, tuple) else (result,)
    return [np.asarray(part) for part in parts if part is not None]


def _same(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)


def describe(call):
    def shown(value):
        if type(value) is np.ndarray:
            return f"array{value.shape}:{value.dtype}:{value.strides}"
        try:
            return f"{type(value).__name__} {value!r}"[:80]
        except Exception:  # a hostile repr
            return type(value).__name__

    return f"{call.name}({', '.join(f'{k}={shown(v)}' for k, v in call.given.items())}) {call.isa}"


@contextlib.contextmanager
def _limits():
    """A clock for each call, and a bound of the memory."""
    if not os.environ.get("FASTCONV_SANITIZER"):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)
    yield
    signal.alarm(0)


def run(seed, numbers, progress):
    """Make the calls; `progress` holds the number of the one under way."""
    outcomes = collections.defaultdict(collections.Counter)
    failures = []
    with _limits():
        for number in numbers:
            progress.seek(0)
            progress.write(number.to_bytes(8, "little"))
            signal.alarm(SECONDS)
            call = Call(seed, number)
            try:
                outcomes[call.name][call.run()] += 1
            except Failure as failure:
                failures.append({"call": f"{seed}:{number}", "what": str(failure),
                                 "arguments": describe(call)})  # fmt: skip
    peak = peak_kib()
    return {"calls": len(numbers), "outcomes": outcomes, "failures": failures, "peak_kib": peak}


def peak_kib() -> int:
    """The most memory of this program; `ru_maxrss` counts the parent's from before exec too."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--progress", type=Path, help="file for the number of the call under way")
    parser.add_argument("--call", metavar="SEED:NUMBER", help="make this one call")
    options = parser.parse_args()
    fastconv.set_num_threads(2)
    seed, numbers = options.seed, range(options.first, options.first + options.calls)
    if options.call:
        seed, number = (int(word) for word in options.call.split(":"))
        numbers = range(number, number + 1)
        print(describe(Call(seed, number)), file=sys.stderr)
    with mmap.mmap(-1, 8) as nowhere:
        if options.progress is None:
            print(json.dumps(run(seed, numbers, nowhere)))
            return
        options.progress.write_bytes(bytes(8))
        with options.progress.open("r+b") as file, mmap.mmap(file.fileno(), 8) as progress:
            print(json.dumps(run(seed, numbers, progress)))


if __name__ == "__main__":
    main()
