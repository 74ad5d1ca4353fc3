"""What torch.compile cannot do is done without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dust3r_ros.estimators.two_view.compilation import Compiled


def test_without_a_compiler_it_runs_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    absent = str(tmp_path / "absent")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, absent))
    doubled = Compiled(lambda x: (2 * x).sin() + 1)
    for _ in range(2):
        x = torch.linspace(0, 1, 7)
        torch.testing.assert_close(doubled(x), (2 * x).sin() + 1)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("dust3r_ros")]
    assert len(said) == 1
    assert "estimator.compile" in said[0]
    assert "No working C++ compiler" in said[0]
    assert "g++" in said[0]


def test_what_goes_wrong_in_the_function_itself_is_not_hidden() -> None:
    def refuse(x: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"{x.shape[0]} is too many")

    with pytest.raises(ValueError, match="7 is too many"):
        Compiled(refuse)(torch.zeros(7))
