#!/bin/sh
# Installs the library (static, then shared), moves the installed tree, and builds and runs the
# consumer against it through CMake's find_package and through pkg-config.
#
#   tests/consumer/run.sh          needs cmake, a C++ compiler and pkg-config
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cxx=${CXX:-c++}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Debian's libraries live in lib/<architecture>, one folder deeper than elsewhere.
multiarch=$("$cxx" -print-multiarch 2>/dev/null || true)

check() { # name, shared (ON or OFF), library folder
  tree=$work/$1
  echo "== $1, in $3"
  cmake -S "$root" -B "$tree/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$cxx" \
    -DTHREEDFA_PYTHON=OFF -DBUILD_SHARED_LIBS="$2" \
    -DCMAKE_INSTALL_PREFIX="$tree/prefix" -DCMAKE_INSTALL_LIBDIR="$3" >"$tree.log"
  cmake --build "$tree/build" --parallel 2 >>"$tree.log"
  cmake --install "$tree/build" >>"$tree.log"
  rm -rf "$tree/build"
  mv "$tree/prefix" "$tree/moved"

  for header in "$tree/moved/include/threedfa/"*.hpp; do
    echo "#include <threedfa/$(basename "$header")>" |
      "$cxx" -std=c++17 -I "$tree/moved/include" -Wall -Wextra -Werror -fsyntax-only -x c++ -
  done

  cmake -S "$here" -B "$tree/consumer" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$cxx" \
    -DCMAKE_PREFIX_PATH="$tree/moved" >>"$tree.log"
  cmake --build "$tree/consumer" >>"$tree.log"
  "$tree/consumer/consumer"

  PKG_CONFIG_PATH=$tree/moved/$3/pkgconfig
  export PKG_CONFIG_PATH
  # shellcheck disable=SC2046  # the flags are several words
  "$cxx" -std=c++17 "$here/main.cpp" -o "$tree/by_pkg_config" \
    $(pkg-config --cflags --libs "threedfa >= 0.1")
  LD_LIBRARY_PATH=$tree/moved/$3 DYLD_LIBRARY_PATH=$tree/moved/$3 "$tree/by_pkg_config"
}

mkdir -p "$work"
check static OFF lib
check shared ON "lib${multiarch:+/$multiarch}"
