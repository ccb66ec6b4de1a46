//! Every verb of kubectl as a table: what is typed, and what must be said. Of three releases.

use crate::harness::{Kubectl, eventually};
use crate::kubectl::each_release;

/// What `< NAME` gives a command on its standard input.
const INPUTS: &[(&str, &str)] = &[
    (
        "maps",
        "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m1, labels: {set: a, nr: '1'}}, data: {a: '1'}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m2, labels: {set: a, nr: '2'}}, data: {a: '2'}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m3, labels: {set: a, nr: '3'}}, data: {a: '3'}}\n",
    ),
    (
        "map",
        "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m1, labels: {set: a, nr: '1'}}, data: {a: '1'}}\n",
    ),
    ("other", "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m1}, data: {a: 'other'}}\n"),
    (
        "apps",
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: ds}\nspec:\n  selector: {matchLabels: {app: ds}}\n  template:\n    metadata: {labels: {app: ds}}\n    spec: {nodeSelector: {fits: nowhere}, containers: [{name: main, image: one}]}\n---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: ss}\nspec:\n  serviceName: ss\n  replicas: 0\n  selector: {matchLabels: {app: ss}}\n  template:\n    metadata: {labels: {app: ss}}\n    spec: {containers: [{name: main, image: one}]}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  replicas: 0\n  selector: {matchLabels: {app: d}}\n  template:\n    metadata: {labels: {app: d}}\n    spec: {containers: [{name: main, image: one}]}\n",
    ),
    (
        "role",
        "---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: rr, namespace: verbs}, rules: [{apiGroups: [''], resources: [pods], verbs: [list]}]}\n---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: rr, namespace: verbs}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: rr}, subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: ann}]}\n",
    ),
    (
        "more",
        "---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: rr, namespace: verbs}, rules: [{apiGroups: [''], resources: [pods], verbs: [list, get]}]}\n",
    ),
];

/// `!`: must fail. `~`: comes true after a while. `< NAME`: see [`INPUTS`]. `=> TEXT`: is said. `@ RELEASES`: only these (what the others do not have
/// themselves, or what they ask of versions that upstream ended before its 1.26: `batch/v1beta1`, `policy/v1beta1`).
const TABLE: &str = r#"
apply -f - < maps => configmap/m3 created
apply -f - < maps => unchanged
!apply --server-side --field-manager=x -f - < other => conflict
apply --server-side --field-manager=x --force-conflicts -f - < other => serverside-applied
!diff -f - < map => +  a: "1"
get cm -l set=a => m1
get cm -l 'nr in (2,9)' -o name => m2
get cm -l set=a -o jsonpath={.items[*].metadata.name} => m1 m2 m3
get cm -l set=a -o 'go-template={{range .items}}{{.metadata.name}},{{end}}' => m1,m2,m3,
get cm -o custom-columns=NAME:.metadata.name,A:.data.a => other
get cm -l set=a --sort-by=.data.a => m3
get cm --field-selector metadata.name=m2 -o yaml => name: m2
get cm --chunk-size=1 => m3
label cm --all x=y => labeled
annotate cm --all x=y => annotated
!label cm --all x=z => already has a value
label cm -l set=a x=z --overwrite => labeled
label cm --all x- => m2
replace -f - < map => replaced
apply -f - < maps => configured
apply --prune -l set=a -f - < map => pruned @ 1.32 1.36
apply --prune -l set=a --prune-whitelist=core/v1/ConfigMap -f - < map => pruned @ 1.20
!get cm m3 => not found
replace --force -f - < map => replaced
delete cm -l set=a => deleted
apply -f - < apps => deployment.apps/d created
~rollout history daemonset/ds => 1
~rollout history statefulset/ss => 1
~rollout history deployment/d => 1
set image daemonset/ds statefulset/ss deployment/d main=two => image updated
~rollout history daemonset/ds => 2
~rollout history statefulset/ss => 2
~rollout history deployment/d => 2
rollout history daemonset/ds --revision=1 => one
rollout history statefulset/ss --revision=1 => one
rollout history deployment/d --revision=1 => one
rollout undo daemonset/ds => rolled back
rollout undo statefulset/ss => rolled back
rollout undo deployment/d => rolled back
get daemonset ds -o jsonpath={.spec.template.spec.containers[0].image} => one
get statefulset ss -o jsonpath={.spec.template.spec.containers[0].image} => one
get deployment d -o jsonpath={.spec.template.spec.containers[0].image} => one
~rollout history daemonset/ds => 3
~rollout history statefulset/ss => 3
rollout undo daemonset/ds --to-revision=2 => rolled back
get daemonset ds -o jsonpath={.spec.template.spec.containers[0].image} => two
rollout restart daemonset/ds statefulset/ss deployment/d => restarted
rollout status daemonset/ds --timeout=20s => successfully rolled out
rollout status statefulset/ss --timeout=20s => complete
set resources deployment/d --limits=cpu=200m,memory=64Mi => resource requirements updated
set env deployment/d A=b => env updated
set env deployment/d --list => A=b
set serviceaccount deployment/d default => updated
patch deployment d -p '{"spec":{"paused":true}}' => patched
patch deployment d --type=merge -p '{"spec":{"paused":null}}' => patched
patch deployment d --type=json -p '[{"op":"add","path":"/spec/minReadySeconds","value":1}]' => patched
patch deployment d --subresource=status --type=merge -p '{"status":{"collisionCount":3}}' => patched @ 1.32 1.36
scale deployment/d statefulset/ss --replicas=0 => scaled
expose deployment/d --port=80 => exposed
autoscale deployment d --min=1 --max=3 --cpu-percent=50 => autoscaled
get hpa => 50%
describe hpa d => Max replicas
delete hpa d => deleted
run p --image=none --labels=app=p --restart=Never --env=A=b --port=80 => created
get pod p -o wide => NODE
describe pod p => Environment
expose pod p --port=80 --name=pp => exposed
~get events => p
~events => p @ 1.32 1.36
debug p --image=none --target=p --quiet --attach=false => @ 1.32 1.36
get pod p -o jsonpath={.spec.ephemeralContainers[0].image} => none @ 1.32 1.36
delete pod p --now => deleted
create deployment q --image=none --replicas=0 => created
create job j --image=none -- true => created
create cronjob c --image=none --schedule='0 0 1 1 *' => created @ 1.32 1.36
create job j2 --from=cronjob/c => created @ 1.32 1.36
create secret generic s --from-literal=a=b => created
create secret docker-registry dr --docker-server=x --docker-username=u --docker-password=p => created
create configmap cc --from-literal=a=b => created
create serviceaccount sa => created
create token sa --duration=10m => . @ 1.32 1.36
create role r --verb=get --resource=pods => created
create rolebinding rb --role=r --serviceaccount=verbs:sa => created
create quota qu --hard=pods=10 => created
create service clusterip svc --tcp=80:80 => created
create service nodeport np --tcp=80:80 => created
create service externalname en --external-name=x.example.com => created
create pdb pd --selector=a=b --min-available=1 => created @ 1.32 1.36
create ingress ig --rule=h/=svc:80 => created @ 1.32 1.36
auth can-i create pods => yes
auth can-i --list => *.*
!auth can-i list pods --as ann => no
auth reconcile -f - < role => reconciled
auth can-i list pods --as ann => yes
!auth can-i get pods --as ann => no
auth reconcile -f - < more => reconciled
auth can-i get pods --as ann => yes
auth reconcile -f - --remove-extra-permissions --remove-extra-subjects < role => reconciled
!auth can-i get pods --as ann => no
auth whoami => kubernetes-admin @ 1.32 1.36
!top pods => etrics
!top nodes => etrics
explain deployment --recursive => maxSurge
explain hpa => autoscaling
api-versions => apps/v1
api-resources --namespaced=true -o wide => deployments
version => Server Version
cluster-info => running at
wait --for=jsonpath={.metadata.name}=d deployment/d --timeout=5s => condition met @ 1.32 1.36
delete deployment q --cascade=orphan => deleted
delete replicaset -l app=q => deleted
delete daemonset ds --cascade=foreground => deleted
delete statefulset ss --cascade=background => deleted
~get controllerrevisions => No resources found
delete all --all => deleted
~get all => No resources found
"#;

/// The words of a command line: spaces part them, but not within single quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.trim().chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|w| !w.is_empty());
    words
}

/// None: as it should be.
fn wrong(kubectl: &Kubectl, line: &str, part: &str) -> Option<String> {
    let (line, input) = line.split_once(" < ").unwrap_or((line, ""));
    let (fails, line) = line.strip_prefix('!').map_or((false, line), |line| (true, line));
    let input = INPUTS.iter().find(|(name, _)| *name == input).map_or("", |(_, text)| text);
    let words = words(line);
    let words: Vec<&str> = ["-n", "verbs"].into_iter().chain(words.iter().map(String::as_str)).collect();
    let answer = kubectl.answer(&words, input);
    let said = answer.stdout + &answer.stderr;
    (answer.ok == fails || !said.contains(part)).then(|| format!("kubectl {line}: no {part:?} in {said}"))
}

#[test]
fn every_verb_does_what_it_says() {
    each_release(|_, kubectl, _| {
        let program = kubectl.program().to_string_lossy().into_owned();
        kubectl.ok(&["create", "namespace", "verbs"]);
        let mut faults = Vec::new();
        for row in TABLE.lines().filter(|row| !row.is_empty()) {
            let (row, releases) = row.rsplit_once(" @ ").unwrap_or((row, ""));
            if !releases.is_empty() && !releases.split(' ').any(|r| program.contains(r)) {
                continue;
            }
            let (line, part) = row.split_once("=>").expect("a row says what is said");
            let (line, part) = (line.trim(), part.trim());
            let fault = match line.strip_prefix('~') {
                None => wrong(kubectl, line, part),
                Some(line) => {
                    let mut last = None;
                    eventually(20, || {
                        last = wrong(kubectl, line, part);
                        last.is_none().then_some(())
                    });
                    last
                }
            };
            faults.extend(fault);
        }
        kubectl.ok(&["delete", "namespace", "verbs"]);
        assert!(faults.is_empty(), "{program}:\n{}", faults.join("\n"));
    });
}
