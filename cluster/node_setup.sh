#!/usr/bin/env bash
# Installs a node's Python environment from the pins: node_setup.sh CONSTRAINTS [FOLDER]
# Does nothing if the pins have not changed. The project itself is uploaded with each job. Temporary files, of which the
# copies of shards are most, go to FOLDER, by default on a disk of the machine's own (NVMe) where there is one.
set -euo pipefail
constraints=${1:?is missing: node_setup.sh CONSTRAINTS [FOLDER]}
folder=${2:-}
venv=$HOME/googlenet-venv
command -v sudo >/dev/null || sudo() { "$@"; }  # root's own machine may lack it

install_venv() {  # Debian and Ubuntu package it separately; a fresh machine may still be updating itself
  for try in {1..60}; do  # apt-get waits for the locks of dpkg by itself, but not for that of its lists
    sudo apt-get update && break
    [ "$try" -lt 60 ] || return 1
    sleep 5
  done
  sudo apt-get -o DPkg::Lock::Timeout=300 install --yes python3-venv
  "$python" -m venv "$venv"
}

python=$(for name in python3 python3.13 python3.12 python3.11; do
  "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$name" && break
done) || { echo "Python 3.11 or newer is needed on every node" >&2; exit 1; }
if ! cmp --silent "$constraints" "$venv/installed.txt"; then
  echo "installing the packages of $constraints in $venv ..."
  "$python" -m venv "$venv" || install_venv
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$constraints"
  cp "$constraints" "$venv/installed.txt"
fi

blank_disk() {  # of those that EC2 and Compute Engine attach to one machine and erase with it
  for disk in /dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_* /dev/disk/by-id/google-local-nvme-ssd-*; do
    [ -b "$disk" ] || continue
    code=0
    sudo blkid --probe "$disk" >/dev/null || code=$?
    [ "$code" = 2 ] && echo "$disk" && return  # 2: it contains nothing
  done
  return 1
}

local_disk() {  # where AWS's images mount theirs, where this script does, and where Azure does
  for place in /opt/dlami/nvme /mnt/local-nvme; do
    mountpoint --quiet "$place" && echo "$place" && return
  done
  [ -e /mnt/DATALOSS_WARNING_README.txt ] && mountpoint --quiet /mnt && echo /mnt && return
  disk=$(blank_disk) && sudo mkfs.ext4 -q "$disk" && sudo mkdir -p /mnt/local-nvme &&
    sudo mount "$disk" /mnt/local-nvme && echo /mnt/local-nvme
}

if [ -z "$folder" ] && disk=$(local_disk); then
  folder=$disk/tmp
  sudo install --directory --owner="$(id -u)" --mode=700 "$folder"
fi
# Put the environment first on PATH for Ray's commands and jobs, and enable token authentication.
lines=("export PATH=$venv/bin:\$PATH" "export RAY_AUTH_MODE=token")
[ -z "$folder" ] || lines+=("export TMPDIR=$folder")
for line in "${lines[@]}"; do
  grep --quiet --fixed-strings --line-regexp "$line" "$HOME/.bashrc" 2>/dev/null || echo "$line" >>"$HOME/.bashrc"
done
