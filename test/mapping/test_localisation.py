"""A picture's place in a saved map: maps made by the Mapper of a simulated room, pictures that it has not seen, and others."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.estimators import create_estimator
from dust3r_ros.geometry import Similarity, rotation_angle
from dust3r_ros.io.map_file import load_map, save_map
from dust3r_ros.mapping import Frame, Localisation, LocalisationError, Mapper, MapperConfig, MapSnapshot, localise, with_settings
from dust3r_ros.mapping.places.image_descriptor import image_descriptor
from dust3r_ros.mapping.places.likeness import likeness
from dust3r_ros.mapping.points.keyframe_views import compact
from dust3r_ros.simulation import SimulatedView, room_sequence

UNSEEN = (7, 17, 27)  # left out of the map
CONFIG = with_settings(MapperConfig(), {"window.size": 3, "keyframes.min_parallax": 0.02})


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(room_sequence(30, 160, 120))


@pytest.fixture(scope="module")
def snapshot(views) -> MapSnapshot:
    mapper = Mapper(CONFIG, create_estimator("flow", 160))
    for k, view in enumerate(views):
        if k not in UNSEEN:
            mapper.add(Frame(view.stamp, view.image, view.camera))
    return mapper.snapshot()


@pytest.fixture(scope="module")
def to_room(snapshot, views) -> Similarity:
    """From the map's world, on its own scale, to the room's: by the first keyframe's true pose and depth."""
    first, truth = snapshot.keyframes[0], next(view for view in views if view.stamp == snapshot.keyframes[0].stamp)
    known = first.depth > 0
    scale = float(np.median(truth.depth[known] / first.depth[known]))
    turn = truth.pose[:3, :3] @ first.pose[:3, :3].T
    return Similarity(scale, turn, truth.pose[:3, 3] - scale * turn @ first.pose[:3, 3])


def errors(found: Localisation, truth: np.ndarray, to_room: Similarity) -> tuple[float, float]:
    """Metres and degrees."""
    assert found.pose is not None, found.reason
    pose = to_room.apply_pose(found.pose)
    return float(np.linalg.norm(pose[:3, 3] - truth[:3, 3])), float(np.degrees(rotation_angle(pose[:3, :3].T @ truth[:3, :3])))


@pytest.mark.parametrize("k", UNSEEN)
def test_a_picture_the_map_has_not_seen_is_placed(snapshot, views, to_room, k):
    found = localise(snapshot, create_estimator("flow", 160), views[k].image, views[k].camera)
    moved, turned = errors(found, views[k].pose, to_room)
    assert moved < 0.03
    assert turned < 1.0
    assert set(found.keyframes) <= set(found.tried) <= set(snapshot.window)
    assert found.likeness > 0.8
    assert "placed by" in found.reason


def test_from_the_place_of_a_keyframe_it_takes_another_one_to_have_parallax(snapshot, views, to_room):
    view, first = views[0], snapshot.keyframes[0].index
    assert errors(localise(snapshot, create_estimator("flow", 160), view.image, view.camera), view.pose, to_room)[0] < 0.01
    alone = localise(snapshot, create_estimator("flow", 160), view.image, view.camera, candidates=[first])
    assert (alone.pose, alone.tried) == (None, (first,))


def test_a_map_from_a_file_places_it_too(snapshot, views, to_room, tmp_path):
    save_map(tmp_path / "room.map", snapshot)
    found = localise(load_map(tmp_path / "room.map"), create_estimator("flow", 160), views[17].image, views[17].camera)
    assert errors(found, views[17].pose, to_room)[0] < 0.03


def test_a_camera_held_upside_down_is_placed_upside_down(snapshot, views, to_room):
    view = views[17]
    found = localise(snapshot, create_estimator("flow", 160), view.image[::-1, ::-1].copy(), view.camera)
    moved, turned = errors(found, view.pose @ np.diag([-1.0, -1.0, 1.0, 1.0]), to_room)
    assert moved < 0.03
    assert turned < 1.0


def test_another_camera_with_a_lens_is_placed(snapshot, views, to_room):
    view = views[17]
    lens = replace(view.camera, model="plumb_bob", distortion=(-0.2, 0.03, 0.0, 0.0))
    look = view.camera.project(lens.unproject(lens.pixel_grid())).astype(np.float32)
    bent = cv2.remap(view.image, look[..., 0], look[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    found = localise(snapshot, create_estimator("flow", 160), bent, lens)
    moved, turned = errors(found, view.pose, to_room)
    assert moved < 0.04
    assert turned < 1.0


def test_small_pictures_are_tried_last_and_it_is_said(snapshot, views, to_room):
    blank = replace(snapshot.keyframes[0], index=50, image=np.zeros_like(snapshot.keyframes[0].image))
    old = replace(snapshot, keyframes=(*map(compact, snapshot.keyframes), blank), window=(50,))
    assert max(old.keyframes[0].image.shape) == 80
    found = localise(old, create_estimator("flow", 160), views[7].image, views[7].camera)
    assert errors(found, views[7].pose, to_room)[0] < 0.05
    assert found.tried[0] == 50
    assert 50 not in found.keyframes
    assert "pictures of 80 pixels only" in found.reason


@pytest.mark.parametrize("name", ["noise", "black", "stripes"])
def test_another_picture_is_nowhere(snapshot, views, name):
    image = {
        "noise": np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8),
        "black": np.zeros((120, 160, 3), np.uint8),
        "stripes": np.broadcast_to(np.uint8(120 + 100 * np.sin(np.arange(160) / 5))[:, None], (120, 160, 3)).copy(),
    }[name]
    found = localise(snapshot, create_estimator("flow", 160), image, views[0].camera)
    assert found.pose is None
    assert found.keyframes == ()
    assert found.reason


def test_a_photograph_of_something_else_is_nowhere(snapshot, views):
    data = pytest.importorskip("skimage.data")
    for photograph in (data.chelsea(), np.repeat(data.brick()[..., None], 3, axis=2)):
        found = localise(snapshot, create_estimator("flow", 160), cv2.resize(photograph, (160, 120)), views[0].camera)
        assert found.pose is None


# ---- with an estimator that is told the truth: what is wrong is the localisation's own ------------------------------------------------


@pytest.fixture(scope="module")
def true_map(views) -> MapSnapshot:
    """Keyframes with the truth for depth and pose, in metres and in the room's frame."""
    mapper = Mapper(CONFIG, SimulatedEstimator(views, size=160))
    for k, view in enumerate(views):
        if k not in UNSEEN:
            mapper.add(Frame(view.stamp, view.image, view.camera))
    snapshot = mapper.snapshot()
    truth = {view.stamp: view for view in views}
    kept = [k for k in snapshot.keyframes if k.index in snapshot.window]
    exact = tuple(replace(k, pose=truth[k.stamp].pose, depth=truth[k.stamp].depth, image=truth[k.stamp].image) for k in kept)
    return replace(snapshot, keyframes=exact)


def test_pairs_on_any_scale_are_brought_to_the_maps(true_map, views):
    found = localise(true_map, SimulatedEstimator(views, size=160), views[17].image, views[17].camera)
    moved, turned = errors(found, views[17].pose, Similarity.identity())
    assert moved < 0.002
    assert turned < 0.02
    assert found.inliers > 0.99


def test_noise_and_outliers_leave_centimetres(true_map, views):
    estimator = SimulatedEstimator(views, size=160, noise=0.05, outliers=0.2)
    found = localise(true_map, estimator, views[17].image, views[17].camera)
    assert errors(found, views[17].pose, Similarity.identity())[0] < 0.05


def test_a_wrong_pair_is_outvoted(true_map, views):
    own = max(k.index for k in true_map.keyframes) + 1
    bad = true_map.keyframes[0].index
    found = localise(true_map, SimulatedEstimator(views, size=160, wrong_pairs=[(bad, own)]), views[17].image, views[17].camera)
    assert errors(found, views[17].pose, Similarity.identity())[0] < 0.002
    assert bad not in found.keyframes
    assert bad in found.tried


def test_a_keyframe_whose_depth_contradicts_the_pair_has_no_say(true_map, views):
    first = true_map.keyframes[0]
    spoilt = replace(first, depth=np.random.default_rng(0).uniform(1, 9, first.depth.shape).astype(np.float32))
    found = localise(replace(true_map, keyframes=(spoilt,)), SimulatedEstimator(views, size=160), views[17].image, views[17].camera)
    assert found.pose is None
    assert "none of 1 keyframes shows" in found.reason


def test_the_callers_choice_of_keyframes_is_kept(true_map, views):
    wanted = [true_map.keyframes[-1].index]
    found = localise(true_map, SimulatedEstimator(views, size=80), views[17].image, views[17].camera, candidates=wanted)
    assert list(found.tried) == list(found.keyframes) == wanted
    assert errors(found, views[17].pose, Similarity.identity())[0] < 0.02


def test_the_wrong_question_is_refused(true_map, views):
    estimator, view = SimulatedEstimator(views), views[0]
    with pytest.raises(LocalisationError, match="map without keyframes"):
        localise(replace(true_map, keyframes=()), estimator, view.image, view.camera)
    with pytest.raises(LocalisationError, match=r"among keyframes \[99\]: the map has"):
        localise(true_map, estimator, view.image, view.camera, candidates=[99])
    with pytest.raises(LocalisationError, match="0 candidates"):
        localise(true_map, estimator, view.image, view.camera, candidates=0)


# ---- its parts -----------------------------------------------------------------------------------------------------------------------


def test_the_descriptor_finds_the_nearest_view_at_any_size_and_brightness(views):
    known = np.stack([image_descriptor(view.image) for view in views[::5]])
    np.testing.assert_allclose(np.linalg.norm(known, axis=1), 1.0, rtol=1e-5)
    for k in (1, 11, 24):
        darker = cv2.resize(np.uint8(0.7 * views[k].image), (320, 240))
        assert abs(int((known @ image_descriptor(darker)).argmax()) * 5 - k) <= 5
    assert np.isfinite(image_descriptor(np.zeros((40, 60, 3), np.uint8))).all()


def test_the_likeness_is_high_from_the_true_pose_and_low_from_others(true_map, views):
    keyframe, view = true_map.keyframes[0], views[17]
    trusted = keyframe.depth > 0
    assert likeness(keyframe, trusted, view.image, view.camera, view.pose) > 0.8
    assert likeness(keyframe, trusted, 255 - view.image, view.camera, view.pose) < -0.8
    aside = view.pose.copy()
    aside[:3, 3] += 0.5 * aside[:3, 0]
    assert likeness(keyframe, trusted, view.image, view.camera, aside) < 0.3
    assert likeness(keyframe, trusted, view.image, view.camera, view.pose @ np.diag([-1.0, 1.0, -1.0, 1.0])) is None
