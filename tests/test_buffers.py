"""The pools of buffers behind large results and the steps of a training loop."""

import gc
import threading

import numpy as np
import pytest

import fastconv
import fastconv.functional as F
from fastconv import _core
from fastconv.functional._memory import new_array, using

MIB = 1 << 20


def address(block):
    return np.frombuffer(block, np.uint8).ctypes.data


def test_a_block_comes_back_when_the_last_view_is_gone():
    pool = _core.Buffers()
    with using(pool):
        array = new_array((1000, 1000), np.dtype(np.float32))
    start = array.ctypes.data
    view = array[5:, ::7].T
    del array
    assert pool.count() == (0, 4 * MIB)
    assert start < view.ctypes.data
    del view
    assert pool.count() == (4 * MIB, 0)
    assert address(pool.take(3 * MIB)) == start
    pool.clear()
    assert pool.count() == (0, 0)


def test_the_last_block_given_back_is_the_first_to_be_used():
    pool = _core.Buffers()
    blocks = [pool.take(MIB) for _ in range(3)]
    places = [address(block) for block in blocks]
    assert len(set(places)) == 3
    for place in places:
        assert place % 64 == 0
    del blocks[1]
    del blocks[0]
    blocks.append(pool.take(MIB))
    assert address(blocks[-1]) == places[0]
    blocks.append(pool.take(MIB))
    assert address(blocks[-1]) == places[1]


def test_a_large_block_does_not_serve_a_small_array():
    pool = _core.Buffers()
    pool.take(64 * MIB)
    small = pool.take(MIB)
    assert sum(pool.count()) <= 64 * MIB * 5 // 4
    assert pool.count()[1] <= 2 * MIB
    del small


def test_kept_and_used_bytes_are_bounded_by_the_most_used():
    pool, rng, most = _core.Buffers(), np.random.default_rng(0), 0
    held = []
    for _ in range(2000):
        if held and rng.random() < 0.5:
            del held[rng.integers(len(held))]
        else:
            held.append(pool.take(int(rng.integers(1, 3 * MIB))))
        kept, used = pool.count()
        most = max(most, used)
        assert kept + used <= max(most * 5 // 4 + 64, 8 * MIB)
    del held
    gc.collect()
    assert pool.count()[1] == 0


def test_kept_bytes_are_bounded_by_a_constant():
    most = 5 * MIB
    pool, rng, held, kept = _core.Buffers(most), np.random.default_rng(0), [], []
    for _ in range(2000):
        if held and rng.random() < 0.5:
            del held[rng.integers(len(held))]
        else:
            held.append(pool.take(int(rng.integers(1, 3 * MIB))))
        kept.append(pool.count()[0])
    assert most / 2 < max(kept) <= most
    held.clear()
    assert pool.count()[0] <= most
    assert pool.count()[1] == 0


def test_a_block_above_the_bound_does_not_push_others_out():
    pool = _core.Buffers(4 * MIB)
    pool.take(3 * MIB)
    pool.take(9 * MIB)
    assert pool.count() == (3 * MIB, 0)


def test_what_callers_hold_is_rounded_up_little():
    pool, steps = _core.Buffers(4 * MIB), _core.Buffers()
    small, large = 1 << 14, 1 << 16
    for size, block in ((1, small), (small, small), (small + 1, 2 * small), (MIB + 1, MIB + large)):
        held = pool.take(size)
        assert pool.count()[1] == block
        del held
    pool.take(2 * MIB)
    held = pool.take(MIB + 1)  # not the block of 2 MiB
    assert pool.count()[1] == MIB + large
    del held
    held = steps.take(MIB + 1)
    assert steps.count()[1] == 2 * MIB
    del held


def test_large_results_use_the_memory_of_freed_ones():
    """Outside a training step too: 2 MiB of results, kept up to 64 MiB until they are cleared."""
    x = np.ones((1, 4, 256, 512), np.float32)
    fastconv.clear_workspace()
    y = F.relu(x)
    place = y.ctypes.data
    kept_view = y[0, 1]
    del y
    assert F.relu(x).ctypes.data != place
    assert (kept_view == 1).all()
    del kept_view
    assert fastconv.config()["results_bytes"] == 4 * MIB
    assert F.max_pool2d(-x, 1).ctypes.data == place
    large = np.ones((17, 1024, 1024), np.float32)
    F.relu(large)  # 68 MiB are not kept
    assert fastconv.config()["results_bytes"] == 4 * MIB
    fastconv.clear_workspace()
    assert fastconv.config()["results_bytes"] == 0


def test_absurd_sizes():
    pool = _core.Buffers()
    for size in (1 << 46, (1 << 63) - 1):
        with pytest.raises(MemoryError, match="a buffer could not be allocated"):
            pool.take(size)
    assert pool.count() == (0, 0)
    assert len(memoryview(pool.take(0))) == 0


def test_threads_share_a_pool():
    pool = _core.Buffers()

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(300):
            array = np.frombuffer(pool.take(int(rng.integers(1, 1 << 18))), np.uint8)
            array[...] = seed
            assert (array == seed).all()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.count()[1] == 0
