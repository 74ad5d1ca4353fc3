"""Bags out and in again, in both storages; and bags that are empty, cut short or hold other things."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from dust3r_ros.geometry import Camera
from dust3r_ros.io.bags import BagError, BagFrames, BagWriter

STORAGES: list[Literal["mcap", "sqlite3"]] = ["mcap", "sqlite3"]
CAMERA = Camera(32, 24, 30.0, 31.0, 15.5, 11.5, "plumb_bob", (0.1, -0.05, 0.001, 0.002, 0.01))
IMAGES = [np.random.default_rng(k).integers(0, 256, (24, 32, 3)).astype(np.uint8) for k in range(6)]
STAMPS = [1_700_000_000_123_456_789 + k * 100_000_000 for k in range(6)]


def written(path: Path, storage: Literal["mcap", "sqlite3"] = "mcap", camera: Camera | None = CAMERA, stamps: list[int] = STAMPS) -> Path:
    with BagWriter(path, storage) as bag:
        for stamp, image in zip(stamps, IMAGES, strict=False):
            if camera is not None:
                bag.camera_info("/cam/camera_info", stamp, camera)
            bag.image("/cam/image_raw", stamp, image)
    return path


def data_file(bag: Path) -> Path:
    return next(file for file in bag.iterdir() if file.suffix in (".mcap", ".db3"))


@pytest.mark.parametrize("storage", STORAGES)
def test_frames_come_out_as_they_went_in(tmp_path: Path, storage: Literal["mcap", "sqlite3"]) -> None:
    bag = written(tmp_path / "bag", storage)
    for path in (bag, data_file(bag)):
        frames = BagFrames(path)
        assert len(frames) == 6
        for frame, stamp, image in zip(frames, STAMPS, IMAGES, strict=True):
            assert frame.stamp == stamp
            assert frame.camera == CAMERA
            np.testing.assert_array_equal(frame.image, image)
        assert frames.skipped == {}


def test_the_topic_with_most_images_is_taken_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.image("/few/image_raw", STAMPS[0], IMAGES[0])
        for stamp, image in zip(STAMPS, IMAGES, strict=True):
            bag.compressed("/many/image_raw/compressed", stamp, image, form="png")
            bag.camera_info("/many/camera_info", stamp, CAMERA)
            bag.camera_info("/few/camera_info", stamp, CAMERA)
    with caplog.at_level(logging.WARNING):
        frames = BagFrames(tmp_path / "bag")
    assert "/many/image_raw/compressed" in caplog.text
    assert (frames.image_topic, frames.info_topic) == ("/many/image_raw/compressed", "/many/camera_info")
    np.testing.assert_array_equal(next(iter(frames)).image, IMAGES[0])
    assert len(list(BagFrames(tmp_path / "bag", "/few/image_raw"))) == 1


def test_a_topic_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    bag = written(tmp_path / "bag")
    with pytest.raises(BagError, match="/cam/image_raw"):
        BagFrames(bag, "/camera/image")
    with pytest.raises(BagError, match="/cam/camera_info"):
        BagFrames(bag, info_topic="/camera/info")


@pytest.mark.parametrize("storage", STORAGES)
def test_an_empty_bag_says_so(tmp_path: Path, storage: Literal["mcap", "sqlite3"]) -> None:
    with BagWriter(tmp_path / "bag", storage):
        pass
    with pytest.raises(BagError, match="no images"):
        BagFrames(tmp_path / "bag")


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_that_was_cut_short_says_so_and_what_mends_it(tmp_path: Path, storage: Literal["mcap", "sqlite3"]) -> None:
    bag = written(tmp_path / "bag", storage)
    file = data_file(bag)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BagError, match="cut short") as refusal:
        list(BagFrames(bag))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("what", ["nothing", "an empty folder", "a text file"])
def test_what_is_no_bag_is_refused_by_name(tmp_path: Path, what: str) -> None:
    path = tmp_path / "thing"
    if what == "an empty folder":
        path.mkdir()
    elif what == "a text file":
        path.write_text("hello")
    with pytest.raises(BagError, match=str(path)):
        BagFrames(path)


def test_stamps_that_repeat_or_go_back_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stamps = [STAMPS[0], STAMPS[1], STAMPS[1], STAMPS[3], STAMPS[2], STAMPS[4]]
    frames = BagFrames(written(tmp_path / "bag", stamps=stamps))
    with caplog.at_level(logging.WARNING):
        # rosbags gives messages by bag time, which here is the stamp: the repeated one is what is left to drop
        kept = [frame.stamp for frame in frames]
    assert kept == sorted(set(stamps))
    assert sum(frames.skipped.values()) == len(stamps) - len(kept) == 1
    assert "left out" in caplog.text


def test_a_bag_of_two_runs_says_what_to_do(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for k, image in enumerate(IMAGES):
            stamp = STAMPS[k % 3]
            bag.write(
                "/image", STAMPS[0] + k * 10**10, "sensor_msgs/msg/Image", header=bag._header(stamp - (k // 3) * 10**10, "c"), height=24,
                width=32, is_bigendian=0, step=96, encoding="rgb8", data=image.reshape(-1),
            )  # fmt: skip
    frames = BagFrames(tmp_path / "bag")
    assert len(list(frames)) == 3
    assert ["split it" in reason for reason in frames.skipped] == [True]


def test_unusable_images_among_good_ones_are_left_out_and_counted(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for k, (stamp, image) in enumerate(zip(STAMPS, IMAGES, strict=True)):
            bag.write(
                "/image", stamp, "sensor_msgs/msg/Image", header=bag._header(stamp, "c"), height=24, width=32, is_bigendian=0, step=96,
                encoding="rgb8" if k != 2 else "rgb7", data=image.reshape(-1) if k != 4 else image.reshape(-1)[:100],
            )  # fmt: skip
    frames = BagFrames(tmp_path / "bag")
    assert [frame.stamp for frame in frames] == [STAMPS[k] for k in (0, 1, 3, 5)]
    assert len(frames.skipped) == 2
    assert any("rgb7" in reason for reason in frames.skipped)
    assert any("cut short" in reason for reason in frames.skipped)


def test_a_bag_without_one_usable_image_says_why(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/image", 1, "sensor_msgs/msg/Image", header=bag._header(1, "c"), height=0, width=0, is_bigendian=0, step=0,
                  encoding="rgb8", data=np.zeros(0, np.uint8))  # fmt: skip
    with pytest.raises(BagError, match="empty"):
        list(BagFrames(tmp_path / "bag"))


def test_a_camera_info_of_another_size_is_ignored_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = BagFrames(written(tmp_path / "bag", camera=Camera(640, 480, 500.0, 500.0, 320.0, 240.0)))
    with caplog.at_level(logging.WARNING):
        assert all(frame.camera is None for frame in frames)
    assert caplog.text.count("640x480") == 1


def test_without_camera_info_frames_have_no_camera(tmp_path: Path) -> None:
    assert all(frame.camera is None for frame in BagFrames(written(tmp_path / "bag", camera=None)))


def test_a_bag_is_never_written_over(tmp_path: Path) -> None:
    bag = written(tmp_path / "bag")
    with pytest.raises(BagError, match="does not exist yet"), BagWriter(bag):
        pass
    assert len(list(BagFrames(bag))) == 6
