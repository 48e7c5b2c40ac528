"""The tables of lessons 11 and 12: ways to fill in frames and to sharpen clips, each measured beside floor and controls, and rows that are kept."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from utils import cost, evaluate, extension, hearing, interpolation, super_resolution, survival
from utils.interpolation import FLOOR, FRAMES, SKIP, Interpolations, cross_faded, guided, repeated
from utils.pretrained import load_pretrained
from utils.super_resolution import SuperResolutions, flicker, resized


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    table = Interpolations(tmp_path_factory.mktemp("table") / "frames.json", load_pretrained("mav-interpolate", device="cpu"), load_pretrained("mav", device="cpu"), 8, 0, 2, "validation")
    for name, make in ((FLOOR, lambda keyframes: table.real), ("repeated", repeated), ("cross-fade", cross_faded), ("noise", lambda keyframes: torch.rand(table.real.shape))):
        table.fill(name, make)
    return table


def test_frames_between_are_measured_beside_the_real_ones(filled):
    rows = filled.rows()
    floor, faded, stairs, noise = (rows[name] for name in (FLOOR, "cross-fade", "repeated", "noise"))
    assert floor["missed"] == 0 and floor["edges"] == 1 and floor["keyframes"] and not noise["keyframes"]
    assert 0 < faded["missed"] < stairs["missed"] < noise["missed"]
    assert stairs["judder"] > 1.2 * floor["judder"] > faded["judder"] and faded["edges"] < 0.95 < stairs["edges"] < 1.05
    assert noise["kernel_distance"] > faded["kernel_distance"] + 3 and floor["identity"] > noise["identity"]


def test_rows_are_made_once(filled):
    filled.fill("repeated", lambda keyframes: pytest.fail("made again"))
    assert set(json.loads(filled.path.read_text())["rows"]) == {FLOOR, "repeated", "cross-fade", "noise"}


def test_ways_to_fill_in_keep_the_keyframes():
    keyframes = torch.rand(1, 1, 16, 32, 32)
    for clips in (repeated(keyframes), cross_faded(keyframes), guided(load_pretrained("mav", device="cpu"), keyframes, 30.0, steps=1, method="replacement")):
        assert clips.shape == (1, 1, FRAMES, 32, 32) and torch.equal(clips[:, :, ::SKIP], keyframes)
    assert torch.allclose(cross_faded(keyframes)[:, :, 2], 0.6 * keyframes[:, :, 0] + 0.4 * keyframes[:, :, 1], atol=1e-6)


def test_sharper_clips_are_measured_beside_the_real_ones(tmp_path):
    table = SuperResolutions(tmp_path / "frames.json", load_pretrained("mav-upsample", device="cpu"), 16, 0, 2, "validation")
    table.enlarge(super_resolution.FLOOR, lambda small: table.real if small is table.small else table.real[:len(small), :, :1].expand(-1, -1, small.shape[2], -1, -1))
    for mode in ("nearest", "bilinear"):
        table.enlarge(mode, lambda small, mode=mode: resized(small, mode))
    table.enlarge("noise", lambda small: torch.rand(*small.shape[:3], 64, 64))
    floor, near, smooth, noise = table.rows().values()
    assert floor["missed"] == floor["again"] == floor["flicker"] == 0 and floor["sharpness"] == floor["change"] == 1 and floor["digits"] > 0.85
    assert near["again"] < 1e-6 and near["missed"] > 0.03 and smooth["sharpness"] < near["sharpness"] < 1 and smooth["flicker"] == 0
    assert noise["flicker"] > 0.2 and noise["digits"] < 0.5 and noise["kernel_distance"] > smooth["kernel_distance"] > floor["kernel_distance"]
    assert torch.equal(F.avg_pool3d(resized(table.small, "nearest"), (1, 2, 2)), table.small) and flicker(torch.zeros(1, 1, 3, 4, 4)) == 0


@pytest.mark.parametrize(("module", "wrong"), [(interpolation, "mav"), (super_resolution, "mav")])
def test_models_of_another_kind_are_refused(module, wrong, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["table", wrong])
    with pytest.raises(SystemExit):
        module.main()
    assert "was not trained to" in capsys.readouterr().err


@pytest.mark.parametrize("module", [interpolation, super_resolution, extension])
def test_numbers_to_choose_by_are_not_filed_as_results(module, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["table", "--split", "validation"])
    with pytest.raises(SystemExit):
        module.main()
    assert "say where with --out" in capsys.readouterr().err


def test_seconds_are_those_that_the_clips_took(filled, tmp_path, monkeypatch):
    clock = [0.0]

    def measure(clips):
        clock[0] += 5
        return {}

    def make(table):
        clock[0] += 2
        return repeated(table)

    monkeypatch.setattr(interpolation, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(filled, "path", tmp_path / "frames.json")
    monkeypatch.setattr(filled, "measure", measure)
    filled.fill("repeated", make)
    assert filled.rows()["repeated"]["seconds"] == 2


@pytest.mark.parametrize("module", [cost, evaluate, extension, hearing, interpolation, super_resolution, survival])
def test_a_mistyped_name_is_told_without_a_traceback(module, monkeypatch):
    monkeypatch.setattr("sys.argv", ["command", "vdmtext"])
    with pytest.raises(SystemExit, match="^error: Unknown recipe 'vdmtext'; there are mnist-ddpm"):
        module.main()
