"""Batches as pictures, to look at."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.training.pairs import PairBatch, View


def picture_of(batch: PairBatch, columns: int = 2) -> NDArray[np.uint8]:
    """[rows, columns, 3] RGB: of each pair both images, then both depths (near bright, far dark, unknown black), side by side."""
    both = [torch.cat([_images(view), _depths(view)], 2) for view in (batch.first, batch.second)]
    height = max(view.shape[1] for view in both)
    rows = [torch.nn.functional.pad(view, (0, 0, 2, 2, 2, height - view.shape[1] + 2)) for view in both]
    tiles = torch.cat(rows, 2).numpy()
    missing = -len(tiles) % columns
    tiles = np.concatenate([tiles, np.zeros((missing, *tiles.shape[1:]), np.uint8)])
    tiles = tiles.reshape(-1, columns, *tiles.shape[1:])
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4).reshape(tiles.shape[0] * tiles.shape[2], -1, 3))


def _images(view: View) -> torch.Tensor:
    return ((view.images.cpu() + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def _depths(view: View) -> torch.Tensor:
    from matplotlib import colormaps

    depth = torch.where(view.valid, view.depth, torch.inf).cpu()
    near, far = (
        torch.nanquantile(torch.where(torch.isfinite(depth), depth, torch.nan).flatten(1), q, dim=1)[:, None, None] for q in (0.02, 0.95)
    )
    inverse = ((1 / depth - 1 / far) / (1 / near - 1 / far)).clamp(0, 1).nan_to_num()
    coloured = torch.from_numpy(colormaps["magma"](0.1 + 0.9 * inverse.numpy())[..., :3] * 255).to(torch.uint8)
    return torch.where(view.valid.cpu()[..., None], coloured, 0).to(torch.uint8)
