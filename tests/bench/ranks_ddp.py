"""PyTorch's DistributedDataParallel over Gloo, for tests/bench/ranks: one process a rank on a core of its own. Rank 0 starts the
others, answers lines on stdin (run N, machine) as peers_engines.py does, and passes them on through the process group.

    ranks_ddp.py --cores 0,1 --architecture NAME --size N --batch N [--bucket-mib N] [--bf16-gradients]

The batch is a rank's. Of the ways to compute that a user would try the fastest is taken, after two steps of each: channels last or
contiguous, and compiled where PyTorch compiles.
"""
import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import torch
import torch.distributed as dist
from peers_engines import CHANNELS, CLASSES, labels, pixels  # which also finds networks

import networks

LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


def ways():
    for compiled in [False] + ([True] if hasattr(torch, "compile") else []):
        for layout in LAYOUTS:
            yield layout, compiled


def make_step(case, layout, compiled):
    """What a user's training loop does once, as torch_training in peers_engines.py, over the ranks. Batch statistics stay a rank's
    own, as ours do."""
    torch.manual_seed(1)
    model = networks.MODELS[case.architecture](CHANNELS, CLASSES, None).train().to(memory_format=LAYOUTS[layout])
    images, targets = torch.from_numpy(pixels(case)).to(memory_format=LAYOUTS[layout]), torch.from_numpy(labels(case))
    parallel = torch.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=case.bucket_mib, gradient_as_bucket_view=True,
                                                         broadcast_buffers=False)
    if case.bf16_gradients:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
        parallel.register_comm_hook(None, default_hooks.bf16_compress_hook)
    fused = {"fused": True} if torch.__version__ >= "2.4" else {}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=.9, weight_decay=1e-4, **fused)
    forward = torch.compile(parallel) if compiled else parallel

    def step():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(forward(images), targets).backward()
        optimizer.step()
    return step


def run(step, count):
    ms = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        ms.append((time.perf_counter() - start) * 1e3)
    return ms


def agreed(value):
    """Rank 0's number, on all ranks."""
    number = torch.tensor([value], dtype=torch.int64)
    dist.broadcast(number, 0)
    return int(number)


def fastest(case):
    """(words for it, step): every rank tries every way, rank 0's clock decides."""
    tried = []
    for layout, compiled in ways():
        try:
            step = make_step(case, layout, compiled)
            run(step, 2 if compiled else 1)
            tried.append((min(run(step, 2)), layout, compiled))
        except RuntimeError as problem:
            if not compiled:
                raise
            print(f"compiled, {layout}: {problem}", file=sys.stderr)
    places = sorted(range(len(tried)), key=lambda i: tried[i][0])
    _, layout, compiled = tried[agreed(places[0])]
    return f"{layout}{', compiled' if compiled else ''}", make_step(case, layout, compiled)


def lead(case, how, step, out):
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        if line.strip() == "machine":
            answer = {"device": f"PyTorch {torch.__version__}, DDP over Gloo, {how}"}
        else:
            ms = run(step, agreed(int(line.strip().removeprefix("run "))))
            answer = {"ms": ms, "images_per_s": dist.get_world_size() * case.batch * 1e3 * len(ms) / sum(ms)}
        print(json.dumps(answer), file=out, flush=True)
    agreed(0)


def follow(step):
    while count := agreed(0):
        run(step, count)


def be_rank(case, rank, meeting):
    cores = [int(core) for core in case.cores.split(",")]
    os.sched_setaffinity(0, [cores[rank]])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=len(cores))
    return fastest(case)


@contextlib.contextmanager
def others(case, meeting):
    """The other ranks; they end with rank 0's last word, or are ended."""
    count = len(case.cores.split(","))
    started = [subprocess.Popen([sys.executable, *sys.argv, "--rank", str(rank), "--meeting", meeting], stdin=subprocess.DEVNULL)
               for rank in range(1, count)]
    try:
        yield
        for process in started:
            process.wait(30)
    finally:
        for process in started:
            process.kill()
            process.wait()


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", required=True)
    parser.add_argument("--architecture", required=True)
    for name, default in (("size", 224), ("batch", 8), ("bucket-mib", 25), ("rank", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--bf16-gradients", action="store_true")
    parser.add_argument("--meeting")
    return parser.parse_args()


def main():
    case = parse()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if case.rank:
        follow(be_rank(case, case.rank, case.meeting)[1])
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the folder goes, and the other ranks
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    with tempfile.TemporaryDirectory(prefix="ranks_ddp-") as folder, others(case, f"{folder}/meeting"):
        lead(case, *be_rank(case, 0, f"{folder}/meeting"), out)


if __name__ == "__main__":
    main()
