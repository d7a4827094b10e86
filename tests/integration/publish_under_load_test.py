#!/usr/bin/env python3
"""Models whose answers differ clearly are published one after the other while clients ask both members.

Every request must be answered, by the model that the answer names (compared with what that model's file gives alone in
an `inferd --model`), for the image whose digest it echoes. Pictures of one study (one routing key) are answered by one
model, or the answer says that this was not possible. On the way: a member that starts late fetches by itself; a
member that is stopped answers what it accepted; one that starts again without a trainer serves its last model. The first
member computes in two instances, where there are processors for them."""
import hashlib
import os
import random
import sys
import threading
import time

import pool_programs
import programs

OUTSTANDING = 48  # requests that a member is stopped in the midst of
REQUEST_MS = 60000
PICTURES = 8
PAUSE_S = 0.01  # between an asker's questions: without it the test's own processors are what activation waits for
STUDY = 5  # pictures with one routing key


class Pool(pool_programs.Pool):
    """Publisher, members and what each model answers alone."""

    def __init__(self, arguments, folder, models):
        super().__init__(arguments, folder)
        self.known, self.images, self.everything = models, models.images, []

    def start_publisher(self):
        return self.keep(super().start_publisher("publish.activate=auto"))

    def start_member(self, name):
        small = "batch.max=4"  # so that a model is loaded in less than a second
        return self.keep(super().start_member(name, small, f"device.instances={self.instances(name)}"))

    def instances(self, name):
        return min(2, len(os.sched_getaffinity(0))) if name == "a" else 1

    def keep(self, process):
        self.everything.append(process)
        return process


class Asker(threading.Thread):
    """Asks one member about pictures in random order until told to stop."""

    def __init__(self, pool, member, seed):
        super().__init__(daemon=True)
        self.pool, self.endpoint, self.random = pool, member.endpoint, random.Random(seed)
        self.halt = threading.Event()
        self.asked, self.answered, self.by_model, self.faults = 0, 0, {}, []
        self.first, self.kept, self.changed = None, 0, 0  # the study's first model; later pictures that it got, and did not get
        self.start()

    def run(self):
        client = thorax_client.Client(self.endpoint, REQUEST_MS)
        while not self.halt.is_set():
            image = self.random.choice(self.pool.images)
            if self.asked % STUDY == 0:
                key, self.first = self.random.randbytes(16), None
            self.asked += 1
            try:
                self.take(client.diagnose(image, routing_key=key), image)
            except Exception as reason:  # whatever it is, it counts as a request without an answer
                self.faults.append(f"no answer: {reason!r}")
            time.sleep(PAUSE_S)
        client.close()

    def take(self, reply, image):
        if reply.status != diagnosis.STATUS_OK:
            self.faults.append(f"no answer: {diagnosis.Status.Name(reply.status)} {reply.message}")
            return
        self.answered += 1
        self.by_model[reply.model.name] = self.by_model.get(reply.model.name, 0) + 1
        fault = self.pool.known.fault_of(reply, image)
        if fault:
            self.faults.append(f"the answer {fault}")
        self.check_study(reply)

    def check_study(self, reply):
        """One study, one model; or the reply names the one before."""
        warned = any(warning.code == diagnosis.WARNING_MODEL_CHANGED for warning in reply.warnings)
        if self.first is None:
            self.first = reply.model.digest
        if reply.model.digest == self.first and not warned and not reply.pinned_model:
            self.kept += 1
        elif reply.model.digest != self.first and warned and reply.pinned_model == self.first:
            self.changed += 1
        else:
            self.faults.append("the answer is by another model than its study's, and does not say so (or says so and is not)")

    def stop(self):
        self.halt.set()
        self.join()


def publish_all(pool, members, askers, seconds):
    """The first half one by one, each awaited at every member; then a member joins late; the rest in a row."""
    half = len(pool.known.paths) // 2
    for path in pool.known.paths[1:half]:
        pool.publish(path)
        for member in members:
            member.wait_ready(programs.file_digest(path))
        time.sleep(seconds)
    late = pool.start_member("late")
    members.append(late)
    late.wait_ready()
    askers.append(Asker(pool, late, 99))
    for path in pool.known.paths[half:]:
        pool.publish(path)
        time.sleep(seconds)
    for member in members:
        member.wait_ready(programs.file_digest(pool.known.paths[-1]))
    time.sleep(1)


def report(askers, published):
    asked, answered = sum(a.asked for a in askers), sum(a.answered for a in askers)
    faults = [fault for a in askers for fault in a.faults]
    wrong = sum(fault.startswith("the answer") for fault in faults)
    by_model = {}
    for asker in askers:
        for name, count in asker.by_model.items():
            by_model[name] = by_model.get(name, 0) + count
    print(f"published {published}  asked {asked}  answered {answered}  wrong {wrong}  lost {asked - answered}")
    kept, changed = sum(a.kept for a in askers), sum(a.changed for a in askers)
    print(f"by the study's model {kept}  by another, and said so {changed}")
    print("answers by model: " + "  ".join(f"{name} {count}" for name, count in sorted(by_model.items())))
    for fault in faults[:10]:
        print(f"  {fault}")
    assert not faults and asked == answered, "requests were lost or answered wrongly"
    assert len(by_model) > published // 2, "most models were never asked"


def assert_all_instances_computed(pool, member):
    batches = [instance["batches"] for instance in member.status()["instances"]]
    print(f"batches by instance of {member.name}: {batches}")
    assert len(batches) == pool.instances(member.name) and all(batches), "an instance was never used"


def stop_with_requests_outstanding(pool, member):
    """SIGTERM while requests wait: each that was accepted is answered, and rightly."""
    socket = programs.zmq.Context.instance().socket(programs.zmq.DEALER)
    socket.connect(member.endpoint)
    images = {}
    for i in range(OUTSTANDING):
        images[str(i)] = pool.images[i % PICTURES]
        request = thorax_client.make_request(pool.images[i % PICTURES], request_id=str(i))
        socket.send_multipart([b"", request.SerializeToString()])
    accepted = envelope.Envelope(protocol_version=1, status_request=diagnosis.StatusRequest())
    socket.send_multipart([b"", accepted.SerializeToString()])  # read after all that went before it
    outstanding = None
    while images or outstanding is None:
        assert socket.poll(REQUEST_MS), f"{len(images)} requests were accepted and not answered: {member.log()[-2000:]}"
        answer = envelope.Envelope.FromString(socket.recv_multipart()[-1])
        if answer.WhichOneof("body") == "status_reply":
            outstanding = len(images)
            member.signal_stop()
            continue
        reply = answer.diagnosis_reply
        assert reply.status == diagnosis.STATUS_OK, reply.message
        fault = pool.known.fault_of(reply, images.pop(reply.request_id))
        assert not fault, f"while it shut down, the answer {fault}"
    member.wait()
    socket.close()
    print(f"stopped with {outstanding} requests outstanding: all were answered")


def restart_alone(pool, name):
    """With no trainer in reach, a member that starts again serves what it served last."""
    member = pool.start_member(name)
    member.wait_ready(programs.file_digest(pool.known.paths[-1]))
    client = thorax_client.Client(member.endpoint, REQUEST_MS)
    for image in pool.images:
        reply = client.diagnose(image)
        assert reply.status == diagnosis.STATUS_OK, reply.message
        assert not pool.known.fault_of(reply, image), pool.known.fault_of(reply, image)
    client.close()
    member.stop()
    print("restarted without a trainer: serves its last model")


def assert_says_nothing_of_pictures(pool):
    logs = "".join(process.log() for process in pool.everything)
    for image in pool.images:
        assert hashlib.sha256(image).hexdigest() not in logs, "a log names a picture"


def run(pool, arguments):
    start = time.monotonic()
    pool.known.make(arguments.publishes + 1)
    print(f"models made after {time.monotonic() - start:.0f} s")
    publisher = pool.start_publisher()
    pool.publish(pool.known.paths[0])
    members = [pool.start_member("a"), pool.start_member("b")]
    for member in members:
        member.wait_ready(programs.file_digest(pool.known.paths[0]))
    askers = [Asker(pool, members[i % 2], i) for i in range(2 * arguments.askers)]
    publish_all(pool, members, askers, arguments.seconds)
    for asker in askers:
        asker.stop()
    print(f"published after {time.monotonic() - start:.0f} s")
    report(askers, arguments.publishes)
    assert_all_instances_computed(pool, members[0])
    stop_with_requests_outstanding(pool, members[0])
    publisher.stop()
    restart_alone(pool, "a")
    for member in members[1:]:
        member.stop()
    assert_says_nothing_of_pictures(pool)


def main():
    arguments = programs.parse_arguments(
        __doc__.splitlines()[0],
        publishes=(6, "models published while clients ask"),
        seconds=(0.2, "pause after each"),
        askers=(1, "clients of each member"),
    )
    with programs.temporary_folder() as folder:
        global envelope, diagnosis, thorax_client
        messages = programs.import_messages(arguments.source, folder)
        envelope, diagnosis, thorax_client = messages
        pool = Pool(arguments, folder, pool_programs.Models(arguments, folder, messages, PICTURES))
        try:
            run(pool, arguments)
        finally:
            pool.kill()


if __name__ == "__main__":
    sys.exit(main())
