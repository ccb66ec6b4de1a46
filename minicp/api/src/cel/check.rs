//! What a rule means before it is run: which names and functions it uses, and of which type everything is, as far as the schema says.
//!
//! A light form of CEL's checker. Where the schema leaves a type open (`x-kubernetes-int-or-string`, free fields) the run decides.

use std::rc::Rc;

use super::ast::{Ast, Binary, Expr, Literal, Loop, Macro};
use super::fault::Fault;
use super::functions::{self, Function, Row};
use super::names;
use super::types::{Ty, common, of_literal, wrapped};
use crate::structural::pattern::Pattern;

pub(super) struct Checker<'n> {
    /// Names in sight and their types; the place is the slot. None: not to be used here.
    names: Vec<(Box<str>, Ty<'n>)>,
    pub uses_old: bool,
}

type Checked<'n> = Result<Ty<'n>, Fault>;

impl<'n> Checker<'n> {
    /// `old` None: `oldSelf` has no meaning here.
    pub(super) fn new(own: Ty<'n>, optional_old: bool) -> Checker<'n> {
        let old = if optional_old { Ty::Optional(Rc::new(own.clone())) } else { own.clone() };
        Checker { names: vec![("self".into(), own), ("oldSelf".into(), old)], uses_old: false }
    }

    pub(super) fn check(&mut self, ast: &mut Ast) -> Checked<'n> {
        let at = ast.at;
        let name = match &ast.expr {
            Expr::Name(name) => Some(name.clone()),
            _ => None,
        };
        if let Some(name) = name {
            let (expr, ty) = self.name(at, &name)?;
            ast.expr = expr;
            return Ok(ty);
        }
        match &mut ast.expr {
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Name(_) | Expr::Slot(_) | Expr::Pattern(_) | Expr::Type(_) => Ok(Ty::Type),
            Expr::Select { of, name, test, optional } => {
                let ty = self.check(of)?;
                let (ty, lifted) = match ty {
                    Ty::Optional(inner) => ((*inner).clone(), true),
                    ty => (ty, *optional),
                };
                let found = select(at, &ty, name)?;
                Ok(if *test { Ty::Bool } else { wrapped(found, lifted) })
            }
            Expr::Index { of, key, optional } => {
                let (ty, key) = (self.check(of)?, self.check(key)?);
                let (ty, lifted) = match ty {
                    Ty::Optional(inner) => ((*inner).clone(), true),
                    ty => (ty, *optional),
                };
                let found = match &ty {
                    Ty::Dyn => Ty::Dyn,
                    Ty::List(item) if key.fits('i') || key.fits('u') || key.fits('d') => (**item).clone(),
                    Ty::Map(wanted, value) if wanted.agrees(&key) => (**value).clone(),
                    _ => return Err(no_overload(at, "_[_]", &[ty, key])),
                };
                Ok(wrapped(found, lifted))
            }
            Expr::Call { .. } => self.call(ast),
            Expr::Not(of) => self.truth(of).map(|()| Ty::Bool),
            Expr::Negative(of) => match self.check(of)? {
                ty @ (Ty::Dyn | Ty::Int | Ty::Double | Ty::Duration) => Ok(ty),
                ty => Err(no_overload(at, "-_", &[ty])),
            },
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.check(a)?, self.check(b)?);
                binary(at, *op, a, b)
            }
            Expr::And(all) | Expr::Or(all) => {
                all.iter_mut().try_for_each(|one| self.truth(one))?;
                Ok(Ty::Bool)
            }
            Expr::Choice(three) => {
                let [condition, yes, no] = &mut **three;
                self.truth(condition)?;
                let (yes, no) = (self.check(yes)?, self.check(no)?);
                if !yes.agrees(&no) {
                    return Err(no_overload(at, "_?_:_", &[Ty::Bool, yes, no]));
                }
                Ok(if matches!(yes, Ty::Null) { no } else { yes })
            }
            Expr::List(items) => {
                let mut item = None;
                for one in items {
                    item = Some(common(item, self.check(one)?));
                }
                Ok(Ty::List(Rc::new(item.unwrap_or(Ty::Dyn))))
            }
            Expr::Map(pairs) => {
                let (mut keys, mut values) = (None, None);
                for (key, value) in pairs {
                    keys = Some(common(keys, self.check(key)?));
                    values = Some(common(values, self.check(value)?));
                }
                Ok(Ty::Map(Rc::new(keys.unwrap_or(Ty::Dyn)), Rc::new(values.unwrap_or(Ty::Dyn))))
            }
            Expr::Loop(inner) => self.each(at, inner),
        }
    }

    fn name(&mut self, at: usize, name: &str) -> Result<(Expr, Ty<'n>), Fault> {
        const TYPES: &[&str] =
            &["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"];
        // The innermost first: a macro's name hides what is outside.
        if let Some(slot) = self.names.iter().rposition(|(n, _)| **n == *name) {
            self.uses_old |= slot == 1;
            return Ok((Expr::Slot(slot), self.names.get(slot).map_or(Ty::Dyn, |(_, ty)| ty.clone())));
        }
        match TYPES.iter().find(|ty| **ty == name) {
            Some(ty) => Ok((Expr::Type(ty), Ty::Type)),
            None => Err(undeclared(at, name)),
        }
    }

    fn truth(&mut self, ast: &mut Ast) -> Result<(), Fault> {
        let ty = self.check(ast)?;
        if ty.fits('b') { Ok(()) } else { Err(no_overload(ast.at, "bool", &[ty])) }
    }

    fn each(&mut self, at: usize, inner: &mut Loop) -> Checked<'n> {
        let range = self.check(&mut inner.range)?;
        let optional = matches!(inner.what, Macro::OptMap | Macro::OptFlatMap);
        let item = match &range {
            Ty::Dyn => Ty::Dyn,
            Ty::Optional(of) if optional => (**of).clone(),
            Ty::List(of) if !optional => (**of).clone(),
            Ty::Map(key, _) if !optional => (**key).clone(),
            _ => {
                return Err(Fault::new(
                    at,
                    format!(
                        "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                        range.name()
                    ),
                ));
            }
        };
        self.names.push((inner.name.clone(), item));
        let only = inner.only.as_mut().map(|only| self.truth(only)).transpose();
        let body = match inner.what {
            Macro::All | Macro::Exists | Macro::ExistsOne | Macro::Filter => {
                self.truth(&mut inner.body).map(|()| Ty::Bool)
            }
            Macro::Map | Macro::OptMap | Macro::OptFlatMap => self.check(&mut inner.body),
        };
        self.names.pop();
        only?;
        let body = body?;
        Ok(match inner.what {
            Macro::All | Macro::Exists | Macro::ExistsOne => Ty::Bool,
            Macro::Filter => match range {
                Ty::Map(key, _) => Ty::List(key),
                range => range,
            },
            Macro::Map => Ty::List(Rc::new(body)),
            Macro::OptMap => Ty::Optional(Rc::new(body)),
            Macro::OptFlatMap => body,
        })
    }

    fn call(&mut self, ast: &mut Ast) -> Checked<'n> {
        let at = ast.at;
        let Expr::Call { name, of, args, function } = &mut ast.expr else { return Ok(Ty::Dyn) };
        // `sets.contains(a, b)`: not a receiver but a part of the name.
        if let Some(Ast { expr: Expr::Name(space), .. }) = of.as_deref()
            && self.names.iter().all(|(n, _)| n != space)
        {
            let whole = format!("{space}.{name}");
            if functions::is_known(&whole) || functions::is_left_out(&whole) {
                *name = whole.into();
                *of = None;
            }
        }
        let receiver = of.as_mut().map(|of| self.check(of)).transpose()?;
        let mut types = Vec::new();
        for arg in args.iter_mut() {
            types.push(self.check(arg)?);
        }
        let fits = |row: &Row| {
            let letters = row.args.chars();
            row.of.zip(receiver.as_ref()).is_none_or(|(letter, ty)| ty.fits(letter))
                && letters.clone().count() == types.len()
                && letters.zip(&types).all(|(letter, ty)| ty.fits(letter))
        };
        let rows: Vec<Row> = functions::rows(name, receiver.is_some()).filter(fits).collect();
        let Some(first) = rows.first() else {
            if functions::is_left_out(name) {
                return Err(Fault::new(at, format!("function '{name}' is not supported by this server")));
            }
            if !functions::is_known(name) {
                return Err(undeclared(at, name));
            }
            let all: Vec<Ty<'n>> = types.into_iter().collect();
            return Err(no_method(at, name, receiver.as_ref(), &all));
        };
        *function = Some(first.function);
        if matches!(first.function, Function::Matches | Function::Find | Function::FindAll)
            && let Some(arg) = args.get_mut(usize::from(receiver.is_none()))
            && let Expr::Literal(Literal::Text(text)) = &arg.expr
        {
            let pattern =
                Pattern::new(text).map_err(|e| Fault::new(arg.at, format!("invalid matches argument: {e}")))?;
            arg.expr = Expr::Pattern(Box::new(pattern));
        }
        if rows.iter().any(|row| row.result != first.result) {
            return Ok(Ty::Dyn);
        }
        Ok(match (first.result, &receiver, types.first()) {
            ('e', Some(Ty::List(item)), _) => (**item).clone(),
            ('v', Some(Ty::Optional(inner)), arg) => match &**inner {
                Ty::Dyn => arg.cloned().unwrap_or(Ty::Dyn),
                inner => inner.clone(),
            },
            ('o', Some(ty @ Ty::Optional(_)), _) => ty.clone(),
            ('o', _, Some(arg)) => Ty::Optional(Rc::new(arg.clone())),
            ('o', ..) => Ty::Optional(Rc::new(Ty::Dyn)),
            (letter, ..) => Ty::of_letter(letter),
        })
    }
}

/// The type of a field; its name becomes what the object has it under.
fn select<'n>(at: usize, of: &Ty<'n>, name: &mut Box<str>) -> Checked<'n> {
    let unknown = |name: &str| Err(Fault::new(at, format!("undefined field '{name}'")));
    match of {
        Ty::Dyn => Ok(Ty::Dyn),
        Ty::Map(key, value) if key.fits('s') => Ok((**value).clone()),
        Ty::Meta => match &**name {
            "name" | "generateName" => Ok(Ty::Text),
            other => unknown(other),
        },
        Ty::Object(node) => {
            let plain = names::unescaped(name);
            if node.is_meta(&plain) {
                return Ok(if plain == "metadata" { Ty::Meta } else { Ty::Text });
            }
            match node.property(&plain) {
                Some(below) => {
                    *name = plain.into();
                    Ok(Ty::of_node(below))
                }
                None => unknown(name),
            }
        }
        other => Err(Fault::new(at, format!("type '{}' does not support field selection", other.name()))),
    }
}

fn binary<'n>(at: usize, op: Binary, a: Ty<'n>, b: Ty<'n>) -> Checked<'n> {
    let wrong = |a: Ty<'n>, b: Ty<'n>| Err(no_overload(at, &format!("_{}_", op.sign()), &[a, b]));
    let open = a.is_open() || b.is_open();
    let (x, y) = (a.letter(), b.letter());
    let number = |letter: char| matches!(letter, 'i' | 'u' | 'd');
    match op {
        Binary::Eq | Binary::Ne if a.agrees(&b) => Ok(Ty::Bool),
        Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge
            if open || (x == y && "iudbsytn".contains(x)) || (number(x) && number(y)) =>
        {
            Ok(Ty::Bool)
        }
        Binary::In => match &b {
            Ty::Dyn => Ok(Ty::Bool),
            Ty::List(item) if item.agrees(&a) => Ok(Ty::Bool),
            Ty::Map(key, _) if key.agrees(&a) => Ok(Ty::Bool),
            _ => Err(no_overload(at, "@in", &[a, b])),
        },
        Binary::Add if matches!((x, y), ('t', 'n') | ('n', 't')) => Ok(Ty::Time),
        Binary::Sub if (x, y) == ('t', 't') => Ok(Ty::Duration),
        Binary::Sub if (x, y) == ('t', 'n') => Ok(Ty::Time),
        Binary::Add if x == y && "iudsynl".contains(x) && a.agrees(&b) => Ok(a),
        Binary::Sub if x == y && "iudn".contains(x) => Ok(a),
        Binary::Mul | Binary::Div if x == y && number(x) => Ok(a),
        Binary::Rem if x == y && matches!(x, 'i' | 'u') => Ok(a),
        Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Rem if open => Ok(Ty::Dyn),
        _ => wrong(a, b),
    }
}

fn undeclared(at: usize, name: &str) -> Fault {
    Fault::new(at, format!("undeclared reference to '{name}' (in container '')"))
}

fn names_of(types: &[Ty<'_>]) -> String {
    types.iter().map(Ty::name).collect::<Vec<_>>().join(", ")
}

fn no_overload(at: usize, what: &str, types: &[Ty<'_>]) -> Fault {
    Fault::new(at, format!("found no matching overload for '{what}' applied to '({})'", names_of(types)))
}

fn no_method(at: usize, name: &str, of: Option<&Ty<'_>>, types: &[Ty<'_>]) -> Fault {
    let of = of.map_or_else(String::new, |of| of.name() + ".");
    Fault::new(at, format!("found no matching overload for '{name}' applied to '{of}({})'", names_of(types)))
}
