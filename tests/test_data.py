"""Moving MNIST against a plain loop, its labels and captions, and the embedded MNIST."""

import hashlib
import shutil

import numpy as np
import pytest
import torch

from utils import data
from utils.captions import DIRECTIONS, octant, parse
from utils.data import FINE_SPEED, DataError, MovingMNIST, mnist


def simulate(start, velocity, frames, skip):
    """The published rule for one digit, in plain Python: move, clamp to the wall and flip, then record."""
    (y, x), (vy, vx), seen = start, velocity, []
    for frame in range((frames - 1) * skip + 1):
        y, x = y + vy, x + vx
        if y <= 0.0:
            y, vy = 0.0, -vy
        elif y >= 1.0:
            y, vy = 1.0, -vy
        if x <= 0.0:
            x, vx = 0.0, -vx
        elif x >= 1.0:
            x, vx = 1.0, -vx
        if frame % skip == 0:
            seen.append((y, x, vy * skip, vx * skip))
    return seen


@pytest.mark.parametrize(("size", "skip", "num_digits", "speed"), [(32, 1, 2, 0.1), (64, 1, 2, 0.1), (32, 5, 1, 0.02), (64, 2, 3, 0.1), (16, 1, 1, 0.3)])
def test_generator_equals_a_plain_loop(size, skip, num_digits, speed, monkeypatch):
    drawn = {}

    def spy(name):
        original = getattr(data, name)
        monkeypatch.setattr(data, name, lambda *arguments: drawn.setdefault(name, (arguments, original(*arguments)))[1])

    spy("starts")
    spy("render")
    batch = MovingMNIST("test", seed=3, image_size=size, num_frames=12, num_digits=num_digits, frame_skip=skip, speed=speed).sample(5)
    start, angle = drawn["starts"][1]
    digits = drawn["render"][0][0].numpy()
    factor = 64 // size
    for n in range(5):
        paths = [simulate(start[n, d].tolist(), (speed * np.sin(float(angle[n, d])), speed * np.cos(float(angle[n, d]))), 12, skip) for d in range(num_digits)]
        for t in range(12):
            canvas = np.zeros((64, 64), np.uint8)
            for d, path in enumerate(paths):
                y, x, vy, vx = path[t]
                top, left = int(36 * y), int(36 * x)
                canvas[top:top + 28, left:left + 28] = np.maximum(canvas[top:top + 28, left:left + 28], digits[n, d])
                assert batch.position[n, d, t].tolist() == pytest.approx([36 * y / factor, 36 * x / factor], abs=1e-4)
                assert batch.velocity[n, d, t].tolist() == pytest.approx([36 * vy / factor, 36 * vx / factor], abs=1e-4)
            small = canvas.reshape(size, factor, size, factor).astype(np.float64).mean((1, 3)) / 127.5 - 1
            assert np.abs(batch.video[n, 0, t].numpy() - small).max() < 1e-6


def test_frame_skip_keeps_frames_of_the_fine_clock():
    options = {"split": "test", "seed": 4, "speed": FINE_SPEED, "captions": "motion"}
    fine, kept = MovingMNIST(num_frames=76, **options).sample(6), MovingMNIST(num_frames=16, frame_skip=5, **options).sample(6)
    assert torch.equal(fine.video[:, :, ::5], kept.video) and torch.equal(fine.position[:, :, ::5], kept.position) and fine.captions == kept.captions
    speed = kept.velocity.norm(dim=-1)
    assert torch.allclose(speed, torch.full_like(speed, 1.8), atol=1e-4)  # the published speed: 3.6 px of 64, halved
    assert MovingMNIST("test", num_frames=96, image_size=64).sample(2).video.shape == (2, 1, 96, 64, 64)


def test_clips_do_what_their_captions_say():
    asked = ["3 and 7", "three moving left and 3 moving up right", "0 moving down and 9 moving down left"] * 4
    source = MovingMNIST("test", seed=7)
    batch = source.from_captions(asked, index=2)
    for text, caption, labels, velocity in zip(asked, batch.captions, batch.labels, batch.velocity):
        wanted = parse(text)
        assert parse(caption) == wanted and labels.tolist() == list(wanted.digits)
        if wanted.directions:
            assert octant(velocity[:, 0]).tolist() == list(wanted.directions)
    assert torch.equal(source.from_captions(asked, index=2).video, batch.video)
    assert len({tuple(p) for p in batch.position[:, 0, 0].tolist()}) == len(asked)  # drawn afresh for each
    for bad, message in (["3"], "2 digits each"), (["3 moving sideways and 4"], "sideways"), ([], "2 digits each"):
        with pytest.raises(ValueError, match=message):
            source.from_captions(bad)
    with pytest.raises(ValueError, match="no digit 7"):
        MovingMNIST("test", digits=range(5)).from_captions(["3 and 7"])
    with pytest.raises(ValueError, match="speed=0"):
        MovingMNIST("test", speed=0.0).from_captions(["3 moving left and 7 moving up"])


def test_given_a_caption_starts_are_distributed_as_in_the_data():
    plain = MovingMNIST("test", seed=1, num_digits=1, captions="motion", num_frames=1).sample(8000)
    to_the_left = plain.position[:, 0, 0][octant(plain.velocity[:, 0, 0]) == 4]
    asked = MovingMNIST("test", seed=2, num_digits=1, num_frames=1).from_captions(["1 moving left"] * 800).position[:, 0, 0]
    assert torch.allclose(asked.mean(0), to_the_left.mean(0), atol=0.8) and torch.allclose(asked.std(0), to_the_left.std(0), atol=0.5)
    at_right_wall = float((to_the_left[:, 1] == 18).float().mean())  # bounced in the first frame
    assert at_right_wall > 0.05 and float((asked[:, 1] == 18).float().mean()) == pytest.approx(at_right_wall, abs=0.04)


def test_digits_can_be_chosen_without_changing_the_paths():
    some, all_digits = MovingMNIST("test", seed=3, digits=(1, 4)).sample(50), MovingMNIST("test", seed=3).sample(50)
    assert set(some.labels.flatten().tolist()) == {1, 4} and torch.equal(some.position, all_digits.position)


def test_batches_are_the_same_across_workers():
    source = MovingMNIST("test", seed=8, captions="mixed")
    loaded = list(torch.utils.data.DataLoader(Batches(source, 6), batch_size=None, num_workers=2))
    for index, batch in enumerate(loaded):
        assert torch.equal(batch.video, source.sample(3, index=index).video) and batch.captions == source.sample(3, index=index).captions


class Batches(torch.utils.data.Dataset):
    """Batch number `index` of a source, as a worker process would make it."""

    def __init__(self, source, length):
        self.source, self.length = source, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.source.sample(3, index=index)


def test_velocity_carries_each_frame_to_the_next_unless_a_wall_is_in_the_way():
    batch = MovingMNIST("test", seed=1, captions="motion").sample(200)
    step = batch.position[:, :, 1:] - batch.position[:, :, :-1]
    free = 18.0
    touches = (batch.position[:, :, 1:] <= 0) | (batch.position[:, :, 1:] >= free)
    assert torch.allclose(step[~touches], batch.velocity[:, :, :-1][~touches], atol=1e-4)
    assert step[touches].abs().max() <= batch.velocity.abs().max() + 1e-4
    speed = batch.velocity.norm(dim=-1)
    assert torch.allclose(speed, torch.full_like(speed, 1.8), atol=1e-4)  # 3.6 px of 64, halved
    touching = ((batch.position[:, :, 0] <= 0) | (batch.position[:, :, 0] >= free)).any(-1).float().mean()
    assert 0.06 < touching < 0.19  # about 12% of digits touch a wall at frame 0


def test_captions_say_digits_and_directions():
    batch = MovingMNIST("test", seed=2, captions="motion").sample(50)
    for caption, labels, velocity in zip(batch.captions, batch.labels, batch.velocity):
        parsed = parse(caption)
        assert list(parsed.digits) == labels.tolist()
        for k, (row, column) in zip(parsed.directions, velocity[:, 0].tolist()):
            words = DIRECTIONS[k].split()
            angle = abs(np.degrees(np.angle(np.exp(1j * (np.arctan2(-row, column) - k * np.pi / 4)))))
            assert angle <= 22.5 + 1e-4
            assert ("left" not in words or column < 0) and ("up" not in words or row < 0)
    assert all(parse(c).directions is None for c in MovingMNIST("test", captions="digits").sample(20).captions)
    kinds = [parse(c).directions is None for c in MovingMNIST("test", captions="mixed").sample(200).captions]
    assert 60 < sum(kinds) < 140
    assert MovingMNIST("test", captions=None).sample(2).captions is None


def test_batches_depend_on_seed_and_number_alone():
    a, b = MovingMNIST("test", seed=5), MovingMNIST("test", seed=5)
    first, second = a.sample(4), a.sample(4)
    assert not torch.equal(first.video, second.video)
    assert torch.equal(b.sample(4, index=1).video, second.video)
    assert torch.equal(b.sample(4).video, first.video)
    assert not torch.equal(MovingMNIST("test", seed=6).sample(4).video, first.video)


def test_splits_share_no_digit():
    hashes = {s: {hashlib.sha1(i.tobytes()).digest() for i in mnist(s)[0].numpy()} for s in ("train", "validation", "test")}
    assert [len(mnist(s)[1]) for s in hashes] == [55_000, 5_000, 10_000]
    assert not hashes["train"] & hashes["test"] and not hashes["train"] & hashes["validation"] and not hashes["validation"] & hashes["test"]


@pytest.mark.parametrize(("arguments", "message"), [
    ({"split": "dev"}, "split"), ({"image_size": 30}, "image_size"), ({"num_frames": 0}, "num_frames"), ({"num_digits": 4}, "num_digits"),
    ({"frame_skip": 0}, "frame_skip"), ({"captions": "poem"}, "captions"), ({"speed": -1.0}, "speed"), ({"digits": (3, 10)}, "digits"), ({"digits": ()}, "digits")])
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MovingMNIST(**arguments)


def test_missing_or_damaged_mnist_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="git checkout"):
        mnist("train", tmp_path / "mnist.npz")
    broken = tmp_path / "broken.npz"
    shutil.copy(data.MNIST_FILE, broken)
    with open(broken, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match="damaged"):
        mnist("train", broken)
