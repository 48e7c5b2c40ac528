"""The lessons as files: twins, address, size, metadata, counts, no trace of a machine; and the set-up cell."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import nbformat
import numpy as np
import pytest

import browser
from utils import notebooks
from utils.notebooks import ADDRESS_FILE, FOLDED, LessonError, METADATA, address, find, holds_answer, lessons, small_png, stamped, tidy, tidy_outputs, twin_of
from utils.runtime import ROOT

NOTEBOOKS = lessons()
ids = [path.stem for path in NOTEBOOKS]
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)


def load(path):
    return json.loads(path.read_text())


def code_cells(path):
    return [cell for cell in load(path)["cells"] if cell["cell_type"] == "code"]


def test_there_are_lessons_and_every_twin_has_its_notebook():
    assert len(NOTEBOOKS) >= 2
    assert {path.stem for path in notebooks.LESSONS.glob("[0-9]*.py")} == set(ids)


@each
def test_twins_agree(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert twin_of(notebook) == path.with_suffix(".py").read_text()


@each
def test_executed_and_small(path):
    assert path.stat().st_size < 1_000_000
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
    for cell in cells:
        source = "".join(cell["source"])
        if "NBVAL_CHECK_OUTPUT" in source:
            assert cell["outputs"], source
    assert sum("NBVAL_CHECK_OUTPUT" in "".join(cell["source"]) for cell in cells) >= 3
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])


@each
def test_metadata_is_what_colab_and_github_want(path):
    notebook = load(path)
    assert notebook["metadata"] == METADATA
    assert "widgets" not in path.read_text().split('"metadata": {')[-1]


@each
def test_reference_answers_are_folded_and_nothing_else_is(path):
    cells = code_cells(path)
    for cell in cells:
        source = "".join(cell["source"])
        folded = {key: cell["metadata"].get(key) for key in FOLDED} == FOLDED
        assert folded == holds_answer(source) == source.startswith("#@title Check")
    assert sum(holds_answer("".join(cell["source"])) for cell in cells) >= 2


@each
def test_no_trace_of_a_machine(path):
    text = path.read_text()
    home, host = str(Path.home()), os.uname().nodename
    for trace in ("/root", "/home/", "/tmp/", "/Users/", "/usr/lib", "site-packages", *([home] if len(home) > 1 else []), str(ROOT), "Traceback"):
        assert trace not in text, trace
    assert len(host) < 6 or host not in text or host in path.with_suffix(".py").read_text()  # a shorter name may be part of any picture; and one like jupyter is a word of lessons
    assert not re.search(r"\b(localhost|127\.0\.0\.1)\b", text)


@each
def test_address_is_stamped(path):
    slug, tag = address()
    for file in (path, path.with_suffix(".py")):
        text = file.read_text()
        assert f"colab.research.google.com/github/{slug}/blob/{tag}/lessons/{path.name}" in text
        assert stamped(text) == text


def test_stamping_changes_every_place_and_nothing_else(tmp_path, monkeypatch):
    other = tmp_path / "colab.txt"
    other.write_text("someone/else v2\n")
    slug, tag = address()
    text = NOTEBOOKS[0].with_suffix(".py").read_text()
    monkeypatch.setattr(notebooks, "ADDRESS_FILE", other)
    changed = stamped(text)
    assert "someone/else/blob/v2/" in changed and 'SLUG, TAG = "someone/else", "v2"' in changed and slug not in changed
    monkeypatch.setattr(notebooks, "ADDRESS_FILE", ADDRESS_FILE)
    assert stamped(changed) == text


@each
def test_links_and_pictures_exist(path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", "".join("".join(c["source"]) for c in load(path)["cells"] if c["cell_type"] == "markdown")):
        assert (path.parent / target).exists(), target


def test_set_up_cells_are_the_same_in_every_lesson():
    assert len({"".join(code_cells(path)[0]["source"]) for path in NOTEBOOKS}) == 1


FOREIGN_UTILS = """
def foreign_utils_first(folder):
    "As if a package called utils had been imported before, with nothing of ours on the path."
    for name in [name for name in sys.modules if name.split(".")[0] == "utils"]:
        del sys.modules[name]
    sys.path[:] = [folder, *PATH]
    import utils
    assert utils.foreign
"""


def run_set_up(script, tmp_path, cwd, **environment):
    """What a child process prints that runs `script` with a foreign package called utils in tmp_path / "foreign"."""
    foreign = tmp_path / "foreign" / "utils"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("foreign = True\n")
    script = f"import os, shutil, sys\nPATH = list(sys.path)\n{FOREIGN_UTILS}\nforeign_utils_first({str(foreign.parent)!r})\n{script}"
    environment = {**os.environ, "LESSON_BUDGET": "smoke", **environment}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_set_up_cell_twice_with_a_foreign_utils_in_the_way(tmp_path):
    cell = "".join(code_cells(NOTEBOOKS[0])[0]["source"])
    printed = run_set_up(f"{cell}\nfirst = list(sys.path)\n{cell}\nassert sys.path == first and not hasattr(utils, 'foreign')\n", tmp_path, NOTEBOOKS[0].parent)
    assert printed.count("budget: smoke") == 2


def test_set_up_cells_on_colab_clone_once_and_need_no_network_after(tmp_path):
    """Every lesson in a runtime of its own, as far as one process can: nothing cloned, a foreign utils imported. Then again; then without a network."""
    slug, tag = address()
    origin, content, broken = tmp_path / "origin" / slug, tmp_path / "content", tmp_path / "broken"
    shutil.copytree(ROOT / "utils", origin / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "--quiet", "-b", tag], ["add", "."], [*who, "commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *command], cwd=origin, check=True)
    content.mkdir()
    broken.mkdir()
    (broken / "git").write_text("#!/bin/sh\necho 'fatal: unable to access: could not resolve host' >&2\nexit 128\n")
    (broken / "git").chmod(0o755)
    cells = ["".join(code_cells(path)[0]["source"]) for path in NOTEBOOKS]
    assert all(cell.count('Path("/content")') == 1 for cell in cells)
    cells = [cell.replace('Path("/content")', f"Path({str(content)!r})") for cell in cells]
    script = f"""
import types
sys.modules["google.colab"] = types.ModuleType("google.colab")
clone, online = {str(content / slug.split("/")[1])!r}, os.environ["PATH"]

def works(cell):
    names = {{}}
    exec(cell, names)
    assert str(names["ROOT"]) == clone and names["utils"].__file__.startswith(clone) and not hasattr(names["utils"], "foreign")
    return list(sys.path), {{file: os.stat(os.path.join(clone, file)).st_ino for file in (".", ".git", "utils/runtime.py")}}

for cell in {cells!r}:
    os.environ["PATH"] = online
    shutil.rmtree(clone, ignore_errors=True)
    foreign_utils_first({str(tmp_path / "foreign")!r})
    first = works(cell)
    assert first[0][0] == clone and works(cell) == first
    os.environ["PATH"] = {str(broken)!r} + os.pathsep + online
    assert works(cell) == first
    foreign_utils_first({str(tmp_path / "foreign")!r})  # another notebook in the same runtime
    assert works(cell) == first
"""
    elsewhere = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{(tmp_path / 'origin').as_uri()}/.insteadOf", "GIT_CONFIG_VALUE_0": "https://github.com/"}
    printed = run_set_up(script, tmp_path, tmp_path, **elsewhere)
    assert printed.count("budget: smoke") == 4 * len(NOTEBOOKS)
    assert "Runtime > Change runtime type" in printed or "device: CPU" not in printed


def test_progress_bars_leave_their_last_state():
    assert tidy("a\n\r10%\r50%\r100%\nb") == "a\n100%\nb"
    assert tidy("\r10%\r90%\r    \r") == ""
    assert tidy("plain\n") == "plain\n"
    pieces = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in (("stderr", "\r10%"), ("stdout", "hello\n"), ("stderr", "\r100%\r   \r"))]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=pieces)])
    tidy_outputs(notebook)
    assert [(output.name, output.text) for output in notebook.cells[0].outputs] == [("stdout", "hello\n")]


def test_figures_are_stored_small_and_look_the_same():
    shades = np.random.default_rng(0).integers(0, 256, (60, 80, 1), dtype=np.uint8).repeat(3, 2)
    figure = np.concatenate([shades, np.full((60, 80, 1), 255, np.uint8)], axis=2)
    figure[:5, :, 3] = 0  # a transparent margin shows the white page
    data = base64.b64encode(iio.imwrite("<bytes>", figure, extension=".png")).decode()
    small = small_png(data)
    shown = iio.imread(base64.b64decode(small), mode="RGB").astype(int)
    assert len(small) < 0.6 * len(data) and (shown[:5] > 250).all()
    assert np.abs(shown[5:] - shades[5:].astype(int)).max() <= 8


def test_a_failing_cell_is_explained_and_the_outputs_so_far_are_kept(tmp_path, monkeypatch, capsys):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('before')"), nbformat.v4.new_code_cell("raise ValueError('say what to do')")])
    monkeypatch.setattr(notebooks, "LESSONS", tmp_path)
    monkeypatch.setenv("LESSON_OUTPUTS", "restored after the test")
    nbformat.write(notebook, tmp_path / "77_broken.ipynb")
    (tmp_path / "77_broken.py").write_text("")
    with pytest.raises(LessonError, match="cell 2 of 2: ValueError: say what to do"):
        notebooks.run("77", tmp_path / "out")
    assert "before" in (tmp_path / "out" / "77_broken.ipynb").read_text()


def test_all_lessons_run_when_one_fails_and_a_table_says_which(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "LESSONS", tmp_path)
    monkeypatch.setenv("LESSON_OUTPUTS", "restored after the test")
    for name, source in {"76_dead": "import os; os._exit(1)", "77_broken": "raise ValueError('say what to do')", "78_whole": "1 + 1"}.items():
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), tmp_path / f"{name}.ipynb")
        (tmp_path / f"{name}.py").write_text("")
    assert notebooks.run_all(["76", "77", "78"], tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "the kernel died, most often for want of memory" in printed.err and "say what to do" in printed.err and printed.out.index("stopped in code cell 1 of 1") < printed.out.index("ran to the end")
    assert notebooks.run_all(["78"], tmp_path / "out") == 0


@each
def test_every_picture_has_its_alternative_text(path):
    for cell in code_cells(path):
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                assert re.match("Figure in “.+”", output["metadata"]["image/png"]["alt"])
            if "text/html" in output.get("data", {}):
                assert all("alt=" in tag for tag in re.findall(r"<img[^>]{,200}", "".join(output["data"]["text/html"])))


def test_alternative_text_is_what_the_code_names():
    source = """%matplotlib inline
ax.set_title(f"loss of {name}")
ax.set(xlabel="step", ylabel="loss")
ax.plot(x, label="floor")
show.film_strip(clips, title="clips")"""
    assert notebooks.described(source, "3. Train") == "Figure in “3. Train”; loss of …; step; loss; floor; clips"


def test_unknown_lesson_is_explained():
    with pytest.raises(SystemExit, match="no lesson '99'.*01_ddpm_on_mnist"):
        find("99")
    assert find("1") == find("01") == find("01_ddpm_on_mnist") == find(str(lessons()[0])) == lessons()[0].with_suffix(".py")


@each
def test_markdown_images_inside_outputs_are_pictures(path):
    for cell in code_cells(path):
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                assert base64.b64decode("".join(output["data"]["image/png"]))[:4] == b"\x89PNG"


def test_a_missing_browser_is_explained(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "chromium-that-is-not-there")
    with pytest.raises(SystemExit, match="found no browser.*chromium-that-is-not-there.*apt-get install chromium.*CHROMIUM="):
        browser.chromium()


def test_in_the_browser_a_progress_bar_is_no_warning():
    bars = "training:   0%|          | 0/10 [00:00<?, ?it/s]\rtraining: 100%|##########| 10/10 [00:05<00:00,  1.89it/s]\n\r 50%|#####     | 1/2 [00:01<00:01]\r     \r"
    texts = bars, "<stdin>:1: UserWarning: look out\n", bars + "Exception ignored\n"
    cells = [nbformat.v4.new_code_cell("x", execution_count=1, outputs=[nbformat.v4.new_output("stream", name="stderr", text=text)]) for text in texts]
    problems = browser.run_problems(nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell("y")]))
    assert [problem[:8] for problem in problems] == ["cell 2 w", "cell 3 w", "cell 4 d"] and "100%" not in problems[1]
