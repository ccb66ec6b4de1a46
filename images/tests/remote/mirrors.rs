//! hosts.toml: who is asked for what, in which order, with which headers; what happens when one fails.

use std::path::Path;

use mote_images::*;

use crate::scripted::{Asked, Server, answer, secured};
use crate::stock::{Stock, file_of, pull};

fn hosts(dir: &Path, host: &str, text: &str) -> Registries {
    let folder = dir.join("certs.d").join(host);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("hosts.toml"), text).unwrap();
    Registries { hosts_dirs: vec![dir.join("certs.d")], ..Registries::default() }
}

#[test]
fn a_mirror_that_fails_gives_way_to_the_next() {
    let tmp = secured("good", "IP:127.0.0.1");
    let dir = tmp.path();
    let stock = Stock::with("1", b"from the mirror");
    // one that is dead, one that is broken, one that lacks the image, one that may not resolve tags, then the good one
    let broken = Server::plain(|_| answer(500, "broken"));
    let empty = Server::plain(|_| answer(404, "{}"));
    let blobs_only = stock.plain();
    let good = stock.tls(dir, "good");
    let (b, e, o, g) = (broken.addr, empty.addr, blobs_only.addr, good.addr);
    let text = format!(
        "server = \"https://127.0.0.1:1\"\n[host.\"http://127.0.0.1:1\"]\n[host.\"http://{b}\"]\n[host.\"http://{e}\"]\n[host.\"http://{o}/some/where\"]\noverride_path = true\ncapabilities = [\"pull\"]\n[host.\"https://{g}/proxy\"]\nca = \"{}\"\n[host.\"https://{g}/proxy\".header]\nx-site = \"here\"\n",
        dir.join("ca.pem").display()
    );
    let registries = hosts(dir, "r.test:5000", &text);
    let image = pull(&dir.join("store"), "r.test:5000/team/app:1", &registries, None).unwrap();
    assert_eq!(file_of(&image), b"from the mirror");
    assert_eq!((image.reference.to_string(), image.manifest), ("r.test:5000/team/app:1".to_owned(), stock.digest("1")));
    // the broken one was tried twice and then left alone; the tag came from the good one, what has a digest from the first that has it
    assert_eq!((broken.count(""), empty.count("/manifests/1")), (2, 1));
    assert_eq!(blobs_only.count("/manifests/1"), 0);
    assert!(blobs_only.count("/some/where/team/app/blobs/sha256:") == 2 && good.count("/blobs/") == 0);
    let asked = good.asked();
    assert_eq!(asked[0].path, "/proxy/v2/team/app/manifests/1?ns=r.test%3A5000");
    assert!(asked.iter().all(|asked| asked.header("x-site") == Some("here") && !asked.has("authorization")));
    assert!(empty.asked().iter().all(|asked| !asked.has("x-site") && asked.path.contains("ns=r.test%3A5000")));
}

#[test]
fn what_no_mirror_has_comes_from_the_server_and_its_word_is_the_last() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let stock = Stock::with("1", b"from the server");
    let empty = Server::plain(|_| answer(404, "{}"));
    let server = stock.plain();
    let text = format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", server.addr, empty.addr);
    let registries = hosts(dir, "_default", &text);
    let image = pull(&dir.join("store"), "any.test/team/app:1", &registries, None).unwrap();
    assert_eq!(file_of(&image), b"from the server");
    let error = pull(&dir.join("store"), "any.test/team/app:2", &registries, None).err().unwrap();
    assert_eq!(error.to_string(), "any.test/team/app:2: not found: manifest unknown (404 Not Found)");
    // nothing to do: the same bytes again by one request to each that is asked, none by digest
    let (before_empty, before) = (empty.count(""), server.count(""));
    pull(&dir.join("store"), "any.test/team/app:1", &registries, None).unwrap();
    assert_eq!((empty.count("") - before_empty, server.count("") - before), (1, 1));
    // a host file that cannot be read stops the pull and names itself
    std::fs::write(dir.join("certs.d/_default/hosts.toml"), "server = ").unwrap();
    let error = pull(&dir.join("store"), "any.test/team/app:1", &registries, None).err().unwrap().to_string();
    assert!(error.contains("hosts.toml") && error.contains("line 1"), "{error}");
}

#[test]
fn credentials_of_the_registry_never_reach_a_mirror() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let stock = Stock::with("1", b"x");
    let challenge = |asked: &Asked| {
        (!asked.has("authorization")).then(|| answer(401, "{}").with("www-authenticate", "Basic realm=\"x\""))
    };
    let mirror = stock.plain_unless(challenge);
    let server = stock.plain_unless(challenge);
    let me = Credentials { username: "me".into(), password: "pw".into(), identity_token: None };
    let registries = Registries {
        mirrors: vec![(server.addr.to_string(), format!("http://{}", mirror.addr))],
        ..Registries::default()
    };
    let name = format!("{}/team/app:1", server.addr);
    pull(&dir.join("store"), &name, &registries, Some(me)).unwrap();
    assert!(mirror.asked().iter().all(|asked| !asked.has("authorization")) && mirror.count("") == 1);
    assert!(server.asked().iter().any(|asked| asked.header("authorization") == Some("Basic bWU6cHc=")));
    // its own entry in the docker configuration is for the mirror
    let config = dir.join("config.json");
    std::fs::write(&config, format!("{{\"auths\":{{\"{}\":{{\"username\":\"m\",\"password\":\"m\"}}}}}}", mirror.addr))
        .unwrap();
    let registries = Registries { docker_config: Some(config), ..registries };
    pull(&dir.join("other"), &name, &registries, None).unwrap();
    assert!(mirror.asked().iter().any(|asked| asked.header("authorization") == Some("Basic bTpt")));
}

#[test]
fn a_mirror_with_damaged_bytes_does_not_keep_the_image_away() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let stock = Stock::with("1", b"as it was pushed");
    let served = stock.clone();
    let damaged = Server::plain(move |asked| {
        let mut answer = served.serve(asked);
        if asked.path.contains("/blobs/") {
            answer.body.iter_mut().for_each(|byte| *byte ^= 1);
        }
        answer
    });
    let server = stock.plain();
    let registries =
        hosts(dir, "_default", &format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", server.addr, damaged.addr));
    let image = pull(&dir.join("store"), "any.test/team/app:1", &registries, None).unwrap();
    assert_eq!(file_of(&image), b"as it was pushed");
    assert!(damaged.count("/blobs/") >= 1 && server.count("/blobs/") == 2);
}
