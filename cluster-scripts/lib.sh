# shellcheck shell=bash
# Shared by the scripts of this folder: where the repository and its build lie, and how a step is
# timed. Sourced, never run.

repo=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)

# Compiling RocksDB takes many minutes on a small machine. Its result lies outside the clone, so
# that a second clone, or `git clean`, does not compile it again.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${HOME:-/tmp}/.cache/quorate/target}
[[ $CARGO_TARGET_DIR == /* ]] || CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR
export CARGO_TARGET_DIR

# These would replace the flags of .cargo/config.toml, and other flags compile RocksDB again.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET

# A Rust toolchain that rustup has installed but this shell has not yet heard of.
if ! command -v cargo >/dev/null 2>&1 && [[ -x ${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo ]]; then
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
fi

# Every build of the workspace selects the same packages and targets: another selection unifies
# features differently and compiles dependencies a second time.
# shellcheck disable=SC2034 # used by the scripts that source this file
cargo_selection=(--release --locked --workspace --all-targets)

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

usage_error() {
    printf '%s: %s (see %s --help)\n' "${0##*/}" "$*" "${0##*/}" >&2
    exit 2
}

# Prints the comment block at the top of the running script, which is its help.
print_help() {
    sed -n '2,/^[^#]/{ /^#/s/^# \{0,1\}//p; }' "$0"
}

# Milliseconds since the epoch, without starting a process.
now_ms() {
    local us=${EPOCHREALTIME/[.,]/}
    printf '%s' "${us%???}"
}

# step NAME COMMAND…: runs the command, prints how long it took, and ends the script if it fails.
step() {
    local name=$1 started status=0
    shift
    printf '\n==> %s\n' "$name"
    started=$(now_ms)
    "$@" || status=$?
    local ms=$(($(now_ms) - started))
    printf '%s: %d.%03d s' "$name" $((ms / 1000)) $((ms % 1000))
    step_report+=$(printf '%9d.%03d s  %s' $((ms / 1000)) $((ms % 1000)) "$name")$'\n'
    if ((status != 0)); then
        printf ': FAILED (exit code %d)\n' "$status"
        exit "$status"
    fi
    printf '\n'
}
step_report=

build_workspace() {
    command -v cargo >/dev/null 2>&1 || die "no Rust toolchain: install it from https://rustup.rs"
    (cd -- "$repo" && cargo build "${cargo_selection[@]}") ||
        die "the build failed; if a C++ compiler or libclang is missing, cluster-scripts/install-deps installs them"
}

# Another set of features, so it is built apart; see docs/TESTING.md, "Planted bugs".
find_planted_bugs() {
    cargo nextest run --cargo-profile release --locked --workspace --features quorate-simulate/testing --test planted \
        --success-output final
}
