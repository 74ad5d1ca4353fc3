"""The examples run and print what the documentation says, within bounds; the documentation's code is the examples'."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "tasks").glob("*.md"))

BOUNDS = {  # printed name: least, most
    "clean": {
        "floaters found": (95, 100),
        "ghost layer found": (92, 100),
        "honest pixels kept": (99, 100),
        "threshold": (4.1, 4.6),
        "pixels to build with": (80, 90),
        "sky in the room": (0, 0),
        "painted sky found": (95, 100),
    },
    "matching": {
        "points matches": (1500, 4800),
        "points median error": (0, 0.7),
        "points within 2 px": (96, 100),
        "exact matches": (9000, 19200),
        "exact within 2 px": (98, 100),
        "fast matches": (900, 1200),
        "fast within 2 px": (98, 100),
        "windows matches": (900, 2400),
        "windows within 2 px": (98, 100),
    },
    "focal": {
        "flow focal error": (0, 0.01),
        "noisy focal error": (0, 1.0),
        "noisy spread between pairs": (0, 0.5),
        "wrong pair alone, error": (20, 40),
    },
    "relative_pose": {
        "inliers": (90, 100),
        "agreement of rotations": (1e-4, 1.0),
        "agreement of directions": (1e-3, 8.0),
        "pnp rotation error": (0, 0.4),
        "pnp direction error": (0, 4.0),
        "procrustes rotation error": (0, 0.6),
        "procrustes direction error": (0, 8.0),
    },
    "monocular_depth": {"known pixels": (99, 100), "median depth error after one scale": (0.5, 5), "focal error": (0, 0.1)},
    "localisation": {f"frame {k} position error": (0, 4.0) for k in (7, 17, 27)}
    | {f"frame {k} rotation error": (0, 1.0) for k in (7, 17, 27)}
    | {f"frame {k} likeness": (0.8, 1.0) for k in (7, 17, 27)},
}
SAYS = {
    "relative_pose": "chosen way: pnp",
    "monocular_depth": "flow is refused: depth of one image: estimator 'flow'",
    "localisation": "scrambled picture found: False",
}


def test_every_example_has_a_page_and_bounds() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {page.stem for page in PAGES} == set(BOUNDS)


def run_example(name: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, f"examples/{name}.py"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """All of them, two at a time: most of an example's seconds are imports."""
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run_example, name) for name in BOUNDS}


@pytest.mark.parametrize("name", BOUNDS)
def test_an_example_prints_figures_within_bounds(name: str, runs: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    done = runs[name].result()
    assert done.returncode == 0, done.stderr
    printed = {m[1]: float(m[2]) for m in re.finditer(r"^(.+?): (-?[\d.]+)( \S+)?$", done.stdout, re.MULTILINE)}
    outside = {key: printed.get(key) for key, (least, most) in BOUNDS[name].items() if not least <= printed.get(key, -1) <= most}
    assert outside == {}
    assert SAYS.get(name, "") in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_pages_code_is_its_examples(page: Path) -> None:
    example = (ROOT / "examples" / f"{page.stem}.py").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    assert [block for block in blocks if textwrap.dedent(block) not in example] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_pages_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert f"examples/{page.stem}.py" in page.read_text()
