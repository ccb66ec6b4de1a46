//! The text of a pattern as a tree.

use super::PatternError;
use super::class::{Class, DIGIT, Kind, POSIX, SPACE, WORD};

/// Groups within groups.
const DEPTH_MAX: usize = 200;
/// RE2's bound on `{n,m}`.
const REPEAT_MAX: usize = 1_000;

#[derive(Clone, Copy)]
pub(super) enum Assert {
    TextStart,
    TextEnd,
    LineStart,
    LineEnd,
    Word,
    NotWord,
}

pub(super) enum Tree {
    One(Class),
    Assert(Assert),
    Cat(Vec<Tree>),
    Alt(Vec<Tree>),
    /// Least, most, and whether fewer are preferred.
    Repeat(Box<Tree>, usize, Option<usize>, bool),
}

fn is_word(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Assert {
    pub(super) fn holds(self, before: Option<char>, after: Option<char>) -> bool {
        match self {
            Self::TextStart => before.is_none(),
            Self::TextEnd => after.is_none(),
            Self::LineStart => before.is_none_or(|c| c == '\n'),
            Self::LineEnd => after.is_none_or(|c| c == '\n'),
            Self::Word => is_word(before) != is_word(after),
            Self::NotWord => is_word(before) == is_word(after),
        }
    }
}

/// `(?ims)`
#[derive(Clone, Copy, Default)]
struct Flags {
    fold: bool,
    lines: bool,
    dot_all: bool,
}

struct Parser {
    text: Vec<char>,
    at: usize,
    flags: Flags,
    depth: usize,
}

pub(super) fn parse(text: &str) -> Result<Tree, PatternError> {
    let mut parser = Parser { text: text.chars().collect(), at: 0, flags: Flags::default(), depth: 0 };
    let tree = parser.alternatives()?;
    if parser.at < parser.text.len() {
        return parser.wrong("unexpected )");
    }
    Ok(tree)
}

impl Parser {
    fn wrong<T>(&self, what: &'static str) -> Result<T, PatternError> {
        Err(PatternError::Syntax(what, self.at))
    }
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }
    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }
    fn eat(&mut self, word: &str) -> bool {
        let is = word.chars().enumerate().all(|(i, c)| self.text.get(self.at + i) == Some(&c));
        if is {
            self.at += word.chars().count();
        }
        is
    }
    fn until(&mut self, end: char) -> Result<String, PatternError> {
        let mut word = String::new();
        loop {
            match self.take() {
                Some(c) if c == end => return Ok(word),
                Some(c) => word.push(c),
                None => return self.wrong("unexpected end"),
            }
        }
    }

    fn alternatives(&mut self) -> Result<Tree, PatternError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.wrong("nested too deep");
        }
        let mut all = vec![self.sequence()?];
        while self.eat("|") {
            all.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(if all.len() == 1 { Tree::Cat(all) } else { Tree::Alt(all) })
    }

    fn sequence(&mut self) -> Result<Tree, PatternError> {
        let mut all = Vec::new();
        while let Some(c) = self.peek() {
            if matches!(c, '|' | ')') {
                break;
            }
            if self.eat("\\Q") {
                while !self.eat("\\E") {
                    let Some(c) = self.take() else { break };
                    all.push(self.literal(c));
                }
                continue;
            }
            let Some(one) = self.one()? else { continue };
            all.push(self.repeated(one)?);
        }
        Ok(Tree::Cat(all))
    }

    fn repeated(&mut self, tree: Tree) -> Result<Tree, PatternError> {
        let Some((least, most)) = self.times()? else { return Ok(tree) };
        let lazy = self.eat("?");
        if self.times()?.is_some() {
            return self.wrong("invalid nested repetition operator");
        }
        Ok(Tree::Repeat(Box::new(tree), least, most, lazy))
    }

    /// The repetition that comes next, if one does.
    fn times(&mut self) -> Result<Option<(usize, Option<usize>)>, PatternError> {
        let start = self.at;
        let times = match self.take() {
            Some('*') => Some((0, None)),
            Some('+') => Some((1, None)),
            Some('?') => Some((0, Some(1))),
            Some('{') => self.counts()?,
            _ => None,
        };
        if times.is_none() {
            self.at = start;
        }
        Ok(times)
    }

    /// `{n}`, `{n,}`, `{n,m}`; anything else in braces is text.
    fn counts(&mut self) -> Result<Option<(usize, Option<usize>)>, PatternError> {
        let Some(least) = self.number() else { return Ok(None) };
        let most = match self.take() {
            Some('}') => Some(least),
            Some(',') if self.eat("}") => None,
            Some(',') => match self.number() {
                Some(most) if self.eat("}") => Some(most),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        if least > REPEAT_MAX || most.is_some_and(|m| m > REPEAT_MAX || m < least) {
            return self.wrong("invalid repeat count");
        }
        Ok(Some((least, most)))
    }

    fn number(&mut self) -> Option<usize> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let digits: String = self.text.get(start..self.at)?.iter().take(6).collect();
        digits.parse().ok()
    }

    fn literal(&self, c: char) -> Tree {
        let mut class = Class::new(self.flags.fold);
        class.add_one(c, c);
        Tree::One(class)
    }

    /// One thing that may be repeated. None: flags.
    fn one(&mut self) -> Result<Option<Tree>, PatternError> {
        let Some(c) = self.take() else { return Ok(None) };
        let Flags { lines, dot_all, .. } = self.flags;
        Ok(Some(match c {
            '(' => return self.group(),
            '[' => Tree::One(self.set()?),
            '.' => {
                let mut class = Class::new(false);
                class.add(if dot_all { &[] } else { &[('\n', '\n')] }, true);
                Tree::One(class)
            }
            '^' => Tree::Assert(if lines { Assert::LineStart } else { Assert::TextStart }),
            '$' => Tree::Assert(if lines { Assert::LineEnd } else { Assert::TextEnd }),
            '*' | '+' | '?' => return self.wrong("missing argument to repetition operator"),
            '\\' => self.escape()?,
            c => self.literal(c),
        }))
    }

    fn escape(&mut self) -> Result<Tree, PatternError> {
        let assert = match self.peek() {
            Some('b') => Assert::Word,
            Some('B') => Assert::NotWord,
            Some('A') => Assert::TextStart,
            Some('z') => Assert::TextEnd,
            _ => {
                let mut class = Class::new(self.flags.fold);
                if let Some(c) = self.class_escape(&mut class)? {
                    class.add_one(c, c);
                }
                return Ok(Tree::One(class));
            }
        };
        self.at += 1;
        Ok(Tree::Assert(assert))
    }

    /// After a backslash: a set that is added to `class`, or one character.
    fn class_escape(&mut self, class: &mut Class) -> Result<Option<char>, PatternError> {
        let Some(c) = self.take() else { return self.wrong("trailing backslash") };
        match c {
            'd' | 'D' => class.add(DIGIT, c == 'D'),
            's' | 'S' => class.add(SPACE, c == 'S'),
            'w' | 'W' => class.add(WORD, c == 'W'),
            'p' | 'P' => {
                let name = match self.take() {
                    Some('{') => self.until('}')?,
                    Some(c) => c.to_string(),
                    None => return self.wrong("unexpected end"),
                };
                let (not, name) = name.strip_prefix('^').map_or((false, name.as_str()), |n| (true, n));
                match Kind::named(name) {
                    Some(kind) => class.add_kind(kind, not != (c == 'P')),
                    None => return self.wrong("unsupported character class"),
                }
            }
            'x' => return self.hex().map(Some),
            'n' => return Ok(Some('\n')),
            't' => return Ok(Some('\t')),
            'r' => return Ok(Some('\r')),
            'f' => return Ok(Some('\x0c')),
            'v' => return Ok(Some('\x0b')),
            'a' => return Ok(Some('\x07')),
            '0' => return Ok(Some('\0')),
            c if c.is_ascii_alphanumeric() => return self.wrong("invalid escape sequence"),
            c => return Ok(Some(c)),
        }
        Ok(None)
    }

    fn hex(&mut self) -> Result<char, PatternError> {
        let digits =
            if self.eat("{") { self.until('}')? } else { [self.take(), self.take()].into_iter().flatten().collect() };
        match u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32) {
            Some(c) => Ok(c),
            None => self.wrong("invalid escape sequence"),
        }
    }

    fn group(&mut self) -> Result<Option<Tree>, PatternError> {
        let outer = self.flags;
        if self.eat("?") {
            if self.eat("P<") || self.eat("<") {
                let name = self.until('>')?;
                if name.is_empty() || !name.chars().all(|c| is_word(Some(c))) {
                    return self.wrong("invalid named capture");
                }
            } else if !self.flags()? {
                return Ok(None);
            }
        }
        let tree = self.alternatives()?;
        if !self.eat(")") {
            return self.wrong("missing closing )");
        }
        self.flags = outer;
        Ok(Some(tree))
    }

    /// After `(?`. False: they hold for the rest of the group around.
    fn flags(&mut self) -> Result<bool, PatternError> {
        let mut on = true;
        loop {
            match self.take() {
                Some('i') => self.flags.fold = on,
                Some('m') => self.flags.lines = on,
                Some('s') => self.flags.dot_all = on,
                Some('U') => {}
                Some('-') if on => on = false,
                Some(':') => return Ok(true),
                Some(')') => return Ok(false),
                _ => return self.wrong("invalid or unsupported Perl syntax"),
            }
        }
    }

    fn set(&mut self) -> Result<Class, PatternError> {
        let mut class = Class::new(self.flags.fold);
        class.negated = self.eat("^");
        let mut first = true;
        while first || self.peek() != Some(']') {
            first = false;
            if self.eat("[:") {
                let not = self.eat("^");
                let name = self.until(':')?;
                match POSIX.iter().find(|(n, _)| *n == name) {
                    Some((_, ranges)) if self.eat("]") => class.add(ranges, not),
                    _ => return self.wrong("invalid character class range"),
                }
                continue;
            }
            let Some(low) = self.member(&mut class)? else { continue };
            let is_range = self.peek() == Some('-') && self.text.get(self.at + 1).is_some_and(|c| *c != ']');
            let high = if is_range {
                self.at += 1;
                self.member(&mut class)?.unwrap_or('\0')
            } else {
                low
            };
            if high < low {
                return self.wrong("invalid character class range");
            }
            class.add_one(low, high);
        }
        self.at += 1;
        Ok(class)
    }

    /// One character of a set, or a set in it.
    fn member(&mut self, class: &mut Class) -> Result<Option<char>, PatternError> {
        match self.take() {
            Some('\\') => self.class_escape(class),
            Some(c) => Ok(Some(c)),
            None => self.wrong("missing closing ]"),
        }
    }
}
