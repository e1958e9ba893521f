"""`fastconv selftest` passes, needs NumPy only, and notices each kind of fault."""

import mmap
import os

import pytest
from subprocesses import run_python

import fastconv
from fastconv import _config, _core, selftest
from fastconv.cli import main


@pytest.fixture(autouse=True)
def _no_memory_check_under_a_sanitizer(monkeypatch):
    """A sanitizer keeps freed memory."""
    if "FASTCONV_SANITIZER" in os.environ:
        monkeypatch.delitem(selftest.process.CHECKS, "memory")


def test_selftest_passes(capsys):
    assert main(["selftest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"fastconv {fastconv.__version__}, ")
    rows = [line.split() for line in lines[3:-2]]
    assert len(rows) == 5 * len(fastconv.isas()) + len(selftest.process.CHECKS)
    assert all(int(row[-3]) > 0 and row[-2] == "0" for row in rows)
    assert {row[-4] for row in rows} == set(fastconv.isas())
    cases, seconds = int(lines[-1].split()[0]), float(lines[-1].split()[-2])
    assert cases == sum(int(row[-3]) for row in rows)
    assert seconds < 30


def test_selftest_needs_numpy_only():
    code = """
    import sys
    import numpy
    before = {name.split(".")[0] for name in sys.modules}
    from fastconv import selftest
    selftest.process.CHECKS.pop("memory")
    status = selftest.main()
    new = {name.split(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)
    print(status, sorted(name for name in new if "cython" not in name))
    """
    assert run_python(code).splitlines()[-1] == "0 ['fastconv']"


@pytest.fixture
def only(monkeypatch):
    """Leaves one row of the table, to save time."""

    def leave(name):
        for module in (selftest.kernels, selftest.process):
            checks = {key: check for key, check in module.CHECKS.items() if key == name}
            monkeypatch.setattr(module, "CHECKS", checks)

    return leave


def spoil(monkeypatch, name, change):
    """Let `change(*arguments)` follow each call of a function of the extension."""
    real = getattr(_core, name)

    def spoilt(*arguments):
        result = real(*arguments)
        change(*arguments)
        return result

    monkeypatch.setattr(_core, name, spoilt)


def first(output):
    """What changes the first element of an argument."""

    def change(*arguments):
        array = arguments[output]
        array.flat[0] = array.flat[0] * array.dtype.type(1 + 1e-3) + array.dtype.type(0.01)

    return change


def on_generic(change):
    def changed(*arguments):
        if _core.isa() == "generic":
            change(*arguments)

    return changed


def with_3_threads(change):
    def changed(*arguments):
        if fastconv.get_num_threads() == 3:
            change(*arguments)

    return changed


FAULTS = {
    "conv2d": ("conv2d", first(3), "convolution, exact"),
    "conv2d of one instruction set": ("conv2d", on_generic(first(3)), "convolution, rounding"),
    "conv2d_grad_input": ("conv2d_grad_input", first(3), "convolution, exact"),
    "conv2d_grad_weight": ("conv2d_grad_weight", first(2), "convolution, exact"),
    "channel_sum": ("channel_sum", first(1), "convolution, exact"),
    "max_pool2d": ("max_pool2d", first(1), "max and average pools"),
    "avg_pool2d_grad": ("avg_pool2d_grad", first(1), "max and average pools"),
    "batch_norm": ("batch_norm", first(1), "batch normalisation"),
    "batch_norm_grad": ("batch_norm_grad", first(2), "batch normalisation"),
    "elementwise": ("elementwise", first(2), "activations"),
    "elementwise_grad": ("elementwise_grad", first(3), "activations"),
    "threads": ("conv2d", with_3_threads(first(3)), "threads, batches, formats"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_selftest_notices(monkeypatch, capsys, only, name):
    function, change, row = FAULTS[name]
    only(row)
    spoil(monkeypatch, function, change)
    assert main(["selftest"]) == 1
    check_failure(capsys, row)


def check_failure(capsys, name):
    """A row of that name has failures, which are described, and the total counts them."""
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(name) and failed(line))
    assert lines[at + 1].startswith("    failed: ")
    assert int(lines[-1].split(", ")[1].split()[0]) >= failed(lines[at])


def failed(line):
    return int(line.split()[-2])


@pytest.mark.skipif("FASTCONV_SANITIZER" in os.environ, reason="no memory check")
def test_selftest_notices_kept_memory(monkeypatch, capsys, only):
    only("memory")
    kept = []

    def keep(*_):  # pages of its own: the heap of a long test run has room for arrays
        kept.append(mmap.mmap(-1, 800_000))
        kept[-1].write(bytes(800_000))

    spoil(monkeypatch, "conv2d", keep)
    assert main(["selftest"]) == 1
    check_failure(capsys, "memory")


@pytest.mark.skipif("FASTCONV_SANITIZER" in os.environ, reason="no memory check")
def test_selftest_notices_a_workspace_over_its_cap(monkeypatch, capsys, only):
    only("memory")
    monkeypatch.setattr(_config._core, "workspace_bytes", lambda: (64 << 20) + 1)
    assert main(["selftest"]) == 1
    check_failure(capsys, "memory")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_selftest_notices_a_child_that_computes_wrong(monkeypatch, capsys, only):
    only("fork")
    parent = os.getpid()
    change = first(3)
    spoil(monkeypatch, "conv2d", lambda *a: change(*a) if os.getpid() != parent else None)
    assert main(["selftest"]) == 1
    check_failure(capsys, "fork")


def test_selftest_survives_an_exception(monkeypatch, capsys, only):
    only("max and average pools")

    def fail(*arguments):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(_core, "max_pool2d", fail)
    assert main(["selftest"]) == 1
    check_failure(capsys, "max and average pools")


def test_results_are_given_to_a_program():
    seen = []
    results = selftest.run(seen.append)
    assert seen == results
    assert not any(r.failures for r in results)
