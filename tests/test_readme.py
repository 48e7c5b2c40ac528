"""README and the page of results say what the results files say; what they link to exists; the table of lessons is that of the lessons."""

import json
import re

import pytest

from utils.cost import measure
from utils.evaluate import RESULTS
from utils.figures import CAPTIONS
from utils.notebooks import address, lessons, stamped
from utils.readme import PAGES, TABLES, with_tables
from utils.recipes import VDM_TEXT
from utils.runtime import ROOT

README = PAGES[0]
each = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


@each
def test_tables_are_those_of_the_results_files(page):
    assert with_tables(page.read_text()) == page.read_text()


def test_a_number_that_differs_from_its_file_is_found():
    text = README.read_text()
    assert with_tables(text.replace("FLOPs on CPU", "FLOPs on GPU")) == text != text.replace("FLOPs on CPU", "FLOPs on GPU")


def test_every_table_has_one_place():
    text = "".join(page.read_text() for page in PAGES)
    for name in TABLES:
        assert text.count(f"<!-- {name} -->\n") == text.count(f"<!-- /{name} -->") == 1, name


@each
def test_links_exist(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), target
        if anchor:
            assert re.search(rf"^#+ {anchor}$", linked.read_text(), re.MULTILINE | re.IGNORECASE), anchor


def test_the_gallery_is_named():
    assert all(f'"{caption}"' in README.read_text() for caption in CAPTIONS)


def test_numbers_in_the_text_around_the_tables_are_measured():
    rows = json.loads((RESULTS / "vdm-text.json").read_text())["rows"]["motion"]
    chance, real = rows["vdm-text"]["directions_chance"], rows["real held-out clips (floor)"]["directions"]
    alone, packed = (measure(VDM_TEXT.net, VDM_TEXT.sample_shape, images).flops / 1e9 for images in (0, VDM_TEXT.num_images))
    text = README.read_text()
    assert f"(by chance: {chance:.0%}; of real clips, {real:.0%})" in text and f"make {alone:.1f} GFLOP {packed:.1f}." in text
    row = {name: json.loads((RESULTS / f"{name}.json").read_text())["rows"][kind][name] for name, kind in (("vdm", "unconditional"), ("vdm-text", "motion"), ("mav", "motion"))}
    assert "keeps to straight paths best, and its digits least" in text and min(row, key=lambda name: row[name]["rmse"]) == min(row, key=lambda name: row[name]["identity"]) == "vdm"
    away = json.loads((RESULTS / "vdm-text-rivals.json").read_text())["rows"]
    assert "and three in five of those that appear set off as asked" in text and round(5 * rows["vdm-text"]["directions"]) == 3
    assert "In five prompts of six both digits appear" in text and round(6 * rows["vdm-text"]["digits"]) == 5 and "with the usual guidance alone it is two in three" in text and round(3 * away["rivals 0"]["digits"]) == 2
    assert round(6 * away["rivals 2"]["digits"]) == 5 and away["rivals 2"]["twice_high"] < away["rivals 0"]["twice_low"]


def test_the_two_commands_are_there_and_the_address_is_stamped():
    text = README.read_text()
    for command in ("lessons/run.sh", "tests/run.sh"):
        assert f"bash {command}" in text and (ROOT / command).exists()
    assert f"https://github.com/{address()[0]}}}" in text and stamped(text) == text
    assert text.count("https://colab.research.google.com/") == text.count(f"https://colab.research.google.com/github/{'/blob/'.join(address())}/lessons/") == len(lessons()) + 1 and f"git clone https://github.com/{address()[0]} && cd " in text


def test_every_lesson_is_listed_by_its_title():
    rows = re.findall(r"^\| (\d\d) \| \[(.+?)\]\(lessons/(.+?)\.ipynb\) \| \[open\]\(.+\) \| .+ \| (\d+) \+ (\d+) \| \d+ / \d+ \|$", README.read_text(), re.MULTILINE)
    assert [row[2] for row in rows] == [path.stem for path in lessons()]
    assert round(sum(int(reading) + int(exercises) for *_, reading, exercises in rows) / 60) == 12 and "about twelve hours, exercises included" in README.read_text()
    for number, title, stem, *_ in rows:
        assert f"# # {number} · {title}\n" in (ROOT / "lessons" / f"{stem}.py").read_text()
