"""Fixtures shared by the tests."""

import zlib

import numpy as np
import pytest

import fastconv


@pytest.fixture(params=fastconv.isas())
def isa(request):
    """Runs the test once under each instruction set of the machine."""
    with fastconv.use_isa(request.param):
        yield request.param


@pytest.fixture
def rng(request):
    """A generator seeded by the name of the test and its parameters."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))
