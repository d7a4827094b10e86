#!/usr/bin/env python3
"""A model whose figures are worse than the stable one's is kept and not offered to the pool, until somebody approves it with a note."""
import json
import struct
import subprocess
import sys

import pool_programs
import programs

RULES = '["auc within 0.01", "recall.NORMAL within 0.02"]'


def write_figures(path, figures):
    """Puts figures into the manifest of a model file: the header of a safetensors file is a length and JSON."""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    manifest = json.loads(header["__metadata__"]["thorax"])
    manifest["metrics"] = [{"name": name, "data_set": "made up", "split": "validation", "value": value}
                           for name, value in figures.items()]
    header["__metadata__"]["thorax"] = json.dumps(manifest)
    packed = json.dumps(header).encode()
    packed += b" " * (-len(packed) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(packed)) + packed + data[8 + length:])


def make(arguments, folder, name, seed, figures):
    path = f"{folder}/{name}"
    subprocess.run([arguments.make_model, path, name, str(seed)], check=True)
    write_figures(path, figures)
    return path


def state(pool, name):
    rows = json.loads(pool.trainctl("models", "--json").stdout)["models"]
    return next(row for row in rows if row["name"] == name)


def roll_out(pool, member, name, path):
    pool.trainctl("rollout", "start", f"{name}:1", "--plan", f"{pool.arguments.source}/configs/rollouts/direct.yaml", "--by", "Ann")
    member.wait_ready(programs.file_digest(path))


def run(pool, arguments, folder):
    pool.start_publisher("publish.activate=manual", f"publish.gate={RULES}")
    member = pool.start_member("member")
    first = make(arguments, folder, "first", 1, {"auc": 0.97, "recall.NORMAL": 0.9})
    pool.publish(first)  # nothing to be compared with
    pool.trainctl("approve", "first:1", "--by", "Ann")
    roll_out(pool, member, "first", first)
    pool.trainctl_until("models", "--json", wanted=lambda result: '"stable"' in result.stdout)

    worse = make(arguments, folder, "worse", 2, {"auc": 0.98, "recall.NORMAL": 0.8})
    refused = pool.trainctl("publish", worse, check=False)
    assert refused.returncode == 1 and "recall.NORMAL 0.8000" in refused.stderr and "0.9000" in refused.stderr, refused
    assert "recall.NORMAL" in state(pool, "worse")["gate"], state(pool, "worse")
    refused = pool.trainctl("approve", "worse:1", "--by", "Ann", check=False)
    assert refused.returncode == 1 and "--note" in refused.stderr, refused
    started = pool.trainctl("rollout", "start", "worse:1", "--plan", f"{arguments.source}/configs/rollouts/direct.yaml",
                            "--by", "Ann", check=False)
    assert started.returncode == 1, started
    print("a model that is worse in one class is kept, and says why")

    silent = make(arguments, folder, "silent", 3, {"auc": 0.99})
    refused = pool.trainctl("publish", silent, check=False)
    assert refused.returncode == 1 and "says nothing of recall.NORMAL" in refused.stderr, refused
    print("no comparison is no pass")

    better = make(arguments, folder, "better", 4, {"auc": 0.965, "recall.NORMAL": 0.95})
    pool.publish(better)
    assert not state(pool, "better")["gate"], state(pool, "better")
    pool.trainctl("approve", "worse:1", "--by", "Ann", "--note", "the labels were wrong")
    assert not state(pool, "worse")["gate"], state(pool, "worse")
    roll_out(pool, member, "worse", worse)
    print("one within the tolerance is offered; a note lets the other one run")
    member.stop()
    pool.processes["trainerd"].stop()


def main():
    arguments = programs.parse_arguments(__doc__)
    with programs.temporary_folder() as folder:
        pool = pool_programs.Pool(arguments, folder)
        try:
            run(pool, arguments, folder)
        finally:
            pool.kill()


if __name__ == "__main__":
    sys.exit(main())
