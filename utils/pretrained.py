"""A trained model as its user holds it: `load_pretrained("vdm-text").sample(["3 and 7"])`.

Everything that goes in or comes out is in [0, 1]; only `net` and `predict_x` speak [-1, 1].
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from .captions import Caption, tokenize
from .diffusion import to_x
from .recipes import RECIPES, Recipe, recipe as get_recipe
from .runtime import ASSETS, ROOT, amp_dtype, autocast, device_name, generator, peak_memory_mib, pick_device, randn_per_sample, versions
from .samplers import guided_denoiser, sample_loop
from .unet import UNet

CHECKPOINTS = ASSETS / "checkpoints"
FORMAT = "video-diffusion-weights-1"
CPU_CHUNK = {"image": 64, "video": 16}  # samples that go through the network at once; more is slower on a CPU


class WeightsError(RuntimeError):
    """Weights that are missing, damaged or of another network; the message says what to do."""


class Model:
    """A network with its recipe. `net` is in evaluation mode, without gradients, on `device`; in sampling it runs in the precision that
    `amp` says (see `runtime.amp_dtype`; float32 by default), everything around it in float32."""

    def __init__(self, recipe: Recipe, net: UNet, provenance: dict | None = None, device: str | torch.device | None = None,
                 amp: str = "off") -> None:
        self.recipe, self.provenance = recipe, provenance or {}
        self.name, self.kind, self.prediction, self.sample_shape = recipe.name, recipe.kind, recipe.prediction, recipe.sample_shape
        self.device = pick_device(device)
        self.net = net.to(self.device).eval().requires_grad_(False)
        self.dtype = amp_dtype(self.device, amp)

    def log_snr(self, t: torch.Tensor | float) -> torch.Tensor:
        """t in [0, 1] -> log-SNR, float64, same shape."""
        return self.recipe.schedule.log_snr(t)

    def encode(self, captions: Sequence[str] | str | None = None, labels: torch.Tensor | None = None,
               num: int | None = None) -> torch.Tensor:
        """N captions, or labels (N, digits) or (N,) for one digit each, to the condition (N, embed_dim). Neither: the null condition, num rows of zeros.

        Raises CaptionError for a caption outside the grammar, ValueError when the model takes no captions.
        """
        if captions is not None and labels is not None:
            raise ValueError("Pass captions or labels, not both.")
        if labels is not None:
            labels = torch.as_tensor(labels)
            captions = [str(Caption(tuple(row))) for row in (labels[:, None] if labels.dim() == 1 else labels).tolist()]
        if captions is None:
            return torch.zeros(1 if num is None else num, self.recipe.net.embed_dim, device=self.device)
        if self.recipe.captions is None:
            raise ValueError(f"{self.name} was trained without captions: leave captions and labels out.")
        captions = [captions] if isinstance(captions, str) else list(captions)
        return self.net.encode(tokenize(captions).to(self.device))

    def predict_x(self, z: torch.Tensor, log_snr: torch.Tensor, cond: torch.Tensor | None = None, *, num_images: int = 0) -> torch.Tensor:
        """The network's estimate of the data, unclipped: z (B, C, T, H, W), log_snr (B,) -> the shape of z."""
        return to_x(self.net(z, log_snr, cond, num_images=num_images), z, log_snr, self.prediction)

    @torch.no_grad()
    def sample(self, captions: Sequence[str] | str | None = None, *, num: int | None = None, labels: torch.Tensor | None = None,
               steps: int | None = None, sampler: str | None = None, guidance_scale: float | None = None,
               num_frames: int | None = None, seed: int = 0, progress: bool = False, eta: float = 0.0, gamma: float = 0.1,
               langevin: float = 0.0, guidance_rescale: float = 0.0) -> torch.Tensor:
        """Generate (N, C, T, H, W) float32 in [0, 1] on the CPU.

        captions (N strings, or one for all `num`) or labels (N, digits) say what; without them the null condition is sampled.
        steps, sampler ("ddim", "ancestral", "dpm++") and guidance_scale (g: 1 = as trained, more = closer to the caption, less varied)
        default to the recipe's. num_frames: another length than the training clips'. The noise of sample i depends on
        (seed, i) alone: the same on every device and for every `num`. eta, gamma, langevin: see `sample_loop`; guidance_rescale: see
        `guided_denoiser`.
        """
        if isinstance(captions, str):
            captions = [captions] * (num or 1)
        given = captions if captions is not None else labels
        num = (1 if num is None else num) if given is None else len(given) if num is None else num
        if num < 1 or given is not None and len(given) != num:
            raise ValueError(f"num is {num}, but there are {len(given)} captions or labels." if given is not None
                             else f"num must be at least 1, not {num}.")
        cond = None if given is None else self.encode(captions, labels)
        frames = self.sample_shape[1] if num_frames is None else num_frames
        if frames < 1 or self.kind == "image" and frames != 1:
            raise ValueError(f"num_frames must be at least 1, and 1 for an image model; got {frames}.")
        if (steps or self.recipe.sampling_steps) < 1:
            raise ValueError(f"steps must be at least 1, not {steps}.")
        shape = (self.sample_shape[0], frames, *self.sample_shape[2:])
        schedule = self.recipe.schedule
        log_snrs = schedule.log_snr(schedule.times(steps or self.recipe.sampling_steps))
        scale = self.recipe.guidance_scale if guidance_scale is None else guidance_scale
        chunk = CPU_CHUNK.get(self.kind, 16) if self.device.type == "cpu" else 64
        chunks = range(0, num, chunk)
        bar = tqdm(total=len(chunks) * (len(log_snrs) - 1), desc="sampling", disable=not progress, leave=False)
        done = []
        for start in chunks:
            rows = slice(start, min(start + chunk, num))
            generators = [generator(seed, i, 3) for i in range(rows.start, rows.stop)]
            z = randn_per_sample(shape, generators).to(self.device)
            denoise = guided_denoiser(self._run, None if cond is None else cond[rows], scale, self.prediction, guidance_rescale)
            for state in sample_loop(denoise, z, log_snrs, generators, sampler or self.recipe.sampler, eta, gamma, langevin):
                bar.update()
            done.append(((state.z.clamp(-1, 1) + 1) / 2).float().cpu())
        bar.close()
        return torch.cat(done)

    def _run(self, z: torch.Tensor, log_snr: torch.Tensor, cond: torch.Tensor | None) -> torch.Tensor:
        with autocast(self.device, self.dtype):
            return self.net(z, log_snr, cond).float()


def available_models() -> list[str]:
    """Names whose weights are shipped in assets/checkpoints."""
    return [name for name in RECIPES if (CHECKPOINTS / f"{name}.pt").exists()]


def load_pretrained(name: str, device: str | torch.device | None = None, path: Path | None = None, amp: str = "off") -> Model:
    """The shipped model `name`, or the weights at `path`, on `device`; `amp` as for `Model`.

    Raises ValueError for an unknown name, WeightsError for weights that are missing, damaged or of another network.
    """
    recipe = get_recipe(name)
    path = CHECKPOINTS / f"{name}.pt" if path is None else Path(path)
    if not path.exists():
        raise WeightsError(f"{path.name} is not in {path.parent.name}/. Shipped: {', '.join(available_models()) or 'none'}. "
                           f"Restore it with `git checkout -- assets`, or train it with `python -m utils.train {name}`.")
    net, origin = load_weights(path, recipe)
    return Model(recipe, net, origin, device, amp)


def load_weights(path: Path, recipe: Recipe) -> tuple[UNet, dict]:
    """The network that `save_weights` wrote, in float32 on the CPU, and its provenance. WeightsError when it does not fit."""
    mend = f"Restore it with `git checkout -- assets`, or train it with `python -m utils.train {recipe.name}`."
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for a damaged file
        raise WeightsError(f"{path.name} is damaged ({type(error).__name__}). {mend}") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT or saved.get("name") != recipe.name:
        raise WeightsError(f"{path.name} does not hold weights of {recipe.name}. {mend}")
    net = UNet(recipe.net)
    try:
        net.load_state_dict({key: tensor.float() for key, tensor in saved["weights"].items()})
    except RuntimeError as error:
        raise WeightsError(f"{path.name} was made for another shape of {recipe.name}. {mend}") from error
    return net, json.loads(saved["provenance"])


def save_weights(path: Path, recipe: Recipe, net: UNet, provenance: dict) -> None:
    """Write `net` in float16 with its provenance, for `load_pretrained`; moved into place when whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    torch.save({"format": FORMAT, "name": recipe.name, "provenance": json.dumps(provenance),
                "weights": {key: tensor.detach().half().cpu() for key, tensor in net.state_dict().items()}}, temporary)
    os.replace(temporary, path)


def provenance(name: str, steps: int, samples: int, seconds: float, flops: float, seed: int, device: torch.device, precision: str) -> dict:
    """Where weights come from: commit, date, device, precision, steps, samples seen, seconds, FLOPs, peak memory of the process, seed, versions."""
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {"recipe": name, "commit": commit.stdout.strip() or "unknown", "date": time.strftime("%Y-%m-%d"),
            "device": device_name(device), "precision": precision, "steps": steps, "samples": samples,
            "seconds": round(seconds), "flops": float(f"{flops:.3g}"), "peak_memory_mib": peak_memory_mib(device),
            "seed": seed, "versions": versions()}
