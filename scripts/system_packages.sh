# Sourced by scripts/install.sh and tests/run.sh:   need compiler python [cmake ninja doctest ccache git]
# What this machine lacks of these is printed and, as root on Debian or Ubuntu, installed; for anybody else the command that
# installs it is printed, and the script ends. CXX and PYTHON name others than c++ and python3.

has() {
  case "$1" in
    compiler) echo '#if !defined(__clang__) && __GNUC__ < 12
#error too old
#endif' | "${CXX:-c++}" -E -x c++ - > /dev/null 2>&1 ;;
    python) "${PYTHON:-python3}" - > /dev/null 2>&1 << 'END' ;;
import ensurepip, pathlib, sys, sysconfig, venv
assert sys.version_info >= (3, 10) and pathlib.Path(sysconfig.get_path("include"), "Python.h").exists()
END
    doctest) echo '#include <doctest/doctest.h>' | "${CXX:-c++}" -E -x c++ - > /dev/null 2>&1 ;;
    *) command -v "$1" > /dev/null ;;
  esac
}

packages_of() {  # Debian's names
  case "$1" in
    compiler) echo g++ ;;
    python) echo python3-venv python3-dev ;;
    ninja) echo ninja-build ;;
    doctest) echo doctest-dev ;;
    *) echo "$1" ;;
  esac
}

need() {
  local thing packages=() install
  for thing; do
    has "$thing" || packages+=($(packages_of "$thing"))
  done
  [ ${#packages[@]} -gt 0 ] || return 0
  install="apt-get install -y --no-install-recommends ${packages[*]}"
  if ! command -v apt-get > /dev/null; then
    echo "Missing here, by Debian's names: ${packages[*]}. Install them by your system's means, then run this again." >&2
    exit 1
  elif [ "$(id -u)" != 0 ]; then
    echo "Missing here: ${packages[*]}. Install them, then run this again:" >&2
    echo "  sudo apt-get update && sudo $install" >&2
    exit 1
  fi
  echo "Missing here, now installed: apt-get update && $install"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && $install -qq > /dev/null
  for thing; do
    has "$thing" || {
      echo "Still no ${thing} that will do. Needed: GCC 12 or newer (or Clang; name it in CXX and CC), Python 3.10 or newer (PYTHON)." >&2
      exit 1
    }
  done
}
