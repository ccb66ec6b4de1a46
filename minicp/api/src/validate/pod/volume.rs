//! Rules of volumes in pods.

use std::collections::HashSet;

use crate::field::{Error, Path};
use crate::meta;
use crate::tree::{Value, i64_at, json, list_at, str_at};
use crate::validate::Check;

pub(super) fn volumes(check: &mut Check, spec: &Value, here: Path<'_>) {
    let mut names = HashSet::new();
    for (i, v) in list_at(spec, &["volumes"]).iter().enumerate() {
        let one = here.i(i);
        let name = str_at(v, &["name"]);
        check.required_name(one.f("name"), name, meta::dns_label);
        if !name.is_empty() && !names.insert(name) {
            check.add(Error::duplicate(one.f("name"), &json!(name)));
        }
        let mut sources = v.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).filter(|k| *k != "name");
        if sources.next().is_none() {
            check.required(one, "must specify a volume type");
        }
        for extra in sources {
            check.forbidden(one.f(extra), "may not specify more than 1 volume type");
        }
        volume(check, v, one);
    }
}

fn volume(check: &mut Check, v: &Value, at: Path<'_>) {
    for (source, field) in [
        ("hostPath", "path"),
        ("secret", "secretName"),
        ("configMap", "name"),
        ("persistentVolumeClaim", "claimName"),
        ("nfs", "server"),
        ("csi", "driver"),
    ] {
        let Some(s) = v.get(source) else { continue };
        let here = at.f(source);
        if str_at(s, &[field]).is_empty() {
            check.required(here.f(field), "");
        }
        mode(check, s, here);
        items(check, s, here);
    }
    if let Some(path) = v.get("hostPath") {
        if str_at(path, &["path"]).split('/').any(|p| p == "..") {
            check.invalid(at.f("hostPath").f("path"), path.get("path"), "must not contain '..'");
        }
        let kinds =
            ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
        if !kinds.contains(&str_at(path, &["type"])) {
            check.add(Error::not_supported(at.f("hostPath").f("type"), &json!(str_at(path, &["type"])), &kinds));
        }
    }
    if let Some(dir) = v.get("emptyDir") {
        let medium = str_at(dir, &["medium"]);
        if !matches!(medium, "" | "Memory") && !medium.starts_with("HugePages") {
            check.invalid(at.f("emptyDir").f("medium"), dir.get("medium"), "must be \"\", \"Memory\" or \"HugePages\"");
        }
        if dir
            .get("sizeLimit")
            .and_then(crate::quantity::Quantity::of)
            .is_some_and(crate::quantity::Quantity::is_negative)
        {
            check.invalid(
                at.f("emptyDir").f("sizeLimit"),
                dir.get("sizeLimit"),
                "SizeLimit field must be a valid resource quantity",
            );
        }
    }
    for source in ["downwardAPI", "projected"] {
        if let Some(s) = v.get(source) {
            mode(check, s, at.f(source));
            items(check, s, at.f(source));
        }
    }
}

fn mode(check: &mut Check, source: &Value, at: Path<'_>) {
    if i64_at(source, &["defaultMode"]).is_some_and(|m| !(0..=0o777).contains(&m)) {
        check.invalid(
            at.f("defaultMode"),
            source.get("defaultMode"),
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}

fn items(check: &mut Check, source: &Value, at: Path<'_>) {
    for (i, item) in list_at(source, &["items"]).iter().enumerate() {
        let all = at.f("items");
        let one = all.i(i);
        let path = str_at(item, &["path"]);
        if path.is_empty() {
            check.required(one.f("path"), "");
        } else if path.starts_with('/') {
            check.invalid(one.f("path"), Some(&json!(path)), "must be a relative path");
        } else if path.split('/').any(|p| p == "..") {
            check.invalid(one.f("path"), Some(&json!(path)), "must not contain '..'");
        }
        let from_data = item.get("fieldRef").is_none() && item.get("resourceFieldRef").is_none();
        if from_data && str_at(item, &["key"]).is_empty() {
            check.required(one.f("key"), "");
        }
    }
}
