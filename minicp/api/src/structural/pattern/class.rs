//! Sets of characters.

/// Characters that one place of a pattern takes.
#[derive(Clone)]
pub(super) struct Class {
    pub negated: bool,
    /// Upper and lower case are one.
    fold: bool,
    ranges: Vec<(char, char)>,
    /// `true`: all that are not of the kind.
    kinds: Vec<(Kind, bool)>,
}

/// Sets too large to write out.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Letter,
    Upper,
    Lower,
    Number,
    Space,
    Punctuation,
}

impl Kind {
    /// As `\p{...}` calls it.
    pub(super) fn named(name: &str) -> Option<Kind> {
        Some(match name {
            "L" => Kind::Letter,
            "Lu" => Kind::Upper,
            "Ll" => Kind::Lower,
            "N" | "Nd" => Kind::Number,
            "Z" | "Zs" => Kind::Space,
            "P" => Kind::Punctuation,
            _ => return None,
        })
    }
    fn holds(self, c: char) -> bool {
        match self {
            Self::Letter => c.is_alphabetic(),
            Self::Upper => c.is_uppercase(),
            Self::Lower => c.is_lowercase(),
            Self::Number => c.is_numeric(),
            Self::Space => c.is_whitespace(),
            Self::Punctuation => c.is_ascii_punctuation(),
        }
    }
}

impl Class {
    pub(super) fn new(fold: bool) -> Class {
        Class { negated: false, fold, ranges: Vec::new(), kinds: Vec::new() }
    }
    pub(super) fn holds(&self, c: char) -> bool {
        let mut one = self.has(c);
        if !one && self.fold {
            one = c.to_lowercase().chain(c.to_uppercase()).any(|c| self.has(c));
        }
        one != self.negated
    }
    fn has(&self, c: char) -> bool {
        self.ranges.iter().any(|(a, b)| *a <= c && c <= *b) || self.kinds.iter().any(|(k, not)| k.holds(c) != *not)
    }
    pub(super) fn add_kind(&mut self, kind: Kind, not: bool) {
        self.kinds.push((kind, not));
    }
    pub(super) fn add_one(&mut self, low: char, high: char) {
        self.ranges.push((low, high));
    }
    /// Adds sorted ranges, or (`not`) what lies between them.
    pub(super) fn add(&mut self, ranges: &[(char, char)], not: bool) {
        if !not {
            return self.ranges.extend(ranges);
        }
        let mut from = '\0';
        for (a, b) in ranges {
            let before = u32::from(*a).checked_sub(1).and_then(char::from_u32);
            if let Some(before) = before.filter(|p| *p >= from) {
                self.ranges.push((from, before));
            }
            from = char::from_u32(u32::from(*b) + 1).unwrap_or(char::MAX);
        }
        self.ranges.push((from, char::MAX));
    }
}

pub(super) const DIGIT: &[(char, char)] = &[('0', '9')];
pub(super) const SPACE: &[(char, char)] = &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')];
pub(super) const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
/// `[:name:]`
pub(super) const POSIX: &[(&str, &[(char, char)])] = &[
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("ascii", &[('\0', '\x7f')]),
    ("blank", &[('\t', '\t'), (' ', ' ')]),
    ("cntrl", &[('\0', '\x1f'), ('\x7f', '\x7f')]),
    ("digit", DIGIT),
    ("graph", &[('!', '~')]),
    ("lower", &[('a', 'z')]),
    ("print", &[(' ', '~')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", &[('\t', '\r'), (' ', ' ')]),
    ("upper", &[('A', 'Z')]),
    ("word", WORD),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];
