//! What comes from the environment: proxies, trust anchors, credential helpers. Each pull is a process with an environment of its own (a
//! process's environment belongs to all its threads).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::scripted::{Server, answer, connect_proxy, secured};
use crate::stock::Stock;

/// The manifest's digest, or why there is none.
fn pull_with(name: &str, store: &Path, config: &str, env: &[(&str, &str)]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pull-alone"));
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    command.arg(store).args([name, "--docker-config", config]).envs(env.iter().copied());
    let out = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

#[test]
fn a_proxy_carries_what_is_far_and_the_systems_anchors_are_found() {
    let tmp = secured("far", "DNS:far.test");
    let dir = tmp.path();
    let stock = Stock::with("1", b"x");
    let manifest = stock.digest("1").to_string();
    let server = stock.tls(dir, "far");
    let (proxy, asked) = connect_proxy(server.addr);
    let proxy = format!("http://user:pass@{proxy}");
    let ca = dir.join("ca.pem");
    let (file, folder) = (("SSL_CERT_FILE", ca.to_str().unwrap()), ("SSL_CERT_DIR", dir.to_str().unwrap()));
    // the name far.test exists nowhere: only a proxy can know it
    let said = pull_with("far.test/x:1", &dir.join("one"), "none", &[("HTTPS_PROXY", &proxy), file]);
    assert_eq!(said, Ok(manifest.clone()));
    let first = asked.lock().unwrap()[0].clone();
    assert!(first.starts_with("CONNECT far.test:443 HTTP/1.1\r\n"), "{first}");
    assert!(first.to_ascii_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnz"), "{first}");
    let said = pull_with("far.test/x:1", &dir.join("two"), "none", &[("https_proxy", &proxy), folder]);
    assert_eq!(said, Ok(manifest));
    // an exception, and no anchor
    let before = asked.lock().unwrap().len();
    let said = pull_with("127.0.0.1:1/x:1", &dir.join("three"), "none", &[("ALL_PROXY", &proxy)]);
    assert!(said.is_err() && asked.lock().unwrap().len() == before, "{said:?}");
    let said = pull_with(
        "far.test/x:1",
        &dir.join("three"),
        "none",
        &[("HTTPS_PROXY", &proxy), ("SSL_CERT_FILE", "/dev/null")],
    );
    assert!(said.clone().unwrap_err().contains("unknown authority"), "{said:?}");
}

#[test]
fn a_credential_helper_is_asked() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let stock = Stock::with("1", b"x");
    let (served, manifest) = (stock.clone(), stock.digest("1").to_string());
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
        assert_eq!(said, Ok(manifest.clone()));
    }
    // one that is not there is no reason to stop: the registry says what it wants
    std::fs::write(&config, r#"{"credsStore":"missing"}"#).unwrap();
    let said = pull_with(&name, &dir.join("last"), config.to_str().unwrap(), &[("PATH", &path)]);
    assert!(said.clone().unwrap_err().contains("wants a user name and password"), "{said:?}");
}
