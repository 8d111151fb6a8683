//! The keys of an attribute: which are accepted where, and how to get past those we do not read.

use proc_macro2::{Span, TokenTree};
use syn::ext::IdentExt;
use syn::parse::discouraged::Speculative;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Expr, Ident, Meta, Token, Type};

use crate::errors::{Errors, nearest};

/// The name and place of a key.
pub struct Key {
    pub name: String,
    pub span: Span,
    /// Something similar was written, which has been reported.
    is_guess: bool,
}

impl Key {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        // Also `crate`, which is a keyword.
        let ident = input.call(Ident::parse_any)?;
        Ok(Key {
            name: ident.to_string(),
            span: ident.span(),
            is_guess: false,
        })
    }
}

/// A key that may be there once.
pub enum Slot<T> {
    /// Not written.
    Absent,
    /// Written, but its value was wrong, which has been reported.
    Wrong,
    /// Written.
    Given(T),
}

impl<T> Slot<T> {
    pub fn given(&self) -> Option<&T> {
        match self {
            Slot::Given(value) => Some(value),
            Slot::Absent | Slot::Wrong => None,
        }
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Slot::Absent)
    }
}

const MODEL_KEYS: &[&str] = &[
    "type_name",
    "aggregate",
    "root",
    "ticket",
    "reserved",
    "partial",
    "unlogged_columns",
    "triggers",
    "cascade",
    "crate",
];
const FIELD_KEYS: &[&str] = &["tag", "default"];
const VALUE_KEYS: &[&str] = &["crate"];
const VARIANT_KEYS: &[&str] = &["label"];

/// A place where keys can be written, with what is accepted elsewhere.
pub struct Place {
    /// As in "a model accepts".
    name: &'static str,
    accepted: &'static [&'static str],
    elsewhere: &'static [(&'static [&'static str], &'static str)],
}

pub const ON_MODEL: Place = Place {
    name: "a model",
    accepted: MODEL_KEYS,
    elsewhere: &[
        (FIELD_KEYS, "move it to the field that it describes"),
        (VARIANT_KEYS, VARIANT_HINT),
    ],
};
pub const ON_FIELD: Place = Place {
    name: "a field",
    accepted: FIELD_KEYS,
    elsewhere: &[
        (MODEL_KEYS, "move it above the struct"),
        (VARIANT_KEYS, VARIANT_HINT),
    ],
};
pub const ON_VALUE: Place = Place {
    name: "a type with `#[derive(OplogValue)]`",
    accepted: VALUE_KEYS,
    elsewhere: &[
        (VARIANT_KEYS, "move it to the variant that it names"),
        (MODEL_KEYS, MODEL_HINT),
        (FIELD_KEYS, MODEL_HINT),
    ],
};
pub const ON_VARIANT: Place = Place {
    name: "a variant",
    accepted: VARIANT_KEYS,
    elsewhere: &[
        (VALUE_KEYS, "move it above the enum"),
        (MODEL_KEYS, MODEL_HINT),
        (FIELD_KEYS, MODEL_HINT),
    ],
};
pub const ON_INNER: Place = Place {
    name: "the field of a newtype",
    accepted: &[],
    elsewhere: &[
        (VALUE_KEYS, "move it above the struct"),
        (MODEL_KEYS, MODEL_HINT),
        (FIELD_KEYS, MODEL_HINT),
        (VARIANT_KEYS, VARIANT_HINT),
    ],
};
const VARIANT_HINT: &str = "it names a variant of an enum with `#[derive(OplogValue)]`";
const MODEL_HINT: &str = "it is for models, which have `#[derive(Oplogged)]`";

/// Calls `take` for each key of `#[oplog(...)]`. It returns whether it knows the key.
pub fn each_oplog_key(
    attr: &Attribute,
    place: &Place,
    errors: &mut Errors,
    mut take: impl FnMut(&Key, ParseStream, &mut Errors) -> bool,
) {
    let Meta::List(list) = &attr.meta else {
        errors.on(
            &attr.meta,
            "`oplog` needs keys in parentheses",
            "the correct form is `#[oplog(key = value)]`",
        );
        return;
    };
    let keys = |input: ParseStream| {
        // A misspelled key counts as the one it was meant to be, so that its absence is not one
        // more mistake; the real one goes first.
        let mut guesses = Vec::new();
        while !input.is_empty() {
            match input.call(Key::parse) {
                Ok(key) if take(&key, input, errors) => {}
                Ok(key) => {
                    if let Some(meant) = refuse(&key, place, errors) {
                        guesses.push((meant, input.fork()));
                    }
                    skip_value(input);
                }
                Err(wrong) => errors.at(wrong.span(), "expected a key", accepts(place)),
            }
            // What stands before the comma now is the rest of a mistake.
            skip_to_comma(input);
            let _: Option<Token![,]> = input.parse()?;
        }
        for (key, value) in &guesses {
            take(key, value, errors);
        }
        Ok(())
    };
    if let Err(error) = keys.parse2(list.tokens.clone()) {
        errors.push(error);
    }
}

/// Calls `take` for each key of `#[diesel(...)]`. It returns whether it read the value; the values
/// of all other keys are passed over, and mistakes in them left to Diesel.
pub fn each_diesel_key(
    attr: &Attribute,
    errors: &mut Errors,
    mut take: impl FnMut(&Key, ParseStream, &mut Errors) -> bool,
) {
    let Meta::List(list) = &attr.meta else {
        return;
    };
    let keys = |input: ParseStream| {
        while !input.is_empty() {
            match input.call(Key::parse) {
                Ok(key) if take(&key, input, errors) => {}
                Ok(_) => skip_value(input),
                Err(_) => {}
            }
            skip_to_comma(input);
            let _: Option<Token![,]> = input.parse()?;
        }
        Ok(())
    };
    if let Err(error) = keys.parse2(list.tokens.clone()) {
        errors.push(error);
    }
}

/// Reports a key that is not accepted. Returns the one that was most likely meant.
fn refuse(key: &Key, place: &Place, errors: &mut Errors) -> Option<Key> {
    let name = &key.name;
    let elsewhere = place
        .elsewhere
        .iter()
        .find(|(keys, _)| keys.contains(&name.as_str()));
    if let Some((_, hint)) = elsewhere {
        let problem = format!("`{name}` does not belong on {}", place.name);
        errors.at(key.span, problem, hint);
        return None;
    }
    let problem = format!("unknown key `{name}`");
    let Some(meant) = nearest(name, place.accepted) else {
        errors.at(key.span, problem, accepts(place));
        return None;
    };
    let help = format!("did you mean `{meant}`? {}", accepts(place));
    errors.at(key.span, problem, help);
    Some(Key {
        name: meant.to_owned(),
        span: key.span,
        is_guess: true,
    })
}

/// What can be written at a place, as a sentence.
fn accepts(place: &Place) -> String {
    match place.accepted {
        [] => format!("{} accepts no keys", place.name),
        keys => format!("{} accepts `{}`", place.name, keys.join("`, `")),
    }
}

/// Puts a value into its slot, unless the key was there before or its value is wrong.
pub fn fill<T>(slot: &mut Slot<T>, key: &Key, value: syn::Result<T>, errors: &mut Errors) {
    if !slot.is_absent() {
        if key.is_guess {
            return;
        }
        let problem = format!("duplicate key `{}`", key.name);
        errors.at(key.span, problem, "write it once");
        return;
    }
    *slot = match value {
        Ok(value) => Slot::Given(value),
        Err(error) => {
            errors.push(error);
            Slot::Wrong
        }
    };
}

/// Passes over the value of a key we do not need.
///
/// `primary_key(a, b)`, `sql_type = Nullable<Text>` and `serialize_as = Wrap<T, String>` all hold
/// commas or brackets, so none of "a group", "a type" and "an expression" alone will do.
fn skip_value(input: ParseStream) {
    if input.peek(syn::token::Paren) {
        let _ = input.parse::<TokenTree>();
        return;
    }
    if !input.peek(Token![=]) {
        return;
    }
    let _ = input.parse::<Token![=]>();
    let ends = |input: ParseStream| input.is_empty() || input.peek(Token![,]);
    let fork = input.fork();
    if fork.parse::<Type>().is_ok() && ends(&fork) {
        input.advance_to(&fork);
        return;
    }
    let fork = input.fork();
    if fork.parse::<Expr>().is_ok() && ends(&fork) {
        input.advance_to(&fork);
        return;
    }
    skip_to_comma(input);
}

fn skip_to_comma(input: ParseStream) {
    while !input.is_empty() && !input.peek(Token![,]) {
        let _ = input.parse::<TokenTree>();
    }
}
