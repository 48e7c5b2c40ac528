"""The one command that makes everything anew: order, what is left out, what takes the place of what is shipped, what happens when time is up or a stage fails."""

import json
import subprocess
from pathlib import Path

import pytest

from utils import reproduce, train
from utils.compare import TABLES
from utils.evaluate import OWN_TABLES
from utils.pretrained import CHECKPOINTS, load_pretrained
from utils.recipes import RECIPES
from utils.runtime import ASSETS


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call the command with a stand-in for the stages, and weights that take the place of the shipped ones with the budget for these, but for `kept`; returns the names of modules that ran,
    with their arguments."""
    ran = []

    def stand_in(command, cwd):
        arguments = command[2:]
        ran.append(arguments)
        if arguments[0] in ("utils.train", "utils.compare") and not stand_in.time_is_up:
            folder = Path(arguments[arguments.index("--out") + 1])
            folder.mkdir(parents=True, exist_ok=True)
            for name in [arguments[1]] if arguments[0] == "utils.train" else TABLES[arguments[1]]:
                (folder / f"{name}.pt").touch()
        return subprocess.CompletedProcess(command, returncode=int(arguments[0] == stand_in.failing))

    stand_in.failing, stand_in.time_is_up, stand_in.kept = None, False, ()
    monkeypatch.setattr(reproduce.subprocess, "run", stand_in)
    monkeypatch.setattr(reproduce, "replaces", lambda name, budget: budget == reproduce.SHIPPED and name not in stand_in.kept)

    def call(*arguments):
        ran.clear()
        call.status = train.main(["--all", "--out", str(tmp_path), *arguments])
        return list(ran)

    call.stand_in = stand_in
    return call


def test_every_model_is_trained_before_it_is_measured_and_nothing_twice(run):
    ran = run()
    trained = [arguments[1] for arguments in ran if arguments[0] == "utils.train"]
    assert sorted(trained) == sorted(RECIPES)
    for name, recipe in RECIPES.items():
        measured = OWN_TABLES.get(recipe.kind, "utils.evaluate")
        assert ran.index(next(a for a in ran if a[:2] == ["utils.train", name])) < ran.index(next(a for a in ran if a[:2] == [measured, name]))
        assert recipe.initial is None or trained.index(recipe.initial) < trained.index(name)
    assert ran[-1] == ["utils.readme"] and ["utils.compare", "joint"] in [arguments[:2] for arguments in ran]
    assert run() == []


def test_a_part_of_it(run):
    assert [arguments[:2] for arguments in run("--only", "vdm-text")] == [["utils.train", "vdm-text"], ["utils.evaluate", "vdm-text"], ["utils.sweep", "guidance"], ["utils.sweep", "intervals"], ["utils.sweep", "rivals"]]
    assert [arguments[:2] for arguments in run("--only", "train vdm")] == [["utils.train", "vdm"]]


def test_time_that_is_up_and_stages_that_fail_lose_nothing(run, capsys):
    assert run("--minutes", "0") == [] and "time is up before: train vdm" in capsys.readouterr().out
    run.stand_in.time_is_up = True
    assert len(run("--minutes", "9")) == 1 and "time is up in: train vdm" in capsys.readouterr().out
    run.stand_in.time_is_up, run.stand_in.failing = False, "utils.evaluate"
    run()
    assert run.status == 1 and "stage 'evaluate vdm' failed" in capsys.readouterr().err
    run.stand_in.failing = None
    assert run()[0][:2] == ["utils.evaluate", "vdm"] and run.status == 0  # training is not repeated


def test_compiling_is_for_training_alone(run):
    assert [(arguments[0], "--compile" in arguments) for arguments in run("--compile", "--only", "mav")] == [("utils.train", True), ("utils.evaluate", False)]
    assert [(arguments[0], "--compile" in arguments) for arguments in run("--only", "vdm")] == [("utils.train", False), ("utils.evaluate", False), ("utils.sweep", False)]


def test_names_that_do_not_exist_are_refused(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--only", "vdm-text", "vdmtext")
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "no stage or model 'vdmtext'" in said and "'train vdm-text'" in said and "'survival'" in said and "mav-upsample" in said
    with pytest.raises(SystemExit):
        run("--only")


def test_what_was_done_with_other_settings_is_done_again(run, tmp_path, capsys):
    few = run("--budget", "smoke", "--num", "8", "--only", "vdm")
    assert [arguments[0] for arguments in few] == ["utils.train", "utils.evaluate"] and run("--budget", "smoke", "--num", "8", "--only", "vdm") == []
    assert "done; weights" in capsys.readouterr().out
    again = run("--budget", "smoke", "--num", "16", "--only", "vdm")
    assert [arguments[0] for arguments in again] == ["utils.evaluate"] and "evaluate vdm, which was done with other settings" in capsys.readouterr().out  # training does not depend on it
    for other in (["--budget", "smoke", "--amp", "fp16"], ["--budget", "t4-long"]):  # in folders of their own: neither meets the checkpoint or the weights of another
        ran = run("--num", "16", "--only", "vdm", *other)
        assert [arguments[0] for arguments in ran] == ["utils.train", "utils.evaluate", *(["utils.sweep"] if "t4-long" in other else [])]
    assert {path.name for path in tmp_path.iterdir()} == {"smoke-auto", "smoke-fp16", "t4-long-auto"}
    assert str(tmp_path) not in (tmp_path / "smoke-auto" / "done.json").read_text()  # the folder may be moved


def test_other_budgets_leave_alone_what_is_shipped(run, tmp_path, capsys):
    for budget in ("smoke", "cpu", "t4"):
        ran = run("--budget", budget)
        assert run.status == 0 and f"{budget}-auto; nothing that is shipped changes" in (said := capsys.readouterr().out)
        trained = [arguments[1] for arguments in ran if arguments[0] == "utils.train"]
        assert sorted(trained) == sorted(RECIPES) and not any({"--publish", "--record"} & set(arguments) for arguments in ran)
        folder = tmp_path / f"{budget}-auto"
        measured = [arguments[1] for arguments in ran if arguments[0] != "utils.train"]
        assert {arguments[0] for arguments in ran} == {"utils.train", "utils.evaluate"}
        assert sorted(measured) == sorted(str(folder / name / f"{name}.pt") for name, recipe in RECIPES.items() if recipe.kind not in OWN_TABLES)
        assert all(f"left out: {name}," in said for name in ("evaluate mav-upsample", "guidance vdm-text", "survival", "joint", "tables"))
    assert all({"--publish", "--record"} <= set(arguments) for arguments in run() if arguments[0] == "utils.train")


def test_a_model_that_keeps_its_shipped_weights_is_measured_in_its_folder(run, tmp_path, capsys):
    run.stand_in.kept = ("vdm-text",)
    ran = run("--only", "vdm-text", "vdm", "survival")
    weights = str(tmp_path / "t4-long-auto" / "vdm-text" / "vdm-text.pt")
    assert [arguments[:2] for arguments in ran] == [["utils.train", "vdm"], ["utils.evaluate", "vdm"], ["utils.train", "vdm-text"], ["utils.evaluate", weights], ["utils.sweep", "temporal"]]
    assert ["--publish" in arguments for arguments in ran] == [True, False, False, False, False] and "left out: survival" in capsys.readouterr().out
    run.stand_in.kept = ()  # say, as the shipped ones were deleted: now these are published
    ran = run("--only", "vdm-text", "vdm", "survival")
    assert [arguments[:2] for arguments in ran] == [["utils.train", "vdm-text"], ["utils.evaluate", "vdm-text"], ["utils.sweep", "guidance"], ["utils.sweep", "intervals"], ["utils.sweep", "rivals"], ["utils.survival", "vdm-text"]] and "--publish" in ran[0]


def test_which_weights_take_the_place_of_the_shipped_ones(monkeypatch, capsys):
    """The budget is asked, and the FLOPs as `--publish` counts them: this must not let through what that refuses."""
    assert not any(reproduce.replaces(name, budget) for name in (None, *RECIPES) for budget in ("smoke", "cpu", "t4"))
    assert reproduce.replaces(None, "t4-long")
    planned = 1.65e15  # of mnist-ddpm
    for there, expected in ((0.0, True), (planned / 2, True), (planned * 2, False)):
        monkeypatch.setattr(reproduce, "shipped_flops", lambda name, there=there: there)
        assert reproduce.replaces("mnist-ddpm", "t4-long") == expected
    assert "mnist-ddpm: the shipped weights had 3.3e+15 FLOPs of training, these get 1.65e+15 and do not take their place" in capsys.readouterr().out


def test_the_smallest_budget_really_trains_and_measures(tmp_path, capfd):
    before = {path: path.read_bytes() for folder in (CHECKPOINTS, ASSETS / "results") for path in folder.iterdir()}
    assert train.main(["--all", "--budget", "smoke", "--amp", "off", "--num", "8", "--only", "mnist-guided", "--out", str(tmp_path)]) == 0
    assert before == {path: path.read_bytes() for folder in (CHECKPOINTS, ASSETS / "results") for path in folder.iterdir()}
    folder = tmp_path / "smoke-off" / "mnist-guided"
    result = json.loads((folder / "mnist-guided-evaluation.json").read_text())
    assert result["trained"]["steps"] == RECIPES["mnist-guided"].budget("smoke").steps and result["n"] == 8 and set(result["rows"]) == {"real held-out (floor)", "mnist-guided", "control: noise"}
    assert result["trained"] == load_pretrained("mnist-guided", "cpu", folder / "mnist-guided.pt").provenance
    assert set(json.loads((tmp_path / "smoke-off" / "done.json").read_text())) == {"train mnist-guided", "evaluate mnist-guided"}
