"""A run that was stopped, killed or lengthened and resumed: the same bits."""

import os
import signal
import threading
from dataclasses import replace

import pytest
from training import CONFIG, KillAt, Killed, content, small_net, tiny_digits

from fastconv.train import Checkpoint, fit, load_checkpoint, save_checkpoint
from fastconv.train.checkpoint import CHECKPOINT_NAME
from fastconv.train.progress import Progress
from fastconv.train.signals import StopRequest

pytest.importorskip("safetensors")


# 5 steps per epoch; step 5 is the first of the second epoch.
@pytest.mark.parametrize("kill_at", [[0], [1], [4], [5], [7, 1], [14], [2, 2, 2, 2, 2, 2]])
@pytest.mark.parametrize("checkpoint_every", [0, 1, 3])
def test_killed_and_resumed_run_has_the_same_bits(tmp_path, kill_at, checkpoint_every):
    if checkpoint_every == 0 and len(kill_at) > 2:
        pytest.skip("never gets to the end of an epoch")
    data = tiny_digits()
    fit(data, CONFIG, tmp_path / "whole", model=small_net(), progress="none")
    options = {"model": small_net(), "checkpoint_every": checkpoint_every}
    for i, steps in enumerate(kill_at):
        with pytest.raises(Killed):
            fit(data, CONFIG, tmp_path / "x", resume=i > 0, progress=KillAt(steps), **options)
        options["model"] = small_net()
    fit(data, CONFIG, tmp_path / "x", resume=True, progress="none", **options)
    assert content(tmp_path / "x") == content(tmp_path / "whole")


def test_resume_of_a_finished_run_changes_nothing(tmp_path):
    fit(tiny_digits(), CONFIG, tmp_path, progress="none")
    before = content(tmp_path)
    result = fit(tiny_digits(), CONFIG, tmp_path, resume=True, progress="none")
    assert len(result.history) == 3
    assert content(tmp_path) == before


def test_resume_refuses_another_run(tmp_path):
    data = tiny_digits()
    with pytest.raises(ValueError, match="no checkpoint to resume"):
        fit(data, CONFIG, tmp_path, resume=True, progress="none")
    with pytest.raises(ValueError, match="resume needs the folder"):
        fit(data, CONFIG, resume=True, progress="none")
    fit(data, replace(CONFIG, epochs=1), tmp_path, progress="none")
    for config, message in (
        (replace(CONFIG, epochs=1, lr=0.3), "was written with lr = 0.05, got 0.3"),
        (replace(CONFIG, epochs=1, model="lenet5"), "lenet5"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(data, config, tmp_path, resume=True, progress="none")
    fit(data, replace(CONFIG, epochs=2), tmp_path, resume=True, progress="none")
    with pytest.raises(ValueError, match=r"epochs = 2, got 1; .* may only get more epochs"):
        fit(data, replace(CONFIG, epochs=1), tmp_path, resume=True, progress="none")
    other = tiny_digits(train=71)
    with pytest.raises(ValueError, match="was written with other data"):
        fit(other, replace(CONFIG, epochs=2), tmp_path, resume=True, progress="none")


def test_resume_reports_a_damaged_state(tmp_path):
    config = replace(CONFIG, epochs=1)
    fit(tiny_digits(), config, tmp_path, progress="none")
    saved = load_checkpoint(tmp_path)
    for damage in (
        {"rng": {"state": "x"}},
        {"sums": [1]},
        {"sums": ["a", 1, 2]},
        {"model_rng": 3},
        {"epoch": 7},
    ):
        meta = {**saved.meta, **damage}
        save_checkpoint(tmp_path / CHECKPOINT_NAME, Checkpoint(saved.model, saved.optimizer, meta))
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors: "):
            fit(tiny_digits(), config, tmp_path, resume=True, progress="none")
    for model, optimizer in (({}, saved.optimizer), (saved.model, {"optimizer": {"x": 1}})):
        save_checkpoint(tmp_path / CHECKPOINT_NAME, Checkpoint(model, optimizer, saved.meta))
        with pytest.raises(ValueError, match="cannot resume from it"):
            fit(tiny_digits(), config, tmp_path, resume=True, progress="none")


# --- signals ---------------------------------------------------------------------------------


class SignalAt(Progress):
    def __init__(self, steps, number=signal.SIGINT):
        self.left, self.number = steps, number

    def step(self, images, loss, accuracy):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("steps", [1, 4, 5, 8])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_after_the_step_and_resumes_exactly(tmp_path, capsys, steps, number):
    data = tiny_digits()
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    fit(data, CONFIG, tmp_path / "whole", model=small_net(), progress="none")
    stopped = fit(data, CONFIG, tmp_path / "x", model=small_net(), progress=SignalAt(steps, number))
    assert stopped.signal == number
    assert "stopping after this step" in capsys.readouterr().err
    meta = load_checkpoint(tmp_path / "x").meta
    assert meta["epoch"] * 5 + meta["step"] == steps
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    fit(data, CONFIG, tmp_path / "x", model=small_net(), resume=True, progress="none")
    assert content(tmp_path / "x") == content(tmp_path / "whole")


def test_second_signal_raises(capsys):
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert capsys.readouterr().err.count("\n") == 2


def test_fit_in_another_thread():
    results = []
    worker = threading.Thread(
        target=lambda: results.append(fit(tiny_digits(), CONFIG, progress="none"))
    )
    worker.start()
    worker.join()
    assert len(results[0].history) == 3


# --- more epochs -------------------------------------------------------------------------------

MORE = replace(CONFIG, epochs=5)


def lengthened(folder, kill_at=None, **options):
    """Resume the run in `folder` with the epochs of MORE, killed at a step or not."""
    display = "none" if kill_at is None else KillAt(kill_at)
    options = {"model": small_net(), "resume": True, "progress": display, **options}
    return fit(tiny_digits(), MORE, folder, **options)


def test_a_finished_run_can_be_lengthened(tmp_path):
    """The epochs done keep their rates; the rest are those of a run of five epochs."""
    data = tiny_digits()
    short = fit(data, CONFIG, tmp_path / "x", model=small_net(), progress="none").history
    whole = fit(data, MORE, model=small_net(), progress="none").history
    long = lengthened(tmp_path / "x").history
    assert long[:3] == short
    assert [r["epoch"] for r in long] == [1, 2, 3, 4, 5]
    assert [r["lr"] for r in long[3:]] == [r["lr"] for r in whole[3:]]
    assert short[2]["lr"] < long[3]["lr"] > long[4]["lr"]
    assert load_checkpoint(tmp_path / "x").meta["config"]["epochs"] == 5
    before = content(tmp_path / "x")
    fit(data, MORE, tmp_path / "x", model=small_net(), resume=True, progress="none")
    assert content(tmp_path / "x") == before


def test_a_run_lengthened_before_its_first_step_is_the_longer_run(tmp_path):
    data = tiny_digits()
    fit(data, MORE, tmp_path / "whole", model=small_net(), progress="none")
    with pytest.raises(Killed):
        fit(data, CONFIG, tmp_path / "x", model=small_net(), progress=KillAt(0))
    lengthened(tmp_path / "x")
    assert content(tmp_path / "x") == content(tmp_path / "whole")


# 5 steps per epoch: in the second epoch, at the end of the third, between and after them.
@pytest.mark.parametrize("steps", [7, 10, 14, None])
@pytest.mark.parametrize("kill_at", [0, 3, 5])
def test_a_lengthened_run_is_resumed_exactly(tmp_path, steps, kill_at):
    data = tiny_digits()
    for name in ("x", "whole"):
        display = "none" if steps is None else SignalAt(steps)
        fit(data, CONFIG, tmp_path / name, model=small_net(), progress=display)
    lengthened(tmp_path / "whole")
    with pytest.raises(Killed):
        lengthened(tmp_path / "x", kill_at, checkpoint_every=2)
    assert load_checkpoint(tmp_path / "x").meta["config"]["epochs"] == 5
    lengthened(tmp_path / "x")
    assert content(tmp_path / "x") == content(tmp_path / "whole")
