//! What fields a kind has: a committed table of types, and the check of an object against it.
//!
//! The table (`schema/types.txt`, written by `derive/`) is text that is searched in place: nothing is built in memory at start. One line per
//! type, sorted by name, then its fields, sorted: `apps/v1.DeploymentSpec replicas*1:i template!#3:v1.PodTemplateSpec`. `!` marks required
//! fields. Then the field's number in protobuf, after `#`, or after `*` if Go writes it in JSON also when it is zero; `2.5`: field 5 of the
//! message in field 2, which JSON does not show. Shapes: `s`tring, `i`nt32, `l`ong (int64), `b`ool, `f`loat, `t`ime, `m`icro time, `q`uantity, int `o`r string, b`y`tes in base64,
//! `r`aw JSON, `[shape]` list, `{shape}` map; a name with a dot is a type, with nothing before the dot of the same group and version. After a list:
//! `=` a set, `#a,b` a map by these keys (server-side apply), `^a` merged by this key (strategic merge), `^` added to, `~` `$retainKeys`.
//! After a struct or map: `=` owned as one value. A list without a mark is replaced whole.

mod check;

use crate::kind::{Kind, Verbs, split_api_version};
use crate::structural::{ListType, Node, Ty};

pub use check::{Unknown, check};

pub(crate) const TYPES: &str = include_str!("schema/types.txt");

/// One struct of the API.
#[derive(Clone, Copy)]
pub struct Type<'a> {
    /// `apps/v1.DeploymentSpec`
    pub name: &'a str,
    fields: Fields<'a>,
}

/// Where the fields of a struct are written.
#[derive(Clone, Copy)]
enum Fields<'a> {
    Table(&'a str),
    Custom(&'a Node),
}

/// One field of a struct.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    pub name: &'a str,
    pub required: bool,
    /// Path of numbers in protobuf (`5`, `2.5`); "" for none.
    pub number: &'a str,
    /// Go writes it in JSON also when it is zero: a pointer, or not `omitempty`.
    pub keeps_zero: bool,
    pub shape: Shape<'a>,
}

/// What a number in a protobuf message stands for.
pub enum Numbered<'a> {
    Field(Field<'a>),
    /// A message whose fields JSON shows among those around it.
    Inline,
    Unknown,
}

/// How a list is merged and owned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ListRules<'a> {
    /// A set of plain values, each owned by itself.
    pub set: bool,
    /// Keys of a list that is a map for server-side apply, separated by commas; "" for none.
    pub map_keys: &'a str,
    /// A strategic merge patch merges items by this key; `Some("")`: it adds plain values.
    pub patch_key: Option<&'a str>,
    /// `$retainKeys` may be used on items.
    pub retain_keys: bool,
}

/// What may stand in a field.
#[derive(Clone, Copy)]
pub enum Shape<'a> {
    String,
    Int32,
    Int64,
    Bool,
    Float,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    Bytes,
    /// Anything, unchecked.
    Raw,
    List(Inner<'a>, ListRules<'a>),
    /// Keys are free; `true`: owned as one value.
    Map(Inner<'a>, bool),
    /// `true`: owned as one value.
    Struct(Type<'a>, bool),
}

/// The shape inside a list or map, read when asked for.
#[derive(Clone, Copy)]
pub enum Inner<'a> {
    /// `home`: group and version that names beginning with a dot belong to.
    Table {
        text: &'a str,
        home: &'a str,
    },
    Custom(&'a Node),
}

impl<'a> Inner<'a> {
    pub fn shape(self) -> Shape<'a> {
        match self {
            Inner::Table { text, home } => Shape::parse(text, home),
            Inner::Custom(node) => Shape::of_node(node),
        }
    }
}

impl<'a> Shape<'a> {
    fn parse(text: &'a str, home: &'a str) -> Shape<'a> {
        let within = |open: char, close: char| text.strip_prefix(open).and_then(|t| t.rsplit_once(close));
        if let Some((inner, marks)) = within('[', ']') {
            return Shape::List(Inner::Table { text: inner, home }, ListRules::parse(marks));
        }
        if let Some((inner, marks)) = within('{', '}') {
            return Shape::Map(Inner::Table { text: inner, home }, marks == "=");
        }
        match text {
            "s" => Shape::String,
            "i" => Shape::Int32,
            "l" => Shape::Int64,
            "b" => Shape::Bool,
            "f" => Shape::Float,
            "t" => Shape::Time,
            "m" => Shape::MicroTime,
            "q" => Shape::Quantity,
            "o" => Shape::IntOrString,
            "y" => Shape::Bytes,
            "r" => Shape::Raw,
            _ => {
                let name = text.trim_end_matches(['=', '~']);
                let found = match name.strip_prefix('.') {
                    Some(short) => find_in(home, short),
                    None => find(name),
                };
                found.map_or(Shape::Raw, |t| Shape::Struct(t, text.ends_with('=')))
            }
        }
    }

    /// The same of a schema that a definition gave.
    fn of_node(node: &'a Node) -> Shape<'a> {
        match node.ty {
            Ty::String => Shape::String,
            Ty::Integer => Shape::Int64,
            Ty::Number => Shape::Float,
            Ty::Boolean => Shape::Bool,
            Ty::IntOrString => Shape::IntOrString,
            Ty::Array => node.items.as_deref().map_or(Shape::Raw, |items| {
                let map_keys = if node.list == ListType::Map { &*node.map_keys } else { "" };
                let set = node.list == ListType::Set;
                Shape::List(Inner::Custom(items), ListRules { set, map_keys, patch_key: None, retain_keys: false })
            }),
            Ty::Object | Ty::Any => match &node.additional {
                _ if node.embedded || node.atomic || node.properties().next().is_some() => {
                    Shape::Struct(Type { name: "", fields: Fields::Custom(node) }, node.atomic)
                }
                Some(inner) => Shape::Map(Inner::Custom(inner), false),
                None => Shape::Raw,
            },
        }
    }

    /// The shape of `key` inside a struct or map.
    pub fn child(self, key: &str) -> Option<Shape<'a>> {
        match self {
            Shape::Struct(ty, _) => ty.field(key).map(|f| f.shape),
            Shape::Map(inner, _) => Some(inner.shape()),
            Shape::Raw => Some(Shape::Raw),
            _ => None,
        }
    }

    /// The shape of the items of a list.
    pub fn item(self) -> Option<Shape<'a>> {
        match self {
            Shape::List(inner, _) => Some(inner.shape()),
            Shape::Raw => Some(Shape::Raw),
            _ => None,
        }
    }

    /// As Go would name the type in a message.
    fn go_name(self) -> String {
        match self {
            Shape::String => "string".into(),
            Shape::Int32 => "int32".into(),
            Shape::Int64 => "int64".into(),
            Shape::Bool => "bool".into(),
            Shape::Float => "float64".into(),
            Shape::Time => "v1.Time".into(),
            Shape::MicroTime => "v1.MicroTime".into(),
            Shape::Quantity => "resource.Quantity".into(),
            Shape::IntOrString => "intstr.IntOrString".into(),
            Shape::Bytes => "[]uint8".into(),
            Shape::Raw => "json.RawMessage".into(),
            Shape::List(inner, _) => format!("[]{}", inner.shape().go_name()),
            Shape::Map(inner, _) => format!("map[string]{}", inner.shape().go_name()),
            Shape::Struct(ty, _) => ty.name.rsplit_once('/').map_or(ty.name, |(_, n)| n).into(),
        }
    }
}

impl<'a> ListRules<'a> {
    fn parse(marks: &'a str) -> Self {
        let (marks, retain_keys) = marks.strip_suffix('~').map_or((marks, false), |m| (m, true));
        let (marks, patch_key) = marks.split_once('^').map_or((marks, None), |(m, key)| (m, Some(key)));
        Self { set: marks == "=", map_keys: marks.strip_prefix('#').unwrap_or(""), patch_key, retain_keys }
    }
}

impl<'a> Type<'a> {
    /// `apps/v1`
    fn home(self) -> &'a str {
        self.name.rsplit_once('.').map_or("", |(home, _)| home)
    }
    pub fn fields(self) -> impl Iterator<Item = Field<'a>> {
        self.text().split(' ').filter(|f| !f.is_empty()).filter_map(move |f| self.parse(f))
    }
    pub fn field(self, name: &str) -> Option<Field<'a>> {
        match self.fields {
            Fields::Table(text) => self.parse(text.split(' ').find(|f| is_of(f, name))?),
            Fields::Custom(node) => custom_field(node, name),
        }
    }
    /// The fields as the table writes them.
    fn text(self) -> &'a str {
        match self.fields {
            Fields::Table(text) => text,
            Fields::Custom(_) => "",
        }
    }
    /// The field with a path of numbers (`5`, `2.5`) in protobuf.
    pub fn numbered(self, path: &str) -> Numbered<'a> {
        for text in self.text().split(' ') {
            let number = split_number(text.split(':').next().unwrap_or("")).1;
            match number.strip_prefix(path) {
                Some("") => return self.parse(text).map_or(Numbered::Unknown, Numbered::Field),
                Some(rest) if rest.starts_with('.') => return Numbered::Inline,
                _ => {}
            }
        }
        Numbered::Unknown
    }
    fn parse(self, field: &'a str) -> Option<Field<'a>> {
        let (name, shape) = field.split_once(':')?;
        let (name, number, keeps_zero) = split_number(name);
        let (name, required) = name.strip_suffix('!').map_or((name, false), |n| (n, true));
        Some(Field { name, required, number, keeps_zero, shape: Shape::parse(shape, self.home()) })
    }
    /// Whether `field` is a struct to which `$retainKeys` applies.
    pub fn retains_keys(self, field: &str) -> bool {
        self.text().split(' ').any(|f| f.ends_with('~') && is_of(f, field))
    }
}

/// A field of a struct that a definition describes; what every object has is as in the table.
fn custom_field<'a>(node: &'a Node, name: &str) -> Option<Field<'a>> {
    let of = |name: &'a str, shape| Field { name, required: false, number: "", keeps_zero: true, shape };
    if node.is_meta(name) {
        return Some(match name {
            "metadata" => of("metadata", find("meta/v1.ObjectMeta").map_or(Shape::Raw, |t| Shape::Struct(t, false))),
            _ => of("kind", Shape::String),
        });
    }
    let (name, below) = match node.named(name) {
        Some(found) => found,
        None => ("", node.additional.as_deref()?),
    };
    Some(of(name, Shape::of_node(below)))
}

/// Whether the text of a field is that of `name`.
fn is_of(field: &str, name: &str) -> bool {
    field.strip_prefix(name).is_some_and(|rest| rest.starts_with([':', '!', '#', '*']))
}

/// `replicas*1` -> `replicas`, `1`, and whether a zero is kept.
fn split_number(head: &str) -> (&str, &str, bool) {
    let cut = |mark| head.split_once(mark);
    match (cut('#'), cut('*')) {
        (Some((name, number)), _) => (name, number, false),
        (_, Some((name, number))) => (name, number, true),
        _ => (head, "", true),
    }
}

/// Every type of the table, by name.
pub fn all() -> impl Iterator<Item = Type<'static>> {
    TYPES.lines().map(|line| {
        let (name, fields) = line.split_once(' ').unwrap_or((line, ""));
        Type { name, fields: Fields::Table(fields) }
    })
}

/// The type of a name (`v1.Pod`, `apps/v1.Deployment`).
pub fn find(name: &str) -> Option<Type<'static>> {
    search(|line| line.split(' ').next().unwrap_or("").cmp(name))
}

fn find_in(home: &str, short: &str) -> Option<Type<'static>> {
    search(|line| {
        let have = line.split(' ').next().unwrap_or("");
        // Compares `have` with `home.short` without building it.
        let n = have.len().min(home.len());
        let (head, tail) = have.split_at_checked(n).unwrap_or((have, ""));
        head.cmp(home)
            .then_with(|| tail.get(..1).unwrap_or("").cmp("."))
            .then_with(|| tail.get(1..).unwrap_or("").cmp(short))
    })
}

/// Binary search over the sorted lines of the table.
fn search(compare: impl Fn(&str) -> std::cmp::Ordering) -> Option<Type<'static>> {
    let bytes = TYPES.as_bytes();
    let (mut low, mut high) = (0, TYPES.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let start = bytes.get(low..middle)?.iter().rposition(|b| *b == b'\n').map_or(low, |i| low + i + 1);
        let end = bytes.get(middle..high)?.iter().position(|b| *b == b'\n').map_or(high, |i| middle + i);
        let line = TYPES.get(start..end)?;
        match compare(line) {
            std::cmp::Ordering::Equal => {
                let (name, fields) = line.split_once(' ').unwrap_or((line, ""));
                return Some(Type { name, fields: Fields::Table(fields) });
            }
            std::cmp::Ordering::Less => low = end + 1,
            std::cmp::Ordering::Greater => high = start,
        }
    }
    None
}

/// The shape of a whole object of a kind; `Raw` for kinds without schema.
pub fn of(kind: &Kind) -> Shape<'_> {
    match &kind.custom {
        Some(custom) => Shape::of_node(&custom.schema),
        None => find(&kind.type_name).map_or(Shape::Raw, |t| Shape::Struct(t, false)),
    }
}

/// The kind of a body that is no resource of its own (`autoscaling/v1.Scale`, `policy/v1.Eviction`, `authentication.k8s.io/v1.TokenRequest`,
/// `meta/v1.DeleteOptions`), to check it by its schema. `None` for a type that the table lacks.
pub fn kind_of_body(type_name: &'static str) -> Option<Kind> {
    find(type_name)?;
    let (home, kind) = type_name.rsplit_once('.')?;
    let (group, version) = split_api_version(home);
    Some(Kind {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        plural: kind.to_lowercase().into(),
        singular: kind.to_lowercase().into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: false,
        verbs: Verbs::CreateOnly,
        subresources: Vec::new(),
        type_name: type_name.into(),
        custom: None,
    })
}

#[cfg(test)]
mod tests;
