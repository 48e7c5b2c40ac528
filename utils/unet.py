"""One U-Net for images and for clips: the factorized space-time U-Net of *Video Diffusion Models*, which without its
temporal attention is the 2D U-Net of DDPM; with pseudo-3D convolutions it is that of *Make-A-Video*.

Axes are B C T H W outside and (B T) C H W inside; an image is a clip of one frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torch.utils.checkpoint import checkpoint

from .captions import TextEncoder
from .layers import (Convolution, ResidualBlock, ScalarEmbedding, SpatialAttention, TemporalAttention, TemporalConvolution, Upsample, group_norm,
                     over_clips, packing_mask, zero_init)

CONDITIONING = (None, "frames", "low_res")


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a network. Tuples have one entry a level, from the finest to the coarsest.

    channels: width. blocks: residual blocks on the way down (and again on the way up). space, time: has attention
    over space, over time. stem: side of the space-to-depth patch that the network sees as one pixel (1 = none).
    text_width: width of the text encoder, None for a network without captions.
    max_distance: largest frame offset temporal attention resolves, T - 1 for training clips of T frames.
    pseudo_3d: every 3x3 convolution is followed by one over three frames, and images bypass all layers over time (*Make-A-Video*, section 3.2).
    frame_rate: takes frames a second. conditioning: what else it sees, through weights that start at zero: given "frames" of the clip, with a mask
    (*Make-A-Video*, section 3.3), or "low_res", a clip of half the size, with "augmentation", the noise put on it.
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
    pseudo_3d: bool = False
    frame_rate: bool = False
    conditioning: str | None = None

    def __post_init__(self) -> None:
        if self.conditioning not in CONDITIONING:
            raise ValueError(f"conditioning must be one of {', '.join(map(str, CONDITIONING))}, not {self.conditioning!r}.")
        for name in ("blocks", "space", "time"):
            if len(getattr(self, name)) != len(self.channels):
                raise ValueError(f"{name} needs one entry for each of the {len(self.channels)} levels, not {getattr(self, name)}.")


class Stage(nn.Module):
    """A residual block, then attention over space, then attention over time, where the level has them."""

    def __init__(self, in_channels: int, out_channels: int, space: bool, time: bool, config: UNetConfig) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels, out_channels, config.embed_dim, config.pseudo_3d)
        self.space = SpatialAttention(out_channels, config.head_dim) if space else None
        self.time = TemporalAttention(out_channels, config.head_dim, config.max_distance) if time else None
        self.pseudo_3d = config.pseudo_3d

    def forward(self, x: torch.Tensor, embedding: torch.Tensor, num_frames: int, mask: torch.Tensor | None, num_images: int = 0) -> torch.Tensor:
        """x (B*T, C, H, W), embedding (B*T, embed_dim), mask (T, T) bool or None -> (B*T, out_channels, H, W)."""
        x = self.residual(x, embedding, num_frames, num_images)
        if self.space is not None:
            x = self.space(x)
        if self.time is None:
            return x
        return over_clips(self.time, x, num_frames, num_images) if self.pseudo_3d else self.time(x, num_frames, mask)


class UNet(nn.Module):
    """The network: (z, log_snr, cond) -> what the recipe predicts (eps, x, v or flow), in the shape of z."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False  # in training: keep no activations inside stages, but recompute them for the backward pass (arXiv 1604.06174)
        widths, patch = config.channels, config.in_channels * config.stem**2
        self.text = TextEncoder(config.text_width, config.embed_dim) if config.text_width else None
        self.log_snr = ScalarEmbedding(config.embed_dim, -20, 20)
        self.frame_rate = ScalarEmbedding(config.embed_dim, 0, 6) if config.frame_rate else None  # of log2 fps
        self.augmentation = ScalarEmbedding(config.embed_dim, 0, 1) if config.conditioning == "low_res" else None
        for embedding in filter(None, (self.frame_rate, self.augmentation)):
            zero_init(embedding.mlp[-1])
        self.first = Convolution(patch, widths[0], config.pseudo_3d)
        extra = {None: 0, "frames": patch + config.stem**2, "low_res": patch}[config.conditioning]
        self.conditioning = zero_init(Convolution(extra, widths[0], config.pseudo_3d)) if extra else None  # like extra input channels with weights of zero
        self.down = nn.ModuleList()
        channels = widths[0]
        for level, width in enumerate(widths):
            stages = nn.ModuleList(self._stage(channels if i == 0 else width, level) for i in range(config.blocks[level]))
            channels = width
            last = level == len(widths) - 1
            self.down.append(nn.ModuleDict({"stages": stages, "resample": None if last else Convolution(width, width, config.pseudo_3d, stride=2)}))
        self.middle = nn.ModuleList([self._stage(channels, -1), self._stage(channels, -1)])
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            width = widths[level]
            stages = nn.ModuleList(self._stage(2 * width, level) for _ in range(config.blocks[level]))
            self.up.append(nn.ModuleDict({
                "stages": stages, "resample": None if level == 0 else Upsample(width, widths[level - 1], config.pseudo_3d)}))
        self.norm, self.last = group_norm(widths[0]), zero_init(Convolution(widths[0], patch, config.pseudo_3d))

    def _stage(self, in_channels: int, level: int) -> Stage:
        c = self.config
        return Stage(in_channels, c.channels[level], c.space[level], c.time[level], c)

    def forward(self, z: torch.Tensor, log_snr: torch.Tensor, cond: torch.Tensor | None = None, *, fps: torch.Tensor | None = None,
                mask: torch.Tensor | None = None, given: torch.Tensor | None = None, low_res: torch.Tensor | None = None,
                augmentation: torch.Tensor | None = None, num_images: int = 0, features: dict[tuple[str, int], torch.Tensor] | None = None) -> torch.Tensor:
        """z (B, C, T, H, W); log_snr (B,), or (B, T) for one a frame; cond (B, embed_dim), or (B, T, embed_dim) for one a
        frame; None is the null condition. num_images=K: the last K frames are independent images. Returns the shape of z.

        If the network takes them: fps (B,), frames a second, None if unknown; mask (B, 1, T, H, W), 1 = given, with given (B, C, T, H, W) in [-1, 1], used
        where mask is 1, neither if nothing is given; low_res (B, C, T, H/2, W/2) in [-1, 1] with augmentation (B,) from 0 to 1, the standard deviation of the noise
        in it (None: 0; see `diffusion.augment`). features: a dictionary that takes what each level makes, (B*T, C, h, w), as ("down", level) and ("up", level). Raises ValueError for a shape that does not fit, and for what the network does not take.
        """
        c = self.config
        self._check(z, log_snr, cond, num_images, fps, mask, given, low_res, augmentation)
        b, _, t, height, width = z.shape
        embedding = rearrange(self.log_snr(log_snr.flatten()), "(b t) d -> b t d", b=b)  # t = 1, or one a frame
        if cond is not None:
            embedding = embedding + (cond if cond.dim() == 3 else cond[:, None]).to(embedding)
        if fps is not None:
            embedding = embedding + self.frame_rate(fps.log2())[:, None]
        if self.augmentation is not None:
            embedding = embedding + self.augmentation(z.new_zeros(b) if augmentation is None else augmentation)[:, None]
        embedding = rearrange(embedding.expand(b, t, -1), "b t d -> (b t) d")
        attended = packing_mask(t - num_images, num_images, z.device) if num_images else None

        x = self.first(self._patches(z), t, num_images)
        if c.conditioning == "frames":
            known = z.new_zeros(b, z.shape[1] + 1, t, height, width) if mask is None else torch.cat([given * mask, mask.to(given)], dim=1)
            x = x + self.conditioning(self._patches(known), t, num_images)
        elif c.conditioning == "low_res":
            x = x + self.conditioning(self._patches(F.interpolate(low_res, scale_factor=(1, 2, 2), mode="trilinear")), t, num_images)  # bilinear in each frame
        skips = []
        features = {} if features is None else features
        for number, level in enumerate(self.down):
            for stage in level["stages"]:
                x = self._through(stage, x, embedding, t, attended, num_images)
                skips.append(x)
            features["down", number] = x
            x = x if level["resample"] is None else level["resample"](x, t, num_images)
        for stage in self.middle:
            x = self._through(stage, x, embedding, t, attended, num_images)
        for number, level in zip(reversed(range(len(c.channels))), self.up):
            for stage in level["stages"]:
                x = self._through(stage, torch.cat([x, skips.pop()], dim=1), embedding, t, attended, num_images)
            features["up", number] = x
            x = x if level["resample"] is None else level["resample"](x, t, num_images)
        x = self.last(F.silu(self.norm(x)), t, num_images)
        return rearrange(x, "(b t) (c p q) h w -> b c t (h p) (w q)", b=b, p=c.stem, q=c.stem)

    def _through(self, stage: Stage, *inputs) -> torch.Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(stage, *inputs, use_reentrant=False)
        return stage(*inputs)

    def _patches(self, video: torch.Tensor) -> torch.Tensor:
        return rearrange(video, "b c t (h p) (w q) -> (b t) (c p q) h w", p=self.config.stem, q=self.config.stem)

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, L) caption tokens -> (B, embed_dim). The null condition is zero (*Video Diffusion Models*, section 4.3)."""
        if self.text is None:
            raise ValueError("This network was built without captions (text_width=None).")
        return self.text(tokens)

    def _check(self, z: torch.Tensor, log_snr: torch.Tensor, cond: torch.Tensor | None, num_images: int, fps: torch.Tensor | None, mask: torch.Tensor | None,
               given: torch.Tensor | None, low_res: torch.Tensor | None, augmentation: torch.Tensor | None) -> None:
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
        b, channels, t, height, width = z.shape
        expected = {"fps": (fps, c.frame_rate, (b,)), "mask": (mask, c.conditioning == "frames", (b, 1, t, height, width)), "given": (given, c.conditioning == "frames", z.shape),
                    "low_res": (low_res, c.conditioning == "low_res", (b, channels, t, height // 2, width // 2)), "augmentation": (augmentation, c.conditioning == "low_res", (b,))}
        for name, (tensor, taken, shape) in expected.items():
            if tensor is not None and not taken:
                raise ValueError(f"This network takes no {name}: leave it out.")
            if tensor is not None and tensor.shape != shape:
                raise ValueError(f"Expected {name} of shape {tuple(shape)}; got {tuple(tensor.shape)}.")
        if (mask is None) != (given is None) or c.conditioning == "low_res" and low_res is None:
            raise ValueError("Pass mask and given together." if c.conditioning == "frames" else "This network sharpens clips: pass low_res.")


def new_over_time(net: UNet) -> set[str]:
    """Names of the parameters that an image network lacks: layers over time, frame rate, and what is given of a clip. They start as the identity."""
    modules = {name for name, module in net.named_modules() if isinstance(module, (TemporalConvolution, TemporalAttention)) or name in ("frame_rate", "conditioning")}
    return {name for name, _ in net.named_parameters() if any(name.startswith(f"{module}.") for module in modules)}


def inflate(net: UNet, initial: UNet) -> UNet:
    """Copy to `net`, say a video network, every weight of `initial`, say an image network, that `net` has, so at first it treats each frame as `initial` does.

    What `net` has beyond it must be layers or inputs that start as the identity, as those over time (*Make-A-Video*, section 3.2) and all attention do, or, at levels where `initial`
    has no attention, a multiple of the channels (see `_widened`) and of nothing else. Raises ValueError for networks that do not fit.
    """
    own, given, g = net.state_dict(), initial.state_dict(), torch.Generator().manual_seed(0)
    groups, were = ({name: module.num_groups for name, module in unet.named_modules() if isinstance(module, nn.GroupNorm)} for unet in (net, initial))
    new = new_over_time(net) | {name for name in own if ".space." in name}
    wider_alone = all(getattr(net.config, key) == getattr(initial.config, key) for key in ("in_channels", "stem", "embed_dim", "head_dim", "max_distance"))

    def grows(name: str) -> bool:
        return wider_alone and not name.startswith("text.") and ".qkv." not in name and _multiple(own[name].shape, given[name].shape)

    unfit = [name for name, tensor in own.items() if name not in given and name not in new or groups.get(module := name.rpartition(".")[0]) != were.get(module, groups.get(module))
             or name in given and given[name].shape != tensor.shape and not grows(name)]
    unfit += [name for name in given if ".skip." in name and name not in own]  # a residual branch that would bypass it
    if unfit:
        raise ValueError(f"{len(unfit)} of {len(own)} parameters are missing or have another shape, first {unfit[0]}.")
    net.load_state_dict({name: _widened(given[name], tensor.shape, g) if name in given else tensor for name, tensor in own.items()})
    return net


def _multiple(wide: torch.Size, narrow: torch.Size) -> bool:
    return len(wide) == len(narrow) and wide[2:] == narrow[2:] and all(more % few == 0 for more, few in zip(wide, narrow))


def _widened(weight: torch.Tensor, shape: torch.Size, g: torch.Generator) -> torch.Tensor:
    """The weight (out, in, ...), or the bias (out,), of a layer with several times the channels: each becomes several equal ones, side by side and hence in the same group of a
    normalization, and the weights that read it are split among its copies at random, or they would stay equal; the network does what it did (Net2Net, arXiv 1511.05641)."""
    out, copies = shape[0] // weight.shape[0], shape[1] // weight.shape[1] if weight.dim() > 1 else 1
    weight = weight.repeat_interleave(out, dim=0)
    if copies == 1:
        return weight
    shares = torch.randn(*weight.shape[:2], copies, *weight.shape[2:], generator=g).to(weight) * weight.std() / (2 * copies**0.5)
    return (weight[:, :, None] / copies + shares - shares.mean(dim=2, keepdim=True)).flatten(1, 2)


def freeze(net: UNet, trained: set[str]) -> UNet:
    """Let the parameters named in `trained`, and no others, require gradients."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in trained)
    return net


def randomize(net: nn.Module, seed: int = 0) -> nn.Module:
    """Set every parameter to noise, zero-initialised layers too, so that a probe of `net` has something to see."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * (0.5 * max(1, parameter[0].numel()) ** -0.5))
    return net
