"""The pose between two views, found in two ways: both against the truth and against each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Camera, Similarity, pose_matrix, rotation_angle
from dust3r_ros.matching import MatchingError, pose_difference, relative_pose
from dust3r_ros.simulation import SimulatedView


def predict(views, **errors) -> tuple[PairPrediction, PairPrediction, Camera]:
    estimator = SimulatedEstimator(views, **errors)
    tokens = {key: estimator.encode(view.image, view.camera) for key, view in enumerate(views)}
    forward, backward = estimator.estimate(tokens, [(0, 1), (1, 0)])
    return forward, backward, tokens[1].camera


def truth(views: list[SimulatedView]) -> np.ndarray:
    return np.linalg.inv(views[0].pose) @ views[1].pose


def scale_of(prediction: PairPrediction, view: SimulatedView) -> float:
    """Units of the pair to a metre."""
    return float(prediction.points_i[..., 2].median() / np.median(view.depth[::2, ::2]))


def test_true_pointmaps_give_the_true_pose_both_ways(views):
    forward, backward, camera = predict(views)
    found = relative_pose(forward, backward, camera)
    assert (found.chosen, found.inliers) == ("pnp", 1.0)
    for pose in (found.pose, found.pnp, found.procrustes):
        turned, moved = pose_difference(pose, truth(views))
        assert turned < 0.01
        assert moved < 0.1
        np.testing.assert_allclose(
            np.linalg.norm(pose[:3, 3]), np.linalg.norm(truth(views)[:3, 3]) * scale_of(forward, views[0]), rtol=0.02
        )
    assert found.rotation_degrees < 0.01
    assert found.translation_degrees < 0.1
    assert found.scale_ratio == pytest.approx(scale_of(forward, views[0]) / scale_of(backward, views[1]), rel=0.02)


def test_with_noise_and_outliers_both_ways_stay_near_and_say_how_near(views):
    forward, backward, camera = predict(views, noise=0.03, outliers=0.2)
    found = relative_pose(forward, backward, camera)
    assert pose_difference(found.pnp, truth(views))[0] < 0.5
    assert pose_difference(found.procrustes, truth(views))[0] < 0.5
    assert pose_difference(found.pose, truth(views))[1] < 6
    assert found.rotation_degrees == pytest.approx(np.degrees(rotation_angle(found.pnp[:3, :3].T @ found.procrustes[:3, :3])))
    assert 0.001 < found.rotation_degrees < 1.0


def test_a_pair_that_contradicts_the_other_shows_in_the_agreement(views):
    forward, backward, camera = predict(views)
    turn = torch.from_numpy(Similarity.from_matrix(pose_matrix(_about_y(20), np.zeros(3))).rotation.astype(np.float32))
    turned = replace(backward, points_i=backward.points_i @ turn.T, points_j=backward.points_j @ turn.T)
    found = relative_pose(forward, turned, camera)
    assert found.chosen == "pnp"
    assert found.rotation_degrees == pytest.approx(20, abs=0.1)


def test_where_the_pixels_contradict_the_points_procrustes_is_chosen(views):
    forward, backward, camera = predict(views)
    order = torch.randperm(60 * 80, generator=torch.Generator().manual_seed(0))
    mixed = [points.reshape(-1, 3)[order].reshape(60, 80, 3) for points in (forward.points_j, backward.points_i)]
    found = relative_pose(replace(forward, points_j=mixed[0]), replace(backward, points_i=mixed[1]), camera)
    assert found.chosen == "procrustes"
    assert pose_difference(found.pose, truth(views))[0] < 0.1


def test_without_the_pair_back_there_is_pnp_alone(views):
    forward, _, camera = predict(views)
    found = relative_pose(forward, None, camera)
    assert pose_difference(found.pose, truth(views))[0] < 0.01
    assert (found.procrustes, found.scale_ratio, found.rotation_degrees, found.translation_degrees) == (None, None, None, None)


def test_a_camera_upside_down_is_found_so(views):
    view = views[1]
    half_turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    rolled = replace(view, image=view.image[::-1, ::-1].copy(), depth=view.depth[::-1, ::-1].copy(), pose=view.pose @ half_turn)
    found = relative_pose(*predict([views[0], rolled]))
    assert pose_difference(found.pose, np.linalg.inv(views[0].pose) @ rolled.pose)[0] < 0.01
    assert rotation_angle(found.pose[:3, :3]) > 3.0


def test_identical_images_have_no_direction_of_translation(views):
    found = relative_pose(*predict([views[0], views[0]]))
    np.testing.assert_allclose(found.pose[:3, :3], np.eye(3), atol=1e-4)
    assert np.linalg.norm(found.pose[:3, 3]) < 1e-3
    assert found.rotation_degrees < 0.01
    assert found.translation_degrees is None


def test_where_nothing_is_known_there_is_no_pose(views):
    assert relative_pose(*predict(views, wrong_pairs=[(0, 1), (1, 0)])) is None
    forward, backward, camera = predict(views)
    line = torch.zeros_like(forward.points_j)
    line[..., 2] = torch.linspace(1, 2, camera.width)
    on_line = replace(forward, points_i=line, points_j=line)
    assert relative_pose(on_line, backward, camera) is None


def test_noise_for_points_is_believed_neither_way(views):
    forward, backward, camera = predict(views)
    generator = torch.Generator().manual_seed(3)

    def noise(prediction: PairPrediction) -> PairPrediction:
        points = [torch.randn(prediction.points_i.shape, generator=generator) + torch.tensor([0, 0, 4.0]) for _ in range(2)]
        return replace(prediction, points_i=points[0], points_j=points[1])

    assert relative_pose(noise(forward), noise(backward), camera) is None


def test_predictions_of_other_pairs_and_cameras_of_other_sizes_are_refused(views):
    forward, backward, camera = predict(views)
    with pytest.raises(MatchingError, match=r"pairs \(0, 1\) and \(0, 1\): give \(1, 0\) second"):
        relative_pose(forward, forward, camera)
    with pytest.raises(MatchingError, match="view 1 is 80x60, its camera 160x120"):
        relative_pose(forward, backward, views[1].camera)
    other = predict(views, size=40)[1]
    with pytest.raises(MatchingError, match="estimate both ways from the same tokens"):
        relative_pose(forward, other, camera)


def _about_y(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
