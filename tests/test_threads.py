"""The bits of a result do not depend on threads, batch and format; any Python thread may call."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import ALL_FORMATS, DTYPES, FORMATS, same_bits, to_format
from problems import (
    PER_BATCH,
    PER_IMAGE,
    PROBLEMS,
    TRANSPOSED,
    arrays,
    run,
    together,
)
from random_calls import random_call

import fastconv
import fastconv.functional as F
from fastconv import nn

CONVOLUTIONS = [*PROBLEMS, *TRANSPOSED]
SHAPE = (5, 35, 33, 27)  # rows and channels that no vector divides; several tasks


# ---- convolution --------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_bits_do_not_depend_on_threads(isa, name, dtype, layout):
    """Forward and all three gradients."""
    problem = arrays(name, dtype, layout)
    with fastconv.num_threads(1):
        want = run(name, *problem)
    for threads in (2, 3, 4, 5, 6, 7, 8):
        with fastconv.num_threads(threads):
            for result, expected in zip(run(name, *problem), want, strict=True):
                assert same_bits(result, expected), threads


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_bits_do_not_depend_on_the_batch(isa, name, dtype, layout):
    """Output and input gradient of an image are those of the image alone and of any batch."""
    x, w, b, g, arguments = arrays(name, dtype, layout)
    whole = run(name, x, w, b, g, arguments)[:2]
    for size in (1, 2, 4, 5):
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            got = run(name, x[part], w, b, g[part], arguments)[:2]
            for result, expected in zip(got, whole, strict=True):
                assert same_bits(result, expected[part]), (start, size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_bits_do_not_depend_on_the_layout(isa, name, dtype):
    want = run(name, *arrays(name, dtype))
    for layout in ALL_FORMATS:
        got = run(name, *arrays(name, dtype, layout))
        for result, expected in zip(got, want, strict=True):
            assert same_bits(result, expected), layout


@pytest.mark.parametrize("name", ["3x3", "depthwise", "stem"])
def test_same_call_same_bits(isa, name):
    problem = arrays(name, np.float32)
    want = run(name, *problem)
    for _ in range(5):
        for result, expected in zip(run(name, *problem), want, strict=True):
            assert same_bits(result, expected)


# ---- pools, normalisation, activations ----------------------------------------------------------


def operate(name, x, layout="channels_first", part=slice(None)):
    """Arrays of forward and backward on images `part`, with the same output gradient always."""
    forward, backward = {**PER_IMAGE, **PER_BATCH}[name]
    y = together(forward(to_format(x[part], layout)))
    full = (len(x), *y[0].shape[1:])
    g = np.random.default_rng(1).standard_normal(full).astype(x.dtype)[part]
    return y + together(backward(to_format(g, layout), to_format(x[part], layout)))


def images(dtype, shape=SHAPE):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*PER_IMAGE, *PER_BATCH])
def test_other_bits_do_not_depend_on_threads_and_layout(isa, name, dtype):
    x = images(dtype)
    with fastconv.num_threads(1):
        want = operate(name, x)
    for threads in (1, 2, 3, 4, 5, 6, 7, 8):
        for layout in FORMATS:
            with fastconv.num_threads(threads):
                for result, expected in zip(operate(name, x, layout), want, strict=True):
                    assert same_bits(result, expected), (threads, layout)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PER_IMAGE)
def test_other_bits_do_not_depend_on_the_batch(isa, name, dtype, layout):
    x = images(dtype)
    want = operate(name, x)
    for size in (1, 2, 3):
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            got = operate(name, x, layout, part)
            for result, expected in zip(got, want, strict=True):
                assert same_bits(result, expected[part]), (start, size)


# ---- plans --------------------------------------------------------------------------------------


def test_bits_of_a_plan_do_not_depend_on_threads_and_layout(isa):
    """Eight threads compute what one does, on a plan made with any number of threads."""
    model = network(0).eval()
    x = np.random.default_rng(0).standard_normal((4, 3, 40, 36), dtype=np.float32)
    with fastconv.num_threads(1):
        want = fastconv.compile(model, x.shape)(x)
    for threads in range(1, 9):
        with fastconv.num_threads(threads):
            plan = fastconv.compile(model, x.shape)
            for layout in FORMATS:
                assert same_bits(plan(to_format(x, layout)), want), (threads, layout)


# ---- anything -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "calls", [400, pytest.param(10_000, marks=pytest.mark.long)], ids=["some", "many"]
)
def test_bits_of_random_calls(calls, trust_counts):
    """Random shapes and arguments: one thread and some, one format and another, part of a batch."""
    rng = np.random.default_rng(calls)
    names = fastconv.isas()
    for number in range(calls):
        call = random_call(rng)
        with fastconv.use_isa(names[number % len(names)]):
            with fastconv.num_threads(1):
                want = call()
            with fastconv.num_threads(int(rng.integers(2, 9))):
                got = call(layout="channels_last")
                start, stop = sorted(rng.integers(0, call.batch + 1, 2))
                some = call(part=slice(start, stop))
        for result, expected in zip(got, want, strict=True):
            assert same_bits(result, expected), call
        for result, expected in list(zip(some, want, strict=True))[: call.per_image]:
            assert same_bits(result, expected[start:stop]), (call, start, stop)
        trust_counts["random calls, same bits for threads, batch, format"] += 1


# ---- many Python threads ------------------------------------------------------------------------


def network(seed):
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1, rng=seed),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(24, 24, 3, padding=1, groups=24, rng=seed + 1),
        nn.Conv2d(24, 16, 1, rng=seed + 2),
        nn.AvgPool2d(2),
    )


def batches(count):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((2, 3, 20, 18), dtype=np.float32) for _ in range(count)]


def in_threads(job, count, python_threads=16, threads=4):
    """All of job(0) .. job(count - 1), from many Python threads at once; they return True."""
    with fastconv.num_threads(threads), ThreadPoolExecutor(python_threads) as pool:
        return all(pool.map(job, range(count)))


def test_16_python_threads(isa):
    """Functions; every caller has workers of its own to win."""
    problems = {name: arrays(name, np.float32) for name in ("3x3", "depthwise", "strided", "1x1")}
    want = {name: run(name, *problem) for name, problem in problems.items()}

    def job(index):
        name = list(problems)[index % len(problems)]
        got = run(name, *problems[name])
        return all(same_bits(a, b) for a, b in zip(got, want[name], strict=True))

    assert in_threads(job, 96)


def test_16_python_threads_on_one_layer():
    """A model in eval() keeps nothing, so that any number of threads may share it."""
    model, inputs = network(0).eval(), batches(16)
    want = [model(x) for x in inputs]
    assert in_threads(lambda i: same_bits(model(inputs[i % 16]), want[i % 16]), 256)


def test_16_python_threads_on_many_layers():
    """Each thread trains a model of its own; outputs, gradients and statistics are as in one."""

    def train(seed):
        model = network(seed).train()
        results = []
        for x in batches(3):
            y = model(x)
            results += [y, model.backward(y)]
        return [*results, *(p.grad for p in model.parameters()), *model.state_dict().values()]

    want = [train(seed) for seed in range(16)]
    assert in_threads(
        lambda i: all(same_bits(a, b) for a, b in zip(train(i), want[i], strict=True)), 16
    )


def longest_pause(run):
    """How long this thread stood still while another one ran `run`, and how long that took."""
    seconds = []

    def call():
        with fastconv.num_threads(1):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)

    caller, longest, last = threading.Thread(target=call), 0.0, time.perf_counter()
    caller.start()
    while caller.is_alive():
        time.sleep(1e-3)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest, seconds[0]


@pytest.mark.parametrize("name", ["forward", "grad_input", "grad_weight"])
def test_other_python_threads_run_during_a_call(name):
    """The GIL is released: this thread never stands still for half of the time of a call. Other
    processes may stop it, hence more than one try."""
    x, w = np.zeros((2, 64, 128, 128), np.float32), np.zeros((64, 64, 7, 7), np.float32)
    y = F.conv2d(x, w, padding=3)
    mask = (name == "grad_input", name == "grad_weight", False)

    def run():
        if name == "forward":
            F.conv2d(x, w, padding=3)
        else:
            F.conv2d_backward(y, x, w, padding=3, output_mask=mask)

    pauses = [longest_pause(run) for _ in range(5)]
    assert min(longest / seconds for longest, seconds in pauses) < 0.5


# ---- the setting, changed while others compute --------------------------------------------------


def test_set_num_threads_while_others_compute():
    """From other threads, nested, and with the workspace freed in between: the same bits."""
    names = ("3x3", "3x3 heavy weight", "depthwise", "strided", "1x1", "one channel", "groups")
    problems = {name: arrays(name, np.float32) for name in names}
    want = {name: run(name, *problem) for name, problem in problems.items()}
    before, stop = fastconv.get_num_threads(), threading.Event()

    def change(seed):
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            fastconv.set_num_threads(int(rng.integers(1, 9)))
            with fastconv.num_threads(int(rng.integers(1, 9))):
                fastconv.clear_workspace()

    def job(index):
        name = names[index % len(names)]
        with fastconv.num_threads(index % 8 + 1), fastconv.num_threads(8 - index % 8):
            got = run(name, *problems[name])
        return all(same_bits(a, b) for a, b in zip(got, want[name], strict=True))

    changers = [threading.Thread(target=change, args=(seed,)) for seed in range(2)]
    try:
        for changer in changers:
            changer.start()
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(job, range(84)))
    finally:
        stop.set()
        for changer in changers:
            changer.join()
        fastconv.set_num_threads(before)


def test_set_num_threads_from_another_thread_holds_everywhere():
    before = fastconv.get_num_threads()
    try:
        setter = threading.Thread(target=fastconv.set_num_threads, args=(before + 3,))
        setter.start()
        setter.join()
        assert fastconv.get_num_threads() == before + 3
    finally:
        fastconv.set_num_threads(before)


def test_a_finished_thread_leaves_the_pool_to_others():
    """Python threads that come and go, each with a call: the workers stay."""
    problem = arrays("3x3", np.float32)
    want = run("3x3", *problem)
    results = []
    with fastconv.num_threads(4):
        for _ in range(40):
            caller = threading.Thread(target=lambda: results.append(run("3x3", *problem)))
            caller.start()
            caller.join()
    assert len(results) == 40
    for result in results:
        assert all(same_bits(a, b) for a, b in zip(result, want, strict=True))
