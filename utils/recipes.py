"""Every model of the series as one frozen dataclass: the single place where a configuration lives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate

import torch

from .data import FINE_FPS, FINE_SPEED, MNIST, MovingMNIST
from .diffusion import PREDICTIONS
from .runtime import BUDGETS
from .schedule import CosineSchedule, LinearBetaSchedule, Schedule, in_float64
from .unet import UNetConfig

KINDS = ("image", "video", "interpolate", "upsample")
MNIST_SIZE = 28  # pixels: recipes of this size learn from single digits, all others from Moving MNIST


@dataclass(frozen=True)
class Budget:
    """How long to train: optimizer steps, and samples a step. Those for GPUs have steps so large that the GPU sets the pace, not the CPU, which starts some thousand
    kernels for each: with `vdm-text` in float16 an H100 took 94 ms for a step of 16 clips, and 131 ms for one of 64."""

    steps: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"Training takes at least 1 step of at least 1 sample, not {self.steps} of {self.batch_size}.")


@dataclass(frozen=True)
class Practice:
    """A part of a curriculum: for a `share` of a run's steps, clips of `num_digits` digits, no caption dropped and no images packed with the clips, at a
    log-SNR that is uniform (as t is) from `strongest` to `weakest`: where the noise still hides what the caption tells. Captions have directions; but with `clearer` they are
    the recipe's own, and all digits but one have up to so much more log-SNR, so that the network can learn to see by them which one is missing (`utils.neighbours`)."""

    share: float
    num_digits: int
    strongest: float
    weakest: float
    clearer: float = 0.0

    def __post_init__(self) -> None:
        if self.clearer < 0 or self.clearer and self.num_digits < 2:
            raise ValueError(f"clearer is how much more log-SNR all digits but one have, at least 0, and more than that only with two digits or more; got {self.clearer} with {self.num_digits}.")
        if self.strongest > self.weakest:
            raise ValueError(f"The strongest noise has the lowest log-SNR; got {self.strongest} for it and {self.weakest} for the weakest.")

    def log_snr(self, t: torch.Tensor) -> torch.Tensor:
        """t in [0, 1], any shape -> log-SNR, float64, same shape: a straight line from the weakest noise to the strongest."""
        return self.weakest + (self.strongest - self.weakest) * in_float64(t)


@dataclass(frozen=True)
class Curriculum:
    """Easier tasks, one after the other, before the recipe's own (curriculum learning: Bengio et al., ICML 2009). Afterwards every `rehearsal`-th
    step practises the last of them, lest it be forgotten (0: none)."""

    practices: tuple[Practice, ...]
    rehearsal: int = 4

    def __post_init__(self) -> None:
        if not self.practices or min(part.share for part in self.practices) < 0 or self.share > 1:
            raise ValueError(f"A curriculum has one practice or more, whose shares of the steps are not negative and add up to at most 1; got {[part.share for part in self.practices]}.")
        if self.rehearsal < 0:
            raise ValueError(f"rehearsal is every so-many-th step, or 0 for none, not {self.rehearsal}.")

    @property
    def share(self) -> float:
        """The share of a run's steps before the recipe's own task."""
        return sum(part.share for part in self.practices)

    @property
    def hides(self) -> bool:
        """Whether a practice shows some digits more clearly than another."""
        return any(part.clearer for part in self.practices)

    def with_share(self, share: float) -> Curriculum:
        """The same, scaled to `share`."""
        return replace(self, practices=tuple(replace(part, share=part.share * share / self.share) for part in self.practices))

    def ends(self, steps: int) -> list[int]:
        """After how many of a run's `steps` each practice ends."""
        return [round(share * steps) for share in accumulate(part.share for part in self.practices)]

    def at(self, step: int, steps: int) -> Practice | None:
        """What is practised in a step (from 0) of a run of `steps`; None in a step of the recipe's own task."""
        for part, end in zip(self.practices, self.ends(steps)):
            if step < end:
                return part
        return self.practices[-1] if self.rehearsal and step % self.rehearsal == 0 else None


@dataclass(frozen=True)
class Recipe:
    """A model: what it is, what it learns from, how it is trained, how it is sampled.

    sample_shape: (C, T, H, W). budgets: one Budget per name in `runtime.BUDGETS`. num_images: independent images packed with each
    clip in training (*Video Diffusion Models*, section 4.3.1). null_probability: how often a caption is dropped in training, so that
    the null condition is learnt (classifier-free guidance); 1: the model learns from clips without captions, and what it knows of captions is in the weights it starts from. guidance_scale, rival_scale, temporal_scale, sampler, sampling_steps, fps: sampling defaults.
    initial: a shipped model whose weights it starts from. frozen: a shipped model whose weights, where this one has them too, stay as they are.
    recaptioned: clips come without captions, and get those that `utils.captioner` reads off their frames.
    frame_skips: learn from clips at FINE_FPS / k frames a second for each k, moving from the first to the last (`frame_skip`), which is that of `fps`.
    curriculum: what training begins with, if not with the task itself.
    """

    name: str
    kind: str  # "image" | "video" | "interpolate" | "upsample"
    prediction: str  # "eps" | "x" | "v" | "flow"
    schedule: Schedule
    net: UNetConfig
    sample_shape: tuple[int, int, int, int]
    budgets: dict[str, Budget]
    captions: str | None = None
    num_images: int = 0
    learning_rate: float = 4e-3
    ema_decay: float = 0.999
    null_probability: float = 0.0
    min_snr: float | None = None
    guidance_scale: float = 1.0
    rival_scale: float = 0.0
    temporal_scale: float = 1.0
    sampler: str = "ddim"
    sampling_steps: int = 32
    initial: str | None = None
    frozen: str | None = None
    recaptioned: bool = False
    frame_skips: tuple[int, ...] = ()
    fps: float | None = None
    curriculum: Curriculum | None = None

    def __post_init__(self) -> None:
        if self.recaptioned and self.num_images:
            raise ValueError(f"A captioner describes clips, not the images packed with them: recaptioned needs num_images=0, not {self.num_images}.")
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {', '.join(PREDICTIONS)}, not {self.prediction!r}.")
        if self.prediction == "eps" and self.schedule.log_snr(1.0) == -math.inf:
            raise ValueError("A schedule that ends in pure noise leaves a network with prediction='eps' nothing to infer the data from: "
                             "use prediction 'v', 'x' or 'flow'.")
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}.")
        if self.num_images < 0 or self.num_images and self.sample_shape[1] == 1:
            raise ValueError(f"num_images is for clips, and at least 0; got {self.num_images} for samples of one frame.")
        if bool(self.frame_skips) != self.net.frame_rate or self.net.frame_rate and self.fps is None:
            raise ValueError("A network that takes frames a second needs frame_skips to learn from and fps to sample at, and no other does.")

    @property
    def paired(self) -> bool:
        """Whether its samples come with true captions: not if they have none, or only the captioner's."""
        return self.captions is not None and self.null_probability < 1 and not self.recaptioned

    def dataset(self, split: str = "train", seed: int = 0, device: torch.device | str = "cpu",
                num_frames: int | None = None, num_digits: int = 2) -> MNIST | MovingMNIST:
        """The data that the recipe learns from, at the frame rate `fps` if it has one; num_frames: clips of another length; num_digits: of Moving MNIST."""
        if self.sample_shape[-1] == MNIST_SIZE:
            return MNIST(split, seed, device=device)
        clock = {"speed": FINE_SPEED, "frame_skip": round(FINE_FPS / self.fps)} if self.frame_skips else {}
        return MovingMNIST(split, seed, image_size=self.sample_shape[-1], num_frames=num_frames or self.sample_shape[1],
                           num_digits=num_digits, captions=self.captions, device=device, **clock)

    def frame_skip(self, progress: float, g: torch.Generator) -> int:
        """The frame skip of a training step, drawn from frame_skips around a centre that moves from the first to the last in the first half of training
        (*Make-A-Video*, section 3.2: from high to low frame rates); progress from 0 to 1."""
        centre = (len(self.frame_skips) - 1) * min(1.0, 2 * progress)
        weights = torch.exp(-(torch.arange(len(self.frame_skips)) - centre).abs())
        return self.frame_skips[int(torch.multinomial(weights, 1, generator=g))]

    def budget(self, name: str) -> Budget:
        """The budget of that name; ValueError for an unknown one."""
        if name not in self.budgets:
            raise ValueError(f"Unknown budget {name!r}; it must be one of {', '.join(BUDGETS)}.")
        return self.budgets[name]


MNIST_DDPM = Recipe(
    name="mnist-ddpm", kind="image", prediction="eps", schedule=LinearBetaSchedule(),
    net=UNetConfig(channels=(32, 64, 64), blocks=(1, 1, 1), space=(False, False, True), time=(False, False, False)),
    sample_shape=(1, 1, 28, 28),
    sampler="ancestral", sampling_steps=1000,
    budgets={"smoke": Budget(10, 16), "cpu": Budget(150, 64), "t4": Budget(6000, 128), "t4-long": Budget(18000, 128)})

MNIST_GUIDED = Recipe(  # lesson 01's network with a text encoder; a label is the caption that names it
    name="mnist-guided", kind="image", prediction="v", schedule=CosineSchedule(),
    net=UNetConfig(channels=(32, 64, 64), blocks=(1, 1, 1), space=(False, False, True), time=(False, False, False), text_width=32),
    sample_shape=(1, 1, 28, 28), captions="digits", null_probability=0.1,
    budgets={"smoke": Budget(10, 16), "cpu": Budget(150, 64), "t4": Budget(6000, 128), "t4-long": Budget(18000, 128)})

VDM_TEXT = Recipe(
    name="vdm-text", kind="video", prediction="v", schedule=CosineSchedule(shift=-2.0),
    net=UNetConfig(channels=(16, 32, 96, 128), blocks=(1, 1, 1, 1), space=(False, False, True, True), time=(False, False, True, True), text_width=64),
    sample_shape=(1, 16, 32, 32), captions="mixed", num_images=8, null_probability=0.1,
    guidance_scale=2.0, rival_scale=2.0, sampler="ancestral",
    curriculum=Curriculum((Practice(0.25, 1, -7.0, -3.0), Practice(0.2, 2, -7.0, -1.0))),
    budgets={"smoke": Budget(3, 2), "cpu": Budget(100, 4), "t4": Budget(9600, 32), "t4-long": Budget(28700, 32)})  # practice has no images packed: more steps for the same FLOPs

VDM = replace(VDM_TEXT, name="vdm", net=replace(VDM_TEXT.net, text_width=None), captions=None, null_probability=0.0, guidance_scale=1.0, rival_scale=0.0, temporal_scale=1.3, curriculum=None,
              budgets=VDM_TEXT.budgets | {"t4": Budget(7500, 32), "t4-long": Budget(23000, 32)})

MAV_IMAGE = replace(VDM_TEXT, name="mav-image", kind="image", net=replace(VDM_TEXT.net, time=(False,) * 4), sample_shape=(1, 1, 32, 32), num_images=0,
                    curriculum=Curriculum((Practice(0.2, 2, -4.0, 0.0, clearer=6.0), Practice(0.15, 2, -2.5, 0.5, clearer=2.0)), rehearsal=2),
                    null_probability=0.2, guidance_scale=4.0, rival_scale=0.0,
                    budgets={"smoke": Budget(5, 8), "cpu": Budget(150, 16), "t4": Budget(2500, 512), "t4-long": Budget(7500, 512)})

MAV = replace(MAV_IMAGE, name="mav", kind="video", net=replace(VDM_TEXT.net, pseudo_3d=True, frame_rate=True), sample_shape=(1, 16, 32, 32), curriculum=None,
              null_probability=0.1, recaptioned=True, guidance_scale=2.0, initial="mav-image", frozen="mav-image", frame_skips=(1, 2, 3, 4, 5), fps=6.0,
              budgets={"smoke": Budget(3, 2), "cpu": Budget(100, 4), "t4": Budget(3000, 64), "t4-long": Budget(9000, 64)})

MAV_INTERPOLATE = replace(MAV, name="mav-interpolate", kind="interpolate", net=replace(MAV.net, conditioning="frames"), initial="mav", null_probability=1.0, recaptioned=False, guidance_scale=1.0, sampler="ddim",
                          frame_skips=(5, 4, 3, 2, 1), fps=30.0,
                          budgets={"smoke": Budget(3, 2), "cpu": Budget(100, 4), "t4": Budget(3000, 64), "t4-long": Budget(9000, 64)})

MAV_UPSAMPLE = Recipe(  # of single frames
    name="mav-upsample", kind="upsample", prediction="v", schedule=CosineSchedule(shift=-1.0),
    net=UNetConfig(channels=(24, 48, 96), blocks=(1, 1, 1), space=(False, False, True), time=(False,) * 3, stem=2, text_width=32, conditioning="low_res"),
    sample_shape=(1, 1, 64, 64), captions="digits", null_probability=0.5,
    budgets={"smoke": Budget(3, 4), "cpu": Budget(100, 16), "t4": Budget(3000, 256), "t4-long": Budget(9000, 256)})

RECIPES = {recipe.name: recipe for recipe in (MNIST_DDPM, MNIST_GUIDED, VDM, VDM_TEXT, MAV_IMAGE, MAV, MAV_INTERPOLATE, MAV_UPSAMPLE)}


def recipe(name: str) -> Recipe:
    """The recipe of that name; ValueError with the names that exist."""
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe {name!r}; there are {', '.join(RECIPES)}.")
    return RECIPES[name]
