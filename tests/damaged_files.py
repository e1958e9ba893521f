"""Small right files of every kind that fastconv reads, and ways to damage them."""

import gzip
import io
import struct
import zipfile

import numpy as np

from fastconv import data, train
from fastconv.cli import _read_images


def idx(array):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


def packed_idx(rng):
    return gzip.compress(idx(images(rng)))


def images(rng, count=12):
    return rng.integers(0, 256, (count, 6, 5), dtype=np.uint8)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(rng, save=np.savez):
    stream = io.BytesIO()
    save(stream, images=images(rng), labels=np.arange(12) % 3)
    return stream.getvalue()


def picture(rng, kind):
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


def checkpoint(folder):
    """The bytes of a run's checkpoint."""
    config = train.TrainConfig(model="softmax_regression", epochs=1)
    train.fit(data.load_digits(), config, folder, progress="none")
    return (folder / train.checkpoint.CHECKPOINT_NAME).read_bytes()


def _labelled(path):
    """Images of the file, and labels beside it."""
    (path.parent / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(12, dtype=np.uint8) % 3))
    return data.load_dataset(path)


def _resume(path):
    run = train.fit
    config = train.TrainConfig(model="softmax_regression", epochs=1)
    return run(data.load_digits(), config, path.parent, resume=True, progress="none")


def _npy(path):
    return _read_images(path, MODEL, False)


class _Model:
    image_shape, max_value = (1, 6, 5), 255.0


MODEL = _Model()
# name of the file, its bytes from a generator, what reads it
KINDS = {
    "idx": ("train-images-idx3-ubyte", lambda rng: idx(images(rng)), _labelled),
    "idx.gz": ("train-images-idx3-ubyte.gz", packed_idx, _labelled),
    "cifar": ("batch.bin", lambda rng: (b"\1" + rng.bytes(3072)) * 6, data.load_dataset),
    "npz": ("set.npz", npz, data.load_dataset),
    "npz, deflated": ("set.npz", lambda rng: npz(rng, np.savez_compressed), data.load_dataset),
    "npy": ("array.npy", lambda rng: npy(images(rng, 1)[0]), _npy),
    **{
        kind: (f"image.{kind.lower()}", lambda rng, k=kind: picture(rng, k),
               lambda path: data.read_image(path, 3))
        for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
    },
    "checkpoint, load": ("checkpoint.safetensors", None, train.load_model),
    "checkpoint, resume": ("checkpoint.safetensors", None, _resume),
}  # fmt: skip


def damages(rng, content, count):
    """(what was done, the damaged bytes)."""
    size, head = len(content), min(len(content), 2000)
    for length in sorted({*range(min(size, 12)), *rng.integers(0, size, count // 4).tolist()}):
        yield f"cut to {length} bytes", content[:length]
    for k in range(count // 2):
        broken = bytearray(content)
        for at in rng.integers(0, head if k % 2 else size, int(rng.integers(1, 4))):
            broken[at] ^= 1 << int(rng.integers(8))
        yield f"flipped bits, {k}", bytes(broken)
    for _ in range(count // 4):
        at, width = int(rng.integers(0, head)), int(rng.choice([1, 2, 4, 8]))
        extreme = bytes([int(rng.choice([0, 0x7F, 0x80, 0xFF]))]) * width
        yield f"{extreme.hex()} at {at}", content[:at] + extreme + content[at + width :]
    yield "followed by more", content + b"more"
    yield "twice", content * 2
    yield "random bytes", rng.bytes(size)
    yield "zeros", bytes(size)


def npy_header(descr="'<f4'", shape="(2, 2)", order="False", version=(1, 0), body=bytes(16)):
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    code = "<H" if version == (1, 0) else "<I"
    text += b" " * (-(10 + len(text) + 1) % 64) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack(code, len(text)) + text + body


def archive(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return stream.getvalue()
