"""One U-Net for images and for clips: the factorized space-time U-Net of *Video Diffusion Models*, which without its
temporal attention is the 2D U-Net of DDPM.

Axes are B C T H W outside and (B T) C H W inside; an image is a clip of one frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import nn

from .captions import TextEncoder
from .layers import (LogSNREmbedding, ResidualBlock, SpatialAttention, TemporalAttention, Upsample, downsample, group_norm,
                     packing_mask, zero_init)


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a network. Tuples have one entry a level, from the finest to the coarsest.

    channels: width. blocks: residual blocks on the way down (and again on the way up). space, time: is there attention
    over space, over time. stem: side of the space-to-depth patch that the network sees as one pixel (1 = none).
    text_width: width of the text encoder, None for a network without captions.
    max_distance: how far apart temporal attention tells frames apart, T - 1 for training clips of T frames.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    blocks: tuple[int, ...] = (1, 1, 1)
    space: tuple[bool, ...] = (False, True, True)
    time: tuple[bool, ...] = (False, False, False)
    stem: int = 1
    in_channels: int = 1
    embed_dim: int = 128
    head_dim: int = 32
    text_width: int | None = None
    max_distance: int = 15

    def __post_init__(self) -> None:
        for name in ("blocks", "space", "time"):
            if len(getattr(self, name)) != len(self.channels):
                raise ValueError(f"{name} needs one entry for each of the {len(self.channels)} levels, not {getattr(self, name)}.")


class Stage(nn.Module):
    """A residual block, then attention over space, then attention over time, where the level has them."""

    def __init__(self, in_channels: int, out_channels: int, space: bool, time: bool, config: UNetConfig) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels, out_channels, config.embed_dim)
        self.space = SpatialAttention(out_channels, config.head_dim) if space else None
        self.time = TemporalAttention(out_channels, config.head_dim, config.max_distance) if time else None

    def forward(self, x: torch.Tensor, embedding: torch.Tensor, num_frames: int, mask: torch.Tensor | None) -> torch.Tensor:
        """x (B*T, C, H, W), embedding (B*T, embed_dim), mask (T, T) bool or None -> (B*T, out_channels, H, W)."""
        x = self.residual(x, embedding)
        if self.space is not None:
            x = self.space(x)
        return x if self.time is None else self.time(x, num_frames, mask)


class UNet(nn.Module):
    """The network: (z, log_snr, cond) -> what the recipe predicts (eps, x or v), in the shape of z."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, patch = config.channels, config.in_channels * config.stem**2
        self.text = TextEncoder(config.text_width, config.embed_dim) if config.text_width else None
        self.log_snr = LogSNREmbedding(config.embed_dim)
        self.first = nn.Conv2d(patch, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        channels = widths[0]
        for level, width in enumerate(widths):
            stages = nn.ModuleList(self._stage(channels if i == 0 else width, level) for i in range(config.blocks[level]))
            channels = width
            last = level == len(widths) - 1
            self.down.append(nn.ModuleDict({"stages": stages, "resample": nn.Identity() if last else downsample(width, width)}))
        self.middle = nn.ModuleList([self._stage(channels, -1), self._stage(channels, -1)])
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            width = widths[level]
            stages = nn.ModuleList(self._stage(2 * width, level) for _ in range(config.blocks[level]))
            self.up.append(nn.ModuleDict({
                "stages": stages, "resample": nn.Identity() if level == 0 else Upsample(width, widths[level - 1])}))
        self.norm, self.last = group_norm(widths[0]), zero_init(nn.Conv2d(widths[0], patch, 3, padding=1))

    def _stage(self, in_channels: int, level: int) -> Stage:
        c = self.config
        return Stage(in_channels, c.channels[level], c.space[level], c.time[level], c)

    def forward(self, z: torch.Tensor, log_snr: torch.Tensor, cond: torch.Tensor | None = None, *,
                num_images: int = 0) -> torch.Tensor:
        """z (B, C, T, H, W); log_snr (B,), or (B, T) for one a frame; cond (B, embed_dim), or (B, T, embed_dim) for one a
        frame; None is the null condition. num_images=K: the last K frames are independent images. Returns the shape of z.

        Raises ValueError for a shape that does not fit.
        """
        c = self.config
        self._check(z, log_snr, cond, num_images)
        b, _, t, height, width = z.shape
        embedding = rearrange(self.log_snr(log_snr.flatten()), "(b t) d -> b t d", b=b)  # t = 1, or one a frame
        if cond is not None:
            embedding = embedding + (cond if cond.dim() == 3 else cond[:, None]).to(embedding)
        embedding = rearrange(embedding.expand(b, t, -1), "b t d -> (b t) d")
        mask = packing_mask(t - num_images, num_images, z.device) if num_images else None

        x = self.first(rearrange(z, "b c t (h p) (w q) -> (b t) (c p q) h w", p=c.stem, q=c.stem))
        skips = []
        for level in self.down:
            for stage in level["stages"]:
                x = stage(x, embedding, t, mask)
                skips.append(x)
            x = level["resample"](x)
        for stage in self.middle:
            x = stage(x, embedding, t, mask)
        for level in self.up:
            for stage in level["stages"]:
                x = stage(torch.cat([x, skips.pop()], dim=1), embedding, t, mask)
            x = level["resample"](x)
        x = self.last(nn.functional.silu(self.norm(x)))
        return rearrange(x, "(b t) (c p q) h w -> b c t (h p) (w q)", b=b, p=c.stem, q=c.stem)

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, L) caption tokens -> (B, embed_dim). The null condition is zero (*Video Diffusion Models*, section 4.3)."""
        if self.text is None:
            raise ValueError("This network was built without captions (text_width=None).")
        return self.text(tokens)

    def _check(self, z: torch.Tensor, log_snr: torch.Tensor, cond: torch.Tensor | None, num_images: int) -> None:
        c = self.config
        step = c.stem * 2 ** (len(c.channels) - 1)
        if z.dim() != 5 or z.shape[1] != c.in_channels or z.shape[3] % step or z.shape[4] % step:
            raise ValueError(f"Expected z of shape (B, {c.in_channels}, T, H, W) with H and W multiples of {step}; got {tuple(z.shape)}.")
        if log_snr.shape not in ((z.shape[0],), (z.shape[0], z.shape[2])):
            raise ValueError(f"Expected log_snr of shape ({z.shape[0]},), one a clip, or ({z.shape[0]}, {z.shape[2]}), one a frame; "
                             f"got {tuple(log_snr.shape)}.")
        if cond is not None and cond.shape not in ((z.shape[0], c.embed_dim), (z.shape[0], z.shape[2], c.embed_dim)):
            raise ValueError(f"Expected cond of shape ({z.shape[0]}, {c.embed_dim}), or with one a frame "
                             f"({z.shape[0]}, {z.shape[2]}, {c.embed_dim}); got {tuple(cond.shape)}.")
        if not 0 <= num_images < z.shape[2]:
            raise ValueError(f"num_images must be from 0 to {z.shape[2] - 1} of the {z.shape[2]} frames; got {num_images}.")


def randomize(net: nn.Module, seed: int = 0) -> nn.Module:
    """Set every parameter to noise, zero-initialised layers too, so that a probe of `net` has something to see."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * (0.5 * max(1, parameter[0].numel()) ** -0.5))
    return net
