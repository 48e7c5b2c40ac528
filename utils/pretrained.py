"""The shipped models: `load_pretrained("vdm-text")`, and how weights are kept on disk."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from .model import Model
from .recipes import RECIPES, Recipe, recipe as get_recipe
from .runtime import ASSETS, ROOT, device_name, peak_memory_mib, versions, written_whole
from .unet import UNet, UNetConfig

CHECKPOINTS = ASSETS / "checkpoints"
FORMAT = "video-diffusion-weights-1"


class WeightsError(RuntimeError):
    """Weights that are missing, damaged or of another network, or cannot be written; the message says what to do."""


def available_models() -> list[str]:
    """Names whose weights are shipped in assets/checkpoints."""
    return [name for name in RECIPES if (CHECKPOINTS / f"{name}.pt").exists()]


def load_pretrained(name: str, device: str | torch.device | None = None, path: Path | None = None, amp: str = "off", any_frozen: bool = False) -> Model:
    """The shipped model `name`, or the weights of that recipe at `path`, on `device`; `amp` as for `Model`. any_frozen: even if frozen weights
    have since been trained further, which is good enough to start training from, and for nothing else.

    The network and the shape of samples are those recorded in a weights file; all else is the recipe's. For a recipe with, say, another schedule: `Model(recipe, *load_weights(path, recipe))`.
    Raises ValueError for an unknown name, WeightsError for weights that are missing, damaged or of another recipe.
    """
    recipe = get_recipe(name)
    if path is not None:
        return _from_file(Path(path), name, device, amp, any_frozen)
    return Model(recipe, *load_weights(CHECKPOINTS / f"{name}.pt", recipe, any_frozen), device, amp)


def load_model(what: str, device: str | torch.device | None = None, amp: str = "off", any_frozen: bool = False) -> Model:
    """The model that a command line names: the shipped one of that name, or a run's weights file (.pt), of whatever recipe and network is recorded in it.
    Other arguments and errors: as for `load_pretrained`."""
    return _from_file(Path(what), None, device, amp, any_frozen) if what.endswith(".pt") else load_pretrained(what, device, amp=amp, any_frozen=any_frozen)


def load_initial(what: str) -> Model:
    """Weights to start training from, on the CPU: `load_model`, with any frozen weights."""
    return load_model(what, "cpu", any_frozen=True)


def load_weights(path: Path, recipe: Recipe, any_frozen: bool = False) -> tuple[UNet, dict]:
    """The recipe's network as `save_weights` wrote it, in float32 on the CPU, and its provenance; any_frozen as for `load_pretrained`. WeightsError for another network too."""
    return _network(path, _read(path, recipe.name), recipe, any_frozen)


def _from_file(path: Path, name: str | None, device: str | torch.device | None, amp: str, any_frozen: bool) -> Model:
    """The model in a weights file; name: the recipe that it must belong to, None for any."""
    saved = _read(path, name)
    try:
        recipe = get_recipe(saved["name"])
        if "net" in saved:  # older files, including the shipped ones, do not say: they hold the recipe's network
            recipe = replace(recipe, net=UNetConfig(**saved["net"]), sample_shape=saved["sample_shape"])
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path} holds a model that this version of the project does not know. {error}") from error
    return Model(recipe, *_network(path, saved, recipe, any_frozen), device, amp)


def _read(path: Path, name: str | None) -> dict:
    """What `save_weights` wrote; name as for `_from_file`. WeightsError for a file that is missing, damaged, or holds something else."""
    example = name or "vdm-text"
    finished = f"Give weights that a run has written at its end, as `python -m utils.train {example}` does to runs/{example}/{example}.pt."
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path} cannot be read: there is no such file. {_mend(path, finished)}") from error
    except Exception as error:  # torch.load raises many types for a damaged file
        raise WeightsError(f"{path} cannot be read ({type(error).__name__}): it is damaged, or no file of weights. {_mend(path, finished)}") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise WeightsError(f"{path} does not hold weights of {name or 'a recipe'}. {_mend(path, 'Take the file that is named after its recipe, not the checkpoint.')}")
    if name not in (None, saved["name"]):
        raise WeightsError(f"{path} does not hold weights of {name}, but of {saved['name']}. {_mend(path, 'Load it by that name.')}")
    return saved


def _mend(path: Path, other: str) -> str:
    """What to do about an unusable weights file: a shipped one can be had again; for any other, `other`."""
    shipped = path.resolve().parent == CHECKPOINTS.resolve()
    return f"Restore it with `git checkout -- assets`, or train it with `python -m utils.train {path.stem} --publish`." if shipped else other


def _network(path: Path, saved: dict, recipe: Recipe, any_frozen: bool) -> tuple[UNet, dict]:
    """The recipe's network with the weights that were read from a file, and their provenance. WeightsError when they do not fit."""
    net, weights = UNet(recipe.net), {key: tensor.float() for key, tensor in saved["weights"].items()}
    if recipe.frozen is not None:
        base = load_pretrained(recipe.frozen, "cpu").net
        if saved.get("frozen") != _digest(base) and not any_frozen:
            raise WeightsError(f"{path} was trained on other weights of {recipe.frozen} than those that are shipped. "
                               + _mend(path, f"Train it on, on these: `python -m utils.train {recipe.name} --initial {path}`."))
        weights = {**base.state_dict(), **weights}
    expected, given = asdict(recipe.net), saved.get("net", {})
    differ = [f"{key} {given[key]} in place of {expected.get(key)}" for key in given if given[key] != expected.get(key)]
    shapes, found = ({key: tuple(tensor.shape) for key, tensor in tensors.items()} for tensors in (net.state_dict(), weights))
    unfit = [key for key in {**shapes, **found} if shapes.get(key) != found.get(key)]
    if differ or unfit:
        said = ", ".join(differ) or f"{len(unfit)} of {len(shapes)} parameters are missing or have another shape, first {unfit[0]}: {found.get(unfit[0], 'none')} in place of {shapes.get(unfit[0], 'none')}"
        raise WeightsError(f"{path} was made for another shape of {recipe.name}: {said}. {_mend(path, 'Load it with the recipe that it was trained with: `load_weights(path, recipe)`.')}")
    net.load_state_dict(weights)
    return net, json.loads(saved["provenance"])


def save_weights(path: Path, recipe: Recipe, net: UNet, provenance: dict) -> None:
    """Write `net` in float16 with its shape and provenance, for `load_pretrained`: whole, or not at all (WeightsError). For a recipe with frozen weights
    only the others are written, with a digest of the frozen ones; ValueError if a frozen one has changed."""
    path, weights, digest = Path(path), net.state_dict(), None
    if recipe.frozen is not None:
        base = load_pretrained(recipe.frozen, "cpu").net
        digest, still = _digest(base), base.state_dict()
        if moved := [name for name, tensor in still.items() if not torch.equal(tensor, weights[name].detach().float().cpu())]:
            raise ValueError(f"{recipe.name} keeps the weights of {recipe.frozen}, but {moved[0]} differs from the shipped one.")
        weights = {name: tensor for name, tensor in weights.items() if name not in still}
    saved = {"format": FORMAT, "name": recipe.name, "net": asdict(net.config), "sample_shape": recipe.sample_shape, "provenance": json.dumps(provenance), "frozen": digest,
             "weights": {key: tensor.detach().half().cpu() for key, tensor in weights.items()}}
    try:
        with written_whole(path) as file:
            torch.save(saved, file)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"Could not write {path}: {error}. Free some disk space or choose another folder; an earlier file there is untouched.") from error


def total_flops(provenance: dict, recipe: str | None = None) -> float:
    """The training FLOPs behind weights, including what they started from and rest on, each run once; recipe: only runs of that recipe."""
    return sum(flops for run, flops in runs(provenance).items() if recipe in (None, json.loads(run).get("recipe")))


def runs(provenance: dict) -> dict[str, float]:
    """The FLOPs of each run that weights come from, keyed by a text that identifies it."""
    before = [provenance[key] for key in ("initial", "frozen") if key in provenance]
    run = json.dumps({key: value for key, value in provenance.items() if key not in ("initial", "frozen")}, sort_keys=True)
    return {key: flops for earlier in before for key, flops in runs(earlier).items()} | {run: provenance["flops"]}


def shipped_flops(name: str) -> float:
    """The training FLOPs that a model's shipped weights had as that model, whatever they started from (`total_flops` of its recipe); 0 if none."""
    path = CHECKPOINTS / f"{name}.pt"
    return total_flops(json.loads(torch.load(path, map_location="cpu", weights_only=True)["provenance"]), name) if path.exists() else 0


def _digest(net: UNet) -> str:
    """SHA-256 of a network's weights as they are shipped, in float16."""
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.detach().half().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def origin(model: Model) -> dict:
    """What the provenance of weights that start from this model says of it: its own provenance, or a digest of its weights where nothing is known of their training."""
    known = model.provenance or {"steps": 0, "samples": 0, "seconds": 0, "flops": 0.0, "weights": _digest(model.net)}
    return {**known, "recipe": model.name}


def provenance(name: str, steps: int, samples: int, seconds: float, flops: float, seed: int, device: torch.device, precision: str) -> dict:
    """Where weights come from: commit, date, device, precision, steps, samples seen, seconds, FLOPs, peak memory of the process, seed, versions."""
    try:
        commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    except OSError:  # git is not installed
        commit = ""
    return {"recipe": name, "commit": commit or "unknown", "date": time.strftime("%Y-%m-%d"),
            "device": device_name(device), "precision": precision, "steps": steps, "samples": samples,
            "seconds": round(seconds), "flops": float(f"{flops:.3g}"), "peak_memory_mib": peak_memory_mib(device),
            "seed": seed, "versions": versions()}
