"""Readers of data sets: what they return, and what they say about files that are not right."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest

from fastconv import data


def idx_bytes(array, code=0x08):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def some_images(count=12, size=6, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, size, size), dtype=np.uint8)
    return images, (np.arange(count) % 3).astype(np.uint8)


def is_channels_last(images):
    return images.transpose(0, 2, 3, 1).flags.c_contiguous


# --- digits ----------------------------------------------------------------------------------


def test_digits():
    digits = data.load_digits()
    assert digits.train_images.shape == (1438, 1, 8, 8)
    assert digits.test_images.shape == (359, 1, 8, 8)
    assert is_channels_last(digits.train_images)
    assert is_channels_last(digits.test_images)
    assert digits.train_images.dtype == np.uint8
    assert digits.train_images.max() == digits.max_value == 16
    assert digits.classes == tuple("0123456789")
    assert np.bincount(digits.test_labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]


def test_digits_split_is_the_documented_one():
    digits = data.load_digits()
    from importlib import resources

    path = resources.files("fastconv.data") / "digits.npz"
    assert len(path.read_bytes()) < 60_000
    with np.load(io.BytesIO(path.read_bytes())) as arrays:
        mask = data.stratified_split(arrays["labels"])
        assert np.array_equal(mask, arrays["test"])
        assert np.array_equal(arrays["images"][mask], digits.test_images[:, 0])
        assert np.array_equal(arrays["labels"][~mask], digits.train_labels)


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    digits, other = data.load_digits(), datasets.load_digits()
    mask = data.stratified_split(other.target)
    assert np.array_equal(digits.train_images[:, 0], other.images[~mask])
    assert np.array_equal(digits.test_labels, other.target[mask])


def test_stratified_split_takes_every_class():
    labels = np.repeat([0, 1, 7], [5, 10, 40])
    mask = data.stratified_split(labels)
    assert np.bincount(labels[mask], minlength=8)[[0, 1, 7]].tolist() == [1, 2, 8]
    with pytest.raises(ValueError, match=r"fraction is 1\.5"):
        data.stratified_split(labels, 1.5)


# --- IDX -------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("code", "dtype"),
    [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")],
)
def test_read_idx(tmp_path, packed, code, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    content = idx_bytes(array, code)
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(content) if packed else content)
    result = data.read_idx(path)
    assert result.dtype == np.dtype(dtype)
    assert result.dtype.isnative
    assert np.array_equal(result, array)


GOOD = idx_bytes(np.zeros((2, 3, 4), np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file .it starts with nothing"),
        (b"\x00\x00", "not an IDX file"),
        (b"\x89PNG\r\n", "not an IDX file .it starts with 89 50 4e 47"),
        (b"\x00\x00\x07\x01\x00\x00\x00\x00", "not an IDX file"),
        (b"\x00\x00\x08\x00", "0 axes"),
        (b"\x00\x00\x08\xff" + b"\xff" * 2000, "255 axes"),
        (b"\x00\x00\x08\x03\x00\x00", "truncated IDX header"),
        (GOOD[:-1], r"promises shape \(2, 3, 4\), 40 bytes; the file has 39"),
        (GOOD + b"x", "the file has 41"),
        (b"\x00\x00\x0e\x04" + b"\xff" * 16, "promises shape"),
        (gzip.compress(GOOD)[:-9], "corrupt gzip"),
        (gzip.compress(GOOD[:-1]), "truncated, 23 of 24 bytes"),
        (gzip.compress(GOOD + b"x"), "more data than the 24 bytes"),
        (gzip.compress(GOOD)[:-8] + b"12345678", "corrupt gzip"),
        (gzip.compress(b"\x00\x00\x0e\x04" + b"\xff" * 16), "gzip cannot hold that"),
        (b"\x1f\x8bnot gzip", "corrupt gzip"),
    ],
)
def test_bad_idx_names_the_file(tmp_path, content, message):
    path = tmp_path / "bad-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad-images-idx3-ubyte: .*{message}"):
        data.read_idx(path)


def write_mnist(folder, end="", test="t10k"):
    images, labels = some_images()
    for part, count in (("train", 12), (test, 6)):
        for kind, axes, array in (("images", 3, images), ("labels", 1, labels)):
            content = idx_bytes(array[:count])
            path = folder / f"{part}-{kind}-idx{axes}-ubyte{end}"
            path.write_bytes(gzip.compress(content) if end else content)
    return images, labels


@pytest.mark.parametrize("end", ["", ".gz"])
def test_mnist_folder_and_file(tmp_path, end):
    images, labels = write_mnist(tmp_path, end)
    for path in (tmp_path, tmp_path / f"train-images-idx3-ubyte{end}"):
        dataset = data.load_dataset(path)
        assert np.array_equal(dataset.train_images[:, 0], images)
        assert np.array_equal(dataset.test_labels, labels[:6])
        assert dataset.classes == ("0", "1", "2")
        assert dataset.name == tmp_path.name
        assert is_channels_last(dataset.train_images)


def test_idx_pairs_that_do_not_fit(tmp_path):
    write_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.zeros(11, np.uint8)))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte: holds shape \(11,\)"):
        data.load_dataset(tmp_path)
    labels.unlink()
    with pytest.raises(ValueError, match="labels file train-labels-idx1-ubyte is not beside it"):
        data.load_dataset(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    with pytest.raises(ValueError, match="found none"):
        data.load_dataset(tmp_path)


def test_fashion_mnist_of_debian():
    if data.find_fashion_mnist() is None:
        with pytest.raises(ValueError, match="apt install dataset-fashion-mnist"):
            data.load_dataset("fashion-mnist")
        return
    dataset = data.load_dataset("fashion-mnist")
    assert dataset.train_images.shape == (60000, 1, 28, 28)
    assert dataset.test_images.shape == (10000, 1, 28, 28)
    assert dataset.classes[9] == "Ankle boot"


# --- CIFAR -----------------------------------------------------------------------------------


def cifar_bytes(count, head=1, classes=10, seed=0):
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (count, head + 3072), dtype=np.uint8)
    records[:, :head] %= classes
    return records


def test_cifar10(tmp_path):
    records = [cifar_bytes(4, seed=i) for i in range(3)]
    for name, part in zip(("data_batch_1", "data_batch_2", "test_batch"), records, strict=True):
        (tmp_path / f"{name}.bin").write_bytes(part.tobytes())
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    dataset = data.load_dataset(tmp_path)
    assert dataset.name == "cifar10"
    assert dataset.classes == tuple("abcdefghij")
    assert dataset.train_images.shape == (8, 3, 32, 32)
    assert is_channels_last(dataset.train_images)
    assert np.array_equal(dataset.train_images[5].ravel(), records[1][1, 1:])
    assert np.array_equal(dataset.test_labels, records[2][:, 0])


def test_cifar100_takes_the_fine_labels(tmp_path):
    train, test = cifar_bytes(4, 2, 100), cifar_bytes(2, 2, 100, seed=1)
    (tmp_path / "train.bin").write_bytes(train.tobytes())
    (tmp_path / "test.bin").write_bytes(test.tobytes())
    dataset = data.load_dataset(tmp_path)
    assert dataset.name == "cifar100"
    assert len(dataset.classes) == 100
    assert np.array_equal(dataset.train_labels, train[:, 1])


def test_bad_cifar(tmp_path):
    batch = tmp_path / "data_batch_1.bin"
    batch.write_bytes(cifar_bytes(2).tobytes())
    with pytest.raises(ValueError, match=r"test_batch\.bin is missing"):
        data.load_dataset(tmp_path)
    for content, message in (
        (b"", "0 bytes are not"),
        (cifar_bytes(2).tobytes()[:-1], "6145 bytes are not"),
        (b"\x0a" * 3073, "label 10 is out of range for 10 classes"),
    ):
        batch.write_bytes(content)
        with pytest.raises(ValueError, match=f"data_batch_1.bin: .*{message}"):
            data.read_cifar(batch)


def test_pickled_cifar_is_refused(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}")
    with pytest.raises(ValueError, match="nothing is unpickled"):
        data.load_dataset(tmp_path)


# --- npz -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
)
def test_npz_with_a_split(tmp_path, names):
    images, labels = some_images()
    arrays = (images, labels[:, None], images[:5], labels[:5, None])
    np.savez_compressed(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True)))
    dataset = data.load_dataset(tmp_path / "a.npz")
    assert np.array_equal(dataset.train_images[:, 0], images)
    assert np.array_equal(dataset.test_labels, labels[:5])
    assert dataset.max_value == 255


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "fortran", "big-endian"])
def test_npz_layouts(tmp_path, layout):
    rng = np.random.default_rng(0)
    nhwc = rng.random((30, 5, 6, 3), dtype=np.float32)
    stored = {
        "NHWC": nhwc,
        "NCHW": nhwc.transpose(0, 3, 1, 2),
        "fortran": np.asfortranarray(nhwc),
        "big-endian": nhwc.astype(">f4"),
    }[layout]
    labels = np.arange(30) % 2
    np.savez(tmp_path / "a.npz", images=stored, labels=labels)
    dataset = data.load_dataset(tmp_path / "a.npz")
    mask = data.stratified_split(labels)
    assert dataset.image_shape == (3, 5, 6)
    assert dataset.max_value == 1
    assert is_channels_last(dataset.train_images)
    assert np.array_equal(dataset.test_images, nhwc[mask].transpose(0, 3, 1, 2))
    assert np.array_equal(dataset.train_labels, labels[~mask])


def npz_of(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npz_with_header(shape, descr="<f4", payload=b""):
    npy = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(npy, header)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("images.npy", npy.getvalue() + payload)
    return buffer.getvalue()


X, Y = some_images()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "corrupt or unsupported"),
        (b"PK\x03\x04 something", "corrupt or unsupported"),
        (npz_of(images=X, labels=Y)[:-200], "corrupt or unsupported"),
        (npz_of(pictures=X), "holds pictures; expected x_train"),
        (npz_of(images=X, labels=Y[:-1]), r"labels have shape \(11,\), expected \(12,\)"),
        (npz_of(images=X, labels=Y.astype(float)), "labels have dtype float64"),
        (npz_of(images=X, labels=Y.astype(int) - 1), "label -1 is negative"),
        (npz_of(images=X[0], labels=Y), r"images have shape \(6, 6\)"),
        (npz_of(images=X[:, :, :0], labels=Y), "every axis must be >= 1"),
        (npz_of(images=X * 1j, labels=Y), "complex128 is not a plain number"),
        (npz_of(images=X * np.nan, labels=Y), "NaN or infinity"),
        (npz_of(images=X.astype("U3"), labels=Y), "not a plain number"),
        (npz_of(images=X[:2], labels=Y[:2]), "2 images are too few"),
        (npz_of(images=np.array([{}]), labels=Y), "nothing is unpickled"),
        (npz_with_header((1 << 40, 1 << 20)), "header promises shape"),
        (npz_with_header((-3, 5)), "negative size"),
        (npz_with_header((3, 5), payload=b"x" * 59), "60 bytes; there are 59"),
        (npz_with_header((3, 5), descr="|O", payload=b"x" * 120), "nothing is unpickled"),
    ],
)  # fmt: skip
def test_bad_npz_names_the_file(tmp_path, content, message):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.*: .*{message}"):
        data.load_dataset(path)


def test_corrupt_npz_member(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8)
    content = bytearray(npz_of(images=images, labels=np.arange(64) % 2))
    content[2000] ^= 0xFF
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(ValueError, match="Bad CRC-32"):
        data.load_dataset(tmp_path / "bad.npz")


# --- folders of images -----------------------------------------------------------------------


def write_images(root, sizes=((5, 4), (5, 4)), mode="RGB", count=5):
    image_module = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    pixels = {}
    for i, (name, (height, width)) in enumerate(zip(("cat", "dog"), sizes, strict=True)):
        (root / name).mkdir(parents=True)
        for j in range(count):
            shape = (height, width, 3) if mode == "RGB" else (height, width)
            array = rng.integers(0, 256, shape, dtype=np.uint8)
            image_module.fromarray(array).save(root / name / f"{j}.png")
            pixels[i, j] = array
    (root / "notes.txt").write_text("not an image")
    return pixels


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_image_folder(tmp_path, mode):
    pixels = write_images(tmp_path, mode=mode)
    dataset = data.load_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert dataset.image_shape == (3 if mode == "RGB" else 1, 5, 4)
    assert len(dataset.train_labels) == 8
    assert len(dataset.test_labels) == 2
    mask = data.stratified_split(np.repeat([0, 1], 5))
    expected = np.stack([pixels[i, j] for i in range(2) for j in range(5)]).reshape(10, 5, 4, -1)
    assert np.array_equal(dataset.test_images, expected[mask].transpose(0, 3, 1, 2))


def test_image_folder_with_a_split(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "val", count=3)
    dataset = data.load_dataset(tmp_path)
    assert len(dataset.train_labels) == 10
    assert dataset.test_labels.tolist() == [0, 0, 0, 1, 1, 1]
    (tmp_path / "val" / "cat").rename(tmp_path / "val" / "cow")
    with pytest.raises(ValueError, match="class cow is not among the training classes"):
        data.load_dataset(tmp_path)


def test_images_of_several_sizes(tmp_path):
    write_images(tmp_path, sizes=((5, 4), (9, 8)))
    with pytest.raises(ValueError, match="from 4x5 to 8x9; choose one with --image-size"):
        data.load_dataset(tmp_path)
    assert data.load_dataset(tmp_path, image_size=7).image_shape == (3, 7, 7)
    with pytest.raises(ValueError, match="more than 4096"):
        data.load_dataset(tmp_path, image_size=1 << 20)
    with pytest.raises(ValueError, match="expected >= 1"):
        data.load_dataset(tmp_path, image_size=0)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "bomb"])
def test_bad_image_names_the_file(tmp_path, damage):
    write_images(tmp_path, sizes=((50, 40), (50, 40)))
    path = tmp_path / "dog" / "3.png"
    content = path.read_bytes()
    # A PNG header that claims 2^31-1 x 2^31-1 pixels.
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    import zlib

    chunk = b"IHDR" + header
    bomb = content[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(
        {"empty": b"", "text": b"hello", "truncated": content[:-300], "bomb": bomb + content[33:]}[
            damage
        ]
    )
    with pytest.raises(ValueError, match=r"3\.png: not a readable image"):
        data.load_dataset(tmp_path)


# --- load_dataset ----------------------------------------------------------------------------


def test_unknown_sources(tmp_path):
    with pytest.raises(ValueError, match=r"no such file or folder, nor a known .*digits, fashion"):
        data.load_dataset(tmp_path / "nothing")
    with pytest.raises(ValueError, match="expected 2 or more class folders with images, found 0"):
        data.load_dataset(tmp_path)
    (tmp_path / "a.xyz").write_bytes(b"")
    with pytest.raises(ValueError, match="unknown kind of data"):
        data.load_dataset(tmp_path / "a.xyz")
    with pytest.raises(ValueError, match="image_size resizes folders of images only"):
        data.load_dataset("digits", image_size=16)
