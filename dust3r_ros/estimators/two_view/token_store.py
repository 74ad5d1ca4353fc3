"""The encoder's tokens of many images: the newest on the device, the oldest in host memory, none of them once nobody asks for it."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from dust3r_ros.network import ImageTokens

Details = list[Tensor | None]


@dataclass(eq=False)
class StoredTokens:
    """Of one image. Lives as long as the keyframe that holds it."""

    values: Tensor  # [1, N, C]
    grid: tuple[int, int]
    lens: Tensor  # [1, 3], as ImageTokens has it
    details: Details = field(default_factory=lambda: [None, None])  # by side; made when first needed, not moved to the host

    @property
    def device_bytes(self) -> int:
        tensors = [self.values, *(detail for detail in self.details if detail is not None)]
        return sum(tensor.nbytes for tensor in tensors)


class TokenStore:
    """Keeps what lies on the device under `budget` bytes, least recently used first out. Holds no image alive by itself."""

    def __init__(self, device: torch.device, budget: int) -> None:
        self._device, self.budget = device, budget
        self._resident: OrderedDict[int, weakref.ref[StoredTokens]] = OrderedDict()

    def put(self, tokens: ImageTokens, lens: Tensor, dtype: torch.dtype) -> StoredTokens:
        """Keep tokens [1, N, C] as `dtype`, with the lens [1, 3] that took their image."""
        stored = StoredTokens(tokens.values.to(dtype), tokens.grid, lens.to(self._device))
        self._touch(stored)
        return stored

    def use(self, stored: StoredTokens) -> Tensor:
        """Its values, on the device; the caller's even if others' make them leave the store's."""
        if stored.values.device.type != self._device.type:
            stored.values = stored.values.to(self._device)
        values = stored.values
        self._touch(stored)
        return values

    def keep_detail(self, stored: StoredTokens, side: int, detail: Tensor | None) -> None:
        stored.details[side] = detail
        self._touch(stored)

    @property
    def device_bytes(self) -> int:
        """Of everything that is alive and on the device."""
        return sum(tokens.device_bytes for tokens in self._alive())

    def release(self, keep: set[int] | None = None) -> None:
        """Move everything to the host, but for the tokens of these ids: the device's memory is needed."""
        for tokens in self._alive():
            if id(tokens) not in (keep or set()):
                self._to_host(tokens)

    def _touch(self, stored: StoredTokens) -> None:
        key = id(stored)
        if key not in self._resident:
            self._resident[key] = weakref.ref(stored, partial(self._gone, key))
        self._resident.move_to_end(key)
        total = self.device_bytes
        for tokens in self._alive()[:-1]:
            if total <= self.budget:
                break
            total -= tokens.device_bytes
            self._to_host(tokens)

    def _gone(self, key: int, _: weakref.ref[StoredTokens]) -> None:
        self._resident.pop(key, None)

    def _alive(self) -> list[StoredTokens]:
        """Oldest first."""
        return [tokens for reference in list(self._resident.values()) if (tokens := reference()) is not None]

    def _to_host(self, tokens: StoredTokens) -> None:
        tokens.details = [None, None]
        tokens.values = tokens.values.to("cpu")
        self._resident.pop(id(tokens), None)
