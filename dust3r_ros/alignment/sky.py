"""Where a picture shows the sky, whose depth no camera can tell. Without a network, and rather too little than too much.

Not from the DUSt3R or MASt3R papers. Two kinds of sky are known. Blue sky has a colour that little else has: blue above red, and bright.
Overcast sky is grey like a ceiling, but it has no corners, and it is the lamp: next to nothing that it lights is as bright, while a
ceiling ends at walls that are about as bright as itself.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.align import AlignmentError

SIDE = 256  # pixels of the longer side of the picture that is judged
CLOUDY, OVERCAST = 12.0, 2.5  # grey levels, standard deviation over 5x5 pixels, in a blue sky with clouds and in a grey one
BLUE = 0.12  # (blue - red) / blue
DARKEST_BLUE = 70.0  # grey levels of the blue channel
GREY = 0.12  # (largest - least channel) / largest
WARM = 0.03  # (red - blue) / red: lamps are warmer than this, overcast sky is not
DARKEST_GREY = 160.0  # grey levels of the green channel
LIT = 0.75  # of the overcast sky's grey level: all but 5 % of what it lights is darker
MIN_WIDTH = 0.15  # of the top border
MIN_AREA = 0.04  # of the picture
MIN_BLUE = 0.2  # of the region: the rest may be clouds
MIN_REST = 0.1  # of the picture: without anything under it a white region tells nothing


def sky_mask(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """[H, W, 3] RGB to [H, W] bool: sky that reaches the top of the picture. All False when in doubt.

    Smooth regions of a sky's colour that hold 15 % of the top border. Blue ones, with clouds or without, are believed if they are not
    darker than the rest of the picture; grey ones only if they have no edges in them and what is not sky is clearly darker. Missed: sky at
    night and at sunset, overcast sky over snow or through branches and wires, sky that does not reach the top. Mistaken for it: a plain
    light blue wall, and a white one without a shadow on it when all else is dark. In a picture on its side the top border is elsewhere.

    Raises AlignmentError unless the picture is uint8 of [H, W, 3].
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise AlignmentError(f"a picture of {image.dtype} {image.shape} has no sky mask: uint8 of [H, W, 3] is needed")
    height, width = image.shape[:2]
    shrink = min(1.0, SIDE / max(height, width))
    small = cv2.resize(image, (max(1, round(width * shrink)), max(1, round(height * shrink))), interpolation=cv2.INTER_AREA)
    luminance = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32), (3, 3), 0)
    roughness = _roughness(luminance)
    blue, grey = _colours(small.astype(np.float32))
    found = np.zeros(luminance.shape, bool)
    for region in _from_the_top(blue | grey, roughness <= CLOUDY):
        if blue[region].mean() >= MIN_BLUE and _brighter(region, luminance, 0.5, 1.0):
            found |= region
    for region in _from_the_top(grey, roughness <= OVERCAST):
        if _brighter(region, luminance, 0.95, LIT):
            found |= region
    return np.asarray(cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5)


def _colours(levels: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[H, W] each: pixels of blue sky's colour, pixels of cloud's."""
    r, g, b = levels[..., 0], levels[..., 1], levels[..., 2]
    blue = (b >= DARKEST_BLUE) & (b - r >= BLUE * b) & (g >= r - 4) & (b >= g - 4)
    spread = levels.max(-1) - levels.min(-1)
    grey = (g >= DARKEST_GREY) & (spread <= GREY * levels.max(-1)) & (r - b <= WARM * r)
    return blue, grey


def _roughness(luminance: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = cv2.blur(luminance, (5, 5))
    return np.asarray(np.sqrt(np.maximum(cv2.blur(luminance * luminance, (5, 5)) - mean * mean, 0)), np.float32)


def _from_the_top(coloured: NDArray[np.bool_], smooth: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The connected regions that are coloured and smooth, and hold enough of the top border and of the picture."""
    seeds = cv2.morphologyEx((coloured & smooth).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels = cv2.connectedComponents(seeds, connectivity=4)
    touching, widths = np.unique(labels[0][labels[0] > 0], return_counts=True)
    # At the skyline smoothness has lost three pixels of sky.
    regions = [_dilated(labels == label, 7) & coloured for label in touching[widths >= MIN_WIDTH * labels.shape[1]]]
    return [region for region in regions if region.sum() >= MIN_AREA * region.size]


def _brighter(region: NDArray[np.bool_], luminance: NDArray[np.float32], quantile: float, share: float) -> bool:
    """Whether that quantile of the rest is at most this share of the region's median."""
    # What lies under the first thing in a column counts as the rest: between the lines of a printed page the paper is as bright as above.
    first_run = np.logical_and.accumulate(region, axis=0)
    rest = luminance[~_dilated(first_run, 7)]
    return len(rest) >= MIN_REST * luminance.size and bool(np.quantile(rest, quantile) <= share * np.median(luminance[region]))


def _dilated(mask: NDArray[np.bool_], across: int) -> NDArray[np.bool_]:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((across, across), np.uint8)) > 0)
