"""Texture layers out of photographs: crops of any folder's pictures, or of scikit-image's own."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.training.scenes.config import SceneError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
# The stereo pair of the motorcycle is left out: models are evaluated on it.
OWN = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "color.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "page.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
LEAST = 48  # pixels of an edge; smaller pictures are icons

log = logging.getLogger(__name__)


def photo_files(folder: Path | None) -> list[Path]:
    """The pictures under `folder`, sorted; without one those that scikit-image brings, or none where it is not installed.

    Raises SceneError where a folder is given that has no pictures.
    """
    if folder is not None:
        found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not found:
            raise SceneError(
                f"photos is {folder}, where no picture ({', '.join(sorted(SUFFIXES))}) lies: give a folder of photographs, or none"
            )
        return found
    try:
        import skimage.data
    except ImportError:
        log.info("scikit-image is not installed: textures are noise and patterns only, unless `photos` names a folder")
        return []
    brought = Path(skimage.data.__file__).parent
    return [brought / name for name in OWN if (brought / name).is_file()]


def photo_layers(files: list[Path], count: int, size: int, rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """`count` crops [size, size, 3] sRGB 0..1: whole pictures first, then parts of them. Unreadable files are named and left out."""
    layers: list[NDArray[np.float32]] = []
    order = [files[i] for i in rng.permutation(len(files))] if files else []
    whole = True
    while order and len(layers) < count:
        readable = []
        for path in order:
            if len(layers) == count:
                break
            picture = _read(path)
            if picture is not None:
                readable.append(path)
                layers.append(_crop(picture, size, 1.0 if whole else rng.uniform(0.3, 0.9), rng))
        order, whole = readable, False
    return layers


def _read(path: Path) -> NDArray[np.float32] | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            picture = np.asarray(file.convert("RGB"), np.float32) / np.float32(255)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        log.warning("%s cannot be read as a picture (%s): left out of the textures", path, error)
        return None
    if min(picture.shape[:2]) < LEAST:
        log.warning("%s is %d x %d pixels, less than %d an edge: left out of the textures", path, *picture.shape[1::-1], LEAST)
        return None
    return picture


def _crop(picture: NDArray[np.float32], size: int, share: float, rng: np.random.Generator) -> NDArray[np.float32]:
    import cv2

    rows, columns = picture.shape[:2]
    edge = max(LEAST, int(share * min(rows, columns)))
    top, left = int(rng.integers(rows - edge + 1)), int(rng.integers(columns - edge + 1))
    part = picture[top : top + edge, left : left + edge]
    return np.clip(cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if edge > size else cv2.INTER_LINEAR), 0, 1)
