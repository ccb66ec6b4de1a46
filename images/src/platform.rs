//! Platforms in Go's words (`linux/arm64/v8`), and the choice of the best manifest of an index for a machine
//! (OCI image index, "platform"; variants as containerd's platforms package orders them; for s390x and ppc64le, where the specification
//! names none, the levels of their compilers: `z14`, `power9`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

mod level;

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
            ("powerpc64le" | "ppc64el" | "ppc64le", "" | "power8" | "pwr8") => ("ppc64le", ""),
            ("powerpc64le" | "ppc64el" | "ppc64le", "pwr9") => ("ppc64le", "power9"),
            ("powerpc64le" | "ppc64el" | "ppc64le", "pwr10") => ("ppc64le", "power10"),
            ("powerpc64le" | "ppc64el" | "ppc64le", other) => ("ppc64le", other),
            (architecture, variant) => (architecture, variant),
        };
        Platform { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// What programs for this machine are built for: its architecture at the base level.
    pub fn host() -> Platform {
        Platform::new("linux", machine(std::env::consts::ARCH, cfg!(target_endian = "little")), "")
    }

    /// This machine's own, with the level its processor reaches: what to choose an image by.
    pub fn machine() -> Platform {
        let host = Platform::host();
        Platform::new(&host.os, &host.architecture, &level::of_machine(&host.architecture))
    }

    /// How well a machine of this platform runs an image for `offer`: `None` not at all, else higher is better.
    pub fn suits(&self, offer: &Platform) -> Option<u32> {
        if self.os != offer.os {
            return None;
        }
        let (mine, theirs) = (self.level(), offer.level());
        match (self.architecture.as_str(), offer.architecture.as_str()) {
            (a, b) if a == b => (theirs <= mine).then_some(100 + theirs),
            // A 64-bit ARM machine usually runs 32-bit programs; always second to the real thing. (386 on amd64 is left out: the
            // default seccomp profile stops its system calls.)
            ("arm64", "arm") => Some(theirs.min(50)),
            _ => None,
        }
    }

    fn level(&self) -> u32 {
        // The names of the older mainframes count otherwise: z196, zEC12, then z13 and on.
        match (self.architecture.as_str(), self.variant.as_str()) {
            ("s390x", "z196") => return 11,
            ("s390x", "zec12" | "zbc12") => return 12,
            _ => {}
        }
        // "v8", "power9", "z14": the first number; a minor one ("v8.2") does not count.
        let digits = self.variant.trim_start_matches(|c: char| !c.is_ascii_digit());
        let digits = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        match (self.architecture.as_str(), digits.parse::<u32>()) {
            (_, Ok(level)) if level < 100 => level,
            ("arm64", _) => 8,
            ("arm", _) => 7,
            ("amd64", _) => 1,
            ("ppc64le", _) => 8,
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
            ("linux/ppc64le/power8", "linux/ppc64le"),
            ("linux/ppc64le/pwr10", "linux/ppc64le/power10"),
            ("linux/s390x/Z14", "linux/s390x/z14"),
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
            ("linux/amd64/v4", &["linux/amd64", "linux/amd64/v3", "linux/amd64/v4", "linux/amd64/v2"], Some(2)),
            ("linux/amd64/v2", &["linux/amd64/v3"], None),
            ("linux/arm64", &["linux/arm64/v9"], None),
            ("linux/arm/v5", &["linux/arm/v6"], None),
            ("linux/s390x/z14", &["linux/s390x", "linux/s390x/z15", "linux/s390x/z13", "linux/s390x/zec12"], Some(2)),
            ("linux/s390x", &["linux/s390x/z13"], None),
            ("linux/ppc64le/power9", &["linux/ppc64le", "linux/ppc64le/power10", "linux/ppc64le/power9"], Some(2)),
            ("linux/ppc64le", &["linux/ppc64le/power9", "linux/ppc64le/power8"], Some(1)),
        ];
        for (want, offers, index) in table {
            let offers: Vec<Platform> = offers.iter().map(|text| platform(text)).collect();
            assert_eq!(platform(want).choose(offers.iter()), *index, "{want} of {offers:?}");
        }
    }
}
