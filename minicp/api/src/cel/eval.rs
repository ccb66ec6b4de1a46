//! Running a rule: a walk over its tree that pays for every step.

use std::cmp::Ordering;

use super::ast::{Ast, Binary, Expr, Loop, Macro};
use super::calls;
use super::stop::{Budget, Stop, no_overload};
use super::value::{self, Out, Val};

pub(super) struct Run<'a, 'b> {
    /// `self`, `oldSelf`, and what macros bind, as the checker numbered them.
    pub slots: Vec<Val<'a>>,
    pub budget: &'b mut Budget,
}

fn error<'a>(text: impl Into<String>) -> Out<'a> {
    Err(Stop::Error(text.into()))
}

impl<'a> Run<'a, '_> {
    pub(super) fn eval(&mut self, ast: &'a Ast) -> Out<'a> {
        self.budget.spend(1)?;
        match &ast.expr {
            Expr::Literal(literal) => Ok(Val::literal(literal)),
            Expr::Slot(slot) => self.slots.get(*slot).cloned().ok_or_else(no_overload),
            Expr::Type(name) => Ok(Val::Type(name)),
            Expr::Name(name) => error(format!("no such attribute: {name}")),
            Expr::Select { of, name, test, optional } => {
                let of = self.eval(of)?;
                self.select(&of, name, *test, *optional)
            }
            Expr::Index { of, key, optional } => {
                let (of, key) = (self.eval(of)?, self.eval(key)?);
                self.index(&of, &key, *optional)
            }
            Expr::Call { of, args, function, .. } => {
                let of = of.as_ref().map(|of| self.eval(of)).transpose()?;
                let Some(function) = function else { return Err(no_overload()) };
                // The pattern of a text that is written down is part of the tree.
                let pattern =
                    args.iter().find_map(|arg| if let Expr::Pattern(p) = &arg.expr { Some(&**p) } else { None });
                let mut values = Vec::with_capacity(args.len() + 1);
                values.extend(of);
                for arg in args.iter().filter(|arg| !matches!(arg.expr, Expr::Pattern(_))) {
                    values.push(self.eval(arg)?);
                }
                calls::call(*function, &values, pattern, self.budget)
            }
            Expr::Pattern(_) => Err(no_overload()),
            Expr::Not(of) => match self.eval(of)? {
                Val::Bool(is) => Ok(Val::Bool(!is)),
                _ => Err(no_overload()),
            },
            Expr::Negative(of) => match self.eval(of)? {
                Val::Int(n) => n.checked_neg().map(Val::Int).ok_or_else(overflow),
                Val::Double(n) => Ok(Val::Double(-n)),
                Val::Duration(n) => n.checked_neg().map(Val::Duration).ok_or_else(overflow),
                _ => Err(no_overload()),
            },
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.eval(a)?, self.eval(b)?);
                self.binary(*op, &a, &b)
            }
            Expr::And(all) => self.until(all, false),
            Expr::Or(all) => self.until(all, true),
            Expr::Choice(three) => {
                let [condition, yes, no] = &**three;
                match self.eval(condition)? {
                    Val::Bool(true) => self.eval(yes),
                    Val::Bool(false) => self.eval(no),
                    _ => Err(no_overload()),
                }
            }
            Expr::List(items) => {
                let items: Result<Vec<_>, _> = items.iter().map(|item| self.eval(item)).collect();
                Ok(Val::List(items?.into()))
            }
            Expr::Map(pairs) => {
                let mut out: Vec<(Val<'a>, Val<'a>)> = Vec::with_capacity(pairs.len());
                for (key, value) in pairs {
                    let (key, value) = (self.eval(key)?, self.eval(value)?);
                    for (old, _) in &out {
                        if value::equal(old, &key, self.budget)? {
                            return error("Failed with repeated key");
                        }
                    }
                    out.push((key, value));
                }
                Ok(Val::Map(out.into()))
            }
            Expr::Loop(inner) => self.each(inner),
        }
    }

    /// `&&` and `||`: one that decides outweighs the errors of the others, in whatever order they stand.
    fn until(&mut self, all: &'a [Ast], decides: bool) -> Out<'a> {
        let mut fault = None;
        for one in all {
            match self.eval(one) {
                Ok(Val::Bool(is)) if is == decides => return Ok(Val::Bool(decides)),
                Ok(Val::Bool(_)) => {}
                Ok(_) => drop(fault.get_or_insert_with(no_overload)),
                Err(Stop::Cost) => return Err(Stop::Cost),
                Err(e) => drop(fault.get_or_insert(e)),
            }
        }
        fault.map_or(Ok(Val::Bool(!decides)), Err)
    }

    fn select(&mut self, of: &Val<'a>, name: &str, test: bool, optional: bool) -> Out<'a> {
        if let Val::Optional(inner) = of {
            return match inner {
                Some(inner) if test => self.select(inner, name, true, false),
                Some(inner) => self.select(inner, name, false, true),
                None if test => Ok(Val::Bool(false)),
                None => Ok(Val::Optional(None)),
            };
        }
        if !matches!(of, Val::Object(..) | Val::Map(_)) {
            return Err(no_overload());
        }
        match of.field(name) {
            found if test => Ok(Val::Bool(found.is_some())),
            found if optional => Ok(Val::Optional(found.map(Into::into))),
            Some(found) => Ok(found),
            None => error(format!("no such key: {name}")),
        }
    }

    fn index(&mut self, of: &Val<'a>, key: &Val<'a>, optional: bool) -> Out<'a> {
        if let Val::Optional(inner) = of {
            return match inner {
                Some(inner) => self.index(inner, key, true),
                None => Ok(Val::Optional(None)),
            };
        }
        let found = match of {
            Val::Object(..) | Val::Map(_) => value::at_key(of, key, self.budget)?,
            Val::List(_) | Val::Items(..) => {
                let index = match key {
                    Val::Int(n) => usize::try_from(*n).ok(),
                    Val::Uint(n) => usize::try_from(*n).ok(),
                    Val::Double(n) if n.fract() == 0.0 && *n >= 0.0 => Some(*n as usize),
                    _ => return Err(no_overload()),
                };
                index.and_then(|i| of.item(i))
            }
            _ => return Err(no_overload()),
        };
        let shown = super::texts::shown(key).unwrap_or_default();
        match found {
            found if optional => Ok(Val::Optional(found.map(Into::into))),
            Some(found) => Ok(found),
            None if matches!(of, Val::List(_) | Val::Items(..)) => error(format!("index out of bounds: {shown}")),
            None => error(format!("no such key: {shown}")),
        }
    }

    fn binary(&mut self, op: Binary, a: &Val<'a>, b: &Val<'a>) -> Out<'a> {
        let ordered = |is: fn(Ordering) -> bool| match (value::order(a, b), a, b) {
            (Some(order), ..) => Ok(Val::Bool(is(order))),
            // Not a number is neither less nor more.
            (None, Val::Double(_), Val::Double(_) | Val::Int(_) | Val::Uint(_))
            | (None, Val::Int(_) | Val::Uint(_), Val::Double(_)) => Ok(Val::Bool(false)),
            _ => Err(no_overload()),
        };
        match op {
            Binary::Eq => value::equal(a, b, self.budget).map(Val::Bool),
            Binary::Ne => value::equal(a, b, self.budget).map(|is| Val::Bool(!is)),
            Binary::Lt => ordered(Ordering::is_lt),
            Binary::Le => ordered(Ordering::is_le),
            Binary::Gt => ordered(Ordering::is_gt),
            Binary::Ge => ordered(Ordering::is_ge),
            Binary::In => match b {
                Val::List(_) | Val::Items(..) => {
                    let items = b.items().unwrap_or_default();
                    value::holds(&items, a, self.budget).map(Val::Bool)
                }
                Val::Object(..) | Val::Map(_) => Ok(Val::Bool(value::at_key(b, a, self.budget)?.is_some())),
                _ => Err(no_overload()),
            },
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Rem => self.sum(op, a, b),
        }
    }

    fn sum(&mut self, op: Binary, a: &Val<'a>, b: &Val<'a>) -> Out<'a> {
        let time = |time: &crate::time::Time, nanos: i64| {
            let micros = time.unix_micros().checked_add(nanos / 1000).ok_or_else(overflow)?;
            Ok(Val::Time(crate::time::Time::from_unix_micros(micros)))
        };
        match (a, b) {
            (Val::Int(a), Val::Int(b)) => integer(op, *a, *b).map(Val::Int),
            (Val::Uint(a), Val::Uint(b)) => unsigned(op, *a, *b).map(Val::Uint),
            (Val::Double(a), Val::Double(b)) => match op {
                Binary::Add => Ok(Val::Double(a + b)),
                Binary::Sub => Ok(Val::Double(a - b)),
                Binary::Mul => Ok(Val::Double(a * b)),
                Binary::Div => Ok(Val::Double(a / b)),
                _ => Err(no_overload()),
            },
            (Val::Text(a), Val::Text(b)) if op == Binary::Add => {
                self.budget.spend((a.len() + b.len()) / 10)?;
                Ok(Val::text([&**a, &**b].concat()))
            }
            (Val::Bytes(a), Val::Bytes(b)) if op == Binary::Add => {
                self.budget.spend((a.len() + b.len()) / 10)?;
                Ok(Val::Bytes([&**a, &**b].concat().into()))
            }
            (Val::List(_) | Val::Items(..), Val::List(_) | Val::Items(..)) if op == Binary::Add => {
                value::joined(a, b, self.budget)
            }
            (Val::Duration(a), Val::Duration(b)) if matches!(op, Binary::Add | Binary::Sub) => {
                integer(op, *a, *b).map(Val::Duration)
            }
            (Val::Time(t), Val::Duration(d)) | (Val::Duration(d), Val::Time(t)) if op == Binary::Add => time(t, *d),
            (Val::Time(t), Val::Duration(d)) if op == Binary::Sub => time(t, d.checked_neg().ok_or_else(overflow)?),
            (Val::Time(a), Val::Time(b)) if op == Binary::Sub => {
                let micros = a.unix_micros().checked_sub(b.unix_micros());
                micros.and_then(|m| m.checked_mul(1000)).map(Val::Duration).ok_or_else(overflow)
            }
            _ => Err(no_overload()),
        }
    }

    fn each(&mut self, inner: &'a Loop) -> Out<'a> {
        let range = self.eval(&inner.range)?;
        if matches!(inner.what, Macro::OptMap | Macro::OptFlatMap) {
            let Val::Optional(value) = range else { return Err(no_overload()) };
            let Some(value) = value else { return Ok(Val::Optional(None)) };
            let out = self.with((*value).clone(), &inner.body)?;
            return Ok(if inner.what == Macro::OptMap { Val::Optional(Some(out.into())) } else { out });
        }
        let items = range.items().ok_or_else(no_overload)?;
        self.budget.spend(items.len())?;
        match inner.what {
            Macro::All => self.quantified(inner, items, false),
            Macro::Exists => self.quantified(inner, items, true),
            Macro::ExistsOne => {
                let mut found = 0;
                for item in items {
                    found += u8::from(self.holds(item, &inner.body)?).min(2 - found);
                }
                Ok(Val::Bool(found == 1))
            }
            Macro::Filter => {
                let mut out = Vec::new();
                for item in items {
                    if self.holds(item.clone(), &inner.body)? {
                        self.budget.spend(4)?;
                        out.push(item);
                    }
                }
                Ok(Val::List(out.into()))
            }
            _ => {
                let mut out = Vec::new();
                for item in items {
                    if let Some(only) = &inner.only
                        && !self.holds(item.clone(), only)?
                    {
                        continue;
                    }
                    self.budget.spend(4)?;
                    out.push(self.with(item, &inner.body)?);
                }
                Ok(Val::List(out.into()))
            }
        }
    }

    /// `all` and `exists`: as [`Self::until`].
    fn quantified(&mut self, inner: &'a Loop, items: Vec<Val<'a>>, decides: bool) -> Out<'a> {
        let mut fault = None;
        for item in items {
            match self.holds(item, &inner.body) {
                Ok(is) if is == decides => return Ok(Val::Bool(decides)),
                Ok(_) => {}
                Err(Stop::Cost) => return Err(Stop::Cost),
                Err(e) => drop(fault.get_or_insert(e)),
            }
        }
        fault.map_or(Ok(Val::Bool(!decides)), Err)
    }

    fn with(&mut self, value: Val<'a>, body: &'a Ast) -> Out<'a> {
        self.slots.push(value);
        let out = self.eval(body);
        self.slots.pop();
        out
    }

    fn holds(&mut self, value: Val<'a>, body: &'a Ast) -> Result<bool, Stop> {
        match self.with(value, body)? {
            Val::Bool(is) => Ok(is),
            _ => Err(no_overload()),
        }
    }
}

fn overflow() -> Stop {
    Stop::Error("integer overflow".into())
}

fn by_zero(op: Binary) -> Stop {
    Stop::Error(if op == Binary::Rem { "modulus by zero" } else { "division by zero" }.into())
}

fn integer(op: Binary, a: i64, b: i64) -> Result<i64, Stop> {
    match op {
        Binary::Add => a.checked_add(b),
        Binary::Sub => a.checked_sub(b),
        Binary::Mul => a.checked_mul(b),
        _ if b == 0 => return Err(by_zero(op)),
        Binary::Div => a.checked_div(b),
        _ => a.checked_rem(b),
    }
    .ok_or_else(overflow)
}

fn unsigned(op: Binary, a: u64, b: u64) -> Result<u64, Stop> {
    match op {
        Binary::Add => a.checked_add(b),
        Binary::Sub => a.checked_sub(b),
        Binary::Mul => a.checked_mul(b),
        _ if b == 0 => return Err(by_zero(op)),
        Binary::Div => a.checked_div(b),
        _ => a.checked_rem(b),
    }
    .ok_or_else(overflow)
}
