"""What appears whole or not at all, where somebody else has left something."""

from __future__ import annotations

from pathlib import Path

import pytest

from dust3r_ros.io import atomic


def test_what_another_users_killed_run_left_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".out.abc.partial"
    left.mkdir()
    claim = atomic.claim

    def denied(path: Path, create: bool = False) -> int | None:
        if path == left:
            raise PermissionError(13, "Permission denied", str(path))
        return claim(path, create)

    monkeypatch.setattr(atomic, "claim", denied)
    with atomic.atomic_folder(tmp_path / "out") as folder:
        (folder / "done").write_text("yes")
    assert (tmp_path / "out" / "done").read_text() == "yes"
    assert left.is_dir()
