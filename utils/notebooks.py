"""The lessons as files: execute them, pair them with their twins, stamp the Colab address into them.

    python -m utils.notebooks run 06 [--into outputs]     execute a copy of lesson 06
    python -m utils.notebooks update 06                   rebuild lesson 06 from its .py twin, execute in place
    python -m utils.notebooks prose 06                    take only the text between the cells from the twin; outputs stay
    python -m utils.notebooks stamp                       write lessons/colab.txt's address into README and every notebook and twin

Needs jupytext, nbformat and nbclient; the lessons themselves do not.
"""

from __future__ import annotations

import argparse
import ast
import base64
import copy
import io
import os
import re
import sys
import time
from pathlib import Path

from .runtime import ROOT, outputs

LESSONS = ROOT / "lessons"
ADDRESS_FILE = LESSONS / "colab.txt"
METADATA = {"accelerator": "GPU", "colab": {"gpuType": "T4", "provenance": []},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}  # hides a cell's code in Colab and in JupyterLab


def lessons() -> list[Path]:
    """Every lesson's notebook, in order."""
    return sorted(LESSONS.glob("[0-9][0-9]_*.ipynb"))


def find(number: str) -> Path:
    """The .py twin of a lesson by number ("06"), name or path; SystemExit listing all lessons when there is none."""
    matches = sorted(LESSONS.glob(f"{Path(number).name.zfill(2)}_*.py")) + sorted(LESSONS.glob(f"{Path(number).stem}.py"))
    if not matches:
        raise SystemExit(f"error: there is no lesson {number!r}. There are: {', '.join(path.stem for path in lessons())}.")
    return matches[0]


def address() -> tuple[str, str]:
    """OWNER/REPOSITORY and the branch or tag in lessons/colab.txt."""
    slug, tag = ADDRESS_FILE.read_text().split()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", slug):
        raise SystemExit(f"error: lessons/colab.txt holds {slug!r}; expected OWNER/REPOSITORY and a branch or tag.")
    return slug, tag


def stamped(text: str) -> str:
    """`text` of a notebook, twin or README with every Colab link, clone command and the set-up cell set to lessons/colab.txt's address."""
    slug, tag = address()
    text = re.sub(r"(colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+/blob/[\w.-]+/", rf"\g<1>{slug}/blob/{tag}/", text)
    text = re.sub(r"(git clone https://github\.com/)[\w.-]+/[\w.-]+( && cd )[\w.-]+", rf"\g<1>{slug}\g<2>{slug.split('/')[1]}", text)
    text = re.sub(r"(https://github\.com/)[\w.-]+/[\w.-]+(/issues)", rf"\g<1>{slug}\g<2>", text)
    return re.sub(r'(SLUG, TAG = \\?")[\w./-]+(\\?", \\?")[\w./-]+(\\?")', rf"\g<1>{slug}\g<2>{tag}\g<3>", text)


def stamp() -> None:
    """Stamp every notebook, every twin and the README."""
    for path in [ROOT / "README.md", *lessons(), *sorted(LESSONS.glob("[0-9][0-9]_*.py"))]:
        before = path.read_text()
        if (after := stamped(before)) != before:
            path.write_text(after)
            print("stamped", path.name)


class LessonError(RuntimeError):
    """A cell of a lesson failed; the message says which, why, and what to do."""


def execute(notebook, name: str) -> None:
    """Run a notebook's cells in lessons/, in place, announcing each. LessonError when one fails."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    total, start = sum(cell.cell_type == "code" for cell in notebook.cells), time.monotonic()
    seen = []

    def progress(cell, cell_index) -> None:
        if cell.cell_type == "code":
            seen.append(cell_index)
            first = next((line for line in cell.source.splitlines() if line.strip()), "")
            print(f"[{time.monotonic() - start:5.0f} s] {name} cell {len(seen)} of {total}: {first[:70]}", flush=True)

    client = NotebookClient(notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": str(LESSONS)}},
                            record_timing=False, on_cell_start=progress)
    try:
        client.execute()
    except CellExecutionError as error:
        raise LessonError(f"{name} stopped in code cell {len(seen)} of {total}: {error.ename}: {error.evalue}\nThe executed notebook holds the full "
                          "message. Mend what it says and run again; the budget is chosen with LESSON_BUDGET=smoke, cpu, t4 or t4-long.") from error
    except (DeadKernelError, CellTimeoutError) as error:
        what = "the kernel died, most often for want of memory" if isinstance(error, DeadKernelError) else f"it was not done after {client.timeout} seconds"
        raise LessonError(f"{name} stopped in code cell {len(seen)} of {total}: {what}. Run again with a smaller LESSON_BUDGET (smoke or cpu), or on a machine with more memory and a GPU.") from error
    finally:
        tidy_outputs(notebook)
        notebook.metadata.pop("widgets", None)  # GitHub calls a notebook with widget state invalid
    print(f"[{time.monotonic() - start:5.0f} s] {name} done")


def twin_of(notebook) -> str:
    """A notebook's .py twin, without the jupytext version (it would differ between machines) and which cells are folded (`write_pair` sets that)."""
    import jupytext

    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        cell.metadata = _tags(cell)
    return re.sub(r"^#\s+jupytext_version: .*\n", "", jupytext.writes(notebook, fmt="py:percent"), flags=re.MULTILINE)


def _tags(cell) -> dict:
    import nbformat

    return nbformat.from_dict({key: value for key, value in cell.metadata.items() if key == "tags"})


def holds_answer(source: str) -> bool:
    """Whether a cell holds the reference answer to an exercise and must be folded."""
    return re.search(r"^def reference_", source, re.MULTILINE) is not None


def tidy(text: str) -> str:
    """`text` as a terminal would show it: only the last state of a progress bar that carriage returns overwrite."""
    lines = []
    for line in text.split("\n"):
        parts = [part for part in line.split("\r") if part]
        lines.append("" if line.endswith("\r") else parts[-1] if parts else "")
    return "\n".join(lines)


def small_png(data: str) -> str:
    """A base64 PNG figure, reduced to 128 colours on white: half the size, which keeps an executed lesson under its limit of 1 MB."""
    from PIL import Image

    figure = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", figure.size, "white"), figure).convert("RGB")
    stored = io.BytesIO()
    flat.quantize(128, dither=Image.Dither.NONE).save(stored, "PNG", optimize=True)
    return base64.b64encode(stored.getvalue()).decode()


def tidy_outputs(notebook) -> None:
    """Join what each cell wrote to a stream, keep only the last state of progress bars, drop what is then empty; shrink figures."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        kept, streams = [], {}
        for output in cell.outputs:
            if output.output_type != "stream":
                kept.append(output)
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = small_png(output.data["image/png"])
            elif output.name in streams:
                streams[output.name].text += output.text
            else:
                streams[output.name] = output
                kept.append(output)
        for output in streams.values():
            output.text = tidy(output.text)
        cell.outputs = [output for output in kept if output.output_type != "stream" or output.text.strip()]


def run(number: str, into: Path) -> None:
    """Execute a copy of a lesson and write it to `into`."""
    import nbformat

    source = find(number).with_suffix(".ipynb")
    into = Path(into).resolve()
    os.environ["LESSON_OUTPUTS"] = str(into)  # the kernel inherits it: clips land beside the executed notebook
    into = outputs()
    notebook = nbformat.read(source, as_version=4)
    try:
        execute(notebook, source.stem)
    finally:
        nbformat.write(notebook, into / source.name)  # also when a cell failed: the outputs so far are worth reading
    print(f"executed notebook: {into / source.name}")
    for clip in sorted(into.glob(f"{source.stem[:2]}_*.gif")):
        print(f"clip: {clip}")


def run_all(numbers: list[str], into: Path) -> int:
    """Execute lessons one after the other, even if one fails, and print a table of them; returns the exit status."""
    rows, failed = [], False
    for number in numbers:
        start, result = time.monotonic(), "ran to the end"
        try:
            run(number, into)
        except LessonError as error:
            print(f"error: {error}", file=sys.stderr)
            failed, result = True, str(error).split(": ")[0].removeprefix(f"{find(number).stem} ")
        clips = len(list(Path(into).resolve().glob(f"{find(number).stem[:2]}_*.gif")))
        rows.append(f"{find(number).stem:32s} {time.monotonic() - start:7.0f}  {clips:5d}  {result}")
    if len(rows) > 1:
        print(f"\n{'lesson':32s} seconds  clips  result", *rows, sep="\n")
    return int(failed)


def described(source: str, heading: str) -> str:
    """Alternative text for a cell's figures: the section it is in, and the titles and axes that its code names."""
    said = []
    for node in ast.walk(ast.parse(re.sub(r"^[%!].*$", "pass", source, flags=re.MULTILINE))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            values = [keyword.value for keyword in node.keywords if keyword.arg in ("title", "xlabel", "ylabel", "label")]
            values += node.args[:1] if name in ("set_title", "suptitle", "title", "set_xlabel", "set_ylabel", "xlabel", "ylabel") else []
            for value in values:
                parts = value.values if isinstance(value, ast.JoinedStr) else [value]
                text = "".join(part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "…" if len(parts) > 1 else "" for part in parts)
                said.append(" ".join(text.split()))
    return f"Figure in “{heading}”" + "".join(f"; {text}" for text in dict.fromkeys(said) if text.strip("…"))


def describe_figures(notebook) -> None:
    """Give every picture in the outputs its alternative text, where nbconvert and notebook viewers look for it."""
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = next((line.lstrip("# ") for line in reversed(cell.source.splitlines()) if re.match(r"#+ ", line)), heading)
            continue
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                output.metadata["image/png"] = {"alt": described(cell.source, heading)}


def update(number: str) -> None:
    """Rebuild a lesson's notebook from its .py twin, executed, with the metadata that Colab and GitHub want."""
    import jupytext
    import nbformat

    twin = find(number)
    twin.write_text(stamped(twin.read_text()))
    notebook = jupytext.read(twin)
    notebook.metadata.update(METADATA)
    execute(notebook, twin.stem)
    write_pair(notebook, twin)


def prose(number: str) -> None:
    """Take the text between the cells from a lesson's .py twin; the outputs stay as they are. SystemExit when a code cell differs: it must be executed."""
    import jupytext
    import nbformat

    twin = find(number)
    twin.write_text(stamped(twin.read_text()))
    notebook, executed = jupytext.read(twin), nbformat.read(twin.with_suffix(".ipynb"), as_version=4)
    new, old = ([cell for cell in book.cells if cell.cell_type == "code"] for book in (notebook, executed))
    if [cell.source for cell in new] != [cell.source for cell in old]:
        raise SystemExit(f"error: code cells of {twin.name} are not those of the notebook. Execute it: python -m utils.notebooks update {number}")
    for cell, before in zip(new, old):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    write_pair(notebook, twin)


def write_pair(notebook, twin: Path) -> None:
    """Write a lesson's notebook, with the metadata that Colab and GitHub want and the reference answers folded, and its twin."""
    import nbformat

    describe_figures(notebook)
    notebook.metadata = nbformat.from_dict(METADATA)  # drop what the kernel added
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:03d}"  # the same ids every time, so that a diff shows what changed
        cell.metadata = _tags(cell)
        if cell.cell_type == "code" and holds_answer(cell.source):
            cell.metadata.update(nbformat.from_dict(FOLDED))
    nbformat.write(notebook, twin.with_suffix(".ipynb"))
    twin.write_text(twin_of(notebook))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m utils.notebooks", description="Execute, pair and stamp the lessons.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "update", "prose"):
        sub = commands.add_parser(name)
        sub.add_argument("lesson", nargs="+", help="a number such as 06, or 'all'")
        if name == "run":
            sub.add_argument("--into", type=Path, default=None, help="folder for the executed notebook (default: outputs/)")
    commands.add_parser("stamp")
    a = parser.parse_args()
    if a.command == "stamp":
        stamp()
        return
    chosen = [path.stem[:2] for path in lessons()] if a.lesson == ["all"] else a.lesson
    if a.command != "run":
        try:
            for number in chosen:
                update(number) if a.command == "update" else prose(number)
        except LessonError as error:
            raise SystemExit(f"error: {error}") from error
        return
    sys.exit(run_all(chosen, a.into or outputs()))


if __name__ == "__main__":
    main()
