"""Corridors on a grid of square cells: floor, ceiling, walls where there is no neighbour, and along them what was drawn by lot.

Metres; cell (i, j) has its middle at (i, j) times `CELL`, z up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from dust3r_ros.simulation.scene import Scene, Thing
from dust3r_ros.simulation.solids import Box, Cylinder, Sphere
from dust3r_ros.simulation.textures import Paint, blotches, fabric, picture, plaster, wallpaper, wood

CELL, HEIGHT = 2.4, 2.6  # edge of a cell, which is the corridor's width; height
THICK, OVERLAP = 0.1, 0.02  # of walls, floors and ceilings; how far neighbours reach into each other, so that no ray slips through
SIDES = ((1, 0), (0, 1), (-1, 0), (0, -1))
PICTURES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg")


@lru_cache(maxsize=2)
def corridor(density: float, seed: int = 0, cells: int = 20) -> Scene:
    """A straight one along y: `cells` cells, of which one lies behind the origin."""
    return _scene([(0, j) for j in range(-1, cells - 1)], density, seed)


@lru_cache(maxsize=2)
def ring_of_corridors(density: float, seed: int = 0, cells: int = 5) -> Scene:
    """The outermost cells of a square of `cells` by `cells`, its first corner at the origin."""
    every = [(i, j) for i in range(cells) for j in range(cells)]
    return _scene([cell for cell in every if set(cell) & {0, cells - 1}], density, seed)


@lru_cache(maxsize=2)
def corridor_of_identical_cells(density: float, seed: int = 0, cells: int = 23) -> Scene:
    """A straight one along y whose every cell is the same, door and paint and lamp; the origin's is the middle one."""
    half = cells // 2
    row = [(0, j) for j in range(-half, half + 1)]
    things = [thing for cell in row for thing in _cell(cell, set(row), seed, like=(0, 0))]
    return Scene(things, density, seed, np.array([(i * CELL, j * CELL, HEIGHT - 0.1) for i, j in row]))


def _scene(cells: Sequence[tuple[int, int]], density: float, seed: int) -> Scene:
    things = [thing for cell in cells for thing in _cell(cell, set(cells), seed)]
    lamps = np.array([(i * CELL, j * CELL, HEIGHT - 0.1) for i, j in cells if (i + j) % 2 == 0])
    return Scene(things, density, seed, lamps)


def _cell(cell: tuple[int, int], cells: set[tuple[int, int]], seed: int, like: tuple[int, int] | None = None) -> Iterator[Thing]:
    """What is in a cell; with `like` it is what would be in that one, which has the same neighbours."""
    drawn = like or cell
    rng = np.random.default_rng([seed, 13, *(2**16 + n for n in drawn)])
    middle, name = np.array(cell) * CELL, f"cell {drawn[0]} {drawn[1]}"
    wide = CELL + OVERLAP
    tone = rng.uniform(0.7, 1.1)
    floor, ceiling = wood((0.42 * tone, 0.26 * tone, 0.13 * tone), plank=0.15), plaster((0.78, 0.78, 0.75), 0.06)
    yield Thing(f"{name} floor", Box((*middle, -THICK / 2), (wide, wide, THICK)), floor)
    yield Thing(f"{name} ceiling", Box((*middle, HEIGHT + THICK / 2), (wide, wide, THICK)), ceiling)
    for side in SIDES:
        if (cell[0] + side[0], cell[1] + side[1]) in cells:
            continue
        hue = rng.uniform(0.35, 0.75, 3)
        paint = wallpaper(_colour(hue), _colour(0.45 * hue)) if rng.random() < 0.4 else plaster(_colour(hue), 0.14)
        wall = _Wall(f"{name} wall {side[0]} {side[1]}", middle, side)
        yield wall.box("", 0.0, HEIGHT / 2, -THICK, (wide, HEIGHT, THICK), paint)
        yield wall.box("skirting", 0.0, 0.05, 0.0, (wide, 0.1, 0.02), wood((0.22, 0.12, 0.06)))
        yield from _by_lot(wall, rng)


def _by_lot(wall: _Wall, rng: np.random.Generator) -> Iterator[Thing]:
    """What stands or hangs at a wall; nothing comes within 0.8 m of the corridor's middle."""
    at, tint = rng.uniform(-0.35, 0.35), rng.uniform(0.1, 0.6, 3)
    kind = rng.choice(["door", "pillar", "column", "picture", "bench", "plant"])
    if kind == "door":
        leaf, frame = wood(_colour(tint), along_u=False), wood((0.2, 0.12, 0.07), along_u=False)
        yield wall.box("door", at, 1.03, 0.0, (0.92, 2.06, 0.03), leaf)
        for edge in (-0.5, 0.5):
            yield wall.box(f"post {edge}", at + edge, 1.05, 0.0, (0.09, 2.1, 0.07), frame)
        yield wall.box("lintel", at, 2.12, 0.0, (1.09, 0.09, 0.07), wood((0.2, 0.12, 0.07)))
        yield Thing(f"{wall.name} knob", Sphere(wall.at(at + 0.36, 1.02, 0.07), (0.07, 0.07, 0.07)), plaster((0.7, 0.6, 0.3)))
    elif kind == "pillar":
        yield wall.box("pillar", at, HEIGHT / 2, 0.0, (0.34, HEIGHT, rng.uniform(0.15, 0.3)), blotches(_colour(tint), (0.75, 0.7, 0.6)))
    elif kind == "column":
        size = (0.32, 0.32, HEIGHT)
        yield Thing(f"{wall.name} column", Cylinder(wall.at(at, HEIGHT / 2, 0.2), size), blotches((0.7, 0.66, 0.6), _colour(tint)))
    elif kind == "picture":
        high = rng.uniform(0.5, 0.9)
        yield wall.box("picture", at, 1.55, 0.0, (rng.uniform(0.7, 1.2), high, 0.03), picture(str(rng.choice(PICTURES))))
    elif kind == "bench":
        yield wall.box("bench", at, 0.22, 0.02, (1.1, 0.44, 0.36), fabric(_colour(tint), (0.7, 0.6, 0.4)))
        yield wall.box("parcel", at + 0.3, 0.54, 0.08, (0.3, 0.2, 0.22), blotches((0.55, 0.38, 0.2), (0.2, 0.1, 0.05)))
    else:
        yield Thing(f"{wall.name} pot", Cylinder(wall.at(at, 0.18, 0.22), (0.32, 0.32, 0.36)), blotches((0.5, 0.2, 0.1), (0.6, 0.3, 0.15)))
        leaves = blotches((0.03, 0.1, 0.03), (0.1, 0.28, 0.06), (0.25, 0.42, 0.12), scale=0.07)
        yield Thing(f"{wall.name} plant", Sphere(wall.at(at, 0.6, 0.24), (0.46, 0.46, 0.46)), leaves)


class _Wall:
    """One wall of a cell, told by where along it, how high, and how far in front of it."""

    def __init__(self, name: str, middle: np.ndarray, side: tuple[int, int]) -> None:
        self.name, self._middle, self._side = name, middle, np.array(side)
        self._yaw = math.atan2(side[1], side[0]) - math.pi / 2

    def at(self, along: float, high: float, before: float) -> tuple[float, float, float]:
        across = np.array([-self._side[1], self._side[0]])
        x, y = self._middle + self._side * (CELL / 2 - before) + across * along
        return float(x), float(y), high

    def box(self, name: str, along: float, high: float, before: float, size: tuple[float, float, float], paint: Paint) -> Thing:
        """`size` along the wall, up, and away from it; its back is `before` in front of the wall."""
        width, height, depth = size
        return Thing(f"{self.name} {name}", Box(self.at(along, high, before + depth / 2), (width, depth, height), self._yaw), paint)


def _colour(values: np.ndarray) -> tuple[float, float, float]:
    r, g, b = (float(value) for value in values)
    return r, g, b
