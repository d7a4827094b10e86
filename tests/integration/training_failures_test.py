#!/usr/bin/env python3
"""What goes wrong with a training ends it soon, with an error that says what and where, and leaves nothing behind.
Usage: training_failures_test.py TRAINERD TRAINCTL [unittest's options]"""
import os
import shutil
import signal
import subprocess
import time
import unittest

from training_fixture import FOLDER, STOPPED, TRAINERD, Run, draw_phantoms, gone, tensors

SECONDS = 15  # on a machine that is busy with other tests


def trainerd(*arguments):
    return subprocess.run([TRAINERD, *arguments], capture_output=True, text=True, timeout=60)


def write(name, text):
    path = f"{FOLDER}/{name}"
    with open(path, "w") as file:
        file.write(text)
    return path


class LostRank(unittest.TestCase):
    def lose(self, rank):
        run = Run(f"lost-{rank}", {"device.ranks": 2, "train.epochs": 5000, "checkpoint.every_epochs": 0, "cluster.restarts": 0})
        run.until(lambda: run.events("progress"))
        workers = run.workers()
        self.assertEqual(set(workers), {0, 1})
        os.kill(workers[rank], signal.SIGKILL)
        begin = time.monotonic()
        self.assertEqual(run.process.wait(60), 1)
        took_s = time.monotonic() - begin
        print(f"rank {rank} killed: the run ended after {took_s:.2f} s with: {run.text().splitlines()[-1]}", flush=True)
        self.assertLess(took_s, SECONDS)
        self.assertIn(f"rank {rank} was killed by signal 9", run.text().splitlines()[-1])
        self.assertTrue(gone(workers))
        self.assertEqual(os.listdir(Run.temporary), [])

    def test_rank_0_is_named(self):
        self.lose(0)

    def test_rank_1_is_named(self):
        self.lose(1)


class RecoveredRank(unittest.TestCase):
    """By default the run goes on from the newest checkpoint, as if nothing had been."""

    SETTINGS = {"device.ranks": 2, "checkpoint.every_steps": 2}

    def test_a_killed_rank_changes_no_bit(self):
        calm = Run("calm", self.SETTINGS).finish()
        run = Run("stirred", self.SETTINGS)
        run.until(run.checkpoints)
        workers = run.workers()
        os.kill(workers[1], signal.SIGKILL)
        run.finish()
        self.assertEqual([event["generation"] for event in run.events("generation")], [1, 2])
        self.assertIn("rank 1 was killed by signal 9", run.events("lost")[0]["reason"])
        self.assertEqual(len(run.events("trained")), 1)
        self.assertEqual(tensors(run.checkpoints()[-1]), tensors(calm.checkpoints()[-1]))
        self.assertTrue(gone(workers))
        self.assertEqual(os.listdir(Run.temporary), [])


class BrokenPlace(unittest.TestCase):
    """A place that fails more often in a row than cluster.restarts allows is left out: the others go on."""

    def test_the_others_go_on_without_it(self):
        run = Run("broken", {"device.ranks": 2, "train.epochs": 5000, "checkpoint.every_epochs": 0, "cluster.restarts": 1})
        seen = 0
        for generation in 1, 2:
            run.until(lambda: len(run.events("progress")) > seen)
            os.kill(run.workers()[1], signal.SIGKILL)
            run.until(lambda: len(run.events("generation")) > generation)
            seen = len(run.events("progress"))
        left_out = run.events("left_out")[0]
        self.assertEqual((left_out["node"], left_out["place"], left_out["ranks"]), (0, 1, 1))
        self.assertIn("rank 1 was killed by signal 9", left_out["reason"])
        self.assertEqual([event["ranks"] for event in run.events("generation")], [2, 2, 1])
        run.until(lambda: len(run.events("progress")) > seen)
        run.process.terminate()
        self.assertEqual(run.process.wait(60), STOPPED)
        self.assertEqual(os.listdir(Run.temporary), [])


class KilledRun(unittest.TestCase):
    """SIGKILL to trainerd itself, on one machine: its ranks end with it, and the next run clears up what it could not."""

    def test_the_next_run_leaves_nothing_of_it(self):
        run = Run("murdered", {"device.ranks": 2, "train.epochs": 5000, "checkpoint.every_epochs": 0})
        run.until(lambda: run.events("progress"))
        workers = run.workers()
        run.process.kill()
        run.process.wait()
        deadline = time.monotonic() + SECONDS
        while not gone(workers):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        Run("heir", {"device.ranks": 2}).finish()
        self.assertEqual(os.listdir(Run.temporary), [])


class Data(unittest.TestCase):
    def fail(self, name, directory):
        run = Run(name, {"data.directory": directory})
        self.assertEqual(run.process.wait(60), 1)
        print(run.text().strip(), flush=True)
        self.assertEqual(os.listdir(Run.temporary), [])
        return run.text()

    def test_a_missing_directory_is_named(self):
        self.assertIn(f"{FOLDER}/nowhere", self.fail("missing", f"{FOLDER}/nowhere"))

    def test_an_empty_class_is_named(self):
        shutil.copytree(f"{FOLDER}/data", f"{FOLDER}/hollow")
        for part in "train", "val", "test":
            shutil.rmtree(f"{FOLDER}/hollow/{part}/NORMAL")
            os.makedirs(f"{FOLDER}/hollow/{part}/NORMAL")
        self.assertIn("NORMAL", self.fail("hollow", f"{FOLDER}/hollow"))

    def test_a_broken_image_is_set_aside_and_no_file_is_named(self):
        shutil.copytree(f"{FOLDER}/data", f"{FOLDER}/chipped")
        victim = sorted(os.listdir(f"{FOLDER}/chipped/train/NORMAL"))[0]
        os.truncate(f"{FOLDER}/chipped/train/NORMAL/{victim}", 100)
        run = Run("chipped", {"data.directory": f"{FOLDER}/chipped", "train.epochs": 1, "train.steps_per_epoch": 1}).finish()
        self.assertEqual(run.events("quarantined")[0]["images"], 1)
        self.assertNotIn("phantom", run.text())
        with open(run.events("quarantined")[0]["list"]) as quarantine:
            self.assertIn(victim, quarantine.read())


class Configuration(unittest.TestCase):
    def test_all_errors_are_told_at_once_with_their_places(self):
        path = write("wrong.yaml", "run:\n  name: a\n  sede: 1\nmodel:\n  size: 9\ntrain:\n  epochs: many\n")
        for options in ["--config", path], ["--config", path, "--check"]:
            result = trainerd(*options)
            self.assertEqual(result.returncode, 1)
            for place, said in ("3:3", "sede"), ("5:3", "28..512"), ("7:3", "many"):
                line = [line for line in result.stderr.splitlines() if f"wrong.yaml:{place}:" in line]
                self.assertEqual(len(line), 1, result.stderr)
                self.assertIn(said, line[0])

    def test_a_file_that_is_not_there_is_named(self):
        result = trainerd("--config", f"{FOLDER}/none.yaml")
        self.assertEqual(result.returncode, 1)
        self.assertIn("none.yaml", result.stderr)

    def test_check_starts_nothing(self):
        runs = f"run:\n  name: unborn\n  directory: {FOLDER}/unborn\n"
        path = write("good.yaml", runs + "train:\n  epochs: 1\ndata:\n  directory: /d\n")
        result = trainerd("--config", path, "--check")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "trainerd: configuration OK\n", ""))
        self.assertFalse(os.path.exists(f"{FOLDER}/unborn"))

    def test_wrong_usage_ends_with_2(self):
        for options in [], ["--config"], ["--confgi", "x"], ["--config", "x", "more"], ["--config", "x", "--resume", "never"]:
            result = trainerd(*options)
            self.assertEqual(result.returncode, 2, options)
            self.assertIn("usage: trainerd", result.stderr)


if __name__ == "__main__":
    draw_phantoms()
    unittest.main(verbosity=2)
