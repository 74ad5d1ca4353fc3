"""Texture layers that are computed: multi-scale noise and patterns. Square, tiling, sRGB 0..1 [size, size, 3] float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Layer = NDArray[np.float32]


def noise(size: int, rng: np.random.Generator) -> Layer:
    """Noise with a power spectrum of f^-a (a from 1.2 to 3.2), with colours that vary together or each for itself."""
    grey = spectrum(size, rng, rng.uniform(1.2, 3.2))
    colours = np.stack([spectrum(size, rng, rng.uniform(1.6, 3.2)) for _ in range(3)], -1)
    own = rng.choice([0.0, 0.3, 0.7])
    return _picture(0.5 + rng.uniform(0.1, 0.22) * ((1 - own) * grey[..., None] + own * colours))


def spectrum(size: int, rng: np.random.Generator, slope: float) -> Layer:
    """A tiling random field of zero mean and unit variance with a power spectrum of f^-slope."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    f[0, 0] = np.inf
    wave = np.fft.rfft2(rng.standard_normal((size, size))) * f ** (-slope / 2)
    field = np.fft.irfft2(wave, s=(size, size))
    return (field / field.std()).astype(np.float32)


def bricks(size: int, rng: np.random.Generator) -> Layer:
    rows = int(rng.choice([4, 6, 8, 12, 16]))
    return _blocks(size, rng, rows, max(1, rows // int(rng.choice([2, 3]))), 0.5)


def tiles(size: int, rng: np.random.Generator) -> Layer:
    count = int(rng.choice([2, 4, 6, 8]))
    return _blocks(size, rng, count, count, 0.0)


def boards(size: int, rng: np.random.Generator) -> Layer:
    """Boards with grain along them."""
    y, _ = _coordinates(size)
    count = int(rng.choice([2, 4, 6, 8]))
    board = np.floor(y * count).astype(int)
    shade = rng.uniform(0.7, 1.1, count)[board]
    warp = spectrum(size, rng, 3.0)
    grain = np.sin(2 * np.pi * (y * int(rng.integers(24, 60)) + 0.7 * warp + rng.random(count)[board] * 7))
    gap = _line(y * count, 0.012 * count)
    tone = shade * (1 + 0.09 * grain + 0.1 * spectrum(size, rng, 2.0)) * (1 - 0.6 * gap)
    return _picture(_colour(rng, warm=True) * tone[..., None])


def checks(size: int, rng: np.random.Generator) -> Layer:
    y, x = _coordinates(size)
    count = 2 * int(rng.integers(1, 7))
    chosen = (np.floor(y * count) + np.floor(x * count)) % 2
    return _two_colours(size, rng, chosen.astype(np.float32))


def stripes(size: int, rng: np.random.Generator) -> Layer:
    y, x = _coordinates(size)
    waves = rng.integers(-12, 13, 2)
    waves[0] += 3 if not waves.any() else 0
    sharp = rng.choice([1.0, 8.0])
    return _two_colours(size, rng, np.clip(0.5 + sharp * 0.5 * np.sin(2 * np.pi * (waves[0] * x + waves[1] * y)), 0, 1))


def spots(size: int, rng: np.random.Generator) -> Layer:
    """Discs of all sizes, over each other: leaves, pebbles, confetti."""
    y, x = _coordinates(size)
    picture = np.tile(_colour(rng), (size, size, 1))
    palette = [_colour(rng) for _ in range(5)]
    for _ in range(int(rng.integers(30, 160))):
        middle, radius = rng.random(2), 0.12 * rng.random() ** 2 + 0.01
        dx, dy = (np.abs((a - b + 0.5) % 1 - 0.5) for a, b in ((x, middle[0]), (y, middle[1])))
        cover = np.clip(0.5 + (radius - np.hypot(dx, dy)) * size / 2, 0, 1)[..., None]
        picture += cover * (palette[rng.integers(5)] * rng.uniform(0.7, 1.2) - picture)
    return _picture(picture * (1 + 0.05 * spectrum(size, rng, 1.5)[..., None]))


def writing(size: int, rng: np.random.Generator) -> Layer:
    """Lines of strokes in words: print on paper, signs, labels."""
    lines = int(rng.choice([4, 6, 10, 14]))
    ink = np.zeros((size, size), np.float32)
    pitch = size / lines
    for line in range(lines):
        column = int(rng.integers(2, size // 6))
        while column < size - pitch:
            for _ in range(int(rng.integers(2, 9))):  # letters of a word: an upright, a bar, or both
                top, height, width = int((line + 0.2) * pitch), max(2, int(0.6 * pitch)), max(2, int(0.35 * pitch))
                thick = max(1, int(0.09 * pitch))
                if rng.random() < 0.8:
                    ink[top : top + height, column : column + thick] = 1
                if rng.random() < 0.5:
                    ink[top : top + height, column + width - thick : column + width] = 1
                bar = top + int(rng.integers(0, 3)) * (height - thick) // 2
                ink[bar : bar + thick, column : column + width] = 1
                column += int(1.35 * width)
                if column >= size - pitch:
                    break
            column += int(0.5 * pitch)
    return _two_colours(size, rng, ink, strong=True)


def windows(size: int, rng: np.random.Generator) -> Layer:
    """A house front: rows of windows with frames, glass of differing brightness, some with a cross."""
    y, x = _coordinates(size)
    rows, columns = int(rng.choice([2, 3, 4])), int(rng.choice([2, 3, 4]))
    u, v = (x * columns) % 1 - 0.5, (y * rows) % 1 - 0.5
    half_u, half_v, frame = rng.uniform(0.16, 0.38), rng.uniform(0.2, 0.4), rng.uniform(0.02, 0.06)
    glass = (np.abs(u) < half_u) & (np.abs(v) < half_v)
    around = (np.abs(u) < half_u + frame) & (np.abs(v) < half_v + frame) & ~glass
    around |= glass & ((np.abs(u) < frame / 2) | (np.abs(v + half_v / 3) < frame / 2)) & (rng.random() < 0.7)
    own = rng.uniform(0.05, 0.6, (rows, columns))[(y * rows).astype(int), (x * columns).astype(int)]
    wall = (
        _blocks(size, rng, 8 * rows, 4 * columns, 0.5)
        if rng.random() < 0.4
        else _picture(_colour(rng) * (1 + 0.1 * spectrum(size, rng, 2.0))[..., None])
    )
    shine = own * (1 + 0.25 * np.sin(5 * (u + v))) * (1 + 0.2 * spectrum(size, rng, 2.5))
    picture = np.where(around[..., None], _colour(rng) * rng.uniform(0.3, 1.2), wall)
    return _picture(np.where((glass & ~around)[..., None], shine[..., None] * np.array([0.85, 0.95, 1.1]), picture))


PATTERNS: dict[str, Callable[[int, np.random.Generator], Layer]] = {
    "brick": bricks, "tile": tiles, "board": boards, "check": checks,
    "stripe": stripes, "spot": spots, "writing": writing, "window": windows,
}  # fmt: skip


def _blocks(size: int, rng: np.random.Generator, rows: int, columns: int, shift: float) -> Layer:
    y, x = _coordinates(size)
    row = np.floor(y * rows).astype(int)
    across = x * columns + shift * (row % 2)
    column = np.floor(across).astype(int) % columns
    shade = rng.uniform(0.75, 1.1, (rows, columns))[row, column]
    hue = 1 + 0.06 * rng.standard_normal((rows, columns, 3))[row, column]
    width = rng.uniform(0.02, 0.08)
    joint = np.maximum(_line(y * rows, width), _line(across, width * columns / rows))
    block = _colour(rng) * hue * (shade * (1 + 0.08 * spectrum(size, rng, 1.8)))[..., None]
    return _picture(block + joint[..., None] * (_colour(rng) * 0.8 - block))


def _two_colours(size: int, rng: np.random.Generator, share: Layer, strong: bool = False) -> Layer:
    a, b = _colour(rng), _colour(rng)
    if strong or np.abs(a - b).sum() < 0.4:
        a, b = (0.85 + 0.1 * a, 0.3 * b) if rng.random() < 0.7 else (0.3 * b, 0.85 + 0.1 * a)
    return _picture((a + share[..., None] * (b - a)) * (1 + 0.06 * spectrum(size, rng, 1.8)[..., None]))


def _colour(rng: np.random.Generator, warm: bool = False) -> NDArray[np.float64]:
    if warm:
        return np.array([0.75, 0.52, 0.32]) * rng.uniform(0.5, 1.2) * rng.uniform(0.85, 1.15, 3)
    return rng.uniform(0.25, 0.85) + rng.uniform(-0.3, 0.3, 3) * rng.choice([0.3, 1.0])


def _coordinates(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    middle = (np.arange(size) + 0.5) / size
    return np.repeat(middle[:, None], size, 1), np.repeat(middle[None], size, 0)


def _line(value: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """1 beside whole numbers."""
    return np.clip(1.5 - np.abs((value + 0.5) % 1 - 0.5) / max(width, 1e-3) * 1.5, 0, 1)


def _picture(value: NDArray[np.floating]) -> Layer:
    return np.clip(value, 0.01, 0.99).astype(np.float32)
