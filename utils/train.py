"""The training loop, as a generator: EMA, clipping, mixed precision, checkpoints that resume, bit for bit on a CPU.

    python -m utils.train vdm-text --budget t4 --amp fp16 --out runs/vdm-text [--resume]
    torchrun --nproc_per_node=4 -m utils.train vdm-text --budget t4-long --out runs/vdm-text [--resume]
    python -m utils.train --all --amp fp16 --minutes 9    # every model and every number, part by part: see reproduce.py

Everything random in step k is drawn from generators seeded with (seed, k), so only the tensors have to be saved for
a killed run to go on as if it had never stopped. Each of several processes makes its own rows of the same batch, so their number changes nothing but rounding.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import fcntl
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from .captioner import load_captioner
from .captions import CaptionError, tokenize
from .cost import training_flops
from .data import FINE_FPS
from .diffusion import augment, loss_per_sample, q_sample
from .hearing import heard_so_far
from .keyframes import sample_masks
from .model import MAX_AUGMENTATION, Model
from .neighbours import NAMING, Neighbours, Readers
from .optimizer import Muon
from .pretrained import CHECKPOINTS, load_initial, load_pretrained, origin, provenance, runs, save_weights, shipped_flops, total_flops
from .processes import ALONE, Processes, join, telling_of_lost_processes
from .recipes import MNIST_SIZE, RECIPES, Budget, Practice, Recipe, recipe as get_recipe
from .runtime import ASSETS, BUDGETS, amp_dtype, autocast, budget as default_budget, check_compiles, generator, pick_device, precision_name, write_json, written_whole
from .unet import UNet, freeze, inflate, new_over_time
from .video_folder import CAPTIONS_FILE, VideoFolder

FORMAT = "video-diffusion-training-3"
IMAGES = 1_000_003  # added to the clips' seed: the seed of the images that are packed with them
PATIENCE = 20  # consecutive steps without a finite loss or gradient before a run gives up


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, or of another run; the message says what to do."""


class TrainingError(RuntimeError):
    """Training cannot go on; the last good checkpoint is kept."""


@dataclass(frozen=True)
class Progress:
    """What the training loop yields after each step: step (1..steps), loss (of this step), seconds (of this call)."""

    step: int
    steps: int
    loss: float
    seconds: float
    skipped: bool


class EMA:
    """Exponential moving average of a network's parameters, with a decay that warms up as (1 + n) / (10 + n)."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take one step towards the parameters of `net`."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        moving = [(mine, new) for mine, new in zip(self.net.parameters(), net.parameters()) if new.requires_grad]
        torch._foreach_lerp_([mine for mine, _ in moving], [new for _, new in moving], 1 - decay)
        self.updates += 1


@dataclass(frozen=True)
class Drawn:
    """A training batch: clips x (B, C, T + K, H, W) in [-1, 1], of which the last K = num_images frames are images, noise eps of that shape, log_snr (B,), or with images
    (B, T + K); tokens of the captions, clips first, and keep, 0 where a caption is dropped, in the shape of log_snr; inputs: what else the network takes; neighbours: in a practice with some digits clearer, which."""

    x: torch.Tensor
    eps: torch.Tensor
    log_snr: torch.Tensor
    tokens: torch.Tensor | None
    keep: torch.Tensor
    num_images: int
    inputs: dict[str, torch.Tensor]
    neighbours: Neighbours | None = None


class _StepLoss(nn.Module):
    """A trainer's loss as the forward pass of a module, so that `DistributedDataParallel` sees all parameters that it depends on."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.net, self.readers, self.trainer = trainer.net, trainer.readers, trainer

    def forward(self, step: int, rows: slice) -> torch.Tensor:
        return self.trainer.loss(step, rows)


class Trainer:
    """A recipe in training: network, EMA, optimizer and step counter.

    budget: length of the run, over which the learning rate decays, and samples a step. device, amp: see `runtime`. seed: of
    everything. initial: a trained model to start from instead of the recipe's `initial`, or the seed's weights; it has every parameter of this recipe's network but attention, layers over time
    and new inputs (what only `initial` has is left out, except that projections of residual blocks must agree), with as many channels or a divisor of them (`unet.inflate`), else ValueError. Weights of the recipe's `frozen` model stay as shipped.
    clips: a `VideoFolder` to learn from instead of the recipe's data, of its sample_shape, drawn by `seed`; ValueError for another shape, CaptionError for a caption outside the grammar. processes: this one's place among several that train together. parts: gradients of this
    many parts of a batch are summed before a step, so that a batch may be larger than memory. recompute: save memory, for about a third more time (`UNet.recompute`).
    fresh_text: the text encoder starts from the seed, not from `initial`: one that has learnt to look only at digits hardly learns to hear another word.
    compiled: run the network through `torch.compile`, which takes a minute or two at the start; ValueError for a GPU that it does not support.
    """

    def __init__(self, recipe: Recipe, budget: Budget, device: str | torch.device | None = None, amp: str = "auto", seed: int = 0,
                 initial: Model | None = None, clips: VideoFolder | None = None, processes: Processes = ALONE, parts: int = 1, recompute: bool = False, fresh_text: bool = False,
                 compiled: bool = False) -> None:
        self.recipe, self.budget, self.steps, self.seed, self.step = recipe, budget, budget.steps, seed, 0
        self.processes, self.shares, self.whole = processes, processes.shares(budget.batch_size, parts), True
        self.device = pick_device(device)
        self.dtype = amp_dtype(self.device, amp)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = UNet(recipe.net)
        self.net.recompute = recompute
        self.origin = self.base = self.grown_from = None
        if initial is None and recipe.initial is not None:
            initial = load_pretrained(recipe.initial, "cpu")
        if fresh_text and (initial is None or self.net.text is None or recipe.frozen is not None):
            raise ValueError("A text encoder can start anew in a model that has one, starts from weights, and freezes none.")
        self.fresh_text = fresh_text
        if initial is not None:
            from_seed = copy.deepcopy(self.net.text)
            if any(wide != narrow for wide, narrow in zip(recipe.net.channels, initial.net.config.channels)):
                self.grown_from = {key: getattr(initial.net.config, key) for key in ("channels", "space", "time")}
            self.origin = origin(initial)
            try:
                inflate(self.net, initial.net)
            except ValueError as error:
                raise ValueError(f"{initial.name} does not fit {recipe.name}: {error}") from error
            if fresh_text:
                self.net.text = from_seed
        if recipe.frozen is not None:
            base = load_pretrained(recipe.frozen, "cpu")
            own, still = self.net.state_dict(), base.net.state_dict()
            if any(name in own and own[name].shape != tensor.shape for name, tensor in still.items()):
                raise ValueError(f"{recipe.name} keeps the weights of {recipe.frozen}, which do not fit a network of another shape: set frozen=None in the recipe to train a larger network.")
            self.net.load_state_dict(still, strict=False)  # `initial` may have rested on older ones
            if self.origin is None or not runs(base.provenance).keys() <= runs(self.origin).keys():
                self.base = base.provenance
            freeze(self.net, new_over_time(self.net))
        self.net.to(self.device).train()
        self.ema = EMA(self.net, recipe.ema_decay)
        if compiled:
            check_compiles(self.device)
            self.net.compile(dynamic=False)
        self.curriculum, self.readers = recipe.curriculum if clips is None else None, None
        if self.curriculum is not None and self.curriculum.hides:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.readers = Readers(recipe.net).to(self.device)
        self.optimizer = Muon(nn.ModuleList(filter(None, (self.net, self.readers))), recipe.learning_rate)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.captions = recipe.captions if recipe.paired else None
        self.captioner = copy.deepcopy(load_captioner()).to(self.device) if recipe.recaptioned else None
        self.data, self.images = self._data(clips)
        if self.curriculum is not None:
            self.practice_data = {part: dataclasses.replace(recipe, captions=recipe.captions if part.clearer else "motion").dataset("train", seed, self.device, num_digits=part.num_digits)
                                  for part in self.curriculum.practices}
        self.module = _StepLoss(self)
        if processes.size > 1:
            self.module = DistributedDataParallel(self.module, device_ids=[self.device] if self.device.type == "cuda" else None)
        self.ahead: dict[tuple, Drawn] = {}
        self.bad_steps = 0
        self.trained_seconds = 0.0
        self.history: list[float] = []

    def _data(self, clips: VideoFolder | None) -> tuple:
        """The sources of clips, and of images to pack with them; ValueError for a folder that the recipe cannot learn from."""
        r = dataclasses.replace(self.recipe, captions=self.captions)
        if clips is None:
            return r.dataset("train", self.seed, self.device), r.dataset("train", self.seed + IMAGES, self.device, num_frames=1) if r.num_images else None
        if (shape := (clips.channels, clips.num_frames, clips.image_size, clips.image_size)) != r.sample_shape:
            raise ValueError(f"{r.name} learns from clips of shape {r.sample_shape} (channels, frames, height, width), and the folder gives {shape}.")
        if self.captions is not None and clips.texts is None:
            raise ValueError(f"{r.name} learns from captions, and the folder has none: write a captions.csv (file,caption), or train a recipe without captions, such as vdm.")
        if r.frame_skips:
            raise ValueError(f"{r.name} learns from several frame rates, which a folder of clips does not have: train another recipe.")
        if self.captions is not None:
            for file, text in zip(clips.files, clips.texts):  # find a caption outside the grammar now
                try:
                    tokenize([text])
                except CaptionError as error:
                    raise CaptionError(f"{file}: {error}") from error
        return clips.drawn(self.seed), clips.drawn(self.seed + IMAGES, 1) if r.num_images else None

    def learning_rate(self, step: int) -> float:
        """Linear warm-up over the first twentieth (at most 200 steps), then cosine decay to zero."""
        warmup = max(1, min(200, self.steps // 20))
        if step < warmup:
            return self.recipe.learning_rate * (step + 1) / warmup
        return self.recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))

    def practice(self, step: int) -> Practice | None:
        """What the curriculum practises in a step; None: the step is one of the recipe's own task."""
        return None if self.curriculum is None else self.curriculum.at(step, self.steps)

    def loss(self, step: int, rows: slice = slice(None)) -> torch.Tensor:
        """The mean loss of batch number `step`, or of some of its rows, as a scalar tensor with a graph.

        With `num_images` = K in the recipe each clip is followed by K images: first frames of other clips, each with a caption and a
        noise level of its own (*Video Diffusion Models*, section 4.3.1; whether they share the clip's is not stated there).
        """
        drawn = self.ahead.pop((step, rows.start, rows.stop), None) or self.draw(step, rows)
        x, eps, log_snr, k, neighbours = drawn.x, drawn.eps, drawn.log_snr, drawn.num_images, drawn.neighbours
        z, features = q_sample(x, log_snr if neighbours is None else neighbours.log_snr(log_snr), eps), {}
        inputs = drawn.inputs if neighbours is None else drawn.inputs | {"features": features}
        with autocast(self.device, self.dtype):
            cond = None
            if drawn.tokens is not None:
                cond = self.net.encode(drawn.tokens)
                cond = (self._pack(cond[:len(x)], cond[len(x):]) if k else cond) * drawn.keep[..., None]
            output = self.net(z, log_snr, cond, num_images=k, **inputs)
        if neighbours is not None:
            return (neighbours.loss(output, x, eps, log_snr, self.recipe.prediction) + NAMING * self.readers(features, neighbours)).mean()
        loss = loss_per_sample(output, x, eps, log_snr, self.recipe.prediction, self.recipe.min_snr).mean()
        return loss if self.readers is None else loss + 0 * sum(p.sum() for p in self.readers.parameters())  # several processes expect a gradient for all

    def draw(self, step: int, rows: slice = slice(None)) -> Drawn:
        """What the loss of batch number `step`, or of some of its rows, is made of: data, noise, and what the network is told."""
        r, num = self.recipe, self.budget.batch_size
        practice = self.practice(step)
        k, drop = (0, 0.0) if practice else (r.num_images, r.null_probability)
        start, stop, _ = rows.indices(num)
        of_images = slice(start * k, stop * k)
        g = generator(self.seed, step, 1)
        skip = r.frame_skip(step / self.steps, g) if r.frame_skips else None
        data = self.practice_data[practice] if practice else self.data
        batch = (data if skip is None else data.at(skip)).sample(num, index=step, rows=rows)
        t = r.schedule.sample_t(num, g)[rows]
        keep = (torch.rand(num, generator=g) >= drop)[rows].float()
        x, neighbours = batch.video, None
        if practice and practice.clearer:
            hidden, clearer = torch.randint(practice.num_digits, (num,), generator=g), practice.clearer * torch.rand(num, generator=g)
            neighbours = Neighbours.of(batch, hidden[rows], clearer[rows])
        if k:
            images = self.images.sample(num * k, index=step, rows=of_images)
            t = self._pack(t, r.schedule.sample_t(num * k, g)[of_images])  # (B, T + K), like everything below
            keep = self._pack(keep, (torch.rand(num * k, generator=g) >= drop)[of_images].float())
            x = torch.cat([x, rearrange(images.video, "(b k) c 1 h w -> b c k h w", k=k)], dim=2)
        on_device = generator(self.seed, step, 2, device=self.device)
        eps = torch.randn((num, *x.shape[1:]), generator=on_device, device=self.device)[rows]
        log_snr = (practice or r.schedule).log_snr(t).float().to(self.device)
        captions = None if self.captions is None else batch.captions
        if self.captioner is not None:
            captions = self.captioner.captions(x, torch.rand(num, 4, generator=g)[rows])
        tokens = None if captions is None else tokenize(captions + (images.captions if k else [])).to(self.device)
        return Drawn(x, eps, log_snr, tokens, keep.to(self.device), k, self._inputs(x, skip, g, on_device, rows), neighbours)

    def _inputs(self, x: torch.Tensor, skip: int | None, g: torch.Generator, on_device: torch.Generator, rows: slice) -> dict[str, torch.Tensor]:
        """What else the network is told about the clips x (B, C, T, H, W): frames a second; given frames; or the clips at half the size, with noise of a random strength."""
        r, num, inputs = self.recipe, self.budget.batch_size, {}
        if skip is not None:
            inputs["fps"] = torch.full((len(x),), FINE_FPS / skip, device=self.device)
        if r.net.conditioning == "frames":
            inputs |= {"mask": sample_masks(num, x.shape[2], g)[rows].to(self.device).expand(-1, -1, -1, *x.shape[3:]), "given": x}
        if r.net.conditioning == "low_res":
            augmentation = (MAX_AUGMENTATION * torch.rand(num, generator=g))[rows].to(self.device)
            low_res = F.avg_pool3d(x, (1, 2, 2))
            noise = torch.randn((num, *low_res.shape[1:]), generator=on_device, device=self.device)[rows]
            inputs |= {"low_res": augment(low_res, augmentation, noise), "augmentation": augmentation}
        return inputs

    def _pack(self, clips: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """One row per clip (B, ...) and image (B*K, ...) to one per frame, (B, T + K, ...)."""
        every = clips[:, None].expand(-1, self.recipe.sample_shape[1], *clips.shape[1:])
        return torch.cat([every, images.unflatten(0, (len(clips), -1))], dim=1)

    def train_step(self) -> Progress:
        """One optimizer step. A step whose loss or gradient is not finite is skipped; PATIENCE of them in a row raise TrainingError."""
        start = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for rows in self.shares:
            waiting = self.processes.size > 1 and rows is not self.shares[-1]  # gradients sync once a step
            with self.module.no_sync() if waiting else contextlib.nullcontext():
                loss = self.module(self.step, rows) / len(self.shares)
                with telling_of_lost_processes() if self.processes.size > 1 else contextlib.nullcontext():
                    self.scaler.scale(loss).backward()
            total += loss.detach()
        if self.step + 1 < self.steps:  # draw ahead while a GPU works: the check below waits for it
            rows = self.shares[0]
            self.ahead = {(self.step + 1, rows.start, rows.stop): self.draw(self.step + 1, rows)}
        loss = self.processes.mean(total)
        try:
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            finite = bool(torch.isfinite(norm) & torch.isfinite(loss))
            self.whole = False  # from here to the end of the step, weights and counters do not belong together
            if finite or self.scaler.is_enabled():
                self.scaler.step(self.optimizer)  # a scaler itself skips a step that is not finite
            self.scaler.update()
        except BaseException:
            self._renew_scaler(self.scaler.state_dict())
            raise
        if finite and self.processes.first:
            self.ema.update(self.net)
        self.bad_steps = 0 if finite else self.bad_steps + 1
        if self.bad_steps >= PATIENCE:
            raise TrainingError(f"The loss or its gradient was not finite in {PATIENCE} steps in a row, up to step {self.step}. "
                                "The last checkpoint is kept. Go on from it with --resume and a smaller --learning-rate, or --amp off.")
        self.step += 1
        seconds = time.perf_counter() - start
        self.trained_seconds += seconds
        self.history.append(float(loss))
        self.whole = True
        return Progress(self.step, self.steps, self.history[-1], seconds, skipped=not finite)

    def _renew_scaler(self, state: dict) -> None:
        """A new scaler in that state (empty: the default), outside any step: one in mid-step takes no new step, and `load_state_dict` does not change that."""
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.scaler.is_enabled())
        if state:
            self.scaler.load_state_dict(state)

    def run(self) -> Iterator[Progress]:
        """Train to the end, yielding after every step."""
        while self.step < self.steps:
            yield self.train_step()

    def model(self) -> Model:
        """The EMA weights as a `Model`, to sample from while training goes on (a copy)."""
        return Model(self.recipe, copy.deepcopy(self.ema.net), self.provenance(), self.device)

    def provenance(self, step: int | None = None) -> dict:
        """Where the weights come from, now or after `step` steps, with the FLOPs spent on them; "initial" is the same for the model
        they started from, "frozen" for the frozen weights they rest on, where these came later."""
        step = self.step if step is None else step
        flops = training_flops(dataclasses.replace(self.recipe, curriculum=self.curriculum), self.budget, step)
        this_run = provenance(self.recipe.name, step, step * self.budget.batch_size, self.trained_seconds, flops, self.seed, self.device,
                              precision_name(self.dtype))
        if self.processes.size > 1:
            this_run["device"] = f"{self.processes.size} x {this_run['device']}"
        if self.fresh_text:
            this_run["fresh_text"] = True
        this_run |= {"optimizer": type(self.optimizer).__name__, "learning_rate": self.recipe.learning_rate}
        if self.curriculum is not None:
            this_run["curriculum"] = dataclasses.asdict(self.curriculum)
        if isinstance(self.data, VideoFolder):
            this_run["clips"] = {"files": len(self.data), "frames": sum(clip.shape[1] for clip in self.data.clips), "digest": self.data.digest}
        if self.grown_from is not None:
            this_run["grown_from"] = {key: list(levels) for key, levels in self.grown_from.items()}
        return this_run | ({} if self.origin is None else {"initial": self.origin}) | ({} if self.base is None else {"frozen": self.base})

    def fingerprint(self) -> str:
        """A text that two runs share exactly if one may continue the other: the learning rate, and how samples are drawn by default, may change on the way."""
        return repr((dataclasses.replace(self.recipe, budgets={}, learning_rate=0.0, guidance_scale=0.0, rival_scale=0.0, temporal_scale=1.0, sampler="", sampling_steps=0), self.budget, self.seed, *(earlier for earlier in (self.origin, self.base) if earlier is not None), *(["fresh text"] if self.fresh_text else []),
                     *([self.data.digest] if isinstance(self.data, VideoFolder) else []), *([] if isinstance(self.optimizer, Muon) else [type(self.optimizer).__name__])))

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all. Raises CheckpointError when it cannot be written (disk full, no permission); an older checkpoint stays as it was."""
        path = Path(path)
        state = {"format": FORMAT, "fingerprint": self.fingerprint(), "step": self.step, "bad_steps": self.bad_steps,
                 "trained_seconds": self.trained_seconds, "history": self.history, "net": self.net.state_dict(), "ema": self.ema.net.state_dict(),
                 "readers": None if self.readers is None else self.readers.state_dict(), "ema_updates": self.ema.updates, "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        try:
            with written_whole(path) as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"Could not write {path.name}: {error}. Free some disk space or choose another --out; "
                                  "an earlier checkpoint there is untouched.") from error

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises CheckpointError, and changes nothing, when it is damaged or of another run."""
        state = read_checkpoint(path)
        if state["fingerprint"] != self.fingerprint():
            raise CheckpointError(f"{Path(path).name} belongs to another run (recipe, steps, batch size, seed, initial weights, optimizer or folder of clips differ). "
                                  "Use the settings it was made with, or another --out.")
        self.net.load_state_dict(state["net"])
        self.ema.net.load_state_dict(state["ema"])
        if self.readers is not None:
            self.readers.load_state_dict(state["readers"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._renew_scaler(state["scaler"])  # empty after a run without float16: a run with it starts at its own scale
        self.whole = True
        self.ema.updates, self.step, self.bad_steps = state["ema_updates"], state["step"], state["bad_steps"]
        self.trained_seconds, self.history = state["trained_seconds"], list(state["history"])


def read_checkpoint(path: Path) -> dict:
    """A training checkpoint as saved; CheckpointError when it is missing, truncated, or some other file."""
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"There is no checkpoint {path.name} in {path.parent.name}/. Start without --resume.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for a damaged file
        raise CheckpointError(f"{path.name} is damaged or not a checkpoint ({type(error).__name__}). It is left as it is; "
                              "move it away and start again, or choose another --out.") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path.name} is not a training checkpoint of this version of the project. It is left as it is; choose another --out.")
    return state


def loss_band(history: list[float], points: int = 100) -> list[list[float]]:
    """A loss curve as about `points` rows [step, mean, low, high], fewer than twice as many: mean of a window of steps, and +-2 standard deviations of single steps in it, in the loss's logarithm, as
    losses are drawn on that scale. Drawn under a live curve, it shows what is usual."""
    window = max(min(5, len(history)), len(history) // points)
    rows = []
    for start in range(0, len(history) - window + 1, window):
        part = torch.tensor(history[start:start + window], dtype=torch.float64)
        middle, spread = float(part.log().mean()), 2 * float(part.log().std()) if window > 1 else 0.0
        rows.append([start + window / 2, round(float(part.mean()), 5), *(round(math.exp(middle + k * spread), 5) for k in (-1, 1))])
    return rows


def main(argv: list[str] | None = None) -> int:
    """Train a recipe, or with --all everything that is shipped, from the command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if "--all" in argv:
        from .reproduce import main as train_all  # it builds on this file, and on all that measures

        return train_all([argument for argument in argv if argument != "--all"])
    parser = argparse.ArgumentParser(prog="python -m utils.train", description="Train a model of the series.",
                                     epilog="--all instead of a recipe: train and measure everything that is shipped (--all --help).")
    parser.add_argument("recipe", help=", ".join(RECIPES))
    parser.add_argument("--budget", choices=BUDGETS, help="how long to train (default: LESSON_BUDGET, else by the device)")
    parser.add_argument("--steps", type=int, help="optimizer steps, instead of the budget's")
    parser.add_argument("--batch-size", type=int, help="samples a step, instead of the budget's")
    parser.add_argument("--learning-rate", type=float, help="the highest of the run, instead of the recipe's; a run that is resumed may have another")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes with a checkpoint; go on with --resume")
    parser.add_argument("--amp", default="auto", choices=("auto", "fp16", "bf16", "off"), help="mixed precision (default: by the device)")
    parser.add_argument("--device", help="cuda, mps or cpu (default: the best there is)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--curriculum", type=float, metavar="SHARE", help="share of the steps that the recipe's curriculum begins with, instead of its own")
    parser.add_argument("--initial", metavar="MODEL", help="what to start from: a shipped model, or the weights (.pt) of a run")
    parser.add_argument("--fresh-text", action="store_true", help="with --initial: but its text encoder starts anew, where it does not hear a kind of word")
    parser.add_argument("--out", type=Path, help="folder for the checkpoint and the weights (default: runs/RECIPE)")
    parser.add_argument("--clips", type=Path, metavar="FOLDER", help="learn from a folder of GIF or MP4 clips (captions.csv: file,caption) instead of the recipe's data")
    parser.add_argument("--fps", type=float, help="with --clips: frames a second to resample them to (default: the files' own frames, one by one)")
    parser.add_argument("--parts", type=int, default=1, help="add up the gradients of so many parts of a batch before each step: for batches larger than memory")
    parser.add_argument("--recompute", action="store_true", help="keep no activations inside stages, compute them anew: less memory, about a third more time")
    parser.add_argument("--compile", action="store_true", help="compile the network: a minute or two at the start, then faster on GPUs of compute capability 8.0 and above (not on a T4)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out, if there is one")
    parser.add_argument("--checkpoint-seconds", type=float, default=60, help="how often to write a checkpoint")
    parser.add_argument("--hear", type=int, metavar="STEPS", help="measure every so many steps what false directions in captions cost, into OUT/hearing.json")
    parser.add_argument("--publish", action="store_true", help="copy the finished weights to assets/checkpoints")
    parser.add_argument("--record", action="store_true", help="keep the loss curve in assets/results, as the band of this budget in the lessons")
    a = parser.parse_args(argv)
    out = a.out or Path("runs") / a.recipe
    try:
        recipe = get_recipe(a.recipe)
        name = a.budget or default_budget()
        budget = recipe.budget(name)
        budget = Budget(budget.steps if a.steps is None else a.steps, budget.batch_size if a.batch_size is None else a.batch_size)
        if a.learning_rate is not None:
            if not 0 < a.learning_rate < 1:
                raise ValueError(f"--learning-rate is between 0 and 1, not {a.learning_rate}.")
            recipe = dataclasses.replace(recipe, learning_rate=a.learning_rate)
        if a.minutes is not None and a.minutes < 0:
            raise ValueError(f"--minutes is at least 0, not {a.minutes}.")
        if a.curriculum is not None:
            if recipe.curriculum is None:
                raise ValueError(f"{recipe.name} has no curriculum: leave --curriculum out.")
            recipe = dataclasses.replace(recipe, curriculum=recipe.curriculum.with_share(a.curriculum))
        if a.hear is not None and (a.hear < 1 or recipe.captions is None or recipe.sample_shape[-1] == MNIST_SIZE or recipe.kind == "upsample"):
            raise ValueError("--hear is a number of steps, for recipes that learn from captions of moving digits.")
        if a.clips is None and a.fps is not None:
            raise ValueError("--fps is for a folder of clips: give --clips, or leave it out.")
        if a.clips is not None and (a.publish or a.record):
            raise ValueError("--publish and --record are for models that learn from the recipe's own data: leave them out with --clips.")
        if a.record and (a.seed or any(option is not None for option in (a.steps, a.batch_size, a.learning_rate, a.curriculum, a.initial))):
            raise ValueError(f"--record keeps the curve of the budget {name} as it is: leave --steps, --batch-size, --learning-rate, --curriculum, --initial and --seed out.")
        initial = None if a.initial is None else load_initial(a.initial)
        with join(a.device) as (processes, device), alone(out) if processes.first else contextlib.nullcontext():
            clips = None
            if a.clips is not None:
                channels, num_frames, size, _ = recipe.sample_shape
                clips = VideoFolder(a.clips, size, num_frames, channels, a.fps, captions=CAPTIONS_FILE if recipe.captions else None, device=device)
                if processes.first:
                    print(clips)
            trainer = Trainer(recipe, budget, device, a.amp, a.seed, initial, clips, processes, a.parts, a.recompute, a.fresh_text, a.compile)
            if a.publish and (planned := total_flops(trainer.provenance(budget.steps), recipe.name)) < (there := shipped_flops(recipe.name)):
                raise ValueError(f"The shipped weights of {recipe.name} had {there:.2g} FLOPs of training, these would have {planned:.2g}: leave --publish out, "
                                 f"choose a larger budget, or delete assets/checkpoints/{recipe.name}.pt first.")
            if _run(trainer, out, a.minutes, a.resume, a.checkpoint_seconds, a.hear) and processes.first:
                _export(trainer, out, a.publish, name if a.record else None)
    except KeyboardInterrupt:
        written = (out / "checkpoint.pt").exists()
        print("stopped; the checkpoint is written: go on with the same command and --resume" if written else "stopped before the first checkpoint: start again with the same command", file=sys.stderr)
        return 130
    except torch.OutOfMemoryError as error:
        print(f"error: the GPU's memory is full ({str(error).split('. ')[0]}). Add --recompute, or --parts 2, 4, ...: the same batch in pieces. The last checkpoint is kept.", file=sys.stderr)
        return 1
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Lock a run's folder: CheckpointError when another process trains in it. The lock ends with the process, however that ends. Where the file system has no locks, a warning."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = open(out / "lock", "w")
    except OSError as error:
        raise CheckpointError(f"Cannot write to {out}: {error.strerror}. Choose another --out.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(f"Another process is training in {out}: wait for it, or choose another --out.") from error
        except OSError as error:
            print(f"warning: {out} cannot be locked ({error.strerror}): see to it that no other process trains there.", file=sys.stderr)
        yield


@contextlib.contextmanager
def stopping_between_steps() -> Iterator[list[int]]:
    """While this is open, Ctrl-C and SIGTERM wait for the end of the step: they go into the list it yields. A second one does not wait."""
    asked: list[int] = []

    def ask(number: int, frame) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(trainer: Trainer, out: Path, minutes: float | None, resume: bool, checkpoint_seconds: float, hear: int | None) -> bool:
    checkpoint, processes = out / "checkpoint.pt", trainer.processes
    there = checkpoint.exists()
    seen = float(processes.mean(torch.tensor(float(there), device=trainer.device)))  # all have looked before one writes
    if seen not in (0, 1):
        raise CheckpointError(f"Only some of the {processes.size} processes find {checkpoint}: give an --out that all of them share, or copy the checkpoint to each machine.")
    if there and not resume:
        raise CheckpointError(f"{checkpoint} exists: pass --resume to go on from it, or choose another --out.")
    if there:
        trainer.load(checkpoint)
        step = torch.tensor(float(trainer.step), device=trainer.device)
        if processes.mean((step - processes.mean(step)).abs()) > 0:
            raise CheckpointError(f"The {processes.size} processes find checkpoints of different steps in {out}: give an --out that all of them share, or copy one checkpoint to each machine.")
        if processes.first:
            print(f"resumed at step {trainer.step} of {trainer.steps}")
    elif processes.first:
        trainer.save(checkpoint)  # an unwritable folder is found now, not after an hour
        if hear:
            _hear(trainer, out / "hearing.json")
    start = saved = time.monotonic()
    average = None
    bar = tqdm(total=trainer.steps, initial=trainer.step, desc=trainer.recipe.name, mininterval=1, disable=not processes.first)
    try:
        with stopping_between_steps() if processes.size == 1 else contextlib.nullcontext() as asked:  # among several, one may await another's message
            for progress in trainer.run():
                if not progress.skipped:
                    average = progress.loss if average is None else 0.98 * average + 0.02 * progress.loss
                bar.update()
                bar.set_postfix(loss="-" if average is None else f"{average:.4f}", refresh=False)
                if hear and processes.first and progress.step % hear == 0:
                    _hear(trainer, out / "hearing.json")
                now = time.monotonic()
                if processes.first and now - saved > checkpoint_seconds:
                    trainer.save(checkpoint)
                    saved = now
                late = minutes is not None and now - start > 60 * minutes
                if minutes is not None and processes.size > 1:  # all stop together; one alone need not wait for a GPU
                    late = bool(processes.mean(torch.tensor(float(late), device=trainer.device)) > 0)
                if late:
                    break
                if asked:
                    raise KeyboardInterrupt
    finally:
        bar.close()
        if processes.first and trainer.bad_steps == 0 and trainer.whole:  # also on Ctrl-C; a run that has gone wrong keeps its last good checkpoint
            trainer.save(checkpoint)
    if trainer.step < trainer.steps and processes.first:
        print(f"stopped at step {trainer.step} of {trainer.steps}; go on with the same command and --resume")
    return trainer.step == trainer.steps


def _hear(trainer: Trainer, path: Path) -> None:
    """Add a row to the file: what the EMA weights have heard so far. Rows of this or later steps, from a run killed after its last checkpoint, are dropped."""
    model = Model(trainer.recipe, trainer.ema.net, device=trainer.device)
    model.dtype = trainer.dtype
    try:
        before = json.loads(path.read_text())["rows"] if path.exists() else []
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: delete it, or leave --hear out.") from error
    rows = [row for row in before if row["step"] < trainer.step]
    ends = [] if trainer.curriculum is None else trainer.curriculum.ends(trainer.steps)
    rows.append({"step": trainer.step, **heard_so_far(model)})
    write_json(path, {"provenance": trainer.provenance(), "steps": trainer.steps, "curriculum": ends, "rows": rows})


def _export(trainer: Trainer, out: Path, publish: bool, record: str | None) -> None:
    name, result = trainer.recipe.name, {"provenance": trainer.provenance(), "loss": loss_band(trainer.history)}
    for folder in [out, CHECKPOINTS] if publish else [out]:
        save_weights(folder / f"{name}.pt", trainer.recipe, trainer.ema.net, result["provenance"])
    write_json(out / f"{name}.json", result, indent=None)
    if record is not None:
        curves = ASSETS / "results" / f"{name}-loss.json"
        known = json.loads(curves.read_text()) if curves.exists() else {}
        write_json(curves, {**known, record: result}, indent=None)
    print(f"weights: {out / name}.pt   loss and provenance: {out / name}.json")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # when a cluster takes the machine back, save first, as for Ctrl-C
    status = main()
    if "WORLD_SIZE" in os.environ:  # among several: backend threads, torn down with Python, now and then abort a process that is done
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
