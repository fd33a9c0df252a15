#!/bin/sh
# Looks for the few things that pip cannot bring, and installs them where that needs no password.
#   python3-venv              make the virtual environment
#   libgl1, libglib2.0-0      opencv-python's window code is linked against them
#   g++                       compiles the fast CPU kernels at first use
set -eu
python=${1:-python3}

has_library() { { ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } | grep -q "$1"; }

missing=
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
has_library 'libGL\.so\.1' || missing="$missing libgl1"
has_library 'libgthread-2\.0\.so\.0' || missing="$missing libglib2.0-0"
command -v c++ >/dev/null || missing="$missing g++"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then as_root=
elif sudo -n true 2>/dev/null; then as_root=sudo
else
    echo "missing:$missing -- run: sudo apt-get install$missing" >&2
    exit 2
fi
$as_root apt-get update -qq
# shellcheck disable=SC2086  # a list of names
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
