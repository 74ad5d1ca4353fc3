"""Floaters and a ghost layer taken out of a scene by what other views see, against a simulated room's truth.

Six true views are spoilt: 2 % noise, patches that float at 60 % of the depth, one view whose middle is 10 % short. What is spoilt is less
confident than the rest (SIMULATED: 2 or 3 against 4 to 8). `python examples/clean.py picture.png` draws the cloud before and after.
"""

import sys
from dataclasses import replace

import cv2
import numpy as np
import torch

from dust3r_ros.alignment import clean_confidences, confidence_threshold, confident, sky_mask
from dust3r_ros.simulation import room_sequence

views = room_sequence(30, 160, 120)[::5]
rng = np.random.default_rng(0)
depths, confidences, spoilt = [], [], []
for n, view in enumerate(views):
    floats, ghost = np.zeros((2, 120, 160), bool)
    for row, column in zip(rng.integers(30, 90, 4), rng.integers(30, 120, 4), strict=True):
        floats[row : row + 9, column : column + 9] = True
    if n == 1:
        ghost[30:80, 40:110] = True
        ghost &= ~floats
    wrong = np.where(floats, 0.6, np.where(ghost, 0.9, 1.0)) * (1 + 0.02 * rng.standard_normal(ghost.shape))
    sure = np.where(floats, 3.0, np.where(ghost, 2.0, rng.uniform(4, 8, ghost.shape)))
    depths.append(torch.from_numpy((view.depth * wrong).astype(np.float32)))
    confidences.append(torch.from_numpy(sure.astype(np.float32)))
    spoilt.append(np.where(floats, "floater", np.where(ghost, "ghost", "honest")))

# These six are what `align` returns: a scene's depths, confidences, poses and focal lengths.
poses, focals = np.stack([view.pose for view in views]), [view.camera.fx for view in views]
centres = [(view.camera.cx, view.camera.cy) for view in views]
cleaned = clean_confidences(depths, confidences, poses, focals, centres)

kind, lost = np.stack(spoilt), (torch.stack(cleaned) == 1).numpy()
print(f"floaters found: {100 * lost[kind == 'floater'].mean():.1f} %")
print(f"ghost layer found: {100 * lost[kind == 'ghost'].mean():.1f} %")
print(f"honest pixels kept: {100 * (1 - lost[kind == 'honest'].mean()):.2f} %")

threshold = confidence_threshold(cleaned, share=0.1)
masks = [confident(depth, sure, threshold, sky_mask(view.image)) for depth, sure, view in zip(depths, cleaned, views, strict=True)]
print(f"threshold: {threshold:.2f}")
print(f"pixels to build with: {100 * torch.stack(masks).float().mean():.1f} %")
print(f"sky in the room: {sum(int(sky_mask(view.image).sum()) for view in views)} pixels")

# The same room without its upper part, for which a sky is painted.
outdoors, above = views[0].image.copy(), np.arange(120)[:, None] < 40 + 10 * np.sin(np.arange(160) / 20)
outdoors[above] = (np.linspace((70, 120, 200), (150, 190, 230), 120)[:, None] + rng.normal(0, 3, (120, 160, 3)))[above]
print(f"painted sky found: {100 * sky_mask(outdoors)[above].mean():.1f} %")

if len(sys.argv) > 1:
    from dust3r_ros.geometry import transform_points
    from dust3r_ros.io.render import render_cloud, standard_views
    from dust3r_ros.mapping.types import PointCloud

    def cloud_of(chosen):
        """The chosen pixels of all views."""
        parts = []
        for view, depth, sure, mask in zip(views, depths, confidences, chosen, strict=True):
            points = transform_points(view.pose, view.camera.rays()[mask] * depth.numpy()[mask][:, None])
            parts.append(PointCloud(points.astype(np.float32), view.image[mask], sure.numpy()[mask]))
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("points", "colors", "confidence")}
        return replace(parts[0], **joined)

    before = cloud_of([np.ones((120, 160), bool)] * len(views))
    after = cloud_of([(sure > 1).numpy() for sure in cleaned])
    seen_from = {view.name: view.pose for view in standard_views(before, poses)}
    rows = [np.hstack([render_cloud(cloud, seen_from[name], 560, 400) for cloud in (before, after)]) for name in seen_from]
    cv2.imwrite(sys.argv[1], np.vstack(rows)[..., ::-1])
