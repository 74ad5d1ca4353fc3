"""The command `dust3r_ros`: bags, pictures and videos to maps, without ROS; the demo, the player and the doctor."""

from __future__ import annotations

import importlib.util
import logging
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dust3r_ros.errors import Dust3rError
from dust3r_ros.evaluate_cli import evaluate
from dust3r_ros.map_cli import maps
from dust3r_ros.models_cli import models
from dust3r_ros.training_cli import training

if TYPE_CHECKING:
    from dust3r_ros.io.bag_metrics import BagMetrics
    from dust3r_ros.io.bags import BagFrames
    from dust3r_ros.io.images import FolderFrames, VideoFrames
    from dust3r_ros.mapping import Localiser, Mapper, MapperConfig


class CommandError(Dust3rError):
    """A command that lacks something here."""


app = typer.Typer(help="Dense 3D from plain cameras.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(maps, name="map")
app.add_typer(models, name="models")
app.add_typer(training, name="train")
app.command()(evaluate)

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write; it is replaced as a whole when the run is complete.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML with settings, as for the node.")]
MaxFrames = Annotated[int | None, typer.Option("--max-frames", min=1, help="Stop after so many of the images taken.")]
Mesh = Annotated[bool, typer.Option("--mesh", help="Also write mesh.ply, a surface (needs Open3D).")]
SavedMap = Annotated[Path | None, typer.Option("--map", help="A saved map to go on from.")]
Localise = Annotated[bool, typer.Option("--localise", help="Only say where the camera is in the map of --map, which stays as it is.")]
SaveMap = Annotated[Path | None, typer.Option("--save-map", help="File to write the map to, to go on from or localise in.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="One setting, as name=value; may be given often.")]


@app.command()
def replay(
    bag: Annotated[Path, typer.Argument(help="A rosbag2: its folder, or one .mcap or .db3 file.")],
    output: Output,
    image: Annotated[str | None, typer.Option(help="Topic of the images; found by type if not given.")] = None,
    camera_info: Annotated[str | None, typer.Option(help="Topic of the CameraInfo; found beside the images if not given.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every n-th image only.")] = 1,
    max_frames: MaxFrames = None,
    mesh: Mesh = False,
    saved_map: SavedMap = None,
    localise: Localise = False,
    save_map: SaveMap = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Map a recorded bag: no middleware, the same result every time."""
    from dust3r_ros.io.bag_metrics import BagMetrics
    from dust3r_ros.io.bags import BagFrames
    from dust3r_ros.io.settings_file import read_configs

    mapping, robot = read_configs(config, settings or [])
    mapper, frames = _mapper(mapping, saved_map, localise), BagFrames(bag, image, camera_info)
    _map_frames(frames, bag.name, output, every, max_frames, mesh, mapper, save_map, BagMetrics(frames, robot))


@app.command()
def reconstruct(
    pictures: Annotated[Path, typer.Argument(help="A folder of pictures, or a video.")],
    output: Output,
    fov: Annotated[float | None, typer.Option(min=10, max=170, help="Horizontal field of view in degrees, if you know it.")] = None,
    fps: Annotated[float, typer.Option(min=0.01, help="Pictures of a folder a second.")] = 1.0,
    every: Annotated[int, typer.Option(min=1, help="Take every n-th picture only.")] = 1,
    max_frames: MaxFrames = None,
    mesh: Mesh = False,
    saved_map: SavedMap = None,
    localise: Localise = False,
    save_map: SaveMap = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Map a folder of pictures or a video; EXIF's orientation and focal length are used."""
    from dust3r_ros.io.images import open_images
    from dust3r_ros.io.settings_file import read_config

    mapper = _mapper(read_config(config, settings or []), saved_map, localise)
    newest = max((stamp for stamp, _ in mapper.trajectory()), default=0)  # of the saved map: these pictures come after it
    _map_frames(open_images(pictures, fps, fov, newest), pictures.resolve().name, output, every, max_frames, mesh, mapper, save_map)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", envvar="DUST3R_DEMO_OUTPUT", help="Folder to write.")] = Path("demo_output"),
    offline: Annotated[bool, typer.Option(help="Without ROS: the same bags straight through the Mapper.")] = False,
) -> None:
    """Map real photographs and a moving camera through real ROS 2, and measure the result."""
    from dust3r_ros.demo import run

    run(output, is_offline=offline)


@app.command()
def doctor() -> None:
    """Say what this machine has, and what it lacks for what."""
    from dust3r_ros.doctor import findings

    worst = 0
    for finding in findings():
        typer.echo(f"{'ok  ' if finding.ok else 'miss'}  {finding.name}: {finding.text}")
        worst = max(worst, finding.needed and not finding.ok)
    raise typer.Exit(worst)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def play(context: typer.Context) -> None:
    """Play a bag's cameras over ROS 2, for where 'ros2 bag play' is not there; 'play --help' says more."""
    if importlib.util.find_spec("rclpy") is None:
        raise CommandError("play needs ROS 2: source your installation, or run 'make setup'; replay maps a bag without it")
    from dust3r_ros.ros.player import main as player

    raise typer.Exit(player(context.args))


@app.command()
def compare(
    estimate: Annotated[Path, typer.Argument(help="A folder that replay or reconstruct wrote, or a trajectory in TUM's format.")],
    truth: Annotated[Path, typer.Argument(help="The true trajectory in TUM's format: camera to world, seconds.")],
    max_difference: Annotated[float, typer.Option(min=0.0, help="Seconds between two poses that are compared.")] = 0.02,
) -> None:
    """Measure a trajectory against the truth: absolute error after the best rotation, shift and scale (needs evo)."""
    from dust3r_ros.io.evaluation import trajectory_error
    from dust3r_ros.io.trajectory import read_tum

    file = estimate / "trajectory.tum" if estimate.is_dir() else estimate
    error = trajectory_error(read_tum(file), read_tum(truth), max_difference)
    typer.echo(f"{error.matched} of {error.poses} poses compared, over an extent of {error.extent:.4g}")
    typer.echo(
        f"absolute trajectory error: {error.rmse:.4g} RMSE ({error.percent:.2f} %), median {error.median:.4g}, at most {error.largest:.4g}"
    )
    typer.echo(f"one unit of the map is {error.scale:.4g} of the truth's")


def _mapper(config: MapperConfig, saved_map: Path | None, localise: bool) -> Mapper | Localiser:
    """A new map, one that goes on from a saved one, or only the camera's place in that."""
    from dust3r_ros.io.map_file import load_map
    from dust3r_ros.mapping import Localiser, Mapper

    if saved_map is None:
        if localise:
            raise CommandError("--localise needs a map: give --map FILE")
        return Mapper(config)
    snapshot = load_map(saved_map, in_memory=not localise)
    mapper = Localiser(config) if localise else Mapper(config)
    mapper.restore(snapshot)
    return mapper


def _map_frames(
    frames: BagFrames | FolderFrames | VideoFrames,
    name: str,
    output: Path,
    every: int,
    max_frames: int | None,
    mesh: bool,
    mapper: Mapper | Localiser,
    save_to: Path | None,
    metrics: BagMetrics | None = None,
) -> None:
    """Frames through a Mapper into a folder, with a bar that says how long it will take. `metrics`: what else a bag knows."""
    from dust3r_ros.io.map_file import save_map
    from dust3r_ros.io.outputs import NothingMappedError, map_folder
    from dust3r_ros.mapping import FrameError

    save_to = None if save_to is None else _writable(save_to, output)
    unusable: dict[str, int] = {}
    end = None if max_frames is None else (max_frames - 1) * every + 1
    with map_folder(output, name, mapper, mesh) as writer:
        with _bar(min(len(frames), end or len(frames))) as advance:
            for at, frame in enumerate(islice(frames, end)):
                if at % every == 0:
                    if metrics is not None:
                        metrics.hand_over(mapper, frame.stamp)
                    try:
                        writer.add(mapper.add(frame))
                    except FrameError as error:
                        unusable[str(error)] = unusable.get(str(error), 0) + 1
                advance()
        if unusable and not writer.frames:
            raise NothingMappedError(f"{name}: not one frame can be used: {next(iter(unusable))}")
        for reason, count in unusable.items():
            logging.getLogger(__name__).warning("%d frames left out: %s", count, reason)
    if save_to is not None:
        save_map(save_to, mapper.snapshot())
    points = len(mapper.cloud())
    typer.echo(f"{len(mapper.trajectory())} poses, {len(mapper.keyframes)} keyframes, {points:,} points: {output / 'report.html'}")
    if mapper.pieces:
        left = ", ".join(map(str, mapper.pieces))
        typer.echo(f"what was seen while the camera was lost is not joined to the map: {len(mapper.pieces)} pieces of {left} keyframes")


def _writable(file: Path, output: Path) -> Path:
    """Where a map is to be saved: found out before minutes are spent."""
    from dust3r_ros.io.atomic import explained

    file, output = file.expanduser().resolve(), output.expanduser().resolve()
    if output in file.parents:
        raise CommandError(f"--save-map {file} lies in --output {output}, which is replaced as a whole: give a place beside it")
    if file.is_dir():
        raise CommandError(f"--save-map {file} is a folder: give a file, e.g. {file / 'house.map'}")
    with explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=file.parent).close()
    return file


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    """A progress bar with the time left, on standard error; yields the function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("mapping"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
    try:
        with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
            for handler in handlers:
                handler.setStream(sys.stderr)  # which is the bar's now: warnings go above it
            task = progress.add_task("mapping", total=total or None)
            yield lambda: progress.advance(task)
    finally:
        for handler in handlers:
            handler.setStream(sys.stderr)


class Stopped(BaseException):
    """Ctrl-C, or a kind request to end; no Exception, so that nothing on the way takes it for bad input."""


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    signal.signal(number, signal.SIG_IGN)  # once is enough: what is half written is taken away now
    raise Stopped(number)


def main() -> None:
    """Run the command: one line and exit code 1 for what the user can mend."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except Dust3rError as error:
        print(f"dust3r_ros: {error}", file=sys.stderr)
        sys.exit(1)
    except Stopped as stopped:
        print("dust3r_ros: stopped; what was there before stands", file=sys.stderr)
        sys.exit(128 + int(stopped.args[0]))


if __name__ == "__main__":
    main()
