"""The network on its device: images to tokens, pairs of tokens to pointmaps, as many at a time as the memory takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from dust3r_ros.estimators.errors import EstimatorError
from dust3r_ros.estimators.two_view.compilation import Compiled
from dust3r_ros.estimators.two_view.graphs import CudaGraphs
from dust3r_ros.estimators.two_view.hardware import Hardware
from dust3r_ros.estimators.two_view.images import normalised
from dust3r_ros.estimators.two_view.token_store import StoredTokens, TokenStore
from dust3r_ros.network import ImageTokens, TwoViewNetwork, TwoViewOutput

log = logging.getLogger(__name__)

TOKEN_BUDGET = 1 << 30  # bytes of tokens on the device
LARGEST_BATCH = 16  # pairs decoded at once on a GPU
LARGEST_BATCH_CPU = 1  # more at once only leave the caches: 1 to 25 % slower, docs/benchmarks.md
BOTH_ORDERS = 2  # of a pair, which come one after the other: they share what a network's geometry says of them

Pair = tuple[StoredTokens, StoredTokens]
Result = TypeVar("Result")


@dataclass(frozen=True)
class RunnerOptions:
    graphs: bool = True  # CUDA graphs
    compile: bool = False  # torch.compile, but for what a pair's geometry is found by; a minute at the first start


class NetworkRunner:
    """Owns the network. Not thread-safe."""

    def __init__(self, network: TwoViewNetwork, hardware: Hardware, options: RunnerOptions | None = None) -> None:
        options = options or RunnerOptions()
        self.network, self.hardware = network, hardware
        self.store = TokenStore(hardware.device, TOKEN_BUDGET)
        self.batch = LARGEST_BATCH
        if hardware.device.type != "cuda":
            self.batch = LARGEST_BATCH_CPU if network.geometry is None else BOTH_ORDERS
        self._graphs = CudaGraphs(hardware.device, options.graphs and not options.compile)
        self._encode: Callable[[Tensor], Tensor] = self._encode_plainly
        self._decoded: Callable[..., TwoViewOutput] = network.decoded
        if options.compile:
            self._encode, self._decoded = Compiled(self._encode), Compiled(self._decoded)

    @torch.inference_mode()
    def warm_up(self, width: int, height: int) -> None:
        """Run once at this size, so that the first image does not wait for what libraries do once."""
        tokens = self.encode(torch.zeros(height, width, 3, dtype=torch.uint8, device=self.hardware.device))
        for _ in self.decode([(tokens, tokens)] * 2):
            pass

    @torch.inference_mode()
    def encode(self, pixels: Tensor, lens: Tensor | None = None) -> StoredTokens:
        """The framed picture [h, w, 3] uint8, on the device, to its tokens. lens: [1, 3], as ImageTokens has it."""
        patch = self.network.config.patch_size
        grid = (pixels.shape[0] // patch, pixels.shape[1] // patch)
        run = partial(self._graphs.run, ("encode", grid), lambda images: (self._encode(images),), (pixels.unsqueeze(0),))
        (values,) = self._guarded(run, 1, set())
        return self.store.put(ImageTokens(values, grid), torch.zeros(1, 3) if lens is None else lens, self.hardware.precision)

    @torch.inference_mode()
    def decode(self, pairs: Sequence[Pair], descriptors: bool = False) -> Iterator[TwoViewOutput]:
        """In order, one output of batch size 1 a pair, on the device. All pairs of the call have the same two sizes."""
        at = 0
        while at < len(pairs):
            chunk = pairs[at : at + self.batch]
            in_use = {id(tokens) for pair in chunk for tokens in pair}
            try:
                out = self._guarded(partial(self._decode_batch, chunk, descriptors), len(chunk), in_use)
            except _TooLargeError:
                continue  # with the smaller batch
            at += len(chunk)
            for k in range(len(chunk)):
                yield out.pair(k)

    def _decode_batch(self, pairs: Sequence[Pair], descriptors: bool) -> TwoViewOutput:
        values = [[self.store.use(pair[side]) for pair in pairs] for side in (0, 1)]
        details = [[self._detail(pair[side], value, side) for pair, value in zip(pairs, values[side], strict=True)] for side in (0, 1)]
        tensors = [torch.cat(side) for side in values]
        tensors += [torch.cat([pair[side].lens for pair in pairs]) for side in (0, 1)]
        tensors += [torch.cat([detail for detail in side if detail is not None]) for side in details if side[0] is not None]
        grids = (pairs[0][0].grid, pairs[0][1].grid)
        mirrored = self.network.geometry is not None and _are_mirrored(pairs)
        key = ("decode", len(pairs), grids, descriptors, mirrored)
        outputs = self._graphs.run(key, lambda *inputs: self._decode(grids, descriptors, mirrored, *inputs), tuple(tensors))
        return TwoViewOutput(**dict(zip(self.network.output_names(descriptors), outputs, strict=True)))

    def _detail(self, image: StoredTokens, values: Tensor, side: int) -> Tensor | None:
        """Made once an image and side, and kept with its tokens."""
        detail = image.details[side]
        if detail is None:
            detail = self.network.detail(ImageTokens(values, image.grid), side)
            self.store.keep_detail(image, side, detail)
        return detail

    def _encode_plainly(self, images: Tensor) -> Tensor:
        return self.network.encode(normalised(images)).values

    def _decode(
        self, grids: tuple[tuple[int, int], tuple[int, int]], descriptors: bool, mirrored: bool, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        details = tensors[4:] or (None, None)
        first = ImageTokens(tensors[0], grids[0], (details[0], None), tensors[2])
        second = ImageTokens(tensors[1], grids[1], (None, details[1]), tensors[3])
        geometry = self.network.geometry_of(first, second, mirrored)
        parts = self._decoded(first, second, geometry, descriptors).parts()
        return tuple(parts[name] for name in self.network.output_names(descriptors))

    # ---- memory ----------------------------------------------------------------------------------------------------------------------

    def _guarded(self, run: Callable[[], Result], size: int, in_use: set[int]) -> Result:
        """`run()`; out of memory, make room and, for a batch, say that the next try is with half of it."""
        try:
            return run()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:120]
        self._graphs.forget()
        self.store.release(in_use)
        if self.hardware.device.type == "cuda":
            torch.cuda.empty_cache()
        if size > 1:
            self.batch = self._smaller(size)
            log.warning("out of memory with %d pairs at once: going on with %d (%s)", size, self.batch, reason)
            raise _TooLargeError
        try:
            return run()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise EstimatorError(
                f"out of memory on {self.hardware.text} even with one image or pair: set estimator.size to less, estimator.precision "
                "to a half one, or free memory of the device"
            ) from error

    def _smaller(self, size: int) -> int:
        """Half as many pairs; of a network with a geometry both orders of a pair stay together while they can."""
        half = size // 2
        return half if self.network.geometry is None or size <= BOTH_ORDERS else max(BOTH_ORDERS, half - half % BOTH_ORDERS)


def _are_mirrored(pairs: Sequence[Pair]) -> bool:
    """Whether every second pair is the one before it, the other way round."""
    couples = zip(pairs[::2], pairs[1::2], strict=False)
    return len(pairs) % 2 == 0 and all(one[0] is back[1] and one[1] is back[0] for one, back in couples)


class _TooLargeError(Exception):
    """The batch was halved."""


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error).lower()
