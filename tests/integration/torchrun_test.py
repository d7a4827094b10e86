#!/usr/bin/env python3
"""Two tasks of torchrun are one run of two ranks. Usage: torchrun_test.py TRAINERD TRAINCTL [unittest's options].
Exit code 77: there is no torchrun."""
import json
import os
import re
import shutil
import subprocess
import sys
import unittest

TORCHRUN = "/usr/bin/torchrun" if os.path.exists("/usr/bin/torchrun") else shutil.which("torchrun")
if not TORCHRUN:
    print("skipped: torchrun is not installed")
    sys.exit(77)

from training_fixture import FOLDER, PATIENCE_S, arguments, draw_phantoms  # noqa: E402  takes the programs' names


def torchrun(name, tasks, settings, options=()):
    """Runs trainerd as tasks of torchrun. Spelt with underscores, which old and new ones take; Python 3.11 with torch 1.13 fails on the
    defaults of --redirects and --tee."""
    environment = {key: value for key, value in os.environ.items() if key != "XDG_RUNTIME_DIR"}
    environment["TMPDIR"] = f"{FOLDER}/temporary"
    os.makedirs(environment["TMPDIR"], exist_ok=True)
    command = [TORCHRUN, "--standalone", f"--nproc_per_node={tasks}", "--redirects=1", "--tee=1", f"--log_dir={FOLDER}/{name}-logs",
               "--no_python", *arguments(name, settings, options, "")]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment)


def events(text):
    """By task: what torchrun put "[default0]:" and the like in front of."""
    found = {}
    for task, line in re.findall(r"^\[default(\d+)\]:(\{.*\})$", text, re.M):
        found.setdefault(int(task), []).append(json.loads(line))
    return found


class Torchrun(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        draw_phantoms()

    def test_two_tasks_train_together(self):
        done = torchrun("two", 2, {})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        told = events(done.stdout)
        starts = [event for event in told[0] if event["event"] == "generation"]
        print(done.stdout[-2000:], flush=True)
        self.assertEqual([(start["ranks"], start["nodes"]) for start in starts], [(2, 2)])
        self.assertEqual([event["event"] for event in told[1]].count("joined"), 1)
        self.assertEqual(told[1][-1]["event"], "trained")
        records = f"{FOLDER}/runs/two/metrics.jsonl"
        with open(records) as file:
            epochs = [event for event in map(json.loads, file) if event["event"] == "epoch"]
        self.assertEqual(len(epochs), 2)

    def test_more_ranks_than_tasks_are_refused_before_anything_starts(self):
        done = torchrun("refused", 2, {"device.ranks": 3, "train.batch_size": 12})
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("device.ranks is 3, but 2 tasks are on this node (LOCAL_WORLD_SIZE), each of them a rank", done.stdout + done.stderr)
        self.assertFalse(os.path.exists(f"{FOLDER}/runs/refused"))

    def tearDown(self):
        self.assertEqual(os.listdir(f"{FOLDER}/temporary"), [])


if __name__ == "__main__":
    unittest.main()
