"""Pictures of a run: prediction beside truth, and the curves of its losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.io.atomic import atomic_file
from dust3r_ros.io.render import confidence_picture, depth_picture
from dust3r_ros.network import TwoViewOutput
from dust3r_ros.training.pairs import PairBatch
from dust3r_ros.training.records import HELD_OUT, LOSSES, Table
from dust3r_ros.training.schedule import STAGES

GAP = 4  # white pixels between pictures
TITLES = ("view 1", "view 2", "depth 1, truth", "depth 1, predicted", "confidence 1", "depth 2 in camera 1, predicted")
SCALE = 2
OTHERS = {"completion": ", completion", "alone": ", one by one"}  # than the objective whose error is that of pointmaps


def draw_samples(output: TwoViewOutput, batch: PairBatch, count: int, path: Path) -> None:
    """A PNG with a row for each of `count` of the pairs: the two views, view 1's true and predicted depth, its confidence, and view 2's
    predicted depth in camera 1. The prediction is brought to the truth's median, and all depths have one
    logarithmic scale of colours."""
    from PIL import Image, ImageDraw

    pairs = len(batch.first.images)
    chosen = sorted({index * pairs // count for index in range(count)})  # neighbours may show one scene
    rows = [_row(output, batch, index) for index in chosen]
    sheet = np.concatenate(rows)
    picture = Image.fromarray(sheet).resize((sheet.shape[1] * SCALE, sheet.shape[0] * SCALE), Image.Resampling.NEAREST)
    framed = Image.new("RGB", (picture.width, picture.height + 16), "white")
    framed.paste(picture, (0, 16))
    draw, width = ImageDraw.Draw(framed), picture.width // len(TITLES)
    for column, title in enumerate(TITLES):
        draw.text((column * width + 4, 2), title, fill="black")
    with atomic_file(path) as temporary:
        framed.save(temporary, format="PNG")


def _row(output: TwoViewOutput, batch: PairBatch, index: int) -> NDArray[np.uint8]:
    images = [_rgb(view.images[index].cpu().numpy()) for view in (batch.first, batch.second)]
    valid = batch.first.valid[index].cpu().numpy()
    truth = np.where(valid, batch.first.depth[index].float().cpu().numpy(), 0).astype(np.float32)
    predicted = [points[index, ..., 2].float().cpu().numpy() for points in (output.points_1, output.points_2)]
    known = truth > 0
    scale = float(np.median(truth[known]) / max(float(np.median(predicted[0][known])), 1e-8)) if known.any() else 1.0
    colours = np.log1p(truth)  # of the logarithm: a window's far ground would else make the room one colour
    near, far = (float(np.quantile(colours[known], share)) for share in (0.01, 0.99)) if known.any() else (0.0, 1.0)
    scaled = [truth, *(np.maximum(scale * depth, 0).astype(np.float32) for depth in predicted)]
    depths = [depth_picture(np.log1p(depth), near, far) for depth in scaled]
    sure = confidence_picture(output.confidence_1[index].float().cpu().numpy())
    height, width = truth.shape
    return np.concatenate([_framed(picture, height, width) for picture in (*images, depths[0], depths[1], sure, depths[2])], axis=1)


def _rgb(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(image.transpose(1, 2, 0) * 127.5 + 127.5, 0, 255).round(), np.uint8)


def _framed(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Cut or filled with white to one size, with a gap around."""
    frame = np.full((height + GAP, width + GAP, 3), 255, np.uint8)
    part = picture[:height, :width]
    frame[: part.shape[0], : part.shape[1]] = part
    return frame


def draw_curves(output: Path) -> None:
    """curves.png of the folder's losses.csv and held_out.csv, over the steps."""
    from matplotlib.figure import Figure

    trained, held_out = Table(output / "losses.csv", LOSSES).rows(), Table(output / "held_out.csv", HELD_OUT).rows()
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    panels = (
        (axes[0, 0], "loss", "loss: C l - alpha log C", "loss"),
        (axes[0, 1], "error", "pointmap error, in mean distances", "error"),
        (axes[1, 0], None, "held-out depth", "abs_rel"),
        (axes[1, 1], "learning_rate", "learning rate", None),
    )
    for axis, own, title, other in panels:
        for rows, column, label in ((trained, own, "training"), (held_out, other, "held out, averaged weights")):
            for objective in STAGES if column and rows is trained else ("",):
                chosen = [row for row in rows if not objective or row["objective"] == objective]
                if column and chosen and not (objective in OTHERS and column == "error"):
                    x, y = ([float(row[name]) for row in chosen] for name in ("step", column))
                    axis.plot(x, y, marker="." if len(x) < 60 else "", label=f"{label}{OTHERS.get(objective, '')}")
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if own in ("error",) and axis.lines:
            axis.set_yscale("log")
    if held_out:
        x = [float(row["step"]) for row in held_out]
        axes[1, 0].plot(x, [float(row["delta_1_25"]) for row in held_out], marker=".", label="share within a factor of 1.25")
        axes[1, 0].lines[0].set_label("AbsRel")
    for axis in axes.flat:
        if axis.lines:
            axis.legend()
    with atomic_file(output / "curves.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)
