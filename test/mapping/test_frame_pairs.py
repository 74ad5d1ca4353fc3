"""The parts of every frame's pair: its pose on the keyframe's scale, the running mean of the depth, two poses of a frame, and the pace."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Camera, inverse_pose, pose_matrix, rotation_angle, transform_points
from dust3r_ros.mapping import Keyframe
from dust3r_ros.mapping.keyframes.refined_depth import REMEMBERED, RefinedDepths
from dust3r_ros.mapping.tracking.frame_pair import FramePair, frame_by_pair
from dust3r_ros.mapping.tracking.pair_pace import PAIRS, TRY_AGAIN, PairPace
from dust3r_ros.mapping.tracking.tracker import TrackedPose
from dust3r_ros.mapping.tracking.two_poses import LEAST, PairErrors, contradict, together

HEIGHT, WIDTH = 60, 80
CAMERA = Camera(WIDTH, HEIGHT, 70.0, 70.0, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
SURE = np.full((HEIGHT, WIDTH), 10.0, np.float32)


def surface() -> np.ndarray:
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    return (2.0 + 0.5 * np.sin(u / 9.0) + 0.4 * np.cos(v / 7.0)).astype(np.float32)


def keyframe(depth: np.ndarray) -> Keyframe:
    return Keyframe(0, 0, np.eye(4), CAMERA, CAMERA, np.zeros((HEIGHT, WIDTH, 3), np.uint8), depth.astype(np.float32), SURE)


def pair(scale: float, pose: np.ndarray, depth: np.ndarray | None = None, seed: int = 0, noise: float = 0.0) -> PairPrediction:
    """Of the keyframe with the surface and a frame at `pose` that sees the same shape before it."""
    rng = np.random.default_rng(seed)
    own = surface() if depth is None else depth
    points_i = CAMERA.rays() * (own * (1 + noise * rng.normal(size=own.shape)))[..., None]
    points_j = transform_points(pose, CAMERA.rays() * (own * (1 + noise * rng.normal(size=own.shape)))[..., None])
    points = [torch.from_numpy((scale * p).astype(np.float32)) for p in (points_i, points_j)]
    return PairPrediction(0, 1, points[0], points[1], torch.from_numpy(SURE), torch.from_numpy(SURE))


def moved(turn: float = 0.05, way: float = 0.1) -> np.ndarray:
    return pose_matrix(Rotation.from_rotvec([turn, -turn, turn / 2]).as_matrix(), [way, -way / 2, way])


def by_pair(of: Keyframe, prediction: PairPrediction) -> FramePair | None:
    return frame_by_pair(of, prediction, (CAMERA, CAMERA))


def test_a_pair_on_any_scale_places_its_frame_on_the_keyframes() -> None:
    for scale in (0.03, 1.0, 40.0):
        found = by_pair(keyframe(surface()), pair(scale, moved(), noise=0.02))
        assert found is not None
        off = inverse_pose(moved()) @ found.tracked.pose
        assert np.linalg.norm(off[:3, 3]) < 2e-3
        assert rotation_angle(off[:3, :3]) < 1e-3
        assert np.median(found.depth / surface()) == pytest.approx(1.0, abs=2e-3)
        assert found.tracked.covariance is not None


def test_a_pair_of_another_place_is_not_believed() -> None:
    other = surface()[::-1, ::-1] * np.linspace(0.5, 2.0, WIDTH, dtype=np.float32)
    assert by_pair(keyframe(surface()), pair(1.0, moved(), other)) is None


def test_a_pair_that_knows_nothing_or_has_another_size_is_not_believed() -> None:
    found = pair(1.0, moved())
    assert by_pair(keyframe(surface()), replace(found, confidence_i=torch.ones(HEIGHT, WIDTH))) is None
    assert by_pair(keyframe(surface()), replace(found, confidence_j=torch.ones(HEIGHT, WIDTH))) is None
    small = replace(keyframe(surface()), depth=surface()[::2, ::2], confidence=SURE[::2, ::2])
    assert by_pair(small, found) is None
    scattered = torch.from_numpy(np.random.default_rng(0).normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32))
    assert by_pair(keyframe(surface()), replace(found, points_j=scattered)) is None


def test_what_is_not_finite_is_left_out() -> None:
    found = pair(1.0, moved())
    found.points_i[:10] = float("nan")
    found.points_j[:, :10] = float("inf")
    placed = by_pair(keyframe(surface()), found)
    assert placed is not None
    assert np.isfinite(placed.depth).all()
    assert (placed.depth[:10] == 0).all()


# ---- the running mean ------------------------------------------------------------------------------------------------------------------


def noisy(seed: int, noise: float = 0.05) -> np.ndarray:
    return (surface() * (1 + noise * np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH)))).astype(np.float32)


def error(depth: np.ndarray) -> float:
    return float(np.log(depth / surface()).std())


def fused(pairs: int, depths: RefinedDepths | None = None, unit: float = 1.0) -> tuple[RefinedDepths, Keyframe]:
    depths, held = depths or RefinedDepths(), keyframe(unit * noisy(1000))
    for n in range(pairs):
        held = depths.fuse(held, unit, 1, unit * noisy(n), SURE)
    return depths, held


def test_the_error_falls_with_the_root_of_the_number_of_pairs() -> None:
    for pairs in (3, 8, 15):
        assert error(fused(pairs)[1].depth) == pytest.approx(0.05 / np.sqrt(1 + pairs), rel=0.15)


def test_old_pairs_are_forgotten_little_by_little() -> None:
    depths, held = fused(2 * REMEMBERED)
    for n in range(3 * REMEMBERED):
        held = depths.fuse(held, 1.0, 1, 1.05 * noisy(5000 + n, 0.01), SURE)
    assert np.median(held.depth / surface()) == pytest.approx(1.05, abs=0.005)


def test_pixels_of_which_a_pair_says_something_else_stay() -> None:
    depths, held = fused(4)
    wrong = noisy(77)
    wrong[20:30] *= 1.6
    after = depths.fuse(held, 1.0, 1, wrong, SURE)
    assert np.array_equal(after.depth[20:30], held.depth[20:30])
    assert (after.depth[:20] != held.depth[:20]).mean() > 0.9
    nothing = depths.fuse(held, 1.0, 1, np.zeros_like(wrong), SURE)
    assert np.array_equal(nothing.depth, after.depth)


def test_less_sure_pairs_count_for_less() -> None:
    held = keyframe(surface())
    low, high = (RefinedDepths().fuse(held, 1.0, 1, 1.02 * surface(), np.full_like(SURE, sure)).depth for sure in (2.0, 100.0))
    assert np.median(low / surface()) == pytest.approx(1 + 0.02 * np.log(2) / (np.log(2) + np.log(10)), abs=1e-4)
    assert np.median(high / surface()) == pytest.approx(1 + 0.02 * 2 / 3, abs=1e-4)


def test_a_map_that_has_grown_and_an_alignment_on_another_scale_keep_what_was_fused() -> None:
    depths, held = fused(15)
    grown = replace(held, depth=3 * held.depth)
    after = depths.fuse(grown, 3.0, 1, 3 * noisy(50), SURE)
    assert error(after.depth / 3) < error(held.depth)
    anew = depths.aligned(keyframe(3 * 1.2 * noisy(60)), 3.0, 4)
    assert np.median(anew.depth / (3 * 1.2 * surface())) == pytest.approx(1.0, abs=0.01)
    assert error(anew.depth) < 0.02
    depths.forget(0)
    assert error(depths.aligned(keyframe(noisy(60)), 3.0, 4).depth) == pytest.approx(0.05, rel=0.1)


# ---- two poses of a frame --------------------------------------------------------------------------------------------------------------


def pose_with(sigma: float, way: float) -> TrackedPose:
    return TrackedPose(pose_matrix(np.eye(3), [way, 0.0, 0.0]), 0.9, sigma**2 * np.eye(6))


def test_each_pose_counts_by_its_covariance() -> None:
    both = together(pose_with(0.01, 0.0), pose_with(0.02, 0.05))
    assert both.pose[0, 3] == pytest.approx(0.01)
    assert both.covariance is not None
    assert both.covariance[3, 3] == pytest.approx(1 / (1 / 0.01**2 + 1 / 0.02**2))
    assert together(pose_with(0.01, 0.0), TrackedPose(moved(), 1.0)).pose[0, 3] == 0.0


def test_poses_contradict_each_other_beyond_what_their_covariances_explain() -> None:
    assert not contradict(pose_with(0.01, 0.0), pose_with(0.01, 0.05))
    assert contradict(pose_with(0.01, 0.0), pose_with(0.01, 0.5))


def test_how_far_pairs_are_off_is_learned_and_those_astray_teach_little() -> None:
    rng, errors = np.random.default_rng(0), PairErrors()
    for n in range(200):
        off = pose_matrix(Rotation.from_rotvec(0.01 * rng.normal(size=3)).as_matrix(), 2.0 * 0.02 * rng.normal(size=3))
        off[0, 3] += 5.0 if n == 150 else 0.0
        errors = errors.learned(pose_with(1e-4, 0.0), TrackedPose(off, 0.9, 1e-8 * np.eye(6)), 2.0)
    assert errors.turn == pytest.approx(0.01, rel=0.3)
    assert errors.place == pytest.approx(0.02, rel=0.3)
    for _ in range(300):
        errors = errors.learned(pose_with(1e-4, 0.0), pose_with(1e-4, 0.0), 2.0)
    assert errors.turn < 3 * LEAST


# ---- the pace --------------------------------------------------------------------------------------------------------------------------


def pace_at(hertz: float, seconds: float, pairs: int = PAIRS, pace: PairPace | None = None, begin: int = 0) -> tuple[PairPace, int]:
    """After `pairs` that took so long; the next stamp."""
    pace = pace or PairPace("auto", beside_cpu=True)
    for n in range(pairs):
        pace.frame(begin + round(n * 1e9 / hertz))
        pace.is_wanted()
        pace.took(seconds)
    return pace, begin + round(pairs * 1e9 / hertz)


def test_pairs_are_wanted_where_they_take_well_under_the_time_between_frames(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for seconds, wanted in ((0.010, True), (0.020, False)):
        pace, stamp = pace_at(30.0, seconds)
        pace.frame(stamp)
        assert pace.is_wanted() is wanted
    pace_at(30.0, 0.010, 50, pace_at(30.0, 0.010)[0], 10**10)
    assert [r.getMessage() for r in caplog.records if "every frame" in r.getMessage()] == [
        "a pair takes 10 ms, frames come every 33 ms: the estimator runs on every frame"
    ] * 2  # once for each that began


def test_what_has_begun_goes_on_until_it_falls_behind() -> None:
    pace, stamp = pace_at(30.0, 0.010)
    pace, stamp = pace_at(30.0, 0.022, 2 * PAIRS, pace, stamp)
    pace.frame(stamp)
    assert pace.is_wanted()
    pace, stamp = pace_at(30.0, 0.030, 2 * PAIRS, pace, stamp)
    pace.frame(stamp)
    assert not pace.is_wanted()


def test_one_that_was_too_slow_is_given_a_pair_now_and_then() -> None:
    frames = round(5.5 * TRY_AGAIN * 30)
    for seconds, least, most in ((0.01, 0.2 * frames, frames), (0.1, 5, 5)):  # the one keeps up by now, the other does not
        pace, stamp = pace_at(30.0, 0.1)
        tried = 0
        for n in range(frames):
            pace.frame(stamp + round(n * 1e9 / 30))
            if pace.is_wanted():
                tried += 1
                pace.took(seconds)
        assert least <= tried <= most


def test_always_never_and_an_estimator_on_the_cpu_do_not_depend_on_time() -> None:
    for setting, beside_cpu, wanted in (("always", False, True), ("never", True, False), ("auto", False, False)):
        pace = PairPace(setting, beside_cpu)
        pace, stamp = pace_at(30.0, 10.0 if wanted else 1e-3, 3 * PAIRS, pace)
        pace.frame(stamp)
        assert pace.is_wanted() is wanted
