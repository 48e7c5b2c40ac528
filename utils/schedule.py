"""Noise schedules as functions of time: log_snr(t) = log(alpha^2 / sigma^2), in float64.

z_t = alpha x + sigma eps with alpha^2 + sigma^2 = 1, so one number describes each time, and a sampler written in
log-SNR works with every schedule. Time runs from t = 0 (data) to t = 1 (noise).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
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

    shift moves the middle of the schedule from log-SNR 0 to `shift`; the ends stay. Negative values spend more time in strong
    noise, which a signal that repeats itself over many pixels or frames needs (*simple diffusion*, arXiv 2301.11093, on noise schedules).
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
        return _stratified(num, generator)

    def times(self, steps: int) -> torch.Tensor:
        """(steps + 1,) float64 sampling times, uniform from 1 to 0."""
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


@dataclass(frozen=True)
class FlowSchedule:
    """Rectified flow's straight line from data to noise, (1 - t) x + t eps (arXiv 2209.03003), as a log-SNR: 2 log((1 - t) / t).

    Divided by sqrt((1 - t)^2 + t^2) it is the z of every other schedule, so it needs a network with prediction="flow" but no sampler
    of its own: an Euler step on the line is a DDIM step. density: how training times are drawn, "uniform" or "logit-normal"
    (mean 0, deviation 1; arXiv 2403.03206, section 3.1), which spends more of them in the middle.
    """

    density: str = "uniform"

    def __post_init__(self) -> None:
        if self.density not in ("uniform", "logit-normal"):
            raise ValueError(f"density must be uniform or logit-normal, not {self.density!r}.")

    def log_snr(self, t: torch.Tensor | float) -> torch.Tensor:
        """t in [0, 1], any shape -> log-SNR, float64, same shape; +inf at 0, -inf at 1."""
        return -2 * torch.logit(_checked(t))

    def sample_t(self, num: int, generator: torch.Generator) -> torch.Tensor:
        """(num,) float64 training times."""
        if self.density == "logit-normal":
            return torch.randn(num, generator=generator, dtype=torch.float64).sigmoid()
        return _stratified(num, generator)

    def times(self, steps: int) -> torch.Tensor:
        """(steps + 1,) float64 sampling times, uniform from 1 to 0."""
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


class DiscreteSchedule(ABC):
    """A schedule of `steps` values of beta: step i = 1..steps is time t = i / steps, and t = 0 is the data, with log-SNR +inf.

    zero_terminal_snr: shift and scale sqrt(abar) so that the last step is pure noise, log-SNR -inf, and step 1 stays as it is
    (arXiv 2305.08891, algorithm 1). A network that predicts eps has nothing to predict there: use x, v or flow.
    """

    steps: int
    zero_terminal_snr: bool

    @abstractmethod
    def betas(self) -> torch.Tensor:
        """(steps,) float64: beta_1 .. beta_steps, before any change by zero_terminal_snr."""

    def alphas_cumprod(self) -> torch.Tensor:
        """(steps + 1,) float64: abar_0 = 1, abar_1, .. abar_steps. Index i is step i: no room for off-by-one errors."""
        abar = torch.cumprod(1 - self.betas(), 0)
        if self.zero_terminal_snr:
            root = abar.sqrt()
            abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        return torch.cat([torch.ones(1, dtype=torch.float64), abar])

    def log_snr(self, t: torch.Tensor | float) -> torch.Tensor:
        """t in [0, 1], any shape, rounded to a step -> log-SNR, float64, same shape."""
        index = torch.round(_checked(t) * self.steps).long()
        return torch.logit(self.alphas_cumprod()).to(index.device)[index]

    def sample_t(self, num: int, generator: torch.Generator) -> torch.Tensor:
        """(num,) float64 training times, uniform on {1/steps, .., 1}."""
        return torch.randint(1, self.steps + 1, (num,), generator=generator).double() / self.steps

    def times(self, steps: int) -> torch.Tensor:
        """(steps + 1,) float64 sampling times from 1 to 0, evenly spread over the discrete steps, the last one included ("trailing").

        Raises ValueError for more steps than the schedule has.
        """
        if steps > self.steps:
            raise ValueError(f"This schedule has {self.steps} steps; {steps} were asked for.")
        return torch.round(torch.linspace(self.steps, 0, steps + 1, dtype=torch.float64)) / self.steps


@dataclass(frozen=True)
class LinearBetaSchedule(DiscreteSchedule):
    """The DDPM schedule: beta linear from first to last (DDPM, section 4)."""

    steps: int = 1000
    first: float = 1e-4
    last: float = 0.02
    zero_terminal_snr: bool = False

    def betas(self) -> torch.Tensor:
        """(steps,) float64: beta_1 .. beta_steps."""
        return torch.linspace(self.first, self.last, self.steps, dtype=torch.float64)


@dataclass(frozen=True)
class CosineBetaSchedule(DiscreteSchedule):
    """The schedule of *Improved DDPM* (arXiv 2102.09672, equation 17): abar_t = f(t) / f(0) with f = cos^2((t + offset) / (1 + offset) pi / 2),
    each beta at most `largest`."""

    steps: int = 1000
    offset: float = 0.008
    largest: float = 0.999
    zero_terminal_snr: bool = False

    def betas(self) -> torch.Tensor:
        """(steps,) float64: beta_1 .. beta_steps."""
        t = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        f = torch.cos((t + self.offset) / (1 + self.offset) * math.pi / 2) ** 2
        return (1 - f[1:] / f[:-1]).clamp(max=self.largest)


def _stratified(num: int, generator: torch.Generator) -> torch.Tensor:
    """(num,) float64, each uniform on [0, 1], one in every interval of length 1 / num, so that one batch covers all times."""
    offsets = torch.rand(num, generator=generator, dtype=torch.float64)
    return ((torch.arange(num) + offsets) / num)[torch.randperm(num, generator=generator)]


def _checked(t: torch.Tensor | float) -> torch.Tensor:
    t = in_float64(torch.as_tensor(t))
    if t.numel() and (t.min() < 0 or t.max() > 1):
        raise ValueError(f"Time runs from 0 (data) to 1 (noise); got values from {t.min():g} to {t.max():g}.")
    return t


Schedule = CosineSchedule | FlowSchedule | LinearBetaSchedule | CosineBetaSchedule
