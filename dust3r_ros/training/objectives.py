"""What is minimised: a network and its loss as one module, so that they are compiled as one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network import CrossViewCompletion, ImageTokens, TwoViewNetwork, TwoViewOutput, completion_loss
from dust3r_ros.network.blocks import precise
from dust3r_ros.network.camera_head import CameraHead, Pose
from dust3r_ros.network.completion import shown_of
from dust3r_ros.network.config import MATCHED_CELL
from dust3r_ros.training.descriptor_loss import at_pixels, matching_loss
from dust3r_ros.training.inputs import Inputs
from dust3r_ros.training.losses import PointmapTruth, pointmap_loss, pose_loss
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
            tokens, outputs, poses = self._outputs(inputs)
        settings = self.settings
        parts = [
            pointmap_loss(
                (out.points_1, out.points_2),
                (out.confidence_1, out.confidence_2),
                truth,
                settings.alpha,
                settings.metric,
                settings.from_nothing,
            )
            for out, truth in zip(outputs, inputs.truths, strict=True)
        ]
        loss, error, confidence = (sum(values) / len(parts) for values in zip(*(vars(part).values() for part in parts), strict=True))
        matching = torch.zeros_like(loss)
        if inputs.matches is not None and settings.matching > 0:
            matching = self._matching(outputs, inputs)
            loss = loss + settings.matching * matching
        if settings.token_matching > 0:
            likeness = self._likeness(tokens, inputs.truths[0])
            matching = matching + likeness
            loss = loss + settings.token_matching * likeness
        if poses:
            posed = sum(pose_loss(*pose, truth) for pose, truth in zip(poses, inputs.truths, strict=True)) / len(poses)
            loss = loss + settings.pose * posed
        return torch.stack([loss, error.detach(), confidence.detach(), matching.detach()])

    def _outputs(self, inputs: Inputs) -> tuple[tuple[ImageTokens, ImageTokens], list[TwoViewOutput], list[Pose]]:
        """The encoded tokens of both views, and what is made of them: both orders at once where the views have one size.

        Poses only where they weigh and the head says them.
        """
        network = self.network
        if len(inputs.truths) == 2:
            first, second = network.encode(inputs.images_1), network.encode(inputs.images_2)
            orders = [self._decoded(first, second), self._decoded(second, first)]
        else:
            tokens = network.encode(torch.cat([inputs.images_1, inputs.images_2]))
            first, second = (ImageTokens(values, tokens.grid) for values in tokens.values.chunk(2))
            orders = [self._decoded(tokens, ImageTokens(torch.cat([second.values, first.values]), tokens.grid))]
        return (first, second), [output for output, _ in orders], [pose for _, pose in orders if pose is not None]

    def _decoded(self, one: ImageTokens, two: ImageTokens) -> tuple[TwoViewOutput, Pose | None]:
        levels = self.network.decode_levels(one, two)
        head = self.network.downstream_head2
        pose = head.pose(levels[1]) if self.settings.pose > 0 and isinstance(head, CameraHead) else None
        return self.network.output(levels, one, two, self.settings.matching > 0), pose

    def _likeness(self, tokens: tuple[ImageTokens, ImageTokens], truth: PointmapTruth) -> Tensor:
        """Of the pairs in their first order: the loss looks both ways itself."""
        network, pairs = self.network, len(tokens[0].values)
        first = PointmapTruth(*(value[:pairs] for value in vars(truth).values()))
        if network.matching is not None:
            one, two = tokens
            likeness = network.matching.likeness(network.cells(one), one.grid, network.cells(two), two.grid)
            return token_matching_loss(likeness, first, MATCHED_CELL)
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


def part_of(output: TwoViewOutput, half: int) -> TwoViewOutput:
    """The first or second half of a batch."""
    return TwoViewOutput(*(value.chunk(2)[half] for value in output.tensors()))
