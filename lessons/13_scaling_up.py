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
# # 13 · Scaling up
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/video-diffusion-lessons/video-diffusion-lessons/blob/main/lessons/13_scaling_up.ipynb)
#
# ![Three rows of moving clips: discs, squares and triangles of a folder; digits from the shipped model; the same noise after a short training on the folder](../assets/figures/13_scaling_up.gif)
#
# **Claim: the recipe of lesson 06 extends to half precision, to more processes, to larger batches and to your own clips without a change in what is computed. Each step is compared with the plain one here: equal up to rounding, or the difference is measured. And today's video models change the space (latents), the network (DiT) and the path (flow matching), while loss, clock, guidance and samplers carry over.**
#
# (Above: first row, three clips of a folder that section 6 makes; second row, the shipped `vdm`; third row, the same noise after the short training of section 6 on that folder.)
#
# You will be able to
# - measure where the time of a training step goes, and say which roof each layer is under;
# - train in half precision, and say which three accidents a float64 schedule, loss scaling and sums in float32 prevent;
# - fit a larger batch or larger clips: gradient accumulation, recomputed activations;
# - say what data-parallel training averages and what it must not share, and start it with `torchrun`;
# - train on a folder of your own clips;
# - read a paper on today's video models, and know which of its parts you have built already.
#
# | reading | exercises | machine: T4 (estimate) / two CPU cores |
# |---|---|---|
# | 50 minutes | 25 minutes | 5 / 4 minutes |
#
# **The series:** [01 DDPM](01_ddpm_on_mnist.ipynb) → [02 schedules and fast samplers](02_fast_samplers.ipynb) → [03 guidance](03_guidance.ipynb) → [04 Moving MNIST](04_moving_mnist.ipynb) → [05 the factorized 3D U-Net](05_factorized_unet.ipynb) →
# [06 Video Diffusion Models](06_video_diffusion_models.ipynb) → [07 joint training](07_joint_training.ipynb) → [08 reconstruction guidance](08_reconstruction_guidance.ipynb) → [09 pseudo-3D layers](09_pseudo_3d_layers.ipynb) → [10 Make-A-Video](10_make_a_video.ipynb) → [11 frame interpolation](11_frame_interpolation.ipynb) → [12 super-resolution](12_super_resolution.ipynb) → **13 scaling up (you are here)**.
# This lesson rests on [the network](05_factorized_unet.ipynb) of lesson 05, [the training](06_video_diffusion_models.ipynb#5.-Train-it,-live) of lesson 06 and, for its end, [rectified flow](02_fast_samplers.ipynb#8.-Rectified-flow-is-here-already) of lesson 02. Symbols: [glossary](glossary.md).
#
# **No T4 was at hand when this series was written.** What follows about it is either computed from its published figures, and says so, or is not claimed. On a GPU the same cells measure it.

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
import copy, json, math, os, shutil, time
import imageio.v3 as iio
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from dataclasses import replace
from einops import rearrange
from PIL import Image, ImageDraw
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from utils import load_pretrained, show
from utils.captions import CaptionError
from utils.cost import T4_SUSTAINED, TRAINING_COPIES, count, measure
from utils.data import MovingMNIST
from utils.diffusion import loss_per_sample, q_sample, target, to_eps, to_x
from utils.exercises import check
from utils.layers import ResidualBlock, ScalarEmbedding, SpatialAttention, TemporalAttention, zero_init
from utils.optimizer import orthogonalized
from utils.processes import ALONE, Processes
from utils.recipes import Budget, recipe
from utils.runtime import ASSETS, amp_dtype, autocast, budget, device_name, generator, outputs, pick_device, precision_name, randn_per_sample
from utils.samplers import guided_denoiser, sample_loop
from utils.schedule import CosineSchedule, FlowSchedule, alpha_sigma
from utils.train import PATIENCE, Trainer, TrainingError, read_checkpoint
from utils.unet import UNet, UNetConfig, inflate, randomize
from utils.video_folder import VideoFolder

# %%
os.environ["KINETO_LOG_LEVEL"] = "99"                       # the profiler talks to itself otherwise
BUDGET, DEVICE = budget(), pick_device()
BATCH = {"smoke": 1, "cpu": 2}.get(BUDGET, 16)              # clips a step where a step is measured
STEPS = {"smoke": 2, "cpu": 12}.get(BUDGET, 32)             # denoising steps of a clip
F64 = torch.float64

# %% [markdown]
# ## 1. Where the time goes
# Before we make anything faster: what is slow? One training step of `vdm-text` draws a batch, runs forward, runs backward, clips and applies the gradients, and updates the average of the weights (EMA). First we time each part separately.
#
# **Predict:** what share of the step is forward, what share backward? And of the network's time, how much is *attention over time*, the layer that makes it a video network?

# %%
model = load_pretrained("vdm-text", device=DEVICE)


def wait():
    """A GPU is only told what to do: wait until it has done it."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def in_training(batch=BATCH, amp="off", **options):
    return Trainer(replace(recipe("vdm-text"), curriculum=None), Budget(1000, batch), DEVICE, amp, initial=model, **options)


# %%
def parts_of_a_step(trainer, step):
    """Seconds of each part of a training step."""
    took, start = {}, time.perf_counter()

    def done(part):
        nonlocal start
        wait()
        took[part], start = time.perf_counter() - start, time.perf_counter()

    trainer.data.sample(BATCH, index=step)
    trainer.images.sample(8 * BATCH, index=step)
    done("data")
    loss = trainer.loss(step)                               # draws the batch again: taken off below
    done("forward")
    loss.backward()
    done("backward")
    nn.utils.clip_grad_norm_(trainer.net.parameters(), 1.0)
    trainer.optimizer.step()
    done("clip and Muon")
    trainer.ema.update(trainer.net)
    done("EMA")
    trainer.optimizer.zero_grad()
    took["forward"] -= took["data"]
    return took


trainer = in_training()
rounds = [parts_of_a_step(trainer, step) for step in range(3 if BUDGET == "smoke" else 5)][1:]     # the first warms up
parts = {part: float(np.median([took[part] for took in rounds])) for part in rounds[0]}
print(f"{device_name(DEVICE)}, batch {BATCH}, 8 images to each clip, float32")
print(", ".join(f"{part} {took / sum(parts.values()):.0%}" for part, took in parts.items()))

# %% [markdown]
# Backward takes up to twice as long as forward: each matrix product needs two in its backward pass, one for the gradient of its input, one for that of its weights. Data and EMA cost little; so does the optimizer, once a step has more clips than here: its work does not grow with them (section 4). On a GPU their *share* can grow: they are many small operations, each of which has to be launched.
#
# Now look inside the network. **Hooks** are functions that PyTorch calls before and after a layer, in both directions. With them a step draws its own timetable: a walk down and up the U, forward and back.

# %%
KINDS = {ResidualBlock: ("residual blocks", show.BLUE), SpatialAttention: ("attention over space", show.ORANGE), TemporalAttention: ("attention over time", "black")}


# %%
def timetable(trainer, step):
    """-> spans (kind, height of the frames, way, start, end) of one forward and backward pass."""
    spans, opened, handles = [], {}, []

    def begin(way):
        def hook(layer, *_):
            wait()
            opened[layer, way] = time.perf_counter()
        return hook

    def end(way):
        def hook(layer, _, result):
            wait()
            height = (result[0] if isinstance(result, tuple) else result).shape[2]
            spans.append((type(layer), height, way, opened[layer, way], time.perf_counter()))
        return hook

    for layer in trainer.net.modules():
        if type(layer) in KINDS:
            handles += [layer.register_forward_pre_hook(begin("forward")), layer.register_forward_hook(end("forward")),
                        layer.register_full_backward_pre_hook(begin("backward")), layer.register_full_backward_hook(end("backward"))]
    trainer.loss(step).backward()
    for handle in handles:
        handle.remove()
    trainer.optimizer.zero_grad()
    return spans


# %%
timetable(trainer, 0)                                       # warms up
spans = timetable(trainer, 1)
start = min(span[3] for span in spans)
figure, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
heights = sorted({span[1] for span in spans}, reverse=True)
for kind, height, way, begun, ended in spans:
    ax.broken_barh([((begun - start) * 1000, (ended - begun) * 1000)], (-heights.index(height) - 0.4, 0.8), color=KINDS[kind][1])
turn = next(span[3] for span in spans if span[2] == "backward")
ax.axvline((turn - start) * 1000, color=show.GREY, linestyle=":")
ax.text((turn - start) * 1000, 0.55, " backward", fontsize=9, va="bottom")
ax.text(0, 0.55, "forward", fontsize=9, va="bottom")
ax.set_yticks([-k for k in range(len(heights))], [f"{height}×{height}" for height in heights])
ax.set(xlabel="milliseconds", ylim=(-len(heights) + 0.4, 0.95))
figure.legend([plt.Rectangle((0, 0), 1, 1, color=colour) for _, colour in KINDS.values()], [name for name, _ in KINDS.values()],
              loc="outside upper center", ncols=3, fontsize=9)
whole = max(span[4] for span in spans) - start
share = lambda chosen: sum(span[4] - span[3] for span in spans if chosen(span)) / whole
print(", ".join(f"{name} {share(lambda span: span[0] is kind):.0%}" for kind, (name, _) in KINDS.items()), f"  between them {1 - share(lambda span: True):.0%}")
print("residual blocks by level:", ", ".join(f"{height}×{height} {share(lambda span: span[0] is ResidualBlock and span[1] == height):.0%}" for height in heights))

# %% [markdown]
# <details><summary>What the timetable says</summary>
#
# The largest part of the time goes to residual blocks, that is, convolutions; then come, here, what lies between them (white: halving and doubling the frames, the first and the last layer, embeddings) and the two kinds of attention. The layer that makes it a video network does not take most of the time. Every level has its share: a convolution costs (channels)² × places, and by design of the U-Net few channels at many places cost about as much as many channels at few places. (Shares differ between machines and with their load.)
# </details>
#
# The **profiler** counts by operation instead: the time spent in each PyTorch operation itself. Grouped by purpose:

# %%
GROUPS = {"convolutions": ("conv",), "linear layers": ("aten::mm", "aten::addmm"), "products of attention": ("bmm", "scaled_dot", "softmax"), "normalisation": ("norm",),
          "copies": ("copy", "cat", "clone", "contiguous"), "elementwise": ("silu", "add", "mul", "div", "fill", "sum", "upsample", "pow", "sqrt")}
with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (DEVICE.type == "cuda")) as profiler:
    trainer.loss(2).backward()
    wait()
trainer.optimizer.zero_grad()
spent, calls = dict.fromkeys([*GROUPS, "the rest"], 0.0), 0
for event in profiler.key_averages():
    if DEVICE.type == "cuda" and not event.key.startswith("aten::"):
        continue                                            # kernels, counted with the operation that started them
    group = next((group for group, words in GROUPS.items() if any(word in event.key for word in words)), "the rest")
    spent[group] += event.self_device_time_total if DEVICE.type == "cuda" else event.self_cpu_time_total
    calls += event.count * event.key.startswith("aten::")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 2.4), layout="constrained")
for ax, shares, title in zip(axes, (parts, spent), ("a training step", "forward and backward, by operation")):
    total, names = sum(shares.values()), list(shares)
    bars = ax.barh(names[::-1], [100 * shares[name] / total for name in names[::-1]], color=show.BLUE)
    ax.bar_label(bars, fmt="%.0f", fontsize=8, padding=2)
    ax.set(title=title, xlabel="% of the time", xlim=(0, 112 * max(shares.values()) / total))
print(f"{calls:,} calls of operations (some call others) for one forward and backward pass")


# %% [markdown]
# On the right: attention is more than its products. Its linear layers, norms and copies are counted with those of all other layers, so the bar of its products alone is small.
#
# And there are thousands of calls. Some only create another view of a tensor, but a good part, still thousands, launch a *kernel* on a GPU, which costs the CPU typically a few microseconds each: a small network with a small batch keeps a GPU waiting for work. That is the first reason why small video networks do not reach a GPU's peak. The second comes next.
#
# ## 2. The roofline
# A layer needs two things from a machine: arithmetic (FLOPs) and numbers moved between memory and the units that compute (bytes). It cannot finish before both are done. The ratio of the two is the layer's **arithmetic intensity** $I$, FLOPs a byte. With a peak $P$ (FLOP/s) and a bandwidth $W$ (bytes/s), the most that it can reach is
#
# $$\text{attainable FLOP/s} = \min(P,\; I\,W)$$
#
# Drawn over $I$ on logarithmic axes it is a roof: a slanted part, where bytes are the limit, and a flat part, where FLOPs are (Williams, Waterman, Patterson 2009). The corner is at $I = P/W$.
#
# | layer | FLOPs | numbers moved |
# |---|---|---|
# | convolution 3×3, $C$ to $C'$ channels, $N$ places | $2 \cdot 9\,C\,C'\,N$ | $(C + C')\,N + 9\,C\,C'$ |
# | linear, $D$ to $D'$, $N$ tokens | $2\,D\,D'\,N$ | $(D + D')\,N + D\,D'$ |
# | group normalisation | about $8\,C\,N$ | $2\,C\,N$ |
# | attention over time, products: $n$ places, $T$ frames, $C$ channels in $h$ heads | $8\,n\,T^2 C$ | $4\,n\,T\,C + 11\,n\,h\,T^2$ |
#
# (Four bytes a number in float32, two in half precision. The first three rows are the minimum: each number is moved once. The last row: four products, with relative keys and values, as this series writes them. The $n h T^2$ numbers of the logits are written by two products, read and written by their sum (3), the scaling (2) and softmax (2), and read by two products: 11. A fused kernel never writes them.)
#
# **Predict:** which has the higher intensity, a convolution at 32×32 with 16 channels or one at 4×4 with 128? And where is group normalisation?
# <details><summary>Answer</summary>The one with 128 channels. With many places, a convolution of C to C channels does 18 C² FLOPs on 2 C numbers a place: 9 C FLOPs a number, so 36 a byte for 16 channels in float32, eight times that for 128 (less where the weights outweigh the places). Normalisation does 4 FLOPs a number, one a byte, whatever the width: it is at the far left.</details>

# %%
def work(layer, x, y):
    """-> kind, FLOPs, numbers of activations moved, numbers of weights moved."""
    weights, moved = sum(p.numel() for p in layer.parameters()), x.numel() + y.numel()
    if isinstance(layer, nn.GroupNorm):
        return "normalisation", 8 * x.numel(), moved, weights
    kind = "convolution" if isinstance(layer, nn.Conv2d) else "linear"
    return kind, 2 * layer.weight[0].numel() * y.numel(), moved, weights    # weight[0]: what one output number takes


def fastest(run, times=3):
    """Seconds of the fastest of a few calls: what else a machine does can only add to it."""
    took = []
    for _ in range(times):
        wait()
        begun = time.perf_counter()
        run()
        wait()
        took.append(time.perf_counter() - begun)
    return min(took)


# %%
def time_products(layer, x, num_frames):
    """The same of a layer's products over time, with the seconds they take."""
    (bt, c, height, width), t = x.shape, num_frames
    n, h = bt // t * height * width, layer.heads
    q, k, v = torch.randn(3, n, h, t, c // h, device=x.device)
    relative = torch.randn(t, t, c // h, device=x.device)   # stands for a^V

    def run():
        weights = layer.weights(q, k)
        return weights @ v + torch.einsum("n h i j, i j d -> n h i d", weights, relative)

    return "over time", 8 * n * t**2 * c, 4 * n * t * c + 11 * n * h * t**2, 0, fastest(run)


# %%
layers, seen = [], []
KEPT = (nn.Conv2d, nn.Linear, nn.GroupNorm, TemporalAttention)
hooks = [layer.register_forward_hook(lambda layer, given, y: seen.append((layer, given, y))) for layer in model.net.modules() if isinstance(layer, KEPT)]
T = 24                                                      # 16 frames and 8 images
with torch.no_grad():
    model.net(torch.randn(BATCH, 1, T, 32, 32, device=DEVICE), torch.zeros(BATCH, device=DEVICE), num_images=8)
    for hook in hooks:
        hook.remove()
    for layer, given, y in seen:
        if isinstance(layer, TemporalAttention):
            layers.append((*time_products(layer, given[0], T), given[0].shape[1:]))
        else:
            layers.append((*work(layer, given[0], y), fastest(lambda: layer(given[0])), given[0].shape[1:]))
print(f"{len(layers)} layers; together {sum(flops for _, flops, *_ in layers) / BATCH / 1e9:.2f} GFLOP a clip, forward")

# %% [markdown]
# **This machine's roof, measured:** the flat part is the fastest of a few products of large matrices, wide convolutions and the network's own larger layers, the slanted part the fastest of a few copies of a tensor too large for any cache (read and written: twice its bytes).

# %%
side, picture_side = (4096, 64) if DEVICE.type == "cuda" else (512, 16)
a, b = torch.randn(2, side, side, device=DEVICE)
wide, picture = nn.Conv2d(128, 128, 3, padding=1).to(DEVICE), torch.randn(4, 128, picture_side, picture_side, device=DEVICE)
large = torch.randn(2**24, device=DEVICE)                   # 64 MiB
goal = torch.empty_like(large)
with torch.no_grad():
    rates = {"product": 2 * side**3 / fastest(lambda: a @ b, 60), "convolution": 2 * 9 * 128 * picture.numel() / fastest(lambda: wide(picture), 60)}
    WIDTH = 2 * 4 * large.numel() / fastest(lambda: goal.copy_(large), 12)
big = [row for row in layers if row[1] > 1e5 * BATCH]       # tiny layers say more about the clock than about themselves
rates["the best of these layers"] = max(row[1] / row[4] for row in big)
PEAK = max(rates.values())
print(f"{device_name(DEVICE)}, float32: " + ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items()))
print(f"copy {WIDTH / 1e9:.1f} GB/s; the corner is at {PEAK / WIDTH:.0f} FLOPs a byte; {len(layers) - len(big)} of {len(layers)} layers are too small to be drawn")

# %%
STYLE = {"convolution": (show.BLUE, "o"), "linear": (show.ORANGE, "s"), "normalisation": (show.GREY, "^"), "over time": ("black", "x")}
T4 = {"float32": (8.1e12, 320e9, 4, "--"), "float16": (65e12, 320e9, 2, "-")}      # published peaks, bytes a number
intensity = lambda row, size, batch=BATCH: row[1] * batch / BATCH / (size * (row[2] * batch / BATCH + row[3]))
x = np.logspace(-0.7, 3.6, 100)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
axes[0].plot(x, np.minimum(PEAK, x * WIDTH) / 1e9, color="black")
for kind, (colour, marker) in STYLE.items():
    mine = [row for row in big if row[0] == kind]
    axes[0].scatter([intensity(row, 4) for row in mine], [row[1] / row[4] / 1e9 for row in mine], color=colour, marker=marker, s=22, label=kind)
    for name, (peak, bandwidth, size, _) in T4.items():
        at = np.array([intensity(row, size, 16) for row in mine])
        axes[1].scatter(at, np.minimum(peak, at * bandwidth) / 1e9, color=colour, marker=marker, s=22)
for name, (peak, bandwidth, _, line) in T4.items():
    axes[1].plot(x, np.minimum(peak, x * bandwidth) / 1e9, line, color="black", linewidth=1, label=f"roof in {name}")
axes[0].set(title=f"measured here: {device_name(DEVICE)}, float32", ylabel="GFLOP/s")
axes[1].set(title="T4, from published peaks: at best, batch 16", ylabel="GFLOP/s")
for ax in axes:
    ax.set(xscale="log", yscale="log", xlabel="arithmetic intensity, FLOPs a byte")
    ax.legend(fontsize=8, loc="lower right")

# %% [markdown]
# Left: each point is a layer of the network, with its real shape, timed alone. Points above the slanted roof got their numbers from a cache, which is faster than the memory that the copy measured; points far below have other costs (small products, strides, launching: the first and the last convolution, with one channel on one side, are among these). Right: not measured, but where the same layers would stand on a T4 if nothing else cost anything. If everything, norms too, were in half precision, every layer would move to the right by a factor of two, and the flat roof would rise by a factor of eight: so more layers end up under the *slanted* part.

# %%
at_best, rows = {}, {}
for name, (peak, bandwidth, size, _) in T4.items():
    each = [(row[0], row[1] * 16 / BATCH, size * (row[2] * 16 / BATCH + row[3])) for row in layers]
    took = [max(flops / peak, moved / bandwidth) for _, flops, moved in each]
    at_best[name] = sum(flops for _, flops, _ in each) / sum(took)
    print(f"T4, {name}, these layers at best: {at_best[name] / 1e12:.1f} of {peak / 1e12:g} TFLOP/s; "
          f"{sum(t for t, (_, flops, moved) in zip(took, each) if moved / bandwidth > flops / peak) / sum(took):.0%} of that time is bytes")
print(f"\n{'':16s}{'share of FLOPs':>15s}{'FLOPs a byte, float16: median':>32s}{'share of the T4 time at best, float16':>40s}")
for kind in STYLE:
    mine = [(row, t) for row, t in zip(layers, took) if row[0] == kind]
    share, best = sum(row[1] for row, _ in mine) / sum(row[1] for row in layers), sum(t for _, t in mine) / sum(took)
    print(f"{kind:16s}{share:15.0%}{float(np.median([intensity(row, 2, 16) for row, _ in mine])):32.1f}{best:40.0%}")
print(f"\nwhat utils.cost assumes of a T4: {T4_SUSTAINED / 1e12:g} TFLOP/s")
assert at_best["float16"] < 0.6 * T4["float16"][0]           # the text below says so
normal = [(row, t) for row, t in zip(layers, took) if row[0] == "normalisation"]
assert sum(row[1] for row, _ in normal) < 0.02 * sum(row[1] for row in layers) and sum(t for _, t in normal) > 0.1 * sum(took)

# %% [markdown]
# **In float32, on a T4 as here, most of the cost is FLOPs. In float16 on a T4 it would be bytes.** Even with one perfect kernel a layer, these layers could not come near the 65 TFLOP/s on the box. Look at normalisation: next to no FLOPs, but a good part of the time. And this list leaves out activations (SiLU), sums, copies and kernel launches, all of which are bytes or waiting without FLOPs. So the T4 minutes of this series assume 5 to 10 TFLOP/s. That lies below this roof, but does not follow from it: it is an estimate, and labelled as one.
#
# **What raises intensity?** Width: a product of two $n \times n$ matrices does $2n^3$ FLOPs on $3n^2$ numbers, $n/6$ FLOPs a byte in float32. And batch: weights are read once for all clips. Measured on this machine, beside the roof:

# %%
print("     n   FLOPs a byte   GFLOP/s here   the roof there")
for n in (8, 32, 128, 512):
    a, b = torch.randn(2, n, n, device=DEVICE)
    times = max(1, 2**21 // n**3)
    took = fastest(lambda: [a @ b for _ in range(times)], 4) / times
    print(f"{n:6d}{n / 6:15.1f}{2 * n**3 / took / 1e9:15.1f}{min(PEAK, n / 6 * WIDTH) / 1e9:17.1f}")
embedding = next(row for row in layers if row[0] == "linear" and row[5] == (128,))                 # one token a clip: the noise level
print("FLOPs a byte of the layer that embeds the noise level:", ", ".join(f"{intensity(embedding, 4, batch):.1f} at batch {batch}" for batch in (1, 4, 16, 64)))

# %% [markdown]
# Wide layers and large batches do more with each number they fetch. Small products stay far below even their own roof: launching a call costs more than moving all of their bytes. (For a convolution, places and frames are a batch already.) Today's networks are wide for this reason too: they use the machine well. Ours is narrow, because its FLOPs must fit into an afternoon.
#
# ## 3. Half precision
# Where bytes are the limit, halve them: use 16-bit numbers. There are two formats, which spend their 16 bits differently:

# %%
print(f"{'':10s}{'largest':>10s}{'smallest normal':>17s}{'smallest of all':>17s}{'step at 1':>11s}   decimal digits")
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    about = torch.finfo(dtype)
    print(f"{precision_name(dtype):10s}{about.max:10.2g}{about.tiny:17.1g}{about.tiny * about.eps:17.1g}{about.eps:11.1g}   about {-math.log10(about.eps):.0f}")


# %% [markdown]
# float16 has fine steps, but its range ends at 65,504 and at 0.00000006. bfloat16 has the range of float32, but only two decimal digits. The naive way is to do everything in 16 bits. It fails in three places; look at each.
#
# **Accident 1: the schedule.** $\alpha$, $\sigma$ and the sampler's $1 - e^{\lambda_t - \lambda_s}$, all in 16 bits. The data here are numbers from a normal distribution with standard deviation 0.5, for which the perfect denoiser is known (lesson 02), so the only thing that can go wrong is the arithmetic of the schedule. **Predict:** which of the two formats breaks it?

# %%
def sampled_std(dtype, steps=1000, std=0.5, gamma=0.1):
    """Standard deviation of what the ancestral sampler makes, with the schedule's numbers in `dtype`; the rest in float64."""
    cosine = CosineSchedule()
    log_snr = cosine.log_snr(cosine.times(steps)).to(dtype)
    alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
    variance = torch.ones((), dtype=F64)
    for k in range(steps):
        a_t, s_t, a_s, s_s = (number.double() for number in (alpha[k], sigma[k], alpha[k + 1], sigma[k + 1]))
        r = (1 - torch.exp(log_snr[k] - log_snr[k + 1])).double()               # 1 - e^(lt - ls), in dtype
        gain = a_t * std**2 / (a_t**2 * std**2 + s_t**2)                        # x_hat = gain z
        noise = (r * s_s**2) ** (1 - gamma) * (r * s_t**2) ** gamma
        variance = ((1 - r) * a_s / a_t + r * a_s * gain) ** 2 * variance + noise
    return float(variance.sqrt())


exact = CosineSchedule().log_snr(CosineSchedule().times(1000))
true = -torch.expm1(exact[:-1] - exact[1:])
for dtype in (F64, torch.float32, torch.bfloat16, torch.float16):
    mine = exact.to(dtype)
    off = ((1 - torch.exp(mine[:-1] - mine[1:])).double() / true - 1).abs()
    print(f"{precision_name(dtype):9s} std {sampled_std(dtype):7.4f}   sigma at log-SNR 20: {float((-mine[-1]).sigmoid().sqrt()):.2e}   "
          f"1 - e^x off by {float(off.median()):7.2%} (median)   {len(set(mine.tolist()))} different times of 1001")
    assert off.median() > 0.1 or dtype != torch.bfloat16                        # the text below says so

# %% [markdown]
# float16 has no number for $2 \times 10^{-9}$, which is $\alpha^2$ at the noisy end and $\sigma^2$ at the clean one. So $\alpha$ becomes 0 in the first step, the sampler divides by it, and nothing finite comes out. bfloat16 survives this toy, although its $1 - e^x$ is off by more than a tenth and some time steps have merged into one. (1,000 steps with exact numbers give what float64 gives, a little less than the data's 0.5; where bfloat16 comes out nearer to 0.5, its error happens to point the other way.) The whole schedule is a few thousand numbers: `utils` computes it in float64 and casts at the end, which costs nothing.
#
# **Accident 2: gradients that vanish.** A loss that is a mean over a batch of clips has tiny gradients. Take the trained network, one clip of a batch of 16 (on a CPU four frames of it, as float16 is slow there), and look at the gradients of the outputs of its convolutions and linear layers. (Products in 16 bits, weights in float32: *autocast*, below.)

# %%
HALF = DEVICE if DEVICE.type == "cuda" else torch.device("cpu")                # float16 on a CPU is slow, but it is float16
FRAMES = 4 if HALF.type == "cpu" else 16
clip = MovingMNIST("train", 1, num_frames=FRAMES, captions="digits").sample(1)
level = torch.full((1,), -2.0, device=HALF)
x, eps = clip.video.to(HALF), torch.randn(clip.video.shape, generator=generator(1)).to(HALF)
z, cond = q_sample(x, level, eps), model.encode(clip.captions).to(HALF)
net = copy.deepcopy(model.net).to(HALF).train().requires_grad_(True)


def gradients(dtype, scale=1.0):
    """-> loss, gradients of all weights, and of all outputs of layers, divided by `scale` again."""
    outputs_, hooks = [], []
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            hooks.append(layer.register_forward_hook(lambda layer, given, y: y.register_hook(lambda g: outputs_.append(g.flatten().float().cpu())) and None))
    with autocast(HALF, dtype):
        output = net(z, level, cond)
    loss = loss_per_sample(output, x, eps, level, "v").mean() / 16
    net.zero_grad(set_to_none=True)
    (loss * scale).backward()
    for hook in hooks:
        hook.remove()
    weights = torch.cat([p.grad.flatten().cpu() for p in net.parameters() if p.grad is not None])
    return float(loss.detach()), weights / scale, torch.cat(outputs_) / scale


# %%
plain = gradients(None)
FORMATS = {"float16": (torch.float16, 1.0), "float16, loss × 65,536": (torch.float16, 65536.0), "bfloat16": (torch.bfloat16, 1.0)}
found = {name: gradients(*settings) for name, settings in FORMATS.items()}
print(f"{'':24s}{'loss off by':>12s}{'gradient off by':>17s}{'zero: weights':>15s}{'layer outputs':>15s}")
for name, (loss, weights, passed) in {"float32": plain, **found}.items():
    off = float((weights - plain[1]).norm() / plain[1].norm())
    print(f"{name:24s}{abs(loss / plain[0] - 1):12.3%}{off:17.2%}{float((weights == 0).float().mean()):15.1%}{float((passed == 0).float().mean()):15.1%}")
lost = float((found["float16"][2] == 0).float().mean())
assert lost > 0.1 and (found["float16, loss × 65,536"][2] == 0).float().mean() < 0.01                # the text below says so

# %%
figure, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
bins = np.arange(-13, 3, 0.2)
magnitude = plain[2][plain[2] != 0].abs().log10().numpy()
for shift, colour, style, name in ((0, show.BLUE, "-", "as they are"), (math.log10(65536), show.ORANGE, "--", "loss × 65,536")):
    share, _ = np.histogram(magnitude + shift, bins, weights=np.full(len(magnitude), 100 / len(magnitude)))
    ax.stairs(share, bins, color=colour, linestyle=style, linewidth=1.8, label=name)
ax.axvspan(-13, math.log10(6e-8 / 2), color=show.GREY, alpha=0.3, label="zero in float16")
ax.axvspan(math.log10(6e-8 / 2), math.log10(6.1e-5), color=show.GREY, alpha=0.12, label="few digits in float16")
ax.set(xlabel="log10 of the size of a gradient (of a layer's output, float32)", ylabel="% of them", xlim=(-13, 3))
ax.legend(fontsize=8);

# %% [markdown]
# This was real float16 arithmetic, forward and backward. The loss is right, but a good part of the gradients is gone; so are the weights' gradients that are computed from them. **The fix** is one multiplication: scale the loss up before the backward pass, and the weights' gradients down after it. Everything in between moves to the right, where float16 has numbers. Then float16 is *nearer* to float32 than bfloat16 is: it has three more bits for digits.
#
# **Accident 3: sums that overflow.** 65,504 is not much, and a variance squares and sums:

# %%
# NBVAL_CHECK_OUTPUT
features = torch.full((1, 8, 16, 16), 300.0)
features[..., ::2] = -300.0                                                    # a mean of 0, a variance of 90,000
in_half = features.half()
variance = (in_half - in_half.mean()).square().mean()
print("a variance in float16, by hand:", float(variance), "   in float32:", float((features - features.mean()).square().mean()))
print("a norm of 100,000 ones, squared, in float16:", float(torch.ones(100_000).half().square().sum()))
print("group_norm keeps its sums in float32, so that its result is finite:", bool(F.group_norm(in_half, 8).isfinite().all()))

# %% [markdown]
# PyTorch's own group norm is safe; sums that you write yourself (a variance, a loss, the norm of a gradient) are not, unless `.float()` comes first. **Autocast** keeps a list of which operation runs in which precision. Matrix products and convolutions run in 16 bits, with sums kept in float32 inside the kernel; the loss and, depending on the device, norms and softmax run in float32; the weights that the optimizer changes stay float32. (An update of $10^{-3}$ to a weight of 1 is below bfloat16's step at 1: added to bfloat16 weights it would be lost.) Which precision is used here:

# %%
dtypes, hooks = {}, []
for layer in net.modules():
    for kind in (nn.Conv2d, nn.Linear, nn.GroupNorm):
        if isinstance(layer, kind):
            hooks.append(layer.register_forward_hook(lambda layer, given, y, name=kind.__name__: dtypes.setdefault(name, set()).add(precision_name(y.dtype))))
with torch.no_grad(), autocast(HALF, torch.bfloat16 if HALF.type == "cpu" else amp_dtype(HALF)):
    net(z, level, cond)
for hook in hooks:
    hook.remove()
print("weights: float32;", "; ".join(f"outputs of {name}: {', '.join(sorted(kinds))}" for name, kinds in dtypes.items()))

# %% [markdown]
# How large should the scale be? As large as it can be without overflow, and that changes during training. So it is *found*: start high. A gradient that is not finite means that the scale was too high: **skip the step and halve the scale**. After many good steps, double it (exercise 2). Here is the halving, written out, on a small network of the same kind so that a CPU does it quickly:

# %%
TINY = replace(recipe("vdm-text"), num_images=2, curriculum=None, net=UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True),
                                                                                  stem=8, embed_dim=16, head_dim=8, text_width=16))


def tiny(**options):
    return Trainer(TINY, Budget(40, 4), "cpu", "off", **options)


def half_step(trainer, scale):
    """A training step with a scaled loss -> the scale for the next one."""
    for group in trainer.optimizer.param_groups:
        group["lr"] = trainer.learning_rate(trainer.step)
    trainer.optimizer.zero_grad()
    (trainer.loss(trainer.step) * scale).backward()                            # autocast is inside trainer.loss
    for parameter in trainer.net.parameters():
        if parameter.grad is not None:
            parameter.grad /= scale                                            # before clipping, which compares with 1
    norm = nn.utils.clip_grad_norm_(trainer.net.parameters(), 1.0)
    if norm.isfinite():
        trainer.optimizer.step()
        trainer.ema.update(trainer.net)
    trainer.step += 1
    return scale if norm.isfinite() else scale / 2


# %%
# NBVAL_CHECK_OUTPUT
ours, theirs = tiny(), tiny()
for trainer in (ours, theirs):
    trainer.dtype = torch.float16                                              # `Trainer` refuses this on a CPU, where it is slow
theirs.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**26)
scale, skipped = 2.0**26, []
for _ in range(10):
    scale = half_step(ours, scale)
    skipped.append(theirs.train_step().skipped)
print("skipped at first, while the scale was too high:", skipped[0], "   none at the end:", not any(skipped[-2:]))
print("the scale that was found is the same:", scale == theirs.scaler.get_scale())
same = all(torch.allclose(p, q, atol=1e-6) for p, q in zip(ours.net.parameters(), theirs.net.parameters()))
moved = any((p - q).abs().max() > 1e-4 for p, q in zip(ours.net.parameters(), tiny().net.parameters()))
print("weights equal those of utils.train:", same, "   and they did move:", moved)

# %% [markdown]
# That is what `--amp fp16` does. Order matters: scale, backward, **unscale, then clip**, step, update. Clipping at 1 before unscaling would leave gradients with a norm of 1/65,536: plain gradient descent would stand still, and Adam cancels the size only down to its epsilon, $10^{-8}$, which is just the size of such gradients over 3 million weights. (Muon, in section 4, removes the size altogether, and would hide the mistake.) And the EMA moves only when the weights do.
#
# **On a T4**, from what PyTorch, Triton and NVIDIA publish, not tried here:
#
# | trap | what to do |
# |---|---|
# | `torch.cuda.is_bf16_supported()` says True, but a T4 has no bfloat16 units and emulates them, slowly | choose by compute capability: below 8.0 take float16 with a scaler (`utils.runtime.amp_dtype`) |
# | flash attention needs compute capability 8.0 | the memory-efficient kernel works, in float16 with a head dimension that is a multiple of 8; otherwise PyTorch silently falls back to one that stores all pairs |
# | Triton no longer supports the T4 | leave `torch.compile` (`--compile`) out |
# | 65 TFLOP/s on the box, about 24 sustained in large products (power limit) | plan with 5 to 10 for small networks |
# | 3D convolutions have slow paths in float16 | fold frames into the batch: a 1×3×3 convolution *is* a 2D one (lesson 05) |
#
# **On an H100**, in float16, some of the shipped weights were trained. What a step costs there is in a file (`python tests/benchmark_training_steps.py`; other work ran on the same machine, so read the times as upper bounds):

# %%
h100 = json.loads((ASSETS / "results" / "training-steps-nvidia-h100-80gb-hbm3.json").read_text())
print(f"{h100['device']}, vdm-text; losses of six steps (64 clips: the same ones)\n{'clips':>5s} {'':18s}{'ms a step':>10s}{'clips a second':>16s}{'peak, MiB':>11s}")
for row in h100["rows"]:
    way = precision_name({"off": None, "fp16": torch.float16}[row["amp"]]) + (", compiled" if row["compiled"] else "")
    print(f"{row['clips_a_step']:5d} {way:18s}{row['milliseconds']:10.0f}{row['clips_per_second']:16,.0f}{row['peak_memory_mib']:11,}   {row['losses']}  skipped: {row['skipped']}")
full, few, half, compiled = h100["rows"]
apart = max(abs(a - b) for way in (half, compiled) for a, b in zip(full["losses"], way["losses"]))
assert apart < 5e-4 and half["milliseconds"] < 2 * few["milliseconds"]          # the text below says so
assert half["milliseconds"] > 0.85 * full["milliseconds"] and compiled["milliseconds"] < 0.6 * full["milliseconds"] and compiled["peak_memory_mib"] < 0.5 * full["peak_memory_mib"]

# %% [markdown]
# - At 64 clips the losses agree to a unit in the last digit, and no step was skipped: in these few steps float16 with a scaled loss changes nothing beyond the last digit. (Whether a whole run ends the same is not shown here.)
# - **Four times the clips take much less than twice as long.** At 16 clips a step the GPU waits for the CPU, which launches several thousand kernels each step. A faster GPU does not help then; more clips a step do. This is why the `t4` budgets have 32 clips or more a step.
# - **Float16 alone saves a quarter of the memory and a tenth of the time.** Not half: weights, sums and losses stay in float32, and a kernel takes just as long to launch. `--compile` (`torch.compile`, which writes one kernel for a chain of operations) launches fewer kernels and keeps fewer intermediate results: then the step takes little more than half of float32's time, in less than half of its memory. It needs Triton, and a minute or two at the start.
#
# **When a run goes wrong.** Loss scaling has a welcome side effect: a step that is not finite is skipped. `utils` does this in every precision, and gives up after a while. Spoil the loss of a run and watch:

# %%
# NBVAL_CHECK_OUTPUT
run, checkpoint = tiny(), outputs() / "13_spoiled.pt"
for _ in range(2):
    run.train_step()
run.save(checkpoint)
before = copy.deepcopy(run.net.state_dict())
run.loss = lambda step, rows: sum(p.sum() for p in run.net.parameters()) * math.nan
print("one bad step is skipped:", run.train_step().skipped)
try:
    for _ in range(PATIENCE):
        run.train_step()
except TrainingError as error:
    print(error)
print("weights as before:", all(torch.equal(before[name], tensor) for name, tensor in run.net.state_dict().items()))
again = tiny()
again.load(checkpoint)
checkpoint.unlink()
print("and a new run goes on from the checkpoint; its next step is number", again.step + 1)

# %% [markdown]
# Section 5 is about several processes. They take a while to start, so start two now, on CPUs. The run has four steps. One process makes the first two here, and will go on to the end as the reference. Its checkpoint of step 2 is handed to *two* processes, which make the rest.

# %%
pair_folder = outputs() / "13_two_processes"
shutil.rmtree(pair_folder, ignore_errors=True)
alone = Trainer(recipe("vdm-text"), Budget(4, 2), "cpu", "off")
alone.train_step(), alone.train_step()
alone.save(pair_folder / "checkpoint.pt")
command = "-m torch.distributed.run --standalone --nproc_per_node=2 -m utils.train vdm-text --steps 4 --batch-size 2 --device cpu --amp off --resume"
pair = subprocess.Popen([sys.executable, *command.split(), "--out", str(pair_folder)], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                        env={**os.environ, "OMP_NUM_THREADS": "1"})
print("torchrun" + command.split("torch.distributed.run")[1])


# %% [markdown]
# ## 4. Memory
# What must be in memory at once in a training step?
#
# | | numbers | |
# |---|---|---|
# | weights, gradients, their running average (momentum), EMA | 4 × parameters | do not depend on the batch |
# | activations kept for the backward pass | clips × what one clip keeps | grow with batch, frames and pixels |
#
# **Predict:** for `vdm-text` (3 million parameters) with 16 clips of 16 frames and 8 images: which is larger, and by what factor? The graph keeps the activations: each operation holds on to what its backward pass will need. Hooks (`torch.autograd.graph.saved_tensors_hooks`) count them:

# %%
def kept(make):
    """-> bytes that a graph keeps for its backward pass, each storage once, and what `make` returns."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor                 # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = make()
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values()), result


# %%
# NBVAL_CHECK_OUTPUT
part = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.SiLU())
bytes_kept, _ = kept(lambda: part(torch.zeros(2, 4, 16, 16)))
expected = 4 * (2 * 4 * 16 * 16 + 8 * 4 * 3 * 3 + 2 * 8 * 16 * 16)             # input, weight, what SiLU is applied to
print(bytes_kept, "bytes; expected", expected, "; equal:", bytes_kept == expected)

# %%
text = recipe("vdm-text")
big_net = replace(text.net, in_channels=3)
LENGTH = 4 if BUDGET == "smoke" else 16                                        # frames
SIZES = {"32×32 grey": (text.net, (1, LENGTH, 32, 32)), "64×64 grey": (text.net, (1, LENGTH, 64, 64)), "64×64 RGB": (big_net, (3, LENGTH, 64, 64)),
         "32×32 grey, twice as long": (replace(text.net, max_distance=31), (1, 2 * LENGTH, 32, 32))}
costs = {name: measure(*settings) for name, settings in SIZES.items()}
shipped = measure(text.net, text.sample_shape, text.num_images)
figure, ax = plt.subplots(figsize=(9, 2.1), layout="constrained")
for y, (name, one) in enumerate({"vdm-text, batch 16, with 8 images a clip": shipped, "64×64, batch 16, no images": costs["64×64 grey"]}.items()):
    left = 0
    for (what, mib), colour in zip((("weights", one.parameters * 4 / 2**20), ("gradients", one.parameters * 4 / 2**20), ("momentum", one.parameters * 4 / 2**20),
                                    ("EMA", one.parameters * 4 / 2**20), ("activations", 16 * one.saved_bytes / 2**20)), ("black", show.GREY, "#bbbbbb", show.ORANGE, show.BLUE)):
        ax.barh(-y, mib, left=left, color=colour, label=what if y == 0 else None)
        left += mib
    ax.text(left, -y, f" {left:,.0f} MiB", va="center", fontsize=9)
    print(f"{name}: weights and all that belongs to them {one.parameters * 16 / 2**20:.0f} MiB, activations {16 * one.saved_bytes / 2**20:,.0f} MiB")
ax.set_yticks([0, -1], ["vdm-text,\n8 images a clip", "64×64,\nno images"])
ax.set(xlabel="MiB, float32, batch 16", xlim=(0, 1.15 * left))
figure.legend(loc="outside upper center", ncols=5, fontsize=8);


# %% [markdown]
# Activations are nearly all of it, more than twenty times the part that does not depend on the batch. There are two ways to save memory there; both compute the same.
#
# **Gradient accumulation.** The loss of a batch is a mean over its clips, and so is the gradient. So run the batch in parts, one after the other, and add the gradients up. The naive version forgets one thing. **Predict** which, before you look:

# %%
def gradient(trainer, losses):
    """The gradient that is there after a backward pass through each of the losses, as one vector."""
    trainer.optimizer.zero_grad()
    for loss in losses:
        loss().backward()
    return torch.cat([p.grad.flatten() for p in trainer.net.parameters() if p.grad is not None])


# %%
# NBVAL_CHECK_OUTPUT
one = tiny()
one.net = randomize(one.net)                                                   # so that no gradient is zero
quarters = ALONE.shares(4, parts=4)                                            # four slices of one row each
whole = gradient(one, [lambda: one.loss(0)])
added = gradient(one, [lambda rows=rows: one.loss(0, rows) for rows in quarters])
divided = gradient(one, [lambda rows=rows: one.loss(0, rows) / 4 for rows in quarters])
apart = lambda a, b: float((a - b).norm() / b.norm())
print("added up: equal?", torch.allclose(added, whole, atol=1e-5), "  4 times too large?", apart(added, 4 * whole) < 1e-4)
print("each part divided by 4: equal?", apart(divided, whole) < 1e-4)
four = tiny(parts=4)
print("a step of utils.train in 4 parts has the same loss:", abs(four.train_step().loss - tiny().train_step().loss) < 1e-5)


# %% [markdown]
# `--batch-size 64 --parts 4`: the memory of 16 clips, the gradient of 64. (This holds as long as no layer looks across the batch; group normalisation does not, batch normalisation would.)
#
# **Recompute.** A layer's activations are kept because its backward pass needs them. Keep only its *input*, and compute the rest again when its turn comes (Chen et al. 2016). Fifteen lines (without autocast and without random numbers in the layer; `torch.utils.checkpoint`, which `utils` uses, restores both):

# %%
class Recomputed(torch.autograd.Function):
    """A layer of which the graph keeps the input alone. Parameters are passed too, to tell the graph that there is something to learn."""
    @staticmethod
    def forward(ctx, layer, x, *parameters):
        ctx.layer = layer
        ctx.save_for_backward(x)
        return layer(x)                                                        # in here nothing is kept

    @staticmethod
    def backward(ctx, gradient):
        x = ctx.saved_tensors[0].detach().requires_grad_(True)
        with torch.enable_grad():
            y = ctx.layer(x)                                                   # once more, with a graph
        y.backward(gradient)                                                   # fills the gradients of x and of the parameters
        return None, x.grad, *[None for _ in ctx.layer.parameters()]


# %%
# NBVAL_CHECK_OUTPUT
stages = randomize(nn.ModuleList(nn.Sequential(*[nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1)) for _ in range(3)]) for _ in range(4))).double()
given = torch.randn(2, 16, 16, 16, generator=generator(2), dtype=F64)


def through(recompute):
    x = given
    for stage in stages:
        x = Recomputed.apply(stage, x, *stage.parameters()) if recompute else stage(x)
    return x


results = {}
for recompute in (False, True):
    stages.zero_grad()
    cost = count(stages, lambda: through(recompute))                           # runs forward and backward
    results[recompute] = cost, torch.cat([p.grad.flatten() for p in stages.parameters()])
print("same gradients:", torch.allclose(results[True][1], results[False][1], rtol=1e-12), "  of a size:", bool(results[True][1].norm() > 1))
print(f"kept: 1/{round(results[False][0].saved_bytes / results[True][0].saved_bytes)} of the bytes; FLOPs: {results[True][0].flops / results[False][0].flops:.2f} times as many")


# %% [markdown]
# Four passes instead of three (forward, forward again, and the two products of backward): a third more FLOPs. `UNet.recompute` (`--recompute`) does that for every stage of the network, not for what lies between them. (The count covers what waits between the two passes; while a stage is computed again, its activations come on top.)

# %%
def network_cost(recompute):
    network = randomize(UNet(text.net)).train()
    network.recompute = recompute
    cost = count(network, lambda: network(torch.zeros(1, 1, LENGTH, 32, 32), torch.zeros(1), torch.zeros(1, text.net.embed_dim)))
    return cost, torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


(keeping, g), (computing, g_again) = network_cost(False), network_cost(True)
print(f"kept {computing.saved_bytes / keeping.saved_bytes:.0%} of the bytes, {computing.flops / keeping.flops - 1:+.0%} FLOPs, gradients apart by {apart(g_again, g):.1e}")
assert computing.saved_bytes < 0.5 * keeping.saved_bytes and apart(g_again, g) < 1e-4

# %% [markdown]
# ### A larger network, from a smaller one
# What would you do with the memory? You could train a larger network. It need not start from scratch: **Net2Net** (Chen, Goodfellow, Shlens 2016, arXiv 1511.05641) gives every channel a twin with the same weights. A layer that read the channel now reads both, with two weights that add up to the old one. The function is the same, but has more weights to train. **Predict:** what is wrong with two equal halves?

# %%
# NBVAL_CHECK_OUTPUT
seeded = generator(3)
narrow = randomize(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1))).double()


def twins(share):
    """`narrow` with 8 channels in place of 4: of a weight w, one twin is read with share * w, the other with the rest."""
    wide = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1)).double()
    with torch.no_grad():
        for mine, theirs in ((wide[0].weight, narrow[0].weight), (wide[0].bias, narrow[0].bias)):
            mine.copy_(theirs.repeat_interleave(2, dim=0))
        wide[2].weight.copy_(torch.stack([share * narrow[2].weight, (1 - share) * narrow[2].weight], dim=2).flatten(1, 2))
        wide[2].bias.copy_(narrow[2].bias)
    return wide


picture = torch.randn(2, 1, 8, 8, generator=seeded, dtype=F64)
for name, share in (("equal halves", 0.5), ("random shares", torch.rand(narrow[2].weight.shape, generator=seeded, dtype=F64))):
    wide = twins(share)
    same = bool((wide(picture) - narrow(picture)).abs().max() < 1e-12)
    wide(picture).square().mean().backward()
    first, second = wide[0].weight.grad.view(4, 2, -1).unbind(1)               # of twins
    print(f"{name}: the same function: {same}; twins get the same gradient: {torch.allclose(first, second)}")

# %% [markdown]
# Equal twins that are read equally get equal gradients: they stay twins for ever, and the network is in effect no larger than before. Random shares separate them. `utils.unet.inflate` does that for a whole U-Net, at levels without attention (whose heads would mix twins up), and adds attention that starts as the identity. Here is `vdm-text` with twice the channels at 32 and 16 pixels, and attention at 16 pixels too:

# %%
# NBVAL_CHECK_OUTPUT
fine = (False, True, True, True)
small = load_pretrained("vdm-text", "cpu").net.double()
large = inflate(UNet(replace(text.net, channels=(32, 64, 96, 128), space=fine, time=fine)).double(), small)
noisy = torch.randn(1, 1, 4, 32, 32, generator=seeded, dtype=F64)
with torch.no_grad():
    print("starts as the smaller one:", bool((large(noisy, torch.zeros(1)) - small(noisy, torch.zeros(1))).abs().max() < 1e-10))
print("parameters:", *(sum(p.numel() for p in net.parameters()) for net in (small, large)))

# %% [markdown]
# Does it pay? We enlarged both the video and the image model like this and trained them further for some minutes on an H200 (measured once; these weights are not shipped). We also trained the image model from scratch, and `mav`, whose layers over time rest on it (images are sampled by DDIM here). Their small `mav-image` and `mav` are those that were shipped then, before [lesson 10](10_make_a_video.ipynb)'s practice and captioner:

# %%
grown = json.loads((ASSETS / "results" / "grown-networks.json").read_text())
for name, table in grown.items():
    print(f"{name}, n = {table['n']}, {table['split']} captions")
    for what, r in table["rows"].items():
        print(f"  {what:62s}{r['flops']:8.1e} FLOPs   both digits, by guidance: " + "  ".join(f"{scale} {row['digits']:4.0%}" for scale, row in r["guidance"].items()))
assert all(grown["mav-image"]["rows"][what]["guidance"][scale]["digits"] > r["digits"] for what in list(grown["mav-image"]["rows"])[1:]
           for scale, r in next(iter(grown["mav-image"]["rows"].values()))["guidance"].items())        # the text below says so
times = measure(large.config, text.sample_shape, text.num_images).flops / measure(text.net, text.sample_shape, text.num_images).flops
print(f"a clip of vdm-text costs the grown network {times:.1f} times as much")
before, after = (r["test"] for r in grown["vdm-text"]["rows"].values())
print("vdm-text, " + "; ".join(f"{what}, n = {r['n']}, guidance {r['guidance_scale']:g}: both digits {r['digits']:.1%} ({r['digits_low']:.1%} to {r['digits_high']:.1%}), off the path {r['rmse']:.2f} px, "
                               f"distance {r['kernel_distance']:.3f}" for what, r in (("shipped", before), ("grown", after))))

# %% [markdown]
# <details><summary>What to see</summary>
#
# The image model gains at every scale, and from scratch it passes the small one with not much more compute. (Its schedule moved too, from −2 to −1: two changes at once, so this is not width alone.) The grown video model had other settings, too: captions dropped twice as often (in a fifth of the clips), no curriculum. Its gain without guidance is at the limit of what this many captions can show; with guidance they decide nothing. And `mav` on top of the better pictures, trained for three minutes, shows *fewer* digits (at a scale of its own, so the two are not quite comparable): its attention over time at 16×16 was new.
#
# So the larger network was better for images and about as good for video. Whether that is due to its size or to the longer training was not measured: the small one was not trained further for as many FLOPs. (Size is not the only way, either: the small image model has since learnt more from practice beside a clearer digit, lesson 10, than it gains here.) And size has a price: each clip costs more than twice as much, so a T4 trains on less than half as many. That is why the shipped networks are small. You can enlarge yours without losing what it knows: `Trainer(replace(recipe, net=...), budget, initial=load_pretrained(...))`.
# </details>

# %% [markdown]
# ### More from the same FLOPs: the optimizer
# Adam looks at every weight separately, and divides each gradient by its usual size. But a layer's weights form a **matrix**, and what counts is what it does to vectors. A gradient, seen as a matrix, is a sum of directions, $G=\sum_i s_i\,u_i v_i^\top$ (singular value decomposition), and some of the $s_i$ are far larger than others. **Predict:** the gradient of a 3×3 convolution with 128 channels, as a matrix of 128 × 1,152, has 128 such directions. How many of them hold 90% of it (of $\sum s_i^2$)?

# %%
fresh = Trainer(replace(recipe("vdm-text"), curriculum=None), Budget(1000, 4), DEVICE, "off", initial=model)
fresh.loss(0).backward()
weight = fresh.net.middle[0].residual.conv1.weight
matrix = weight.grad.flatten(1).double().cpu()
sizes = {"gradient": torch.linalg.svdvals(matrix), "Adam's first step: its signs": torch.linalg.svdvals(matrix.sign()), "Muon's first step": torch.linalg.svdvals(orthogonalized(matrix[None])[0])}
figure, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
for (name, values), style in zip(sizes.items(), ("-", "--", "-")):
    ax.plot(range(1, 129), values / values.max(), style, label=name, color={"gradient": show.GREY, "Muon's first step": show.BLUE}.get(name, show.ORANGE))
ax.set(yscale="log", xlabel="direction, from the largest on", ylabel="size / largest", xlim=(1, 128))
ax.legend(fontsize=8)
share = (sizes["gradient"]**2).cumsum(0) / (sizes["gradient"]**2).sum()
print(f"{int((share < 0.9).sum()) + 1} of 128 directions hold 90% of the gradient")


# %% [markdown]
# A few directions hold nearly everything, and along the others plain gradient descent would hardly move. Adam's step, weight by weight, lifts the small ones, but leaves a few far ahead. **Muon** (Jordan et al. 2024) gives *all directions the same size*: it replaces $G=USV^\top$ by about $UV^\top$.
#
# This needs no decomposition: $GG^\top G=US^3V^\top$, so a polynomial in $G$ with odd powers applies that polynomial to each singular value. Choose one that pushes values from 0 to 1 up towards 1, and repeat it. It takes only matrix products, which a GPU does best:

# %%
# NBVAL_CHECK_OUTPUT
def levelled(g, a=3.4445, b=-4.7750, c=2.0315, rounds=5):
    """About U V^T of G = U S V^T."""
    x = g / g.norm()                                                           # now all singular values are at most 1
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


small_matrix = torch.randn(6, 9, generator=generator(1), dtype=F64)
u, s, vh = torch.linalg.svd(small_matrix, full_matrices=False)
s = s / s.norm()
for _ in range(5):
    s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5                             # the same polynomial, of numbers
print("acts on singular values alone:", torch.allclose(levelled(small_matrix), u * s @ vh))
print("they end between", *(round(float(value), 1) for value in (s.min(), s.max())))
print("ours equals utils':", torch.allclose(levelled(small_matrix), orthogonalized(small_matrix[None])[0]))

# %% [markdown]
# The matrix that is levelled is a running average of the gradients (momentum). The result is scaled to the size that Adam's steps usually have, so one learning rate serves both (Liu et al. 2025, arXiv 2502.16982). Biases, norms, embeddings, and the layers that read and write pixels are not such matrices: Adam keeps them. All of it is in `utils/optimizer.py`, and every `Trainer` uses it (the shipped `mnist-guided` and `vdm-text` have only had Adam, `mnist-ddpm` and `mav-upsample` only Muon, the others first one and then the other). What Muon gains, with the same network, data and number of steps (`python -m utils.compare optimizers`):

# %%
rows = json.loads((ASSETS / "results" / "video-optimizers.json").read_text())
levels = list(rows[0]["validation_loss"])
print(f"{rows[0]['clips']:,} clips a run; loss on held-out clips at log-SNR  " + "".join(f"{level:>9s}" for level in levels))
for r in rows:
    print(f"{r['variant']:59s}" + "".join(f"{r['validation_loss'][level]:9.4f}" for level in levels))
best = {name: min((r["validation_loss"] for r in rows if r["variant"].startswith(name)), key=lambda losses: sum(losses.values())) for name in ("Adam", "Muon")}
assert all(best["Muon"][level] <= best["Adam"][level] for level in levels)                          # the text below says so


# %% [markdown]
# <details><summary>What to see</summary>
#
# Muon is ahead of the better of the two Adam runs at every noise level, most of all where shapes are visible (log-SNR −2 and up). There is one run each, so small differences between learning rates mean little; but the largest rate is too large. The table leaves out that levelling takes time too, a few matrix products a step, whatever the batch; the next cell measures it here.
# </details>

# %%
def seconds_of(step, rounds=2 if BUDGET == "smoke" else 5):
    step()                                                                     # warms up
    wait()
    start = time.perf_counter()
    for _ in range(rounds):
        step()
    wait()
    return (time.perf_counter() - start) / rounds


fresh.optimizer.zero_grad()
print(f"a step of training, 4 clips with 8 images each, with Muon: {1e3 * seconds_of(fresh.train_step):.0f} ms; of this")
for name, optimizer in (("Muon", fresh.optimizer), ("Adam, in its place", torch.optim.Adam(fresh.net.parameters(), lr=0.0))):
    print(f"{name}: {1e3 * seconds_of(optimizer.step):.0f} ms")

# %% [markdown]
# With so few clips a step, and on a CPU, a step takes a tenth or so longer than with Adam; in the same time Adam could take that many more steps. The more clips a step, the less it matters.
#
# ## 5. More processes
# Now use a second GPU, or eight. In **data-parallel** training every process has a whole copy of the network and takes its share of the batch; gradients are averaged, and each process applies the same step to its copy. `torchrun` starts the processes; `DistributedDataParallel` averages: an *all-reduce* adds up the gradients, so that every process has the sum, and divides by their number.
#
# First the idea, within this one process: two copies, half a batch each. The loss of a batch is a mean, so the mean of the halves' gradients is the gradient of the whole. Three ways, two of them wrong. **Predict** what goes wrong with *sum*, and with *each process draws its own half with the seed of the run*:

# %%
# NBVAL_CHECK_OUTPUT
copies = [copy.deepcopy(one), copy.deepcopy(one)]                              # two "processes" with the same weights
shares = [Processes(rank, 2).shares(4)[0] for rank in (0, 1)]                  # rows 0, 1 and rows 2, 3
halves = [gradient(mine, [lambda: mine.loss(0, rows)]) for mine, rows in zip(copies, shares)]
same_seed = [gradient(mine, [lambda: mine.loss(0, shares[0])]) for mine in copies]
print("averaged = whole batch:", apart(sum(halves) / 2, whole) < 1e-4)
print("summed = whole batch:", apart(sum(halves), whole) < 1e-4, "  it is the double:", apart(sum(halves), 2 * whole) < 1e-4)
print("same seed = whole batch:", apart(sum(same_seed) / 2, whole) < 1e-4, "  it is half a batch, twice:", apart(sum(same_seed) / 2, halves[0]) < 1e-6)

# %% [markdown]
# The sum doubles the gradient (clipping at 1, and optimizers that remove the size, as Adam and Muon do, hide it well). The shared seed is worse, because nothing looks wrong: two machines do the work of one. Every process must draw *different* clips, noise and times. Many programs give each process its own seed; then the run depends on the number of processes. Here the whole batch is defined by (seed, step), and a process makes its own rows of it. So a run with one process and a run with eight are the same run. The two processes started before section 4 took over a single-process run at step 2 of 4; here the single process goes on to the end:

# %%
# NBVAL_CHECK_OUTPUT
while alone.step < 4:
    alone.train_step()
said = pair.communicate(timeout=600)[0]
assert pair.returncode == 0, said                     # all of it: the first error counts, not the last
print("the two went on from step 2 of 4:", "resumed at step 2 of 4" in said)
together = read_checkpoint(pair_folder / "checkpoint.pt")
print("steps:", together["step"], "  same losses:", np.allclose(together["history"], alone.history, atol=1e-5))
mine = alone.net.state_dict()
print("same weights:", all(torch.allclose(mine[name], tensor, atol=2e-4) for name, tensor in together["net"].items()))
fresh = Trainer(recipe("vdm-text"), Budget(4, 2), "cpu", "off").net.state_dict()
print("which are not those of the start:", any((fresh[name] - tensor).abs().max() > 1e-3 for name, tensor in together["net"].items()))

# %%
largest = max(float((mine[name] - tensor).abs().max()) for name, tensor in together["net"].items())
print(f"largest difference: of a loss {max(abs(a - b) for a, b in zip(together['history'], alone.history)):.1e}, of a weight {largest:.1e}")
figure, ax = plt.subplots(figsize=(5, 2.2), layout="constrained")
ax.plot(range(1, 5), alone.history, "o-", color=show.GREY, markersize=9, label="one process")
ax.plot(range(1, 5), together["history"], "x--", color=show.ORANGE, label="one, then two from step 3")
ax.set(xlabel="step", ylabel="loss", xticks=range(1, 5))
ax.legend(fontsize=8)
shutil.rmtree(pair_folder)

# %% [markdown]
# A process's number is its *rank*. Only rank 0 prints and writes; the others wait only at the all-reduce. If one dies, the others are told so and stop; the same command with `--resume` continues, with any number of processes. (Here messages are carried by *gloo*, a library for CPUs; on NVIDIA GPUs that is NCCL, which has not been run here.)
#
# **What does not scale.** In each step every process sends and receives the gradients: when $N$ processes form a *ring*, each passing partial sums on to the next, this is $2\,(N-1)/N$ times 4 bytes a parameter, however small its share of the batch. Compute shrinks as $1/N$, messages do not:

# %%
one_clip, message = shipped.flops, 4 * shipped.parameters                      # FLOPs, bytes
print(f"gradients: {message / 1e6:.1f} MB a step; a clip: {one_clip / 1e9:.1f} GFLOP")
links = {"10 GB/s": 10e9, "1 GB/s": 1e9, "0.1 GB/s": 1e8}                    # assumed: PCIe within a machine, a fast network, a slow one
number = np.array([1, 2, 4, 8, 16])
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained", sharey=True)
for ax, clips, title in zip(axes, (16 / number, 16 + 0 * number), ("16 clips shared by all", "16 clips each")):
    for (name, speed), style, colour in zip(links.items(), ("o-", "s--", "^-."), (show.BLUE, show.ORANGE, "black")):
        compute, talk = clips * one_clip / T4_SUSTAINED, 2 * (number - 1) / number * message / speed
        ax.plot(number, 100 * compute / (compute + talk), style, color=colour, label=name)
    ax.set(title=title, xlabel="processes", xscale="log", ylim=(0, 105))
    ax.set_xticks(number, map(str, number))
    ax.set_xticks([], minor=True)
axes[0].set_ylabel("% of the time computing")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, title="link", title_fontsize=8);


# %% [markdown]
# This is a model, not a measurement. It assumes 7 TFLOP/s a GPU, links about as fast as PCIe within a machine (10 GB/s), a fast network and a slow one, and no overlap (DistributedDataParallel does overlap: it sends the first gradients while the rest of the backward pass runs, so reality is better; starting kernels and small messages make it worse). It says what to do: **give each process enough to compute**. With more GPUs take larger batches, and then reconsider the learning rate, because a larger batch is a different run: fewer steps for the same clips.
#
# ## 6. Your own clips
# Moving MNIST was only a means. A folder of GIF or MP4 files works as well. Make one: clips of bouncing discs, squares and triangles, larger and longer than needed; with a damaged file, one that is too short and one that is not a clip, as real folders have.

# %%
def bouncing(kind, seed, frames=24, size=48, width=16):
    """(T, H, W) uint8: a shape that moves evenly and bounces."""
    rng, clip = np.random.default_rng(seed), []
    place, velocity = rng.uniform(0, size - width, 2), rng.uniform(1, 3, 2) * rng.choice([-1, 1], 2)
    for _ in range(frames):
        picture = Image.new("L", (size, size))
        (x, y), pen = place, ImageDraw.Draw(picture)
        if kind == "triangle":
            pen.polygon([(x, y + width), (x + width / 2, y), (x + width, y + width)], fill=255)
        else:
            (pen.ellipse if kind == "disc" else pen.rectangle)([x, y, x + width, y + width], fill=255)
        clip.append(np.asarray(picture))
        place = place + velocity
        velocity = np.where((place < 0) | (place > size - width), -velocity, velocity)
        place = place.clip(0, size - width)
    return np.stack(clip)


folder = outputs() / "13_my_clips"
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir()
names = [f"{kind}_{k}.gif" for k in range(8) for kind in ("disc", "square", "triangle")]
for seed, name in enumerate(names):
    iio.imwrite(folder / name, bouncing(name.split("_")[0], seed), duration=100, loop=0)
(folder / "cut_off.gif").write_bytes((folder / "disc_0.gif").read_bytes()[:700])
iio.imwrite(folder / "short.gif", bouncing("disc", 99, frames=5), duration=100)
(folder / "notes.txt").write_text("not a clip")
(folder / "captions.csv").write_text("file,caption\n" + "".join(f"{name},a {name.split('_')[0]} that bounces\n" for name in [*names, "cut_off.gif", "short.gif"]));

# %%
data = VideoFolder(folder, image_size=32, num_frames=16)
print(data)

# %%
# NBVAL_CHECK_OUTPUT
print("passed over:", sorted(data.skipped))
print(len(data), "clips;", data.texts[0], "|", tuple(data.sample(4).video.shape))

# %% [markdown]
# Every file that was passed over is listed, with the reason. (A clip of 24 frames may come back with 23: programs that write GIFs join two equal frames into one that lasts longer. `fps=10` would separate them again.) Now train. `vdm-text` would learn from captions, but its text encoder knows only the words of this series' grammar; other words are refused before anything is trained:

# %%
# NBVAL_CHECK_OUTPUT
try:
    Trainer(recipe("vdm-text"), Budget(1, 1), "cpu", "off", clips=data)
except CaptionError as error:
    print(str(error).splitlines()[0])

# %% [markdown]
# (Words of your own: extend the grammar in `utils/captions.py` and train from the beginning; or use a pretrained text encoder instead, as the paper does.)
#
# `vdm` takes no captions. Start from its shipped weights: what it knows of motion, walls and black background is useful, what it knows of digits is not. On the command line this is `python -m utils.train vdm --clips FOLDER --initial vdm --learning-rate 2e-3`; here without the packed images, to be quick. **Predict:** what do the first samples look like, digits, shapes or fog?

# %%
shapes = replace(recipe("vdm"), num_images=0, learning_rate=2e-3)              # half the recipe's: these weights are not new
vdm = load_pretrained("vdm", device=DEVICE)
few = Budget({"smoke": 2, "cpu": 60}.get(BUDGET, 400), {"smoke": 1, "cpu": 4}.get(BUDGET, 16))
tuning = Trainer(shapes, few, DEVICE, "auto", initial=vdm, clips=VideoFolder(folder, 32, 16, device=DEVICE))
begun = time.monotonic()
for progress in tuning.run():
    pass
print(f"{few.steps} steps, batch {few.batch_size}, in {precision_name(tuning.dtype)}: {time.monotonic() - begun:.0f} s")
quarter = max(1, few.steps // 4)
print(f"loss: {np.mean(tuning.history[:quarter]):.3f} in the first quarter of the steps, {np.mean(tuning.history[-quarter:]):.3f} in the last")

# %%
originals = torch.stack([data[k][:, :16] for k in (0, 8, 16)])                 # a disc, a square, a triangle
originals = (originals + 1) / 2
digits, learnt = (some.sample(num=3, steps=STEPS if BUDGET == "smoke" else 16, temporal_scale=1.0, seed=1) for some in (vdm, tuning.model()))
everything = torch.cat([originals, digits, learnt])
show.film_strip(everything, ["the folder"] * 3 + ["before"] * 3 + [f"after {few.steps} steps"] * 3, title="same noise before and after")

# %%
for name, some in (("the folder", originals), ("before", digits), (f"after {few.steps} steps", learnt)):
    print(f"{name:16s} mean brightness {float(some.mean()):.3f}, pixels that are neither black nor white {float(((some > 0.2) & (some < 0.8)).float().mean()):.1%}")

# %% [markdown]
# <details><summary>What to see</summary>
#
# Even after a short run most of the strokes are gone, replaced by filled shapes, about as bright as the folder's, which move evenly: motion and walls carried over. Which shape it is may still be undecided, and may change during the clip: identity over time is the hard part, as in lesson 06.
# </details>

# %%
show.play(everything, columns=3, scale=3, path=outputs() / "13_scaling_up.gif")

# %% [markdown]
# In a long run on so few clips a network memorises them: hold some out, and watch whether the loss on those still falls.
#
# **Colour, more pixels, more frames.** Three fields of a recipe set them. Here is a step on RGB clips of 64×64, to show that nothing else has to change:

# %%
# NBVAL_CHECK_OUTPUT
colourful = replace(shapes, sample_shape=(3, 4, 64, 64), net=replace(shapes.net, in_channels=3),
                    schedule=CosineSchedule(shift=shapes.schedule.shift + 2 * math.log(32 / 64)))
larger = Trainer(colourful, Budget(1, 1), DEVICE, "off", clips=VideoFolder(folder, 64, num_frames=4, channels=3, device=DEVICE))
print(tuple(larger.data.sample(1).video.shape), "loss is finite:", math.isfinite(larger.train_step().loss))

# %% [markdown]
# (Four frames, to be quick. The third field is the schedule: the same noise hides less in a larger picture, where neighbouring pixels say the same thing; *simple diffusion*, Hoogeboom et al. 2023, shifts the log-SNR by $2\log(32/64)$. For the command line, give the recipe a name in `utils/recipes.py`.)
#
# What a clip costs, forward and backward, measured as `utils.cost` does, without packed images:

# %%
base = costs["32×32 grey"]
print(f"clips of {LENGTH} frames\n{'':26s}{'parameters':>12s}{'GFLOP':>8s}{'':>8s}{'kept, MiB':>11s}{'':>8s}{'240,000 clips on a T4 (estimate)':>45s}")
for name, cost in costs.items():
    minutes = cost.flops * 240_000 / T4_SUSTAINED / 60
    print(f"{name:26s}{cost.parameters / 1e6:11.2f}M{cost.flops / 1e9:8.1f}{cost.flops / base.flops:7.1f}x{cost.saved_bytes / 2**20:11.0f}{cost.saved_bytes / base.saved_bytes:7.1f}x{minutes:41.0f} min")

# %% [markdown]
# Colour is nearly free: only the first and the last layer see it. Four times the pixels cost about four times as much, twice the frames about twice: attention grows faster, but its products over pairs are a small part of this network's FLOPs.
#
# **Play:** your own size. Change the numbers; will it fit on a T4 (about 14.6 GiB)?

# %%
pixels = 64  #@param {type:"slider", min:32, max:128, step:32}
frames = 16  #@param {type:"slider", min:4, max:64, step:4}
colour = True  #@param {type:"boolean"}
clips_a_step = 64  #@param {type:"integer"}
parts_a_step = 4  #@param {type:"integer"}
recompute = False  #@param {type:"boolean"}
channels = 3 if colour else 1
mine = measure(replace(text.net, in_channels=channels, max_distance=max(15, frames - 1)), (channels, frames, pixels, pixels))
share = computing.saved_bytes / keeping.saved_bytes if recompute else 1
gib = (clips_a_step / parts_a_step * mine.saved_bytes * share + TRAINING_COPIES * mine.parameters) / 2**30
print(f"{mine.flops * (computing.flops / keeping.flops if recompute else 1) / 1e9:.0f} GFLOP a clip; {gib:.1f} GiB in float32, at least {gib / 2:.1f} in half precision, as norms stay in float32: "
      f"{'fits' if gib < 14.6 else 'may fit in half precision' if gib / 2 < 14.6 else 'does not fit'} on a T4 (estimate)")

# %% [markdown]
# Where does this end? Look at the numbers for real video.
#
# ## 7. The bridge to today
# ### Another space: latents
# Take five seconds of 1280×720 at 24 frames a second. An *autoencoder* maps 8×8 pixels of 4 frames to a vector of, say, 16 numbers, and back (CogVideoX's published configuration is of this size). The diffusion model then works on these **latents** (Rombach et al. 2022; for video Blattmann et al. 2023).

# %%
# NBVAL_CHECK_OUTPUT
raw = 5 * 24 * 3 * 720 * 1280
latent = (5 * 24 // 4) * 16 * (720 // 8) * (1280 // 8)
ours_ = 16 * 32 * 32
print(f"numbers in the clip: {raw:,}; in its latents: {latent:,}, {raw // latent} times fewer; in a clip of this series: {ours_:,}")
tokens_today = (5 * 24 // 4) * (720 // 16) * (1280 // 16)
print(f"tokens, if 2×2 latents make one: {tokens_today:,}")


# %% [markdown]
# What is lost on the way? Try the simplest autoencoder there is: cut clips into blocks, and keep only each block's coordinates along the $k$ directions in which blocks differ most (principal components, the best *linear* encoder and decoder). **Predict:** at the same share of numbers kept, is it better to compress frame by frame, or across frames too? And what happens to noise?

# %%
def blocks(video, t, p):
    return rearrange(video, "b 1 (n t) (h p) (w q) -> (b n h w) (t p q)", t=t, p=p, q=p)


def clips_of(rows, t, p, like):
    b, _, frames, height, width = like.shape
    return rearrange(rows, "(b n h w) (t p q) -> b 1 (n t) (h p) (w q)", b=b, n=frames // t, h=height // p, t=t, p=p)


def autoencode(train, test, k, t, p):
    """Both (N, 1, T, H, W) -> test, through k numbers a block of t frames of p x p pixels."""
    rows = blocks(train, t, p)
    mean = rows.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        *_, directions = torch.pca_lowrank(rows, q=min(k + 16, rows.shape[1]), niter=4)
    directions = directions[:, :k]                                             # (t p p, k)
    return clips_of((blocks(test, t, p) - mean) @ directions @ directions.mT + mean, t, p, test)


# %%
train, test = (MovingMNIST(split, 11).sample(48 if BUDGET == "smoke" else 128).video for split in ("train", "test"))
noise = [torch.randn(train.shape, generator=generator(seed)) for seed in (5, 6)]
kept_numbers = [2, 8, 32, 128]
error = lambda made, true: float(((made - true).square().mean() / (true - true.mean()).square().mean()).sqrt())
ways = {"blocks of 8×8, 4 frames": (train, test, 4, 1), "blocks of 8×8, one frame": (train, test, 1, 4), "control: noise, 4 frames": (*noise, 4, 1)}
curves = {name: [error(autoencode(a, b, k // less, t, 8), b) if k // less else None for k in kept_numbers] for name, (a, b, t, less) in ways.items()}
figure, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
for (name, curve), colour, style in zip(curves.items(), (show.BLUE, show.ORANGE, show.GREY), ("o-", "s--", "^:")):
    ax.plot([k for k, e in zip(kept_numbers, curve) if e], [e for e in curve if e], style, color=colour, label=name)
    print(f"{name:26s}" + "   ".join(f"{k} of 256: {'-' if e is None else f'{e:.2f}'}" for k, e in zip(kept_numbers, curve)))
ax.set(xscale="log", xlabel="numbers kept of 256", ylabel="RMS error / standard deviation", ylim=(0, 1.02))
ax.set_xticks(kept_numbers, map(str, kept_numbers))
ax.set_xticks([], minor=True)
ax.legend(fontsize=8)
assert curves["blocks of 8×8, 4 frames"][1] < curves["blocks of 8×8, one frame"][1] < curves["control: noise, 4 frames"][1] < 1     # the text below says so

# %%
few_clips = test[:2]
levels = torch.cat([few_clips, *[autoencode(train, few_clips, k, 4, 8) for k in reversed(kept_numbers)]]).clamp(-1, 1)
show.film_strip((levels + 1) / 2, ["real"] * 2 + [f"{k} of 256" for k in reversed(kept_numbers) for _ in range(2)], every=2)


# %% [markdown]
# ("-": less than one number a frame.) With 8 of 256 numbers a block, coding four frames together beats coding each alone: a block of a video knows something of the next frame. With many numbers there is no such gain. Noise cannot be compressed (its error is $\sqrt{1 - k/256}$, all that is not kept), which is the point: an autoencoder keeps what data have in common. A linear one blurs; it cannot say "this stroke, here". Real ones are deep networks trained with losses that punish blur, and manage with one number in 48. Not shown here.
#
# The diffusion model does not notice. Latents have axes B C T H W, and everything from lesson 01 on is in terms of those. (Scale them to about the variance that the schedule was chosen for.) What a decoder loses, no diffusion model brings back.
#
# ### Another network: DiT
# Latents are short sequences of rich tokens, and a plain transformer is good at those. **DiT** (Peebles and Xie 2022): cut the input into patches, one token each; apply blocks of attention and an MLP; the condition (noise level, caption) shifts, scales and *gates* both. The layer that makes these six vectors starts at zero: **adaLN-zero**. **Predict:** what does such a block do before training? You have met the idea in lesson 09.

# %%
class DiTBlock(nn.Module):
    """Attention among all tokens, then an MLP; the condition shifts, scales and gates both (adaLN-zero)."""
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulation = zero_init(nn.Linear(width, 6 * width))

    def attend(self, x):
        q, k, v = rearrange(self.qkv(x), "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)"))

    def forward(self, x, c):                                                   # x (B, N, D), c (B, D)
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(F.silu(c))[:, None].chunk(6, dim=-1)
        x = x + gate * self.attend(self.norms[0](x) * (1 + scale) + shift)
        return x + gate2 * self.mlp(self.norms[1](x) * (1 + scale2) + shift2)


# %%
# NBVAL_CHECK_OUTPUT
tokens, c = torch.randn(2, 12, 32, generator=generator(3), dtype=F64), torch.randn(2, 32, generator=generator(4), dtype=F64)
block = DiTBlock(32, 4).double()
print("fresh: the identity?", torch.equal(block(tokens, c), tokens), "  output varies:", bool(block(tokens, c).std() > 0.1))
open_gates = DiTBlock(32, 4).double()
open_gates.modulation.bias.data.view(6, -1)[[2, 5]] = 1                        # the twin: gates of 1
print("gates that start at 1: the identity?", torch.equal(open_gates(tokens, c), tokens))
trained = randomize(DiTBlock(32, 4)).double()
print("random weights: the identity?", torch.equal(trained(tokens, c), tokens), "  the condition counts:", not torch.allclose(trained(tokens, c), trained(tokens, -c)))


# %%
class DiT(nn.Module):
    """The same interface as `UNet`: (z, log_snr, cond) -> v, through tokens of t frames of p x p pixels. gain: of the last norm, told by the condition."""
    def __init__(self, shape=(1, 16, 32, 32), t=2, p=4, width=64, depth=3, heads=2, gain=True):
        super().__init__()
        c, frames, height, pixels = shape
        self.patch, tokens = {"t": t, "p": p, "q": p}, frames // t * height // p * pixels // p
        self.grid = {"n": frames // t, "h": height // p, "w": pixels // p}
        self.log_snr, self.place = ScalarEmbedding(width, -20, 20), nn.Parameter(0.02 * torch.randn(tokens, width))
        self.first = nn.Linear(c * t * p * p, width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.norm, self.last = nn.LayerNorm(width, elementwise_affine=not gain), zero_init(nn.Linear(width, c * t * p * p))
        self.modulation = zero_init(nn.Linear(width, 2 * width)) if gain else None

    def forward(self, z, log_snr, cond=None):
        x = self.first(rearrange(z, "b c (n t) (h p) (w q) -> b (n h w) (c t p q)", **self.patch)) + self.place
        condition = self.log_snr(log_snr) if cond is None else self.log_snr(log_snr) + cond
        for block in self.blocks:
            x = block(x, condition)
        x = self.norm(x)
        if self.modulation is not None:
            shift, scale = self.modulation(F.silu(condition))[:, None].chunk(2, dim=-1)
            x = x * (1 + scale) + shift
        return rearrange(self.last(x), "b (n h w) (c t p q) -> b c (n t) (h p) (w q)", **self.patch, **self.grid)


# %% [markdown]
# You have the rest already: the same data, clock, noise, target and loss, and in the end the same sampler. A short training, live. "The loss fell" says little. A guess that knows nothing of video, only the mean $m$ and the variance $\rho^2$ of a pixel, shrinks each noisy pixel towards the mean, and has the loss $(1 + \text{SNR}) / (1/\rho^2 + \text{SNR})$ on v (lesson 02's Gaussian): that is the first baseline to beat. It is the best *linear* guess. Nine pixels of ten are black, so a guess that looks at one noisy pixel and knows how often each brightness occurs can do better: the second baseline. Only a network below that must have looked at a neighbour.
#
# We also train a twin that lacks one thing: the condition does not tell the last norm its gain. **Predict:** how much can that matter, in a network of three blocks that all know the noise level?

# %%
schedule, digits_data = recipe("vdm").schedule, MovingMNIST("train", 0)


def dit_loss(dit, step, num=4):
    x, g = digits_data.sample(num, index=step).video.to(DEVICE), generator(0, step)
    log_snr, eps = schedule.log_snr(schedule.sample_t(num, g)).float().to(DEVICE), torch.randn(x.shape, generator=g).to(DEVICE)
    return loss_per_sample(dit(q_sample(x, log_snr, eps), log_snr), x, eps, log_snr, "v").mean()


def train_dit(steps, **options):
    torch.manual_seed(0)
    dit, losses = DiT(**options).to(DEVICE), []
    optimizer = torch.optim.Adam(dit.parameters(), lr=4e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 10)                       # warm-up
        loss = dit_loss(dit, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return dit, torch.stack(losses).tolist()


dit_steps = {"smoke": 10, "cpu": 120}.get(BUDGET, 600)
(dit, losses), (twin, without) = train_dit(dit_steps), train_dit(dit_steps, gain=False)


# %%
def loss_of_one_pixel(video, levels):
    """Loss on v, mean over the levels, of the best guess from one noisy pixel that knows how often each of 101 levels of grey occurs: an integral over what the pixel may be."""
    grey = torch.linspace(-1, 1, 101, dtype=F64)
    share, losses = ((video.flatten() + 1) * 50).round().long().bincount(minlength=101).double() / video.numel(), []
    for level in levels[levels < 10]:                                              # above, levels of grey cannot be mistaken: 0
        alpha, sigma = alpha_sigma(level)
        z = torch.linspace(-alpha - 6 * sigma, alpha + 6 * sigma, 4001, dtype=F64)
        both = share * torch.exp(-((z[:, None] - alpha * grey) / sigma) ** 2 / 2) / (sigma * (2 * torch.pi) ** 0.5)
        x_hat = (both @ grey) / both.sum(1).clamp(min=1e-300)
        missed = share @ grey**2 - (both.sum(1) * x_hat**2).sum() * (z[1] - z[0])
        losses.append(float((1 + level.exp()) * missed.clamp(min=0)))
    return sum(losses) / len(levels)


# %%
snr, r2 = schedule.log_snr(schedule.times(1000))[:-1].exp(), float(digits_data.sample(64, index=10_001).video.var())
guess, better = float(((1 + snr) / (1 / r2 + snr)).mean()), loss_of_one_pixel(digits_data.sample(64, index=10_001).video, schedule.log_snr(schedule.times(200))[:-1])
mean_of = lambda curve: np.convolve(curve, np.ones(5) / 5, "valid")
figure, ax = plt.subplots(figsize=(6.5, 2.6), layout="constrained")
ax.plot(mean_of(losses), color=show.BLUE, label="DiT")
ax.plot(mean_of(without), "--", color=show.ORANGE, label="last norm without a told gain")
ax.axhline(guess, color=show.GREY, linestyle=":", label="knows mean and variance of a pixel")
ax.axhline(better, color=show.GREY, linestyle="-.", label="knows how often each brightness occurs")
ax.set(xlabel="step", ylabel="loss (mean of 5 steps)", ylim=(0, 1))
ax.legend(fontsize=8)
with torch.no_grad():
    held_out, of_twin, untrained = (float(np.mean([float(dit_loss(some, 10_000 + k, 8)) for k in range(4)])) for some in (dit, twin, DiT().to(DEVICE)))
print(f"loss on clips apart: {untrained:.3f} before, {held_out:.3f} after {dit_steps} steps of 4 clips; the twin {of_twin:.3f}; the guesses {guess:.3f} and {better:.3f}; {sum(p.numel() for p in dit.parameters()) / 1e6:.2f}M parameters")
assert BUDGET == "smoke" or held_out < 0.95 * guess < 0.95 * of_twin                                    # the text below says so

# %%
# NBVAL_CHECK_OUTPUT
own = [generator(0, k) for k in range(2)]
with torch.no_grad():
    *_, made = sample_loop(guided_denoiser(dit, None, 1.0, "v"), randn_per_sample((1, 16, 32, 32), own).to(DEVICE), schedule.log_snr(schedule.times(4)), own)
print("the loss fell:", held_out < 0.97 * untrained, "  utils' sampler takes it as it is:", tuple(made.z.shape), bool(made.z.isfinite().all()))

# %% [markdown]
# In a minute it beats the linear guess. (That is far from clips worth looking at, and says nothing about DiT against U-Net.) Where it does not beat the second, as after a minute on a CPU, nothing shows yet that it looks at neighbours: a loss below *some* guess says little; the better the guess, the more it says. The twin does not even beat the first in as many steps. A norm removes the size of every token, while what v needs from the noisy input changes in *size* with the noise level: by the formula above, the best guess of a pixel's v is nearly none of its noisy value at both ends, and about all of it between. The blocks know the level, but all they do is add, before the norm. So DiT's last layer is modulated too: a line that is easily left out, and no error message tells you.

# %% [markdown]
# **And what it costs.** A DiT of today lets *all* tokens of space and time attend to each other; lesson 05 factorized attention to save that. For $N = S\,T$ tokens of width $D$ a block's attention does $4\,N^2 D$ FLOPs over everything, $4\,N\,(S + T)\,D$ factorized; its linear layers do $24\,N D^2$. The counter checks the first and the last together (with plain products: it does not see into every fused kernel):

# %%
# NBVAL_CHECK_OUTPUT
with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
    DiTBlock(64, 2)(torch.zeros(1, 50, 64), torch.zeros(1, 64))
counted = counter.get_total_flops()
formula = 24 * 50 * 64**2 + 4 * 50**2 * 64 + 2 * 6 * 64**2                      # the last: the six vectors
print("counted:", counted, "  by the formula:", formula, "  equal:", counted == formula)

# %%
D = 2048                                                                       # a width, for the picture
side, T_ = np.array([4, 8, 16, 32, 60]), 30                                    # S = side × side tokens a frame, 30 latent frames
S = side**2
N = S * T_
figure, ax = plt.subplots(figsize=(6.5, 3), layout="constrained")
for flops, colour, style, name in ((4.0 * N**2 * D, show.ORANGE, "s-", "attention over everything"), (4.0 * N * (S + T_) * D, show.BLUE, "o-", "attention over space, then time"), (24.0 * N * D**2, show.GREY, "^--", "linear layers")):
    ax.plot(N, flops / 1e12, style, color=colour, label=name)
ax.axvline(tokens_today, color="black", linewidth=0.8, linestyle=":")
even = 6 * D                                                                   # 4 N² D = 24 N D²
ax.axvline(even, color=show.GREY, linewidth=0.8, linestyle=":")
ax.set(xscale="log", yscale="log", xlabel="tokens (30 frames)", ylabel=f"TFLOP a block, width {D}")
for place, said in ((tokens_today, "5 s of 720p "), (even, "even ")):
    ax.text(place, 0.04, said, transform=ax.get_xaxis_transform(), ha="right", fontsize=8)
ax.legend(fontsize=8)
print(f"width {D}: attention over everything passes the linear layers at {even:,} tokens; for 5 s of 720p it is {4 * tokens_today**2 * D / (24 * tokens_today * D**2):.0f} times as much as they")

# %% [markdown]
# Latents come first for this reason: a factor saved in tokens is squared in all-to-all attention. Even so, attention is most of the cost of a long clip. It is paid because each place sees every other at once, in one layer, including a digit that has left its place (lesson 05). *Who sees whom* is as good a question here: the probes of lesson 05, masks for images packed with clips (07) and positions are the same.
#
# ### Another path: flow matching
# A flow model predicts $u = \epsilon - x$ on the straight line $z' = (1-t)\,x + t\,\epsilon$ (Liu et al. 2022, Lipman et al. 2022). Given $z$ and $\lambda$, the four things that a network may predict carry the same information, in different units:

# %%
# NBVAL_CHECK_OUTPUT
g = generator(21)
x, eps = torch.randn(2, 64, 1, 4, 4, 4, generator=g, dtype=F64)
log_snr = torch.linspace(-8, 8, 64, dtype=F64)
z, x_hat = q_sample(x, log_snr, eps), torch.randn(x.shape, generator=g, dtype=F64)
eps_hat = to_eps(x_hat, z, log_snr)                                            # what an estimate of x says about the noise
for kind in ("eps", "v", "flow"):
    said = target(x_hat, eps_hat, log_snr, kind)                               # the same estimate, put as `kind`
    print(f"{kind:4s} and back to x:", torch.allclose(to_x(said, z, log_snr, kind), x_hat))
snr = log_snr.exp()
loss = {kind: loss_per_sample(target(x_hat, eps_hat, log_snr, kind), x, eps, log_snr, kind).double() for kind in ("x", "v", "flow")}
print("loss on flow = (1 + sqrt SNR)² × loss on x:", torch.allclose(loss["flow"], (1 + snr.sqrt()) ** 2 * loss["x"], rtol=1e-4))
print("loss on v = (1 + SNR) × loss on x:", torch.allclose(loss["v"], (1 + snr) * loss["x"], rtol=1e-4))

# %% [markdown]
# So a flow loss is a v loss with a different weight on each noise level, and a flow's time is a different clock ([lesson 02](02_fast_samplers.ipynb) showed that for the cosine schedule without shift, and each with its own uniform $t$, the two weights agree up to a constant; `vdm-text` has a shifted clock, so its weight differs). Hence the shipped `vdm-text`, trained on v, *is* a flow model. Walk along the straight line, with Euler steps and its own $\hat\epsilon - \hat x$:

# %%
# NBVAL_CHECK_OUTPUT
captions, flow, own = ["3 and 7", "1 and 0"], FlowSchedule(), [generator(0, k, 3) for k in range(2)]
believe = guided_denoiser(model.net, model.encode(captions), 2.0, "v")
start, times = randn_per_sample(model.sample_shape, own).to(DEVICE), flow.times(STEPS)
line = start
with torch.no_grad():
    for t, s in zip(times.tolist(), times[1:].tolist()):
        scale = math.sqrt((1 - t) ** 2 + t**2)                                 # the line's z' is our z times this
        x_hat = believe(line / scale, flow.log_snr(t).float().expand(2).to(DEVICE)).clamp(-1, 1)
        line = line + (s - t) * (line - x_hat) / t                             # Euler: eps - x = (z' - x) / t
    *_, last = sample_loop(believe, start, flow.log_snr(times), own, "ddim")
    *_, other = sample_loop(believe, start, schedule.log_snr(times), own, "ddim")
print("Euler steps of a flow = DDIM on the flow's clock:", torch.allclose(line, last.z, atol=1e-2), "  on the cosine's clock:", torch.allclose(line, other.z, atol=1e-2))

# %%
print(f"largest difference, of values in [-1, 1]: on the flow's clock {float((line - last.z).abs().max()):.1e}, on the cosine's {float((line - other.z).abs().max()):.1e}")

# %%
show.film_strip((line.clamp(-1, 1).cpu() + 1) / 2, captions, title=f"vdm-text, sampled as a flow: {STEPS} Euler steps on the straight line")


# %% [markdown]
# The equality is the point here, not the picture: it took few steps, and is no better than the model.
#
# ### What changes, what stays
#
# | | this series | today's large models | where |
# |---|---|---|---|
# | space | pixels, 16×32×32 to 76×64×64 | latents of an autoencoder, often 8×8 pixels, and for video several frames, to a vector | Latent diffusion 2112.10752, Video LDM 2304.08818 |
# | network | factorized U-Net | transformer over patches (DiT), often all tokens at once | DiT 2212.09748 |
# | condition | added in each block | adaLN, and text tokens that are attended to | DiT 2212.09748, SD3 2403.03206 |
# | text | two small layers, 16 words | large pretrained encoders | SD3 2403.03206 |
# | target and path | v on a cosine | v, or flow on the straight line with time drawn logit-normal | 2209.03003, 2210.02747, SD3 2403.03206 |
# | images and clips | packed, masked (lesson 07); or images first (lesson 10) | trained on both, in stages | Video LDM 2304.08818 |
# | long, smooth, large | extension, interpolation, super-resolution | the same three, some as one model | lessons 08, 11, 12 |
# | guidance, log-SNR, samplers, EMA | lessons 01 to 03 | the same | |
#
# What the largest systems do is only partly published; the third column says what the papers in the last column say, and no more.
#
# | if it looks like this | then look at |
# |---|---|
# | out of memory | `--parts 2`, then `--recompute`, then a smaller batch; sampling: fewer clips at once |
# | loss NaN, steps skipped all the time | `--resume` with a smaller `--learning-rate`, or with `--amp off`; sums in half precision (section 3) |
# | a few steps skipped at the start in float16 | nothing: the scale is being found |
# | GPU slow, utilisation below a half | batch too small, data drawn on the CPU, thousands of small kernels (section 1) |
# | bfloat16 slower than float32 | a GPU without units for it, like the T4: use float16 |
# | processes hang at the start | one of them failed or was never started: look at the first error, not the last; a firewall between machines |
# | twice the GPUs, the same curve, the same time | the link (section 5), or each has too little to compute |
# | twice the GPUs, a curve as noisy as before | all draw the same rows: seeds |
# | own clips: samples copy one of the clips | too few clips, too many steps |
#
# ## 8. Faithful? The box
#
# | the papers say | we do | why |
# |---|---|---|
# | *Video Diffusion Models*: batches of 128 and more, 60,000 to 700,000 steps, 128 to 256 channels | the recipe: 32 clips, up to 28,700 steps, 16 to 128 channels; the shipped `vdm-text`: 46,810 steps of 4 to 128 clips | a free GPU |
# | Adam, on all weights | Muon on matrices, Adam on the rest; most shipped weights began with Adam | a lower loss after equally many steps (section 4) |
# | 64×64 pixels and more | 32×32, and 64×64 by super-resolution | the same |
# | machines: not compared here | float16 with loss scaling on GPUs below compute capability 8.0, else bfloat16; any number of processes | what the papers used is not claimed here |
# | both work in pixels, with a U-Net | the same | latents and DiT came later or elsewhere: section 7 is a bridge, not a reproduction |
#
# ## 9. Exercises
# ### Exercise 1 · Unequal shares (difficulty ●○○, importance ●●●, 5 minutes)
# Process $i$ has `sizes[i]` clips, and `gradients[i]` is the gradient of the *mean* loss over them. What is the gradient of the mean loss over all clips? (`utils` avoids the question: it refuses batches that cannot be shared evenly.)

# %%
def averaged(gradients, sizes):
    """gradients (P, D), sizes (P,) -> (D,)"""
    return ...  # your line here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_averaged(gradients, sizes):
    return (gradients * sizes[:, None]).sum(0) / sizes.sum()


averaged = check("exercise 1", averaged, reference_averaged, (torch.randn(3, 4, generator=generator(30)), torch.tensor([5.0, 1.0, 2.0])),
                 (torch.randn(2, 4, generator=generator(31)), torch.tensor([3.0, 3.0])))


# %% [markdown]
# <details><summary>Hint</summary>Undo each mean (multiply by its size), add up, divide by the total number of clips.</details>
# <details><summary>Solution</summary>
#
# ```python
# return (gradients * sizes[:, None]).sum(0) / sizes.sum()
# ```
#
# With equal sizes it is the plain mean, the one that an all-reduce gives. With unequal sizes the plain mean gives the clips of small shares too much weight.
# </details>
#
# ### Exercise 2 · The loss scaler (difficulty ●●○, importance ●●●, 10 minutes)
# The rule of section 3 in full: if a gradient is not finite, halve the scale and count good steps from zero; after `interval` good steps in a row double it and count from zero. Return the new scale and the new count.

# %%
def next_scale(scale, good_steps, finite, interval=2000):
    """-> (scale, good_steps)"""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_next_scale(scale, good_steps, finite, interval=2000):
    if not finite:
        return scale / 2, 0
    if good_steps + 1 == interval:
        return scale * 2, 0
    return scale, good_steps + 1


next_scale = check("exercise 2", next_scale, reference_next_scale, (65536.0, 7, True, 2000), (65536.0, 7, False, 2000), (1024.0, 3, True, 4), (1024.0, 3, False, 4))

# %% [markdown]
# Your rule against PyTorch's, on a run in which gradients overflow whenever the scale is above 5,000:

# %%
# NBVAL_CHECK_OUTPUT
scaler = torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=3)
weight = nn.Parameter(torch.zeros(1))
descent = torch.optim.SGD([weight], lr=0.1)
scale, good, agree, scales = 65536.0, 0, True, set()
for _ in range(24):
    scaler.scale(weight.sum()).backward()
    if scale > 5000:
        weight.grad.fill_(math.inf)
    finite = bool(weight.grad.isfinite().all())
    scaler.step(descent)
    scaler.update()
    descent.zero_grad()
    scale, good = next_scale(scale, good, finite, 3)
    agree &= scale == scaler.get_scale()
    scales.add(scale)
print("the same scale as PyTorch's in every step:", agree, "  scales seen:", sorted(scales))


# %% [markdown]
# <details><summary>Hint</summary>Three cases, in this order: not finite; the count reaches the interval; otherwise.</details>
# <details><summary>Solution</summary>
#
# ```python
# if not finite:
#     return scale / 2, 0
# if good_steps + 1 == interval:
#     return scale * 2, 0
# return scale, good_steps + 1
# ```
#
# The scale climbs until it is just too high, and a step is lost now and then: that is how it finds the limit.
# </details>
#
# ### Exercise 3 · Windows in time (difficulty ●●○, importance ●●○, 10 minutes)
# Something between all-to-all and factorized: a token sees *all places* of the frames in its own window of `w` frames (`w` divides `frames`). Given are a clip of `frames` × `height` × `width` latents, a token for every patch of 1×`p`×`p`, and a block of width `d`. Return the number of tokens, the FLOPs of the windowed attention (multiply-add = 2; products with keys and with values only), and the largest `w` among the divisors of `frames` for which these FLOPs are at most those of the block's linear layers, $24\,N d^2$ (0 if there is none).

# %%
def windowed_cost(frames, height, width, p, d, w):
    """-> (tokens, FLOPs of attention in windows of w frames, the largest affordable w)"""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_windowed_cost(frames, height, width, p, d, w):
    space = (height // p) * (width // p)
    tokens = frames * space
    affordable = [k for k in range(1, frames + 1) if frames % k == 0 and 4 * tokens * k * space * d <= 24 * tokens * d**2]
    return tokens, 4 * tokens * w * space * d, max(affordable, default=0)


windowed_cost = check("exercise 3", windowed_cost, reference_windowed_cost, (16, 8, 8, 1, 64, 4), (30, 90, 160, 2, 2048, 5), (30, 90, 160, 1, 512, 1))

# %% [markdown]
# <details><summary>Hint</summary>Every token is multiplied with each token it sees, d multiplications for the key and d for the value: 4 d FLOPs for each token seen. How many does it see?</details>
# <details><summary>Solution</summary>
#
# ```python
# space = (height // p) * (width // p)
# tokens = frames * space
# affordable = [k for k in range(1, frames + 1) if frames % k == 0 and 4 * tokens * k * space * d <= 24 * tokens * d**2]
# return tokens, 4 * tokens * w * space * d, max(affordable, default=0)
# ```
#
# A token sees w · space tokens, so the bound is w · space ≤ 6 d: three frames of a 720p clip at width 2048, and not even one frame where each latent is a token of width 512.
# </details>
#
# ## 10. Quiz
# 1. A layer has 10 FLOPs a byte. Which of the T4's two peaks in float16 limits it, 65 TFLOP/s or 320 GB/s?
# 2. Why does training in bfloat16 need no loss scaling?
# 3. Clip at 1, then unscale: what happens to training?
# 4. Two processes draw the same rows by mistake. What does the loss curve look like?
# 5. Recomputing costs a third more FLOPs. Why not twice as many?
# 6. A block with adaLN-zero is the identity at the start, for every condition. How can it learn from there?
#
# <details><summary>Answers</summary>
#
# 1. Bytes: 10 × 320 GB/s is 3.2 TFLOP/s.
# 2. It has the range of float32: small gradients stay above zero. What it lacks is digits.
# 3. The scaled norm is huge, so it is clipped to 1, and unscaling leaves 1/65,536 of that: plain gradient descent would stand still. Adam divides by the size again, but these gradients are about as small as its epsilon: its steps shrink, most for the smallest gradients. Muon's steps have the same size whatever the gradient's: it hides the mistake.
# 4. Like the curve of one process with half the batch: healthy, but as noisy as that one.
# 5. Forward is one part of three. Once more makes four.
# 6. The gate's own gradient is not zero: it measures how the output of the attention or the MLP would have changed the loss. Once the gate has moved, everything gets gradients. (In our DiT the last layer starts at zero too: it moves first, then the gates, then the rest.)
# </details>
#
# ## What was shown, and what was not
# Shown: where the time of a step goes on this machine; each layer under a measured roof; float16's three accidents in real float16, and that scaling mends the gradients; accumulation, recomputation and two processes, each equal to the plain run; the shipped model on a folder of other clips; a DiT that starts as the identity, learns with the same loss, and passes the best linear guess from single pixels; a v-network sampled as a flow.
#
# Not shown, for lack of machines: NCCL between several GPUs, and anything on a T4, whose minutes are estimates. Not shown at all: a learnt autoencoder, diffusion in latents, or that a DiT is better than a U-Net at this size.
#
# **That was the series.** It went from noise on MNIST to a caption that becomes 76 frames, and every step can be checked. Where to go next: your own clips; the recipes in `utils/recipes.py` with a larger budget (`python -m utils.train --all`); or one of the papers below, with the table of section 7 beside it.
#
# ## Readings
# - Micikevicius et al., *Mixed Precision Training*, 2017 (arXiv 1710.03740): loss scaling, and why weights stay in float32.
# - Chen, Xu, Zhang, Guestrin, *Training Deep Nets with Sublinear Memory Cost*, 2016 (arXiv 1604.06174): recomputation.
# - Li et al., *PyTorch Distributed: Experiences on Accelerating Data Parallel Training*, 2020 (arXiv 2006.15704): what DistributedDataParallel does, and how it hides messages.
# - Peebles, Xie, *Scalable Diffusion Models with Transformers*, 2022 (arXiv 2212.09748): DiT and adaLN-zero.
# - Blattmann et al., *Align your Latents*, 2023 (arXiv 2304.08818): layers over time turn an image model in latents into a video model; Make-A-Video's idea in another space.
# - Esser et al., *Scaling Rectified Flow Transformers for High-Resolution Image Synthesis*, 2024 (arXiv 2403.03206): flow, clock and transformer together, carefully compared.
