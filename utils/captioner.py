"""A captioner that gives clips the captions nobody wrote: it learns from captioned images which two digits a picture shows, and names those of a clip's frames.

Layers over time that never meet a condition in training are in the way of one in sampling. *Make-A-Video* has the same need: its decoder always gets the CLIP embedding of a picture, in
text-to-video one made from the text. Here the picture's part is put into words (as captioners do for the clips of later models), and these go through the image model's own text encoder.
What it says of a clip comes from one frame at a time. So where it names directions, as half of the images' captions do, they are guesses.

    python -m utils.captioner     # trains it on the images of mav-image, writes assets/checkpoints/captioner.pt, and prints how often it is right
"""

from __future__ import annotations

import argparse
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .captions import DIRECTIONS, Caption, parse
from .data import Batch, MovingMNIST
from .judge import convolution, load_frozen, save_frozen, train
from .runtime import generator, telling_of_errors

PAIRS = torch.combinations(torch.arange(10), with_replacement=True)  # (55, 2): what a picture of two digits can show
EVERY = 4  # frames of a clip that are looked at


class Captioner(nn.Module):
    """Pictures (B, 1, H, W) of two digits in [-1, 1] -> logits (B, 55) of the PAIRS."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(1, 32, 5, 2), convolution(32, 64, 3, 2), convolution(64, 128, 3, 1), convolution(128, 128, 3, 2), convolution(128, 128, 3, 1))
        self.head = nn.Sequential(nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, len(PAIRS)))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = self.body(pictures)
        return self.head(torch.cat([x.amax((2, 3)), x.mean((2, 3))], dim=1))

    def loss(self, batch: Batch, device: torch.device, g: torch.Generator) -> torch.Tensor:
        """Cross-entropy of captioned pictures; g, for networks whose loss draws at random, is not used."""
        return F.cross_entropy(self(batch.video[:, :, 0].to(device)).float(), pair_of(batch.captions).to(device))

    @torch.no_grad()
    def captions(self, clips: torch.Tensor, chance: torch.Tensor) -> list[str]:
        """Clips (B, 1, T, H, W) in [-1, 1] -> a caption each. The digits are the likeliest pair in all that every fourth frame says by itself.

        chance: (B, 4) on the CPU, uniform from 0 to 1, decides what a frame does not tell: which digit comes first, whether directions are named (half of the captions that it learnt from
        do), and which."""
        frames = clips[:, :, ::EVERY]
        said = self(rearrange(frames, "b c t h w -> (b t) c h w")).float().log_softmax(1)
        pairs = PAIRS[rearrange(said, "(b t) pair -> b t pair", b=len(clips)).sum(1).argmax(1).cpu()]
        pairs = torch.where(chance[:, :1] < 0.5, pairs.flip(1), pairs)
        return [str(Caption(tuple(pair), tuple(guess) if named else None)) for pair, named, guess in zip(pairs.tolist(), chance[:, 1] < 0.5, (chance[:, 2:] * len(DIRECTIONS)).long().tolist())]


def pair_of(captions: list[str]) -> torch.Tensor:
    """The place in PAIRS of the two digits that each caption names, (B,) int64."""
    low, high = torch.tensor([sorted(parse(text).digits) for text in captions]).unbind(1)
    return low * 10 - low * (low - 1) // 2 + high - low


@lru_cache
def load_captioner() -> Captioner:
    """The shipped captioner, on the CPU. WeightsError says how to make it."""
    return load_frozen(Captioner(), "captioner", "python -m utils.captioner")


def right(captioner: Captioner, num: int = 1024, seed: int = 0) -> dict[str, float]:
    """The shares of test pictures and of test clips whose two digits it names."""
    shares = {}
    for what, frames in (("pictures", 1), ("clips", 16)):
        batch = MovingMNIST("test", seed=seed, image_size=32, num_frames=frames, captions="digits").sample(num)
        shares[what] = float((pair_of(captioner.captions(batch.video, torch.rand(num, 4, generator=generator(seed)))) == pair_of(batch.captions)).double().mean())
    return shares


@telling_of_errors()
def main() -> None:
    """Train the captioner, save it, and print how often it is right."""
    parser = argparse.ArgumentParser(prog="python -m utils.captioner", description="Train the reader of pictures that gives clips captions.")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--device")
    a = parser.parse_args()
    torch.manual_seed(0)
    captioner = Captioner()
    train(captioner, [MovingMNIST("train", seed=2, image_size=32, num_frames=1, captions="mixed")], 128, a.steps, a.device)  # what mav-image learns from
    save_frozen(captioner, "captioner")
    print("both digits named: " + ", ".join(f"{share:.1%} of test {what}" for what, share in right(captioner).items()))


if __name__ == "__main__":
    main()
