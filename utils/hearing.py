"""Does a model hear a word? What a false caption costs, on real clips: the loss with it minus the loss with the true one, in the same noise.

    python -m utils.hearing vdm-text [--num 256] [--num-digits 1]           # or runs/vdm-text/vdm-text.pt
    python -m utils.train vdm-text --hear 200 --out runs/a                  # tracks it during a run
    python -m utils.hearing vdm-text --keep runs/a "from nothing"           # saves that under this name in assets/results/vdm-text-hearing.json

A word that costs nothing when false is not heard, however low the loss. Sampling would show it too, but with randomness of its own and at a hundred times the cost.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from .captions import DIRECTIONS, Caption, parse
from .data import Batch, DataError
from .diffusion import loss_per_sample, q_sample
from .model import Model
from .pretrained import load_model
from .recipes import recipe
from .runtime import ASSETS, autocast, generator, telling_of_errors, write_json

RESULTS = ASSETS / "results"
LEVELS = (-8.0, -6.0, -4.0, -2.0)  # log-SNR: from where nothing can be seen to where shapes can be guessed
WATCHED = -5.0  # log-SNR: where a direction costs most
CHUNK = 16


def wrong_digits(text: str) -> str:
    """The caption with every digit plus 3, mod 10."""
    said = parse(text)
    return str(Caption(tuple((digit + 3) % 10 for digit in said.digits), said.directions))


def opposite_directions(text: str) -> str:
    """The caption with every direction reversed; unchanged if it has none."""
    said = parse(text)
    return str(Caption(said.digits, said.directions and tuple((k + 4) % len(DIRECTIONS) for k in said.directions)))


def exchanged_directions(text: str) -> str:
    """The caption with each digit's direction given to the next: no change for a model that hears the words, but not whose they are."""
    said = parse(text)
    return str(Caption(said.digits, said.directions and said.directions[1:] + said.directions[:1]))


LIES: dict[str, Callable[[str], str]] = {"wrong digits": wrong_digits, "opposite directions": opposite_directions, "directions exchanged": exchanged_directions}


@torch.no_grad()
def losses(model: Model, video: torch.Tensor, cond: torch.Tensor, level: float, eps: torch.Tensor) -> torch.Tensor:
    """(N,) loss of each clip of video (N, C, T, H, W) in [-1, 1], with its condition in cond (N, embed_dim) at one log-SNR, with noise eps in the shape of video."""
    log_snr = torch.full((len(video),), level)
    return loss_per_sample(outputs(model, q_sample(video, log_snr, eps), log_snr, cond), video, eps, log_snr, model.prediction)


@torch.no_grad()
def outputs(model: Model, z: torch.Tensor, log_snr: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """The network's output on the CPU, float32, in the shape of z (N, C, T, H, W), for log_snr (N,) and cond (N, embed_dim), a few clips at a time."""
    found = []
    for part, levels, c in zip(z.split(CHUNK), log_snr.split(CHUNK), cond.split(CHUNK)):
        with autocast(model.device, model.dtype):
            found.append(model.net(part.to(model.device), levels.to(model.device), c, **model.frame_rate(None, len(part))).float().cpu())
    return torch.cat(found)


def cost_of(lie: Callable[[str], str], model: Model, batch: Batch, level: float, seed: int = 0) -> dict[str, float]:
    """What false captions add to the loss at one log-SNR, in noise that depends only on the seed: mean and standard error over the `n` clips of the batch whose captions the lie changes; loss: theirs with true captions."""
    false = [lie(text) for text in batch.captions]
    changed = torch.tensor([one != other for one, other in zip(false, batch.captions)])
    eps = torch.randn(batch.video.shape, generator=generator(seed))
    true, lied = (losses(model, batch.video, model.encode(captions), level, eps)[changed] for captions in (batch.captions, false))
    more = lied - true
    numbers = {"loss": true.mean(), "mean": more.mean(), "standard_error": more.std() / len(more) ** 0.5}
    return {**{key: round(float(value), 7) for key, value in numbers.items()}, "n": len(more)}


def hearing(model: Model, num: int, seed: int = 0, num_digits: int = 2) -> dict[str, dict[str, dict]]:
    """`cost_of` each of LIES (if it changes anything) at each of LEVELS, on `num` test clips with directions in their captions."""
    batch = replace(model.recipe, captions="motion").dataset("test", seed, num_digits=num_digits).sample(num)
    return {name: {f"{level:g}": cost_of(lie, model, batch, level, seed) for level in LEVELS}
            for name, lie in LIES.items() if any(lie(text) != text for text in batch.captions)}


def heard_so_far(model: Model, num: int = 64) -> dict[str, dict[str, float]]:
    """In short, to monitor a run: `cost_of` false directions at WATCHED, on `num` validation clips with one digit and `num` with two."""
    one, two = (replace(model.recipe, captions="motion").dataset("validation", num_digits=digits).sample(num, index=0) for digits in (1, 2))
    return {"one digit, opposite direction": cost_of(opposite_directions, model, one, WATCHED), "two digits, opposite directions": cost_of(opposite_directions, model, two, WATCHED),
            "two digits, directions exchanged": cost_of(exchanged_directions, model, two, WATCHED)}


def keep(folder: Path, name: str, results: Path) -> None:
    """Add a run's hearing.json under `name` to the file `results`; DataError if the run has none."""
    path = folder / "hearing.json"
    if not path.exists():
        raise DataError(f"There is no hearing.json in {folder}: give the folder of a run that was trained with --hear.")
    known = json.loads(results.read_text()) if results.exists() else {}
    write_json(results, {**known, name: json.loads(path.read_text())})


@telling_of_errors()
def main() -> None:
    """Print the table for the model, or the weights, named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m utils.hearing", description="What false captions cost a model, on real clips.")
    parser.add_argument("model", nargs="?", default="vdm-text", help="a shipped model's name, or weights that a run has written (.pt)")
    parser.add_argument("--keep", nargs=2, metavar=("FOLDER", "NAME"), help="file what a run with --hear wrote to its folder under a name with the results, and measure nothing")
    parser.add_argument("--num", type=int, default=256, help="clips")
    parser.add_argument("--num-digits", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--amp", default="auto", choices=("auto", "fp16", "bf16", "off"), help="precision of the network (default: by the device)")
    parser.add_argument("--device")
    a = parser.parse_args()
    if a.keep:
        keep(Path(a.keep[0]), a.keep[1], RESULTS / f"{recipe(a.model).name}-hearing.json")
        return
    heard = hearing(load_model(a.model, a.device, a.amp), a.num, a.seed, a.num_digits)
    print("added to the loss, in 1/10,000, with standard error")
    print(f"{'log-SNR':>8s}" + "".join(f"{name:>24s}" for name in heard))
    for level in LEVELS:
        print(f"{level:8g}" + "".join(f"{1e4 * row[f'{level:g}']['mean']:+15.1f} ± {1e4 * row[f'{level:g}']['standard_error']:6.1f}" for row in heard.values()))


if __name__ == "__main__":
    main()
