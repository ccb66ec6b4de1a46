//! What a registry says: manifests, indexes, image configurations, challenges, redirects. First byte: which.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_images::manifest::{self, Document};
use mote_images::registry::auth;
use mote_images::registry::url::Url;
use mote_images::{ImageConfig, Platform};

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    match first % 3 {
        0 => {
            let Ok(document) = manifest::parse(rest, "", "fuzz") else { return };
            if let (Document::Index(offers), Ok(reference)) = (document, "a.b/c:d".parse()) {
                let _ = manifest::choose(&offers, &Platform::host(), &reference);
            }
        }
        1 => {
            if let Ok((config, ids)) = ImageConfig::parse(rest, "fuzz") {
                let (again, ids_again) =
                    ImageConfig::parse(&config.document(&ids), "again").unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(ids, ids_again);
                assert_eq!(config.document(&ids), again.document(&ids_again));
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(rest) else { return };
            let Some(from) = Url::parse("https://registry.test/v2/") else { return };
            let _ = auth::answer(&from, &[text.to_owned()], None, "repository:a:pull", "repository:b:pull");
            let _ = auth::redirect(&from, text, &[]);
        }
    }
});
