"""Which model the demo runs and why; and, where one is shipped, its depth of the motorcycle beside that of flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.demo.inputs import DemoError, TrueView
from dust3r_ros.demo.pictures import masked, pyplot
from dust3r_ros.estimators import create_estimator
from dust3r_ros.estimators.choice import Choice
from dust3r_ros.geometry import Rectification
from dust3r_ros.io.evaluation import DepthError, depth_error
from dust3r_ros.models.shipped import NANO, shipped_weights

PICTURE = "models.png"


@dataclass(frozen=True, eq=False)
class ModelDepth:
    """One model's depth of a pair's first view, in that view's pixels, on the truth's scale."""

    model: str
    depth: NDArray[np.float32]  # [H, W] metres, 0 where the model says nothing
    error: DepthError


def sentence(choice: Choice) -> str:
    """The model and the reason."""
    return f"{choice.model}: {choice.reason}."


def compare_models(pair: Sequence[TrueView], models: Sequence[str] | None = None) -> list[ModelDepth]:
    """Depth of the first view by flow and the shipped model (or `models`), each told the cameras. Empty where none is shipped."""
    if models is None:
        models = ["flow", NANO] if shipped_weights() is not None else []
    return [_depth_of(model, pair) for model in models]


def draw_models(path: Path, view: TrueView, found: Sequence[ModelDepth]) -> None:
    """The image, each model's depth with its error, and the true depth, in one row."""
    if view.depth is None:
        raise DemoError("models cannot be compared on a view without true depth")
    plt = pyplot()
    height, width = view.image.shape[:2]
    count = len(found) + 2
    size = (4.2 * count, 0.5 + 4.2 * height / width)
    figure, axes = plt.subplots(1, count, figsize=size, layout="constrained", facecolor="#ffffff")
    near, far = (float(q) for q in np.quantile(view.depth[view.depth > 0], [0.01, 0.99]))
    shown: list[tuple[str, NDArray[Any]]] = [("image", view.image)]
    shown += [(f"{one.model}: {100 * one.error.abs_rel:.1f} % off, {one.error.coverage:.0%} of the pixels", one.depth) for one in found]
    for axis, (title, picture) in zip(axes, [*shown, ("true depth", view.depth)], strict=True):
        if picture.ndim == 3:
            axis.imshow(picture)
        else:
            axis.imshow(masked(picture), cmap="turbo_r", vmin=near, vmax=far)
        axis.set_title(title, fontsize=11, color="#1c2430")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_facecolor("#eceff3")
        for spine in axis.spines.values():
            spine.set_visible(False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _depth_of(model: str, pair: Sequence[TrueView]) -> ModelDepth:
    first = pair[0]
    if first.depth is None:
        raise DemoError("models cannot be compared on a view without true depth")
    estimator = create_estimator(model)
    tokens = {k: estimator.encode(view.image, view.camera) for k, view in enumerate(pair[:2])}
    predictions = {(prediction.i, prediction.j): prediction for prediction in estimator.estimate(tokens, [(0, 1), (1, 0)])}
    found = predictions[0, 1]
    known = (found.confidence_i > 1).numpy()
    working = np.where(known, found.points_i[..., 2].numpy(), 0.0).astype(np.float32)
    depth = np.asarray(Rectification(first.camera, tokens[0].camera).to_source(working), np.float32)
    error = depth_error(depth, first.depth)
    return ModelDepth(model, depth * np.float32(error.scale), error)
