"""Which frames become keyframes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dust3r_ros.mapping.config import KeyframeConfig
from dust3r_ros.mapping.tracking.keyframe_selection import KeyframeSelector

SECOND = 1_000_000_000
CONFIG = KeyframeConfig(min_parallax=0.02, min_overlap=0.5, max_interval=0.0, max_rate=10.0)
SHARP = np.random.default_rng(0).integers(20, 230, (120, 160)).astype(np.uint8)
BLURRED = cv2.GaussianBlur(SHARP, (0, 0), 3)


@pytest.fixture
def selector() -> KeyframeSelector:
    selector = KeyframeSelector(CONFIG)
    assert selector.choose(0, SHARP, None, 0.0).is_due
    selector.accepted(0)
    return selector


def test_a_still_camera_brings_no_keyframe(selector: KeyframeSelector) -> None:
    assert not any(selector.choose(k * SECOND, SHARP, 0.001, 1.0).is_due for k in range(1, 100))


def test_parallax_or_lost_overlap_brings_one_and_says_which(selector: KeyframeSelector) -> None:
    assert "parallax" in selector.choose(SECOND, SHARP, 0.03, 0.9).reason
    choice = selector.choose(2 * SECOND, SHARP, 0.0, 0.3)
    assert choice.is_due
    assert "overlap" in choice.reason


def test_way_against_depth_brings_one_and_before_there_is_depth_half_the_parallax_does(selector: KeyframeSelector) -> None:
    assert not selector.choose(SECOND, SHARP, 0.012, 1.0, baseline=0.05).is_due
    assert "median depth" in selector.choose(SECOND, SHARP, 0.012, 1.0, baseline=0.12).reason
    assert selector.choose(SECOND, SHARP, 0.012, 1.0, baseline=None).is_due
    assert not selector.choose(SECOND, SHARP, 0.008, 1.0, baseline=None).is_due


def test_a_picture_of_what_the_last_keyframe_has_not_seen_brings_one(selector: KeyframeSelector) -> None:
    """A camera that turns sees new things without any parallax, and may still follow most of its points."""
    assert not selector.choose(SECOND, SHARP, 0.0, 0.9, baseline=0.0, new_share=0.2).is_due
    assert selector.choose(2 * SECOND, SHARP, 0.0, 0.9, baseline=0.0, new_share=0.5).reason == "50 % of the picture is new"


def test_not_more_often_than_the_set_rate(selector: KeyframeSelector) -> None:
    assert not selector.choose(SECOND // 20, SHARP, 0.5, 0.1).is_due
    assert selector.choose(SECOND // 10, SHARP, 0.5, 0.1).is_due


def test_too_long_since_the_last_brings_one_if_the_camera_moves() -> None:
    selector = KeyframeSelector(replace(CONFIG, max_interval=5.0))
    selector.choose(0, SHARP, None, 0.0)
    selector.accepted(0)
    assert not selector.choose(4 * SECOND, SHARP, 0.01, 1.0, 0.0).is_due
    assert selector.choose(5 * SECOND, SHARP, 0.01, 1.0, 0.0).is_due
    assert not selector.choose(6 * SECOND, SHARP, 0.0, 1.0).is_due


def test_a_blurred_frame_waits_for_a_sharp_one_but_not_for_ever(selector: KeyframeSelector) -> None:
    for k in range(1, 6):
        selector.choose(k * SECOND, SHARP, 0.0, 1.0)
    blurred = selector.choose(7 * SECOND, BLURRED, 0.05, 1.0)
    assert not blurred.is_due
    assert "blurred" in blurred.reason
    assert selector.choose(8 * SECOND, SHARP, 0.05, 1.0).is_due
    outcomes = [selector.choose((9 + k) * SECOND, BLURRED, 0.05, 1.0).is_due for k in range(8)]
    assert outcomes.index(True) == 4  # it has waited once already


@pytest.mark.parametrize("level", [0, 255])
def test_a_saturated_first_frame_waits(level: int) -> None:
    selector = KeyframeSelector(CONFIG)
    choice = selector.choose(0, np.full((120, 160), level, np.uint8), None, 0.0)
    assert not choice.is_due
    assert "100 %" in choice.reason
