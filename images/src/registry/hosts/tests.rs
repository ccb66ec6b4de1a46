use std::collections::BTreeMap;

use super::*;

/// Files by path.
#[derive(Default)]
struct Fake(BTreeMap<&'static str, &'static str>);

impl Files for Fake {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(path.to_str().unwrap()).map(|text| text.as_bytes().to_vec()))
    }
    fn list(&self, path: &Path) -> Result<Option<Vec<String>>, Error> {
        let prefix = format!("{}/", path.display());
        let names: Vec<String> =
            self.0.keys().filter_map(|name| Some(name.strip_prefix(&prefix)?.to_owned())).collect();
        Ok((!names.is_empty()).then_some(names))
    }
}

fn plan(
    reference: &str,
    registries: &Registries,
    files: &[(&'static str, &'static str)],
) -> Result<Vec<Endpoint>, String> {
    let registries = Registries { hosts_dirs: vec!["/a".into(), "/b".into()], ..registries.clone() };
    endpoints(&reference.parse().unwrap(), &registries, &Fake(files.iter().copied().collect()))
        .map_err(|e| e.to_string())
}

fn bases(list: &[Endpoint]) -> Vec<String> {
    list.iter().map(|endpoint| endpoint.base.to_string()).collect()
}

#[test]
fn without_files_the_registry_speaks_for_itself() {
    let registries = Registries {
        plain_http: vec!["Plain.example:80".into()],
        mirrors: vec![("docker.io".into(), "http://10.0.0.1:5000/hub/".into())],
        ..Registries::default()
    };
    for (reference, want, guessed) in [
        ("r.example/x", vec!["https://r.example/v2"], false),
        ("plain.example:80/x", vec!["http://plain.example:80/v2"], false),
        ("127.0.0.1:5000/x", vec!["http://127.0.0.1:5000/v2"], true),
        ("[::1]:5000/x", vec!["http://[::1]:5000/v2"], true),
        ("x", vec!["http://10.0.0.1:5000/hub/v2", "https://registry-1.docker.io/v2"], false),
    ] {
        let list = plan(reference, &registries, &[]).unwrap();
        assert_eq!(bases(&list), want, "{reference}");
        assert_eq!(list.last().unwrap().guessed, guessed, "{reference}");
        assert!(!list.last().unwrap().mirror);
        assert!(list.iter().rev().skip(1).all(|mirror| mirror.mirror && !mirror.can.push));
    }
}

#[test]
fn the_most_specific_folder_counts() {
    let only = |path: &'static str, server: &'static str| {
        vec![("/b/_default/hosts.toml", "server = \"https://default\""), (path, server)]
    };
    for (path, want) in [
        ("/a/r.example_5000_/hosts.toml", "https://own/v2"),
        ("/b/r.example:5000/hosts.toml", "https://own/v2"),
        ("/b/r.example/hosts.toml", "https://default/v2"),
        ("/a/r.example:5001/hosts.toml", "https://default/v2"),
    ] {
        let list = plan("r.example:5000/x", &Registries::default(), &only(path, "server = \"https://own\"")).unwrap();
        assert_eq!(bases(&list), [want], "{path}");
    }
    // the specific folder of a later directory goes before another's _default
    let files = [("/a/_default/hosts.toml", "server = \"https://default\""), ("/b/r.example/ca.crt", "CA")];
    assert_eq!(bases(&plan("r.example/x", &Registries::default(), &files).unwrap()), ["https://r.example/v2"]);
    // a folder of IPv6 hosts
    let files = [("/a/[::1]_5000_/hosts.toml", "server = \"https://six\"")];
    assert_eq!(bases(&plan("[::1]:5000/x", &Registries::default(), &files).unwrap()), ["https://six/v2"]);
}

#[test]
fn a_file_is_read_as_containerd_reads_it() {
    let files = [
        (
            "/a/docker.io/hosts.toml",
            "server = \"https://registry-1.docker.io\"\nskip_verify = true\n
[host.\"http://m.example:5000\"]\n capabilities = [\"pull\", \"resolve\"]\n ca = [\"a.pem\", \"/abs.pem\"]\n client = [[\"c.pem\", \"k.pem\"], [\"both.pem\"]]
[host.\"http://m.example:5000\".header]\n  x-one = \"1\"\n  x-two = [\"2\", \"3\"]
[host.\"https://n.example/proxy/hub\"]\n override_path = true\n capabilities = [\"pull\"]
[host.\"https://o.example/v2/hub\"]
[host.\"p.example/v2\"]\n  client = \"both.pem\"\n",
        ),
        ("/a/docker.io/a.pem", "A"),
        ("/abs.pem", "B"),
        ("/a/docker.io/c.pem", "C"),
        ("/a/docker.io/k.pem", "K"),
        ("/a/docker.io/both.pem", "CK"),
    ];
    let list = plan("nginx", &Registries::default(), &files).unwrap();
    assert_eq!(
        bases(&list),
        [
            "http://m.example:5000/v2",
            "https://n.example/proxy/hub",
            "https://o.example/v2/hub/v2",
            "https://p.example/v2",
            "https://registry-1.docker.io/v2"
        ]
    );
    let [m, n, _, p, server] = list.as_slice() else { panic!("{list:?}") };
    assert_eq!(m.can, Capabilities { pull: true, resolve: true, push: false });
    assert_eq!(n.can, Capabilities { pull: true, resolve: false, push: false });
    assert_eq!(m.ca_pem, b"A\nB\n");
    assert_eq!(m.client, [(b"C".to_vec(), b"K".to_vec()), (b"CK".to_vec(), b"CK".to_vec())]);
    assert_eq!(m.headers, [("x-one", "1"), ("x-two", "2"), ("x-two", "3")].map(|(n, v)| (n.to_owned(), v.to_owned())));
    assert_eq!(p.client, [(b"CK".to_vec(), b"CK".to_vec())]);
    assert!(server.skip_verify && !m.skip_verify && server.can == Capabilities::ALL && !server.mirror && m.mirror);
    // without a server the registry itself comes last; one that is listed and the server is asked once
    let files = [("/a/r.example/hosts.toml", "[host.\"https://m.example\"]")];
    assert_eq!(
        bases(&plan("r.example/x", &Registries::default(), &files).unwrap()),
        ["https://m.example/v2", "https://r.example/v2"]
    );
    let files = [("/a/r.example/hosts.toml", "server = \"https://r.example\"\n[host.\"https://r.example\"]")];
    assert_eq!(bases(&plan("r.example/x", &Registries::default(), &files).unwrap()), ["https://r.example/v2"]);
}

#[test]
fn dockers_layout_holds_certificates() {
    let files = [
        ("/b/127.0.0.1:5000/ca.crt", "CA"),
        ("/b/127.0.0.1:5000/client.cert", "C"),
        ("/b/127.0.0.1:5000/client.key", "K"),
    ];
    let list = plan("127.0.0.1:5000/x", &Registries::default(), &files).unwrap();
    assert_eq!(bases(&list), ["https://127.0.0.1:5000/v2"]);
    let own = list.first().unwrap();
    assert_eq!(
        (own.ca_pem.as_slice(), own.client.as_slice(), own.guessed),
        (&b"CA\n"[..], &[(b"C".to_vec(), b"K".to_vec())][..], false)
    );
    let error = plan("127.0.0.1:5000/x", &Registries::default(), &files[..2]).unwrap_err();
    assert!(error.contains("client.cert") && error.contains("without its key client.key"), "{error}");
}

#[test]
fn mistakes_are_named_with_their_file() {
    let many: String = (0..20).map(|n| format!("[host.\"https://m{n}\"]\n")).collect();
    for (file, want) in [
        ("server = 1", "server is no string"),
        ("server = \"ftp://x\"", "is no http or https URL"),
        ("host = 1", "host is no table"),
        ("[host]\n\"https://m\" = 1", "is no table"),
        ("[host.\"ftp://m\"]", "is no http or https URL"),
        ("capabilities = \"fly\"", "unknown capability \"fly\""),
        ("capabilities = [1]", "capabilities is no list"),
        ("ca = \"none.pem\"", "/a/r.example/none.pem does not exist"),
        ("ca = 1", "ca is neither"),
        ("client = 1", "client is no file name"),
        ("client = [[\"a\", \"b\", \"c\"]]", "client is no file name"),
        ("skip_verify = \"yes\"", "neither true nor false"),
        ("header = 1", "header is no table"),
        ("[header]\nx = 1", "header \"x\" is neither"),
        ("x", "line 1"),
        (Box::leak(many.into_boxed_str()), "at most 16"),
    ] {
        let error = plan("r.example/x", &Registries::default(), &[("/a/r.example/hosts.toml", file)]).unwrap_err();
        assert!(error.contains(want), "{file:?}: {error}");
        assert!(error.contains("hosts.toml") || error.contains("at most"), "{error}");
    }
}
