"""The programs that tests/bench/peers compares with: PyTorch, ONNX Runtime and OpenVINO, each in a process of its own that
runs when it is told to, as `train --serve` and `infer --serve` do. Runs in peers' virtual environment.

    peers_engines.py prepare CASE...       writes FOLDER/weights.safetensors and FOLDER/truth.json
    peers_engines.py serve ENGINE CASE...  prints "ready" and answers lines on stdin: run N, logits, machine

CASE is --folder --architecture --mode --precision --size --batch --threads; the folder holds what belongs to one
architecture, size and batch, and is kept. The batch is made by the formula of tests/bench/subject.h: pixels (N, 3, H, W),
labels (N).
"""
import argparse
import json
import os
import pathlib
import sys
import time

import numpy as np

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "golden"), str(TESTS.parent / "deploy" / "python")]

CHANNELS, CLASSES = 3, 3


def pixels(case):
    count = case.batch * CHANNELS * case.size * case.size
    draws = np.arange(count, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(2001)
    return (draws.astype(np.float32) / np.float32(1000) - np.float32(1)).reshape(case.batch, CHANNELS, case.size, case.size)


def labels(case):
    return np.arange(case.batch) % CLASSES


# --- what all compute ---

def network(case):
    """The network with the weights that the folder keeps."""
    import torch
    import networks
    model = networks.MODELS[case.architecture](CHANNELS, CLASSES, None)
    model.load_state_dict(torch.load(case.folder / "weights.pt", weights_only=True))
    return model


def calm(model, images):
    """Makes a fresh network as well-behaved as a trained one, for its logits must not depend on the last bits of its
    activations. What a block adds to its input is small (Goyal et al. 2017 start at zero): at 1, bf16 moves ResNet-50's
    logits by a fifth, at .2 by a fiftieth. Batch norm gets the statistics of these images: without, activations double from
    block to block."""
    import torch
    import networks
    for module in model.modules():
        if isinstance(module, networks.Block):
            torch.nn.init.constant_(getattr(module, f"bn{module.count}").weight, .2)
        elif isinstance(module, networks.LiteBlock) and module.residual:
            torch.nn.init.constant_(module._bn2.weight, .2)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1
    with torch.no_grad():
        model.train()(images)


def prepare(case):
    """Weights, and the logits that they give in double precision: in inference, and in training with the loss."""
    import torch
    import networks
    import pth_to_safetensors
    torch.manual_seed(1)
    torch.set_num_threads(case.threads)
    images, targets = torch.from_numpy(pixels(case)), torch.from_numpy(labels(case))
    model = networks.MODELS[case.architecture](CHANNELS, CLASSES, None)
    calm(model, images)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(state, case.folder / "weights.pt")
    pth_to_safetensors.write(case.folder / "weights.safetensors", state, "tests/bench/peers")
    model, images = model.double(), images.double()
    with torch.no_grad():
        infer, train = model.eval()(images), model.train()(images)
        loss = torch.nn.functional.cross_entropy(train, targets)
    truth = {"infer": {"logits": infer.flatten().tolist()}, "train": {"logits": train.flatten().tolist(), "loss": loss.item()}}
    (case.folder / "truth.json").write_text(json.dumps(truth))


def made_once(path, make):
    """The path, after make(temporary path) where it was not there."""
    if not path.exists():
        temporary = path.with_name(f"new-{path.name}")
        make(temporary)
        temporary.rename(path)
    return path


def onnx_file(case):
    import torch

    def export(path):
        torch.onnx.export(network(case).eval(), (torch.from_numpy(pixels(case)),), str(path), input_names=["images"],
                          output_names=["logits"], dynamo=False)
    return made_once(case.folder / "model.onnx", export)


# --- the engines: each gives (version, run, logits): run() does one step or batch, logits() gives what is compared ---

def torch_training(case, compiled):
    import torch
    model = network(case).train().to(memory_format=torch.channels_last)
    images = torch.from_numpy(pixels(case)).to(memory_format=torch.channels_last)
    targets = torch.from_numpy(labels(case))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=.9, weight_decay=1e-4, fused=True)
    forward = torch.compile(model) if compiled else model

    def compute():
        with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16"):
            logits = forward(images)
            return logits, torch.nn.functional.cross_entropy(logits, targets)

    def run():
        optimizer.zero_grad(set_to_none=True)
        compute()[1].backward()
        optimizer.step()

    def logits():
        values, loss = compute()
        return {"logits": values.float().flatten().tolist(), "loss": loss.item()}
    return run, logits


def torch_inference(case, compiled):
    import torch
    kind = torch.bfloat16 if case.precision == "bf16" else torch.float32
    model = network(case).eval().to(kind).to(memory_format=torch.channels_last)
    images = torch.from_numpy(pixels(case)).to(kind).to(memory_format=torch.channels_last)
    if compiled:
        import torch._inductor.config
        torch._inductor.config.freezing = True  # folds batch norm, and lays weights out once
        model = torch.compile(model)

    def run():
        with torch.no_grad():
            return model(images)
    return run, lambda: {"logits": run().float().flatten().tolist()}


def torch_engine(compiled):
    def make(case):
        import torch
        torch.set_num_threads(case.threads)
        run, logits = (torch_training if case.mode == "train" else torch_inference)(case, compiled)
        return f"PyTorch {torch.__version__}", run, logits
    return make


def quantised_onnx(case):
    """8 bits by ONNX Runtime's static quantisation (QDQ, weights per channel), calibrated on the batch that is measured."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batch(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = [{"images": pixels(case)}]

        def get_next(self):
            return self.left.pop() if self.left else None

    def quantise(path):
        folded = case.folder / "folded.onnx"
        quant_pre_process(str(onnx_file(case)), str(folded))
        quantization.quantize_static(str(folded), str(path), Batch(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                                     activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8)
    return made_once(case.folder / "int8.onnx", quantise)


def onnxruntime_engine(case):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = case.threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # threads spin while it runs, not while others do
    path = quantised_onnx(case) if case.precision == "int8" else onnx_file(case)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    images = {"images": pixels(case)}

    def run():
        return session.run(None, images)[0]
    return f"ONNX Runtime {onnxruntime.__version__}", run, lambda: {"logits": run().flatten().tolist()}


def quantised_openvino(core, case):
    """8 bits by NNCF with its defaults for CPUs, calibrated on the batch that is measured."""
    import nncf
    import openvino

    def quantise(path):
        model = nncf.quantize(core.read_model(str(onnx_file(case))), nncf.Dataset([pixels(case)]))
        openvino.save_model(model, str(path), compress_to_fp16=False)
        path.with_suffix(".bin").rename(case.folder / "int8.bin")
    return made_once(case.folder / "int8.xml", quantise)


def openvino_engine(case):
    import openvino
    core = openvino.Core()
    path = quantised_openvino(core, case) if case.precision == "int8" else onnx_file(case)
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(case.threads)}
    if case.precision != "int8":
        settings["INFERENCE_PRECISION_HINT"] = case.precision
    request = core.compile_model(core.read_model(str(path)), "CPU", settings).create_infer_request()
    images = pixels(case)

    def run():
        return request.infer([images], share_inputs=True)[0]
    return f"OpenVINO {openvino.__version__}", run, lambda: {"logits": run().flatten().tolist()}


ENGINES = {
    "torch-eager": torch_engine(compiled=False),
    "torch-compiled": torch_engine(compiled=True),
    "onnxruntime": onnxruntime_engine,
    "openvino": openvino_engine,
}


def answer(line, version, run, logits):
    if line == "logits":
        return logits()
    if line == "machine":
        return {"device": version}
    ms = []
    for _ in range(int(line.removeprefix("run "))):
        start = time.perf_counter()
        run()
        ms.append((time.perf_counter() - start) * 1e3)
    return {"ms": ms}


def serve(engine, case):
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    parts = ENGINES[engine](case)
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(line.strip(), *parts)), file=out, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["prepare", "serve"])
    parser.add_argument("engine", nargs="?", choices=ENGINES)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    for name in ("architecture", "mode", "precision"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("size", "batch", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    case = parser.parse_args()
    prepare(case) if case.action == "prepare" else serve(case.engine, case)


if __name__ == "__main__":
    main()
