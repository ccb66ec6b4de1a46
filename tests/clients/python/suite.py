#!/usr/bin/env python3
"""suite.py KUBECONFIG [KIND...]: the Python client (package `kubernetes`), unchanged, against an API server.

Every kind is made, read, listed, watched, patched in three ways, replaced and deleted twice over: through the client's generated classes (which parse
every answer into typed models) and through its dynamic client (which lives on discovery). Ends with 1 and a list of what went wrong.
"""
import base64, copy, inspect, itertools, os, re, subprocess, sys, tempfile, threading, traceback

import kubernetes
from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException

from objects import OBJECTS

WAIT_S = 20
NS = f"py-{os.getpid()}"
wrong = []


def snake(kind):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()


def filled(value):
    if isinstance(value, dict):
        return {k: filled(v) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v) for v in value]
    return value.replace("{ns}", NS) if isinstance(value, str) else value


def signing_request():
    with tempfile.TemporaryDirectory() as folder:
        command = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", folder + "/key", "-subj", "/CN=py"]
        request = subprocess.run(command, check=True, capture_output=True).stdout
    return {"spec": {"request": base64.b64encode(request).decode(), "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}}


def definition(name):
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "test.mote.dev", "scope": "Namespaced", "names": {"plural": name, "singular": name[:-1], "kind": name[:-1].capitalize()}, "versions": [version]}
    return {"metadata": {"name": f"{name}.test.mote.dev"}, "spec": spec}


def manifest(row, way):
    version, kind, namespaced, body, _ = row
    name = f"{NS}-{way}"
    if kind == "CertificateSigningRequest":
        body = signing_request()
    if kind == "CustomResourceDefinition":
        body = definition(f"py{os.getpid()}{way}s")
        name = body["metadata"]["name"]
    out = {"apiVersion": version, "kind": kind, **filled(copy.deepcopy(body))}
    out["metadata"] = {"name": name, "labels": {"way": way, "app": "x"}}
    if namespaced:
        out["metadata"]["namespace"] = NS
    return out


def check(what, holds, more=""):
    if not holds:
        raise AssertionError(f"{what} {more}")


class Typed:
    """One kind through the generated classes: `CoreV1Api.create_namespaced_pod` and its like."""

    def __init__(self, row):
        version, kind, self.namespaced, _, _ = row
        group, _, number = version.rpartition("/")
        group = "".join(w.capitalize() for w in re.sub(r"\.k8s\.io$", "", group or "core").split("."))
        number = number.capitalize()
        if not hasattr(client, f"{group}{number}Api"):
            raise LookupError(f"this release of the client has no {group}{number}Api")
        self.api = getattr(client, f"{group}{number}Api")()
        self.kind = snake(kind)

    def call(self, verb, *arguments, **more):
        scope = "namespaced_" if self.namespaced else ""
        method = getattr(self.api, f"{verb}_{scope}{self.kind}", None)
        if method is None:
            raise LookupError(f"no {verb} of {self.kind}")
        return method(*arguments, **more)

    def place(self, name):
        return (name, NS) if self.namespaced else (name,)

    def create(self, body): return self.call("create", *([NS] if self.namespaced else []), body)
    def get(self, name): return self.call("read", *self.place(name))
    def patch(self, name, body, how): return self.call("patch", *self.place(name), body, _content_type=how) if typed_patch_type() else self.call("patch", *self.place(name), body)
    def replace(self, name, body): return self.call("replace", *self.place(name), body)
    def delete(self, name): return self.call("delete", *self.place(name))
    def list(self, **more): return self.call("list", *([NS] if self.namespaced else []), **more)
    def delete_all(self, **more): return self.call("delete_collection", *([NS] if self.namespaced else []), **more)
    def everywhere(self): return getattr(self.api, f"list_{self.kind}_for_all_namespaces")()
    def function(self): return getattr(self.api, f"list_{'namespaced_' if self.namespaced else ''}{self.kind}")

    def watch(self, **more):
        return watch.Watch().stream(self.function(), *([NS] if self.namespaced else []), timeout_seconds=WAIT_S, **more)


def typed_patch_type():
    """Newer releases let the caller choose the patch's content type; older ones guess."""
    return "_content_type" in inspect.signature(client.CoreV1Api.patch_namespaced_config_map).parameters


def events_until_gone(stream, name, out, failures):
    try:
        for event in stream:
            found = event["object"]
            meta = found.metadata
            if meta.name == name:
                out.append((event["type"], meta.resource_version if hasattr(meta, "resource_version") else meta.resourceVersion))
                if event["type"] == "DELETED":
                    return
    except Exception as e:
        failures.append(e)


def typed(row):
    kind, body = Typed(row), manifest(row, "typed")
    name = body["metadata"]["name"]
    version = kind.list(limit=1).metadata.resource_version
    seen, failures = [], []
    watcher = threading.Thread(target=events_until_gone, args=(kind.watch(resource_version=version), name, seen, failures), daemon=True)
    watcher.start()
    made = kind.create(body)
    check("created object", made.metadata.name == name and made.metadata.uid and made.metadata.creation_timestamp)
    try:
        kind.create(body)
        check("a second create", False, "went well")
    except ApiException as e:
        check("a second create", e.status == 409, e.status)
    check("read object", kind.get(name).metadata.uid == made.metadata.uid)
    label = {"metadata": {"labels": {"merged": "yes"}}, **copy.deepcopy(row[4])}
    patched = kind.patch(name, label, "application/merge-patch+json")
    check("merge patch", patched.metadata.labels["merged"] == "yes" and patched.metadata.labels["way"] == "typed")
    patched = kind.patch(name, {"metadata": {"annotations": {"strategic": "yes"}}}, "application/strategic-merge-patch+json")
    check("strategic patch", patched.metadata.annotations["strategic"] == "yes")
    patched = kind.patch(name, [{"op": "add", "path": "/metadata/labels/json", "value": "yes"}], "application/json-patch+json")
    check("json patch", patched.metadata.labels["json"] == "yes")
    for _ in range(20):
        # The models parse and print everything: what comes back must be taken. Controllers write too: try again on conflicts.
        current = kind.get(name)
        current.metadata.labels["replaced"] = "yes"
        try:
            check("replace", kind.replace(name, current).metadata.labels["replaced"] == "yes")
            break
        except ApiException as e:
            if e.status != 409:
                raise
    else:
        check("replace", False, "conflicts twenty times")
    check("list by label", name in [o.metadata.name for o in kind.list(label_selector="way=typed,merged=yes,replaced").items])
    check("list by field", [o.metadata.name for o in kind.list(field_selector=f"metadata.name={name}").items] == [name])
    if row[2]:
        check("list everywhere", name in [o.metadata.name for o in kind.everywhere().items])
    kind.delete(name)
    watcher.join(WAIT_S + 5)
    check("watch", not failures and not watcher.is_alive(), f"{failures} {seen}")
    types = [t for t, _ in seen]
    check("events", types[0] == "ADDED" and types[-1] == "DELETED" and types.count("MODIFIED") >= 4, types)
    versions = [int(v) for _, v in seen]
    check("revisions grow", versions == sorted(versions), versions)


def dynamically(row, discovered):
    version, kind, namespaced, _, patch = row
    resource = discovered.resources.get(api_version=version, kind=kind)
    check("scope", resource.namespaced == namespaced)
    place = {"namespace": NS} if namespaced else {}
    bodies = [manifest(row, way) for way in ("dyn", "more")]
    for body in bodies:
        made = resource.create(body=body, **place)
        check("created object", made.metadata.uid)
    name = bodies[0]["metadata"]["name"]
    label = {"metadata": {"labels": {"merged": "yes"}}, **copy.deepcopy(patch)}
    resource.patch(name=name, body=label, content_type="application/merge-patch+json", **place)
    applied = {**manifest(row, "dyn"), "metadata": {**bodies[0]["metadata"], "annotations": {"applied": "yes"}}}
    if kind == "CertificateSigningRequest":
        applied.pop("spec")
    if kind == "Secret":
        applied["data"] = {"a": "MQ=="}
        applied.pop("stringData")
    # Releases before 24 cannot send what they offer.
    if int(kubernetes.__version__.split(".")[0]) >= 24:
        done = resource.server_side_apply(body=applied, name=name, field_manager="suite", force_conflicts=True, **place)
        check("applied", done.metadata.annotations["applied"] == "yes" and done.metadata.labels["merged"] == "yes")
    listed = resource.get(label_selector="merged=yes", **place)
    check("list", name in [o.metadata.name for o in listed.items])
    first = resource.get(limit=1, label_selector="app=x", **place)
    check("page", len(first.items) == 1 and first.metadata["continue"])
    rest = resource.get(limit=500, label_selector="app=x", _continue=first.metadata["continue"], **place)
    check("next page", not {o.metadata.name for o in first.items} & {o.metadata.name for o in rest.items} and rest.items)
    seen = [e["type"] for e in itertools.islice(resource.watch(timeout=WAIT_S, **place), 2)]
    check("watch from now", seen == ["ADDED", "ADDED"], seen)
    dry = resource.delete(name=name, query_params=[("dryRun", "All")], **place)
    check("dry run", resource.get(name=name, **place).metadata.name == name, dry)
    resource.delete(label_selector="app=x", **place) if kind != "Namespace" else [resource.delete(name=b["metadata"]["name"]) for b in bodies]
    if kind in ("Namespace", "CustomResourceDefinition", "PersistentVolumeClaim", "PersistentVolume", "Pod"):
        return  # end a moment later
    left = [o.metadata.name for o in resource.get(label_selector="app=x", **place).items]
    check("deletecollection", not left, left)


def beyond(core, discovered):
    """What is not CRUD: subresources, reviews, tokens, the server's own pages."""
    check("version", client.VersionApi().get_code().major == "1")
    check("groups", {g.name for g in client.ApisApi().get_api_versions().groups} >= {"apps", "batch", "rbac.authorization.k8s.io"})
    check("core resources", "pods" in {r.name for r in core.get_api_resources().resources})
    apps = client.AppsV1Api()
    body = manifest(next(o for o in OBJECTS if o[1] == "Deployment"), "scale")
    apps.create_namespaced_deployment(NS, body)
    name = body["metadata"]["name"]
    scaled = apps.patch_namespaced_deployment_scale(name, NS, {"spec": {"replicas": 2}})
    check("scale", scaled.spec.replicas == 2 and apps.read_namespaced_deployment(name, NS).spec.replicas == 2)
    status = apps.patch_namespaced_deployment_status(name, NS, {"status": {"replicas": 7}})
    check("status", status.status.replicas is not None)
    apps.delete_namespaced_deployment(name, NS, propagation_policy="Foreground")
    token = client.AuthenticationV1TokenRequest if hasattr(client, "AuthenticationV1TokenRequest") else client.V1TokenRequest
    request = token(spec=client.V1TokenRequestSpec(audiences=["x"], expiration_seconds=700))
    answer = core.create_namespaced_service_account_token("default", NS, request)
    review = client.V1TokenReview(spec=client.V1TokenReviewSpec(token=answer.status.token, audiences=["x"]))
    check("token review", client.AuthenticationV1Api().create_token_review(review).status.user.username == f"system:serviceaccount:{NS}:default")
    ask = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=client.V1ResourceAttributes(verb="list", resource="pods")))
    check("access review", client.AuthorizationV1Api().create_self_subject_access_review(ask).status.allowed)
    try:
        core.create_namespaced_pod(NS, {"metadata": {"name": "Bad_Name"}, "spec": {"containers": []}})
        check("a bad pod", False, "went well")
    except ApiException as e:
        check("a bad pod", e.status == 422 and '"causes"' in e.body, e.body)
    pod = manifest(next(o for o in OBJECTS if o[1] == "Pod"), "evict")
    core.create_namespaced_pod(NS, pod)
    name = pod["metadata"]["name"]
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name=name, namespace=NS)) if hasattr(client, "V1Eviction") else None
    if eviction:
        core.create_namespaced_pod_eviction(name, NS, eviction)
    else:
        core.delete_namespaced_pod(name, NS)
    # Custom resources, once their definition is in force.
    crds, definitions = client.CustomObjectsApi(), client.ApiextensionsV1Api()
    body = definition(f"py{os.getpid()}widgets")
    definitions.create_custom_resource_definition(body)
    group, plural = "test.mote.dev", body["spec"]["names"]["plural"]
    for event in watch.Watch().stream(definitions.list_custom_resource_definition, field_selector=f"metadata.name={body['metadata']['name']}", timeout_seconds=WAIT_S):
        if any(c.type == "Established" and c.status == "True" for c in (event["object"].status.conditions if event["object"].status else None) or []):
            break
    else:
        check("the definition", False, "was not established")
    widget = {"apiVersion": f"{group}/v1", "kind": body["spec"]["names"]["kind"], "metadata": {"name": "w"}, "spec": {"size": 1}}
    crds.create_namespaced_custom_object(group, "v1", NS, plural, widget)
    changed = crds.patch_namespaced_custom_object(group, "v1", NS, plural, "w", {"spec": {"size": 2}})
    check("custom object", changed["spec"]["size"] == 2)
    try:
        crds.patch_namespaced_custom_object(group, "v1", NS, plural, "w", {"spec": {"size": 0}})
        check("a bad custom object", False, "went well")
    except ApiException as e:
        check("a bad custom object", e.status == 422, e.status)
    check("custom list", len(crds.list_namespaced_custom_object(group, "v1", NS, plural)["items"]) == 1)
    definitions.delete_custom_resource_definition(body["metadata"]["name"])
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: from-file, namespace: {NS}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: from-file, namespace: {NS}}}\nspec: {{ports: [{{port: 1}}]}}\n")
        file.flush()
        from kubernetes import utils
        utils.create_from_yaml(client.ApiClient(), file.name)
    check("create_from_yaml", core.read_namespaced_service("from-file", NS).spec.cluster_ip)
    latest = core.list_namespaced_config_map(NS).metadata.resource_version
    check("latest", int(latest) > 0)


def attempt(what, function, *arguments):
    try:
        function(*arguments)
    except LookupError as e:
        print(f"  {what}: left out: {e}")
    except ApiException as e:
        wrong.append(what)
        print(f"  {what}: WRONG: {e.status} {e.reason} {e.body}\n{''.join(traceback.format_tb(e.__traceback__)[1:2])}")
    except Exception as e:
        wrong.append(what)
        print(f"  {what}: WRONG: {type(e).__name__}: {e}\n{''.join(traceback.format_tb(e.__traceback__)[-2:])}")


def main():
    config.load_kube_config(sys.argv[1])
    print(f"the Python client {kubernetes.__version__}")
    core = client.CoreV1Api()
    core.create_namespace({"metadata": {"name": NS}})
    try:
        cache = tempfile.mktemp(prefix="discovery-")
        discovered = dynamic.DynamicClient(client.ApiClient(), cache_file=cache)
        for row in [o for o in OBJECTS if not sys.argv[2:] or o[1] in sys.argv[2:]]:
            attempt(f"{row[1]} typed", typed, row)
            attempt(f"{row[1]} dynamic", dynamically, row, discovered)
        sys.argv[2:] or attempt("beyond CRUD", beyond, core, discovered)
        if os.path.exists(cache):
            os.remove(cache)
    finally:
        core.delete_namespace(NS)
    print(f"{len(OBJECTS)} kinds, {len(wrong)} wrong{': ' + ', '.join(wrong) if wrong else ''}")
    sys.exit(1 if wrong else 0)


main()
