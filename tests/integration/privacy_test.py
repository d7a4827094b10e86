#!/usr/bin/env python3
"""Names of patients' files stay where they belong: no output, log, record, report or model of training and evaluation holds one,
whatever is wrong with the data. Only the list of broken images does, and only its owner reads that.
Usage: privacy_test.py TRAINERD TRAINCTL"""
import os
import pathlib
import stat
import subprocess
import sys
import tempfile
import unittest

TRAINERD, TRAINCTL = sys.argv[1:3]
PATIENT = "person777"  # stands in the name of every picture below
CONFIG = """
run: {name: t, directory: %(folder)s/runs}
model: {architecture: resnet18, stem: 3x3, size: 28}
data: {directory: %(folder)s/data, cache_dir: %(folder)s/cache}
train: {epochs: 1, steps_per_epoch: 1, batch_size: 4}
device: {ranks: 1, threads: 1}
publish: {enabled: true, store: %(folder)s/store, announce: "tcp://127.0.0.1:*", control: "tcp://127.0.0.1:*", blobs: "tcp://127.0.0.1:*"}
"""


def run(*arguments):
    """Exit code, and all that the program said."""
    ended = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240, check=False)
    return ended.returncode, ended.stdout.decode(errors="replace")


class Privacy(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)
        self.config = self.folder / "config.yaml"
        self.config.write_text(CONFIG % {"folder": self.folder})
        self.assertEqual(run(TRAINCTL, "phantom", "--out", self.folder / "data", "--count", "20", "--size", "64")[0], 0)
        for picture in (self.folder / "data").glob("*/*/*.png"):
            picture.rename(picture.with_name(picture.name.replace("phantom", PATIENT)))

    def train(self, *settings):
        overrides = [word for setting in settings for word in ("--set", setting)]
        return run(TRAINERD, "--config", self.config, "--once", "--set", "log.level=debug", *overrides)

    def spoil(self):
        """Pictures that cannot be read, each in another way."""
        train = self.folder / "data" / "train"
        (train / "NORMAL" / f"{PATIENT}junk_bacteria_1.png").write_bytes(b"junk")
        (train / "NORMAL" / f"{PATIENT}empty_1.jpg").write_bytes(b"")
        (train / "NORMAL" / f"{PATIENT}gone_1.png").symlink_to("/nonexistent")
        (train / "NORMAL" / f"{PATIENT}folder_1.png").mkdir()
        (train / "PNEUMONIA" / f"{PATIENT}other_1.gif").write_bytes(b"GIF89a")

    def test_training_and_evaluation_keep_names_to_themselves(self):
        self.spoil()
        code, said = self.train()
        self.assertEqual(code, 0, said)
        model = next((self.folder / "runs" / "t" / "models").glob("*.safetensors"))
        code, report = run(TRAINCTL, "evaluate", model, "--config", self.config, "--part", "test", "--out", self.folder / "report")
        self.assertEqual(code, 0, report)
        self.assertIn("quarantined", said)
        self.assertNotIn(PATIENT, said + report)
        holders = [path for path in self.folder.rglob("*") if path.is_file() and self.folder / "data" not in path.parents
                   and PATIENT.encode() in path.read_bytes()]
        self.assertEqual([path.suffixes[-2:] for path in holders], [[".quarantine", ".txt"]])
        self.assertEqual(stat.S_IMODE(holders[0].stat().st_mode), 0o600)

    def test_pictures_in_the_cache_are_for_the_owner_alone(self):
        self.assertEqual(self.train()[0], 0)
        for path in (self.folder / "cache").iterdir():
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path.suffix)

    def test_what_is_wrong_with_the_data_is_said_without_names(self):
        one = f"train/NORMAL/{PATIENT}1-1.png"
        manifests = {"same": f"{one},NORMAL\n{one},NORMAL\n", "class": f"{one},{PATIENT}\n", "split": f"{one},NORMAL,{PATIENT}\n",
                     "missing": f"{PATIENT}x.png,NORMAL\n{PATIENT}y.png,PNEUMONIA\n", "quote": f'"{one},NORMAL\n'}
        for name, rows in manifests.items():
            path = self.folder / "data" / f"{name}.csv"
            path.write_text(("path,class,split\n" if name == "split" else "path,class\n") + rows)
            code, said = self.train('data.directory=""', f"data.manifest={path}")
            with self.subTest(manifest=name):
                self.assertEqual(code, 1, said)
                self.assertNotIn(PATIENT, said)
        names = self.folder / "list"
        names.write_text(f"train/NORMAL/{PATIENT}nosuch.png\n")
        code, said = self.train(f"data.validation_list={names}")
        self.assertEqual(code, 1, said)
        self.assertNotIn(PATIENT, said)

    def test_a_class_whose_pictures_are_all_broken_is_named_and_no_picture(self):
        for picture in (self.folder / "data").glob("*/NORMAL/*.png"):
            picture.write_bytes(b"\x89PNG\r\n\x1a\n")
        code, said = self.train()
        self.assertEqual(code, 1, said)
        self.assertIn("NORMAL", said)
        self.assertNotIn(PATIENT, said)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    unittest.main(argv=sys.argv[:1])
