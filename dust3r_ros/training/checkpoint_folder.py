"""The checkpoints of a run: the last two and the milestones are kept, and the newest that is whole is found again."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from dust3r_ros.training.checkpoints import CheckpointRefusedError, TrainingCheckpoint, read_checkpoint, write_checkpoint

log = logging.getLogger(__name__)

NAME = re.compile(r"step_(\d+)\.safetensors")
KEPT = 2


@dataclass(frozen=True)
class CheckpointFolder:
    path: Path
    milestone_every: int = 0

    def write(self, checkpoint: TrainingCheckpoint) -> Path:
        """Raises OutputError where it cannot be written; the older ones stand then."""
        file = self.path / f"step_{checkpoint.step:09d}.safetensors"
        write_checkpoint(checkpoint, file)
        for old in self.files()[:-KEPT]:
            if not self._is_milestone(old):
                old.unlink(missing_ok=True)
        return file

    def newest(self) -> TrainingCheckpoint | None:
        """The newest that is whole; a warning for each that is not. None if there is none at all.

        Raises CheckpointRefusedError if there are some and none is whole.
        """
        files = self.files()
        for file in reversed(files):
            try:
                return read_checkpoint(file)
            except CheckpointRefusedError as error:
                log.warning("%s", error)
        if files:
            raise CheckpointRefusedError(f"not one of the {len(files)} checkpoints of {self.path} is whole: move them away to start anew")
        return None

    def files(self) -> list[Path]:
        """Oldest first."""
        return sorted((file for file in self.path.glob("step_*.safetensors") if NAME.fullmatch(file.name)), key=_step)

    def drop_after(self, step: int) -> None:
        """Remove what lies ahead of a run that goes on from `step`: it would be taken for newer."""
        for file in self.files():
            if _step(file) > step:
                file.unlink(missing_ok=True)

    def remove_unfinished(self) -> None:
        """What runs that were killed while they wrote left behind."""
        for file in self.path.glob(".step_*.partial"):
            file.unlink(missing_ok=True)

    def _is_milestone(self, file: Path) -> bool:
        return self.milestone_every > 0 and _step(file) % self.milestone_every == 0


def _step(file: Path) -> int:
    found = NAME.fullmatch(file.name)
    return int(found[1]) if found else -1
