"""Places among pictures that look alike: keyframes that stand near each other are one place, however many of them there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dust3r_ros.mapping.types import Keyframe, Standpoint

NEAR = 0.5  # of what a keyframe typically looks at: keyframes within it are of one place
FACING = 0.5  # cosine of the angle between viewing directions above which they look the same way
RIVAL = 0.3  # of likeness: a place is a rival though its pictures were taken half a metre beside, which costs this much
OF_A_PLACE, PLACES = 3, 4  # keyframes and places that are compared at most
LOOKED_AT = 200  # of the ranking


@dataclass(frozen=True)
class Place:
    keyframes: tuple[int, ...]  # the most alike first
    alike: float  # of the first, -1..1


def distinct_places(ranked: Sequence[tuple[int, float]], standpoints: Mapping[int, Standpoint]) -> list[Place]:
    """The most alike place, and those that are nearly as alike. `ranked`: (keyframe, how alike), the most alike first."""
    found: list[tuple[list[int], float]] = []
    for index, alike in ranked[:LOOKED_AT]:
        if index not in standpoints:
            continue
        here = standpoints[index]
        home = next((members for members, _ in found if _same_place(standpoints[members[0]], here)), None)
        if home is not None:
            if len(home) < OF_A_PLACE:
                home.append(index)
        elif len(found) < PLACES and (not found or alike >= found[0][1] - RIVAL):
            found.append(([index], alike))
    return [Place(tuple(members), alike) for members, alike in found]


def typical_depth(keyframe: Keyframe) -> float:
    """Median of the known depths, map units."""
    known = keyframe.depth[keyframe.depth > 0]
    return float(np.median(known)) if len(known) else 1.0


def standpoint(keyframe: Keyframe) -> Standpoint:
    """The keyframe without its picture."""
    return Standpoint(keyframe.index, keyframe.stamp, keyframe.pose, keyframe.source, typical_depth(keyframe))


def _same_place(one: Standpoint, other: Standpoint) -> bool:
    apart = float(np.linalg.norm(one.pose[:3, 3] - other.pose[:3, 3]))
    return apart < NEAR * one.depth and float(one.pose[:3, 2] @ other.pose[:3, 2]) > FACING
