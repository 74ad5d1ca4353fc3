"""Folders of pictures and videos."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dust3r_ros.io.images import ImagesError, open_images, read_picture

PICTURE = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8), (64, 48), interpolation=cv2.INTER_LINEAR)


def test_pictures_come_in_natural_order_at_the_set_rate(tmp_path: Path) -> None:
    for k in (10, 2, 1):
        Image.fromarray(np.full((48, 64, 3), k, np.uint8)).save(tmp_path / f"img_{k}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._img_1.png").write_bytes(b"what macOS leaves on other disks")
    frames = open_images(tmp_path, fps=4.0)
    assert len(frames) == 3
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2, 10]
    assert np.diff([frame.stamp for frame in frames]).tolist() == [250_000_000, 250_000_000]


def test_an_unreadable_picture_among_good_ones_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for k in range(3):
        Image.fromarray(PICTURE).save(tmp_path / f"{k}.jpg")
    (tmp_path / "1.jpg").write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        assert len(list(open_images(tmp_path))) == 2
    assert "1.jpg" in caplog.text


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_turns_the_picture_upright_and_gives_its_focal_length(tmp_path: Path, orientation: int) -> None:
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0xA405] = 28
    Image.fromarray(np.rot90(PICTURE, turns).copy()).save(tmp_path / "p.png", exif=exif)
    image, camera = read_picture(tmp_path / "p.png")
    np.testing.assert_array_equal(image, PICTURE)
    assert camera is not None
    assert (camera.width, camera.height) == (64, 48)
    assert camera.fx == pytest.approx(28 * 80 / 43.2666, rel=1e-4)


@pytest.mark.parametrize(("resized", "unit"), [(1, 2), (1, 3), (2, 2)])
def test_focal_length_and_pixel_density_do_without_the_35_mm_equivalent(tmp_path: Path, resized: int, unit: int) -> None:
    exif = Image.Exif()
    per_millimetre = 10.0 * resized
    told = exif.get_ifd(0x8769)
    told.update({0x920A: 6.5, 0xA20E: per_millimetre * (25.4 if unit == 2 else 10.0), 0xA210: unit, 0xA002: 64 * resized})
    Image.fromarray(PICTURE).save(tmp_path / "p.jpg", exif=exif)
    _, camera = read_picture(tmp_path / "p.jpg")
    assert camera is not None
    assert camera.fx == pytest.approx(65.0)


@pytest.mark.parametrize(
    "told", [{0xA405: 0}, {0xA405: 65535}, {0x920A: 5.0}, {0x920A: 5.0, 0xA20E: 0.0}, {0x920A: 5.0, 0xA20E: 9.0, 0xA210: 77}]
)
def test_a_focal_length_that_cannot_be_is_not_believed(tmp_path: Path, told: dict[int, float]) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769).update(told)
    Image.fromarray(PICTURE).save(tmp_path / "p.jpg", exif=exif)
    assert read_picture(tmp_path / "p.jpg")[1] is None


def test_16_bits_of_grey_keep_their_shades(tmp_path: Path) -> None:
    Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 256 + 9).save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "p.png")[0], np.repeat(PICTURE[..., :1], 3, axis=2))


def test_a_known_field_of_view_goes_before_exif(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "p.png")
    _, camera = read_picture(tmp_path / "p.png", fov=90.0)
    assert camera is not None
    assert camera.fx == pytest.approx(32.0)
    assert read_picture(tmp_path / "p.png")[1] is None


def test_a_video_gives_its_frames_at_its_rate(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
    for k in range(5):
        writer.write(np.full((48, 64, 3), 40 * k, np.uint8))
    writer.release()
    frames = list(open_images(tmp_path / "v.avi"))
    assert len(frames) == 5
    assert np.diff([frame.stamp for frame in frames]).tolist() == [50_000_000] * 4
    assert abs(int(frames[3].image.mean()) - 120) < 5


@pytest.mark.parametrize("name", ["none", "empty", "broken.mp4", "text.txt", "unreadable"])
def test_what_holds_no_pictures_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name in ("empty", "unreadable"):
        path.mkdir()
        if name == "unreadable":
            (path / "a.jpg").write_bytes(b"broken")
    elif name != "none":
        path.write_text("nothing")
    with pytest.raises(ImagesError, match=name):
        list(open_images(path))
