//! CEL, the language of `x-kubernetes-validations`: enough of it for what definitions say, in bounded time.
//!
//! A rule goes text -> words ([`lex`]) -> tree ([`parse`]) -> checked against the schema ([`check`]) when the definition is made; then it is
//! run over trees by [`eval`], which pays for each step from a [`Budget`]. Kubernetes' library is there but for what [`functions`] leaves
//! out; that is refused when the definition is made, never when an object is.
//!
//! Own code, because the one maintained crate (`cel` 0.14, MIT) brings an ANTLR runtime, nom, regex and chrono, and knows no bound on what a
//! rule costs. Figures in the README.
//!
//! Not as upstream: costs are counted when rules run, not estimated when a definition is made; types that a schema leaves open are checked when the
//! rule runs; parts of points in time are told in UTC only.

mod calls;
mod check;
mod eval;
mod functions;
mod lex;
mod names;
mod net;
mod parse;
mod texts;
mod times;
mod value;

use check::{Checker, Ty};
use parse::Ast;
use value::Val;

use crate::structural::Node;
use crate::tree::Value;

/// Bytes of one rule.
const TEXT_MAX: usize = 16 << 10;
/// Nodes within nodes of one rule.
const DEPTH_MAX: usize = 96;
/// Steps that all rules of one write may take together: about a tenth of a second.
pub const COST_MAX: usize = 2_000_000;
/// Steps that one run of a rule may take.
pub const RULE_COST_MAX: usize = 1_000_000;
/// Steps of a pattern's automaton that cost as much as one of a rule.
const PATTERN_STEPS: usize = 8;

/// What is wrong with the text of a rule, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Bytes into the text.
    at: usize,
    why: String,
}

impl Fault {
    fn new(at: usize, why: String) -> Fault {
        Fault { at, why }
    }
    /// As cel-go tells it: the place, the line, and a mark below it.
    fn told(&self, text: &str) -> String {
        let before = text.get(..self.at).unwrap_or(text);
        let (line, column) = (before.matches('\n').count(), before.rsplit('\n').next().unwrap_or("").chars().count());
        let shown = text.lines().nth(line).unwrap_or("");
        format!("ERROR: <input>:{}:{}: {}\n | {shown}\n | {}^", line + 1, column + 1, self.why, ".".repeat(column))
    }
}

/// Why a run gave no value.
#[derive(Debug, PartialEq)]
pub(crate) enum Stop {
    /// In cel-go's words.
    Error(String),
    /// The budget is spent.
    Cost,
}

/// Steps that are left.
pub(crate) struct Budget(usize);

impl Budget {
    pub(crate) fn new() -> Budget {
        Budget(COST_MAX)
    }
    pub(crate) fn empty() -> Budget {
        Budget(0)
    }
    pub(crate) fn is_spent(&self) -> bool {
        self.0 == 0
    }
    fn spend(&mut self, steps: usize) -> Result<(), Stop> {
        match self.0.checked_sub(steps) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => {
                self.0 = 0;
                Err(Stop::Cost)
            }
        }
    }
    fn pattern_steps(&self) -> usize {
        self.0.saturating_mul(PATTERN_STEPS)
    }
    fn spend_pattern(&mut self, steps: usize) -> Result<(), Stop> {
        self.spend(steps / PATTERN_STEPS)
    }
}

/// What an expression is to give.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Truth,
    Text,
}

/// An expression that was understood.
pub(crate) struct Program {
    ast: Ast,
    /// Whether it looks at `oldSelf`.
    pub uses_old: bool,
}

impl Program {
    /// `node`: the schema of `self`. `optional_old`: `oldSelf` is an optional.
    pub(crate) fn new(text: &str, node: &Node, wanted: Wanted, optional_old: bool) -> Result<Program, String> {
        let told = |fault: Fault| format!("compilation failed: {}", fault.told(text));
        let mut ast = parse::parse(text).map_err(told)?;
        let mut checker = Checker::new(Ty::of_node(node), optional_old);
        let ty = checker.check(&mut ast).map_err(told)?;
        match (wanted, ty.letter()) {
            (_, '?') | (Wanted::Truth, 'b') | (Wanted::Text, 's') => {}
            (Wanted::Truth, _) => return Err("cel expression must evaluate to a bool".into()),
            (Wanted::Text, _) => return Err("messageExpression must evaluate to a string".into()),
        }
        Ok(Program { ast, uses_old: checker.uses_old })
    }

    fn run<'a>(
        &'a self,
        own: &'a Value,
        old: Old<'a>,
        node: Option<&'a Node>,
        budget: &mut Budget,
    ) -> Result<Val<'a>, Stop> {
        let old = match old {
            Old::None => Val::Null,
            Old::Some(value) => Val::lift(value, node),
            Old::Optional(value) => Val::Optional(value.map(|value| Val::lift(value, node).into())),
        };
        let mut left = Budget(budget.0.min(RULE_COST_MAX));
        let before = left.0;
        let done = eval::Run { slots: vec![Val::lift(own, node), old], budget: &mut left }.eval(&self.ast);
        budget.0 = budget.0.saturating_sub(before - left.0);
        done
    }

    /// Runs it over a value of `node`.
    pub(crate) fn truth(&self, own: &Value, old: Old<'_>, node: &Node, budget: &mut Budget) -> Result<bool, Stop> {
        match self.run(own, old, Some(node), budget)? {
            Val::Bool(is) => Ok(is),
            _ => Err(eval::no_overload()),
        }
    }
    pub(crate) fn text(&self, own: &Value, old: Old<'_>, node: &Node, budget: &mut Budget) -> Result<String, Stop> {
        match self.run(own, old, Some(node), budget)? {
            Val::Text(text) => Ok(text.to_string()),
            _ => Err(eval::no_overload()),
        }
    }
}

/// What `oldSelf` is in a run.
#[derive(Clone, Copy)]
pub(crate) enum Old<'a> {
    /// The rule does not look at it.
    None,
    Some(&'a Value),
    Optional(Option<&'a Value>),
}

#[cfg(test)]
mod tests;
