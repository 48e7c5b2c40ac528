# Sourced by lessons/run.sh and tests/run.sh: makes a virtual environment and installs what is listed, once.
#
#   environment FOLDER "PYTHONS" CONSTRAINTS_OR_EMPTY REQUIREMENTS...
#
# PYTHONS are tried in order. Leaves PATH set to the environment. A second call with the same files returns at once.

find_python() {  # print the path of the first Python 3.11 to 3.13 among the names given, looking into pyenv's versions too
    local name path
    for name in "$@"; do
        for path in "$name" "$(command -v pyenv >/dev/null && pyenv root)"/versions/*/bin/"$name"; do
            if "$path" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
                "$path" -c 'import sys; print(sys.executable)'
                return
            fi
        done
    done
    echo "error: found no Python 3.11, 3.12 or 3.13 with its venv module (looked for: $*). Install one (Debian or Ubuntu:" \
         "apt install python3-venv), or name it: PYTHON=/path/to/python bash ..." >&2
    return 1
}

environment() {
    local folder=$1 pythons=$2 constraints=$3
    shift 3
    local files=("$@") options=() file stamp python
    if [ -n "$constraints" ]; then
        files+=("$constraints")
        options=(--constraint "$constraints")
    fi
    stamp="$folder/installed-$(cat "${files[@]}" | cksum | tr ' ' '-')"
    if [ ! -f "$stamp" ]; then
        # shellcheck disable=SC2086  # a list of names
        python=$(find_python $pythons) || return 1
        echo "Installing into $(basename "$folder") with $("$python" --version) (PyTorch is large: a few minutes, once)..."
        if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then  # also one whose making was interrupted
            "$python" -m venv "$folder"
        fi
        for file in "$@"; do options+=(--requirement "$file"); done
        if ! "$folder/bin/python" -m pip install -qq --disable-pip-version-check "${options[@]}"; then
            echo "error: the installation failed, see above. It needs a network and about 8 GB of disk; mend that and run again." >&2
            return 1
        fi
        touch "$stamp"
    fi
    PATH="$folder/bin:$PATH"
    export PATH VIRTUAL_ENV="$folder"
}
