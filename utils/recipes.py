"""Every model of the series as one frozen dataclass: the single place where a configuration lives."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .data import MNIST, MovingMNIST
from .runtime import BUDGETS
from .schedule import CosineSchedule, LinearBetaSchedule, Schedule
from .unet import UNetConfig


@dataclass(frozen=True)
class Recipe:
    """A model: what it is, what it learns from, how it is trained, how it is sampled.

    sample_shape: (C, T, H, W). steps: optimizer steps for each budget. null_probability: how often a caption is dropped
    in training, so that the null condition is learnt (classifier-free guidance). guidance_scale: the default in sampling.
    sampler, sampling_steps: likewise.
    """

    name: str
    kind: str  # "image" | "video"
    prediction: str  # "eps" | "x" | "v"
    schedule: Schedule
    net: UNetConfig
    sample_shape: tuple[int, int, int, int]
    steps: dict[str, int]
    captions: str | None = None
    batch_size: int = 16
    learning_rate: float = 1e-3
    ema_decay: float = 0.999
    null_probability: float = 0.0
    min_snr: float | None = None
    guidance_scale: float = 1.0
    sampler: str = "ddim"
    sampling_steps: int = 32

    def dataset(self, split: str = "train", seed: int = 0, device: torch.device | str = "cpu") -> MNIST | MovingMNIST:
        """The data that the recipe learns from."""
        if self.kind == "image":
            return MNIST(split, seed, device=device)
        return MovingMNIST(split, seed, image_size=self.sample_shape[-1], num_frames=self.sample_shape[1],
                           captions=self.captions, device=device)

    def steps_for(self, budget: str) -> int:
        """Optimizer steps of a budget; ValueError for an unknown one."""
        if budget not in self.steps:
            raise ValueError(f"Unknown budget {budget!r}; it must be one of {', '.join(BUDGETS)}.")
        return self.steps[budget]


MNIST_DDPM = Recipe(
    name="mnist-ddpm", kind="image", prediction="eps", schedule=LinearBetaSchedule(),
    net=UNetConfig(channels=(32, 64, 64), blocks=(1, 1, 1), space=(False, False, True), time=(False, False, False)),
    sample_shape=(1, 1, 28, 28), batch_size=64, learning_rate=1e-3,
    sampler="ancestral", sampling_steps=1000,
    steps={"smoke": 10, "cpu": 150, "t4": 8000, "t4-long": 24000})

VDM_TEXT = Recipe(
    name="vdm-text", kind="video", prediction="v", schedule=CosineSchedule(shift=-2.0),
    net=UNetConfig(channels=(16, 32, 96, 128), blocks=(1, 1, 1, 1), space=(False, False, True, True), time=(False, False, True, True), text_width=64),
    sample_shape=(1, 16, 32, 32), captions="mixed", batch_size=16, learning_rate=1e-3, null_probability=0.1,
    guidance_scale=2.0, steps={"smoke": 3, "cpu": 60, "t4": 20000, "t4-long": 60000})

RECIPES = {recipe.name: recipe for recipe in (MNIST_DDPM, VDM_TEXT)}


def recipe(name: str) -> Recipe:
    """The recipe of that name; ValueError with the names that exist."""
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe {name!r}; there are {', '.join(RECIPES)}.")
    return RECIPES[name]
