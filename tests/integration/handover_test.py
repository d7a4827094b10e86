#!/usr/bin/env python3
"""Training jobs hand their models over to a publisher elsewhere (publish.to): several at once, past kills of the publisher, each model
exactly once; what cannot be handed over is said, kept, and handed over later.
Usage: handover_test.py TRAINERD TRAINCTL [unittest's options]"""
import json
import os
import random
import signal
import subprocess
import threading
import time
import unittest

from training_fixture import FOLDER, PATIENCE_S, STOPPED, TRAINCTL, TRAINERD, Run, draw_phantoms

EXIT_LEFT = 3
JOB = {"checkpoint.keep_best": 9, "train.select_metric": "loss", "train.epochs": 3}


class Publisher:
    """A trainerd without train:, which may be killed and started again on its store."""

    def __init__(self, name, *settings):
        self.name, self.settings, self.process = name, settings, None
        self.endpoints = {key: f"ipc://{FOLDER}/{name}.{key}" for key in ("announce", "control", "blobs")}
        self.config = f"{FOLDER}/{name}.yaml"
        with open(self.config, "w") as file:
            file.write(f"run: {{name: {name}}}\npublish: {{enabled: true, store: {FOLDER}/{name}-store}}\n")

    def start(self):
        command = [TRAINERD, "--config", self.config, "--json"]
        for key, endpoint in self.endpoints.items():
            command += ["--set", f"publish.{key}={endpoint}"]
        for setting in self.settings:
            command += ["--set", setting]
        with open(f"{FOLDER}/{self.name}.log", "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        return self

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def ask(self, *words):
        """What trainctl answers as JSON, however long the publisher takes to come up."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            result = subprocess.run([TRAINCTL, *words, "--at", self.endpoints["control"], "--json"], capture_output=True, text=True)
            if result.returncode == 0:
                return json.loads(result.stdout)
            assert time.monotonic() < deadline, result.stderr

    def digests(self):
        return sorted(row["digest"] for row in self.ask("models")["models"])

    def arrivals(self):
        """How often each model was published, in all of the registry's life."""
        count, after = {}, 0
        while events := self.ask("events", "--after", str(after)):
            after = events[-1]["id"]
            for event in events:
                if event["kind"] in ("published", "registered", "refused_by_gate"):
                    count[event["digest"]] = count.get(event["digest"], 0) + 1
        return count


class Killer(threading.Thread):
    """Kills the publisher every now and then until told to stop; then leaves it running."""

    def __init__(self, publisher, seed):
        super().__init__(daemon=True)
        self.publisher, self.random, self.halt, self.kills = publisher, random.Random(seed), threading.Event(), 0
        self.start()

    def run(self):
        while not self.halt.wait(self.random.uniform(0.3, 1.2)):
            self.publisher.kill()
            self.kills += 1
            self.halt.wait(self.random.uniform(0, 0.4))
            self.publisher.start()

    def stop(self):
        self.halt.set()
        self.join()


def waiting(run):
    folder = f"{run.folder}/handover"
    return sorted(f"{folder}/{name}" for name in os.listdir(folder)) if os.path.isdir(folder) else []


class Handover(unittest.TestCase):
    def setUp(self):
        self.publishers = []

    def tearDown(self):
        for publisher in self.publishers:
            publisher.kill()

    def publisher(self, *settings):
        self.publishers.append(Publisher(self.id().rsplit(".", 1)[1][:20], *settings))
        return self.publishers[-1]

    def test_two_jobs_hand_over_past_kills(self):
        publisher = self.publisher().start()
        to = {"publish.to": publisher.endpoints["control"]}
        runs = [Run(f"job{seed}", {**JOB, **to, "run.seed": seed}) for seed in (1, 2)]
        killer = Killer(publisher, seed=1)
        for run in runs:
            run.process.wait(PATIENCE_S)
        killer.stop()
        made = sum(event["best"] for run in runs for event in run.events("epoch"))
        handed = [event["digest"] for run in runs for event in run.finish().events("handed_over")]
        print(f"{killer.kills} kills, {made} models", flush=True)
        self.assertGreater(killer.kills, 2)
        self.assertGreaterEqual(made, 2)
        self.assertEqual(len(set(handed)), made)
        self.assertEqual(publisher.digests(), sorted(handed))
        self.assertEqual(publisher.arrivals(), {digest: 1 for digest in handed})
        self.assertEqual([waiting(run) for run in runs], [[], []])

    def test_what_is_left_is_said_and_handed_over_later(self):
        publisher = self.publisher()
        settings = {**JOB, "publish.to": publisher.endpoints["control"], "publish.to_wait_seconds": 1, "train.epochs": 1}
        run = Run("lonely", settings)
        self.assertEqual(run.process.wait(PATIENCE_S), EXIT_LEFT, run.text())
        (left,) = run.events("not_handed_over")
        self.assertEqual([left["file"]], waiting(run))
        self.assertIn("no answer", left["reason"])
        self.assertEqual(len(run.events("trained")), 1)
        self.assertIn("model_not_handed_over", run.text())
        publisher.start()
        publisher.ask("models")
        command = left["command"].replace("trainctl", TRAINCTL, 1)
        self.assertEqual(subprocess.run(command, shell=True, capture_output=True).returncode, 0)
        again = Run("lonely", {**settings, "publish.to_wait_seconds": 60}, "--resume", "auto").finish()
        self.assertEqual(again.events("handing_over")[0]["waiting"], 1)
        self.assertGreaterEqual(len(again.events("handed_over")), 1)
        self.assertEqual(waiting(again), [])
        self.assertEqual(set(publisher.arrivals().values()), {1})

    def test_a_signal_does_not_wait_long(self):
        publisher = self.publisher()
        run = Run("stopped", {**JOB, "publish.to": publisher.endpoints["control"], "train.epochs": 500})
        run.until(lambda: waiting(run))
        began = time.monotonic()
        self.assertEqual(run.kill(signal.SIGTERM), STOPPED, run.text())  # what is left is said all the same, and --resume takes it up
        self.assertLess(time.monotonic() - began, 45)
        self.assertEqual(len(run.events("stopped")), 1)
        self.assertEqual(len(run.events("not_handed_over")), len(waiting(run)))

    def test_the_gate_judges_what_is_handed_over(self):
        """By figures that every model carries: the second job learns nothing, and is worse."""
        rules = '["log_loss within 0", "auc.PNEUMONIA within 1", "calibration_error within 1"]'
        publisher = self.publisher("publish.activate=auto", f"publish.gate={rules}")
        publisher.start()
        to = {"publish.to": publisher.endpoints["control"], "data.name": "phantoms"}
        good = Run("good", {**JOB, **to, "train.epochs": 12, "optimizer.learning_rate": 0.002}).finish()
        self.assertLess(min(event["validation_loss"] for event in good.events("epoch")), 0.9, "it should have learnt something")
        best = good.events("handed_over")[-1]["digest"]
        publisher.ask("rollback", best, "--by", "test")  # there is no member that would make it stable
        bad = Run("bad", {**JOB, **to, "train.epochs": 1, "run.seed": 8, "optimizer.learning_rate": "1e-12"}).finish()
        (refused,) = bad.events("refused_by_gate")
        self.assertTrue(refused["gate"].startswith("log_loss "), refused)
        self.assertNotIn("says nothing", refused["gate"])


def check(name, extra, *settings):
    path = f"{FOLDER}/{name}.yaml"
    with open(path, "w") as file:
        file.write(extra)
    command = [TRAINERD, "--config", path, "--check"] + [word for setting in settings for word in ("--set", setting)]
    return subprocess.run(command, capture_output=True, text=True)


class Check(unittest.TestCase):
    TRAINS = f"run: {{name: check}}\ntrain: {{}}\ndata: {{directory: {FOLDER}/data}}\n"
    PUBLISHES = "run: {name: check}\npublish: {enabled: true}\n"

    def refused(self, text, *settings, extra=TRAINS):
        result = check("check", extra, *settings)
        self.assertEqual(result.returncode, 1, result)
        self.assertIn(text, result.stderr)

    def test_hand_over_and_own_sockets_exclude_each_other(self):
        self.refused("exclude each other", "publish.to=tcp://127.0.0.1:5702", "publish.enabled=true")
        self.refused("expected tcp://", "publish.to=127.0.0.1:5702")
        self.refused("for training jobs", "publish.to=tcp://127.0.0.1:5702", extra=self.PUBLISHES)
        self.refused("publish.gate", "publish.to=tcp://127.0.0.1:5702", 'publish.gate=["auc within 0.1"]')

    def test_a_rule_that_no_own_model_passes_is_named(self):
        self.refused("brier on validation", "publish.enabled=true", 'publish.gate=["brier within 0.1"]')
        self.refused("auc on test", "publish.enabled=true", 'publish.gate=["auc on test within 0.1"]')
        self.refused("recall.TB", "publish.enabled=true", 'publish.gate=["recall.TB within 0.1"]',
                     'data.class_names=["NORMAL","PNEUMONIA"]')
        warned = check("check", self.PUBLISHES, 'publish.gate=["brier within 0.1"]')
        self.assertEqual(warned.returncode, 0, warned)
        self.assertIn("brier on validation", warned.stderr)

    def test_nothing_is_activated_that_is_not_staged(self):
        self.refused("publish.stage", "publish.stage=false", "publish.activate=auto", extra=self.PUBLISHES)


if __name__ == "__main__":
    draw_phantoms()
    unittest.main(verbosity=2)
