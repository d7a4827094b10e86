"""Hosts on one machine: network namespaces with addresses of their own, joined by a bridge, whose cables can be cut.

To be imported before anything that makes files: it runs the program again, alone in namespaces of processes, mounts and network, which take with
them whatever the program leaves, however it ends. Takes root, or user namespaces that anybody may make."""
import os
import shutil
import subprocess
import sys

INSIDE = "THORAX_CLUSTER_LAB"
UNSHARE = ["unshare", "--net", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
OUTER_NAMESPACE = "/proc/self/ns/net"


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)  # ctest's SKIP_RETURN_CODE


def enter():
    """Runs the program again in the lab, or skips it with a word that says what is missing."""
    missing = [tool for tool in ("unshare", "nsenter", "setpriv", "mount", "ip") if not shutil.which(tool)]
    if missing:
        skip(f"no {', '.join(missing)}: the packages util-linux, mount and iproute2 have them")
    command = UNSHARE if os.geteuid() == 0 else [UNSHARE[0], "--user", "--map-root-user", *UNSHARE[1:]]
    tried = subprocess.run([*command, "ip", "link", "add", "name", "lan", "type", "bridge"], capture_output=True, text=True)
    if tried.returncode != 0:
        skip(f"no network of our own, which takes root or user namespaces: {tried.stderr.strip()}")
    os.environ[INSIDE] = os.readlink(OUTER_NAMESPACE)
    sys.stdout.flush()
    os.execvp(command[0], [*command, sys.executable, "-B", *sys.argv])


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def furnish():
    """Once inside: shared memory that nobody else uses, and the bridge."""
    subprocess.run(["mount", "-t", "tmpfs", "lab", "/dev/shm"], check=True)
    ip("link", "set", "lo", "up")
    ip("link", "add", "name", "lan", "type", "bridge")
    ip("link", "set", "lan", "up")


if os.environ.get(INSIDE, "") in ("", os.readlink(OUTER_NAMESPACE)):
    enter()
furnish()


class Host:
    """A machine with a name, an address, and a cable to the others."""

    def __init__(self, index):
        self.index, self.name, self.address = index, f"host-{index}", f"10.77.0.{index + 1}"
        self.cable = f"port-{index}"
        # What holds the namespaces ends when this program does, as its input ends then.
        self.holder = subprocess.Popen(["unshare", "--net", "--uts", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.holder.stdin.write(b"there\n")
        self.holder.stdin.flush()
        self.holder.stdout.readline()  # now it is
        pid = str(self.holder.pid)
        self.prefix = ["setpriv", "--pdeathsig", "KILL", "nsenter", "--net", "--uts", "--target", pid]
        ip("link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", pid)
        self.mend()
        for command in ("hostname " + self.name, "ip link set lo up", f"ip address add {self.address}/24 dev eth0", "ip link set eth0 up"):
            subprocess.run([*self.prefix, *command.split()], check=True)

    def cut(self):
        """From now on packets vanish: nobody is told."""
        ip("link", "set", self.cable, "nomaster", "up")

    def mend(self):
        ip("link", "set", self.cable, "master", "lan", "up")


def strangers(hosts):
    """Command lines of all processes of the lab but this one and its hosts'."""
    known, found = {os.getpid(), *(host.holder.pid for host in hosts)}, {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                command = file.read().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if pid not in known and command:  # a zombie has none
            found[pid] = command
    return found
