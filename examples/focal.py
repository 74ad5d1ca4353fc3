"""The focal length of an image from its pointmaps, against a simulated room's truth.

The flow estimator is told the calibration and gives it back: that checks the sum, not the estimator. What a network would give, which is
not told, is SIMULATED: true points of three pairs off their rays by 2 % of their distance, of which one pair is wrong altogether.
"""

from dataclasses import replace

import torch

from dust3r_ros.estimators import create_estimator
from dust3r_ros.matching import focal_length
from dust3r_ros.simulation import room_sequence

sequence = room_sequence(8, 96, 72)
views = {0: sequence[0], 1: sequence[4], 2: sequence[7]}
truth = sequence[0].camera.fx

estimator = create_estimator("flow", 96)
tokens = {key: estimator.encode(view.image, view.camera) for key, view in views.items()}
predictions = estimator.estimate(tokens, [(0, 1), (0, 2)])
found = focal_length(predictions, view=0, camera=tokens[0].camera)
print(f"flow focal error: {100 * abs(found.in_source(tokens[0]) / truth - 1):.4f} %")


def as_a_network(view, j, generator):
    """A prediction of the pair (0, j) whose points left their rays by 2 % of their distance."""
    points = torch.from_numpy(view.camera.rays() * view.depth[..., None])
    noise = 0.02 * torch.randn(points.shape, generator=generator) * torch.linalg.norm(points, dim=-1, keepdim=True)
    sure = torch.full(points.shape[:2], 5.0)
    return replace(predictions[0], j=j, points_i=points + noise, points_j=points, confidence_i=sure, confidence_j=sure)


generator = torch.Generator().manual_seed(0)
noisy = [as_a_network(views[0], j, generator) for j in (1, 2, 3)]
noisy[2] = replace(noisy[2], points_i=noisy[2].points_i * torch.tensor([1.4, 1.4, 1.0]))  # one pair is wrong
found = focal_length(noisy, view=0, camera=tokens[0].camera)
print(f"noisy focal error: {100 * abs(found.in_source(tokens[0]) / truth - 1):.2f} %")
print(f"noisy spread between pairs: {100 * found.spread:.2f} %")
print(f"wrong pair alone, error: {100 * abs(focal_length(noisy[2:], 0, tokens[0].camera).in_source(tokens[0]) / truth - 1):.1f} %")
