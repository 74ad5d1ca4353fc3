"""Folders of pictures and videos as frames."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.errors import Dust3rError
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.types import Frame

log = logging.getLogger(__name__)

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
VIDEOS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"}
FULL_FRAME_DIAGONAL = math.hypot(36.0, 24.0)  # mm: what "35 mm equivalent" means
_EXIF_BLOCK, _FOCAL_35MM, _FOCAL, _PIXELS_ACROSS, _PER_UNIT, _UNIT = 0x8769, 0xA405, 0x920A, 0xA002, 0xA20E, 0xA210
_MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}  # of EXIF's units of length
SANE_FOCAL = (0.2, 30.0)  # focal lengths as a share of the longer side; others are a slip of the program that wrote them


class ImagesError(Dust3rError):
    """A folder or video without usable pictures."""


def open_images(path: Path | str, fps: float = 1.0, fov: float | None = None, after: int = 0) -> FolderFrames | VideoFrames:
    """A folder of pictures (stamped `fps` a second) or a video. `fov`: horizontal field of view in degrees, if it is known.

    `after`: a time in ns, from which on they are stamped.
    """
    path = Path(path)
    if path.is_dir():
        return FolderFrames(path, fps, fov, after)
    if path.suffix.lower() in VIDEOS and path.is_file():
        return VideoFrames(path, fov, after)
    if not path.exists():
        raise ImagesError(f"{path} does not exist: give a folder of pictures or a video")
    raise ImagesError(f"{path} is neither a folder nor a video ({', '.join(sorted(VIDEOS))}): give one of them")


class FolderFrames:
    """Pictures in natural order (2 before 10), turned upright by EXIF; the camera from EXIF's focal length where it is told.

    Pictures that cannot be read are left out and said. Raises ImagesError if there is none.
    """

    def __init__(self, path: Path, fps: float = 1.0, fov: float | None = None, after: int = 0) -> None:
        self.path, self.fps, self.fov, self.after = path, fps, fov, after
        self.files = sorted((file for file in path.iterdir() if file.suffix.lower() in PICTURES and file.name[0] != "."), key=_natural)
        if not self.files:
            raise ImagesError(f"{path} has no pictures ({', '.join(sorted(PICTURES))}): give the folder that holds them")

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        usable = 0
        for at, file in enumerate(self.files):
            try:
                image, camera = read_picture(file, self.fov)
            except ImagesError as error:
                log.warning("left out: %s", error)
                continue
            usable += 1
            yield Frame(self.after + round((at + 1) * 1e9 / self.fps), image, camera)
        if not usable:
            raise ImagesError(f"none of the {len(self.files)} pictures in {self.path} can be read: are they whole?")


class VideoFrames:
    """The frames of a video, stamped by its own frame rate."""

    def __init__(self, path: Path, fov: float | None = None, after: int = 0) -> None:
        self.path, self.fov, self.after = path, fov, after
        capture = self._open()
        self._count = int(_property(capture, "FRAME_COUNT"))
        self.fps = _property(capture, "FPS") or 30.0
        capture.release()

    def __len__(self) -> int:
        return max(self._count, 0)

    def __iter__(self) -> Iterator[Frame]:
        import cv2

        capture, at = self._open(), 0
        try:
            while True:
                more, image = capture.read()
                if not more:
                    break
                at += 1
                rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
                yield Frame(self.after + round(at * 1e9 / self.fps), rgb, _from_fov(rgb, self.fov))
        finally:
            capture.release()
        if not at:
            raise ImagesError(f"video {self.path} has no frame that can be read: is it whole, and its codec known to OpenCV?")

    def _open(self) -> Any:
        import cv2

        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise ImagesError(f"video {self.path} cannot be opened: is it whole, and its codec known to OpenCV?")
        return capture


def read_picture(file: Path, fov: float | None = None) -> tuple[NDArray[np.uint8], Camera | None]:
    """(H, W, 3) RGB, upright, and its camera: from `fov`, else from EXIF, else None. Raises ImagesError."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as picture:
            told = picture.getexif().get_ifd(_EXIF_BLOCK)
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
                image = np.repeat((np.array(upright).clip(0, 65535) // 256).astype(np.uint8)[..., None], 3, axis=2)
            else:
                image = np.array(upright.convert("RGB"), np.uint8)
    except Exception as error:
        raise ImagesError(f"picture {file} cannot be read: {' '.join(str(error).split())}") from error
    height, width = image.shape[:2]
    focal = 0.0 if fov is not None else _focal(told, width, height)
    if not focal:
        return image, _from_fov(image, fov)
    return image, Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def _focal(told: Mapping[int, Any], width: int, height: int) -> float:
    """In pixels, from EXIF's 35 mm equivalent, or its focal length and the density of the sensor's pixels; 0 if it is not told."""
    try:
        focal = float(told.get(_FOCAL_35MM) or 0) * math.hypot(width, height) / FULL_FRAME_DIAGONAL
        if not focal > 0:
            per_millimetre = float(told.get(_PER_UNIT) or 0) / _MILLIMETRES[told.get(_UNIT) or 2]
            resized = max(width, height) / float(told.get(_PIXELS_ACROSS) or max(width, height))
            focal = float(told.get(_FOCAL) or 0) * per_millimetre * min(resized, 1.0)
    except (TypeError, ValueError, KeyError, ZeroDivisionError, OverflowError):
        return 0.0
    low, high = SANE_FOCAL
    return focal if low <= focal / max(width, height) <= high else 0.0


def _from_fov(image: NDArray[np.uint8], fov: float | None) -> Camera | None:
    if fov is None:
        return None
    height, width = image.shape[:2]
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def _natural(file: Path) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in re.split(r"(\d+)", file.name)]


def _property(capture: Any, name: str) -> float:
    import cv2

    return float(capture.get(getattr(cv2, f"CAP_PROP_{name}")))
