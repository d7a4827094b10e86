#!/usr/bin/env python3
"""A publisher and a member with HTTP: what probes and Prometheus are told, and how a member ends on request.

/readyz says why a member is not ready; /metrics is what Prometheus reads, and has every metric that deploy/prometheus
names; `inferctl drain` under load loses nothing that was accepted, and says so where a member is still busy."""
import json
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import programs

REQUEST_MS = 60000
SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$')
OUTSTANDING = 600
PICTURES = 8
ASKERS = 3


def get(port, path):
    """(status, content type, body) of a page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=programs.START_S) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers["Content-Type"], refused.read().decode()


def http_port(process):
    """The port that the daemon's log names."""
    deadline = time.monotonic() + programs.START_S
    while time.monotonic() < deadline:
        match = re.search(r"\bhttp\b.*?\bport\b\W*(\d+)", process.log())
        if match:
            return int(match.group(1))
        assert process.process.poll() is None, f"{process.name} is gone: {process.log()}"
        time.sleep(0.02)
    raise AssertionError(f"{process.name} does not say where its HTTP is: {process.log()}")


def wait_page(port, path, status):
    deadline = time.monotonic() + programs.START_S
    while (found := get(port, path))[0] != status:
        assert time.monotonic() < deadline, f"{path}: {found}"
        time.sleep(0.05)
    return found


def publisher(arguments, folder):
    command = [arguments.trainerd, "--config", f"{arguments.source}/configs/trainerd/publisher.yaml"]
    for name in ("announce", "control", "blobs"):
        command += ["--set", f"publish.{name}=ipc://{folder}/{name}"]
    command += ["--set", f"publish.store={folder}/published", "--set", "publish.activate=auto"]
    command += ["--set", f"run.directory={folder}/runs", "--set", "http.bind=127.0.0.1:0"]
    return programs.Process(folder, "trainerd", command)


def follower(arguments, folder, name, *settings):
    command = [arguments.inferd, "--config", f"{arguments.source}/configs/inferd/member.yaml"]
    for key in ("announce", "control", "blobs"):
        command += ["--set", f"publisher.{key}=ipc://{folder}/{key}"]
    command += ["--set", f"store.directory={folder}/{name}-store", "--set", "device.threads=1"]
    command += ["--set", "http.bind=127.0.0.1:0"]
    for setting in settings:
        command += ["--set", setting]
    return programs.Member(folder, name, arguments.inferctl, command)


def drain(arguments, member, *options):
    command = [arguments.inferctl, "drain", "--endpoint", member.endpoint, *options]
    return subprocess.run(command, capture_output=True, text=True)


def check_format(text):
    """The rules of the text format, sample by sample. Returns the names of families."""
    kinds, seen = {}, set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds, f"{name} has two types"
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match, f"not a sample: {line}"
            family = re.sub(r"_(bucket|sum|count)$", "", match.group(1)) if match.group(1) not in kinds else match.group(1)
            assert family in kinds and (match.group(1), match.group(2)) not in seen, line
            assert list(kinds)[-1] == family, f"{line} is not with its family"
            assert (kinds[family] == "counter") == family.endswith("_total"), line
            seen.add((match.group(1), match.group(2)))
            float(match.group(3))
    return set(kinds)


def check_parser(text):
    """What Prometheus' own parser makes of it: the buckets of each histogram rise to its count."""
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError as missing:
        print(f"not parsed by python3-prometheus-client: {missing}")
        return
    histograms = 0
    for family in text_string_to_metric_families(text):
        series = {}
        for sample in family.samples:
            labels = tuple(sorted(item for item in sample.labels.items() if item[0] != "le"))
            series.setdefault(labels, {}).setdefault(sample.name, []).append(sample)
        for parts in series.values() if family.type == "histogram" else []:
            buckets = [(float(sample.labels["le"]), sample.value) for sample in parts[f"{family.name}_bucket"]]
            assert buckets == sorted(buckets) and [b[1] for b in buckets] == sorted(b[1] for b in buckets), buckets
            assert buckets[-1] == (float("inf"), parts[f"{family.name}_count"][0].value), buckets
            histograms += 1
    assert histograms >= 6, histograms


def check_deployed(source, names):
    """Every metric that deploy/prometheus names is exported."""
    for path in sorted(pathlib.Path(source, "deploy", "prometheus").iterdir()):
        named = set(re.findall(r"\bthorax_[a-z_]+[a-z]\b", path.read_text()))
        assert path.suffix == ".yml" and (named or "rules" not in path.name), path
        for name in named:
            assert re.sub(r"_(bucket|sum|count)$", "", name) in names or name in names, f"{path}: {name} is not exported"


def pages(arguments, folder, started):
    """From a publisher without a model to a member that serves."""
    trainer = publisher(arguments, folder)
    started.append(trainer)
    member = follower(arguments, folder, "a", "server.queue=4096")
    started.append(member)
    trainer_port, member_port = http_port(trainer), http_port(member)
    assert wait_page(trainer_port, "/readyz", 200)[2] == "ready\n"
    assert get(trainer_port, "/healthz")[0] == 200
    status, _, reason = get(member_port, "/readyz")
    assert (status, reason) == (503, "no model yet\n"), (status, reason)
    assert get(member_port, "/healthz")[0] == 200
    assert get(member_port, "/")[0] == 404
    model = f"{folder}/model"
    subprocess.run([arguments.make_model, model, "chest", "1"], check=True)
    subprocess.run([arguments.trainctl, "publish", model, "--to", f"ipc://{folder}/control"], check=True, capture_output=True)
    wait_page(member_port, "/readyz", 200)
    client = thorax_client.Client(member.endpoint, REQUEST_MS)
    for seed in range(4):
        assert client.diagnose(programs.encode(programs.picture(seed))).status == diagnosis.STATUS_OK
    client.close()
    wait_connected(member_port)
    check_metrics(arguments, trainer_port, member_port, programs.file_digest(model).hex())
    return trainer, member


def wait_connected(port):
    """A member that has just heard of a change is out of step until the snapshot that it asked for is there."""
    deadline = time.monotonic() + 10
    while "\nthorax_publisher_connected 1\n" not in get(port, "/metrics")[2]:
        assert time.monotonic() < deadline, "the member does not come into step with its publisher"
        time.sleep(0.05)


def check_metrics(arguments, trainer_port, member_port, digest):
    names, texts = set(), []
    for port in (trainer_port, member_port):
        status, kind, text = get(port, "/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8"), (status, kind)
        names |= check_format(text)
        texts.append(text)
    check_parser(texts[1])
    check_deployed(arguments.source, names)
    assert f'thorax_model_info{{name="chest",version="1",digest="{digest[:12]}"}} 1\n' in texts[1], texts[1]
    assert '\nthorax_requests_total{status="OK"} 4\n' in texts[1]
    assert "\nthorax_publisher_uploads_total 1\n" in texts[0] and "\nthorax_publisher_members 1\n" in texts[0]
    assert "\nthorax_publisher_connected 1\n" in texts[1]
    sent = int(re.search(r"\nthorax_publisher_sent_bytes_total (\d+)\n", texts[0]).group(1))
    received = int(re.search(r"\nthorax_model_received_bytes_total (\d+)\n", texts[1]).group(1))
    assert sent == received > 10000, (sent, received)
    for path in ("/healthz", "/readyz", "/metrics"):
        for seed in range(4):
            assert programs.hashlib.sha256(programs.encode(programs.picture(seed))).hexdigest()[:12] not in get(member_port, path)[2]


class Asker(threading.Thread):
    """Asks one member until it says NOT_READY; what was accepted must be answered."""

    def __init__(self, member, seed):
        super().__init__(daemon=True)
        self.endpoint, self.image, self.answered, self.fault = member.endpoint, programs.encode(programs.picture(seed)), 0, None
        self.begun = threading.Event()
        self.start()

    def run(self):
        client = thorax_client.Client(self.endpoint, REQUEST_MS)
        while True:
            try:
                reply = client.ask(thorax_client.make_request(self.image), REQUEST_MS)
            except Exception as reason:
                self.fault = repr(reason)
                break
            if reply.status != diagnosis.STATUS_OK:
                self.fault = None if reply.status == diagnosis.STATUS_NOT_READY else diagnosis.Status.Name(reply.status)
                break
            self.answered += 1
            self.begun.set()
        client.close()


def drain_under_load(arguments, member):
    """Each of several clients is answered until the member says that it is not ready, and the member ends with 0."""
    socket = programs.zmq.Context.instance().socket(programs.zmq.DEALER)
    socket.set_hwm(0)  # replies that wait here are not to be dropped
    socket.connect(member.endpoint)
    askers = [Asker(member, seed) for seed in range(ASKERS)]
    assert all(asker.begun.wait(programs.START_S) for asker in askers)
    pictures, ends = [programs.encode(programs.picture(seed)) for seed in range(PICTURES)], []
    for i in range(OUTSTANDING):
        request = thorax_client.make_request(pictures[i % PICTURES], request_id=str(i))
        socket.send_multipart([b"", request.SerializeToString()])
    result = drain(arguments, member, "--json", "--timeout-ms", str(REQUEST_MS))
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["gone"] is True and report["in_flight"] > 0, report
    member.wait()
    while len(ends) < OUTSTANDING:
        assert socket.poll(REQUEST_MS), f"{OUTSTANDING - len(ends)} requests got no reply at all"
        ends.append(envelope.Envelope.FromString(socket.recv_multipart()[-1]).diagnosis_reply)
    assert {int(reply.request_id) for reply in ends} == set(range(OUTSTANDING))
    statuses = {reply.status for reply in ends}
    assert statuses <= {diagnosis.STATUS_OK, diagnosis.STATUS_NOT_READY}, statuses
    for asker in askers:
        asker.join()
        assert asker.fault is None and asker.answered > 0, asker.fault
    socket.close()
    print(f"drained with {report['in_flight']} in flight: {sum(asker.answered for asker in askers)} answers to {ASKERS} clients, none lost; of "
          f"{OUTSTANDING} at once {sum(reply.status == diagnosis.STATUS_OK for reply in ends)} were answered")


def drain_while_busy(arguments, folder, started):
    """A batch that waits for company for 3 s keeps the member busy: the tool says so, the answer still comes."""
    model = f"{folder}/model"
    command = [arguments.inferd, "--model", model, "--set", "batch.max_delay_us=3000000", "--set", "http.bind=127.0.0.1:0"]
    member = programs.Member(folder, "busy", arguments.inferctl, command)
    started.append(member)
    port = http_port(member)
    wait_page(port, "/readyz", 200)
    socket = programs.zmq.Context.instance().socket(programs.zmq.DEALER)
    socket.connect(member.endpoint)
    socket.send_multipart([b"", thorax_client.make_request(programs.encode(programs.picture(1))).SerializeToString()])
    while member.status().get("in_flight") != 1:
        assert member.process.poll() is None
    result = drain(arguments, member, "--timeout-ms", "400")
    assert result.returncode == 1 and "still busy" in result.stderr, (result.returncode, result.stderr)
    status, _, reason = get(port, "/readyz")
    assert (status, reason) == (503, "shutting down\n"), (status, reason)
    assert get(port, "/healthz")[0] == 200
    assert socket.poll(REQUEST_MS)
    answer = envelope.Envelope.FromString(socket.recv_multipart()[-1]).diagnosis_reply
    assert answer.status == diagnosis.STATUS_OK, answer.message
    member.wait()
    socket.close()


def drain_refused(arguments, folder, started):
    member = programs.Member(folder, "firm", arguments.inferctl,
                             [arguments.inferd, "--model", f"{folder}/model", "--set", "server.allow_drain=false"])
    started.append(member)
    member.wait_ready()
    result = drain(arguments, member)
    assert result.returncode == 1 and "refused" in result.stderr, result.stderr
    assert member.status()["condition"] == "READY"
    member.stop()
    result = drain(arguments, member, "--timeout-ms", "300")
    assert result.returncode == 1 and "no reply" in result.stderr, result.stderr
    assert drain(arguments, member, "extra").returncode == 2


def remote_http_refused(arguments, folder):
    command = [arguments.inferd, "--model", f"{folder}/model", "--set", f"server.bind=['ipc://{folder}/x']"]
    result = subprocess.run(command + ["--set", "http.bind=0.0.0.0:0"], capture_output=True, text=True, timeout=programs.START_S)
    assert result.returncode == 1 and "loopback" in result.stderr, result.stderr


def main():
    arguments = programs.parse_arguments(__doc__.splitlines()[0])
    with programs.temporary_folder() as folder:
        global envelope, diagnosis, thorax_client
        envelope, diagnosis, thorax_client = programs.import_messages(arguments.source, folder)
        started = []
        try:
            trainer, member = pages(arguments, folder, started)
            drain_under_load(arguments, member)
            trainer.stop()
            drain_while_busy(arguments, folder, started)
            drain_refused(arguments, folder, started)
            remote_http_refused(arguments, folder)
        finally:
            for process in started:
                process.kill()


if __name__ == "__main__":
    sys.exit(main())
