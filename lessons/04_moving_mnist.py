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
# **Claim: a data set without labels gets captions when we make it ourselves; and a number about video is worth something only beside what it says of real clips (the floor) and of clips spoiled on purpose (the controls).**
#
# You will be able to
# - handle a clip as a tensor B C T H W, and recognise two axes that were swapped by mistake;
# - write Moving MNIST in forty lines, with digits, places, velocities and captions that the published file never had;
# - read motion off an x-t slice;
# - say what a kernel distance, a Fréchet distance and a reading of digits and tracks notice, what they miss, and how to find out before believing them;
# - load your own GIFs and MP4s.
#
# | reading | exercises | machine: T4 (estimate) / two CPU cores |
# |---|---|---|
# | 35 minutes | 25 minutes | 3 / 4 minutes |
#
# **The series:** [01 DDPM](01_ddpm_on_mnist.ipynb) → [02 schedules and fast samplers](02_fast_samplers.ipynb) → [03 guidance](03_guidance.ipynb) → **04 Moving MNIST (you are here)** → 05 the factorized 3D U-Net →
# [06 Video Diffusion Models](06_video_diffusion_models.ipynb) → 07 joint training → 08 reconstruction guidance → 09 pseudo-3D layers →
# 10 Make-A-Video → 11 frame interpolation → 12 super-resolution → 13 scaling up. This lesson needs no diffusion. It goes on where
# [the kernel distance](01_ddpm_on_mnist.ipynb#9.-A-number,-with-a-floor-and-controls) of lesson 01 left off. Symbols: [glossary](glossary.md).

# %% [markdown]
# ## Set-up
# Run this cell first. On Colab it fetches the repository; elsewhere it uses the one that this notebook is in. It installs nothing, and running it twice does nothing new.

# %%
import subprocess, sys
from pathlib import Path

SLUG, TAG = "video-diffusion-lessons/video-diffusion-lessons", "main"  # stamped from lessons/colab.txt
if "google.colab" in sys.modules:
    ROOT = Path("/content") / SLUG.split("/")[1]
    if not ROOT.exists():
        subprocess.run(["git", "clone", "-q", "--depth", "1", "-b", TAG, f"https://github.com/{SLUG}", str(ROOT)], check=True)
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
import json, math, time
import matplotlib.pyplot as plt
import torch
from einops import rearrange
from utils import show
from utils.captions import DIRECTIONS
from utils.data import FINE_FPS, FINE_SPEED, MovingMNIST, mnist
from utils.exercises import check
from utils.runtime import ASSETS, budget, generator, outputs

BUDGET = budget()
N = {"smoke": 24, "cpu": 96}.get(BUDGET, 512)               # clips in a row of section 8's table

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
print("velocity", tuple(batch.velocity.shape), "velocity[k] carries frame k to frame k + 1")
print("captions", batch.captions[0])
video = (batch.video + 1) / 2                                # networks want [-1, 1], pictures and metrics [0, 1]

# %%
show.play(video, batch.captions, scale=4, path=outputs() / "04_real.gif")

# %%
show.film_strip(video, batch.captions, every=2, title="the same four clips as film strips")

# %% [markdown]
# **The most common bug in video code** is to lose the order of axes. Layers for images want (B, C, H, W), so frames are folded into the batch and unfolded again. **Predict, then run:** folded as `(b t)`, unfolded as `(t b)`: no error, the shape is right. What do you see?

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
# A network trained on the second would be asked to make digits jump between clips. Hence the rule of this series: every `rearrange` names its axes, and lesson 05 tests each layer by perturbing one frame and watching which others move.
#
# ## 2. Making it: one digit, one path
# Places live in the unit square: 0 is one wall, 1 the other; a frame is 64 pixels and a digit 28, so 36 pixels are free. Each frame a digit goes on by a tenth of that. First without walls:

# %%
def straight(start, angle, frames, speed=0.1):
    """start (2,), angle in radians -> places (frames, 2)."""
    step = speed * torch.stack([angle.sin(), angle.cos()])
    return start + step * torch.arange(1, frames + 1)[:, None]


start, angle = torch.tensor([0.3, 0.4], dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
print("places after 4, 8, 12 frames:", [[round(x, 2) for x in p] for p in straight(start, angle, 12)[3::4].tolist()])

# %% [markdown]
# It leaves. The published rule: go on; **clamp** to a wall that was passed; **flip** that component of the velocity; then record.

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


free, kept = straight(start, angle, 12), bouncing(start, angle, 12)[0]
figure, ax = plt.subplots(figsize=(3.4, 3.4), layout="constrained")
ax.plot(free[:, 1], free[:, 0], "--", color=show.GREY, label="no walls")
ax.plot(kept[:, 1], kept[:, 0], "o-", color=show.BLUE, label="clamp and flip", markersize=4)
ax.set(xlim=(-0.2, 1.6), ylim=(1.4, -0.2), xlabel="column", ylabel="row", title="one digit's path")
ax.add_patch(plt.Rectangle((0, 0), 1, 1, fill=False))
ax.legend(fontsize=8);

# %% [markdown]
# Then paste the digit at each place (cut off to whole pixels), combine digits by the **maximum**, and average 2×2 pixels down to 32×32. Is ours what `utils` makes?

# %%
def paste(digit, places):
    """digit (28, 28) uint8, places (T, 2) -> (T, 64, 64) uint8."""
    frames = torch.zeros(len(places), 64, 64, dtype=torch.uint8)
    for frame, (row, column) in zip(frames, (places * 36).long().tolist()):
        frame[row:row + 28, column:column + 28] = digit
    return frames


# %%
# NBVAL_CHECK_OUTPUT
from utils.data import render, shrink, starts, trajectories
begin, heading = starts(3, 2, generator(1))                            # three clips of two digits
places, velocities = trajectories(begin, heading, 16, 0.1, 1)          # utils'
digits = mnist("test")[0][:6].view(3, 2, 28, 28)
canvas, clips, pairs = render(digits, places), range(3), range(2)
ours = [[bouncing(begin[b, d], heading[b, d], 16) for d in pairs] for b in clips]
frames = torch.stack([torch.maximum(*[paste(digits[b, d], ours[b][d][0]) for d in pairs]) for b in clips])
small = rearrange(frames.double(), "b t (h y) (w x) -> b t h w y x", y=2, x=2).mean((-1, -2)) / 127.5 - 1
print("places equal:    ", all(torch.equal(ours[b][d][0], places[b, d]) for b in clips for d in pairs))
print("velocities equal:", all(torch.equal(ours[b][d][1], velocities[b, d]) for b in clips for d in pairs))
print("frames equal:    ", torch.equal(frames, canvas))
print("32 pixels equal: ", bool((small - shrink(canvas, 32)).abs().max() < 1e-6))

# %% [markdown]
# (`utils` does it without a loop over frames, fast enough that the data costs a training step almost nothing: `python tests/benchmark_generator.py` prints how fast on your machine.)
#
# ## 3. Seen from above
# Let the height vanish and time run downwards. **Predict before you look:** what does a digit that moves evenly draw? One that bounces? One that stands still? What would a clip of unrelated frames look like?

# %%
shuffled = video[:1, :, torch.randperm(16, generator=generator(2))]
names = [*batch.captions[:3], "the first clip, frames shuffled"]
show.xt_slice(torch.cat([video[:3], shuffled]), names, title="x-t slices")

# %% [markdown]
# Slope is speed, a corner is a bounce, a vertical line stands still, and confetti is not motion. This is the quickest look at a generated clip that there is.
#
# ## 4. The clock
# Film the same path faster, keep every k-th frame, and you get the same clip with a larger step. The series has one **fine clock**: 30 frames a second, 2% of the free range a frame. Every fifth frame of it is the published speed, 10% a frame, at 6 frames a second.

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
# Lesson 11 trains a network to fill in the four frames between two of these: 16 keyframes become 76 frames.
#
# ## 5. Captions where the data had none
# The published file is 10,000 clips and nothing else: no labels. We paste *labelled* digits along paths that we chose, so we know everything, and can write it down. A direction is one of eight words; which one is decided by the angle of the velocity that carries frame 0 to frame 1.

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
print("share of each direction:", *[f"{word} {c / counts.sum():.0%} ·" for word, c in zip(DIRECTIONS, counts.tolist())])
assert 0.08 < at_wall.float().mean() < 0.16

# %% [markdown]
# The other way round, a caption can be turned into real clips that obey it. That is what a text-to-video model has to learn to do, and its clips will stand beside these:

# %%
asked = ["3 moving left and 7 moving up right"] * 4
show.play((MovingMNIST("test", seed=7).from_captions(asked, index=0).video + 1) / 2, asked[:1], scale=4)

# %% [markdown]
# Digits for training, for choosing (validation) and for testing never meet: a model that has learnt its digits by heart cannot score with them.

# %%
# NBVAL_CHECK_OUTPUT
pixels = [{bytes(image.numpy()) for image in mnist(split)[0]} for split in ("train", "validation", "test")]
print("digits:", *[len(split) for split in pixels])
print("in common:", *[len(pixels[i] & pixels[j]) for i, j in ((0, 1), (0, 2), (1, 2))])

# %% [markdown]
# ## 6. Play
# Two digits, their directions, their speed: every setting is a real clip. (Needs a running kernel; below it is one setting as a static picture.)

# %%
show.moving_mnist_box()

# %%
clip = (MovingMNIST("test", seed=0).from_captions(asked[:1], index=0).video + 1) / 2
show.film_strip(clip, asked[:1])

# %% [markdown]
# **The published file**, if you want exactly what the field uses, comes through torchvision: 781 MB from the University of Toronto. Without labels it can serve a model without captions.
#
# ```python
# from utils.video_files import PublishedMovingMNIST
# published = PublishedMovingMNIST("data", download=True)     # checks the MD5; the first 16 of 20 frames, at 32 pixels
# published.sample(8).video                                   # (8, 1, 16, 32, 32)
# ```
#
# (torchvision's own `split="train"` and `"test"` cut each clip in time, frames 1 to 10 and 11 to 20: for *prediction*, not a split of the clips.)
#
# **Your own clips.** A folder of GIF or MP4 files, any size, length and frame rate, grey or colour, with captions in a CSV. Here three GIFs that we write ourselves, one of them too short and one file that is no video:

# %%
from utils.video_files import VideoFolder
folder = outputs() / "04_my_clips"
for name, frames in (("left.gif", 16), ("right.gif", 16), ("short.gif", 5)):
    show.gif(video[:1, :, :frames], folder / name, scale=2, fps=6)
(folder / "broken.gif").write_text("this is not a video")
captions = {"left.gif": "two digits", "right.gif": "again", "short.gif": "too short", "broken.gif": "nothing"}
(folder / "captions.csv").write_text("\n".join(["file,caption", *map(",".join, captions.items())]))
mine = VideoFolder(folder, image_size=32, num_frames=16)
print(mine)

# %%
# NBVAL_CHECK_OUTPUT
loaded = mine.sample(3)
print(tuple(loaded.video.shape), sorted(set(loaded.captions)))

# %% [markdown]
# # What a good number is
# ## 7. The obvious number, and why it fails
# A model has made a clip. How good is it? The naive answer: compare it with a real clip, pixel by pixel. Three candidates against real clips, by mean squared error; smaller is "better". **Predict the order** of: another real clip; an all-black clip; the mean of many real clips.

# %%
real = (MovingMNIST("test", seed=11).sample(256).video + 1) / 2
other = (MovingMNIST("test", seed=12).sample(256).video + 1) / 2
candidates = {"another real clip": other, "an all-black clip": 0 * real, "the mean of all clips": other.mean(0, keepdim=True)}
error = {name: float((clips - real).square().mean()) for name, clips in candidates.items()}
for name, value in error.items():
    print(f"{name:24s}{value:.4f}")
assert error["the mean of all clips"] < error["an all-black clip"] < error["another real clip"]

# %% [markdown]
# The real clip is *last*. Pixels reward fog: there is no one right clip to be near to. What can be compared is *distributions*: do many generated clips, together, look like many real ones? For that each clip becomes a few numbers (features) that matter to the eye, and two clouds of features are compared.
#
# ## 8. Distances between clouds
# The features here come from the **judge**, a small network trained on real clips with labels to say which digits there are, where each is in each frame, and how fast they move; then frozen. Its last layer before the answers has 64 numbers a clip. Two distances between clouds $x$ and $y$ (the shipped weights of the judge: `python -m utils.judge judge` trains it):
#
# - **Fréchet distance**: fit a Gaussian to each, $|\mu_x-\mu_y|^2 + \mathrm{tr}\,(\Sigma_x + \Sigma_y - 2(\Sigma_x\Sigma_y)^{1/2})$. FID and FVD are this, in the features of other networks. (So ours is not FVD and cannot be compared with a published one.)
# - **Kernel distance**: the unbiased distance of lesson 01, $\overline{k(x,x')} + \overline{k(y,y')} - 2\,\overline{k(x,y)}$ with $k(a,b) = (a\cdot b/64+1)^3$, pairs of a sample with itself left out.
#
# **Predict, then run:** both, between two sets of *real* clips, for different numbers of clips. The truth is 0.

# %%
from utils.metrics import frechet_distance, kernel_distance, read
pool, most = MovingMNIST("test", seed=13, captions=None), {"smoke": 128}.get(BUDGET, 512)
clouds = [read((pool.sample(most, index=k).video + 1) / 2).features for k in range(2)]
sizes = [n for n in (16, 32, 64, 128, 256, 512) if n <= most]
draws = [torch.randperm(most, generator=generator(14, k)) for k in range(8)]
floor = {name: torch.tensor([[distance(clouds[0][d[:n]], clouds[1][d[:n]]) for d in draws] for n in sizes])
         for name, distance in (("Fréchet", frechet_distance), ("kernel", kernel_distance))}

# %%
figure, ax = plt.subplots(figsize=(5, 2.8), layout="constrained")
for (name, values), style, colour in zip(floor.items(), ("o-", "s--"), (show.ORANGE, show.BLUE)):
    ax.errorbar(sizes, values.mean(1), values.std(1), fmt=style, capsize=3, color=colour, label=name)
ax.axhline(0, color="black", linewidth=0.8)
ax.set(xscale="log", xlabel="clips in each set", title="distance of real clips from real clips")
ax.set_xticks(sizes, map(str, sizes))
ax.set_xticks([], minor=True)
ax.legend(fontsize=8);

# %%
# NBVAL_CHECK_OUTPUT
mean, spread = (floor["Fréchet"].mean(1), floor["kernel"].std(1) / 8**0.5)
print("Fréchet: floor falls as clips are added:", bool((mean.diff() < 0).all()))
print("Fréchet: always above 0:", bool((floor["Fréchet"] > 0).all()))
print("kernel: 0 within four standard errors at the smallest n:", bool(floor["kernel"][0].mean().abs() < 4 * spread[0]))

# %% [markdown]
# The Fréchet distance of perfect clips is not 0 and depends on how many there are, so a bare value means nothing: a paper that reports FVD from 256 samples and one that uses 2048 are not in the same unit. The kernel distance is right on average at any $n$, and can be negative; small sets only make it noisy.
# That is why tables here print the kernel distance with an interval, and always a floor.
#
# **Now the controls.** Take real clips and spoil one thing each:

# %%
from utils.controls import spoiled
bad = spoiled(1, seed=8)
show.film_strip(torch.cat(list(bad.values())), [name.removeprefix("control: ") for name in bad], every=2)

# %%
from utils.metrics import motion
held_out = MovingMNIST("test", seed=15, captions="motion").sample(N)
target = read((MovingMNIST("test", seed=16, captions=None).sample(N).video + 1) / 2).features
shown = {"real held-out clips (floor)": (held_out.video + 1) / 2, **spoiled(N, seed=15)}
readings = {name: read(clips) for name, clips in shown.items()}
print(f"n = {N}{'kernel distance':>46s}{'Fréchet distance':>20s}")
for name, reading in readings.items():
    print(f"{name:36s}{kernel_distance(reading.features, target):16.2f}{frechet_distance(reading.features, target):20.2f}")

# %% [markdown]
# Which controls stand clear of the floor, and which one *should not*? Played backwards, bouncing is still bouncing; a distance that rose there would be measuring something else than we think. (Not quite: the clamp makes a short step before a wall and a full one after it. The judge does not mind.)
#
# ## 9. Reading a clip
# A distance says *that* something is wrong. A reading says *what*. The judge gives, for each of two digits, its name and its place in every frame; through the places we lay the best bouncing path (even motion between two mirrors), which gives speed and direction.

# %%
def draw_reading(axes, clips, reading, k, title):
    """The clip's frames on top of each other, with the track (dots) and the best path (line) of each digit's middle."""
    axes.imshow(clips[k, 0].amax(0), cmap="gray_r", vmax=2)
    middles, lines = reading.tracks[k] + 6.5, reading.path.positions[k] + 6.5      # from corner to middle
    for track, path, digit, colour in zip(middles, lines, reading.digits[k].tolist(), (show.BLUE, show.ORANGE)):
        axes.plot(path[:, 1], path[:, 0], color=colour)
        axes.plot(track[:, 1], track[:, 0], "o", color=colour, markersize=3, label=str(digit))
        axes.plot(track[0, 1], track[0, 0], "o", color=colour, markersize=9, markerfacecolor="none")
    axes.set(xticks=[], yticks=[], title=title)
    axes.legend(fontsize=7, loc="upper right")


names = ["real held-out clips (floor)", "control: half speed", "control: frames shuffled", "control: noise"]
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for ax, name in zip(axes, names):
    draw_reading(ax, shown[name], readings[name], 0, name.removeprefix("control: ").removesuffix(" (floor)"))
figure.suptitle(f"what the judge reads (ring: first frame); caption: {held_out.captions[0]}", fontsize=10);

# %% [markdown]
# From such readings come numbers with a meaning:
#
# | number | what it is |
# |---|---|
# | digits | share of clips whose two digits are the caption's |
# | pairs | share of (digit, direction) pairs of the caption that are there: right digit, sets off within 45° |
# | off the path | a digit's distance from the best bouncing path, pixels (median); not 0 for real digits, whose places are cut to whole pixels and which stop at a wall for the rest of a frame |
# | speed | pixels a frame; the data's is 1.8, and a little less on a mirrored path |
# | identity | share of frames that look like the digit which the clip's frames look like most often |
#
# The reader errs too, so it is read off real clips first. **How well could anyone do?** A perfect tracker knows the true places (cut off to half a pixel, as they are drawn), and still has to infer the direction from them.

# %%
result = json.loads((ASSETS / "results" / "metrics.json").read_text())
print(f"n = {result['n']} clips a row, test digits, read by the judge ({result['seconds']} s)\n")
HEAD = f"{'digits':>9s}{'pairs':>8s}{'off the path':>14s}{'speed':>7s}{'identity':>10s}"


def numbers(r):
    """The numbers of a row, under HEAD."""
    return f"{r['digits']:9.1%}{r['pairs']:8.1%}{r['rmse']:11.2f} px{r['speed']:7.2f}{r['identity']:10.1%}"


print(f"{'':40s}{'kernel distance':>23s}" + HEAD)
for name, r in result["rows"].items():
    distance = ""
    if "kernel_distance" in r:
        distance = f"{r['kernel_distance']:.3f} [{r['kernel_distance_low']:.3f}, {r['kernel_distance_high']:.3f}]"
    print(f"{name:40s}{distance:>23s}" + numbers(r))

# %%
rows = result["rows"]
floor, perfect = rows["real held-out clips (floor)"], rows["a perfect tracker on the floor's clips"]
print(f"direction of a digit that is read, within 45 degrees: judge {floor['directions']:.1%}, perfect tracker {perfect['directions']:.1%}")
print(f"the right one of eight directions:                    judge {floor['octants']:.1%}, perfect tracker {perfect['octants']:.1%}")
assert floor["digits"] > 0.9 and floor["directions"] > perfect["directions"] - 0.02
still = rows["control: frozen first frame"]
assert rows["control: half speed"]["pairs"] > 0.85 and still["rmse"] < floor["rmse"] and still["identity"] > floor["identity"]

# %% [markdown]
# Read the table column by column: **each number is blind to something.** Pairs hardly notice half speed; the distance from the path is *better* than real for frozen clips, and so is identity. Off-the-path alone would crown a still picture. Only the row as a whole convicts.
#
# ## 10. A second opinion
# A network judges networks: what if it errs in the way that they do? So there is a second reader **without any network**: templates (means of training digits) are matched against every place of every frame, the two best are linked over time by a dynamic program (Viterbi), and each digit's picture, the near-median of its frames, is named by its nearest neighbours among 55,000 training digits.

# %%
from utils.metrics import agreement, obeyed
from utils.tracker import track
M = {"smoke": 8, "cpu": 32}.get(BUDGET, 128)
clean, asked = shown["real held-out clips (floor)"][:M], held_out.captions[:M]
noisy = (0.7 * clean + 0.1 * torch.randn(clean.shape, generator=generator(17))).clamp(0, 1)
blurred = torch.nn.functional.avg_pool3d(clean, (1, 3, 3), 1, (0, 1, 1))
degraded = {"real": clean, "faint and noisy": noisy, "blurred": blurred, "noise alone": shown["control: noise"][:M]}
second = {name: track(clips) for name, clips in degraded.items()}
print(f"n = {M:<16d}digits: judge   tracker   same two digits   same direction")
for name, clips in degraded.items():
    one, two = read(clips), second[name]
    same = agreement(one, two)
    direction = f"{same['same_directions']:.0%} of {same['same_directions_n']}" if same["same_directions_n"] else "-"
    print(f"{name:20s}{obeyed(one, asked)['digits']:13.0%}{obeyed(two, asked)['digits']:10.0%}{same['same_digits']:18.0%}{direction:>17s}")

# %%
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2), layout="constrained")
two = second["real"][:2]
for ax, picture, digit in zip(axes, two.pictures.flatten(0, 1), two.digits.flatten().tolist()):
    ax.imshow(picture, cmap="gray")
    ax.set(xticks=[], yticks=[], title=f"named {digit}")
figure.suptitle("digits cut out of two clips by the tracker", fontsize=10);

# %% [markdown]
# Two readers that work in different ways and agree on real clips: that is what makes either believable. On noise both still name two digits; **they cannot say "nothing"**, and only their disagreement tells. Where they part on a model's clips, look at the clips.
#
# The pictures serve once more: is a generated digit a *copy* of a training digit? Its distance to the nearest training digit is compared with that of held-out digits; half the time nearer is as it should be, nearly always nearer would be memory. `evaluate` prints it as `memorised`.
#
# ## 11. Break a video yourself
# **Predict which numbers notice, then run; then write your own.** The cell compares a real set with what `spoil` makes of it.

# %%
def spoil(video):
    """video (N, 1, 16, 32, 32) in [0, 1] -> the same shape, with something wrong. Make it yours."""
    return torch.cat([video[:, :, :8], video[:, :, 7:8].expand(-1, -1, 8, -1, -1)], dim=2)   # stops half-way


# %%
spoilt = spoil(shown["real held-out clips (floor)"])
reading = read(spoilt)
rows = {"real": readings["real held-out clips (floor)"], "yours": reading}
print(f"{'':8s}{'kernel distance':>16s}" + HEAD)
for name, r in rows.items():
    print(f"{name:8s}{kernel_distance(r.features, target):16.2f}" + numbers({**obeyed(r, held_out.captions), **motion(r)}))
show.film_strip(spoilt[:2], ["yours"] * 2, every=2)

# %% [markdown]
# Ideas: swap the digits of neighbouring clips half-way; shift every frame by a pixel at random; make it brighter; upside down; blur; a checkerboard in the corner; time running backwards from frame 8. Can you find damage that an eye sees and no number notices? (A hint: everything here was trained on, or cut out of, digits. What about the background?)
#
# | if the numbers look like this | then |
# |---|---|
# | distance high, digits right, off the path far | frames do not belong together: temporal attention, or axes swapped |
# | digits wrong, everything else like real | the caption does not reach the network, or guidance is 0 |
# | identity low, path fine | a digit that changes on its way |
# | identity and path better than real, speed near 0 | a still picture: "perfect" by two numbers |
# | digits right, pairs a quarter of them | motion words are not understood (lesson 10 expects just that) |
# | distance *below* the floor, again and again | the test set is in the training set, or the same clips are on both sides |
# | precision 1, recall 0 | see exercise 3 |
#
# ## 12. What the numbers say of a model
# The text-to-video model of lesson 06, as shipped, with floor and controls in one table, from its results file:

# %%
result = json.loads((ASSETS / "results" / "vdm-text.json").read_text())
print(f"vdm-text, n = {result['n']} a row, {result['steps']} steps, guidance {result['guidance_scale']:g}\n")
print(f"{'':40s}{'kernel distance':>16s}" + HEAD)
for name, r in result["rows"]["motion"].items():
    print(f"{name:40s}{r['kernel_distance']:16.2f}" + numbers(r))

# %% [markdown]
# Before you read on: say in one sentence what is good and what is bad about this model, from the numbers alone. Then [look at its clips](06_video_diffusion_models.ipynb#1.-Load,-type,-watch). Any set of clips, yours or a rival's, goes through the same mill:
#
# ```bash
# python -m utils.evaluate clips.npz     # arrays: videos (N, 1, T, 32, 32), captions (optional)
# ```
#
# ## 13. Faithful? The box
#
# | the source says | we do | why |
# |---|---|---|
# | *Unsupervised Learning of Video Representations using LSTMs* (1502.04681): 64×64, two digits of 28 pixels, 20 frames | 32×32 by averaging, 16 frames | what a T4 can train live |
# | one fixed file of 10,000 test clips, no labels | clips made on the fly, with labels, paths and captions | endless data; the captions are the point |
# | digits from MNIST's training set for training | the same, and splits that share no digit | so that memory cannot score |
# | FVD (1812.01717): Fréchet distance in the features of a network trained on human actions | kernel distance and Fréchet distance in the features of a network trained on these digits and their motion | features that know what matters here, no download, and a number without bias; never to be compared with FVD |
# | KID (1801.01401): cubic polynomial kernel | the same | |
# | precision and recall (1904.06991) | the same, in our features, 5 neighbours | |
# | generation on Moving MNIST in the literature | no published number was found to compare with; papers on this data report *prediction* | so no comparison is made |
#
# ## 14. Exercises
# Each has a stub that runs as it is, a check, and a folded hint and solution. An untouched stub lets a reference answer take over; a wrong answer is shown as wrong.
#
# ### Exercise 1 · Direction words (difficulty ●○○, importance ●●●, 5 minutes)
# From velocities as (down, right) to the number of the direction word: 0 is right, 1 up right, 2 up, and so on, against the clock. Mind which way rows run.

# %%
def word_number(velocity):
    """(N, 2) velocities as (down, right) -> (N,) numbers from 0 to 7."""
    return ...  # your lines here


# %%
def reference_word_number(velocity):
    return (torch.atan2(-velocity[:, 0], velocity[:, 1]) / (math.pi / 4)).round().long() % 8


compass = torch.tensor([[0.0, 1.0], [-1.0, 1.0], [-1.0, 0.0], [-1.0, -1.0], [0.1, -2.0], [3.0, -3.0], [0.5, 0.1]])
cases = (compass,), (torch.randn(50, 2, generator=generator(18)),)
word_number = check("exercise 1", word_number, reference_word_number, *cases)

# %% [markdown]
# <details><summary>Hint</summary>`torch.atan2(up, right)` gives the angle; rows run downwards, so up is minus the first number. A word covers an eighth of the circle: round, and let −1 become 7.</details>
# <details><summary>Solution</summary>
#
# ```python
# angle = torch.atan2(-velocity[:, 0], velocity[:, 1])
# return (angle / (math.pi / 4)).round().long() % 8
# ```
# </details>
#
# ### Exercise 2 · The mirror (difficulty ●●○, importance ●●○, 10 minutes)
# The best bouncing path needs even motion between two mirrors at 0 and 1, without a loop: where is a point after time k if it starts at p with velocity v? Unfold the mirrors: it moves straight on in a world of period 2, half of which is reflected.

# %%
def mirrored(p, v, frames):
    """Numbers p in [0, 1] and v -> (frames,) places in [0, 1] at k = 0, 1, ..."""
    return ...  # your lines here


# %%
def reference_mirrored(p, v, frames):
    free = (p + v * torch.arange(frames)) % 2
    return torch.where(free > 1, 2 - free, free)


cases = (0.2, 0.1, 16), (0.9, 0.17, 16), (0.1, -0.3, 16), (0.5, 1.4, 16)
mirrored = check("exercise 2", mirrored, reference_mirrored, *cases)

# %% [markdown]
# <details><summary>Hint</summary>`% 2` brings p + v k into [0, 2), also for negative numbers. What lies beyond 1 is seen in the mirror, at 2 minus it.</details>
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
for name, reading in readings.items():
    there, back = precision(reading.features, target, 5), precision(target, reading.features, 5)
    print(f"{name:36s}precision {there:5.0%}   recall {back:5.0%}")

# %% [markdown]
# Look at noise. One odd real clip far from the others has a huge reach, and whatever falls far outside can fall into it; recall (the same with sides exchanged) tells the truth. A number is known by its controls, not by its name.
#
# ## 15. Quiz
# 1. Two papers report a Fréchet distance, one from 500 clips, one from 5,000. Which will look better, all else equal?
# 2. A model scores a kernel distance of −0.004. Is it better than real?
# 3. Your model's digits are read right in 99% of clips, real ones in 98%. What have you shown?
# 4. Why must the judge be frozen before the first model is compared with it?
# 5. Backwards clips get the floor's distance but few right pairs. Is something broken?
#
# <details><summary>Answers</summary>
#
# 1. The one from 5,000: the floor is lower.
# 2. No. It is at the floor: an unbiased number is below 0 as often as above when the truth is 0. Look at the interval.
# 3. That its digits are at least as *legible* as real ones. Perhaps it draws only the legible ones; look at variety (lesson 03), recall and entropy.
# 4. Otherwise one could, without meaning to, choose the judge that likes the model; and numbers made with two judges cannot be compared.
# 5. No. The distance knows nothing of captions; the caption speaks of the first frame's direction, which backwards is the opposite of the last one's.
# </details>
#
# ## What was shown, and what was not
# Shown: a clip as a tensor; the data made from scratch, equal to the library's; captions for data that had none; distances with floors that depend on n and floors that do not; controls that each number notices or misses; a second reader that agrees.
# Not shown: that these numbers agree with people's eyes; that they work on other data (they do not: judge and tracker know two digits and nothing else). How they are used on a model in training comes in lesson 06.
#
# ## Readings
# - Srivastava, Mansimov, Salakhutdinov, *Unsupervised Learning of Video Representations using LSTMs*, 2015 (arXiv 1502.04681): section 3 introduces the moving digits.
# - Bińkowski, Sutherland, Arbel, Gretton, *Demystifying MMD GANs*, 2018 (arXiv 1801.01401): why the kernel distance is unbiased and the Fréchet distance cannot be.
# - Unterthiner et al., *Towards Accurate Generative Models of Video: A New Metric & Challenges*, 2018 (arXiv 1812.01717): FVD, and what it was tested against.
# - Kynkäänniemi et al., *Improved Precision and Recall Metric for Assessing Generative Models*, 2019 (arXiv 1904.06991).
# - Ge et al., *On the Content Bias in Fréchet Video Distance*, 2024 (arXiv 2404.12391): published FVD, too, hardly notices motion. Which control would have shown it?
