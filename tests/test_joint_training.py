"""Joint training on clips and images: what is packed to what, with whose caption and noise level, and that nothing leaks."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from torch import nn

from utils import train
from utils.captions import tokenize
from utils.cost import cost, measure
from utils.diffusion import loss_per_sample
from utils.recipes import MNIST_DDPM, VDM_TEXT, Budget
from utils.runtime import generator
from utils.train import Trainer
from utils.unet import UNetConfig

K, T, B = 3, 4, 2
TINY = replace(VDM_TEXT, num_images=K, null_probability=0.0, curriculum=None, sample_shape=(1, T, 32, 32), net=UNetConfig(
    channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), stem=4, embed_dim=16, head_dim=8, text_width=16, max_distance=T - 1))


@pytest.fixture
def trainer():
    return Trainer(TINY, Budget(30, B), device="cpu", amp="off")


def seen(trainer, monkeypatch, step=0):
    """What the network and the loss are given in a step: z, log_snr, cond, and x, eps, with the loss."""
    given = {}

    def record(net, arguments, keywords, output):
        given.update(zip(("z", "log_snr", "cond"), arguments), **keywords)

    def loss(output, x, eps, log_snr, prediction, min_snr):
        given.update(x=x, eps=eps)
        return loss_per_sample(output, x, eps, log_snr, prediction, min_snr)

    monkeypatch.setattr(train, "loss_per_sample", loss)
    handle = trainer.net.register_forward_hook(record, with_kwargs=True)
    given["loss"] = trainer.loss(step)
    handle.remove()
    return given


def test_clip_and_images_each_have_their_caption_and_noise_level(trainer, monkeypatch):
    given, clips, images = seen(trainer, monkeypatch), trainer.data.sample(B, index=0), trainer.images.sample(B * K, index=0)
    assert given["num_images"] == K and given["x"].shape == (B, 1, T + K, 32, 32)
    assert torch.equal(given["x"][:, :, :T], clips.video)
    cond = trainer.net.encode(tokenize(clips.captions + images.captions))
    for b in range(B):
        assert (given["cond"][b, :T] - cond[b]).abs().max() < 1e-6 and given["log_snr"][b, :T].unique().numel() == 1
        for k in range(K):
            assert torch.equal(given["x"][b, :, T + k], images.video[b * K + k, :, 0])
            assert (given["cond"][b, T + k] - cond[B + b * K + k]).abs().max() < 1e-6
    assert given["log_snr"][:, T:].unique().numel() == B * K  # a level of its own for each image
    alone = Trainer(replace(TINY, num_images=0), Budget(30, B), device="cpu", amp="off")
    assert torch.equal(alone.data.sample(B, index=0).video, clips.video)  # the clips are those of a run without images


def by_parts(trainer, given):
    """The joint loss from the clip alone and every image as a one-frame clip."""
    total = 0.0
    for b in range(B):
        for frames in [slice(0, T), *(slice(k, k + 1) for k in range(T, T + K))]:
            x, eps, z = (given[name][b:b + 1, :, frames] for name in ("x", "eps", "z"))
            output = trainer.net(z, given["log_snr"][b:b + 1, frames.start], given["cond"][b:b + 1, frames.start])
            total += loss_per_sample(output, x, eps, given["log_snr"][b:b + 1, frames.start], "v").sum() * x.shape[2]
    return total / (B * (T + K))


def test_joint_loss_is_the_mean_over_the_frames_of_clip_and_images(trainer, monkeypatch):
    for _ in range(5):
        trainer.train_step()
    given = seen(trainer, monkeypatch, 7)
    assert (given["loss"] - by_parts(trainer, given)).abs() < 1e-6
    given["log_snr"] = given["log_snr"].roll(1, dims=1)  # the twin that gives frames their neighbour's noise level
    assert (given["loss"] - by_parts(trainer, given)).abs() > 1e-4


@torch.no_grad()
def leak(net, seed=3):
    """How far the packed outputs are from the clip alone and each image as a one-frame clip, in float64."""
    net = net.double().eval()
    z = torch.randn(B, 1, T + K, 32, 32, generator=generator(seed), dtype=torch.float64)
    log_snr = torch.randn(B, T + K, generator=generator(seed, 1), dtype=torch.float64) * 3
    cond = torch.randn(B, T + K, 16, generator=generator(seed, 2), dtype=torch.float64)
    packed = net(z, log_snr, cond, num_images=K)
    parts = [net(z[:, :, :T], log_snr[:, :T], cond[:, :T])]
    parts += [net(z[:, :, k:k + 1], log_snr[:, k], cond[:, k]) for k in range(T, T + K)]
    assert packed.std() > 1e-2
    return float((packed - torch.cat(parts, dim=2)).abs().max())


class NormOverFrames(nn.GroupNorm):
    """The broken twin: statistics over all frames of a pack."""

    def forward(self, x):
        y = super().forward(rearrange(x, "(b t) c h w -> b c t h w", b=B if len(x) % (T + K) == 0 else len(x)))
        return rearrange(y, "b c t h w -> (b t) c h w")


def test_nothing_leaks_after_training(trainer):
    for _ in range(10):
        trainer.train_step()
    assert leak(trainer.net) < 1e-10
    for module in trainer.net.modules():
        if isinstance(module, nn.GroupNorm):
            module.__class__ = NormOverFrames
    assert leak(trainer.net) > 1e-4
    unmasked = Trainer(TINY, Budget(30, B), device="cpu", amp="off")
    for _ in range(10):
        unmasked.train_step()
    forward = unmasked.net.forward
    unmasked.net.forward = lambda z, log_snr, cond, num_images=0: forward(z, log_snr, cond)  # the twin that forgets the mask
    assert leak(unmasked.net) > 1e-4


def test_images_cost_what_they_weigh(trainer):
    for _ in range(3):
        trainer.train_step()
    packed, clip = (measure(TINY.net, TINY.sample_shape, k).flops for k in (K, 0))
    assert clip * (1 + 0.9 * K / T) < packed < clip * (1 + 1.1 * K / T)
    assert trainer.provenance()["flops"] == pytest.approx(packed * B * 3, rel=1e-2)
    assert cost(TINY)["gflop_per_sample"] == pytest.approx(packed / 1e9, abs=1e-3)


def test_images_are_for_clips():
    with pytest.raises(ValueError, match="num_images is for clips"):
        replace(MNIST_DDPM, num_images=4)
    with pytest.raises(ValueError, match="at least 0"):
        replace(VDM_TEXT, num_images=-1)
