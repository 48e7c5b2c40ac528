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
# # 08 · Reconstruction guidance
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/video-diffusion-lessons/video-diffusion-lessons/blob/main/lessons/08_reconstruction_guidance.ipynb)
#
# ![Two real clips of sixteen frames that a model goes on with to sixty-four: above by putting the given frames in, below with the gradient of its error at them](../assets/figures/08_extension.gif)
#
# **Claim: a model that was trained to make clips from nothing can also continue a clip, fill a gap, sharpen, and set a drawing in motion, without further training. While it samples, the gradient of its own error on the given part pulls the rest towards that part. Just putting the given frames in is not enough: where the truth is known, this loses a third of the connection, and the gradient restores most of it.**
# Section 7 measures the gain with this model, whose own clips are far from good: at the seam it has the expected sign, but is so small that 64 clips cannot tell it from luck; further on there is none.
#
# (Above: two real clips of 16 frames, continued to 64 by the shipped `vdm-text`. Top row: replacement. Bottom row: reconstruction guidance. A grey border marks given frames.)
#
# You will be able to
# - see why a model ignores frames that are merely put in, and measure it;
# - derive the correction of *Video Diffusion Models* (Ho et al. 2022, section 3.1) and write it in ten lines, equal to the one in `utils`;
# - check it where the truth is known: two correlated numbers;
# - extend clips to any length with constant memory, forwards and backwards, and complete any mask;
# - set in motion a digit that you drew.
#
# | reading | exercises | machine: T4 (estimate) / two CPU cores |
# |---|---|---|
# | 35 minutes | 20 minutes | 3 / 5 minutes |
#
# **The series:** [01 DDPM](01_ddpm_on_mnist.ipynb) → [02 schedules and fast samplers](02_fast_samplers.ipynb) → [03 guidance](03_guidance.ipynb) → [04 Moving MNIST](04_moving_mnist.ipynb) → [05 the factorized 3D U-Net](05_factorized_unet.ipynb) →
# [06 Video Diffusion Models](06_video_diffusion_models.ipynb) → [07 joint training](07_joint_training.ipynb) → **08 reconstruction guidance (you are here)** → [09 pseudo-3D layers](09_pseudo_3d_layers.ipynb) → [10 Make-A-Video](10_make_a_video.ipynb) → [11 frame interpolation](11_frame_interpolation.ipynb) → [12 super-resolution](12_super_resolution.ipynb) → [13 scaling up](13_scaling_up.ipynb).
# This lesson rests on [the samplers](02_fast_samplers.ipynb) of lesson 02, [where guidance comes from](03_guidance.ipynb#4.-Where-guidance-comes-from) (lesson 03) and the model of [lesson 06](06_video_diffusion_models.ipynb). Symbols: [glossary](glossary.md).

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
import json, time
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import reduce
from utils import drawing, load_pretrained, show
from utils.data import MNIST, MovingMNIST
from utils.diffusion import coefficients, q_sample
from utils.exercises import check
from utils.runtime import ASSETS, budget, generator, outputs, peak_memory_mib, pick_device, randn_per_sample
from utils.samplers import Known, ancestral_step, guided_denoiser, reconstruction_denoiser, sample_loop
from utils.schedule import CosineSchedule, alpha_sigma

BUDGET, DEVICE = budget(), pick_device()
STEPS = {"smoke": 2, "cpu": 16}.get(BUDGET, 32)
G = 2.0                                                     # the guidance scale of this lesson
F64 = torch.float64

# %% [markdown]
# ## 1. Put the given frames in
# `vdm-text` makes clips of sixteen frames from nothing. Now eight frames are *given*, $x^a$, and eight are missing, $x^b$. The obvious way is **replacement**: sample as usual, but before each step put the given frames in, with fresh noise at that step's level, so that they look like what the network is used to. (From here on, captions are guided as in lesson 06, with $g = 2$.)
#
# | | shape | |
# |---|---|---|
# | $x$ | (B, 1, 16, 32, 32) | the clip; only its given part is used |
# | `given` | (16, 1, 1), bool | the mask: True for frames 0 to 7 |
# | $z$ | (B, 1, 16, 32, 32) | $z^a$ is put in, $z^b$ is sampled |

# %%
model = load_pretrained("vdm-text", device=DEVICE)
fast = load_pretrained("vdm-text", device=DEVICE, amp="auto")              # the same in half precision where that is faster
test = MovingMNIST("test", seed=25, num_frames=64, captions="digits").sample(8)
real = (test.video + 1) / 2
pair = slice(3, 5)                                                         # two clips whose digits are apart in frame 8
given = (torch.arange(16) < 8)[:, None, None]                              # (T, 1, 1)
schedule = model.recipe.schedule


# %%
def complete(x, given, captions, steps, correct=None, seed=0):
    """x (B, 1, T, H, W) in [-1, 1] -> the clip, and x_hat of every step."""
    own = [generator(seed, i, 3) for i in range(len(x))]                   # noise of the sampler, a generator a clip
    put_in = [generator(seed, i, 5) for i in range(len(x))]                # noise on what is given
    denoise = guided_denoiser(model.net, model.encode(captions), G, "v")
    denoise = denoise if correct is None else correct(denoise, x, given)
    levels, believed = schedule.log_snr(schedule.times(steps)), []
    z = randn_per_sample(x.shape[1:], own).to(x)
    for k, (t, s) in enumerate(zip(levels, levels[1:])):
        noised = q_sample(x, t.expand(len(x)), randn_per_sample(x.shape[1:], put_in).to(x))
        z = torch.where(given, noised, z)                                  # put in what is given
        x_hat = denoise(z, t.float().expand(len(x)).to(x.device)).clamp(-1, 1)
        z = ancestral_step(z, x_hat, t, s, None if k == steps - 1 else randn_per_sample(x.shape[1:], own).to(x), gamma=0.1)
        believed.append(x_hat)
    return torch.where(given, x, z), torch.stack(believed)


# %%
x, captions, given = test.video[pair, :, :16].to(DEVICE), test.captions[pair], given.to(DEVICE)
with torch.no_grad():
    replaced, believed = complete(x, given, captions, STEPS)
show.film_strip((torch.cat([x, replaced]).cpu().clamp(-1, 1) + 1) / 2, ["real"] * 2 + ["replaced"] * 2,
                borders=[8], title=f"frames 0 to 7 are given, 8 to 15 sampled: replacement, {STEPS} steps")


# %% [markdown]
# **Look at frame 8**, the first that is not given, and compare it with frame 7. Do the digits continue from where they were, as the same digits? Where strokes break, jump or turn into another digit, you see the *seam*: only the network's own guess, made from noisy frames, ties frame 8 to frame 7.
#
# The digits would continue if the network believed the given frames. Does it? At every step it says what it believes: $\hat x^a$, its own estimate of the given frames, *before* they are put in again. Noise blurs that belief in any case, so we add a control: what the same network believes of the same frames, in the same noise, when the *other* half is true as well.

# %%
def missed(believed, x, given):
    """Root mean square of what is believed of the given frames minus what they are, at every step; of values in [0, 1]."""
    error = (believed - x).square().movedim(0, -1) * given[..., None]
    return (error.sum((0, 1, 2, 3, 4)) / (given.expand_as(x).sum()) / 4).sqrt().cpu()


levels = schedule.log_snr(schedule.times(STEPS))[:-1]
middle = int((levels + 1).abs().argmin())                                  # the step nearest to log-SNR -1
denoise = guided_denoiser(model.net, model.encode(captions), G, "v")
again = [generator(0, i, 5) for i in range(len(x))]                        # the noise that was put in with the given frames, drawn once more
with torch.no_grad():
    all_true = torch.stack([denoise(q_sample(x, level.expand(len(x)), randn_per_sample(x.shape[1:], again).to(x)), level.float().expand(len(x)).to(DEVICE)).clamp(-1, 1)
                            for level in levels])
show.film_strip((torch.cat([x[:1], believed[middle][:1], all_true[middle][:1]]).cpu() + 1) / 2, ["the clip", "believed", "believed, all\n16 true"],
                borders=[8], title=f"what the network believes at log-SNR {levels[middle]:.1f} (left of the line: given)")

# %%
harm = missed(believed, x, given) / missed(all_true, x, given) - 1
for level in (-4, -2, -1, 0):
    k = int((levels - level).abs().argmin())
    print(f"near log-SNR {level:2d} the belief in the given frames is worse by {harm[k]:4.0%} because the other half is made up")

# %% [markdown]
# In strong noise the effect is hardly visible; where strokes take shape, the belief suffers from the other half (two clips): the half that is being made up pulls at the half that we know, at each of many steps. In the next section the same fault costs a third.
#
# ## 2. Two numbers, where the truth is known
# Is that the network's fault, or the method's? Take a case in which the network is perfect. The data are pairs of normal numbers with variance 1 and correlation $\rho = 0.9$. The first is given, the second missing. Then everything has a formula: the second is $\rho$ times the first (the *slope*), plus noise of standard deviation $\sqrt{1 - \rho^2} = 0.436$ (the *rest*).
#
# The denoiser of the pair (what a perfect network would have learnt) is linear, $\hat x = \alpha C\,(\alpha^2 C + \sigma^2 I)^{-1} z$ with the covariance $C$. **Predict:** if you sample by replacement with this perfect denoiser and very many steps, is the slope 0.9?

# %%
C = torch.tensor([[1, 0.9], [0.9, 1]], dtype=F64)
N = 20_000
first = torch.randn(N, generator=generator(1), dtype=F64)                  # the numbers that are given


def pair_denoiser(z, log_snr):
    """z (1, 2, N): N pairs -> x_hat, exactly."""
    alpha, sigma = (float(k) for k in alpha_sigma(log_snr[0]))
    return alpha * C @ torch.linalg.inv(alpha**2 * C + sigma**2 * torch.eye(2, dtype=F64)) @ z


def sample_pairs(denoise, steps=256, langevin=0.0):
    """The second numbers, by the sampler of the series, with the first put in before every call."""
    x = torch.stack([first, torch.zeros_like(first)])[None]                # (1, 2, N)
    known = Known(x, torch.tensor([True, False])[None, :, None], [generator(4)])    # utils' name for: these are given
    cosine = CosineSchedule()
    z = torch.randn(1, 2, N, generator=generator(2), dtype=F64)
    for state in sample_loop(denoise, z, cosine.log_snr(cosine.times(steps)), [generator(3)], "ancestral",
                             gamma=0.0, langevin=langevin, clip=False, known=known):
        pass
    return state.z[0, 1]


def slope_and_rest(second):
    slope = (first @ second) / (first @ first)
    return round(float(slope), 3), round(float((second - slope * first).std()), 3)


print("truth: slope 0.900, rest 0.436")
print("replacement, perfect network, 256 steps: slope {}, rest {}".format(*slope_and_rest(sample_pairs(pair_denoiser))))


# %% [markdown]
# <details><summary>What happened</summary>
#
# Slope 0.62 instead of 0.9: a third of the connection is lost, with a perfect network, and too few steps are not the reason. Replacement asks the network for $\mathbb E[x^b \mid z]$, the mean of $x^b$ when only $z$ is seen. While $z^a$ is noisy, it says little about $x^a$. But we *know* $x^a$. What we should ask for is $\mathbb E[x^b \mid z, x^a]$.
# </details>
#
# ## 3. The missing term
# For any noisy $z = \alpha x + \sigma\epsilon$ the estimate and the score determine each other ([lesson 01](01_ddpm_on_mnist.ipynb#4.-Where-the-loss-comes-from)): $\hat x = (z + \sigma^2\,\nabla_z \log q(z))/\alpha$. With $x^a$ known, Bayes adds one term to the score of $z^b$, hence to the estimate of $x^b$:
#
# $$\nabla_{z^b}\log q(z^b \mid z^a, x^a) = \nabla_{z^b}\log q(z) + \nabla_{z^b} \log q(x^a \mid z)
# \quad\Rightarrow\quad \mathbb E[x^b \mid z, x^a] = \hat x^b + \frac{\sigma^2}{\alpha}\,\nabla_{z^b}\log q(x^a \mid z)$$
#
# What is $q(x^a \mid z)$: how probable is what is given, judged from the noisy $z$? The paper approximates it by a normal distribution around what the network believes, $\hat x^a(z)$, with variance $\sigma^2/\alpha^2$, the noise in $z$ in units of the data. Its logarithm is $-\frac{\alpha^2}{2\sigma^2}\lVert x^a - \hat x^a(z)\rVert^2$ plus a constant. Insert it, and $\sigma^2$ cancels. A weight $w_r$ in front makes up for the approximation (and for another: with guided captions, $\hat x$ is no longer exactly the mean that the first line assumes):
#
# $$\tilde x^b = \hat x^b - \frac{w_r\,\alpha}{2}\,\nabla_{z^b} \lVert x^a - \hat x^a(z)\rVert^2$$
#
# In words: *find the direction in which changing $z^b$ would bring the network's belief about the given frames nearer to the truth, and move the estimate $\hat x^b$ (not $z^b$) that way.* The norm is a **sum** over everything given, and the gradient runs **through the network**: $\hat x^a$ depends on $z^b$ because frames see each other. $w_r = 0$ is replacement.

# %%
def guided(denoise, x, given, weight):
    """A denoiser with reconstruction guidance around a denoiser."""
    def corrected(z, log_snr):
        alpha, _ = coefficients(log_snr, z)
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            x_hat = denoise(z, log_snr)
            error = ((x - x_hat) * given).square().sum()                   # over everything given
            gradient, = torch.autograd.grad(error, z)                      # through the network
        return x_hat.detach() - weight * alpha / 2 * gradient * ~given
    return corrected


# %% [markdown]
# Try it on the pairs, with weights 0, 1, 2, 4 and 9, and also with the paper's second sampler: half as many steps, each followed by a Langevin step (a small walk at the same noise level, [lesson 02](02_fast_samplers.ipynb)). **Predict:** the derivation says $w_r = 1$. Is it best?

# %%
# NBVAL_CHECK_OUTPUT
is_first = torch.tensor([True, False])[None, :, None]
x_pairs = torch.stack([first, torch.zeros_like(first)])[None]
independent = {0: (.62, .55, .73, .51), 1: (.76, .48, .84, .45), 2: (.855, .418, .907, .407),
               4: (.98, .34, .98, .35), 9: (1.09, .27, 1.05, .30)}         # by a second program of ours, written before this lesson; not in the paper
found = {}
for weight in independent:
    denoise = guided(pair_denoiser, x_pairs, is_first, float(weight))
    seconds = [sample_pairs(denoise), sample_pairs(denoise, 128, 0.1)]
    found[weight] = [number for second in seconds for number in slope_and_rest(second)]
print("the same as an independent program, within 0.02:",
      all(abs(a - b) < 0.02 for w in found for a, b in zip(found[w], independent[w])))

# %%
print("truth                 slope 0.900  rest 0.436")
for weight, (slope, rest, slope_l, rest_l) in found.items():
    print(f"w_r = {weight}   ancestral 256  {slope:.3f}       {rest:.3f}      Langevin 128 + 128  {slope_l:.3f}  {rest_l:.3f}")
figure, axes = plt.subplots(1, 4, figsize=(9, 2.4), layout="constrained", sharey=True)
truth = 0.9 * first + 0.436 * torch.randn(N, generator=generator(6), dtype=F64)
shown = {"truth": truth, "w_r = 0, replacement": sample_pairs(pair_denoiser, 64),
         "w_r = 2": sample_pairs(guided(pair_denoiser, x_pairs, is_first, 2.0), 64),
         "w_r = 9": sample_pairs(guided(pair_denoiser, x_pairs, is_first, 9.0), 64)}
for ax, (name, second) in zip(axes, shown.items()):
    ax.scatter(first[:700], second[:700], s=3, color=show.BLUE, alpha=0.5)
    ax.plot([-3, 3], [-2.7, 2.7], "--", color=show.ORANGE, linewidth=1)
    ax.set(title=name, xlabel="given", xlim=(-3.3, 3.3), ylim=(-3.3, 3.3))
axes[0].set_ylabel("sampled");

# %% [markdown]
# The dashed line is the truth's slope. At $w_r = 1$, the derived value, about half of what replacement lost is still missing (ancestral). At about $w_r = 2$ both numbers are nearly right; beyond that, the cloud is thinner and steeper than the truth: **over-guided**, too sure of itself. The weight is a dial with a price, like the guidance scale of lesson 03. It cannot be exactly right everywhere, as the normal distribution with that variance is an approximation.
#
# ## 4. The gradient, as a picture
# Back to clips. Frames 0 to 7 are given; the rest is noise with *another* clip faintly in it: the two halves disagree. **Predict:** which way does the correction push frames 8 to 15, and which of them most?

# %%
level = torch.full((1,), -2.0, device=DEVICE)
other = test.video[6:7, :, :16].to(DEVICE)
mixed = torch.where(given, x[:1], other)                                   # 0 to 7 of one clip, 8 to 15 of another
denoise = guided_denoiser(model.net, model.encode(captions[:1]), G, "v")


def pushed(seed):
    """The noisy clip, what the network believes of it, and the push."""
    z = q_sample(mixed, level, torch.randn(x[:1].shape, generator=generator(seed)).to(DEVICE))
    with torch.no_grad():
        plain = denoise(z, level)
    return z, plain, guided(denoise, x[:1], given, 1.0)(z, level) - plain


z, plain, push = pushed(8)
signed = (0.5 + 0.5 * push / push.abs().max()).cpu()
show.film_strip(torch.cat([(torch.cat([x[:1], mixed, plain]).cpu().clamp(-1, 1) + 1) / 2, signed]),
                ["the clip", "under the noise", "believed", "the push"], title="the push: grey no change, white brighter, black darker")

# %%
wanted = x[:1] - mixed                                                     # from the other clip to the one that goes on
pushes = torch.cat([push, *(pushed(seed)[2] for seed in (9, 10, 11, 12, 13, 14, 15))])      # in the noise of the picture, and in seven other draws
toward = F.cosine_similarity(pushes[:, 0, 8:].flatten(2), wanted[:, 0, 8:].flatten(2), dim=-1).mean(dim=0).cpu()
size = pushes.abs().mean((0, 1, 3, 4)).cpu()
print("frames 8 to 15, mean of eight draws: does the push point from the other clip to the right one? (1 yes, 0 neither, -1 away)")
print(" ".join(f"{cosine:5.2f}" for cosine in toward.tolist()))
print("how large is it? (mean of its absolute value)")
print(" ".join(f"{mean:5.3f}" for mean in size[8:].tolist()))
assert toward[:4].mean() > toward[4:].mean() and size[8:12].mean() > size[12:].mean()      # the text below says so

# %%
# NBVAL_CHECK_OUTPUT
print("given frames are not pushed:", bool(push[:, :, :8].abs().max() == 0))
print("the frame next to them is pushed more than the last:", bool(size[8] > size[15]))

# %% [markdown]
# Near the given frames the push is largest and points, on the whole, the right way: away from the other clip, towards the one that goes on. Far from them it is smaller, and at the end it points nowhere. We compare with the one true future, which the network cannot know as far ahead as frame 15; and at this noise its belief about the last frames is a blur. (One clip. In a single draw of the noise the sizes jump up and down: that is why we take the mean of eight.)
#
# **Break it.** Three mistakes, two of them found in public code. Each runs without complaint:

# %%
# NBVAL_CHECK_OUTPUT
right_gradient = -2 * push / float(alpha_sigma(level.cpu())[0])            # section 3: push = -alpha / 2 * gradient


def push_with(wrong):
    """How large the gradient is, and so the push, as a share of the right one, with something wrong."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_(True)
        x_hat = denoise(leaf, level)
        error = wrong(x_hat, leaf)
        gradient, = torch.autograd.grad(error, leaf)
    return float((gradient * ~given).norm() / right_gradient.norm())


right = push_with(lambda x_hat, z: ((x[:1] - x_hat) * given).square().sum())
mean = push_with(lambda x_hat, z: ((x[:1] - x_hat) * given).square().mean())
detached = push_with(lambda x_hat, z: ((x[:1] - (z + (x_hat - z).detach())) * given).square().sum())
print(f"right: {right:.2f}   mean in place of sum: {mean:.5f}   network left out of the gradient: {detached:.2f}")
elsewhere = push_with(lambda x_hat, z: ((x[:1] - x_hat) * ~given).square().sum())
print("the frames compared that are not given: more than a tenth of the right size:", elsewhere > 0.1)
assert x[:1].numel() == 16_384 and abs(mean * 16_384 - right) < 0.01       # the text below says so

# %% [markdown]
# - The mean makes the push 16,384 times too small: nothing happens at any usual weight.
# - A gradient that bypasses the network does not reach other frames at all.
# - Comparing the wrong frames gives a push of plausible size, towards frames that nobody knows.
#
# (One public implementation compares the last frames while it puts in the first, and takes the mean.)
#
# ## 5. The same clips, guided
# The loop of section 1 takes one more argument. Which weight? We chose it on clips of *validation* digits, extended to four times their length (`python -m utils.extension vdm-text --split validation --num 32 --weights 2 5 10 --out runs/extension.json`; section 7 says what is measured):

# %%
table = json.loads((ASSETS / "results" / "vdm-text-extension-validation.json").read_text())
print(f"n = {table['n']}, {table['split']} digits")
for name, r in table["rows"].items():
    if "missed" in r:
        print(f"{name:36s}missed {r['missed']:.3f}   off one path across the seam {r['across']:.2f} px   off the path later {r['rmse']:.2f} px")

# %% [markdown]
# The larger the weight, the closer the belief comes to the given frames (*missed*). Across the seam, digits leave their path least at 5; later on, least at 2, and without guidance about as much as with a weight of 10. What happens at the seam is what guidance is for, so we take 5, though so few clips do not rule out its neighbours.
#
# **Look at frame 8 again:**

# %%
WEIGHT = 5.0


def with_weight(weight):
    return lambda denoise, x, given: guided(denoise, x, given, weight)


with torch.no_grad():
    corrected, believed_now = complete(x, given, captions, STEPS, with_weight(WEIGHT))
show.film_strip((torch.cat([x, replaced, corrected]).cpu().clamp(-1, 1) + 1) / 2, ["real"] * 2 + ["replaced"] * 2 + ["guided"] * 2,
                borders=[8], title=f"frames 0 to 7 given; same noise; w_r = {WEIGHT:g}")

# %%
# NBVAL_CHECK_OUTPUT
ours = (corrected.cpu().clamp(-1, 1) + 1) / 2
options = dict(steps=STEPS, guidance_scale=G)                              # the recipe's sampler is the ancestral one
theirs = model.inpaint(real[pair, :, :16], given.cpu(), captions, weight=WEIGHT, **options)
print("ours equals model.inpaint:", torch.allclose(ours, theirs, atol=1e-3))
replaced_too = model.inpaint(real[pair, :, :16], given.cpu(), captions, method="replacement", **options)
print("and replacement, which is weight 0:", torch.allclose((replaced.cpu().clamp(-1, 1) + 1) / 2, replaced_too, atol=1e-3))

# %% [markdown]
# What does the network now believe about the given frames, at each noise level, before they are put back? **Predict:** at which levels can the gradient make a difference?

# %%
curves = {"replacement": missed(believed, x, given), f"w_r = {WEIGHT:g}": missed(believed_now, x, given)}
figure, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
for (name, curve), colour, style in zip(curves.items(), (show.ORANGE, show.BLUE), ("s--", "o-")):
    ax.plot(levels, curve, style, color=colour, markersize=3, label=name)
ax.set(title="what is believed of frames 0 to 7", xlabel="log-SNR: from noise (left) to data", ylabel="error, of 0 to 1", xlim=(-10, float(levels[-1]) + 0.5))
ax.legend();

# %%
smaller = 1 - curves[f"w_r = {WEIGHT:g}"] / curves["replacement"]
for level in (-8, -4, -2, 0, 2):
    k = int((levels - level).abs().argmin())
    print(f"near log-SNR {level:2d} the guided error is smaller by {smaller[k]:4.0%}")

# %% [markdown]
# At the noisy end beliefs are blurs either way, and the gradient is multiplied by a small $\alpha$; at the clean end the given frames speak for themselves. In between, the gradient counts. Still, the gap is small: the belief does not become right, only less wrong.
#
# ## 6. The weight, turned
# Too large a weight burns the picture: where the push is larger than the data, pixels are driven out of range. Four clips, live, the same noise for all weights. *Seam*: how much frame 8 differs from frame 7, real clips = 1. The price of guidance is printed too: the network is run forwards *and* backwards. **Predict:** how many times as long does that take?

# %%
four, names = real[3:7, :, :16], test.captions[3:7]
mask = given.cpu()
jump = (four[:, :, 8] - four[:, :, 7]).abs().mean()
dial = [0.0, 1.0, 4.0, 10.0, 30.0]
turned, took = {}, {}
for w in dial:
    start = time.perf_counter()
    turned[w] = fast.inpaint(four, mask, names, weight=w, **options)
    took[w] = time.perf_counter() - start
    print(f"w_r = {w:4g}   seam {(turned[w][:, :, 8] - turned[w][:, :, 7]).abs().mean() / jump:.2f}   {took[w]:.1f} s")
print(f"a guided clip takes {took[10.0] / took[0.0]:.1f} times as long as a replaced one")
show.film_strip(torch.cat([four[:1], *[clips[:1] for clips in turned.values()]]), ["real", *[f"w_r = {w:g}" for w in dial]],
                borders=[8], title="frames 0 to 7 given; same noise")

# %% [markdown]
# Compare the seams: weight 1 already brings most of the gain, 1 to 10 look much alike, and 30 burns, with a seam that is worse than without guidance. The backward pass through the network makes guidance slower (printed above). Four clips are an anecdote: the next section has more.
#
# ## 7. From 16 frames to 64, and on
# A clip of any length is made in blocks: the last eight frames are given, eight more are sampled, and so on. The network never sees more than sixteen frames, so memory does not grow with the length. `model.extend` does it; here are two real clips, continued both ways. In the picture a moving digit is a line; look for lines that break off at frame 16, and later. (Captions name digits only: a direction would refer to a block's first frame, and digits bounce.)

# %%
sixteen = real[pair, :, :16]
long = {"replaced": fast.extend(sixteen, 64, captions, method="replacement", **options),
        "guided": fast.extend(sixteen, 64, captions, weight=WEIGHT, **options)}
show.xt_slice(torch.cat([real[pair], *long.values()]), [f"{what}: {text}" for what in ("real", *long) for text in captions],
              time_across=True, title="seen from above; the first 16 frames are real in all")

# %%
grey = torch.zeros(2, 1, 64, 36, 36)
grey[:, :, :16] = 0.45                                                     # a frame around what is given
framed = [grey.clone() for _ in long]
for frame, clips in zip(framed, long.values()):
    frame[..., 2:-2, 2:-2] = clips
show.play(torch.cat(framed), [f"{what}: {text}" for what in long for text in captions], columns=2, scale=3,
          path=outputs() / "08_extension.gif")

# %% [markdown]
# And on to 256 frames, for one clip. The steps are few, so this shows memory, not quality: the peak of the whole process, before and after.

# %%
before = peak_memory_mib(DEVICE)
length, few = (64, 2) if BUDGET == "smoke" else (256, 6)
endless = fast.extend(sixteen[:1], length, captions[:1], weight=WEIGHT, **{**options, "steps": few})
grown = peak_memory_mib(DEVICE) - before
print(tuple(endless.shape), f"peak memory before {before} MiB, grown by {grown} MiB")
assert grown < 200
show.xt_slice(endless, captions[:1], time_across=True, title=f"{endless.shape[2]} frames, {few} steps a block")

# %% [markdown]
# **Measured.** Of real clips of 64 frames the first 16 are given, and each method continues with the same noise (`python -m utils.extension`). These are the columns; the first four are means over the three windows of 16 new frames:
#
# | | what it measures |
# |---|---|
# | distance | kernel distance to the same window of real clips |
# | path | how far digits are off the best bouncing path, pixels |
# | identity | frames that look like the digit seen most often in the window |
# | digits | windows that show both given digits |
# | **across** | how far digits are off *one* path through the eight frames before and the eight after the seam, pixels |
# | seam | how much the first new frame differs from the last given one; real clips 1, unrelated clips about 1.4 |
# | missed | how far the network's belief about the given frames is off |

# %%
table = json.loads((ASSETS / "results" / "vdm-text-extension.json").read_text())
print(f"n = {table['n']}, {table['steps']} steps, guidance scale {table['guidance_scale']:g}, {table['split']} digits, {table['device']}")
print(f"{'distance':>9s}{'path':>6s}{'identity':>9s}{'digits':>8s}{'across':>8s}{'seam':>6s}{'missed':>8s}")
for name, r in table["rows"].items():
    print(name)
    extra = f"{r['missed']:8.3f}" if "missed" in r else ""
    print(f"{r['kernel_distance']:9.2f}{r['rmse']:6.2f}{r['identity']:9.0%}{r['digits']:8.0%}{r['across']:8.2f}{r['seam']:6.2f}{extra}")

# %%
rows = table["rows"]
chosen = f"reconstruction guidance, weight {WEIGHT:g}"
figure, axes = plt.subplots(1, 2, figsize=(8, 2.9), layout="constrained")
picked = {"real clips (floor)": (show.GREY, "^:"), "replacement": (show.ORANGE, "s--"), chosen: (show.BLUE, "o-")}
for ax, key, title in zip(axes, ("kernel_distance", "rmse"), ("kernel distance to real clips", "off the best path, pixels")):
    for shift, (name, (colour, style)) in zip((-0.06, 0, 0.06), picked.items()):    # side by side, so that bars do not hide each other
        blocks, windows = rows[name]["blocks"], [k + shift for k in (1, 2, 3)]
        ax.plot(windows, [block[key] for block in blocks], style, color=colour, label=name)
        if key == "kernel_distance":
            ax.vlines(windows, [block[f"{key}_low"] for block in blocks], [block[f"{key}_high"] for block in blocks], color=colour, linewidth=1)
    ax.set(title=title, xlabel="window of 16 new frames", xticks=[1, 2, 3], ylim=(min(0, ax.get_ylim()[0]), None))
axes[0].set_title("kernel distance to real clips (bars: 95%)")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9);

# %%
floor = rows["real clips (floor)"]["kernel_distance"]
ratio = (rows[chosen]["kernel_distance"] - floor) / (rows["replacement"]["kernel_distance"] - floor)
print(f"distance above the floor, guided / replaced: {ratio:.2f}   goal: at most 0.50   {'reached' if ratio <= 0.5 else 'not reached'}")
print("the paper, 64 frames, its own measure: 136 / 451 =", round(136 / 451, 2))
width = max((b["kernel_distance_high"] - b["kernel_distance_low"]) / 2 for name in (chosen, "replacement") for b in rows[name]["blocks"])
print(f"n = {table['n']}: a single distance is known to about ± {width:.2f} (95%)")

# %% [markdown]
# Is the gap in *across* more than luck? All methods continue the same clips with the same noise, so resample the clips many times, with replacement (a bootstrap), and each time take the difference on the same clips.

# %%
of_digits = {name: torch.tensor(r["across_by_clip"]) for name, r in rows.items()}  # (N, 2), pixels
drawn = torch.randint(table["n"], (4000, table["n"]), generator=generator(0))
medians = {name: off[drawn].flatten(1).median(1).values for name, off in of_digits.items()}
print("off one path across the seam, pixels, guided minus")
for name in (name for name in rows if name.startswith(("replacement", "control: the last"))):
    low, high = (medians[chosen] - medians[name]).quantile(torch.tensor([0.025, 0.975]))
    print(f"  {name:44s}{rows[chosen]['across'] - rows[name]['across']:6.2f}   95% from {low:5.2f} to {high:5.2f}")
new = rows["control: new clips, nothing given"]                            # the text below says so
assert rows[chosen]["missed"] < rows["replacement"]["missed"] and all(rows[chosen]["across"] < r["across"] for name, r in rows.items() if name.startswith("replacement"))
assert all(r["rmse"] > new["rmse"] and r["identity"] < new["identity"] for name, r in rows.items() if "missed" in r)

# %% [markdown]
# **What the table says.** Guidance does what it was derived for: the belief about the given frames is nearer to them (*missed*), and where they end, digits leave their path less than with replacement, even with twice the steps (about the price of guidance). But the gain is small, and this many clips cannot settle whether it is more than luck: the intervals include zero, also against simply repeating the last frame. By *distance*, replacement with twice the steps is even the best of the three, by less than the uncertainty of one number. In section 2, where the network is perfect, nothing is left to chance, and the gain is large.
#
# **What it does not say.** That the new frames *themselves* are better. Within a window, digits are further off their path than in this model's own clips ("new clips, nothing given"), and look less like one digit, whichever method made them. Each block continues frames that the model made, so their flaws are passed on, and add up. And a distance that compares windows one by one cannot see a seam; at this number of clips it cannot decide anyway. More clips are one command on a GPU.
#
# The paper's gap, 136 against 451, was measured over whole clips, with a large model whose own clips are good.
#
# ## 8. Any mask
# Nothing in the correction requires whole *frames*. Whatever is known about the clip, as a differentiable function of it, can be compared and can pull. Here are three masks: both ends, the left half of every frame, and the *last* frames. **Predict:** will the made-up part fit the given part at every border?

# %%
ends = torch.zeros(16, 1, 1)
ends[:3] = ends[-3:] = 1                                                   # three frames at each end
left = torch.zeros(16, 32, 32)
left[:, :, :16] = 1                                                        # the left half of every frame
filled = fast.inpaint(sixteen, ends, captions, weight=WEIGHT, **options)
halves = fast.inpaint(sixteen, left, captions, weight=WEIGHT, **options)
earlier = fast.extend(sixteen[:, :, 8:], 16, captions, backward=True, weight=WEIGHT, **options)
show.film_strip(torch.cat([sixteen, filled]), ["real"] * 2 + ["between"] * 2, borders=[3, 13], title="the outer frames are given: what is between?")

# %%
show.film_strip(torch.cat([sixteen, earlier]), ["real"] * 2 + ["8 frames before"] * 2, borders=[8], title="frames 8 to 15 are given: what was before?")

# %%
show.film_strip(torch.cat([sixteen, halves]), ["real"] * 2 + ["left half given"] * 2, title="the left half of every frame is given: what is in the other?")

# %% [markdown]
# The made-up part fits the given part in place and in motion; whether a digit stays the same digit across a border is another matter. That is the model's weakness (*identity* in the table), not the mask's.
#
# **Super-resolution without training for it.** We know each frame at 16×16, averaged down; the function is `avg_pool`. No pixel is known exactly, so nothing is put in: the correction acts on all of $z$.

# %%
small = F.avg_pool3d(sixteen, (1, 2, 2))
sharp = fast.super_resolve(small, captions, **options)
smooth = F.interpolate(small, scale_factor=(1, 2, 2), mode="trilinear")    # bilinear in each frame
show.film_strip(torch.cat([sixteen, smooth, sharp]), ["real"] * 2 + ["bilinear"] * 2 + ["guided"] * 2, title="16×16 to 32×32")

# %%
averaged = [float((F.avg_pool3d(clips, (1, 2, 2)) - small).square().mean().sqrt()) for clips in (sharp, smooth)]
edges = {name: clips.diff(dim=-1).abs().mean() for name, clips in (("real", sixteen), ("bilinear", smooth), ("guided", sharp))}
print("averaged down again they differ from what was given by (root mean square): guided {:.3f}, bilinear {:.3f}".format(*averaged))
print("sharpness (mean step from pixel to pixel):", ", ".join(f"{name} {value:.4f}" for name, value in edges.items()))

# %% [markdown]
# Averaged down, the guided clip fits what was given better than the bilinear one does, and its edges are about as sharp as real ones; the bilinear clip's are half as sharp. Neither number says that the strokes are the *right* ones: compare them with the real rows.
#
# ## 9. Play: draw a digit, and it starts to move
# Draw with characters: `#` is ink; change the drawing as you like. On Colab you can draw with a finger instead: tick `use_canvas`. A test digit of MNIST is put beside yours, as the model knows pairs. One frame is given, fifteen are made; name your digit in the caption.

# %%
my_digit = """
..............
....######....
...########...
..###....###..
.........###..
.........##...
......####....
......#####...
.........###..
..........##..
..##.....###..
..#########...
...######.....
..............
"""
use_canvas = False  #@param {type:"boolean"}
mine_is = 3  #@param {type:"integer"}
digit = drawing.canvas() if use_canvas else drawing.from_text(my_digit)

# %%
numbers = MNIST("test", seed=5).sample(64)
seven = (numbers.video[numbers.labels[:, 0] == 7][0, 0, 0] + 1) / 2
still = drawing.frame(torch.stack([digit, seven]), torch.tensor([[2, 2], [15, 16]]))
moving = fast.extend(still.expand(4, -1, -1, -1, -1), 16, f"{mine_is} and 7", weight=WEIGHT, seed=1, **options)
show.film_strip(moving, [f"future {k}" for k in range(1, 5)], title="the first frame is your drawing; four futures of it")

# %%
show.play(moving, [f"future {k}" for k in range(1, 5)], columns=4, scale=4, path=outputs() / "08_drawing.gif")


# %% [markdown]
# It moves, and it bounces. But follow one digit through a row: with these weights it often melts into another one on the way. See the third row here:
#
# | if it looks like this | then look at |
# |---|---|
# | the new frames start over, as if nothing were given | the weight is 0, or a mean instead of the sum (section 4) |
# | new frames are burnt: specks, all white or black | the weight is too large, or too few steps for it (section 6) |
# | the first new frame fits, then digits melt | the model, not the method: does `sample` keep its digits? (lesson 06) |
# | a seam every eight frames | overlap too small; or given frames of a block were put in with the noise of another level |
# | exact where given, blurred around | a mask that is not 0 or 1 |
#
# ## 10. Faithful? The box
#
# | the paper says | we do | why |
# |---|---|---|
# | the correction with $w_r\alpha/2$, sum of squares, gradient through the network; $z^a$ drawn from $q(z^a \mid x^a)$ | the same, drawn afresh before each call | the paper says what $z^a$ is drawn from, not how often |
# | $w_r$ = 50 (BAIR), 9 (Kinetics), elsewhere not listed | chosen on validation clips | it depends on data, size and model |
# | ancestral sampler, or Langevin corrector after each step, δ = 0.1 | both (`langevin=0.1`); ancestral is the recipe's | the corrector doubles the price |
# | together with guidance by captions | the same: the gradient runs through both halves of it | |
# | 64 frames by extension, 136 against 451 for replacement (FVD) | 16×32×32, our own distance | direction, not value |
# | also super-resolution in space and time by one method | 16 to 32 pixels, and any mask | |
#
# ## 11. Exercises
# ### Exercise 1 · The correction of a linear network (difficulty ●●○, importance ●●●, 10 minutes)
# Let the network be a matrix, $\hat x = M z$. Write the corrected estimate $\tilde x$ of section 3 without autograd. `given` is a bool vector; only entries that are not given are corrected.

# %%
def linear_correction(M, z, x, given, weight, alpha):
    """M (D, D), z and x (D,), given (D,) bool -> x_hat with the correction where not given, (D,)."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_linear_correction(M, z, x, given, weight, alpha):
    x_hat = M @ z
    gradient = 2 * M.T @ ((x_hat - x) * given)
    return x_hat - weight * alpha / 2 * gradient * ~given


some = [torch.randn(*shape, generator=generator(30 + k), dtype=torch.float64) for k, shape in enumerate([(5, 5), (5,), (5,)])]
linear_correction = check("exercise 1", linear_correction, reference_linear_correction,
                          (*some, torch.tensor([True, True, False, False, True]), 3.0, 0.8), (*some, torch.tensor([False] * 5), 3.0, 0.8))


# %% [markdown]
# <details><summary>Hint</summary>The gradient of |A z − b|² with respect to z is 2 Aᵀ(A z − b); rows that are not given drop out of A.</details>
# <details><summary>Solution</summary>
#
# ```python
# x_hat = M @ z
# gradient = 2 * M.T @ ((x_hat - x) * given)
# return x_hat - weight * alpha / 2 * gradient * ~given
# ```
#
# The transposed network carries the error from given entries to the others: no connection in M, no push.
# </details>
#
# ### Exercise 2 · Count the blocks (difficulty ●○○, importance ●●○, 5 minutes)
# A model makes `size` frames at a time, of which `overlap` are given. How many blocks does it take to get from `given` frames (at least `overlap`) to `num_frames`, and how many frames are sampled but thrown away?

# %%
def blocks(given, num_frames, size, overlap):
    """-> (number of blocks, frames thrown away)"""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_blocks(given, num_frames, size, overlap):
    new = size - overlap
    count = -(-(num_frames - given) // new)
    return count, given + count * new - num_frames


blocks = check("exercise 2", blocks, reference_blocks, (16, 64, 16, 8), (16, 256, 16, 8), (16, 17, 16, 1), (16, 16, 16, 8), (8, 30, 16, 4))


# %% [markdown]
# <details><summary>Hint</summary>Each block adds size − overlap frames; round up.</details>
# <details><summary>Solution</summary>
#
# ```python
# new = size - overlap
# count = -(-(num_frames - given) // new)
# return count, given + count * new - num_frames
# ```
#
# A small overlap is cheap and forgets; a large one is expensive and remembers. Only the overlap carries memory from block to block.
# </details>
#
# ### Exercise 3 · Another thing to know (difficulty ●○○, importance ●●○, 5 minutes)
# Suppose all you know of a clip is its *shadow*: for every frame, the mean over rows, (B, 1, T, W). Write the function that observes it, for `reconstruction_denoiser`; it is used below.

# %%
def shadow(x):
    """x (B, 1, T, H, W) -> (B, 1, T, W): the mean over rows."""
    return ...  # your line here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_shadow(x):
    return reduce(x, "b c t h w -> b c t w", "mean")


shadow = check("exercise 3", shadow, reference_shadow, (torch.randn(2, 1, 4, 6, 5, generator=generator(33)),))

# %%
known_shadow, weight = shadow(x), 100.0                                    # large: the solution says why
levels_ = schedule.log_snr(schedule.times(STEPS))
own = [generator(9, i) for i in range(len(x))]
seen = reconstruction_denoiser(guided_denoiser(model.net, model.encode(captions), G, "v"), shadow, known_shadow, weight)
with torch.no_grad():
    *_, state = sample_loop(seen, randn_per_sample(x.shape[1:], own).to(DEVICE), levels_, own, "ancestral")
    unguided = model.sample(captions, seed=9, rival_scale=0.0, **options).to(x) * 2 - 1
shadows = {"the real clip": known_shadow, "made from its shadow": shadow(state.z), "made without it": shadow(unguided)}
figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained")
for ax, (name, its) in zip(axes, shadows.items()):
    off = float((its - known_shadow).square().mean().sqrt()) / 2           # of values in [0, 1]
    ax.imshow(its[0, 0].cpu(), cmap="gray", aspect="auto")
    ax.set(title=name, xlabel=f"x    (off by {off:.3f})")
axes[0].set_ylabel("frame")
show.film_strip((torch.cat([x, state.z]).cpu().clamp(-1, 1) + 1) / 2, ["real"] * 2 + ["from its shadow"] * 2, every=2, title="the clips that throw these shadows")

# %% [markdown]
# <details><summary>Hint</summary>`einops.reduce` with "mean", or `x.mean(3)`.</details>
# <details><summary>Solution</summary>
#
# ```python
# return reduce(x, "b c t h w -> b c t w", "mean")
# ```
#
# A mean over 32 rows carries a gradient 32 times smaller than the rows themselves would: hence the large weight.
# </details>
#
# ## 12. Quiz
# 1. Replacement with a perfect network and endless steps: why is the slope still wrong?
# 2. Why a sum of squares and not a mean?
# 3. Where would the correction be zero even with the right formula?
# 4. The given frames appear exactly in the result. Does that show that the method works?
#
# <details><summary>Answers</summary>
#
# 1. It asks for the estimate given $z$ alone; the known $x^a$ enters only through its noisy copy.
# 2. The logarithm of a probability of independent pixels is a sum; a mean divides the push by their number.
# 3. In a network whose frames do not see each other: what is believed of the given frames does not depend on the others.
# 4. No: they are put in. Look at what the network believed about them, at the seam, and at what comes after.
# </details>
#
# ## What was shown, and what was not
# Shown: the correction against an exact truth; that it equals the one in `utils`; what is believed of given frames; extension to 64 and 256 frames, any mask, a drawing, super-resolution; a table with floor, controls and a row of replacement at about equal cost. Not shown: that this beats a model *trained* to continue or interpolate ([lesson 11](11_frame_interpolation.ipynb) compares the two), or what a larger model gains by it.
#
# Next: [lesson 09](09_pseudo_3d_layers.ipynb), where a network for pictures becomes one for video.
#
# ## Readings
# - Ho, Salimans, Gritsenko, Chan, Norouzi, Fleet, *Video Diffusion Models*, 2022 (arXiv 2204.03458): section 3.1 is this lesson.
# - Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole, *Score-Based Generative Modeling through SDEs*, 2021 (arXiv 2011.13456): replacement, and conditional scores, in section 5.
# - Chung, Kim, Mccann, Klasky, Ye, *Diffusion Posterior Sampling*, 2022 (arXiv 2209.14687): the same gradient for any noisy measurement.
# - Lugmayr, Danelljan, Romero, Yu, Timofte, Van Gool, *RePaint*, 2022 (arXiv 2201.09865): making replacement agree by going back and forth.
