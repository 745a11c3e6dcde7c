#!/bin/bash
# A benchmark of many peers with Linux's ipip driver. It prints the time and the memory of three
# setups: `ip -batch` with one interface per peer, `ip -batch` with one shared interface, and Adit's
# kernel data plane. It runs in the guest, which has the driver:
#
#     cargo build --release -p adit
#     cargo xtask vm run --timeout 1800 -- \
#         bash tools/adit-bench/guest/kernel_peers.sh target/release/adit 1000 10000
#
# Memory is the growth of MemTotal - MemAvailable. The daemon's memory is its RssAnon.
set -eu
# SETUPS=shared leaves out the interfaces per peer, which take minutes for 10,000 peers. Pass it
# with `vm run --keep SETUPS`.
adit=$(realpath "$1")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
modprobe ipip

used() { awk '/^MemTotal/ {t=$2} /^MemAvailable/ {a=$2} END {print t-a}' /proc/meminfo; }
now() { date +%s%N; }
# Makes a namespace with an underlay interface and a private one.
build() {
  ip netns add testbed
  ip -n testbed link set lo up
  ip -n testbed link add name under type dummy
  ip -n testbed addr add 10.0.0.1/8 dev under
  ip -n testbed link set under up
  ip -n testbed link add name inside type dummy
  ip -n testbed addr add 172.16.17.1/24 dev inside
  ip -n testbed link set inside up
}
remove() { ip netns del testbed; sleep 2; }
underlay() { echo "10.1.$(($1 / 250)).$(($1 % 250 + 1))"; }
network() { echo "172.$((20 + $1 / 4096)).$(($1 / 16 % 256)).$(($1 % 16 * 16))/28"; }
for count in "$@"; do
  : >"$work/own"
  : >"$work/shared"
  echo "link add name shared type ipip local 10.0.0.1" >>"$work/shared"
  echo "link set shared up" >>"$work/shared"
  {
    printf '[site]\nname = "a"\nunderlay = "10.0.0.1"\nnetworks = ["172.16.17.0/24"]\ndevice = "ipipA"\n'
    printf 'dataplane = "kernel"\n'
  } >"$work/a.toml"
  for n in $(seq 0 $((count - 1))); do
    peer=$(underlay "$n") net=$(network "$n")
    {
      echo "link add name i$n type ipip local 10.0.0.1 remote $peer"
      echo "link set i$n up"
      echo "route add $net dev i$n"
    } >>"$work/own"
    echo "route add $net via $peer dev shared onlink" >>"$work/shared"
    printf '[[peer]]\nname = "p%s"\nunderlay = "%s"\nnetworks = ["%s"]\n' "$n" "$peer" "$net" >>"$work/a.toml"
  done
  for setup in ${SETUPS:-own shared}; do
    build
    before=$(used) start=$(now)
    ip -n testbed -batch "$work/$setup"
    echo "$count peers, ip -batch, $setup: $((($(now) - start) / 1000000)) ms, $(($(used) - before)) KiB"
    start=$(now)
    remove
    echo "$count peers, $setup, namespace removed: $((($(now) - start) / 1000000 - 2000)) ms"
  done
  build
  before=$(used) start=$(now)
  ip netns exec testbed "$adit" up "$work/a.toml" >"$work/output" 2>&1 || cat "$work/output"
  took=$((($(now) - start) / 1000000)) after=$(used)
  daemon=$(cut -d' ' -f1 /run/adit/a.lock)
  own=$(awk '/^RssAnon/ {print $2}' "/proc/$daemon/status")
  echo "$count peers, adit up, kernel: $took ms, $((after - before)) KiB, of which the daemon has $own KiB"
  sed 's/"p0"/"first"/' "$work/a.toml" >"$work/b.toml"
  start=$(now)
  ip netns exec testbed "$adit" apply "$work/b.toml" >/dev/null
  echo "$count peers, adit apply of one changed peer: $((($(now) - start) / 1000000)) ms"
  ip netns exec testbed "$adit" down a >/dev/null
  remove
done
