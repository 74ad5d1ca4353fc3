"""The model card of the shipped model, written from what was recorded and measured (Mitchell et al., Model Cards, FAccT 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dust3r_ros.models.verdict import Figures, Verdict
from dust3r_ros.network import NetworkConfig
from dust3r_ros.network.config import MATCHED_CELL
from dust3r_ros.training.evaluation.breakdown import Band
from dust3r_ros.training.evaluation.run import Row
from dust3r_ros.training.evaluation.table import LEGEND, markdown
from dust3r_ros.training.evaluation.training_record import GENERATED, TrainingRecord

GOALS = (  # data, measure, bound, more is better, words
    ("held_out", "depth_abs_rel", 0.06, False, "held-out depth AbsRel under 0.06"),
    ("held_out", "rra_15", 0.95, True, "held-out RRA@15 over 95 %"),
    ("held_out", "rta_15", 0.85, True, "held-out RTA@15 over 85 %"),
    ("walk", "ate_percent", 2.0, False, "the walk's ATE under 2 % of the path's extent"),
)


@dataclass(frozen=True, eq=False)
class Facts:
    """All that the card says."""

    name: str
    config: NetworkConfig
    parameters: int
    megabytes: float
    record: TrainingRecord
    rows: Sequence[Row]
    figures: Figures  # of this model
    bands: Sequence[Band]
    better: Verdict  # against flow
    command: str
    forced: str  # why it was shipped though not better than the one before it; empty: it was better
    worse: Sequence[str]  # than the one before it


def model_card(facts: Facts) -> str:
    """Markdown."""
    return "\n".join([*_what(facts), *_training(facts.record), *_scores(facts), *_failures(facts), *_use(facts)]) + "\n"


def _what(facts: Facts) -> list[str]:
    config = facts.config
    given = [
        text
        for text, is_given in (
            ("patches know their place", config.coordinates),
            ("a stem of convolutions", config.stem),
            (f"cells of {MATCHED_CELL} pixels are matched, and two cameras adjusted to them, before the decoders", config.match_width > 0),
            ("all of this in pictures of half the size, but for details of matches and depths", config.detail_width > 0),
            ("at the end patches around the cells are tracked by the pictures' own values", config.tracked),
        )
        if is_given
    ]
    return [
        f"# {facts.name}",
        f"A two-view network of the DUSt3R kind (Wang et al., CVPR 2024): two pictures in, a pointmap and a confidence for each out. "
        f"{facts.parameters / 1e6:.1f} million parameters, {facts.megabytes:.0f} MB in float16.",
        "",
        f"- encoder: {config.encoder_depth} blocks of {config.encoder_width}; decoders: 2 of {config.decoder_depth} blocks of "
        f"{config.decoder_width}; head: {config.head}; patches of {config.patch_size} pixels; longer side {config.image_size} pixels"
        f"{''.join(f'; {text}' for text in given)}",
        "- licence: Apache-2.0, weights and code; free for any use",
        "",
    ]


def _training(record: TrainingRecord) -> list[str]:
    return [
        "## What it saw",
        f"{record.data[0].upper()}{record.data[1:]}.",
        "",
        "| | |",
        "|---|---|",
        f"| steps | {record.steps:,} |",
        f"| pairs | {record.pairs:,} |",
        f"| time | {_time(record.minutes)} on {record.device} |",
        f"| recipe | {record.recipe} |",
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in record.more.items()),
        "",
    ]


def _scores(facts: Facts) -> list[str]:
    lines = ["## What it scores", f"By `{facts.command}`, without calibration, beside the flow estimator:", "", markdown(facts.rows)]
    lines += [f"{LEGEND}. docs/evaluation.md defines each.", "", "| goal | reached |", "|---|---|"]
    for data, measure, bound, more, words in GOALS:
        value = facts.figures.get((data, measure))
        reached = value is not None and (value > bound if more else value < bound)
        lines.append(f"| {words} | {'yes' if reached else 'no'} |")
    lines += ["", f"What `auto` takes where there are no published weights: **{facts.better.model}** ({facts.better.reason}).", ""]
    if facts.forced:
        lines += [
            f"It replaced a model that it does not beat everywhere ({'; '.join(facts.worse)}), for this reason: {facts.forced}.",
            "",
        ]
    return lines


def _failures(facts: Facts) -> list[str]:
    lines = [
        "## Where it fails",
        "On the held-out scenes:",
        "",
        "| pairs | n | AbsRel | RRA@15 | RTA@15 | focal error |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for band in facts.bands:
        f = band.figures
        lines.append(
            f"| {band.words} | {f.pairs} | {_number(f.depth_abs_rel)} | {_share(f.rra_15)} | {_share(f.rta_15)} | {_share(f.focal_error)} |"
        )
    unseen = "People, animals, things that move, glass, mirrors and lenses whose distortion was not taken out were never in its pictures."
    if facts.record.data == GENERATED:
        lines += ["", f"It saw no picture of a real place: there it is as good as the motorcycle's row says, or worse. {unseen}"]
    return [
        *lines,
        "",
        "The scale of what it says is the pair's own: nothing is metric.",
        "",
    ]


def _use(facts: Facts) -> list[str]:
    return [
        "## How to use it",
        f"`estimator.model: {facts.name}`, or `--set estimator.model={facts.name}`. docs/training.md says how to train it further.",
    ]


def _time(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
