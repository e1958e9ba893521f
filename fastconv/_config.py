"""Threads, instruction set and workspace: what a process can set and see."""

from __future__ import annotations

import operator
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from . import _core
from ._messages import shown, typed


class _Restore:
    """Undoes a setting at the end of a `with` block; does nothing when used as a plain call."""

    def __init__(self, restore: Any, value: Any) -> None:
        self._restore, self._value = restore, value

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore(self._value)


def set_num_threads(n: int) -> None:
    """Set the number of threads that one call may use, in the whole process.

    Results do not depend on it. It may be set from any thread and takes effect with the next call.

    Parameters
    ----------
    n : int
        At least 1; 256 at most are used.

    Raises
    ------
    TypeError, ValueError
        When `n` is not an integer, or is less than 1.
    """
    _core.set_num_threads(_thread_count("set_num_threads", n))


def get_num_threads() -> int:
    """Return the number of threads that one call may use."""
    return int(_core.get_num_threads())


def num_threads(n: int) -> _Restore:
    """Set the number of threads for a `with` block.

    Examples
    --------
    >>> with fastconv.num_threads(1):
    ...     y = F.conv2d(x, w)
    """
    n = _thread_count("num_threads", n)
    before = get_num_threads()
    _core.set_num_threads(n)
    return _Restore(_core.set_num_threads, before)


class flush_denormals:  # used like a function: with flush_denormals():
    """Treat denormals as zero in a `with` block, in the calling thread and its workers.

    Denormals (float32 below 1.2e-38) are kept by default, and arithmetic on them takes up to a
    hundred times longer. The block sets the processor's flush-to-zero and denormals-are-zero bits
    for this thread, NumPy's arithmetic included, and restores them at its end.

    Raises
    ------
    RuntimeError
        When the processor has no such mode.

    Examples
    --------
    >>> with fastconv.flush_denormals():
    ...     y = F.conv2d(x, w)
    """

    def __enter__(self) -> None:
        self._before = _core.flush_denormals(True)
        if self._before < 0:
            raise RuntimeError("flush_denormals: this processor cannot flush denormals")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _core.flush_denormals(bool(self._before))


def _thread_count(function: str, n: Any) -> int:
    if isinstance(n, bool):
        raise TypeError(f"{function}: n must be an int, got bool {n}")
    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"{function}: n must be an int, got {typed(n)}") from None
    if count < 1:
        raise ValueError(f"{function}: n must be at least 1, got {count}")
    return min(count, 256)


def isas() -> list[str]:
    """Return the names of the instruction sets this machine can run, best first."""
    return list(_core.isas())


def use_isa(name: str) -> _Restore:
    """Choose an instruction set: for a `with` block, or until the next call when used alone.

    Raises
    ------
    ValueError
        When the name is unknown or the machine lacks it; the message lists what there is.
    """
    before = _core.isa()
    _use_isa("use_isa", name)
    return _Restore(_core.use_isa, before)


def _use_isa(source: str, name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{source}: name must be a str, got {type(name).__name__}")
    if name not in isas() or _core.use_isa(name) != 0:
        raise ValueError(
            f"{source}: unknown or unavailable instruction set {shown(name)}; "
            f"this machine has {isas()}"
        )


def clear_workspace() -> None:
    """Free the memory kept between calls: of scratch and of results, at most 64 MiB each."""
    _core.clear_workspace()
    _core.results.clear()


def config() -> dict[str, Any]:
    """Return version, instruction set, threads and workspace as a dict."""
    from . import __version__

    return {
        "version": __version__,
        "isa": _core.isa(),
        "isas": isas(),
        "threads": get_num_threads(),
        "cpus": usable_cpus(),
        "workspace_bytes": int(_core.workspace_bytes()),
        "results_bytes": _core.results.count()[0],
        "compiler": _core.compiler(),
    }


def show_config() -> None:
    """Print version, instruction set, threads and workspace."""
    for key, value in config().items():
        print(f"{key:16} {value}")


def usable_cpus() -> int:
    """CPUs this process may use: the smaller of affinity mask and cgroup quota, at least 1."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cpus = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cpus, int(quota))) if quota is not None else max(1, cpus)


def _cgroup_quota(
    root: Path = Path("/sys/fs/cgroup"), table: Path = Path("/proc/self/cgroup")
) -> float | None:
    """The tightest CPU quota (in CPUs) of the process's cgroup and its parents, or None."""
    quotas: list[float] = []
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "none", ""][:3]
        if controllers not in ("", "cpu", "cpu,cpuacct", "cpuacct,cpu"):
            continue
        base = root if controllers == "" else root / "cpu"
        folder = base / path.lstrip("/")
        for place in (folder, *folder.parents):
            quota = _read_quota(place)
            if quota is not None:
                quotas.append(quota)
            if place == base:
                break
    return min(quotas, default=None)


def _read_quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():  # cgroup v2: "quota period" or "max period"
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return float(limit) / float(period) if limit not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _from_environment() -> None:
    isa = os.environ.get("FASTCONV_ISA")
    if isa:
        _use_isa("FASTCONV_ISA", isa)
    for variable in ("FASTCONV_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(variable, "").split(",")[0].strip()
        if not value:
            continue
        count = value.lstrip("0")
        if value.isascii() and value.isdigit() and count:
            _core.set_num_threads(min(int(count[:4]), 256))
            return
        if variable == "FASTCONV_NUM_THREADS":
            raise ValueError(f"{variable}: must be a positive integer, got {shown(value)}")
    _core.set_num_threads(usable_cpus())


def _is_command() -> bool:
    """Whether this process is the program `fastconv`, or `python -m fastconv`."""
    if sys.argv[:1] == ["-m"]:  # what Python says while it looks for the module
        at = sys.orig_argv.index("-m") + 1 if "-m" in sys.orig_argv else 0
        return sys.orig_argv[at : at + 1] == ["fastconv"]
    return bool(sys.argv) and Path(sys.argv[0]).stem == "fastconv"


try:
    _from_environment()
except ValueError as _error:
    if not _is_command():
        raise
    print(f"fastconv: error: {_error}", file=sys.stderr)
    raise SystemExit(2) from None
