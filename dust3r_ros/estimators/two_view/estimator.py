"""`NetworkEstimator`: pair predictions from a two-view network (DUSt3R, MASt3R)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dust3r_ros.estimators.calibration import Calibration
from dust3r_ros.estimators.errors import EstimatorError
from dust3r_ros.estimators.protocol import PairMotion, PairPrediction, Tokens
from dust3r_ros.estimators.two_view.hardware import Hardware, choose_hardware
from dust3r_ros.estimators.two_view.images import framing, resample
from dust3r_ros.estimators.two_view.runner import NetworkRunner, RunnerOptions
from dust3r_ros.estimators.two_view.self_calibration import calibrate
from dust3r_ros.estimators.two_view.token_store import StoredTokens
from dust3r_ros.geometry import Camera, Rectification, working_camera
from dust3r_ros.network import TwoViewNetwork, TwoViewOutput, load_network

log = logging.getLogger(__name__)

MOST_SURE = 1e6  # confidence is the exponential of what the network says: beyond this it only overflows
# How much larger errors of a pair's motion are than matches that err on their own would leave. On 128 generated pairs half of the turns
# are over 1.3 sigmas off and a quarter over 2.7, half of the moves over 0.6 and a quarter over 1.8: these keep most of them within one.
TURN_ERROR, MOVE_ERROR = 4.5, 2.0
FOUR_THIRDS = (4, 3)  # of most cameras: what is warmed up


class NetworkEstimator:
    """Each image is encoded once; the pairs of a call are decoded in batches. Not thread-safe.

    Working images are as the published networks take them: the longer side `size` pixels (or a square of it), cut to whole patches around
    the middle, undistorted before if the camera is known to distort.
    """

    def __init__(
        self,
        network: TwoViewNetwork,
        name: str = "network",
        size: int = 0,
        hardware: Hardware | None = None,
        options: RunnerOptions | None = None,
    ) -> None:
        """`network` is moved to the hardware's device and precision. `size`: pixels of the working image's longer side; 0: as trained."""
        self.name = name
        self.metric = name == "mast3r_512_catmlpdpt" or name.lower().endswith("_metric")  # as published: trained to give metres
        self.hardware = hardware or choose_hardware()
        self.beside_cpu = self.hardware.device.type != "cpu"
        self.network, self.config = network, network.config
        self.size = (size or network.config.image_size) // network.config.patch_size * network.config.patch_size
        if self.size < 2 * network.config.patch_size:
            raise EstimatorError(f"working image size {size}: give at least {2 * network.config.patch_size} for this network, or 0")
        network = network.to(self.hardware.device).to_precision(self.hardware.precision).channels_last().eval()
        self.runner = NetworkRunner(network, self.hardware, options)
        self._said_unusable = False

    @classmethod
    def from_file(
        cls,
        path: Path | str,
        name: str | None = None,
        size: int = 0,
        hardware: Hardware | None = None,
        options: RunnerOptions | None = None,
    ) -> NetworkEstimator:
        """From a file of weights; `name` as in `load_network`. Runs once at 4:3, so that the first image finds everything ready."""
        hardware = hardware or choose_hardware()
        network = load_network(path, name, hardware.precision, hardware.device)
        estimator = cls(network, name or Path(path).stem, size, hardware, options)
        log.info("model %s: %s", estimator.name, hardware.text)
        if hardware.device.type == "cuda" or (options is not None and options.compile):
            frame = framing(*FOUR_THIRDS, estimator.size, network.config.patch_size, network.config.square)
            estimator.runner.warm_up(*frame.size)
        return estimator

    def encode(self, image: NDArray[np.uint8], camera: Camera) -> Tokens:
        """Tokens of an image [H, W, 3] uint8 RGB. Raises EstimatorError if it is not of the camera's size or kind."""
        if image.dtype != np.uint8 or image.shape != (camera.height, camera.width, 3):
            raise EstimatorError(
                f"image of shape {image.shape} and type {image.dtype} does not fit its camera of {camera.width}x{camera.height}: "
                "give uint8 RGB of that size"
            )
        straight = camera
        if not camera.is_pinhole:
            straight = working_camera(camera, max(camera.width, camera.height))
            image = Rectification(camera, straight).image(image)
        frame = framing(straight.width, straight.height, self.size, self.config.patch_size, self.config.square)
        pixels = resample(image, frame, self.hardware.device)
        seen_by = frame.camera(straight.pinhole())
        return Tokens(camera, seen_by, pixels.cpu().numpy(), self.runner.encode(pixels, _lens(seen_by)))

    def estimate(self, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]], descriptors: bool = False) -> list[PairPrediction]:
        """Predictions for `pairs`, in their order, on the CPU. `descriptors`: MASt3R's too, for matching.

        Raises EstimatorError for a pair that is not in `views`, tokens of another estimator, or descriptors of a network without.
        """
        if descriptors and not self.config.descriptor_width:
            raise EstimatorError(f"model {self.name} has no descriptors: match by its points, or take mast3r_512_catmlpdpt")
        tokens = {key: _stored(view) for key, view in views.items()}
        groups: dict[tuple[tuple[int, int], tuple[int, int]], list[tuple[int, int]]] = defaultdict(list)
        for i, j in pairs:
            if i not in tokens or j not in tokens:
                raise EstimatorError(f"pair ({i}, {j}) is not two views of the window {list(views)}")
            groups[tokens[i].grid, tokens[j].grid].append((i, j))
        found: dict[tuple[int, int], PairPrediction] = {}
        for group in groups.values():
            outputs = self.runner.decode([(tokens[i], tokens[j]) for i, j in group], descriptors)
            for (i, j), output in zip(group, outputs, strict=True):
                found[i, j] = self._prediction(i, j, output)
        return [found[i, j] for i, j in pairs]

    @property
    def can_calibrate(self) -> bool:
        """Whether the network matches, and so heeds the camera that it is told."""
        return self.config.match_width > 0

    def calibrate(self, views: Sequence[Tokens], turns: Sequence[NDArray[np.float64]], is_measured: bool) -> Calibration | None:  # noqa: ARG002
        """The focal length of the views' camera by what pairs of them say, of a network that would heed it; see `SelfCalibrating`."""
        if is_measured or len(views) < 2 or not self.can_calibrate:
            return None
        return calibrate([_untold(view) for view in views], self.estimate)

    def _prediction(self, i: int, j: int, output: TwoViewOutput) -> PairPrediction:
        points_i, confidence_i = self._usable(output.points_1[0], output.confidence_1[0])
        points_j, confidence_j = self._usable(output.points_2[0], output.confidence_2[0])
        extra = (output.descriptors_1, output.descriptors_2, output.descriptor_confidence_1, output.descriptor_confidence_2)
        d_i, d_j, sure_i, sure_j = (None if value is None else value[0].cpu() for value in extra)
        motion = _motion(output.motion)
        return PairPrediction(i, j, points_i, points_j, confidence_i, confidence_j, d_i, d_j, sure_i, sure_j, motion)

    def _usable(self, points: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """What is not finite becomes unknown: confidence 1, the point 0."""
        if bool(torch.isfinite(points.sum() + confidence.sum())):
            return points.cpu(), confidence.clamp(max=MOST_SURE).cpu()
        good = torch.isfinite(points).all(-1) & torch.isfinite(confidence)
        points, confidence = points.where(good.unsqueeze(-1), 0.0).cpu(), confidence.where(good, 1.0).clamp(max=MOST_SURE).cpu()
        if not self._said_unusable and not bool(good.all()):
            self._said_unusable = True
            log.warning(
                "model %s gives numbers that are not finite (%d of %d pixels of an image): they count as unknown; "
                "if it goes on, set estimator.precision to bfloat16 or float32",
                self.name,
                int((~good).sum()),
                good.numel(),
            )
        return points, confidence


def _lens(camera: Camera) -> Tensor:
    """[1, 3], as ImageTokens has it."""
    if camera.assumed:
        return torch.zeros(1, 3)
    across, down = camera.cx - (camera.width - 1) / 2, camera.cy - (camera.height - 1) / 2
    return torch.tensor([[(camera.fx * camera.fy) ** 0.5, across, down]])


def _motion(values: Tensor | None) -> PairMotion | None:
    """As a network says it ([1, 14], see TwoViewOutput), or None where that is not finite."""
    said = None if values is None else values[0].double().cpu().numpy()
    if said is None or not np.isfinite(said).all():
        return None
    return PairMotion(said[:9].reshape(3, 3), said[9:12], TURN_ERROR * float(said[12]), MOVE_ERROR * float(said[13]))


def _untold(view: Tokens) -> Tokens:
    """As if nobody had measured the camera."""
    stored = _stored(view)
    return replace(view, features=StoredTokens(stored.values, stored.grid, torch.zeros_like(stored.lens)))


def _stored(view: Tokens) -> StoredTokens:
    if not isinstance(view.features, StoredTokens):
        raise EstimatorError(f"tokens of another estimator ({type(view.features).__name__}): encode the image with this one")
    return view.features
