"""How far training is, and the learning rate there."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dust3r_ros.training.recipe import Recipe


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine over all of the schedule; both objectives share the cosine, each has its own warm-up."""

    recipe: Recipe

    def progress(self, step: int, minutes: float) -> float:
        """0 to 1: of the steps, or of the minutes that were trained so far in all runs."""
        schedule = self.recipe.schedule
        done = step / schedule.steps if schedule.by == "steps" else minutes / schedule.minutes
        return min(1.0, done)

    def is_over(self, step: int, minutes: float) -> bool:
        return self.progress(step, minutes) >= 1.0

    def is_completion(self, progress: float) -> bool:
        """Whether the objective there is still cross-view completion."""
        return progress < self.recipe.objective.completion

    def learning_rate(self, progress: float, since: int) -> float:
        """`since`: steps done since the objective or the optimiser started anew."""
        optimiser = self.recipe.optimiser
        low = optimiser.final
        cosine = low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
        rise = min(1.0, (since + 1) / optimiser.warm_up) if optimiser.warm_up else 1.0
        return optimiser.learning_rate * cosine * rise
