#!/usr/bin/env python3
"""A member on two GPUs, over the emulation of CUDA: whole programs, with --emulation naming the folder of its libraries.

Its answers are those of a CPU; models change under load and nothing is lost; a GPU that faults gives no answer, the client
asks elsewhere and the process ends; a model that does not fit is refused while the one before serves. A process in which the
emulation found anything wrong (a leak, a race, a read of what is not there yet) ends with 86, which no test takes."""
import argparse
import os
import subprocess
import sys
import threading
import time
import unittest

import health_test
import pool_programs
import programs

arguments = FOLDER = models = None
envelope = diagnosis = thorax_client = None

REQUEST_MS = 60000
ENDED_LOST = 1  # an error exit, for which a service manager starts the daemon anew
SMALL = ("--set", "batch.max=2")  # so that a model is loaded soon
EXACT = 1e-5  # of a probability: of a network in 8 bits only the last layer is in f32
FAULT_AT = 6000  # a launch well behind those of loading and warming up


class Models(pool_programs.Models):
    """Networks that the emulation computes in a moment; what each answers comes from a member on the CPU."""

    def make_one(self, seed):
        path = f"{self.folder}/model{seed}"
        make(path, seed, "efficientnet_lite0")
        return path, self.answers_alone(path, f"alone{seed}")


def make(path, seed, architecture):
    command = [arguments.make_model, path, f"model{seed}", str(seed), pool_programs.TEMPERATURE, architecture]
    subprocess.run(command, check=True)


def quantise(path):
    """The model in 8 bits, as trainctl makes it from phantoms; 7 bits of weights, so that any processor computes it too."""
    with open(f"{FOLDER}/quantise.yaml", "w") as file:
        file.write(f"""model: {{architecture: efficientnet_lite0, size: 28}}
data: {{directory: {FOLDER}/phantoms, cache_dir: {FOLDER}/cache, name: phantoms}}
train: {{epochs: 1, batch_size: 4}}
device: {{ranks: 1, threads: 1}}
publish: {{enabled: false}}
""")
    small = ["--images", "32", "--search-images", "8", "--weight-bits", "7", "--force"]
    for command in (["phantom", "--out", f"{FOLDER}/phantoms", "--layout", "24,12,4", "--size", "64"],
                    ["quantize", path, "--config", f"{FOLDER}/quantise.yaml", "--out", f"{path}-int8", *small]):
        subprocess.run([arguments.trainctl, *command], check=True, capture_output=True)
    return f"{path}-int8"


def on_gpus(*more):
    """The words in front of a program that sees GPUs."""
    return ["env", f"LD_LIBRARY_PATH={arguments.emulation}", "THORAX_EMULATION_DEVICES=2", *more]


def pool_on_gpus(name, *environment):
    """A pool with sockets and state of its own, whose members see GPUs. trainerd runs without."""
    inferd = f"{FOLDER}/inferd-{name}"
    with open(inferd, "w") as script:
        script.write(f'#!/bin/sh\nexec {" ".join(on_gpus(*environment))} {arguments.inferd} "$@"\n')
    os.chmod(inferd, 0o755)
    pool = pool_programs.Pool(argparse.Namespace(**{**vars(arguments), "inferd": inferd}), f"{FOLDER}/{name}")
    os.mkdir(pool.folder)
    return pool


def member_on_gpus(name, model, *settings, environment=()):
    command = [*on_gpus(*environment), arguments.inferd, "--model", model, *SMALL, "--set", "device.name=cuda", *settings]
    return programs.Member(FOLDER, name, arguments.inferctl, command)


def check(*settings, environment=()):
    """Exit code and standard error of inferd --check."""
    command = [*on_gpus(*environment), arguments.inferd, "--model", models.paths[0], "--check", *SMALL, *settings]
    result = subprocess.run(command, capture_output=True, text=True, timeout=programs.START_S)
    return result.returncode, result.stderr


class Asker(threading.Thread):
    """Asks about pictures in turn until told to stop, the first endpoint first. Collects what was not answered, or wrongly."""

    def __init__(self, endpoints, timeout_ms=REQUEST_MS):
        super().__init__(daemon=True)
        self.client, self.halt = thorax_client.Client(endpoints, timeout_ms), threading.Event()
        self.client.turn = 0
        self.client.connect()
        self.answered, self.unanswered, self.faults, self.by_model = 0, [], [], {}
        self.start()

    def run(self):
        turn = 0
        while not self.halt.is_set():
            image = models.images[turn % len(models.images)]
            turn += 1
            try:
                self.take(self.client.diagnose(image), image)
            except thorax_client.Unanswered as reason:
                self.unanswered.append(str(reason))
        self.client.close()

    def take(self, reply, image):
        if reply.status != diagnosis.STATUS_OK:
            self.unanswered.append(diagnosis.Status.Name(reply.status))
            return
        self.answered += 1
        self.by_model[reply.model.digest] = self.by_model.get(reply.model.digest, 0) + 1
        fault = models.fault_of(reply, image)
        if fault:
            self.faults.append(fault)

    def stop(self):
        self.halt.set()
        self.join()


def wait_until(what, condition):
    deadline = time.monotonic() + programs.START_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def setUpModule():
    models.make(3)


class GpuServing(unittest.TestCase):
    def setUp(self):
        self.everything = []

    def tearDown(self):
        for process in self.everything:
            process.kill()

    def keep(self, process):
        self.everything.append(process)
        return process

    def test_answers_are_those_of_the_cpu(self):
        settings = ("--set", "device.instances=2", "--set", "http.bind=127.0.0.1:0")
        member = self.keep(member_on_gpus("both", models.paths[0], *settings))
        member.wait_ready(models.digests[0])
        askers = [Asker(member.endpoint) for _ in range(6)]
        wait_until("an instance is never used", lambda: all(row["batches"] for row in member.status()["instances"]))
        for asker in askers:
            asker.stop()
        self.assertEqual([asker.faults + asker.unanswered for asker in askers], [[]] * 6)
        devices = [row["device"] for row in member.status()["instances"]]
        self.assertEqual([device[:7] for device in devices], ["GPU 0: ", "GPU 1: ", "GPU 0: ", "GPU 1: "])
        self.assertIn("CPU emulation", devices[0])
        metrics = health_test.get(health_test.http_port(member), "/metrics")[2]
        self.assertIn(f'thorax_instance_info{{instance="1",device="{devices[1]}"}} 1', metrics)
        self.assertIn("thorax_instances_lost 0", metrics)
        member.stop()

    def test_8_bits_answer_as_on_the_cpu(self):
        path = quantise(models.paths[0])
        expected = models.answers_alone(path, "cpu-int8")
        self.assertTrue(pool_programs.differ(expected, models.expected[models.digests[1]]))
        member = self.keep(member_on_gpus("int8", path, "--set", "device.instances=2"))
        member.wait_ready(programs.file_digest(path))
        client = thorax_client.Client(member.endpoint, REQUEST_MS)
        for image in models.images * 4:  # more than instances, so that each has its turn
            reply = client.diagnose(image)
            self.assertEqual(reply.status, diagnosis.STATUS_OK, reply.message)
            for found, wanted in zip(pool_programs.probabilities(reply), expected[reply.image_sha256]):
                self.assertAlmostEqual(found, wanted, delta=EXACT)
        client.close()
        member.stop()

    def test_models_change_under_load(self):
        pool = pool_on_gpus("swaps")
        publisher = self.keep(pool.start_publisher("publish.activate=auto"))
        pool.publish(models.paths[0])
        member = self.keep(pool.start_member("m", "batch.max=2", "device.name=cuda"))
        member.wait_ready(models.digests[0])
        askers = [Asker(member.endpoint) for _ in range(3)]
        for path, digest in zip(models.paths[1:], models.digests[1:]):
            pool.publish(path)
            member.wait_ready(digest)
            wait_until("the new model is not asked", lambda: digest in {k for asker in askers for k in asker.by_model})
        for asker in askers:
            asker.stop()
        self.assertEqual([asker.faults + asker.unanswered for asker in askers], [[]] * 3)
        self.assertEqual({k for asker in askers for k in asker.by_model}, set(models.digests))
        member.stop()
        publisher.stop()

    def test_a_gpu_that_faults_answers_nothing(self):
        other = self.keep(programs.standalone(arguments, FOLDER, "cpu", models.paths[0], *SMALL))
        other.wait_ready(models.digests[0])
        member = self.keep(member_on_gpus("faulty", models.paths[0], environment=(f"THORAX_EMULATION_FAIL_LAUNCH={FAULT_AT}",)))
        member.wait_ready(models.digests[0])
        askers = [Asker([member.endpoint, other.endpoint]) for _ in range(4)]
        code = member.process.wait(programs.START_S)
        before = sum(asker.answered for asker in askers)
        wait_until("the other member is not asked", lambda: sum(asker.answered for asker in askers) > before + 20)
        for asker in askers:
            asker.stop()
        self.assertEqual(code, ENDED_LOST, member.log())
        self.assertIn("device_lost", member.log())
        self.assertIn("cudaErrorIllegalAddress", member.log())
        self.assertEqual([asker.faults + asker.unanswered for asker in askers], [[]] * 4)
        other.stop()

    def test_who_asks_only_a_faulty_member_is_told_so(self):
        member = self.keep(member_on_gpus("alone", models.paths[0], "--set", "device.gpus=[1]",
                                          environment=(f"THORAX_EMULATION_FAIL_LAUNCH={FAULT_AT}",)))
        member.wait_ready(models.digests[0])
        asker = Asker(member.endpoint, 2000)
        self.assertEqual(member.process.wait(programs.START_S), ENDED_LOST, member.log())
        wait_until("no answer is no answer", lambda: asker.unanswered)
        asker.stop()
        self.assertTrue(asker.answered)
        self.assertEqual(asker.faults, [])

    def test_a_model_that_does_not_fit_is_refused(self):
        large = f"{FOLDER}/large"
        make(large, 77, "resnet50")
        pool = pool_on_gpus("small", "THORAX_EMULATION_MEMORY_MIB=112")
        publisher = self.keep(pool.start_publisher("publish.activate=auto"))
        pool.publish(models.paths[0])
        member = self.keep(pool.start_member("m", "batch.max=2", "device.name=cuda", "model.max_memory=1GiB"))
        member.wait_ready(models.digests[0])
        asker = Asker(member.endpoint)
        pool.publish(large)
        wait_until("the model was not tried", lambda: "does not fit on GPU" in member.log())
        before = asker.answered
        wait_until("the model before does not serve any more", lambda: asker.answered > before + 5)
        pool.publish(models.paths[1])
        member.wait_ready(models.digests[1])
        asker.stop()
        self.assertEqual(asker.faults + asker.unanswered, [])
        self.assertLessEqual(set(asker.by_model), set(models.digests[:2]))
        member.stop()
        publisher.stop()

    def test_gpus_that_are_not_there_are_named(self):
        self.assertEqual(check("--set", "device.gpus=[0, 1]")[0], 0)
        for setting, words in (("[0, 2]", "there is no GPU 2: this machine has 2 (0 to 1)"),
                               ("[1, 1]", "GPU 1 is there twice"), ("[first]", "expected all")):
            code, said = check("--set", f"device.gpus={setting}")
            self.assertEqual((code, "device.gpus" in said and words in said), (1, True), said)
        code, said = check("--set", "device.gpus=[0]", environment=("THORAX_EMULATION_DEVICES=0",))
        self.assertEqual((code, "which is no GPU" in said), (1, True), said)


def main():
    global arguments, FOLDER, models, envelope, diagnosis, thorax_client
    arguments = programs.parse_arguments(__doc__.splitlines()[0], emulation=("", "the folder of the emulated libraries"))
    with programs.temporary_folder() as FOLDER:
        messages = programs.import_messages(arguments.source, FOLDER)
        envelope, diagnosis, thorax_client = messages
        models = Models(arguments, FOLDER, messages)
        result = unittest.main(argv=sys.argv[:1], verbosity=2, exit=False)
    return 0 if result.result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
