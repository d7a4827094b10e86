#!/usr/bin/env python3
"""A run that goes on with other numbers of ranks is fed what an undisturbed one is: the same images, augmented alike, in the same
order. The network stands still (a learning rate of next to nothing), so that a loss tells what the steps were fed, and no rounding
grows from step to step.
Usage: resume_ranks_test.py TRAINERD TRAINCTL [unittest's options]"""
import json
import signal
import unittest

from training_fixture import Run, draw_phantoms, gone

WORLDS = [4, 2, 1, 4]
STEPS, STOPPED = 21, 4  # STOPPED: trainerd's exit code for training that was stopped before its end
ROUNDING = 1e-5
SETTINGS = {
    "train.epochs": 3,
    "model.sync_batch_norm": "true",  # statistics are of the whole batch, on however many ranks
    "optimizer.learning_rate": "1e-12",
    "optimizer.weight_decay": 0,
}


def epoch_losses(run):
    with open(f"{run.folder}/metrics.jsonl") as file:
        records = [json.loads(line) for line in file]
    return [record["loss"] for record in records if record["event"] == "epoch"]


class ResumeRanks(unittest.TestCase):
    def stopped_stage(self, ranks, number):
        """Some steps on so many ranks. Returns the step that they began at."""
        run = Run("moved", {**SETTINGS, "device.ranks": ranks}, "--resume", "auto")
        run.until(lambda: run.events("progress"))
        workers = run.workers()
        self.assertIn(run.kill(number), (0, STOPPED), run.text())
        self.assertEqual(len(run.events("stopped")), 1, run.text())
        self.assertTrue(gone(workers))
        return run.events("start")[0]["at_step"]

    def test_four_two_one_and_four_ranks_are_fed_what_one_is(self):
        whole = epoch_losses(Run("whole", {**SETTINGS, "device.ranks": 1}).finish())
        starts = [self.stopped_stage(ranks, signal.SIGTERM if i else signal.SIGUSR1) for i, ranks in enumerate(WORLDS[:-1])]
        run = Run("moved", {**SETTINGS, "device.ranks": WORLDS[-1]}, "--resume", "auto").finish()
        starts.append(run.events("start")[0]["at_step"])
        moved = epoch_losses(run)
        print(f"began at steps {starts} on {WORLDS} ranks; losses {moved}, of one rank {whole}", flush=True)
        self.assertEqual(starts[0], 0)
        self.assertEqual(starts, sorted(set(starts)), "a stage without a step")
        self.assertLess(starts[-1], STEPS)
        self.assertIn("what=ranks checkpoint=1 now=4", run.text())
        self.assertNotIn("what=config", run.text())
        self.assertGreater(abs(whole[0] - whole[1]), 100 * ROUNDING, "a loss does not tell what it is of")
        for one, other in zip(whole, moved, strict=True):
            self.assertLess(abs(one - other), ROUNDING)


if __name__ == "__main__":
    draw_phantoms()
    unittest.main(verbosity=2)
