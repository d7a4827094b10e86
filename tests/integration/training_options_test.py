#!/usr/bin/env python3
"""Keys that change what is learnt do so. The network stands still (a learning rate of next to nothing), so that a loss tells what
the step was fed and how it was weighed.
Usage: training_options_test.py TRAINERD TRAINCTL [unittest's options]"""
import json
import os
import unittest

from training_fixture import FOLDER, Run, draw_phantoms, tensors

STILL = {
    "optimizer.learning_rate": "1e-12",
    "optimizer.weight_decay": 0,
    "train.label_smoothing": 0,
    "imbalance.balanced_sampling": "false",
    "model.freeze_batch_norm": "true",
    "train.epochs": 1,
}
PLAIN = """augment: {crop_area_min: 1, crop_area_max: 1, crop_aspect: 1, rotation_degrees: 0, translation: 0, flip_probability: 0,
  brightness: 0, contrast: 0, gamma: 0, blur_probability: 0, noise_sigma_max: 0, erasing_probability: 0}
"""


def epoch_loss(name, settings, extra=PLAIN):
    """Mean loss of an epoch, and the images of each class that there are to train on."""
    run = Run(name, {**STILL, **settings}, extra=extra).finish()
    counts = {event["class"]: event["train"] for event in run.events("data") if "class" in event}
    return run.events("epoch")[0]["loss"], counts


class Options(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """Of the pneumonias only each fourth stays, in every part."""
        for folder, _, names in os.walk(f"{FOLDER}/data"):
            for name in sorted(names) if folder.endswith("PNEUMONIA") else []:
                if int(name[len("phantom") : name.index("-")]) % 4:
                    os.remove(f"{folder}/{name}")
        cls.plain, cls.counts = epoch_loss("plain", {})

    def test_the_same_configuration_gives_the_same_loss(self):
        self.assertEqual(epoch_loss("again", {})[0], self.plain)

    def test_the_loss_weighs_rare_classes_more(self):
        print(self.counts, flush=True)
        self.assertLess(2 * self.counts["PNEUMONIA"], self.counts["NORMAL"])
        weighted, _ = epoch_loss("weighted", {"imbalance.class_weighted_loss": "true"})
        self.assertGreater(abs(weighted - self.plain), 1e-4)

    def test_sampling_is_balanced(self):
        balanced, _ = epoch_loss("balanced", {"imbalance.balanced_sampling": "true"})
        self.assertGreater(abs(balanced - self.plain), 1e-4)

    def test_a_class_has_its_own_augmentation(self):
        own, _ = epoch_loss("own", {}, PLAIN + "augment_class:\n  PNEUMONIA: {contrast: 2, brightness: 0.5}\n")
        self.assertGreater(abs(own - self.plain), 1e-5)
        same, _ = epoch_loss("same", {}, PLAIN + "augment_class:\n  PNEUMONIA: {contrast: 0}\n")
        self.assertEqual(same, self.plain)

    def test_stops_early(self):
        settings = {**STILL, "train.epochs": 9, "train.steps_per_epoch": 1, "train.early_stopping_patience": 2}
        run = Run("patient", settings, extra=PLAIN).finish()
        self.assertEqual([event["best"] for event in run.events("epoch")], [1, 0, 0])


class Sums(unittest.TestCase):
    """`collective.gradients`, with a network that learns."""

    def train(self, ranks, gradients):
        settings = {"device.ranks": ranks, "collective.gradients": gradients, "train.epochs": 3, "train.label_smoothing": 0,
                    "optimizer.learning_rate": 0.002, "schedule.warmup_epochs": 0}
        return Run(f"sums-{ranks}-{gradients}", settings, extra=PLAIN).finish()

    def test_two_ranks_that_add_in_bf16_learn_as_in_f32(self):
        runs = [self.train(2, gradients) for gradients in ("f32", "bf16")]
        self.assertEqual([run.events("start")[0]["gradients"] for run in runs], ["f32", "bf16"])
        wide, narrow = ([event["loss"] for event in run.events("epoch")] for run in runs)
        print(f"losses with sums in f32 {wide}, in bf16 {narrow}", flush=True)
        self.assertLess(narrow[-1], 0.75 * narrow[0])
        self.assertNotEqual(narrow, wide)
        self.assertLess(max(abs(one - other) for one, other in zip(narrow, wide, strict=True)), (wide[0] - wide[-1]) / 2)

    def test_an_epoch_tells_what_its_sums_took(self):
        epochs, steps = 2, 7
        settings = {"device.ranks": 2, "train.epochs": epochs, "train.steps_per_epoch": steps, "collective.gradients": "f32"}
        run = Run("told", settings, extra=PLAIN).finish()
        with open(f"{run.folder}/metrics.jsonl") as file:
            told = [record for record in map(json.loads, file) if record["event"] == "communication"]
        self.assertEqual([record["epoch"] for record in told], list(range(1, epochs + 1)))
        for record in told:
            self.assertEqual(record["bytes"] % steps, 0)
            self.assertGreater(record["bytes"] / steps, 11e6 * 4)  # ResNet-18's gradients
            self.assertGreaterEqual(record["sums"], steps)
            self.assertGreater(record["communication_ms"], 0)
            self.assertGreater(record["exposed_communication_ms"], 0)
        self.assertEqual(told[0]["bytes"], told[1]["bytes"])

    def test_one_rank_has_nothing_to_round(self):
        runs = [self.train(1, gradients) for gradients in ("f32", "bf16")]
        self.assertEqual([run.events("start")[0]["gradients"] for run in runs], ["f32", "f32"])
        self.assertEqual(*(tensors(run.checkpoints()[-1]) for run in runs))


if __name__ == "__main__":
    draw_phantoms()
    unittest.main(verbosity=2)
