//! Signatures made with openssl, checked against a policy; where skopeo knows the same policy it must come to the same verdict.

use std::path::{Path, PathBuf};
use std::process::Command;

use mote_images::*;
use serde_json::json;

use crate::scripted::{Server, run};
use crate::stock::{MANIFEST, Registry, Stock, pull, signature_manifest};

fn key(dir: &Path, name: &str) {
    let words = format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key");
    run(dir, "openssl", &words.split(' ').collect::<Vec<_>>());
    run(dir, "openssl", &["pkey", "-in", &format!("{name}.key"), "-pubout", "-out", &format!("{name}.pub")]);
}

/// Signs `digest` under `name` and puts the signature beside the image `of`.
fn sign(dir: &Path, stock: &mut Stock, key: &str, of: &Digest, digest: &Digest, name: &str) -> Digest {
    let payload = json!({"critical": {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest.to_string()},
        "type": "cosign container image signature"}, "optional": null})
    .to_string();
    std::fs::write(dir.join("payload"), &payload).unwrap();
    run(dir, "openssl", &["dgst", "-sha256", "-sign", &format!("{key}.key"), "-out", "signature", "payload"]);
    let signature = run(dir, "openssl", &["base64", "-A", "-in", "signature"]);
    let manifest = signature_manifest(stock, payload.as_bytes(), signature.trim());
    stock.tag(&format!("sha256-{}.sig", of.hex()), &manifest);
    manifest
}

fn policy(dir: &Path, registry: &str, key: &str, identity: &str) -> PathBuf {
    let path = dir.join("policy.json");
    let signed = json!([{"type": "sigstoreSigned", "keyPath": dir.join(key), "signedIdentity": {"type": identity}}]);
    let text = json!({"default": [{"type": "reject"}], "transports": {"docker": {registry: signed, format!("{registry}/free"): [{"type": "insecureAcceptAnything"}], format!("{registry}/shut"): [{"type": "reject"}]}}});
    std::fs::write(&path, text.to_string()).unwrap();
    path
}

fn by_policy(path: &Path) -> Registries {
    Registries { policy: Some(path.to_owned()), ..Registries::default() }
}

/// skopeo's verdict on the same image by the same policy file.
fn skopeo(dir: &Path, policy: &Path, name: &str) -> bool {
    std::fs::create_dir_all(dir.join("registries.d")).unwrap();
    std::fs::write(dir.join("registries.d/all.yaml"), "default-docker:\n  use-sigstore-attachments: true\n").unwrap();
    let to = format!("dir:{}", dir.join("skopeo-out").display());
    let out = Command::new("skopeo")
        .args([
            "--policy",
            policy.to_str().unwrap(),
            "--registries.d",
            dir.join("registries.d").to_str().unwrap(),
            "copy",
        ])
        .args(["--src-tls-verify=false", &format!("docker://{name}"), &to])
        .output()
        .expect("apt-get install skopeo");
    out.status.success()
}

#[test]
fn signed_unsigned_and_wrongly_signed() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    key(dir, "good");
    key(dir, "other");
    let registry = Registry::start("", "");
    let addr = registry.addr.to_string();
    let repository = format!("{addr}/team/app");
    // (tag, key, over the image itself, name in the signature, what we say)
    let table = [
        ("good", Some(("good", true, repository.as_str())), None),
        ("unsigned", None, Some("unsigned")),
        ("wrong-key", Some(("other", true, &repository)), Some("signed by another key")),
        ("other-image", Some(("good", false, &repository)), Some("its signature is over another image, sha256:")),
        ("other-name", Some(("good", true, "elsewhere/app")), Some("its signature is for the name \"elsewhere/app\"")),
    ];
    let mut stock = Stock::default();
    for (tag, signature, _) in &table {
        let digest = stock.image(tag.as_bytes());
        stock.tag(tag, &digest);
        if let Some((key, itself, name)) = signature {
            let over = if *itself { digest } else { Digest::of(b"another") };
            sign(dir, &mut stock, key, &digest, &over, name);
        }
    }
    registry.fill("team/app", &stock);
    registry.fill("free/app", &stock);
    registry.fill("shut/app", &stock);
    let policy = policy(dir, &addr, "good.pub", "matchRepository");
    for (tag, _, want) in table {
        let name = format!("{repository}:{tag}");
        let said = pull(&dir.join(tag), &name, &by_policy(&policy), None).map(drop).map_err(|e| e.to_string());
        match want {
            None => assert_eq!(said, Ok(())),
            Some(want) => {
                let said = said.unwrap_err();
                assert!(said.starts_with(&format!("{name}: refused: image policy for {addr:?}: {want}")), "{said}");
                assert!(said.ends_with("good.pub)"), "{said}");
                assert!(Store::open(&dir.join(tag)).unwrap().list().unwrap().is_empty());
            }
        }
        assert_eq!(skopeo(dir, &policy, &name), want.is_none(), "skopeo on {name}");
    }
    // the longest prefix decides; the default is for the rest
    pull(&dir.join("free"), &format!("{addr}/free/app:unsigned"), &by_policy(&policy), None).unwrap();
    for (name, want) in
        [(format!("{addr}/shut/app:good"), "images of it are not taken"), ("localhost:1/x:1".into(), "")]
    {
        let error = pull(&dir.join("shut"), &name, &by_policy(&policy), None).err().unwrap().to_string();
        assert!(error.contains(want), "{error}");
        assert!(!skopeo(dir, &policy, &name));
    }
    // a policy that is named must be there, and right
    for (text, want) in [
        (None, "does not exist"),
        (Some("{"), "corrupt"),
        (Some(r#"{"default":[{"type":"signedBy"}]}"#), "cannot check"),
    ] {
        let path = dir.join("bad.json");
        let _ = std::fs::remove_file(&path);
        text.inspect(|text| std::fs::write(&path, text).unwrap());
        let error = pull(&dir.join("bad"), &format!("{addr}/free/app:good"), &by_policy(&path), None)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn what_was_found_good_is_checked_again_without_the_registry() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    key(dir, "good");
    key(dir, "other");
    let mut stock = Stock::default();
    let digest = stock.image(b"x");
    stock.tag("1", &digest);
    let served = std::sync::Arc::new(std::sync::Mutex::new(stock.clone()));
    let serving = served.clone();
    let registry = Server::plain(move |asked| serving.lock().unwrap().serve(asked));
    let addr = registry.addr.to_string();
    let name = format!("{addr}/team/app:1");
    let free = policy(dir, "elsewhere.test", "good.pub", "matchRepository");
    std::fs::write(&free, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    pull(&dir.join("store"), &name, &by_policy(&free), None).unwrap();
    // the policy came after the image: the same pull is refused now
    let strict = policy(dir, &addr, "good.pub", "matchRepoDigestOrExact");
    let pinned = format!("{addr}/team/app@{digest}");
    for name in [&name, &pinned] {
        let error = pull(&dir.join("store"), name, &by_policy(&strict), None).err().unwrap().to_string();
        assert!(error.contains("unsigned"), "{error}");
    }
    // signed by now
    sign(dir, &mut stock, "good", &digest, &digest, &name);
    *served.lock().unwrap() = stock;
    pull(&dir.join("store"), &name, &by_policy(&strict), None).unwrap();
    pull(&dir.join("store"), &pinned, &by_policy(&strict), None).unwrap();
    // by tag one request, by digest none; the signature is checked all the same
    let before = registry.count("");
    pull(&dir.join("store"), &name, &by_policy(&strict), None).unwrap();
    assert_eq!(registry.count("") - before, 1);
    pull(&dir.join("store"), &pinned, &by_policy(&strict), None).unwrap();
    assert_eq!(registry.count("") - before, 1);
    let other = policy(dir, &addr, "other.pub", "matchRepoDigestOrExact");
    let error = pull(&dir.join("store"), &pinned, &by_policy(&other), None).err().unwrap().to_string();
    assert!(error.contains("signed by another key"), "{error}");
}

#[test]
fn signatures_over_an_index_and_among_referrers_count() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    key(dir, "good");
    let host = Platform::host();
    let mut stock = Stock::default();
    let image = stock.image(b"x");
    let entry = json!({"mediaType": MANIFEST, "digest": image.to_string(), "size": 500, "platform": {"os": host.os, "architecture": host.architecture}});
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]})
            .to_string();
    let index = stock.put("application/vnd.oci.image.index.v1+json", index.as_bytes());
    stock.tag("1", &index);
    let name = "team/app";
    // over the index; over the image below it; among the referrers of the index, by API and by tag
    for case in 0..4 {
        let mut stock = stock.clone();
        let registry_name = |addr: &std::net::SocketAddr| format!("{addr}/{name}");
        let slot = std::sync::Arc::new(std::sync::Mutex::new((Stock::default(), String::new())));
        let serving = slot.clone();
        let registry = Server::plain(move |asked| {
            let (stock, referrers) = &*serving.lock().unwrap();
            match asked.path.contains("/referrers/") && !referrers.is_empty() {
                true => crate::scripted::answer(200, referrers.clone())
                    .with("content-type", "application/vnd.oci.image.index.v1+json"),
                false => stock.serve(asked),
            }
        });
        let signed_name = registry_name(&registry.addr);
        let over = if case == 1 { image } else { index };
        let manifest =
            sign(dir, &mut stock, "good", if case < 2 { &over } else { &Digest::of(b"nowhere") }, &over, &signed_name);
        let referrers = json!({"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST, "digest": manifest.to_string(), "size": 1, "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json"}]}).to_string();
        if case == 3 {
            let digest = stock.put("application/vnd.oci.image.index.v1+json", referrers.as_bytes());
            stock.tag(&format!("sha256-{}", index.hex()), &digest);
        }
        *slot.lock().unwrap() = (stock, if case == 2 { referrers } else { String::new() });
        let policy = policy(dir, &registry.addr.to_string(), "good.pub", "matchRepository");
        pull(&dir.join(case.to_string()), &format!("{signed_name}:1"), &by_policy(&policy), None)
            .unwrap_or_else(|e| panic!("case {case}: {e}"));
    }
}
