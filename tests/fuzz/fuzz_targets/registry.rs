//! What stands in files and beside images: hosts.toml, docker configurations, policies, proxies, signed documents, keys. First byte: which.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_images::registry::url::Url;
use mote_images::registry::{proxy, toml};
use mote_images::signature::{evidence, key::PublicKey, payload, policy::Policy};
use mote_images::{Credentials, Reference};

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let Ok(reference) = "r.example:5000/team/app:1".parse::<Reference>() else { return };
    match first % 6 {
        0 => {
            let _ = std::str::from_utf8(rest).map(toml::parse);
        }
        1 => {
            let _ = Credentials::all_from_docker_config(rest, &reference);
        }
        2 => {
            if let Ok(policy) = Policy::parse(rest) {
                let _ = policy.of(&reference);
            }
        }
        3 => {
            let _ = payload::listed(rest);
            let _ = payload::claim(rest);
            let kept = evidence::decode(rest);
            assert_eq!(evidence::decode(&evidence::encode(&kept)), kept);
        }
        4 => {
            for key in PublicKey::all_from_pem(rest).unwrap_or_default() {
                assert!(!key.verifies(b"message", rest));
            }
        }
        _ => {
            let (Ok(list), Some(url)) = (std::str::from_utf8(rest), Url::parse("https://10.1.2.3:5000/v2/")) else { return };
            let _ = proxy::choose(&url, &|_| Some(list.to_owned()));
        }
    }
});
