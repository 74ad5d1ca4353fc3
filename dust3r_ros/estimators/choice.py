"""Which estimator stands behind a model name."""

from __future__ import annotations

import logging

from dust3r_ros.estimators.errors import EstimatorError
from dust3r_ros.estimators.protocol import Estimator

log = logging.getLogger(__name__)

MODELS = ("auto", "flow")


def create_estimator(model: str = "auto", size: int = 320) -> Estimator:
    """The estimator called `model`, with working images `size` pixels long on their longer side.

    `auto` takes the best one that this machine can run, and logs which and why. Raises EstimatorError for an unknown name.
    """
    from dust3r_ros.estimators.flow import FlowEstimator  # here, so that the protocol alone stays light to import

    if model == "auto":
        log.info("model auto: flow (optical flow and bundle adjustment; it is the one estimator that needs no weights)")
        return FlowEstimator(size)
    if model == "flow":
        return FlowEstimator(size)
    raise EstimatorError(f"no estimator is called {model!r}: choose one of {', '.join(MODELS)}")
