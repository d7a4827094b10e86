#!/usr/bin/env python3
"""A run over two hosts with two ranks each outlives what happens to its ranks, its nodes and the cable between them, at random steps.
Usage: cluster_chaos_test.py TRAINERD TRAINCTL [unittest's options]
THORAX_SEED draws the moments (1 where it is not set). THORAX_LONG=N: N rounds, each at moments of its own, and with each rank lost alone.
Where there is an emulation of CUDA (THORAX_EMULATION_DEVICES), ranks are on its GPUs, and NCCL adds."""
import contextlib
import math
import os
import random
import signal
import sys
import time
import unittest

import cluster_lab as lab  # before anything that makes files
from cluster_fixture import RECOVERY_S, Cluster
from training_fixture import STOPPED, draw_phantoms, gone

SEED = os.environ.get("THORAX_SEED", "1")
LONG = int(os.environ.get("THORAX_LONG", "0"))
GPUS = {"device.name": "cuda"} if os.environ.get("THORAX_EMULATION_DEVICES") else {}
SURVIVES_S = 15  # that two ranks train on, at the pace of all, so that a node has the time to come back
HOSTS = [lab.Host(0), lab.Host(1)]


class Chaos(unittest.TestCase):
    """What all cases share: a seed, and a lab that is empty again after each."""

    rounds = 0

    def setUp(self):
        self.random = random.Random(f"{SEED} {Chaos.rounds} {self.id()}")
        self.cluster = None

    def tearDown(self):
        for pid in lab.strangers(HOSTS):
            os.kill(pid, signal.SIGKILL)
        for host in HOSTS:
            host.mend()

    def begin(self, name, settings=None):
        self.cluster = Cluster(f"{name}-{Chaos.rounds}", HOSTS, {**GPUS, **(settings or {})}).start_all()
        return self.cluster

    def until_random_step(self, most=5):
        """Some checkpoints on, and a while after the one."""
        cluster = self.cluster
        cluster.until_step(cluster.step() + self.random.randrange(1, most))
        time.sleep(self.random.random() * 0.2)
        return cluster.generation()["generation"], time.monotonic()

    def assert_ended(self, codes=None):
        """All nodes have, with these exit codes, and nothing is left."""
        self.cluster.finish(codes)
        deadline = time.monotonic() + RECOVERY_S
        while lab.strangers(HOSTS) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual(lab.strangers(HOSTS), {}, "processes are left")
        self.assertEqual(self.cluster.left_behind(), [])
        self.assertEqual(os.listdir("/dev/shm"), [])
        self.assertNotIn("emulation:", self.cluster.report())

    def assert_trained(self):
        """To the end, in the right number of epochs, which are recorded once each."""
        self.assertEqual(self.cluster.epochs(), list(range(1, self.cluster.settings["train.epochs"] + 1)))
        self.assertEqual(len(self.cluster.coordinator.events("trained")), 1)

    def assert_same_on_both(self):
        """Each host has the end."""
        self.assertEqual(self.cluster.weights(0), self.cluster.weights(1))

    def recover(self, before, ranks, nodes, parts):
        event = self.cluster.until_recovered(*before)
        self.assertEqual((event["ranks"], event["nodes"], event["parts"]), (ranks, nodes, parts), event)


class Undisturbed(Chaos):
    """Runs that lose no rank end with the weights of one that nobody disturbed."""

    whole, seconds_per_epoch = None, None

    def reference(self):
        """The weights of a run that nobody disturbs, and how long its epochs take."""
        cls = Undisturbed
        if cls.whole is None:
            cluster, self.cluster = self.cluster, None
            self.begin("whole").until(self.cluster.trains, "start of the ranks")
            begin = time.monotonic()
            self.assert_ended()
            self.assert_trained()
            self.assert_same_on_both()
            self.assertEqual([event["ranks"] for event in self.cluster.coordinator.events("generation")], [4])
            if GPUS:
                self.assertRegex(self.cluster.coordinator.text(), 'ranks="nccl [0-9.]+, 4 ranks')
            cls.seconds_per_epoch = (time.monotonic() - begin) / len(self.cluster.epochs())
            cls.whole, self.cluster = self.cluster.weights(), cluster
        return cls.whole

    def assert_undisturbed_end(self):
        self.assert_ended()
        self.assert_trained()
        self.assert_same_on_both()
        whole, ours = self.reference(), self.cluster.weights()
        self.assertEqual({name.split("/")[0] for name in whole}, {"value", "state"})
        self.assertEqual(ours.keys(), whole.keys())
        self.assertEqual([name for name in whole if ours[name] != whole[name]], [])


class LostWorker(Undisturbed):
    """A rank's process that is lost is started again with the others."""

    def lose(self, rank, how, named):
        before = self.until_random_step()
        workers = self.cluster.workers()
        self.assertEqual(set(workers), {0, 1, 2, 3})
        os.kill(workers[rank], how)
        self.recover(before, 4, 2, 1)
        self.assertRegex(self.cluster.lost(), named)
        self.assertTrue(gone(workers), "ranks of the generation before live")

    def kill(self, rank):
        self.lose(rank, signal.SIGKILL, rf"rank {rank} on node {rank // 2} was killed by signal 9")

    def stop(self, rank):
        self.lose(rank, signal.SIGSTOP, rf"rank {rank}\b.* hangs")

    def test_one_is_killed_and_one_stopped(self):
        self.reference()
        self.begin("lost-workers")
        ranks = self.random.sample(range(4), 2)
        self.kill(ranks[0])
        self.stop(ranks[1])
        self.assert_undisturbed_end()

    @unittest.skipUnless(LONG, "only in the long form")
    def test_each_is_killed_or_stopped(self):
        for rank in range(4):
            for lose in self.kill, self.stop:
                with self.subTest(rank=rank, how=lose.__name__):
                    self.begin(f"lost-{lose.__name__}-{rank}")
                    lose(rank)
                    self.assert_undisturbed_end()


class LostCoordinator(Undisturbed):
    """Without it the others end their ranks, and wait for it."""

    def lose(self):
        """Returns how node 1's ranks were called."""
        self.until_random_step()
        ranks = self.cluster.nodes[1].workers()
        self.cluster.coordinator.kill()
        begin = time.monotonic()
        self.assertTrue(gone(ranks), "ranks outlive the coordinator")
        print(f"{self.cluster.name}: the others' ranks ended {time.monotonic() - begin:.2f} s after the coordinator", flush=True)

    def test_all_go_on_when_it_is_back(self):
        self.reference()
        self.begin("back")
        self.lose()
        other = self.cluster.nodes[1]
        self.cluster.start(0, "--resume", "auto")
        self.assert_undisturbed_end()
        self.assertEqual(len(other.events("joined")), 2, other.text())
        self.assertGreater(self.cluster.coordinator.events("start")[0]["at_step"], 0)

    def test_the_others_give_up_with_a_clear_error(self):
        self.begin("gone", {"cluster.join_seconds": 8})
        self.lose()
        begin = time.monotonic()
        self.assert_ended([-signal.SIGKILL, 1])
        print(f"{self.cluster.name}: ended after {time.monotonic() - begin:.1f} s: {self.cluster.nodes[1].last_error()}", flush=True)
        self.assertLess(time.monotonic() - begin, 8 + RECOVERY_S)
        endpoint = self.cluster.settings["cluster.coordinator"]
        self.assertEqual(len(self.cluster.nodes[1].events("coordinator_lost")), 1)
        self.assertRegex(self.cluster.nodes[1].last_error(), rf"the coordinator tcp://{endpoint} has not been heard of for [0-9.]+ s")


class Stopped(Undisturbed):
    """A run that is told to end does so everywhere, with a checkpoint from which it can go on."""

    def stop_and_go_on(self, index, how):
        self.until_random_step()
        begin = time.monotonic()
        self.cluster.nodes[index].process.send_signal(how)
        self.assert_ended([STOPPED, STOPPED])
        print(f"{self.cluster.name}: ended {time.monotonic() - begin:.2f} s after signal {how} to node {index}", flush=True)
        self.assert_same_on_both()
        for node in self.cluster.nodes:
            self.assertEqual(len(node.events("stopped")), 1, node.text())
        at_step = self.cluster.step()
        self.cluster.start_all("--resume", "auto").until(self.cluster.trains, "start of the ranks")
        self.assertEqual(self.cluster.coordinator.events("start")[0]["at_step"], at_step)

    def test_by_either_node(self):
        self.reference()
        self.begin("stopped")
        for index, how in zip(self.random.sample(range(2), 2), (signal.SIGTERM, signal.SIGUSR1), strict=True):
            self.stop_and_go_on(index, how)
        self.assert_undisturbed_end()


class LostNode(Undisturbed):
    """The others go on without it, and take it back."""

    def begin_long(self, name):
        """A run that lasts."""
        self.reference()
        epochs = max(4, math.ceil(SURVIVES_S / self.seconds_per_epoch))
        print(f"{name}: {epochs} epochs", flush=True)
        return self.begin(name, {"train.epochs": epochs})

    def kill_processes(self):
        """Of the node, as a whole: its ranks end with trainerd, if they are not killed before."""
        node = self.cluster.nodes[1]
        ranks = node.workers()
        node.kill()
        for pid in ranks.values():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def kill_node(self):
        before = self.until_random_step()
        self.kill_processes()
        self.recover(before, 2, 1, 2)
        self.assertIn("node 1", self.cluster.lost())
        self.assertEqual(self.cluster.coordinator.events("node_lost")[-1]["node"], 1)

    def until_taken_back(self, before):
        """before: how many times it was."""
        coordinator = self.cluster.coordinator
        self.cluster.until(lambda: len(coordinator.events("regroup")) > before, "regroup")
        self.cluster.until(lambda: self.cluster.generation()["ranks"] == 4, "generation of 4 ranks")
        self.assertEqual(coordinator.events("regroup")[-1]["ranks"], 4)
        joined = coordinator.events("node_joined")[-1]
        self.assertEqual((joined["node"], joined["ranks"]), (1, 2))
        self.assertIn(HOSTS[1].name, joined["name"])

    def rest(self):
        """Its processes do not run for longer than a node may be silent, as those of a virtual machine that is moved."""
        before = self.until_random_step()
        node = self.cluster.nodes[1]
        pids = [node.process.pid, *node.workers().values()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        self.recover(before, 2, 1, 2)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def cut(self):
        before = self.until_random_step()
        ranks = self.cluster.nodes[1].workers()
        HOSTS[1].cut()
        self.recover(before, 2, 1, 2)
        self.assertTrue(gone(ranks), "the ranks beyond the cut go on")
        HOSTS[1].mend()

    def test_killed_and_back(self):
        self.begin_long("killed-node")
        self.kill_node()
        self.cluster.start(1, "--resume", "auto")
        self.assert_taken_back()

    def test_killed_for_good(self):
        self.begin("node-stays-away", {"train.epochs": 3})
        self.kill_node()
        self.assert_ended([0, -signal.SIGKILL])
        self.assert_trained()

    def test_with_too_few_ranks_it_waits(self):
        self.reference()
        self.begin("too-few", {"cluster.min_ranks": 3})
        generation, _ = self.until_random_step()
        self.kill_processes()
        self.cluster.until(lambda: self.cluster.coordinator.events("node_lost"), "loss of the node")
        self.cluster.until(lambda: self.cluster.coordinator.events("lost"), "end of the generation")
        time.sleep(2)
        self.assertEqual(self.cluster.generation()["generation"], generation, "two ranks are fewer than three")
        self.cluster.start(1, "--resume", "auto")
        self.assert_undisturbed_end()

    def assert_taken_back(self):
        self.until_taken_back(0)
        self.assert_ended()
        self.assert_trained()
        self.assert_same_on_both()

    def test_cut_off_and_mended(self):
        self.begin_long("cut")
        self.cut()
        self.assert_taken_back()
        self.assertEqual(len(self.cluster.nodes[1].events("coordinator_lost")), 1)

    @unittest.skipUnless(LONG, "only in the long form")
    def test_at_rest_and_awake(self):
        self.begin_long("rest")
        self.rest()
        self.assert_taken_back()


@unittest.skipUnless(LONG, "only in the long form")
class Torture(Chaos):
    """Anything at any moment: while ranks start, meet, save or end, too."""

    seconds, epochs = 90, 16

    def pause(self, most_s):
        time.sleep(most_s * self.random.random() ** 2)

    def lose_worker(self):
        """Some process of a rank, whatever it is at."""
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended meanwhile, or is none yet
            pids = self.random.choice(self.cluster.nodes).workers()
            os.kill(self.random.choice(list(pids.values())), self.random.choice([signal.SIGKILL, signal.SIGSTOP]))

    def lose_node(self):
        index = self.random.randrange(2)
        self.cluster.nodes[index].kill()
        self.pause(8)
        self.cluster.start(index, "--resume", "auto")

    def lose_cable(self):
        HOSTS[1].cut()
        self.pause(14)
        HOSTS[1].mend()

    def test_anything_at_any_moment(self):
        self.begin("torture", {"train.epochs": self.epochs, "cluster.restarts": 1000})
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and self.cluster.step() < 6 * self.epochs:
            self.pause(10)
            what = self.random.choice([self.lose_worker, self.lose_node, self.lose_cable])
            print(f"step {self.cluster.step()}: {what.__name__}", flush=True)
            what()
        self.assert_ended()
        self.assert_trained()
        self.assert_same_on_both()


def rounds():
    """Runs all as often as is asked for; whether all went well."""
    well = True
    while well and Chaos.rounds < max(LONG, 1):
        well = unittest.main(verbosity=2, exit=False).result.wasSuccessful()
        Chaos.rounds += 1
    return well


if __name__ == "__main__":
    print(f"seed of the moments: {SEED}", flush=True)
    draw_phantoms()
    sys.exit(0 if rounds() else 1)
