#!/usr/bin/env python3
"""libthorax as users have it: installed, found by pkg-config, linked into the example of deploy/c; and under load from several
threads while members are killed: nothing is lost, and each answer is what the model that it names says."""
import os
import random
import re
import shutil
import subprocess
import sys
import time

import programs

PICTURES, THREADS, TIMEOUT_MS, TOLERANCE = 5, 4, 30000, 1e-5


def run(command, **options):
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{' '.join(command)}: {result.returncode}: {result.stdout}{result.stderr}"
    return result.stdout


class Pool:
    """Members with models of their own that differ, and what each model says of each picture."""

    def __init__(self, arguments, folder, count):
        self.arguments, self.folder, self.members, self.expected = arguments, folder, [], {}
        self.pictures = [self.write_picture(seed) for seed in range(PICTURES)]
        self.names = {programs.file_digest(path).hex(): path for path in self.pictures}
        self.models = []
        for seed in range(count):
            path = f"{folder}/model{seed}"
            run([arguments.make_model, path, f"model{seed}", str(seed + 1), "1.5"])
            self.models.append(path)
        for seed in range(count):
            self.members.append(self.start(seed))
        for seed, member in enumerate(self.members):
            member.wait_ready()
            self.ask_alone(member, programs.file_digest(self.models[seed]).hex())

    def write_picture(self, seed):
        path = f"{self.folder}/{seed}.png"
        with open(path, "wb") as file:
            file.write(programs.encode(programs.picture(seed)))
        return path

    def start(self, seed):
        command = [self.arguments.inferd, "--model", self.models[seed], "--set", "device.threads=1"]
        return programs.Member(self.folder, f"m{seed}", self.arguments.inferctl, command)

    def ask_alone(self, member, digest):
        """What this model says, from a member that is asked alone, for as long as it takes to ask about every picture."""
        while not all((digest, image) in self.expected for image in self.names):
            for line in run([self.arguments.load, member.endpoint, "1", "1", str(TIMEOUT_MS), *self.pictures]).splitlines():
                _, status, image, model, _, *probabilities = line.split()
                assert status == "OK" and model == digest, line
                self.expected[model, image] = [float(value) for value in probabilities]

    def fault(self, line):
        """What is wrong with a line of thorax_load; None where nothing is."""
        words = line.split()
        if words[1] != "OK":
            return f"no answer: {line}"
        image, model, probabilities = words[2], words[3], [float(value) for value in words[5:]]
        if self.names.get(image) != self.pictures[int(words[0])]:
            return "the answer is about another picture"
        wanted = self.expected.get((model, image))
        if not wanted or max(abs(a - b) for a, b in zip(wanted, probabilities)) > TOLERANCE:
            return f"the answer is not what its model says: {line}, not {wanted}"
        return None

    def clear(self):
        for member in self.members:
            member.kill()


def check_symbols(prefix, source):
    """The shared object shows the functions of thorax.h, all of them and nothing else."""
    library = os.path.realpath(f"{prefix}/lib/libthorax.so")
    shown = {line.split()[-1] for line in run(["nm", "-D", "--defined-only", library]).splitlines()}
    with open(f"{source}/inferd/client/thorax.h") as file:
        declared = set(re.findall(r"^[a-z].*?\b(thorax_\w+)\(", file.read(), re.M)) - {"thorax_done"}
    shown = {name for name in shown if not name.startswith(("__asan", "__odr", "__ubsan", "_init", "_fini"))}
    assert shown == declared, f"shown and not declared, or the other way: {shown ^ declared}"
    assert "SONAME" in run(["readelf", "-d", library]) and "libthorax.so.0" in run(["readelf", "-d", library])


def compile_example(arguments, folder, prefix, static):
    """The example, linked the way that pkg-config says; against the archive alone where static."""
    environment = dict(os.environ, PKG_CONFIG_PATH=f"{prefix}/lib/pkgconfig")
    flags = run(["pkg-config", "--cflags", *([] if static else ["--libs"]), "thorax"], env=environment).split()
    if static:  # of Thorax alone: Debian has no archive of all that ZeroMQ needs
        others = run(["pkg-config", "--libs", "libzmq", "libprotobuf-c", "libsodium", "libcrypto"]).split()
        flags += [f"{prefix}/lib/libthorax.a", *others, "-lm", "-pthread"]
    program = f"{folder}/diagnose{'-static' if static else ''}"
    sanitize = [f"-fsanitize={arguments.sanitize}"] if arguments.sanitize else []
    example = f"{arguments.source}/deploy/c/diagnose.c"
    run([arguments.compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", *sanitize, example, *flags, "-o", program])
    return program


def check_header(prefix, folder):
    """It stands alone, in C99 and in C++."""
    for compiler, standard, suffix in (("cc", "-std=c99", "c"), ("c++", "-std=c++11", "cc")):
        if shutil.which(compiler):
            path = f"{folder}/header.{suffix}"
            with open(path, "w") as file:
                file.write("#include <thorax.h>\nint main() { return thorax_version() == 0; }\n")
            run([compiler, standard, "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{prefix}/include", "-fsyntax-only", path])


def try_installed(pool, arguments, folder):
    prefix = f"{folder}/prefix"
    run(["cmake", "--install", arguments.build, "--prefix", prefix, "--component", "libthorax"])
    check_symbols(prefix, arguments.source)
    check_header(prefix, folder)
    endpoints = ",".join(member.endpoint for member in pool.members)
    for static in (False, True):
        program = compile_example(arguments, folder, prefix, static)
        out = run([program, endpoints, *pool.pictures], env=dict(os.environ, LD_LIBRARY_PATH=f"{prefix}/lib"))
        assert out.count("PNEUMONIA") == PICTURES and "no answer" not in out, out
    print("installed, found by pkg-config, linked both ways; the example answers")


def load_while_members_are_killed(pool, arguments, seed):
    endpoints = ",".join(member.endpoint for member in pool.members)
    command = [arguments.load, endpoints, str(THREADS), str(arguments.seconds), str(TIMEOUT_MS), *pool.pictures]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    chance, kills = random.Random(seed), 0
    until = time.monotonic() + arguments.seconds - 1
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.2, 0.6))
        victim = chance.randrange(len(pool.members))
        pool.members[victim].kill()
        kills += 1
        pool.members[victim] = pool.start(victim)
        pool.members[victim].wait_ready()
    lines = load.communicate(timeout=120)[0].splitlines()
    assert load.returncode == 0, f"thorax_load ended with {load.returncode}"
    faults = [fault for fault in map(pool.fault, lines) if fault]
    again = sum(line.split()[1] == "OK" and int(line.split()[4]) > 1 for line in lines)
    models = {line.split()[3] for line in lines if line.split()[1] == "OK"}
    print(f"seed {seed}: {len(lines)} asked, {kills} kills, {again} sent again, {len(faults)} lost or wrong")
    assert not faults, faults[:10]
    assert len(lines) > 20 and kills > 1 and len(models) == len(pool.members)


def several_endpoints_of_inferctl(pool, arguments):
    """A dead endpoint beside a live one: inferctl goes to the live one."""
    dead = f"ipc://{pool.folder}/nobody"
    command = [arguments.inferctl, "diagnose", "--endpoint", dead, "--endpoint", pool.members[0].endpoint, "--json"]
    assert run(command + pool.pictures).count('"decision"') == PICTURES


def main():
    arguments = programs.parse_arguments(
        __doc__.splitlines()[0],
        build=("", "the build folder"),
        load=("", "the program thorax_load"),
        compiler=("cc", "the C compiler"),
        sanitize=("", "sanitizers of the build"),
        seconds=(6, "of load"),
        seed=(1, "of what is killed when"),
    )
    with programs.temporary_folder() as folder:
        pool = Pool(arguments, folder, 3)
        try:
            try_installed(pool, arguments, folder)
            several_endpoints_of_inferctl(pool, arguments)
            load_while_members_are_killed(pool, arguments, arguments.seed)
        finally:
            pool.clear()


if __name__ == "__main__":
    sys.exit(main())
