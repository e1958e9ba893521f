"""Threads, determinism, instruction sets, environment variables, import time."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import ALL_FORMATS, DTYPES, FORMATS, same_bits, to_format

import fastconv
import fastconv.functional as F
from fastconv import _config

# input shape, weight shape, arguments: every driver, with enough work for several tasks
PROBLEMS = {
    "3x3": ((6, 17, 20, 21), (33, 17, 3, 3), {"padding": 1}),
    "3x3 many channels": ((3, 96, 9, 10), (40, 96, 3, 3), {"padding": 1}),
    "1x1": ((6, 33, 13, 14), (65, 33, 1, 1), {}),
    "stem": ((3, 3, 45, 47), (19, 3, 7, 7), {"stride": 2, "padding": 3}),
    "strided": ((6, 17, 20, 21), (9, 17, 3, 3), {"stride": 2, "padding": 1}),
    "groups": ((6, 18, 15, 16), (24, 6, 3, 3), {"groups": 3, "padding": 1}),
    "depthwise": ((6, 70, 20, 21), (70, 1, 3, 3), {"groups": 70, "padding": 1}),
    "depthwise strided": (
        (6, 33, 20, 21),
        (33, 1, 5, 5),
        {"groups": 33, "padding": 2, "stride": 2},
    ),
    "one channel": ((6, 1, 40, 41), (8, 1, 5, 5), {}),
    "one output": ((6, 8, 40, 41), (1, 8, 5, 5), {"padding": 2}),
    "many outputs": ((3, 5, 4, 5), (300, 5, 2, 2), {}),
    "one pixel": ((6, 300, 1, 1), (70, 300, 1, 1), {}),
    "dilated row": ((6, 16, 1, 500), (16, 16, 1, 2), {"dilation": (1, 64), "padding": (0, 64)}),
    "reflect": ((6, 9, 14, 15), (9, 9, 3, 3), {"padding": 1, "padding_mode": "reflect"}),
}
TRANSPOSED = {
    "transposed": ((6, 17, 10, 11), (17, 9, 4, 4), {"stride": 2, "padding": 1}),
    "transposed depthwise": ((6, 33, 10, 11), (33, 1, 3, 3), {"stride": 2, "groups": 33}),
}


def functions(name):
    if name in TRANSPOSED:
        return F.conv_transpose2d, F.conv_transpose2d_backward
    return F.conv2d, F.conv2d_backward


def arrays(name, dtype, layout="channels_first"):
    """x, weight, bias, grad_output and the arguments."""
    x_shape, w_shape, arguments = {**PROBLEMS, **TRANSPOSED}[name]
    rng = np.random.default_rng(list(name.encode()))
    x, w = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape))
    y = functions(name)[0](x, w, **arguments)
    b, g = (rng.standard_normal(s).astype(dtype) for s in (y.shape[1], y.shape))
    return to_format(x, layout), w, b, to_format(g, layout), arguments


def run(name, x, w, b, g, arguments):
    forward, backward = functions(name)
    return forward(x, w, b, **arguments), *backward(g, x, w, **arguments)


# ---- the same bits ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*PROBLEMS, *TRANSPOSED])
def test_bits_do_not_depend_on_threads(isa, name, dtype, layout):
    problem = arrays(name, dtype, layout)
    with fastconv.num_threads(1):
        want = run(name, *problem)
    for threads in (2, 3, 4, 5, 6, 7, 8):
        with fastconv.num_threads(threads):
            for result, expected in zip(run(name, *problem), want, strict=True):
                assert same_bits(result, expected), threads


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*PROBLEMS, *TRANSPOSED])
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
@pytest.mark.parametrize("name", [*PROBLEMS, *TRANSPOSED])
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


# ---- threads ------------------------------------------------------------------------------------


def test_16_python_threads(isa):
    """The same layer from many threads at once, each caller with workers of its own to win."""
    problems = {name: arrays(name, np.float32) for name in ("3x3", "depthwise", "strided", "1x1")}
    want = {name: run(name, *problem) for name, problem in problems.items()}

    def job(index):
        name = list(problems)[index % len(problems)]
        got = run(name, *problems[name])
        return all(same_bits(a, b) for a, b in zip(got, want[name], strict=True))

    with fastconv.num_threads(4), ThreadPoolExecutor(16) as pool:
        assert all(pool.map(job, range(96)))


def test_num_threads_restores():
    before = fastconv.get_num_threads()
    with fastconv.num_threads(3):
        assert fastconv.get_num_threads() == 3
        with fastconv.num_threads(np.int64(5)):
            assert fastconv.get_num_threads() == 5
        assert fastconv.get_num_threads() == 3
    assert fastconv.get_num_threads() == before
    with pytest.raises(RuntimeError, match="inside"), fastconv.num_threads(3):
        raise RuntimeError("inside")
    assert fastconv.get_num_threads() == before


def test_set_num_threads():
    before = fastconv.get_num_threads()
    try:
        assert fastconv.set_num_threads(7) is None
        assert fastconv.get_num_threads() == 7
        fastconv.set_num_threads(10**30)
        assert fastconv.get_num_threads() == 256
    finally:
        fastconv.set_num_threads(before)


@pytest.mark.parametrize("function", ["set_num_threads", "num_threads"])
@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (-(2**63), ValueError), (True, TypeError),
     (1.0, TypeError), ("2", TypeError), (None, TypeError), (np.ones(2, int), TypeError)],
    ids=str,
)  # fmt: skip
def test_bad_thread_count(function, value, error):
    before = fastconv.get_num_threads()
    with pytest.raises(error, match=rf"^{function}: n must be"):
        getattr(fastconv, function)(value)
    assert fastconv.get_num_threads() == before


def python(code, *prefix, timeout=60, **environment):
    """stdout of a fresh interpreter in which no variable of ours or of OpenMP is set."""
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


THREADS = "import fastconv; print(fastconv.get_num_threads())"


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"FASTCONV_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"FASTCONV_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"FASTCONV_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}, 5),
        ({"FASTCONV_NUM_THREADS": " 6 "}, 6),
        ({"FASTCONV_NUM_THREADS": "100000"}, 256),
    ],
    ids=str,
)
def test_environment(environment, threads):
    assert python(THREADS, **environment).stdout == f"{threads}\n"


@pytest.mark.parametrize("value", ["OMP_NUM_THREADS=0", "OMP_NUM_THREADS=abc", "nothing=set"])
def test_default_threads_are_the_usable_cpus(value):
    """A useless OMP_NUM_THREADS, which is another library's, is passed over."""
    name, text = value.split("=")
    assert python(THREADS, **{name: text}).stdout == f"{_config.usable_cpus()}\n"


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "\u00b2", "9" * 5000],
                         ids=["0", "-1", "two", "1.5", "superscript", "5000 digits"])  # fmt: skip
def test_bad_environment(value):
    """It names the variable and its value; a count beyond 256 is 256."""
    result = python(THREADS, FASTCONV_NUM_THREADS=value)
    if value.isascii() and value.isdigit() and int(value[:9]):
        assert result.stdout == "256\n"
    else:
        assert re.search(r"ValueError: FASTCONV_NUM_THREADS: must be a positive", result.stderr)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs CPU affinity")
def test_one_cpu_means_one_thread():
    """Also where the affinity is set by the parent (pytorch/pytorch#194605)."""
    cpu = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{cpu}]); {THREADS}"
    assert python(code).stdout == "1\n"


def test_taskset():
    try:
        result = python(THREADS, "taskset", "-c", str(min(os.sched_getaffinity(0))))
    except (FileNotFoundError, AttributeError):
        pytest.skip("no taskset")
    assert result.stdout == "1\n"


# ---- cgroup quotas ------------------------------------------------------------------------------


def quota(tmp_path, table, files):
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "table").write_text(table)
    return _config._cgroup_quota(tmp_path / "fs", tmp_path / "table")


@pytest.mark.parametrize(
    ("table", "files", "cpus"),
    [
        ("0::/job\n", {"job/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/job\n", {"job/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/job\n", {"job/cpu.max": "max 100000\n"}, None),
        ("0::/a/b/c\n", {"a/cpu.max": "200000 100000", "a/b/c/cpu.max": "400000 100000"}, 2),
        ("0::/a/b/c\n", {"a/cpu.max": "max 100000", "a/b/cpu.max": "300000 100000"}, 3),
        ("0::/\n", {"cpu.max": "700000 100000"}, 7),
        ("0::/\n", {}, None),
        ("0::/job\n", {"job/cpu.max": ""}, None),
        ("0::/job\n", {"job/cpu.max": "nonsense here"}, None),
        ("0::/job\n", {"job/cpu.max": "100000 0"}, None),
        ("0::/job\n", {"job/cpu.max": "1 2 3"}, None),
        (
            "4:memory:/m\n3:cpu,cpuacct:/job\n0::/\n",
            {"cpu/job/cpu.cfs_quota_us": "250000\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
            2.5,
        ),
        (
            "3:cpu:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "-1\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        (
            "3:cpuacct,cpu:/a/b\n",
            {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"},
            1,
        ),
        ("0::/with:colon\n", {"with:colon/cpu.max": "100000 100000"}, 1),
        ("", {}, None),
        ("garbage\n", {}, None),
    ],
)
def test_cgroup_quota(tmp_path, table, files, cpus):
    assert quota(tmp_path, table, files) == cpus


def test_no_cgroup_files(tmp_path):
    assert _config._cgroup_quota(tmp_path / "fs", tmp_path / "no table") is None


@pytest.mark.parametrize(("limit", "threads"), [(0.5, 1), (1.0, 1), (1.99, 1), (1e6, None)])
def test_usable_cpus_respects_the_quota(monkeypatch, limit, threads):
    monkeypatch.setattr(_config, "_cgroup_quota", lambda: None)
    without = _config.usable_cpus()
    monkeypatch.setattr(_config, "_cgroup_quota", lambda: limit)
    assert _config.usable_cpus() == (threads or without)


# ---- processes and signals ----------------------------------------------------------------------

CALL = """
    import os, signal, sys, time
    import numpy as np
    import fastconv, fastconv.functional as F
    fastconv.set_num_threads(4)
    x = np.random.default_rng(0).standard_normal((4, 16, 40, 40)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((16, 16, 3, 3)).astype(np.float32)
    def call():
        y = F.conv2d(x, w, padding=1)
        return y.tobytes(), [g.tobytes() for g in F.conv2d_backward(y, x, w, padding=1)]
    want = call()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_use():
    """Use in the parent, in children of children, in the parent again: no hang, same bits."""
    result = python(
        CALL
        + """
    for _ in range(5):
        child = os.fork()
        if child == 0:
            ok = call() == want
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if call() == want else 1)
            ok &= os.waitpid(grandchild, 0)[1] == 0
            os._exit(0 if ok and call() == want else 1)
        assert call() == want
        assert os.waitpid(child, 0)[1] == 0
    assert call() == want
    print("done")
    """
    )
    assert result.stdout == "done\n", result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_another_thread_computes():
    result = python(
        CALL
        + """
    import threading
    stop = threading.Event()
    def loop():
        while not stop.is_set():
            call()
    thread = threading.Thread(target=loop)
    thread.start()
    for _ in range(10):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if call() == want else 1)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    thread.join()
    assert call() == want
    print("done")
    """
    )
    assert result.stdout == "done\n", result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_multiprocessing_with_fork():
    result = python(
        CALL
        + """
    import multiprocessing
    def job(_):
        return call() == want
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert all(pool.map(job, range(12)))
    print("done")
    """
    )
    assert result.stdout == "done\n", result.stderr


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_keyboard_interrupt():
    """The signal is seen after the call that runs; the next calls are not affected."""
    result = python(
        CALL
        + """
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    for delay in (0.001, 0.003, 0.01, 0.03):
        signal.setitimer(signal.ITIMER_REAL, delay)
        try:
            end = time.monotonic() + 20
            while time.monotonic() < end:
                call()
            sys.exit("no interrupt")
        except KeyboardInterrupt:
            assert call() == want
    print("done")
    """
    )
    assert result.stdout == "done\n", result.stderr


@pytest.mark.skipif("FASTCONV_SANITIZER" in os.environ, reason="a sanitizer keeps freed memory")
def test_memory_is_flat_over_shapes():
    """2000 shapes, no two the same: what is kept between calls stays below its cap of 64 MiB."""
    result = (
        python("""
    import numpy as np, fastconv, fastconv.functional as F
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096
    rng, before = np.random.default_rng(0), 0
    for call in range(2000):
        n, c, k, h, w = rng.integers(1, (3, 40, 40, 30, 30)) + 2
        x, weight = np.zeros((n, c, h, w), np.float32), np.zeros((k, c, 3, 3), np.float32)
        y = F.conv2d(x, weight, padding=1, stride=1 + call % 2)
        F.conv2d_backward(y, x, weight, padding=1, stride=1 + call % 2)
        assert fastconv.config()["workspace_bytes"] <= 64 << 20
        if call == 500:
            before = resident()
    assert resident() - before < 16 << 20, (before, resident())
    fastconv.clear_workspace()
    assert fastconv.config()["workspace_bytes"] == 0
    print("done")
    """)
        if Path("/proc/self/statm").exists()
        else pytest.skip("needs /proc")
    )
    assert result.stdout == "done\n", result.stderr


# ---- instruction sets ---------------------------------------------------------------------------


def test_isas():
    names = fastconv.isas()
    assert names[-1] == "generic"
    assert len(set(names)) == len(names)
    names.clear()
    assert fastconv.isas()


def test_use_isa_restores():
    before = fastconv.config()["isa"]
    for name in fastconv.isas():
        with fastconv.use_isa(name):
            assert fastconv.config()["isa"] == name
        assert fastconv.config()["isa"] == before


@pytest.mark.parametrize("name", ["avx3", "", "AVX2", " generic", "generic\0", "\N{SNOWMAN}"])
def test_unknown_isa(name):
    before = fastconv.config()["isa"]
    with pytest.raises(ValueError, match=r"^use_isa: unknown.*generic"):
        fastconv.use_isa(name)
    assert fastconv.config()["isa"] == before


@pytest.mark.parametrize("name", [None, 2, b"generic", ["generic"]])
def test_isa_of_another_type(name):
    with pytest.raises(TypeError, match=r"^use_isa: name must be a str"):
        fastconv.use_isa(name)


def test_isa_in_the_environment():
    code = "import fastconv; print(fastconv.config()['isa'])"
    for name in fastconv.isas():
        assert python(code, FASTCONV_ISA=name).stdout == f"{name}\n"
    assert python(code, FASTCONV_ISA="").stdout == f"{fastconv.isas()[0]}\n"
    result = python(code, FASTCONV_ISA="sse9")
    assert result.returncode != 0
    assert "ValueError: FASTCONV_ISA: unknown or unavailable" in result.stderr
    assert all(name in result.stderr for name in ("'sse9'", *fastconv.isas()))


# ---- introspection ------------------------------------------------------------------------------


def test_show_config(capsys):
    assert fastconv.show_config() is None
    text = capsys.readouterr().out
    config = fastconv.config()
    assert config["version"] == fastconv.__version__
    assert config["threads"] == fastconv.get_num_threads()
    for key, value in config.items():
        assert re.search(rf"^{key} +{re.escape(str(value))}$", text, re.MULTILINE)


def test_explain_conv2d():
    e = fastconv.explain_conv2d((2, 16, 20, 30), (32, 8, 3, 3), 2, 1, 1, 2, dtype=np.float64)
    assert e.output_shape == (2, 32, 10, 15)
    assert e.macs == 2 * 32 * 10 * 15 * 8 * 9
    assert e.flops == 2 * e.macs
    assert e.input_bytes == 2 * 16 * 20 * 30 * 8
    assert e.weight_bytes == 32 * 8 * 9 * 8
    assert e.output_bytes == 2 * 32 * 10 * 15 * 8
    assert 0 < e.scratch_bytes < 64 << 20
    assert e.isa == fastconv.config()["isa"]
    assert e.algorithm in str(e)
    assert e.reason


def test_explain_tells_the_forced_algorithm():
    shapes = (4, 64, 32, 32), (64, 64, 3, 3)
    forced = fastconv.explain_conv2d(*shapes, padding=1, algorithm="direct").algorithm
    assert forced != "winograd"
    assert fastconv.explain_conv2d((1, 32, 9, 9), (32, 1, 3, 3), groups=32).algorithm


def test_explain_of_what_could_never_run():
    e = fastconv.explain_conv2d((2**18, 2**18, 2**10, 2**10), (2**10, 2**18, 1, 1))
    assert e.macs == 2**66
    with pytest.raises(ValueError, match=r"explain_conv2d: .*kernel.*fit"):
        fastconv.explain_conv2d((1, 1, 2, 2), (1, 1, 3, 3))


@pytest.mark.parametrize(
    "arguments",
    [
        ((1, 2), (1, 1, 1, 1)),
        ((1, 1, 2, 2), (1, 1, 1)),
        ((2**40, 2**40, 2, 2), (1, 2**40, 1, 1)),
        ((1, 1, -2, 2), (1, 1, 1, 1)),
        ((1, 1, 2**63, 2), (1, 1, 1, 1)),
        ((1, 1, 2.0, 2), (1, 1, 1, 1)),
        (None, (1, 1, 1, 1)),
        ((1, 1, 2, 2), 1),
    ],
    ids=str,
)
def test_explain_refuses(arguments):
    with pytest.raises((TypeError, ValueError), match=r"^explain_conv2d: "):
        fastconv.explain_conv2d(*arguments)


# ---- import -------------------------------------------------------------------------------------


def test_import_time():
    """At most 20 ms over NumPy, in the best of five processes; twice that on a busy machine."""
    code = """
    import time
    import numpy
    start = time.perf_counter()
    import fastconv
    print(time.perf_counter() - start)
    """
    times = [float(python(code).stdout) for _ in range(5)]
    assert min(times) < 0.040, times


def test_import_is_lazy():
    """Only NumPy and the compiled half; subpackages come on first use."""
    code = """
    import sys, numpy
    before = set(sys.modules)
    import fastconv
    names = {n.split(".")[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names)
    names = {n for n in names if "cython" not in n}  # what the extension registers for itself
    ours = sorted(n for n in sys.modules if n.startswith("fastconv"))
    assert names == {"fastconv"}, names
    print(ours)
    fastconv.functional, fastconv.nn, fastconv.models, fastconv.optim, fastconv.reference
    loaded = {n.split(".")[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names)
    assert {n for n in loaded if "cython" not in n} <= {"fastconv", "numpy"}, loaded
    """
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "['fastconv', 'fastconv._config', 'fastconv._core']\n"


def test_a_source_tree_that_is_not_built_says_so(tmp_path):
    package = tmp_path / "fastconv"
    package.mkdir()
    (package / "__init__.py").write_bytes(Path(fastconv.__file__).read_bytes())
    command = [sys.executable, "-c", "import fastconv"]
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    result = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1
    assert f"no compiled extension in {package}" in result.stderr
    assert "outside the source tree, or install with `pip install -e .`" in result.stderr


def test_public_names():
    for name in fastconv.__all__:
        assert getattr(fastconv, name) is not None
    assert set(fastconv.__all__) <= set(dir(fastconv))
    with pytest.raises(AttributeError, match="no attribute 'conv3d'"):
        fastconv.conv3d  # noqa: B018
