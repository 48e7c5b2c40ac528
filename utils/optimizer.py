"""Muon: an optimizer that treats a layer's weights as one matrix, with Adam for everything else.

Jordan et al., *Muon: An optimizer for hidden layers in neural networks* (2024); size of the updates as in *Muon is Scalable for LLM Training* (arXiv 2502.16982, section 2.2).
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic polynomial: steepest at 0, where small singular values grow
STEPS = 5
SMALLEST = 16  # channels in and out: layers with fewer, those that read and write pixels, are left to Adam


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """(N, rows, columns) -> the same shape: each matrix U S V^T becomes about U V^T, with singular values between 0.68 and 1.21 (those under a hundredth of the largest may
    stay smaller), by Newton-Schulz iteration: matrix products only, which a GPU does well. A matrix of zeros stays zero."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def matrices_of(net: nn.Module) -> list[nn.Parameter]:
    """The trained weights of linear layers, convolutions and attention with at least SMALLEST channels in and out; a convolution's (out, in, ...) is a matrix (out, in x ...). Not biases,
    norms or embeddings, whose rows are looked up one by one."""
    weights = [module.in_proj_weight if isinstance(module, nn.MultiheadAttention) else module.weight for module in net.modules()
               if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.MultiheadAttention))]
    return [weight for weight in weights if weight.requires_grad and min(weight.shape[:2]) >= SMALLEST]


class Muon(torch.optim.Adam):
    """Muon for `matrices_of(net)`, Adam for the other trained parameters.

    Adam divides every entry of a gradient by its own size; Muon gives every direction of a matrix the same size: the average of the gradients (Nesterov momentum) is made orthogonal,
    so that what the network rarely needs is learnt as fast as what it always needs. Updates are as large as Adam's usually are (root mean square 0.2 lr),
    so one learning rate suits both. Unlike `torch.optim.Muon` it takes convolutions, works in float32 (a T4 has no bfloat16), and batches matrices of the same shape.
    """

    def __init__(self, net: nn.Module, lr: float, momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        self.matrices, self.momentum = matrices_of(net), momentum
        super().__init__([parameter for parameter in net.parameters() if parameter.requires_grad], lr=lr, betas=betas)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step from the present gradients; parameters without a gradient stay as they are."""
        if closure is not None:
            raise ValueError("Muon takes no closure: compute the gradients, then call step().")
        moved = [weight for weight in self.matrices if weight.grad is not None]
        gradients = [weight.grad for weight in moved]
        alike = defaultdict(list)
        for weight in moved:
            state = self.state[weight]
            if not state:
                state["step"], state["momentum"] = torch.tensor(0.0), torch.zeros_like(weight)
            state["step"] += 1
        if moved:
            averages = [self.state[weight]["momentum"] for weight in moved]
            torch._foreach_lerp_(averages, gradients, 1 - self.momentum)
            for weight, ahead in zip(moved, torch._foreach_lerp(gradients, averages, self.momentum)):
                alike[weight.flatten(1).shape].append((weight, ahead.flatten(1)))
        for (rows, columns), pairs in alike.items():
            weights, ahead = zip(*pairs)
            size = self.param_groups[0]["lr"] * 0.2 * max(rows, columns) ** 0.5
            torch._foreach_add_(weights, [update.view_as(weight) for update, weight in zip(orthogonalized(torch.stack(ahead)), weights)], alpha=-size)
        for weight in moved:
            weight.grad = None  # Adam skips what has no gradient
        super().step()
        for weight, gradient in zip(moved, gradients):
            weight.grad = gradient
