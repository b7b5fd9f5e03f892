#!/usr/bin/env bash
# Installs a node's Python environment from the pins: node_setup.sh CONSTRAINTS
# Does nothing if the pins have not changed. The project itself is uploaded with each job.
set -euo pipefail
constraints=$1
venv=$HOME/googlenet-venv

install_venv() {  # Debian and Ubuntu package it separately; a fresh machine may still be updating itself
  sudo apt-get -o DPkg::Lock::Timeout=300 update
  sudo apt-get -o DPkg::Lock::Timeout=300 install --yes python3-venv
  "$python" -m venv "$venv"
}

python=$(for name in python3 python3.12 python3.11; do
  "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$name" && break
done) || { echo "Python 3.11 or newer is needed on every node" >&2; exit 1; }
if ! cmp --silent "$constraints" "$venv/installed.txt"; then
  "$python" -m venv "$venv" || install_venv
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$constraints"
  cp "$constraints" "$venv/installed.txt"
fi
# Put the environment first on PATH for Ray's commands and jobs, and enable token authentication.
for line in "export PATH=$venv/bin:\$PATH" "export RAY_AUTH_MODE=token"; do
  grep --quiet --fixed-strings --line-regexp "$line" "$HOME/.bashrc" 2>/dev/null || echo "$line" >>"$HOME/.bashrc"
done
