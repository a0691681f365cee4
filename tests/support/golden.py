"""Golden outputs of the released code, and the random weights that produced them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = {4: "b4_s12", 8: "b8_s11"}


def golden_arrays(bands: int) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(GOLDEN / f"{CASES[bands]}.npz") as arrays:
        return dict(arrays)


def golden_state(bands: int) -> dict[str, torch.Tensor]:
    """Released-format state dict, drawn from the listed seed in the listed order of tensors."""
    import torch

    listing = json.loads((GOLDEN / f"{CASES[bands]}.json").read_text())
    rng = np.random.default_rng(listing["seed"])
    state = {}
    for name, shape in listing["tensors"]:
        z = rng.standard_normal(shape)
        if name.endswith("running_var"):
            value = 0.75 + 0.5 * rng.random(shape)
        elif name.endswith("running_mean"):
            value = 0.1 * z
        elif len(shape) >= 2:
            gain = 0.1 if name.startswith(("upsample.", "to_hrms.2")) else 1.0
            value = gain * z / np.sqrt(np.prod(shape[1:]))
        elif name.endswith(".weight"):
            value = 1 + 0.1 * z
        else:
            value = 0.05 * z
        state[name] = torch.from_numpy(np.asarray(value, np.float32))
    return state
