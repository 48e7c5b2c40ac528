"""The space-time U-Net: who sees whom. Every probe runs on randomised weights, and a deliberately broken twin fails it."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from utils.layers import ScalarEmbedding, SpatialAttention, TemporalAttention, attend, packing_mask
from utils.runtime import generator
from utils.unet import UNet, UNetConfig, randomize

F64 = torch.float64
SMALL = UNetConfig(channels=(16, 32), blocks=(1, 1), space=(False, True), time=(True, True), stem=2, embed_dim=32, head_dim=16, max_distance=7)


@pytest.fixture(scope="module")
def net():
    return randomize(UNet(SMALL)).double().eval()


def clip(b=2, t=8, seed=0):
    return torch.randn(b, 1, t, 16, 16, generator=generator(seed), dtype=F64)


def moved(net, z, frame, num_images=0, seed=9):
    """(T,) bool: which output frames change when input frame `frame` does; asserts that the network varies at all."""
    log_snr = torch.zeros(len(z), dtype=F64)
    changed = z.clone()
    changed[:, :, frame] += torch.randn(z[:, :, frame].shape, generator=generator(seed), dtype=F64)
    before, after = net(z, log_snr, num_images=num_images), net(changed, log_snr, num_images=num_images)
    assert before.std() > 1e-3
    return ((after - before).abs().amax((0, 1, 3, 4)) > 1e-9)


# --- temporal attention, alone


def attention(channels=32, frames=6, seed=0):
    return randomize(TemporalAttention(channels, 16, max_distance=frames - 1), seed).double()


def by_plain_loop(layer, x, t, scale=None):
    """Temporal attention for one clip, position, head and pair of frames at a time, straight from the formula."""
    b, (c, h, w), d = x.shape[0] // t, x.shape[1:], x.shape[1] // layer.heads
    normed, out = layer.norm(x), torch.zeros_like(x)
    weight, bias = layer.qkv.weight, layer.qkv.bias
    for n in range(b):
        for i in range(h):
            for j in range(w):
                qkv = [weight @ normed[n * t + f, :, i, j] + bias for f in range(t)]
                for head in range(layer.heads):
                    part = [[row[k * c + head * d:k * c + (head + 1) * d] for k in range(3)] for row in qkv]
                    for f in range(t):
                        rows = [max(-layer.max_distance, min(layer.max_distance, g - f)) + layer.max_distance for g in range(t)]
                        logits = torch.stack([part[f][0] @ (part[g][1] + layer.relative_key[rows[g]]) for g in range(t)]) * (scale or d**-0.5)
                        p = logits.softmax(0)
                        out[n * t + f, head * d:(head + 1) * d, i, j] = sum(p[g] * (part[g][2] + layer.relative_value[rows[g]]) for g in range(t))
    mixed = rearrange(torch.einsum("o c, b c h w -> b o h w", layer.out.weight, out) + layer.out.bias[:, None, None], "b c h w -> b c h w")
    return x + mixed


def test_temporal_attention_equals_a_plain_loop():
    layer = attention()
    x = torch.randn(2 * 6, 32, 2, 3, generator=generator(1), dtype=F64)
    assert (layer(x, 6) - by_plain_loop(layer, x, 6)).abs().max() < 1e-12
    assert (layer(x, 6) - by_plain_loop(layer, x, 6, scale=1.0)).abs().max() > 1e-4  # the twin without 1/sqrt(d) is told apart
    short = randomize(TemporalAttention(32, 16, max_distance=2)).double()  # clips longer than the clip distance
    assert (short(x, 6) - by_plain_loop(short, x, 6)).abs().max() < 1e-12


class WithoutPermute(TemporalAttention):
    """The broken twin: reshapes (b t) c h w to (b h w) t c on the way in without permuting."""

    def forward(self, x, num_frames, mask=None):
        tokens = self.norm(x).reshape(-1, num_frames, x.shape[1])
        q, k, v = rearrange(self.qkv(tokens), "n t (three heads d) -> three n heads t d", three=3, heads=self.heads)
        tokens = self.out(rearrange(self.weights(q, k, mask) @ v, "n heads t d -> n t (heads d)"))
        return x + rearrange(tokens, "(b h w) t c -> (b t) c h w", b=x.shape[0] // num_frames, h=x.shape[2])


def frame_preserved(layer):
    """With weights that make the attention copy each frame's value, does frame k come out of frame k alone?"""
    with torch.no_grad():
        c = layer.out.weight.shape[0]
        layer.qkv.weight.zero_(), layer.qkv.bias.zero_(), layer.relative_value.zero_()
        layer.qkv.weight[2 * c:] = torch.eye(c)
        layer.out.weight.copy_(torch.eye(c)), layer.out.bias.zero_()
    x = torch.randn(2 * 5, 32, 3, 4, generator=generator(2), dtype=F64)
    changed = x.clone()
    changed[3] += 1.0 + torch.rand(x[3].shape, generator=generator(3), dtype=F64)
    self_only = torch.eye(5, dtype=torch.bool)
    difference = (layer(changed, 5, self_only) - layer(x, 5, self_only)).abs().amax((1, 2, 3)) > 1e-9
    return difference.nonzero().flatten().tolist() == [3]


def test_identity_attention_preserves_frames():
    assert frame_preserved(attention(frames=5))
    assert not frame_preserved(randomize(WithoutPermute(32, 16, 4)).double())


def test_logits_are_scaled():
    layer = attention(64)
    q, k = torch.randn(2, 1, layer.heads, 6, 16, generator=generator(4), dtype=F64)
    with torch.no_grad():
        layer.relative_key.zero_()
    expected = (torch.einsum("nhid,nhjd->nhij", q, k) / math.sqrt(16)).softmax(-1)
    assert torch.allclose(layer.weights(q, k), expected)
    assert not torch.allclose(layer.weights(q, k), torch.einsum("nhid,nhjd->nhij", q, k).softmax(-1), atol=1e-3)


def test_frame_order_matters_and_batch_order_does_not(net):
    z, log_snr = clip(), torch.zeros(2, dtype=F64)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    assert (net(z[:, :, order], log_snr) - net(z, log_snr)[:, :, order]).abs().max() > 1e-3
    assert (net(z.flip(0), log_snr) - net(z, log_snr).flip(0)).abs().max() < 1e-10
    blind = randomize(UNet(SMALL)).double()  # the twin without positions cannot represent order
    for module in blind.modules():
        if isinstance(module, TemporalAttention):
            nn.init.zeros_(module.relative_key), nn.init.zeros_(module.relative_value)
    assert (blind(z[:, :, order], log_snr) - blind(z, log_snr)[:, :, order]).abs().max() < 1e-10


@pytest.mark.parametrize("frames", [1, 3, 8, 16, 24, 64, 96])
def test_any_number_of_frames(net, frames):
    z = clip(1, frames)
    out = net(z, torch.zeros(1, dtype=F64))
    assert out.shape == z.shape and out.std() > 1e-3
    assert moved(net, z, frames - 1).all()


@pytest.mark.parametrize("channels, side", [(1, 64), (3, 32), (3, 64)])
def test_grey_or_rgb_at_32_or_64_pixels(channels, side):
    net = randomize(UNet(replace(SMALL, in_channels=channels))).double().eval()
    z = torch.randn(1, channels, 5, side, side, generator=generator(1), dtype=F64)
    out = net(z, torch.zeros(1, dtype=F64))
    assert out.shape == z.shape and out.std() > 1e-3
    changed = z.clone()
    changed[:, 0, 2, 0, 0] += 1  # one channel of one pixel of one frame
    assert ((net(changed, torch.zeros(1, dtype=F64)) - out).abs().amax((0, 3, 4)) > 1e-12).all()  # reaches every channel and frame


def test_noise_level_may_differ_by_frame(net):
    z, log_snr = clip(1), torch.zeros(1, dtype=F64)
    every = log_snr[:, None].expand(1, 8)
    assert (net(z, log_snr) - net(z, every)).abs().max() < 1e-12
    other = every.clone()
    other[:, 5:] = 3.0
    packed = net(z, other, num_images=3)
    alone = [net(z[:, :, :5], log_snr)] + [net(z[:, :, k:k + 1], log_snr + 3) for k in range(5, 8)]
    assert (packed - torch.cat(alone, dim=2)).abs().max() < 1e-10
    assert (packed - net(z, log_snr, num_images=3))[:, :, 5:].abs().max() > 1e-3


# --- information flow through the whole network


def test_every_frame_sees_every_frame_and_only_through_temporal_attention(net):
    assert moved(net, clip(), 3).all()
    spatial = randomize(UNet(replace(SMALL, time=(False, False)))).double()
    assert moved(spatial, clip(), 3).nonzero().flatten().tolist() == [3]


def test_gradients_tell_the_same_story():
    spatial = randomize(UNet(replace(SMALL, time=(False, False)))).double()
    for net, expected in ((randomize(UNet(SMALL)).double(), list(range(8))), (spatial, [3])):
        z = clip(1).requires_grad_()
        net(z, torch.zeros(1, dtype=F64))[:, :, 3].sum().backward()
        assert (z.grad.abs().amax((0, 1, 3, 4)) > 1e-12).nonzero().flatten().tolist() == expected


class LeakyNorm(nn.GroupNorm):
    """The broken twin: statistics over all frames of a clip (here: of the batch)."""

    def forward(self, x):
        return (x - x.mean()) / x.std()


def test_packed_images_are_independent(net):
    z = clip(1, 8)
    for frame in range(5, 8):  # five frames of a clip, three images
        assert moved(net, z, frame, num_images=3).nonzero().flatten().tolist() == [frame]
    assert moved(net, z, 2, num_images=3).nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    log_snr = torch.zeros(1, dtype=F64)
    packed = net(z, log_snr, num_images=3)
    alone = [net(z[:, :, :5], log_snr)] + [net(z[:, :, k:k + 1], log_snr) for k in range(5, 8)]
    assert (packed - torch.cat(alone, dim=2)).abs().max() < 1e-10
    assert moved(net, z, 6).sum() == 8  # the twin without a mask leaks
    leaky = randomize(UNet(SMALL)).double()
    for module in leaky.modules():
        if isinstance(module, nn.GroupNorm):
            module.__class__ = LeakyNorm
    assert moved(leaky, z, 6, num_images=3).sum() == 8


def test_packing_mask():
    assert packing_mask(2, 2).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_condition_may_differ_by_frame(net):
    z, log_snr = clip(1), torch.zeros(1, dtype=F64)
    cond = torch.randn(1, 32, generator=generator(6), dtype=F64)
    every = cond[:, None].expand(1, 8, 32)
    assert torch.equal(net(z, log_snr, cond), net(z, log_snr, every))
    assert (net(z, log_snr, cond) - net(z, log_snr)).abs().max() > 1e-3
    assert torch.equal(net(z, log_snr), net(z, log_snr, torch.zeros(1, 32, dtype=F64)))  # no condition is the zero condition


def test_spatial_attention_treats_frames_as_batch():
    layer = randomize(SpatialAttention(32, 16)).double()
    x = torch.randn(4, 32, 3, 3, generator=generator(7), dtype=F64)
    assert (layer(x)[2] - layer(x[2:3])[0]).abs().max() < 1e-12
    changed = x.clone()
    changed[2, :, 0, 0] += 1
    assert ((layer(changed) - layer(x)).abs().amax(1) > 1e-9).sum((1, 2)).tolist() == [0, 0, 9, 0]


def test_fresh_network_outputs_zero_and_learns_from_there():
    net = UNet(SMALL)
    z = torch.randn(1, 1, 4, 16, 16)
    assert net(z, torch.zeros(1)).abs().max() == 0
    (net(z, torch.zeros(1)) - 1).square().mean().backward()
    assert net.last.bias.grad.abs().max() > 0


def test_embedding_tells_noise_levels_apart():
    embedding = randomize(ScalarEmbedding(32, -20, 20)).double()
    out = embedding(torch.linspace(-20, 20, 81, dtype=F64))
    assert torch.pdist(out).min() > 1e-3


def test_shapes_that_do_not_fit_are_named(net):
    good, log_snr = clip(2, 3), torch.zeros(2, dtype=F64)
    for z, l, kwargs, message in ((good[:, :, :, :15], log_snr, {}, "multiples of 4"), (good[:, 0], log_snr, {}, "Expected z"),
                                  (good, log_snr[:1], {}, "log_snr of shape"), (good, log_snr, {"cond": torch.zeros(2, 5)}, "cond of shape"),
                                  (good, log_snr, {"num_images": 3}, "num_images")):
        with pytest.raises(ValueError, match=message):
            net(z, l, **kwargs)
    with pytest.raises(ValueError, match="without captions"):
        net.encode(torch.zeros(1, 14, dtype=torch.long))
    with pytest.raises(ValueError, match="multiple of 8"):
        UNet(replace(SMALL, head_dim=12))
    with pytest.raises(ValueError, match="one entry for each"):
        replace(SMALL, blocks=(1,))


def test_plain_products_equal_fused_attention_in_bfloat16():
    q, k, v = (2 * torch.randn(3, 2, 4, 64, 16, generator=generator(0))).bfloat16()
    expected = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    assert (attend(q, k, v).float() - expected).abs().max() < 0.15
    assert ((q.float() @ k.float().mT).softmax(-1) @ v.float() - expected).abs().max() > 0.5  # without 1/sqrt(d) it would show
