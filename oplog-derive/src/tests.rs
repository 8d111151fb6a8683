#![allow(clippy::unwrap_used)]

use proc_macro2::TokenStream;
use quote::quote;

/// The messages of the errors that a derive emits.
fn mistakes(output: TokenStream) -> Vec<String> {
    let file: syn::File = syn::parse2(output).expect("a derive emits items");
    file.items
        .iter()
        .filter_map(|item| match item {
            syn::Item::Macro(item) => Some(&item.mac),
            _ => None,
        })
        .filter(|mac| mac.path.segments.last().unwrap().ident == "compile_error")
        .map(|mac| mac.parse_body::<syn::LitStr>().unwrap().value())
        .collect()
}

/// Compares each mistake of a model with its text, the help in the next line.
fn check(model: TokenStream, expected: &[&str]) {
    assert_eq!(mistakes(crate::oplogged(model)), expected);
}

fn check_value(ty: TokenStream, expected: &[&str]) {
    assert_eq!(mistakes(crate::oplog_value(ty)), expected);
}

fn check_snapshot(output: TokenStream, path: &str) {
    let file: syn::File = syn::parse2(output).expect("a derive emits items");
    let pretty = prettyplease::unparse(&file);
    let path = format!("{}/src/snapshots/{path}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("OPLOG_BLESS").is_some() {
        std::fs::write(&path, &pretty).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(pretty, stored, "{path} differs; OPLOG_BLESS=1 writes it");
}

#[test]
fn a_model() {
    let output = crate::oplogged(quote! {
        #[derive(Queryable, Selectable, Identifiable, Oplogged)]
        #[diesel(table_name = accounts)]
        #[oplog(type_name = "account", aggregate = "account", root = id)]
        struct Account {
            #[oplog(tag = 1)]
            id: i64,
            #[oplog(tag = 2)]
            owner: String,
            #[oplog(tag = 3, default = 0)]
            balance: i64,
            #[oplog(tag = 4)]
            email: Option<String>,
        }
    });
    check_snapshot(output, "account.rs");
}

#[test]
fn every_key() {
    let output = crate::oplogged(quote! {
        #[oplog(
            type_name = "member",
            aggregate = "team",
            root = 0,
            ticket = "lock_first",
            reserved(2, 4),
            unlogged_columns(updated_at, r#match),
            triggers = "reread",
            cascade = "log",
            crate = "crate::log",
        )]
        #[diesel(table_name = crate::schema::members)]
        #[diesel(primary_key(team_id, r#type), check_for_backend(diesel::pg::Pg))]
        #[diesel(belongs_to(Team, foreign_key = team_id))]
        struct Member(
            #[oplog(tag = 1)]
            #[diesel(column_name = "team_id", sql_type = Nullable<Text>, skip_update)]
            TeamId,
            #[diesel(treat_none_as_null = true, column_name = "type")]
            #[oplog(tag = 0x10, default)]
            Kind,
        );
    });
    check_snapshot(output, "every_key.rs");
}

#[test]
fn values() {
    check_snapshot(
        crate::oplog_value(quote! {
            struct Email(String);
        }),
        "newtype.rs",
    );
    check_snapshot(
        crate::oplog_value(quote! {
            #[oplog(crate = "::log")]
            enum State {
                #[oplog(label = "active")]
                Active,
                #[oplog(label = "closed")]
                Closed = 7,
            }
        }),
        "labels.rs",
    );
}

#[test]
fn diesels_defaults_are_ours() {
    let output = crate::oplogged(quote! {
        #[oplog(type_name = "a", aggregate = "a", partial)]
        struct OAuthToken { #[oplog(tag = 1)] id: i64 }
    });
    let output = output.to_string();
    assert!(output.contains("o_auth_tokens :: table"), "{output}");
    assert!(output.contains("key : true"), "{output}");
}

#[test]
fn diesels_other_keys_are_passed_over() {
    check(
        quote! {
            #[oplog(type_name = "a", aggregate = "a")]
            #[diesel(base_query = a::table.order_by(a::id), base_query_type = OrderBy<a::table, a::id>)]
            #[diesel(sql_type = Wrap<T, String>, primary_key(a, b), aggregate, treat_none_as_null = true)]
            #[diesel(postgres_type(name = "x", schema = "y"), table_name = t)]
            struct A {
                #[diesel(sql_type = Wrap<T, String>, column_name = b)]
                #[diesel(select_expression_type = IsNotNull<a::b>)]
                #[diesel(skip_insertion, skip_update, treat_none_as_default_value = false)]
                #[oplog(tag = 1)]
                x: i64,
                #[oplog(tag = 2)]
                a: i64,
            }
        },
        &[],
    );
}

#[test]
fn all_mistakes_at_once() {
    check(
        quote! {
            #[diesel(table_name = accounts)]
            #[oplog(typename = "account", aggregate = "a:b", root = idd, reserved(3), partial = true, tag = 4)]
            struct Account {
                #[oplog(tag = 1)]
                id: i64,
                #[oplog(tag = 1)]
                owner: String,
                #[oplog(tag = 3, tag = 4)]
                balance: i64,
                email: Option<String>,
                #[oplog(tga = 5, default)]
                note: String,
            }
        },
        &[
            "unknown key `typename`\nhelp: did you mean `type_name`? a model accepts `type_name`, \
             `aggregate`, `root`, `ticket`, `reserved`, `partial`, `unlogged_columns`, \
             `triggers`, `cascade`, `crate`",
            "`partial` takes no value\nhelp: write `partial` alone, or leave it out",
            "`tag` does not belong on a model\nhelp: move it to the field that it describes",
            "duplicate key `tag`\nhelp: write it once",
            "unknown key `tga`\nhelp: did you mean `tag`? a field accepts `tag`, `default`",
            "`aggregate` holds a `:`\nhelp: `:` stands between the name and the value of `root`; \
             write only the name",
            "tag 1 is already that of field `id`\nhelp: the next free number is 6: `tag = 6`",
            "tag 3 is reserved\nhelp: a tag that a column of the past had is never used again; \
             the next free number is 7: `tag = 7`",
            "field `email` has no tag\nhelp: add `#[oplog(tag = 8)]`, the next free number",
            "`root` names no field: `idd`\nhelp: did you mean `root = id`?",
        ],
    );
}

#[test]
fn names_are_mandatory() {
    check(
        quote! { struct ApiToken { #[oplog(tag = 1)] id: i64 } },
        &[
            "`ApiToken` has no `type_name`, the name its rows have in the log\nhelp: add \
             `#[oplog(type_name = \"api_token\")]`, and never change it again",
            "`ApiToken` has no `aggregate`, the group its rows are ordered in\nhelp: add \
             `#[oplog(aggregate = \"api_token\")]` for one order of all rows, or with \
             `root = field` for one order for each value of that field",
        ],
    );
}

#[test]
fn a_misspelled_key_gives_way_to_the_real_one() {
    check(
        quote! {
            #[oplog(typename = 5, type_name = "a", aggregate = "a")]
            struct A { #[oplog(tga = 0, tag = 1)] id: i64 }
        },
        &[
            "unknown key `typename`\nhelp: did you mean `type_name`? a model accepts `type_name`, \
             `aggregate`, `root`, `ticket`, `reserved`, `partial`, `unlogged_columns`, \
             `triggers`, `cascade`, `crate`",
            "unknown key `tga`\nhelp: did you mean `tag`? a field accepts `tag`, `default`",
        ],
    );
}

#[test]
fn tags_out_of_range() {
    let range = "tags run from 1 to 536870911 without 19000 to 19999";
    for (tag, written) in [
        (quote!(0), "0"),
        (quote!(19000), "19000"),
        (quote!(0x4e1f), "0x4e1f"),
        (quote!(-1), "-1"),
        (quote!(536870912), "536870912"),
        (quote!(99999999999999999999), "99999999999999999999"),
    ] {
        check(
            quote! {
                #[oplog(type_name = "a", aggregate = "a")]
                struct A { #[oplog(tag = #tag)] id: i64 }
            },
            &[&format!(
                "tag {written} is out of range\nhelp: {range}; the next free number is 1: `tag = 1`"
            )],
        );
    }
    for tag in [quote!(1u32), quote!("1"), quote!(ONE), quote!()] {
        check(
            quote! {
                #[oplog(type_name = "a", aggregate = "a")]
                struct A { #[oplog(tag = #tag)] id: i64 }
            },
            &["a tag is a plain number\nhelp: the correct form is `tag = 1`"],
        );
    }
}

#[test]
fn the_next_free_tag_skips_protobufs_own() {
    check(
        quote! {
            #[oplog(type_name = "a", aggregate = "a", reserved(18999))]
            struct A { id: i64, #[oplog(tag = 536870911)] b: i64, c: i64, #[oplog(tag = 1)] d: i64 }
        },
        &[
            "field `id` has no tag\nhelp: add `#[oplog(tag = 2)]`, the next free number",
            "field `c` has no tag\nhelp: add `#[oplog(tag = 3)]`, the next free number",
        ],
    );
    check(
        quote! {
            #[oplog(type_name = "a", aggregate = "a", reserved(18999))]
            struct A { id: i64 }
        },
        &["field `id` has no tag\nhelp: add `#[oplog(tag = 20000)]`, the next free number"],
    );
}

#[test]
fn wrong_values() {
    check(
        quote! {
            #[oplog(type_name, aggregate = 5, root = "id", ticket = lock_first, reserved = 4, unlogged_columns(), crate = "log")]
            struct A { #[oplog(tag = 1, default = )] id: i64 }
        },
        &[
            "`type_name` needs a value\nhelp: the correct form is `type_name = \"account\"`",
            "`aggregate` needs a text in double quotes\nhelp: the correct form is \
             `aggregate = \"account\"`",
            "`root` needs the name of a field\nhelp: write it without quotes: `root = id`",
            "`ticket` needs a text in double quotes\nhelp: the correct form is \
             `ticket = \"lock_first\"`",
            "`reserved` needs a list in parentheses\nhelp: the correct form is `reserved(4, 7)`",
            "`unlogged_columns` lists nothing\nhelp: remove it, or write \
             `unlogged_columns(updated_at, search)`",
            "the path must be absolute\nhelp: begin it with `::` or `crate`: `crate = \"::log\"`",
            "`default` needs an expression, or nothing for `Default::default()`\nhelp: the correct \
             form is `default = 0`",
        ],
    );
}

#[test]
fn words_that_are_not_accepted() {
    check(
        quote! {
            #[oplog(type_name = "a", aggregate = "a", triggers = "rereed", cascade = "reread")]
            struct A { #[oplog(tag = 1)] id: i64 }
        },
        &[
            "`triggers` can't be \"rereed\"\nhelp: did you mean `triggers = \"reread\"`? \
             `triggers` accepts `\"reread\"`, `\"ignore\"`",
            "`cascade` can't be \"reread\"\nhelp: `cascade` accepts `\"log\"`",
        ],
    );
    check(
        quote! {
            #[oplog(type_name = "a", aggregate = "a", triggers, cascade = log)]
            struct A { #[oplog(tag = 1)] id: i64 }
        },
        &[
            "`triggers` needs a value\nhelp: the correct form is `triggers = \"reread\"`",
            "`cascade` needs a text in double quotes\nhelp: the correct form is \
             `cascade = \"log\"`",
        ],
    );
}

#[test]
fn nothing_panics() {
    let attributes = [
        quote!(#[oplog]),
        quote!(#[oplog = "x"]),
        quote!(#[oplog()]),
        quote!(#[oplog(,)]),
        quote!(#[oplog(5)]),
        quote!(#[oplog("x" = 5, tag)]),
        quote!(#[oplog(tag == 5)]),
        quote!(#[oplog(tag = 5 6)]),
        quote!(#[oplog(type_name = "a" "b", aggregate = "")]),
        quote!(#[oplog(ticket = "late", ticket)]),
        quote!(#[oplog(root = , root = 5)]),
        quote!(#[oplog(reserved(0, 4, 4), reserved(-1))]),
        quote!(#[oplog(reserved(a), unlogged_columns(5))]),
        quote!(#[oplog(crate = "")]),
        quote!(#[oplog(crate = "a b")]),
        quote!(#[oplog(default = a::<b, c>(), label = "x")]),
        quote!(#[oplog(default(x))]),
        quote!(#[oplog(foo::bar = 5, foo(bar), foo = Wrap<T, String>)]),
        quote!(#[diesel]),
        quote!(#[diesel = 5]),
        quote!(#[diesel(column_name = 5)]),
        quote!(#[diesel(column_name = "a b")]),
        quote!(#[diesel(column_name = "")]),
        quote!(#[diesel(column_name = "_")]),
        quote!(#[diesel(column_name = "self")]),
        quote!(#[diesel(column_name)]),
        quote!(#[diesel(table_name = "x", primary_key = 5)]),
        quote!(#[diesel(primary_key(id, id), ==)]),
        quote!(#[table_name = "x"]),
        quote!(#[primary_key(x)]),
        quote!(#[column_name = "x"]),
    ];
    for attribute in &attributes {
        for tokens in [
            quote!(#attribute struct A { #attribute id: i64 }),
            quote!(#attribute struct A(#attribute i64);),
            quote!(#attribute enum A { #attribute B, #attribute C(i64), D {} }),
            quote!(#attribute struct A;),
            quote!(#attribute union A { #attribute a: i64 }),
            quote!(#attribute struct r#type<'a, T, const N: usize> { #attribute r#type: &'a [T; N] }),
        ] {
            let _ = mistakes(crate::oplogged(tokens.clone()));
            let _ = mistakes(crate::oplog_value(tokens));
        }
    }
}

#[test]
fn what_diesel_stores_differently_is_refused() {
    check(
        quote! {
            #[oplog(type_name = "a", aggregate = "a")]
            #[diesel(table_name = t)]
            struct A {
                #[oplog(tag = 1)]
                id: i64,
                #[diesel(embed)]
                #[oplog(tag = 2)]
                address: Address,
                #[diesel(serialize_as = Wrap<T, String>, column_name = b)]
                #[oplog(tag = 3)]
                name: String,
            }
        },
        &[
            "`embed` is not supported in a logged model\nhelp: list the embedded columns as fields \
             of this struct",
            "`serialize_as` is not supported in a logged model\nhelp: give the field a type that \
             is stored as it is: a newtype with `#[derive(OplogValue)]` and its own `ToSql` and \
             `FromSql`",
        ],
    );
}

#[test]
fn diesels_old_attributes_are_refused() {
    check(
        quote! {
            #[table_name = "t"]
            #[primary_key(id)]
            #[oplog(type_name = "a", aggregate = "a")]
            struct A {
                #[column_name = "x"]
                #[oplog(tag = 1)]
                id: i64,
            }
        },
        &[
            "`table_name` outside of `#[diesel(...)]` is not read\nhelp: write \
             `#[diesel(table_name = accounts)]`",
            "`primary_key` outside of `#[diesel(...)]` is not read\nhelp: write \
             `#[diesel(primary_key(id))]`",
            "`column_name` outside of `#[diesel(...)]` is not read\nhelp: write \
             `#[diesel(column_name = owner)]`",
        ],
    );
}

#[test]
fn aggregates() {
    for (name, root, problem) in [
        ("a:b", false, "`aggregate` holds a `:`"),
        ("", false, "`aggregate` is empty"),
        (
            "_oplog/x",
            false,
            "an `aggregate` that begins with `_oplog/`",
        ),
        ("a\0b", false, "`aggregate` holds U+0000"),
        (
            &"a".repeat(256),
            false,
            "`aggregate` is 256 bytes long\nhelp: at most 255",
        ),
        (
            &"a".repeat(254),
            true,
            "`aggregate` is 254 bytes long\nhelp: at most 253",
        ),
    ] {
        let root = root.then(|| quote!(, root = id));
        let found = mistakes(crate::oplogged(quote! {
            #[oplog(type_name = "a", aggregate = #name #root)]
            struct A { #[oplog(tag = 1)] id: i64 }
        }));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(problem), "{found:?}");
    }
}

#[test]
fn shapes() {
    check(
        quote!(
            enum A {
                B,
            }
        ),
        &[
            "`#[derive(Oplogged)]` is for structs, not for enums\nhelp: a model is a struct with \
             one field for each column of its table; an enum that is a column has \
             `#[derive(OplogValue)]`",
        ],
    );
    check(
        quote! {
            #[oplog(type_name = "a", aggregate = "a")]
            struct A<'a, T, const N: usize> { #[oplog(tag = 1)] id: &'a [T; N] }
        },
        &[
            "a logged model owns what it holds and takes no lifetime\nhelp: use owned types: `String` \
             instead of `&str`, `Vec<u8>` instead of `&[u8]`",
            "a logged model takes no type parameter\nhelp: write the type that the field has",
            "a logged model takes no const parameter\nhelp: write the number where it is used",
        ],
    );
}

#[test]
fn columns() {
    check(
        quote! {
            #[oplog(type_name = "a", aggregate = "a", root = total, unlogged_columns(id, x, x))]
            #[diesel(table_name = t, primary_key(id, number))]
            struct A {
                #[oplog(tag = 1)]
                id: i64,
                #[oplog(tag = 2)]
                #[diesel(column_name = total)]
                sum: i64,
                #[oplog(tag = 3)]
                #[diesel(column_name = "total")]
                count: i64,
            }
        },
        &[
            "column `total` is already that of field `sum`\nhelp: a column belongs to one field; \
             name another column in `#[diesel(column_name = …)]`",
            "column `id` is logged, as field `id`\nhelp: remove the field or remove the column \
             from `unlogged_columns`",
            "column `x` is listed twice\nhelp: write it once",
            "`root` names no field: `total`\nhelp: did you mean `root = sum`?",
            "no primary key: `A` has no field for column `number`\nhelp: add the field, or name \
             the columns of the key in `#[diesel(primary_key(…))]`",
        ],
    );
}

#[test]
fn value_mistakes() {
    check_value(
        quote! {
            #[oplog(type_name = "x")]
            enum State {
                Active,
                #[oplog(label = "closed")]
                Closed,
                #[oplog(label = "closed")]
                Gone,
                #[oplog(label = "")]
                Lost,
                #[oplog(lable = "x")]
                Odd(i64),
            }
        },
        &[
            "`type_name` does not belong on a type with `#[derive(OplogValue)]`\nhelp: it is for \
             models, which have `#[derive(Oplogged)]`",
            "variant `Active` has no label, the text it is stored as\nhelp: add \
             `#[oplog(label = \"active\")]`, and never change it again",
            "label `closed` is already that of variant `Closed`\nhelp: give each variant its own",
            "`label` is empty\nhelp: the correct form is `label = \"lost\"`",
            "variant `Odd` holds fields\nhelp: only enums without fields are stored as labels; \
             for anything else, implement `oplog_diesel::OplogValue`",
            "unknown key `lable`\nhelp: did you mean `label`? a variant accepts `label`",
        ],
    );
    check_value(
        quote! { struct Pair(i64, #[oplog(tag = 1)] i64); },
        &[
            "`tag` does not belong on the field of a newtype\nhelp: it is for models, which have \
             `#[derive(Oplogged)]`",
            "`Pair` does not hold exactly one field\nhelp: a newtype has one: \
             `struct Pair(String);`; for anything else, implement `oplog_diesel::OplogValue`",
        ],
    );
}
