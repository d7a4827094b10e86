#!/usr/bin/env python3
"""trainerd on several GPUs, which are the emulation's: each rank has one, NCCL adds. Runs with the emulation's libraries in LD_LIBRARY_PATH.
Usage: gpu_training_test.py TRAINERD TRAINCTL [unittest's options]"""
import json
import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from training_fixture import Run, draw_phantoms, gone

SECONDS = 20  # on a machine that is busy with other tests
GPUS = {"device.name": "cuda", "model.sync_batch_norm": "true", "collective.timeout_seconds": 30}
FOR_EVER = {"train.epochs": 5000, "checkpoint.every_epochs": 0, "cluster.restarts": 0}


def losses(run):
    with open(f"{run.folder}/metrics.jsonl") as lines:
        return [event["loss"] for event in map(json.loads, lines) if event["event"] == "epoch"]


def apart(one, other):
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def tcp_sockets():
    """Inodes of all that there are."""
    with open("/proc/net/tcp") as lines:
        return {line.split()[9] for line in list(lines)[1:]}


def sockets_of(pids):
    """Inodes of the TCP sockets that the processes have open: the emulated NCCL's, as ranks of one machine meet at a file."""
    targets = {os.readlink(f"/proc/{pid}/fd/{descriptor}") for pid in pids for descriptor in os.listdir(f"/proc/{pid}/fd")}
    return tcp_sockets() & {target[len("socket:[") : -1] for target in targets if target.startswith("socket:[")}


def sockets_left(inodes):
    return inodes & tcp_sockets()


class LossCurve(unittest.TestCase):
    """Ranks take the steps of one. The first loss shows that they normalise over all images, the second that they add their gradients. Sums
    differ in their order, and training enlarges that: how much, shows a run on the CPU, whose kernels round in other places."""
    steps = 6

    def train(self, name, settings):
        # At a higher rate, and with fewer images, batch norm divides by next to nothing in the last layers, whose pictures are 1 x 1.
        once = {"train.epochs": self.steps, "train.steps_per_epoch": 1, "train.batch_size": 32, "optimizer.learning_rate": 0.0007,
                "schedule.kind": "constant", "schedule.warmup_epochs": 0}
        run = Run(name, {**GPUS, **once, **settings}, "--once").finish()
        self.assertNotIn("emulation:", run.text())
        return losses(run)

    def test_one_two_and_four_gpus_have_the_same(self):
        curves = {ranks: self.train(f"gpus-{ranks}", {"device.ranks": ranks}) for ranks in (1, 2, 4)}
        rounding = apart(curves[1], self.train("cpu", {"device.name": "onednn"}))
        self.assertEqual(len(curves[1]), self.steps)
        self.assertGreater(rounding, 0)
        for ranks in 2, 4:
            begin, whole = apart(curves[1][:2], curves[ranks][:2]), apart(curves[1], curves[ranks])
            print(f"{ranks} GPUs are {begin:.1e} from one in 2 steps and {whole:.1e} in {self.steps}, the CPU {rounding:.1e}", flush=True)
            self.assertLess(begin, 1e-5)
            self.assertLessEqual(whole, 10 * rounding)

    def test_sums_in_bf16_stay_near_those_in_f32(self):
        """The first loss is of weights that no sum has moved; one step at this rate moves the second by little."""
        wide, narrow = (self.train(f"sums-{kind}", {"device.ranks": 2, "collective.gradients": kind}) for kind in ("f32", "bf16"))
        print(f"sums in bf16 are {apart(wide[:2], narrow[:2]):.1e} from those in f32 in 2 steps", flush=True)
        self.assertEqual(narrow[0], wide[0])
        self.assertNotEqual(narrow[1], wide[1])
        self.assertLess(apart(wide[:2], narrow[:2]), 0.01)


class LostRank(unittest.TestCase):
    def lose(self, name, how, rank, settings):
        """Returns the last line of the run."""
        run = Run(name, {**GPUS, **FOR_EVER, **settings}, "--once")
        run.until(lambda: run.events("progress"))
        workers = run.workers()
        sockets = sockets_of(workers.values())
        self.assertGreaterEqual(len(sockets), len(workers))
        os.kill(workers[rank], how)
        begin = time.monotonic()
        self.assertEqual(run.process.wait(100), 1)
        took_s = time.monotonic() - begin
        last = run.text().splitlines()[-1]
        print(f"after {took_s:.2f} s: {last}", flush=True)
        self.assertLess(took_s, SECONDS)
        self.assertTrue(gone(workers))
        self.assertEqual(os.listdir(Run.temporary), [])
        self.assertEqual(sockets_left(sockets), set())
        self.assertNotIn("emulation:", run.text())
        return last

    def test_one_of_four_that_is_killed_is_named(self):
        self.assertIn("rank 2 was killed by signal 9", self.lose("killed", signal.SIGKILL, 2, {"device.ranks": 4, "train.batch_size": 16}))

    def test_one_of_four_that_hangs_is_named(self):
        settings = {"device.ranks": 4, "train.batch_size": 16, "collective.timeout_seconds": 5, "cluster.silence_seconds": 60}
        last = self.lose("stopped", signal.SIGSTOP, 1, settings)
        self.assertRegex(last, r"rank 1 hangs: no sign of life for [0-9.]+ s; rank \d failed: rank \d: .* did not answer within 5.0 s")


class Start(unittest.TestCase):
    def fail(self, name, settings, devices):
        before = os.environ.get("THORAX_EMULATION_DEVICES", "")
        os.environ["THORAX_EMULATION_DEVICES"] = devices
        run = Run(name, {**GPUS, **settings})
        os.environ["THORAX_EMULATION_DEVICES"] = before
        self.assertEqual(run.process.wait(60), 1)
        return run.text()

    def test_there_are_fewer_gpus_than_ranks(self):
        self.assertIn("device.ranks is 4, but 2 GPUs are visible here\n", self.fail("crowd", {"device.ranks": 4}, "2"))

    def test_there_is_no_gpu(self):
        self.assertIn("device.name: the device cuda cannot be opened here: no usable NVIDIA GPU", self.fail("none", {"device.ranks": 2}, "0"))

    def test_the_log_says_once_what_the_ranks_compute_on(self):
        short = {"train.epochs": 1, "train.steps_per_epoch": 1, "device.ranks": 2, "log.level": "info"}
        text = Run("described", {**GPUS, **short}, "--once").finish().text()
        lines = [line for line in text.splitlines() if "1: CPU emulation (0000:01:00.0)" in line]
        self.assertEqual(len(lines), 1, text)
        self.assertIn("nccl 2.28.9, 2 ranks; 0: CPU emulation (0000:00:00.0); 1:", lines[0])


if __name__ == "__main__":
    draw_phantoms()
    unittest.main(verbosity=2)
