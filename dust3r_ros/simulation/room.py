"""The furnished room: what stands where, and what it wears. Metres; x to the right, y away from the camera, z up."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from dust3r_ros.simulation.scene import Scene, Thing
from dust3r_ros.simulation.solids import Box, Cylinder, Sphere
from dust3r_ros.simulation.textures import Paint, blotches, fabric, picture, plaster, rug, wallpaper, wood

SIZE = (5.2, 4.6, 2.7)
OAK, PINE, WALNUT = (0.42, 0.24, 0.11), (0.62, 0.42, 0.22), (0.22, 0.12, 0.06)
BACK = SIZE[1] / 2  # y of the back wall


@lru_cache(maxsize=2)
def room(density: float, seed: int = 0) -> Scene:
    """The room, painted and lit, at `density` texels a metre."""
    things = [*_shell(), *_table(), *_shelf(seed), *_sofa(), *_pictures(), *_smalls()]
    return Scene(things, density, seed)


def _box(name: str, centre: tuple[float, float, float], size: tuple[float, float, float], paint: Paint, yaw: float = 0.0) -> Thing:
    return Thing(name, Box(centre, size, yaw), paint)


def _shell() -> list[Thing]:
    """The room itself is one box seen from within, a paint for each side: left, right, front, back, floor, ceiling."""
    x, _, z = SIZE
    sides = (
        plaster((0.72, 0.55, 0.36), 0.13),
        plaster((0.42, 0.55, 0.66), 0.13),
        plaster((0.7, 0.66, 0.58)),
        wallpaper((0.58, 0.62, 0.52), (0.20, 0.34, 0.30)),
        wood(OAK, plank=0.13),
        plaster((0.8, 0.79, 0.76), 0.06),
    )
    return [
        Thing("room", Box((0, 0, z / 2), SIZE, inside=True), sides),
        _box("skirting", (0, BACK - 0.01, 0.05), (x, 0.02, 0.1), wood(WALNUT)),
        _box("rug", (0.15, 0.35, 0.006), (2.7, 1.9, 0.012), rug((0.50, 0.08, 0.07), (0.08, 0.12, 0.28)), yaw=0.06),
    ]


def _table() -> list[Thing]:
    yaw, cx, cy = 0.15, 0.25, 0.45
    c, s = math.cos(yaw), math.sin(yaw)
    legs = [
        _box(f"table leg {i}", (cx + c * dx - s * dy, cy + s * dx + c * dy, 0.35), (0.06, 0.06, 0.70), wood(PINE, along_u=False), yaw)
        for i, (dx, dy) in enumerate([(-0.58, -0.3), (0.58, -0.3), (-0.58, 0.3), (0.58, 0.3)])
    ]
    return [
        _box("table top", (cx, cy, 0.72), (1.3, 0.75, 0.04), wood(PINE, plank=0.15), yaw),
        *legs,
        _box(
            "atlas", (cx - 0.35, cy - 0.02, 0.765), (0.34, 0.25, 0.05), blotches((0.1, 0.25, 0.5), (0.7, 0.65, 0.5), (0.15, 0.4, 0.3)), 0.5
        ),
        _box("novel", (cx - 0.33, cy - 0.0, 0.81), (0.22, 0.15, 0.04), blotches((0.65, 0.12, 0.1), (0.85, 0.7, 0.3), scale=0.06), 0.9),
        Thing(
            "globe",
            Sphere((cx + 0.02, cy + 0.08, 0.87), (0.26, 0.26, 0.26)),
            blotches((0.06, 0.2, 0.45), (0.1, 0.32, 0.5), (0.5, 0.5, 0.25), (0.25, 0.4, 0.15), scale=0.1),
        ),
        Thing("mug", Cylinder((cx + 0.26, cy - 0.16, 0.79), (0.1, 0.1, 0.1)), fabric((0.8, 0.78, 0.7), (0.75, 0.25, 0.1), 0.035)),
        Thing(
            "vase", Cylinder((cx + 0.44, cy + 0.14, 0.88), (0.13, 0.13, 0.28)), blotches((0.7, 0.68, 0.62), (0.12, 0.2, 0.45), scale=0.07)
        ),
        Thing(
            "bouquet",
            Sphere((cx + 0.44, cy + 0.14, 1.10), (0.26, 0.26, 0.26)),
            blotches((0.08, 0.2, 0.05), (0.2, 0.4, 0.1), (0.85, 0.4, 0.45), (0.9, 0.8, 0.3), scale=0.06),
        ),
    ]


def _shelf(seed: int) -> list[Thing]:
    """A bookcase on the back wall, its books drawn by lot."""
    rng = np.random.default_rng([seed, 11])
    left, right, depth, top = -2.25, -1.05, 0.32, 1.95
    y = BACK - depth / 2
    things = [
        _box("shelf left", (left, y, top / 2), (0.04, depth, top), wood(WALNUT, along_u=False)),
        _box("shelf right", (right, y, top / 2), (0.04, depth, top), wood(WALNUT, along_u=False)),
        _box("shelf back", ((left + right) / 2, BACK - 0.015, top / 2), (right - left, 0.03, top), wood(OAK)),
    ]
    heights = [0.10, 0.55, 1.0, 1.45, 1.93]
    things += [
        _box(f"board {i}", ((left + right) / 2, y, z), (right - left - 0.04, depth, 0.04), wood(WALNUT)) for i, z in enumerate(heights)
    ]
    for row, z in enumerate(heights[:-1]):
        x = left + 0.05
        while x < right - 0.2:
            wide, high, deep = rng.uniform(0.04, 0.11), rng.uniform(0.24, 0.37), rng.uniform(0.2, 0.27)
            hue = rng.uniform(0.05, 0.7, 3)
            cover, print_ = tuple(hue), tuple(np.clip(1.0 - hue, 0.1, 0.8))
            name = f"book {row} {len(things)}"
            things.append(
                _box(name, (x + wide / 2, y - 0.02, z + 0.02 + high / 2), (wide, deep, high), blotches(cover, print_, cover, scale=0.07))
            )
            x += wide + (0.15 if rng.random() < 0.12 else 0.006)
    return things


def _sofa() -> list[Thing]:
    cloth = fabric((0.16, 0.24, 0.20), (0.55, 0.50, 0.32))
    return [
        _box("sofa seat", (1.75, 1.55, 0.22), (1.3, 0.8, 0.40), cloth, -0.12),
        _box("sofa back", (1.80, 1.98, 0.45), (1.3, 0.2, 0.85), cloth, -0.12),
        _box("sofa arm", (1.10, 1.62, 0.32), (0.16, 0.8, 0.6), cloth, -0.12),
        _box("cushion", (1.55, 1.72, 0.58), (0.42, 0.14, 0.36), fabric((0.7, 0.3, 0.12), (0.85, 0.75, 0.5), 0.06), 0.2),
    ]


def _pictures() -> list[Thing]:
    half = SIZE[0] / 2
    return [
        _box("astronaut", (-0.25, BACK - 0.015, 1.62), (0.85, 0.03, 1.0), picture("astronaut.png")),
        _box("cat", (0.75, BACK - 0.015, 1.75), (0.8, 0.03, 0.55), picture("chelsea.png", (0.3, 0.2, 0.08))),
        _box("coffee", (1.75, BACK - 0.015, 1.65), (0.85, 0.03, 0.6), picture("coffee.png")),
        _box("rocket", (half - 0.015, 0.9, 1.55), (0.03, 0.95, 0.65), picture("rocket.jpg")),
        _box("sky", (-half + 0.015, 0.7, 1.55), (0.03, 1.1, 0.95), picture("hubble_deep_field.jpg", (0.5, 0.4, 0.2))),
    ]


def _smalls() -> list[Thing]:
    return [
        _box("crate", (-0.95, 0.0, 0.22), (0.46, 0.46, 0.44), wood(PINE, plank=0.11), 0.55),
        Thing(
            "ball",
            Sphere((-0.95, 0.0, 0.58), (0.28, 0.28, 0.28)),
            blotches((0.85, 0.8, 0.7), (0.75, 0.15, 0.08), (0.08, 0.08, 0.1), scale=0.12),
        ),
        Thing("plant pot", Cylinder((-0.55, 1.85, 0.18), (0.34, 0.34, 0.36)), blotches((0.5, 0.2, 0.1), (0.6, 0.3, 0.15))),
        Thing(
            "plant",
            Sphere((-0.55, 1.85, 0.62), (0.58, 0.58, 0.58)),
            blotches((0.03, 0.1, 0.03), (0.1, 0.28, 0.06), (0.25, 0.42, 0.12), scale=0.07),
        ),
        Thing("stool", Cylinder((1.25, -0.1, 0.22), (0.36, 0.36, 0.44)), fabric((0.5, 0.35, 0.1), (0.1, 0.3, 0.35), 0.07)),
        _box(
            "parcel",
            (1.25, -0.1, 0.52),
            (0.24, 0.2, 0.16),
            blotches((0.55, 0.38, 0.2), (0.62, 0.45, 0.26), (0.2, 0.1, 0.05), scale=0.09),
            0.4,
        ),
    ]
