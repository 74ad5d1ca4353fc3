"""One step of the weights: AdamW or Muon, the gradient's norm kept in bounds, steps that are not finite left out, weights averaged.

Muon (Jordan et al., 2024) turns the momentum of each matrix into the nearest orthogonal one, so that a step is as long in every direction.
As in Moonlight (Liu et al., 2025) it is scaled to the length of AdamW's steps; what is no matrix of a hidden layer is AdamW's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dust3r_ros.training.errors import TrainingError
from dust3r_ros.training.recipe import OptimiserSection

BETAS = (0.9, 0.95)
MOMENTUM = "momentum_buffer"  # Muon's name of what it remembers
LEAST_SIDE = 32  # rows and columns of what counts as a matrix


@dataclass(frozen=True, eq=False)
class _Matrix:
    """A weight whose memory is seen as a matrix [out, rest]: convolutions' are."""

    weight: Tensor
    seen: nn.Parameter

    def take_gradient(self, scale: Tensor) -> None:
        """The weight's, divided by `scale`."""
        gradient = self.weight.grad
        self.seen.grad = None if gradient is None else _as_matrix(gradient, _is_channels_last(self.weight)) / scale


class Optimisation:
    """AdamW waits for nothing: whether a gradient is finite is decided on the device, by the fused optimiser's own switch."""

    def __init__(self, network: nn.Module, average: nn.Module, settings: OptimiserSection) -> None:
        """`average`: a copy of the network whose weights become the running average (its parameters are written to)."""
        self.settings = settings
        named = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        self.names, self.parameters = list(named), list(named.values())
        copies = dict(average.named_parameters())
        self.average: list[Tensor] = [copies[name] for name in self.names if name in copies]
        self.averaged: list[Tensor] = [named[name] for name in self.names if name in copies]
        is_muon = settings.method == "muon"
        self.matrices = {name: _matrix(p) for name, p in named.items() if is_muon and decays(name, p) and _sides(p) >= LEAST_SIDE}
        rest = {name: p for name, p in named.items() if name not in self.matrices}
        groups = [
            {"params": [p for name, p in rest.items() if decays(name, p)], "weight_decay": settings.weight_decay},
            {"params": [p for name, p in rest.items() if not decays(name, p)], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=BETAS, fused=True)
        self.muon = _muon([matrix.seen for matrix in self.matrices.values()], settings) if self.matrices else None
        device = self.parameters[0].device
        self.skipped = torch.zeros(2, device=device)  # steps left out: in all, and the last in a row

    def step(self, learning_rate: float, count: int) -> Tensor:
        """Take the step that the gradients say and clear them; returns their norm. `count`: steps that the average has seen."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._guarded(norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        self._step_matrices(norm, learning_rate)
        for parameter in self.parameters:
            parameter.grad = None
        self._update_average(count)
        return norm

    def _guarded(self, norm: Tensor) -> None:
        """Tell the fused step, as a gradient scaler would, what to divide the gradients by and whether to leave them alone."""
        bad = (~torch.isfinite(norm)).float()
        self.optimiser.grad_scale = torch.nan_to_num(self._excess(norm), nan=1.0, posinf=1.0).float()  # type: ignore[attr-defined]
        self.optimiser.found_inf = bad  # type: ignore[attr-defined]
        self.skipped = torch.stack([self.skipped[0] + bad, (self.skipped[1] + 1) * bad])

    def _excess(self, norm: Tensor) -> Tensor:
        """What the gradients are divided by."""
        return (norm / self.settings.clip).clamp_min(1.0)

    @torch.no_grad()
    def _step_matrices(self, norm: Tensor, learning_rate: float) -> None:
        """A gradient that is not finite is left out: this waits for the device."""
        if self.muon is None or not bool(torch.isfinite(norm)):
            return
        for matrix in self.matrices.values():
            matrix.take_gradient(self._excess(norm))
        self.muon.param_groups[0]["lr"] = learning_rate
        self.muon.step()
        for matrix in self.matrices.values():
            matrix.seen.grad = None

    @torch.no_grad()
    def _update_average(self, count: int) -> None:
        """The first steps weigh more: their average would else be the random start for thousands of steps."""
        decay = min(self.settings.ema, (1 + count) / (10 + count))
        torch._foreach_lerp_(self.average, self.averaged, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The optimiser's tensors by parameter name."""
        found = {"skipped": self.skipped}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            optimiser, held = self._holder(name, parameter)
            for key, value in optimiser.state.get(held, {}).items():
                found[f"{name}/{key}"] = value
        return found

    def _holder(self, name: str, parameter: Tensor) -> tuple[torch.optim.Optimizer, Tensor]:
        """The optimiser that moves a weight, and what it knows it as."""
        if self.muon is not None and name in self.matrices:
            return self.muon, self.matrices[name].seen
        return self.optimiser, parameter

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        device = self.parameters[0].device
        self.skipped = state["skipped"].to(device)
        parameters = dict(zip(self.names, self.parameters, strict=True))
        for key, value in state.items():
            name, slash, what = key.rpartition("/")
            if slash and (what == MOMENTUM) == (name in self.matrices):  # by the other method: begun anew
                optimiser, parameter = self._holder(name, parameters[name])
                if value.shape == parameter.shape:  # lies as its parameter does: the fused step goes through both as memory, not by index
                    value = torch.empty_like(parameter).copy_(value)
                optimiser.state[parameter][what] = value.to(device)


def decays(name: str, parameter: Tensor) -> bool:
    """Weights of products do; norms, biases and the mask token do not."""
    return parameter.ndim > 1 and "mask_token" not in name


def _sides(parameter: Tensor) -> int:
    """The lesser of a matrix's two."""
    return min(parameter.shape[0], parameter[0].numel())


def _is_channels_last(weight: Tensor) -> bool:
    return weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)


def _as_matrix(values: Tensor, is_channels_last: bool) -> Tensor:
    return (values.permute(0, 2, 3, 1) if is_channels_last else values).flatten(1)


def _matrix(weight: Tensor) -> _Matrix:
    return _Matrix(weight, nn.Parameter(_as_matrix(weight.detach(), _is_channels_last(weight))))


def _muon(matrices: list[nn.Parameter], settings: OptimiserSection) -> torch.optim.Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise TrainingError(f"optimiser.method is muon, which PyTorch {torch.__version__} lacks: install 2.9 or later, or set it to adamw")
    return torch.optim.Muon(matrices, lr=settings.learning_rate, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")


def copied(values: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Second ones become the first ones."""
    with torch.no_grad():
        for source, target in values:
            target.copy_(source)
