#!/usr/bin/env python3
"""Members and publishers of other versions of the program in one pool.

A publisher works with a member that knows less than it does (version 0.1.0: no incarnation, no statistics, asks for a snapshot
only when it misses an event) and with one that knows more (fields, an event and a request of numbers that are not taken yet).
An inferd works with a publisher that knows more, and with one of 0.1.0, whose event 2 said what to run. Those other programs
are written down here, from their protocol; the program under test is the real one on each side."""
import hashlib
import sys
import threading
import time

import programs

LATER_FIELD = 29  # not taken in any message yet
LATER_EVENT = 14
CHUNK = 262144


def field(number, payload):
    """A length-delimited field as protobuf packs it."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def publish(arguments, control, path):
    command = [arguments.trainctl, "publish", path, "--to", control]
    result = programs.subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


class FakeMember:
    """A member that fetches nothing and says that it runs what it was given a turn for."""

    def __init__(self, endpoint, name, later=False):
        self.name, self.later, self.active, self.target = name, later, b"", b""
        self.socket = programs.zmq.Context.instance().socket(programs.zmq.DEALER)
        self.socket.setsockopt(programs.zmq.LINGER, 0)
        self.socket.connect(endpoint)

    def send(self, **body):
        waits = self.target != self.active
        report = pool.MemberReport(member=self.name, state=pool.MEMBER_WAITING if waits else pool.MEMBER_IDLE,
                                   active_digest=self.active, target_digest=self.target, software="0.1.0")
        more = field(LATER_FIELD, b"what it knows more") if self.later else b""
        request = pool.ControlRequest(protocol_version=1, **body).SerializeToString()
        self.socket.send(request + field(2, report.SerializeToString() + more) + more)

    def ask(self, kind, **body):
        """Sends a request and returns the answer of that kind; a turn may come in between, whenever it is given."""
        self.send(**body)
        while True:
            assert self.socket.poll(10000), f"the publisher does not answer {self.name}"
            reply = pool.ControlReply.FromString(self.socket.recv())
            if reply.HasField("turn"):
                self.take_turn(reply.turn)
            assert not reply.HasField("refusal"), f"{self.name} is refused: {reply.refusal.message}"
            if reply.WhichOneof("body") == kind:
                return reply

    def converge(self, digest):
        """Does as a member does until it runs the model."""
        deadline = time.monotonic() + 30
        while self.active != digest:
            assert time.monotonic() < deadline, f"{self.name} never got its turn for the model"
            current = self.ask("snapshot", snapshot=pool.SnapshotRequest()).snapshot.current
            self.target = model.ModelDescriptor.FromString(current.descriptor).digest
            if self.target != self.active:
                self.send(turn=pool.TurnRequest(digest=self.target))
            time.sleep(0.05)

    def take_turn(self, turn):
        self.active = turn.digest
        outcome = pool.TurnOutcome(turn=turn.turn, digest=turn.digest, result=pool.TURN_ACTIVATED)
        self.send(outcome=outcome)


def a_later_request_is_refused_and_harms_nothing(endpoint):
    asker = FakeMember(endpoint, "asker").socket
    asker.send(pool.ControlRequest(protocol_version=1).SerializeToString() + field(LATER_FIELD, b"?"))
    assert asker.poll(10000), "it is not answered"
    assert pool.ControlReply.FromString(asker.recv()).HasField("refusal"), "it is not refused"


def the_publisher_takes_members_of_other_versions(arguments, folder):
    endpoints = {name: f"ipc://{folder}/{name}.pub" for name in ("announce", "control", "blobs")}
    command = [arguments.trainerd, "--config", f"{arguments.source}/configs/trainerd/publisher.yaml"]
    for name, endpoint in endpoints.items():
        command += ["--set", f"publish.{name}={endpoint}"]
    command += ["--set", f"publish.store={folder}/published", "--set", "publish.activate=auto"]
    command += ["--set", f"run.directory={folder}/runs"]
    publisher = programs.Process(folder, "trainerd", command)
    try:
        members = [FakeMember(endpoints["control"], "older"), FakeMember(endpoints["control"], "newer", later=True)]
        for path in (f"{folder}/first", f"{folder}/second"):
            publish(arguments, endpoints["control"], path)
            digest = programs.file_digest(path)
            threads = [threading.Thread(target=member.converge, args=(digest,)) for member in members]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert all(member.active == digest for member in members), publisher.log()
        a_later_request_is_refused_and_harms_nothing(endpoints["control"])
        rows = members[0].ask("models", models=pool.ModelsRequest()).models.members
        assert {row.report.member for row in rows} == {"older", "newer"}, rows
        publisher.stop()
    finally:
        publisher.kill()
    print("a publisher works with an older and a newer member")


class FakePublisher(threading.Thread):
    """Offers one model to all members, and gives every turn that is asked for."""

    def __init__(self, folder, later):
        super().__init__(daemon=True)
        self.endpoints = {name: f"ipc://{folder}/{name}.fake" for name in ("announce", "control", "blobs")}
        kinds = {"announce": programs.zmq.XPUB, "control": programs.zmq.ROUTER, "blobs": programs.zmq.ROUTER}
        self.sockets = {name: programs.zmq.Context.instance().socket(kind) for name, kind in kinds.items()}
        for name, socket in self.sockets.items():
            socket.setsockopt(programs.zmq.LINGER, 0)
            socket.bind(self.endpoints[name])
        self.later, self.number, self.files, self.current = later, 1, {}, None
        self.change, self.halt = threading.Event(), threading.Event()
        self.next_path = None

    def offer(self, path):
        with open(path, "rb") as file:
            data = file.read()
        digest = hashlib.sha256(data).digest()
        chunks = b"".join(hashlib.sha256(data[i:i + CHUNK]).digest() for i in range(0, len(data), CHUNK))
        packed = model.ModelDescriptor(name="model", version="1", digest=digest, size_bytes=len(data), chunk_bytes=CHUNK,
                                       chunk_digests=chunks, created_ms=int(time.time() * 1000)).SerializeToString()
        if self.later:
            packed += field(LATER_FIELD, b"what it knows more")
        self.files[digest] = data
        self.current = model.PublishedModel(descriptor=packed, descriptor_digest=hashlib.sha256(packed).digest())
        self.digest = digest

    def announce(self, kind, **fields):
        event = pool.Announcement(protocol_version=1, incarnation=7, number=self.number, **fields)
        packed = event.SerializeToString() + varint(4 << 3) + varint(kind)
        if kind == 2:
            packed += field(6, self.digest)  # 0.1.0: ACTIVATE and the digest
        self.sockets["announce"].send(packed)

    def switch(self, path):
        """From the test's thread: from now on the pool is to run this model."""
        self.next_path = path
        self.change.set()

    def run(self):
        heartbeat = 0
        while not self.halt.is_set():
            for name, serve in (("control", self.serve_control), ("blobs", self.serve_blob)):
                while self.sockets[name].poll(10):
                    serve(*self.sockets[name].recv_multipart()[:2])
            if self.change.is_set():
                self.change.clear()
                self.offer(self.next_path)
                self.number += 1
                self.announce(LATER_EVENT if self.later else 2)
            if time.monotonic() > heartbeat:
                self.announce(pool.EVENT_HEARTBEAT)
                heartbeat = time.monotonic() + 0.5
        for socket in self.sockets.values():
            socket.close()

    def serve_control(self, route, payload):
        request = pool.ControlRequest.FromString(payload)
        reply = pool.ControlReply(protocol_version=1, incarnation=7, number=self.number)
        if request.HasField("snapshot"):
            reply.snapshot.current.CopyFrom(self.current)
        elif request.HasField("turn"):
            reply.turn.CopyFrom(pool.Turn(turn=self.number, digest=request.turn.digest, lease_ms=60000))
        packed = reply.SerializeToString() + (field(LATER_FIELD, b"more") if self.later else b"")
        self.sockets["control"].send_multipart([route, packed])

    def serve_blob(self, route, payload):
        request = pool.BlobRequest.FromString(payload)
        data = self.files[request.digest]
        for i in range(request.chunks):
            offset = request.offset + i * CHUNK
            if offset < len(data):
                header = pool.BlobChunk(protocol_version=1, digest=request.digest, offset=offset).SerializeToString()
                self.sockets["blobs"].send_multipart([route, header, data[offset:offset + CHUNK]])


def an_inferd_follows_publishers_of_other_versions(arguments, folder, later):
    name = "newer" if later else "older"
    publisher = FakePublisher(f"{folder}/{name}", later)
    publisher.offer(f"{folder}/first")
    publisher.start()
    command = [arguments.inferd, "--config", f"{arguments.source}/configs/inferd/member.yaml"]
    for key, endpoint in publisher.endpoints.items():
        command += ["--set", f"publisher.{key}={endpoint}"]
    command += ["--set", f"store.directory={folder}/{name}-store"]
    member = programs.Member(f"{folder}/{name}", "member", arguments.inferctl, command)
    try:
        member.wait_ready(programs.file_digest(f"{folder}/first"))
        publisher.switch(f"{folder}/second")
        member.wait_ready(programs.file_digest(f"{folder}/second"))
        member.stop()
    finally:
        member.kill()
        publisher.halt.set()
        publisher.join()
    print(f"an inferd follows a publisher of {'a later version' if later else '0.1.0'}")


def main():
    arguments = programs.parse_arguments(__doc__.splitlines()[0])
    with programs.temporary_folder() as folder:
        global pool, model
        programs.import_messages(arguments.source, folder)
        command = ["protoc", f"--proto_path={arguments.source}/proto", f"--python_out={folder}", "pool.proto", "model.proto"]
        programs.subprocess.run(command, check=True)
        import model_pb2 as model
        import pool_pb2 as pool

        for seed, name in ((1, "first"), (2, "second")):
            programs.subprocess.run([arguments.make_model, f"{folder}/{name}", name, str(seed)], check=True)
        the_publisher_takes_members_of_other_versions(arguments, folder)
        for later in (False, True):
            programs.os.mkdir(f"{folder}/{'newer' if later else 'older'}")
            an_inferd_follows_publishers_of_other_versions(arguments, folder, later)


if __name__ == "__main__":
    sys.exit(main())
