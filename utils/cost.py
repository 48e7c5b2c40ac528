"""What a recipe costs, before anything is trained.

    python -m utils.cost vdm-text
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from .recipes import Budget, Recipe, recipe as get_recipe
from .runtime import telling_of_errors
from .unet import UNet, UNetConfig, freeze, new_over_time, randomize

T4_SUSTAINED = 7e12  # FLOP/s: the middle of the 5-10 TFLOP/s that small convolution networks reach on a T4 in fp16
TRAINING_COPIES = 16  # bytes a parameter: weights, gradients, momentum and EMA, float32 (Adam's few parameters have 4 more)


@dataclass(frozen=True)
class Measured:
    """The cost of one sample and its packed images in a network, forward and backward, batch 1, float32 (multiply-add = 2)."""

    parameters: int
    flops: int
    saved_bytes: int  # activations saved for backward, each storage counted once


@lru_cache
def measure(config: UNetConfig, sample_shape: tuple[int, ...], num_images: int = 0, frozen: bool = False) -> Measured:
    """Count the cost of one sample of shape (C, T, H, W) with `num_images` independent frames packed with it. frozen: only what an image network lacks is trained."""
    net = randomize(UNet(config))
    if frozen:
        freeze(net, new_over_time(net))
    c, t, h, w = sample_shape
    z = torch.zeros(1, c, t + num_images, h, w)
    inputs = {"fps": torch.ones(1)} if config.frame_rate else {}
    if config.conditioning == "frames":
        inputs |= {"mask": torch.ones_like(z[:, :1]), "given": z}
    elif config.conditioning == "low_res":
        inputs |= {"low_res": z[..., ::2, ::2]}
    return count(net, lambda: net(z, torch.zeros(1), torch.zeros(1, config.embed_dim), num_images=num_images, **inputs))


def _fused_attention() -> dict:
    """FLOPs of fused attention kernels, forward and backward, counted as the same two products unfused (what a kernel recomputes to save memory is not counted); some versions of
    PyTorch omit the CPU's entirely."""

    def forward(query, key, value, *_, **__) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(_, query, key, value, *__, **___) -> int:
        return 2 * sdpa_flop_count(query, key, value)

    kernels = [f"_scaled_dot_product_{name}" for name in ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")]
    there = {kernel: getattr(torch.ops.aten, kernel) for name in kernels for kernel in (name, f"{name}_backward") if hasattr(torch.ops.aten, kernel)}
    return {op: backward if kernel.endswith("_backward") else forward for kernel, op in there.items()}


def count(net: nn.Module, forward: Callable[[], torch.Tensor]) -> Measured:
    """The cost of one call of `forward`, which runs `net`, and of its backward pass."""
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor  # kept alive, so that no address is reused
        return tensor

    with FlopCounterMode(display=False, custom_mapping=_fused_attention()) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = forward().sum()
        loss.backward()
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    activations = sum(t.untyped_storage().nbytes() for address, t in saved.items() if address not in weights)
    return Measured(sum(p.numel() for p in net.parameters()), counter.get_total_flops(), activations)


def training_flops(recipe: Recipe, budget: Budget, steps: int | None = None) -> float:
    """FLOPs of the first `steps` steps (None: all) of a run of this budget; those that practise something easier have no images packed with their clips."""
    steps = budget.steps if steps is None else steps
    practised = 0 if recipe.curriculum is None else sum(recipe.curriculum.at(step, budget.steps) is not None for step in range(steps))
    return sum(measure(recipe.net, recipe.sample_shape, num_images, recipe.frozen is not None).flops * budget.batch_size * some
               for num_images, some in ((0, practised), (recipe.num_images, steps - practised)) if some)


def cost(recipe: Recipe) -> dict[str, float | int]:
    """Measured: parameters, training GFLOP per sample of its own task, saved activations in MiB. Estimated, as the keys say: minutes on a
    T4 per budget, GiB of memory in training."""
    one = measure(recipe.net, recipe.sample_shape, recipe.num_images, recipe.frozen is not None)
    spent = {name: training_flops(recipe, budget) for name, budget in recipe.budgets.items()}
    largest = max(budget.batch_size for budget in recipe.budgets.values())
    return {"recipe": recipe.name, "parameters": one.parameters, "gflop_per_sample": round(one.flops / 1e9, 3),
            "saved_activations_mib": round(one.saved_bytes / 2**20, 1),
            "flops": {name: float(f"{number:.3g}") for name, number in spent.items()},
            "t4_minutes_estimate": {name: round(number / T4_SUSTAINED / 60, 1) for name, number in spent.items()},
            "memory_gib_estimate": round((one.saved_bytes * largest + one.parameters * TRAINING_COPIES) / 2**30, 2)}


@telling_of_errors()
def main() -> None:
    """Print the cost of the recipe named on the command line."""
    parser = argparse.ArgumentParser(description="Parameters, FLOPs and memory of a recipe.")
    parser.add_argument("recipe")
    print(json.dumps(cost(get_recipe(parser.parse_args().recipe)), indent=2))


if __name__ == "__main__":
    main()
