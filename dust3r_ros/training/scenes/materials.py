"""Materials: rows of `MATERIAL` numbers, drawn for many scenes at once from the layers that an atlas has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.training.scenes.solids import MATERIAL

# Columns: two texture layers that are blended, each with tiles a metre and an offset in tiles; then what becomes of their colour.
LAYER, SCALE, OFFSET_U, OFFSET_V, SECOND_LAYER, SECOND_SCALE, BLEND, RED, GREEN, BLUE, CONTRAST, SATURATION, GLOSS, SHARPNESS, GLOW = range(
    MATERIAL
)

Groups = Mapping[str, tuple[int, int]]  # name of a group of layers -> first layer, count


# What walls, floors and things are made of
WALL = ["noise", "photo", "stripe", "brick", "tile", "noise", "check"]
FLOOR = ["board", "tile", "check", "noise", "photo", "brick"]
THING = ["photo", "noise", "writing", "stripe", "spot", "check", "board", "photo"]


def draw(groups: Groups, rng: np.random.Generator, count: int, names: Sequence[str], tile: tuple[float, float],
         tint: tuple[float, float] = (0.35, 1.1), gloss: float = 0.3) -> NDArray[np.float64]:  # fmt: skip
    """Materials [count, MATERIAL] from the groups `names`, noise where the atlas lacks one; `tile` is a texture's width in metres."""
    material = np.zeros((count, MATERIAL))
    pool = np.array([groups.get(name, groups["noise"]) for name in names])
    first, layers = pool[rng.integers(len(names), size=count)].T
    material[:, LAYER] = first + rng.integers(layers)
    material[:, SECOND_LAYER] = groups["noise"][0] + rng.integers(groups["noise"][1], size=count)
    width = np.exp(rng.uniform(np.log(tile[0]), np.log(tile[1]), count))
    material[:, SCALE] = 1 / width
    material[:, SECOND_SCALE] = 1 / (width * np.exp(rng.uniform(np.log(0.3), np.log(4.0), size=count)))
    material[:, [OFFSET_U, OFFSET_V]] = rng.random((count, 2))
    material[:, BLEND] = rng.uniform(0.0, 0.5, count)
    value = rng.uniform(*tint, size=(count, 1))
    hue = 1 + rng.uniform(-1, 1, (count, 3)) * rng.choice([0.1, 0.25, 0.7], size=(count, 1), p=[0.4, 0.4, 0.2])
    material[:, [RED, GREEN, BLUE]] = value * hue / hue.max(1, keepdims=True)
    material[:, CONTRAST] = rng.uniform(0.5, 1.3, count)
    material[:, SATURATION] = rng.uniform(0.3, 1.2, count)
    material[:, GLOSS] = gloss * rng.random(count) ** 2
    material[:, SHARPNESS] = np.exp(rng.uniform(np.log(8), np.log(150), count))
    return material


def glowing(rng: np.random.Generator, count: int, groups: Groups) -> NDArray[np.float64]:
    """A lamp's own surface."""
    material = draw(groups, rng, count, ["noise"], (0.5, 1.0), (0.9, 1.0), 0.0)
    material[:, GLOW] = rng.uniform(0.5, 1.5, count)
    return material
