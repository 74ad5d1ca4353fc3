"""Depth of one picture, by pairing it with itself.

The flow estimator needs parallax and is refused. What a network would give is SIMULATED: the true depth on a scale of its own, with an
error that varies smoothly over the image by 5 % and noise of 1 %.
"""

import cv2
import numpy as np
import torch

from dust3r_ros.estimators import PairPrediction, Tokens, create_estimator
from dust3r_ros.geometry import working_camera
from dust3r_ros.matching import MatchingError, monocular_depth
from dust3r_ros.simulation import room_sequence

view = room_sequence(1, 96, 72)[0]


class SimulatedNetwork:
    """Knows the view's true depth, and what errors to make."""

    name = "simulated"

    def encode(self, image, camera):
        target = working_camera(camera, 64)
        return Tokens(camera, target, cv2.resize(image, (target.width, target.height), interpolation=cv2.INTER_AREA))

    def estimate(self, views, pairs):
        camera = views[0].camera
        rng = np.random.default_rng(0)
        depth = cv2.resize(view.depth, (camera.width, camera.height), interpolation=cv2.INTER_NEAREST)
        smooth = cv2.resize(rng.normal(0, 0.05, (3, 4)).astype(np.float32), (camera.width, camera.height), interpolation=cv2.INTER_CUBIC)
        wrong = 0.4 * depth * (1 + smooth + 0.01 * rng.standard_normal(depth.shape, np.float32))
        points = torch.from_numpy(camera.rays() * wrong[..., None])
        sure = torch.full(points.shape[:2], 5.0)
        return [PairPrediction(i, j, points, points, sure, sure) for i, j in pairs]


try:
    monocular_depth(create_estimator("flow"), view.image, view.camera)
except MatchingError as error:
    print(f"flow is refused: {error}")

estimator = SimulatedNetwork()
found = monocular_depth(estimator, view.image, view.camera)
ratio = found.depth / view.depth  # both of the camera's own pixels
error = np.abs(ratio / np.median(ratio) - 1)
print(f"known pixels: {100 * np.mean(found.depth > 0):.1f} %")
print(f"median depth error after one scale: {100 * np.median(error):.2f} %")
print(f"focal error: {100 * abs(found.focal / view.camera.fx - 1):.3f} %")
