"""Tables with things on them, seen from near: books, boxes, cups, tins, fruit; a wall or a window behind."""

from __future__ import annotations

import numpy as np

from dust3r_ros.training.scenes.drafting import Draft, Lighting, at
from dust3r_ros.training.scenes.lighting import indoors
from dust3r_ros.training.scenes.materials import THING, Groups, draw
from dust3r_ros.training.scenes.rooms import shell
from dust3r_ros.training.scenes.standpoints import TRIES, Standpoints


def tables(draft: Draft, groups: Groups) -> tuple[Lighting, Standpoints]:
    n, rng = draft.count, draft.rng
    half = np.stack([draft.uniform(1.2, 3.0), draft.uniform(1.2, 3.0), draft.uniform(1.15, 1.6)], 1)
    shell(draft, groups, half, 2 * half[:, 2])
    ceiling = draw(groups, rng, n, ["noise", "tile"], (0.8, 4.0), (0.7, 1.1), 0.05)
    draft.floor(at(0 * half[:, 2], 0 * half[:, 2], 2 * half[:, 2]), half[:, 0], half[:, 1], ceiling)
    top = draft.uniform(0.65, 0.9)
    size = np.stack([draft.uniform(0.5, 1.0), draft.uniform(0.35, 0.6), np.full(n, 0.02)], 1)
    wood = draw(groups, rng, n, ["board", "noise", "tile", "check", "photo", "stripe"], (0.4, 2.0), (0.3, 1.1), 0.5)
    draft.box(at(0 * top, 0 * top, top - 0.02), size, wood)
    for x in (-1, 1):
        for y in (-1, 1):
            leg = np.stack([np.full(n, 0.03), np.full(n, 0.03), top / 2 - 0.02], 1)
            draft.box(at(x * (size[:, 0] - 0.05), y * (size[:, 1] - 0.05), top / 2 - 0.02), leg, wood)
    for _ in range(3):  # what stands on the floor
        thing = rng.uniform(0.15, 0.5, (n, 3))
        place = at(half[:, 0] * draft.uniform(-0.9, 0.9), half[:, 1] * draft.uniform(-0.9, 0.9), thing[:, 2])
        draft.box(place, thing, draw(groups, rng, n, THING, (0.3, 1.5)), draft.uniform(0, np.pi), draft.chance(0.6))
    _things(draft, groups, size, top)
    lamp = at(half[:, 0] * draft.uniform(-0.7, 0.7), half[:, 1] * draft.uniform(-0.7, 0.7), top + draft.uniform(0.7, 1.4))
    return indoors(draft, groups, lamp, half), _standpoints(draft, size, top, half)


def _things(draft: Draft, groups: Groups, table: np.ndarray, top: np.ndarray) -> None:
    """Each in a cell of its own, so that few stand in each other; some upon a box."""
    n, rng = draft.count, draft.rng
    cells = rng.permuted(np.tile(np.arange(20), (n, 1)), axis=1)
    columns = np.stack([cells % 5 - 2, cells // 5 - 1.5], 2) / [2.5, 2.0]
    places = (columns + rng.uniform(-0.12, 0.12, columns.shape)) * (table[:, None, :2] - 0.05)
    for number in range(10):
        flat = draft.chance(0.4)[:, None]
        size = np.where(flat, rng.uniform([0.05, 0.07, 0.008], [0.13, 0.16, 0.035], (n, 3)), rng.uniform(0.02, 0.09, (n, 3)))
        place = at(places[:, number, 0], places[:, number, 1], top + size[:, 2])
        there = draft.chance(0.75)
        draft.box(place, size, draw(groups, rng, n, THING, (0.06, 0.4)), draft.uniform(0, np.pi), there)
        if number == 0:
            radius = draft.uniform(0.02, 0.05)
            upon = place + at(0 * top, 0 * top, size[:, 2] + radius)
            draft.sphere(upon, np.stack([radius] * 3, 1), draw(groups, rng, n, THING, (0.05, 0.3)), present=there)
    for number in range(10, 16):
        radius = draft.uniform(0.02, 0.06)
        size = np.stack([radius, radius, draft.uniform(0.03, 0.13)], 1)
        draft.cylinder(
            at(places[:, number, 0], places[:, number, 1], top + size[:, 2]),
            size,
            draw(groups, rng, n, THING, (0.06, 0.4)),
            draft.chance(0.7),
        )
    for number in range(16, 19):
        size = draft.uniform(0.02, 0.07)[:, None] * np.where(draft.chance(0.6)[:, None], 1.0, rng.uniform(0.7, 1.2, (n, 3)))
        draft.sphere(
            at(places[:, number, 0], places[:, number, 1], top + size[:, 2]),
            size,
            draw(groups, rng, n, THING, (0.06, 0.4)),
            present=draft.chance(0.8),
        )


def _standpoints(draft: Draft, table: np.ndarray, top: np.ndarray, half: np.ndarray) -> Standpoints:
    """Around the table, looking down on it more or less."""
    n, rng = draft.count, draft.rng
    angle, distance, height = rng.uniform(0, 2 * np.pi, (n, TRIES)), rng.uniform(0.45, 1.3, (n, TRIES)), rng.uniform(0.15, 0.9, (n, TRIES))
    positions = np.stack([distance * np.cos(angle), distance * np.sin(angle), top[:, None] + height], -1)
    reach = np.stack([half[:, 0] - 0.1, half[:, 1] - 0.1], 1)
    positions[..., :2] = np.clip(positions[..., :2], -reach[:, None], reach[:, None])
    targets = np.stack([*(rng.uniform(-0.5, 0.5, (n, TRIES, 2)) * table[:, None, :2]).transpose(2, 0, 1), top[:, None] + 0 * angle], -1)
    low = np.concatenate([-reach, top[:, None] + 0.05], 1)
    high = np.concatenate([reach, np.minimum(top + 1.2, 2 * half[:, 2] - 0.2)[:, None]], 1)
    return Standpoints(positions, targets, low, high, np.full(n, 0.25))
