#!/usr/bin/env python3
"""Jobs of one task a rank, as Slurm and torchrun start them, side by side on one machine.
Usage: cluster_launchers_test.py TRAINERD TRAINCTL [unittest's options]"""
import os
import unittest

from training_fixture import FOLDER, PATIENCE_S, Run, arguments, draw_phantoms

SETTINGS = {"model.architecture": "efficientnet_lite0", "train.epochs": 1, "train.steps_per_epoch": 3, "cluster.join_seconds": 60}


def slurm(job, task):
    return {"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_PROCID": str(task),
            "SLURM_LOCALID": str(task), "SLURM_NODEID": "0", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "127.0.0.1"}


def torchrun(job, task):
    return {"TORCHELASTIC_RUN_ID": str(job), "WORLD_SIZE": "2", "RANK": str(task), "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": str(task),
            "GROUP_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


class Task(Run):
    """One of a job's trainerd; they share the run's folder."""

    def __init__(self, launcher, job, task, settings):
        self.name = f"{launcher.__name__}-{job}"
        self.folder, self.log = f"{FOLDER}/runs/{self.name}", f"{FOLDER}/{self.name}-{task}.log"
        self.temporary = f"{FOLDER}/temporary-{job}-{task}"
        own = f"{FOLDER}/{self.name}-{task}"
        os.makedirs(own, exist_ok=True)
        self.start(arguments(self.name, {**SETTINGS, **settings}, (), "", own), **launcher(job, task))


class Launchers(unittest.TestCase):
    def start(self, launcher, jobs, **settings):
        tasks = [Task(launcher, job, task, settings) for job in jobs for task in range(2)]
        for task in tasks:
            self.addCleanup(task.process.wait)
            self.addCleanup(task.process.kill)
        return tasks

    def assert_train(self, launcher, jobs):
        tasks = self.start(launcher, jobs)
        for task in tasks:
            task.finish()
            self.assertEqual(os.listdir(task.temporary), [])
        for first in tasks[::2]:
            self.assertEqual([event["ranks"] for event in first.events("generation")], [2], first.text())
            self.assertEqual(len(first.events("epoch")), 1)
        coordinators = {task.events("node")[0]["coordinator"] for task in tasks}
        print(f"{launcher.__name__}: {len(tasks)} tasks met at {sorted(coordinators)}", flush=True)
        self.assertEqual(len(coordinators), len(jobs))

    def test_two_jobs_of_slurm(self):
        self.assert_train(slurm, (4711, 4712))

    def test_two_jobs_of_torchrun(self):
        self.assert_train(torchrun, (1, 2))

    def test_ranks_that_are_not_the_tasks(self):
        for task in self.start(slurm, (4713,), **{"device.ranks": 3}):
            self.assertEqual(task.process.wait(PATIENCE_S), 1)
            self.assertIn("device.ranks is 3, but 2 tasks are on this node (SLURM_STEP_TASKS_PER_NODE)", task.text())


if __name__ == "__main__":
    draw_phantoms()
    unittest.main(verbosity=2)
