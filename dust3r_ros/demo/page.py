"""The demo's report: one HTML file that holds its pictures and figures and needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from dust3r_ros.demo.models import PICTURE
from dust3r_ros.demo.outcome import Outcome, table_rows

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #fafaf8; max-width: 1160px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-weight: 650; margin-bottom: .2rem; } h2 { margin: 2.6rem 0 .2rem; } p { max-width: 46rem; color: #4a5563; margin: .2rem 0 1rem; }
img { max-width: 100%; border-radius: 6px; display: block; }
figure { margin: 0; } figcaption { color: #4a5563; font-size: .88rem; margin: .3rem 0 1rem; }
.clouds { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: .8rem; }
table { border-collapse: collapse; background: #fff; }
td, th { padding: .35rem 1.1rem .35rem .6rem; border-bottom: 1px solid #e3e7ec; text-align: right; }
td:first-child, th:first-child { text-align: left; } .bad { color: #b3261e; }
"""


def write_page(output: Path, outcomes: Sequence[Outcome], how: str, model: str) -> None:
    """report.html from the pictures that lie in each outcome's folder.

    `how`: how the run was made, one sentence; `model`: which model was taken, and why.
    """
    parts = [
        f"<h1>dust3r_ros: the demo</h1><p>{escape(how)} Everything is measured against a truth that the mapping never saw.</p>",
        f"<p>Model: {escape(model)}</p>",
        _table(outcomes),
    ]
    for outcome in outcomes:
        folder = output / outcome.name
        parts.append(f"<h2>{escape(outcome.name)}</h2><p>{escape(outcome.title[0].upper() + outcome.title[1:])}.</p>")
        parts += [f'<p class="bad">{escape(line)}</p>' for line in outcome.complaints]
        clouds = [_figure(picture, picture.stem.partition("_")[2].replace("_", " ")) for picture in sorted(folder.glob("cloud_*.png"))]
        parts.append(f'<div class="clouds">{"".join(clouds)}</div>')
        parts.append(_figure(folder / "depth.png", "What was published, beside the truth; grey was not seen well enough to say."))
        if (folder / "path.png").is_file():
            parts.append(_figure(folder / "path.png", "The camera's path and the map, turned and scaled onto the truth by one similarity."))
    if (output / PICTURE).is_file():
        parts.append("<h2>models side by side</h2><p>The depth that each model gives for the motorcycle's left photograph.</p>")
        parts.append(_figure(output / PICTURE, "Grey: the model says nothing there. Each depth was scaled onto the truth by its median."))
    title = "dust3r_ros: the demo"
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>{"".join(parts)}</html>\n'
    (output / "report.html").write_text(page)


def _table(outcomes: Sequence[Outcome]) -> str:
    head = "".join(f"<th>{escape(outcome.name)}</th>" for outcome in outcomes)
    rows = [
        f"<tr><td>{escape(label.strip())}</td>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"
        for label, values in table_rows(outcomes).items()
    ]
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _figure(picture: Path, caption: str) -> str:
    encoded = base64.b64encode(picture.read_bytes()).decode()
    return f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{encoded}"><figcaption>{escape(caption)}</figcaption></figure>'
