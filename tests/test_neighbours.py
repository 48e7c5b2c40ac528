"""The practice of one digit beside others that are clearer: who is where, what the loss looks at, and training with it."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from test_processes import NET

from utils.captions import parse
from utils.data import MovingMNIST
from utils.diffusion import loss_per_sample, q_sample, target
from utils.neighbours import NAMING, Neighbours, Readers, drawn, main, squares, worth_of_telling
from utils.pretrained import load_pretrained
from utils.processes import ALONE, Processes
from utils.recipes import MAV_IMAGE, VDM_TEXT, Budget, Curriculum, Practice
from utils.runtime import generator
from utils.train import Trainer

PRACTICE = Practice(0.5, 2, -4.0, 0.0, clearer=6.0)
TINY = replace(VDM_TEXT, net=NET, num_images=2, curriculum=Curriculum((PRACTICE,), rehearsal=2))


def scene(num=8, num_digits=2, num_frames=3, **clips):
    batch = MovingMNIST("train", 0, num_frames=num_frames, num_digits=num_digits, **clips).sample(num)
    return batch, Neighbours.of(batch, torch.arange(num) % num_digits, torch.linspace(1, 6, num))


@pytest.mark.parametrize("size", [32, 64])
def test_a_digit_is_drawn_in_its_square_and_squares_are_no_larger_than_they_must_be(size):
    batch = MovingMNIST("train", 0, image_size=size, num_digits=1).sample(64)
    square, lit = squares(batch.position, size)[:, 0], batch.video[:, 0] > -1
    assert not (lit & (square == 0)).any() and lit.any()
    sides = square.amax(dim=-1).sum(dim=-1), square.amax(dim=-2).sum(dim=-1)
    assert all(set(side.unique().tolist()) <= {28 * size / 64, 28 * size / 64 + 1} for side in sides)


def test_only_other_digits_are_clearer_and_only_where_they_are_alone():
    batch, neighbours = scene(num_digits=3)
    base = torch.linspace(-4, 0, 8)
    more = neighbours.log_snr(base)[:, 0] - base.view(-1, 1, 1, 1)
    square = squares(batch.position, 32)
    alone = square * (square.sum(1, keepdim=True) == 1)
    for clip in range(8):
        for digit in range(3):
            inside = more[clip][alone[clip, digit] == 1]
            assert torch.allclose(inside, torch.full_like(inside, 0.0 if digit == clip % 3 else 1 + 5 * clip / 7), atol=1e-5)
        assert more[clip][square[clip].sum(0) != 1].abs().max() < 1e-6
    z = q_sample(batch.video, neighbours.log_snr(base), torch.zeros_like(batch.video))
    assert torch.allclose(z, batch.video * torch.sigmoid(neighbours.log_snr(base)).sqrt(), atol=1e-6)


def test_the_loss_sees_the_hidden_digit_and_nothing_else():
    batch, neighbours = scene()
    x, eps, log_snr = batch.video, torch.randn(batch.video.shape, generator=generator(1)), torch.zeros(8)
    hidden = neighbours.alone[torch.arange(8), neighbours.hidden][:, None]
    right = (eps - x) / math.sqrt(2)  # v at log-SNR 0
    assert neighbours.loss(right + 3 * (1 - hidden), x, eps, log_snr, "v").abs().max() < 1e-10
    off = neighbours.loss(right + 3 * hidden, x, eps, log_snr, "v")
    assert torch.allclose(off, 9.0 * (hidden.flatten(1).sum(1) > 0), atol=1e-4) and off.max() > 8
    lone = replace(neighbours, alone=torch.ones_like(neighbours.alone))  # were the hidden one everywhere, the loss would be the usual one
    assert torch.allclose(lone.loss(0.5 * right, x, eps, log_snr, "v"), loss_per_sample(0.5 * right, x, eps, log_snr, "v"), rtol=1e-5)
    covered = replace(neighbours, alone=torch.zeros_like(neighbours.alone))
    assert (covered.loss(0.5 * right, x, eps, log_snr, "v") == 0).all()


def test_readers_are_right_where_they_name_each_digit_in_its_place():
    _, neighbours = scene(speed=0.0)
    readers = Readers(replace(NET, channels=(8, 10)))
    for reader in (readers.down, readers.up):
        torch.nn.init.zeros_(reader.weight)
        torch.nn.init.zeros_(reader.bias)
    nothing = torch.zeros(8 * 3, 10, 8, 8)
    seen = neighbours.alone.flatten(2).sum(2).min(dim=1).values > 0  # no digit is covered all the time
    assert torch.allclose(readers({("down", 1): nothing, ("up", 1): nothing}, neighbours)[seen], torch.tensor(2 * math.log(10)))
    for reader in (readers.down, readers.up):
        torch.nn.init.eye_(reader.weight.data[:, :, 0, 0])
    told = {}
    for way, which in (("down", 1 - neighbours.is_hidden), ("up", neighbours.is_hidden)):
        area = torch.nn.functional.adaptive_avg_pool2d((neighbours.alone * which[:, :, None, None, None]).flatten(0, 2)[:, None], 8).view(8, 2, 3, 8, 8) > 0
        names = torch.nn.functional.one_hot(neighbours.labels, 10).float()
        told[way, 1] = 20 * torch.einsum("b d t h w, b d n -> b t n h w", area.float(), names).flatten(0, 1)
    assert readers(told, neighbours)[seen].max() < 0.8 and seen.any()  # not 0: a cell may hold the edges of both
    exchanged = {("down", 1): told["up", 1], ("up", 1): told["down", 1]}
    differ = neighbours.labels[:, 0] != neighbours.labels[:, 1]
    assert readers(exchanged, neighbours)[seen & differ].min() > 4


def test_training_practises_at_first_and_then_rehearses_resumes_and_shares_its_rows(tmp_path):
    def trainer(**options):
        return Trainer(TINY, Budget(6, 4), device="cpu", amp="off", **options)

    whole, first, resumed, compiled = trainer(), trainer(), trainer(), trainer(compiled=True)
    drawn = [whole.draw(step) for step in range(6)]
    assert [d.neighbours is not None for d in drawn] == [True, True, True, False, True, False]
    assert all(-4 <= float(d.log_snr.min()) and float(d.log_snr.max()) <= 0 and (d.keep == 1).all() and d.num_images == 0 for d in drawn if d.neighbours)
    assert all(0 <= float(d.neighbours.clearer.min()) and float(d.neighbours.clearer.max()) <= 6 for d in drawn if d.neighbours) and len({int(d.neighbours.hidden[0]) for d in drawn if d.neighbours}) == 2
    for step in (0, 3):
        parts = [whole.loss(step, rows) for rank in (0, 1) for rows in Processes(rank, 2).shares(4)], [whole.loss(step, rows) for rows in ALONE.shares(4, 4)]
        assert all(abs(whole.loss(step) - sum(part) / len(part)) < 1e-5 for part in parts)
    compiled.net.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    before = [p.clone() for p in whole.readers.parameters()]
    losses = [p.loss for p in whole.run()]
    assert losses == [p.loss for p in compiled.run()]
    assert all(not torch.equal(a, b) for a, b in zip(before, whole.readers.parameters()))
    for _ in range(2):
        first.train_step()
    first.save(tmp_path / "c.pt")
    resumed.load(tmp_path / "c.pt")
    assert [p.loss for p in resumed.run()] == losses[2:]
    assert not any("reader" in name for name in whole.model().net.state_dict())
    plain = Trainer(replace(TINY, curriculum=None), Budget(6, 4), device="cpu", amp="off")
    assert plain.readers is None and plain.draw(0).neighbours is None and NAMING > 0


def test_a_practice_of_one_digit_has_no_neighbours_to_show():
    for digits, clearer in ((1, 6.0), (2, -1.0)):
        with pytest.raises(ValueError, match="clearer"):
            Practice(0.5, digits, -4.0, 0.0, clearer)


def fake(push, **changes):
    """A model whose network says push(caption) everywhere, whatever it sees."""
    return SimpleNamespace(name="mav-image", kind="image", recipe=MAV_IMAGE, prediction="v", device=torch.device("cpu"), dtype=None, sample_shape=MAV_IMAGE.sample_shape, frame_rate=lambda fps, num: {},
                           encode=lambda captions: torch.tensor([[push(parse(text))] for text in captions]), net=lambda z, log_snr, c: c[:, :, None, None, None].expand_as(z), **changes)


def test_what_telling_is_worth_against_its_closed_form_and_a_deaf_model_for_which_it_is_worth_nothing():
    found = worth_of_telling(fake(lambda caption: 0.5 * (len(set(caption.digits)) == 1)), num=24, seed=3)
    batch = MAV_IMAGE.dataset("test", 3).sample(24)
    eps, log_snr = torch.randn(batch.video.shape, generator=generator(3)), torch.full((24,), -1.5)
    square = squares(batch.position, 32)
    area = (square[:, 0] * (1 - square[:, 1])).flatten(1)
    v = target(batch.video, eps, log_snr, "v").flatten(1)
    less = (area * (v - 0.25)).sum(1) / area.sum(1).clamp(min=1)  # v^2 - (v - 0.5)^2 = v - 0.25
    less = less[batch.labels[:, 0] != batch.labels[:, 1]]
    assert set(found) == {"0", "2", "6"}
    for row in found.values():
        assert row["n"] == len(less) < 24 and row["mean"] == pytest.approx(float(less.mean()), abs=1e-5) and row["standard_error"] == pytest.approx(float(less.std() / len(less) ** 0.5), rel=1e-3)
    assert all(row["mean"] == 0 for row in worth_of_telling(fake(lambda caption: 0.5), num=8).values())
    with pytest.raises(ValueError, match="take mav-image or vdm-text"):
        worth_of_telling(load_pretrained("mnist-guided", "cpu"), num=2)


def test_what_is_drawn_is_read_against_the_captions_that_were_asked_for():
    asked = []

    def real(captions, seed, rival_scale):
        assert rival_scale == 0
        asked.extend(captions)
        return (MAV_IMAGE.dataset("test", seed).sample(len(captions)).video + 1) / 2

    found = drawn(fake(None, sample=real), num=48, seed=5)
    again = drawn(fake(None, sample=lambda captions, **options: real(captions, **options).roll(1, 0)), num=48, seed=5)  # everyone gets somebody else's
    assert len(asked) == 96 and all(parse(text).directions is None for text in asked)
    assert found["digits"] > 0.6 > 0.2 > again["digits"] and found["digits_n"] == 48 and found["guidance_scale"] == MAV_IMAGE.guidance_scale and found["twice"] < 0.1


def test_the_command_keeps_what_it_measured_beside_what_was_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("utils.neighbours.RESULTS", tmp_path)
    for name in ("one", "two"):
        monkeypatch.setattr("sys.argv", ["neighbours", "mav-image", "--num", "4", "--device", "cpu", "--keep", name])
        main()
    kept = json.loads((tmp_path / "mav-image-neighbours.json").read_text())
    assert set(kept) == {"one", "two"} and kept["one"]["rows"] == kept["two"]["rows"] and kept["one"]["drawn"] == kept["two"]["drawn"] and kept["one"]["trained"]["recipe"] == "mav-image"
    assert "lower if told twice" in capsys.readouterr().out
