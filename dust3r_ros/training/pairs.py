"""What training and evaluation speak of: batches of image pairs whose geometry is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class View:
    """One image of each pair of a batch. Poses are camera to frame, OpenCV axes; pixel centres lie at integers."""

    images: Tensor  # [B, 3, H, W] float32, RGB in -1..1, as the networks take them
    depth: Tensor  # [B, H, W] float32 along z, in metres; anything where not valid
    valid: Tensor  # [B, H, W] bool: where the depth is known
    intrinsics: Tensor  # [B, 4] fx, fy, cx, cy in pixels
    pose: Tensor  # [B, 4, 4] float32, camera to the scene's own frame, in metres

    def to(self, device: torch.device | str) -> View:
        return View(*(value.to(device, non_blocking=True) for value in vars(self).values()))


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Pairs of views of one scene each; the two views of a batch may differ in size."""

    first: View
    second: View

    def swapped(self) -> PairBatch:
        """The same pairs seen from the other side."""
        return PairBatch(self.second, self.first)

    def to(self, device: torch.device | str) -> PairBatch:
        return PairBatch(self.first.to(device), self.second.to(device))


class PairSource(Protocol):
    """A stream of batches that a step's number alone decides: whoever starts again at a step gets what it would have got."""

    def batch(self, step: int) -> PairBatch:
        """The batch of training step `step` >= 0, on the source's device."""
        ...


def points_in(view: View, pose: Tensor) -> Tensor:
    """The view's points [B, H, W, 3] in the frame of the cameras at `pose` [B, 4, 4] (camera to the scene's frame), in metres."""
    rows, columns = view.depth.shape[1:]
    x = torch.arange(columns, device=view.depth.device, dtype=torch.float32)
    y = torch.arange(rows, device=view.depth.device, dtype=torch.float32)
    fx, fy, cx, cy = (value[:, None] for value in view.intrinsics.unbind(1))
    rays_x, rays_y = (x - cx) / fx, (y - cy) / fy
    shape = view.depth.shape
    rays = torch.stack([rays_x[:, None, :].expand(shape), rays_y[:, :, None].expand(shape), torch.ones_like(view.depth)], dim=-1)
    relative = torch.linalg.solve_ex(pose.double(), view.pose.double()).result.float()  # the plain one waits for the device
    return (rays * view.depth[..., None]) @ relative[:, None, :3, :3].transpose(-1, -2) + relative[:, None, None, :3, 3]
