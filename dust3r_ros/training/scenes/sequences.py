"""A smooth camera path through one generated scene, for mapping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dust3r_ros.training.scenes.atlas import Atlas
from dust3r_ros.training.scenes.cameras import clearance, intrinsics_of, looking_at
from dust3r_ros.training.scenes.composition import composed
from dust3r_ros.training.scenes.config import SPLITS, PairsConfig, SceneError
from dust3r_ros.training.scenes.meshes import load_meshes
from dust3r_ros.training.scenes.rendering import Renderer
from dust3r_ros.training.scenes.sensor import encoded
from dust3r_ros.training.scenes.solids import Scenes
from dust3r_ros.training.scenes.standpoints import Standpoints

PATHS = 24  # paths that are tried
KNOTS = 6  # of a path
STREAM = 1 << 40  # sequences are drawn from numbers beyond every step's


@dataclass(frozen=True, eq=False)
class GeneratedSequence:
    """N views of one scene along a path, in the order of time; poses camera to scene, OpenCV axes, metres."""

    images: NDArray[np.uint8]  # [N, H, W, 3] RGB
    depth: NDArray[np.float32]  # [N, H, W] along z in metres; 0 for the sky
    poses: NDArray[np.float64]  # [N, 4, 4]
    intrinsics: tuple[float, float, float, float]  # fx, fy, cx, cy in pixels, of all views


@torch.no_grad()
def sequence(seed: int, frames: int, config: PairsConfig | None = None, *, step: float = 0.03, field_of_view: float = 70.0,
             split: str = "held_out", device: torch.device | str = "cpu") -> GeneratedSequence:  # fmt: skip
    """`frames` views with `step` of the scene's own size (its clear depth) from one to the next, and `field_of_view` degrees across.

    Size, kinds and textures are those of `config`; exposure is one for all frames, and no noise is added. The path keeps clear of solids.
    Raises SceneError for fewer than two frames.
    """
    if frames < 2:
        raise SceneError(f"frames is {frames}: a sequence takes at least 2")
    config = config or PairsConfig()
    rng = np.random.default_rng([seed, SPLITS.index(split), STREAM])
    atlas = Atlas.of(config.scene, device)
    meshes = None if config.scene.meshes is None else load_meshes(config.scene.meshes, config.scene.mesh_triangles)
    scene, stand = composed(config.scene, atlas.groups, meshes, 1, int(rng.integers(2**16)), rng)[0]
    scene = scene.to(device)
    pose = _path(scene, stand, frames, step, rng)
    intrinsics = intrinsics_of(config.width, config.height, torch.tensor([field_of_view]).deg2rad(), torch.zeros(1, 2)).to(device)
    renderer = Renderer(atlas, config.width, config.height, config.compile)
    index = torch.zeros(frames, dtype=torch.long, device=device)
    light, depth = renderer.render(scene, index, intrinsics.expand(frames, -1), pose)
    images = (encoded(light * (0.26 / light.mean())) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    seen = torch.where(torch.isfinite(depth), depth, 0.0)
    fx, fy, cx, cy = (float(value) for value in intrinsics[0])
    return GeneratedSequence(images.cpu().numpy(), seen.cpu().numpy(), pose.double().cpu().numpy(), (fx, fy, cx, cy))


def _path(scene: Scenes, stand: Standpoints, frames: int, step: float, rng: np.random.Generator) -> Tensor:
    """The clearest of some smooth paths [frames, 4, 4]: splines through knots around a standpoint, looking at a point that wanders."""
    device = scene.to_unit.device
    length = step * float(stand.near[0]) * frames
    start = stand.positions[0][rng.integers(len(stand.positions[0]), size=PATHS)]
    target = stand.targets[0][rng.integers(len(stand.targets[0]), size=PATHS)]
    sway = np.cumsum(rng.normal(size=(PATHS, KNOTS, 3)) * [1, 1, 0.15], axis=1)
    knots = np.clip(start[:, None] + sway * length / (1.4 * KNOTS), stand.low[0], stand.high[0])
    aims = target[:, None] + rng.normal(size=(PATHS, KNOTS, 3)) * 0.12 * np.linalg.norm(target - start, axis=1)[:, None, None]
    time = np.linspace(0, KNOTS - 1, frames)
    position, aim = (torch.from_numpy(_spline(value, time)).float().to(device) for value in (knots, aims))
    clear = clearance(scene, position.reshape(1, -1, 3)).view(PATHS, frames).amin(1)
    far = (aim - position).square().sum(-1).sqrt().amin(1)
    best = torch.minimum(clear, 0.2 * far).argmax()
    return looking_at(position[best], aim[best], torch.zeros(frames, device=device))


def _spline(knots: NDArray[np.float64], time: NDArray[np.float64]) -> NDArray[np.float64]:
    """[PATHS, frames, 3] through `knots` [PATHS, KNOTS, 3]."""
    from scipy.interpolate import CubicSpline

    return CubicSpline(np.arange(knots.shape[1]), knots, axis=1, bc_type="natural")(time)
