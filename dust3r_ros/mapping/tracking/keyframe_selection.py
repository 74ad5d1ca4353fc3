"""Which frames become keyframes: moved enough, not too often, and neither blurred nor saturated."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.mapping.config import KeyframeConfig

BLACK, WHITE = 3, 252  # grey levels at and beyond which a pixel says nothing
PEERS = 15  # frames that sharpness is compared with
FIRST_PARALLAX = 0.5  # of the set parallax: enough for the first two keyframes, whose depth the next ones soon correct
WAITS_AT_MOST = 5  # a camera that stays blurred gets its keyframe all the same


@dataclass(frozen=True)
class Choice:
    is_due: bool
    reason: str


class KeyframeSelector:
    """Decides frame by frame; remembers when the last keyframe was and how sharp its recent peers were."""

    def __init__(self, config: KeyframeConfig) -> None:
        self.config = config
        self._sharpness: deque[float] = deque(maxlen=PEERS)
        self._last_stamp: int | None = None
        self._waited = 0

    def reset(self) -> None:
        self._sharpness.clear()
        self._last_stamp, self._waited = None, 0

    def other_camera(self) -> None:
        """The next frames are another camera's: how sharp those before were says nothing of them."""
        self._sharpness.clear()

    def choose(
        self,
        stamp: int,
        grey: NDArray[np.uint8],
        parallax: float | None,
        overlap: float,
        baseline: float | None = None,
        new_share: float = 0.0,
    ) -> Choice:
        """Is this frame due? `parallax` is a share of the width (None: no keyframe yet), `overlap` the share of points still seen,
        `baseline` the way from the last keyframe as a share of its median depth (None while there is no map), `new_share` the share of
        the picture that the last keyframe has not seen.
        """
        typical = float(np.median(self._sharpness)) if self._sharpness else None
        sharpness = self.see(grey)
        because = self._due(stamp, parallax, overlap, baseline, new_share)
        if not because.is_due:
            return because
        waits = self._quality(grey, sharpness, sharpness if typical is None else typical)
        if waits is not None and (parallax is None or self._waited < WAITS_AT_MOST):
            self._waited += 1
            return Choice(False, waits)
        return because

    def see(self, grey: NDArray[np.uint8]) -> float:
        """How sharp a frame is: the variance of its Laplacian, in grey levels squared. Later ones are compared with it."""
        sharpness = float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1][0, 0] ** 2)
        self._sharpness.append(sharpness)
        return sharpness

    def accepted(self, stamp: int) -> None:
        """The chosen frame is a keyframe now."""
        self._last_stamp, self._waited = stamp, 0

    def _due(self, stamp: int, parallax: float | None, overlap: float, baseline: float | None, new_share: float) -> Choice:
        config = self.config
        if parallax is None or self._last_stamp is None:
            return Choice(True, "first frame")
        elapsed = (stamp - self._last_stamp) * 1e-9
        if config.max_rate > 0 and elapsed < 0.999 / config.max_rate:
            return Choice(False, f"{elapsed:.2f} s since the last keyframe, at most {config.max_rate:g} a second")
        if parallax >= config.min_parallax * (FIRST_PARALLAX if baseline is None else 1.0):
            return Choice(True, f"parallax {100 * parallax:.1f} % of the width")
        if baseline is not None and 0 < config.min_baseline <= baseline:
            return Choice(True, f"moved {100 * baseline:.0f} % of the median depth")
        if overlap < config.min_overlap:
            return Choice(True, f"overlap fell to {100 * overlap:.0f} %")
        if new_share > config.max_new:
            return Choice(True, f"{100 * new_share:.0f} % of the picture is new")
        if config.max_interval > 0 and elapsed >= config.max_interval and parallax >= 0.25 * config.min_parallax:
            return Choice(True, f"{elapsed:.1f} s since the last keyframe")
        return Choice(False, f"parallax {100 * parallax:.1f} % of the width, overlap {100 * overlap:.0f} %")

    def _quality(self, grey: NDArray[np.uint8], sharpness: float, typical: float) -> str | None:
        """Why this frame should wait for a better one; None if it need not."""
        spoilt = float(((grey <= BLACK) | (grey >= WHITE)).mean())
        if spoilt > self.config.max_saturation:
            return f"waits: {100 * spoilt:.0f} % of the pixels are black or white"
        if sharpness < self.config.min_sharpness * typical:
            return f"waits: blurred (sharpness {100 * sharpness / typical:.0f} % of its peers')"
        return None
