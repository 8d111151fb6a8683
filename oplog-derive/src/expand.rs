//! Writes the code of a checked model. Decides nothing.
//!
//! Whatever the code names is an absolute path, and its parameters begin with `__`: a parameter
//! `row` would clash with the unit struct `row` that `use schema::table::dsl::*` brings in.

use proc_macro2::{Literal, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Expr, Ident, LitStr};

use crate::grammar::DefaultValue;
use crate::keys::Slot;
use crate::model::{Column, Field, Model};

/// The implementations of a model in which every field is a column.
///
/// If the model has mistakes, which are emitted beside it, this still compiles and spares the
/// author the errors that a missing implementation would cause elsewhere.
pub fn model(model: &Model) -> TokenStream {
    let log_row = log_row(model);
    let oplogged = oplogged(model);
    let binding = binding(model);
    let coverage = coverage(model);
    let root = root(model);
    let Model { ident, krate, .. } = model;
    quote! {
        #[allow(deprecated, unused_qualifications, clippy::absolute_paths)]
        const _: () = {
            #log_row
            #oplogged
            #binding
            #coverage
            #root
            #krate::__private::submit! { #ident }
        };
    }
}

/// Stands for the implementations of a struct that can't be a model: what names the type in other
/// code compiles, if its table is known.
pub fn fallback(model: &Model) -> TokenStream {
    if !model.table_is_written || !model.can_be_named {
        return TokenStream::new();
    }
    let Model {
        ident,
        krate,
        table,
        ..
    } = model;
    quote! {
        const _: () = {
            #[automatically_derived]
            impl #krate::__private::LogRow for #ident {
                const DEF: &'static #krate::__private::TypeDef = &#krate::__private::TypeDef {
                    type_name: "",
                    rust_name: "",
                    type_id: ::core::any::TypeId::of::<Self>,
                    aggregate: "",
                    root: ::core::option::Option::None,
                    columns: &[],
                    reserved: &[],
                    partial: true,
                    lock_first: false,
                };
                fn value(
                    &self,
                    __column: ::core::primitive::usize,
                ) -> #krate::__private::Value<'_> {
                    #krate::__private::no_column(__column)
                }
                fn from_row(
                    _: &#krate::__private::RowValues<'_>,
                ) -> ::core::result::Result<Self, #krate::__private::RowError> {
                    #krate::__private::no_column(0)
                }
            }
            #[automatically_derived]
            impl #krate::__private::Oplogged for #ident {
                type Table = #table::table;
                type Columns =
                    <#table::table as #krate::__private::diesel::query_source::Table>::AllColumns;
                fn columns() -> Self::Columns {
                    #krate::__private::no_column(0)
                }
            }
        };
    }
}

/// The stored names, the encoding and the decoding.
fn log_row(model: &Model) -> TokenStream {
    let Model { ident, krate, .. } = model;
    let type_name = text(&model.type_name);
    let aggregate = text(&model.aggregate);
    let rust_name = format!("::{ident}");
    let root = match model.root_field() {
        Some(index) => {
            let index = Literal::usize_unsuffixed(index);
            quote!(::core::option::Option::Some(#index))
        }
        None => quote!(::core::option::Option::None),
    };
    let columns = model.fields.iter().map(|field| column_def(model, field));
    let reserved = model
        .reserved
        .iter()
        .map(|tag| Literal::u64_unsuffixed(tag.number & u64::from(u32::MAX)));
    let partial = model.partial;
    let lock_first = model.lock_first;

    let values = model.fields.iter().enumerate().map(|(i, field)| {
        let i = Literal::usize_unsuffixed(i);
        let Field { ty, member, .. } = field;
        quote!(#i => <#ty as #krate::__private::OplogValue>::to_value(&self.#member),)
    });
    let fields = model.fields.iter().enumerate().map(|(i, field)| {
        let i = Literal::usize_unsuffixed(i);
        let Field { ty, member, .. } = field;
        let value = match field.default.given() {
            None => quote!(__row.take::<#ty>(#i)?),
            Some(DefaultValue::Trait) => {
                quote!(__row.take_or(#i, || <#ty as ::core::default::Default>::default())?)
            }
            Some(DefaultValue::Expr(expr)) => {
                let expr = without_parens(expr);
                quote!(__row.take_or(#i, || -> #ty { #expr })?)
            }
        };
        quote!(#member: #value,)
    });

    quote! {
        #[automatically_derived]
        impl #krate::__private::LogRow for #ident {
            const DEF: &'static #krate::__private::TypeDef = &#krate::__private::TypeDef {
                type_name: #type_name,
                rust_name: ::core::concat!(::core::module_path!(), #rust_name),
                type_id: ::core::any::TypeId::of::<Self>,
                aggregate: #aggregate,
                root: #root,
                columns: &[#(#columns,)*],
                reserved: &[#(#reserved),*],
                partial: #partial,
                lock_first: #lock_first,
            };
            fn value(&self, __column: ::core::primitive::usize) -> #krate::__private::Value<'_> {
                match __column {
                    #(#values)*
                    _ => #krate::__private::no_column(__column),
                }
            }
            fn from_row(
                __row: &#krate::__private::RowValues<'_>,
            ) -> ::core::result::Result<Self, #krate::__private::RowError> {
                ::core::result::Result::Ok(Self { #(#fields)* })
            }
        }
    }
}

fn column_def(model: &Model, field: &Field) -> TokenStream {
    let krate = &model.krate;
    let tag = field.tag.given().map_or(0, |tag| tag.number);
    let tag = Literal::u64_unsuffixed(tag & u64::from(u32::MAX));
    let path = field.column.as_ref().map(|column| path(model, column));
    let ty = field.ty;
    let key = field
        .column
        .as_ref()
        .is_some_and(|column| model.primary_key.iter().any(|key| column.is(key)));
    quote! {
        #krate::__private::ColumnDef {
            tag: #tag,
            name: <#path as #krate::__private::diesel::query_source::Column>::NAME,
            kind: <#ty as #krate::__private::OplogValue>::KIND,
            nullable: <#ty as #krate::__private::OplogValue>::NULLABLE,
            key: #key,
        }
    }
}

/// The table and its columns.
fn oplogged(model: &Model) -> TokenStream {
    let Model {
        ident,
        krate,
        table,
        ..
    } = model;
    let columns: Vec<_> = columns(model).map(|column| path(model, column)).collect();
    let triggers = model.triggers.given().map(|triggers| {
        let variant = Ident::new(variant_of(triggers), Span::call_site());
        quote! {
            const TRIGGERS: #krate::__private::Triggers = #krate::__private::Triggers::#variant;
        }
    });
    let cascade = model.cascade.given().map(|cascade| {
        let variant = Ident::new(variant_of(cascade), Span::call_site());
        quote! {
            const CASCADE: #krate::__private::Cascade = #krate::__private::Cascade::#variant;
        }
    });
    quote! {
        #[automatically_derived]
        impl #krate::__private::Oplogged for #ident {
            type Table = #table::table;
            type Columns = (#(#columns,)*);
            #triggers
            #cascade
            // Not `Default::default()`: that ends at tuples of 12.
            fn columns() -> Self::Columns {
                (#(<#columns as ::core::default::Default>::default(),)*)
            }
        }
    }
}

/// The variant that a word of the author's stands for.
fn variant_of(word: &str) -> &'static str {
    match word {
        "reread" => "Reread",
        "ignore" => "Ignore",
        "log" => "Log",
        _ => "Undeclared",
    }
}

/// How each column is bound and read, for whatever backends are on.
fn binding(model: &Model) -> TokenStream {
    let Model { ident, krate, .. } = model;
    let columns = model.fields.iter().enumerate().map(|(i, field)| {
        let i = Literal::usize_unsuffixed(i);
        let path = field.column.as_ref().map(|column| path(model, column));
        let Field { ty, member, .. } = field;
        quote!(#i #member: #ty => #path,)
    });
    quote! {
        #krate::__private::bind_columns! { #ident { #(#columns)* } }
    }
}

/// The proof that the model accounts for every column of its table.
fn coverage(model: &Model) -> TokenStream {
    let Model {
        ident,
        krate,
        table,
        ..
    } = model;
    let covered = distinct(columns(model).chain(&model.unlogged_columns));
    let covered = covered.iter().map(|column| path(model, column));
    // Asked of the columns and not of the model: the compiler then leads with the column that is
    // missing instead of the list of all. With the span of the model's name as it is, so that the
    // compiler does not take this for a derived implementation and propose to write it by hand.
    let proof = (!model.partial).then(|| {
        quote_spanned! {ident.span()=>
            trait __Covered {
                const PROOF: () = ();
            }
            impl<__Columns> __Covered for __Columns
            where
                #ident: #krate::__private::CoversAll<__Columns>,
            {
            }
            const _: () =
                <<#table::table as #krate::__private::diesel::query_source::Table>::AllColumns
                    as __Covered>::PROOF;
        }
    });
    quote! {
        #(
            #[automatically_derived]
            impl #krate::__private::Covers<#covered> for #ident {}
        )*
        #proof
    }
}

/// The proof that the root's type can be part of an aggregate's name.
fn root(model: &Model) -> Option<TokenStream> {
    let krate = &model.krate;
    let field = &model.fields[model.root_field()?];
    let ty = field.ty;
    let name = field.name();
    let wrong = format!(
        "`{name}` can't be the root of an aggregate: a root is an integer, a `String`, a `bool` \
         or a newtype of these"
    );
    let nullable = format!(
        "`{name}` can't be the root of an aggregate: a root is never NULL, so its type is no \
         `Option`"
    );
    let span = Span::call_site().located_at(ty.span());
    Some(quote_spanned! {span=>
        const _: () = {
            ::core::assert!(!<#ty as #krate::__private::OplogValue>::NULLABLE, #nullable);
            ::core::assert!(<#ty as #krate::__private::OplogValue>::ROOT, #wrong);
        };
    })
}

fn columns<'a>(model: &'a Model) -> impl Iterator<Item = &'a Column> {
    model
        .fields
        .iter()
        .filter_map(|field| field.column.as_ref())
}

/// Two fields for one column are a mistake that is reported; two implementations for it would be
/// one more.
fn distinct<'a>(columns: impl Iterator<Item = &'a Column>) -> Vec<&'a Column> {
    let mut distinct: Vec<&Column> = Vec::new();
    for column in columns {
        if distinct.iter().all(|other| other.name != column.name) {
            distinct.push(column);
        }
    }
    distinct
}

fn path(model: &Model, column: &Column) -> TokenStream {
    let table = &model.table;
    let column: &Ident = &column.ident;
    quote!(#table::#column)
}

fn text(slot: &Slot<LitStr>) -> TokenStream {
    match slot.given() {
        Some(text) => text.to_token_stream(),
        None => quote!(""),
    }
}

/// `default = (1 + 2)` must not warn about its parentheses.
fn without_parens(expr: &Expr) -> &Expr {
    match expr {
        Expr::Paren(paren) if paren.attrs.is_empty() => &paren.expr,
        other => other,
    }
}
