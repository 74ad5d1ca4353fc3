"""Where the camera has been before: an old keyframe that looks like the new one, to be compared and joined if both directions agree."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.places.image_descriptor import image_descriptor
from dust3r_ros.mapping.storage.disk_shelf import DiskShelf, ScratchFolder, StorageError

JPEG_QUALITY = 92
FIRST_CAPACITY = 64
IN_MEMORY = 500
WAIT = 3  # keyframes after a try until the next: a try costs as much as a keyframe
MIN_SHARE = 0.15  # of the pixels of either view that a pair must know
TRUSTED = 1.5  # a confidence from which a pixel counts as seen


class LoopFinder:
    """Descriptors and pictures of the keyframes that may be compared."""

    def __init__(self, in_memory: int = IN_MEMORY, folder: ScratchFolder | None = None) -> None:
        """`in_memory`: pictures that are kept there, the others in the `folder`."""
        self._descriptors: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._indices: list[int] = []
        self.shelf: DiskShelf[NDArray[np.uint8]] = DiskShelf(folder or ScratchFolder(), in_memory, _packed, _unpacked)
        self._cameras: dict[int, Camera] = {}
        self._last_try = -WAIT

    def remember(self, index: int, image: NDArray[np.uint8], camera: Camera) -> None:
        """A keyframe that leaves the window, with its working image [h, w, 3] RGB and that image's camera."""
        if index in self.shelf:  # it has been in the window once more
            return
        descriptor = image_descriptor(image)
        count = len(self._indices)
        if count >= len(self._descriptors):
            grown = np.zeros((max(FIRST_CAPACITY, 2 * count), len(descriptor)), np.float32)
            if count:
                grown[:count] = self._descriptors
            self._descriptors = grown
        self._descriptors[count] = descriptor
        self._indices.append(index)
        _, coded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        self.shelf.put(index, np.asarray(coded, np.uint8))
        self._cameras[index] = camera

    def forget(self, gone: Collection[int]) -> None:
        """These keyframes may no longer be compared."""
        rows = [row for row, index in enumerate(self._indices) if index not in gone]
        if len(rows) < len(self._indices):
            self._descriptors[: len(rows)] = self._descriptors[rows]
            self._indices = [self._indices[row] for row in rows]
            for index in gone:
                self.shelf.remove(index)
                self._cameras.pop(index, None)

    @property
    def indices(self) -> tuple[int, ...]:
        """Keyframes that may be compared."""
        return tuple(self._indices)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """[h, w, 3] RGB. Raises StorageError, and the keyframe is no longer compared, if somebody took its file away."""
        try:
            coded = self.shelf.get(index)
        except StorageError:
            self.forget({index})
            raise
        return np.asarray(cv2.cvtColor(cv2.imdecode(coded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))

    def camera(self, index: int) -> Camera:
        return self._cameras[index]

    def ranked(self, descriptor: NDArray[np.float32], min_alike: float = -1.0) -> list[tuple[int, float]]:
        """(keyframe, how alike its picture is), the most alike first."""
        if not self._indices:
            return []
        alike = self._descriptors[: len(self._indices)] @ descriptor
        order = np.argsort(-alike, kind="stable")
        return [(self._indices[row], float(alike[row])) for row in order if alike[row] >= min_alike]

    def most_alike(self, index: int, image: NDArray[np.uint8], min_alike: float) -> list[tuple[int, float]]:
        """Old keyframes that the new one `index` should be compared with, the most alike first; empty if none is worth it."""
        if index - self._last_try < WAIT:
            return []
        ranked = self.ranked(image_descriptor(image), min_alike)
        if ranked:
            self._last_try = index
        return ranked


def _packed(coded: NDArray[np.uint8]) -> bytes:
    return coded.tobytes()


def _unpacked(data: bytes) -> NDArray[np.uint8]:
    coded = np.frombuffer(data, np.uint8)
    if not len(coded) or cv2.imdecode(coded, cv2.IMREAD_COLOR) is None:
        raise StorageError("no picture")
    return coded


def believable(predictions: Sequence[PairPrediction]) -> bool:
    """Whether both directions know enough of both views."""
    shares = [float((c >= TRUSTED).float().mean()) for p in predictions for c in (p.confidence_i, p.confidence_j)]
    return len(predictions) > 1 and min(shares) >= MIN_SHARE
