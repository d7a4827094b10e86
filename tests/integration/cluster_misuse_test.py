#!/usr/bin/env python3
"""Nodes that do not fit together end soon, with an error that names the node and what is different, on both sides.
Usage: cluster_misuse_test.py TRAINERD TRAINCTL [unittest's options]"""
import os
import shutil
import socket
import time
import unittest

from cluster_fixture import SECRET, Cluster, Here
from training_fixture import FOLDER, TRAINERD, draw_phantoms

SECONDS = 20  # beyond what is configured, on a machine that is busy with other tests
JOIN_S = 8
SETTINGS = {"device.ranks": 1, "train.epochs": 1, "train.steps_per_epoch": 2, "cluster.join_seconds": JOIN_S, "cluster.silence_seconds": 2}


class Misuse(unittest.TestCase):
    def setUp(self):
        self.begin = time.monotonic()
        self.cluster = Cluster(self._testMethodName, [Here(0), Here(1)], SETTINGS)

    def tearDown(self):
        self.cluster.kill()

    def assert_fails(self, node, within_s, *texts):
        """With exit code 1 and a last line that holds all of it; returns that."""
        code = node.process.wait(within_s + SECONDS)
        took_s, last = time.monotonic() - self.begin, node.last_error()
        print(f"{node.host.name} ended after {took_s:.1f} s: {last}", flush=True)
        self.assertEqual(code, 1, self.cluster.report())
        self.assertLess(took_s, within_s + SECONDS)
        for text in texts:
            self.assertIn(text, node.text().replace("\n", " "))
        return last

    def assert_clean(self):
        self.assertEqual(self.cluster.left_behind(), [])

    def refuse(self, theirs, *texts):
        """Node 1 with its own settings is refused at once, and node 0 waits for another in vain."""
        self.cluster.start(0)
        node = self.cluster.start(1, settings=theirs)
        self.assert_fails(node, JOIN_S, "refuses node 1 (", *texts)
        self.assert_fails(self.cluster.coordinator, JOIN_S, f"node 1 did not come within {JOIN_S} s")
        self.assertEqual(len(self.cluster.coordinator.events("node_refused")), 1)
        self.assert_clean()

    def test_another_configuration(self):
        self.refuse({"optimizer.learning_rate": 0.02}, '"optimizer.learning_rate: 0.02"', '"optimizer.learning_rate: 0.01"')

    def test_other_data(self):
        shutil.copytree(f"{FOLDER}/data", f"{FOLDER}/more")
        folder = f"{FOLDER}/more/train/NORMAL"
        shutil.copy(f"{folder}/{min(os.listdir(folder))}", f"{folder}/one_more.png")
        self.refuse({"data.directory": f"{FOLDER}/more"}, 'it has "data=', 'the coordinator has "data=')

    def test_another_build(self):
        """The program's file differs in its last byte, behind what is loaded of it."""
        other = f"{FOLDER}/trainerd"
        shutil.copy(TRAINERD, other)
        with open(other, "ab") as file:
            file.write(b"\n")
        self.cluster.start(0)
        node = self.cluster.start(1, program=other)
        self.assert_fails(node, JOIN_S, "refuses node 1 (", 'it has "build=', 'the coordinator has "build=')
        self.assert_fails(self.cluster.coordinator, JOIN_S, "node 1 did not come")
        self.assert_clean()

    def test_another_number_of_nodes(self):
        self.refuse({"cluster.nodes": 3}, "it is one of 3 nodes", "the coordinator's run is of 2 (cluster.nodes)")

    def test_a_node_twice(self):
        """The second is refused once the first cannot be its own past; the run goes on."""
        self.cluster.settings["train.epochs"] = 200
        first = self.cluster.start_all().nodes[1]
        self.cluster.until(self.cluster.trains, "start of the ranks")
        self.begin = time.monotonic()
        second = self.cluster.start(1)
        self.assert_fails(second, 3 * SETTINGS["cluster.silence_seconds"], "refuses node 1 (", "there is a node 1 (cluster.node) already, ",
                          f"/{first.process.pid}")
        self.cluster.nodes[1] = first
        self.assertEqual([event["generation"] for event in self.cluster.coordinator.events("generation")], [1])
        first.process.terminate()
        self.cluster.finish([4, 4])
        self.assert_clean()

    def test_the_coordinator_twice(self):
        self.cluster.settings["train.epochs"] = 200
        first = self.cluster.start_all().coordinator
        self.cluster.until(self.cluster.trains, "start of the ranks")
        self.begin = time.monotonic()
        second = Cluster("another", self.cluster.hosts, self.cluster.settings).start(0)
        self.assert_fails(second, 0, self.cluster.settings["cluster.coordinator"])
        first.process.terminate()
        self.cluster.finish([4, 4])
        self.assert_clean()

    def test_a_port_that_is_taken(self):
        host, port = self.cluster.settings["cluster.coordinator"].split(":")
        with socket.create_server((host, int(port))):
            self.assert_fails(self.cluster.start(0), 0, f"tcp://{host}:{port}", "in use")
        self.assert_clean()

    def test_a_coordinator_that_never_comes(self):
        endpoint = self.cluster.settings["cluster.coordinator"]
        self.assert_fails(self.cluster.start(1), JOIN_S, f"the coordinator tcp://{endpoint} has not been heard of for {JOIN_S} s")
        self.assert_clean()

    def test_a_node_that_never_comes(self):
        self.assert_fails(self.cluster.start(0), JOIN_S, f"node 1 did not come within {JOIN_S} s")
        self.assert_clean()

    def keep_out(self, settings, *texts):
        endpoint = self.cluster.settings["cluster.coordinator"]
        self.cluster.start(0)
        node = self.cluster.start(1, settings=settings)
        self.assert_fails(node, JOIN_S, f"the coordinator tcp://{endpoint} has not been heard of for {JOIN_S} s", *texts)
        self.assert_fails(self.cluster.coordinator, JOIN_S, "node 1 did not come")
        self.assert_clean()

    def test_another_secret(self):
        other = f"{FOLDER}/other-secret"
        with open(os.open(other, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write("another secret, of as many characters as it takes\n")
        self.keep_out({"cluster.secret": other}, "handshake", "cluster.secret")

    def test_a_secret_that_only_the_coordinator_has(self):
        self.keep_out({"cluster.secret": '""'})

    def test_a_secret_that_the_coordinator_has_not(self):
        self.cluster.settings["cluster.secret"] = '""'
        self.keep_out({"cluster.secret": SECRET})

    def test_a_network_that_nobody_trusts(self):
        self.cluster.settings["cluster.coordinator"] = "10.1.2.3:5790"
        self.assert_fails(self.cluster.start(0), 0, "cluster.coordinator", "collective.trusted_network")
        self.assert_clean()

    def test_a_batch_that_the_ranks_cannot_share(self):
        self.cluster.settings |= {"device.ranks": 2, "train.batch_size": 10}
        self.cluster.start_all()
        for node in self.cluster.nodes:
            self.assert_fails(node, JOIN_S, "10", "4")
        self.assert_clean()


if __name__ == "__main__":
    draw_phantoms()
    unittest.main(verbosity=2)
