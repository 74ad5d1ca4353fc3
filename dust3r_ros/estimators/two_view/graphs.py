"""CUDA graphs: a whole forward pass as one launch, recorded once for each shape.

Never run yet: no GPU was there when this was written.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

LIMIT = 12  # graphs; each keeps its inputs and outputs on the device
WARM_UPS = 3  # runs before recording: libraries choose their algorithms in them

Forward = Callable[..., tuple[Tensor, ...]]


class CudaGraphs:
    """`run(key, forward, inputs)` gives what `forward(*inputs)` gives; the same key must mean the same shapes and the same function."""

    def __init__(self, device: torch.device, enabled: bool = True) -> None:
        self.enabled = enabled and device.type == "cuda"
        self._recorded: OrderedDict[Hashable, _Recording] = OrderedDict()
        self._pool: Any = None

    def run(self, key: Hashable, forward: Forward, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The outputs are the caller's own."""
        if not self.enabled:
            return forward(*inputs)
        recording = self._recorded.get(key)
        if recording is None:
            try:
                recording = self._record(forward, inputs)
            except torch.OutOfMemoryError:
                self.forget()
                raise
            except RuntimeError as error:
                log.warning("CUDA graphs are off: recording failed (%s); it goes on without, slower", " ".join(str(error).split())[:160])
                self.forget()
                self.enabled = False
                return forward(*inputs)
            self._recorded[key] = recording
            while len(self._recorded) > LIMIT:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(key)
        return recording.replay(inputs)

    def forget(self) -> None:
        """Give the graphs' memory back."""
        self._recorded.clear()
        self._pool = None

    def _record(self, forward: Forward, inputs: tuple[Tensor, ...]) -> _Recording:
        static = tuple(tensor.clone() for tensor in inputs)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                forward(*static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = forward(*static)
        return _Recording(graph, static, outputs)


class _Recording:
    def __init__(self, graph: torch.cuda.CUDAGraph, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        self._graph, self._inputs, self._outputs = graph, inputs, outputs

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for static, given in zip(self._inputs, inputs, strict=True):
            static.copy_(given)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)
