import os
import threading
import time

import numpy as np
import pytest

from training.data import cache as scene_cache
from training.data.cache import PoolSettings, SceneCache, ScenePool

POOL = PoolSettings(start=3, size=5, every=2)


class Rendering:
    """Render scenes whose value is their number, and record the numbers."""

    def __init__(self):
        self.numbers: list[int] = []
        self.failing = False

    def __call__(self, number):
        if self.failing:
            raise ValueError(f"no scene {number}")
        self.numbers.append(number)
        return np.full((2, 4, 4), number, np.float16)


@pytest.fixture
def rendering():
    return Rendering()


@pytest.fixture
def cache(tmp_path, rendering):
    return SceneCache(tmp_path / "scenes", rendering)


def until(condition):
    """Wait for another thread."""
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def numbers_in(cache):
    return sorted(int(path.stem) for path in cache.folder.glob("*.npy"))


def test_the_pool_grows_to_its_size_and_then_moves_on():
    assert [POOL.at(step) for step in range(5)] == [
        range(3),
        range(3),
        range(4),
        range(4),
        range(5),
    ]
    assert POOL.at(6) == range(1, 6)
    assert POOL.at(20) == range(8, 13)


def test_alone_a_scene_is_rendered_when_asked_for_and_then_read(cache, rendering):
    pool = ScenePool(cache, POOL, alone=True)
    numbers = pool.advance(0)
    for _ in range(2):
        scene = pool.scene(numbers[1])
        assert scene.dtype == np.float16
        assert np.all(scene == 1)
        assert not scene.flags.writeable
    assert rendering.numbers == [1]
    again = ScenePool(cache, POOL, alone=True)
    again.advance(0)
    again.scene(1)
    assert rendering.numbers == [1]
    assert not list(cache.folder.glob("*.tmp"))


def test_a_file_cut_short_is_rendered_again(cache, rendering):
    cache.write(1)
    path = cache.folder / "1.npy"
    whole = path.read_bytes()
    for length in (0, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert cache.read(1) is None
        pool = ScenePool(cache, POOL, alone=True)
        assert np.all(pool.scene(1) == 1)
        assert path.read_bytes() == whole


def test_two_workers_render_everything_once_and_ahead_but_not_without_bound(cache, rendering):
    pools = [ScenePool(cache, POOL, worker, 2) for worker in range(2)]
    for pool in pools:
        pool.advance(0)
    assert np.all(pools[0].scene(1) == 1)
    assert np.all(pools[1].scene(2) == 2)
    until(lambda: all(pool.is_idle for pool in pools))
    ahead = len(numbers_in(cache))
    assert 3 < ahead < 60
    assert numbers_in(cache) == list(range(ahead))
    assert sorted(rendering.numbers) == list(range(ahead))

    for pool in pools:
        pool.advance(20)
    until(lambda: len(rendering.numbers) == ahead + 10)
    assert sorted(rendering.numbers) == list(range(ahead + 10))


def test_scenes_that_left_the_pool_are_deleted_and_those_near_it_not(cache):
    pool = ScenePool(cache, POOL, alone=True)
    for number in range(0, 150, 5):
        cache.write(number)
    numbers = pool.advance(240)
    assert numbers == range(118, 123)
    kept = numbers_in(cache)
    assert 0 not in kept
    assert {115, 120} <= set(kept)
    assert len(kept) < 20


def test_a_resumed_pool_renders_what_is_missing_and_nothing_else(cache, rendering):
    for number in (8, 9, 11, 12):
        cache.write(number)
    rendering.numbers.clear()
    pool = ScenePool(cache, POOL)
    assert pool.advance(20) == range(8, 13)
    assert np.all(pool.scene(10) == 10)
    until(lambda: pool.is_idle)
    last = max(rendering.numbers)
    assert last > 20
    assert rendering.numbers == [10, *range(13, last + 1)]


def test_a_scene_that_its_worker_never_renders_is_rendered_by_the_waiting_one(cache, rendering):
    pool = ScenePool(cache, POOL, 0, 2, patience_s=0.1)
    pool.advance(0)
    assert np.all(pool.scene(1) == 1)
    assert rendering.numbers.count(1) == 1


def test_a_deleted_scene_of_ones_own_is_rendered_again(cache, rendering):
    pool = ScenePool(cache, POOL)
    pool.advance(0)
    until(lambda: pool.is_idle)
    cache.remove(2)
    assert np.all(pool.scene(2) == 2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_fails_ahead_fails_where_the_scene_is_wanted(cache, rendering):
    rendering.failing = True
    pool = ScenePool(cache, POOL)
    pool.advance(0)
    until(lambda: pool.is_idle)
    with pytest.raises(ValueError, match="no scene 2"):
        pool.scene(2)


def test_the_thread_does_not_keep_a_process_alive(cache):
    pool = ScenePool(cache, POOL)
    pool.advance(0)
    threads = [t for t in threading.enumerate() if t.name == scene_cache.THREAD_NAME]
    assert threads
    assert all(thread.daemon for thread in threads)


def test_what_a_killed_process_left_unfinished_is_deleted_once_it_is_old(cache):
    cache.folder.mkdir()
    old, new = cache.folder / "1.1-1.tmp", cache.folder / "2.1-1.tmp"
    for path in (old, new):
        path.write_bytes(b"x")
    day_ago = time.time() - 86_400
    os.utime(old, (day_ago, day_ago))
    cache.tidy()
    assert not old.exists()
    assert new.exists()
