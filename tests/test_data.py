"""Moving MNIST against a plain loop, its labels and captions, and the embedded MNIST."""

import hashlib
import shutil

import numpy as np
import pytest
import torch

from utils import data
from utils.captions import DIRECTIONS, parse
from utils.data import DataError, MovingMNIST, mnist


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


@pytest.mark.parametrize(("size", "skip", "num_digits"), [(32, 1, 2), (64, 1, 2), (32, 5, 1), (64, 2, 3)])
def test_generator_equals_a_plain_loop(size, skip, num_digits, monkeypatch):
    drawn = {}
    original = data.trajectories

    def spy(num, digits, frames, speed, frame_skip, g):
        state = g.get_state()
        drawn["start"] = torch.rand(num, digits, 2, generator=g, dtype=torch.float64)
        drawn["angle"] = torch.rand(num, digits, generator=g, dtype=torch.float64) * 2 * np.pi
        g.set_state(state)
        return original(num, digits, frames, speed, frame_skip, g)

    monkeypatch.setattr(data, "trajectories", spy)
    chosen = {}
    real_render = data.render
    monkeypatch.setattr(data, "render", lambda digits, position: (chosen.update(digits=digits), real_render(digits, position))[1])

    source = MovingMNIST("test", seed=3, image_size=size, num_frames=12, num_digits=num_digits, frame_skip=skip, speed=0.1)
    batch = source.sample(5)
    factor = 64 // size
    for n in range(5):
        paths = [simulate(drawn["start"][n, d].tolist(), (0.1 * np.sin(float(drawn["angle"][n, d])), 0.1 * np.cos(float(drawn["angle"][n, d]))),
                          12, skip) for d in range(num_digits)]
        for t in range(12):
            canvas = np.zeros((64, 64), np.uint8)
            for d, path in enumerate(paths):
                y, x, vy, vx = path[t]
                top, left = int(36 * y), int(36 * x)
                canvas[top:top + 28, left:left + 28] = np.maximum(canvas[top:top + 28, left:left + 28], chosen["digits"][n, d].numpy())
                assert batch.position[n, d, t].tolist() == pytest.approx([36 * y / factor, 36 * x / factor], abs=1e-4)
                assert batch.velocity[n, d, t].tolist() == pytest.approx([36 * vy / factor, 36 * vx / factor], abs=1e-4)
            small = canvas.reshape(size, factor, size, factor).astype(np.float64).mean((1, 3)) / 127.5 - 1
            assert np.abs(batch.video[n, 0, t].numpy() - small).max() < 1e-6


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
    ({"frame_skip": 0}, "frame_skip"), ({"captions": "poem"}, "captions"), ({"speed": -1.0}, "speed")])
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
