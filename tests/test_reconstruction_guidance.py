"""Sampling that agrees with what is given: the method against a Gaussian with its exact conditional, the model's `inpaint`, `extend` and `super_resolve`, and every way to ask wrongly."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from utils.captions import CaptionError
from utils.model import Model
from utils.recipes import MNIST_GUIDED, VDM, VDM_TEXT
from utils.runtime import autocast, generator
from utils.samplers import Known, guided_denoiser, reconstruction_denoiser, sample_loop
from utils.schedule import CosineSchedule, alpha_sigma
from utils.unet import UNet, UNetConfig, randomize

F64, RHO, NUM = torch.float64, 0.9, 40_000
NET = UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(True, True), embed_dim=16, head_dim=8, text_width=16)
SMALL = replace(VDM_TEXT, net=NET, sample_shape=(1, 16, 8, 8))


@pytest.fixture(scope="module")
def model():
    return Model(SMALL, randomize(UNet(NET)), device="cpu")


def clips(num=2, frames=16, size=8, seed=0):
    return torch.rand(num, 1, frames, size, size, generator=generator(seed))


# The mathematics


def pair_denoiser(z, log_snr):
    """The exact denoiser of pairs with unit variances and correlation RHO; z (1, 2, NUM)."""
    alpha, sigma = (float(k) for k in alpha_sigma(log_snr[0]))
    covariance = torch.tensor([[1, RHO], [RHO, 1]], dtype=F64)
    return (alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2, dtype=F64))) @ z


def conditioned(weight, steps, langevin, denoise=pair_denoiser):
    """Slope and residual deviation of the second number on the first, which is given; the truth is RHO and sqrt(1 - RHO^2)."""
    x = torch.zeros(1, 2, NUM, dtype=F64)
    x[:, 0] = torch.randn(NUM, generator=generator(1), dtype=F64)
    mask = torch.tensor([True, False])[None, :, None]
    if weight:
        denoise = reconstruction_denoiser(denoise, lambda x_hat: torch.where(mask, x_hat, 0), x, weight, ~mask)
    schedule = CosineSchedule()
    z = torch.randn(1, 2, NUM, generator=generator(2), dtype=F64)
    *_, state = sample_loop(denoise, z, schedule.log_snr(schedule.times(steps)), [generator(3)], "ancestral", gamma=0.0, langevin=langevin, clip=False,
                            known=Known(x, mask, [generator(4)]))
    first, second = x[0, 0], state.z[0, 1]
    slope = float((first @ second) / (first @ first))
    return slope, float((second - slope * first).std())


@pytest.mark.parametrize(("weight", "ancestral", "langevin"), [
    (0, (.62, .55), (.73, .51)), (1, (.76, .48), (.84, .45)), (2, (.855, .418), (.907, .407)), (4, (.98, .34), (.98, .35)), (9, (1.09, .27), (1.05, .30))])
def test_a_correlated_pair(weight, ancestral, langevin):
    assert conditioned(weight, 256, 0.0) == pytest.approx(ancestral, abs=0.012)
    assert conditioned(weight, 128, 0.1) == pytest.approx(langevin, abs=0.012)


def test_the_exact_conditional_is_what_the_table_is_judged_by():
    def exact(z, log_snr):  # given the first number x, the second is N(RHO x, 1 - RHO^2): its denoiser, in which the first is known exactly
        alpha, sigma = (float(k) for k in alpha_sigma(log_snr[0]))
        first, variance = torch.randn(NUM, generator=generator(1), dtype=F64), 1 - RHO**2
        mean = RHO * first
        second = mean + alpha * variance / (alpha**2 * variance + sigma**2) * (z[0, 1] - alpha * mean)
        return torch.stack([first, second])[None]

    assert conditioned(0, 256, 0.0, exact) == pytest.approx((RHO, math.sqrt(1 - RHO**2)), abs=0.012)


def test_the_correction_of_a_linear_denoiser_is_its_closed_form():
    matrix = torch.randn(6, 6, generator=generator(0), dtype=F64)
    z, x = torch.randn(2, 3, 6, generator=generator(1), dtype=F64)
    log_snr = torch.tensor([-3.0, 0.0, 4.0], dtype=F64)
    given = torch.tensor([True, True, False, False, False, False])
    corrected = reconstruction_denoiser(lambda z, _: z @ matrix.T, lambda x_hat: x_hat[:, :2], x[:, :2], 5.0, ~given)(z, log_snr)
    x_hat, alpha = z @ matrix.T, alpha_sigma(log_snr)[0][:, None]
    expected = x_hat - 5.0 * alpha * ((x_hat - x)[:, :2] @ matrix[:2]) * ~given  # w alpha / 2 times the gradient of a *sum* of squares
    assert torch.allclose(corrected, expected, atol=1e-12)
    everywhere = reconstruction_denoiser(lambda z, _: z @ matrix.T, lambda x_hat: x_hat[:, :2], x[:, :2], 5.0)(z, log_snr)
    assert torch.allclose(everywhere[:, 2:], expected[:, 2:], atol=1e-12) and not torch.allclose(everywhere[:, :2], expected[:, :2], atol=0.1)


def test_the_gradient_runs_through_the_network_and_both_halves_of_its_guidance():
    net = randomize(UNet(NET)).double()
    cond, free = torch.randn(1, 16, generator=generator(0), dtype=F64), torch.arange(16)[:, None, None] >= 4
    denoise = guided_denoiser(net, cond, 3.0, "v")
    z, x = (torch.randn(1, 1, 16, 8, 8, generator=generator(k), dtype=F64) for k in (1, 2))
    log_snr, observe = torch.tensor([-1.0], dtype=F64), lambda x_hat: torch.where(free, 0, x_hat)
    with torch.no_grad():
        pull = denoise(z, log_snr) - reconstruction_denoiser(denoise, observe, observe(x), 2.0, free)(z, log_snr)
    at, step, alpha = (0, 0, 9, 3, 5), 1e-6, float(alpha_sigma(torch.tensor(-1.0))[0])

    def missed(shift):
        moved = z.clone()
        moved[at] += shift
        with torch.no_grad():
            return float((observe(denoise(moved, log_snr)) - observe(x)).square().sum())

    numerical = (missed(step) - missed(-step)) / (2 * step)
    assert abs(numerical) > 1e-4 and float(pull[at]) == pytest.approx(2.0 * alpha / 2 * numerical, rel=1e-4)
    assert pull[:, :, :4].abs().max() == 0 and pull[:, :, 4:].abs().mean() > 0


def test_frames_that_do_not_see_each_other_cannot_be_corrected():
    """What is compared is what is given: a network in which frames do not meet gets no pull at all, one in which each frame is its neighbour's gets it next door."""
    z, x = (torch.randn(1, 1, 6, 2, 2, generator=generator(k), dtype=F64) for k in (1, 2))
    free = torch.arange(6)[:, None, None] != 2
    log_snr, observe = torch.zeros(1, dtype=F64), lambda x_hat: torch.where(free, 0, x_hat)
    for denoise, moved in ((lambda z, _: z * 0.5, []), (lambda z, _: z.roll(1, 2), [1])):
        pull = denoise(z, log_snr) - reconstruction_denoiser(denoise, observe, observe(x), 2.0, free)(z, log_snr)
        assert [k for k in range(6) if pull[:, :, k].abs().max() > 0] == moved


def test_what_is_known_is_noised_afresh_for_every_call():
    x, mask = torch.full((1, 20_000), 0.5, dtype=F64), torch.arange(20_000) < 10_000
    known, log_snr = Known(x, mask, [generator(0)]), torch.tensor(1.0)
    one, two = (known.put_into(torch.full_like(x, 7.0), log_snr) for _ in range(2))
    alpha, sigma = (float(k) for k in alpha_sigma(log_snr))
    assert (one[:, 10_000:] == 7).all() and float(one[:, :10_000].mean()) == pytest.approx(0.5 * alpha, abs=0.02)
    assert float(one[:, :10_000].std()) == pytest.approx(sigma, abs=0.02)
    assert abs(float(torch.corrcoef(torch.cat([one, two])[:, :10_000])[0, 1])) < 0.05


@pytest.mark.parametrize("level", [-12.0, -2.0, 8.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gradient_survives_half_precision(dtype, level):
    net = randomize(UNet(NET))
    z, x = (torch.randn(1, 1, 16, 8, 8, generator=generator(k)) for k in (1, 2))
    free, log_snr = torch.arange(16)[:, None, None] >= 4, torch.tensor([level])

    def pull(precision):
        def run(*arguments):
            with autocast(torch.device("cpu"), precision):
                return net(*arguments).float()

        denoise = guided_denoiser(run, None, 1.0, "v")
        observe = lambda x_hat: torch.where(free, 0, x_hat)  # noqa: E731
        with torch.no_grad():
            return denoise(z, log_snr) - reconstruction_denoiser(denoise, observe, observe(x), 1.0, free)(z, log_snr)

    exact, half = pull(None), pull(dtype)
    assert half.dtype == torch.float32 and exact.abs().max() > 0
    assert float((half - exact).norm() / exact.norm()) < 0.1


# The model


def test_a_mask_that_gives_nothing_samples_and_one_that_gives_everything_returns(model):
    video, captions = clips(), ["3 and 7", "1 and 0"]
    for options in ({}, {"sampler": "ancestral"}, {"langevin": 0.1}):
        free = model.inpaint(video, torch.zeros(1), captions, steps=3, seed=4, **options)
        assert torch.equal(free, model.sample(captions, steps=3, seed=4, rival_scale=0.0, **options))
    assert torch.equal(model.inpaint(video, torch.ones(1), captions, steps=2), video)


@pytest.mark.parametrize("method", ["reconstruction", "replacement"])
def test_what_is_given_stays_and_the_rest_depends_on_it(model, method):
    video = clips()
    mask = torch.zeros(2, 1, 16, 8, 8)
    mask[0, :, :3], mask[1, ..., :4] = 1, 1  # frames of one clip, the left half of the other
    done = model.inpaint(video, mask, ["3 and 7", "1 and 0"], method=method, steps=4)
    assert torch.equal(done[mask.bool()], video[mask.bool()]) and not torch.allclose(done, video, atol=0.1) and done.shape == video.shape
    other = model.inpaint(video.flip(3), mask, ["3 and 7", "1 and 0"], method=method, steps=4)
    assert (done - other).abs()[~mask.bool()].max() > 1e-3
    assert torch.equal(done, model.inpaint(video, mask, ["3 and 7", "1 and 0"], method=method, steps=4))
    assert torch.allclose(done[:1], model.inpaint(video[:1], mask[:1], ["3 and 7"], method=method, steps=4), atol=1e-4)
    unlike = model.inpaint(video, mask, ["3 and 7", "1 and 0"], method="replacement" if method == "reconstruction" else "reconstruction", steps=4)
    assert not torch.allclose(done, unlike, atol=1e-3)


def test_every_step_can_be_watched(model):
    steps = []
    done = model.inpaint(clips(1), torch.zeros(1), steps=3, watch=lambda state: steps.append((state.step, state.x_hat)))
    assert [step for step, _ in steps] == [1, 2, 3] and torch.allclose((steps[-1][1] + 1) / 2, done, atol=1e-3)


def test_weight_0_is_replacement(model):
    mask = (torch.arange(16) < 8)[:, None, None]
    assert torch.equal(model.inpaint(clips(), mask, weight=0.0, steps=3), model.inpaint(clips(), mask, method="replacement", steps=3))


@pytest.mark.parametrize(("given", "num_frames", "overlap"), [(16, 64, 8), (16, 17, 8), (16, 16, 8), (1, 16, 8), (1, 40, 15), (5, 33, 3), (20, 31, 1)])
@pytest.mark.parametrize("backward", [False, True])
def test_extensions_of_any_length_keep_what_is_given(model, monkeypatch, given, num_frames, overlap, backward):
    seen, run = [], model._run
    monkeypatch.setattr(model, "_run", lambda z, *rest: seen.append(z.shape) or run(z, *rest))
    video = clips(2, given)
    long = model.extend(video, num_frames, "3 and 7", overlap=overlap, backward=backward, method="replacement", steps=1)
    assert long.shape == (2, 1, num_frames, 8, 8) and 0 <= long.min() and long.max() <= 1
    assert torch.equal(long[:, :, -given:] if backward else long[:, :, :given], video)
    assert all(shape[2] == 16 for shape in seen)  # the network never sees more than a clip: memory does not grow
    assert len(seen) == (0 if num_frames == given else 1 + math.ceil(max(0, num_frames - given - (16 - min(overlap, given))) / (16 - overlap)))


def test_each_block_goes_on_from_the_one_before(model):
    """Longer is the shorter one and more; each block is `inpaint` of the last frames, with noise of its own."""
    video = clips(1, 16)
    short, long = (model.extend(video, frames, overlap=4, steps=2, seed=3) for frames in (28, 40))
    assert torch.equal(long[:, :, :28], short)
    mask = (torch.arange(16) < 4)[:, None, None]
    window = F.pad(video[:, :, -4:], (0, 0, 0, 0, 0, 12))
    assert not torch.allclose(model.inpaint(window, mask, steps=2, seed=3)[:, :, 4:], short[:, :, 16:], atol=1e-3)  # not the same noise in every block
    back = model.extend(video, 28, overlap=4, backward=True, steps=2, seed=3)
    assert torch.equal(back[:, :, 12:], video) and not torch.allclose(back[:, :, :12], short[:, :, 16:], atol=1e-2)


def test_an_extension_takes_the_digits_of_its_captions(model):
    video = clips()
    assert torch.equal(model.extend(video, 24, "3 moving left and 7 moving up", steps=2), model.extend(video, 24, ["3 and 7"] * 2, steps=2))
    strong = {"steps": 2, "guidance_scale": 8.0}  # random weights: what a caption changes is small
    assert not torch.allclose(model.extend(video, 24, "3 and 7", **strong), model.extend(video, 24, "1 and 0", **strong), atol=1e-3)
    with pytest.raises(CaptionError, match="sideways"):
        model.extend(video, 24, "3 moving sideways")


def test_super_resolution_agrees_with_the_small_clip(model):
    small = clips(2, 16, 4)

    def error(weight):
        done = model.super_resolve(small, weight=weight, steps=16)
        assert done.shape == (2, 1, 16, 8, 8) and 0 <= done.min() and done.max() <= 1
        return float((F.avg_pool3d(done, (1, 2, 2)) - small).square().mean())

    errors = [error(weight) for weight in (0.0, 1.0, 4.0)]
    assert errors[0] > 1.5 * errors[1] and errors[1] > errors[2]
    assert torch.equal(model.super_resolve(small, weight=0.0, steps=3), model.sample(num=2, steps=3))


MASK = (torch.arange(16) < 8)[:, None, None]


@pytest.mark.parametrize(("call", "message"), [
    (lambda m: m.inpaint(clips(), MASK.float() * 0.5), "0 and 1"), (lambda m: m.inpaint(clips(), [1, 0]), "mask is a tensor"),
    (lambda m: m.inpaint(clips(), torch.ones(7, 1, 1)), r"does not broadcast to \(2, 1, 16, 8, 8\)"),
    (lambda m: m.inpaint(clips() * 2 - 1, MASK), r"Clips are in \[0, 1\]; got values from -"), (lambda m: m.inpaint(clips() * torch.nan, MASK), r"Clips are in \[0, 1\]"),
    (lambda m: m.inpaint(clips(size=16), MASK), r"Expected clips as a tensor of shape \(N, 1, T, 8, 8\)"), (lambda m: m.inpaint(clips()[0], MASK), "Expected clips"),
    (lambda m: m.inpaint(clips(0), MASK), "Expected clips"), (lambda m: m.inpaint("clip.gif", MASK), "got str"),
    (lambda m: m.inpaint(clips(), MASK, ["3 and 7"]), "2 clips, but 1 captions"), (lambda m: m.inpaint(clips(), MASK, method="repaint"), "method must be one of reconstruction, replacement"),
    (lambda m: m.inpaint(clips(), MASK, weight=-1.0), "weight must be at least 0"), (lambda m: m.inpaint(clips(), MASK, steps=0), "steps must be at least 1"),
    (lambda m: m.extend(clips(), 15), "at least the 16 frames that are given; got 15"), (lambda m: m.extend(clips(), 32, overlap=16), "overlap must be from 1 to 15"),
    (lambda m: m.extend(clips(), 32, overlap=0), "overlap must be from 1 to 15"), (lambda m: m.super_resolve(clips(size=4), weight=-1.0), "weight must be at least 0"), (lambda m: m.super_resolve(clips(size=3)), r"\(N, 1, T, 4, 4\)"),
    (lambda m: m.super_resolve(clips(size=8)), r"\(N, 1, T, 4, 4\)"), (lambda m: m.super_resolve(None), "got NoneType")])
def test_bad_input_is_told(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_models_without_captions_and_models_of_images():
    unconditional = replace(VDM, net=replace(NET, text_width=None), sample_shape=(1, 16, 8, 8))
    model = Model(unconditional, randomize(UNet(unconditional.net)), device="cpu")
    assert model.extend(clips(1), 24, steps=1).shape == (1, 1, 24, 8, 8)
    with pytest.raises(ValueError, match="trained without captions"):
        model.extend(clips(1), 24, "3 and 7", steps=1)
    images = Model(MNIST_GUIDED, UNet(MNIST_GUIDED.net), device="cpu")
    with pytest.raises(ValueError, match="makes images"):
        images.extend(torch.rand(1, 1, 1, 28, 28), 16)


# From a real clip, noised


class GaussianDenoiser(torch.nn.Module):
    """v of the exact denoiser of numbers with mean 0 and this deviation."""

    def __init__(self, deviation):
        super().__init__()
        self.deviation = deviation

    def forward(self, z, log_snr, cond=None):
        alpha, sigma = (k.to(z).view(-1, 1, 1, 1, 1) for k in alpha_sigma(log_snr))
        return (alpha - alpha * self.deviation**2 / (alpha**2 * self.deviation**2 + sigma**2)) * z / sigma


def test_clips_that_may_lie_under_the_same_noise(model):
    """Of Gaussian numbers the deterministic sampler maps z to s z / sqrt(alpha^2 s^2 + sigma^2), whose correlation with x is that of z: alpha s / sqrt(alpha^2 s^2 + sigma^2)."""
    s = 0.2
    exact = Model(SMALL, GaussianDenoiser(s), device="cpu")
    x = s * torch.randn(64, 1, 16, 8, 8, generator=generator(11)).clamp(-4, 4)
    for level in (-2.0, 0.0, 3.0):
        made = 2 * exact.vary((x + 1) / 2, level, sampler="ddim", steps=1000, seed=3) - 1
        alpha, sigma = (float(k) for k in alpha_sigma(torch.tensor(level)))
        correlation = alpha * s / math.sqrt(alpha**2 * s**2 + sigma**2)
        assert float(torch.corrcoef(torch.stack([x.flatten(), made.flatten()]))[0, 1]) == pytest.approx(correlation, abs=0.02)
        assert float(made.std()) == pytest.approx(s, rel=0.05)
    assert (2 * exact.vary((x + 1) / 2, 15.0, sampler="ddim", steps=1000) - 1 - x).abs().max() < 0.01  # hardly any noise: the clip itself
    low = float(SMALL.schedule.log_snr(1.0))
    assert (model.vary(clips(), low, steps=4, seed=5) - model.sample(num=2, steps=4, seed=5)).abs().max() < 1e-2  # noise alone: nothing is kept
    shifted = Model(replace(SMALL, schedule=CosineSchedule(shift=-2.0)), model.net, device="cpu")  # its end is -20 up to rounding
    assert (shifted.vary(clips(), -20, steps=4, seed=5) - shifted.sample(num=2, steps=4, seed=5)).abs().max() < 1e-2
    assert (model.vary(clips(), 2.0, steps=4, seed=5) - model.sample(num=2, steps=4, seed=5)).abs().max() > 0.1
    images = Model(MNIST_GUIDED, randomize(UNet(MNIST_GUIDED.net)), device="cpu")
    assert images.vary(torch.rand(2, 1, 1, 28, 28, generator=generator(1)), 0.0, ["3", "4"], steps=2).shape == (2, 1, 1, 28, 28)
    for wrong in (-30.0, 20.0, math.nan):
        with pytest.raises(ValueError, match="log_snr must be from -20"):
            model.vary(clips(), wrong)
    with pytest.raises(ValueError, match="2 clips, but 3 captions"):
        model.vary(clips(), 0.0, ["3 and 4"] * 3)


class OneBehind(torch.nn.Module):
    """A network whose estimate of frame k is half of frame k - 1 of z: only the last frame can make that of the first one better."""

    def forward(self, z, log_snr, cond=None):
        alpha, sigma = (k.to(z).view(-1, 1, 1, 1, 1) for k in alpha_sigma(log_snr))
        return (alpha * z - 0.5 * z.roll(1, 2)) / sigma


def test_a_models_guidance_compares_the_given_frames_and_pulls_towards_them():
    model, video, seen = Model(replace(SMALL, sampler="ddim"), OneBehind(), device="cpu"), clips(2), {0.0: [], 2.0: []}
    for weight, estimates in seen.items():
        model.inpaint(video, (torch.arange(16) < 4)[:, None, None], weight=weight, steps=16, watch=lambda state, estimates=estimates: estimates.append(state.x_hat))
    pulled = (seen[2.0][0] - seen[0.0][0]).abs().amax((0, 1, 3, 4)) > 0
    assert pulled.nonzero().flatten().tolist() == [15]
    off = {weight: float((torch.stack(estimates)[:, :, :, 0] - (2 * video[:, :, 0] - 1)).square().mean()) for weight, estimates in seen.items()}
    assert off[2.0] < 0.95 * off[0.0]


def test_gamma_reaches_the_sampler(model):
    assert not torch.equal(*(model.sample(num=1, steps=4, sampler="ancestral", gamma=gamma) for gamma in (0.0, 1.0)))
