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
# # 01 · DDPM on MNIST
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/video-diffusion-lessons/video-diffusion-lessons/blob/main/lessons/01_ddpm_on_mnist.ipynb)
#
# ![Noise turning into handwritten digits, step by step](../assets/figures/01_denoising.gif)
#
# *Shipped weights, 100 steps, none rejected.*
#
# **Claim: a network of under 100 lines turns noise into digits. You write it here, train it here, and know what each piece is for.**
# The text-to-video model of lesson 06 is this one with frames and words added.
#
# You will be able to
# - add exactly the right amount of noise to a picture in one line, and say why that line is right;
# - derive the loss `|noise - predicted noise|²` and the sampling rule from one Gaussian identity;
# - train, sample, and *measure* a denoising diffusion model (DDPM, Ho, Jain and Abbeel 2020, arXiv 2006.11239);
# - recognise six ways in which it goes wrong from what you see.
#
# | reading | exercises | machine: T4 (estimate) / two CPU cores |
# |---|---|---|
# | 30 minutes | 25 minutes | 5 / 5 minutes |
#
# **The series:** **01 DDPM (you are here)** → [02 schedules and fast samplers](02_fast_samplers.ipynb) → [03 guidance](03_guidance.ipynb) → [04 Moving MNIST](04_moving_mnist.ipynb) → [05 the factorized 3D U-Net](05_factorized_unet.ipynb) →
# [06 Video Diffusion Models](06_video_diffusion_models.ipynb) → [07 joint training](07_joint_training.ipynb) → [08 reconstruction guidance](08_reconstruction_guidance.ipynb) → [09 pseudo-3D layers](09_pseudo_3d_layers.ipynb) →
# [10 Make-A-Video](10_make_a_video.ipynb) → [11 frame interpolation](11_frame_interpolation.ipynb) → [12 super-resolution](12_super_resolution.ipynb) → [13 scaling up](13_scaling_up.ipynb). Nothing comes before this lesson; you need Python and a
# little PyTorch. Every symbol is explained where it first appears, and again in the [glossary](glossary.md).

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
from torch import nn
from utils import load_pretrained, show
from utils.data import MNIST
from utils.exercises import check
from utils.metrics import classify, digit_features, kernel_distance
from utils.pretrained import runs, total_flops
from utils.runtime import budget, generator, pick_device

BUDGET, DEVICE = budget(), pick_device()
SAMPLES = {"smoke": 10, "cpu": 20}.get(BUDGET, 40)          # how many digits a figure shows
STEPS = {"smoke": 25, "cpu": 200}.get(BUDGET, 1000)         # how many denoising steps we can afford here
torch.manual_seed(0);

# %% [markdown]
# ## 1. The finished thing, first
# These digits are in no dataset. A trained model, exactly like the one you are about to write, made them from noise. *(Weights: shipped with the lesson.)*

# %%
model = load_pretrained("mnist-ddpm", device=DEVICE)
shipped = model.sample(num=SAMPLES, steps=STEPS, seed=1, progress=True)
show.image_grid(shipped, title=f"shipped weights, {STEPS} denoising steps")

# %% [markdown]
# How these weights were trained, run by run (each continues the one before), and what it all cost in arithmetic operations (FLOPs):

# %%
for run in map(json.loads, runs(model.provenance)):
    print(f"{run['date']}: {run['steps']:,} steps, {run['samples']:,} digits, {run['seconds'] / 60:.0f} minutes on {run['device']}")
print(f"together {model.trained_steps:,} steps, {total_flops(model.provenance):.2g} FLOPs")

# %% [markdown]
# **Predict, then run.** The model only ever learned to guess the noise in a noisy picture. In strong noise such a guess is a blur. Why does taking a small step, again and again, make a digit, and not just smooth grey?
#
# <details><summary>Answer</summary>
#
# Removing noise from something that is almost pure noise forces a guess about what is underneath, and each guess is partly undone by fresh noise before the next.
# The sequence of small guesses is a random walk that is steered towards pictures that look like the data. Sections 4 and 6 make this exact.
# </details>

# %% [markdown]
# ## 2. The data
# MNIST: 28×28 grey digits. A picture is a tensor $x$ with values in $[-1, 1]$. In this series every batch has the axes **B C T H W**: batch, channel, time
# (frames), height, width. An image is a clip of one frame, so nothing changes when the digits start to move in lesson 04.

# %%
data = MNIST("train", seed=0)
batch = data.sample(10)
x = batch.video
print("shape", tuple(x.shape), " from", float(x.min()), "to", float(x.max()))
show.image_grid((x + 1) / 2, titles=batch.captions, title="real digits")

# %% [markdown]
# ## 3. Destroying a picture: the forward process
#
# **The naive way.** Take a picture; shrink it a little and add a little Gaussian noise, a thousand times over:
#
# $$z_i = \sqrt{1-\beta_i}\; z_{i-1} + \sqrt{\beta_i}\; n_i, \qquad n_i \sim \mathcal N(0, I), \qquad \beta_i \text{ from } 10^{-4} \text{ to } 0.02 .$$
#
# | symbol | meaning | shape |
# |---|---|---|
# | $x = z_0$ | the picture | (B, 1, 1, 28, 28) |
# | $z_i$ | the picture after $i$ rounds | the same |
# | $\beta_i$ | variance of the noise of round $i$ | a number, $i = 1 \dots 1000$ |
# | $\epsilon, n_i$ | standard normal noise | the shape of $x$ |

# %%
beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # beta[i - 1] is the paper's beta_i


def add_noise_slowly(x, rounds):
    z = x
    for i in range(rounds):
        z = (1 - beta[i]).sqrt() * z + beta[i].sqrt() * torch.randn_like(z)
    return z


stages = torch.cat([add_noise_slowly(x[:1].double(), r) for r in (0, 50, 100, 200, 400, 1000)])
show.image_grid((stages.clamp(-1, 1) + 1) / 2, titles=["0", "50", "100", "200", "400", "1000 rounds"], columns=6, title="noise, round by round")

# %% [markdown]
# **Its failure.** To train on round 400 we have to run 400 rounds, for every picture of every batch:

# %%
many = data.sample(64).video
begun = time.perf_counter()
add_noise_slowly(many, 400)
slow_seconds = time.perf_counter() - begun
print(f"400 rounds for one batch of 64: {slow_seconds * 1000:.1f} ms")

# %% [markdown]
# **The fix.** Look at two rounds:
#
# $$z_2 = \sqrt{(1-\beta_1)(1-\beta_2)}\; x + \sqrt{(1-\beta_2)\beta_1}\; n_1 + \sqrt{\beta_2}\; n_2 .$$
#
# A sum of independent Gaussians is a Gaussian, and the variances add: $(1-\beta_2)\beta_1 + \beta_2 = 1 - (1-\beta_1)(1-\beta_2)$. So two rounds amount to *one*, and so do all. Write $\bar\alpha_i = \prod_{j \le i} (1-\beta_j)$. Then
#
# $$z_i = \alpha_i\, x + \sigma_i\, \epsilon, \qquad \alpha_i = \sqrt{\bar\alpha_i}, \quad \sigma_i = \sqrt{1 - \bar\alpha_i}, \qquad \alpha_i^2 + \sigma_i^2 = 1 .$$
#
# This one line is the forward process (DDPM, equation 4; the paper writes $\alpha_i$ for $1-\beta_i$, we for $\sqrt{\bar\alpha_i}$).

# %%
abar = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)])  # abar[i] is the paper's, abar[0] = 1


def add_noise(x, i, eps):
    """x (B, ...), i (B,) rounds, eps like x -> z like x."""
    a = abar[i].view(-1, 1, 1, 1, 1)
    return a.sqrt().to(x) * x + (1 - a).sqrt().to(x) * eps


begun = time.perf_counter()
add_noise(many, torch.full((64,), 400), torch.randn_like(many))
print(f"the same in one line: 1/{slow_seconds / (time.perf_counter() - begun):.0f} of the time")

# %% [markdown]
# Is it really the same? Compare mean and spread of 200 slow rounds with the one line, pixel by pixel. The control is the one line with 300 in place of 200: it must differ.

# %%
patch = x[:1].double().expand(4000, -1, -1, -1, -1)[..., 12:16, 12:16]                   # 4,000 copies of 4x4 pixels
slow, apart = add_noise_slowly(patch, 200), {}
for rounds in (200, 300):
    fast = add_noise(patch, torch.full((4000,), rounds), torch.randn_like(patch))
    apart[rounds] = float((slow.mean(0) - fast.mean(0)).abs().max()), float((slow.std(0) - fast.std(0)).abs().max())
    print(f"one line, {rounds} rounds: means at most {apart[rounds][0]:.2f} apart, spreads at most {apart[rounds][1]:.2f}")
assert max(apart[200]) < 0.1 < min(apart[300])

# %% [markdown]
# How noisy is round $i$? One number says it all: the **signal-to-noise ratio** $\alpha^2/\sigma^2$, of which we always take the natural logarithm, $\lambda = \log(\alpha^2/\sigma^2)$
# (`log_snr` in the code). Large is clean, 0 is half and half, $-10$ is practically pure noise. Lesson 02 shows why $\lambda$ is the right clock.

# %%
log_snr = torch.log(abar / (1 - abar))  # log_snr[0] is +inf: no noise at all
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6))
left.plot(abar.sqrt(), color=show.BLUE, label="signal  $\\alpha$")
left.plot((1 - abar).sqrt(), color=show.ORANGE, linestyle="--", label="noise  $\\sigma$")
left.set(xlabel="round i", title="how much signal, how much noise")
left.legend()
right.plot(log_snr[1:], color=show.BLUE)
right.axhline(0, color=show.GREY, linewidth=0.8)
right.set(xlabel="round i", title="log-SNR  $\\lambda$")
plt.show()

# %%
# NBVAL_CHECK_OUTPUT
print(f"abar_1 = {abar[1]:.4f}   abar_1000 = {abar[1000]:.4e}   log-SNR at the end = {log_snr[1000]:.3f}")

# %% [markdown]
# ## 4. Where the loss comes from
#
# We want to run the film backwards. Write $q$ for the noising process, which we know; $p_\theta$ for the walk back by a network with weights $\theta$; $\mathcal N(m, s)$ for a Gaussian with mean $m$ and variance $s$;
# $\mathbb E$ for an average over everything random. If a picture $x$ were known, the step back from $z_i$ to $z_{i-1}$ would be a Gaussian that we can write down (DDPM, equations 6 and 7). By Bayes' rule it is a product of two Gaussians in $z_{i-1}$, since
# $q(z_{i-1} \mid z_i, x) \propto q(z_i \mid z_{i-1})\, q(z_{i-1} \mid x)$. In such a product, inverse variances add: $\frac{1-\beta_i}{\beta_i} + \frac{1}{1-\bar\alpha_{i-1}} = \frac{1-\bar\alpha_i}{\beta_i(1-\bar\alpha_{i-1})}$, which we call $1/\tilde\beta_i$;
# and so do means divided by variances, so the mean is $\tilde\beta_i \big( \frac{\sqrt{1-\beta_i}}{\beta_i} z_i + \frac{\sqrt{\bar\alpha_{i-1}}}{1-\bar\alpha_{i-1}} x \big)$. Multiplied out:
#
# $$q(z_{i-1} \mid z_i, x) = \mathcal N\Big(\; \underbrace{\tfrac{\sqrt{\bar\alpha_{i-1}}\,\beta_i}{1-\bar\alpha_i}\, x + \tfrac{\sqrt{1-\beta_i}\,(1-\bar\alpha_{i-1})}{1-\bar\alpha_i}\, z_i}_{\text{mean}},\;\; \tilde\beta_i = \tfrac{1-\bar\alpha_{i-1}}{1-\bar\alpha_i}\,\beta_i \Big) .$$
#
# This is called the **posterior**. But $x$ is what we want to make. So a network gets $z_i$ and guesses. It may guess the picture $x$ or the noise $\epsilon$: since $z_i = \alpha_i x + \sigma_i \epsilon$, one gives the other. Put
# $x = (z_i - \sigma_i\epsilon)/\alpha_i$ into the mean and it becomes
#
# $$\text{mean} = \frac{1}{\sqrt{1-\beta_i}} \Big( z_i - \frac{\beta_i}{\sqrt{1-\bar\alpha_i}}\,\epsilon \Big) .$$
#
# **The loss.** Real data should be probable under our walk back. That probability is out of reach, because it sums over all walks that end in $x$. But it has a bound (DDPM, section 2):
#
# $$-\log p_\theta(x) \;\le\; \sum_{i \ge 2} \mathbb E\; \mathrm{KL}\big(q(z_{i-1} \mid z_i, x) \,\|\, p_\theta(z_{i-1} \mid z_i)\big) - \mathbb E \log p_\theta(x \mid z_1) + \text{const} .$$
#
# (The constant says how far round 1000 is from pure noise. Round 1 is special, as $\tilde\beta_1 = 0$ leaves no Gaussian to compare; the paper treats it separately, and we leave it out.)
#
# The walk back is ours to design. We *choose* each $p_\theta(z_{i-1} \mid z_i)$ as a Gaussian with the posterior's variance $\tilde\beta_i$ and its mean, but with the network's $\epsilon_\theta(z_i, i)$ in place of $\epsilon$.
#
# KL says how far one distribution is from another; it is 0 when they are equal. For two Gaussians of the same variance $\tilde\beta_i$ it is the squared distance of their means, divided by $2\tilde\beta_i$.
# And the two means differ only where one has $\epsilon$ and the other $\epsilon_\theta$:
#
# $$\text{bound} = \sum_{i \ge 2} w_i\, \mathbb E\,\|\epsilon - \epsilon_\theta(z_i, i)\|^2 + \text{const}, \qquad w_i = \frac{\beta_i^2}{2\tilde\beta_i (1-\beta_i)(1-\bar\alpha_i)} .$$
#
# DDPM drops the weights $w_i$, which put the faintest noise (rounds 2, 3, 4 ...), invisible specks, far above the rest (exercise 3), and trains on the plain loss
#
# $$\boxed{\; L = \mathbb E_{x,\, i,\, \epsilon}\; \|\epsilon - \epsilon_\theta(\alpha_i x + \sigma_i \epsilon,\; i)\|^2 \;}$$
#
# (In code we take the mean over pixels, not their sum: the same loss, divided by 784. So a network that knows nothing has a loss of about 1.)
#
# The same formula has a second reading. For one picture $x$ the gradient of the log-density is $\nabla_z \log q(z_i \mid x) = -(z_i - \alpha_i x)/\sigma_i^2 = -\epsilon/\sigma_i$. Averaged over all pictures that could be behind $z_i$ it becomes
# $\nabla_z \log q(z_i)$, the **score**: the direction in which noisy pictures become more probable. (As $\nabla q(z) = \int q(x)\, \nabla q(z \mid x)\, dx = \int q(x)\, q(z \mid x)\, \nabla \log q(z \mid x)\, dx$; divide by $q(z)$, and $q(x)\,q(z \mid x)/q(z)$ is $q(x \mid z)$.) Squared error is smallest at the average, so the best possible $\epsilon_\theta$ is $-\sigma_i \nabla_z \log q(z_i)$:
# the network learns which way is "more like data" at every noise level. (Lesson 02 checks this with autograd.)
#
# Do the two forms of the mean really agree? Never trust algebra that a machine can check:

# %%
# NBVAL_CHECK_OUTPUT
i = torch.arange(1, 1001)
eps = torch.randn(1000, dtype=torch.float64, generator=generator(1))
picture = torch.rand(1000, dtype=torch.float64, generator=generator(2)) * 2 - 1
z = abar[i].sqrt() * picture + (1 - abar[i]).sqrt() * eps
b = beta[i - 1]
from_x = (abar[i - 1].sqrt() * b * picture + (1 - b).sqrt() * (1 - abar[i - 1]) * z) / (1 - abar[i])
from_eps = (z - b / (1 - abar[i]).sqrt() * eps) / (1 - b).sqrt()
print("largest difference below 1e-12:", bool((from_x - from_eps).abs().max() < 1e-12))


# %% [markdown]
# ## 5. The network, in under 100 lines
#
# $\epsilon_\theta$ takes a noisy picture and its noise level, and returns a picture-shaped guess of the noise. The standard shape is a **U-Net**: look at the picture at three resolutions
# (28, 14, 7), going down and up again, with shortcuts between equal resolutions so that fine detail need not squeeze through the bottom.
#
# | piece | what it is for | shape in → out |
# |---|---|---|
# | embedding | tell the network *how noisy* | (B,) → (B, 128) |
# | residual block | the work: local patterns | (B, C, H, W) → (B, C', H, W) |
# | attention | distant strokes agree with each other | (B, C, 7, 7) → same |
# | down, up | change resolution | H, W halved, doubled |
#
# **How noisy?** A single number is a poor input for a network. We spread it over 128 sines and cosines of different frequencies, like the hands of many clocks, and pass them through a small network.

# %%
class Embedding(nn.Module):
    """(B,) log-SNR -> (B, 128)."""
    def __init__(self, dim=128):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, log_snr):
        position = (log_snr.float().clamp(-20, 20) + 20) * 25  # 0 .. 1000
        frequency = torch.exp(-math.log(10_000) * torch.arange(64, device=log_snr.device) / 64)
        angle = position[:, None] * frequency
        return self.mlp(torch.cat([angle.sin(), angle.cos()], 1))


# %% [markdown]
# **The residual block.** Normalise (`GroupNorm`: mean 0, variance 1 over the picture, in groups of channels), activate (SiLU), convolve, all twice. The embedding is *added* in the middle. The second convolution starts at zero, so a fresh block is just its shortcut:
# a deep network starts simple.

# %%
def norm(channels):
    return nn.GroupNorm(8, channels)


class Block(nn.Module):
    """x (B, C, H, W), embedding (B, 128) -> (B, C', H, W)."""
    def __init__(self, c_in, c_out):
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.embed = nn.Linear(128, c_out)
        self.norm2, self.conv2 = norm(c_out), zero(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x, embedding):
        h = self.conv1(F.silu(self.norm1(x))) + self.embed(F.silu(embedding))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


def zero(layer):
    nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    return layer


# %% [markdown]
# **Attention.** Each of the 49 positions of the 7×7 picture asks all others a question (query · key) and takes a weighted mean of their answers (values). A convolution sees its neighbours; attention
# sees everything, so the top of a 9 knows whether its bottom is straight. (Section 8 measures what that is worth on pictures this small.)

# %%
class Attention(nn.Module):
    """(B, C, H, W) -> same; every position looks at every other."""
    def __init__(self, channels, head_dim=32):
        super().__init__()
        self.heads = channels // head_dim
        self.norm, self.qkv = norm(channels), nn.Linear(channels, 3 * channels)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = self.qkv(self.norm(x).flatten(2).mT)                                 # (B, HW, 3C)
        q, k, v = tokens.view(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)     # each (B, heads, HW, head_dim)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        return x + self.out(mixed).mT.view(b, c, h, w)


# %% [markdown]
# **All together.** Down: block, shrink. Middle: two blocks. Up: block (fed with the shortcut), grow. Attention at the lowest resolution only.

# %%
class Stage(nn.Module):
    def __init__(self, c_in, c_out, attend):
        super().__init__()
        self.block, self.attend = Block(c_in, c_out), Attention(c_out) if attend else None

    def forward(self, x, embedding):
        x = self.block(x, embedding)
        return x if self.attend is None else self.attend(x)


# %%
class UNet(nn.Module):
    """z (B, 1, 1, 28, 28), log_snr (B,) -> predicted noise, in the shape of z."""
    def __init__(self, widths=(32, 64, 64)):
        super().__init__()
        a, b, c = widths
        self.embedding, self.first = Embedding(), nn.Conv2d(1, a, 3, padding=1)
        self.down = nn.ModuleList([Stage(a, a, False), nn.Conv2d(a, a, 3, 2, 1), Stage(a, b, False),
                                   nn.Conv2d(b, b, 3, 2, 1), Stage(b, c, True)])
        self.middle = nn.ModuleList([Stage(c, c, True), Stage(c, c, True)])
        self.up = nn.ModuleList([Stage(2 * c, c, True), nn.Conv2d(c, b, 3, padding=1), Stage(2 * b, b, False),
                                 nn.Conv2d(b, a, 3, padding=1), Stage(2 * a, a, False)])
        self.norm, self.last = norm(a), zero(nn.Conv2d(a, 1, 3, padding=1))


# %% [markdown]
# The forward pass: every stage on the way down leaves its output as a shortcut for its partner on the way up.

# %%
def forward(self, z, log_snr):
    e, x, shortcuts = self.embedding(log_snr), self.first(z[:, :, 0]), []
    for layer in self.down:
        x = layer(x, e) if isinstance(layer, Stage) else layer(x)
        if isinstance(layer, Stage):
            shortcuts.append(x)
    for layer in self.middle:
        x = layer(x, e)
    for layer in self.up:
        if isinstance(layer, Stage):
            x = layer(torch.cat([x, shortcuts.pop()], 1), e)
        else:
            x = layer(F.interpolate(x, scale_factor=2.0))
    return self.last(F.silu(self.norm(x)))[:, :, None]


UNet.forward = forward

# %% [markdown]
# **Is it the same network as the one that made the digits above?** Copy the shipped weights into yours, one after the other, and compare the outputs. If a single operation were different, the numbers would be too.

# %%
# NBVAL_CHECK_OUTPUT
parts = ("class Embedding", "def norm", "class Attention", "class Stage", "class UNet", "def forward")
cells = {part: source for source in In for part in parts if source.startswith(part)}.values()      # In: what you ran; of a cell run twice, its last version
lines = sum(bool(line.strip()) for source in cells for line in source.splitlines())
mine = UNet().to(DEVICE)
with torch.no_grad():
    for ours, theirs in zip(mine.parameters(), model.net.parameters(), strict=True):
        ours.copy_(theirs)
    z, l = torch.randn(2, 1, 1, 28, 28).to(DEVICE), torch.tensor([-3.0, 2.0]).to(DEVICE)
    difference = (mine(z, l) - model.net(z, l)).abs().max() / mine(z, l).std()
print(f"under 100 lines: {lines < 100}   parameters: {sum(p.numel() for p in mine.parameters()):,}   equal to utils: {bool(difference < 1e-4)}")
assert lines < 100 and difference < 1e-4

# %%
show.network_diagram(model.net, model.sample_shape, title="the network, as it runs: down, along the bottom, up again")


# %% [markdown]
# ## 6. Sampling: walking back
#
# Start with pure noise. At each round, let the network guess the noise, form the mean of section 4, add fresh noise of variance $\tilde\beta_i$. On the last round, add none. That is DDPM's Algorithm 2.
#
# We write it for a list of rounds that may skip some (`rounds[k] → rounds[k+1]`), because 1000 network calls are slow; skipping costs quality, and lesson 02 shows how to skip well. For neighbouring rounds it *is* the formula of section 4.

# %%
def step_back(z, eps_hat, i, s, noise):
    """From round i to an earlier round s: the posterior of section 4 with the guessed picture."""
    a_i, a_s = abar[i], abar[s]
    x_hat = ((z - (1 - a_i).sqrt() * eps_hat) / a_i.sqrt()).clamp(-1, 1)     # the picture that the guess implies; pictures stay in [-1, 1]
    keep = a_i / a_s                                                         # product of (1 - beta) between s and i
    mean = a_s.sqrt() * (1 - keep) / (1 - a_i) * x_hat + keep.sqrt() * (1 - a_s) / (1 - a_i) * z
    variance = (1 - a_s) / (1 - a_i) * (1 - keep)
    return mean + variance.sqrt() * noise


# %% [markdown]
# The loop around it:

# %%
@torch.no_grad()
def sample(net, num, steps, seed=0, keep_every=None):
    rounds = torch.linspace(1000, 0, steps + 1).round().long()
    z, film = torch.randn(num, 1, 1, 28, 28, generator=generator(seed)).to(DEVICE), []
    for k in range(steps):
        i, s = rounds[k], rounds[k + 1]
        eps_hat = net(z, log_snr[i].float().expand(num).to(DEVICE))
        z = step_back(z, eps_hat, i, s, torch.randn_like(z))                 # at s = 0 the variance is 0: no noise on the last step
        if keep_every and k % keep_every == 0:
            film.append(z.cpu())
    return (z.clamp(-1, 1).cpu() + 1) / 2, film


# %% [markdown]
# Is it equal to the library's sampler? With the same $z$, guess and noise, compare one step in float64 (`gamma=0` asks for the variance $\tilde\beta_i$):

# %%
# NBVAL_CHECK_OUTPUT
from utils.samplers import ancestral_step
z, eps_hat, noise = torch.randn(3, 4, 1, 1, 28, 28, dtype=torch.float64, generator=generator(3))
for i, s in ((1000, 999), (500, 460), (2, 1)):
    x_hat = ((z - (1 - abar[i]).sqrt() * eps_hat) / abar[i].sqrt()).clamp(-1, 1)
    theirs = ancestral_step(z, x_hat, log_snr[i], log_snr[s], noise, gamma=0)
    print(f"round {i} to {s}: equal {bool((step_back(z, eps_hat, torch.tensor(i), torch.tensor(s), noise) - theirs).abs().max() < 1e-10)}")

# %%
made, film = sample(mine, 8, STEPS, keep_every=max(1, STEPS // 12))
rows = torch.stack([torch.cat(film)[k::8] for k in range(4)])                # (4 digits, moments, 1, 1, 28, 28)
show.film_strip(((rows.clamp(-1, 1) + 1) / 2)[:, :, 0].transpose(1, 2), title="your sampler with the shipped weights", xlabel="noise (left) to digit (right)")


# %% [markdown]
# ## 7. Training, live
#
# Everything is in place. Pick pictures, pick rounds at random, add noise, guess the noise, compare, take a step: that is all of DDPM's Algorithm 1. **Predict:** what is the loss of a fresh network, whose last layer starts at zero?
#
# <details><summary>Answer</summary>
#
# About 1. The network says "no noise" everywhere, so its mean squared error is the variance of the noise.
# </details>

# %%
def loss_of(net, x, i, eps):
    z = add_noise(x, i, eps)
    return (net(z, log_snr[i].float().to(x.device)) - eps).square().mean()


fresh, losses = UNet().to(DEVICE), []
optimizer = torch.optim.Adam(fresh.parameters(), lr=2e-3)
for step in range({"smoke": 5}.get(BUDGET, 30)):
    x = data.sample(16).video.to(DEVICE)
    loss = loss_of(fresh, x, torch.randint(1, 1001, (16,)), torch.randn_like(x))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"the bare loop, {len(losses)} steps of 16 pictures: loss {losses[0]:.2f} to {losses[-1]:.2f}")

# %% [markdown]
# Is this the library's training loss? Give both the same pictures, rounds and noise:

# %%
# NBVAL_CHECK_OUTPUT
from utils.recipes import recipe
from utils.train import Trainer

trainer = Trainer(recipe("mnist-ddpm"), recipe("mnist-ddpm").budget(BUDGET), device=DEVICE, amp="off")
size, numbers = trainer.budget.batch_size, generator(0, 0, 1)                # (seed, step, stream), as the trainer numbers them
pictures, i = trainer.data.sample(size, index=0).video, torch.randint(1, 1001, (size,), generator=numbers)
eps = torch.randn(pictures.shape, generator=generator(0, 0, 2, device=DEVICE), device=DEVICE)
with torch.no_grad():
    print("equal to utils:", torch.allclose(loss_of(trainer.net, pictures, i, eps), trainer.loss(0), rtol=1e-4))

# %% [markdown]
# The loop that the series uses (`utils.train`) adds what every real run needs: a learning rate that rises, then falls; gradient clipping; mixed precision; an optimizer that learns more from each step (Muon beside Adam: [lesson 13](13_scaling_up.ipynb#More-from-the-same-FLOPs:-the-optimizer)); an **exponential moving average** (EMA)
# of the weights, which is what we sample from; and a checkpoint, so that a lost session costs a minute. The grey band is an earlier run of the same length. The thin line, this run's loss step by step, should stay
# near it; the thick line is its running mean. (Dashed: the earlier run's mean.)
# (On Colab a lost machine takes its disk with it. To survive that too, mount Drive and set the environment variable `LESSON_OUTPUTS` to a folder there before you run the set-up cell.)

# %%
trainer = Trainer(recipe("mnist-ddpm"), recipe("mnist-ddpm").budget(BUDGET), device=DEVICE)
show.train_live(trainer, f"01_{BUDGET}", lambda model: model.sample(num=8, steps=min(STEPS, 50)))

# %%
# NBVAL_CHECK_OUTPUT
with torch.no_grad():
    print("loss on the first batch, same noise, fell:", bool(trainer.loss(0) < trainer.history[0]))

# %% [markdown]
# **Yours beside the shipped.** Above, from what you trained just now; below, from the shipped weights (the title says how long each was trained). After 150 steps, all that a CPU affords here, some are digits, and many are strokes that only look like writing.

# %%
yours = trainer.model().sample(num=10, steps=STEPS, seed=2)
long = model.sample(num=10, steps=STEPS, seed=2)
show.image_grid(torch.cat([yours, long]),
                title=f"above: yours, {trainer.step} steps · below: shipped, {model.trained_steps:,} steps · same noise")

# %% [markdown]
# ## 8. What the network believes on the way
#
# At every noise level the network's guess implies a picture $\hat x = (z - \sigma\hat\epsilon)/\alpha$. **Predict, then run:** noise a real digit to five levels. What will $\hat x$ look like where almost nothing is left of the digit?
#
# <details><summary>Answer</summary>
#
# A blur: the mean of all digits that could have been there. Squared error rewards the mean. That is why one big step cannot work, and a thousand small ones can.
# (At round 900 it is speckled as well: dividing by a small $\alpha$ blows up every error of $\hat\epsilon$. Question 1 of the quiz is about that.)
# </details>

# %%
real = data.sample(1).video
levels = torch.tensor([50, 200, 400, 600, 900])
eps = torch.randn(5, 1, 1, 28, 28, generator=generator(4))
noisy = add_noise(real.expand(5, -1, -1, -1, -1), levels, eps)
with torch.no_grad():
    believed = model.predict_x(noisy.to(DEVICE), log_snr[levels].float().to(DEVICE)).cpu()
show.image_grid(((torch.cat([noisy, believed]).clamp(-1, 1)) + 1) / 2, columns=5,
                titles=[f"round {int(k)}" for k in levels] + ["believed"] * 5)

# %% [markdown]
# **Who looks at whom?** Ask autograd how strongly the guess at the centre depends on each pixel of the input, for real digits at log-SNR −1, where $\sigma^2$ is 2.7 times $\alpha^2$; *far away* means more than three pixels. Then remove the attention, or the two lower levels of the U, and ask again.
# **Predict, then run:** which of the two does the guess miss more?
#
# <details><summary>Answer</summary>
#
# The lower levels. There one pixel spans two or four pixels of the picture, so a 3×3 convolution reaches far. Without them the centre sees its neighbourhood, and beyond it only a faint, even haze: the mean and variance of the normalisation, taken over the whole picture.
# Attention has little left to do on so small a picture, and the loss says so. It becomes indispensable where no convolution reaches: between the frames of a clip (lesson 05).
# </details>

# %%
real = MNIST("test", seed=3).sample(64).video


def looks_at(net, level=-1.0):
    """How strongly the guess at the centre depends on each pixel, digits noised to log-SNR `level`: (28, 28)."""
    alpha, sigma = torch.tensor(level).sigmoid().sqrt(), torch.tensor(-level).sigmoid().sqrt()
    z = (alpha * real[:16] + sigma * torch.randn(real[:16].shape, generator=generator(7))).to(DEVICE).requires_grad_()
    net(z, torch.full((16,), level).to(DEVICE))[:, 0, 0, 14, 14].sum().backward()
    return z.grad.abs().mean((0, 1, 2)).cpu()


# %%
no_attention, no_lower = copy.deepcopy(mine), copy.deepcopy(mine)
for layer in no_attention.modules():
    if isinstance(layer, Attention):
        layer.register_forward_hook(lambda layer, given, out: given[0])      # hands on what it was given
no_lower.up[3].register_forward_hook(lambda layer, given, out: 0 * out);     # nothing comes up from 14x14 and 7x7

# %%
rows, columns = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
far = torch.maximum((rows - 14).abs(), (columns - 14).abs()) > 3             # more than three pixels from the centre
i, eps = torch.randint(1, 1001, (64,), generator=generator(9)), torch.randn(real.shape, generator=generator(10))
seen, cost = {}, {}
for name, net in (("whole", mine), ("no attention", no_attention), ("no lower levels", no_lower)):
    seen[name] = looks_at(net)
    with torch.no_grad():
        cost[name] = float(loss_of(net, real.to(DEVICE), i, eps.to(DEVICE)))
    print(f"{name:16s} influence from far away {float(seen[name][far].sum() / seen[name].sum()):4.0%}   loss {cost[name]:.4f}")
assert cost["no lower levels"] > 1.5 * cost["no attention"]

# %%
figure, axes = plt.subplots(1, 3, figsize=(8.6, 2.9), layout="constrained")
for ax, (name, influence) in zip(axes, seen.items()):
    shown = ax.imshow(influence.clamp(min=1e-9).log10(), cmap=plt.get_cmap("viridis", 16), vmin=-4, vmax=0)
    ax.set(xticks=[], yticks=[], title=name)
figure.colorbar(shown, ax=axes, ticks=[-4, -3, -2, -1, 0], format="$10^{{{x:.0f}}}$", label="influence on the centre");

# %% [markdown]
# ## 9. A number, with a floor and controls
#
# Looking is not enough. We compare *features* of generated and real digits, activations of a small frozen classifier, by the **kernel distance**: about 0 for two sets of real digits, larger the more the sets differ. ([Lesson 04, section 8](04_moving_mnist.ipynb#8.-Distances-between-clouds), has the formula.)
# A number on its own means nothing, so three others stand beside it: real digits against other real digits (the **floor**), and two **controls** that must come out bad: pure noise, and blurred real digits.

# %%
NUMBER = {"smoke": 40, "cpu": 100}.get(BUDGET, 500)
test = lambda seed: (MNIST("test", seed=seed).sample(NUMBER).video + 1) / 2
reference, held_out = digit_features(test(1)), test(2)
blur = F.avg_pool2d(held_out[:, :, 0], 5, 1, 2)[:, :, None]
rows = {"real against real (floor)": held_out,
        "shipped weights": model.sample(num=NUMBER, steps=min(STEPS, 50)),
        "yours, trained here": trainer.model().sample(num=NUMBER, steps=min(STEPS, 50)),
        "control: blurred real digits": blur,
        "control: noise": torch.rand(held_out.shape)}

# %%
distance = {name: kernel_distance(digit_features(images), reference) for name, images in rows.items()}
print(f"kernel distance to {NUMBER} real test digits, n = {NUMBER}, {min(STEPS, 50)} steps")
for name, value in distance.items():
    sure = float((classify(rows[name]).amax(1) > 0.9).float().mean())
    print(f"  {name:30s} {value:8.3f}    read with confidence as some digit: {sure:4.0%}")
assert max(distance["real against real (floor)"], distance["shipped weights"]) < min(distance["control: noise"], distance["control: blurred real digits"]), "the number cannot be trusted"


# %% [markdown]
# How to read it. The estimate scatters around its true value, so it can fall below 0; and all rows share one reference set, so its luck affects each of them. Compare with the floor, not with 0. With a hundred digits, differences of less than
# a tenth mean nothing (lesson 02 measures this model with 256, and gives intervals). The last column is a warning about another number: asked about pure noise, a classifier is still often sure. Confidence does not measure quality.

# %% [markdown]
# ## 10. Break it
# Each piece is there for a reason. Take it away and look. **Predict each picture before you run the cell;** the table below it names what you see.

# %%
@torch.no_grad()
def broken_sample(change, num=8, steps=min(STEPS, 100)):
    rounds = torch.linspace(1000, 0, steps + 1).round().long()
    z = torch.randn(num, 1, 1, 28, 28, generator=generator(5)).to(DEVICE)
    for k in range(steps):
        i, s = rounds[k], rounds[k + 1]
        told = {"always told round 500": rounds[0] // 2, "told round i/2": (i // 2).clamp(min=1)}.get(change, i)
        eps_hat = mine(z, log_snr[told].float().expand(num).to(DEVICE))
        noise = torch.randn_like(z) * {"no fresh noise": 0.0, "twice the fresh noise": 2.0}.get(change, 1.0)
        if change == "off by one: s = i":
            s = i
        z = step_back(z, eps_hat, i, s, noise)
    return (z.clamp(-1, 1).cpu() + 1) / 2


changes = ["nothing", "no fresh noise", "twice the fresh noise", "always told round 500", "told round i/2", "off by one: s = i"]
pictures = torch.stack([broken_sample(change)[:, :, 0] for change in changes])         # (changes, 8 digits, 1, 28, 28)
show.film_strip(pictures.transpose(1, 2), changes, title="break it (shipped weights)", xlabel="eight samples each")


# %% [markdown]
# | if it looks like this | then |
# |---|---|
# | thin, simple digits, nearly the same one every time | no fresh noise: all walks settle on one simple picture |
# | speckle over everything | too much noise per step: the wrong variance, or noise on the last step |
# | grey mud, or ragged strokes with specks beside them, though the loss is good | the network is told a noise level that is not $z$'s (it has no embedding of it, or gets the round of one schedule and the noise of another) |
# | pure noise to the end | an index is off: the step goes from $i$ to $i$ |
# | loss stuck at 1.0 | the output is not learning: learning rate 0, or the target is not the noise |
# | loss above 0.1 after a hundred steps | learning rate too low, or pictures from 0 to 255; the band in section 7 shows the normal fall (with pictures in [0, 1] the loss looks *better*: there is less to see, so the noise is easier to name) |
#

# %% [markdown]
# ## 11. Faithful? The box
#
# | the paper says | we do | why |
# |---|---|---|
# | 1000 rounds, β linear from 1e-4 to 0.02 | the same | |
# | loss: plain ε-MSE | the same | |
# | variance $\beta_i$ or $\tilde\beta_i$ | $\tilde\beta_i$ in this lesson's sampler; the library's default leans slightly towards $\beta_i$ (γ = 0.1 of the way, on a log scale) | the paper finds no difference |
# | Algorithm 2 in the ε form | the same mean through $\hat x$, clipped to $[-1, 1]$ | one early mistake cannot leave the range of pictures |
# | the round $i$ is embedded | its log-SNR is embedded | the same information, and it stays right with any schedule (lesson 02) |
# | 35.7M parameters, CIFAR-10, 800k steps, EMA 0.9999 | under 1M parameters, MNIST, minutes, EMA 0.999 with warm-up | a free GPU and your patience |

# %% [markdown]
# ## 12. Exercises
# Each has a stub that runs as it is, and folded below it a check, a hint and a solution. An untouched stub lets a reference answer take over; a wrong answer is shown as wrong.
#
# ### Exercise 1 · The noise behind a clipped picture (difficulty ●●○, importance ●●○, 10 minutes)
# `step_back` clips the guessed picture to $[-1, 1]$. After that $\hat\epsilon$ no longer fits: $\sqrt{\bar\alpha}\,\hat x + \sqrt{1-\bar\alpha}\,\hat\epsilon$ is not $z$ any more. Return the noise that does fit the clipped picture. (The samplers of lesson 02 need it.)

# %%
def noise_after_clipping(z, eps_hat, a):
    """z, eps_hat (B, ...); a, a float (abar) -> the noise that makes z together with the clipped picture, (B, ...)."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_noise(z, eps_hat, a):
    x_hat = ((z - (1 - a) ** 0.5 * eps_hat) / a**0.5).clamp(-1, 1)
    return (z - a**0.5 * x_hat) / (1 - a) ** 0.5


z, eps_hat = torch.randn(2, 4, 3, generator=generator(6))
noise_after_clipping = check("exercise 1", noise_after_clipping, reference_noise, (z, eps_hat, 0.3), (z, eps_hat, 0.9),
                             (0.1 * z, 0.1 * eps_hat, 0.9))                  # the last: nothing is cut off


# %% [markdown]
# <details><summary>Hint</summary>First the picture that the guess implies, clipped. Then put it into z = √ᾱ x + √(1 − ᾱ) ε and solve for ε.</details>
# <details><summary>Solution</summary>
#
# ```python
# x_hat = ((z - (1 - a) ** 0.5 * eps_hat) / a ** 0.5).clamp(-1, 1)
# return (z - a ** 0.5 * x_hat) / (1 - a) ** 0.5
# ```
# </details>
#
# ### Exercise 2 · How many rounds until half is noise? (difficulty ●○○, importance ●●○, 5 minutes)
# Return the first round at which the noise is at least as strong as the signal, $\log\mathrm{SNR} \le 0$.

# %%
def first_noisy_round(log_snr):
    """log_snr (1001,), descending -> int."""
    return ...  # your line here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_round(log_snr):
    return int((log_snr <= 0).nonzero()[0])


first_noisy_round = check("exercise 2", first_noisy_round, reference_round, (log_snr,), (torch.tensor([2.0, 1.0, 0.0, -1.0]),))
print("round", first_noisy_round(log_snr))


# %% [markdown]
# <details><summary>Hint</summary>A comparison gives a tensor of True and False; `nonzero` lists where it is True.</details>
# <details><summary>Solution</summary>
#
# ```python
# return int((log_snr <= 0).nonzero()[0])
# ```
# About a quarter of the way: most rounds of this schedule are spent on pictures that are mostly noise. Improved DDPM (lesson 02) changes that.
# </details>
#
# ### Exercise 3 · The weight that DDPM drops (difficulty ●●○, importance ●●○, 10 minutes)
# Return section 4's $w_i$ for rounds 2 to 1000, and see which rounds the bound cares about.

# %%
def bound_weights(beta, abar):
    """beta (1000,), abar (1001,) -> (999,), rounds 2 .. 1000."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_weights(beta, abar):
    b, a, before = beta[1:], abar[2:], abar[1:-1]
    return b**2 / (2 * b * (1 - before) / (1 - a) * (1 - b) * (1 - a))


bound_weights = check("exercise 3", bound_weights, reference_weights, (beta, abar))
weights = bound_weights(beta, abar)
print(f"round 2 weighs {float(weights[0] / weights[500]):.0f} times as much as round 502")

# %% [markdown]
# <details><summary>Hint</summary>Round i = 2 uses beta[1], abar[2] and abar[1]: three slices of the same length.</details>
# <details><summary>Solution</summary>
#
# ```python
# b, a, before = beta[1:], abar[2:], abar[1:-1]
# posterior = b * (1 - before) / (1 - a)
# return b ** 2 / (2 * posterior * (1 - b) * (1 - a))
# ```
# The faintest noise weighs most: the bound cares about specks that no eye sees. Lesson 02 meets the same weight again, as a round's gain in signal-to-noise.
# </details>

# %% [markdown]
# ## 13. Play
# Drag the slider: a real digit, noised to round $i$, and what the network believes is underneath. (The widget needs a running kernel; the strip in section 8 shows the same as stills.)

# %%
import ipywidgets as widgets
from IPython.display import display

one, fixed = data.sample(1, index=3).video, torch.randn(1, 1, 1, 28, 28, generator=generator(8))


def believe(i):
    noisy = add_noise(one, torch.tensor([i]), fixed)
    with torch.no_grad():
        x_hat = model.predict_x(noisy.to(DEVICE), log_snr[[i]].float().to(DEVICE)).cpu()
    display(show.image_grid((torch.cat([one, noisy, x_hat]).clamp(-1, 1) + 1) / 2, columns=3, titles=["real", f"round {i}", "believed"]))


widgets.interact(believe, i=widgets.IntSlider(value=400, min=1, max=1000, step=1, description="round"));

# %% [markdown]
# ## 14. Quiz
# 1. Why is an $\epsilon$-prediction hard to turn into a picture at round 1000?
# 2. Why does the second convolution of each block start at zero?
# 3. Training never runs the sampler. How can it still learn to sample?
# 4. Which of your numbers would catch a model that has memorised ten training digits?
#
# <details><summary>Answers</summary>
#
# 1. $\hat x = (z - \sigma\hat\epsilon)/\alpha$ divides by $\alpha_{1000} \approx 0.006$: an error in $\hat\epsilon$ is multiplied by about 160. Lesson 02's v-prediction fixes that.
# 2. So that at the start every block passes its input through: a deep network begins as a shallow one, and each block joins in as it learns.
# 3. Because the reverse step is a known Gaussian once $x$ (or $\epsilon$) is known, and that is what it learns, for each round separately.
# 4. Not the loss, nor the classifier's confidence. The kernel distance would in part (ten digits have too little variety); a search for the nearest training digit would (lesson 04).
# </details>
#
# ## What was shown, and what was not
# Shown: the noise in one line, two forms of the posterior mean, your network, loss and sampler equal to the library's, a loss that falls, a number with its floor and controls. Not shown: that 1000 steps are needed (they
# are not, lesson 02), that you can ask for a particular digit (lesson 03), that anything moves (lesson 04; or jump to [lesson 06](06_video_diffusion_models.ipynb) and type a caption).
#
# ## Readings
# - Ho, Jain, Abbeel, *Denoising Diffusion Probabilistic Models*, 2020 (arXiv 2006.11239): sections 2 and 3 are this lesson.
# - Sohl-Dickstein et al., *Deep Unsupervised Learning using Nonequilibrium Thermodynamics*, 2015 (arXiv 1503.03585): where the idea began.
# - Song and Ermon, *Generative Modeling by Estimating Gradients of the Data Distribution*, 2019 (arXiv 1907.05600): the same from the score's side.
# - Nichol and Dhariwal, *Improved DDPM*, 2021 (arXiv 2102.09672): what to change first; read before lesson 02.
