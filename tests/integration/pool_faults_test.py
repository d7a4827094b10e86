#!/usr/bin/env python3
"""What breaks around a pool of real programs: each time there is a clear error, and the pool serves on.

A member's disk is full, its store is read-only, the publisher's disk is full; a model file and a descriptor that are cut short;
two publishers on one store and on one address. Full and read-only disks are small file systems in memory, which takes root."""
import hashlib
import json
import os
import subprocess
import sys
import time

import programs

WAIT_S = 60
DISK_BYTES = 320 << 20  # a test's model has 43 MiB
CHUNK = 262144


class Disk:
    """A small file system at path."""

    def __init__(self, path):
        self.path, self.filler = path, f"{path}/filler"
        os.mkdir(path)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "thorax", path]
        self.mounted = subprocess.run(command, capture_output=True).returncode == 0

    def fill(self):
        """To the last page."""
        with open(self.filler, "wb", buffering=0) as file:
            try:
                while file.write(bytes(65536)):
                    pass
            except OSError:
                pass

    def make_room(self):
        os.unlink(self.filler)

    def forbid_writing(self):
        """By a second mount on top: the first one, in which files are open, could not become read-only."""
        subprocess.run(["mount", "--bind", self.path, self.path], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", self.path], check=True)

    def allow_writing(self):
        subprocess.run(["umount", "-l", self.path], check=True)

    def release(self):
        while os.path.ismount(self.path):
            subprocess.run(["umount", "-l", self.path], check=True)


class Site:
    def __init__(self, arguments, folder, client):
        self.arguments, self.folder, self.client = arguments, folder, client
        self.endpoints = {name: f"ipc://{folder}/{name}.pub" for name in ("announce", "control", "blobs")}
        self.image = programs.encode(programs.picture(1))
        self.processes, self.seed = [], 0

    def publisher_command(self, store="published", endpoints=None):
        command = [self.arguments.trainerd, "--config", f"{self.arguments.source}/configs/trainerd/publisher.yaml"]
        for name, endpoint in (endpoints or self.endpoints).items():
            command += ["--set", f"publish.{name}={endpoint}"]
        command += ["--set", f"publish.store={self.folder}/{store}", "--set", "publish.activate=auto"]
        return command + ["--set", f"run.directory={self.folder}/runs"]

    def start_publisher(self, **where):
        self.publisher = programs.Process(self.folder, "trainerd", self.publisher_command(**where))
        self.processes.append(self.publisher)

    def start_member(self, store):
        command = [self.arguments.inferd, "--config", f"{self.arguments.source}/configs/inferd/member.yaml"]
        for key, endpoint in self.endpoints.items():
            command += ["--set", f"publisher.{key}={endpoint}"]
        self.member = programs.Member(self.folder, "member", self.arguments.inferctl,
                                      command + ["--set", f"store.directory={store}"])
        self.processes.append(self.member)

    def make(self):
        self.seed += 1
        path = f"{self.folder}/model{self.seed}"
        subprocess.run([self.arguments.make_model, path, f"model{self.seed}", str(self.seed)], check=True)
        return path, programs.file_digest(path)

    def try_publish(self, path):
        command = [self.arguments.trainctl, "publish", path, "--to", self.endpoints["control"]]
        return subprocess.run(command, capture_output=True, text=True)

    def publish(self):
        path, digest = self.make()
        result = self.try_publish(path)
        assert result.returncode == 0, result.stderr
        return digest

    def models(self):
        command = [self.arguments.trainctl, "models", "--at", self.endpoints["control"], "--json"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def assert_serves(self, digest):
        """The member answers a request, with this model."""
        client = self.client.Client(self.member.endpoint)
        reply = client.diagnose(self.image)
        client.close()
        assert reply.model.digest == digest, reply

    def wait_taken(self, digest):
        """Until the member serves a model; then it answers with it."""
        self.member.wait_ready(digest)
        self.assert_serves(digest)

    def registered(self):
        """What the publisher's registry has, and what each is in the pool."""
        return {row["digest"]: row["state"] for row in self.models()["models"]}

    def wait_failed(self, *words):
        """Until the publisher lists the member as failed, with one of these words in its error."""
        deadline = time.monotonic() + WAIT_S
        while True:
            rows = self.models()["members"]
            if rows and rows[0]["state"] == "failed" and any(word in rows[0]["error"] for word in words):
                return
            assert time.monotonic() < deadline, f"not failed for {words}: {rows} {self.member.log()[-2000:]}"
            time.sleep(0.1)


def a_member_without_room_serves_on(site, disk, old):
    disk.fill()
    new = site.publish()
    site.wait_failed("No space left on device")
    site.assert_serves(old)
    disk.make_room()
    site.wait_taken(new)  # by itself
    print("a member whose disk is full says so, serves its old model, and takes the new one when there is room")
    return new


def a_member_that_cannot_write_serves_on(site, disk, old):
    disk.forbid_writing()
    new = site.publish()
    site.wait_failed("Read-only file system")
    site.assert_serves(old)
    disk.allow_writing()
    site.wait_taken(new)
    print("a member whose store is read-only says so, serves its old model, and takes the new one later")
    return new


def a_publisher_without_room_refuses_and_stays_consistent(site, disk, old):
    path, new = site.make()
    before = site.registered()
    disk.fill()
    result = site.try_publish(path)
    assert result.returncode == 1 and "No space left on device" in result.stderr, result
    assert site.registered() == before, (site.registered(), before)
    site.assert_serves(old)
    disk.make_room()
    result = site.try_publish(path)
    assert result.returncode == 0, result.stderr
    site.wait_taken(new)
    print("a publisher whose disk is full refuses a model with the reason, and takes it when there is room")
    return new


def what_is_cut_short_is_refused(site, old):
    """A model file that ends too early, at trainctl and at the publisher; a descriptor that does."""
    path, _ = site.make()
    with open(path, "rb") as file:
        data = file.read()
    data = data[:len(data) * 2 // 3]
    with open(path, "wb") as file:
        file.write(data)
    result = site.try_publish(path)
    assert result.returncode == 1 and path in result.stderr, result
    refusal = upload(site, data)
    assert refusal and "safetensors" in refusal.message, refusal
    for size in (1, 20, 40):
        refusal = upload(site, data, cut=size)
        assert refusal and "descriptor" in refusal.message, refusal
    digest = hashlib.sha256(data).hexdigest()
    assert digest not in site.registered()
    site.assert_serves(old)
    print("a model file and a descriptor that are cut short are refused with the reason")


def upload(site, data, cut=None):
    """As trainctl does, without looking into the file. Returns the publisher's refusal, None: it was published."""
    digest = hashlib.sha256(data).digest()
    chunks = b"".join(hashlib.sha256(data[i:i + CHUNK]).digest() for i in range(0, len(data), CHUNK))
    packed = model_pb2.ModelDescriptor(name="short", version="1", digest=digest, size_bytes=len(data), chunk_bytes=CHUNK,
                                       chunk_digests=chunks, created_ms=1).SerializeToString()
    packed = packed[:-cut] if cut else packed
    offered = model_pb2.PublishedModel(descriptor=packed, descriptor_digest=hashlib.sha256(packed).digest())
    socket = programs.zmq.Context.instance().socket(programs.zmq.DEALER)
    socket.setsockopt(programs.zmq.LINGER, 0)
    socket.connect(site.endpoints["control"])
    request = pool_pb2.ControlRequest(protocol_version=1, upload=pool_pb2.UploadRequest(model=offered))
    frames = [request.SerializeToString()]
    while True:
        socket.send_multipart(frames)
        assert socket.poll(20000), "the publisher does not answer"
        reply = pool_pb2.ControlReply.FromString(socket.recv())
        if reply.HasField("refusal"):
            return reply.refusal
        if reply.upload.published:
            return None
        offset = reply.upload.offset
        chunk = pool_pb2.UploadChunk(digest=digest, offset=offset)
        frames = [pool_pb2.ControlRequest(protocol_version=1, chunk=chunk).SerializeToString(), data[offset:offset + CHUNK]]


def any_answer_is_json(site):
    """What a publisher says may hold any character."""
    endpoint, message = f"ipc://{site.folder}/strange", 'done: "so\\far"'
    socket = programs.zmq.Context.instance().socket(programs.zmq.ROUTER)
    socket.bind(endpoint)
    command = [site.arguments.trainctl, "approve", "chest:1", "--by", "Ann", "--at", endpoint, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert socket.poll(1000 * WAIT_S), "trainctl does not ask"
        route = socket.recv_multipart()[0]
        reply = pool_pb2.ControlReply(protocol_version=1, incarnation=1, done=pool_pb2.Done(message=message))
        socket.send_multipart([route, reply.SerializeToString()])
        assert json.loads(process.communicate(timeout=WAIT_S)[0]) == {"done": message}
    socket.close()
    print("an answer with quotes in it is JSON all the same")


def a_second_publisher_ends(site, old):
    others = {name: f"ipc://{site.folder}/{name}.other" for name in site.endpoints}
    for where, words in (({"store": site.store, "endpoints": others}, ("open in another process", "published")),
                         ({"store": "elsewhere", "endpoints": tcp(site)}, ("ddress already in use", "tcp://"))):
        result = subprocess.run(site.publisher_command(**where), capture_output=True, text=True, timeout=WAIT_S)
        assert result.returncode == 1, result
        assert all(word in result.stderr for word in words), result.stderr
        site.assert_serves(old)
    print("a second publisher on the same store, or on the same address, says so and ends")


def tcp(site):
    """Endpoints of which one is taken: sockets in a folder are no measure, they can be bound twice."""
    site.taken = programs.zmq.Context.instance().socket(programs.zmq.ROUTER)
    port = site.taken.bind_to_random_port("tcp://127.0.0.1")
    others = {name: f"ipc://{site.folder}/{name}.third" for name in site.endpoints}
    return dict(others, control=f"tcp://127.0.0.1:{port}")


def run(site, disks):
    site.store = "publisher-disk/published" if disks else "published"
    site.start_publisher(store=site.store)
    site.start_member(f"{site.folder}/member-disk/store" if disks else f"{site.folder}/store")
    current = site.publish()
    site.wait_taken(current)
    if disks:
        current = a_member_without_room_serves_on(site, disks[0], current)
        current = a_member_that_cannot_write_serves_on(site, disks[0], current)
        current = a_publisher_without_room_refuses_and_stays_consistent(site, disks[1], current)
    what_is_cut_short_is_refused(site, current)
    any_answer_is_json(site)
    a_second_publisher_ends(site, current)
    site.member.stop()
    site.publisher.stop()


def main():
    arguments = programs.parse_arguments(__doc__.splitlines()[0])
    with programs.temporary_folder() as folder:
        global model_pb2, pool_pb2
        client = programs.import_messages(arguments.source, folder)[2]
        command = ["protoc", f"--proto_path={arguments.source}/proto", f"--python_out={folder}", "pool.proto", "model.proto"]
        subprocess.run(command, check=True)
        import model_pb2
        import pool_pb2

        disks = [Disk(f"{folder}/{name}") for name in ("member-disk", "publisher-disk")]
        usable = all(disk.mounted for disk in disks)
        if not usable:
            print("no file systems can be mounted here: full and read-only disks are left out")
        site = Site(arguments, folder, client)
        try:
            run(site, disks if usable else None)
        finally:
            for process in site.processes:
                process.kill()
            for disk in disks:
                disk.release()


if __name__ == "__main__":
    sys.exit(main())
