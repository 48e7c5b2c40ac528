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
# # 04 · Moving MNIST, and what a good number is
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/video-diffusion-lessons/video-diffusion-lessons/blob/main/lessons/04_moving_mnist.ipynb)
#
# ![One real clip and the same clip spoiled in seven ways: frozen, shuffled, at half speed, with other digits, with digits that change half-way, as noise, and backwards](../assets/figures/04_controls.gif)
#
# *Top: a real clip; the same one frozen, its frames shuffled, at half speed. Bottom: with other digits, with digits that change half-way, noise, backwards.*
#
# **Claim: a data set without captions has them once we generate it ourselves. And a number about video means something only beside two others: its value on real clips (the floor), and on clips spoiled on purpose (the controls).**
#
# Every later lesson is judged by these numbers.
#
# You will be able to
# - handle a clip as a tensor B C T H W, and recognise two axes that were swapped by mistake;
# - write Moving MNIST in forty lines, with the digits, places, velocities and captions that the published file does not have;
# - read motion off an x-t slice;
# - say what a kernel distance, a Fréchet distance and a reading of digits and tracks notice, what they miss, and how to check before you trust them;
# - load your own GIFs and MP4s.
#
# | reading | exercises | machine: T4 (estimate) / two CPU cores |
# |---|---|---|
# | 35 minutes | 25 minutes | 3 / 4 minutes |
#
# **The series:** [01 DDPM](01_ddpm_on_mnist.ipynb) → [02 schedules and fast samplers](02_fast_samplers.ipynb) → [03 guidance](03_guidance.ipynb) → **04 Moving MNIST (you are here)** → [05 the factorized 3D U-Net](05_factorized_unet.ipynb) →
# [06 Video Diffusion Models](06_video_diffusion_models.ipynb) → [07 joint training](07_joint_training.ipynb) → [08 reconstruction guidance](08_reconstruction_guidance.ipynb) → [09 pseudo-3D layers](09_pseudo_3d_layers.ipynb) →
# [10 Make-A-Video](10_make_a_video.ipynb) → [11 frame interpolation](11_frame_interpolation.ipynb) → [12 super-resolution](12_super_resolution.ipynb) → [13 scaling up](13_scaling_up.ipynb). This lesson needs no diffusion. It picks up where
# [the kernel distance](01_ddpm_on_mnist.ipynb#9.-A-number,-with-a-floor-and-controls) of lesson 01 left off. Symbols: [glossary](glossary.md).

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
import json, math
import matplotlib.pyplot as plt
import torch
from einops import rearrange
from utils import show
from utils.captions import DIRECTIONS
from utils.data import FINE_FPS, FINE_SPEED, MovingMNIST, mnist
from utils.evaluate import sampling_words
from utils.exercises import check
from utils.runtime import ASSETS, budget, generator, outputs

BUDGET = budget()
N = {"smoke": 24, "cpu": 192}.get(BUDGET, 512)               # clips in a row of section 8's table

# %% [markdown]
# # The data
# ## 1. A clip is a tensor
# Two handwritten digits drift in a box and bounce off its walls: Moving MNIST (Srivastava et al. 2015), small enough for a free GPU, hard enough that a model has to learn shape, motion and memory.
# A batch of clips has five axes, always in this order: **B** clips, **C** channels (1 = grey), **T** frames, **H** rows, **W** columns.

# %%
# NBVAL_CHECK_OUTPUT
batch = MovingMNIST("test", seed=0, captions="motion").sample(4)
print("video   ", tuple(batch.video.shape), batch.video.dtype, f"from {batch.video.min():.0f} to {batch.video.max():.0f}")
print("labels  ", tuple(batch.labels.shape), "which digits")
print("position", tuple(batch.position.shape), "clip, digit, frame, (row, column) of the top-left corner in pixels")
print("velocity", tuple(batch.velocity.shape), "velocity[k] carries frame k to k + 1, up to a wall")
print("captions", batch.captions[0])
video = (batch.video + 1) / 2                                # networks want [-1, 1], pictures and metrics [0, 1]

# %%
show.play(video, batch.captions, scale=4, path=outputs() / "04_real.gif")

# %%
show.film_strip(video, batch.captions, every=2, title="the same four clips as film strips")

# %% [markdown]
# **A bug that raises no error** is to mix up the order of axes. Layers for images want (B, C, H, W), so frames are folded into the batch and unfolded again. **Predict, then run:** fold as `(b t)`, unfold as `(t b)`: no error, and the shape is right. What do you see?

# %%
folded = rearrange(video, "b c t h w -> (b t) c h w")
right = rearrange(folded, "(b t) c h w -> b c t h w", t=16)
wrong = rearrange(folded, "(t b) c h w -> b c t h w", t=16)
names = ["(b t) back"] * 2 + ["(t b) back"] * 2
show.film_strip(torch.cat([right[:2], wrong[:2]]), names, every=2, title="same shape, same numbers")

# %%
# NBVAL_CHECK_OUTPUT
print("shapes equal:", wrong.shape == video.shape, "  sums equal:", bool((wrong.sum() - video.sum()).abs() < 1e-2))
print("right equals the clip:", torch.equal(right, video), "  wrong equals the clip:", torch.equal(wrong, video))


# %% [markdown]
# <details><summary>What you see</summary>Each row of the lower two runs through all four clips: every fourth frame of the first, then of the second, and so on. A network trained on `wrong` would have to learn digits that jump from clip to clip.</details>
#
# Named axes alone do not save you: the wrong line has them, too. So this series folds and unfolds with the same pattern in the same place, and [lesson 05](05_factorized_unet.ipynb) tests each layer: change one frame, and see which others move.
#
# ## 2. Making it: one digit, one path
# Places lie in the unit square: 0 is one wall, 1 the other; a frame is 64 pixels and a digit 28, so 36 pixels are free. Each frame moves a digit by a tenth of that. First without walls:

# %%
def straight(start, angle, frames, speed=0.1):
    """start (2,), angle in radians -> places (frames, 2)."""
    step = speed * torch.stack([angle.sin(), angle.cos()])
    return start + step * torch.arange(1, frames + 1)[:, None]


start, angle = torch.tensor([0.3, 0.4], dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
print("places after 4, 8, 12 frames:", [[round(x, 2) for x in p] for p in straight(start, angle, 12)[3::4].tolist()])


# %% [markdown]
# It leaves the box. The published rule: take a step; **clamp** to any wall that was passed; **flip** that velocity component; then record.

# %%
def bouncing(start, angle, frames, speed=0.1):
    """start (2,), angle in radians -> places and velocities, (frames, 2) each."""
    where, step, places, steps = start, speed * torch.stack([angle.sin(), angle.cos()]), [], []
    for _ in range(frames):
        where = where + step
        step = torch.where((where <= 0) | (where >= 1), -step, step)
        where = where.clamp(0, 1)
        places.append(where)
        steps.append(step)
    return torch.stack(places), torch.stack(steps)


# %%
free, kept = straight(start, angle, 12), bouncing(start, angle, 12)[0]
figure, ax = plt.subplots(figsize=(3.4, 3.4), layout="constrained")
ax.plot(free[:, 1], free[:, 0], "--", color=show.GREY, label="no walls")
ax.plot(kept[:, 1], kept[:, 0], "o-", color=show.BLUE, label="clamp and flip", markersize=4)
ax.set(xlim=(-0.2, 1.6), ylim=(1.4, -0.2), xlabel="column", ylabel="row", title="one digit's path", aspect="equal")
ax.add_patch(plt.Rectangle((0, 0), 1, 1, fill=False))
ax.legend(fontsize=8);


# %% [markdown]
# Then paste the digit at each place (rounded down to whole pixels), combine digits by the **maximum**, and average 2×2 pixels down to 32×32. Does ours equal `utils`'?

# %%
def paste(digit, places):
    """digit (28, 28) uint8, places (T, 2) -> (T, 64, 64) uint8."""
    frames = torch.zeros(len(places), 64, 64, dtype=torch.uint8)
    for frame, (row, column) in zip(frames, (places * 36).long().tolist()):
        frame[row:row + 28, column:column + 28] = digit
    return frames


# %%
from utils.data import render, shrink, starts, trajectories
begin, heading = starts(3, 2, generator(1))                            # three clips of two digits
places, velocities = trajectories(begin, heading, 16, 0.1, 1)          # utils'
digits = mnist("test")[0][:6].view(3, 2, 28, 28)
our_paths = [[bouncing(begin[b, d], heading[b, d], 16) for d in range(2)] for b in range(3)]
our_frames = torch.stack([torch.maximum(*[paste(digits[b, d], our_paths[b][d][0]) for d in range(2)]) for b in range(3)])
our_video = rearrange(our_frames.double(), "b t (h y) (w x) -> b t h w y x", y=2, x=2).mean((-1, -2)) / 127.5 - 1

# %%
# NBVAL_CHECK_OUTPUT
both = [(our_paths[b][d], (places[b, d], velocities[b, d])) for b in range(3) for d in range(2)]
print("places and velocities equal:", all(torch.equal(ours[k], theirs[k]) for ours, theirs in both for k in range(2)))
print("64 pixels equal:", torch.equal(our_frames, render(digits, places)))
print("32 pixels equal:", bool((our_video - shrink(render(digits, places), 32)).abs().max() < 1e-6))

# %% [markdown]
# (`utils` pastes all frames of all clips at once. `python tests/benchmark_generator.py` prints how many clips a second your machine makes, and their share of a training step.)
#
# ## 3. Seen from above
# An **x-t slice**: keep the brightest pixel of every column, so that height vanishes, and let time run downwards. **Predict before you look:** what does a digit that moves steadily draw? One that bounces? One that stands still? What would a clip of unrelated frames look like?

# %%
shuffled = video[:1, :, torch.randperm(16, generator=generator(2))]
names = [*batch.captions[:3], "the first clip, frames shuffled"]
show.xt_slice(torch.cat([video[:3], shuffled]), names, title="x-t slices")

# %% [markdown]
# <details><summary>How to read it</summary>
#
# Steady motion draws a straight band, as wide as the digit. The flatter the band, the faster the digit goes sideways. A corner is a bounce off a side wall. A vertical band is a digit that goes straight up or down, or stands still: the two look alike from above. Shuffled frames draw a ragged edge.
# </details>
#
# ## 4. The clock
# Film a path at a high rate, keep every k-th frame, and you get the same path in larger steps. The series has one **fine clock**: 30 frames a second, 2% of the free range a frame. Keeping every fifth frame gives the published speed, 10% a frame, at 6 frames a second. (Not quite the published clips: at a wall the clamp swallows the rest of a step, up to 2% of the free range on the fine clock, up to 10% in the published clips.)

# %%
# NBVAL_CHECK_OUTPUT
path = {"split": "test", "seed": 3, "speed": FINE_SPEED, "captions": "motion"}
fine = MovingMNIST(**path, num_frames=76).sample(2)
coarse = MovingMNIST(**path, num_frames=16, frame_skip=5).sample(2)
print(f"{FINE_FPS} frames a second:", tuple(fine.video.shape), f"  {FINE_FPS // 5} a second:", tuple(coarse.video.shape))
print("every fifth frame of the first is the second:", torch.equal(fine.video[:, :, ::5], coarse.video))
print("and the captions are the same:", fine.captions == coarse.captions)

# %%
both = (torch.cat([fine.video[:1, :, :16], coarse.video[:1]]) + 1) / 2
show.film_strip(both, ["30 a second", "6 a second"], every=2, title="sixteen frames of the same path on two clocks")


# %% [markdown]
# Lesson 11 trains a network to fill in the four frames between two of these: 16 keyframes become 15 × 5 + 1 = 76 frames.
#
# ## 5. Captions where the data had none
# The published file is 10,000 clips and nothing else: no labels. We paste *labelled* digits along paths that we chose, so we know everything and can write it down. A direction is one of eight words, chosen by the angle of the velocity that carries frame 0 to frame 1.

# %%
# NBVAL_CHECK_OUTPUT
def describe(labels, velocity):
    """labels (2,), velocity (2, T, 2) as (down, right) -> a caption."""
    angle = torch.atan2(-velocity[:, 0, 0], velocity[:, 0, 1])         # 0 is right, a quarter turn is up
    octant = (angle / (math.pi / 4)).round().long() % 8
    return " and ".join(f"{digit} moving {DIRECTIONS[k]}" for digit, k in zip(labels.tolist(), octant.tolist()))


for k in range(2):
    print(describe(batch.labels[k], batch.velocity[k]))
many = MovingMNIST("test", seed=5, captions="motion").sample(300)
ours = [describe(labels, velocity) for labels, velocity in zip(many.labels, many.velocity)]
print("ours equal utils' for 300 clips:", ours == many.captions)

# %% [markdown]
# What about a digit that touches a wall in its first frame? The rule records *after* the bounce, so `velocity[0]` already points away from the wall, and so does the caption. How often does that happen, and are the eight words equally likely?

# %%
large = MovingMNIST("test", seed=6, captions=None).sample(2000)
at_wall = ((large.position[:, :, 0] <= 0) | (large.position[:, :, 0] >= 18)).any(-1)
angle = torch.atan2(-large.velocity[:, :, 0, 0], large.velocity[:, :, 0, 1])
counts = torch.bincount((angle / (math.pi / 4)).round().long().flatten() % 8, minlength=8)
print(f"digits that touch a wall in frame 0: {at_wall.float().mean():.1%}")
print("share of each direction:", " · ".join(f"{word} {c / counts.sum():.1%}" for word, c in zip(DIRECTIONS, counts.tolist())))
assert 0.08 < at_wall.float().mean() < 0.16 and (counts / counts.sum() - 1 / 8).abs().max() < 0.025

# %% [markdown]
# Conversely, a caption can be turned into real clips that obey it. That is what a text-to-video model has to learn, and its clips will be compared with these:

# %%
asked = ["3 moving left and 7 moving up right"] * 4
show.play((MovingMNIST("test", seed=7).from_captions(asked, index=0).video + 1) / 2, asked[:1], scale=4)

# %% [markdown]
# Digits for training, for choosing (validation) and for testing do not overlap: a model that has memorised its digits cannot score with them.

# %%
# NBVAL_CHECK_OUTPUT
pixels = [{bytes(image.numpy()) for image in mnist(split)[0]} for split in ("train", "validation", "test")]
print("digits:", *[len(split) for split in pixels])
print("in common:", *[len(pixels[i] & pixels[j]) for i, j in ((0, 1), (0, 2), (1, 2))])

# %% [markdown]
# ## 6. Play
# Two digits, their directions, their speed: every setting gives a real clip. (Needs a running kernel; below is one setting as a static picture.)

# %%
show.moving_mnist_box()

# %%
clip = (MovingMNIST("test", seed=0).from_captions(asked[:1], index=0).video + 1) / 2
show.film_strip(clip, asked[:1])

# %% [markdown]
# **The published file**, if you want exactly what the field uses, downloads through torchvision: 781 MiB from the University of Toronto. It has no labels, so it serves models without captions.
#
# ```python
# from utils.published import PublishedMovingMNIST
# published = PublishedMovingMNIST("data", download=True)     # checks the MD5
# published.sample(8).video     # (8, 1, 16, 32, 32): the first 16 of 20 frames, at 32 pixels
# ```
#
# (torchvision's own `split="train"` and `"test"` cut each clip in time, into its first and last ten frames: for *prediction*, not a split of the clips.)
#
# **Your own clips.** A folder of GIF or MP4 files, any size, length and frame rate, grey or colour, with captions in a CSV. Here: two GIFs of our own, one too short, and a file that is not a video:

# %%
from utils.video_folder import VideoFolder
folder = outputs() / "04_my_clips"
for name, clip, frames in (("one.gif", 0, 16), ("two.gif", 1, 16), ("short.gif", 2, 5)):
    show.gif(video[clip:clip + 1, :, :frames], folder / name, scale=2, fps=6)
(folder / "broken.gif").write_text("this is not a video")
texts = {"one.gif": "two digits", "two.gif": "two others", "short.gif": "too short", "broken.gif": "nothing"}
(folder / "captions.csv").write_text("\n".join(["file,caption", *map(",".join, texts.items())]))
mine = VideoFolder(folder, image_size=32, num_frames=16)
print(mine)

# %%
# NBVAL_CHECK_OUTPUT
loaded = mine.sample(4)
print(tuple(loaded.video.shape), sorted(set(loaded.captions)))

# %%
show.film_strip((torch.stack([mine[0], mine[1]]) + 1) / 2, mine.texts, every=2, title="read back, at 32 pixels")

# %% [markdown]
# (The GIF player frames every clip: hence the grey rim.)
#
# # What a good number is
# ## 7. The obvious number, and why it fails
# A model has made a clip. How good is it? The naive answer: compare it with a real clip, pixel by pixel. Three candidates against real clips, by mean squared error; smaller is "better". **Predict the order** of: another real clip; an all-black clip; the mean of many real clips.

# %%
real = (MovingMNIST("test", seed=11).sample(256).video + 1) / 2
other = (MovingMNIST("test", seed=12).sample(256).video + 1) / 2
fog = other.mean(0, keepdim=True)
candidates = {"another real clip": other, "an all-black clip": 0 * real, "the mean of all clips": fog}
error = {name: float((clips - real).square().mean()) for name, clips in candidates.items()}
for name, value in error.items():
    print(f"{name:24s}{value:.4f}")
assert error["the mean of all clips"] < error["an all-black clip"] < error["another real clip"]


# %% [markdown]
# <details><summary>The order</summary>The mean of all clips, a grey fog, first; then black, and the real clip last.</details>
#
# Pixel error rewards the mean of many clips, a grey fog: there is no one right clip to be close to. We can compare *distributions*: do many generated clips, together, look like many real ones? For this, each clip becomes a few numbers (features) that matter to the eye, and two clouds of features are compared.
#
# ## 8. Distances between clouds
# The features here come from the **judge**: a small network, trained on labelled real clips to say which digits there are, where each is in each frame, how fast they move and which way they set off. It saw several speeds, and clips that were blurred, dimmed and made noisy, as generated clips are never perfectly clean. Then it was frozen.
# The last layer before three of these answers (which, how fast, which way; not where) gives 64 numbers a clip: the features. Two distances between clouds of features $x$ and $y$:
#
# - **Fréchet distance**: fit a Gaussian to each, mean $\mu$ and covariance $\Sigma$: $|\mu_x-\mu_y|^2 + \mathrm{tr}\,(\Sigma_x + \Sigma_y - 2(\Sigma_x\Sigma_y)^{1/2})$. FID and FVD are this, in the features of other networks. (So ours is not FVD, and cannot be compared with a published one.)
# - **Kernel distance**, lesson 01's: a kernel $k(a,b) = (a\cdot b/64+1)^3$ says how alike two clips are. If clips within each cloud are no more alike than clips across the two, this kernel finds no difference between the clouds: $\overline{k(x,x')} + \overline{k(y,y')} - 2\,\overline{k(x,y)}$, each bar a mean over pairs. Pairs of a clip with itself are left out: they would make "within" too large. This is what *unbiased* means: on average the distance of two real sets is 0, for any number of clips.

# %%
def our_frechet(x, y):
    """Two clouds (N, D) and (M, D) -> a number."""
    covariances = x.T.cov() @ y.T.cov()
    cross = torch.linalg.eigvals(covariances).real.clamp(min=0).sqrt().sum()        # the trace of the root
    return (x.mean(0) - y.mean(0)).square().sum() + x.T.cov().trace() + y.T.cov().trace() - 2 * cross


def our_kernel_distance(x, y):
    """Two clouds (N, D) and (M, D) -> a number."""
    k = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3
    within = lambda a: (k(a, a).sum() - k(a, a).trace()) / (len(a) * (len(a) - 1))  # no clip with itself
    return within(x) + within(y) - 2 * k(x, y).mean()


# %%
# NBVAL_CHECK_OUTPUT
from utils.metrics import frechet_distance, kernel_distance, read
x, y = (torch.randn(n, 64, generator=generator(k), dtype=torch.float64) for k, n in enumerate((100, 120)))
print("Fréchet equals utils':", bool((our_frechet(x, y) - frechet_distance(x, y)).abs() < 1e-6))
print("kernel equals utils': ", bool((our_kernel_distance(x, y) - kernel_distance(x, y)).abs() < 1e-9))

# %% [markdown]
# **Predict, then run:** both distances between two sets of *real* clips (the truth is 0) for more and more clips. Bars: the spread over independent sets. The two have different units, so each is divided by its value for clips that stand still: 1 is "as far as frozen clips".

# %%
most = {"smoke": 128}.get(BUDGET, 512)
pool = MovingMNIST("test", seed=13, captions=None)
clouds = [read((pool.sample(most, index=k).video + 1) / 2).features for k in range(2)]
sizes = [n for n in (16, 32, 64, 128) if n <= most // 4]
distances = {name: [torch.tensor([f(a, b) for a, b in zip(clouds[0].split(n), clouds[1].split(n))]) for n in sizes]
             for name, f in (("Fréchet", frechet_distance), ("kernel", kernel_distance))}
frozen = read((pool.sample(most // 4, index=2).video[:, :, :1].expand(-1, -1, 16, -1, -1) + 1) / 2).features      # the first frame of each, for ever
unit = {"Fréchet": float(frechet_distance(frozen, clouds[1])), "kernel": float(kernel_distance(frozen, clouds[1]))}

# %%
figure, ax = plt.subplots(figsize=(5, 2.8), layout="constrained")
for (name, values), style, colour in zip(distances.items(), ("o-", "s--"), (show.ORANGE, show.BLUE)):
    mean, spread = ([float(number) / unit[name] for number in numbers] for numbers in ([v.mean() for v in values], [v.std() for v in values]))
    ax.errorbar(sizes, mean, spread, fmt=style, capsize=3, color=colour, label=name)
    print(f"{name:8s}" + "   ".join(f"n = {n}: {m:5.2f} ± {s:.2f}" for n, m, s in zip(sizes, mean, spread)))
ax.axhline(0, color="black", linewidth=0.8)
ax.axhline(1, color=show.GREY, linewidth=0.8, linestyle=":")
ax.set(xscale="log", xlabel="clips in each set", ylabel="distance (frozen clips = 1)", title="distance of real clips from real clips")
ax.set_xticks(sizes, map(str, sizes))
ax.set_xticks([], minor=True)
ax.legend(fontsize=8);

# %%
# NBVAL_CHECK_OUTPUT
means = torch.stack([v.mean() for v in distances["Fréchet"]])
smallest = distances["kernel"][0]
print("Fréchet: floor falls as clips are added:", bool((means.diff() < 0).all()))
print("Fréchet: always above 0:", all(bool((v > 0).all()) for v in distances["Fréchet"]))
error = smallest.std() / len(smallest) ** 0.5
print("kernel: 0 within four standard errors at n = 16:", bool(smallest.mean().abs() < 4 * error))

# %% [markdown]
# The Fréchet distance of perfect clips is not 0 and depends on how many there are, so a bare value means nothing: two papers that report FVD, one from 256 samples and one from 2048, cannot be compared. The kernel distance is right on average at any $n$, and can be negative. That removes the bias, not the spread: with 16 clips its bars are wide, too, and only more clips narrow them.
# So the tables below print the kernel distance, with a 95% bootstrap interval in brackets (the clips are drawn again with replacement), and always a floor.
#
# **Now the controls.** Take real clips and spoil one thing each:

# %%
from utils.controls import spoiled
bad = {"real": (MovingMNIST("test", seed=8).sample(1).video + 1) / 2, **spoiled(1, seed=8)}
names = [name.removeprefix("control: ") for name in bad]
show.film_strip(torch.cat(list(bad.values())), names, every=2, title="a real clip, and the same one spoiled")

# %%
from utils.metrics import kernel_distance_interval, motion
FLOOR = "real held-out clips (floor)"
held_out = MovingMNIST("test", seed=15, captions="motion").sample(N)
target = read((MovingMNIST("test", seed=16, captions=None).sample(N).video + 1) / 2).features
shown = {FLOOR: (held_out.video + 1) / 2, **spoiled(N, seed=15)}
readings = {name: read(clips) for name, clips in shown.items()}


def distance(r):
    """The kernel distance of a row with its interval."""
    return f"{r['kernel_distance']:7.2f} [{r['kernel_distance_low']:.2f}, {r['kernel_distance_high']:.2f}]"


print(f"{f'n = {N}':36s}{'kernel distance':>22s}{'Fréchet distance':>20s}")
for name, reading in readings.items():
    interval = kernel_distance_interval(reading.features, target)
    print(f"{name:36s}{distance(interval):>22s}{frechet_distance(reading.features, target):20.2f}")


# %% [markdown]
# Which controls stand clear of the floor, and which one *should not*? Played backwards, bouncing is still bouncing; a distance that rose there would not measure what we think. (Not quite the same: the clamp makes a short step before a wall and a full one after it. The judge does not mind.) With so few clips the mildest controls cannot be told from the floor; section 9 has 2,048.
#
# ## 9. Reading a clip
# A distance says *that* something is wrong. A reading says *what*. For each of two digits, the judge gives its name and its place in every frame; to these places we fit the best bouncing path (steady motion between two mirrors), which gives speed and direction.

# %%
def draw_reading(axes, clips, reading, k, title):
    """The clip's first frame, with the track and the best path of each digit's middle."""
    axes.imshow(clips[k, 0, 0], cmap="gray_r", vmax=2)
    middles, lines = reading.tracks[k] + 6.5, reading.path.positions[k] + 6.5      # from corner to middle
    looks = (show.BLUE, "o"), (show.ORANGE, "s")
    for track, path, digit, (colour, mark) in zip(middles, lines, reading.digits[k].tolist(), looks):
        axes.plot(path[:, 1], path[:, 0], color=colour)
        axes.plot(track[:, 1], track[:, 0], mark, color=colour, markersize=3, label=str(digit))
        axes.plot(track[0, 1], track[0, 0], mark, color=colour, markersize=10, markerfacecolor="none")
    axes.set(xticks=[], yticks=[], title=title)
    axes.legend(fontsize=9, loc="upper right")


names = [FLOOR, "control: half speed", "control: frames shuffled", "control: noise"]
figure, axes = plt.subplots(2, 2, figsize=(6.4, 6.9), layout="constrained")
for ax, name in zip(axes.flat, names):
    draw_reading(ax, shown[name], readings[name], 2, name.removeprefix("control: ").removesuffix(" (floor)"))
figure.suptitle(f"what the judge reads; asked for: {held_out.captions[2]}\n"
                "marks: its track (large: first frame), line: the best path", fontsize=10);

# %% [markdown]
# Such readings give numbers with a meaning:
#
# | number | what it is |
# |---|---|
# | digits | share of clips whose two digits are the caption's |
# | pairs | share of the caption's (digit, direction) pairs found in the clip: right digit, sets off within 45° (by chance, with the digits right: a quarter) |
# | off the path | how far a digit is from its best bouncing path, in pixels: root mean square over frames, median over digits |
# | speed | pixels a frame; the data's is 1.8, and a little less on the best path, as a digit stops at a wall for the rest of the frame |
# | identity | share of a track's frames that look like the track's most frequent digit |
#
# The reader errs too, so it reads real clips first. **How well could anyone do?** A perfect tracker knows the true places (rounded down to half a pixel, as drawn), and still has to infer the direction from them.

# %%
result = json.loads((ASSETS / "results" / "metrics.json").read_text())
print(f"n = {result['n']} clips a row, read by the judge (python -m utils.evaluate real, {result['seconds']} s)\n")
HEAD = f"{'digits':>9s}{'pairs':>8s}{'off the path':>14s}{'speed':>7s}{'identity':>10s}"


def numbers(r):
    """The numbers of a row, under HEAD."""
    return f"{r['digits']:9.1%}{r['pairs']:8.1%}{r['rmse']:11.2f} px{r['speed']:7.2f}{r['identity']:10.1%}"


print(f"{'':40s}{'kernel distance':>21s}" + HEAD)
for name, r in result["rows"].items():
    print(f"{name.removeprefix('control: '):40s}{distance(r) if 'kernel_distance' in r else '':>21s}" + numbers(r))

# %%
rows = result["rows"]
floor, perfect = rows[FLOOR], rows["a perfect tracker on the floor's clips"]
for key, name in ("directions", "direction of a digit within 45 degrees"), ("octants", "the right one of eight directions"):
    print(f"{name:40s}judge {floor[key]:.1%}, perfect tracker {perfect[key]:.1%}")
assert floor["digits"] > 0.9 and floor["directions"] > perfect["directions"] - 0.02

# %%
# NBVAL_CHECK_OUTPUT
from utils.controls import REVERSED
for name, r in rows.items():
    if name.startswith("control"):
        print(f"{name:36s}clear of the floor: {r['kernel_distance_low'] > floor['kernel_distance_high']}")
print(f"{REVERSED:36s}clear of the floor: {rows[REVERSED]['kernel_distance_low'] > floor['kernel_distance_high']}")
still, changed, slow = (rows[f"control: {name}"] for name in ("frozen first frame", "digits change half-way", "half speed"))
mixed = rows["control: digits 0 to 4 alone"]
print("a wrong mix of digits weighs more than no motion at all:", mixed["kernel_distance"] > still["kernel_distance"])
print("off the path: frozen and slow clips beat real ones:", max(still["rmse"], slow["rmse"]) < floor["rmse"])
print("identity: frozen clips beat real ones:", still["identity"] > floor["identity"])
print("half speed costs less than one pair in ten:", slow["pairs"] > 0.9 * floor["pairs"])
print("a digit that changes: identity falls by a quarter or more:", changed["identity"] < 0.75 * floor["identity"])

# %% [markdown]
# Read the table column by column: **each number is blind to something.** Pairs hardly notice half speed. Off the path and identity find frozen clips *better* than real ones. The distance shouts at a wrong mix of digits, which an eye would never notice in one clip, and only murmurs when a digit turns into another half-way, which the eye sees at once, and so does identity.
# (Published FVD has the same weakness: it weighs what is shown more than how it moves; Ge et al. 2024, in the readings.) Shuffled frames get half of the pairs right, twice as many as by chance: the line along which a digit moves is still there; only which way it goes is lost. Only the whole row shows what is wrong. And real clips are off the path mostly because of the data, not the reader: compare the perfect tracker.
#
# ## 10. A second opinion
# A network judges networks: what if it errs as they do? So there is a second reader, the **tracker**, **without any network**:
#
# 1. Templates (means of training digits) are matched against every place of every frame.
# 2. The two best matches are linked over time so that motion is steady and digits stay the same (the Viterbi algorithm: the cheapest of all ways to link, found frame by frame).
# 3. Each digit's picture is cut out along its track: a low quantile over the frames, as the other digit only ever adds light.
# 4. It is named by its nearest neighbours among 55,000 training digits.
#
# Real clips; the same ones damaged in ways like those that the judge saw in training, and in one that it did not (strips across the frame); and noise. **Predict:** which damage costs which reader more?

# %%
from utils.metrics import agreement, obeyed
from utils.tracker import track
M = {"smoke": 8, "cpu": 64}.get(BUDGET, 128)
clean, wanted = shown[FLOOR][:M], held_out.captions[:M]
strips = clean.clone()
strips[..., ::6, :] = 0
noisy = (0.7 * clean + 0.1 * torch.randn(clean.shape, generator=generator(17))).clamp(0, 1)
blurred = torch.nn.functional.avg_pool3d(clean, (1, 3, 3), 1, (0, 1, 1))
degraded = {"real": clean, "faint and noisy": noisy, "blurred": blurred, "black strips": strips,
            "noise alone": shown["control: noise"][:M]}

# %%
second = {name: track(clips) for name, clips in degraded.items()}
print(f"n = {M:<16d}digits: judge   tracker   same two digits   same direction")
for name, clips in degraded.items():
    one, two = read(clips), second[name]
    same = agreement(one, two)
    direction = f"{same['same_directions']:.0%} of {same['same_directions_n']}" if same["same_directions_n"] else "-"
    right = [obeyed(reading, wanted)["digits"] for reading in (one, two)]
    print(f"{name:20s}{right[0]:13.0%}{right[1]:10.0%}{same['same_digits']:18.0%}{direction:>17s}")
    assert name != "real" or same["same_digits"] > 0.75
    assert BUDGET == "smoke" or name != "blurred" or right[1] < right[0] - 0.1

# %%
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2), layout="constrained")
two = second["real"][:2]
for ax, picture, digit in zip(axes, two.pictures.flatten(0, 1), two.digits.flatten().tolist()):
    ax.imshow(picture, cmap="gray")
    ax.set(xticks=[], yticks=[], title=f"named {digit}")
figure.suptitle("digits cut out of two clips by the tracker", fontsize=10);


# %% [markdown]
# Two readers that work in different ways agree on real clips: that is what makes both believable. Damage does not cost them the same: blur, which the judge saw in training, costs it little; the tracker needs sharp digits, and blur removes them. The strips, which the judge never saw, cost both readers something. (So few clips cannot say which of them more: a few in a hundred are chance.) On noise both still name two digits; **neither can answer "no digit"**, and their disagreement is the only sign. Where they disagree on a model's clips, look at the clips.
#
# The pictures have a second use: is a generated digit a *copy* of a training digit? Its distance to the nearest training digit is compared with that of held-out digits: nearer half the time is as it should be, nearer almost always would mean memorising. `python -m utils.evaluate` writes it as `tracker_memorised`.
#
# ## 11. Break a video yourself
# **Predict which numbers notice, then run; then write your own.** The cell compares a real set with what `spoil` makes of it.

# %%
def spoil(video):
    """video (N, 1, 16, 32, 32) in [0, 1] -> the same shape, with something wrong. Make it yours."""
    return torch.cat([video[:, :, :8], video[:, :, 7:8].expand(-1, -1, 8, -1, -1)], dim=2)   # stops half-way


# %%
spoilt = spoil(shown[FLOOR])
print(f"{'':15s}{'kernel distance':>22s}" + HEAD)
for name, reading in {"real": readings[FLOOR], "yours": read(spoilt)}.items():
    row = {**kernel_distance_interval(reading.features, target), **obeyed(reading, held_out.captions), **motion(reading)}
    print(f"{name:15s}{distance(row):>22s}" + numbers(row))
show.film_strip(spoilt[:2], ["yours"] * 2, every=2, title="what `spoil` makes of two real clips")

# %% [markdown]
# Pairs, speed and path notice. The distance hardly does with so few clips (look at the interval), and identity rates such clips *better* than real ones. Why do pairs fall, although every digit sets off as it should? Because the direction is read off the best *steady* path through all sixteen frames, and a digit that stops half-way has none.
#
# Ideas: shift every frame by a pixel at random; upside down; blur; a checkerboard in the corner; time running backwards from frame 8; a grey or a flickering background; half the light. Can you find damage that an eye sees at once and no number notices?
#
# <details><summary>One answer</summary>Light: halving it, or a grey background, costs these numbers little or nothing (next cell). The judge was trained on clips dimmed to as little as 60%; that it also overlooks half the light, and a grey background, nobody planned. A number sees what its maker thought of.</details>

# %%
for name, clips in {"half the light": 0.5 * shown[FLOOR], "grey background": shown[FLOOR].clamp(min=0.3)}.items():
    reading = read(clips)
    row = {**kernel_distance_interval(reading.features, target), **obeyed(reading, held_out.captions), **motion(reading)}
    print(f"{name:15s}{distance(row):>22s}" + numbers(row))

# %% [markdown]
# | if the numbers look like this | then |
# |---|---|
# | distance high, digits right, off the path far | frames do not belong together: the network's frames do not see each other (lesson 05), or axes were swapped |
# | digits and pairs wrong, everything else like real | the caption does not reach the network, or guidance is 0 |
# | identity low, speed right; off the path far by the judge, near by the tracker | a digit that changes on its way (the judge's track jumps there) |
# | identity and path better than real, speed near 0 | a still picture: "perfect" by two numbers |
# | digits right, pairs a quarter of them | motion words are not understood (lesson 10 expects just that) |
# | distance *below* the floor, again and again | the test set is in the training set, or the same clips are on both sides |
# | precision high, recall near 0 | see exercise 3 |
#
# ## 12. What the numbers say of a model
# The text-to-video model of lesson 06, as shipped, from its results file, between the floor and the two controls that are nearest to it (section 9 has the others):

# %%
result = json.loads((ASSETS / "results" / "vdm-text.json").read_text())
print(f"vdm-text, n = {result['n']} a row, {sampling_words(result)}\n")
print(f"{'':40s}{'kernel distance':>21s}" + HEAD)
for name in (FLOOR, "vdm-text", "control: half speed", "control: digits change half-way"):
    r = result["rows"]["motion"][name]
    print(f"{name.removeprefix('control: '):40s}{distance(r):>21s}" + numbers(r))
for name in (FLOOR, "vdm-text"):
    tracked = {key.removeprefix("tracker_"): value for key, value in result["rows"]["motion"][name].items() if key.startswith("tracker_")}
    print(f"{name + ', read by the tracker':61s}{numbers(tracked)}   (n = {tracked['n']})")


# %% [markdown]
# The last two rows were read by the tracker: compare the model's with that of real clips, by the same reader. Where the two readers disagree, two causes are likely. *Digits*: the tracker needs sharp ones (section 10), so it is the stricter reader. *Off the path*: the judge looks for the digit that it named,
# and where that digit turns into another, its track jumps; the tracker follows a shape, whatever it is called. When readers disagree, that is a finding too.
#
# Say in one sentence what is good and what is bad about this model, from the numbers alone. Then [look at its clips](06_video_diffusion_models.ipynb#1.-Load,-type,-watch), and compare your sentence with the goals that lesson 06 set before training. Any set of clips, yours or a rival's, is measured the same way:
#
# ```bash
# python -m utils.evaluate clips.npz     # arrays: videos (N, 1, T, 32, 32), captions (optional)
# ```
#
# ## 13. Faithful? The box
#
# | the source says | we do | why |
# |---|---|---|
# | Srivastava et al. (1502.04681): 64×64, two digits of 28 pixels, 20 frames | 32×32 by averaging, 16 frames | what a T4 can train live |
# | one fixed file of 10,000 test clips, no labels | clips made on the fly, with labels, paths and captions | endless data; the captions are the point |
# | digits from MNIST's training set for training | the same, and splits that share no digit | so that memorising scores nothing |
# | FVD (1812.01717): Fréchet distance in the features of a network trained on human actions | kernel distance and Fréchet distance in the features of a network trained on these digits and their motion | features that know what matters here, no download, and a number without bias; never to be compared with FVD |
# | KID (1801.01401): cubic polynomial kernel | the same, in our features | |
# | precision and recall (1904.06991) | the same, in our features, with 5 neighbours | it is shown here for its weakness |
# | captioned moving digits: Sync-DRAW (1611.10314) and TGANs-C (1804.08264), 2016 and 2018 | our own grammar, eight directions, splits without common digits | the idea is theirs; sizes, speeds, captions and metrics differ, so no number is compared |
#
# ## 14. Exercises
# Each has a stub that runs as it is, and folded below it a check, a hint and a solution. An untouched stub lets a reference answer take over; a wrong answer is shown as wrong.
#
# ### Exercise 1 · From word to velocity (difficulty ●○○, importance ●●○, 5 minutes)
# Section 5 went from velocities to words. Go back, from the number of a direction word (0 right, 1 up right, 2 up, and so on, counter-clockwise) to a velocity of length 1 as (down, right). Mind which way rows run.

# %%
def velocity_of(word):
    """(N,) numbers from 0 to 7 -> (N, 2) unit velocities as (down, right)."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_velocity_of(word):
    angle = word * math.pi / 4
    return torch.stack([-angle.sin(), angle.cos()], dim=1)


velocity_of = check("exercise 1", velocity_of, reference_velocity_of, (torch.arange(8),), (torch.tensor([5, 2]),))


# %% [markdown]
# <details><summary>Hint</summary>A word's angle is its number times an eighth of a turn. The sine points up, and up is minus down.</details>
# <details><summary>Solution</summary>
#
# ```python
# angle = word * math.pi / 4
# return torch.stack([-angle.sin(), angle.cos()], dim=1)
# ```
# </details>
#
# ### Exercise 2 · The mirror (difficulty ●●○, importance ●●○, 10 minutes)
# The best bouncing path needs steady motion between two mirrors at 0 and 1, without a loop: where is a point after k frames if it starts at p with velocity v? Let it run straight on, as if there were no mirrors, then fold the line: places from 0 to 1 stay, places from 1 to 2 are seen in the mirror (1.3 at 0.7), and so on with period 2.

# %%
def mirrored(p, v, frames):
    """Numbers p in [0, 1] and v -> (frames,) places in [0, 1] at k = 0, 1, ..."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_mirrored(p, v, frames):
    free = (p + v * torch.arange(frames)) % 2
    return torch.where(free > 1, 2 - free, free)


cases = (0.2, 0.1, 16), (0.9, 0.17, 16), (0.1, -0.3, 16), (0.5, 1.4, 16)
mirrored = check("exercise 2", mirrored, reference_mirrored, *cases)


# %% [markdown]
# <details><summary>Hint</summary>`% 2` brings p + v k into [0, 2), also for negative numbers. A place beyond 1 is seen in the mirror, at 2 minus it.</details>
# <details><summary>Solution</summary>
#
# ```python
# free = (p + v * torch.arange(frames)) % 2
# return torch.where(free > 1, 2 - free, free)
# ```
# </details>
#
# ### Exercise 3 · A number that noise can fool (difficulty ●●○, importance ●●●, 10 minutes)
# Precision: the share of generated points that lie within the reach of some real point, where a real point's reach is the distance to its k-th nearest *other* real point. Write it, then see what section 8's controls get.

# %%
def precision(generated, real, k=5):
    """(N, D) and (M, D) features -> a number."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_precision(generated, real, k=5):
    reach = torch.cdist(real, real).sort(1).values[:, k]
    return (torch.cdist(generated, real) <= reach).any(1).float().mean()


a, b = torch.randn(60, 4, generator=generator(19)), 2 * torch.randn(40, 4, generator=generator(20))
precision = check("exercise 3", precision, reference_precision, (a, b, 5), (b, a, 3))

# %% [markdown]
# <details><summary>Hint</summary>`torch.cdist(a, b)` gives all distances. In a sorted row of `cdist(real, real)` number 0 is the point itself, so number k is the k-th other one.</details>
# <details><summary>Solution</summary>
#
# ```python
# reach = torch.cdist(real, real).sort(1).values[:, k]
# return (torch.cdist(generated, real) <= reach).any(1).float().mean()
# ```
# </details>

# %%
few = min(N, 192)
for name, reading in readings.items():
    made, real = reading.features[:few], target[:few]
    print(f"{name:36s}precision {precision(made, real, 5):5.0%}   recall {precision(real, made, 5):5.0%}")
assert precision(target[:few], readings["control: noise"].features[:few], 5) < 0.1
print(f"(n = {few})")
many = json.loads((ASSETS / "results" / "metrics.json").read_text())
print(f"noise with n = {many['n']}: precision {many['rows']['control: noise']['precision']:.0%}")

# %% [markdown]
# Look at noise. Real clips form 55 clusters, one for each pair of digits; with 192 clips or fewer a cluster holds fewer than six on average, so a clip's fifth neighbour mostly shows other digits, its reach spans the gaps between clusters, and what lies in a gap counts as real. Recall, the same with the sets swapped, tells the truth, and so does precision with thousands of clips (last line). Judge a number by its controls, not by its name.
#
# ## 15. Quiz
# 1. Two papers report a Fréchet distance, one from 500 clips, one from 5,000. Which will look better, all else equal?
# 2. A model scores a kernel distance of −0.004. Is it better than real?
# 3. Your model's digits are read right in 99% of clips, real ones in 98%. What have you shown?
# 4. Why must the judge be frozen before the first model is compared with it?
# 5. Backwards clips get the floor's distance but fewer right pairs. Is something broken?
#
# <details><summary>Answers</summary>
#
# 1. The one from 5,000: the floor is lower.
# 2. No. It is at the floor: for two real sets the distance is 0 on average, so about half the time, or a little more often, it is below. Look at the interval.
# 3. That its digits are at least as *legible* as real ones. Perhaps it draws only the legible ones; look at variety (lesson 03), recall, and how evenly the ten digits occur.
# 4. Otherwise one could, without meaning to, choose the judge that likes the model; and numbers made with two judges cannot be compared.
# 5. No. The distance knows nothing of captions. The caption describes the first frame; played backwards, a digit sets off against its last velocity. If walls have turned it round by then, that is its first direction again: hence more pairs than by chance.
# </details>
#
# ## What was shown, and what was not
# Shown: a clip as a tensor; the data made from scratch, equal to the library's; captions for data that had none; a distance whose floor depends on n and one whose floor does not; which control each number notices, and which it misses; a second reader that agrees.
# Not shown: that these numbers agree with people's eyes; that they work on other data (they do not: judge and tracker know two digits and nothing else). Lesson 06 uses them on a model in training.
#
# ## Readings
# - Srivastava, Mansimov, Salakhutdinov, *Unsupervised Learning of Video Representations using LSTMs*, 2015 (arXiv 1502.04681): section 3 introduces the moving digits.
# - Bińkowski, Sutherland, Arbel, Gretton, *Demystifying MMD GANs*, 2018 (arXiv 1801.01401): why the kernel distance is unbiased and the Fréchet distance cannot be.
# - Unterthiner et al., *Towards Accurate Generative Models of Video: A New Metric & Challenges*, 2018 (arXiv 1812.01717): FVD, and what it was tested against.
# - Kynkäänniemi et al., *Improved Precision and Recall Metric for Assessing Generative Models*, 2019 (arXiv 1904.06991).
# - Ge et al., *On the Content Bias in Fréchet Video Distance*, 2024 (arXiv 2404.12391): published FVD favours content over motion. Which of our controls shows it?
