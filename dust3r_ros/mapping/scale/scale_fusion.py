"""Scale from several sources: those that agree, weighted by the inverse of their variance."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

log = logging.getLogger(__name__)

NONE = "none"
# What is wrong with all samples of a source alike, one standard deviation: a wheel's radius, a sensor's calibration, what a floor is not.
SYSTEMATIC = {"odometry": 0.01, "depth": 0.01, "height": 0.02, "network": 0.1, "rig": 0.01, "saved": 0.0}
GATE = 3.0  # standard deviations beyond which two sources contradict each other


@dataclass(frozen=True)
class MapScale:
    """Whether a map unit is a metre, and who says so."""

    source: str = NONE  # names joined by '+'; "none": a unit is the first keyframe's median depth
    uncertainty: float = math.nan  # one standard deviation as a share of the scale; NaN where it is not known

    @property
    def is_metric(self) -> bool:
        return self.source != NONE


@dataclass(frozen=True)
class SourceScale:
    """What one source says: log of metres per map unit, and the standard deviation that chance alone gives it."""

    log_scale: float
    deviation: float


@dataclass(frozen=True)
class FusedScale:
    log_scale: float
    deviation: float  # of chance alone
    scale: MapScale
    contradicting: tuple[str, ...] = ()  # sources that are left out


def fused(found: Mapping[str, SourceScale]) -> FusedScale | None:
    """The largest group of sources that agree with its most certain one (of groups as large, the more certain); None without any."""
    if not found:
        return None
    variance = {name: one.deviation**2 + SYSTEMATIC[name] ** 2 for name, one in found.items()}

    def agree(anchor: str) -> list[str]:
        return [n for n in found if abs(found[n].log_scale - found[anchor].log_scale) <= GATE * math.sqrt(variance[n] + variance[anchor])]

    anchor = min(found, key=lambda name: (-len(agree(name)), variance[name]))
    group = agree(anchor)
    weight = {name: 1.0 / max(variance[name], 1e-12) for name in group}
    total = sum(weight.values())
    mean = sum(weight[name] * found[name].log_scale for name in group) / total
    deviation = math.sqrt(sum((weight[name] / total * found[name].deviation) ** 2 for name in group))
    # A source that hardly counts is not one that the scale comes from.
    names = [name for name in group if weight[name] > 0.02 * total]
    return FusedScale(
        mean, deviation, MapScale("+".join(names), math.sqrt(1.0 / total)), tuple(name for name in found if name not in group)
    )
