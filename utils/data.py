"""MNIST (shipped with the repository) and Moving MNIST, made on the fly with labels the original lacks.

Moving MNIST: Srivastava et al. 2015 (arXiv 1502.04681). Two 28-pixel digits bounce off the walls of a 64 x 64 canvas.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from .captions import MAX_DIGITS, Caption, octant, parse
from .runtime import ASSETS, generator

MNIST_FILE = ASSETS / "mnist.npz"
MNIST_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"
SPLITS = ("train", "validation", "test")
CANVAS, DIGIT = 64, 28  # pixels; the published sizes
SPEED = 0.1  # free ranges (36 of 64 pixels) per frame; the published value
FINE_SPEED, FINE_FPS = SPEED / 5, 30  # the fine clock: frame_skip=5 on it (6 frames a second) is the published speed
CHUNK = 32  # clips drawn at once on a CPU: the canvases of more do not fit a core's cache and take twice as long
CAPTION_KINDS = ("digits", "motion", "mixed")


class DataError(RuntimeError):
    """A data file that is missing or damaged; the message says what to do."""


@lru_cache(maxsize=4)
def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise DataError(f"{path.name} is not in {path.parent.name}/: restore it with `git checkout -- assets/mnist.npz`.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != MNIST_SHA256:
        raise DataError(f"{path.name} is damaged (its checksum differs): restore it with `git checkout -- assets/mnist.npz`.")
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def mnist(split: str, path: Path = MNIST_FILE) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 28, 28) uint8 0-255 and labels (N,) int64 of MNIST (LeCun, Cortes, Burges; CC BY-SA 3.0).

    "train" is the first 55,000 training images, "validation" the other 5,000, "test" the 10,000 test images.
    Raises DataError when the file is missing or damaged, ValueError for another split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}.")
    arrays = _arrays(Path(path))
    part = {"train": slice(0, 55_000), "validation": slice(55_000, None), "test": slice(None)}[split]
    source = "test" if split == "test" else "train"
    return torch.from_numpy(arrays[f"x_{source}"][part]), torch.from_numpy(arrays[f"y_{source}"][part]).long()


@dataclass(frozen=True)
class Batch:
    """What a dataset's `sample(num)` returns. Fields that a dataset does not have are None.

    video (N, C, T, H, W) float32 in [-1, 1] (images: T = 1); labels (N, digits) int64; position and velocity
    (N, digits, T, 2) float32 as (row, column) in pixels of the image: position of the digit's top-left corner before it
    is truncated to whole pixels of the canvas, velocity[k] carries frame k to frame k + 1; captions: N strings.
    """

    video: torch.Tensor
    labels: torch.Tensor | None = None
    position: torch.Tensor | None = None
    velocity: torch.Tensor | None = None
    captions: list[str] | None = None


class Stream:
    """Numbered batches: batch `index` depends only on the seed and the index, so a resumed run sees the same data."""

    seed: int
    _next = 0

    def _generator(self, index: int | None) -> torch.Generator:
        if index is None:
            index, self._next = self._next, self._next + 1
        return generator(self.seed, index)


class MNIST(Stream):
    """MNIST digits as one-frame clips, drawn at random.

    split: as for `mnist`. device: where the images are kept and `video` is made.
    """

    def __init__(self, split: str = "train", seed: int = 0, device: torch.device | str = "cpu") -> None:
        images, self.digits = mnist(split)
        self.images, self.seed = images.to(device), seed

    def sample(self, num: int, index: int | None = None, rows: slice = slice(None)) -> Batch:
        """`num` images, video (num, 1, 1, 28, 28). `index`: the batch's number, by default the next. rows: make only these of the `num`."""
        g = self._generator(index)
        chosen = torch.randint(len(self.images), (num,), generator=g)[rows]
        video = self.images[chosen.to(self.images.device)].float() / 127.5 - 1
        labels = self.digits[chosen]
        return Batch(rearrange(video, "b h w -> b 1 1 h w"), labels[:, None], captions=[str(int(d)) for d in labels])


class MovingMNIST(Stream):
    """Endless Moving MNIST with labels, trajectories and captions.

    split: whose digits ("train", "validation", "test" share none). image_size: 64 or a divisor of it (the 64-pixel
    canvas is averaged down). num_frames: 1 or more. num_digits: 1 to 3. frame_skip: keep every k-th frame. speed: share of
    the free range (36 of 64 pixels) that a digit travels in one frame, before skipping; the published value is 0.1, and
    speed=FINE_SPEED with frame_skip=k gives the same paths at FINE_FPS / k frames a second. captions: "digits" ("3 and 7"), "motion" ("3 moving left and 7 moving up"), "mixed" (half and half), or None.
    digits: which of 0 to 9 occur. device: where the digits are kept and `video` is made; the random numbers come from the CPU and are the same everywhere.
    """

    def __init__(self, split: str = "train", seed: int = 0, image_size: int = 32, num_frames: int = 16, num_digits: int = 2,
                 frame_skip: int = 1, captions: str | None = "digits", speed: float = SPEED,
                 digits: Sequence[int] = range(10), device: torch.device | str = "cpu") -> None:
        if image_size < 8 or CANVAS % image_size:
            raise ValueError(f"image_size must divide {CANVAS} and be at least 8 (32 and 64 are usual), not {image_size}.")
        if num_frames < 1 or frame_skip < 1:
            raise ValueError(f"num_frames and frame_skip must be at least 1, not {num_frames} and {frame_skip}.")
        if num_digits not in range(1, MAX_DIGITS + 1):
            raise ValueError(f"num_digits must be from 1 to {MAX_DIGITS}, not {num_digits}.")
        if captions is not None and captions not in CAPTION_KINDS:
            raise ValueError(f"captions must be None or one of {', '.join(CAPTION_KINDS)}, not {captions!r}.")
        if speed < 0:
            raise ValueError(f"speed must not be negative; got {speed}.")
        if not set(digits) or not set(digits) <= set(range(10)):
            raise ValueError(f"digits must be some of 0 to 9, not {list(digits)}.")
        images, labels = mnist(split)
        wanted = torch.isin(labels, torch.tensor(list(digits)))
        self.images, self.digits = images[wanted].to(device), labels[wanted]
        self.seed, self.image_size, self.num_frames, self.num_digits = seed, image_size, num_frames, num_digits
        self.frame_skip, self.captions, self.speed = frame_skip, captions, speed

    def sample(self, num: int, index: int | None = None, rows: slice = slice(None)) -> Batch:
        """`num` clips as a Batch. `index`: the batch's number, by default the next. rows: make only these of the `num`."""
        if num < 1:
            raise ValueError(f"num must be at least 1, not {num}.")
        g = self._generator(index)
        chosen = torch.randint(len(self.images), (num, self.num_digits), generator=g)
        start, angle = starts(num, self.num_digits, g)
        with_motion = {"digits": torch.zeros(num), "motion": torch.ones(num), "mixed": torch.rand(num, generator=g).round()}.get(self.captions)
        return self._batch(chosen[rows], start[rows], angle[rows], None if with_motion is None else with_motion[rows])

    def at(self, frame_skip: int) -> MovingMNIST:
        """The same clips with another frame_skip: batch `index` has the same digits, starting from the same places."""
        other = copy.copy(self)
        other.frame_skip = frame_skip
        return other

    def from_captions(self, captions: Sequence[str], index: int | None = None) -> Batch:
        """Real clips that do what captions say, one each: drawn from the same distribution, given the caption. `index` as for `sample`.

        Every caption names `num_digits` digits. Raises CaptionError for one outside the grammar, ValueError for one that this dataset cannot show.
        """
        asked = [parse(text) for text in captions]
        if not asked or any(len(a.digits) != self.num_digits for a in asked):
            raise ValueError(f"Expected captions of {self.num_digits} digits each, as num_digits says; got {list(captions)}.")
        missing = {d for a in asked for d in a.digits} - set(self.digits.tolist())
        if missing:
            raise ValueError(f"This dataset has no digit {sorted(missing)[0]}: it was made with digits {sorted(set(self.digits.tolist()))}.")
        if self.speed == 0 and any(a.directions for a in asked):
            raise ValueError("Digits that stand still (speed=0) have no direction: leave it out of the captions.")
        g = self._generator(index)
        chosen, start, angle = [], [], []
        for a in asked:
            for k, digit in enumerate(a.digits):
                own = (self.digits == digit).nonzero()[:, 0]
                chosen.append(own[torch.randint(len(own), (), generator=g)])
                while True:  # about one start in eight sets off as asked
                    p, w = starts(64, 1, g)
                    _, velocity = trajectories(p, w, 1, self.speed, self.frame_skip)
                    fits = (octant(velocity[:, 0, 0]) == a.directions[k]) if a.directions else torch.ones(64, dtype=torch.bool)
                    if fits.any():
                        break
                start.append(p[fits][0, 0])
                angle.append(w[fits][0, 0])
        shape = (len(asked), self.num_digits)
        batch = self._batch(torch.stack(chosen).view(shape), torch.stack(start).view(*shape, 2), torch.stack(angle).view(shape), None)
        return replace(batch, captions=[str(a) for a in asked])

    def _batch(self, chosen: torch.Tensor, start: torch.Tensor, angle: torch.Tensor, with_motion: torch.Tensor | None) -> Batch:
        """Clips of the digits chosen (N, D), starting at start (N, D, 2) at angle (N, D); with_motion (N,): which captions say directions, None for no captions."""
        position, velocity = trajectories(start, angle, self.num_frames, self.speed, self.frame_skip)
        device = self.images.device
        at_once = CHUNK if device.type == "cpu" else len(chosen)
        digits, places = self.images[chosen.to(device)].split(at_once), position.split(at_once)
        video = torch.cat([shrink(render(d, p), self.image_size) for d, p in zip(digits, places)])
        labels, captions = self.digits[chosen], None
        if with_motion is not None:
            octants = octant(velocity[:, :, 0])
            captions = [_caption(tuple(d), tuple(o) if m else None) for d, o, m in zip(labels.tolist(), octants.tolist(), with_motion.tolist())]
        to_pixels = (CANVAS - DIGIT) * self.image_size / CANVAS
        return Batch(rearrange(video, "b t h w -> b 1 t h w"), labels, (position * to_pixels).float(), (velocity * to_pixels).float(), captions)


@lru_cache(maxsize=2**16)
def _caption(digits: tuple[int, ...], directions: tuple[int, ...] | None) -> str:
    return str(Caption(digits, directions))


def starts(num: int, num_digits: int, g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Where digits begin and where they head, drawn uniformly: (num, num_digits, 2) in the unit square, and angles (num, num_digits) in radians, float64."""
    start = torch.rand(num, num_digits, 2, generator=g, dtype=torch.float64)
    return start, torch.rand(num, num_digits, generator=g, dtype=torch.float64) * 2 * math.pi


def trajectories(start: torch.Tensor, angle: torch.Tensor, num_frames: int, speed: float, frame_skip: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bouncing paths in the unit square from `starts`: position and velocity, each (num, num_digits, num_frames, 2) float64.

    The published rule: in each frame, move, clamp to any wall passed and flip that component, then record. Velocity is per kept
    frame: `frame_skip` times a step's.
    """
    where, step = start, speed * torch.stack([angle.sin(), angle.cos()], dim=-1)
    positions, velocities = [], []
    for frame in range((num_frames - 1) * frame_skip + 1):
        where = where + step
        step = torch.where((where <= 0) | (where >= 1), -step, step)
        where = where.clamp(0, 1)
        if frame % frame_skip == 0:
            positions.append(where)
            velocities.append(step * frame_skip)
    return torch.stack(positions, dim=2), torch.stack(velocities, dim=2)


def render(digits: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Paste digits on the canvas at positions truncated to whole pixels; overlaps take the maximum.

    digits (B, D, 28, 28) uint8; position (B, D, T, 2) in [0, 1], on any device -> (B, T, 64, 64) uint8, on the digits' device.
    """
    b, d, t, _ = position.shape
    free = CANVAS - DIGIT
    corner = (position * free).long().to(digits.device)  # (B, D, T, 2), 0..36: moved as integers, as Apple's GPUs have no float64
    down = corner[..., 0] * CANVAS + corner[..., 1]  # index of a digit's first pixel in the flattened canvas
    # A flattened frame of one digit is its rows shifted as a whole, so a window of the zero-padded digit: one contiguous copy, which is fast.
    most = free * CANVAS + free
    padded = F.pad(F.pad(digits, (0, free)).flatten(2), (most, most)).flatten()
    windows = padded.as_strided((len(padded) - CANVAS**2 + 1, CANVAS**2), (1, 1))  # (every start, 4096), a view
    start = torch.arange(b * d, device=digits.device).view(b, d, 1) * (len(padded) // (b * d)) + most - down
    canvas = windows.index_select(0, start[:, 0].flatten())
    for k in range(1, d):
        torch.maximum(canvas, windows.index_select(0, start[:, k].flatten()), out=canvas)
    return rearrange(canvas, "(b t) (h w) -> b t h w", b=b, h=CANVAS)


def shrink(canvas: torch.Tensor, image_size: int) -> torch.Tensor:
    """(B, T, 64, 64) uint8 -> (B, T, image_size, image_size) float32 in [-1, 1], averaging whole blocks of pixels."""
    factor = canvas.shape[-1] // image_size
    columns = sum((canvas[..., k::factor] for k in range(1, factor)), canvas[..., ::factor].short())  # a sum of 64 bytes fits 16 bits
    total = sum((columns[..., k::factor, :] for k in range(1, factor)), columns[..., ::factor, :])
    return total.float().div_(127.5 * factor**2).sub_(1)
