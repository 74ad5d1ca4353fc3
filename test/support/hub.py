"""A hub on this machine: answers as the Hugging Face Hub does for single files, and fails as it does when asked to."""

from __future__ import annotations

import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LocalHub:
    """Serves `files` of every repository at COMMIT.

    `status` makes every answer that error; `cut_at` ends bodies after so many bytes, or holds the line there if it `stalls`.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.status, self.cut_at = files, 200, 0
        self.stalls, self.released = False, threading.Event()
        self.requests: list[tuple[str, str, str]] = []  # method, path, Range
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                del args

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, body: bool) -> None:
                hub.requests.append((self.command, self.path, self.headers.get("Range", "")))
                content = hub.files.get(Path(self.path).name)
                if hub.status != 200 or content is None or "/resolve/" not in self.path:
                    self.send_response(hub.status if hub.status != 200 else 404)
                    code = {403: "GatedRepo", 404: "RepoNotFound"}.get(hub.status)
                    if code:
                        self.send_header("X-Error-Code", code)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0]) if body else 0
                self.send_response(206 if start else 200)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("Content-Length", str(len(content) - start))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.end_headers()
                if body:
                    end = start + hub.cut_at if hub.cut_at and Path(self.path).name.endswith("safetensors") else len(content)
                    self.wfile.write(content[start:end])
                    if end < len(content):
                        self.wfile.flush()
                        if hub.stalls:
                            hub.released.wait(60)
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LocalHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
