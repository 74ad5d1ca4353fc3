"""Corridors: long and narrow, doors along the walls with rooms behind, cupboards, pipes, pictures, things that stand about."""

from __future__ import annotations

import numpy as np

from dust3r_ros.training.scenes.drafting import Draft, Lighting, at
from dust3r_ros.training.scenes.lighting import indoors
from dust3r_ros.training.scenes.materials import FLOOR, THING, WALL, Groups, draw, glowing
from dust3r_ros.training.scenes.standpoints import TRIES, Standpoints

DOOR = 1.02  # half the height of a door, metres


def corridors(draft: Draft, groups: Groups) -> tuple[Lighting, Standpoints]:
    """Along x; the rooms behind the doors are one deep niche on either side."""
    n, rng = draft.count, draft.rng
    half = np.stack([draft.uniform(4.0, 12.0), draft.uniform(0.75, 1.6), draft.uniform(1.15, 1.6)], 1)
    length, width, up = half.T
    _shell(draft, groups, length, width, up)
    for side in (-1, 1):
        for _ in range(3):  # cupboards and benches
            size = np.stack([draft.uniform(0.2, 0.7), draft.uniform(0.08, 0.25), np.exp(draft.uniform(np.log(0.2), np.log(1.0)))], 1)
            place = at(length * draft.uniform(-0.95, 0.95), side * (width - size[:, 1]), size[:, 2])
            draft.box(place, size, draw(groups, rng, n, ["board", "noise", "stripe", "photo"], (0.4, 2.0)), present=draft.chance(0.6))
        for _ in range(3):  # pictures and notices
            size = np.stack([draft.uniform(0.15, 0.6), np.full(n, 0.02), draft.uniform(0.15, 0.45)], 1)
            place = at(length * draft.uniform(-0.95, 0.95), side * width, draft.uniform(1.3, 1.7))
            draft.box(place, size, draw(groups, rng, n, ["photo", "writing", "photo"], (0.4, 1.2), (0.7, 1.2)), present=draft.chance(0.7))
        radius = draft.uniform(0.05, 0.2)  # pillars at the wall
        pillar = np.stack([radius, radius, up], 1)
        draft.cylinder(
            at(length * draft.uniform(-0.9, 0.9), side * width, up), pillar, draw(groups, rng, n, WALL, (0.4, 2.0)), draft.chance(0.6)
        )
    radius = draft.uniform(0.03, 0.1)
    pipe = np.stack([radius, radius, length], 1)
    draft.cylinder(
        at(0 * up, width - 0.2, 2 * up - 0.2), pipe, draw(groups, rng, n, ["noise", "stripe"], (0.3, 2.0)), draft.chance(0.5), lying=True
    )
    for _ in range(4):
        size = np.exp(rng.uniform(np.log(0.08), np.log(0.3), (n, 3)))
        place = at(length * draft.uniform(-0.9, 0.9), width * draft.uniform(-0.8, 0.8), size[:, 2])
        draft.box(place, size, draw(groups, rng, n, THING, (0.15, 1.0)), draft.uniform(0, np.pi), draft.chance(0.6))
    for _ in range(3):
        radius = draft.uniform(0.08, 0.2)
        size = np.stack([radius, radius, draft.uniform(0.15, 0.5)], 1)
        place = at(length * draft.uniform(-0.9, 0.9), width * draft.uniform(-0.8, 0.8), size[:, 2])
        draft.cylinder(place, size, draw(groups, rng, n, THING, (0.2, 1.2)), draft.chance(0.6))
    for end in (-0.5, 0.5):
        draft.sphere(at(end * length, 0 * up, 2 * up), np.full((n, 3), 0.12), glowing(rng, n, groups))
    lamp = at(draft.uniform(-0.5, 0.5) * length, 0 * up, 2 * up - 0.3)
    return indoors(draft, groups, lamp, half), _standpoints(draft, length, width, up)


def _shell(draft: Draft, groups: Groups, length: np.ndarray, width: np.ndarray, up: np.ndarray) -> None:
    n, rng = draft.count, draft.rng
    zero = np.zeros(n)
    draft.floor(at(zero, zero, zero), length, width + 3, draw(groups, rng, n, FLOOR, (0.6, 3.0), (0.35, 1.0)))
    draft.floor(at(zero, zero, 2 * up), length, width + 3, draw(groups, rng, n, ["noise", "tile", "board"], (0.6, 3.0), (0.7, 1.1), 0.05))
    paint = draw(groups, rng, n, WALL, (0.6, 3.0), (0.5, 1.1), 0.1)
    for side in (-1, 1):
        doors = [
            np.stack([length * draft.uniform(low, high), DOOR - up, draft.uniform(0.4, 0.6), zero + DOOR], 1)
            for low, high in ((-0.8, -0.1), (0.1, 0.8))
        ]
        there = [draft.chance(0.65)[:, None] for _ in doors]
        openings = np.stack([np.where(is_there, door, [99.0, 99.0, 1e-3, 1e-3]) for is_there, door in zip(there, doors, strict=True)], 1)
        draft.wall(at(zero, side * width, up), length, up, 0.0, paint, openings)
        draft.wall(
            at(zero, side * (width + draft.uniform(0.2, 3.0)), up), length, up, 0.0, draw(groups, rng, n, [*WALL, "board"], (0.6, 2.0))
        )
    for end in (-1, 1):
        door = np.stack([width * 0.3, DOOR - up, draft.uniform(0.4, 0.6), zero + DOOR], 1)
        openings = np.where(draft.chance(0.4)[:, None], door, [99.0, 99.0, 1e-3, 1e-3])[:, None]
        draft.wall(at(end * length, zero, up), width + 3, up, np.pi / 2, draw(groups, rng, n, WALL, (0.6, 3.0), (0.5, 1.1), 0.1), openings)
    draft.floor(at(zero, zero, zero - 0.2), 60.0, 60.0, draw(groups, rng, n, ["spot", "noise", "brick"], (2.0, 8.0), (0.3, 0.8), 0.0))


def _standpoints(draft: Draft, length: np.ndarray, width: np.ndarray, up: np.ndarray) -> Standpoints:
    """Mostly looking along, sometimes at a wall."""
    n, rng = draft.count, draft.rng
    spread = rng.uniform(-1, 1, (n, TRIES, 2)) * np.stack([0.9 * length, 0.75 * width], 1)[:, None]
    positions = np.concatenate([spread, rng.uniform(0.4, 1.9, (n, TRIES, 1))], 2)
    way = -np.sign(spread[..., :1]) * rng.uniform(1.0, 6.0, (n, TRIES, 1))
    across = rng.uniform(-1, 1, (n, TRIES, 1)) * width[:, None, None]
    targets = np.concatenate([spread[..., :1] + way, across, rng.uniform(0.3, 1.8, (n, TRIES, 1))], 2)
    reach = np.stack([0.97 * length, width - 0.12], 1)
    low, high = np.concatenate([-reach, np.full((n, 1), 0.15)], 1), np.concatenate([reach, 2 * up[:, None] - 0.2], 1)
    return Standpoints(positions, targets, low, high, 0.7 * width)
