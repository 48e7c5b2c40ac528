"""The pieces of the U-Nets: embeddings, convolutions, residual block, attention over space and over time, resampling.

Features travel as (B*T, C, H, W): a 1x3x3 convolution over a clip *is* a 3x3 convolution over its frames, and the 2D kernel
is the fast one. Normalisation is per frame, so frames meet only in `TemporalAttention` and `TemporalConvolution`.
Residual blocks and attention end in a zero-initialised layer: at the start they add nothing to their input, or to its 1x1 projection.

Layers over time take num_frames, the frames per clip in the batch, and num_images, how many of them, the last, are independent images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn


def zero_init(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """The same layer with weight and bias set to zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation, eight groups where they divide the channels."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


class ScalarEmbedding(nn.Module):
    """(B,) numbers from low to high (clamped) -> (B, dim): sinusoids of the number rescaled to 0 to 1000, then an MLP."""

    def __init__(self, dim: int, low: float, high: float) -> None:
        super().__init__()
        self.dim, self.low, self.high = dim, low, high
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, number: torch.Tensor) -> torch.Tensor:
        position = (number.float().clamp(self.low, self.high) - self.low) * (1000 / (self.high - self.low))
        half = self.dim // 2
        frequency = torch.exp(-math.log(10_000) * torch.arange(half, device=number.device) / half)
        angle = position[:, None] * frequency
        return self.mlp(torch.cat([angle.sin(), angle.cos()], dim=1).to(self.mlp[0].weight.dtype))


class TemporalConvolution(nn.Conv1d):
    """A convolution over three frames at each place, which starts as the identity: the second half of a pseudo-3D convolution
    (*Make-A-Video*, section 3.2). Clips are zero-padded at both ends."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)
        nn.init.dirac_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor, num_frames: int) -> torch.Tensor:
        """(B*T, C, H, W) with T = num_frames -> same shape."""
        frames = rearrange(x, "(b t) c h w -> b c t (h w)", t=num_frames)
        # as a 2D convolution with a kernel of 3x1: the fastest of four ways on a CPU
        return rearrange(F.conv2d(frames, self.weight[..., None], self.bias, padding=(1, 0)), "b c t (h w) -> (b t) c h w", h=x.shape[2])


def over_clips(layer: Callable[[torch.Tensor, int], torch.Tensor], x: torch.Tensor, num_frames: int, num_images: int = 0) -> torch.Tensor:
    """Apply a layer over time to the frames of clips; images bypass it. A clip of one frame is an image.

    x (B*T, C, H, W) with T = num_frames, of which the last num_images are images -> same shape.
    """
    clip = num_frames - num_images
    if clip == 1:
        return x
    if not num_images:
        return layer(x, num_frames)
    frames = rearrange(x, "(b t) c h w -> b t c h w", t=num_frames)
    moved = rearrange(layer(rearrange(frames[:, :clip], "b t c h w -> (b t) c h w"), clip), "(b t) c h w -> b t c h w", t=clip)
    return rearrange(torch.cat([moved, frames[:, clip:]], dim=1), "b t c h w -> (b t) c h w")


class Convolution(nn.Conv2d):
    """A 3x3 convolution of frames; if pseudo_3d, a `TemporalConvolution` follows. Otherwise, or for images, just `nn.Conv2d`."""

    def __init__(self, in_channels: int, out_channels: int, pseudo_3d: bool = False, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1)
        self.time = TemporalConvolution(out_channels) if pseudo_3d else None

    def forward(self, x: torch.Tensor, num_frames: int = 1, num_images: int = 0) -> torch.Tensor:
        """(B*T, in_channels, H, W) -> (B*T, out_channels, H / stride, W / stride)."""
        x = super().forward(x)
        return x if self.time is None else over_clips(self.time, x, num_frames, num_images)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions per frame, the embedding *added* between them (*Video Diffusion Models*, section 3)."""

    def __init__(self, in_channels: int, out_channels: int, embed_dim: int, pseudo_3d: bool = False) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(in_channels), Convolution(in_channels, out_channels, pseudo_3d)
        self.embed = nn.Linear(embed_dim, out_channels)
        self.norm2, self.conv2 = group_norm(out_channels), zero_init(Convolution(out_channels, out_channels, pseudo_3d))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor, num_frames: int = 1, num_images: int = 0) -> torch.Tensor:
        """x (B*T, C, H, W), embedding (B*T, embed_dim) -> (B*T, out_channels, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)), num_frames, num_images)
        h = h + self.embed(F.silu(embedding))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)), num_frames, num_images)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v for (..., n, d) tensors: fused, except for few tokens in bfloat16 on a CPU, where three plain
    products are several times faster forward and backward (`tests/benchmark_attention.py`)."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[-2] <= 128:
        return ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(dim=-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v)


class SpatialAttention(nn.Module):
    """Self-attention among a frame's positions; frames are the batch."""

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        self.heads = _num_heads(channels, head_dim)
        self.norm, self.qkv = group_norm(channels), nn.Linear(channels, 3 * channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B*T, C, H, W) -> same shape."""
        tokens = rearrange(self.norm(x), "bt c h w -> bt (h w) c")
        q, k, v = rearrange(self.qkv(tokens), "bt n (three heads d) -> three bt heads n d", three=3, heads=self.heads)
        tokens = rearrange(attend(q, k, v), "bt heads n d -> bt n (heads d)")
        return x + rearrange(self.out(tokens), "bt (h w) c -> bt c h w", h=x.shape[2])


class TemporalAttention(nn.Module):
    """Self-attention among frames at one position; space is the batch (*Video Diffusion Models*, section 3).

    Relative positions after Shaw et al. 2018: logit_ij = q_i . (k_j + a^K_{j-i}) / sqrt(d), values v_j + a^V_{j-i}, with j - i
    clipped to +-max_distance. Larger distances all look the same: clips longer than max_distance + 1 work, but without
    telling those apart. The value term rules out fused attention; at T <= 96 matmul is fine.
    """

    def __init__(self, channels: int, head_dim: int, max_distance: int) -> None:
        super().__init__()
        self.heads, self.max_distance = _num_heads(channels, head_dim), max_distance
        d = channels // self.heads
        self.norm, self.qkv = group_norm(channels), nn.Linear(channels, 3 * channels)
        self.relative_key = nn.Parameter(torch.randn(2 * max_distance + 1, d) * 0.02)
        self.relative_value = nn.Parameter(torch.randn(2 * max_distance + 1, d) * 0.02)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: torch.Tensor, num_frames: int, mask: torch.Tensor | None = None) -> torch.Tensor:
        """x (B*T, C, H, W) with T = num_frames; mask (T, T) bool, True where frame i may look at frame j."""
        height = x.shape[2]
        tokens = rearrange(self.norm(x), "(b t) c h w -> (b h w) t c", t=num_frames)
        q, k, v = rearrange(self.qkv(tokens), "n t (three heads d) -> three n heads t d", three=3, heads=self.heads)
        weights = self.weights(q, k, mask)  # (n, heads, T, T)
        distance = self._distance(num_frames, x.device)
        out = weights @ v + torch.einsum("n h i j, i j d -> n h i d", weights, F.embedding(distance, self.relative_value).to(weights.dtype))
        tokens = self.out(rearrange(out, "n heads t d -> n t (heads d)"))
        return x + rearrange(tokens, "(b h w) t c -> (b t) c h w", b=x.shape[0] // num_frames, h=height)

    def weights(self, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Attention weights (n, heads, T, T) of q, k (n, heads, T, d): row i says how much frame i takes from frame j."""
        distance = self._distance(q.shape[2], q.device)
        logits = q @ k.mT + torch.einsum("n h i d, i j d -> n h i j", q, F.embedding(distance, self.relative_key).to(q.dtype))
        logits = logits * q.shape[-1] ** -0.5
        if mask is not None:
            logits = logits.masked_fill(~mask, -math.inf)
        return logits.softmax(dim=-1).to(q.dtype)

    def _distance(self, num_frames: int, device: torch.device) -> torch.Tensor:
        frame = torch.arange(num_frames, device=device)
        return (frame[None, :] - frame[:, None]).clamp(-self.max_distance, self.max_distance) + self.max_distance  # (T, T), j - i


def packing_mask(num_frames: int, num_images: int, device: torch.device | None = None) -> torch.Tensor:
    """(T, T) bool mask for a clip packed with independent images, T = num_frames + num_images. Block-diagonal: the clip's
    frames see each other, each image sees only itself (*Video Diffusion Models*, sections 3 and 4.3.1)."""
    mask = torch.eye(num_frames + num_images, dtype=torch.bool, device=device)
    mask[:num_frames, :num_frames] = True
    return mask


class Upsample(nn.Module):
    """Double height and width: nearest neighbour, then a 3x3 convolution; frame count unchanged."""

    def __init__(self, channels: int, out_channels: int, pseudo_3d: bool = False) -> None:
        super().__init__()
        self.conv = Convolution(channels, out_channels, pseudo_3d)

    def forward(self, x: torch.Tensor, num_frames: int = 1, num_images: int = 0) -> torch.Tensor:
        """(B*T, channels, H, W) -> (B*T, out_channels, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"), num_frames, num_images)


def _num_heads(channels: int, head_dim: int) -> int:
    if channels % head_dim or head_dim % 8:
        raise ValueError(f"head_dim must divide the {channels} channels and be a multiple of 8 (else a T4 falls back to a "
                         f"slow attention kernel); got {head_dim}.")
    return channels // head_dim
