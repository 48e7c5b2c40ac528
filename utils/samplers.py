"""From noise to data: one loop for all samplers, written in log-SNR, as a generator that yields every step.

A denoiser is any function (z, log_snr) -> x_hat with z (B, ...), log_snr (B,) and x_hat in the shape of z.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange

from .diffusion import coefficients, q_sample, to_eps, to_x
from .runtime import randn_per_sample
from .schedule import alpha_sigma

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
SAMPLERS = ("ddim", "ancestral", "dpm++")


@dataclass(frozen=True)
class SampleState:
    """A finished step: step of steps, z (B, ...) after it, and the estimate x_hat of the data it used."""

    step: int
    steps: int
    z: torch.Tensor
    x_hat: torch.Tensor


@dataclass(frozen=True)
class Known:
    """What is known of the data, to be kept while the rest is sampled (the replacement method; *Video Diffusion Models*, section 3.1).

    x (B, ...): the data; mask, bool, in a shape that broadcasts to x's: True where it is known. generators: one for each of the B samples, separate from the sampler's.
    """

    x: torch.Tensor
    mask: torch.Tensor
    generators: Sequence[torch.Generator]

    def put_into(self, z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        """z (B, ...) with a fresh draw of q(z | x) at this noise level (scalar) where x is known."""
        noise = randn_per_sample(z.shape[1:], self.generators).to(z)
        return torch.where(self.mask, q_sample(self.x, log_snr.expand(len(z)), noise), z)


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
    rest = -torch.expm1(log_snr_t - log_snr_s)  # 1 - e^(lt - ls) without cancellation
    keep = (alpha_t * sigma_s**2) / (alpha_s * sigma_t**2)  # e^(lt - ls) alpha_s / alpha_t, also where alpha_t is 0
    mean = _as(keep, z) * z + _as(rest * alpha_s, z) * x_hat
    if noise is None:
        return mean
    return mean + _as(ancestral_variance(log_snr_t, log_snr_s, gamma).sqrt(), z) * noise


def ancestral_variance(log_snr_t: torch.Tensor, log_snr_s: torch.Tensor, gamma: float = 0.0) -> torch.Tensor:
    """The variance of the noise in `ancestral_step`: scalars log_snr_t < log_snr_s -> a scalar."""
    rest = -torch.expm1(log_snr_t - log_snr_s)
    return (rest * alpha_sigma(log_snr_s)[1] ** 2) ** (1 - gamma) * (rest * alpha_sigma(log_snr_t)[1] ** 2) ** gamma


def dpm_solver_step(z: torch.Tensor, x_hat: torch.Tensor, log_snr_t: torch.Tensor, log_snr_s: torch.Tensor,
                    x_hat_before: torch.Tensor | None = None, log_snr_before: torch.Tensor | None = None) -> torch.Tensor:
    """From time t to an earlier s by DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2), in half log-SNR.

    x_hat_before and log_snr_before: the previous step's estimate and where it was made; with them the step is of second order,
    without them of first order, which is DDIM's.
    """
    alpha_s, sigma_s = alpha_sigma(log_snr_s)
    sigma_t = alpha_sigma(log_snr_t)[1]
    step = (log_snr_s - log_snr_t) / 2
    if x_hat_before is not None:
        along = _as(step / (log_snr_t - log_snr_before), z)  # 1 / (2r) with r = the step before / this step
        x_hat = x_hat + along * (x_hat - x_hat_before)  # the straight line through both, at the middle of this step
    return _as(sigma_s / sigma_t, z) * z - _as(alpha_s * torch.expm1(-step), z) * x_hat


def langevin_step(z: torch.Tensor, eps_hat: torch.Tensor, log_snr: torch.Tensor, noise: torch.Tensor, delta: float) -> torch.Tensor:
    """One step of Langevin dynamics at a fixed noise level, z - delta/2 sigma eps_hat + sqrt(delta) sigma noise: the corrector of
    *Video Diffusion Models* (section 2), where delta = 0.1. Scalar log_snr; eps_hat, noise in the shape of z."""
    sigma = _as(alpha_sigma(log_snr)[1], z)
    return z - delta / 2 * sigma * eps_hat + delta**0.5 * sigma * noise


def sample_loop(denoise: Denoiser, z: torch.Tensor, log_snrs: torch.Tensor, generators: Sequence[torch.Generator] | None = None,
                sampler: str = "ddim", eta: float = 0.0, gamma: float = 0.1, langevin: float = 0.0, clip: bool = True,
                known: Known | None = None, share_noise: bool = False) -> Iterator[SampleState]:
    """Denoise z (B, ...) along ascending log_snrs (steps + 1,), yielding a SampleState a step.

    sampler: "ddim" (eta from 0, deterministic, to 1), "ancestral" (gamma from 0, the lower variance, to 1, the upper) or "dpm++"
    (DPM-Solver++(2M), deterministic). langevin: delta of a Langevin corrector after each step, at the price of a second
    network call; 0 is none. generators: one for each of the B samples, wherever noise is drawn. clip: keep x_hat in [-1, 1]; the noise
    it implies follows. The last step adds no noise and is of first order. known: given data; it is put into z, freshly noised, before every call of the
    denoiser, while x_hat remains the denoiser's own estimate. share_noise: all frames of a clip (B, C, T, H, W) get the same noise (the initial noise, z, is the caller's). ValueError for an unknown sampler, a number out of its range or missing generators.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {sampler!r}.")
    for name, value in (("eta", eta), ("gamma", gamma), ("langevin", langevin)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be from 0 to 1, not {value}.")
    noisy = sampler == "ancestral" or sampler == "ddim" and eta > 0
    if (noisy or langevin) and (generators is None or len(generators) != len(z)):
        raise ValueError(f"The {sampler} sampler{' with a Langevin corrector' if langevin else ''} draws noise: "
                         f"pass one generator for each of the {len(z)} samples.")

    def estimate(z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        x_hat = denoise(z, log_snr.float().expand(len(z)).to(z.device))
        return x_hat.clamp(-1, 1) if clip else x_hat

    def draw() -> torch.Tensor:
        shape = (z.shape[1], 1, *z.shape[3:]) if share_noise else z.shape[1:]
        return randn_per_sample(shape, generators).to(z).expand_as(z)

    def with_known(z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        return z if known is None else known.put_into(z, log_snr)

    steps, before = len(log_snrs) - 1, (None, None)
    for step in range(steps):
        log_snr_t, log_snr_s, last = log_snrs[step], log_snrs[step + 1], step == steps - 1
        z = with_known(z, log_snr_t)
        x_hat = estimate(z, log_snr_t)
        if sampler == "dpm++":
            z = dpm_solver_step(z, x_hat, log_snr_t, log_snr_s, *((None, None) if last else before))
            before = x_hat, log_snr_t
        elif sampler == "ancestral":
            z = ancestral_step(z, x_hat, log_snr_t, log_snr_s, None if last else draw(), gamma)
        else:
            z = ddim_step(z, x_hat, log_snr_t, log_snr_s, *((draw(), eta) if eta and not last else ()))
        if langevin and not last:
            z = with_known(z, log_snr_s)
            eps_hat = to_eps(estimate(z, log_snr_s), z, log_snr_s.expand(len(z)))
            z = langevin_step(z, eps_hat, log_snr_s, draw(), langevin)
        yield SampleState(step + 1, steps, z, x_hat)


def guided_denoiser(net: Callable[..., torch.Tensor], cond: torch.Tensor | None, guidance_scale: float, prediction: str,
                    rescale: float = 0.0, interval: tuple[float, float] | None = None) -> Denoiser:
    """A denoiser with classifier-free guidance (arXiv 2207.12598): null + guidance_scale * (conditional - null).

    guidance_scale is g = 1 + w of the paper: 0 ignores the condition, 1 takes the conditional model as it is, more
    exaggerates it. Both halves go through the network in one batch. rescale (phi of arXiv 2305.08891, section 3.4; 0.7 there) brings
    the guided output's standard deviation back towards the conditional one's, so that strong guidance does not over-expose. interval (low, high): guide only where
    low <= log-SNR < high (arXiv 2404.07724); elsewhere, if a whole batch has one log-SNR, the null half is not computed. None: everywhere.
    """

    def denoise(z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        inside = None if interval is None else (interval[0] <= log_snr) & (log_snr < interval[1])
        if cond is None or guidance_scale == 1.0 or inside is not None and not inside.any():
            return to_x(net(z, log_snr, cond), z, log_snr, prediction)
        both = net(torch.cat([z, z]), torch.cat([log_snr, log_snr]), torch.cat([cond, torch.zeros_like(cond)]))
        conditional, null = both.chunk(2)
        guided = null + guidance_scale * (conditional - null)
        if rescale:
            axes = tuple(range(1, z.dim()))
            guided = guided * (1 - rescale + rescale * conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True))
        if inside is not None:
            guided = torch.where(inside.view(-1, *[1] * (z.dim() - 1)), guided, conditional)
        return to_x(guided, z, log_snr, prediction)

    return denoise


def temporally_guided(net: Callable[..., torch.Tensor], temporal_scale: float) -> Callable[..., torch.Tensor]:
    """The network `net` with temporal guidance: frames + temporal_scale * (clip - frames), where clip is its output for clips (B, C, T, H, W) and frames that for each of their frames by itself.

    The other frames are to a frame what a caption is to a clip (`guided_denoiser`): 0 leaves each frame alone, 1 is as trained, more exaggerates what frames have in common. For networks that know single images: from joint
    training (*Video Diffusion Models*, section 4.3.1), or because an image network is in them (*Make-A-Video*, section 3.2). After Esser et al. 2023 (arXiv 2302.03011), who guide the null condition alone. Inputs of the
    network that are one a clip, (B,) or (B, embed_dim), are those of each of its frames. Twice the calls.
    """

    def guided(z: torch.Tensor, log_snr: torch.Tensor, cond: torch.Tensor | None = None, **inputs: torch.Tensor) -> torch.Tensor:
        count = z.shape[2]
        alone = {name: tensor.repeat_interleave(count, dim=0) for name, tensor in inputs.items()}
        frames = net(rearrange(z, "b c t h w -> (b t) c 1 h w"), log_snr.repeat_interleave(count), None if cond is None else cond.repeat_interleave(count, dim=0), **alone)
        frames = rearrange(frames, "(b t) c 1 h w -> b c t h w", t=count)
        return frames + temporal_scale * (net(z, log_snr, cond, **inputs) - frames)

    return guided


class RivalDenoiser:
    """A denoiser for one run of ancestral sampling, with classifier-free guidance and away from what other conditions would make: null + guidance_scale * (conditional - null) + rival_scale * (conditional - rival).

    rivals (B, R, embed_dim): R conditions a sample, equally likely beforehand; rival is the network's output for *one of them, not known which*: the mean of its outputs for all, weighted by how likely each is after the
    steps so far. A step from z_t to z_s has density q(z_s | z_t, x_hat) under a condition whose estimate is x_hat, so the weights follow from the path by Bayes' rule. (Composable Diffusion, arXiv 2206.01714, subtracts
    one condition; here it is a mixture, the equal weights of which would only push away from their mean.) follow: False for those, as a control. gamma: as the sampler's. One network call of R + 2 times the batch.
    """

    def __init__(self, net: Callable[..., torch.Tensor], cond: torch.Tensor, rivals: torch.Tensor, guidance_scale: float, rival_scale: float, prediction: str,
                 gamma: float = 0.1, follow: bool = True) -> None:
        self.net, self.conditions, self.prediction = net, torch.cat([cond, torch.zeros_like(cond), *rivals.unbind(1)]), prediction
        self.guidance_scale, self.rival_scale, self.gamma, self.follow = guidance_scale, rival_scale, gamma, follow
        self.log_weight = torch.zeros(rivals.shape[:2], device=rivals.device)
        self.before: tuple[torch.Tensor, list[torch.Tensor], torch.Tensor] | None = None  # the last z, what each rival made of it, and its log-SNR

    @property
    def weights(self) -> torch.Tensor:
        """(B, R): how likely each rival is after the steps so far."""
        return self.log_weight.softmax(dim=1)

    def __call__(self, z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        """As any `Denoiser`; log_snr is the same for all samples."""
        count = len(self.conditions) // len(z)
        conditional, null, *others = self.net(torch.cat([z] * count), torch.cat([log_snr] * count), self.conditions).chunk(count)
        if self.follow:
            self._follow(z.detach(), log_snr, [output.detach() for output in others])
        rival = torch.einsum("b r, r b ... -> b ...", self.weights, torch.stack(others))
        return to_x(null + self.guidance_scale * (conditional - null) + self.rival_scale * (conditional - rival), z, log_snr, self.prediction)

    def _follow(self, z: torch.Tensor, log_snr: torch.Tensor, outputs: list[torch.Tensor]) -> None:
        now = log_snr[0].double().cpu()
        if self.before is not None:
            z_t, estimates, then = self.before
            off = torch.stack([(z - ancestral_step(z_t, x_hat, then, now)).square().flatten(1).sum(dim=1) for x_hat in estimates], dim=1)
            self.log_weight = self.log_weight - off / (2 * float(ancestral_variance(then, now, self.gamma)))
        self.before = z, [to_x(output, z, log_snr, self.prediction).clamp(-1, 1) for output in outputs], now


def reconstruction_denoiser(denoise: Denoiser, observe: Callable[[torch.Tensor], torch.Tensor], observed: torch.Tensor, weight: float,
                            free: torch.Tensor | None = None) -> Denoiser:
    """A denoiser with reconstruction guidance (*Video Diffusion Models*, section 3.1): x_hat - weight * alpha / 2 * grad_z |observed - observe(x_hat)|^2.

    observe: a differentiable function of x (B, ...) for what is known: the given frames of a clip, or its pixels averaged down. observed: its value (B, ...). weight: w_r of the paper.
    The squared norm is a sum over everything observed, and the gradient runs through `denoise` (with classifier-free guidance, through both of its halves). free: bool, broadcasts to x:
    where x_hat is corrected (None: everywhere). Given frames are `Known` to the sampler and the others are free; with averaged pixels nothing is known exactly.
    """

    def denoise_and_correct(z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        alpha, sigma = coefficients(log_snr, z)
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            x_hat = denoise(z, log_snr)
            missed = (observe(x_hat) - observed).square().flatten(1).sum(1)
            # divided by sigma, the factor that v- and eps-prediction put on the network: so float16 carries numbers of order one at every noise level
            gradient, = torch.autograd.grad((missed / sigma.flatten()).sum(), z)
        x_hat, correction = x_hat.detach(), weight * alpha / 2 * sigma * gradient
        return x_hat - (correction if free is None else torch.where(free, correction, 0))

    return denoise_and_correct


def _as(number: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return number.to(like)
