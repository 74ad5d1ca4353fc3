"""A saved map comes back as it was; anything else is refused by name and what stood there before stands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dust3r_ros.alignment import Link
from dust3r_ros.geometry import Camera, Similarity
from dust3r_ros.io.atomic import OutputError, _exchanged, atomic_folder
from dust3r_ros.io.map_file import MapFileError, load_map, save_map
from dust3r_ros.mapping import Keyframe, MapSnapshot, PointCloud
from dust3r_ros.mapping.storage.disk_shelf import StorageError
from dust3r_ros.mapping.storage.keyframe_sequence import KeyframeSequence


def snapshot(seed: int = 0, keyframes: int = 3) -> MapSnapshot:
    rng = np.random.default_rng(seed)
    source = Camera(64, 48, 50.0, 51.0, 31.0, 23.0, "plumb_bob", (0.1, 0.0, 0.0, 0.0, 0.0))
    entries = []
    for index in range(keyframes):
        pose = np.eye(4)
        pose[:3, 3] = rng.normal(size=3)
        image = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
        depth, confidence = rng.random((2, 24, 32), np.float32) + 1
        entries.append(Keyframe(index, 10**18 + index, pose, source, source.pinhole().resized(32, 24), image, depth, confidence))
    cloud = PointCloud(rng.random((100, 3), np.float32), rng.integers(0, 256, (100, 3)).astype(np.uint8), rng.random(100, np.float32) + 1)
    return MapSnapshot(tuple(entries), ((0, 1), (1, 0), (1, 2)), cloud, (1, 2), "odometry")


def with_links(seed: int = 0) -> MapSnapshot:
    """The same map with what holds it together; keyframe 7 was thinned out, its frame is still there."""
    rng = np.random.default_rng(seed + 100)

    def similarity() -> Similarity:
        return Similarity(rng.uniform(0.5, 2), Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3))

    links = tuple(
        Link(i, j, similarity(), np.cov(rng.normal(size=(7, 20))), loop, rng.uniform(1, 2))
        for i, j, loop in ((0, 1, False), (1, 2, False), (2, 7, False), (0, 7, True))
    )
    owners = rng.choice(np.array([0, 1, 7], np.int32), 100)
    return replace(snapshot(seed), links=links, frames={n: similarity() for n in (0, 1, 2, 7)}, owners=owners)


def assert_same(a: MapSnapshot, b: MapSnapshot) -> None:
    assert (a.edges, a.window, a.scale_source) == (b.edges, b.window, b.scale_source)
    for field, value in asdict(a.cloud).items():
        np.testing.assert_array_equal(value, getattr(b.cloud, field))
    for one, other in zip(a.keyframes, b.keyframes, strict=True):
        assert (one.index, one.stamp, one.source, one.camera) == (other.index, other.stamp, other.source, other.camera)
        for field in ("pose", "image", "depth", "confidence"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    assert [(link.i, link.j, link.loop, link.depth) for link in a.links] == [(link.i, link.j, link.loop, link.depth) for link in b.links]
    for one, other in zip(a.links, b.links, strict=True):
        np.testing.assert_array_equal(one.information, other.information)
        np.testing.assert_allclose(one.relative.matrix, other.relative.matrix, atol=1e-14)
    assert sorted(a.frames) == sorted(b.frames)
    for index, frame in a.frames.items():
        np.testing.assert_allclose(frame.matrix, b.frames[index].matrix, atol=1e-14)
    np.testing.assert_array_equal(a.owners, b.owners)


def test_links_frames_and_owners_come_back(tmp_path: Path) -> None:
    save_map(tmp_path / "a.map", with_links())
    assert_same(load_map(tmp_path / "a.map"), with_links())


def test_a_map_of_version_1_is_still_read() -> None:
    """The file was written by the program that knew no other version."""
    assert_same(load_map(Path(__file__).parent / "data" / "version_1.map"), snapshot())


def test_a_map_of_version_2_is_still_read() -> None:
    """As above."""
    found = load_map(Path(__file__).parent / "data" / "version_2.map")
    assert_same(found, with_links())
    assert (found.readout, found.pieces) == (0.0, ())


def test_the_readout_and_pieces_that_are_not_joined_come_back(tmp_path: Path) -> None:
    pieces = (with_links(1), replace(snapshot(2), pieces=(snapshot(3),)))
    save_map(tmp_path / "a.map", replace(with_links(), readout=0.021, pieces=pieces))
    found = load_map(tmp_path / "a.map")
    assert found.readout == 0.021
    assert_same(found, with_links())
    for one, other in zip(found.pieces, pieces, strict=True):
        assert_same(one, other)
    assert_same(found.pieces[1].pieces[0], snapshot(3))


def test_links_that_hang_on_nothing_are_damage(tmp_path: Path) -> None:
    whole = with_links()
    save_map(tmp_path / "m.map", replace(whole, frames={n: frame for n, frame in whole.frames.items() if n != 7}))
    with pytest.raises(MapFileError, match=r"m\.map is damaged .*keyframes \[7\]"):
        load_map(tmp_path / "m.map")


def test_keyframes_that_stay_in_the_file_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    path, pieces = tmp_path / "a.map", (snapshot(2),)
    save_map(path, replace(with_links(), pieces=pieces))
    found = load_map(path, in_memory=False)
    save_map(path, snapshot(5))  # another map takes the file's name: what was opened stays
    assert_same(found, with_links())
    assert_same(found.pieces[0], pieces[0])
    assert found.keyframes[0].image is not found.keyframes[0].image
    save_map(tmp_path / "b.map", found)
    assert_same(load_map(tmp_path / "b.map"), with_links())


def test_a_file_that_is_spoilt_while_it_is_read_from_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.map"
    save_map(path, snapshot())
    found = load_map(path, in_memory=False)
    os.truncate(path, 100)
    with pytest.raises(StorageError, match=r"keyframes/2/image\.npy cannot be read from .*a\.map any more.*load the map again"):
        found.keyframes[2]


@pytest.mark.parametrize("keyframes", [0, 3])
def test_the_round_trip_loses_nothing(tmp_path: Path, keyframes: int) -> None:
    save_map(tmp_path / "sub" / "a.map", snapshot(keyframes=keyframes))
    assert_same(load_map(tmp_path / "sub" / "a.map"), snapshot(keyframes=keyframes))


def test_the_same_map_makes_the_same_file(tmp_path: Path) -> None:
    save_map(tmp_path / "a", snapshot())
    save_map(tmp_path / "b", snapshot())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def rewritten(path: Path, **changes: object) -> None:
    """The same archive with other words in map.json."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["map.json"] = json.dumps({**json.loads(members["map.json"]), **changes}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_every_other_file_is_refused_by_name_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "m.map"
    with pytest.raises(MapFileError, match="does not exist"):
        load_map(path)
    save_map(path, snapshot())
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(MapFileError, match=r"m\.map"):
            load_map(path)
    path.write_bytes(whole)
    for version in (4, 0, "2", None):
        rewritten(path, version=version)
        with pytest.raises(MapFileError, match=f"m.map has version {version}, this program reads versions 1 to 3"):
            load_map(path)
    path.write_bytes(whole)
    rewritten(path, format="something else")
    with pytest.raises(MapFileError, match="not a dust3r_ros map"):
        load_map(path)
    path.write_bytes(whole)
    digests = json.loads(zipfile.ZipFile(path).read("map.json"))["sha256"]
    rewritten(path, sha256={**digests, "cloud/points.npy": "0" * 64})
    with pytest.raises(MapFileError, match=r"checksum of cloud/points\.npy"):
        load_map(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.txt", "sun")
    with pytest.raises(MapFileError, match=r"no map\.json"):
        load_map(path)


@pytest.mark.parametrize(
    ("error", "says"),
    [(PermissionError(13, "Permission denied"), "cannot be read: Permission denied"), (MemoryError(), "does not fit")],
    ids=str,
)
def test_a_map_that_cannot_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    file = tmp_path / "house.map"
    file.write_bytes(b"whatever")

    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("zipfile.ZipFile.__init__", refused)
    with pytest.raises(MapFileError, match=says) as told:
        load_map(file)
    assert "damaged" not in str(told.value)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.map"
    save_map(path, snapshot())
    whole = bytearray(path.read_bytes())
    refused = 0
    for at in range(50, len(whole), len(whole) // 40):
        spoilt = whole.copy()
        spoilt[at] ^= 0x10
        path.write_bytes(spoilt)
        try:
            assert_same(load_map(path), snapshot())  # a bit of the archive's padding may not matter
        except MapFileError:
            refused += 1
    assert refused > 30


KILLED = """
import os, signal, sys
from pathlib import Path
from dust3r_ros.io.atomic import atomic_file, atomic_folder
kind, target = sys.argv[1], Path(sys.argv[2])
with (atomic_file if kind == "file" else atomic_folder)(target) as temporary:
    (temporary if kind == "file" else temporary / "a.txt").write_text("half of the new o")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_killed_in_mid_writing_the_good_earlier_one_stands(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    kept = target if kind == "file" else target / "a.txt"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("the good old one")
    done = subprocess.run([sys.executable, "-c", KILLED, kind, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert kept.read_text() == "the good old one"


SWAP = """
import os, signal, sys, threading
from pathlib import Path
from dust3r_ros.io.atomic import atomic_folder
target = Path(sys.argv[1])
def watch():
    while True:
        try:
            (target / "a.txt").read_text()
        except FileNotFoundError:
            print("for a moment nothing was there", flush=True); os._exit(4)
threading.Thread(target=watch, daemon=True).start()
for k in range(60):
    with atomic_folder(target) as temporary:
        (temporary / "a.txt").write_text(str(k))
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux swaps two folders in one step")
def test_a_folder_is_never_missing_while_it_is_replaced(tmp_path: Path) -> None:
    """Whenever a kill may come, the old or the new one is there."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    if not _exchanged(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system does not swap")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("the first")
    done = subprocess.run([sys.executable, "-c", SWAP, str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "a.txt").read_text() == "59"


def test_what_a_killed_run_left_goes_with_the_next_one_but_not_what_a_living_one_writes(tmp_path: Path) -> None:
    target = tmp_path / "out"
    subprocess.run([sys.executable, "-c", KILLED, "folder", str(target)], check=False)
    (abandoned,) = tmp_path.iterdir()
    with atomic_folder(target) as first:
        assert not abandoned.exists()
        (first / "a").write_text("1")
        with atomic_folder(target) as second:
            assert first.exists()
            (second / "a").write_text("2")
        assert (target / "a").read_text() == "2"
    assert (target / "a").read_text() == "1"
    assert os.listdir(tmp_path) == ["out"]


FULL = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.path.insert(0, sys.argv[2])
from test_map_file import snapshot
from dust3r_ros.io.map_file import save_map
from dust3r_ros.errors import Dust3rError
try:
    save_map(Path(sys.argv[1]), snapshot(1, keyframes=20))
except Dust3rError as error:
    print(error); sys.exit(3)
"""


def test_a_full_disk_is_one_line_and_the_earlier_map_stands(tmp_path: Path) -> None:
    path = tmp_path / "m.map"
    save_map(path, snapshot())
    done = subprocess.run([sys.executable, "-c", FULL, str(path), str(Path(__file__).parent)], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "free some space" in done.stdout
    assert_same(load_map(path), snapshot())
    assert os.listdir(tmp_path) == ["m.map"]


def test_a_folder_takes_its_place_only_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("1")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), atomic_folder(target) as temporary:
        (temporary / "a").write_text(str(1 / 0))
    assert (target / "a").read_text() == "1"
    with atomic_folder(target) as temporary:
        (temporary / "b").write_text("3")
    assert os.listdir(target) == ["b"]
    assert os.listdir(tmp_path) == ["out"]


def test_no_place_to_write_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        save_map(tmp_path / "file" / "m.map", snapshot())
    if os.geteuid() != 0:  # root may write everywhere
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o555)
        with pytest.raises(OutputError, match="permission denied"):
            save_map(locked / "m.map", snapshot())
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_a_keyframe_whose_file_is_gone_is_left_out_and_the_map_is_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = snapshot()

    def build(index: int) -> Keyframe:
        if index == whole.keyframes[0].index:
            raise StorageError("keyframe 0 cannot be read")
        return next(keyframe for keyframe in whole.keyframes if keyframe.index == index)

    indices = [keyframe.index for keyframe in whole.keyframes]
    save_map(tmp_path / "x.map", replace(whole, keyframes=KeyframeSequence(indices, build)))
    assert [keyframe.index for keyframe in load_map(tmp_path / "x.map").keyframes] == indices[1:]
    assert "keyframe 0 cannot be read" in caplog.text
