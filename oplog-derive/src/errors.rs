use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use std::fmt::Display;

/// Every mistake found so far, so that the author sees all of them at once.
///
/// The only way out is [`into_compile_errors`](Self::into_compile_errors), which the entry point
/// puts in front of whatever else it emits.
#[must_use = "mistakes that are not emitted are not seen"]
#[derive(Default)]
pub struct Errors(Vec<syn::Error>);

impl Errors {
    /// Reports a mistake at a place, with the correct spelling.
    pub fn at(&mut self, span: Span, problem: impl Display, help: impl Display) {
        self.0.push(error(span, problem, help));
    }

    /// Reports a mistake that is as long as `tokens`.
    pub fn on(&mut self, tokens: impl ToTokens, problem: impl Display, help: impl Display) {
        let message = format!("{problem}\nhelp: {help}");
        self.0.push(syn::Error::new_spanned(tokens, message));
    }

    /// Takes over a mistake that a parser returned.
    pub fn push(&mut self, error: syn::Error) {
        self.0.push(error);
    }

    /// One `compile_error!` for each mistake.
    pub fn into_compile_errors(self) -> TokenStream {
        self.0.iter().map(syn::Error::to_compile_error).collect()
    }
}

/// A mistake at a place, with the correct spelling.
pub fn error(span: Span, problem: impl Display, help: impl Display) -> syn::Error {
    syn::Error::new(span, format!("{problem}\nhelp: {help}"))
}

/// The accepted name that `written` most likely stands for.
pub fn nearest<'a>(written: &str, accepted: &[&'a str]) -> Option<&'a str> {
    let (distance, name) = accepted
        .iter()
        .map(|name| (edit_distance(written, name), *name))
        .min()?;
    // A third of the name may be wrong; more than that is another word.
    (distance <= (name.len() / 3).max(1)).then_some(name)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    fn check(written: &str, expected: Option<&str>) {
        let accepted = ["type_name", "aggregate", "root", "tag"];
        assert_eq!(nearest(written, &accepted), expected, "{written}");
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        check("typename", Some("type_name"));
        check("agregate", Some("aggregate"));
        check("tga", Some("tag"));
        check("rooot", Some("root"));
    }

    #[test]
    fn another_word_is_not() {
        check("ticket", None);
        check("rename", None);
        check("", None);
    }
}
