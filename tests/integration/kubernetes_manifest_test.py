#!/usr/bin/env python3
"""deploy/kubernetes/train.yaml: its objects fit each other, and trainerd takes the configuration in it.
Usage: kubernetes_manifest_test.py TRAINERD SOURCE [unittest's options]. Needs python3-yaml; exit code 77: it is not there."""
import os
import subprocess
import sys
import tempfile
import unittest

try:
    import yaml
except ImportError:
    print("skipped: python3-yaml is not installed")
    sys.exit(77)

TRAINERD, SOURCE = sys.argv[1:3]
del sys.argv[1:3]

# The fields that the manifest may use, as the Kubernetes API 1.31 names them; None: taken as it is.
CONTAINER = {"name": None, "image": None, "command": None, "args": None, "volumeMounts": [{"name": None, "mountPath": None, "readOnly": None}],
             "resources": {"requests": None, "limits": None}}
POD = {"subdomain": None, "restartPolicy": None, "terminationGracePeriodSeconds": None,
       "securityContext": {"runAsNonRoot": None, "runAsUser": None, "runAsGroup": None, "fsGroup": None},
       "initContainers": [CONTAINER], "containers": [CONTAINER],
       "volumes": [{"name": None, "configMap": {"name": None}, "secret": {"secretName": None, "defaultMode": None},
                    "emptyDir": {"medium": None, "sizeLimit": None}, "persistentVolumeClaim": {"claimName": None, "readOnly": None}}]}
RULE = {"action": None, "onPodConditions": [{"type": None, "status": None}],
        "onExitCodes": {"containerName": None, "operator": None, "values": None}}
JOB = {"completionMode": None, "completions": None, "parallelism": None, "backoffLimit": None, "podReplacementPolicy": None,
       "podFailurePolicy": {"rules": [RULE]}, "template": {"metadata": {"labels": None}, "spec": POD}}
SERVICE = {"clusterIP": None, "publishNotReadyAddresses": None, "selector": None, "ports": [{"name": None, "port": None}]}
PEER = {"podSelector": {"matchLabels": None}}
POLICY = {**PEER, "policyTypes": None, "ingress": [{"from": [PEER]}]}
OBJECT = {"apiVersion": None, "kind": None, "metadata": {"name": None}}
OBJECTS = {("v1", "ConfigMap"): {**OBJECT, "data": None}, ("v1", "Service"): {**OBJECT, "spec": SERVICE},
           ("networking.k8s.io/v1", "NetworkPolicy"): {**OBJECT, "spec": POLICY}, ("batch/v1", "Job"): {**OBJECT, "spec": JOB}}


def unknown(value, allowed, path):
    """Paths of fields that are not among those allowed."""
    if allowed is None:
        return []
    if isinstance(allowed, list):
        return [found for i, item in enumerate(value) for found in unknown(item, allowed[0], f"{path}[{i}]")]
    found = [f"{path}.{name}" for name in value if name not in allowed]
    return found + [more for name in value if name in allowed for more in unknown(value[name], allowed[name], f"{path}.{name}")]


class Manifest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(f"{SOURCE}/deploy/kubernetes/train.yaml") as file:
            cls.objects = list(yaml.safe_load_all(file))
        by_kind = {item["kind"]: item for item in cls.objects}
        cls.service, cls.job, cls.policy = (by_kind[kind] for kind in ("Service", "Job", "NetworkPolicy"))
        cls.pod = cls.job["spec"]["template"]["spec"]
        cls.trainerd = cls.pod["containers"][0]
        cls.text = by_kind["ConfigMap"]["data"]["trainerd.yaml"]
        cls.config = yaml.safe_load(cls.text)

    def test_all_fields_are_the_api_s(self):
        for item in self.objects:
            allowed = OBJECTS[item["apiVersion"], item["kind"]]
            self.assertEqual(unknown(item, allowed, item["kind"]), [])
        self.assertEqual(unknown({"spec": {"complitions": 1}}, {"spec": JOB}, "Job"), ["Job.spec.complitions"])

    def test_trainerd_takes_the_configuration_for_each_pod(self):
        with tempfile.TemporaryDirectory(prefix="thorax-kubernetes-") as folder:
            path = os.path.join(folder, "trainerd.yaml")
            with open(path, "w") as file:
                file.write(self.text)
            for node in range(self.job["spec"]["completions"]):
                command = [TRAINERD, "--config", path, "--check", "--set", f"cluster.node={node}"]
                done = subprocess.run(command, capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_there_are_as_many_pods_as_nodes_all_at_once(self):
        spec = self.job["spec"]
        self.assertEqual(spec["completionMode"], "Indexed")
        self.assertEqual([spec["completions"], spec["parallelism"]], [self.config["cluster"]["nodes"]] * 2)
        self.assertIn('cluster.node="$JOB_COMPLETION_INDEX"', self.trainerd["args"][0])

    def test_the_coordinator_is_the_pod_of_index_0_by_the_service_s_name(self):
        name, service = self.job["metadata"]["name"], self.service["metadata"]["name"]
        port = self.service["spec"]["ports"][0]["port"]
        self.assertEqual(self.config["cluster"]["coordinator"], f"{name}-0.{service}:{port}")
        self.assertEqual(self.pod["subdomain"], service)
        self.assertEqual(self.service["spec"]["clusterIP"], "None")
        self.assertTrue(self.service["spec"]["publishNotReadyAddresses"])
        of_the_job = {"batch.kubernetes.io/job-name": name}
        self.assertEqual(self.service["spec"]["selector"], of_the_job)
        self.assertEqual(self.policy["spec"]["podSelector"]["matchLabels"], of_the_job)
        self.assertEqual(self.policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"], of_the_job)

    def test_a_pod_has_time_to_write_a_checkpoint(self):
        self.assertGreater(self.pod["terminationGracePeriodSeconds"], self.config["cluster"]["grace_seconds"])

    def test_what_goes_on_elsewhere_is_no_failure(self):
        self.assertEqual(self.pod["restartPolicy"], "Never")  # a failure policy needs it
        self.assertEqual(self.job["spec"]["podReplacementPolicy"], "Failed")
        rules = self.job["spec"]["podFailurePolicy"]["rules"]
        ignored = [rule for rule in rules if rule["action"] == "Ignore"]
        self.assertIn([{"type": "DisruptionTarget", "status": "True"}], [rule.get("onPodConditions") for rule in ignored])
        codes = {code: rule["action"] for rule in rules for code in rule.get("onExitCodes", {}).get("values", [])}
        self.assertEqual(codes, {4: "Ignore", 2: "FailJob"})
        self.assertEqual({rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule}, {self.trainerd["name"]})

    def test_what_is_mounted_is_there_and_holds_what_the_configuration_names(self):
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        for container in [*self.pod["initContainers"], *self.pod["containers"]]:
            self.assertLessEqual({mount["name"] for mount in container["volumeMounts"]}, set(volumes))
        mounts = {mount["mountPath"]: mount for mount in self.trainerd["volumeMounts"]}
        config = self.config
        for path in (config["run"]["directory"], config["data"]["directory"], config["data"]["cache_dir"]):
            self.assertIn(path, mounts)
        self.assertEqual(os.path.dirname(config["cluster"]["secret"]), "/keys")
        copy = self.pod["initContainers"][0]["command"]
        self.assertEqual(copy[-1], config["cluster"]["secret"])
        self.assertEqual(copy[:3], ["install", "-m", "0600"])
        self.assertNotIn("emptyDir", volumes[mounts[config["run"]["directory"]]["name"]])  # outlives its pod


if __name__ == "__main__":
    unittest.main()
