#!/usr/bin/env python3
"""A member takes only what it trusts, says why it takes nothing else, and serves on.

Unsigned, signed by a stranger, revoked by the publisher, revoked by the member's own list, and a stored model whose record was
tampered with: each is refused with its reason in the publisher's list of members, before anything of it is fetched."""
import json
import os
import subprocess
import sys
import time

import programs


class Site:
    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.endpoints = {name: f"ipc://{folder}/{name}.pub" for name in ("announce", "control", "blobs")}
        self.processes = []
        for name in ("ours", "theirs"):
            subprocess.run([arguments.trainctl, "keygen", "sign", "--out", f"{folder}/{name}"], check=True,
                           stdout=subprocess.DEVNULL)
        with open(f"{folder}/revoked", "w"):
            pass

    def start_publisher(self):
        command = [self.arguments.trainerd, "--config", f"{self.arguments.source}/configs/trainerd/publisher.yaml"]
        for name, endpoint in self.endpoints.items():
            command += ["--set", f"publish.{name}={endpoint}"]
        command += ["--set", f"publish.store={self.folder}/published", "--set", "publish.activate=auto"]
        command += ["--set", f"run.directory={self.folder}/runs"]
        self.publisher = programs.Process(self.folder, "trainerd", command)
        self.processes.append(self.publisher)

    def start_member(self):
        command = [self.arguments.inferd, "--config", f"{self.arguments.source}/configs/inferd/member.yaml"]
        for key, endpoint in self.endpoints.items():
            command += ["--set", f"publisher.{key}={endpoint}"]
        command += ["--set", f"store.directory={self.folder}/store", "--set", f"trust.keys=['{self.folder}/ours.pub']"]
        command += ["--set", f"trust.revoked={self.folder}/revoked"]
        self.member = programs.Member(self.folder, "member", self.arguments.inferctl, command)
        self.processes.append(self.member)

    def make(self, name, seed):
        path = f"{self.folder}/{name}"
        subprocess.run([self.arguments.make_model, path, name, str(seed)], check=True)
        return path, programs.file_digest(path)

    def trainctl(self, *words):
        flag = "--to" if words[0] == "publish" else "--at"
        command = [self.arguments.trainctl, *words, flag, self.endpoints["control"], "--json"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def publish(self, path, key=None):
        self.trainctl("publish", path, *(("--sign-key", f"{self.folder}/{key}.key") if key else ()))

    def wait_refused(self, reason):
        """Until the publisher lists the member as failed for that reason. Nothing of the model was fetched."""
        deadline = time.monotonic() + 30
        while True:
            rows = self.trainctl("models")["members"]
            if rows and rows[0]["state"] == "failed" and reason in rows[0]["error"]:
                return
            assert time.monotonic() < deadline, f"not refused for \"{reason}\": {rows} {self.member.log()[-2000:]}"
            time.sleep(0.1)

    def wait_dropped(self, digest):
        """Until the member, which had it resident as the model before its active one, can no longer answer with it."""
        reason = f"digest={digest.hex()} reason=\"the model is refused: it is revoked"
        deadline = time.monotonic() + 30
        while any(row["digest"] == digest.hex() for row in self.member.status()["resident"]):
            assert time.monotonic() < deadline, f"it is still resident: {self.member.status()}"
            time.sleep(0.1)
        assert reason in self.member.log(), self.member.log()[-2000:]

    def assert_not_fetched(self, digest):
        name = digest.hex()
        for path in (f"objects/{name[:2]}/{name[2:]}", f"partial/{name}"):
            assert not os.path.exists(f"{self.folder}/store/{path}"), f"{path} was fetched"


def run(site):
    site.start_publisher()
    site.start_member()
    good, good_digest = site.make("good", 1)
    site.publish(good, "ours")
    site.member.wait_ready(good_digest)
    for name, seed, key, reason in (("unsigned", 2, None, "not signed"), ("stranger", 3, "theirs", "not trusted")):
        path, digest = site.make(name, seed)
        site.publish(path, key)
        site.wait_refused(reason)
        site.assert_not_fetched(digest)
        site.member.wait_ready(good_digest)  # serves on
    second, second_digest = site.make("second", 4)
    site.publish(second, "ours")
    site.member.wait_ready(second_digest)
    print("unsigned models and those of strangers are refused, with the reason, and nothing of them is fetched")
    with open(f"{site.folder}/revoked", "w") as file:
        file.write(f"model {good_digest.hex()}\n")
    site.publish(good)  # published already: made current again
    site.wait_refused("revoked here")
    site.member.wait_ready(second_digest)
    site.publish(second)
    site.wait_dropped(good_digest)
    print("a model of the member's own list of revocations is not run again")
    site.trainctl("revoke", programs.file_digest(f"{site.folder}/stranger").hex(), "--by", "a test", "--reason", "a test")
    again = f"{site.folder}/stranger"
    refused = subprocess.run([site.arguments.trainctl, "publish", again, "--to", site.endpoints["control"]],
                             capture_output=True, text=True)
    assert refused.returncode == 1 and "revoked" in refused.stderr, refused
    events = [event["kind"] for event in site.trainctl("events")]
    assert events.count("revoked") == 1, events
    print("a model that was revoked at the publisher is not published again")
    site.member.stop()
    site.publisher.stop()
    tamper(site, second_digest)


def tamper(site, digest):
    """The stored descriptor loses its signature: with no publisher in reach the model is not served."""
    record = f"{site.folder}/store/descriptors/{digest.hex()}"
    with open(record, "rb") as file:
        model = model_pb2.PublishedModel.FromString(file.read())
    del model.signatures[:]
    os.chmod(record, 0o600)
    with open(record, "wb") as file:
        file.write(model.SerializeToString())
    site.start_member()
    deadline = time.monotonic() + 30
    while "last_model" not in site.member.log() or not site.member.status():
        assert time.monotonic() < deadline, site.member.log()
        time.sleep(0.1)
    assert site.member.status()["condition"] == "NO_MODEL", site.member.status()
    assert "not signed" in site.member.log(), site.member.log()
    site.member.stop()
    print("a stored model whose signature is gone is not served")


def main():
    arguments = programs.parse_arguments(__doc__.splitlines()[0])
    with programs.temporary_folder() as folder:
        global model_pb2
        command = ["protoc", f"--proto_path={arguments.source}/proto", f"--python_out={folder}", "model.proto"]
        subprocess.run(command, check=True)
        sys.path.insert(0, folder)
        import model_pb2

        site = Site(arguments, folder)
        try:
            run(site)
        finally:
            for process in site.processes:
                process.kill()


if __name__ == "__main__":
    sys.exit(main())
