//! What stays: the audit log, sealed Secrets; and room for the nodes.

use super::*;

#[test]
fn what_was_done_is_on_record() {
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n  resources: [{group: '', resources: [secrets]}]\n- level: Request\n  verbs: [create]\n  resources: [{group: '', resources: [configmaps]}]\n- level: RequestResponse\n  resources: [{group: '', resources: [services, serviceaccounts]}]\n";
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("audit-policy.yaml"), policy).unwrap();
    local(async {
        let server = start(dir.path()).await.unwrap_or_else(|e| panic!("{e}"));
        let mut c = Cluster { server: server.clone(), clients: HashMap::new() };
        c.make("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}, "stringData": {"p": "hush"}}))
            .await;
        c.make(MAPS, json!({"metadata": {"name": "m"}, "data": {"a": "1"}})).await;
        c.get(&admin(), MAPS).await;
        c.make(
            "/api/v1/namespaces/default/services",
            json!({"metadata": {"name": "w"}, "spec": {"ports": [{"port": 80}]}}),
        )
        .await;
        c.get(&admin(), "/api/v1/namespaces/default/services/none").await;
        c.send(&admin(), "GET", "/api/v1/namespaces/default/secrets/s", &[("Impersonate-User", "ann")], Value::Null)
            .await;
        let path = dir.path().join("audit.log");
        let mut events: Vec<Value> = Vec::new();
        for _ in 0..200 {
            let text = std::fs::read_to_string(&path).unwrap();
            // The last line may be on its way.
            let whole = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
            events = whole.map(|l| serde_json::from_str(l).unwrap()).collect();
            if events.len() >= 5 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(events.len(), 5, "{events:?}");
        assert!(!events[0].to_string().contains("hush") && events[0].get("requestObject").is_none());
        assert_eq!((&events[1]["level"], &events[1]["requestObject"]["data"]["a"]), (&json!("Request"), &json!("1")));
        assert_eq!((&events[1]["verb"], &events[1]["objectRef"]["resource"]), (&json!("create"), &json!("configmaps")));
        assert_eq!(
            (&events[4]["user"]["username"], &events[4]["impersonatedUser"]["username"]),
            (&json!("kubernetes-admin"), &json!("ann"))
        );
        assert_eq!(events[4]["responseStatus"]["code"], 403);
        // What was asked and what was answered; of a refusal too.
        assert_eq!(
            (&events[2]["level"], &events[2]["requestObject"]["spec"]["ports"][0]["port"]),
            (&json!("RequestResponse"), &json!(80))
        );
        assert!(events[2]["responseObject"]["spec"]["clusterIP"].is_string(), "{}", events[2]);
        assert_eq!(events[3]["responseObject"]["reason"], "NotFound");
        assert!(events[1].get("responseObject").is_none());
        server.stop().await;
    });
}

#[test]
fn secrets_are_sealed_on_disk_and_keys_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let config = |providers: &str| {
        let text =
            format!("kind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n{providers}");
        std::fs::write(dir.path().join("encryption.yaml"), text).unwrap();
    };
    let key = |name: &str, letter: &str| {
        format!("  - aesgcm: {{keys: [{{name: {name}, secret: {}A=}}]}}\n", letter.repeat(42))
    };
    let secret = "/api/v1/namespaces/default/secrets/s";
    let on_disk = |word: &[u8]| {
        let files =
            std::fs::read_dir(dir.path().join("store")).unwrap().map(|f| std::fs::read(f.unwrap().path()).unwrap());
        files.filter(|bytes| bytes.windows(word.len()).any(|w| w == word)).count() > 0
    };
    local(async {
        // base64 of "hush-hush"
        let plain = "aHVzaC1odXNo";
        config(&key("a", "A"));
        let server = start(dir.path()).await.unwrap_or_else(|e| panic!("{e}"));
        let mut c = Cluster { server: server.clone(), clients: HashMap::new() };
        c.make("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}, "data": {"p": plain}})).await;
        c.make(MAPS, json!({"metadata": {"name": "m"}, "data": {"p": "in-the-open"}})).await;
        assert_eq!(c.get(&admin(), secret).await.body["data"]["p"], plain);
        let listed = c.get(&admin(), "/api/v1/secrets").await.body;
        assert_eq!(listed["items"][0]["data"]["p"], plain);
        c.patch(&admin(), secret, json!({"metadata": {"labels": {"a": "b"}}})).await;
        server.stop().await;
        assert!(!on_disk(plain.as_bytes()) && on_disk(b"in-the-open") && on_disk(b"k8s:enc:aesgcm:v1:a:"));
        // Another key in front: everything is sealed with it at the start, and the old one may go.
        config(&(key("b", "B") + &key("a", "A")));
        start(dir.path()).await.unwrap_or_else(|e| panic!("{e}")).stop().await;
        config(&key("b", "B"));
        let server = start(dir.path()).await.unwrap_or_else(|e| panic!("{e}"));
        let mut c = Cluster { server: server.clone(), clients: HashMap::new() };
        let got = c.get(&admin(), secret).await.body;
        assert_eq!((&got["data"]["p"], &got["metadata"]["labels"]["a"]), (&json!(plain), &json!("b")));
        server.stop().await;
        // A lost key is said at the start.
        config(&key("c", "C"));
        let error = start(dir.path()).await.err().unwrap().to_string();
        assert!(error.contains("/registry/core/secrets/default/s is encrypted"), "{error}");
        std::fs::remove_file(dir.path().join("encryption.yaml")).unwrap();
        let error = start(dir.path()).await.err().unwrap().to_string();
        assert!(error.contains("there is no encryption.yaml"), "{error}");
    });
}

#[test]
fn a_crowd_of_one_user_does_not_starve_a_node() {
    run(&[], |mut c| async move {
        let values: String = "x".repeat(20_000);
        for n in 0..100 {
            c.make(MAPS, json!({"metadata": {"name": format!("m{n}")}, "data": {"a": values}})).await;
        }
        c.role("", "reader", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}])).await;
        c.bind("", "reader", "User", "ann").await;
        let done = Rc::new(std::cell::Cell::new(0));
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (server, done) = (c.server.clone(), done.clone());
            crowd.spawn_local(async move {
                let mut one = Cluster { server, clients: HashMap::new() };
                // A selector makes the server look into every object.
                assert_eq!(one.get(&ann(), &format!("{MAPS}?labelSelector=x%3Dy")).await.code, 200);
                done.set(done.get() + 1);
            });
        }
        // All of them have asked; then the node does.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        let node = UserInfo::node("n");
        assert_eq!(c.get(&node, "/api/v1/nodes").await.code, 200);
        assert!(done.get() < 150, "the node was served after {} of 200", done.get());
        while let Some(one) = crowd.join_next().await {
            one.unwrap();
        }
    });
}

#[test]
fn heartbeats_come_through_whatever_others_ask() {
    const BEATS: usize = 20;
    run(&[], |mut c| async move {
        for n in 0..5 {
            c.make(MAPS, json!({"metadata": {"name": format!("m{n}")}, "data": {"a": "x".repeat(1_000)}})).await;
        }
        c.role("", "reader", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}])).await;
        c.bind("", "reader", "User", "ann").await;
        let served = Rc::new(std::cell::Cell::new(0));
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (server, served) = (c.server.clone(), served.clone());
            crowd.spawn_local(async move {
                let mut one = Cluster { server, clients: HashMap::new() };
                loop {
                    one.get(&ann(), &format!("{MAPS}?labelSelector=x%3Dy")).await;
                    served.set(served.get() + 1);
                }
            });
        }
        while served.get() < 200 {
            tokio::task::yield_now().await;
        }
        let node = UserInfo::node("n");
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        assert_eq!(c.post(&node, leases, json!({"metadata": {"name": "n"}})).await.code, 201);
        let before = served.get();
        for beat in 0..BEATS {
            let renewed = json!({"spec": {"leaseDurationSeconds": 40 + beat}});
            assert_eq!(c.patch(&node, &format!("{leases}/n"), renewed).await.code, 200);
        }
        // A request takes a handful of turns of the one thread, and in each no more lists are served than one user has seats: without seats it would be
        // all 200 clients, each time.
        let between = (served.get() - before) / BEATS;
        assert!(between <= 8 * minicp::USER_SEATS_MAX, "{between} lists were served for each heartbeat");
        crowd.abort_all();
    });
}

/// Time is virtual here: it passes when nothing else can happen.
#[test]
fn who_says_nothing_is_not_kept() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let server = start(dir.path()).await.unwrap_or_else(|e| panic!("{e}"));
        let address = server.url().trim_start_matches("https://").to_owned();
        let mut silent = Vec::new();
        for n in 0..40 {
            let mut tcp = tokio::net::TcpStream::connect(&address).await.unwrap();
            if n % 2 == 0 {
                // The beginning of a TLS record that never ends.
                tcp.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
            }
            silent.push(tcp);
        }
        let (tls, name) = stranger(&server);
        let tcp = tokio::net::TcpStream::connect(&address).await.unwrap();
        let mut slow = tls.connect(name.clone(), tcp).await.unwrap();
        slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
        // Others are served meanwhile.
        let tcp = tokio::net::TcpStream::connect(&address).await.unwrap();
        let mut quick = tls.connect(name, tcp).await.unwrap();
        quick.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = quick.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        tokio::time::pause();
        for mut tcp in silent {
            let mut rest = Vec::new();
            let _ = tcp.read_to_end(&mut rest).await;
            assert!(rest.len() < 100, "{rest:?}");
        }
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
        tokio::time::resume();
        server.stop().await;
    });
}

/// What somebody without any proof connects with.
fn stranger(server: &Server) -> (tokio_rustls::TlsConnector, rustls_pki_types::ServerName<'static>) {
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls_pki_types::pem::PemObject::from_pem_slice(server.ca_pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    (tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)), name)
}

#[test]
fn a_stranger_may_ask_for_health_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    local(async {
        let server = start(dir.path()).await.unwrap_or_else(|e| panic!("{e}"));
        let address = server.url().trim_start_matches("https://").to_owned();
        let (tls, name) = stranger(&server);
        let tcp = tokio::net::TcpStream::connect(&address).await.unwrap();
        let stream = tls.connect(name, tcp).await.unwrap();
        let (mut http, connection) = handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(connection);
        for (method, path, token, code) in [
            ("GET", "/healthz", "", 200),
            ("GET", "/livez", "", 200),
            ("GET", "/readyz", "", 200),
            ("GET", "/version", "", 401),
            ("GET", "/metrics", "", 401),
            ("GET", "/api", "", 401),
            ("GET", "/apis/apps/v1", "", 401),
            ("GET", "/openapi/v2", "", 401),
            ("GET", "/openapi/v3", "", 401),
            ("GET", MAPS, "", 401),
            ("POST", MAPS, "", 401),
            ("POST", "/healthz", "", 401),
            ("GET", "/healthz/../api/v1/secrets", "", 401),
            ("GET", MAPS, "Bearer nonsense", 401),
            ("GET", MAPS, "Basic YWRtaW46YWRtaW4=", 401),
        ] {
            let request =
                Request::builder().method(method).uri(path).header("host", "x").header("authorization", token);
            let answer = http.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
            assert_eq!(answer.status(), code, "{method} {path} {token}");
            answer.into_body().collect().await.unwrap();
        }
        server.stop().await;
    });
}

/// One address cannot hold all connections, nor can all addresses hold more than there are: what is too much is closed at once.
#[test]
fn connections_are_bounded_by_address_and_in_all() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpSocket, TcpStream};
    const ALL: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    local(async {
        let mut config = Config::new(dir.path().into(), "127.0.0.1:0".parse().unwrap());
        (config.controllers, config.connections_max) = (false, ALL);
        let server = Server::start(config, Rc::new(SystemClock)).await.unwrap_or_else(|e| panic!("{e}"));
        let address = server.url().trim_start_matches("https://").parse().unwrap();
        let from = async |source: &str| -> TcpStream {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
            socket.connect(address).await.unwrap()
        };
        let (tls, name) = stranger(&server);
        let is_served = async |tcp: TcpStream| -> bool {
            let Ok(mut stream) = tls.connect(name.clone(), tcp).await else { return false };
            let asked = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let mut answer = Vec::new();
            stream.write_all(asked).await.is_ok()
                && stream.read_to_end(&mut answer).await.is_ok()
                && answer.starts_with(b"HTTP/1.1 200")
        };
        let is_closed = async |mut tcp: TcpStream| matches!(tcp.read(&mut [0]).await, Ok(0) | Err(_));
        let mut held = Vec::new();
        for _ in 0..ALL * 3 / 4 {
            held.push(from("127.0.0.1").await);
        }
        assert!(is_closed(from("127.0.0.1").await).await, "one address has its share");
        assert!(is_served(from("127.0.0.2").await).await, "another is served");
        // The server's end of it is to be gone, too.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        for source in ["127.0.0.2", "127.0.0.3"] {
            held.push(from(source).await);
        }
        assert!(is_closed(from("127.0.0.4").await).await, "all are taken");
        // One goes, and there is room.
        held.swap_remove(0);
        let mut served = false;
        for _ in 0..200 {
            served = is_served(from("127.0.0.4").await).await;
            if served {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(served);
        server.stop().await;
    });
}
