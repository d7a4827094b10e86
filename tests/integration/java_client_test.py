#!/usr/bin/env python3
"""The Java client of deploy/java, compiled and run: against a member, through a router, with a dead endpoint before the living one,
and with a file that is no picture."""
import os
import re
import shutil
import subprocess
import sys

import programs

JARS = ("/usr/share/java/jeromq.jar", "/usr/share/java/protobuf.jar")


def endpoint_of(process):
    """The TCP endpoint that the daemon's log names."""
    return re.search(r"listening endpoint=(tcp://\S+)", process.log()).group(1)


def start_on_tcp(arguments, folder, name, command):
    """A daemon on a free port, since JeroMQ knows no Unix sockets, and on a socket file."""
    command = [arguments.inferd, *command, "--set", f"member={name}"]
    unix = f"ipc://{folder}/{name}.sock"
    process = programs.Member.__new__(programs.Member)
    process.endpoint, process.inferctl = unix, arguments.inferctl
    programs.Process.__init__(process, folder, name, command + ["--set", f"server.bind=['tcp://127.0.0.1:*', '{unix}']"])
    process.wait_ready()
    return process


def run_client(folder, endpoints, *files):
    command = ["java", "-Xshare:auto", "-cp", ":".join((f"{folder}/java/classes", *JARS)), "ThoraxClient", ",".join(endpoints), *files]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def main():
    arguments = programs.parse_arguments(__doc__.splitlines()[0])
    missing = [name for name in ("java", "javac", "protoc") if not shutil.which(name)] + [jar for jar in JARS if not os.path.exists(jar)]
    if missing:
        print(f"skipped: there is no {', '.join(missing)}")
        return 77
    with programs.temporary_folder() as folder:
        daemons = []
        try:
            subprocess.run([f"{arguments.source}/deploy/java/build", f"{folder}/java"], check=True, capture_output=True)
            model, good, bad = f"{folder}/model", f"{folder}/good.png", f"{folder}/bad.png"
            subprocess.run([arguments.make_model, model, "chest", "3"], check=True)
            with open(good, "wb") as file:
                file.write(programs.encode(programs.picture(1)))
            with open(bad, "wb") as file:
                file.write(b"GIF89a")
            daemons.append(start_on_tcp(arguments, folder, "member", ["--model", model]))
            member = endpoint_of(daemons[0])
            route = ["--role", "router", "--set", f"router.members=['{daemons[0].endpoint}']"]
            daemons.append(start_on_tcp(arguments, folder, "router", route))
            for endpoints in ([member], [endpoint_of(daemons[1])], ["tcp://127.0.0.1:1", member]):
                result = run_client(folder, endpoints, good)
                assert result.returncode == 0 and "(chest 1)" in result.stdout, result.stdout + result.stderr
            result = run_client(folder, [member], bad)
            assert result.returncode == 1 and "STATUS_UNSUPPORTED_MEDIA" in result.stdout, result.stdout + result.stderr
        finally:
            for daemon in daemons:
                daemon.kill()
    print("the Java client is answered by a member and through a router")
    return 0


if __name__ == "__main__":
    sys.exit(main())
