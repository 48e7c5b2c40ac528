"""The curves of lessons 02 and 03: quality against denoising steps for each sampler, and against the guidance scale; the latter for clips, to choose a video model's scale; at which noise levels guidance acts; guidance away from rival captions; and temporal guidance.

    python -m utils.sweep steps mnist-guided        # assets/results/mnist-guided-steps.json
    python -m utils.sweep guidance mnist-guided     # assets/results/mnist-guided-guidance.json
    python -m utils.sweep guidance vdm-text         # assets/results/vdm-text-guidance.json: on validation digits
    python -m utils.sweep intervals vdm-text        # assets/results/vdm-text-intervals.json: guided at some noise levels only
    python -m utils.sweep rivals vdm-text           # assets/results/vdm-text-rivals.json: guided away from clips that show one digit two times
    python -m utils.sweep temporal vdm              # assets/results/vdm-temporal.json: guided away from frames that know nothing of each other

Every row is measured on the same seeds and the same labels or captions, so rows can be compared pair by pair; for images, real digits and noise are added.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import torch

from .data import MNIST, Batch
from .evaluate import RESULTS, ResultRows
from .metrics import digit_features, kernel_distance, kernel_distance_gap, kernel_distance_interval, motion, named, obeyed, read, variety
from .model import Model
from .pretrained import load_pretrained
from .recipes import MNIST_SIZE
from .runtime import generator, telling_of_errors
from .samplers import SAMPLERS

STEPS = {"ddim": (4, 8, 16, 32, 64, 128, 256, 1000), "dpm++": (4, 8, 16, 32, 64, 128), "ancestral": (4, 8, 16, 32, 64, 128, 256, 1000)}
FEW, MANY = 32, 1000  # the two numbers of steps that are compared pair by pair
SCALES = (0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
CLIP_SCALES = (1.0, 1.5, 2.0, 3.0)
INTERVALS = {"nowhere": None, "everywhere": (-math.inf, math.inf), "below -2": (-math.inf, -2.0), "from -2 to 0": (-2.0, 0.0), "from 0 on": (0.0, math.inf)}  # of log-SNR
INTERVAL_SCALE = 3.0  # guidance scale in an interval
RIVAL_SCALES = (0.0, 1.0, 2.0)  # of guidance away from rival captions
TEMPORAL_SCALES = (0.0, 1.0, 1.3, 1.6, 2.0)


class Sweep(ResultRows):
    """Measures sets of images against the same `num` real test digits, and keeps the rows in one JSON file."""

    def __init__(self, model: Model, num: int, seed: int, path: Path, **more) -> None:
        super().__init__(path, model, num, seed, **more)
        self.reference = digit_features(self._real(1).video)
        held_out = self._real(2)
        self.labels = held_out.labels[:, 0]
        self.held_out = held_out.video
        self.real_variety = variety(digit_features(self.held_out), self.labels)

    def _real(self, stream: int) -> Batch:
        batch = MNIST("test", seed=self.seed + stream).sample(self.num)
        return replace(batch, video=(batch.video + 1) / 2)

    def measure(self, images: torch.Tensor) -> dict:
        """The numbers of images (num, 1, 1, 28, 28) in [0, 1]: kernel distance to real digits and, if the model takes captions, how many
        read as the digit asked for, and their variety as a share of real digits'."""
        features = digit_features(images)
        row = {"kernel_distance": round(kernel_distance(features, self.reference), 5)}
        if self.model.recipe.captions:
            row["variety"] = round(variety(features, self.labels) / self.real_variety, 4)
            row.update({key: round(value, 4) for key, value in named(images, self.labels).items()})
        return row

    def sample(self, **options) -> tuple[torch.Tensor, float]:
        """The model's images for the labels (without, if it takes none), and the seconds they took."""
        start = time.monotonic()
        labels = self.labels if self.model.recipe.captions else None
        return self.model.sample(labels=labels, num=self.num, seed=self.seed, progress=True, **options), time.monotonic() - start

    def controls(self) -> None:
        """Add rows of real digits and of noise."""
        self.write("real held-out (floor)", self.measure(self.held_out))
        self.write("control: noise", self.measure(torch.rand(self.held_out.shape, generator=generator(self.seed, 4))))


def steps(sweep: Sweep, samplers: list[str]) -> None:
    """A row for every sampler and number of steps, guidance 1. The row of FEW steps has the paired gap to MANY steps: ancestral sampling
    against itself, both deterministic samplers against DDIM, as they solve the same equation from the same noise: so DDIM is sampled beside DPM-Solver++ even if not asked for. Rows already there are kept, but those of FEW and
    MANY steps are sampled again for the gap.
    """
    for family in (["ddim", "dpm++"], ["ancestral"]):
        kept, wanted = {}, [name for name in family if name in samplers]
        for sampler in [*wanted, *family[:1]] if wanted and family[0] not in wanted else wanted:
            for count in STEPS[sampler]:
                name = f"{sampler} {count}"
                if name in sweep.rows() and count not in (FEW, MANY):
                    continue
                images, seconds = sweep.sample(sampler=sampler, steps=count, guidance_scale=1.0)
                if count in (FEW, MANY):
                    kept[name] = images
                sweep.write(name, {"sampler": sampler, "steps": count, **sweep.measure(images), "seconds": round(seconds, 1)})
        if f"{family[0]} {MANY}" in kept:
            many = kept.pop(f"{family[0]} {MANY}")
            for name, images in kept.items():
                gap = kernel_distance_gap(digit_features(images), digit_features(many), sweep.reference)
                sweep.write(name, {**sweep.rows()[name], f"to_{MANY}_steps": {**{key: round(value, 5) for key, value in gap.items()},
                                                                              "pixel_rmse": round(float((images - many).square().mean().sqrt()), 4)}})


def guidance(sweep: Sweep) -> None:
    """A row for every guidance scale, with the recipe's sampler and steps; the strongest once more with guidance rescale."""
    for scale, rescale in [*((scale, 0.0) for scale in SCALES), (SCALES[-1], 0.7)]:
        images, seconds = sweep.sample(guidance_scale=scale, guidance_rescale=rescale)
        name = f"guidance {scale:g}" + (f", rescale {rescale:g}" if rescale else "")
        sweep.write(name, {"guidance_scale": scale, "rescale": rescale, **sweep.measure(images), "seconds": round(seconds, 1)})


def guidance_of_clips(model: Model, num: int, seed: int, path: Path, kind: str = "motion") -> None:
    """A row for each of CLIP_SCALES: what the judge reads off clips for `num` captions of this kind on validation digits. For choosing a scale: reported numbers are on test digits (`evaluate`).
    Rows already there are kept."""
    _rows_of_clips(model, num, seed, path, kind, {f"guidance {scale:g}": {"guidance_scale": scale, "rival_scale": 0.0} for scale in CLIP_SCALES})


def intervals_of_clips(model: Model, num: int, seed: int, path: Path, kind: str = "motion") -> None:
    """As `guidance_of_clips`, with INTERVAL_SCALE only in each of INTERVALS."""
    _rows_of_clips(model, num, seed, path, kind, {name: {"guidance_scale": 1.0} if interval is None else {"guidance_scale": INTERVAL_SCALE, "guidance_interval": interval}
                                                  for name, interval in INTERVALS.items()})


def rivals_of_clips(model: Model, num: int, seed: int, path: Path, kind: str = "motion") -> None:
    """As `guidance_of_clips`, with the recipe's guidance, away from rivals at each of RIVAL_SCALES; as a control, at the last once with rivals that stay equally likely."""
    rows = {f"rivals {scale:g}": {"rival_scale": scale} for scale in RIVAL_SCALES} | {f"rivals {RIVAL_SCALES[-1]:g}, equally likely": {"rival_scale": RIVAL_SCALES[-1], "follow_rivals": False}}
    _rows_of_clips(model, num, seed, path, kind, {name: {"guidance_scale": model.recipe.guidance_scale, **row} for name, row in rows.items()})


def temporal_of_clips(model: Model, num: int, seed: int, path: Path, kind: str | None = None) -> None:
    """A row for each of TEMPORAL_SCALES, with what else the recipe says: as `guidance_of_clips`, or for `num` clips without captions (kind None)."""
    _rows_of_clips(model, num, seed, path, kind, {f"temporal {scale:g}": {"guidance_scale": model.recipe.guidance_scale, "temporal_scale": scale} for scale in TEMPORAL_SCALES})


def _recipes_way(model: Model) -> dict[str, str | int]:
    """What rows of different guidance have in common."""
    return {"sampler": model.recipe.sampler, "steps": model.recipe.sampling_steps}


def _rows_of_clips(model: Model, num: int, seed: int, path: Path, kind: str | None, settings: dict[str, dict]) -> None:
    table = ResultRows(path, model, num, seed, **_recipes_way(model), split="validation", captions=kind)
    captions = replace(model.recipe, captions=kind).dataset("validation", 77 + seed).sample(num).captions
    reference = read((replace(model.recipe, captions=kind).dataset("validation", 78 + seed).sample(num).video + 1) / 2).features
    for name, options in settings.items():
        if name in table.rows():
            continue
        reading = read(model.sample(captions, num=num, seed=5 + seed, progress=True, **options))
        numbers = {**kernel_distance_interval(reading.features, reference), **(obeyed(reading, captions) if captions else {}), **motion(reading)}
        table.write(name, {"guidance_scale": options["guidance_scale"], **{key: round(value, 4) for key, value in numbers.items()}})


OF_CLIPS = {"guidance": guidance_of_clips, "intervals": intervals_of_clips, "rivals": rivals_of_clips, "temporal": temporal_of_clips}


@telling_of_errors()
def main() -> None:
    """Measure either curve for a shipped image model; or the second, the intervals, the rivals, or temporal guidance, for a video model."""
    parser = argparse.ArgumentParser(prog="python -m utils.sweep", description="Quality against denoising steps, against the guidance scale, with guidance in a part of the noise or away from rivals, or against the temporal scale.")
    parser.add_argument("what", choices=("steps", *OF_CLIPS))
    parser.add_argument("model", nargs="?", default="mnist-guided")
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--amp", default="auto", choices=("auto", "fp16", "bf16", "off"), help="precision of the network (default: by the device)")
    parser.add_argument("--device")
    a = parser.parse_args()
    model = load_pretrained(a.model, a.device, amp=a.amp)
    path = RESULTS / f"{a.model}-{a.what}.json"
    if model.kind == "video" and (model.recipe.captions and a.what in OF_CLIPS or a.what == "temporal"):
        OF_CLIPS[a.what](model, a.num, a.seed, path, None if model.recipe.captions is None else "motion" if model.recipe.paired else "digits")
        return
    if a.what in ("intervals", "rivals", "temporal"):
        parser.error(f"{a.model} is not a video model" + " with captions" * (a.what != "temporal"))
    if model.recipe.sample_shape[-1] != MNIST_SIZE or a.what == "guidance" and model.recipe.captions is None:
        parser.error({"steps": f"{a.model} is not an image model of single digits", "guidance": f"{a.model} is not an image model of single digits, or a video model, with captions"}[a.what])
    sweep = Sweep(model, a.num, a.seed, path, **({} if a.what == "steps" else _recipes_way(model)))
    sweep.controls()
    if a.what == "steps":
        steps(sweep, a.samplers)
    else:
        guidance(sweep)


if __name__ == "__main__":
    main()
