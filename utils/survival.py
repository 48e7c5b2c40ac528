"""Where in the noise is a digit decided, and where is it lost? Real clips are noised to one level and sampled from there: the table of lesson 06.

    python -m utils.survival vdm-text [--num 128] [--steps 32] [--only noise]      # assets/results/vdm-text-survival.json

What a clip shows of its digits, paths and directions at one level but not at a lower log-SNR goes wrong between the two. Rows already in the file are kept.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from .evaluate import ResultRows, chosen_rows, table_parser, table_path
from .metrics import motion, obeyed, read
from .model import Model
from .pretrained import load_pretrained
from .runtime import telling_of_errors

LEVELS = (0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0)  # log-SNR; with 16 frames, shapes show from about -3 on, and paths from about -6
FLOOR, NOISE = "real clips (floor)", "from noise"


class Survival(ResultRows):
    """Measures what is left of the same `num` real clips, resampled from each noise level with their own captions, and keeps the rows in one JSON file."""

    def __init__(self, path: Path, model: Model, num: int, seed: int, steps: int, guidance_scale: float, split: str) -> None:
        super().__init__(path, model, num, seed, steps=steps, sampler=model.recipe.sampler, guidance_scale=guidance_scale, split=split)
        batch = replace(model.recipe, captions="motion").dataset(split, 2 * seed + 7).sample(num)
        self.real, self.captions = (batch.video + 1) / 2, batch.captions

    def row(self, name: str) -> None:
        """Add the row of that name, unless it is there: real clips, clips sampled from noise, or from the real ones at a log-SNR."""
        if name in self.rows():
            return
        start, options = time.monotonic(), {"seed": self.seed, "progress": True, "steps": self.more["steps"], "guidance_scale": self.more["guidance_scale"], "rival_scale": 0.0}
        if name == FLOOR:
            clips = self.real
        else:
            clips = self.model.sample(self.captions, **options) if name == NOISE else self.model.vary(self.real, float(name), self.captions, **options)
        seconds, reading = time.monotonic() - start, read(clips)
        numbers = {**obeyed(reading, self.captions), **motion(reading), "changed": float((clips - self.real).square().mean().sqrt())}
        self.write(name, {**{key: round(value, 4) for key, value in numbers.items()}, "seconds": round(seconds, 1)})


@telling_of_errors()
def main() -> None:
    """Measure the real clips, each level, and clips from noise."""
    parser = table_parser("utils.survival", "What is left of real clips that are noised, and sampled from there.", "vdm-text", 128)
    parser.add_argument("--guidance-scale", type=float, help="(default: the recipe's)")
    a = parser.parse_args()
    model = load_pretrained(a.model, a.device, amp=a.amp)
    if model.kind != "video" or model.recipe.captions is None:
        parser.error(f"{a.model} is not a model of clips with captions")
    table = Survival(table_path(parser, a, "survival"), model, a.num, a.seed, a.steps, model.recipe.guidance_scale if a.guidance_scale is None else a.guidance_scale, a.split)
    for name in chosen_rows([FLOOR, *(f"{level:g}" for level in LEVELS), NOISE], a.only):
        table.row(name)


if __name__ == "__main__":
    main()
