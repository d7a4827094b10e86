"""What the tests of whole programs share: starting daemons, pictures that are made up, messages compiled from proto/.

A test is called with the programs' paths: --inferd, --inferctl, --trainerd, --trainctl, --make-model, --source."""
import argparse
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

try:
    import zmq
    from PIL import Image
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)  # ctest's SKIP_RETURN_CODE

START_S = 120  # for a daemon to be ready; generous, since sanitizers and neighbours slow everything


def parse_arguments(description, **more):
    """The programs' paths, and the test's own arguments: name=(default, help)."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("inferd", "inferctl", "trainerd", "trainctl", "make-model", "source"):
        parser.add_argument(f"--{name}", required=True)
    for name, (default, text) in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (default {default})")
    return parser.parse_args()


def import_messages(source, folder):
    """Compiles the messages; returns the modules envelope_pb2, diagnosis_pb2 and deploy/python's thorax_client."""
    command = ["protoc", f"--proto_path={source}/proto", f"--python_out={folder}", "envelope.proto", "diagnosis.proto"]
    subprocess.run(command, check=True)
    sys.path[:0] = [folder, f"{source}/deploy/python"]
    import diagnosis_pb2
    import envelope_pb2
    import thorax_client

    return envelope_pb2, diagnosis_pb2, thorax_client


def encode(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def picture(seed, mode="L", side=(96, 80)):
    """Stripes whose width and slope depend on seed: made up, and unlike each other."""
    width, height = side
    image = Image.new("L", side)
    image.putdata([(x * (2 * seed + 1) + y * (seed % 5 + 1)) % 256 for y in range(height) for x in range(width)])
    return image.convert(mode)


def file_digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).digest()


class Process:
    """A daemon in the background; its output goes into a file."""

    def __init__(self, folder, name, command):
        self.name, self.log_path = name, os.path.join(folder, f"{name}.log")
        with open(self.log_path, "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)

    def log(self):
        with open(self.log_path) as file:
            return file.read()

    def signal_stop(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        code = self.process.wait(START_S)
        assert code == 0, f"{self.name} ended with {code}: {self.log()[-3000:]}"

    def stop(self):
        self.signal_stop()
        self.wait()

    def kill(self):
        """For clearing up, where a test failed."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Member(Process):
    """One inferd on a socket file."""

    def __init__(self, folder, name, inferctl, command):
        self.endpoint, self.inferctl = f"ipc://{folder}/{name}.sock", inferctl
        command = command + ["--set", f"server.bind=['{self.endpoint}']", "--set", f"member={name}"]
        super().__init__(folder, name, command)

    def status(self):
        """inferctl status as a dict; {} where nothing answers."""
        command = [self.inferctl, "status", "--json", "--endpoint", self.endpoint, "--timeout-ms", "2000"]
        result = subprocess.run(command, capture_output=True, text=True)
        return json.loads(result.stdout) if result.returncode == 0 else {}

    def wait_ready(self, digest=None):
        """Until it serves, and, where given, the model of that digest. Returns the status."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            status = self.status()
            if status.get("condition") == "READY" and digest in (None, bytes.fromhex(status["model"]["digest"])):
                return status
            assert self.process.poll() is None, f"{self.name} is gone: {self.log()[-3000:]}"
            time.sleep(0.05)
        raise AssertionError(f"{self.name} does not serve what it should: {self.status()} {self.log()[-3000:]}")


def standalone(arguments, folder, name, model, *more):
    """A member with a model file and no publisher."""
    return Member(folder, name, arguments.inferctl, [arguments.inferd, "--model", model, *more])


def temporary_folder():
    """Short: a socket file's path has to fit into 107 bytes."""
    return tempfile.TemporaryDirectory(prefix="thorax-")
