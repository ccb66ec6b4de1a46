//! Names of fields that CEL cannot write, and how Kubernetes writes them in rules.

const ESCAPES: &[(&str, &str)] = &[("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
const KEYWORDS: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
];

/// The field's own name: `a__dot__b` is `a.b`, `__in__` is `in`.
pub(super) fn unescaped(name: &str) -> String {
    if let Some(word) = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"))
        && KEYWORDS.contains(&word)
    {
        return word.into();
    }
    let (mut out, mut rest) = (String::new(), name);
    while let Some(at) = rest.find("__") {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        match ESCAPES.iter().find_map(|(long, short)| Some((tail.strip_prefix(long)?, *short))) {
            Some((after, short)) => {
                out.push_str(short);
                rest = after;
            }
            None => {
                out.push_str("__");
                rest = tail.get(2..).unwrap_or("");
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_come_back() {
        for (written, name) in [
            ("plain", "plain"),
            ("__namespace__", "namespace"),
            ("a__dot__b__dash__c__slash__d", "a.b-c/d"),
            ("redact__underscores__d", "redact__d"),
            ("__other__", "__other__"),
            ("a__b", "a__b"),
        ] {
            assert_eq!(super::unescaped(written), name);
        }
    }
}
