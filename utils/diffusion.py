"""The forward process, the four parameterizations of what a network predicts, and the loss.

Shapes: x, z, eps, v are (B, ...); log_snr is (B,), or (B, T) where each frame of (B, C, T, H, W) has its own noise level, or (B, 1, T, H, W) where each pixel has.
Conversions run in the dtype of z, their coefficients in float64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .schedule import alpha_sigma

PREDICTIONS = ("eps", "x", "v", "flow")


def coefficients(log_snr: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha and sigma of log_snr, computed in float64, with the dtype and device of `like` and a shape that broadcasts to it:
    (B,) gives (B, 1, ...), (B, T) gives (B, 1, T, 1, ...), as many axes as `like` stay as they are."""
    alpha, sigma = alpha_sigma(log_snr)
    return _spread(alpha, like).to(like), _spread(sigma, like).to(like)


def _spread(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if values.dim() == like.dim() > 2:
        return values
    lead = values.shape if values.dim() == 1 else (values.shape[0], 1, values.shape[1])
    return values.view(*lead, *[1] * (like.dim() - len(lead)))


def q_sample(x: torch.Tensor, log_snr: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """Noise x: z = alpha x + sigma eps (DDPM, equation 4)."""
    alpha, sigma = coefficients(log_snr, x)
    return alpha * x + sigma * eps


def augment(low_res: torch.Tensor, augmentation: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Conditioning augmentation (Ho et al. 2021, arXiv 2106.15282, section 4): low_res (B, ...) with noise of standard deviation `augmentation` (B,), 0 to 1, variance preserving."""
    a = _spread(augmentation, low_res).to(low_res)
    return (1 - a.square()).sqrt() * low_res + a * noise


def target(x: torch.Tensor, eps: torch.Tensor, log_snr: torch.Tensor, prediction: str) -> torch.Tensor:
    """What the network should output for z = alpha x + sigma eps: eps, x, v = alpha eps - sigma x (arXiv 2202.00512, section 4),
    or "flow": eps - x, the direction of rectified flow's straight line (arXiv 2209.03003)."""
    if prediction == "eps":
        return eps
    if prediction == "x":
        return x
    if prediction == "flow":
        return eps - x
    alpha, sigma = coefficients(log_snr, x)
    return alpha * eps - sigma * x


def to_x(output: torch.Tensor, z: torch.Tensor, log_snr: torch.Tensor, prediction: str) -> torch.Tensor:
    """The network's output as an estimate of x: eps gives (z - sigma eps) / alpha, v gives alpha z - sigma v, flow gives
    (z - sigma flow) / (alpha + sigma)."""
    if prediction == "x":
        return output
    alpha, sigma = coefficients(log_snr, z)
    if prediction == "v":
        return alpha * z - sigma * output
    return (z - sigma * output) / (alpha if prediction == "eps" else alpha + sigma)


def to_eps(x: torch.Tensor, z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
    """The noise that an estimate of x implies: (z - alpha x) / sigma. Needs sigma > 0."""
    alpha, sigma = coefficients(log_snr, z)
    return (z - alpha * x) / sigma


def loss_per_sample(output: torch.Tensor, x: torch.Tensor, eps: torch.Tensor, log_snr: torch.Tensor, prediction: str,
                    min_snr: float | None = None) -> torch.Tensor:
    """(B,) mean squared error of the network's output in its own parameterization, in float32.

    `min_snr` (min-SNR-gamma, arXiv 2303.09556; 5 is usual) weights the loss on x by min(SNR, min_snr), which is the
    same loss whatever the network predicts.
    """
    error = F.mse_loss(output.float(), target(x, eps, log_snr, prediction).float(), reduction="none")
    if min_snr is None:
        return error.flatten(1).mean(1)
    snr = log_snr.float().exp()
    if prediction == "eps":
        weight = (min_snr / snr).clamp(max=1)  # the quotient below, also where the SNR is 0
    else:
        natural = {"x": torch.ones_like(snr), "v": snr + 1, "flow": (snr.sqrt() + 1) ** 2}[prediction]  # |d output|^2 = natural |d x|^2
        weight = snr.clamp(max=min_snr) / natural
    return (error * _spread(weight, error).to(error)).flatten(1).mean(1)
