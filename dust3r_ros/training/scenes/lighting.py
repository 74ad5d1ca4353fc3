"""Lamps and skies, drawn for many scenes at once."""

from __future__ import annotations

import numpy as np

from dust3r_ros.training.scenes.drafting import Array, Draft, Lighting
from dust3r_ros.training.scenes.materials import Groups, draw

LAMPS = 2
SUN = 1e3  # metres: far enough to throw parallel shadows, near enough for float32


def indoors(draft: Draft, groups: Groups, lamp: Array, half: Array) -> Lighting:
    """One lamp that throws shadows at `lamp` [count, 3], one that fills them from elsewhere in the room of `half` extents."""
    n, rng = draft.count, draft.rng
    second = np.stack([half[:, 0] * draft.uniform(-0.8, 0.8), half[:, 1] * draft.uniform(-0.8, 0.8), draft.uniform(1.2, 2.2)], 1)
    size = np.square(half[:, :2]).mean(1, keepdims=True)
    colour = _white(draft, 0.15)[:, None] * (size * rng.uniform(0.8, 1.6, (n, 1)))[:, None]
    colour = np.concatenate([colour, _white(draft, 0.2)[:, None] * (size * rng.uniform(0.0, 0.8, (n, 1)))[:, None]], 1)
    ambient = _white(draft, 0.08) * rng.uniform(0.25, 0.7, (n, 1))
    up, down = ambient * rng.uniform(0.8, 1.2, (n, 1)), ambient * rng.uniform(0.5, 1.0, (n, 1))
    return Lighting(np.stack([lamp, second], 1), colour, np.ones((n, LAMPS)), up, down, *_sky(draft, groups))


def outdoors(draft: Draft, groups: Groups) -> Lighting:
    """A sun or an overcast day, the sky's light from above and the ground's from below."""
    n, rng = draft.count, draft.rng
    azimuth, height = draft.uniform(0, 2 * np.pi), draft.uniform(0.25, 1.2)
    sun = SUN * np.stack([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)], 1)
    strength = np.where(draft.chance(0.7), draft.uniform(1.0, 2.5), draft.uniform(0.0, 0.3))
    colour = np.array([1.05, 1.0, 0.9]) * _white(draft, 0.08) * strength[:, None]
    sky, clouds = _sky(draft, groups)
    up = np.array([0.9, 1.0, 1.1]) * rng.uniform(0.5, 1.0, (n, 1))
    second = np.zeros_like(colour)
    falls = np.zeros((n, LAMPS))
    return Lighting(
        np.stack([sun, sun * [-1, -1, 1]], 1), np.stack([colour, second], 1), falls, up, up * rng.uniform(0.3, 0.6, (n, 1)), sky, clouds
    )


def _sky(draft: Draft, groups: Groups) -> tuple[Array, Array]:
    n, rng = draft.count, draft.rng
    horizon = np.array([0.9, 0.95, 1.0]) * rng.uniform(0.7, 1.6, (n, 1)) * _white(draft, 0.1)
    blue = np.array([0.25, 0.45, 0.9]) * rng.uniform(0.8, 1.4, (n, 1))
    zenith = np.where(draft.chance(0.65)[:, None], blue, horizon * rng.uniform(0.6, 0.9, (n, 1)))
    clouds = draw(groups, rng, n, ["noise"], (1.0, 3.0), (0.8, 1.0), 0.0)
    return np.stack([horizon, zenith], 1), clouds


def _white(draft: Draft, spread: float) -> Array:
    return 1 + draft.rng.uniform(-spread, spread, (draft.count, 1)) * np.array([1.0, 0.1, -1.0])
