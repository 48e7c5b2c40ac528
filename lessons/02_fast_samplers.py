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
# # 02 · Schedules, v-prediction and fast samplers
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/video-diffusion-lessons/video-diffusion-lessons/blob/main/lessons/02_fast_samplers.ipynb)
#
# ![Three samplers turn the same noise into digits in sixteen steps](../assets/figures/02_fast_samplers.gif)
#
# *Rows: ancestral sampling as in lesson 01, DDIM, DPM-Solver++. Shipped weights `mnist-guided`, none rejected.*
#
# **Claim: the network of lesson 01 makes its digits in 32 steps instead of 1000, and section 11 measures what that costs. What makes it easy is a better clock: the log-SNR: how much signal there is relative to the noise.**
#
# You will be able to
# - read any noise schedule as a curve of log-SNR, and sample a trained network along a different one;
# - say where the loss comes from, as one integral over the log-SNR, and why schedules and predictions are two ways to set its weight;
# - turn ε, x, v and "flow" into each other, and say where each of them breaks;
# - write DDIM and DPM-Solver++(2M), a few lines each, and choose the number of steps by measuring.
#
# | reading | exercises | machine: T4 (estimate) / two CPU cores |
# |---|---|---|
# | 40 minutes | 35 minutes | 8 / 5 minutes |
#
# **The series:** [01 DDPM](01_ddpm_on_mnist.ipynb) → **02 schedules and fast samplers (you are here)** → [03 guidance](03_guidance.ipynb) → [04 Moving MNIST](04_moving_mnist.ipynb) → [05 the factorized 3D U-Net](05_factorized_unet.ipynb) →
# [06 Video Diffusion Models](06_video_diffusion_models.ipynb) → [07 joint training](07_joint_training.ipynb) → [08 reconstruction guidance](08_reconstruction_guidance.ipynb) → [09 pseudo-3D layers](09_pseudo_3d_layers.ipynb) →
# [10 Make-A-Video](10_make_a_video.ipynb) → [11 frame interpolation](11_frame_interpolation.ipynb) → [12 super-resolution](12_super_resolution.ipynb) → [13 scaling up](13_scaling_up.ipynb). This lesson rests on lesson 01:
# [the forward process](01_ddpm_on_mnist.ipynb#3.-Destroying-a-picture:-the-forward-process), [the loss](01_ddpm_on_mnist.ipynb#4.-Where-the-loss-comes-from) and
# [sampling](01_ddpm_on_mnist.ipynb#6.-Sampling:-walking-back). Symbols: [glossary](glossary.md).

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
from dataclasses import replace
import matplotlib.pyplot as plt
import torch
from utils import load_pretrained, show
from utils.data import MNIST
from utils.exercises import check
from utils.recipes import recipe
from utils.runtime import ASSETS, budget, generator, pick_device
from utils.schedule import CosineBetaSchedule, CosineSchedule, FlowSchedule, LinearBetaSchedule
from utils.train import Trainer

BUDGET, DEVICE = budget(), pick_device()
MANY = {"smoke": 24, "cpu": 200}.get(BUDGET, 1000)           # "very many" denoising steps, as far as we can afford it here
NUMBER = {"smoke": 8, "cpu": 64}.get(BUDGET, 500)           # pictures behind a number that is measured live

# %% [markdown]
# ## 1. The failure: fewer steps, worse digits
# Lesson 01 walked back in up to 1000 small steps, one network call each. Calls are the cost of sampling, and a video model's are many times more expensive. The naive way to save is to take the same walk with fewer, longer steps.
# Here it is (lesson 01's walk is called **ancestral**), with lesson 01's own weights, and below it two walks that you will write in this lesson, `ddim` and `dpm++`. *(Weights: shipped, `mnist-ddpm`. Nothing is trained again: the sampler is not part of the model.)*

# %%
ddpm = load_pretrained("mnist-ddpm", device=DEVICE, amp="auto")
rows, took = {}, {}
for sampler, steps in (("ancestral", MANY), ("ancestral", 4), ("ddim", 4), ("dpm++", 4), ("dpm++", 16)):
    begun, name = time.monotonic(), f"{sampler}, {steps} steps"
    rows[name] = ddpm.sample(num=10, steps=steps, sampler=sampler, seed=3)
    took[name] = time.monotonic() - begun
show.image_rows(rows, title="the same network, the same first noise; sampler and steps differ")

# %%
real = MNIST("test", seed=5).sample(min(NUMBER, 64)).video
bright = {name: float(images.mean()) for name, images in rows.items()}
for sampler, steps in (("ancestral", 4), ("ddim", 4), ("dpm++", 4), ("dpm++", 16)):   # ten digits are too few for this number
    bright[f"{sampler}, {steps} steps"] = float(ddpm.sample(num=len(real), steps=steps, sampler=sampler, seed=3).mean())
for name, seconds in took.items():
    print(f"{name:22s} {seconds:6.2f} s   mean brightness {bright[name]:.3f} (n = {10 if name.endswith(f' {MANY} steps') else len(real)})")
print(f"{'real test digits':33s}   mean brightness {float((real + 1).mean() / 2):.3f} (n = {len(real)})")
few = [bright["ddim, 4 steps"], bright["dpm++, 4 steps"]]
assert BUDGET == "smoke" or bright["ancestral, 4 steps"] < min(few) and max(few) < bright["dpm++, 16 steps"]


# %% [markdown]
# **Predict, then read on.** With four ancestral steps the strokes are thin and fade out. What causes that: the network, the noise levels at which it is asked, or what is done between its guesses? And why do the last three rows show nearly the *same* digits?
#
# <details><summary>Answer</summary>
#
# Two things, and neither is the network itself, which is the same in all rows.
#
# 1. *What is done between the guesses.* Three rows have four steps, with guesses at the same four noise levels, and the ancestral one is the faintest. Its step would be exact if the guess were the true picture. But early guesses are blurs, means of many digits, and what a blur leaves out
# is still in the rest of $z$. DDIM keeps that rest (section 5); a long ancestral step redraws most of it.
# 2. *Where the guesses are made.* All four-step rows are fainter than the one with sixteen. Four even steps through the thousand rounds put three of four guesses where the digit is hardly visible. The last guess, at about half noise, *is* the picture: the last step ends at no noise, where $z = \hat x$ whatever the sampler. Section 2 tries other levels: they help the ancestral sampler's brightness, and nothing else.
#
# Section 11 measures this with hundreds of digits; look there at four ancestral steps with `mnist-ddpm` and with `mnist-guided`, whose schedule puts its four levels elsewhere. (That network also says $v$ and is told the digit, so this is only a hint.)
#
# The last three rows draw no noise after the first, so the first noise alone decides which digit appears.
# </details>
#
# ## 2. One clock for every schedule
# $z = \alpha x + \sigma\epsilon$ with $\alpha^2 + \sigma^2 = 1$ has *one* free number. We choose the **log-SNR** $\lambda = \log(\alpha^2/\sigma^2)$, and get back
#
# $$\alpha^2 = \mathrm{sigmoid}(\lambda), \qquad \sigma^2 = \mathrm{sigmoid}(-\lambda).$$
#
# A **schedule** says which $\lambda$ belongs to time $t$, from $t = 0$ (data) to $t = 1$ (noise). Nothing else.
#
# | schedule | $\lambda(t)$ | where from |
# |---|---|---|
# | linear β | from $\bar\alpha = \prod(1-\beta)$, 1000 steps | DDPM |
# | cosine β | $\bar\alpha = \cos^2$ of time, 1000 steps, each $\beta \le 0.999$ | Improved DDPM |
# | continuous cosine | $-2\log\tan(a t + b)$, $a, b$ such that $\lambda$ runs from 20 to −20 | *Video Diffusion Models*; $\alpha = \cos(\pi t/2)$ except at the ends |
# | rectified flow | $2\log\frac{1-t}{t}$ | $z \propto (1-t)x + t\epsilon$, section 8 |

# %%
def alpha_sigma(log_snr):
    """(...) float64 -> alpha and sigma, (...) float64."""
    return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()


def cosine_log_snr(t, low=-20.0, high=20.0):
    """t in [0, 1] -> log-SNR."""
    b = math.atan(math.exp(-high / 2))
    a = math.atan(math.exp(-low / 2)) - b
    return -2 * torch.log(torch.tan(a * t + b))


# %% [markdown]
# New ideas are written here; old ones are imported. So each new piece is compared with the library's, once:

# %%
# NBVAL_CHECK_OUTPUT
t = torch.linspace(0, 1, 1001, dtype=torch.float64)
print("equal to utils:", torch.allclose(cosine_log_snr(t), CosineSchedule().log_snr(t)))
print("ends and middle:", [round(float(value), 6) + 0 for value in cosine_log_snr(t)[[0, 500, 1000]]])
apart = (alpha_sigma(cosine_log_snr(t))[0] - torch.cos(math.pi * t / 2)).abs().max()
print(f"largest distance of alpha from cos(pi t / 2): {float(apart):.2e}")

# %%
schedules = {"linear β": LinearBetaSchedule(), "cosine β": CosineBetaSchedule(),
             "continuous cosine": CosineSchedule(), "rectified flow": FlowSchedule()}
styles = dict(zip(schedules, ((show.GREY, "-"), (show.ORANGE, ":"), (show.BLUE, "-"), ("black", "--"))))
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 2.9), layout="constrained")
for name, schedule in schedules.items():
    curve = schedule.log_snr(t)
    left.plot(t, curve.clamp(-14, 14), color=styles[name][0], linestyle=styles[name][1], label=name)
    right.hist(schedule.log_snr(schedule.sample_t(100_000, generator(0))).clamp(-14, 14), bins=80, range=(-14, 14), density=True,
               histtype="step", color=styles[name][0], linestyle=styles[name][1])
left.set(xlabel="time t", ylabel="log-SNR λ", title="a schedule is a curve")
right.set(xlabel="log-SNR λ", ylabel="density", title="noise levels that training visits")
left.legend(fontsize=9);

# %% [markdown]
# (The two cosine curves coincide.) **The same time, different pictures; the same log-SNR, one picture.** Noise a digit with each schedule at equal $t$, and then at equal $\lambda$, where the schedule plays no part.
# **Predict, then run:** which schedule destroys the digit first?

# %%
x = MNIST("test", seed=0).sample(1, index=4).video.double()
eps = torch.randn(x.shape, dtype=torch.float64, generator=generator(1))
noised = lambda log_snr: torch.cat([a * x + s * eps for a, s in zip(*alpha_sigma(log_snr))])
to_picture = lambda z: (z.clamp(-1, 1) + 1) / 2
moments, levels = torch.linspace(0.1, 0.9, 9, dtype=torch.float64), torch.linspace(8, -8, 9, dtype=torch.float64)
at_times = {name: to_picture(noised(schedule.log_snr(moments))) for name, schedule in schedules.items()}
show.image_rows(at_times, [f"t = {m:.1f}" for m in moments], "equal time")

# %%
show.image_rows({"any schedule": to_picture(noised(levels))}, [f"λ = {l:g}" for l in levels], "equal log-SNR")

# %% [markdown]
# Linear β is first: at $t = 0.5$ next to nothing is visible, and half the time is still to come. That is why Improved DDPM bent the curve. A network that is told $t$ must learn its schedule by heart.
# **A network that is told $\lambda$ can be used with any schedule**, and that is what ours are told. Try it on section 1's failure: the same network, four steps again, but through the cosine's levels (the first one moved to where this network's training ended).
# **Predict, then run:** brighter or fainter? Better or worse?

# %%
from utils.metrics import digit_features, kernel_distance, kernel_distance_gap
from utils.samplers import sample_loop


@torch.no_grad()
def four_steps(log_snrs, sampler, num):
    """`num` digits of mnist-ddpm, in [0, 1], through these noise levels."""
    sources = [generator(3, number) for number in range(num)]
    z = torch.stack([torch.randn(1, 1, 28, 28, generator=source) for source in sources]).to(DEVICE)
    *_, state = sample_loop(ddpm.predict_x, z, log_snrs, sources, sampler=sampler)
    return (state.z.clamp(-1, 1).cpu() + 1) / 2


# %%
even = {name: schedules[name].log_snr(torch.linspace(1, 0, 5)).clamp(min=float(ddpm.log_snr(1.0))) for name in ("linear β", "continuous cosine")}
drawn = {(sampler, name): four_steps(log_snrs, sampler, {"smoke": 16}.get(BUDGET, 256)) for sampler in ("ancestral", "ddim") for name, log_snrs in even.items()}
for name, log_snrs in even.items():
    print(f"{name:18s} guesses at λ = {', '.join(f'{round(level, 1) + 0:.1f}' for level in log_snrs[:-1].tolist())}")
show.image_rows({f"{sampler}, {name}": images[:10] for (sampler, name), images in drawn.items()}, title="mnist-ddpm, four steps, at the levels of two schedules")

# %%
number = len(drawn["ddim", "linear β"])
print(f"n = {number}, from linear β's levels to the cosine's    in brackets: standard error, 95% interval of the difference")
compared = digit_features(to_picture(MNIST("test", seed=11).sample(number).video))
for sampler in ("ancestral", "ddim"):
    before, after = (drawn[sampler, name] for name in even)
    brighter = (after - before).mean((1, 2, 3, 4))                               # from the same first noise: pair by pair
    a, b = digit_features(before), digit_features(after)
    gap = kernel_distance_gap(b, a, compared)
    print(f"{sampler:10s} brightness {float(before.mean()):.3f} -> {float(after.mean()):.3f} (± {float(brighter.std()) / number**0.5:.3f})   "
          f"kernel distance {kernel_distance(a, compared):.2f} -> {kernel_distance(b, compared):.2f} ({gap['gap_low']:+.2f} to {gap['gap_high']:+.2f})")
    assert BUDGET == "smoke" or (brighter.mean() > 0 if sampler == "ancestral" else gap["gap_low"] > 0)     # the text below says so

# %% [markdown]
# The ancestral sampler's digits get brighter, although nothing was retrained; the same cannot be said of DDIM's. But brighter is not better: lesson 01's kernel distance cannot tell the ancestral ones apart, and DDIM's are *worse*. So where the guesses are made is part of what makes
# four ancestral steps faint, but moving them is no cure. (Compare along a row only: which of the two samplers is ahead changes with the 256 digits that are drawn, and section 11's table has the opposite order. It measures samplers with many steps, each model on its own schedule.)
#
# ## 3. Where the loss comes from
# Lesson 01 had a sum over rounds with weights $w_i = \beta_i^2/(2\tilde\beta_i(1-\beta_i)(1-\bar\alpha_i))$ that looked arbitrary. In the clock $\lambda$ they are not. An error in the noise is an error in the picture: $\epsilon - \hat\epsilon = -\frac{\alpha}{\sigma}(x - \hat x)$. Put that in, and each term of the bound ($i \ge 2$) becomes, with $e^\lambda = \alpha^2/\sigma^2$ the signal-to-noise ratio,
#
# $$\tfrac12\big(e^{\lambda_{i-1}} - e^{\lambda_i}\big)\,\|x - \hat x\|^2 : \quad\text{how much signal-to-noise the step gains, times the error of the guessed picture.}$$
#
# The machine checks that it is the same weight:

# %%
# NBVAL_CHECK_OUTPUT
linear = LinearBetaSchedule()
beta, abar, snr = linear.betas(), linear.alphas_cumprod(), linear.alphas_cumprod() / (1 - linear.alphas_cumprod())
b, now, before = beta[1:], abar[2:], abar[1:-1]                                   # rounds 2 to 1000
lesson_01 = b**2 / (2 * (b * (1 - before) / (1 - now)) * (1 - b) * (1 - now))     # weight of |eps - eps_hat|^2
clock = (snr[1:-1] - snr[2:]) / 2 / snr[2:]                                       # the same from the gain in SNR
print("one weight, two forms:", torch.allclose(lesson_01, clock, rtol=1e-9))


# %% [markdown]
# Make the steps shorter and shorter, and the sum becomes an integral (Kingma et al. 2021, *Variational Diffusion Models*):
#
# $$\text{bound} = \tfrac12\,\mathbb E\int_{\lambda_{\min}}^{\lambda_{\max}} e^{\lambda}\,\|x - \hat x(\lambda)\|^2\, d\lambda + \text{const} = \tfrac12\,\mathbb E\int_{\lambda_{\min}}^{\lambda_{\max}} \|\epsilon - \hat\epsilon(\lambda)\|^2\, d\lambda + \text{const}.$$
#
# (The second form is the first with that same replacement: $\|\epsilon - \hat\epsilon\|^2 = e^\lambda \|x - \hat x\|^2$.) **The schedule has dropped out**, except for its two ends. Training draws $t$ uniformly, so all that a schedule does there is decide how often each $\lambda$ is visited, $p(\lambda) = |dt/d\lambda|$.
# And the kind of output contributes only a factor $k(\lambda)$, because an error in x, v (section 7) or flow (section 8) is an error in ε times a number. So each of these recipes is one weight under one integral:
#
# $$L = \mathbb E\int \underbrace{p(\lambda)\; k(\lambda)}_{\text{weight of a noise level}}\;\|\epsilon - \hat\epsilon\|^2 \, d\lambda, \qquad
# k = \begin{cases} 1 & \text{loss on } \epsilon \\ e^{-\lambda} & \text{loss on } x \\ 1 + e^{-\lambda} & \text{loss on } v \\ (1 + e^{-\lambda/2})^2 & \text{loss on flow} \end{cases}$$
#
# (*Min-SNR* weighting multiplies the loss on $x$ by $\min(e^\lambda, 5)$, so its $k$ is $\min(1, 5e^{-\lambda})$: exercise 2.)
#
# **Predict, then run:** DDPM's loss, the video papers' "v with a cosine" and today's "rectified flow" come from three
# different derivations. Which of the three weights are alike?

# %%
def density(schedule, t=torch.arange(1, 1001, dtype=torch.float64) / 1000):
    """p(λ) = |dt / dλ| by central differences -> λ and p, each (998,)."""
    l = schedule.log_snr(t)
    return l[1:-1], (t[2:] - t[:-2]) / (l[:-2] - l[2:])


factor = {"ε, linear β (DDPM)": (linear, lambda l: 1), "v, cosine": (CosineSchedule(), lambda l: 1 + torch.exp(-l)),
          "flow, uniform t": (FlowSchedule(), lambda l: (1 + torch.exp(-l / 2)) ** 2)}
plt.figure(figsize=(6, 2.7))
for (name, (schedule, k)), (color, line) in zip(factor.items(), ((show.GREY, "-"), (show.BLUE, "-"), ("black", "--"))):
    l, p = density(schedule)
    inside = l.abs() < 9
    plt.semilogy(l[inside], (p * k(l))[inside], line, color=color, label=name)
plt.xlabel("log-SNR λ"), plt.ylabel("weight"), plt.title("weight of |ε − ε̂|² at each noise level"), plt.legend(fontsize=9);

# %%
# NBVAL_CHECK_OUTPUT
for name in ("v, cosine", "flow, uniform t"):
    schedule, k = factor[name]
    l, p = density(schedule)
    times_exponential = (p * k(l) * torch.exp(l / 2))[100:-100]
    same = bool(times_exponential.std() < 1e-3)
    print(f"{name:16s} weight / exp(-λ/2) = {times_exponential.mean():.3f}, the same at every λ: {same}")
rounds = torch.arange(1, 1001, dtype=torch.float64) / 1000
for name, (schedule, k) in factor.items():
    l, p = density(schedule)
    there = (l + 6).abs().argmin()
    visited, weight = float((schedule.log_snr(rounds) < -4).double().mean()), p[there] * k(l[there])
    print(f"{name:18s} visits λ < -4 in {visited:.0%} of training; at λ = -6 density {p[there]:.4f}, weight {weight:.4f}")

# %% [markdown]
# **v-prediction with a cosine and rectified flow with uniform time are the same loss**, $e^{-\lambda/2}$ up to a constant factor (Kingma and Gao 2023). DDPM's differs: it is largest in the middle and falls off on both sides, while theirs
# grows without end towards strong noise, where the layout of a picture, and the motion of a video, is decided. DDPM does go there: linear β visits strong noise far more often than the cosine (last lines; section 2's histogram). But a visit counts little: DDPM's $k$ is 1, while theirs grows like $e^{-\lambda}$.
#
# ## 4. A world where the perfect network is known
# To judge a *sampler*, we should keep a network's mistakes out of it. So take data for which the best possible guess has a formula: eight Gaussian blobs in the plane; blob $k$ has the centre $\mu_k$ and standard deviation $\rho = 0.1$ (`spread`).
# Given $z$, blob $k$ is responsible with probability $r_k$, and
#
# $$\hat x(z, \lambda) = \mathbb E[x \mid z] = \sum_k r_k \Big(\mu_k + \frac{\alpha \rho^2}{\alpha^2 \rho^2 + \sigma^2}\,(z - \alpha\mu_k)\Big), \qquad r_k \propto \exp\Big(-\frac{|z - \alpha\mu_k|^2}{2(\alpha^2 \rho^2 + \sigma^2)}\Big).$$

# %%
angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
centres, spread = torch.stack([angles.cos(), angles.sin()], 1), 0.1      # (8, 2)


def log_joint(z, log_snr):
    """log of each blob's part of q(z), up to a constant: z (N, 2) -> (N, 8)."""
    alpha, sigma = alpha_sigma(log_snr)
    return -(z[:, None] - alpha * centres).square().sum(-1) / (2 * (alpha**2 * spread**2 + sigma**2))


def perfect_x(z, log_snr):
    """z (N, 2), log_snr a number -> the best guess of x, (N, 2)."""
    alpha, sigma = alpha_sigma(log_snr)
    share = log_joint(z, log_snr).softmax(1)[:, :, None]
    inner = centres + alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * (z[:, None] - alpha * centres)
    return (share * inner).sum(1)


# %% [markdown]
# Lesson 01 claimed that the best $\hat\epsilon$ is $-\sigma\nabla_z \log q(z)$, the **score**. Here $q$ is known, and autograd can check:

# %%
# NBVAL_CHECK_OUTPUT
z = torch.randn(5, 2, dtype=torch.float64, generator=generator(2)).requires_grad_()
level = torch.tensor(0.5, dtype=torch.float64)
score, = torch.autograd.grad(log_joint(z, level).logsumexp(1).sum(), z)
alpha, sigma = alpha_sigma(level)
eps_hat = (z - alpha * perfect_x(z, level)) / sigma
print("perfect noise guess = -sigma x score:", torch.allclose(eps_hat, -sigma * score))


# %% [markdown]
# ## 5. DDIM: keep the noise that you found
# A guess $\hat x$ implies what the noise in $z$ is: $\hat\epsilon = (z - \alpha\hat x)/\sigma$. The ancestral step throws part of it away and draws new noise. **DDIM** (Song, Meng and Ermon 2021) keeps it: it recombines picture and noise in the proportions of
# the next, lower noise level. From $t$ to $s$:
#
# $$z_s = \alpha_s\, \hat x + \sigma_s\, \hat\epsilon$$
#
# No randomness is left: the first noise decides everything.

# %%
def ddim(z, x_hat, log_snr_t, log_snr_s):
    """One step from noise level t to a lower one s; numbers log_snr_t < log_snr_s."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(log_snr_t), alpha_sigma(log_snr_s)
    eps_hat = (z - alpha_t * x_hat) / sigma_t
    return alpha_s * x_hat + sigma_s * eps_hat


def walk(z, log_snrs):
    """All points of a DDIM walk through `log_snrs` (steps + 1,): (steps + 1, N, 2)."""
    path = [z]
    for l_t, l_s in zip(log_snrs[:-1], log_snrs[1:]):
        path.append(ddim(path[-1], perfect_x(path[-1], l_t), l_t, l_s))
    return torch.stack(path)


grid = lambda steps: torch.linspace(-10, 10, steps + 1, dtype=torch.float64)

# %% [markdown]
# **Predict, then run:** thirty points start as noise. Draw their walks with 3, 12 and 400 steps: lines are the walks, dots their ends, crosses the centres of the blobs. What do the lines look like, and where do they end?

# %%
start = torch.randn(30, 2, dtype=torch.float64, generator=generator(3))
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.3), layout="constrained", sharex=True, sharey=True)
for ax, steps in zip(axes, (3, 12, 400)):
    path = walk(start, grid(steps))
    ax.plot(*path.permute(2, 0, 1), color=show.BLUE, linewidth=0.7, alpha=0.7)
    ax.plot(*path[-1].T, "o", color=show.ORANGE, markersize=3)
    ax.plot(*centres.T, "k+", markersize=9)
    ax.set(title=f"{steps} steps", aspect="equal")


# %% [markdown]
# With infinitely many steps the walk is a smooth curve, the solution of an ordinary differential equation (the *probability flow*, Yang Song et al. 2021). Few steps cut its corners: they first aim at the mean of everything, the centre, and end beside the blobs.
# A sampler is now simply *a solver of that equation*, and solvers are an old art.
#
# ## 6. DPM-Solver++: extrapolate the guess
# Along the curve $z$ changes a lot, but the *guess* $\hat x$ changes slowly. Divide $z = \alpha\hat x + \sigma\hat\epsilon$ by $\sigma$: with half the log-SNR, $h = \lambda/2 = \log(\alpha/\sigma)$, this reads
# $z/\sigma = e^h \hat x + \hat\epsilon$. A DDIM step keeps $\hat x$ and $\hat\epsilon$, so $z_s/\sigma_s - z_t/\sigma_t = (e^{h_s} - e^{h_t})\,\hat x$; for tiny steps $d(z/\sigma) = e^h\, \hat x\; dh$. Integrate, and use $\sigma_s = \alpha_s e^{-h_s}$:
#
# $$z_s = \frac{\sigma_s}{\sigma_t}\, z_t + \alpha_s \int_{h_t}^{h_s} e^{\,h - h_s}\; \hat x(h)\; dh .$$
#
# Hold $\hat x$ constant over the step and the integral gives $\frac{\sigma_s}{\sigma_t} z - \alpha_s(e^{-(h_s - h_t)} - 1)\,\hat x$, which is DDIM again, in disguise. **DPM-Solver++(2M)** (Lu et al. 2022) draws a straight line through this guess and the previous one, and takes its
# value in the middle of the step: $\hat x + \frac{1}{2r}(\hat x - \hat x_{\text{before}})$, where $r$ is the previous step's length divided by this one's. It remembers one guess, and costs no extra network call.

# %%
def dpm(z, x_hat, log_snr_t, log_snr_s, memory=None):
    """memory: the guess before and its log-SNR, or None for a first-order step."""
    sigma_t, (alpha_s, sigma_s) = alpha_sigma(log_snr_t)[1], alpha_sigma(log_snr_s)
    step = (log_snr_s - log_snr_t) / 2
    if memory is not None:
        x_before, log_snr_before = memory
        r = (log_snr_t - log_snr_before) / 2 / step                       # how long the step before was, in this step's lengths
        x_hat = x_hat + (x_hat - x_before) / (2 * r)
    return sigma_s / sigma_t * z - alpha_s * torch.expm1(-step) * x_hat


# %% [markdown]
# The walk starts with a first-order step, because there is no previous guess, and ends with one, because the last step may be very long in $\lambda$ (section 12 shows what a second-order last step does).

# %%
def dpm_walk(z, log_snrs, denoise=perfect_x):
    memory = None
    for k, (l_t, l_s) in enumerate(zip(log_snrs[:-1], log_snrs[1:])):
        x_hat = denoise(z, l_t)
        z = dpm(z, x_hat, l_t, l_s, None if k == len(log_snrs) - 2 else memory)   # the last step is of first order
        memory = x_hat, l_t
    return z


# %% [markdown]
# Are both equal to the library's sampler loop, which serves all samplers?

# %%
# NBVAL_CHECK_OUTPUT
for name, mine in (("ddim", walk(start, grid(10))[-1]), ("dpm++", dpm_walk(start, grid(10)))):
    *_, theirs = sample_loop(lambda z, l: perfect_x(z, l[0].double()), start, grid(10), sampler=name, clip=False)
    print(f"{name:6s} equal to utils: {bool((mine - theirs.z).abs().max() < 1e-5)}")

# %% [markdown]
# **Predict, then run:** how does the error fall when the number of steps doubles? (The truth: very many DPM-Solver++ steps from the same starts.)

# %%
truth_steps = {"smoke": 4000}.get(BUDGET, 20_000)
truth = dpm_walk(start, grid(truth_steps))
counts = [8, 16, 32, 64, 128, 256, 512]
error = {"DDIM": [], "DPM-Solver++(2M)": []}
for steps in counts:
    for name, end in zip(error, (walk(start, grid(steps))[-1], dpm_walk(start, grid(steps)))):
        error[name].append(float((end - truth).norm(dim=1).median()))
for (name, values), line in zip(error.items(), ("o--", "s-")):
    plt.loglog(counts, values, line, color={"o--": show.ORANGE, "s-": show.BLUE}[line], label=name)
plt.gcf().set_size_inches(5, 2.8)
plt.xlabel("steps = network calls"), plt.ylabel("median error"), plt.title(f"distance from where {truth_steps:,} steps end"), plt.legend();

# %%
# NBVAL_CHECK_OUTPUT
for name, order in (("DDIM", 1), ("DPM-Solver++(2M)", 2)):
    ratio = error[name][-2] / error[name][-1]
    print(f"{name:17s} order {order}: twice the steps, error / {2**order}: {abs(ratio - 2**order) < 0.25 * 2**order}")


# %% [markdown]
# Twice the steps: half of DDIM's error, a quarter of DPM-Solver++'s. That is what *first* and *second order* mean. On digits the network's own error remains, however exactly the equation is solved, so the gain ends sooner: section 11 measures where.
#
# ## 7. What should the network say? ε, x or v
# With $z$ in hand, the noise, the picture and any mixture of them carry the same information. **v** is the mixture that is never trivial (Salimans and Ho 2022):
#
# | network says | picture | an error $e$ of what it says becomes, in the picture | breaks where |
# |---|---|---|---|
# | $\hat x$ | $\hat x$ | $e$ | weak noise: "copy z" is nearly right already, and the last detail must be learnt as a small difference |
# | $\hat\epsilon$ | $(z - \sigma\hat\epsilon)/\alpha$ | $(\sigma/\alpha)\,e$ | strong noise: the same with the roles swapped, and $1/\alpha \to \infty$ blows the error up |
# | $\hat v$, $v = \alpha\epsilon - \sigma x$ | $\alpha z - \sigma\hat v$ | $\sigma\,e$ | nowhere: in strong noise it is $-x$, in weak noise $\epsilon$, always the unknown one |
# | flow, $\epsilon - x$ | $(z - \sigma\,\widehat{\mathrm{flow}})/(\alpha + \sigma)$ | $\sigma/(\alpha + \sigma)\,e$ | nowhere: $\alpha + \sigma \ge 1$ |

# %%
def picture_of(output, z, log_snr, prediction):
    """What the network says, as a picture. log_snr a number."""
    alpha, sigma = alpha_sigma(log_snr)
    if prediction == "x":
        return output
    if prediction == "v":
        return alpha * z - sigma * output
    return (z - sigma * output) / (alpha if prediction == "eps" else alpha + sigma)


# %%
# NBVAL_CHECK_OUTPUT
from utils.diffusion import target, to_x
x_, eps_ = torch.randn(2, 1, 4, dtype=torch.float64, generator=generator(5))
for prediction in ("eps", "x", "v", "flow"):
    for level in torch.tensor([-6.0, 0.0, 6.0], dtype=torch.float64):
        alpha, sigma = alpha_sigma(level)
        z, said = alpha * x_ + sigma * eps_, target(x_, eps_, level[None], prediction)
        back = picture_of(said, z, level, prediction)
        assert torch.allclose(back, x_) and torch.allclose(back, to_x(said, z, level[None], prediction))
    print(f"{prediction:4s} there and back, and equal to utils: True")

# %% [markdown]
# **See it on trained networks.** `mnist-ddpm` says ε, `mnist-guided` (lesson 03's, used here without telling it a digit) says v. (They differ in schedule and length of training too; section 10 compares fairly.) Noise real test digits to many levels and compare what the networks believe with the truth. **Predict, then run:** where do the
# two curves part?

# %%
guided = load_pretrained("mnist-guided", device=DEVICE, amp="auto")


@torch.no_grad()
def believed(model, level, x=real):
    """What the network believes behind x noised to `level` (always with the same noise), (N, 1, 1, 28, 28)."""
    alpha, sigma = alpha_sigma(torch.tensor(level, dtype=torch.float64))
    z = (alpha * x + sigma * torch.randn(x.shape, generator=generator(6))).float()
    return model.predict_x(z.to(DEVICE), torch.full((len(x),), level).to(DEVICE)).float().cpu()


levels = [-10.0, -8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0]
rmse = lambda model, level: float((believed(model, level) - real).square().mean().sqrt())
wrong = {model.name: [rmse(model, level) for level in levels] for model in (ddpm, guided)}
mean_digit = float((real.mean(0) - real).square().mean().sqrt())

# %%
plt.figure(figsize=(5.5, 2.8))
plt.semilogy(levels, wrong["mnist-ddpm"], "o--", color=show.ORANGE, label="says ε (mnist-ddpm)")
plt.semilogy(levels, wrong["mnist-guided"], "s-", color=show.BLUE, label="says v (mnist-guided)")
plt.axhline(mean_digit, color=show.GREY, linewidth=0.8)
plt.text(6.3, mean_digit * 1.1, "always guessing the mean digit", fontsize=8, color=show.GREY, ha="right")
plt.xlabel("log-SNR λ"), plt.ylabel("RMSE"), plt.title("error of the believed picture"), plt.legend(fontsize=8);

# %%
some = [-10.0, -6.0, -2.0, 2.0]
rows = {f"{model.prediction} ({model.name})": torch.cat([to_picture(believed(model, level, real[:2])) for level in some])
        for model in (ddpm, guided)}
show.image_rows(rows, [f"λ = {level:g}" for level in some for _ in range(2)], "what they believe about two digits")

# %% [markdown]
# They part in strong noise, on the left. At $\lambda = -10$ nothing of the digit is left in $z$, and the best belief is the mean digit, a soft blob. The v-network says so. To say the same, the ε-network would have to answer $z$ minus $\alpha = 0.007$ of a picture, and its smallest
# error drowns that. For a well-trained network this hardly matters in sampling: a step multiplies $\hat x$ by a small $\alpha$ again. Section 10 shows a barely trained one.
#
# ## 8. Rectified flow is here already
# "Flow matching" and "rectified flow" (Liu et al. 2022, Lipman et al. 2022) walk on straight lines $z' = (1-t)\,x + t\,\epsilon$, predict the direction $\epsilon - x$, and take Euler steps (length of the step times direction). Divide $z'$ by its scale $\sqrt{(1-t)^2 + t^2}$ and it is our $z$ at
# $\lambda = 2\log\frac{1-t}{t}$. Then an Euler step should be a step that we know. **Predict which, then run:**

# %%
# NBVAL_CHECK_OUTPUT
times, flow = torch.linspace(1, 0, 11, dtype=torch.float64), FlowSchedule()
line, z = start, start
for t, s in zip(times[:-1], times[1:]):
    l_t, l_s = flow.log_snr(t), flow.log_snr(s)
    x_hat = perfect_x(line / ((1 - t) ** 2 + t**2).sqrt(), l_t)
    line = line + (s - t) * (line - x_hat) / t                            # Euler: direction eps - x = (z' - x) / t
    z = ddim(z, perfect_x(z, l_t), l_t, l_s)
print("ten Euler steps on the line = ten DDIM steps:", torch.allclose(line, z))


# %% [markdown]
# So there is no sampler to add: rectified flow is a schedule (`FlowSchedule`) and a prediction (`"flow"`).
#
# ## 9. The end of the schedule must be noise
# Sampling starts from *pure* noise. Does training end there? DDPM's linear β stops at $\lambda \approx -10.1$, where $\alpha = 0.006$: next to nothing. But a schedule that stops earlier leaks: the brightness of the picture is still in $z$, the network relies on it,
# and pure noise tells it "medium grey" (Lin et al. 2023 found this in Stable Diffusion, which could not paint a dark night). **Break it:** start the same network from pure noise, but tell it lower and lower noise levels. Real digits are mostly black. **Predict:** what comes out?

# %%
@torch.no_grad()
def from_noise_at(start_level, num=10, steps={"smoke": 6}.get(BUDGET, 24)):
    log_snrs = torch.linspace(start_level, 12, steps + 1, dtype=torch.float64)
    z = torch.randn(num, 1, 1, 28, 28, generator=generator(7)).to(DEVICE)
    *_, state = sample_loop(lambda z, l: guided.predict_x(z, l), z, log_snrs)
    return to_picture(state.z.cpu())


rows = {f"start λ = {level:g}": from_noise_at(level) for level in (-10.0, -4.0, -2.0, -1.0)}
show.image_rows(rows, title="pure noise, declared to be less noise than it is")

# %%
print(f"mean brightness of real digits {float(to_picture(real).mean()):.3f}")
for name, images in rows.items():
    alpha = alpha_sigma(torch.tensor(float(name.split()[-1])))[0]
    print(f"{name}: {float(images.mean()):.3f}   (alpha there: {float(alpha):.3f})")

# %% [markdown]
# The pictures get brighter: more and thicker strokes, then scraps. Pure noise is medium grey on average; the less noise the network is told of, the more of that brightness it takes for the picture's own. (With ten pictures, a few hundredths are chance.)
#
# **The fix** is to bend the schedule until its end *is* noise: shift and scale $\sqrt{\bar\alpha}$ so that the last value is 0 and the first is unchanged. This needs a network that says v, x or flow: at $\alpha = 0$, ε tells nothing.

# %%
# NBVAL_CHECK_OUTPUT
root = linear.alphas_cumprod()[1:].sqrt()
bent = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
zero_terminal = LinearBetaSchedule(zero_terminal_snr=True)
print("equal to utils:", torch.allclose(bent, zero_terminal.alphas_cumprod()[1:]))
print("log-SNR at the end:", float(zero_terminal.log_snr(1.0)))

# %% [markdown]
# ## 10. Train, live: ε against v
# Same network, same digits, same noise, same number of steps; only what the output *means* differs. The schedule is the continuous cosine. The grey band is an earlier run of the v-network of the same length.
# (The two losses measure different things and cannot be compared. The picture's error can.) **Predict:** at which noise level will the two differ most?
#
# <details><summary>Answer</summary>
#
# In strong noise. There an error $e$ of ε is an error $(\sigma/\alpha)e$ of the picture, and an error $e$ of v is at most $e$. In weak noise the two say nearly the same thing.
# </details>

# %%
trained = {}
for prediction in ("v", "eps"):
    variant = replace(recipe("mnist-guided"), prediction=prediction)
    trainer = Trainer(variant, variant.budget(BUDGET), device=DEVICE)
    show.train_live(trainer, f"02_{prediction}_{BUDGET}", lambda model: model.sample(num=8, steps=16), updates=2)
    trained[prediction] = trainer

# %%
# NBVAL_CHECK_OUTPUT
with torch.no_grad():
    for prediction, trainer in trained.items():
        print(f"{prediction:3s} loss on the first batch, same noise, fell: {bool(trainer.loss(0) < trainer.history[0])}")

# %%
some = [-12.0, -8.0, -4.0, -1.0, 2.0]
print("error of the believed picture (RMSE) at log-SNR   " + "".join(f"{level:8g}" for level in some))
for prediction, trainer in trained.items():
    model = trainer.model()
    print(f"  says {prediction:3s}, {trainer.step} steps of training" + " " * (18 - len(str(trainer.step))),
          "".join(f"{rmse(model, level):8.2f}" for level in some))
print(f"  always the mean digit {' ' * 26}{mean_digit:8.2f}")

# %%
rows = {f"yours, {name}": trainer.model().sample(num=10, steps=32, seed=4) for name, trainer in trained.items()}
rows["shipped, v"] = guided.sample(num=10, steps=32, seed=4)
title = f"32 DDIM steps, same noise · yours: {trainer.step} steps of training · shipped: {guided.trained_steps:,}"
show.image_rows(rows, title=title)


# %% [markdown]
# After a short run the ε-row may show pictures that never emerge from the noise: that network's first guesses are so far off that clipping no longer saves the walk.
#
# ## 11. How many steps are enough? Measure
# For each sampler and number of steps we drew as many digits as the reference has and measured the *kernel distance* of lesson 01 to real test digits (0 is perfect; below 0 is luck). The numbers come from results files that `python -m utils.sweep steps` made. Beside them stand the floor,
# real digits against other real digits, and noise as the control.

# %%
def read(name):
    return json.loads((ASSETS / "results" / f"{name}-steps.json").read_text())


# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.1), layout="constrained")
for ax, name in zip(axes, ("mnist-ddpm", "mnist-guided")):
    result = read(name)
    for sampler, line, color in (("ancestral", "^:", show.GREY), ("ddim", "o--", show.ORANGE), ("dpm++", "s-", show.BLUE)):
        points = sorted((row["steps"], row["kernel_distance"]) for row in result["rows"].values() if row.get("sampler") == sampler)
        ax.semilogx(*zip(*points), line, color=color, label=sampler)
    ax.axhline(result["rows"]["real held-out (floor)"]["kernel_distance"], color="black", linewidth=0.8, label="real digits (floor)")
    ax.set(title=f"{name}, n = {result['n']}", xlabel="steps")
axes[0].set_ylabel("kernel distance"), axes[0].legend(fontsize=8);


# %%
def line(rows, sampler, counts, key):
    cells = (f"{rows[f'{sampler} {count}'][key]:8.3f}" if f"{sampler} {count}" in rows else " " * 8 for count in counts)
    return f"  {sampler:10s}" + "".join(cells)


for name, keys in (("mnist-ddpm", ["kernel_distance"]), ("mnist-guided", ["kernel_distance", "digits", "variety"])):
    result = read(name)
    rows = result["rows"]
    counts = sorted({row["steps"] for row in rows.values() if "steps" in row})
    print(f"{name}, n = {result['n']}, {result['device']}, {result['precision']}")
    print(f"  {'steps':10s}" + "".join(f"{count:8d}" for count in counts))
    for key in keys:
        floor, noise = rows["real held-out (floor)"][key], rows["control: noise"][key]
        print(f"  {key}: real digits {floor:.3f}, noise {noise:.3f}")
        print("\n".join(line(rows, sampler, counts, key) for sampler in ("ancestral", "ddim", "dpm++")))

# %% [markdown]
# Mind the axes: past a few steps everything is near the floor. A few hundred digits cannot resolve differences of a few thousandths. Ancestral sampling, which draws new noise for every number of steps, makes another set of digits each time, and goes up and down: by some hundredths with 256 digits, by less with 512 (the intervals below say what can be resolved).
#
# (`digits` is the share read as the digit asked for, `variety` the variance of features within a digit, relative to real digits'; above 1 is no merit, as the noise shows. Look at DDIM with very few steps: long steps stay near the mean of the possible pictures, so digits become *clearer and more alike* than the network's own.
# Here that even brings `digits` and `variety` nearer to those of real digits: two errors, a network whose digits vary too much and steps that flatten them, happen to cancel. Four ancestral steps overshoot: they vary less than real digits. Lesson 03 does the same on purpose.)

# %% [markdown]
# **32 steps against 1000.** The two sets were made from the same first noise (and for the same digits), so they can be compared pair by pair, and a *bootstrap* (resample the pairs, with replacement, many times, and see where 95% of the differences lie) gives an interval for the difference of their distances: below zero, 32 steps are *better*.
# (DPM-Solver++ is compared with 1000 steps of DDIM: both solve the same equation. An interval that contains 0 does not prove that nothing was lost; its upper end says how much at most.)

# %%
print("kernel distance with 32 steps minus that with 1000 [95% interval], and what it costs at worst (100% = as bad as noise)\n")
for name in ("mnist-ddpm", "mnist-guided"):
    rows = read(name)["rows"]
    noise = rows["control: noise"]["kernel_distance"]
    for sampler in ("ancestral", "ddim", "dpm++"):
        gap = rows[f"{sampler} 32"]["to_1000_steps"]
        verdict = "worse" if gap["gap_low"] > 0 else "better" if gap["gap_high"] < 0 else "not told apart"
        print(f"{name:13s}{sampler:10s}{gap['gap']:+.4f} [{gap['gap_low']:+.4f}, {gap['gap_high']:+.4f}]   "
              f"{max(0, gap['gap_high']) / noise:.1%}   {verdict}")


# %% [markdown]
# (Measure it here, now? 64 digits, all that a CPU affords, cannot tell these samplers apart; even hundreds hardly can, as the intervals show. On a GPU, delete `assets/results/mnist-guided-steps.json`, and `python -m utils.sweep steps mnist-guided` makes it anew.)
#
# **One more tool: mending on the way.** After each DDIM step except the last, a **Langevin corrector** takes a small random walk *at the same noise level*, $z \leftarrow z - \frac{\delta}{2}\sigma\hat\epsilon + \sqrt{\delta}\,\sigma n$. As $-\sigma\hat\epsilon$ is $\sigma^2$ times the score, this is
# a step of $\delta\sigma^2/2$ uphill plus noise of variance $\delta\sigma^2$. For small $\delta$ such a walk leaves the distribution of noisy pictures at this level unchanged, and pulls a $z$ that does not belong there back towards it. It costs a second network call per step. (*Video Diffusion Models* uses it with $\delta = 0.1$; [lesson 08](08_reconstruction_guidance.ipynb) needs it.) Where the perfect guess is known, few points suffice to see what it does. **Predict, then run:** eight DDIM steps end beside the blobs.
# What does the corrector change, and what would the same number of calls do without it?

# %%
def corrected_walk(z, log_snrs, delta, sources):
    for k, (l_t, l_s) in enumerate(zip(log_snrs[:-1], log_snrs[1:])):
        z = ddim(z, perfect_x(z, l_t), l_t, l_s)
        if delta and k < len(log_snrs) - 2:
            alpha, sigma = alpha_sigma(l_s)
            eps_hat = (z - alpha * perfect_x(z, l_s)) / sigma
            noise = torch.stack([torch.randn(2, generator=source) for source in sources])
            z = z - delta / 2 * sigma * eps_hat + delta**0.5 * sigma * noise
    return z


# %%
crowd = torch.randn(2000, 2, dtype=torch.float64, generator=generator(15))
sources = lambda: [generator(16, number) for number in range(len(crowd))]       # one for each point, as the library wants them
settings = {"DDIM, 8 calls": (8, 0.0), "+ Langevin, δ = 0.1, 15 calls": (8, 0.1), "+ Langevin, δ = 1, 15 calls": (8, 1.0), "DDIM, 15 calls": (15, 0.0)}
ends = {name: corrected_walk(crowd, grid(steps), delta, sources()) for name, (steps, delta) in settings.items()}
*_, theirs = sample_loop(lambda z, l: perfect_x(z, l[0].double()), crowd, grid(8), sources(), langevin=0.1, clip=False)
figure, axes = plt.subplots(1, 4, figsize=(10, 3.2), layout="constrained", sharex=True, sharey=True)
for ax, (name, end) in zip(axes, ends.items()):
    ax.plot(*end.T, ".", color=show.ORANGE, markersize=1)
    ax.plot(*centres.T, "k+", markersize=9)
    ax.set(title=name.replace(", 15", ",\n15"), aspect="equal")

# %%
# NBVAL_CHECK_OUTPUT
print("equal to utils:", bool((ends["+ Langevin, δ = 0.1, 15 calls"] - theirs.z).abs().max() < 1e-4))

# %%
astray = {name: float((torch.cdist(end, centres).min(1).values > 3 * spread).double().mean()) for name, end in ends.items()}
print(f"more than three standard deviations from every centre (of the data: {math.exp(-4.5):.1%}):")
for name, share in astray.items():
    print(f"  {name:32s}{share:6.1%}")
plain, small, large, longer = astray.values()
assert small < plain and max(large, longer) < small


# %% [markdown]
# It does mend: a small $\delta$ a little, a large one a lot. But with $\delta = 0.1$ the calls would be better spent on more DDIM steps, and $\delta = 1$ does only about as well as those.

# %% [markdown]
# ## 12. Break it
# First in the plane, where every mistake shows: twelve steps of DPM-Solver++ with one line changed. The grid is uniform in $t$ and ends at $\lambda = 20$. **Predict each picture before you run the cell.**

# %%
def broken_walk(z, change, steps=12):
    log_snrs, memory = cosine_log_snr(torch.linspace(1, 0, steps + 1, dtype=torch.float64)), None
    for k, (l_t, l_s) in enumerate(zip(log_snrs[:-1], log_snrs[1:])):
        x_hat = perfect_x(z, l_t + 3 if change == "told a cleaner level" else l_t)
        first_order = k == steps - 1 and change != "last step of 2nd order"
        if change == "λ taken for h":
            z = alpha_sigma(l_s)[1] / alpha_sigma(l_t)[1] * z - alpha_sigma(l_s)[0] * torch.expm1(l_t - l_s) * x_hat
        else:
            z = dpm(z, x_hat, l_t, l_s, None if first_order else memory)
        memory = x_hat, l_t
    return z


# %%
many = torch.randn(300, 2, dtype=torch.float64, generator=generator(10))
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained", sharex=True, sharey=True)
for ax, change in zip(axes, ("nothing", "told a cleaner level", "λ taken for h", "last step of 2nd order")):
    ax.plot(*broken_walk(many, change).clamp(-2.4, 2.4).T, ".", color=show.ORANGE, markersize=2)
    ax.plot(*centres.T, "k+", markersize=9)
    ax.set(title=change, aspect="equal")


# %% [markdown]
# And on digits, where clipping to $[-1, 1]$ hides some mistakes and shows others:

# %%
def broken_digits(change, steps={"smoke": 6}.get(BUDGET, 16)):
    schedule, g = CosineSchedule(), generator(12)
    log_snrs, z = schedule.log_snr(schedule.times(steps)), torch.randn(10, 1, 1, 28, 28, generator=generator(11)).to(DEVICE)
    noise = lambda: torch.randn(z.shape, generator=g).to(z)
    for l_t, l_s in zip(log_snrs[:-1], log_snrs[1:]):
        told = torch.full((10,), float(l_t) + {"told a cleaner level": 2.0, "told a noisier level": -2.0}.get(change, 0.0))
        with torch.no_grad():
            x_hat = guided.predict_x(z, told.to(DEVICE), condition).clamp(-1, 1)
        z = ddim(z, x_hat, l_t, l_s).float()
        if change == "too much fresh noise":
            z = z + 0.3 * float(alpha_sigma(l_s)[1]) * noise()
    return to_picture(z.cpu())


# %%
condition = guided.encode(labels=torch.arange(10))
changes = ("nothing", "told a cleaner level", "told a noisier level", "too much fresh noise")
rows = {change: broken_digits(change) for change in changes}
show.image_rows(rows, [str(d) for d in range(10)], "shipped mnist-guided, DDIM, each digit asked for")


# %% [markdown]
# | if it looks like this | then |
# |---|---|
# | thin, fading strokes; fine with many steps | ancestral steps that are too long: DDIM or DPM-Solver++ |
# | grain, or noise to the end | the network is told a cleaner level than z has (an index in place of the log-SNR, or the level of another schedule), or noise is added that the step does not account for |
# | soft strokes in simple shapes | the network is told a noisier level than z has |
# | points beside the blobs; on pictures, harder strokes at most | the full log-SNR taken for its half $h$, or a second-order last step into $\lambda = 20$: clipping hides it |
# | the whole batch too grey or too bright | the schedule does not end in noise |
# | loss as usual, samples with ragged strokes and specks (DDIM), or hardly worse (ancestral) | the sampler converts the wrong thing: v trained, ε assumed (without clipping: noise) |
# | the loss of one recipe is a tenth of another's | nothing: their weights differ; compare errors of the picture, or samples |

# %% [markdown]
# ## 13. Faithful? The box
#
# | the paper says | we do | why |
# |---|---|---|
# | DDIM (2010.02502): any subset of the 1000 training steps, η from 0 to 1 | the same, `sampler="ddim"`, `eta`; "trailing" steps, the last one included | without it, sampling starts from less than pure noise (section 9) |
# | DPM-Solver++ (2211.01095): several orders, singlestep and multistep, thresholding | the second-order multistep form, clipping to [−1, 1], first-order last step | it is the form in common use; clipping pixels needs no quantile |
# | v-prediction (2202.00512) with progressive distillation | v-prediction; distillation as exercise 4 | one idea a lesson |
# | *Variational Diffusion Models* (2107.00630) learns the schedule | fixed schedules | in the bound, the shape between the two ends changes only the variance; in our loss it is a weight (section 3) |
# | rectified flow (2209.03003): "reflow" straightens the walks by training again | the schedule, the prediction and the sampler | reflow needs a second training |
# | Improved DDPM (2102.09672) also learns variances | the schedule alone | DDIM needs no variances |
#
# ## 14. Exercises
# Each has a stub that runs as it is, and folded below it a check, a hint and a solution. An untouched stub lets a reference answer take over; a wrong answer is shown as wrong.
#
# ### Exercise 1 · The noise in v (difficulty ●○○, importance ●●●, 5 minutes)
# Given $z$ and $\hat v$, return $\hat\epsilon$, without dividing by anything.

# %%
def noise_from_v(z, v, alpha, sigma):
    """z, v (B, ...), alpha, sigma numbers with alpha^2 + sigma^2 = 1 -> eps_hat (B, ...)."""
    return ...  # your line here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_noise(z, v, alpha, sigma):
    return sigma * z + alpha * v


z, v = torch.randn(2, 4, 3, generator=generator(13))
noise_from_v = check("exercise 1", noise_from_v, reference_noise, (z, v, 0.6, 0.8), (z, v, 1.0, 0.0), (z, v, 0.0, 1.0))


# %% [markdown]
# <details><summary>Hint</summary>(z, v) is (x, ε) turned by an angle whose cosine is α: turn it back.</details>
# <details><summary>Solution</summary>
#
# ```python
# return sigma * z + alpha * v
# ```
# Insert $z = \alpha x + \sigma\epsilon$ and $v = \alpha\epsilon - \sigma x$: $\sigma\alpha x + \sigma^2\epsilon + \alpha^2\epsilon - \alpha\sigma x = \epsilon$.
# </details>
#
# ### Exercise 2 · Min-SNR (difficulty ●●○, importance ●●○, 5 minutes)
# Min-SNR weighting (Hang et al. 2023) wants each level weighted by $\min(\mathrm{SNR}, 5)$ *on the picture's squared error*. By what must the squared error of $v$ be multiplied?

# %%
def min_snr_weight_of_v(log_snr):
    """(N,) log-SNR -> (N,) weights."""
    return ...  # your line here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_min_snr(log_snr):
    snr = log_snr.exp()
    return snr.clamp(max=5) / (snr + 1)


min_snr_weight_of_v = check("exercise 2", min_snr_weight_of_v, reference_min_snr, (torch.linspace(-6, 6, 7, dtype=torch.float64),))


# %% [markdown]
# <details><summary>Hint</summary>Section 7's table: an error e of v is an error σe of the picture. And σ² = 1/(1 + SNR).</details>
# <details><summary>Solution</summary>
#
# ```python
# snr = log_snr.exp()
# return snr.clamp(max=5) / (snr + 1)
# ```
# </details>
#
# ### Exercise 3 · From log-SNR back to time (difficulty ●●○, importance ●●○, 10 minutes)
# Invert the continuous cosine schedule: at which $t$ is the log-SNR $\lambda$, for any two ends `low` and `high`?

# %%
def time_of(log_snr, low=-20.0, high=20.0):
    """(N,) float64 log-SNR in [low, high] -> (N,) times."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_time(log_snr, low=-20.0, high=20.0):
    b = math.atan(math.exp(-high / 2))
    a = math.atan(math.exp(-low / 2)) - b
    return (torch.atan(torch.exp(-log_snr / 2)) - b) / a


time_of = check("exercise 3", time_of, reference_time, (torch.tensor([-20.0, -3.0, 0.0, 5.0, 20.0], dtype=torch.float64),),
                (torch.tensor([-6.0, -3.0, 0.0, 5.0, 10.0], dtype=torch.float64), -6.0, 10.0))
print(f"half signal, half noise at t = {float(time_of(torch.zeros(1, dtype=torch.float64))):.3f}")


# %% [markdown]
# <details><summary>Hint</summary>Solve λ = −2 log tan(a t + b) for t, from the outside in.</details>
# <details><summary>Solution</summary>
#
# ```python
# b = math.atan(math.exp(-high / 2))
# a = math.atan(math.exp(-low / 2)) - b
# return (torch.atan(torch.exp(-log_snr / 2)) - b) / a
# ```
# </details>
#
# ### Exercise 4 · Two steps in one (difficulty ●●●, importance ●○○, 15 minutes)
# *Progressive distillation* trains a student to do in one DDIM step what its teacher does in two. The teacher went from $z_t$ to $z_s$. Which $\hat x$ must the student say at $t$ so that one DDIM step lands on $z_s$?

# %%
def student_target(z_t, z_s, log_snr_t, log_snr_s):
    """z_t, z_s (B, ...); two numbers (0-dimensional float64 tensors) -> x (B, ...)."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_target(z_t, z_s, log_snr_t, log_snr_s):
    (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(log_snr_t), alpha_sigma(log_snr_s)
    return (z_s - sigma_s / sigma_t * z_t) / (alpha_s - sigma_s / sigma_t * alpha_t)


z_t, z_s, (t, middle, s) = *torch.randn(2, 4, 3, generator=generator(14)), torch.tensor([-3.0, -1.0, 1.0], dtype=torch.float64)
student_target = check("exercise 4", student_target, reference_target, (z_t, z_s, t, s), (z_t, z_s, middle, s))

# %%
two = walk(start, torch.stack([t, middle, s]))
landed = ddim(start, student_target(two[0], two[2], t, s), t, s)
print("one step of the student lands where two of the teacher did:", torch.allclose(landed, two[2]))

# %% [markdown]
# <details><summary>Hint</summary>Write the DDIM step as z_s = A z_t + B x and solve for x.</details>
# <details><summary>Solution</summary>
#
# ```python
# (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(log_snr_t), alpha_sigma(log_snr_s)
# return (z_s - sigma_s / sigma_t * z_t) / (alpha_s - sigma_s / sigma_t * alpha_t)
# ```
# </details>

# %% [markdown]
# ## 15. Play
# Choose sampler, steps and seed; the same seed gives the same first noise. (The widget needs a running kernel; section 1 shows four settings as stills.)

# %%
import ipywidgets as widgets
from IPython.display import display


def draw(sampler, steps, seed):
    images = guided.sample(labels=torch.arange(10), sampler=sampler, steps=steps, seed=seed)
    display(show.image_grid(images, title=f"{sampler}, {steps} steps"))


widgets.interact_manual(draw, sampler=["dpm++", "ddim", "ancestral"], steps=widgets.IntSlider(value=8, min=1, max=64),
                        seed=widgets.IntSlider(value=0, min=0, max=20));

# %% [markdown]
# ## 16. Quiz
# 1. A colleague trained with the cosine schedule and wants to sample with the linear one. What must the network be told, and what may go wrong?
# 2. Two papers report losses of 0.02 and 0.10 on the same data. Which model is better?
# 3. Why can DPM-Solver++ take longer steps than DDIM although it calls the network just as often?
# 4. How could the fresh noise of ancestral sampling help? And what would you need to show, on digits, that it does?
# 5. Where would you look first if a video model gets textures right and layout wrong?
#
# <details><summary>Answers</summary>
#
# 1. The log-SNR of each z; nothing else. Here no level is outside the trained range. The other way round (trained with the linear schedule, sampled with the cosine), the ends would be.
# 2. Nobody knows: the loss depends on prediction, weighting and schedule. Compare pictures' errors level by level, or samples.
# 3. It uses the previous guess to tell where the guess is going: its error is of second order in the step, not first.
# 4. A deterministic walk keeps every mistake that the network made early. Fresh noise forgets some of them, and the network mends the rest; section 11's corrector does that on purpose, and in the plane it shows. On digits you would need the same network with as many calls, several seeds, and intervals of the difference that exclude 0, so far more digits than section 11's table has; and digits and variety must not pay for it.
# 5. At the weight of strong noise: schedule, loss weighting, whether the schedule ends in noise. Layout is decided there.
# </details>
#
# ## What was shown, and what was not
# Shown: schedules are curves of one number; the bound does not depend on them; v with a cosine and rectified flow are one loss; DDIM and DPM-Solver++ equal to the library's and of first and second order against a perfect network; how many steps digits need, with floor, control and interval.
# Not shown: that as many steps are enough for video (lesson 06 uses 32), and how to ask for a digit ([lesson 03](03_guidance.ipynb), next).
#
# ## Readings
# - Kingma, Salimans, Poole, Ho, *Variational Diffusion Models*, 2021 (arXiv 2107.00630): the bound in the clock λ; and Kingma, Gao, *Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation*, 2023 (arXiv 2303.00848): every loss as one weight, section 3 of this lesson.
# - Salimans, Ho, *Progressive Distillation*, 2022 (arXiv 2202.00512): v-prediction, section 4 and appendix D.
# - Song, Meng, Ermon, *Denoising Diffusion Implicit Models*, 2021 (arXiv 2010.02502) and Lu et al., *DPM-Solver++*, 2022 (arXiv 2211.01095): the two samplers.
# - Yang Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations*, 2021 (arXiv 2011.13456): the probability flow. Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, 2022 (arXiv 2206.00364): the same freedom in other coordinates.
# - Liu, Gong, Liu, *Flow Straight and Fast*, 2022 (arXiv 2209.03003) and Lipman et al., *Flow Matching*, 2022 (arXiv 2210.02747): section 8 from their side.
# - Lin, Liu, Li, Yang, *Common Diffusion Noise Schedules and Sample Steps are Flawed*, 2023 (arXiv 2305.08891): section 9.
