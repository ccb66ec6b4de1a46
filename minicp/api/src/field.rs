//! Field errors: what is wrong with which field, in upstream's words (apimachinery `field.Error`).

use std::fmt;

/// Where a field is: linked through the call stack, written out only when something is wrong there.
#[derive(Clone, Copy)]
pub enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    /// `spec` -> `spec.name`
    pub fn f(&'a self, name: &'a str) -> Path<'a> {
        Path::Field(self, name)
    }
    /// `spec.containers` -> `spec.containers[0]`
    pub fn i(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }
    /// `data` -> `data[key]`
    pub fn k(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(above, name) => write!(f, "{above}.{name}"),
            Path::Index(above, index) => write!(f, "{above}[{index}]"),
            Path::Key(above, key) => write!(f, "{above}[{key}]"),
        }
    }
}

impl From<Path<'_>> for String {
    fn from(path: Path<'_>) -> String {
        path.to_string()
    }
}

/// Upstream's `field.ErrorType`: the `reason` of a cause in a Status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl Reason {
    /// The word in `status.details.causes[].reason`.
    pub fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One wrong field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    pub reason: Reason,
    /// `spec.containers[0].image`
    pub field: String,
    /// Without the field: `Invalid value: "x": a lowercase ...`
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// How a value is printed in a message: strings quoted, the rest as JSON.
fn shown(value: &serde_json::Value) -> String {
    value.to_string()
}

impl Error {
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        Self { reason: Reason::Required, field: field.into(), message }
    }
    pub fn invalid(field: impl Into<String>, value: &serde_json::Value, detail: &str) -> Self {
        let message = format!("Invalid value: {}: {detail}", shown(value));
        Self { reason: Reason::Invalid, field: field.into(), message }
    }
    pub fn invalid_str(field: impl Into<String>, value: &str, detail: &str) -> Self {
        Self { reason: Reason::Invalid, field: field.into(), message: format!("Invalid value: {value:?}: {detail}") }
    }
    pub fn duplicate(field: impl Into<String>, value: &serde_json::Value) -> Self {
        Self { reason: Reason::Duplicate, field: field.into(), message: format!("Duplicate value: {}", shown(value)) }
    }
    pub fn not_found(field: impl Into<String>, value: &str) -> Self {
        Self { reason: Reason::NotFound, field: field.into(), message: format!("Not found: {value:?}") }
    }
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: Reason::Forbidden, field: field.into(), message: format!("Forbidden: {detail}") }
    }
    /// `allowed` in the order upstream sorts them: alphabetical.
    pub fn not_supported(field: impl Into<String>, value: &serde_json::Value, allowed: &[&str]) -> Self {
        let list = allowed.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {}: supported values: {list}", shown(value));
        Self { reason: Reason::NotSupported, field: field.into(), message }
    }
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        let message = format!("Too long: may not be more than {max} bytes");
        Self { reason: Reason::TooLong, field: field.into(), message }
    }
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        let message = format!("Too many: {actual}: must have at most {max} items");
        Self { reason: Reason::TooMany, field: field.into(), message }
    }
}
