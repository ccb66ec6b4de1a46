//! What comes from the environment: proxies, trust anchors, credential helpers. Each test runs itself again as a child with an environment of
//! its own (a process's environment belongs to all its threads).

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use mote_images::*;

use crate::scripted::{Server, answer, authority, certificate, connect_proxy};
use crate::stock::{Stock, pull};

/// Set in the child: reference, store folder and docker configuration, separated by spaces.
const CHILD: &str = "MOTE_TEST_PULL";

#[test]
#[ignore = "run by the other tests of this file, with an environment of its own"]
fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let [name, store, config] = told.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let registries = Registries { docker_config: Some(config.into()), ..Registries::default() };
    match pull(store.as_ref(), name, &registries, None) {
        Ok(image) => println!("PULLED {}", image.manifest),
        Err(e) => println!("FAILED {e}"),
    }
}

fn pull_with(name: &str, store: &std::path::Path, config: &str, env: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "environment::child", "--ignored", "--nocapture"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    command.env(CHILD, format!("{name} {} {config}", store.display())).envs(env.iter().copied());
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let said =
        text.lines().find_map(|line| line.find("PULLED").or(line.find("FAILED")).map(|at| line[at..].to_owned()));
    said.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&out.stderr)))
}

#[test]
fn a_proxy_carries_what_is_far_and_the_systems_anchors_are_found() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    authority(dir);
    certificate(dir, "far", "DNS:far.test");
    let stock = Stock::with("1", b"x");
    let (served, manifest) = (stock.clone(), stock.digest("1"));
    let server = Server::tls(dir, "far", move |asked| served.serve(asked));
    let (proxy, asked) = connect_proxy(server.addr);
    let proxy = format!("http://user:pass@{proxy}");
    let ca = dir.join("ca.pem");
    let (file, folder) = (("SSL_CERT_FILE", ca.to_str().unwrap()), ("SSL_CERT_DIR", dir.to_str().unwrap()));
    // the name far.test exists nowhere: only a proxy can know it
    let said = pull_with("far.test/x:1", &dir.join("one"), "none", &[("HTTPS_PROXY", &proxy), file]);
    assert_eq!(said, format!("PULLED {manifest}"));
    let first = asked.lock().unwrap()[0].clone();
    assert!(first.starts_with("CONNECT far.test:443 HTTP/1.1\r\n"), "{first}");
    assert!(first.to_ascii_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnz"), "{first}");
    let said = pull_with("far.test/x:1", &dir.join("two"), "none", &[("https_proxy", &proxy), folder]);
    assert_eq!(said, format!("PULLED {manifest}"));
    // an exception, and no anchor
    let before = asked.lock().unwrap().len();
    let said = pull_with("127.0.0.1:1/x:1", &dir.join("three"), "none", &[("ALL_PROXY", &proxy)]);
    assert!(said.starts_with("FAILED") && asked.lock().unwrap().len() == before, "{said}");
    let said = pull_with(
        "far.test/x:1",
        &dir.join("three"),
        "none",
        &[("HTTPS_PROXY", &proxy), ("SSL_CERT_FILE", "/dev/null")],
    );
    assert!(said.contains("unknown authority"), "{said}");
}

#[test]
fn a_credential_helper_is_asked() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let stock = Stock::with("1", b"x");
    let (served, manifest) = (stock.clone(), stock.digest("1"));
    let server = Server::plain(move |asked| match asked.header("authorization") {
        Some("Basic aGVscGVkOnNlY3JldA==") => served.serve(asked),
        _ => answer(401, "{}").with("www-authenticate", "Basic realm=\"x\""),
    });
    let helper = dir.join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread server\n[ \"$1 $server\" = \"get {}\" ] || {{ echo credentials not found in native keychain; exit 1; }}\necho '{{\"Username\":\"helped\",\"Secret\":\"secret\"}}'\n",
        server.addr
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = dir.join("config.json");
    let name = format!("{}/x:1", server.addr);
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let own = format!("{{\"credHelpers\":{{\"{}\":\"test\"}}}}", server.addr);
    for (n, text) in [own.as_str(), r#"{"credsStore":"test"}"#].into_iter().enumerate() {
        std::fs::write(&config, text).unwrap();
        let said = pull_with(&name, &dir.join(n.to_string()), config.to_str().unwrap(), &[("PATH", &path)]);
        assert_eq!(said, format!("PULLED {manifest}"));
    }
    // one that is not there is no reason to stop: the registry says what it wants
    std::fs::write(&config, r#"{"credsStore":"missing"}"#).unwrap();
    let said = pull_with(&name, &dir.join("last"), config.to_str().unwrap(), &[("PATH", &path)]);
    assert!(said.contains("wants a user name and password"), "{said}");
}
