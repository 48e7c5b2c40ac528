#!/usr/bin/env bash
# Every test: unit tests, then every lesson executed by nbval at the smoke budget, then (newest packages alone) every lesson on a pretended GPU.
#
#   bash tests/run.sh            in .venv, with the newest packages
#   bash tests/run.sh --colab    in .venv-colab, with Google Colab's versions on Python 3.13
#   bash tests/run.sh --browser  lessons 01 04 06 (or those named, or `all`) in JupyterLab in a headless Chromium; pictures in outputs/browser
set -euo pipefail
cd "$(dirname "$0")/.."
source lessons/environment.sh
if [ "${1:-}" = --colab ]; then
    environment "$PWD/.venv-colab" "${PYTHON:-python3.13}" tests/colab-constraints.txt requirements.txt tests/requirements.txt
elif [ $# -eq 0 ] || [ "$1" = --browser ]; then
    environment "$PWD/.venv" "${PYTHON:-python3 python3.13 python3.12 python3.11}" "" requirements.txt tests/requirements.txt
else
    echo "usage: bash tests/run.sh [--colab | --browser [LESSONS]]" >&2
    exit 2
fi
export OMP_NUM_THREADS=1
if [ "${1:-}" = --browser ]; then
    shift
    echo "Lessons in the browser (JupyterLab $(jupyter lab --version), budget smoke)..."
    exec python tests/browser.py "$@"
fi
echo "Unit tests ($(python --version), torch $(python -c 'import torch; print(torch.__version__)'))..."
python -m pytest tests -n 2 --dist loadfile --quiet
echo "Lessons (nbval, budget smoke)..."
longest_first() { printf '%s\n' "$@" | sort -r; }  # roughly: later lessons take longer, and one that starts last leaves the other core idle
# shellcheck disable=SC2046  # a list of names without spaces
LESSON_BUDGET=smoke python -m pytest -p no:python --nbval-lax --nbval-current-env --nbval-cell-timeout=120 $(longest_first lessons/*.ipynb) -n 2 --dist loadfile --quiet
if [ $# -eq 0 ]; then
    echo "Lessons on a pretended GPU..."
    longest_first lessons/*.py | TQDM_DISABLE=1 xargs -n 1 -P 2 python tests/pretend_gpu.py >/dev/null
fi
