"""The animated figures of README and the lessons' headers, from shipped weights or from a lesson's outputs.

    python -m utils.figures [NAME...]    # all, or those named, such as 06_text_to_video or gallery
"""

from __future__ import annotations

import argparse
import shutil

import torch

from . import show
from .controls import spoiled
from .data import MovingMNIST
from .model import Model
from .pipeline import load_pipeline
from .pretrained import load_pretrained
from .runtime import ASSETS, generator, outputs, randn_per_sample, telling_of_errors
from .samplers import guided_denoiser, sample_loop

FIGURES = ASSETS / "figures"
CAPTIONS = ("3 and 7", "1 moving up and 0 moving down", "4 moving left and 8 moving up right", "2 moving right and 5 moving left",
            "9 and 6", "0 moving up left and 1 moving right", "6 moving down and 3 moving up", "7 moving down right and 4 moving left")
FROM_LESSONS = ("05_who_sees_whom", "07_packs", "08_extension", "09_pseudo_3d", "10_make_a_video", "11_interpolation", "12_pipeline", "13_scaling_up")


def film(model: Model, num: int, steps: int, every: int, sampler: str, seed: int, labels: torch.Tensor | None = None) -> torch.Tensor:
    """`num` images emerging from noise, (num, 1, frames, H, W) in [0, 1]: the noise, every `every`-th step, then a pause on the result."""
    generators = [generator(seed, i, 3) for i in range(num)]
    z = randn_per_sample(model.sample_shape, generators)
    cond = None if labels is None else model.encode(labels=labels)
    frames, schedule = [z], model.recipe.schedule
    with torch.no_grad():
        for state in sample_loop(guided_denoiser(model.net, cond, 1.0, model.prediction), z, schedule.log_snr(schedule.times(steps)), generators, sampler):
            if state.step % every == 0:
                frames.append(state.z)
    return (torch.cat(frames + [frames[-1]] * 8, dim=2).clamp(-1, 1) + 1) / 2


def denoising_gif() -> None:
    """assets/figures/01_denoising.gif: twelve digits coming out of noise (ancestral sampling, 100 steps)."""
    show.gif(film(load_pretrained("mnist-ddpm", device="cpu"), 12, 100, 5, "ancestral", seed=1), FIGURES / "01_denoising.gif", columns=6, scale=2)


def fast_samplers_gif() -> None:
    """assets/figures/02_fast_samplers.gif: a row of digits for each sampler, sixteen steps from the same noise."""
    model, labels = load_pretrained("mnist-guided", device="cpu"), torch.arange(10)
    rows = [film(model, 10, 16, 1, sampler, 2, labels) for sampler in ("ancestral", "ddim", "dpm++")]
    show.gif(torch.cat(rows), FIGURES / "02_fast_samplers.gif", columns=10, scale=2, fps=4)


def guidance_gif() -> None:
    """assets/figures/03_guidance.gif: two rows of the digits 0 to 9 while the guidance scale rises."""
    model = load_pretrained("mnist-guided", device="cpu")
    frames = [model.sample(labels=torch.arange(10).repeat(2), guidance_scale=g, seed=3) for g in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)]
    show.gif(torch.cat(frames + frames[-1:] * 3, dim=2), FIGURES / "03_guidance.gif", columns=10, scale=2, fps=2)


def controls_gif() -> None:
    """assets/figures/04_controls.gif: a real clip (top left), and the same clip spoiled in seven ways, in the order of `controls.spoiled`."""
    real = (MovingMNIST("test", seed=8).sample(1).video + 1) / 2
    show.gif(torch.cat([real, *spoiled(1, seed=8).values()]), FIGURES / "04_controls.gif", columns=4, scale=3)


def text_to_video_gif() -> None:
    """assets/figures/06_text_to_video.gif: one clip for each of CAPTIONS, seed 0, none rejected."""
    show.gif(load_pretrained("vdm-text", device="cpu").sample(list(CAPTIONS), seed=0), FIGURES / "06_text_to_video.gif", columns=4, scale=3)


def real_clips(captions: list[str]) -> torch.Tensor:
    """The first held-out clip with each caption, (N, 1, 16, 32, 32) in [0, 1]."""
    found: dict[str, torch.Tensor] = {}
    for index in range(64):
        for kind in ("digits", "motion"):
            batch = MovingMNIST("test", seed=3, captions=kind).sample(512, index=index)
            for row, caption in enumerate(batch.captions):
                found.setdefault(caption, batch.video[row])
        if all(caption in found for caption in captions):
            return (torch.stack([found[caption] for caption in captions]) + 1) / 2
    raise ValueError(f"Found no clips for some of {captions} among {64 * 512:,}.")


def gallery() -> None:
    """assets/figures/gallery_*.gif: a row of clips, or images, for the first four of CAPTIONS (of the pipeline: two): real ones, and those of each model of Moving MNIST. Seed 0, none rejected."""
    captions = list(CAPTIONS[:4])
    rows = {"real": real_clips(captions)}
    for name in ("vdm-text", "vdm", "mav"):
        model = load_pretrained(name, device="cpu")
        rows[name] = model.sample(captions, seed=0) if model.recipe.captions else model.sample(num=len(captions), seed=0)
    for name, clips in rows.items():
        show.gif(clips, FIGURES / f"gallery_{name}.gif", scale=3)
    show.gif(load_pretrained("mav-image", device="cpu").sample(captions, seed=0), FIGURES / "gallery_mav-image.gif", scale=3)
    show.gif(load_pipeline("mav", device="cpu")(captions[:2], steps=16, progress=False), FIGURES / "gallery_pipeline.gif", columns=2, scale=3, fps=30)


def from_lesson(name: str) -> None:
    """assets/figures/NAME.gif copied from the outputs folder, where the lesson of that number put it; SystemExit if missing."""
    made = outputs() / f"{name}.gif"
    if not made.exists():
        raise SystemExit(f"error: {made.name} is not in {outputs().name}/. Make it with: python -m utils.notebooks run {name[:2]}")
    shutil.copyfile(made, FIGURES / made.name)


MADE_HERE = {"01_denoising": denoising_gif, "02_fast_samplers": fast_samplers_gif, "03_guidance": guidance_gif, "04_controls": controls_gif,
             "06_text_to_video": text_to_video_gif, "gallery": gallery}


@telling_of_errors()
def main() -> None:
    """Make the figures named, or all."""
    parser = argparse.ArgumentParser(prog="python -m utils.figures", description="Make the moving figures.")
    parser.add_argument("names", nargs="*", choices=[*MADE_HERE, *FROM_LESSONS, []], metavar="NAME",  # []: none named
                        help=", ".join([*MADE_HERE, *FROM_LESSONS]))
    for name in parser.parse_args().names or [*MADE_HERE, *FROM_LESSONS]:
        MADE_HERE[name]() if name in MADE_HERE else from_lesson(name)


if __name__ == "__main__":
    main()
