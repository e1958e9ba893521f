"""Denormals are kept by default; `flush_denormals` flushes them in the caller and its workers."""

import threading

import numpy as np
import pytest

import fastconv
import fastconv.functional as F

TINY = np.float32(1e-40)  # a denormal


@pytest.mark.parametrize("threads", [1, 4])
def test_denormals(threads, isa):
    x = np.full((8, 16, 20, 20), TINY)
    w = np.ones((16, 1, 1, 1), np.float32)
    with fastconv.num_threads(threads):
        for _ in range(20):  # workers that join once must not keep the mode
            assert (F.conv2d(x, w, groups=16, algorithm="direct") == TINY).all()
            with fastconv.flush_denormals():
                assert (F.conv2d(x, w, groups=16, algorithm="direct") == 0).all()
        assert (F.conv2d(x, w, groups=16, algorithm="direct") == TINY).all()


def test_state_is_restored_and_belongs_to_the_thread():
    def product():
        return np.float32(1e-30) * np.full(4, 1e-10, np.float32)

    seen = []
    with fastconv.flush_denormals():
        with fastconv.flush_denormals():
            assert (product() == 0).all()
        assert (product() == 0).all()
        other = threading.Thread(target=lambda: seen.append(F.relu(np.full(9, TINY))))
    other.start()
    other.join()
    assert (product() != 0).all()
    assert (seen[0] == TINY).all()


def test_state_is_restored_after_an_error():
    with pytest.raises(ZeroDivisionError), fastconv.flush_denormals():
        1 / 0  # noqa: B018
    assert np.full(1, TINY) * np.float32(1) != 0
