"""Rooms: walls with a door and windows, furniture along the walls and in the middle, things on the floor, pictures, lamps."""

from __future__ import annotations

import numpy as np

from dust3r_ros.training.scenes.drafting import Array, Draft, Lighting, at
from dust3r_ros.training.scenes.lighting import indoors
from dust3r_ros.training.scenes.materials import FLOOR, THING, WALL, Groups, draw, glowing
from dust3r_ros.training.scenes.standpoints import Standpoints


def rooms(draft: Draft, groups: Groups) -> tuple[Lighting, Standpoints]:
    n, rng = draft.count, draft.rng
    half = np.stack([draft.uniform(1.4, 4.0), draft.uniform(1.4, 4.0), draft.uniform(1.15, 1.7)], 1)
    height = 2 * half[:, 2]
    shell(draft, groups, half, height)
    ceiling = draw(groups, rng, n, ["noise", "noise", "board", "tile"], (0.8, 4.0), (0.7, 1.1), 0.05)
    draft.floor(at(0 * height, 0 * height, height), half[:, 0], half[:, 1], ceiling)
    _furniture(draft, groups, half)
    _clutter(draft, groups, half)
    lamp = at(half[:, 0] * draft.uniform(-0.6, 0.6), half[:, 1] * draft.uniform(-0.6, 0.6), height - draft.uniform(0.25, 0.6))
    draft.sphere(lamp + np.array([0, 0, 0.16]), np.full((n, 3), 0.1), glowing(rng, n, groups))
    return indoors(draft, groups, lamp, half), Standpoints.in_box(
        draft, -half * [1, 1, 0] * 0.9, half * [0.9, 0.9, 0] + [0, 0, 1], (0.4, 2.0), half
    )


def shell(draft: Draft, groups: Groups, half: Array, height: Array) -> None:
    """Ground outside, a floor, and four walls with openings."""
    n, rng = draft.count, draft.rng
    zero = np.zeros(n)
    draft.floor([0, 0, -0.3], 60.0, 60.0, draw(groups, rng, n, ["spot", "noise", "photo"], (2.0, 8.0), (0.3, 0.8), 0.0))
    draft.floor(at(zero, zero, zero), half[:, 0], half[:, 1], draw(groups, rng, n, FLOOR, (0.6, 3.0), (0.35, 1.0)))
    same = draw(groups, rng, n, WALL, (0.6, 4.0), (0.5, 1.1), 0.1)
    for side in range(4):
        along_x = side < 2
        reach, across = (half[:, 0], half[:, 1]) if along_x else (half[:, 1], half[:, 0])
        sign = 1 - 2 * (side % 2)
        middle = at(zero, sign * across, height / 2) if along_x else at(sign * across, zero, height / 2)
        own = draw(groups, rng, n, WALL, (0.6, 4.0), (0.5, 1.1), 0.1)
        material = np.where(draft.chance(0.55)[:, None], same, own)
        draft.wall(middle, reach, height / 2, 0.0 if along_x else np.pi / 2, material, _openings(draft, reach, height / 2))


def _openings(draft: Draft, reach: Array, half_height: Array) -> Array:
    """A window and a door, each in a third of the walls; [count, 2, 4] in metres from the wall's middle."""
    window = np.stack([reach * draft.uniform(-0.6, 0.1), draft.uniform(0.0, 0.3), draft.uniform(0.3, 0.9), draft.uniform(0.3, 0.6)], 1)
    door = np.stack([reach * draft.uniform(0.45, 0.75), 1.02 - half_height, draft.uniform(0.38, 0.5), np.full(draft.count, 1.02)], 1)
    nothing = [99.0, 99.0, 1e-3, 1e-3]
    return np.stack([np.where(draft.chance(0.35)[:, None], window, nothing), np.where(draft.chance(0.3)[:, None], door, nothing)], 1)


def _furniture(draft: Draft, groups: Groups, half: Array) -> None:
    n, rng = draft.count, draft.rng
    for side in range(4):  # cupboards, sofas, beds: along the walls
        size = np.stack([draft.uniform(0.3, 0.9), draft.uniform(0.2, 0.45), np.exp(draft.uniform(np.log(0.2), np.log(1.0)))], 1)
        along = draft.uniform(-0.7, 0.7)
        sign = 1 - 2 * (side % 2)
        if side < 2:
            middle = at(along * (half[:, 0] - size[:, 0]), sign * (half[:, 1] - size[:, 1] - 0.01), size[:, 2])
        else:
            size = size[:, [1, 0, 2]]
            middle = at(sign * (half[:, 0] - size[:, 0] - 0.01), along * (half[:, 1] - size[:, 1]), size[:, 2])
        present = draft.chance(0.75)
        draft.box(middle, size, draw(groups, rng, n, ["board", "noise", "photo", "stripe"], (0.4, 2.0), (0.25, 1.1)), present=present)
        if side < 2:  # and something upon it
            upon = np.stack([draft.uniform(0.06, 0.2), draft.uniform(0.06, 0.2), draft.uniform(0.05, 0.3)], 1)
            top = middle * [1, 1, 2] + np.stack([draft.uniform(-0.15, 0.15), 0 * along, upon[:, 2]], 1)
            draft.box(top, upon, draw(groups, rng, n, THING, (0.1, 0.6)), draft.uniform(0, np.pi), present)
    table = at(half[:, 0] * draft.uniform(-0.4, 0.4), half[:, 1] * draft.uniform(-0.4, 0.4), draft.uniform(0.4, 0.8))
    there, top = draft.chance(0.7), np.stack([draft.uniform(0.35, 0.8), draft.uniform(0.3, 0.6), np.full(n, 0.025)], 1)
    wood = draw(groups, rng, n, ["board", "noise", "tile"], (0.5, 2.0), (0.3, 1.1), 0.5)
    draft.box(table, top, wood, draft.uniform(0, np.pi), there)
    draft.cylinder(table * [1, 1, 0.5], np.stack([np.full(n, 0.05), np.full(n, 0.05), table[:, 2] / 2], 1), wood, there)
    radius, up = draft.uniform(0.04, 0.12), draft.uniform(0.05, 0.2)
    where = table + at(draft.uniform(-0.2, 0.0), draft.uniform(-0.2, 0.2), 0 * up + 0.025)
    cup = np.stack([radius, radius, up], 1)
    draft.cylinder(where + cup * [0, 0, 1], cup, draw(groups, rng, n, THING, (0.1, 0.5)), there)
    ball = np.stack([radius] * 3, 1)
    draft.sphere(where + [0.25, 0.05, 0] + ball * [0, 0, 1], ball, draw(groups, rng, n, THING, (0.1, 0.5)), present=there)
    for side in (-1, 1):  # pictures
        frame = np.stack([draft.uniform(0.2, 0.7), np.full(n, 0.02), draft.uniform(0.2, 0.5)], 1)
        place = at(half[:, 0] * draft.uniform(-0.5, 0.5), side * half[:, 1], draft.uniform(1.3, 1.7))
        draft.box(
            place, frame, draw(groups, rng, n, ["photo", "photo", "writing", "spot"], (0.5, 1.4), (0.7, 1.2)), present=draft.chance(0.7)
        )


def _clutter(draft: Draft, groups: Groups, half: Array) -> None:
    n, rng = draft.count, draft.rng
    for _ in range(5):
        size = np.exp(rng.uniform(np.log(0.06), np.log(0.35), (n, 3)))
        place = at(half[:, 0] * draft.uniform(-0.85, 0.85), half[:, 1] * draft.uniform(-0.85, 0.85), size[:, 2])
        draft.box(place, size, draw(groups, rng, n, THING, (0.15, 1.0)), draft.uniform(0, np.pi), draft.chance(0.7))
    for _ in range(2):
        size = rng.uniform(0.08, 0.3, (n, 1)) * np.where(draft.chance(0.5)[:, None], 1.0, rng.uniform(0.6, 1.3, (n, 3)))
        place = at(half[:, 0] * draft.uniform(-0.85, 0.85), half[:, 1] * draft.uniform(-0.85, 0.85), size[:, 2])
        draft.sphere(place, size, draw(groups, rng, n, THING, (0.2, 1.0)), draft.uniform(0, np.pi), draft.chance(0.7))
    for _ in range(3):
        radius = draft.uniform(0.06, 0.25)
        size = np.stack([radius, radius, np.exp(draft.uniform(np.log(0.1), np.log(0.9)))], 1)
        place = at(half[:, 0] * draft.uniform(-0.85, 0.85), half[:, 1] * draft.uniform(-0.85, 0.85), size[:, 2])
        draft.cylinder(place, size, draw(groups, rng, n, THING, (0.2, 1.2)), draft.chance(0.7))
