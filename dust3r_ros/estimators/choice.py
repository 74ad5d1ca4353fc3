"""Which estimator stands behind a model name, and what `auto` picks here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from dust3r_ros.estimators.errors import EstimatorError
from dust3r_ros.estimators.protocol import Estimator
from dust3r_ros.models.shipped import CARD, NANO, ShippedModelError, nano_or_flow, shipped_weights
from dust3r_ros.network import PUBLISHED, NetworkError

log = logging.getLogger(__name__)

MODELS = ("auto", "flow", NANO, *PUBLISHED)
FLOW_SIZE = 320
PREFERENCE = ("mast3r_512_catmlpdpt", "dust3r_512_dpt", "dust3r_512_linear", "dust3r_224_linear")  # what auto takes first of what is there
GPU_MEMORY = 4e9  # bytes: the largest network, its work at 512 pixels and some room


@dataclass(frozen=True)
class Choice:
    """What is to be built, and why."""

    model: str
    weights: Path | None  # None: needs none
    reason: str


def create_estimator(
    model: str = "auto",
    size: int = 0,
    weights: str = "",
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
) -> Estimator:
    """The estimator called `model`, with working images `size` pixels long on their longer side (0: the model's own size).

    `weights`: a file; without one a published model is taken from the hub's cache, or fetched. `auto` takes the best that this machine can
    run with what is on its disk, and logs which and why; it never fetches anything. Raises EstimatorError for an unknown name, for weights
    that cannot be had or do not fit, and for a device that is not there.
    """
    if model not in MODELS:
        raise EstimatorError(f"no estimator is called {model!r}: choose one of {', '.join(MODELS)}")
    choice = choose(model, weights, device)
    log.info("model %s: %s (%s)", model, choice.model, choice.reason)
    if choice.weights is None:
        from dust3r_ros.estimators.flow import FlowEstimator  # here, so that each estimator is imported only where it is used

        return FlowEstimator(size or FLOW_SIZE)
    from dust3r_ros.estimators.two_view import NetworkEstimator
    from dust3r_ros.estimators.two_view.hardware import choose_hardware
    from dust3r_ros.estimators.two_view.runner import RunnerOptions

    name = choice.model if choice.model in PUBLISHED else None
    try:
        return NetworkEstimator.from_file(choice.weights, name, size, choose_hardware(device, precision), RunnerOptions(compile=compile))
    except NetworkError as error:
        raise EstimatorError(str(error)) from error


def choose(model: str = "auto", weights: str = "", device: str = "auto") -> Choice:
    """What `create_estimator` would build. Fetches a published model that is asked for by name and not there."""
    if weights and model == "flow":
        raise EstimatorError(f"estimator.weights is '{weights}', but the model 'flow' has none: set the model to 'auto', or leave them out")
    if weights:
        return Choice(Path(weights).stem if model == "auto" else model, Path(weights).expanduser(), f"its weights are {weights}")
    if model == "flow":
        return Choice("flow", None, "asked for")
    if model == "auto":
        return _best_here(device)
    if model == NANO:
        return _shipped()
    from dust3r_ros.network.hub import fetch, weights_of

    try:
        return Choice(model, fetch(weights_of(model)), "asked for")
    except NetworkError as error:
        raise EstimatorError(str(error)) from error


def _best_here(device: str) -> Choice:
    import torch

    from dust3r_ros.estimators.two_view.hardware import gpu_problem
    from dust3r_ros.network.hub import cached, weights_of

    problem = "the CPU was asked for" if device == "cpu" else gpu_problem()
    if not problem and torch.cuda.get_device_properties(0).total_memory < GPU_MEMORY:
        problem = f"{torch.cuda.get_device_name()} has under {GPU_MEMORY / 1e9:.0f} GB of memory"
    if problem:
        return _without_published(f"{problem}, and a published network takes seconds an image on a CPU")
    for name in PREFERENCE:
        path = cached(weights_of(name))
        if path is not None:
            return Choice(name, path, f"the best of the weights that are on this disk, for {torch.cuda.get_device_name()}")
    some = PREFERENCE[1]
    return _without_published(f"no published weights are on this disk: 'dust3r_ros models fetch {some}' gets some, under their licence")


def _without_published(why: str) -> Choice:
    """The shipped model or flow, whichever the figures that it was shipped with speak for."""
    try:
        better = nano_or_flow()
    except ShippedModelError as error:
        return Choice("flow", None, f"{why}; and of the shipped model nothing is known: {error}")
    if better is None:
        return Choice("flow", None, f"optical flow and bundle adjustment, which need no weights: {why}; this build ships no model")
    if better.model == NANO:
        return Choice(NANO, shipped_weights(), f"{better.reason}; {why}")
    return Choice("flow", None, f"optical flow and bundle adjustment: {better.reason}; {why}")


def _shipped() -> Choice:
    weights = shipped_weights()
    if weights is None:
        raise EstimatorError(
            f"this build ships no {NANO}: take 'flow' or a published model ('dust3r_ros models list'), or give a file as estimator.weights"
        )
    return Choice(NANO, weights, f"asked for; shipped with this package, {CARD} beside it says what it can do")
