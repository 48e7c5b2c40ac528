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
# # 12 · Super-resolution and the whole pipeline
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/video-diffusion-lessons/video-diffusion-lessons/blob/main/lessons/12_super_resolution.ipynb)
#
# ![Four captions as clips of 76 frames: above 32 pixels enlarged smoothly, below 64 pixels by the network of this lesson](../assets/figures/12_pipeline.gif)
#
# **Claim: a small network makes every frame twice as large, from 32 to 64 pixels, and sharp. It looks at one frame at a time, yet what stands still does not flicker, as long as all frames of a clip share *all* noise: at the start, in the steps, and on the small frame.** With it the pipeline is complete: from a caption to 76 frames of 64×64.
#
# (Above: four captions, 76 frames each, by the shipped weights. Top row: before the last stage, enlarged smoothly. Bottom row: the pipeline's result. Whether a digit is the right one is decided in the first stage, [lesson 10](10_make_a_video.ipynb), and often it is not; this lesson is about the strokes.)
#
# You will be able to
# - say why no formula brings lost detail back, and why the best average guess is a blur;
# - condition a diffusion model on a small frame, in one layer, and train it live;
# - stop a clip from flickering with one call of `expand`, show that a stochastic sampler needs more, and measure where sharing does not help;
# - tell a network how far to trust what it is given;
# - run Make-A-Video's three stages by hand and as one call, and say what each costs.
#
# | reading | exercises | machine: T4 (estimate) / two CPU cores |
# |---|---|---|
# | 35 minutes | 20 minutes | 10 / 3 minutes |
#
# **The series:** [01 DDPM](01_ddpm_on_mnist.ipynb) → [02 schedules and fast samplers](02_fast_samplers.ipynb) → [03 guidance](03_guidance.ipynb) → [04 Moving MNIST](04_moving_mnist.ipynb) → [05 the factorized 3D U-Net](05_factorized_unet.ipynb) →
# [06 Video Diffusion Models](06_video_diffusion_models.ipynb) → [07 joint training](07_joint_training.ipynb) → [08 reconstruction guidance](08_reconstruction_guidance.ipynb) → [09 pseudo-3D layers](09_pseudo_3d_layers.ipynb) → [10 Make-A-Video](10_make_a_video.ipynb) → [11 frame interpolation](11_frame_interpolation.ipynb) → **12 super-resolution (you are here)** → [13 scaling up](13_scaling_up.ipynb).
# This lesson rests on [the samplers](02_fast_samplers.ipynb) of lesson 02, the models of [lesson 10](10_make_a_video.ipynb) and [lesson 11](11_frame_interpolation.ipynb), and on [lesson 08](08_reconstruction_guidance.ipynb#8.-Any-mask) for contrast. Symbols: [glossary](glossary.md).

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
import json, math, time
from functools import partial
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from utils import load_pipeline, load_pretrained, show
from utils.captions import digits_of
from utils.data import DIGIT, FINE_SPEED, MovingMNIST
from utils.diffusion import augment, q_sample
from utils.exercises import check
from utils.metrics import obeyed, read
from utils.recipes import MAV_UPSAMPLE
from utils.runtime import ASSETS, budget, generator, outputs, pick_device, randn_per_sample
from utils.samplers import guided_denoiser, sample_loop
from utils.schedule import alpha_sigma
from utils.super_resolution import flicker, resized
from utils.train import Trainer

BUDGET, DEVICE = budget(), pick_device()
STEPS = {"smoke": 2, "cpu": 16}.get(BUDGET, 32)
F64 = torch.float64

# %% [markdown]
# ## 1. Make it larger
# So far everything was 32×32. Moving MNIST is 64×64: what we called a frame is a 64×64 frame with every 2×2 pixels averaged into one. The obvious way back needs no learning. **Nearest**: every pixel becomes four. **Bilinear**: the new pixels lie between the old ones.

# %%
model = load_pretrained("mav-upsample", device=DEVICE)
fast = load_pretrained("mav-upsample", device=DEVICE, amp="auto")          # the same in half precision where that is faster
test = MovingMNIST("test", seed=41, image_size=64, captions="digits").sample(8)
real = (test.video + 1) / 2                                                # (8, 1, 16, 64, 64) in [0, 1]
small = F.avg_pool3d(real, (1, 2, 2))                                      # (8, 1, 16, 32, 32)
naive = {"nearest": resized(small, "nearest"), "bilinear": resized(small, "bilinear")}


def close_up(clips, size=28):
    """The first digit of each clip's first frame, cut out where it truly is: (N, 1, 1, size, size)."""
    places = test.position[:, 0, 0].long().tolist()
    return torch.stack([clip[:, :1, row:row + size, column:column + size] for clip, (row, column) in zip(clips, places)])


show.image_rows({"real": close_up(real), **{name: close_up(clips) for name, clips in naive.items()}}, title="28×28 pixels of the first frame", cell=1.3)


# %% [markdown]
# **Look at the edges**: stairs in one, fog in the other. In numbers: how far from the truth (*missed*, root mean square); how far from the small frame, when the result is averaged down again (*again*); and how large the steps from pixel to pixel are (*sharpness*, real frames = 1).

# %%
def numbers(clips, truth, given):
    """-> missed, again, sharpness of clips (N, 1, T, 64, 64), with the true ones and what they were made from."""
    sharpness = clips.diff(dim=-1).abs().mean() / truth.diff(dim=-1).abs().mean()
    return [float(k) for k in ((clips - truth).square().mean().sqrt(), (F.avg_pool3d(clips, (1, 2, 2)) - given).square().mean().sqrt(), sharpness)]


for name, clips in naive.items():
    print("{:10s} missed {:.3f}   again {:.3f}   sharpness {:.2f}".format(name, *numbers(clips, real, small)))
assert all(numbers(clips, real, small)[2] < 1 for clips in naive.values())


# %% [markdown]
# No cleverer formula fixes that. Averaging keeps one number of four; many large frames share the same small one, and a formula can return only one of them. To be right *on average*, it must return their mean, and the mean of many sharp frames is a blur.
#
# What we want is not the mean of all answers but *one* of them: a sample from $p(x \mid y)$, with $x$ the large frame and $y$ the small one. Sampling is what we can do.
#
# ## 2. A diffusion model that sees the small frame
# Everything stays as it was: $z = \alpha x + \sigma\epsilon$, and a network that predicts $v$ (lesson 02), now $\hat v(z, \lambda, y)$. Only how $y$ comes in is new: enlarged (bilinear), and placed beside $z$ as extra input channels.
#
# | | shape | |
# |---|---|---|
# | $z$ | (B, 1, T, 64, 64) | the noisy large frames |
# | $y$, `low_res` | (B, 1, T, 32, 32) | the small frames, in $[-1, 1]$ |
# | `patches` of each | (B·T, 4, 32, 32) | the stem: 2×2 pixels become four channels, so the network works at half the size |
# | put together | (B·T, 8, 32, 32) | what the first convolution sees |

# %%
def patches(video):
    return rearrange(video, "b c t (h p) (w q) -> (b t) (c p q) h w", p=2, q=2)


def first_layer(net, z, y):
    """What the first convolution makes of the noisy large frames and the small ones."""
    frames = rearrange(y, "b c t h w -> (b t) c h w")
    enlarged = rearrange(F.interpolate(frames, scale_factor=2, mode="bilinear"), "(b t) c h w -> b c t h w", b=len(y))
    both = torch.cat([patches(z), patches(enlarged)], dim=1)               # (B T, 8, 32, 32)
    weight = torch.cat([net.first.weight, net.conditioning.weight], dim=1)
    return F.conv2d(both, weight, net.first.bias + net.conditioning.bias, padding=1)


# %% [markdown]
# `utils` keeps the new half of the weights in a layer of its own, `conditioning`, because it starts at zero: a fresh network does not see $y$, and learns to. Both ways compute the same. The last line is the twin, with other small frames, which must not agree.

# %%
# NBVAL_CHECK_OUTPUT
net = load_pretrained("mav-upsample", device="cpu").net.double()
z = torch.randn(2, 1, 5, 64, 64, generator=generator(1), dtype=F64)
y, log_snr = 2 * small[:2, :, :5].double() - 1, torch.full((2,), -2.0, dtype=F64)
seen = {}
hook = net.down[0]["stages"][0].register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
with torch.no_grad():
    net(z, log_snr, low_res=y)
    print("ours equals what the network computes:", torch.allclose(first_layer(net, z, y), seen["x"], atol=1e-9))
    print("and with the small frames mirrored:", torch.allclose(first_layer(net, z, y.flip(-1)), seen["x"], atol=1e-9))
hook.remove()


# %% [markdown]
# **Frame by frame.** The network has no layer over time; frames are part of the batch. A probe: change frame 3 of the small clip, and see which large frames change; for comparison, change frame 3 in the input of lesson 06's video model.

# %%
# NBVAL_CHECK_OUTPUT
def who_moves(network, x, frame=3):
    changed = x.clone()
    changed[:, :, frame] = -changed[:, :, frame]
    with torch.no_grad():
        before, after = network(x), network(changed)
    assert before.std() > 1e-3, "the output is constant: the probe has nothing to see"
    return [k for k in range(x.shape[2]) if (after - before)[:, :, k].abs().max() > 1e-9]


print("super-resolution:", who_moves(lambda y: net(z, log_snr, low_res=y), y))
video_net = load_pretrained("vdm-text", device="cpu").net.double()
print("a video model:   ", who_moves(lambda x: video_net(x, log_snr), y))

# %% [markdown]
# That is cheap, and any number of frames goes through, in pieces of any size. Training uses single frames, so it needs no video at all. But frame by frame will also turn out to be the problem.
#
# **What does it believe?** One frame at four noise levels, and the estimate $\hat x$ of the shipped weights. **Predict:** at log-SNR −10 there is nothing in $z$, so only the small frame is known. What will $\hat x$ look like?

# %%
levels = torch.tensor([-10.0, -4.0, -1.0, 3.0])
x = 2 * real[3:4, :, :1].expand(4, -1, -1, -1, -1) - 1
noisy = q_sample(x, levels, torch.randn(x.shape, generator=generator(2)))
y = F.avg_pool3d(x, (1, 2, 2))
with torch.no_grad():
    believed = model.predict_x(noisy.to(DEVICE), levels.to(DEVICE), low_res=y.to(DEVICE)).cpu()
row, column = (min(int(place), 64 - 36) for place in test.position[3, 0, 0])
window = (..., slice(row, row + 36), slice(column, column + 36))           # of this clip, around its first digit
rows = {"z": noisy, "believed": believed, "truth": x}
show.image_rows({name: (images.clamp(-1, 1)[window] + 1) / 2 for name, images in rows.items()}, [f"log-SNR {level:g}" for level in levels.tolist()],
                title="36×36 pixels of a frame")

# %% [markdown]
# <details><summary>What it is</summary>
#
# On the left is the mean of all large frames that fit the small one, as far as the network knows it: the answer of a network trained to predict *the* large frame. It is smooth where the answer is open. As the noise goes, the sampler commits to one answer, pixel by pixel, and the strokes get edges.
# </details>
#
# ## 3. Train it, live
# We use the recipe of the shipped weights, with the budget of this machine. In training, frames of 64 pixels are averaged down, so pairs $(x, y)$ are free; half of the samples have captions that name the digits. The grey band, where there is one, is an earlier run of this recipe. **Predict:** what does a sample look like after the first hundred steps?

# %%
trainer = Trainer(MAV_UPSAMPLE, MAV_UPSAMPLE.budget(BUDGET), device=DEVICE)
eight = small[:, :, :1]                                                    # a frame of each clip
show.train_live(trainer, f"12_{BUDGET}", lambda model: model.upsample(eight[:4], steps=min(STEPS, 8)), updates=3)

# %%
# NBVAL_CHECK_OUTPUT
with torch.no_grad():
    print("loss on the first batch, same noise, fell:", bool(trainer.loss(0) < trainer.history[0]))

# %%
yours = trainer.model().upsample(eight, steps=STEPS, seed=1)
shipped = fast.upsample(eight, steps=STEPS, seed=1)
by_network = {f"yours, {trainer.step} steps": yours, f"shipped, {model.provenance['steps']} steps": shipped}
parameters = sum(p.numel() for p in model.net.parameters())
print(f"{parameters / 1e6:.2f} million parameters; shipped: {model.provenance['samples']:,} frames, {model.provenance['flops']:.2g} FLOPs, {model.provenance['device']}")
shown = {"real": real[:, :, :1], "bilinear": naive["bilinear"][:, :, :1], **by_network}
show.image_rows({name: close_up(clips) for name, clips in shown.items()}, title="28×28 pixels of the first frame", cell=1.3)

# %%
for name, clips in shown.items():
    print("{:26s} missed {:.3f}   again {:.3f}   sharpness {:.2f}".format(name, *numbers(clips, real[:, :, :1], eight)))
cut = {name: torch.where(clips < 0.06, 0, clips).diff(dim=-1).abs().mean() for name, clips in shown.items()}
print("sharpness with all that is darker than 0.06 set to black:", ", ".join(f"{name} {value / cut['real']:.2f}" for name, value in cut.items()))

# %% [markdown]
# **A sharpness above 1 is no virtue.** The network leaves a faint haze in the black around the digits, too dark to see, but its steps from pixel to pixel add up. The last line removes it. (A network after a hundred steps is mostly noise, and the *sharpest* of all.)
#
# | if the training looks like this | then |
# |---|---|
# | noise all over, brighter where the digits are | early; a hundred steps look like that |
# | strokes with faint specks in the black | they will soon go; the shipped weights keep a trace of them |
# | digits that have nothing to do with the small frame | `low_res` holds other frames, or `conditioning` has not left zero |
# | all samples look bilinear | you are looking at $\hat x$ of the first step, not at the result of the last |
#
# ## 4. The second failure: a clip
# Each frame is a good answer by itself. **Predict:** is the clip one too? Take the simplest clip, in which nothing moves: one small frame, sixteen times. Every frame gets its own noise, as sixteen samples always did.

# %%
still = small[3:4, :, :1].expand(-1, -1, 16, -1, -1)                       # (1, 1, 16, 32, 32), all frames the same
apart = fast.upsample(still, share_noise=False, steps=STEPS)
print(f"mean change from frame to frame, where nothing should move: {flicker(apart):.4f}")
print(f"                      of the real clip, in which digits do: {flicker(real[3:4]):.4f}")
differences = 5 * F.pad(apart.diff(dim=2).abs(), (0, 0, 0, 0, 1, 0)).clamp(max=0.2)     # of each frame from the one before
show.film_strip(torch.cat([apart, differences])[:, :, :6], ["each its\nown noise", "change\ntimes 5"], title="a still clip")

# %% [markdown]
# The changes are at the edges of strokes, where the small frame leaves the answer open: in each frame the network chooses anew. Each choice is right; that they differ is wrong. A printed strip hardly shows it; when played, it is obvious:

# %%
together = fast.upsample(still, steps=STEPS)                               # share_noise=True, which the next section explains
show.play(torch.cat([apart, together])[window], ["left: every frame has its own noise", "right: all frames share it"], columns=2, scale=4)

# %%
stills = torch.cat([resized(still, "nearest"), apart, together])
show.xt_slice(stills[window].repeat_interleave(2, dim=2), ["small", "its own noise", "shared"],
              title="from above, a frame two rows high: what stands still draws straight lines")

# %% [markdown]
# ## 5. Share the noise
# With a deterministic sampler the whole answer is a function of two things, the small frame and the noise at the start. The same small frame and the same noise give the same answer: **so let all frames of a clip start from the same noise.** *Make-A-Video* does just that in its last stage (section 3.2). It is one call of `expand`:

# %%
schedule = model.recipe.schedule


@torch.no_grad()
def enlarge(small, z, e, strength=0.1, steps=STEPS):
    """small (1, 1, T, 32, 32) in [0, 1]; noise z (1, 1, T, 64, 64) to start from, e (1, 1, T, 32, 32) for section 9 -> (1, 1, T, 64, 64) in [0, 1]"""
    z, told = z.to(DEVICE), torch.full((1,), strength, device=DEVICE)
    y = (math.sqrt(1 - strength**2) * (2 * small - 1) + strength * e).to(DEVICE)
    levels = schedule.log_snr(schedule.times(steps))
    for t, s in zip(levels, levels[1:]):                                   # DDIM, as in lesson 02
        v = model.net(z, t.float().expand(1).to(DEVICE), low_res=y, augmentation=told)
        (alpha, sigma), (alpha_s, sigma_s) = (map(float, alpha_sigma(level)) for level in (t, s))
        x_hat = (alpha * z - sigma * v).clamp(-1, 1)
        z = alpha_s * x_hat + sigma_s * (z - alpha * x_hat) / sigma
    return ((z.clamp(-1, 1) + 1) / 2).cpu()


# %%
def first_noise(size, stream, seed=0):
    return randn_per_sample((1, 1, size, size), [generator(seed, 0, stream)])   # (1, 1, 1, size, size): of one frame


def share(noise, num_frames=16):
    return noise.expand(-1, -1, num_frames, -1, -1)                        # the whole idea


# %%
# NBVAL_CHECK_OUTPUT
ours = enlarge(still, share(first_noise(64, 3)), share(first_noise(32, 6)))
print("ours equals model.upsample:", torch.allclose(ours, model.upsample(still, steps=STEPS), atol=1e-4))
print("all frames of a still clip are the same:", bool((ours - ours[:, :, :1]).abs().max() < 1e-5))
print("and the frames are not empty:", bool(ours.std() > 0.05))
separate = [randn_per_sample((1, 16, size, size), [generator(0, 0, stream, 0)]) for size, stream in ((64, 3), (32, 6))]
ours_apart = enlarge(still, *separate)
print("with separate noise it equals share_noise=False:", torch.allclose(ours_apart, model.upsample(still, share_noise=False, steps=STEPS), atol=1e-4))
print("and its frames differ:", bool((ours_apart - ours_apart[:, :, :1]).abs().max() > 0.01))
half = enlarge(still, share(first_noise(64, 3)), separate[1])
print("with z shared and e separate they differ too:", bool((half - half[:, :, :1]).abs().max() > 0.01))
long = model.upsample(still[:, :, :1].expand(-1, -1, 40, -1, -1), steps=2)
print("a longer clip, which goes through in pieces, is still too:", bool((long - long[:, :, :1]).abs().max() < 1e-5))

# %% [markdown]
# Still *to float precision*, because the network and the sampler can tell frames apart only by their noise and their small frame. There are two noises: $z$, to start from, and $e$, a little noise added to the small frame ([section 9](#9.-How-far-to-trust-the-small-frame) says why). Leaving one of them separate is enough for flicker.
#
# ## 6. A sampler that draws on the way
# The ancestral sampler (lesson 01) draws fresh noise at *every* step. **Predict:** with a shared start, how much of the flicker is left?

# %%
low_res, told = 2 * still.to(DEVICE) - 1, torch.zeros(1, device=DEVICE)
denoise = guided_denoiser(partial(model.net, low_res=low_res, augmentation=told), None, 1.0, "v")
log_snrs = schedule.log_snr(schedule.times(STEPS))


@torch.no_grad()
def still_flicker(start_shared, steps_shared, sampler="ancestral"):
    start = share(first_noise(64, 3)) if start_shared else separate[0]
    *_, last = sample_loop(denoise, start.to(DEVICE), log_snrs, [generator(5)], sampler, share_noise=steps_shared)
    return flicker((last.z.clamp(-1, 1) + 1) / 2)


# %%
ways = {"separate start, separate steps": (False, False), "shared start, separate steps": (True, False),
        "separate start, shared steps": (False, True), "shared start, shared steps": (True, True)}
found = {name: still_flicker(*way) for name, way in ways.items()}
for name, value in found.items():
    print(f"ancestral, {name:32s} flicker {value:.5f}")
print(f"{'DDIM, shared start':43s} flicker {still_flicker(True, False, 'ddim'):.5f}")
assert found["separate start, shared steps"] < 0.1 * found["shared start, separate steps"]

# %%
# NBVAL_CHECK_OUTPUT
print("sharing only the start flickers:", found["shared start, separate steps"] > 1e-3)
print("sharing both does not:", found["shared start, shared steps"] < 1e-5)

# %% [markdown]
# Sharing the start removes none of the flicker, sharing the steps nearly all of it: a sampler that draws noise *forgets its start*, and what it draws last decides. This is why `sample_loop` has `share_noise`, and `model.upsample` sets it. The recipe's sampler is DDIM, which draws nothing.
#
# ## 7. What sharing does not do
# So far nothing moved. Now a digit drifts, while the noise stays fixed to the screen: in the next frame the same stroke meets other noise. **Predict:** will it flicker?
#
# To find out, cut the digit out along its true path, where the real one does not change at all. Compare four ways: real; separate noise; shared noise; and noise that *travels*, moved along with the digit.

# %%
one = MovingMNIST("test", seed=44, image_size=64, num_digits=1, captions="digits").sample(3)
drifting = (one.video + 1) / 2
drifting_small = F.avg_pool3d(drifting, (1, 2, 2))


def along(clips):
    """Each digit cut out along its true path: (N, 1, T, 28, 28)."""
    cut = [torch.stack([clip[:, k, row:row + DIGIT, column:column + DIGIT] for k, (row, column) in enumerate(path.long().tolist())], dim=1)
           for clip, path in zip(clips, one.position[:, 0])]
    return torch.stack(cut)


def travelling(noise, path, stride=1):
    """Noise of one frame, moved along a path (T, 2) with the digit: (1, 1, T, H, W)."""
    moved = ((path - path[0]) / stride).round().long().tolist()
    return torch.cat([torch.roll(noise, (row, column), (-2, -1)) for row, column in moved], dim=2)


# %%
paths, z0, e0 = one.position[:, 0].long(), first_noise(64, 3), first_noise(32, 6)
ways = {"real": drifting, "separate": torch.cat([enlarge(clip[None], *separate) for clip in drifting_small]),
        "shared": torch.cat([enlarge(clip[None], share(z0), share(e0)) for clip in drifting_small]),
        "travelling": torch.cat([enlarge(clip[None], travelling(z0, path), travelling(e0, path, 2)) for clip, path in zip(drifting_small, paths)])}
for name, clips in ways.items():
    print(f"{name:12s} change along the path {flicker(along(clips)):.4f}")
moving = {name: flicker(along(clips)) for name, clips in ways.items()}
assert moving["real"] == 0 and moving["travelling"] < moving["shared"] and moving["shared"] > 0.5 * moving["separate"]
cut = {name: along(clips)[:1, :, :7] for name, clips in ways.items()}
rows = {name: clips[:, :, 1:] for name, clips in cut.items()} | {f"{name},\nchange × 5": (5 * clips.diff(dim=2).abs()).clamp(max=1) for name, clips in cut.items() if name != "real"}
show.film_strip(torch.cat(list(rows.values())), list(rows), title="a digit, cut out where it is in each frame; and how much it changes from the frame before", xlabel="frame 1 to 6")

# %% [markdown]
# Along the path, sharing hardly helps at all. What stays still is the *background*, and a digit at rest; moving strokes shimmer as with separate noise. Noise that travels with the digit does better, which shows where the trouble lies. It is not perfect here: a digit that moves by one pixel is averaged down to a different small frame, and noise cannot fix that.
#
# Let the digit move by eight pixels a frame, a whole number of the network's coarsest cells, and the small frames agree too:

# %%
eights = torch.tensor([[0, 8 * k] for k in range(4)])
clip = torch.zeros(1, 1, 4, 64, 64)
for k in range(4):
    clip[0, 0, k, 18:46, 4 + 8 * k:32 + 8 * k] = along(drifting)[0, 0, 0]


def change(z):
    made = enlarge(F.avg_pool3d(clip, (1, 2, 2)), z, torch.zeros(1, 1, 4, 32, 32), strength=0.0)
    return flicker(torch.cat([made[:, :, k:k + 1, 18:46, 4 + 8 * k:32 + 8 * k] for k in range(4)], dim=2))


by_eights = {"separate": change(separate[0][:, :, :4]), "shared": change(share(z0, 4)), "travelling": change(travelling(z0, eights))}
print("eight pixels a frame:", ", ".join(f"{name} {value:.4f}" for name, value in by_eights.items()))

# %%
# NBVAL_CHECK_OUTPUT
print("noise that travels: less than a fifth of the change:", by_eights["travelling"] < 0.2 * by_eights["shared"])

# %% [markdown]
# In a real video nobody gives you the path. The other solution is a network with layers over time, which the paper uses in its first super-resolution stage; for the last, at 768 pixels, memory, compute and videos of that size were lacking.
#
# ## 8. How many answers has a small frame?
# The noise chooses. Take sixteen seeds for the same small frame, and see how much the results differ, pixel by pixel (standard deviation).

# %%
seeds = torch.cat([fast.upsample(still[:, :, :1], steps=STEPS, seed=k) for k in range(16)])
spread = seeds.std(0, keepdim=True)
shown = torch.cat([resized(still[:, :, :1], "nearest"), real[3:4, :, :1], *seeds[:5].split(1), seeds.mean(0, keepdim=True), spread / spread.max()])
show.image_grid(shown[window], titles=["small", "real", *[f"seed {k}" for k in range(5)], "mean of 16", "they differ"], columns=9)

# %%
edge = F.max_pool2d(still[:, :, 0], 3, 1, 1) + F.max_pool2d(-still[:, :, 0], 3, 1, 1) > 0.2     # next to each other, dark and bright
edge = edge.repeat_interleave(2, -1).repeat_interleave(2, -2)[:, :, None]
print(f"they differ by {spread[edge].mean():.3f} at edges, {spread[~edge].mean():.3f} elsewhere")
mean_of_seeds = seeds.mean(0, keepdim=True)
off = {name: float((clips - real[3:4, :, :1]).square().mean().sqrt()) for name, clips in (("one answer", seeds), ("mean of 16", mean_of_seeds))}
print("missed:", ", ".join(f"{name} {value:.4f}" for name, value in off.items()))
soft = {name: torch.where(clips < 0.06, 0, clips).diff(dim=-1).abs().mean() for name, clips in (("real", real[3:4, :, :1]), ("one answer", seeds), ("mean of 16", mean_of_seeds))}
print("sharpness without haze, real = 1:", ", ".join(f"{name} {value / soft['real']:.2f}" for name, value in soft.items()))
assert off["mean of 16"] < off["one answer"]


# %% [markdown]
# They differ at edges, and agree where the small frame is all black or all white. And note the last lines: the *mean* of the answers is usually closer to the truth than any one of them, and it is softer. **A small error is not the goal.** A measure that rewards the mean would make us train the formula of section 1.
#
# ## 9. How far to trust the small frame
# In training the small frames were averaged down from real ones. In the pipeline a model makes them, with flaws: a stroke a little too thin, an edge a little too soft, a speck. The network takes its input for the truth and sharpens the flaws as well; and each stage of a cascade passes its flaws on.
#
# **Conditioning augmentation** (Ho et al. 2021, section 4): in training, put noise of a random strength $a$ on $y$, and *tell* the network how strong:
#
# $$\tilde y = \sqrt{1 - a^2}\;y + a\,e,\qquad e \sim \mathcal N(0, I)$$
#
# The variance stays the same if that of $y$ is 1. Where the noise covers small flaws, the network cannot copy them, and must know for itself what digits look like.

# %%
# NBVAL_CHECK_OUTPUT
def augmented(y, a, e):
    return math.sqrt(1 - a**2) * y + a * e


y, e = (torch.randn(4, 1, 1, 64, 64, generator=generator(k), dtype=F64) for k in (7, 8))
for a in (0.0, 0.1, 0.3):
    same = torch.allclose(augmented(y, a, e), augment(y, torch.full((4,), a, dtype=F64), e))
    print(f"a = {a}: the same as utils: {same}, variance kept: {abs(float(augmented(y, a, e).var()) - 1) < 0.03}")
print("without the root it is not:", abs(float((y + 0.3 * e).var()) - 1) < 0.03)

# %% [markdown]
# **Does it listen?** Put noise of strength 0.5 on the small frames, and tell the network 0, then 0.1, 0.3 and 0.5. **Predict:** what does it draw when told that its input is clean?

# %%
M = {"smoke": 8, "cpu": 16}.get(BUDGET, 128)
more = MovingMNIST("test", seed=43, image_size=64, num_frames=1, captions="digits").sample(M)
large = rearrange((more.video + 1) / 2, "b c 1 h w -> 1 c b h w")          # M frames that have nothing to do with each other, as one clip
little = F.avg_pool3d(large, (1, 2, 2))
corrupted = augmented(2 * little - 1, 0.5, torch.randn(little.shape, generator=generator(9)))


@torch.no_grad()
def enlarge_told(y, told):
    """y (1, 1, T, 32, 32) in [-1, 1] as it is, and the strength that the network is told -> (1, 1, T, 64, 64) in [0, 1]"""
    told = torch.full((1,), told, device=DEVICE)
    *_, last = sample_loop(guided_denoiser(partial(model.net, low_res=y.to(DEVICE), augmentation=told), None, 1.0, "v"),
                           share(first_noise(64, 3), y.shape[2]).to(DEVICE), log_snrs)
    return ((last.z.clamp(-1, 1) + 1) / 2).cpu()


told = {strength: enlarge_told(corrupted, strength) for strength in (0.0, 0.1, 0.3, 0.5)}
black = F.max_pool3d(large, (1, 5, 5), 1, (0, 2, 2)) < 0.01                # far from any stroke
for strength, frames in told.items():
    print(f"told {strength:.1f}   missed {(frames - large).square().mean().sqrt():.3f}   in the black {frames[black].mean():.3f}")
seen = [resized((corrupted.clamp(-1, 1) + 1) / 2, "nearest"), told[0.0], told[0.5], large]
show.film_strip(torch.cat(seen)[:, :, :5], ["given", "told 0", "told 0.5", "real"], title="noise of strength 0.5 on the small frames", xlabel="five frames")

# %% [markdown]
# Told that its input is clean, it takes specks for ink. Told the truth, it ignores them. The number is a dial: *how far to trust the small frame*.
#
# **Now without noise in the input, but with other flaws.** We take real frames, blurred; real frames, redrawn by the image model of lesson 10 (noised to log-SNR 0 and sampled from there, so that they are its own work); and clean ones. To each we add noise of strength 0, 0.1 and 0.3 and tell the network so, as `model.upsample(augmentation=...)` does. The truth is known, so we can measure (for redrawn frames *missed* includes the redrawing: compare these three only with each other); *strokes* is sharpness without the haze, real = 1.

# %%
kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
blurred = F.conv3d(little, (kernel[:, None] * kernel)[None, None, None], padding=(0, 1, 1))
images = load_pretrained("mav-image", device=DEVICE)
below = torch.linspace(0, 12, STEPS + 1, dtype=F64)                        # log-SNR, from half noise to data
alone = rearrange(2 * little - 1, "1 c b h w -> b c 1 h w")
started = q_sample(alone, below[:1].float().expand(M), torch.randn(alone.shape, generator=generator(10))).to(DEVICE)
with torch.no_grad():
    *_, last = sample_loop(guided_denoiser(images.net, images.encode(more.captions), 1.0, "v"), started, below)
redrawn = rearrange((last.z.cpu().clamp(-1, 1) + 1) / 2, "b c 1 h w -> 1 c b h w")


# %%
def strokes(frames):
    return torch.where(frames < 0.06, 0, frames).diff(dim=-1).abs().mean()


made, off = {}, {}
for name, frames in {"clean": little, "blurred": blurred, "redrawn": redrawn}.items():
    for a in (0.0, 0.1, 0.3):
        made[name, a] = clips = fast.upsample(frames, augmentation=a, steps=STEPS)
        off[name, a] = float((clips - large).square().mean().sqrt())
        print(f"{name:8s} augmentation {a:.1f}   missed {off[name, a]:.4f}   strokes {strokes(clips) / strokes(large):.2f}")
assert all(off[name, 0.0] < off[name, 0.1] < off[name, 0.3] for name in ("clean", "blurred"))
shown = torch.cat([resized(blurred, "nearest"), *[made["blurred", a] for a in (0.0, 0.3)], large])
show.film_strip(shown[:, :, :6], ["blurred", "0", "0.3", "real"], title="blurred small frames, augmentation 0 and 0.3", xlabel="six frames")

# %% [markdown]
# **What this says, and what it does not.** By *missed*, augmentation does not pay here: noise hides what is known, and for clean and for blurred frames the error grows with every bit of it. What it buys shows in the next column and in the strip: from blurred frames, more augmentation makes firmer strokes, which are less and less the true ones. Faithful or firm: that is the dial.
#
# The papers that call it essential have photographs to invent, and pass them on to 256 pixels and beyond, so flaws add up over stages; doubling the size of digits leaves little to invent. We keep a weak 0.1, and section 12 shows generated clips with all three.
#
# ## 10. With no training for it?
# [Lesson 08](08_reconstruction_guidance.ipynb#8.-Any-mask) sharpened clips with a model that was never trained to: averaged down, the estimate must agree with what is known. That needs no second network. But it needs a model of the *large* clip, all frames at once, with a gradient through it at every step, and none of ours has ever seen a clip of 64 pixels. The cascade turns that around: the expensive network, which knows about time, works on small clips; the cheap one, which knows about edges, works on single frames.
#
# ## 11. Measured
# Real clips of 64 pixels, averaged down and enlarged again in every way (`python -m utils.super_resolution`). *Missed*, *again* and *sharpness* as in section 1. *Change* from frame to frame, real = 1. *Flicker* of still clips. *Digits*: the share of digits, cut out where they truly are, that the classifier of lesson 03 reads correctly, with its 95% interval; and their kernel *distance* to other real ones (unbiased, so it may fall below 0).

# %%
table = json.loads((ASSETS / "results" / "mav-upsample-frames.json").read_text())
print(f"n = {table['n']}, {table['steps']} steps, {table['split']} digits, {table['device']}")
print(f"{'':32s}{'missed':>8s}{'again':>7s}{'sharpness':>11s}{'change':>8s}{'flicker':>9s}{'digits':>8s}{'':16s}{'distance':>9s}{'seconds':>9s}")
for name, r in table["rows"].items():
    interval = f"({r['digits_low']:.0%} to {r['digits_high']:.0%})"
    print(f"{name:32s}{r['missed']:8.4f}{r['again']:7.3f}{r['sharpness']:11.2f}{r['change']:8.2f}{r['flicker']:9.4f}"
          f"{r['digits']:8.1%} {interval:15s}{r['kernel_distance']:9.3f}{r['seconds']:9.1f}")

# %%
rows = table["rows"]
assert rows["shared noise"]["flicker"] < 1e-4 < rows["separate noise"]["flicker"]
assert rows["shared noise, ancestral"]["flicker"] < 1e-4 < rows["separate noise, ancestral"]["flicker"]
assert rows["shared noise"]["missed"] < rows["bilinear"]["missed"] < rows["nearest"]["missed"]
assert rows["bilinear"]["sharpness"] < 1 and rows["bilinear"]["change"] < 1
above = {name: r["kernel_distance"] - rows["real clips (floor)"]["kernel_distance"] for name, r in rows.items()}
assert abs(above["shared noise"]) < 0.5 * above["bilinear"] and rows["bilinear"]["digits_high"] > rows["shared noise"]["digits_low"]
assert abs(rows["shared noise"]["missed"] / rows["separate noise"]["missed"] - 1) < 0.05
assert abs(above["nearest"]) < 0.5 * above["bilinear"]

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3), layout="constrained", sharey=True)
names = [name for name in rows if name != "real clips (floor)"]
for ax, key, title in zip(axes, ("missed", "flicker", "kernel_distance"), ("missed", "flicker of still clips", "kernel distance of digits")):
    colours = [show.BLUE if name.startswith("shared") else show.ORANGE if name.startswith("separate") else show.GREY for name in names]
    floor = rows["real clips (floor)"][key]
    ax.barh(names[::-1], [rows[name][key] - floor for name in names][::-1], left=floor, color=colours[::-1])
    ax.axvline(floor, color="black", linewidth=1.2, linestyle=":")
    ax.set_title(title, fontsize=10)
    ax.tick_params(labelsize=9)
    ax.locator_params(axis="x", nbins=4)
figure.suptitle("bars start at the dotted line: real clips", fontsize=10);

# %% [markdown]
# - The network comes closer to the truth than resizing, and its digits score the distance of real ones. Bilinear ones do not; *nearest* ones do, so this distance ignores stairs.
# - Shared and separate noise differ in *flicker*, and a little in *change*. Frame by frame both are equally good: no measure that looks at single frames will ever see the difference.
# - Which row has more digits read correctly is not decided here: all rows read the same digits, so one would have to count those read in one row and not in the other; separate intervals for each row cannot tell.
# - No noise at all on the small frame (*augmentation 0*) misses a little less than our 0.1, as section 9 found.
#
# ## 12. The whole pipeline
# *Make-A-Video* is a chain of functions, $\hat y = \mathrm{SR}_h \circ \mathrm{SR}^t_l \circ \mathrm{UpF} \circ D^t \circ P\,(\text{text})$: the prior $P$ turns the text into an image embedding, $D^t$ turns that into keyframes, $\mathrm{UpF}$ fills in between, $\mathrm{SR}^t_l$ enlarges with layers over time, and $\mathrm{SR}_h$ frame by frame. Ours has no prior ($D$ takes the caption itself) and one enlarging stage, frame by frame as $\mathrm{SR}_h$:
#
# | stage | model | out |
# |---|---|---|
# | keyframes, from the caption ([lesson 10](10_make_a_video.ipynb)) | `mav` | (N, 1, 16, 32, 32), 6 frames a second |
# | frames between ([lesson 11](11_frame_interpolation.ipynb)) | `mav-interpolate` | (N, 1, 76, 32, 32), 30 frames a second |
# | twice the size | `mav-upsample` | (N, 1, 76, 64, 64) |

# %%
# NBVAL_CHECK_OUTPUT
exact = load_pipeline("mav", device=DEVICE, amp="off")
caption = ["3 and 7"]
keyframes = exact.keyframes.sample(caption, steps=2, seed=3)
between = exact.interpolate.interpolate(keyframes, skip=5, steps=2, seed=3)
by_hand = exact.upsample.upsample(between, captions=digits_of(caption), steps=2, seed=3)
print(tuple(keyframes.shape), "->", tuple(between.shape), "->", tuple(by_hand.shape))
print("equal to the pipeline:", torch.allclose(by_hand, exact(caption, steps=2, seed=3, progress=False), atol=1e-4))
print("every fifth frame is a keyframe:", torch.equal(between[:, :, ::5], keyframes))
print("another seed, another clip:", not torch.allclose(by_hand, exact(caption, steps=2, seed=4, progress=False), atol=1e-2))

# %% [markdown]
# As one call, `load_pipeline("mav")(captions)`, it has one progress bar over all three. Here we run and time each stage; a *network step* is one call of a network with one batch. **Predict:** which stage takes longest?

# %%
N = {"smoke": 2, "cpu": 4}.get(BUDGET, 32)
pipe = load_pipeline("mav", device=DEVICE)                                 # in half precision where that is faster
captions = ["3 and 7", "1 and 0", "4 and 8", "2 and 5", *MovingMNIST("test", seed=46, num_frames=1, captions="digits").sample(28).captions][:N]
options, clock = dict(steps=STEPS, seed=0), [time.perf_counter()]
keyframes = pipe.keyframes.sample(captions, **options)
clock.append(time.perf_counter())
between = pipe.interpolate.interpolate(keyframes, skip=5, **options)
clock.append(time.perf_counter())
clips = pipe.upsample.upsample(between, captions=digits_of(captions), **options)
clock.append(time.perf_counter())

# %%
counts = [pipe.keyframes.network_steps(N, STEPS), pipe.interpolate.network_steps(5 * N, STEPS), pipe.upsample.network_steps(N, STEPS, 76)]
took = [end - start for start, end in zip(clock, clock[1:])]
for name, seconds, count in zip(("1 keyframes", "2 frames between", "3 twice the size"), took, counts):
    print(f"{name:18s}{seconds:7.1f} s {seconds / sum(took):6.0%}   {count:5d} network steps")
print(f"{N} captions, {STEPS} steps a stage: {sum(took):.1f} s, {sum(took) / N:.1f} s a clip of {clips.shape[2]} frames")

# %% [markdown]
# Keyframes, where nearly everything is decided, cost least; the other two stages share the rest, as they have five times as many frames.
#
# **Look.** Left, the clip before the last stage, enlarged smoothly; right, the result. (It has 30 frames a second in the model's world, and is played at half of that. The file with four captions is the picture at the top.)

# %%
pairs = torch.cat([resized(between[:4], "bilinear"), clips[:4]])
show.gif(pairs, outputs() / "12_pipeline.gif", columns=min(4, N), scale=2, fps=15)
show.play(torch.cat([resized(between[:1], "bilinear"), clips[:1]]), captions[:1], columns=2, scale=2, fps=15)

# %%
show.film_strip(clips[:2], captions[:2], every=5, title=f"every fifth of 76 frames, 64×64: shipped weights, {STEPS} steps")

# %% [markdown]
# Seen from above, an even slant is a digit that moves evenly; a kink every five frames would be a seam between keyframes, every fifteen one between windows. The generated clips are uneven: paths bend, digits come and go. They already do so in their keyframes, which are the frames of the strip above.

# %%
as_asked = MovingMNIST("test", seed=47, image_size=64, num_frames=76, captions="digits", speed=FINE_SPEED).from_captions(captions)
show.xt_slice(torch.cat([(as_asked.video[:2] + 1) / 2, clips[:2]]), [f"{what}: {text}" for what in ("real", "made") for text in captions[:2]], time_across=True,
              title="seen from above")

# %% [markdown]
# **Which digits does it show?** The judge of lesson 04 reads 16 frames of 32 pixels, so it gets every fifth frame, averaged down; real clips of 76 frames are treated the same. *As asked* means that both digits are read somewhere in the clip, not that both are there in every frame: the strip above shows how little that can mean. Every fifth frame is a keyframe, so the question here is whether *super-resolution kept what the first stage made*; the frames between are not read. Lesson 10 measures how good the first is, with many more clips.

# %%
every_fifth = {"real clips (floor)": (as_asked.video[:, :, ::5] + 1) / 2, "pipeline": clips[:, :, ::5], "its keyframes": keyframes}
readings = {name: read(videos) for name, videos in every_fifth.items()}
for name, reading in readings.items():
    r = obeyed(reading, captions)
    print(f"{name:20s} both digits as asked {r['digits']:4.0%} [{r['digits_low']:.0%} to {r['digits_high']:.0%}]")
kept = (readings["pipeline"].digits.sort(1).values == readings["its keyframes"].digits.sort(1).values).all(1).float().mean()
print(f"clips in which the same two digits are read as in their keyframes: {kept:.0%} of {N}")

# %% [markdown]
# (So few clips decide little.)
#
# **Augmentation, on generated frames.** There is no truth here; look.

# %%
few = between[:1, :, 30:46]
dial = {a: pipe.upsample.upsample(few, captions=digits_of(captions[:1]), augmentation=a, **options) for a in (0.0, 0.1, 0.3)}
show.film_strip(torch.cat([resized(few, "nearest"), *dial.values()]), ["32 pixels", *[f"augmentation\n{a}" for a in dial]], every=3, title=captions[0])

# %% [markdown]
# ## 13. Play: your caption
# Two digits, as numerals or words, and, if you like, the direction in which each starts; but remember what lesson 10 found about directions.

# %%
my_caption = "three and 8"  #@param {type:"string"}
my_seed = 0  #@param {type:"integer"}
my_steps = 16  #@param {type:"slider", min:4, max:64, step:4}
mine = pipe(my_caption, steps=2 if BUDGET == "smoke" else my_steps, seed=my_seed)
show.play(mine[:, :, ::2], [my_caption], columns=1, scale=3, path=outputs() / "12_mine.gif")   # every second frame

# %%
show.film_strip(mine, [my_caption], every=5)


# %% [markdown]
# | if it looks like this | then look at |
# |---|---|
# | a still clip flickers | noise that is not shared: the start, the steps, or the augmentation's |
# | edges of moving strokes shimmer | what sharing does not do (section 7) |
# | a jump every sixteen frames | pieces of a clip, each with its own noise: share one over the whole clip |
# | sharp flaws | flaws of the small clip: more augmentation, or a better first stage |
# | firm strokes that are not those of the small frame | too much augmentation |
# | specks in the black | few steps, or noise that the network was not told of |
# | digits change on their way | stage 1; look at the keyframes by themselves |
#
# ## 14. Faithful? The box
#
# | the paper says | we do | why |
# |---|---|---|
# | two stages: in space *and time* to 256×256, then frame by frame to 768×768 | one, frame by frame, 32 to 64 | 64 is the native size of Moving MNIST; the second stage's idea is the one to teach |
# | the last stage gets the same noise for every frame, as it has no layers over time | the same, also for step noise and augmentation | section 6 |
# | super-resolution first trained on images | on single frames of Moving MNIST | a frame is an image |
# | a prior from text to CLIP image embeddings; the decoder is conditioned on these | a small text encoder, trained along with the image model | the grammar has sixteen words |
# | 16 frames, 64×64, interpolated to 76 | 16 frames, 32×32, interpolated to 76 | a free GPU |
# | how the small clip comes in is left to earlier work | enlarged, as channels, with augmentation (Ho et al. 2021) | common practice |
# | billions of parameters, 2.3 billion images | a few million parameters, pictures and clips made on the fly | minutes to hours |
#
# ## 15. Exercises
# ### Exercise 1 · Share the noise (difficulty ●○○, importance ●●●, 5 minutes)
# Draw the noise of one step for a clip of shape (C, T, H, W), from `torch.Generator().manual_seed(seed)`: the same for all frames if `shared`, else a different one for each; in one call of `torch.randn`, for one frame or for all (other calls give other numbers). This is the line that the ancestral sampler lacked in section 6.

# %%
def step_noise(shape, seed, shared):
    """shape (C, T, H, W) -> noise of that shape"""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_step_noise(shape, seed, shared):
    c, t, h, w = shape
    return torch.randn(c, 1 if shared else t, h, w, generator=torch.Generator().manual_seed(seed)).expand(c, t, h, w)


step_noise = check("exercise 1", step_noise, reference_step_noise, ((1, 4, 3, 2), 0, True), ((1, 4, 3, 2), 1, False), ((3, 1, 2, 2), 2, True))


# %% [markdown]
# <details><summary>Hint</summary>Draw for one frame and `expand`; do not draw for all and throw some away, or the generator ends in another state.</details>
# <details><summary>Solution</summary>
#
# ```python
# c, t, h, w = shape
# noise = torch.randn(c, 1 if shared else t, h, w, generator=torch.Generator().manual_seed(seed))
# return noise.expand(c, t, h, w)
# ```
# </details>
#
# ### Exercise 2 · A noisy camera (difficulty ●●○, importance ●●○, 10 minutes)
# Small frames in [−1, 1] come from a camera that adds noise of standard deviation `s`: you get $y + s\,e$. The network knows only $\sqrt{1 - a^2}\,y + a\,e$. By which factor do you multiply it, and which $a$ do you tell the network?

# %%
def for_the_network(s):
    """s -> tensor of two numbers: the factor, and a"""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_for_the_network(s):
    factor = 1 / math.sqrt(1 + s**2)
    return torch.tensor([factor, s * factor])


for_the_network = check("exercise 2", for_the_network, reference_for_the_network, (0.0,), (0.2,), (0.5,))

# %%
camera = 2 * little - 1 + 0.5 * torch.randn(little.shape, generator=generator(11))
factor, a = for_the_network(0.5)
ways = {"as it comes, told nothing": enlarge_told(camera, 0.0), "scaled, and told": enlarge_told(float(factor) * camera, float(a))}
for name, frames in ways.items():
    print(f"{name:28s} missed {(frames - large).square().mean().sqrt():.3f}   in the black {frames[black].mean():.3f}")
show.film_strip(torch.cat(list(ways.values()))[:, :, :5], ["told nothing", "told"], xlabel="five frames")


# %% [markdown]
# <details><summary>Hint</summary>Multiply by f: f y + f s e. Compare: f = √(1 − a²) and f s = a. Square and add.</details>
# <details><summary>Solution</summary>
#
# ```python
# factor = 1 / math.sqrt(1 + s**2)
# return torch.tensor([factor, s * factor])
# ```
#
# No noise is added: the noise already there *is* the augmentation. The network was trained for strengths $a$ up to 0.5.
# </details>
#
# ### Exercise 3 · Count the calls (difficulty ●○○, importance ●●○, 5 minutes)
# `num` captions go through the pipeline. The first two networks take at most `batch` clips of 16 frames at a time, and the second makes `windows` clips out of each; the last takes at most `frame_batch` frames at a time, and never frames of two clips together. How many network steps does each of the three stages take, with `steps` steps a sample?

# %%
def calls(num, steps, windows, frames, batch, frame_batch):
    """-> tensor of three counts"""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_calls(num, steps, windows, frames, batch, frame_batch):
    batches = [math.ceil(num / batch), math.ceil(num * windows / batch), num * math.ceil(frames / frame_batch)]
    return steps * torch.tensor(batches)


calls = check("exercise 3", calls, reference_calls, (1, 32, 5, 76, 8, 16), (4, 16, 5, 76, 8, 16), (9, 10, 5, 76, 64, 512))

# %%
# NBVAL_CHECK_OUTPUT
clip_batch, frame_batch = (8, 16) if DEVICE.type == "cpu" else (64, 512)   # what `Model` takes at a time
print("as the pipeline counted:", calls(N, STEPS, 5, 76, clip_batch, frame_batch).tolist() == counts)

# %% [markdown]
# <details><summary>Hint</summary>Round up in each stage separately; in the last one per clip, before multiplying.</details>
# <details><summary>Solution</summary>
#
# ```python
# batches = [math.ceil(num / batch), math.ceil(num * windows / batch), num * math.ceil(frames / frame_batch)]
# return steps * torch.tensor(batches)
# ```
#
# Guidance by captions does not add steps, but doubles the work in each.
# </details>
#
# ## 16. Quiz
# 1. Why is the best average guess blurred, and a sample not?
# 2. Frames share their noise. Which two things must also hold for a still clip to come out still?
# 3. *Missed* is the same with shared and with separate noise. Why, and what does that mean for measuring?
# 4. Two noises travel with a digit, and it still shimmers a little. What else changes from frame to frame?
# 5. Why is noise on the small frame not enough: why must the network be told of it?
#
# <details><summary>Answers</summary>
#
# 1. The guess that is right on average is the mean of all large frames that fit; an edge that is here in one and there in another is soft in their mean. A sample is one of them.
# 2. The sampler draws nothing on the way, or the same for all frames; and the small frames are identical, so the noise on them must be shared too.
# 3. Each frame is as good an answer with its own noise as with a shared one. What is wrong between frames can only be seen between frames.
# 4. The small frame: a digit moved by one pixel falls differently into the 2×2 cells.
# 5. Otherwise it cannot know whether a speck is noise or ink, and must always hedge for the average strength; told, it trusts a clean frame and distrusts a noisy one.
# </details>
#
# ## What was shown, and what was not
# Shown: that resizing blurs; that a per-frame diffusion model gives one sharp answer of many; that a still clip is still to float precision if the noise of start, steps and augmentation is shared, equal to `utils`; that moving strokes shimmer all the same, and why; that the network knows how far to trust its input; three stages by hand equal to the pipeline, with the cost of each. Not shown: that augmentation improves the clips of this pipeline (measured by error it costs; nobody knows the truth of generated ones); super-resolution with layers over time; that the digits are right, which is decided in stage one.
# This completes the road from noise to Make-A-Video. Lesson 13 asks how far the same code goes on larger machines.
#
# ## Readings
# - Singer, Polyak, Hayes, Yin, An, Zhang, Hu, Yang, Ashual, Gafni, Parikh, Gupta, Taigman, *Make-A-Video*, 2022 (arXiv 2209.14792): section 3.2 shares the noise, section 3 is the pipeline.
# - Saharia, Ho, Chan, Salimans, Fleet, Norouzi, *Image Super-Resolution via Iterative Refinement*, 2021 (arXiv 2104.07636): the enlarged small picture as more channels.
# - Ho, Saharia, Chan, Fleet, Norouzi, Salimans, *Cascaded Diffusion Models for High Fidelity Image Generation*, 2021 (arXiv 2106.15282): section 4, conditioning augmentation.
# - Ho, Chan, Saharia, and others, *Imagen Video*, 2022 (arXiv 2210.02303): seven models in a row, with augmentation between all of them.
# - Blattmann, Rombach, Ling, Dockhorn, Kim, Fidler, Kreis, *Align your Latents*, 2023 (arXiv 2304.08818): layers over time put into an image upsampler.
# - Ge, Nah, Liu, and others, *Preserve Your Own Correlation*, 2023 (arXiv 2305.10474): noise partly shared between frames.
