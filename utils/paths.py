"""What a reader finds in a clip of digits, and the best bouncing path through a track.

Two readers fill in the same `Reading`: `judge`'s network, and `tracker`, which has none. `metrics` computes its numbers from readings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from einops import rearrange

from .data import CANVAS, DIGIT

SIZE = 32  # pixels of the frames that both readers read
FREE = (CANVAS - DIGIT) / CANVAS  # share of a frame's width that a digit's corner can travel
STILL = 0.1  # pixels a frame: slower is no motion


@dataclass(frozen=True)
class Reading:
    """What N clips of K digits and T frames show.

    digits (N, K) int64; tracks (N, K, T, 2) float32: top-left corner (row, column) of each digit in pixels of a frame of 32; frame_digits
    (N, K, T) int64: what the digit at that place looks like in that frame alone; pictures (N, K, 28, 28) in [0, 1]: each
    digit as seen along its track, from the tracker only; features (N, 64), from the judge only.
    """

    digits: torch.Tensor
    tracks: torch.Tensor
    frame_digits: torch.Tensor
    pictures: torch.Tensor | None = None
    features: torch.Tensor | None = None

    def __getitem__(self, rows: slice) -> Reading:
        """The reading of some of the clips."""
        return Reading(self.digits[rows], self.tracks[rows], self.frame_digits[rows],
                       *(None if field is None else field[rows] for field in (self.pictures, self.features)))

    @cached_property
    def path(self) -> Path:
        """The best bouncing path through each track."""
        return bouncing_path(self.tracks)

    @cached_property
    def angles(self) -> torch.Tensor:
        """(N, K): the direction in which each path sets off, in degrees; 0 is to the right, 90 up; NaN where a digit stands still."""
        angles = torch.rad2deg(torch.atan2(-self.path.velocity[..., 0], self.path.velocity[..., 1]))
        return angles.masked_fill(self.path.velocity.norm(dim=-1) < STILL, torch.nan)


@dataclass(frozen=True)
class Path:
    """Bouncing paths: positions (..., T, 2), pixels; velocity (..., 2) in the first frame, pixels a frame; rmse (...), root mean square
    distance between track and path, in pixels."""

    positions: torch.Tensor
    velocity: torch.Tensor
    rmse: torch.Tensor


def _bounce(start: torch.Tensor, velocity: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Uniform motion between mirrors at 0 and 1: start, velocity (...) -> (..., num_frames)."""
    free = (start[..., None] + velocity[..., None] * torch.arange(num_frames)) % 2
    return torch.where(free > 1, 2 - free, free)


def bouncing_path(tracks: torch.Tensor, frame_size: int = SIZE, outlier: float = 1 / 6) -> Path:
    """The bouncing path nearest to each track, (..., T, 2) in pixels of a frame of `frame_size`; T at least 2.

    Rows and columns are fitted separately: a digit moves evenly, at up to about 0.3 of the free range a frame, and walls reflect it. A search over a grid, then over finer ones,
    minimises the sum of squared distances; they are capped at `outlier` (a share of the free range), so that a few misread frames do not bend the path, but
    count fully in `rmse`. Moving MNIST's own rule stops a digit at the wall for the rest of the frame, so its true places miss the path too, by a quarter of a pixel of 32.
    """
    t = tracks.shape[-2]
    if t < 2:
        raise ValueError("A path needs at least two frames.")
    scale = FREE * frame_size
    seen = rearrange(tracks.float() / scale, "... t yx -> (...) yx t").flatten(0, 1)  # (M, T)
    speeds = 8 * max(15, t - 1)  # fine enough for the last frame of a long clip, too
    start, velocity = torch.meshgrid(torch.linspace(0, 1, 37), torch.linspace(-0.3, 0.3, speeds + 1), indexing="ij")
    table = _bounce(start.flatten(), velocity.flatten(), t)  # (G, T)
    found = []
    for rows in seen.split(max(1, 10_000_000 // table.numel())):
        best = _misfit(rows[:, None], table, outlier).argmin(1)
        p, v = start.flatten()[best], velocity.flatten()[best]
        dp, dv = 1 / 36, 0.6 / speeds
        for _ in range(7):
            dp, dv = dp / 2, dv / 2
            around = torch.arange(-2, 3.0)
            ps = (p[:, None, None] + dp * around[:, None]).clamp(0, 1).expand(-1, 5, 5).flatten(1)
            vs = (v[:, None, None] + dv * around).expand(-1, 5, 5).flatten(1)
            best = _misfit(rows[:, None], _bounce(ps, vs, t), outlier).argmin(1, keepdim=True)
            p, v = ps.gather(1, best)[:, 0], vs.gather(1, best)[:, 0]
        found.append(torch.stack([p, v]))
    p, v = torch.cat(found, dim=1)
    shape = (*tracks.shape[:-2], 2)
    positions = rearrange(_bounce(p, v, t).view(*shape, t), "... yx t -> ... t yx") * scale
    outwards = ((p < v.abs() / 4) & (v < 0)) | ((1 - p < v.abs() / 4) & (v > 0))  # a digit at the wall: what counts is how it leaves
    v = torch.where(outwards, -v, v)
    return Path(positions, v.view(shape) * scale, (tracks - positions).square().sum(-1).mean(-1).sqrt())


def _misfit(seen: torch.Tensor, path: torch.Tensor, outlier: float) -> torch.Tensor:
    return (seen - path).square().clamp(max=outlier**2).sum(-1)


def link(places: torch.Tensor, looks: torch.Tensor) -> torch.Tensor:
    """Which of two things found in a frame is which: (N, T) int64, 1 where the two have to be swapped.

    Chosen by the Viterbi algorithm over pairs of neighbouring frames so that places (N, T, 2, 2), in pixels, change evenly and looks (N, T, 2, D), probabilities
    of what a thing is, stay the same; T at least 2. Distances are capped, so that a bounce or a misread frame costs no more than it must.
    """
    t = places.shape[1]
    where = torch.stack([places, places.flip(2)], dim=1)  # (N, swap, T, 2, 2)
    what = torch.stack([looks, looks.flip(2)], dim=1)
    pairs = [(a, b) for a in (0, 1) for b in (0, 1)]

    def change(k: int, a: int, j: int, b: int) -> torch.Tensor:
        return (what[:, a, k] - what[:, b, j]).abs().sum((-1, -2))

    cost = torch.stack([0.5 * (where[:, b, 1] - where[:, a, 0]).norm(dim=-1).clamp(max=6).sum(-1) + change(0, a, 1, b) for a, b in pairs], dim=1)
    came = []
    for k in range(1, t - 1):
        step = torch.stack([torch.stack([
            cost[:, 2 * a + b] + (where[:, c, k + 1] - 2 * where[:, b, k] + where[:, a, k - 1]).norm(dim=-1).clamp(max=4).sum(-1)
            + change(k, b, k + 1, c) + 0.5 * change(k - 1, a, k + 1, c) for a in (0, 1)], dim=1) for b, c in pairs], dim=1)  # (N, pair, a)
        cost, choice = step.min(2)
        came.append(choice)
    state = cost.argmin(1)
    swap = [state % 2, state // 2]
    for choice in reversed(came):
        swap.append(choice.gather(1, (2 * swap[-1] + swap[-2])[:, None])[:, 0])
    return torch.stack(swap[::-1], dim=1)
