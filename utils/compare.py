"""Video-model variants, trained with equal resources and measured alike: the tables behind the recipes and in lessons 07 and 10.

    python -m utils.compare shapes                 # shapes of the network, equal FLOPs -> assets/results/video-shapes.json
    python -m utils.compare settings               # clips and images per step, and more, equal FLOPs -> assets/results/video-settings.json
    python -m utils.compare optimizers             # Adam and Muon, equal FLOPs -> assets/results/video-optimizers.json
    python -m utils.compare inflation              # an inflated network against one from scratch, equal FLOPs -> assets/results/video-inflation.json
    python -m utils.compare conditions             # layers over time that learn without and with captions, equal FLOPs -> assets/results/video-conditions.json
    python -m utils.compare joint --clips 30000    # K = 0, 4, 8 images a clip, three seeds, the same clips seen -> assets/results/video-joint.json

Every run keeps a checkpoint and its finished weights in --out, so the command resumes where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .captions import tokenize
from .cost import cost
from .data import MovingMNIST
from .hearing import losses
from .layers import TemporalAttention, TemporalConvolution
from .metrics import kernel_distance, motion, obeyed, read
from .model import Model
from .pretrained import WeightsError, load_weights, save_weights
from .recipes import MAV, VDM, VDM_TEXT, Budget, Recipe
from .runtime import ASSETS, generator, pick_device, telling_of_errors, write_json
from .schedule import CosineSchedule
from .train import Trainer
from .unet import UNet, UNetConfig

RESULTS = ASSETS / "results"
LEVELS = (-8.0, -5.0, -2.0, 1.0, 4.0)  # log-SNR
CHECKPOINT_SECONDS = 60
PLAIN = CosineSchedule()
BASE = UNetConfig(channels=(32, 64, 128), blocks=(1, 1, 1), space=(False, True, True), time=(False, True, True), stem=2, text_width=64)
ADAM_MAV = replace(MAV, learning_rate=1e-3, null_probability=1.0, recaptioned=False)  # as these rows were trained


@dataclass(frozen=True)
class Variant:
    """A recipe as trained for a table: samples per step, the seed of everything, whether layers over time start at random rather than as the identity, and whether Adam alone trains it (`utils.optimizer`)."""

    recipe: Recipe
    batch_size: int = 8
    seed: int = 0
    random_start: bool = False
    adam: bool = False


def _shape(net: UNetConfig, schedule: CosineSchedule = PLAIN) -> Variant:
    return Variant(replace(VDM_TEXT, net=net, schedule=schedule, num_images=0, curriculum=None, learning_rate=1.5e-3), adam=True)


def _setting(batch_size: int, num_images: int, **changes: float | UNetConfig) -> Variant:
    return Variant(replace(VDM_TEXT, **{"num_images": num_images, "curriculum": None, "learning_rate": 1e-3} | changes), batch_size, adam=True)


TABLES: dict[str, dict[str, Variant]] = {
    "shapes": {
        "stem 2, 32-64-128, time at all levels": _shape(replace(BASE, time=(True, True, True))),
        "stem 2, 32-64-128, time at 8 and 4": _shape(BASE),
        "the same, schedule shifted to log-SNR -3": _shape(BASE, CosineSchedule(shift=-3.0)),
        "wider: 48-96-144": _shape(replace(BASE, channels=(48, 96, 144), head_dim=24)),
        "wider: 64-128-128": _shape(replace(BASE, channels=(64, 128, 128))),
        "deeper at 8: 32-96-128, blocks 1-2-1": _shape(replace(BASE, channels=(32, 96, 128), blocks=(1, 2, 1))),
        "no stem: 16-32-64-128 from 32 pixels": _shape(replace(BASE, channels=(16, 32, 64, 128), blocks=(1, 1, 1, 1), space=(False, False, True, True),
                                                               time=(False, True, True, True), stem=1, head_dim=16)),
        "chosen: no stem, 16-32-96-128, time at 8 and 4, shifted to -2": _shape(VDM_TEXT.net, VDM_TEXT.schedule)},
    "settings": {
        "8 clips a step": _setting(8, 0), "8 clips a step, 8 images with each": _setting(8, 8), "4 clips a step": _setting(4, 0),
        "2 clips a step": _setting(2, 0), "chosen: 2 clips a step, 8 images with each": _setting(2, 8),
        "the same, learning rate 2e-3": _setting(2, 8, learning_rate=2e-3), "the same, learning rate 5e-4": _setting(2, 8, learning_rate=5e-4),
        "the same, loss weighted by min-SNR 5": _setting(2, 8, min_snr=5.0), "the same, EMA of 0.99": _setting(2, 8, ema_decay=0.99),
        "the same, two blocks at 8": _setting(2, 8, net=replace(VDM_TEXT.net, blocks=(1, 1, 2, 1))),
        "the same, attention over time at 16 too": _setting(2, 8, net=replace(VDM_TEXT.net, time=(False, True, True, True), head_dim=16))},
    "optimizers": {
        **{f"Adam, learning rate {rate:.0e}".replace("e-0", "e-"): Variant(replace(VDM_TEXT, curriculum=None, learning_rate=rate), 4, adam=True) for rate in (1e-3, 2e-3)},
        **{f"Muon, learning rate {rate:.0e}".replace("e-0", "e-"): Variant(replace(VDM_TEXT, curriculum=None, learning_rate=rate), 4) for rate in (1e-3, 2e-3, 4e-3, 8e-3)}},
    "inflation": {
        "inflated, image weights frozen": Variant(ADAM_MAV, 4, adam=True), "inflated, all weights trained": Variant(replace(ADAM_MAV, frozen=None), 4, adam=True),
        "inflated, layers over time start at random": Variant(ADAM_MAV, 4, random_start=True, adam=True), "from scratch": Variant(replace(ADAM_MAV, initial=None, frozen=None), 4, adam=True)},
    "conditions": {
        "null condition always": Variant(replace(MAV, null_probability=1.0, recaptioned=False), 4), "chosen: captions by the captioner": Variant(MAV, 4),
        "true captions (pairs, as a limit)": Variant(replace(MAV, recaptioned=False), 4)},
    "joint": {f"K = {k}, seed {seed}": Variant(replace(VDM, num_images=k, learning_rate=1e-3), 4, seed, adam=True) for seed in range(3) for k in (0, 4, 8)}}


@torch.no_grad()
def validation_loss(model: Model, num: int = 64, captions: bool = True) -> dict[str, float]:
    """Mean v-loss on held-out clips at each of LEVELS, with the same fixed noise for every network. captions=False: with the null condition."""
    batch = model.recipe.dataset("validation", seed=5).sample(num)
    cond = model.net.encode(tokenize(batch.captions).to(model.device)) if captions and batch.captions else torch.zeros(num, model.recipe.net.embed_dim, device=model.device)
    means = {}
    for level in LEVELS:
        eps = torch.randn(batch.video.shape, generator=generator(5, int(level) + 50))
        means[f"{level:g}"] = round(float(losses(model, batch.video, cond, level, eps).mean()), 4)
    return means


def trained(name: str, variant: Variant, steps: int, out: Path, device: str, amp: str, until: float = math.inf) -> Model | None:
    """The variant after `steps` steps: trained now, from its checkpoint in `out` if there is one, or loaded if already finished. None when `time.monotonic()` passes `until` first;
    the checkpoint is written. WeightsError when what is finished there was trained with other settings."""
    weights, checkpoint = out / f"{name}.pt", out / f"{name}.checkpoint"
    settings = hashlib.sha256(repr((variant, steps)).encode()).hexdigest()
    if not weights.exists():
        trainer = Trainer(variant.recipe, Budget(steps, variant.batch_size), device, amp, variant.seed)
        if variant.adam:
            trainer.optimizer = torch.optim.Adam([p for p in trainer.net.parameters() if p.requires_grad], variant.recipe.learning_rate, betas=(0.9, 0.99))
        if variant.random_start:
            start_at_random(trainer.net, variant.seed)
        if checkpoint.exists():
            trainer.load(checkpoint)
        saved = time.monotonic()
        for progress in trainer.run():
            if progress.step % 100 == 0:
                print(f"{name}: step {progress.step} of {steps}, loss {sum(trainer.history[-100:]) / 100:.4f}", flush=True)
            if (now := time.monotonic()) > min(until, saved + CHECKPOINT_SECONDS):
                trainer.save(checkpoint)
                saved = now
            if now > until and progress.step < steps:
                return None
        save_weights(weights, variant.recipe, trainer.ema.net, trainer.provenance() | {"settings": settings})
        checkpoint.unlink(missing_ok=True)
    net, origin = load_weights(weights, variant.recipe)
    if origin.get("settings") != settings:
        raise WeightsError(f"{weights} was trained for another length, or with other settings: delete it, or choose another --out.")
    return Model(variant.recipe, net, origin, device, amp)


def start_at_random(net: UNet, seed: int) -> None:
    """Give layers over time, in place, the default random weights of convolutions and linear layers."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in net.modules():
            if isinstance(module, TemporalConvolution):
                module.reset_parameters()
            elif isinstance(module, TemporalAttention):
                module.out.reset_parameters()


def measure(name: str, model: Model, seed: int, num: int) -> dict:
    """The row of a trained variant; with `num` clips sampled (16 steps of DDIM): without captions or guidance, compared with as many real ones; or, if the model
    takes captions, for captions of digits, with the recipe's guidance."""
    price, origin = cost(model.recipe), model.provenance
    row = {"variant": name, "parameters": price["parameters"], "gflop_per_clip": price["gflop_per_sample"],
           "saved_activations_mib": price["saved_activations_mib"], "steps": origin["steps"], "clips": origin["samples"], "flops": origin["flops"],
           "seconds": origin["seconds"], "device": origin["device"], "validation_loss": validation_loss(model)}
    if model.recipe.captions:
        row["validation_loss_without_caption"] = validation_loss(model, captions=False)
    if num and model.recipe.captions:
        captions = MovingMNIST("validation", 11, captions="digits").sample(num).captions
        reading = read(model.sample(captions, steps=16, sampler="ddim", seed=seed))
        found = obeyed(reading, captions)
        row |= {"n": num, **{key: round(found[key], 4) for key in ("digits", "twice") if key in found}, **{key: round(value, 4) for key, value in motion(reading).items()}}
    elif num:
        real, other = (read((MovingMNIST("test", 11, captions=None).sample(num, index=k).video + 1) / 2).features for k in range(2))
        features = read(model.sample(num=num, steps=16, sampler="ddim", temporal_scale=1.0, seed=seed)).features  # without temporal guidance, for which single images must be known
        row |= {"num_images": model.recipe.num_images, "seed": seed, "n": num, "kernel_distance": round(kernel_distance(features, real), 4),
                "kernel_distance_floor": round(kernel_distance(other, real), 4)}
    return row


@telling_of_errors()
def main() -> None:
    """Train and measure all variants of a table, or those named, and write the table row by row."""
    parser = argparse.ArgumentParser(prog="python -m utils.compare", description="Variants of the video models, trained with equal means.")
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--flops", type=float, help="training FLOPs of each variant (default: 1.5e13 for conditions, 3e13 for shapes and inflation, 4e13 for optimizers, 8e13 for settings)")
    parser.add_argument("--clips", type=int, default=30_000, help="clips that each run of joint sees; 30,000 are 4.9e14 FLOPs at K = 8")
    parser.add_argument("--num", type=int, help="clips sampled of each run (default: 512 for joint, 64 for inflation and conditions, else none)")
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop training after so many minutes with a checkpoint; the same command goes on")
    parser.add_argument("--out", type=Path, help="folder for checkpoints and weights (default: runs/compare-TABLE)")
    parser.add_argument("--device")
    parser.add_argument("--amp", default="auto", choices=("auto", "fp16", "bf16", "off"))
    a = parser.parse_args()
    until = time.monotonic() + 60 * a.minutes
    variants, results = TABLES[a.table], RESULTS / f"video-{a.table}.json"
    if unknown := set(a.only or ()) - set(variants):
        raise SystemExit(f"error: {a.table} has no variant {sorted(unknown)[0]!r}; there are {', '.join(map(repr, variants))}.")
    out = a.out or Path("runs") / f"compare-{a.table}"
    out.mkdir(parents=True, exist_ok=True)
    num = {"joint": 512, "inflation": 64, "conditions": 64}.get(a.table, 0) if a.num is None else a.num
    rows = {row["variant"]: row for row in (json.loads(results.read_text()) if results.exists() else [])}
    for name in a.only or variants:
        start, variant = time.monotonic(), variants[name]
        flops = a.flops or {"shapes": 3e13, "inflation": 3e13, "conditions": 1.5e13, "optimizers": 4e13, "settings": 8e13}.get(a.table, 0.0)
        length = a.clips if a.table == "joint" else flops / (cost(variant.recipe)["gflop_per_sample"] * 1e9)
        model = trained(name, variant, max(1, int(length / variant.batch_size)), out, str(pick_device(a.device)), a.amp, until)
        if model is None:
            print(f"time is up in {name!r}; the same command goes on")
            return
        rows[name] = measure(name, model, variant.seed, num)
        write_json(results, [rows[key] for key in variants if key in rows])
        print(json.dumps(rows[name]), f"({time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
