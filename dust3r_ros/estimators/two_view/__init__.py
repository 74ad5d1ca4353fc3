"""The two-view networks (DUSt3R, MASt3R) as an estimator."""

from dust3r_ros.estimators.two_view.estimator import NetworkEstimator

__all__ = ["NetworkEstimator"]
