# What this machine must have. Each refusal is one line that says what to do. Sourced by tools/setup.sh.

offline_hint="'python3 -m pip install .' gives the offline commands without ROS"
needed_gb=6

check_machine() {
  [[ -z ${machine_checked:-} ]] || return 0
  local system machine
  system=$(uname -s) machine=$(uname -m)
  [[ $system == Linux ]] || refuse "this is $system, and the node needs Linux: $offline_hint"
  if [[ $ros == wheels && $machine != x86_64 ]]; then
    refuse "there are no ROS 2 wheels for $machine: install ROS 2, 'source /opt/ros/DISTRO/setup.bash' and run this again; $offline_hint"
  fi
  have make || refuse "'make' is missing: install it (Debian, Ubuntu: apt install make)"
  { have "${CC:-cc}" && have "${CXX:-c++}"; } ||
    refuse "no C and C++ compiler, which the messages need: install one (Debian, Ubuntu: apt install build-essential); $offline_hint"
  [[ $ros == wheels ]] || have colcon || refuse "ROS 2 $ros is sourced and 'colcon' is missing: apt install python3-colcon-common-extensions"
  check_disk
  machine_checked=1
}

have() { command -v "$1" >/dev/null 2>&1; }

check_disk() {
  [[ -e $stamps/packages ]] && return # the big ones are in
  local free_kb
  free_kb=$(df -Pk "$root" | awk 'NR == 2 {print $4}')
  ((free_kb >= needed_gb * 1000 * 1000)) ||
    refuse "$((free_kb / 1000 / 1000)) GB are free in $root and $needed_gb are needed: make room, or clone to a larger disk"
}
