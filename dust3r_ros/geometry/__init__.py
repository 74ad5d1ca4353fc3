"""Cameras, rays, similarity transforms and what follows from pointmaps. Knows nothing of the floors above it."""

from dust3r_ros.geometry.camera import Camera

__all__ = ["Camera"]
