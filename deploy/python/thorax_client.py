#!/usr/bin/env python3
"""Asks a member of a Thorax pool about chest X-rays: a client in a few lines, to start your own from.

Needs pyzmq, protobuf and the messages compiled once:
    protoc --proto_path=proto --python_out=DIR envelope.proto diagnosis.proto    (then PYTHONPATH=DIR)
    thorax_client.py [--endpoint tcp://127.0.0.1:5700] FILE...
Research and integration; not a medical device.
"""
import argparse
import hashlib
import sys
import time
import uuid

import zmq

import diagnosis_pb2 as diagnosis
import envelope_pb2 as envelope


class Unanswered(Exception):
    """There is no answer, or none that may be believed."""


class Client:
    """One question at a time over a REQ socket. Checks that every answer is about the image that was sent."""

    def __init__(self, endpoint="tcp://127.0.0.1:5700", timeout_ms=30000):
        self.timeout_ms = timeout_ms
        self.socket = zmq.Context.instance().socket(zmq.REQ)
        self.socket.setsockopt(zmq.REQ_CORRELATE, 1)  # a late reply is not taken for the next request's
        self.socket.setsockopt(zmq.REQ_RELAXED, 1)  # after a time-out the socket can be used again
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)

    def diagnose(self, image, **fields):
        """image: bytes of a JPEG or PNG file. fields: of DiagnosisRequest. Asks again while the member is busy."""
        deadline = time.monotonic() + self.timeout_ms / 1000
        while True:
            left_ms = max(1, int(1000 * (deadline - time.monotonic())))
            reply = self.ask(make_request(image, timeout_ms=left_ms, **fields), left_ms)
            pause = max(reply.retry_after_ms, 5) / 1000
            if reply.status != diagnosis.STATUS_BUSY or time.monotonic() + pause > deadline:
                return reply
            time.sleep(pause)

    def ask(self, request, timeout_ms):
        self.socket.send(request.SerializeToString())
        if not self.socket.poll(timeout_ms):
            raise Unanswered(f"no reply within {timeout_ms} ms")
        return check(self.socket.recv(), request.diagnosis_request)


def make_request(image, **fields):
    """An Envelope around a DiagnosisRequest with a fresh id."""
    fields.setdefault("request_id", uuid.uuid4().hex)
    return envelope.Envelope(
        protocol_version=1, diagnosis_request=diagnosis.DiagnosisRequest(encoded=image, **fields)
    )


def check(payload, request):
    """The DiagnosisReply in payload, once it is certain that it belongs to request."""
    reply = envelope.Envelope.FromString(payload).diagnosis_reply
    if reply.status == diagnosis.STATUS_UNSPECIFIED:
        raise Unanswered("the reply has no status")
    if reply.status == diagnosis.STATUS_OK:
        if reply.request_id != request.request_id:
            raise Unanswered("the reply is to another request")
        if reply.image_sha256 != hashlib.sha256(request.encoded).digest():
            raise Unanswered("the reply is about another image")
    return reply


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--endpoint", default="tcp://127.0.0.1:5700")
    parser.add_argument("files", nargs="+", metavar="FILE")
    arguments = parser.parse_args()
    client = Client(arguments.endpoint)
    failed = 0
    for file in arguments.files:
        with open(file, "rb") as opened:
            try:
                reply = client.diagnose(opened.read())
            except Unanswered as reason:
                print(f"{file}: no answer: {reason}")
                failed += 1
                continue
        if reply.status != diagnosis.STATUS_OK:
            print(f"{file}: no answer: {diagnosis.Status.Name(reply.status)}: {reply.message}")
            failed += 1
            continue
        shares = " ".join(f"{row.label} {row.probability:.3f}" for row in reply.probabilities)
        print(f"{file}: {diagnosis.Decision.Name(reply.decision)}  {shares}  ({reply.model.name} {reply.model.version})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
