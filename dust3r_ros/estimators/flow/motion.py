"""How far the camera moved between two views: what decides on a keyframe."""

from __future__ import annotations

from dataclasses import dataclass

from dust3r_ros.estimators.flow.correspondence import corresponding_rays
from dust3r_ros.estimators.flow.optical import match
from dust3r_ros.estimators.flow.pair_pose import fit_rotation
from dust3r_ros.estimators.flow.view import View
from dust3r_ros.estimators.protocol import Tokens


@dataclass(frozen=True)
class Motion:
    parallax: float  # pixels of the working image: median of what the best pure rotation leaves of the flow; 0 with too little flow
    overlap: float  # share of the first view's pixels found again, forward-backward consistent


def motion_between(first: Tokens, second: Tokens) -> Motion:
    """Compare two views by dense flow. Nothing is kept in the tokens."""
    a, b = first.features, second.features
    assert isinstance(a, View)
    assert isinstance(b, View)
    forth, _ = match(a, b)
    rays_1, rays_2 = corresponding_rays(a, b, forth)
    parallax = fit_rotation(rays_1, rays_2, b.focal)[1] if len(rays_1) >= 8 else 0.0
    return Motion(parallax, forth.overlap)
