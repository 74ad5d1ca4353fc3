"""What pictures are matched by: convolutions that see the same thing wherever it lies."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.config import GROUPS

WIDTHS = (32, 64)  # of the convolutions: at half the picture's size, then a quarter
COARSE_UNITS, HALF_UNITS = 4, 2  # what a quarter's value sees is some seventy pixels wide
DETAIL_UNITS = 2


class ImageFeatures(nn.Module):
    """Down to a quarter of the picture's size, and up again to a half; details at the size itself, of a picture that is twice as large."""

    def __init__(self, coarse: int, fine: int, detail: int = 0) -> None:
        super().__init__()
        half, quarter = WIDTHS
        self.halve = nn.Conv2d(3, half, 3, stride=2, padding=1)
        self.quarter = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.units = nn.ModuleList(NormedUnit(quarter) for _ in range(COARSE_UNITS))
        self.norm = nn.GroupNorm(GROUPS, quarter)
        self.out = nn.Conv2d(quarter, coarse, 1)
        self.half_units = nn.ModuleList(NormedUnit(half) for _ in range(HALF_UNITS))
        self.down = nn.Conv2d(quarter, half, 1)
        self.fine_unit = NormedUnit(half)
        self.fine_norm = nn.GroupNorm(GROUPS, half)
        self.fine = nn.Conv2d(half, fine, 3, padding=1)
        self.details = DetailFeatures(half, detail) if detail else None

    def forward(self, images: Tensor, larger: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] to [B, coarse, H / 4, W / 4], [B, fine, H / 2, W / 2] and [B, detail, H, W], each of unit length; float32.

        larger: the same pictures [B, 3, 2 H, 2 W], of which details are made, if any.
        """
        dtype = self.halve.weight.dtype
        half = F.gelu(self.halve(images.to(dtype)))
        quarter = self.quarter(half).float()  # as with tokens: what is added up is float32
        for unit in self.units:
            quarter = unit(quarter)
        known = self.norm(quarter).to(dtype)
        half = half.float()
        for unit in self.half_units:
            half = unit(half)
        half = half + F.interpolate(self.down(known).float(), scale_factor=2, mode="bilinear", align_corners=False)
        known_at_half = self.fine_norm(self.fine_unit(half)).to(dtype)
        fine = F.normalize(self.fine(known_at_half).float(), dim=1)
        detail = fine.new_empty(len(images), 0, *images.shape[2:]) if self.details is None else self.details(larger, known_at_half)
        return F.normalize(self.out(known).float(), dim=1), fine, detail


class DetailFeatures(nn.Module):
    """What places a pixel apart are told apart by, of a picture twice as large."""

    def __init__(self, half: int, detail: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, detail, 3, stride=2, padding=1)
        self.known = nn.Conv2d(half, detail, 1)
        self.units = nn.ModuleList(NormedUnit(detail) for _ in range(DETAIL_UNITS))
        self.norm = nn.GroupNorm(GROUPS, detail)
        self.out = nn.Conv2d(detail, detail, 3, padding=1)

    def forward(self, images: Tensor, known: Tensor) -> Tensor:
        """images [B, 3, 2 H, 2 W], what is known at half of the smaller size [B, half, H / 2, W / 2], to [B, detail, H, W]."""
        dtype = self.first.weight.dtype
        x = F.gelu(self.first(images.to(dtype))).float()
        x = x + F.interpolate(self.known(known).float(), scale_factor=2, mode="bilinear", align_corners=False)
        for unit in self.units:
            x = unit(x)
        return F.normalize(self.out(self.norm(x).to(dtype)).float(), dim=1)


class NormedUnit(nn.Module):
    """Two convolutions beside what they are added to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.gelu(self.conv1(self.norm(x).to(self.conv1.weight.dtype)))).float()
