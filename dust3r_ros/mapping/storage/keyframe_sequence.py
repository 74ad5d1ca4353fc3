"""Keyframes one after the other, of which none need be in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from dust3r_ros.mapping.types import Keyframe


class KeyframeSequence(Sequence[Keyframe]):
    """Keyframes that are built when they are asked for."""

    def __init__(self, indices: Sequence[int], build: Callable[[int], Keyframe]) -> None:
        self._indices, self._build = indices, build

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, at: int) -> Keyframe: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Keyframe]: ...
    def __getitem__(self, at: int | slice) -> Keyframe | Sequence[Keyframe]:
        if isinstance(at, slice):
            return KeyframeSequence(self._indices[at], self._build)
        return self._build(self._indices[at])
