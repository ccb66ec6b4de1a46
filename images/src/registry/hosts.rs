//! Where the bytes of a registry really come from: containerd's `certs.d` folders (containerd docs/hosts.md), and docker's, which hold
//! certificates only. [`endpoints`] decides, pure but for the reading of the named files through [`Files`].
//!
//! ```text
//! <dir>/<host>_<port>_/ or <dir>/<host>:<port>/ or <dir>/<host>/, else <dir>/_default/
//!     hosts.toml                      server, [host."URL"] capabilities, ca, client, skip_verify, header, override_path
//!     *.crt, *.cert with *.key        without hosts.toml: trust anchors, client certificates (docker's layout)
//! ```
//! The first folder that exists is the one that counts.

use std::path::{Path, PathBuf};

use super::Registries;
use super::toml::{self, Table, Toml};
use super::url::{Url, is_loopback};
use crate::limits::{ENDPOINTS_MAX, HOST_FILE_BYTES_MAX};
use crate::{Error, Reference};

/// What a place may be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Content by digest.
    pub pull: bool,
    /// Which digest a tag means.
    pub resolve: bool,
    pub push: bool,
}

/// What a request needs of a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    Pull,
    Resolve,
    Push,
}

impl Capabilities {
    const ALL: Capabilities = Capabilities { pull: true, resolve: true, push: true };

    /// Whether the place may be asked.
    pub fn allow(self, need: Need) -> bool {
        match need {
            Need::Pull => self.pull,
            Need::Resolve => self.resolve,
            Need::Push => self.push,
        }
    }
}

/// A client certificate (with its chain) and its key, PEM both.
pub type ClientPem = (Vec<u8>, Vec<u8>);

/// One place that serves a repository.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its path ends where the repository's name begins: `/v2`, or a mirror's own prefix.
    pub base: Url,
    pub can: Capabilities,
    /// Trust anchors (PEM) beside the system's.
    pub ca_pem: Vec<u8>,
    pub client: Vec<ClientPem>,
    pub skip_verify: bool,
    /// Sent with every request to this host.
    pub headers: Vec<(String, String)>,
    /// Not the registry itself: told by `?ns=` whose content is wanted, and given up on early.
    pub mirror: bool,
    /// The scheme was guessed (loopback), TLS may be right too.
    pub guessed: bool,
}

/// Reads of files and folders, so that decisions can be tested without any.
pub trait Files {
    /// Content; `None` where there is no such file.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error>;
    /// Names in a folder, sorted; `None` where there is no such folder.
    fn list(&self, path: &Path) -> Result<Option<Vec<String>>, Error>;
}

/// The machine's own.
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        crate::file::read_bounded(path, HOST_FILE_BYTES_MAX)
    }

    fn list(&self, path: &Path) -> Result<Option<Vec<String>>, Error> {
        if path.is_dir() { crate::file::names(path).map(Some) } else { Ok(None) }
    }
}

/// Whether anybody but the registry itself may be asked.
pub fn has_mirrors(reference: &Reference, registries: &Registries) -> bool {
    endpoints(reference, registries, &Disk).is_ok_and(|list| list.len() > 1)
}

/// The places to ask for the repository of a reference, in order; the registry itself is the last.
pub fn endpoints(reference: &Reference, registries: &Registries, files: &dyn Files) -> Result<Vec<Endpoint>, Error> {
    let host = reference.registry();
    let mut list = Vec::new();
    for (_, mirror) in registries.mirrors.iter().filter(|(of, _)| of == host) {
        let base = Url::parse(mirror)
            .ok_or_else(|| Error::refused(format!("mirror {mirror:?}"), "not an http or https URL"))?;
        list.push(Endpoint {
            can: Capabilities { push: false, ..Capabilities::ALL },
            mirror: true,
            ..Endpoint::of(v2(base))
        });
    }
    let own = own_endpoint(host, &registries.plain_http);
    match folder(host, &registries.hosts_dirs, files)? {
        None => list.push(own),
        Some((dir, names)) if names.iter().any(|name| name == "hosts.toml") => {
            let path = dir.join("hosts.toml");
            let bytes = files.read(&path)?.unwrap_or_default();
            let bad = |why: String| Error::corrupt(path.display().to_string(), why);
            let text = String::from_utf8(bytes).map_err(|_| bad("not UTF-8".to_owned()))?;
            let file = toml::parse(&text).map_err(bad)?;
            from_file(&file, own, &Section { dir: &dir, path: &path, files }, &mut list)?;
        }
        Some((dir, names)) => list.push(Endpoint { guessed: false, ..with_certificates(own, &dir, &names, files)? }),
    }
    if registries.no_mirrors {
        list.drain(..list.len().saturating_sub(1));
    }
    if list.len() > ENDPOINTS_MAX {
        return Err(Error::refused(
            format!("registry {host}"),
            format!("{} mirrors, at most {ENDPOINTS_MAX} are supported", list.len()),
        ));
    }
    Ok(list)
}

impl Endpoint {
    fn of(base: Url) -> Endpoint {
        Endpoint {
            base,
            can: Capabilities::ALL,
            ca_pem: Vec::new(),
            client: Vec::new(),
            skip_verify: false,
            headers: Vec::new(),
            mirror: false,
            guessed: false,
        }
    }
}

/// The registry itself. Loopback speaks plain HTTP unless it turns out not to; everything else only where configured (as docker does).
fn own_endpoint(host: &str, plain_http: &[String]) -> Endpoint {
    let authority = if host == crate::reference::DEFAULT_REGISTRY { "registry-1.docker.io" } else { host }.to_owned();
    let configured = plain_http.iter().any(|plain| plain.eq_ignore_ascii_case(host));
    let loopback = is_loopback(&authority);
    let base = Url { https: !configured && !loopback, authority, path: "/v2".to_owned() };
    Endpoint { guessed: loopback && !configured, ..Endpoint::of(base) }
}

/// A host's URL with the API's version at the end of its path.
fn v2(base: Url) -> Url {
    let path = base.path.split('?').next().unwrap_or_default().trim_end_matches('/');
    let path = if path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
    Url { path, ..base }
}

fn folder(host: &str, dirs: &[PathBuf], files: &dyn Files) -> Result<Option<(PathBuf, Vec<String>)>, Error> {
    let mut names = Vec::new();
    if let Some((name, port)) = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())) {
        names.push(format!("{name}_{port}_"));
    }
    names.push(host.to_owned());
    let specific = names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    for dir in specific.chain(dirs.iter().map(|dir| dir.join("_default"))) {
        if let Some(names) = files.list(&dir)? {
            return Ok(Some((dir, names)));
        }
    }
    Ok(None)
}

/// docker's layout: `*.crt` are trust anchors, `NAME.cert` and `NAME.key` a client certificate.
fn with_certificates(
    mut endpoint: Endpoint,
    dir: &Path,
    names: &[String],
    files: &dyn Files,
) -> Result<Endpoint, Error> {
    for name in names {
        let read = |name: &str| files.read(&dir.join(name)).map(Option::unwrap_or_default);
        if name.ends_with(".crt") {
            endpoint.ca_pem.extend(read(name)?);
            endpoint.ca_pem.push(b'\n');
        } else if let Some(stem) = name.strip_suffix(".cert") {
            let key = format!("{stem}.key");
            if !names.contains(&key) {
                return Err(Error::refused(
                    dir.join(name).display().to_string(),
                    format!("a client certificate without its key {key}"),
                ));
            }
            endpoint.client.push((read(name)?, read(&key)?));
        }
    }
    if !endpoint.ca_pem.is_empty() || !endpoint.client.is_empty() {
        endpoint.base.https = true;
    }
    Ok(endpoint)
}

/// Where a section's errors and relative paths belong.
struct Section<'a> {
    dir: &'a Path,
    path: &'a Path,
    files: &'a dyn Files,
}

fn from_file(file: &Table, own: Endpoint, at: &Section<'_>, list: &mut Vec<Endpoint>) -> Result<(), Error> {
    match file.get("host") {
        None => {}
        Some(Toml::Table(hosts)) => {
            for (url, section) in &hosts.0 {
                let Toml::Table(section) = section else { return Err(at.bad(format!("host.{url:?} is no table"))) };
                let base = if url.contains("://") { Url::parse(url) } else { Url::parse(&format!("https://{url}")) };
                let base = base.ok_or_else(|| at.bad(format!("host {url:?} is no http or https URL")))?;
                let mirror = base.authority != own.base.authority;
                list.push(at.endpoint(section, Endpoint { mirror, ..Endpoint::of(base) })?);
            }
        }
        Some(_) => return Err(at.bad("host is no table".to_owned())),
    }
    let server = match at.text(file, "server")? {
        Some(url) => {
            let base = if url.contains("://") { Url::parse(url) } else { Url::parse(&format!("https://{url}")) };
            let base = base.ok_or_else(|| at.bad(format!("server {url:?} is no http or https URL")))?;
            let mirror = base.authority != own.base.authority;
            Endpoint { mirror, ..Endpoint::of(base) }
        }
        None => own,
    };
    list.push(at.endpoint(file, server)?);
    // A host that is listed and is the server too is asked once.
    if let [.., before, last] = list.as_slice()
        && before.base == last.base
        && before.can == last.can
    {
        list.pop();
    }
    Ok(())
}

impl Section<'_> {
    fn bad(&self, why: String) -> Error {
        Error::corrupt(self.path.display().to_string(), why)
    }

    fn text<'t>(&self, table: &'t Table, key: &str) -> Result<Option<&'t str>, Error> {
        match table.get(key) {
            None => Ok(None),
            Some(Toml::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.bad(format!("{key} is no string"))),
        }
    }

    fn flag(&self, table: &Table, key: &str) -> Result<bool, Error> {
        match table.get(key) {
            None => Ok(false),
            Some(Toml::Flag(flag)) => Ok(*flag),
            Some(_) => Err(self.bad(format!("{key} is neither true nor false"))),
        }
    }

    fn endpoint(&self, table: &Table, mut endpoint: Endpoint) -> Result<Endpoint, Error> {
        if !self.flag(table, "override_path")? {
            endpoint.base = v2(endpoint.base);
        }
        endpoint.base.path = endpoint.base.path.trim_end_matches('/').to_owned();
        endpoint.skip_verify = self.flag(table, "skip_verify")?;
        if let Some(value) = table.get("capabilities") {
            let words = texts(value).ok_or_else(|| self.bad("capabilities is no list of strings".to_owned()))?;
            endpoint.can = Capabilities { pull: false, resolve: false, push: false };
            for word in words {
                match word {
                    "pull" => endpoint.can.pull = true,
                    "resolve" => endpoint.can.resolve = true,
                    "push" => endpoint.can.push = true,
                    "referrers" => {} // named by newer files; we ask whoever may resolve
                    other => return Err(self.bad(format!("unknown capability {other:?}"))),
                }
            }
        }
        if let Some(value) = table.get("ca") {
            for path in
                texts(value).ok_or_else(|| self.bad("ca is neither a string nor a list of strings".to_owned()))?
            {
                endpoint.ca_pem.extend(self.file(path)?);
                endpoint.ca_pem.push(b'\n');
            }
        }
        if let Some(value) = table.get("client") {
            endpoint.client = self.clients(value)?;
        }
        if let Some(value) = table.get("header") {
            let Toml::Table(headers) = value else { return Err(self.bad("header is no table".to_owned())) };
            for (name, value) in &headers.0 {
                let values = texts(value)
                    .ok_or_else(|| self.bad(format!("header {name:?} is neither a string nor a list of strings")))?;
                endpoint.headers.extend(values.into_iter().map(|value| (name.clone(), value.to_owned())));
            }
        }
        Ok(endpoint)
    }

    /// One file with certificate and key, several of those, or pairs of certificate and key.
    fn clients(&self, value: &Toml) -> Result<Vec<ClientPem>, Error> {
        let shape = || self.bad("client is no file name, list of file names, or list of pairs".to_owned());
        let mut list = Vec::new();
        if let Some(names) = texts(value) {
            for name in names {
                let both = self.file(name)?;
                list.push((both.clone(), both));
            }
            return Ok(list);
        }
        let Toml::List(pairs) = value else { return Err(shape()) };
        for pair in pairs {
            match texts(pair).ok_or_else(shape)?.as_slice() {
                [both] | [both, ""] => {
                    let both = self.file(both)?;
                    list.push((both.clone(), both));
                }
                [certificate, key] => list.push((self.file(certificate)?, self.file(key)?)),
                _ => return Err(shape()),
            }
        }
        Ok(list)
    }

    fn file(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.dir.join(name);
        self.files.read(&path)?.ok_or_else(|| self.bad(format!("{} does not exist", path.display())))
    }
}

/// A string, or a list of strings.
fn texts(value: &Toml) -> Option<Vec<&str>> {
    match value {
        Toml::Text(text) => Some(vec![text]),
        Toml::List(list) => {
            list.iter().map(|item| if let Toml::Text(text) = item { Some(text.as_str()) } else { None }).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
