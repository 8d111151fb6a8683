//! The rules of a model, one function each.

use syn::ext::IdentExt;
use syn::{LitStr, Member};

use crate::errors::{Errors, nearest};
use crate::keys::Slot;
use crate::model::{Model, member_name, snake_case};

/// Reports every rule that the model breaks.
pub fn check(model: &Model, errors: &mut Errors) {
    has_type_name(model, errors);
    has_aggregate(model, errors);
    reserved_tags_are_tags(model, errors);
    tags_are_unique(model, errors);
    columns_are_unique(model, errors);
    unlogged_columns_are_no_fields(model, errors);
    root_is_a_field(model, errors);
    has_primary_key(model, errors);
}

/// Largest tag of protobuf.
const TAG_MAX: u64 = 536_870_911;
/// Protobuf keeps these for itself.
const TAGS_OF_PROTOBUF: std::ops::RangeInclusive<u64> = 19_000..=19_999;
/// Longest name of an aggregate in bytes.
const AGGREGATE_MAX: usize = 255;

fn has_type_name(model: &Model, errors: &mut Errors) {
    match &model.type_name {
        Slot::Wrong => {}
        Slot::Absent => {
            let name = snake_case(model.ident);
            errors.at(
                model.ident.span(),
                format!(
                    "`{}` has no `type_name`, the name its rows have in the log",
                    model.ident
                ),
                format!("add `#[oplog(type_name = \"{name}\")]`, and never change it again"),
            );
        }
        Slot::Given(name) if name.value().is_empty() => {
            let help = format!(
                "the correct form is `type_name = \"{}\"`",
                snake_case(model.ident)
            );
            errors.at(name.span(), "`type_name` is empty", help);
        }
        Slot::Given(_) => {}
    }
}

fn has_aggregate(model: &Model, errors: &mut Errors) {
    let aggregate = match &model.aggregate {
        Slot::Wrong => return,
        Slot::Absent => {
            let name = snake_case(model.ident);
            errors.at(
                model.ident.span(),
                format!(
                    "`{}` has no `aggregate`, the group its rows are ordered in",
                    model.ident
                ),
                format!(
                    "add `#[oplog(aggregate = \"{name}\")]` for one order of all rows, or with \
                     `root = field` for one order for each value of that field"
                ),
            );
            return;
        }
        Slot::Given(aggregate) => aggregate,
    };
    if let Some((problem, help)) = wrong_aggregate(aggregate, !model.root.is_absent()) {
        errors.at(aggregate.span(), problem, help);
    }
}

/// What is wrong with the name of an aggregate and what would be right.
fn wrong_aggregate(aggregate: &LitStr, has_root: bool) -> Option<(String, String)> {
    let name = aggregate.value();
    // `:` and at least one byte of the root's value follow.
    let max = if has_root {
        AGGREGATE_MAX - 2
    } else {
        AGGREGATE_MAX
    };
    let wrong = |problem: &str, help: &str| Some((problem.to_owned(), help.to_owned()));
    if name.is_empty() {
        return wrong(
            "`aggregate` is empty",
            "the correct form is `aggregate = \"account\"`",
        );
    }
    if name.len() > max {
        return Some((
            format!("`aggregate` is {} bytes long", name.len()),
            format!("at most {max} bytes fit"),
        ));
    }
    if name.contains(':') {
        return wrong(
            "`aggregate` holds a `:`",
            "`:` stands between the name and the value of `root`; write only the name",
        );
    }
    if name.starts_with("_oplog/") {
        return wrong(
            "an `aggregate` that begins with `_oplog/` belongs to the operation log itself",
            "choose another name",
        );
    }
    if name.contains('\0') {
        return wrong(
            "`aggregate` holds U+0000",
            "databases can't store it; leave it out",
        );
    }
    None
}

fn reserved_tags_are_tags(model: &Model, errors: &mut Errors) {
    for (i, tag) in model.reserved.iter().enumerate() {
        if !in_range(tag.number) {
            errors.at(
                tag.span,
                format!("tag {} can't be reserved", tag.written),
                format!("{RANGE}, so no column ever had it"),
            );
        } else if model.reserved[..i]
            .iter()
            .any(|other| other.number == tag.number)
        {
            let problem = format!("tag {} is reserved twice", tag.number);
            errors.at(tag.span, problem, "write it once");
        }
    }
}

fn tags_are_unique(model: &Model, errors: &mut Errors) {
    let mut free = FreeTags::of(model);
    for (i, field) in model.fields.iter().enumerate() {
        let name = field.name();
        let tag = match &field.tag {
            Slot::Wrong => continue,
            Slot::Absent => {
                let next = free.next();
                errors.at(
                    field.span,
                    format!("field `{name}` has no tag"),
                    format!("add `#[oplog(tag = {next})]`, the next free number"),
                );
                continue;
            }
            Slot::Given(tag) => tag,
        };
        let number = tag.number;
        if !in_range(number) {
            let next = free.next();
            errors.at(
                tag.span,
                format!("tag {} is out of range", tag.written),
                format!("{RANGE}; the next free number is {next}: `tag = {next}`"),
            );
        } else if model
            .reserved
            .iter()
            .any(|reserved| reserved.number == number)
        {
            let next = free.next();
            errors.at(
                tag.span,
                format!("tag {number} is reserved"),
                format!(
                    "a tag that a column of the past had is never used again; the next free \
                     number is {next}: `tag = {next}`"
                ),
            );
        } else if let Some(first) = model.fields[..i]
            .iter()
            .find(|other| other.tag.given().is_some_and(|tag| tag.number == number))
        {
            let next = free.next();
            errors.at(
                tag.span,
                format!("tag {number} is already that of field `{}`", first.name()),
                format!("the next free number is {next}: `tag = {next}`"),
            );
        }
    }
}

fn columns_are_unique(model: &Model, errors: &mut Errors) {
    for (i, field) in model.fields.iter().enumerate() {
        let Some(column) = &field.column else {
            continue;
        };
        let first = model.fields[..i].iter().find(|other| {
            let other = other.column.as_ref();
            other.is_some_and(|other| other.name == column.name)
        });
        if let Some(first) = first {
            errors.at(
                column.ident.span(),
                format!(
                    "column `{}` is already that of field `{}`",
                    column.name,
                    first.name()
                ),
                "a column belongs to one field; name another column in \
                 `#[diesel(column_name = …)]`",
            );
        }
    }
}

fn unlogged_columns_are_no_fields(model: &Model, errors: &mut Errors) {
    for (i, unlogged) in model.unlogged_columns.iter().enumerate() {
        let field = model.fields.iter().find(|field| {
            let column = field.column.as_ref();
            column.is_some_and(|column| column.name == unlogged.name)
        });
        let span = unlogged.ident.span();
        if let Some(field) = field {
            errors.at(
                span,
                format!(
                    "column `{}` is logged, as field `{}`",
                    unlogged.name,
                    field.name()
                ),
                "remove the field or remove the column from `unlogged_columns`",
            );
        } else if model.unlogged_columns[..i]
            .iter()
            .any(|other| other.name == unlogged.name)
        {
            let problem = format!("column `{}` is listed twice", unlogged.name);
            errors.at(span, problem, "write it once");
        }
    }
}

fn root_is_a_field(model: &Model, errors: &mut Errors) {
    let Some(root) = model.root.given() else {
        return;
    };
    if model.root_field().is_some() {
        return;
    }
    let written = member_name(root);
    let by_column = model.fields.iter().find(|field| {
        let column = field.column.as_ref();
        column.is_some_and(|column| matches!(root, Member::Named(root) if column.is(root)))
    });
    let names: Vec<String> = model.fields.iter().map(|field| field.name()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let meant = match by_column {
        Some(field) => Some(field.name()),
        None => nearest(&written, &names).map(str::to_owned),
    };
    let help = match meant {
        Some(meant) => format!("did you mean `root = {meant}`?"),
        None => format!("name one of the fields: `{}`", names.join("`, `")),
    };
    let span = match root {
        Member::Named(ident) => ident.span(),
        Member::Unnamed(index) => index.span,
    };
    errors.at(span, format!("`root` names no field: `{written}`"), help);
}

fn has_primary_key(model: &Model, errors: &mut Errors) {
    for (i, key) in model.primary_key.iter().enumerate() {
        if model.primary_key[..i]
            .iter()
            .any(|other| other.unraw() == key.unraw())
        {
            let problem = format!("column `{key}` is twice in the primary key");
            errors.at(key.span(), problem, "write it once");
            continue;
        }
        let is_field = model.fields.iter().any(|field| {
            let column = field.column.as_ref();
            column.is_some_and(|column| column.is(key))
        });
        // A field without a known column, reported already, may be the one.
        let may_be_field = model.fields.iter().any(|field| field.column.is_none());
        if is_field || may_be_field {
            continue;
        }
        errors.at(
            key.span(),
            format!(
                "no primary key: `{}` has no field for column `{key}`",
                model.ident
            ),
            "add the field, or name the columns of the key in `#[diesel(primary_key(…))]`",
        );
    }
}

const RANGE: &str = "tags run from 1 to 536870911 without 19000 to 19999";

fn in_range(number: u64) -> bool {
    (1..=TAG_MAX).contains(&number) && !TAGS_OF_PROTOBUF.contains(&number)
}

/// Hands out numbers that no column has or had.
struct FreeTags {
    used: Vec<u64>,
    next: u64,
}

impl FreeTags {
    fn of(model: &Model) -> Self {
        let fields = model.fields.iter().filter_map(|field| field.tag.given());
        let used: Vec<u64> = fields
            .chain(&model.reserved)
            .map(|tag| tag.number)
            .filter(|number| in_range(*number))
            .collect();
        // After the largest: a gap below it may have belonged to a column that nobody reserved.
        let next = used.iter().max().map_or(1, |largest| largest + 1);
        FreeTags { used, next }
    }

    fn next(&mut self) -> u64 {
        if self.next > TAG_MAX {
            self.next = 1;
        }
        while !in_range(self.next) || self.used.contains(&self.next) {
            self.next += 1;
        }
        let free = self.next;
        self.next += 1;
        free
    }
}
