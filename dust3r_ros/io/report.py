"""`report.html`: one page that needs nothing else, to look at rather than to read."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.io.render import confidence_picture, depth_picture, render_cloud, standard_views
from dust3r_ros.mapping.types import Keyframe, PointCloud

STAGES = {"track": "#4c78a8", "encode": "#72b7b2", "estimate": "#e45756", "align": "#f2a03d", "fuse": "#54a24b", "write": "#9d8ec7"}


@dataclass(frozen=True, eq=False)
class Strip:
    """One keyframe as the report shows it."""

    index: int
    stamp: str
    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Report:
    name: str
    summary: dict[str, Any]
    cloud: PointCloud
    trajectory: list[tuple[int, NDArray[np.float64]]]
    keyframes: Sequence[Keyframe]
    strips: list[Strip]


def write_report(path: Path, report: Report) -> None:
    poses = np.stack([pose for _, pose in report.trajectory])
    views = standard_views(report.cloud, poses) if len(report.cloud) else []
    pictures = "".join(
        f'<figure><img src="{_jpeg(render_cloud(report.cloud, view.pose, 960, 640, path=poses[:, :3, 3]))}" alt="the map {view.name}">'
        f"<figcaption>{view.name}</figcaption></figure>"
        for view in views
    )
    page = _PAGE.format(
        title=html.escape(report.name),
        headline=_headline(report.summary),
        views=pictures,
        trajectory=_trajectory_svg(report.trajectory, report.keyframes),
        strips="".join(_strip(strip) for strip in report.strips),
        stages=_stages(report.summary["seconds_per_stage"], report.summary["frames"]),
        settings="".join(
            f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in report.summary["settings"].items()
        ),
        model=html.escape(str(report.summary["model"])),
        unit=html.escape(str(report.summary["unit"])),
        version=html.escape(str(report.summary["dust3r_ros"])),
    )
    path.write_text(page)


def _headline(summary: dict[str, Any]) -> str:
    figures = [
        (f"{summary['frames']:,}", "frames"),
        (f"{summary['keyframes']:,}", "keyframes"),
        (f"{100 * summary['frames_with_pose'] / max(summary['frames'], 1):.0f} %", "of frames with a pose"),
        (f"{summary['map_points']:,}", "points in the map"),
        (f"{summary['frames_per_second']:g}", "frames a second"),
    ]
    return "".join(f"<div><b>{value}</b><span>{label}</span></div>" for value, label in figures)


def _strip(strip: Strip) -> str:
    share = 100 * float((strip.depth > 0).mean())
    pictures = (strip.image, depth_picture(strip.depth), confidence_picture(strip.confidence))
    cells = "".join(f'<img src="{_jpeg(picture)}" alt="">' for picture in pictures)
    return f'<div class="strip">{cells}<p>keyframe {strip.index}, {strip.stamp[:-6]} s, depth for {share:.0f} % of the pixels</p></div>'


def _stages(seconds: dict[str, float], frames: int) -> str:
    total = sum(seconds.values()) or 1.0
    bars = "".join(
        f'<i style="width:{100 * spent / total:.2f}%;background:{STAGES.get(stage, "#999")}" title="{stage}: {spent:.2f} s"></i>'
        for stage, spent in seconds.items()
    )
    legend = "".join(
        f'<li><i style="background:{STAGES.get(stage, "#999")}"></i>{stage}<b>{spent:.2f} s</b>'
        f"<span>{1000 * spent / max(frames, 1):.1f} ms a frame</span></li>"
        for stage, spent in seconds.items()
    )
    return f'<div class="bar">{bars}</div><ul class="legend">{legend}</ul>'


def _trajectory_svg(trajectory: list[tuple[int, NDArray[np.float64]]], keyframes: Sequence[Keyframe]) -> str:
    """The way from above (x to the right, z away), with the keyframes' fields of view and a scale bar."""
    way = np.array([(pose[0, 3], -pose[2, 3]) for _, pose in trajectory])
    places = np.array([(keyframe.pose[0, 3], -keyframe.pose[2, 3]) for keyframe in keyframes])
    everything = np.concatenate([way, places])
    low, high = everything.min(axis=0), everything.max(axis=0)
    span = max(float((high - low).max()), 1e-6)
    reach = 0.09 * span
    width, height = (high - low) + 4 * reach
    scale = 900 / max(width, height)

    def at(x: float, y: float) -> str:
        return f"{(x - low[0] + 2 * reach) * scale:.1f},{(y - low[1] + 2 * reach) * scale:.1f}"

    cones = []
    for keyframe in keyframes:
        half = keyframe.camera.width / 2 / keyframe.camera.fx
        corners = np.array([[-half, 0, 1], [half, 0, 1]]) * reach @ keyframe.pose[:3, :3].T + keyframe.pose[:3, 3]
        points = " ".join([at(keyframe.pose[0, 3], -keyframe.pose[2, 3]), *(at(x, -z) for x, _, z in corners)])
        cones.append(f'<polygon points="{points}"/>')
    line = " ".join(at(x, y) for x, y in way)
    dots = "".join('<circle cx="{}" cy="{}" r="5"/>'.format(*at(x, y).split(",")) for x, y in places)
    unit = 10 ** np.floor(np.log10(span))
    unit = max(factor * unit for factor in (0.2, 0.5, 1.0) if factor * unit <= 0.5 * span)
    bar = f'<g class="scale"><line x1="20" y1="{height * scale - 18:.0f}" x2="{20 + unit * scale:.0f}" y2="{height * scale - 18:.0f}"/>'
    bar += f'<text x="20" y="{height * scale - 26:.0f}">{unit:g} units</text></g>'
    return (
        f'<svg viewBox="0 0 {width * scale:.0f} {height * scale:.0f}" role="img" aria-label="trajectory from above">'
        f'<g class="cones">{"".join(cones)}</g><polyline points="{line}"/><g class="dots">{dots}</g>{bar}</svg>'
    )


def _jpeg(image: NDArray[np.uint8]) -> str:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}: dust3r_ros</title>
<style>
:root {{ --paper:#fafaf8; --card:#fff; --ink:#1c2430; --soft:#68717d; --line:#e2e5e9; --path:#e4572e; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper:#14171c; --card:#1c2027; --ink:#e8eaed; --soft:#98a1ad; --line:#2c323b; }} }}
* {{ box-sizing:border-box }}
body {{ margin:0 auto; max-width:1180px; padding:40px 24px 80px; background:var(--paper); color:var(--ink);
  font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif }}
h1 {{ font-size:30px; margin:0 0 4px; letter-spacing:-.01em }} h2 {{ font-size:19px; margin:52px 0 14px }}
header p, figcaption, .strip p, small {{ color:var(--soft); margin:0 }}
.figures {{ display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px; margin:26px 0 0 }}
.figures div {{ background:var(--card); border:1px solid var(--line); border-radius:10px; padding:14px 16px }}
.figures b {{ display:block; font-size:25px; font-weight:650; font-variant-numeric:tabular-nums }}
.figures span {{ color:var(--soft); font-size:14px }}
.views {{ display:grid; grid-template-columns:1fr 1fr; gap:14px; margin-top:26px }} .views figure:first-child {{ grid-column:1/-1 }}
figure {{ margin:0 }}
img {{ display:block; width:100%; border-radius:10px; border:1px solid var(--line) }} figcaption {{ font-size:14px; padding:6px 2px }}
svg {{ width:100%; max-height:560px; background:var(--card); border:1px solid var(--line); border-radius:10px }}
svg polyline {{ fill:none; stroke:var(--path); stroke-width:3; stroke-linejoin:round; stroke-linecap:round }}
svg .cones polygon {{ fill:var(--path); opacity:.13 }} svg .dots circle {{ fill:var(--card); stroke:var(--path); stroke-width:2.5 }}
svg .scale line {{ stroke:var(--ink); stroke-width:3 }} svg text {{ fill:var(--soft); font-size:17px }}
.strip {{ display:grid; grid-template-columns:repeat(3,1fr); gap:8px; margin-bottom:18px }} .strip p {{ grid-column:1/-1; font-size:14px }}
.head {{ display:grid; grid-template-columns:repeat(3,1fr); gap:8px; color:var(--soft); font-size:14px; margin-bottom:6px }}
.bar {{ display:flex; height:22px; border-radius:8px; overflow:hidden }} .bar i {{ display:block; min-width:1px }}
.legend {{ list-style:none; padding:0; display:grid; grid-template-columns:repeat(auto-fit,minmax(240px,1fr)); gap:4px 20px }}
.legend li {{ display:flex; gap:8px; align-items:baseline }} .legend i {{ width:11px; height:11px; border-radius:3px; align-self:center }}
.legend b {{ margin-left:auto; font-weight:600; font-variant-numeric:tabular-nums }} .legend span {{ color:var(--soft); font-size:14px }}
details {{ margin-top:44px }} summary {{ cursor:pointer; color:var(--soft) }} td {{ padding:2px 18px 2px 0; font-size:14px }}
@media (max-width:700px) {{ .views {{ grid-template-columns:1fr }} }}
</style></head><body>
<header><h1>{title}</h1><p>dust3r_ros {version}, two-view estimator {model}. Unit: {unit}.</p></header>
<section class="figures">{headline}</section>
<section class="views">{views}</section>
<h2>The way from above</h2>{trajectory}
<h2>Depth</h2><div class="head"><span>image</span><span>depth, near is warm</span><span>confidence, light is sure</span></div>{strips}
<h2>Time per stage</h2>{stages}
<details><summary>Settings</summary><table>{settings}</table></details>
</body></html>
"""
