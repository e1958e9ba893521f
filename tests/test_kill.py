"""A training process killed at any moment loses nothing but the steps since its last checkpoint."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from training import content

from fastconv.train import load_checkpoint, save_checkpoint, write_atomically
from fastconv.train.checkpoint import CHECKPOINT_NAME
from fastconv.train.fit import METRICS_NAME

pytest.importorskip("safetensors")
pytest.importorskip("matplotlib")

# 23 steps in 2 epochs, a checkpoint after each: about half of the time goes into writing.
RUN = ["train", "--model", "resnet8", "--epochs", "2", "--batch-size", "128",
       "--progress", "none", "--threads", "1"]  # fmt: skip


def start(folder, *words):
    """`fastconv train` into a folder, with a checkpoint after every step."""
    command = [sys.executable, "-m", "fastconv", *RUN, "--output", str(folder)]
    command += ["--checkpoint-every", "1", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process):
    output, error = process.communicate(timeout=120)
    assert process.returncode == 0, error.decode()
    return output.decode()


def wait_for_writing(process, path, before):
    """Wait until the process has replaced the checkpoint, and so is in its loop."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and path.stat().st_mtime_ns != before:
            return
        time.sleep(0.001)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(start(folder))
    return folder


def kill_until_done(folder, delays, whole):
    """Kill and resume a run `len(delays)` times, starting again when it is done.

    Four delays of five count from the first checkpoint the process writes, the fifth from its
    start. Returns the number of runs that ended, and of kills that left a half-written file.
    """
    runs = torn = 0
    path = folder / CHECKPOINT_NAME
    for i, delay in enumerate(delays):
        exists = path.exists()
        before = path.stat().st_mtime_ns if exists else 0
        process = start(folder, *(["--resume"] if exists else []))
        if i % 5 != 4:
            wait_for_writing(process, path, before)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if not path.exists():  # killed before it had anything to lose
            continue
        checkpoint = load_checkpoint(path)
        assert 0 <= checkpoint.meta["step"] <= 12
        if (folder / METRICS_NAME).exists():
            json.loads((folder / METRICS_NAME).read_text())
        torn += any(name.endswith(".tmp") for name in os.listdir(folder))
        if checkpoint.meta["epoch"] == 2:
            runs += 1
            check_end(folder, whole)
            folder = folder.with_name(f"run{runs}")
            path = folder / CHECKPOINT_NAME
    if path.exists():
        check_end(folder, whole)
        runs += 1
    return runs, torn


def check_end(folder, whole):
    """Let the run end; it has the bits of the whole one, and leaves its four files only."""
    finish(start(folder, "--resume"))
    assert content(folder) == content(whole)
    assert sorted(os.listdir(folder)) == sorted(os.listdir(whole))


@pytest.mark.parametrize(
    "kills", [5, pytest.param(50, marks=pytest.mark.long)], ids=["5 kills", "50 kills"]
)
def test_kill_9_at_random_moments(tmp_path, whole, kills, trust_counts):
    moments = random.Random(kills)
    delays = [moments.uniform(0, 0.5) for _ in range(kills)]
    runs, torn = kill_until_done(tmp_path / "run", delays, whole)
    trust_counts["kill -9 of a training process"] += kills
    trust_counts["kill -9 in the middle of a write"] += torn
    assert runs >= 1


def test_resume_clears_what_a_killed_run_was_writing(tmp_path, whole):
    """The pictures too: one half written was left beside the whole one for good."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for name in os.listdir(whole):
        (folder / f".{name}.0abc_def.tmp").write_bytes(b"half")
    check_end(folder, whole)


# ---- inside one write ---------------------------------------------------------------------------

# A child is killed at its n-th call of a C function or return from one, for n = 1, 1 + stride, ..
# until it gets through.
KILL_AT_CALL = """
    import json, os, signal, sys
    from fastconv.data import load_digits
    from fastconv.train import TrainConfig, load_checkpoint
    from fastconv.train.fit import Run
    from pathlib import Path

    folder, stride = Path(sys.argv[1]), int(sys.argv[2])
    run = Run(load_digits(), TrainConfig(model="softmax_regression"), folder)
    run.start()

    def save_and_die(call):
        run.step = 7
        left = call

        def hook(frame, event, argument):
            nonlocal left
            if event in ("c_call", "c_return"):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(hook)
        run.save()
        os._exit(0)

    call, killed, old, new, torn = 1, 0, 0, 0, 0
    while True:
        child = os.fork()
        if child == 0:
            save_and_die(call)
        status = os.waitpid(child, 0)[1]
        step = load_checkpoint(folder).meta["step"]
        assert step in (0, 7), step
        json.loads((folder / "metrics.json").read_text())
        torn += any(name.endswith(".tmp") for name in os.listdir(folder))
        for name in os.listdir(folder):
            if name.endswith(".tmp"):
                (folder / name).unlink()
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0 and step == 7
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        killed, old, new = killed + 1, old + (step == 0), new + (step == 7)
        call += stride
        run.step = 0
        run.save()
    print(json.dumps([killed, old, new, torn]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "stride", [13, pytest.param(1, marks=pytest.mark.long)], ids=["some calls", "every call"]
)
def test_kill_9_inside_a_save(tmp_path, stride, trust_counts):
    """At every call of a C function, system calls included: the old file or the new one."""
    code = [sys.executable, "-c", textwrap.dedent(KILL_AT_CALL), str(tmp_path), str(stride)]
    done = subprocess.run(code, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    killed, old, new, torn = json.loads(done.stdout)
    trust_counts["kill -9 at a C call of a save"] += killed
    assert killed * stride > 100
    assert old > 0
    assert new > 0
    assert torn > 0


def test_bytes_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    """What survives a power failure: file synced, renamed, folder synced, in this order."""
    order = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(handle):
        order.append(("sync", os.stat(handle).st_ino, os.stat(handle).st_size))
        real_sync(handle)

    def replace(source, target):
        order.append(("replace", os.stat(source).st_ino, Path(target).name))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomically(tmp_path / "x", b"12345")
    file, folder = (tmp_path / "x").stat(), tmp_path.stat()
    assert order[:2] == [("sync", file.st_ino, 5), ("replace", file.st_ino, "x")]
    assert [entry[:2] for entry in order[2:]] == [("sync", folder.st_ino)]


def test_reading_while_another_process_writes(tmp_path):
    """A checkpoint that is read during training is always a whole one."""
    process = start(tmp_path / "run")
    wait_for_writing(process, tmp_path / "run" / CHECKPOINT_NAME, 0)
    seen = set()
    while process.poll() is None:
        meta = load_checkpoint(tmp_path / "run").meta
        seen.add((meta["epoch"], meta["step"]))
    finish(process)
    assert len(seen) > 3


# ---- a full disk --------------------------------------------------------------------------------


def file_size_limit(limit):
    """Run in the child: no file may get larger, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def test_a_full_disk_is_an_error_and_keeps_the_last_checkpoint(tmp_path, whole):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for_writing(process, folder / CHECKPOINT_NAME, 0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = (folder / CHECKPOINT_NAME).read_bytes()
    for limit in (0, len(before) - 1):
        done = subprocess.run(
            [sys.executable, "-m", "fastconv", *RUN, "--output", str(folder), "--resume"],
            preexec_fn=lambda limit=limit: file_size_limit(limit),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert "error: File too large" in done.stderr
        assert "Traceback" not in done.stderr
        assert (folder / CHECKPOINT_NAME).read_bytes() == before
        assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]
    check_end(folder, whole)


def test_a_file_that_cannot_be_written_is_unchanged(tmp_path, whole):
    checkpoint = load_checkpoint(whole)
    save_checkpoint(tmp_path / CHECKPOINT_NAME, checkpoint)
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(tmp_path / CHECKPOINT_NAME, checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before
    assert os.listdir(tmp_path) == [CHECKPOINT_NAME]
