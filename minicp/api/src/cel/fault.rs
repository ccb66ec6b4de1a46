//! What is wrong with a text, and how much text there may be.

/// Bytes of one rule.
pub(super) const TEXT_MAX: usize = 16 << 10;
/// Nodes within nodes of one rule.
pub(super) const DEPTH_MAX: usize = 96;
/// What is wrong with the text of a rule, and where.
#[derive(Debug)]
pub(super) struct Fault {
    /// Bytes into the text.
    at: usize,
    why: String,
}

impl Fault {
    pub(super) fn new(at: usize, why: String) -> Fault {
        Fault { at, why }
    }
    /// As cel-go tells it: the place, the line, and a mark below it.
    pub(super) fn told(&self, text: &str) -> String {
        let before = text.get(..self.at).unwrap_or(text);
        let (line, column) = (before.matches('\n').count(), before.rsplit('\n').next().unwrap_or("").chars().count());
        let shown = text.lines().nth(line).unwrap_or("");
        format!("ERROR: <input>:{}:{}: {}\n | {shown}\n | {}^", line + 1, column + 1, self.why, ".".repeat(column))
    }
}
