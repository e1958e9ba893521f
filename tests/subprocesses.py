"""Fresh interpreters, shared by the tests of threads, processes and memory."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import fastconv


def python(code, *prefix, timeout=60, **environment):
    """A fresh interpreter runs `code`; no variable of ours or of OpenMP is set in it."""
    names = ("FASTCONV_NUM_THREADS", "OMP_NUM_THREADS", "FASTCONV_ISA")
    clean = {k: v for k, v in os.environ.items() if k not in names}
    root = str(Path(fastconv.__file__).parents[1])
    clean["PYTHONPATH"] = os.pathsep.join(filter(None, (root, clean.get("PYTHONPATH"))))
    return subprocess.run(
        [*prefix, sys.executable, "-c", textwrap.dedent(code)],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_python(code, *prefix, before="", timeout=60, **environment):
    """stdout of a fresh interpreter, which must end well. `before` is code that runs first."""
    code = before + textwrap.dedent(code)
    done = python(code, *prefix, timeout=timeout, **environment)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


# `call()` uses Winograd, a weight gradient, a max pool and batch norm, with four threads; `want` is
# what it must always give.
CALL = """
import os, signal, sys, threading, time
import numpy as np
import fastconv, fastconv.functional as F
fastconv.set_num_threads(4)
rng = np.random.default_rng(0)
x = rng.standard_normal((4, 16, 40, 40)).astype(np.float32)
w = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
def call():
    y = F.conv2d(x, w, padding=1)
    z = F.batch_norm(y, None, None, training=True)
    pooled, index = F.max_pool2d(z, 2, return_indices=True)
    g = F.max_pool2d_backward(pooled, index, z.shape)
    gradients = F.conv2d_backward(g, x, w, padding=1)
    return [a.tobytes() for a in (y, z, pooled, *gradients)]
with fastconv.num_threads(1):
    want = call()
"""
