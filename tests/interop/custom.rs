//! Custom resources and `explain`, as kubectl 1.20, 1.32 and 1.36 meet them.

use crate::harness::kubectl::RELEASES;
use crate::harness::{Kubectl, Node, eventually, until};

/// In the shape of the well-known sample and of cert-manager's Certificate.
const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: certificates.certs.example.com}
spec:
  group: certs.example.com
  scope: Namespaced
  names: {plural: certificates, singular: certificate, kind: Certificate, shortNames: [cert], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.copies, statusReplicasPath: .status.copies}}
    additionalPrinterColumns:
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
    - {name: Secret, type: string, jsonPath: .spec.secretName}
    - {name: Issuer, type: string, jsonPath: .spec.issuerRef.name, priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What is wanted.
            required: [secretName, issuerRef]
            properties:
              secretName: {type: string, description: Where it is kept.}
              dnsNames: {type: array, x-kubernetes-list-type: set, items: {type: string}}
              duration: {type: string, default: 2160h}
              usage: {type: string, enum: [server, client], default: server}
              copies: {type: integer, minimum: 0, default: 1}
              issuerRef:
                type: object
                required: [name]
                properties: {name: {type: string}, kind: {type: string, default: Issuer}}
          status:
            type: object
            properties:
              copies: {type: integer}
              conditions:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [type]
                items: {type: object, required: [type], properties: {type: {type: string}, status: {type: string}}}
"#;
const CERTIFICATE: &str = "apiVersion: certs.example.com/v1\nkind: Certificate\nmetadata: {name: web, labels: {a: b}}\nspec: {secretName: web-tls, dnsNames: [a.example.com], issuerRef: {name: ca}}\n";

#[test]
fn custom_resources_come_live_and_go() {
    let node = Node::up();
    for release in RELEASES {
        let kubectl = Kubectl::new(release, &node.kubeconfig(), node.dir.path());
        eprintln!("kubectl {release}");
        kubectl.apply(DEFINITION);
        kubectl.ok(&["wait", "--for=condition=Established", "crd/certificates.certs.example.com", "--timeout=20s"]);
        assert!(kubectl.ok(&["api-resources"]).contains("certs.example.com"));
        live(&node, &kubectl, release);
        kubectl.ok(&["delete", "crd", "certificates.certs.example.com"]);
        assert!(!kubectl.answer(&["get", "--raw", "/apis/certs.example.com/v1"], "").ok);
    }
}

fn live(node: &Node, kubectl: &Kubectl, release: &str) {
    let watch = kubectl.start(&["get", "cert", "-w"], &node.dir.path().join(format!("certs-{release}")));
    assert!(kubectl.apply(CERTIFICATE).contains("created"));
    assert!(kubectl.apply(CERTIFICATE).contains("unchanged"));
    let table = kubectl.ok(&["get", "cert"]);
    let head: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(head, ["NAME", "READY", "SECRET", "AGE"]);
    assert!(kubectl.ok(&["get", "cert", "-o", "wide"]).contains("ISSUER"));
    assert_eq!(
        kubectl.ok(&["get", "cert", "web", "-o", "jsonpath={.spec.usage} {.spec.issuerRef.kind}"]),
        "server Issuer"
    );
    let wrong = kubectl.fails(&["apply", "-f", "-"], &CERTIFICATE.replace("spec: {", "spec: {usage: both, "));
    assert!(
        wrong.contains("spec.usage: Unsupported value: \"both\": supported values: \"server\", \"client\""),
        "{wrong}"
    );
    assert!(!kubectl.answer(&["create", "-f", "-"], &CERTIFICATE.replace("secretName", "secretname")).ok);
    kubectl.ok(&["patch", "cert", "web", "--type=merge", "-p", "{\"spec\":{\"usage\":\"client\"}}"]);
    kubectl.ok(&["scale", "cert/web", "--replicas=3"]);
    assert_eq!(kubectl.ok(&["get", "cert", "web", "-o", "jsonpath={.spec.usage} {.spec.copies}"]), "client 3");
    kubectl.ok(&["label", "cert", "web", "x=y"]);
    assert!(kubectl.ok(&["get", "cert", "-l", "x=y", "-o", "name"]).contains("/web"));
    assert!(kubectl.ok(&["get", "all"]).contains("certificate.certs.example.com/web"));
    until("the watch shows it", 10, || watch.so_far().contains("web-tls").then_some(()));
    let explained = kubectl.ok(&["explain", "certificates.spec"]);
    assert!(
        explained.contains("What is wanted.") && explained.contains("dnsNames") && explained.contains("-required-"),
        "{explained}"
    );
    assert!(kubectl.ok(&["explain", "certificates", "--recursive"]).contains("issuerRef"));
    applied(kubectl);
    kubectl.ok(&["delete", "cert", "web"]);
    let gone = eventually(10, || kubectl.object("cert", "web").is_none().then_some(()));
    assert!(gone.is_some());
}

fn applied(kubectl: &Kubectl) {
    let says = |who: &str, spec: &str| {
        let text = format!(
            "apiVersion: certs.example.com/v1\nkind: Certificate\nmetadata: {{name: both}}\nspec: {{{spec}}}\n"
        );
        kubectl.answer(&["apply", "--server-side", "--validate=false", "--field-manager", who, "-f", "-"], &text)
    };
    assert!(says("one", "secretName: s, issuerRef: {name: ca}, dnsNames: [a]").ok);
    let refused = says("two", "secretName: t");
    assert!(refused.stderr.contains(".spec.secretName"), "{}", refused.stderr);
    assert!(says("two", "dnsNames: [b]").ok);
    assert_eq!(kubectl.ok(&["get", "cert", "both", "-o", "jsonpath={.spec.dnsNames[*]}"]), "a b");
    kubectl.ok(&["delete", "cert", "both"]);
}

#[test]
fn explain_shows_the_fields_of_built_in_kinds() {
    let node = Node::up();
    for release in RELEASES {
        let kubectl = Kubectl::new(release, &node.kubeconfig(), node.dir.path());
        let containers = kubectl.ok(&["explain", "pod.spec.containers"]);
        for field in ["image", "livenessProbe", "env", "-required-"] {
            assert!(containers.contains(field), "kubectl {release}: no {field} in {containers}");
        }
        let all = kubectl.ok(&["explain", "deployment", "--recursive"]);
        assert!(all.contains("maxSurge") && all.contains("volumeMounts"), "kubectl {release}: {all}");
        assert!(kubectl.ok(&["explain", "pod.spec.containers.resources"]).contains("map[string]"));
    }
}
