"""From noise to data: one loop for all samplers, written in log-SNR, as a generator that yields every step.

A denoiser is any function (z, log_snr) -> x_hat with z (B, ...), log_snr (B,) and x_hat in the shape of z.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from .diffusion import to_eps, to_x
from .runtime import randn_per_sample
from .schedule import alpha_sigma

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
SAMPLERS = ("ddim", "ancestral")


@dataclass(frozen=True)
class SampleState:
    """One step done: step of steps, z (B, ...) after it, and the estimate x_hat of the data that it used."""

    step: int
    steps: int
    z: torch.Tensor
    x_hat: torch.Tensor


def ddim_step(z: torch.Tensor, x_hat: torch.Tensor, log_snr_t: torch.Tensor, log_snr_s: torch.Tensor,
              noise: torch.Tensor | None = None, eta: float = 0.0) -> torch.Tensor:
    """From time t to an earlier s (DDIM, arXiv 2010.02502, equation 12). Scalars log_snr_t < log_snr_s.

    eta = 0 is deterministic; eta = 1 has the variance of DDPM's posterior. `noise` is needed when eta > 0.
    """
    alpha_t, sigma_t = alpha_sigma(log_snr_t)
    alpha_s, sigma_s = alpha_sigma(log_snr_s)
    eps_hat = to_eps(x_hat, z, log_snr_t.expand(len(z)))
    if eta == 0.0:
        return _as(alpha_s, z) * x_hat + _as(sigma_s, z) * eps_hat
    variance = eta**2 * sigma_s**2 * -torch.expm1(log_snr_t - log_snr_s)  # eta^2 c^2; 1 - e^(lt - ls) without cancellation
    variance = torch.minimum(variance, sigma_s**2)
    return _as(alpha_s, z) * x_hat + _as((sigma_s**2 - variance).sqrt(), z) * eps_hat + _as(variance.sqrt(), z) * noise


def ancestral_step(z: torch.Tensor, x_hat: torch.Tensor, log_snr_t: torch.Tensor, log_snr_s: torch.Tensor,
                   noise: torch.Tensor | None = None, gamma: float = 0.0) -> torch.Tensor:
    """From time t to an earlier s by the posterior q(z_s | z_t, x_hat) (*Video Diffusion Models*, section 2).

    The variance is interpolated between its lower bound (gamma = 0) and its upper bound (gamma = 1). noise None: the mean.
    """
    alpha_t, sigma_t = alpha_sigma(log_snr_t)
    alpha_s, sigma_s = alpha_sigma(log_snr_s)
    ratio = torch.exp(log_snr_t - log_snr_s)
    rest = -torch.expm1(log_snr_t - log_snr_s)  # 1 - ratio without cancellation
    mean = _as(ratio * alpha_s / alpha_t, z) * z + _as(rest * alpha_s, z) * x_hat
    if noise is None:
        return mean
    return mean + _as((rest * sigma_s**2) ** ((1 - gamma) / 2) * (rest * sigma_t**2) ** (gamma / 2), z) * noise


def sample_loop(denoise: Denoiser, z: torch.Tensor, log_snrs: torch.Tensor, generators: Sequence[torch.Generator] | None = None,
                sampler: str = "ddim", eta: float = 0.0, gamma: float = 0.1, clip: bool = True) -> Iterator[SampleState]:
    """Denoise z (B, ...) along log_snrs (steps + 1,), ascending, and yield a SampleState a step.

    generators: one for each of the B samples, for samplers with noise (ancestral; DDIM with eta > 0). clip: keep x_hat in
    [-1, 1]; the noise that it implies follows. The last step adds no noise. ValueError for an unknown sampler or
    missing generators.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {sampler!r}.")
    noisy = sampler == "ancestral" or eta > 0
    if noisy and (generators is None or len(generators) != len(z)):
        raise ValueError(f"The {sampler} sampler draws noise: pass one generator for each of the {len(z)} samples.")
    steps = len(log_snrs) - 1
    for step in range(steps):
        log_snr_t, log_snr_s = log_snrs[step], log_snrs[step + 1]
        x_hat = denoise(z, log_snr_t.float().expand(len(z)).to(z.device))
        if clip:
            x_hat = x_hat.clamp(-1, 1)
        noise = randn_per_sample(z.shape[1:], generators).to(z) if noisy and step < steps - 1 else None
        if sampler == "ancestral":
            z = ancestral_step(z, x_hat, log_snr_t, log_snr_s, noise, gamma)
        else:
            z = ddim_step(z, x_hat, log_snr_t, log_snr_s, noise, eta if noise is not None else 0.0)
        yield SampleState(step + 1, steps, z, x_hat)


def guided_denoiser(net: Callable[..., torch.Tensor], cond: torch.Tensor | None, guidance_scale: float, prediction: str) -> Denoiser:
    """A denoiser with classifier-free guidance (arXiv 2207.12598): null + guidance_scale * (conditional - null).

    guidance_scale is g = 1 + w of the paper: 0 ignores the condition, 1 takes the conditional model as it is, more
    exaggerates it. Both halves go through the network in one batch.
    """

    def denoise(z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        if cond is None or guidance_scale == 1.0:
            return to_x(net(z, log_snr, cond), z, log_snr, prediction)
        both = net(torch.cat([z, z]), torch.cat([log_snr, log_snr]), torch.cat([cond, torch.zeros_like(cond)]))
        conditional, null = both.chunk(2)
        return to_x(null + guidance_scale * (conditional - null), z, log_snr, prediction)

    return denoise


def _as(number: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return number.to(like)
