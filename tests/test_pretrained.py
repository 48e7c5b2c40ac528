"""The model as its user holds it: shapes, ranges, seeds, captions, and every way to ask wrongly."""

import json
from dataclasses import replace

import pytest
import torch

from utils import available_models, load_pretrained
from utils.captions import CaptionError
from utils.model import Model
from utils.pretrained import CHECKPOINTS, WeightsError, save_weights
from utils.recipes import MNIST_DDPM, MNIST_GUIDED, VDM_TEXT
from utils.runtime import randn_per_sample, generator
from utils.unet import UNet, UNetConfig, randomize

SMALL = replace(VDM_TEXT, net=UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), embed_dim=16, head_dim=8, text_width=16))


@pytest.fixture(scope="module")
def model():
    return Model(SMALL, randomize(UNet(SMALL.net)), {"steps": 0}, device="cpu")


def test_sample_shape_range_and_seed(model):
    clips = model.sample(["3 and 7", "1 moving up and 0 moving left"], steps=3, seed=5)
    assert clips.shape == (2, 1, 16, 32, 32) and clips.dtype == torch.float32 and 0 <= clips.min() and clips.max() <= 1
    assert clips.std() > 0.01
    assert torch.equal(clips, model.sample(["3 and 7", "1 moving up and 0 moving left"], steps=3, seed=5))
    assert not torch.allclose(clips, model.sample(["3 and 7", "1 moving up and 0 moving left"], steps=3, seed=6), atol=0.05)
    assert torch.allclose(model.sample(["3 and 7"] * 3, steps=2)[:2], model.sample(["3 and 7"] * 2, steps=2), atol=1e-4)
    assert torch.equal(randn_per_sample((2, 3), [generator(0, 1), generator(0, 2)])[1], randn_per_sample((2, 3), [generator(0, 2)])[0])


def test_captions_labels_null_and_guidance(model):
    by_caption, by_label = model.encode(["3 and 7"]), model.encode(labels=torch.tensor([[3, 7]]))
    assert torch.equal(by_caption, by_label) and by_caption.shape == (1, 16)
    assert model.encode(num=4).abs().max() == 0 and model.encode(num=4).shape == (4, 16)
    null = model.sample(num=1, steps=2)
    assert torch.allclose(model.sample(["3 and 7"], steps=2, guidance_scale=0.0), null, atol=1e-5)
    assert not torch.allclose(model.sample(["3 and 7"], steps=2, guidance_scale=4.0), null, atol=1e-3)
    assert torch.equal(model.sample("3 and 7", num=2, steps=2), model.sample(["3 and 7"] * 2, steps=2))
    assert torch.equal(model.sample(labels=torch.tensor([[3, 7]]), steps=2), model.sample(["3 and 7"], steps=2))


@pytest.mark.parametrize("frames", [1, 5, 24])
def test_other_lengths(model, frames):
    assert model.sample(["3 and 7"], steps=1, num_frames=frames).shape == (1, 1, frames, 32, 32)


def test_samplers(model):
    clips = [model.sample(["3 and 7"], steps=3, **options) for options in (
        {"sampler": "ddim"}, {"sampler": "ancestral"}, {"sampler": "dpm++"}, {"sampler": "ddim", "eta": 1.0}, {"langevin": 0.1}, {"guidance_rescale": 0.7})]
    assert all(clip.shape == (1, 1, 16, 32, 32) for clip in clips)
    assert all(not torch.equal(a, b) for i, a in enumerate(clips) for b in clips[:i])


def test_one_label_a_sample_may_be_a_plain_list():
    recipe = replace(MNIST_GUIDED, net=replace(MNIST_GUIDED.net, channels=(8, 8, 8), head_dim=8, text_width=16))
    digits = Model(recipe, randomize(UNet(recipe.net)), device="cpu")
    assert torch.equal(digits.encode(labels=torch.tensor([3, 7])), digits.encode(["3", "seven"]))
    assert digits.sample(labels=[3, 7], steps=1).shape == (2, 1, 1, 28, 28)


def test_predict_x_agrees_with_the_network(model):
    z, log_snr = torch.randn(2, 1, 16, 32, 32, generator=generator(0)), torch.tensor([1.0, -2.0])
    alpha, sigma = log_snr.sigmoid().sqrt().view(2, 1, 1, 1, 1), (-log_snr).sigmoid().sqrt().view(2, 1, 1, 1, 1)
    assert torch.allclose(model.predict_x(z, log_snr), alpha * z - sigma * model.net(z, log_snr), atol=1e-5)
    assert model.log_snr(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([20, -20])


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"captions": ["3 and dog"]}, CaptionError, "'dog'"), ({"captions": ["3 and 7"], "num": 2}, ValueError, "num is 2"),
    ({"num": 0}, ValueError, "at least 1"), ({"num_frames": 0}, ValueError, "num_frames"), ({"steps": -1}, ValueError, "steps"),
    ({"sampler": "magic"}, ValueError, "ddim, ancestral, dpm"), ({"captions": ["3"], "labels": torch.tensor([[3]])}, ValueError, "not both"),
    ({"labels": torch.tensor([[11, 2]])}, CaptionError, "0 to 9")])
def test_bad_requests_are_explained(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model.sample(**{"steps": 1, **arguments})


def test_image_models_have_no_captions_and_one_frame():
    model = Model(MNIST_DDPM, UNet(MNIST_DDPM.net), device="cpu")
    with pytest.raises(ValueError, match="without captions"):
        model.sample(["3"], steps=1)
    with pytest.raises(ValueError, match="image model"):
        model.sample(num=1, steps=1, num_frames=2)


def test_missing_damaged_or_foreign_weights(tmp_path):
    with pytest.raises(ValueError, match="mnist-ddpm, mnist-guided, vdm, vdm-text"):
        load_pretrained("no-such-model")
    with pytest.raises(WeightsError, match="python -m utils.train vdm-text"):
        load_pretrained("vdm-text", path=tmp_path / "vdm-text.pt")
    path = tmp_path / "weights.pt"
    save_weights(path, MNIST_DDPM, UNet(MNIST_DDPM.net), {"steps": 1})
    assert load_pretrained("mnist-ddpm", device="cpu", path=path).provenance == {"steps": 1}
    with pytest.raises(WeightsError, match="does not hold weights of vdm-text"):
        load_pretrained("vdm-text", path=path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WeightsError, match="damaged"):
        load_pretrained("mnist-ddpm", path=path)
    save_weights(path, MNIST_DDPM, UNet(replace(MNIST_DDPM.net, channels=(8, 8, 8), head_dim=8)), {})
    with pytest.raises(WeightsError, match="another shape"):
        load_pretrained("mnist-ddpm", path=path)


def test_shipped_weights_have_provenance_and_fit_their_budget():
    assert set(available_models()) >= {"mnist-ddpm", "mnist-guided", "vdm-text"}
    for name in available_models():
        origin = load_pretrained(name, device="cpu").provenance
        assert {"commit", "date", "device", "precision", "steps", "samples", "seconds", "flops", "seed", "versions"} <= set(origin)
        assert origin["steps"] > 0 and origin["flops"] > 0 and "/" not in json.dumps(origin)
    assert sum(path.stat().st_size for path in CHECKPOINTS.glob("*.pt")) < 32e6


def test_steps_of_training_are_counted_over_the_runs_of_the_same_recipe():
    image = {"recipe": "mav-image", "steps": 100}
    first = {"recipe": "vdm-text", "steps": 7, "initial": image}
    net = UNet(SMALL.net)
    assert Model(SMALL, net, {"recipe": "vdm-text", "steps": 5, "initial": first}, "cpu").trained_steps == 12
    assert Model(SMALL, net, device="cpu").trained_steps == 0
