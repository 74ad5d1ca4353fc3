"""Pointmaps that are a depth map seen by a camera: every point lies on its pixel's ray, and the second view is moved as one.

A head that gives x, y and z of every pixel has to learn that of each of them. Here a pixel gives its depth alone, and all tokens of a view
together its focal length and, for the second view, its pose: as in VGGT (Wang et al., CVPR 2025), whose camera is read off tokens too, but
composed to the pointmaps that DUSt3R is trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import Mlp
from dust3r_ros.network.config import NetworkConfig
from dust3r_ros.network.heads import Grid, Pointmap, confidence_of, exact, start_small, unpatched

QUERIES = 4  # ways in which a view's tokens are averaged for the camera
FOCAL, ROTATION, TRANSLATION = slice(0, 1), slice(1, 7), slice(7, 10)  # what is said of the camera
FIRST_FOCAL = 0.87  # in units of the longer side: 60 degrees across
CAMERA_SPREAD = 0.002  # of the first weights that the camera is made with
LARGEST_LOG = 8.0  # of depth and focal length

Pose = tuple[Tensor, Tensor]  # rotations [B, 3, 3] and translations [B, 3]


class CameraHead(nn.Module):
    """Depth and confidence of every pixel, and the view's camera."""

    def __init__(self, config: NetworkConfig, is_first: bool) -> None:
        super().__init__()
        self.patch_size, self.is_first = config.patch_size, is_first
        width = config.decoder_width
        self.proj = nn.Linear(width, 2 * config.patch_size**2)
        self.attend = nn.Linear(width, QUERIES)
        self.camera = Mlp(QUERIES * width, 2 * width, FOCAL.stop if is_first else TRANSLATION.stop)

    def pointmap(self, levels: Sequence[Tensor], grid: Grid, detail: Tensor | None = None) -> Pointmap:  # noqa: ARG002
        """Tokens of every level, each [B, N, C], to points in camera 1's frame and their confidence."""
        tokens = levels[-1]
        raw = unpatched(exact(self.proj, tokens), grid, self.patch_size).float()
        camera = self._camera(tokens)
        focal = FIRST_FOCAL * max(raw.shape[2:]) * camera[:, FOCAL].clamp(-LARGEST_LOG, LARGEST_LOG).exp()
        depth = raw[:, 0].clamp(-LARGEST_LOG, LARGEST_LOG).exp()
        points = depth[..., None] * rays(raw.shape[2], raw.shape[3], focal)
        if not self.is_first:
            rotation, translation = pose_of(camera)
            with torch.autocast(tokens.device.type, enabled=False):  # a product of matrices: training would round the points
                points = torch.einsum("bij,bhwj->bhwi", rotation, points) + translation[:, None, None]
        return points, confidence_of(raw[:, 1])

    def pose(self, levels: Sequence[Tensor]) -> Pose:
        """Of the second view: its camera to camera 1. Translations are in the pointmaps' unit."""
        return pose_of(self._camera(levels[-1]))

    def _camera(self, tokens: Tensor) -> Tensor:
        """[B, 1] or [B, 10], in float32."""
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            weights = self.attend(tokens).softmax(dim=1)
            return self.camera(torch.einsum("bnq,bnc->bqc", weights, tokens).flatten(1))

    @property
    def last_layers(self) -> Sequence[nn.Module]:
        return (self.proj, self.attend, self.camera)

    @torch.no_grad()
    def start_flat(self, depth: float) -> None:
        """The first pointmap is a wall, `depth` the logarithm of its distance; both cameras are where the first one is."""
        start_small(self.camera.fc2, CAMERA_SPREAD)
        start_small(self.proj).view(2, -1)[0] = depth


def rays(height: int, width: int, focal: Tensor) -> Tensor:
    """Of every pixel's middle, [B, H, W, 3] with z = 1, for focal lengths [B, 1] in pixels; the principal point is the picture's middle."""
    v = torch.arange(height, dtype=torch.float32, device=focal.device) - (height - 1) / 2
    u = torch.arange(width, dtype=torch.float32, device=focal.device) - (width - 1) / 2
    x, y = u / focal, v / focal
    across, down = x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)
    return torch.stack([across, down, torch.ones_like(across)], dim=-1)


def pose_of(camera: Tensor) -> Pose:
    """What is said of second cameras, [B, 10]."""
    return rotation_of(camera[:, ROTATION]), camera[:, TRANSLATION]


def rotation_of(six: Tensor) -> Tensor:
    """[B, 6] to rotations [B, 3, 3]: two columns beside the identity's, made orthonormal (Zhou et al., CVPR 2019)."""
    across, down, _ = torch.eye(3, dtype=six.dtype, device=six.device)  # made there: nothing is copied while a CUDA graph is recorded
    first, second = six[:, :3] + across, six[:, 3:] + down
    one = F.normalize(first, dim=-1)
    two = F.normalize(second - (one * second).sum(-1, keepdim=True) * one, dim=-1)
    return torch.stack([one, two, torch.cross(one, two, dim=-1)], dim=-1)
