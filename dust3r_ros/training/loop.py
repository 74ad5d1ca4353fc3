"""The training loop: inputs, loss, step, and now and then a line, a look at held-out pairs and a checkpoint.

The device is waited for every `log_every` steps only. Written for one GPU and never run on one yet; what was measured was measured on CPUs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dust3r_ros.io.atomic import OutputError
from dust3r_ros.network import TwoViewNetwork
from dust3r_ros.training.checkpoint_folder import CheckpointFolder
from dust3r_ros.training.errors import TrainingError
from dust3r_ros.training.inputs import FindCorrespondences, InputMaker
from dust3r_ros.training.objectives import MEASURES, AloneObjective, CompletionObjective, PointmapObjective
from dust3r_ros.training.optimisation import copied
from dust3r_ros.training.pairs import PairSource
from dust3r_ros.training.prefetch import Prefetch, parts
from dust3r_ros.training.recipe import Recipe
from dust3r_ros.training.records import LOSSES, Table
from dust3r_ros.training.schedule import STAGES, Schedule, Stage
from dust3r_ros.training.state import TrainingState
from dust3r_ros.training.stopping import stop_request
from dust3r_ros.training.validation import Validation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """What is said every `log_every` steps."""

    step: int
    progress: float  # 0 to 1, of the schedule
    loss: float
    error: float
    pairs_per_second: float
    seconds_left: float  # of this run
    objective: str


@dataclass(frozen=True)
class Ended:
    step: int
    minutes: float
    reason: str  # "schedule", "time" or "signal"
    signal: int = 0


def is_compiled(recipe: Recipe, network: TwoViewNetwork, stage: Stage) -> bool:
    """Whether a stage's objective is: not where cameras are found by matches, which is unrolled and takes minutes for next to nothing."""
    return recipe.hardware.compile and not (stage == "pointmaps" and network.geometry is not None)


class TrainingLoop:
    """One run of a recipe, in a folder."""

    def __init__(
        self,
        recipe: Recipe,
        state: TrainingState,
        source: PairSource,
        output: Path,
        precision: torch.dtype,
        validation: Validation | None = None,
        find: FindCorrespondences | None = None,
        say: Callable[[Line], None] = lambda _: None,
        pictures: PairSource | None = None,
    ) -> None:
        self.recipe, self.state, self.schedule, self.say = recipe, state, Schedule(recipe), say
        self.device = state.sums.device
        self.validation = validation
        self.folder = CheckpointFolder(output / "checkpoints", recipe.records.milestone_every)
        self.table = Table(output / "losses.csv", LOSSES)
        pointmaps = PointmapObjective(state.network, recipe.objective, precision)
        completion = CompletionObjective(state.learner, recipe.objective, precision)
        objectives = completion, AloneObjective(state.network, precision), pointmaps
        self.objectives: dict[Stage, Callable[..., Tensor]] = {
            stage: torch.compile(objective, dynamic=False) if is_compiled(recipe, state.network, stage) else objective
            for stage, objective in zip(STAGES, objectives, strict=True)
        }
        self.traced: set[Stage] = set()  # that have learned from a batch
        maker = InputMaker(recipe, source, find, state.network.config.patch_size, pictures)
        self.prefetch = Prefetch(maker, self.device, recipe.hardware.prefetch, recipe.data.source == "rgbd")

    def run(self, minutes: float | None = None) -> Ended:
        """Train until the schedule is over, `minutes` of wall time are, or a signal comes; a checkpoint is the last thing.

        Raises TrainingError when the gradients stay not finite, OutputError when the last checkpoint cannot be written.
        """
        self.folder.remove_unfinished()
        self.table.begin(self.state.step)
        self.started = self.said = self.saved = time.monotonic()
        self.limit = minutes
        with stop_request() as request:
            try:
                reason = ""
                while not reason:
                    self._step()
                    self._record()
                    reason = self._reason_to_end(bool(request.signal))
                self._save(is_last=True)
                return Ended(self.state.step, self.minutes(), reason, request.signal)
            finally:
                self.prefetch.close()

    def minutes(self) -> float:
        """Of training, in all runs."""
        return self.state.minutes + (time.monotonic() - self.started) / 60

    def _reason_to_end(self, is_asked: bool) -> str:
        if is_asked:
            return "signal"
        if self.schedule.is_over(self.state.step, self.minutes()):
            return "schedule"
        return "time" if self.limit is not None and time.monotonic() - self.started >= 60 * self.limit else ""

    def _step(self) -> None:
        state, accumulate = self.state, self.recipe.data.accumulate
        progress = self.schedule.progress(state.step, self.minutes())
        stage = self.schedule.stage(progress)
        if stage == "pointmaps" and self._are_pairs_new():
            self._begin_pairs()
        steps = [list(parts(state.step + n, accumulate, stage)) for n in (0, 1)]
        for work, following in zip(steps[0], [*steps[0][1:], steps[1][0]], strict=True):
            # Only one thread at a time may trace what is compiled: the first batch of each stage is made by itself.
            measures = self.objectives[stage](self.prefetch.take(work, following if stage in self.traced else None))
            (measures[0] / accumulate).backward()
            self.traced.add(stage)
            state.sums[: len(MEASURES)] += measures.detach() / accumulate
        self.learning_rate = self.schedule.learning_rate(progress, state.step - state.first_step)
        norm = state.optimisation.step(self.learning_rate, state.step - state.first_step)
        state.sums[-2:] += torch.stack([norm, torch.ones_like(norm)])
        state.step += 1
        state.pairs += self._pairs_of(stage)

    def _pairs_of(self, stage: Stage) -> int:
        """Of a step."""
        return 0 if stage == "alone" else self.recipe.data.batch * self.recipe.data.accumulate

    def _are_pairs_new(self) -> bool:
        """Whether the optimiser's last steps were another objective's: only then the second decoder has seen no gradient."""
        network = self.state.network
        return self._has_learned(network.enc_norm) and not self._has_learned(network.dec_blocks2)

    def _has_learned(self, part: nn.Module) -> bool:
        return bool(self.state.optimisation.optimiser.state.get(next(part.parameters())))

    def _begin_pairs(self) -> None:
        """Both decoders start from the one that completion has trained (as in DUSt3R, section 4), and the learning rate warms up again."""
        if self._has_learned(self.state.network.dec_blocks):
            for network in (self.state.network, self.state.average.network):
                copied(zip(network.dec_blocks.parameters(), network.dec_blocks2.parameters(), strict=True))
        self.state.first_step = self.state.step
        log.info("step %d: pointmaps begin", self.state.step)

    def _record(self) -> None:
        records, step = self.recipe.records, self.state.step
        if step % records.log_every == 0:
            self._log()
        if self.validation is not None and records.validate_every and step % records.validate_every == 0:
            self.validation.look(self.state.average.network, step, self.minutes(), self.state.pairs)
        if step % records.save_every == 0 or time.monotonic() - self.saved > 60 * records.save_minutes:
            self._save(is_last=False)

    def _log(self) -> None:
        """The one place where the loop waits for the device."""
        state = self.state
        *means, count, skipped, in_a_row = torch.cat([state.sums, state.optimisation.skipped]).tolist()
        loss, error, confidence, matching, norm = (value / max(count, 1) for value in means)
        state.sums.zero_()
        now = time.monotonic()
        seconds = max(now - self.said, 1e-9)
        self.said = now
        progress = self.schedule.progress(state.step, self.minutes())
        objective = self.schedule.stage(self.schedule.progress(state.step - 1, self.minutes()))
        pairs_per_second = count * self._pairs_of(objective) / seconds
        row = (state.step, self.minutes(), self.state.pairs, objective, self.learning_rate, loss, error, confidence, matching, norm)
        self.table.add(dict(zip(LOSSES, (*row, int(skipped), pairs_per_second), strict=True)))
        self.say(Line(state.step, progress, loss, error, pairs_per_second, self._seconds_left(progress), objective))
        if in_a_row >= self.recipe.optimiser.max_skipped:
            raise TrainingError(
                f"the gradient was not finite for the last {int(in_a_row)} steps, up to step {state.step}: lower optimiser.learning_rate "
                "or optimiser.clip, or set hardware.precision=float32, and resume from the last checkpoint"
            )

    def _seconds_left(self, progress: float) -> float:
        spent = time.monotonic() - self.started
        done = self.schedule.progress(self.state.step, self.minutes()) - self._progress_at_start()
        left = spent * (1 - progress) / done if done > 0 else float("inf")
        return min(left, 60 * self.limit - spent) if self.limit is not None else left

    def _progress_at_start(self) -> float:
        if not hasattr(self, "_start"):
            self._start = self.schedule.progress(max(0, self.state.step - self.recipe.records.log_every), self.state.minutes)
        return self._start

    def _save(self, is_last: bool) -> None:
        self.saved = time.monotonic()
        self.folder.drop_after(self.state.step)
        try:
            self.folder.write(self.state.checkpoint(self.recipe, self.minutes()))
        except OutputError as error:
            if is_last:
                raise
            log.warning("step %d is not saved, training goes on: %s", self.state.step, error)
