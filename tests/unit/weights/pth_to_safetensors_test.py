#!/usr/bin/env python3
"""deploy/python/pth_to_safetensors.py against PyTorch, where PyTorch is at hand (ends with 77 where it is not: skipped).

The files are read back by a few lines that know nothing of the writer, and values compared bit for bit.
"""

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import struct
import sys
import tempfile
import unittest

try:
    import torch
except ImportError:
    print("skipped: PyTorch is not there")
    sys.exit(77)

SCRIPT = pathlib.Path(__file__).resolve().parents[3] / "deploy" / "python" / "pth_to_safetensors.py"

specification = importlib.util.spec_from_file_location("pth_to_safetensors", SCRIPT)
script = importlib.util.module_from_spec(specification)
specification.loader.exec_module(script)


def read(path):
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return length, json.loads(data[8:8 + length]), data[8 + length:]


class Evil:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


class Convert(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.source = os.path.join(self.folder.name, "m.pth")
        self.target = os.path.join(self.folder.name, "m.safetensors")

    def tearDown(self):
        self.folder.cleanup()

    def convert(self):
        """What the program says: None where it succeeds, else its message."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                script.main([self.source, self.target])
        except SystemExit as end:
            return end.code
        return None

    def test_values_and_order(self):
        tensors = {
            "b.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3).t(),  # not contiguous
            "a.num_batches_tracked": torch.tensor(7),
            "h": torch.tensor([1.5, -2], dtype=torch.bfloat16),
            "empty": torch.zeros(0, 3),
        }
        torch.save(tensors, self.source)
        self.assertIsNone(self.convert())
        length, header, data = read(self.target)
        self.assertEqual(length % 8, 0)
        names = [name for name in header if name != "__metadata__"]
        self.assertEqual(names, ["a.num_batches_tracked", "b.weight", "empty", "h"])
        self.assertEqual(header["b.weight"]["shape"], [3, 2])
        begin, end = header["b.weight"]["data_offsets"]
        self.assertEqual(struct.unpack("<6f", data[begin:end]), (0, 3, 1, 4, 2, 5))
        begin, end = header["a.num_batches_tracked"]["data_offsets"]
        self.assertEqual(struct.unpack("<q", data[begin:end]), (7,))
        self.assertEqual(data[header["h"]["data_offsets"][0]:], bytes.fromhex("c03f00c0"))
        self.assertEqual(header["h"]["data_offsets"][1], len(data))

    def test_checkpoint_and_data_parallel(self):
        torch.save({"epoch": 3, "state_dict": {"module.fc.bias": torch.ones(2)}}, self.source)
        self.assertIsNone(self.convert())
        self.assertIn("fc.bias", read(self.target)[1])

    def test_code_in_the_file_is_not_run(self):
        evil = os.path.join(self.folder.name, "evil")
        torch.save({"a": Evil(evil)}, self.source)
        self.assertIn("--trust", self.convert())
        self.assertFalse(os.path.exists(evil))
        self.assertFalse(os.path.exists(self.target))

    def test_what_is_no_state_dict_is_refused(self):
        for content in ([1, 2], {}, {"a": 3}, {"a": torch.ones(1, dtype=torch.complex64)}):
            torch.save(content, self.source)
            self.assertIn(self.source, self.convert())
            self.assertFalse(os.path.exists(self.target))
        pathlib.Path(self.source).write_bytes(b"not a pickle")
        self.assertIn("not a file of weights", self.convert())
        os.unlink(self.source)
        self.assertIn("No such file", self.convert())


if __name__ == "__main__":
    unittest.main()
