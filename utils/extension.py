"""Clips made four times as long, measured block by block: the table of lesson 08.

    python -m utils.extension vdm-text [--num 128] [--steps 16] [--only control Langevin]      # assets/results/vdm-text-extension.json
    python -m utils.extension vdm-text --split validation --out runs/extension.json           # for tuning

Each method extends the first 16 frames of real 64-frame clips, from the same noise. Rows already in the file are kept, so the command resumes where it was stopped.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from .data import MovingMNIST
from .evaluate import ResultRows, chosen_rows, table_parser, table_path
from .metrics import kernel_distance_interval, motion, obeyed, read
from .model import Model
from .pretrained import load_pretrained
from .runtime import telling_of_errors
from .samplers import SampleState

GIVEN, FRAMES, OVERLAP = 16, 64, 8
FLOOR = "real clips (floor)"
STOPPED, NEW = "control: the last frame repeated", "control: new clips, nothing given"


class Extensions(ResultRows):
    """Measures continuations of the same `num` real clips, and keeps the rows in one JSON file."""

    def __init__(self, path: Path, model: Model, num: int, seed: int, steps: int, guidance_scale: float, split: str) -> None:
        super().__init__(path, model, num, seed, steps=steps, sampler=model.recipe.sampler, guidance_scale=guidance_scale, split=split, overlap=OVERLAP)

        def draw(index: int):
            return MovingMNIST(split, 2 * seed + 5, num_frames=FRAMES, captions="digits").sample(num, index=index)

        batch = draw(0)
        self.real, self.captions = (batch.video + 1) / 2, batch.captions
        other = (draw(1).video + 1) / 2
        self.reference = [read(other[:, :, start:start + GIVEN]).features for start in self.blocks()]

    @staticmethod
    def blocks() -> range:
        """The first frame of each window of GIVEN frames that are all new."""
        return range(GIVEN, FRAMES, GIVEN)

    def measure(self, clips: torch.Tensor) -> dict:
        """The metrics of clips (num, 1, FRAMES, 32, 32) in [0, 1]: the change in pixels from the last given frame to the first new one ("seam"), and from frame to frame after it ("change"), both as a
        share of real clips' (about 1.5 between unrelated clips); how far digits are from a single best path through half a window of given and half a window of new frames ("across"; per digit, (num, 2) in pixels: "across_by_clip"); and, for each window of new frames, the kernel distance to the same window of real clips, how far digits are from the best path, identity, and how many clips show the two given digits."""

        def step(of: torch.Tensor) -> torch.Tensor:
            return of.diff(dim=2).abs().mean((0, 1, 3, 4))

        ratio, windows = step(clips) / step(self.real), []
        for start, reference in zip(self.blocks(), self.reference):
            reading = read(clips[:, :, start:start + GIVEN])
            windows.append({**kernel_distance_interval(reading.features, reference), **motion(reading), "digits": obeyed(reading, self.captions)["digits"]})
        across = read(clips[:, :, GIVEN // 2:GIVEN + GIVEN // 2])
        mean = {key: sum(window[key] for window in windows) / len(windows) for key in ("kernel_distance", "rmse", "identity", "digits")}
        rounded = [{key: round(value, 4) for key, value in window.items()} for window in windows]
        return {"seam": round(float(ratio[GIVEN - 1]), 4), "change": round(float(ratio[GIVEN:].mean()), 4), "across": round(motion(across)["rmse"], 4), **{key: round(value, 4) for key, value in mean.items()},
                "blocks": rounded, "across_by_clip": [[round(off, 3) for off in clip] for clip in across.path.rmse.tolist()]}

    def extend(self, name: str, **options) -> None:
        """Measure one way to extend (keywords of `Model.extend`), unless its row exists: metrics, seconds, and what was `missed`."""
        if name in self.rows():
            return
        start, options = time.monotonic(), {"steps": self.more["steps"], "guidance_scale": self.more["guidance_scale"], **options}
        clips = self.model.extend(self.real[:, :, :GIVEN], FRAMES, self.captions, overlap=OVERLAP, seed=self.seed, progress=True, **options)
        seconds = time.monotonic() - start
        self.write(name, {**options, **self.measure(clips), "missed": self.missed(options), "seconds": round(seconds, 1)})

    def missed(self, options: dict, num: int = 16) -> float:
        """How far the network's estimate of the given frames is from them, before they are put back: the root mean square, for values in [0, 1], over pixels and steps of the first block of `num` clips."""
        window = self.real[:num, :, GIVEN - OVERLAP:2 * GIVEN - OVERLAP]
        given, seen = 2 * window[:, :, :OVERLAP] - 1, []

        def watch(state: SampleState) -> None:
            seen.append(state.x_hat[:, :, :OVERLAP].cpu())

        self.model.inpaint(window, (torch.arange(GIVEN) < OVERLAP)[:, None, None], self.captions[:num], seed=self.seed, watch=watch, **options)
        batches = [torch.stack(seen[first:first + options["steps"]]) for first in range(0, len(seen), options["steps"])]  # each (steps, B, C, OVERLAP, H, W)
        return round(float(((torch.cat(batches, dim=1) - given).square().mean() / 4).sqrt()), 4)

    def compare(self, name: str) -> None:
        """The row of real clips, of clips frozen at the last given frame, or of a model that is told nothing of the given frames (FLOOR, STOPPED, NEW), unless it is there."""
        if name in self.rows():
            return
        if name == FLOOR:
            continued = self.real[:, :, GIVEN:]
        elif name == STOPPED:
            continued = self.real[:, :, GIVEN - 1:GIVEN].expand(-1, -1, FRAMES - GIVEN, -1, -1)
        else:
            continued = torch.cat([self.model.sample(self.captions, seed=self.seed + start, progress=True, steps=self.more["steps"], guidance_scale=self.more["guidance_scale"], rival_scale=0.0)
                                   for start in self.blocks()], dim=2)
        self.write(name, self.measure(torch.cat([self.real[:, :, :GIVEN], continued], dim=2)))


@telling_of_errors()
def main() -> None:
    """Measure replacement and reconstruction guidance of several weights, with and without the Langevin corrector."""
    parser = table_parser("utils.extension", "Clips made four times as long, measured block by block.", "vdm-text", 128)
    parser.add_argument("--guidance-scale", type=float, default=2.0)
    parser.add_argument("--weights", type=float, nargs="+", default=[2.0, 5.0, 10.0])
    a = parser.parse_args()
    model = load_pretrained(a.model, a.device, amp=a.amp)
    if model.kind == "image" or model.recipe.captions is None:
        parser.error(f"{a.model} is not a video model with captions")
    table = Extensions(table_path(parser, a, "extension"), model, a.num, a.seed, a.steps, a.guidance_scale, a.split)
    ways = {"replacement": {"method": "replacement"}, "replacement, twice the steps": {"method": "replacement", "steps": 2 * a.steps},
            "replacement, Langevin": {"method": "replacement", "langevin": 0.1},
            **{f"reconstruction guidance, weight {weight:g}": {"weight": weight} for weight in a.weights},
            **{f"reconstruction guidance, weight {weight:g}, Langevin": {"weight": weight, "langevin": 0.1} for weight in a.weights}}
    for name in chosen_rows([FLOOR, STOPPED, NEW, *ways], a.only):
        if name in ways:
            table.extend(name, **ways[name])
        else:
            table.compare(name)


if __name__ == "__main__":
    main()
