"""APFM, the alternating projection fusion module of SSDiff (arXiv 2404.11537)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 16
AttentionForm = Literal["materialised", "fused"]
Branch = Literal["both", "spectral", "spatial"]
_MASKED_SCORE = -1e4
"""Attention score whose softmax weight is 0; representable in FP16."""


def _heads(tokens: Tensor) -> Tensor:
    """Split ``[N, n, C]`` into ``[N, heads, n, d]``; a head is a contiguous group of channels."""
    return tokens.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2)


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Multi-head attention ``softmax(q k^T / sqrt(d)) v`` over tokens; all ``[N, n, C]``."""
    attended = F.scaled_dot_product_attention(_heads(q), _heads(k), _heads(v))
    return attended.transpose(1, 2).flatten(2)


def materialised_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """:func:`fused_attention` by its definition; stores the n x n score matrix."""
    scores = (_heads(q) * HEAD_WIDTH**-0.5) @ _heads(k).transpose(-2, -1)
    return (scores.softmax(dim=-1) @ _heads(v)).transpose(1, 2).flatten(2)


ATTENTION: dict[AttentionForm, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "materialised": materialised_attention,
    "fused": fused_attention,
}


def cross_head_mask(channels: int) -> Tensor:
    """bool ``[C, C]``, true where two channels belong to different heads."""
    head = torch.arange(channels) // HEAD_WIDTH
    return head[:, None] != head


def spectral_attention(y: Tensor, x1: Tensor, x2: Tensor, masked: Tensor) -> Tensor:
    """Channel attention ``y softmax(x1^T x2 sqrt(d) / n)`` within each head.

    All heads share one C x C product with the entries between heads masked: C is small, and this
    avoids the transposes that a split into heads needs.

    Args:
        y, x1, x2: ``[N, n, C]``.
        masked: bool ``[C, C]``; see :func:`cross_head_mask`.
    """
    # The dot product sums up to 4096 terms: scaling the operands first keeps it in FP16's range.
    scale = HEAD_WIDTH**0.25 * x1.shape[1] ** -0.5
    scores = (x1 * scale).transpose(1, 2) @ (x2 * scale)
    return y @ scores.masked_fill(masked, _MASKED_SCORE).softmax(dim=-1)


class APFM(nn.Module):
    """Fuses spatial features ``y`` into spectral features ``x``.

    Both are ``[N, C, H, W]``; returns the new ``x``.

    Attributes:
        trained_branch: branch that gradients reach; see
            :meth:`ssdiff_ref.network.ssnet.SSNet.select_trained_branch`.
    """

    apart: Tensor  # the cross-head mask; exported graphs contain this name

    def __init__(self, channels: int, attention: AttentionForm) -> None:
        super().__init__()
        self.attend = ATTENTION[attention]
        self.trained_branch: Branch = "both"
        self.register_buffer("apart", cross_head_mask(channels), persistent=False)
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
        if self.trained_branch == "spectral":
            y = y.detach()
        size = x.shape[-2:]
        x, y = x.flatten(2).transpose(1, 2), y.flatten(2).transpose(1, 2)
        nx, ny = self.norm1(x), self.norm1(y)
        y1, y2, x1, x2 = self.sa1(ny), self.sa2(ny), self.se1(nx), self.se2(nx)
        if self.trained_branch == "spatial":
            x1, x2 = x1.detach(), x2.detach()
        x = x + self.out(self.attend(y1, y2, x1) * spectral_attention(y1, x1, x2, self.apart))
        x = x + self.mlp(self.norm2(x))
        return x.transpose(1, 2).unflatten(2, size)
