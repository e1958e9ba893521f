"""Fixtures shared by the tests."""

import os
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import fastconv

# Processes that the tests start import the fastconv that the tests import, and not the folder of
# that name which `python -c` would find in the root of the source tree.
_WHERE = str(Path(fastconv.__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_WHERE, os.environ.get("PYTHONPATH")]))
os.environ["PYTHONSAFEPATH"] = "1"


@pytest.fixture(params=fastconv.isas())
def isa(request):
    """Runs the test once under each instruction set of the machine."""
    with fastconv.use_isa(request.param):
        yield request.param


@pytest.fixture
def rng(request):
    """A generator seeded by the name of the test and its parameters."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


_tried, _before, _failures = Counter(), Counter(), Counter()


@pytest.fixture(scope="session")
def trust_counts():
    """Counts of cases tried, by name: `trust_counts["grid, torch"] += 1`. Printed at the end."""
    return _tried


@pytest.fixture
def corner_case(trust_counts):
    trust_counts["corner cases of other libraries"] += 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test is a failure of every count it moved."""
    report = yield
    if call.when == "call":
        if report.failed:
            _failures.update(name for name in _tried if _tried[name] != _before[name])
        _before.update(_tried - _before)
    return report


def pytest_terminal_summary(terminalreporter):
    if _tried:
        terminalreporter.section("cases tried, tests failed")
        for name in sorted(_tried):
            terminalreporter.line(f"{_tried[name]:>12,} {_failures[name]:>6,}  {name}")
