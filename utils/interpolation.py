"""Frames between keyframes, measured against the real clips that the keyframes were taken from: the table of lesson 11.

    python -m utils.interpolation mav-interpolate [--num 64] [--steps 16]      # assets/results/mav-interpolate-frames.json

Real clips of 76 frames at 30 a second; every fifth frame is given. Rows already in the file are kept, so the command resumes where it was stopped.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from .data import FINE_SPEED, MovingMNIST
from .evaluate import ResultRows, chosen_rows, table_parser, table_path
from .keyframes import join, keyframe_mask, windows
from .metrics import kernel_distance_interval, motion, obeyed, read
from .model import Model
from .pipeline import SKIP
from .pretrained import load_pretrained
from .runtime import telling_of_errors

KEYFRAMES = 16
FRAMES = (KEYFRAMES - 1) * SKIP + 1
FLOOR = "real clips (floor)"


def repeated(keyframes: torch.Tensor, skip: int = SKIP) -> torch.Tensor:
    """Each keyframe (N, C, K, H, W) held until the next: (N, C, skip * (K - 1) + 1, H, W)."""
    return keyframes.repeat_interleave(skip, dim=2)[:, :, :skip * (keyframes.shape[2] - 1) + 1]


def cross_faded(keyframes: torch.Tensor, skip: int = SKIP) -> torch.Tensor:
    """Each keyframe (N, C, K, H, W) blended linearly into the next: (N, C, skip * (K - 1) + 1, H, W)."""
    share = (torch.arange(skip * (keyframes.shape[2] - 1) + 1) % skip / skip)[:, None, None]
    following = torch.cat([keyframes[:, :, 1:], keyframes[:, :, -1:]], dim=2)
    return (1 - share) * repeated(keyframes, skip) + share * repeated(following, skip)


def guided(model: Model, keyframes: torch.Tensor, fps: float, skip: int = SKIP, **options) -> torch.Tensor:
    """Gaps between keyframes (N, C, K, H, W) filled by a video model never trained for it: `Model.inpaint` per window (reconstruction guidance or replacement; its keywords)."""
    clips, given = windows(keyframes, skip, model.sample_shape[1])
    n, count = clips.shape[:2]
    done = model.inpaint(clips.flatten(0, 1), given[:, None, None], fps=fps, **options)
    return join(done.unflatten(0, (n, count)))


class Interpolations(ResultRows):
    """Measures ways to fill in frames between the keyframes of the same `num` real clips, and keeps the rows in one JSON file. before: the model that guidance steers."""

    def __init__(self, path: Path, model: Model, before: Model, num: int, seed: int, steps: int, split: str) -> None:
        super().__init__(path, model, num, seed, steps=steps, sampler=model.recipe.sampler, split=split, before=before.provenance, before_sampler=before.recipe.sampler)

        def draw(index: int):
            return MovingMNIST(split, 2 * seed + 7, num_frames=FRAMES, speed=FINE_SPEED, captions="digits").sample(num, index=index)

        batch = draw(0)
        self.real, self.captions = (batch.video + 1) / 2, batch.captions
        self.keyframes = self.real[:, :, ::SKIP]
        self.reference = read(self._windows((draw(1).video + 1) / 2)).features

    @staticmethod
    def _windows(clips: torch.Tensor) -> torch.Tensor:
        """The five windows of 16 frames of each clip, (N * 5, 1, 16, H, W)."""
        return torch.cat([clips[:, :, start:start + 16] for start in range(0, FRAMES - 1, 15)])

    def measure(self, clips: torch.Tensor) -> dict:
        """The metrics of clips (num, 1, FRAMES, 32, 32) in [0, 1]: missed, how far the frames not given are from the real ones (root mean square); judder, the spread over frames of
        the change from one to the next, relative to its mean (smooth motion: small); edges, the mean step from pixel to pixel along a row in the frames not given, relative to real ones (ghosts: small); whether the keyframes are kept; and, over windows of 16 frames, the kernel distance to real windows, how far
        digits are from the best path in pixels, their speed, identity, and how many windows show both digits."""
        between = ~keyframe_mask(FRAMES, SKIP)
        change = clips.diff(dim=2).abs().mean((1, 3, 4))
        reading = read(self._windows(clips))
        edges = [x[:, :, between].diff(dim=-1).abs().mean() for x in (clips, self.real)]
        numbers = {"edges": float(edges[0] / edges[1]), "missed": float((clips - self.real)[:, :, between].square().mean().sqrt()), "judder": float((change.std(1) / change.mean(1)).mean()),
                   "keyframes": bool(torch.equal(clips[:, :, ::SKIP], self.keyframes)), **kernel_distance_interval(reading.features, self.reference), **motion(reading),
                   "digits": obeyed(reading, self.captions * 5)["digits"]}
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in numbers.items()}

    def fill(self, name: str, make) -> None:
        """Measure `make`, a function from keyframes to clips, unless its row exists."""
        if name in self.rows():
            return
        start = time.monotonic()
        clips = make(self.keyframes)
        seconds = time.monotonic() - start
        self.write(name, {**self.measure(clips), "seconds": round(seconds, 1)})


@telling_of_errors()
def main() -> None:
    """Measure the trained model beside repeated and cross-faded frames, and beside replacement and reconstruction guidance of the model that it was fine-tuned from."""
    parser = table_parser("utils.interpolation", "Frames between keyframes, measured against real ones.", "mav-interpolate", 64)
    parser.add_argument("--weights", type=float, nargs="+", default=[2.0, 5.0, 10.0], help="of reconstruction guidance")
    a = parser.parse_args()
    model = load_pretrained(a.model, a.device, amp=a.amp)
    if model.kind != "interpolate":
        parser.error(f"{a.model} was not trained to interpolate")
    before = load_pretrained(model.recipe.initial, a.device, amp=a.amp)
    table = Interpolations(table_path(parser, a, "frames"), model, before, a.num, a.seed, a.steps, a.split)
    options = {"steps": a.steps, "seed": a.seed, "progress": True}
    ways = {FLOOR: lambda keyframes: table.real, "keyframes repeated": repeated, "cross-fade": cross_faded,
            a.model: lambda keyframes: model.interpolate(keyframes, skip=SKIP, **options),
            f"{before.name}, replacement": lambda keyframes: guided(before, keyframes, model.recipe.fps, method="replacement", **options)}
    for weight in a.weights:
        ways[f"{before.name}, reconstruction guidance, weight {weight:g}"] = lambda keyframes, weight=weight: guided(before, keyframes, model.recipe.fps, weight=weight, **options)
    for name in chosen_rows(ways, a.only):
        table.fill(name, ways[name])


if __name__ == "__main__":
    main()
