"""Clips that were spoiled on purpose: what a good number must notice, and one that it must not."""

from __future__ import annotations

import torch

from .data import SPEED, MovingMNIST
from .runtime import generator

REVERSED = "real clips backwards (should pass)"


def spoiled(num: int, num_frames: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    """Clips (num, 1, num_frames, 32, 32) in [0, 1] by name of what is wrong with them, made from `MovingMNIST("test", seed, num_frames=num_frames).sample(num)`.

    Same digits, places and directions as there, but for the one thing that the name says (digits that change become other ones, of the validation digits). Backwards is a control of the other kind: bouncing looks the same in both
    directions of time (but for the clamp at the walls), so a number that speaks of the clips alone must not rise.
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
