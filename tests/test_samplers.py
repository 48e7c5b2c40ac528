"""Samplers against a Gaussian with its analytic denoiser, the numbers of the papers, and diffusers."""

import math

import pytest
import torch

from utils.diffusion import to_eps, to_x
from utils.runtime import generator
from utils.samplers import RivalDenoiser, ancestral_step, ancestral_variance, ddim_step, dpm_solver_step, guided_denoiser, langevin_step, sample_loop, temporally_guided
from utils.schedule import CosineBetaSchedule, CosineSchedule, FlowSchedule, LinearBetaSchedule, alpha_sigma

COSINE, LINEAR, FLOW = CosineSchedule(), LinearBetaSchedule(), FlowSchedule()
F64 = torch.float64


def gaussian_denoiser(std, mean=0.0):
    """The exact denoiser of data N(mean, std^2)."""
    def denoise(z, log_snr):
        alpha, sigma = (k.view(-1, *[1] * (z.dim() - 1)).to(z) for k in alpha_sigma(log_snr))
        return mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (z - alpha * mean)
    return denoise


def grid(n, schedule=COSINE):
    return schedule.log_snr(schedule.times(n))


def last(states):
    *_, state = states
    return state.z


def deviation(log_snrs, std=0.5, **options):
    """Deviation of the samples of a deterministic sampler started from N(0, 1): it is linear in its start."""
    return float(last(sample_loop(gaussian_denoiser(std), torch.ones(1, 1, dtype=F64), log_snrs, clip=False, **options)))


def ancestral_deviation(n, gamma, std=0.5):
    """The same for ancestral sampling, exactly: the step is linear in z and in its noise."""
    denoise, variance = gaussian_denoiser(std), 1.0
    one, zero, log_snrs = torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64), grid(n)
    for k, (t, s) in enumerate(zip(log_snrs[:-1], log_snrs[1:])):
        gain = float(ancestral_step(one, denoise(one, t.expand(1)), t, s))
        spread = float(ancestral_step(zero, zero, t, s, one, gamma)) if k < n - 1 else 0.0
        variance = gain**2 * variance + spread**2
    return math.sqrt(variance)


@pytest.mark.parametrize(("n", "std"), [(10, .42805), (25, .47006), (50, .48481), (100, .49235), (200, .49616), (1000, .49923)])
def test_ddim_on_a_gaussian(n, std):
    assert deviation(grid(n)) == pytest.approx(std, abs=1e-5)


@pytest.mark.parametrize(("n", "error"), [(20, 1.95e-2), (40, 7.09e-3), (80, 1.91e-3), (160, 4.86e-4), (320, 1.22e-4)])
def test_dpm_solver_on_a_gaussian_uniform_in_log_snr(n, error):
    log_snrs = torch.linspace(-20, 20, n + 1, dtype=F64)
    assert abs(deviation(log_snrs, sampler="dpm++") - 0.5) == pytest.approx(error, rel=5e-3)
    assert abs(deviation(log_snrs) - 0.5) > 3 * error  # DDIM on the same grid is of first order


def test_dpm_solver_needs_a_first_order_last_step_on_a_grid_uniform_in_time():
    assert deviation(grid(10), sampler="dpm++") == pytest.approx(0.4798, abs=1e-4)
    denoise, z, before, log_snrs = gaussian_denoiser(0.5), torch.ones(1, 1, dtype=F64), (None, None), grid(10)
    for t, s in zip(log_snrs[:-1], log_snrs[1:]):
        x_hat = denoise(z, t.expand(1))
        z, before = dpm_solver_step(z, x_hat, t, s, *before), (x_hat, t)
    assert float(z) == pytest.approx(0.8507, abs=1e-4)  # without it


def test_dpm_solver_of_first_order_is_ddim():
    z, x_hat = torch.randn(2, 4, 5, dtype=F64, generator=generator(1))
    for t, s in ((-3.0, 1.0), (-math.inf, 0.0), (2.0, math.inf), (-math.inf, math.inf)):
        t, s = torch.tensor(t, dtype=F64), torch.tensor(s, dtype=F64)
        assert torch.allclose(dpm_solver_step(z, x_hat, t, s), ddim_step(z, x_hat, t, s), atol=1e-14)
        assert torch.isfinite(ancestral_step(z, x_hat, t, s, z, gamma=0.3)).all()
        assert torch.isfinite(ddim_step(z, x_hat, t, s, z, eta=1.0)).all()


@pytest.mark.parametrize(("n", "std"), [(1, 0.0), (5, .36923), (10, .43078), (50, .4854), (100, .49265)])
def test_euler_on_rectified_flow_is_ddim(n, std):
    assert deviation(grid(n, FLOW)) == pytest.approx(std, abs=1e-5)
    z, denoise, times = torch.ones(1, 1, dtype=F64), gaussian_denoiser(0.5), FLOW.times(n)  # the same by Euler on the line
    for t, s in zip(times[:-1], times[1:]):
        x_hat = denoise(z / ((1 - t) ** 2 + t**2).sqrt(), FLOW.log_snr(t)[None])
        z = z + (s - t) * (z - x_hat) / t
    assert float(z) == pytest.approx(std, abs=1e-5)


@pytest.mark.parametrize(("gamma", "std"), [(0, .474), (.1, .477), (.3, .483), (1, .507)])
def test_ancestral_on_a_gaussian(gamma, std):
    assert ancestral_deviation(64, gamma) == pytest.approx(std, abs=2e-3)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_ancestral_variance_bounds_are_exact_where_they_should_be(n):
    assert ancestral_deviation(n, gamma=0, std=1e-12) == pytest.approx(0, abs=1e-4)  # a point mass, lower variance
    one, zero, log_snrs = torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64), grid(n + 1)
    for t, s in zip(log_snrs[:-1], log_snrs[1:]):  # N(0, 1) stays N(0, 1) under the upper variance, whatever the step
        gain = ancestral_step(one, gaussian_denoiser(1.0)(one, t.expand(1)), t, s, zero, gamma=1)
        spread = ancestral_step(zero, zero, t, s, one, gamma=1)
        assert float(gain**2 + spread**2) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("options", "std"), [({"sampler": "ddim"}, .49235), ({"sampler": "dpm++"}, .5006), ({"sampler": "ancestral", "gamma": 0.0}, .483),
                                              ({"sampler": "ddim", "eta": 1.0}, .483), ({"sampler": "ddim", "langevin": 0.1}, .5)])
def test_every_sampler_draws_the_gaussian(options, std):
    num = 20_000
    z = torch.randn(num // 1000, 1000, dtype=F64, generator=generator(3))
    generators = [generator(4, i) for i in range(len(z))]
    z = last(sample_loop(gaussian_denoiser(0.5, mean=0.25), z, grid(100), generators, clip=False, **options))
    assert float(z.mean()) == pytest.approx(0.25, abs=0.02) and float(z.std()) == pytest.approx(std, abs=0.012)


def test_time_run_backwards_does_not_draw_the_gaussian():
    z = torch.randn(20_000, 1, dtype=F64, generator=generator(3))
    assert abs(float(last(sample_loop(gaussian_denoiser(0.5), z, grid(100).flip(0).clamp(-3, 3), clip=False)).std()) - 0.49235) > 0.05


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_clipping_the_estimate_changes_the_noise_that_it_implies(sampler):
    z, log_snrs = 3 * torch.randn(1, 6, dtype=F64, generator=generator(11)), torch.tensor([-2.0, 1.0], dtype=F64)
    z_s = last(sample_loop(lambda z, l: 2 * z, z, log_snrs, sampler=sampler))
    (alpha_t, sigma_t), (alpha_s, sigma_s), x_hat = alpha_sigma(log_snrs[0]), alpha_sigma(log_snrs[1]), (2 * z).clamp(-1, 1)
    assert (2 * z).abs().max() > 1 and torch.allclose(z_s, alpha_s * x_hat + sigma_s * (z - alpha_t * x_hat) / sigma_t)


def test_langevin_steps_settle_where_they_should():
    """At sigma = 1 the score of N(0, 1) is -z, and the chain's own variance is 1 / (1 - delta / 4)."""
    z, g = torch.randn(40_000, dtype=F64, generator=generator(5)), generator(6)
    for _ in range(100):
        z = langevin_step(z, z, torch.tensor(-math.inf), torch.randn(len(z), dtype=F64, generator=g), delta=0.1)
    assert float(z.var()) == pytest.approx(1 / (1 - 0.1 / 4), abs=0.02)


def test_langevin_corrects_a_sampler_that_has_gone_astray():
    """Started at the wrong deviation, a few deterministic steps keep the error; the corrector takes part of it away."""
    z = 2 * torch.randn(20, 1000, dtype=F64, generator=generator(7))
    generators, log_snrs = [generator(8, i) for i in range(20)], torch.linspace(-4, 8, 129, dtype=F64)
    plain = last(sample_loop(gaussian_denoiser(0.5), z, log_snrs, clip=False)).std()
    corrected = last(sample_loop(gaussian_denoiser(0.5), z, log_snrs, generators, clip=False, langevin=0.1)).std()
    assert abs(float(corrected) - 0.5) < 0.5 * abs(float(plain) - 0.5)


def test_ddim_with_eta_one_has_the_posterior_variance():
    abar, beta = LINEAR.alphas_cumprod(), LINEAR.betas()
    for i in (2, 17, 500, 1000):
        zero, one = torch.zeros(1, 1, dtype=F64), torch.ones(1, 1, dtype=F64)
        t, s = LINEAR.log_snr(i / 1000), LINEAR.log_snr((i - 1) / 1000)
        spread = float(ddim_step(zero, zero, t, s, one, eta=1.0))
        assert spread**2 == pytest.approx(float(beta[i - 1] * (1 - abar[i - 1]) / (1 - abar[i])), rel=1e-9)
        upper = float(ancestral_step(zero, zero, t, s, one, gamma=1.0))
        assert upper**2 == pytest.approx(float(beta[i - 1]), rel=1e-9)  # DDPM's other choice


@pytest.mark.parametrize("schedule", [LINEAR, CosineBetaSchedule()])
@pytest.mark.parametrize(("name", "sampler", "settings"), [
    ("DDIMScheduler", "ddim", {"set_alpha_to_one": True, "clip_sample": False}),
    ("DPMSolverMultistepScheduler", "dpm++", {"algorithm_type": "dpmsolver++", "solver_order": 2, "euler_at_final": True, "final_sigmas_type": "zero"})])
def test_whole_trajectories_equal_diffusers(schedule, name, sampler, settings):
    theirs = getattr(pytest.importorskip("diffusers", reason="installed by tests/run.sh"), name)(
        1000, trained_betas=schedule.betas().numpy(), timestep_spacing="trailing", **settings)
    theirs.set_timesteps(20)
    denoise, z = gaussian_denoiser(0.5, mean=0.2), torch.randn(3, 1, 4, 4, dtype=F64, generator=generator(9))
    ours = z
    for timestep, state in zip(theirs.timesteps, sample_loop(denoise, ours, grid(20, schedule), sampler=sampler, clip=False), strict=True):
        log_snr = schedule.log_snr((int(timestep) + 1) / 1000).expand(3)
        z = theirs.step(to_eps(denoise(z, log_snr), z, log_snr), timestep, z).prev_sample
        assert (z - state.z).abs().max() < 2e-4 * max(1, float(z.abs().max())), state.step  # their alphas are float32
    wrong = last(sample_loop(denoise, ours, grid(20, LinearBetaSchedule(last=0.01)), sampler=sampler, clip=False))
    assert (z - wrong).abs().max() > 2e-3  # another schedule would be seen


def test_ddpm_equals_diffusers():
    ddpm = pytest.importorskip("diffusers", reason="installed by tests/run.sh").DDPMScheduler(1000, clip_sample=False, variance_type="fixed_small")
    x_hat, z = torch.rand(2, 3, 4, 4, dtype=F64, generator=generator(4)) * 2 - 1
    for timestep in (1, 10, 500, 999):
        t, s = LINEAR.log_snr((timestep + 1) / 1000), LINEAR.log_snr(timestep / 1000)
        theirs = ddpm.step(to_eps(x_hat, z, t.expand(3)), timestep, z, generator=generator(7)).prev_sample
        noise = torch.randn(z.shape, generator=generator(7), dtype=F64)
        assert (theirs - ancestral_step(z, x_hat, t, s, noise, gamma=0)).abs().max() < 1e-4


def test_rectified_flow_equals_diffusers():
    flow = pytest.importorskip("diffusers", reason="installed by tests/run.sh").FlowMatchEulerDiscreteScheduler(1000)
    flow.set_timesteps(sigmas=[1 - k / 10 for k in range(10)])
    denoise, z, times = gaussian_denoiser(0.5, mean=0.2), torch.randn(4, 3, dtype=F64, generator=generator(10)), FLOW.times(10)
    length = ((1 - times) ** 2 + times**2).sqrt()
    for k, state in enumerate(sample_loop(denoise, z, grid(10, FLOW), clip=False)):
        z = flow.step((z - denoise(z / length[k], FLOW.log_snr(times[k]).expand(4))) / times[k], flow.timesteps[k], z).prev_sample
        assert (z / length[k + 1] - state.z).abs().max() < 1e-5


def linear_net(z, log_snr, cond=None, **_):
    return z * 0.3 + (0 if cond is None else cond[:, :, None])


def test_guidance_scale_zero_one_and_linear_in_between():
    z, cond, log_snr = torch.randn(2, 4, 5, generator=generator(5)), torch.randn(2, 4, generator=generator(6)), torch.tensor([0.0, 1.0])
    for prediction in ("eps", "x", "v", "flow"):
        at = {g: guided_denoiser(linear_net, cond, g, prediction)(z, log_snr) for g in (0.0, 1.0, 3.0)}
        null = guided_denoiser(linear_net, None, 3.0, prediction)(z, log_snr)
        assert torch.allclose(at[0.0], null, atol=1e-6)
        assert torch.allclose(at[1.0], to_x(linear_net(z, log_snr, cond), z, log_snr, prediction), atol=1e-6)
        assert torch.allclose(at[3.0], null + 3 * (at[1.0] - null), atol=1e-4)  # guiding x, eps or v is the same


def exact_net(correlation):
    """The exact v-prediction for pairs of frames, normal with unit variance and this correlation, and for single frames: as if trained on both."""

    def net(z, log_snr, cond=None):
        alpha, sigma = (number.to(z).view(-1, 1, 1, 1, 1) for number in alpha_sigma(log_snr.double()))
        mean, half_difference = z.mean(2, keepdim=True), (z - z.mean(2, keepdim=True))
        shrunk = [alpha * variance / (alpha**2 * variance + sigma**2) for variance in ((1 + correlation, 1 - correlation) if z.shape[2] == 2 else (1.0, 1.0))]
        x_hat = shrunk[0] * mean + shrunk[1] * half_difference
        return (alpha * z - x_hat) / sigma

    return net


def test_temporal_guidance_leaves_frames_alone_keeps_or_strengthens_what_they_share():
    z, correlations = torch.randn(1, 1, 2, 100, 100, generator=generator(15), dtype=F64), {}
    for scale in (0.0, 1.0, 1.5):
        denoise = guided_denoiser(temporally_guided(exact_net(0.6), scale), None, 1.0, "v")
        x = last(sample_loop(denoise, z, grid(64, CosineSchedule()), clip=False))
        correlations[scale] = float(torch.corrcoef(x[0, 0].flatten(1))[0, 1])
    assert correlations[0.0] == pytest.approx(0, abs=0.03) and correlations[1.0] == pytest.approx(0.6, abs=0.03) and correlations[1.5] > 0.7


def test_temporal_guidance_passes_each_frame_the_inputs_of_its_clip():
    seen, z = [], torch.randn(2, 1, 3, 4, 4, generator=generator(16))

    def net(z, log_snr, cond=None, **inputs):
        seen.append((z.shape, log_snr.tolist(), None if cond is None else cond[:, 0].tolist(), {name: tensor.tolist() for name, tensor in inputs.items()}))
        return z * z.shape[2] + cond[:, :1, None, None, None]

    out = temporally_guided(net, 3.0)(z, torch.tensor([1.0, 2.0]), torch.tensor([[5.0], [6.0]]), fps=torch.tensor([6.0, 30.0]))
    assert seen == [((6, 1, 1, 4, 4), [1.0] * 3 + [2.0] * 3, [5.0] * 3 + [6.0] * 3, {"fps": [6.0] * 3 + [30.0] * 3}), ((2, 1, 3, 4, 4), [1.0, 2.0], [5.0, 6.0], {"fps": [6.0, 30.0]})]
    assert torch.allclose(out, z + 3 * (3 * z - z) + torch.tensor([5.0, 6.0]).view(2, 1, 1, 1, 1), atol=1e-5)


def test_guidance_rescale_brings_the_deviation_back():
    z, cond, log_snr = torch.randn(2, 4, 500, generator=generator(5)), 3 * torch.randn(2, 4, generator=generator(6)), torch.tensor([0.0, 1.0])
    conditional = linear_net(z, log_snr, cond)
    plain, full, half = (guided_denoiser(linear_net, cond, 5.0, "x", rescale)(z, log_snr) for rescale in (0.0, 1.0, 0.5))
    assert torch.allclose(full.std((1, 2)), conditional.std((1, 2)), rtol=1e-5)
    assert bool((plain.std((1, 2)) > 1.5 * full.std((1, 2))).all())
    assert torch.allclose(half, (plain + full) / 2, atol=1e-5)


def test_guidance_in_an_interval_of_noise_levels():
    z, cond, log_snr, calls = torch.randn(3, 4, 5, generator=generator(5)), torch.randn(3, 4, generator=generator(6)), torch.tensor([-3.0, -2.0, 0.0]), []

    def net(z, log_snr, cond=None):
        calls.append(len(z))
        return linear_net(z, log_snr, cond)

    for rescale in (0.0, 0.7):
        everywhere, nowhere, some = (guided_denoiser(net, cond, 3.0, "v", rescale, interval)(z, log_snr) for interval in (None, (1.0, 9.0), (-2.0, 0.0)))
        assert torch.equal(nowhere, to_x(linear_net(z, log_snr, cond), z, log_snr, "v")) and not torch.allclose(everywhere, nowhere, atol=0.1)
        assert torch.equal(some[1], everywhere[1]) and torch.equal(some[[0, 2]], nowhere[[0, 2]])  # from the lower end on, below the upper one
    assert calls == [6, 3, 6] * 2  # where nothing is guided, the null condition is not asked


def gaussian_net(z, log_snr, cond, spread=0.15):
    """The exact estimate of data whose entries are independent normal variables around the condition."""
    alpha, sigma = (part.float()[:, None] for part in alpha_sigma(log_snr.double()))
    return cond + alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * (z - alpha * cond)


@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_rivals_are_as_likely_as_the_path_says_against_bayes_in_closed_form(gamma):
    num, dim, spread = 16, 6, 0.15
    own, rivals = torch.zeros(num, dim), torch.stack([torch.full((num, dim), 0.25), torch.full((num, dim), -0.25)], dim=1)
    denoise, seen = RivalDenoiser(gaussian_net, own, rivals, 1.0, 1.0, "x", gamma), []

    def watched(z, log_snr):
        x_hat = denoise(z, log_snr)
        mine, *others = (gaussian_net(z, log_snr, c) for c in (own, *rivals.unbind(1)))
        likely = ((2 * mine - x_hat - others[1]) / (others[0] - others[1])).mean(1)  # of the first rival: x_hat = 2 mine - likely first - (1 - likely) second
        alpha, sigma = (float(part[0]) for part in alpha_sigma(log_snr.double()))
        density = torch.stack([-(z - alpha * c).square().sum(1) / (2 * (alpha**2 * spread**2 + sigma**2)) for c in rivals.unbind(1)])
        seen.append((float(log_snr[0]), likely, density.softmax(0)[0]))
        return mine  # sample from the own condition, between the rivals

    generators = [generator(k) for k in range(num)]
    for _ in sample_loop(watched, torch.randn(num, dim, generator=generator(99)), CosineSchedule().log_snr(torch.linspace(1, 0, 401)), generators, "ancestral", gamma=gamma, clip=False):
        pass
    level, likely, exact = zip(*(row for row in seen if row[0] < 3))  # later the density's width is that of the data, which no step knows
    likely, exact = torch.stack(likely), torch.stack(exact)
    assert (likely - exact).abs().mean() < 0.04 and likely.min() < 0.1 and likely.max() > 0.9
    assert torch.allclose(likely[0], torch.tensor(0.5))


def test_rivals_that_say_the_same_change_nothing_and_followed_or_not_makes_a_difference():
    z, log_snr, later = torch.randn(2, 6, generator=generator(5)), torch.full((2,), -4.0), torch.full((2,), 0.0)
    own, others = torch.full((2, 6), 0.1), torch.stack([torch.full((2, 6), 0.4), torch.full((2, 6), -0.4)], dim=1)
    plain = guided_denoiser(gaussian_net, own, 3.0, "x")
    for same in (RivalDenoiser(gaussian_net, own, own[:, None].expand(-1, 2, -1), 3.0, 2.0, "x"), RivalDenoiser(gaussian_net, own, others, 3.0, 0.0, "x")):
        assert torch.allclose(same(z, log_snr), plain(z, log_snr), atol=1e-6) and torch.allclose(same(z + 1, later), plain(z + 1, later), atol=1e-6)
    followed, control = (RivalDenoiser(gaussian_net, own, others, 1.0, 2.0, "x", follow=follow) for follow in (True, False))
    assert torch.allclose(followed(z, log_snr), control(z, log_snr))
    up, equal = followed(z + 1, later), control(z + 1, later)  # towards the first rival: so away from that
    assert (up < equal - 0.1).all()
    assert torch.allclose(equal, gaussian_net(z + 1, later, own) * 3 - 2 * sum(gaussian_net(z + 1, later, c) for c in others.unbind(1)) / 2, atol=1e-5)


def test_the_variance_of_an_ancestral_step_is_the_noise_it_adds():
    low, high = torch.tensor(-2.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    z, x = torch.zeros(200_000, 1), torch.zeros(200_000, 1)
    for gamma in (0.0, 0.4, 1.0):
        assert ancestral_step(z, x, low, high, torch.randn(z.shape, generator=generator(1)), gamma).var() == pytest.approx(float(ancestral_variance(low, high, gamma)), rel=0.02)


def test_sampler_errors():
    z, two = torch.zeros(2, 1), torch.tensor([-1.0, 1.0])
    for options, message in (({"sampler": "magic"}, "ddim, ancestral, dpm"), ({"sampler": "ancestral"}, "one generator for each of the 2"),
                             ({"sampler": "dpm++", "langevin": 0.1}, "Langevin corrector draws noise"), ({"eta": 2.0}, "eta must be from 0 to 1"),
                             ({"gamma": -1.0}, "gamma must be"), ({"langevin": 3.0}, "langevin must be")):
        with pytest.raises(ValueError, match=message):
            next(sample_loop(lambda z, l: z, z, two, **options))
    with pytest.raises(ValueError, match="1000 steps; 2000"):
        LINEAR.times(2000)
