"""APFM, the attention that fuses the spatial branch into the spectral one."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 16
AttentionForm = Literal["materialised", "fused"]
Branch = Literal["both", "spectral", "spatial"]


def spatial_attention(q: Tensor, k: Tensor, v: Tensor, form: AttentionForm) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` over tokens, ``[N, heads, n, d]``.

    The two forms agree; ``materialised`` holds the n x n scores, ``fused`` does not.
    """
    if form == "fused":
        return F.scaled_dot_product_attention(q, k, v)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


def spectral_attention(y: Tensor, x: Tensor) -> Tensor:
    """``y softmax(x1^T x2 sqrt(d) / n)`` over channels.

    Args:
        y: ``[N, heads, n, d]``.
        x: ``x1`` and ``x2`` stacked, ``[2, N, heads, n, d]``.
    """
    n, d = y.shape[-2:]
    # The sum runs over n = 4096 products: scaling its operands first keeps it within FP16's range.
    x1, x2 = x * (d**0.25 * n**-0.5)
    return y @ (x1.transpose(-2, -1) @ x2).softmax(dim=-1)


class APFM(nn.Module):
    """Adaptive fusion of spectral features ``x`` with spatial features ``y``.

    Both are ``[N, C, H, W]``; so is the result, which replaces ``x``.
    """

    def __init__(self, channels: int, attention: AttentionForm) -> None:
        super().__init__()
        self.attention = attention
        self.learns: Branch = "both"
        self.norm1 = nn.LayerNorm(channels)  # shared by x and y
        self.sa1, self.sa2, self.se1, self.se2 = (
            nn.Linear(channels, channels, bias=False) for _ in range(4)
        )
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels // 2), nn.LeakyReLU(), nn.Linear(channels // 2, channels)
        )

    @staticmethod
    def _heads(tokens: Tensor) -> Tensor:
        """``[N, n, C]`` to ``[N, heads, n, d]``; heads are contiguous groups of channels."""
        return tokens.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if self.learns == "spectral":
            y = y.detach()
        size = x.shape[-2:]
        x, y = x.flatten(2).transpose(1, 2), y.flatten(2).transpose(1, 2)
        nx, ny = self.norm1(x), self.norm1(y)
        y1, y2, x1, x2 = (
            self._heads(project(tokens))
            for project, tokens in ((self.sa1, ny), (self.sa2, ny), (self.se1, nx), (self.se2, nx))
        )
        if self.learns == "spatial":
            x1, x2 = x1.detach(), x2.detach()
        spatial = spatial_attention(y1, y2, x1, self.attention)
        spectral = spectral_attention(y1, torch.stack((x1, x2)))
        x = x + self.out((spatial * spectral).transpose(1, 2).flatten(2))
        x = x + self.mlp(self.norm2(x))
        return x.transpose(1, 2).unflatten(2, size)
