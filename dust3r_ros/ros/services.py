"""~/reset, ~/pause, ~/align, ~/save_map, ~/load_map, ~/get_map_tiles: done on the mapping thread; tracking goes on meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dust3r_ros_msgs.srv import GetMapTiles, LoadMap, SaveMap
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from dust3r_ros.errors import Dust3rError
from dust3r_ros.ros.errors import RosError
from dust3r_ros.ros.map_commands import MapCommands


class MapServices:
    """A failed request answers with success = false and one line; the map stands."""

    def __init__(self, node: Node, commands: MapCommands) -> None:
        self._node, self._commands = node, commands
        self._files = ThreadPoolExecutor(1, "map_files")  # writing a large map does not hold up the images
        self._pending = 0  # requests that wait for their answer
        self._closing = False
        group = ReentrantCallbackGroup()  # in an exclusive group an answer that waits would block all other callbacks
        self._services = [
            node.create_service(kind, name, callback, callback_group=group)
            for kind, name, callback in (
                (Trigger, "~/reset", self._reset),
                (SetBool, "~/pause", self._pause),
                (Trigger, "~/align", self._align),
                (SaveMap, "~/save_map", self._save),
                (LoadMap, "~/load_map", self._load),
                (GetMapTiles, "~/get_map_tiles", self._tiles),
            )
        ]

    def destroy(self) -> None:
        """What is pending is answered before: rclpy raises where an answer has no service any more."""
        self._closing = True
        if not self._pending:
            self._destroy_services()
        self._files.shutdown(wait=True)

    def _destroy_services(self) -> None:
        for service in self._services:
            self._node.destroy_service(service)

    async def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._answer(response, self._in_worker(self._commands.reset_map))

    async def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        return await self._answer(response, self._in_worker(lambda: self._commands.pause(request.data)))

    async def _align(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._answer(response, self._in_worker(self._commands.align_map))

    async def _save(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        from dust3r_ros.io.map_file import save_map

        async def save() -> str:
            path = _path(request.path)
            snapshot = await self._in_worker(self._commands.snapshot_map)
            if not snapshot.keyframes:
                raise RosError("there is no map to save yet: the camera has to move first")
            await self._in_files(lambda: save_map(path, snapshot))
            return f"{len(snapshot.keyframes)} keyframes written to {path}"

        return await self._answer(response, save())

    async def _load(self, request: LoadMap.Request, response: LoadMap.Response) -> LoadMap.Response:
        async def load() -> str:
            path = _path(request.path)
            snapshot = await self._in_files(lambda: self._commands.read_map(path))
            done = await self._in_worker(lambda: self._commands.replace_map(snapshot))
            return f"{done} from {path}"

        return await self._answer(response, load())

    async def _tiles(self, _: GetMapTiles.Request, response: GetMapTiles.Response) -> GetMapTiles.Response:
        async def tiles() -> str:
            response.map = await self._in_worker(self._commands.map_tiles)
            return f"{len(response.map.point_counts)} tiles"

        return await self._answer(response, tiles())

    async def _answer(self, response: Any, work: Awaitable[str]) -> Any:
        self._pending += 1
        try:
            response.message, response.success = await work, True
        except (Dust3rError, OSError) as error:
            response.message, response.success = str(error), False
        except Exception as error:  # the caller is told; the node lives on
            self._node.get_logger().error(f"a service failed: {type(error).__name__}: {error}")
            response.message, response.success = f"{type(error).__name__}: {error}", False
        if not response.success:
            self._node.get_logger().warning(response.message)
        self._pending -= 1
        if self._closing and not self._pending and self._node.executor is not None:
            self._node.executor.create_task(self._destroy_services)  # once this answer has been sent
        return response

    def _in_worker(self, job: Callable[[], Any]) -> Future:
        return self._awaitable(self._commands.do(job))

    def _in_files(self, job: Callable[[], Any]) -> Future:
        return self._awaitable(self._files.submit(job))

    def _awaitable(self, done_by_thread: ThreadFuture[Any]) -> Future:
        """rclpy's own future, so that the executor wakes up and goes on with the answer."""
        waiting = Future(executor=self._node.executor)

        def finish(done: ThreadFuture[Any]) -> None:
            if done.cancelled():
                waiting.set_exception(RosError("the node is shutting down"))
            elif (error := done.exception()) is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result(done.result())

        done_by_thread.add_done_callback(finish)
        return waiting


def _path(text: str) -> Path:
    if not text.strip():
        raise RosError("the path is empty: say where the map's file is, e.g. ~/house.map")
    return Path(text).expanduser().absolute()
