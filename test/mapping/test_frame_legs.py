"""Frames between keyframes: they agree with both, and with what their keyframe's depth is by now."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry import Camera, inverse_pose, pose_matrix, rotation_angle, transform_points
from dust3r_ros.mapping import Keyframe
from dust3r_ros.mapping.tracking.frame_trajectory import FrameTrajectory
from dust3r_ros.mapping.tracking.remembered_frames import Remembered, RememberedFrames
from dust3r_ros.mapping.tracking.tracker import Tracks

EVERY = 10  # frames from keyframe to keyframe
MS = 1_000_000


def true_pose(frame: float) -> np.ndarray:
    """Along a bend, turning."""
    return pose_matrix(Rotation.from_rotvec([0.0, 0.01 * frame, 0.0]).as_matrix(), [0.02 * frame, 0.001 * frame**2, 0.0])


def erring(rng: np.random.Generator, turn: float, place: float) -> np.ndarray:
    return pose_matrix(Rotation.from_rotvec(turn * rng.normal(size=3)).as_matrix(), place * rng.normal(size=3))


def walk(keyframes: int, keyframe_error: float, followed_error: float, seed: int = 0) -> tuple[FrameTrajectory, dict[int, np.ndarray]]:
    """Keyframes placed with errors of their own, frames followed from each to the next with an error that grows on the way."""
    rng, trajectory = np.random.default_rng(seed), FrameTrajectory()
    poses = {k: true_pose(EVERY * k) @ erring(rng, keyframe_error, keyframe_error) for k in range(keyframes)}
    for k in range(keyframes):
        trajectory.legs.begin(k, EVERY * k * MS)
        drift = Rotation.from_rotvec(followed_error * rng.normal(size=3)), followed_error * rng.normal(size=3)
        for n in range(EVERY + 1 if k + 1 < keyframes else 1):
            share = n / EVERY
            off = pose_matrix(Rotation.from_rotvec(share * drift[0].as_rotvec()).as_matrix(), share * drift[1])
            own = inverse_pose(true_pose(EVERY * k)) @ true_pose(EVERY * k + n) @ off
            if n < EVERY:
                trajectory.append((EVERY * k + n) * MS, k, own)
            else:
                trajectory.legs.end(k, (EVERY * k + n) * MS, k + 1, own)
    return trajectory, poses


def errors(trajectory: FrameTrajectory, poses: dict[int, np.ndarray]) -> np.ndarray:
    return np.array([np.linalg.norm(pose[:3, 3] - true_pose(stamp / MS)[:3, 3]) for stamp, pose in trajectory.poses(poses)])


def test_where_nothing_errs_every_frame_is_where_it_was() -> None:
    trajectory, poses = walk(6, 0.0, 0.0)
    assert errors(trajectory, poses).max() < 1e-6
    assert all(rotation_angle(pose[:3, :3].T @ true_pose(stamp / MS)[:3, :3]) < 1e-6 for stamp, pose in trajectory.poses(poses))


def tracked(trajectory: FrameTrajectory, poses: dict[int, np.ndarray]) -> np.ndarray:
    """Errors of the frames by their own keyframe alone."""
    near = trajectory.around(0, 10**12, poses, {})
    return np.array([np.linalg.norm(pose[:3, 3] - true_pose(stamp / MS)[:3, 3]) for stamp, pose in near])


def test_keyframes_that_err_are_drawn_to_what_was_followed_between_them() -> None:
    for seed in range(3):
        trajectory, poses = walk(20, 0.01, 0.003, seed)
        assert errors(trajectory, poses).mean() < 0.8 * tracked(trajectory, poses).mean()


def test_it_costs_little_where_only_what_was_followed_errs() -> None:
    for seed in range(3):
        trajectory, poses = walk(20, 0.0, 0.01, seed)
        assert np.sqrt(np.mean(errors(trajectory, poses) ** 2)) < 1.3 * np.sqrt(np.mean(tracked(trajectory, poses) ** 2))


def test_the_trajectory_has_no_step_at_a_keyframe() -> None:
    trajectory, poses = walk(8, 0.02, 0.02)
    places = np.stack([pose[:3, 3] for _, pose in trajectory.poses(poses)])
    bends = np.linalg.norm(np.diff(places, n=2, axis=0), axis=1)
    alone = np.stack([pose[:3, 3] for _, pose in trajectory.around(0, 10**12, poses, {})])
    assert bends.max() < 0.25 * np.linalg.norm(np.diff(alone, n=2, axis=0), axis=1).max()


def test_a_map_that_moves_and_grows_as_a_whole_takes_all_frames_along() -> None:
    trajectory, poses = walk(6, 0.01, 0.01)
    before = trajectory.poses(poses)
    moved = pose_matrix(Rotation.from_rotvec([0.3, -0.2, 0.1]).as_matrix(), [1.0, 2.0, 3.0])
    grown = {}
    for k, pose in poses.items():
        grown[k] = moved @ pose
        grown[k][:3, 3] *= 3.0
    after = trajectory.poses(grown, units=dict.fromkeys(poses, 3.0))
    for (_, one), (_, other) in zip(before, after, strict=True):
        expected = moved @ one
        expected[:3, 3] *= 3.0
        assert other == pytest.approx(expected, abs=1e-5)


def test_frames_after_the_next_keyframe_was_taken_and_before_it_was_there_go_along_with_it() -> None:
    trajectory, poses = walk(2, 0.0, 0.0)
    late = inverse_pose(true_pose(0)) @ true_pose(EVERY + 2)
    trajectory.append((EVERY + 2) * MS, 0, late)
    poses[1] = poses[1].copy()
    poses[1][:3, 3] += [0.0, 0.0, 0.3]
    found = dict(trajectory.poses(poses))
    assert found[(EVERY + 2) * MS][2, 3] == pytest.approx(found[EVERY * MS][2, 3], abs=0.01)
    assert found[EVERY * MS][2, 3] > 0.1


def test_a_keyframe_that_is_come_back_to_does_not_take_the_old_ways_end_along() -> None:
    trajectory, poses = walk(2, 0.0, 0.0)
    poses[1] = poses[1].copy()
    poses[1][:3, 3] += [0.0, 0.0, 0.3]
    back = 100 * MS
    trajectory.legs.begin(0, back)
    trajectory.append(back + MS, 0, np.eye(4))
    found = dict(trajectory.poses(poses))
    assert found[back + MS] == pytest.approx(found[0], abs=1e-6)


# ---- placed anew -----------------------------------------------------------------------------------------------------------------------

CAMERA = Camera(160, 120, 130.0, 130.0, 79.5, 59.5)


def surface(size: float = 1.0) -> np.ndarray:
    v, u = np.mgrid[:120, :160]
    return (size * (2.0 + 0.5 * np.sin(u / 17.0) + 0.4 * np.cos(v / 13.0))).astype(np.float32)


def keyframe(depth: np.ndarray) -> Keyframe:
    sure = np.full(depth.shape, 10.0, np.float32)
    return Keyframe(0, 0, np.eye(4), CAMERA, CAMERA, np.zeros((120, 160, 3), np.uint8), depth, sure)


def remembered(pose: np.ndarray, stamp: int = 5) -> Remembered:
    rows, columns = (side.ravel() for side in np.mgrid[5:115:8, 5:155:8])
    points = CAMERA.rays()[rows, columns] * surface()[rows, columns, None]
    current = CAMERA.project(transform_points(inverse_pose(pose), points)).astype(np.float32)
    tracks = Tracks(np.stack([columns, rows], -1).astype(np.float32), current, 1.0)
    return Remembered(stamp, 0, tracks, CAMERA, np.zeros(3), np.zeros(3))


def test_frames_are_placed_anew_when_their_keyframes_depth_has_changed_and_not_before() -> None:
    pose, frames = pose_matrix(np.eye(3), [0.1, 0.0, 0.05]), RememberedFrames()
    wrong, right = keyframe(surface(1.1)), keyframe(surface())
    frames.add(remembered(pose), wrong, 1.0)
    assert frames.by_depth(0, 0.0, wrong, 1.0) == {}
    assert frames.by_depth(0, 0.0, replace(wrong, depth=2 * wrong.depth), 2.0) == {}  # the map has grown, no more
    assert frames.by_depth(1, 0.0, right, 1.0) == {}
    found = frames.by_depth(0, 0.0, right, 1.0)
    assert list(found) == [(5, 0)]
    assert found[5, 0] == pytest.approx(pose, abs=1e-3)
    frames.forget()
    assert frames.by_depth(0, 0.0, right, 1.0) == {}


def test_what_a_pair_has_corrected_stays_corrected() -> None:
    pose, frames = pose_matrix(np.eye(3), [0.1, 0.0, 0.05]), RememberedFrames()
    frames.add(remembered(pose), keyframe(surface(1.1)), 1.0)
    frames.correct_newest(pose_matrix(np.eye(3), [0.0, 0.02, 0.0]))
    found = frames.by_depth(0, 0.0, keyframe(surface()), 1.0)[5, 0]
    assert found[:3, 3] == pytest.approx([0.1, 0.02, 0.05], abs=1e-3)
