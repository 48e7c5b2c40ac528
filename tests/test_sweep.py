"""The sweeps of lessons 02 and 03: rows with floor and control, pairs compared, rows kept; the kernel distance's bootstrap and the variety."""

import json
from dataclasses import replace

import pytest
import torch

from utils import sweep
from utils.metrics import kernel_distance, kernel_distance_gap, variety
from utils.model import Model
from utils.recipes import MNIST_GUIDED, VDM_TEXT
from utils.runtime import generator
from utils.unet import UNet, UNetConfig, randomize


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "STEPS", {"ddim": (1, 2, 3), "dpm++": (1, 2), "ancestral": (2, 3)})
    monkeypatch.setattr(sweep, "FEW", 2)
    monkeypatch.setattr(sweep, "MANY", 3)
    monkeypatch.setattr(sweep, "SCALES", (1.0, 3.0))
    recipe = replace(MNIST_GUIDED, net=replace(MNIST_GUIDED.net, channels=(8, 8, 8), head_dim=8, text_width=16), sampling_steps=2)
    return sweep.Sweep(Model(recipe, randomize(UNet(recipe.net)), {"steps": 1}, device="cpu"), 64, 0, tmp_path / "sweep.json")


def without(row):
    return {key: value for key, value in row.items() if key != "seconds"}


def test_steps(small):
    small.controls()
    sweep.steps(small, ["ddim", "dpm++", "ancestral"])
    result = json.loads(small.path.read_text())
    rows = result["rows"]
    assert {"model", "n", "seed", "device", "precision", "trained"} <= set(result) and result["n"] == 64
    assert set(rows) == {"real held-out (floor)", "control: noise", "ddim 1", "ddim 2", "ddim 3", "dpm++ 1", "dpm++ 2", "ancestral 2", "ancestral 3"}
    assert rows["real held-out (floor)"]["kernel_distance"] < 0.1 < rows["control: noise"]["kernel_distance"]
    assert rows["real held-out (floor)"]["digits"] > 0.95 > 0.3 > rows["control: noise"]["digits"] and rows["real held-out (floor)"]["variety"] == 1
    for name in ("ddim 2", "dpm++ 2", "ancestral 2"):
        gap = rows[name]["to_3_steps"]
        assert gap["gap_low"] <= gap["gap"] <= gap["gap_high"] and gap["pixel_rmse"] > 0
        assert gap["gap"] == pytest.approx(rows[name]["kernel_distance"] - rows[f"{name.split()[0].replace('dpm++', 'ddim')} 3"]["kernel_distance"], abs=3e-5)
    sweep.steps(small, ["dpm++"])  # alone: the gap to DDIM is not lost
    assert {name: without(row) for name, row in small.rows().items()} == {name: without(row) for name, row in rows.items()}
    rows, before = small.rows(), small.path.stat().st_mtime_ns
    assert small.rows() == rows
    small.model.provenance = {"steps": 2}
    assert small.rows() == {} and small.path.stat().st_mtime_ns == before  # other weights: measured anew


def test_guidance(small):
    sweep.guidance(small)
    rows = small.rows()
    assert set(rows) == {"guidance 1", "guidance 3", "guidance 3, rescale 0.7"}
    assert rows["guidance 3"] != rows["guidance 1"] and all(0 <= row["digits"] <= 1 and row["variety"] > 0 for row in rows.values())


def test_guidance_of_clips_is_measured_on_validation_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "CLIP_SCALES", (1.0, 3.0))
    net = UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), embed_dim=16, head_dim=8, text_width=16)
    recipe, asked = replace(VDM_TEXT, net=net, sampling_steps=1), []
    model = Model(recipe, randomize(UNet(net)), {"steps": 1}, device="cpu")
    sample = model.sample
    monkeypatch.setattr(model, "sample", lambda captions, **options: (asked.append((tuple(captions), options["guidance_scale"])), sample(captions, **options))[1])
    sweep.guidance_of_clips(model, 8, 0, tmp_path / "sweep.json")
    result = json.loads((tmp_path / "sweep.json").read_text())
    assert result["split"] == "validation" and list(result["rows"]) == ["guidance 1", "guidance 3"] and all("pairs_low" in row and row["rmse"] > 0 for row in result["rows"].values())
    sweep.guidance_of_clips(model, 8, 0, tmp_path / "sweep.json")  # rows that are there are kept
    sweep.intervals_of_clips(model, 8, 0, tmp_path / "intervals.json")
    assert [scale for _, scale in asked] == [1.0, 3.0, 1.0, 3.0, 3.0, 3.0, 3.0] and len({captions for captions, _ in asked}) == 1 and all("moving" in text for text in asked[0][0])
    rows = json.loads((tmp_path / "intervals.json").read_text())["rows"]
    assert list(rows) == list(sweep.INTERVALS) and rows["nowhere"] == result["rows"]["guidance 1"] and rows["everywhere"] == result["rows"]["guidance 3"]
    asked_of = []
    monkeypatch.setattr(model, "sample", lambda captions, **options: (asked_of.append((options["guidance_scale"], options["rival_scale"], options.get("follow_rivals", True))), sample(captions, **options))[1])
    sweep.rivals_of_clips(model, 8, 0, tmp_path / "rivals.json")
    assert asked_of == [(2.0, 0.0, True), (2.0, 1.0, True), (2.0, 2.0, True), (2.0, 2.0, False)]
    assert list(json.loads((tmp_path / "rivals.json").read_text())["rows"]) == ["rivals 0", "rivals 1", "rivals 2", "rivals 2, equally likely"]


def test_temporal_guidance_is_measured_with_and_without_captions(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "TEMPORAL_SCALES", (1.0, 1.5))
    for text_width, kind in ((None, None), (16, "motion")):
        net = UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), embed_dim=16, head_dim=8, text_width=text_width)
        recipe = replace(VDM_TEXT, net=net, sampling_steps=1, captions=VDM_TEXT.captions if kind else None)
        sweep.temporal_of_clips(Model(recipe, randomize(UNet(net)), {"steps": 1}, device="cpu"), 8, 0, tmp_path / f"{kind}.json", kind)
        result = json.loads((tmp_path / f"{kind}.json").read_text())
        assert list(result["rows"]) == ["temporal 1", "temporal 1.5"] and result["captions"] == kind and result["split"] == "validation"
        rows = list(result["rows"].values())
        assert rows[0] != rows[1] and all(("pairs" in row) == bool(kind) and row["rmse"] > 0 and "kernel_distance_low" in row for row in rows)


def test_intervals_of_guidance_follow_on_each_other():
    ends = [end for interval in list(sweep.INTERVALS.values())[2:] for end in interval]
    assert ends[0] == -torch.inf and ends[-1] == torch.inf and ends[1:-1:2] == ends[2:-1:2]


def test_bootstrap_of_paired_kernel_distances():
    g = generator(0)
    reference, x, noise = torch.randn(300, 6, generator=g), torch.randn(300, 6, generator=g), torch.randn(300, 6, generator=g)
    same = kernel_distance_gap(x, x, reference)
    assert same == {"gap": 0, "gap_low": 0, "gap_high": 0}
    near, far = kernel_distance_gap(x + 0.05 * noise, x, reference), kernel_distance_gap(x + 0.5, x, reference)
    assert near["gap_low"] < 0 < near["gap_high"] and 0 < far["gap_low"] < far["gap"] < far["gap_high"]
    assert far["gap"] == pytest.approx(kernel_distance(x + 0.5, reference) - kernel_distance(x, reference))
    unpaired = kernel_distance_gap(torch.randn(300, 6, generator=g), x, reference)
    assert near["gap_high"] - near["gap_low"] < 0.5 * (unpaired["gap_high"] - unpaired["gap_low"])  # what pairing is for
    with pytest.raises(ValueError, match="one shape"):
        kernel_distance_gap(x[:10], x, reference)


@pytest.mark.parametrize(("away", "narrowest", "widest"), [(0.5, 0.6, 1.6), (0.0, 0.8, 3.0)])
def test_bootstrap_interval_has_the_size_of_the_spread_over_fresh_draws(away, narrowest, widest):
    """Away from the reference it is the right size; at the reference, where the statistic is degenerate, it may only be too wide."""
    g = generator(1)
    draw = lambda: torch.randn(200, 4, generator=g)
    gaps = [kernel_distance_gap(draw() + away, draw() + away, draw(), resamples=300) for _ in range(40)]
    spread = float(torch.tensor([gap["gap"] for gap in gaps]).std())
    width = float(torch.tensor([gap["gap_high"] - gap["gap_low"] for gap in gaps]).mean()) / (2 * 1.96)
    assert narrowest < width / spread < widest
    assert sum(gap["gap_low"] <= 0 <= gap["gap_high"] for gap in gaps) >= 34


def test_kernel_distance_against_a_plain_loop():
    x, y = torch.randn(5, 3, dtype=torch.float64, generator=generator(2)), torch.randn(4, 3, dtype=torch.float64, generator=generator(3))
    k = lambda a, b: (float(a @ b) / 3 + 1) ** 3
    within = lambda a: sum(k(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j) / (len(a) * (len(a) - 1))
    between = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    assert kernel_distance(x, y) == pytest.approx(within(x) + within(y) - 2 * between, rel=1e-12)


def test_variety_is_the_variance_within_classes():
    labels = torch.arange(4000) % 2
    features = 10 * labels[:, None] + torch.randn(4000, 3, generator=generator(4)) * torch.tensor([1.0, 2.0, 0.0])
    assert variety(features, labels) == pytest.approx(5, rel=0.1)
    with pytest.raises(ValueError, match="two samples"):
        variety(features[:3], torch.tensor([0, 1, 2]))
    assert variety(features[:3], torch.tensor([0, 0, 1])) == pytest.approx(variety(features[:2], torch.tensor([0, 0])))  # one of a class says nothing of how they differ
