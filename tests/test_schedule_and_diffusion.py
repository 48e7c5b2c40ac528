"""Schedules, parameterizations and losses against closed forms, the numbers of the papers, and diffusers."""

import math
from dataclasses import replace

import pytest
import torch

from utils.diffusion import PREDICTIONS, loss_per_sample, q_sample, target, to_eps, to_x
from utils.recipes import MNIST_DDPM
from utils.runtime import generator
from utils.samplers import ancestral_step, ddim_step
from utils.schedule import CosineBetaSchedule, CosineSchedule, FlowSchedule, LinearBetaSchedule, alpha_sigma

COSINE, LINEAR, FLOW, IMPROVED = CosineSchedule(), LinearBetaSchedule(), FlowSchedule(), CosineBetaSchedule()
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


def test_improved_ddpm_schedule():
    beta, abar = IMPROVED.betas(), IMPROVED.alphas_cumprod()
    assert float(beta[0]) == pytest.approx(4.1284e-5, rel=1e-4)
    assert (beta == 0.999).nonzero().flatten().tolist() == [999]  # only the last one is clipped
    assert float(abar[1000]) == pytest.approx(2.43e-9, rel=2e-3)
    continuous = COSINE.log_snr(torch.tensor([0.25, 0.5, 0.75]))  # the same curve but for the offset
    assert torch.allclose(IMPROVED.log_snr(torch.tensor([0.25, 0.5, 0.75])), continuous, atol=0.06)


@pytest.mark.parametrize("schedule", [LINEAR, IMPROVED])
def test_zero_terminal_snr(schedule):
    zero, plain = replace(schedule, zero_terminal_snr=True), schedule.alphas_cumprod()
    abar = zero.alphas_cumprod()
    assert float(abar[1000]) == 0 and float(zero.log_snr(1.0)) == -math.inf
    assert float(abar[1]) == pytest.approx(float(plain[1]), abs=1e-15) and bool((abar.diff() < 0).all())
    theirs = pytest.importorskip("diffusers.schedulers.scheduling_ddim").rescale_zero_terminal_snr(schedule.betas())
    assert (torch.cumprod(1 - theirs, 0)[:-1] - abar[1:-1]).abs().max() < 1e-12
    x, eps = torch.randn(2, 4, 3, dtype=F64, generator=generator(0))
    end = torch.full((4,), -math.inf, dtype=F64)
    for prediction in ("x", "v", "flow"):  # no NaN, and nothing but noise to see
        assert torch.equal(q_sample(x, end, eps), eps)
        assert torch.allclose(to_x(target(x, eps, end, prediction), eps, end, prediction), x)
        assert loss_per_sample(torch.zeros_like(x), x, eps, end, prediction, min_snr=5.0).abs().max() == 0
    assert torch.allclose(loss_per_sample(x, x, eps, end, "eps", min_snr=5.0), (x - eps).square().mean(1).float())
    with pytest.raises(ValueError, match="pure noise"):
        replace(MNIST_DDPM, schedule=zero)
    with pytest.raises(ValueError, match="eps, x, v, flow"):
        replace(MNIST_DDPM, prediction="noise")


def test_rectified_flow_is_a_schedule_and_a_prediction():
    t = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=F64)
    x, eps = torch.randn(2, 5, 3, dtype=F64, generator=generator(1))
    line = (1 - t)[:, None] * x + t[:, None] * eps
    length = ((1 - t) ** 2 + t**2).sqrt()[:, None]
    log_snr = FLOW.log_snr(t)
    assert torch.allclose(q_sample(x, log_snr, eps), line / length, atol=1e-14)
    assert torch.allclose(target(x, eps, log_snr, "flow"), eps - x)
    assert log_snr.tolist() == pytest.approx([math.inf, 2 * math.log(9), 0, -2 * math.log(9), -math.inf])
    middle = FlowSchedule(density="logit-normal").sample_t(20_000, generator(2)).logit()
    assert float(middle.mean()) == pytest.approx(0, abs=0.02) and float(middle.std()) == pytest.approx(1, abs=0.02)
    assert FLOW.sample_t(1000, generator(2)).sort().values.mul(1000).floor().tolist() == list(range(1000))
    with pytest.raises(ValueError, match="logit-normal"):
        FlowSchedule(density="normal")


def test_edm_target_is_minus_v():
    """EDM (arXiv 2206.00364) with data of deviation 1: D = c_skip y + c_out F(c_in y), y = x + s n. What F has to be is -v."""
    x, n = torch.randn(2, 64, 3, dtype=F64, generator=generator(3))
    s = torch.linspace(-6, 6, 64, dtype=F64).exp()[:, None]
    c_skip, c_out, c_in = 1 / (s**2 + 1), s / (s**2 + 1).sqrt(), 1 / (s**2 + 1).sqrt()
    y, log_snr = x + s * n, -2 * s.log().squeeze(1)
    assert torch.allclose(c_in * y, q_sample(x, log_snr, n))
    assert torch.allclose((x - c_skip * y) / c_out, -target(x, n, log_snr, "v"))
    assert torch.allclose(1 / c_out.squeeze(1) ** 2, log_snr.exp() + 1)  # its weight makes |dF|^2 of |dx|^2, as v does


def test_two_steps_of_a_teacher_are_one_of_its_student():
    """Progressive distillation (arXiv 2202.00512, algorithm 2): the x that takes a DDIM step from t to s where two steps lead."""
    z, first, second = torch.randn(3, 4, 5, dtype=F64, generator=generator(4))
    t, middle, s = (torch.tensor(value, dtype=F64) for value in (-3.0, -1.5, 0.5))
    z_s = ddim_step(ddim_step(z, first, t, middle), second, middle, s)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(t), alpha_sigma(s)
    student = (z_s - sigma_s / sigma_t * z) / (alpha_s - sigma_s / sigma_t * alpha_t)
    assert torch.allclose(ddim_step(z, student, t, s), z_s, atol=1e-13)


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


@pytest.mark.parametrize("schedule", [COSINE, LINEAR, FLOW])
def test_time_outside_the_unit_interval_is_refused(schedule):
    with pytest.raises(ValueError, match="0 .data. to 1 .noise"):
        schedule.log_snr(1.5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
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


def test_errors_scale_with_snr_and_min_snr_is_one_loss_for_all():
    x, eps, error = torch.randn(3, 64, 5, dtype=F64, generator=generator(2))
    log_snr = torch.linspace(-6, 6, 64, dtype=F64)
    z, snr = q_sample(x, log_snr, eps), log_snr.exp()
    wrong_x = x + 0.1 * error
    wrong_eps = to_eps(wrong_x, z, log_snr)
    wrong_v = target(wrong_x, wrong_eps, log_snr, "v")
    dx = (wrong_x - x).square().mean(1)
    assert torch.allclose((wrong_eps - eps).square().mean(1), snr * dx, rtol=1e-9)
    assert torch.allclose((wrong_v - target(x, eps, log_snr, "v")).square().mean(1), (1 + snr) * dx, rtol=1e-9)
    for prediction in PREDICTIONS:
        loss = loss_per_sample(target(wrong_x, wrong_eps, log_snr, prediction), x, eps, log_snr, prediction, min_snr=5.0)
        assert torch.allclose(loss.double(), snr.clamp(max=5) * dx, rtol=1e-4), prediction


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_noise_level_a_frame_is_that_level_for_each_frame_alone(prediction):
    x, eps, output = torch.randn(3, 2, 1, 4, 5, 5, generator=generator(8), dtype=torch.float64)
    log_snr = torch.randn(2, 4, generator=generator(9), dtype=torch.float64) * 3
    for function in (lambda l, f: q_sample(x[:, :, f], l, eps[:, :, f]), lambda l, f: target(x[:, :, f], eps[:, :, f], l, prediction),
                     lambda l, f: to_x(output[:, :, f], x[:, :, f], l, prediction)):
        together = function(log_snr, slice(0, 4))
        assert all(torch.equal(together[:, :, k:k + 1], function(log_snr[:, k], slice(k, k + 1))) for k in range(4))
    assert not torch.equal(q_sample(x, log_snr, eps), q_sample(x, log_snr.flip(1), eps))
    for min_snr in (None, 5.0):
        alone = [loss_per_sample(output[:, :, k:k + 1], x[:, :, k:k + 1], eps[:, :, k:k + 1], log_snr[:, k], prediction, min_snr) for k in range(4)]
        assert torch.allclose(loss_per_sample(output, x, eps, log_snr, prediction, min_snr), sum(alone) / 4)


def test_shift_moves_the_middle_and_leaves_the_ends():
    for shift in (-2.0, 1.0):
        assert CosineSchedule(shift=shift).log_snr(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([20, shift, -20], abs=1e-3)
