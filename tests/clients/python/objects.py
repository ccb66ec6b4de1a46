"""One small object of every kind, as a user would write it, and a change to it. {ns} is the namespace of the run, {x} a name of the run."""

POD = {"containers": [{"name": "main", "image": "none", "ports": [{"containerPort": 80, "name": "web"}]}]}
TEMPLATE = {"metadata": {"labels": {"app": "x"}}, "spec": POD}
ALWAYS = {**TEMPLATE, "spec": {**POD, "restartPolicy": "Always"}}
NEVER = {**TEMPLATE, "spec": {**POD, "restartPolicy": "Never"}}
APP = {"matchLabels": {"app": "x"}}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
ROLE_REF = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
SUBJECTS = [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "ann"}]
RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]

# (apiVersion, kind, namespaced, body, merge patch beyond a label)
OBJECTS = [
    ("v1", "Namespace", False, {}, {}),
    ("v1", "ConfigMap", True, {"data": {"a": "1"}}, {"data": {"b": "2"}}),
    ("v1", "Secret", True, {"type": "Opaque", "stringData": {"a": "1"}}, {"data": {"b": "Mg=="}}),
    ("v1", "ServiceAccount", True, {}, {"automountServiceAccountToken": False}),
    ("v1", "Pod", True, {"spec": POD}, {"spec": {"activeDeadlineSeconds": 100}}),
    ("v1", "PodTemplate", True, {"template": TEMPLATE}, {}),
    ("v1", "Service", True, {"spec": {"selector": {"app": "x"}, "ports": [{"port": 80}]}}, {"spec": {"sessionAffinity": "ClientIP"}}),
    ("v1", "Endpoints", True, {"subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]}, {}),
    ("v1", "ReplicationController", True, {"spec": {"replicas": 0, "selector": {"app": "x"}, "template": ALWAYS}}, {"spec": {"minReadySeconds": 1}}),
    ("v1", "LimitRange", True, {"spec": {"limits": [{"type": "Container", "max": {"cpu": "64"}}]}}, {}),
    ("v1", "ResourceQuota", True, {"spec": {"hard": {"pods": "100"}}}, {"spec": {"hard": {"pods": "200"}}}),
    ("v1", "PersistentVolumeClaim", True, {"spec": CLAIM}, {}),
    ("v1", "PersistentVolume", False, {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp"}}}, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
    ("v1", "Node", False, {}, {"spec": {"unschedulable": True}}),
    ("v1", "Event", True, {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "{ns}"}, "reason": "Tested", "message": "m", "type": "Normal"}, {"count": 2}),
    ("apps/v1", "Deployment", True, {"spec": {"replicas": 0, "selector": APP, "template": ALWAYS}}, {"spec": {"minReadySeconds": 1}}),
    ("apps/v1", "ReplicaSet", True, {"spec": {"replicas": 0, "selector": APP, "template": ALWAYS}}, {"spec": {"minReadySeconds": 1}}),
    ("apps/v1", "StatefulSet", True, {"spec": {"replicas": 0, "serviceName": "x", "selector": APP, "template": ALWAYS}}, {"spec": {"minReadySeconds": 1}}),
    ("apps/v1", "DaemonSet", True, {"spec": {"selector": APP, "template": {**ALWAYS, "spec": {**POD, "nodeSelector": {"fits": "nowhere"}}}}}, {"spec": {"minReadySeconds": 1}}),
    ("apps/v1", "ControllerRevision", True, {"revision": 1, "data": {"a": 1}}, {"revision": 2}),
    ("batch/v1", "Job", True, {"spec": {"suspend": True, "template": NEVER}}, {"spec": {"backoffLimit": 1}}),
    ("batch/v1", "CronJob", True, {"spec": {"suspend": True, "schedule": "* * * * *", "jobTemplate": {"spec": {"template": NEVER}}}}, {"spec": {"schedule": "0 * * * *"}}),
    ("autoscaling/v2", "HorizontalPodAutoscaler", True, {"spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gone"}, "maxReplicas": 2}}, {"spec": {"maxReplicas": 3}}),
    ("policy/v1", "PodDisruptionBudget", True, {"spec": {"minAvailable": 1, "selector": APP}}, {"spec": {"minAvailable": 2}}),
    ("networking.k8s.io/v1", "Ingress", True, {"spec": {"defaultBackend": {"service": {"name": "x", "port": {"number": 80}}}}}, {}),
    ("networking.k8s.io/v1", "IngressClass", False, {"spec": {"controller": "example.com/x"}}, {}),
    ("networking.k8s.io/v1", "NetworkPolicy", True, {"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}, {}),
    ("discovery.k8s.io/v1", "EndpointSlice", True, {"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"port": 80, "name": "web"}]}, {}),
    ("coordination.k8s.io/v1", "Lease", True, {"spec": {"holderIdentity": "me"}}, {"spec": {"leaseDurationSeconds": 40}}),
    ("rbac.authorization.k8s.io/v1", "Role", True, {"rules": RULES}, {}),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", False, {"rules": RULES}, {}),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", True, {"roleRef": ROLE_REF, "subjects": SUBJECTS}, {}),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", False, {"roleRef": ROLE_REF, "subjects": SUBJECTS}, {}),
    ("scheduling.k8s.io/v1", "PriorityClass", False, {"value": 10}, {"description": "changed"}),
    ("node.k8s.io/v1", "RuntimeClass", False, {"handler": "mote"}, {}),
    ("storage.k8s.io/v1", "StorageClass", False, {"provisioner": "example.com/none"}, {}),
    ("certificates.k8s.io/v1", "CertificateSigningRequest", False, None, {}),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", False, None, {}),
]
