//! Regular expressions as `pattern` has them (Go's RE2 syntax), matched in bounded time.
//!
//! Own code, because a schema wants only "does it match": the automaton (Thompson's, all states at once) has no captures, no backtracking and no
//! tables, and costs a few kilobytes where `regex-lite` costs a hundred. What RE2 knows and this does not (`\p{Greek}` and other scripts,
//! `\C`) is refused when the definition is made, not when an object is.

mod class;
mod parse;

use class::Class;
use parse::Assert;

/// States of one program: what the pattern is written out to, repetitions included.
const STATES_MAX: usize = 8_192;
/// Steps of one match; a text that takes more does not match.
const STEPS_MAX: usize = 4_000_000;

/// Why a text is no pattern.
#[derive(thiserror::Error, Debug, PartialEq)]
pub enum PatternError {
    #[error("{0} at character {1}")]
    Syntax(&'static str, usize),
    #[error("larger than {STATES_MAX} states")]
    TooLarge,
}

enum Step {
    One(Class),
    Assert(Assert),
    Split(usize, usize),
    Jump(usize),
    Match,
}

/// A pattern that was understood.
pub struct Pattern {
    text: Box<str>,
    steps: Box<[Step]>,
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    pub fn new(text: &str) -> Result<Pattern, PatternError> {
        let tree = parse::parse(text)?;
        let mut program = Program(Vec::new());
        program.add(&tree)?;
        program.push(Step::Match)?;
        Ok(Pattern { text: text.into(), steps: program.0.into() })
    }

    /// Whether the pattern is anywhere in `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_within(text, &mut STEPS_MAX.clone()).unwrap_or(false)
    }

    /// The same, paid for from `steps`; None: they did not do.
    pub fn matches_within(&self, text: &str, steps: &mut usize) -> Option<bool> {
        let mut run = self.run(*steps);
        let (mut now, mut next): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut before = None;
        let mut rest = text.chars();
        let found = loop {
            let after = rest.clone().next();
            // A match may begin at every place.
            run.round += 1;
            let waiting = std::mem::take(&mut now);
            for at in waiting.into_iter().chain([0]) {
                run.follow(at, before, after, &mut now);
            }
            if run.matched || run.left == 0 {
                break run.matched;
            }
            let Some(c) = rest.next() else { break false };
            self.taken(&now, c, &mut next);
            std::mem::swap(&mut now, &mut next);
            before = Some(c);
        };
        *steps = run.left;
        (found || run.left > 0).then_some(found)
    }

    /// Where the leftmost match begins and ends (bytes), of several there the one that RE2 prefers. None: `steps` did not do.
    pub fn find_within(&self, text: &str, steps: &mut usize) -> Option<Option<(usize, usize)>> {
        let places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        for start in places {
            let mut run = self.run(*steps);
            let end = self.end_of_match(text, start, &mut run);
            *steps = run.left;
            if run.left == 0 {
                return None;
            }
            if let Some(end) = end {
                return Some(Some((start, end)));
            }
        }
        Some(None)
    }

    /// The end of the preferred match that begins at `start`.
    fn end_of_match(&self, text: &str, start: usize, run: &mut Run<'_>) -> Option<usize> {
        let (head, tail) = text.split_at_checked(start)?;
        let (mut now, mut next) = (vec![0], Vec::new());
        let (mut before, mut rest, mut at, mut end) = (head.chars().next_back(), tail.chars(), start, None);
        loop {
            let after = rest.clone().next();
            run.round += 1;
            run.matched = false;
            for step in std::mem::take(&mut now) {
                run.follow(step, before, after, &mut now);
                // What would come after this one is preferred less.
                if run.matched {
                    end = Some(at);
                    break;
                }
            }
            if now.is_empty() || run.left == 0 {
                return end;
            }
            let Some(c) = rest.next() else { return end };
            self.taken(&now, c, &mut next);
            std::mem::swap(&mut now, &mut next);
            at += c.len_utf8();
            before = Some(c);
        }
    }

    fn run(&self, steps: usize) -> Run<'_> {
        Run { steps: &self.steps, seen: vec![0; self.steps.len()], round: 0, left: steps, matched: false }
    }

    /// The steps after those that take `c`.
    fn taken(&self, now: &[usize], c: char, next: &mut Vec<usize>) {
        next.clear();
        let takes = |at: &&usize| matches!(self.steps.get(**at), Some(Step::One(class)) if class.holds(c));
        next.extend(now.iter().filter(takes).map(|at| at + 1));
    }
}

struct Run<'a> {
    steps: &'a [Step],
    /// In which round each step was last reached.
    seen: Vec<usize>,
    round: usize,
    left: usize,
    matched: bool,
}

impl Run<'_> {
    /// All steps that want a character and are reached from `at` without one.
    fn follow(&mut self, at: usize, before: Option<char>, after: Option<char>, out: &mut Vec<usize>) {
        let mut todo = vec![at];
        while let Some(at) = todo.pop() {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                return;
            }
            match self.seen.get_mut(at) {
                Some(seen) if *seen != self.round => *seen = self.round,
                _ => continue,
            }
            match self.steps.get(at) {
                Some(Step::One(_)) => out.push(at),
                Some(Step::Assert(assert)) if assert.holds(before, after) => todo.push(at + 1),
                Some(Step::Split(a, b)) => todo.extend([*b, *a]),
                Some(Step::Jump(to)) => todo.push(*to),
                Some(Step::Match) => {
                    self.matched = true;
                    return;
                }
                Some(Step::Assert(_)) | None => {}
            }
        }
    }
}

struct Program(Vec<Step>);

impl Program {
    fn push(&mut self, step: Step) -> Result<usize, PatternError> {
        if self.0.len() >= STATES_MAX {
            return Err(PatternError::TooLarge);
        }
        self.0.push(step);
        Ok(self.0.len() - 1)
    }
    fn patch(&mut self, at: usize, step: Step) {
        if let Some(place) = self.0.get_mut(at) {
            *place = step;
        }
    }
    fn add(&mut self, tree: &parse::Tree) -> Result<(), PatternError> {
        use parse::Tree;
        match tree {
            Tree::One(class) => self.push(Step::One(class.clone())).map(drop),
            Tree::Assert(assert) => self.push(Step::Assert(*assert)).map(drop),
            Tree::Cat(all) => all.iter().try_for_each(|t| self.add(t)),
            Tree::Alt(all) => {
                let mut ends = Vec::new();
                let Some((last, first)) = all.split_last() else { return Ok(()) };
                for one in first {
                    let split = self.push(Step::Match)?;
                    self.add(one)?;
                    ends.push(self.push(Step::Match)?);
                    let next = self.0.len();
                    self.patch(split, Step::Split(split + 1, next));
                }
                self.add(last)?;
                let end = self.0.len();
                ends.into_iter().for_each(|at| self.patch(at, Step::Jump(end)));
                Ok(())
            }
            Tree::Repeat(inner, least, most, lazy) => self.repeat(inner, *least, *most, *lazy),
        }
    }
    fn repeat(
        &mut self,
        inner: &parse::Tree,
        least: usize,
        most: Option<usize>,
        lazy: bool,
    ) -> Result<(), PatternError> {
        // The first way is preferred.
        let ways = |into, past| if lazy { Step::Split(past, into) } else { Step::Split(into, past) };
        for _ in 0..least {
            self.add(inner)?;
        }
        match most {
            None => {
                let split = self.push(Step::Match)?;
                self.add(inner)?;
                self.push(Step::Jump(split))?;
                let end = self.0.len();
                self.patch(split, ways(split + 1, end));
            }
            Some(most) => {
                let mut splits = Vec::new();
                for _ in least..most {
                    splits.push(self.push(Step::Match)?);
                    self.add(inner)?;
                }
                let end = self.0.len();
                splits.into_iter().for_each(|at| self.patch(at, ways(at + 1, end)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_re2() {
        for (pattern, yes, no) in [
            (r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$", &["* * * * */5", "1 2 3 4 5"][..], &["* * * *", "x"][..]),
            ("a", &["bab"], &["b", ""]),
            ("^a$", &["a"], &["ab", "ba", "a\n"]),
            ("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", &["a", "a-b", "x9"], &["-a", "a-", "A", ""]),
            ("^(red|green|)$", &["red", "green", ""], &["redgreen"]),
            ("^[^a-c]+$", &["xyz", "é"], &["a", "xa"]),
            (r"^\w+\.\w{2,3}$", &["a.de", "a_1.com"], &["a.b", "a.info"]),
            ("^x*?y+?$", &["y", "xxyy"], &["x"]),
            ("^(?i:hello) W", &["HeLLo W"], &["hello w"]),
            ("(?i)^straße$", &["STRAßE", "straße"], &["strasse"]),
            (r"^[[:alpha:]_][[:alnum:]]*$", &["_a1"], &["1a"]),
            (r"^\Qa.b\E$", &["a.b"], &["axb"]),
            (r"^\x41\x{e9}$", &["Aé"], &["Ae"]),
            (r"\bfoo\b", &["a foo b", "foo"], &["foobar"]),
            (r"^a.c$", &["abc", "aéc"], &["a\nc", "ac"]),
            (r"(?s)^a.c$", &["a\nc"], &["ac"]),
            (r"(?m)^b$", &["a\nb\nc"], &["ab"]),
            (r"^(?P<year>\d{4})-(?:\d\d)$", &["2026-11"], &["226-11"]),
            (r"^[\d\-.]+$", &["1-2.3"], &["a"]),
            (r"^\p{Lu}\pN$", &["É7"], &["e7"]),
            (r"^[]a]+$", &["]a"], &["b"]),
            ("^$", &[""], &["a"]),
            ("^(a{2}){3}$", &["aaaaaa"], &["aaaaa"]),
            ("x{,2}", &["x{,2}"], &["xx"]),
        ] {
            let p = Pattern::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            for text in yes {
                assert!(p.matches(text), "{pattern} {text:?}");
            }
            for text in no {
                assert!(!p.matches(text), "{pattern} {text:?}");
            }
        }
    }

    #[test]
    fn finds_what_re2_prefers() {
        for (pattern, text, want) in [
            ("^([^/]+)", "kubernetes.io/x", Some("kubernetes.io")),
            ("a|ab", "xab", Some("a")),
            ("ab|a", "xab", Some("ab")),
            ("a+", "baaa", Some("aaa")),
            ("a+?", "baaa", Some("a")),
            ("a*", "baaa", Some("")),
            ("(a|ab)(c|bcd)", "abcd", Some("abcd")),
            (r"\d{2,3}", "1 12345", Some("123")),
            (r"\bo+", "éxo oo", Some("oo")),
            ("x", "abc", None),
            ("$", "ab", Some("")),
        ] {
            let p = Pattern::new(pattern).unwrap();
            let found = p.find_within(text, &mut 100_000).unwrap().map(|(from, to)| &text[from..to]);
            assert_eq!(found, want, "{pattern} {text}");
        }
        assert!(Pattern::new("(a*)*b").unwrap().find_within(&"a".repeat(10_000), &mut 100_000).is_none());
        assert!(Pattern::new("b").unwrap().matches_within(&"a".repeat(10_000), &mut 100).is_none());
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in [
            "(",
            ")",
            "[a",
            "a**",
            "*a",
            "a{2,1}",
            "a{2}{3}",
            "a{1001}",
            r"\",
            "[b-a]",
            "(?=a)",
            r"(a)\1",
            r"\p{Greek}",
            "(?<n",
        ] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Pattern::new("((a{900}){900}){900}").err(), Some(PatternError::TooLarge));
        assert!(Pattern::new(&"(".repeat(5_000)).is_err());
    }

    #[test]
    fn evil_patterns_end() {
        let p = Pattern::new("^(a+)+$").unwrap();
        assert!(!p.matches(&("a".repeat(20_000) + "b")));
        assert!(p.matches(&"a".repeat(20_000)));
        // Too many steps: an answer all the same.
        let p = Pattern::new("(x?){1000}(x?){1000}y").unwrap();
        assert!(!p.matches(&"x".repeat(100_000)));
    }
}
