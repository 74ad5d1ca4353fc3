"""Pointmaps without any weights: dense optical flow, joint bundle adjustment over the window, triangulation."""

from dust3r_ros.estimators.flow.estimator import FlowEstimator

__all__ = ["FlowEstimator"]
