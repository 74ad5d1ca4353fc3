"""Streets: house fronts on both sides, pavements, cars, trees, lamp posts, signs, under the sky."""

from __future__ import annotations

import numpy as np

from dust3r_ros.training.scenes.drafting import Draft, Lighting, at
from dust3r_ros.training.scenes.lighting import outdoors
from dust3r_ros.training.scenes.materials import Groups, draw
from dust3r_ros.training.scenes.standpoints import TRIES, Standpoints


def streets(draft: Draft, groups: Groups) -> tuple[Lighting, Standpoints]:
    """Along x; the road in the middle."""
    n, rng = draft.count, draft.rng
    road, pavement = draft.uniform(2.5, 5.0), draft.uniform(1.2, 4.0)
    front = road + pavement
    zero = np.zeros(n)
    draft.floor(at(zero, zero, zero), 150.0, 150.0, draw(groups, rng, n, ["noise", "spot", "photo"], (2.0, 8.0), (0.35, 0.8), 0.0))
    draft.floor(
        at(zero, zero, zero + 0.03), 150.0, road, draw(groups, rng, n, ["noise", "noise", "brick", "tile"], (1.5, 6.0), (0.25, 0.6), 0.1)
    )
    for side in (-1, 1):
        kerb = np.stack([zero + 150.0, pavement / 2, zero + 0.08], 1)
        stones = draw(groups, rng, n, ["tile", "brick", "noise"], (0.8, 4.0), (0.4, 0.9), 0.05)
        draft.box(at(zero, side * (road + pavement / 2), zero), kerb, stones)
        start = draft.uniform(-26, -16)
        for _ in range(4):  # houses, wall to wall or with a gap
            size = np.stack([draft.uniform(3.0, 8.0), draft.uniform(3.0, 6.0), draft.uniform(2.5, 8.0)], 1)
            place = at(start + size[:, 0], side * (front + size[:, 1] + draft.uniform(0, 0.6)), size[:, 2])
            facade = draw(groups, rng, n, ["window", "window", "window", "brick", "photo"], (4.0, 9.0), (0.5, 1.1), 0.05)
            draft.box(place, size, facade)
            start = start + 2 * size[:, 0] + np.where(draft.chance(0.4), draft.uniform(0.5, 4.0), 0.0)
    for lane in (-1, 1, 1):  # cars
        body = np.stack([draft.uniform(1.6, 2.4), draft.uniform(0.75, 0.95), draft.uniform(0.25, 0.4)], 1)
        place = at(draft.uniform(-14, 14), lane * (road - draft.uniform(1.0, 1.6)), body[:, 2] + 0.3)
        there = draft.chance(0.7)
        paint = draw(groups, rng, n, ["noise", "noise", "writing", "stripe"], (1.5, 4.0), (0.3, 1.1), 0.8)
        draft.box(place, body, paint, present=there)
        cabin = body * np.stack([draft.uniform(0.45, 0.75), zero + 0.88, draft.uniform(0.8, 1.4)], 1)
        draft.box(
            place + at(draft.uniform(-0.3, 0.1), zero, body[:, 2] + cabin[:, 2]),
            cabin,
            draw(groups, rng, n, ["window", "noise"], (1.0, 2.0), gloss=0.8),
            present=there,
        )
    for number, side in enumerate((-1, 1, -1, 1)):  # trees
        x, trunk = draft.uniform(-12, 12), draft.uniform(0.1, 0.25)
        place, there = side * (road + draft.uniform(0.3, 0.6) * pavement), draft.chance(0.7)
        height = draft.uniform(1.0, 1.8)
        bark = draw(groups, rng, n, ["noise", "stripe"], (0.3, 1.0), (0.2, 0.6), 0.0)
        draft.cylinder(at(x, place, height), np.stack([trunk, trunk, height], 1), bark, there)
        crown = draft.uniform(0.8, 1.9)[:, None] * rng.uniform(0.8, 1.25, (n, 3))
        leaves = draw(groups, rng, n, ["spot", "noise", "photo"], (0.8, 3.0), (0.3, 0.9), 0.0)
        leaves[:, 7:10] *= np.where(draft.chance(0.8)[:, None], [0.55, 0.9, 0.35], 1.0)
        draft.sphere(at(x, place, 2 * height + 0.7 * crown[:, 2]), crown, leaves, present=there)
        if number < 2:
            post = np.stack([zero + 0.07, zero + 0.07, draft.uniform(1.5, 3.0)], 1)
            draft.cylinder(
                at(draft.uniform(-12, 12), side * (road + 0.4), post[:, 2]),
                post,
                draw(groups, rng, n, ["noise", "stripe"], (0.3, 1.0)),
                draft.chance(0.7),
            )
    for side in (-1, 1):  # signs
        size = np.stack([draft.uniform(0.3, 0.6), zero + 0.04, draft.uniform(0.3, 0.7)], 1)
        sign = draw(groups, rng, n, ["writing", "photo", "check"], (0.6, 1.4), (0.7, 1.2))
        draft.box(
            at(draft.uniform(-8, 8), side * (road + 0.5), draft.uniform(0.8, 2.2)), size, sign, draft.uniform(0, np.pi), draft.chance(0.7)
        )
    return outdoors(draft, groups), _standpoints(draft, road, pavement)


def _standpoints(draft: Draft, road: np.ndarray, pavement: np.ndarray) -> Standpoints:
    n, rng = draft.count, draft.rng
    reach = road + 0.8 * pavement
    positions = np.stack(
        [rng.uniform(-12, 12, (n, TRIES)), rng.uniform(-1, 1, (n, TRIES)) * reach[:, None], rng.uniform(0.8, 2.5, (n, TRIES))], -1
    )
    angle = rng.uniform(-1.1, 1.1, (n, TRIES)) + np.pi * (positions[..., 0] > 0)
    distance = rng.uniform(4, 12, (n, TRIES))
    targets = positions + np.stack([distance * np.cos(angle), distance * np.sin(angle), rng.uniform(-1.2, 1.5, (n, TRIES))], -1)
    edge = np.stack([np.full(n, 16.0), reach], 1)
    low, high = np.concatenate([-edge, np.full((n, 1), 0.3)], 1), np.concatenate([edge, np.full((n, 1), 4.0)], 1)
    return Standpoints(positions, targets, low, high, np.full(n, 3.0))
