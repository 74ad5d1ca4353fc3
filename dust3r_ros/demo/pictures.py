"""Pictures of what was measured: depth beside the truth and the image, and the path from above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.demo.inputs import TrueView
from dust3r_ros.demo.measure import DepthScore, PathScore, confident_depth
from dust3r_ros.demo.recording import Recording

_PAPER, _INK, _GRID = "#ffffff", "#1c2430", "#d9dee5"
_TRUE, _ESTIMATED = "#1c2430", "#e4572e"


def depth_strip(path: Path, recording: Recording, truth: Sequence[TrueView], score: DepthScore, rows: int = 4) -> None:
    """A row for each of a few keyframes: the image, the depth that was published, the true depth, and the relative error."""
    plt = pyplot()
    shown = [view for view in truth if view.depth is not None and view.stamp in recording.depths]
    chosen = [shown[round(k)] for k in np.linspace(0, len(shown) - 1, min(rows, len(shown)))]
    height, width = chosen[0].image.shape[:2]
    size = (13.5, 0.45 + len(chosen) * (3.2 * height / width + 0.05))
    figure, axes = plt.subplots(len(chosen), 4, figsize=size, squeeze=False, layout="constrained", facecolor=_PAPER)
    first = truth[0].stamp
    for row, view in zip(axes, chosen, strict=True):
        assert view.depth is not None
        estimate = confident_depth(recording, view.stamp) * np.float32(score.scale)
        near, far = (float(q) for q in np.quantile(view.depth[view.depth > 0], [0.01, 0.99]))
        row[0].imshow(view.image)
        row[1].imshow(masked(estimate), cmap="turbo_r", vmin=near, vmax=far)
        reference = row[2].imshow(masked(view.depth), cmap="turbo_r", vmin=near, vmax=far)
        both = (estimate > 0) & (view.depth > 0)
        error = np.abs(estimate - view.depth) / np.where(both, view.depth, 1)
        wrong = row[3].imshow(np.ma.masked_where(~both, 100 * error), cmap="magma_r", vmin=0, vmax=20)
        figure.colorbar(reference, ax=row[2], shrink=0.85, pad=0.02).outline.set_visible(False)
        figure.colorbar(wrong, ax=row[3], shrink=0.85, pad=0.02).outline.set_visible(False)
        row[0].set_ylabel(f"{(view.stamp - first) * 1e-9:.1f} s", color=_INK)
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_facecolor("#eceff3")
            for spine in axis.spines.values():
                spine.set_visible(False)
    for axis, title in zip(axes[0], ("image", "depth, estimated (m)", "depth, true (m)", "error (%)"), strict=True):
        axis.set_title(title, color=_INK, fontsize=11)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def path_from_above(path: Path, recording: Recording, truth: Sequence[TrueView], score: PathScore) -> None:
    """The estimated camera path over the true one, seen from above, the mapped points beneath. The true world must have z up."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(7.5, 6.2), layout="constrained", facecolor=_PAPER)
    if recording.cloud is not None and len(recording.cloud):
        points, colors = score.to_truth.apply(recording.cloud.points.astype(np.float64)), recording.cloud.colors / 255
        order = np.argsort(points[:, 2])
        axis.scatter(points[order, 0], points[order, 1], c=colors[order], s=3.0, linewidths=0, rasterized=True)
    true = np.array([view.pose[:3, 3] for view in truth])
    estimated = score.to_truth.apply(np.array([pose[:3, 3] for _, pose in recording.trajectory]))
    axis.plot(true[:, 0], true[:, 1], color=_PAPER, linewidth=7, solid_capstyle="round")
    axis.plot(true[:, 0], true[:, 1], color=_TRUE, linewidth=3.5, label="true path", solid_capstyle="round")
    axis.plot(estimated[:, 0], estimated[:, 1], color=_ESTIMATED, linewidth=1.5, marker=".", markersize=4, label="estimated path")
    low, high = _bounds(recording, score, true)
    axis.set_xlim(low[0], high[0])
    axis.set_ylim(low[1], high[1])
    axis.set_aspect("equal")
    axis.grid(color=_GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_xlabel("x (m)", color=_INK)
    axis.set_ylabel("y (m)", color=_INK)
    axis.set_title(f"from above: {100 * score.rmse:.1f} cm apart ({score.percent:.1f} % of {score.extent:.1f} m)", color=_INK)
    axis.legend(loc="lower right", framealpha=0.95, edgecolor=_GRID)
    for spine in axis.spines.values():
        spine.set_color(_GRID)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _bounds(recording: Recording, score: PathScore, true: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the picture shows: the path and nearly all points; a few far strays must not shrink everything else."""
    low, high = true[:, :2].min(axis=0), true[:, :2].max(axis=0)
    if recording.cloud is not None and len(recording.cloud):
        points = score.to_truth.apply(recording.cloud.points.astype(np.float64))[:, :2]
        low = np.minimum(low, np.quantile(points, 0.005, axis=0))
        high = np.maximum(high, np.quantile(points, 0.995, axis=0))
    margin = 0.04 * (high - low).max()
    return low - margin, high + margin


def masked(depth: NDArray[np.float32]) -> Any:
    """Without what is unknown (0)."""
    return np.ma.masked_where(depth <= 0, depth)


def pyplot() -> Any:
    """Matplotlib, for files alone."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt
