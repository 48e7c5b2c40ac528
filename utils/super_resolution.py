"""Clips at twice the size, measured against real ones of that size, with and without shared noise: the table of lesson 12.

    python -m utils.super_resolution mav-upsample [--num 64] [--steps 16]      # assets/results/mav-upsample-frames.json

Real clips of 64 pixels are averaged down to 32 and made sharp again. Rows already in the file are kept, so the command goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from .data import DIGIT, MovingMNIST
from .evaluate import ResultRows, chosen_rows, table_parser, table_path
from .metrics import digit_features, kernel_distance, named
from .model import Model
from .pretrained import load_pretrained
from .runtime import telling_of_errors

FLOOR = "real clips (floor)"
FRAMES = 16


def resized(video: torch.Tensor, mode: str) -> torch.Tensor:
    """Clips (N, C, T, H, W) at twice the height and width, frame by frame: mode "nearest" or "bilinear"."""
    return F.interpolate(video, scale_factor=(1, 2, 2), mode="trilinear" if mode == "bilinear" else mode)


def flicker(still: torch.Tensor) -> float:
    """Mean absolute change from frame to frame of clips (N, C, T, H, W) in which nothing should move."""
    return float(still.diff(dim=2).abs().mean())


class SuperResolutions(ResultRows):
    """Measures ways to double the size of the same `num` real clips, and keeps the rows in one JSON file."""

    def __init__(self, path: Path, model: Model, num: int, seed: int, steps: int, split: str) -> None:
        super().__init__(path, model, num, seed, steps=steps, sampler=model.recipe.sampler, split=split)

        def draw(index: int):
            return MovingMNIST(split, 2 * seed + 9, image_size=64, num_frames=FRAMES, captions="digits").sample(num, index=index)

        batch, other = draw(0), draw(1)
        self.real, self.batch = (batch.video + 1) / 2, batch
        self.small = F.avg_pool3d(self.real, (1, 2, 2))
        self.reference = digit_features(self._digits((other.video + 1) / 2, other))

    @staticmethod
    def _digits(clips: torch.Tensor, batch) -> torch.Tensor:
        """(N * 2, 1, 1, 28, 28): both digits of each clip, cut out where they truly are in the middle frame."""
        frame, cut = FRAMES // 2, []
        for clip, places in zip(clips, batch.position[:, :, frame].long()):
            for row, column in places.tolist():
                cut.append(clip[:, frame:frame + 1, row:row + DIGIT, column:column + DIGIT])
        return torch.stack(cut)

    def measure(self, clips: torch.Tensor, still: torch.Tensor) -> dict:
        """The numbers of clips (num, 1, FRAMES, 64, 64) in [0, 1], and of the same way's result for still clips: missed, the root mean square error; again, the same after averaging down;
        sharpness, the mean step from pixel to pixel along a row, and change, from frame to frame, as shares of real clips'; flicker of still clips; and, for digits cut out where they truly are, how many the classifier of lesson 03 reads
        correctly, and the kernel distance to other real ones."""
        digits = self._digits(clips, self.batch)
        numbers = {"missed": (clips - self.real).square().mean().sqrt(), "again": (F.avg_pool3d(clips, (1, 2, 2)) - self.small).square().mean().sqrt(),
                   "sharpness": clips.diff(dim=-1).abs().mean() / self.real.diff(dim=-1).abs().mean(), "change": clips.diff(dim=2).abs().mean() / self.real.diff(dim=2).abs().mean(),
                   "flicker": flicker(still), **named(digits, self.batch.labels.flatten()), "kernel_distance": kernel_distance(digit_features(digits), self.reference)}
        return {key: value if isinstance(value, int) else round(float(value), 5) for key, value in numbers.items()}

    def enlarge(self, name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Add the row of one way to double the size, `make`, unless it is there."""
        if name in self.rows():
            return
        start = time.monotonic()
        clips = make(self.small)
        seconds = time.monotonic() - start
        still = make(self.small[:16, :, :1].expand(-1, -1, 8, -1, -1))
        self.write(name, {**self.measure(clips, still), "seconds": round(seconds, 1)})


@telling_of_errors()
def main() -> None:
    """Measure the trained model with shared and with separate noise, both samplers and several strengths of augmentation, beside resizing."""
    parser = table_parser("utils.super_resolution", "Clips at twice the size, measured against real ones.", "mav-upsample", 64)
    a = parser.parse_args()
    model = load_pretrained(a.model, a.device, amp=a.amp)
    if model.kind != "upsample":
        parser.error(f"{a.model} was not trained to make clips sharper")
    table = SuperResolutions(table_path(parser, a, "frames"), model, a.num, a.seed, a.steps, a.split)

    def way(**options) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda small: model.upsample(small, steps=a.steps, seed=a.seed, progress=True, **options)

    ways = {FLOOR: lambda small: table.real if small is table.small else table.real[:len(small), :, :1].expand(-1, -1, small.shape[2], -1, -1),
            "nearest": lambda small: resized(small, "nearest"), "bilinear": lambda small: resized(small, "bilinear"),
            "shared noise": way(), "separate noise": way(share_noise=False),
            "shared noise, ancestral": way(sampler="ancestral"), "separate noise, ancestral": way(share_noise=False, sampler="ancestral"),
            "shared noise, augmentation 0": way(augmentation=0.0), "shared noise, augmentation 0.3": way(augmentation=0.3)}
    for name in chosen_rows(ways, a.only):
        table.enlarge(name, ways[name])


if __name__ == "__main__":
    main()
