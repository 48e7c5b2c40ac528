"""README says what the results files say, and what it links to exists."""

import re

from utils.readme import GALLERY, README, with_tables
from utils.runtime import ROOT


def test_tables_are_those_of_the_results_files():
    assert with_tables(README.read_text()) == README.read_text()


def test_links_exist_and_the_gallery_is_named():
    text = README.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
    for caption in GALLERY:
        assert f'"{caption}"' in text


def test_the_two_commands_are_there():
    for command in ("lessons/run.sh", "tests/run.sh"):
        assert f"bash {command}" in README.read_text() and (ROOT / command).exists()
