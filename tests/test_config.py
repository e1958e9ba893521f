"""Thread count, instruction sets, environment variables, introspection, import time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from subprocesses import python

import fastconv
from fastconv import _config

# ---- thread count -------------------------------------------------------------------------------


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


@pytest.mark.skipif("FASTCONV_SANITIZER" in os.environ, reason="a sanitizer's runtime takes longer")
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
    assert (
        result.stdout
        == "['fastconv', 'fastconv._config', 'fastconv._core', 'fastconv._messages']\n"
    )


def test_a_source_tree_that_is_not_built_says_so(tmp_path):
    """Without `site` (-S): an editable install's import hook would lend the package its _core."""
    package = tmp_path / "fastconv"
    package.mkdir()
    (package / "__init__.py").write_bytes(Path(fastconv.__file__).read_bytes())
    command = [sys.executable, "-S", "-c", "import fastconv"]
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
