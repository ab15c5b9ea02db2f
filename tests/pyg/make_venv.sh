#!/usr/bin/env bash
# Usage: make_venv.sh BASE TARGET. Makes the environment TARGET, which sees all that BASE holds and has
# torch-scatter and torch-cluster besides. Those are compiled, for CPUs, once for each torch and Python;
# their wheels stay in the user's cache. Where they cannot be built, one line says so, TARGET does
# without them, and the tests that compare with them are skipped.
set -euo pipefail
base=$1 target=$2
key=$("$base/bin/python" -c 'import sys, torch; print(f"torch{torch.__version__}-{sys.implementation.cache_tag}")')
wheels=${XDG_CACHE_HOME:-$HOME/.cache}/aurel/wheels/$key

"$base/bin/python" -m venv "$target"
site() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
echo "import site; site.addsitedir('$(site "$base")')" > "$(site "$target")/base.pth"
pip() { "$target/bin/python" -m pip "$@"; }

build() {
  compgen -G "$wheels/${1//-/_}-*.whl" > /dev/null && return
  # -g0: no debug information, which Python's own flags ask for.
  CFLAGS=-g0 FORCE_ONLY_CPU=1 pip wheel -q --no-build-isolation --no-deps -w "$wheels" "$1"
}
build_both() {
  build torch-scatter & local scatter=$! failed=0
  build torch-cluster || failed=1
  wait "$scatter" && [ "$failed" = 0 ]
}
extensions() {
  mkdir -p "$wheels" &&
  pip install -q setuptools wheel scipy &&  # scipy: torch-cluster imports it
  build_both &&
  pip install -q --no-deps "$wheels"/torch_scatter-*.whl "$wheels"/torch_cluster-*.whl &&
  "$target/bin/python" -c 'import torch_cluster, torch_scatter'
}
if extensions > "$target/build.log" 2>&1; then
  touch "$target/.installed"
else
  pip uninstall -q -y torch-scatter torch-cluster >> "$target/build.log" 2>&1 || true
  echo "torch-scatter and torch-cluster cannot be built here ($target/build.log): tests run without them"
fi
