"""Noise schedules as functions of time: log_snr(t) = log(alpha^2 / sigma^2), in float64.

z_t = alpha x + sigma eps with alpha^2 + sigma^2 = 1, so one number a time says it all, and a sampler that is written in
log-SNR works with every schedule. Time runs from t = 0 (data) to t = 1 (noise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


def in_float64(numbers: torch.Tensor) -> torch.Tensor:
    """The same numbers in float64, on the same device, or on the CPU where the device (Apple's MPS) has no float64."""
    return (numbers.cpu() if numbers.device.type == "mps" else numbers).double()


def alpha_sigma(log_snr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha = sqrt(sigmoid(log_snr)) and sigma = sqrt(sigmoid(-log_snr)), in float64, any shape."""
    log_snr = in_float64(log_snr)
    return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()


@dataclass(frozen=True)
class CosineSchedule:
    """Continuous cosine log-SNR: alpha = cos(pi t / 2) with the log-SNR kept in [low, high]
    (*Video Diffusion Models*, section 2, with [-20, 20]).

    shift moves the middle of the schedule from log-SNR 0 to `shift`, the ends stay: negative values spend more time in strong
    noise, which a signal that repeats itself over many pixels or frames needs (*simple diffusion*, arXiv 2301.11093, section 2.1).
    """

    low: float = -20.0
    high: float = 20.0
    shift: float = 0.0

    def log_snr(self, t: torch.Tensor | float) -> torch.Tensor:
        """t in [0, 1], any shape -> log-SNR, float64, same shape."""
        t = _checked(t)
        end = math.atan(math.exp((self.shift - self.high) / 2))
        span = math.atan(math.exp((self.shift - self.low) / 2)) - end
        return self.shift - 2 * torch.log(torch.tan(span * t + end))

    def sample_t(self, num: int, generator: torch.Generator) -> torch.Tensor:
        """(num,) float64 training times, uniform on [0, 1]; stratified, so that one batch covers all of them."""
        offsets = torch.rand(num, generator=generator, dtype=torch.float64)
        return ((torch.arange(num) + offsets) / num)[torch.randperm(num, generator=generator)]

    def times(self, steps: int) -> torch.Tensor:
        """(steps + 1,) float64 sampling times, uniform from 1 to 0."""
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


@dataclass(frozen=True)
class LinearBetaSchedule:
    """The discrete DDPM schedule: `steps` values of beta, linear from first to last (DDPM, section 4).

    Step i = 1..steps is time t = i / steps; t = 0 is the data, with log-SNR +inf.
    """

    steps: int = 1000
    first: float = 1e-4
    last: float = 0.02

    def betas(self) -> torch.Tensor:
        """(steps,) float64: beta_1 .. beta_steps."""
        return torch.linspace(self.first, self.last, self.steps, dtype=torch.float64)

    def alphas_cumprod(self) -> torch.Tensor:
        """(steps + 1,) float64: abar_0 = 1, abar_1, .. abar_steps. Index i is step i: there is no off-by-one to make."""
        return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - self.betas(), 0)])

    def log_snr(self, t: torch.Tensor | float) -> torch.Tensor:
        """t in [0, 1], any shape, rounded to a step -> log-SNR, float64, same shape."""
        index = torch.round(_checked(t) * self.steps).long()
        return torch.logit(self.alphas_cumprod()).to(index.device)[index]

    def sample_t(self, num: int, generator: torch.Generator) -> torch.Tensor:
        """(num,) float64 training times, uniform on {1/steps, .., 1}."""
        return torch.randint(1, self.steps + 1, (num,), generator=generator).double() / self.steps

    def times(self, steps: int) -> torch.Tensor:
        """(steps + 1,) float64 sampling times from 1 to 0, evenly spread over the discrete steps.

        Raises ValueError for more steps than the schedule has.
        """
        if steps > self.steps:
            raise ValueError(f"This schedule has {self.steps} steps; {steps} were asked for.")
        return torch.round(torch.linspace(self.steps, 0, steps + 1, dtype=torch.float64)) / self.steps


def _checked(t: torch.Tensor | float) -> torch.Tensor:
    t = in_float64(torch.as_tensor(t))
    if t.numel() and (t.min() < 0 or t.max() > 1):
        raise ValueError(f"Time runs from 0 (data) to 1 (noise); got values from {t.min():g} to {t.max():g}.")
    return t


Schedule = CosineSchedule | LinearBetaSchedule
