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
# # 09 · Pseudo-3D layers
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/video-diffusion-lessons/video-diffusion-lessons/blob/main/lessons/09_pseudo_3d_layers.ipynb)
#
# ![Two captions, four networks: an image network frame by frame, the same with random layers over time, with pseudo-3D layers after a short training, and after a long one](../assets/figures/09_pseudo_3d.gif)
#
# **Claim: a network trained on pictures can be turned into a network for video without losing anything. New layers between the frames are initialised to do nothing yet: at first every frame comes out as the image network draws it, proven here for the whole trained network, to ten decimals. Started at random, the same layers destroy all that the network knew.**
# Then they learn. A convolution over time lets a frame hear its two neighbours; attention over time lets it hear all frames.
#
# (Above: one row per caption, the same noise in all. Left to right: the image network, frame by frame; with random layers over time; with pseudo-3D layers, after the short training of this lesson; the shipped `mav` of lesson 10.)
#
# You will be able to
# - write the pseudo-3D convolution and attention of *Make-A-Video* (Singer et al. 2022, section 3.2), equal to those in `utils` on the same weights;
# - start a new layer so that it does nothing yet and learns all the same, and say which parameters learn first;
# - prove with a probe how far a layer hears, and catch a "temporal" convolution that hears nobody;
# - turn any trained image network into a video network and prove that nothing was lost.
#
# | reading | exercises | machine: T4 (estimate) / two CPU cores |
# |---|---|---|
# | 35 minutes | 25 minutes | 2 / 3 minutes |
#
# **The series:** [01 DDPM](01_ddpm_on_mnist.ipynb) → [02 schedules and fast samplers](02_fast_samplers.ipynb) → [03 guidance](03_guidance.ipynb) → [04 Moving MNIST](04_moving_mnist.ipynb) → [05 the factorized 3D U-Net](05_factorized_unet.ipynb) →
# [06 Video Diffusion Models](06_video_diffusion_models.ipynb) → [07 joint training](07_joint_training.ipynb) → [08 reconstruction guidance](08_reconstruction_guidance.ipynb) → **09 pseudo-3D layers (you are here)** → [10 Make-A-Video](10_make_a_video.ipynb) → [11 frame interpolation](11_frame_interpolation.ipynb) → [12 super-resolution](12_super_resolution.ipynb) → [13 scaling up](13_scaling_up.ipynb).
# This lesson rests on [attention over time](05_factorized_unet.ipynb#5.-Which-frame-came-first?) and its probes (lesson 05), [the network](01_ddpm_on_mnist.ipynb#5.-The-network,-in-under-100-lines) of lesson 01 and [guidance](03_guidance.ipynb) (lesson 03). Symbols: [glossary](glossary.md).

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
import copy, math
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from dataclasses import replace
from einops import rearrange
from torch import nn
from tqdm import tqdm
from utils import load_pretrained, show
from utils.compare import start_at_random
from utils.cost import cost, count
from utils.data import MovingMNIST
from utils.diffusion import q_sample, to_x
from utils.exercises import check
from utils.layers import Convolution, SpatialAttention, TemporalAttention, TemporalConvolution, over_clips
from utils.recipes import Budget, recipe
from utils.runtime import budget, generator, outputs, pick_device, randn_per_sample
from utils.samplers import guided_denoiser, sample_loop
from utils.train import Trainer
from utils.unet import Stage, UNet, inflate, new_over_time, randomize

BUDGET, DEVICE = budget(), pick_device()
STEPS = {"smoke": 2, "cpu": 16}.get(BUDGET, 32)
TRAIN = {"smoke": Budget(3, 2), "cpu": Budget(60, 4)}.get(BUDGET, Budget(300, 16))
F64 = torch.float64                                                        # proofs and probes: double precision, on the CPU
torch.manual_seed(0);

# %% [markdown]
# ## 1. Why start from images?
# Lesson 06 trained on clips with captions. Moving MNIST has such clips because we made them; the real world has few. It has captioned *pictures* by the billion, and videos that nobody described. A model that knows from pictures what things look like and what they are called only has to learn time. And pictures are cheap:

# %%
picture, clip = cost(recipe("mav-image")), cost(replace(recipe("vdm-text"), num_images=0))
ratio = clip["gflop_per_sample"] / picture["gflop_per_sample"]
print(f"training on one picture: {picture['gflop_per_sample']:.2f} GFLOP; on one clip of 16 frames: {clip['gflop_per_sample']:.2f}, {ratio:.0f} times as much")
assert ratio > 16

# %% [markdown]
# So take `mav-image`, a text-to-image network: the U-Net of lesson 06 without its layers over time, trained on captioned pictures. A clip folds into it, with frames as a batch. Here is the network frame by frame, and a sampler for any network on clips:

# %%
image = load_pretrained("mav-image", device=DEVICE)
schedule, G = image.recipe.schedule, image.recipe.guidance_scale
captions = ["3 and 7", "0 and 1"]


def frame_by_frame(net):
    """A network for clips that gives every frame to `net` by itself."""
    def run(z, log_snr, cond=None):                                        # (B, C, T, H, W), (B,), (B, D)
        t = z.shape[2]
        cond = None if cond is None else cond.repeat_interleave(t, dim=0)
        out = net(rearrange(z, "b c t h w -> (b t) c 1 h w"), log_snr.repeat_interleave(t), cond)
        return rearrange(out, "(b t) c 1 h w -> b c t h w", t=t)
    return run


# %%
def clips_of(network, captions=captions, steps=STEPS):
    """Clips (N, 1, 16, H, W) in [0, 1], from the same noise whatever the network."""
    z = randn_per_sample((1, 16, 32, 32), [generator(0, i) for i in range(len(captions))]).to(DEVICE)
    denoise = guided_denoiser(network, image.encode(captions), G, "v")
    with torch.no_grad():
        *_, state = sample_loop(denoise, z, schedule.log_snr(schedule.times(steps)))
    return (state.z.clamp(-1, 1).cpu() + 1) / 2


# %%
apart = clips_of(frame_by_frame(image.net))
show.film_strip(apart, captions, title=f"the image network, frame by frame ({image.trained_steps:,} training steps, shipped)")


# %% [markdown]
# Sixteen pictures, some of them showing what was asked for, but no clip: nothing tells frame 5 what frame 4 looks like. The network needs layers over time. What should they be *before* they are trained?
#
# ## 2. The naive way: new layers, as they come
# Two obvious ways. **(a)** Make each 3×3 convolution a 3×3×3 one. **(b)** Keep the 3×3 convolutions, put a convolution over time after each, and attention over time after attention over space. Either way, new layers start as PyTorch initialises them: at random. The others get the trained weights, by name.
#
# First two helpers, to copy weights by name and to put 3D convolutions in place; then the two networks:

# %%
def copy_by_name(net, image_net):
    """Give `net` every weight that `image_net` has."""
    own = net.state_dict()                                                 # the tensors themselves, not copies
    with torch.no_grad():
        for name, tensor in image_net.state_dict().items():
            own[name].copy_(tensor)
    return net.eval().requires_grad_(False)


# %%
class InPlace(nn.Conv3d):
    """(a): a random 3x3x3 convolution where a trained 3x3 one was."""
    def __init__(self, old):
        super().__init__(old.in_channels, old.out_channels, 3, stride=(1, *old.stride), padding=1)

    def forward(self, x, num_frames=1, num_images=0):                      # (B*T, C, H, W)
        clip = rearrange(x, "(b t) c h w -> b c t h w", t=num_frames)
        return rearrange(super().forward(clip), "b c t h w -> (b t) c h w")


def in_3d(net):
    """A copy of a network with every 3x3 convolution replaced."""
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Convolution):
                setattr(parent, name, InPlace(child))
    return net


# %%
new_3d = in_3d(image.net).to(DEVICE)                                       # (a)
at_random = copy_by_name(UNet(recipe("mav").net).to(DEVICE), image.net)    # (b)
start_at_random(at_random, seed=0)                                         # PyTorch's default weights in the layers over time

# %% [markdown]
# **Predict:** every 2D weight of (b) is the trained one. Does it still draw digits?

# %%
naive = {"frame by frame": apart, "(a) 3D in place": clips_of(new_3d, captions[:1]), "(b) random layers over time": clips_of(at_random)}
show.film_strip(torch.cat([clips[:1] for clips in naive.values()]), list(naive), title=f"{captions[0]}, the same noise: what random layers do to a trained network")


# %% [markdown]
# <details><summary>What happened</summary>
#
# Nothing is left, in (a) or in (b). In (a) the trained kernels are gone. In (b) they are all there, but each is followed by a layer that mixes all channels with random numbers, so the next trained layer gets features that it has never seen. Training would have to learn time *and* undo this. The knowledge is in the weights, but out of reach.
# </details>
#
# ## 3. The fix: a layer that does nothing yet
# A **pseudo-3D convolution** is a 2D convolution $W$ within each frame, then a 1D convolution over time at each place, with kernel $K$ of three frames:
#
# $$y_t = W * x_t + b, \qquad u_t = K_{-1}\, y_{t-1} + K_0\, y_t + K_{+1}\, y_{t+1} + b'$$
#
# Each $K$ is a matrix over channels. Now choose the start: $K_0 = I$, $K_{-1} = K_{+1} = 0$, $b' = 0$. Then $u_t = y_t$, **exactly**. As a kernel over time that is $(0, 1, 0)$ from each channel to itself, and zero from each channel to the others: the *Dirac* weight.
#
# | | pattern | shape |
# |---|---|---|
# | clip $x$ | `b c t h w` | (B, C, T, H, W) |
# | for the 2D convolution $W$ | `(b t) c h w` | frames are batch |
# | for the 1D convolution $K$ | `(b h w) c t` | places are batch |
# | weight of $K$ | | (C, C, 3) |

# %%
class Pseudo3DConvolution(nn.Conv2d):
    """3x3 within each frame, then a convolution over three frames at each place, which starts as the identity."""
    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.time = nn.Conv1d(out_channels, out_channels, 3, padding=1)
        nn.init.dirac_(self.time.weight)
        nn.init.zeros_(self.time.bias)

    def forward(self, x):                                                  # (B, C, T, H, W)
        b, _, t, h, _ = x.shape
        y = super().forward(rearrange(x, "b c t h w -> (b t) c h w"))
        u = self.time(rearrange(y, "(b t) c h w -> (b h w) c t", t=t))
        return rearrange(u, "(b h w) c t -> b c t h w", b=b, h=h)


def difference(a, b):
    """The largest difference between two tensors, after making sure that there is something to see."""
    assert a.std() > 1e-3, "constant: nothing to see"
    return float((a - b).detach().abs().max())


# %%
# NBVAL_CHECK_OUTPUT
theirs = randomize(Convolution(4, 6, pseudo_3d=True)).double()
ours = Pseudo3DConvolution(4, 6).double()
ours.load_state_dict(theirs.state_dict())                                  # the same names, too
x = torch.randn(2, 4, 7, 5, 6, generator=generator(1), dtype=F64)
folded = theirs(rearrange(x, "b c t h w -> (b t) c h w"), 7)
print("ours equals utils', random weights:", difference(ours(x), rearrange(folded, "(b t) c h w -> b c t h w", t=7)) < 1e-12)
fresh = Pseudo3DConvolution(4, 6).double()
by_frame = F.conv2d(rearrange(x, "b c t h w -> (b t) c h w"), fresh.weight, fresh.bias, padding=1)
print("fresh, it is the 2D convolution of every frame, exactly:", difference(fresh(x), rearrange(by_frame, "(b t) c h w -> b c t h w", t=7)) == 0)

# %% [markdown]
# **What is given up?** A 2D convolution followed by a 1D one is a 3D convolution: its kernel is their product, $\text{kernel}_{k} = K_k W$, for $k = -1, 0, 1$. But not every 3D kernel is such a product. Check it away from the ends of the clip (section 6 is about the ends):

# %%
# NBVAL_CHECK_OUTPUT
kernel = torch.einsum("o m k, m i h w -> o i k h w", theirs.time.weight, theirs.weight)
bias = theirs.time.weight.sum(2) @ theirs.bias + theirs.time.bias
as_3d = F.conv3d(x, kernel, bias, padding=1)
print("kernel", tuple(kernel.shape), "  the same, away from the ends:", difference(as_3d[:, :, 1:-1], ours(x)[:, :, 1:-1]) < 1e-12)
start = torch.einsum("o m k, m i h w -> o i k h w", fresh.time.weight, fresh.weight)
print("at the start: the 2D kernel in the middle", bool(torch.equal(start[:, :, 1], fresh.weight)), "  zeros beside it", bool((start[:, :, [0, 2]] == 0).all()))


# %% [markdown]
# So a full 3D convolution can start right, too: the 2D kernel in the middle slice, zeros beside it. The identity start is thus no argument for the pseudo-3D form. Two others are: it is cheaper (section 5), and the image weights $W$ stay apart from the new ones. So $W$ can be *frozen* (kept as it is while the rest is trained), and pictures can bypass the new layers (section 7).
#
# ## 4. Attention that does nothing yet
# **Pseudo-3D attention**: attention over space as trained, then attention over time as in lesson 05, with a shortcut:
#
# $$u = y + W_{\text{out}}\,\operatorname{attention}_{\text{time}}(y), \qquad W_{\text{out}} = 0 \text{ at the start}$$
#
# Queries, keys, values and positions may be anything. The projection at the end multiplies all of it by zero.

# %%
class Pseudo3DAttention(nn.Module):
    """Attention over space, then over time, which starts as the identity."""
    def __init__(self, channels, head_dim, max_distance):
        super().__init__()
        self.space = SpatialAttention(channels, head_dim)                  # lesson 01
        self.time = TemporalAttention(channels, head_dim, max_distance)    # lesson 05: x + out(...)
        nn.init.zeros_(self.time.out.weight)
        nn.init.zeros_(self.time.out.bias)

    def forward(self, x):                                                  # (B, C, T, H, W)
        t = x.shape[2]
        y = self.space(rearrange(x, "b c t h w -> (b t) c h w"))
        return rearrange(self.time(y, t), "(b t) c h w -> b c t h w", t=t)


# %%
# NBVAL_CHECK_OUTPUT
config = recipe("mav").net
stage = randomize(Stage(32, 32, space=True, time=True, config=config)).double()   # utils': residual block, then the two
ours = Pseudo3DAttention(32, config.head_dim, config.max_distance).double()
ours.load_state_dict({name: tensor for name, tensor in stage.state_dict().items() if not name.startswith("residual")})
x, embedding = torch.randn(12, 32, 3, 4, generator=generator(2), dtype=F64), torch.randn(12, config.embed_dim, generator=generator(3), dtype=F64)
residual = rearrange(stage.residual(x, embedding, 6), "(b t) c h w -> b c t h w", t=6)
theirs = rearrange(stage(x, embedding, 6, None), "(b t) c h w -> b c t h w", t=6)
print("ours equals utils', random weights:", difference(ours(residual), theirs) < 1e-12)
for parameter in (ours.time.out.weight, ours.time.out.bias):
    nn.init.zeros_(parameter)
alone = ours.space(rearrange(residual, "b c t h w -> (b t) c h w"))
print("output projection zero: attention over space, frame by frame, exactly:", difference(rearrange(alone, "(b t) c h w -> b c t h w", t=6), ours(residual)) == 0)

# %% [markdown]
# ## 5. The price
# One convolution of 64 channels over a clip of 16 frames of 16×16, in three forms. FLOPs of forward and backward pass; a multiplication and an addition count as two. **Predict:** 3×3 has 9 weights for each pair of channels, 3×3×3 has 27. And pseudo-3D?

# %%
one = {"2D, frame by frame": nn.Conv3d(64, 64, (1, 3, 3), padding=(0, 1, 1)), "pseudo-3D": Pseudo3DConvolution(64, 64), "3D, 3x3x3": nn.Conv3d(64, 64, 3, padding=1)}
x = torch.zeros(1, 64, 16, 16, 16, requires_grad=True)                     # as in the middle of a network: a gradient goes on from here
price = {name: count(layer, lambda: layer(x)) for name, layer in one.items()}
base = price["2D, frame by frame"]
for name, p in price.items():
    print(f"{name:20s}{p.parameters:9,} parameters ({p.parameters / base.parameters:.2f} times 2D)   "
          f"{p.flops / 1e9:6.2f} GFLOP ({p.flops / base.flops:.2f} times)   {p.saved_bytes / 2**20:5.1f} MiB kept")

# %%
# NBVAL_CHECK_OUTPUT
flat, pseudo, full = price.values()
print("pseudo-3D costs less than half of 3D:", pseudo.parameters < 0.5 * full.parameters and pseudo.flops < 0.5 * full.flops)
print("and less than 1.4 times as much as 2D:", pseudo.parameters < 1.4 * flat.parameters and pseudo.flops < 1.4 * flat.flops)
print("it keeps more for the backward pass than 3D:", pseudo.saved_bytes > full.saved_bytes)

# %% [markdown]
# In all, 12 weights for each pair of channels, against 9 and 27. As in lesson 05, the price is paid in memory: the result between the two convolutions is kept. The whole network:

# %%
z, level = torch.zeros(1, 1, 16, 32, 32), torch.zeros(1)
whole = {"image network, frame by frame": UNet(image.recipe.net), "pseudo-3D (mav)": UNet(config), "3D in place, no attention over time": in_3d(UNet(image.recipe.net))}
for name, net in whole.items():
    p = count(net, lambda: net(z, level))
    print(f"{name:36s}{p.parameters / 1e6:6.2f}M parameters   {p.flops / 1e9:6.2f} GFLOP a clip")


# %% [markdown]
# ## 6. Who hears whom
# Now leave the identity start: give the layers random weights, as after training, and ask what each new layer adds. **Predict:** frame 5 of a clip is changed. Which frames move after one pseudo-3D convolution? After two, four? After attention over time?
#
# Two probes must agree. *Who moves*: change frame 5 of the input, and see which frames of the output move. *Who is heard*: find by autograd on which frames of the input frame 5 of the output depends.

# %%
def who_moves(layer, frame=5, t=11):
    """layer: (T, C, H, W) -> the same. Frames of the output that move when this frame of the input does."""
    x = torch.randn(t, 16, 2, 3, generator=generator(4), dtype=F64)
    changed = x.clone()
    changed[frame] += torch.randn(16, 2, 3, generator=generator(5), dtype=F64)
    before, after = layer(x).detach(), layer(changed).detach()
    assert before.std() > 1e-3
    return [k for k in range(t) if (after - before)[k].abs().max() > 1e-9]


def slopes(layer, t=16):
    """(T, T): how strongly frame i of the output depends on frame j of the input."""
    x = torch.randn(t, 16, 2, 3, generator=generator(4), dtype=F64, requires_grad=True)
    out = layer(x)
    weights = torch.randn(out[0].shape, generator=generator(6), dtype=F64)
    rows = [torch.autograd.grad((out[i] * weights).sum(), x, retain_graph=True)[0].abs().amax((1, 2, 3)) for i in range(t)]
    return torch.stack(rows)


def heard(layer, frame=5, t=11):
    return [k for k, slope in enumerate(slopes(layer, t)[frame]) if slope > 1e-9]


# %%
def stack(layers, of=lambda: Convolution(16, 16, pseudo_3d=True)):
    """Pseudo-3D convolutions, one after the other, with random weights."""
    made = [randomize(of(), seed=k).double() for k in range(layers)]

    def run(x):
        for layer in made:
            x = layer(x, len(x))
        return x
    return run


# %%
class KernelOne(nn.Module):
    """A broken twin: its "temporal" convolution has a kernel of one frame."""
    def __init__(self):
        super().__init__()
        self.space, self.time = nn.Conv2d(16, 16, 3, padding=1), nn.Conv1d(16, 16, 1)

    def forward(self, x, t):                                               # (B*T, C, H, W)
        lines = rearrange(self.space(x), "(b t) c h w -> (b h w) c t", t=t)
        return rearrange(self.time(lines), "(b h w) c t -> (b t) c h w", h=x.shape[2], w=x.shape[3])


attention = randomize(TemporalAttention(16, 16, 15)).double()
networks = {f"{n} pseudo-3D" if n > 1 else "1 pseudo-3D": stack(n) for n in (1, 2, 4)}
networks |= {"attention over time": lambda x: attention(x, len(x)), "4 of kernel 1": stack(4, KernelOne)}

# %%
# NBVAL_CHECK_OUTPUT
for name, network in networks.items():
    moves, hears = who_moves(network), heard(network)
    print(f"{name:20s} frame 5 is heard by {moves}")
    print(f"{'':20s} frame 5 depends on  {hears}" + ("   (of frame 5 only!)" if hears == [5] else ""))

# %% [markdown]
# <details><summary>What the probes say</summary>
#
# One convolution hears one frame to each side, and each further layer one more. Attention hears all at once. The last network has layers over time in name only: they have parameters, train, and cost FLOPs, but frame 5 depends on frame 5 only, however many there are. The slip is easy to make (`nn.Conv1d(c, c, 1)`), and a public implementation for Moving MNIST has it; no error or shape reveals it, but this probe takes a second.
# </details>
#
# As a picture: row $i$ shows on which input frames output frame $i$ depends. Darker means more (on a logarithmic scale); the palest means not at all.

# %%
figure, axes = plt.subplots(1, len(networks), figsize=(10, 2.3), layout="constrained")
for ax, (name, network) in zip(axes, networks.items()):
    table = slopes(network)
    ax.imshow((table / table.max()).clamp(1e-6).log10(), cmap="Blues", vmin=-4, vmax=0)
    ax.set_title(name, fontsize=9)
    ax.set(xticks=[0, 5, 10, 15], yticks=[0, 5, 10, 15])
axes[0].set(xlabel="frame of the input", ylabel="frame of the output");

# %% [markdown]
# **How far does the whole network hear?** Its convolutions over time are in series, one after the other:

# %%
# NBVAL_CHECK_OUTPUT
layers_over_time = [module for module in UNet(config).modules() if isinstance(module, TemporalConvolution)]
attended = [module for module in UNet(config).modules() if isinstance(module, TemporalAttention)]
print(f"mav: {len(layers_over_time)} convolutions over time: each frame could hear {len(layers_over_time)} to each side; {len(attended)} layers of attention over time")

# %% [markdown]
# More than a clip has. So why attention, too? Because what comes from far away has gone through many layers, each of which passes on what its fixed weights say. Attention reaches any frame in one step, and *what is in the frames* decides which it listens to: "where was this digit when it was last in full sight?"
#
# The convolution is the cheap half, for motion between neighbours. It is used at every level of the U-Net, even at the fine ones, where attention is too expensive.
#
# **Order, and the ends.** A convolution over time knows before from after: its taps $K_{-1}$ and $K_{+1}$ differ. There is also a side effect. The convolution pads the ends of a clip with zeros. Feed it, and attention over time, a clip whose frames are all the same:

# %%
# NBVAL_CHECK_OUTPUT
x = torch.randn(12, 16, 2, 3, generator=generator(7), dtype=F64)
still, unmoved = x[:1].expand(12, -1, -1, -1), Convolution(16, 16, pseudo_3d=True).double()
for name, layer in (("at the start", lambda x: unmoved(x, len(x))), ("random weights", stack(1)), ("4 layers of them", stack(4)),
                    ("attention", lambda x: attention(x, len(x)))):
    order = difference(layer(x), layer(x.flip(0)).flip(0)) > 1e-9          # backwards in, backwards out?
    out = layer(still)
    odd = [k for k in range(12) if (out[k] - out[6]).abs().max() > 1e-9]
    print(f"{name:17s} order of frames matters: {order!s:6s} frames of a still clip that come out unlike the middle one: {odd}")


# %% [markdown]
# A frame at an end comes out unlike one in the middle, and with every layer the border moves one frame inwards. Attention recognises the ends, too, although its positions are *relative*: the first frame has others on one side only, the middle one on both. (At the identity start neither happens: the taps that would reach beyond the end are zero, and so is what attention adds.)
#
# Is that a fault? Ends *are* special: a frame there has one neighbour. But keep it in mind for clips of other lengths than in training, and for long clips made in blocks (lesson 08), where the end of a block is not the end of the clip.
#
# ## 7. Pictures go by
# A picture is a clip of one frame. What should a trained pseudo-3D convolution do with it? The picture's neighbours would be zeros, and $K_0$ has moved away from $I$: the picture would come out changed, by layers that know nothing about pictures. **Predict:** for pictures, is a video network then still the image network? In `utils` a picture *bypasses* all layers over time, and so do pictures packed behind a clip (lesson 07):

# %%
def over_time(layer, x, num_frames, num_images=0):
    """A layer over time on the frames of clips; pictures, the last `num_images` of `num_frames`, go by. x (B*T, C, H, W)."""
    clip = num_frames - num_images
    if clip == 1:                                                          # one frame is a picture
        return x
    frames = rearrange(x, "(b t) c h w -> b t c h w", t=num_frames)
    done = layer(rearrange(frames[:, :clip], "b t c h w -> (b t) c h w"), clip)
    done = rearrange(done, "(b t) c h w -> b t c h w", t=clip)
    return rearrange(torch.cat([done, frames[:, clip:]], dim=1), "b t c h w -> (b t) c h w")


# %%
# NBVAL_CHECK_OUTPUT
layer = randomize(TemporalConvolution(16)).double()                        # as if trained
pack = torch.randn(2 * 9, 16, 2, 3, generator=generator(8), dtype=F64)     # two clips of 6 frames, 3 pictures behind each
print("ours equals utils':", difference(over_time(layer, pack, 9, 3), over_clips(layer, pack, 9, 3)) < 1e-12)
packed = rearrange(over_time(layer, pack, 9, 3), "(b t) c h w -> b t c h w", t=9)
inside = rearrange(pack, "(b t) c h w -> b t c h w", t=9)
clip_alone = rearrange(layer(rearrange(inside[:, :6], "b t c h w -> (b t) c h w"), 6), "(b t) c h w -> b t c h w", t=6)
print("the clip comes out as without pictures:", difference(packed[:, :6], clip_alone) < 1e-12)
print("pictures come out as they went in:", bool(torch.equal(packed[:, 6:], inside[:, 6:])), "  and a picture alone:", bool(torch.equal(over_time(layer, pack, 1), pack)))
print("the twin without this rule leaves a picture as it was:", difference(layer(pack, 1), pack) < 1e-9)


# %% [markdown]
# The last line is the answer: without the rule a picture is changed. With it, a video network *is* the image network for pictures, however long the layers over time are trained.
#
# ## 8. The whole network, inflated
# Put both layers everywhere in the U-Net, copy the image network's weights by name, and leave the new ones at their start. What does the video network have that the image network lacks?

# %%
# NBVAL_CHECK_OUTPUT
def part(name):
    """What a new parameter belongs to."""
    if name.startswith("frame_rate"):
        return "frame rate"
    return "convolution over time" if name.endswith((".time.weight", ".time.bias")) else "attention over time"


plain = copy.deepcopy(image.net).cpu()
video = copy_by_name(UNet(config), plain)
missing = [(name, p.numel()) for name, p in video.named_parameters() if name not in plain.state_dict()]
for what in ("convolution over time", "attention over time", "frame rate"):
    print(f"{what:24s}{sum(n for name, n in missing if part(name) == what):9,} new parameters")
print(f"{'from the image network':24s}{sum(p.numel() for p in plain.parameters()):9,}")
print("utils calls the same ones new:", {name for name, _ in missing} == new_over_time(video))
theirs = inflate(UNet(config), plain)
same = [torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in video.state_dict().items() if name in plain.state_dict()]
print("copied by name equals utils.unet.inflate:", all(same))

# %% [markdown]
# (*Frame rate*: the network is also told how many frames a second its clip has; lesson 10 uses it. It is embedded like the noise level, and the last layer of that embedding starts at zero.)
#
# **The proof.** We use the trained image network: a fresh one ends in zeros, so any two would agree. We take two clips, two captions, four noise levels, two frame rates, and print the largest difference anywhere:

# %%
exact = copy.deepcopy(plain).double()                                      # the trained image network, float64


def start_error(net, levels=(-8.0, -2.0, 2.0, 8.0), rates=(6.0, 30.0)):
    """How far a network is, at most, from the image network on every frame."""
    net, worst = copy.deepcopy(net).cpu().double(), 0.0
    z = torch.randn(2, 1, 4, 32, 32, generator=generator(9), dtype=F64)
    cond = image.encode(["3 and 7", "1 moving left and 0 moving up"]).cpu().double()
    with torch.no_grad():
        for level in levels:
            log_snr = torch.full((2,), level, dtype=F64)
            frames = frame_by_frame(exact)(z, log_snr, cond)
            assert frames.std() > 0.1                                      # there is something to differ from
            for fps in rates:
                out = net(z, log_snr, cond, fps=torch.full((2,), fps, dtype=F64))
                worst = max(worst, float((out - frames).abs().max()))
    return worst


# %%
# NBVAL_CHECK_OUTPUT
print("float64: at most 1e-10 from the image network, on every frame:", start_error(video) <= 1e-10)
z, log_snr = torch.randn(2, 1, 16, 32, 32, generator=generator(10)), torch.zeros(2)
with torch.no_grad():
    frames = frame_by_frame(plain)(z, log_snr)
    relative = (video(z, log_snr) - frames).norm() / frames.norm()
print("float32: relative difference at most 1e-5:", bool(relative <= 1e-5))

# %% [markdown]
# A proof that cannot fail proves nothing. So we run the same test on broken twins: one with random layers over time; and, for each kind of new layer, one with normal noise (standard deviation 0.05) added to its weights. None may pass:

# %%
# NBVAL_CHECK_OUTPUT
print("passes the test? layers over time at random:", start_error(at_random, levels=(2.0,)) <= 1e-10)
for kind in ("down.0.stages.0.residual.conv1.time.weight", "down.0.stages.0.residual.conv1.time.bias", "middle.0.time.out.weight", "frame_rate.mlp.2.weight"):
    disturbed = copy.deepcopy(video)
    with torch.no_grad():
        parameter = disturbed.get_parameter(kind)
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator(11)))
    print(f"disturbed: {kind:44s}", start_error(disturbed, levels=(2.0,)) <= 1e-10)

# %% [markdown]
# And what section 2 destroyed is back, pixel for pixel:

# %%
inflated = copy.deepcopy(video).to(DEVICE)
started = clips_of(inflated)
print(f"largest difference from the image network's frames: {float((started - apart).abs().max()):.1e}")
show.film_strip(torch.cat([apart, started]), [name for name in ("frame by frame", "inflated") for _ in captions], title="the video network at its start")

# %% [markdown]
# ## 9. It does nothing. Can it learn?
# A worry: layers that multiply by zero, or copy, may get no gradient, and stay as they are. **Predict**, for the first step of training: which of them get one? The convolution's taps? Attention's output projection? Its queries, keys and values?

# %%
KINDS = {"convolution": ".time.weight", "attention: output": ".time.out.weight", "attention: queries, keys, values": ".time.qkv.weight",
         "attention: positions": ".time.relative_key", "frame rate: last layer": "frame_rate.mlp.2.weight", "frame rate: first layer": "frame_rate.mlp.0.weight"}


def gradients(net):
    """For each kind of new parameter, the largest gradient."""
    named = [(name, p.grad) for name, p in net.named_parameters() if p.grad is not None]
    return {kind: max(float(grad.abs().max()) for name, grad in named if name.endswith(ending)) for kind, ending in KINDS.items()}


trainer = Trainer(recipe("mav"), TRAIN, device=DEVICE, amp="off")          # starts inflated; image weights are frozen
by_step = []
for _ in range(2):
    trainer.train_step()
    by_step.append(gradients(trainer.net))

# %%
# NBVAL_CHECK_OUTPUT
print(f"{'a gradient in':34s}step 1   step 2")
for kind in KINDS:
    print(f"{kind:34s}{by_step[0][kind] > 0!s:9s}{by_step[1][kind] > 0}")
taps = trainer.net.first.time.weight.grad.abs().amax((0, 1))
print("the outer taps of the first convolution, which are zero at the start, get one:", bool(taps[0] > 0 and taps[2] > 0))

# %% [markdown]
# <details><summary>Why</summary>
#
# The gradient of a product with respect to one factor is the *other* factor. For the convolution, $\partial\,\text{loss}/\partial K_k$ is made of what came in, $y_{t+k}$, and what comes back from the loss: neither is zero, whatever $K$ is. For attention, the output projection is multiplied by what attention gathered, which is not zero, so it moves at once. Queries, keys and values lie *behind* that projection, seen from the loss: their gradient is multiplied by $W_{\text{out}} = 0$. One step later it is no longer zero, and they start. The same holds for the frame rate.
# </details>
#
# **Break it:** two zeros in a row. If values were zero at the start *as well*, each factor would wait for the other:

# %%
# NBVAL_CHECK_OUTPUT
stuck = TemporalAttention(32, 16, 7)                                       # out is zero
with torch.no_grad():
    stuck.qkv.weight[64:], stuck.qkv.bias[64:] = 0, 0                      # the values, too: rows 64 to 95, behind queries and keys
    stuck.relative_value.zero_()
x, wanted = torch.randn(2, 8, 32, 3, 4, generator=generator(12))
(stuck(x, 8) - wanted).square().sum().backward()
for name in ("out.weight", "qkv.weight", "relative_value"):
    print(f"{name:16s}gets a gradient: {bool(stuck.get_parameter(name).grad.abs().max() > 0)}")


# %% [markdown]
# It would never attend: except for its output bias, a constant, nothing in it would ever move. One zero in a branch is a start; two are a dead end.
#
# ## 10. What the new layers learn, live
# A short training on clips *without captions*: only the new layers move, the image weights are frozen (lesson 10 says why, and trains for longer). For comparison, the same layers from a random start, with the same clips, noise and steps. **Predict:** where does each loss curve begin?

# %%
def at_six(net):
    """A network that is told 6 frames a second."""
    return lambda z, log_snr, cond=None: net(z, log_snr, cond, fps=torch.full((len(z),), 6.0, device=z.device))


trainers = {}
for start in ("identity start", "random start"):
    trainer = Trainer(replace(recipe("mav"), null_probability=1.0, recaptioned=False), TRAIN, device=DEVICE)
    if start == "random start":
        start_at_random(trainer.net, seed=0)
    for _ in tqdm(trainer.run(), total=TRAIN.steps, desc=start, file=sys.stdout):
        pass
    trainers[start] = trainer
tuned = {start: trainer.model().net for start, trainer in trainers.items()}

# %%
figure, ax = plt.subplots(figsize=(6.5, 2.6), layout="constrained")
for (start, trainer), colour, style in zip(trainers.items(), (show.BLUE, show.ORANGE), ("-", "--")):
    ax.plot(range(1, len(trainer.history) + 1), trainer.history, style, color=colour, label=start)
ax.set(xlabel="step", ylabel="loss of the step", yscale="log", title=f"{TRAIN.steps} steps of {TRAIN.batch_size} clips")
ax.legend();

# %%
first = {start: trainer.history[0] for start, trainer in trainers.items()}
print("loss of the first step:", ", ".join(f"{start} {loss:.3f}" for start, loss in first.items()))
assert first["random start"] > 5 * first["identity start"]

# %% [markdown]
# From the identity the loss starts where the image network left it: frame by frame it already denoises. What time adds is small in comparison, and hidden by how much clips and noise differ from step to step. From the random start the loss begins many times higher, and the run is spent on the way down.

# %%
made = {"frame by frame": apart, f"identity start, {TRAIN.steps} steps": clips_of(at_six(tuned["identity start"])),
        f"random start, {TRAIN.steps} steps": clips_of(at_six(tuned["random start"]))}
*two, last = [(name.replace(", ", ",\n"), clips) for name, clips in made.items()]
rows = [(name, clip) for name, clips in two for clip in clips] + [(last[0], last[1][0])]
show.film_strip(torch.stack([clip for _, clip in rows]), [name for name, _ in rows], title="captions that these layers over time have never seen, the same noise")

# %% [markdown]
# Seen from above (x across, time downwards), beside a real clip: a digit that moves evenly draws a line, one that jumps from frame to frame draws dashes.

# %%
real = MovingMNIST("test", seed=3, captions=None).sample({"smoke": 2}.get(BUDGET, 8)).video
seen = {"frame by frame": apart[1:], f"identity start, {TRAIN.steps} steps": made[f"identity start, {TRAIN.steps} steps"][1:], "a real clip": (real[:1] + 1) / 2}
show.xt_slice(torch.cat(list(seen.values())), list(seen))

# %% [markdown]
# **In numbers.** We add noise to test clips and estimate every frame: the image network from that frame alone, the tuned ones with its neighbours' help. The table shows the mean squared error of $\hat x$ at four noise levels and, for the clips made above, how much a frame differs from the one before (mean absolute difference).

# %%
LEVELS = (-4.0, -2.0, 0.0, 2.0)


def error(network, level):
    log_snr = torch.full((len(real),), level)
    z = q_sample(real, log_snr, torch.randn(real.shape, generator=generator(13)))
    with torch.no_grad():
        output = network(z.to(DEVICE), log_snr.to(DEVICE)).cpu()
    return float((to_x(output, z, log_snr, "v") - real).square().mean())


# %%
networks = {"frame by frame": frame_by_frame(image.net), **{start: at_six(net) for start, net in tuned.items()}}
errors = {name: [error(network, level) for level in LEVELS] for name, network in networks.items()}
print("error at log-SNR      " + "".join(f"{level:9g}" for level in LEVELS) + "   frame to frame")
for (name, row), clips in zip(errors.items(), made.values()):
    print(f"{name:22s}" + "".join(f"{value:9.4f}" for value in row) + f"{clips.diff(dim=2).abs().mean():12.3f}")
print(f"{'real clips':58s}{((real + 1) / 2).diff(dim=2).abs().mean():12.3f}")

# %%
helped = errors["identity start"][1] < errors["frame by frame"][1]
agree = made[f"identity start, {TRAIN.steps} steps"].diff(dim=2).abs().mean() < apart.diff(dim=2).abs().mean()
print(f"after {TRAIN.steps} steps: neighbours help at log-SNR -2: {helped}; frames differ less from the one before: {bool(agree)}")
assert BUDGET == "smoke" or helped and agree

# %% [markdown]
# From the identity start, even the very first steps teach time: frames begin to agree, and digits stay near where they were. Neighbours help in strong and medium noise. At log-SNR 2, where little noise is left, a frame says nearly everything by itself, and such a short run even does harm.
#
# Two warnings. A small change from frame to frame is not yet good motion: a clip that stands still would score 0, and these change *less* than real ones. Seen from above, they show neither lines nor dashes, but blobs that change shape: digits still turn into others. And the image weights are frozen in both runs: if they were tuned as well, they could adapt to the random layers, and would forget.
#
# And a picture? It bypasses all that was trained, and the weights that it passes are frozen:

# %%
# NBVAL_CHECK_OUTPUT
z, log_snr = torch.randn(2, 1, 3, 32, 32, generator=generator(14)), torch.tensor([-2.0, 3.0])
trained, cond = copy.deepcopy(tuned["identity start"]).cpu(), image.encode(captions).cpu()
with torch.no_grad():
    pictures = [frame_by_frame(net)(z, log_snr, cond) for net in (plain, trained)]
    clip = trained(z, log_snr, cond)
print("after training, a picture comes out exactly as from the image network:", bool(torch.equal(*pictures)))
print("frames of a clip do:", bool(torch.equal(pictures[0], clip)))

# %%
mav = load_pretrained("mav", device=DEVICE)
shipped = clips_of(at_six(mav.net))
columns = [apart, naive["(b) random layers over time"], made[f"identity start, {TRAIN.steps} steps"], shipped]
show.play(torch.stack(columns, dim=1).flatten(0, 1), ["left to right: frame by frame", "random layers over time", f"identity start, {TRAIN.steps} steps, here",
                                                       f"shipped mav, {mav.trained_steps:,} steps"], columns=4, scale=3, path=outputs() / "09_pseudo_3d.gif")


# %% [markdown]
# ## 11. Play: how much randomness does it stand?
# Must the start be *exactly* the identity? Mix a share $s$ of the random layers of section 2 with $1 - s$ of the identity. **Find out** at which share the digits disappear. (First a few shares as a static strip, then yours.)

# %%
def mixed(share):
    """The inflated network with its layers over time moved by `share` of the way towards random ones."""
    net = copy.deepcopy(inflated)
    with torch.no_grad():
        for mine, other in zip(net.parameters(), at_random.parameters()):
            mine.lerp_(other, share)
    return net


few = {"smoke": 2}.get(BUDGET, 8)                                          # sampling steps: quick, a little rough
shares = [0.0, 0.1, 0.2, 0.4]
show.film_strip(torch.cat([clips_of(mixed(share), captions[:1], few) for share in shares]), [f"{share:.0%} random" for share in shares], title=f"from the identity towards random layers, {few} sampling steps")

# %%
share = 0.15  #@param {type:"slider", min:0, max:1, step:0.05}
caption = "6 and 4"  #@param {type:"string"}
show.film_strip(clips_of(mixed(share), [caption], few), [f"{share:.0%} random"], title=caption)


# %% [markdown]
# The network survives a little randomness, so "small random weights" is a common start, too. The identity is the one start for which you can *prove* that nothing was lost, with a test that runs in a second.
#
# | if it looks like this | then look at |
# |---|---|
# | noise or flicker before any training | layers over time do not start as the identity (section 8) |
# | the loss starts far above the image network's | the same; or the weights were copied into other names and dropped (section 8: what is missing, exactly?) |
# | it trains, and frames never agree | a kernel of one frame, or layers over time that are skipped (section 6) |
# | attention over time never moves from its start | two zeros in a row (section 9) |
# | first and last frames look different | zeros beyond the ends of the clip (section 6) |
# | pictures get worse as clips get better | pictures do not bypass the layers over time, or image weights are not frozen (section 7) |
#
# ## 12. Faithful? The box
#
# | the paper says | we do | why |
# |---|---|---|
# | a 1D convolution over time after each 2D convolution, started as the identity | the same, after each 3×3 one | 1×1 convolutions are shortcuts here |
# | kernel of three frames | the same | |
# | what lies beyond the ends of a clip is not stated | zeros | the default; section 6 shows what it means |
# | attention over time behind attention over space, output projection zero | the same, at the two coarsest levels | where attention over space is |
# | positions over time are not specified | relative, learnt (lesson 05) | order must count, and clips may have other lengths |
# | weights over space from a trained text-to-image network | the same: `mav-image` | |
# | whether those are tuned on video is stated inconsistently | frozen; pictures bypass the rest | then nothing about pictures can be lost |
# | frame rate as one more input | the same; it starts at zero | so that the identity holds with it |
#
# ## 13. Exercises
# ### Exercise 1 · A kernel that hands on (difficulty ●○○, importance ●●●, 5 minutes)
# Write the weight of a 1D convolution with kernel three, shape (channels, channels, 3), whose output at frame $t$ is its input at frame $t + \text{shift}$, for shift −1, 0 or 1. With shift 0 it is the identity start, without `nn.init.dirac_`.

# %%
def hand_on(channels, shift):
    """-> weight (channels, channels, 3) of a convolution that puts frame t + shift where frame t was."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_hand_on(channels, shift):
    weight = torch.zeros(channels, channels, 3)
    for channel in range(channels):
        weight[channel, channel, 1 + shift] = 1
    return weight


hand_on = check("exercise 1", hand_on, reference_hand_on, (3, 0), (2, -1), (4, 1))

# %%
# NBVAL_CHECK_OUTPUT
layer, x = TemporalConvolution(4), torch.randn(6, 4, 2, 3, generator=generator(15))
print("shift 0 is the start of utils' layer:", torch.equal(layer.weight, hand_on(4, 0)))
with torch.no_grad():
    layer.weight.copy_(hand_on(4, -1))
    print("shift -1 is one frame late:", torch.equal(layer(x, 6)[1:], x[:-1]), "  and its first frame is zero:", bool((layer(x, 6)[0] == 0).all()))


# %% [markdown]
# <details><summary>Hint</summary>PyTorch's convolution is y[t] = Σₖ weight[..., k] x[t + k − 1]: tap 0 looks one frame back. From each channel to itself only.</details>
# <details><summary>Solution</summary>
#
# ```python
# weight = torch.zeros(channels, channels, 3)
# for channel in range(channels):
#     weight[channel, channel, 1 + shift] = 1
# return weight
# ```
#
# A network whose features have to move between frames can learn mixtures of these three.
# </details>
#
# ### Exercise 2 · How many layers? (difficulty ●●○, importance ●●○, 10 minutes)
# Convolutions over time with kernel `kernel` (odd) are applied in series. How many are needed until the *last* frame of a clip of `frames` hears the *first*? Return −1 if no number is enough.

# %%
def layers_needed(frames, kernel):
    """-> how many layers, or -1"""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_layers_needed(frames, kernel):
    reach = kernel // 2
    if frames == 1:
        return 0
    return -1 if reach == 0 else -(-(frames - 1) // reach)


layers_needed = check("exercise 2", layers_needed, reference_layers_needed, (16, 3), (16, 5), (76, 3), (1, 3), (16, 1), (2, 3), (1, 1))

# %%
# NBVAL_CHECK_OUTPUT
needed = layers_needed(9, 3)
print("frame 8 hears frame 0 after that many layers:", 0 in heard(stack(needed), 8, 9), "  after one fewer:", 0 in heard(stack(needed - 1), 8, 9))


# %% [markdown]
# <details><summary>Hint</summary>Each layer reaches kernel // 2 frames further; the first and the last frame are frames − 1 apart. Round up.</details>
# <details><summary>Solution</summary>
#
# ```python
# reach = kernel // 2
# if frames == 1:
#     return 0
# return -1 if reach == 0 else -(-(frames - 1) // reach)
# ```
#
# Attention needs one layer, whatever the length. A convolution's cost grows with the number of frames, attention's with its square.
# </details>
#
# ### Exercise 3 · What is new? (difficulty ●●○, importance ●●●, 10 minutes)
# You are given two dictionaries, of a video and an image network, that map parameter names to shapes. Return how many numbers the video network has that it cannot take from the image network; −1 if a parameter of the image network has no counterpart of its name and shape.

# %%
def new_numbers(video, image):
    """video, image: {name: shape} -> how many numbers are new, or -1"""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_new_numbers(video, image):
    if any(video.get(name) != shape for name, shape in image.items()):
        return -1
    return sum(math.prod(shape) for name, shape in video.items() if name not in image)


new_numbers = check("exercise 3", new_numbers, reference_new_numbers, ({"a": (2, 3), "a.time": (2, 2, 3), "b": (4,)}, {"a": (2, 3), "b": (4,)}),
                    ({"a": (2, 3)}, {"a": (2, 3)}), ({"a": (2, 3)}, {"a": (3, 2)}), ({"a": (2, 3), "c": (5,)}, {"b": (5,)}))

# %%
# NBVAL_CHECK_OUTPUT
shapes = [{name: tuple(p.shape) for name, p in net.named_parameters()} for net in (video, plain, new_3d)]
print("new in the pseudo-3D network:", new_numbers(*shapes[:2]) == sum(n for _, n in missing), "  in the one with 3D in place:", new_numbers(shapes[2], shapes[1]))

# %% [markdown]
# <details><summary>Hint</summary>First go through the image network's names, then through the video network's. `math.prod(shape)` counts numbers.</details>
# <details><summary>Solution</summary>
#
# ```python
# if any(video.get(name) != shape for name, shape in image.items()):
#     return -1
# return sum(math.prod(shape) for name, shape in video.items() if name not in image)
# ```
#
# The strictness matters: a loader that quietly skips what does not fit would give a network with random layers, and section 2 shows what that draws.
# </details>
#
# ## 14. Quiz
# 1. Why is the identity proven on trained weights, and not on a fresh image network?
# 2. The output projection of attention is zero, so its output is zero. How can it ever learn?
# 3. A temporal convolution has a kernel of one frame. Which tests would it pass, and which one catches it?
# 4. Why not simply run a picture through the layers over time, with zeros as its neighbours?
# 5. Pseudo-3D attention has relative positions only. How does the network know which frame is the first?
#
# <details><summary>Answers</summary>
#
# 1. A fresh one ends in a layer of zeros: whatever comes before it passes, broken or not.
# 2. The projection's gradient is what attention gathered times what comes back from the loss; neither is zero. What comes before it follows one step later.
# 3. It passes tests of output shape, "the loss goes down" and the identity start. (A parameter count would catch it, if somebody knows the right number.) The perturbation probe catches it: frame 5 depends on frame 5 only.
# 4. After training the middle tap is no longer the identity: the picture would be changed by layers that never saw a picture.
# 5. In two ways. The first frame has no frame before it, so its softmax runs over one side. And convolutions over time meet zeros beyond the ends: they mark the border, one frame deeper with each layer.
# </details>
#
# ## What was shown, and what was not
# Shown: both layers, equal to `utils`; how far they hear; their price; an identity start of the whole trained network that holds to ten decimals, with twins that fail; which parameters learn first; that a few steps make frames agree, from this start and not from a random one. Not shown: that the result is a good *video* model, that it obeys captions, or that starting from images beats starting from scratch at equal cost: that is [lesson 10](10_make_a_video.ipynb), where this network is trained for longer, on clips that nobody described.
#
# ## Readings
# - Singer, Polyak, Hayes, Yin, An, Zhang, Hu, Yang, Ashual, Gafni, Parikh, Gupta, Taigman, *Make-A-Video*, 2022 (arXiv 2209.14792): section 3.2 is this lesson.
# - Qiu, Yao, Mei, *Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks*, 2017 (arXiv 1711.10305): where the name comes from, for recognition.
# - Carreira, Zisserman, *Quo Vadis, Action Recognition?*, 2017 (arXiv 1705.07750): image kernels inflated to 3D by repeating them over time; right for a clip that stands still.
# - Zhang, Rao, Agrawala, *Adding Conditional Control to Text-to-Image Diffusion Models*, 2023 (arXiv 2302.05543): "zero convolutions", the same start for another purpose, and why they learn.
# - Blattmann, Rombach, Ling, Dockhorn, Kim, Fidler, Kreis, *Align your Latents*, 2023 (arXiv 2304.08818): layers over time in a frozen latent image model, at large scale.
