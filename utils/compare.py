"""Shapes of the video network at equal FLOPs: the table behind the recipe `vdm-text`.

    python -m utils.compare [--flops 3e13] [--only NAME ...]

Each variant trains with the recipe's settings (batch 8) until it has spent the same FLOPs. The row of each says parameters, GFLOP a
clip, saved activations and validation loss at five noise levels. Trained weights stay in --out, so the command goes on where it was stopped. Rows go to assets/results/video-shapes.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from .captions import tokenize
from .cost import cost
from .diffusion import loss_per_sample, q_sample
from .pretrained import Model, load_weights, save_weights
from .recipes import VDM_TEXT, Budget, Recipe
from .runtime import ASSETS, amp_dtype, autocast, generator, pick_device
from .schedule import CosineSchedule
from .train import Trainer
from .unet import UNetConfig

RESULTS = ASSETS / "results" / "video-shapes.json"
LEVELS = (-8.0, -5.0, -2.0, 1.0, 4.0)  # log-SNR
BATCH_SIZE = 8
PLAIN = CosineSchedule()
BASE = UNetConfig(channels=(32, 64, 128), blocks=(1, 1, 1), space=(False, True, True), time=(False, True, True), stem=2, text_width=64)
VARIANTS = {
    "stem 2, 32-64-128, time at all levels": (replace(BASE, time=(True, True, True)), PLAIN),
    "stem 2, 32-64-128, time at 8 and 4": (BASE, PLAIN),
    "the same, schedule shifted to log-SNR -3": (BASE, CosineSchedule(shift=-3.0)),
    "wider: 48-96-144": (replace(BASE, channels=(48, 96, 144), head_dim=24), PLAIN),
    "wider: 64-128-128": (replace(BASE, channels=(64, 128, 128)), PLAIN),
    "deeper at 8: 32-96-128, blocks 1-2-1": (replace(BASE, channels=(32, 96, 128), blocks=(1, 2, 1)), PLAIN),
    "no stem: 16-32-64-128 from 32 pixels": (replace(BASE, channels=(16, 32, 64, 128), blocks=(1, 1, 1, 1), space=(False, False, True, True),
                                                     time=(False, True, True, True), stem=1, head_dim=16), PLAIN),
    "chosen: no stem, 16-32-96-128, time at 8 and 4, shifted to -2": (VDM_TEXT.net, VDM_TEXT.schedule),
}


def variant(name: str) -> Recipe:
    """The recipe of a variant."""
    net, schedule = VARIANTS[name]
    return replace(VDM_TEXT, net=net, schedule=schedule, learning_rate=1.5e-3)


@torch.no_grad()
def validation_loss(model: Model, num: int = 64) -> dict[str, float]:
    """Mean v-loss on held-out clips at each of LEVELS, with fixed noise: the same numbers for every network."""
    batch = model.recipe.dataset("validation", seed=5).sample(num)
    cond = model.net.encode(tokenize(batch.captions).to(model.device))
    losses = {}
    for level in LEVELS:
        eps = torch.randn(batch.video.shape, generator=generator(5, int(level) + 50))
        log_snr = torch.full((num,), level)
        z = q_sample(batch.video, log_snr, eps)
        with autocast(model.device, amp_dtype(model.device)):
            output = torch.cat([model.net(a.to(model.device), b.to(model.device), c) for a, b, c in zip(z.split(16), log_snr.split(16), cond.split(16))])
        losses[f"{level:g}"] = round(float(loss_per_sample(output.cpu(), batch.video, eps, log_snr, model.prediction).mean()), 4)
    return losses


def measure(name: str, flops: float, out: Path, device: str | None) -> dict:
    """Train a variant for `flops` (unless its weights are in `out`) and return its row."""
    recipe, path = variant(name), out / f"{list(VARIANTS).index(name)}.pt"
    price = cost(recipe)
    budget = Budget(int(flops / (price["gflop_per_sample"] * 1e9 * BATCH_SIZE)), BATCH_SIZE)
    if not path.exists():
        trainer = Trainer(recipe, budget, device)
        for progress in trainer.run():
            if progress.step % 50 == 0:
                print(f"{name}: step {progress.step} of {budget.steps}, loss {progress.loss:.3f}", flush=True)
        save_weights(path, recipe, trainer.ema.net, trainer.provenance())
    net, origin = load_weights(path, recipe)
    model = Model(recipe, net, origin, device)
    return {"variant": name, "parameters": price["parameters"], "gflop_per_clip": price["gflop_per_sample"],
            "saved_activations_mib": price["saved_activations_mib"], "steps": origin["steps"], "clips": origin["samples"],
            "flops": origin["flops"], "seconds": origin["seconds"], "device": origin["device"], "validation_loss": validation_loss(model)}


def main() -> None:
    """Measure all variants, or those named, and write the table."""
    parser = argparse.ArgumentParser(description="Shapes of the video network at equal FLOPs.")
    parser.add_argument("--flops", type=float, default=3e13)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--device")
    a = parser.parse_args()
    rows = {row["variant"]: row for row in (json.loads(RESULTS.read_text()) if RESULTS.exists() else [])}
    for name in a.only:
        start = time.monotonic()
        rows[name] = measure(name, a.flops, a.out, str(pick_device(a.device)))
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps([rows[key] for key in VARIANTS if key in rows], indent=1) + "\n")
        print(json.dumps(rows[name]), f"({time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
