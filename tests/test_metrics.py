"""Distances have their closed forms, shares their intervals, evaluations their floors and controls."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from utils import evaluate as evaluation
from utils import judge, metrics
from utils.controls import REVERSED, spoiled
from utils.data import MNIST, DataError, MovingMNIST
from utils.evaluate import ResultRows, evaluate_model
from utils.metrics import FLOOR, check_clips, classify, direction_confusion, digit_features, entropy, evaluate, frechet_distance, kernel_distance, kernel_distance_interval, memorised, obeyed, \
    precision_recall
from utils.model import Model
from utils.paths import Reading
from utils.pretrained import load_pretrained, save_weights
from utils.recipes import MNIST_DDPM, MNIST_GUIDED, RECIPES, VDM_TEXT
from utils.runtime import generator
from utils.unet import UNet, UNetConfig, randomize


@pytest.fixture(scope="module")
def rows():
    """What `evaluate` says of 128 real clips, the tracker reading 16 of a row."""
    batch = MovingMNIST("test", seed=31, captions="motion").sample(128)
    return evaluate((batch.video + 1) / 2, batch.captions, tracked=16)


def test_each_control_is_noticed_and_backwards_is_not(rows):
    floor, real = rows[FLOOR], rows["clips"]
    for name in ("control: frozen first frame", "control: frames shuffled", "control: half speed", "control: digits 0 to 4 alone", "control: noise"):
        assert rows[name]["kernel_distance_low"] > max(0, floor["kernel_distance"], real["kernel_distance"]), name
        assert rows[name]["frechet_distance"] > 1.3 * floor["frechet_distance"], name
    assert rows[REVERSED]["frechet_distance"] < 1.5 * floor["frechet_distance"] and rows[REVERSED]["kernel_distance_low"] < 0.1
    assert rows["control: digits change half-way"]["identity"] < 0.75 < 0.9 < min(floor["identity"], real["identity"])
    assert rows["control: digits 0 to 4 alone"]["entropy"] < math.log(5.5) < 2.2 < floor["entropy"]
    assert rows["control: half speed"]["speed"] == pytest.approx(0.9, abs=0.1) and floor["speed"] == pytest.approx(1.8, abs=0.15)
    assert rows["control: frozen first frame"]["speed"] < 0.1 and rows["control: frames shuffled"]["rmse"] > 5 * floor["rmse"]
    assert rows["control: noise"]["recall"] < 0.05 and rows["control: noise"]["outside"] > 0.05 > floor["outside"]


def test_captions_are_obeyed_by_real_clips_alone(rows):
    for key, low, high in ("digits", 0.93, 0.2), ("pairs", 0.93, 0.25):
        assert rows[FLOOR][key] > low and rows["clips"][key] > low and rows["control: noise"][key] < high and rows["control: digits 0 to 4 alone"][key] < high
    assert rows[REVERSED]["digits"] > 0.93 > 0.75 > rows[REVERSED]["directions"]  # captions speak of the first frame's direction
    assert rows["control: frozen first frame"]["pairs"] < 0.1
    assert rows[FLOOR]["octants"] > 0.9 and rows[FLOOR]["angle_error"] < 15
    assert rows[FLOOR]["digits_low"] < rows[FLOOR]["digits"] < rows[FLOOR]["digits_high"] and rows[FLOOR]["digits_n"] == 128 and rows[FLOOR]["pairs_n"] == 256


def test_the_tracker_tells_the_same_story(rows):
    assert rows[FLOOR]["tracker_same_digits"] >= 0.75 and rows[FLOOR]["tracker_same_directions"] > 0.9 and rows[FLOOR]["tracker_n"] == 16
    assert rows["control: noise"]["tracker_same_digits"] < 0.6
    assert rows["control: digits change half-way"]["tracker_identity"] < 0.75 < rows[FLOOR]["tracker_identity"]
    assert rows["control: frames shuffled"]["tracker_rmse"] > 5 * rows[FLOOR]["tracker_rmse"]
    assert rows[FLOOR]["tracker_memorised"] == 0.5 and rows["control: noise"]["tracker_memorised"] < 0.1


def test_controls_get_one_thing_wrong():
    real = (MovingMNIST("test", seed=5).sample(6).video + 1) / 2
    bad = spoiled(6, seed=5)
    assert all(clips.shape == real.shape and clips.min() >= 0 and clips.max() <= 1 for clips in bad.values())
    assert all(torch.equal(bad["control: frozen first frame"][:, :, k], real[:, :, 0]) for k in range(16))
    order = torch.cdist(bad["control: frames shuffled"].flatten(3).squeeze(1), real.flatten(3).squeeze(1)).argmin(-1)
    assert (order.sort(1).values == torch.arange(16)).all() and not (order == torch.arange(16)).all(1).any()
    assert len({tuple(row) for row in order.tolist()}) > 1  # not all alike
    changed = bad["control: digits change half-way"]
    assert torch.equal(changed[:, :, :8], real[:, :, :8]) and not torch.equal(changed[:, :, 8], real[:, :, 8])
    slow, fast = (MovingMNIST("test", seed=5, speed=speed, captions="motion").sample(6) for speed in (0.05, 0.1))
    assert torch.equal(bad["control: half speed"], (slow.video + 1) / 2) and torch.equal(slow.labels, fast.labels)
    assert torch.equal(bad[REVERSED].flip(2), real)
    validation = MovingMNIST("validation", seed=5).sample(6)
    assert torch.equal(validation.position, MovingMNIST("test", seed=5).sample(6).position)  # the new digits go on where the old ones were
    assert spoiled(2, num_frames=7)["control: noise"].shape == (2, 1, 7, 32, 32)


def test_frechet_distance_has_its_closed_forms():
    x = torch.randn(400, 6, generator=generator(1)).double() @ torch.randn(6, 6, generator=generator(2)).double()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-8)
    moved = 1.5 * x + torch.arange(6)
    expected = (moved.mean(0) - x.mean(0)).square().sum() + 0.25 * x.T.cov().trace()
    assert frechet_distance(x, moved) == pytest.approx(float(expected), rel=1e-9)
    y = torch.randn(300, 6, generator=generator(3)).double() @ torch.randn(6, 6, generator=generator(4)).double()
    cross = torch.linalg.eigvals(x.T.cov() @ y.T.cov()).real.clamp(min=0).sqrt().sum()  # no symmetric root
    expected = (x.mean(0) - y.mean(0)).square().sum() + x.T.cov().trace() + y.T.cov().trace() - 2 * cross
    assert frechet_distance(x, y) == pytest.approx(float(expected), rel=1e-8)
    floor = [frechet_distance(*torch.randn(2, num, 16, generator=generator(5))) for num in (100, 200, 400)]
    for num, value in zip((100, 200, 400), floor):
        assert value == pytest.approx(16 * (16 + 4) / (2 * num), rel=0.35)  # tr(S)(D + 4) / (2N)


def test_precision_and_recall_equal_a_plain_loop():
    x, y = torch.randn(30, 3, generator=generator(1)), 0.6 * torch.randn(40, 3, generator=generator(2))

    def covered(points, by, k):
        reach = [sorted(float((a - b).norm()) for b in by)[k] for a in by]
        return sum(any(float((p - b).norm()) <= r for b, r in zip(by, reach)) for p in points) / len(points)

    result = precision_recall(x, y, neighbours=3)
    assert result == {"precision": pytest.approx(covered(x, y, 3)), "recall": pytest.approx(covered(y, x, 3))} and result["precision"] < result["recall"]
    with pytest.raises(ValueError, match="need at least 6 samples.*got 30 and 5"):
        precision_recall(x, y[:5])


def test_kernel_interval_has_the_width_of_fresh_draws():
    def draw(seed):
        g = generator(9, seed)
        return 1.3 * torch.randn(60, 4, generator=g) + 0.5, torch.randn(60, 4, generator=g)

    truth = [kernel_distance(*draw(seed)) for seed in range(400)]
    low, high = torch.tensor(truth).quantile(torch.tensor([0.025, 0.975])).tolist()
    widths = []
    for seed in range(20):
        result = kernel_distance_interval(*draw(1000 + seed))
        assert result["kernel_distance_low"] < result["kernel_distance"] < result["kernel_distance_high"]
        widths.append(result["kernel_distance_high"] - result["kernel_distance_low"])
    assert sum(widths) / 20 == pytest.approx(high - low, rel=0.35)


def reading(digits, angles):
    """Two digits each, moving evenly at the angles (degrees, 90 is up) from the middle of the frame."""
    angle = torch.deg2rad(torch.tensor(angles))
    step = torch.stack([-angle.sin(), angle.cos()], dim=-1)
    tracks = 9 + step[:, :, None] * 0.5 * torch.arange(16.0)[:, None]
    return Reading(torch.tensor(digits), tracks, torch.tensor(digits)[..., None].expand(-1, -1, 16))


def test_obedience_counts_what_a_hand_would_count():
    seen = reading([[3, 7], [4, 4], [1, 2], [5, 6]], [[180.0, 50.0], [5.0, 95.0], [270.0, 10.0], [30.0, 100.0]])
    asked = ["7 moving up right and 3 moving left", "4 moving up and 4 moving right", "1 moving down and 9 moving right", "5 moving right and 6 moving down"]
    got = obeyed(seen, asked)
    assert got["digits"] == 3 / 4 and got["digits_n"] == 4
    assert got["pairs"] == 6 / 8 and got["pairs_n"] == 8 and got["directions"] == 6 / 7 and got["directions_n"] == 7  # the 9 is not there, the 6 goes up
    assert got["octants"] == 5 / 7 and got["angle_error"] == pytest.approx(5, abs=1.0)  # 0, 5, 5, 5, 0, 30, 170
    assert "pairs" not in obeyed(seen, ["3 and 7", "4 and 4", "1 and 2", "5 and 6"])
    doubled = obeyed(seen, ["3 and 3", "4 and 9", "1 and 2", "7 and 8"])  # of three captions with two different digits, one got a digit of its own two times
    assert doubled["twice"] == 1 / 3 and doubled["twice_n"] == 3 and got["twice"] == 0 and "twice" not in obeyed(seen, ["3 and 3", "4 and 4", "1 and 1", "5 and 5"])
    with pytest.raises(ValueError, match="3 captions"):
        obeyed(seen, asked[:3])
    with pytest.raises(ValueError, match="two digits"):
        obeyed(seen, ["3", "4 and 4", "1 and 2", "5 and 6"])


def test_ways_count_whichever_digit_takes_them():
    seen = reading([[3, 7]] * 5, [[180.0, 50.0], [50.0, 170.0], [180.0, 190.0], [180.0, 300.0], [0.0, 40.0]])
    left_and_up_right = ["7 moving up right and 3 moving left"] * 4
    got = obeyed(seen, [*left_and_up_right, "3 moving right and 7 moving up right"])  # neighbours, both within 45 degrees of some angles, do not count
    assert got["both_ways_n"] == got["same_way_n"] == 4 and got["both_ways"] == 2 / 4 and got["same_way"] == 1 / 4
    assert "both_ways" not in obeyed(seen, ["3 and 7"] * 5) and "both_ways" not in obeyed(seen, ["3 moving up and 7 moving up"] * 5)
    real = MovingMNIST("test", 6, captions="motion").sample(64)
    numbers = obeyed(metrics.read((real.video + 1) / 2), real.captions)
    assert numbers["both_ways"] > 0.93 and numbers["same_way"] < 0.05 and 30 < numbers["both_ways_n"] < 64


def test_chance_of_directions_is_what_shuffled_captions_get():
    """A quarter where the two digits differ; more where they are the same digit, as the better of two orders counts. Real clips score 1, and their chance is no higher for it."""
    apart, same = ["3 moving up and 7 moving left", "1 moving down and 0 moving right"] * 40, ["3 moving up and 3 moving left"] * 80
    angles = torch.rand(80, 2, generator=generator(5)) * 360
    chance = [obeyed(reading(digits, angles.tolist()), captions)["directions_chance"] for digits, captions in (([[3, 7], [1, 0]] * 40, apart), ([[3, 3]] * 80, same))]
    assert abs(chance[0] - 0.25) < 0.06 and chance[1] > chance[0] + 0.08
    real = MovingMNIST("test", 5, captions="motion").sample(64)
    numbers = obeyed(metrics.read((real.video + 1) / 2), real.captions)
    assert numbers["directions"] > 0.95 and abs(numbers["directions_chance"] - 0.25) < 0.04


def test_frames_of_a_text_to_image_model_are_read_as_still_clips(monkeypatch):
    model = load_pretrained("mav-image", device="cpu")
    rows = evaluate_model(model, 16, steps=2)["rows"]
    assert list(rows) == ["digits", "motion"] and list(rows["digits"]) == ["real held-out frames (floor)", "mav-image", "control: noise"]
    assert rows["digits"]["real held-out frames (floor)"]["digits"] > 0.7 > rows["digits"]["control: noise"]["digits"]
    assert rows["digits"]["control: noise"]["kernel_distance_low"] > rows["digits"]["real held-out frames (floor)"]["kernel_distance"]
    for name, command in (("mav-interpolate", "utils.interpolation"), ("mav-upsample", "utils.super_resolution")):
        with pytest.raises(ValueError, match=f"python -m {command} {name}"):
            evaluate_model(load_pretrained(name, device="cpu"), 8)


def test_confusion_of_directions_counts_what_a_hand_would_count():
    seen = reading([[3, 7], [4, 4], [1, 2], [5, 6]], [[180.0, 50.0], [5.0, 95.0], [270.0, 10.0], [30.0, 100.0]])
    asked = ["7 moving up right and 3 moving left", "4 moving up and 4 moving right", "1 moving down and 9 moving right", "5 moving right and 6 moving down"]
    expected = torch.zeros(8, 9, dtype=torch.long)
    for i, j in ((1, 1), (4, 4), (2, 2), (0, 0), (6, 6), (0, 1), (6, 2)):  # the 9 is not there
        expected[i, j] += 1
    assert torch.equal(direction_confusion(seen, asked), expected)
    seen.tracks[0, 0] = seen.tracks[0, 0, :1]  # the 3 stands still
    still = direction_confusion(Reading(seen.digits, seen.tracks, seen.frame_digits), asked)
    assert still[4, 8] == 1 and still[4, 4] == 0 and still.sum() == 7
    assert direction_confusion(seen, ["3 and 7", "4 and 4", "1 and 2", "5 and 6"]).sum() == 0
    assert direction_confusion(seen, ["3 moving left", "4 and 4", "1 and 2", "5 moving up and 6 moving up and 7 moving left"]).sum() == 0
    got = obeyed(seen, asked)
    assert got["directions_n"] == int(expected.sum())


def test_entropy_and_memory():
    assert entropy(torch.arange(10).repeat(3, 1)) == pytest.approx(math.log(10)) and entropy(torch.zeros(5, dtype=torch.long)) == pytest.approx(0)
    from utils.tracker import _library
    copies = _library()[0][::2000].view(-1, 28, 28)
    assert memorised(copies, copies + 0.02 * torch.rand(copies.shape, generator=generator(0))) == 1
    assert memorised(copies, copies) == 0.5 and memorised(torch.rand(copies.shape, generator=generator(1)), copies) == 0


def test_clips_of_the_wrong_shape_or_range_are_explained():
    real = MovingMNIST("test", seed=2, image_size=64).sample(3).video
    small = MovingMNIST("test", seed=2).sample(3).video
    assert torch.allclose(check_clips((real + 1) / 2), (small + 1) / 2, atol=1e-6)  # 64 pixels are averaged down
    for shape in (2, 1, 16, 28, 28), (2, 3, 16, 32, 32), (2, 16, 32, 32), (2, 1, 2, 32, 32), (0, 1, 16, 32, 32):
        with pytest.raises(ValueError, match=r"\(N, 1, T, 32, 32\)"):
            check_clips(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"\(video \+ 1\) / 2"):
        check_clips(small)
    with pytest.raises(ValueError, match="NaN"):
        check_clips(torch.full((2, 1, 16, 32, 32), float("nan")))
    with pytest.raises(ValueError, match="at least 8"):
        evaluate((small + 1) / 2)
    with pytest.raises(ValueError, match="8 clips but 1 captions"):
        evaluate(torch.zeros(8, 1, 16, 32, 32), ["3 and 7"])


def test_files_of_clips(tmp_path, monkeypatch):
    batch = MovingMNIST("test", seed=3, captions="digits").sample(8)
    clips = ((batch.video + 1) / 2)[:, 0]
    np.savez_compressed(tmp_path / "clips.npz", videos=(clips * 255).round().byte().numpy(), captions=np.array(batch.captions))
    monkeypatch.setattr("sys.argv", ["evaluate", str(tmp_path / "clips.npz")])
    monkeypatch.setattr(evaluation, "evaluate", lambda videos, captions, **_: {"clips": {"n": len(videos), **obeyed(metrics.read(videos), captions)}})
    evaluation.main()
    result = json.loads((tmp_path / "clips.json").read_text())
    assert result["rows"]["clips"]["n"] == 8 and result["rows"]["clips"]["digits"] > 0.7 and {"seed", "seconds", "n", "file"} <= set(result)
    videos, captions = evaluation.read_clips(tmp_path / "clips.npz")
    assert videos.shape == (8, 1, 16, 32, 32) and float((videos[:, 0] - clips).abs().max()) < 0.003 and captions == batch.captions

    (tmp_path / "damaged.npz").write_bytes((tmp_path / "clips.npz").read_bytes()[:3000])
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    np.savez(tmp_path / "objects.npz", videos=np.array([{}], dtype=object))
    np.savez(tmp_path / "words.npz", videos=np.array(["a clip"]))
    for name, message in ("absent", "no file"), ("damaged", "damaged"), ("text", "damaged"), ("other", "no array 'videos'"), ("objects", "damaged"), ("words", "expected uint8"):
        with pytest.raises(DataError, match=message):
            evaluation.read_clips(tmp_path / f"{name}.npz")
    whole = (tmp_path / "clips.npz").read_bytes()
    refused = 0
    for place in range(0, len(whole), len(whole) // 60):  # whatever byte is wrong: an error that says so, or no harm done
        (tmp_path / "bent.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1:])
        try:
            assert torch.equal(evaluation.read_clips(tmp_path / "bent.npz")[0], videos)
        except DataError:
            refused += 1
    assert refused > 50
    for option in (["--sample-only"], ["--clips", str(tmp_path)]):
        monkeypatch.setattr("sys.argv", ["evaluate", str(tmp_path / "clips.npz"), *option])
        with pytest.raises(SystemExit):
            evaluation.main()
    monkeypatch.setattr("sys.argv", ["evaluate", str(tmp_path / "absent.npz")])
    with pytest.raises(SystemExit, match="error: There is no file absent.npz"):
        evaluation.main()


def test_real_clips_have_a_row_for_a_perfect_tracker(monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", lambda videos, captions, **_: {"clips": {"n": len(videos)}})
    row = evaluation.evaluate_real(200)["rows"]["a perfect tracker on the floor's clips"]
    assert row["digits"] == 1 and row["directions"] > 0.99 and row["octants"] > 0.95 and row["rmse"] == pytest.approx(0.35, abs=0.05) and row["identity"] == 1


def test_evaluation_has_floor_controls_and_circumstances():
    net = UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), embed_dim=16, head_dim=8, text_width=16)
    recipe = replace(VDM_TEXT, net=net)
    result = json.loads(json.dumps(evaluate_model(Model(recipe, randomize(UNet(net)), {"steps": 0}, device="cpu"), num=8, steps=1)))
    assert {"n", "seed", "steps", "guidance_scale", "device", "seconds", "precision", "rows", "trained"} <= set(result)
    assert set(result["rows"]) == {"motion", "digits"} and result["n"] == 8 and result["steps"] == 1
    assert set(result["hearing"]) == {"wrong digits", "opposite directions", "directions exchanged"}
    for kind, rows in result["rows"].items():
        assert list(rows)[:2] == [FLOOR, "vdm-text"] and sum(name.startswith("control") for name in rows) == 6 * (kind == "motion")
        assert ("pairs" in rows["vdm-text"]) == (kind == "motion") and rows["vdm-text"]["digits"] < 0.5 < rows[FLOOR]["digits"]
    image = replace(MNIST_DDPM, net=replace(MNIST_DDPM.net, channels=(8, 8, 8), head_dim=8))
    rows = evaluate_model(Model(image, randomize(UNet(image.net)), {}, device="cpu"), num=8, steps=1)["rows"]
    assert rows["real held-out (floor)"]["kernel_distance"] < rows["control: noise"]["kernel_distance"] and "digits" not in rows["mnist-ddpm"]
    guided = replace(MNIST_GUIDED, net=replace(MNIST_GUIDED.net, channels=(8, 8, 8), head_dim=8, text_width=16))
    result = evaluate_model(Model(guided, randomize(UNet(guided.net)), {}, device="cpu"), num=40, steps=1, guidance_scale=0.0)
    assert result["guidance_scale"] == 0 and result["rows"]["real held-out (floor)"]["digits"] > 0.9 > result["rows"]["control: noise"]["digits"]


def test_clips_can_be_sampled_in_one_place_and_measured_in_another(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", lambda videos, captions, **_: {"clips": {"n": len(videos), "mean": float(videos.mean())}})
    monkeypatch.setattr(evaluation, "hearing", lambda *_: {})
    net = UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), embed_dim=16, head_dim=8, text_width=16)
    model = Model(replace(VDM_TEXT, net=net), randomize(UNet(net)), {"steps": 0}, device="cpu")
    assert evaluate_model(model, 8, folder=tmp_path, sample_only=True, steps=2)["rows"] == {} and {path.name for path in tmp_path.iterdir()} == {"vdm-text-motion.npz", "vdm-text-digits.npz"}
    direct = evaluate_model(model, 8, steps=2)
    monkeypatch.setattr(Model, "sample", None)  # from here on nothing can be sampled
    kept = evaluate_model(model, 8, folder=tmp_path, steps=2)
    assert kept["device"] == direct["device"] and kept["rows"]["motion"]["vdm-text"]["mean"] == pytest.approx(direct["rows"]["motion"]["vdm-text"]["mean"], abs=1e-3)
    for other in ({"steps": 3}, {"steps": 2, "guidance_scale": 1.0}, {"steps": 2, "seed": 1}, {"steps": 2, "sampler": "ddim"}, {"steps": 2, "rival_scale": 1.0}):
        with pytest.raises(DataError, match="vdm-text-motion.npz holds clips of other weights"):
            evaluate_model(model, 8, folder=tmp_path, **other)
    with pytest.raises(DataError, match="or prompts"):
        evaluation.kept_clips(tmp_path / "vdm-text-motion.npz", model, ["3 and 7"] * 8, 8, 0, steps=2)
    changed = Model(replace(model.recipe, guidance_scale=3.0), model.net, model.provenance, device="cpu")  # a recipe that samples otherwise than it did
    with pytest.raises(DataError, match="other settings"):
        evaluate_model(changed, 8, folder=tmp_path, steps=2)
    with pytest.raises(ValueError, match="--clips"):
        evaluate_model(model, 8, sample_only=True)


def test_rows_of_several_machines_say_so(tmp_path, monkeypatch):
    model, rows = Model(VDM_TEXT, UNet(VDM_TEXT.net), {"steps": 0}, device="cpu"), {}
    for device, name in (("Tesla T4", "a"), ("CPU, 1 thread", "b"), ("Tesla T4", "c")):
        monkeypatch.setattr(evaluation, "device_name", lambda _, device=device: device)
        table = ResultRows(tmp_path / "table.json", model, 8, 0, sampler="ddim")
        assert table.rows() == rows
        rows[name] = {"digits": 1.0}
        table.write(name, rows[name])
    found = json.loads(table.path.read_text())
    assert found["device"] == "Tesla T4 and CPU, 1 thread" and found["precision"] == "float32" and found["rows"] == rows
    assert ResultRows(table.path, model, 8, 0, sampler="ancestral").rows() == {}


def test_weights_of_a_run_are_measured_beside_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "evaluate", lambda videos, captions, **_: {"clips": {"n": len(videos), "mean": float(videos.mean())}})
    monkeypatch.setattr(evaluation, "hearing", lambda *_: {})
    monkeypatch.setattr(evaluation, "RESULTS", tmp_path / "results")

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["evaluate", *map(str, arguments), "--num", "4", "--steps", "1", "--amp", "off", "--device", "cpu"])
        evaluation.main()

    own = replace(VDM_TEXT, net=UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), embed_dim=16, head_dim=8, text_width=16))
    weights = tmp_path / "run" / "mine.pt"
    save_weights(weights, own, randomize(UNet(own.net)), {"steps": 3})
    loss = weights.with_suffix(".json")
    loss.write_text("the loss of the run")
    call(weights)
    result = json.loads((tmp_path / "run" / "mine-evaluation.json").read_text())
    assert result["model"] == "vdm-text" and result["trained"] == {"steps": 3} and result["n"] == 4 and list(result["rows"]["motion"]) == list(result["rows"]["digits"]) == ["vdm-text"]
    call(weights, "--clips", tmp_path / "clips", "--sample-only")
    assert {path.name for path in (tmp_path / "clips").iterdir()} == {"vdm-text-motion.npz", "vdm-text-digits.npz"}
    monkeypatch.setattr(Model, "sample", None)  # from here on nothing can be sampled
    call(weights, "--clips", tmp_path / "clips", "--out", tmp_path / "elsewhere.json")
    kept = json.loads((tmp_path / "elsewhere.json").read_text())["rows"]["motion"]["vdm-text"]
    assert kept["mean"] == pytest.approx(result["rows"]["motion"]["vdm-text"]["mean"], abs=1e-3)
    assert loss.read_text() == "the loss of the run" and not (tmp_path / "results").exists()

    (tmp_path / "cut.pt").write_bytes(weights.read_bytes()[:1000])
    colour = replace(own, net=replace(own.net, in_channels=3), sample_shape=(3, 16, 32, 32))
    save_weights(tmp_path / "colour.pt", colour, UNet(colour.net), {})
    save_weights(tmp_path / "sharp.pt", RECIPES["mav-upsample"], UNet(RECIPES["mav-upsample"].net), {})
    torch.save({"format": "video-diffusion-training-2"}, tmp_path / "checkpoint.pt")
    for name, message in (("no.pt", "no.pt cannot be read: there is no such file"), ("cut.pt", "cut.pt cannot be read .* damaged"), ("checkpoint.pt", "not the checkpoint"),
                          ("colour.pt", r"\(N, 1, T, 32, 32\).* got \(1, 3, 16, 32, 32\)"), ("sharp.pt", "mav-upsample does not make clips from nothing: what is shipped of it is measured by"),
                          (str(judge.CHECKPOINTS / "judge.pt"), "does not hold weights")):
        with pytest.raises(SystemExit, match=f"error: .*{message}"):
            call(tmp_path / name)
    with pytest.raises(SystemExit, match="Unknown recipe 'vdmtext'; there are mnist-ddpm"):
        call("vdmtext")

    def absent(name):
        raise FileNotFoundError(f"{name}.pt is not in assets/checkpoints/")

    monkeypatch.setattr(judge, "load_network", absent)
    monkeypatch.setattr("sys.argv", ["evaluate", "real", "--num", "8"])
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: judge.load_network("judge"))
    with pytest.raises(SystemExit, match="error: judge.pt is not in"):
        evaluation.main()


def test_classifier_and_its_features():
    batch = MNIST("test", seed=1).sample(500)
    images = (batch.video + 1) / 2
    assert (classify(images).argmax(1) == batch.labels[:, 0]).float().mean() > 0.97
    features = digit_features(images)
    assert features.shape == (500, 64)
    other = digit_features((MNIST("test", seed=2).sample(500).video + 1) / 2)
    noise = digit_features(torch.rand(images.shape, generator=generator(3)))
    assert abs(kernel_distance(features, other)) < 0.1 * kernel_distance(noise, other)


def test_kernel_distance_is_unbiased_and_equals_a_plain_loop():
    x, y = torch.randn(7, 3, generator=generator(1)), torch.randn(5, 3, generator=generator(2)) + 0.5
    k = lambda a, b: (float(a @ b) / 3 + 1) ** 3
    within = lambda s: sum(k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j) / (len(s) * (len(s) - 1))
    across = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    assert kernel_distance(x, y) == pytest.approx(within(x) + within(y) - 2 * across, rel=1e-5)
    draws = [kernel_distance(*torch.randn(2, 40, 3, generator=generator(4, seed))) for seed in range(300)]
    mean, error = sum(draws) / 300, torch.tensor(draws).std() / math.sqrt(300)
    assert abs(mean) < 4 * error  # zero on average, of either sign
    with pytest.raises(ValueError, match="features"):
        kernel_distance(x, torch.zeros(4, 2))
