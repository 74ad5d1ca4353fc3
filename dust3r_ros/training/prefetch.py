"""The next step's inputs, made while this step is learned from."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from dust3r_ros.training.inputs import InputMaker, Inputs
from dust3r_ros.training.schedule import Stage

Work = tuple[int, int, Stage]  # step, part, for which objective


class Prefetch:
    """Inputs in the order asked for, one ahead: in a thread, on a CUDA stream of its own; on a CPU only where they come from the disk.

    The thread, because what the host uploads waits for the stream's earlier work: the training step is started meanwhile. What comes next
    must be said a call ahead. The CUDA way has not run on a GPU yet.
    """

    def __init__(self, maker: InputMaker, device: torch.device, enabled: bool, from_disk: bool) -> None:
        self.maker, self.device = maker, device
        self.stream = torch.cuda.Stream(device) if enabled and device.type == "cuda" else None
        self.thread = ThreadPoolExecutor(1) if enabled and (from_disk or self.stream is not None) else None
        self.ahead: tuple[Work, Inputs | Future[Inputs]] | None = None

    def take(self, work: Work, following: Work | None) -> Inputs:
        """The inputs of `work`; those of `following` are begun."""
        found = self.ahead[1] if self.ahead is not None and self.ahead[0] == work else self._begin(work)
        inputs = found.result() if isinstance(found, Future) else found
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            for value in inputs.tensors():
                value.record_stream(current)
        self.ahead = (following, self._begin(following)) if self.thread is not None and following is not None else None
        return inputs

    def _begin(self, work: Work) -> Inputs | Future[Inputs]:
        if self.thread is not None:
            return self.thread.submit(self._make, work)
        return self._make(work)

    def _make(self, work: Work) -> Inputs:
        if self.stream is None:
            return self.maker.make(*work)
        with torch.cuda.stream(self.stream):
            return self.maker.make(*work)

    def close(self) -> None:
        if self.thread is not None:
            self.thread.shutdown(wait=True, cancel_futures=True)


def parts(step: int, accumulate: int, stage: Stage) -> Iterator[Work]:
    """All work of one step."""
    for part in range(accumulate):
        yield (step, part, stage)
