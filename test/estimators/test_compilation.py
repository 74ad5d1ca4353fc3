"""What torch.compile cannot do is done without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._inductor import config as inductor

from dust3r_ros.estimators.two_view.compilation import Compiled


def test_without_a_compiler_it_runs_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    absent = str(tmp_path / "absent")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    doubled = Compiled(lambda x: (2 * x).sin() + 1)
    with inductor.patch({"cpp.cxx": (None, absent)}):
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


@pytest.mark.slow
def test_what_can_be_compiled_is() -> None:
    """The function says who runs it."""
    told = Compiled(lambda x: x + 1 if torch.compiler.is_compiling() else x)
    torch.testing.assert_close(told(torch.zeros(7)), torch.ones(7))
