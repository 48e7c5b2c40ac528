"""Paths are found again, and both readers, with a network and without, find what is in a clip."""

import math

import pytest
import torch

from utils import judge
from utils.captions import octant
from utils.data import Batch, MovingMNIST
from utils.judge import Judge, load_network, read
from utils.metrics import agreement, obeyed
from utils.paths import Reading, bouncing_path, link
from utils.pretrained import WeightsError
from utils.runtime import generator
from utils.tracker import TRUNCATION, track


def mirror(start, velocity, frames):
    """One coordinate of even motion between walls at 0 and 1, in plain Python: velocity turns where a wall is met, and the way goes on."""
    where, seen = start, []
    for _ in range(frames):
        seen.append(where)
        where += velocity
        while not 0 <= where <= 1:
            where, velocity = (-where if where < 0 else 2 - where), -velocity
    return seen


@pytest.mark.parametrize(("frame_size", "frames"), [(32, 16), (64, 16), (32, 76)])
def test_a_mirrored_path_is_found_again(frame_size, frames):
    g, scale = generator(1), 0.5625 * frame_size
    start, velocity = torch.rand(40, 2, generator=g), (torch.rand(40, 2, generator=g) - 0.5) * 0.4
    tracks = torch.tensor([[mirror(float(s), float(v), frames) for s, v in zip(*row)] for row in zip(start, velocity)]).transpose(1, 2) * scale
    path = bouncing_path(tracks, frame_size)
    assert path.rmse.median() < 0.001 * scale and path.rmse.quantile(0.9) < 0.004 * scale and path.rmse.max() < 0.02 * scale
    inside = (start > 0.1) & (start < 0.9)
    assert (path.velocity - velocity * scale)[inside].abs().max() < 0.01 * scale


def test_a_digit_at_a_wall_leaves_it_and_a_still_one_has_no_direction():
    track = torch.tensor([mirror(0.0, -0.1, 16), mirror(0.5, 0.0, 16)]).T * 18  # heads out of the frame at its top: the same path as heading in
    still = torch.full((16, 2), 7.0)
    reading = Reading(torch.tensor([[1, 2]]), torch.stack([track, still])[None], torch.zeros(1, 2, 16, dtype=torch.long))
    assert reading.path.velocity[0, 0].tolist() == pytest.approx([1.8, 0.0], abs=0.02) and reading.angles[0, 0] == pytest.approx(-90, abs=1)
    assert reading.angles[0, 1].isnan() and obeyed(reading, ["1 moving down and 2 moving left"])["pairs"] == 0.5
    assert agreement(reading, reading)["same_directions"] == 1


def test_a_few_misread_frames_do_not_bend_a_path():
    track = 2 + torch.stack([torch.arange(16.0) * 0.5, torch.arange(16.0) * 0.8], dim=-1)
    misread = track.clone()
    misread[[3, 9]] = torch.tensor([17.0, 0.0])
    path = bouncing_path(misread, 32)
    assert (path.positions - track).abs().max() < 0.1 and path.rmse > 2  # but they count in rmse
    with pytest.raises(ValueError, match="two frames"):
        bouncing_path(track[:1], 32)


def test_real_paths_miss_the_mirrored_ones_by_what_the_sheet_of_numbers_says():
    batch = MovingMNIST("test", seed=5, image_size=64, captions=None).sample(500)
    miss = lambda tracks: float(bouncing_path(tracks, 64).rmse.mean())
    assert miss(batch.position) == pytest.approx(0.57, abs=0.03)  # pixels of 64: the clamp at the walls
    assert miss(batch.position.floor()) == pytest.approx(0.75, abs=0.03)  # and truncation to whole pixels
    g = generator(1)
    start, angle = 36 * torch.rand(500, 2, generator=g), 2 * math.pi * torch.rand(500, generator=g)
    mirrored = start[:, None] + 3.6 * torch.arange(16.0)[:, None] * torch.stack([angle.sin(), angle.cos()], dim=1)[:, None]
    mirrored = 36 - (mirrored.remainder(72) - 36).abs()  # from wall to wall, without the clamp
    assert miss(mirrored) < 0.05 and miss(mirrored.floor()) == pytest.approx(0.54, abs=0.03)  # truncation alone
    path = bouncing_path(batch.position.floor() + 0.5, 64)
    assert (octant(path.velocity) == octant(batch.velocity[:, :, 0])).float().mean() > 0.96


def test_linking_undoes_swaps():
    batch = MovingMNIST("test", seed=6, captions=None).sample(60)
    places = batch.position.transpose(1, 2)  # (N, T, 2, 2)
    looks = torch.nn.functional.one_hot(batch.labels, 10).float()[:, None].expand(-1, 16, -1, -1)
    swap = torch.randint(2, (60, 16), generator=generator(2))
    mix = lambda x, s: torch.where(s[..., None, None].bool(), x.flip(2), x)
    back = mix(mix(places, swap), link(mix(places, swap), mix(looks, swap)))
    same = (back == places).flatten(1).all(1) | (back == places.flip(2)).flatten(1).all(1)
    assert same.float().mean() > 0.95
    blind = mix(mix(places, swap), link(mix(places, swap), torch.ones(60, 16, 2, 1)))  # by motion alone
    assert ((blind == places).flatten(1).all(1) | (blind == places.flip(2)).flatten(1).all(1)).float().mean() > 0.5


@pytest.fixture(scope="module")
def real() -> Batch:
    return MovingMNIST("test", seed=11, captions="motion").sample(64)


@pytest.fixture(scope="module")
def readings(real) -> dict[str, Reading]:
    clips = (real.video + 1) / 2
    return {"judge": read(clips), "tracker": track(clips[:32])}


def errors(reading: Reading, batch: Batch) -> torch.Tensor:
    """Distance in pixels of each track from the true one that is nearest to it, (N, 2, T)."""
    true = batch.position[: len(reading.digits)]
    distance = (reading.tracks[:, :, None] - true[:, None]).norm(dim=-1)  # (N, track, true, T)
    straight, crossed = distance[:, 0, 0] + distance[:, 1, 1], distance[:, 0, 1] + distance[:, 1, 0]
    swapped = crossed.clamp(max=4).sum(-1) < straight.clamp(max=4).sum(-1)
    return torch.where(swapped[:, None, None], torch.stack([distance[:, 0, 1], distance[:, 1, 0]], dim=1), torch.stack([distance[:, 0, 0], distance[:, 1, 1]], dim=1))


@pytest.mark.parametrize(("name", "digits"), [("judge", 0.9), ("tracker", 0.8)])
def test_readers_find_digits_places_and_directions_of_real_clips(name, digits, readings, real):
    reading = readings[name]
    n = len(reading.digits)
    got = obeyed(reading, real.captions[:n])
    assert got["digits"] >= digits and got["directions"] >= 0.95 and got["octants"] >= 0.85
    miss = errors(reading, real)
    assert miss.median() < 0.6 and (miss < 2).float().mean() > 0.95
    assert (reading.frame_digits == reading.digits[..., None]).float().mean() > 0.8
    assert reading.tracks.shape == (n, 2, 16, 2) and reading.frame_digits.shape == (n, 2, 16)


def test_readers_agree_on_real_and_on_degraded_clips(readings, real):
    clips = (real.video[:32] + 1) / 2
    assert agreement(readings["judge"][:32], readings["tracker"])["same_digits"] >= 0.8
    noisy = (0.7 * clips + 0.1 * torch.randn(clips.shape, generator=generator(4))).clamp(0, 1)
    blurred = torch.nn.functional.avg_pool3d(clips, (1, 3, 3), 1, (0, 1, 1))  # costs the tracker some digits, and no direction
    for bad, same in (noisy, 0.75), (blurred, 0.5):
        both = agreement(read(bad), track(bad))
        assert both["same_digits"] >= same and both["same_directions"] >= 0.9
    noise = torch.rand(clips.shape, generator=generator(5))
    assert agreement(read(noise), track(noise))["same_digits"] < 0.3


def test_two_of_a_kind_are_two_tracks():
    batch = MovingMNIST("test", seed=3).from_captions([f"{d} moving left and {d} moving right" for d in (0, 2, 3, 5, 8)] * 3)
    clips = (batch.video + 1) / 2
    for reading, share in (read(clips), 0.8), (track(clips), 0.8):
        assert obeyed(reading, batch.captions)["pairs"] >= share and (errors(reading, batch) < 2).float().mean() > 0.85


def test_any_length_and_each_clip_by_itself(readings, real):
    for frames in (3, 8, 24):
        clips = (MovingMNIST("test", seed=4, num_frames=frames).sample(3).video + 1) / 2
        for reading in read(clips), track(clips):
            assert reading.tracks.shape == (3, 2, frames, 2) and reading.tracks.isfinite().all()
    clips = (real.video + 1) / 2
    one = read(clips[5:7])
    assert torch.equal(one.digits, readings["judge"].digits[5:7]) and torch.allclose(one.features, readings["judge"].features[5:7], atol=1e-4)
    alone = track(clips[5:7])
    assert torch.equal(alone.digits, readings["tracker"].digits[5:7]) and torch.equal(alone.tracks, readings["tracker"].tracks[5:7])
    assert readings["judge"][5:7].features.shape == (2, 64) and readings["judge"][5:7].pictures is None


def test_the_maps_of_a_frame_alone_do_not_see_other_frames():
    network, clips = load_network("judge"), torch.rand(1, 1, 9, 32, 32, generator=generator(6))
    changed = clips.clone()
    changed[:, :, 4] = 0
    with torch.no_grad():
        before, after = network(clips), network(changed)
    moved = {name: [k for k in range(9) if (before[name][:, k] - after[name][:, k]).abs().max() > 1e-5] for name in ("alone", "together")}
    assert moved["alone"] == [4] and len(moved["together"]) == 9


def test_places_learnt_between_cells_have_their_mean_there():
    """The loss of a map whose probabilities are shared among four cells by distance is the least there is, and reading it gives the place back."""
    place = torch.tensor([[[[6.3, 9.8]] * 3, [[4.5, 4.0]] * 3]])  # (1, 2, 3, 2)
    maps = torch.full((1, 3, 10, 16, 16), -30.0)
    for k, digit in enumerate((2, 7)):
        (y, x), (dy, dx) = place[0, k, 0].floor().long().tolist(), (place[0, k, 0] % 1).tolist()
        for a, wa in ((0, 1 - dy), (1, dy)):
            for b, wb in ((0, 1 - dx), (1, dx)):
                maps[:, :, digit, y + a, x + b] = math.log(max(wa * wb, 1e-12))
    tracks, looks = judge._tracks(maps, maps, torch.tensor([[2, 7]]))
    assert torch.allclose((tracks + judge.CENTRE) / 2, place, atol=1e-3) and looks.tolist() == [[[2] * 3, [7] * 3]]
    best = judge._map_loss(maps, torch.tensor([[2, 7]]), place)
    assert all(best < judge._map_loss(maps, torch.tensor([[2, 7]]), place + shift) for shift in (0.2, -0.2))


def test_judge_learns_and_missing_weights_are_explained(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network, batch = Judge(), MovingMNIST("train", seed=1, captions=None).sample(4)
    optimizer, losses = torch.optim.Adam(network.parameters(), 3e-3), []
    for _ in range(12):
        loss = network.loss(batch, torch.device("cpu"), generator(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    shipped = (judge.CHECKPOINTS / "judge.pt").read_bytes()
    monkeypatch.setattr(judge, "CHECKPOINTS", tmp_path)
    load_network.cache_clear()
    with pytest.raises(WeightsError, match="judge.pt is not in assets.*python -m utils.judge judge"):
        load_network("judge")
    for content in (b"", b"no weights", shipped[:10_000]):
        (tmp_path / "judge.pt").write_bytes(content)
        with pytest.raises(WeightsError, match="judge.pt is damaged"):
            load_network("judge")
    monkeypatch.setattr("sys.argv", ["judge", "judge", "--steps", "2"])

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        with pytest.raises(SystemExit, match="No space left"):
            judge.main()
    assert (tmp_path / "judge.pt").read_bytes() == shipped[:10_000] and len(list(tmp_path.iterdir())) == 1  # what was there stays
    judge.main()
    assert load_network("judge")(torch.zeros(1, 1, 5, 32, 32))["counts"].shape == (1, 10, 3)
    load_network.cache_clear()


def test_truncation_is_half_a_pixel_of_the_canvas():
    batch = MovingMNIST("test", seed=9, captions=None).sample(300)
    drawn = (2 * batch.position).floor() / 2
    moving = (batch.position > 0) & (batch.position < 18)
    assert float((batch.position - drawn)[moving].mean()) == pytest.approx(TRUNCATION, abs=0.01)
