"""Posed RGB-D in TUM's layout, written from planes whose geometry is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.rgbd_folder import FOCAL, HEIGHT, SETTINGS, WALL, WIDTH, rgbd_folder

from dust3r_ros.training.errors import TrainingError
from dust3r_ros.training.inputs import truths_of
from dust3r_ros.training.rgbd import RgbdPairs


def test_pairs_overlap_as_asked_and_their_geometry_is_true(tmp_path: Path) -> None:
    source = RgbdPairs(rgbd_folder(tmp_path), 80, 48, 8, seed=0)
    for a, b in source.found:
        share = 1 - 0.2 * abs(b - a) / (WALL * WIDTH / FOCAL)  # of the wall in view
        assert 0.3 - 0.05 <= share <= 0.98 + 0.02
    batch = source.batch(0)
    assert batch.first.images.shape == (8, 3, 48, 80)
    assert bool(batch.first.valid.any())
    truth = truths_of(batch)[0]
    wall = truth.points_2[:8][batch.second.valid][:, 2]
    torch.testing.assert_close(wall, torch.full_like(wall, WALL), atol=1e-4, rtol=0)
    # What a point of the wall looks like does not depend on the view: red is a function of x in the world.
    for view in (batch.first, batch.second):
        x = (torch.arange(80) - view.intrinsics[0, 2]) / view.intrinsics[0, 0] * WALL + view.pose[0, 0, 3]
        blue = (view.images[0, 2, 24] / 2 + 0.5) * 255
        torch.testing.assert_close(blue, 127 + 100 * torch.sin(3 * x), atol=6, rtol=0)


def test_batches_are_the_steps_own(tmp_path: Path) -> None:
    settings = rgbd_folder(tmp_path)
    one, two = RgbdPairs(settings, 64, 48, 4, seed=3), RgbdPairs(settings, 64, 48, 4, seed=3)
    two.batch(0)
    assert torch.equal(one.batch(7).first.images, two.batch(7).first.images)
    assert not torch.equal(one.batch(7).first.pose, one.batch(8).first.pose)


def test_what_is_held_out_is_never_trained_on(tmp_path: Path) -> None:
    settings = rgbd_folder(tmp_path)
    trained = RgbdPairs(settings, 64, 48, 4, seed=0)
    held_out = RgbdPairs(settings, 64, 48, 4, seed=0, split="held_out")
    assert {picture.image for picture in trained.pictures}.isdisjoint(picture.image for picture in held_out.pictures)
    assert len(held_out.pictures) == 4


def test_what_cannot_be_used_is_dropped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = rgbd_folder(tmp_path)
    (tmp_path / "rgb/3.png").unlink()
    cv2.imwrite(str(tmp_path / "depth/4.png"), np.zeros((HEIGHT, WIDTH), np.uint16))
    (tmp_path / "depth/5.png").write_bytes(b"no picture")
    depths = (tmp_path / "depth.txt").read_text().splitlines()
    (tmp_path / "depth.txt").write_text("\n".join(line for line in depths if "depth/6.png" not in line))
    source = RgbdPairs(settings, 64, 48, 4, seed=0)
    assert sorted(int(picture.image.stem) for picture in source.pictures) == [0, 1, 2, 7, 8, 9, 10, 11]
    for said in (
        "1 of 16 pictures dropped, without their files",
        "1 of 16 pictures dropped, without depth in time",
        "5.png cannot be read",
    ):
        assert said in caplog.text


def test_errors_name_the_folder_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"has rgb\.txt, depth\.txt, groundtruth\.txt"):
        RgbdPairs(replace(SETTINGS, folder=str(tmp_path)), 64, 48, 4, 0)
    settings = replace(rgbd_folder(tmp_path / "a"), overlap=(0.999, 1.0))
    with pytest.raises(TrainingError, match=r"no pair \(train\) has an overlap of \[0.999, 1.0\]: widen"):
        RgbdPairs(settings, 64, 48, 4, 0)
