"""What pictures are matched by: convolutions that see the same thing wherever it lies."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

WIDTHS = (32, 64)  # of the convolutions: at half the picture's size, then a quarter
COARSE_UNITS, HALF_UNITS = 4, 2  # what a quarter's value sees is some seventy pixels wide
GROUPS = 8


class ImageFeatures(nn.Module):
    """Down to a quarter of the picture's size, and up again to a half."""

    def __init__(self, coarse: int, fine: int) -> None:
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

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] to [B, coarse, H / 4, W / 4] and [B, fine, H / 2, W / 2], each of unit length; float32."""
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
        fine = self.fine(self.fine_norm(self.fine_unit(half)).to(dtype))
        return F.normalize(self.out(known).float(), dim=1), F.normalize(fine.float(), dim=1)


class NormedUnit(nn.Module):
    """Two convolutions beside what they are added to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.gelu(self.conv1(self.norm(x).to(self.conv1.weight.dtype)))).float()
