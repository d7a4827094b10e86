#!/usr/bin/env python3
"""A pool with keys: each program has its own, the publisher knows them all by its allow-list, and nobody does what its role does not let it.

Wrong keys, keys that are in no list, roles, forged reports, revocation while all run, files that others can read, a list with a mistake."""
import json
import os
import socket
import subprocess
import sys
import time

import pool_programs
import programs
import zmq

SOON_S = 30  # for what takes a second or two on a machine that does nothing else
DENIED = 7  # RefusalCode.REFUSAL_DENIED
ROLES = {"ward-1": "member", "ward-2": "member", "builder": "trainer", "desk": "admin"}


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(what, condition):
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class SecurePool(pool_programs.Pool):
    """A pool on TCP whose programs have keys."""

    def __init__(self, arguments, folder):
        super().__init__(arguments, folder)
        self.endpoints = {name: f"tcp://127.0.0.1:{port}" for name, port in zip(self.endpoints, free_ports(3))}
        self.allow = f"{folder}/allow"
        self.public = {}
        for name in (*ROLES, "publisher", "stranger"):
            made = subprocess.run([arguments.trainctl, "keygen", "curve", "--out", self.key(name), "--json"], check=True,
                                  capture_output=True, text=True)
            self.public[name] = json.loads(made.stdout)["public"]
        self.write_list(ROLES)

    def key(self, name, suffix=""):
        return f"{self.folder}/{name}{suffix}"

    def write_list(self, names, more=""):
        """Written beside it and renamed, as an editor does: nobody reads half a list."""
        with open(f"{self.allow}.new", "w") as file:
            file.write("# who is who\n" + "".join(f"{self.public[name]} {ROLES[name]} {name}\n" for name in names) + more)
        os.chmod(f"{self.allow}.new", 0o644)
        os.rename(f"{self.allow}.new", self.allow)

    def start_secure_publisher(self):
        self.start_publisher("publish.activate=manual", f"security.key={self.key('publisher', '.key')}", f"security.allow={self.allow}")

    def start_secure_member(self, name, key=None, server_key="publisher"):
        return self.start_member(name, f"security.key={self.key(key or name, '.key')}",
                                 f"publisher.server_key={self.key(server_key, '.pub')}")

    def command_as(self, name, *words):
        flag = "--to" if words[0] == "publish" else "--at"
        return [self.arguments.trainctl, *words, flag, self.endpoints["control"], "--key", self.key(name, ".key"),
                "--server-key", self.key("publisher", ".pub")]

    def ask_as(self, name, *words):
        return subprocess.run(self.command_as(name, *words), capture_output=True, text=True, timeout=60)

    def do_as(self, name, *words):
        result = self.ask_as(name, *words)
        assert result.returncode == 0, f"{name}: {words}: {result.stderr}"
        return result.stdout

    def refuse(self, name, role, *words):
        result = self.ask_as(name, *words)
        assert result.returncode == 1 and f"the key of {name} may not" in result.stderr and f"the role {role}" in result.stderr, result

    def members(self):
        return {row["member"]: row for row in json.loads(self.do_as("desk", "models", "--json"))["members"]}

    def log_of(self, name):
        return self.processes[name].log()


def make(pool, name, seed):
    path = f"{pool.folder}/{name}"
    subprocess.run([pool.arguments.make_model, path, name, str(seed)], check=True)
    return path


def roll_out(pool, name):
    pool.do_as("desk", "approve", f"{name}:1", "--by", "Ann")
    plan = f"{pool.arguments.source}/configs/rollouts/direct.yaml"
    pool.do_as("desk", "rollout", "start", f"{name}:1", "--plan", plan, "--by", "Ann")


def each_role_does_its_own(pool):
    path = make(pool, "first", 1)
    pool.refuse("ward-1", "trainer, admin", "publish", path)
    pool.do_as("builder", "publish", path)
    for name in ("ward-1", "builder"):
        pool.refuse(name, "admin", "approve", "first:1", "--by", "Eve")
    roll_out(pool, "first")
    for name in ("ward-1", "ward-2"):
        pool.processes[name].wait_ready(programs.file_digest(path))
        pool.refuse(name, "admin", "rollback", "--by", "Eve")
    models = json.loads(pool.do_as("builder", "models", "--json"))["models"]
    assert models[0]["approved_by"] == "Ann (key desk)", models
    assert "request_denied" in pool.log_of("trainerd"), pool.log_of("trainerd")
    print("each key does what its role lets it, and the record says whose key approved")


def the_wrong_keys_reach_nobody(pool):
    for name, word in (("stranger", pool.public["stranger"]), ("misled", "publisher.server_key is not its key")):
        until(f"{name} says why: {pool.log_of(name)}",
              lambda name=name, word=word: "handshake fails" in pool.log_of(name) and word in pool.log_of(name))
        assert pool.processes[name].status()["condition"] == "NO_MODEL", pool.processes[name].status()
    until(f"the publisher says whom it refused: {pool.log_of('trainerd')}",
          lambda: f"key {pool.public['stranger']} is not allowed" in pool.log_of("trainerd"))
    for name in ("stranger", "misled"):
        pool.processes[name].stop()
    clear = subprocess.run([pool.arguments.trainctl, "models", "--at", pool.endpoints["control"], "--timeout-ms", "1500"],
                           capture_output=True, text=True)
    assert clear.returncode == 1 and "--key" in clear.stderr, clear
    print("a key in no list and a wrong server key get nothing, and their logs say why")


def trainctl_wants_both_keys(pool):
    words = [pool.arguments.trainctl, "models", "--at", pool.endpoints["control"]]
    for one, other in (("--key", "--server-key"), ("--server-key", "--key")):
        result = subprocess.run([*words, one, pool.key("desk", ".key" if one == "--key" else ".pub")], capture_output=True, text=True)
        assert result.returncode == 2 and f"{one} wants {other}" in result.stderr, result
    told = {**os.environ, "THORAX_KEY": pool.key("desk", ".key"), "THORAX_SERVER_KEY": pool.public["publisher"]}
    result = subprocess.run(words, capture_output=True, text=True, env=told)
    assert result.returncode == 0 and "ward-1" in result.stdout, result
    print("trainctl takes its keys from the environment too, and both or none")


def import_pool_messages(pool):
    folder = f"{pool.folder}/messages"
    os.mkdir(folder)
    subprocess.run(["protoc", f"--proto_path={pool.arguments.source}/proto", f"--python_out={folder}", "pool.proto", "model.proto"],
                   check=True)
    sys.path.insert(0, folder)
    import pool_pb2

    return pool_pb2


def secret(pool, name):
    with open(pool.key(name, ".key")) as file:
        return next(line.split()[1] for line in file if line.startswith("secret "))


def a_forged_report_changes_nothing(pool):
    messages = import_pool_messages(pool)
    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.linger = 0
    peer.curve_serverkey = pool.public["publisher"].encode()
    peer.curve_publickey, peer.curve_secretkey = pool.public["ward-2"].encode(), secret(pool, "ward-2").encode()
    peer.connect(pool.endpoints["control"])
    report = messages.MemberReport(member="ward-1", state=messages.MEMBER_FAILED, error="made up")
    peer.send(messages.ControlRequest(protocol_version=1, report=report).SerializeToString())
    assert peer.poll(SOON_S * 1000), "no answer"
    reply = messages.ControlReply.FromString(peer.recv())
    assert reply.refusal.code == DENIED and "does not speak for" in reply.refusal.message, reply
    peer.close()
    context.term()
    row = pool.members()["ward-1"]
    assert row["state"] == "idle" and not row["error"], row
    print("a report in another member's name is denied, and its state is untouched")


def revocation_needs_no_restart(pool):
    second = make(pool, "second", 2)
    pool.write_list([name for name in ROLES if name != "ward-2"])
    until("ward-2 is gone", lambda: pool.members()["ward-2"]["silent_ms"] > 3000)
    pool.do_as("builder", "publish", second)
    roll_out(pool, "second")
    pool.processes["ward-1"].wait_ready(programs.file_digest(second))
    status = pool.processes["ward-2"].status()
    assert status["condition"] == "READY" and status["model"]["digest"] != programs.file_digest(second).hex(), status
    pool.write_list(ROLES)
    pool.processes["ward-2"].wait_ready(programs.file_digest(second))
    print("a member whose key is taken out is heard no more and serves on; put in again it comes after")


def a_mistake_in_the_list_changes_nothing(pool):
    pool.write_list(["desk"], "nonsense\n")
    until(f"the log says so: {pool.log_of('trainerd')}", lambda: "allow_list_not_read" in pool.log_of("trainerd"))
    assert f"{pool.allow}:3" in pool.log_of("trainerd") and "stays in force" in pool.log_of("trainerd"), pool.log_of("trainerd")
    assert pool.members()["ward-2"]["silent_ms"] < 3000
    pool.write_list(ROLES)
    print("a list with a mistake is not taken, and the one before stays in force")


def assert_start_fails(command, *words):
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = result.stdout + result.stderr
    assert result.returncode != 0 and all(word in said for word in words), f"{words}: {result}"


def what_is_unsafe_does_not_start(pool):
    os.chmod(pool.key("stranger", ".key"), 0o644)
    member = [pool.arguments.inferd, "--config", f"{pool.arguments.source}/configs/inferd/member.yaml"]
    publisher = [pool.arguments.trainerd, "--config", f"{pool.arguments.source}/configs/trainerd/publisher.yaml"]
    readable = ["--set", f"security.key={pool.key('stranger', '.key')}"]
    listed = ["--set", f"security.allow={pool.allow}", "--set", f"publisher.server_key={pool.key('publisher', '.pub')}"]
    assert_start_fails([*member, *readable, *listed], "stranger.key", "chmod")
    assert_start_fails([*publisher, *readable, *listed[:2]], "stranger.key", "chmod")
    assert_start_fails(pool.command_as("stranger", "models"), "stranger.key", "chmod")
    (port,) = free_ports(1)
    unused = ["--set", f"publish.store={pool.folder}/unused", "--set", f"run.directory={pool.folder}/unused"]
    assert_start_fails([*publisher, *unused, "--set", f"publish.announce=tcp://0.0.0.0:{port}"], "0.0.0.0", "security.insecure")
    assert_start_fails([*member, "--set", f"server.bind=['tcp://0.0.0.0:{port}']", "--set", f"store.directory={pool.folder}/unused-2"],
                       "0.0.0.0", "security.insecure")
    assert_start_fails([*publisher, "--set", f"security.key={pool.key('desk', '.key')}"], "security.allow")
    print("keys that others can read, and clear text on the network, are refused")


def run(pool):
    pool.start_secure_publisher()
    for name in ("ward-1", "ward-2", "stranger"):
        pool.start_secure_member(name)
    pool.start_secure_member("misled", key="ward-1", server_key="desk")
    each_role_does_its_own(pool)
    the_wrong_keys_reach_nobody(pool)
    trainctl_wants_both_keys(pool)
    a_forged_report_changes_nothing(pool)
    revocation_needs_no_restart(pool)
    a_mistake_in_the_list_changes_nothing(pool)
    what_is_unsafe_does_not_start(pool)
    for name in ("ward-1", "ward-2", "trainerd"):
        pool.processes[name].stop()


def main():
    arguments = programs.parse_arguments(__doc__)
    with programs.temporary_folder() as folder:
        pool = SecurePool(arguments, folder)
        try:
            run(pool)
        finally:
            pool.kill()


if __name__ == "__main__":
    sys.exit(main())
