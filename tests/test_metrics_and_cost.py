"""The readers have floors and controls that fail; the kernel distance is unbiased; the cost of each recipe is within its limits."""

import json
import math
from dataclasses import replace

import pytest
import torch

from utils.cost import cost
from utils.data import MNIST, MovingMNIST
from utils.evaluate import evaluate_model
from utils.metrics import check_clips, classify, digit_features, kernel_distance, obeyed, read
from utils.pretrained import Model
from utils.recipes import MNIST_DDPM, MNIST_GUIDED, RECIPES, VDM_TEXT
from utils.runtime import generator
from utils.unet import UNet, UNetConfig, randomize


@pytest.fixture(scope="module")
def real():
    return MovingMNIST("test", seed=11, captions="motion").sample(96)


def test_reader_floor_and_controls(real):
    clips = (real.video + 1) / 2
    floor = obeyed(clips, real.captions)
    shuffled = obeyed(clips.roll(1, 0), real.captions)
    noise = obeyed(torch.rand(clips.shape, generator=generator(0)), real.captions)
    assert floor["digits"] > 0.85 and floor["directions"] > 0.8
    assert shuffled["digits"] < 0.15 and noise["digits"] < 0.15
    assert noise["directions"] < 0.6 and shuffled["directions"] < 0.6  # chance is 3/8
    assert floor["digits_low"] < floor["digits"] < floor["digits_high"] and floor["digits_n"] == 96 and floor["directions_n"] == 192


def test_read_gives_the_multiset(real):
    digits, moves = read((real.video[:20] + 1) / 2)
    assert digits.shape == (20, 2) and bool((digits[:, 0] <= digits[:, 1]).all()) and moves.shape == (20, 10, 8)
    assert (digits == real.labels[:20].sort(1).values).all(1).float().mean() > 0.75


def test_evaluation_has_floor_controls_and_circumstances():
    net = UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), embed_dim=16, head_dim=8, text_width=16)
    recipe = replace(VDM_TEXT, net=net)
    result = json.loads(json.dumps(evaluate_model(Model(recipe, randomize(UNet(net)), {"steps": 0}, device="cpu"), num=4, steps=1)))
    assert {"n", "seed", "steps", "guidance_scale", "device", "seconds", "precision", "rows", "trained"} <= set(result)
    assert set(result["rows"]) == {"motion", "digits"} and result["n"] == 4 and result["steps"] == 1
    for rows in result["rows"].values():
        assert list(rows)[0].startswith("real") and sum(name.startswith("control") for name in rows) == 2 and "vdm-text" in rows
    image = replace(MNIST_DDPM, net=replace(MNIST_DDPM.net, channels=(8, 8, 8), head_dim=8))
    rows = evaluate_model(Model(image, randomize(UNet(image.net)), {}, device="cpu"), num=8, steps=1)["rows"]
    assert rows["real held-out (floor)"]["kernel_distance"] < rows["control: noise"]["kernel_distance"] and "digits" not in rows["mnist-ddpm"]
    guided = replace(MNIST_GUIDED, net=replace(MNIST_GUIDED.net, channels=(8, 8, 8), head_dim=8, text_width=16))
    result = evaluate_model(Model(guided, randomize(UNet(guided.net)), {}, device="cpu"), num=40, steps=1, guidance_scale=0.0)
    assert result["guidance_scale"] == 0 and result["rows"]["real held-out (floor)"]["digits"] > 0.9 > result["rows"]["control: noise"]["digits"]


def test_clips_of_the_wrong_shape_or_range_are_explained(real):
    with pytest.raises(ValueError, match=r"\(N, 1, T, 32, 32\)"):
        check_clips(torch.zeros(2, 1, 16, 28, 28))
    with pytest.raises(ValueError, match=r"\(video \+ 1\) / 2"):
        obeyed(real.video, real.captions)
    with pytest.raises(ValueError, match="95 captions"):
        obeyed((real.video + 1) / 2, real.captions[:-1])


def test_classifier_and_its_features():
    batch = MNIST("test", seed=1).sample(500)
    images = (batch.video + 1) / 2
    assert (classify(images).argmax(1) == batch.labels[:, 0]).float().mean() > 0.97
    features = digit_features(images)
    assert features.shape == (500, 64)
    other = digit_features((MNIST("test", seed=2).sample(500).video + 1) / 2)
    noise = digit_features(torch.rand(images.shape, generator=generator(3)))
    assert abs(kernel_distance(features, other)) < 0.1 * kernel_distance(noise, other)


def test_kernel_distance_is_unbiased_and_equals_a_plain_loop():
    x, y = torch.randn(7, 3, generator=generator(1)), torch.randn(5, 3, generator=generator(2)) + 0.5
    k = lambda a, b: (float(a @ b) / 3 + 1) ** 3
    within = lambda s: sum(k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j) / (len(s) * (len(s) - 1))
    across = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    assert kernel_distance(x, y) == pytest.approx(within(x) + within(y) - 2 * across, rel=1e-5)
    draws = [kernel_distance(*torch.randn(2, 40, 3, generator=generator(4, seed))) for seed in range(300)]
    mean, error = sum(draws) / 300, torch.tensor(draws).std() / math.sqrt(300)
    assert abs(mean) < 4 * error  # zero on average, of either sign
    with pytest.raises(ValueError, match="features"):
        kernel_distance(x, torch.zeros(4, 2))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_cost_is_within_the_limits(recipe):
    price = cost(recipe)
    assert price["parameters"] == sum(p.numel() for p in UNet(recipe.net).parameters()) <= 4e6
    assert price["gflop_per_sample"] <= 25 and price["saved_activations_mib"] <= 250
    assert price["flops"]["t4"] <= 4e15 and price["flops"]["t4-long"] <= 1.2e16
    if recipe is VDM_TEXT:
        assert price["flops"]["t4"] > 3e15 and price["flops"]["t4-long"] > 1e16  # and makes use of it


def test_cost_counts_a_convolution_right():
    """One 3x3 convolution of 16 to 16 channels on 32 x 32, forward and backward: 3 times 2 * 9 * 16 * 16 * 1024."""
    from torch.utils.flop_counter import FlopCounterMode
    layer = torch.nn.Conv2d(16, 16, 3, padding=1)
    with FlopCounterMode(display=False) as counter:
        layer(torch.zeros(1, 16, 32, 32, requires_grad=True)).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 9 * 16 * 16 * 1024
