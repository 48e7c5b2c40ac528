"""The check behind every exercise of the lessons."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch


def check(name: str, answer: Callable, reference: Callable, *cases: tuple, atol: float = 1e-6) -> Callable:
    """Compare a learner's function with the reference on each tuple of arguments, print the verdict, return the function to go on with.

    An untouched stub (it returns `...`) is replaced by the reference. A wrong answer is reported with what was expected, and the
    lesson goes on with it; likewise with one that raises.
    """
    for arguments in cases:
        want = torch.as_tensor(reference(*_copied(arguments))).double()
        try:
            got = answer(*_copied(arguments))
        except Exception as error:  # whatever the learner's code raises is reported
            print(f"{name}: not right yet: it raised {type(error).__name__}: {error}")
            return answer
        if got is ...:
            print(f"{name}: not answered yet; the lesson goes on with the reference answer")
            return reference
        try:
            got = torch.as_tensor(got).double()
        except (TypeError, ValueError, RuntimeError):
            print(f"{name}: not right yet: expected a number or a tensor, got {type(got).__name__}")
            return answer
        if got.shape != want.shape:
            print(f"{name}: not right yet: expected shape {tuple(want.shape)}, got {tuple(got.shape)}")
            return answer
        if not torch.allclose(got, want, atol=atol):
            first = int((~torch.isclose(got, want, atol=atol)).flatten().nonzero()[0])
            print(f"{name}: not right yet: expected {_some(want, first)}, got {_some(got, first)}" + (f" (from number {first} on)" if first else ""))
            return answer
    print(f"{name}: right")
    return answer


def _copied(arguments: tuple) -> list:
    """Arguments of its own for each function: an answer that changes them in place changes nothing else."""
    return [one.clone() if isinstance(one, torch.Tensor) else one.clone_state() if isinstance(one, torch.Generator) else copy.deepcopy(one) for one in arguments]


def _some(numbers: torch.Tensor, first: int) -> str:
    """A few of the numbers, from index `first` on."""
    few = [round(number, 4) for number in numbers.flatten()[first:first + 3].tolist()]
    return f"{few[0] if numbers.numel() == 1 else few}" + (" ..." if numbers.numel() > first + 3 else "")
