"""A pool of real programs that tests torture: publisher, members, routers, and what each model answers alone.

Nothing here knows what a test is about; programs.py has what tests of single programs share too."""
import hashlib
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import programs

TEMPERATURE = "0.1"  # so low that random weights answer clearly
TOLERANCE = 2e-4  # of a probability: batches of other sizes round otherwise, and the low temperature multiplies that
CLEARLY = 0.02  # by this much any two models differ in some probability of each picture
REQUEST_MS = 60000


def probabilities(reply):
    return [row.probability for row in reply.probabilities]


def differ(answers, others):
    """Whether two models' answers can be told apart on every picture."""
    return all(max(abs(a - b) for a, b in zip(answers[image], others[image])) > CLEARLY for image in answers)


class Models:
    """Model files whose answers differ clearly, and what each answers when it is asked alone."""

    def __init__(self, arguments, folder, messages, pictures=8):
        self.arguments, self.folder = arguments, folder
        self.diagnosis, self.client = messages[1], messages[2]
        self.images = [programs.encode(programs.picture(seed)) for seed in range(pictures)]
        self.image_digests = [hashlib.sha256(image).digest() for image in self.images]
        self.paths, self.digests = [], []
        self.expected = {}  # model digest -> image digest -> probabilities

    def make(self, count):
        """Random models, one seed after the other; one that answers much as another does would prove nothing."""
        with ThreadPoolExecutor(2) as executor:
            for seed in range(1, 4 * count, 2):
                for path, answers in executor.map(self.make_one, (seed, seed + 1)):
                    if len(self.paths) < count and all(differ(answers, known) for known in self.expected.values()):
                        self.paths.append(path)
                        self.digests.append(programs.file_digest(path))
                        self.expected[self.digests[-1]] = answers
                if len(self.paths) == count:
                    return
        raise AssertionError("too many models answer alike")

    def make_one(self, seed):
        path = f"{self.folder}/model{seed}"
        command = [self.arguments.make_model, path, f"model{seed}", str(seed), TEMPERATURE]
        subprocess.run(command, check=True)
        return path, self.answers_alone(path, f"alone{seed}")

    def answers_alone(self, path, name):
        member = programs.standalone(self.arguments, self.folder, name, path, "--set", "batch.max=1")
        try:
            member.wait_ready(programs.file_digest(path))
            client = self.client.Client(member.endpoint, REQUEST_MS)
            replies = [client.diagnose(image) for image in self.images]
            client.close()
            member.stop()
        finally:
            member.kill()
        for reply in replies:
            assert reply.status == self.diagnosis.STATUS_OK, reply.message
        return {reply.image_sha256: probabilities(reply) for reply in replies}

    def fault_of(self, reply, image):
        """What is wrong with a reply to a question about image; None where nothing is."""
        return self.fault(self.images.index(image), reply.image_sha256, reply.model.digest, probabilities(reply))

    def fault(self, image_index, image_digest, model_digest, found):
        """What is wrong with an answer about a picture; None where nothing is."""
        if image_digest is not None and image_digest != self.image_digests[image_index]:
            return "is about another image"
        if model_digest not in self.expected:
            return "names a model that nobody made"
        wanted = self.expected[model_digest][self.image_digests[image_index]]
        if max(abs(a - b) for a, b in zip(wanted, found)) > TOLERANCE:
            return f"is not what the model that it names says: {found} instead of {wanted}"
        return None


class Pool:
    """The daemons. Each may be killed and started again under its name; state lies in the folder."""

    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.endpoints = {name: f"ipc://{folder}/{name}.pub" for name in ("announce", "control", "blobs")}
        self.processes = {}  # name -> the newest process of that name
        self.settings = {}  # name -> more --set for it

    def _keep(self, name, process):
        self.processes[name] = process
        return process

    def _set(self, name):
        return [word for setting in self.settings.get(name, ()) for word in ("--set", setting)]

    def start_publisher(self, *settings):
        self.settings["trainerd"] = settings or self.settings.get("trainerd", ())
        command = [self.arguments.trainerd, "--config", f"{self.arguments.source}/configs/trainerd/publisher.yaml"]
        for name, endpoint in self.endpoints.items():
            command += ["--set", f"publish.{name}={endpoint}"]
        command += ["--set", f"publish.store={self.folder}/published", "--set", f"run.directory={self.folder}/runs"]
        return self._keep("trainerd", programs.Process(self.folder, "trainerd", command + self._set("trainerd")))

    def start_member(self, name, *settings):
        self.settings[name] = settings or self.settings.get(name, ())
        command = [self.arguments.inferd, "--config", f"{self.arguments.source}/configs/inferd/member.yaml"]
        for key, endpoint in self.endpoints.items():
            command += ["--set", f"publisher.{key}={endpoint}"]
        command += ["--set", f"store.directory={self.folder}/{name}-store", "--set", "device.threads=1"]
        return self._keep(name, programs.Member(self.folder, name, self.arguments.inferctl, command + self._set(name)))

    def start_router(self, name, members):
        command = [self.arguments.inferd, "--role", "router"]
        command += ["--set", f"router.members={json.dumps([member.endpoint for member in members])}"]
        return self._keep(name, programs.Member(self.folder, name, self.arguments.inferctl, command))

    def trainctl(self, *words, check=True, timeout_s=60):
        """Runs trainctl against the publisher; returns the finished process."""
        flag = "--to" if words[0] == "publish" else "--at"
        command = [self.arguments.trainctl, *words, flag, self.endpoints["control"]]
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        assert not check or result.returncode == 0, f"{words}: {result.stderr}"
        return result

    def publish(self, path):
        result = self.trainctl("publish", path, "--timeout-ms", "60000")
        assert programs.file_digest(path).hex() in result.stdout, result.stdout

    def trainctl_until(self, *words, timeout_s=60, wanted=lambda result: result.returncode == 0):
        """Again and again until it succeeds: the publisher may be dead at any moment."""
        deadline = time.monotonic() + timeout_s
        while True:
            result = self.trainctl(*words, check=False)
            if wanted(result):
                return result
            assert time.monotonic() < deadline, f"{words}: {result.stdout} {result.stderr}"
            time.sleep(0.2)

    def kill(self):
        for process in self.processes.values():
            process.kill()

    def logs(self):
        return "".join(process.log() for process in self.processes.values())


def run_test(description, run):
    """Runs run(pool, arguments, folder) with the arguments of the command line; the pool's processes end with it."""
    arguments = programs.parse_arguments(description)
    with programs.temporary_folder() as folder:
        pool = Pool(arguments, folder)
        try:
            run(pool, arguments, folder)
        finally:
            pool.kill()
