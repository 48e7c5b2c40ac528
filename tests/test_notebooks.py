"""The lessons as files: twins, address, size, metadata, counts, no trace of a machine; and the set-up cell."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import nbformat
import numpy as np
import pytest

from utils import notebooks
from utils.notebooks import ADDRESS_FILE, METADATA, address, find, lessons, small_png, stamped, tidy, tidy_outputs, twin_of
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
def test_no_trace_of_a_machine(path):
    text = path.read_text()
    for trace in ("/root", "/home/", "/tmp/", "/Users/", "/usr/lib", "site-packages", str(Path.home()), str(ROOT), "Traceback"):
        assert trace not in text, trace
    host = os.uname().nodename
    assert len(host) < 6 or host not in text  # a shorter name may be part of any picture
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


def test_set_up_cell_twice_with_a_foreign_utils_in_the_way(tmp_path):
    foreign = tmp_path / "utils"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("foreign = True\n")
    cell = "".join(code_cells(NOTEBOOKS[0])[0]["source"])
    script = (f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport utils\nassert utils.foreign\n{cell}\nfirst = list(sys.path)\n{cell}\n"
              "assert sys.path == first and not hasattr(utils, 'foreign')\n")
    environment = {**os.environ, "LESSON_BUDGET": "smoke"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run([sys.executable, "-c", script], cwd=NOTEBOOKS[0].parent, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("budget: smoke") == 2


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
    with pytest.raises(SystemExit):
        notebooks.run("77", tmp_path / "out")
    assert "cell 2 of 2: ValueError: say what to do" in capsys.readouterr().err
    assert "before" in (tmp_path / "out" / "77_broken.ipynb").read_text()


def test_unknown_lesson_is_explained():
    with pytest.raises(SystemExit, match="no lesson '99'.*01_ddpm_on_mnist"):
        find("99")
    assert find("1").stem == find("01").stem == "01_ddpm_on_mnist"


@each
def test_markdown_images_inside_outputs_are_pictures(path):
    for cell in code_cells(path):
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                assert base64.b64decode("".join(output["data"]["image/png"]))[:4] == b"\x89PNG"
