"""Two-view estimators behind one protocol: `encode(image) -> tokens`, `estimate(views, pairs) -> predictions`."""

from dust3r_ros.estimators.protocol import Estimator, PairPrediction, Tokens

__all__ = ["Estimator", "PairPrediction", "Tokens"]
