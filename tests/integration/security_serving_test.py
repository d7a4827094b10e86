#!/usr/bin/env python3
"""A member and a router with CURVE keys and allow-lists: inferctl, libthorax and the Python client get right answers, directly and through
the router; wrong keys, unknown keys and clear text get none; only an administrator drains; a client is revoked and allowed again while
others are served; files that others can read are refused."""
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

import programs

TIMEOUT_MS, REFUSED_MS, ASK_MS, REVOKED_S, WATCH_S, TOLERANCE = 30000, 700, 400, 2, 3, 1e-6


class Keys:
    """Files of trainctl keygen curve, and the allow-list that daemons share."""

    def __init__(self, arguments, folder, names):
        self.folder, self.public = folder, {}
        self.allow = f"{folder}/allow"
        for name in names:
            made = subprocess.run(
                [arguments.trainctl, "keygen", "curve", "--out", f"{folder}/{name}", "--json"], capture_output=True, check=True
            )
            self.public[name] = json.loads(made.stdout)["public"]

    def key(self, name):
        return f"{self.folder}/{name}.key"

    def pub(self, name):
        return f"{self.folder}/{name}.pub"

    def write_list(self, roles):
        """roles: name to roles. A rename, so that no daemon reads half of it."""
        with open(f"{self.allow}.new", "w") as file:
            os.fchmod(file.fileno(), 0o644)
            file.writelines(f"{self.public[name]} {role} {name}\n" for name, role in roles.items())
        os.rename(f"{self.allow}.new", self.allow)

    def secrets(self):
        for name in self.public:
            with open(self.key(name)) as file:
                yield re.search(r"^secret (\S+)$", file.read(), re.M).group(1)


class Daemon(programs.Process):
    """inferd with keys, on a port of its own choice."""

    def __init__(self, arguments, keys, name, *more):
        command = [arguments.inferd, "--set", f"member={name}", "--set", "server.bind=['tcp://127.0.0.1:*']"]
        command += ["--set", f"security.key={keys.key(name)}", "--set", f"security.allow={keys.allow}", *more]
        super().__init__(keys.folder, name, command)

    def wait_for(self, pattern):
        deadline = time.monotonic() + programs.START_S
        while not (found := re.search(pattern, self.log())):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()[-3000:]
            time.sleep(0.02)
        return found.group(1)

    def wait_listening(self):
        self.endpoint = self.wait_for(r"listening endpoint=(tcp://\S+)")
        return self


class Site:
    """Member, router, keys and pictures, and how inferctl sees them."""

    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.keys = Keys(arguments, folder, ("member", "router", "ward", "desk", "stranger"))
        self.roles = {"router": "client", "ward": "client", "desk": "client,admin"}
        self.keys.write_list(self.roles)
        self.pictures = [f"{folder}/{seed}.png" for seed in range(3)]
        for seed, path in enumerate(self.pictures):
            with open(path, "wb") as file:
                file.write(programs.encode(programs.picture(seed)))
        model = f"{folder}/model"
        subprocess.run([arguments.make_model, model, "chest", "3", "1.5"], check=True)
        self.member = Daemon(arguments, self.keys, "member", "--model", model, "--set", "device.threads=1")
        self.daemons = [self.member]
        self.member.wait_listening()
        route = [f"router.members=['{self.member.endpoint}']", f"router.server_keys=['{self.keys.pub('member')}']"]
        self.router = Daemon(arguments, self.keys, "router", "--role", "router", "--set", route[0], "--set", route[1])
        self.daemons.append(self.router)
        self.router.wait_listening().wait_for(r"(members_ready=1)")

    def server_of(self, daemon):
        return self.keys.public[daemon.name]

    def inferctl(self, command, daemon, key, *more, server_key=None):
        """Its exit code, and all that it says. key: a name, or None for clear text."""
        command = [self.arguments.inferctl, command, "--endpoint", daemon.endpoint, *more]
        if key:
            command += ["--key", self.keys.key(key), "--server-key", server_key or self.server_of(daemon)]
        result = subprocess.run(command, capture_output=True, text=True)
        return result.returncode, result.stdout + result.stderr

    def client(self, daemon, key, timeout_ms=TIMEOUT_MS, server_key=None):
        curve = thorax_client.load_keys(self.keys.key(key), server_key or self.server_of(daemon))
        return thorax_client.Client(daemon.endpoint, timeout_ms, curve=curve)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def by_inferctl(site, daemon):
    code, out = site.inferctl("diagnose", daemon, "ward", "--json", *site.pictures)
    assert code == 0, out
    return [list(row["probabilities"].values()) for row in json.loads(out)]


def by_libthorax(site, daemon):
    environment = dict(os.environ, THORAX_KEY=site.keys.key("ward"), THORAX_SERVER_KEY=site.keys.pub(daemon.name))
    command = [site.arguments.load, daemon.endpoint, "1", "1", str(TIMEOUT_MS), *site.pictures]
    lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {int(words[0]): [float(value) for value in words[5:]] for words in map(str.split, lines) if words[1] == "OK"}
    return [found[i] for i in range(len(site.pictures))]


def by_python(site, daemon):
    client = site.client(daemon, "ward")
    replies = [client.diagnose(read(path)) for path in site.pictures]
    client.close()
    return [[row.probability for row in reply.probabilities] for reply in replies]


def allowed_clients_get_right_answers(site):
    wanted = by_inferctl(site, site.member)
    for ask in (by_inferctl, by_libthorax, by_python):
        for daemon in (site.member, site.router):
            found = ask(site, daemon)
            worst = max(abs(a - b) for rows in zip(wanted, found) for a, b in zip(*rows))
            assert len(found) == len(wanted) and worst < TOLERANCE, (ask, daemon.name, wanted, found)
    environment = dict(os.environ, THORAX_KEY=site.keys.key("ward"), THORAX_SERVER_KEY=site.keys.pub("member"))
    command = [site.arguments.inferctl, "bench", *site.pictures, "--closed", "2", "--requests", "20", "--json"]
    bench = subprocess.run(command + ["--endpoint", site.member.endpoint], env=environment, capture_output=True, text=True)
    assert bench.returncode == 0 and json.loads(bench.stdout)["answered"] == 20, bench.stdout + bench.stderr


def wrong_keys_get_none(site):
    """The server is another one, or does not know us; both sides of the router."""
    stranger = site.keys.public["stranger"]
    for daemon in (site.member, site.router):
        code, out = site.inferctl("status", daemon, "ward", "--timeout-ms", str(REFUSED_MS), server_key=stranger)
        assert code == 1 and "the handshake failed; is the server key" in out, out
        code, out = site.inferctl("status", daemon, "stranger", "--timeout-ms", str(REFUSED_MS))
        assert code == 1 and "our key in its allow-list" in out, out
    code, out = site.inferctl("diagnose", site.member, "stranger", site.pictures[0], "--timeout-ms", str(REFUSED_MS))
    assert code == 1 and "our key in its allow-list" in out, out
    for key, server_key in (("ward", stranger), ("stranger", None)):
        client = site.client(site.member, key, REFUSED_MS, server_key)
        try:
            reply = client.diagnose(read(site.pictures[0]))
            raise AssertionError(f"{key} was answered: {reply.status}")
        except thorax_client.Unanswered as reason:
            assert "is our key in the allow-list there" in str(reason), reason
        client.close()
    assert "peer_refused" in site.member.log(), site.member.log()


def clear_text_gets_none_and_does_no_harm(site):
    code, out = site.inferctl("status", site.member, None, "--timeout-ms", str(REFUSED_MS))
    assert code == 1 and "may want keys" in out, out
    client = thorax_client.Client(site.member.endpoint, REFUSED_MS)
    try:
        client.diagnose(read(site.pictures[0]))
        raise AssertionError("clear text was answered")
    except thorax_client.Unanswered as reason:
        assert "may want keys" in str(reason), reason
    client.close()
    host, port = site.member.endpoint[len("tcp://") :].split(":")
    for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(500)):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(noise)
    assert site.inferctl("status", site.member, "ward")[0] == 0


def only_an_administrator_drains(site):
    for daemon in (site.member, site.router):
        code, out = site.inferctl("drain", daemon, "ward", "--timeout-ms", "5000")
        assert code == 1 and "PERMISSION_DENIED" in out and "role admin" in out, out
        code, out = site.inferctl("status", daemon, "ward", "--json")
        assert code == 0 and json.loads(out)["condition"] == "READY", out


class Others(threading.Thread):
    """Somebody else, who is served all the time."""

    def __init__(self, site, daemon):
        super().__init__(daemon=True)
        self.client, self.image = site.client(daemon, "desk"), read(site.pictures[1])
        self.halt, self.answered, self.faults = threading.Event(), 0, []
        self.start()

    def run(self):
        while not self.halt.is_set():
            try:
                reply = self.client.diagnose(self.image)
                self.answered += reply.status == diagnosis.STATUS_OK
                self.faults += [reply.message] if reply.status != diagnosis.STATUS_OK else []
            except Exception as reason:  # whatever it is, it counts
                self.faults.append(repr(reason))
        self.client.close()

    def stop(self):
        self.halt.set()
        self.join()
        assert self.answered > 10 and not self.faults, (self.answered, self.faults[:5])


def is_answered(client, image):
    """Within ASK_MS: who is revoked is met by silence."""
    try:
        return client.diagnose(image).status == diagnosis.STATUS_OK
    except thorax_client.Unanswered:
        return False


def wait_for_answer(client, image):
    start = time.monotonic()
    while not is_answered(client, image):
        assert time.monotonic() < start + 30, "not answered"
    return time.monotonic() - start


def last_answer(client, image):
    """When, of those of the next WATCH_S; in seconds."""
    start, last = time.monotonic(), 0
    while time.monotonic() < start + WATCH_S:
        last = time.monotonic() - start if is_answered(client, image) else last
    return last


def revocation_needs_no_restart(site):
    for daemon in (site.member, site.router):
        others, image = Others(site, daemon), read(site.pictures[0])
        client = site.client(daemon, "ward", ASK_MS)
        wait_for_answer(client, image)
        site.keys.write_list({name: role for name, role in site.roles.items() if name != "ward"})
        revoked_s = last_answer(client, image)
        site.keys.write_list(site.roles)
        print(f"{daemon.name}: refused after {revoked_s:.2f} s, answered again after {wait_for_answer(client, image):.2f} s")
        assert revoked_s < REVOKED_S, revoked_s
        client.close()
        others.stop()
        assert daemon.log().count("peer_refused") < 50, daemon.log()


def ends_with(command, *wanted):
    result = subprocess.run(command, capture_output=True, text=True, timeout=programs.START_S)
    out = result.stdout + result.stderr
    assert result.returncode != 0 and all(words in out for words in wanted), (command, out)


def files_that_others_can_read_are_refused(site):
    arguments, keys = site.arguments, site.keys
    open_key = f"{site.folder}/open.key"
    with open(open_key, "wb") as file:
        file.write(read(keys.key("ward")))
    os.chmod(open_key, 0o644)
    model = ["--model", f"{site.folder}/model", "--set", "server.bind=['tcp://127.0.0.1:*']"]
    secure = ["--set", f"security.allow={keys.allow}", "--set"]
    ends_with([arguments.inferd, *model, *secure, f"security.key={open_key}"], "lets others read or change it")
    asked = ["--endpoint", site.member.endpoint, "--server-key", site.server_of(site.member)]
    ends_with([arguments.inferctl, "status", *asked, "--key", open_key], "lets others read or change it", "chmod 0600")
    try:
        thorax_client.load_keys(open_key, site.server_of(site.member))
        raise AssertionError("a key that everybody can read was taken")
    except PermissionError as reason:
        assert "chmod 0600" in str(reason), reason
    loose = f"{site.folder}/loose"
    with open(loose, "wb") as file:
        file.write(read(keys.allow))
    os.chmod(loose, 0o666)
    ends_with(
        [arguments.inferd, *model, "--set", f"security.key={keys.key('member')}", "--set", f"security.allow={loose}"],
        "lets others change it",
    )


def clear_text_is_not_bound_to_the_network(site):
    command = [site.arguments.inferd, "--model", f"{site.folder}/model", "--set", "server.bind=['tcp://0.0.0.0:*']"]
    ends_with(command, "security.insecure")


def an_administrator_drains(site):
    for daemon in (site.router, site.member):
        code, out = site.inferctl("drain", daemon, "desk")
        assert code == 0 and "drained" in out, out
        daemon.wait()
    logs = site.member.log() + site.router.log()
    assert not any(secret in logs for secret in site.keys.secrets()), "a secret key is in a log"


def main():
    arguments = programs.parse_arguments(__doc__.splitlines()[0], load=("", "the program thorax_load"))
    with programs.temporary_folder() as folder:
        global diagnosis, thorax_client
        _, diagnosis, thorax_client = programs.import_messages(arguments.source, folder)
        site = Site(arguments, folder)
        try:
            for step in (
                allowed_clients_get_right_answers,
                wrong_keys_get_none,
                clear_text_gets_none_and_does_no_harm,
                only_an_administrator_drains,
                revocation_needs_no_restart,
                files_that_others_can_read_are_refused,
                clear_text_is_not_bound_to_the_network,
                an_administrator_drains,
            ):
                start = time.monotonic()
                step(site)
                print(f"{step.__name__}: {time.monotonic() - start:.1f} s")
        finally:
            for daemon in site.daemons:
                daemon.kill()


if __name__ == "__main__":
    sys.exit(main())
