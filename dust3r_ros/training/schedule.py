"""How far training is, and the learning rate there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dust3r_ros.training.recipe import Recipe

Stage = Literal["completion", "alone", "pointmaps"]  # the objective, in the order in which they come
STAGES: tuple[Stage, ...] = ("completion", "alone", "pointmaps")


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine over all of the schedule; all objectives share the cosine, pointmaps warm up again."""

    recipe: Recipe

    def progress(self, step: int, minutes: float) -> float:
        """0 to 1: of the steps, or of the minutes that were trained so far in all runs."""
        schedule = self.recipe.schedule
        done = step / schedule.steps if schedule.by == "steps" else minutes / schedule.minutes
        return min(1.0, done)

    def is_over(self, step: int, minutes: float) -> bool:
        return self.progress(step, minutes) >= 1.0

    def stage(self, progress: float) -> Stage:
        objective = self.recipe.objective
        if progress < objective.completion:
            return "completion"
        return "alone" if progress < objective.completion + objective.alone else "pointmaps"

    def is_one_decoder(self, progress: float) -> bool:
        """Whether, of both decoders, only completion's has learned anything yet."""
        return self.recipe.objective.completion > 0 and self.stage(progress) != "pointmaps"

    def learning_rate(self, progress: float, since: int) -> float:
        """`since`: steps done since the objective or the optimiser started anew."""
        optimiser = self.recipe.optimiser
        low = optimiser.final
        cosine = low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
        rise = min(1.0, (since + 1) / optimiser.warm_up) if optimiser.warm_up else 1.0
        return optimiser.learning_rate * cosine * rise
