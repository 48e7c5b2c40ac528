"""Every lesson has the parts that a learner looks for, in the same form; what a lesson lacks stands here with the reason."""

import re

import pytest

from utils.notebooks import lessons
from utils.recipes import RECIPES
from utils.unet import UNet

LACKS = {("04", "symptoms"): "nothing is trained"}
PARTS = {"symptoms": r"[Ii]f it looks like", "box": r"^# ## \d+\. Faithful\? The box", "quiz": r"^# ## \d+\. Quiz", "close": r"^# ## What was shown, and what was not", "readings": r"^# ## Readings"}
NAMES = [path.stem for path in lessons()]
each = pytest.mark.parametrize("path", [path.with_suffix(".py") for path in lessons()], ids=NAMES)


def section(text, pattern):
    """The text of the section whose heading matches, up to the next heading of its level."""
    return re.split(r"^# ## ", text[re.search(pattern, text, re.MULTILINE).end():], flags=re.MULTILINE)[0]


@each
def test_opening(path):
    opening = path.read_text().split("# %% [markdown]\n")[1]
    order = [opening.index(part) for part in (f"# # {path.stem[:2]} · ", "colab-badge.svg", f"](../assets/figures/{path.stem[:2]}_", "# **Claim: ", "# You will be able to\n", "# | reading | exercises | machine",
                                              "# **The series:** ")]
    assert order == sorted(order)
    assert opening.count("(you are here)") == 1 and "[glossary](glossary.md)" in opening
    linked = re.findall(r"→ |\]\((\d\d_\w+)\.ipynb\)", opening.split("**The series:**")[1])
    assert {name for name in linked if name} == set(NAMES) - {path.stem}


@each
@pytest.mark.parametrize("part", PARTS)
def test_parts(path, part):
    there = re.search(PARTS[part], path.read_text(), re.MULTILINE) is not None
    assert there == ((path.stem[:2], part) not in LACKS)


@each
def test_questions_before_answers(path):
    text = path.read_text()
    assert len(re.findall(r"\*\*Predict", text)) >= 2 and text.count("<details>") == text.count("</details>")
    quiz = section(text, PARTS["quiz"])
    assert quiz.count("<details>") >= 1 and len(re.findall(r"^# \d\. |^# \*\*\d|^# <details>", quiz, re.MULTILINE)) >= 3


@each
def test_exercises(path):
    text = path.read_text()
    found = re.findall(r"^# ### Exercise (\d+) · .+ \(difficulty [●○]{3}, importance [●○]{3}, (\d+) minutes\)$", text, re.MULTILINE)
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1)) and len(found) >= 2
    promised = re.search(r"^# \| \d+ minutes \| (\d+) minutes \|", text, re.MULTILINE)
    assert sum(int(minutes) for _, minutes in found) == int(promised[1])
    assert text.count("<summary>Hint</summary>") >= len(found) and text.count("<summary>Solution</summary>") >= len(found)


@each
def test_something_to_play_with_and_a_few_readings(path):
    text = path.read_text()
    assert re.search(r"#@param|widgets\.interact|show\.\w+_box\(", text)
    assert 3 <= len(re.findall(r"^# - ", section(text, PARTS["readings"]), re.MULTILINE)) <= 6


@each
def test_cells_are_short(path):
    """One idea a cell: at most 28 lines of code, imports aside, and half of all cells have at most 12. The set-up cell is the same everywhere."""
    cells = [cell for cell in re.split(r"^# %%", path.read_text(), flags=re.MULTILINE)[1:] if not cell.startswith(" [markdown]")]
    lengths = sorted(sum(bool(line.strip()) and not re.match("from |import ", line) for line in cell.splitlines()[1:]) for cell in cells if "SLUG, TAG" not in cell)
    assert lengths[-1] <= 28 and lengths[len(lengths) // 2] <= 12, lengths


STATED = {("01", "35.7M"): None, ("01", "1M"): ("mnist-ddpm", 0, 1e6), ("06", "four million"): ("vdm-text", 0, 4e6), ("06", "3 million"): ("vdm-text", 2.5e6, 3.5e6),
          ("12", "few million"): ("mav-upsample", 1e6, 5e6), ("13", "3 million"): ("vdm-text", 2.5e6, 3.5e6)}  # None: the paper's own network


def test_numbers_of_parameters_in_the_prose_are_those_of_the_networks():
    found = {(path.stem[:2], number) for path in lessons() for line in path.with_suffix(".py").read_text().splitlines() if line.startswith("# ")
             for number in re.findall(r"([\d.]+M|[\w.]+ million) parameters", line)}
    assert found == set(STATED)
    for name, low, high in filter(None, STATED.values()):
        assert low < sum(p.numel() for p in UNet(RECIPES[name].net).parameters()) < high, name
