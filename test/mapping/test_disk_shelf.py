"""Keyframes on the disk: what was not used goes there and comes back, a full disk and a tidied folder cost pictures but no map."""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from dust3r_ros.geometry import Camera, Similarity
from dust3r_ros.mapping import Keyframe
from dust3r_ros.mapping.keyframes.keyframe_store import KeyframeStore
from dust3r_ros.mapping.storage.disk_shelf import PREFIX, DiskShelf, ScratchFolder, StorageError

CAMERA = Camera(16, 12, 14.0, 14.0, 7.5, 5.5)


def keyframe(index: int) -> Keyframe:
    rng = np.random.default_rng(index)
    pose = np.eye(4)
    pose[:3, 3] = (index, 0.0, 0.0)
    image = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    depth, confidence = rng.uniform(1, 5, (2, 12, 16)).astype(np.float32)
    return Keyframe(index, 1000 * index, pose, CAMERA, CAMERA, image, depth, confidence, f"camera {index % 2}")


def filled(folder: Path, count: int, in_memory: int, max_pictures: int = 1000) -> KeyframeStore:
    store = KeyframeStore(max_pictures, in_memory, ScratchFolder(str(folder)))
    for index in range(count):
        store.put(keyframe(index))
        store.retire(index)
        store.make_room()
    return store


def files(folder: Path) -> list[Path]:
    return [file for file in folder.glob(f"{PREFIX}*/*") if file.name.isdigit()]


def same(one: Keyframe, other: Keyframe) -> bool:
    arrays = ("image", "depth", "confidence", "pose")
    return (one.stamp, one.name) == (other.stamp, other.name) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


def test_only_so_many_stay_in_memory_and_all_come_back_as_they_were(tmp_path: Path) -> None:
    store = filled(tmp_path, 30, in_memory=5)
    assert len(store.shelf) - store.shelf.on_disk == 5
    assert len(files(tmp_path)) == 25
    for index in (0, 29, 13):
        assert same(store.latest[index], keyframe(index))
    assert len(store.shelf) - store.shelf.on_disk == 5  # reading fills no memory either
    everything = store.all()
    assert len(everything) == 30
    assert all(same(one, keyframe(n)) for n, one in enumerate(everything))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    shelf: DiskShelf[bytes] = DiskShelf(ScratchFolder(str(tmp_path)), 2, bytes, bytes)
    for index in range(2):
        shelf.put(index, bytes([index]))
    shelf.get(0)
    shelf.put(2, b"\x02")
    shelf.make_room()
    (only,) = files(tmp_path)
    assert only.read_bytes() == b"\x01"


def test_keyframes_on_the_disk_move_with_the_map(tmp_path: Path) -> None:
    store = filled(tmp_path, 10, in_memory=2)
    store.move({3: Similarity(2.0, np.eye(3), np.array([0.0, 5.0, 0.0])), 9: Similarity(0.5, np.eye(3), np.zeros(3))})
    store.move({3: Similarity(1.5, np.eye(3), np.zeros(3))})
    np.testing.assert_allclose(store.latest[3].depth, 3.0 * keyframe(3).depth, rtol=1e-6)
    np.testing.assert_allclose(store.latest[3].pose[:3, 3], [9.0, 7.5, 0.0])
    np.testing.assert_allclose(store.latest[9].depth, 0.5 * keyframe(9).depth, rtol=1e-6)
    assert store.standpoints[3].depth == pytest.approx(3.0 * float(np.median(keyframe(3).depth)))
    assert same(store.latest[4], keyframe(4))


def test_a_snapshot_stays_whole_whatever_becomes_of_the_store(tmp_path: Path) -> None:
    store = filled(tmp_path, 30, in_memory=3)
    snapshot = store.all()
    store.move({n: Similarity(2.0, np.eye(3), np.zeros(3)) for n in range(30)})
    while len(store) > 5:
        store.max_pictures = len(store) - 1
        store.thin_out()
    assert all(same(one, keyframe(n)) for n, one in enumerate(snapshot))
    del snapshot
    gc.collect()
    assert len(files(tmp_path)) <= 5  # what nobody wants any more is gone from the disk too


def test_what_another_user_left_does_not_keep_keyframes_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / f"{PREFIX}theirs"
    theirs.mkdir()
    exists = Path.exists

    def denied(path: Path, **options: bool) -> bool:
        if path.parent == theirs:
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", denied)
    store = filled(tmp_path, 6, 2)
    assert store.shelf.on_disk == 4
    assert theirs.is_dir()


def test_the_folder_goes_with_the_map_and_with_it_what_a_killed_run_left(tmp_path: Path) -> None:
    left = tmp_path / f"{PREFIX}killed"
    left.mkdir()
    (left / "in_use").touch()
    (left / "1").write_bytes(b"old")
    (tmp_path / "my notes").touch()
    store = filled(tmp_path, 6, in_memory=2)
    other = filled(tmp_path, 6, in_memory=2)  # a second map in the same place
    assert not left.exists()
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 2
    del store, other
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["my notes"]


def test_a_full_disk_thins_the_pictures_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Path, _: bytes) -> int:
        raise OSError(28, os.strerror(28), str(self))

    store = filled(tmp_path, 10, in_memory=4)
    monkeypatch.setattr(Path, "write_bytes", full)
    with caplog.at_level(logging.WARNING):
        for index in range(10, 60):
            store.put(keyframe(index))
            store.retire(index)
            store.make_room()
            assert len(store.shelf) - store.shelf.on_disk <= 2 * 4
    assert "No space left on device" in caplog.text
    assert "map.folder" in caplog.text
    assert len(store.poses) == 60  # the map stands
    kept = [one.index for one in store.all()]
    assert len(kept) >= 4
    assert kept[-1] == 59
    assert all(same(one, keyframe(one.index)) for one in store.all())
    monkeypatch.undo()
    for index in range(60, 80):
        store.put(keyframe(index))
        store.retire(index)
        assert store.make_room() == []
    assert len(store.shelf) - store.shelf.on_disk == 4


@pytest.mark.parametrize("spoilt", ["gone", "damaged", "folder gone"])
def test_a_file_that_somebody_took_away_costs_one_picture(tmp_path: Path, spoilt: str) -> None:
    store = filled(tmp_path, 10, in_memory=2)
    for file in files(tmp_path):
        if spoilt == "damaged":
            file.write_bytes(file.read_bytes()[:50])
        else:
            file.unlink()
    if spoilt == "folder gone":
        (folder,) = tmp_path.glob(f"{PREFIX}*")
        (folder / "in_use").unlink()
        folder.rmdir()
    with pytest.raises(StorageError, match="keyframe 3 is no longer in"):
        store.latest[3]
    assert 3 not in store.latest
    assert store.latest.get(4) is None
    assert same(store.latest[9], keyframe(9))
    assert 3 in store.poses
    store.put(keyframe(10))
    store.retire(10)
    assert store.make_room() == []
    assert same(store.latest[8], keyframe(8))


def test_counting_units_from_another_beginning_moves_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, 6, in_memory=2)
    store.move({1: Similarity(2.0, np.eye(3), np.zeros(3))})
    before, typical = store.latest[1].depth, store.standpoints[1].depth
    store.count_units({1: 0.25, 2: 3.0})
    assert (store.units[1], store.units[2]) == (0.25, 3.0)
    np.testing.assert_array_equal(store.latest[1].depth, before)
    assert same(store.latest[2], keyframe(2))
    store.move({1: Similarity(2.0, np.eye(3), np.zeros(3))})
    assert store.standpoints[1].depth == pytest.approx(2.0 * typical)


def test_a_forked_process_takes_nothing_away(tmp_path: Path) -> None:
    store = filled(tmp_path, 6, in_memory=2)
    child = os.fork()
    if child == 0:
        try:
            store.thin_out()
            for index in store.indices:
                store._forget(index)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert all(same(store.latest[n], keyframe(n)) for n in range(6))
