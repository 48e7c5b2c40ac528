"""The comparisons behind the tables: equal means, runs that go on where they were stopped, rows that say what was done."""

import json
from dataclasses import replace

import pytest
import torch

from utils import compare
from utils.compare import TABLES, Variant, trained, validation_loss
from utils.cost import cost
from utils.model import Model
from utils.pretrained import WeightsError
from utils.recipes import VDM, VDM_TEXT
from utils.train import Trainer
from utils.unet import UNet, UNetConfig, randomize

NET = UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), stem=4, embed_dim=16, head_dim=8)
TINY = replace(VDM, net=NET, num_images=2)
CAPTIONED = replace(VDM_TEXT, net=replace(NET, text_width=16))


def test_every_variant_differs_from_the_others_of_its_table_and_is_within_the_limits():
    for table in TABLES.values():
        assert len({repr(variant) for variant in table.values()}) == len(table)
        for variant in table.values():
            assert cost(variant.recipe)["gflop_per_sample"] <= 25
    joint = list(TABLES["joint"].values())
    assert sorted((v.recipe.num_images, v.seed) for v in joint) == [(k, seed) for k in (0, 4, 8) for seed in range(3)]
    assert max(cost(v.recipe)["gflop_per_sample"] for v in joint) * 1e9 * 30_000 <= 5e14


def test_runs_of_one_seed_start_alike_and_see_the_same_clips():
    runs = [Trainer(TABLES["joint"][f"K = {k}, seed 1"].recipe, compare.Budget(4, 4), "cpu", "off", 1) for k in (0, 8)]
    assert all(torch.equal(a, b) for a, b in zip(*(run.net.state_dict().values() for run in runs)))
    assert torch.equal(*(run.data.sample(4, index=2).video for run in runs))


def test_a_run_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    variant = Variant(TINY, batch_size=2, seed=3)
    whole = trained("whole", variant, 4, tmp_path, "cpu", "off")
    monkeypatch.setattr(compare, "CHECKPOINT_SECONDS", 0)
    step = Trainer.train_step

    def stop_at_two(trainer):
        if trainer.step == 2:
            raise KeyboardInterrupt
        return step(trainer)

    monkeypatch.setattr(Trainer, "train_step", stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        trained("stopped", variant, 4, tmp_path, "cpu", "off")
    monkeypatch.setattr(Trainer, "train_step", step)
    again = trained("stopped", variant, 4, tmp_path, "cpu", "off")
    assert all(torch.equal(a, b) for a, b in zip(whole.net.state_dict().values(), again.net.state_dict().values()))
    assert again.provenance["steps"] == 4 and not (tmp_path / "stopped.checkpoint").exists()
    assert trained("stopped", variant, 4, tmp_path, "cpu", "off").provenance == again.provenance  # finished: only loaded
    for other, steps in ((variant, 5), (replace(variant, adam=True), 4), (replace(variant, recipe=replace(TINY, learning_rate=0.5)), 4)):
        with pytest.raises(WeightsError, match="delete it, or choose another --out"):
            trained("stopped", other, steps, tmp_path, "cpu", "off")


def test_validation_loss_is_the_same_for_the_same_network_and_sees_the_caption():
    model = Model(CAPTIONED, randomize(UNet(CAPTIONED.net)), device="cpu")
    losses = validation_loss(model, 8)
    assert losses == validation_loss(model, 8) and list(losses) == ["-8", "-5", "-2", "1", "4"]
    assert losses != validation_loss(model, 8, captions=False)
    fresh = validation_loss(Model(TINY, UNet(TINY.net), device="cpu"), 8)  # outputs zero: the loss is the mean square of v itself
    assert fresh["4"] == pytest.approx(1.0, abs=0.05)  # v is nearly eps


def test_the_command_writes_a_row_for_each_run(tmp_path, monkeypatch, capsys):
    table = {f"K = {k}, seed 0": Variant(replace(TINY, num_images=k), 2) for k in (0, 2)}
    monkeypatch.setitem(compare.TABLES, "joint", table)
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    arguments = ["compare", "joint", "--clips", "4", "--num", "8", "--device", "cpu", "--amp", "off", "--out", str(tmp_path / "runs")]
    monkeypatch.setattr("sys.argv", arguments)
    compare.main()
    rows = json.loads((tmp_path / "video-joint.json").read_text())
    assert [row["num_images"] for row in rows] == [0, 2] and all(row["clips"] == 4 and row["n"] == 8 for row in rows)
    assert rows[0]["flops"] < rows[1]["flops"] and all(row["kernel_distance"] > row["kernel_distance_floor"] for row in rows)
    monkeypatch.setattr("sys.argv", [*arguments, "--only", "K = 3"])
    with pytest.raises(SystemExit, match="no variant 'K = 3'; there are 'K = 0, seed 0'"):
        compare.main()


def test_a_variant_is_trained_as_its_row_says(tmp_path, monkeypatch):
    seen, step = [], Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda t: (seen.append((type(t.optimizer).__name__, bool(t.net.middle[0].time.out.weight.any()))), step(t))[1])
    for name, variant in {"muon": Variant(TINY, 2), "adam": Variant(TINY, 2, adam=True), "random": Variant(TINY, 2, random_start=True)}.items():
        trained(name, variant, 1, tmp_path, "cpu", "off")
    assert seen == [("Muon", False), ("Adam", False), ("Muon", True)]
