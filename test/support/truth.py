"""How far depth images are from a simulated truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def depth_error(depths: Mapping[int, Any], confidences: Mapping[int, Any], truth: Mapping[int, Any]) -> tuple[float, float]:
    """(mean of |estimate - truth| / truth after one median scale for all, share of pixels that count); confidence 3 and more counts."""
    estimated, true, pixels = [], [], 0
    for stamp, depth in depths.items():
        chosen = (depth > 0) & (confidences[stamp] >= 3)
        estimated.append(depth[chosen])
        true.append(truth[stamp][chosen])
        pixels += depth.size
    found, expected = np.concatenate(estimated), np.concatenate(true)
    scale = np.median(expected / found)
    return float(np.mean(np.abs(found * scale - expected) / expected)), len(found) / pixels
