"""Cameras on one body: one pose of what all of them see, a metric map from where they sit, and none that stops the others."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from support.rig_walk import APART, TWO, Pose, RigEstimator, frame_set, looking, rig_views
from support.walk import once_round

from dust3r_ros.geometry import inverse_pose, procrustes, rotation_angle
from dust3r_ros.io.map_file import load_map, save_map
from dust3r_ros.mapping import Frame, FrameSet, Mapper, MapperConfig, MapUpdate, Rig, RigError, RigMapper, StampError, with_settings
from dust3r_ros.mapping.types import TrackingState
from dust3r_ros.simulation import SimulatedView

SETTINGS = {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02}
FRAMES, BLIND = 40, range(22, 34)


@dataclass(frozen=True, eq=False)
class Walk:
    mapper: RigMapper
    updates: list[MapUpdate]
    views: dict[str, list[SimulatedView]]
    said: str

    def body_errors(self) -> np.ndarray:
        """[N, 2] metres and radians, of every set's pose in the frame of the first one."""
        truth = {view.stamp: view.pose for view in self.views["front"]}
        poses = self.mapper.trajectory()
        world = truth[poses[0][0]] @ inverse_pose(poses[0][1])
        off = [inverse_pose(truth[stamp]) @ world @ pose for stamp, pose in poses]
        return np.array([(np.linalg.norm(one[:3, 3]), rotation_angle(one[:3, :3])) for one in off])

    def scale_left(self) -> float:
        """Metres per map unit by the best similarity of all poses onto the truth."""
        truth = {view.stamp: view.pose[:3, 3] for view in self.views["front"]}
        found = self.mapper.trajectory()
        return procrustes(np.stack([pose[:3, 3] for _, pose in found]), np.stack([truth[stamp] for stamp, _ in found])).scale


def make(cameras: dict[str, Pose], views: dict[str, list[SimulatedView]], **changes: object) -> RigMapper:
    config = with_settings(MapperConfig(), {**SETTINGS, **changes})
    return RigMapper(Rig(cameras), config, RigEstimator(views, size=160, noise=0.02))


@pytest.fixture(scope="module")
def walk() -> Walk:
    """Two cameras; the front one sees nothing for over a second, and a third has no place on the rig."""
    views = rig_views(TWO, FRAMES)
    mapper, updates, said = make(TWO, views), [], []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("dust3r_ros").addHandler(handler)
    for k in range(FRAMES):
        given = frame_set(views, k, blind=("front",) if k in BLIND else ())
        stray = {"top": given.frames["left"]} if k == 3 else {}
        updates.append(mapper.add(FrameSet(given.stamp, {**given.frames, **stray})))
    logging.getLogger("dust3r_ros").removeHandler(handler)
    return Walk(mapper, updates, views, "\n".join(said))


def test_every_set_has_one_pose_near_the_truth(walk: Walk) -> None:
    assert len(walk.mapper.trajectory()) == FRAMES
    errors = walk.body_errors()
    assert errors[:, 0].max() < 0.06  # of 3.6 m
    assert errors[:, 1].max() < 0.02
    assert all(update.camera == "front" for update in walk.updates)


def test_the_map_is_metric_by_where_the_cameras_sit_and_says_how_sure_it_is(walk: Walk) -> None:
    scale = walk.mapper.scale
    assert scale.source == "rig"
    assert 0.01 <= scale.uncertainty < 0.03
    assert walk.scale_left() == pytest.approx(1.0, abs=2 * scale.uncertainty)
    metric = [update for update in walk.updates if update.corrected]
    assert metric[0].frame.stamp < walk.views["front"][20].stamp


def test_a_blinded_camera_is_followed_by_what_the_other_sees(walk: Walk) -> None:
    blinded = [walk.updates[k] for k in BLIND]
    assert all(update.state is TrackingState.TRACKING for update in blinded)
    assert all(set(update.agreeing) == {"left"} for update in blinded)
    assert any(update.is_keyframe for update in blinded)
    assert set(walk.updates[-1].agreeing) == {"front", "left"}  # and seen with again


def test_keyframes_come_in_sets_and_are_paired_inside_and_across_the_cameras(walk: Walk) -> None:
    name = {keyframe.index: keyframe.name for keyframe in walk.mapper.keyframes}
    stamp = {keyframe.index: keyframe.stamp for keyframe in walk.mapper.keyframes}
    joined = {(name[i], name[j], stamp[i] == stamp[j]) for i, j in walk.mapper.edges}
    assert {("front", "front", False), ("left", "left", False), ("front", "left", True)} <= joined
    assert any(one != other and not at_once for one, other, at_once in joined)  # what one saw the other sees later

    # The other camera's keyframes are where the rig has it, and their depth is on the same scale.
    at = {(keyframe.name, keyframe.stamp): keyframe for keyframe in walk.mapper.keyframes}
    both = [(front, at["left", when]) for (camera, when), front in at.items() if camera == "front" and ("left", when) in at]
    assert len(both) > 3
    for front, left in both:
        off = inverse_pose(TWO["left"]) @ inverse_pose(front.pose) @ left.pose
        assert np.linalg.norm(off[:3, 3]) < 0.03
        assert rotation_angle(off[:3, :3]) < 0.02
    true = {(camera, view.stamp): np.median(view.depth) for camera, views in walk.views.items() for view in views}
    ratios = [np.median(keyframe.depth[keyframe.depth > 0]) / true[key] for key, keyframe in at.items()]
    np.testing.assert_allclose(ratios, 1.0, atol=0.04)


def test_a_camera_without_a_place_on_the_rig_is_refused_by_name_and_the_others_go_on(walk: Walk) -> None:
    assert "camera top has no place on the rig: known are front, left" in walk.said
    assert walk.updates[3].state is TrackingState.INITIALISING
    with pytest.raises(RigError, match="nothing of the set can be used: camera top has no place"):
        walk.mapper.add(FrameSet(walk.updates[-1].frame.stamp + 1, {"top": walk.updates[-1].frame}))


def test_sets_are_in_order_and_frames_of_a_rig_are_named(walk: Walk) -> None:
    with pytest.raises(StampError, match="before the last one"):
        walk.mapper.add(frame_set(walk.views, 5))
    with pytest.raises(RigError, match="without its camera's name for a rig of 2"):
        walk.mapper.add(replace(walk.updates[-1].frame, stamp=walk.updates[-1].frame.stamp + 1))


def test_a_rig_that_saw_nothing_is_found_again_and_so_it_is_in_a_saved_map(walk: Walk, tmp_path: Path) -> None:
    """The last test with this walk: it goes on."""
    save_map(tmp_path / "rig.map", walk.mapper.snapshot())
    later = walk.updates[-1].frame.stamp

    def at(frame: int, seconds: int, blind: tuple[str, ...] = ()) -> FrameSet:
        given = frame_set(walk.views, frame, blind)
        return FrameSet(later + seconds * 10**9, given.frames)

    lost = walk.mapper.add(at(0, 1, blind=("front", "left")))
    assert lost.state is TrackingState.LOST
    assert lost.reason.startswith("lost for ")
    again = make(TWO, walk.views)
    again.restore(load_map(tmp_path / "rig.map"))
    assert again.scale.source == "rig"
    assert {keyframe.name for keyframe in again.keyframes} == {"front", "left"}
    for mapper in (walk.mapper, again):
        found = mapper.add(at(36, 2))
        assert found.found_again
        true = inverse_pose(walk.views["front"][0].pose) @ walk.views["front"][36].pose
        assert np.linalg.norm(found.pose[:3, 3] - true[:3, 3]) < 0.1
        gone_on = [mapper.add(FrameSet(later + (20 + k) * 10**8, frame_set(walk.views, 36 + k).frames)) for k in (1, 2, 3)]
        assert all(update.state is TrackingState.TRACKING for update in gone_on)
        assert set(gone_on[0].agreeing) == {"front", "left"}
        assert any(update.is_keyframe for update in gone_on)


def test_a_leader_that_stops_before_there_is_a_map_is_followed_by_another() -> None:
    views = {"front": once_round()[:12], "left": once_round()[:12]}  # who is who does not matter here
    mapper = make({"front": looking(0.0, 0.0), "left": looking(0.0, -0.1)}, views)
    updates = [mapper.add(frame_set(views, k, without=("front",) if k else ())) for k in range(12)]
    assert updates[0].camera == "front"
    assert updates[-1].camera == mapper.lead == "left"
    assert updates[-1].state is TrackingState.TRACKING


def test_a_rig_of_one_camera_takes_frames_as_a_mapper_does() -> None:
    views = {"front": once_round()[:8]}
    mapper = make({"front": looking(0.0, 0.0)}, views)
    plain = Mapper(mapper.config, RigEstimator(views, size=160, noise=0.02))
    for view in views["front"]:
        frame = Frame(view.stamp, view.image, view.camera)
        assert mapper.add(frame).state is plain.add(frame).state
    assert [keyframe.stamp for keyframe in mapper.keyframes] == [keyframe.stamp for keyframe in plain.keyframes]
    for (_, own), (_, other) in zip(mapper.trajectory(), plain.trajectory(), strict=True):
        np.testing.assert_allclose(own, other, atol=0.01)


@pytest.mark.slow
def test_cameras_that_never_see_the_same_tell_the_scale_when_the_rig_turns() -> None:
    views = rig_views(APART, 30)
    mapper = make(APART, views, **{"keyframes.min_overlap": 0.8})
    updates = [mapper.add(frame_set(views, k)) for k in range(30)]
    walk = Walk(mapper, updates, views, "")
    assert mapper.scale.source == "rig"
    assert walk.scale_left() == pytest.approx(1.0, abs=2.5 * mapper.scale.uncertainty)
