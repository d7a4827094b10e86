"""What the benchmarks share that let programs compute in turns: each in a process that sleeps while another's turn is, told by a
line on its stdin (`run N`) and answering with a line of JSON."""
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# OpenMP's threads may spin between two operations and not through another's turn; PyTorch keeps the memory that it frees, for its
# tensors of megabytes would else be fetched anew from the system in every step.
PEERS_WAITING = {"OMP_DYNAMIC": "false", "OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "100000"}
PEERS_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 34), "MALLOC_TOP_PAD_": str(1 << 26)}

MOST_OTHERS = .05  # of the machine: with more, teams of two wait for each other's cores


class Failure(Exception):
    pass


# --- the environment of peers ---

def environment_folder():
    return pathlib.Path(os.environ.get("THORAX_PEERS_VENV", ROOT / ".cache" / "peers"))


def environment_python():
    return environment_folder() / "bin" / "python"


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it says nothing"


# --- those who run ---

class Engine:
    """A process that runs when it is told to; peers and our own programs speak alike."""

    def __init__(self, name, command, environment, peer):
        self.name, self.peer, self.rounds, self.error = name, peer, [], None
        self.complaints = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=self.complaints, env={**os.environ, **environment})
        self.expect(lambda line: line.strip() == "ready" or None)
        machine = self.ask("machine")
        self.version = machine["device"] + (f", as {machine['split']}" if machine.get("split") else "")

    def expect(self, read):
        value = read(self.process.stdout.readline())
        if value is None:
            self.complaints.seek(0)
            complaint = last_line(self.complaints.read())
            self.close()
            raise Failure(complaint)
        return value

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said before it ended stands in its complaints
        return self.expect(lambda answer: json.loads(answer) if answer else None)

    def turn(self, runs):
        return self.ask(f"run {runs}")["ms"]

    def ms(self):
        return statistics.median(self.rounds)

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.complaints.close()


# --- what others do meanwhile ---

def ticks_of(process):
    """Clock ticks of all threads of a process, and of its children, so far."""
    children = pathlib.Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
    return own_ticks(process) + sum(map(ticks_of, children))


def own_ticks(process):
    fields = pathlib.Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def ticks(engines):
    """(of the machine's processors, those of them that were busy, those that we and the engines used)."""
    machine = pathlib.Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    user, nice, system, idle, waiting, *rest = map(int, machine)
    busy = user + nice + system + sum(rest[:3])
    return busy + idle + waiting, busy, own_ticks("self") + sum(ticks_of(engine.process.pid) for engine in engines)


def busy_with_others(engines, work):
    """Does the work; returns which part of the machine's time others, or the host, took meanwhile."""
    before = ticks(engines)
    work()
    total, busy, ours = (b - a for a, b in zip(before, ticks(engines)))
    return max(0, busy - ours) / max(1, total)


def processor():
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown"
