#!/usr/bin/env python3
"""How fast PyTorch trains, or infers with, one of our networks on a GPU: what deploy/gpu-check prints beside us.

The network is tests/golden/networks.py's, channels last, on a batch that lies in the GPU's memory. f32 is without TF32, as ours;
bf16 and f16 train under autocast (f16 with a gradient scaler) and infer with weights of that type. Inference is under CUDA graphs where
it is compiled (mode "max-autotune"). Prints one object of JSON, in the form of tests/bench/train."""
import argparse
import json
import pathlib
import statistics
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "golden"))
import networks  # pylint: disable=wrong-import-position

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
CLASSES, ROUND_S = 3, .2


def synchronise(device):
    if device == "cuda":
        torch.cuda.synchronize()


def training(case, batch):
    model = networks.MODELS[case.architecture](3, CLASSES, "7x7").to(case.device).train().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, case.size, case.size, device=case.device).to(memory_format=torch.channels_last)
    targets = torch.arange(batch, device=case.device) % CLASSES
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=.9, weight_decay=1e-4,
                                **({"fused": True} if case.device == "cuda" else {}))
    scaler = torch.cuda.amp.GradScaler(enabled=case.precision == "f16")
    forward = torch.compile(model) if case.how == "compiled" else model

    def run():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(case.device, TYPES[case.precision], enabled=case.precision != "f32"):
            loss = torch.nn.functional.cross_entropy(forward(images), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return run


def inference(case, batch):
    kind = TYPES[case.precision]
    model = networks.MODELS[case.architecture](3, CLASSES, "7x7").to(case.device).eval().to(kind).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, case.size, case.size, device=case.device).to(kind).to(memory_format=torch.channels_last)
    if case.how == "compiled":
        from torch._inductor import config
        config.freezing = True  # folds batch norm
        model = torch.compile(model, mode="max-autotune" if case.device == "cuda" else "default")

    def run():
        with torch.no_grad():
            model(images)
    return run


def measure(case, batch):
    """Milliseconds of a run: the median of the rounds, each as many runs as fill it."""
    run = (training if case.mode == "train" else inference)(case, batch)
    for _ in range(5):
        run()
    synchronise(case.device)
    rounds = []
    for _ in range(case.rounds):
        start, runs = time.perf_counter(), 0
        while runs == 0 or time.perf_counter() - start < ROUND_S:
            run()
            synchronise(case.device)
            runs += 1
        rounds.append((time.perf_counter() - start) / runs * 1e3)
    return statistics.median(rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--how", choices=["eager", "compiled"], required=True)
    parser.add_argument("--mode", choices=["train", "infer"], required=True)
    parser.add_argument("--architecture", choices=list(networks.MODELS), required=True)
    parser.add_argument("--precision", choices=list(TYPES), required=True)
    parser.add_argument("--batch", type=lambda text: [int(part) for part in text.split(",")], required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    case = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    gpu = torch.cuda.get_device_name() if case.device == "cuda" else "CPU"
    print(f'{{"version": "{torch.__version__}", "device": {json.dumps(gpu)}, "batches": [', flush=True)
    for i, batch in enumerate(case.batch):
        ms = measure(case, batch)
        print(f'{"," if i else ""} {{"batch": {batch}, "ms": {ms:.4f}, "images_per_s": {batch * 1e3 / ms:.2f}}}', flush=True)
    print("]}")


main()
