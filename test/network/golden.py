"""Compares one published architecture with its golden arrays, in a process of its own: `python golden.py NAME FOLDER [PRECISION]`.

Prints the relative error of every array as JSON; PRECISION is float32, bfloat16 or float16.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.regenerated import regenerated


def image(seed: int, height: int, width: int) -> torch.Tensor:
    rng = np.random.Generator(np.random.PCG64(seed))
    coarse = rng.standard_normal((3, height // 8, width // 8)).repeat(8, axis=1).repeat(8, axis=2)
    return torch.from_numpy(np.tanh(coarse + 0.3 * rng.standard_normal((3, height, width))).astype(np.float32))[None]


def relative_errors(name: str, folder: Path, precision: torch.dtype = torch.float32) -> dict[str, float]:
    """|ours - golden| / |golden| of every array."""
    network = regenerated(name)
    network.to_precision(precision).eval()
    golden, errors = np.load(folder / f"{name}.npz"), {}
    for suffix, height, width in (("", 96, 128), ("_odd", 80, 112), ("_portrait", 128, 96)):
        if f"pts3d_1{suffix}" not in golden:
            continue
        with torch.inference_mode():
            tokens = [network.encode(image(seed, height, width)) for seed in (1, 2)]
            levels = network.decode_levels(*tokens)
            out = network.decode(*tokens)
        for side in (1, 2):
            ours = {
                f"enc{side}": tokens[side - 1].values[0, ::6, ::32],
                f"dec{side}": levels[side - 1][-1][0, ::6, ::24],
                f"pts3d_{side}": getattr(out, f"points_{side}")[0, ::4, ::4],
                f"conf_{side}": getattr(out, f"confidence_{side}")[0, ::4, ::4],
            }
            if out.descriptors_1 is not None:
                ours[f"desc_{side}"] = getattr(out, f"descriptors_{side}")[0, ::8, ::8]
                ours[f"desc_conf_{side}"] = getattr(out, f"descriptor_confidence_{side}")[0, ::4, ::4]
            for key, value in ours.items():
                if key + suffix in golden:
                    true = golden[key + suffix]
                    errors[key + suffix] = float(np.linalg.norm(value.numpy() - true) / np.linalg.norm(true))
    missing = set(golden.files) - set(errors)
    assert not missing, f"not compared: {sorted(missing)}"
    return errors


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(relative_errors(sys.argv[1], Path(sys.argv[2]), getattr(torch, (sys.argv[3:] or ["float32"])[0]))))
