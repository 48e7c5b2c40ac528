"""From a caption to 76 frames of 64 x 64 pixels: the stages of *Make-A-Video* (section 3), one after the other.

    from utils import load_pipeline
    clips = load_pipeline("mav")(["3 and 7"])      # (1, 1, 76, 64, 64) in [0, 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from .captions import digits_of
from .model import Model
from .pretrained import load_pretrained
from .runtime import progress_file

SKIP = 5  # frames from keyframe to keyframe: 6 frames a second become 30
STAGES = {"mav": ("mav", "mav-interpolate", "mav-upsample")}


@dataclass(frozen=True)
class Pipeline:
    """Three models in a row: keyframes (16 frames at 6 a second), interpolate (76 frames at 30 a second), upsample (32 to 64 pixels)."""

    keyframes: Model
    interpolate: Model
    upsample: Model

    def __call__(self, captions: Sequence[str] | str, *, steps: int = 32, seed: int = 0, progress: bool = True) -> torch.Tensor:
        """N captions to clips (N, 1, 76, 64, 64) float32 in [0, 1], on the CPU; steps: in each stage.

        Raises CaptionError for a caption outside the grammar, before anything is sampled.
        """
        captions = [captions] if isinstance(captions, str) else list(captions)
        digits, n = digits_of(captions), len(captions)
        if not n:
            raise ValueError("Pass at least one caption.")
        frames = (self.keyframes.sample_shape[1] - 1) * SKIP + 1  # in SKIP windows, as each holds (T - 1) / SKIP gaps
        total = [self.keyframes.network_steps(n, steps), self.interpolate.network_steps(n * SKIP, steps), self.upsample.network_steps(n, steps, frames)]
        with tqdm(total=sum(total), disable=not progress, leave=False, file=progress_file()) as bar:
            bar.set_description("1 of 3: keyframes")
            video = self.keyframes.sample(captions, steps=steps, seed=seed, progress=bar)
            bar.set_description("2 of 3: frames between")
            video = self.interpolate.interpolate(video, skip=SKIP, steps=steps, seed=seed, progress=bar)
            bar.set_description("3 of 3: 64 pixels")
            return self.upsample.upsample(video, captions=digits, steps=steps, seed=seed, progress=bar)


def load_pipeline(name: str = "mav", device: str | torch.device | None = None, amp: str = "auto") -> Pipeline:
    """The shipped models of a pipeline on `device`; `amp` as for `Model`. ValueError for an unknown name, WeightsError where weights are missing."""
    if name not in STAGES:
        raise ValueError(f"Unknown pipeline {name!r}; there is {', '.join(STAGES)}.")
    return Pipeline(*(load_pretrained(stage, device, amp=amp) for stage in STAGES[name]))
