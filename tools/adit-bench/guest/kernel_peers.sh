#!/bin/bash
# Many peers by Linux's own ipip driver: time and memory of `ip -batch` with an interface a peer, of one shared
# interface, and of Adit's kernel data plane. In the guest, which has the driver:
#
#     cargo build --release -p adit
#     cargo xtask vm run --timeout 1800 -- bash crates/adit-bench/guest/kernel_peers.sh target/release/adit 1000 10000
#
# Memory is the growth of MemTotal - MemAvailable; the daemon's own is its RssAnon.
set -eu
# WAYS=shared leaves out the interface a peer, which takes minutes for 10,000 (`vm run --keep WAYS`).
adit=$(realpath "$1")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
modprobe ipip

used() { awk '/^MemTotal/ {t=$2} /^MemAvailable/ {a=$2} END {print t-a}' /proc/meminfo; }
now() { date +%s%N; }
# An underlay and an inside, in a namespace of their own.
bed() {
  ip netns add bed
  ip -n bed link set lo up
  ip -n bed link add name under type dummy
  ip -n bed addr add 10.0.0.1/8 dev under
  ip -n bed link set under up
  ip -n bed link add name inside type dummy
  ip -n bed addr add 172.16.17.1/24 dev inside
  ip -n bed link set inside up
}
gone() { ip netns del bed; sleep 2; }
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
  for way in ${WAYS:-own shared}; do
    bed
    before=$(used) start=$(now)
    ip -n bed -batch "$work/$way"
    echo "$count peers, ip -batch, $way: $((($(now) - start) / 1000000)) ms, $(($(used) - before)) KiB"
    start=$(now)
    gone
    echo "$count peers, $way, namespace removed: $((($(now) - start) / 1000000 - 2000)) ms"
  done
  bed
  before=$(used) start=$(now)
  ip netns exec bed "$adit" up "$work/a.toml" >"$work/said" 2>&1 || cat "$work/said"
  took=$((($(now) - start) / 1000000)) after=$(used)
  daemon=$(cut -d' ' -f1 /run/adit/a.lock)
  own=$(awk '/^RssAnon/ {print $2}' "/proc/$daemon/status")
  echo "$count peers, adit up, kernel: $took ms, $((after - before)) KiB, of that $own KiB of the daemon"
  sed 's/"p0"/"first"/' "$work/a.toml" >"$work/b.toml"
  start=$(now)
  ip netns exec bed "$adit" apply "$work/b.toml" >/dev/null
  echo "$count peers, adit apply of one changed peer: $((($(now) - start) / 1000000)) ms"
  ip netns exec bed "$adit" down a >/dev/null
  gone
done
