import copy

import pytest
import torch
from torch import nn

from utils.optimizer import Muon, matrices_of, orthogonalized
from utils.recipes import MAV, MAV_INTERPOLATE, VDM_TEXT
from utils.train import Trainer
from utils.unet import UNet


class Small(nn.Module):
    """A layer of every kind that the optimizer tells apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pixels = nn.Conv2d(1, 32, 3, padding=1)
        self.wide, self.tall = nn.Conv2d(32, 64, 3, padding=1), nn.Linear(64, 128)
        self.attention, self.words = nn.MultiheadAttention(128, 4, batch_first=True), nn.Embedding(20, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.tall(torch.tanh(self.wide(torch.tanh(self.pixels(x)))).mean(dim=(2, 3)))[:, None]
        words = self.words(torch.arange(20)).expand(len(x), -1, -1)
        return self.attention(x, words, words)[0]


def stepped(net: Small, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> Small:
    for step in range(first, first + steps):
        optimizer.zero_grad()
        net(torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(step))).pow(2).sum().backward()
        optimizer.step()
    return net


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (32, 32)])
def test_orthogonalized_keeps_directions_and_levels_sizes(shape):
    g = torch.Generator().manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(3, *shape, generator=g), full_matrices=False)
    sizes = torch.logspace(0, -2.5, min(shape))
    result = orthogonalized(u * sizes @ vh)
    inside = u.mT @ result @ vh.mT  # in the directions of the matrix itself
    levelled = inside.diagonal(dim1=1, dim2=2)
    assert levelled.min() > 0.6 and levelled.max() < 1.25
    assert (inside - torch.diag_embed(levelled)).abs().max() < 1e-3
    assert orthogonalized(torch.zeros(1, *shape)).abs().max() == 0


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this version of PyTorch has no Muon to agree with")
def test_a_matrix_moves_as_by_the_librarys_muon():
    """The library's works in bfloat16: it agrees to its precision."""
    mine, theirs = nn.Linear(40, 90, bias=False), nn.Linear(40, 90, bias=False)
    theirs.load_state_dict(mine.state_dict())
    before = mine.weight.detach().clone()
    optimizers = Muon(mine, lr=1e-2), torch.optim.Muon(theirs.parameters(), lr=1e-2, weight_decay=0, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for step in range(5):
        gradient = torch.randn(90, 40, generator=torch.Generator().manual_seed(step))
        for layer, optimizer in zip((mine, theirs), optimizers):
            layer.weight.grad = gradient.clone()
            optimizer.step()
    moved, expected = mine.weight.detach() - before, theirs.weight.detach() - before
    assert (moved - expected).norm() < 0.02 * expected.norm()
    assert 0.9 < moved.pow(2).mean().sqrt() / (0.2 * 1e-2 * 5**0.5) < 2.2  # five steps, alike in direction by their momentum


def test_a_convolution_moves_as_the_matrix_that_it_is():
    conv, linear = nn.Conv2d(24, 48, 3, bias=False), nn.Linear(24 * 9, 48, bias=False)
    linear.weight.data.copy_(conv.weight.flatten(1))
    gradient = torch.randn(48, 24, 3, 3)
    for layer, its in ((conv, gradient), (linear, gradient.flatten(1))):
        layer.weight.grad = its
        Muon(layer, lr=0.1).step()
    assert torch.allclose(conv.weight.flatten(1), linear.weight, atol=1e-6)


def test_all_but_the_matrices_moves_as_by_adam():
    net = Small()
    taken = {id(weight) for weight in matrices_of(net)}
    adams = {name for name, parameter in net.named_parameters() if id(parameter) not in taken}
    assert adams == {"pixels.weight", "pixels.bias", "wide.bias", "tall.bias", "attention.in_proj_bias", "attention.out_proj.bias", "words.weight"}
    twin = copy.deepcopy(net)
    muon, adam = Muon(net, lr=1e-2), torch.optim.Adam(twin.parameters(), lr=1e-2, betas=(0.9, 0.99))
    for optimizer, its in ((muon, net), (adam, twin)):
        stepped(its, optimizer, 1)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, twin.get_parameter(name)) == (name in adams), name


def test_gradients_are_still_there_after_a_step_and_what_has_none_stays():
    net = Small()
    net.tall.weight.requires_grad_(False)
    before, optimizer = copy.deepcopy(net), Muon(net, lr=1e-2)
    stepped(net, optimizer, 1)
    assert net.wide.weight.grad is not None and torch.equal(net.tall.weight, before.tall.weight)
    after = copy.deepcopy(net)
    optimizer.zero_grad()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), after.parameters()))
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)


def test_a_saved_state_goes_on_as_if_nothing_had_happened(tmp_path):
    whole, first = Small(), Small()
    stepped(whole, Muon(whole, lr=1e-2), 4)
    optimizer = Muon(first, lr=1e-2)
    stepped(first, optimizer, 2)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = Muon(first, lr=1e-2)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    stepped(first, resumed, 2, first=2)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), first.parameters()))


def test_it_learns_what_is_rarely_needed_sooner_than_adam():
    """Least squares in which one input is a hundred times fainter than another, mixed by rotations so that no entry of a weight has a size of its own."""
    g = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(32, 32, generator=g))[0]
    inputs = torch.randn(512, 32, generator=g) * torch.logspace(0, -2, 32) @ rotation
    target = torch.linalg.qr(torch.randn(32, 32, generator=g))[0]

    def error(make, lr: float) -> float:
        net = nn.Linear(32, 32, bias=False)
        nn.init.zeros_(net.weight)
        optimizer = make(net, lr)
        for step in range(200):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / 200)
            optimizer.zero_grad()
            (net(inputs) - inputs @ target.T).pow(2).mean().backward()
            optimizer.step()
        return float((net.weight.detach() - target).norm() / target.norm())

    muon, adam = (min(error(make, lr) for lr in (0.03, 0.1, 0.3)) for make in (Muon, lambda net, lr: torch.optim.Adam(net.parameters(), lr=lr)))
    assert muon < adam / 10, (muon, adam)


def test_what_it_takes_of_our_networks():
    net = UNet(VDM_TEXT.net)
    taken = {id(weight) for weight in matrices_of(net)}
    names = {name for name, parameter in net.named_parameters() if id(parameter) in taken}
    assert not names & {"first.weight", "last.weight", "text.words.weight", "text.positions"} and not any("relative" in name or name.endswith("bias") for name in names)
    assert sum(parameter.numel() for parameter in matrices_of(net)) > 0.98 * sum(parameter.numel() for parameter in net.parameters())
    told = UNet(MAV_INTERPOLATE.net)
    assert not {id(told.conditioning.weight), id(told.first.weight)} & {id(weight) for weight in matrices_of(told)}  # frames that are given are pixels, too
    trainer = Trainer(MAV, MAV.budget("smoke"), "cpu", "off")
    assert all(weight.requires_grad for weight in trainer.optimizer.matrices) and len(trainer.optimizer.matrices) < len(matrices_of(UNet(MAV.net)))
