#!/usr/bin/env python3
"""inferd --role router with real members: clients in Python through a router while members are killed, and clients of two routers,
in Python and in C, while a router is killed. Nothing is lost, and each answer is what the model that it names says."""
import hashlib
import random
import subprocess
import sys
import threading
import time
import urllib.request

import programs
from libthorax_test import TOLERANCE, Pool

TIMEOUT_MS = 30000


class Router(programs.Member):
    """One router on a socket file."""

    def __init__(self, arguments, folder, name, members):
        endpoints = ", ".join(f"'{member.endpoint}'" for member in members)
        command = [arguments.inferd, "--role", "router", "--set", f"router.members=[{endpoints}]"]
        command += ["--set", "router.heartbeat=200ms", "--set", "http.bind=127.0.0.1:0"]
        super().__init__(folder, name, arguments.inferctl, command)

    def wait_members(self, count):
        deadline = time.monotonic() + programs.START_S
        while f"members_ready={count}" not in self.log():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def page(self, path):
        port = self.log().split("http port=")[-1].split()[0]  # of the last start
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=programs.START_S) as answer:
            return answer.read().decode()


class Asker(threading.Thread):
    """Asks about pictures in random order until told to stop, and checks each answer."""

    def __init__(self, pool, endpoints, seed):
        super().__init__(daemon=True)
        self.pool, self.endpoints, self.random = pool, endpoints, random.Random(seed)
        self.halt, self.answered, self.faults, self.models = threading.Event(), 0, [], set()
        self.start()

    def run(self):
        client = thorax_client.Client(self.endpoints, TIMEOUT_MS)
        while not self.halt.is_set():
            with open(self.random.choice(self.pool.pictures), "rb") as file:
                image = file.read()
            try:
                fault = self.fault(client.diagnose(image), hashlib.sha256(image).hexdigest())
            except Exception as reason:  # whatever it is, it counts as a request without an answer
                fault = f"no answer: {reason!r}"
            if fault:
                self.faults.append(fault)
            else:
                self.answered += 1
        client.close()

    def fault(self, reply, image):
        if reply.status != diagnosis.STATUS_OK:
            return f"no answer: {diagnosis.Status.Name(reply.status)} {reply.message}"
        wanted = self.pool.expected.get((reply.model.digest.hex(), image))
        found = [row.probability for row in reply.probabilities]
        if not wanted or max(abs(a - b) for a, b in zip(wanted, found)) > TOLERANCE:
            return f"the answer is not what its model says: {found}, not {wanted}"
        self.models.add(reply.model.digest)
        return None

    def stop(self):
        self.halt.set()
        self.join()


def finish(askers, what):
    for asker in askers:
        asker.stop()
    faults = [fault for asker in askers for fault in asker.faults]
    answered = sum(asker.answered for asker in askers)
    print(f"{what}: {answered} answered, {len(faults)} lost or wrong")
    assert not faults, faults[:10]
    assert answered > 10
    return set().union(*(asker.models for asker in askers))


def members_are_killed(pool, router, arguments):
    askers = [Asker(pool, router.endpoint, seed) for seed in range(3)]
    chance, kills = random.Random(arguments.seed), 0
    until = time.monotonic() + arguments.seconds
    while time.monotonic() < until or kills < 2:
        time.sleep(chance.uniform(0.2, 0.5))
        victim = chance.randrange(len(pool.members))
        pool.members[victim].kill()
        kills += 1
        pool.members[victim] = pool.start(victim)
        pool.members[victim].wait_ready()
    models = finish(askers, f"seed {arguments.seed}, {kills} members killed")
    assert len(models) == len(pool.members) and kills > 1


def all_members_are_gone_and_come_back(pool, router):
    asker = Asker(pool, router.endpoint, 7)
    for member in pool.members:
        member.kill()
    time.sleep(0.5)
    assert router.status()["condition"] == "NO_MODEL", router.status()
    pool.members = [pool.start(seed) for seed in range(len(pool.members))]
    for member in pool.members:
        member.wait_ready()
    before = asker.answered
    deadline = time.monotonic() + programs.START_S
    while asker.answered < before + 10 and time.monotonic() < deadline:
        time.sleep(0.02)
    finish([asker], "all members gone and back")


def a_router_is_killed(pool, routers, arguments):
    """Clients that know both go on with the other one."""
    endpoints = [router.endpoint for router in routers]
    askers = [Asker(pool, endpoints, seed) for seed in range(2)]
    command = [arguments.load, ",".join(endpoints), "2", "4", str(TIMEOUT_MS), *pool.pictures]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for victim in (0, 1, 0):
        time.sleep(0.7)
        routers[victim].kill()
        routers[victim] = Router(arguments, pool.folder, f"r{victim}", pool.members)
        routers[victim].wait_ready()
    lines = load.communicate(timeout=120)[0].splitlines()
    faults = [fault for fault in map(pool.fault, lines) if fault]
    assert load.returncode == 0 and len(lines) > 10 and not faults, faults[:10]
    finish(askers, f"3 routers killed, {len(lines)} answers of libthorax right, and in Python")


def a_router_tells_of_itself(router):
    assert router.page("/readyz") == "ready\n" and router.page("/healthz") == "ok\n"
    metrics = router.page("/metrics")
    assert "\nthorax_router_members 3\n" in metrics and '\nthorax_requests_total{status="OK"} ' in metrics, metrics


def a_router_drains(pool, router):
    """SIGTERM ends it with 0, and nothing that it accepted is without an answer."""
    socket = programs.zmq.Context.instance().socket(programs.zmq.DEALER)
    socket.connect(router.endpoint)
    outstanding = 40
    for i in range(outstanding):
        with open(pool.pictures[i % len(pool.pictures)], "rb") as file:
            request = thorax_client.make_request(file.read(), request_id=str(i))
        socket.send_multipart([b"", request.SerializeToString()])
    router.signal_stop()
    for _ in range(outstanding):
        assert socket.poll(TIMEOUT_MS), "a request was accepted and not answered"
        reply = envelope.Envelope.FromString(socket.recv_multipart()[-1]).diagnosis_reply
        assert reply.status in (diagnosis.STATUS_OK, diagnosis.STATUS_NOT_READY), reply.message
    router.wait()
    socket.close()


def assert_says_nothing_of_pictures(pool, logs):
    for image in pool.names:
        assert image not in logs, "a log names a picture"


def main():
    arguments = programs.parse_arguments(
        __doc__.splitlines()[0],
        load=("", "the program thorax_load"),
        seconds=(5, "of load while members are killed"),
        seed=(1, "of what is killed when"),
    )
    with programs.temporary_folder() as folder:
        global envelope, diagnosis, thorax_client
        envelope, diagnosis, thorax_client = programs.import_messages(arguments.source, folder)
        pool = Pool(arguments, folder, 3)
        routers = []
        try:
            routers += [Router(arguments, folder, f"r{i}", pool.members) for i in range(2)]
            for router in routers:
                router.wait_members(3)
            members_are_killed(pool, routers[0], arguments)
            all_members_are_gone_and_come_back(pool, routers[0])
            a_router_is_killed(pool, routers, arguments)
            a_router_tells_of_itself(routers[1])
            a_router_drains(pool, routers[1])
            assert_says_nothing_of_pictures(pool, "".join(router.log() for router in routers))
        finally:
            pool.clear()
            for router in routers:
                router.kill()


if __name__ == "__main__":
    sys.exit(main())
