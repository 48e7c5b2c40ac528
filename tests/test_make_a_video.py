"""Pseudo-3D layers, inflation, frame rates, interpolation, super-resolution and the pipeline. Probes run on trained or randomised weights, and each has a twin that is broken on purpose."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from utils import load_pipeline, load_pretrained, train
from utils.captions import CaptionError, tokenize
from utils.compare import start_at_random
from utils.data import MovingMNIST
from utils.diffusion import augment
from utils.keyframes import join, keyframe_mask, sample_masks, windows
from utils.layers import Convolution, TemporalAttention, TemporalConvolution
from utils.model import Model
from utils.pipeline import Pipeline
from utils.pretrained import WeightsError, save_weights
from utils.recipes import MAV, MAV_INTERPOLATE, MAV_UPSAMPLE, Budget
from utils.runtime import generator
from utils.train import Trainer
from utils.unet import UNet, UNetConfig, inflate, new_over_time, randomize

F64 = torch.float64
NET = UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), embed_dim=16, head_dim=8, text_width=16, pseudo_3d=True, frame_rate=True)
SMALL = {"interpolate": replace(MAV_INTERPOLATE, net=replace(NET, conditioning="frames"), sample_shape=(1, 16, 8, 8), initial=None, frozen=None),
         "mav": replace(MAV, net=NET, sample_shape=(1, 16, 8, 8), initial=None, frozen=None),
         "upsample": replace(MAV_UPSAMPLE, sample_shape=(1, 1, 16, 16),
                             net=replace(MAV_UPSAMPLE.net, channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, False), embed_dim=16, head_dim=8, text_width=16))}


def model(kind):
    return Model(SMALL[kind], randomize(UNet(SMALL[kind].net)), device="cpu")


def clips(num=2, frames=16, size=8, seed=0):
    return torch.rand(num, 1, frames, size, size, generator=generator(seed))


def folded(net, z, log_snr, cond=None):
    """Every frame of z (B, C, T, H, W) through a network by itself."""
    t = z.shape[2]
    out = net(rearrange(z, "b c t h w -> (b t) c 1 h w"), log_snr.repeat_interleave(t), None if cond is None else cond.repeat_interleave(t, dim=0))
    return rearrange(out, "(b t) c 1 h w -> b c t h w", t=t)


# --- layers


def test_a_temporal_convolution_is_conv1d_at_each_place():
    layer = randomize(TemporalConvolution(6)).double()
    x = torch.randn(2 * 5, 6, 3, 4, generator=generator(1), dtype=F64)
    by_place = F.conv1d(rearrange(x, "(b t) c h w -> (b h w) c t", t=5), layer.weight, layer.bias, padding=1)
    assert (layer(x, 5) - rearrange(by_place, "(b h w) c t -> (b t) c h w", b=2, h=3)).abs().max() < 1e-12
    assert torch.equal(TemporalConvolution(6)(x.float(), 5), x.float())  # the start: exactly the identity


def test_a_pseudo_3d_convolution_sees_three_frames_and_images_none():
    layer = randomize(Convolution(4, 4, pseudo_3d=True)).double()
    x = torch.randn(9, 4, 5, 5, generator=generator(2), dtype=F64)
    changed = x.clone()
    changed[4] += 1

    def moved(layer, num_images=0):
        return ((layer(changed, 9, num_images) - layer(x, 9, num_images)).abs().amax((1, 2, 3)) > 1e-9).nonzero().flatten().tolist()

    assert moved(layer) == [3, 4, 5]
    assert moved(layer, num_images=5) == [4] and moved(layer, num_images=4) == [3, 4]  # frame 4 an image; the last frame of the clip
    assert torch.equal(layer(x[:1], 1), nn.Conv2d.forward(layer, x[:1]))
    narrow = randomize(Convolution(4, 4, pseudo_3d=True)).double()  # the twin whose kernel reaches one frame
    with torch.no_grad():
        narrow.time.weight[:, :, [0, 2]] = 0
    assert moved(narrow) == [4]


def test_packed_images_pass_by_all_layers_over_time():
    net = randomize(UNet(NET)).double()
    z, log_snr = torch.randn(2, 1, 7, 8, 8, generator=generator(3), dtype=F64), torch.zeros(2, dtype=F64)
    packed = net(z, log_snr, num_images=3)
    parts = torch.cat([net(z[:, :, :4], log_snr), folded(net, z[:, :, 4:], log_snr)], dim=2)
    assert packed.std() > 1e-3 and (packed - parts).abs().max() < 1e-12
    assert (packed - net(z, log_snr)).abs().max() > 1e-4  # the twin that takes images for frames


# --- inflation


@pytest.fixture(scope="module")
def image_net():
    return load_pretrained("mav-image", device="cpu").net.double()


def start_error(net, image_net, levels=(-3.0,)):
    """How far an inflated network is from the trained image network on every frame, with captions, at these log-SNRs; asserts that there is something to see."""
    z = torch.randn(2, 1, 4, 32, 32, generator=generator(4), dtype=F64)
    cond = image_net.encode(tokenize(["3 and 7", "1 moving left and 0 moving up"]))
    errors = []
    with torch.no_grad():
        for level in levels:
            log_snr = torch.full((2,), level, dtype=F64)
            frames = folded(image_net, z, log_snr, cond)
            assert frames.std() > 0.1
            errors.append(float((net(z, log_snr, cond, fps=torch.tensor([6.0, 30.0], dtype=F64)) - frames).abs().max()))
    return max(errors)


@pytest.mark.parametrize("recipe", [MAV, MAV_INTERPOLATE], ids=lambda r: r.name)
def test_an_inflated_network_starts_as_the_trained_image_network_on_every_frame(image_net, recipe):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = inflate(UNet(recipe.net).double(), image_net)
        assert start_error(net, image_net, (-6.0, 0.0, 5.0)) <= 1e-10
        z, log_snr = torch.randn(1, 1, 4, 32, 32, generator=generator(5)), torch.zeros(1)
        with torch.no_grad():
            frames = folded(image_net.float(), z, log_snr)
            assert (net.float()(z, log_snr) - frames).norm() / frames.norm() <= 1e-5
        net.double(), image_net.double()
    kinds = ("down.0.stages.0.residual.conv1.time.weight", "middle.0.time.out.weight", "frame_rate.mlp.2.weight", *(["conditioning.bias"] if recipe is MAV_INTERPOLATE else []))
    for name in kinds:  # each kind of new layer, disturbed alone, is noticed
        parameter = net.get_parameter(name)
        before = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator(6), dtype=F64))
            assert start_error(net, image_net) > 1e-6, name
            parameter.copy_(before)
    start_at_random(net, 0)
    assert start_error(net, image_net) > 1e-2


def test_a_wider_network_starts_as_the_narrower_one_and_its_copies_part():
    """Net2Net (arXiv 1511.05641): several times the channels at levels without attention, the same function, and gradients that differ between the copies of a channel."""
    narrow = replace(NET, channels=(8, 16), space=(False, True), time=(False, True))
    wide = replace(narrow, channels=(24, 16), space=(True, True), time=(True, True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = randomize(UNet(narrow)).double()
        net = inflate(UNet(wide).double(), before)
    z, log_snr, fps = torch.randn(2, 1, 4, 8, 8, generator=generator(8), dtype=F64), torch.tensor([-2.0, 3.0], dtype=F64), torch.tensor([6.0, 30.0], dtype=F64)
    cond = before.encode(tokenize(["3 and 7", "4 moving up"]))
    expected, output = before(z, log_snr, cond, fps=fps), net(z, log_snr, cond, fps=fps)
    assert expected.std() > 0.1 and (output - expected).abs().max() <= 1e-10
    output.square().mean().backward()
    copies = net.down[0]["stages"][0].residual.conv1
    for parameter in (copies.weight, copies.bias, copies.time.weight):
        values, gradients = (rearrange(tensor, "(c copies) ... -> copies c ...", copies=3) for tensor in (parameter, parameter.grad))
        assert (gradients[0] - gradients[1]).abs().mean() > 0.1 * gradients.abs().mean()  # equal for copies that are read with equal weights
    assert (values[0].sum(1) - values[1].sum(1)).abs().max() < 1e-12  # what each reads from all copies together is the same
    alike = copy.deepcopy(net)  # the twin whose copies are read in full and not in shares
    with torch.no_grad():
        alike.down[0]["stages"][0].residual.conv2.weight.mul_(3)
    assert (alike(z, log_snr, cond, fps=fps) - expected).abs().max() > 1e-3
    for unfit in (replace(narrow, channels=(12, 16)), replace(wide, channels=(8, 32)), replace(wide, channels=(16, 16)),  # no multiple; attention; a residual without its convolution
                  replace(narrow, text_width=32), replace(narrow, embed_dim=32), replace(narrow, max_distance=46), replace(narrow, stem=2)):  # multiples, but not of channels
        with pytest.raises(ValueError, match="missing or have another shape"):
            inflate(UNet(unfit), before.float())
    with pytest.raises(ValueError, match="norm1.weight"):  # four groups would become eight
        inflate(UNet(wide), UNet(replace(narrow, channels=(4, 16))))


def test_every_new_parameter_is_named_and_no_other(image_net):
    net = UNet(MAV_INTERPOLATE.net)
    assert new_over_time(net) == {name for name, _ in net.named_parameters()} - {name for name, _ in image_net.named_parameters()}
    assert new_over_time(image_net) == set()
    with pytest.raises(ValueError, match="parameters are missing or have another shape, first"):
        inflate(UNet(replace(MAV.net, channels=(*MAV.net.channels[:2], 64, 128))), image_net)


def test_after_fine_tuning_an_image_still_gives_the_image_networks_output(image_net):
    """Weights of the image network stay as they are, and an image passes by everything that was trained."""
    tuned = load_pretrained("mav", device="cpu").net.double()
    z, log_snr = torch.randn(2, 1, 5, 32, 32, generator=generator(7), dtype=F64), torch.tensor([-2.0, 3.0], dtype=F64)
    cond = image_net.encode(tokenize(["3 and 7", "4 and 4"]))
    with torch.no_grad():
        assert torch.equal(folded(tuned, z, log_snr, cond), folded(image_net, z, log_snr, cond))
        assert (tuned(z, log_snr, cond) - folded(image_net, z, log_snr, cond)).abs().max() > 1e-2  # frames of a clip do not


# --- training without clips' own captions, frame rates


def trainer(recipe, steps=4):
    return Trainer(recipe, Budget(steps, 2), device="cpu", amp="off")


def inputs_of(t, steps=1):
    """Everything that the network is given in some training steps."""
    seen = []
    net = t.net.register_forward_hook(lambda module, args, kwargs, out: seen.append((args, kwargs)), with_kwargs=True)
    for step in range(steps):
        t.loss(step)
    net.remove()
    return seen


def test_no_caption_of_a_clip_matters_in_video_training(monkeypatch):
    t, leaking = (trainer(replace(SMALL["mav"], sample_shape=(1, 16, 8, 8), null_probability=0.0, recaptioned=recaptioned)) for recaptioned in (True, False))
    assert t.data.sample(2, index=0).captions is None
    before, sample = [inputs_of(twin, 2) for twin in (t, leaking)], MovingMNIST.sample
    monkeypatch.setattr(MovingMNIST, "sample", lambda *args, **options: replace(sample(*args, **options), captions=["0 and 0"] * 2))
    same = [all(torch.equal(a, b) for (x, more), (y, again) in zip(seen, inputs_of(twin, 2)) for a, b in zip([*x, more["fps"]], [*y, again["fps"]])) for seen, twin in zip(before, (t, leaking))]
    assert same == [True, False]


def test_frozen_weights_stay_and_all_others_move():
    t = Trainer(MAV, Budget(2, 1), device="cpu", amp="off")
    before = {name: p.clone() for name, p in t.net.named_parameters()}
    list(t.run())
    same = {name for name, p in t.net.named_parameters() if torch.equal(p, before[name])}
    assert {name for name in before if name not in new_over_time(t.net)} <= same
    # what is behind a zero-initialised layer gets no gradient in the first step, and little in the second
    assert all(name not in same for name in before if name.endswith(("conv1.time.weight", "time.out.weight", "frame_rate.mlp.2.weight")))
    assert all(torch.equal(a, b) for (name, a), b in zip(t.net.named_parameters(), t.ema.net.parameters()) if name not in new_over_time(t.net))


def test_frame_rates_move_from_high_to_low():
    skips = torch.tensor([[MAV.frame_skip(progress, generator(1, k)) for k in range(400)] for progress in (0.0, 0.25, 0.5, 1.0)]).float()
    means = skips.mean(1)
    assert means[0] < 1.8 and means[0] < means[1] < means[2] and abs(means[2] - means[3]) < 0.2 and means[3] > 4.2
    assert set(skips.long().flatten().tolist()) == set(MAV.frame_skips)
    t = trainer(SMALL["mav"])
    for args, kwargs in inputs_of(t, 4):
        assert kwargs["fps"].tolist() == [kwargs["fps"][0]] * 2 and 30 / kwargs["fps"][0] in MAV.frame_skips
    with pytest.raises(ValueError, match="frames a second needs frame_skips"):
        replace(MAV, frame_skips=())


def test_fps_reach_the_output_and_clips_without_them_are_told():
    m = model("mav")
    assert not torch.allclose(m.sample(num=1, steps=2), m.sample(num=1, steps=2, fps=30.0), atol=1e-4)
    assert torch.equal(m.sample(num=1, steps=2), m.sample(num=1, steps=2, fps=6.0))
    assert m.sample(["3 and 7"], steps=1).shape == (1, 1, 16, 8, 8)
    with pytest.raises(ValueError, match="one frame rate: leave fps out"):
        load_pretrained("vdm-text", device="cpu").sample(num=1, steps=1, fps=6.0)
    with pytest.raises(ValueError, match="above 0"):
        m.sample(num=1, steps=1, fps=0.0)
    with pytest.raises(ValueError, match="takes no mask"):
        m.net(torch.zeros(1, 1, 4, 8, 8), torch.zeros(1), mask=torch.zeros(1, 1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"fps of shape \(1,\)"):
        m.net(torch.zeros(1, 1, 4, 8, 8), torch.zeros(1), fps=torch.zeros(3))


def test_the_fine_clock_at_skip_5_is_the_standard_clip():
    data = MAV.dataset("test")
    assert (data.frame_skip, round(data.speed * data.frame_skip, 6)) == (5, 0.1)
    fine = data.at(1).sample(3, index=2)
    coarse = data.sample(3, index=2)
    assert torch.equal(fine.video[:, :, ::5], coarse.video[:, :, :4]) and torch.equal(fine.labels, coarse.labels)


# --- interpolation


def test_sixteen_keyframes_are_five_windows_with_shared_ends():
    keyframes = clips(2, 16)
    cut, given = windows(keyframes, 5, 16)
    assert cut.shape == (2, 5, 1, 16, 8, 8) and given.nonzero().flatten().tolist() == [0, 5, 10, 15]
    assert torch.equal(cut[:, :-1, :, 15], cut[:, 1:, :, 0]) and not cut[:, :, :, ~given].any()
    joined = join(cut)
    assert joined.shape == (2, 1, 76, 8, 8) and torch.equal(joined[:, :, ::5], keyframes)


@pytest.mark.parametrize(("count", "skip", "frames"), [(16, 5, 76), (4, 5, 16), (7, 5, 31), (6, 3, 16), (16, 3, 46), (2, 15, 16)])
def test_interpolation_passes_through_its_keyframes(count, skip, frames):
    keyframes = clips(2, count)
    done = model("interpolate").interpolate(keyframes, skip=skip, steps=1, seed=1)
    assert done.shape == (2, 1, frames, 8, 8) and torch.equal(done[:, :, ::skip], keyframes) and 0 <= done.min() and done.max() <= 1
    assert torch.allclose(model("interpolate").interpolate(keyframes[:1], skip=skip, steps=1, seed=1), done[:1], atol=1e-5)  # whatever the batch
    assert done[:, :, keyframe_mask(frames, skip).logical_not()].std() > 0.01


def test_what_is_given_reaches_the_other_frames():
    m, keyframes = model("interpolate"), clips(1, 4)
    other = keyframes.clone()
    other[:, :, 1] = 1 - other[:, :, 1]
    one, two = (m.interpolate(k, steps=2) for k in (keyframes, other))
    assert (one - two)[:, :, ~keyframe_mask(16, 5)].abs().max() > 1e-3
    blank = torch.zeros(1, 1, 1)
    assert torch.equal(m.inpaint(clips(2), blank, steps=2), m.inpaint(1 - clips(2), blank, steps=2))  # what is not given does not
    assert torch.allclose(m.inpaint(clips(2), blank, steps=2), m.sample(num=2, steps=2), atol=1e-6)


def test_the_same_network_extrapolates_animates_and_takes_the_other_methods():
    m, video = model("interpolate"), clips(1)
    assert torch.equal(m.extend(video, 24, steps=1)[:, :, :16], video) and m.extend(video[:, :, :1], 16, steps=1).shape == video.shape
    first = (torch.arange(16) < 4)[:, None, None]
    trained = m.inpaint(video, first, steps=2)
    assert torch.equal(trained[:, :, :4], video[:, :, :4]) and torch.equal(trained, m.inpaint(video, first, steps=2, method="trained"))
    assert not torch.allclose(trained, m.inpaint(video, first, steps=2, method="reconstruction"), atol=1e-4)
    with pytest.raises(ValueError, match="whole frames"):
        m.inpaint(video, torch.eye(8), steps=1)
    with pytest.raises(ValueError, match="not trained to be told"):
        model("mav").inpaint(video, first, steps=1, method="trained")


@pytest.mark.parametrize(("keyframes", "skip", "message"), [
    (clips(1, 5), 5, "pass 4, 7, 10, ... keyframes, not 5"), (clips(1, 1), 5, "not 1"), (clips(1, 16), 4, "skip must be one of 3, 5, 15"), (clips(1, 16), 1, "skip must be one of"),
    (clips(1, 16, 16), 5, "Expected clips"), (2 * clips(1) - 1, 5, r"in \[0, 1\]")])
def test_keyframes_that_do_not_fit_are_told(keyframes, skip, message):
    with pytest.raises(ValueError, match=message):
        model("interpolate").interpolate(keyframes, skip=skip, steps=1)
    with pytest.raises(ValueError, match="load 'mav-interpolate'"):
        model("mav").interpolate(clips(1), steps=1)


def test_training_masks_are_keyframes_beginnings_single_frames_and_nothing():
    masks = sample_masks(600, 16, generator(3))[:, 0, :, 0, 0].bool()
    kinds = {tuple(row) for row in masks.tolist()}
    every = {skip: tuple((torch.arange(16) % skip == 0).tolist()) for skip in (3, 5)}
    beginnings = {tuple((torch.arange(16) < k).tolist()) for k in range(9)}
    assert kinds == set(every.values()) | beginnings
    share = {skip: (masks == torch.tensor(every[skip])).all(1).float().mean() for skip in (3, 5)}
    assert abs(share[5] - 0.375) < 0.06 and abs(share[3] - 0.125) < 0.04


def test_interpolation_is_trained_on_masked_frames(monkeypatch):
    t = trainer(SMALL["interpolate"])
    (args, kwargs), = inputs_of(t)
    assert kwargs["mask"].shape == (2, 1, 16, 8, 8) and kwargs["given"].shape == (2, 1, 16, 8, 8) and args[2] is None
    assert set(kwargs["mask"].unique().tolist()) <= {0.0, 1.0} and kwargs["given"].min() >= -1
    z, log_snr = args[0], args[1]
    with torch.no_grad():
        randomize(t.net)
        one = t.net(z, log_snr, mask=kwargs["mask"], given=kwargs["given"])
        hidden = torch.where(kwargs["mask"].bool(), kwargs["given"], torch.randn(kwargs["given"].shape, generator=generator(8)))
        assert torch.equal(one, t.net(z, log_snr, mask=kwargs["mask"], given=hidden))  # masked frames cannot leak
        assert not torch.equal(one, t.net(z, log_snr))


# --- super-resolution


def test_a_still_clip_does_not_flicker_with_shared_noise():
    m = model("upsample")
    still = clips(2, 1).expand(-1, -1, 20, -1, -1)  # more frames than go through the network at once
    for options in ({"sampler": "ddim"}, {"sampler": "ancestral"}, {"sampler": "ddim", "eta": 1.0}, {"langevin": 0.1}, {"guidance_scale": 3.0, "captions": "3 and 7"}):
        done = m.upsample(still, steps=3, **options)
        assert done.shape == (2, 1, 20, 16, 16) and done.std() > 0.01 and (done - done[:, :, :1]).abs().max() < 1e-6
        apart = m.upsample(still, steps=3, share_noise=False, **options)  # the twin
        assert apart.diff(dim=2).abs().mean() > 0.01
    assert torch.equal(m.upsample(still[:1], steps=2), m.upsample(still, steps=2)[:1])


def test_step_noise_is_shared_too(monkeypatch):
    """Shared initial noise alone is not enough for a sampler that draws more on the way."""
    from utils import model as module
    loop = module.sample_loop
    monkeypatch.setattr(module, "sample_loop", lambda *args, share_noise=False, **kwargs: loop(*args, share_noise=False, **kwargs))
    done = model("upsample").upsample(clips(1, 1).expand(-1, -1, 4, -1, -1), steps=3, sampler="ancestral")
    assert done.diff(dim=2).abs().max() > 1e-3


def test_sharper_clips_depend_on_the_small_one_on_augmentation_and_on_captions():
    m, small = model("upsample"), clips(1, 3)
    base = m.upsample(small, steps=2)
    for other in (m.upsample(1 - small, steps=2), m.upsample(small, steps=2, augmentation=0.4), m.upsample(small, steps=2, captions="3 and 7"), m.upsample(small, steps=2, seed=1)):
        assert not torch.allclose(base, other, atol=1e-4)
    assert torch.equal(m.upsample(small, steps=2, captions="3 moving up and 7 moving left"), m.upsample(small, steps=2, captions=["3 and 7"]))
    for call, message in [(lambda: m.upsample(small, augmentation=0.9), "from 0 to 0.5"), (lambda: m.upsample(clips(1, 3, 16)), r"\(N, 1, T, 8, 8\)"), (lambda: m.sample(num=1), "call upsample"),
                          (lambda: model("mav").upsample(small), "load 'mav-upsample'"), (lambda: m.extend(small, 5), "take a video model"),
                          (lambda: m.net(torch.zeros(1, 1, 1, 16, 16), torch.zeros(1)), "pass low_res")]:
        with pytest.raises(ValueError, match=message):
            call()


def test_augmentation_keeps_the_variance_and_is_told_to_the_network():
    x, noise = torch.randn(2, 50_000, generator=generator(1), dtype=F64), torch.randn(2, 50_000, generator=generator(2), dtype=F64)
    level = torch.tensor([0.0, 0.5], dtype=F64)
    noisy = augment(x, level, noise)
    assert torch.equal(noisy[0], x[0]) and abs(noisy[1].std() - 1) < 0.02
    assert abs(float((noisy[1] * noise[1]).mean()) - 0.5) < 0.02 and abs(float((noisy[1] * x[1]).mean()) - math.sqrt(0.75)) < 0.02
    net = model("upsample").net
    z, low = torch.randn(1, 1, 1, 16, 16, generator=generator(3)), torch.randn(1, 1, 1, 8, 8, generator=generator(4))
    assert not torch.equal(net(z, torch.zeros(1), low_res=low), net(z, torch.zeros(1), low_res=low, augmentation=torch.tensor([0.4])))
    t = trainer(SMALL["upsample"])
    kwargs = {}
    t.net.register_forward_hook(lambda module, args, keywords, out: kwargs.update(keywords), with_kwargs=True)
    t.loss(0)
    assert kwargs["low_res"].shape == (2, 1, 1, 8, 8) and 0 <= kwargs["augmentation"].min() and kwargs["augmentation"].max() <= 0.5


# --- pipeline, weights


def test_the_pipeline_makes_76_frames_with_one_progress_bar(monkeypatch):
    from utils import pipeline
    bars, tqdm = [], pipeline.tqdm

    def bar(*args, **kwargs):
        bars.append(tqdm(*args, **{**kwargs, "disable": False}))
        return bars[-1]

    monkeypatch.setattr(pipeline, "tqdm", type("Bar", (tqdm,), {"__new__": lambda cls, *a, **k: bar(*a, **k)}))
    pipe = Pipeline(model("mav"), model("interpolate"), model("upsample"))
    clips_ = pipe(["3 and 7", "4 moving left and 4 moving up"], steps=2, seed=3)
    assert clips_.shape == (2, 1, 76, 16, 16) and clips_.dtype == torch.float32 and 0 <= clips_.min() and clips_.max() <= 1
    assert len(bars) == 1 and bars[0].n == bars[0].total == 2 * (1 + 2 + 2 * 5)  # batches of 8 clips, of 8 windows, and of 16 frames of each clip
    assert torch.allclose(pipe("3 and 7", steps=2, seed=3)[0], clips_[0], atol=1e-5)
    with pytest.raises(CaptionError, match="sideways"):
        pipe("3 moving sideways")
    with pytest.raises(ValueError, match="at least one caption"):
        pipe([])
    with pytest.raises(ValueError, match="there is mav"):
        load_pipeline("vdm")


def test_weights_that_rest_on_others_are_checked(tmp_path):
    mav = load_pretrained("mav", device="cpu")
    path = tmp_path / "mav.pt"
    save_weights(path, MAV, mav.net, mav.provenance)
    again = load_pretrained("mav", device="cpu", path=path)
    assert all(torch.equal(a, b) for a, b in zip(mav.net.parameters(), again.net.parameters()))
    assert path.stat().st_size < 0.5 * sum(p.numel() * 2 for p in mav.net.parameters())  # the frozen ones are not in the file
    saved = torch.load(path, weights_only=True)
    torch.save({**saved, "frozen": "0" * 64}, path)
    with pytest.raises(WeightsError, match="other weights of mav-image"):
        load_pretrained("mav", device="cpu", path=path)
    start = load_pretrained("mav", device="cpu", path=path, any_frozen=True)  # of its layers over time a training may start all the same
    with torch.no_grad():
        for parameter in start.net.parameters():
            parameter.add_(0.5)
    trainer, image = Trainer(MAV, Budget(1, 1), "cpu", "off", initial=start), load_pretrained("mav-image", "cpu")
    assert all(torch.equal(trainer.net.get_parameter(name), tensor) for name, tensor in image.net.named_parameters())  # what it rests on is what is shipped
    assert all(torch.equal(trainer.net.get_parameter(name), start.net.get_parameter(name)) for name in new_over_time(trainer.net))
    assert "frozen" not in trainer.provenance()  # as they are those that it started on
    later = Trainer(MAV, Budget(1, 1), "cpu", "off", initial=Model(MAV, start.net, {"flops": 1.0, "seed": -1}, "cpu"))
    assert later.provenance()["frozen"] == image.provenance
    with torch.no_grad():
        next(mav.net.down.parameters()).add_(0.1)
    with pytest.raises(ValueError, match="keeps the weights of mav-image"):
        save_weights(path, MAV, mav.net, {})


def test_half_precision_agrees_with_full():
    """bfloat16, as the CPU uses it, on every new layer."""
    for kind in ("mav", "interpolate"):
        full = model(kind)
        half = Model(SMALL[kind], full.net, device="cpu", amp="bf16")
        one, two = (m.sample(num=2, steps=2) for m in (full, half))
        assert (one - two).abs().mean() < 0.02 and (one - two).abs().max() > 0


def test_the_time_layers_are_where_the_paper_has_them():
    net = UNet(MAV.net)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]
    assert len(convolutions) > 20 and all(isinstance(module, Convolution) and isinstance(module.time, TemporalConvolution) for module in convolutions)
    assert sum(isinstance(module, TemporalAttention) for module in net.modules()) == 6  # at 8 and 4, down and up, and twice in the middle
    assert train.MAX_AUGMENTATION == 0.5


def test_what_a_network_is_told_in_training_is_true_of_its_clips():
    for kind in ("mav", "interpolate"):
        t = trainer(SMALL[kind])
        for step in range(4):
            drawn = t.draw(step)
            assert torch.equal(drawn.x, t.data.at(round(30 / float(drawn.inputs["fps"][0]))).sample(2, index=step).video)
        assert kind == "mav" or torch.equal(drawn.inputs["given"], drawn.x)
    drawn = trainer(SMALL["upsample"]).draw(0)
    a, small = drawn.inputs["augmentation"].view(-1, 1, 1, 1, 1), F.avg_pool3d(drawn.x, (1, 2, 2))
    noise = (drawn.inputs["low_res"] - (1 - a**2).sqrt() * small) / a  # deviation 1, nothing of the picture in it
    assert float(noise.std()) == pytest.approx(1, abs=0.2) and abs(float(torch.corrcoef(torch.stack([noise.flatten(), small.flatten()]))[0, 1])) < 0.25
