"""The one command that makes everything anew: order, what is left out, what happens when time is up or a stage fails."""

import subprocess
from pathlib import Path

import pytest

from utils import reproduce, train
from utils.compare import TABLES
from utils.evaluate import OWN_TABLES
from utils.recipes import RECIPES


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call the command with a stand-in for the stages; returns the names of modules that ran, with their arguments."""
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

    stand_in.failing, stand_in.time_is_up = None, False
    monkeypatch.setattr(reproduce.subprocess, "run", stand_in)

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
    assert [arguments[:2] for arguments in run("--only", "vdm-text")] == [["utils.train", "vdm-text"], ["utils.evaluate", "vdm-text"], ["utils.sweep", "guidance"]]
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
    assert [(arguments[0], "--compile" in arguments) for arguments in run("--only", "vdm")] == [("utils.train", False), ("utils.evaluate", False)]
