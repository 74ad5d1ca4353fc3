"""Keyframes whose cameras are fixed to one another: where one is follows from the other, and depth from what is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from support.rig_walk import APART, RigEstimator, rig_views

from dust3r_ros.alignment import AlignedView, Aligner, Mount
from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.geometry import Similarity, inverse_pose, rotation_angle

BACK = inverse_pose(APART["front"]) @ APART["back"]  # in the front camera


class Scene:
    """Two moments of two cameras that never see the same: front 0 and 1, back 2 and 3."""

    def __init__(self) -> None:
        views = rig_views(APART, 4)
        self.views = [views["front"][0], views["front"][3], views["back"][0], views["back"][3]]
        self.estimator = RigEstimator(views, size=160, noise=0.01)
        self.tokens: list[Tokens] = [self.estimator.encode(view.image, view.camera) for view in self.views]

    def pairs(self, i: int, j: int) -> list[PairPrediction]:
        return list(self.estimator.estimate(dict(enumerate(self.tokens)), [(i, j), (j, i)]))

    def add(self, aligner: Aligner, n: int, pairs: Sequence[PairPrediction], mount: Mount | None = None) -> dict[int, AlignedView] | None:
        camera = self.tokens[n].camera
        return aligner.add(n, pairs, camera.fx, (camera.cx, camera.cy), mount)

    def metric(self) -> Aligner:
        """The front camera's two keyframes, in metres."""
        aligner = Aligner()
        self.add(aligner, 0, [])
        found = self.add(aligner, 1, self.pairs(0, 1))
        assert found is not None
        true = inverse_pose(self.views[0].pose) @ self.views[1].pose
        to_first = inverse_pose(found[0].pose)
        size = np.linalg.norm(true[:3, 3]) / np.linalg.norm((to_first @ found[1].pose)[:3, 3])
        aligner.rescale(Similarity(float(size), to_first[:3, :3], size * to_first[:3, 3]))
        return aligner


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def test_a_mounted_camera_waits_for_a_pair_and_then_has_its_place_and_depth_in_metres(scene: Scene) -> None:
    aligner = scene.metric()
    assert scene.add(aligner, 2, [], Mount(0, BACK)) == {}
    found = scene.add(aligner, 3, scene.pairs(2, 3), Mount(1, BACK))
    assert found is not None
    for back, front in ((2, 0), (3, 1)):
        off = inverse_pose(BACK) @ inverse_pose(found[front].pose) @ found[back].pose
        assert np.linalg.norm(off[:3, 3]) < 0.02
        assert rotation_angle(off[:3, :3]) < 0.01
        depth = found[back].depth
        assert depth is not None
        assert np.median(depth) == pytest.approx(np.median(scene.views[back].depth), rel=0.12)  # by a way of a tenth of the depth


def test_the_mounts_hold_the_whole_graph_together_where_no_pair_does(scene: Scene) -> None:
    aligner = scene.metric()
    scene.add(aligner, 2, [], Mount(0, BACK))
    scene.add(aligner, 3, scene.pairs(2, 3), Mount(1, BACK))
    joined = {(link.i, link.j): link for link in aligner.links}
    assert {(0, 2), (1, 3)} <= set(joined)
    np.testing.assert_allclose(joined[1, 3].relative.rotation, BACK[:3, :3], atol=1e-9)
    scale = aligner.frames[1].scale
    np.testing.assert_allclose(scale * joined[1, 3].relative.translation, BACK[:3, 3], atol=1e-9)
    for keyframe in (0, 1):  # they leave the window, and the links stay
        aligner.retire(keyframe)
    assert {(0, 2), (1, 3)} <= {(link.i, link.j) for link in aligner.links}


def test_a_pair_of_cameras_that_never_see_the_same_places_nothing_and_changes_nothing(scene: Scene) -> None:
    aligner = scene.metric()
    before = aligner.frames
    assert scene.add(aligner, 2, scene.pairs(0, 2), Mount(0, BACK)) is None
    after = aligner.frames
    assert set(after) == set(before)
    assert all(np.array_equal(after[n].matrix, before[n].matrix) for n in before)
    assert scene.add(aligner, 2, [], Mount(0, BACK)) == {}  # it may wait all the same
