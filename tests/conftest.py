"""Fixtures shared by the tests."""

import os
import zlib
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
