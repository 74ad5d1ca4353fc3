"""The demo from beginning to end: make the bags, run over them, measure, draw, tell."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dust3r_ros.demo import live, offline
from dust3r_ros.demo.inputs import DemoError, TrueView, motorcycle, room, write_bag
from dust3r_ros.demo.measure import Bounds, complaints, depth_score, path_score
from dust3r_ros.demo.models import PICTURE, compare_models, draw_models, sentence
from dust3r_ros.demo.outcome import Outcome, tell, write_pictures, write_summary
from dust3r_ros.demo.page import write_page
from dust3r_ros.estimators.choice import Choice, choose
from dust3r_ros.models.shipped import shipped_weights

LIVE = "Each bag was played over ROS 2 to the node, a process of its own, and another process recorded what it published."
OFFLINE = "Each bag was read by the Mapper directly, without ROS."
MARK = ".dust3r_demo"  # in a folder that the demo made, and may make anew


@dataclass(frozen=True)
class Act:
    """One part of the demo."""

    name: str  # of its folder
    title: str
    views: Callable[[], Sequence[TrueView]]
    bounds: Bounds
    has_path: bool  # the true path is more than one step
    learned: Bounds | None = None  # where auto takes a network: its depth has other errors than flow's; None: the same


ACTS = (
    Act(
        "motorcycle",
        "two photographs of a motorcycle, 19 cm apart (Middlebury 2014)",
        motorcycle,
        Bounds(0.08, 0.6),
        False,
        Bounds(0.3, 0.4),
    ),
    Act(
        "room",
        "a walk of 60 images through a furnished room (simulated)",
        lambda: list(room()),
        Bounds(0.10, 0.4, 5.0, 0.25),
        True,
        Bounds(0.3, 0.4, 5.0, 0.25),
    ),
)


def run(output: Path, is_offline: bool = False, acts: Sequence[Act] = ACTS) -> None:
    """Write everything under `output` and print the figures.

    `is_offline`: without ROS, the Mapper straight over the bags. Raises DemoError, or another Dust3rError, if it cannot run, if a process
    dies, if nothing is mapped, or if what is measured is not sane; in the last case everything has been written.
    """
    console = Console(highlight=False)
    start = time.perf_counter()
    if not is_offline:
        _require_ros()
    try:
        _empty(output)
        choice = choose()  # as the node and the Mapper do
        console.print(f"[bold]model[/bold] {sentence(choice)}")
        outcomes = [_perform(act, output / act.name, is_offline, choice, console, f"{k}/{len(acts)}") for k, act in enumerate(acts, 1)]
        _show_models(output)
        write_summary(output, outcomes, is_offline, choice)
        write_page(output, outcomes, OFFLINE if is_offline else LIVE, sentence(choice))
    except OSError as error:
        raise DemoError(f"cannot write to {output}: {error}; name a folder on a disk with space: DUST3R_DEMO_OUTPUT=FOLDER") from error
    tell(console, output, outcomes, time.perf_counter() - start)
    wrong = [f"{outcome.name}: {line}" for outcome in outcomes for line in outcome.complaints]
    if wrong:
        raise DemoError(f"{'; '.join(wrong)}: see {output / 'report.html'}")


def _show_models(output: Path) -> None:
    """Where a model is shipped: its depth of the motorcycle beside flow's."""
    views = motorcycle() if shipped_weights() is not None else []
    found = compare_models(views)
    if found:
        draw_models(output / PICTURE, views[0], found)


def _perform(act: Act, folder: Path, is_offline: bool, choice: Choice, console: Console, count: str) -> Outcome:
    console.print(f"[bold]{count} {act.name}[/bold]: {act.title}")
    folder.mkdir()
    with console.status("making its images and their bag"):
        views = act.views()
        write_bag(folder / "bag", views)
    console.print(f"    bag: {folder / 'bag'}, {len(views)} images of {views[0].camera.width}x{views[0].camera.height}", soft_wrap=True)
    with console.status("mapping"):
        recording = offline.map_bag(folder / "bag") if is_offline else live.map_bag(folder / "bag", folder)
    with console.status("measuring and drawing"):
        depth = depth_score(recording, views)
        path = path_score(recording, views) if act.has_path else None
        bounds = act.learned if act.learned is not None and choice.weights is not None else act.bounds
        outcome = Outcome(act.name, act.title, len(views), recording, depth, path, complaints(bounds, len(views), depth, path))
        write_pictures(folder, outcome, views)
    return outcome


def _require_ros() -> None:
    from dust3r_ros.ros.main import what_is_missing

    missing = what_is_missing()
    if missing:
        raise DemoError(f"{missing}; or run the same without ROS: --offline")


def _empty(output: Path) -> None:
    """A fresh folder; one that somebody else filled stays as it is."""
    if output.is_dir() and any(output.iterdir()):
        if not (output / MARK).is_file():
            raise DemoError(f"{output} holds something else than an earlier demo: name another folder, or DUST3R_DEMO_OUTPUT=FOLDER")
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / MARK).touch()
