"""Weights for more bands than they were trained with."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdiff_ref.network.ssnet import SSNet


def widen(net: SSNet, bands: int) -> SSNet:
    """A network for more bands that begins where another stands.

    Every new band takes the part of the old one that is nearest in order, and where it is read,
    shares its weight with those that take the same part.

    Args:
        net: for fewer bands.
        bands: of the new one.
    """
    old = net.bands
    part = torch.linspace(0, old - 1, bands).round().long()
    share = 1 / part.bincount(minlength=old)[part].float()

    def read(weight: Tensor) -> Tensor:
        return weight[:, part] * share[:, None, None]

    wide, state = SSNet(bands), dict(net.state_dict())
    spatial, spectral = (f"stem_{branch}.conv.weight" for branch in ("spatial", "spectral"))
    state[spatial] = torch.cat((state[spatial][:, :1], read(state[spatial][:, 1:])), 1)
    lms, x_t = state[spectral].split(old, 1)
    state[spectral] = torch.cat((read(lms), read(x_t)), 1)
    state["head.2.weight"] = state["head.2.weight"][part]
    state["head.2.bias"] = state["head.2.bias"][part]
    skip = state["ms_skip.0.weight"].unflatten(0, (old, -1))
    state["ms_skip.0.weight"] = read(skip[part].flatten(0, 1))
    wide.load_state_dict(state)
    return wide.train(net.training)
