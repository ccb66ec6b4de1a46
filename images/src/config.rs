//! The image configuration: what an image says about how to run it (OCI image specification, "config.md"; Docker's own form is the same).

use serde_json::Value;

use crate::Error;
use crate::digest::DiffId;
use crate::limits::LAYERS_MAX;
use crate::platform::Platform;

/// The checked part of an image configuration that a runtime needs.
#[derive(Clone, PartialEq, Debug)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Empty means `/`.
    pub working_dir: String,
    /// `""`, `uid`, `uid:gid`, `name`, `name:group`.
    pub user: String,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    pub volumes: Vec<String>,
    /// `SIGTERM`, `15`; empty means SIGTERM.
    pub stop_signal: String,
    pub labels: Vec<(String, String)>,
    pub platform: Platform,
    /// RFC 3339 time or empty.
    pub created: String,
}

impl Default for ImageConfig {
    fn default() -> ImageConfig {
        ImageConfig {
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            working_dir: String::new(),
            user: String::new(),
            exposed_ports: Vec::new(),
            volumes: Vec::new(),
            stop_signal: String::new(),
            labels: Vec::new(),
            platform: Platform::host(),
            created: String::new(),
        }
    }
}

impl ImageConfig {
    /// Reads a configuration; also returns the layers' identities, base first.
    pub fn parse(bytes: &[u8], what: &str) -> Result<(ImageConfig, Vec<DiffId>), Error> {
        let corrupt = |why: String| Error::corrupt(what, why);
        let root: Value =
            serde_json::from_slice(bytes).map_err(|e| corrupt(format!("image configuration is no JSON: {e}")))?;
        let kind = root.pointer("/rootfs/type").and_then(Value::as_str).unwrap_or("layers");
        if kind != "layers" {
            return Err(corrupt(format!("rootfs.type is {kind:?}, want \"layers\"")));
        }
        let ids = root.pointer("/rootfs/diff_ids").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if ids.len() > LAYERS_MAX {
            return Err(Error::refused(what, format!("{} layers, at most {LAYERS_MAX} are supported", ids.len())));
        }
        let mut diff_ids = Vec::with_capacity(ids.len());
        for id in ids {
            diff_ids.push(
                id.as_str().unwrap_or_default().parse().map_err(|e: Error| corrupt(format!("rootfs.diff_ids: {e}")))?,
            );
        }
        let word = |name: &str| root.get(name).and_then(Value::as_str).unwrap_or_default();
        let inner = |name: &str| root.pointer("/config").and_then(|config| config.get(name));
        let text = |name: &str| inner(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = |name: &str| -> Result<Vec<String>, Error> {
            match inner(name) {
                None | Some(Value::Null) => Ok(Vec::new()),
                Some(Value::Array(items)) => items
                    .iter()
                    .map(|item| {
                        item.as_str()
                            .map(str::to_owned)
                            .ok_or_else(|| corrupt(format!("config.{name} is no list of strings")))
                    })
                    .collect(),
                Some(_) => Err(corrupt(format!("config.{name} is no list of strings"))),
            }
        };
        let keys = |name: &str| {
            inner(name).and_then(Value::as_object).map(|map| map.keys().cloned().collect()).unwrap_or_default()
        };
        let labels = inner("Labels").and_then(Value::as_object);
        let config = ImageConfig {
            entrypoint: list("Entrypoint")?,
            cmd: list("Cmd")?,
            env: list("Env")?,
            working_dir: text("WorkingDir"),
            user: text("User"),
            exposed_ports: keys("ExposedPorts"),
            volumes: keys("Volumes"),
            stop_signal: text("StopSignal"),
            labels: labels
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
                .collect(),
            platform: Platform::new(word("os"), word("architecture"), word("variant")),
            created: word("created").to_owned(),
        };
        Ok((config, diff_ids))
    }

    /// The configuration document for these layers; the same input gives the same bytes (keys are sorted by serde_json's map).
    pub fn document(&self, diff_ids: &[DiffId]) -> Vec<u8> {
        let mut config = serde_json::Map::new();
        let mut list = |name: &str, items: &[String]| {
            if !items.is_empty() {
                config.insert(name.to_owned(), items.into());
            }
        };
        list("Entrypoint", &self.entrypoint);
        list("Cmd", &self.cmd);
        list("Env", &self.env);
        for (name, text) in [("WorkingDir", &self.working_dir), ("User", &self.user), ("StopSignal", &self.stop_signal)]
        {
            if !text.is_empty() {
                config.insert(name.to_owned(), text.as_str().into());
            }
        }
        for (name, items) in [("ExposedPorts", &self.exposed_ports), ("Volumes", &self.volumes)] {
            if !items.is_empty() {
                let map = items.iter().map(|item| (item.clone(), Value::Object(serde_json::Map::new()))).collect();
                config.insert(name.to_owned(), Value::Object(map));
            }
        }
        if !self.labels.is_empty() {
            let map = self.labels.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
            config.insert("Labels".to_owned(), Value::Object(map));
        }
        let ids: Vec<String> = diff_ids.iter().map(DiffId::to_string).collect();
        let mut root = serde_json::json!({
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": ids },
        });
        if let Some(map) = root.as_object_mut() {
            for (name, text) in [("variant", &self.platform.variant), ("created", &self.created)] {
                if !text.is_empty() {
                    map.insert(name.to_owned(), text.as_str().into());
                }
            }
        }
        root.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/bin/sh".into()],
            cmd: vec!["-c".into(), "true".into()],
            env: vec!["A=1".into()],
            working_dir: "/w".into(),
            user: "1:2".into(),
            exposed_ports: vec!["80/tcp".into()],
            volumes: vec!["/v".into()],
            stop_signal: "SIGQUIT".into(),
            labels: vec![("k".into(), "v".into())],
            platform: Platform::new("linux", "arm", "v6"),
            created: "1970-01-01T00:00:00Z".into(),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let ids: Vec<DiffId> = vec![format!("sha256:{}", "1a".repeat(32)).parse().unwrap()];
        for config in [full(), ImageConfig::default()] {
            assert_eq!(ImageConfig::parse(&config.document(&ids), "x").unwrap(), (config, ids.clone()));
        }
    }

    #[test]
    fn an_independent_reader_agrees() {
        let ids: Vec<DiffId> = vec![format!("sha256:{}", "1a".repeat(32)).parse().unwrap()];
        let theirs = oci_spec::image::ImageConfiguration::from_reader(full().document(&ids).as_slice()).unwrap();
        assert_eq!(theirs.rootfs().diff_ids(), &vec![ids[0].to_string()]);
        let inner = theirs.config().clone().unwrap();
        assert_eq!(inner.entrypoint().clone().unwrap(), ["/bin/sh"]);
        assert_eq!(inner.stop_signal().clone().unwrap(), "SIGQUIT");
        assert_eq!(inner.exposed_ports().clone().unwrap(), ["80/tcp"]);
    }

    #[test]
    fn damaged_documents_are_refused_and_nulls_are_not() {
        for text in [
            "",
            "[",
            "{\"rootfs\":{\"type\":\"other\"}}",
            "{\"rootfs\":{\"diff_ids\":[\"x\"]}}",
            "{\"rootfs\":{\"diff_ids\":[1]}}",
            "{\"config\":{\"Cmd\":\"sh\"}}",
            "{\"config\":{\"Env\":[1]}}",
        ] {
            assert!(ImageConfig::parse(text.as_bytes(), "x").is_err(), "{text}");
        }
        let docker = br#"{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"],"Entrypoint":null,"Volumes":null,"Labels":null},"rootfs":{"type":"layers"}}"#;
        let (config, ids) = ImageConfig::parse(docker, "x").unwrap();
        assert_eq!(
            (config.cmd, config.platform.to_string(), ids.len()),
            (vec!["sh".to_owned()], "linux/amd64".to_owned(), 0)
        );
    }
}
