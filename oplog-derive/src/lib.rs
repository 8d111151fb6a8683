//! `#[derive(Oplogged)]` and `#[derive(OplogValue)]` of `oplog-diesel`, which re-exports both. Use
//! them from there: the code they write names `::oplog_diesel` and nothing else of ours.
//!
//! Both report all mistakes at once, each at the smallest place, with the correct spelling.
//!
//! Their examples run in the package `oplog-ui-tests`, which can depend on `oplog-diesel`.

#![forbid(unsafe_code)]

mod attr;
mod check;
mod errors;
mod expand;
mod grammar;
mod keys;
mod model;
mod value;

#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use crate::errors::Errors;
use crate::model::Model;

#[doc = include_str!("oplogged.md")]
/// # Expanded example
///
/// What the derive writes for an account with a root and a column that was added later; a test
/// keeps it up to date.
///
/// ```
/// # diesel::table! {
/// #     accounts (id) { id -> BigInt, owner -> Text, balance -> BigInt, email -> Nullable<Text> }
/// # }
/// # struct Account { id: i64, owner: String, balance: i64, email: Option<String> }
#[doc = include_str!("snapshots/account.rs")]
/// ```
#[proc_macro_derive(Oplogged, attributes(oplog, diesel))]
pub fn derive_oplogged(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    oplogged(input.into()).into()
}

#[doc = include_str!("oplog_value.md")]
#[proc_macro_derive(OplogValue, attributes(oplog))]
pub fn derive_oplog_value(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    oplog_value(input.into()).into()
}

fn oplogged(input: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(input) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut errors = Errors::default();
    let code = Model::read(&input, &mut errors).map(|model| {
        check::check(&model, &mut errors);
        match model.is_complete {
            true => expand::model(&model),
            false => expand::fallback(&model),
        }
    });
    let errors = errors.into_compile_errors();
    quote!(#errors #code)
}

fn oplog_value(input: TokenStream) -> TokenStream {
    match syn::parse2(input) {
        Ok(input) => value::derive(&input),
        Err(error) => error.to_compile_error(),
    }
}
