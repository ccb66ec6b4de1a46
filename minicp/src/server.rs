//! Start and stop.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mote_api::time::Time;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::api::Api;
use crate::api::client::Client;
use crate::api::events::EVENT_TTL_SECONDS;
use crate::audit::Audit;
use crate::auth::bootstrap;
use crate::auth::tokens::{Tokens, account::Accounts};
use crate::clock::Clock;
use crate::config::Config;
use crate::http::{self, App, HANDSHAKE_TIMEOUT};
use crate::pki::{self, Authority, Identity, Use};
use crate::store::etcd::{EtcdConfig, EtcdStore};
use crate::store::log::LogStore;
use crate::store::log::disk::Folder;
use crate::store::snapshot::schedule::Source;
use crate::store::{Store, sealed, snapshot};
use crate::user::UserInfo;
use crate::{Dial, control, crd, endpoints, seed};

/// Bytes between the two ends of a connection in memory.
const DUPLEX_BYTES: usize = 64 << 10;

/// Why a control plane did not start: operation, object, cause.
#[derive(thiserror::Error, Debug)]
#[error("{0}")]
pub struct StartError(pub String);

impl StartError {
    fn from(e: impl std::fmt::Display) -> StartError {
        StartError(e.to_string())
    }
}

/// A running control plane; cheap to clone. Lives in a tokio `LocalSet`.
#[derive(Clone)]
pub struct Server(Rc<Running>);

struct Running {
    app: Rc<App>,
    url: String,
    authority: Arc<Authority>,
    admin: Identity,
    stop: watch::Sender<bool>,
    /// Scheduler and controllers, until the server stops.
    controllers: RefCell<Option<control::Work>>,
}

impl Server {
    /// Opens or recovers the store, makes what is missing of CA and certificates, binds, seeds what every cluster has, starts scheduler and
    /// controllers. Ready to serve when it returns.
    pub async fn start(config: Config, clock: Rc<dyn Clock>) -> Result<Server, StartError> {
        let now = clock.now();
        pki::files::make_private_dir(&config.data_dir)
            .map_err(|e| StartError(format!("make data folder {}: {e}", config.data_dir.display())))?;
        // The store's lock first: two servers on one folder must not both make a CA.
        let place = Place::of(&config).await?;
        // On another thread while the store is opened: both wait for the disk.
        let (pki_dir, names) = (config.data_dir.join("pki"), sans(&config));
        let certificates = tokio::task::spawn_blocking(move || Certificates::make(&pki_dir, &names, now));
        let store = place.open().await?;
        let source = match config.etcd {
            Some(_) => Source::Engine(store.clone()),
            None => Source::Folder(config.data_dir.join("store")),
        };
        let encryption = optional(&config.data_dir.join("encryption.yaml"))?;
        let store = match sealed::open(store.clone(), encryption.as_deref()).await {
            Ok(sealed) => sealed,
            Err(why) => {
                // Its lock is for the next try.
                store.close().await;
                return Err(StartError(why));
            }
        };
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|e| StartError(format!("listen on {}: {e}", config.listen)))?;
        let bound = listener.local_addr().map_err(StartError::from)?;
        let config = Rc::new(Config { listen: bound, ..config });

        let certificates = certificates.await.map_err(StartError::from)??;
        let Certificates { authority, secrets, tls, node_tls, admin } = certificates;
        let api = Api::new(store, clock, config.clone(), authority.ca_pem.as_str().into());
        let client = Client::new(api.clone(), "kube-controller-manager");
        let seeded = seed::seed(&client, &config, bound.port()).await;
        seeded.map_err(|e| StartError(format!("seed the cluster: {}", e.message)))?;
        // Before anybody asks: what was defined is served as if it had been built in.
        let defined = crd::load(&api).await.map_err(|e| StartError(format!("read definitions: {}", e.message)))?;
        let accounts = Accounts::new(&secrets.account_keys, &config.cluster_domain).map_err(StartError)?;
        let tokens = Tokens::new(secrets.join_token, accounts, &config.data_dir).map_err(StartError)?;

        let audit = Audit::open(&config.data_dir).map_err(StartError)?;
        let (stop, stopping) = watch::channel(false);
        let url = format!("https://{}", SocketAddr::new(config.advertise, bound.port()));
        let app = Rc::new(App {
            api,
            url: url.clone(),
            tokens,
            local_nodes: RefCell::new(HashMap::new()),
            node_tls,
            pod_tls: pki::tls::to_anybody().map_err(StartError::from)?,
            connections: Cell::new(0),
            peers: RefCell::default(),
            flow: Rc::default(),
            audit,
            stopping,
            watches: Cell::new(0),
        });
        tokio::task::spawn_local(crd::run(app.api.clone(), defined));
        tokio::task::spawn_local(accept(app.clone(), listener, tls));
        let me = || format!("{}_{}", SocketAddr::new(config.advertise, bound.port()), app.api.uuid());
        let controllers = config.controllers.then(|| control::Work::start(&client, &config, me()));
        tokio::task::spawn_local(crate::api::admit::quota::run(client.api()));
        tokio::task::spawn_local(crate::api::budgets::run(client.api()));
        tokio::task::spawn_local(bootstrap::aggregate(client.named("clusterrole-aggregation-controller")));
        tokio::task::spawn_local(pki::signer::run(client, authority.clone()));
        if let Some(schedule) = config.backup.clone() {
            let api = app.api.clone();
            tokio::task::spawn_local(snapshot::schedule::run(source, schedule, move || api.now()));
        }
        Ok(Server(Rc::new(Running { app, url, authority, admin, stop, controllers: RefCell::new(controllers) })))
    }
    /// `https://ADDRESS:PORT`
    pub fn url(&self) -> String {
        self.0.url.clone()
    }
    /// Whether it is reached from this machine alone.
    pub fn is_local(&self) -> bool {
        self.0.app.api.config.advertise.is_loopback()
    }
    pub fn ca_pem(&self) -> &str {
        &self.0.authority.ca_pem
    }
    /// A kubeconfig (YAML) with the admin's client certificate inside: keep it at 0600.
    pub fn admin_kubeconfig(&self) -> String {
        pki::kubeconfig(&self.0.url, &self.0.authority.ca_pem, &self.0.admin)
    }
    /// `<id>.<secret>@sha256:<hex of the CA certificate's DER>`, for `mote agent --token`.
    pub fn join_token(&self) -> String {
        format!("{}@sha256:{}", self.0.app.tokens.join, self.0.authority.pin)
    }
    /// The in-process API, as the controllers use it.
    pub fn client(&self) -> Client {
        Client::new(self.0.app.api.clone(), "mote")
    }
    /// An HTTP/1.1 connection over memory, already authenticated as `user`.
    pub fn connect(&self, user: UserInfo) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(DUPLEX_BYTES);
        tokio::task::spawn_local(http::serve(self.0.app.clone(), ours, Some(Rc::new(user)), None));
        theirs
    }
    /// How log and exec requests reach the agent in this process, instead of https://ADDRESS:PORT of the Node object.
    pub fn set_local_node(&self, name: &str, dial: Dial) {
        self.0.app.local_nodes.borrow_mut().insert(name.into(), dial);
    }
    /// Serves at one more address, on the same port and with a certificate of its own, and sends the pods there: it becomes the endpoint of
    /// the `kubernetes` Service. For a server that otherwise listens on loopback alone, which no pod reaches.
    pub async fn serve_pods_at(&self, address: IpAddr) -> Result<(), StartError> {
        let (app, config) = (&self.0.app, &self.0.app.api.config);
        let at = SocketAddr::new(address, config.listen.port());
        let mut names = sans(config);
        names.push(address.to_string());
        let tls = serving(&self.0.authority, &names, app.api.now())?;
        let listener = TcpListener::bind(at).await.map_err(|e| StartError(format!("listen on {at}: {e}")))?;
        tokio::task::spawn_local(accept(app.clone(), listener, tls));
        let published = endpoints::publish(&self.client(), at).await;
        published.map_err(|e| StartError(format!("publish {at} as the kubernetes Service: {}", e.message)))
    }
    /// Ends watches and connections, waits for the disk. All clones are stopped with it.
    pub async fn stop(self) {
        let controllers = self.0.controllers.borrow_mut().take();
        if let Some(controllers) = controllers {
            controllers.end().await;
        }
        let _ = self.0.stop.send(true);
        self.0.app.api.store.close().await;
    }
}

/// Keys and certificates of a start.
struct Certificates {
    authority: Arc<Authority>,
    secrets: pki::Secrets,
    tls: Arc<ServerConfig>,
    node_tls: Arc<ClientConfig>,
    admin: Identity,
}

impl Certificates {
    /// Makes or loads them; waits for the disk.
    fn make(dir: &Path, names: &[String], now: Time) -> Result<Self, StartError> {
        let (authority, secrets) = pki::open(dir, now).map_err(StartError::from)?;
        let to_nodes = UserInfo::new("kube-apiserver-kubelet-client", &["system:masters"]);
        let to_nodes = authority.issue(&to_nodes, &[], Use::Client, now).map_err(StartError::from)?;
        Ok(Certificates {
            tls: serving(&authority, names, now)?,
            node_tls: pki::tls::client(&authority, &to_nodes).map_err(StartError::from)?,
            admin: authority.admin(dir, now).map_err(StartError::from)?,
            authority: Arc::new(authority),
            secrets,
        })
    }
}

/// Where the state is.
enum Place {
    Etcd(EtcdConfig),
    /// A folder that nobody else opens from now on.
    Locked(Folder),
}

impl Place {
    async fn of(config: &Config) -> Result<Place, StartError> {
        let Some(etcd) = &config.etcd else {
            let folder = LogStore::lock(&config.data_dir.join("store")).await;
            return Ok(Place::Locked(folder.map_err(StartError::from)?));
        };
        let event_ttl = Duration::from_secs(u64::try_from(EVENT_TTL_SECONDS).unwrap_or(0));
        Ok(Place::Etcd(EtcdConfig { event_ttl, ..etcd.clone() }))
    }
    /// The engine for it. Values are as they are stored: not opened yet.
    async fn open(self) -> Result<Rc<dyn Store>, StartError> {
        Ok(match self {
            Place::Etcd(etcd) => Rc::new(EtcdStore::open(&etcd).await.map_err(StartError::from)?),
            Place::Locked(folder) => Rc::new(LogStore::open_locked(folder).map_err(StartError::from)?),
        })
    }
}

/// A file that need not be there.
fn optional(path: &Path) -> Result<Option<String>, StartError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StartError(format!("read {}: {e}", path.display()))),
    }
}

/// TLS with a fresh certificate for these names.
fn serving(authority: &Authority, names: &[String], now: Time) -> Result<Arc<ServerConfig>, StartError> {
    let user = UserInfo::new("kube-apiserver", &[]);
    let identity = authority.issue(&user, names, Use::Server, now).map_err(StartError::from)?;
    pki::tls::server(authority, &identity).map_err(StartError::from)
}

/// Every name and address by which clients reach this server.
fn sans(config: &Config) -> Vec<String> {
    let domain = &config.cluster_domain;
    let mut names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(Into::into).into();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.extend(["127.0.0.1".into(), "::1".into(), config.advertise.to_string()]);
    if !config.listen.ip().is_unspecified() {
        names.push(config.listen.ip().to_string());
    }
    names.extend(config.service_cidr.nth(1).map(|ip| ip.to_string()));
    names.extend(config.extra_sans.iter().cloned());
    names.sort();
    names.dedup();
    names
}

async fn accept(app: Rc<App>, listener: TcpListener, tls: Arc<ServerConfig>) {
    let acceptor = TlsAcceptor::from(tls);
    let mut stopping = app.stopping.clone();
    loop {
        let accepted = tokio::select! {
            _ = stopping.wait_for(|s| *s) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, from)) => {
                let most = app.api.config.connections_max;
                if app.connections.get() >= most {
                    log::warn!("connection from {from} refused: {most} are open");
                    continue;
                }
                let Some(peer) = Peer::new(&app, from.ip()) else {
                    log::debug!("connection from {from} refused: that address has three quarters of {most}");
                    continue;
                };
                let connection = connection(app.clone(), acceptor.clone(), tcp, from);
                tokio::task::spawn_local(async move {
                    connection.await;
                    drop(peer);
                });
            }
            Err(e) => {
                // Out of descriptors, most likely: give others time to close theirs.
                log::warn!("accept a connection: {e}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection of an address, as long as it is held.
struct Peer(Rc<App>, IpAddr);

impl Peer {
    fn new(app: &Rc<App>, address: IpAddr) -> Option<Peer> {
        let mut peers = app.peers.borrow_mut();
        let count = peers.entry(address).or_default();
        // So that there is room for the nodes when one client holds all it can get.
        if *count >= app.api.config.connections_max / 4 * 3 {
            return None;
        }
        *count += 1;
        Some(Peer(app.clone(), address))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut peers = self.0.peers.borrow_mut();
        if let Some(count) = peers.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.1);
            }
        }
    }
}

async fn connection(app: Rc<App>, acceptor: TlsAcceptor, tcp: TcpStream, from: SocketAddr) {
    let _ = tcp.set_nodelay(true);
    // Counted from here, so that handshakes cannot pile up.
    app.connections.set(app.connections.get() + 1);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await;
    app.connections.set(app.connections.get() - 1);
    match handshake {
        Ok(Ok(stream)) => {
            let peer = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
            let user = peer.and_then(|c| pki::user_of(c)).map(Rc::new);
            http::serve(app, stream, user, Some(from.ip())).await;
        }
        Ok(Err(e)) => log::debug!("TLS handshake with {from}: {e}"),
        Err(_) => log::debug!("TLS handshake with {from}: no end in time"),
    }
}
