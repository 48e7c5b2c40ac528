"""Clips spoiled on purpose: flaws a good metric must notice, and a change that it must not."""

from __future__ import annotations

import torch

from .data import SPEED, MovingMNIST
from .runtime import generator

REVERSED = "real clips backwards (should pass)"


def spoiled(num: int, num_frames: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    """Clips (num, 1, num_frames, 32, 32) in [0, 1] by the name of their flaw, made from `MovingMNIST("test", seed, num_frames=num_frames).sample(num)`.

    They keep that sample's digits, places and directions, except for what the name says (digits that change become others, from the validation digits; noise keeps nothing). Backwards is the opposite kind of control: bouncing looks the same in both
    directions of time (except for the clamp at the walls), so a metric of the clips alone must not rise.
    """

    def clips(split: str = "test", **options) -> torch.Tensor:
        return (MovingMNIST(split, seed, num_frames=num_frames, captions=None, **options).sample(num).video + 1) / 2

    real, g = clips(), generator(seed, 7)
    order = torch.rand(num, num_frames, generator=g).argsort(1)
    half = num_frames // 2
    return {"control: frozen first frame": real[:, :, :1].expand_as(real),
            "control: frames shuffled": real[torch.arange(num)[:, None], :, order].transpose(1, 2),
            "control: half speed": clips(speed=SPEED / 2),
            "control: digits 0 to 4 alone": clips(digits=range(5)),
            "control: digits change half-way": torch.cat([real[:, :, :half], clips("validation")[:, :, half:]], dim=2),
            "control: noise": torch.rand(real.shape, generator=g),
            REVERSED: real.flip(2)}
