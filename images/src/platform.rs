//! Platforms in Go's words (`linux/arm64/v8`), and the choice of the best manifest of an index for a machine
//! (OCI image index, "platform"; variants as containerd's platforms package orders them).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Operating system, architecture and variant, normalised.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Debug)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    /// Empty where the architecture has none or the default one (`arm64` is `v8`, `amd64` is `v1`).
    pub variant: String,
}

impl Platform {
    /// Normalised: `x86_64` is `amd64`, `aarch64` is `arm64`, `arm64/v8` is `arm64`, `amd64/v1` is `amd64`, `arm` is `arm/v7`.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Platform {
        let os = os.to_ascii_lowercase();
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
            ("i386" | "i486" | "i586" | "i686" | "386", _) => ("386", ""),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", other) => ("arm64", other),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            ("powerpc64le" | "ppc64el" | "ppc64le", other) => ("ppc64le", other),
            (architecture, variant) => (architecture, variant),
        };
        Platform { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// This machine's. The amd64 level is not probed: every amd64 runs the base level, and better ones must be asked for by name.
    pub fn host() -> Platform {
        Platform::new("linux", machine(std::env::consts::ARCH, cfg!(target_endian = "little")), "")
    }

    /// How well a machine of this platform runs an image for `offer`: `None` not at all, else higher is better.
    pub fn suits(&self, offer: &Platform) -> Option<u32> {
        if self.os != offer.os {
            return None;
        }
        let (mine, theirs) = (self.level(), offer.level());
        match (self.architecture.as_str(), offer.architecture.as_str()) {
            (a, b) if a == b => (theirs <= mine).then_some(100 + theirs),
            // A 64-bit ARM machine usually runs 32-bit programs, an amd64 machine 386 ones; always second to the real thing.
            ("arm64", "arm") => Some(theirs.min(50)),
            _ => None,
        }
    }

    fn level(&self) -> u32 {
        let digits: String = self.variant.chars().filter(char::is_ascii_digit).collect();
        match (self.architecture.as_str(), digits.parse::<u32>()) {
            (_, Ok(level)) if level < 100 => level,
            ("arm64", _) => 8,
            ("arm", _) => 7,
            ("amd64", _) => 1,
            _ => 0,
        }
    }

    /// The index of the offer that suits this machine best; the first of equals.
    pub fn choose<'a>(&self, offers: impl Iterator<Item = &'a Platform>) -> Option<usize> {
        let mut best: Option<(usize, u32)> = None;
        for (index, offer) in offers.enumerate() {
            if let Some(score) = self.suits(offer)
                && best.is_none_or(|(_, other)| score > other)
            {
                best = Some((index, score));
            }
        }
        best.map(|(index, _)| index)
    }
}

/// Rust's name of an architecture, of which `powerpc64` stands for both byte orders, as one [`Platform::new`] knows.
fn machine(rust: &'static str, little_endian: bool) -> &'static str {
    match rust {
        "powerpc64" if little_endian => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = Error;
    fn from_str(text: &str) -> Result<Platform, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |w: &str| {
            !w.is_empty() && w.len() <= 64 && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        match parts.as_slice() {
            [os, architecture] if word(os) && word(architecture) => Ok(Platform::new(os, architecture, "")),
            [os, architecture, variant] if word(os) && word(architecture) && word(variant) => {
                Ok(Platform::new(os, architecture, variant))
            }
            _ => Err(Error::BadReference {
                text: text.chars().take(100).collect(),
                why: "a platform is OS/ARCHITECTURE[/VARIANT]",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_fold_together() {
        for (text, want) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("Linux/arm/6", "linux/arm/v6"),
            ("linux/s390x", "linux/s390x"),
            ("linux/ppc64el", "linux/ppc64le"),
        ] {
            assert_eq!(platform(text).to_string(), want);
        }
        for text in ["", "linux", "linux/", "/amd64", "linux/a/b/c", "li nux/x"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn both_byte_orders_of_power_are_told_apart() {
        assert_eq!(machine("powerpc64", true), "ppc64le");
        assert_eq!(machine("powerpc64", false), "ppc64");
        assert_eq!(machine("s390x", false), "s390x");
        assert_ne!(Platform::host().architecture, "powerpc64");
    }

    #[test]
    fn best_offer_is_chosen() {
        let table: &[(&str, &[&str], Option<usize>)] = &[
            ("linux/amd64", &["linux/arm64", "linux/amd64"], Some(1)),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some(1)),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], Some(1)),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], Some(1)),
            ("linux/arm64", &["linux/arm/v7", "linux/arm64"], Some(1)),
            ("linux/arm64", &["linux/amd64", "linux/arm/v6", "linux/arm/v7"], Some(2)),
            ("linux/s390x", &["linux/amd64", "windows/s390x"], None),
            ("linux/amd64", &["linux/386"], None),
        ];
        for (want, offers, index) in table {
            let offers: Vec<Platform> = offers.iter().map(|text| platform(text)).collect();
            assert_eq!(platform(want).choose(offers.iter()), *index, "{want} of {offers:?}");
        }
    }
}
