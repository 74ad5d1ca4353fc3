"""Solids as affine maps to unit ones: a panel is the square |x|, |y| <= 1 at z = 0, a box the cube, a ball and a cylinder of radius 1.

A ray's parameter is the same before and after the map, so that one matrix product carries all rays to all solids of a scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Solids of each kind in every scene. All scenes have the same, so that a batch is one tensor; what a scene does not need lies buried.
PANELS, BOXES, SPHERES, CYLINDERS = 10, 18, 4, 6
WALLS = 4  # panels that have openings: the first ones
FIRST_BOX, FIRST_SPHERE, FIRST_CYLINDER = PANELS, PANELS + BOXES, PANELS + BOXES + SPHERES
SOLIDS = PANELS + BOXES + SPHERES + CYLINDERS
OPENINGS = 2  # of a panel
MATERIAL = 15  # numbers of a material; `materials.py` names them


@dataclass(frozen=True, eq=False)
class Scenes:
    """A batch of S scenes, in metres, z up. Solids in order: panels, boxes, spheres, cylinders; P of them."""

    to_unit: Tensor  # [S, P, 3, 4] float32: from the scene to the unit solid
    half: Tensor  # [S, P, 3] half extents in metres
    openings: Tensor  # [S, WALLS, OPENINGS, 4] middle x, y and half extents, in the unit panel
    material: Tensor  # [S, P + 2, MATERIAL]; the last ones are what is uneven and the sky
    field: Tensor  # [S, G, G] heights of the ground in metres, or [S, 0, 0]
    triangles: Tensor  # [S, T, 3, 4] from the scene to the unit triangle, or [S, 0, 3, 4]
    lamps: Tensor  # [S, L, 3] position in metres; the first one throws shadows
    lamp_colour: Tensor  # [S, L, 3] intensity: irradiance at 1 m, or of the sun anywhere
    lamp_falls: Tensor  # [S, L] 1 where light falls with the square of the distance, 0 for a sun
    ambient_up: Tensor  # [S, 3] irradiance from above
    ambient_down: Tensor  # [S, 3] irradiance from below
    sky: Tensor  # [S, 2, 3] radiance at the horizon and at the zenith

    def to(self, device: torch.device | str) -> Scenes:
        return Scenes(*(value.to(device, non_blocking=True) for value in vars(self).values()))

    def of(self, index: Tensor) -> Scenes:
        """The scenes at `index` [V], one for each view."""
        return Scenes(*(value[index] for value in vars(self).values()))
