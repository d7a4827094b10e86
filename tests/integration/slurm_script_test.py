#!/usr/bin/env python3
"""deploy/slurm/train.sbatch with an srun, a scontrol and a trainerd made here: what it does with each end of a run.
Usage: slurm_script_test.py SOURCE [unittest's options]"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = sys.argv.pop(1)
SCRIPT = f"{SOURCE}/deploy/slurm/train.sbatch"
PATIENCE_S = 30

# Starts its command as two tasks, each a process group of its own as slurmstepd makes them, and ends with the highest of their codes.
SRUN = """#!{python}
import os, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words.pop(0)
tasks = [subprocess.Popen(words, env={{**os.environ, "SLURM_PROCID": str(i)}}, start_new_session=True) for i in range(2)]
with open("{folder}/groups.new", "w") as file:
    file.write(" ".join(str(task.pid) for task in tasks))
os.rename("{folder}/groups.new", "{folder}/groups")
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
# Ends with the code that the test wrote down for the task; "signal": with 4, once it is told to stop.
TRAINERD = """#!{python}
import os, signal, sys
stopped = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *_: stopped.append(1))
task = os.environ["SLURM_PROCID"]
with open("{folder}/arguments-" + task, "w") as file:
    file.write("\\n".join(sys.argv[1:]))
with open("{folder}/end-" + task) as file:
    end = file.read()
open("{folder}/ready-" + task, "w").close()
while end == "signal" and not stopped:
    signal.sigtimedwait([], .02)
sys.exit(4 if end == "signal" else int(end))
"""
SCONTROL = """#!/bin/sh
echo "$@" >>{folder}/asked
exit {code}
"""


class Job:
    """The script as Slurm runs it; ends: how task 0 and task 1 end."""

    def __init__(self, test, ends, scontrol=0, arguments=("run.yaml",)):
        self.folder = tempfile.mkdtemp(prefix="thorax-slurm-")
        test.addCleanup(shutil.rmtree, self.folder)
        for name, text in {"srun": SRUN, "trainerd": TRAINERD, "scontrol": SCONTROL}.items():
            with open(f"{self.folder}/{name}", "w") as file:
                file.write(text.format(python=sys.executable, folder=self.folder, code=scontrol))
            os.chmod(file.name, 0o755)
        for task, end in enumerate(ends):
            with open(f"{self.folder}/end-{task}", "w") as file:
                file.write(end)
        os.mkdir(f"{self.folder}/temporary")
        environment = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711",
                       "TMPDIR": f"{self.folder}/temporary"}
        environment.pop("TRAINERD", None)
        self.process = subprocess.Popen(["bash", SCRIPT, *arguments], env=environment, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, start_new_session=True)
        test.addCleanup(self.fini)

    def fini(self):
        """Ends what a test that failed has left running."""
        for group in [self.process.pid, *map(int, self.read("groups").split())]:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()

    def read(self, name):
        path = f"{self.folder}/{name}"
        if not os.path.exists(path):
            return ""
        with open(path) as file:
            return file.read()

    def until_ready(self):
        deadline = time.monotonic() + PATIENCE_S
        while not all(os.path.exists(f"{self.folder}/{name}") for name in ("ready-0", "ready-1", "groups")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"ended with {self.process.poll()} too early")
            time.sleep(0.01)

    def signal_step(self, number):
        """As slurmstepd signals a step: all processes of its tasks."""
        for group in self.read("groups").split():
            os.killpg(int(group), number)

    def end(self):
        code = self.process.wait(PATIENCE_S)
        left = os.listdir(f"{self.folder}/temporary")
        if left:
            raise AssertionError(f"left behind: {left}")
        return code


class Ends(unittest.TestCase):
    def end(self, *ends, **more):
        job = Job(self, ends, **more)
        return job.end(), job.read("asked")

    def test_a_run_that_is_done_ends_the_job(self):
        self.assertEqual(self.end("0", "0"), (0, ""))

    def test_a_run_that_was_stopped_early_is_queued_again(self):
        self.assertEqual(self.end("4", "4"), (0, "requeue 4711\n"))

    def test_a_run_that_failed_fails_the_job(self):
        self.assertEqual(self.end("1", "1"), (1, ""))

    def test_models_that_were_not_handed_over_fail_the_job(self):
        self.assertEqual(self.end("3", "0"), (3, ""))

    def test_a_lost_node_does_not_fail_a_run_that_went_on(self):
        self.assertEqual(self.end("0", "137"), (0, ""))
        self.assertEqual(self.end("4", "137"), (0, "requeue 4711\n"))

    def test_the_coordinator_s_failure_counts_whatever_the_others_say(self):
        self.assertEqual(self.end("1", "4"), (1, ""))

    def test_a_job_that_cannot_be_queued_again_fails(self):
        self.assertEqual(self.end("4", "4", scontrol=1), (4, "requeue 4711\n"))

    def test_without_a_configuration_nothing_starts(self):
        self.assertEqual(self.end("0", "0", arguments=()), (2, ""))


class Signals(unittest.TestCase):
    def test_the_time_limit_s_signal_to_the_step_queues_the_job_again(self):
        job = Job(self, ("signal", "signal"))
        job.until_ready()
        job.signal_step(signal.SIGUSR1)
        self.assertEqual(job.end(), 0)
        self.assertEqual(job.read("asked"), "requeue 4711\n")

    def test_preemption_s_signal_to_the_step_queues_the_job_again(self):
        job = Job(self, ("signal", "signal"))
        job.until_ready()
        job.signal_step(signal.SIGTERM)
        self.assertEqual(job.end(), 0)
        self.assertEqual(job.read("asked"), "requeue 4711\n")

    def test_a_cancelled_job_stays_cancelled(self):
        job = Job(self, ("signal", "signal"))
        job.until_ready()
        job.process.send_signal(signal.SIGTERM)  # scancel tells the script too
        time.sleep(0.2)
        self.assertIsNone(job.process.poll())  # it waits for the checkpoint
        job.signal_step(signal.SIGTERM)
        self.assertEqual(job.end(), 4)
        self.assertEqual(job.read("asked"), "")


class Text(unittest.TestCase):
    def test_every_task_gets_the_configuration_and_goes_on(self):
        job = Job(self, ("0", "0"), arguments=("run.yaml", "--set", "run.name=a b"))
        self.assertEqual(job.end(), 0)
        expected = ["--config", "run.yaml", "--resume", "auto", "--set", "cluster.launcher=slurm", "--set", "run.name=a b"]
        for task in range(2):
            self.assertEqual(job.read(f"arguments-{task}").split("\n"), expected)

    def test_directives_leave_time_for_a_checkpoint(self):
        with open(SCRIPT) as file:
            directives = re.findall(r"^#SBATCH (\S+)$", file.read(), re.M)
        self.assertIn("--requeue", directives)
        self.assertIn("--open-mode=append", directives)
        ahead_s = next(int(word.split("@")[1]) for word in directives if word.startswith("--signal=USR1@"))
        with open(f"{SOURCE}/configs/REFERENCE.md") as file:
            grace_s = int(re.search(r"`cluster\.grace_seconds` \| int, s \| `(\d+)`", file.read())[1])
        self.assertGreaterEqual(ahead_s, grace_s + 60)  # srun(1): may be sent up to 60 seconds earlier, or by as much later

    def test_bash_and_shellcheck_have_nothing_to_say(self):
        subprocess.run(["bash", "-n", SCRIPT], check=True)
        if not shutil.which("shellcheck"):
            self.skipTest("shellcheck is not installed")
        subprocess.run(["shellcheck", SCRIPT], check=True)


if __name__ == "__main__":
    unittest.main()
