//! docker-registry behind TLS: trust anchors, client certificates, what is said when they are wrong.

use std::path::Path;

use mote_images::*;

use crate::scripted::{Server, answer, certificate, run, secured};
use crate::stock::{Registry, file_of, pull};

fn registry(dir: &Path, extra: &str, rest: &str) -> Registry {
    let tls = format!("  tls:\n    certificate: {d}/server.pem\n    key: {d}/server.key\n{extra}", d = dir.display());
    Registry::start(&tls, rest)
}

fn push(dir: &Path, name: &str, registries: &Registries, credentials: Option<Credentials>) -> Result<Digest, Error> {
    let store = Store::open(&dir.join("from")).unwrap();
    let name: Reference = name.parse().unwrap();
    std::fs::write(dir.join("content"), b"pushed").unwrap();
    let spec = PackSpec::of_files(vec![("/file".to_owned(), dir.join("content"), 0o644)], ImageConfig::default());
    store.pack(&name, spec, &Cancel::default()).unwrap();
    let options = PullOptions { registries: registries.clone(), ..PullOptions::default() };
    store.push(&name, &name, credentials, &options, &Silent, &Cancel::default())
}

#[test]
fn a_registry_of_an_own_authority_with_a_password() {
    let tmp = secured("server", "IP:127.0.0.1,DNS:localhost");
    let dir = tmp.path();
    let hash = run(dir, "perl", &["-e", "print crypt(\"secret\", \"\\$2y\\$05\\$abcdefghijklmnopqrstuu\")"]);
    std::fs::write(dir.join("htpasswd"), format!("me:{hash}\n")).unwrap();
    let registry =
        registry(dir, "", &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}/htpasswd\n", dir.display()));
    let me = Some(Credentials { username: "me".into(), password: "secret".into(), identity_token: None });
    let by_flag = Registries { ca_pem: std::fs::read(dir.join("ca.pem")).unwrap(), ..Registries::default() };
    let name = format!("{}/team/app:1", registry.addr);
    // nobody told us of the authority
    let error = push(dir, &name, &Registries::default(), me.clone()).unwrap_err();
    assert!(error.to_string().contains("signed by an unknown authority") && !error.is_retryable(), "{error}");
    push(dir, &name, &by_flag, me.clone()).unwrap();
    assert_eq!(file_of(&pull(&dir.join("one"), &name, &by_flag, me.clone()).unwrap()), b"pushed");
    // docker's and containerd's ways to say the same
    let folder = dir.join("certs.d").join(registry.addr.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(dir.join("ca.pem"), folder.join("ca.crt")).unwrap();
    let by_folder = Registries { hosts_dirs: vec![dir.join("certs.d")], ..Registries::default() };
    pull(&dir.join("two"), &name, &by_folder, me.clone()).unwrap();
    std::fs::write(folder.join("hosts.toml"), format!("[host.\"https://{}\"]\nskip_verify = true\n", registry.addr))
        .unwrap();
    pull(&dir.join("three"), &name, &by_folder, me.clone()).unwrap();
    std::fs::write(folder.join("hosts.toml"), format!("server = \"https://{}\"\nca = \"ca.crt\"\n", registry.addr))
        .unwrap();
    pull(&dir.join("four"), &name, &by_folder, me).unwrap();
    assert!(matches!(pull(&dir.join("five"), &name, &by_folder, None), Err(Error::Unauthorized { .. })));
    // by another name than its certificate's
    let other = format!("127.0.0.2:{}/x:1", registry.addr.port());
    let error = pull(&dir.join("five"), &other, &by_flag, None).err().unwrap();
    assert!(!error.is_retryable() || error.to_string().contains("refused"), "{error}");
}

#[test]
fn a_certificate_for_another_name_is_said_to_be_that() {
    let tmp = secured("other", "DNS:other.test");
    let dir = tmp.path();
    let server = Server::tls(dir, "other", |_| answer(200, "{}"));
    let registries = Registries { ca_pem: std::fs::read(dir.join("ca.pem")).unwrap(), ..Registries::default() };
    let error = pull(&dir.join("store"), &format!("{}/x:1", server.addr), &registries, None).err().unwrap();
    assert!(error.to_string().contains("certificate is for another name") && !error.is_retryable(), "{error}");
    assert_eq!(server.count(""), 0);
}

/// Plain HTTP is what loopback is asked first, and a registry of TLS answers that with 400: it is not what is wrong.
#[test]
fn a_registry_whose_certificate_is_an_authoritys_own_is_told_so() {
    let tmp = secured("server", "IP:127.0.0.1");
    let dir = tmp.path();
    for (certificate, want) in [("server", "signed by an unknown authority"), ("ca", "is an authority's own")] {
        std::fs::copy(dir.join(format!("{certificate}.pem")), dir.join("served.pem")).unwrap();
        std::fs::copy(dir.join(format!("{certificate}.key")), dir.join("served.key")).unwrap();
        let tls = format!("  tls:\n    certificate: {d}/served.pem\n    key: {d}/served.key\n", d = dir.display());
        let registry = Registry::start(&tls, "");
        let name = format!("{}/x:1", registry.addr);
        for registries in [Registries::default(), Registries { ca_pem: b"?".to_vec(), ..Registries::default() }] {
            let error = pull(&dir.join("store"), &name, &registries, None).err().unwrap();
            assert!(error.to_string().contains(want) && !error.is_retryable(), "{certificate}: {error}");
        }
    }
    // one that speaks neither is told what it answered
    let server = Server::plain(|_| answer(400, "what?"));
    let name = format!("{}/x:1", server.addr);
    let error = pull(&dir.join("store"), &name, &Registries::default(), None).err().unwrap();
    assert!(error.to_string().contains("400 Bad Request"), "{error}");
}

#[test]
fn a_client_certificate_is_shown_where_it_belongs() {
    let tmp = secured("server", "IP:127.0.0.1");
    let dir = tmp.path();
    certificate(dir, "client", "DNS:node.test");
    let registry = registry(dir, &format!("    clientcas:\n      - {}/ca.pem\n", dir.display()), "");
    let name = format!("{}/team/app:1", registry.addr);
    let folder = dir.join("certs.d").join(format!("127.0.0.1_{}_", registry.addr.port()));
    std::fs::create_dir_all(&folder).unwrap();
    let registries = Registries { hosts_dirs: vec![dir.join("certs.d")], ..Registries::default() };
    std::fs::copy(dir.join("ca.pem"), folder.join("ca.crt")).unwrap();
    let error = push(dir, &name, &registries, None).unwrap_err();
    assert!(error.to_string().contains("client certificate"), "{error}");
    std::fs::copy(dir.join("client.pem"), folder.join("node.cert")).unwrap();
    std::fs::copy(dir.join("client.key"), folder.join("node.key")).unwrap();
    push(dir, &name, &registries, None).unwrap();
    assert_eq!(file_of(&pull(&dir.join("one"), &name, &registries, None).unwrap()), b"pushed");
    let pair = format!("ca = \"ca.crt\"\nclient = [[\"{d}/client.pem\", \"{d}/client.key\"]]\n", d = dir.display());
    std::fs::write(folder.join("hosts.toml"), format!("server = \"https://{}\"\n{pair}", registry.addr)).unwrap();
    pull(&dir.join("two"), &name, &registries, None).unwrap();
}
