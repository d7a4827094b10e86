#!/usr/bin/env python3
"""Eight members, two routers and four clients while models are rolled out and rolled back, and everything is killed.

Two clients use libthorax and talk to the members; two are Python and talk to the routers. Requests are sent in an open loop at a
share of what the pool was measured to bear before. Meanwhile models that differ clearly are rolled out one after the other, some are
rolled back, members, routers and the publisher are killed with SIGKILL at random and started again, and the members are restarted
one by one. Every request must be answered within its deadline, by exactly the model that the answer names (compared with what
that model's file says alone), for the picture whose digest it echoes, and never by a model that nobody activated.

The short form is for CI. The long form: --requests 100000 --rollouts 10 --rollbacks 2 --pause 1.5 (twice as many kills: rollouts
take twice as long)."""
import json
import queue
import random
import subprocess
import sys
import threading
import time

import pool_programs
import programs

DEADLINE_MS = 10000
GRACE_MS = 100  # for the threads that note it
LOAD = 0.6  # of the saturation
MEASURE_S = 4
WAIT_S = 360  # for what takes seconds on an idle machine
OUTSTANDING = 24  # requests that each client may have under way
PLAN = """name: torture
min_healthy: 2
on_failure: pause
steps:
  stage: {kind: stage}
  canary: {kind: canary, members: 1, min_requests: 5}
  half: {kind: wave, percent: 50}
  all: {kind: wave, percent: 100}
"""


class Tally:
    """What became of all requests."""

    def __init__(self, models):
        self.models, self.lock = models, threading.Lock()
        self.asked = self.answered = 0
        self.by_model, self.faults, self.slowest_ms, self.latest_ms = {}, [], 0, 0
        self.allowed = set()  # digests of models that somebody activated

    def ask(self):
        with self.lock:
            self.asked += 1

    def fail(self, what):
        with self.lock:
            self.faults.append(what)

    def take(self, image, image_digest, model, found, asked_ms, intended_ms):
        """asked_ms: since it was asked, which is what its deadline counts from; intended_ms: since it should have been."""
        fault = self.models.fault(image, image_digest, model, found)
        with self.lock:
            self.answered += 1
            self.by_model[model] = self.by_model.get(model, 0) + 1
            self.slowest_ms = max(self.slowest_ms, asked_ms)
            self.latest_ms = max(self.latest_ms, intended_ms)
            if fault:
                self.faults.append(f"the answer {fault}")
            if model not in self.allowed:
                self.faults.append("the answer is by a model that nobody activated")
            if asked_ms > DEADLINE_MS + GRACE_MS:
                self.faults.append(f"the answer came {asked_ms:.0f} ms after it was asked for")


class PythonClient:
    """Threads of synchronous clients behind one queue of intended times: an open loop."""

    def __init__(self, tally, endpoints, seed, client):
        self.tally, self.random, self.client = tally, random.Random(seed), client
        self.endpoints, self.times, self.threads = endpoints, queue.Queue(OUTSTANDING), []
        for _ in range(OUTSTANDING):
            thread = threading.Thread(target=self.serve, daemon=True)
            thread.start()
            self.threads.append(thread)

    def serve(self):
        client = self.client.Client(self.endpoints, DEADLINE_MS)
        while (item := self.times.get()) is not None:
            intended, image, tally = item
            asked = time.monotonic()
            try:
                reply = client.diagnose(tally.models.images[image])
                now = time.monotonic()
                if reply.status != tally.models.diagnosis.STATUS_OK:
                    tally.fail(f"no answer: status {reply.status} {reply.message}")
                else:
                    tally.take(image, reply.image_sha256, reply.model.digest, pool_programs.probabilities(reply),
                               1000 * (now - asked), 1000 * (now - intended))
            except Exception as reason:  # whatever it is, it counts as a request without an answer
                tally.fail(f"no answer: {reason!r}")
        client.close()

    def run(self, rate, halt):
        due = time.monotonic()
        while not halt.is_set():
            due += self.random.expovariate(rate)
            if halt.wait(max(0, due - time.monotonic())):
                break
            self.tally.ask()
            self.times.put((due, self.random.randrange(len(self.tally.models.images)), self.tally))

    def stop(self):
        for _ in self.threads:
            self.times.put(None)
        for thread in self.threads:
            thread.join()


class LibraryClient:
    """pool_asker: libthorax in a process of its own, which prints a line of JSON for each answer."""

    def __init__(self, tally, program, folder, endpoints, seed):
        self.tally, self.program, self.endpoints, self.seed = tally, program, endpoints, seed
        self.pictures, self.studies = [], {}
        for i, image in enumerate(tally.models.images):
            self.pictures.append(f"{folder}/picture{i}.png")
            with open(self.pictures[-1], "wb") as file:
                file.write(image)

    def run(self, rate, halt):
        self.studies = {}  # the program begins to count anew, and its pins are gone with the one before
        command = [self.program, str(rate), str(DEADLINE_MS), str(OUTSTANDING), str(self.seed), ",".join(self.endpoints)]
        process = subprocess.Popen(command + self.pictures, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        reader = threading.Thread(target=self.read, args=(process.stdout,))
        reader.start()
        halt.wait()
        process.stdin.close()  # tells it to finish what is under way
        reader.join()
        if process.wait() != 0:
            self.tally.fail(f"pool_asker ended with {process.returncode}")

    def check_study(self, row):
        """One study, one model, or the answer says that it changed."""
        first = self.studies.setdefault(row["study"], row["model"]) if row["study"] else row["model"]
        if row["model"] != first and not row["changed"]:
            self.tally.fail("a study was answered by two models, and the answer does not say so")

    def read(self, lines):
        for line in lines:
            row = json.loads(line)
            self.tally.ask()
            if "error" in row:
                self.tally.fail(f"no answer: {row['error']}")
            else:
                self.check_study(row)
                self.tally.take(row["picture"], None, bytes.fromhex(row["model"]), row["probabilities"], row["asked_ms"],
                                row["intended_ms"])

    def stop(self):
        pass


class Killer(threading.Thread):
    """Kills and starts again, at random moments, until told to stop."""

    def __init__(self, pool, seed, pause_s):
        super().__init__(daemon=True)
        self.pool, self.random, self.pause_s = pool, random.Random(seed), pause_s
        self.halt, self.lock, self.killed, self.error = threading.Event(), threading.Lock(), {}, None

    def run(self):
        try:
            while not self.halt.wait(self.random.uniform(0.3, 2) * self.pause_s):
                kind = self.random.choices(("member", "router", "publisher"), (6, 2, 2))[0]
                with self.lock:
                    self.strike(kind)
        except Exception as reason:
            self.error = reason

    def strike(self, kind):
        names = {"member": self.pool.member_names, "router": self.pool.router_names, "publisher": ["trainerd"]}[kind]
        name = self.random.choice(names)
        self.pool.processes[name].kill()
        self.pool.restart(name)
        self.killed[kind] = self.killed.get(kind, 0) + 1

    def stop(self):
        self.halt.set()
        self.join()
        if self.error:
            raise self.error


class TorturedPool(pool_programs.Pool):
    def __init__(self, arguments, folder):
        super().__init__(arguments, folder)
        self.member_names = [f"m{i}" for i in range(arguments.members)]
        self.router_names = ["r0", "r1"]

    def restart(self, name):
        if name == "trainerd":
            self.start_publisher()
        elif name in self.router_names:
            self.start_router(name, [self.processes[member] for member in self.member_names])
        else:
            self.start_member(name)

    def start(self, models, tally):
        self.start_publisher("publish.activate=manual")
        tally.allowed.add(models.digests[0])
        self.publish(models.paths[0])
        for name in self.member_names:
            self.start_member(name, "device.threads=1", "decode.threads=1")
        for name in self.router_names:
            self.restart(name)
        self.roll_out(models, 0, f"{self.arguments.source}/configs/rollouts/direct.yaml")  # nobody asks yet

    def publish(self, path):
        self.trainctl_until("publish", path)

    def status(self):
        result = self.trainctl_until("rollout", "status", "--json")
        return json.loads(result.stdout)

    def roll_out(self, models, i, plan=None):
        """Publishes, approves and rolls out; waits until it is done, whoever dies meanwhile."""
        digest = models.digests[i].hex()
        self.publish(models.paths[i])
        self.trainctl_until("approve", digest, "--by", "torture")
        if not plan:
            plan = f"{self.folder}/torture.yaml"
            with open(plan, "w") as file:
                file.write(PLAN)
        command = ("rollout", "start", digest, "--plan", plan, "--by", "torture")
        self.trainctl_until(*command, wanted=lambda result: result.returncode == 0 or self.rolls_out(digest))
        self.wait_state(digest, "done")

    def rolls_out(self, digest):
        """An answer may be lost with the publisher: what was asked may be done all the same."""
        return self.status().get("digest") == digest

    def wait_state(self, digest, state):
        deadline = time.monotonic() + WAIT_S
        while True:
            status = self.status()
            if status.get("digest") == digest and status["state"] == state:
                return
            assert status.get("state") != "paused", f"the rollout is paused: {status['reason']}"
            assert time.monotonic() < deadline, f"the rollout does not get to {state}: {status}"
            time.sleep(0.3)

    def roll_back(self, models, i):
        self.trainctl_until("rollback", models.digests[i].hex(), "--by", "torture", "--reason", "a test")
        self.wait_all(models.digests[i])

    def wait_all(self, digest):
        """Until every member runs the model."""
        for name in self.member_names:
            deadline = time.monotonic() + WAIT_S
            while True:
                status = self.processes[name].status()
                if status.get("model", {}).get("digest") == digest.hex():
                    break
                assert time.monotonic() < deadline, f"{name} does not run what it should: {status}"
                time.sleep(0.2)

    def serves(self, name):
        return self.processes[name].status().get("condition") == "READY"

    def wait_serving(self, name):
        """Until a process of that name serves; the one that was started may have been killed meanwhile."""
        deadline = time.monotonic() + WAIT_S
        while not self.serves(name):
            assert time.monotonic() < deadline, f"{name} does not serve"
            time.sleep(0.2)

    def stop_one(self, name, killer):
        """SIGTERM, the end awaited, and started again; True where it served: one that has only just been started may not
        know yet what to do with a signal."""
        with killer.lock:
            serves = self.serves(name)
            if serves:
                self.processes[name].stop()
                self.restart(name)
        return serves

    def restart_all(self, killer):
        """A rolling restart: the next one once this one serves again."""
        for name in self.member_names:
            while not self.stop_one(name, killer):
                self.wait_serving(name)
            self.wait_serving(name)


def run_load(clients, rate, seconds=None, until=None):
    """Lets the clients ask at `rate` in all, until a function returns; its result."""
    halt = threading.Event()
    threads = [threading.Thread(target=client.run, args=(rate / len(clients), halt)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        return until() if until else time.sleep(seconds)
    finally:
        halt.set()
        for thread in threads:
            thread.join()


def saturation(tally, clients):
    """Answers a second where more is asked than can be answered; counted apart, since they all are late."""
    probe = Tally(tally.models)
    for client in clients:
        client.tally = probe
    start = time.monotonic()
    run_load(clients, 100000, MEASURE_S)
    answered, took_s = probe.answered, time.monotonic() - start
    for client in clients:
        client.tally = tally
    return answered / took_s


def torture(pool, models, tally, killer, arguments):
    back = {round((i + 1) * arguments.rollouts / (arguments.rollbacks + 1)) for i in range(arguments.rollbacks)}
    for i in range(1, arguments.rollouts + 1):
        tally.allowed.add(models.digests[i])
        pool.roll_out(models, i)
        if i in back:
            pool.roll_back(models, i - 1)
        if i == arguments.rollouts // 2:
            pool.restart_all(killer)
    while tally.answered < arguments.requests:
        time.sleep(0.5)


def report(tally, killer, arguments):
    lost = tally.asked - tally.answered
    print(f"asked {tally.asked}  answered {tally.answered}  lost {lost}  slowest {tally.slowest_ms:.0f} ms"
          f"  (from the intended time {tally.latest_ms:.0f} ms)")
    print("answers by model: " + "  ".join(f"{digest.hex()[:8]} {count}" for digest, count in tally.by_model.items()))
    print("killed: " + "  ".join(f"{kind} {count}" for kind, count in sorted(killer.killed.items())))
    for fault in tally.faults[:20]:
        print(f"  {fault}")
    assert not tally.faults and lost == 0, f"{len(tally.faults)} faults"
    assert len(tally.by_model) == arguments.rollouts + 1, "some models never answered"


def run(arguments, folder, messages):
    models = pool_programs.Models(arguments, folder, messages)
    models.make(arguments.rollouts + 2)  # the last one is staged, approved and never activated
    tally, pool = Tally(models), TorturedPool(arguments, folder)
    try:
        pool.start(models, tally)
        pool.publish(models.paths[-1])
        pool.trainctl_until("approve", models.digests[-1].hex(), "--by", "torture")
        pool.wait_all(models.digests[0])
        members = [pool.processes[name].endpoint for name in pool.member_names]
        routers = [pool.processes[name].endpoint for name in pool.router_names]
        clients = [PythonClient(tally, routers, arguments.seed + i, models.client) for i in range(2)]
        clients += [LibraryClient(tally, arguments.asker, folder, members, arguments.seed + i) for i in range(2)]
        rate = LOAD * saturation(tally, clients)
        print(f"asks {rate:.0f} times a second, {LOAD} of the saturation")
        killer = Killer(pool, arguments.seed, arguments.pause)
        killer.start()
        try:
            run_load(clients, rate, until=lambda: torture(pool, models, tally, killer, arguments))
        finally:
            killer.stop()
        for client in clients:
            client.stop()
        report(tally, killer, arguments)
        pool.wait_all(models.digests[arguments.rollouts])
        for name in pool.member_names + pool.router_names + ["trainerd"]:
            pool.processes[name].stop()
    finally:
        pool.kill()


def main():
    arguments = programs.parse_arguments(
        __doc__.splitlines()[0],
        asker=("", "the program that asks through libthorax"),
        members=(8, "members"),
        rollouts=(2, "rollouts"),
        rollbacks=(1, "rollbacks on the way"),
        requests=(1500, "at least so many requests"),
        pause=(3.0, "seconds between two kills, about"),
        seed=(int(time.time()), "of everything random"),
    )
    print(f"seed {arguments.seed}")
    with programs.temporary_folder() as folder:
        run(arguments, folder, programs.import_messages(arguments.source, folder))


if __name__ == "__main__":
    sys.exit(main())
