"""What a recipe costs, before anything is trained.

    python -m utils.cost vdm-text
"""

from __future__ import annotations

import argparse
import json

import torch
from torch.utils.flop_counter import FlopCounterMode

from .recipes import Recipe, recipe as get_recipe
from .unet import UNet, randomize

T4_SUSTAINED = 7e12  # FLOP/s: the middle of the 5-10 TFLOP/s that small convolution networks reach on a T4 in fp16
TRAINING_COPIES = 16  # bytes a parameter: weights, EMA, and Adam's two moments, float32


def cost(recipe: Recipe) -> dict[str, float | int]:
    """Measured: parameters, training GFLOP a sample (forward and backward, multiply-add = 2), saved activations in MiB
    (float32, batch 1). Estimated, and named so: minutes on a T4 for each budget, GiB of memory in training."""
    net = randomize(UNet(recipe.net))
    z = torch.zeros(1, *recipe.sample_shape)
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor  # kept, so that an address is not used twice
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = net(z, torch.zeros(1), torch.zeros(1, recipe.net.embed_dim)).sum()
        loss.backward()
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    activations = sum(t.untyped_storage().nbytes() for address, t in saved.items() if address not in weights)
    parameters = sum(p.numel() for p in net.parameters())
    flops = counter.get_total_flops()
    per_step = flops * recipe.batch_size
    return {"recipe": recipe.name, "parameters": parameters, "gflop_per_sample": round(flops / 1e9, 3),
            "saved_activations_mib": round(activations / 2**20, 1),
            "flops": {budget: float(f"{steps * per_step:.3g}") for budget, steps in recipe.steps.items()},
            "t4_minutes_estimate": {budget: round(steps * per_step / T4_SUSTAINED / 60, 1) for budget, steps in recipe.steps.items()},
            "memory_gib_estimate": round((activations * recipe.batch_size + parameters * TRAINING_COPIES) / 2**30, 2)}


def main() -> None:
    """Print the cost of the recipe named on the command line."""
    parser = argparse.ArgumentParser(description="Parameters, FLOPs and memory of a recipe.")
    parser.add_argument("recipe")
    print(json.dumps(cost(get_recipe(parser.parse_args().recipe)), indent=2))


if __name__ == "__main__":
    main()
