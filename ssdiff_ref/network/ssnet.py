"""SSNet, the denoising network of SSDiff: two U-shaped branches, fused at five points.

The input of the spatial branch ``y`` is ``pan``, that of the spectral branch ``x`` is ``lms``; both
also get the diffusion state. At each fusion point APFM fuses the FMIM-filtered ``y`` into ``x``.
Architecture and constants are those of the authors' released configuration (arXiv 2404.11537).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssdiff_ref.network.apfm import APFM, AttentionForm, Branch
from ssdiff_ref.network.fmim import FMIM, FMIMForm

WIDTHS = (32, 64, 128, 64, 32)
"""Channels at the fusion points: encoder 0, encoder 1, middle, decoder 1, decoder 0."""
SPECTRAL_GAINS = (1.2, 1.4, 1.6, 1.4, 1.2)
"""Factor on the first half of x's channels at each fusion point (b in the paper)."""
FREQUENCY_SCALES = (0.9, 0.6, 0.3, 0.6, 0.9)
"""Scale of FMIM at each fusion point (s in the paper)."""
_SINUSOID, _EMBEDDING = 128, 512


def _conv3(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class TimeEmbedding(nn.Module):
    """Embeds timesteps ``[N]``, float 0..999, as ``[N, 512]``."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear0 = nn.Linear(_SINUSOID, _EMBEDDING)
        self.linear1 = nn.Linear(_EMBEDDING, _EMBEDDING)
        half = torch.arange(_SINUSOID // 2, dtype=torch.float32)
        frequencies = torch.exp(-math.log(10000) * half / (_SINUSOID // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1)
        return self.linear1(F.silu(self.linear0(waves)))


class TimeBias(nn.Module):
    """Adds a per-channel bias, computed from the time embedding, to a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(_EMBEDDING, channels)

    def forward(self, feature: Tensor, embedding: Tensor) -> Tensor:
        return feature + self.linear(F.silu(embedding))[:, :, None, None]


class Stem(nn.Module):
    """First layers of a branch: image ``[N, K, H, W]`` and state to ``[N, 32, H, W]``."""

    def __init__(self, image_bands: int, bands: int) -> None:
        super().__init__()
        self.conv = _conv3(image_bands + bands, WIDTHS[0])
        self.time = TimeBias(WIDTHS[0])
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        self.out = _conv3(WIDTHS[0], WIDTHS[0])
        nn.init.zeros_(self.out.weight)

    def forward(self, image: Tensor, x_t: Tensor, embedding: Tensor) -> Tensor:
        feature = self.time(self.conv(torch.cat((image, x_t), dim=1)), embedding)
        return self.out(F.silu(self.norm(feature)))


class SpatialBlock(nn.Module):
    """Residual block of the spatial branch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = _conv3(channels, channels // 2)
        self.conv1 = _conv3(channels // 2, channels)
        self.time = TimeBias(channels)
        self.norm = nn.GroupNorm(32, channels)
        self.out = _conv3(channels, channels)
        nn.init.zeros_(self.out.weight)

    def forward(self, y: Tensor, embedding: Tensor) -> Tensor:
        body = self.time(self.conv1(F.leaky_relu(self.conv0(y))), embedding)
        return y + self.out(F.silu(self.norm(body)))


class Down(nn.Module):
    """Halves the size and doubles the channels; both branches share the weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.conv0 = nn.Conv2d(channels, channels, 2, stride=2)
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)

    def forward(self, a: Tensor) -> Tensor:
        return F.leaky_relu(self.conv2(self.conv1(F.leaky_relu(self.conv0(a)))))


class Up(nn.Module):
    """Doubles the size, halves the channels, adds the skip; both branches share the weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.conv1 = _conv3(channels, channels)

    def forward(self, a: Tensor, skip: Tensor) -> Tensor:
        return F.leaky_relu(self.conv1(F.leaky_relu(self.conv0(a)) + skip))


class Fusion(nn.Module):
    """A fusion point: scales half of x's channels, applies FMIM to y, fuses both by APFM."""

    gains: Tensor

    def __init__(self, level: int, fmim: FMIMForm, attention: AttentionForm) -> None:
        super().__init__()
        channels = WIDTHS[level]
        gains = torch.ones(channels)
        gains[: channels // 2] = SPECTRAL_GAINS[level]
        self.register_buffer("gains", gains[:, None, None], persistent=False)
        self.fmim = FMIM(FREQUENCY_SCALES[level], fmim)
        self.apfm = APFM(channels, attention)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.apfm(x * self.gains, self.fmim(y))


class SSNet(nn.Module):
    """The denoiser of SSDiff.

    Args:
        bands: C, the number of multispectral bands.
        fmim: ``fft``, the definition, or ``matmul``, the same without an FFT.
        attention: ``materialised``, which stores the score matrix, or ``fused``; same result.
    """

    def __init__(
        self, bands: int, fmim: FMIMForm = "matmul", attention: AttentionForm = "fused"
    ) -> None:
        super().__init__()
        self.bands = bands
        self.time = TimeEmbedding()
        self.stem_spatial = Stem(1, bands)
        self.stem_spectral = Stem(bands, bands)
        self.fusions = nn.ModuleList(Fusion(level, fmim, attention) for level in range(5))
        self.spatial = nn.ModuleList(SpatialBlock(channels) for channels in WIDTHS[:4])
        self.downs = nn.ModuleList(Down(channels) for channels in WIDTHS[:2])
        self.ups = nn.ModuleList(Up(channels) for channels in WIDTHS[3:])
        self.head = nn.Sequential(_conv3(32, 32), nn.LeakyReLU(), _conv3(32, bands))
        self.ms_skip = nn.Sequential(_conv3(bands, 16 * bands, bias=False), nn.PixelShuffle(4))

    def select_trained_branch(self, branch: Branch) -> None:
        """Select the branch that gradients reach, as L-BAF alternates it (SSDiff, section 3.4).

        The branches share weights, so they are separated by stopping gradients at the fusion
        points, not by freezing parameters. With ``spectral``, no gradient flows from a fusion point
        into the spatial features. With ``spatial``, none flows into the values of the spatial
        attention nor into either factor of the spectral attention; the residual connection of the
        spectral branch still carries gradients.
        """
        for module in self.modules():
            if isinstance(module, APFM):
                module.trained_branch = branch

    def forward(self, x_t: Tensor, pan: Tensor, lms: Tensor, ms: Tensor, t: Tensor) -> Tensor:
        """Predict the residual ``x0 = image - lms``, ``[N, C, H, W]``.

        Args:
            x_t: diffusion state ``[N, C, H, W]``; H and W are multiples of 4.
            pan: ``[N, 1, H, W]``, 0..1 of full scale, like ``lms`` and ``ms``.
            lms: ``[N, C, H, W]``.
            ms: ``[N, C, H / 4, W / 4]``.
            t: timestep of each item ``[N]``, float 0..999.
        """
        embedding = self.time(t)
        y = self.stem_spatial(pan, x_t, embedding)
        x = self.stem_spectral(lms, x_t, embedding)
        skips = []
        for fusion, block, down in zip(self.fusions[:2], self.spatial[:2], self.downs, strict=True):
            x = fusion(x, y)
            y = block(y, embedding)
            skips.append((x, y))
            x, y = down(x), down(y)
        x = self.fusions[2](x, y)
        y = self.spatial[2](y, embedding)
        x, y = (self.ups[0](a, skip) for a, skip in zip((x, y), skips[1], strict=True))
        x = self.fusions[3](x, y)
        y = self.spatial[3](y, embedding)
        x, y = (self.ups[1](a, skip) for a, skip in zip((x, y), skips[0], strict=True))
        x = self.fusions[4](x, y)
        return self.head(x) + self.ms_skip(ms)
