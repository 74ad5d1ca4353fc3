"""Points followed from image to image at camera rate: by as much of a pyramid as they moved before, and by more if that was too little."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dust3r_ros.mapping.tracking import camera_rate
from dust3r_ros.mapping.tracking.camera_rate import caught_up, step
from dust3r_ros.mapping.tracking.tracker import Tracks


def picture(shift: float = 0.0) -> np.ndarray:
    """[240, 320] of a texture of all sizes that has moved `shift` pixels to the left."""
    rng, large = np.random.default_rng(0), np.zeros((480, 960), np.float32)
    for size in (8, 24, 60, 120):
        large += cv2.resize(rng.uniform(0, 64, (480 // size, 960 // size)).astype(np.float32), (960, 480), interpolation=cv2.INTER_CUBIC)
    there = np.array([[1.0, 0, -200.0 - shift], [0, 1.0, -100.0]])
    return cv2.warpAffine(large.clip(0, 255).astype(np.uint8), there, (320, 240))


def off(tracks: Tracks, moved: float) -> np.ndarray:
    """[N] pixels between where points are and where they should be: `moved` to the left of where they were chosen."""
    return np.abs(tracks.current - tracks.keyframe + np.array((moved, 0.0))).max(axis=1)


@pytest.fixture
def points() -> Tracks:
    """Of the picture as it is before it moves, well inside it."""
    found = cv2.goodFeaturesToTrack(picture(), 100, 0.01, 8, mask=np.pad(np.full((160, 160), 255, np.uint8), ((40, 40), (100, 60))))
    chosen = found.reshape(-1, 2).astype(np.float32)
    return Tracks(chosen, chosen, 1.0)


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the pyramids that points were followed forth by."""
    used: list[int] = []
    followed = camera_rate._followed
    monkeypatch.setattr(camera_rate, "_followed", lambda *given: used.append(given[-1]) or followed(*given))
    return used


def test_points_that_hardly_move_need_no_pyramid(points: Tracks, levels: list[int]) -> None:
    tracks = points
    for n in (1, 2, 3):
        tracks = step(picture(n - 1.0), tracks, picture(float(n)), picture())
    assert levels == [4, 0, 0]  # of the first step nothing was known
    assert tracks.motion == pytest.approx(1.0, abs=0.1)
    assert len(tracks) > 0.95 * len(points)
    assert off(tracks, 3.0).max() < 0.15


def test_a_jerk_is_followed_by_the_whole_pyramid(points: Tracks, levels: list[int]) -> None:
    still = step(picture(), points, picture(0.5), picture())
    after = step(picture(0.5), still, picture(30.0), picture())
    assert levels == [4, 0, 4]
    assert len(after) > 0.9 * len(points)
    assert np.median(off(after, 30.0)) < 0.15
    assert after.motion == pytest.approx(29.5, abs=0.5)


def test_points_that_the_keyframe_cannot_confirm_are_led_back_to_the_image_before(points: Tracks) -> None:
    changed = picture()
    changed[:, :160] = 128  # the keyframe looked different on one side
    tracks = step(picture(), points, picture(2.0), changed)
    left = tracks.keyframe[:, 0] < 150
    assert left.sum() > 10
    assert (~left).sum() > 10
    assert off(tracks, 2.0).max() < 0.3


def test_points_that_are_covered_are_lost(points: Tracks) -> None:
    covered = picture(1.0)
    covered[:, :160] = np.random.default_rng(1).integers(0, 255, (240, 160))
    tracks = step(picture(), points, covered, picture())
    seen = float((points.keyframe[:, 0] > 170).mean())
    assert (tracks.keyframe[:, 0] < 150).mean() < 0.03
    assert tracks.overlap == pytest.approx(seen, abs=0.15)


def test_many_images_are_caught_up_with_in_few_steps_after_which_the_motion_is_not_known(points: Tracks, levels: list[int]) -> None:
    images = [picture(2.0 * n) for n in range(1, 13)]
    newest, tracks = caught_up(picture(), points, images)
    assert newest is images[-1]
    assert len(levels) == camera_rate.MAX_STEPS
    assert tracks.motion is None
    assert np.median(off(tracks, 24.0)) < 0.5


def test_an_image_of_another_size_shows_none_of_the_points(points: Tracks) -> None:
    assert len(step(picture(), points, np.zeros((120, 160), np.uint8), picture())) == 0
