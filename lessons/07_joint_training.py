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
# # 07 · Joint image-video training
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/video-diffusion-lessons/video-diffusion-lessons/blob/main/lessons/07_joint_training.ipynb)
#
# ![Each of four clips followed by eight pictures that belong to other clips: what one training step sees](../assets/figures/07_packs.gif)
#
# **Claim: a video model can train on single images too. Packed behind a clip, and masked so that nothing leaks, eight images show it nine scenes instead of one, for half as much compute again. After the same clips it has a slightly lower loss on new clips.** Nine small runs cannot tell whether its samples are better; whether images pay off at equal *cost* is another question. Section 8 asks both.
# (Above: four packs as one training step sees them. Sixteen frames that belong together, then eight images, each on its own.)
#
# You will be able to
# - pack images behind a clip, and see what goes wrong without a mask;
# - write the block-diagonal mask of *Video Diffusion Models* (Ho et al. 2022, sections 3 and 4.3.1), and show that packed equals separate, to rounding error;
# - name three ways in which images leak into a clip, with a probe that finds each;
# - train a pair with and without images, and read a table of nine runs with its uncertainty;
# - sample with *temporal guidance*, which a network that knows single images makes possible, captions or not.
#
# | reading | exercises | machine: T4 (estimate) / two CPU cores |
# |---|---|---|
# | 30 minutes | 15 minutes | 15 / 5 minutes (a smaller run) |
#
# **The series:** [01 DDPM](01_ddpm_on_mnist.ipynb) → [02 schedules and fast samplers](02_fast_samplers.ipynb) → [03 guidance](03_guidance.ipynb) → [04 Moving MNIST](04_moving_mnist.ipynb) → [05 the factorized 3D U-Net](05_factorized_unet.ipynb) →
# [06 Video Diffusion Models](06_video_diffusion_models.ipynb) → **07 joint training (you are here)** → [08 reconstruction guidance](08_reconstruction_guidance.ipynb) → [09 pseudo-3D layers](09_pseudo_3d_layers.ipynb) → [10 Make-A-Video](10_make_a_video.ipynb) → [11 frame interpolation](11_frame_interpolation.ipynb) → [12 super-resolution](12_super_resolution.ipynb) → [13 scaling up](13_scaling_up.ipynb).
# This lesson rests on [attention over time](05_factorized_unet.ipynb#4.-Attention-over-time,-and-two-ways-to-get-it-wrong) and its probes (lesson 05). Symbols: [glossary](glossary.md).

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
from dataclasses import replace
from einops import rearrange
from torch import nn
from utils import load_pretrained, show
from utils.captions import tokenize
from utils.compare import LEVELS, validation_loss
from utils.cost import measure
from utils.data import MovingMNIST
from utils.diffusion import loss_per_sample, q_sample, target
from utils.exercises import check
from utils.layers import TemporalAttention, packing_mask
from utils.recipes import Budget, recipe
from utils.runtime import ASSETS, budget, generator, outputs, pick_device
from utils.train import Trainer
from utils.unet import UNet, UNetConfig, randomize

BUDGET, DEVICE = budget(), pick_device()
F64 = torch.float64
T, K = 16, 8

# %% [markdown]
# ## 1. A clip is sixteen pictures of the same two drawings
# A clip shows the same two digits sixteen times, moving. Other scenes would show other drawings and, with captions, other words. One of their frames costs a sixteenth of a clip.
# Count, for the recipe `vdm-text` (lesson 06), what it costs to train on a clip with $K$ images packed behind it, and how many drawings that shows.

# %%
video_recipe = replace(recipe("vdm-text"), curriculum=None)                 # a step of its own task, without the practice before it
gflop = {k: measure(video_recipe.net, video_recipe.sample_shape, k).flops / 1e9 for k in (0, 4, 8, 16)}
print("images K   GFLOP   of K = 0   drawings shown   drawings a GFLOP")
for k, cost in gflop.items():
    print(f"{k:8d}{cost:8.1f}{cost / gflop[0]:9.2f}x{2 + 2 * k:15d}{(2 + 2 * k) / cost:18.2f}")
assert 1.45 < gflop[8] / gflop[0] < 1.55, "the text below says: half as much again"

# %% [markdown]
# The paper's K = 8 costs half as much again and shows nine times the drawings. **Why should that help a *video* model?** The frames of a clip are alike, so a batch of clips holds few independent examples and its gradient is noisy. Images add independent ones. The gradient is then less noisy (less variance), but no longer that of clips alone (some bias). What images cannot teach is motion: that needs the clip.
#
# ## 2. Pack them
# **The plan:** put the $K$ images behind the frames on the time axis, as if the clip were longer. Convolutions and attention over space work frame by frame, so they need no change. Frames meet only in attention over time.
#
# | | shape | here |
# |---|---|---|
# | clips | (B, C, T, H, W) | (4, 1, 16, 32, 32) |
# | images, K for each clip | (B, C, K, H, W) | (4, 1, 8, 32, 32) |
# | pack: $x$, and with noise $z$ | (B, C, T + K, H, W) | (4, 1, 24, 32, 32) |

# %%
clips = MovingMNIST("test", seed=0, captions="digits").sample(4)
others = MovingMNIST("test", seed=1, captions="digits", num_frames=1).sample(4 * K)  # first frames of others
images = rearrange(others.video, "(b k) c 1 h w -> b c k h w", k=K)
packs = torch.cat([clips.video, images], dim=2)
print("clip", tuple(clips.video.shape), "+ images", tuple(images.shape), "= pack", tuple(packs.shape))
show.play((packs + 1) / 2, ["a clip, then eight images"], scale=4, fps=6, path=outputs() / "07_packs.gif")

# %%
show.film_strip((packs[:2] + 1) / 2, clips.captions[:2], borders=[16], title="two packs: 16 frames, then 8 images", xlabel="16 frames of a clip | 8 images")

# %% [markdown]
# ## 3. Naive: just do it
# Append the images and change nothing else. **Predict, then run:** a trained network denoises test clips (log-SNR 1); behind each come eight unrelated images (strangers), as noisy as the clip. What happens to the error *on the clip's* frames, and on which?

# %%
model = load_pretrained("vdm-text", device=DEVICE)
N = {"smoke": 4}.get(BUDGET, 16)
test = MovingMNIST("test", seed=5, captions="digits").sample(N)
strangers = MovingMNIST("test", seed=6, captions="digits", num_frames=1).sample(N * K)
pack = torch.cat([test.video, rearrange(strangers.video, "(b k) c 1 h w -> b c k h w", k=K)], dim=2)
noise, cond = torch.randn(pack.shape, generator=generator(1)), model.encode(test.captions)


# %%
def frame_errors(x, eps, num_images, level=1.0):
    """(T,) v-loss on each of the clip's frames when x (B, 1, T or T + K, H, W) goes through the network."""
    log_snr = torch.full((len(x),), level)
    with torch.no_grad():
        output = model.net(q_sample(x, log_snr, eps).to(DEVICE), log_snr.to(DEVICE), cond, num_images=num_images).cpu()
    return (output - target(x, eps, log_snr, "v"))[:, :, :T].square().mean((0, 1, 3, 4))


# %%
alone = frame_errors(pack[:, :, :T], noise[:, :, :T], 0)
unmasked = frame_errors(pack, noise, 0)
longer = MovingMNIST("test", seed=5, captions="digits", num_frames=T + K).sample(N).video    # the same clips, going on
continued = frame_errors(longer, noise, 0)
print("error on each frame, as a multiple of the error of the clip alone; behind the clip come")
for what, errors in (("strangers", unmasked), ("its own next frames", continued)):
    print(f"{what:20s}" + " ".join(f"{r:.2f}" for r in (errors / alone).tolist()))

# %%
# NBVAL_CHECK_OUTPUT
print("strangers make the last frame worse by more than a fifth:", bool(unmasked[-1] > 1.2 * alone[-1]))
print("its own continuation does not:", bool(continued[-1] < 1.1 * alone[-1]))


# %% [markdown]
# The error grows at the end of the clip, next to the strangers. Length is not the cause of that: the clip's own next frames help there. (The 5% at the start come with both: there, length has a price. These frames now meet some that are more than 15 away, which training never showed.) Attention over time takes the strangers for those, and as near frames count most, the last frame goes wrong. A network *trained* this way may learn to distrust neighbouring frames.
#
# ## 4. The mask
# Whether *frame $i$ may look at frame $j$* is a yes/no table of size $(T + K)^2$. The clip's frames see each other; an image sees only itself: **block-diagonal**.
#
# $$M = \begin{pmatrix} 1_{T \times T} & 0 \\ 0 & I_K \end{pmatrix}, \qquad \text{logit}_{ij} = -\infty \text{ where } M_{ij} = 0$$
#
# ($1_{T \times T}$ is all ones, $I_K$ the identity. A logit is what softmax turns into a weight; −∞ becomes 0. No row is empty, so softmax never divides by zero.)

# %%
# NBVAL_CHECK_OUTPUT
def block_mask(t, k):
    """(t + k, t + k) bool, True where frame i may look at frame j."""
    frame = torch.arange(t + k)
    both_in_clip = (frame[:, None] < t) & (frame[None, :] < t)
    return both_in_clip | (frame[:, None] == frame[None, :])


print(block_mask(4, 3).int())
cases = ((16, 8), (1, 3), (5, 0))
print("ours equals utils':", all(torch.equal(block_mask(t, k), packing_mask(t, k)) for t, k in cases))

# %%
figure, axes = plt.subplots(1, 2, figsize=(5, 2.5), layout="constrained")
masks = {"no mask": torch.ones(T + K, T + K), "block-diagonal": block_mask(T, K)}
for ax, (name, mask) in zip(axes, masks.items()):
    ax.imshow(mask.float().numpy(), cmap="Blues", vmin=0, vmax=1.3)
    ax.set(title=name, xlabel="looks at frame (blue: yes)", ylabel="frame")

# %% [markdown]
# The same strangers, now with the mask:

# %%
masked = frame_errors(pack, noise, K)
figure, ax = plt.subplots(figsize=(5, 2.4), layout="constrained")
for name, errors, colour, style in (("no mask", unmasked, show.ORANGE, "s--"), ("masked", masked, show.BLUE, "o-")):
    ax.plot(range(T), errors / alone, style, color=colour, label=name)
ax.set(xlabel="frame of the clip, from 0", ylabel="1 = clip alone", title="error with strangers behind the clip")
ax.legend();

# %%
# NBVAL_CHECK_OUTPUT
same = torch.allclose(masked, alone, rtol=1e-3)
print("masked, the strangers change the clip's error by less than a thousandth:", same)

# %% [markdown]
# ## 5. A test that would notice
# A trained network may hide a leak in a layer that it hardly uses. So make *every* parameter random, use double precision, and give each frame its own noise level and condition. (`stem=2` below: blocks of 2×2 pixels enter the network as one place with four channels.) Then ask:
# - Does the packed output equal, to rounding error, the outputs of the clip and of each image (a one-frame clip) run separately?
# - The probe of lesson 05: change one image; which frames move?

# %%
SMALL = UNetConfig(channels=(16, 32), blocks=(1, 1), space=(False, True), time=(True, True), stem=2,
                   embed_dim=32, head_dim=16, max_distance=15)
net = randomize(UNet(SMALL)).double().eval()


def leak(net, t=5, k=3):
    """How far packed is from separate; and how much each output frame moves when the second image changes."""
    z = torch.randn(1, 1, t + k, 16, 16, generator=generator(2), dtype=F64)
    level = torch.randn(1, t + k, generator=generator(3), dtype=F64)
    cond = torch.randn(1, t + k, 32, generator=generator(4), dtype=F64)
    changed = z.clone()
    changed[:, :, t + 1] += 1
    with torch.no_grad():
        packed = net(z, level, cond, num_images=k)
        parts = [slice(0, t), *(slice(j, j + 1) for j in range(t, t + k))]
        separate = torch.cat([net(z[:, :, p], level[:, p], cond[:, p]) for p in parts], dim=2)
        moved = (net(changed, level, cond, num_images=k) - packed).abs().amax((0, 1, 3, 4))
    assert packed.std() > 1e-3, "a network that outputs nothing passes every probe"
    return float((packed - separate).abs().max()), moved.tolist()


# %%
# NBVAL_CHECK_OUTPUT
difference, moved = leak(net)                                                    # frames 0 to 4 are the clip, 5 to 7 images
print("packed equals separate to 1e-10:", difference < 1e-10)
print("changing frame 6, the second image, moves frames:", [j for j, much in enumerate(moved) if much > 1e-9])


# %% [markdown]
# So packing is a convenience: two calls, one for clips and one for images, with a weighted sum of their losses, would be the same training. One call of one shape is simpler and keeps a GPU busy. Its price is attention over time on $(T + K)^2$ pairs, of which the mask throws away all but $T^2 + K$.
#
# **Three ways to break it**, all easy to write: forget the mask; let normalisation take its statistics over all frames of a pack; pass the mask to all attention layers but one. **Predict:** which of the three would you have found by looking at the picture of the mask?

# %%
def no_mask(net):
    return lambda z, level, cond, num_images=0: net(z, level, cond)


class NormOverFrames(nn.GroupNorm):
    def forward(self, x):                                                        # (T, C, H, W): the frames of one pack
        return rearrange(super().forward(rearrange(x, "t c h w -> 1 c t h w")), "1 c t h w -> t c h w")


def norm_over_frames(net):
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            module.__class__ = NormOverFrames                                    # the same weights, another forward
    return net


def one_layer_forgets(net):
    net = copy.deepcopy(net)
    layer = next(module for module in net.modules() if isinstance(module, TemporalAttention))
    layer.forward = lambda x, t, mask=None: TemporalAttention.forward(layer, x, t, None)
    return net


# %%
for twin in (None, no_mask, norm_over_frames, one_layer_forgets):
    difference, moved = leak(net if twin is None else twin(net))
    print(f"{'intact' if twin is None else twin.__name__:18s} packed - separate {difference:7.0e}   "
          "frame 6 moves the frames by " + " ".join(f"{much:.0e}" if much else "0" for much in moved))
    assert (difference < 1e-10) == (twin is None)


# %% [markdown]
# <details><summary>Answer</summary>None, if you draw what `block_mask` returns: in all three that is right, and something bypasses it. If you draw what the attention layers *get*, then the first, and the third if you look at every layer. Test the network, not the mask.</details>
#
# None of them is far-fetched: a widely used public implementation, `video-diffusion-pytorch` 0.7.0, leaks even when every frame is told to look only at itself: change frame 3, and frame 0 moves.
#
# ## 6. Whose caption, whose noise?
# A network for clips takes one caption and one noise level for each clip. If a stranger carried the *clip's* caption, the network would be taught that a picture of 1 and 0 is "3 and 7". So every frame carries its own condition, (B, T + K, D): the clip's condition T times, then each image's.
#
# The paper does not say whether images share the clip's noise level. Here each draws its own, so that one step sees more levels.
#
# The loss is the mean over all frames of the pack. That gives the clip the weight T/(T + K), two thirds at K = 8: the bias of section 1.

# %%
def per_frame(of_clips, of_images):
    """One row a clip (B, ...) and one an image (B*K, ...) -> one a frame, (B, T + K, ...)."""
    repeated = of_clips[:, None].expand(-1, T, *of_clips.shape[1:])
    return torch.cat([repeated, of_images.unflatten(0, (len(of_clips), -1))], dim=1)


def joint_loss(net, schedule, clips, images, t, keep, eps):
    """clips: a Batch of B; images: one of B*K one-frame clips; t (B, T + K): diffusion times; keep: 0 drops a caption."""
    b = len(clips.video)
    x = torch.cat([clips.video, rearrange(images.video, "(b k) c 1 h w -> b c k h w", b=b)], dim=2)
    log_snr = schedule.log_snr(t).float()
    words = net.encode(tokenize(clips.captions + images.captions))
    cond = per_frame(words[:b], words[b:]) * keep[..., None]
    output = net(q_sample(x, log_snr, eps), log_snr, cond, num_images=x.shape[2] - T)
    return loss_per_sample(output, x, eps, log_snr, "v").mean()


# %% [markdown]
# Does `utils` train with this loss? To compare, both must draw the same numbers: the lines from `g = ` to `eps = ` repeat the trainer's draws for its first step (`Trainer.loss`).

# %%
# NBVAL_CHECK_OUTPUT
trainer = Trainer(video_recipe, Budget(steps=1, batch_size=2), device="cpu", amp="off",
                  initial=load_pretrained("vdm-text", "cpu"))
assert video_recipe.num_images == K
g, schedule, drop = generator(trainer.seed, 0, 1), video_recipe.schedule, video_recipe.null_probability
t_clips, keep_clips = schedule.sample_t(2, g), torch.rand(2, generator=g) >= drop
t_images, keep_images = schedule.sample_t(2 * K, g), torch.rand(2 * K, generator=g) >= drop
eps = torch.randn(2, 1, T + K, 32, 32, generator=generator(trainer.seed, 0, 2))
clips, images = trainer.data.sample(2, index=0), trainer.images.sample(2 * K, index=0)
with torch.no_grad():
    ours = joint_loss(trainer.net, schedule, clips, images, per_frame(t_clips, t_images),
                      per_frame(keep_clips, keep_images), eps)
    equal = bool((ours - trainer.loss(0)).abs() < 1e-6)
print("our loss equals the trainer's:", equal)
assert equal

# %% [markdown]
# ## 7. A pair, trained live
# We train the recipe `vdm` twice, K = 0 and K = 8: same initial weights, same clips in the same order at the same noise levels. No captions, so that what images do for *pictures and motion* is not mixed with what they do for words. At a few points we measure the loss on held-out *clips*, without images, with the same noise for both. (A grey band, if any, is an earlier run of K = 8 of this length. If the session breaks off, run the cell again: it resumes from its last checkpoint, at most half a minute back.)
#
# **Predict:** which run is ahead after the same steps, and which after the same compute?

# %%
steps, size = {"smoke": (3, 2), "cpu": (100, 4)}.get(BUDGET, (2500, 16))
shown, quick = {"smoke": (4, 1), "cpu": (24, 8)}.get(BUDGET, (64, 8))                # held-out clips; steps of a sample on the way
pair = {k: Trainer(replace(recipe("vdm"), num_images=k), Budget(steps, size), device=DEVICE) for k in (0, K)}
weights = [run.net.state_dict() for run in pair.values()]
assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values()))      # the same start
before = sum(validation_loss(pair[0].model(), shown).values()) / len(LEVELS)

# %%
curves = {k: [] for k in pair}


def look(k):
    """What the board shows of run k; on the way, a point of its curve."""
    def samples(model):
        loss = sum(validation_loss(model, shown).values()) / len(LEVELS)
        curves[k].append((pair[k].step, pair[k].provenance()["flops"], loss))
        return model.sample(num=2, steps=quick, temporal_scale=1.0)              # plain sampling: section 9 has the recipe's
    return samples


for k, run in pair.items():
    show.train_live(run, f"07_{BUDGET}_{k}", look(k), updates=2 if BUDGET == "smoke" else 4)
    print(f"K = {k}: {curves[k][-1][1]:.2g} FLOPs; held-out loss {before:.4f} -> {curves[k][-1][2]:.4f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 2.5), layout="constrained", sharey=True)
for ax, column, name in zip(axes, (0, 1), ("step", "FLOPs")):
    for (k, curve), colour, style in zip(curves.items(), (show.ORANGE, show.BLUE), ("s--", "o-")):
        ax.plot([row[column] for row in curve], [row[2] for row in curve], style, color=colour, label=f"K = {k}")
    ax.set(xlabel=name)
axes[0].set_ylabel("loss on held-out clips")
figure.suptitle("the same two runs: for each step, and for what they cost", fontsize=11)
axes[0].legend();

# %%
# NBVAL_CHECK_OUTPUT
print("both saw the same clips:", torch.equal(*[run.data.sample(2, index=0).video for run in pair.values()]))
print("both learnt, on held-out clips:", all(curve[-1][2] < before for curve in curves.values()))

# %%
SAMPLING = {"smoke": 4}.get(BUDGET, 16)
samples = torch.cat([run.model().sample(num=2, steps=SAMPLING, temporal_scale=1.0, seed=3) for run in pair.values()])
names = [f"K = {k}" for k in pair for _ in range(2)]
show.film_strip(samples, names, every=2, title=f"trained here, {steps} steps of {size} clips; same noise")

# %% [markdown]
# <details><summary>What to look for</summary>
#
# Left: after the same steps the curves lie close together, the one with images a little lower; one pair of runs cannot say whether that is luck. Right: at the same cost the run without images is ahead, as it has taken half as many steps again. (Not quite fair: that run has finished, with its learning rate at zero, while the other is two thirds through. Section 8 compares runs of equal cost that have both finished.)
# </details>
#
# A short run has its limits: after a hundred steps (on a CPU) samples are blobs, not digits. And one pair is one draw. To know, take several seeds.
#
# ## 8. Nine runs, the same clips
# K = 0, 4 and 8, three seeds each, made by `python -m utils.compare joint` (if interrupted, the same command resumes) before the series used Muon: with Adam, at a learning rate of 1e-3. The runs of one seed start from the same weights and see the same clips, so a run with images costs more. We measure loss on held-out clips, and the kernel distance of sampled clips to real ones (lesson 04) with its floor, what real clips get. All nine are shown; none was picked.

# %%
rows = json.loads((ASSETS / "results" / "video-joint.json").read_text())
losses = {(r["num_images"], r["seed"]): torch.tensor(list(r["validation_loss"].values()), dtype=F64) for r in rows}
distances = {(r["num_images"], r["seed"]): r["kernel_distance"] for r in rows}
seeds, last = sorted({seed for _, seed in losses}), rows[-1]
print(f"{last['clips']:,} clips a run, {last['device']}; distances: n = {last['n']}, 16 steps")
print(f"{'K':3s}{'FLOPs':>9s}{'seed':>6s}{'loss':>9s}{'distance':>10s}")
for r in sorted(rows, key=lambda r: (r["num_images"], r["seed"])):
    key = r["num_images"], r["seed"]
    print(f"{key[0]:<3d}{r['flops']:9.2g}{key[1]:6d}{losses[key].mean():9.4f}{distances[key]:10.3f}")
print(f"{'real clips (floor)':27s}{last['kernel_distance_floor']:10.3f}")


# %%
def interval(numbers, t=4.303):
    """Mean of three numbers and the half-width of its 95% interval (Student's t, two degrees of freedom: 4.303)."""
    numbers = torch.tensor(numbers, dtype=F64)
    assert len(numbers) == 3
    return float(numbers.mean()), float(t * numbers.std() / len(numbers) ** 0.5)


def compared(values, what):
    for k in (4, 8):
        mean, half = interval([float(values[k, seed] - values[0, seed]) for seed in seeds])
        verdict = "better" if mean + half < 0 else "worse" if mean - half > 0 else "cannot tell"
        print(f"{what:16s} K = {k}: {mean:+.4f} ± {half:.4f} {verdict}")


print("minus the same seed's K = 0, with 95% interval")
compared({key: loss.mean() for key, loss in losses.items()}, "loss, mean")
for column, level in enumerate(LEVELS):
    compared({key: loss[column] for key, loss in losses.items()}, f"loss at {level:g}")
compared(distances, "kernel distance")
assert all(losses[8, seed].mean() < losses[0, seed].mean() for seed in seeds)    # the text below says so

# %% [markdown]
# **With eight images the mean loss is lower, in each of the three seeds.** With four the mean cannot tell; nor can the distances of samples: after such short training, all samples are far from real clips (the floor).
#
# An interval says how far the difference would move with other *seeds*; all runs are measured on the same held-out clips. With three seeds it extends two and a half standard deviations to each side, so "cannot tell" is not "no difference". And among fourteen intervals at 95% one may well miss the truth: look for a pattern, not at a single line. Here the gain of K = 8 is largest in weak noise (1 and 4), where shapes are drawn, though each of these intervals holds 0; it is absent at −5 and −2, where motion is decided. Only at −8 do the intervals exclude 0, for both K: little more than the mean of all clips can be learnt there, and images help with that. Section 1 expects images to teach shapes, not motion; these runs fit that but do not show it.
#
# The paper's own table, of large runs with text: a Fréchet video distance (FVD, smaller is better) of 202, 68 and 58 for K = 0, 4 and 8, and single frames improved likewise. Ours are small runs without captions, measured in other features: compare only the *direction*.
#
# **The other question: at equal cost?** Then the run without images sees half as many clips again, or takes half as many steps again. `python -m utils.compare settings` trained `vdm-text` in these settings, one run each, with FLOPs equal to within 2%, and Adam at 1e-3 where no other rate is named (compare the rows only with each other):

# %%
print("loss at log-SNR".ljust(24) + "".join(f"{level:>8g}" for level in LEVELS))
for r in json.loads((ASSETS / "results" / "video-settings.json").read_text()):
    print(r["variant"])
    print(f"{r['steps']:6d} steps, {r['clips']} clips" + "".join(f"{loss:8.4f}" for loss in r["validation_loss"].values()))

# %% [markdown]
# One run per setting, so only large gaps count; the loss is on clips alone. With 8 clips a step, and with 2, the images do *not* pay for themselves at equal cost: the run without them sees half as many clips again and is as good or better at nearly every level. At such a small budget, fewer clips per step, and more steps, help most.
#
# `vdm-text` is still trained with images: they carry captions, and we hope that an image teaches what a word means at a sixteenth of a clip's price. This loss would hardly show that, and we have no other measure of it.
#
# (*Chosen* is the setting that the rows below it vary. The other rows: twice the learning rate and attention over time at 16×16 help a little; a second block at 8×8 costs more than it brings; min-SNR 5 makes the loss in strong noise much worse. The shipped weights had some 43,000 steps of 4 or 8 clips on a CPU first, and then 3,710 steps of 128 on a GPU, with most of the FLOPs.)
#
# ## 9. What images are good for afterwards: temporal guidance
# [Guidance](03_guidance.ipynb#4.-Where-guidance-comes-from) needs a network that was trained with the caption and without, and exaggerates the difference. Joint training left us a network that was trained with *the other frames* and without: a single image is a frame whose fifteen neighbours were dropped. So what the neighbours change can be exaggerated just as well:
#
# $$\hat v = \hat v_\text{frames} + \omega\,(\hat v_\text{clip} - \hat v_\text{frames})$$
#
# $\hat v_\text{clip}$ is the network's output for the clip, $\hat v_\text{frames}$ for each of its frames as an image of its own. Esser et al. (2023) sampled their jointly trained model like this. It needs no captions: for `vdm` it is the only guidance there is, at the usual price of a second call of the network.
#
# **Predict:** what do $\omega = 0$, $1$, $1.3$ and $3$ look like?

# %%
from utils.samplers import temporally_guided
vdm, DRAWING = load_pretrained("vdm", device=DEVICE, amp="auto"), {"smoke": 4}.get(BUDGET, 32)
scales = [0.0, 1.0, 1.3, 3.0]
drawn = torch.cat([vdm.sample(num=2, steps=DRAWING, temporal_scale=scale, seed=5) for scale in scales])
show.film_strip(drawn, [f"ω = {scale:g}" for scale in scales for _ in range(2)], every=2, title="the same noise, the shipped weights of vdm")


# %% [markdown]
# <details><summary>Answer</summary>
#
# $\omega = 0$: sixteen unrelated images, as no frame knows of another. $\omega = 1$: the network as trained. Above, what frames have in common is exaggerated. A little of that is hard to see in two clips (the next table sees it); at 3 it is far too much, and strokes swell into white blobs.
# </details>
#
# In code it is a few lines around the network. The library's is the same:

# %%
# NBVAL_CHECK_OUTPUT
def with_temporal_guidance(net, z, log_snr, omega):
    """The guided v for clips z (B, 1, T, H, W) at log_snr (B,)."""
    images = rearrange(z, "b c t h w -> (b t) c 1 h w")                    # a clip of one frame is an image
    frames = rearrange(net(images, log_snr.repeat_interleave(z.shape[2])), "(b t) c 1 h w -> b c t h w", b=len(z))
    return frames + omega * (net(z, log_snr) - frames)


z, level = torch.randn(2, 1, T, 32, 32, generator=generator(19)).to(DEVICE), torch.tensor([-3.0, 0.0]).to(DEVICE)
with torch.no_grad():
    ours, theirs = with_temporal_guidance(vdm.net, z, level, 1.3), temporally_guided(vdm.net, 1.3)(z, level)
print("ours equals the library's:", torch.allclose(ours.cpu(), theirs.cpu(), atol=1e-4))

# %% [markdown]
# Two clips a setting are an anecdote. Measured once with more, on validation digits, as the recipe's setting is chosen by these numbers (`python -m utils.sweep temporal vdm`): pixels off the best bouncing path, frames that look like their clip's digit, and the kernel distance to real clips with its 95% interval ([lesson 04](04_moving_mnist.ipynb#9.-Reading-a-clip)).

# %%
turned = json.loads((ASSETS / "results" / "vdm-temporal.json").read_text())
print(f"vdm, n = {turned['n']}, {turned['steps']} steps, {turned['device']}")
for name, r in turned["rows"].items():
    print(f"{name.replace('temporal', 'ω ='):9s}off the path {r['rmse']:.2f} px   identity {r['identity']:.1%}   distance {r['kernel_distance']:.2f} [{r['kernel_distance_low']:.2f}, {r['kernel_distance_high']:.2f}]")
plain, usual, strong = (turned["rows"][f"temporal {scale}"] for scale in ("1", "1.3", "2"))
assert vdm.recipe.temporal_scale == 1.3 and usual["rmse"] < 0.77 * plain["rmse"] and usual["identity"] > plain["identity"] and usual["kernel_distance"] < plain["kernel_distance"]      # the text below says so
assert strong["rmse"] < usual["rmse"] and strong["identity"] > usual["identity"] and strong["kernel_distance"] > 4 * plain["kernel_distance"]

# %% [markdown]
# <details><summary>What to see</summary>
#
# At 0 there are no paths to speak of. From 1 to 1.3 paths are straighter by a quarter, more frames look like their clip's digit, and the distance is no larger (the intervals overlap). Further up, path and identity still gain, but clips move away from real ones: at 2 they are four times as far as without guidance. It is the bargain of guidance ([lesson 03](03_guidance.ipynb)): what is exaggerated improves, and other things pay. So the recipe takes 1.3, and the clips of `vdm` in the [README](../README.md#what-the-shipped-models-make) are sampled with it.
#
# `vdm-text` and `mav` do without: they have captions to be guided by, and the calls of the network that this costs are spent there.
# </details>
#
# ## 10. Play
# You choose how much of a pack is images, and with it who sees whom. Change the two numbers (sliders on Colab), run the cell, and look at cost and mask:

# %%
num_frames = 16  #@param {type:"slider", min:1, max:32, step:1}
num_images = 8  #@param {type:"slider", min:0, max:32, step:1}
clip_flops, pack_flops = (measure(video_recipe.net, (1, num_frames, 32, 32), k).flops for k in (0, num_images))
print(f"{num_frames} frames and {num_images} images: {pack_flops / clip_flops:.2f} times the clip's cost, "
      f"{1 + num_images} scenes")
figure, ax = plt.subplots(figsize=(2.4, 2.4), layout="constrained")
ax.imshow(block_mask(num_frames, num_images).float().numpy(), cmap="Blues", vmin=0, vmax=1.3)
ax.set(title="who sees whom", xlabel="looks at frame", ylabel="frame");


# %% [markdown]
# | if it looks like this | then look at |
# |---|---|
# | packed and separate differ by 1e-3 or more | normalisation whose statistics run over frames; a layer that does not get the mask (section 5) |
# | the error grows towards the end of the clip | a missing mask (section 3) |
# | captions are ignored although images have them | whether images carry the clip's caption (section 6) |
# | loss on packs falls, loss on clips does not | the weight of images in the mean: K against T (section 6) |
#
# ## 11. Faithful? The box
#
# | the paper says | we do | why |
# |---|---|---|
# | K = 8 images from random other videos behind each clip of 16 frames | first frames of other clips | any frame of Moving MNIST is as good as another |
# | temporal attention masked: an image sees only itself | the same, one mask for all layers | |
# | whether images share the clip's noise level or caption: not stated | each its own | a step sees more levels; a wrong caption would teach a falsehood |
# | text-conditional, 16×64×64, K = 0, 4, 8 | without captions in the table, 16×32×32, three seeds | one knob at a time; the table prints what a run cost |
# | no temporal guidance | `vdm` is sampled with $\omega = 1.3$; lessons that train or compare say so where they do without | Esser et al. 2023 (section 9) |
#
# ## 12. Exercises
# ### Exercise 1 · Pack more than one clip (difficulty ●●○, importance ●●●, 10 minutes)
# Short clips can share a pack, too. Given the lengths of all blocks (an image has length 1), return the mask.

# %%
def many_blocks(lengths):
    """lengths: frames of each block, in order -> (sum, sum) bool, True where frame i may look at frame j."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_many_blocks(lengths):
    block = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return block[:, None] == block[None, :]


many_blocks = check("exercise 1", many_blocks, reference_many_blocks,
                    ([1, 2, 1],), ([8, 8, 1, 1, 1],), ([1],), ([4, 1, 1],))

# %%
figure, ax = plt.subplots(figsize=(2.4, 2.4), layout="constrained")
ax.imshow(torch.as_tensor(many_blocks([6, 10, *[1] * K])).float().numpy(), cmap="Blues", vmin=0, vmax=1.3)
ax.set(title="two clips, eight images", xlabel="looks at frame", ylabel="frame");


# %% [markdown]
# <details><summary>Hint</summary>Give every frame the number of its block (`torch.repeat_interleave`); two frames see each other where the numbers are equal.</details>
# <details><summary>Solution</summary>
#
# ```python
# block = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
# return block[:, None] == block[None, :]
# ```
#
# Modern transformers pack sequences of all lengths in this way (Dehghani et al. 2023).
# </details>
#
# ### Exercise 2 · What the money buys (difficulty ●○○, importance ●●○, 5 minutes)
# Let one frame cost 1: then a clip costs `t` and an image 1 (attention over time costs so little that section 1 agrees). For a `budget` in these units and `k` images per clip, return how many *scenes* (clips and images) and how many *clips* training sees.

# %%
def bought(budget, t, k):
    """-> (scenes, clips), as floats."""
    return ...  # your lines here


# %%
#@title Check (holds the reference answer: look inside when you have tried)
def reference_bought(budget, t, k):
    clips = budget / (t + k)
    return clips * (1 + k), clips


bought = check("exercise 2", bought, reference_bought, (2400, 16, 0), (2400, 16, 8), (1000, 4, 1))
print("K = 0:", bought(2400, 16, 0), "  K = 8:", bought(2400, 16, 8))

# %% [markdown]
# <details><summary>Hint</summary>A pack costs t + k. How many packs does the budget buy?</details>
# <details><summary>Solution</summary>
#
# ```python
# clips = budget / (t + k)
# return clips * (1 + k), clips
# ```
#
# Six times the scenes, but a third fewer clips, and motion is learnt from clips alone.
# </details>
#
# ## 13. Quiz
# 1. Why may convolutions and attention over space stay as they are?
# 2. An image has no neighbours in time. What does attention over time do to it under the mask?
# 3. The mask is right, yet packed and separate differ. Where do you look?
# 4. Why does the table compare runs of one seed with each other before it takes the mean?
# 5. Would temporal guidance work with the network trained with K = 0?
#
# <details><summary>Answers</summary>
#
# 1. They treat frames as a batch: what is behind a frame on the time axis does not reach it.
# 2. It attends to itself with weight 1: its own value, plus the vector for distance 0, goes through the output layer.
# 3. Normalisation: does it take statistics over frames? Then each attention layer: does it get the mask?
# 4. Two runs of one seed share their start, clips and noise levels; what these do to both runs alike cancels in the difference.
# 5. Not as meant: it never saw an image by itself, so what it says of one is not what frames look like without their neighbours, and the difference is not what neighbours add.
# </details>
#
# ## What was shown, and what was not
# Shown: what leaks without a mask; that packed equals separate to rounding error; a joint loss equal to the trainer's; a live pair; nine runs with their uncertainty, in which eight images lower the loss for the same clips; single runs in which they do not for the same cost; temporal guidance, which makes better samples from the same weights. Not shown: that images in *training* make better samples; what a *large* run gains (`python -m utils.compare joint` on a GPU is one command); the quality of single images; images from another source than the videos, which is where this becomes text-to-video without captioned clips (lesson 10).
#
# Next: [lesson 08](08_reconstruction_guidance.ipynb) takes the trained model and continues from given frames.
#
# ## Readings
# - Ho, Salimans, Gritsenko, Chan, Norouzi, Fleet, *Video Diffusion Models*, 2022 (arXiv 2204.03458): the mask in section 3, the table of K in section 4.3.1.
# - Ho et al., *Imagen Video*, 2022 (arXiv 2210.02303): images and videos trained jointly at scale, in a cascade.
# - Singer et al., *Make-A-Video*, 2022 (arXiv 2209.14792): images carry the text, videos only the motion (lessons 09 to 12).
# - Esser, Chiu, Atighehchian, Granskog, Germanidis, *Structure and Content-Guided Video Synthesis with Diffusion Models*, 2023 (arXiv 2302.03011): temporal guidance, there along the null condition.
# - Hyung et al., *Spatiotemporal Skip Guidance*, 2024 (arXiv 2411.18664): guidance away from the same network with layers skipped, for networks that never saw single images.
# - Dehghani et al., *Patch n' Pack: NaViT*, 2023 (arXiv 2307.06304): packing with block-diagonal masks, for images of all sizes.
