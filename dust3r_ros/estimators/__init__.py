"""Two-view estimators behind one protocol: `encode(image) -> tokens`, `estimate(views, pairs) -> predictions`."""

from dust3r_ros.estimators.calibration import Calibration, SelfCalibrating
from dust3r_ros.estimators.choice import MODELS, create_estimator
from dust3r_ros.estimators.errors import EstimatorError
from dust3r_ros.estimators.protocol import Estimator, PairMotion, PairPrediction, Tokens

__all__ = [
    "MODELS",
    "Calibration",
    "Estimator",
    "EstimatorError",
    "PairMotion",
    "PairPrediction",
    "SelfCalibrating",
    "Tokens",
    "create_estimator",
]
