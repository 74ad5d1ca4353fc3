"""`dust3r_ros map`: what a saved map holds, maps for other programs, two maps in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

maps = typer.Typer(help="Saved maps: look at them, export and merge them.", no_args_is_help=True)

MapFile = Annotated[Path, typer.Argument(help="A file written by ~/save_map or --save-map.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML with settings, as for the node.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="One setting, as name=value; may be given often.")]


WHOLE = {"map.max_points": 100_000_000, "map.max_points_per_tile": 100_000_000}  # a file is not cut to what a running node may hold


@maps.command()
def info(file: MapFile) -> None:
    """What a saved map holds."""
    import numpy as np

    from dust3r_ros.io.map_file import load_map, version_of

    snapshot = load_map(file)
    stamps = [keyframe.stamp for keyframe in snapshot.keyframes]
    typer.echo(f"{file}: {len(snapshot.keyframes)} keyframes ({len(snapshot.window)} in the window), {len(snapshot.edges)} pairs")
    typer.echo(f"points of past keyframes: {len(snapshot.cloud):,}; scale: {snapshot.scale_source}")
    loops = sum(link.loop for link in snapshot.links)
    typer.echo(f"version {version_of(file)}, {file.stat().st_size / 1e6:.1f} MB; {len(snapshot.links)} links, {loops} of them loops")
    if snapshot.pieces:
        sizes = ", ".join(str(len(piece.keyframes)) for piece in snapshot.pieces)
        typer.echo(f"beside it {len(snapshot.pieces)} pieces seen by a lost camera, not joined yet, of {sizes} keyframes")
    if snapshot.readout:
        typer.echo(f"rolling shutter: {1000 * snapshot.readout:.1f} ms from the camera's first row to its last")
    if stamps:
        extent = np.ptp(np.stack([keyframe.pose[:3, 3] for keyframe in snapshot.keyframes]), axis=0)
        typer.echo(f"from {min(stamps) * 1e-9:.3f} s to {max(stamps) * 1e-9:.3f} s, over {' x '.join(f'{side:.2f}' for side in extent)}")


@maps.command()
def export(
    file: MapFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="x.ply, x.glb, x.tum, or a folder (no ending) for COLMAP's text model; it is replaced.")
    ],
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Write a saved map for other programs: its points, its points with cameras, its keyframes' poses, or all for COLMAP."""
    from dust3r_ros.io.map_export import export_map
    from dust3r_ros.io.map_file import load_map
    from dust3r_ros.io.settings_file import read_config

    typer.echo(export_map(load_map(file), output, read_config(config, settings or [], WHOLE).map))


@maps.command()
def merge(
    first: Annotated[Path, typer.Argument(help="The map whose frame and scale stand.")],
    second: Annotated[Path, typer.Argument(help="The map that is joined to it; both show some place in common.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File of the joined map.")],
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Join two maps of places that overlap: keyframes of the second are looked for in the first, then all are aligned."""
    from dust3r_ros.io.map_file import load_map, save_map
    from dust3r_ros.io.settings_file import read_config
    from dust3r_ros.mapping.mapper import configured_estimator
    from dust3r_ros.mapping.merging import merge_maps

    wanted = read_config(config, settings or [], WHOLE)
    one, other = load_map(first), load_map(second)
    merged = merge_maps(one, other, configured_estimator(wanted), wanted.map)
    save_map(output, merged.snapshot)
    typer.echo(f"{merged.found} of {merged.tried} keyframes of {second} found in {first}, {len(merged.joined)} pairs join them")
    typer.echo(f"{output}: {len(merged.snapshot.keyframes)} keyframes; one unit of {second} is {merged.to_first.scale:.4g} of {first}'s")
