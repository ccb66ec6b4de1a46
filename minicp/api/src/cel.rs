//! CEL, the language of `x-kubernetes-validations`: enough of it for what definitions say, in bounded time.
//!
//! A rule goes text -> words ([`lex`]) -> tree ([`parse`]) -> checked against the schema ([`check`]) when the definition is made; then it is
//! run over trees by [`eval`], which pays for each step from a [`Budget`]. Kubernetes' library is there but for what [`functions`] leaves
//! out; that is refused when the definition is made, never when an object is.
//!
//! Own code, because the one maintained crate (`cel` 0.14, MIT) brings an ANTLR runtime, nom, regex and chrono, and has no bound on what a rule
//! may cost (its issue 56): one definition could stop the server.
//!
//! Not as upstream: costs are counted when rules run, not estimated when a definition is made; types that a schema leaves open are checked when the
//! rule runs; parts of points in time are told in UTC only.

mod ast;
mod calls;
mod check;
mod eval;
mod fault;
mod functions;
mod lex;
mod names;
mod net;
mod parse;
mod stop;
mod texts;
mod times;
mod types;
mod value;

use ast::Ast;
use check::Checker;
use fault::Fault;
use stop::no_overload;
pub(crate) use stop::{Budget, Stop};
pub use stop::{COST_MAX, RULE_COST_MAX};
use types::Ty;
use value::Val;

use crate::structural::Node;
use crate::tree::Value;

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
        budget.within(RULE_COST_MAX, |budget| {
            eval::Run { slots: vec![Val::lift(own, node), old], budget }.eval(&self.ast)
        })
    }

    /// Runs it over a value of `node`.
    pub(crate) fn truth(&self, own: &Value, old: Old<'_>, node: &Node, budget: &mut Budget) -> Result<bool, Stop> {
        match self.run(own, old, Some(node), budget)? {
            Val::Bool(is) => Ok(is),
            _ => Err(no_overload()),
        }
    }
    pub(crate) fn text(&self, own: &Value, old: Old<'_>, node: &Node, budget: &mut Budget) -> Result<String, Stop> {
        match self.run(own, old, Some(node), budget)? {
            Val::Text(text) => Ok(text.to_string()),
            _ => Err(no_overload()),
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
