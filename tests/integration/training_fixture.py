"""What tests of training share: synthetic data, runs of trainerd, and the tensors of its checkpoints."""
import atexit
import glob
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

TRAINERD, TRAINCTL = sys.argv[1:3]
del sys.argv[1:3]  # the rest is unittest's
FOLDER = tempfile.mkdtemp(prefix="thorax-training-")
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
PATIENCE_S = 120
STOPPED = 4  # the exit code of a run that a signal stopped before its end

# The 7x7 stem makes a step of 28 pixels take milliseconds: what is tested does not depend on the network's first layer.
SETTINGS = {
    "run.directory": f"{FOLDER}/runs",
    "run.seed": 3,
    "model.architecture": "resnet18",
    "model.stem": "7x7",
    "model.size": 28,
    "data.directory": f"{FOLDER}/data",
    "data.cache_dir": f"{FOLDER}/cache",
    "train.epochs": 2,
    "train.batch_size": 12,
    "optimizer.learning_rate": 0.01,
    "device.threads": 1,
    "publish.enabled": "false",
}


def draw_phantoms():
    """24 + 12 + 4 pictures of each class: 94 to train on, 7 steps of 12 an epoch."""
    command = [TRAINCTL, "phantom", "--out", f"{FOLDER}/data", "--layout", "24,12,4", "--size", "64"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def arguments(name, settings, options, extra, folder=FOLDER):
    """The command line of a run; every key by --set, over a file in `folder` that holds the run's name and what extra says."""
    config = f"{folder}/{name}.yaml"
    with open(config, "w") as file:
        file.write(f"run:\n  name: {name}\ntrain: {{}}\n{extra}")
    merged = {**SETTINGS, **settings}
    pairs = [part for key, value in merged.items() for part in ("--set", f"{key}={value}")]
    return [TRAINERD, "--config", config, "--json", *options, *pairs]


class Run:
    """A trainerd under way. Its temporary files go to `temporary`."""

    temporary = f"{FOLDER}/temporary"

    def __init__(self, name, settings, *options, extra=""):
        self.name = name
        self.folder = f"{FOLDER}/runs/{name}"
        self.log = f"{FOLDER}/{name}.log"
        self.start(arguments(name, settings, options, extra))

    def start(self, command, **variables):
        """variables: of its environment, beside our own."""
        os.makedirs(self.temporary, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if key != "XDG_RUNTIME_DIR"}
        environment |= {"TMPDIR": self.temporary, **variables}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def text(self):
        with open(self.log) as log:
            return log.read()

    def record(self):
        """All events in their order."""
        lines = [line for line in self.text().splitlines(True) if line.startswith("{") and line.endswith("}\n")]
        return list(map(json.loads, lines))

    def events(self, kind):
        return [event for event in self.record() if event["event"] == kind]

    def checkpoints(self):
        return sorted(glob.glob(f"{self.folder}/checkpoints/step-*.safetensors"))

    def torn_checkpoints(self):
        """Those that are being written, or were when the writer was killed."""
        return glob.glob(f"{self.folder}/checkpoints/step-*.safetensors.*")

    def workers(self):
        """Process ids of the children by rank."""
        found = {}
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as children:
            for pid in children.read().split():
                with open(f"/proc/{pid}/cmdline") as file:
                    found[int(file.read().split("\0")[-2])] = int(pid)
        return found

    def until(self, condition):
        """Waits for condition(); the run must still be there then."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.name}: ended with {self.process.poll()} too early:\n{self.text()}")
            time.sleep(0.005)

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)

    def finish(self):
        """Waits for the end, which must be a good one."""
        code = self.process.wait(PATIENCE_S)
        if code != 0:
            raise AssertionError(f"{self.name}: exit code {code}:\n{self.text()}")
        return self


def alive(pid):
    """Whether the process is there and no zombie that nobody has asked about yet."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(workers):
    """Whether none of the processes lives; they may take a moment."""
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers.values()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def step_of(checkpoint):
    return int(os.path.basename(checkpoint)[len("step-") :][:9])


def tensors(path):
    """Digest of each tensor's bytes by name, read as the safetensors format says."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        found = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            file.seek(8 + size + begin)
            found[name] = hashlib.sha256(file.read(end - begin)).hexdigest()
    return found
