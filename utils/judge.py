"""The two small networks that read pictures for the metrics: `DigitClassifier` for MNIST images, `Judge` for clips.

Both are trained only on real data, never on samples, then frozen; how they do on real held-out data is reported beside
everything measured with them.

    python -m utils.judge classifier     # trains it and writes assets/checkpoints/classifier.pt
    python -m utils.judge judge          # likewise; its results on held-out clips: python -m utils.evaluate real
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import nn
from tqdm import tqdm

from .captions import octant
from .data import CANVAS, DIGIT, MNIST, Batch, MovingMNIST
from .paths import SIZE, Reading, link
from .pretrained import CHECKPOINTS, WeightsError
from .runtime import amp_dtype, autocast, generator, pick_device, telling_of_errors, written_whole

STRIDE = 2  # pixels per cell of judge maps
CENTRE = (DIGIT * SIZE / CANVAS - 1) / 2  # from a digit's top-left corner to its middle, in pixels
BLUR = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
SPEEDS = (0.1, 0.0, 0.1, 0.05, 0.1, 0.15, 0.1, 0.2)  # of the judge's training clips, batch by batch, as shares of the free range per frame


class DigitClassifier(nn.Module):
    """(B, 1, 28, 28) digits in [0, 1] -> logits (B, 10); `features` gives the 64 numbers before them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GroupNorm(8, 32), nn.SiLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.GroupNorm(8, 64), nn.SiLU(),
            nn.Flatten(), nn.Linear(64 * 49, 64), nn.LayerNorm(64), nn.SiLU())
        self.head = nn.Linear(64, 10)

    def features(self, digits: torch.Tensor) -> torch.Tensor:
        """(B, 1, 28, 28) in [0, 1] -> (B, 64)."""
        return self.body(digits * 2 - 1)

    def forward(self, digits: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(digits))

    def loss(self, batch: Batch, device: torch.device, g: torch.Generator) -> torch.Tensor:
        """Cross-entropy of a batch of `data.MNIST`."""
        return F.cross_entropy(self(((batch.video + 1) / 2)[:, :, 0].to(device)).float(), batch.labels[:, 0].to(device))


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Maps (B, inputs, H, W) to (B, outputs, H / stride, W / stride), normalised and passed through SiLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, padding=size // 2), nn.GroupNorm(8, outputs), nn.SiLU())


class _TimeBlock(nn.Module):
    """Residual: a convolution over three frames, `dilation` apart, then one over space. (B, C, T, H, W) to the same."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.time = nn.Conv3d(channels, channels, (3, 1, 1), padding=(dilation, 0, 0), dilation=(dilation, 1, 1))
        self.space = nn.Conv2d(channels, channels, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t = x.shape[2]
        h = rearrange(F.silu(self.time(x)), "b c t h w -> (b t) c h w")
        h = self.norms[1](self.space(self.norms[0](h)))
        return x + rearrange(h, "(b t) c h w -> b c t h w", t=t)


class _Map(nn.Module):
    """From 16 x 16 and 8 x 8 features of frames, (B, 32, 16, 16) and (B, 64, 8, 8), to a map of logits for each digit, (B, 10, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Conv2d(64, 32, 1)
        self.out = nn.Sequential(convolution(32, 32), nn.Conv2d(32, 10, 1))

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        return self.out(fine + F.interpolate(self.up(coarse), scale_factor=2.0, mode="bilinear"))


class Judge(nn.Module):
    """(B, 1, T, 32, 32) clips in [0, 1], any T -> what they show, where, and 64 features.

    As a dict: features (B, 64); counts (B, 10, 3), logits for digit d occurring 0, 1 or 2 times; speed (B,), pixels per frame; compass (B, 8),
    how many digits set off in each octant; alone and together (B, T, 10, 16, 16), per frame and digit, logits over the cells of a 16 x 16 grid
    for its centre: `alone` from that frame only, `together` also from its neighbours in time. Normalisation never runs over frames.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(convolution(1, 32, 5, 2), convolution(32, 32))
        self.coarse = nn.Sequential(convolution(32, 64, 3, 2), convolution(64, 64), convolution(64, 64))
        self.time = nn.Sequential(*[_TimeBlock(64, dilation) for dilation in (1, 2, 4)])
        self.alone, self.together = _Map(), _Map()
        self.summary = nn.Sequential(nn.Linear(256, 128), nn.SiLU(), nn.Linear(128, 64), nn.LayerNorm(64), nn.SiLU())
        self.heads = nn.ModuleDict({"counts": nn.Linear(64, 30), "speed": nn.Linear(64, 1), "compass": nn.Linear(64, 8)})

    def forward(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        t = clips.shape[2]
        fine = self.fine(rearrange(clips, "b c t h w -> (b t) c h w") * 2 - 1)
        coarse = self.coarse(fine)
        still = rearrange(coarse, "(b t) c h w -> b c t h w", t=t)
        moving = self.time(still)
        features = self.summary(torch.cat([still.amax((3, 4)).mean(2), moving.amax((3, 4)).mean(2), moving.mean((2, 3, 4)),
                                           moving[:, :, :4].amax((3, 4)).mean(2)], dim=1))
        maps = {"alone": self.alone(fine, coarse), "together": self.together(fine, rearrange(moving, "b c t h w -> (b t) c h w"))}
        return {"features": features, "counts": rearrange(self.heads["counts"](features), "b (digit n) -> b digit n", n=3),
                "speed": self.heads["speed"](features)[:, 0], "compass": self.heads["compass"](features),
                **{name: rearrange(m, "(b t) d h w -> b t d h w", t=t) for name, m in maps.items()}}

    def loss(self, batch: Batch, device: torch.device, g: torch.Generator) -> torch.Tensor:
        """The loss of a two-digit batch of `data.MovingMNIST`. Clips are blurred, dimmed and made noisy, each to a random degree, so that the judge does not
        depend on perfectly sharp strokes or an exactly black background: generated clips have neither."""
        clips = (batch.video + 1) / 2
        degree = torch.rand(3, len(clips), 1, 1, 1, 1, generator=g)
        clips = torch.lerp(clips, F.conv3d(clips, BLUR[None, None, None], padding=(0, 1, 1)).float(), degree[0])
        clips = (clips * (1 - 0.4 * degree[1]) + 0.1 * degree[2] * torch.randn(clips.shape, generator=g)).clamp(0, 1)
        out = {name: value.float() for name, value in self(clips.to(device)).items()}
        labels, velocity = batch.labels.to(device), batch.velocity[:, :, 0].to(device)
        compass = F.one_hot(octant(velocity), 8).sum(1).float()
        cells = (batch.position.to(device) + CENTRE) / STRIDE  # (B, 2, T, 2)
        return (F.cross_entropy(rearrange(out["counts"], "b d n -> b n d"), F.one_hot(labels, 10).sum(1)) * 4
                + F.mse_loss(out["speed"], velocity.norm(dim=-1).mean(1)) + F.mse_loss(out["compass"], compass)
                + _map_loss(out["alone"], labels, cells) + _map_loss(out["together"], labels, cells))


def _map_loss(maps: torch.Tensor, labels: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of maps (B, T, 10, 16, 16): over places, for digits labels (B, 2) with centres at cells (B, 2, T, 2), and over digits at these places.

    A centre between cells is shared among the four around it, so that the mean over the map is the centre.
    """
    b, k, t, _ = cells.shape
    own = maps.gather(2, repeat(labels, "b k -> b t k h w", t=t, h=16, w=16))  # (B, T, 2, 16, 16)
    places = rearrange(own, "b t k h w -> b k t (h w)").log_softmax(-1)
    corner = cells.floor().long()
    part = cells - corner
    where = 0.0
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (part[..., 0] if dy else 1 - part[..., 0]) * (part[..., 1] if dx else 1 - part[..., 1])
            index = (corner[..., 0] + dy) * 16 + corner[..., 1] + dx
            where = where - (weight * places.gather(3, index[..., None])[..., 0]).mean()
    nearest = rearrange(cells.round().long(), "b k t yx -> b t k yx")
    batch, time = torch.arange(b, device=maps.device)[:, None, None], torch.arange(t, device=maps.device)[None, :, None]
    digits = maps[batch, time, :, nearest[..., 0], nearest[..., 1]]  # (B, T, 2, 10)
    return where + F.cross_entropy(rearrange(digits, "b t k d -> (b t k) d"), repeat(labels, "b k -> (b t k)", t=t))


NETWORKS = {"classifier": DigitClassifier, "judge": Judge}


@lru_cache
def load_network(name: str) -> DigitClassifier | Judge:
    """The frozen "classifier" or "judge", on the CPU. WeightsError says how to make it."""
    return load_frozen(NETWORKS[name](), name, f"python -m utils.judge {name}")


def load_frozen(network: nn.Module, name: str, command: str) -> nn.Module:
    """The network with the weights that `save_frozen` wrote under this name, frozen, on the CPU. WeightsError, with the command that makes them, when they are missing or damaged."""
    path = CHECKPOINTS / f"{name}.pt"
    try:
        network.load_state_dict({key: tensor.float() for key, tensor in torch.load(path, map_location="cpu", weights_only=True).items()})
    except Exception as error:  # torch.load raises many types for a damaged file
        fault = "is not in" if isinstance(error, FileNotFoundError) else "is damaged, in"
        raise WeightsError(f"{path.name} {fault} assets/checkpoints/: restore it with `git checkout -- assets`, or train it with `{command}`.") from error
    return network.eval().requires_grad_(False)


def save_frozen(network: nn.Module, name: str) -> None:
    """Write a network's weights in float16 to assets/checkpoints: whole, or not at all (OSError)."""
    with written_whole(CHECKPOINTS / f"{name}.pt") as file:
        torch.save({key: tensor.detach().half() for key, tensor in network.state_dict().items()}, file)


@torch.no_grad()
def read(clips: torch.Tensor, batch_size: int = 64) -> Reading:
    """What two-digit clips (N, 1, T, 32, 32) in [0, 1] show, T at least 2, with the judge's features; digits in ascending order. See `Reading`."""
    parts = []
    for chunk in clips.cpu().split(batch_size):
        out = load_network("judge")(chunk.float())
        digits = _two_digits(out["counts"].log_softmax(-1))
        parts.append((digits, *_tracks(out["together"], out["alone"], digits), out["features"]))
    digits, tracks, frame_digits, features = (torch.cat(part) for part in zip(*parts))
    return Reading(digits, tracks, frame_digits, features=features)


def _two_digits(log_counts: torch.Tensor) -> torch.Tensor:
    """The likeliest of the 55 pairs of digits, (N, 2) ascending, from log-probabilities of their counts (N, 10, 3)."""
    first, second = torch.triu_indices(10, 10)
    times = F.one_hot(first, 10) + F.one_hot(second, 10)  # (55, 10)
    score = sum(torch.where(times == n, log_counts[:, None, :, n], torch.zeros(())) for n in range(3)).sum(-1)  # (N, 55)
    best = score.argmax(1)
    return torch.stack([first[best], second[best]], dim=1)


def _tracks(together: torch.Tensor, alone: torch.Tensor, digits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From maps (N, T, 10, 16, 16): tracks (N, 2, T, 2), in pixels, of digits (N, 2), and what each looks like in each frame (N, 2, T)."""
    n, t = together.shape[:2]
    own = together.gather(2, repeat(digits, "n k -> n t k h w", t=t, h=16, w=16)).flatten(3)  # (N, T, 2, 256)
    grid = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"), dim=-1).flatten(0, 1)  # (256, 2)

    def middle(logits: torch.Tensor) -> torch.Tensor:  # the sub-cell peak: the mean over the 5 x 5 cells around the maximum
        peak = grid[logits.argmax(-1)]
        near = (grid - peak[..., None, :]).abs().amax(-1) <= 2
        return logits.masked_fill(~near, -torch.inf).softmax(-1) @ grid

    cells = middle(own)  # (N, T, 2, 2)
    twice = digits[:, 0] == digits[:, 1]
    if twice.any():  # two equal digits share a map: the second is the next peak, and they have to be told apart
        first = cells[twice, :, 0]
        taken = (grid - first[:, :, None]).norm(dim=-1) < 1.5
        both = torch.stack([first, middle(own[twice, :, 0].masked_fill(taken, -20.0))], dim=2)
        swap = link(both * STRIDE, torch.ones(*both.shape[:3], 1))
        cells[twice] = both.gather(2, torch.stack([swap, 1 - swap], dim=2)[..., None].expand(-1, -1, -1, 2))
    place = (cells.round() @ torch.tensor([16.0, 1.0])).long().clamp(0, 255)  # (N, T, 2)
    looks = alone.flatten(3).gather(3, repeat(place, "n t k -> n t d k", d=10)).argmax(2)  # (N, T, 2)
    return rearrange(cells * STRIDE - CENTRE, "n t k yx -> n k t yx"), rearrange(looks, "n t k -> n k t")


def train(network: nn.Module, sources: Sequence[MNIST | MovingMNIST], batch_size: int, steps: int, device: str | None = None) -> None:
    """Train a network that has a `loss` of a batch, a device and a generator, on `sources` in turn: AdamW, one-cycle learning rate."""
    where = pick_device(device)
    dtype = amp_dtype(where)
    network.to(where).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    scaler = torch.amp.GradScaler(where.type, enabled=dtype == torch.float16)
    bar = tqdm(range(steps), desc=type(network).__name__, mininterval=5)
    for step in bar:
        batch = sources[step % len(sources)].sample(batch_size, index=step)
        with autocast(where, dtype):
            loss = network.loss(batch, where, generator(1, step))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
    network.to("cpu").eval()


@telling_of_errors()
def main() -> None:
    """Train one of the two networks and save it."""
    parser = argparse.ArgumentParser(prog="python -m utils.judge", description="Train the networks that the metrics are made with.")
    parser.add_argument("network", choices=tuple(NETWORKS))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--device")
    a = parser.parse_args()
    torch.manual_seed(0)
    network = NETWORKS[a.network]()
    sources, batch_size = (([MNIST("train", seed=1)], 128) if a.network == "classifier"
                           else ([MovingMNIST("train", seed=1, captions=None, speed=speed) for speed in SPEEDS], 32))
    train(network, sources, batch_size, a.steps, a.device)
    save_frozen(network, a.network)


if __name__ == "__main__":
    main()
