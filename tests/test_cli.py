"""The command line, end to end: results, messages and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv.cli import _newest_run, main
from fastconv.train import load_checkpoint, save_checkpoint

for package in ("safetensors", "matplotlib", "tqdm", "PIL"):
    pytest.importorskip(package)

FAST = ["--model", "softmax_regression", "--epochs", "2"]
FILES = ["checkpoint.safetensors", "curves.png", "filters.png", "metrics.json"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a trained run."""
    folder = tmp_path_factory.mktemp("run") / "digits"
    assert main(["train", "--model", "mlp", "--epochs", "5", "--output", str(folder)]) == 0
    return str(folder)


def bits(folder):
    return {k: v.tobytes() for k, v in load_checkpoint(folder).model.items()}


# --- what it does ----------------------------------------------------------------------------


def test_train(capsys):
    assert main(["train", *FAST]) == 0
    captured = capsys.readouterr()
    folder = Path("runs", "digits-softmax_regression")
    assert sorted(os.listdir(folder)) == FILES
    assert captured.err.splitlines()[0].startswith(
        "digits: 1,438 training and 359 test images, 1x8x8, 10 classes; softmax_regression, "
        "650 parameters, "
    )
    assert captured.err.splitlines()[2].startswith("epoch 2/2  loss ")
    accuracy = json.loads((folder / "metrics.json").read_text())["history"][1]["test_accuracy"]
    assert captured.out.startswith(f"test accuracy {100 * accuracy:.2f} %")
    assert f"{folder}: checkpoint.safetensors, metrics.json" in captured.out


def test_train_never_overwrites_a_run(capsys):
    for _ in range(3):
        assert main(["train", *FAST]) == 0
    stem = "digits-softmax_regression"
    assert sorted(os.listdir("runs")) == [stem, f"{stem}-2", f"{stem}-3"]
    assert bits(f"runs/{stem}") == bits(f"runs/{stem}-3")
    capsys.readouterr()
    assert main(["train", *FAST, "--output", f"runs/{stem}"]) == 2
    assert "holds a checkpoint already; --resume continues" in capsys.readouterr().err


def test_options_reach_the_training():
    options = {"lr": 0.03, "batch_size": 100, "seed": 5, "momentum": 0.0, "weight_decay": 0.01,
               "label_smoothing": 0.1, "shift": 2, "pad_mode": "reflect"}  # fmt: skip
    words = [w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    assert main(["train", *FAST, "--output", "x", "--flip", "--threads", "1", *words]) == 0
    config = json.loads(Path("x", "metrics.json").read_text())["config"]
    assert config == config | options | {"flip": True, "model": "softmax_regression", "epochs": 2}


def test_resume_finds_the_newest_run(capsys):
    assert main(["train", *FAST]) == 0
    before = bits("runs/digits-softmax_regression")
    assert main(["train", "--resume", *FAST]) == 0
    assert bits("runs/digits-softmax_regression") == before
    assert os.listdir("runs") == ["digits-softmax_regression"]
    assert main(["train", "--resume", "--output", "runs/digits-softmax_regression"]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", *FAST, "--lr", "0.7"]) == 2
    assert "--lr 0.7: the run in" in capsys.readouterr().err


def test_resume_finds_a_run_by_its_data(capsys):
    x, y = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
    np.savez("two.npz", images=x, labels=y)
    assert main(["train", *FAST, "--data", "two.npz"]) == 0
    assert main(["train", *FAST]) == 0
    Path("runs", "broken").mkdir()
    Path("runs", "broken", "checkpoint.safetensors").write_bytes(b"half")
    capsys.readouterr()
    for data, epochs in (("two.npz", 3), ("./two.npz", 4), (str(Path("two.npz").resolve()), 5)):
        assert main(["train", "--resume", "--data", data, "--epochs", str(epochs)]) == 0
        assert "runs/two-softmax_regression: " in capsys.readouterr().out
    assert main(["train", "--resume", "--epochs", "6"]) == 0  # the last run, whatever its data
    assert "runs/two-softmax_regression: " in capsys.readouterr().out
    assert main(["train", "--resume", "--data", "two.npz", "--model", "mlp"]) == 2
    assert "no run on --data two.npz with --model mlp in runs" in capsys.readouterr().err


def test_resume_reads_only_the_headers_to_find_a_run():
    assert main(["train", *FAST]) == 0
    found = Path("runs", "digits-softmax_regression")
    checkpoint = load_checkpoint(found)
    checkpoint.model["large"] = np.zeros(2**22, np.float32)
    save_checkpoint(found / "checkpoint.safetensors", checkpoint)
    tracemalloc.start()
    assert _newest_run("digits", "softmax_regression") == found
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


@pytest.mark.parametrize("command", ["", "train", "evaluate", "predict", "info", "selftest"])
def test_help_is_ascii(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    assert capsys.readouterr().out.isascii()


def test_resume_lengthens_a_run(capsys):
    assert main(["train", *FAST]) == 0
    folder = "runs/digits-softmax_regression"
    resume = ["train", "--resume", "--model", "softmax_regression"]
    assert main([*resume, "--epochs", "3"]) == 0
    assert "epoch 3/3" in capsys.readouterr().err
    assert main(resume) == 0
    metrics = json.loads(Path(folder, "metrics.json").read_text())
    assert metrics["epochs_done"] == metrics["config"]["epochs"] == 3
    assert main([*resume, "--epochs", "2"]) == 2
    assert "--epochs 2: the run in" in capsys.readouterr().err


def test_evaluate(run, capsys):
    assert main(["evaluate", run]) == 0
    lines = capsys.readouterr().out.splitlines()
    history = json.loads(Path(run, "metrics.json").read_text())["history"]
    accuracy = 100 * history[-1]["test_accuracy"]
    assert lines[0].startswith(f"digits, 359 test images: accuracy {accuracy:.2f} %, loss ")
    assert len(lines) == 12
    assert main(["evaluate", f"{run}/checkpoint.safetensors", "--part", "train"]) == 0
    assert "1,438 train images" in capsys.readouterr().out


def test_predict(run, capsys):
    from PIL import Image

    from fastconv.data import load_digits

    digits = load_digits()
    images, labels = digits.test_images[:4, 0], digits.test_labels[:4]
    np.save("four.npy", images)
    np.save("one.npy", images[0])
    assert main(["predict", run, "four.npy", "one.npy", "--top", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "four.npy[0]", "four.npy[1]", "four.npy[2]", "four.npy[3]", "one.npy"
    ]  # fmt: skip
    right = sum(
        int(line.split(": ")[1][0]) == label for line, label in zip(lines[:4], labels, strict=True)
    )
    assert right >= 3
    grey = (images[0] * (255 / 16)).astype(np.uint8)
    Image.fromarray(grey).save("light.png")
    Image.fromarray(255 - grey).convert("RGB").resize((80, 80), 0).save("dark.png")
    assert main(["predict", run, "light.png"]) == 0
    assert main(["predict", run, "dark.png", "--invert"]) == 0
    light, dark = capsys.readouterr().out.splitlines()
    assert len(light.split(",")) == 3
    assert light.split(": ")[1][0] == dark.split(": ")[1][0] == lines[0].split(": ")[1][0]


def test_info(run, capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for word in ("version", "isa", "threads", "numpy", "models", "resnet20", "digits (embedded)"):
        assert word in text
    assert main(["info", run]) == 0
    text = capsys.readouterr().out
    for word in ("mlp, ", "digits", "1x8x8", "5 of 5 epochs", "accuracy", "lr 0.1"):
        assert word in text


def test_help_and_version(capsys):
    for words in (["--help"], ["train", "--help"], ["predict", "--help"], ["--version"]):
        assert main(words) == 0
        assert "fastconv" in capsys.readouterr().out


def test_train_on_an_image_folder(capsys):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        os.makedirs(f"shades/{name}")
        for i in range(20):
            pixels = level + rng.integers(-30, 30, (12 + i % 2, 10, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(f"shades/{name}/{i}.png")
    words = ["train", "--data", "shades", "--output", "x", "--model", "mlp", "--epochs", "5"]
    assert main(words) == 2
    assert "choose one with --image-size" in capsys.readouterr().err
    assert main([*words, "--image-size", "9"]) == 0
    assert "32 training and 8 test images, 3x9x9, 2 classes" in capsys.readouterr().err
    assert main(["evaluate", "x"]) == 0
    assert "accuracy 100.00 %" in capsys.readouterr().out
    os.rename("shades/light", "shades/bright")
    assert main(["evaluate", "x", "--data", "shades"]) == 2
    assert "classes are bright, dark; the model knows dark, light" in capsys.readouterr().err
    assert main(["predict", "x", "shades/bright/3.png", "--top", "1"]) == 0
    assert capsys.readouterr().out.startswith("shades/bright/3.png: light ")


# --- what it says about bad input ------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "fastconv: error: the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["train", "--wings"], "unrecognized arguments: --wings"),
        (["train", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["train", "--epochs", "0"], "epochs is 0, expected >= 1"),
        (["train", "--batch-size", "-4"], "batch_size is -4, expected >= 1"),
        (["train", "--lr", "nan"], "lr is nan, expected a positive number"),
        (["train", "--seed", "-1"], "seed is -1, expected >= 0"),
        (["train", "--threads", "0"], "--threads is 0, expected >= 1"),
        (["train", "--checkpoint-every", "-1"], "checkpoint_every is -1, expected >= 0"),
        (["train", "--shift", "8"], "shift is 8, expected less than the images of 8x8"),
        (["train", "--image-size", "8"], "image_size resizes folders of images only"),
        (["train", "--model", "alexnet"], "no model named 'alexnet'; there are "),
        (["train", "--model", "lenet5"], "image_size must be at least 16, got 8"),
        (["train", "--data", "nothing"], "nothing: no such file or folder, nor a known data set"),
        (["train", "--data", "bad.npz"], "bad.npz: corrupt or unsupported .npz archive"),
        (["train", "--data", "bad-images-idx3-ubyte"], "bad-images-idx3-ubyte: "),
        (["train", "--data", "bad.bin"], "bad.bin: 3 bytes are not a positive multiple"),
        (["train", "--data", "bad.xyz"], "bad.xyz: unknown kind of data"),
        (["train", "--data", "empty"], "empty: expected 2 or more class folders"),
        (["train", "--output", "bad.xyz"], "bad.xyz: "),
        (["train", "--resume"], "--resume: no run in runs; name its folder"),
        (["train", "--resume", "--output", "empty"], "there is no checkpoint to resume"),
        (["evaluate", "nothing"], "nothing: No such file or directory"),
        (["evaluate", "empty"], "empty/checkpoint.safetensors: No such file or directory"),
        (["evaluate", "bad.npz"], "bad.npz: not a readable safetensors file"),
        (["info", "bad.npz"], "bad.npz: not a readable safetensors file"),
        (["predict", "RUN"], "the following arguments are required: IMAGE"),
        (["predict", "RUN", "nothing.png"], "nothing.png: No such file or directory"),
        (["predict", "RUN", "bad.npz"], "bad.npz: not a readable image"),
        (["predict", "RUN", "bad.npy"], "bad.npy: not a readable .npy array"),
        (["predict", "RUN", "wide.npy"], "wide.npy: images have shape (1, 8, 9), the model was"),
        (["predict", "RUN", "one.npy", "--top", "0"], "--top is 0, expected >= 1"),
        (["evaluate", "RUN", "--data", "wide.npz"], "images are (1, 8, 9), the model was trained"),
        (["evaluate", "RUN", "--batch-size", "0"], "--batch-size is 0, expected >= 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(run, capsys, words, message):
    for name in ("bad.npz", "bad.xyz", "bad.bin", "bad-images-idx3-ubyte", "bad.npy"):
        Path(name).write_bytes(b"bad")
    Path("bad-labels-idx1-ubyte").write_bytes(b"bad")
    Path("empty").mkdir()
    np.save("one.npy", np.zeros((8, 8)))
    np.save("wide.npy", np.zeros((8, 9)))
    np.savez("wide.npz", images=np.zeros((20, 8, 9)), labels=np.arange(20) % 2)
    assert main([run if word == "RUN" else word for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fastconv")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize("package", ["safetensors", "matplotlib"])
def test_missing_extra_is_one_line(capsys, monkeypatch, package):
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["train", *FAST]) == 2
    error = capsys.readouterr().err
    assert 'pip install "fastconv[train]"' in error
    assert error.count("\n") == 1


# --- as a process ----------------------------------------------------------------------------


def command(*words):
    return [sys.executable, "-m", "fastconv", *words]


@pytest.fixture
def environment():
    """One in which a process that starts elsewhere finds the package under test."""
    paths = [str(Path(fastconv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}


def test_module_runs_as_a_command(environment):
    options = {"capture_output": True, "text": True, "timeout": 60, "env": environment}
    done = subprocess.run(command("train", *FAST), **options)
    assert done.returncode == 0
    assert done.stdout.startswith("test accuracy ")
    done = subprocess.run(command("train", "--model", "x"), **options)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_ctrl_c_leaves_a_loadable_checkpoint(environment, capsys):
    process = subprocess.Popen(
        command("train", "--model", "mlp", "--epochs", "100000", "--output", "x"),
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    path = Path("x", "checkpoint.safetensors")
    deadline = time.monotonic() + 60
    while not (path.exists() and load_checkpoint(path).meta["epoch"] >= 1):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping after this step" in error
    assert "continue with: fastconv train --resume --output x" in error
    assert "Traceback" not in error
    assert sorted(os.listdir("x")) == FILES
    assert main(["evaluate", "x"]) == 0
    assert main(["info", "x"]) == 0
    assert "of 100000 epochs" in capsys.readouterr().out
