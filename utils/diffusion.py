"""The forward process, the three parameterizations of what a network predicts, and the loss.

Shapes: x, z, eps, v are (B, ...); log_snr is (B,). Conversions run in the dtype of z, their coefficients in float64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .schedule import alpha_sigma

PREDICTIONS = ("eps", "x", "v")


def coefficients(log_snr: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha and sigma of (B,) log_snr as (B, 1, ...), computed in float64, in the dtype and on the device of `like`."""
    shape = (-1, *[1] * (like.dim() - 1))
    alpha, sigma = alpha_sigma(log_snr)
    return alpha.view(shape).to(like), sigma.view(shape).to(like)


def q_sample(x: torch.Tensor, log_snr: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """Noise data: z = alpha x + sigma eps (DDPM, equation 4)."""
    alpha, sigma = coefficients(log_snr, x)
    return alpha * x + sigma * eps


def target(x: torch.Tensor, eps: torch.Tensor, log_snr: torch.Tensor, prediction: str) -> torch.Tensor:
    """What the network should output for z = alpha x + sigma eps: eps, x, or v = alpha eps - sigma x."""
    if prediction == "eps":
        return eps
    if prediction == "x":
        return x
    alpha, sigma = coefficients(log_snr, x)
    return alpha * eps - sigma * x


def to_x(output: torch.Tensor, z: torch.Tensor, log_snr: torch.Tensor, prediction: str) -> torch.Tensor:
    """The network's output as an estimate of x: v gives alpha z - sigma v, eps gives (z - sigma eps) / alpha."""
    if prediction == "x":
        return output
    alpha, sigma = coefficients(log_snr, z)
    return alpha * z - sigma * output if prediction == "v" else (z - sigma * output) / alpha


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
    error = F.mse_loss(output.float(), target(x, eps, log_snr, prediction).float(), reduction="none").flatten(1).mean(1)
    if min_snr is None:
        return error
    snr = log_snr.float().exp()
    natural = {"x": torch.ones_like(snr), "eps": snr, "v": snr + 1}[prediction]  # |d output|^2 = natural |d x|^2
    return error * (snr.clamp(max=min_snr) / natural).to(error)
