"""The model as its user holds it: shapes, ranges, seeds, captions, and every way to ask wrongly."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from utils import available_models, load_pretrained, pretrained
from utils.captions import CaptionError
from utils.model import Model
from utils.pretrained import CHECKPOINTS, WeightsError, load_initial, load_model, load_weights, save_weights
from utils.recipes import MNIST_DDPM, MNIST_GUIDED, VDM, VDM_TEXT
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
        {"sampler": "ddim"}, {"sampler": "ancestral"}, {"sampler": "dpm++"}, {"sampler": "ddim", "eta": 1.0}, {"langevin": 0.1}, {"guidance_rescale": 0.7},
        {"guidance_interval": (-2.0, 0.0)}, {"rival_scale": 0.0}, {"rival_scale": 4.0})]
    assert all(clip.shape == (1, 1, 16, 32, 32) for clip in clips)
    assert all(not torch.equal(a, b) for i, a in enumerate(clips) for b in clips[:i])


def test_rivals_are_the_captions_with_one_digit_two_times_each_for_its_own_sample(model):
    clips = {scale: model.sample(["3 and 7", "5 and 5", "4 moving left and 1 moving up"], steps=3, seed=2, rival_scale=scale) for scale in (0.0, 3.0)}
    changed = (clips[3.0] - clips[0.0]).abs().flatten(1).amax(1)
    assert changed[1] < 1e-5 and min(changed[0], changed[2]) > 20 * changed[1]  # of one digit two times there is nothing to keep away from
    assert torch.equal(model.sample("3 and 7", num=2, steps=2, rival_scale=1.0), model.sample(["3 and 7"] * 2, steps=2, rival_scale=1.0))
    assert torch.allclose(model.sample(["4 moving left and 1 moving up"], steps=3, seed=2, rival_scale=3.0), model.sample(["4 moving left and 1 moving up"] * 2, steps=3, seed=2, rival_scale=3.0)[:1], atol=1e-5)
    given = clips[0.0][:, :, :16]
    for repaired in (model.extend(given, 20, ["3 and 7"] * 3, steps=2, rival_scale=2.0), model.vary(given, -3.0, ["3 and 7"] * 3, steps=8, rival_scale=2.0)):
        assert repaired.isfinite().all()


def test_samples_keep_away_from_rivals_by_default_where_they_are_guided(model):
    captions, usual = ["3 and 7", "1 moving up and 0 moving left"], model.recipe.rival_scale
    clips = {scale: model.sample(captions, steps=2, rival_scale=scale) for scale in (None, 0.0, usual)}
    assert usual > 0 and torch.equal(clips[None], clips[usual]) and not torch.allclose(clips[None], clips[0.0], atol=1e-4)
    assert torch.equal(model.sample(labels=[[3, 7]], steps=2), model.sample(["3 and 7"], steps=2, rival_scale=usual))
    for without in ({"guidance_scale": 1.0}, {"sampler": "ddim"}, {"langevin": 0.1}, {"guidance_rescale": 0.7}, {"guidance_interval": (-2.0, 0.0)}):
        assert model.sampled_with(without, True)["rival_scale"] == 0 and torch.equal(model.sample(captions, steps=2, **without), model.sample(captions, steps=2, rival_scale=0.0, **without))
    given = clips[0.0]
    assert torch.equal(model.vary(given, -3.0, captions, steps=8), model.vary(given, -3.0, captions, steps=8, rival_scale=0.0))


def test_temporal_guidance(model):
    captions = ["3 and 7", "1 moving up and 0 moving left"]
    plain, guided = (model.sample(captions, steps=2, rival_scale=0.0, temporal_scale=scale) for scale in (None, 2.0))
    assert torch.equal(plain, model.sample(captions, steps=2, rival_scale=0.0)) and not torch.allclose(plain, guided, atol=1e-3)
    assert torch.allclose(guided[1:], model.sample(["9", captions[1]], steps=2, rival_scale=0.0, temporal_scale=2.0)[1:], atol=1e-5)
    one = model.sample(captions[:1], num_frames=1, steps=2, rival_scale=0.0)
    assert torch.allclose(one, model.sample(captions[:1], num_frames=1, steps=2, rival_scale=0.0, temporal_scale=2.0), atol=1e-5)  # a single frame has no others
    first, both = (model.sample(captions[:1], sampler="ddim", steps=3, num_frames=frames, temporal_scale=0.0) for frames in (1, 2))
    assert torch.allclose(first[:, :, 0], both[:, :, 0], atol=1e-4)  # each frame by itself: the first does not know whether there is a second


def test_temporal_guidance_is_the_recipes_by_default_and_for_clips_only():
    recipe = replace(VDM, net=replace(VDM.net, channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), embed_dim=16, head_dim=8))
    video = Model(recipe, randomize(UNet(recipe.net)), device="cpu")
    usual, without, strong = (video.sample(num=2, steps=2, **options) for options in ({}, {"temporal_scale": 1.0}, {"temporal_scale": recipe.temporal_scale}))
    assert recipe.temporal_scale > 1 and torch.equal(usual, strong) and not torch.allclose(usual, without, atol=1e-4)
    assert torch.equal(video.inpaint(usual, torch.zeros(1), steps=2), without)  # what is given a part does without
    assert torch.equal(Model(replace(recipe, num_images=0), video.net, device="cpu").sample(num=2, steps=2), without)  # and a network that never saw an image
    digits = Model(MNIST_DDPM, UNet(MNIST_DDPM.net), device="cpu")
    with pytest.raises(ValueError, match="clips from nothing"):
        digits.sample(num=1, steps=1, temporal_scale=2.0)


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
    ({"guidance_interval": (2.0, -2.0)}, ValueError, "lowest log-SNR that is guided"), ({"sampler": "magic"}, ValueError, "ddim, ancestral, dpm"), ({"captions": ["3"], "labels": torch.tensor([[3]])}, ValueError, "not both"),
    ({"labels": torch.tensor([[11, 2]])}, CaptionError, "0 to 9"), ({"rival_scale": -1.0}, ValueError, "rival_scale is at least 0"),
    *(({"captions": ["3 and 7"], "rival_scale": 1.0, **more}, ValueError, "rival_scale") for more in ({"langevin": 0.1}, {"guidance_rescale": 0.7}, {"guidance_interval": (-2.0, 0.0)}, {"sampler": "ddim"})),
    ({"rival_scale": 1.0}, ValueError, "from captions"), ({"temporal_scale": -1.0}, ValueError, "temporal_scale is at least 0")])
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


@pytest.mark.parametrize(("recipe", "changes"), [
    (VDM_TEXT, {"channels": (24, 32, 64, 64), "blocks": (1, 2, 1, 1), "stem": 2, "embed_dim": 64, "head_dim": 16, "text_width": 32, "max_distance": 7}),
    (VDM, {"in_channels": 3, "space": (False, False, False, True)}), (MNIST_DDPM, {"head_dim": 16})])
def test_a_file_of_weights_tells_its_network(tmp_path, recipe, changes):
    changed = replace(recipe, net=replace(recipe.net, **changes), sample_shape=(changes.get("in_channels", 1), *recipe.sample_shape[1:]))
    net = randomize(UNet(changed.net)).half().float()  # as they are kept
    path = tmp_path / "big.pt"
    save_weights(path, changed, net, {"steps": 1})
    for model in (load_pretrained(recipe.name, "cpu", path), load_model(str(path), "cpu"), load_initial(str(path))):
        assert model.recipe == changed and all(torch.equal(a, b) for a, b in zip(net.parameters(), model.net.parameters(), strict=True))
    assert model.sample(num=1, steps=1).shape == (1, *changed.sample_shape)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), load_weights(path, changed)[0].parameters(), strict=True))
    with pytest.raises(WeightsError, match=f"another shape of {recipe.name}: ") as raised:
        load_weights(path, recipe)  # who gives a recipe means that one
    assert all(f"{key} {value} in place of {getattr(recipe.net, key)}" in str(raised.value) for key, value in changes.items())


def test_files_of_before_are_of_the_recipe_s_network(tmp_path):
    """The shipped ones do not tell their network."""
    path = tmp_path / "old.pt"
    for net, fits in ((UNet(MNIST_DDPM.net), True), (UNet(replace(MNIST_DDPM.net, channels=(8, 8, 8), head_dim=8)), False)):
        save_weights(path, MNIST_DDPM, net, {"steps": 1})
        saved = torch.load(path, weights_only=True)
        torch.save({key: value for key, value in saved.items() if key not in ("net", "sample_shape")}, path)
        if fits:
            assert load_pretrained("mnist-ddpm", "cpu", path).recipe is MNIST_DDPM and load_model(str(path), "cpu").provenance == {"steps": 1}
        else:
            with pytest.raises(WeightsError, match=r"old.pt was made for another shape of mnist-ddpm: .* of .* parameters .* first \S+: \(\d.*\) in place of \(\d.*\)\. Load it with the recipe"):
                load_pretrained("mnist-ddpm", "cpu", path)


def test_only_what_is_shipped_can_be_restored(tmp_path, monkeypatch):
    """`git checkout -- assets` is no help for a file of one's own."""
    cut = (CHECKPOINTS / "mnist-ddpm.pt").read_bytes()[:2000]
    (tmp_path / "mnist-ddpm.pt").write_bytes(cut)
    other = tmp_path / "later.pt"
    saved = torch.load(CHECKPOINTS / "mnist-ddpm.pt", weights_only=True)
    torch.save({**saved, "name": "discs"}, other)
    for load, fault in ((lambda: load_pretrained("mnist-ddpm", "cpu", tmp_path / "mnist-ddpm.pt"), "it is damaged"), (lambda: load_model(str(tmp_path / "no.pt"), "cpu"), "there is no such file"),
                        (lambda: load_model(str(CHECKPOINTS / "judge.pt").replace("assets", "assets/../assets"), "cpu"), "does not hold weights of a recipe"),
                        (lambda: load_pretrained("mnist-ddpm", "cpu", other), "but of discs"), (lambda: load_model(str(other), "cpu"), "does not know. Unknown recipe 'discs'; there are mnist-ddpm")):
        with pytest.raises(WeightsError, match=fault) as raised:
            load()
        assert ("git checkout" in str(raised.value)) == ("judge" in str(raised.value))
    torch.save({**saved, "net": {"depth": 3}, "sample_shape": (1, 1, 28, 28)}, other)
    with pytest.raises(WeightsError, match="this version of the project does not know"):
        load_model(str(other), "cpu")
    monkeypatch.setattr(pretrained, "CHECKPOINTS", tmp_path)
    for name, fault in (("mnist-ddpm", "damaged"), ("vdm", "no such file")):
        with pytest.raises(WeightsError, match=f"{fault}.*Restore it with `git checkout -- assets`, or train it with `python -m utils.train {name} --publish`"):
            load_pretrained(name, "cpu")


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


def test_a_machine_without_git_can_tell_where_weights_come_from(monkeypatch):
    def no_git(command, **_):
        raise FileNotFoundError(2, "No such file or directory", command[0])

    monkeypatch.setattr(pretrained.subprocess, "run", no_git)
    assert pretrained.provenance("vdm-text", 1, 2, 3.0, 4.0, 0, torch.device("cpu"), "float32")["commit"] == "unknown"


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path):
    """A limit on the size of files stands for it."""
    code = """
import json, resource, sys
from pathlib import Path
from utils.pretrained import save_weights
from utils.recipes import MNIST_DDPM, Budget
from utils.runtime import write_json
from utils.train import Trainer

folder = Path(sys.argv[1])
run = Trainer(MNIST_DDPM, Budget(1, 1), "cpu", "off")
write_json(folder / "rows.json", {"rows": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for name, write in (("w.pt", lambda path: save_weights(path, run.recipe, run.net, {})), ("c.pt", run.save), ("rows.json", lambda path: write_json(path, "x" * 200_000))):
    try:
        write(folder / name)
    except Exception as error:
        print(type(error).__name__, error)
"""
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.split()[0] for line in told] == ["WeightsError", "CheckpointError", "OSError"] and all("File too large" in line for line in told)
    assert all("Free some disk space" in line for line in told[:2])
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"] and json.loads((tmp_path / "rows.json").read_text()) == {"rows": 1}
