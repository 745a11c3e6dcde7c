#!/usr/bin/env python3
"""A benchmark of many peers: the cost of a plan, a start, a single change and a repair, and the memory.

It runs as root:

    cargo build --release -p adit
    python3 tools/adit-bench/scripts/many_peers.py target/release/adit [PEERS] [ebpf|userspace]

Each peer has ten networks. The benchmark runs in its own namespaces, which end with it. A single
change adds or removes one peer. The benchmark measures the daemon's time from the request to its
answer, and the time of the whole `adit apply`. A repair is measured from the damage until it is
undone, with the time for which the daemon collects events.
"""

import ctypes
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 12
# Seconds over which the processor time of an idle daemon is measured.
IDLE = 5
SOCKET = "/run/adit/big.sock"
CLONE_NEWNS, CLONE_NEWNET, MS_REC_PRIVATE = 0x20000, 0x40000000, 0x44000


def enter_namespaces():
    """Enters a network and a mount namespace with an empty /run and /var/lib."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) or libc.mount(b"", b"/", None, MS_REC_PRIVATE, None):
        sys.exit(f"cannot enter the namespaces (are you root?): {os.strerror(ctypes.get_errno())}")
    for directory in ("/run", "/var/lib"):
        run("mount", "-t", "tmpfs", "none", directory)
    run("mount", "-t", "bpf", "none", "/sys/fs/bpf")
    for command in (
        "link set lo up",
        "link add name under type veth peer name router",
        "link set router up",
        "link set under up",
        "addr add 192.0.2.1/24 dev under",
        "addr add 172.16.17.1/24 dev lo",
        "route add 198.18.0.0/15 via 192.0.2.2",
    ):
        run("ip", *command.split())


def run(*command, allowed=(0,)):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in allowed:
        sys.exit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def config(peers, plane):
    def peer(number):
        networks = (f'"10.{k >> 14}.{(k >> 6) & 255}.{(k & 63) << 2}/30"' for k in range(number * 10, number * 10 + 10))
        return (
            f'[[peer]]\nname = "p{number}"\nunderlay = "198.18.{number // 256}.{number % 256}"\n'
            f'networks = [{", ".join(networks)}]\n'
        )

    site = f'[site]\nname = "big"\nunderlay = "192.0.2.1"\nnetworks = ["172.16.17.0/24"]\ndataplane = "{plane}"\n'
    return site + "".join(map(peer, range(peers)))


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def request(method, path, body=b""):
    """Sends one request to the daemon, and returns the whole answer."""
    head = (
        f"{method} {path} HTTP/1.0\r\nHost: adit\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(SOCKET)
        connection.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    if b" 200 " not in answer.split(b"\r\n", 1)[0]:
        sys.exit(answer.decode())
    return answer


def request_apply(file):
    """Sends the request of `adit apply` to the daemon, without the checks before it."""
    body = {"file": str(file), "text": file.read_text(), "confirm_seconds": None}
    request("POST", "/v1/apply", json.dumps(body).encode())


def repair(damage, is_whole):
    """How long it takes until what the command damages is whole again."""
    run("ip", *damage.split())
    start = time.perf_counter()
    while not is_whole():
        if time.perf_counter() - start > 60:
            sys.exit(f"`ip {damage}` is not repaired")
        time.sleep(0.002)
    return time.perf_counter() - start


def routes_to(address):
    """Whether the tunnel has the route to an address. Without it the guard refuses."""
    found = subprocess.run(["ip", "route", "get", address], capture_output=True, text=True)
    return "dev adit0" in found.stdout


def mtu():
    return json.loads(run("ip", "-j", "link", "show", "adit0"))[0]["mtu"]


def processor_time(pid):
    """Seconds of processor time that a process has taken."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_repairs(pid):
    idle = processor_time(pid)
    time.sleep(IDLE)
    idle = (processor_time(pid) - idle) / IDLE
    size = mtu()
    for what, damage, is_whole in (
        ("repair of a route", "route del 10.0.1.0/30 dev adit0", lambda: routes_to("10.0.1.1")),
        ("repair of the interface's MTU", "link set adit0 mtu 1300", lambda: mtu() == size),
    ):
        start, before, took = time.monotonic(), processor_time(pid), []
        for _ in range(ROUNDS):
            took.append(repair(damage, is_whole))
            time.sleep(1)
        report(what, took)
        spent = processor_time(pid) - before - idle * (time.monotonic() - start)
        print(f"  processor time of each: {1000 * spent / ROUNDS:.0f} ms")


def report(what, seconds):
    numbers = sorted(1000 * second for second in seconds)
    print(f"{what}: {numbers[0]:.0f} / {statistics.median(numbers):.0f} / {numbers[-1]:.0f} ms")


def main():
    adit = os.path.realpath(sys.argv[1])
    peers = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    plane = sys.argv[3] if len(sys.argv) > 3 else "ebpf"
    enter_namespaces()
    folder = pathlib.Path(tempfile.mkdtemp(dir="/run"))
    files = [folder / "more.toml", folder / "less.toml"]
    for file, count in zip(files, (peers + 1, peers)):
        file.write_text(config(count, plane))
    print(f"{peers} peers, {10 * peers} networks, {plane}; minimum / median / maximum")
    plan = [timed(lambda: run(adit, "plan", str(files[1]), allowed=(2,)))[0] for _ in range(3)]
    report("plan, nothing running", plan)
    up = timed(lambda: run(adit, "up", "-j", str(files[1])))
    report("start until it forwards", [up[0]])
    pid = json.loads(up[1])["pid"]
    try:
        report("plan, running", [timed(lambda: run(adit, "plan", str(files[1])))[0] for _ in range(3)])
        changes, applies = [], []
        for turn in range(ROUNDS):
            changes.append(timed(lambda: request_apply(files[turn % 2]))[0])
            time.sleep(1)
        report("single change, request to answer", changes)
        for turn in range(ROUNDS):
            applies.append(timed(lambda: run(adit, "apply", str(files[turn % 2])))[0])
            time.sleep(1)
        report("single change, whole adit apply", applies)
        measure_repairs(pid)
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        memory = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        print(f"memory of the daemon: {int(memory.split()[1]) // 1000} MB; load {os.getloadavg()[0]:.1f}")
    finally:
        run(adit, "down", "big")


if __name__ == "__main__":
    main()
