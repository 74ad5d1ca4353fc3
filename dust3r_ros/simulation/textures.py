"""Procedural paint: each function fills a chart of so many metres with linear RGB albedo, at so many texels a metre.

Randomness comes from a generator that the caller seeds by name, and noise lives on grids measured in metres: the same surface looks the
same at every resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]  # [H, W, 3], linear, 0..1
Paint = Callable[[float, float, float, np.random.Generator], Image]  # width m, height m, texels a metre, randomness


def shape_of(width: float, height: float, density: float) -> tuple[int, int]:
    """Rows and columns of a chart's texture."""
    return max(4, round(height * density)), max(4, round(width * density))


def noise(
    width: float, height: float, density: float, rng: np.random.Generator, coarse: float, fine: float, falloff: float = 0.7
) -> NDArray[np.float32]:
    """Value noise of zero mean and about unit variance, octaves of cell size `coarse` down to `fine` metres; (H, W)."""
    rows, columns = shape_of(width, height, density)
    total = np.zeros((rows, columns), np.float32)
    cell, gain, power = coarse, 1.0, 0.0
    while cell >= fine:
        grid = rng.standard_normal((int(height / cell) + 3, int(width / cell) + 3)).astype(np.float32)
        if cell * density >= 2:  # a cell under two texels would alias; the numbers are drawn all the same
            x = (np.arange(columns, dtype=np.float32) + 0.5) / density / cell + 0.5
            y = (np.arange(rows, dtype=np.float32) + 0.5) / density / cell + 0.5
            total += gain * cv2.remap(grid, np.tile(x, (rows, 1)), np.tile(y[:, None], (1, columns)), cv2.INTER_CUBIC)
            power += gain**2
        cell, gain = cell / 2, gain * falloff
    return total / np.float32(np.sqrt(max(power, 1e-9)) * 0.6)


def _coordinates(width: float, height: float, density: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows, columns = shape_of(width, height, density)
    x = ((np.arange(columns) + 0.5) * (width / columns)).astype(np.float32)
    y = ((np.arange(rows) + 0.5) * (height / rows)).astype(np.float32)
    return np.tile(x, (rows, 1)), np.tile(y[:, None], (1, columns))


def _tint(color: tuple[float, float, float], shade: NDArray[np.float32]) -> Image:
    return np.clip(np.asarray(color, np.float32) * shade[..., None], 0.02, 0.95)


def plaster(color: tuple[float, float, float], contrast: float = 0.1) -> Paint:
    """Roughcast wall: mottled on every scale from half a metre to a centimetre."""

    def paint(width: float, height: float, density: float, rng: np.random.Generator) -> Image:
        return _tint(color, 1 + contrast * noise(width, height, density, rng, 0.64, 0.009, 0.85))

    return paint


def wallpaper(color: tuple[float, float, float], ink: tuple[float, float, float], pitch: float = 0.16) -> Paint:
    """Rows of offset rosettes over fine mottling, each a little different so that neighbours are not twins."""

    def paint(width: float, height: float, density: float, rng: np.random.Generator) -> Image:
        x, y = _coordinates(width, height, density)
        ground = _tint(color, 1 + 0.07 * noise(width, height, density, rng, 0.64, 0.01, 0.85))
        row = np.floor(y / pitch)
        across = x / pitch + 0.5 * (row % 2)
        column = np.floor(across)
        dx, dy = (across - column - 0.5) * pitch, y - (row + 0.5) * pitch
        table = rng.random((64, 128)).astype(np.float32)
        own = table[row.astype(int) % 64, column.astype(int) % 128]
        radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
        petals = pitch * (0.22 + 0.12 * own + 0.08 * np.cos((4 + np.floor(own * 4)) * angle + 6.28 * own))
        edge = np.clip(0.5 + (petals - radius) * density / 2, 0, 1) - 0.8 * np.clip(0.5 + (petals * 0.45 - radius) * density / 2, 0, 1)
        return ground + edge[..., None] * (np.asarray(ink, np.float32) * (0.7 + 0.5 * own[..., None]) - ground)

    return paint


def wood(color: tuple[float, float, float], plank: float = 0.0, along_u: bool = True) -> Paint:
    """Grain drawn out along the fibre, in planks of a given width (0: one piece)."""

    def paint(width: float, height: float, density: float, rng: np.random.Generator) -> Image:
        stretch = 9.0
        if along_u:
            grain = noise(width / stretch, height, density, rng, 0.16, 0.005, 0.9)
            rows, columns = shape_of(width, height, density)
            grain = cv2.resize(grain, (columns, rows), interpolation=cv2.INTER_CUBIC)
        else:
            return np.ascontiguousarray(np.swapaxes(wood(color, plank)(height, width, density, rng), 0, 1))
        shade = 1 + 0.17 * grain + 0.05 * noise(width, height, density, rng, 0.3, 0.01)
        image = _tint(color, shade)
        if plank:
            x, y = _coordinates(width, height, density)
            row = np.floor(y / plank).astype(int)
            shift = rng.random(256)[row % 256]
            piece = np.floor(x / (8 * plank) + shift).astype(int)
            tone = (0.62 + 0.6 * rng.random((256, 64)))[row % 256, piece % 64].astype(np.float32)
            gap = np.minimum(
                np.abs(y / plank - np.round(y / plank)) * plank,
                np.abs(x / (8 * plank) + shift - np.round(x / (8 * plank) + shift)) * 8 * plank,
            )
            image *= (tone * np.clip(0.35 + gap / 0.006, 0.35, 1).astype(np.float32))[..., None]
        return np.clip(image, 0.02, 0.95)

    return paint


def rug(first: tuple[float, float, float], second: tuple[float, float, float], tile: float = 0.18) -> Paint:
    """A checker rug with a border and a woolly pile; the tiles differ in shade."""

    def paint(width: float, height: float, density: float, rng: np.random.Generator) -> Image:
        x, y = _coordinates(width, height, density)
        column, row = np.floor(x / tile).astype(int), np.floor(y / tile).astype(int)
        shade = (0.7 + 0.6 * rng.random((64, 64)))[row % 64, column % 64].astype(np.float32)
        image = (
            np.where(((column + row) % 2 == 0)[..., None], np.asarray(first, np.float32), np.asarray(second, np.float32)) * shade[..., None]
        )
        edge = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y))
        image = np.where(((edge > 0.05) & (edge < 0.09))[..., None], np.asarray((0.75, 0.68, 0.5), np.float32), image)
        return np.clip(image * (1 + 0.22 * noise(width, height, density, rng, 0.08, 0.008, 0.95))[..., None], 0.02, 0.95)

    return paint


def fabric(color: tuple[float, float, float], stripe: tuple[float, float, float], pitch: float = 0.09) -> Paint:
    """Striped cloth with slubs."""

    def paint(width: float, height: float, density: float, rng: np.random.Generator) -> Image:
        x, _ = _coordinates(width, height, density)
        phase = x / pitch + 0.15 * noise(width, height, density, rng, 0.3, 0.07)
        mix = np.clip(0.5 + 3 * np.sin(2 * np.pi * phase), 0, 1) * (0.3 + 0.7 * rng.random(512)[np.floor(phase).astype(int) % 512])
        image = np.asarray(color, np.float32) + mix[..., None].astype(np.float32) * (
            np.asarray(stripe, np.float32) - np.asarray(color, np.float32)
        )
        return np.clip(image * (1 + 0.16 * noise(width, height, density, rng, 0.16, 0.008, 0.9))[..., None], 0.02, 0.95)

    return paint


def blotches(*colors: tuple[float, float, float], scale: float = 0.08) -> Paint:
    """Patches of a few colours with sharp outlines: glazed pottery, balls, leaves, book spines."""

    def paint(width: float, height: float, density: float, rng: np.random.Generator) -> Image:
        field = noise(width, height, density, rng, scale, scale / 4)
        bands = np.clip((field * 0.35 + 0.5) * len(colors), 0, len(colors) - 1e-3)
        lower = np.floor(bands).astype(int)
        mix = np.clip((bands - lower - 0.5) * 8 + 0.5, 0, 1)[..., None].astype(np.float32)
        table = np.asarray(colors, np.float32)
        image = table[lower] + mix * (table[np.minimum(lower + 1, len(colors) - 1)] - table[lower])
        return np.clip(image * (1 + 0.1 * noise(width, height, density, rng, 0.04, 0.006, 0.9))[..., None], 0.02, 0.95)

    return paint


def picture(name: str, frame: tuple[float, float, float] = (0.06, 0.05, 0.04)) -> Paint:
    """A framed picture: one that scikit-image carries in its wheel (`astronaut.png`), or blotches of colour where it is not installed."""

    def paint(width: float, height: float, density: float, rng: np.random.Generator) -> Image:
        rows, columns = shape_of(width, height, density)
        photograph = _photograph(name)
        if photograph is None:
            image = blotches((0.8, 0.2, 0.1), (0.9, 0.75, 0.3), (0.1, 0.3, 0.6), (0.05, 0.1, 0.15), scale=0.3)(width, height, density, rng)
        else:
            ratio = width / height
            high, wide = photograph.shape[:2]
            crop_w, crop_h = min(wide, round(high * ratio)), min(high, round(wide / ratio))
            left, top = (wide - crop_w) // 2, (high - crop_h) // 2
            image = cv2.resize(photograph[top : top + crop_h, left : left + crop_w], (columns, rows), interpolation=cv2.INTER_AREA)
        x, y = _coordinates(width, height, density)
        edge = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y))[..., None]
        mount = np.where(edge < 0.07, np.float32(0.75), image)
        return np.clip(np.where(edge < 0.03, np.asarray(frame, np.float32), mount), 0.02, 0.95).astype(np.float32)

    return paint


def _photograph(name: str) -> Image | None:
    try:
        import skimage
    except ImportError:
        return None
    encoded = cv2.imread(str(Path(skimage.__file__).parent / "data" / name), cv2.IMREAD_COLOR)
    if encoded is None:
        return None
    return (cv2.cvtColor(encoded, cv2.COLOR_BGR2RGB).astype(np.float32) / 255) ** np.float32(2.2)
