"""An untouched stub passes, a right answer is praised, a wrong one is shown as wrong; and every solution of the lessons is right."""

import ast
import re

import pytest
import torch

from utils.exercises import check
from utils.notebooks import lessons
from utils.runtime import generator

CASES = ((torch.ones(3), 2.0), (torch.zeros(2), 1.0))


def reference(x, a):
    return a * x + 1


@pytest.mark.parametrize(("answer", "verdict"), [
    (lambda x, a: a * x + 1, "right"), (lambda x, a: ..., "not answered yet"), (lambda x, a: a * x, "not right yet: expected [3.0, 3.0, 3.0], got [2.0"),
    (lambda x, a: x[:1], "expected shape (3,), got (1,)"), (lambda x, a: 1 / 0, "raised ZeroDivisionError"), (lambda x, a: "three", "expected a number"),
    (lambda x, a: 3 * torch.ones_like(x), "not right yet")])  # right in the first case, wrong in the second
def test_verdicts(answer, verdict, capsys):
    chosen = check("exercise 0", answer, reference, *CASES)
    assert verdict in capsys.readouterr().out
    assert chosen is (reference if verdict == "not answered yet" else answer)


@pytest.mark.parametrize(("answer", "verdict"), [(lambda x, a: x.mul_(a).add_(1), "right"), (lambda x, a: x.zero_() + 1, "not right yet: expected [3.0")])
def test_an_answer_in_place_is_judged_like_any_other(answer, verdict, capsys):
    cases = [(x.clone(), a) for x, a in CASES]
    check("exercise 0", answer, reference, *cases)
    assert f"exercise 0: {verdict}" in capsys.readouterr().out
    assert all(torch.equal(x, before) for (x, _), (before, _) in zip(cases, CASES))
    check("exercise 0", lambda lengths: lengths.pop() and sum(lengths), sum, ([1, 2, 3],))
    assert "expected 6.0, got 3.0" in capsys.readouterr().out
    check("exercise 0", lambda g: torch.rand(2, generator=g), lambda g: torch.rand(2, generator=g), (generator(3),))
    assert "exercise 0: right" in capsys.readouterr().out


def definitions(source):
    """The imports and functions of a lesson's code, compiled, without anything that runs: no decorators, no defaults."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef))]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list, node.args.defaults = [], []
    return compile(tree, "lesson", "exec")


@pytest.mark.parametrize("path", lessons(), ids=lambda path: path.stem)
def test_every_folded_solution_passes_its_check(path, capsys):
    """Run each stub with its solution in place, then the check cell that follows, with what the lesson has imported and defined by then."""
    text = path.with_suffix(".py").read_text()
    cells = re.split(r"^# %%.*\n", text, flags=re.MULTILINE)
    stubs = [k for k, cell in enumerate(cells) if re.search(r"^    return \.\.\.", cell, re.MULTILINE)]
    assert stubs
    for k in stubs:
        solution = re.search(r"Solution</summary>.*?```python\n(.*?)# ```", "".join(cells[k + 2:]), re.DOTALL)[1]
        body = "\n".join("    " + line.removeprefix("#").removeprefix(" ") for line in solution.strip().splitlines())
        stub = re.sub(r"^    return \.\.\..*$", lambda m, b=body: b, cells[k], flags=re.MULTILINE)
        beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        abar = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)])
        known = {"beta": beta, "abar": abar, "log_snr": torch.log(abar / (1 - abar)), "generator": generator, "check": check}
        exec(definitions("\n".join(cells[:k])), known)
        exec(stub, known)
        exec(cells[k + 1], known)
        assert re.search(r"exercise \d+: right", capsys.readouterr().out), stub
