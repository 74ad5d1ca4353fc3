"""Parts of the network compiled by torch.compile where that was asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Compiled(Generic[Result]):
    """A function, compiled anew for shapes that it has not been called with. Where that fails it is said once, and it runs as it is."""

    def __init__(self, function: Callable[..., Result]) -> None:
        self._plain = function
        self._compiled: Callable[..., Result] | None = torch.compile(function, dynamic=False)

    def __call__(self, *arguments: Any) -> Result:
        if self._compiled is not None:
            try:
                return self._compiled(*arguments)
            except torch._dynamo.exc.TorchDynamoException as error:
                self._compiled = None
                log.warning(
                    "estimator.compile: the network runs as it is, torch.compile failed (%s): on a CPU it needs g++ in PATH, or CXX",
                    " ".join(str(error).split())[:160],
                )
        return self._plain(*arguments)
