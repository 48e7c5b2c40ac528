"""The library with everything on a pretended GPU: it does what it does on the CPU, and nothing is left behind there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 14):
    pytest.skip("a pretended device rests on an interface of PyTorch that is new, and tried with 2.14", allow_module_level=True)

from pretend_gpu import DEVICE, pretended_gpu
from utils import data, load_pipeline, load_pretrained
from utils.recipes import Budget, recipe
from utils.runtime import generator, pick_device
from utils.train import Trainer


@pytest.fixture
def gpu():
    with pretended_gpu() as device:
        yield device


@pytest.mark.parametrize("mix", [
    lambda a, b: a + b, lambda a, b: b * a, lambda a, b: a @ b.T, lambda a, b: torch.where(a > 0, a, b), lambda a, b: torch.cat([a, b]),
    lambda a, b: torch.nn.functional.conv2d(a[None, None], b[None, None]), lambda a, b: b[a[0].long()], lambda a, b: torch.stack([a.sum(), b.sum()]),
    lambda a, b: torch._foreach_lerp_([a], [b], 0.5), lambda a, b: b.add_(a)])
def test_tensors_of_two_devices_do_not_mix(gpu, mix):
    """As CUDA's do not; or all tests below would say nothing."""
    a, b = torch.ones(3, 4, device=gpu), torch.ones(3, 4)
    assert a.device.type == DEVICE.type and b.device.type == "cpu"
    with pytest.raises(RuntimeError, match="same device"):
        mix(a, b)


def test_what_may_mix_does(gpu):
    a = torch.arange(6.0, device=gpu)
    assert float((a + torch.tensor(1.0)).sum()) == 21 and a[torch.tensor([1, 2])].tolist() == [1, 2]
    assert a.cpu().device.type == "cpu" and torch.zeros(6).copy_(a).tolist() == a.tolist()
    with pytest.raises(RuntimeError, match="numpy"):
        a.numpy()


def test_generators_draw_for_their_own_device(gpu):
    here, there = generator(1), generator(1, device=gpu)
    assert torch.equal(torch.randn(3, generator=here), torch.randn(3, generator=there, device=gpu).cpu())
    for g, device in ((here, gpu), (there, "cpu")):
        with pytest.raises(RuntimeError, match="the other device"):
            torch.randn(3, generator=g, device=device)


def test_gradients_pass(gpu):
    layer = torch.nn.Linear(4, 2).to(gpu)
    layer(torch.ones(3, 4, device=gpu)).sum().backward()
    assert layer.weight.grad.device.type == DEVICE.type and layer.weight.grad.cpu().tolist() == [[3.0] * 4] * 2


MADE = {
    "sample": ("vdm-text", lambda model, clips: model.sample(["3 and 7", "1 moving up and 0 moving down"], steps=2)),
    "sample with temporal guidance": ("vdm", lambda model, clips: model.sample(num=2, steps=2)),
    "sample with DPM-Solver++": ("mnist-guided", lambda model, clips: model.sample(["3", "7"], steps=3, sampler="dpm++")),
    "inpaint, guided": ("vdm-text", lambda model, clips: model.inpaint(clips, torch.arange(16)[:, None, None] < 8, "3 and 7", steps=2)),
    "extend": ("vdm-text", lambda model, clips: model.extend(clips, 24, "3 and 7", steps=2)),
    "vary": ("vdm-text", lambda model, clips: model.vary(clips, log_snr=-2, captions="3 and 7", steps=3)),
    "interpolate": ("mav-interpolate", lambda model, clips: model.interpolate(clips[:, :, :4], steps=2)),
    "inpaint, told": ("mav-interpolate", lambda model, clips: model.inpaint(clips, torch.arange(16)[:, None, None] < 1, fps=6.0, steps=2)),
    "upsample": ("mav-upsample", lambda model, clips: model.upsample(clips[:, :, :3], steps=2)),
    "super_resolve": ("vdm-text", lambda model, clips: model.super_resolve(clips[..., ::2, ::2], "3 and 7", steps=2))}


@pytest.mark.parametrize("what", MADE)
def test_clips_are_those_of_the_cpu(gpu, what):
    name, make = MADE[what]
    clips = torch.rand(1, 1, 16, 32, 32, generator=generator(2))
    there, here = (make(load_pretrained(name, device=device), clips) for device in (gpu, "cpu"))
    assert here.device.type == there.device.type == "cpu" and here.std() > 0.01 and torch.allclose(there, here, atol=1e-5)


def test_the_pipeline_is_that_of_the_cpu(gpu):
    there, here = (load_pipeline("mav", device=device, amp="off")(["3 and 7"], steps=1) for device in (gpu, "cpu"))
    assert torch.allclose(there, here, atol=1e-4)


def trained_in(name):
    """The recipe; vdm-text without its curriculum, so that images are packed with its clips. That of mav-image stays: it has neighbours and readers."""
    return replace(recipe(name), curriculum=None) if name == "vdm-text" else recipe(name)


@pytest.mark.parametrize("name", ["mnist-ddpm", "vdm-text", "mav-image", "mav-interpolate", "mav-upsample"])
def test_training_is_that_of_the_cpu(gpu, name, tmp_path):
    """Losses of three steps; the last after a checkpoint that was written there is loaded here, and the other way round."""
    there, here = (Trainer(trained_in(name), Budget(3, 2), device=device, amp="off") for device in (gpu, "cpu"))
    assert all(parameter.device.type == DEVICE.type for parameter in there.net.parameters())
    for trainer, file in ((there, "there.pt"), (here, "here.pt")):
        trainer.train_step(), trainer.train_step()
        trainer.save(tmp_path / file)
    again_here, again_there = (Trainer(trained_in(name), Budget(3, 2), device=device, amp="off") for device in ("cpu", gpu))
    again_here.load(tmp_path / "there.pt"), again_there.load(tmp_path / "here.pt")
    for trainer in (there, here, again_here, again_there):
        trainer.train_step()
    assert there.history[0] != there.history[1] and all(trainer.history == pytest.approx(here.history, rel=1e-4) for trainer in (there, again_here, again_there))


def test_a_device_that_is_named_is_taken(gpu):
    assert pick_device("pretend").type == DEVICE.type


class WithoutFloat64(TorchDispatchMode):
    """While it is on, the pretended GPU knows no float64, as Apple's do not."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        if any(isinstance(value, torch.Tensor) and value.device.type == DEVICE.type and value.dtype == torch.float64 for value in tree_leaves(result)):
            raise TypeError(f"{op} makes float64 on {DEVICE}.")
        return result


@pytest.mark.parametrize("name", ["mnist-ddpm", "vdm-text", "mav-image", "mav-interpolate"])
def test_training_needs_no_float64_on_the_device(gpu, name, monkeypatch):
    monkeypatch.setattr("utils.schedule.in_float64", lambda numbers: numbers.cpu().double())  # as on Apple's
    with WithoutFloat64():
        with pytest.raises(TypeError, match="makes float64"):
            torch.ones(2, dtype=torch.float64).to(gpu)
        assert Trainer(recipe(name), Budget(2, 2), device=gpu, amp="off").train_step().step == 1


def test_batches_are_drawn_in_pieces_on_a_cpu_alone(gpu, monkeypatch):
    pieces = []
    monkeypatch.setattr(data, "render", lambda digits, position, render=data.render: (pieces.append(len(digits)), render(digits, position))[1])
    there, here = (data.MovingMNIST(device=device).sample(40, index=0).video for device in (gpu, "cpu"))
    assert pieces == [40, 32, 8] and torch.equal(there.cpu(), here)
