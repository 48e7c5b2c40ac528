"""Every metric of a shipped model, as JSON with n, seed, seconds and, beside each number, a floor and controls.

    python -m utils.evaluate vdm-text [--num 512]        # writes assets/results/vdm-text.json

Captions, clips and reference come from the test digits; the reader and the classifier were trained on the training digits.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import torch

from .data import MNIST
from .metrics import classify, digit_features, kernel_distance, named, obeyed
from .pretrained import Model, load_pretrained
from .runtime import ASSETS, device_name, generator, precision_name

RESULTS = ASSETS / "results"


def evaluate_image(model: Model, num: int, seed: int, **options) -> dict[str, dict]:
    """Kernel distance to `num` real test digits, and the share that the classifier reads with over 90% confidence; of a model that takes captions,
    asked for the digits of real images, also the share that it reads as asked."""
    reference, held_out = MNIST("test", seed=seed + 1).sample(num), MNIST("test", seed=seed + 2).sample(num)
    labels = held_out.labels[:, 0] if model.recipe.captions else None
    rows = {"real held-out (floor)": (held_out.video + 1) / 2, model.name: model.sample(labels=labels, num=num, seed=seed, **options),
            "control: noise": torch.rand(num, 1, 1, 28, 28, generator=generator(seed, 4))}
    features = digit_features((reference.video + 1) / 2)
    return {name: {"kernel_distance": round(kernel_distance(digit_features(images), features), 4),
                   "confident": round(float((classify(images).amax(1) > 0.9).float().mean()), 4),
                   **({} if labels is None else {key: round(value, 4) for key, value in named(images, labels).items()})} for name, images in rows.items()}


def evaluate_video(model: Model, num: int, seed: int, **options) -> dict[str, dict]:
    """Share of prompts obeyed, for captions with motion and for captions of digits alone."""
    rows = {}
    for kind in ("motion", "digits"):
        batch = replace(model.recipe, captions=kind).dataset("test", seed).sample(num)
        clips = {"real held-out clips (floor)": (batch.video + 1) / 2, model.name: model.sample(batch.captions, seed=seed, **options),
                 "control: captions of other clips": (batch.video.roll(1, 0) + 1) / 2,
                 "control: noise": torch.rand(batch.video.shape, generator=generator(seed, 4))}
        rows[kind] = {name: {key: round(value, 4) for key, value in obeyed(videos, batch.captions).items()} for name, videos in clips.items()}
    return rows


def circumstances(model: Model, num: int, seed: int) -> dict:
    """What every results file says of how its numbers came about."""
    return {"model": model.name, "n": num, "seed": seed, "device": device_name(model.device), "precision": precision_name(model.dtype),
            "trained": model.provenance}


def evaluate_model(model: Model, num: int, seed: int = 0, **options) -> dict:
    """All numbers of a model with their circumstances, ready for JSON. options: those of `Model.sample` (steps, guidance_scale, ...)."""
    start = time.monotonic()
    rows = (evaluate_image if model.kind == "image" else evaluate_video)(model, num, seed, **options)
    r = model.recipe
    return {**circumstances(model, num, seed), "steps": options.get("steps") or r.sampling_steps, "sampler": r.sampler,
            "guidance_scale": r.guidance_scale if options.get("guidance_scale") is None else options["guidance_scale"],
            "seconds": round(time.monotonic() - start), "rows": rows}


def main() -> None:
    """Evaluate the model named on the command line and write its results file."""
    parser = argparse.ArgumentParser(prog="python -m utils.evaluate", description="Measure a shipped model.")
    parser.add_argument("model")
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="denoising steps (default: the recipe's)")
    parser.add_argument("--guidance-scale", type=float, help="(default: the recipe's)")
    parser.add_argument("--amp", default="auto", choices=("auto", "fp16", "bf16", "off"), help="precision of the network (default: by the device)")
    parser.add_argument("--device")
    a = parser.parse_args()
    result = evaluate_model(load_pretrained(a.model, a.device, amp=a.amp), a.num, a.seed, progress=True, steps=a.steps, guidance_scale=a.guidance_scale)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{a.model}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
