"""Which of two models is better, by a few headline figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Figures = Mapping[tuple[str, str], float | None]  # (data set, measure) -> value; None: no result


@dataclass(frozen=True)
class Headline:
    """A figure that decides."""

    data: str
    measure: str
    more_is_better: bool
    words: str

    def compare(self, one: Figures, other: Figures) -> int:
        """1: `one` is better, -1: `other` is, 0: equal, or neither has a result. No result is worse than any."""
        a, b = one.get((self.data, self.measure)), other.get((self.data, self.measure))
        if a is None or b is None:
            return (a is not None) - (b is not None)
        return (a > b) - (a < b) if self.more_is_better else (a < b) - (a > b)

    def is_perfect(self, figures: Figures) -> bool:
        """Whether nothing could be better."""
        return figures.get((self.data, self.measure)) == (1.0 if self.more_is_better else 0.0)

    def text(self, figures: Figures) -> str:
        """The value as a person reads it."""
        value = figures.get((self.data, self.measure))
        if value is None:
            return "no result"
        if self.measure == "ate_percent":
            return f"{value:.2f} %"
        return f"{100 * value:.0f} %" if self.more_is_better else f"{value:.3f}"


HEADLINES = (
    Headline("held_out", "depth_abs_rel", False, "held-out depth AbsRel"),
    Headline("held_out", "rra_15", True, "held-out RRA@15"),
    Headline("held_out", "rta_15", True, "held-out RTA@15"),
    Headline("motorcycle", "depth_abs_rel", False, "motorcycle depth AbsRel"),
    Headline("walk", "ate_percent", False, "the walk's ATE"),
    Headline("walk", "depth_abs_rel", False, "the walk's depth AbsRel"),
)
MOST_ATE = 2.0  # per cent of the path's extent: a model that leaves the path by more has to be the better one there
PATH = HEADLINES[4]


@dataclass(frozen=True)
class Verdict:
    """The better model, and why in one sentence."""

    model: str
    reason: str


def verdict(candidate: tuple[str, Figures], incumbent: tuple[str, Figures]) -> Verdict:
    """Each a name and its figures. The candidate is better if it wins more of the headline figures than it loses, and its path on the walk
    is within 2 % of the extent or the better of the two: a robot needs to know where it is before anything else.
    """
    (name, figures), (other, known) = candidate, incumbent
    results = [headline.compare(figures, known) for headline in HEADLINES]
    won, lost = [h for h, r in zip(HEADLINES, results, strict=True) if r > 0], [h for h, r in zip(HEADLINES, results, strict=True) if r < 0]
    ate = figures.get((PATH.data, PATH.measure))
    loses_path = (ate is None or ate > MOST_ATE) and PATH not in won
    told = f"{name} wins {len(won)} and loses {len(lost)} of {len(HEADLINES)} headline figures against {other}"
    if loses_path:
        return Verdict(other, f"{told}, and leaves the path on the demo's walk ({PATH.text(figures)} against {PATH.text(known)})")
    if len(won) > len(lost):
        return Verdict(name, f"{told}: {_listed(won, figures, known)}")
    return Verdict(other, f"{told}" + (f": {_listed(lost, known, figures)} for {other}" if lost else ""))


def not_better(candidate: Figures, incumbent: Figures) -> list[str]:
    """The headline figures on which a candidate is not better than what it would replace; an equal one passes where it is perfect."""
    found = []
    for headline in HEADLINES:
        result = headline.compare(candidate, incumbent)
        if result > 0 or (result == 0 and headline.is_perfect(candidate)):
            continue
        found.append(f"{headline.words} {headline.text(candidate)}, before {headline.text(incumbent)}")
    return found


def _listed(headlines: list[Headline], ours: Figures, theirs: Figures) -> str:
    return ", ".join(f"{headline.words} {headline.text(ours)} against {headline.text(theirs)}" for headline in headlines)
