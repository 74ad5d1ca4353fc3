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


def test_pictures_go_before_depth_images_and_left_before_right(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As an RGB-D and a stereo camera record: as many of each."""
    depth = np.full((24, 32), 1500, np.uint16)
    with BagWriter(tmp_path / "bag") as bag:
        for stamp, image in zip(STAMPS, IMAGES, strict=True):
            header = bag._header(stamp, "c")
            for topic, encoding, pixels in (("/depth/image", "16UC1", depth), ("/infra/image", "mono8", image[..., 0])):
                bag.write(
                    topic, stamp, "sensor_msgs/msg/Image", header=header, height=24, width=32, is_bigendian=0, encoding=encoding,
                    step=32 * pixels.itemsize, data=np.frombuffer(np.ascontiguousarray(pixels).tobytes(), np.uint8),
                )  # fmt: skip
            bag.write("/depth/image", stamp + 1, "sensor_msgs/msg/Image", header=bag._header(stamp + 1, "c"), height=24, width=32,
                      is_bigendian=0, encoding="16UC1", step=64, data=np.frombuffer(depth.tobytes(), np.uint8))  # fmt: skip
            bag.image("/right/image", stamp, image)
            bag.image("/left/image", stamp, image)
    assert BagFrames(tmp_path / "bag").image_topic == "/left/image"
    assert "/depth/image (12 depth)" in caplog.text
    assert len(list(BagFrames(tmp_path / "bag", "/depth/image"))) == 12


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


def compressed(path: Path, storage: Literal["mcap", "sqlite3"]) -> BagWriter:
    """mcap packs messages into chunks; zstd-packed chunks are how recorders of storage preset 'zstd_fast' write."""
    writer = BagWriter(path, storage)
    if storage == "mcap":
        from rosbags.rosbag2 import CompressionFormat, CompressionMode

        writer._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    return writer


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("storage", STORAGES)
def test_of_a_bag_that_was_cut_short_what_is_there_is_read_and_said(
    tmp_path: Path, storage: Literal["mcap", "sqlite3"], packed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    images = [np.random.default_rng(k).integers(0, 256, (480, 640, 3)).astype(np.uint8) for k in range(12)]
    with (compressed if packed else BagWriter)(tmp_path / "bag", storage) as bag:
        for k, image in enumerate(images):
            bag.camera_info("/cam/camera_info", STAMPS[0] + k, CAMERA)
            bag.image("/cam/image_raw", STAMPS[0] + k, image)
    file = data_file(tmp_path / "bag")
    whole, counts = file.read_bytes(), []
    for share in (0.3, 0.6, 0.95):
        file.write_bytes(whole[: int(len(whole) * share)])
        caplog.clear()
        frames = BagFrames(tmp_path / "bag")
        found = list(frames)
        assert "cut short or never closed" in caplog.text
        for k, frame in enumerate(found):
            assert frame.stamp == STAMPS[0] + k
            np.testing.assert_array_equal(frame.image, images[k])
        counts.append(len(found))
        # At most a packed chunk is lost, which here is two images, and of the last image what was not written yet.
        assert 12 * share - 3 <= len(found) <= 12 * share
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("kept", [0, 5, 60, 300])
def test_a_bag_of_which_nothing_is_left_says_what_mends_it(tmp_path: Path, storage: Literal["mcap", "sqlite3"], kept: int) -> None:
    bag = written(tmp_path / "bag", storage)
    file = data_file(bag)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(BagError, match="reindex") as refusal:
        list(BagFrames(bag))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_recording_that_was_never_closed_is_read_in_all_its_parts(tmp_path: Path, storage: Literal["mcap", "sqlite3"]) -> None:
    """Without metadata.yaml; split files, of which the tenth comes after the second."""
    (tmp_path / "whole").mkdir()
    for part, number in ((0, 2), (1, 10)):
        bag = tmp_path / f"part{part}"
        with BagWriter(bag, storage) as writer:
            for k in range(3 * part, 3 * part + 3):
                writer.camera_info("/cam/camera_info", STAMPS[k], CAMERA)
                writer.image("/cam/image_raw", STAMPS[k], IMAGES[k])
        file = data_file(bag)
        file.rename(tmp_path / "whole" / f"bag_{number}{file.suffix}")
    frames = list(BagFrames(tmp_path / "whole"))
    assert [frame.stamp for frame in frames] == STAMPS
    assert all(frame.camera == CAMERA for frame in frames)
    np.testing.assert_array_equal(frames[4].image, IMAGES[4])


def test_damage_in_the_middle_costs_no_more_than_what_is_damaged(tmp_path: Path) -> None:
    images = [np.full((480, 640, 3), np.arange(k, k + 640)[:, None] % 256, np.uint8) for k in range(16)]
    with compressed(tmp_path / "bag", "mcap") as bag:
        for k, image in enumerate(images):
            bag.image("/image", STAMPS[0] + k, image)
    file = data_file(tmp_path / "bag")
    data = bytearray(file.read_bytes())
    chunk = data.index(b"zstd", len(data) // 2)
    data[chunk + 40 : chunk + 140] = bytes(100)
    file.write_bytes(data[:-40])  # and the end is missing, so that it is walked through
    kept = [frame.stamp - STAMPS[0] for frame in BagFrames(tmp_path / "bag")]
    assert (kept[0], kept[-1], len(kept)) == (0, 15, 14)  # two images are one chunk


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


def test_rectified_images_have_the_rectified_camera(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.camera_info("/cam/camera_info", STAMPS[0], CAMERA)
        for topic in ("/cam/image_raw", "/cam/image_rect"):
            bag.image(topic, STAMPS[0], IMAGES[0])
    for topic, camera in (("/cam/image_raw", CAMERA), ("/cam/image_rect", CAMERA.pinhole())):
        caplog.clear()
        assert [frame.camera for frame in BagFrames(tmp_path / "bag", topic)] == [camera]
        assert ("/cam/image_rect has rectified images" in caplog.text) == (camera.model == "pinhole")


def test_without_camera_info_frames_have_no_camera(tmp_path: Path) -> None:
    assert all(frame.camera is None for frame in BagFrames(written(tmp_path / "bag", camera=None)))


def test_a_bag_is_never_written_over(tmp_path: Path) -> None:
    bag = written(tmp_path / "bag")
    with pytest.raises(BagError, match="does not exist yet"), BagWriter(bag):
        pass
    assert len(list(BagFrames(bag))) == 6
