"""How far each way is above the best objective known, against the time it took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

FLOOR = 1e-6  # of the best objective: nearer counts as there


def convergence_plot(rows: Sequence[Any], file: Path) -> None:
    """One panel a problem; `rows` have problem, way, seconds, objective and history.

    A way's own history may be over a sample of the pixels and pairs: it is shifted so that it ends at its objective over all of them.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    problems = list(dict.fromkeys(row.problem for row in rows))
    if not problems:
        return
    columns = min(4, len(problems))
    lines = -(-len(problems) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.6 * columns, 3.4 * lines), squeeze=False, layout="constrained")
    for axis in axes.flat[len(problems) :]:
        axis.remove()
    for axis, problem in zip(axes.flat, problems, strict=False):
        own = [row for row in rows if row.problem == problem]
        best = min(row.objective for row in own)
        for row in own:
            seconds, values = (np.array(part, float) for part in zip(*row.history, strict=True)) if row.history else (np.zeros(0),) * 2
            values = values + (row.objective - values[-1] if len(values) else 0.0)
            seconds, values = np.append(seconds, row.seconds), np.append(values, row.objective)
            above = np.maximum(values / best - 1, FLOOR)
            (line,) = axis.loglog(seconds, above, label=row.way, marker="o" if len(seconds) < 100 else None, ms=3)
            axis.loglog(seconds[-1:], above[-1:], "s", color=line.get_color(), ms=6)
        axis.set(title=problem, xlabel="seconds", ylabel="objective above the best known (share)")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3, which="both")
    figure.savefig(file, dpi=110)
    plt.close(figure)
