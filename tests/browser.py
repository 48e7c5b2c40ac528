"""The lessons as a learner sees them: JupyterLab in a headless Chromium, Run > Run All Cells to the last cell, then a look at what is on the page.

    python tests/browser.py 01 04 06 [--into outputs/browser]     or `all`; bash tests/run.sh --browser makes the environment first

Asserts that every cell ran without error, warning or JavaScript error, that figures show, clips move, widgets redraw and formulas are set.
Leaves pictures: NN_1.png ... the lesson from top to bottom, NN_dark.png a part of it in the dark theme, NN_phone_1.png ... at the width of a phone.
Works on a copy of the repository, so the notebooks that are under version control stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, Error, Locator, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from utils.notebooks import find, lessons, tidy  # noqa: E402

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LEFT_OUT = (".venv*", ".git", "runs", "outputs", "__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".hypothesis")
SETTINGS = {"notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},  # every cell is in the page, also what is scrolled out of sight
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
WIDTH, HEIGHT = 1280, 2000
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 1}
PHONE_PART = 8000                # pixels of a phone's page in one picture
LESSON_SECONDS, WIDGET_SECONDS, CLIP_SECONDS = 900, 120, 6
PROGRESS = re.compile(r"\s*(.*: )?\d+%\|.*\| *\d+/\d+ \[.*\]\s*|\s*(.*: )?\d+it \[.*\]\s*")  # a bar of tqdm: no warning, although it is on stderr
IDLE = '.jp-Notebook-ExecutionIndicator[data-status="idle"]'
PICTURES = "images => images.map(image => ({source: image.src.slice(0, 60), shown: image.complete && image.naturalWidth > 0 && image.getBoundingClientRect().width > 0}))"

# MathJax shows an unknown command in red and a wrong formula as an error; what it did not take for a formula still has its dollars and commands.
UNSET = r"""texts => texts.flatMap(text => {
    const found = [...text.querySelectorAll("mjx-merror, mjx-mtext[style*='red']")].map(formula => formula.closest("mjx-container").textContent);
    const walker = document.createTreeWalker(text, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode;
        if (/[$]|\\[a-z]{2}/i.test(node.data) && !node.parentElement.closest("code, pre, mjx-container")) found.push(node.data.trim());
    }
    return found.map(formula => formula.slice(0, 200));
})"""


def chromium() -> str:
    """The path of the browser: what the environment variable CHROMIUM names, else the first of NAMES that is there. SystemExit with what to do when none is."""
    names = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else NAMES
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise SystemExit(f"error: found no browser (looked for: {', '.join(names)}). Install one (Debian: apt-get install chromium), or name it: "
                         "CHROMIUM=/path/to/chromium bash tests/run.sh --browser")
    return path


@contextmanager
def jupyter(folder: Path) -> Iterator[tuple[Path, str]]:
    """JupyterLab on a copy of the repository in `folder`, with settings of its own: (copy, address with %s for a notebook)."""
    copy = folder / "repository"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name, values in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
           "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LESSON_OUTPUTS", "MPLBACKEND")}
    environment |= {name: str(folder / place) for name, place in own.items()} | {"LESSON_BUDGET": "smoke", "OMP_NUM_THREADS": "1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address, token = f"http://127.0.0.1:{free.getsockname()[1]}", secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={address.rpartition(':')[2]}",
               "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={copy}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        await_server(server, address, folder / "log")
        yield copy, f"{address}/lab/tree/lessons/%s?token={token}&reset"
    finally:
        server.terminate()  # it ends its kernels
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def await_server(server: subprocess.Popen, address: str, log: Path, seconds: float = 90) -> None:
    """Return when JupyterLab answers; SystemExit with the end of its log when it does not."""
    end = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5)
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"error: JupyterLab did not start within {seconds:.0f} s:\n{log.read_text()[-2000:]}")


def offline(page: Page, address: str) -> None:
    """Refuse everything but the server and files: what is seen does not depend on the network."""
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith((address, "file:", "data:", "blob:")) else route.abort())


@contextmanager
def page_of(browser: Browser, address: str, stem: Path) -> Iterator[Page]:
    """A page for JupyterLab; when a wait is too long or a menu is not there, STEM_stopped.png shows where it was."""
    with browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}) as page:
        offline(page, address.partition("/lab/")[0])
        try:
            yield page
        except Error:
            page.screenshot(path=f"{stem}_stopped.png")
            raise


def choose(page: Page, *names: str) -> None:
    """Open a menu and choose an entry of it, by name."""
    for name in names:
        page.locator(".lm-Menu-itemLabel, .lm-MenuBar-itemLabel").get_by_text(name, exact=True).last.click()


def theme(page: Page, name: str) -> None:
    """JupyterLab in the "Light" or "Dark" theme. It keeps the choice, also for the lessons after this one."""
    choose(page, "Settings", "Theme", f"JupyterLab {name}")
    page.wait_for_selector(f"body[data-jp-theme-name='JupyterLab {name}']", state="attached")


def open_lesson(page: Page, address: str) -> Locator:
    """Open a notebook, wait for its kernel, clear the stored outputs and fold the file list away; the notebook."""
    page.goto(address)
    page.wait_for_selector(IDLE, timeout=90_000)
    theme(page, "Light")
    choose(page, "Edit", "Clear Outputs of All Cells")
    page.keyboard.press("Control+b")
    return page.locator(".jp-NotebookPanel .jp-Notebook")


def run_all(page: Page) -> None:
    """Run > Run All Cells, and wait until no cell is waiting or running."""
    choose(page, "Run", "Run All Cells")
    prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(prompt => prompt.textContent)"  # [ ]: then [*]: then [7]:
    page.wait_for_function(f"() => {prompts}.some(text => /\\d/.test(text)) && !{prompts}.some(text => /[*]/.test(text))",
                           timeout=1000 * LESSON_SECONDS, polling=500)
    page.wait_for_selector(IDLE)


def saved(page: Page, path: Path) -> nbformat.NotebookNode:
    """Save the notebook as the learner would; what is then in the file."""
    with page.expect_response(lambda response: response.request.method == "PUT" and path.name in response.url):
        choose(page, "File", "Save Notebook")
    return nbformat.read(path, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def figure_count(cell: nbformat.NotebookNode) -> int:
    """How many pictures a code cell of a notebook shows."""
    data = [output.get("data", {}) for output in cell.outputs]
    return sum("image/png" in bundle or "<img" in bundle.get("text/html", "") for bundle in data)


def run_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Cells that did not run, errors, and warnings: whatever is on stderr and is no progress bar."""
    problems = []
    for number, cell in enumerate(code_cells(notebook), 1):
        if cell.execution_count is None and cell.source.strip():
            problems.append(f"cell {number} did not run")
        problems += [f"cell {number}: {output.ename}: {output.evalue}" for output in cell.outputs if output.output_type == "error"]
        text = tidy("".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stderr"))
        strange = [line for line in text.splitlines() if line.strip() and not PROGRESS.fullmatch(line)]
        if strange:
            problems.append(f"cell {number} wrote to stderr: {' / '.join(strange)[:400]}")
    return problems


def page_problems(panel: Locator) -> list[str]:
    """Errors and warnings inside widgets, too, and formulas that could not be set."""
    problems = []
    for kind in ("error", "stderr"):
        for text in panel.locator(f'.jp-OutputArea .jp-OutputArea [data-mime-type="application/vnd.jupyter.{kind}"]').all_inner_texts():
            problems.append(f"{kind} inside a widget: {text[:400]}")
    return problems + [f"formula that could not be set: {text}" for text in panel.locator(".jp-MarkdownCell .jp-RenderedMarkdown").evaluate_all(UNSET)]


def picture_problems(panel: Locator, stored: list[int]) -> list[str]:
    """Pictures that do not show: in the text (but for badges from elsewhere) and in outputs; and cells with fewer than the stored notebook has."""
    problems = []
    text = panel.locator(".jp-MarkdownCell img:not([src*='badge'])").evaluate_all(PICTURES)
    problems += [f"picture in the text does not show: {picture['source']}" for picture in text if not picture["shown"]]
    for number, (cell, expected) in enumerate(zip(panel.locator(".jp-CodeCell").all(), stored), 1):
        pictures = cell.locator(".jp-Cell-outputArea img").evaluate_all(PICTURES)
        problems += [f"cell {number}: picture does not show: {picture['source']}" for picture in pictures if not picture["shown"]]
        if len(pictures) < expected:
            problems.append(f"cell {number} shows {len(pictures)} pictures; {expected} are stored")
    return problems


def clips(panel: Locator) -> list[Locator]:
    """The GIFs of the page, in text and outputs."""
    return panel.locator("img[src*='.gif'], img[src^='data:image/gif'], video").all()


def clip_problems(panel: Locator) -> list[str]:
    """Clips that stand still."""
    return [f"clip {number} of the page does not move" for number, clip in enumerate(clips(panel), 1) if not moves(clip)]


def moves(clip: Locator) -> bool:
    """Whether a clip looks different some time later."""
    clip.scroll_into_view_if_needed()
    first, end = clip.screenshot(), time.monotonic() + CLIP_SECONDS
    while time.monotonic() < end:
        time.sleep(0.3)
        if clip.screenshot() != first:
            return True
    return False


def drawn(cell: Locator) -> list[str]:
    """What a cell's output shows: the pictures."""
    return cell.locator(".jp-Cell-outputArea img").evaluate_all("images => images.map(image => image.src)")


def redraws(page: Page, cell: Locator, act: Callable[[], None]) -> bool:
    """Whether the pictures of a cell's output change after `act` (and a press of the widget's button, if it has one)."""
    before, end = drawn(cell), time.monotonic() + WIDGET_SECONDS
    act()
    if cell.locator("button.jupyter-button").count():
        cell.locator("button.jupyter-button").first.click()
    while time.monotonic() < end:
        page.wait_for_timeout(200)
        if drawn(cell) not in ([], before):
            page.wait_for_selector(IDLE)  # the next change starts from the finished drawing
            return True
    return False


def widget_problems(page: Page, panel: Locator, sources: list[str]) -> tuple[int, list[str]]:
    """Move every slider and menu of every widget by one; how many there are, and which change nothing."""
    count, problems = 0, []
    for number, (cell, source) in enumerate(zip(panel.locator(".jp-CodeCell").all(), sources), 1):
        sliders, menus = cell.locator(".widget-slider"), cell.locator(".widget-dropdown select")
        if re.search(r"widgets\.interact|show\.\w+_box\(", source) and not sliders.count() + menus.count():
            problems.append(f"cell {number} shows no slider or menu: {source[-80:]!r}")
        acts = [(slider, lambda slider=slider: slider.locator(".noUi-handle").press("ArrowRight")) for slider in sliders.all()]
        acts += [(menu, lambda menu=menu: menu.select_option(index=menu.evaluate("menu => (menu.selectedIndex + 1) % menu.length"))) for menu in menus.all()]
        for control, act in acts:
            count += 1
            if not redraws(page, cell, act):
                name = control.locator("xpath=ancestor-or-self::*[contains(@class, 'widget-inline-hbox')]").inner_text().split("\n")[0]
                problems.append(f"cell {number}: moving {name!r} does not redraw the output")
    return count, problems


def photograph(page: Page, stem: Path) -> None:
    """The notebook from top to bottom as STEM_1.png, STEM_2.png ..., and what surrounds its first figure in the dark theme as STEM_dark.png."""
    frame = page.locator(".jp-NotebookPanel .jp-WindowedPanel-outer")
    total, screen = frame.evaluate("frame => [frame.scrollHeight, frame.clientHeight]")
    for index, top in enumerate(range(0, max(1, total - 40), screen - 40), 1):  # pictures overlap by a line or two
        frame.evaluate("(frame, top) => frame.scrollTo(0, top)", top)
        page.wait_for_timeout(150)
        frame.screenshot(path=f"{stem}_{index}.png")
    theme(page, "Dark")
    page.locator(".jp-Cell-outputArea img").first.evaluate("image => image.scrollIntoView({block: 'center'})")
    page.wait_for_timeout(150)
    frame.screenshot(path=f"{stem}_dark.png")


def phone_problems(browser: Browser, path: Path, stem: Path) -> list[str]:
    """Photograph the executed notebook as a web page on a phone; the page must not be wider than the screen (a table may scroll within it)."""
    html = path.with_suffix(".html")  # beside the notebook, where its pictures are
    html.write_text(HTMLExporter(template_name="lab").from_filename(str(path))[0])
    with browser.new_page(**PHONE) as page:
        offline(page, "file:")
        page.goto(html.as_uri())
        width, height = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        screen = PHONE["viewport"]["width"]
        for index, top in enumerate(range(0, height, PHONE_PART), 1):
            part = {"x": 0, "y": top, "width": screen, "height": min(PHONE_PART, height - top)}
            page.screenshot(path=f"{stem}_phone_{index}.png", full_page=True, clip=part)
    return [f"on a phone the page is {width} pixels wide, the screen {screen}"] if width > screen else []


def check(browser: Browser, copy: Path, address: str, number: str, into: Path) -> tuple[str, list[str]]:
    """Run a lesson and look at it: one line of what there is, and the problems."""
    path = copy / "lessons" / find(number).with_suffix(".ipynb").name
    stem, start, scripts = into / path.stem[:2], time.monotonic(), []
    stored = [figure_count(cell) for cell in code_cells(nbformat.read(path, as_version=4))]
    with page_of(browser, address, stem) as page:
        page.on("pageerror", lambda error: scripts.append(f"JavaScript error: {str(error)[:300]}"))
        panel = open_lesson(page, address % path.name)
        run_all(page)
        ran = time.monotonic() - start
        notebook = saved(page, path)
        problems = run_problems(notebook) + picture_problems(panel, stored) + clip_problems(panel)
        widgets, unmoved = widget_problems(page, panel, [cell.source for cell in code_cells(notebook)])
        problems += unmoved + page_problems(panel)
        photograph(page, stem)
        pictures, moving = panel.locator(".jp-Cell-outputArea img").count(), len(clips(panel))
        choose(page, "Kernel", "Shut Down Kernel")  # its memory is wanted by the next lesson
    problems += phone_problems(browser, path, stem) + scripts
    return f"{path.stem}: {len(stored)} cells in {ran:.0f} s, {pictures} pictures, {moving} clips, {widgets} controls; all in {time.monotonic() - start:.0f} s", problems


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python tests/browser.py", description="Run lessons in JupyterLab in a headless browser and look at them.")
    parser.add_argument("lesson", nargs="*", default=["01", "04", "06"], help="numbers such as 06, or 'all' (default: 01 04 06)")
    parser.add_argument("--into", type=Path, default=ROOT / "outputs" / "browser", help="folder for the pictures (default: outputs/browser)")
    a = parser.parse_args()
    executable = chromium()
    chosen = [find(number).stem[:2] for number in ([path.stem for path in lessons()] if a.lesson == ["all"] else a.lesson)]
    a.into.mkdir(parents=True, exist_ok=True)
    failed = []
    with tempfile.TemporaryDirectory(prefix="browser-") as folder, jupyter(Path(folder)) as (copy, address), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        for number in chosen:
            for old in a.into.glob(f"{number}_*.png"):
                old.unlink()
            try:
                summary, problems = check(browser, copy, address, number, a.into)
            except Error as error:
                summary, problems = f"{number}: stopped, see {number}_stopped.png", [str(error)]
            print(summary, *[f"  problem: {problem}" for problem in problems], sep="\n", flush=True)
            if problems:
                failed.append(number)
        browser.close()
    print(f"pictures: {a.into}")
    if failed:
        raise SystemExit(f"error: problems in lesson {', '.join(failed)}, see above.")


if __name__ == "__main__":
    main()
