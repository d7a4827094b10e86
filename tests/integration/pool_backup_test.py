#!/usr/bin/env python3
"""A publisher's store is copied while it publishes, and restored: members serve on what they run, nothing is activated until somebody
has looked, and then all goes on."""
import json
import os
import shutil
import subprocess

import pool_programs
import programs


def backup(arguments, *words, check=True):
    result = subprocess.run([arguments.trainctl, *words], capture_output=True, text=True)
    assert not check or result.returncode == 0, result.stderr
    return result


def models(pool):
    return json.loads(pool.trainctl("models", "--json").stdout)


def run(pool, arguments, folder):
    paths = [f"{folder}/model{seed}" for seed in (1, 2, 3)]
    for seed, path in enumerate(paths, 1):
        subprocess.run([arguments.make_model, path, f"model{seed}", str(seed)], check=True)
    digests = [programs.file_digest(path) for path in paths]
    store, copy = f"{folder}/published", f"{folder}/backup"
    publisher = pool.start_publisher("publish.activate=auto")
    member = pool.start_member("member")
    pool.publish(paths[0])
    member.wait_ready(digests[0])
    print(backup(arguments, "backup", "--store", store, "--out", f"{copy}/").stdout.strip())
    pool.publish(paths[1])
    member.wait_ready(digests[1])
    again = backup(arguments, "backup", "--store", store, "--out", copy, check=False)
    assert again.returncode == 1 and "is there already" in again.stderr, again
    refused = backup(arguments, "restore", "--from", copy, "--store", store, check=False)
    assert refused.returncode == 1 and "is there already" in refused.stderr, refused
    publisher.process.kill()
    publisher.process.wait()
    shutil.move(store, f"{folder}/lost")

    damaged = f"{folder}/damaged"
    shutil.copytree(copy, damaged)
    name = digests[0].hex()
    with open(f"{damaged}/objects/{name[:2]}/{name[2:]}", "r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    refused = backup(arguments, "restore", "--from", damaged, "--store", store, check=False)
    assert refused.returncode == 1 and "damaged" in refused.stderr and not os.path.exists(store), refused
    print("a damaged backup is refused, and leaves nothing behind")

    backup(arguments, "restore", "--from", copy, "--store", store)
    publisher = pool.start_publisher()
    pool.trainctl_until("models", "--json", wanted=lambda result: '"member"' in result.stdout.split('"members"')[-1])
    listing = models(pool)
    assert "restored" in listing["held"], listing["held"]
    assert [row["name"] for row in listing["models"]] == ["model1"], listing["models"]
    member.wait_ready(digests[1])  # what it runs is newer than the backup, and it serves on
    refused = pool.trainctl("rollback", "model1:1", "--by", "Ann", check=False)
    assert refused.returncode == 1 and "resume" in refused.stderr, refused
    print("a restored publisher holds; the member serves on")

    pool.trainctl("rollout", "resume", "--by", "Ann")
    assert not models(pool)["held"]
    member.wait_ready(digests[0])  # the stable model of the backup
    pool.publish(paths[2])
    member.wait_ready(digests[2])
    print("when somebody has looked, all goes on")
    copied_back_by_hand(pool, member, publisher, folder, paths, digests)


def copied_back_by_hand(pool, member, publisher, folder, paths, digests):
    """Without trainctl restore the members notice that their publisher has gone back, and do not follow."""
    publisher.stop()
    shutil.copytree(f"{folder}/published", f"{folder}/by-hand")
    publisher = pool.start_publisher()
    pool.publish(paths[1])
    member.wait_ready(digests[1])
    publisher.stop()
    shutil.rmtree(f"{folder}/published")
    shutil.move(f"{folder}/by-hand", f"{folder}/published")
    publisher = pool.start_publisher()
    pool.trainctl_until("models", "--json", wanted=lambda result: "gone back" in result.stdout)
    rows = models(pool)["members"]
    assert rows[0]["state"] == "failed" and rows[0]["active_digest"] == digests[1].hex(), rows
    member.wait_ready(digests[1])
    print("a store that was copied back by hand is not followed; the member says so and serves on")
    member.stop()
    publisher.stop()


if __name__ == "__main__":
    pool_programs.run_test(__doc__, run)
