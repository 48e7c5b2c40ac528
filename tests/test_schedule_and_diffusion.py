"""Schedules, parameterizations and samplers against closed forms and the numbers of the papers."""

import math

import pytest
import torch

from utils.diffusion import loss_per_sample, q_sample, target, to_eps, to_x
from utils.runtime import generator
from utils.samplers import ancestral_step, ddim_step, guided_denoiser, sample_loop
from utils.schedule import CosineSchedule, LinearBetaSchedule, alpha_sigma

COSINE, LINEAR = CosineSchedule(), LinearBetaSchedule()
F64 = torch.float64


def test_cosine_log_snr():
    t = torch.linspace(0, 1, 10_001, dtype=F64)
    log_snr = COSINE.log_snr(t)
    assert log_snr.dtype == F64
    assert COSINE.log_snr(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([20, 0, -20], abs=1e-9)
    alpha, sigma = alpha_sigma(log_snr)
    assert float((alpha - torch.cos(math.pi * t / 2)).abs().max()) == pytest.approx(4.54e-5, abs=1e-7)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(t), atol=1e-15)
    in_float32 = -2 * torch.log(torch.tan(torch.tensor(math.atan(math.exp(10)), dtype=torch.float32)))
    assert float(in_float32) == pytest.approx(-20.0011, abs=1e-3)  # why schedules are float64


def test_linear_beta_schedule():
    abar, beta = LINEAR.alphas_cumprod(), LINEAR.betas()
    assert float(abar[1]) == pytest.approx(0.9999, abs=1e-12)
    assert float(abar[1000]) == pytest.approx(4.0358e-5, rel=1e-4)
    assert float(LINEAR.log_snr(1.0)) == pytest.approx(-10.118, abs=1e-3)
    posterior = beta * (1 - abar[:-1]) / (1 - abar[1:])
    assert float(posterior[0]) == 0.0
    assert float(LINEAR.log_snr(0.0)) == math.inf
    t = LINEAR.sample_t(5000, generator(0))
    assert t.min() >= 1 / 1000 and t.max() == 1 and torch.equal(t * 1000, (t * 1000).round())
    assert LINEAR.times(1000).mul(1000).round().long().tolist() == list(range(1000, -1, -1))


def test_three_forms_of_the_posterior_mean_agree():
    abar, beta = LINEAR.alphas_cumprod(), LINEAR.betas()
    x, eps = torch.randn(2, 999, dtype=F64, generator=generator(0))
    i = torch.arange(2, 1001)
    z = abar[i].sqrt() * x + (1 - abar[i]).sqrt() * eps
    b = beta[i - 1]
    eps_form = (z - b / (1 - abar[i]).sqrt() * eps) / (1 - b).sqrt()
    posterior_form = (abar[i - 1].sqrt() * b * x + (1 - b).sqrt() * (1 - abar[i - 1]) * z) / (1 - abar[i])
    log_snr_form = torch.stack([ancestral_step(z[k:k + 1], x[k:k + 1], LINEAR.log_snr((k + 2) / 1000), LINEAR.log_snr((k + 1) / 1000))[0]
                                for k in range(999)])
    assert (eps_form - posterior_form).abs().max() < 1e-12
    assert (log_snr_form - posterior_form).abs().max() < 1e-12


@pytest.mark.parametrize("schedule", [COSINE, LINEAR])
def test_time_outside_the_unit_interval_is_refused(schedule):
    with pytest.raises(ValueError, match="0 .data. to 1 .noise"):
        schedule.log_snr(1.5)


@pytest.mark.parametrize("prediction", ["eps", "x", "v"])
def test_parameterizations_round_trip(prediction):
    x, eps = torch.randn(2, 64, 3, 4, dtype=F64, generator=generator(1))
    log_snr = torch.linspace(-12, 12, 64, dtype=F64)
    z = q_sample(x, log_snr, eps)
    output = target(x, eps, log_snr, prediction)
    assert (to_x(output, z, log_snr, prediction) - x).abs().max() < 1e-9
    assert (to_eps(to_x(output, z, log_snr, prediction), z, log_snr) - eps).abs().max() < 1e-9
    if prediction == "v":
        alpha, sigma = (k[:, None, None] for k in alpha_sigma(log_snr))
        assert (sigma * z + alpha * output - eps).abs().max() < 1e-12


def test_errors_scale_with_snr_and_min_snr_is_one_loss_for_all_three():
    x, eps, error = torch.randn(3, 64, 5, dtype=F64, generator=generator(2))
    log_snr = torch.linspace(-6, 6, 64, dtype=F64)
    z, snr = q_sample(x, log_snr, eps), log_snr.exp()
    wrong_x = x + 0.1 * error
    wrong_eps = to_eps(wrong_x, z, log_snr)
    wrong_v = target(wrong_x, wrong_eps, log_snr, "v")
    dx = (wrong_x - x).square().mean(1)
    assert torch.allclose((wrong_eps - eps).square().mean(1), snr * dx, rtol=1e-9)
    assert torch.allclose((wrong_v - target(x, eps, log_snr, "v")).square().mean(1), (1 + snr) * dx, rtol=1e-9)
    losses = [loss_per_sample(w, x, eps, log_snr, p, min_snr=5.0) for w, p in ((wrong_x, "x"), (wrong_eps, "eps"), (wrong_v, "v"))]
    assert torch.allclose(losses[0], losses[1], rtol=1e-4) and torch.allclose(losses[0], losses[2], rtol=1e-4)
    assert torch.allclose(losses[0].double(), snr.clamp(max=5) * dx, rtol=1e-4)


def gaussian_denoiser(std, mean=0.0):
    """The exact denoiser of data N(mean, std^2)."""
    def denoise(z, log_snr):
        alpha, sigma = (k[:, None].to(z) for k in alpha_sigma(log_snr))
        eps = sigma * (z - alpha * mean) / (alpha**2 * std**2 + sigma**2)
        return (z - sigma * eps) / alpha
    return denoise


def scale_of(sampler, n, std=0.5, **options):
    """The standard deviation of samples started from N(0, 1): exact for a linear sampler, by pushing 1 and unit noises through it."""
    log_snrs = COSINE.log_snr(COSINE.times(n))
    denoise, variance = gaussian_denoiser(std), torch.ones((), dtype=F64)
    for k in range(n):
        t, s = log_snrs[k], log_snrs[k + 1]
        one, zero = torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)
        step = {"ddim": ddim_step, "ancestral": ancestral_step}[sampler]
        noise = one if k < n - 1 else None
        gain = step(one, denoise(one, t.expand(1)), t, s, None if noise is None else zero, **options)
        spread = torch.zeros(()) if noise is None else step(zero, denoise(zero, t.expand(1)), t, s, noise, **options)
        variance = (gain**2 * variance + spread**2).squeeze()
    return float(variance.sqrt())


@pytest.mark.parametrize(("n", "std"), [(10, .42805), (25, .47006), (50, .48481), (100, .49235), (200, .49616), (1000, .49923)])
def test_ddim_on_a_gaussian(n, std):
    assert scale_of("ddim", n) == pytest.approx(std, abs=1e-5)


@pytest.mark.parametrize(("gamma", "std"), [(0, .474), (.1, .477), (.3, .483), (1, .507)])
def test_ancestral_on_a_gaussian(gamma, std):
    assert scale_of("ancestral", 64, gamma=gamma) == pytest.approx(std, abs=2e-3)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_ancestral_variance_bounds_are_exact_where_they_should_be(n):
    assert scale_of("ancestral", n, std=1e-12, gamma=0) == pytest.approx(0, abs=1e-4)  # a point mass, lower variance
    one, zero, log_snrs = torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64), COSINE.log_snr(COSINE.times(n + 1))
    for t, s in zip(log_snrs[:-1], log_snrs[1:]):  # N(0, 1) stays N(0, 1) under the upper variance, whatever the step
        gain = ancestral_step(one, gaussian_denoiser(1.0)(one, t.expand(1)), t, s, zero, gamma=1)
        spread = ancestral_step(zero, zero, t, s, one, gamma=1)
        assert float(gain**2 + spread**2) == pytest.approx(1, abs=1e-12)


def test_sample_loop_draws_the_gaussian():
    denoise = gaussian_denoiser(0.5, mean=0.25)
    z = torch.randn(20_000, 1, dtype=F64, generator=generator(3))
    *_, last = sample_loop(denoise, z, COSINE.log_snr(COSINE.times(100)), clip=False)
    assert float(last.z.mean()) == pytest.approx(0.25, abs=0.02) and float(last.z.std()) == pytest.approx(0.49235, abs=0.01)
    broken = sample_loop(denoise, z, COSINE.log_snr(COSINE.times(100)).flip(0).clamp(-3, 3), clip=False)
    *_, wrong = broken  # time run backwards must not pass
    assert abs(float(wrong.z.std()) - 0.49235) > 0.05


def test_ddim_with_eta_one_has_the_posterior_variance():
    abar, beta = LINEAR.alphas_cumprod(), LINEAR.betas()
    for i in (2, 17, 500, 1000):
        zero, one = torch.zeros(1, 1, dtype=F64), torch.ones(1, 1, dtype=F64)
        t, s = LINEAR.log_snr(i / 1000), LINEAR.log_snr((i - 1) / 1000)
        spread = float(ddim_step(zero, zero, t, s, one, eta=1.0))
        assert spread**2 == pytest.approx(float(beta[i - 1] * (1 - abar[i - 1]) / (1 - abar[i])), rel=1e-9)


def test_ddim_and_ddpm_equal_diffusers():
    schedulers = pytest.importorskip("diffusers", reason="installed by tests/run.sh")
    x_hat, z = torch.rand(2, 3, 4, 4, dtype=F64, generator=generator(4)) * 2 - 1
    ddim = schedulers.DDIMScheduler(1000, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing")
    ddim.set_timesteps(20)
    for timestep in ddim.timesteps[:-1]:
        t, s = LINEAR.log_snr((timestep + 1) / 1000), LINEAR.log_snr((timestep + 1 - 50) / 1000)
        eps = to_eps(x_hat, z, t.expand(3))
        theirs = ddim.step(eps, int(timestep), z, eta=0.0).prev_sample
        assert (theirs - ddim_step(z, x_hat, t, s)).abs().max() < 1e-5  # their alphas are float32
    ddpm = schedulers.DDPMScheduler(1000, clip_sample=False, variance_type="fixed_small")
    for timestep in (1, 10, 500, 999):
        t, s = LINEAR.log_snr((timestep + 1) / 1000), LINEAR.log_snr(timestep / 1000)
        theirs = ddpm.step(to_eps(x_hat, z, t.expand(3)), timestep, z, generator=generator(7)).prev_sample
        noise = torch.randn(z.shape, generator=generator(7), dtype=F64)
        assert (theirs - ancestral_step(z, x_hat, t, s, noise, gamma=0)).abs().max() < 1e-4


def test_guidance_scale_zero_one_and_linear_in_between():
    def net(z, log_snr, cond=None, **_):
        return z * 0.3 + (0 if cond is None else cond[:, :, None])
    z, cond, log_snr = torch.randn(2, 4, 5, generator=generator(5)), torch.randn(2, 4, generator=generator(6)), torch.tensor([0.0, 1.0])
    for prediction in ("eps", "x", "v"):
        at = {g: guided_denoiser(net, cond, g, prediction)(z, log_snr) for g in (0.0, 1.0, 3.0)}
        null = guided_denoiser(net, None, 3.0, prediction)(z, log_snr)
        assert torch.allclose(at[0.0], null, atol=1e-6)
        assert torch.allclose(at[1.0], to_x(net(z, log_snr, cond), z, log_snr, prediction), atol=1e-6)
        assert torch.allclose(at[3.0], null + 3 * (at[1.0] - null), atol=1e-4)  # guiding x, eps or v is the same


def test_sampler_errors():
    z = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="ddim, ancestral"):
        next(sample_loop(lambda z, l: z, z, torch.tensor([-1.0, 1.0]), sampler="magic"))
    with pytest.raises(ValueError, match="one generator for each of the 2"):
        next(sample_loop(lambda z, l: z, z, torch.tensor([-1.0, 1.0]), sampler="ancestral"))
    with pytest.raises(ValueError, match="1000 steps; 2000"):
        LINEAR.times(2000)
