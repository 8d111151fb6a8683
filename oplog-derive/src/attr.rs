//! The keys of `#[oplog(...)]`, which is ours and strict, and of `#[diesel(...)]` what we need.
//!
//! Nothing here knows what the keys mean for a model; a mistake in one key does not hide the next.

use syn::{Attribute, Ident, LitStr, Member, Meta, Path};

use crate::errors::Errors;
use crate::grammar::{
    ColumnName, DefaultValue, Tag, column_name, crate_path, default_value, equals, flag, idents,
    member, one_of, string, tag, tags,
};
use crate::keys::{
    ON_FIELD, ON_INNER, ON_MODEL, ON_VALUE, ON_VARIANT, Slot, each_diesel_key, each_oplog_key, fill,
};

/// What a model can say about the triggers of its table.
const TRIGGERS: &[&str] = &["reread", "ignore"];
/// What a model can say about the foreign keys that act on the rows below it.
const CASCADE: &[&str] = &["log"];

/// The keys of a model.
pub struct ModelAttrs {
    pub type_name: Slot<LitStr>,
    pub aggregate: Slot<LitStr>,
    pub root: Slot<Member>,
    pub reserved: Slot<Vec<Tag>>,
    pub partial: Slot<()>,
    pub ticket: Slot<&'static str>,
    pub unlogged_columns: Slot<Vec<Ident>>,
    pub triggers: Slot<&'static str>,
    pub cascade: Slot<&'static str>,
    pub krate: Slot<Path>,
    /// Diesel's `table_name`.
    pub table_name: Slot<Path>,
    /// Diesel's `primary_key`.
    pub primary_key: Slot<Vec<Ident>>,
}

/// The keys of a field of a model.
pub struct FieldAttrs {
    pub tag: Slot<Tag>,
    pub default: Slot<DefaultValue>,
    /// Diesel's `column_name`.
    pub column_name: Slot<ColumnName>,
    /// A key of Diesel's makes the field something else than its column; it has been reported.
    pub refused: bool,
}

/// The keys of a type with `#[derive(OplogValue)]`.
pub struct ValueAttrs {
    pub krate: Slot<Path>,
}

/// The keys of a variant.
pub struct VariantAttrs {
    pub label: Slot<LitStr>,
}

impl ModelAttrs {
    pub fn read(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = ModelAttrs {
            type_name: Slot::Absent,
            aggregate: Slot::Absent,
            root: Slot::Absent,
            reserved: Slot::Absent,
            partial: Slot::Absent,
            ticket: Slot::Absent,
            unlogged_columns: Slot::Absent,
            triggers: Slot::Absent,
            cascade: Slot::Absent,
            krate: Slot::Absent,
            table_name: Slot::Absent,
            primary_key: Slot::Absent,
        };
        for attr in attrs {
            if attr.path().is_ident("oplog") {
                this.read_oplog(attr, errors);
            } else if attr.path().is_ident("diesel") {
                this.read_diesel(attr, errors);
            } else {
                refuse_old_form(attr, &["table_name", "primary_key"], errors);
            }
        }
        this
    }

    fn read_oplog(&mut self, attr: &Attribute, errors: &mut Errors) {
        each_oplog_key(attr, &ON_MODEL, errors, |key, input, errors| {
            match key.name.as_str() {
                "type_name" => {
                    let value = string(key, input, "type_name = \"account\"");
                    fill(&mut self.type_name, key, value, errors);
                }
                "aggregate" => {
                    let value = string(key, input, "aggregate = \"account\"");
                    fill(&mut self.aggregate, key, value, errors);
                }
                "root" => fill(&mut self.root, key, member(key, input), errors),
                "reserved" => fill(&mut self.reserved, key, tags(key, input), errors),
                "ticket" => {
                    let value = one_of(key, input, &["lock_first"]);
                    fill(&mut self.ticket, key, value, errors);
                }
                "partial" => fill(&mut self.partial, key, flag(key, input), errors),
                "unlogged_columns" => {
                    let value = idents(key, input, "unlogged_columns(updated_at, search)");
                    fill(&mut self.unlogged_columns, key, value, errors);
                }
                "triggers" => fill(
                    &mut self.triggers,
                    key,
                    one_of(key, input, TRIGGERS),
                    errors,
                ),
                "cascade" => fill(&mut self.cascade, key, one_of(key, input, CASCADE), errors),
                "crate" => fill(&mut self.krate, key, crate_path(key, input), errors),
                _ => return false,
            }
            true
        });
    }

    fn read_diesel(&mut self, attr: &Attribute, errors: &mut Errors) {
        each_diesel_key(attr, errors, |key, input, errors| {
            match key.name.as_str() {
                "table_name" => {
                    let value = equals(key, input, "table_name = accounts")
                        .and_then(|()| input.call(Path::parse_mod_style));
                    fill(&mut self.table_name, key, value, errors);
                }
                "primary_key" => {
                    let value = idents(key, input, "primary_key(id)");
                    fill(&mut self.primary_key, key, value, errors);
                }
                _ => return false,
            }
            true
        });
    }
}

impl FieldAttrs {
    pub fn read(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = FieldAttrs {
            tag: Slot::Absent,
            default: Slot::Absent,
            column_name: Slot::Absent,
            refused: false,
        };
        for attr in attrs {
            if attr.path().is_ident("oplog") {
                this.read_oplog(attr, errors);
            } else if attr.path().is_ident("diesel") {
                this.read_diesel(attr, errors);
            } else {
                refuse_old_form(attr, &["column_name"], errors);
            }
        }
        this
    }

    fn read_oplog(&mut self, attr: &Attribute, errors: &mut Errors) {
        each_oplog_key(attr, &ON_FIELD, errors, |key, input, errors| {
            match key.name.as_str() {
                "tag" => {
                    let value = equals(key, input, "tag = 1").and_then(|()| tag(input, "tag = 1"));
                    fill(&mut self.tag, key, value, errors);
                }
                "default" => fill(&mut self.default, key, default_value(input), errors),
                _ => return false,
            }
            true
        });
    }

    fn read_diesel(&mut self, attr: &Attribute, errors: &mut Errors) {
        each_diesel_key(attr, errors, |key, input, errors| {
            // Keys that only change what a statement writes (`skip_insertion`, `skip_update`,
            // `treat_none_as_*`) are passed over: the stored row is what we log.
            let why = match key.name.as_str() {
                "column_name" => {
                    let value =
                        equals(key, input, "column_name = owner").and_then(|()| column_name(input));
                    fill(&mut self.column_name, key, value, errors);
                    return true;
                }
                "embed" => "list the embedded columns as fields of this struct",
                "serialize_as" | "deserialize_as" => {
                    "give the field a type that is stored as it is: a newtype with \
                     `#[derive(OplogValue)]` and its own `ToSql` and `FromSql`"
                }
                "select_expression" => {
                    "a field holds the column as it is stored; compute the value in a model \
                     without `#[derive(Oplogged)]`"
                }
                _ => return false,
            };
            self.refused = true;
            let problem = format!("`{}` is not supported in a logged model", key.name);
            errors.at(key.span, problem, why);
            false
        });
    }
}

impl ValueAttrs {
    pub fn read(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = ValueAttrs {
            krate: Slot::Absent,
        };
        for attr in oplog_attrs(attrs) {
            each_oplog_key(attr, &ON_VALUE, errors, |key, input, errors| {
                if key.name != "crate" {
                    return false;
                }
                fill(&mut this.krate, key, crate_path(key, input), errors);
                true
            });
        }
        this
    }

    /// The field of a newtype takes no keys.
    pub fn refuse_on_inner(attrs: &[Attribute], errors: &mut Errors) {
        for attr in oplog_attrs(attrs) {
            each_oplog_key(attr, &ON_INNER, errors, |_, _, _| false);
        }
    }
}

impl VariantAttrs {
    pub fn read(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = VariantAttrs {
            label: Slot::Absent,
        };
        for attr in oplog_attrs(attrs) {
            each_oplog_key(attr, &ON_VARIANT, errors, |key, input, errors| {
                if key.name != "label" {
                    return false;
                }
                let value = string(key, input, "label = \"active\"");
                fill(&mut this.label, key, value, errors);
                true
            });
        }
        this
    }
}

fn oplog_attrs(attrs: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attrs.iter().filter(|attr| attr.path().is_ident("oplog"))
}

/// Diesel still reads `#[table_name = "…"]` and the like; a helper attribute of Diesel's own is
/// none of ours, and to pass over it would be to log another table.
fn refuse_old_form(attr: &Attribute, names: &[&str], errors: &mut Errors) {
    let Some(name) = names.iter().find(|name| attr.path().is_ident(name)) else {
        return;
    };
    let is_diesels = matches!(
        (&attr.meta, *name),
        (Meta::List(_), "primary_key") | (Meta::NameValue(_), "table_name" | "column_name")
    );
    if !is_diesels {
        return;
    }
    let spelling = match *name {
        "primary_key" => "#[diesel(primary_key(id))]",
        "table_name" => "#[diesel(table_name = accounts)]",
        _ => "#[diesel(column_name = owner)]",
    };
    errors.on(
        attr.path(),
        format!("`{name}` outside of `#[diesel(...)]` is not read"),
        format!("write `{spelling}`"),
    );
}
