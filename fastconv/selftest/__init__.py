"""`fastconv selftest`: whether the kernels do on this machine what `fastconv.reference` does.

It needs NumPy only. Whole numbers make every sum exact, so that direct convolutions, their
gradients and pools must equal the reference in every bit of value; normal data are held to bounds
that are derived from the number of terms.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

import fastconv

from . import kernels, process

_SHOWN = 5  # failures described per check


@dataclass
class Result:
    """One line of the table.

    Attributes
    ----------
    name, isa : str
    cases : int
        Arrays compared, or events that went well.
    failures : list of str
        What failed, one description each.
    seconds : float
    """

    name: str
    isa: str
    cases: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


Check = Callable[[], Iterator[tuple[str, bool]]]  # yields what was tried, and whether it is right


def run(report: Callable[[Result], None] = lambda _: None) -> list[Result]:
    """Run every check.

    Parameters
    ----------
    report : callable
        Called with each `Result` when it is known.

    Returns
    -------
    list of Result
    """
    best = fastconv.config()["isa"]
    plan = [(isa, *check) for isa in fastconv.isas() for check in kernels.CHECKS.items()]
    plan += [(best, *check) for check in process.CHECKS.items()]
    results = []
    for isa, name, check in plan:
        with fastconv.use_isa(isa):
            results.append(_measure(Result(name, isa), check))
        report(results[-1])
    return results


def _measure(result: Result, check: Check) -> Result:
    start = time.perf_counter()
    try:
        for case, ok in check():
            result.cases += 1
            if not ok:
                result.failures.append(case)
    except Exception as error:
        result.failures.append(f"{type(error).__name__}: {error}")
    result.seconds = time.perf_counter() - start
    return result


def main() -> int:
    """Print the table; 0 if everything is as it should be, else 1."""
    start = time.perf_counter()
    config = fastconv.config()
    print(
        f"fastconv {config['version']}, {config['compiler']}, NumPy {np.__version__}; "
        f"{config['threads']} threads"
    )
    print(f"\n{'check':28}{'kernels':10}{'cases':>8}{'failed':>8}{'seconds':>9}", flush=True)
    results = run(_print)
    cases, failed = sum(r.cases for r in results), sum(len(r.failures) for r in results)
    print(f"\n{cases} cases, {failed} failed, {time.perf_counter() - start:.1f} s")
    return 1 if failed else 0


def _print(result: Result) -> None:
    failed = len(result.failures)
    line = f"{result.name:28}{result.isa:10}{result.cases:8}{failed:8}{result.seconds:9.2f}"
    print(line, flush=True)
    for text in result.failures[:_SHOWN]:
        print(f"    failed: {text}")
    if failed > _SHOWN:
        print(f"    and {failed - _SHOWN} more")
