# The virtual environment and what goes into it. Sourced by tools/setup.sh.

# One line about an interpreter: "ok", or what it lacks.
python_verdict() {
  "$1" - 2>/dev/null <<'PY' || echo "cannot be run"
import importlib.util, os, sys, sysconfig
version = sys.version_info[:2]
if not (3, 10) <= version <= (3, 13):
    print("is Python %d.%d, and 3.10 to 3.13 are supported" % version)
elif not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
    print("has no 'venv' module (Debian, Ubuntu: apt install python3-venv)")
elif not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print("has no headers (Debian, Ubuntu: apt install python3-dev)")
else:
    print("ok")
PY
}

find_python() {
  local candidates=(python3 python3.12 python3.11 python3.13 python3.10) candidate verdict first=""
  [[ $ros == wheels ]] || candidates=(python3) # a distribution's libraries fit its own interpreter alone
  [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    have "$candidate" || continue
    verdict=$(python_verdict "$candidate")
    [[ $verdict == ok ]] && { python=$candidate && return; }
    first=${first:-"$candidate $verdict"}
  done
  refuse "${first:-no Python found (${candidates[*]})}: install one, or name another with PYTHON=/path/to/python3.12"
}

# Made to the end, here, for this ROS and this PYTHON? An environment without the mark is taken over when it works.
environment_stands() {
  local here="$root $ros ${PYTHON:-}"
  if [[ -e $stamps/environment ]]; then
    [[ $(cat "$stamps/environment") == "$here" ]] && [[ -x $venv/bin/python ]]
  elif [[ $ros == wheels && -z ${PYTHON:-} && $(python_verdict "$venv/bin/python") == ok ]] && grep -qs "^#!$venv/" "$venv/bin/pip"; then
    mkdir -p "$stamps" && echo "$here" >"$stamps/environment"
  else
    return 1
  fi
}

make_environment() {
  find_python
  say "virtual environment with $("$python" --version) in .venv"
  rm -rf "$venv"
  if [[ $ros == wheels ]]; then
    "$python" -m venv "$venv"
  else
    "$python" -m venv --system-site-packages "$venv"
  fi
  mkdir -p "$stamps"
  echo "$root $ros ${PYTHON:-}" >"$stamps/environment"
}

install_packages() {
  local requirements=(--requirement requirements/torch.txt)
  [[ $ros != wheels ]] || requirements+=(--requirement requirements/ros_wheels.txt)
  say "torch, ROS 2 (${ros}) and the rest: some minutes the first time"
  have nvidia-smi || say "no NVIDIA card found: PIP_EXTRA_INDEX_URL may name PyTorch's CPU index for a smaller torch"
  # setuptools before the rest: our own package is built with it, without a second environment for the purpose.
  { pip_install 'setuptools>=64' && pip_install --no-build-isolation "${requirements[@]}" --editable '.[test,dev,evaluation]'; } ||
    refuse "pip could not install everything (its words are above): check the network or the disk and run this again, it goes on from there"
  [[ $ros != wheels ]] || "$venv/bin/python" tools/wheels/mend_cmake.py
}

pip_install() { "$venv/bin/python" -m pip --disable-pip-version-check -qq install --constraint "$(constraints)" "$@"; }

# Our pinned versions for the wheels. A distribution's own libraries go first: what was built for NumPy 1 breaks under NumPy 2.
constraints() {
  if [[ $ros == wheels ]]; then
    echo requirements/constraints.txt
  else
    "$venv/bin/python" -c 'import numpy; print("numpy<2" if numpy.__version__ < "2" else "")' >"$stamps/constraints.txt" 2>/dev/null || true
    echo "$stamps/constraints.txt"
  fi
}

# Meshes and outlier removal, offline only. Not every machine can have it, and everything else works without it.
install_open3d() {
  say "Open3D, for meshes"
  if ! pip_install --only-binary open3d open3d 2>"$stamps/open3d.log"; then
    say "Open3D has no wheel for this machine: meshes are left out, all else works ($stamps/open3d.log)"
  elif ! "$venv/bin/python" -c 'import open3d' >"$stamps/open3d.log" 2>&1; then
    say "Open3D does not load: meshes are left out until that is mended, all else works ($(tail -n 1 "$stamps/open3d.log"); Debian, Ubuntu: apt install libusb-1.0-0 libgl1 libgomp1)"
  fi
}
