"""Inverse depth of every pixel of one view from its flow into another one, and how sure it is.

With `a = R d` (d the pixel's ray, z = 1), `A = t_xy - x2 t_z`, `B = x2 a_z - a_xy` (x2 the normalised position in the other view) the
projection equation is linear in the inverse depth: `A rho = B`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.flow.dense import Flow
from dust3r_ros.estimators.flow.view import View

BASE_SIGMA = 0.1  # pixels: the flow at its best
TEXTURE_SIGMA = 0.525  # pixels at a structure tensor of one grey level squared
DISAGREEMENT_SHARE = 0.5  # of the forward-backward error goes into sigma
MAX_DISAGREEMENT = 1.5  # pixels forward-backward
MAX_EPIPOLAR = 1.5  # pixels off the epipolar line
BEHIND = 0.05
BORROWED_WITHIN = 1.5  # pixels between a pixel and the point that was found for it in the other view


@dataclass(frozen=True, eq=False)
class Triangulation:
    inverse_depth: NDArray[np.float32]  # [h, w]
    precision: NDArray[np.float32]  # [h, w] 1 / sigma^2 of the inverse depth; 0 where nothing is known


def triangulate(view: View, other: View, flow: Flow, rotation: NDArray[np.float64], translation: NDArray[np.float64]) -> Triangulation:
    """`rotation`, `translation`: a point p of `view` is `rotation @ p + translation` in `other`."""
    r = rotation.astype(np.float32)
    tx, ty, tz = translation.astype(np.float32)
    camera = other.camera
    focal = np.float32(other.focal)
    dx, dy = view.rays[..., 0], view.rays[..., 1]
    ax = r[0, 0] * dx + r[0, 1] * dy + r[0, 2]
    ay = r[1, 0] * dx + r[1, 1] * dy + r[1, 2]
    az = r[2, 0] * dx + r[2, 1] * dy + r[2, 2]
    x2 = (flow.x - np.float32(camera.cx)) * np.float32(1 / camera.fx)
    y2 = (flow.y - np.float32(camera.cy)) * np.float32(1 / camera.fy)
    line_x, line_y = tx - x2 * tz, ty - y2 * tz  # A
    bx, by = x2 * az - ax, y2 * az - ay  # B
    squared = line_x * line_x + line_y * line_y + np.float32(1e-18)
    inverse_depth = (line_x * bx + line_y * by) / squared
    length = np.sqrt(squared)
    depth_scale = az + inverse_depth * tz  # z in the other view times the inverse depth
    valid = (flow.error < MAX_DISAGREEMENT) & (depth_scale > BEHIND) & (inverse_depth > 0)
    safe = np.where(valid, depth_scale, np.float32(1))
    off_line = focal * (line_x * by - line_y * bx) / (length * safe)
    valid &= np.abs(off_line) < MAX_EPIPOLAR
    gradient = focal * length / safe  # pixels along the epipolar line per unit of inverse depth
    # The line's direction seen in this view, where the texture was measured: turned back by the roll between the views.
    ux, uy = (r[0, 0] * line_x + r[1, 0] * line_y) / length, (r[0, 1] * line_x + r[1, 1] * line_y) / length
    xx, xy, yy = view.tensor
    texture = ux * ux * xx + 2 * ux * uy * xy + uy * uy * yy
    error = np.where(valid, flow.error, np.float32(0))
    variance = (
        np.float32(BASE_SIGMA**2)
        + np.float32(TEXTURE_SIGMA**2) / (texture + np.float32(0.5))
        + (np.float32(DISAGREEMENT_SHARE) * error) ** 2
        + off_line * off_line
    )
    return Triangulation(inverse_depth, np.where(valid, gradient * gradient / variance, np.float32(0)))


def borrow(
    view: View,
    other: View,
    flow: Flow,
    rotation: NDArray[np.float64],
    translation: NDArray[np.float64],
    depth: NDArray[np.float32],
    sigma: NDArray[np.float32],
) -> Triangulation:
    """What is already known in `other` (its depth along z and relative sigma, [h, w]; sigma 1 or more: not known), seen from `view`.

    It needs no parallax between the two: a camera that only turns keeps what it knew.
    """
    camera = other.camera
    z = cv2.remap(depth, flow.x, flow.y, cv2.INTER_NEAREST, borderValue=0)
    relative = cv2.remap(sigma, flow.x, flow.y, cv2.INTER_NEAREST, borderValue=1)
    tx, ty, tz = translation.astype(np.float32)
    x = (flow.x - np.float32(camera.cx)) * np.float32(1 / camera.fx) * z - tx
    y = (flow.y - np.float32(camera.cy)) * np.float32(1 / camera.fy) * z - ty
    z = z - tz
    r = rotation.astype(np.float32)
    here = [r[0, k] * x + r[1, k] * y + r[2, k] * z for k in range(3)]  # the point in this view's frame
    front = here[2] > 1e-6
    safe = np.where(front, here[2], np.float32(1))
    off_x = view.camera.fx * (here[0] / safe - view.rays[..., 0])
    off_y = view.camera.fy * (here[1] / safe - view.rays[..., 1])
    valid = front & (flow.error < MAX_DISAGREEMENT) & (relative < 1) & (off_x * off_x + off_y * off_y < BORROWED_WITHIN**2)
    inverse_depth = np.where(valid, 1 / safe, np.float32(0))
    return Triangulation(inverse_depth, np.where(valid, 1 / np.maximum((relative * inverse_depth) ** 2, np.float32(1e-30)), np.float32(0)))
