"""Extending weights to more bands than they were trained with."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdiff_ref.network.ssnet import SSNet


def widen(net: SSNet, bands: int) -> SSNet:
    """A network for more bands, initialised from ``net``.

    Each new band copies the output weights of the old band nearest in order. Input weights of an
    old band are divided equally among the new bands that copy it.

    Args:
        net: network for fewer bands.
        bands: number of bands of the new network.
    """
    old = net.bands
    source_band = torch.linspace(0, old - 1, bands).round().long()
    share = 1 / source_band.bincount(minlength=old)[source_band].float()

    def widen_inputs(weight: Tensor) -> Tensor:
        return weight[:, source_band] * share[:, None, None]

    wide, state = SSNet(bands), dict(net.state_dict())
    spatial, spectral = (f"stem_{branch}.conv.weight" for branch in ("spatial", "spectral"))
    state[spatial] = torch.cat((state[spatial][:, :1], widen_inputs(state[spatial][:, 1:])), 1)
    lms, x_t = state[spectral].split(old, 1)
    state[spectral] = torch.cat((widen_inputs(lms), widen_inputs(x_t)), 1)
    state["head.2.weight"] = state["head.2.weight"][source_band]
    state["head.2.bias"] = state["head.2.bias"][source_band]
    skip = state["ms_skip.0.weight"].unflatten(0, (old, -1))
    state["ms_skip.0.weight"] = widen_inputs(skip[source_band].flatten(0, 1))
    wide.load_state_dict(state)
    return wide.train(net.training)
