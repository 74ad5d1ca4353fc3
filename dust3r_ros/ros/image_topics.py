"""Which topics a camera's images and CameraInfo come on."""

from __future__ import annotations


def topics(image: str, camera_info: str, compressed: bool) -> tuple[str, str]:
    """The topics to listen to: compressed images beside the raw ones, CameraInfo beside both unless it is named."""
    base = image.rstrip("/").removesuffix("/compressed")
    parent = base.rpartition("/")[0]
    info = camera_info or (f"{parent}/camera_info" if parent else ("/camera_info" if base.startswith("/") else "camera_info"))
    return (f"{base}/compressed" if compressed else image), info
