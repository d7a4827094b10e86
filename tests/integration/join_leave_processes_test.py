#!/usr/bin/env python3
"""Members join and leave, by SIGTERM and by SIGKILL in turn, while one stays: what the publisher and the one that stays have
of memory and descriptors is flat. --cycles 200 is the long form; join_leave_test.c does 200 in one process."""
import os
import subprocess
import sys
import time

import pool_programs
import programs

NAMES = 3  # the members that come and go
SLACK_BYTES = 12 << 20  # of 200 cycles: ZeroMQ's and malloc's own reserves


class Size:
    """What leaks show in. Source: proc(5)."""

    def __init__(self, process):
        folder = f"/proc/{process.process.pid}"
        with open(f"{folder}/statm") as file:
            self.resident = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        self.descriptors = len(os.listdir(f"{folder}/fd"))

    def __repr__(self):
        return f"{self.resident >> 10} KiB, {self.descriptors} descriptors"


def join_and_leave(pool, cycle, digest):
    member = pool.start_member(f"m{cycle % NAMES}", "batch.max=1")
    member.wait_ready(digest)
    if cycle % 2:
        member.process.kill()
        member.process.wait()
    else:
        member.stop()


def settled(process, most):
    """Its size, as soon as its descriptors are back to what they were; ZeroMQ notices a dead peer some time later."""
    deadline = time.monotonic() + programs.START_S
    while Size(process).descriptors > most and time.monotonic() < deadline:
        time.sleep(0.1)
    return Size(process)


def run(pool, arguments):
    model = f"{pool.folder}/model"
    subprocess.run([arguments.make_model, model, "model", "1", "1"], check=True)
    digest = programs.file_digest(model)
    publisher = pool.start_publisher("publish.activate=auto")
    pool.publish(model)
    stays = pool.start_member("stays", "batch.max=1")
    stays.wait_ready(digest)
    watched = {"publisher": publisher, "member": stays}
    alone = {name: Size(process).descriptors for name, process in watched.items()}
    for cycle in range(2 * NAMES):
        join_and_leave(pool, cycle, digest)
    before = {name: settled(process, alone[name]) for name, process in watched.items()}
    for cycle in range(arguments.cycles):
        join_and_leave(pool, cycle, digest)
    for name, process in watched.items():
        after = settled(process, alone[name])
        print(f"{name}: {before[name]} before {arguments.cycles} cycles, {after} after")
        assert after.descriptors <= alone[name], f"the {name} has {after.descriptors} descriptors, {alone[name]} at first"
        assert after.resident <= before[name].resident + SLACK_BYTES, f"the {name} grew"
    stays.wait_ready(digest)
    stays.stop()
    publisher.stop()


def main():
    arguments = programs.parse_arguments(__doc__.splitlines()[0], cycles=(16, "members that join and leave"))
    with programs.temporary_folder() as folder:
        pool = pool_programs.Pool(arguments, folder)
        try:
            run(pool, arguments)
        finally:
            pool.kill()


if __name__ == "__main__":
    sys.exit(main())
