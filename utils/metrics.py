"""Reading clips: a small network that says which digits a clip shows and where they start to move.

The reader is trained on real clips alone, never on samples, and frozen; its own accuracy on real held-out clips is printed
beside everything it measures.

    python -m utils.metrics            # trains the reader and writes assets/checkpoints/reader.pt
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from tqdm import tqdm

from .captions import Caption, octant, parse
from .data import MovingMNIST
from .runtime import ASSETS, amp_dtype, autocast, generator, pick_device

READER_FILE = ASSETS / "checkpoints" / "reader.pt"
FRAMES = 16


class Reader(nn.Module):
    """(B, 1, 16, 32, 32) clips in [0, 1] -> for every digit how often it is there, and for every digit which way it starts.

    `counts` (B, 10, 3): logits of digit d being there 0, 1 or 2 times. `moves` (B, 10, 8): logits of a digit d starting in octant k.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        w = width
        self.frames = nn.Sequential(  # frame by frame: what is there
            nn.Conv2d(1, w, 3, padding=1), nn.GroupNorm(8, w), nn.SiLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1), nn.GroupNorm(8, 2 * w), nn.SiLU(),
            nn.Conv2d(2 * w, 2 * w, 3, padding=1), nn.GroupNorm(8, 2 * w), nn.SiLU(),
            nn.Conv2d(2 * w, 4 * w, 3, stride=2, padding=1), nn.GroupNorm(8, 4 * w), nn.SiLU(),
            nn.Conv2d(4 * w, 4 * w, 3, padding=1), nn.GroupNorm(8, 4 * w), nn.SiLU())
        self.motion = nn.Sequential(  # neighbouring frames: where it goes
            nn.Conv3d(4 * w, 4 * w, 3, padding=1), nn.GroupNorm(8, 4 * w), nn.SiLU(),
            nn.Conv3d(4 * w, 4 * w, 3, padding=1), nn.GroupNorm(8, 4 * w), nn.SiLU())
        self.counts = nn.Linear(8 * w, 30)
        self.moves = nn.Linear(8 * w, 80)

    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """clips (B, 1, T, 32, 32) in [0, 1] -> counts (B, 10, 3), moves (B, 10, 8)."""
        t = clips.shape[2]
        h = self.frames(rearrange(clips, "b c t h w -> (b t) c h w") * 2 - 1)
        h = rearrange(h, "(b t) c h w -> b c t h w", t=t)
        what = torch.cat([h.amax((3, 4)).mean(2), h.mean((2, 3, 4))], dim=1)
        first = self.motion(h[:, :, :8])  # direction is velocity[0]: the first frames tell
        where = torch.cat([first.amax((2, 3, 4)), first[:, :, 0].amax((2, 3))], dim=1)
        return (rearrange(self.counts(what), "b (digit n) -> b digit n", n=3),
                rearrange(self.moves(where), "b (digit k) -> b digit k", k=8))


def reader_loss(counts: torch.Tensor, moves: torch.Tensor, labels: torch.Tensor, octants: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the counts plus binary cross-entropy of (digit, octant) pairs; labels, octants (B, 2) int64."""
    present = F.one_hot(labels, 10).sum(1)  # (B, 10), 0..2
    pairs = torch.zeros_like(moves).index_put((torch.arange(len(labels), device=labels.device)[:, None], labels, octants),
                                              torch.ones((), device=moves.device))
    return F.cross_entropy(rearrange(counts, "b d n -> b n d"), present) + F.binary_cross_entropy_with_logits(moves, pairs) * 4


def train_reader(steps: int, batch_size: int = 32, device: str | None = None, seed: int = 0) -> Reader:
    """Train a reader on real clips of the training digits."""
    where = pick_device(device)
    dtype = amp_dtype(where)
    torch.manual_seed(seed)
    reader = Reader().to(where)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    scaler = torch.amp.GradScaler(where.type, enabled=dtype == torch.float16)
    data = MovingMNIST("train", seed=seed + 1, device=where)
    bar = tqdm(range(steps), desc="reader", mininterval=5)
    for step in bar:
        batch = data.sample(batch_size, index=step)
        with autocast(where, dtype):
            counts, moves = reader((batch.video + 1) / 2)
        loss = reader_loss(counts.float(), moves.float(), batch.labels.to(where), octant(batch.velocity[:, :, 0]).to(where))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
    return reader.eval()


@lru_cache(maxsize=1)
def load_reader(path: Path = READER_FILE) -> Reader:
    """The frozen reader, on the CPU. FileNotFoundError says how to make it."""
    if not path.exists():
        raise FileNotFoundError(f"{path.name} is not in assets/checkpoints/: restore it with git, or train it with `python -m utils.metrics`.")
    reader = Reader()
    reader.load_state_dict({k: v.float() for k, v in torch.load(path, map_location="cpu", weights_only=True).items()})
    return reader.eval().requires_grad_(False)


@torch.no_grad()
def read(clips: torch.Tensor, batch_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """What two-digit clips show: digits (N, 2) int64 in ascending order, and moves (N, 10, 8), the probability that a digit starts in an octant.

    clips (N, 1, T, 32, 32) in [0, 1]; ValueError for another shape or range.
    """
    check_clips(clips)
    reader = load_reader()
    outputs = [reader(chunk.cpu().float()) for chunk in clips.split(batch_size)]
    log_counts = torch.cat([counts for counts, _ in outputs]).log_softmax(-1)  # (N, 10, 3)
    first, second = torch.triu_indices(10, 10)  # the 55 multisets of two digits
    times = F.one_hot(first, 10) + F.one_hot(second, 10)  # (55, 10)
    score = sum(torch.where(times == n, log_counts[:, None, :, n], torch.zeros(())) for n in range(3)).sum(-1)  # (N, 55)
    best = score.argmax(1)
    return torch.stack([first[best], second[best]], dim=1), torch.cat([moves for _, moves in outputs]).sigmoid()


def check_clips(clips: torch.Tensor) -> None:
    """ValueError unless clips are (N, 1, T, 32, 32) in [0, 1]."""
    if clips.dim() != 5 or clips.shape[1] != 1 or clips.shape[-2:] != (32, 32):
        raise ValueError(f"Expected clips of shape (N, 1, T, 32, 32); got {tuple(clips.shape)}.")
    if clips.min() < -1e-4 or clips.max() > 1 + 1e-4:
        raise ValueError(f"Clips are in [0, 1]; got values from {clips.min():.3g} to {clips.max():.3g}. "
                         "A dataset's video is in [-1, 1]: pass (video + 1) / 2.")


def obeyed(clips: torch.Tensor, captions: Sequence[str]) -> dict[str, float | int]:
    """How well clips (N, 1, 16, 32, 32) in [0, 1] do what their captions say, for captions of two digits.

    digits: share of clips whose two digits read as the caption's. directions: share of a caption's (digit, direction) pairs for
    which the reader's most likely octant of that digit is within 45 degrees (only captions with motion count).
    Each comes with n and a 95% interval (Wilson).
    """
    if len(clips) != len(captions):
        raise ValueError(f"{len(clips)} clips but {len(captions)} captions.")
    asked = [parse(text) for text in captions]
    digits, moves = read(clips)
    right = [sorted(a.digits) == d.tolist() for a, d in zip(asked, digits)]
    pairs = [pair for a, m in zip(asked, moves) if a.directions for pair in _pairs_right(a, m)]
    return {**_share("digits", right), **_share("directions", pairs)}


def _pairs_right(asked: Caption, moves: torch.Tensor) -> list[bool]:
    if len(set(asked.digits)) == 1:  # "3 moving left and 3 moving up": both octants must be likely, in any order
        likely = moves[asked.digits[0]].topk(2).indices.tolist()
        return max(([_near(a, b) for a, b in zip(asked.directions, order)] for order in (likely, likely[::-1])), key=sum)
    return [_near(k, int(moves[d].argmax())) for d, k in zip(asked.digits, asked.directions)]


def _near(a: int, b: int) -> bool:
    return (a - b) % 8 in (0, 1, 7)


def _share(name: str, right: list[bool]) -> dict[str, float | int]:
    n, k = len(right), sum(right)
    if n == 0:
        return {f"{name}_n": 0}
    z = 1.96
    centre, half = (k + z * z / 2) / (n + z * z), z * math.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    return {name: k / n, f"{name}_low": centre - half, f"{name}_high": centre + half, f"{name}_n": n}


def main() -> None:
    """Train the reader, print its accuracy on held-out real clips and on noise, and write it."""
    parser = argparse.ArgumentParser(description="Train the network that reads digits and directions off clips.")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--device")
    arguments = parser.parse_args()
    reader = train_reader(arguments.steps, device=arguments.device)
    READER_FILE.parent.mkdir(parents=True, exist_ok=True)
    torch.save({k: v.detach().half().cpu() for k, v in reader.state_dict().items()}, READER_FILE)
    load_reader.cache_clear()
    batch = MovingMNIST("validation", seed=9, captions="motion").sample(512)
    print("real clips:", obeyed((batch.video + 1) / 2, batch.captions))
    noise = torch.rand(batch.video.shape, generator=generator(1))
    print("noise:", obeyed(noise, batch.captions))


if __name__ == "__main__":
    main()
