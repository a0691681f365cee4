"""FMIM, the frequency modulation inter-branch module of SSDiff, in two equivalent forms.

By definition, FMIM multiplies the four lowest bins of the centred 2-D spectrum (rows and columns
-1 and 0) by a scale and takes the real part of the inverse FFT (SSDiff, section 3.3). Those bins
are the mean and one member of each of three conjugate pairs, so FMIM equals
``y + (scale - 1) P y``, where ``P y`` is the mean of ``y`` plus *half* its projection on six cosine
and sine images. That is two products with thin constant matrices, which every inference engine
supports; few support an FFT.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

FMIMForm = Literal["fft", "matmul"]


def fmim_fft(y: Tensor, scale: float) -> Tensor:
    """FMIM of ``y`` ``[N, C, H, W]`` by FFT, its definition."""
    height, width = y.shape[-2:]
    spectrum = torch.fft.fftshift(torch.fft.fft2(y), dim=(-2, -1))
    row, col = height // 2, width // 2
    mask = torch.ones(height, width, dtype=y.dtype, device=y.device)
    mask[row - 1 : row + 1, col - 1 : col + 1] = scale
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum * mask, dim=(-2, -1))).real


def fmim_basis(height: int, width: int) -> Tensor:
    """Basis of the subspace that FMIM scales: seven images, float32 ``[H W, 7]``.

    Each image is divided by ``sqrt(H W)``. With ``B`` this matrix, ``B B^T`` is the ``P`` of the
    module docstring.
    """
    row = 2 * torch.pi * torch.arange(height, dtype=torch.float64)[:, None] / height
    col = 2 * torch.pi * torch.arange(width, dtype=torch.float64)[None, :] / width
    zero = torch.zeros(height, width, dtype=torch.float64)
    angles = [row + zero, col + zero, row + col]
    images = [zero + 1, *(wave(angle) for angle in angles for wave in (torch.cos, torch.sin))]
    return (torch.stack(images, dim=-1).flatten(0, 1) / (height * width) ** 0.5).float()


def fmim_matmul(y: Tensor, scale: float, basis: Tensor) -> Tensor:
    """FMIM of ``y`` ``[N, C, H, W]`` without an FFT; ``basis`` from :func:`fmim_basis`."""
    low = (y.flatten(2) @ basis) @ basis.T
    return y + (scale - 1) * low.view_as(y)


class FMIM(nn.Module):
    """FMIM with a fixed scale. ``form`` selects the algorithm, not the result."""

    def __init__(self, scale: float, form: FMIMForm) -> None:
        super().__init__()
        self.scale, self.form = scale, form

    def forward(self, y: Tensor) -> Tensor:
        if self.form == "fft":
            return fmim_fft(y, self.scale)
        return fmim_matmul(y, self.scale, fmim_basis(*y.shape[-2:]).to(y))
