"""Training: batches, checkpoints that cannot be half written, and resuming bit for bit."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from training import CONFIG, KillAt, Killed, content, tiny_digits

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
from fastconv.train.fit import METRICS_NAME
from fastconv.train.plots import first_filters
from fastconv.train.progress import make_progress

pytest.importorskip("safetensors")


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
