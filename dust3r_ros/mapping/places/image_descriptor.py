"""A picture in a few hundred numbers, to find pictures of the same place: small, without training, easily replaced by something better."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

GRID = (8, 6)  # cells across and down
BINS = 8  # of gradient direction, over half a turn
CELL = 8  # pixels of the reduced picture to a side of a cell


def image_descriptor(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H, W, 3] RGB of any size -> [480] float32 of unit length: their dot product says how alike two pictures are, at most 1.

    The first 384 are directions of the gradient in 8 x 6 cells (N. Dalal and B. Triggs, Histograms of oriented gradients, CVPR 2005), each
    cell's square root of shares, weighted by its strength; the other 96 the cells' mean chroma (Lab's a and b). Not invariant to roll: a
    picture of the same place from a camera turned upside down is not alike.
    """
    size = (GRID[0] * CELL, GRID[1] * CELL)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    across, down = (cv2.Sobel(lab[..., 0], cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    strength = np.hypot(across, down)
    angle = np.mod(np.arctan2(down, across), np.pi) / np.pi * BINS
    low = np.floor(angle)
    share = angle - low
    bins = np.zeros((*strength.shape, BINS), np.float32)
    for offset, weight in ((0, 1.0 - share), (1, share)):  # each direction is divided between its two nearest bins
        np.put_along_axis(bins, (low.astype(np.int64)[..., None] + offset) % BINS, (strength * weight)[..., None], axis=-1)
    gradients = np.sqrt(_cells(bins))
    colours = _cells(lab[..., 1:] - 128.0)
    parts = [_unit(gradients - gradients.mean()), 0.5 * _unit(colours)]
    return _unit(np.concatenate([part.ravel() for part in parts]))


def _cells(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """[H, W, C] -> [rows, columns, C] mean of each cell"""
    columns, rows = GRID
    return np.asarray(values.reshape(rows, CELL, columns, CELL, values.shape[-1]).mean(axis=(1, 3)), np.float32)


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of length 1; a picture of one colour stays 0 and is like nothing."""
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6), np.float32)
