# Helpers for the scripts in this folder. Sourced by bash, not run.

set -euo pipefail
ME=${ME:-$(basename "$0")}
. "$(dirname "${BASH_SOURCE[0]}")/env"

say() { printf '%s: %s\n' "$ME" "$*" >&2; }
# die MESSAGE [WHAT TO DO]
die() {
  say "$1"
  [ $# -lt 2 ] || printf '%*s  %s\n' ${#ME} '' "$2" >&2
  exit 1
}

# seconds since START, as `1 min 05 s`
took() {
  local s=$((SECONDS - $1))
  if [ $s -ge 60 ]; then printf '%d min %02d s' $((s / 60)) $((s % 60)); else printf '%d s' $s; fi
}

# wait_for SECONDS COMMAND... : until COMMAND succeeds; false when the time is over.
wait_for() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}

# as_root COMMAND... : as it is for root, with sudo for others.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# need WHAT... : makes sure that Debian packages are there. WHAT is
#   COMMAND:PACKAGE   fine if the command is on the PATH, wherever it came from
#   PACKAGE           fine if dpkg has it
# Asks nobody and fetches nothing when all is there.
need() {
  local what missing=()
  for what; do
    case $what in
      *:*) command -v "${what%%:*}" >/dev/null 2>&1 || missing+=("${what#*:}") ;;
      *) dpkg-query -W -f='${Status}' "$what" 2>/dev/null | grep -q 'ok installed' || missing+=("$what") ;;
    esac
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null 2>&1 ||
    die "these are missing: ${missing[*]}" "They are names of Debian packages; install what your system calls them, then run this again."
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null 2>&1; then
    die "these Debian packages are missing: ${missing[*]}" "As root: apt-get update && apt-get install ${missing[*]}    then run this again."
  fi
  say "installing ${missing[*]}"
  local log; log=$(mktemp "${TMPDIR:-/tmp}/feitian-apt.XXXXXX")
  if ! { as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
    tail -n 15 "$log" >&2; rm -f "$log"
    die "could not install ${missing[*]}" "See the lines above; when apt-get install ${missing[*]} works, run this again."
  fi
  rm -f "$log"
}

# What a build needs. A C++ compiler and headers for RocksDB and lz4, libclang for bindgen.
need_build() {
  command -v cargo >/dev/null 2>&1 || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH=$HOME/.cargo/bin:$PATH
  command -v cargo >/dev/null 2>&1 ||
    die "cargo is missing" "Install Rust with rustup (https://rustup.rs, or your system's rustup package); rust-toolchain.toml names the version."
  if command -v clang++ >/dev/null 2>&1; then need libc6-dev libclang-dev git:git
  else need g++:g++ libc6-dev libclang-dev git:git; fi
}

# bound_target GIB : empties the shared target directory once it is larger than that. Cargo never removes what older
# commits left there, and a full disk makes the tests fail in ways that look like the program's faults.
bound_target() {
  [ -d "$CARGO_TARGET_DIR" ] || return 0
  # Files come and go in it while another build runs: what du complains of is no failure.
  local used; used=$({ du -sk "$CARGO_TARGET_DIR" 2>/dev/null || true; } | cut -f1)
  if [ "${used:-0}" -gt $(($1 << 20)) ]; then
    say "the build directory holds $((used >> 20)) GiB, more than $1: it is emptied ($CARGO_TARGET_DIR)"
    rm -rf "$CARGO_TARGET_DIR"
  fi
}

# need_space GIB DIRECTORY VARIABLE : that much must be free there; VARIABLE is what names another place.
need_space() {
  local free; mkdir -p "$2"; free=$(df -Pk "$2" | awk 'NR == 2 {print $4}')
  [ "$free" -ge $(($1 << 20)) ] || die "$2 has $((free >> 20)) GiB free, $1 are needed" "Make room there, or name another place with $3."
}

# build_bins : the release binaries, with a line of progress; $BIN is where they are.
BIN=${FEITIAN_BIN_DIR:-$CARGO_TARGET_DIR/release}
build_bins() {
  [ -z "${FEITIAN_BIN_DIR:-}" ] || return 0
  cargo_counted "building the programs" build --release --workspace --bins
}

# cargo_counted WHAT ARGUMENT... : cargo with its own bar on a terminal, else with a line every 25 crates.
cargo_counted() {
  local what=$1 start=$SECONDS log rc=0; shift
  if [ -t 2 ]; then
    say "$what"
    (cd "$FEITIAN_ROOT" && cargo "$@") || rc=$?
  else
    log=$(mktemp "${TMPDIR:-/tmp}/feitian-cargo.XXXXXX")
    local of; of=$(grep -c '^name = ' "$FEITIAN_ROOT/Cargo.lock")
    (cd "$FEITIAN_ROOT" && cargo "$@") 2>&1 </dev/null | tee "$log" |
      awk -v me="$ME" -v what="$what" -v of="$of" '
        /^ *(Compiling|Checking) / { if (++n % 25 == 0) { printf "%s: %s: %d of at most %d crates\n", me, what, n, of; fflush() } }' >&2 || rc=$?
    [ $rc = 0 ] || grep -vE '^ *(Compiling|Checking|Downloaded|Downloading|Blocking|Updating) ' "$log" | tail -n 60 >&2
    rm -f "$log"
  fi
  [ $rc = 0 ] || die "$what failed" "The compiler's words are above."
  say "$what: done in $(took $start)"
}

# mounted DIR : something is mounted there and answers.  stale DIR : mounted, but its process is gone.
mounted() { mountpoint -q "$1" 2>/dev/null; }
stale() { grep -qF " $1 fuse" /proc/self/mounts && ! timeout 10 stat "$1" >/dev/null 2>&1; }

# unmount DIR : politely for five seconds, then lazily.
unmount() {
  local i
  for i in $(seq 25); do
    grep -qF " $1 fuse" /proc/self/mounts || return 0
    if [ "$(id -u)" = 0 ]; then umount "$1" 2>/dev/null && return 0
    else fusermount3 -u "$1" 2>/dev/null && return 0; fi
    sleep 0.2
  done
  say "$1 is busy; detaching it: it goes when the last file on it is closed"
  if [ "$(id -u)" = 0 ]; then umount -l "$1"; else fusermount3 -u -z "$1"; fi
}

# alive PID : it runs (a zombie does not).
alive() { [ -n "${1:-}" ] && [ -r "/proc/$1/stat" ] && [ "$(sed 's/.*) \(.\).*/\1/' "/proc/$1/stat" 2>/dev/null)" != Z ]; }
gone() { ! alive "$1"; }
# stop_pid PID : TERM, then KILL after ten seconds.
stop_pid() {
  alive "${1:-}" || return 0
  kill "$1" 2>/dev/null || return 0
  wait_for 10 gone "$1" || { say "process $1 did not stop in 10 s: killing it"; kill -9 "$1" 2>/dev/null || true; wait_for 5 gone "$1" || true; }
}
