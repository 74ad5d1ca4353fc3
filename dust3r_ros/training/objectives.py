"""What is minimised: a network and its loss as one module, so that they are compiled as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network import CrossViewCompletion, ImageTokens, TwoViewNetwork, TwoViewOutput, completion_loss
from dust3r_ros.network.blocks import precise
from dust3r_ros.network.camera_head import CameraHead, Pose
from dust3r_ros.network.completion import shown_of
from dust3r_ros.network.pair_geometry import PairGeometry
from dust3r_ros.training.descriptor_loss import at_pixels, matching_loss
from dust3r_ros.training.geometry_loss import TrueCells, alone_losses, geometry_loss, likeness_loss, true_cells
from dust3r_ros.training.inputs import Inputs
from dust3r_ros.training.losses import PointmapTruth, pointmap_loss, pose_loss
from dust3r_ros.training.pairs import View
from dust3r_ros.training.recipe import ObjectiveSection
from dust3r_ros.training.token_matching import token_matching_loss

MEASURES = ("loss", "error", "confidence", "matching")  # what an objective returns, in this order


class PointmapObjective(nn.Module):
    """Pointmaps of both orders of each pair, every image encoded once; and descriptors, where the network has them and they weigh."""

    def __init__(self, network: TwoViewNetwork, settings: ObjectiveSection, precision: torch.dtype) -> None:
        super().__init__()
        self.network, self.settings, self.precision = network, settings, precision

    def forward(self, inputs: Inputs) -> Tensor:
        """[4]: the loss to be minimised, then the other `MEASURES` (without a gradient of their own)."""
        with torch.autocast(inputs.images_1.device.type, self.precision, enabled=self.precision != torch.float32):
            tokens, orders, geometry = self._decoded(inputs)
        settings = self.settings
        parts = [
            pointmap_loss(
                (order.output.points_1, order.output.points_2),
                (order.output.confidence_1, order.output.confidence_2),
                truth,
                settings.alpha,
                settings.metric,
                settings.from_nothing,
            )
            for order, truth in zip(orders, inputs.truths, strict=True)
        ]
        loss, error, confidence = (sum(values) / len(parts) for values in zip(*(vars(part).values() for part in parts), strict=True))
        matching = torch.zeros_like(loss)
        if inputs.matches is not None and settings.matching > 0:
            matching = self._matching([order.output for order in orders], inputs)
            loss = loss + settings.matching * matching
        truths = one_order(inputs.truths, 0), one_order(inputs.truths, 1)
        shrink = self.network.config.shrink
        cells = (true_cells(truths[0], shrink), true_cells(truths[1], shrink)) if geometry is not None else None
        if settings.token_matching > 0:
            likeness = self._likeness(tokens, truths[0], cells)
            matching = matching + likeness
            loss = loss + settings.token_matching * likeness
        cameras = [order.camera for order in orders if order.camera is not None]
        if settings.pose > 0 and cameras:
            posed = sum(_camera_loss(camera, truth) for camera, truth in zip(cameras, inputs.truths, strict=True)) / len(cameras)
            loss = loss + settings.pose * posed
        if settings.geometry > 0 and geometry is not None and cells is not None:
            loss = loss + settings.geometry * geometry_loss(geometry, truths, cells, shrink)
        return torch.stack([loss, error.detach(), confidence.detach(), matching.detach()])

    def _decoded(self, inputs: Inputs) -> tuple[tuple[ImageTokens, ImageTokens], list[_Order], PairGeometry | None]:
        """The encoded tokens of both views, what is made of them, both orders at once where the views have one size, and the geometry.

        That is the same in both orders: it is found once, in the first.
        """
        network, lenses = self.network, inputs.lenses or (None, None)
        if len(inputs.truths) == 2:
            first, second = network.encode(inputs.images_1, lenses[0]), network.encode(inputs.images_2, lenses[1])
            geometry = network.geometry_of(first, second)
            back = None if geometry is None else geometry.swapped()
            return (first, second), [self._order(first, second, geometry), self._order(second, first, back)], geometry
        tokens = network.encode(torch.cat([inputs.images_1, inputs.images_2]))
        first, second = (ImageTokens(values, tokens.grid, lens=lens) for values, lens in zip(tokens.values.chunk(2), lenses, strict=True))
        geometry = network.geometry_of(first, second)
        both = None if geometry is None else geometry.followed_by(geometry.swapped())
        return (first, second), [self._order(tokens, ImageTokens(torch.cat([second.values, first.values]), tokens.grid), both)], geometry

    def _order(self, one: ImageTokens, two: ImageTokens, geometry: PairGeometry | None) -> _Order:
        levels = self.network.decode_levels(one, two, geometry)
        heads = self.network.downstream_head1, self.network.downstream_head2
        camera = None
        if self.settings.pose > 0 and isinstance(heads[0], CameraHead) and isinstance(heads[1], CameraHead) and geometry is not None:
            log_focals = (heads[0].log_focal(levels[0], geometry), heads[1].log_focal(levels[1], geometry))
            camera = _Camera(heads[1].pose(levels[1], geometry), log_focals)
        return _Order(self.network.output(levels, one, two, self.settings.matching > 0, geometry), camera)

    def _likeness(self, tokens: tuple[ImageTokens, ImageTokens], first: PointmapTruth, cells: tuple[TrueCells, TrueCells] | None) -> Tensor:
        """Of the pairs in their first order: the loss looks both ways itself."""
        network = self.network
        if network.geometry is not None and cells is not None:
            matching = network.geometry.matching
            one, two = (matching.unpacked(network.cells(view), view.grid) for view in tokens)
            return likeness_loss(matching.likeness(one, two), cells, (one.size, two.size))
        unit = [F.normalize(network.decoder_embed(precise(network.decoder_embed, view.values)).float(), dim=-1) for view in tokens]
        return token_matching_loss(unit[0] @ unit[1].transpose(1, 2) / self.settings.temperature, first, network.config.patch_size)

    def _matching(self, outputs: list[TwoViewOutput], inputs: Inputs) -> Tensor:
        assert inputs.matches is not None
        one, two, valid = inputs.matches
        orders = outputs if len(outputs) == 2 else [part_of(outputs[0], 0), part_of(outputs[0], 1)]
        losses = []
        for out, (pixels_1, pixels_2) in zip(orders, ((one, two), (two, one)), strict=True):
            assert out.descriptors_1 is not None
            assert out.descriptors_2 is not None
            assert out.descriptor_confidence_1 is not None
            assert out.descriptor_confidence_2 is not None
            unit = [
                nn.functional.normalize(at_pixels(values, pixels), dim=-1)
                for values, pixels in ((out.descriptors_1, pixels_1), (out.descriptors_2, pixels_2))
            ]
            sure = [
                at_pixels(values.clamp(max=1e6)[..., None], pixels)[..., 0]
                for values, pixels in ((out.descriptor_confidence_1, pixels_1), (out.descriptor_confidence_2, pixels_2))
            ]
            both = (sure[0] * sure[1]).clamp_min(1e-12).sqrt()  # the geometric mean: either end may say that it is lost
            losses.append(matching_loss(unit[0], unit[1], valid, self.settings.temperature, both, self.settings.alpha))
        return (losses[0] + losses[1]) / 2


@dataclass(frozen=True, eq=False)
class _Camera:
    """What the heads say of the cameras of pairs."""

    pose: Pose
    log_focals: tuple[Tensor, Tensor]  # [B] each, of pixels


@dataclass(frozen=True, eq=False)
class _Order:
    """Pairs of one order, or of both after one another, as the truth has them."""

    output: TwoViewOutput
    camera: _Camera | None  # where it weighs and the head says it


def _camera_loss(camera: _Camera, truth: PointmapTruth) -> Tensor:
    focals = zip(camera.log_focals, (truth.intrinsics_1, truth.intrinsics_2), strict=True)
    off = [(said - intrinsics[:, 0].log()).abs().mean() for said, intrinsics in focals]
    return pose_loss(*camera.pose, truth) + sum(off) / len(off)


def one_order(truths: tuple[PointmapTruth, ...], order: int) -> PointmapTruth:
    """Of the first order, or the second."""
    if len(truths) == 2:
        return truths[order]
    return PointmapTruth(*(value.chunk(2)[order] for value in vars(truths[0]).values()))


class CompletionObjective(nn.Module):
    """CroCo's cross-view completion (Weinzaepfel et al., NeurIPS 2022)."""

    def __init__(self, completion: CrossViewCompletion, settings: ObjectiveSection, precision: torch.dtype) -> None:
        super().__init__()
        self.completion, self.settings, self.precision = completion, settings, precision

    def forward(self, inputs: Inputs) -> Tensor:
        """As PointmapObjective's: only the loss says anything."""
        assert inputs.hidden is not None
        with torch.autocast(inputs.images_1.device.type, self.precision, enabled=self.precision != torch.float32):
            count = shown_of(inputs.hidden.shape[1], self.settings.hidden)
            completion = self.completion(inputs.images_1, inputs.images_2, inputs.hidden, count)
        loss = completion_loss(completion, inputs.images_1, self.completion.network.config.patch_size)
        nothing = torch.zeros_like(loss)
        return torch.stack([loss, nothing, nothing, nothing])


class AloneObjective(nn.Module):
    """Depth and focal length by a picture alone: what the adjustment of a pair begins with, and what it keeps where nothing matches.

    Several times as many pictures can teach that as pairs can in the same time.
    """

    def __init__(self, network: TwoViewNetwork, precision: torch.dtype) -> None:
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, inputs: Inputs) -> Tensor:
        """As PointmapObjective's: the error is that of the cells' log depths; nothing is confident or matched."""
        assert inputs.views is not None
        views = View(*(torch.cat(values) for values in zip(*(vars(view).values() for view in inputs.views), strict=True)))
        with torch.autocast(views.images.device.type, self.precision, enabled=self.precision != torch.float32):
            alone = self.network.alone(views.images)
        depth, focal = alone_losses(alone, views)
        nothing = torch.zeros_like(depth.detach())
        return torch.stack([depth + focal, depth.detach(), nothing, nothing])


def part_of(output: TwoViewOutput, half: int) -> TwoViewOutput:
    """The first or second half of a batch."""
    return TwoViewOutput(**{name: value.chunk(2)[half] for name, value in output.parts().items()})
