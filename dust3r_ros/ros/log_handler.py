"""The package's own log lines through a node's logger."""

from __future__ import annotations

import logging
from typing import Any


class RosLogHandler(logging.Handler):
    """Sends the package's own log lines through the node's logger."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)
