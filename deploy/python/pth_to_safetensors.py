#!/usr/bin/env python3
"""Turns a PyTorch state dict (.pth, .pt) into a safetensors file that `trainctl import` takes.

    pth_to_safetensors.py MODEL.pth MODEL.safetensors [--trust]

Needs PyTorch and nothing else; the format is written here (8 bytes of length, a JSON header, the tensors).

A .pth file is a pickle, and a pickle can run any code while it is read. This script loads tensors and nothing else
(`weights_only=True`, PyTorch 1.13 and later). --trust loads an older kind of file, or one with other objects in it,
without that protection: only for files from people you trust, best in a container.
"""

import argparse
import json
import os
import struct
import sys
import tempfile

try:
    import torch
except ImportError:
    sys.exit("pth_to_safetensors.py: PyTorch is not there: install it (python3-torch on Debian) and try again")

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
}


def load(path, trust):
    """The object in the file, on the CPU."""
    if trust:
        return torch.load(path, map_location="cpu")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except TypeError:
        raise ValueError(
            f"PyTorch {torch.__version__} cannot load weights alone (1.13 can); "
            "update it, or give --trust if you trust whoever made the file"
        ) from None
    except Exception as error:  # the unpickler raises many kinds
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"not a file of weights alone ({reason[0] if reason else type(error).__name__}); "
            "--trust loads it if you trust whoever made it"
        ) from None


def state_dict(loaded):
    """The tensors by name: of a state dict, of a checkpoint that holds one, or (with --trust) of a whole model."""
    if hasattr(loaded, "state_dict"):
        loaded = loaded.state_dict()
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError("holds no state dict")
    tensors = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name!r} is no tensor: not a state dict")
        name = name[len("module."):] if name.startswith("module.") else name  # DataParallel puts this in front
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{name}: elements of type {tensor.dtype} have no place in the file")
        if name in tensors:
            raise ValueError(f"{name} stands twice")
        tensors[name] = tensor.detach().contiguous()
    return tensors


def raw_bytes(tensor):
    """The elements as little-endian bytes, row-major."""
    if tensor.numel() == 0:
        return b""
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def header_of(tensors, order, source):
    """The length and the JSON header, padded so that the data starts at a multiple of 8."""
    entries, at = {"__metadata__": {"format": "pt", "source": source}}, 0
    for name in order:
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write(path, tensors, source):
    """Writes the file beside its place and renames it, so that a half-written one is never found under its name."""
    if sys.byteorder != "little":
        raise ValueError("this machine is big-endian; the format is little-endian")
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(path)), prefix=os.path.basename(path))
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(header_of(tensors, order, source))
            for name in order:
                file.write(raw_bytes(tensors[name]))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def main(command_line=None):
    parser = argparse.ArgumentParser(description="PyTorch weights (.pth) to safetensors")
    parser.add_argument("source", help="the .pth or .pt file")
    parser.add_argument("target", help="the .safetensors file to write")
    parser.add_argument("--trust", action="store_true", help="load with full pickle: runs whatever code the file holds")
    arguments = parser.parse_args(command_line)
    try:
        tensors = state_dict(load(arguments.source, arguments.trust))
        write(arguments.target, tensors, os.path.basename(arguments.source))
    except (OSError, ValueError) as error:
        sys.exit(f"pth_to_safetensors.py: {arguments.source}: {error}")
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    print(f"{arguments.target}: {len(tensors)} tensors, {total} bytes")


if __name__ == "__main__":
    main()
