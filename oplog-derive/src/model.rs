//! A model as its author wrote it, with Diesel's defaults filled in.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Fields, GenericParam, Generics, Ident, LitStr, Member, Path, Type};

use crate::attr::{FieldAttrs, ModelAttrs};
use crate::errors::Errors;
use crate::grammar::{ColumnName, DefaultValue, Tag};
use crate::keys::Slot;

/// A borrowed view of a struct with `#[derive(Oplogged)]`.
pub struct Model<'a> {
    pub ident: &'a Ident,
    /// Path of `oplog-diesel`.
    pub krate: TokenStream,
    pub type_name: Slot<LitStr>,
    pub aggregate: Slot<LitStr>,
    pub root: Slot<Member>,
    pub reserved: Vec<Tag>,
    pub partial: bool,
    /// `ticket = "lock_first"`, the only value that is accepted.
    pub lock_first: bool,
    pub unlogged_columns: Vec<Column>,
    pub triggers: Slot<&'static str>,
    pub cascade: Slot<&'static str>,
    pub table: Path,
    /// The table was written, not derived from the struct's name.
    pub table_is_written: bool,
    /// SQL names of the key's columns as in the schema module, and where they were written.
    pub primary_key: Vec<Ident>,
    pub fields: Vec<Field<'a>>,
    /// Every field is one column and the type can be named: full code can be written, whatever
    /// else is wrong.
    pub is_complete: bool,
    /// The type has no generics, so that its name alone is a type.
    pub can_be_named: bool,
}

/// A field of a model.
pub struct Field<'a> {
    pub member: Member,
    /// Where the author would write an attribute.
    pub span: Span,
    pub ty: &'a Type,
    /// Absent if it can't be told, which has been reported.
    pub column: Option<Column>,
    pub tag: Slot<Tag>,
    pub default: Slot<DefaultValue>,
}

/// A column as the schema module names it.
pub struct Column {
    /// Raw where it must be.
    pub ident: Ident,
    /// Without `r#`.
    pub name: String,
}

impl<'a> Model<'a> {
    /// Reads a struct. `None` if it is none, or has no fields, which is reported.
    pub fn read(input: &'a DeriveInput, errors: &mut Errors) -> Option<Self> {
        let fields = fields_of(input, errors)?;
        let attrs = ModelAttrs::read(&input.attrs, errors);
        let can_be_named = refuse_generics(&input.generics, "a logged model", errors);

        let table_is_written = attrs.table_name.given().is_some();
        let table = match attrs.table_name {
            Slot::Given(table) => table,
            Slot::Absent | Slot::Wrong => Path::from(default_table(&input.ident)),
        };
        let primary_key = match attrs.primary_key {
            Slot::Given(key) => key,
            Slot::Absent => vec![Ident::new("id", input.ident.span())],
            Slot::Wrong => Vec::new(),
        };
        let unlogged_columns = match attrs.unlogged_columns {
            Slot::Given(columns) => columns.iter().map(Column::from_ident).collect(),
            Slot::Absent | Slot::Wrong => Vec::new(),
        };
        let reserved = match attrs.reserved {
            Slot::Given(tags) => tags,
            Slot::Absent | Slot::Wrong => Vec::new(),
        };

        let mut is_complete = can_be_named;
        let fields = fields
            .iter()
            .zip(fields.members())
            .map(|(field, member)| {
                let attrs = FieldAttrs::read(&field.attrs, errors);
                let span = match &field.ident {
                    Some(ident) => ident.span(),
                    None => field.ty.span(),
                };
                // An embedded struct is no column, so that nothing is said about its name.
                let column = match attrs.refused {
                    true => None,
                    false => column_of(field, attrs.column_name, errors),
                };
                is_complete &= column.is_some();
                Field {
                    member,
                    span,
                    ty: &field.ty,
                    column,
                    tag: attrs.tag,
                    default: attrs.default,
                }
            })
            .collect();

        Some(Model {
            ident: &input.ident,
            krate: krate(&attrs.krate),
            type_name: attrs.type_name,
            aggregate: attrs.aggregate,
            root: attrs.root,
            reserved,
            partial: !attrs.partial.is_absent(),
            lock_first: attrs.ticket.given().is_some(),
            unlogged_columns,
            triggers: attrs.triggers,
            cascade: attrs.cascade,
            table,
            table_is_written,
            primary_key,
            fields,
            is_complete,
            can_be_named,
        })
    }

    /// The index of the root's field.
    pub fn root_field(&self) -> Option<usize> {
        let root = self.root.given()?;
        self.fields
            .iter()
            .position(|field| same_member(&field.member, root))
    }
}

impl Field<'_> {
    /// The field as its author calls it.
    pub fn name(&self) -> String {
        member_name(&self.member)
    }
}

impl Column {
    fn from_ident(ident: &Ident) -> Self {
        Column {
            ident: ident.clone(),
            name: ident.unraw().to_string(),
        }
    }

    pub fn is(&self, ident: &Ident) -> bool {
        ident.unraw() == self.name
    }
}

/// The path of `oplog-diesel` in generated code.
pub fn krate(written: &Slot<Path>) -> TokenStream {
    match written.given() {
        Some(path) => path.to_token_stream(),
        None => quote!(::oplog_diesel),
    }
}

/// A field's name as its author wrote it.
pub fn member_name(member: &Member) -> String {
    match member {
        Member::Named(ident) => ident.to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}

/// A Rust name in snake case, as Diesel does it.
pub fn snake_case(ident: &Ident) -> String {
    let mut name = String::new();
    for (i, character) in ident.unraw().to_string().chars().enumerate() {
        if character.is_uppercase() && i > 0 {
            name.push('_');
        }
        name.extend(character.to_lowercase());
    }
    name
}

/// Reports every generic parameter; `false` if there is one.
pub fn refuse_generics(generics: &Generics, what: &str, errors: &mut Errors) -> bool {
    for param in &generics.params {
        match param {
            GenericParam::Lifetime(param) => errors.on(
                &param.lifetime,
                format!("{what} owns what it holds and takes no lifetime"),
                "use owned types: `String` instead of `&str`, `Vec<u8>` instead of `&[u8]`",
            ),
            GenericParam::Type(param) => errors.on(
                &param.ident,
                format!("{what} takes no type parameter"),
                "write the type that the field has",
            ),
            GenericParam::Const(param) => errors.on(
                &param.ident,
                format!("{what} takes no const parameter"),
                "write the number where it is used",
            ),
        }
    }
    generics.params.is_empty()
}

fn fields_of<'a>(input: &'a DeriveInput, errors: &mut Errors) -> Option<&'a Fields> {
    let help = "a model is a struct with one field for each column of its table";
    let fields = match &input.data {
        Data::Struct(data) => &data.fields,
        Data::Enum(data) => {
            errors.at(
                data.enum_token.span,
                "`#[derive(Oplogged)]` is for structs, not for enums",
                format!("{help}; an enum that is a column has `#[derive(OplogValue)]`"),
            );
            return None;
        }
        Data::Union(data) => {
            errors.at(
                data.union_token.span,
                "`#[derive(Oplogged)]` is for structs, not for unions",
                help,
            );
            return None;
        }
    };
    if fields.is_empty() {
        errors.at(input.ident.span(), "a logged model needs fields", help);
        return None;
    }
    Some(fields)
}

fn column_of(field: &syn::Field, written: Slot<ColumnName>, errors: &mut Errors) -> Option<Column> {
    let (name, span) = match (written, &field.ident) {
        (Slot::Given(column), _) => (column.name, column.span),
        (Slot::Wrong, _) => return None,
        (Slot::Absent, Some(ident)) => (ident.unraw().to_string(), ident.span()),
        (Slot::Absent, None) => {
            errors.on(
                &field.ty,
                "a field without a name needs the name of its column",
                "put `#[diesel(column_name = owner)]` before the type",
            );
            return None;
        }
    };
    let Some(ident) = column_ident(&name, span) else {
        errors.at(
            span,
            format!("`{name}` is not the name of a column"),
            "write the name that the column has in the `table!` of its schema",
        );
        return None;
    };
    Some(Column { ident, name })
}

/// The name as an identifier, raw where it must be.
fn column_ident(name: &str, span: Span) -> Option<Ident> {
    let mut ident = syn::parse_str::<Ident>(name)
        .or_else(|_| syn::parse_str::<Ident>(&format!("r#{name}")))
        .ok()?;
    ident.set_span(span);
    Some(ident)
}

/// The table's name as Diesel derives it: snake case and an `s`.
fn default_table(model: &Ident) -> Ident {
    let table = format!("{}s", snake_case(model));
    column_ident(&table, model.span()).unwrap_or_else(|| model.clone())
}

fn same_member(a: &Member, b: &Member) -> bool {
    match (a, b) {
        (Member::Named(a), Member::Named(b)) => a.unraw() == b.unraw(),
        (Member::Unnamed(a), Member::Unnamed(b)) => a.index == b.index,
        _ => false,
    }
}
