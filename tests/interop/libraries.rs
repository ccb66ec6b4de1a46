//! Client libraries, as Debian has them. The newest of their own registries: `tests/clients/run`.

use std::process::Command;

use crate::harness::{Node, need, top};

#[test]
fn the_python_client_reads_and_writes_every_kind() {
    need("python3", "python3-kubernetes");
    let node = Node::up();
    let suite = top().join("tests/clients/python/suite.py");
    let done =
        Command::new("/usr/bin/python3").env("PYTHONDONTWRITEBYTECODE", "1").arg(suite).arg(node.kubeconfig()).output();
    let done = done.expect("python3");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains(" kinds, 0 wrong"), "{said}");
}
