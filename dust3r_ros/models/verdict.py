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

    def is_measured(self, figures: Figures) -> bool:
        """Whether somebody looked, be it without a result."""
        return (self.data, self.measure) in figures

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
    Headline("kitchen_walk", "ate_percent", False, "the red kitchen's ATE"),  # real pictures; where they lie on the disk
)
MOST_ATE = 2.0  # per cent of the path's extent: a model that leaves a path by more has to be the better one there
PATHS = tuple(headline for headline in HEADLINES if headline.measure == "ate_percent")


@dataclass(frozen=True)
class Verdict:
    """The better model, and why in one sentence."""

    model: str
    reason: str


def verdict(candidate: tuple[str, Figures], incumbent: tuple[str, Figures]) -> Verdict:
    """Each a name and its figures. The candidate is better if it wins more of the headline figures than it loses, and each of its paths is
    within 2 % of the extent or the better of the two: a robot needs to know where it is before anything else.
    """
    (name, figures), (other, known) = candidate, incumbent
    results = [headline.compare(figures, known) for headline in HEADLINES]
    won, lost = [h for h, r in zip(HEADLINES, results, strict=True) if r > 0], [h for h, r in zip(HEADLINES, results, strict=True) if r < 0]
    measured = [headline for headline in HEADLINES if headline.is_measured(figures) or headline.is_measured(known)]
    told = f"{name} wins {len(won)} and loses {len(lost)} of {len(measured)} headline figures against {other}"
    left = [path for path in PATHS if path in lost and not _is_within(figures.get((path.data, path.measure)))]
    if left:
        return Verdict(other, f"{told}, and leaves the path: " + _listed(left, figures, known))
    if len(won) > len(lost):
        return Verdict(name, f"{told}: {_listed(won, figures, known)}")
    return Verdict(other, f"{told}" + (f": {_listed(lost, known, figures)} for {other}" if lost else ""))


def _is_within(ate: float | None) -> bool:
    return ate is not None and ate <= MOST_ATE


def not_better(candidate: Figures, incumbent: Figures) -> list[str]:
    """The headline figures on which a candidate is not better than what it would replace; an equal one passes where it is perfect."""
    found = []
    for headline in HEADLINES:
        result = headline.compare(candidate, incumbent)
        if not (headline.is_measured(candidate) or headline.is_measured(incumbent)):
            continue
        if result > 0 or (result == 0 and headline.is_perfect(candidate)):
            continue
        found.append(f"{headline.words} {headline.text(candidate)}, before {headline.text(incumbent)}")
    return found


def _listed(headlines: list[Headline], ours: Figures, theirs: Figures) -> str:
    return ", ".join(f"{headline.words} {headline.text(ours)} against {headline.text(theirs)}" for headline in headlines)
