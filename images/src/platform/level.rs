//! The level of the processor we run on: instructions for amd64 (x86-64 psABI, "Micro-Architecture Levels"), the kernel's /proc/cpuinfo for the others.

/// The variant of this machine for its architecture, empty for the base level or where nothing is known.
pub(super) fn of_machine(architecture: &str) -> String {
    if architecture == "amd64" {
        return amd64().to_owned();
    }
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    of_cpuinfo(architecture, &text).to_owned()
}

#[cfg(target_arch = "x86_64")]
fn amd64() -> &'static str {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("cmpxchg16b") && has!("popcnt") && has!("sse3") && has!("ssse3") && has!("sse4.1") && has!("sse4.2");
    let v3 = v2
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe");
    let v4 = v3 && has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
    match (v2, v3, v4) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, ..) => "v2",
        _ => "",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64() -> &'static str {
    ""
}

/// What the kernel says of the first processor.
fn of_cpuinfo(architecture: &str, text: &str) -> &'static str {
    let field = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).next()
    };
    match architecture {
        // "CPU architecture: 7"; a 64-bit processor that runs 32-bit programs says 8
        "arm" => match field("CPU architecture").map(|value| value.trim_end_matches(|c: char| !c.is_ascii_digit())) {
            Some("5") => "v5",
            // the first Raspberry Pi says 7 for its ARMv6 core
            Some("6" | "7") if field("model name").is_some_and(|name| name.starts_with("ARMv6")) => "v6",
            Some("6") => "v6",
            Some("8") => "v8",
            _ => "",
        },
        "ppc64le" => match field("cpu").map(|value| value.split([' ', ',']).next().unwrap_or_default()) {
            Some("POWER9") => "power9",
            Some("POWER10" | "Power11" | "POWER11") => "power10",
            _ => "",
        },
        // "processor 0: version = FF,  identification = 0C8C18,  machine = 8561"
        "s390x" => {
            let machine = text.split("machine = ").nth(1).unwrap_or_default();
            match machine.split_whitespace().next().unwrap_or_default().trim_end_matches(',') {
                "2817" | "2818" => "z196",
                "2827" | "2828" => "zec12",
                "2964" | "2965" => "z13",
                "3906" | "3907" => "z14",
                "8561" | "8562" => "z15",
                "3931" | "3932" => "z16",
                "9175" | "9176" => "z17",
                _ => "",
            }
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_from_cpuinfo() {
        for (architecture, text, want) in [
            (
                "s390x",
                "vendor_id       : IBM/S390\nprocessor 0: version = FF,  identification = 0C8C18,  machine = 8561\nprocessor 1: machine = 2964\n",
                "z15",
            ),
            ("s390x", "processor 0: version = 00,  identification = 000000,  machine = 3906", "z14"),
            ("s390x", "processor 0: machine = 1234", ""),
            ("ppc64le", "processor\t: 0\ncpu\t\t: POWER9 (architected), altivec supported\n", "power9"),
            ("ppc64le", "cpu\t\t: POWER8E, altivec supported\n", ""),
            ("ppc64le", "cpu\t\t: POWER10, altivec supported\n", "power10"),
            ("arm", "model name\t: ARMv7 Processor rev 4 (v7l)\nCPU architecture: 7\n", ""),
            ("arm", "model name\t: ARMv6-compatible processor rev 7 (v6l)\nCPU architecture: 7\n", "v6"),
            ("arm", "CPU architecture: 5TE\n", "v5"),
            ("arm", "CPU architecture: 8\n", "v8"),
            ("arm64", "CPU architecture: 8\n", ""),
            ("s390x", "", ""),
        ] {
            assert_eq!(of_cpuinfo(architecture, text), want, "{architecture} {text:?}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_kernels_flags_agree() {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags")).unwrap();
        let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
        let level = amd64();
        assert_eq!(
            has("avx512vl") && has("avx512bw") && has("avx512dq") && has("avx512cd") && has("avx2"),
            level == "v4",
            "{flags}"
        );
        assert_eq!(has("avx2") && has("bmi2") && has("movbe") && has("fma"), matches!(level, "v3" | "v4"), "{flags}");
        assert_eq!(has("sse4_2"), !level.is_empty(), "{flags}");
    }
}
