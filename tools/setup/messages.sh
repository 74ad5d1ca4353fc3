# The message package, built with colcon into the environment itself: its libraries then lie where ROS looks anyway,
# and nothing has to be sourced with the wheels. Sourced by tools/setup.sh.

build_messages() {
  local packages=(msg) log=.ros/messages.log
  say "message package"
  rm -rf .ros/build
  mkdir -p .ros
  if [[ $ros == wheels ]]; then
    packages+=(tools/wheels/tf2_msgs) # in no wheel; a distribution has its own
    export AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv LD_LIBRARY_PATH=$venv/lib
  fi
  PATH=$venv/bin:$PATH colcon --log-base .ros/log build --merge-install --base-paths "${packages[@]}" \
    --build-base .ros/build --install-base .venv --event-handlers console_direct+ \
    --cmake-args -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release -DPython3_EXECUTABLE="$venv/bin/python" >"$log" 2>&1 || {
    grep -m 5 -i -E 'error|not found' "$log" >&2 || true
    refuse "the message package did not build: the whole output is in $log"
  }
}
