//! Values of a rule: what the object holds is borrowed, what the rule makes is shared.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;

use super::ast::Literal;
use super::net::{Cidr, Url};
use super::stop::{Budget, Stop};
use super::times;
use crate::quantity::Quantity;
use crate::structural::{ListType, Node, Ty};
use crate::time::Time;
use crate::tree::{Map, Value, as_i64};

#[derive(Clone)]
pub(super) enum Text<'a> {
    Lent(&'a str),
    Made(Rc<str>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Lent(text) => text,
            Text::Made(text) => text,
        }
    }
}

#[derive(Clone)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'a>),
    Bytes(Rc<[u8]>),
    Time(Time),
    /// Nanoseconds.
    Duration(i64),
    Type(&'static str),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(Cidr),
    Url(Rc<Url>),
    /// Made by the rule.
    List(Rc<[Val<'a>]>),
    Map(Rc<[(Val<'a>, Val<'a>)]>),
    /// Of the object, with its schema where there is one.
    Items(&'a [Value], Option<&'a Node>),
    Object(&'a Map<String, Value>, Option<&'a Node>),
    Optional(Option<Rc<Val<'a>>>),
}

impl<'a> Val<'a> {
    pub(super) fn text(text: impl Into<Rc<str>>) -> Val<'a> {
        Val::Text(Text::Made(text.into()))
    }

    /// A value of the object as its schema sees it.
    pub(super) fn lift(value: &'a Value, node: Option<&'a Node>) -> Val<'a> {
        let ty = node.map_or(Ty::Any, |n| n.ty);
        match value {
            Value::Null => Val::Null,
            Value::Bool(is) => Val::Bool(*is),
            Value::Number(n) => match (ty, as_i64(value)) {
                (Ty::Number, _) => Val::Double(n.as_f64().unwrap_or(f64::NAN)),
                (Ty::Any, _) if n.is_f64() => Val::Double(n.as_f64().unwrap_or(f64::NAN)),
                (_, Some(n)) => Val::Int(n),
                _ => n.as_u64().map_or(Val::Double(n.as_f64().unwrap_or(f64::NAN)), Val::Uint),
            },
            Value::String(text) => Val::lift_text(text, node.map_or("", Node::format)),
            Value::Array(list) => Val::Items(list, node),
            Value::Object(map) => Val::Object(map, node),
        }
    }

    fn lift_text(text: &'a str, format: &str) -> Val<'a> {
        let read = match format {
            "date" => Time::parse(&format!("{text}T00:00:00Z")).map(Val::Time),
            "date-time" | "datetime" => Time::parse(text).map(Val::Time),
            "duration" => times::duration(text).map(Val::Duration),
            "byte" => {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.decode(text).ok().map(|b| Val::Bytes(b.into()))
            }
            _ => None,
        };
        read.unwrap_or(Val::Text(Text::Lent(text)))
    }

    pub(super) fn literal(literal: &'a Literal) -> Val<'a> {
        match literal {
            Literal::Null => Val::Null,
            Literal::Bool(is) => Val::Bool(*is),
            Literal::Int(n) => Val::Int(*n),
            Literal::Uint(n) => Val::Uint(*n),
            Literal::Double(n) => Val::Double(*n),
            Literal::Text(text) => Val::Text(Text::Lent(text)),
            Literal::Bytes(bytes) => Val::Bytes(Rc::from(&**bytes)),
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Val::Null => "null_type",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Uint(_) => "uint",
            Val::Double(_) => "double",
            Val::Text(_) => "string",
            Val::Bytes(_) => "bytes",
            Val::Time(_) => "google.protobuf.Timestamp",
            Val::Duration(_) => "google.protobuf.Duration",
            Val::Type(_) => "type",
            Val::Quantity(_) => "kubernetes.Quantity",
            Val::Ip(_) => "net.IP",
            Val::Cidr(_) => "net.CIDR",
            Val::Url(_) => "kubernetes.URL",
            Val::List(_) | Val::Items(..) => "list",
            Val::Map(_) | Val::Object(..) => "map",
            Val::Optional(_) => "optional_type",
        }
    }

    /// The items of a list, the keys of a map.
    pub(super) fn items(&self) -> Option<Vec<Val<'a>>> {
        Some(match self {
            Val::List(list) => list.to_vec(),
            Val::Items(list, node) => {
                let item = node.and_then(|n| n.items.as_deref());
                list.iter().map(|v| Val::lift(v, item)).collect()
            }
            Val::Map(pairs) => pairs.iter().map(|(key, _)| key.clone()).collect(),
            Val::Object(map, _) => map.keys().map(|key| Val::Text(Text::Lent(key))).collect(),
            _ => return None,
        })
    }
    pub(super) fn len(&self) -> Option<usize> {
        Some(match self {
            Val::Text(text) => text.chars().count(),
            Val::Bytes(bytes) => bytes.len(),
            Val::List(list) => list.len(),
            Val::Items(list, _) => list.len(),
            Val::Map(pairs) => pairs.len(),
            Val::Object(map, _) => map.len(),
            _ => return None,
        })
    }
    /// A field; what is null is not there, unless the schema lets it be null.
    pub(super) fn field(&self, name: &str) -> Option<Val<'a>> {
        match self {
            Val::Object(map, node) => {
                let below = node.and_then(|n| n.field(name));
                let value = map.get(name)?;
                let there = !value.is_null() || below.is_none_or(|n| n.nullable);
                there.then(|| Val::lift(value, below))
            }
            Val::Map(pairs) => {
                pairs.iter().find(|(key, _)| matches!(key, Val::Text(t) if **t == *name)).map(|(_, v)| v.clone())
            }
            _ => None,
        }
    }
    pub(super) fn item(&self, index: usize) -> Option<Val<'a>> {
        match self {
            Val::List(list) => list.get(index).cloned(),
            Val::Items(list, node) => {
                list.get(index).map(|value| Val::lift(value, node.and_then(|n| n.items.as_deref())))
            }
            _ => None,
        }
    }
    fn list_type(&self) -> ListType {
        match self {
            Val::Items(_, Some(node)) => node.list,
            _ => ListType::Atomic,
        }
    }
    fn map_keys(&self) -> Option<&'a str> {
        match self {
            Val::Items(_, Some(node)) if node.list == ListType::Map => Some(&node.map_keys),
            _ => None,
        }
    }
}

/// What a step of a run gives.
pub(super) type Out<'a> = Result<Val<'a>, Stop>;

/// An order of numbers of any kind; None: one is no number.
fn number_order(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Int(a), Val::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Uint(a), Val::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Int(a), Val::Double(b)) => double_order(i128::from(*a), *b),
        (Val::Uint(a), Val::Double(b)) => double_order(i128::from(*a), *b),
        (Val::Double(_), Val::Int(_) | Val::Uint(_)) => number_order(b, a).map(Ordering::reverse),
        _ => None,
    }
}

fn double_order(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // Both kinds of integers are far within what the cast saturates to.
    let whole = b.floor();
    Some(a.cmp(&(whole as i128)).then(if b > whole { Ordering::Less } else { Ordering::Equal }))
}

/// `<` and its like; None: no such overload (or a NaN).
pub(super) fn order(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    match (a, b) {
        (Val::Text(a), Val::Text(b)) => Some((**a).cmp(&**b)),
        (Val::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
        (Val::Time(a), Val::Time(b)) => Some(a.cmp(b)),
        (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
        (Val::Quantity(a), Val::Quantity(b)) => Some(a.cmp(b)),
        _ => number_order(a, b),
    }
}

/// `==`. Sets and lists that are maps are equal in any order.
pub(super) fn equal(a: &Val<'_>, b: &Val<'_>, budget: &mut Budget) -> Result<bool, Stop> {
    budget.spend(1)?;
    Ok(match (a, b) {
        (Val::Null, Val::Null) => true,
        (Val::Text(a), Val::Text(b)) => {
            budget.spend(a.len().min(b.len()) / 10)?;
            **a == **b
        }
        (Val::Ip(a), Val::Ip(b)) => a == b,
        (Val::Cidr(a), Val::Cidr(b)) => a == b,
        (Val::Url(a), Val::Url(b)) => a == b,
        (Val::Type(a), Val::Type(b)) => a == b,
        (Val::Optional(a), Val::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b, budget)?,
            (a, b) => a.is_none() && b.is_none(),
        },
        (Val::List(_) | Val::Items(..), Val::List(_) | Val::Items(..)) => lists_equal(a, b, budget)?,
        (Val::Map(_) | Val::Object(..), Val::Map(_) | Val::Object(..)) => maps_equal(a, b, budget)?,
        _ => order(a, b) == Some(Ordering::Equal),
    })
}

fn lists_equal(a: &Val<'_>, b: &Val<'_>, budget: &mut Budget) -> Result<bool, Stop> {
    if a.len() != b.len() {
        return Ok(false);
    }
    let (x, y) = (a.items().unwrap_or_default(), b.items().unwrap_or_default());
    budget.spend(x.len())?;
    if a.list_type() == ListType::Atomic && b.list_type() == ListType::Atomic {
        for (one, other) in x.iter().zip(&y) {
            if !equal(one, other, budget)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    Ok(holds_all(&x, &y, budget)? && holds_all(&y, &x, budget)?)
}

/// Whether every item of `wanted` is in `list`.
pub(super) fn holds_all(list: &[Val<'_>], wanted: &[Val<'_>], budget: &mut Budget) -> Result<bool, Stop> {
    for one in wanted {
        if !holds(list, one, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn holds(list: &[Val<'_>], wanted: &Val<'_>, budget: &mut Budget) -> Result<bool, Stop> {
    for one in list {
        if equal(one, wanted, budget)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn maps_equal(a: &Val<'_>, b: &Val<'_>, budget: &mut Budget) -> Result<bool, Stop> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for key in a.items().unwrap_or_default() {
        let (Some(x), Some(y)) = (at_key(a, &key, budget)?, at_key(b, &key, budget)?) else { return Ok(false) };
        if !equal(&x, &y, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a map has under a key.
pub(super) fn at_key<'a>(map: &Val<'a>, key: &Val<'_>, budget: &mut Budget) -> Result<Option<Val<'a>>, Stop> {
    match (map, key) {
        (Val::Object(..), Val::Text(name)) => Ok(map.field(name)),
        (Val::Map(pairs), _) => {
            for (k, v) in pairs.iter() {
                if equal(k, key, budget)? {
                    return Ok(Some(v.clone()));
                }
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// `+` of two lists: sets are united, lists that are maps merged (API conventions of `x-kubernetes-list-type`).
pub(super) fn joined<'a>(a: &Val<'a>, b: &Val<'a>, budget: &mut Budget) -> Result<Val<'a>, Stop> {
    let (mut out, more) = (a.items().unwrap_or_default(), b.items().unwrap_or_default());
    budget.spend(4 * (out.len() + more.len()))?;
    let keys = a.map_keys();
    for item in more {
        if a.list_type() == ListType::Set && holds(&out, &item, budget)? {
            continue;
        }
        let mut place = None;
        if let Some(keys) = keys {
            for (i, old) in out.iter().enumerate() {
                if same_keys(old, &item, keys, budget)? {
                    place = Some(i);
                }
            }
        }
        match place.and_then(|i| out.get_mut(i)) {
            Some(old) => *old = item,
            None => out.push(item),
        }
    }
    Ok(Val::List(out.into()))
}

fn same_keys(a: &Val<'_>, b: &Val<'_>, keys: &str, budget: &mut Budget) -> Result<bool, Stop> {
    for key in keys.split(',') {
        let same = match (a.field(key), b.field(key)) {
            (Some(a), Some(b)) => equal(&a, &b, budget)?,
            (a, b) => a.is_none() && b.is_none(),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}
