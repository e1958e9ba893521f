"""Forks, CPU limits, the end of the process, and Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from subprocesses import CALL, python, run_python

from fastconv import _config

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def forks(some, many):
    """A parameter: `some` forks, and `many` in the long run."""
    return pytest.mark.parametrize(
        "forks", [some, pytest.param(many, marks=pytest.mark.long)], ids=lambda n: f"{n} forks"
    )


# ---- fork ---------------------------------------------------------------------------------------

# A child that hangs is ended by its alarm, and its status is not 0.
FORK = (
    CALL
    + """
def in_child(job):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if job() else 1)
    return child
def ended_well(child):
    return os.waitpid(child, 0)[1] == 0
"""
)


@needs_fork
@forks(10, 100)
def test_fork_after_use(forks, trust_counts):
    """Use in the parent, in children and grandchildren, in the parent again: the same bits."""
    code = f"""
    def job():
        grandchild = in_child(lambda: call() == want)
        return call() == want and ended_well(grandchild) and call() == want
    for _ in range({forks}):
        child = in_child(job)
        assert call() == want
        assert ended_well(child)
    assert call() == want
    print("done")
    """
    assert run_python(code, before=FORK, timeout=300) == "done\n"
    trust_counts["forks of a process that has workers"] += forks


@needs_fork
@forks(10, 100)
def test_fork_in_the_middle_of_calls(forks, trust_counts):
    """Three threads are inside calls, of which one has the workers, when the process forks."""
    code = f"""
    stop, wrong = threading.Event(), []
    def loop():
        while not stop.is_set():
            if call() != want:
                wrong.append(1)
    threads = [threading.Thread(target=loop) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range({forks}):
        time.sleep(i % 10 * 1e-3)
        child = in_child(lambda: call() == want and call() == want)
        assert call() == want
        assert ended_well(child)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert call() == want
    print("done")
    """
    assert run_python(code, before=FORK, timeout=300) == "done\n"
    trust_counts["forks in the middle of calls"] += forks


@needs_fork
@forks(10, 100)
def test_fork_in_the_middle_of_a_plan(forks, trust_counts):
    """Three threads run one plan when the process forks; the child runs it, and makes another."""
    code = f"""
    from fastconv import nn
    model = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1, rng=0), nn.BatchNorm2d(24), nn.ReLU(),
                          nn.MaxPool2d(2), nn.Conv2d(24, 8, 1, rng=1)).eval()
    plan = fastconv.compile(model, x.shape)
    want, stop, wrong = plan(x).tobytes(), threading.Event(), []
    def loop():
        while not stop.is_set():
            if plan(x).tobytes() != want:
                wrong.append(1)
    threads = [threading.Thread(target=loop) for _ in range(3)]
    for thread in threads:
        thread.start()
    def job():
        return plan(x).tobytes() == fastconv.compile(model, x.shape)(x).tobytes() == want
    for i in range({forks}):
        time.sleep(i % 10 * 1e-3)
        child = in_child(job)
        assert plan(x).tobytes() == want
        assert ended_well(child)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    print("done")
    """
    assert run_python(code, before=FORK, timeout=300) == "done\n"
    trust_counts["forks in the middle of a plan"] += forks


@needs_fork
def test_set_num_threads_in_forks():
    """A child has the parent's setting, and its own from then on, and workers; the same bits."""
    code = """
    def job(n):
        assert fastconv.get_num_threads() == 4
        fastconv.set_num_threads(n)
        call()
        grandchild = in_child(lambda: fastconv.get_num_threads() == n and call() == want)
        tasks = "/proc/self/task"
        workers = len(os.listdir(tasks)) if os.path.exists(tasks) else n
        return ended_well(grandchild) and call() == want and workers == n
    for n in range(1, 9):
        assert ended_well(in_child(lambda: job(n)))
        assert fastconv.get_num_threads() == 4 and call() == want
    print("done")
    """
    assert run_python(code, before=FORK) == "done\n"


@needs_fork
def test_workspace_in_forks():
    """A child may use and free the workspace, whatever the parent's threads were doing with it.

    They take and return a block for each of 1024 phases of a transposed convolution, so that many
    forks meet one that holds the lock of the workspace.
    """
    code = """
    small, large = np.ones((1, 8, 4, 4), np.float32), np.ones((8, 8, 32, 32), np.float32)
    def loop():
        while not stop.is_set():
            F.conv_transpose2d(small, large, stride=32)
    stop = threading.Event()
    threads = [threading.Thread(target=loop) for _ in range(3)]
    for thread in threads:
        thread.start()
    def job():
        signal.alarm(10)
        fastconv.clear_workspace()
        return fastconv.config()["workspace_bytes"] == 0 and call() == want
    for _ in range(40):
        time.sleep(1e-3)
        assert ended_well(in_child(job))
    stop.set()
    for thread in threads:
        thread.join()
    assert call() == want
    print("done")
    """
    assert run_python(code, before=FORK) == "done\n"


@needs_fork
def test_multiprocessing_with_fork():
    code = """
    import multiprocessing
    def job(_):
        return call() == want
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert all(pool.map(job, range(12)))
    print("done")
    """
    assert run_python(code, before=CALL) == "done\n"


# ---- CPUs the process may use -------------------------------------------------------------------

THREADS = "import fastconv; print(fastconv.get_num_threads())"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs CPU affinity")
def test_one_cpu_means_one_thread():
    """Also where the affinity is set by the parent (pytorch/pytorch#194605)."""
    cpu = min(os.sched_getaffinity(0))
    assert python(f"import os; os.sched_setaffinity(0, [{cpu}]); {THREADS}").stdout == "1\n"


def test_taskset_of_one_cpu_means_one_thread():
    try:
        result = python(THREADS, "taskset", "-c", str(min(os.sched_getaffinity(0))))
    except (FileNotFoundError, AttributeError):
        pytest.skip("no taskset")
    assert result.stdout == "1\n"


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
    ids=["v2, half a CPU", "v2, one CPU", "v2, no quota", "v1, half a CPU"],
)
def test_cgroup_quota_of_a_process(tmp_path, files, threads):
    """A process that finds these files where the kernel shows its control groups."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "cpu").mkdir(exist_ok=True)
    over = f'mount --bind {tmp_path} /sys/fs/cgroup && exec "$0" "$@"'
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", over]
    try:
        allowed = not subprocess.call([*namespace, "true"], stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        allowed = False
    if allowed:
        output = python(THREADS, *namespace).stdout
    else:  # no such right here: point the reader there
        output = python(f"""
            from pathlib import Path
            from fastconv import _config, get_num_threads
            _config._cgroup_quota.__defaults__ = Path({str(tmp_path)!r}), Path("/proc/self/cgroup")
            _config._from_environment()
            print(get_num_threads())
        """).stdout
    assert output == f"{threads or len(os.sched_getaffinity(0))}\n"


def test_the_default_is_what_the_process_may_use():
    assert python(THREADS).stdout == f"{_config.usable_cpus()}\n"


def test_more_threads_than_cpus_still_work():
    code = """
    for threads in (1, 2, 64, 256):
        with fastconv.num_threads(threads):
            assert call() == want
    print("done")
    """
    assert run_python(code, before=CALL) == "done\n"


# ---- the end of the process ---------------------------------------------------------------------

# Daemon threads are inside calls, one of them with all the workers, when the interpreter ends.
BUSY = (
    CALL
    + """
big = rng.standard_normal((8, 32, 96, 96)).astype(np.float32)
weight = rng.standard_normal((32, 32, 3, 3)).astype(np.float32)
def loop():
    while True:
        F.conv2d(big, weight, padding=1)
for _ in range(3):
    threading.Thread(target=loop, daemon=True).start()
time.sleep(0.05)
"""
)


@pytest.mark.parametrize(
    ("last_words", "status"),
    [
        ("pass", 0),
        ("sys.exit(7)", 7),
        ("raise ValueError('the end')", 1),
        ("import atexit; atexit.register(lambda: call() == want or os._exit(9))", 0),
        ("fastconv.clear_workspace()", 0),
        ("os._exit(5)", 5),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    ],
    ids=["end", "exit", "error", "atexit", "clear", "_exit", "SIGTERM"],
)
def test_interpreter_exit_with_busy_workers(last_words, status):
    done = python(f"{BUSY}\n{last_words}\n", timeout=30)
    assert done.returncode == status, done.stderr


@pytest.mark.parametrize("ends", [5, pytest.param(50, marks=pytest.mark.long)], ids=str)
def test_interpreter_exits_with_busy_workers(ends, trust_counts):
    """At other moments."""
    for i in range(ends):
        done = python(f"{BUSY}\ntime.sleep({i} * 1.7e-3)\n", timeout=30)
        assert done.returncode == 0, done.stderr
        trust_counts["interpreter exits with busy workers"] += 1


# ---- Ctrl-C -------------------------------------------------------------------------------------

# What a shell starts with & ignores SIGINT, and so do its children.
LOOP = (
    CALL
    + """
signal.signal(signal.SIGINT, signal.default_int_handler)
def until_interrupted(job):
    try:
        print("ready", flush=True)
        while True:
            job()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    assert call() == want
    print("healthy", flush=True)
"""
)


def interrupt(code, delay):
    """Send SIGINT to a process in `until_interrupted`; seconds until it comes out of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(60, process.kill)
    guard.start()
    with process:
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(delay)
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
            seconds = time.monotonic() - start
            assert process.stdout.readline() == "healthy\n"
            assert process.wait() == 0
            return seconds
        finally:
            guard.cancel()
            process.kill()
            print(process.stderr.read())


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.02, 0.1])
def test_keyboard_interrupt_between_short_calls(delay):
    """Calls take milliseconds: 5 s is what a busy machine may take to schedule the process."""
    assert interrupt("until_interrupted(call)", delay) < 5


def test_keyboard_interrupt_in_a_long_call():
    """A call is not broken off; the interrupt comes at its end, and not later than the next."""
    code = """
big = np.zeros((4, 64, 160, 160), np.float32)
weight = np.zeros((64, 64, 7, 7), np.float32)
def long_call():
    F.conv2d(big, weight, padding=3)
start = time.monotonic()
long_call()
seconds = time.monotonic() - start
print(f"a call takes {seconds} s", file=sys.stderr)
until_interrupted(long_call)
assert seconds < 20
"""
    assert interrupt(code, 0.05) < 25


@needs_fork
def test_keyboard_interrupt_in_a_forked_child():
    code = """
signal.signal(signal.SIGINT, lambda *_: os.kill(child, signal.SIGINT))
child = os.fork()
if child == 0:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(30)
    until_interrupted(call)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
os._exit(0)
"""
    assert interrupt(code, 0.05) < 5


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_signals_go_to_the_threads_of_python():
    """The workers block every signal that can be blocked."""
    code = """
    before = set(os.listdir("/proc/self/task"))
    fastconv.set_num_threads(7)
    call()
    for task in set(os.listdir("/proc/self/task")) - before:
        with open(f"/proc/self/task/{task}/status") as file:
            print(next(line for line in file if line.startswith("SigBlk")).split()[1])
    """
    masks = run_python(code, before=CALL).split()
    own = os.environ.get("FASTCONV_SANITIZER") == "thread"  # ThreadSanitizer starts one, too
    assert len(masks) == 6 + own
    blockable = {s for s in signal.valid_signals() if s < 32} - {signal.SIGKILL, signal.SIGSTOP}
    for mask in masks:
        assert re.fullmatch("[0-9a-f]{16}", mask)
        assert all(int(mask, 16) >> (number - 1) & 1 for number in blockable)
