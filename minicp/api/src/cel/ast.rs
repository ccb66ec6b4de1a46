//! A rule as a tree.

use super::functions::Function;
use crate::structural::pattern::Pattern;

/// One node of the tree and where it stands in the text (bytes).
pub(super) struct Ast {
    pub at: usize,
    /// Of the tree below, itself counted: what evaluation recurses.
    pub depth: usize,
    pub expr: Expr,
}

pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
}

impl Binary {
    pub(super) const ALL: [(&'static str, Binary, u8); 12] = [
        ("==", Self::Eq, 0),
        ("!=", Self::Ne, 0),
        ("<=", Self::Le, 0),
        (">=", Self::Ge, 0),
        ("<", Self::Lt, 0),
        (">", Self::Gt, 0),
        ("in", Self::In, 0),
        ("+", Self::Add, 1),
        ("-", Self::Sub, 1),
        ("*", Self::Mul, 2),
        ("/", Self::Div, 2),
        ("%", Self::Rem, 2),
    ];
    pub(super) fn sign(self) -> &'static str {
        Self::ALL.iter().find(|(_, op, _)| *op == self).map_or("", |(sign, ..)| sign)
    }
}

/// A macro that binds a name to each item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
    /// Of an optional: its value, if it has one.
    OptMap,
    OptFlatMap,
}

pub(super) struct Loop {
    pub what: Macro,
    pub range: Ast,
    pub name: Box<str>,
    /// The middle argument of `map`.
    pub only: Option<Ast>,
    pub body: Ast,
}

pub(super) enum Expr {
    Literal(Literal),
    /// As written; the checker makes it a slot or a type.
    Name(Box<str>),
    /// `self`, `oldSelf`, or what a macro binds.
    Slot(usize),
    /// What `matches` and its like are given, if it is written down: made by the checker.
    Pattern(Box<Pattern>),
    Type(&'static str),
    Select {
        of: Box<Ast>,
        name: Box<str>,
        /// `has(of.name)`
        test: bool,
        /// `of.?name`
        optional: bool,
    },
    Index {
        of: Box<Ast>,
        key: Box<Ast>,
        optional: bool,
    },
    Call {
        name: Box<str>,
        of: Option<Box<Ast>>,
        args: Vec<Ast>,
        /// Found by the checker.
        function: Option<Function>,
    },
    Not(Box<Ast>),
    Negative(Box<Ast>),
    Binary(Binary, Box<Ast>, Box<Ast>),
    And(Vec<Ast>),
    Or(Vec<Ast>),
    Choice(Box<[Ast; 3]>),
    List(Vec<Ast>),
    Map(Vec<(Ast, Ast)>),
    Loop(Box<Loop>),
}

impl Expr {
    pub(super) fn depth(&self) -> usize {
        let most = |list: &[Ast]| list.iter().map(|a| a.depth).max().unwrap_or(0);
        match self {
            Self::Literal(_) | Self::Name(_) | Self::Slot(_) | Self::Pattern(_) | Self::Type(_) => 0,
            Self::Select { of, .. } | Self::Not(of) | Self::Negative(of) => of.depth,
            Self::Index { of, key, .. } => of.depth.max(key.depth),
            Self::Call { of, args, .. } => most(args).max(of.as_ref().map_or(0, |of| of.depth)),
            Self::Binary(_, a, b) => a.depth.max(b.depth),
            Self::And(all) | Self::Or(all) | Self::List(all) => most(all),
            Self::Choice(three) => most(&**three),
            Self::Map(pairs) => pairs.iter().map(|(k, v)| k.depth.max(v.depth)).max().unwrap_or(0),
            Self::Loop(l) => l.range.depth.max(l.body.depth).max(l.only.as_ref().map_or(0, |o| o.depth)),
        }
    }
}
