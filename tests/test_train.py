"""Training: batches, checkpoints that cannot be half written, and resuming bit for bit."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

import fastconv
from fastconv import nn
from fastconv.data import Dataset, load_digits
from fastconv.train import (
    Checkpoint,
    Normalisation,
    TrainConfig,
    augment,
    evaluate,
    fit,
    load_checkpoint,
    load_model,
    plot_curves,
    plot_filters,
    recipe,
    save_checkpoint,
    write_atomically,
)
from fastconv.train.batches import batch_bounds
from fastconv.train.checkpoint import CHECKPOINT_NAME
from fastconv.train.fit import METRICS_NAME, Run
from fastconv.train.plots import first_filters
from fastconv.train.progress import Progress, make_progress
from fastconv.train.signals import StopRequest

pytest.importorskip("safetensors")

CONFIG = TrainConfig(model="mlp", epochs=3, batch_size=16, lr=0.05, shift=1, flip=True)


def tiny_digits(train=72, test=30):
    digits = load_digits()
    return replace(
        digits,
        train_images=digits.train_images[:train],
        train_labels=digits.train_labels[:train],
        test_images=digits.test_images[:test],
        test_labels=digits.test_labels[:test],
    )


def small_net(seed=0):
    """Convolution, batch norm, pooling and dropout in few parameters."""
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        {
            "conv": nn.Conv2d(1, 4, 3, padding=1, rng=rng),
            "bn": nn.BatchNorm2d(4),
            "relu": nn.ReLU(),
            "pool": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(0.3, rng=rng),
            "fc": nn.Linear(64, 10, rng=rng),
        }
    )


def content(folder):
    """Every value of a run that must not depend on interruptions (timings may)."""
    checkpoint = load_checkpoint(folder)
    meta = dict(checkpoint.meta)
    timings = ("seconds", "images_per_second")
    history = [{k: v for k, v in r.items() if k not in timings} for r in meta.pop("history")]
    meta["sums"] = meta["sums"][:2]
    arrays = {**checkpoint.model, **checkpoint.optimizer["optimizer"]}
    return {k: (v.dtype.str, v.shape, v.tobytes()) for k, v in arrays.items()}, meta, history


# --- batches ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(1, 1), (7, 3), (65, 64), (1438, 64), (5, 100)])
def test_batches_cover_everything_in_equal_parts(count, size):
    bounds = batch_bounds(count, size)
    assert [i for a, b in bounds for i in range(a, b)] == list(range(count))
    sizes = {b - a for a, b in bounds}
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_normalisation():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2000, 5, 6, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    images[:, 2] = 7
    normalise = Normalisation.of(images)
    assert normalise.mean == pytest.approx(images.mean(axis=(0, 2, 3)), rel=1e-14)
    assert normalise.std[:2] == pytest.approx(images.std(axis=(0, 2, 3))[:2], rel=1e-12)
    assert normalise.std[2] == 1
    result = normalise(images[:9])
    expected = (images[:9] - images.mean(axis=(0, 2, 3))[:, None, None]) / np.array(
        normalise.std
    ).reshape(3, 1, 1)
    assert result.dtype == np.float32
    assert result.transpose(0, 2, 3, 1).flags.c_contiguous
    # x/std and mean/std are each rounded once, and so is their difference.
    assert np.abs(result - expected).max() <= 4 * np.finfo(np.float32).eps * 256 / 70


@pytest.mark.parametrize("pad_mode", ["zeros", "reflect"])
def test_augment_shifts_within_bounds(pad_mode):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (500, 6, 5, 2), dtype=np.uint8).transpose(0, 3, 1, 2)
    before = images.copy()
    result = augment(images, rng, 2, pad_mode, flip=True)
    assert np.array_equal(images, before)
    assert result.transpose(0, 2, 3, 1).flags.c_contiguous
    mode = {"zeros": "constant", "reflect": "reflect"}[pad_mode]
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), mode=mode)
    seen = set()
    for i in range(len(images)):
        matches = [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            if np.array_equal(
                padded[i, :, top : top + 6, left : left + 5][..., :: -1 if flip else 1], result[i]
            )
        ]
        assert matches
        seen.update(matches)
    assert len(seen) == 50


def test_augment_without_options_copies():
    images = np.arange(24, dtype=np.uint8).reshape(2, 1, 3, 4)
    result = augment(images, np.random.default_rng(0), 0, "zeros", flip=False)
    assert np.array_equal(result, images)
    assert not np.shares_memory(result, images)
    data = replace(tiny_digits(), train_images=np.repeat(images, 36, axis=0))
    with pytest.raises(ValueError, match="shift is 3, expected less than the images of 3x4"):
        fit(data, replace(CONFIG, shift=3), progress="none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0, expected >= 1"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": 0.0}, "lr is 0"),
        ({"momentum": 1.0}, "momentum is 1"),
        ({"weight_decay": -1.0}, "weight_decay is -1"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1"),
        ({"pad_mode": "wrap"}, "pad_mode is 'wrap'"),
        ({"epochs": 2.5}, "epochs is 2.5, expected int"),
        ({"epochs": True}, "epochs is True, expected int"),
        ({"model": 3}, "model is 3, expected str"),
    ],
)
def test_config_checks_its_values(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)


def test_recipes():
    assert recipe("digits").data == "digits"
    assert recipe("fashion-mnist").flip
    assert recipe("some/folder", replace(load_digits(), name="cifar10")).pad_mode == "reflect"
    assert recipe("some/folder", replace(load_digits(), name="other")).model == "resnet8"
    assert recipe("some/folder").data == "some/folder"
    assert TrainConfig.from_json(recipe("digits").to_json()) == recipe("digits")
    with pytest.raises(ValueError, match="unknown training option 'x'"):
        TrainConfig.from_json({"x": 1})


# --- checkpoints -----------------------------------------------------------------------------


def some_checkpoint():
    rng = np.random.default_rng(0)
    model = {
        "w": rng.standard_normal((2, 3)).astype(np.float32),
        "count": np.array(5),
        "f64": np.asfortranarray(rng.standard_normal((2, 3))),
        "empty": np.zeros((0, 4), np.float32),
    }
    optimizer = {"state": {0: [np.arange(3.0), 4, None]}, "lr": np.float64(0.1), "on": True}
    meta = {"config": {}, "data": {}, "epoch": 1, "step": 2, "history": []}
    return Checkpoint(model, optimizer, {**meta, "rng": {"state": 2**127 + 1}})


def test_checkpoint_round_trip(tmp_path):
    saved = some_checkpoint()
    save_checkpoint(tmp_path / CHECKPOINT_NAME, saved)
    for path in (tmp_path, tmp_path / CHECKPOINT_NAME):
        loaded = load_checkpoint(path)
        assert list(loaded.model) == sorted(saved.model)
        for key, value in saved.model.items():
            assert loaded.model[key].dtype == value.dtype
            assert np.array_equal(loaded.model[key], value)
            assert loaded.model[key].shape == value.shape
        assert loaded.optimizer["state"][0][0].tolist() == [0, 1, 2]
        assert loaded.optimizer["state"][0][1:] == [4, None]
        assert loaded.optimizer["lr"] == 0.1
        assert loaded.meta["rng"]["state"] == 2**127 + 1
        assert loaded.meta["format"] == 1
    assert os.listdir(tmp_path) == [CHECKPOINT_NAME]


def test_checkpoint_is_an_ordinary_safetensors_file(tmp_path):
    from safetensors.numpy import load_file

    save_checkpoint(tmp_path / "a", some_checkpoint())
    tensors = load_file(tmp_path / "a")
    assert np.array_equal(tensors["w"], some_checkpoint().model["w"])


def test_corrupt_checkpoints_name_the_file(tmp_path):
    from safetensors.numpy import save

    path = tmp_path / "bad.safetensors"
    save_checkpoint(path, some_checkpoint())
    good = path.read_bytes()
    meta = {"format": 1, "config": {}, "data": {}, "epoch": 0, "step": 0, "history": []}
    weights = {"w": np.zeros(3)}

    def with_state(text):
        return save(weights, metadata={"fastconv": text})

    cases = [
        (b"", "not a readable safetensors"),
        (b"garbage", "not a readable safetensors"),
        (b"\xff" * 64, "not a readable safetensors"),
        (good[:-1], "not a readable safetensors"),
        (good[:100], "not a readable safetensors"),
        (save(weights), "without a fastconv training state"),
        (with_state("{"), "corrupt training state"),
        (with_state("[" * 100_000), "corrupt training state"),
        (with_state("[]"), "format is missing or malformed"),
        (with_state(json.dumps({**meta, "epoch": "x"})), "epoch is missing or malformed"),
        (with_state(json.dumps({**meta, "format": 99})), "format 99, this fastconv reads"),
        (with_state(json.dumps({**meta, "history": [{"lr": 1}]})), "history is malformed"),
        (with_state(json.dumps({**meta, "optimizer": {"tensor": "x"}})), "corrupt optimizer"),
    ]
    for bad, message in cases:
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=f"bad.safetensors: .*{message}"):
            load_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "missing")


def test_write_atomically_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


# --- fit and resume --------------------------------------------------------------------------


def test_fit_learns_and_reports(tmp_path):
    data = tiny_digits(train=200)
    config = replace(CONFIG, epochs=12, shift=0, flip=False)
    result = fit(data, config, tmp_path / "a" / "b", progress="none")
    assert result.signal == 0
    assert [r["epoch"] for r in result.history] == list(range(1, 13))
    assert result.history[-1]["train_accuracy"] > 0.9
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    metrics = json.loads((tmp_path / "a" / "b" / METRICS_NAME).read_text())
    assert metrics["history"] == result.history
    assert metrics["config"] == config.to_json()
    assert sorted(os.listdir(tmp_path / "a" / "b")) == [CHECKPOINT_NAME, METRICS_NAME]
    trained = load_model(tmp_path / "a" / "b")
    own = evaluate(trained.model, data.test_images, data.test_labels, trained.normalise)
    assert own.accuracy == result.history[-1]["test_accuracy"]
    assert own.loss == result.history[-1]["test_loss"]
    assert own.confusion.sum(axis=1).tolist() == np.bincount(data.test_labels).tolist()
    probabilities = trained.predict(data.test_images)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(30), rel=1e-12)
    assert (probabilities.argmax(axis=1) == data.test_labels).mean() == own.accuracy
    assert trained.predict(data.test_images[:0]).shape == (0, 10)
    with pytest.raises(ValueError, match=r"expected \(N, 1, 8, 8\)"):
        trained.predict(data.test_images[:, :, :4])


def test_fit_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(tiny_digits(), replace(CONFIG, epochs=1), progress="none")
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="checkpoint_every is -1"):
        fit(tiny_digits(), CONFIG, checkpoint_every=-1, progress="none")


class Killed(BaseException):
    """Ends a run as abruptly as a kill does, as far as the files can tell."""


class KillAt(Progress):
    def __init__(self, steps):
        self.left = steps

    def step(self, images, loss, accuracy):
        self.left -= 1
        if self.left < 0:
            raise Killed


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


def test_bits_do_not_depend_on_threads_or_on_where_the_run_was_cut(tmp_path):
    data, config = tiny_digits(train=200), replace(CONFIG, model="resnet8", epochs=1)
    for threads, name in ((1, "one"), (2, "two")):
        with fastconv.num_threads(threads):
            fit(data, config, tmp_path / name, progress="none")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    with pytest.raises(Killed), fastconv.num_threads(2):
        fit(data, config, tmp_path / "cut", checkpoint_every=1, progress=KillAt(7))
    with fastconv.num_threads(1):
        fit(data, config, tmp_path / "cut", resume=True, progress="none")
    assert content(tmp_path / "cut") == content(tmp_path / "one")


def test_default_recipe_reaches_its_accuracy():
    result = fit(load_digits(), recipe("digits"), progress="none")
    assert result.history[-1]["test_accuracy"] >= 0.985  # 99.4 to 100 % over seeds 0 to 5


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
        (replace(CONFIG, epochs=2), "was written with epochs = 1, got 2"),
        (replace(CONFIG, epochs=1, lr=0.3), "was written with lr = 0.05, got 0.3"),
        (replace(CONFIG, epochs=1, model="lenet5"), "lenet5"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(data, config, tmp_path, resume=True, progress="none")
    other = tiny_digits(train=71)
    with pytest.raises(ValueError, match="was written with other data"):
        fit(other, replace(CONFIG, epochs=1), tmp_path, resume=True, progress="none")


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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_shape", [1 << 40, 8, 8]),
        ("image_shape", [1, 8]),
        ("classes", []),
        ("mean", []),
        ("std", [0.0]),
        ("max_value", "x"),
    ],
)
def test_load_model_reports_a_damaged_description(tmp_path, field, value):
    fit(tiny_digits(), replace(CONFIG, epochs=1), tmp_path, progress="none")
    saved = load_checkpoint(tmp_path)
    saved.meta["data"][field] = value
    save_checkpoint(tmp_path / CHECKPOINT_NAME, saved)
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors: "):
        load_model(tmp_path)
    del saved.meta["data"][field]
    save_checkpoint(tmp_path / CHECKPOINT_NAME, saved)
    with pytest.raises(ValueError, match=rf"checkpoint\.safetensors: '{field}' is missing"):
        load_model(tmp_path)


def test_divergence_is_an_error_and_keeps_the_last_checkpoint(tmp_path):
    class Explodes(nn.Identity):
        steps = 0

        def forward(self, x):
            self.steps += 1
            return x * np.float32(np.nan) if self.steps > 6 and self.training else x

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, rng=0), Explodes())
    with pytest.raises(ValueError, match="the loss is nan in epoch 2, step 1; lower the learning"):
        fit(tiny_digits(), CONFIG, tmp_path, model=model, progress="none")
    assert load_checkpoint(tmp_path).meta["epoch"] == 1


def test_model_must_fit_the_data():
    flat = tiny_digits()
    wide = replace(flat, train_images=flat.train_images[:, :, :4],
                   test_images=flat.test_images[:, :, :4])  # fmt: skip
    for data, model, message in (
        (flat, "nonsense", "nonsense"),
        (flat, "lenet5", "at least 16"),
        (wide, "lenet5", "takes square images, these are 4x8"),
        (flat, "logistic_regression", "no model named .logistic_regression."),
        (flat, "resnet1d", "3 axes"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(data, replace(CONFIG, model=model), progress="none")
    fit(wide, replace(CONFIG, epochs=1), progress="none")


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


def test_sigkill_at_any_moment_leaves_a_loadable_checkpoint(tmp_path):
    script = (
        "from fastconv.data import load_digits\n"
        "from fastconv.train import TrainConfig, fit\n"
        "config = TrainConfig(model='mlp', epochs=100000, batch_size=64)\n"
        f"fit(load_digits(), config, {str(tmp_path)!r}, checkpoint_every=1, progress='none')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    path = tmp_path / CHECKPOINT_NAME
    try:
        for _ in range(3000):
            if path.exists() and load_checkpoint(path).meta["step"] >= 3:
                break
            assert process.poll() is None
            threading.Event().wait(0.01)
        for _ in range(20):  # read while it writes: always a whole file
            load_checkpoint(path)
    finally:
        process.kill()
        process.wait()
    checkpoint = load_checkpoint(path)
    steps = checkpoint.meta["epoch"] * 23 + checkpoint.meta["step"]
    assert steps >= 3
    config = TrainConfig.from_json(checkpoint.meta["config"])
    run = Run(load_digits(), config, tmp_path)
    run.restore()
    assert run.steps_done == run.scheduler.last_step == steps
    assert [f for f in os.listdir(tmp_path) if f.endswith(".tmp")] == []


# --- progress and pictures -------------------------------------------------------------------


def test_progress_bars_and_lines(capsys):
    pytest.importorskip("tqdm")
    for kind in ("bars", "lines"):
        fit(tiny_digits(), replace(CONFIG, epochs=2), progress=kind)
        text = capsys.readouterr().err
        for word in ("epoch 1/2", "epoch 2/2", "loss ", "accuracy ", "test ", "images/s"):
            assert word in text
    assert len(text.splitlines()) == 2
    with pytest.raises(ValueError, match="progress is 'loud'"):
        make_progress("loud")


def png_size(path):
    image_module = pytest.importorskip("PIL.Image")
    with image_module.open(path) as image:
        image.verify()
        return image.size


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    names = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    values = ((2.0, 2.1, 0.3, 0.2), (0.5, 0.6, 0.9, 0.8), (0.01, 0.05, 1.0, 1.0))
    history = [
        {"epoch": i + 1, **dict(zip(names, row, strict=True))} for i, row in enumerate(values)
    ]
    for length in (1, 3):
        plot_curves(history[:length], tmp_path / "curves.png", "title")
        assert min(png_size(tmp_path / "curves.png")) > 300
    with pytest.raises(ValueError, match="history is empty"):
        plot_curves([], tmp_path / "x.png")
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 1, 1), (16, 3, 3, 1), (64, 7, 7, 3), (100, 5, 5, 4)):
        plot_filters(rng.standard_normal(shape), tmp_path / "filters.png", "title")
        assert min(png_size(tmp_path / "filters.png")) > 50
    assert sorted(os.listdir(tmp_path)) == ["curves.png", "filters.png"]


def test_first_filters():
    shape = (3, 4, 5)
    conv = np.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
    assert np.array_equal(
        first_filters({"a": np.zeros(2), "b": conv}, shape)[1, 0, 1], conv[1, :, 0, 1]
    )
    linear = np.arange(2 * 60.0).reshape(2, 60)
    assert first_filters({"b": linear}, shape).shape == (2, 4, 5, 3)
    assert first_filters({"b": np.zeros((4, 1, 7))}, shape).shape == (4, 1, 7, 1)
    with pytest.raises(ValueError, match="no layer"):
        first_filters({"b": np.zeros((2, 61))}, shape)


def test_dataset_of_your_own():
    rng = np.random.default_rng(0)
    images = rng.random((40, 8, 8, 3), dtype=np.float32).transpose(0, 3, 1, 2)
    labels = np.arange(40) % 2
    data = Dataset("mine", images, labels, images, labels, ("a", "b"), 1.0)
    result = fit(data, replace(CONFIG, epochs=1), progress="none")
    assert len(result.history) == 1
