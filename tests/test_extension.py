"""The table of lesson 08: what it measures of continuations, beside real clips and controls, and that a stopped run goes on."""

import json
from dataclasses import replace

import pytest
import torch

from utils import extension
from utils.evaluate import chosen_rows
from utils.extension import FLOOR, FRAMES, GIVEN, NEW, STOPPED, Extensions
from utils.model import Model
from utils.recipes import VDM_TEXT
from utils.unet import UNet, UNetConfig, randomize

RECIPE = replace(VDM_TEXT, net=UNetConfig(channels=(8, 8), blocks=(1, 1), space=(False, True), time=(False, True), stem=4, embed_dim=16, head_dim=8, text_width=16))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    model = Model(RECIPE, randomize(UNet(RECIPE.net)), {"steps": 1}, device="cpu")
    made = Extensions(tmp_path_factory.mktemp("extension") / "table.json", model, 12, 0, 1, 2.0, "validation")
    for name in (FLOOR, STOPPED, NEW):
        made.compare(name)
    made.extend("replacement", method="replacement", sampler="ancestral")
    return made


def test_real_clips_are_the_floor_and_controls_stand_out(table):
    rows = table.rows()
    assert list(rows) == [FLOOR, STOPPED, NEW, "replacement"]
    real, still, new = (rows[name] for name in list(rows)[:3])
    assert real["seam"] == real["change"] == 1 and real["rmse"] < 0.7 and real["identity"] > 0.9 and real["digits"] > 0.7
    assert still["seam"] == still["change"] == 0 and still["rmse"] < 0.1
    assert new["kernel_distance"] > real["kernel_distance"] + 1 and new["identity"] < real["identity"]  # an untrained network's clips
    assert all(len(row["blocks"]) == (FRAMES - GIVEN) // GIVEN for row in rows.values())
    assert real["kernel_distance"] == pytest.approx(sum(block["kernel_distance"] for block in real["blocks"]) / 3, abs=1e-3)


def test_a_control_that_a_killed_run_left_out_is_made_up_for(table, tmp_path, monkeypatch):
    rows = json.loads(table.path.read_text())
    missing = rows["rows"].pop(STOPPED)
    monkeypatch.setattr(table, "path", tmp_path / "table.json")
    table.path.write_text(json.dumps(rows))
    for name in (FLOOR, STOPPED):
        table.compare(name)
    assert table.rows()[STOPPED] == missing and table.rows()[FLOOR] == rows["rows"][FLOOR]


def test_a_jump_at_the_seam_and_what_follows_are_told_apart(table):
    jumped = torch.cat([table.real[:, :, :GIVEN], table.real[:, :, GIVEN:].roll(1, 0)], dim=2)  # each goes on as another clip
    row = table.measure(jumped)
    assert row["seam"] > 1.3 and row["change"] == pytest.approx(1, abs=1e-3) and row["digits"] < 0.4
    assert row["across"] > 4 * table.rows()[FLOOR]["across"] and row["rmse"] < 0.7
    by_clip = torch.tensor(row["across_by_clip"])
    assert by_clip.shape == (len(table.real), 2) and float(by_clip.median()) == pytest.approx(row["across"], abs=1e-3)


def test_what_is_missed_is_measured_on_what_is_given(table):
    options = {"steps": 2, "guidance_scale": 1.0, "sampler": "ancestral"}
    window = 2 * table.real[:, :, 8:24] - 1

    class Oracle(torch.nn.Module):
        def forward(self, z, log_snr, cond=None):
            alpha, sigma = (float(k) for k in (log_snr[0].sigmoid().sqrt(), (-log_snr[0]).sigmoid().sqrt()))
            return (alpha * z - (window[:8] if len(z) == 8 else window[8:])) / sigma  # v of a network that knows the clip

    wrong, table.model.net.forward = table.model.net.forward, Oracle().forward
    known = table.missed(options, num=12)  # in two batches
    table.model.net.forward = wrong
    assert known < 1e-3 < 0.1 < table.missed(options, num=12)


def test_rows_are_kept_until_weights_or_settings_change(table):
    before = table.path.read_text()
    table.extend("replacement", method="replacement", sampler="ancestral")
    assert table.path.read_text() == before
    again = Extensions(table.path, table.model, 12, 0, 1, 2.0, "validation")
    assert again.rows() == table.rows() == json.loads(before)["rows"]
    assert Extensions(table.path, table.model, 12, 0, 2, 2.0, "validation").rows() == {}
    assert json.loads(before)["steps"] == 1 and json.loads(before)["rows"]["replacement"]["seconds"] > 0


def test_rows_are_chosen_by_a_word_or_a_whole_name():
    names = ["replacement", "replacement, Langevin", "guidance", "guidance, Langevin"]
    assert chosen_rows(names, None) == names and chosen_rows(iter(names), []) == []
    with pytest.raises(ValueError, match="--only nothing selects no row; there are: replacement, "):
        chosen_rows(iter(names), ["replacement", "nothing"])
    assert chosen_rows(names, ["replacement"]) == ["replacement"] and chosen_rows(names, ["replace"]) == names[:2]
    assert chosen_rows(names, ["Langevin", "guidance"]) == names[1:]


def test_the_command_measures_what_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(extension, "load_pretrained", lambda *arguments, **options: Model(RECIPE, randomize(UNet(RECIPE.net)), {"steps": 1}, device="cpu"))
    path = tmp_path / "t.json"
    monkeypatch.setattr("sys.argv", ["extension", "--num", "8", "--steps", "1", "--weights", "3", "--only", "twice", "weight 3", "--out", str(path)])
    extension.main()
    rows = json.loads(path.read_text())["rows"]
    assert list(rows) == ["replacement, twice the steps", "reconstruction guidance, weight 3", "reconstruction guidance, weight 3, Langevin"]
    assert rows["replacement, twice the steps"]["steps"] == 2 and rows["reconstruction guidance, weight 3, Langevin"]["langevin"] == 0.1
    monkeypatch.undo()
    monkeypatch.setattr("sys.argv", ["extension", "mnist-guided"])
    with pytest.raises(SystemExit):
        extension.main()
    assert "not a video model with captions" in capsys.readouterr().err
