"""One step of the weights: AdamW, the gradient's norm kept in bounds, steps that are not finite left out, weights averaged."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dust3r_ros.training.recipe import OptimiserSection

BETAS = (0.9, 0.95)


class Optimisation:
    """Nothing here waits for the device: whether a gradient is finite is decided there, by the fused optimiser's own switch."""

    def __init__(self, network: nn.Module, average: nn.Module, settings: OptimiserSection) -> None:
        """`average`: a copy of the network whose weights become the running average (its parameters are written to)."""
        self.settings = settings
        named = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        self.names, self.parameters = list(named), list(named.values())
        copies = dict(average.named_parameters())
        self.average: list[Tensor] = [copies[name] for name in self.names if name in copies]
        self.averaged: list[Tensor] = [named[name] for name in self.names if name in copies]
        groups = [
            {"params": [p for name, p in named.items() if decays(name, p)], "weight_decay": settings.weight_decay},
            {"params": [p for name, p in named.items() if not decays(name, p)], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=BETAS, fused=True)
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
        self.optimiser.zero_grad(set_to_none=True)
        self._update_average(count)
        return norm

    def _guarded(self, norm: Tensor) -> None:
        """Tell the fused step, as a gradient scaler would, what to divide the gradients by and whether to leave them alone."""
        bad = (~torch.isfinite(norm)).float()
        scale = (norm / self.settings.clip).clamp_min(1.0)
        self.optimiser.grad_scale = torch.nan_to_num(scale, nan=1.0, posinf=1.0).float()  # type: ignore[attr-defined]
        self.optimiser.found_inf = bad  # type: ignore[attr-defined]
        self.skipped = torch.stack([self.skipped[0] + bad, (self.skipped[1] + 1) * bad])

    @torch.no_grad()
    def _update_average(self, count: int) -> None:
        """The first steps weigh more: their average would else be the random start for thousands of steps."""
        decay = min(self.settings.ema, (1 + count) / (10 + count))
        torch._foreach_lerp_(self.average, self.averaged, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The optimiser's tensors by parameter name."""
        found = {"skipped": self.skipped}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            for key, value in self.optimiser.state.get(parameter, {}).items():
                found[f"{name}/{key}"] = value
        return found

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        device = self.parameters[0].device
        self.skipped = state["skipped"].to(device)
        parameters = dict(zip(self.names, self.parameters, strict=True))
        for key, value in state.items():
            name, slash, what = key.rpartition("/")
            if slash:
                parameter = parameters[name]
                if value.shape == parameter.shape:  # lies as its parameter does: the fused step goes through both as memory, not by index
                    value = torch.empty_like(parameter).copy_(value)
                self.optimiser.state[parameter][what] = value.to(device)


def decays(name: str, parameter: Tensor) -> bool:
    """Weights of products do; norms, biases and the mask token do not."""
    return parameter.ndim > 1 and "mask_token" not in name


def copied(values: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Second ones become the first ones."""
    with torch.no_grad():
        for source, target in values:
            target.copy_(source)
