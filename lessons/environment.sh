# Sourced by lessons/run.sh and tests/run.sh: makes a virtual environment and installs what is listed, once.
#
#   environment FOLDER PYTHON CONSTRAINTS_OR_EMPTY REQUIREMENTS...
#
# Leaves PATH set to the environment. A second call with the same files returns at once.
environment() {
    local folder=$1 python=$2 constraints=$3
    shift 3
    command -v "$python" >/dev/null || { echo "error: $python was not found. Install Python 3.11, 3.12 or 3.13 first." >&2; return 1; }
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
        { echo "error: $("$python" --version) is not supported. Use Python 3.11 to 3.13, for example: PYTHON=python3.12 bash $0" >&2; return 1; }
    local files=("$@") options=()
    [ -n "$constraints" ] && { files+=("$constraints"); options=(--constraint "$constraints"); }
    local stamp
    stamp=$(cat "${files[@]}" | cksum; "$python" --version)
    if [ ! -f "$folder/installed" ] || [ "$(cat "$folder/installed")" != "$stamp" ]; then
        echo "Installing into $folder (PyTorch is large: a few minutes, once)..."
        [ -x "$folder/bin/python" ] || "$python" -m venv "$folder" || { echo "error: could not make $folder. On Debian or Ubuntu: apt install python3-venv" >&2; return 1; }
        local file
        for file in "$@"; do options+=(--requirement "$file"); done
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${options[@]}" ||
            { echo "error: the installation failed; see above. With no network or a full disk it cannot work: mend that and run again." >&2; return 1; }
        printf '%s\n' "$stamp" > "$folder/installed"
    fi
    PATH="$folder/bin:$PATH"
    export PATH VIRTUAL_ENV="$folder"
}
