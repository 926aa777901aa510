"""The object-code cache: a convenience that never errs."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from convdsl.runtime import cache as module
from convdsl.runtime.cache import ObjectCache, default_directory
from convdsl.runtime.whole_files import write_whole


@pytest.fixture
def cache(tmp_path: Path) -> ObjectCache:
    return ObjectCache(tmp_path / "objects")


def test_get_what_was_put(cache: ObjectCache) -> None:
    assert cache.get("key") is None
    cache.put("key", b"value")
    assert cache.get("key") == b"value"
    assert cache.get(b"key") == b"value"
    cache.put("key", b"newer")
    assert cache.get("key") == b"newer"
    cache.put(b"\x00\xff", b"")
    assert cache.get(b"\x00\xff") == b""
    assert ObjectCache(cache.directory).get("key") == b"newer"


def test_the_directory_is_the_user_s_alone(cache: ObjectCache) -> None:
    cache.put("key", b"value")
    assert cache.directory.stat().st_mode & 0o777 == 0o700
    assert cache.problem is None


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_directory_that_others_can_write_is_not_trusted(cache: ObjectCache, mode: int) -> None:
    cache.put("key", b"value")
    cache.directory.chmod(mode)
    assert cache.get("key") is None
    cache.put("other", b"value")
    assert len(cache.entries()) == 1
    assert "can be written by others" in str(cache.problem)


def test_a_foreign_directory_is_not_trusted(
    cache: ObjectCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("key", b"value")
    monkeypatch.setattr(module.os, "geteuid", lambda: os.getuid() + 1)
    assert cache.get("key") is None
    assert "another user" in str(cache.problem)


def test_no_directory_no_cache_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "objects"):
        blocked = ObjectCache(place)
        blocked.put("key", b"value")
        assert blocked.get("key") is None
        assert blocked.problem
        assert blocked.entries() == []
        assert blocked.size() == 0
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    assert "is not a directory" in str(ObjectCache(link).problem)


def test_whole_keys_are_compared(cache: ObjectCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ObjectCache, "_path", lambda self, key: self.directory / "same.entry")
    cache.put("one", b"1")
    assert cache.get("two") is None
    assert cache.get("one") == b"1"


def test_damaged_entries_are_forgotten_and_made_again(cache: ObjectCache) -> None:
    cache.put("key", b"value" * 100)
    (entry,) = cache.entries()
    content = entry.read_bytes()
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 0x40
        entry.write_bytes(damaged)
        assert cache.get("key") is None
        assert not entry.exists()
    cache.put("key", b"value")
    assert cache.get("key") == b"value"


def test_an_entry_of_another_shape_is_no_hit(cache: ObjectCache) -> None:
    cache.put("key", b"value")
    (entry,) = cache.entries()
    module.artifact.write(entry, {"key": b"key"}, {})
    assert cache.get("key") is None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "objects", limit=10_000)
    for index in range(4):
        cache.put(str(index), bytes(2000))
        os.utime(cache._path(str(index).encode()), (index, index))
    assert cache.size() <= 10_000
    assert cache.get("0") is not None  # used now
    cache.put("new", bytes(2000))
    assert [cache.get(key) is not None for key in ("0", "1", "2", "3", "new")] == [
        True,
        False,
        True,
        True,
        True,
    ]
    assert cache.size() <= 10_000


def test_what_exceeds_the_limit_alone_is_not_kept(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "objects", limit=1000)
    cache.put("small", bytes(10))
    cache.put("k", bytes(1000))
    assert cache.get("k") is None
    assert cache.get("small") is not None


def test_clear(cache: ObjectCache) -> None:
    cache.put("a", b"1")
    cache.put("b", b"2")
    (cache.directory / "foreign.txt").write_text("stays")
    cache.clear()
    assert cache.entries() == []
    assert (cache.directory / "foreign.txt").exists()


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "convdsl" / "objects"
    assert ObjectCache().directory == default_directory()
    for unset in ("", "relative/path"):  # the XDG specification: relative paths are ignored
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert default_directory() == tmp_path / "home" / ".cache" / "convdsl" / "objects"


def killed_while_writing(directory: Path) -> None:
    """What a process leaves that is killed in the midst of a put."""

    def chunks() -> Iterator[bytes]:
        yield bytes(5000)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        write_whole(directory / "x.entry", chunks(), durable=False)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_what_killed_processes_leave_is_counted_and_swept(cache: ObjectCache) -> None:
    cache.put("key", b"value")
    before = cache.size()
    for _ in range(3):
        killed_while_writing(cache.directory)
    left = [path for path in cache.directory.iterdir() if path not in cache.entries()]
    assert len(left) == 3
    for path in left:
        path.write_bytes(bytes(5000))
    assert cache.size() == before + 15000
    cache.put("young", b"")
    assert all(path.exists() for path in left)  # a writer may be about to take its lock
    for path in left:
        os.utime(path, (1, 1))
    with left[0].open() as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        cache.put("other", b"")
        assert [path.exists() for path in left] == [True, False, False]
    cache.clear()
    assert not left[0].exists()


def test_nothing_that_others_can_write(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        cache = ObjectCache(tmp_path / "a" / "b" / "objects")
        cache.put("key", b"value")
        assert cache.get("key") == b"value"
    finally:
        os.umask(mask)
    made = [tmp_path / "a", *(tmp_path / "a").rglob("*")]
    assert len(made) == 4
    assert not any(path.stat().st_mode & 0o077 for path in made)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_ancestors_that_others_can_write(tmp_path: Path, mode: int) -> None:
    cache = ObjectCache(tmp_path / "shared" / "mine" / "objects")
    cache.put("key", b"value")
    (tmp_path / "shared").chmod(mode)
    assert "can be written by others" in str(cache.problem)
    assert cache.get("key") is None
    (tmp_path / "shared").chmod(0o1777)  # there, nobody can rename what is another's
    assert cache.get("key") == b"value"


def test_entries_that_others_can_write_or_links_are_not_read(cache: ObjectCache) -> None:
    cache.put("key", b"value")
    (entry,) = cache.entries()
    entry.chmod(0o666)
    assert cache.get("key") is None
    cache.put("key", b"value")
    entry.rename(entry.with_suffix(".moved"))
    entry.symlink_to(entry.with_suffix(".moved"))
    assert cache.get("key") is None


def test_a_directory_swapped_under_a_reader_is_not_read(
    cache: ObjectCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ObjectCache(cache.directory.parent / "other")
    cache.put("key", b"value")
    other.put("key", b"evil")
    read = module.artifact.read

    def swapped(path: Path, folder: int) -> module.artifact.Artifact:
        cache.directory.rename(cache.directory.parent / "gone")
        other.directory.rename(cache.directory)
        return read(path, folder)

    monkeypatch.setattr(module.artifact, "read", swapped)
    assert cache.get("key") == b"value"


def _hammer(directory: Path, seed: int) -> None:
    cache = ObjectCache(directory, limit=60_000)
    for step in range(60):
        key = str((seed * 7 + step) % 10)
        value = key.encode() * 5000
        got = cache.get(key)
        assert got is None or got == value
        cache.put(key, value)
        if step % 20 == 19:
            cache.clear()


@pytest.mark.dear
def test_processes_share_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_hammer, args=(tmp_path / "objects", seed)) for seed in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    leftovers = [p for p in (tmp_path / "objects").iterdir() if p.suffix != ".entry"]
    assert leftovers == []
