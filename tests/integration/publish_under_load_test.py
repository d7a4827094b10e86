#!/usr/bin/env python3
"""Models whose answers differ clearly are published one after the other while clients ask both members.

Every request must be answered, by the model that the answer names (compared with what that model's file gives alone in
an `inferd --model`), for the image whose digest it echoes. Pictures of one study (one routing key) are answered by one
model, or the answer says that this was not possible. On the way: a member that starts late fetches by itself; a
member that is stopped answers what it accepted; one that starts again without a trainer serves its last model."""
import hashlib
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import programs

TEMPERATURE = "0.1"  # so low that random weights answer clearly
TOLERANCE = 2e-4  # of a probability: batches of other sizes round otherwise, and the low temperature multiplies that
CLEARLY = 0.02  # by this much any two models differ in some probability of each picture
OUTSTANDING = 48  # requests that a member is stopped in the midst of
REQUEST_MS = 60000
PICTURES = 8
PAUSE_S = 0.01  # between an asker's questions: without it the test's own processors are what activation waits for
STUDY = 5  # pictures with one routing key


class Pool:
    """Publisher, members and what each model answers alone."""

    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.images = [programs.encode(programs.picture(seed)) for seed in range(PICTURES)]
        self.processes = []
        self.models = []  # paths in the order of publishing
        self.expected = {}  # model digest -> image digest -> probabilities
        self.endpoints = {name: f"ipc://{folder}/{name}.pub" for name in ("announce", "control", "blobs")}

    def make_models(self, count):
        """Random models one seed after the other; one that answers much as another does would prove nothing."""
        with ThreadPoolExecutor(2) as executor:
            for seed in range(1, 4 * count, 2):
                for path, answers in executor.map(self.make_model, (seed, seed + 1)):
                    if len(self.models) < count and all(differ(answers, known) for known in self.expected.values()):
                        self.models.append(path)
                        self.expected[programs.file_digest(path)] = answers
                if len(self.models) == count:
                    return
        raise AssertionError("too many models answer alike")

    def make_model(self, seed):
        path = f"{self.folder}/model{seed}"
        command = [self.arguments.make_model, path, f"model{seed}", str(seed), TEMPERATURE]
        subprocess.run(command, check=True)
        return path, self.answers_alone(path, f"alone{seed}")

    def answers_alone(self, path, name):
        member = programs.standalone(self.arguments, self.folder, name, path, "--set", "batch.max=1")
        self.processes.append(member)
        member.wait_ready(programs.file_digest(path))
        client = thorax_client.Client(member.endpoint, REQUEST_MS)
        replies = [client.diagnose(image) for image in self.images]
        client.close()
        member.stop()
        for reply in replies:
            assert reply.status == diagnosis.STATUS_OK, reply.message
        return {reply.image_sha256: probabilities(reply) for reply in replies}

    def start_publisher(self):
        command = [self.arguments.trainerd, "--config", f"{self.arguments.source}/configs/trainerd/publisher.yaml"]
        for name, endpoint in self.endpoints.items():
            command += ["--set", f"publish.{name}={endpoint}"]
        command += ["--set", f"publish.store={self.folder}/published", "--set", "publish.activate=auto"]
        command += ["--set", f"run.directory={self.folder}/runs"]
        self.publisher = programs.Process(self.folder, "trainerd", command)
        self.processes.append(self.publisher)

    def start_member(self, name):
        command = [self.arguments.inferd, "--config", f"{self.arguments.source}/configs/inferd/member.yaml"]
        for key, endpoint in self.endpoints.items():
            command += ["--set", f"publisher.{key}={endpoint}"]
        command += ["--set", f"store.directory={self.folder}/{name}-store", "--set", "device.threads=1"]
        command += ["--set", "batch.max=4"]  # so that a model is loaded in less than a second
        member = programs.Member(self.folder, name, self.arguments.inferctl, command)
        self.processes.append(member)
        return member

    def publish(self, path):
        command = [self.arguments.trainctl, "publish", path, "--to", self.endpoints["control"], "--timeout-ms", "60000"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert programs.file_digest(path).hex() in result.stdout

    def check(self, reply, image):
        """What is wrong with a reply to a question about image; None where nothing is."""
        digest = hashlib.sha256(image).digest()
        if reply.image_sha256 != digest:
            return "is about another image"
        if reply.model.digest not in self.expected:
            return "names a model that nobody published"
        wanted, found = self.expected[reply.model.digest][digest], probabilities(reply)
        if max(abs(a - b) for a, b in zip(wanted, found)) > TOLERANCE:
            return f"is not what the model that it names says: {found} instead of {wanted}"
        return None


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
        fault = self.pool.check(reply, image)
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


def differ(answers, others):
    """Whether two models' answers can be told apart on every picture."""
    return all(max(abs(a - b) for a, b in zip(answers[image], others[image])) > CLEARLY for image in answers)


def probabilities(reply):
    return [row.probability for row in reply.probabilities]


def publish_all(pool, members, askers, seconds):
    """The first half one by one, each awaited at every member; then a member joins late; the rest in a row."""
    half = len(pool.models) // 2
    for path in pool.models[1:half]:
        pool.publish(path)
        for member in members:
            member.wait_ready(programs.file_digest(path))
        time.sleep(seconds)
    late = pool.start_member("late")
    members.append(late)
    late.wait_ready()
    askers.append(Asker(pool, late, 99))
    for path in pool.models[half:]:
        pool.publish(path)
        time.sleep(seconds)
    for member in members:
        member.wait_ready(programs.file_digest(pool.models[-1]))
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
        fault = pool.check(reply, images.pop(reply.request_id))
        assert not fault, f"while it shut down, the answer {fault}"
    member.wait()
    socket.close()
    print(f"stopped with {outstanding} requests outstanding: all were answered")


def restart_alone(pool, name):
    """With no trainer in reach, a member that starts again serves what it served last."""
    member = pool.start_member(name)
    member.wait_ready(programs.file_digest(pool.models[-1]))
    client = thorax_client.Client(member.endpoint, REQUEST_MS)
    for image in pool.images:
        reply = client.diagnose(image)
        assert reply.status == diagnosis.STATUS_OK, reply.message
        assert not pool.check(reply, image), pool.check(reply, image)
    client.close()
    member.stop()
    print("restarted without a trainer: serves its last model")


def assert_says_nothing_of_pictures(pool):
    logs = "".join(process.log() for process in pool.processes)
    for image in pool.images:
        assert hashlib.sha256(image).hexdigest() not in logs, "a log names a picture"


def run(pool, arguments):
    start = time.monotonic()
    pool.make_models(arguments.publishes + 1)
    print(f"models made after {time.monotonic() - start:.0f} s")
    pool.start_publisher()
    pool.publish(pool.models[0])
    members = [pool.start_member("a"), pool.start_member("b")]
    for member in members:
        member.wait_ready(programs.file_digest(pool.models[0]))
    askers = [Asker(pool, members[i % 2], i) for i in range(2 * arguments.askers)]
    publish_all(pool, members, askers, arguments.seconds)
    for asker in askers:
        asker.stop()
    print(f"published after {time.monotonic() - start:.0f} s")
    report(askers, arguments.publishes)
    stop_with_requests_outstanding(pool, members[0])
    pool.publisher.stop()
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
        envelope, diagnosis, thorax_client = programs.import_messages(arguments.source, folder)
        pool = Pool(arguments, folder)
        try:
            run(pool, arguments)
        finally:
            for process in pool.processes:
                process.kill()


if __name__ == "__main__":
    sys.exit(main())
