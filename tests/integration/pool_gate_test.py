#!/usr/bin/env python3
"""A model whose figures are worse than the stable one's is kept and not offered to the pool, until somebody approves it with a note.

Where models are activated by themselves, one that is better goes through, and one that is worse leaves the pool as it is. Where
nothing is staged by itself, members hear of a model only once it is approved."""
import json
import os
import struct
import subprocess
import time

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


def state_in(result, name):
    return next(row for row in json.loads(result.stdout)["models"] if row["name"] == name)


def state(pool, name):
    return state_in(pool.trainctl("models", "--json"), name)


def wait_stable(pool, name):
    pool.trainctl_until("models", "--json", wanted=lambda result: state_in(result, name)["state"] == "stable")


def events(pool):
    """All of them, a page at a time."""
    found = []
    while page := json.loads(pool.trainctl("events", "--after", str(found[-1]["id"] if found else 0), "--json").stdout):
        found += page
    return found


def stored(folder, path):
    """Whether the member has the model's file."""
    digest = programs.file_digest(path).hex()
    return os.path.exists(f"{folder}/member-store/objects/{digest[:2]}/{digest[2:]}")


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
    wait_stable(pool, "worse")
    print("one within the tolerance is offered; a note lets the other one run")
    pool.processes["trainerd"].stop()
    activates_by_itself(pool, member, arguments, folder)
    pool.processes["trainerd"].stop()
    stages_what_is_approved(pool, member, arguments, folder)
    member.stop()
    pool.processes["trainerd"].stop()


def activates_by_itself(pool, member, arguments, folder):
    """Of a registry whose stable model has auc 0.98 and recall.NORMAL 0.8."""
    pool.start_publisher("publish.activate=auto", f"publish.gate={RULES}")
    better = make(arguments, folder, "auto-better", 5, {"auc": 0.985, "recall.NORMAL": 0.85})
    pool.publish(better)
    digest = programs.file_digest(better)
    member.wait_ready(digest)
    wait_stable(pool, "auto-better")
    number = len(events(pool))
    worse = make(arguments, folder, "auto-worse", 6, {"auc": 0.99, "recall.NORMAL": 0.8})
    refused = pool.trainctl("publish", worse, check=False)
    assert refused.returncode == 1 and "recall.NORMAL 0.8000" in refused.stderr and "0.8500" in refused.stderr, refused
    assert "auc" not in refused.stderr, refused
    assert [event["kind"] for event in events(pool)[number:]] == ["refused_by_gate"], events(pool)[number:]
    started = pool.trainctl("rollout", "start", "auto-worse:1", "--plan", f"{arguments.source}/configs/rollouts/direct.yaml",
                            "--by", "Ann", check=False)
    assert started.returncode == 1 and "recall.NORMAL" in started.stderr, started
    again = pool.trainctl("publish", worse, check=False)  # nor with the second try
    assert again.returncode == 1 and state(pool, "auto-worse")["state"] == "staged", again
    assert state(pool, "auto-better")["state"] == "stable"
    assert not stored(folder, worse), "the member has fetched what the gate refused"
    member.wait_ready(digest)
    print("with activate: auto a better model runs by itself; a worse one is kept, and the pool serves the stable one")


def stages_what_is_approved(pool, member, arguments, folder):
    pool.start_publisher("publish.activate=manual", "publish.stage=false", "publish.gate=[]")
    path = make(arguments, folder, "quiet", 7, {"auc": 0.5})
    pool.publish(path)
    assert state(pool, "quiet")["state"] == "registered", state(pool, "quiet")
    loud = make(arguments, folder, "loud", 8, {"auc": 0.5})
    pool.publish(loud)
    pool.trainctl("approve", "loud:1", "--by", "Ann")
    deadline = time.monotonic() + programs.START_S
    while not stored(folder, loud):
        assert time.monotonic() < deadline, "an approved model is not fetched"
        time.sleep(0.05)
    assert state(pool, "loud")["state"] == "staged" and not stored(folder, path)
    roll_out(pool, member, "loud", loud)
    assert state(pool, "quiet")["state"] == "registered" and not stored(folder, path)
    print("with stage: false a model is registered only, and staged when somebody approves it")


if __name__ == "__main__":
    pool_programs.run_test(__doc__, run)
