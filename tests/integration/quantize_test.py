#!/usr/bin/env python3
"""A model in 8 bits and in bf16 from one that was trained: `trainctl quantize` and what takes its files afterwards.

A small network learns phantoms for some seconds. The files open, answer as the f32 model does, are evaluated, compared and
published; what would lose too much is not written; processors that lack something say what."""
import glob
import json
import os
import shutil
import subprocess
import sys
import time
import unittest
import unittest.mock

import pool_programs
import programs

arguments = None
FOLDER = None

CONFIG = """run: {{name: small, directory: {folder}/runs, seed: 3}}
model: {{architecture: resnet18, stem: 7x7, size: 28}}
data: {{directory: {folder}/data, cache_dir: {folder}/cache, name: phantoms}}
train: {{epochs: 6, batch_size: 12, ema_decay: 0.5, select_metric: loss}}
optimizer: {{name: adamw, learning_rate: 0.002}}
device: {{ranks: 1, threads: 1}}
publish: {{enabled: false}}
"""
# An instruction set of ten years ago: no VNNI, no bf16. One name for each of the libraries' versions.
OLD_PROCESSOR = {"DNNL_MAX_CPU_ISA": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
NO_BF16 = "precision bf16: not on this device"
PATIENCE_S = 30
NEAR = 0.05  # of a probability: what 8 bits may change in an answer to a phantom


def run(*command, environment=None):
    """Exit code, standard output, standard error."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=programs.START_S,
                            env={**os.environ, **(environment or {})})
    return result.returncode, result.stdout, result.stderr


def quantize(model, out, *options, environment=None):
    if not environment and not {"--weight-bits", "--precision"} & set(options):
        options += tuple(Models.weight_bits)
    command = [arguments.trainctl, "quantize", model, "--config", f"{FOLDER}/config.yaml", "--out", out, *options]
    return run(*command, environment=environment)


def check(model, *options, environment=None):
    """What inferd --check says; golden answers are compared there. Exit code, standard output, standard error."""
    words = ["--model", model, "--check", "--set", "device.threads=1", "--set", "batch.max=1", *options]
    return run(arguments.inferd, *words, environment=environment)


def manifest(path):
    """The manifest, read as the safetensors format says."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return json.loads(header["__metadata__"]["thorax"])


def answers(model, name, pictures):
    """Probabilities of PNEUMONIA as a member that serves the model gives them through inferctl."""
    member = programs.standalone(arguments, FOLDER, name, model, "--set", "device.threads=1")
    try:
        member.wait_ready(programs.file_digest(model))
        command = [arguments.inferctl, "diagnose", "--json", "--endpoint", member.endpoint, *pictures]
        code, out, err = run(*command)
        member.stop()
    finally:
        member.kill()
    assert code == 0, err
    return [row["probabilities"]["PNEUMONIA"] for row in json.loads(out)]


def good(*command):
    """The standard output of a command that has to succeed."""
    code, out, err = run(*command)
    assert code == 0, f"{command}: {err}"
    return out


class Models:
    """A network that has learnt phantoms a little, its 8-bit and bf16 files, and what was said of the first."""

    f32 = int8 = bf16 = said = None  # bf16 stays None where the processor has none
    weight_bits = []  # an option, where the processor has no VNNI


def setUpModule():
    with open(f"{FOLDER}/config.yaml", "w") as file:
        file.write(CONFIG.format(folder=FOLDER))
    good(arguments.trainctl, "phantom", "--out", f"{FOLDER}/data", "--layout", "24,12,4", "--size", "64")
    good(arguments.trainerd, "--config", f"{FOLDER}/config.yaml")
    Models.f32 = sorted(glob.glob(f"{FOLDER}/runs/small/models/*.safetensors"))[-1]
    Models.int8, bf16 = f"{FOLDER}/int8.safetensors", f"{FOLDER}/bf16.safetensors"
    eight = ["--images", "64", "--search-images", "16", "--force"]
    code, Models.said, err = quantize(Models.f32, Models.int8, *eight)
    if code != 0 and "use --weight-bits 7" in err:
        print(f"without VNNI: {err.strip()}", flush=True)
        Models.weight_bits = ["--weight-bits", "7"]
        code, Models.said, err = quantize(Models.f32, Models.int8, *eight)
    assert code == 0, err
    code, _, err = quantize(Models.f32, bf16, "--precision", "bf16", "--force")
    assert code == 0 or NO_BF16 in err, err
    if code == 0:
        Models.bf16 = bf16
    else:
        print(f"without bf16: {err.strip()}", flush=True)


class Quantize(unittest.TestCase):
    def refused(self, result, words):
        code, _, err = result
        self.assertEqual(code, 1, err)
        self.assertIn(words, err)

    def test_the_file_in_8_bits(self):
        before, after = manifest(Models.f32), manifest(Models.int8)
        self.assertEqual((before["format"], after["format"], after["precision"]), (1, 2, "int8"))
        self.assertEqual(after["version"], before["version"] + "-int8")
        self.assertLessEqual(os.path.getsize(Models.int8), 0.27 * os.path.getsize(Models.f32))
        self.assertEqual(len(after["quantised"]), 21, "the pictures and resnet18's 20 convolutions")
        self.assertGreaterEqual(sum(row["computes"] == "int8" for row in after["quantised"]), 19, "all but perhaps the first")
        self.assertEqual([row["dtype"] for row in after["quantised"] if row["node"] == "input"], ["s8"])
        self.assertIn("decisions differ", Models.said)
        self.assertIn("21 tensors: min_max ", Models.said)

    def opens(self, model, *options, environment=None):
        code, out, err = check(model, *options, environment=environment)
        self.assertEqual((code, out), (0, "inferd: configuration OK\n"), err)
        self.assertIn("golden_images=6", err)

    def test_members_open_it(self):
        for model in (Models.f32, Models.int8, Models.bf16):
            if model:
                self.opens(model)

    def test_the_reference_device_answers_the_same_in_8_bits(self):
        self.opens(Models.int8, "--set", "device.name=reference")

    def test_answers_are_near(self):
        pictures = sorted(glob.glob(f"{FOLDER}/data/test/*/*"))
        expected = answers(Models.f32, "alone-f32", pictures)
        self.assertGreater(max(expected) - min(expected), 5 * NEAR, "answers that are all alike would prove nothing")
        for name, model in (("int8", Models.int8), ("bf16", Models.bf16)):
            if model:
                found = answers(model, f"alone-{name}", pictures)
                self.assertLess(max(abs(a - b) for a, b in zip(expected, found)), NEAR)
                self.assertNotEqual(expected, found)

    def test_a_method_for_all_tensors(self):
        out = f"{FOLDER}/mse.safetensors"
        code, said, err = quantize(Models.f32, out, "--method", "mse", "--images", "32", "--version", "mine", "--force", "--json")
        self.assertEqual(code, 0, err)
        report = json.loads(said)
        self.assertEqual(report["precisions"], ["f32", "int8"])
        self.assertEqual(manifest(out)["version"], "mine")
        self.opens(out)

    def test_evaluate_and_compare(self):
        for part, pictures in (("test", 12), ("validation", None)):
            words = ["--config", f"{FOLDER}/config.yaml", "--part", part, "--json"]
            compared = json.loads(good(arguments.trainctl, "compare", Models.f32, Models.int8, *words))
            for i, model in enumerate((Models.f32, Models.int8)):
                report = json.loads(good(arguments.trainctl, "evaluate", model, *words))
                self.assertAlmostEqual(report["accuracy"], compared["accuracy"][i], places=6)
            self.assertEqual(compared["pictures"], pictures or compared["pictures"])
            self.assertAlmostEqual(compared["agreement"], 1 - compared["decisions_that_differ"] / compared["pictures"], places=6)
        same = json.loads(good(arguments.trainctl, "compare", Models.int8, Models.int8, *words))
        self.assertEqual((same["agreement"], same["mean_change"]), (1, 0))

    def test_what_loses_too_much_is_not_written(self):
        """Random weights have a threshold that says nothing; the one that is fitted to the 8-bit answers decides otherwise."""
        folder, model = f"{FOLDER}/refused", f"{FOLDER}/random.safetensors"
        os.mkdir(folder)
        good(arguments.make_model, model, "random", "1")
        options = ["--method", "min_max", "--images", "8", "--weight-bits", "7"]
        self.refused(quantize(model, f"{folder}/m", *options), "nothing is written (--force)")
        self.assertEqual(os.listdir(folder), [])
        code, _, err = quantize(model, f"{folder}/m", *options, "--force")
        self.assertEqual((code, os.listdir(folder)), (0, ["m"]), err)

    def test_only_f32_models_are_quantised(self):
        out = f"{FOLDER}/twice"
        self.refused(quantize(Models.int8, out), "int8.safetensors is in int8 already; quantise the f32 model")
        self.refused(quantize(Models.int8, out, "--precision", "bf16"), "is in int8 already")
        self.refused(quantize(f"{FOLDER}/none", out), "none: ")
        self.refused(quantize(Models.f32, f"{FOLDER}/none/out", "--method", "mse", "--images", "8", "--force"), "none/out")
        self.assertEqual(glob.glob(f"{out}*"), [])

    def test_a_wrong_command_line_is_refused(self):
        for options in (["--images", "7"], ["--images", "4097"], ["--search-images", "0"], ["--weight-bits", "6"],
                        ["--weight-bits", "9"], ["--max-auc-loss", "-0.1"], ["--max-auc-loss", "nan"], ["--min-agreement", "1.1"],
                        ["--precision", "f32"], ["--precision", "f16"], ["--method", "median"], ["--images", "8x"], ["--nonsense"],
                        ["another.safetensors"]):
            with self.subTest(options):
                code, out, err = quantize(Models.f32, f"{FOLDER}/wrong", *options)
                self.assertEqual((code, out), (2, ""))
                self.assertTrue(err.startswith("usage: trainctl quantize "), err)
        for words in (["quantize", Models.f32, "--out", f"{FOLDER}/wrong"], ["compare", Models.f32], ["compare", Models.f32, Models.int8],
                      ["compare", Models.f32, Models.int8, "--config", "x", "--part", "all"]):
            with self.subTest(words):
                code, _, err = run(arguments.trainctl, *words)
                self.assertEqual((code, err.split("\n")[0][:15]), (2, "usage: trainctl"))
        self.assertFalse(os.path.exists(f"{FOLDER}/wrong"))

    def test_processors_without_vnni(self):
        """8 bits would saturate there: the file is refused, and one of 7 bits gives the golden answers of this processor."""
        seven = f"{FOLDER}/seven.safetensors"
        if check(Models.f32, environment=OLD_PROCESSOR)[0] != 0:
            self.skipTest("no oneDNN here that can be told to be older")
        if not Models.weight_bits:
            self.refused(check(Models.int8, environment=OLD_PROCESSOR), "quantise it with --weight-bits 7")
        options = ["--method", "mse", "--images", "32", "--force"]
        self.refused(quantize(Models.f32, seven, *options, environment=OLD_PROCESSOR), "use --weight-bits 7")
        self.assertEqual(quantize(Models.f32, seven, *options, "--weight-bits", "7")[0], 0)
        self.opens(seven)
        self.opens(seven, environment=OLD_PROCESSOR)
        self.refused(quantize(Models.f32, f"{FOLDER}/none", "--precision", "bf16", environment=OLD_PROCESSOR), NO_BF16)


class Pool(unittest.TestCase):
    """A publisher, a member on an old processor, and one that has all that this processor has."""

    def setUp(self):
        self.folder = f"{FOLDER}/pool"
        os.mkdir(self.folder)
        self.addCleanup(shutil.rmtree, self.folder)
        self.pool = pool_programs.Pool(arguments, self.folder)
        self.addCleanup(self.pool.kill)
        self.pool.start_publisher("publish.activate=auto")

    def wait_refused(self, name, reason):
        """Until the publisher lists that member as failed for that reason."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            rows = json.loads(self.pool.trainctl("models", "--json").stdout)["members"]
            if any(row["member"] == name and row["state"] == "failed" and reason in row["error"] for row in rows):
                return
            assert time.monotonic() < deadline, f"not refused for \"{reason}\": {rows} {self.pool.logs()[-2000:]}"
            time.sleep(0.1)

    def publish(self, path):
        self.pool.trainctl_until("publish", path)
        return programs.file_digest(path)

    def start_old(self):
        with unittest.mock.patch.dict(os.environ, OLD_PROCESSOR):
            return self.pool.start_member("old")

    def test_members_take_what_they_can_compute(self):
        """What is refused leaves the model before it in service."""
        if not Models.bf16:
            self.skipTest("bf16: not on this processor")
        old = self.start_old()
        f32 = self.publish(Models.f32)
        old.wait_ready(f32)
        bf16 = self.publish(Models.bf16)
        self.wait_refused("old", "it needs the precision bf16")
        old.wait_ready(f32)
        able = self.pool.start_member("able")
        able.wait_ready(bf16)
        int8 = self.publish(Models.int8)
        self.wait_refused("old", "quantise it with --weight-bits 7")
        old.wait_ready(f32)
        able.wait_ready(int8)
        self.assertEqual(self.publish(Models.f32), f32)
        able.wait_ready(f32)


def main():
    global arguments, FOLDER
    arguments = programs.parse_arguments(__doc__.splitlines()[0])
    with programs.temporary_folder() as FOLDER:
        return not unittest.main(argv=sys.argv[:1], verbosity=2, exit=False).result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
