"""The cost of each recipe is within its limits, and FLOPs are counted right."""

import pytest
import torch

from utils.cost import cost, count, training_flops
from utils.recipes import RECIPES, VDM_TEXT, Budget
from utils.train import Trainer
from utils.unet import UNet


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_cost_is_within_the_limits(recipe):
    price = cost(recipe)
    assert price["parameters"] == sum(p.numel() for p in UNet(recipe.net).parameters()) <= 4e6
    assert price["gflop_per_sample"] <= 25 and price["saved_activations_mib"] <= 250
    assert price["flops"]["t4"] <= 4e15 and price["flops"]["t4-long"] <= 1.2e16
    if recipe is VDM_TEXT:
        assert price["flops"]["t4"] > 3e15 and price["flops"]["t4-long"] > 1e16  # and makes use of it


def test_cost_is_what_a_run_will_say_that_it_cost():
    for recipe in (VDM_TEXT, RECIPES["mav"]):
        budget = Budget(40, 2)
        trainer = Trainer(recipe, budget, device="cpu", amp="off")
        assert trainer.provenance(40)["flops"] == pytest.approx(training_flops(recipe, budget), rel=1e-2)
    assert training_flops(VDM_TEXT, Budget(40, 2)) < 0.85 * 40 * 2 * cost(VDM_TEXT)["gflop_per_sample"] * 1e9  # practice has no images


def test_cost_counts_a_convolution_right():
    """One 3x3 convolution of 16 to 16 channels on 32 x 32, forward and backward: 3 times 2 * 9 * 16 * 16 * 1024."""
    layer, x = torch.nn.Conv2d(16, 16, 3, padding=1), torch.zeros(1, 16, 32, 32, requires_grad=True)
    measured = count(layer, lambda: layer(x))
    assert measured.flops == 3 * 2 * 9 * 16 * 16 * 1024
    assert measured.parameters == 9 * 16 * 16 + 16 and measured.saved_bytes == 4 * 16 * 1024  # the weights, which are kept anyway, do not count


def test_attention_counts_the_same_fused_and_in_the_open():
    """Of n tokens with d numbers in h heads, forward and backward: 3 times 2 products of 2 n n d h."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q = torch.randn(1, 2, 64, 8, requires_grad=True)
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(backend):
            measured = count(torch.nn.Identity(), lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
        assert measured.flops == 3 * 2 * 2 * 64 * 64 * 8 * 2, backend
