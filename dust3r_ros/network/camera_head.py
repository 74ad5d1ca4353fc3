"""Pointmaps that are a depth map seen by a camera: every point lies on its pixel's ray, and the second view is moved as one.

A head that gives x, y and z of every pixel has to learn that of each of them. Here a pixel gives its depth alone. Cameras are what the
pair's matches say (`pair_geometry`), mended by what all tokens of a view say together (as in VGGT, Wang et al., CVPR 2025) in units of what
the matches leave open, and composed to the pointmaps that DUSt3R is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import Mlp
from dust3r_ros.network.config import FINE_WIDTH, MATCHED_CELL, NetworkConfig
from dust3r_ros.network.heads import Grid, Pointmap, confidence_of, exact, start_small, unpatched
from dust3r_ros.network.match_refinement import FINE_CELL, Cells
from dust3r_ros.network.pair_geometry import PairGeometry
from dust3r_ros.network.two_view_reprojection import MatchedView

QUERIES = 4  # ways in which a view's tokens are averaged for the camera
FOCAL, ROTATION, TRANSLATION = slice(0, 1), slice(1, 7), slice(7, 10)  # what is said of the camera
CAMERA_SPREAD = 0.002  # of the first weights that the camera is mended with
LARGEST_LOG = 8.0  # of depth
LARGEST_MEND = 1.0  # of the logarithm of a focal length
FROM_TOKENS, BETWEEN = 16, 32  # channels at half the picture's size
RAW_CHANNELS = 3  # log depth, log confidence, and how far the depth is that of the matches
EVEN = math.log(0.12)  # log sigma of the matches' log depth at which, at first, half of it counts
ALONE, LEAST_SIGMA = 0.25, 0.01  # sigma of log depth by one picture, and what is never undercut
SURER = 0.5  # of the logarithm: by how much confidence follows that, at first
LARGEST_SIGMA = 0.5  # in units of which the camera is mended, at most
FIRM_TURN, FIRM_MOVE = 0.02, 0.06  # sigmas under which cameras stay as matches have them: on real pictures what tokens say is no better

Pose = tuple[Tensor, Tensor]  # rotations [B, 3, 3] and translations [B, 3]


class CameraHead(nn.Module):
    """Depth and confidence of every pixel, and the view's camera."""

    def __init__(self, config: NetworkConfig, is_first: bool) -> None:
        super().__init__()
        self.patch_size, self.shrink, self.is_first = config.inner_patch, config.shrink, is_first
        width = config.decoder_width
        self.proj = nn.Linear(width, 2 * self.patch_size**2)
        self.attend = nn.Linear(width, QUERIES)
        self.camera = Mlp(QUERIES * width, 2 * width, FOCAL.stop if is_first else TRANSLATION.stop)
        self.to_half = nn.Linear(width, FROM_TOKENS * (self.patch_size // FINE_CELL) ** 2)
        self.conv = nn.Conv2d(FROM_TOKENS + FINE_WIDTH + 2, BETWEEN, 3, padding=1)
        self.last = nn.Conv2d(BETWEEN, RAW_CHANNELS * FINE_CELL**2, 3, padding=1)
        self.enlarging = Enlarging(config.detail_width, config.shrink) if config.detail_width else None

    def pointmap(self, levels: Sequence[Tensor], grid: Grid, geometry: PairGeometry, own: Cells) -> Pointmap:
        """Tokens of every level, each [B, N, C], to points in camera 1's frame and their confidence.

        geometry: of the pair, whatever the view; own: what the view's cells are matched by.
        """
        tokens, cameras = levels[-1], geometry.cameras
        cells = (cameras.log_depth_1, cameras.log_sigma_1) if self.is_first else (cameras.log_depth_2, cameras.log_sigma_2)
        known = torch.stack(cells, dim=1).unflatten(2, (-1, grid[1] * self.patch_size // MATCHED_CELL))
        depth, confidence = self._depth(tokens, grid, known, own)
        focal, principal = self.log_focal(levels, geometry).exp(), self.shrink * self._prior(geometry).principal
        points = depth.exp()[..., None] * rays(depth.shape[1], depth.shape[2], focal, principal)
        if not self.is_first:
            rotation, translation = self.pose(levels, geometry)
            with torch.autocast(tokens.device.type, enabled=False):  # a product of matrices: training would round the points
                points = torch.einsum("bij,bhwj->bhwi", rotation, points) + translation[:, None, None]
        return points, confidence

    def _depth(self, tokens: Tensor, grid: Grid, known: Tensor, own: Cells) -> tuple[Tensor, Tensor]:
        """Log depth [B, H, W] and confidence. known: log depth of the cells and its log sigma [B, 2, h, w].

        What the tokens say is first brought to the scale of what the matches say, by those pixels where that counts.
        """
        height, width = (n * self.patch_size * self.shrink for n in grid)
        patches = unpatched(exact(self.proj, tokens), grid, self.patch_size).float()
        at_half = F.interpolate(known, size=own.fine.shape[2:], mode="bilinear", align_corners=False)
        from_tokens = unpatched(self.to_half(tokens.to(self.to_half.weight.dtype)), grid, self.patch_size // FINE_CELL)
        seen = torch.cat([from_tokens, own.fine.to(from_tokens.dtype), at_half.to(from_tokens.dtype)], dim=1)
        raw = F.pixel_shuffle(exact(self.last, F.gelu(self.conv(seen))), FINE_CELL).float()
        raw = torch.cat([patches + raw[:, :2], raw[:, 2:]], dim=1)
        if self.enlarging is not None:
            raw = self.enlarging(raw, own.detail)
        of_matches, log_sigma = F.interpolate(known, size=(height, width), mode="bilinear", align_corners=False).unbind(1)
        depth, sure, trusted = raw.unbind(1)
        trust = (trusted + 2 * (EVEN - log_sigma)).sigmoid()
        depth = depth + ((of_matches - depth) * trust).sum((1, 2), keepdim=True) / trust.sum((1, 2), keepdim=True).clamp_min(1e-3)
        depth = depth + (of_matches - depth) * trust
        return depth.clamp(-LARGEST_LOG, LARGEST_LOG), confidence_of(sure + _surer(log_sigma))

    def pose(self, levels: Sequence[Tensor], geometry: PairGeometry) -> Pose:
        """Of the second view: its camera to camera 1. Translations are in the pointmaps' unit."""
        camera, found = self._camera(levels[-1]), geometry.cameras
        turn, move = _open(found.sigma_turn, FIRM_TURN), _open(found.sigma_move, FIRM_MOVE)
        with torch.autocast(camera.device.type, enabled=False):
            return rotation_of(turn * camera[:, ROTATION]) @ found.rotation, found.translation + move * camera[:, TRANSLATION]

    def motion(self, levels: Sequence[Tensor], geometry: PairGeometry) -> Tensor:
        """Of the second view: [B, 14], as TwoViewOutput has it."""
        (rotation, translation), found = self.pose(levels, geometry), geometry.cameras
        return torch.cat([rotation.flatten(1), translation, found.sigma_turn[:, None], found.sigma_move[:, None]], dim=1)

    def log_focal(self, levels: Sequence[Tensor], geometry: PairGeometry) -> Tensor:
        """[B], of the focal length in the picture's pixels: what was measured stays."""
        prior, cameras = self._prior(geometry), geometry.cameras
        found = (cameras.log_focal_1, cameras.sigma_focal_1) if self.is_first else (cameras.log_focal_2, cameras.sigma_focal_2)
        mend = found[1].clamp(max=LARGEST_SIGMA) * self._camera(levels[-1])[:, FOCAL][:, 0]
        mended = found[0] + mend.clamp(-LARGEST_MEND, LARGEST_MEND)
        return torch.where(prior.is_measured, prior.log_focal, mended) + math.log(self.shrink)

    def _prior(self, geometry: PairGeometry) -> MatchedView:
        """Of the head's own view."""
        return geometry.priors_1 if self.is_first else geometry.priors_2

    def _camera(self, tokens: Tensor) -> Tensor:
        """[B, 1] or [B, 10], in float32."""
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            weights = self.attend(tokens).softmax(dim=1)
            return self.camera(torch.einsum("bnq,bnc->bqc", weights, tokens).flatten(1))

    @property
    def last_layers(self) -> Sequence[nn.Module]:
        return (self.proj, self.attend, self.camera, self.last, *([] if self.enlarging is None else [self.enlarging.last]))

    @torch.no_grad()
    def start_flat(self, depth: float) -> None:
        """The first pointmap is a wall, `depth` the logarithm of its distance; cameras are where the matches say."""
        start_small(self.camera.fc2, CAMERA_SPREAD)
        start_small(self.last, CAMERA_SPREAD)
        if self.enlarging is not None:
            start_small(self.enlarging.last, CAMERA_SPREAD)
        start_small(self.proj).view(2, -1)[0] = depth


class Enlarging(nn.Module):
    """What is said of pixels to a larger picture's: where edges lie is told by its details."""

    def __init__(self, detail: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(RAW_CHANNELS + detail, detail, 3, padding=1)
        self.last = nn.Conv2d(detail, RAW_CHANNELS * scale**2, 3, padding=1)

    def forward(self, raw: Tensor, detail: Tensor) -> Tensor:
        """raw [B, 3, H, W], detail [B, D, H, W], to [B, 3, scale H, scale W], float32."""
        seen = torch.cat([raw - raw.mean((2, 3), keepdim=True), detail], dim=1)
        mended = exact(self.last, F.gelu(self.conv(seen.to(self.conv.weight.dtype)))).float()
        larger = F.interpolate(raw, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return larger + F.pixel_shuffle(mended, self.scale)


def _open(sigma: Tensor, firm: float) -> Tensor:
    """[B, 1] in units of which a camera is mended: sigma [B] where that is large, next to nothing where it is under `firm`."""
    sigma = sigma.clamp(max=LARGEST_SIGMA)[:, None]
    return sigma**3 / (sigma**2 + firm**2)


def _surer(log_sigma: Tensor) -> Tensor:
    """Added to the logarithm of C - 1 for what the matches know beside a picture alone: confidence is the reciprocal of the error."""
    sigma = (ALONE**-2 + (-2 * log_sigma).exp()).rsqrt()
    return SURER * ((ALONE + LEAST_SIGMA) / (sigma + LEAST_SIGMA)).log()


def rays(height: int, width: int, focal: Tensor, principal: Tensor) -> Tensor:
    """Of every pixel's middle, [B, H, W, 3] with z = 1, for focal lengths [B] in pixels.

    principal: [B, 2] (across, down), the principal point in pixels from the picture's middle.
    """
    v = torch.arange(height, dtype=torch.float32, device=focal.device) - (height - 1) / 2
    u = torch.arange(width, dtype=torch.float32, device=focal.device) - (width - 1) / 2
    x, y = ((axis - principal[:, at, None]) / focal[:, None] for at, axis in ((0, u), (1, v)))
    across, down = x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)
    return torch.stack([across, down, torch.ones_like(across)], dim=-1)


def rotation_of(six: Tensor) -> Tensor:
    """[B, 6] to rotations [B, 3, 3]: two columns beside the identity's, made orthonormal (Zhou et al., CVPR 2019)."""
    across, down, _ = torch.eye(3, dtype=six.dtype, device=six.device)  # made there: nothing is copied while a CUDA graph is recorded
    first, second = six[:, :3] + across, six[:, 3:] + down
    one = F.normalize(first, dim=-1)
    two = F.normalize(second - (one * second).sum(-1, keepdim=True) * one, dim=-1)
    return torch.stack([one, two, torch.cross(one, two, dim=-1)], dim=-1)
