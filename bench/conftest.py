"""Options of the benchmarks: `pytest bench --benchmark-enable --threads 2 --isa avx512,avx2`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastconv")
    group.addoption("--threads", type=int, default=1, help="threads of every library (default 1)")
    group.addoption("--isa", default="", help="instruction sets, comma-separated, or 'all'")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    for library in ("OPENBLAS", "MKL", "OMP"):  # read when NumPy is imported, which is later
        os.environ[f"{library}_NUM_THREADS"] = str(config.getoption("--threads"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Benchmarks that take `isa` run once for each chosen instruction set."""
    import fastconv

    if "isa" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--isa") or fastconv.config()["isa"]
        names = fastconv.isas() if chosen == "all" else chosen.split(",")
        metafunc.parametrize("isa", names)


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    import fastconv

    count: int = request.config.getoption("--threads")
    try:
        import torch

        torch.set_num_threads(count)
    except ModuleNotFoundError:
        pass
    with fastconv.num_threads(count):
        yield count
