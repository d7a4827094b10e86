#!/usr/bin/env python3
"""Asks a Thorax pool about chest X-rays: a whole client in one file, to start your own from. proto/WIRE.md says why it does what
it does.

Needs pyzmq, protobuf and the messages compiled once:
    protoc --proto_path=proto --python_out=DIR envelope.proto diagnosis.proto    (then PYTHONPATH=DIR)
    thorax_client.py [--endpoint tcp://127.0.0.1:5700]... [--key our.key --server-key members.pub] FILE...
Endpoints are members of the pool, or routers in front of it. Research and integration; not a medical device.
"""
import argparse
import hashlib
import os
import random
import stat
import sys
import time
import uuid

import zmq
from zmq.utils.monitor import parse_monitor_message

import diagnosis_pb2 as diagnosis
import envelope_pb2 as envelope

HEARTBEAT_MS = 500  # a peer that does not answer three is gone
MAX_FAULTS = 3  # a fourth INTERNAL is believed
ROUND_PAUSE_S = 0.05  # after all endpoints were tried
ELSEWHERE = (diagnosis.STATUS_BUSY, diagnosis.STATUS_NOT_READY, diagnosis.STATUS_INTERNAL, diagnosis.STATUS_DEADLINE_EXCEEDED)
REFUSED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
GONE = zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED | REFUSED  # the connection broke, or could not be made
KEYS = "is the server key right, and is our key in the allow-list there (role client)?"


class Unanswered(Exception):
    """There is no answer, or none that may be believed."""


class Client:
    """One question at a time; for several at once make several. Asks one endpoint, and the next one where that is gone, busy,
    not ready, at fault or silent, until there is an answer or the time is over. Asking twice is harmless. Believes only an
    answer to its own request and about the image that was sent.

    endpoints: one, or a list. timeout_ms: for each question, asking again included. pin_s: how long questions with one
    routing_key stay with one model. curve: what load_keys returns, where members encrypt; or by hand ((server's public key for
    each endpoint, or one for all), own public key, own secret key), as Z85 text."""

    def __init__(self, endpoints="tcp://127.0.0.1:5700", timeout_ms=30000, pin_s=600, curve=None):
        self.endpoints = [endpoints] if isinstance(endpoints, str) else list(endpoints)
        self.timeout_ms, self.pin_s, self.curve, self.pins = timeout_ms, pin_s, curve, {}
        if curve and not isinstance(curve[0], str) and len(curve[0]) not in (1, len(self.endpoints)):
            raise ValueError(f"{len(curve[0])} server keys for {len(self.endpoints)} endpoints: one for all, or one for each")
        self.turn = random.randrange(len(self.endpoints))  # so that many clients do not all begin with the same one
        self.socket = self.monitor = None
        self.connect()

    def connect(self):
        """A fresh connection to the endpoint whose turn it is: what was asked over the old one is forgotten with it."""
        self.close()
        self.socket = zmq.Context.instance().socket(zmq.REQ)
        self.socket.setsockopt(zmq.REQ_CORRELATE, 1)  # a late reply is not taken for the next request's
        self.socket.setsockopt(zmq.REQ_RELAXED, 1)  # after a time-out the socket can be used again
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * HEARTBEAT_MS)
        if self.curve and self.endpoints[self.turn].startswith("tcp://"):  # a socket file is not encrypted
            servers, public, secret = self.curve
            server = servers if isinstance(servers, str) else servers[self.turn % len(servers)]
            for option, key in ((zmq.CURVE_SERVERKEY, server), (zmq.CURVE_PUBLICKEY, public), (zmq.CURVE_SECRETKEY, secret)):
                self.socket.setsockopt_string(option, key)
        self.monitor = self.socket.get_monitor_socket(GONE)
        self.socket.connect(self.endpoints[self.turn])

    def close(self):
        if self.socket is not None and not self.socket.closed:
            self.socket.disable_monitor()
            self.monitor.close(0)
            self.socket.close()

    def diagnose(self, image, **fields):
        """image: bytes of a JPEG or PNG file. fields: of DiagnosisRequest. Returns the reply: an OK, a refusal that holds
        everywhere, or, where the time is over, the last refusal. Raises Unanswered where there was none."""
        deadline = time.monotonic() + self.timeout_ms / 1000
        fields.setdefault("pinned_model", self.pinned(fields.get("routing_key")))
        request, reply, reason, tries, faults = make_request(image, **fields), None, "the time was over at once", 0, 0
        while (left_ms := int(1000 * (deadline - time.monotonic()))) > 0:
            request.diagnosis_request.timeout_ms = left_ms
            # A single endpoint gets all the time; where there are others, one that is silent costs half of what is left.
            patience_ms = left_ms if len(self.endpoints) == 1 else max(left_ms // 2, min(left_ms, 100))
            pause = 0
            try:
                reply = self.ask(request, patience_ms)
                faults += reply.status == diagnosis.STATUS_INTERNAL
                if reply.status not in ELSEWHERE or faults > MAX_FAULTS:
                    return self.pin(fields.get("routing_key"), reply)
                pause = reply.retry_after_ms / 1000
            except Unanswered as why:
                reason = why
            tries += 1
            if len(self.endpoints) > 1:
                self.turn = (self.turn + 1) % len(self.endpoints)
                self.connect()
            if tries % len(self.endpoints) == 0:
                time.sleep(max(0, min(max(pause, ROUND_PAUSE_S), deadline - time.monotonic())))
        if reply is None:
            raise Unanswered(f"no answer within {self.timeout_ms} ms: {reason}")
        return reply

    def ask(self, request, timeout_ms):
        """Asks the endpoint whose turn it is, once."""
        if self.monitor.poll(0):  # the connection broke since the last question
            self.connect()
        try:
            self.socket.send(request.SerializeToString(), zmq.DONTWAIT)
        except zmq.Again:  # after a handshake of two kinds (keys on one side only) nothing connects any more
            raise Unanswered(self.why_gone()) from None
        poller = zmq.Poller()
        poller.register(self.socket, zmq.POLLIN)
        poller.register(self.monitor, zmq.POLLIN)
        ready = dict(poller.poll(timeout_ms))
        if self.socket in ready or self.socket.poll(0):  # also where the connection broke behind the answer
            return check(self.socket.recv(), request.diagnosis_request)
        if self.monitor in ready:
            raise Unanswered(self.why_gone())
        raise Unanswered(f"no reply within {timeout_ms} ms" + (f"; {KEYS}" if self.curve else ""))

    def why_gone(self):
        """Nobody there, or somebody with other keys, or with none, or who does not know ours."""
        refused = self.monitor.poll(0) and parse_monitor_message(self.monitor.recv_multipart())["event"] & REFUSED
        self.connect()
        if refused:
            return "the handshake failed: " + (KEYS if self.curve else "the endpoint may want keys")
        return "the endpoint cannot be reached"

    def pinned(self, key):
        """The digest of the model that answered for this routing key before; empty: none, or too long ago."""
        digest, until = self.pins.get(key, (b"", 0))
        return digest if time.monotonic() < until else b""

    def pin(self, key, reply):
        """The first answer pins. What the pool says by WARNING_MODEL_CHANGED is in the reply's warnings and pinned_model."""
        if key and reply.status == diagnosis.STATUS_OK and not self.pinned(key):
            now = time.monotonic()
            self.pins = {k: pin for k, pin in self.pins.items() if pin[1] > now}
            self.pins[key] = (reply.model.digest, now + self.pin_s)
        return reply


def read_trusted(path, forbidden):
    """The words of a key file's lines, by the first; refuses what others could have written, or, if secret, read."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), encoding="ascii") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()) or status.st_mode & forbidden:
            raise PermissionError(f"{path}: others can read or change it: chmod 0600 (a .pub file: 0644), and own it")
        return dict(line.split() for line in file if len(line.split()) == 2)


def load_keys(key, server_key):
    """For Client's curve: key is the path of our .key file (trainctl keygen curve), server_key the endpoints' public key, as path of
    a .pub file or as its 40 characters, or a list with one for each endpoint."""
    own = read_trusted(key, 0o077)
    servers = [server_key] if isinstance(server_key, str) else server_key
    servers = [read_trusted(each, 0o022)["public"] if each.endswith(".pub") else each for each in servers]
    return servers, own["public"], own["secret"]


def make_request(image, **fields):
    """An Envelope around a DiagnosisRequest with a fresh id."""
    fields.setdefault("request_id", uuid.uuid4().hex)
    return envelope.Envelope(
        protocol_version=1, diagnosis_request=diagnosis.DiagnosisRequest(encoded=image, **fields)
    )


def check(payload, request):
    """The DiagnosisReply in payload, once it is certain that it belongs to request."""
    try:
        reply = envelope.Envelope.FromString(payload).diagnosis_reply
    except Exception as reason:  # what protobuf raises differs between its versions
        raise Unanswered("the reply is no message") from reason
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
    parser.add_argument("--endpoint", action="append", help="may be repeated (default tcp://127.0.0.1:5700)")
    parser.add_argument("--timeout-ms", type=int, default=30000)
    parser.add_argument("--key", help="our .key file, where members encrypt (trainctl keygen curve)")
    parser.add_argument("--server-key", action="append", help="the members' .pub file or key; one for all, or one for each endpoint")
    parser.add_argument("files", nargs="+", metavar="FILE")
    arguments = parser.parse_args()
    if bool(arguments.key) != bool(arguments.server_key):
        parser.error("--key and --server-key belong together")
    curve = load_keys(arguments.key, arguments.server_key) if arguments.key else None
    client = Client(arguments.endpoint or ["tcp://127.0.0.1:5700"], arguments.timeout_ms, curve=curve)
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
    client.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
