//! Types of expressions, as far as a schema tells them.

use std::rc::Rc;

use super::ast::Literal;
use crate::structural::{self, Node};

/// The type of an expression.
#[derive(Clone)]
pub(super) enum Ty<'n> {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Time,
    Duration,
    Type,
    Quantity,
    Ip,
    Cidr,
    Url,
    List(Rc<Ty<'n>>),
    /// Keys are texts in all maps that a schema can have.
    Map(Rc<Ty<'n>>, Rc<Ty<'n>>),
    /// Named fields only.
    Object(&'n Node),
    /// `metadata` of a whole object.
    Meta,
    Optional(Rc<Ty<'n>>),
}

impl<'n> Ty<'n> {
    pub(super) fn of_node(node: &'n Node) -> Ty<'n> {
        use structural::Ty as Kind;
        match node.ty {
            Kind::Any | Kind::IntOrString => Ty::Dyn,
            Kind::Boolean => Ty::Bool,
            Kind::Integer => Ty::Int,
            Kind::Number => Ty::Double,
            Kind::String => match node.format() {
                "date" | "date-time" | "datetime" => Ty::Time,
                "duration" => Ty::Duration,
                "byte" => Ty::Bytes,
                _ => Ty::Text,
            },
            Kind::Array => Ty::List(Rc::new(node.items.as_deref().map_or(Ty::Dyn, Ty::of_node))),
            Kind::Object => match &node.additional {
                Some(free) => Ty::Map(Rc::new(Ty::Text), Rc::new(Ty::of_node(free))),
                None => Ty::Object(node),
            },
        }
    }

    /// As [`functions`] names it; `?` for what may be anything.
    pub(super) fn letter(&self) -> char {
        match self {
            Ty::Dyn => '?',
            Ty::Null => '0',
            Ty::Bool => 'b',
            Ty::Int => 'i',
            Ty::Uint => 'u',
            Ty::Double => 'd',
            Ty::Text => 's',
            Ty::Bytes => 'y',
            Ty::Time => 't',
            Ty::Duration => 'n',
            Ty::Type => 'T',
            Ty::Quantity => 'q',
            Ty::Ip => 'p',
            Ty::Cidr => 'c',
            Ty::Url => 'h',
            Ty::List(_) => 'l',
            Ty::Map(..) => 'm',
            Ty::Object(_) | Ty::Meta => 'M',
            Ty::Optional(_) => 'o',
        }
    }

    pub(super) fn of_letter(letter: char) -> Ty<'n> {
        match letter {
            'b' => Ty::Bool,
            'i' => Ty::Int,
            'u' => Ty::Uint,
            'd' => Ty::Double,
            's' => Ty::Text,
            'y' => Ty::Bytes,
            't' => Ty::Time,
            'n' => Ty::Duration,
            'T' => Ty::Type,
            'q' => Ty::Quantity,
            'p' => Ty::Ip,
            'c' => Ty::Cidr,
            'h' => Ty::Url,
            'L' => Ty::List(Rc::new(Ty::Text)),
            'Q' => Ty::Map(Rc::new(Ty::Text), Rc::new(Ty::List(Rc::new(Ty::Text)))),
            _ => Ty::Dyn,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Ty::Dyn)
    }
    pub(super) fn fits(&self, letter: char) -> bool {
        self.is_open() || letter == '?' || self.letter() == letter
    }
    /// Whether both may be the same type.
    pub(super) fn agrees(&self, other: &Ty<'_>) -> bool {
        match (self, other) {
            (Ty::Dyn | Ty::Null, _) | (_, Ty::Dyn | Ty::Null) => true,
            (Ty::List(a), Ty::List(b)) | (Ty::Optional(a), Ty::Optional(b)) => a.agrees(b),
            (Ty::Map(_, a), Ty::Map(_, b)) => a.agrees(b),
            // A literal may stand for an object.
            (Ty::Object(_), Ty::Map(..)) | (Ty::Map(..), Ty::Object(_)) => true,
            _ => self.letter() == other.letter(),
        }
    }

    /// As messages name it.
    pub(super) fn name(&self) -> String {
        match self {
            Ty::Dyn => "dyn".into(),
            Ty::Null => "null".into(),
            Ty::Bool => "bool".into(),
            Ty::Int => "int".into(),
            Ty::Uint => "uint".into(),
            Ty::Double => "double".into(),
            Ty::Text => "string".into(),
            Ty::Bytes => "bytes".into(),
            Ty::Time => "timestamp".into(),
            Ty::Duration => "duration".into(),
            Ty::Type => "type".into(),
            Ty::Quantity => "kubernetes.Quantity".into(),
            Ty::Ip => "net.IP".into(),
            Ty::Cidr => "net.CIDR".into(),
            Ty::Url => "kubernetes.URL".into(),
            Ty::List(of) => format!("list({})", of.name()),
            Ty::Map(key, value) => format!("map({}, {})", key.name(), value.name()),
            Ty::Object(_) | Ty::Meta => "object".into(),
            Ty::Optional(of) => format!("optional_type({})", of.name()),
        }
    }
}

pub(super) fn of_literal<'n>(literal: &Literal) -> Ty<'n> {
    match literal {
        Literal::Null => Ty::Null,
        Literal::Bool(_) => Ty::Bool,
        Literal::Int(_) => Ty::Int,
        Literal::Uint(_) => Ty::Uint,
        Literal::Double(_) => Ty::Double,
        Literal::Text(_) => Ty::Text,
        Literal::Bytes(_) => Ty::Bytes,
    }
}

pub(super) fn wrapped(ty: Ty<'_>, optional: bool) -> Ty<'_> {
    match ty {
        Ty::Optional(_) => ty,
        ty if optional => Ty::Optional(Rc::new(ty)),
        ty => ty,
    }
}

/// The type of a list's items so far, and one more.
pub(super) fn common<'n>(so_far: Option<Ty<'n>>, next: Ty<'n>) -> Ty<'n> {
    match so_far {
        None => next,
        Some(ty) if ty.agrees(&next) && !ty.is_open() => ty,
        Some(_) => Ty::Dyn,
    }
}
