"""Points that hide in front of what other views see lose their confidence: floaters and ghost layers.

The DUSt3R and MASt3R papers do not describe it; the rule is our own. A camera that sees a surface has looked through all the space before
it, and a point that another view puts there contradicts it. As in the alignment's objective a statement weighs its log confidence: a view's
own for its point; for it, what the views weigh that see the same surface; against it, those that see through it. Outvoted, nothing is known
of the point. Between two views alone this says: the less confident one loses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool2d

from dust3r_ros.alignment.align import AlignmentError
from dust3r_ros.alignment.problem import KNOWN


def clean_confidences(
    depths: Sequence[Tensor],
    confidences: Sequence[Tensor],
    poses: NDArray[np.float64],
    focals: NDArray[np.float64] | Sequence[float],
    principal_points: Sequence[tuple[float, float]] | None = None,
    neighbours: Sequence[Sequence[int]] | None = None,
    tolerance: float = 0.03,
) -> list[Tensor]:
    """The confidences, with 1 (nothing is known) for points that other views outvote, and where depth or confidence was not known.

    `depths`, `confidences`: N of [H, W], along z in any unit and >= 1, on one device; views may differ in size. 0 or anything not finite
    says that nothing is known. `poses` [N, 4, 4] camera to world, OpenCV axes, in the depths' unit; `focals` N, pixels;
    `principal_points` N of (cx, cy), pixels, the image's middle unless given. View n is compared with the views at the positions
    `neighbours[n]`, or with all others. `tolerance`: share of the depth by which two views of one surface may differ.

    A view speaks against a point only if all 3x3 pixels around where it lands are farther than the tolerance, and then with the least of
    their confidences: next to an edge it keeps silent. It speaks for a point if the pixel where it lands agrees. What lands outside,
    behind the camera or behind the view's surface is no evidence. Every view is judged by the confidences given, so the order of the
    views does not matter (but to the last digit of a sum). The inputs stay as they are; the result is float32 on their device.

    Raises AlignmentError for lists, shapes or neighbours that do not fit each other, or a tolerance outside 0..1.
    """
    _check(depths, confidences, poses, focals, principal_points, neighbours, tolerance)
    count = len(depths)
    looks_into = [set(range(count) if neighbours is None else neighbours[n]) - {n} for n in range(count)]
    cameras = [
        (float(focals[n]), *(principal_points[n] if principal_points is not None else (depths[n].shape[1] / 2, depths[n].shape[0] / 2)))
        for n in range(count)
    ]
    with torch.no_grad():
        weights = [_log_confidence(depth, confidence) for depth, confidence in zip(depths, confidences, strict=True)]
        balances = [weight.clone() for weight in weights]
        for m in range(count):
            judged = [n for n in range(count) if m in looks_into[n]]
            if not judged:
                continue
            seen = _what_it_says(depths[m], weights[m])
            for n in judged:
                to_other = np.linalg.inv(poses[m]) @ poses[n]
                _vote(balances[n], depths[n], weights[n], cameras[n], to_other, cameras[m], seen, tolerance)
        # A confidence of e^balance would lie below 1.
        return [
            torch.where((balance > 0) & (weight > 0), confidence.float(), 1.0)
            for balance, weight, confidence in zip(balances, weights, confidences, strict=True)
        ]


def confident(depth: Tensor, confidence: Tensor, threshold: float = KNOWN, sky: NDArray[np.bool_] | Tensor | None = None) -> Tensor:
    """[H, W] bool: pixels to build with. Their depth is known, their confidence is above 1 and at least `threshold`; not `sky` [H, W]."""
    mask = (_log_confidence(depth, confidence) > 0) & (confidence >= threshold)
    return mask if sky is None else mask & ~torch.as_tensor(sky, device=mask.device)


def confidence_threshold(confidences: Sequence[Tensor], share: float = 0.1) -> float:
    """The confidence that all but the least sure `share` of the known pixels of all views reach; 1 if none is known.

    One for all views: a view that sees nothing well shall lose more than the others. Networks differ in how large their confidences are,
    so that a share carries over from one to another where a number does not.

    Raises AlignmentError for a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise AlignmentError(f"a share of {share} of the pixels cannot be left out: give one between 0 and 1, such as 0.1")
    known = torch.cat([c[(c > KNOWN) & c.isfinite()].float() for c in confidences]) if confidences else torch.empty(0)
    return float(known.kthvalue(1 + int(share * (len(known) - 1))).values) if len(known) else 1.0


def _log_confidence(depth: Tensor, confidence: Tensor) -> Tensor:
    """[H, W] float32 log confidence, 0 where depth or confidence says nothing."""
    known = depth.isfinite() & (depth > 0) & confidence.isfinite() & (confidence > KNOWN)
    return torch.where(known, confidence.float(), 1.0).log()


def _what_it_says(depth: Tensor, weight: Tensor) -> Tensor:
    """[4, H, W] of the view looked into: depth, log confidence, and the least of each in the 3x3 pixels around; 0 where unknown."""
    own = torch.stack([torch.where(weight > 0, depth.float(), 0.0), weight])
    return torch.cat([own, -max_pool2d(-own, 3, stride=1, padding=1)])


def _vote(
    balance: Tensor,  # [H, W], changed
    depth: Tensor,
    weight: Tensor,
    camera: tuple[float, float, float],  # focal, cx, cy
    to_other: NDArray[np.float64],  # [4, 4]
    other: tuple[float, float, float],
    seen: Tensor,
    tolerance: float,
) -> None:
    """Adds what the other view says for the points of this one, and takes away what it says against them."""
    height, width = seen.shape[-2:]
    rows, columns = torch.nonzero(weight > 0, as_tuple=True)
    z = depth[rows, columns].float()
    points = torch.stack([(columns - camera[1]) / camera[0] * z, (rows - camera[2]) / camera[0] * z, z])
    rotation, translation = (torch.from_numpy(part.astype(np.float32)).to(z.device) for part in (to_other[:3, :3], to_other[:3, 3:]))
    x, y, z = rotation @ points + translation
    ahead = z > 0
    u = torch.where(ahead, other[0] * x / z + other[1], -1.0).round()
    v = torch.where(ahead, other[0] * y / z + other[2], -1.0).round()
    lands = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    rows, columns, z = rows[lands], columns[lands], z[lands]
    there, sure, nearest, least_sure = seen.flatten(1)[:, v[lands].long() * width + u[lands].long()]
    agrees = torch.where((z - there).abs() <= tolerance * there, sure, 0.0)
    through = torch.where(z < (1 - tolerance) * nearest, least_sure, 0.0)
    balance[rows, columns] += agrees - through


def _check(
    depths: Sequence[Tensor],
    confidences: Sequence[Tensor],
    poses: NDArray[np.float64],
    focals: NDArray[np.float64] | Sequence[float],
    principal_points: Sequence[tuple[float, float]] | None,
    neighbours: Sequence[Sequence[int]] | None,
    tolerance: float,
) -> None:
    count = len(depths)
    for name, given in (
        ("confidences", confidences),
        ("poses", poses),
        ("focals", focals),
        ("principal_points", principal_points),
        ("neighbours", neighbours),
    ):
        if given is not None and len(given) != count:
            raise AlignmentError(f"{name} has {len(given)} entries for {count} depths: give one for each view")
    for n, (depth, confidence) in enumerate(zip(depths, confidences, strict=True)):
        if depth.ndim != 2 or depth.shape != confidence.shape:
            raise AlignmentError(
                f"view {n}: depth is {tuple(depth.shape)} and confidence {tuple(confidence.shape)}: both have to be the same [H, W]"
            )
    for n, others in enumerate(neighbours or ()):
        if outside := [m for m in others if not 0 <= m < count]:
            raise AlignmentError(f"neighbours[{n}] names view {outside[0]} of {count}: positions count from 0")
    if not 0 < tolerance < 1:
        raise AlignmentError(f"a tolerance of {tolerance} is not a share of the depth: give one between 0 and 1, such as 0.03")
