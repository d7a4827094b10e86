#!/usr/bin/env python3
"""A run that is killed and resumed ends with bitwise the weights of one that was not.
Usage: resume_test.py TRAINERD TRAINCTL SEED [unittest's options]. SEED draws the moments of the kills."""
import glob
import json
import os
import random
import shutil
import signal
import sys
import time
import unittest

SEED = int(sys.argv.pop(3))
from training_fixture import STOPPED, Run, draw_phantoms, gone, step_of, tensors  # noqa: E402: takes its own arguments

STEPS_PER_EPOCH = 7
KINDS = {
    "sgd": {"optimizer.name": "sgd"},
    # The smallest network, for the optimiser with the largest checkpoints.
    "adamw": {"optimizer.name": "adamw", "optimizer.learning_rate": 0.002, "model.architecture": "efficientnet_lite0"},
    "bf16": {"optimizer.name": "sgd", "train.precision": "bf16", "model.sync_batch_norm": "true", "train.parts": 2},
    "bf16-sums": {"optimizer.name": "sgd", "collective.gradients": "bf16", "train.parts": 2},
    # The loss's scale is a part of what is resumed: its first steps are skipped.
    "f16": {"optimizer.name": "adamw", "optimizer.learning_rate": 0.001, "train.precision": "f16", "device.name": "cuda"},
}
SECTIONS = {
    "sgd": {"value", "state", "ema"},
    "adamw": {"value", "state", "state2", "ema"},
    "bf16": {"value", "state", "ema"},
    "bf16-sums": {"value", "state", "ema"},
    "f16": {"value", "state", "state2", "ema"},
}


def has_bf16():
    """Whether oneDNN has arithmetic for it here: what AVX-512 BF16 and AMX say of themselves."""
    with open("/proc/cpuinfo") as file:
        return "avx512_bf16" in file.read()


def settings(kind, ranks, every_steps):
    return {
        **KINDS[kind],
        "device.ranks": ranks,
        "train.ema_decay": 0.9,
        "train.clip_norm": 5,
        "model.dropout": 0.2,
        "checkpoint.every_steps": every_steps,
        "checkpoint.keep_last": 2,
    }


def results(run):
    """Tensors of the last checkpoint and of the best model, and the record of each epoch but for its time."""
    with open(f"{run.folder}/metrics.jsonl") as file:
        records = [json.loads(line) for line in file]
    epochs = [{key: value for key, value in record.items() if key != "time"} for record in records if record["event"] == "epoch"]
    models = {path.rsplit("-", 1)[1]: tensors(path) for path in glob.glob(f"{run.folder}/models/*.safetensors")}
    return {"weights": tensors(run.checkpoints()[-1]), "epochs": epochs, "models": models}


class Resume(unittest.TestCase):
    """Each way to be interrupted, for one rank and two, in f32 for either optimiser, and in bf16 with synchronised batch norm."""

    uninterrupted = {}

    @classmethod
    def reference(cls, kind, ranks):
        """What a run leaves that nobody disturbed, and that saved only at its end."""
        key = (kind, ranks)
        if key not in cls.uninterrupted:
            run = Run(f"whole-{kind}-{ranks}", {**settings(kind, ranks, 0), "checkpoint.every_epochs": 0}).finish()
            cls.uninterrupted[key] = results(run)
            shutil.rmtree(run.folder)
        return cls.uninterrupted[key]

    def kill(self, run):
        workers = run.workers()
        self.assertEqual(run.kill(), -signal.SIGKILL, "the run was over before the kill")
        self.assertTrue(gone(workers), "workers outlived their supervisor")
        print(f"{run.name}: killed, leaving {sorted(os.listdir(f'{run.folder}/checkpoints'))}", flush=True)
        return run.events("start")[0]["at_step"]

    def kill_at_random(self, run):
        """Some time after some checkpoint was there. Returns the step that the run had begun at."""
        step = random.randrange(2, 9)
        run.until(lambda: run.checkpoints() and step_of(run.checkpoints()[-1]) >= step)
        time.sleep(random.random() * 0.1)
        return self.kill(run)

    def kill_while_writing(self, run):
        """When a checkpoint is half written, and neither it nor the one before ends an epoch. Returns the step that the run had
        begun at."""
        before = run.torn_checkpoints()
        within = lambda: step_of(run.checkpoints()[-1]) % STEPS_PER_EPOCH not in (0, STEPS_PER_EPOCH - 1)  # noqa: E731
        run.until(lambda: set(run.torn_checkpoints()) - set(before) and within())
        return self.kill(run)

    def assert_same_end(self, run, kind, ranks):
        ours, whole = results(run), self.reference(kind, ranks)
        self.assertEqual({name.split("/")[0] for name in whole["weights"]}, SECTIONS[kind])
        self.assertEqual(ours["weights"].keys(), whole["weights"].keys())
        self.assertEqual([name for name in whole["weights"] if ours["weights"][name] != whole["weights"][name]], [])
        self.assertEqual(len(whole["epochs"]), 2)
        self.assertEqual(ours["epochs"], whole["epochs"])
        self.assertEqual(ours["models"], whole["models"])

    def twice_killed(self, kind, ranks):
        name, starts = f"killed-{kind}-{ranks}", []
        for kill in self.kill_at_random, self.kill_while_writing:
            starts.append(kill(Run(name, settings(kind, ranks, 2), "--resume", "auto")))
        run = Run(name, settings(kind, ranks, 2), "--resume", "auto").finish()
        starts.append(run.events("start")[0]["at_step"])
        print(f"{name}: began at steps {starts}", flush=True)
        self.assertEqual(starts[0], 0)
        self.assertTrue(starts[0] < starts[1] <= starts[2])
        self.assertNotEqual(starts[2] % STEPS_PER_EPOCH, 0, "no resume within an epoch")
        self.assertEqual(len(os.listdir(f"{run.folder}/checkpoints")), 2, "half-written files stayed, or more than keep_last")
        self.assert_same_end(run, kind, ranks)

    def test_killed_twice_one_rank_sgd(self):
        self.twice_killed("sgd", 1)

    def test_killed_twice_one_rank_adamw(self):
        self.twice_killed("adamw", 1)

    def test_killed_twice_two_ranks_sgd(self):
        self.twice_killed("sgd", 2)

    def test_killed_twice_two_ranks_adamw(self):
        self.twice_killed("adamw", 2)

    def test_killed_twice_two_ranks_that_add_in_bf16(self):
        """A resumed rank 1 has the weights of rank 0: the same end shows that it had them before, too."""
        self.twice_killed("bf16-sums", 2)

    @unittest.skipUnless(has_bf16(), "this CPU has no bf16")
    def test_killed_twice_one_rank_bf16(self):
        self.twice_killed("bf16", 1)

    @unittest.skipUnless(has_bf16(), "this CPU has no bf16")
    def test_killed_twice_two_ranks_bf16(self):
        self.twice_killed("bf16", 2)

    @unittest.skipUnless(os.environ.get("THORAX_EMULATION_DEVICES"), "not over the emulation of CUDA")
    def test_killed_twice_on_a_gpu_in_f16(self):
        self.twice_killed("f16", 1)
        scales = [epoch["loss_scale"] for epoch in self.reference("f16", 1)["epochs"]]
        self.assertTrue(scales[0] < 65536, "no step was skipped")

    def test_sigterm_saves_where_it_stands_and_exits_with_0(self):
        run = Run("terminated", settings("sgd", 2, 0))
        run.until(lambda: run.events("progress"))
        workers = run.workers()
        self.assertEqual(run.kill(signal.SIGTERM), STOPPED, run.text())
        self.assertEqual(len(run.events("stopped")), 1)
        self.assertTrue(gone(workers))
        self.assertTrue(run.checkpoints())
        run = Run("terminated", settings("sgd", 2, 0), "--resume", "auto").finish()
        at_step = run.events("start")[0]["at_step"]
        print(f"terminated: resumed at step {at_step}", flush=True)
        self.assertTrue(0 < at_step < 2 * STEPS_PER_EPOCH)
        self.assert_same_end(run, "sgd", 2)

    def test_a_truncated_checkpoint_gives_way_to_the_one_before(self):
        run = Run("truncated", settings("sgd", 1, 2))
        run.until(lambda: len(run.checkpoints()) >= 2)
        self.assertEqual(run.kill(), -signal.SIGKILL)
        before, newest = run.checkpoints()[-2:]
        with open(newest, "r+b") as file:
            file.truncate(os.path.getsize(newest) // 2)
        run = Run("truncated", settings("sgd", 1, 2), "--resume", "auto").finish()
        self.assertEqual(run.events("start")[0]["at_step"], step_of(before))
        self.assertIn("skipped", run.text())
        self.assert_same_end(run, "sgd", 1)

    def test_a_second_run_of_the_same_name_is_refused(self):
        Run("once", {**settings("sgd", 1, 0), "train.steps_per_epoch": 1, "train.epochs": 1}).finish()
        again = Run("once", settings("sgd", 1, 0))
        self.assertEqual(again.process.wait(60), 1)
        self.assertIn("an earlier run left checkpoints here", again.text())


if __name__ == "__main__":
    print(f"seed of the kills: {SEED}", flush=True)
    random.seed(SEED)
    draw_phantoms()
    unittest.main(verbosity=2)
