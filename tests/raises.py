"""Which `raise` statements of fastconv the tests reach.

    python tests/raises.py [pytest arguments]

runs the tests, then lists every `raise` that none of them reached in this process (a subprocess
does not count). Exit code 1 if there is one that `UNREACHED` does not explain.
"""

import ast
import sys
import threading
from pathlib import Path

import pytest

import fastconv

ROOT = Path(fastconv.__file__).parent
# "file: words of the line" -> why no test can reach it
UNREACHED = {
    "__init__.py: no compiled extension": "needs a tree without it: a subprocess of test_config",
    "_config.py: SystemExit": "ends the process: test_regressions does it in a subprocess",
    "_config.py: must be a positive integer": "on import: test_config does it in a subprocess",
    "_config.py: cannot flush denormals": "every processor that has the kernels can",
    "data/__init__.py: fashion-mnist: not found": "only where the data set is not installed",
    "train/networks.py: maps images": "no model of fastconv.models does; a guard for new ones",
}


def raises():
    """{(file, line): text} of every `raise`, over all the lines it spans."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Raise) and node.exc is not None:  # not a bare `raise`
                text = " ".join(ast.get_source_segment(source, node).split())
                found[str(path), node.lineno] = (node.end_lineno, text)
    return found


class Reached:
    """The lines of fastconv at which exceptions started or passed."""

    def __init__(self):
        self.lines = set()
        self._root = str(ROOT)

    def pytest_runtest_setup(self):
        """At every test: a trace function that something raised in is taken away."""
        sys.settrace(self.trace)

    def trace(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(self._root):
            return None
        frame.f_trace_lines = False
        return self._local

    def _local(self, frame, event, argument):
        if event == "exception":
            self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._local


def main(arguments):
    reached = Reached()
    threading.settrace(reached.trace)
    every, missed = raises(), []
    failed = pytest.main(["-q", *arguments], plugins=[reached])
    sys.settrace(None)
    threading.settrace(None)
    for (file, first), (last, text) in every.items():
        if any((file, line) in reached.lines for line in range(first, last + 1)):
            continue
        name = str(Path(file).relative_to(ROOT))
        if not any(name == key.split(": ")[0] and key.split(": ")[1] in text for key in UNREACHED):
            missed.append(f"fastconv/{name}:{first}: {text[:120]}")
    print(*missed, sep="\n")
    print(f"{len(every)} raise statements, {len(missed)} not reached, {len(UNREACHED)} explained")
    return 1 if failed or missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [str(Path(__file__).parent)]))
