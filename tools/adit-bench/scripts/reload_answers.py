#!/usr/bin/env python3
"""How fast a daemon answers `adit status` while it reloads many peers. As root:

    cargo build --release -p adit
    python3 tools/adit-bench/scripts/reload_answers.py target/release/adit [PEERS] [ebpf|userspace]

A daemon with 10,000 peers (each with ten networks) is asked ten times a second, both by the command
`adit status -j` and on its socket. Idle seconds and seconds of reloads take turns, so that both meet the
same machine. One kind of reload changes something of everything (tunnel.ttl), the other 1,000 peers.

Targets, of which a missed one makes the exit code 1: the 99th percentile of the answers during reloads is
at most twice that of the idle daemon, and the watchdog is fed at least every 15 seconds (WatchdogSec=30).

It runs in namespaces of its own, which go with it.
"""

import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from many_peers import config, enter_namespaces, request

ROUNDS = 4
# Seconds of each phase of a round.
PHASE = 8
INTERVAL = 0.1
CHANGED_PEERS = 1_000
MAX_RATIO = 2
WATCHDOG_USEC = 30_000_000
MAX_WATCHDOG_GAP = WATCHDOG_USEC / 2 / 1e6


class Asker(threading.Thread):
    """Asks again and again, and notes when and how long each answer took."""

    def __init__(self, ask):
        super().__init__(daemon=True)
        self.ask, self.answers, self.stop = ask, [], threading.Event()

    def run(self):
        due = time.monotonic()
        while not self.stop.is_set():
            start = time.monotonic()
            self.ask()
            self.answers.append((start, time.monotonic() - start))
            # A late answer delays the next question, and is not followed by a burst.
            due = max(due + INTERVAL, time.monotonic())
            self.stop.wait(due - time.monotonic())

    def during(self, spans):
        """How long the answers took whose question was asked in one of the spans."""
        return [took for start, took in self.answers if any(begin <= start < end for begin, end in spans)]


class Manager(threading.Thread):
    """A service manager: when it was told what."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.ready, self.fed = threading.Event(), []

    def run(self):
        while True:
            message = self.socket.recv(4096)
            if message.startswith(b"READY=1"):
                self.ready.set()
            if b"WATCHDOG=1" in message:
                self.fed.append(time.monotonic())

    def gaps(self, spans):
        """How often the watchdog was fed in the spans, and the longest time between two of those."""
        fed = [at for at in self.fed if any(begin <= at < end for begin, end in spans)]
        around = [[begin] + [at for at in fed if begin <= at < end] + [end] for begin, end in spans]
        return len(fed), max(later - at for times in around for at, later in zip(times, times[1:]))


def milliseconds(seconds, percent):
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def reload_for(seconds, file, texts):
    """Reloads again and again; the spans of time in which a reload was in progress, and how many."""
    begin, count = time.monotonic(), 0
    while time.monotonic() < begin + seconds:
        file.write_text(texts[count % 2])
        request("POST", "/v1/reload")
        count += 1
    return (begin, time.monotonic()), count


def measure(file, texts, manager, what, ask):
    """Idle and reloading in turns; whether the targets are met."""
    idle, busy, reloads = [], [], 0
    asker = Asker(ask)
    asker.start()
    for _ in range(ROUNDS):
        begin = time.monotonic()
        time.sleep(PHASE)
        idle.append((begin, time.monotonic()))
        span, count = reload_for(PHASE, file, texts)
        busy.append(span)
        reloads += count
        # What a reload leaves to be done is not the idle daemon's.
        time.sleep(1)
    asker.stop.set()
    asker.join()
    calm, loaded = asker.during(idle), asker.during(busy)
    ratio = milliseconds(loaded, 99) / milliseconds(calm, 99)
    fed, gap = manager.gaps(busy)
    took = statistics.mean(end - begin for begin, end in busy) * ROUNDS / reloads
    print(f"{what}: {reloads} reloads, {took:.1f} s each")
    for name, answers in (("idle", calm), ("reloading", loaded)):
        p50, p99 = milliseconds(answers, 50), milliseconds(answers, 99)
        print(f"  {name:9}  {len(answers):4} answers  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms")
    print(f"  ratio of p99: {ratio:.2f} (target: at most {MAX_RATIO})")
    print(f"  watchdog during reloads: fed {fed} times, longest gap {gap:.1f} s (target: {MAX_WATCHDOG_GAP:.0f} s)")
    return ratio <= MAX_RATIO and fed > 0 and gap <= MAX_WATCHDOG_GAP


def main():
    adit = os.path.realpath(sys.argv[1])
    peers = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    plane = sys.argv[3] if len(sys.argv) > 3 else "ebpf"
    enter_namespaces()
    folder = pathlib.Path(tempfile.mkdtemp(dir="/run"))
    plain = config(peers, plane)
    # Another underlay address for each of the first peers.
    moved = plain.replace('"198.18.', '"198.19.', CHANGED_PEERS)
    reloads = {
        "everything changes (tunnel.ttl)": [plain + "[tunnel]\nttl = 32\n", plain],
        f"{CHANGED_PEERS} peers change": [moved, plain],
    }
    file = folder / "big.toml"
    file.write_text(plain)
    manager = Manager(str(folder / "notify"))
    manager.start()
    environment = os.environ | {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": str(WATCHDOG_USEC)}
    with open(folder / "log", "w") as log:
        daemon = subprocess.Popen([adit, "run", str(file)], env=environment, stderr=log)
    try:
        if not manager.ready.wait(120):
            sys.exit((folder / "log").read_text())
        length = len(request("GET", "/v1/status"))
        print(f"{peers} peers, {10 * peers} networks, {plane}; a status is {length / 1e6:.1f} MB; {os.cpu_count()} CPUs")
        command = [adit, "status", "big", "-j"]
        asks = {
            "adit status -j": lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True),
            "GET /v1/status": lambda: request("GET", "/v1/status"),
        }
        met = [
            measure(file, texts, manager, f"{how}, {what}", ask)
            for what, texts in reloads.items()
            for how, ask in asks.items()
        ]
    finally:
        daemon.send_signal(signal.SIGINT)
        daemon.wait()
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
