#!/usr/bin/env python3
"""What is broken, lying or far too large, given to the real programs: each gets its clear status or error line, nothing that
failed carries a probability or a decision, and the daemon answers the next request."""
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import unittest
import zlib

import programs

TIMEOUT_MS = 60000
arguments = None

BAD = "UNSUPPORTED_MEDIA"
WRONG = "INVALID_ARGUMENT"
LARGE = "TOO_LARGE"
OK = "OK"


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, bits=8, rows=None):
    """A grey PNG whose header may say anything; rows: the bytes before compression."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    data = zlib.compress(rows if rows is not None else b"\0" * 64, 9)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def jpeg_with_size(jpeg, width, height):
    """The same JPEG, its frame header saying another size."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def gradient16(width, height):
    return b"".join(b"\0" + struct.pack(f">{width}H", *((x * 601 + y * 37) % 65536 for x in range(width))) for y in range(height))


def image_rows():
    """(what, bytes, status) of pictures."""
    grey, colour = programs.picture(3), programs.picture(3, "RGB")
    a_png, a_jpeg = programs.encode(grey), programs.encode(grey, "JPEG", quality=90)
    progressive = programs.encode(colour, "JPEG", progressive=True)
    text_bomb = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(60 << 20), 9))
    rows = [
        ("a PNG", a_png, OK),
        ("a JPEG", a_jpeg, OK),
        ("a colour JPEG", programs.encode(colour, "JPEG"), OK),
        ("a progressive JPEG", progressive, OK),
        ("a CMYK JPEG", programs.encode(programs.picture(3, "CMYK"), "JPEG"), OK),
        ("a palette PNG", programs.encode(colour.convert("P")), OK),
        ("a one-bit PNG", programs.encode(grey.convert("1")), OK),
        ("a 16-bit PNG", png(64, 48, 16, gradient16(64, 48)), OK),
        ("nothing", b"", WRONG),
        ("one byte", b"\xff", BAD),
        ("the magic of JPEG alone", b"\xff\xd8\xff", BAD),
        ("the magic of PNG alone", a_png[:8], BAD),
        ("a PNG's body under JPEG's magic", b"\xff\xd8\xff" + a_png[3:], BAD),
        ("a JPEG's body under PNG's magic", a_png[:8] + a_jpeg[8:], BAD),
        ("text", b"NORMAL, no finding. " * 50, BAD),
        ("zeros", bytes(5000), BAD),
        ("noise", random.Random(1).randbytes(5000), BAD),
        ("a GIF", programs.encode(grey, "GIF"), BAD),
        ("a TIFF", programs.encode(grey, "TIFF"), BAD),
        ("a BMP", programs.encode(grey, "BMP"), BAD),
        ("a DICOM preamble", bytes(128) + b"DICM" + bytes(400), BAD),
        ("a PNG of 0 x 0", png(0, 0), BAD),
        ("a PNG of 0 x 10", png(0, 10), BAD),
        ("a JPEG of 0 x 0", jpeg_with_size(a_jpeg, 0, 0), BAD),
        ("a PNG that says 65535 x 65535", png(65535, 65535), LARGE),
        ("a PNG that says 2^31 - 1 x 1", png(2**31 - 1, 1), LARGE),
        ("a PNG bomb of 100 million pixels", png(10000, 10000, 8, bytes(10001 * 10000)), LARGE),
        ("a JPEG that says 65500 x 65500", jpeg_with_size(a_jpeg, 65500, 65500), LARGE),
        ("a PNG with fewer rows than it says", png(64, 64, 8, bytes(65 * 20)), BAD),
        ("a PNG with a wrong checksum", a_png[:60] + bytes([a_png[60] ^ 255]) + a_png[61:], BAD),
        ("a bomb in a PNG's text", a_png[:33] + text_bomb + a_png[33:], None),
        ("40 MB", a_png + bytes(40 << 20), LARGE),
    ]
    for name, whole in (("PNG", a_png), ("JPEG", a_jpeg), ("progressive JPEG", progressive)):
        for percent in (3, 10, 30, 50, 80, 99):
            rows.append((f"{percent} % of a {name}", whole[: len(whole) * percent // 100], BAD))
        rows.append((f"a {name} without its last byte", whole[:-1], BAD))
    return rows


def raw_rows():
    """(what, fields of RawPixels, status)."""
    good = {"rows": 40, "columns": 50, "bits_allocated": 8, "bits_stored": 8, "photometric": 2, "data": bytes(range(200)) * 10}
    return [
        ("raw pixels", good, OK),
        ("one byte too few", {**good, "data": good["data"][1:]}, WRONG),
        ("one byte too many", {**good, "data": good["data"] + b"x"}, WRONG),
        ("no data", {**good, "data": b""}, WRONG),
        ("no rows", {**good, "rows": 0}, WRONG),
        ("rows x columns beyond 2^32", {**good, "rows": 65536, "columns": 65537}, LARGE),
        ("rows of 2^32 - 1", {**good, "rows": 2**32 - 1}, LARGE),
        ("16 bits for 8 bits of data", {**good, "bits_allocated": 16}, WRONG),
        ("7 bits allocated", {**good, "bits_allocated": 7}, BAD),
        ("2^32 - 1 bits allocated", {**good, "bits_allocated": 2**32 - 1}, BAD),
        ("more bits stored than allocated", {**good, "bits_stored": 9}, WRONG),
        ("no bits stored", {**good, "bits_stored": 0}, WRONG),
        ("no photometric interpretation", {**good, "photometric": 0}, WRONG),
        ("an unknown photometric interpretation", {**good, "photometric": 77}, WRONG),
    ]


def field_rows():
    """(what, fields of DiagnosisRequest, status)."""
    return [
        ("no request id", {"request_id": ""}, WRONG),
        ("a request id of 129 bytes", {"request_id": "x" * 129}, None),
        ("another model", {"model": "0" * 64}, "NOT_READY"),
        ("an unknown model alias", {"model": "canary"}, None),
        ("an operating point that the model has not", {"operating_point": "none such"}, WRONG),
        ("an unknown view", {"view": 99}, WRONG),
        ("an unknown priority", {"priority": 99}, WRONG),
        ("an age of minus one", {"age": diagnosis.Age(years=-1)}, WRONG),
        ("an age that is no number", {"age": diagnosis.Age(years=float("nan"))}, WRONG),
    ]


def frame_rows():
    """(what, frames after the identity, status): what stands where an Envelope should."""
    good = thorax_client.make_request(programs.encode(programs.picture(3)), request_id="r").SerializeToString()
    other = envelope.Envelope.FromString(good)
    other.protocol_version = 2
    reply = envelope.Envelope(protocol_version=1, diagnosis_reply=diagnosis.DiagnosisReply(status=1))
    return [
        ("one empty frame", [b""], WRONG),
        ("two empty frames", [b"", b""], WRONG),
        ("no delimiter", [good], WRONG),
        ("two payloads", [b"", good, good], WRONG),
        ("thirty frames", [b"f"] * 28 + [b"", good], LARGE),
        ("a long prefix", [b"f" * 4096, b"", good], LARGE),
        ("noise", [b"", random.Random(2).randbytes(300)], WRONG),
        ("half an Envelope", [b"", good[: len(good) // 2]], WRONG),
        ("an Envelope without its last byte", [b"", good[:-1]], WRONG),
        ("a length that lies", [b"", b"\x08\x01\x12\xff\xff\xff\xff\x0f"], WRONG),
        ("a length of 2^63", [b"", b"\x08\x01\x12" + b"\xff" * 8 + b"\x7f"], WRONG),
        ("the body twice", [b"", good + good[2:]], WRONG),
        ("another protocol version", [b"", other.SerializeToString()], "UNSUPPORTED_VERSION"),
        ("a reply instead of a request", [b"", reply.SerializeToString()], WRONG),
        ("groups in groups", [b"", b"\x0b" * 5000], WRONG),
        ("50 MB", [b"", bytes(50 << 20)], LARGE),
    ]


class Fixture(unittest.TestCase):
    """One member for all tests of a class."""

    @classmethod
    def setUpClass(cls):
        cls.folder = programs.temporary_folder()
        cls.model = f"{cls.folder.name}/model.safetensors"
        subprocess.run([arguments.make_model, cls.model, "model", "5"], check=True)
        cls.member = programs.standalone(arguments, cls.folder.name, "member", cls.model)
        cls.member.wait_ready()

    @classmethod
    def tearDownClass(cls):
        try:
            cls.member.stop()
            log = cls.member.log()
            assert "ERROR: " not in log and "runtime error" not in log, log[-5000:]
        finally:
            cls.member.kill()
            cls.folder.cleanup()


class RequestTest(Fixture):
    def setUp(self):
        self.socket = programs.zmq.Context.instance().socket(programs.zmq.DEALER)
        self.socket.setsockopt(programs.zmq.LINGER, 0)
        self.socket.connect(self.member.endpoint)
        self.addCleanup(self.socket.close)
        self.count = 0

    def ask(self, frames):
        self.socket.send_multipart(frames)
        self.assertTrue(self.socket.poll(TIMEOUT_MS), f"no reply: {self.member.log()[-2000:]}")
        answer = envelope.Envelope.FromString(self.socket.recv_multipart()[-1])
        self.assertEqual(answer.WhichOneof("body"), "diagnosis_reply")
        return answer.diagnosis_reply

    def ask_envelope(self, request):
        return self.ask([b"", request.SerializeToString()])

    def assert_status(self, reply, wanted):
        """wanted None: any clear refusal."""
        name = diagnosis.Status.Name(reply.status).removeprefix("STATUS_")
        if wanted is None:
            self.assertIn(name, (WRONG, BAD, LARGE, "NOT_READY"))
        else:
            self.assertEqual(name, wanted, reply.message)
        if name != OK:
            self.assertEqual(len(reply.probabilities), 0)
            self.assertEqual(reply.decision, diagnosis.DECISION_UNSPECIFIED)
            self.assertFalse(reply.HasField("operating_point"))
            self.assertGreater(len(reply.message), 10, "a message that helps")

    def assert_answers_well(self):
        self.count += 1
        image = programs.encode(programs.picture(self.count))
        reply = self.ask_envelope(thorax_client.make_request(image, request_id=f"good {self.count}"))
        self.assertEqual(reply.status, diagnosis.STATUS_OK, reply.message)
        self.assertEqual(reply.request_id, f"good {self.count}")
        self.assertEqual(reply.image_sha256, hashlib.sha256(image).digest())
        self.assertAlmostEqual(sum(row.probability for row in reply.probabilities), 1, places=9)

    def test_pictures(self):
        for what, image, wanted in image_rows():
            with self.subTest(what):
                reply = self.ask_envelope(thorax_client.make_request(image))
                if what == "a bomb in a PNG's text" and reply.status == diagnosis.STATUS_OK:
                    continue  # text is no part of the picture: to leave it compressed is right, too
                self.assert_status(reply, wanted)
                self.assert_answers_well()

    def test_raw_pixels(self):
        for what, fields, wanted in raw_rows():
            with self.subTest(what):
                request = diagnosis.DiagnosisRequest(request_id="raw", raw=diagnosis.RawPixels(**fields))
                self.assert_status(self.ask_envelope(envelope.Envelope(protocol_version=1, diagnosis_request=request)), wanted)
                self.assert_answers_well()

    def test_fields(self):
        image = programs.encode(programs.picture(3))
        for what, fields, wanted in field_rows():
            with self.subTest(what):
                self.assert_status(self.ask_envelope(thorax_client.make_request(image, **fields)), wanted)
                self.assert_answers_well()

    def test_no_picture(self):
        request = envelope.Envelope(protocol_version=1, diagnosis_request=diagnosis.DiagnosisRequest(request_id="r"))
        self.assert_status(self.ask_envelope(request), WRONG)

    def test_frames(self):
        for what, frames, wanted in frame_rows():
            with self.subTest(what):
                self.assert_status(self.ask(frames), wanted)
                self.assert_answers_well()

    def test_a_message_of_more_frames_than_any_client_sends(self):
        self.socket.send_multipart([b"f"] * 1000)  # dropped, as WIRE.md says
        self.assert_answers_well()

    def test_a_peer_that_sends_far_too_much_loses_only_its_own_connection(self):
        flood = programs.zmq.Context.instance().socket(programs.zmq.DEALER)
        flood.setsockopt(programs.zmq.LINGER, 0)
        flood.connect(self.member.endpoint)
        flood.send_multipart([b"", bytes(80 << 20)])
        self.assertFalse(flood.poll(2000))
        flood.close()
        self.assert_answers_well()


def safetensors(header, data=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def model_rows(good):
    """(what, bytes, words that the error line must have) of files that are no model; good: one that is."""
    size = struct.unpack("<Q", good[:8])[0]
    tensors = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0x01  # in the midst of the weights
    return [
        ("an empty file", b"", "too few for a header"),
        ("seven bytes", good[:7], "too few for a header"),
        ("half a header", good[: 8 + size // 2], "in a file of"),
        ("the header alone", good[: 8 + size], "outside of the file"),
        ("99 % of a model", good[: len(good) * 99 // 100], "outside of the file"),
        ("a model and a byte", good + b"x", "the tensors take"),
        ("a weight that changed", bytes(flipped), "the manifest names"),
        ("a header of 2^63 bytes", safetensors({}, length=2**63), "the limit is"),
        ("a header of 200 million bytes", safetensors({}, length=200_000_000), "the limit is"),
        ("a header that is no JSON", safetensors(b"{" * 1000), "nested too deeply"),
        ("a header that is an array", safetensors([]), "does not start with"),
        ("a header nested a hundred thousand deep", safetensors(b'{"a":' * 100000), "nested too deeply"),
        ("no metadata", safetensors(tensors, bytes(8)), "without a manifest"),
        ("a hole", safetensors({"a": {**tensors["a"], "data_offsets": [8, 16]}}, bytes(16)), "starts at 8"),
        ("offsets beyond the file", safetensors({"a": {**tensors["a"], "data_offsets": [0, 2**60]}}, bytes(8)), "outside"),
        ("a shape whose size overflows", safetensors({"a": {**tensors["a"], "shape": [2**62, 8]}}, bytes(8)), "overflows"),
        ("a picture", programs.encode(programs.picture(1)), "the limit is"),
    ]


class ModelFileTest(Fixture):
    """inferd --model, inferd --check, trainctl publish and trainctl evaluate end with 1 and one line that names the file."""

    def assert_refused(self, command, words):
        result = subprocess.run(command, capture_output=True, text=True, timeout=programs.START_S, cwd=self.folder.name)
        self.assertEqual(result.returncode, 1, f"{command[:3]}: {result.stdout} {result.stderr}")
        last = result.stderr.strip().splitlines()[-1]
        self.assertIn("bad.safetensors", last)
        self.assertIn(words, last)
        self.assertEqual(last.count("bad.safetensors"), 1, "the file is named once")
        self.assertNotIn("published", result.stdout)

    def test_model_files(self):
        with open(self.model, "rb") as file:
            good = file.read()
        bad, nowhere = f"{self.folder.name}/bad.safetensors", f"ipc://{self.folder.name}/nobody"
        commands = [
            [arguments.inferd, "--model", bad, "--set", f"server.bind=['{nowhere}']"],
            [arguments.inferd, "--model", bad, "--check"],
            [arguments.trainctl, "publish", bad, "--to", nowhere, "--timeout-ms", "2000"],
            [arguments.trainctl, "evaluate", bad, "--config", f"{arguments.source}/configs/trainerd/small.yaml"],
        ]
        for what, content, words in model_rows(good):
            with open(bad, "wb") as file:
                file.write(content)
            for command in commands:
                with self.subTest(what, program=" ".join(map(os.path.basename, command[:2]))):
                    self.assert_refused(command, words)
        os.unlink(bad)
        for command in commands:
            with self.subTest("no file", program=os.path.basename(command[0])):
                self.assert_refused(command, "No such file")

    def test_instances_without_processors(self):
        settings = ["--set", "device.threads=1024", "--set", "device.instances=64"]
        command = [arguments.inferd, "--model", self.model, "--check", *settings]
        result = subprocess.run(command, capture_output=True, text=True, timeout=programs.START_S)
        self.assertEqual(result.returncode, 1)
        self.assertIn("device.instances: 64 with 1024 threads each need 65536 processors", result.stderr)


def main():
    global arguments, envelope, diagnosis, thorax_client
    arguments = programs.parse_arguments(__doc__.splitlines()[0])
    with programs.temporary_folder() as folder:
        envelope, diagnosis, thorax_client = programs.import_messages(arguments.source, folder)
        return not unittest.main(argv=sys.argv[:1], verbosity=1, exit=False).result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
