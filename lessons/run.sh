#!/usr/bin/env bash
# Run a lesson top to bottom; the executed notebook and its clips land in outputs/.
#
#   bash lessons/run.sh             text to video (lesson 06)
#   bash lessons/run.sh 01          another lesson;  `all` runs every one
#   bash lessons/run.sh --lab       open JupyterLab on the lessons instead
set -euo pipefail
cd "$(dirname "$0")/.."
source lessons/environment.sh
environment "$PWD/.venv" "${PYTHON:-python3 python3.13 python3.12 python3.11}" "" requirements.txt
if [ "${1:-}" = --lab ]; then
    echo "Opening JupyterLab on lessons/ (Ctrl-C ends it)..."
    exec jupyter lab --notebook-dir . --LabApp.default_url=/lab/tree/lessons "${@:2}"  # from the top, so that pictures beside lessons/ are found
fi
echo "Running lesson ${*:-06} with $(python --version), budget ${LESSON_BUDGET:-chosen by the device}..."
python -m utils.notebooks run "${@:-06}"
