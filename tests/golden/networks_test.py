#!/usr/bin/env python3
"""networks_test.py INFER: the networks of networks.py and ours have exactly the same parameters, and compute the same.

INFER is tests/bench/infer, which takes weights only where no tensor is missing, surplus or of another shape. Ends with 77
(skipped) where PyTorch is not at hand.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

try:
    import torch
except ImportError:
    print("skipped: PyTorch is not there")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "deploy" / "python")]
import networks  # noqa: E402
import pth_to_safetensors  # noqa: E402

INFER = sys.argv.pop(1)
SIZE, CLASSES = 65, 3  # odd: TensorFlow's padding is even in some layers, and not in others


def pixels(channels):
    """The batch of tests/bench/subject.h, of one image."""
    draws = torch.arange(channels * SIZE * SIZE) * 2654435761 % 2001
    return (draws.float() / 1000 - 1).reshape(1, channels, SIZE, SIZE)


class Networks(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(1)
        self.folder = tempfile.TemporaryDirectory()
        self.weights = str(pathlib.Path(self.folder.name) / "weights.safetensors")

    def tearDown(self):
        self.folder.cleanup()

    def infer(self, architecture, channels, state, lines="logits\n"):
        """What our program answers to the lines, and what it complains of."""
        pth_to_safetensors.write(self.weights, state, "networks_test")
        command = [INFER, "--serve", "--architecture", architecture, "--weights", self.weights, "--size", str(SIZE),
                   "--channels", str(channels), "--batch", "1", "--threads", "1"]
        return subprocess.run(command, input=lines, capture_output=True, text=True, check=False)

    def test_same_parameters_and_logits(self):
        for architecture, make in networks.MODELS.items():
            for channels in (1, 3):
                with self.subTest(architecture=architecture, channels=channels), torch.no_grad():
                    model = make(channels, CLASSES, None)
                    model.train()(pixels(channels).repeat(2, 1, 1, 1))  # running statistics that are not 0 and 1
                    done = self.infer(architecture, channels, model.state_dict())
                    self.assertEqual(done.returncode, 0, done.stderr)
                    ours = torch.tensor(json.loads(done.stdout.splitlines()[1])["logits"], dtype=torch.float64)
                    truth = model.double().eval()(pixels(channels).double())[0]
                    self.assertLess((ours - truth).abs().max(), 1e-4 * truth.abs().max())

    def test_refuses_what_is_not_the_same(self):
        model = networks.MODELS["resnet18"](3, CLASSES, None)
        surplus = {**model.state_dict(), "layer1.0.conv9.weight": torch.zeros(1)}
        missing = {name: value for name, value in model.state_dict().items() if name != "layer3.0.downsample.0.weight"}
        other_shape = {**model.state_dict(), "bn1.weight": torch.ones(63)}
        for state, name in ((surplus, "conv9"), (missing, "downsample"), (other_shape, "bn1.weight")):
            done = self.infer("resnet18", 3, state)
            self.assertEqual(done.returncode, 1)
            self.assertIn(name, done.stderr)

    def test_runs_as_often_as_it_is_told_to(self):
        state = networks.MODELS["resnet18"](1, CLASSES, None).state_dict()
        done = self.infer("resnet18", 1, state, "logits\nrun 3\nlogits\n")
        ready, before, run, after = done.stdout.splitlines()
        self.assertEqual(ready, "ready")
        self.assertEqual(len(json.loads(run)["ms"]), 3)
        self.assertEqual(before, after)
        for line in ("run 0", "run", "logit"):
            done = self.infer("resnet18", 1, state, line + "\n")
            self.assertEqual((done.returncode, done.stdout), (1, "ready\n"))
            self.assertIn("infer: ", done.stderr)


if __name__ == "__main__":
    unittest.main()
