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
# # 03 · Guidance
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/video-diffusion-lessons/video-diffusion-lessons/blob/main/lessons/03_guidance.ipynb)
#
# ![Ten digits, each asked for, while the guidance scale rises from 0 to 8](../assets/figures/03_guidance.gif)
#
# *Shipped weights `mnist-guided`, none rejected.*
#
# **Claim: a network that was sometimes not told what to draw can be made to obey better than it learnt to. One dial trades variety for obedience, and both can be measured.**
# Every text-to-image and text-to-video model has this dial.
#
# You will be able to
# - tell a network what to draw, by class or by caption, and train it so that it can also do without;
# - derive guidance from Bayes' rule, write it in one line, and find the classifier that hides in the network;
# - choose a guidance scale from measured accuracy, variety and distance instead of by taste;
# - recognise what a wrong null condition, or a dial turned too far, looks like.
#
# | reading | exercises | machine: T4 (estimate) / two CPU cores |
# |---|---|---|
# | 30 minutes | 25 minutes | 5 / 4 minutes |
#
# **The series:** [01 DDPM](01_ddpm_on_mnist.ipynb) → [02 schedules and fast samplers](02_fast_samplers.ipynb) → **03 guidance (you are here)** → [04 Moving MNIST](04_moving_mnist.ipynb) → [05 the factorized 3D U-Net](05_factorized_unet.ipynb) →
# [06 Video Diffusion Models](06_video_diffusion_models.ipynb) → [07 joint training](07_joint_training.ipynb) → [08 reconstruction guidance](08_reconstruction_guidance.ipynb) → [09 pseudo-3D layers](09_pseudo_3d_layers.ipynb) →
# [10 Make-A-Video](10_make_a_video.ipynb) → [11 frame interpolation](11_frame_interpolation.ipynb) → [12 super-resolution](12_super_resolution.ipynb) → [13 scaling up](13_scaling_up.ipynb). This lesson rests on
# [the loss](01_ddpm_on_mnist.ipynb#4.-Where-the-loss-comes-from) of lesson 01 and on [v-prediction](02_fast_samplers.ipynb#7.-What-should-the-network-say?-ε,-x-or-v),
# [DDIM](02_fast_samplers.ipynb#5.-DDIM:-keep-the-noise-that-you-found) and [the score](02_fast_samplers.ipynb#4.-A-world-where-the-perfect-network-is-known) of lesson 02. Symbols: [glossary](glossary.md).

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
import torch.nn.functional as F
from torch import nn
from utils import load_pretrained, show
from utils.captions import CaptionError, tokenize
from utils.data import MNIST
from utils.exercises import check
from utils.metrics import digit_features, kernel_distance, kernel_distance_gap, named, variety
from utils.recipes import recipe
from utils.runtime import ASSETS, budget, generator, pick_device
from utils.schedule import CosineSchedule, alpha_sigma
from utils.train import Trainer

BUDGET, DEVICE = budget(), pick_device()
STEPS = {"smoke": 4}.get(BUDGET, 32)                        # denoising steps
NUMBER = {"smoke": 40, "cpu": 80}.get(BUDGET, 500)          # pictures behind a number that is measured live
ten = torch.arange(10)

# %% [markdown]
# ## 1. The dial, first
# One network, one starting noise per column, a digit asked for in each column. Only the **guidance scale** $g$ differs from row to row. *(Weights: shipped, `mnist-guided`.)*

# %%
model = load_pretrained("mnist-guided", device=DEVICE, amp="auto")
rows = {f"g = {g:g}": model.sample(labels=ten, guidance_scale=g, steps=STEPS, seed=1) for g in (0.0, 1.0, 2.0, 4.0, 8.0)}
show.image_rows(rows, [f'"{digit}"' for digit in range(10)], "asked for 0 to 9")


# %% [markdown]
# The row $g = 1$ is the naive way: train with the digit's name, sample with it. **Its failure:** hesitant strokes, specks, now and then a digit that could be another. Section 7 counts them beside real digits.
#
# **Predict, then read on.** In the first row the network ignores the question. What changes from $g = 1$ to $g = 8$, besides obedience?
#
# <details><summary>Answer</summary>
#
# The digits become cleaner and more alike: *unmistakable*. An unusual but correct 7 is given up, because it could be taken for something else. Section 7 measures what that costs.
# </details>
#
# ## 2. Telling the network what to draw
# **Naive, and right:** a table with one learnt vector per class, added to the vector that tells the noise level. Every residual block receives the sum, as it received the noise level in lesson 01.
#
# | piece | shape |
# |---|---|
# | noise level embedding | (B,) → (B, 128) |
# | class table, one row per digit | (B,) → (B, 128) |
# | their sum, added in each block | (B, 128) |

# %%
class ClassTable(nn.Module):
    """(B,) labels -> (B, 128): the condition."""
    def __init__(self, classes=10, dim=128):
        super().__init__()
        self.rows = nn.Embedding(classes, dim)

    def forward(self, labels):
        return self.rows(labels)


# %% [markdown]
# **Its failure:** a table needs a row for each thing that can be asked. For videos we shall ask for "3 moving left and 7 moving up right": ten digits and eight directions, twice, make $80^2 = 6400$ rows, and three digits 512,000.
#
# **The fix:** a *text encoder*, which reads words and returns a vector of the same size: two small transformer layers over a vocabulary of sixteen words (`utils/captions.py`). For one-word captions the two are the same thing, and we can prove it: copy the encoder's ten outputs into a table and use the table instead.

# %%
# NBVAL_CHECK_OUTPUT
table = ClassTable().to(DEVICE)
with torch.no_grad():
    table.rows.weight.copy_(model.encode([str(digit) for digit in range(10)]))
    z, level = torch.randn(4, 1, 1, 28, 28, generator=generator(0)).to(DEVICE), torch.zeros(4).to(DEVICE)
    by_table = model.net(z, level, table(torch.tensor([3, 1, 4, 1]).to(DEVICE)))
    by_caption = model.net(z, level, model.encode(["three", "1", "four", "one"]))
    print("table = captions:", torch.allclose(by_table, by_caption, atol=1e-5))
    print("labels = captions:", torch.equal(model.encode(labels=[3, 1]), model.encode(["3", "one"])))

# %% [markdown]
# Nobody told the encoder which digits look alike. **Predict, then run:** which pairs of the ten vectors point in similar directions? (1: the same direction; 0: unrelated; the mean of the ten is subtracted first.)
#
# <details><summary>Answer</summary>
#
# The most alike are pairs that people confuse too, but even they are only slightly alike. (Below 0 is no surprise by itself: without their mean, ten vectors of about equal length have cosine −1/9 on average.) The strongest cells of all are below 0: conditions that point apart. The picture does not say why it is these pairs.
# </details>

# %%
vectors = F.normalize(table.rows.weight.detach().cpu() - table.rows.weight.detach().cpu().mean(0), dim=1)
alike = vectors @ vectors.T
pairs = sorted(((float(alike[i, j]), i, j) for i in range(10) for j in range(i)), reverse=True)
for name, some in (("most alike: ", pairs[:4]), ("least alike:", pairs[:-5:-1])):
    print(name, ", ".join(f"{j} and {i} ({value:.2f})" for value, i, j in some))
print(f"mean of all pairs: {sum(value for value, *_ in pairs) / len(pairs):.2f}")
assert max(abs(value) for value, *_ in pairs) < 0.6 and -pairs[-1][0] > pairs[0][0]
plt.figure(figsize=(4.2, 3.6), layout="constrained")
plt.imshow(alike.fill_diagonal_(math.nan), cmap=plt.get_cmap("RdBu_r", 12), vmin=-0.6, vmax=0.6)     # each with itself is 1: left out
plt.xticks(range(10)), plt.yticks(range(10)), plt.colorbar(label="cosine"), plt.title("conditions, centred"), plt.gca().set_facecolor("lightgrey");


# %% [markdown]
# ## 3. Training it to do without
# We shall need two predictions, with the question and without. Two networks? No: **drop the question** for one training picture in ten, and put a *null condition* in its place, here simply zero. The same network learns both. That is the whole
# change to the training loss (Ho and Salimans 2022, algorithm 1):

# %%
def loss_with_dropping(net, x, captions, t, keep, eps):
    """x, eps (B, 1, 1, 28, 28); t (B,) times; keep (B,) 1 or 0 -> loss. The network says v."""
    log_snr = CosineSchedule().log_snr(t)
    alpha, sigma = (k.view(-1, 1, 1, 1, 1).to(x) for k in alpha_sigma(log_snr))
    z = alpha * x + sigma * eps
    cond = net.encode(tokenize(captions).to(x.device)) * keep[:, None]       # the null condition is zero
    return (net(z, log_snr.float().to(x.device), cond) - (alpha * eps - sigma * x)).square().mean()


# %% [markdown]
# Is it equal to the loss of `utils.train` when both use the same random numbers?

# %%
# NBVAL_CHECK_OUTPUT
trainer = Trainer(recipe("mnist-guided"), recipe("mnist-guided").budget(BUDGET), device=DEVICE, amp="off")
size, numbers = trainer.budget.batch_size, generator(0, 0, 1)                # (seed, step, stream), as the trainer numbers them
batch, t = trainer.data.sample(size, index=0), CosineSchedule().sample_t(size, numbers)
keep = (torch.rand(size, generator=numbers) >= 0.1).float().to(DEVICE)
eps = torch.randn(batch.video.shape, generator=generator(0, 0, 2, device=DEVICE), device=DEVICE)
with torch.no_grad():
    mine, theirs = loss_with_dropping(trainer.net, batch.video, batch.captions, t, keep, eps), trainer.loss(0)
print("equal to utils:", torch.allclose(mine, theirs, rtol=1e-4))

# %% [markdown]
# ## 4. Where guidance comes from
# Bayes' rule, for the noisy picture $z$ and the question $c$: $\log q(z \mid c) = \log q(z) + \log q(c \mid z) - \log q(c)$. Take the gradient in $z$; the last term vanishes. Lesson 02 showed $\hat\epsilon = -\sigma\nabla_z\log q$, so
#
# $$\underbrace{\hat\epsilon_c - \hat\epsilon_\varnothing}_{\text{two predictions of our network}} = -\sigma\,\nabla_z \log q(c \mid z) .$$
#
# **The difference of the two predictions is the gradient of a classifier** that nobody trained. Guidance follows it further than the truth would, $g$ times as far:
#
# $$\boxed{\;\hat\epsilon = \hat\epsilon_\varnothing + g\,(\hat\epsilon_c - \hat\epsilon_\varnothing)\;}$$
#
# $g = 0$ ignores the question, $g = 1$ is the conditional model as trained, $g > 1$ exaggerates. (Papers often write $w = g - 1$.) In lesson 02's world of perfect guesses all of this can be checked, now with three classes: wide blobs that overlap.

# %%
centres, spread = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.6]], dtype=torch.float64), 0.7


def log_joint(z, log_snr):
    """log q(z, c) up to a constant, (N, 2) -> (N, 3)."""
    alpha, sigma = alpha_sigma(log_snr)
    return -(z[:, None] - alpha * centres).square().sum(-1) / (2 * (alpha**2 * spread**2 + sigma**2))


def perfect_eps(z, log_snr, c=None):
    """The best guess of the noise: of class c, or of all three. (N, 2) -> (N, 2)."""
    alpha, sigma = alpha_sigma(log_snr)
    share = log_joint(z, log_snr).softmax(1) if c is None else F.one_hot(torch.full((len(z),), c), 3).double()
    return sigma * (share[:, :, None] * (z[:, None] - alpha * centres)).sum(1) / (alpha**2 * spread**2 + sigma**2)


# %%
# NBVAL_CHECK_OUTPUT
z = torch.randn(6, 2, dtype=torch.float64, generator=generator(1)).requires_grad_()
level = torch.tensor(0.3, dtype=torch.float64)
gradient, = torch.autograd.grad(log_joint(z, level).log_softmax(1)[:, 2].sum(), z)
difference = perfect_eps(z, level, 2) - perfect_eps(z, level)
print("difference of predictions = -sigma x gradient of log q(c | z):", torch.allclose(difference, -alpha_sigma(level)[1] * gradient))


# %% [markdown]
# **Predict, then run:** ask for the class on the left, with $g = 1, 2, 4, 8$ and perfect predictions. Where do the points go, and how wide is their cloud?

# %%
def guided_walk(g, c=0, num=400, steps=100):
    z = torch.randn(num, 2, dtype=torch.float64, generator=generator(2))
    log_snrs = torch.linspace(-10, 10, steps + 1, dtype=torch.float64)
    for l_t, l_s in zip(log_snrs[:-1], log_snrs[1:]):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(l_t), alpha_sigma(l_s)
        null = perfect_eps(z, l_t)
        eps_hat = null + g * (perfect_eps(z, l_t, c) - null)
        z = alpha_s * (z - sigma_t * eps_hat) / alpha_t + sigma_s * eps_hat
    return z


# %%
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained", sharex=True, sharey=True)
clouds = {g: guided_walk(g) for g in (1.0, 2.0, 4.0, 8.0)}
for ax, (g, cloud) in zip(axes, clouds.items()):
    ax.plot(*cloud.T, ".", color=show.BLUE, markersize=2)
    ax.plot(*centres.T, "k+", markersize=10)
    ax.set(title=f"g = {g:g}: spread {float(cloud.std(0).mean()):.2f}", aspect="equal")

# %%
# NBVAL_CHECK_OUTPUT
off, wide = (clouds[1.0].mean(0) - centres[0]).abs().max(), (clouds[1.0].std(0) - spread).abs().max()
spreads, away = [float(cloud.std(0).mean()) for cloud in clouds.values()], [float(cloud.mean(0)[0]) for cloud in clouds.values()]
print("g = 1 draws the class as it is:", bool(off < 0.12 and wide < 0.07))
print("every turn of the dial takes spread away:", spreads == sorted(spreads, reverse=True))
print("and moves the cloud away from the other classes:", away == sorted(away, reverse=True))


# %% [markdown]
# Even with perfect predictions, $g > 1$ does not draw from the data. It leans towards what cannot be mistaken for another class, in the end towards places where the class itself has almost no data: see where the left class's cross is at $g = 8$.
#
# ## 5. The classifier that hides in the network
# Lesson 02 found that, up to a constant, the model's $\log p_\theta(x \mid c)$ is at least $-\frac12\, \mathbb E \int \|\epsilon - \hat\epsilon_c\|^2 d\lambda$. Treat the bound as the value. All digits are about equally frequent, so the $c$ with the smallest error is the most probable one: noise a digit, ask the network to remove the
# noise *as if it were a 0, a 1, ... a 9*, and see which assumption explains it best. Four noise levels stand in for the integral. **Predict, then run:** what share of real test digits does it get right? (Guessing gets one in ten. The control shifts the questions by one, so that "0" stands for 1: it must fail.)

# %%
@torch.no_grad()
def denoising_errors(x, conditions, levels=(-2.0, -1.0, 0.0, 1.0)):
    """x (N, 1, 1, 28, 28), conditions (K, 128) -> (N, K) squared errors of the believed picture, the same noise for all K."""
    errors = torch.zeros(len(x), len(conditions))
    for number, level in enumerate(levels):
        alpha, sigma = alpha_sigma(torch.tensor(level))
        z = (alpha * x + sigma * torch.randn(x.shape, generator=generator(3, number))).float().to(DEVICE)
        for k, condition in enumerate(conditions):
            believed = model.predict_x(z, torch.full((len(x),), level).to(DEVICE), condition.expand(len(x), -1))
            errors[:, k] += (believed.cpu() - x).square().sum((1, 2, 3, 4)) * math.exp(level)   # SNR |dx|^2 = |d eps|^2
    return errors


# %%
some = MNIST("test", seed=4).sample({"smoke": 10}.get(BUDGET, min(NUMBER, 200)))
errors = denoising_errors(some.video, table.rows.weight)
right = errors.argmin(1) == some.labels[:, 0]
shifted = denoising_errors(some.video, table.rows.weight.roll(-1, 0)).argmin(1) == some.labels[:, 0]
print(f"{int(right.sum())} of {len(right)} right; control, questions shifted by one: {int(shifted.sum())} of {len(right)}")


# %% [markdown]
# Nothing was trained for this (Li et al. 2023 call it *your diffusion model is secretly a zero-shot classifier*).
#
# ## 6. The dial on digits
# We guide whatever the network says: ε, x and v are linear in each other, so guiding one is guiding all (until something is clipped). Both predictions are made in one batch.

# %%
def guided_v(z, log_snr, cond, g):
    """z (B, ...), log_snr (B,), cond (B, 128) -> guided v, in the shape of z."""
    both = model.net(torch.cat([z, z]), torch.cat([log_snr, log_snr]), torch.cat([cond, torch.zeros_like(cond)]))
    v_c, v_null = both.chunk(2)
    return v_null + g * (v_c - v_null)


# %%
# NBVAL_CHECK_OUTPUT
from utils.samplers import guided_denoiser
z, level = torch.randn(4, 1, 1, 28, 28, generator=generator(5)).to(DEVICE), torch.linspace(-4, 4, 4).to(DEVICE)
cond = model.encode(labels=[1, 2, 3, 4])
alpha, sigma = (k.view(-1, 1, 1, 1, 1).to(z) for k in alpha_sigma(level))
with torch.no_grad():
    for g in (0.0, 1.0, 5.0):
        x_hat = alpha * z - sigma * guided_v(z, level, cond, g)
        print(f"g = {g:g}: equal to utils: {torch.allclose(x_hat, guided_denoiser(model.net, cond, g, 'v')(z, level), atol=1e-4)}")

# %% [markdown]
# **At which noise level does the question matter?** A real 4 is noised to six levels. What does the network believe when told "4", told nothing, told "9"; and what is the difference that guidance multiplies? **Predict, then run.** (In the last row, grey means no difference.)

# %%
batch = MNIST("test", seed=6).sample(64)
four = batch.video[[int((batch.labels[:, 0] == 4).nonzero()[0])]]
levels = torch.tensor([-8.0, -5.0, -3.0, -1.0, 1.0, 3.0])
alpha, sigma = (k.view(-1, 1, 1, 1, 1).float() for k in alpha_sigma(levels))
noisy = alpha * four + sigma * torch.randn(1, 1, 1, 28, 28, generator=generator(7))
with torch.no_grad():
    told = {name: model.predict_x(noisy.to(DEVICE), levels.to(DEVICE), cond).cpu() for name, cond in (
        ('told "4"', model.encode(["4"] * 6)), ("told nothing", model.encode(num=6)), ('told "9"', model.encode(["9"] * 6)))}
pictures = {"noisy": noisy, **told, '"4" - nothing': told['told "4"'] - told["told nothing"]}
names = [f"λ = {level:g}" for level in levels]
show.image_rows({name: (p.clamp(-1, 1) + 1) / 2 for name, p in pictures.items()}, names, "beliefs about a real 4")

# %%
size = (told['told "4"'] - told["told nothing"]).square().mean((1, 2, 3, 4)).sqrt()
print("RMS difference by log-SNR: ", "   ".join(f"{level:g}: {value:.3f}" for level, value in zip(levels.tolist(), size.tolist())))

# %% [markdown]
# The question decides in strong noise, where nothing else is known; in weak noise the picture speaks for itself, whatever the network is told, and the difference vanishes. (Exercise 2 uses the second point.)
#
# ## 7. What the dial costs: three numbers
# The numbers come from a results file, made by `python -m utils.sweep guidance`.
#
# - **Obedience:** the share that the frozen classifier reads as the digit asked for. Beside it stands the classifier's own score on *real* digits; beating that is no merit.
# - **Variety:** the variance of a digit's features within its class, relative to real digits': 1 is as varied as real. More is no merit either, as the noise row shows.
# - **Kernel distance:** do all samples together look like all real digits? It does not know what was asked, so it does not punish disobedience. (That $g = 0$ is off nevertheless suggests that the prediction without a caption, trained on one picture in ten, is the weaker one.)

# %%
result = json.loads((ASSETS / "results" / "mnist-guided-guidance.json").read_text())
r = recipe("mnist-guided")
print(f"mnist-guided, n = {result['n']}, {r.sampling_steps} steps ({r.sampler}), {result['device']}, {result['precision']}\n")
print(f"{'':26s}{'read as asked':>22s}{'variety':>10s}{'kernel distance':>18s}")
for name, row in result["rows"].items():
    read = f"{row['digits']:.1%} [{row['digits_low']:.1%}, {row['digits_high']:.1%}]"
    print(f"{name:26s}{read:>22s}{row['variety']:10.2f}{row['kernel_distance']:18.3f}")

# %%
points = sorted((row["guidance_scale"], row) for row in result["rows"].values() if "guidance_scale" in row and not row["rescale"])
scales, floor = [g for g, _ in points], result["rows"]["real held-out (floor)"]
figure, axes = plt.subplots(1, 3, figsize=(10, 2.7), layout="constrained")
for ax, key, title in zip(axes, ("digits", "variety", "kernel_distance"), ("read as asked", "variety (real = 1)", "kernel distance")):
    ax.plot(scales, [row[key] for _, row in points], "o-", color=show.BLUE)
    ax.axhline(floor[key], color="black", linewidth=0.8, label="real digits")
    ax.set(xlabel="guidance scale g", title=title)
axes[0].legend(fontsize=8);

# %%
for key, name in (("variety", "variety falls below"), ("digits", "obedience rises above")):
    side = [(row[key] > floor[key]) for _, row in points]
    k = next(k for k in range(1, len(side)) if side[k] != side[k - 1])
    print(f"{name} that of real digits between g = {scales[k - 1]:g} and {scales[k]:g}")
    assert k == 2 and side[k:] == [key == "digits"] * (len(side) - k)              # the text below says so

# %% [markdown]
# The same, measured here and now with fewer digits (all rows share one reference set, so its luck affects each distance: compare with the row of real digits, not with 0). Rows share their noise and their questions, so each can be compared with $g = 1$ pair by pair, as in lesson 02; the last column is the 95% interval of the difference.

# %%
real = MNIST("test", seed=8).sample(NUMBER)
labels, features = real.labels[:, 0], digit_features((real.video + 1) / 2)
reference = digit_features((MNIST("test", seed=9).sample(NUMBER).video + 1) / 2)
drawn = {g: model.sample(labels=labels, guidance_scale=g, steps=STEPS, seed=8) for g in (0.0, 1.0, 1.5, 6.0)}
found = {g: digit_features(images) for g, images in drawn.items()}

# %%
print(f"n = {NUMBER}, {STEPS} steps   read as asked   variety   kernel distance   minus that of g = 1")
print(f"{'real digits':22s}{named((real.video + 1) / 2, labels)['digits']:12.0%}{1:13.2f}{kernel_distance(features, reference):15.3f}")
for g, images in drawn.items():
    share = variety(found[g], labels) / variety(features, labels)
    gap = kernel_distance_gap(found[g], found[1.0], reference)
    between = "" if g == 1 else f"{gap['gap_low']:+14.3f} to {gap['gap_high']:+.3f}"
    print(f"{f'guidance {g:g}':22s}{named(images, labels)['digits']:12.0%}{share:13.2f}{kernel_distance(found[g], reference):15.3f}{between}")

# %% [markdown]
# Read the three curves together. Real people write ambiguous digits; guidance refuses to, and so can score higher than reality. (At $g = 0$ "variety" within the digits asked for is the variety of all digits together, as the question is ignored.) The most useful lines are the two printed under the curves:
# between $g = 1$ and $1.5$ variety falls to that of real digits, and obedience rises to theirs. About there the samples are like the data; beyond, they are tidier. The distance does not contradict this: in the table it grows from $g = 1$ on. But neighbours there may be tied: an interval in the last column that contains 0 cannot tell its $g$ from 1.
#
# *Unmistakable is not representative*: choose $g$ by what you need. A dataset for training other models needs the variety of the real one, a text-to-video demo the most obedience that still looks varied.
#
# ## 8. Train it, live
# The recipe of the shipped weights at this machine's budget: one caption in ten dropped. The grey band is an earlier run of the same length.

# %%
trainer = Trainer(recipe("mnist-guided"), recipe("mnist-guided").budget(BUDGET), device=DEVICE)
show.train_live(trainer, f"03_{BUDGET}", lambda model: model.sample(labels=torch.arange(8), steps=16, guidance_scale=2.0), updates=3)

# %%
# NBVAL_CHECK_OUTPUT
with torch.no_grad():
    print("loss on the first batch, same noise, fell:", bool(trainer.loss(0) < trainer.history[0]))

# %%
yours = trainer.model()
rows = {f"{who}, g = {g:g}": which.sample(labels=ten, guidance_scale=g, steps=STEPS, seed=2)
        for who, which in (("yours", yours), ("shipped", model)) for g in (1.0, 4.0)}
title = f"yours: {trainer.step} steps of training · shipped: {model.trained_steps:,} · same noise"
show.image_rows(rows, [f'"{digit}"' for digit in range(10)], title)

# %% [markdown]
# **Predict, then run:** does guidance already help yours? Count.

# %%
for g in (1.0, 4.0):
    images = yours.sample(labels=labels, guidance_scale=g, steps=min(STEPS, 16), seed=8)
    print(f"yours, g = {g:g}: {named(images, labels)['digits']:.0%} of {len(labels)} read as asked (guessing: 10%)")

# %% [markdown]
# Guidance amplifies what the network has learnt about the question, most visibly after a short run: more is read as asked. But after a short run some of these look like digits to you and some hardly do; the classifier has to say *some* digit. So this number measures obedience, not quality. That is why section 7 has three.
#
# ## 9. Break it
# **Predict each row before you run the cell.** What happens if the null condition is one that the network was never trained on, if another question takes its place, or if the dial goes below zero, or much too far?

# %%
from utils.samplers import sample_loop


def broken(g, null, cond, rescale=0.0, seed=9):
    """Digits 0 to 9 with another null condition (128,), guidance scale or rescale."""
    net = lambda z, log_snr, c: model.net(z, log_snr, torch.where((c == 0).all(1, keepdim=True), null, c))   # where the library says "null", another
    z = torch.randn(10, 1, 1, 28, 28, generator=generator(seed)).to(DEVICE)
    with torch.no_grad():
        *_, state = sample_loop(guided_denoiser(net, cond, g, "v", rescale), z, model.log_snr(torch.linspace(1, 0, STEPS + 1)))
    return (state.z.clamp(-1, 1).cpu() + 1) / 2


# %%
zero, asked = torch.zeros(128, device=DEVICE), model.encode(labels=ten)
never_trained = torch.randn(128, generator=generator(10)).to(DEVICE) * asked.std()
rows = {"g = 3": broken(3, zero, asked), "null never trained": broken(3, never_trained, asked),
        'null is "8"': broken(3, asked[8], asked), "g = -2": broken(-2, zero, asked),
        "g = 25": broken(25, zero, asked), "g = 25, rescale 0.7": broken(25, zero, asked, 0.7)}
show.image_rows(rows, [f'"{digit}"' for digit in range(10)], "break it (shipped weights)")


# %% [markdown]
# - **Null never trained** (captions are left out in sampling, but never were in training): the difference of the two predictions is no longer a classifier's gradient but an accident. With this network the accident may be mild (how far is the row from the first?); nothing guarantees that.
# - **Null is "8"**: "this digit, and above all not an 8". Asked for an 8, the difference is zero and $g$ does nothing. Image generators call this a *negative prompt*.
# - **g = −2**: anything but the digit asked for.
# - **g = 25**: off the map: specks and torn strokes around some digits. The guided prediction is larger than any that the network was trained to make. Rescaling (Lin et al. 2023; exercise 1) was made for this, on photographs. Here it does not help: compare the last two rows, and the last two of section 7's table.
#
# | if it looks like this | then |
# |---|---|
# | digits fine, question ignored | $g = 0$, or the condition does not reach the network (is the encoder in the optimizer?) |
# | $g = 1$ fine, $g > 1$ a little pale, with faint specks | the null was never trained, or is not the one used in training; how much harm that does is luck |
# | everything thick and alike; at worst specks and torn strokes | $g$ too large: turn it down, or guide only at middle noise levels (exercise 2) |
# | thin, hesitant, sometimes the wrong digit | $g$ too small for this much training |
# | loss slightly higher than without dropping | as it should be: one picture in ten has no caption |
# | loss higher *and* no obedience | the dropping probability is near 1, or `keep` is inverted |
# | sampling twice as slow with $g \ne 1$ | as it should be: two predictions per step |
#
# ## 10. Faithful? The box
#
# | the paper says | we do | why |
# |---|---|---|
# | *Classifier-Free Diffusion Guidance* (2207.12598): drop the class with probability 0.1 to 0.2 | 0.1 | |
# | its scale is $w$, with $w = 0$ the conditional model | $g = 1 + w$, as most code has it | one name, `guidance_scale`, everywhere |
# | a learnt null token | the null condition is zero | as *Video Diffusion Models* has it |
# | ImageNet at 64 and 128 pixels | MNIST | minutes |
# | the network says ε | v | the same guidance; stable at strong noise (lesson 02) |
# | FID and Inception score | kernel distance, accuracy and variety in the features of a classifier trained on MNIST | features that know these pictures, and no download |
# | guidance rescale (2305.08891), φ = 0.7 | the same, on v, off by default | |
#
# ## 11. Exercises
# Each has a stub that runs as it is, and folded below it a check, a hint and a solution. An untouched stub lets a reference answer take over; a wrong answer is shown as wrong.
#
# ### Exercise 1 · Rescale (difficulty ●○○, importance ●●○, 5 minutes)
# Strong guidance makes predictions too large. Bring the guided prediction's standard deviation, row by row, back to the conditional one's, by multiplying each row by one number. (*Rescale φ* mixes: φ of the rescaled prediction, 1 − φ of the guided one. Yours is φ = 1; the rows above use 0.7.)

# %%
def rescaled(guided, conditional):
    """Two tensors (B, D) -> (B, D): guided, each row with the standard deviation of its conditional row."""
    return ...  # your line here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_rescaled(guided, conditional):
    return guided * conditional.std(1, keepdim=True) / guided.std(1, keepdim=True)


a, b = torch.randn(2, 3, 50, generator=generator(11))
rescaled = check("exercise 1", rescaled, reference_rescaled, (4 * a, b), (a, 2 * b))


# %% [markdown]
# <details><summary>Hint</summary>`std(1, keepdim=True)` gives a column, which multiplies every number of its row.</details>
# <details><summary>Solution</summary>
#
# ```python
# return guided * conditional.std(1, keepdim=True) / guided.std(1, keepdim=True)
# ```
# </details>
#
# ### Exercise 2 · Guide only where it pays (difficulty ●●○, importance ●●○, 10 minutes)
# In weak noise the difference vanishes (section 6), so guidance is wasted there. In strong noise it is largest, and there exaggerating it drives all samples to the same few pictures. Kynkäänniemi et al. (2024) therefore guide in the middle only: outside an interval of noise levels the
# scale is 1. Write the scale as a function of the log-SNR.

# %%
def scale_at(log_snr, g, low, high):
    """(N,) log-SNR -> (N,): g where low <= log_snr <= high, else 1."""
    return ...  # your line here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_scale(log_snr, g, low, high):
    return torch.where((log_snr >= low) & (log_snr <= high), g, 1.0)


cases = (torch.linspace(-10, 10, 9), 4.0, -3.0, 3.0), (torch.tensor([-1.0, 1.0]), 2.0, -1.0, 1.0)
scale_at = check("exercise 2", scale_at, reference_scale, *cases)


# %% [markdown]
# What it does, with your function (or the reference): the same large $g$ everywhere, or only inside an interval.

# %%
def sample_in_interval(g, low, high, labels):
    cond, z = model.encode(labels=labels), torch.randn(len(labels), 1, 1, 28, 28, generator=generator(12)).to(DEVICE)
    def denoise(z, log_snr):
        alpha, sigma = (k.view(-1, 1, 1, 1, 1).to(z) for k in alpha_sigma(log_snr))
        return alpha * z - sigma * guided_v(z, log_snr, cond, scale_at(log_snr, g, low, high).view(-1, 1, 1, 1, 1))
    with torch.no_grad():
        *_, state = sample_loop(denoise, z, model.log_snr(torch.linspace(1, 0, STEPS + 1)))
    return (state.z.clamp(-1, 1).cpu() + 1) / 2


# %%
print(f"n = {NUMBER}           read as asked   variety   kernel distance")
print(f"{'real digits':18s}{named((real.video + 1) / 2, labels)['digits']:12.0%}{1:13.2f}{kernel_distance(features, reference):15.3f}")
for name, low, high in (("g = 6 everywhere", -99, 99), ("g = 6 for |λ| < 3", -3, 3)):
    images = sample_in_interval(6.0, low, high, labels)
    found, right = digit_features(images), named(images, labels)["digits"]
    print(f"{name:18s}{right:12.0%}{variety(found, labels) / variety(features, labels):13.2f}{kernel_distance(found, reference):15.3f}")


# %% [markdown]
# With the interval, as many are read as asked, and they vary more (real digits: 1). These digits are too few to tell the distances apart. (The library does it with `model.sample(..., guidance_interval=(-3, 3))`; [lesson 06](06_video_diffusion_models.ipynb) asks, for clips, what guidance in each range of noise levels is good for.)
#
# <details><summary>Hint</summary>`torch.where(condition, a, b)`; join two conditions with &, each in brackets.</details>
# <details><summary>Solution</summary>
#
# ```python
# return torch.where((log_snr >= low) & (log_snr <= high), g, 1.0)
# ```
# </details>
#
# ### Exercise 3 · Two questions at once (difficulty ●●○, importance ●○○, 10 minutes)
# Gradients of classifiers add up (if $a$ and $b$ are independent given $z$): to ask for $a$ *and* $b$, follow both (Liu et al. 2022, *Composable Diffusion*). Combine three predictions.

# %%
def compose(null, with_a, with_b, g_a, g_b):
    """Three predictions of one shape and two scales -> a prediction of that shape."""
    return ...  # your line here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_compose(null, with_a, with_b, g_a, g_b):
    return null + g_a * (with_a - null) + g_b * (with_b - null)


p = torch.randn(3, 2, 4, generator=generator(13))
compose = check("exercise 3", compose, reference_compose, (*p, 2.0, 0.0), (*p, 1.5, 1.5))


# %%
def a_bit_of_both(a, b, num=10, g=1.2):
    null, cond_a, cond_b = model.encode(num=num), model.encode([a] * num), model.encode([b] * num)
    def denoise(z, log_snr):
        alpha, sigma = (k.view(-1, 1, 1, 1, 1).to(z) for k in alpha_sigma(log_snr))
        return alpha * z - sigma * compose(*(model.net(z, log_snr, c) for c in (null, cond_a, cond_b)), g, g)
    z = torch.randn(num, 1, 1, 28, 28, generator=generator(14)).to(DEVICE)
    with torch.no_grad():
        *_, state = sample_loop(denoise, z, model.log_snr(torch.linspace(1, 0, STEPS + 1)))
    return (state.z.clamp(-1, 1).cpu() + 1) / 2


pairs = (("4", "9"), ("1", "7"), ("3", "8"))
show.image_rows({f"{a} and {b}": a_bit_of_both(a, b) for a, b in pairs}, title="one picture that answers two questions")

# %% [markdown]
# Some are in between, some take a side. (No digit is a 4 and a 9 at once, so $a$ and $b$ are not independent here. For a style and an object the rule fits better.)
#
# <details><summary>Hint</summary>With g_b = 0 it must be the guidance that you know.</details>
# <details><summary>Solution</summary>
#
# ```python
# return null + g_a * (with_a - null) + g_b * (with_b - null)
# ```
# </details>
#
# ## 12. Play
# Turn the dial. The second box is the negative prompt: leave it empty for the null condition. (The widget needs a running kernel; sections 1 and 9 show some settings as stills.)

# %%
import ipywidgets as widgets
from IPython.display import display


def turn(caption, against, g, seed):
    try:
        cond, null = model.encode([caption] * 10), model.encode([against])[0] if against else zero
    except CaptionError as error:
        print(error)
        return
    title = f'"{caption}"' + (f', not "{against}"' if against else "") + f", g = {g:g}"
    display(show.image_grid(broken(g, null, cond, seed=seed), title=title))


widgets.interact_manual(turn, caption="three", against="", g=widgets.FloatSlider(value=2, min=-2, max=10, step=0.5),
                        seed=widgets.IntSlider(value=0, min=0, max=20));

# %% [markdown]
# ## 13. Quiz
# 1. Why can guidance make samples *more* recognisable than real digits, and why is that not the same as better?
# 2. A model was trained with the caption dropped in half of all pictures. What do you lose, what do you gain?
# 3. Guidance costs two network calls per step. Could one of them be avoided at some noise levels?
# 4. Someone reports "accuracy 99.5%" for their class-conditional model. What do you ask?
# 5. Why do guidance in v and guidance in ε give the same picture, and when do they not?
#
# <details><summary>Answers</summary>
#
# 1. It moves samples away from all other classes. Real data has ambiguous members; a model of it should have them too. The variety shows what was lost.
# 2. The conditional prediction gets half of the training; the null becomes as good, so the difference is more exact. At 0.1 to 0.2 little is lost and enough gained.
# 3. Yes: where the difference is nearly zero (weak noise) or where the scale is 1 (exercise 2).
# 4. At which guidance scale, what does the same classifier say about real pictures, and how varied are the samples?
# 5. They are linear in each other for a given z, and the weights $1 - g$ and $g$ add up to 1, so the combinations agree. Not after clipping, and not with rescaling.
# </details>
#
# ## What was shown, and what was not
# Shown: a caption of one word is a row of a table; the loss with dropped captions equal to the library's; the difference of two predictions is a classifier's gradient, exactly where everything is known and usefully on digits; accuracy, variety and distance against the scale, with real digits beside them.
# Not shown: captions that combine words in new ways (lessons 04 and 06), guidance by something that is not a caption ([lesson 08](08_reconstruction_guidance.ipynb): by given frames).
#
# ## Readings
# - Ho, Salimans, *Classifier-Free Diffusion Guidance*, 2022 (arXiv 2207.12598): three pages are this lesson.
# - Dhariwal, Nichol, *Diffusion Models Beat GANs on Image Synthesis*, 2021 (arXiv 2105.05233): guidance by a trained classifier, section 4.
# - Li et al., *Your Diffusion Model is Secretly a Zero-Shot Classifier*, 2023 (arXiv 2303.16203): section 5.
# - Kynkäänniemi et al., *Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models*, 2024 (arXiv 2404.07724): exercise 2.
# - Liu et al., *Compositional Visual Generation with Composable Diffusion Models*, 2022 (arXiv 2206.01714): exercise 3.
