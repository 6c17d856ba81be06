"""Child processes: start on one core, read what they cost, stop.

Everything is found by the pid that was started. A child gets SIGTERM from the kernel when the bench
itself dies, so that nothing is left behind by a kill.
"""

import ctypes
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PR_SET_PDEATHSIG = 1
STOP_SECONDS = 5

_libc = ctypes.CDLL(None, use_errno=True)


class StartFailed(Exception):
    """The process ended, or did not answer in time; the text says what it printed."""


class Process:
    def __init__(self, name, argv, core, output, env=None):
        """Starts `argv` on `core`. Standard output and error go to the file `output`."""

        def in_child():
            os.sched_setaffinity(0, {core})
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        self.name = name
        self.output = Path(output)
        # Append, because a proxy that logs to standard output shares the file with its messages.
        with open(self.output, "ab") as sink:
            self._child = subprocess.Popen(
                [str(part) for part in argv],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                preexec_fn=in_child,
            )

    def running(self):
        return self._child.poll() is None

    def tree(self):
        """The pids of the process and of every descendant (nginx: a master and its workers)."""
        found, waiting = [], [self._child.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    waiting.extend(int(child) for child in children.read_text().split())
                except OSError:
                    continue  # the thread ended between the listing and the read
        return found

    def cpu_seconds(self):
        return sum(_stat(pid)[0] for pid in self.tree())

    def rss_bytes(self):
        return sum(_stat(pid)[1] for pid in self.tree())

    def wait_until(self, answers, what, seconds=20):
        """Waits until `answers()` is true; raises StartFailed when the process ends first."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.running():
                raise StartFailed(f"{self.name} ended with {self._child.returncode}: {self.tail()}")
            if answers():
                return
            time.sleep(0.05)
        raise StartFailed(f"{self.name}: {what} did not answer in {seconds} s: {self.tail()}")

    def tail(self, lines=12):
        text = self.output.read_text(errors="replace").strip()
        return "\n".join(text.splitlines()[-lines:]) or "it printed nothing"

    def stop(self):
        pids = self.tree() if self.running() else []
        if pids:
            self._child.terminate()
            try:
                self._child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                for pid in pids:
                    _kill(pid)
        self._child.wait()


def _stat(pid):
    """CPU seconds and resident bytes of one process; zeros when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0, 0
    # The second field is the program's name and may hold spaces, so count from its closing bracket.
    fields = text.rpartition(")")[2].split()
    user, system, rss_pages = int(fields[11]), int(fields[12]), int(fields[21])
    return (user + system) / CLOCK_TICKS, rss_pages * PAGE_BYTES


def core_busy_seconds(core):
    """What `core` has spent on anything at all, other guests of the machine included."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) / CLOCK_TICKS
    raise ValueError(f"there is no core {core}")


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def free_ports(count):
    """Ports that nothing listens on. All are held at once, so that no two are the same."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
