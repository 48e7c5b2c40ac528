"""The shipped models: `load_pretrained("vdm-text")`, and how weights are kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import torch

from .model import Model
from .recipes import RECIPES, Recipe, recipe as get_recipe
from .runtime import ASSETS, ROOT, device_name, peak_memory_mib, versions
from .unet import UNet

CHECKPOINTS = ASSETS / "checkpoints"
FORMAT = "video-diffusion-weights-1"


class WeightsError(RuntimeError):
    """Weights that are missing, damaged or of another network; the message says what to do."""


def available_models() -> list[str]:
    """Names whose weights are shipped in assets/checkpoints."""
    return [name for name in RECIPES if (CHECKPOINTS / f"{name}.pt").exists()]


def load_pretrained(name: str, device: str | torch.device | None = None, path: Path | None = None, amp: str = "off", any_frozen: bool = False) -> Model:
    """The shipped model `name`, or the weights at `path`, on `device`; `amp` as for `Model`. any_frozen: also where the frozen weights
    have been trained on since, which is good enough to start training from, and for nothing else.

    Raises ValueError for an unknown name, WeightsError for weights that are missing, damaged or of another network.
    """
    recipe = get_recipe(name)
    path = CHECKPOINTS / f"{name}.pt" if path is None else Path(path)
    if not path.exists():
        raise WeightsError(f"{path.name} is not in {path.parent.name}/. Shipped: {', '.join(available_models()) or 'none'}. "
                           f"Restore it with `git checkout -- assets`, or train it with `python -m utils.train {name}`.")
    net, origin = load_weights(path, recipe, any_frozen)
    return Model(recipe, net, origin, device, amp)


def load_initial(what: str) -> Model:
    """Weights to start training from, on the CPU: the shipped model of that name, or a file of weights (.pt) that a run has written, also of a network with other channels, or attention at other levels.

    Raises ValueError for an unknown name, WeightsError for weights that are missing, damaged or of another network."""
    if not what.endswith(".pt"):
        return load_pretrained(what, "cpu", any_frozen=True)
    try:
        saved = torch.load(what, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for a damaged file
        raise WeightsError(f"{what} cannot be read ({type(error).__name__}): give a shipped model's name, or weights that a run has written, such as runs/vdm-text/vdm-text.pt.") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise WeightsError(f"{what} does not hold weights: take the file that is named after its recipe, not the checkpoint.")
    recipe = get_recipe(saved["name"])
    recipe = replace(recipe, net=replace(recipe.net, **_shape(saved["weights"])))
    return Model(recipe, *load_weights(Path(what), recipe, any_frozen=True), "cpu")


def _shape(weights: dict[str, torch.Tensor]) -> dict[str, tuple]:
    """The widths of the levels of a network with these weights, and where it has attention; nothing, where they are of layers over time alone."""
    stages = [f"down.{level}.stages.0" for level in range(8) if f"down.{level}.stages.0.residual.conv2.weight" in weights]
    if not stages:
        return {}
    return {"channels": tuple(len(weights[f"{stage}.residual.conv2.weight"]) for stage in stages),
            **{kind: tuple(f"{stage}.{kind}.qkv.weight" in weights for stage in stages) for kind in ("space", "time")}}


def load_weights(path: Path, recipe: Recipe, any_frozen: bool = False) -> tuple[UNet, dict]:
    """The network that `save_weights` wrote, in float32 on the CPU, and its provenance; any_frozen as for `load_pretrained`.
    WeightsError when it does not fit."""
    mend = f"Restore it with `git checkout -- assets`, or train it with `python -m utils.train {recipe.name}`."
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for a damaged file
        raise WeightsError(f"{path.name} is damaged ({type(error).__name__}). {mend}") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT or saved.get("name") != recipe.name:
        raise WeightsError(f"{path.name} does not hold weights of {recipe.name}. {mend}")
    net, weights = UNet(recipe.net), {key: tensor.float() for key, tensor in saved["weights"].items()}
    if recipe.frozen is not None:
        base = load_pretrained(recipe.frozen, "cpu").net
        if saved.get("frozen") != _digest(base) and not any_frozen:
            raise WeightsError(f"{path.name} was trained on other weights of {recipe.frozen} than those that are shipped. {mend}")
        weights = {**base.state_dict(), **weights}
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(f"{path.name} was made for another shape of {recipe.name}. {mend}") from error
    return net, json.loads(saved["provenance"])


def save_weights(path: Path, recipe: Recipe, net: UNet, provenance: dict) -> None:
    """Write `net` in float16 with its provenance, for `load_pretrained`; moved into place when whole. Of a recipe with frozen weights
    only the others are written, with a digest of the frozen ones; ValueError if these are not what they were."""
    path, weights, digest = Path(path), net.state_dict(), None
    if recipe.frozen is not None:
        base = load_pretrained(recipe.frozen, "cpu").net
        digest, still = _digest(base), base.state_dict()
        if moved := [name for name, tensor in still.items() if not torch.equal(tensor, weights[name].detach().float().cpu())]:
            raise ValueError(f"{recipe.name} keeps the weights of {recipe.frozen}, but {moved[0]} differs from the shipped one.")
        weights = {name: tensor for name, tensor in weights.items() if name not in still}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    torch.save({"format": FORMAT, "name": recipe.name, "provenance": json.dumps(provenance), "frozen": digest,
                "weights": {key: tensor.detach().half().cpu() for key, tensor in weights.items()}}, temporary)
    os.replace(temporary, path)


def total_flops(provenance: dict) -> float:
    """The FLOPs of training in weights: of the run itself and of those that it started from or rests on, each once."""
    return sum(runs(provenance).values())


def runs(provenance: dict) -> dict[str, float]:
    """The FLOPs of each run that weights come from, by a text that tells it from others."""
    before = [provenance[key] for key in ("initial", "frozen") if key in provenance]
    run = json.dumps({key: value for key, value in provenance.items() if key not in ("initial", "frozen")}, sort_keys=True)
    return {key: flops for earlier in before for key, flops in runs(earlier).items()} | {run: provenance["flops"]}


def shipped_flops(name: str) -> float:
    """`total_flops` of a model's shipped weights; 0 when there are none."""
    path = CHECKPOINTS / f"{name}.pt"
    return total_flops(json.loads(torch.load(path, map_location="cpu", weights_only=True)["provenance"])) if path.exists() else 0


def _digest(net: UNet) -> str:
    """SHA-256 of a network's weights as they are shipped, in float16."""
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.half().contiguous().numpy().tobytes())
    return digest.hexdigest()


def provenance(name: str, steps: int, samples: int, seconds: float, flops: float, seed: int, device: torch.device, precision: str) -> dict:
    """Where weights come from: commit, date, device, precision, steps, samples seen, seconds, FLOPs, peak memory of the process, seed, versions."""
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {"recipe": name, "commit": commit.stdout.strip() or "unknown", "date": time.strftime("%Y-%m-%d"),
            "device": device_name(device), "precision": precision, "steps": steps, "samples": samples,
            "seconds": round(seconds), "flops": float(f"{flops:.3g}"), "peak_memory_mib": peak_memory_mib(device),
            "seed": seed, "versions": versions()}
