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
# # 11 · Frame interpolation
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/video-diffusion-lessons/video-diffusion-lessons/blob/main/lessons/11_frame_interpolation.ipynb)
#
# ![One real clip at 30 frames a second, and three ways to fill in what lies between every fifth of its frames: repeated, cross-faded, made by the network](../assets/figures/11_interpolation.gif)
#
# **Claim: tell a video model which frames are given, and it fills in the frames between: 16 keyframes at 6 a second become 76 frames at 30 a second. Telling it takes two more input channels, whose weights start at zero.**
# The result is closer to the missing frames than repeated keyframes are, and than the guidance of lesson 08, which takes about twice the time. A plain cross-fade still has a smaller squared error, but it has ghosts.
#
# (Above, from the left: a real clip, of which every fifth frame is given; then its keyframes repeated, cross-faded, and filled in by the shipped `mav-interpolate`. A grey border marks a given frame.)
#
# You will be able to
# - see what repeating and cross-fading do to motion, and put a number on each of their two faults;
# - give a trained video network new inputs, and prove that they change nothing at first;
# - show that frames that are not given cannot leak, and that given frames do reach the others;
# - cut 16 keyframes into five windows with shared ends, and join them into 76 frames;
# - use the same network to continue a clip and to set one picture in motion.
#
# | reading | exercises | machine: T4 (estimate) / two CPU cores |
# |---|---|---|
# | 35 minutes | 20 minutes | 12 / 5 minutes (a smaller run) |
#
# **The series:** [01 DDPM](01_ddpm_on_mnist.ipynb) → [02 schedules and fast samplers](02_fast_samplers.ipynb) → [03 guidance](03_guidance.ipynb) → [04 Moving MNIST](04_moving_mnist.ipynb) → [05 the factorized 3D U-Net](05_factorized_unet.ipynb) →
# [06 Video Diffusion Models](06_video_diffusion_models.ipynb) → [07 joint training](07_joint_training.ipynb) → [08 reconstruction guidance](08_reconstruction_guidance.ipynb) → [09 pseudo-3D layers](09_pseudo_3d_layers.ipynb) → [10 Make-A-Video](10_make_a_video.ipynb) → **11 frame interpolation (you are here)** → [12 super-resolution](12_super_resolution.ipynb) → [13 scaling up](13_scaling_up.ipynb).
# This lesson rests on [reconstruction guidance](08_reconstruction_guidance.ipynb#3.-The-missing-term) (lesson 08), [pseudo-3D layers](09_pseudo_3d_layers.ipynb) (lesson 09) and the model of [lesson 10](10_make_a_video.ipynb). Symbols: [glossary](glossary.md).

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
import copy, json
import matplotlib.pyplot as plt
import torch
from einops import rearrange
from torch import nn
from utils import keyframes as utils_keyframes, load_pretrained, show
from utils.data import FINE_FPS, FINE_SPEED, MovingMNIST
from utils.diffusion import loss_per_sample, q_sample, to_x
from utils.exercises import check
from utils.interpolation import FRAMES, SKIP, guided
from utils.layers import over_clips
from utils.metrics import motion, read
from utils.model import Model
from utils.recipes import recipe
from utils.runtime import ASSETS, budget, generator, outputs, pick_device, randn_per_sample
from utils.samplers import ddim_step
from utils.train import Trainer
from utils.unet import UNet, inflate, new_over_time, randomize

BUDGET, DEVICE = budget(), pick_device()
STEPS = {"smoke": 2, "cpu": 16}.get(BUDGET, 32)
N = 2 if BUDGET in ("smoke", "cpu") else 8                  # clips that are filled in here
F64 = torch.float64                                         # proofs and probes run in double precision, on the CPU

# %% [markdown]
# ## 1. Six frames a second are too few
# `mav` makes 16 frames at 6 a second ([lesson 10](10_make_a_video.ipynb)). Shown at that rate, motion is a series of jumps. At 30 a second it would look smooth, but four of five frames are missing. Take *real* clips of 76 frames at 30 a second, so that the truth is known, and keep every fifth frame:
#
# | | shape | |
# |---|---|---|
# | `real` | (N, 1, 76, 32, 32) | 30 frames a second |
# | `keys` | (N, 1, 16, 32, 32) | the keyframes, every fifth: 6 a second |
# | missing | 60 of the 76 frames | |
#

# %%
fine = MovingMNIST("test", seed=25, num_frames=FRAMES, speed=FINE_SPEED, captions="digits")     # the fine clock: 30 frames a second
batch = fine.sample(64, index=0)
chosen = torch.tensor([13, 9, *range(16, 22)])[:N]                                             # two in which digits are mostly apart, then some more
real, captions = (batch.video[chosen] + 1) / 2, [batch.captions[k] for k in chosen]
keys = real[:, :, ::SKIP]
print("real", tuple(real.shape), "  keyframes", tuple(keys.shape))


# %% [markdown]
# There are two obvious ways. **Repeat** each keyframe until the next. Or **cross-fade**: go from one to the next in a straight line, pixel by pixel. **Predict:** what will a digit look like half-way between two keyframes of a cross-fade?

# %%
def repeated(keys, skip):
    """(N, C, K, H, W) -> (N, C, skip * (K - 1) + 1, H, W): each keyframe until the next."""
    return keys.repeat_interleave(skip, dim=2)[:, :, :skip * (keys.shape[2] - 1) + 1]


def cross_faded(keys, skip):
    """The same shapes: from each keyframe to the next in a straight line."""
    frame = torch.arange(skip * (keys.shape[2] - 1) + 1)
    before, share = frame // skip, (frame % skip / skip)[:, None, None]
    after = (before + 1).clamp(max=keys.shape[2] - 1)
    return (1 - share) * keys[:, :, before] + share * keys[:, :, after]


ways = {"real": real, "repeated": repeated(keys, SKIP), "cross-fade": cross_faded(keys, SKIP)}
show.film_strip(torch.cat([clips[:1, :, :6] for clips in ways.values()]), list(ways), title="frames 0 to 5 of 76; 0 and 5 are keyframes")

# %% [markdown]
# <details><summary>What happened</summary>
#
# **Ghosts.** A moving digit becomes two pale digits, one where it was and one where it will be, so its strokes are doubled. A cross-fade knows the brightness at each place; it does not know that something *moves*.
# </details>
#
# Seen from above, the second fault shows too. A digit that moves evenly draws a slanted line; repeated frames draw **stairs**:

# %%
show.xt_slice(torch.cat([clips[:1] for clips in ways.values()]), list(ways), time_across=True, title=f"{captions[0]}, seen from above: 76 frames")

# %% [markdown]
# **Numbers.** *Missed*: the root mean square error of the frames that were not given, for values in [0, 1]. *Judder*, for stairs: measure how much changes from each frame to the next; take its spread over the clip, divided by its mean. With $c_k$ the mean over pixels of $|x_{k+1} - x_k|$:
#
# $$\text{missed} = \sqrt{\text{mean over missing frames of } (\hat x - x)^2}, \qquad \text{judder} = \frac{\text{std}_k\, c_k}{\text{mean}_k\, c_k}$$
#
# *Edges*, for ghosts: the mean step from pixel to pixel in missing frames, real clips = 1. Pale and double strokes have weaker edges (and specks of noise would have stronger ones).

# %%
between = torch.arange(FRAMES) % SKIP != 0                                                     # the frames that are missing


def missed(clips):
    return float((clips - real)[:, :, between].square().mean().sqrt())


def judder(clips):
    change = clips.diff(dim=2).abs().mean((1, 3, 4))                                           # (N, 75): c_k of each clip
    return float((change.std(1) / change.mean(1)).mean())


def edges(clips):
    return float(clips[:, :, between].diff(dim=-1).abs().mean() / real[:, :, between].diff(dim=-1).abs().mean())


def numbers_of(named):
    for name, clips in named.items():
        print(f"{name:20s} missed {missed(clips):.3f}   judder {judder(clips):.2f}   edges {edges(clips):.2f}")


numbers_of(ways)

# %%
# NBVAL_CHECK_OUTPUT
print("repeating judders most:", judder(ways["repeated"]) > max(judder(ways["real"]), judder(ways["cross-fade"])))
print("a cross-fade judders less than real clips do:", judder(ways["cross-fade"]) < judder(ways["real"]))
print("and misses less than repeating does:", missed(ways["cross-fade"]) < missed(ways["repeated"]))
print("its edges are weaker than real ones, repeated frames' are not:", edges(ways["cross-fade"]) < 0.9, abs(edges(ways["repeated"]) - 1) < 0.1)

# %% [markdown]
# **Read all three, and look.** Real clips judder too: at 30 frames a second a digit moves 0.36 pixels a frame, and its position is truncated to whole pixels of the 64-pixel canvas that clips are drawn on.
#
# A cross-fade is *smoother* than reality, since it changes by the same amount five times in a row, and a squared error forgives ghosts: if you do not know where a digit is, half of it in two places is the safest guess.
#
# So no single number says "good". The table of section 8 adds some that come from reading the digits.
#
# ## 2. What lesson 08 gives us
# Reconstruction guidance needs no training: sample with `mav`, put the keyframes in at every step, and use the gradient of the error to pull the rest towards agreement. `mav` makes 16 frames at a time, so the 76 frames are cut into five windows (section 7 says how). Tell it that frames come at 30 a second. **Predict:** which frames of the strip will look best?

# %%
mav = load_pretrained("mav", device=DEVICE, amp="auto")
ways["mav, guided"] = guided(mav, keys, fps=float(FINE_FPS), weight=5.0, steps=STEPS)
show.film_strip(torch.cat([ways[name][:1, :, :6] for name in ("real", "cross-fade", "mav, guided")]), ["real", "cross-fade", "mav, guided"],
                title=f"reconstruction guidance, w_r = 5, {STEPS} steps; frames 0 and 5 are given")

# %%
numbers_of({"mav, guided": ways["mav, guided"]})


# %% [markdown]
# The given frames are there, of course, but the further from them, the worse: digits lose their shape on the way. Measured on the 32 clips of section 8, guidance misses less than repeating does; these few decide nothing.
#
# Guidance pulls at a network that has never been told anything. That has three costs: a backward pass in each step; a weight to choose; and a pull that is only an approximation ([lesson 08, section 2](08_reconstruction_guidance.ipynb#2.-Two-numbers,-where-the-truth-is-known)). If filling in is what we want, why not *tell* the network what is given, and train it that way?
#
# ## 3. Tell the network
# *Make-A-Video* (Singer et al. 2022, section 3.3): give the network two more things besides the noisy clip $z$, as extra input channels:
#
# | | shape | |
# |---|---|---|
# | $z$ | (B, 1, T, H, W) | the noisy clip, as always |
# | $m$, `mask` | (B, 1, T, H, W) | 1 in frames that are given, 0 elsewhere |
# | $m\,x$, `given * mask` | (B, 1, T, H, W) | the given frames, **zero where nothing is given** |
# | $[z,\, m x,\, m]$ | (B, 3, T, H, W) | what the first convolution sees |
#
# Why the mask, if one can see which frames are zero? Zero is a grey that a frame might have, and the network should not have to guess whether a frame is *given* or *grey*. (The paper's frames are in colour: 3 + 1 more channels. Ours are grey: 1 + 1.)
#
# **The network is trained already.** Its first convolution has one input channel and needs three. A convolution is a sum over input channels:
#
# $$W * [z,\, m x,\, m] + b = W_z * z + b + W_{x} * (m x) + W_{m} * m$$
#
# So take $W_z$ and $b$ from `mav`, and start the new weights at **zero**. Then the network ignores what it is told, and is exactly `mav`; training has to find out what the new inputs are good for.

# %%
def known_channels(video, mask):
    """video (B, C, T, H, W), mask (B, 1, T, H, W) -> (B, C + 1, T, H, W): what is given, zero elsewhere, and where."""
    return torch.cat([video * mask, mask.to(video)], dim=1)


class WiderFirst(nn.Module):
    """The first pseudo-3D convolution of a video network, with two more input channels."""

    def __init__(self, first):
        super().__init__()
        self.conv = nn.Conv2d(first.in_channels + 2, first.out_channels, 3, padding=1).to(first.weight)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[:, :first.in_channels] = first.weight
            self.conv.bias.copy_(first.bias)
        self.time, self.known = first.time, None

    def forward(self, z, num_frames, num_images=0):                                            # (B*T, 1, H, W) -> (B*T, 16, H, W)
        known = rearrange(self.known, "b c t h w -> (b t) c h w")
        wide = self.conv(torch.cat([z, known], dim=1))
        return over_clips(self.time, wide, num_frames, num_images)                             # then over time, as `mav` does


# %% [markdown]
# `utils` does the same with a second layer: beside `first` there is `conditioning`, a convolution from the two new channels, and its output is *added*. The equation above says that the two are equivalent. First we check a convolution in space, with random weights:

# %%
# NBVAL_CHECK_OUTPUT
z_frames, known_frames = (torch.randn(6, channels, 8, 8, generator=generator(channels), dtype=F64) for channels in (1, 2))
first, extra = nn.Conv2d(1, 4, 3, padding=1).double(), nn.Conv2d(2, 4, 3, padding=1).double()
wide = nn.Conv2d(3, 4, 3, padding=1).double()
with torch.no_grad():
    wide.weight.copy_(torch.cat([first.weight, extra.weight], dim=1))                          # side by side, along the input channels
    wide.bias.copy_(first.bias + extra.bias)
    added, widened = first(z_frames) + extra(known_frames), wide(torch.cat([z_frames, known_frames], dim=1))
print("an added convolution equals more input channels:", bool((added - widened).abs().max() < 1e-12), " varies:", bool(widened.std() > 0.1))


# %% [markdown]
# Then the whole network. Both layers of `utils` are pseudo-3D, so each has a convolution over time as its second half. If that half is the same in both, their network equals the wide one. `widened` builds ours from theirs; `told` hands it what is known, then calls it:

# %%
def widened(net):
    """A `utils` network with `conditioning` as a network without, whose first convolution has two more input channels."""
    ours = UNet(recipe("mav").net).to(net.last.weight)
    ours.load_state_dict({name: tensor for name, tensor in net.state_dict().items() if not name.startswith("conditioning")})
    ours.first = WiderFirst(ours.first)
    with torch.no_grad():
        ours.first.conv.weight[:, 1:] = net.conditioning.weight
        ours.first.conv.bias += net.conditioning.bias
    return ours.eval()


def told(ours, z, log_snr, video, mask, known=known_channels, **inputs):
    ours.first.known = known(video, mask)
    return ours(z, log_snr, **inputs)


# %%
# NBVAL_CHECK_OUTPUT
theirs = randomize(UNet(recipe("mav-interpolate").net)).double().eval()                        # all weights at random: nothing is zero by chance
z, video = torch.randn(2, 2, 1, 6, 32, 32, generator=generator(5), dtype=F64)                  # both (2, 1, 6, 32, 32): six frames are enough here
log_snr, fps = torch.tensor([-2.0, 3.0], dtype=F64), torch.tensor([30.0, 6.0], dtype=F64)
mask = (torch.arange(6) % SKIP == 0).double()[:, None, None].expand(2, 1, 6, 32, 32)
with torch.no_grad():
    apart = theirs(z, log_snr, fps=fps, mask=mask, given=video)                                # each with its own layer over time
    theirs.conditioning.time.weight.copy_(theirs.first.time.weight)
    theirs.conditioning.time.bias.zero_()                                                      # one bias is enough
    ours, out = widened(theirs), theirs(z, log_snr, fps=fps, mask=mask, given=video)
    print("our wide network equals utils':", bool((told(ours, z, log_snr, video, mask, fps=fps) - out).abs().max() < 1e-10), " varies:", bool(out.std() > 1e-3))
    print("with a layer over time of its own it does not:", bool((apart - out).abs().max() > 1e-6))

# %% [markdown]
# The last line shows a small difference from the paper: in `utils` what is given goes through its own convolution over time, which can do a little more than extra channels of the first layer could.
#
# **The zero start, proven.** Take `mav` as shipped, and the network that training starts from. Whatever is given, their outputs must agree in double precision; the twin, whose new weights are drawn as usual in PyTorch, must differ.

# %%
# NBVAL_CHECK_OUTPUT
before = load_pretrained("mav", "cpu").net.double()
start = inflate(UNet(recipe("mav-interpolate").net).double(), before).eval()                   # what the trainer starts from
drawn = copy.deepcopy(start)
nn.Conv2d.reset_parameters(drawn.conditioning)                                                 # the twin: PyTorch's usual random start
with torch.no_grad():
    plain = before(z, log_snr, fps=fps)
    for name, net in (("new weights of zero", start), ("new weights at random", drawn)):
        difference = (net(z, log_snr, fps=fps, mask=mask, given=video) - plain).abs().max()
        print(f"{name}: the network is exactly mav: {bool(difference < 1e-10)}")
print("mav's output varies:", bool(plain.std() > 0.1))

# %% [markdown]
# **Predict:** the new weights are zero, and so are their outputs. Can they learn at all?

# %%
# NBVAL_CHECK_OUTPUT
start(z, log_snr, fps=fps, mask=mask, given=video).square().mean().backward()
size = {name: bool(start.get_parameter(name).grad.abs().max() > 0) for name in ("conditioning.weight", "conditioning.bias", "conditioning.time.weight")}
for name, moves in size.items():
    print(f"{name:24s} gets a gradient in the first step: {moves}")
start.zero_grad()

# %% [markdown]
# <details><summary>Answer</summary>
#
# Yes. The gradient of a weight is its input (the given frames and the mask, not zero) times the gradient at its output (not zero either, as the rest of the network is trained). Only what comes *after* a layer of zeros is stuck: the convolution over time sees nothing but zeros in the first step, and follows from the second on. Two layers of zeros in a row would never start.
# </details>
#
# ## 4. What must not leak, and what must arrive
# From here on we use the *trained* network, `mav-interpolate` as shipped, on a window of 16 frames with keyframes 0, 5, 10 and 15 given. Three questions, each with its own probe.
#
# **1. Do frames that are not given leak?** In training the network is handed the whole clip and a mask. If anything of the missing frames came through, it would learn to copy them, reach a loss that sampling can never match, and fail where there is no truth to copy. Change them: the output must stay the same, to the last bit. The twin forgets to multiply by the mask. (The twin is the wide network of section 3 with its random weights: it takes channels that we make ourselves.)

# %%
# NBVAL_CHECK_OUTPUT
probe = load_pretrained("mav-interpolate", "cpu").net.double()
x = 2 * real[:1, :, :16].double() - 1                                                          # (1, 1, 16, 32, 32)
one_mask = (torch.arange(16) % SKIP == 0).double()[:, None, None].expand(1, 1, 16, 32, 32)
level, rate = torch.tensor([-2.0], dtype=F64), torch.tensor([30.0], dtype=F64)
noisy = q_sample(x, level, torch.randn(x.shape, generator=generator(7), dtype=F64))
other = torch.where(one_mask.bool(), x, torch.randn(x.shape, generator=generator(8), dtype=F64))   # the same keyframes, all else different


def leaky_channels(video, mask):
    return torch.cat([video, mask], dim=1)                                                     # the twin: not multiplied


with torch.no_grad():
    answers = [probe(noisy, level, fps=rate, mask=one_mask, given=clip) for clip in (x, other)]
    leaks = [told(ours, noisy, level, clip, one_mask, leaky_channels, fps=rate) for clip in (x, other)]
print("missing frames changed, the output is the same to the last bit:", torch.equal(*answers), " varies:", bool(answers[0].std() > 0.1))
print("the twin without the multiplication is caught:", not torch.equal(*leaks))


# %% [markdown]
# **2. Do the given frames reach the others?** Change only the keyframe at frame 5: which output frames move? And by autograd: on which of the frames handed over does output frame 7, a missing one, depend?

# %%
# NBVAL_CHECK_OUTPUT
def moved_by(net, frame):
    changed = x.clone()
    changed[:, :, frame] *= -1
    with torch.no_grad():
        difference = net(noisy, level, fps=rate, mask=one_mask, given=changed) - answers[0]
    return [k for k, d in enumerate(difference.abs().amax((0, 1, 3, 4))) if d > 1e-9]


def depends_on(net, frame):
    handed = x.clone().requires_grad_(True)
    net(noisy, level, fps=rate, mask=one_mask, given=handed)[:, :, frame].sum().backward()
    return [k for k, slope in enumerate(handed.grad.abs().amax((0, 1, 3, 4))) if slope > 0]


print("changing the keyframe at frame 5 moves frames", moved_by(probe, 5))
print("changing frame 7, which is not given, moves", moved_by(probe, 7))
print("output frame 7 depends on the handed frames", depends_on(probe, 7))


# %% [markdown]
# Convolutions over three frames and attention over time carry the information in one keyframe to all sixteen frames. Of the sixteen frames handed over, only the four given ones count.
#
# **3. Does the network use both channels?** Break it: set the weights of one channel to zero. *Deaf to the mask*, it sees frames and grey, and is not told which is which. *Blind to the frames*, it knows which are given but not what is in them. First, a tool for each half of the question:

# %%
def without(net, channel):
    """A copy that cannot see the given frames (channel 0) or the mask (channel 1)."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        net.conditioning.weight[:, channel] = 0
    return net


# %%
def loss_on_missing(net, clips, level, mask=None):
    """Mean v-loss on the frames that the keyframe mask does not give; mask None: the network is told nothing."""
    log_snr, eps = torch.full((len(clips),), level), torch.randn(clips.shape, generator=generator(9))
    inputs = {} if mask is None else {"mask": mask.float().expand(len(clips), -1, -1, -1, -1).to(DEVICE), "given": clips.to(DEVICE)}
    rates = torch.full((len(clips),), float(FINE_FPS), device=DEVICE)
    with torch.no_grad():
        output = net(q_sample(clips, log_snr, eps).to(DEVICE), log_snr.to(DEVICE), fps=rates, **inputs).cpu()
    hidden = [k for k in range(16) if k % SKIP]
    return float(loss_per_sample(output[:, :, hidden], clips[:, :, hidden], eps[:, :, hidden], log_snr, "v").mean())


# %% [markdown]
# The v-loss on the **missing** frames of real clips, at four noise levels, compared with `mav`, which is told nothing. **Predict:** at which noise level does being told help most?

# %%
interpolator = load_pretrained("mav-interpolate", device=DEVICE)
held_out, LEVELS = batch.video[24:24 + {"smoke": 2, "cpu": 8}.get(BUDGET, 40), :, :16], [-8.0, -4.0, -1.0, 3.0]
nets = {"told both": (interpolator.net, one_mask), "deaf to the mask": (without(interpolator.net, 1), one_mask),
        "blind to the frames": (without(interpolator.net, 0), one_mask), "told nothing": (interpolator.net, None),
        "mav, before training": (load_pretrained("mav", device=DEVICE).net, None)}
print(f"loss on missing frames, {len(held_out)} clips; log-SNR" + "".join(f"{level:9g}" for level in LEVELS))
for name, (net, what) in nets.items():
    print(f"{name:46s}" + "".join(f"{loss_on_missing(net, held_out, level, what):9.4f}" for level in LEVELS))

# %% [markdown]
# Read a column from top to bottom: the first row is the network as it is meant to be used, the next two are the same weights with one channel cut, the fourth is the same network with nothing given (it was trained for that too). The further to the left, the more noise, and the more the network depends on what it is told. At the right end, with little noise, the clip itself says enough.
#
# **See what it believes**, at two noise levels. At log-SNR −8 the noisy clip shows next to nothing: what $\hat x$ shows of the missing frames there comes from the keyframes alone.

# %%
shown = torch.tensor([-8.0, -4.0])
window = batch.video[chosen[:1], :, :16].expand(2, -1, -1, -1, -1)
noisy_windows = q_sample(window, shown, torch.randn(window.shape, generator=generator(10))).to(DEVICE)
tell = {"mask": one_mask.float().expand(2, 1, 16, 32, 32).to(DEVICE), "given": window.to(DEVICE)}
with torch.no_grad():
    beliefs = {what: interpolator.predict_x(noisy_windows, shown.to(DEVICE), fps=torch.full((2,), 30.0, device=DEVICE), **inputs).cpu().clamp(-1, 1)
               for what, inputs in (("told", tell), ("not told", {}))}
show.film_strip(torch.cat([window[:1], *[beliefs[what][k:k + 1] for k in range(2) for what in ("told", "not told")]]).add(1) / 2,
                ["real", *[f"{what}, {level:g}" for level in shown.tolist() for what in ("told", "not told")]],
                title="what the network believes of the clip, at log-SNR −8 and −4; frames 0, 5, 10 and 15 are given")

# %% [markdown]
# ## 5. What it is trained on
# The clips of `mav`, without captions, each with a freshly drawn mask: `sample_masks`. Here are forty masks, one per column, white where a frame is given:

# %%
masks = utils_keyframes.sample_masks(40, 16, generator(11))[:, 0, :, 0, 0]                     # (40, 16)
order = sorted(range(40), key=lambda k: masks[k].tolist())
figure, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
ax.imshow(masks[order].T, cmap="gray", vmin=-0.3, vmax=1, aspect="auto", interpolation="nearest")
ax.set(xlabel="forty training clips (sorted)", ylabel="frame", title="what is given");

# %%
# NBVAL_CHECK_OUTPUT
many = utils_keyframes.sample_masks(3000, 16, generator(12))[:, 0, :, 0, 0].bool()
every = {skip: torch.arange(16) % skip == 0 for skip in (3, 5)}
is_keys = sum((many == pattern).all(1) for pattern in every.values()) > 0
is_start = (many == (torch.arange(16)[None] < many.sum(1, keepdim=True))).all(1)               # the first few, and no others
print("every mask is keyframes, a beginning, or nothing:", bool((is_keys | is_start).all()))
print("about half are keyframes:", abs(float(is_keys.float().mean()) - 1 / 2) < 0.05)
print("some give the first frame alone, some nothing:", bool((many.sum(1) == 1).any()), bool((many.sum(1) == 0).any()))

# %% [markdown]
# - **Keyframes**, every fifth or every third: filling in.
# - **A beginning**, up to eight frames: continuing it. **The first frame alone**: a picture set in motion.
# - **Nothing**: so that it stays a model of clips.
#
# The loss is lesson 10's, the mean over *all* frames. Where a frame is given, the network soon returns nearly what it is told, so the missing frames are what is left to learn. Frame rates move in the opposite direction to `mav`'s: from 6 a second, where `mav` ended, to 30, where this network is needed. The image weights stay frozen.

# %%
# NBVAL_CHECK_OUTPUT
ours_recipe = recipe("mav-interpolate")
skips = {progress: [ours_recipe.frame_skip(progress, generator(13, k)) for k in range(300)] for progress in (0.0, 0.5, 1.0)}
rate_of = {progress: FINE_FPS * len(drawn_skips) / sum(drawn_skips) for progress, drawn_skips in skips.items()}
print("frames a second rise during training:", rate_of[0.0] < rate_of[0.5], " and stay in its second half:", abs(rate_of[0.5] / rate_of[1.0] - 1) < 0.1)
frozen = {name for name, _ in before.named_parameters()} - new_over_time(before)
print("weights of the image model in mav-interpolate are unchanged:",
      all(torch.equal(probe.get_parameter(name), before.get_parameter(name)) for name in frozen))

# %% [markdown]
# ## 6. Train it, live
# We start from the shipped `mav`, with the budget of this machine. The board shows every fifth frame of two clips whose first four frames are given: the first picture of a row is given, the other three are generated. A lost session costs at most half a minute.

# %%
demo = real[:2, :, :16]
first_four = (torch.arange(16) < 4)[:, None, None]
trainer = Trainer(ours_recipe, ours_recipe.budget(BUDGET), device=DEVICE)
show.train_live(trainer, f"11_{BUDGET}", lambda model: model.inpaint(demo, first_four, steps=min(8, STEPS)), updates=3)
print(f"training FLOPs: {trainer.provenance()['flops']:.2g}, on top of those of mav and mav-image")

# %%
yours = trainer.model()
print(f"loss on missing frames, {len(held_out)} clips; log-SNR" + "".join(f"{level:9g}" for level in LEVELS))
for name, (net, what) in {"mav, where training starts": (nets["mav, before training"][0], None), f"yours, {trainer.step} steps": (yours.net, one_mask),
                          f"shipped, {interpolator.trained_steps:,} steps": (interpolator.net, one_mask)}.items():
    print(f"{name:46s}" + "".join(f"{loss_on_missing(net, held_out, level, what):9.4f}" for level in LEVELS))

# %%
# NBVAL_CHECK_OUTPUT
trained = trainer.net.cpu().float()
print("the new channels have left zero:", bool(trained.conditioning.weight.abs().max() > 0))
print("weights of the image model have not moved:", all(torch.equal(trained.get_parameter(name), before.get_parameter(name).float()) for name in frozen))


# %% [markdown]
# ## 7. From 16 keyframes to 76 frames
# The network makes 16 frames at a time, and 16 frames with keyframes five apart hold four of them: 0, 5, 10 and 15. So cut the keyframes into **windows with shared ends**: the last keyframe of one window is the first of the next.
#
# | window | keyframes | frames of the result |
# |---|---|---|
# | 0 | 0 to 3 | 0 to 15 |
# | 1 | 3 to 6 | 15 to 30 |
# | ... | | |
# | 4 | 12 to 15 | 60 to 75 |
#
# A window of $T$ frames holds $(T - 1)/s$ gaps of $s$ frames, here three; $K$ keyframes have $K - 1$ gaps, here fifteen: five windows, $5 \cdot 15 + 1 = 76$ frames. **Predict:** would 16 keyframes work with $s = 4$?

# %%
def our_windows(keys, skip, size):
    """Keyframes (N, C, K, H, W) -> windows (N, W, C, size, H, W), zero where nothing is given."""
    gaps = (size - 1) // skip
    parts = keys.unfold(2, gaps + 1, gaps)                                                     # (N, C, W, H, W, gaps + 1)
    clips = keys.new_zeros(*rearrange(parts, "n c k h w g -> n k c g h w").shape[:3], size, *keys.shape[3:])
    clips[:, :, :, ::skip] = rearrange(parts, "n c k h w g -> n k c g h w")
    return clips


def our_join(clips):
    """Windows (N, W, C, T, H, W) -> (N, C, W * (T - 1) + 1, H, W): the first whole, the others without their first frame."""
    rest = rearrange(clips[:, 1:, :, 1:], "n k c t h w -> n c (k t) h w")
    return torch.cat([clips[:, 0], rest], dim=2)


# %%
# NBVAL_CHECK_OUTPUT
theirs_cut, is_given = utils_keyframes.windows(keys, SKIP, 16)
cut = our_windows(keys, SKIP, 16)
print("windows", tuple(cut.shape[1:]), " joined", tuple(our_join(cut).shape[1:]), " given in each:", is_given.nonzero().flatten().tolist())
print("windows equal utils':", torch.equal(cut, theirs_cut), " join equals utils':", torch.equal(our_join(cut), utils_keyframes.join(cut)))
print("neighbours share an end:", torch.equal(cut[:, :-1, :, -1], cut[:, 1:, :, 0]))
print("a real clip, cut and joined, is itself:", torch.equal(our_join(torch.stack([real[:, :, k:k + 16] for k in range(0, 75, 15)], dim=1)), real))


# %% [markdown]
# <details><summary>Answer</summary>
#
# No: 15 is not a multiple of 4, so a window would not end on a keyframe. With 16 frames $s$ may be 3, 5 or 15. Any other $s$ needs another window length.
# </details>
#
# Now sample all windows of a clip as one batch. The loop is lesson 02's DDIM; only what the network is told is new.

# %%
def our_interpolate(model, keys, skip, steps, seed=0):
    """Keyframes (1, C, K, H, W) in [0, 1] -> what the network makes of all frames, keyframes too; (1, C, skip * (K - 1) + 1, H, W)."""
    clips = our_windows(keys, skip, 16)[0].to(DEVICE)                                          # (W, C, 16, H, W)
    mask = (torch.arange(16) % skip == 0).float()[:, None, None].expand(len(clips), 1, *clips.shape[2:]).to(DEVICE)
    inputs = {"mask": mask, "given": 2 * clips - 1, "fps": torch.full((len(clips),), 30.0, device=DEVICE)}
    schedule = model.recipe.schedule
    levels = schedule.log_snr(schedule.times(steps))
    z = randn_per_sample(clips.shape[1:], [generator(seed, 0, 3, k) for k in range(len(clips))]).to(DEVICE)
    for t, s in zip(levels, levels[1:]):
        log_snr = t.float().expand(len(z)).to(DEVICE)
        x_hat = to_x(model.net(z, log_snr, **inputs), z, log_snr, "v").clamp(-1, 1)
        z = ddim_step(z, x_hat, t, s)
    return our_join((z.clamp(-1, 1) + 1)[None] / 2).cpu()


# %%
# NBVAL_CHECK_OUTPUT
with torch.no_grad():
    raw = our_interpolate(interpolator, keys[:1], SKIP, STEPS)
whole = raw.clone()
whole[:, :, ::SKIP] = keys[:1]                                                                 # the keyframes themselves go in at the end
print("76 frames:", tuple(whole.shape), " ours equals model.interpolate:", torch.allclose(whole, interpolator.interpolate(keys[:1], skip=SKIP, steps=STEPS), atol=1e-3))

# %%
# NBVAL_CHECK_OUTPUT
fast = load_pretrained("mav-interpolate", device=DEVICE, amp="auto")                           # the same in half precision where that is faster
ways["told"] = fast.interpolate(keys, skip=SKIP, steps=STEPS)
print(tuple(ways["told"].shape[1:]), " passes through all 16 keyframes exactly:", torch.equal(ways["told"][:, :, ::SKIP], keys))

# %% [markdown]
# **An honest word on "exactly".** The keyframes are put in at the end, so that line is true of any network. More telling is how close the network itself came to them before they were put in, compared with how far a missing frame is from the truth:

# %%
at_keys = float((raw[:, :, ::SKIP] - keys[:1]).square().mean().sqrt())
of_missing = float((raw - real[:1])[:, :, between].square().mean().sqrt())
print(f"root mean square error, one clip: of keyframes, as the network says them, {at_keys:.3f}; of missing frames {of_missing:.3f}")


# %% [markdown]
# ### Do windows join smoothly?
# Two windows share a keyframe and nothing else: the next window must see from its own keyframes which way a digit was going. If the two disagreed, motion would have a corner at frames 15, 30, 45 and 60. *Bend* measures corners, $|x_{k+1} - 2 x_k + x_{k-1}|$, mean over pixels: zero where each pixel keeps changing at the same rate. A moving digit has some bend in every frame, so the yardstick is real clips.

# %%
def bends(clips):
    """(74,): the bend at frames 1 to 74, mean over clips and pixels."""
    return (clips[:, :, 2:] - 2 * clips[:, :, 1:-1] + clips[:, :, :-2]).abs().mean((0, 1, 3, 4))


frame = torch.arange(1, FRAMES - 1)
places = {"seams": frame % 15 == 0, "other keyframes": (frame % 5 == 0) & (frame % 15 != 0), "missing frames": frame % 5 != 0}
print(f"{N} clips; bend, real clips = 1" + "".join(f"{place:>18s}" for place in (*places, "seams / others")))
for name, clips in ways.items():
    bent = [float(bends(clips)[at].mean() / bends(real)[at].mean()) for at in places.values()]
    print(f"{name:30s}" + "".join(f"{number:18.2f}" for number in (*bent, bent[0] / bent[1])))

# %%
figure, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
for (name, colour, style) in (("real", show.GREY, ":"), ("cross-fade", show.ORANGE, "--"), ("told", show.BLUE, "-")):
    ax.plot(frame, bends(ways[name]), style, color=colour, label=name)
for seam in (15, 30, 45, 60):
    ax.axvline(seam, color="black", linewidth=0.5)
ax.set(xlabel="frame; the black lines are seams", ylabel="bend", ylim=(0, None), title="corners in the motion")
ax.legend(fontsize=9, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.25));

# %% [markdown]
# If the last column were 1, a seam would be no more of a corner than any other keyframe. It is above 1, but not because of windows: repeated frames and the cross-fade use no windows, and theirs is as high. The reason is which frames are compared, on few clips; windows add nothing visible to that. The clips of both networks bend more than real ones, as shapes change from frame to frame.
#
# Where keyframes bend more than missing frames, that is the price of exact keyframes: the generated frames have to bend to meet them. (The cross-fade has *all* its bends there, and none between.)
#
# ## 8. Side by side
# The same clip, frames 0 to 5 of 76. *Yours* is the network you have just trained; *told* is the shipped one.

# %%
ways[f"yours, {trainer.step} steps"] = Model(yours.recipe, yours.net, device=DEVICE, amp="auto").interpolate(keys, skip=SKIP, steps=STEPS)
show.film_strip(torch.cat([clips[:1, :, :6] for clips in ways.values()]), list(ways), title="frames 0 and 5 are given")

# %%
show.xt_slice(torch.cat([clips[:1] for clips in ways.values()]), list(ways), time_across=True, title=f"{captions[0]}, 76 frames, seen from above")

# %%
grey = torch.zeros(4, 1, FRAMES, 36, 36)
grey[:, :, ::SKIP] = 0.45                                                                      # a frame around what is given
grey[..., 2:-2, 2:-2] = torch.cat([ways[name][:1] for name in ("real", "repeated", "cross-fade", "told")])
show.play(grey, ["real", "keyframes repeated", "cross-fade", "told (shipped weights)"], columns=4, scale=3, fps=FINE_FPS, path=outputs() / "11_interpolation.gif")

# %%
print(f"{N} clips, {STEPS} steps")
numbers_of(ways)

# %% [markdown]
# Be careful with the numbers of *yours* after a short run: a judder near that of real clips can come from shapes that jump. Check *missed*: where it is above that of repeated frames, nothing is gained yet.
#
# **Measured on more clips** (`python -m utils.interpolation mav-interpolate --num 32 --weights 5`): missed, judder and edges as above, and what the judge of [lesson 04](04_moving_mnist.ipynb#9.-Reading-a-clip) reads off windows of 16 frames:
# - *distance*: the kernel distance to windows of other real clips. Five windows of one clip resemble each other, so real ones do not come out at 0 here: the first row is the floor;
# - *path px*: how far digits are off the best bouncing path, in pixels;
# - *identity*: the share of frames that look like their track's most frequent digit;
# - *digits*: windows that show both digits.
#
# The `mav` rows show the network that was never told anything, with the methods of lesson 08.

# %%
table = json.loads((ASSETS / "results" / "mav-interpolate-frames.json").read_text())
rows = table["rows"]
print(f"n = {table['n']} clips, {table['steps']} steps, {table['split']} digits, {table['device']}")
print(f"{'':44s}{'missed':>8s}{'judder':>8s}{'edges':>7s}{'distance':>10s}{'path px':>9s}{'identity':>10s}{'digits':>8s}{'seconds':>9s}")
for name, r in rows.items():
    print(f"{name:44s}{r['missed']:8.3f}{r['judder']:8.2f}{r['edges']:7.2f}{r['kernel_distance']:10.2f}{r['rmse']:9.2f}{r['identity']:10.0%}{r['digits']:8.0%}{r['seconds']:9.0f}")

# %%
figure, axes = plt.subplots(1, 4, figsize=(11, 2.7), layout="constrained", sharey=True)
names = list(rows)[::-1]
for ax, (key, title) in zip(axes, (("missed", "missed"), ("judder", "judder"), ("kernel_distance", "kernel distance"), ("identity", "identity"))):
    colours = [show.BLUE if name == "mav-interpolate" else show.ORANGE if name.startswith("mav") else show.GREY for name in names]
    ax.barh([name.replace("reconstruction guidance", "guidance") for name in names], [rows[name][key] for name in names], color=colours)
    ax.axvline(rows["real clips (floor)"][key], color="black", linewidth=0.8, linestyle=":")
    ax.set_title(title, fontsize=10)
    ax.tick_params(labelsize=9)
figure.suptitle("dotted: real clips", fontsize=10);

# %%
floor, ours_row = rows["real clips (floor)"], rows["mav-interpolate"]
COLUMNS = {"missed": "missed", "judder": "judder", "edges": "edges", "distance": "kernel_distance", "path": "rmse", "identity": "identity", "digits": "digits"}


def gap(r, key):
    """How much worse than real clips; judder and edges are worse on both sides."""
    more = r[key] - floor[key]
    return abs(more) if key in ("judder", "edges") else max(0.0, -more if key in ("identity", "digits") else more)


print("mav-interpolate is nearer to real clips (+) or further from them (-) than")
for name, r in rows.items():
    if name not in ("real clips (floor)", "mav-interpolate"):
        signs = {what: gap(r, key) - gap(ours_row, key) for what, key in COLUMNS.items()}
        print(f"  {name:42s}" + "".join(f"   {what} {'+' if much > 0 else '-' if much < 0 else '='}" for what, much in signs.items()))
half = (ours_row["kernel_distance_high"] - ours_row["kernel_distance_low"]) / 2
print(f"all rows pass through their keyframes: {all(r['keyframes'] for r in rows.values())}; a distance is known to about ± {half:.2f} (95%)")
assert abs(rows["cross-fade"]["identity"] - floor["identity"]) < 0.1, "the text below says: the judge reads through ghosts"
pulled = rows["mav, reconstruction guidance, weight 5"]                                        # and what the claim and the text say of the others
assert ours_row["missed"] < min(pulled["missed"], rows["keyframes repeated"]["missed"]) and 2 * gap(ours_row, "rmse") < gap(pulled, "rmse")
assert rows["cross-fade"]["missed"] < ours_row["missed"] and gap(ours_row, "edges") < gap(rows["cross-fade"], "edges") and 1.5 * ours_row["seconds"] < pulled["seconds"]

# %% [markdown]
# **Who wins?**
# - Against guidance, which pulls at a network that was never told: being told wins in *missed*, path and identity: digits stay closer to their path and look like themselves more often. (In *digits*, where a digit counts if it shows anywhere, guidance is a little ahead.) Part of that is training: that of `mav-interpolate` moved to 30 frames a second, and in medium noise its loss is below `mav`'s even when it is told nothing (the table in section 4).
# - Against repeated frames: being told misses less and has no stairs; like the cross-fade and all other ways, it is even *smoother* than real clips. Repeated digits are real digits, so they are read better.
# - Against the cross-fade: it loses on squared error, path, identity and digits, and wins on edges and, barely, on judder; the distance does not tell them apart. Between two keyframes a digit moves 1.8 pixels, and a fade over so short a distance is hard to beat for a network with this much training.
#
# **How to read it.** *Nearer* is judged number by number, whatever the margin, and each number has a blind spot. *Missed* forgives ghosts. *Judder* does not see them at all. The judge reads *through* them: a stroke doubled 1.8 pixels apart still looks like its digit. Edges and your own eyes see them. And none of these windows contains a seam.
#
# Being told has one more advantage, which the last column shows: no backward pass.
#
# ## 9. Frames a second
# What lies between two keyframes depends on how far apart in *time* they are. The network is told this, as `mav` is: `fps` is added to the embedding of the noise level ([lesson 10](10_make_a_video.ipynb)). The same digits, starting from the same places, at 30, 15 and 6 frames a second:

# %%
rates = (30, 15, 6)
short = MovingMNIST("test", seed=25, num_frames=16, speed=FINE_SPEED, captions="digits")
at_rate = {rate: (short.at(FINE_FPS // rate).sample(64, index=0).video[chosen] + 1) / 2 for rate in rates}
show.film_strip(torch.cat([clips[:1] for clips in at_rate.values()]), [f"real, {rate} a second" for rate in rates], title="sixteen frames of the same motion")

# %% [markdown]
# Give it only the first frame and a rate: how fast do the digits start to move? We print the speed that the judge reads, in pixels a frame, beside that of real clips; on so few clips it is a hint. **Predict** the ratio of the last speed to the first.

# %%
only_first = (torch.arange(16) < 1)[:, None, None]
set_off = {rate: fast.inpaint(clips, only_first, fps=float(rate), steps=STEPS, seed=3) for rate, clips in at_rate.items()}
for rate in rates:
    print(f"{rate:3d} frames a second, {len(set_off[rate])} clips: speed {motion(read(set_off[rate]))['speed']:.2f} pixels a frame, real {motion(read(at_rate[rate]))['speed']:.2f}")
show.film_strip(torch.cat([clips[:1] for clips in set_off.values()]), [f"{rate} a second" for rate in rates], borders=[1], title="the first frame is given; same noise; another fps")

# %% [markdown]
# <details><summary>Answer</summary>
#
# For real clips five, or a little less: a digit travels equally far in a second at any rate, and 6 frames a second are a fifth as many frames; but longer paths hit more walls. The network is clearly faster at 6 than at 30, so it hears the number, but not well: between 30 and 15 no difference shows, and its ratio is smaller. (A hint only: the clips are few and their digits melt.) And look at the strip: with one frame given, digits lose their shape long before the end.
# </details>
#
# **Break it: the wrong rate.** Give keyframes of clips at 30 frames a second, but tell the network another rate. **Predict:** four frames are given, and they show how fast things move. How much does the number still count?

# %%
windows_30 = at_rate[30]
keyed = (torch.arange(16) % SKIP == 0)[:, None, None]
hidden = ~keyed.flatten()
for rate in rates:
    wrong = fast.inpaint(windows_30, keyed, fps=float(rate), steps=STEPS)
    print(f"told {rate:2d} frames a second: missed {float((wrong - windows_30)[:, :, hidden].square().mean().sqrt()):.3f}")
stairs = repeated(windows_30[:, :, ~hidden], SKIP)
print(f"keyframes repeated:         missed {float((stairs - windows_30)[:, :, hidden].square().mean().sqrt()):.3f}")

# %% [markdown]
# <details><summary>Answer</summary>The further off the number, the more is missed. Told 6, five times too low, it does no better than repeated keyframes: four true frames do not outvote a false number.</details>
#
# ## 10. The same network goes on, and sets a picture in motion
# Nothing in the mask says *keyframes*. Given a beginning, the network extrapolates; given one picture, it animates it: the masks of section 5 include all three. `extend` works in blocks as in [lesson 08](08_reconstruction_guidance.ipynb#7.-From-16-frames-to-64,-and-on), here with the network's own conditioning instead of guidance.
#
# Digits melt more, the further away the last given frame is: the training of these weights did not get that far. Between keyframes the nearest one is never more than two frames away.

# %%
sixteen = at_rate[6][:2]                                                                       # the standard clip, 6 frames a second
went_on = fast.extend(sixteen[:, :, :8], 24, fps=6.0, steps=STEPS)
longer = MovingMNIST("test", seed=25, num_frames=24, speed=FINE_SPEED, frame_skip=SKIP, captions="digits")
truth = (longer.sample(64, index=0).video[chosen[:2]] + 1) / 2
show.film_strip(torch.cat([truth, went_on]), ["real"] * 2 + ["8 given, 16 new"] * 2, borders=[8], title="extrapolation: frames 0 to 7 are given")

# %% [markdown]
# From text to motion in two steps: `mav-image` draws a picture from a caption, and this network sets it in motion. No captioned clip was used anywhere on the way.

# %%
drawn_image = load_pretrained("mav-image", device=DEVICE, amp="auto").sample(["3 and 7"], steps=STEPS, seed=2)    # (1, 1, 1, 32, 32)
futures = fast.inpaint(drawn_image.expand(3, -1, 16, -1, -1), only_first, fps=6.0, steps=STEPS, seed=4)
show.film_strip(futures, [f"future {k}" for k in (1, 2, 3)], borders=[1], title="one picture of '3 and 7', drawn by mav-image; three futures of it")

# %%
# NBVAL_CHECK_OUTPUT
print("24 frames, the first 8 as given:", tuple(went_on.shape[1:]), torch.equal(went_on[:, :, :8], sixteen[:, :, :8]))
print("all futures begin with the picture:", torch.equal(futures[:, :, :1], drawn_image.expand(3, -1, -1, -1, -1)))
print("and differ after it:", bool((futures[0] - futures[1]).abs().max() > 0.1))

# %% [markdown]
# ## 11. Play
# Choose which frames are given (numbers from 0 to 15, in any pattern), and how fast the real clip that they come from runs: every `frame_skip`-th frame of the fine clock. Try `0, 15`; `7`; `0, 1, 14, 15`. Patterns that are not among the masks of section 5 are new to the network.

# %%
given_frames = "0, 7, 15"  #@param {type:"string"}
frame_skip = 3  #@param {type:"slider", min:1, max:5, step:1}
numbers = [int(number) for number in given_frames.split(",")]
assert all(0 <= number <= 15 for number in numbers), "frames are numbered from 0 to 15"
played = (short.at(frame_skip).sample(64, index=0).video[chosen[:2]] + 1) / 2
my_mask = torch.isin(torch.arange(16), torch.tensor(numbers))[:, None, None]
filled = fast.inpaint(played, my_mask, fps=FINE_FPS / frame_skip, steps=STEPS)
show.film_strip(torch.cat([played, torch.where(my_mask, played, 0.25), filled]), ["real"] * 2 + ["given"] * 2 + ["filled in"] * 2,
                title=f"given: frames {given_frames} (from 0); {FINE_FPS / frame_skip:g} frames a second")


# %% [markdown]
# | if it looks like this | then look at |
# |---|---|
# | two pale digits between keyframes | that is a cross-fade, or a network that has learnt the mean of all answers; more training, more steps |
# | the first steps of training undo what `mav` could do | the new weights did not start at zero |
# | a training loss that is much too good, and grey frames in sampling | the clip was not multiplied by the mask |
# | keyframes right, frames between from another clip | the mask or the frames do not arrive: wrong channel order, or left out of one half of guidance |
# | a jerk every 15 frames | windows without a shared end, or joined with the shared frame twice |
# | digits rush from keyframe to keyframe and wait there | the wrong `fps`, or a network that saw one frame rate only |
#
# ## 12. Faithful? The box
#
# | the paper says | we do | why |
# |---|---|---|
# | masked frames and a binary mask as further input channels: 3 + 1 (RGB) | 1 + 1 | our clips are grey |
# | further channels of the first convolution | a second pseudo-3D convolution whose output is added; the same at the start, then with a layer over time of its own (section 3) | `mav`'s weights load as they are |
# | new weights start: not stated | at zero | the network starts as `mav`, proven |
# | fine-tuned from the spatiotemporal decoder D$^t$, frame rates as conditioning, variable frame skip | the same: from `mav`, skips 5 to 1, moving towards 1; image weights frozen | frozen weights keep what was learnt of images |
# | skip 5: 16 to 76 frames | the same: five windows of 16 frames with shared ends | 5 · 15 + 1 = 76, exactly |
# | the same network extrapolates and animates an image | the same: `extend`, `inpaint` | |
# | which masks, how often: not listed | half keyframes (every fifth, some every third), a sixth beginnings, a sixth one frame, the rest nothing | the uses that this lesson shows |
# | D$^t$ is conditioned on CLIP image embeddings; 64×64, RGB | captions of digits, none of them in this training; 32×32, grey | a free GPU; the keyframes say what is shown |
#
# ## 13. Exercises
# ### Exercise 1 · Count windows and frames (difficulty ●○○, importance ●●●, 5 minutes)
# `count` keyframes, `skip` frames from one to the next, a network that makes `size` frames at a time, windows with shared ends. How many windows, and how many frames in the end? (All numbers given fit.)

# %%
def count_frames(count, skip, size):
    """-> (number of windows, number of frames)"""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_count_frames(count, skip, size):
    gaps = (size - 1) // skip
    return (count - 1) // gaps, skip * (count - 1) + 1


count_frames = check("exercise 1", count_frames, reference_count_frames, (16, 5, 16), (16, 3, 16), (2, 15, 16), (13, 8, 25))


# %% [markdown]
# <details><summary>Hint</summary>A window of `size` frames has size − 1 steps. How many gaps of `skip` steps is that? How many gaps do the keyframes have?</details>
# <details><summary>Solution</summary>
#
# ```python
# gaps = (size - 1) // skip
# return (count - 1) // gaps, skip * (count - 1) + 1
# ```
#
# Count gaps, not frames: shared ends make frames awkward (76, not 80) and gaps simple.
# </details>
#
# ### Exercise 2 · The judder of stairs (difficulty ●●○, importance ●●○, 5 minutes)
# Keyframes are repeated, `skip` frames each, and every jump from one to the next changes the same amount. What is the judder of section 1 in a long clip? (Work it out on paper: the amount does not matter.)

# %%
def judder_of_stairs(skip):
    """frames from one keyframe to the next -> the spread of the changes divided by their mean"""
    return ...  # your line here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_judder_of_stairs(skip):
    return (skip - 1) ** 0.5


judder_of_stairs = check("exercise 2", judder_of_stairs, reference_judder_of_stairs, (1,), (2,), (5,), (10,))

# %%
print(f"on paper {judder_of_stairs(SKIP):.2f}; measured, repeated keyframes: {judder(ways['repeated']):.2f}")


# %% [markdown]
# <details><summary>Hint</summary>Of every `skip` changes, one is a and the others are 0. So their mean is a/skip, and the mean of their squares a²/skip. The variance is the second minus the square of the first.</details>
# <details><summary>Solution</summary>
#
# ```python
# return (skip - 1) ** 0.5
# ```
#
# The variance is a²/skip − a²/skip² = a²(skip − 1)/skip². So judder is 2 for stairs of five, and 0 for perfectly even motion, like that of a cross-fade between two keyframes. Real clips are neither.
# </details>
#
# ### Exercise 3 · The paper's channels (difficulty ●●○, importance ●●●, 10 minutes)
# The paper's clips are in colour. Build its four extra channels by hand: from a clip (B, 3, T, H, W) and a list of the given frames, return the masked clip and the mask, (B, 4, T, H, W).

# %%
def paper_channels(video, frames):
    """video (B, 3, T, H, W), frames: a list of frame numbers -> (B, 4, T, H, W)"""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_paper_channels(video, frames):
    mask = torch.zeros_like(video[:, :1])
    mask[:, :, frames] = 1
    return torch.cat([video * mask, mask], dim=1)


colour_clip = torch.randn(2, 3, 6, 2, 2, generator=generator(41))
paper_channels = check("exercise 3", paper_channels, reference_paper_channels, (colour_clip, [0, 5]), (colour_clip, []), (colour_clip, [2]))

# %% [markdown]
# <details><summary>Hint</summary>One mask channel for all three colours; multiply first, then concatenate along the channels.</details>
# <details><summary>Solution</summary>
#
# ```python
# mask = torch.zeros_like(video[:, :1])
# mask[:, :, frames] = 1
# return torch.cat([video * mask, mask], dim=1)
# ```
#
# With `frames = []` all four channels are zero, and the network is on its own.
# </details>
#
# ## 14. Quiz
# 1. The new channels' weights start at zero. Why not at random, and why do they still learn?
# 2. Why is the clip multiplied by the mask, when the mask already says which frames are given?
# 3. "All keyframes are in the result, exactly." What does that say about the network?
# 4. Why does a window of 16 frames allow skips of 3, 5 and 15 and no others?
# 5. A cross-fade has a lower judder than real clips. Is it better than real?
#
# <details><summary>Answers</summary>
#
# 1. At random they would disturb a trained network from the first step. They learn because their gradient is the input times the gradient at their output, and neither is zero.
# 2. In training the whole clip is at hand: without the multiplication the network would be shown the answer, and would fail where there is none.
# 3. Nothing: they are put in. Look at how close the network comes to them by itself, and at the frames between.
# 4. Keyframes must fall on both ends, so the skip divides 15 (and 1 would leave nothing to do).
# 5. No: it is too even. A number that can be beaten by something plainly wrong needs another beside it.
# </details>
#
# ## What was shown, and what was not
# Shown: two faults of naive ways, each with a number; new inputs that provably change nothing at the start; that missing frames do not leak and given ones arrive; 16 keyframes to 76 frames, equal to `utils`; seams; a table with floor, naive ways and lesson 08's method.
#
# Shown, but not good yet: a frame rate that is followed too little, and digits that melt where no keyframe is near.
#
# Not shown: real footage, in which things turn, hide each other and change in lighting, so that the truth between two frames is far less certain; that being told beats guidance for every mask (guidance takes masks over pixels, this network only whole frames); other ways of filling in, which estimate the motion itself.
# Next: [lesson 12](12_super_resolution.ipynb) makes the 76 frames sharper, and puts all stages behind one caption.
#
# ## Readings
# - Singer, Polyak, Hayes, Yin, An, Zhang, Hu, Yang, Ashual, Gafni, Parikh, Gupta, Taigman, *Make-A-Video*, 2022 (arXiv 2209.14792): section 3.3 is this lesson.
# - Voleti, Jolicoeur-Martineau, Pal, *MCVD: Masked Conditional Video Diffusion for Prediction, Generation, and Interpolation*, 2022 (arXiv 2205.09853): one network for past, future and between, trained with random masks.
# - Ho, Salimans, Gritsenko, Chan, Norouzi, Fleet, *Video Diffusion Models*, 2022 (arXiv 2204.03458): section 3.1, the method without training.
# - Blattmann, Rombach, Ling, Dockhorn, Kim, Fidler, Kreis, *Align your Latents*, 2023 (arXiv 2304.08818): the same masks and zero start, in latent space, at high resolution.
# - Reda, Kontkanen, Tabellion, Sun, Pantofaru, Curless, *FILM: Frame Interpolation for Large Motion*, 2022 (arXiv 2202.04901): the other school, which estimates motion and warps.
