//! What fields a kind has: a committed table of types, and the check of an object against it.
//!
//! The table (`schema/types.txt`, written by `derive/`) is text that is searched in place: nothing is built in memory at start. One line per
//! type, sorted by name, then its fields, sorted: `apps/v1.DeploymentSpec replicas:i template!:v1.PodTemplateSpec`. `!` marks required
//! fields. Shapes: `s`tring, `i`nt32, `l`ong (int64), `b`ool, `f`loat, `t`ime, `m`icro time, `q`uantity, int `o`r string, b`y`tes in base64,
//! `r`aw JSON, `[shape]` list, `{shape}` map; a name with a dot is a type, with nothing before the dot of the same group and version. After a list:
//! `=` a set, `#a,b` a map by these keys (server-side apply), `^a` merged by this key (strategic merge), `^` added to, `~` `$retainKeys`.
//! After a struct or map: `=` owned as one value. A list without a mark is replaced whole.

use crate::kind::Kind;
use crate::quantity::Quantity;
use crate::status::Status;
use crate::time::Time;
use crate::tree::{JSON_DEPTH_MAX, Map, Value};

const TYPES: &str = include_str!("schema/types.txt");
/// Field errors told to the client.
const ERRORS_MAX: usize = 100;

/// One struct of the API.
#[derive(Clone, Copy)]
pub struct Type<'a> {
    /// `apps/v1.DeploymentSpec`
    pub name: &'a str,
    fields: &'a str,
}

/// One field of a struct.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    pub name: &'a str,
    pub required: bool,
    pub shape: Shape<'a>,
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
pub struct Inner<'a> {
    text: &'a str,
    /// Group and version that names beginning with a dot belong to.
    home: &'a str,
}

impl<'a> Inner<'a> {
    pub fn shape(self) -> Shape<'a> {
        Shape::parse(self.text, self.home)
    }
}

impl<'a> Shape<'a> {
    fn parse(text: &'a str, home: &'a str) -> Shape<'a> {
        let within = |open: char, close: char| text.strip_prefix(open).and_then(|t| t.rsplit_once(close));
        if let Some((inner, marks)) = within('[', ']') {
            return Shape::List(Inner { text: inner, home }, ListRules::parse(marks));
        }
        if let Some((inner, marks)) = within('{', '}') {
            return Shape::Map(Inner { text: inner, home }, marks == "=");
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
        self.fields.split(' ').filter(|f| !f.is_empty()).filter_map(move |f| self.parse(f))
    }
    pub fn field(self, name: &str) -> Option<Field<'a>> {
        let text =
            self.fields.split(' ').find(|f| f.strip_prefix(name).is_some_and(|rest| rest.starts_with([':', '!'])))?;
        self.parse(text)
    }
    fn parse(self, field: &'a str) -> Option<Field<'a>> {
        let (name, shape) = field.split_once(':')?;
        let (name, required) = name.strip_suffix('!').map_or((name, false), |n| (n, true));
        Some(Field { name, required, shape: Shape::parse(shape, self.home()) })
    }
    /// Whether `field` is a struct to which `$retainKeys` applies.
    pub fn retains_keys(self, field: &str) -> bool {
        self.fields
            .split(' ')
            .any(|f| f.ends_with('~') && f.strip_prefix(field).is_some_and(|rest| rest.starts_with([':', '!'])))
    }
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
                return Some(Type { name, fields });
            }
            std::cmp::Ordering::Less => low = end + 1,
            std::cmp::Ordering::Greater => high = start,
        }
    }
    None
}

/// The shape of a whole object of a kind; `Raw` for kinds without schema.
pub fn of(kind: &Kind) -> Shape<'static> {
    find(&kind.type_name).map_or(Shape::Raw, |t| Shape::Struct(t, false))
}

/// What to do with fields the kind does not have (`?fieldValidation=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// Strict: refuse
    Error,
    /// Warn: drop, and tell
    Warn,
    /// Ignore: drop
    Drop,
}

/// Checks types against the kind's schema, brings times and quantities into canonical form, and drops unknown fields and nulls. `duplicates` are the
/// doubled keys of `tree::parse_json`. Returns warnings (`unknown field "spec.x"`); refuses with 400 and upstream's wording.
pub fn check(kind: &Kind, object: &mut Value, duplicates: &[String], unknown: Unknown) -> Result<Vec<String>, Status> {
    let mut check = Checker { path: String::new(), owner: kind.kind.to_string(), depth: 0, unknown: Vec::new() };
    let refuse = |why: String| {
        Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {why}",
            kind.kind, kind.version, kind.kind
        ))
    };
    if !object.is_object() {
        return Err(refuse(format!(
            "json: cannot unmarshal {} into Go value of type {}",
            json_type(object),
            kind.kind
        )));
    }
    match of(kind) {
        Shape::Raw => check.metadata_only(object),
        shape => check.value(object, shape),
    }
    .map_err(refuse)?;
    let mut told: Vec<String> = duplicates.iter().map(|d| format!("duplicate field {d:?}")).collect();
    told.extend(check.unknown.iter().map(|u| format!("unknown field {u:?}")));
    told.truncate(ERRORS_MAX);
    match unknown {
        Unknown::Error if !told.is_empty() => Err(refuse(format!("strict decoding error: {}", told.join(", ")))),
        Unknown::Error | Unknown::Warn => Ok(told),
        Unknown::Drop => Ok(Vec::new()),
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

struct Checker {
    /// Where the check stands: `spec.containers[0].image`
    path: String,
    /// The struct around it, for messages.
    owner: String,
    depth: usize,
    unknown: Vec<String>,
}

impl Checker {
    fn metadata_only(&mut self, object: &mut Value) -> Result<(), String> {
        let (Some(meta), Some(ty)) = (object.get_mut("metadata"), find("meta/v1.ObjectMeta")) else { return Ok(()) };
        self.path.push_str("metadata");
        self.value(meta, Shape::Struct(ty, false))
    }

    fn mismatch<T>(&self, found: &Value, want: Shape<'_>) -> Result<T, String> {
        let number = if let Value::Number(n) = found { format!(" {n}") } else { String::new() };
        let plain: String = self.path.split('[').map(|p| p.split_once(']').map_or(p, |(_, rest)| rest)).collect();
        let what = json_type(found);
        Err(format!(
            "json: cannot unmarshal {what}{number} into Go struct field {}.{plain} of type {}",
            self.owner,
            want.go_name()
        ))
    }

    /// Runs `body` with the path lengthened by what `add` writes.
    fn within<T>(&mut self, add: impl FnOnce(&mut String), body: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        add(&mut self.path);
        let result = body(self);
        self.path.truncate(length);
        result
    }

    fn value(&mut self, value: &mut Value, shape: Shape<'_>) -> Result<(), String> {
        if self.depth >= JSON_DEPTH_MAX {
            return Err(format!("nested deeper than {JSON_DEPTH_MAX} levels"));
        }
        self.depth += 1;
        let result = self.value_within(value, shape);
        self.depth -= 1;
        result
    }

    fn value_within(&mut self, value: &mut Value, shape: Shape<'_>) -> Result<(), String> {
        match (shape, &mut *value) {
            (Shape::Struct(ty, _), Value::Object(map)) => {
                let short = ty.name.rsplit_once('.').map_or(ty.name, |(_, n)| n).to_string();
                let outer = std::mem::replace(&mut self.owner, short);
                let result = self.fields(map, ty);
                self.owner = outer;
                result
            }
            (Shape::Map(inner, _), Value::Object(map)) => {
                let shape = inner.shape();
                map.iter_mut().try_for_each(|(key, item)| {
                    self.within(|p| p.push_str(&format!("[{key}]")), |c| c.element(item, shape))
                })
            }
            (Shape::List(inner, _), Value::Array(list)) => {
                let shape = inner.shape();
                list.iter_mut().enumerate().try_for_each(|(i, item)| {
                    self.within(|p| p.push_str(&format!("[{i}]")), |c| c.element(item, shape))
                })
            }
            _ => self.leaf(value, shape),
        }
    }

    /// Null in a list or map is Go's zero value.
    fn element(&mut self, item: &mut Value, shape: Shape<'_>) -> Result<(), String> {
        match (&*item, shape) {
            (Value::Null, Shape::String) => *item = Value::String(String::new()),
            (Value::Null, Shape::Struct(..)) => *item = Value::Object(Map::new()),
            _ => {}
        }
        self.value(item, shape)
    }

    fn fields(&mut self, map: &mut Map<String, Value>, ty: Type<'_>) -> Result<(), String> {
        let mut drop = Vec::new();
        for (key, value) in map.iter_mut() {
            let add = |p: &mut String| {
                if !p.is_empty() {
                    p.push('.');
                }
                p.push_str(key);
            };
            match ty.field(key) {
                None => {
                    if self.unknown.len() < ERRORS_MAX {
                        self.within(add, |c| c.unknown.push(c.path.clone()));
                    }
                    drop.push(key.clone());
                }
                Some(_) if value.is_null() => drop.push(key.clone()),
                Some(field) => self.within(add, |c| c.value(value, field.shape))?,
            }
        }
        for key in drop {
            map.remove(&key);
        }
        Ok(())
    }

    fn leaf(&mut self, value: &mut Value, shape: Shape<'_>) -> Result<(), String> {
        let canonical = match (shape, &*value) {
            (Shape::Raw, _)
            | (Shape::String, Value::String(_))
            | (Shape::Bool, Value::Bool(_))
            | (Shape::Float, Value::Number(_)) => return Ok(()),
            (Shape::Int64, Value::Number(n)) if n.is_i64() => return Ok(()),
            (Shape::Int32 | Shape::IntOrString, Value::Number(n))
                if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                return Ok(());
            }
            (Shape::IntOrString, Value::String(_)) => return Ok(()),
            (Shape::Quantity, Value::String(_) | Value::Number(_)) => match Quantity::of(value) {
                Some(q) => q.to_string(),
                None => return Err(crate::quantity::ParseQuantityError.to_string()),
            },
            (Shape::Time | Shape::MicroTime, Value::String(text)) => match Time::parse(text) {
                Some(t) if matches!(shape, Shape::Time) => t.to_string(),
                Some(t) => t.micro(),
                None => {
                    return Err(format!(
                        "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?}"
                    ));
                }
            },
            (Shape::Bytes, Value::String(text)) => match base64_canonical(text) {
                Ok(clean) => clean,
                Err(at) => return Err(format!("illegal base64 data at input byte {at}")),
            },
            _ => return self.mismatch(value, shape),
        };
        *value = Value::String(canonical);
        Ok(())
    }
}

/// Standard base64 with padding, without the line ends that Go's decoder skips; or the place of the first bad byte.
fn base64_canonical(text: &str) -> Result<String, usize> {
    let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let data = clean.trim_end_matches('=');
    if let Some(at) = data.bytes().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))) {
        return Err(at);
    }
    let padding = clean.len() - data.len();
    let right = clean.len() % 4 == 0 && padding <= 2;
    if right { Ok(clean) } else { Err(data.len().min(clean.len() / 4 * 4)) }
}

#[cfg(test)]
mod tests;
