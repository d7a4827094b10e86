#!/usr/bin/env python3
"""trainerd on the CUDA device over the emulation: with graphs and without, in one piece and in parts, with pictures varied
on the device and by the loader, it learns the same weights bit for bit.
Usage: trainerd_graphs_test.py TRAINERD TRAINCTL [unittest's options]"""
import json
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from training_fixture import Run, arguments, draw_phantoms, tensors  # noqa: E402: takes its own arguments

SETTINGS = {
    "device.name": "cuda",
    "train.epochs": 2,
    "train.steps_per_epoch": 3,
    "train.ema_decay": 0.9,
    "model.dropout": 0.2,
    "data.prefetch": 1,
}


def results(run):
    """Tensors of the last checkpoint, and the record of each epoch but for its time."""
    with open(f"{run.folder}/metrics.jsonl") as file:
        records = [json.loads(line) for line in file]
    epochs = [{key: value for key, value in record.items() if key != "time"} for record in records if record["event"] == "epoch"]
    return tensors(run.checkpoints()[-1]), epochs


class Graphs(unittest.TestCase):
    def train(self, name, **settings):
        run = Run(name, {**SETTINGS, **settings}).finish()
        self.assertNotIn("emulation:", run.text())
        return run

    def compare(self, kind, **settings):
        one = self.train(f"{kind}-graphs", **settings)
        other = self.train(f"{kind}-kernels", **settings, **{"device.graphs": "false"})
        self.assertNotIn("engine_not_recorded", one.text())
        self.assertEqual(results(one), results(other))
        self.assertEqual(len(results(one)[1]), 2)

    def test_whole_batches(self):
        self.compare("whole")

    def test_parts(self):
        self.compare("parts", **{"train.parts": 2, "optimizer.name": "adamw", "optimizer.learning_rate": 0.002})

    def kinds(self, **settings):
        """The kinds of operations of a step."""
        command = arguments("kinds", {**SETTINGS, **settings}, ["--profile=1"], "")
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {row["kind"] for row in json.loads(printed)["rows"]}

    def compare_augmentation(self, kind, **settings):
        settings["train.epochs"] = 1
        host = {"device.augment": "false"}
        self.assertIn("vary", self.kinds(**settings))
        self.assertNotIn("vary", self.kinds(**settings, **host))
        on_device, on_host = self.train(f"{kind}-device", **settings), self.train(f"{kind}-host", **settings, **host)
        self.assertEqual(results(on_device), results(on_host))

    def test_augmentation(self):
        self.compare_augmentation("augment")

    def test_augmentation_narrow_and_in_parts(self):
        self.compare_augmentation("augment-narrow", **{"train.precision": "bf16", "train.parts": 2, "train.recompute": "true"})

    def test_failed_capture(self):
        """It is said, and the run goes on."""
        os.environ["THORAX_EMULATION_FAIL_CAPTURE"] = "1"
        try:
            run = self.train("failed", **{"train.epochs": 1, "train.steps_per_epoch": 1})
        finally:
            del os.environ["THORAX_EMULATION_FAIL_CAPTURE"]
        said = [line for line in run.text().splitlines() if "engine_not_recorded" in line]
        self.assertEqual(len(said), 1, run.text())
        self.assertIn("cudaErrorStreamCaptureInvalidated", said[0])


if __name__ == "__main__":
    draw_phantoms()
    unittest.main(verbosity=2)
