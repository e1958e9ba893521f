"""Damaged files: a ValueError of one line that names the file; nothing unpickled, nothing large
allocated."""

import copy
import io
import json
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from damaged_files import KINDS, archive, checkpoint, damages, idx, npy_header

from fastconv import data, train
from fastconv.cli import main
from fastconv.data.npz import read_npy

for package in ("safetensors", "PIL", "matplotlib"):
    pytest.importorskip(package)

ALLOWED = 32 << 20  # bytes that reading a file of some KiB may allocate
# Nothing tells how far a picture unpacks; Pillow stops at this many pixels. Of 3 bytes, and a copy.
ALLOWED_OF_PICTURES = 89_478_485 * 3 * 2 + ALLOWED
PICTURES = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("run"))


@pytest.fixture(autouse=True)
def _no_pickle(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)


def read(path, reader, what):
    """Whether the file was read; a ValueError is the only other outcome."""
    tracemalloc.start()
    try:
        reader(path)
        return True
    except ValueError as error:
        text = str(error)
        assert path.name in text or path.parent.name in text, f"{what}: {text}"
        assert "\n" not in text, f"{what}: {text}"
        assert len(text) < 500, f"{what}: {text}"
        return False
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        allowed = ALLOWED_OF_PICTURES if path.stem == "image" else ALLOWED
        assert peak < allowed, f"{what}: {peak} bytes allocated"


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind, rng, saved, tmp_path, trust_counts):
    name, make, reader = KINDS[kind]
    content = make(rng) if make else saved
    path = tmp_path / name
    path.write_bytes(content)
    assert read(path, reader, "whole")
    for what, broken in damages(rng, content, 60):
        path.write_bytes(broken)
        read(path, reader, what)
        trust_counts["damaged files read"] += 1


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files(kind, rng, saved, tmp_path, trust_counts):
    name, make, reader = KINDS[kind]
    path = tmp_path / name
    for what, broken in damages(rng, make(rng) if make else saved, 2000):
        path.write_bytes(broken)
        read(path, reader, what)
        trust_counts["damaged files read"] += 1


# --- files that lie -------------------------------------------------------------------------------

DEEP = "-" * 5000 + "1"
HEADERS = {
    "object": {"descr": "'|O'"},
    "structure": {"descr": "[('a', '<f4')]"},
    "empty tuple": {"descr": "()"},
    "list of one": {"descr": "[('a',)]"},
    "nested dtype": {"descr": "'(2,2)<f4'"},
    "unknown dtype": {"descr": "'<q9'"},
    "number": {"descr": "7"},
    "string": {"descr": "'<U4'"},
    "dates": {"descr": "'<M8[s]'"},
    "complex": {"descr": "'<c8'"},
    "fractional shape": {"shape": "(1.5, 2)"},
    "negative shape": {"shape": "(-2, -2)"},
    "shape of a str": {"shape": "('2', 2)"},
    "absurd shape": {"shape": "(2**62, 4)"},
    "wrapping shape": {"shape": f"({2**32}, {2**32})"},
    "absurd empty shape": {"shape": f"(0, {2**70})", "body": b""},
    "empty shape past NumPy's": {"shape": f"(0, {2**40}, {2**40})", "body": b""},
    "many axes": {"shape": f"({'1,' * 100})", "body": bytes(4)},
    "deep": {"shape": DEEP},
    "deep brackets": {"shape": "(" * 300},
    "order": {"order": "2"},
    "version": {"version": (9, 9)},
    "long header": {"shape": "(2, 2)" + " " * 20_000},
    "more data": {"body": bytes(17)},
    "less data": {"body": bytes(15)},
}


@pytest.mark.parametrize("lie", HEADERS)
def test_npy_headers_that_lie(lie, tmp_path):
    content = npy_header(**HEADERS[lie])
    (tmp_path / "array.npy").write_bytes(content)
    (tmp_path / "set.npz").write_bytes(archive(images=content, labels=content))
    assert not read(tmp_path / "array.npy", KINDS["npy"][2], lie)
    assert not read(tmp_path / "set.npz", data.read_npz, lie)


def test_a_pickle_in_an_archive_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, images=np.array([{}, []], object), labels=np.zeros(2, int))
    with pytest.raises(
        ValueError, match="dtype object is not a plain number; nothing is unpickled"
    ):
        data.load_dataset(path)
    path.write_bytes(archive(images=b"\x80\x04N.", labels=b"\x80\x04N."))
    assert not read(path, data.read_npz, "a pickle for an .npy")


def test_an_archive_that_promises_more_than_it_can_hold(tmp_path):
    """Members that share one stream of zeros (Fifield 2019, "A better zip bomb")."""
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", npy_header(shape=f"({1 << 20},)", body=bytes(4 << 20)))
        for k in range(400):
            twin = copy.copy(file.filelist[0])
            twin.filename = f"{k}.npy"
            file.filelist.append(twin)
    with pytest.raises(ValueError, match=r"set\.npz: promises \d+ bytes, \d+ cannot hold that"):
        data.load_dataset(path)


def rewritten(content, change):
    """A safetensors file whose JSON header went through `change`."""
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    state = json.loads(header["__metadata__"]["fastconv"])
    change(header, state)
    header["__metadata__"]["fastconv"] = json.dumps(state)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def set_state(*path):
    *outer, last, value = path

    def change(header, state):
        for key in outer:
            state = state[key]
        state[last] = value

    return change


def set_tensor(field, value):
    def change(header, state):
        key = next(k for k in header if k != "__metadata__" and not k.startswith("optimizer/"))
        header[key][field] = value

    return change


STATES = {
    "image of 2**32 pixels": set_state("data", "image_shape", [1, 1 << 16, 1 << 16]),
    "image of 2**24 pixels": set_state("data", "image_shape", [1, 1 << 12, 1 << 12]),
    "negative image": set_state("data", "image_shape", [1, -8, 8]),
    "image of words": set_state("data", "image_shape", ["a", "b", "c"]),
    "flat image": set_state("data", "image_shape", [64]),
    "100,000 classes": set_state("data", "classes", [str(i) for i in range(100_000)]),
    "no classes": set_state("data", "classes", []),
    "classes of a number": set_state("data", "classes", 10),
    "deviation of 0": set_state("data", "std", [0.0]),
    "deviation of NaN": set_state("data", "std", ["nan"]),
    "two means": set_state("data", "mean", [0.0, 0.0]),
    "no data": set_state("data", None),
    "other model": set_state("config", "model", "resnet110"),
    "unknown model": set_state("config", "model", "../../etc"),
    "model of a number": set_state("config", "model", 5),
    "epochs of a word": set_state("config", "epochs", "many"),
    "unknown option": set_state("config", "__class__", 1),
    "no config": set_state("config", []),
    "format 2": set_state("format", 2),
    "history of words": set_state("history", ["a"]),
    "negative step": set_state("step", -5),
    "epoch of a word": set_state("epoch", "1"),
    "optimizer of a tensor": set_state("optimizer", {"tensor": "nothing"}),
    "optimizer of a list": set_state("optimizer", [[[]]]),
    "dtype I8": set_tensor("dtype", "I8"),
    "dtype BF16": set_tensor("dtype", "BF16"),
    "dtype F8": set_tensor("dtype", "F8_E4M3"),
    "wrong shape": set_tensor("shape", [64, 10]),
    "absurd shape": set_tensor("shape", [2**40, 2**40]),
    "offsets past the end": set_tensor("data_offsets", [0, 2**50]),
    "offsets reversed": set_tensor("data_offsets", [100, 0]),
}
RESUMES = {
    "random state of a word": set_state("rng", "state"),
    "random state of another generator": set_state("rng", "bit_generator", "MT19937"),
    "random state out of range": set_state("rng", "state", "state", 2**200),
    "no random state": set_state("epoch_rng", {}),
    "sums of words": set_state("sums", ["a", "b", "c"]),
    "two sums": set_state("sums", [0, 0]),
    "position past the end": set_state("epoch", 10**6),
    "other images": set_state("data", "crc32", 1),
}


@pytest.mark.parametrize("lie", STATES)
def test_checkpoints_that_lie(lie, saved, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(rewritten(saved, STATES[lie]))
    reads_as_resume = KINDS["checkpoint, resume"][2]
    loaded, resumed = read(path, train.load_model, lie), read(path, reads_as_resume, lie)
    assert not (loaded and resumed)


@pytest.mark.parametrize("lie", RESUMES)
def test_states_that_lie(lie, saved, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(rewritten(saved, RESUMES[lie]))
    assert not read(path, KINDS["checkpoint, resume"][2], lie)


def test_a_header_that_promises_more_than_the_file(saved, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    for size in (0, 1, 2**31, 2**62, 2**63, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", size) + saved[8:])
        assert not read(path, train.load_model, size)


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_says_it_in_one_line(kind, rng, saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name, make, _ = KINDS[kind]
    content = make(rng) if make else saved
    (tmp_path / "good.safetensors").write_bytes(saved)
    words = {
        "npy": ["predict", "good.safetensors", name],
        "checkpoint, load": ["info", name],
        "checkpoint, resume": ["train", "--resume", "--output", str(tmp_path)],
    }.get(kind, ["train", "--epochs", "1", "--output", "x", "--data", name])
    if kind in PICTURES:
        words = ["predict", "good.safetensors", name]
    for broken in (b"", content[: len(content) // 2 + 1], content[:30], bytes(len(content) - 1)):
        (tmp_path / name).write_bytes(broken)
        assert main(words) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"fastconv {words[0]}: error: ")
        assert captured.err.count("\n") == 1


def test_idx_files_that_are_no_images(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((12, 6), np.uint8)))
    assert not read(path, KINDS["idx"][2], "two axes")


def test_an_array_that_ends_early():
    """A stream that holds less than the size given for it."""
    content = npy_header()
    with pytest.raises(ValueError, match="set: truncated or too long"):
        read_npy(io.BytesIO(content[:-1]), len(content), "set")
