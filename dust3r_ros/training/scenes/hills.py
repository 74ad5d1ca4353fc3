"""Hills: rolling ground as a height field, with rocks, trees and huts upon it, under the sky."""

from __future__ import annotations

import numpy as np

from dust3r_ros.training.scenes.drafting import Array, Draft, Lighting, at
from dust3r_ros.training.scenes.height_fields import EXTENT
from dust3r_ros.training.scenes.lighting import outdoors
from dust3r_ros.training.scenes.materials import BLUE, RED, Groups, draw
from dust3r_ros.training.scenes.standpoints import TRIES, Standpoints

GRID = 64  # samples along an edge of the field
REACH = 14.0  # metres from the middle in which things and cameras are


def hills(draft: Draft, groups: Groups) -> tuple[Lighting, Standpoints]:
    n, rng = draft.count, draft.rng
    field = _field(draft)
    draft.ground(field, draw(groups, rng, n, ["spot", "noise", "noise", "photo"], (2.0, 6.0), (0.35, 0.9), 0.0))
    for _ in range(4):  # trees
        x, y = _spread(draft)
        trunk, tall = draft.uniform(0.12, 0.3), draft.uniform(0.8, 2.0)
        foot, there = _height(field, x, y), draft.chance(0.8)
        bark = draw(groups, rng, n, ["noise", "stripe"], (0.3, 1.0), (0.2, 0.6), 0.0)
        draft.cylinder(at(x, y, foot + tall - 0.3), np.stack([trunk, trunk, tall], 1), bark, there)
        crown = draft.uniform(0.8, 2.0)[:, None] * rng.uniform(0.8, 1.3, (n, 3))
        leaves = draw(groups, rng, n, ["spot", "noise"], (0.8, 3.0), (0.3, 0.9), 0.0)
        leaves[:, RED : BLUE + 1] *= np.where(draft.chance(0.8)[:, None], [0.55, 0.9, 0.35], 1.0)
        draft.sphere(at(x, y, foot + 2 * tall - 0.3 + 0.6 * crown[:, 2]), crown, leaves, present=there)
    for _ in range(8):  # rocks, sunk into the ground
        x, y = _spread(draft)
        size = rng.uniform(0.2, 0.9, (n, 3))
        rock = draw(groups, rng, n, ["noise", "photo", "spot"], (0.5, 2.0), (0.4, 1.0), 0.05)
        draft.box(at(x, y, _height(field, x, y) + 0.3 * size[:, 2]), size, rock, draft.uniform(0, np.pi), draft.chance(0.8))
    for _ in range(3):  # huts and towers
        x, y = _spread(draft)
        size = rng.uniform([1.0, 1.0, 1.0], [2.5, 2.5, 2.5], (n, 3))
        walls = draw(groups, rng, n, ["window", "board", "brick"], (2.0, 4.0), (0.5, 1.1), 0.05)
        turn, there = draft.uniform(0, np.pi), draft.chance(0.6)
        middle = at(x, y, _height(field, x, y) + size[:, 2] - 0.6)
        draft.box(middle, size, walls, turn, there)
        roof = at(0 * x, 0 * x, size[:, 2] + 0.1)
        draft.box(middle + roof, size * [1.15, 1.15, 0] + [0, 0, 0.12], draw(groups, rng, n, ["tile", "board"], (0.6, 2.0)), turn, there)
    return outdoors(draft, groups), _standpoints(draft, field)


def _field(draft: Draft) -> Array:
    """[count, GRID, GRID] metres: smooth noise, its spectrum f^-4, that ends in higher ground all round."""
    n, rng = draft.count, draft.rng
    f = np.hypot(np.fft.fftfreq(GRID)[:, None], np.fft.rfftfreq(GRID)[None]) * GRID
    strength = np.where(f > 0, np.maximum(f, 1.5) ** -2.0, 0.0)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((n, GRID, GRID))) * strength, s=(GRID, GRID))
    field *= (draft.uniform(0.3, 1.8) / field.std(axis=(1, 2)))[:, None, None]
    place = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    edge = np.maximum(np.abs(place)[:, None], np.abs(place)[None])
    return field + draft.uniform(0.0, 8.0)[:, None, None] * np.clip(edge - 0.4, 0, None) ** 2


def _height(field: Array, x: Array, y: Array) -> Array:
    """Of the nearest sample, [count] or [count, n]."""
    column, row = (np.clip((value / EXTENT + 0.5) * GRID, 0, GRID - 1).astype(int) for value in (x, y))
    scene = np.arange(len(field)).reshape(-1, *[1] * (x.ndim - 1))
    return field[scene, row, column]


def _spread(draft: Draft) -> tuple[Array, Array]:
    return draft.uniform(-REACH, REACH), draft.uniform(-REACH, REACH)


def _standpoints(draft: Draft, field: Array) -> Standpoints:
    n, rng = draft.count, draft.rng
    x, y = rng.uniform(-REACH, REACH, (2, n, TRIES))
    positions = np.stack([x, y, _height(field, x, y) + rng.uniform(0.8, 3.5, (n, TRIES))], -1)
    ahead = rng.uniform(-0.7 * REACH, 0.7 * REACH, (n, TRIES, 2))
    targets = np.concatenate([ahead, (_height(field, ahead[..., 0], ahead[..., 1]) + rng.uniform(-0.5, 2.0, (n, TRIES)))[..., None]], -1)
    edge = np.full((n, 2), REACH + 2)
    low = np.concatenate([-edge, field.min((1, 2))[:, None] + 0.4], 1)
    high = np.concatenate([edge, field.max((1, 2))[:, None] + 4.0], 1)
    return Standpoints(positions, targets, low, high, np.full(n, 3.0))
