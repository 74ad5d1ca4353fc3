"""What the views of one camera share: focal length, radial distortion, and how long it takes to read its rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.flow.bundle_equations import Observations
from dust3r_ros.geometry import Camera, row_time

Floats = NDArray[np.float64]

UNKNOWNS = 3


@dataclass(frozen=True)
class Lens:
    """Of a camera believed in so far: `exp(log_focal)` times its focal length, `x_u = x_d (1 + bend |x_d|^2)` for normalised pixels, and
    so many seconds more to read its rows.
    """

    log_focal: float
    bend: float
    readout: float = 0.0

    @property
    def vector(self) -> Floats:
        return np.array([self.log_focal, self.bend, self.readout])

    def moved(self, step: Floats) -> Lens:
        return Lens(*(self.vector + step).tolist())


class LensObservations:
    """A window's observations as pixels of the sensor, and as rays through a lens."""

    def __init__(self, observations: Observations, source: Camera, turns: Floats) -> None:
        """`observations`: rays of the believed camera `source`; `turns` [V, 3] of its views."""
        anchors, seen = _pixels(observations.rays, source), _pixels(homogeneous(observations.seen), source)
        self._observations = observations
        self._anchors, self._seen = _normalised(anchors, source), _normalised(seen, source)
        self._anchor_times, self._seen_times = (row_time(pixels[..., 1], source.height)[..., None] for pixels in (anchors, seen))
        self._anchor_turns, self._seen_turns = turns[:, None], turns[observations.pairs[:, 1]][:, None]

    def through(self, lens: Lens) -> Observations:
        """Rays; their errors stay pixels of the sensor."""
        rays = _straight(lens, self._anchors, self._anchor_turns, self._anchor_times)
        seen = _straight(lens, self._seen, self._seen_turns, self._seen_times)
        focal = self._observations.focal * np.exp(lens.log_focal)
        return replace(self._observations, rays=homogeneous(rays), seen=seen, focal=focal)


def homogeneous(pixels: Floats) -> Floats:
    return np.concatenate([pixels, np.ones((*pixels.shape[:-1], 1))], -1)


def _straight(lens: Lens, pixels: Floats, turns: Floats, times: Floats) -> Floats:
    """[..., 2] pixels over the believed focal length -> [..., 2] x / z and y / z of the camera at its middle row. Turns are small."""
    own = np.exp(-lens.log_focal) * pixels
    rays = homogeneous(own * (1 + lens.bend * np.sum(own * own, -1, keepdims=True)))
    # Turns were measured with the believed focal length: what looks across the picture turned by less if it is longer.
    turns = turns * np.array([np.exp(-lens.log_focal), np.exp(-lens.log_focal), 1.0])
    rays = rays - np.cross(np.broadcast_to(turns, rays.shape), rays) * (lens.readout * times)
    return np.asarray(rays[..., :2] / rays[..., 2:])


def _pixels(rays: Floats, source: Camera) -> Floats:
    return np.asarray(np.nan_to_num(source.project(rays)))


def _normalised(pixels: Floats, source: Camera) -> Floats:
    return np.asarray((pixels - (source.cx, source.cy)) / (source.fx, source.fy))


def is_radial(camera: Camera) -> bool:
    """Whether nothing but k1 (and the k2 that makes our polynomial the usual one) bends its rays."""
    return camera.is_pinhole or (camera.model == "plumb_bob" and not any(camera.distortion[2:]))


def believed(source: Camera) -> Lens:
    """Of a camera that `camera_with` made, or of one without distortion."""
    return Lens(0.0, -source.distortion[0] if source.distortion else 0.0)


def camera_with(source: Camera, lens: Lens) -> Camera:
    """`source` with the lens's focal length and, as k1 and k2 of plumb_bob, its distortion: fitted over the whole picture."""
    ratio = np.exp(lens.log_focal)
    fx, fy = source.fx * ratio, source.fy * ratio
    corner = np.hypot(max(source.cx, source.width - source.cx) / fx, max(source.cy, source.height - source.cy) / fy)
    distorted = np.linspace(0.0, float(corner), 50)[1:]
    straight = distorted * (1 + lens.bend * distorted**2)
    powers = np.stack([straight**3, straight**5], -1)
    k1, k2 = np.linalg.lstsq(powers, distorted - straight, rcond=None)[0]
    return replace(source, fx=fx, fy=fy, model="plumb_bob", distortion=(float(k1), float(k2), 0.0, 0.0), assumed=False)
