"""Matches between two views, from pointmaps and from descriptors, against a simulated room's truth.

The pointmaps are the flow estimator's, made from the two images. The descriptors are SIMULATED: functions of the true place in the world
that each pixel shows, plus noise, as a matching network would give at best. `python examples/matching.py picture.png` draws the first.
"""

import sys

import numpy as np
import torch

from dust3r_ros.estimators import create_estimator
from dust3r_ros.geometry import inverse_pose, transform_points
from dust3r_ros.matching import Matches, in_source, match_coarse_to_fine, match_descriptors, match_descriptors_fast, match_points
from dust3r_ros.simulation import room_sequence, world_descriptors

sequence = room_sequence(8, 160, 120)
first, second = sequence[0], sequence[5]  # 16 cm apart


def report(name, matches):
    """Pixels between each match and where the first view's place truly falls in the second view."""
    columns, rows = np.rint(matches.pixels_1).astype(int).T
    world = transform_points(first.pose, first.camera.unproject(matches.pixels_1) * first.depth[rows, columns, None])
    truth = second.camera.project(transform_points(inverse_pose(second.pose), world))
    error = np.linalg.norm(truth - matches.pixels_2, axis=1)
    print(f"{name} matches: {len(matches)}")
    print(f"{name} median error: {np.median(error):.2f} px")
    print(f"{name} within 2 px: {100 * np.mean(error < 2):.1f} %")


# From pointmaps: pixels whose points are each other's nearest in space.
estimator = create_estimator("flow", 160)
tokens = {0: estimator.encode(first.image, first.camera), 1: estimator.encode(second.image, second.camera)}
prediction = estimator.estimate(tokens, [(0, 1)])[0]
matches = match_points(prediction, min_confidence=3.0, step=2)
matches = in_source(matches, tokens[0], tokens[1])  # from the working images to the cameras' own pixels
report("points", matches)

# From descriptors: each pixel against each, and by a few walks from a grid.
one, two = (torch.from_numpy(world_descriptors(view, noise=0.2)) for view in (first, second))
exact = match_descriptors(one, two)
fast = match_descriptors_fast(one, two, step=4)
report("exact", exact)
report("fast", fast)


# Coarse to fine: reduced descriptors say which windows to match in full.
def describe(window_1, window_2):
    return window_1.cut(one), window_2.cut(two)  # a network would be run on the two crops


coarse = match_descriptors_fast(one[::4, ::4], two[::4, ::4], step=1)
coarse = Matches(coarse.pixels_1 * 4, coarse.pixels_2 * 4, coarse.confidence)
fine = match_coarse_to_fine(describe, coarse, size_1=(160, 120), size_2=(160, 120), side=80, step=4)
report("windows", fine)

if len(sys.argv) > 1:
    import cv2

    both = cv2.resize(np.vstack([first.image, second.image]), None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    for k in np.random.default_rng(2).permutation(len(matches))[:60]:
        start, end = (3 * pixel + 1 for pixel in (matches.pixels_1[k], matches.pixels_2[k] + (0, 120)))
        colour = tuple(int(c) for c in np.random.default_rng(k).integers(60, 256, 3))
        cv2.line(both, np.rint(start).astype(int).tolist(), np.rint(end).astype(int).tolist(), colour, 1, cv2.LINE_AA)
    cv2.imwrite(sys.argv[1], both[..., ::-1])
