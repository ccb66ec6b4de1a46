//! Development tool: the kernel's `asm/unistd*.h` -> one of `src/seccomp/tables/*.txt`.
//!
//! `cargo run -p mote-runtime --example syscall_tables -- COLUMN...`, a column being the header files of one architecture joined by
//! commas, the family's own architecture first (the folders are those of linux-libc-dev, `/usr/lib/linux/uapi`):
//!
//! - `x86_64.txt`: `x86/asm/unistd_64.h x86/asm/unistd_32.h x86/asm/unistd_x32.h`
//! - `aarch64.txt`: `arm64/asm/unistd_64.h arm/asm/unistd-eabi.h,arm/asm/unistd.h`
//! - `s390x.txt`: `s390/asm/unistd_64.h` and, of a kernel before 6.19, `s390/asm/unistd_32.h,@424` (numbers from 424 on are one for all)
//! - `ppc64le.txt`: `powerpc/asm/unistd_64.h`
//!
//! One line per name: the name, then for every column a number, `-` where the architecture has no such call, or `.` for "one more than the
//! number before in this column"; a dot at the end of a line is left out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used)]

use std::collections::BTreeMap;

/// Where ARM's private calls begin.
const ARM_PRIVATE: u32 = 0xf_0000;

fn number(expression: &str, known: &BTreeMap<String, u32>) -> Option<u32> {
    if let Some(name) = expression.strip_prefix("__NR_").filter(|n| known.contains_key(*n)) {
        return known.get(name).copied();
    }
    let digits: String = expression.trim_end_matches(')').chars().rev().take_while(char::is_ascii_digit).collect();
    let number: u32 = digits.chars().rev().collect::<String>().parse().ok()?;
    let x32 = u32::from(expression.contains("X32")) << 30;
    let private = if expression.contains("__ARM_NR_BASE") { ARM_PRIVATE } else { 0 };
    Some(number + x32 + private)
}

fn column(files: &str) -> BTreeMap<String, u32> {
    let mut known = BTreeMap::new();
    for file in files.split(',') {
        let text = std::fs::read_to_string(file).expect(file);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("#define") {
                continue;
            }
            let Some(name) = words.next().and_then(|n| n.strip_prefix("__NR_").or(n.strip_prefix("__ARM_NR_"))) else {
                continue;
            };
            let expression = words.collect::<Vec<_>>().join("");
            if name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                && let Some(number) = number(&expression, &known)
            {
                known.insert(name.to_owned(), number);
            }
        }
    }
    known
}

fn main() {
    let mut columns: Vec<BTreeMap<String, u32>> = Vec::new();
    for argument in std::env::args().skip(1) {
        let (files, shared_from) = argument.split_once(",@").unwrap_or((&argument, "4294967295"));
        let mut known = column(files);
        let from: u32 = shared_from.parse().unwrap();
        for (name, number) in columns.first().into_iter().flatten().filter(|(_, n)| **n >= from) {
            known.entry(name.clone()).or_insert(*number);
        }
        columns.push(known);
    }
    let mut names: Vec<&String> = columns.iter().flat_map(|c| c.keys()).collect();
    names.sort();
    names.dedup();
    names.sort_by_key(|name| columns.iter().map(|c| c.get(*name).copied().unwrap_or(u32::MAX)).collect::<Vec<_>>());
    let mut last: Vec<u32> = vec![u32::MAX; columns.len()];
    for name in names {
        let mut words = vec![name.clone()];
        for (column, last) in columns.iter().zip(&mut last) {
            words.push(match column.get(name) {
                None => "-".to_owned(),
                Some(number) if *number == last.wrapping_add(1) => ".".to_owned(),
                Some(number) => number.to_string(),
            });
            if let Some(number) = column.get(name) {
                *last = *number;
            }
        }
        while words.last().is_some_and(|w| w == ".") {
            words.pop();
        }
        println!("{}", words.join(" "));
    }
}
