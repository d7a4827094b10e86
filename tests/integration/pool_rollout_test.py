#!/usr/bin/env python3
"""Rollouts with real daemons, under light load.

A model that agrees goes through shadow, canary and wave until it is stable, while the publisher is killed in every step; one that
disagrees is rolled back by itself in shadow, with the reason; one that fails its golden images never leaves the stage; one that
nobody approved does not start; a rollback brings the model before back. Every request is answered on the way."""
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import programs

TEMPERATURE = "0.1"  # so low that random weights answer clearly
MEMBERS = 3
PICTURES = 6
WAIT_S = 120
PAUSE_S = 0.03  # between a client's requests: light load

PLAN = """
name: test
on_failure: rollback
gates: {error_rate: 0.2, agreement: 0.8, score_drift: 0.2}
steps:
  stage:    {kind: stage}
  shadow:   {kind: shadow, permille: 1000, min_requests: 60, min_time: 2s}
  canary:   {kind: canary, members: 1, min_requests: 30, min_time: 2s}
  everyone: {kind: wave, percent: 100, min_requests: 30, min_time: 2s}
"""
STEPS = 4


class Asker(threading.Thread):
    """Asks one member without pause until told to stop; what goes wrong is kept."""

    def __init__(self, site, member):
        super().__init__(daemon=True)
        self.site, self.endpoint, self.halt = site, member.endpoint, threading.Event()
        self.answered, self.faults = 0, []
        self.start()

    def run(self):
        client = thorax_client.Client(self.endpoint, 60000)
        while not self.halt.is_set():
            try:
                reply = client.diagnose(self.site.images[self.answered % PICTURES])
                if reply.status != diagnosis.STATUS_OK:
                    self.faults.append(reply.message)
                elif reply.model.digest not in self.site.allowed:
                    self.faults.append(f"answered by {reply.model.name}, which was never to serve")
            except Exception as reason:
                self.faults.append(repr(reason))
            self.answered += 1
            time.sleep(PAUSE_S)
        client.socket.close()


class Site:
    def __init__(self, arguments, folder):
        self.arguments, self.folder, self.processes = arguments, folder, []
        self.images = [programs.encode(programs.picture(seed)) for seed in range(PICTURES)]
        self.endpoints = {name: f"ipc://{folder}/{name}.pub" for name in ("announce", "control", "blobs")}
        self.allowed = set()  # digests of models that may answer
        with open(f"{folder}/plan.yaml", "w") as file:
            file.write(PLAN)

    def start_publisher(self):
        command = [self.arguments.trainerd, "--config", f"{self.arguments.source}/configs/trainerd/publisher.yaml"]
        for name, endpoint in self.endpoints.items():
            command += ["--set", f"publish.{name}={endpoint}"]
        command += ["--set", f"publish.store={self.folder}/published", "--set", f"run.directory={self.folder}/runs"]
        self.publisher = programs.Process(self.folder, "trainerd", command)
        self.processes.append(self.publisher)

    def kill_publisher(self):
        self.publisher.process.send_signal(signal.SIGKILL)
        self.publisher.process.wait()
        self.start_publisher()

    def start_members(self):
        self.members = []
        for i in range(MEMBERS):
            command = [self.arguments.inferd, "--config", f"{self.arguments.source}/configs/inferd/member.yaml"]
            for key, endpoint in self.endpoints.items():
                command += ["--set", f"publisher.{key}={endpoint}"]
            command += ["--set", f"store.directory={self.folder}/m{i}-store", "--set", "device.threads=1"]
            command += ["--set", "batch.max=4"]  # so that a model is loaded in less than a second
            self.members.append(programs.Member(self.folder, f"m{i}", self.arguments.inferctl, command))
        self.processes += self.members

    def make(self, name, seed):
        path = f"{self.folder}/{name}"
        subprocess.run([self.arguments.make_model, path, name, str(seed), TEMPERATURE], check=True)
        return path

    def decisions(self, path):
        """What a model alone says of the pictures: the most probable class of each."""
        alone = programs.standalone(self.arguments, self.folder, f"alone-{os.path.basename(path)}", path)
        self.processes.append(alone)
        alone.wait_ready()
        client = thorax_client.Client(alone.endpoint, 60000)
        replies = [client.diagnose(image) for image in self.images]
        client.socket.close()
        alone.stop()
        return [max(range(len(r.probabilities)), key=lambda i: r.probabilities[i].probability) for r in replies]

    def ask(self, *words):
        """trainctl; its answer, or what it said on stderr."""
        flag = "--to" if words[0] == "publish" else "--at"
        command = [self.arguments.trainctl, *words, flag, self.endpoints["control"], "--json", "--timeout-ms", "60000"]
        result = subprocess.run(command, capture_output=True, text=True)
        return (json.loads(result.stdout), None) if result.returncode == 0 else (None, result.stderr)

    def trainctl(self, *words):
        answer, fault = self.ask(*words)
        assert fault is None, fault
        return answer

    def publish(self, path):
        return self.trainctl("publish", path)["digest"]

    def start(self, digest):
        return self.trainctl("rollout", "start", digest[:16], "--plan", f"{self.folder}/plan.yaml", "--by", "ada")

    def wait(self, what, reached):
        deadline = time.monotonic() + WAIT_S
        while True:
            status = self.trainctl("rollout", "status")
            if reached(status):
                return status
            assert time.monotonic() < deadline, f"{what} is never reached: {status} {self.publisher.log()[-3000:]}"
            time.sleep(0.1)

    def wait_state(self, state):
        return self.wait(state, lambda status: status["state"] == state)

    def wait_all_run(self, digest):
        for member in self.members:
            member.wait_ready(bytes.fromhex(digest))

    def check(self, askers):
        faults = [fault for asker in askers for fault in asker.faults]
        assert not faults, faults[:5]
        assert all(asker.answered for asker in askers)


def spoil_golden_answers(path, out):
    """The same model with other golden probabilities: it loads, and does not answer as it should."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    names = [name for name in header if name.startswith("golden.") and "probabilit" in name]
    assert names, list(header)
    begin, end = header[names[0]]["data_offsets"]
    values = list(struct.unpack(f"<{(end - begin) // 4}f", data[8 + length + begin:8 + length + end]))
    classes = header[names[0]]["shape"][1]
    values[:classes] = values[1:classes] + values[:1]  # of the first picture: turned round
    data[8 + length + begin:8 + length + end] = struct.pack(f"<{len(values)}f", *values)
    with open(out, "wb") as file:
        file.write(data)
    return out


def a_first_model_needs_approval_and_becomes_stable(site, path):
    digest = site.publish(path)
    site.allowed.add(bytes.fromhex(digest))
    _, fault = site.ask("rollout", "start", digest[:16], "--plan", "direct", "--by", "ada")
    assert "is not approved" in fault, fault
    site.trainctl("approve", digest[:16], "--by", "ada")
    site.trainctl("rollout", "start", digest[:16], "--plan", "direct", "--by", "ada")
    site.wait_state("done")
    site.wait_all_run(digest)
    print("a model that is approved becomes stable everywhere")
    return digest


def a_good_model_goes_through_while_the_publisher_is_killed_in_each_step(site, path):
    digest = site.publish(path)
    site.allowed.add(bytes.fromhex(digest))
    site.trainctl("approve", digest[:16], "--by", "ada")
    site.start(digest)
    killed = set()
    while True:
        status = site.wait("the next step", lambda status: status["step"] not in killed or status["state"] == "done")
        if status["state"] == "done":
            break
        assert status["state"] == "running", status
        if status["step"] == 3:
            assert status["assigned"] == 1, status
        site.kill_publisher()
        after = site.trainctl("rollout", "status")
        assert after["step"] >= status["step"] and after["id"] == status["id"], (status, after)
        killed.add(after["step"])
    assert len(killed) >= STEPS - 1, killed  # a step may pass between two looks
    site.wait_all_run(digest)
    kinds = [event["kind"] for event in site.trainctl("events")]
    assert kinds.count("rollout_step") >= STEPS - 1 and "rollout_done" in kinds, kinds
    print(f"a model that agrees is stable after the publisher was killed in {len(killed)} steps")
    return digest


def a_model_that_disagrees_is_rolled_back_by_itself(site, path, incumbent):
    digest = site.publish(path)
    site.trainctl("approve", digest[:16], "--by", "ada")
    site.start(digest)
    status = site.wait_state("rolled back")
    assert status["step"] == 2, status
    assert any(f"gate {gate} failed" in status["reason"] for gate in ("agreement", "score_drift")), status
    site.wait_all_run(incumbent)
    print(f"a model that disagrees is rolled back by itself: {status['reason']}")


def a_model_that_fails_its_golden_images_never_leaves_the_stage(site, path, incumbent):
    digest = site.publish(path)
    site.trainctl("approve", digest[:16], "--by", "ada")
    site.start(digest)
    status = site.wait_state("rolled back")
    assert status["step"] == 1 and "cannot run it" in status["reason"] and "golden" in status["reason"], status
    site.wait_all_run(incumbent)
    print(f"a model that fails its golden images never leaves the stage: {status['reason']}")


def a_rollback_brings_the_model_before_back(site, before, now):
    site.wait_all_run(now)
    turns = site.publisher.log().count("turn_given")
    site.trainctl("rollback", "--by", "ada", "--reason", "a test")
    site.wait_all_run(before)
    assert site.publisher.log().count("turn_given") == turns, "it was still resident, and needs no turn"
    row = {model["digest"]: model["state"] for model in site.trainctl("models")["models"]}
    assert row[before] == "stable" and row[now] == "retired", row
    print("a rollback brings the model before back everywhere")


def disagreeing(site, first):
    """A model that decides otherwise for half of the pictures or more."""
    known = site.decisions(first)
    for seed in range(10, 40):
        path = site.make(f"other{seed}", seed)
        if sum(a != b for a, b in zip(known, site.decisions(path))) * 2 >= PICTURES:
            return path
    raise AssertionError("all models decide alike")


def run(site):
    first, alike = site.make("first", 1), site.make("alike", 1)  # the same weights under two names agree in everything
    other = disagreeing(site, first)
    broken = spoil_golden_answers(first, f"{site.folder}/broken")
    site.start_publisher()
    site.start_members()
    before = a_first_model_needs_approval_and_becomes_stable(site, first)
    askers = [Asker(site, member) for member in site.members]
    a_model_that_fails_its_golden_images_never_leaves_the_stage(site, broken, before)
    a_model_that_disagrees_is_rolled_back_by_itself(site, other, before)
    now = a_good_model_goes_through_while_the_publisher_is_killed_in_each_step(site, alike)
    a_rollback_brings_the_model_before_back(site, before, now)
    for asker in askers:
        asker.halt.set()
    for asker in askers:
        asker.join()
    site.check(askers)
    print(f"{sum(asker.answered for asker in askers)} requests were answered, by models that may")
    for process in [*site.members, site.publisher]:
        process.stop()


def main():
    arguments = programs.parse_arguments(__doc__.splitlines()[0])
    with programs.temporary_folder() as folder:
        global diagnosis, thorax_client
        _, diagnosis, thorax_client = programs.import_messages(arguments.source, folder)
        site = Site(arguments, folder)
        try:
            run(site)
        finally:
            for process in site.processes:
                process.kill()


if __name__ == "__main__":
    sys.exit(main())
