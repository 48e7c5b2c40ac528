"""Practice of one digit beside others that can be seen better: what a model has to learn before it can tell which digits are still missing.

Trained on its own task alone, a small model draws each of two digits nearly as if the other were not there: one noise hides both, so what either tells about the other is little, and
"3 and 7" often becomes two threes. Here all digits but one have weaker noise (Diffusion Forcing, arXiv 2407.01392, gives every frame noise of its own), the loss is taken where the hidden one
is, and two linear readers have to name the digits from the network's features (deep supervision, arXiv 1409.5185): a network that only removes noise has no use for the name of what is clear.
The readers are dropped after training.

    python -m utils.neighbours mav-image [--num 512]                    # or runs/mav-image/mav-image.pt: does it use what a clear neighbour tells?
    python -m utils.neighbours mav-image --keep "with practice"         # files that under this name in assets/results/mav-image-neighbours.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .captions import Caption
from .data import CANVAS, DIGIT, Batch
from .diffusion import q_sample, target
from .hearing import RESULTS, outputs
from .metrics import obeyed, read
from .model import Model
from .pretrained import load_model
from .recipes import MNIST_SIZE
from .runtime import generator, telling_of_errors, write_json
from .unet import UNetConfig

NAMING = 0.3  # weight of the readers' cross-entropy beside the loss
WATCHED = {"image": -1.5, "video": -5.0}  # log-SNR at which a caption still helps with digits
CLEARER = (0.0, 2.0, 6.0)


def squares(position: torch.Tensor, image_size: int) -> torch.Tensor:
    """position (B, D, T, 2) in pixels, as in `Batch` -> (B, D, T, H, W) float32: 1 in the square that a digit is drawn in, pixels that it covers in part included."""
    side, pixel = DIGIT * image_size / CANVAS, torch.arange(image_size, device=position.device)
    rows, columns = ((pixel > corner[..., None] - 1) & (pixel < corner[..., None] + side) for corner in position.unbind(-1))
    return (rows[..., :, None] & columns[..., None, :]).float()


@dataclass(frozen=True)
class Neighbours:
    """Who is where in a batch of B clips with D digits each, and which of them is hidden.

    alone (B, D, T, H, W): 1 where a digit's square overlaps no other's. labels (B, D). hidden (B,): index of a digit. clearer (B,): how much log-SNR more the others have where they are alone.
    """

    alone: torch.Tensor
    labels: torch.Tensor
    hidden: torch.Tensor
    clearer: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, hidden: torch.Tensor, clearer: torch.Tensor) -> Neighbours:
        """From a batch with labels and positions, on the device of its video."""
        position, labels, hidden, clearer = (tensor.to(batch.video.device) for tensor in (batch.position, batch.labels, hidden, clearer))
        square = squares(position, batch.video.shape[-1])
        return cls(square * (square.sum(dim=1, keepdim=True) == 1), labels, hidden, clearer)

    @property
    def is_hidden(self) -> torch.Tensor:
        """(B, D): 1 for the hidden digit."""
        return F.one_hot(self.hidden, self.labels.shape[1]).float()

    def log_snr(self, log_snr: torch.Tensor) -> torch.Tensor:
        """The clips' log_snr (B,) -> that of every pixel, (B, 1, T, H, W)."""
        others = torch.einsum("b d, b d t h w -> b t h w", 1 - self.is_hidden, self.alone)
        return (log_snr.view(-1, 1, 1, 1) + self.clearer.view(-1, 1, 1, 1) * others)[:, None]

    def loss(self, output: torch.Tensor, x: torch.Tensor, eps: torch.Tensor, log_snr: torch.Tensor, prediction: str) -> torch.Tensor:
        """(B,) mean squared error where the hidden digit is alone, in float32; 0 where it never is. Arguments as for `diffusion.loss_per_sample`."""
        error = (output.float() - target(x, eps, log_snr, prediction).float()).square().mean(dim=1)
        where = torch.einsum("b d, b d t h w -> b t h w", self.is_hidden, self.alone)
        return (error * where).flatten(1).sum(dim=1) / where.flatten(1).sum(dim=1).clamp(min=1)


class Readers(nn.Module):
    """Two linear readers of the network's features at its finest level with attention over space: the first names the clear digits on the way down, so that what they are is known
    before attention carries it on; the second the hidden one on the way up."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.level = config.space.index(True)
        self.down, self.up = (nn.Conv2d(config.channels[self.level], 10, 1) for _ in range(2))

    def forward(self, features: dict[tuple[str, int], torch.Tensor], neighbours: Neighbours) -> torch.Tensor:
        """`UNet` features -> (B,) cross-entropy in nats, that of the first reader where clear digits are alone and that of the second where the hidden one is, added up."""
        down, up = self.down(features["down", self.level].float()), self.up(features["up", self.level].float())
        return self._named(down, neighbours, 1 - neighbours.is_hidden) + self._named(up, neighbours, neighbours.is_hidden)

    @staticmethod
    def _named(logits: torch.Tensor, neighbours: Neighbours, which: torch.Tensor) -> torch.Tensor:
        b, d, t, *_ = neighbours.alone.shape
        share = F.adaptive_avg_pool2d(neighbours.alone.flatten(1, 2), logits.shape[-2:]).view(b, d, t, *logits.shape[-2:])  # of a cell
        share = share * which[:, :, None, None, None]
        log_probability = rearrange(logits.log_softmax(dim=1), "(b t) digit h w -> b digit t h w", b=b)
        named = log_probability.gather(1, neighbours.labels[:, :, None, None, None].expand(-1, -1, *log_probability.shape[2:]))
        return -(share * named).flatten(1).sum(dim=1) / share.flatten(1).sum(dim=1).clamp(min=1)


def _batch(model: Model, num: int, seed: int) -> Batch:
    if model.kind not in WATCHED or not model.recipe.captions or model.sample_shape[-1] == MNIST_SIZE:
        raise ValueError(f"{model.name} does not draw moving digits from captions: take mav-image or vdm-text.")
    return replace(model.recipe, captions="digits").dataset("test", seed).sample(num)


@torch.no_grad()
def worth_of_telling(model: Model, num: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """How much lower the loss on a hidden digit is with a caption that names that digit twice, by how much clearer the other digit is, CLEARER in log-SNR: mean and standard error over the `n` of
    `num` test clips whose two digits differ; loss: that with the true caption. For a model that knows from a clear neighbour which digit is missing, such a caption tells nothing new: 0.

    Raises ValueError for a model without captions, or not of two moving digits.
    """
    batch = _batch(model, num, seed)
    differ = batch.labels[:, 0] != batch.labels[:, 1]
    told = [str(Caption((digit, digit))) for digit in batch.labels[:, 0].tolist()]
    eps, log_snr, rows = torch.randn(batch.video.shape, generator=generator(seed)), torch.full((num,), WATCHED[model.kind]), {}
    for clearer in CLEARER:
        neighbours = Neighbours.of(batch, torch.zeros(num, dtype=torch.long), torch.full((num,), clearer))
        z = q_sample(batch.video, neighbours.log_snr(log_snr), eps)
        true, twice = (neighbours.loss(outputs(model, z, log_snr, model.encode(captions)), batch.video, eps, log_snr, model.prediction)[differ] for captions in (batch.captions, told))
        less = true - twice
        rows[f"{clearer:g}"] = {"mean": round(float(less.mean()), 7), "standard_error": round(float(less.std() / len(less) ** 0.5), 7), "loss": round(float(true.mean()), 5), "n": len(less)}
    return rows


def drawn(model: Model, num: int, seed: int = 0) -> dict[str, float | int]:
    """How many of `num` samples, sampled as the model's recipe has it for test captions without motion, but not away from rivals, which would hide what was learnt, show both digits, and how many one of them
    twice: `digits` and `twice` of `metrics.obeyed`, with intervals; guidance_scale. A still frame is read as a still clip. Raises as `worth_of_telling`."""
    captions = _batch(model, num, seed).captions
    found = obeyed(read(model.sample(captions, seed=seed, rival_scale=0.0).expand(-1, -1, 16, -1, -1)), captions)
    return {key: round(value, 4) for key, value in found.items()} | {"guidance_scale": model.recipe.guidance_scale}


@telling_of_errors()
def main() -> None:
    """Print what `worth_of_telling` finds for the model, or the weights, named on the command line; with --keep, file it together with what is `drawn`."""
    parser = argparse.ArgumentParser(prog="python -m utils.neighbours", description="Does a model use what a clear neighbour tells about a hidden digit?")
    parser.add_argument("model", nargs="?", default="mav-image", help="a shipped model's name, or weights that a run has written (.pt)")
    parser.add_argument("--keep", metavar="NAME", help="also sample from captions, and file all numbers under this name with the results")
    parser.add_argument("--num", type=int, default=512, help="clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--amp", default="auto", choices=("auto", "fp16", "bf16", "off"), help="precision of the network (default: by the device)")
    parser.add_argument("--device")
    a = parser.parse_args()
    model = load_model(a.model, a.device, a.amp)
    rows = worth_of_telling(model, a.num, a.seed)
    print(f"{'neighbour clearer by':>20s}{'loss':>8s}   lower if told twice, in 1/10,000, with standard error")
    for clearer, row in rows.items():
        print(f"{clearer:>20s}{row['loss']:8.4f}{1e4 * row['mean']:+9.1f} ± {1e4 * row['standard_error']:.1f}")
    if a.keep:
        path = RESULTS / f"{model.name}-neighbours.json"
        write_json(path, {**(json.loads(path.read_text()) if path.exists() else {}), a.keep: {"trained": model.provenance, "log_snr": WATCHED[model.kind], "seed": a.seed, "rows": rows,
                                                                                                       "drawn": drawn(model, a.num, a.seed)}})


if __name__ == "__main__":
    main()
