//! The grammar of each key's value. Every mistake says the correct form.

use proc_macro2::{Delimiter, Group, Span, TokenTree};
use syn::ext::IdentExt;
use syn::parse::discouraged::Speculative;
use syn::parse::{ParseStream, Parser};
use syn::{Expr, Ident, Lit, LitStr, Member, Path, Token};

use crate::errors::{error, nearest};
use crate::keys::Key;

/// A tag as written. Whether it can be used is for `check.rs` to say.
pub struct Tag {
    /// Greater than any tag if it is negative or needs more bits.
    pub number: u64,
    /// As its author wrote it.
    pub written: String,
    pub span: Span,
}

/// What a column holds in entries that are older than it.
pub enum DefaultValue {
    /// `default`
    Trait,
    /// `default = expr`
    Expr(Box<Expr>),
}

/// A column as written in `column_name`.
pub struct ColumnName {
    pub name: String,
    pub span: Span,
}

/// `key =`
pub fn equals(key: &Key, input: ParseStream, form: &str) -> syn::Result<()> {
    if input.peek(Token![=]) && !input.peek(Token![==]) {
        input.parse::<Token![=]>()?;
        return Ok(());
    }
    let problem = format!("`{}` needs a value", key.name);
    Err(error(
        key.span,
        problem,
        format!("the correct form is `{form}`"),
    ))
}

/// `key = "text"`
pub fn string(key: &Key, input: ParseStream, form: &str) -> syn::Result<LitStr> {
    equals(key, input, form)?;
    let span = input.span();
    let wrong = |span| {
        let problem = format!("`{}` needs a text in double quotes", key.name);
        error(span, problem, format!("the correct form is `{form}`"))
    };
    let text: LitStr = input.parse().map_err(|_| wrong(span))?;
    if !text.suffix().is_empty() {
        return Err(wrong(text.span()));
    }
    ends(input, form)?;
    Ok(text)
}

/// `triggers = "reread"`: one of a few words, which need no further check.
pub fn one_of(
    key: &Key,
    input: ParseStream,
    accepted: &'static [&'static str],
) -> syn::Result<&'static str> {
    let form = format!("{} = \"{}\"", key.name, accepted[0]);
    let text = string(key, input, &form)?;
    let written = text.value();
    let known = accepted.iter().copied().find(|word| *word == written);
    known.ok_or_else(|| {
        let words: Vec<String> = accepted.iter().map(|word| format!("\"{word}\"")).collect();
        let accepts = format!("`{}` accepts `{}`", key.name, words.join("`, `"));
        let help = match nearest(&written, accepted) {
            Some(meant) => format!("did you mean `{} = \"{meant}\"`? {accepts}", key.name),
            None => accepts,
        };
        let problem = format!("`{}` can't be \"{written}\"", key.name);
        error(text.span(), problem, help)
    })
}

/// `root = field`
pub fn member(key: &Key, input: ParseStream) -> syn::Result<Member> {
    let form = "root = id";
    equals(key, input, form)?;
    if let Ok(text) = input.fork().parse::<LitStr>() {
        let help = format!("write it without quotes: `root = {}`", text.value());
        return Err(error(text.span(), "`root` needs the name of a field", help));
    }
    let span = input.span();
    let member = input.parse().map_err(|_| {
        let help = format!("the correct form is `{form}`");
        error(span, "`root` needs the name of a field", help)
    })?;
    ends(input, form)?;
    Ok(member)
}

/// `reserved(4, 7)`
pub fn tags(key: &Key, input: ParseStream) -> syn::Result<Vec<Tag>> {
    let form = "reserved(4, 7)";
    let list = parenthesized(key, input, form)?;
    list_of(&list, key, form, |input| tag(input, form))
}

/// One tag, a plain number.
pub fn tag(input: ParseStream, form: &str) -> syn::Result<Tag> {
    let wrong = |span| {
        let help = format!("the correct form is `{form}`");
        error(span, "a tag is a plain number", help)
    };
    let span = input.span();
    let number = match input.parse() {
        Ok(Lit::Int(number)) => number,
        Ok(other) => return Err(wrong(other.span())),
        Err(_) => return Err(wrong(span)),
    };
    if !number.suffix().is_empty() {
        return Err(wrong(number.span()));
    }
    ends(input, form)?;
    Ok(Tag {
        number: number.base10_parse().unwrap_or(u64::MAX),
        written: number.to_string(),
        span: number.span(),
    })
}

/// `unlogged_columns(a, b)` and Diesel's `primary_key(a, b)`
pub fn idents(key: &Key, input: ParseStream, form: &str) -> syn::Result<Vec<Ident>> {
    let list = parenthesized(key, input, form)?;
    list_of(&list, key, form, |input| {
        let span = input.span();
        input.parse().map_err(|_| {
            let problem = format!("`{}` needs the names of columns", key.name);
            error(span, problem, format!("the correct form is `{form}`"))
        })
    })
}

fn parenthesized(key: &Key, input: ParseStream, form: &str) -> syn::Result<Group> {
    match input.fork().parse() {
        Ok(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
            let _: TokenTree = input.parse()?;
            ends(input, form)?;
            Ok(group)
        }
        _ => {
            let problem = format!("`{}` needs a list in parentheses", key.name);
            Err(error(
                key.span,
                problem,
                format!("the correct form is `{form}`"),
            ))
        }
    }
}

/// The items between the commas of a list.
fn list_of<T>(
    list: &Group,
    key: &Key,
    form: &str,
    item: impl Fn(ParseStream) -> syn::Result<T>,
) -> syn::Result<Vec<T>> {
    let parse = |input: ParseStream| {
        let mut items = Vec::new();
        while !input.is_empty() {
            items.push(item(input)?);
            ends(input, form)?;
            let _: Option<Token![,]> = input.parse()?;
        }
        Ok(items)
    };
    let items = parse.parse2(list.stream())?;
    if items.is_empty() {
        let problem = format!("`{}` lists nothing", key.name);
        return Err(error(
            list.span(),
            problem,
            format!("remove it, or write `{form}`"),
        ));
    }
    Ok(items)
}

/// `partial`
pub fn flag(key: &Key, input: ParseStream) -> syn::Result<()> {
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(());
    }
    let name = &key.name;
    let problem = format!("`{name}` takes no value");
    Err(error(
        key.span,
        problem,
        format!("write `{name}` alone, or leave it out"),
    ))
}

/// `default` or `default = expr`
pub fn default_value(input: ParseStream) -> syn::Result<DefaultValue> {
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(DefaultValue::Trait);
    }
    let wrong = |span| {
        error(
            span,
            "`default` needs an expression, or nothing for `Default::default()`",
            "the correct form is `default = 0`",
        )
    };
    if !input.peek(Token![=]) {
        return Err(wrong(input.span()));
    }
    let equals: Token![=] = input.parse()?;
    let span = match input.is_empty() {
        true => equals.span,
        false => input.span(),
    };
    let expr = input.parse().map_err(|_| wrong(span))?;
    ends(input, "default = 0")?;
    Ok(DefaultValue::Expr(Box::new(expr)))
}

/// `crate = "::path"`
pub fn crate_path(key: &Key, input: ParseStream) -> syn::Result<Path> {
    let form = "crate = \"::oplog_diesel\"";
    let text = string(key, input, form)?;
    let path = text.parse_with(Path::parse_mod_style).map_err(|_| {
        let problem = format!("`{}` is not a path", text.value());
        error(
            text.span(),
            problem,
            format!("the correct form is `{form}`"),
        )
    })?;
    let starts_in_crate = path
        .segments
        .first()
        .is_some_and(|first| first.ident == "crate");
    if path.leading_colon.is_none() && !starts_in_crate {
        // A relative path would mean something else in every module.
        let help = format!(
            "begin it with `::` or `crate`: `crate = \"::{}\"`",
            text.value()
        );
        return Err(error(text.span(), "the path must be absolute", help));
    }
    Ok(path)
}

/// Diesel takes a name with or without quotes.
pub fn column_name(input: ParseStream) -> syn::Result<ColumnName> {
    let fork = input.fork();
    if let Ok(ident) = fork.parse::<Ident>() {
        input.advance_to(&fork);
        return Ok(ColumnName {
            name: ident.unraw().to_string(),
            span: ident.span(),
        });
    }
    let span = input.span();
    let text: LitStr = input.parse().map_err(|_| {
        let help = "the correct form is `column_name = owner`";
        error(span, "`column_name` needs the name of a column", help)
    })?;
    let name = text.value();
    Ok(ColumnName {
        name: name.strip_prefix("r#").unwrap_or(&name).to_owned(),
        span: text.span(),
    })
}

fn ends(input: ParseStream, form: &str) -> syn::Result<()> {
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(());
    }
    let help = format!("the correct form is `{form}`");
    Err(error(input.span(), "expected `,` or the end", help))
}
