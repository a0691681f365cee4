"""APFM, the attention that fuses the spatial branch into the spectral one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 16
AttentionForm = Literal["materialised", "fused"]
Branch = Literal["both", "spectral", "spatial"]
_NEVER = -1e4
"""A score whose weight is 0; within FP16's range."""


def _heads(tokens: Tensor) -> Tensor:
    """``[N, n, C]`` to ``[N, heads, n, d]``; heads are contiguous groups of channels."""
    return tokens.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2)


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` over tokens by heads, all ``[N, n, C]``."""
    attended = F.scaled_dot_product_attention(_heads(q), _heads(k), _heads(v))
    return attended.transpose(1, 2).flatten(2)


def materialised_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same, by its definition; it holds the n x n scores."""
    scores = (_heads(q) * HEAD_WIDTH**-0.5) @ _heads(k).transpose(-2, -1)
    return (scores.softmax(dim=-1) @ _heads(v)).transpose(1, 2).flatten(2)


ATTENTION: dict[AttentionForm, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "materialised": materialised_attention,
    "fused": fused_attention,
}


def between_heads(channels: int) -> Tensor:
    """bool ``[C, C]``: whether two channels are of different heads."""
    head = torch.arange(channels) // HEAD_WIDTH
    return head[:, None] != head


def spectral_attention(y: Tensor, x1: Tensor, x2: Tensor, apart: Tensor) -> Tensor:
    """``y softmax(x1^T x2 sqrt(d) / n)`` over the channels of each head.

    All heads are one product of C x C: few channels more than each head by itself, and nothing has
    to be laid out anew.

    Args:
        y, x1, x2: ``[N, n, C]``.
        apart: of :func:`between_heads`.
    """
    # The sum runs over n = 4096 products: scaling its operands first keeps it within FP16's range.
    scale = HEAD_WIDTH**0.25 * x1.shape[1] ** -0.5
    scores = (x1 * scale).transpose(1, 2) @ (x2 * scale)
    return y @ scores.masked_fill(apart, _NEVER).softmax(dim=-1)


class APFM(nn.Module):
    """Adaptive fusion of spectral features ``x`` with spatial features ``y``.

    Both are ``[N, C, H, W]``; so is the result, which replaces ``x``.
    """

    apart: Tensor

    def __init__(self, channels: int, attention: AttentionForm) -> None:
        super().__init__()
        self.attend = ATTENTION[attention]
        self.learns: Branch = "both"
        self.register_buffer("apart", between_heads(channels), persistent=False)
        self.norm1 = nn.LayerNorm(channels)  # shared by x and y
        self.sa1, self.sa2, self.se1, self.se2 = (
            nn.Linear(channels, channels, bias=False) for _ in range(4)
        )
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels // 2), nn.LeakyReLU(), nn.Linear(channels // 2, channels)
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if self.learns == "spectral":
            y = y.detach()
        size = x.shape[-2:]
        x, y = x.flatten(2).transpose(1, 2), y.flatten(2).transpose(1, 2)
        nx, ny = self.norm1(x), self.norm1(y)
        y1, y2, x1, x2 = self.sa1(ny), self.sa2(ny), self.se1(nx), self.se2(nx)
        if self.learns == "spatial":
            x1, x2 = x1.detach(), x2.detach()
        x = x + self.out(self.attend(y1, y2, x1) * spectral_attention(y1, x1, x2, self.apart))
        x = x + self.mlp(self.norm2(x))
        return x.transpose(1, 2).unflatten(2, size)
