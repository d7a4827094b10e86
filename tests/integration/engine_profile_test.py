#!/usr/bin/env python3
"""Where the time goes: `trainerd --profile` and `inferctl bench --engine` as programs. What they print and write is whole and says
which kinds of operations there are; nonsense on the command line is refused."""
import json
import os
import subprocess
import sys
import unittest

import programs

arguments = None

CONFIG = """run: {{name: profiled, directory: {folder}/runs}}
model: {{architecture: resnet18, stem: 7x7, size: 32}}
data: {{directory: {folder}/there-is-no-such-folder, cache_dir: {folder}/cache}}
train: {{batch_size: {batch}}}
device: {{ranks: {ranks}}}
"""
TRAINING = {
    ("conv2d", "forward"),
    ("conv2d", "backward_data"),
    ("conv2d", "backward_weight"),
    ("batch_norm", "forward"),
    ("batch_norm", "backward_data"),
    ("max_pool", "forward"),
    ("linear", "backward_weight"),
    ("softmax_cross_entropy", "forward"),
    ("sgd", "update"),
}
INFERENCE = {("conv2d", "infer"), ("global_average_pool", "infer"), ("linear", "infer")}


def run(*command):
    """Exit code, standard output, standard error."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=programs.START_S)
    return result.returncode, result.stdout, result.stderr


class Fixture(unittest.TestCase):
    def setUp(self):
        self.folder = programs.temporary_folder()
        self.addCleanup(self.folder.cleanup)
        self.trace = f"{self.folder.name}/trace.json"

    def good(self, *command):
        code, out, err = run(*command)
        self.assertEqual((code, err), (0, ""), f"{command}: {out}")
        return out

    def assert_profile(self, profile, mode, batch, kinds):
        rows = {(row["kind"], row["pass"]): row for row in profile["rows"]}
        self.assertEqual((profile["mode"], profile["batch"]), (mode, batch))
        self.assertLessEqual(kinds, set(rows))
        self.assertEqual(len(rows), len(profile["rows"]), "a kind and pass stands once")
        self.assertAlmostEqual(sum(row["share"] for row in rows.values()), 1, places=6)
        for row in rows.values():
            self.assertEqual(sum(row["implementations"].values()), row["steps"])
            self.assertEqual(row["flops"] > 0, row["kind"] in ("conv2d", "linear"), row)
            self.assertGreater(row["bytes"], 0)
        self.assertGreater(profile["whole_ms"], 0)
        return rows

    def read_trace(self, runs):
        """The trace's events by process, less those of whole runs, of which there must be so many in each."""
        with open(self.trace) as file:
            events = json.load(file)["traceEvents"]
        steps = {}
        for event in events:
            if event["ph"] == "X" and event["cat"] != "run":
                steps.setdefault(event["pid"], []).append(event)
        for process in steps:
            whole = [event for event in events if event["pid"] == process and event.get("cat") == "run"]
            self.assertEqual(len(whole), runs)
        return steps


class TrainerTest(Fixture):
    def setUp(self):
        super().setUp()
        self.config = f"{self.folder.name}/config.yaml"
        with open(self.config, "w") as file:
            ranks = len(os.sched_getaffinity(0))
            file.write(CONFIG.format(folder=self.folder.name, ranks=ranks, batch=4 * ranks))

    def profile(self, *options):
        return self.good(arguments.trainerd, "--config", self.config, *options)

    def test_the_table(self):
        out = self.profile("--profile", "2")
        self.assertIn("resnet18 1x32x32, training, f32, batch 4, on onednn", out)
        self.assertIn("medians of 2 runs", out)
        for kind, of_pass in TRAINING:
            self.assertRegex(out, rf"(?m)^{kind} +{of_pass} +\d+ ")
        self.assertEqual(sorted(os.listdir(self.folder.name)), ["config.yaml"], "nothing else is written")

    def test_json_and_trace(self):
        profile = json.loads(self.profile("--profile=3", "--json", "--trace", self.trace))
        rows = self.assert_profile(profile, "training", 4, TRAINING)
        self.assertEqual(rows["conv2d", "forward"]["steps"], 20)
        self.assertEqual(rows["conv2d", "backward_weight"]["steps"], 20)
        self.assertEqual(rows["conv2d", "backward_data"]["steps"], 19, "pictures need no gradient")
        self.assertRegex(profile["device"], ", 1 thread$", "rank 0's share of the cores")
        steps = self.read_trace(3)
        self.assertEqual(list(steps), [1])
        self.assertEqual(len(steps[1]), 3 * sum(row["steps"] for row in rows.values()))
        names = {event["name"] for event in steps[1]}
        self.assertLessEqual({"conv1", "layer4.1.conv2", "fc", "loss", "weights"}, names)

    def test_parts_and_what_is_computed_again(self):
        settings = ["--set", "train.parts=2", "--set", "train.recompute=true", "--set", "optimizer.name=adamw"]
        profile = json.loads(self.profile("--profile", "1", "--json", *settings))
        kinds = (TRAINING - {("sgd", "update")}) | {("adamw", "update"), ("add", "sum_parts"), ("conv2d", "recompute")}
        self.assert_profile(profile, "training", 2, kinds)
        self.assertEqual(profile["parts"], 2)

    def test_classes_are_the_configuration_s(self):
        text = self.profile("--profile", "1", "--json", "--trace", self.trace, "--set", "data.class_names=[A, PNEUMONIA]")
        self.assertTrue(text)
        with open(self.trace) as file:
            self.assertIn('"dst":"f32 (4, 2), ', file.read())

    def test_a_wrong_command_line_is_refused(self):
        for options, words in [
            (["--profile=0"], "--profile"),
            (["--profile", "1001"], "--profile"),
            (["--profile=many"], "--profile"),
            (["--profile", "3", "4"], 'what is "4"'),
            (["--trace", self.trace], "--trace goes with --profile"),
            (["--profile", "--trace"], "its value is missing"),
            (["--profile", "--check"], "none of --check"),
            (["--profile", "--once"], "none of --check"),
            (["--profile", "--resume", "auto"], "none of --check"),
        ]:
            with self.subTest(options):
                code, out, err = run(arguments.trainerd, "--config", self.config, *options)
                self.assertEqual((code, out), (2, ""))
                self.assertIn(words, err.splitlines()[0])

    def test_what_cannot_be_profiled_fails(self):
        publisher = f"{self.folder.name}/publisher.yaml"
        with open(publisher, "w") as file:
            file.write("publish: {enabled: true}\n")
        for options, words in [
            (["--config", publisher, "--profile"], "no train: section"),
            (["--config", self.config, "--profile", "--set", "model.size=7"], "cannot be used"),
            (["--config", self.config, "--profile=1", "--trace", f"{self.folder.name}/none/trace.json"], "No such file"),
        ]:
            with self.subTest(options):
                code, _, err = run(arguments.trainerd, *options)
                self.assertEqual(code, 1)
                self.assertIn(words, err.splitlines()[-1])


class EngineTest(Fixture):
    @classmethod
    def setUpClass(cls):
        cls.home = programs.temporary_folder()
        cls.model = f"{cls.home.name}/model.safetensors"
        subprocess.run([arguments.make_model, cls.model, "profiled", "1"], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.home.cleanup()

    def bench(self, *options):
        return self.good(arguments.inferctl, "bench", "--engine", self.model, *options)

    def test_a_table_for_each_batch_size(self):
        tables = self.bench("--runs", "2").split("\n\n")
        self.assertEqual(len(tables), 2)
        for table, batch in zip(tables, (1, 8)):
            self.assertIn(f"resnet18 1x28x28, inference, f32, batch {batch}, on ", table)
            for kind, of_pass in INFERENCE:
                self.assertRegex(table, rf"(?m)^{kind} +{of_pass} +\d+ ")

    def test_json_and_trace(self):
        text = self.bench("--batch", "1,3,2", "--threads=1", "--runs=2", "--json", "--trace", self.trace)
        profiles = json.loads(text)
        steps = self.read_trace(2)
        self.assertEqual(list(steps), [1, 2, 3])
        for i, batch in enumerate((1, 3, 2)):
            rows = self.assert_profile(profiles[i], "inference", batch, INFERENCE)
            self.assertEqual(rows["conv2d", "infer"]["steps"], 20, "batch norms are folded")
            self.assertEqual(len(steps[i + 1]), 2 * sum(row["steps"] for row in rows.values()))
            self.assertRegex(profiles[i]["device"], ", 1 thread$")
            self.assertEqual(profiles[i]["runs"], 2)
        one, three = (profile["rows"] for profile in profiles[:2])
        flops = [next(row["flops"] for row in rows if row["kind"] == "conv2d") for rows in (one, three)]
        self.assertAlmostEqual(flops[1] / flops[0], 3)

    def test_the_reference_device_is_no_fallback(self):
        profile = json.loads(self.bench("--device", "reference", "--batch", "1", "--runs", "1", "--json"))[0]
        self.assertEqual({name for row in profile["rows"] for name in row["implementations"]}, {"reference"})
        self.assertEqual(sum(row["reference_fallback"] for row in profile["rows"]), 0)

    def test_a_wrong_command_line_is_refused(self):
        for options, words in [
            (["--batch", "0"], "--batch"),
            (["--batch", "1,,2"], "--batch"),
            (["--batch", "1, 2"], "--batch"),
            (["--batch", ",".join(["1"] * 17)], "more than 16"),
            (["--batch", "1" * 40], "--batch"),
            (["--precision", "f64"], "--precision"),
            (["--threads", "0"], "--threads"),
            (["--runs", "1001"], "--runs"),
            (["--closed", "1"], "unknown option"),
            (["picture.png"], 'what is "picture.png"'),
        ]:
            with self.subTest(options):
                code, out, err = run(arguments.inferctl, "bench", "--engine", self.model, *options)
                self.assertEqual((code, out), (2, ""))
                self.assertIn(words, err)

    def test_what_cannot_be_measured_fails(self):
        short = f"{self.folder.name}/short.safetensors"
        with open(self.model, "rb") as whole, open(short, "wb") as file:
            file.write(whole.read()[:-1])
        for options, words in [
            ([short], "short.safetensors"),
            ([f"{self.folder.name}/none.safetensors"], "No such file"),
            ([self.model, "--device", "abacus"], "abacus"),
            ([self.model, "--runs", "1", "--trace", f"{self.folder.name}/none/trace.json"], "No such file"),
        ]:
            with self.subTest(options):
                code, _, err = run(arguments.inferctl, "bench", "--engine", *options)
                self.assertEqual(code, 1)
                self.assertIn(words, err)


def main():
    global arguments
    arguments = programs.parse_arguments(__doc__.splitlines()[0])
    return not unittest.main(argv=sys.argv[:1], verbosity=2, exit=False).result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
