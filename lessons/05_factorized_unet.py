# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · The factorized 3D U-Net
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/video-diffusion-lessons/video-diffusion-lessons/blob/main/lessons/05_factorized_unet.ipynb)
#
# ![One pixel of one frame is changed, and the places where the output changes light up, frame after frame, in four networks](../assets/figures/05_who_sees_whom.gif)
#
# *One pixel of frame 8 (of 0 to 15) is changed. Bright: the output changes. Left to right: frame by frame; three 3D convolutions; convolutions and attention over time; the same with one line wrong.*
#
# **Claim: a U-Net for images becomes one for video by adding one kind of layer, attention over time. Then every frame sees every other at once, and their order matters. At 16 frames a block costs a third of one in full 3D, and less for longer clips.**
#
# Each part of the claim is shown here by a measurement or a probe. The probes fit any video network: one of them finds a mistake in published code.
#
# You will be able to
# - write temporal attention with relative positions, and tell by probes whether it is right;
# - build the block of *Video Diffusion Models* (Ho et al. 2022, section 3), equal to the one in `utils` on the same weights;
# - say what full 3D costs and what the factorized form saves (FLOPs and seconds) and what it does not (memory);
# - test any video network: which frames reach which, and does their order matter;
# - measure what a frame's neighbours are worth to a trained network.
#
# | reading | exercises | machine: T4 (estimate) / two CPU cores |
# |---|---|---|
# | 40 minutes | 35 minutes | 13 / 5 minutes (a smaller run) |
#
# **The series:** [01 DDPM](01_ddpm_on_mnist.ipynb) → [02 schedules and fast samplers](02_fast_samplers.ipynb) → [03 guidance](03_guidance.ipynb) → [04 Moving MNIST](04_moving_mnist.ipynb) → **05 the factorized 3D U-Net (you are here)** →
# [06 Video Diffusion Models](06_video_diffusion_models.ipynb) → [07 joint training](07_joint_training.ipynb) → [08 reconstruction guidance](08_reconstruction_guidance.ipynb) → [09 pseudo-3D layers](09_pseudo_3d_layers.ipynb) → [10 Make-A-Video](10_make_a_video.ipynb) → [11 frame interpolation](11_frame_interpolation.ipynb) → [12 super-resolution](12_super_resolution.ipynb) → [13 scaling up](13_scaling_up.ipynb).
# This lesson rests on [the network](01_ddpm_on_mnist.ipynb#5.-The-network,-in-under-100-lines) of lesson 01 and [the clip as a tensor](04_moving_mnist.ipynb#1.-A-clip-is-a-tensor) of lesson 04. Symbols: [glossary](glossary.md).

# %% [markdown]
# ## Set-up
# Run this cell first. On Colab it fetches the repository; elsewhere it uses the one that this notebook is in. It installs nothing, and running it twice does nothing new.
# It prints the *budget*, how much is trained and drawn here: `t4` on a GPU, `cpu` without one.
# (`# NBVAL_CHECK_OUTPUT` at the top of later cells: our tests compare what such a cell prints. Ignore it.)

# %%
import subprocess, sys
from pathlib import Path

SLUG, TAG = "video-diffusion-lessons/video-diffusion-lessons", "main"  # stamped from lessons/colab.txt
if "google.colab" in sys.modules:
    ROOT = Path("/content") / SLUG.split("/")[1]
    if not ROOT.exists():
        part = ROOT.with_name("unfinished")  # gets its name when it is whole: a clone that was cut off is made anew
        subprocess.run(["rm", "-rf", str(part)], check=True)
        subprocess.run(["git", "clone", "-q", "--depth", "1", "-b", TAG, f"https://github.com/{SLUG}", str(part)], check=True)
        part.rename(ROOT)
else:
    ROOT = next(folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "utils" / "runtime.py").exists())
if sys.path[0] != str(ROOT):
    sys.path.insert(0, str(ROOT))
if "utils" in sys.modules and str(ROOT) not in str(sys.modules["utils"].__file__):  # a foreign package of that name
    for name in [name for name in sys.modules if name.split(".")[0] == "utils"]:
        del sys.modules[name]
import utils
assert Path(utils.__file__).parent.parent == ROOT, "another package called utils is in the way: restart the kernel, run this first"
from utils.runtime import banner
print(banner())

# %%
import copy, json, math, time
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from dataclasses import replace
from einops import rearrange
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from utils import load_pretrained, show
from utils.cost import count, measure
from utils.data import MovingMNIST
from utils.diffusion import loss_per_sample, q_sample
from utils.exercises import check
from utils.layers import ResidualBlock, SpatialAttention, TemporalAttention
from utils.recipes import recipe
from utils.runtime import ASSETS, budget, generator, outputs, pick_device
from utils.train import Trainer
from utils.unet import Stage, UNet, UNetConfig, randomize

BUDGET, DEVICE = budget(), pick_device()
F64 = torch.float64                                         # probes run in double precision, on the CPU


# %% [markdown]
# ## 1. Start from what we have: a network for images
# Lesson 01's U-Net takes (B, C, H, W). Fold the frames into the batch, and it takes a clip: **frame by frame**.
#
# | | shape |
# |---|---|
# | clip | `b c t h w` = (1, 1, 8, 16, 16) |
# | what the network works on | `(b t) c h w` = (8, 1, 16, 16) |
#
# A **probe** shows what is wrong with that, without any training: change one frame of the input; which frames of the output change? The weights are random on purpose: a fresh U-Net ends in a layer of zeros, so nothing would move and a leak would stay hidden. For the same reason the probe insists that the output varies. (The network is also told how much noise there is, as log-SNR $\lambda = \log \alpha^2/\sigma^2$: −6 is nearly pure noise, 4 nearly clean; lesson 02.)

# %%
def who_moves(network, frame=3, frames=8, size=16):
    """Change one frame of the input: which frames of the output change?"""
    z = torch.randn(1, 1, frames, size, size, generator=generator(0), dtype=F64)
    changed = z.clone()
    changed[:, :, frame] += 1
    with torch.no_grad():
        before, after = network(z), network(changed)
    assert before.std() > 1e-3, "the output is constant: the probe has nothing to see"
    change = (after - before).abs().amax((0, 1, 3, 4))                           # (T,), the largest in each frame
    return [k for k in range(frames) if change[k] > 1e-9]


# %%
# NBVAL_CHECK_OUTPUT
# two levels, 16 and 32 channels; attention over space at both, over time at none
SMALL = UNetConfig(channels=(16, 32), blocks=(1, 1), space=(True, True), time=(False, False),
                   embed_dim=32, head_dim=16, max_distance=7)
image_net = randomize(UNet(SMALL)).double().eval()
log_snr = torch.zeros(1, dtype=F64)
print("frame by frame, changing frame 3 moves:", who_moves(lambda z: image_net(z, log_snr)))


# %% [markdown]
# A frame sees only itself. Such a network makes sixteen good pictures that have nothing to do with each other. Frames must talk.
#
# ## 2. The obvious way: everything in 3D
# Make each 3×3 convolution a 3×3×3 one. **Predict, then run:** after one, two and three such layers, how far does a change travel?

# %%
# NBVAL_CHECK_OUTPUT
class Stack3D(nn.Module):
    """A few 3x3x3 convolutions, one after the other."""
    def __init__(self, layers, channels=16):
        super().__init__()
        widths = [1] + [channels] * (layers - 1) + [1]
        self.layers = nn.ModuleList(nn.Conv3d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:]))

    def forward(self, z):
        for layer in self.layers:
            z = F.silu(layer(z))
        return z


for layers in (1, 2, 3):
    stack = randomize(Stack3D(layers)).double()
    print(f"{layers} layers of 3D convolution, changing frame 3 moves:", who_moves(stack))

# %% [markdown]
# Each layer reaches one frame further: a block of two reaches two frames to each side, only the whole depth of a network reaches all, and each layer costs three times as much. Attention reaches everything in one layer, but over all places of all frames it compares $(T\,H\,W)^2$ pairs.
#
# ## 3. The price, counted
# *Video Diffusion Models* handles space and time in separate layers. It **factorizes** the block: convolutions and attention within a frame, then attention over time at each place separately.
#
# | | pairs that attention compares | for 16 frames of 8×8 |
# |---|---|---|
# | over everything | $(T H W)^2$ | 1,048,576 |
# | over space, then over time | $T (H W)^2 + H W\, T^2$ | 81,920 |
#
# Build both for one level of the U-Net, 64 channels at 8×8, and count: FLOPs of a forward and a backward pass (a multiplication and an addition are two), activations kept for the backward pass, seconds.
# **Predict:** which of the three does factorizing *not* save?

# %%
# NBVAL_CHECK_OUTPUT
T, H, W = 16, 8, 8
full, factorized = (T * H * W) ** 2, T * (H * W) ** 2 + H * W * T**2
print(f"pairs: {full:,} over everything, {factorized:,} factorized, {full / factorized:.1f} times fewer")
assert (full, factorized) == (1_048_576, 81_920)


# %%
class Full3D(nn.Module):
    """Two 3x3x3 convolutions beside a shortcut, then attention over all places of all frames."""
    def __init__(self, channels=64, heads=2):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv3d(channels, channels, 3, padding=1) for _ in range(2))
        self.qkv, self.out, self.heads = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels), heads

    def forward(self, x):                                                        # (B, C, T, H, W)
        h = x
        for norm, conv in zip(self.norms, self.convs):
            h = conv(F.silu(norm(h)))
        x = x + h
        tokens = rearrange(self.norms[2](x), "b c t h w -> b (t h w) c")
        q, k, v = rearrange(self.qkv(tokens), "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        tokens = rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)")
        return x + rearrange(self.out(tokens), "b (t h w) c -> b c t h w", t=x.shape[2], h=x.shape[3])


# %%
class Factorized(nn.Module):
    """Two 1x3x3 convolutions beside a shortcut, then attention over space, then over time: `utils`' layers."""
    def __init__(self, channels=64, head_dim=32):
        super().__init__()
        self.residual = ResidualBlock(channels, channels, 32)
        self.space = SpatialAttention(channels, head_dim)
        self.time = TemporalAttention(channels, head_dim, max_distance=15)

    def forward(self, x):                                                        # (B, C, T, H, W)
        t = x.shape[2]
        x = rearrange(x, "b c t h w -> (b t) c h w")
        x = self.residual(x, torch.zeros(len(x), 32, device=x.device))
        return rearrange(self.time(self.space(x), t), "(b t) c h w -> b c t h w", t=t)


# %%
def seconds(layer, x, runs=3):
    """Forward and backward, the fastest of a few."""
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        layer(x).sum().backward()
        if x.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken)


def counted(layer, x):
    """GFLOP and MiB kept. FLOPs with attention as plain matrix products: some versions of PyTorch miss the fused kernel on a CPU."""
    with sdpa_kernel(SDPBackend.MATH):
        flops = count(layer, lambda: layer(x)).flops
    return flops / 1e9, count(layer, lambda: layer(x)).saved_bytes / 2**20


# %%
frames = [4, 8, 16, 32] if BUDGET in ("smoke", "cpu") else [4, 8, 16, 32, 64]
price = {}
for name, layer in (("full 3D", Full3D()), ("factorized", Factorized())):
    price[name] = [counted(layer, torch.zeros(1, 64, t, 8, 8)) for t in frames]
    layer = layer.to(DEVICE)
    for k, t in enumerate(frames):
        price[name][k] += (1000 * seconds(layer, torch.randn(1, 64, t, 8, 8, device=DEVICE)),)

# %%
for name, rows in price.items():
    flops, mib, took = rows[frames.index(16)]
    print(f"{name:11s} 16 frames: {flops:5.2f} GFLOP, {mib:5.1f} MiB kept, {took:6.1f} ms")
times = {t: a[0] / b[0] for t, a, b in zip(frames, *price.values())}
print("full 3D costs more FLOPs by", ", ".join(f"{more:.1f}x at {t} frames" for t, more in times.items()))
assert times[16] > 3 and list(times.values()) == sorted(times.values())          # the claim at the top

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
for k, (ax, title) in enumerate(zip(axes, ("GFLOP", "MiB kept for the backward pass", "milliseconds"))):
    for (name, rows), colour, style in zip(price.items(), (show.ORANGE, show.BLUE), ("s--", "o-")):
        ax.plot(frames, [row[k] for row in rows], style, color=colour, label=name)
    ax.set(title=title, xlabel="frames", ylim=(0, None), xticks=frames)
axes[0].legend();


# %% [markdown]
# A third of the FLOPs at 16 frames, and the gap widens for longer clips: pairs of *all* places grow with $T^2$. **Memory is not saved:** two attention layers keep two sets of tokens, and the fused attention kernel (`F.scaled_dot_product_attention`) that the full block uses never stores its pairs. (Without such a kernel, a million pairs would be kept for every head.)
#
# What does factorizing give up? A place of frame 8 cannot look directly at *another* place of frame 3. It takes two hops: attention over space first brings what is there, within frame 3, to the first place; attention over time then carries it to frame 8. A probe of the two layers, without normalisation:

# %%
# NBVAL_CHECK_OUTPUT
def hears(layers, t=10, channels=32):
    """Does place (0, 0) of frame 8 move when place (2, 3) of frame 3 does?"""
    x = torch.randn(t, channels, 3, 4, generator=generator(1), dtype=F64)
    changed = x.clone()
    changed[3, :, 2, 3] += 1
    with torch.no_grad():
        for layer in layers:
            x, changed = layer(x), layer(changed)
    return bool((x - changed)[8, :, 0, 0].abs().max() > 1e-12)


space, along_time = randomize(SpatialAttention(32, 16)).double(), randomize(TemporalAttention(32, 16, 9)).double()
space.norm = along_time.norm = nn.Identity()
print("over space:", hears([space]), "  over time:", hears([lambda x: along_time(x, 10)]),
      "  over space, then time:", hears([space, lambda x: along_time(x, 10)]))


# %% [markdown]
# The two layers need each other for another reason, too: at 8×8 one place covers 4×4 pixels, and a *stroke* that moves 1.8 pixels a frame has left that place after three or four frames. By then it is elsewhere; convolutions and attention over space must bring it back into reach.
#
# ## 4. Attention over time, and two ways to get it wrong
# Space becomes batch, frames become the sequence. The whole trick is one `rearrange`, and the first mistake is made there:
#
# | | pattern | what the sequence is |
# |---|---|---|
# | right | `(b t) c h w -> (b h w) t c` | the frames at one place |
# | wrong | `.reshape(-1, t, c)` | whatever lies next to each other in memory |
#
# Both run, both have the same shapes, both train. (One public re-implementation of the paper for Moving MNIST has the wrong one, as we found with the first probe below.)
#
# In the class below the `rearrange` is in `fold` and `unfold`, so that a broken twin can replace it; section 5 will replace `logits` and `mix`:

# %%
class TimeAttention(nn.Module):
    """Attention among the frames at one place. No positions yet."""
    def __init__(self, channels, head_dim):
        super().__init__()
        self.heads, self.norm = channels // head_dim, nn.GroupNorm(8, channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def fold(self, x, t):
        return rearrange(x, "(b t) c h w -> (b h w) t c", t=t)

    def unfold(self, tokens, b, h):
        return rearrange(tokens, "(b h w) t c -> (b t) c h w", b=b, h=h)

    def logits(self, q, k):                                                      # (n, heads, T, d) -> (n, heads, T, T)
        return q @ k.mT * q.shape[-1] ** -0.5

    def mix(self, p, v):
        return p @ v

    def forward(self, x, t, mask=None):      # x (B*T, C, H, W); mask[i, j]: may frame i look at frame j (lesson 07)
        tokens = self.fold(self.norm(x), t)
        q, k, v = rearrange(self.qkv(tokens), "n t (three heads d) -> three n heads t d", three=3, heads=self.heads)
        logits = self.logits(q, k)
        if mask is not None:
            logits = logits.masked_fill(~mask, -math.inf)
        tokens = rearrange(self.mix(logits.softmax(-1), v), "n heads t d -> n t (heads d)")
        return x + self.unfold(self.out(tokens), len(x) // t, x.shape[2])


# %%
class Reshaped(TimeAttention):
    """The mistake on the way in."""
    def fold(self, x, t):
        return x.reshape(-1, t, x.shape[1])


class ReshapedTwice(Reshaped):
    """The mistake on the way in and on the way out."""
    def unfold(self, tokens, b, h):
        return tokens.reshape(b * tokens.shape[1], tokens.shape[2], h, -1)


# %% [markdown]
# **Probe 1:** set the weights so that attention *copies* each frame's own value (queries and keys zero, value = input, a mask that lets each frame see only itself). A change in frame 3 must come out in frame 3 only. **Probe 2:** random weights, no normalisation; change *one place* of frame 3: all frames may move, but at that place only. **Predict:** which probe catches which mistake?

# %%
def copies_frames(layer, channels=32, t=5):
    layer = layer.double()
    with torch.no_grad():
        for parameter in (layer.qkv.weight, layer.qkv.bias, layer.out.bias):
            parameter.zero_()
        layer.qkv.weight[2 * channels:] = torch.eye(channels)
        layer.out.weight.copy_(torch.eye(channels))
        x = torch.randn(t, channels, 3, 4, generator=generator(2), dtype=F64)
        changed = x.clone()
        changed[3] += torch.randn(x[3].shape, generator=generator(3), dtype=F64)
        only_self = torch.eye(t, dtype=torch.bool)
        change = (layer(changed, t, only_self) - layer(x, t, only_self)).abs().amax((1, 2, 3))
    return [k for k in range(t) if change[k] > 1e-9]


# %%
# NBVAL_CHECK_OUTPUT
def reached(layer, t=5, channels=32):
    layer = randomize(layer).double()
    layer.norm = nn.Identity()
    x = torch.randn(t, channels, 3, 4, generator=generator(2), dtype=F64)
    changed = x.clone()
    changed[3, :, 1, 2] += 1
    with torch.no_grad():
        moved = (layer(changed, t) - layer(x, t)).abs().amax(1) > 1e-9           # (T, H, W)
    return [k for k in range(t) if moved[k].any()], int(moved.any(0).sum())


for kind in (TimeAttention, Reshaped, ReshapedTwice):
    frames_moved, places = reached(kind(32, 16))
    print(f"{kind.__name__:14s} copying: frames {copies_frames(kind(32, 16))}   "
          f"random: frames {frames_moved}, {places} of 12 places")


# %% [markdown]
# The copy test misses the mistake made twice, because in a copy the two cancel; the second probe sees both. No single probe is enough: test *when* and *where*.
#
# **The second mistake** is to omit $1/\sqrt d$. For queries and keys of $d$ independent numbers with variance 1, $q \cdot k$ has variance $d$: the wider the head, the larger the logits, and early in training softmax picks one frame and ignores the rest. How many of 16 frames does it effectively mix? (The exponential of its entropy: 16 if all weigh the same, 1 if one takes all.)

# %%
# NBVAL_CHECK_OUTPUT
def frames_mixed(d, scale):
    q, k = torch.randn(2, 2000, 16, d, generator=generator(d), dtype=F64)
    weights = (q @ k.mT * scale).softmax(-1)
    return float((-(weights * weights.log()).sum(-1)).mean().exp())


for d in (8, 32, 128):
    print(f"head of {d:3d}: {frames_mixed(d, d**-0.5):4.1f} frames with 1/sqrt(d), {frames_mixed(d, 1):4.1f} without")


# %% [markdown]
# ## 5. Which frame came first?
# **Predict, then run:** feed the frames in another order. What comes out of our `TimeAttention`?

# %%
# NBVAL_CHECK_OUTPUT
def order_matters(layer, t=8, channels=32):
    """False where shuffling the input shuffles the output alike, and does nothing else."""
    x = torch.randn(t, channels, 3, 3, generator=generator(4), dtype=F64)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    with torch.no_grad():
        return bool((layer(x[order], t) - layer(x, t)[order]).abs().max() > 1e-6)


print("no positions: does order matter?", order_matters(randomize(TimeAttention(32, 16)).double()))


# %% [markdown]
# The same outputs, shuffled (the layer is *permutation-equivariant*): it sees a clip as a *bag* of frames, and cannot tell forwards, backwards and shuffled apart. The paper adds **relative positions** (Shaw et al. 2018): one learnt vector for each distance $j - i$, added to keys and to values.
#
# $$\text{logit}_{ij} = \frac{q_i \cdot (k_j + a^K_{j-i})}{\sqrt d}, \qquad p_{ij} = \operatorname{softmax}_j \text{logit}_{ij}, \qquad \text{out}_i = \sum_j p_{ij}\,(v_j + a^V_{j-i})$$
#
# The first vector lets frame $i$ choose *where* to look ("the frame before me"), the second tells it *from where* an answer comes. As positions are relative, not absolute, a pattern learnt at frame 3 holds at frame 9, and clips longer than in training can be *run*, though not necessarily well. Distances beyond `max_distance` share the last vector. (The last sum needs the weights $p_{ij}$ themselves, which a fused kernel never exposes: so these layers compute them explicitly.)

# %%
def distance_rows(t, max_distance):
    """(T, T) rows of the tables: the distance j - i, clipped, counted from 0."""
    frame = torch.arange(t)
    return (frame[None, :] - frame[:, None]).clamp(-max_distance, max_distance) + max_distance


print(distance_rows(5, 4))
print("no further than 2:", distance_rows(5, 2).tolist())


# %%
class OurTemporalAttention(TimeAttention):
    """Attention among the frames at one place, with relative positions."""
    def __init__(self, channels, head_dim, max_distance):
        super().__init__(channels, head_dim)
        self.max_distance = max_distance
        self.relative_key = nn.Parameter(torch.randn(2 * max_distance + 1, head_dim) * 0.02)
        self.relative_value = nn.Parameter(torch.randn(2 * max_distance + 1, head_dim) * 0.02)

    def logits(self, q, k):                                                      # (n, heads, T, d) -> (n, heads, T, T)
        a_key = self.relative_key[distance_rows(q.shape[2], self.max_distance)]  # (T, T, d)
        return (q @ k.mT + torch.einsum("n h i d, i j d -> n h i j", q, a_key)) * q.shape[-1] ** -0.5

    def mix(self, p, v):
        a_value = self.relative_value[distance_rows(v.shape[2], self.max_distance)]
        return p @ v + torch.einsum("n h i j, i j d -> n h i d", p, a_value)


# %%
# NBVAL_CHECK_OUTPUT
theirs = randomize(TemporalAttention(32, 16, max_distance=7)).double()
ours = OurTemporalAttention(32, 16, max_distance=7).double()
ours.load_state_dict(theirs.state_dict())
x = torch.randn(2 * 8, 32, 3, 4, generator=generator(5), dtype=F64)
print("with positions: does order matter?", order_matters(ours))
print("our layer equals utils':", bool((ours(x, 8) - theirs(x, 8)).abs().max() < 1e-12))
print("places reached by a change of one:", reached(OurTemporalAttention(32, 16, 4))[1])
print("a second clip in the batch changes nothing:", bool((ours(x, 8)[8:] - ours(x[8:], 8)).abs().max() < 1e-12))

# %% [markdown]
# **What did a trained network make of it?** Take `vdm-text`, the captioned model of lesson 06 (`model.encode` turns captions into its condition). Its temporal attention layers run from 8×8 down to 4×4 and back. For four real clips with some noise: how much does a frame take from frames at each distance, averaged over places and frames? **Predict:** which levels look far, the fine or the coarse ones?

# %%
model = load_pretrained("vdm-text", device=DEVICE)
batch = MovingMNIST("test", seed=5, captions="digits").sample(32)
seen = []                                                   # attention weights, layer by layer


# %%
def look(layer):
    """Let this one layer keep the attention weights that it computes."""
    def weights(q, k, mask=None):
        seen.append(TemporalAttention.weights(layer, q, k, mask))               # the class's method, as before
        return seen[-1]
    layer.weights = weights


watched = copy.deepcopy(model.net)
for module in watched.modules():
    if isinstance(module, TemporalAttention):
        look(module)
level = torch.full((4,), -2.0)
z = q_sample(batch.video[:4], level, torch.randn(batch.video[:4].shape, generator=generator(6)))
with torch.no_grad():
    watched(z.to(DEVICE), level.to(DEVICE), model.encode(batch.captions[:4]))

# %%
WHERE = ["8×8, down", "4×4, down", "4×4, middle 1", "4×4, middle 2", "4×4, up", "8×8, up"]
figure, axes = plt.subplots(2, 3, figsize=(7, 4.2), layout="constrained", sharex=True, sharey=True)
for where, ax, p in zip(WHERE, axes.flat, seen):
    p = p.float().mean(0).cpu()                                                  # (heads, 16, 16)
    for head in p:
        ax.plot(range(-8, 9), [float(head.diagonal(d).mean()) for d in range(-8, 9)], linewidth=1)
    ax.axhline(1 / 16, color="black", linewidth=0.6, linestyle=":")
    ax.set(title=where)
for ax in axes[1]:
    ax.set(xlabel="distance j − i")
axes[0, 0].set(ylabel="weight")
axes[1, 0].set(ylabel="weight")
figure.suptitle("what a frame takes from frames at each distance, one line per head");

# %%
apart = (torch.arange(16)[None] - torch.arange(16)[:, None]).abs()
for where, p in zip(WHERE, seen):
    p = p.float().mean(0).cpu()
    far = [float((head * apart).sum(-1).mean()) for head in p]
    print(f"{where:13s} a head looks on average " + ", ".join(f"{frames:.1f}" for frames in far) + " frames away")
print(f"              all frames alike would be {float(apart.float().mean()):.1f}")

# %% [markdown]
# Distances up to 8 are drawn; the dotted line is "all frames alike". A peak at 0 is the frame itself, one beside it a neighbour; a flat line gathers the whole clip. The lines are averages over places, so where and when a head looks may still differ.
#
# The 8×8 layers look nearest, and the first of the two in the middle of the network furthest, some of its heads as far as if all frames weighed the same. But resolution is not everything: the second looks no further than the 4×4 layer on the way down.
#
# ## 6. The block
# *Residual block → attention over space → attention over time*; noise level and caption are **added** inside the residual block. The 1×3×3 convolution is not a 3D convolution at all: folded, it is a 2D one, so every image layer works on clips. Are the two equal? And which is faster on your machine?

# %%
# NBVAL_CHECK_OUTPUT
conv3d = nn.Conv3d(4, 6, (1, 3, 3), padding=(0, 1, 1)).double()
clip = torch.randn(2, 4, 5, 8, 8, generator=generator(7), dtype=F64)
folded = F.conv2d(rearrange(clip, "b c t h w -> (b t) c h w"), conv3d.weight[:, :, 0], conv3d.bias, padding=1)
unfolded = rearrange(folded, "(b t) c h w -> b c t h w", b=2)
print("1x3x3 equals 3x3 frame by frame:", bool((unfolded - conv3d(clip)).abs().max() < 1e-12))

# %%
three, two = nn.Conv3d(64, 64, (1, 3, 3), padding=(0, 1, 1)).to(DEVICE), nn.Conv2d(64, 64, 3, padding=1).to(DEVICE)
print(f"1x3x3: {1000 * seconds(three, torch.randn(4, 64, 16, 16, 16, device=DEVICE)):.1f} ms, "
      f"folded: {1000 * seconds(two, torch.randn(64, 64, 16, 16, device=DEVICE)):.1f} ms, forward and backward")


# %% [markdown]
# On a CPU either may win narrowly. On a GPU in half precision 3D convolutions often fall back to slower kernels, so this series folds; what matters is that both do the same.

# %%
class OurBlock(nn.Module):
    """Residual block, attention over space, attention over time; the names are those of `utils.unet.Stage`."""
    def __init__(self, in_channels, out_channels, embed_dim, head_dim, max_distance):
        super().__init__()
        self.residual = ResidualBlock(in_channels, out_channels, embed_dim)       # lesson 01
        self.space = SpatialAttention(out_channels, head_dim)                     # lesson 01
        self.time = OurTemporalAttention(out_channels, head_dim, max_distance)

    def forward(self, x, embedding, t, mask=None):                               # (B*T, C, H, W), (B*T, embed_dim)
        return self.time(self.space(self.residual(x, embedding)), t, mask)


# %%
# NBVAL_CHECK_OUTPUT
stage = randomize(Stage(16, 32, space=True, time=True, config=SMALL)).double()
block = OurBlock(16, 32, SMALL.embed_dim, SMALL.head_dim, SMALL.max_distance).double()
block.load_state_dict(stage.state_dict())
x = torch.randn(8, 16, 6, 6, generator=generator(8), dtype=F64)
embedding = torch.randn(8, 32, generator=generator(9), dtype=F64)
print("our block equals utils':", bool((block(x, embedding, 8) - stage(x, embedding, 8, None)).abs().max() < 1e-12))
block(x, embedding, 8).square().sum().backward()
print("every parameter is used:", all(bool(p.grad.abs().max() > 0) for p in block.parameters()))

# %% [markdown]
# ## 7. The U-Net
# Put the block where lesson 01 had residual block and attention, and you have a small version of the paper's design (section 12 lists the differences). Halving and doubling act on height and width, never on time; on the way up each block also gets the output of its level's block on the way down. This series' network:

# %%
video_recipe = recipe("vdm")
rows, net = [], UNet(video_recipe.net)
for name, module in net.named_modules():
    if isinstance(module, Stage):
        module.register_forward_hook(lambda m, given, out, name=name: rows.append((name, m, tuple(out.shape))))
net(torch.zeros(1, 1, 16, 32, 32), torch.zeros(1))
print(f"{'block':22s}{'(B*T, C, H, W)':>20s}   attention over")
for name, module, shape in rows:
    over = " and ".join(what for what, layer in (("space", module.space), ("time", module.time)) if layer is not None)
    print(f"{name:22s}{str(shape):>20s}   {over or '-'}")
print(f"{sum(p.numel() for p in net.parameters()):,} parameters")

# %%
show.network_diagram(UNet(video_recipe.net), video_recipe.sample_shape, title="the network of vdm, as it runs")

# %% [markdown]
# **It starts from the image network.** Attention over time ends in a layer of zeros beside a shortcut. **Predict, then run:** give a fresh video network the weights of an image network. What does it do with a clip?

# %%
# NBVAL_CHECK_OUTPUT
inflated = UNet(replace(SMALL, time=(True, True))).double().eval()
missing = inflated.load_state_dict(image_net.state_dict(), strict=False).missing_keys
clip = torch.randn(1, 1, 8, 16, 16, generator=generator(13), dtype=F64)
with torch.no_grad():
    print("only layers over time are new:", all(".time." in name for name in missing))
    print("frame by frame, exactly:", bool((inflated(clip, log_snr) - image_net(clip, log_snr)).abs().max() < 1e-12))

# %% [markdown]
# That is the bridge to lesson 09, where a trained image model becomes a video model.
#
# **Probe the whole.** Which frames move, with and without time layers? And the reverse question, by autograd: which frames of the input does frame 3 of the output depend on?

# %%
# NBVAL_CHECK_OUTPUT
video_net = randomize(UNet(replace(SMALL, time=(True, True)))).double().eval()


def depends_on(network, frame=3, frames=8):
    z = torch.randn(1, 1, frames, 16, 16, generator=generator(1), dtype=F64, requires_grad=True)
    network(z, log_snr)[:, :, frame].sum().backward()
    slope = z.grad.abs().amax((0, 1, 3, 4))
    return [k for k in range(frames) if slope[k] > 1e-12]


for name, network in (("without time", image_net), ("with time", video_net)):
    print(f"{name}: changing frame 3 moves", who_moves(lambda z: network(z, log_snr)))
    print(f"{name}: frame 3 depends on    ", depends_on(network))

# %%
# NBVAL_CHECK_OUTPUT
clip, two = torch.randn(2, 1, 8, 16, 16, generator=generator(2), dtype=F64), log_snr.expand(2)
order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
blind = randomize(UNet(replace(SMALL, time=(True, True), max_distance=0))).double().eval()   # all distances alike
with torch.no_grad():
    for name, network in (("relative positions", video_net), ("max_distance=0", blind)):
        moved = network(clip[:, :, order], two) - network(clip, two)[:, :, order]
        print(f"{name:19s} order of frames matters: {bool(moved.abs().max() > 1e-6)}")
    swapped = video_net(clip.flip(0), two) - video_net(clip, two).flip(0)
    print("order of clips in the batch matters:", bool(swapped.abs().max() > 1e-6))
    lengths = [video_net(torch.randn(1, 1, t, 16, 16, dtype=F64), log_snr).shape[2]
               for t in (1, 3, 8, 16, 24, 64, 96)]
print("one set of weights, clips of", *lengths, "frames")


# %% [markdown]
# **Where, not only when.** The picture at the top of this lesson: one pixel of frame 8 (of 0 to 15) is changed, and the output's change is drawn on a logarithmic scale: white is the largest, black a millionth of that or less. **Predict:** which frames light up, and where in them?

# %%
def change_map(network, t=16, size=32):
    """One pixel of frame 8 changes: where does the output? (1, 1, T, H, W) from 0 to 1 over six powers of ten."""
    z = torch.randn(1, 1, t, size, size, generator=generator(3), dtype=F64)
    changed = z.clone()
    changed[0, 0, 8, size // 2, size // 2] += 1
    with torch.no_grad():
        change = (network(changed) - network(z)).abs()
    return ((change / change.max() + 1e-12).log10() / 6 + 1).clamp(0, 1)


# %%
class WrongTemporalAttention(OurTemporalAttention):
    fold = Reshaped.fold                                                         # the one wrong line


def wrong_line(network):
    """A copy with the same weights in which every temporal attention reshapes without permuting."""
    network = copy.deepcopy(network)
    for stage in network.modules():
        if isinstance(stage, Stage) and stage.time is not None:
            right = stage.time
            wrong = WrongTemporalAttention(right.norm.num_channels, SMALL.head_dim, right.max_distance).double()
            wrong.load_state_dict(right.state_dict())
            stage.time = wrong
    return network


# %%
# convolutions, and attention over time at the coarser level; none over space
ONE = replace(SMALL, space=(False, False), time=(False, True), max_distance=15)
by_frame = randomize(UNet(replace(ONE, time=(False, False)))).double().eval()
in_time = randomize(UNet(ONE)).double().eval()
wrong = wrong_line(in_time)
maps = [change_map(lambda z: by_frame(z, log_snr)), change_map(randomize(Stack3D(3)).double()),
        change_map(lambda z: in_time(z, log_snr)), change_map(lambda z: wrong(z, log_snr))]
names = ["frame by frame", "3 layers of\n3D convolution", "with attention\nover time", "reshape without\npermute"]
show.play(torch.cat(maps), names, scale=4, path=outputs() / "05_who_sees_whom.gif")

# %%
show.film_strip(torch.cat(maps), names, title="one pixel of frame 8 changed: where the output changes",
                xlabel="frame 0 to 15")

# %%
# NBVAL_CHECK_OUTPUT
for name, picture in zip(names, maps):
    frames_lit = picture[0, 0].amax((1, 2)).gt(0).sum()
    print(f"{name.replace(chr(10), ' '):32s} frames reached: {int(frames_lit):2d}")

# %% [markdown]
# Attention over time reaches *all* frames at once. As this network has no attention over space, the change stays mostly around its own place: that is what factorized means. (The faint grey elsewhere is group norm, whose statistics run over the places of a frame.)
# Counting frames does not find the wrong line, nor does a shape or an error. Its map gives it away: a stripe across the picture.
#
# ## 8. What are neighbours worth?
# Now the trained network. The same noisy test frames are denoised in pieces: 16 clips of one frame, 8 of two, ..., one of 16. We print the loss that this network was trained on (lesson 02: it predicts $v = \alpha\epsilon - \sigma x$). Its size depends on the noise level, so compare along a row. (Clips of 16 frames and single images were in training, lesson 07 says why; clips of 2 to 8 frames were not.) **Predict:** at which noise level do neighbours help most?

# %%
N = {"smoke": 8}.get(BUDGET, 32)
LEVELS, LENGTHS = [-6.0, -3.0, 0.0, 4.0], [1, 2, 4, 8, 16]
video, cond = batch.video[:N], model.encode(batch.captions[:N])


def error(x, eps, level, length, c):
    """Mean v-loss when clips (B, 1, 16, H, W) are denoised in pieces of `length` frames."""
    x, eps = (rearrange(a, "b c (n t) h w -> (b n) c t h w", t=length) for a in (x, eps))
    log_snr, c = torch.full((len(x),), level), c.repeat_interleave(16 // length, dim=0)
    z = q_sample(x, log_snr, eps)
    with torch.no_grad():
        output = torch.cat([model.net(a.to(DEVICE), b.to(DEVICE), d).cpu()
                            for a, b, d in zip(z.split(16), log_snr.split(16), c.split(16))])
    return float(loss_per_sample(output, x, eps, log_snr, model.prediction).mean())


# %%
noise = torch.randn(video.shape, generator=generator(11))
table = {level: [error(video, noise, level, length, cond) for length in LENGTHS] for level in LEVELS}
print("frames seen at once  " + "".join(f"{n:8d}" for n in LENGTHS))
for level, row in table.items():
    print(f"log-SNR {level:4g}         " + "".join(f"{value:8.4f}" for value in row)
          + f"   16 against 1: {row[-1] / row[0] - 1:+.0%}")

# %%
# NBVAL_CHECK_OUTPUT
left = {level: row[-1] / row[0] for level, row in table.items()}                 # of one frame's error, by 16
print("at log-SNR -3 and 0, eight frames beat four, and sixteen beat eight:", all(a > b for level in (-3.0, 0.0) for a, b in zip(table[level][2:], table[level][3:])))
print("sixteen frames leave less than 0.8 of the error of one:", left[-3.0] < 0.8)
print("and help less at the ends, -6 and 4:", min(left[-6.0], left[4.0]) > left[-3.0])

# %% [markdown]
# Neighbours help most in the middle. (Pieces of two or four frames can do *worse* than single frames: the network was trained on sixteen and on one, never on these.) Under very strong noise even sixteen frames show little, and when hardly any noise is left one frame is nearly enough. The schedule of this series spends less of its training where one frame is nearly enough, and more in strong noise, around −3, where neighbours help and motion is decided ([lesson 06, section 4](06_video_diffusion_models.ipynb#4.-v-prediction-and-the-noise-schedule)).
#
# **Break it.** The same frames and the same noise, shuffled; and backwards. **Predict** both before you run:

# %%
shuffle = torch.randperm(16, generator=generator(12))
ways = {"as filmed": torch.arange(16), "backwards": torch.arange(15, -1, -1), "shuffled": shuffle}
broken = {name: [error(video[:, :, way], noise[:, :, way], level, 16, cond) for level in LEVELS]
          for name, way in ways.items()}
broken["each frame alone"] = [table[level][0] for level in LEVELS]
print("log-SNR           " + "".join(f"{level:8g}" for level in LEVELS))
for name, row in broken.items():
    print(f"{name:18s}" + "".join(f"{value:8.4f}" for value in row))

# %%
# NBVAL_CHECK_OUTPUT
forwards, backwards, shuffled, alone = broken.values()
print("shuffled frames mislead it, at log-SNR 0 more than seeing none:", shuffled[2] > alone[2])
print("backwards is as good as forwards, within 3%:", all(abs(b / a - 1) < 0.03 for a, b in zip(forwards, backwards)))

# %% [markdown]
# <details><summary>Why backwards does no harm</summary>
#
# A bouncing digit filmed backwards is a bouncing digit ([lesson 04](04_moving_mnist.ipynb) uses backwards clips as the control that should pass), and these captions name digits only; words for directions would tell the two apart. So this test shows that the network uses which frames are *near*, not which came first. Shuffled frames
# break a rule that does hold here: a digit is near where it just was. A network that relies on it is misled: wrong neighbours can be worse than none, most of all where the noise leaves a single frame half readable.
# </details>
#
# ## 9. Play
# Choose a frame, a place and a noise level; the trained network is given a noisy clip with a patch around that place brightened, and you see where its prediction of the clean clip changes (as a square root, so that small changes show). (Below is one setting as a static picture.)

# %%
frame = 6  #@param {type:"slider", min:0, max:15, step:1}
row = 12  #@param {type:"slider", min:2, max:29, step:1}
column = 20  #@param {type:"slider", min:2, max:29, step:1}
level = -2.0  #@param {type:"slider", min:-8, max:6, step:1}


def moved(level):
    """How much the prediction of the clean clip moves, (1, 1, T, H, W)."""
    at = torch.tensor([float(level)])
    z = q_sample(video[:1], at, noise[:1]).to(DEVICE)
    touched = z.clone()
    touched[0, 0, frame, row - 2:row + 3, column - 2:column + 3] += 1
    with torch.no_grad():
        before, after = (model.predict_x(a, at.to(DEVICE), cond[:1]).cpu() for a in (z, touched))
    return (after - before).abs()


change = moved(level)
show.film_strip(torch.cat([(video[:1] + 1) / 2, (change / change.amax()).sqrt()]), ["the clip", "what moves"],
                title=f"a patch of frame {frame} brightened, log-SNR {level:g}", xlabel="frame 0 to 15")

# %% [markdown]
# **Predict, then run:** what share of the change is in the touched frame itself, from weak noise to strong?

# %%
for at in (4, 2, 0, -2, -4, -6):
    change = moved(at)
    print(f"log-SNR {at:2d}: {change[0, 0, frame].sum() / change.sum():4.0%} of the change is in frame {frame}; "
          f"the largest anywhere is {change.amax():.2f}")

# %% [markdown]
# With little noise a frame speaks for itself. The more noise there is, the less one frame decides, and its effect is spread over the clip: an equal share would be 1/16, or 6%.

# %% [markdown]
# ## 10. The whole network's price
# What do the layers over time add to the network of section 7?

# %%
# NBVAL_CHECK_OUTPUT
shape, config = video_recipe.sample_shape, video_recipe.net
with_time, without = measure(config, shape), measure(replace(config, time=(False,) * len(config.time)), shape)
for what, a, b in (("parameters", with_time.parameters, without.parameters), ("FLOPs", with_time.flops, without.flops),
                   ("activations kept", with_time.saved_bytes, without.saved_bytes)):
    print(f"attention over time adds {a / b - 1:.0%} to the {what}")

# %% [markdown]
# Now compare public networks for the same clips, measured in one run on one machine, taking turns (`python tests/benchmark_networks.py`). They are factorized or pseudo-3D, too: they differ mostly in width, and in the levels that attend. Ours is sized for a free GPU.

# %%
speed = json.loads((ASSETS / "results" / "network-speed.json").read_text())
print(f"{speed['device']}, {speed['precision']}, batch {speed['batch_size']}, one clip of 16 frames of 32x32")
print(f"{'':38s}{'parameters':>11s}{'GFLOP':>8s}{'MiB kept':>10s}{'training clips/s':>18s}")
first = next(iter(speed["rows"].values()))
for name, r in speed["rows"].items():
    clips, times = r["train_clips_per_second"], first["train_clips_per_second"] / r["train_clips_per_second"]
    print(f"{name:38s}{r['parameters'] / 1e6:10.2f}M{r['gflop_per_clip']:8.1f}{r['saved_activations_mib']:10.0f}"
          f"{clips:12.2f}" + (f"  (1/{times:.0f})" if times > 1 else ""))

# %% [markdown]
# ## 11. Train it
# The recipe `vdm`: no captions; the network of section 7; behind each clip eight single images that the clip cannot see ([lesson 07](07_joint_training.ipynb) says why); v-prediction and the cosine schedule of lesson 02, its middle moved towards strong noise ([lesson 06, section 4](06_video_diffusion_models.ipynb#4.-v-prediction-and-the-noise-schedule)). The grey band is the range of an earlier run of this length. If the session stops, run the cell again: it resumes from its last checkpoint, at most half a minute old.

# %%
trainer = Trainer(video_recipe, video_recipe.budget(BUDGET), device=DEVICE)
show.train_live(trainer, f"05_{BUDGET}", lambda model: model.sample(num=4, steps=8), updates=3)
print(f"training FLOPs: {trainer.provenance()['flops']:.2g}")

# %%
# NBVAL_CHECK_OUTPUT
with torch.no_grad():
    print("loss on the first batch, same noise, fell:", bool(trainer.loss(0) < trainer.history[0]))

# %%
STEPS = {"smoke": 6}.get(BUDGET, 32)
shipped = load_pretrained("vdm", device=DEVICE, amp="auto")
clips = torch.cat([trainer.model().sample(num=3, steps=STEPS, seed=2), shipped.sample(num=3, steps=STEPS, seed=2)])
before = load_pretrained("vdm-text", device="cpu").trained_steps
names = [f"yours, {trainer.step} steps"] * 3 + [f"shipped, {before:,} steps\nwith captions,\n{shipped.trained_steps:,} without"] * 3
show.film_strip(clips, names, every=2, title="same noise, your weights and the shipped ones")

# %%
show.play(clips, names, columns=3, scale=4, path=outputs() / "05_clips.gif")

# %% [markdown]
# Yours have had minutes, so look for moving blobs. The shipped weights started from those of `vdm-text` (lesson 06): their digits move well, but keep their shape less well. A digit may turn into another on its way. Is it too little training, or a bug? The probe of section 7 tells, on the trained network itself:

# %%
# NBVAL_CHECK_OUTPUT
probed = copy.deepcopy(shipped.net).double().cpu()
print("vdm, trained: changing frame 3 moves", who_moves(lambda z: probed(z, log_snr), size=32))


# %% [markdown]
# Every frame is reached, so no connection is missing. (This probe cannot say whether training, width or the sampler is to blame.) When *your* network disappoints:
#
# | if it looks like this | then look at |
# |---|---|
# | the frames of a clip have nothing to do with each other | attention over time: missing, or never reached (lesson 06, section 3, removes it) |
# | a change in the input comes out at places that have nothing to do with it | a reshape without a permute (section 7) |
# | clips play as well backwards as forwards although they should not | positions: `max_distance=0`, or tables that are never trained (section 7) |
# | out of memory for long clips only | $T^2$ weights at a fine level, which are kept (section 5): attend over time at coarser levels |
#
# ## 12. Faithful? The box
#
# | the paper says | we do | why |
# |---|---|---|
# | 3×3 convolutions become 1×3×3 | the same, computed as 2D | section 6: equal |
# | attention over space, frames as batch; after each, attention over time, space as batch | the same | |
# | relative position embeddings | the same, after Shaw et al. 2018, for keys and values | cited there; the distance at which positions are clipped is unstated, here T − 1 |
# | no convolution over time, no change of frame rate inside | the same | lesson 09 adds temporal convolutions, for the other paper |
# | attention at 8, 16 and 32 of 64 pixels | at 8 and 4 of 32 pixels | the two coarsest levels; what else was tried is in the [table of shapes](../assets/results/README.md#shapes) |
# | normalisation unstated | group norm, statistics of one frame | statistics over frames would let images packed with a clip leak (lesson 07) |
# | base width 128 to 256, multiplied by up to 8 | base width 16, at most 128 | a free GPU |
#
# ## 13. Exercises
# Each has a stub that runs as it is, and folded below it a check, a hint and a solution. An untouched stub lets a reference answer take over; a wrong answer is shown as wrong.
#
# ### Exercise 1 · When does factorizing pay? (difficulty ●●○, importance ●●○, 10 minutes)
# How many times more pairs does attention over everything compare than the factorized form? Return that ratio for `t` frames of `h` by `w` places, and the limit that it approaches, but never passes, as `t` grows. The shorthand $N = H W$ may help.

# %%
def saving(t, h, w):
    """-> (ratio for t frames, limit of the ratio as t grows)."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_saving(t, h, w):
    n = h * w
    return t * n / (n + t), float(n)


saving = check("exercise 1", saving, reference_saving, (16, 8, 8), (5, 6, 9), (16, 32, 32), (1, 8, 8))
print("16 frames of 8x8:", saving(16, 8, 8), "  of 32x32:", saving(16, 32, 32))


# %% [markdown]
# <details><summary>Hint</summary>Section 3 has both counts. Divide, and cancel t N from numerator and denominator.</details>
# <details><summary>Solution</summary>
#
# ```python
# n = h * w
# return t * n / (n + t), float(n)
# ```
#
# It pays from two frames on, as soon as there are more than two places; for a single frame it compares a little more (the ratio is 64/65 at 8×8). On large frames (N much larger than T) it saves a factor of about T, and never more than N.
# </details>
#
# ### Exercise 2 · Reaching far (difficulty ●●○, importance ●●○, 10 minutes)
# A stack of convolutions over time has kernel size `kernel` and a list of dilations: a layer with dilation `d` looks at frames that are `d` apart. On *how many* input frames does one output frame depend, in a clip that is long enough? (Attention: all, after one layer.)

# %%
def frames_seen(kernel, dilations):
    """kernel: odd; dilations: one a layer -> number of input frames that an output frame depends on."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_frames_seen(kernel, dilations):
    seen = {0}
    for d in dilations:
        seen = {frame + d * j for frame in seen for j in range(-(kernel // 2), kernel // 2 + 1)}
    return len(seen)


frames_seen = check("exercise 2", frames_seen, reference_frames_seen,
                    (3, [1]), (3, [1, 1, 1]), (3, [1, 2, 4]), (3, [2, 2]), (5, [3]), (1, [1, 1]), (3, []))


# %% [markdown]
# <details><summary>Hint</summary>Keep a set of frames, starting with {0}; each layer adds to every frame in it those that are d, 2d, ... before and after.</details>
# <details><summary>Solution</summary>
#
# ```python
# seen = {0}
# for d in dilations:
#     seen = {frame + d * j for frame in seen for j in range(-(kernel // 2), kernel // 2 + 1)}
# return len(seen)
# ```
#
# With dilations 2 and 2 there are holes: five frames, spread over nine. And kernel 1 sees one frame, however many layers there are: a "temporal convolution" of that kind has been published.
# </details>
#
# ### Exercise 3 · Positions by rotation (difficulty ●●●, importance ●●○, 15 minutes)
# Newer models rotate queries and keys instead (RoPE, Su et al. 2021): in frame `t`, the `i`-th pair of numbers, `(x[..., t, 2*i], x[..., t, 2*i+1])`, is turned by the angle `t * 10000 ** (-2 * i / d)`. Turning both and taking the product leaves the difference of the angles, so the logit of two frames depends on their distance alone. Write it.

# %%
def rotate(x):
    """x (..., T, d) with even d -> the same shape; pair i of frame t turned by t * 10000 ** (-2 i / d)."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_rotate(x):
    t, d = x.shape[-2:]
    angle = torch.arange(t, dtype=x.dtype)[:, None] * 10000 ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1).flatten(-2)


some = torch.randn(2, 5, 8, generator=generator(20), dtype=torch.float64)
rotate = check("exercise 3", rotate, reference_rotate, (some,), (torch.ones(3, 4, dtype=torch.float64),))

# %%
# NBVAL_CHECK_OUTPUT
q, k = torch.randn(2, 1, 16, generator=generator(21), dtype=F64)                 # the same in each of 12 frames
logits = rotate(q.expand(12, 16)) @ rotate(k.expand(12, 16)).mT
spread = [logits.diagonal(d).std(correction=0) for d in range(-11, 12)]
print("the logit depends on j - i alone:", bool(max(spread) < 1e-9))

# %% [markdown]
# <details><summary>Hint</summary>A turn of (a, b) by an angle is (a cos − b sin, a sin + b cos). Even entries are `x[..., 0::2]`, odd ones `x[..., 1::2]`.</details>
# <details><summary>Solution</summary>
#
# ```python
# t, d = x.shape[-2:]
# angle = torch.arange(t, dtype=x.dtype)[:, None] * 10000 ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)
# a, b = x[..., 0::2], x[..., 1::2]
# return torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1).flatten(-2)
# ```
#
# Nothing is added to the values, so fused attention kernels can be used: one reason why RoPE has replaced learnt relative positions.
# </details>
#
# ## 14. Quiz
# 1. Why does the probe use random weights, and why does it insist that the output varies?
# 2. Changing frame 3 moves all frames, in the right layer and in the one without the permute. How do you tell them apart?
# 3. With `max_distance=15`, what does *one* layer of temporal attention know about frames 0 and 20 of a clip of 24?
# 4. Attention over time at 32×32 compares few pairs: 1024 places times 16². Why is it not free?
#
# <details><summary>Answers</summary>
#
# 1. A fresh network ends in zeros: nothing would move, and a leak would stay hidden. Random weights let every path show.
# 2. Look at *where* the change lands: at its own place only, if the layer is right. The copy test misses a reshape in both directions.
# 3. That they are at least 15 apart, in which direction, but not how far. (Two layers can find out, by way of a frame in between.)
# 4. Queries, keys, values and output are computed, and *kept* for the backward pass, for 1024 places in each of 16 frames, and so are the weights.
# </details>
#
# ## What was shown, and what was not
# Shown: who sees whom, in which order, at what price, and what neighbours are worth to a trained network.
# Not shown: that this block is the *best* one at this price (the [table of shapes](../assets/results/README.md#shapes) compares seven networks, one of them with two schedules, at equal FLOPs, by their losses); captions (lesson 06); images beside clips (lesson 07); a temporal convolution (lesson 09).
#
# ## Readings
# - Ho, Salimans, Gritsenko, Chan, Norouzi, Fleet, *Video Diffusion Models*, 2022 (arXiv 2204.03458): section 3, the network on one page.
# - Shaw, Uszkoreit, Vaswani, *Self-Attention with Relative Position Representations*, 2018 (arXiv 1803.02155): the two tables.
# - Bertasius, Wang, Torresani, *Is Space-Time Attention All You Need for Video Understanding?*, 2021 (arXiv 2102.05095): joint against divided attention, for recognition.
# - Su, Lu, Pan, Murtadha, Wen, Liu, *RoFormer*, 2021 (arXiv 2104.09864): rotations instead of tables.
