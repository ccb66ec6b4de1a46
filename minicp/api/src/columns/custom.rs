//! The columns that a CustomResourceDefinition asks for.

use super::{Include, definition, name, row, since_creation, whole};
use crate::custom::{Column, Custom};
use crate::time::{Time, age};
use crate::tree::{Value, as_i64, json};

pub(super) fn table<'a>(
    custom: &Custom,
    items: impl IntoIterator<Item = &'a Value>,
    list_meta: Value,
    now: Time,
    include: Include,
) -> Value {
    let mut columns = vec![definition("Name")];
    let column = |c: &Column| json!({"name": c.name, "type": c.ty, "format": c.format, "description": c.description, "priority": c.priority});
    columns.extend(custom.columns.iter().map(column));
    if custom.columns.is_empty() {
        columns.push(json!({"name": "Age", "type": "date", "format": "", "description": "", "priority": 0}));
    }
    let cells = |object: &Value| {
        let mut cells = vec![name(object)];
        cells.extend(custom.columns.iter().map(|c| cell(c, object, now)));
        if custom.columns.is_empty() {
            cells.push(since_creation(object, now));
        }
        cells
    };
    let rows = items.into_iter().map(|object| row(object, cells(object), include)).collect();
    whole(columns, rows, list_meta)
}

/// What the first thing that the path finds is as a value of the column's type; null where it is of another.
fn cell(column: &Column, object: &Value, now: Time) -> Value {
    let Some(value) = column.path.find(object).first().copied().filter(|v| !v.is_null()) else { return Value::Null };
    match (column.ty.as_str(), value) {
        ("integer", _) => as_i64(value).map_or(Value::Null, Value::from),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) | ("string", Value::String(_)) => value.clone(),
        ("string", _) => json!(value.to_string()),
        ("date", Value::String(text)) if Time::parse(text).is_some() => json!(age(text, now)),
        ("date", Value::String(_)) => json!("<invalid>"),
        _ => Value::Null,
    }
}
