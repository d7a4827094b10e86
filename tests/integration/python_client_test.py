#!/usr/bin/env python3
"""Python clients against a real inferd: REQ, REQ with ZMQ_REQ_CORRELATE and ZMQ_REQ_RELAXED, DEALER, and the client of
deploy/python. Usage: python_client_test.py INFERD INFERCTL MAKE_MODEL SOURCE_DIR"""
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

try:
    import zmq
    from PIL import Image
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

INFERD, INFERCTL, MAKE_MODEL, SOURCE = sys.argv[1:5]
TIMEOUT_MS = 30000


def generate_messages(folder):
    subprocess.run(
        ["protoc", f"--proto_path={SOURCE}/proto", f"--python_out={folder}", "envelope.proto", "diagnosis.proto"], check=True
    )
    sys.path[:0] = [folder, f"{SOURCE}/deploy/python"]


def picture(seed):
    """A PNG that is made up: stripes whose width depends on seed."""
    image = Image.new("L", (96, 80))
    image.putdata([(x * (seed + 1) + y * 3) % 256 for y in range(80) for x in range(96)])
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


class Daemon:
    """An inferd on a socket file in folder, with a model of random weights."""

    def __init__(self, folder):
        self.endpoint = f"ipc://{folder}/inferd.sock"
        self.model = f"{folder}/model.safetensors"
        subprocess.run([MAKE_MODEL, self.model, "random", "5"], check=True)
        with open(self.model, "rb") as file:
            self.digest = hashlib.sha256(file.read()).digest()
        self.log_path = f"{folder}/log"
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                [INFERD, "--model", self.model, "--set", f"server.bind=['{self.endpoint}']", "--set", "member=under-test"],
                stderr=log,
            )

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        with open(self.log_path) as log:
            return code, log.read()


class ClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        generate_messages(cls.folder.name)
        global thorax_client, diagnosis, envelope
        import diagnosis_pb2 as diagnosis
        import envelope_pb2 as envelope
        import thorax_client

        cls.daemon = Daemon(cls.folder.name)

    @classmethod
    def tearDownClass(cls):
        code, log = cls.daemon.stop()
        cls.folder.cleanup()
        assert code == 0, f"inferd ended with {code}: {log}"
        assert "secret-id" not in log and ".png" not in log, f"the log tells of requests: {log}"

    def open(self, kind, **options):
        socket = zmq.Context.instance().socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        for name, value in options.items():
            socket.setsockopt(getattr(zmq, name), value)
        socket.connect(self.daemon.endpoint)
        self.addCleanup(socket.close)
        return socket

    def receive(self, socket):
        self.assertTrue(socket.poll(TIMEOUT_MS), "no reply")
        return socket.recv_multipart()

    def assert_answers(self, payload, request):
        reply = thorax_client.check(payload, request.diagnosis_request)
        self.assertEqual(reply.status, diagnosis.STATUS_OK, reply.message)
        self.assertEqual([row.label for row in reply.probabilities], ["NORMAL", "PNEUMONIA", "INVALID"])
        self.assertAlmostEqual(sum(row.probability for row in reply.probabilities), 1, places=9)
        self.assertEqual(reply.model.digest, self.daemon.digest)
        self.assertEqual(reply.member, "under-test")

    def test_req(self):
        socket = self.open(zmq.REQ)
        for seed in range(3):
            request = thorax_client.make_request(picture(seed))
            socket.send(request.SerializeToString())
            self.assert_answers(self.receive(socket)[0], request)

    def test_req_correlate_and_relaxed(self):
        socket = self.open(zmq.REQ, REQ_CORRELATE=1, REQ_RELAXED=1)
        given_up = thorax_client.make_request(picture(10))
        socket.send(given_up.SerializeToString())  # relaxed: not waited for
        request = thorax_client.make_request(picture(11))
        socket.send(request.SerializeToString())
        self.assert_answers(self.receive(socket)[0], request)

    def test_dealer_with_several_outstanding(self):
        socket = self.open(zmq.DEALER)
        requests = {}
        for seed in range(8):
            request = thorax_client.make_request(picture(20 + seed))
            requests[request.diagnosis_request.request_id] = request
            socket.send_multipart([b"", request.SerializeToString()])
        while requests:
            empty, payload = self.receive(socket)
            self.assertEqual(empty, b"")
            reply_id = envelope.Envelope.FromString(payload).diagnosis_reply.request_id
            self.assert_answers(payload, requests.pop(reply_id))

    def test_dealer_with_frames_before_the_delimiter(self):
        socket = self.open(zmq.DEALER)
        request = thorax_client.make_request(picture(30))
        socket.send_multipart([b"\x00proxy", b"7", b"", request.SerializeToString()])
        frames = self.receive(socket)
        self.assertEqual(frames[:3], [b"\x00proxy", b"7", b""])
        self.assert_answers(frames[3], request)

    def test_the_client(self):
        client = thorax_client.Client(self.daemon.endpoint, TIMEOUT_MS)
        self.addCleanup(client.close)
        image = picture(40)
        reply = client.diagnose(image, request_id="secret-id", view=diagnosis.VIEW_LATERAL, operating_point="triage")
        self.assertEqual(reply.status, diagnosis.STATUS_OK)
        self.assertEqual(reply.operating_point.name, "triage")
        self.assertEqual([w.code for w in reply.warnings], [diagnosis.WARNING_VIEW_OUTSIDE_INTENDED_USE])
        self.assertEqual(client.diagnose(b"GIF89a").status, diagnosis.STATUS_UNSUPPORTED_MEDIA)

    def test_a_dead_endpoint_is_passed_over(self):
        for turn in range(2):  # whichever is asked first
            client = thorax_client.Client([f"ipc://{self.folder.name}/nobody", self.daemon.endpoint], TIMEOUT_MS)
            self.addCleanup(client.close)
            client.turn = turn
            client.connect()
            self.assertEqual(client.diagnose(picture(42)).status, diagnosis.STATUS_OK)

    def test_the_deadline_is_kept_where_nobody_is(self):
        client = thorax_client.Client(f"ipc://{self.folder.name}/nobody", 300)
        self.addCleanup(client.close)
        start = time.monotonic()
        self.assertRaises(thorax_client.Unanswered, client.diagnose, picture(43))
        self.assertGreaterEqual(time.monotonic() - start, 0.29)

    def test_questions_with_one_key_ask_for_the_model_of_the_first(self):
        client = thorax_client.Client(self.daemon.endpoint, TIMEOUT_MS)
        self.addCleanup(client.close)
        self.assertEqual(client.pinned(b"study"), b"")
        self.assertEqual(client.diagnose(picture(44), routing_key=b"study").status, diagnosis.STATUS_OK)
        self.assertEqual(client.pinned(b"study"), self.daemon.digest)
        self.assertEqual(len(client.diagnose(picture(45), routing_key=b"study").warnings), 0)

    def test_the_same_answer_for_raw_pixels_as_for_a_file(self):
        client = thorax_client.Client(self.daemon.endpoint, TIMEOUT_MS)
        self.addCleanup(client.close)
        image = picture(41)
        pixels = Image.open(io.BytesIO(image)).tobytes()
        raw = diagnosis.RawPixels(
            rows=80, columns=96, bits_allocated=8, bits_stored=8, photometric=diagnosis.PHOTOMETRIC_MONOCHROME2, data=pixels
        )
        request = envelope.Envelope(
            protocol_version=1, diagnosis_request=diagnosis.DiagnosisRequest(request_id="raw", raw=raw)
        )
        client.socket.send(request.SerializeToString())
        from_raw = envelope.Envelope.FromString(self.receive(client.socket)[0]).diagnosis_reply
        self.assertEqual(from_raw.status, diagnosis.STATUS_OK, from_raw.message)
        self.assertEqual(from_raw.image_sha256, hashlib.sha256(pixels).digest())
        from_file = client.diagnose(image)
        self.assertEqual(list(from_raw.probabilities), list(from_file.probabilities))

    def inferctl(self, *arguments):
        return subprocess.run([INFERCTL, *arguments, "--endpoint", self.daemon.endpoint], capture_output=True, text=True)

    def test_inferctl_diagnose(self):
        good, bad = f"{self.folder.name}/good.png", f"{self.folder.name}/bad.png"
        with open(good, "wb") as file:
            file.write(picture(50))
        with open(bad, "wb") as file:
            file.write(picture(50)[: len(picture(50)) // 2])
        result = self.inferctl("diagnose", good, bad, "--json")
        self.assertEqual(result.returncode, 1)
        rows = json.loads(result.stdout)
        self.assertEqual(rows[0]["status"], "OK")
        self.assertEqual(rows[0]["image_sha256"], hashlib.sha256(picture(50)).hexdigest())
        self.assertEqual(rows[1]["status"], "UNSUPPORTED_MEDIA")
        self.assertNotIn("probabilities", rows[1])
        table = self.inferctl("diagnose", good)
        self.assertEqual(table.returncode, 0, table.stdout)
        self.assertIn("not a medical device", table.stdout)

    def test_inferctl_bench_and_status(self):
        images = [f"{self.folder.name}/bench{i}.png" for i in range(3)]
        for i, image in enumerate(images):
            with open(image, "wb") as file:
                file.write(picture(51 + i))
        result = self.inferctl("bench", *images, "--closed", "3", "--requests", "30", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        figures = json.loads(result.stdout)
        self.assertEqual((figures["answered"], figures["wrong"], figures["lost"]), (30, 0, 0))
        status = json.loads(self.inferctl("status", "--json").stdout)
        self.assertEqual(status["condition"], "READY")
        self.assertEqual(status["model"]["digest"], self.daemon.digest.hex())
        self.assertGreaterEqual(status["counts"]["OK"], 30)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
