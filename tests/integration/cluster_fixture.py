"""One training run over several nodes: each is a trainerd with folders of its own, on a host of cluster_lab or all on this machine."""
import contextlib
import json
import os
import random
import socket
import time

from training_fixture import FOLDER, PATIENCE_S, TRAINERD, Run, arguments, step_of, tensors

RECOVERY_S = float(os.environ.get("THORAX_RECOVERY_S", "10"))  # from what goes wrong to the next generation's start
SECRET = f"{FOLDER}/secret"
with open(os.open(SECRET, os.O_WRONLY | os.O_CREAT, 0o600), "w") as secret_file:
    secret_file.write("a secret that the nodes of the tests share\n")

# The network with the smallest checkpoints, in epochs of few steps.
SETTINGS = {
    "model.architecture": "efficientnet_lite0",
    "device.ranks": 2,
    "train.epochs": 3,
    "train.steps_per_epoch": 8,
    "checkpoint.every_steps": 2,
    "checkpoint.replicate": "true",
    "report.bootstrap_samples": 0,
    "report.images": "false",
    "log.level": "info",
    "collective.timeout_seconds": 30,
    "cluster.join_seconds": 60,
    "cluster.secret": SECRET,
}


class Here:
    """This machine as one of several nodes."""

    address, prefix = "127.0.0.1", ()

    def __init__(self, index):
        self.index, self.name = index, f"node-{index}"


def free_port():
    """One that no connection is given by itself."""
    while True:
        port = random.SystemRandom().randrange(15000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Node(Run):
    """A trainerd under way on a host, which has folders of its own."""

    def __init__(self, host, name, launch, settings, options, program=TRAINERD):
        root = f"{FOLDER}/{host.name}"
        self.host, self.name, self.folder = host, name, f"{root}/runs/{name}"
        self.log, self.temporary = f"{root}/{name}-{launch}.log", f"{root}/temporary"
        os.makedirs(f"{root}/{launch}", exist_ok=True)
        own = {"run.directory": f"{root}/runs", "data.cache_dir": f"{root}/cache", "collective.address": host.address}
        command = arguments(name, {**own, **settings}, options, "", f"{root}/{launch}")
        self.start([*host.prefix, program, *command[1:]])

    def report(self):
        return f"--- {self.host.name}, which ended with {self.process.poll()}:\n{self.text()}"

    def last_error(self):
        """What it said last."""
        return self.text().splitlines()[-1]


class Cluster:
    """All nodes of a run; node 0 is the coordinator."""

    def __init__(self, name, hosts, settings=None):
        self.name, self.hosts, self.started = name, hosts, []
        self.nodes = [None] * len(hosts)
        self.settings = {**SETTINGS, **(settings or {})}
        if hosts[0].address != Here.address:
            self.settings["collective.trusted_network"] = "true"
        self.settings.setdefault("cluster.coordinator", f"{hosts[0].address}:{free_port()}")
        self.settings.setdefault("cluster.nodes", len(hosts))

    def start(self, index, *options, settings=None, program=TRAINERD):
        """Starts the node, for the first time or again."""
        own = {**self.settings, "cluster.node": index, **(settings or {})}
        node = self.nodes[index] = Node(self.hosts[index], self.name, len(self.started), own, options, program)
        self.started.append(node)
        return node

    def start_all(self, *options):
        for host in self.hosts:
            self.start(host.index, *options)
        return self

    @property
    def coordinator(self):
        return self.nodes[0]

    def report(self):
        return "\n".join(node.report() for node in self.started)

    def until(self, condition, what, patience_s=PATIENCE_S):
        """Waits for condition(), and says how long that took. The coordinator must be there to the end of it."""
        begin = time.monotonic()
        while not condition():
            if self.coordinator.process.poll() is not None or time.monotonic() - begin > patience_s:
                raise AssertionError(f"{self.name}: no {what} after {time.monotonic() - begin:.1f} s\n{self.report()}")
            time.sleep(0.005)
        return time.monotonic() - begin

    def generation(self):
        """The last one's event."""
        return self.coordinator.events("generation")[-1]

    def trains(self):
        """Whether the ranks of the last generation have met, and all is loaded."""
        kinds = [event["event"] for event in self.coordinator.record() if event["event"] in ("generation", "start")]
        return kinds[-1:] == ["start"]

    def step(self):
        """Of the newest checkpoint."""
        found = self.coordinator.checkpoints()
        return step_of(found[-1]) if found else 0

    def until_step(self, step):
        self.until(lambda: self.trains() and self.step() >= step, f"checkpoint of step {step}")

    def until_recovered(self, before, begin):
        """Until the generation after `before` starts; begin: when something went wrong. Returns its event."""
        self.until(lambda: self.generation()["generation"] > before, f"generation after {before}")
        took_s = time.monotonic() - begin
        event = self.generation()
        print(f"{self.name}: generation {event['generation']} with {event['ranks']} ranks after {took_s:.2f} s: {self.lost()}", flush=True)
        if took_s >= RECOVERY_S:
            raise AssertionError(f"{self.name}: generation {event['generation']} only after {took_s:.2f} s\n{self.report()}")
        return event

    def lost(self):
        """Why the last generation ended."""
        events = self.coordinator.events("lost")
        return events[-1]["reason"] if events else "nobody was lost"

    def workers(self):
        """Process ids by rank."""
        return {rank: pid for node in self.nodes if node.process.poll() is None for rank, pid in node.workers().items()}

    def finish(self, codes=None):
        """Waits for the end of all nodes, with these exit codes by node; None: all with 0."""
        for node, code in zip(self.nodes, codes or [0] * len(self.nodes), strict=True):
            ended = node.process.wait(PATIENCE_S)
            if ended != code:
                raise AssertionError(f"{self.name}: {node.host.name} ended with {ended}, expected {code}\n{self.report()}")
        return self

    def epochs(self):
        """What the coordinator recorded of each."""
        with open(f"{self.coordinator.folder}/metrics.jsonl") as lines:
            records = [json.loads(line) for line in lines]
        return [record["epoch"] for record in records if record["event"] == "epoch"]

    def weights(self, index=0):
        """Tensors of the node's last checkpoint."""
        return tensors(self.nodes[index].checkpoints()[-1])

    def kill(self):
        """For clearing up, where a test failed."""
        for node in self.started:
            node.process.kill()
            node.process.wait()

    def left_behind(self):
        """Files of the nodes that should be gone after their end."""
        found = [f"{node.temporary}/{name}" for node in self.started for name in os.listdir(node.temporary)]
        return found + [path for node in self.started if node.process.poll() == 0 for path in node.torn_checkpoints()]
